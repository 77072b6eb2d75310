"""A venue that answers badly on the wire is not entered, may be left, and is entered again when it has recovered."""

import asyncio
from decimal import Decimal as D

import pytest

from fundarb.config.settings import LimitSettings
from fundarb.core.events import VenueHealthReported
from fundarb.core.events import decode, encode
from fundarb.core.numbers import SECOND_NS
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.exchanges.connection import HOSTS, Connection
from fundarb.exchanges.venues import adapter_for
from fundarb.risk.health import VenueHealth
from fundarb.sandbox.binance import BinanceServer
from fundarb.sandbox.traffic import Traffic
from fundarb.sandbox.faults import Delay, ErrorAnswer, FaultBook, SkewClock
from fundarb.sandbox.world import World

LIMITS = {"max_error_frac": "0.2", "max_latency_s": "0.4", "max_clock_skew_s": "1"}
FAULTS = {
    "max_error_frac": (ErrorAnswer(endpoint="GET /fapi/v1/time", status=503, times=0), None),
    "max_latency_s": (Delay(endpoint="GET /fapi/v1/time", seconds=0.6, times=0), None),
    "max_clock_skew_s": (SkewClock(venue="binance", milliseconds=3000), SkewClock(venue="binance", milliseconds=0)),
}


async def until(holds, within_s=15.0):
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


async def story(limit):
    """Let a venue be well, ill and well again; return what risk says to entries each time, and the events."""
    spec = default_spec(seed=7, days=2)
    instruments = default_instruments(spec)
    deposits = {terms.venue: D(100_000) for terms in spec.venues}
    world, faults, told = World(instruments, SyntheticMarket(spec, instruments), deposits), FaultBook(), []
    world.advance(spec.start_ns + 100 * SECOND_NS)
    server, rules = BinanceServer(world, Traffic(), faults), VenueHealth(LimitSettings(**LIMITS))

    def hear(event):
        if isinstance(event, VenueHealthReported):
            told.append(event)
            rules.hear(decode(encode(event)))

    await server.start()
    connection = Connection({host: ("127.0.0.1", server.http_port) for host in HOSTS["binance"]})
    words = {"symbols": ["BTC"], "credentials": None, "connection": connection, "timeout_ms": 1500}
    adapter = adapter_for("binance", clock=lambda: world.now_ns, emit=hear, **words)
    try:
        await adapter.open()
        adapter.client.meter.window_s = 1.0
        watching = asyncio.ensure_future(adapter.watch_health(every_s=0.05))
        try:
            await until(lambda: told and rules.check("binance") is None)
            ill, well = FAULTS[limit]
            server.shake(ill) if well else faults.add(ill)
            await until(lambda: rules.check("binance"))
            breach = rules.check("binance")
            server.shake(well) if well else faults.withdraw()
            await until(lambda: rules.check("binance") is None)
        finally:
            watching.cancel()
    finally:
        await adapter.close()
        await server.stop()
    return breach, told


@pytest.mark.parametrize("limit", FAULTS)
def test_it_is_blocked_by_name_and_free_again(limit):
    breach, told = asyncio.run(story(limit))
    assert breach.limit == limit and "binance" in str(breach)
    assert all(event.venue == "binance" and event.ts_init_ns for event in told)
