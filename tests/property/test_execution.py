"""Whatever venues answer, in whatever order and how often: legs match the fills, and end together."""

from decimal import Decimal as D

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.config.settings import ExecutionSettings
from fundarb.core.engine import Engine, MemoryJournal, replay
from fundarb.core.events import BookUpdated, OrderAccepted, OrderCanceled, OrderFilled, OrderRejected
from fundarb.core.events import PairIntent, PairStateChanged, SubmitOrder
from fundarb.core.models import Level, Liquidity, Pair
from fundarb.core.numbers import SECOND_NS, utc_ns
from fundarb.data_providers.market_state import MarketState
from fundarb.execution.desk import OrderDesk
from fundarb.execution.pair import PAIR_MOVES, PairState
from fundarb.execution.service import ExecutionService
from terms import BINANCE

START_NS = utc_ns("2026-03-02T08:01:10Z")
PAIR = Pair(a=BINANCE, b=replace(BINANCE, venue="okx", lot_step_base=D("0.0001"), min_notional_usd=D(5)))
SETTINGS = ExecutionSettings(
    entry_collar_bps=D(5), repair_collars_bps=[D(5), D(10), D(20)], repair_deadline_s=60, delta_tolerance_usd=D(10)
)


def book(venue, at_ns):
    bids, asks = (Level(59_999.5, 3.0),), (Level(60_000.5, 3.0),)
    return BookUpdated(ts_init_ns=at_ns, venue=venue, symbol="BTC", bids=bids, asks=asks)


