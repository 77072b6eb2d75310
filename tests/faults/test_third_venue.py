"""Venues that fail a pair's leg, at every phase: the pair is whole again as soon as anybody trades, and all books agree on it."""

import json
from decimal import Decimal as D
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.apps.composition import RunSpec, build_core
from fundarb.config.settings import ExecutionSettings, LimitSettings
from fundarb.core.engine import Engine, MemoryJournal
from fundarb.core.engine import replay as replay_journal
from fundarb.core.events import (
    AlertRaised,
    BookUpdated,
    FundingRealised,
    KillSwitchSet,
    MarkPriceUpdated,
    OrderCanceled,
    OrderRejected,
    OrderUnknown,
    PairStateChanged,
    PairTraded,
    PlanChosen,
    RiskLimitBreached,
    SubmitOrder,
    TimerFired,
)
from fundarb.core.funding import FundingKind, FundingRate
from fundarb.core.models import KillLevel, Level
from fundarb.core.numbers import SECOND_NS, utc_ns
from fundarb.exchanges.base import pump
from fundarb.exchanges.simulated import SimulatedExchange
from fundarb.portfolio.attribution import attribution
from fundarb.strategies.base import Decision
from terms import BINANCE

START_NS = utc_ns("2026-03-02T08:02:10Z")
OKX = replace(BINANCE, venue="okx", lot_step_base=D("0.0001"), min_notional_usd=D(5))
HYPERLIQUID = replace(BINANCE, venue="hyperliquid", lot_step_base=D("0.00001"), min_notional_usd=D(10), taker_fee_bps=D("4.5"))
VENUES = ("binance", "hyperliquid", "okx")
PAIR = "BTC:binance-okx"
SIZE = D("0.3")


class Scripted:
    """Want one pair from the first decision on, and nothing from a given second on."""

    name, wakes_on = "scripted", (TimerFired,)

    def __init__(self, leave_s, plan=""):
        self.leave_s, self.plan = leave_s, plan

    def evaluate(self, event, market, portfolio):
        if event.name != "decision":
            return ()
        leaves = event.ts_init_ns >= START_NS + self.leave_s * SECOND_NS
        usd = D(0) if leaves else SIZE * 60_000
        venues = {"long_venue": "binance", "short_venue": "okx"}
        return (Decision(pair_id=PAIR, **venues, notional_usd=usd, reason="script", outlook=None, plan=self.plan),)


class Failure(NamedTuple):
    """One venue that refuses, swallows, does not fill or is silent, from one second to another."""

    how: str
    venue: str
    from_s: int
    until_s: int


class Failing(SimulatedExchange):
    """Simulated venues, and what they fail to do."""

    def __init__(self, failures):
        terms = {"binance": 100_000_000, "okx": 150_000_000, "hyperliquid": 200_000_000}
        super().__init__([BINANCE, HYPERLIQUID, OKX], terms, dict.fromkeys(terms, D(40_000)))
        self.failures = failures

    def fault(self, venue, now_ns):
        second = (now_ns - START_NS) / SECOND_NS
        found = (f.how for f in self.failures if f.venue == venue and f.from_s <= second < f.until_s)
        return next(found, "")

    def submit(self, command):
        fault = self.fault(command.venue, command.ts_init_ns) if isinstance(command, SubmitOrder) else ""
        if fault:
            about = {"client_order_id": command.client_order_id, "venue": command.venue, "symbol": command.symbol}
            at_ns = command.ts_init_ns + SECOND_NS // 5
            kind = {"refuses": OrderRejected, "fills nothing": OrderCanceled}.get(fault, OrderUnknown)
            self._back.put(kind(ts_init_ns=at_ns, **about, reason="down"), at_ns)
            return
        super().submit(command)


