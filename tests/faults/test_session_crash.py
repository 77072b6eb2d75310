"""A process that is killed at any moment of writing loses nothing that it had flushed, and its session goes on."""

import os
import random
import signal
from contextlib import contextmanager
from decimal import Decimal
from typing import NamedTuple

import pytest

from fundarb.apps.composition import RunSpec
from fundarb.apps.recovery import orders_that_never_left, orders_to_ask, restore
from fundarb.apps.session import write_spec
from fundarb.apps.session_log import begin_log, continue_log, database_of, opened_log, opened_record
from fundarb.config.settings import StorageSettings
from fundarb.core.engine import Engine, Entry, MemoryJournal, run
from fundarb.core.errors import DataError
from fundarb.core.events import FeedStale, OrderCanceled, OrderFilled, SubmitOrder, TimerFired
from fundarb.core.models import Liquidity
from fundarb.storage.audit_check import check_log

KILLS = 40  # of one session; raise it by hand for a longer drill
BLANK = {name: {} for name in ("parameters", "limits", "execution", "deposits_usd", "latency_ms", "origin")}


class Trader:
    """Send two orders at every third tick, and complain at every fill: a turn of several entries."""

    def __init__(self):
        self.ticks = 0

    def handlers(self):
        return {TimerFired: self.tick, OrderFilled: self.fill}

    def tick(self, event):
        self.ticks += 1
        if self.ticks % 3 == 0:
            yield self.stale(event, "book")
            for venue in ("okx", "binance"):
                yield SubmitOrder(
                    ts_init_ns=event.ts_init_ns,
                    client_order_id=f"{self.ticks}-{venue}",
                    venue=venue,
                    symbol="BTC",
                    qty_base=Decimal("0.3"),
                    limit_price=Decimal(1),
                    reduce_only=False,
                )

    def fill(self, event):
        yield self.stale(event, f"fill {self.ticks}")

    def stale(self, event, stream):
        return FeedStale(ts_init_ns=event.ts_init_ns, venue="okx", symbol="BTC", stream=stream, age_s=1.0, limit_s=1.0)


class Core(NamedTuple):
    services: list


def build(spec):
    return Core([Trader()])


def fill(now_ns, order_id, trade_id, qty):
    return OrderFilled(
        ts_init_ns=now_ns,
        client_order_id=order_id,
        venue="okx",
        symbol="BTC",
        trade_id=trade_id,
        qty_base=Decimal(qty),
        price=Decimal(1),
        fee=Decimal(0),
        liquidity=Liquidity.TAKER,
        ts_event_ns=now_ns,
    )


def ticks(number, start=1):
    return [TimerFired(ts_init_ns=start + n, name="decision") for n in range(number)]


@pytest.fixture(params=["sqlite", "postgres"])
def session(request, tmp_path):
    """A session's folder with its recipe, and where its log is to be kept."""
    url = "sqlite"
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        url = server.replace("postgres:@", "postgres@")
    name = f"crash-{tmp_path.name}-{random.randrange(10**9)}"
    names = {"kind": "demo", "session_id": name, "code_version": "1", "parameters_digest": "", "strategy": ""}
    write_spec(tmp_path, RunSpec(**BLANK, **names, instruments=[]))
    return tmp_path, StorageSettings(url=url)


def entries_of(session):
    with opened_record(str(session[0]), session[1]) as record:
        return list(record.entries)


def verdict_of(session):
    with opened_log(str(session[0]), session[1]) as (connection, row):
        return check_log(connection, row.session_id)


