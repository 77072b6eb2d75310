"""The simulated venues, rule by rule: what they refuse, trade, pay and seize, and when we hear of it."""

from decimal import Decimal as D

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from fundarb.core.errors import DataError, InputError
from fundarb.core.events import (
    BookUpdated,
    CancelOrder,
    CandleClosed,
    FundingPaid,
    FundingRealised,
    MarkPriceUpdated,
    OrderAccepted,
    OrderCanceled,
    OrderFilled,
    OrderRejected,
    PositionLiquidated,
    SubmitOrder,
    TimerFired,
)
from fundarb.core.funding import FundingKind, FundingRate, PriceBasis
from fundarb.core.models import Level, Liquidity
from fundarb.core.numbers import HOUR_NS, SECOND_NS, utc_ns
from fundarb.exchanges.base import pump
from fundarb.exchanges.simulated import SimulatedExchange
from fundarb.exchanges.simulated_account import margin
from fundarb.exchanges.simulated_venue import Fate

from terms import BINANCE as COMMON

T = utc_ns("2026-03-02T08:00Z")
MS = 1_000_000

BINANCE = replace(COMMON, min_qty_base=D("0.002"), min_notional_usd=D(200))
ETH = replace(BINANCE, symbol="ETH", venue_symbol="ETHUSDT")
HYPERLIQUID = replace(
    BINANCE,
    venue="hyperliquid",
    lot_step_base=D("0.00001"),
    min_qty_base=D("0.00001"),
    min_notional_usd=D(10),
    taker_fee_bps=D(0),
    max_leverage=D(40),
    maintenance_frac=D("0.0125"),
    liquidation_fee_bps=D(0),
    interval_h=1,
    price_basis=PriceBasis.ORACLE,
)
LATENCY_NS = {"binance": 50 * MS, "hyperliquid": 200 * MS}


def exchange_of(*instruments, deposit=100_000, latency_ns=None, faults=None):
    instruments = instruments or (BINANCE, HYPERLIQUID)
    venues = {terms.venue for terms in instruments}
    more = {} if faults is None else {"faults": faults}
    deposits = {venue: D(deposit) for venue in venues}
    return SimulatedExchange(instruments, latency_ns or dict.fromkeys(venues, 0), deposits, **more)


def book(time_ns, asks=((60_000.0, 5.0),), bids=((59_990.0, 5.0),), venue="binance", symbol="BTC"):
    sides = {"asks": tuple(Level(*ask) for ask in asks), "bids": tuple(Level(*bid) for bid in bids)}
    return BookUpdated(ts_init_ns=time_ns, venue=venue, symbol=symbol, **sides)


def order(time_ns, qty, limit, id="a", venue="binance", symbol="BTC", reduce_only=False):
    return SubmitOrder(
        ts_init_ns=time_ns,
        client_order_id=id,
        venue=venue,
        symbol=symbol,
        qty_base=D(qty),
        limit_price=D(limit),
        reduce_only=reduce_only,
    )


def mark(time_ns, price, oracle=None, venue="binance", symbol="BTC"):
    prices = {"mark_price": float(price), "oracle_price": float(price if oracle is None else oracle)}
    return MarkPriceUpdated(ts_init_ns=time_ns, venue=venue, symbol=symbol, **prices)


def bar(close_ns, low, high, venue="hyperliquid", symbol="BTC", close=60_000):
    return CandleClosed(
        ts_init_ns=close_ns,
        venue=venue,
        symbol=symbol,
        open_time_ns=close_ns - HOUR_NS,
        close_time_ns=close_ns,
        open=float(close),
        high=float(high),
        low=float(low),
        close=float(close),
        volume_base=1.0,
    )


def realised(hour_ns, rate, venue="hyperliquid", symbol="BTC", price=None, delay_ns=SECOND_NS):
    funding = FundingRate(
        venue=venue,
        symbol=symbol,
        kind=FundingKind.REALISED,
        rate=D(rate),
        interval_h=1,
        settlement_time_ns=hour_ns,
        ts_init_ns=hour_ns + delay_ns,
    )
    return FundingRealised(ts_init_ns=hour_ns + delay_ns, funding=funding, price=price)


def reports_of(exchange, until_ns=T + 1000 * HOUR_NS):
    return list(iter(lambda: exchange.poll(until_ns), None))


def trade(exchange, command):
    exchange.submit(command)
    return reports_of(exchange, command.ts_init_ns)


def kinds(reports):
    return [type(report).__name__ for report in reports]


def hold(exchange, qty, price=60_000, time_ns=T, venue="hyperliquid", symbol="BTC", id=None):
    """Trade a quantity at exactly one price, at zero latency."""
    deep = ((float(price), 1000.0),)
    exchange.on_market(book(time_ns, asks=deep, bids=deep, venue=venue, symbol=symbol))
    id = id or f"hold-{venue}-{symbol}-{time_ns}-{qty}"
    reports = trade(exchange, order(time_ns, qty, price, id, venue, symbol))
    assert kinds(reports) == ["OrderAccepted", "OrderFilled"], reports
    return exchange


