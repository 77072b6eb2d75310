"""A live session on a sandbox over real sockets, and one fault after another at each phase of a pair's life.

One session lives through many cells: targets are put in line as a strategy's would be, a fault begins at the very
message that begins the phase, stands for a while and is lifted, and the venues' own trail says how long the pair was naked.

    python tests/faults/fault_matrix.py                        the part that runs with the tests
    python tests/faults/fault_matrix.py --all                  every fault at every phase
    python tests/faults/fault_matrix.py --fault down --phase open
"""

import argparse
import asyncio
import ctypes
import functools
import io
import json
import multiprocessing
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from decimal import Decimal
from pathlib import Path

import fault_table as table
from msgspec.structs import replace as changed
from pydantic import BaseModel
from rich.console import Console

import fundarb
from fundarb.apps import live_trader
from fundarb.apps.composition import STRATEGIES, StrategyKind
from fundarb.apps.connect import load_adapters, sandbox_way
from fundarb.apps.live_recipe import LivePlan
from fundarb.apps.live_session import LiveSession
from fundarb.apps.replayer import replay_run
from fundarb.apps.session_log import opened_record
from fundarb.config.parameters import ParameterSet
from fundarb.config.settings import ExecutionSettings, LimitSettings, StorageSettings, load_settings
from fundarb.core.events import (
    AlertRaised,
    KillSwitchReset,
    KillSwitchSet,
    OrderCanceled,
    OrderFilled,
    OrderPlaced,
    OrderRejected,
    OrderUnknown,
    PairStateChanged,
    ReconciliationBreak,
    RiskLimitBreached,
    SubmitOrder,
    TargetPosition,
    TimerFired,
)
from fundarb.core.numbers import HOUR_NS, SECOND_NS
from fundarb.risk.gate import RiskGate
from fundarb.risk.kill_switch import KillSwitch
from fundarb.sandbox.host import Sandbox, synthetic_market, write_known

ROOT = Path(fundarb.__file__).parents[1]
VENUES = ("binance", "hyperliquid", "okx")
COINS = ("DOGE", "LINK", "SOL")
SIZE_USD = Decimal(600)  # on each leg
EXECUTION = {"unknown_guard_s": 6, "hedge_timeout_s": 2, "repair_deadline_s": 20}
LIMITS = {"max_orders_per_min": 1000, "max_failed_entries": 100, "max_volatility_ratio": 100, "cool_down_h": 0}
MOST_USD = 1.05 * float(SIZE_USD)  # prices move, and over a settlement for an hour
BOUND_S = 3 + EXECUTION["unknown_guard_s"] + EXECUTION["repair_deadline_s"]  # the fault stands; nobody knows; it is mended or closed
# by which a fault is noticed sooner: of a request, between pings, between reports on a venue, and what a report looks back on
TIMEOUT_MS, KEEP_ALIVE_MS, HEALTH_S, WINDOW_S = 2000, 500, 0.5, 2.0
NOTICED_S = 15.0  # wall time in which a fault that stops entries is noticed
PATIENCE_S = 45.0  # wall time for anything to come to its end
FORCED = ("liquidation-", "adl-")  # how the engine names what nobody here ordered
THROUGH = "the matrix is through"
PACE = 4.0  # times real time where nobody is naked; the sandbox goes at real time where somebody is


class Nothing(BaseModel):
    """A strategy that wants nothing has no parameters."""


class Silent:
    """A strategy that wants nothing: its targets are put in line by the drill, as inputs that a replay finds in the log."""

    name, wakes_on = "silent", (TimerFired,)

    def evaluate(self, event, market, portfolio):
        return ()


class Ear:
    """Hear what the session says, beside its own services."""

    KINDS = (TimerFired, PairStateChanged, OrderPlaced, AlertRaised, KillSwitchSet, KillSwitchReset, RiskLimitBreached, ReconciliationBreak)
    KINDS += (OrderRejected, OrderCanceled, OrderUnknown)

    def __init__(self):
        self.heard, self.on_event, self.on_second = [], lambda event: None, lambda: None

    def handlers(self):
        return dict.fromkeys(self.KINDS, self._hear)

    def _hear(self, event):
        if isinstance(event, TimerFired):
            self.on_second()
        else:
            self.heard.append(event)
            self.on_event(event)
        return ()

    def of(self, kind, since=0):
        return [event for event in self.heard[since:] if isinstance(event, kind)]


