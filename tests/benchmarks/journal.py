"""What keeping a journal costs: in the hot path, until it is durable, in bulk, in a whole session, at a restart and at a checkpoint.

Every figure is taken beside its yardstick in the same run, round by round, since the disk of a machine is
not the disk of another; what counts are the ratios.

    python tests/benchmarks/journal.py --json result.json
    python tests/benchmarks/journal.py --postgres postgresql://user@host/database
"""

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import time
from contextlib import suppress
from decimal import Decimal
from itertools import count
from pathlib import Path

import msgspec

from fundarb.apps.checkpointer import Checkpointer
from fundarb.apps.composition import RunSpec, build_core, parameter_schemas
from fundarb.apps.open_orders import OpenOrders
from fundarb.apps.recovery import Cast, restore
from fundarb.apps.session import trade, write_spec
from fundarb.apps.session_log import begin_log
from fundarb.config.parameters import load_parameters
from fundarb.config.settings import StorageSettings, load_settings
from fundarb.core.engine import Engine, Entry, MemoryJournal
from fundarb.core.events import OrderFilled, OrderPlaced
from fundarb.core.models import Liquidity
from fundarb.core.numbers import SECOND_NS
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.exchanges.simulated import SimulatedExchange
from fundarb.storage.audit_log import new_log
from fundarb.storage.database import SQLITE_FILE, open_database, postgres_url, sqlite_url
from fundarb.storage.journal_file import FileJournal, to_lines

ROOT = Path(__file__).parents[2]
SESSIONS = 5  # of each kind, in turn; the shortest counts, since a busy machine only adds
names = count()


def entries(number):
    """Entries of orders, some 400 bytes each."""
    return [
        Entry(
            seq=seq,
            cause_seq=max(seq - 1, 1),
            source="ExecutionService",
            message=OrderPlaced(
                ts_init_ns=1_772_438_400_000_000_000 + seq,
                client_order_id=f"{seq:032x}",
                pair_id="BTC:binance-okx",
                intent_no=seq,
                venue="okx",
                symbol="BTC",
                qty_base=Decimal("0.125"),
                limit_price=Decimal("60060.1"),
                reduce_only=False,
                decision_mid=Decimal("60030.05"),
            ),
        )
        for seq in range(1, number + 1)
    ]


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def timed(work, number):
    """Time each of a number of calls, in microseconds."""
    times = []
    for at in range(number):
        before = time.perf_counter_ns()
        work(at)
        times.append((time.perf_counter_ns() - before) / 1000)
    return times


