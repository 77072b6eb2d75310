"""What no sequence of orders, books, marks and settlements can make a simulated venue do."""

from decimal import Decimal as D

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.core.events import (
    BookUpdated,
    CandleClosed,
    FundingPaid,
    FundingRealised,
    MarkPriceUpdated,
    OrderAccepted,
    OrderCanceled,
    OrderFilled,
    OrderRejected,
    SubmitOrder,
)
from fundarb.core.funding import FundingKind, FundingRate
from fundarb.core.models import Level
from fundarb.core.numbers import HOUR_NS, exact
from fundarb.exchanges.simulated import SimulatedExchange
from fundarb.exchanges.simulated_account import Depth, margin
from terms import BINANCE

TERMS = replace(
    BINANCE,
    lot_step_base=D("0.01"),
    min_qty_base=D("0.01"),
    min_notional_usd=D(5),
    price_tick=D("0.5"),
    taker_fee_bps=D("4.5"),
    max_leverage=D(10),
    maintenance_frac=D("0.03"),
    liquidation_fee_bps=D(50),
    interval_h=1,
    rate_cap=D("0.04"),
)

quantities = st.integers(-500, 500).filter(bool).map(lambda lots: lots * TERMS.lot_step_base)
limits = st.integers(180, 220).map(lambda ticks: ticks * TERMS.price_tick)  # 90 to 110
offered = st.lists(st.floats(0, 3), max_size=5)


@st.composite
def books(draw):
    """A book around 100 whose levels lie anywhere between ticks and lots."""
    mid = draw(st.floats(95, 105))
    steps = st.lists(st.floats(0.01, 2), min_size=5, max_size=5)
    sides = []
    for side in (-1, 1):
        price, levels = mid, []
        for step, qty in zip(draw(steps), draw(offered), strict=False):
            price += side * step
            levels.append(Level(price, qty))
        sides.append(tuple(levels))
    return BookUpdated(ts_init_ns=0, venue="binance", symbol="BTC", bids=sides[0], asks=sides[1])


@given(books(), st.lists(st.tuples(quantities, limits), min_size=1, max_size=6))
def test_no_sequence_of_takes_exceeds_its_limits_or_the_book(book, orders):
    depth = Depth(book, TERMS)
    taken = []
    for qty_base, limit in orders:
        takes = depth.take(qty_base, limit)
        side = 1 if qty_base > 0 else -1
        sizes, prices = [side * qty for qty, _ in takes], [side * price for _, price in takes]
        assert all(size > 0 and size % TERMS.lot_step_base == 0 for size in sizes)
        assert sum(sizes) <= abs(qty_base)
        assert all(price <= side * limit and price % TERMS.price_tick == 0 for price in prices)
        assert prices == sorted(prices)
        taken += takes
    for side, levels in ((1, book.asks), (-1, book.bids)):
        bought = sum(side * qty for qty, _ in taken if side * qty > 0)
        assert bought <= sum(exact(level.qty_base) for level in levels)
        for limit in (D(90), D(100), D(110)):  # never better than what was displayed at any price
            within = sum(exact(level.qty_base) for level in levels if side * level.price <= side * limit)
            assert sum(side * qty for qty, price in taken if side * qty > 0 and side * price <= side * limit) <= within


@given(books(), quantities, limits)
def test_a_take_leaves_nothing_that_it_could_have_had(book, qty_base, limit):
    depth = Depth(book, TERMS)
    first = depth.take(qty_base, limit)
    if sum(qty for qty, _ in first) != qty_base:
        assert depth.take(qty_base, limit) == []


# whole sessions