def spec(there_usd, limits):
    return RunSpec(
        kind="backtest",
        session_id="third",
        code_version="test",
        strategy="scripted",
        parameters={},
        parameters_digest="",
        limits=LimitSettings(**{"max_symbol_margin_frac": "0.9", **limits}).model_dump(mode="json"),
        execution=ExecutionSettings(repair_deadline_s=60).model_dump(mode="json"),
        instruments=[BINANCE, HYPERLIQUID, OKX],
        deposits_usd={"binance": D(40_000), "hyperliquid": D(there_usd), "okx": D(40_000)},
        latency_ms={},
        origin={},
    )


class Run:
    """One session of some minutes with all services of a backtest."""

    def __init__(self, failures=(), leave_s=120, lasts_s=240, stop=None, dark=(), there_usd=40_000, plan="", **limits):
        self.leave_s, self.plan = leave_s, plan
        self.spec = spec(there_usd, limits)
        self.core = build_core(self.spec, Scripted(leave_s, plan))
        self.journal, self.exchange = MemoryJournal(), Failing(failures)
        self.engine = Engine(self.core.services, self.journal)
        self.naked = []  # whether it was, by second
        for second in range(-1, lasts_s):
            now_ns = START_NS + second * SECOND_NS
            for at in VENUES:
                blind = self.exchange.fault(at, now_ns) == "silent"
                if not blind and at not in dark:
                    self.hear(book(at, now_ns))
                    self.hear(MarkPriceUpdated(ts_init_ns=now_ns, venue=at, symbol="BTC", mark_price=60_000.0, oracle_price=60_000.0))
                if second == -1:
                    self.hear(FundingRealised(ts_init_ns=now_ns, funding=rate(at)))
            if stop is not None and second == stop[0]:
                self.hear(KillSwitchSet(ts_init_ns=now_ns, level=stop[1], scope=stop[2], reason="drill", who="mara"))
            if second == 0 or second % 20 == 0:
                self.hear(TimerFired(ts_init_ns=now_ns, name="decision"))
            self.hear(TimerFired(ts_init_ns=now_ns, name="heartbeat"))
            self.naked += [bool(sum(self.trade.legs.values()))] if second >= 0 else []

    def hear(self, event):
        pump(self.engine, self.exchange, event.ts_init_ns - 1)
        self.exchange.on_market(event)
        for command in self.engine.turn(event):
            self.exchange.submit(command)
        pump(self.engine, self.exchange, event.ts_init_ns)

    @property
    def naked_s(self):
        return sum(self.naked)

    @property
    def trade(self):
        return self.core.execution.trades[PAIR]

    def said(self, kind):
        return [entry.message for entry in self.journal.entries if type(entry.message) is kind]

    def check_books(self):
        """Venue, execution, ledger and quality hold the same; the parts of the money add up; a fresh core says the same."""
        ledger, watch = self.core.ledger.ledger, self.core.quality.naked[PAIR]
        for venue in VENUES:
            held = self.exchange.account(venue).held("BTC")
            assert self.trade.legs.get(venue, D(0)) == held == watch.legs.get(venue, D(0))
            part = ledger.account(venue).holding("BTC").by_pair.get(PAIR)
            assert (part.qty_base if part else D(0)) == held
        assert set(attribution(ledger).by_pair) <= {PAIR}
        for other in self.core.execution.trades.values():
            assert other is self.trade or not any(other.legs.values())
        again = build_core(self.spec, Scripted(self.leave_s, self.plan))
        assert replay_journal(self.journal.entries, again.services) is None


def book(venue, now_ns):
    bids, asks = (Level(59_999.5, 30.0),), (Level(60_000.5, 30.0),)
    return BookUpdated(ts_init_ns=now_ns, venue=venue, symbol="BTC", bids=bids, asks=asks)


def rate(venue):
    settled_ns = utc_ns("2026-03-02T08:00Z")
    terms = {"rate": D("0.0001"), "interval_h": 8, "settlement_time_ns": settled_ns, "kind": FundingKind.REALISED}
    return FundingRate(ts_init_ns=START_NS - SECOND_NS, venue=venue, symbol="BTC", **terms)


