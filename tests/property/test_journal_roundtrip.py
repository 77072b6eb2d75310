"""Any message of the vocabulary, any journal: it reads back equal, or the reader says where not."""

import gzip
from decimal import Decimal
from itertools import count
from typing import get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.core.engine import Entry
from fundarb.core.errors import DataError
from fundarb.core.events import VOCABULARY, Command
from fundarb.core.funding import FundingKind, FundingRate
from fundarb.core.models import BreakKind, KillLevel, Level, Liquidity, PlanCost, VenuePosition
from fundarb.core.numbers import HOUR_NS
from fundarb.storage.audit_check import check_log
from fundarb.storage.audit_log import new_log, read_log
from fundarb.storage.database import open_database, postgres_url, sqlite_url
from fundarb.storage.journal_file import FileJournal, read_journal

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
DECIMAL = st.decimals(allow_nan=False, allow_infinity=False)
RATE = st.builds(
    FundingRate,
    venue=st.text(),
    symbol=st.text(),
    kind=st.sampled_from(FundingKind),
    rate=DECIMAL,
    interval_h=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]),
    settlement_time_ns=st.integers(0, 500_000).map(lambda hour: hour * HOUR_NS),
    ts_init_ns=st.integers(500_001 * HOUR_NS, 2**63 - 1),
)
POSITIONS = st.lists(st.builds(VenuePosition, st.text(), DECIMAL, DECIMAL), max_size=3).map(tuple)
COSTS = st.lists(st.builds(PlanCost, st.text(), st.none() | FLOAT), max_size=3).map(tuple)
LEVELS = st.lists(st.builds(Level, FLOAT, FLOAT), max_size=3).map(tuple)
BY_TYPE = {
    int: INT64,
    float: FLOAT,
    str: st.text(),
    bool: st.booleans(),
    Decimal: DECIMAL,
    Decimal | None: st.none() | DECIMAL,
    float | None: st.none() | FLOAT,
    Liquidity: st.sampled_from(Liquidity),
    KillLevel: st.sampled_from(KillLevel),
    BreakKind: st.sampled_from(BreakKind),
    tuple[PlanCost, ...]: COSTS,
    FundingRate: RATE,
    tuple[Level, ...]: LEVELS,
    tuple[VenuePosition, ...]: POSITIONS,
    tuple[str, ...]: st.lists(st.text(), max_size=3).map(tuple),
}


def messages(kind):
    """Build any message of a kind, from the types of its fields."""
    return st.builds(kind, **{name: BY_TYPE[hint] for name, hint in get_type_hints(kind).items()})


any_message = st.one_of([messages(kind) for kind in VOCABULARY])
names = st.sampled_from(["journal.jsonl", "journal.jsonl.gz"])
lists = st.lists(st.tuples(any_message, st.none() | st.integers(1), st.text()), min_size=1, max_size=5)
journals = st.tuples(lists, st.integers(1)).map(
    lambda drawn: [
        Entry(seq=seq, cause_seq=cause_seq, source=source, message=message)
        for seq, (message, cause_seq, source) in zip(count(drawn[1]), drawn[0])
    ]
)
few = settings(max_examples=30, deadline=None)
numbers = count()


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """One folder for all examples: hypothesis would not ask for a new one."""
    fresh.folder = tmp_path_factory.mktemp("journals")


def fresh(name):
    """Name a file that does not exist yet."""
    return fresh.folder / f"{next(numbers)}-{name}"


def written(name, entries, flush_at=()):
    """Write a journal to a new file, flushing after some of the entries."""
    path = fresh(name)
    with FileJournal(path) as journal:
        for at, entry in enumerate(entries):
            journal.append(entry)
            if at in flush_at:
                journal.flush()
    return path


@pytest.mark.parametrize("kind", VOCABULARY, ids=lambda kind: kind.__name__)
def test_every_message_of_the_vocabulary_reads_back_equal(kind):
    @settings(max_examples=10, deadline=None)
    @given(messages(kind), names)
    def reads_back(message, name):
        entry = Entry(seq=1, cause_seq=None, source="input", message=message)
        (back,) = read_journal(written(name, [entry]))
        assert back == entry
        assert type(back.message) is kind
        assert repr(back) == repr(entry), "equal to the last digit, not only in value"

    reads_back()


@few
@given(journals, names, st.sets(st.integers(0, 4)))
def test_a_journal_reads_back_equal_wherever_it_was_flushed(entries, name, flush_at):
    path = written(name, entries, flush_at)
    assert list(read_journal(path)) == entries
    unzipped = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert unzipped.count(b"\n") == len(entries)