gaps_ns = st.integers(1, 3000).map(lambda seconds: seconds * 1_000_000_000)
wide = st.tuples(quantities, st.integers(-2, 20)).map(lambda pair: (pair[0], within(*pair), False))
orders = st.one_of(wide, wide, wide, st.tuples(quantities, limits, st.booleans()))
trading = st.one_of(
    st.tuples(st.just("order"), orders),
    st.tuples(st.just("order"), orders),
    st.tuples(st.just("book"), books()),
)
moves = st.one_of(
    st.tuples(st.just("mark"), st.floats(80, 120)),
    st.tuples(st.just("bar"), st.floats(0, 20)),
    st.tuples(st.just("settle"), st.integers(-400, 400)),
)
sessions = st.lists(st.tuples(gaps_ns, st.one_of(trading, trading, moves)), min_size=5, max_size=30)


def within(qty_base, ticks):
    """Set a limit some ticks beyond 100, on the side where the order wants to trade."""
    return D(100) + (1 if qty_base > 0 else -1) * ticks * TERMS.price_tick


FIRST_BOOK = BookUpdated(
    ts_init_ns=1,
    venue="binance",
    symbol="BTC",
    bids=(Level(99.9, 1.234), Level(99.0, 50.0)),
    asks=(Level(100.1, 1.234), Level(101.0, 50.0)),
)


def market_event(kind, what, now_ns):
    """Make the event of a step; None if it is an order."""
    place = {"ts_init_ns": now_ns, "venue": "binance", "symbol": "BTC"}
    hour_ns = now_ns // HOUR_NS * HOUR_NS
    if kind == "book":
        return BookUpdated(**place, bids=what.bids, asks=what.asks)
    if kind == "mark":
        return MarkPriceUpdated(**place, mark_price=what, oracle_price=what)
    if kind == "bar":
        span = {"open_time_ns": hour_ns - HOUR_NS, "close_time_ns": hour_ns, "volume_base": 1.0}
        return CandleClosed(**place, **span, open=100.0, high=100 + what, low=100 - what, close=100.0)
    if kind == "settle":
        rate = FundingRate(
            venue="binance",
            symbol="BTC",
            kind=FundingKind.REALISED,
            rate=D(what) / 10_000,
            interval_h=1,
            settlement_time_ns=hour_ns,
            ts_init_ns=now_ns,
        )
        return FundingRealised(ts_init_ns=now_ns, funding=rate, price=D("99.5"))


def play(session, deposit=D(60), latency_ns=700_000_000_000, poll_each_step=True):
    """Run a session whose orders depend on nothing; give the exchange and all reports."""
    exchange = SimulatedExchange([TERMS], {"binance": latency_ns}, {"binance": deposit})
    exchange.on_market(FIRST_BOOK)
    now_ns, reports = 100 * HOUR_NS, []
    for number, (gap_ns, (kind, what)) in enumerate(session):
        now_ns += gap_ns
        if poll_each_step:
            reports += iter(lambda: exchange.poll(now_ns), None)  # noqa: B023
        if event := market_event(kind, what, now_ns):
            exchange.on_market(event)
        else:
            place = {"ts_init_ns": now_ns, "venue": "binance", "symbol": "BTC"}
            size = {"qty_base": what[0], "limit_price": what[1], "reduce_only": what[2]}
            exchange.submit(SubmitOrder(**place, **size, client_order_id=f"order-{number}"))
    reports += iter(lambda: exchange.poll(now_ns + 1000 * HOUR_NS), None)
    return exchange, reports


@given(sessions)
def test_the_wallet_is_what_its_flows_add_up_to(session):
    """I1, I2 and I3, exactly: quantities, cash and equity from the reports alone."""
    exchange, reports = play(session)
    account = exchange.account("binance")
    fills = [report for report in reports if isinstance(report, OrderFilled)]
    payments = [report for report in reports if isinstance(report, FundingPaid)]
    assert fills == account.fills and payments == list(account.funding.values())

    held = sum(fill.qty_base for fill in fills)
    assert account.held("BTC") == held and ("BTC" in account.positions) == (held != 0)
    cost = account.positions["BTC"].cost if held else D(0)
    spent = sum(fill.qty_base * fill.price for fill in fills)
    cash = sum(paid.cash for paid in payments) - sum(fill.fee for fill in fills)
    assert account.wallet == account.deposit - spent + cost + cash
    assert margin(account, {"BTC": D(101)}).equity == account.deposit - spent + held * 101 + cash