def fail(how, *venues, from_s=0, until_s=1000):
    return tuple(Failure(how, venue, from_s, until_s) for venue in venues)


LATE = {"from_s": 110, "until_s": 200}
LEFT = {"stop": (100, KillLevel.FLATTEN_LEG, "binance")}
# what happens: (what fails, what is stopped, where the pair is whole again, the ways of its repairs, most seconds naked)
OKX_FAILS = {
    "refuses the entry": (fail("refuses", "okx"), {}, ("binance", "hyperliquid"), ["complete", "third venue"], 3),
    "swallows the entry": (fail("swallows", "okx"), {}, ("binance", "hyperliquid"), ["complete", "third venue"], 30),
    "is silent at the entry": (fail("silent", "okx"), {}, ("binance", "hyperliquid"), ["third venue"], 15),
    "refuses the exit": (fail("refuses", "okx", **LATE), {}, ("binance", "okx"), ["unwind", "complete"], 20),
    "swallows the exit": (fail("swallows", "okx", **LATE), {}, ("binance", "okx"), ["unwind", "complete"], 30),
    "does not fill the exit": (fail("fills nothing", "okx", **LATE), {}, ("binance", "okx"), ["unwind", "complete"], 20),
    "is silent at the exit": (fail("silent", "okx", **LATE), {}, ("binance", "okx"), ["complete"], 15),
    "refuses the exit, and Binance is being left": (
        fail("refuses", "okx", **LATE),
        LEFT,
        ("hyperliquid", "okx"),
        ["unwind", "third venue"],
        20,
    ),
}


@pytest.mark.parametrize("what", OKX_FAILS)
def test_a_leg_that_fails_is_hedged(what):
    """The pair is whole again within its time, is closed when that is possible, and every book says so."""
    failures, stop, stands, ways, most_naked_s = OKX_FAILS[what]
    run = Run(failures, **stop)
    opened = [s for s in run.said(PairStateChanged) if (s.was, s.now) == ("REPAIRING", "OPEN")]
    assert (SIZE, *stands) in [(s.held_base, s.long_venue, s.short_venue) for s in opened]
    assert [chosen.plan for chosen in run.said(PlanChosen)][: len(ways)] == ways
    hedged = next(chosen for chosen in run.said(PlanChosen) if chosen.plan == ways[-1])
    assert {cost.name for cost in hedged.others} == {"complete", "unwind", "third venue"} - {hedged.plan}
    assert run.naked_s <= most_naked_s
    assert run.trade.state.name == "IDLE" and not any(run.trade.legs.values()), run.trade.legs
    run.check_books()


def as_table():
    head = ["| OKX | ways of the repair, in order | whole again at | at most naked, s |", "|:--|:--|:--|--:|"]
    rows = ((what, ", ".join(ways), ", ".join(stands), str(most)) for what, (_, _, stands, ways, most) in OKX_FAILS.items())
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def repairs_as_table():
    head = ["| the repair's orders | ways of the first repair, in order | it ends | within, s |", "|:--|:--|:--|--:|"]
    rows = []
    for what, (_, ways, most) in REPAIR_FAILS.items():
        told = (", ".join(ways), "`FAILED`, then `IDLE`", str(most)) if ways else ("none", "`IDLE`", "0")
        rows.append(f"| {' | '.join((what, *told))} |")
    return [*head, *rows]


def test_the_notebook_shows_these_tables():
    """What the operator reads is what is asserted here."""
    notebook = Path(__file__).parents[2] / "nbs" / "43_execution_service.ipynb"
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"]}
    assert "\n".join(as_table()) in cells["about-third"]
    assert "\n".join(repairs_as_table()) in cells["about-third"]