# the door


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"symbol": "DOGE"}, "unknown symbol: DOGE"),
        ({"qty_base": D("0.0125")}, "lot step: 0.0125 base is not a multiple of 0.001"),
        ({"qty_base": D("-0.0125")}, "lot step: 0.0125"),
        ({"qty_base": D("0.001")}, "minimum quantity: 0.001 base, at least 0.002"),
        ({"qty_base": D("-0.001")}, "minimum quantity"),
        ({"qty_base": D(0)}, "minimum quantity: 0 base"),
        ({"limit_price": D("60000.05")}, "price tick: 60000.05"),
        ({"limit_price": D(0)}, "price tick: 0"),
        ({"limit_price": D(-60000)}, "price tick: -60000"),
        ({"qty_base": D("0.003")}, "minimum notional: 180.0000 USD, at least 200"),
        ({"qty_base": D("-0.003")}, "minimum notional: 180.0000 USD"),
        ({"reduce_only": True}, "reduce-only: 0.01 base does not reduce 0"),
        ({"qty_base": D("33.334")}, "insufficient margin: 100002.00 USD needed, 100000.00 available"),
        ({"qty_base": D("-33.334")}, "insufficient margin: 100002.00 USD needed"),
    ],
)
def test_a_refused_order_is_one_report_and_changes_nothing(change, reason):
    exchange = exchange_of()
    exchange.on_market(book(T))
    (report,) = trade(exchange, replace(order(T, "0.01", "60000.0"), **change))
    assert isinstance(report, OrderRejected) and report.reason.startswith(reason)
    account = exchange.account("binance")
    assert (account.wallet, account.positions, account.orders, account.fills) == (D(100_000), {}, {}, [])


def test_the_smallest_allowed_order_is_accepted():
    exchange = exchange_of(replace(BINANCE, min_notional_usd=D(120)))
    exchange.on_market(book(T))
    assert kinds(trade(exchange, order(T, "0.002", "60000"))) == ["OrderAccepted", "OrderFilled"]


def test_nothing_is_no_order_even_where_there_is_no_minimum():
    exchange = exchange_of(replace(BINANCE, min_qty_base=D(0), min_notional_usd=D(0)))
    (report,) = trade(exchange, order(T, 0, 60_000))
    assert report.reason == "minimum quantity: 0 base, at least 0"


def test_the_last_cent_of_margin_can_be_used():
    exchange = exchange_of(replace(BINANCE, taker_fee_bps=D(0)), deposit=3_000)
    exchange.on_market(book(T))
    assert kinds(trade(exchange, order(T, 1, 60_000))) == ["OrderAccepted", "OrderFilled"]
    exchange.on_market(mark(T, 60_000))
    exchange.on_market(book(T))
    (more,) = trade(exchange, order(T, "0.004", 60_000, "b"))
    assert more.reason == "insufficient margin: 12.00 USD needed, 0.00 available"


def test_profit_at_mark_is_margin_and_other_positions_bind_it():
    """1000 USD more on ETH pays for BTC; the margin that ETH itself binds does not."""
    free = replace(BINANCE, taker_fee_bps=D(0)), replace(ETH, taker_fee_bps=D(0))
    exchange = hold(exchange_of(*free, deposit=3_000), 10, 3_000, venue="binance", symbol="ETH")
    exchange.on_market(mark(T, 3_100, symbol="ETH"))  # equity 4000, bound 31000 / 20
    exchange.on_market(book(T))
    (report,) = trade(exchange, order(T, "0.817", 60_000))
    assert report.reason == "insufficient margin: 2451.00 USD needed, 2450.00 available"
    assert len(trade(exchange, order(T, "0.816", 60_000))) == 2


def test_only_growth_needs_margin():
    """A fully used account can reduce, and flip to the same size, and no further."""
    free = replace(BINANCE, taker_fee_bps=D(0))
    for qty, accepted in [("0.5", True), ("1", True), ("2", True), ("2.004", False)]:
        exchange = hold(exchange_of(free, deposit=3_000), -1, venue="binance")
        exchange.on_market(mark(T, 60_000))
        assert (len(trade(exchange, order(T, qty, 60_000))) == 2) is accepted, qty


def test_an_id_is_spent_when_an_order_under_it_was_accepted():
    exchange = exchange_of()
    exchange.on_market(book(T))
    exchange.on_market(book(T, venue="hyperliquid"))
    assert trade(exchange, order(T, 50, 60_000, "a"))[0].reason.startswith("insufficient margin")
    assert len(trade(exchange, order(T, "0.01", 60_000, "a"))) == 2  # refused before, so still free
    (again,) = trade(exchange, order(T, "0.01", 60_000, "a"))
    assert again.reason == "duplicate: a was accepted before"
    assert len(trade(exchange, order(T, "0.01", 60_000, "a", venue="hyperliquid"))) == 2
    assert exchange.account("binance").held("BTC") == D("0.01")


def test_an_order_that_filled_nothing_has_spent_its_id_too():
    exchange = exchange_of()
    assert kinds(trade(exchange, order(T, "0.01", 60_000))) == ["OrderAccepted", "OrderCanceled"]
    assert kinds(trade(exchange, order(T, "0.01", 60_000))) == ["OrderRejected"]


# the walk

ASKS = ((60_000.0, 0.3), (60_005.0, 0.5), (60_020.0, 1.0))
BIDS = ((59_999.0, 0.4), (59_994.0, 2.0))


def test_an_order_walks_the_book_and_pays_a_fee_per_level():
    exchange = exchange_of()
    exchange.on_market(book(T, ASKS, BIDS))
    accepted, *fills = trade(exchange, order(T, 1, 60_030))
    assert isinstance(accepted, OrderAccepted)
    assert [(f.qty_base, f.price) for f in fills] == [
        (D("0.3"), D(60_000)),
        (D("0.5"), D(60_005)),
        (D("0.2"), D(60_020)),
    ]
    assert sum(f.qty_base * f.price for f in fills) == D("60006.5")
    assert [f.fee for f in fills] == [D(9), D("15.00125"), D("6.002")]
    assert [f.trade_id for f in fills] == ["binance-1", "binance-2", "binance-3"]
    assert {f.liquidity for f in fills} == {Liquidity.TAKER}
    account = exchange.account("binance")
    assert account.wallet == D(100_000) - D("30.00325")
    assert account.positions["BTC"].cost == D("60006.5")
    assert account.orders["a"].filled_base == 1 and account.orders["a"].canceled == ""


