"""One suite over three venues: the adapters trade on the sandbox's real sockets, and the sandbox's own books are the truth."""

import asyncio
import tempfile
from decimal import Decimal as D
from pathlib import Path

import pytest

from fundarb.core.events import AccountReported, BookUpdated, CancelOrder, FundingPaid, FundingPredicted
from fundarb.core.events import FundingRealised, FundingScheduled, MarkPriceUpdated, OrderAccepted, OrderCanceled
from fundarb.core.events import OrderFilled, OrderNotFound, OrderRejected, OrderUnknown, PositionLiquidated
from fundarb.core.events import QueryOrder, ReportAccount, SubmitOrder
from fundarb.core.models import Liquidity
from fundarb.core.numbers import HOUR_NS, SECOND_NS
from fundarb.data_providers.backfill import pull
from fundarb.data_providers.lake import Lake
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.exchanges import dead_mans_switch
from fundarb.exchanges.base import Credentials
from fundarb.exchanges.connection import HOSTS, Connection
from fundarb.exchanges.venues import ADAPTERS, adapter_for
from fundarb.sandbox.binance import BinanceServer
from fundarb.sandbox.traffic import Traffic
from fundarb.sandbox.faults import Down, ErrorAnswer, ExpireListenKey, FaultBook, Hang, Late, Truncate
from fundarb.sandbox.hyperliquid import HyperliquidServer
from fundarb.sandbox.hyperliquid_actions import trip_switch
from fundarb.sandbox.okx import OkxServer
from fundarb.sandbox.okx_gate import Keys
from fundarb.sandbox.world import World, deleverage, seize

ADDRESS, PRIVATE_KEY = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A", "0x" + "11" * 32
ORDER_PATH = {"binance": "POST /fapi/v1/order", "hyperliquid": "*exchange*", "okx": "*batch-orders"}
VENUES = list(ADAPTERS)


def server_of(venue, world, faults):
    if venue == "binance":
        server = BinanceServer(world, Traffic(), faults)
        return server, Credentials(server.keys.api_key, server.keys.secret)
    if venue == "hyperliquid":
        return HyperliquidServer(world, Traffic(), faults, ADDRESS), Credentials(ADDRESS, PRIVATE_KEY)
    return OkxServer(world, Traffic(), faults, Keys("key", "secret", "word")), Credentials("key", "secret", "word")


class Desk:
    """An adapter, the venue behind it, and everything that was told."""

    def __init__(self, venue):
        spec = default_spec(seed=7, days=2)
        instruments = default_instruments(spec)
        self.venue, self.told, self.orders = venue, [], 0
        deposits = {terms.venue: D(100_000) for terms in spec.venues}
        self.world = World(instruments, SyntheticMarket(spec, instruments), deposits)
        self.world.advance(spec.start_ns + 100 * SECOND_NS)
        self.start_ns, self.faults = spec.start_ns, FaultBook()
        self.server, self.keys = server_of(venue, self.world, self.faults)

    async def __aenter__(self):
        await self.server.start()
        connection = Connection({host: ("127.0.0.1", self.server.http_port) for host in HOSTS[self.venue]})
        words = {"symbols": ["BTC", "ETH"], "credentials": self.keys, "connection": connection, "leverage": 5}
        words |= {"clock": lambda: self.world.now_ns, "emit": self.told.append, "timeout_ms": 1500}
        self.adapter = adapter_for(self.venue, **words)
        self.instruments = {each.symbol: each for each in await self.adapter.open()}
        await self.until(lambda: not self.adapter.trades.missed.is_set())
        return self

    async def __aexit__(self, *_):
        await self.adapter.close()
        await self.server.stop()

    async def until(self, holds, within_s=8.0):
        """Wait for a fact, never for a time."""
        async with asyncio.timeout(within_s):
            while not (found := holds()):
                await asyncio.sleep(0.01)
        return found

    def of(self, kind, name=None):
        return [e for e in self.told if isinstance(e, kind) and name in (None, getattr(e, "client_order_id", None))]

    def story(self, name):
        kinds = (OrderAccepted, OrderFilled, OrderCanceled, OrderRejected, OrderUnknown, OrderNotFound)
        return [type(event).__name__.removeprefix("Order") for event in self.of(kinds, name)]

    def best(self, side):
        return D(str(getattr(self.world.book(self.venue, "BTC"), side)[0].price))

    def order(self, qty, price, **words):
        self.orders += 1
        name = f"{self.orders:032x}"
        words = {"reduce_only": False, "ts_init_ns": self.world.now_ns} | words
        where = {"venue": self.venue, "symbol": "BTC", "client_order_id": name}
        return SubmitOrder(**where, qty_base=D(qty), limit_price=price, **words)

    def about(self, kind, order):
        where = {"venue": self.venue, "symbol": "BTC", "client_order_id": order.client_order_id}
        return kind(ts_init_ns=self.world.now_ns, **where)

    async def send(self, order):
        await self.adapter.execute(order)
        return order.client_order_id

    async def filled(self, qty):
        name = await self.send(self.order(qty, self.best("asks" if D(qty) > 0 else "bids")))
        await self.until(lambda: self.adapter.reports.done(name))
        return name

    async def report(self):
        await self.adapter.execute(ReportAccount(ts_init_ns=self.world.now_ns, venue=self.venue))
        return self.of(AccountReported)[-1]


