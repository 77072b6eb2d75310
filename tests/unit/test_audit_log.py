"""What the audit log promises, on SQLite and on a real PostgreSQL: durable, append-only, chained, one writer."""

import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from decimal import Decimal

import pytest
import sqlalchemy as sa

from fundarb.core.engine import Engine, EngineHalted, Entry, MemoryJournal, replay, run
from fundarb.core.errors import DataError, Halted, InputError
from fundarb.core.events import BookUpdated, MarkPriceUpdated, OrderFilled, SubmitOrder, TimerFired
from fundarb.core.models import Level, Liquidity
from fundarb.storage import audit_log, audit_rows
from fundarb.storage import database as audit_database
from fundarb.storage.audit_check import check_log
from fundarb.storage.audit_log import find_session, new_log, read_last, read_log, reopen_log
from fundarb.storage.database import migrate, open_database, postgres_url, sqlite_url

numbers = itertools.count()
RECIPE = b'{"kind": "demo", "limits": {"max_gross_x": "4"}}'


class Buyer:
    """Buy at every tick, so that every turn needs a flush."""

    def handlers(self):
        return {TimerFired: self.hear}

    def hear(self, tick):
        yield SubmitOrder(
            ts_init_ns=tick.ts_init_ns,
            client_order_id=f"id-{tick.ts_init_ns}",
            venue="okx",
            symbol="BTC",
            qty_base=Decimal("0.100000000000000001"),
            limit_price=Decimal("60060.10"),
            reduce_only=False,
        )


def tick(seq):
    return TimerFired(ts_init_ns=seq, name="decision")


def market(number, start):
    """What a market says between two ticks."""
    for at in range(start, start + number):
        place = {"ts_init_ns": at, "venue": "okx", "symbol": "BTC"}
        if at % 3:
            yield BookUpdated(**place, bids=(Level(60_000.0 + at, 0.5),), asks=(Level(60_000.1 + at, 0.25),))
        else:
            yield MarkPriceUpdated(**place, mark_price=60_000.0 + at / 7, oracle_price=60_000.0)


def in_blocks():
    """A session in which the market speaks: 20 inputs, a decision, 300 inputs, a decision, 3 inputs."""
    journal, inputs = MemoryJournal(), [*market(20, 1), tick(30), *market(300, 31), tick(400), *market(3, 401)]
    run(Engine([Buyer()], journal), inputs, lambda command: None)
    return journal.entries


def recorded(number):
    journal = MemoryJournal()
    run(Engine([Buyer()], journal), [tick(n + 1) for n in range(number)], lambda command: None)
    return journal.entries


class Store:
    """One place for one session, on either database."""

    def __init__(self, url, kind, timeout_s=5.0):
        self.url, self.kind, self.timeout_s = url, kind, timeout_s
        self.session_id = f"session-{os.getpid()}-{next(numbers)}"

    def database(self, read_only=False):
        return open_database(self.url, self.timeout_s, read_only)

    def begin(self):
        return new_log(self.database(), self.session_id, RECIPE)

    def again(self):
        return reopen_log(self.database(), self.session_id)

    @contextmanager
    def reading(self):
        database = self.database(read_only=True)
        with database.connect() as connection:
            yield connection, find_session(connection, self.session_id)
        database.dispose()

    def entries(self):
        with self.reading() as (connection, session):
            return list(read_log(connection, session))

    def flaws(self):
        with self.reading() as (connection, session):
            return [(flaw.seq, flaw.field) for flaw in check_log(connection, self.session_id).flaws]

    @contextmanager
    def unguarded(self):
        """A connection of somebody who may do anything."""
        database = sa.create_engine(self.url, poolclass=sa.pool.NullPool)
        with database.begin() as connection:
            if self.kind == "postgres":
                connection.exec_driver_sql("SET session_replication_role = replica")
            else:
                for (name,) in connection.exec_driver_sql(
                    "SELECT name FROM sqlite_master WHERE type = 'trigger'"
                ).all():
                    connection.exec_driver_sql(f"DROP TRIGGER {name}")
            yield connection


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    if request.param == "sqlite":
        return Store(sqlite_url(tmp_path / "session.sqlite"), "sqlite")
    return Store(postgres_url(request.getfixturevalue("postgres")), "postgres")


