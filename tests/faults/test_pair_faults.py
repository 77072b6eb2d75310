"""Every fault of an order at every phase of a pair's life, on simulated venues: where the pair ends, and how long it was naked."""

import json
from decimal import Decimal as D
from pathlib import Path

import pytest
from msgspec.structs import replace

from fundarb.config.settings import ExecutionSettings
from fundarb.core.engine import Engine, MemoryJournal
from fundarb.core.events import (
    BookUpdated,
    MarkPriceUpdated,
    OrderAccepted,
    OrderFilled,
    OrderUnknown,
    PairIntent,
    PairTraded,
    QueryOrder,
    SubmitOrder,
    TimerFired,
)
from fundarb.core.models import Level, Liquidity, Pair
from fundarb.core.numbers import SECOND_NS, utc_ns
from fundarb.data_providers.market_state import MarketState
from fundarb.exchanges.base import pump
from fundarb.exchanges.simulated import SimulatedExchange
from fundarb.exchanges.simulated_venue import Fate
from fundarb.execution.desk import OrderDesk
from fundarb.execution.service import ExecutionService
from terms import BINANCE

START_NS = utc_ns("2026-03-02T08:02:10Z")
OKX = replace(BINANCE, venue="okx", lot_step_base=D("0.0001"), min_notional_usd=D(5))
PAIR = Pair(a=BINANCE, b=OKX)
SIZE = D("0.4")

# phase: (intent that meets the fault, leg that meets it)
PHASES = {
    "entering, long leg": (1, "binance"),
    "entering, short leg": (1, "okx"),
    "exiting, long leg": (2, "binance"),
    "exiting, short leg": (2, "okx"),
}
# fault: (ends of the two entering phases, ends of the two exiting ones, most seconds naked)
OUTCOMES = {
    "none": ("OPEN", "IDLE", 0),
    "answer lost": ("OPEN", "IDLE", 5),  # it filled: found out by asking
    "request lost": ("OPEN", "IDLE", 15),  # it never was: believed after its time, then mended
    "mute": ("OPEN", "IDLE", 15),  # neither error nor answer: silence becomes a question
    "late": ("OPEN", "IDLE", 25),  # every word 20 s late
    "told twice": ("OPEN", "IDLE", 0),
    "told backward": ("OPEN", "IDLE", 0),
    "refused": ("OPEN", "IDLE", 5),
    "half filled": ("OPEN", "IDLE", 5),
    "leg closed by the venue": ("IDLE", "IDLE", 5),  # after the intent, the leg is liquidated
}


# plan: (settings, the most that its clips may leave naked at a time, USD)
PRICE = 60_010  # no book here is higher
PATIENT = {"maker_patience_s": 4, "maker_prices": 5, "max_imbalance_usd": 5_000}
PLANS = {
    "taker": (ExecutionSettings(), SIZE * PRICE),
    "twap": (ExecutionSettings(plan="twap", clips=4, clip_interval_s=3), SIZE / 4 * PRICE),
    "maker": (ExecutionSettings(plan="maker", **PATIENT), D(5_000)),
    "iceberg": (ExecutionSettings(plan="iceberg", clips=5, **PATIENT), SIZE / 5 * PRICE),
}


class Faulty(SimulatedExchange):
    """Simulated venues with one scripted misfortune: the first order of an intent at a venue."""

    def __init__(self, fault, phase):
        self.fault, (self.intent_no, self.venue) = fault, PHASES[phase]
        self.struck, self.own = "", []  # the order that met the fault; words made here
        super().__init__([BINANCE, OKX], {"binance": 100_000_000, "okx": 150_000_000}, dict.fromkeys(("binance", "okx"), D(20_000)), self)
        self.phase_no = 0

    def submit(self, command):
        if isinstance(command, SubmitOrder) and not self.struck and self.phase_no == self.intent_no and command.venue == self.venue:
            self.struck = command.client_order_id
            if self.fault in ("answer lost", "request lost"):
                about = {"client_order_id": self.struck, "venue": command.venue, "symbol": command.symbol}
                lost = OrderUnknown(ts_init_ns=command.ts_init_ns + SECOND_NS, **about, reason="timed out")
                self._back.put(lost, lost.ts_init_ns)
            if self.fault == "request lost":
                return
            if self.fault == "refused":
                command = replace(command, limit_price=command.limit_price + D("0.01"))  # off the tick
        if isinstance(command, QueryOrder):
            self.asked = True
        super().submit(command)

    def fate(self, command, at_ns):
        half = self.fault == "half filled" and getattr(command, "client_order_id", "") == self.struck
        return Fate(fill_frac=D("0.5")) if half else Fate()

    def poll(self, until_ns):
        report = super().poll(until_ns)
        if report is None or getattr(report, "client_order_id", "") != self.struck:
            return report
        hidden = self.fault in ("answer lost", "mute") and not getattr(self, "asked", False)
        if hidden and not isinstance(report, OrderUnknown):
            return self.poll(until_ns)
        if self.fault == "late" and report not in self.own:
            late = replace(report, ts_init_ns=report.ts_init_ns + 20 * SECOND_NS)
            self.own.append(late)
            self._back.put(late, late.ts_init_ns)
            return self.poll(until_ns)
        if self.fault == "told twice" and report not in self.own:
            self.own.append(report)
            self._back.put(report, until_ns)
        if self.fault == "told backward" and isinstance(report, OrderAccepted) and report not in self.own:
            self.own.append(report)
            self._back.put(report, until_ns)  # after its fills
            return self.poll(until_ns)
        return report


