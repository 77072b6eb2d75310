"""The doctor asks three venues over their wire, finishes its table, and refuses what must be refused."""

import asyncio
from pathlib import Path

import coincurve

import fundarb
from fundarb.apps.connect import sandbox_way
from fundarb.apps.doctor import judge
from fundarb.apps.look import examine_all
from fundarb.config.settings import load_settings
from fundarb.core.numbers import SECOND_NS
from fundarb.exchanges.ccxt_client import EXPIRES_MS
from fundarb.sandbox.faults import KeyRights
from fundarb.sandbox.host import Sandbox, address_of, synthetic_market, write_known

ROOT = Path(fundarb.__file__).parents[1]


def settings():
    return load_settings(ROOT / "settings.ini", env={})


def test_an_order_expires_before_its_absence_is_believed():
    assert EXPIRES_MS / 1000 < float(settings().execution.unknown_guard_s)


def examined(tmp_path, strike, tamper=lambda sandbox, known: None):
    async def play():
        deposits = {venue: terms.deposit_usd for venue, terms in settings().venues.items()}
        sandbox = Sandbox(synthetic_market(7, 1, symbols=("BTC", "ETH", "SOL")), deposits, paused=True)
        sandbox.world.advance(sandbox.world.now_ns + 180 * SECOND_NS)
        async with sandbox:
            for server in sandbox.servers.values():
                if strike is not None:
                    server.shake(strike)
            known = sandbox.known()
            tamper(sandbox, known)
            write_known(known, tmp_path / "sandbox.json")
            return judge(await examine_all(sandbox_way(tmp_path / "sandbox.json", settings())), settings())

    return {(check.venue, check.what): check for check in asyncio.run(play())}


def test_the_doctor_finishes_its_table(tmp_path):
    found = examined(tmp_path, None)
    for venue in ("binance", "hyperliquid", "okx"):
        assert found[venue, "withdrawal"].state == found[venue, "trading"].state == "ok", venue
    assert not [check for check in found.values() if check.state == "mend"], "a fresh sandbox needs no mending"
    assert not [check for check in found.values() if check.what in ("rights", "modes", "margins", "fees", "opening")]


def test_the_doctor_refuses_keys_that_may_withdraw(tmp_path):
    found = examined(tmp_path, KeyRights())
    assert found["binance", "withdrawal"].state == "mend"
    assert "withdraw" in found["okx", "opening"].found or found["okx", "withdrawal"].state == "mend"


def test_the_doctor_refuses_an_agent_that_nobody_has_approved(tmp_path):
    found = examined(tmp_path, None, lambda sandbox, known: sandbox.servers["hyperliquid"].desk.agents.clear())
    assert found["hyperliquid", "trading"].state == "mend"
    assert found["hyperliquid", "withdrawal"].state == "ok"


def test_the_doctor_refuses_the_accounts_own_key(tmp_path):
    def give_it(sandbox, known):
        own = coincurve.PrivateKey()
        sandbox.servers["hyperliquid"].desk.address = known["hyperliquid"]["wallet_address"] = address_of(own)
        known["hyperliquid"]["private_key"] = "0x" + own.secret.hex()

    found = examined(tmp_path, None, give_it)
    assert found["hyperliquid", "withdrawal"].state == "mend"
    assert found["hyperliquid", "trading"].state == "ok"