def raw_fdatasync_us(folder, payload, number):
    file = os.open(folder / f"raw-{next(names)}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    times = []
    for _ in range(number):
        os.write(file, payload)
        times += timed(lambda _: os.fdatasync(file), 1)
    os.close(file)
    return times


def flush_us(log, sample):
    """A turn that sends something: two entries, one flush."""

    def turn(at):
        log.append(sample[2 * at])
        log.append(sample[2 * at + 1])
        log.flush()

    times = timed(turn, len(sample) // 2)
    log.close()
    return times


def append_us(log, sample):
    times = timed(lambda at: log.append(sample[at]), len(sample))
    log.close()
    return times


def per_s(log, sample, batch=100):
    began = time.perf_counter()
    for at, entry in enumerate(sample, 1):
        log.append(entry)
        if at % batch == 0:
            log.flush()
    elapsed_s = time.perf_counter() - began
    log.close()
    return len(sample) / elapsed_s


class PlainSqlite:
    """What a program would write without a chain: the number, the time, the kind and the bytes, made beforehand."""

    def __init__(self, path, sample):
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, ts INT, kind TEXT, body BLOB)")
        lines = to_lines(sample).splitlines()
        self._rows = [(e.seq, e.message.ts_init_ns, "OrderPlaced", p) for e, p in zip(sample, lines, strict=True)]
        self._pending = []

    def append(self, entry):
        self._pending.append(self._rows[entry.seq - 1])

    def flush(self):
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", self._pending)
        self._connection.execute("COMMIT")
        self._pending = []

    def close(self):
        self._connection.close()


def demo_recipe(days):
    settings = load_settings(ROOT / "settings.ini", {})
    params = load_parameters(ROOT / "params/cross_funding/demo.json", parameter_schemas())
    instruments = default_instruments(default_spec(7, days))
    venues = sorted({instrument.venue for instrument in instruments})
    return RunSpec(
        kind="demo",
        session_id="benchmark",
        code_version="",
        strategy=params.strategy,
        parameters=params.parameters.model_dump(mode="json"),
        parameters_digest=params.digest,
        limits=settings.limits.model_dump(mode="json"),
        execution=settings.execution.model_dump(mode="json"),
        instruments=instruments,
        deposits_usd={venue: settings.venues[venue].deposit_usd for venue in venues},
        latency_ms={venue: settings.venues[venue].latency_ms for venue in venues},
        origin={},
    )


def session_cpu_s(recipe, days, journal):
    """Run a whole session of the synthetic market, made beforehand: processor time of its thread, and of all."""
    latency_ns = {venue: ms * SECOND_NS // 1000 for venue, ms in recipe.latency_ms.items()}
    exchange = SimulatedExchange(recipe.instruments, latency_ns, recipe.deposits_usd)
    feed = list(SyntheticMarket(default_spec(7, days), recipe.instruments))
    engine = Engine(build_core(recipe).services, journal)
    own, everybody = time.thread_time(), time.process_time()
    trade(engine, exchange, feed)
    own, everybody = time.thread_time() - own, time.process_time() - everybody
    with suppress(AttributeError):
        journal.close()
    return own, everybody


def traded(recipe, trades):
    """A core whose books have heard of a number of trades, one after the other in one pair, by turns up and down."""
    core = build_core(recipe)
    hear = {kind: [] for kind in (OrderPlaced, OrderFilled)}
    for service in core.services:
        if type(service).__name__ in ("LedgerService", "ExecutionQuality"):
            for kind, heard in hear.items():
                heard.append(service.handlers()[kind])
    one, other = [each for each in recipe.instruments if each.symbol == "BTC"][:2]
    for number in range(trades):
        order = msgspec.structs.replace(
            entries(1)[0].message,
            ts_init_ns=1_772_438_400_000_000_000 + number * SECOND_NS,
            client_order_id=f"{number:032x}",
            pair_id=f"BTC:{one.venue}-{other.venue}",
            venue=(one, other)[number % 2].venue,
            qty_base=Decimal("0.125") * (-1) ** (number // 2 + number),
        )
        fill = OrderFilled(
            ts_init_ns=order.ts_init_ns,
            client_order_id=order.client_order_id,
            venue=order.venue,
            symbol=order.symbol,
            trade_id=str(number),
            qty_base=order.qty_base,
            price=Decimal("60031.3"),
            fee=Decimal("3.751956"),
            liquidity=Liquidity.TAKER,
            ts_event_ns=order.ts_init_ns,
        )
        for event in (order, fill):
            for handle in hear[type(event)]:
                list(handle(event))
    return core


def failed(why):
    raise RuntimeError(why)


def checkpoint_cpu_ms(log, cast, orders):
    """Write two checkpoints: the first is read back as well, the second is what a session waits for every time."""
    checkpointer = Checkpointer(log, cast, orders, 1, failed)
    checkpointer.write(0)
    began = time.process_time()
    checkpointer.write(0)
    return (time.process_time() - began) * 1000


def rounds(folder, number, server):
    """Measure everything a number of times; each ratio is of one round."""
    sample, storage, days = entries(20_000), StorageSettings(), 3
    recipe, out = demo_recipe(days), {}
    payload = to_lines(sample[:2])

    def sqlite_log():
        return new_log(open_database(sqlite_url(folder / f"{next(names)}.sqlite")), "benchmark", b"{}")

    def note(name, value):
        out.setdefault(name, []).append(value)

    for turn in range(number):
        raw = raw_fdatasync_us(folder, payload, 1000)
        flush, append = flush_us(sqlite_log(), sample[:2000]), append_us(sqlite_log(), sample)
        note("append_p50_us", quantile(append, 0.5))
        note("append_p99_us", quantile(append, 0.99))
        note("raw_fdatasync_p50_us", quantile(raw, 0.5))
        note("raw_fdatasync_p99_us", quantile(raw, 0.99))
        note("flush_p50_us", quantile(flush, 0.5))
        note("flush_p99_us", quantile(flush, 0.99))
        note("flush_over_raw_p99", quantile(flush, 0.99) / quantile(raw, 0.99))
        plain = per_s(PlainSqlite(folder / f"{next(names)}.plain", sample), sample)
        audit, file = per_s(sqlite_log(), sample), per_s(FileJournal(folder / f"{next(names)}.jsonl"), sample)
        note("plain_sqlite_batch_100_per_s", plain)
        note("audit_batch_100_per_s", audit)
        note("audit_over_plain", audit / plain)
        note("file_over_plain", file / plain)
        if server:
            log = new_log(open_database(postgres_url(server)), f"benchmark-{os.getpid()}-{turn}", b"{}")
            note("postgres_batch_100_per_s", per_s(log, sample))
        cpu_s: dict[str, list[tuple[float, float]]] = {"without": [], "audit": [], "file": []}
        for _ in range(SESSIONS):
            place = folder / f"session-{next(names)}"
            place.mkdir()
            write_spec(place, recipe)
            cpu_s["without"].append(session_cpu_s(recipe, days, MemoryJournal()))
            cpu_s["audit"].append(session_cpu_s(recipe, days, begin_log(place, storage)))
            cpu_s["file"].append(session_cpu_s(recipe, days, FileJournal(folder / f"{next(names)}.jsonl")))
        (without, _), with_log, (with_file, _) = (tuple(map(min, zip(*times, strict=True))) for times in cpu_s.values())
        note("session_without_cpu_s", without)
        note("session_with_file_over_without", with_file / without)
        note("session_itself_with_audit_over_without", with_log[0] / without)
        note("session_with_audit_over_without", with_log[1] / without)
        began = time.process_time()
        restored = restore(place, storage)
        note("restore_cpu_s", time.process_time() - began)
        note("restore_entries_per_cpu_s", restored.log.last_seq / out["restore_cpu_s"][-1])
        note("checkpoint_cpu_ms", checkpoint_cpu_ms(restored.log, restored.cast, restored.orders))
        restored.log.abandon()
        began = time.process_time()
        restored = restore(place, storage)
        note("restore_from_checkpoint_cpu_s", time.process_time() - began)
        note(
            "restore_from_checkpoint_over_without", out["restore_from_checkpoint_cpu_s"][-1] / out["restore_cpu_s"][-1]
        )
        restored.log.abandon()
        for trades in (2_000, 20_000):
            with sqlite_log() as log:
                log.append(sample[0])
                pause_ms = checkpoint_cpu_ms(log, Cast(traded(recipe, trades)), OpenOrders())
                note(f"checkpoint_after_{trades}_trades_cpu_ms", pause_ms)
        note("audit_bytes_per_entry", (place / SQLITE_FILE).stat().st_size / restored.log.last_seq)
    return {name: statistics.median(values) for name, values in out.items()}


TARGETS = {  # name: (at least or at most, the figure)
    "append_p50_us": ("<=", 15.0),
    "flush_over_raw_p99": ("<=", 10.0),
    "file_over_plain": (">=", 1.0),
    "session_itself_with_audit_over_without": ("<=", 1.10),
    "session_with_audit_over_without": ("<=", 1.10),
    "restore_from_checkpoint_over_without": ("<=", 1.0),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; else the temporary one")
    parser.add_argument("--postgres", help="also measure this server; it keeps what is written")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        result = rounds(Path(folder), asked.rounds, asked.postgres)
    for name, value in result.items():
        sign, target = TARGETS.get(name, ("", None))
        held = "" if target is None else f"   target {sign} {target:g}: "
        if target is not None:
            held += "held" if (value <= target) == (sign == "<=") or value == target else "MISSED"
        print(f"{name:38} {value:14,.2f}{held}")
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
