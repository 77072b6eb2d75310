"""What the venues did while no process was there."""

import json
import signal
from decimal import Decimal

import crash_drill as drill
import pytest

pytestmark = pytest.mark.timeout(600)


def books(desk):
    return drill.ask(f"{desk.control}/state")["venues"]


def net(desk):
    """What is held of each coin over all venues."""
    held = {}
    for venue in books(desk).values():
        for symbol, position in venue["positions"].items():
            held[symbol] = held.get(symbol, 0) + Decimal(position["qty_base"])
    return held


@pytest.mark.parametrize("fault, first", [("deleverage", True), ("liquidate", False)])
def test_a_leg_that_was_closed_by_force_while_nobody_was_there_is_booked(desk, running, fault, first):
    running.append(trader := desk.trade())
    drill.wait_for("fills", lambda: drill.there(desk.control, "fills") >= 2, trader)
    trader.kill()
    trader.wait()
    held = [(venue, symbol) for venue, its in books(desk).items() for symbol in its["positions"]]
    venue, symbol = held[0 if first else -1]
    desk.control_post("/faults", [{"fault": fault, "venue": venue, "symbol": symbol}])
    desk.clock(speed=1, hours=1)
    assert net(desk)[symbol]
    running.append(trader := desk.trade())
    drill.wait_for("both legs gone", lambda: not any(net(desk).values()), trader)
    trader.send_signal(signal.SIGINT)
    desk.ends(trader, 0)
    assert [event for event in desk.said("ReconciliationBreak") if event["kind"] != "TIMING"] == []
    assert [event["who"] for event in desk.said("KillSwitchSet")] == ["restart"]
    result = json.loads((desk.session / "result.json").read_text())
    assert result["liquidations"] == (fault == "liquidate")
    for name, theirs in books(desk).items():
        assert Decimal(result["by_venue"][name]["equity_end"]) == Decimal(theirs["equity"]), name
