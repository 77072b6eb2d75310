"""Any services, any inputs: the order has no gap, nothing leaves unwritten, and a replay tells."""

from decimal import ROUND_UP, localcontext
from decimal import Decimal as D

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundarb.core.engine import Divergence, Engine, EngineHalted, Entry, MemoryJournal
from fundarb.core.engine import dispatch_table, inputs_of, replay, run
from fundarb.core.errors import Halted, InputError
from fundarb.core.events import CancelOrder, Command, Event, FeedStale, MarkPriceUpdated
from fundarb.core.events import OrderCanceled, SessionEnding, TargetPosition, TimerFired

INPUTS = (MarkPriceUpdated, TimerFired)
SAID = (TargetPosition, OrderCanceled, FeedStale, SessionEnding)  # each may cause those after it
LEVELS = (*INPUTS, *SAID, CancelOrder)


def build(kind, now_ns, number):
    """Make a message that carries a number, so that two of them can differ."""
    where = {"ts_init_ns": now_ns, "venue": "okx", "symbol": "BTC"}
    pair = {"pair_id": "BTC", "long_venue": "okx", "short_venue": "binance", "notional_usd": D(number)}
    fields = {
        MarkPriceUpdated: {**where, "mark_price": float(number), "oracle_price": 1.0},
        TimerFired: {"ts_init_ns": now_ns, "name": str(number)},
        TargetPosition: {"ts_init_ns": now_ns, **pair, "reason": ""},
        OrderCanceled: {**where, "client_order_id": "", "reason": str(number)},
        FeedStale: {**where, "stream": "book", "age_s": float(number), "limit_s": 1.0},
        SessionEnding: {"ts_init_ns": now_ns, "reason": str(number)},
        CancelOrder: {**where, "client_order_id": str(number)},
    }
    return kind(**fields[kind])


class Ruled:
    """Say some kinds at every nth hearing of another, with a running number as its only state."""

    def __init__(self, rules, talk=None):
        self.rules = rules  # heard kind -> (every, said kinds)
        self.heard = 0
        self.talk = talk

    def handlers(self):
        return {kind: self.hear for kind in self.rules}

    def hear(self, event):
        self.heard += 1
        if self.talk is not None:
            self.talk.append(("hear", self, event))
        every, kinds = self.rules[type(event)]
        if self.heard % every:
            return ()
        messages = [build(kind, event.ts_init_ns, self.heard) for kind in kinds]
        if self.talk is not None:
            self.talk += [("say", message) for message in messages]
        return (message for message in messages)


class TalkingJournal(MemoryJournal):
    def __init__(self, talk):
        super().__init__()
        self.talk = talk

    def append(self, entry):
        super().append(entry)
        self.talk.append(("write", entry))

    def flush(self):
        self.talk.append(("flush",))


def rule(kind):
    later = [k for k in LEVELS[LEVELS.index(kind) + 1 :] if k not in INPUTS]
    return st.tuples(st.integers(1, 3), st.lists(st.sampled_from(later), min_size=1, max_size=2))


rules_of_a_service = st.fixed_dictionaries({}, optional={kind: rule(kind) for kind in LEVELS[:-1]})
graphs = st.lists(rules_of_a_service, min_size=1, max_size=4)
feeds = st.lists(st.tuples(st.sampled_from(INPUTS), st.integers(0, 9)), min_size=1, max_size=8).map(
    lambda drawn: [build(kind, now_ns, number) for now_ns, (kind, number) in enumerate(drawn, 1)]
)


def for_any(*strategies):
    return lambda test: settings(max_examples=60, deadline=None)(given(*strategies)(test))


def session(graph, feed):
    """Run a session; return its services, its journal, all that was heard, written and sent."""
    talk = []
    services = [Ruled(rules, talk) for rules in graph]
    journal = TalkingJournal(talk)
    run(Engine(services, journal), feed, lambda command: talk.append(("send", command)))
    return services, journal.entries, talk


def fresh(graph):
    return [Ruled(rules) for rules in graph]


@for_any(graphs, feeds)
def test_order_has_no_gap_and_cause_comes_before_effect(graph, feed):
    services, entries, _ = session(graph, feed)
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert list(inputs_of(entries)) == feed
    for entry in entries:
        if entry.cause_seq is None:
            assert entry.source == "input"
        else:
            cause = entries[entry.cause_seq - 1]
            assert cause.seq < entry.seq
            assert isinstance(cause.message, Event)
            assert entry.source == "Ruled"
            assert any(type(entry.message) in rules.get(type(cause.message), (1, ()))[1] for rules in graph)
    causes = [e.cause_seq or e.seq for e in entries]
    assert causes == sorted(causes), "first in, first out: causes are heard in the order of the journal"


@for_any(graphs, feeds)
def test_each_event_is_heard_once_by_those_who_listed_it_in_service_order(graph, feed):
    services, entries, talk = session(graph, feed)
    heard = [(event, service) for what, *rest in talk if what == "hear" for service, event in [rest]]
    expected = [
        (entry.message, service) for entry in entries for service in services if type(entry.message) in service.rules
    ]
    assert [(id(event), id(service)) for event, service in heard] == [
        (id(event), id(service)) for event, service in expected
    ]