@pytest.fixture(params=VENUES)
def venue(request):
    return request.param


def on_desk(test):
    """Run an asynchronous test on a desk of its own."""

    def run(venue):
        async def play():
            async with Desk(venue) as desk:
                await test(desk)

        asyncio.run(play())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@on_desk
async def test_terms_are_those_of_the_venue(desk):
    for symbol, read in desk.instruments.items():
        real = desk.world.instruments[desk.venue, symbol]
        for field in ("venue_symbol", "quote", "lot_step_base", "units_per_price", "taker_fee_bps", "interval_h"):
            assert getattr(read, field) == getattr(real, field), field


@on_desk
async def test_an_immediate_order_fills_and_is_booked_at_the_venue(desk):
    name = await desk.filled("0.05")
    assert desk.story(name) == ["Accepted", "Filled"]
    (fill,) = desk.of(OrderFilled, name)
    (booked,) = desk.world.account(desk.venue).fills
    assert (fill.qty_base, fill.price, fill.fee) == (booked.qty_base, booked.price, booked.fee)
    assert fill.liquidity is Liquidity.TAKER


@on_desk
async def test_an_immediate_order_that_finds_nothing_was_accepted_and_canceled(desk):
    name = await desk.send(desk.order("0.05", desk.best("bids") * D("0.99")))
    await desk.until(lambda: desk.adapter.reports.done(name))
    assert desk.story(name) == ["Accepted", "Canceled"]


@on_desk
async def test_a_post_only_order_rests_and_is_canceled(desk):
    order = desk.order("0.05", desk.best("bids") * D("0.99"), post_only=True)
    name = await desk.send(order)
    assert (await desk.report()).open_orders == (name,)
    await desk.adapter.execute(desk.about(CancelOrder, order))
    await desk.until(lambda: desk.adapter.reports.done(name))
    assert desk.story(name) == ["Accepted", "Canceled"]
    assert (await desk.report()).open_orders == ()


@on_desk
async def test_a_post_only_order_that_would_cross_does_not_trade(desk):
    name = await desk.send(desk.order("0.05", desk.best("asks") * D("1.001"), post_only=True))
    await desk.until(lambda: desk.adapter.reports.done(name))
    assert desk.story(name) == (["Accepted", "Canceled"] if desk.venue == "okx" else ["Rejected"])
    assert not desk.world.account(desk.venue).fills


@on_desk
async def test_a_definite_no_is_a_rejection_and_no_more(desk):
    name = await desk.send(desk.order("900", desk.best("asks")))  # no margin for it
    small = await desk.send(desk.order("0.00000001", desk.best("asks")))  # less than a lot
    desk.faults.add(ErrorAnswer(endpoint=ORDER_PATH[desk.venue], status=429))
    hurried = await desk.send(desk.order("0.01", desk.best("asks")))
    assert [desk.story(each) for each in (name, small, hurried)] == [["Rejected"]] * 3


@on_desk
async def test_a_lost_answer_is_unknown_until_the_venue_is_asked(desk):
    """The order rests, the answer never comes, the stream is deaf: the question finds it."""
    desk.faults.add(Hang(endpoint=ORDER_PATH[desk.venue], seconds=20))
    desk.adapter.client.private.on_frame = None  # what the stream tells is not heard
    order = desk.order("0.05", desk.best("bids") * D("0.99"), post_only=True)
    name = await desk.send(order)
    assert "Unknown" in desk.story(name) and "Rejected" not in desk.story(name)
    await desk.adapter.execute(desk.about(QueryOrder, order))
    assert sorted(desk.story(name)) == ["Accepted", "Unknown"]  # the timer's own question may have come first
    await desk.adapter.execute(desk.about(CancelOrder, order))
    assert sorted(desk.story(name)) == ["Accepted", "Canceled", "Unknown"]


