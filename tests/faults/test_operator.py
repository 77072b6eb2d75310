"""What an operator says to a session from outside: stop a part of it, let it go on, allow it less."""

import json
import signal
from uuid import uuid4

import ccxt
import crash_drill as drill
import pytest
from bots import bot
from typer.testing import CliRunner

from fundarb.apps.cli import app

pytestmark = pytest.mark.timeout(600)  # half a minute of work each, on a machine that may be busy


def in_process(*words):
    """Give a command without a process of its own, which is most of what it costs."""
    result = CliRunner().invoke(app, [*map(str, words), "--settings", str(drill.ROOT / "settings.ini")])
    assert result.exit_code == 0, result.output
    return result.output


def by_hand(desk, coin, size):
    """Buy a coin at Binance under an id of our form, as another session would; return what its books say of that."""
    client, symbol = bot(ccxt, "binance", json.loads((desk.folder / "sandbox.json").read_text())), f"{coin}/USDT:USDT"
    client.load_markets()
    client.create_order(symbol, "market", "buy", size, None, {"clientOrderId": uuid4().hex})
    (trade,) = client.fetch_my_trades(symbol)
    return {"qty": trade["info"]["qty"], "price": trade["info"]["price"], "fee": trade["info"]["commission"]}


def is_frozen(desk, what):
    """Tell whether the last word on a difference was a stop."""
    query = "SELECT kind, payload FROM entries WHERE kind IN ('KillSwitchSet', 'KillSwitchReset') ORDER BY seq"
    found = [(kind, json.loads(said)["message"]) for kind, said in drill.rows(desk.folder, query)]
    last = [(kind, said.get("level")) for kind, said in found if said["cause"] == f"books differ on {what}"][-1:]
    return last == [("KillSwitchSet", "FREEZE")]


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
    drill.wait_for("the venues", lambda: "reported: still stopped: PAUSE_ENTRIES everywhere by" in desk.tail(), trader)
    assert "Open: nothing; no order is in doubt. No entries until" in desk.tail()
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
    running.append(trader := desk.trade())
    drill.wait_for("the venues", lambda: "reported: entries are allowed again" in desk.tail(), trader)
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
    desk.clock(speed=30)  # what failed to close is asked again in some time
    running.append(trader := desk.trade())
    drill.wait_for("a flat book", lambda: not desk.positions(), trader)
    known = drill.count(desk.folder, "SubmitOrder")
    desk.pass_hours(3, trader)
    assert drill.count(desk.folder, "SubmitOrder") == known and not desk.positions()
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 0)
    drill.check(desk, drill.ask(f"{desk.control}/state"))
    assert not [event for event in desk.said("KillSwitchReset") if not event["scope"]]


def test_a_trade_by_hand_is_accepted_once_and_the_books_agree(desk, running):
    """Traded by another of our programs while the session was down: frozen, accepted, and agreed to the cent, over two kills."""

    def start():
        running.append(trader := desk.trade())
        return trader

    def kill(trader):
        trader.kill()
        trader.wait()

    trader = start()
    desk.wait_for("AccountReported", 3, trader)  # what the wallets were to begin with
    kill(trader)
    filled = by_hand(desk, "LINK", 20)
    desk.clock(speed=30)
    trader = start()
    desk.wait_for("ReconciliationBreak", 1, trader)
    drill.wait_for("a freeze", lambda: is_frozen(desk, "LINK"), trader)
    kill(trader)

    words = ("binance", "--symbol", "LINK", "--qty", filled["qty"], "--price", filled["price"], "--cash", f"-{filled['fee']}")
    for _ in range(2):  # typed twice, while nobody listens
        said = in_process("accept", *words, "--reason", "bought by another session", "--session", desk.session)
        assert "its next start hears it first" in said, said
    trader = start()
    desk.wait_for("ReconciliationCleared", 2, trader)
    drill.wait_for("the thaw", lambda: not is_frozen(desk, "LINK"), trader)
    drill.wait_for("both words", lambda: not list((desk.session / "requests").glob("*.json")), trader)
    reports = drill.count(desk.folder, "AccountReported")
    desk.wait_for("AccountReported", reports + 6, trader)
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 0)

    assert len(desk.said("AdjustmentAccepted")) == 2 and len(desk.said("AdjustmentBooked")) == 1
    assert [event["text"] for event in desk.said("AlertRaised") if "accepted before, not booked again" in event["text"]]
    assert {each["what"] for each in desk.said("ReconciliationBreak")} == {each["what"] for each in desk.said("ReconciliationCleared")}
    books = json.loads((desk.session / "result.json").read_text())["reconciliation"]["binance"]
    assert books["ledger_equity"] == books["venue_equity"]
    in_process("replay", desk.session)