@for_any(graphs, feeds)
def test_all_that_is_said_is_written_in_the_order_in_which_it_was_said(graph, feed):
    _, entries, talk = session(graph, feed)
    said = [rest[0] for what, *rest in talk if what == "say"]
    assert [id(entry.message) for entry in entries if entry.cause_seq] == [id(message) for message in said]


@for_any(graphs, feeds)
def test_nothing_is_heard_unwritten_and_nothing_leaves_unflushed(graph, feed):
    _, entries, talk = session(graph, feed)
    written, durable, sent = set(), set(), []
    for what, *rest in talk:
        if what == "write":
            written.add(id(rest[0].message))
        elif what == "flush":
            durable |= written
        elif what == "hear":
            assert id(rest[1]) in written
            assert not isinstance(rest[1], Command)
        elif what == "send":
            assert id(rest[0]) in durable
            sent.append(rest[0])
    assert sent == [entry.message for entry in entries if isinstance(entry.message, Command)]


@for_any(graphs, feeds)
def test_a_turn_flushes_once_if_it_commands_and_never_otherwise(graph, feed):
    talk = []
    engine = Engine(fresh(graph), TalkingJournal(talk))
    for event in feed:
        del talk[:]
        commands = engine.turn(event)
        assert isinstance(commands, tuple)
        assert talk.count(("flush",)) == bool(commands)


@for_any(graphs, feeds)
def test_replay_of_its_own_journal_finds_nothing(graph, feed):
    _, entries, _ = session(graph, feed)
    assert replay(iter(entries), fresh(graph)) is None


@for_any(graphs, feeds, st.data())
def test_replay_finds_any_single_entry_that_was_changed(graph, feed, data):
    _, entries, _ = session(graph, feed)
    at = data.draw(st.integers(0, len(entries) - 1))
    was = entries[at]
    changes = [
        {"seq": was.seq + 1},
        {"cause_seq": (was.cause_seq or 0) + 1},
        {"source": was.source + "?"},
    ]
    if was.cause_seq is not None:  # an input is taken as it is: see the next test
        changes.append({"message": build(type(was.message), was.message.ts_init_ns, 999)})
        changes.append({"cause_seq": None})
    changed = msgspec.structs.replace(was, **data.draw(st.sampled_from(changes)))
    divergence = replay([*entries[:at], changed, *entries[at + 1 :]], fresh(graph))
    assert divergence is not None
    assert divergence.recorded == changed
    assert divergence.replayed in (was, None)


@for_any(graphs, feeds, st.data())
def test_replay_finds_a_changed_input_where_anything_followed_from_it(graph, feed, data):
    """Every service counts what it hears, so another kind of input changes what is said."""
    _, entries, _ = session(graph, feed)
    inputs = [entry.seq - 1 for entry in entries if entry.cause_seq is None]
    at = data.draw(st.sampled_from(inputs))
    was = entries[at]
    other = INPUTS[1 - INPUTS.index(type(was.message))]
    changed = [*entries[:at], msgspec.structs.replace(was, message=build(other, 0, 0)), *entries[at + 1 :]]
    _, honest, _ = session(graph, list(inputs_of(changed)))
    assert (replay(changed, fresh(graph)) is None) == (honest == changed)


@for_any(graphs, feeds, st.data())
def test_replay_finds_any_single_entry_that_is_gone(graph, feed, data):
    _, entries, _ = session(graph, feed)
    at = data.draw(st.integers(0, len(entries) - 1))
    divergence = replay([*entries[:at], *entries[at + 1 :]], fresh(graph))
    if at == len(entries) - 1 and entries[at].cause_seq is None:
        assert divergence is None  # the last turn was one entry: what is left is a shorter session
    elif at == len(entries) - 1:
        assert (divergence.recorded, divergence.replayed) == (None, entries[at])
    else:
        assert divergence.recorded == entries[at + 1]


@for_any(graphs, feeds, st.data())
def test_a_journal_cut_short_replays_unless_the_cut_is_within_a_turn(graph, feed, data):
    _, entries, _ = session(graph, feed)
    at = data.draw(st.integers(0, len(entries)))
    divergence = replay(iter(entries[:at]), fresh(graph))
    if at == len(entries) or entries[at].cause_seq is None:
        assert divergence is None
    else:
        assert (divergence.recorded, divergence.replayed) == (None, entries[at])


