"""A maker's pair as a state machine: whatever venues do in whatever order, the invariants hold after every step."""

from decimal import Decimal as D
from pathlib import Path
import sys

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent))
from test_order_interleavings import BINANCE, LEGS, PAIR, PAIRS, Session  # noqa: E402

from fundarb.core.engine import replay  # noqa: E402
from fundarb.core.events import (  # noqa: E402
    OrderFilled,
    OrderPlaced,
    PairStateChanged,
    PairTraded,
    PlanChosen,
    SubmitOrder,
)
from fundarb.core.models import KillLevel  # noqa: E402
from fundarb.execution.orders import ALLOWED  # noqa: E402
from fundarb.execution.pair import PAIR_MOVES, PairState  # noqa: E402
from fundarb.portfolio.books import pnl  # noqa: E402
from fundarb.portfolio.ledger import LedgerService  # noqa: E402

class Booked(Session):
    """The session with its ledger beside execution."""

    def services(self):
        market, service = super().services()
        self.ledger = LedgerService(PAIRS, dict.fromkeys(LEGS, D(100_000)))
        self.engine_services = [market, self.ledger, service]
        return self.engine_services


class Seeded:
    """The choices that `Truth` asks for, drawn one by one from a list."""

    def __init__(self):
        self.picks = [0]

    def _next(self):
        self.picks.append(self.picks.pop(0))
        return self.picks[-1]

    def choice(self, options):
        return options[self._next() % len(options)]

    def random(self):
        return (self._next() % 97) / 97

    def shuffle(self, items):
        items.sort(key=lambda item: (self._next() % 7, type(item).__name__))