def test_the_hedge_is_asked_of_risk_and_refused_by_its_limits():
    """An account at the third venue that may not carry it: the leg is unwound, and the refusal is said."""
    refused = fail("refuses", "okx", until_s=100)
    poor = Run(refused, there_usd=10_000, max_leverage_x=1)
    crowded = Run(refused, stop=(0, KillLevel.PAUSE_ENTRIES, "hyperliquid"))
    for run, limit in ((poor, "max_leverage_x"), (crowded, "kill_switch_level")):
        assert [b.limit for b in run.said(RiskLimitBreached)][:1] == [limit]
        plans = [c.plan for c in run.said(PlanChosen)]
        assert plans[:2] == ["complete", "unwind"] and "third venue" not in plans
        run.check_books()


OTHERS = ("okx", "hyperliquid")
# the repair's own orders fail too: (what fails, the ways of the first repair, most seconds naked in it)
REPAIR_FAILS = {
    "completing and the hedge are refused": (fail("refuses", *OTHERS, until_s=119), ["complete", "third venue", "unwind"], 3),
    "completing and the hedge are swallowed": (
        fail("swallows", *OTHERS, until_s=119),
        ["complete", "third venue", "unwind"],
        40,
    ),
    "both other venues are down": (fail("silent", *OTHERS, until_s=119), ["unwind"], 15),
    "all venues refuse for half a minute": (fail("refuses", *VENUES, until_s=30), [], 0),
}


@pytest.mark.parametrize("what", REPAIR_FAILS)
def test_a_repair_that_fails_goes_on_to_the_next_way(what):
    """Whatever becomes of the repair's orders, the first repair ends flat within its time, and every book says so."""
    failures, ways, most_naked_s = REPAIR_FAILS[what]
    run = Run(failures)
    assert bool(ways) == any(state.now == "REPAIRING" for state in run.said(PairStateChanged))
    if ways:
        assert [chosen.plan for chosen in run.said(PlanChosen)][: len(ways)] == ways
        states = run.said(PairStateChanged)
        began = next(s for s in states if s.now == "REPAIRING")
        ended = next(s for s in states if s.was == "REPAIRING" and s.now == "FAILED")
        assert (ended.ts_init_ns - began.ts_init_ns) / SECOND_NS <= most_naked_s
    assert run.trade.state.name == "IDLE" and not any(run.trade.legs.values())
    ids = [order.client_order_id for order in run.said(SubmitOrder)]
    assert len(ids) == len(set(ids)) < 60
    run.check_books()


def test_a_third_venue_that_is_dark_is_no_way():
    run = Run(fail("refuses", "okx", until_s=100), dark=("hyperliquid",))
    assert "third venue" not in [c.plan for c in run.said(PlanChosen)]
    run.check_books()


def test_a_pair_that_stands_elsewhere_is_not_added_to():
    """The strategy wants the same pair again and again; nothing is sent while its leg is away."""
    run = Run(fail("refuses", "okx"), leave_s=1000)
    sent = run.said(SubmitOrder)
    assert sent[-1].venue == "hyperliquid" and run.trade.strayed
    assert sum(order.ts_init_ns > START_NS + 20 * SECOND_NS for order in sent) == 0
    run.check_books()


def test_the_plan_of_a_strategy_reaches_its_orders():
    """Through gate and sizer: the settings say taker, the strategy trades in parts, in and out."""
    run = Run(plan="twap")
    assert [traded.plan for traded in run.said(PairTraded)] == ["twap", "twap"]
    run.check_books()


HOWS = ("refuses", "swallows", "fills nothing", "silent")
WHOLE_WITHIN_S = 45  # of some venue that trades; the deadline of a repair is 60 s
MOST_ORDERS_A_MINUTE = 24