@pytest.mark.parametrize("number", [0, 1, 127, 128, 129, 300])
def test_nothing_is_lost_at_the_edge_of_a_batch(store, number):
    entries = recorded(number)
    with store.begin() as log:
        for entry in entries:
            log.append(entry)
    assert store.entries() == entries
    assert store.flaws() == []


def test_what_leaves_is_durable_before_it_leaves(store):
    """Another connection sees the order at the moment it is sent."""
    log, seen = store.begin(), []

    def send(command):
        seen.append(store.entries()[-1].message == command)

    run(Engine([Buyer()], log), [tick(n) for n in range(1, 6)], send)
    log.close()
    assert seen == [True] * 5


def test_a_session_replays_from_the_database(store):
    log = store.begin()
    run(Engine([Buyer()], log), [tick(n) for n in range(1, 50)], lambda command: None)
    log.close()
    assert replay(iter(store.entries()), [Buyer()]) is None


def test_the_last_entries_come_in_their_order(store):
    entries = recorded(20)
    with store.begin() as log:
        for entry in entries:
            log.append(entry)
    with store.reading() as (connection, session):
        assert read_last(connection, session, 7) == entries[-7:]
        assert list(read_log(connection, session, from_seq=11)) == entries[10:]


def test_a_session_goes_on_where_it_was_left_and_each_end_is_sealed(store):
    entries = recorded(10)
    for part in (entries[:7], entries[7:8], [], entries[8:]):
        with store.begin() if part == entries[:7] else store.again() as log:
            for entry in part:
                log.append(entry)
    assert store.entries() == entries
    with store.reading() as (connection, _):
        verdict = check_log(connection, store.session_id)
    assert (verdict.last_seq, verdict.sealed, verdict.flaws) == (20, True, ())


def test_without_close_there_is_no_seal_and_what_was_flushed_is_there(store):
    log = store.begin()
    for entry in recorded(10)[:15]:
        log.append(entry)
    log.flush()
    log.append(recorded(10)[15])
    log.abandon()
    with store.reading() as (connection, _):
        verdict = check_log(connection, store.session_id)
    assert (verdict.last_seq, verdict.sealed, verdict.flaws) == (15, False, ())


def test_a_name_that_is_taken_is_refused(store):
    store.begin().close()
    with pytest.raises(InputError, match=f"session {store.session_id} is there already"):
        store.begin()


def test_two_writers_are_one_too_many(store):
    store.timeout_s = 0.2
    log = store.begin()
    with pytest.raises(InputError, match="is being written by another process. Nothing was started."):
        store.again()
    log.append(recorded(1)[0])
    log.close()
    store.again().close()


def test_a_session_that_is_not_there_is_refused_by_name(store):
    with pytest.raises(InputError):
        store.again()
    store.begin().close()
    with pytest.raises(InputError, match=f"session 'other': there are.*{store.session_id}"):
        reopen_log(store.database(), "other")


def test_an_entry_out_of_order_is_refused_before_it_breaks_the_chain(store):
    entries, log = recorded(3), store.begin()
    log.append(entries[0])
    with pytest.raises(InputError, match="entry #3 comes after #1"):
        log.append(entries[2])
    with pytest.raises(Halted, match="entry #3 comes after #1"):
        log.flush()
    with pytest.raises(Halted, match="entry #3 comes after #1"):
        log.append(entries[1])
    log.abandon()
    assert store.entries() == []


def test_what_json_cannot_say_is_refused(store):
    log = store.begin()
    bad = OrderFilled(
        ts_init_ns=1,
        client_order_id="a",
        venue="okx",
        symbol="BTC",
        trade_id="1",
        qty_base=Decimal("NaN"),
        price=Decimal(1),
        fee=Decimal(0),
        liquidity=Liquidity.TAKER,
        ts_event_ns=1,
    )
    log.append(Entry(seq=1, cause_seq=None, source="input", message=bad))
    try:
        log.flush()
    except DataError:
        pass
    else:  # a NaN that is text is told to the letter
        log.close()
        assert repr(store.entries()[0].message) == repr(bad)


