"""What the journal file promises when the disk, the process or the caller does not play along."""

import gzip
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from fundarb.core.engine import Engine, EngineHalted, Entry, MemoryJournal, replay, run
from fundarb.core.errors import DataError, Halted, InputError
from fundarb.core.events import CancelOrder, FundingRealised, TimerFired
from fundarb.core.funding import FundingKind, FundingRate
from fundarb.storage import journal_file
from fundarb.storage.journal_file import FileJournal, read_journal

NAMES = ["journal.jsonl", "journal.jsonl.gz"]
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


def tick(seq, cause_seq=None, name="decision"):
    return Entry(seq=seq, cause_seq=cause_seq, source="input", message=TimerFired(ts_init_ns=seq, name=name))


@pytest.fixture(params=NAMES)
def path(request, tmp_path):
    return tmp_path / request.param


class Canceller:
    """Cancel something at every tick, so that every turn needs a flush."""

    def handlers(self):
        return {TimerFired: self.hear}

    def hear(self, event):
        return (CancelOrder(ts_init_ns=event.ts_init_ns, client_order_id="a", venue="okx", symbol="BTC"),)


@pytest.mark.parametrize("number", [0, 1, 255, 256, 257, 512, 1000])
def test_nothing_is_lost_at_the_edge_of_a_batch(path, number):
    entries = [tick(seq) for seq in range(1, number + 1)]
    with FileJournal(path) as journal:
        for entry in entries:
            journal.append(entry)
    assert list(read_journal(path)) == entries


def test_append_writes_in_batches(tmp_path):
    """Between two flushes a crash loses less than a batch of what was appended."""
    journal = FileJournal(tmp_path / "journal.jsonl")
    for seq in range(1, 2001):
        journal.append(tick(seq))
    assert 2000 - len(list(read_journal(tmp_path / "journal.jsonl", allow_torn_tail=True))) < 2 * 256
    journal.close()


def test_flush_makes_the_data_durable_and_the_folder_knows_the_name(tmp_path, monkeypatch):
    folders, synced = [], []
    monkeypatch.setattr(journal_file, "_sync", lambda fd: synced.append(os.fstat(fd).st_size))
    monkeypatch.setattr(os, "fsync", lambda fd: folders.append(os.fstat(fd)))
    path = tmp_path / "journal.jsonl"
    journal = FileJournal(path)
    assert [os.path.samestat(folder, tmp_path.stat()) for folder in folders] == [True]
    journal.append(tick(1))
    journal.flush()
    assert synced == [path.stat().st_size]
    assert synced[0] > 0
    journal.append(tick(2))
    journal.close()
    assert synced[1:] == [path.stat().st_size]


