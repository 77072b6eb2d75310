"""What an operator does to a session from outside: stop a part of it, let it go on, press Ctrl-C, keep it on a server."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import crash_drill as drill  # noqa: E402

pytestmark = pytest.mark.timeout(600)  # half a minute of work each, on a machine that may be busy
HOUR_NS = 3_600 * 10**9


class Desk:
    """A sandbox, and what is done to the session that trades there."""

    def __init__(self, folder, control):
        self.folder, self.control, self.session, self.log = folder, control, folder / "session", folder / "trader.log"
        self.env = os.environ.copy()

    def trade(self, kind="live"):
        words = (kind, "--sandbox", self.folder / "sandbox.json", "--session", self.session, "--symbols", drill.SYMBOLS)
        words += ("--params", drill.ROOT / "params" / "cross_funding" / "demo.json")
        with self.log.open("a") as log:
            return drill.fundarb(*words, stdout=log, stderr=log, env=self.env)

    def say(self, *words):
        process = drill.fundarb(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env)
        return process.communicate(timeout=drill.PATIENCE_S)[0], process.returncode

    def kill(self, *words):
        said, code = self.say("kill", *words, "--session", self.session)
        assert code == 0 and "hears it within a second" in said, said

    def control_post(self, path, said, method="POST"):
        request = urllib.request.Request(f"{self.control}{path}", json.dumps(said).encode(), method=method)
        with urllib.request.urlopen(request, timeout=60):
            pass

    def clock(self, **words):
        self.control_post("/clock", words)

    def refuse_orders(self):
        self.control_post("/faults", [{"fault": "reject_order", "times": 0}])

    def take_orders(self):
        self.control_post("/faults", [], "DELETE")

    def tail(self):
        return self.log.read_text()[-3000:]

    def now_ns(self):
        return drill.ask(f"{self.control}/state")["now_ns"]

    def pass_hours(self, hours, trader):
        """Let the market go on as fast as it is read, then at the pace of a clock on the wall."""
        until_ns = self.now_ns() + hours * HOUR_NS
        self.clock(speed=0)
        drill.wait_for(f"{hours} hours", lambda: self.now_ns() >= until_ns, trader)
        self.clock(speed=1)

    def positions(self):
        return [books["positions"] for books in drill.ask(f"{self.control}/state")["venues"].values() if books["positions"]]

    def wait_for(self, kind, number, trader):
        drill.wait_for(kind, lambda: drill.count(self.folder, kind) >= number, trader)

    def ends(self, trader, code):
        assert trader.wait(drill.PATIENCE_S) == code, self.log.read_text()[-3000:]
        assert "Traceback" not in self.log.read_text(), self.log.read_text()[-3000:]

    def said(self, kind):
        found = drill.rows(self.folder, "SELECT payload FROM entries WHERE kind = ? ORDER BY seq", kind)
        return [json.loads(payload)["message"] for (payload,) in found]


@pytest.fixture
def desk(tmp_path):
    with drill.sandbox(tmp_path, 7) as control:
        yield Desk(tmp_path, control)


def test_what_is_stopped_stays_stopped_until_it_is_reset(desk, running):
    running.append(trader := desk.trade())
    desk.wait_for("TimerFired", 1, trader)
    desk.clock(speed=1)
    desk.kill("PAUSE_ENTRIES", "--reason", "the desk is at lunch")
    desk.wait_for("KillSwitchSet", 1, trader)
    desk.pass_hours(26, trader)  # it would enter after a day
    trader.kill()
    trader.wait()
    known = drill.length(desk.folder)
    running.append(trader := desk.trade())
    drill.wait_for("the session", lambda: drill.length(desk.folder) > known, trader)
    desk.pass_hours(2, trader)
    assert drill.count(desk.folder, "SubmitOrder") == 0
    desk.kill("--reset", "--reason", "lunch is over")
    desk.wait_for("KillSwitchReset", 1, trader)
    desk.clock(speed=0)
    desk.wait_for("OrderFilled", 2, trader)
    desk.clock(speed=1)
    assert desk.positions()
    desk.kill("FLATTEN", "--reason", "enough for today")
    drill.wait_for("a flat book", lambda: not desk.positions(), trader)
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 0)
    words = [(event["level"], event["reason"]) for event in desk.said("KillSwitchSet")]
    assert words == [("PAUSE_ENTRIES", "the desk is at lunch"), ("FLATTEN", "enough for today")]
    assert [event["reason"] for event in desk.said("KillSwitchReset")] == ["lunch is over"]
    said, code = desk.say("audit", "verify", desk.session)
    assert code == 0 and "sealed" in said and "not sealed" not in said, said


def test_a_limit_that_was_tightened_stays_so_over_a_restart(desk, running):
    def tell(*words):
        said, code = desk.say("limit", *words, "--reason", "thin books", "--session", desk.session)
        assert code == 0 and "hears it within a second" in said, said

    def answers(number):
        desk.wait_for("AlertRaised", number, trader)
        return [event["text"] for event in desk.said("AlertRaised") if event["scope"] == "max_gross_x"]

    running.append(trader := desk.trade())
    desk.wait_for("TimerFired", 1, trader)
    desk.clock(speed=1)
    tell("max_gross_x", "1.5")
    drill.wait_for("the answer", lambda: answers(1), trader)
    trader.kill()
    trader.wait()
    known = drill.length(desk.folder)
    running.append(trader := desk.trade())
    drill.wait_for("the session", lambda: drill.length(desk.folder) > known, trader)
    tell("max_gross_x", "2")
    tell("max_gross_x", "2", "--loosen")
    drill.wait_for("three answers", lambda: len(answers(1)) == 3, trader)
    was, refused, loosened = answers(1)
    assert "is 1.5" in was and "2 is not tighter than 1.5" in refused and "was 1.5, is 2" in loosened
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 0)
    said, code = desk.say("replay", desk.session)
    assert code == 0, said


def test_a_second_interrupt_ends_a_session_at_once(desk, running):
    running.append(trader := desk.trade("paper"))
    desk.wait_for("OrderFilled", 2, trader)
    desk.clock(paused=True)  # so the orders that would close never meet a market
    trader.send_signal(signal.SIGINT)
    drill.wait_for("the first", lambda: "Ctrl-C" in desk.log.read_text(), trader)
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 130)
    assert not (desk.session / "result.json").exists()
    said, code = desk.say("audit", "verify", desk.session)
    assert code == 0, said


def test_what_a_second_interrupt_left_open_is_closed_by_the_next_start(desk, running):
    running.append(trader := desk.trade())
    drill.wait_for("fills", lambda: drill.there(desk.control, "fills") >= 2, trader)
    desk.clock(speed=1)
    desk.wait_for("OrderFilled", 2, trader)
    desk.refuse_orders()
    trader.send_signal(signal.SIGINT)
    desk.wait_for("OrderRejected", 2, trader)
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 130)
    assert desk.positions() and not (desk.session / "result.json").exists()
    desk.take_orders()
    running.append(trader := desk.trade())
    desk.ends(trader, 0)
    measured = drill.check(desk, drill.ask(f"{desk.control}/state"))
    assert measured["fills"] >= 4


def test_a_flattening_outlives_the_process_that_was_told(desk, running):
    running.append(trader := desk.trade())
    drill.wait_for("fills", lambda: drill.there(desk.control, "fills") >= 2, trader)
    desk.clock(speed=1)
    desk.wait_for("OrderFilled", 2, trader)
    desk.refuse_orders()
    desk.kill("FLATTEN", "--reason", "enough for today")
    desk.wait_for("KillSwitchSet", 1, trader)
    trader.kill()
    trader.wait()
    assert desk.positions()
    desk.take_orders()
    running.append(trader := desk.trade())
    drill.wait_for("a flat book", lambda: not desk.positions(), trader)
    known = drill.count(desk.folder, "SubmitOrder")
    desk.pass_hours(3, trader)
    assert drill.count(desk.folder, "SubmitOrder") == known and not desk.positions()
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 0)
    drill.check(desk, drill.ask(f"{desk.control}/state"))
    assert not [event for event in desk.said("KillSwitchReset") if not event["scope"]]


def test_a_session_on_a_server_goes_on_and_closes_at_an_interrupt(desk, running, postgres):
    url = postgres.replace("postgres:@", "postgres@")
    desk.env["FUNDARB_STORAGE__URL"] = url
    running.append(trader := desk.trade())
    drill.wait_for("fills", lambda: drill.there(desk.control, "fills") >= 2, trader)
    trader.kill()
    trader.wait()
    desk.clock(speed=1)
    held = desk.positions()
    running.append(trader := desk.trade())
    log = desk.session / "log.jsonl"
    drill.wait_for("the session", lambda: "session goes on" in log.read_text(), trader)
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 0)
    assert held and not desk.positions()
    result = json.loads((desk.session / "result.json").read_text())
    assert result["closed"] and result["ended_because"] == "stopped by hand"
    for venue, books in result["reconciliation"].items():
        assert books["ledger_equity"] == books["venue_equity"], venue
    name = json.loads((desk.session / "run.json").read_text())["session_id"]
    joint = "&" if "?" in url else "?"
    said, code = desk.say("audit", "verify", f"{url}{joint}session={name}")
    assert code == 0 and f"{name} is as it was written" in said and "not sealed" not in said, said


def test_a_folder_is_not_gone_on_with_where_its_venues_are_gone(tmp_path, running):
    """A sandbox that was started again has fresh accounts, and a session on paper had its venues in its own process."""
    for kind, said in (("live", "holds a session of sandbox "), ("paper", "a paper session's venues ended with its process")):
        folder = tmp_path / kind
        folder.mkdir()
        with drill.sandbox(folder, 7) as control:
            running.append(trader := Desk(folder, control).trade(kind))
            drill.wait_for("the session", lambda folder=folder: drill.count(folder, "TimerFired") > 0, trader)
            trader.kill()
            trader.wait()
            if kind == "paper":
                desk = Desk(folder, control)
                running.append(again := desk.trade(kind))
                assert again.wait(drill.PATIENCE_S) == 2
        if kind == "live":
            (folder / "sandbox.json").unlink()
            with drill.sandbox(folder, 7) as control:
                desk, known = Desk(folder, control), drill.length(folder)
                running.append(again := desk.trade(kind))
                assert again.wait(drill.PATIENCE_S) == 2
                assert drill.length(folder) == known and drill.there(control, "orders") == 0
        assert said in desk.tail() and "Nothing was started" in desk.tail(), desk.tail()
