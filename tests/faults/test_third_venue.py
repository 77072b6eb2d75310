"""A venue that fails a pair's leg, at every phase: the leg ends at a third venue or nowhere, and all books agree on it."""

import json
from decimal import Decimal as D
from pathlib import Path

import pytest
from msgspec.structs import replace

from fundarb.apps.composition import RunSpec, build_core
from fundarb.config.settings import ExecutionSettings, LimitSettings
from fundarb.core.engine import Engine, MemoryJournal
from fundarb.core.engine import replay as replay_journal
from fundarb.core.events import (
    BookUpdated,
    FundingRealised,
    KillSwitchSet,
    MarkPriceUpdated,
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


class Failing(SimulatedExchange):
    """Simulated venues of which one refuses, swallows or blinds from one second to another."""

    def __init__(self, fault, venue, from_s, until_s):
        terms = {"binance": 100_000_000, "okx": 150_000_000, "hyperliquid": 200_000_000}
        super().__init__([BINANCE, HYPERLIQUID, OKX], terms, dict.fromkeys(terms, D(40_000)))
        self.fault, self.venue = fault, venue
        self.span_ns = START_NS + from_s * SECOND_NS, START_NS + until_s * SECOND_NS

    def fails(self, now_ns):
        return self.span_ns[0] <= now_ns < self.span_ns[1]

    def submit(self, command):
        if command.venue in self.venue and isinstance(command, SubmitOrder) and self.fails(command.ts_init_ns):
            about = {"client_order_id": command.client_order_id, "venue": command.venue, "symbol": command.symbol}
            at_ns = command.ts_init_ns + SECOND_NS // 5
            kind = OrderRejected if self.fault == "refuses" else OrderUnknown
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
    """One session of three minutes with all services of a backtest."""

    def __init__(self, fault, venue, from_s=0, until_s=1000, leave_s=120, stop=None, dark=(), there_usd=40_000, plan="", **limits):
        self.leave_s, self.plan = leave_s, plan
        self.spec = spec(there_usd, limits)
        self.core = build_core(self.spec, Scripted(leave_s, plan))
        self.journal, self.exchange = MemoryJournal(), Failing(fault, venue, from_s, until_s)
        self.engine = Engine(self.core.services, self.journal)
        self.naked_s = 0
        for second in range(-1, 240):
            now_ns = START_NS + second * SECOND_NS
            for at in VENUES:
                blind = fault == "silent" and at in venue and self.exchange.fails(now_ns)
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
            self.naked_s += bool(sum(self.trade.legs.values()))

    def hear(self, event):
        pump(self.engine, self.exchange, event.ts_init_ns - 1)
        self.exchange.on_market(event)
        for command in self.engine.turn(event):
            self.exchange.submit(command)
        pump(self.engine, self.exchange, event.ts_init_ns)

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


# what happens: (how OKX fails, from, until; where the hedged pair stands; the ways of its repairs; most seconds naked)
OKX_FAILS = {
    "refuses the entry": (("refuses", "okx", 0), ("binance", "hyperliquid"), ["complete", "third venue"], 3),
    "swallows the entry": (("swallows", "okx", 0), ("binance", "hyperliquid"), ["complete", "third venue"], 60),
    "is silent at the entry": (("silent", "okx", 0), ("binance", "hyperliquid"), ["third venue"], 15),
    "refuses the exit": (("refuses", "okx", 110, 200), ("hyperliquid", "okx"), ["unwind", "third venue"], 65),
    "is silent at the exit": (("silent", "okx", 110, 200), ("hyperliquid", "okx"), ["third venue"], 15),
}


@pytest.mark.parametrize("what", OKX_FAILS)
def test_a_leg_that_fails_is_hedged_at_a_third_venue(what):
    """Whoever fails, the pair is whole again within its time, is closed where it stands, and every book says so."""
    fault, stands, ways, most_naked_s = OKX_FAILS[what]
    run = Run(*fault)
    opened = [s for s in run.said(PairStateChanged) if s.now == "OPEN"]
    assert (SIZE, *stands) in [(s.held_base, s.long_venue, s.short_venue) for s in opened]
    assert [chosen.plan for chosen in run.said(PlanChosen)][: len(ways)] == ways
    hedged = next(chosen for chosen in run.said(PlanChosen) if chosen.plan == "third venue")
    assert {cost.name for cost in hedged.others} <= {"complete", "unwind"} and hedged.others
    assert run.naked_s <= most_naked_s
    assert run.trade.state.name == "IDLE" and not any(run.trade.legs.values()), run.trade.legs
    run.check_books()


def as_table():
    head = ["| OKX | ways of the repair, in order | the pair stands at | at most naked, s |", "|:--|:--|:--|--:|"]
    rows = ((what, ", ".join(ways), ", ".join(stands), str(most)) for what, (_, stands, ways, most) in OKX_FAILS.items())
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def repairs_as_table():
    head = ["| the repair's orders | ways of the first repair, in order | it ends | within, s |", "|:--|:--|:--|--:|"]
    rows = []
    for what, (_, _, ways, most) in REPAIR_FAILS.items():
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
    poor = Run("refuses", "okx", 0, until_s=100, there_usd=10_000, max_leverage_x=1)
    crowded = Run("refuses", "okx", 0, until_s=100, stop=(0, KillLevel.PAUSE_ENTRIES, "hyperliquid"))
    for run, limit in ((poor, "max_leverage_x"), (crowded, "kill_switch_level")):
        assert [b.limit for b in run.said(RiskLimitBreached)][:1] == [limit]
        plans = [c.plan for c in run.said(PlanChosen)]
        assert plans[:2] == ["complete", "unwind"] and "third venue" not in plans
        run.check_books()


# the repair's own orders fail too: (how, where, the ways of the first repair, most seconds naked in it)
REPAIR_FAILS = {
    "completing and the hedge are refused": ("refuses", ("okx", "hyperliquid"), ["complete", "third venue", "unwind"], 3),
    "completing and the hedge are swallowed": ("swallows", ("okx", "hyperliquid"), ["complete", "third venue", "unwind"], 75),
    "both other venues are down": ("silent", ("okx", "hyperliquid"), ["unwind"], 15),
    "all venues refuse for half a minute": ("refuses", VENUES, [], 0),
}


@pytest.mark.parametrize("what", REPAIR_FAILS)
def test_a_repair_that_fails_goes_on_to_the_next_way(what):
    """Whatever becomes of the repair's orders, the first repair ends flat within its time, and every book says so."""
    fault, venues, ways, most_naked_s = REPAIR_FAILS[what]
    run = Run(fault, venues, until_s=119 if ways else 30)
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
    run = Run("refuses", "okx", 0, until_s=100, dark=("hyperliquid",))
    assert "third venue" not in [c.plan for c in run.said(PlanChosen)]
    run.check_books()


def test_a_pair_that_stands_elsewhere_is_not_added_to():
    """The strategy wants the same pair again and again; nothing is sent while its leg is away."""
    run = Run("refuses", "okx", 0, leave_s=1000)
    sent = run.said(SubmitOrder)
    assert sent[-1].venue == "hyperliquid" and run.trade.strayed
    assert sum(order.ts_init_ns > START_NS + 20 * SECOND_NS for order in sent) == 0
    run.check_books()


def test_the_plan_of_a_strategy_reaches_its_orders():
    """Through gate and sizer: the settings say taker, the strategy trades in parts, in and out."""
    run = Run("none", "nowhere", plan="twap")
    assert [traded.plan for traded in run.said(PairTraded)] == ["twap", "twap"]
    run.check_books()