class Watched(LiveSession):
    """The live session, with somebody who listens."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.ear = Ear()
        self.cast = self.cast._replace(watching=(*self.cast.watching, self.ear))
        Watched.latest = self


def connect_quickly(way, clock, emit):
    """Make the adapters with shorter waits; they are otherwise as they are."""
    made = way.connect(clock, emit)
    for adapter in made.values():
        adapter.client.keep_alive_ms = KEEP_ALIVE_MS
        adapter.client.meter.window_s = WINDOW_S
        adapter.watch_health = functools.partial(adapter.watch_health, HEALTH_S)
    return made


class Drill:
    """Goes from cell to cell within one session."""

    def __init__(self, sandbox, cells, say):
        self.sandbox, self.cells, self.say, self.results = sandbox, cells, say, []
        self.world, self.clock, self.broke = sandbox.world, sandbox.clock, None
        self.fills = []
        self.world.listen(lambda event: self.fills.append(event) if isinstance(event, OrderFilled) else None)

    async def start(self):
        """Let time go, and begin beside the session."""
        self.clock.speed = PACE
        self.clock.go()
        self.session, self.target, self.asked = Watched.latest, None, 0
        self.core, self.ear = self.session.core, self.session.ear
        for adapter in self.session.adapters.values():  # open, and what is long to read is read
            adapter.client.trading.timeout = adapter.client.polling.timeout = TIMEOUT_MS
        self.gate = next(s for s in self.core.services if isinstance(s, RiskGate))
        self.kill = next(s for s in self.core.services if isinstance(s, KillSwitch))
        self.ear.on_second = self.ask
        self.task = asyncio.ensure_future(self.run())

    def ask(self):
        """Put in line what a strategy would say at every second."""
        if self.target is not None:
            self.asked += 1
            self.session.inbox.put(changed(self.target, ts_init_ns=self.session.inbox.clock()))

    async def run(self):
        try:
            await asyncio.sleep(0.5)
            self.sockets = {venue: len(server.sockets) for venue, server in self.sandbox.servers.items()}
            for fault, phase in self.cells:
                began_s = time.monotonic()
                cell = Cell(self, fault, phase)
                try:
                    result = await cell.play()
                except AssertionError as error:
                    where = traceback.extract_tb(error.__traceback__)[1].name
                    result = cell.facts(f"{where}: {error}")
                    cell.trap = lambda event: None
                    cell.lift()
                    await cell.leave()
                result["wall_s"] = round(time.monotonic() - began_s, 2)
                self.results.append(result)
                self.say(result)
        except Exception:  # noqa: BLE001
            self.broke = f"{fault} at {phase}: {traceback.format_exc()}"  # told at the end; the session ends in good order
        finally:
            self.target = None
            self.session.ending.ask(THROUGH)

    async def until(self, holds, what, within_s=PATIENCE_S, lenient=False):
        end_s = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > end_s:
                if lenient:
                    return False
                raise AssertionError(f"{what}: not within {within_s:g} s")
            await asyncio.sleep(0.01)
        return True

    def trade(self, pair_id):
        return self.core.execution.trades[pair_id]

    def settled(self, pair_id):
        trade = self.trade(pair_id)
        return not trade.working and trade.state in ("IDLE", "OPEN", "FAILED") and not trade.left_base

    async def leap(self, to_ns):
        """Go to an instant at once, where nobody is naked."""
        self.clock.pause()
        await asyncio.sleep(0.02)
        await self.clock.advance(to_ns)
        self.clock.go()

    def unfit(self, symbol, venues=VENUES):
        """Say what still keeps the next cell from beginning; "": nothing."""
        now_ns = self.session.inbox.clock()
        for venue in venues:
            if breach := self.gate._rules.health.check(venue):
                return str(breach)
            if venues is VENUES and len(self.sandbox.servers[venue].sockets) < self.sockets[venue]:
                return f"{venue}: sockets are missing"
            leg = self.world.instruments[venue, symbol]
            for breach in self.gate._rules._asked_of_leg(leg, now_ns):
                if breach is not None:
                    return str(breach)
        return ""

    async def ready(self, symbol):
        """Wait until everything is well again; a person lifts what a person must, and says which."""
        lifted = []
        for stop in list(self.kill.levels.standing):
            lifted.append(f"{stop.level.value} {stop.scope}: {stop.reason}")
            words = {"scope": stop.scope, "cause": stop.cause, "reason": "the drill goes on", "who": "operator"}
            self.session.inbox.put(KillSwitchReset(ts_init_ns=self.session.inbox.clock(), **words))
        end_s = time.monotonic() + PATIENCE_S
        while why := self.unfit(symbol):
            if "charge_window" in why or "funding_doubt" in why:
                await self.leap(self.world.now_ns + (70 * SECOND_NS if "charge" in why else HOUR_NS))
                await asyncio.sleep(0.3)
            assert time.monotonic() < end_s, f"not fit for a next cell: {why}"
            await asyncio.sleep(0.02)
        into_s = self.world.now_ns % HOUR_NS // SECOND_NS
        if into_s > 3600 - 240:  # no cell but those of settlements comes near one
            await self.leap(self.world.now_ns + (3600 + 75 - into_s) * SECOND_NS)
            await asyncio.sleep(0.2)
            await self.ready(symbol)
        return lifted


class Cell:
    """One fault at one phase."""

    def __init__(self, drill, fault, phase):
        self.drill, self.fault, self.phase = drill, fault, phase
        self.spec = table.FAULTS[fault]
        at = list(table.FAULTS).index(fault) + 7 * table.PHASES.index(phase)
        self.symbol = COINS[at % len(COINS)]
        struck = self.spec.venues[at // 3 % len(self.spec.venues)]
        other = [venue for venue in VENUES if venue != struck][at % 2]
        self.struck = struck
        self.long, self.short = (struck, other) if phase in table.STRIKES_LONG else (other, struck)
        for pair_id, pair in ((id, trade.pair) for id, trade in drill.core.execution.trades.items()):
            if pair.a.symbol == self.symbol and {pair.a.venue, pair.b.venue} == {self.long, self.short}:
                self.pair_id = pair_id
        forced = phase == "repairing" and fault in ("deleverage", "liquidate")
        self.forced_at = self.long if forced else struck  # a leg that is held
        self.armed_s = self.lifting = None
        self.trap = lambda event: None

    def want(self, usd):
        """Want a size on each leg from now on; 0: nothing."""
        words = {"long_venue": self.long, "short_venue": self.short, "notional_usd": Decimal(usd), "reason": "drill"}
        self.drill.target = TargetPosition(ts_init_ns=0, pair_id=self.pair_id, **words)

    def arm(self):
        """Let the fault begin, once."""
        if self.armed_s is not None:
            return
        self.armed_s = time.monotonic()
        script = self.spec.script(self)
        self.drill.sandbox.control.script(json.dumps(script).encode())
        if not self.spec.lasts and self.phase not in ("waiting", "settlement"):
            self.lifting = asyncio.get_running_loop().call_later(self.spec.hold_s, self.lift)

    def lift(self):
        """Let the fault end."""
        drill = self.drill
        if self.lifting is not None:
            self.lifting.cancel()
        drill.sandbox.faults.withdraw()
        for mend in self.spec.mend(self):
            drill.sandbox.control.script(json.dumps(mend).encode())
        for server in drill.sandbox.servers.values():
            server.down_until_s = 0.0
        world = drill.world
        world.faults.delisted.clear()
        drill.sandbox.servers["hyperliquid"].desk.delisted.clear()
        drill.sandbox.servers["okx"].desk.expired.clear()
        world.intervals.hours.update(dict.fromkeys(world.instruments, 1))

    async def stood(self):
        """Let the fault stand for its time."""
        await self.drill.until(lambda: self.armed_s is not None, "the fault's moment")
        left_s = self.armed_s + self.spec.hold_s - time.monotonic()
        await asyncio.sleep(max(0.0, left_s) + 0.02)

    def at_placed(self, opening):
        """Arm at the very message that sends the struck leg's order of an intent."""
        def trap(event):
            if isinstance(event, OrderPlaced) and event.pair_id == self.pair_id and event.venue == self.struck:
                if self.spec.strikes == "traded" and opening:
                    self.drill.world.listen(self.at_traded)
                else:
                    self.arm()
        return trap

    def at_traded(self, event):
        if self.armed_s is None and isinstance(event, OrderFilled) and (event.venue, event.symbol) == (self.struck, self.symbol):
            self.armed_s = time.monotonic()

            def strike():
                self.armed_s = None
                self.arm()

            asyncio.get_running_loop().call_soon(strike)

    async def enter(self, asks=0):
        """Ask for the pair until an entry begins, or so often, and wait until it is settled; return whether it began."""
        drill, since = self.drill, len(self.drill.ear.heard)
        drill.asked = 0
        self.want(SIZE_USD)

        def began():
            return any(e.pair_id == self.pair_id and e.now == "ENTERING" for e in drill.ear.of(PairStateChanged, since))

        await drill.until(lambda: began() or (asks and drill.asked >= asks), "an entry")
        drill.target = None
        if began():
            await self.drill.until(lambda: drill.settled(self.pair_id), "an entry that ends")
        return began()

    async def leave(self):
        """Ask for nothing until nothing is held."""
        drill = self.drill
        self.want(0)
        await drill.until(lambda: drill.settled(self.pair_id) and drill.trade(self.pair_id).state == "IDLE", "an exit that ends")
        drill.target = None

    def state(self):
        return str(self.drill.trade(self.pair_id).state.value)

    async def play(self):
        drill = self.drill
        lifted = await drill.ready(self.symbol)
        self.heard0, self.fills0 = len(drill.ear.heard), len(drill.fills)
        drill.ear.on_event = lambda event: self.trap(event)
        self.note = self.why = ""
        end = await getattr(self, table.HOW[self.phase])()
        self.lift()
        self.trap = lambda event: None
        recovered = ""
        if self.note == "refused":
            await drill.ready(self.symbol)
            recovered = "entered" if await self.enter() else "blocked"
        await self.leave()
        return await self.measure(end, recovered, lifted)

    async def waiting(self):
        """Nothing is held; the strategy wants in while the fault stands."""
        self.arm()
        refuses = "refused" in table.expected(self.fault, "waiting")

        def noticed():
            self.why = self.drill.unfit(self.symbol, (self.long, self.short))
            return self.why

        await self.drill.until(noticed, "noticed", NOTICED_S if refuses else 0.3, lenient=True)
        got = await self.enter(asks=4 * refuses)
        self.note = "entered" if got else "refused"
        await self.stood()
        self.lift()
        await self.drill.until(lambda: self.drill.settled(self.pair_id), "a settled pair")
        return self.state()

    async def entering(self):
        self.trap = self.at_placed(opening=True)
        await self.enter()
        await self.stood()
        await self.drill.until(lambda: self.drill.settled(self.pair_id), "a settled pair")
        return self.state()

    async def open(self):
        await self.enter()
        assert self.state() == "OPEN", self.state()
        self.arm()
        await self.stood()
        await self.drill.until(lambda: self.drill.settled(self.pair_id), "a settled pair")
        return self.state()

    async def settlement(self):
        drill = self.drill
        await self.enter()
        assert self.state() == "OPEN", self.state()
        at_ns = (drill.world.now_ns // HOUR_NS + 1) * HOUR_NS
        await drill.leap(at_ns - 4 * SECOND_NS)
        self.arm()
        await drill.until(lambda: drill.world.now_ns > at_ns + 2 * SECOND_NS, "the settlement")
        await self.stood()
        await self.drill.until(lambda: self.drill.settled(self.pair_id), "a settled pair")
        end = self.state()
        self.lift()
        await drill.until(self.paid, "the payments of the settlement")
        await drill.leap(drill.world.now_ns + 75 * SECOND_NS)
        return end

    def paid(self):
        """Tell whether the ledger has booked what the venues have paid."""
        booked = self.drill.core.ledger.ledger.settlements
        return not booked.awaited

    async def exiting(self):
        await self.enter()
        assert self.state() == "OPEN", self.state()
        self.trap = self.at_placed(opening=False)
        self.want(0)
        await self.stood()
        self.drill.target = None
        await self.drill.until(lambda: self.drill.settled(self.pair_id), "a settled pair")
        return self.state()

    async def repairing(self):
        """The short leg is refused once, and the fault meets the order that is to mend it."""
        drill = self.drill

        def trap(event):
            if isinstance(event, PairStateChanged) and event.pair_id == self.pair_id and event.now == "REPAIRING":
                self.arm()

        self.trap = trap
        drill.sandbox.faults.withdraw()
        refusal = {"fault": "reject_order", "venue": self.short}
        drill.sandbox.control.script(json.dumps(refusal).encode())
        await self.enter()
        await self.stood()
        await drill.until(lambda: drill.settled(self.pair_id), "a settled pair")
        return self.state()

    async def measure(self, end, recovered, lifted):
        await self.drill.until(lambda: not self.gap(), "books", 12.0, lenient=True)
        return self.facts("") | {"end": end, "recovered": recovered, "gap": self.gap(), "lifted": lifted}

    def gap(self):
        """Say where a venue's books and ours differ by a cent, or anything is held; "": nowhere."""
        found, ledgers = [], self.drill.core.ledger.ledger.accounts
        for venue in VENUES:
            account, ours = self.drill.world.account(venue), ledgers[venue].equity()
            if abs(ours - account.wallet) >= Decimal("0.005"):
                found.append(f"{venue}: ours {ours}, theirs {account.wallet}")
            if account.held(self.symbol):
                found.append(f"{venue} holds {account.held(self.symbol)}")
        return ", ".join(found)

    def facts(self, broke):
        """Write down what was seen."""
        drill = self.drill
        naked = naked_of(drill.fills[self.fills0 :], self.symbol, drill.world.now_ns)
        heard = drill.ear.heard[self.heard0 :]
        words = {"fault": self.fault, "phase": self.phase, "struck": self.struck, "pair": self.pair_id, "broke": broke}
        return words | {
            "note": self.note,
            "why": self.why,
            "naked_s": round(naked[0], 2),
            "naked_usd_s": round(naked[1], 1),
            "max_naked_usd": round(naked[2], 1),
            "alerts": [f"{e.severity}: {e.text}" for e in heard if isinstance(e, AlertRaised)],
            "stops": [f"{e.level.value} {e.scope}: {e.reason}" for e in heard if isinstance(e, KillSwitchSet)],
            "refusals": [f"{e.limit} {e.scope}" for e in heard if isinstance(e, RiskLimitBreached)],
            "states": "".join(e.now[0] for e in heard if isinstance(e, PairStateChanged) and e.pair_id == self.pair_id),
            "foreign": sorted({e.pair_id for e in heard if isinstance(e, PairStateChanged)} - {self.pair_id}),
            "orders": sum(isinstance(e, OrderPlaced) for e in heard),
            "refused": [f"{e.venue}: {e.reason}" for e in heard if isinstance(e, OrderRejected | OrderCanceled | OrderUnknown)],
            "placed": [f"{e.venue} {e.qty_base:+f}" for e in heard if isinstance(e, OrderPlaced)],
        }


def naked_of(fills, symbol, until_ns):
    """Find how long, how much times how long, and how much of a coin was uneven over all venues."""
    net, price, since_ns, last_ns, longest_s, usd_s, most = Decimal(0), 0.0, 0, 0, 0.0, 0.0, 0.0
    for fill in [*(f for f in fills if f.symbol == symbol), None]:
        now_ns = until_ns if fill is None else fill.ts_event_ns
        if net:
            usd_s += float(abs(net)) * price * (now_ns - last_ns) / 1e9
            longest_s = max(longest_s, (now_ns - since_ns) / 1e9)
        if fill is not None:
            was, net, price, last_ns = net, net + fill.qty_base, float(fill.price), now_ns
            since_ns = now_ns if not was or not net else since_ns
            most = max(most, float(abs(net)) * price)
    return longest_s, usd_s, most


async def session(folder, cells, say):
    """Play cells in one live session; return it with its result."""
    settings = load_settings(ROOT / "settings.ini", env={})
    limits = LimitSettings(**(settings.limits.model_dump() | LIMITS))
    execution = ExecutionSettings(**(settings.execution.model_dump() | EXECUTION))
    live = settings.live.model_copy(update={"symbols": COINS})
    settings = settings.model_copy(update={"live": live, "limits": limits, "execution": execution})
    settings = settings.model_copy(update={"storage": settings.storage.model_copy(update={"checkpoint_entries": 0})})
    STRATEGIES["silent"] = StrategyKind(Nothing, lambda parameters, pairs: Silent())
    named = {"strategy": "silent", "title": "silent", "schema_version": 1, "digest": "0" * 64, "path": folder / "none.json"}
    params = ParameterSet(**named, parameters=Nothing())
    deposits = {venue: settings.venues[venue].deposit_usd for venue in VENUES}
    sandbox = Sandbox(synthetic_market(7, 6, symbols=COINS), deposits, paused=True)
    sandbox.world.intervals.hours.update(dict.fromkeys(sandbox.world.instruments, 1))
    sandbox.servers["hyperliquid"].weight.limit *= 10  # for the quick looks at its health
    sandbox.world.advance(sandbox.world.now_ns + 26 * HOUR_NS + 120 * SECOND_NS)
    live_trader.LiveSession = Watched
    async with sandbox:
        write_known(sandbox.known(), folder / "sandbox.json")
        way = sandbox_way(folder / "sandbox.json", settings)
        drill = Drill(sandbox, cells, say)
        words = {"kind": "live", "session_id": "matrix", "folder": folder / "session", "title": "matrix"}
        plan = LivePlan(**words, origin={"market": "sandbox"}, started=drill.start)
        console = Console(file=io.StringIO(), force_terminal=False)
        connect = functools.partial(connect_quickly, way)
        result = await live_trader.run_live(settings, params, plan, way.clock, connect, console)
        state = sandbox.control.state()
    faulty = [drill.broke] if drill.broke else []
    return faulty + checked(folder / "session", drill, result, state)


def checked(folder, drill, result, state):
    """Hold what the venues have against what the session wrote down; return what is wrong."""
    wrong = [] if result["closed"] and not result["still_open"] else [f"open in the end: {result['still_open']}"]
    wrong += [] if result["ended_because"] == THROUGH else [f"ended because {result['ended_because']}"]
    wrong += [f"{venue}: {books}" for venue, books in result["reconciliation"].items() if books["ledger_equity"] != books["venue_equity"]]
    with opened_record(folder, StorageSettings()) as record:
        sent = Counter(e.message.client_order_id for e in record.entries if isinstance(e.message, SubmitOrder))
    wrong += [f"sent twice: {name}" for name, times in sent.items() if times > 1]
    for venue, books in state["venues"].items():
        ids = Counter(order["client_order_id"].removeprefix("0x") for order in books["orders"])
        wrong += [f"{venue} has {name} twice" for name, times in ids.items() if times > 1]
        wrong += [f"{venue} has {name}, which nobody sent" for name in ids if name not in sent and not name.startswith(FORCED)]
    if (difference := replay_run(folder)) is not None:
        wrong.append(f"it does not replay: {difference}")
    return wrong


def play(cells, say=lambda result: None):
    """Play cells in a session in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="fault-matrix-") as place:
        return asyncio.run(session(Path(place), cells, say))


def of(cells, say):
    """Play cells in a process of its own, which ends with its parent."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    try:
        say({"session": play(cells, say), "cells": len(cells)})
    except Exception:  # noqa: BLE001
        say({"session": [traceback.format_exc()], "cells": len(cells)})


def play_all(cells, jobs, say=lambda result: None):
    """Play cells in several sessions beside each other; return what each cell came to, and what was wrong with a session."""
    load_adapters(VENUES)
    fork, results, wrong = multiprocessing.get_context("fork"), [], []
    line, jobs = fork.SimpleQueue(), min(jobs, len(cells))
    running = [fork.Process(target=of, args=(cells[job::jobs], line.put), daemon=True) for job in range(jobs)]
    for process in running:
        process.start()
    try:
        ended, until_s = 0, time.monotonic() + 60 + len(cells) * PATIENCE_S / jobs
        while ended < jobs:
            if line.empty():
                assert time.monotonic() < until_s, "a session hangs"
                time.sleep(0.02)
                continue
            told = line.get()
            say(told)
            if "session" in told:
                ended, wrong = ended + 1, wrong + told["session"]
            else:
                results.append(told)
    finally:
        for process in running:
            process.kill()
            process.join()
    return results, wrong


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--all", action="store_true", help="every fault at every phase")
    words.add_argument("--fault", action="append", choices=list(table.FAULTS))
    words.add_argument("--phase", action="append", choices=list(table.PHASES))
    words.add_argument("--jobs", type=int, default=6, help="sessions beside each other")
    asked = words.parse_args()
    faults, phases = asked.fault or list(table.FAULTS), asked.phase or table.PHASES
    cells = [(fault, phase) for fault in faults for phase in phases] if asked.all or asked.fault or asked.phase else table.part()
    began_s = time.monotonic()
    results, wrong = play_all(cells, asked.jobs, lambda told: print(json.dumps(told), flush=True))
    wrong += [f"{r['fault']} at {r['phase']}: {why}" for r in results for why in table.judge(r, MOST_USD, BOUND_S)]
    print(f"{len(results)} of {len(cells)} cells in {time.monotonic() - began_s:.0f} s, {len(wrong)} differ", *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