class Desk:
    """An engine with execution alone, and venues that answer as they are told."""

    def __init__(self):
        self.journal = MemoryJournal()
        market = MarketState([PAIR], max_book_age_s=5)
        desk = OrderDesk("test", market, lambda placed: None)
        self.service = ExecutionService([PAIR], desk, SETTINGS)
        self.engine = Engine([market, self.service], self.journal)
        self.fills, self.sent = {}, []
        for venue in ("binance", "okx"):
            self.turn(book(venue, START_NS))

    def turn(self, event, answers=None):
        queue = [event]
        while queue:
            for order in self.engine.turn(queue.pop(0)):
                self.sent.append(order)
                queue += self.answer(order, answers)

    def answer(self, order, answers):
        about = {"ts_init_ns": order.ts_init_ns, "client_order_id": order.client_order_id}
        about |= {"venue": order.venue, "symbol": order.symbol}
        share, pieces, how, twice = answers.pop(0) if answers else (D(1), 1, "in order", False)
        if how == "rejected":
            return [OrderRejected(**about, reason="insufficient margin")]
        step = PAIR.leg(order.venue).lot_step_base
        can_base = abs(order.qty_base)
        if order.reduce_only:  # a venue cuts such an order to the position, told or not
            held_base = self.position(order.venue)
            can_base = min(can_base, abs(held_base)) if held_base * order.qty_base < 0 else D(0)
        whole = (can_base * share // step) * step
        sizes = split(whole, pieces, step)
        fills = [
            OrderFilled(
                **about,
                trade_id=f"{order.client_order_id}-{number}",
                qty_base=size.copy_sign(order.qty_base),
                price=order.limit_price,
                fee=D(0),
                liquidity=Liquidity.TAKER,
                ts_event_ns=order.ts_init_ns,
            )
            for number, size in enumerate(sizes)
        ]
        for fill in fills:
            self.fills[fill.trade_id] = fill
        end = [] if whole == abs(order.qty_base) else [OrderCanceled(**about, reason="no more liquidity")]
        accepted = [OrderAccepted(**about)]
        reports = {
            "in order": accepted + fills + end,
            "fills first": fills + accepted + end,
            "canceled before the fills": accepted + end + fills,
            "accepted last": fills + end + accepted,
        }[how]
        return [report for report in reports for _ in range(1 + twice)]

    def position(self, venue):
        return sum((fill.qty_base for fill in self.fills.values() if fill.venue == venue), D(0))

    @property
    def legs(self):
        return self.service._trades[PAIR.pair_id].legs

    @property
    def states(self):
        return [e.message for e in self.journal.entries if isinstance(e.message, PairStateChanged)]


def split(whole, pieces, step):
    sizes = []
    for left in range(pieces, 0, -1):
        size = whole if left == 1 else (whole / left // step) * step
        if size:
            sizes.append(size)
        whole -= size
    return sizes


answers = st.tuples(
    st.sampled_from([D(0), D("0.3"), D("0.5"), D("0.77"), D(1), D(1)]),
    st.integers(1, 3),
    st.sampled_from(["in order", "in order", "fills first", "canceled before the fills", "accepted last", "rejected"]),
    st.booleans(),
)
intents = st.tuples(st.booleans(), st.integers(1, 900), st.lists(answers, max_size=10))


def play(plan):
    desk, now_ns = Desk(), START_NS
    for number, (swap, lots, told) in enumerate(plan, start=1):
        now_ns += 3600 * SECOND_NS
        for venue in ("binance", "okx"):
            desk.turn(book(venue, now_ns), list(told))
        long_venue, short_venue = ("okx", "binance") if swap else ("binance", "okx")
        held = desk.service._trades[PAIR.pair_id].held
        opening = not held.matched_base
        if not opening:
            long_venue, short_venue = held.long_venue, held.short_venue
        qty_base = lots * D("0.001")
        if not opening:
            qty_base = min(qty_base, held.matched_base // D("0.001") * D("0.001"))
        if not qty_base:
            continue
        desk.turn(
            PairIntent(
                ts_init_ns=now_ns,
                pair_id=PAIR.pair_id,
                intent_no=number,
                long_venue=long_venue,
                short_venue=short_venue,
                qty_base=qty_base,
                opening=opening,
                reason="test",
            ),
            list(told),
        )
    for minute in range(1, 4):  # and then venues that fill everything
        for venue in ("binance", "okx"):
            desk.turn(book(venue, now_ns + minute * 60 * SECOND_NS))
    return desk


@given(st.lists(intents, min_size=1, max_size=5))
def test_legs_are_the_sum_of_fills_and_come_together(plan):
    desk = play(plan)
    for venue in ("binance", "okx"):
        assert desk.legs[venue] == desk.position(venue)
    naked_base = abs(sum(desk.legs.values()))
    dust = naked_base < BINANCE.lot_step_base  # the coarser lot of the two cannot trade it
    assert dust or naked_base * 60_001 <= SETTINGS.delta_tolerance_usd
    assert desk.states == [] or desk.states[-1].now in ("IDLE", "OPEN")


@given(st.lists(intents, min_size=1, max_size=5))
def test_states_move_by_the_table_and_ids_never_repeat(plan):
    desk = play(plan)
    was = PairState.IDLE
    for change in desk.states:
        assert change.was == was.value
        assert PairState(change.now) in PAIR_MOVES[was]
        was = PairState(change.now)
    ids = [order.client_order_id for order in desk.sent]
    assert len(ids) == len(set(ids))


@given(st.lists(intents, min_size=1, max_size=5))
def test_the_journal_replays(plan):
    desk = play(plan)
    market = MarketState([PAIR], max_book_age_s=5)
    service = ExecutionService([PAIR], OrderDesk("test", market, lambda placed: None), SETTINGS)
    assert replay(desk.journal.entries, [market, service]) is None


@given(st.lists(intents, min_size=1, max_size=4))
@example(  # fills that come after the cancel, while the repair of what they close is on its way
    [
        (False, 4, []),
        (False, 4, [(D("0.77"), 1, "in order", False), (D("0.5"), 1, "canceled before the fills", False)]),
    ]
)
def test_reduce_only_orders_never_increase_a_leg(plan):
    desk = play(plan)
    legs = {"binance": D(0), "okx": D(0)}
    orders = {order.client_order_id: order for order in desk.sent}
    for entry in desk.journal.entries:
        message = entry.message
        if isinstance(message, SubmitOrder) and message.reduce_only:
            assert legs[message.venue] * message.qty_base < 0
            assert abs(message.qty_base) <= abs(legs[message.venue])
        if isinstance(message, OrderFilled) and message.trade_id in desk.fills:
            if desk.fills[message.trade_id] is not None:
                legs[orders[message.client_order_id].venue] += message.qty_base
                desk.fills[message.trade_id] = None
