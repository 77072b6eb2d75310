"""Streams that fail on the wire, and what we make of it: silence is asked around or told, gaps are mended, dead lines are redialled."""

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal as D

import pytest

from fundarb.core.events import BookUpdated, FeedStale, FundingScheduled, TimerFired
from fundarb.core.models import Pair
from fundarb.core.numbers import HOUR_NS, SECOND_NS
from fundarb.data_providers.market_state import MarketState
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.exchanges import public_streams
from fundarb.exchanges.connection import HOSTS, Connection
from fundarb.exchanges.venues import adapter_for
from fundarb.sandbox.binance import BinanceServer
from fundarb.sandbox.traffic import Traffic
from fundarb.sandbox.clock import SandboxClock
from fundarb.sandbox.control import Control
from fundarb.sandbox.faults import CrossBook, DropPush, ErrorAnswer, FaultBook, Freeze, MutePongs
from fundarb.sandbox.hyperliquid import HyperliquidServer
from fundarb.sandbox.okx import OkxServer
from fundarb.sandbox.okx_gate import Keys
from fundarb.sandbox.world import World

BOOKS = {"binance": "btcusdt@depth*", "hyperliquid": "l2Book:BTC", "okx": "books//BTC-USDT-SWAP"}
SERVERS = {
    "binance": BinanceServer,
    "hyperliquid": lambda *parts: HyperliquidServer(*parts, "0x" + "1" * 40),
    "okx": lambda *parts: OkxServer(*parts, Keys("key", "secret", "word")),
}


class Feed:
    """A venue whose market is moved on by hand, and what the adapter told of it."""

    def __init__(self, venue):
        spec = default_spec(seed=7, days=2)
        instruments = default_instruments(spec)
        deposits = {terms.venue: D(1000) for terms in spec.venues}
        self.world, self.faults, self.told, self.venue = World(instruments, SyntheticMarket(spec, instruments), deposits), FaultBook(), [], venue
        self.start_ns = spec.start_ns
        self.world.advance(spec.start_ns + 100 * SECOND_NS)
        self.server = SERVERS[venue](self.world, Traffic(), self.faults)
        self.control = Control(self.world, SandboxClock(self.world, self.server.traffic), self.faults, {venue: self.server})

    def of(self, kind):
        return [event for event in self.told if isinstance(event, kind)]

    def is_told(self):
        """Tell whether the last book that was told is the venue's own."""
        books, there = self.of(BookUpdated), self.world.book(self.venue, "BTC")
        if not books:
            return False
        mine, theirs = books[-1].bids[0].price, there.bids[0].price
        return abs(mine - theirs) < 1e-4 * theirs

    async def until(self, holds, moves=True, within_s=60.0):
        """Let the market go on until a fact holds."""
        async with asyncio.timeout(within_s):
            while not holds():
                if moves:
                    self.world.now_ns += SECOND_NS
                    self.world.beat()
                await asyncio.sleep(0.01)


@asynccontextmanager
async def hearing(venue, keep_alive_ms=4000):
    feed = Feed(venue)
    await feed.server.start()
    connection = Connection({host: ("127.0.0.1", feed.server.http_port) for host in HOSTS[venue]})
    words = {"symbols": ["BTC"], "credentials": None, "connection": connection, "timeout_ms": 5000}
    adapter = adapter_for(venue, clock=lambda: feed.world.now_ns, emit=feed.told.append, **words)
    adapter.client.keep_alive_ms = keep_alive_ms
    feed.connection, tasks = connection, []
    try:
        await adapter.open()
        tasks = [asyncio.ensure_future(watch(["BTC"])) for watch in (adapter.watch_books, adapter.watch_marks, adapter.watch_funding)]
        await feed.until(feed.is_told)
        yield feed
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await adapter.close()
        await feed.server.stop()


@pytest.mark.parametrize("venue", SERVERS)
def test_a_silent_stream_is_asked_around_until_it_speaks_again(venue, monkeypatch):
    monkeypatch.setattr(public_streams, "SILENT_S", 0.3)

    async def play():
        async with hearing(venue) as feed:
            number = feed.faults.add(Freeze(venue=venue, endpoint=BOOKS[venue]))
            feed.world.advance(feed.world.now_ns + 2 * HOUR_NS)  # the stream says nothing of it
            before = len(feed.of(BookUpdated))
            await feed.until(lambda: len(feed.of(BookUpdated)) > before and feed.is_told(), moves=False)
            feed.faults.withdraw(number)
            before = len(feed.of(BookUpdated))
            feed.world.advance(feed.world.now_ns + HOUR_NS)
            await feed.until(lambda: len(feed.of(BookUpdated)) > before + 5 and feed.is_told())

    asyncio.run(play())