class MakerMachine(RuleBasedStateMachine):
    """Intents, seconds, stops and words in any order; invariants with a number are those of accounting."""

    @initialize(plan=st.sampled_from(["maker", "iceberg"]))
    def start(self, plan):
        self.rng = Seeded()
        self.session = Booked(self.rng, plan)
        self.session.truth.kind = False
        self.intents, self.states = 0, {}

    @property
    def trade(self):
        return self.session.service.trades[PAIR.pair_id]

    @property
    def said(self):
        return [entry.message for entry in self.session.journal.entries]

    @rule(lots=st.integers(2, 400), picks=st.lists(st.integers(0, 200), min_size=3, max_size=9))
    def wants(self, lots, picks):
        self.rng.picks, self.intents = picks, self.intents + 1
        self.session.want(self.intents, lots * D("0.001"))

    @rule(count=st.integers(1, 6), picks=st.lists(st.integers(0, 200), min_size=3, max_size=9))
    def seconds_go_by(self, count, picks):
        self.rng.picks = picks
        for _ in range(count):
            self.session.second()

    @precondition(lambda self: self.session.truth.words)
    @rule(place=st.integers(0, 30), copies=st.integers(1, 2))
    def a_word_arrives(self, place, copies):
        words = self.session.truth.words
        word = words.pop(place % len(words))
        for _ in range(copies):
            self.session.turn(replace(word, ts_init_ns=self.session.now_ns))

    @rule(level=st.sampled_from(list(KillLevel)))
    def somebody_stops(self, level):
        self.session.stop(level)

    @rule()
    def somebody_resets(self):
        self.session.reset()

    @invariant()
    def i1_i11_legs_and_books_are_the_fills_that_were_told(self):
        """I1, I11: every fill once, however often and late it is told; the pair's part is what the venue holds."""
        if not hasattr(self, "session"):
            return
        told = {m.trade_id: m for m in self.said if isinstance(m, OrderFilled)}
        for venue in LEGS:
            filled = sum((f.qty_base for f in told.values() if f.venue == venue), D(0))
            holding = self.session.ledger.ledger.account(venue).holding("BTC")
            part = holding.by_pair.get(PAIR.pair_id)
            assert self.trade.legs.get(venue, 0) == filled == holding.position.qty_base == (part.qty_base if part else 0)

    @invariant()
    def i2_i3_money_adds_up(self):
        """I2, I3: wallet from its entries, equity from wallet and unrealised: `pnl` halts unless they agree."""
        if hasattr(self, "session"):
            pnl(self.session.ledger.ledger, self.session.now_ns)

    @invariant()
    def one_wish_one_name(self):
        """No client order id twice."""
        if hasattr(self, "session"):
            sent = [m.client_order_id for m in self.said if isinstance(m, SubmitOrder)]
            assert len(sent) == len(set(sent))

    @invariant()
    def written_before_it_leaves(self):
        """Each order stands in the journal before the command that sends it."""
        if hasattr(self, "session"):
            placed = set()
            for message in self.said:
                if isinstance(message, OrderPlaced):
                    placed.add(message.client_order_id)
                elif isinstance(message, SubmitOrder):
                    assert message.client_order_id in placed

    @invariant()
    def pairs_move_by_their_table(self):
        """One lifecycle; what is uneven and not worked on has a name and a deadline."""
        if not hasattr(self, "session"):
            return
        was = PairState.IDLE
        for change in (m for m in self.said if isinstance(m, PairStateChanged)):
            assert change.was == was.value and PairState(change.now) in PAIR_MOVES[was]
            was = PairState(change.now)
        assert was is self.trade.state
        usd = abs(sum(self.trade.legs.values())) * 60_001
        if usd > self.session.settings.delta_tolerance_usd and self.trade.intent and not self.trade.working:
            dust = abs(sum(self.trade.legs.values())) < BINANCE.lot_step_base
            resting = self.trade.resting is not None
            assert dust or resting or (self.trade.state is PairState.REPAIRING and self.trade.deadline_ns)

    @invariant()
    def i10_orders_move_by_their_table(self):
        """I10: never filled beyond its size; unknown is not rejected; no order makes a move that the table lacks."""
        if not hasattr(self, "session"):
            return
        for order_id, order in self.session.service._watch._orders.items():
            was = self.states.get(order_id, order.state)
            assert order.state is was or order.state in ALLOWED[was] or any(order.state in ALLOWED[s] for s in ALLOWED[was])
            self.states[order_id] = order.state
            assert abs(order.filled_base) <= abs(order.placed.qty_base)

    @invariant()
    def i10_a_hedge_is_never_ahead_of_its_leg(self):
        """I10: what is hedged, and what may still be, is no more than what the resting leg has filled, and a lot."""
        resting = self.trade.resting if hasattr(self, "session") else None
        if resting is None:
            return
        done = dict.fromkeys(LEGS, D(0))
        for order in self.session.service._watch._orders.values():
            if order.placed.intent_no == self.trade.intent.intent_no:
                rests = order.placed.venue == resting.step.venue
                done[order.placed.venue] += order.filled_base if rests else order.worst_base
        assert abs(done[resting.hedge_venue]) <= abs(done[resting.step.venue]) + PAIR.lot_base

    @invariant()
    def what_rests_only_makes(self):
        """A maker's order rests; takers are immediate; both within the leg's side."""
        if hasattr(self, "session") and self.trade.resting is not None:
            assert self.session.service._watch[self.trade.resting.order_id].placed.post_only

    def teardown(self):
        """I9, and the end: with venues that answer, nothing is left working or naked, what was traded is told, and it replays."""
        if not hasattr(self, "session"):
            return
        self.session.reset()
        self.session.truth.kind = True
        for _ in range(110):
            self.session.second()
        assert self.session.service.working() == []
        naked_base = abs(sum(self.trade.legs.values()))
        assert naked_base < BINANCE.lot_step_base or naked_base * 60_001 <= self.session.settings.delta_tolerance_usd
        assert self.trade.state in (PairState.IDLE, PairState.OPEN)
        for venue in LEGS:
            filled = (f.qty_base for f in self.session.truth.fills.values() if f.venue == venue)
            assert self.trade.legs.get(venue, 0) == sum(filled, D(0))
        for traded in (m for m in self.said if isinstance(m, PairTraded)):
            assert traded.done_base >= 0 and (traded.naked_usd_s == 0 or traded.max_naked_usd > 0)
        assert all(chosen.plan for chosen in self.said if isinstance(chosen, PlanChosen))
        assert replay(self.session.journal.entries, self.session.services()) is None


TestMakerMachine = MakerMachine.TestCase
TestMakerMachine.settings = settings(
    max_examples=30, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