@given(sessions)
def test_every_order_has_one_life_and_one_end(session):
    """I10: taken or refused once, never overfilled, and cancelled exactly when something is left."""
    _, reports = play(session)
    told = {number: [] for number, (_, (kind, _)) in enumerate(session) if kind == "order"}
    for report in reports:
        id = getattr(report, "client_order_id", "liquidation")
        if not id.startswith("liquidation"):
            told[int(id.removeprefix("order-"))].append(report)
    for number, (first, *rest) in told.items():
        qty_base, limit, _ = session[number][1][1]
        if isinstance(first, OrderRejected):
            assert rest == []
            continue
        assert isinstance(first, OrderAccepted)
        left_base = qty_base
        while rest and isinstance(rest[0], OrderFilled):
            fill = rest.pop(0)
            left_base -= fill.qty_base
            assert fill.qty_base * qty_base > 0 and (fill.price - limit) * qty_base <= 0
        assert left_base * qty_base >= 0
        assert [type(report) for report in rest] == [OrderCanceled] * (left_base != 0)


@given(sessions)
def test_reports_come_by_the_clock_and_trades_have_names(session):
    _, reports = play(session)
    times_ns = [report.ts_init_ns for report in reports]
    assert times_ns == sorted(times_ns)
    names = [report.trade_id for report in reports if isinstance(report, OrderFilled)]
    assert len(set(names)) == len(names)


@given(sessions)
def test_the_outcome_does_not_depend_on_how_often_we_poll(session):
    assert play(session)[1] == play(session, poll_each_step=False)[1]


@given(sessions)
def test_funding_is_paid_on_what_the_fills_say_was_held(session):
    """I5: the snapshot of each payment is the sum of all fills before the hour."""
    _, reports = play(session, deposit=D(10**9))  # nobody is liquidated
    fills = [report for report in reports if isinstance(report, OrderFilled)]
    for paid in (report for report in reports if isinstance(report, FundingPaid)):
        held = sum(fill.qty_base for fill in fills if fill.ts_event_ns < paid.settlement_time_ns)
        assert paid.qty_base == held != 0
        assert paid.cash == -held * paid.price * paid.rate


@given(st.lists(quantities, min_size=1, max_size=5), st.integers(-400, 400), st.integers(50, 150))
def test_funding_adds_to_nothing_over_all_holders(quantities, rate, price):
    """I6: what longs pay is what shorts receive, to the last digit."""
    free = replace(TERMS, min_notional_usd=D(0))
    paid = []
    for qty_base in [*quantities, -sum(quantities)]:
        exchange = SimulatedExchange([free], {"binance": 0}, {"binance": D(10**9)})
        deep = (Level(100.0, 10.0**6),)
        exchange.on_market(BookUpdated(ts_init_ns=1, venue="binance", symbol="BTC", bids=deep, asks=deep))
        if qty_base:
            place = {"ts_init_ns": 1, "venue": "binance", "symbol": "BTC", "client_order_id": "a"}
            exchange.submit(SubmitOrder(**place, qty_base=qty_base, limit_price=D(100), reduce_only=False))
        exchange.on_market(market_event("mark", price + 0.123, HOUR_NS))
        settlement = market_event("settle", rate, HOUR_NS + 1)
        exchange.on_market(FundingRealised(ts_init_ns=HOUR_NS + 1, funding=settlement.funding))
        account = exchange.account("binance")
        assert account.held("BTC") == qty_base
        paid += [payment.cash for payment in account.funding.values()]
    assert sum(paid) == 0
    assert len(paid) == len(quantities) + (sum(quantities) != 0)
