"""Ctrl-C once and twice, a session that is kept on a server, and folders that are not gone on with."""

import json
import signal

import crash_drill as drill
import pytest
from desk import Desk

pytestmark = pytest.mark.timeout(600)  # half a minute of work each, on a machine that may be busy


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
    trader = desk.trade_until_filled(running)
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