def test_a_gz_is_synced_once_when_it_is_complete(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(journal_file, "_sync", lambda fd: synced.append(os.fstat(fd).st_size))
    path = tmp_path / "journal.jsonl.gz"
    journal = FileJournal(path)
    for seq in range(1, 4):
        journal.append(tick(seq))
        journal.flush()
    assert synced == []
    journal.close()
    assert synced == [path.stat().st_size]


def test_a_gz_holds_neither_its_name_nor_the_time(tmp_path):
    path = tmp_path / "secret-name.jsonl.gz"
    with FileJournal(path) as journal:
        journal.append(tick(1))
    header = path.read_bytes()[:10]
    assert header[3] == 0, "no flags: no file name"
    assert header[4:8] == b"\0\0\0\0", "no time"


def test_a_file_that_holds_anything_is_refused_and_left_as_it_was(path):
    path.write_bytes(b"the record of yesterday")
    with pytest.raises(InputError, match=r"holds 23 bytes: a journal is written once. Name a new one."):
        FileJournal(path)
    assert path.read_bytes() == b"the record of yesterday"


def test_an_empty_file_is_taken(path):
    path.touch()
    with FileJournal(path) as journal:
        journal.append(tick(1))
    assert list(read_journal(path)) == [tick(1)]


def test_a_path_may_be_text(path):
    with FileJournal(str(path)) as journal:
        journal.append(tick(1))
    assert list(read_journal(str(path))) == [tick(1)]


def test_a_folder_that_does_not_exist_is_the_callers_mistake(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileJournal(tmp_path / "nowhere" / "journal.jsonl")
    with pytest.raises(FileNotFoundError):
        list(read_journal(tmp_path / "nowhere.jsonl"))


def test_after_close_everything_but_close_is_refused(path):
    journal = FileJournal(path)
    journal.append(tick(1))
    journal.close()
    whole = path.read_bytes()
    journal.close()
    for refused in (lambda: journal.append(tick(2)), journal.flush):
        with pytest.raises(Halted, match="is closed: nothing is appended"):
            refused()
    assert path.read_bytes() == whole


def test_an_exception_in_the_session_still_closes_the_file(path):
    with pytest.raises(ZeroDivisionError), FileJournal(path) as journal:
        journal.append(tick(1))
        raise ZeroDivisionError
    assert list(read_journal(path)) == [tick(1)]


@needs_dev_full
def test_a_full_disk_halts_the_engine_before_anything_leaves(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.symlink_to("/dev/full")
    sent, journal = [], FileJournal(path)
    engine = Engine([Canceller()], journal)
    with pytest.raises(OSError, match="No space left on device"):
        run(engine, [tick(1).message], sent.append)
    assert sent == []
    with pytest.raises(EngineHalted):
        engine.turn(tick(2).message)
    for refused in (lambda: journal.append(tick(3)), journal.flush):
        with pytest.raises(Halted, match="No space left on device.*Nothing more is appended"):
            refused()
    journal.close()
    journal.close()


@needs_dev_full
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_reported_by_close_at_the_latest(tmp_path, name):
    path = tmp_path / name
    path.symlink_to("/dev/full")
    journal = FileJournal(path)
    journal.append(tick(1))
    with pytest.raises(OSError, match="No space left on device"):
        journal.close()
    with pytest.raises(Halted, match="No space left on device"):
        journal.append(tick(2))
    journal.close()


@needs_dev_full
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_met_within_append_too(tmp_path, name):
    path = tmp_path / name
    path.symlink_to("/dev/full")
    journal = FileJournal(path)
    with pytest.raises(OSError, match="No space left on device"):
        for seq in range(1, 10**6):
            journal.append(tick(seq, name=os.urandom(64).hex()))
    with pytest.raises(Halted, match="Nothing more is appended"):
        journal.append(tick(1))
    journal.close()


def test_a_disk_that_fails_to_sync_has_kept_nothing(tmp_path, monkeypatch):
    """After a failed sync the system may drop what it could not write: a second try proves nothing."""

    def fail(fd):
        raise OSError(5, "Input/output error")

    journal = FileJournal(tmp_path / "journal.jsonl")
    journal.append(tick(1))
    with monkeypatch.context() as patch:
        patch.setattr(journal_file, "_sync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            journal.flush()
    with pytest.raises(Halted, match="Input/output error"):
        journal.flush()
    journal.close()


def test_a_write_that_was_interrupted_is_a_failed_write(tmp_path, monkeypatch):
    def interrupt(fd):
        raise KeyboardInterrupt

    journal = FileJournal(tmp_path / "journal.jsonl")
    monkeypatch.setattr(journal_file, "_sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        journal.flush()
    with pytest.raises(Halted, match="KeyboardInterrupt"):
        journal.append(tick(1))
    journal.close()


def test_a_settlement_without_a_price_is_no_nan(path):
    """Its null is rightly one, beside a cause that is null or not."""
    rate = FundingRate(
        venue="okx",
        symbol="BTC",
        kind=FundingKind.REALISED,
        rate=Decimal(0),
        interval_h=8,
        settlement_time_ns=0,
        ts_init_ns=1,
    )
    message = FundingRealised(ts_init_ns=1, funding=rate, price=None)
    entries = [Entry(seq=seq, cause_seq=None if seq == 1 else 1, source="null", message=message) for seq in (1, 2)]
    with FileJournal(path) as journal:
        for entry in entries:
            journal.append(entry)
    assert list(read_journal(path)) == entries


GARBAGE = {
    "no json": b"to be or not to be\n",
    "an empty line": b"\n",
    "another shape": b"[1, 2]\n",
    "no message": b'{"seq":2,"cause_seq":null,"source":"input"}\n',
    "an unknown message": b'{"seq":2,"cause_seq":null,"source":"x","message":{"type":"TimerFire"}}\n',
    "a message without its fields": b'{"seq":2,"cause_seq":null,"source":"x","message":{"type":"TimerFired"}}\n',
    "no text": b"\xff\xfe\n",
    "zeros": b"\0" * 512 + b"\n",
    "two entries": b'{"seq":2}{"seq":3}\n',
    "a character cut in half": b'{"seq":2,"cause_seq":null,"source":"\xd4"}\n',
    "endless nesting": b'{"x":' + b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("allow_torn_tail", [False, True])
def test_garbage_is_refused_wherever_it_stands(path, garbage, at, allow_torn_tail):
    with FileJournal(path.parent / "good.jsonl") as journal:
        for seq in range(1, 4):
            journal.append(tick(seq))
    lines = (path.parent / "good.jsonl").read_bytes().splitlines(keepends=True)
    data = b"".join([*lines[:at], garbage, *lines[at:]])
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    read = []
    with pytest.raises(DataError, match=f"line {at + 1} is no entry"):
        read.extend(read_journal(path, allow_torn_tail))
    assert list(_until_error(path)) == [tick(seq) for seq in range(1, at + 1)]


def _until_error(path):
    try:
        yield from read_journal(path)
    except DataError:
        return


def test_a_tail_of_zeros_is_a_torn_tail(tmp_path):
    """A file system may have grown the file before it wrote the data."""
    path = tmp_path / "journal.jsonl"
    with FileJournal(path) as journal:
        journal.append(tick(1))
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    with pytest.raises(DataError, match="line 2 is torn"):
        list(read_journal(path))
    assert list(read_journal(path, allow_torn_tail=True)) == [tick(1)]


def test_a_whole_entry_without_its_line_end_is_torn(tmp_path):
    path = tmp_path / "journal.jsonl"
    with FileJournal(path) as journal:
        journal.append(tick(1))
    path.write_bytes(path.read_bytes()[:-1])
    assert list(read_journal(path, allow_torn_tail=True)) == []


def test_a_gz_that_was_never_closed_is_torn(tmp_path):
    path = tmp_path / "journal.jsonl.gz"
    journal = FileJournal(path)
    journal.append(tick(1))
    journal.flush()
    with pytest.raises(DataError, match="line 1 is torn"):
        list(read_journal(path))
    assert list(read_journal(path, allow_torn_tail=True)) == []
    journal.close()
    assert list(read_journal(path)) == [tick(1)]


def test_something_behind_the_end_of_a_gz_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl.gz"
    with FileJournal(path) as journal:
        journal.append(tick(1))
    path.write_bytes(path.read_bytes() + b"garbage")
    with pytest.raises(DataError, match="after line 1"):
        list(read_journal(path, allow_torn_tail=True))


def test_a_plain_file_named_gz_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl.gz"
    path.write_bytes(b"plain text\n")
    with pytest.raises(DataError, match="after line 0: Not a gzipped file"):
        list(read_journal(path))


def test_an_empty_journal_has_no_entries(path):
    FileJournal(path).close()
    assert list(read_journal(path)) == []


def test_reading_is_streaming(path):
    """The first entry is there before the last line was looked at."""
    with FileJournal(path.parent / "good.jsonl") as journal:
        journal.append(tick(1))
    data = (path.parent / "good.jsonl").read_bytes() + b"garbage\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    assert next(read_journal(path)) == tick(1)


def test_a_session_on_file_replays(path):
    sent = []
    with FileJournal(path) as journal:
        run(Engine([Canceller()], journal), (tick(seq).message for seq in range(1, 300)), sent.append)
    assert len(sent) == 299
    assert replay(read_journal(path), [Canceller()]) is None


def test_a_session_on_file_is_the_session_in_memory(path):
    memory = MemoryJournal()
    with FileJournal(path) as journal:
        for kept in (journal, memory):
            run(Engine([Canceller()], kept), (tick(seq).message for seq in range(1, 300)), lambda command: None)
    assert list(read_journal(path)) == memory.entries


KILLED = """
import os, sys
from fundarb.core.engine import Entry
from fundarb.core.events import TimerFired
from fundarb.storage.journal_file import FileJournal

journal = FileJournal(sys.argv[1])
for seq in range(1, 8):
    message = TimerFired(ts_init_ns=seq, name="decision")
    journal.append(Entry(seq=seq, cause_seq=None, source="input", message=message))
    if seq == 5:
        journal.flush()
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_what_was_flushed_survives_a_kill(tmp_path):
    """The process ends without any chance to tidy up; what left is in the file."""
    path = tmp_path / "journal.jsonl"
    child = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert child.returncode == -9
    assert list(read_journal(path)) == [tick(seq) for seq in range(1, 6)]