def test_what_does_not_trade_within_the_limit_is_cancelled():
    exchange = exchange_of()
    exchange.on_market(book(T, ASKS, BIDS))
    *_, fill, canceled = trade(exchange, order(T, 1, 60_005))
    assert (fill.price, isinstance(canceled, OrderCanceled)) == (D(60_005), True)
    assert canceled.reason == "no more liquidity within the limit"
    assert exchange.account("binance").orders["a"].filled_base == D("0.8")
    assert exchange.account("binance").orders["a"].canceled == canceled.reason


@pytest.mark.parametrize("sides", [None, (ASKS, BIDS), ((), ()), (((60_000.0, 0.0009),), ())])
def test_an_order_that_meets_nothing_is_accepted_and_cancelled(sides):
    exchange = exchange_of()
    if sides:
        exchange.on_market(book(T, *sides))
    accepted, canceled = trade(exchange, order(T, 1, 59_999))
    assert kinds([accepted, canceled]) == ["OrderAccepted", "OrderCanceled"]
    assert exchange.account("binance").positions == {}


def test_a_sell_walks_down_the_bids():
    exchange = exchange_of()
    exchange.on_market(book(T, ASKS, BIDS))
    _, *fills = trade(exchange, order(T, -1, 59_990))
    assert [(f.qty_base, f.price) for f in fills] == [(D("-0.4"), D(59_999)), (D("-0.6"), D(59_994))]


def test_prices_between_two_ticks_are_rounded_against_us_and_still_obey_the_limit():
    exchange = exchange_of()
    exchange.on_market(book(T, asks=((60_000.04, 1.0),), bids=((59_999.96, 1.0),)))
    assert kinds(trade(exchange, order(T, "0.1", "60000.0"))) == ["OrderAccepted", "OrderCanceled"]
    assert trade(exchange, order(T, "0.1", "60000.1", "b"))[1].price == D("60000.1")
    assert kinds(trade(exchange, order(T, "-0.1", "60000.0", "c"))) == ["OrderAccepted", "OrderCanceled"]
    assert trade(exchange, order(T, "-0.1", "59999.9", "d"))[1].price == D("59999.9")


def test_a_level_is_taken_in_whole_lots():
    exchange = exchange_of()
    exchange.on_market(book(T, asks=((60_000.0, 0.0029), (60_001.0, 0.0119))))
    _, *fills, _ = trade(exchange, order(T, "0.02", 60_010))
    assert [f.qty_base for f in fills] == [D("0.002"), D("0.011")]


def test_taken_liquidity_stays_taken_until_the_next_book():
    exchange = exchange_of()
    exchange.on_market(book(T, ASKS, BIDS))
    trade(exchange, order(T, 1, 60_030, "a"))
    _, fill, _ = trade(exchange, order(T + 1, 1, 60_030, "b"))
    assert (fill.qty_base, fill.price) == (D("0.8"), D(60_020))
    exchange.on_market(book(T + 2, ASKS, BIDS, symbol="ETH"))  # another coin's book changes nothing
    assert len(trade(exchange, order(T + 2, 1, 60_030, "c"))) == 2
    exchange.on_market(book(T + 3, ASKS, BIDS))
    assert trade(exchange, order(T + 3, "0.3", 60_030, "d"))[1].price == D(60_000)


def test_both_sides_of_a_book_are_taken_separately():
    exchange = exchange_of()
    exchange.on_market(book(T, ASKS, BIDS))
    trade(exchange, order(T, "1.8", 60_030, "a"))
    assert trade(exchange, order(T, "-0.4", 59_990, "b"))[1].price == D(59_999)


# reduce-only


def test_reduce_only_closes_what_is_held_and_cancels_the_rest():
    for qty, limit in [(1, 59_990), (-1, 60_000)]:
        exchange = exchange_of()
        exchange.on_market(book(T))
        hold(exchange, qty, venue="binance")
        exchange.on_market(book(T))
        close = order(T, -3 * qty, limit, "close", reduce_only=True)
        _, fill, canceled = trade(exchange, close)
        assert fill.qty_base == -qty and exchange.account("binance").positions == {}
        assert canceled.reason == "reduce-only: nothing more is held"
        assert exchange.account("binance").orders["close"].filled_base == -qty


def test_reduce_only_that_lacks_liquidity_says_so():
    exchange = hold(exchange_of(), 1, venue="binance")
    exchange.on_market(book(T, bids=((59_990.0, 0.5),)))
    assert trade(exchange, order(T, -1, 59_990, reduce_only=True))[-1].reason.startswith("no more liquidity")
    assert trade(exchange, order(T, -1, 59_990, "b", reduce_only=True))[-1].reason.startswith("no more liquidity")


def test_reduce_only_never_grows_a_position():
    exchange = hold(exchange_of(), 1, venue="binance")
    exchange.on_market(book(T))
    (report,) = trade(exchange, order(T, 1, 60_000, reduce_only=True))
    assert report.reason == "reduce-only: 1 base does not reduce 1"