@pytest.mark.parametrize("venue", ["binance", "okx"])  # Hyperliquid's books are whole every time
def test_a_gap_in_the_numbers_is_mended(venue):
    async def play():
        async with hearing(venue) as feed:
            feed.faults.add(DropPush(venue=venue, endpoint=BOOKS[venue]))
            feed.world.advance(feed.world.now_ns + 2 * HOUR_NS)
            await feed.until(lambda: not feed.faults.listed() and feed.is_told())

    asyncio.run(play())


@pytest.mark.parametrize("venue", SERVERS)
def test_a_peer_that_answers_no_pings_is_left_and_dialled_again(venue):
    async def play():
        async with hearing(venue, keep_alive_ms=300) as feed:
            old = set(feed.server.sockets)
            number = feed.faults.add(MutePongs(venue=venue))
            await feed.until(lambda: not old & feed.server.sockets)
            feed.faults.withdraw(number)
            feed.world.advance(feed.world.now_ns + HOUR_NS)
            await feed.until(feed.is_told)

    asyncio.run(play())


@pytest.mark.parametrize("venue", ["binance", "okx"])
def test_a_new_interval_is_heard_of_after_the_settlement(venue):
    async def play():
        async with hearing(venue) as feed:
            assert {event.interval_h for event in feed.of(FundingScheduled)} == {8}
            feed.world.intervals.hours[venue, "BTC"] = 4
            for hours in range(1, 14):
                feed.world.advance(feed.start_ns + hours * HOUR_NS + 100 * SECOND_NS)
                feed.world.beat()
                await asyncio.sleep(0.02)
            await feed.until(lambda: feed.of(FundingScheduled)[-1].interval_h == 4)

    asyncio.run(play())


@pytest.mark.parametrize("venue", SERVERS)
def test_a_venue_that_shows_no_books_any_more_is_a_stale_feed(venue):
    async def play():
        async with hearing(venue) as feed:
            there = next(name for name in SERVERS if name != venue)
            pair = Pair(a=feed.world.instruments[venue, "BTC"], b=feed.world.instruments[there, "BTC"])
            state = MarketState([pair], max_book_age_s=120)
            feed.faults.add(Freeze(venue=venue, endpoint=BOOKS[venue]))
            feed.faults.add(ErrorAnswer(venue=venue, endpoint="*", status=503, times=0))
            feed.world.advance(feed.world.now_ns + HOUR_NS)
            for event in feed.told:
                for _ in state.handlers().get(type(event), lambda event: ())(event):
                    pass
            said = list(state.on_timer(TimerFired(ts_init_ns=feed.world.now_ns, name="decision")))
            (stale,) = [event for event in said if isinstance(event, FeedStale)]
            assert (stale.venue, stale.symbol) == (venue, "BTC") and stale.age_s >= 3600 > stale.limit_s
            feed.faults.withdraw()
            feed.world.advance(feed.world.now_ns + HOUR_NS)
            await feed.until(feed.is_told)

    asyncio.run(play())


@pytest.mark.parametrize("venue", SERVERS)
def test_a_crossed_book_is_passed_over_until_a_better_one_comes(venue):
    def crossed(book):
        return book.bids[0].price >= book.asks[0].price

    async def play():
        async with hearing(venue) as feed:
            feed.faults.add(CrossBook(venue=venue, endpoint="BTC"))
            before = len(feed.of(BookUpdated))
            feed.world.advance(feed.world.now_ns + HOUR_NS)
            await feed.until(lambda: not feed.faults.listed())
            feed.world.advance(feed.world.now_ns + HOUR_NS)
            await feed.until(lambda: feed.is_told() and len(feed.of(BookUpdated)) > before)
            assert not any(map(crossed, feed.of(BookUpdated)))

    asyncio.run(play())


@pytest.mark.parametrize("venue", SERVERS)
def test_a_coin_that_is_delisted_is_not_listed_to_who_comes_later(venue):
    async def play():
        async with hearing(venue) as feed:
            feed.control.script(f'[{{"fault": "delist", "venue": "{venue}", "symbol": "BTC"}}]'.encode())
            words = {"symbols": ["BTC", "ETH"], "credentials": None, "connection": feed.connection, "timeout_ms": 5000}
            later = adapter_for(venue, clock=lambda: feed.world.now_ns, emit=lambda event: None, **words)
            try:
                assert [terms.symbol for terms in await later.open()] == ["ETH"]
            finally:
                await later.close()

    asyncio.run(play())
