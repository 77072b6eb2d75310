"""Thirty coins start against the venues' production limits without being refused once."""

import asyncio
from decimal import Decimal as D

import pytest

from fundarb.core.events import AccountReported
from fundarb.core.numbers import SECOND_NS
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.exchanges.base import Credentials
from fundarb.exchanges.connection import HOSTS, Connection
from fundarb.exchanges.venues import ADAPTERS, adapter_for
from fundarb.sandbox.binance import BinanceServer
from fundarb.sandbox.traffic import Traffic
from fundarb.sandbox.faults import FaultBook
from fundarb.sandbox.hyperliquid import HyperliquidServer
from fundarb.sandbox.okx import OkxServer
from fundarb.sandbox.okx_gate import Keys
from fundarb.sandbox.world import World

ADDRESS, PRIVATE_KEY = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A", "0x" + "11" * 32


def opened(venue, world):
    parts = (world, Traffic(), FaultBook())
    if venue == "binance":
        server = BinanceServer(*parts)
        return server, Credentials(server.keys.api_key, server.keys.secret)
    if venue == "hyperliquid":
        return HyperliquidServer(*parts, ADDRESS), Credentials(ADDRESS, PRIVATE_KEY)
    return OkxServer(*parts, Keys("key", "secret", "word")), Credentials("key", "secret", "word")


async def start(venue):
    """Open an adapter for all coins of a venue; count what was answered, by status."""
    spec = default_spec(seed=7, days=1, coins=30)
    instruments = default_instruments(spec)
    world = World(instruments, SyntheticMarket(spec, instruments), {terms.venue: D(100_000) for terms in spec.venues})
    world.advance(spec.start_ns + 100 * SECOND_NS)
    server, keys = opened(venue, world)
    answer, statuses, told = server.answer, [], []

    def counted(call):
        said = answer(call)
        statuses.append(said.status)
        return said

    server.answer = counted
    await server.start()
    connection = Connection({host: ("127.0.0.1", server.http_port) for host in HOSTS[venue]})
    coins = sorted(terms.symbol for terms in instruments if terms.venue == venue)
    words = {"symbols": coins, "credentials": keys, "connection": connection, "leverage": 5, "timeout_ms": 10_000}
    adapter = adapter_for(venue, clock=lambda: world.now_ns, emit=told.append, **words)
    try:
        await adapter.open()
        return coins, world.account(venue).leverage, statuses, told
    finally:
        await adapter.close()
        await server.stop()


@pytest.mark.parametrize("venue", ADAPTERS)
def test_nothing_is_refused_when_all_coins_start_at_once(venue):
    coins, leverage, statuses, told = asyncio.run(start(venue))
    assert len(coins) >= 28 and leverage == dict.fromkeys(coins, D(5))
    assert len(statuses) >= 28 and not [status for status in statuses if status in (418, 429)]
    assert [event for event in told if isinstance(event, AccountReported)]