def test_reduce_only_needs_neither_value_nor_margin():
    exchange = hold(exchange_of(deposit=3_100), 1, venue="binance")
    exchange.on_market(mark(T, 58_000))  # equity is below initial margin
    exchange.on_market(book(T, bids=((58_000.0, 5.0),)))
    assert len(trade(exchange, order(T, "-0.003", 58_000, "b", reduce_only=True))) == 2  # 174 USD
    assert len(trade(exchange, order(T, "-0.997", 58_000, "c", reduce_only=True))) == 2


# time


def test_an_order_takes_the_latency_out_and_its_reports_take_it_back():
    exchange = exchange_of(latency_ns=LATENCY_NS)
    exchange.on_market(book(T))
    exchange.submit(order(T, 1, 60_000))
    assert exchange.poll(T + 100 * MS - 1) is None
    assert exchange.account("binance").held("BTC") == 1  # it traded 50 ms ago, we do not know yet
    accepted, fill = reports_of(exchange, T + 100 * MS)
    assert {accepted.ts_init_ns, fill.ts_init_ns} == {T + 100 * MS}
    assert fill.ts_event_ns == T + 50 * MS
    assert exchange.account("binance").orders["a"].arrived_ns == T + 50 * MS


@pytest.mark.parametrize(("moves_ns", "price"), [(-1, 60_100), (0, 60_000), (1, 60_000)])
def test_an_order_meets_the_book_delivered_before_it_arrives(moves_ns, price):
    """At the same nanosecond, the order that set out earlier is first in line."""
    exchange = exchange_of(latency_ns=LATENCY_NS)
    exchange.on_market(book(T))
    exchange.submit(order(T, 1, 60_200))
    exchange.on_market(book(T + 50 * MS + moves_ns, asks=((60_100.0, 5.0),)))
    assert reports_of(exchange)[1].price == price


def test_without_latency_everything_happens_in_the_same_instant():
    exchange = exchange_of()
    exchange.on_market(book(T))
    accepted, fill = trade(exchange, order(T, 1, 60_000))
    assert (accepted.ts_init_ns, fill.ts_init_ns, fill.ts_event_ns) == (T, T, T)
    exchange.on_market(book(T, asks=((60_100.0, 5.0),)))  # a later book of the same instant
    assert trade(exchange, order(T, 1, 60_200, "b"))[1].price == 60_100


def test_reports_come_in_the_order_in_which_we_learn_of_them():
    exchange = exchange_of(latency_ns=LATENCY_NS)
    for venue in LATENCY_NS:
        exchange.on_market(book(T, venue=venue))
    exchange.submit(order(T, 1, 60_000, "far", "hyperliquid"))
    exchange.submit(order(T, 1, 60_000, "near-1"))
    exchange.submit(order(T, 1, 60_000, "near-2"))
    exchange.submit(order(T + 300 * MS, 1, 60_000, "near-3"))
    reports = reports_of(exchange)
    assert [r.client_order_id for r in reports[::2]] == ["near-1", "near-2", "far", "near-3"]
    assert kinds(reports) == ["OrderAccepted", "OrderFilled"] * 4
    assert [r.ts_init_ns - T for r in reports[::2]] == [100 * MS, 100 * MS, 400 * MS, 400 * MS]


def test_an_order_never_arrives_in_a_market_that_has_passed():
    """It left at T, but the market was let in up to T + 1 s before it was handed over."""
    exchange = exchange_of(latency_ns=LATENCY_NS)
    exchange.on_market(book(T + SECOND_NS))
    exchange.submit(order(T, 1, 60_000))
    _, fill = reports_of(exchange)
    assert (fill.ts_event_ns, fill.ts_init_ns) == (T + SECOND_NS, T + SECOND_NS + 50 * MS)


def test_a_fast_venue_is_not_held_up_by_an_order_on_its_way_to_a_slow_one():
    """Polling far ahead executes the slow order; an answer to the fast one still goes out in time."""
    exchange = exchange_of(latency_ns=LATENCY_NS)
    for venue in LATENCY_NS:
        exchange.on_market(book(T, venue=venue))
    exchange.submit(order(T, 1, 60_000, "slow", "hyperliquid"))
    exchange.submit(order(T, 1, 60_000, "fast"))
    first = exchange.poll(T + HOUR_NS)
    exchange.submit(order(first.ts_init_ns, 1, 60_000, "answer"))
    filled = {r.client_order_id: r.ts_event_ns - T for r in reports_of(exchange) if isinstance(r, OrderFilled)}
    assert filled == {"fast": 50 * MS, "slow": 200 * MS, "answer": 150 * MS}


def test_pump_delivers_reports_and_submits_what_they_cause():
    class OneMore:
        sent = 0

        def turn(self, event):
            if isinstance(event, OrderFilled) and self.sent < 3:
                self.sent += 1
                return [order(event.ts_init_ns, "0.01", 60_000, f"more-{self.sent}")]
            return ()

    exchange = exchange_of(latency_ns=LATENCY_NS)
    exchange.on_market(book(T))
    exchange.submit(order(T, "0.01", 60_000))
    engine = OneMore()
    pump(engine, exchange, T + 399 * MS)
    assert engine.sent == 3 and len(exchange.account("binance").fills) == 4
    assert kinds(reports_of(exchange, T + 400 * MS)) == ["OrderAccepted", "OrderFilled"]


# cancels


def test_a_cancel_of_an_accepted_order_comes_too_late_and_one_of_an_unknown_order_settles_it():
    exchange = exchange_of(latency_ns=LATENCY_NS)
    exchange.on_market(book(T))
    exchange.submit(order(T, 1, 60_000, "a"))
    for id in ("a", "lost"):
        exchange.submit(CancelOrder(ts_init_ns=T, client_order_id=id, venue="binance", symbol="BTC"))
    *life, canceled = reports_of(exchange)
    assert kinds(life) == ["OrderAccepted", "OrderFilled"]
    assert (canceled.client_order_id, canceled.reason) == ("lost", "unknown order")
    assert canceled.ts_init_ns == T + 100 * MS