@pytest.mark.parametrize("statement", ["UPDATE {} SET hash = hash", "DELETE FROM {}"])
@pytest.mark.parametrize("table", ["sessions", "entries", "seals"])
def test_no_row_is_changed_or_removed(store, table, statement):
    with store.begin() as log:
        log.append(recorded(1)[0])
    database = store.database()
    with pytest.raises(sa.exc.DBAPIError, match=f"{table} is append-only"), database.begin() as connection:
        connection.exec_driver_sql(statement.format(table))
    database.dispose()
    assert store.flaws() == []


def test_a_database_of_a_newer_version_is_left_alone(tmp_path):
    database = open_database(sqlite_url(tmp_path / "session.sqlite"))
    migrate(database)
    with database.begin() as connection:
        connection.exec_driver_sql("INSERT INTO schema_steps VALUES (4)")
    with pytest.raises(InputError, match="at version 4, this fundarb knows 3"):
        new_log(database, "a", RECIPE)


# what goes wrong below


def halts(log, sent, inputs, match):
    """The engine halts, nothing of this turn leaves, and nothing is appended afterwards."""
    engine = Engine([Buyer()], log, log.last_seq)
    with pytest.raises(Halted, match=match):
        run(engine, inputs, sent.append)
    with pytest.raises(EngineHalted):
        engine.turn(tick(10**6))
    with pytest.raises(Halted, match=match):
        log.append(recorded(1)[0])
    with pytest.raises(Halted, match=match):
        log.flush()
    log.close()


def test_a_lost_connection_halts_before_anything_leaves(postgres):
    store, sent = Store(postgres_url(postgres), "postgres"), []
    log = store.begin()
    run(Engine([Buyer()], log), [tick(1)], sent.append)
    with store.unguarded() as connection:
        ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fundarb'"
        connection.exec_driver_sql(ours)
    halts(log, sent, [tick(2)], "terminating connection|closed the connection|connection is closed|Nothing more is")
    assert len(sent) == 1
    assert len(store.entries()) == 2
    assert store.flaws() == []
    again = store.again()
    assert again.last_seq == 2
    again.close()