@contextmanager
def child(work):
    """Fork a process that works and reports through a pipe; yield its id and the pipe's end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            work(writer)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        yield pid, pipe
    os.waitpid(pid, 0)


def append_for_ever(session, chance):
    """Append and flush at seeded moments, and tell the last flushed number."""

    def work(pipe):
        log = continue_log(*session)
        seq = log.last_seq
        while True:
            for _ in range(chance.randrange(1, 40)):
                seq += 1
                message = TimerFired(ts_init_ns=seq, name="x" * chance.randrange(400))
                log.append(Entry(seq=seq, cause_seq=None, source="input", message=message))
            log.flush()
            os.write(pipe, b"%d\n" % seq)

    return work


def test_nothing_that_was_flushed_is_lost_when_the_process_is_killed(session):
    """SIGKILL at seeded moments, again and again, of one session that always goes on."""
    begin_log(*session).close()
    chance, flushed = random.Random(3), 0
    for _ in range(KILLS):
        with child(append_for_ever(session, chance)) as (pid, pipe):
            for _ in range(chance.randrange(1, 6)):
                flushed = int(pipe.readline())
            os.kill(pid, signal.SIGKILL)
            told = pipe.read().splitlines()
            flushed = int(told[-1]) if told else flushed
        verdict = verdict_of(session)
        assert verdict.flaws == ()
        assert flushed <= verdict.last_seq <= flushed + 40
        chance.random()
    assert [entry.seq for entry in entries_of(session)] == list(range(1, verdict.last_seq + 1))


def trade_until_killed(session, inputs):
    """Trade with the real engine, restored first, and tell each order that leaves."""

    def work(pipe):
        restored = restore(*session, build=build)
        os.write(pipe, b"restored %d\n" % restored.completed)
        engine = Engine(restored.core.services, restored.log, restored.log.last_seq)
        for event in inputs(restored):
            for command in engine.turn(event):
                os.write(pipe, b"sent %s\n" % command.client_order_id.encode())

    return work


def test_an_order_that_left_is_in_the_log_and_none_leaves_twice(session):
    """The trader is killed at seeded moments, its restart included, and started again with the same words."""
    begin_log(*session).close()
    chance, sent = random.Random(5), []
    for _ in range(KILLS // 2):
        inputs = lambda restored: ticks(10**6, restored.last_ns + 1)  # noqa: E731
        with child(trade_until_killed(session, inputs)) as (pid, pipe):
            for _ in range(chance.randrange(0, 8)):
                line = pipe.readline()
                if line.startswith(b"sent"):
                    sent.append(line.split()[1].decode())
            os.kill(pid, signal.SIGKILL)
            sent += [line.split()[1].decode() for line in pipe.read().splitlines() if line.startswith(b"sent")]
    assert len(sent) == len(set(sent)) > 0
    restored = restore(*session, build=build)
    restored.log.close()
    ours = [entry.message.client_order_id for entry in entries_of(session) if type(entry.message) is SubmitOrder]
    assert set(sent) <= set(ours)
    assert len(ours) == len(set(ours))
    may_have_left = {ask.client_order_id for ask in orders_to_ask(restored, 1)}
    assert set(sent) <= may_have_left, "no order that left is forgotten"
    whole = MemoryJournal()
    run(Engine([Trader()], whole), ticks(len([e for e in entries_of(session) if e.cause_seq is None])), lambda c: None)
    assert [type(e.message) for e in entries_of(session)] == [type(e.message) for e in whole.entries]


def recorded():
    inputs = ticks(7)
    inputs[4:4] = [fill(100, "3-okx", "t1", "0.1"), fill(101, "3-okx", "t1", "0.1"), fill(102, "3-okx", "t2", "0.2")]
    canceled = {"ts_init_ns": 103, "client_order_id": "6-okx", "venue": "okx", "symbol": "BTC", "reason": ""}
    inputs += [OrderCanceled(**canceled), fill(104, "6-binance", "t3", "0.1")]
    journal = MemoryJournal()
    run(Engine([Trader()], journal), inputs, lambda command: None)
    return inputs, journal.entries


CUTS = range(len(recorded()[1]) + 1)


@pytest.mark.parametrize("cut", CUTS)
def test_a_log_that_ends_anywhere_goes_on_to_the_same_end(session, cut):
    """Cut the log after any entry: the torn turn is completed, and the rest comes out as it would have."""
    inputs, whole = recorded()
    log = begin_log(*session)
    for entry in whole[:cut]:
        log.append(entry)
    log.flush()
    log.abandon()
    restored = restore(*session, build=build)
    assert restored.log.last_seq == cut + restored.completed
    assert restored.completed == next((n for n, e in enumerate(whole[cut:]) if e.cause_seq is None), len(whole) - cut)
    never_left = {report.client_order_id for report in orders_that_never_left(restored, 1)}
    asked = {ask.client_order_id for ask in orders_to_ask(restored, 1)}
    turn = max((e.seq for e in whole[: cut + 1] if e.cause_seq is None and e.seq <= cut), default=0)
    torn = {e.message.client_order_id for e in whole[turn : cut + restored.completed] if type(e.message) is SubmitOrder}
    assert never_left == (torn if restored.completed else set())
    assert not never_left & asked
    engine = Engine(restored.core.services, restored.log, restored.log.last_seq)
    for event in inputs[sum(e.cause_seq is None for e in whole[: restored.log.last_seq]) :]:
        engine.turn(event)
    restored.log.close()
    assert entries_of(session) == whole
    assert verdict_of(session).flaws == ()


def test_orders_have_a_last_word_or_are_asked_for(session):
    inputs, whole = recorded()
    with begin_log(*session) as log:
        for entry in whole:
            log.append(entry)
    restored = restore(*session, build=build)
    restored.log.abandon()
    known = {order.order.client_order_id: order.heard for order in restored.open_orders}
    assert known == {"3-binance": False, "6-binance": True}, "all of 3-okx filled, counted once; 6-okx canceled"


def test_a_log_that_was_changed_is_not_gone_on_with(tmp_path):
    names = {"kind": "demo", "session_id": "changed", "code_version": "1", "parameters_digest": "", "strategy": ""}
    write_spec(tmp_path, RunSpec(**BLANK, **names, instruments=[]))
    session = tmp_path, StorageSettings()
    with begin_log(*session) as log:
        for entry in recorded()[1]:
            log.append(entry)
    database = database_of(*session)
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER entries_no_update")
        connection.exec_driver_sql("UPDATE entries SET ts_ns = ts_ns + 1 WHERE seq = 4")
    database.dispose()
    with pytest.raises(DataError, match="(?s)the audit log was changed. Nothing was started.*row 4, ts_ns"):
        restore(*session, build=build)
    continue_log(*session).abandon()  # and the claim was given back