# funding


@pytest.mark.parametrize(
    ("qty", "price", "rate", "cash"),
    [
        ("0.5", 60_000, "0.0001", "-3"),
        ("-0.5", 60_000, "0.0001", "3"),
        ("1000", 2.5, "-0.0005", "1.25"),
        ("1.5", "60020.5", "-0.000085", "7.65261375"),
    ],
)
def test_a_settlement_pays_what_the_rule_says(qty, price, rate, cash):
    cheap = replace(BINANCE, lot_step_base=D("0.1"), price_tick=D("0.1"), min_notional_usd=D(0))
    exchange = hold(exchange_of(cheap), qty, price, T - 1, "binance")
    before = exchange.account("binance").wallet
    exchange.on_market(mark(T, price))
    exchange.on_market(realised(T, rate, "binance"))
    (paid,) = (r for r in reports_of(exchange) if isinstance(r, FundingPaid))
    assert (paid.cash, paid.ts_init_ns, paid.settlement_time_ns) == (D(cash), T + SECOND_NS, T)
    assert (paid.qty_base, paid.price, paid.rate) == (D(qty), D(str(price)), D(rate))
    assert exchange.account("binance").wallet == before + D(cash)
    assert exchange.account("binance").funding == {("BTC", T): paid}


@pytest.mark.parametrize(
    ("terms", "cash"), [(HYPERLIQUID, "0.3746875"), (replace(HYPERLIQUID, price_basis=PriceBasis.MARK), "0.3750625")]
)
def test_hyperliquid_pays_on_oracle_and_reading_the_mark_would_show(terms, cash):
    exchange = hold(exchange_of(terms), "-0.5", time_ns=T - 1)
    exchange.on_market(mark(T, 60_010, oracle=59_950, venue="hyperliquid"))
    exchange.on_market(realised(T, "0.0000125"))
    assert reports_of(exchange)[-1].cash == D(cash)


def test_the_price_that_a_venue_publishes_goes_before_any_mark():
    exchange = hold(exchange_of(), 1, time_ns=T - 1)
    exchange.on_market(mark(T, 60_010, oracle=59_950, venue="hyperliquid"))
    exchange.on_market(realised(T, "0.0001", price=D(61000)))
    assert reports_of(exchange)[-1].cash == D("-6.1")


@pytest.mark.parametrize(("arrives_ns", "held"), [(-1, True), (0, False), (1, False)])
def test_an_entry_is_in_time_only_before_the_hour(arrives_ns, held):
    exchange = exchange_of(latency_ns=LATENCY_NS)
    exchange.on_market(book(T - SECOND_NS, venue="hyperliquid"))
    exchange.submit(order(T + arrives_ns - 200 * MS, 1, 60_000, venue="hyperliquid"))
    exchange.on_market(realised(T, "0.0001", price=D(60_000)))
    assert any(isinstance(r, FundingPaid) for r in reports_of(exchange)) is held


@pytest.mark.parametrize(("arrives_ns", "held"), [(-1, False), (0, True), (1, True)])
def test_an_exit_saves_the_payment_only_before_the_hour(arrives_ns, held):
    exchange = exchange_of(latency_ns=LATENCY_NS)
    exchange.on_market(book(T - SECOND_NS, venue="hyperliquid"))
    exchange.submit(order(T - SECOND_NS, 1, 60_000, "in", "hyperliquid"))
    exchange.submit(order(T + arrives_ns - 200 * MS, -1, 59_990, "out", "hyperliquid"))
    exchange.on_market(realised(T, "0.0001", price=D(60_000)))
    assert any(isinstance(r, FundingPaid) for r in reports_of(exchange)) is held
    assert exchange.account("hyperliquid").positions == {}


def test_a_late_settlement_asks_for_the_position_and_price_of_its_own_hour():
    """Three hours later the position has changed twice and there are 10 000 newer marks."""
    exchange = hold(exchange_of(), 1, time_ns=T - HOUR_NS)
    for second in range(-5, 10_000):
        exchange.on_market(mark(T + second * SECOND_NS, 60_000 + second, venue="hyperliquid"))
    hold(exchange, 1, time_ns=T + 3 * HOUR_NS - 2)
    hold(exchange, -2, time_ns=T + 3 * HOUR_NS - 1)
    exchange.on_market(realised(T, "0.0001", delay_ns=3 * HOUR_NS))
    exchange.on_market(realised(T + HOUR_NS, "0.0001", delay_ns=2 * HOUR_NS))
    paid = [r for r in reports_of(exchange) if isinstance(r, FundingPaid)]
    assert [(p.qty_base, p.price) for p in paid] == [(D(1), D(60_000)), (D(1), D(63_600))]


def test_the_mark_before_the_hour_is_used_even_when_it_is_old():
    exchange = hold(exchange_of(), 1, time_ns=T - 5 * HOUR_NS)
    exchange.on_market(mark(T - 4 * HOUR_NS, 59_000, venue="hyperliquid"))
    exchange.on_market(mark(T + 1, 60_000, venue="hyperliquid"))
    with capture_logs() as log:
        exchange.on_market(realised(T, "0.0001"))
    assert reports_of(exchange)[-1].price == 59_000 and log == []