def book(venue, now_ns):
    swing = (0, 2, 0, -2)[now_ns // SECOND_NS % 4]  # it trades through what rests, on either side
    bids, asks = (Level(59_999.5 + swing, 30.0),), (Level(60_000.5 + swing, 30.0),)
    return BookUpdated(ts_init_ns=now_ns, venue=venue, symbol="BTC", bids=bids, asks=asks)


def run(fault, phase, plan):
    market = MarketState([PAIR], max_book_age_s=5)
    service = ExecutionService([PAIR], OrderDesk("drill", market, lambda placed: None), PLANS[plan][0])
    journal, exchange = MemoryJournal(), Faulty(fault, phase)
    engine = Engine([market, service], journal)

    def hear(event):
        pump(engine, exchange, event.ts_init_ns - 1)
        exchange.on_market(event)
        for command in engine.turn(event):
            exchange.submit(command)
        pump(engine, exchange, event.ts_init_ns)

    ends = []
    for second in range(140):
        now_ns = START_NS + second * SECOND_NS
        for venue in ("binance", "okx"):
            hear(book(venue, now_ns))
        hear(TimerFired(ts_init_ns=now_ns, name="heartbeat"))
        held_base = service.trades[PAIR.pair_id].held.matched_base
        if second == 1 or (second in (70, 100, 120) and held_base):  # what an exit left is asked for again
            exchange.phase_no += 1
            venues = {"long_venue": "binance", "short_venue": "okx"}
            what = {"pair_id": PAIR.pair_id, "intent_no": exchange.phase_no, "qty_base": held_base if second > 1 else SIZE}
            opening = exchange.phase_no == 1
            hear(PairIntent(ts_init_ns=now_ns, **what, **venues, opening=opening, reason="drill"))
        if fault == "leg closed by the venue" and second == 40 and PHASES[phase][0] == 1:
            seize(exchange, PHASES[phase][1], hear, now_ns)
        if second in (69, 139):
            ends.append(service.trades[PAIR.pair_id].state.name)
    return journal, exchange, service, ends


def seize(exchange, venue, hear, now_ns):
    """Let a venue close our leg by force, at a mark that ruins the account."""
    mark = 1.0 if venue == "binance" else 600_000.0
    hear(MarkPriceUpdated(ts_init_ns=now_ns, venue=venue, symbol="BTC", mark_price=mark, oracle_price=mark))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", OUTCOMES)
def test_a_fault_ends_where_the_table_says(fault, phase, plan):
    """The venue's books and ours agree to the lot, the pair is whole or gone, and it was naked for no longer than stated."""
    journal, exchange, service, ends = run(fault, phase, plan)
    entered, left, most_naked_s = OUTCOMES[fault]
    trade = service.trades[PAIR.pair_id]
    assert ends == [entered if PHASES[phase][0] == 1 or fault != "leg closed by the venue" else "OPEN", left]
    for venue in ("binance", "okx"):
        assert trade.legs[venue] == exchange.account(venue).held("BTC")
    traded = [e.message for e in journal.entries if isinstance(e.message, PairTraded)]
    naked_usd = PLANS[plan][1]
    assert {told.plan for told in traded} == {plan}
    assert fault != "none" or [told.done_base for told in traded] == [SIZE, SIZE]
    for trade_told in traded:
        # each clip for a second, which its hedge takes, or the one that met the fault for as long as that lasts
        assert trade_told.naked_usd_s <= max(SIZE * PRICE, naked_usd * most_naked_s)
        assert trade_told.max_naked_usd <= naked_usd
    sent = [e.message.client_order_id for e in journal.entries if isinstance(e.message, SubmitOrder)]
    assert len(sent) == len(set(sent))
    fills = [e.message for e in journal.entries if isinstance(e.message, OrderFilled)]
    counted = {fill.trade_id: fill for fill in fills}
    net = sum((fill.qty_base for fill in counted.values()), D(0))
    assert net == sum(trade.legs.values()) == 0
    forced = [fill for fill in counted.values() if fill.liquidity is Liquidity.LIQUIDATION]
    assert bool(forced) == (fault == "leg closed by the venue" and PHASES[phase][0] == 1)


def as_table():
    head = ["| fault of an order | entering | exiting | at most naked, s |", "|:--|:--|:--|--:|"]
    return [*head, *(f"| {fault} | `{entered}` | `{left}` | {most} |" for fault, (entered, left, most) in OUTCOMES.items())]


def test_the_notebook_shows_this_table():
    """What the operator reads is what is asserted here."""
    notebook = Path(__file__).parents[2] / "nbs" / "43_execution_service.ipynb"
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"]}
    assert "\n".join(as_table()) in cells["about-faults"]
