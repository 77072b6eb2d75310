"""What an operator says to a session from outside: stop a part of it, let it go on, allow it less."""

import signal

import crash_drill as drill
import pytest

pytestmark = pytest.mark.timeout(600)  # half a minute of work each, on a machine that may be busy


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


def test_a_flattening_outlives_the_process_that_was_told(desk, running):
    trader = desk.trade_until_filled(running)
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