def test_a_settlement_without_an_earlier_mark_takes_the_next_one_and_says_so():
    exchange = hold(exchange_of(), 1, time_ns=T - 1)
    exchange.on_market(mark(T + 1, 60_000, venue="hyperliquid"))
    exchange.on_market(mark(T + 2, 61_000, venue="hyperliquid"))
    with capture_logs() as log:
        exchange.on_market(realised(T, "0.0001"))
    assert reports_of(exchange)[-1].price == 61_000
    assert log[0]["settlement"] == "2026-03-02T08:00:00.000Z"


def test_a_settlement_without_any_price_is_refused_not_guessed():
    exchange = hold(exchange_of(), 1, time_ns=T - 1)
    with pytest.raises(DataError, match="hyperliquid BTC 2026-03-02T08:00:00.000Z: 1 base held and no price"):
        exchange.on_market(realised(T, "0.0001"))
    assert exchange.account("hyperliquid").wallet == D(100_000)


def test_a_published_price_is_not_looked_up_elsewhere():
    exchange = hold(exchange_of(), 1, time_ns=T - 1)
    exchange.on_market(mark(T + 1, 60_000, venue="hyperliquid"))
    with capture_logs() as log:
        exchange.on_market(realised(T, "0.0001", price=D(60_000)))
    assert log == []


def test_a_settlement_is_paid_once_and_only_to_who_held_it():
    exchange = hold(exchange_of(), 1, time_ns=T - 1)
    for venue in ("hyperliquid", "binance", "okx"):
        exchange.on_market(realised(T, "0.0001", venue, price=D(60_000)))
    exchange.on_market(realised(T, "0.0002", price=D(60_000)))
    exchange.on_market(realised(T, "0.0002", symbol="ETH", price=D(60_000)))
    paid = [r for r in reports_of(exchange) if isinstance(r, FundingPaid)]
    assert [(p.venue, p.cash) for p in paid] == [("hyperliquid", D(-6))]


def test_a_round_trip_leaves_what_the_accounts_say():
    """Worked example E8, leg A: two entries, one settlement, one exit."""
    exchange = exchange_of(BINANCE)
    hold(exchange, "0.4", 59_990, T - 3, "binance")
    hold(exchange, "0.6", 60_045, T - 2, "binance")
    assert exchange.account("binance").positions["BTC"].cost == D(60_023)
    exchange.on_market(mark(T, 59_985))
    exchange.on_market(realised(T, "0.00005", "binance"))
    assert kinds(reports_of(exchange)) == ["FundingPaid"]
    hold(exchange, -1, 59_895, T + 2 * SECOND_NS, "binance")
    account = exchange.account("binance")
    assert sum(fill.fee for fill in account.fills) == D("59.959")
    assert account.funding["BTC", T].cash == D("-2.99925")
    assert account.wallet - account.deposit == D("-190.95825")


# margin calls


def test_equity_and_maintenance_are_those_of_the_venue_alone():
    exchange = hold(hold(exchange_of(), 1, venue="hyperliquid"), -1, venue="binance")
    exchange.on_market(mark(T, 61_000, venue="hyperliquid"))
    stands = margin(exchange.account("hyperliquid"))
    assert (stands.equity, stands.maintenance, stands.initial) == (101_000, D("762.5"), 1_525)
    assert margin(exchange.account("binance")).equity == D(100_000) - 30  # no mark yet: at cost
    exchange.on_market(mark(T, 61_000))
    assert margin(exchange.account("binance")).equity == D(100_000) - 30 - 1_000


@pytest.mark.parametrize(("qty", "safe", "broken"), [(1, 54_683.6, 54_683.5), (-1, 65_185.1, 65_185.2)])
def test_a_mark_beyond_the_liquidation_price_closes_the_account(qty, safe, broken):
    """Worked example E7, Hyperliquid: 54683.544304 for the long and 65185.185185 for the short."""
    exchange = exchange_of(HYPERLIQUID, deposit=6_000, latency_ns={"hyperliquid": 0})
    hold(exchange, qty)
    exchange.on_market(mark(T + 1, safe, venue="hyperliquid"))
    assert reports_of(exchange) == []
    exchange.on_market(mark(T + 2, broken, venue="hyperliquid"))
    liquidated, fill = reports_of(exchange)
    equity = 6_000 + qty * (D(str(broken)) - 60_000)
    assert isinstance(liquidated, PositionLiquidated)
    assert (liquidated.equity, liquidated.maintenance) == (equity, D("0.0125") * D(str(broken)))
    assert (fill.qty_base, fill.price, fill.liquidity) == (-qty, D(str(broken)), Liquidity.LIQUIDATION)
    assert (fill.client_order_id, fill.ts_event_ns) == ("liquidation-hyperliquid-1", T + 2)
    assert (exchange.account("hyperliquid").positions, exchange.account("hyperliquid").wallet) == ({}, equity)


def test_equity_that_just_covers_maintenance_is_enough():
    exchange = hold(exchange_of(replace(HYPERLIQUID, maintenance_frac=D("0.1")), deposit=6_000), 1)
    exchange.on_market(mark(T, 60_000, venue="hyperliquid"))  # 6000 against 6000
    assert reports_of(exchange) == []
    exchange.on_market(mark(T, 59_999.9, venue="hyperliquid"))
    assert len(reports_of(exchange)) == 2


@pytest.mark.parametrize(("qty", "broken", "price"), [(1, 57_220.05, "57220.0"), (-1, 62_760.05, "62760.1")])
def test_a_liquidation_costs_its_fee_and_rounds_against_us(qty, broken, price):
    exchange = hold(exchange_of(replace(BINANCE, taker_fee_bps=D(0)), deposit=3_000), qty, venue="binance")
    exchange.on_market(mark(T + 1, broken))
    _, fill = reports_of(exchange)
    assert (fill.price, fill.fee) == (D(price), D(price) * D("0.012"))
    assert exchange.account("binance").wallet == 3_000 + qty * (D(price) - 60_000) - fill.fee