def check_promises(run, failures, most_s=WHOLE_WITHIN_S):
    """Nobody is naked for long where anybody trades, the naked notional and the pace of orders are bounded, and the end is flat."""
    trades_since_s = dict.fromkeys(VENUES, -most_s)  # as long as each venue has been well
    for second, naked in enumerate(run.naked):
        for failure in failures:
            if failure.from_s <= second < failure.until_s:
                trades_since_s[failure.venue] = second + 1
        well = [venue for venue, since_s in trades_since_s.items() if second - since_s >= most_s]
        recent = run.naked[max(0, second - most_s) : second + 1]
        assert not (well and len(recent) > most_s and all(recent)), f"naked at {second} s, though {well} trade"
    sent_s = [(order.ts_init_ns - START_NS) / SECOND_NS for order in run.said(SubmitOrder)]
    assert all(sum(from_s <= at_s < from_s + 60 for at_s in sent_s) <= MOST_ORDERS_A_MINUTE for from_s in sent_s)
    ids = [order.client_order_id for order in run.said(SubmitOrder)]
    assert len(ids) == len(set(ids))
    assert run.trade.state.name == "IDLE" and not any(run.trade.legs.values())
    run.check_books()


@pytest.mark.parametrize(("from_s", "until_s"), [(0, 40), (0, 290), (110, 150), (119, 290)])
@pytest.mark.parametrize("venues", [v for size in (1, 2, 3) for v in combinations(VENUES, size)], ids=" ".join)
@pytest.mark.parametrize("how", HOWS)
def test_as_soon_as_anybody_trades_the_pair_is_whole(how, venues, from_s, until_s):
    """One, two or all venues fail, in every way, for a while or for long, at the entry and at the exit."""
    failures = fail(how, *venues, from_s=from_s, until_s=until_s)
    check_promises(Run(failures, lasts_s=380), failures)


def test_a_venue_that_holds_a_leg_and_the_third_one_fail_for_good():
    """What was closed is opened again, the exit is asked for at the venue that failed, alone, and nothing churns."""
    run = Run(fail("refuses", *OTHERS, from_s=110), lasts_s=600)
    assert run.naked_s <= 20 and run.trade.state.name == "OPEN"
    assert {v: base for v, base in run.trade.legs.items() if base} == {"binance": SIZE, "okx": -SIZE}
    later = [order for order in run.said(SubmitOrder) if order.ts_init_ns > START_NS + 150 * SECOND_NS]
    assert later and {(order.venue, order.reduce_only) for order in later} == {("okx", True)}
    told = [s.reason for s in run.said(PairStateChanged) if s.now == "OPEN"]
    assert told[-1] == "script, not done: okx took nothing"
    run.check_books()


def test_everybody_fails_at_the_exit_and_a_person_is_told():
    """One leg is closed, then nobody takes an order: it is asked for on and on, at a pace, and told of as time doubles."""
    failures = fail("refuses", "okx", from_s=110, until_s=700) + fail("refuses", "binance", "hyperliquid", from_s=121, until_s=700)
    run = Run(failures, lasts_s=800)
    alarms = [alert for alert in run.said(AlertRaised) if "naked" in alert.text]
    since_s = [(alert.ts_init_ns - START_NS) / SECOND_NS - 120 for alert in alarms]
    assert 60 <= since_s[0] <= 80 and all(2 * a <= b <= 2 * a + 20 for a, b in pairwise(since_s)), since_s
    assert len(alarms) >= 3 and all(alert.severity == "critical" for alert in alarms)
    asked_at = {order.venue for order in run.said(SubmitOrder) if order.ts_init_ns > START_NS + 300 * SECOND_NS}
    assert asked_at == set(VENUES)
    check_promises(run, failures)


spells = st.tuples(st.sampled_from(HOWS), st.sampled_from(VENUES), st.integers(0, 280), st.integers(1, 120))


@settings(max_examples=25)
@given(st.lists(spells, max_size=8), st.sampled_from([60, 120]), st.sampled_from(["", "twap", "maker", "iceberg"]))
def test_spells_of_anything_anywhere_leave_nobody_naked(found, leave_s, plan):
    """Venues fail and come back in any order and number, under every plan."""
    failures = tuple(Failure(how, venue, from_s, from_s + lasts_s) for how, venue, from_s, lasts_s in found)
    check_promises(Run(failures, leave_s=leave_s, lasts_s=560, plan=plan), failures)
