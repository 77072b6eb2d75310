"""A short live session over the wire of a sandbox: it ends flat, replays, and every venue agrees to the cent."""

import asyncio
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import fundarb
from fundarb.apps.composition import parameter_schemas
from fundarb.apps.connect import sandbox_way
from fundarb.apps.live_recipe import LivePlan
from fundarb.apps.live_trader import run_live
from fundarb.apps.replayer import replay_run
from fundarb.apps.session_log import opened_record
from fundarb.config.parameters import load_parameters
from fundarb.config.settings import StorageSettings, load_settings
from fundarb.core.numbers import MINUTE_NS
from fundarb.sandbox.host import Sandbox, synthetic_market, write_known

pytestmark = pytest.mark.timeout(600)  # half a minute of work, on a machine that may be busy

ROOT = Path(fundarb.__file__).parents[1]
SYMBOLS = ("DOGE", "LINK")
EAGER = {"enter_edge_bps": 0.0, "exit_bps_h": -0.5, "horizon_h": 720, "persistence": 0.9}  # once the usual basis is known: a day


async def session(folder: Path) -> tuple[dict, dict]:
    """Trade 34 simulated hours; return the result, and each venue's own books."""
    settings = load_settings(ROOT / "settings.ini", env={})
    settings = settings.model_copy(update={"live": settings.live.model_copy(update={"symbols": SYMBOLS})})
    params = load_parameters(ROOT / "params" / "cross_funding" / "demo.json", parameter_schemas())
    params = replace(params, parameters=params.parameters.model_copy(update=EAGER))
    deposits = {venue: settings.venues[venue].deposit_usd for venue in ("binance", "hyperliquid", "okx")}
    sandbox = Sandbox(synthetic_market(7, 2), deposits, paused=True)
    sandbox.world.advance(sandbox.world.now_ns + 3 * MINUTE_NS)
    async with sandbox:
        write_known(sandbox.known(), folder / "sandbox.json")
        way = sandbox_way(folder / "sandbox.json", settings)
        plan = LivePlan(
            kind="live",
            session_id="live-test",
            folder=folder / "session",
            title="test",
            origin={"market": "sandbox"},
            hours=34,
            started=way.let_go,
        )
        console = Console(file=io.StringIO(), force_terminal=False)
        result = await run_live(settings, params, plan, way.clock, way.connect, console)
        return result, {venue: sandbox.world.account(venue) for venue in deposits}


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    return folder / "session", *asyncio.run(session(folder))


def test_it_trades_and_leaves_nothing_open(traded):
    _, result, accounts = traded
    assert result["closed"] and result["still_open"] == []
    assert result["fills"] > 0 and all(not account.positions for account in accounts.values())


def test_ledger_and_venues_agree_to_the_cent(traded):
    _, result, accounts = traded
    assert result["settlements_booked"] == result["settlements_due"] > 0
    for venue, books in result["reconciliation"].items():
        assert books["ledger_equity"] == books["venue_equity"], venue
        assert abs(float(books["ledger_equity"]) - float(accounts[venue].wallet)) < 0.005, venue


def test_no_order_is_sent_twice(traded):
    folder, _, accounts = traded
    with opened_record(folder, StorageSettings()) as record:
        entries = list(record.entries)
    sent = Counter(
        entry.message.client_order_id
        for entry in entries
        if type(entry.message).__name__ == "SubmitOrder"
    )
    assert sent and max(sent.values()) == 1
    there = sum(len(account.orders) for account in accounts.values())
    assert there <= len(sent)  # a refused one is on no venue's books


def test_every_venue_s_health_is_in_the_record(traded):
    folder, _, accounts = traded
    with opened_record(folder, StorageSettings()) as record:
        told = [entry.message for entry in record.entries if type(entry.message).__name__ == "VenueHealthReported"]
    assert {health.venue for health in told} == set(accounts)
    assert all(health.latency_p95_s > 0 for health in told)


def test_it_replays(traded):
    folder, _, _ = traded
    assert replay_run(folder) is None


def test_the_result_says_how_it_was_made(traded):
    folder, _, _ = traded
    result = json.loads((folder / "result.json").read_text())
    assert result["exchange_client"] == "ccxt" and set(result["reconciliation"]) == {"binance", "hyperliquid", "okx"}