@pytest.mark.parametrize(
    ("qty", "low", "high", "broken"),
    [(1, 54_000, 60_000, True), (1, 59_000, 70_000, False), (-1, 60_000, 66_000, True), (-1, 50_000, 61_000, False)],
)
def test_a_bar_is_searched_for_its_adverse_extreme_only(qty, low, high, broken):
    exchange = exchange_of(HYPERLIQUID, deposit=6_000, latency_ns={"hyperliquid": 200 * MS})
    exchange.on_market(book(T, asks=((60_000.0, 5.0),), bids=((60_000.0, 5.0),), venue="hyperliquid"))
    exchange.submit(order(T, qty, 60_000, venue="hyperliquid"))
    exchange.on_market(mark(T + HOUR_NS, 60_000, venue="hyperliquid"))
    exchange.on_market(bar(T + HOUR_NS, low, high))
    _, _, *forced = reports_of(exchange)
    assert kinds(forced) == ["PositionLiquidated", "OrderFilled"] * broken
    if broken:
        assert forced[1].price == (low if qty > 0 else high)
        assert forced[1].ts_event_ns == T + HOUR_NS - 1  # inside the bar
        assert forced[1].ts_init_ns == T + HOUR_NS + 200 * MS


def test_who_was_liquidated_inside_the_bar_does_not_hold_at_its_end():
    for qty in (1, -1):
        exchange = hold(exchange_of(HYPERLIQUID, deposit=6_000), qty)
        exchange.on_market(mark(T + HOUR_NS, 60_000, venue="hyperliquid"))
        exchange.on_market(bar(T + HOUR_NS, 54_000, 66_000))
        exchange.on_market(realised(T + HOUR_NS, "0.0001"))
        assert not any(isinstance(r, FundingPaid) for r in reports_of(exchange))


def test_a_bar_that_is_told_late_also_takes_what_was_added_after_its_end():
    exchange = hold(exchange_of(HYPERLIQUID, deposit=6_000), 1)
    hold(exchange, "0.5", time_ns=T + HOUR_NS + SECOND_NS)
    exchange.on_market(bar(T + HOUR_NS, 54_000, 60_000))
    assert exchange.account("hyperliquid").positions == {}
    for hours in (1, 2):
        exchange.on_market(realised(T + hours * HOUR_NS, "0.0001", price=D(60_000)))
    assert kinds(reports_of(exchange)) == ["PositionLiquidated", "OrderFilled"]


def test_a_bar_does_not_touch_a_position_that_it_has_not_seen():
    closed = hold(hold(exchange_of(HYPERLIQUID, deposit=6_000), 1), -1, time_ns=T + 1)
    opened = hold(exchange_of(HYPERLIQUID, deposit=6_000), 1, time_ns=T + HOUR_NS)
    turned = hold(hold(exchange_of(HYPERLIQUID, deposit=6_000), -1), 2, time_ns=T + HOUR_NS)
    for exchange in (closed, opened, turned):
        exchange.on_market(bar(T + HOUR_NS, 54_000, 66_000))
        assert reports_of(exchange) == []


def test_a_loser_is_liquidated_although_the_other_venue_wins():
    exchange = exchange_of(replace(BINANCE, taker_fee_bps=D(0)), HYPERLIQUID, deposit=6_000)
    hold(hold(exchange, 1, venue="binance"), -1, venue="hyperliquid")
    for venue in ("binance", "hyperliquid"):
        exchange.on_market(mark(T + 1, 65_200, venue=venue))
    assert {r.venue for r in reports_of(exchange)} == {"hyperliquid"}
    assert exchange.account("binance").held("BTC") == 1


def test_a_winner_on_the_same_venue_helps_and_a_breach_takes_all():
    coin = replace(HYPERLIQUID, symbol="ETH")
    exchange = exchange_of(HYPERLIQUID, coin, deposit=6_000)
    hold(hold(exchange, 1), -20, 3_000, symbol="ETH")
    exchange.on_market(mark(T + 1, 2_700, venue="hyperliquid", symbol="ETH"))
    exchange.on_market(mark(T + 1, 54_000, venue="hyperliquid"))
    assert reports_of(exchange) == []
    exchange.on_market(mark(T + 2, 3_000, venue="hyperliquid", symbol="ETH"))
    first, btc, second, eth = reports_of(exchange)
    assert (first.symbol, second.symbol, first.equity, second.equity) == ("BTC", "ETH", 0, 0)
    assert first.maintenance == second.maintenance == D("0.0125") * 114_000
    assert [(f.qty_base, f.price) for f in (btc, eth)] == [(-1, 54_000), (20, 3_000)]
    assert [f.client_order_id for f in (btc, eth)] == ["liquidation-hyperliquid-1", "liquidation-hyperliquid-2"]
    assert len({f.trade_id for f in exchange.account("hyperliquid").fills}) == 4


def test_a_position_without_a_mark_is_closed_at_what_it_cost():
    coin = replace(HYPERLIQUID, symbol="ETH")
    exchange = exchange_of(HYPERLIQUID, coin, deposit=6_000)
    hold(hold(exchange, 1), -1, 3_000, symbol="ETH")
    exchange.on_market(mark(T + 1, 54_000, venue="hyperliquid"))
    assert [r.price for r in reports_of(exchange)[1::2]] == [54_000, 3_000]