def test_a_locked_database_halts_before_anything_leaves(tmp_path):
    store, sent = Store(sqlite_url(tmp_path / "session.sqlite"), "sqlite", timeout_s=0.1), []
    log = store.begin()
    other = sqlite3.connect(tmp_path / "session.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    halts(log, sent, [tick(1)], "database is locked. Nothing more is appended, nothing leaves")
    other.close()
    assert sent == []
    assert store.entries() == []


def test_a_server_that_is_not_there_is_the_operators_input(tmp_path):
    url = postgres_url(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(InputError, match="Nothing was started"):
        new_log(open_database(url, 1), "a", RECIPE)


FILL_UP = """
import resource, sys
from fundarb.core.engine import Entry
from fundarb.core.errors import Halted
from fundarb.core.events import TimerFired
from fundarb.storage.audit_log import new_log
from fundarb.storage.database import open_database, sqlite_url
from pathlib import Path
log = new_log(open_database(sqlite_url(Path(sys.argv[1]))), "full", b"{}")
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
flushed = 0
try:
    for seq in range(1, 10**6):
        log.append(Entry(seq=seq, cause_seq=None, source="input", message=TimerFired(ts_init_ns=seq, name="x" * 500)))
        if seq % 10 == 0:
            log.flush()
            flushed = seq
except Halted as error:
    print(flushed, error)
log.close()
"""


def fill_up(path, *limit):
    done = subprocess.run([sys.executable, "-c", FILL_UP, path, *map(str, limit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flushed, said = done.stdout.split(" ", 1)
    return int(flushed), said


def survives(path, flushed):
    store = Store(sqlite_url(path), "sqlite")
    store.session_id = "full"
    entries = store.entries()
    assert len(entries) in (flushed, flushed + 10), "nothing flushed is lost; the last write may have come through"
    assert store.flaws() == []
    log = store.again()
    assert log.last_seq == len(entries)
    log.abandon()


def test_a_file_that_may_not_grow_halts_and_keeps_what_was_flushed(tmp_path):
    flushed, said = fill_up(tmp_path / "session.sqlite", 400_000)
    assert flushed > 0
    assert "Nothing more is appended, nothing leaves." in said
    survives(tmp_path / "session.sqlite", flushed)


def test_a_full_disk_halts_and_keeps_what_was_flushed(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        flushed, said = fill_up(disk / "session.sqlite")
        assert flushed > 0
        assert "database or disk is full" in said or "disk I/O error" in said
        shutil.copytree(disk, tmp_path / "larger")
        survives(tmp_path / "larger" / "session.sqlite", flushed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# one byte


def flipped(value, at=None):
    """Change one byte of a value, or one bit of a number."""
    if value is None:
        return 1
    if isinstance(value, int):
        return value ^ (1 << 20)
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1)
    at = random.Random(repr(at)).randrange(len(value)) if not isinstance(at, int) else at
    return value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]


def change(store, table, field, where, seed=0):
    with store.unguarded() as connection:
        names = {"session_no": find_session(connection, store.session_id).session_no}
        key = f"session_no = {names['session_no']}" + (f" AND seq = {where}" if where else "")
        was = connection.exec_driver_sql(f"SELECT {field} FROM {table} WHERE {key}").scalar_one()
        connection.execute(sa.text(f"UPDATE {table} SET {field} = :value WHERE {key}"), {"value": flipped(was, seed)})


@pytest.mark.parametrize("seq", [1, 2, 21, 39, 40])
@pytest.mark.parametrize("field", ["seq", "session_no", "ts_ns", "source", "cause_seq", "kind", "payload", "hash"])
def test_one_changed_byte_is_located(store, field, seq):
    with store.begin() as log:
        for entry in recorded(20):
            log.append(entry)
    change(store, "entries", field, seq, seed=(field, seq))
    assert store.flaws() == [(seq, field)]


def test_every_byte_of_a_payload_and_of_a_hash_counts(store):
    with store.begin() as log:
        for entry in recorded(2):
            log.append(entry)
    with store.reading() as (connection, session):
        (payload, stored), *_ = connection.exec_driver_sql(
            f"SELECT payload, hash FROM entries WHERE session_no = {session.session_no} AND seq = 2"
        ).all()
    for field, value in (("payload", payload), ("hash", stored)):
        for at in range(0, len(value), 41 if field == "payload" else 5):
            change(store, "entries", field, 2, seed=at)
            assert store.flaws() == [(2, field)]
            change(store, "entries", field, 2, seed=at)
    assert store.flaws() == []


@pytest.mark.parametrize("field", ["recipe", "hash"])
def test_one_changed_byte_of_the_sessions_own_row_is_located(store, field):
    with store.begin() as log:
        for entry in recorded(3):
            log.append(entry)
    change(store, "sessions", field, None)
    assert store.flaws() == [(0, field)]


@pytest.mark.parametrize("field, said", [("hash", "seal hash"), ("seq", "seal seq")])
def test_one_changed_byte_of_a_seal_is_located(store, field, said):
    with store.begin() as log:
        for entry in recorded(3):
            log.append(entry)
    change(store, "seals", field, 6)
    assert store.flaws() == [(6 if field == "hash" else 6 ^ (1 << 20), said)]


@pytest.mark.parametrize("gone, flaw", [("= 5", (5, "row")), ("BETWEEN 3 AND 8", (3, "row")), ("> 30", (31, "row"))])
def test_rows_that_are_gone_are_missed(store, gone, flaw):
    with store.begin() as log:
        for entry in recorded(20):
            log.append(entry)
    with store.unguarded() as connection:
        session = find_session(connection, store.session_id)
        connection.exec_driver_sql(f"DELETE FROM entries WHERE session_no = {session.session_no} AND seq {gone}")
    assert store.flaws() == [flaw]


def test_a_byte_of_the_file_is_found_or_was_nobodys(tmp_path):
    """Flip bytes of the file itself: whatever is read back without complaint is what was written."""
    path = tmp_path / "session.sqlite"
    store, entries = Store(sqlite_url(path), "sqlite"), recorded(60)
    with store.begin() as log:
        for entry in entries:
            log.append(entry)
    whole, chance, found = path.read_bytes(), random.Random(7), 0
    for number in range(60):
        bad = tmp_path / str(number) / "session.sqlite"
        bad.parent.mkdir()
        at = chance.randrange(len(whole))
        bad.write_bytes(whole[:at] + bytes((whole[at] ^ (1 << chance.randrange(8)),)) + whole[at + 1 :])
        damaged = Store(sqlite_url(bad), "sqlite")
        damaged.session_id = store.session_id
        try:
            flaws = damaged.flaws()
        except (InputError, sa.exc.SQLAlchemyError):
            found += 1
            continue
        found += bool(flaws)
        if not flaws:
            assert damaged.entries() == entries
    assert found > 15


def test_the_claim_is_not_a_leftover(tmp_path):
    """A lock file without a process that holds it stops nobody."""
    store = Store(sqlite_url(tmp_path / "session.sqlite"), "sqlite")
    store.begin().abandon()
    assert (tmp_path / "session.sqlite.lock").exists()
    store.again().close()


@pytest.fixture
def commits(monkeypatch):
    """Whether each commit was of the durable kind, and its last number."""
    monkeypatch.setattr(audit_log, "_BATCH", 1024)
    seen, insert_rows = [], audit_log.insert_rows

    def insert(connection, table, rows, durable):
        seen.append((durable, rows[-1][1]))
        insert_rows(connection, table, rows, durable)

    monkeypatch.setattr(audit_log, "insert_rows", insert)
    return seen


def test_a_batch_is_written_without_a_flush_and_a_flush_is_of_the_durable_kind(tmp_path, commits):
    store = Store(sqlite_url(tmp_path / "session.sqlite"), "sqlite")
    log, entries = store.begin(), recorded(1200)
    for entry in entries[:2304]:
        log.append(entry)
        if entry.seq == 1152:
            log.settle()
    log.settle()
    assert commits == [(False, 1151), (False, 2175)], "all that was encoded, but for one row"
    assert len(store.entries()) == log.last_seq == 2175
    for entry in entries[2304:]:
        log.append(entry)
    log.flush()
    level = log.connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    assert (commits[2:], level) == ([(True, 2400)], 2)
    log.abandon()
    assert store.entries() == entries


@pytest.mark.parametrize("number", [127, 128, 129, 1023, 1024, 1025, 1152, 1153, 2305])
@pytest.mark.parametrize("spoken", [True, False])
def test_a_flush_always_has_something_to_make_durable(tmp_path, number, spoken, commits):
    store = Store(sqlite_url(tmp_path / "session.sqlite"), "sqlite")
    log = store.begin()
    for seq, event in enumerate(market(number, 1) if spoken else (tick(n) for n in range(number)), 1):
        log.append_input(seq, event)
    log.write()
    log.flush()
    assert commits[-1] == (True, number)
    log.flush()
    assert commits[-1] == (True, number)
    log.abandon()
    assert len(store.entries()) == number


def test_what_was_written_is_seen_by_others_before_it_is_durable(store, commits):
    log = store.begin()
    for seq, event in enumerate([*market(5, 1), tick(6), *market(5, 7)], 1):
        log.append_input(seq, event)
    log.write()
    log.settle()
    assert [durable for durable, _ in commits] == [False]
    assert [entry.seq for entry in store.entries()] == [1, 2, 3, 4, 5, 6]
    log.abandon()


# the writer


@pytest.fixture
def gate(monkeypatch):
    """Commits that need not be durable wait for this, and fail if it says so."""
    monkeypatch.setattr(audit_log, "_BATCH", 1024)
    gate, insert_rows = Gate(), audit_log.insert_rows

    def insert(connection, table, rows, durable):
        if not durable:
            gate.came.set()
            assert gate.opened.wait(60)
            if gate.error:
                raise gate.error
        insert_rows(connection, table, rows, durable)

    monkeypatch.setattr(audit_log, "insert_rows", insert)
    return gate


class Gate:
    def __init__(self):
        self.came, self.opened, self.error = threading.Event(), threading.Event(), None


def test_a_session_goes_on_while_the_writer_writes_and_a_flush_waits_for_it(store, gate):
    log, entries = store.begin(), recorded(3000)
    for entry in entries[:4000]:
        log.append(entry)
    assert gate.came.wait(60)
    assert log.last_seq == 0 and store.entries() == []
    threading.Timer(0.05, gate.opened.set).start()
    for entry in entries[4000:]:
        log.append(entry)
    log.flush()
    assert store.entries() == entries
    log.close()
    assert store.flaws() == []


def test_a_writer_that_is_far_behind_is_waited_for(tmp_path, gate, monkeypatch):
    monkeypatch.setattr(audit_log, "_BACKLOG", 2048)
    store, threads = Store(sqlite_url(tmp_path / "session.sqlite"), "sqlite"), []
    log, entries = store.begin(), recorded(2000)

    def append_all():
        for entry in entries:
            log.append(entry)
            threads.append(entry.seq)

    session = threading.Thread(target=append_all)
    session.start()
    assert gate.came.wait(60)
    session.join(1)
    assert session.is_alive() and threads[-1] == 2175, "the entry that makes it too many waits"
    gate.opened.set()
    session.join(60)
    log.close()
    assert store.entries() == entries


def test_what_the_writer_could_not_write_stops_the_session_before_anything_leaves(store, gate):
    log, sent = store.begin(), []
    gate.error, spoken = OSError("no space left on device"), list(market(2400, 1))
    gate.opened.set()
    halts(log, sent, [*spoken, tick(2401)], "no space left on device. Nothing more is appended, nothing leaves")
    assert sent == [] and store.entries() == []
    again = store.again()
    assert again.last_seq == 0
    again.close()


def test_a_log_that_is_let_go_of_lets_the_writer_finish(store, gate):
    log, entries = store.begin(), recorded(600)
    for entry in entries:
        log.append(entry)
    assert gate.came.wait(60)
    threading.Timer(0.05, gate.opened.set).start()
    log.abandon()
    assert store.entries() == entries[:1151]
    assert store.flaws() == []
    store.again().close()


# blocks


def test_a_market_is_kept_in_blocks_and_what_is_ours_in_rows(store):
    entries = in_blocks()
    with store.begin() as log:
        for entry in entries:
            log.append_input(entry.seq, entry.message) if entry.cause_seq is None else log.append(entry)
    assert store.entries() == entries
    with store.reading() as (connection, session):
        rows = connection.execute(sa.select(audit_log.entries.c.seq, audit_log.entries.c.kind).where(
            audit_log.entries.c.session_no == session.session_no).order_by("seq")).all()  # fmt: skip
        ours = [(seq, kind) for seq, kind in rows if kind != "market"]
        assert ours == [
            (e.seq, type(e.message).__name__) for e in entries if type(e.message) in (TimerFired, SubmitOrder)
        ]
        assert max(seq for seq, _ in rows) == entries[-1].seq
        assert len(rows) < 10
        for number in (1, 2, 3, 4, 5, 130, 200, len(entries), len(entries) + 1):
            assert read_last(connection, session, number) == entries[-number:]
        for from_seq in (1, 2, 20, 21, 22, 23, 24, 100, 322, 326, 327):
            assert list(read_log(connection, session, from_seq)) == entries[from_seq - 1 :]
    assert store.flaws() == []


def test_a_market_that_did_not_come_from_outside_keeps_its_envelope(store):
    odd = [
        Entry(seq=seq, cause_seq=cause, source=source, message=message)
        for seq, (cause, source, message) in enumerate(
            zip((None, 1, None, None), ("input", "input", "Feed", "input"), market(4, 1), strict=True), 1
        )
    ]
    with store.begin() as log:
        for entry in odd:
            log.append(entry)
    assert store.entries() == odd
    assert store.flaws() == []


BLOCKS = [20, 256, 322, 327]  # where the blocks of `in_blocks` end


@pytest.fixture
def spoken(store, monkeypatch):
    monkeypatch.setattr(audit_rows, "_BLOCK", 128)
    with store.begin() as log:
        for entry in in_blocks():
            log.append(entry)
    with store.reading() as (connection, session):
        query = f"SELECT seq FROM entries WHERE kind = 'market' AND session_no = {session.session_no} ORDER BY seq"
        assert [*connection.exec_driver_sql(query).scalars()] == BLOCKS
    return store


@pytest.mark.parametrize("seq", [20, 256, 327])
@pytest.mark.parametrize("field", ["seq", "session_no", "ts_ns", "source", "cause_seq", "kind", "payload", "hash"])
def test_one_changed_byte_of_a_block_is_located(spoken, field, seq):
    change(spoken, "entries", field, seq, seed=(field, seq))
    assert spoken.flaws() == [(seq, field)]


def test_every_byte_of_a_block_counts_and_is_told(spoken):
    with spoken.reading() as (connection, session):
        query = f"SELECT payload FROM entries WHERE session_no = {session.session_no} AND seq = 256"
        payload = connection.exec_driver_sql(query).scalar_one()
    for at in [0, 1, 4, 5, 6, *range(100, len(payload) - 4, 997), *range(len(payload) - 4, len(payload))]:
        change(spoken, "entries", "payload", 256, seed=at)
        with spoken.reading() as (connection, _):
            (flaw,) = check_log(connection, spoken.session_id).flaws
        was, now = payload[at : at + 1], bytes((payload[at] ^ 1,))
        assert str(flaw) == f"row 256, payload: byte {at} is {now!r}, was {was!r}"
        if at:
            with pytest.raises(DataError, match="row 256 is no entry"):
                spoken.entries()
        change(spoken, "entries", "payload", 256, seed=at)
    assert spoken.flaws() == []


@pytest.mark.parametrize(
    "gone, flaw", [("= 256", (23, "row")), ("BETWEEN 256 AND 322", (23, "row")), ("> 322", (323, "row"))]
)
def test_blocks_that_are_gone_are_missed(spoken, gone, flaw):
    with spoken.unguarded() as connection:
        number = find_session(connection, spoken.session_id).session_no
        connection.exec_driver_sql(f"DELETE FROM entries WHERE session_no = {number} AND seq {gone}")
    assert spoken.flaws() == [flaw]


@pytest.mark.parametrize("place", [1, 23, 150, 5000])
def test_a_block_that_was_moved_is_found_where_it_is(spoken, place):
    with spoken.unguarded() as connection:
        number = find_session(connection, spoken.session_id).session_no
        connection.exec_driver_sql(f"UPDATE entries SET seq = {place} WHERE session_no = {number} AND seq = 256")
    assert spoken.flaws() == [(256, "seq")]


def test_a_session_from_before_the_blocks_is_read_checked_and_gone_on_with(store, monkeypatch):
    """A database of the first version: one step taken, a row of JSON for every entry."""
    entries, steps = in_blocks(), audit_database.MIGRATIONS
    with monkeypatch.context() as former:
        if store.kind == "sqlite":
            former.setattr(audit_database, "MIGRATIONS", steps[:1])
        former.setattr(audit_rows, "MARKET_KINDS", frozenset())
        log = store.begin()
        for entry in entries[:200]:
            log.append(entry)
        log.flush()
        log.abandon()
    assert store.flaws() == []
    assert store.entries() == entries[:200]
    log = store.again()
    assert log.last_seq == 200
    for entry in entries[200:]:
        log.append(entry)
    log.close()
    assert store.entries() == entries
    assert store.flaws() == []
    with store.reading() as (connection, _):
        assert connection.exec_driver_sql("SELECT count(*) FROM schema_steps").scalar_one() == 3
