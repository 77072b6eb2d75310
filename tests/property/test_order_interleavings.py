"""Acks, fills, cancels, copies, time-outs and not-founds in any order, at two venues and a third: one leg, one order, every fill once."""

import random
from decimal import Decimal as D

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.config.settings import ExecutionSettings
from fundarb.core.engine import Engine, MemoryJournal, replay
from fundarb.core.events import (
    BookUpdated,
    CancelOrder,
    KillSwitchReset,
    KillSwitchSet,
    OrderAccepted,
    OrderCanceled,
    OrderFilled,
    OrderNotFound,
    OrderNotPlaced,
    OrderPlaced,
    OrderRejected,
    OrderUnknown,
    PairIntent,
    PairStateChanged,
    PairTraded,
    QueryOrder,
    SubmitOrder,
    TimerFired,
)
from fundarb.core.models import KillLevel, Level, Liquidity, Pair
from fundarb.core.numbers import SECOND_NS, utc_ns
from fundarb.data_providers.market_state import MarketState
from fundarb.execution.desk import OrderDesk
from fundarb.execution.orders import ALLOWED, Order, OrderState, hear
from fundarb.execution.pair import PAIR_MOVES, PairState
from fundarb.execution.service import ExecutionService
from terms import BINANCE

START_NS = utc_ns("2026-03-02T08:01:10Z")
PAIR = Pair(a=BINANCE, b=replace(BINANCE, venue="okx", lot_step_base=D("0.0001"), min_notional_usd=D(5)))
VENUES = ("binance", "okx")
HYPERLIQUID = replace(BINANCE, venue="hyperliquid", lot_step_base=D("0.00001"), min_notional_usd=D(10))
PAIRS = [PAIR, Pair(a=BINANCE, b=HYPERLIQUID)]  # so that a leg of the first may be hedged at Hyperliquid
LEGS = {leg.venue: leg for leg in (PAIR.a, PAIR.b, HYPERLIQUID)}


def book(venue, at_ns):
    bids, asks = (Level(59_999.5, 30.0),), (Level(60_000.5, 30.0),)
    return BookUpdated(ts_init_ns=at_ns, venue=venue, symbol="BTC", bids=bids, asks=asks)