def test_a_payment_may_be_what_breaks_an_account():
    exchange = hold(exchange_of(HYPERLIQUID, deposit=6_000), 1)
    exchange.on_market(mark(T + HOUR_NS, 54_700, venue="hyperliquid"))
    assert reports_of(exchange) == []
    exchange.on_market(realised(T + HOUR_NS, "0.001"))
    assert kinds(reports_of(exchange)) == ["FundingPaid", "PositionLiquidated", "OrderFilled"]


def test_a_debt_stays_and_blocks_new_orders():
    exchange = hold(exchange_of(HYPERLIQUID, deposit=6_000), 1)
    exchange.on_market(mark(T + 1, 50_000, venue="hyperliquid"))
    assert exchange.account("hyperliquid").wallet == -4_000
    exchange.on_market(mark(T + 2, 50_000, venue="hyperliquid"))
    assert len(reports_of(exchange)) == 2  # once
    (report,) = trade(exchange, order(T + 2, "0.1", 60_000, "b", "hyperliquid"))
    assert report.reason == "insufficient margin: 150.00 USD needed, -4000.00 available"


# faults


class Script:
    def __init__(self, *fates):
        self.fates, self.seen = list(fates), []

    def fate(self, command, at_ns):
        self.seen.append((command.client_order_id, at_ns))
        return self.fates.pop(0) if self.fates else Fate()


def test_the_next_order_can_be_refused_and_the_one_after_it_not():
    faults = Script(Fate(reject="system busy"))
    exchange = exchange_of(faults=faults, latency_ns=LATENCY_NS)
    exchange.on_market(book(T))
    for id in ("a", "a"):
        exchange.submit(order(T, 1, 60_000, id))
    assert kinds(reports_of(exchange)) == ["OrderRejected", "OrderAccepted", "OrderFilled"]
    assert faults.seen == [("a", T + 50 * MS)] * 2


@pytest.mark.parametrize(("frac", "filled"), [("0.5", ["0.5"]), ("0.3337", ["0.333"]), ("0", []), ("1", ["1"])])
def test_an_order_can_be_filled_in_part(frac, filled):
    exchange = exchange_of(faults=Script(Fate(fill_frac=D(frac))))
    exchange.on_market(book(T))
    reports = trade(exchange, order(T, 1, 60_000))
    assert [r.qty_base for r in reports if isinstance(r, OrderFilled)] == [D(qty) for qty in filled]
    assert isinstance(reports[-1], OrderCanceled) is (frac != "1")


def test_a_venue_that_is_down_answers_when_it_is_back():
    exchange = exchange_of(
        faults=Script(Fate(reject="venue down", silent_until_ns=T + SECOND_NS)), latency_ns=LATENCY_NS
    )
    exchange.submit(order(T, 1, 60_000))
    assert exchange.poll(T + SECOND_NS + 50 * MS - 1) is None
    (report,) = reports_of(exchange)
    assert (report.reason, report.ts_init_ns) == ("venue down", T + SECOND_NS + 50 * MS)


def test_a_silent_venue_may_have_taken_the_order():
    exchange = exchange_of(faults=Script(Fate(silent_until_ns=T + SECOND_NS)))
    exchange.on_market(book(T))
    assert trade(exchange, order(T, 1, 60_000)) == []
    assert exchange.account("binance").held("BTC") == 1
    _accepted, fill = reports_of(exchange)
    assert (fill.ts_init_ns, fill.ts_event_ns) == (T + SECOND_NS, T)


def test_a_cancel_can_be_answered_late_too():
    exchange = exchange_of(faults=Script(Fate(silent_until_ns=T + SECOND_NS)))
    exchange.submit(CancelOrder(ts_init_ns=T, client_order_id="lost", venue="binance", symbol="BTC"))
    assert [r.ts_init_ns for r in reports_of(exchange)] == [T + SECOND_NS]


@pytest.mark.parametrize("frac", ["-0.1", "1.1"])
def test_a_fault_fills_between_nothing_and_all(frac):
    with pytest.raises(InputError, match="must be from 0 to 1"):
        Fate(fill_frac=D(frac))


# what is not there


@pytest.mark.parametrize(
    ("latency_ns", "deposits"),
    [({}, {"binance": D(1)}), ({"binance": 0}, {}), ({"binance": -1}, {"binance": D(1)})],
)
def test_a_venue_without_latency_or_deposit_does_not_open(latency_ns, deposits):
    with pytest.raises(InputError, match="binance: a simulated venue needs"):
        SimulatedExchange([BINANCE], latency_ns, deposits)


def test_a_command_to_an_unknown_venue_is_our_mistake():
    exchange = exchange_of(BINANCE)
    with pytest.raises(InputError, match="no simulated venue 'okx', only binance"):
        exchange.submit(order(T, 1, 60_000, venue="okx"))
    with pytest.raises(InputError, match="no simulated venue 'okx'"):
        exchange.account("okx")


def test_a_market_that_is_not_traded_passes_by():
    exchange = exchange_of(BINANCE)
    exchange.on_market(TimerFired(ts_init_ns=T, name="decision"))
    for venue, symbol in [("okx", "BTC"), ("binance", "DOGE")]:
        exchange.on_market(book(T, venue=venue, symbol=symbol))
        exchange.on_market(mark(T, 60_000, venue=venue, symbol=symbol))
        exchange.on_market(bar(T, 59_000, 61_000, venue, symbol))
        exchange.on_market(realised(T, "0.0001", venue, symbol))
    assert reports_of(exchange) == []