@on_desk
async def test_half_an_answer_is_unknown_and_the_order_counts_once(desk):
    desk.faults.add(Truncate(endpoint=ORDER_PATH[desk.venue]))
    order = desk.order("0.01", desk.best("asks"))
    name = await desk.send(order)
    await desk.adapter.execute(desk.about(QueryOrder, order))
    await desk.until(lambda: desk.adapter.reports.done(name))
    assert len(desk.world.account(desk.venue).fills) == len(desk.of(OrderFilled, name)) == 1
    assert not desk.of(OrderRejected)


@on_desk
async def test_an_order_that_was_never_sent_is_not_found(desk):
    order = desk.order("0.01", desk.best("asks"))
    await desk.adapter.execute(desk.about(QueryOrder, order))
    assert desk.story(order.client_order_id) == ["NotFound"]


@on_desk
async def test_a_fill_that_a_dead_socket_missed_is_recovered(desk):
    order = desk.order("0.01", desk.best("bids") * D("0.9999"), post_only=True)
    name = await desk.send(order)
    desk.server.shake(Down(venue=desk.venue, seconds=1.0))
    while not desk.world.account(desk.venue).fills:  # the market comes to us while nobody listens
        assert desk.world.step()
    assert not desk.of(OrderFilled)
    await desk.until(lambda: desk.of(OrderFilled, name), within_s=15)
    (fill,) = desk.of(OrderFilled, name)
    assert fill.liquidity is Liquidity.MAKER
    assert fill.fee == desk.world.account(desk.venue).fills[0].fee


@on_desk
async def test_funding_is_paid_once_and_to_the_cent(desk):
    await desk.filled("0.07")
    desk.world.advance(desk.start_ns + 8 * HOUR_NS + SECOND_NS)
    account = desk.world.account(desk.venue)
    await desk.until(lambda: len(desk.of(FundingPaid)) >= len(account.funding))
    desk.adapter.resubscribed()  # reads all of it again
    await desk.until(lambda: not desk.adapter.payments.owed.is_set())
    paid = {(each.symbol, each.settlement_time_ns): each for each in desk.of(FundingPaid)}
    assert len(paid) == len(desk.of(FundingPaid)) == len(account.funding)
    for key, booked in account.funding.items():
        assert abs(paid[key].cash - booked.cash) < D("0.00000001")
        assert (paid[key].qty_base, paid[key].rate) == (booked.qty_base, booked.rate)


@on_desk
async def test_the_account_is_reported_as_the_venue_books_it(desk):
    await desk.filled("0.07")
    await desk.filled("-0.02")
    desk.world.advance(desk.world.now_ns + HOUR_NS)
    report, account = await desk.report(), desk.world.account(desk.venue)
    assert abs(report.wallet - account.wallet) < D("0.000001")
    assert [(held.symbol, held.qty_base) for held in report.positions] == [("BTC", D("0.05"))]
    mark = D(str(desk.world.mark(desk.venue, "BTC").mark_price))
    position = account.positions["BTC"]
    value = account.wallet + position.qty_base * mark - position.cost
    assert abs(report.equity - value) < D("0.01")


@on_desk
async def test_a_forced_close_is_recognised(desk):
    await desk.filled("0.04")
    if desk.venue == "hyperliquid":
        seize(desk.world, desk.venue, "BTC")
    else:
        deleverage(desk.world, desk.venue, "BTC")
    (said,) = await desk.until(lambda: desk.of(PositionLiquidated))
    await desk.until(lambda: len(desk.of(OrderFilled)) == 2)
    fill = desk.of(OrderFilled)[-1]
    assert (said.symbol, fill.qty_base, fill.liquidity) == ("BTC", D("-0.04"), Liquidity.LIQUIDATION)
    assert fill.client_order_id not in desk.adapter.reports.known


@on_desk
async def test_the_market_is_heard_and_settlements_are_asked_for(desk):
    adapter = desk.adapter
    watches = (adapter.watch_books(["BTC", "ETH"]), adapter.watch_marks(["BTC"]), adapter.watch_funding(["BTC"]))
    tasks = [asyncio.ensure_future(watch) for watch in watches]

    async def hear(kind):
        while not desk.of(kind):
            desk.world.step()
            desk.world.beat()
            await asyncio.sleep(0.01)

    async with asyncio.timeout(20):
        for kind in (BookUpdated, MarkPriceUpdated, FundingScheduled, FundingPredicted, FundingRealised):
            await hear(kind)
    settled = desk.of(FundingRealised)[0].funding
    real = {each.funding.settlement_time_ns: each.funding.rate for each in desk.world.settled(desk.venue, "BTC")}
    assert settled.rate == real[settled.settlement_time_ns]
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()