@for_any(graphs, feeds, st.integers(0, 30), st.sampled_from(["append", "flush", "hear"]))
def test_after_any_failure_no_command_of_the_turn_leaves_and_no_other_turn_begins(graph, feed, after, where):
    calls, sent = iter(range(after)), []

    class Failing(MemoryJournal):
        def append(self, entry):
            fail_at("append")
            super().append(entry)

        def flush(self):
            fail_at("flush")

    class FailingService(Ruled):
        def hear(self, event):
            fail_at("hear")
            return super().hear(event)

    def fail_at(step):
        if step == where and next(calls, None) is None:
            raise OSError("no space left on device")

    journal = Failing()
    engine = Engine([FailingService(rules) for rules in graph], journal)
    try:
        run(engine, feed, sent.append)
    except OSError:
        turn_ends = [e.seq for e in journal.entries if e.cause_seq is None]
        before = journal.entries[: turn_ends[-1] - 1] if turn_ends and where != "append" else None
        if before is not None:
            assert sent == [e.message for e in before if isinstance(e.message, Command)]
        assert all(any(command is e.message for e in journal.entries) for command in sent)
        count = len(journal.entries)
        with pytest.raises(EngineHalted, match=r"turn open at #\d+: rebuild from the journal"):
            engine.turn(build(TimerFired, 0, 0))
        assert len(journal.entries) == count


def test_a_turn_within_a_turn_is_refused():
    """A service that got hold of the engine cannot break the order with it."""

    class Meddler:
        def handlers(self):
            return {TimerFired: lambda event: engine.turn(event)}

    journal = MemoryJournal()
    engine = Engine([Meddler()], journal)
    with pytest.raises(EngineHalted):
        engine.turn(build(TimerFired, 0, 0))
    assert len(journal.entries) == 1


def test_a_generator_without_end_is_stopped_while_it_speaks():
    class Babbler:
        def handlers(self):
            return {TimerFired: self.hear}

        def hear(self, event):
            while True:
                yield build(CancelOrder, event.ts_init_ns, 1)

    journal = MemoryJournal()
    with pytest.raises(Halted, match="over 10000 messages in one turn, the last #10002 Babbler on #1: CancelOrder"):
        Engine([Babbler()], journal).turn(build(TimerFired, 0, 0))
    assert len(journal.entries) == 10_002


def test_the_limit_is_per_turn_and_ten_thousand_are_allowed():
    class Loud:
        def handlers(self):
            return {TimerFired: lambda event: [build(FeedStale, 0, n) for n in range(10_000)]}

    engine = Engine([Loud()], MemoryJournal())
    for _ in range(2):
        assert engine.turn(build(TimerFired, 0, 0)) == ()


@pytest.mark.parametrize("kind", [CancelOrder, Event, Command, object, str, "TimerFired", None])
def test_only_events_of_the_vocabulary_can_be_listed(kind):
    class Service:
        def handlers(self):
            return {kind: print}

    with pytest.raises(InputError, match="Service wants to hear .*, which is no event of core.events"):
        dispatch_table([Service()])


@pytest.mark.parametrize("said", [None, "buy", 1, Event(ts_init_ns=1), Command(ts_init_ns=1), TimerFired])
def test_what_is_not_in_the_vocabulary_is_never_journaled(said):
    class Service:
        def handlers(self):
            return {TimerFired: lambda event: [said]}

    journal = MemoryJournal()
    engine = Engine([Service()], journal)
    with pytest.raises(InputError):
        engine.turn(said)
    assert journal.entries == []
    with pytest.raises(EngineHalted, match="Service on #1 said .*: unknown message"):
        engine.turn(build(TimerFired, 0, 0))
    assert len(journal.entries) == 1


def test_handlers_are_asked_for_once():
    class Fickle:
        asked = 0

        def handlers(self):
            self.asked += 1
            return {TimerFired: lambda event: ()}

    service = Fickle()
    engine = Engine([service], MemoryJournal())
    for _ in range(3):
        engine.turn(build(TimerFired, 0, 0))
    assert service.asked == 1


def test_replay_reads_the_record_once_and_keeps_one_turn():
    """The record may be a generator over a file: replay must not run ahead of it."""
    _, entries, _ = session([{TimerFired: (1, [FeedStale])}], [build(TimerFired, n, n) for n in range(50)])
    read = 0

    def recorded():
        nonlocal read
        for entry in entries:
            read += 1
            yield entry

    class Watching(Ruled):
        def hear(self, event):
            assert read == 2 * self.heard + 1, "an input is replayed when it is read, not before"
            return super().hear(event)

    Watching.__name__ = "Ruled"  # under which it was recorded
    assert replay(recorded(), [Watching({TimerFired: (1, [FeedStale])})]) is None
    assert read == 100


def test_a_command_that_nobody_said_is_no_input():
    """Only a changed record can hold one: it is found, and not taken for something to hear."""
    entry = Entry(seq=1, cause_seq=None, source="input", message=build(CancelOrder, 0, 1))
    assert list(inputs_of([entry])) == []
    assert replay([entry], []) == Divergence(recorded=entry, replayed=None)


def test_a_turn_has_its_own_arithmetic_whatever_a_library_has_set():
    class Halves:
        def __init__(self):
            self.found = []

        def handlers(self):
            return {TimerFired: lambda event: self.found.append(D(2) / D(3)) or ()}

    services, tick = Halves(), TimerFired(ts_init_ns=1, name="tick")
    engine = Engine([services], MemoryJournal())
    engine.turn(tick)
    with localcontext() as context:
        context.prec, context.rounding = 6, ROUND_UP
        engine.turn(tick)
        assert D(2) / D(3) == D("0.666667")
    assert services.found == [D("0.6666666666666666666666666667")] * 2
