"""The demo as a newcomer starts it: exchanges in a process of their own, ccxt between, and the same account on both sides."""

import asyncio
import dataclasses
import io
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

import fundarb
from fundarb.apps.composition import parameter_schemas
from fundarb.apps.demo import DemoPlan, run_demo
from fundarb.apps.replayer import replay_run
from fundarb.apps.session_log import opened_record
from fundarb.config.parameters import load_parameters
from fundarb.config.settings import StorageSettings, load_settings

pytestmark = pytest.mark.timeout(600)  # half a minute of work, on a machine that may be busy

ROOT = Path(fundarb.__file__).parents[1]
PARAMS = load_parameters(ROOT / "params" / "cross_funding" / "demo.json", parameter_schemas())
EAGER = {"enter_edge_bps": 0.0, "exit_bps_h": -0.5, "horizon_h": 720, "persistence": 0.9}  # so that two days are enough


def settings_for(folder):
    settings = load_settings(ROOT / "settings.ini", env={})
    return settings.model_copy(update={"paths": settings.paths.model_copy(update={"runs": folder})})


def eager():
    return dataclasses.replace(PARAMS, parameters=PARAMS.parameters.model_copy(update=EAGER))


def watched(folder, plan):
    console = Console(file=io.StringIO(), force_terminal=False)
    return asyncio.run(run_demo(settings_for(folder), eager(), plan, console))


@contextmanager
def others_at_work(processes):
    """Keep the machine busy with what has nothing to do with us."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


PLAN = DemoPlan(seed=7, days=2, symbols=("DOGE", "LINK"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return watched(tmp_path_factory.mktemp("runs"), PLAN)


def orders_and_fills(folder):
    with opened_record(folder, StorageSettings()) as record:
        told = [entry.message for entry in record.entries]
    return sorted(
        (each.ts_event_ns, each.venue, each.symbol, each.client_order_id, each.trade_id, each.qty_base, each.price, each.fee)
        for each in told
        if type(each).__name__ == "OrderFilled"
    )


def test_it_trades_pays_and_leaves_nothing_open(run):
    result, _ = run
    assert result["closed"] and result["fills"] > 0 and result["ended_because"] == "the session is over"
    assert result["settlements_booked"] == result["settlements_due"] > 0


def test_every_venue_says_what_the_ledger_says(run):
    _, folder = run
    written = json.loads((folder / "result.json").read_text())
    assert written["exchange_client"] == "ccxt"
    assert set(written["reconciliation"]) == {"binance", "hyperliquid", "okx"}
    for venue, books in written["reconciliation"].items():
        assert books["ledger_equity"] == books["venue_equity"], venue


def test_a_busy_machine_comes_to_the_same_result_only_later(run, tmp_path, capfd):
    result, folder = run
    with others_at_work(2):
        again, other = watched(tmp_path, PLAN)
    assert orders_and_fills(other) == orders_and_fills(folder) != []
    told = ("net_pnl", "funding_pnl", "fees", "price_pnl", "fills", "settlements_booked", "max_naked_s")
    assert {name: again[name] for name in told} == {name: result[name] for name in told}
    assert "session ended" in (other / "log.jsonl").read_text()
    assert capfd.readouterr().err == ""  # and not between the lines that a person reads


def test_it_replays(run):
    assert replay_run(run[1]) is None


def test_a_changed_interval_is_told_once(run):
    """Binance settles DOGE every four hours from a settlement on: one change, and not back and forth."""
    _, folder = run
    with opened_record(folder, StorageSettings()) as record:
        told = [entry.message for entry in record.entries]
    changes = [(c.venue, c.symbol, c.was_h, c.now_h) for c in told if type(c).__name__ == "FundingIntervalChanged"]
    assert changes == [("binance", "DOGE", 8, 4)]