@on_desk
async def test_history_is_that_of_the_venue(desk):
    desk.world.advance(desk.start_ns + 20 * HOUR_NS)
    read = await desk.adapter.funding_history("BTC", desk.start_ns)
    real = desk.world.settled(desk.venue, "BTC")
    assert [(r.funding.settlement_time_ns, r.funding.rate) for r in read] == [
        (r.funding.settlement_time_ns, r.funding.rate) for r in real if r.funding.settlement_time_ns >= desk.start_ns
    ]
    bars = await desk.adapter.candles("BTC", desk.start_ns)
    held = [bar for bar in desk.world.candles(desk.venue, "BTC") if bar.open_time_ns >= desk.start_ns]
    assert [bar.open_time_ns for bar in bars] == [bar.open_time_ns for bar in held]
    for bar, other in zip(bars, held):
        assert bar.close == pytest.approx(other.close, rel=1e-4)
        assert bar.volume_base == pytest.approx(other.volume_base, rel=1e-2)


@on_desk
async def test_a_pull_fills_the_lake_and_goes_on_where_it_ended(desk):
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder) / "lake"
        desk.world.advance(desk.start_ns + 20 * HOUR_NS)
        btc = [desk.instruments["BTC"]]
        first = await pull(lake, desk.adapter, btc, desk.start_ns)
        desk.world.advance(desk.start_ns + 30 * HOUR_NS)
        second = await pull(lake, desk.adapter, btc, desk.start_ns)
        third = await pull(lake, desk.adapter, btc, desk.start_ns)
        assert all(each.added for each in (*first, *second)) and not any(each.added for each in third)
        rows = Lake(lake).funding(desk.venue, "BTC")
        real = desk.world.settled(desk.venue, "BTC")
        known = [each.funding for each in real if each.funding.settlement_time_ns >= desk.start_ns]
        assert rows["rate"].tolist() == [float(each.rate) for each in known]
        assert not any(series.missing for series in Lake(lake).coverage())


def test_an_expired_listen_key_is_replaced():
    async def play():
        async with Desk("binance") as desk:
            desk.server.shake(ExpireListenKey(venue="binance"))
            await desk.until(lambda: len(desk.adapter.client.private.clients) >= 1)
            name = await desk.filled("0.01")
            assert desk.story(name) == ["Accepted", "Filled"]

    asyncio.run(play())


@on_desk
async def test_an_order_that_comes_late_is_refused(desk):
    """The request travels for longer than it may: whatever the sender believes by then stays true."""
    desk.adapter.client.trading.options |= {"recvWindow": 200, "expiresMs": 200}
    desk.faults.add(Late(venue=desk.venue, endpoint=ORDER_PATH[desk.venue], seconds=0.5))
    order = desk.order("0.01", desk.best("asks"))
    name = await desk.send(order)
    if desk.venue == "okx":  # its word leaves open what became of the order: it is asked for
        await desk.adapter.execute(desk.about(QueryOrder, order))
        assert desk.story(name) == ["Unknown", "NotFound"]
    else:
        assert desk.story(name) == ["Rejected"]
    assert not desk.world.account(desk.venue).positions
    desk.adapter.client.trading.options |= {"recvWindow": 5000, "expiresMs": 5000}
    assert desk.story(await desk.filled("0.01")) == ["Accepted", "Filled"]


@on_desk
async def test_what_rests_is_taken_back_when_nobody_is_heard(desk):
    """The process dies: the venue itself cancels the order, half a minute later and not before."""
    order = desk.order("0.01", (desk.best("bids") * 99 / 100).quantize(desk.instruments["BTC"].price_tick), post_only=True)
    name = await desk.send(order)
    assert desk.story(name) == ["Accepted"]
    await desk.until(lambda: switch_is_on(desk))
    account = desk.world.account(desk.venue)
    await desk.adapter.close()  # nothing renews it from here on
    for seconds, left in ((dead_mans_switch.COUNTDOWN_S / 2, 1), (dead_mans_switch.COUNTDOWN_S, 0)):
        desk.world.advance(desk.world.now_ns + int(seconds * SECOND_NS))
        desk.world.tick()
        trip(desk)
        assert len(account.working) == left


def switch_is_on(desk):
    if desk.venue == "binance":
        return desk.server.orders.countdowns.due_ns
    return desk.server.desk.cancel_at_ns


def trip(desk):
    """OKX and Hyperliquid look at their switch when they are asked for something."""
    if desk.venue == "okx":
        desk.server.desk.trip_timer()
    elif desk.venue == "hyperliquid":
        trip_switch(desk.server.desk)