@few
@given(journals, names, st.sets(st.integers(0, 4)))
def test_the_same_journal_is_the_same_bytes(entries, name, flush_at):
    first, second = written(name, entries, flush_at), written(name, entries, flush_at)
    assert first.read_bytes() == second.read_bytes()
    assert written("journal.jsonl", entries).read_bytes() == written("other.jsonl", entries, {0}).read_bytes()


@few
@given(journals, names, st.data())
def test_a_file_cut_anywhere_gives_its_whole_lines_and_says_that_it_is_torn(entries, name, data):
    path = written(name, entries)
    whole = path.read_bytes()
    kept = whole[: data.draw(st.integers(0, len(whole) - 1))]
    path.write_bytes(kept)
    left = list(read_journal(path, allow_torn_tail=True))
    assert left == entries[: len(left)]
    is_torn = path.suffix == ".gz" or not kept.endswith(b"\n") and kept != b""
    if path.suffix != ".gz":
        assert len(left) == kept.count(b"\n")
    if is_torn:
        with pytest.raises(DataError, match=f"line {len(left) + 1} is torn"):
            list(read_journal(path))
    else:
        assert list(read_journal(path)) == left


@few
@given(journals, names, st.booleans(), st.data())
def test_a_changed_byte_is_a_data_error_or_another_valid_journal(entries, name, allow_torn_tail, data):
    path = written(name, entries)
    whole = bytearray(path.read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        back = list(read_journal(path, allow_torn_tail))
    except DataError as error:
        assert str(path) in str(error)
        assert "line " in str(error)
    else:
        if path.suffix == ".gz":  # it carries a checksum
            assert back == entries[: len(back)]
        assert all(isinstance(entry, Entry) for entry in back)


@few
@given(journals, st.data())
def test_a_line_that_is_gone_or_twice_is_named(entries, data):
    path = written("journal.jsonl", entries)
    lines = path.read_bytes().splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    path.write_bytes(b"".join([*lines[: at + 1], *lines[at:]]))
    with pytest.raises(DataError, match=f"line {at + 2} holds #{entries[at].seq}, after #{entries[at].seq}"):
        list(read_journal(path))
    if 0 < at < len(lines) - 1:
        path.write_bytes(b"".join([*lines[:at], *lines[at + 1 :]]))
        with pytest.raises(DataError, match=f"line {at + 1} holds #{entries[at + 1].seq}"):
            list(read_journal(path))


FLOATING = [kind for kind in VOCABULARY if {float, tuple[Level, ...]} & set(get_type_hints(kind).values())]


@few
@given(st.sampled_from(FLOATING).flatmap(messages), names, st.data())
def test_what_json_cannot_say_is_refused_when_it_is_written(message, name, data):
    hints = {k: v for k, v in get_type_hints(type(message)).items() if v in (float, tuple[Level, ...])}
    field, hint = data.draw(st.sampled_from(sorted(hints.items(), key=str)))
    bad = data.draw(st.sampled_from([float("nan"), float("inf"), float("-inf")]))
    values = {name: getattr(message, name) for name in message.__struct_fields__}
    values[field] = bad if hint is float else (Level(1.0, bad),)
    cause_seq = 1 if isinstance(message, Command) else data.draw(st.none() | st.just(1))
    entry = Entry(seq=2, cause_seq=cause_seq, source="x", message=type(message)(**values))
    journal = FileJournal(fresh(name))
    journal.append(entry)
    with pytest.raises(DataError, match="(?s)^#2 x.* would not read back from JSON: NaN or infinite"):
        journal.flush()
    journal.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request):
    """Name a place for a new audit log at every call."""
    if request.param == "sqlite":
        return lambda: sqlite_url(fresh("session.sqlite"))
    url = postgres_url(request.getfixturevalue("postgres"))
    return lambda: url


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=journals, recipe=st.binary(max_size=50), flush_at=st.sets(st.integers(0, 4)))
def test_any_entries_read_back_equal_from_an_audit_log(place, entries, recipe, flush_at):
    entries = [
        replace(entry, seq=seq, cause_seq=entry.cause_seq and min(entry.cause_seq, 2**63 - 1))
        for seq, entry in enumerate(entries, 1)
    ]
    url = place()
    with new_log(open_database(url), f"s{next(numbers)}", recipe) as log:
        for at, entry in enumerate(entries):
            log.append(entry)
            if at in flush_at:
                log.flush()
    database = open_database(url, read_only=True)
    with database.connect() as connection:
        back = list(read_log(connection, log.session))
        assert check_log(connection, log.session.session_id).flaws == ()
    database.dispose()
    assert back == entries
    assert [repr(entry) for entry in back] == [repr(entry) for entry in entries]