class Truth:
    """What the venues really did: orders that arrived, what they filled, and words on their way to us."""

    def __init__(self, rng):
        self.rng, self.kind = rng, True  # kind: answers everything at once
        self.orders, self.words, self.fills = {}, [], {}

    def take(self, command, now_ns):
        about = {"ts_init_ns": now_ns, "client_order_id": command.client_order_id}
        about |= {"venue": command.venue, "symbol": command.symbol}
        rng, wild = self.rng, not self.kind
        if isinstance(command, SubmitOrder):
            assert command.client_order_id not in self.orders, "one id, two orders"
            fate = rng.choice(["ok", "ok", "lost word", "lost order", "mute", "rejected"]) if wild else "ok"
            if fate in ("lost order", "lost word"):
                self.words.append(OrderUnknown(**about, reason="timed out"))
            if fate == "rejected":
                self.words.append(OrderRejected(**about, reason="no"))
            if fate in ("ok", "lost word", "mute"):
                self.arrive(command, about, told=fate == "ok")
        elif isinstance(command, CancelOrder):
            if not (wild and rng.random() < 0.3):
                self.end(command.client_order_id, about)
        elif isinstance(command, QueryOrder) and not (wild and rng.random() < 0.4):
            self.tell(command.client_order_id, about)

    def arrive(self, command, about, told):
        order = {"left": command.qty_base, "open": True, "about": about, "price": command.limit_price, "fills": []}
        self.orders[command.client_order_id] = order
        words = [OrderAccepted(**about)]
        if not command.post_only:
            share = self.rng.choice([D(0), D("0.3"), D("0.7"), D(1)]) if not self.kind else D(1)
            for part in (share,) if self.kind else (share / 2, share / 2):
                words += self.fill(command.client_order_id, command.qty_base * part, about["ts_init_ns"])
            if order["left"]:
                words.append(OrderCanceled(**about, reason="no more liquidity"))
            order["open"] = False
        if told:
            if not self.kind:
                self.rng.shuffle(words)
                words += [word for word in words if self.rng.random() < 0.3]  # copies
            self.words += words

    def fill(self, order_id, qty_base, now_ns):
        order = self.orders[order_id]
        step = LEGS[order["about"]["venue"]].lot_step_base
        qty_base = (abs(qty_base) // step * step).copy_sign(qty_base)
        if not qty_base:
            return []
        order["left"] -= qty_base
        name = f"{order_id}-{len(order['fills'])}"
        fill = OrderFilled(
            **{**order["about"], "ts_init_ns": now_ns},
            trade_id=name,
            qty_base=qty_base,
            price=order["price"],
            fee=D(0),
            liquidity=Liquidity.TAKER,
            ts_event_ns=now_ns,
        )
        order["fills"].append(fill)
        self.fills[name] = fill
        return [fill]

    def make(self, now_ns):
        """Let resting orders trade."""
        for order_id, order in self.orders.items():
            if order["open"] and self.rng.random() < 0.5:
                share = self.rng.choice([D("0.1"), D("0.5"), D(1)])
                self.words += self.fill(order_id, order["left"] * share, now_ns)
                if not order["left"]:
                    order["open"] = False

    def end(self, order_id, about):
        order = self.orders.get(order_id)
        if order is not None and order["open"]:
            order["open"] = False
            self.words.append(OrderCanceled(**about, reason="canceled"))

    def tell(self, order_id, about):
        order = self.orders.get(order_id)
        if order is None:
            self.words.append(OrderNotFound(**about))
            return
        self.words += order["fills"]
        if order["open"]:
            self.words.append(OrderAccepted(**about))
        elif order["left"]:
            self.words.append(OrderCanceled(**about, reason="no more liquidity"))


class Session:
    def __init__(self, rng, plan):
        self.rng, self.truth, self.now_ns = rng, Truth(rng), START_NS
        self.settings = ExecutionSettings(
            plan=plan, clips=3, clip_interval_s=2, maker_patience_s=4, maker_prices=2, max_imbalance_usd=20_000
        )
        self.journal = MemoryJournal()
        self.engine = Engine(self.services(), self.journal)
        self.service = self.engine_services[-1]
        self.working = set()
        for venue in LEGS:
            self.turn(book(venue, self.now_ns))

    def services(self):
        market = MarketState(PAIRS, max_book_age_s=5)
        service = ExecutionService(PAIRS, OrderDesk("test", market, lambda placed: None), self.settings)
        self.engine_services = [market, service]
        return self.engine_services

    def turn(self, event):
        for command in self.engine.turn(event):
            if isinstance(command, SubmitOrder):
                self.check_alone(command)
            self.truth.take(command, self.now_ns)

    def check_alone(self, command):
        """No second order for a leg while one is without a last word."""
        others = [
            placed
            for placed in self.service.working()
            if placed.venue == command.venue and placed.client_order_id != command.client_order_id
        ]
        assert not others, "two orders work on one leg"

    def second(self):
        self.now_ns += SECOND_NS
        self.turn(TimerFired(ts_init_ns=self.now_ns, name="heartbeat"))
        self.truth.make(self.now_ns)
        for venue in LEGS:
            self.turn(book(venue, self.now_ns))
        self.deliver()

    def deliver(self):
        budget = 200
        while self.truth.words and budget and (self.truth.kind or self.rng.random() < 0.8):
            budget -= 1
            word = self.truth.words.pop(0)
            self.turn(replace(word, ts_init_ns=self.now_ns))

    def want(self, number, qty_base):
        held = self.service.trades[PAIR.pair_id].held
        opening = not held.matched_base
        long_venue, short_venue = (held.long_venue, held.short_venue) if held.matched_base else VENUES
        qty_base = qty_base if opening else min(qty_base, held.matched_base // D("0.001") * D("0.001"))
        if qty_base:
            venues = {"long_venue": long_venue, "short_venue": short_venue}
            what = {"pair_id": PAIR.pair_id, "intent_no": number, "qty_base": qty_base, "opening": opening}
            self.turn(PairIntent(ts_init_ns=self.now_ns, **what, **venues, reason="test"))

    def stop(self, level):
        who = {"scope": "", "reason": "drill", "who": "mara"}
        self.turn(KillSwitchSet(ts_init_ns=self.now_ns, level=level, **who))

    def reset(self):
        self.turn(KillSwitchReset(ts_init_ns=self.now_ns, scope="", reason="drill over", who="mara"))


def play(rng, plan):
    session = Session(rng, plan)
    session.truth.kind = False
    for number in range(1, 4):
        session.want(number, D(rng.randint(2, 400)) * D("0.001"))
        for _ in range(rng.randint(1, 12)):
            session.second()
            if rng.random() < 0.05:
                session.stop(rng.choice(list(KillLevel)))
    session.reset()
    session.truth.kind = True
    for _ in range(110):  # and then venues that answer everything
        session.second()
    return session


plans = st.sampled_from(["taker", "taker", "twap", "maker", "iceberg"])
randoms = st.integers(0, 2**32).map(random.Random)


@given(randoms, plans)
def test_every_fill_counts_once_and_the_legs_come_together(rng, plan):
    """I1 and I10: legs are the venues' fills, no order fills beyond its size, nothing is left working or naked."""
    session = play(rng, plan)
    trade = session.service.trades[PAIR.pair_id]
    for venue in LEGS:
        filled = sum((fill.qty_base for fill in session.truth.fills.values() if fill.venue == venue), D(0))
        assert trade.legs.get(venue, 0) == filled
    assert session.service.working() == []
    assert trade.state in (PairState.IDLE, PairState.OPEN)
    naked_base = abs(sum(trade.legs.values()))
    assert naked_base < BINANCE.lot_step_base or naked_base * 60_001 <= session.settings.delta_tolerance_usd


@given(randoms, plans)
def test_states_move_by_the_table_and_the_journal_replays(rng, plan):
    """I9: a fresh core fed with the same inputs says the same; no pair makes a move that the table lacks."""
    session = play(rng, plan)
    was = PairState.IDLE
    for entry in session.journal.entries:
        if isinstance(entry.message, PairStateChanged):
            assert entry.message.was == was.value
            assert PairState(entry.message.now) in PAIR_MOVES[was]
            was = PairState(entry.message.now)
    assert replay(session.journal.entries, session.services()) is None


@given(randoms, plans)
def test_what_is_frozen_sends_nothing(rng, plan):
    session = Session(rng, plan)
    session.truth.kind = False
    session.want(1, D("0.2"))
    session.second()
    session.stop(rng.choice([KillLevel.FREEZE, KillLevel.CANCEL_ALL]))
    before = len(session.journal.entries)
    for _ in range(20):
        session.second()
    session.want(2, D("0.2"))
    said = [entry.message for entry in session.journal.entries[before:]]
    assert not [message for message in said if isinstance(message, SubmitOrder)]


@given(randoms)
def test_what_was_naked_for_a_time_was_naked(rng):
    session = play(rng, "maker")
    traded = [e.message for e in session.journal.entries if isinstance(e.message, PairTraded)]
    for trade in traded:
        assert trade.done_base >= 0
        assert trade.naked_usd_s == 0 or trade.max_naked_usd > 0

ORDER = OrderPlaced(
    ts_init_ns=START_NS,
    client_order_id="order",
    pair_id=PAIR.pair_id,
    intent_no=1,
    venue="okx",
    symbol="BTC",
    qty_base=D("0.4"),
    limit_price=D(60_000),
    reduce_only=False,
    decision_mid=D(60_000),
)
ABOUT = {"ts_init_ns": START_NS, "client_order_id": "order", "venue": "okx", "symbol": "BTC"}
PRICE = {"price": D(60_000), "fee": D(0), "liquidity": Liquidity.TAKER, "ts_event_ns": START_NS}
FILLS = [OrderFilled(**ABOUT, trade_id=f"t{n}", qty_base=D("0.1"), **PRICE) for n in range(4)]
WORDS = [
    OrderAccepted(**ABOUT),
    OrderCanceled(**ABOUT, reason=""),
    OrderUnknown(**ABOUT, reason=""),
    OrderNotPlaced(**ABOUT, reason=""),
    *FILLS,
]


@given(st.lists(st.sampled_from(WORDS), max_size=20))
def test_any_story_of_an_order_stays_within_its_table(words):
    """Whatever is told in whatever order: allowed moves, every fill once, never less at its worst than filled."""
    order, told = Order(placed=ORDER), set()
    for word in words:
        after = hear(order, word)
        assert after.state is order.state or after.state in ALLOWED[order.state]
        told |= {word.trade_id} if isinstance(word, OrderFilled) else set()
        assert after.filled_base == D("0.1") * len(told)
        assert abs(after.worst_base) >= abs(after.filled_base)
        assert (after.state is OrderState.FILLED) == (len(told) == 4)
        order = after
