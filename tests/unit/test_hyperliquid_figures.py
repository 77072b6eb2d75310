"""A price below a power of ten has a decimal more at Hyperliquid: an exit must not fail for that."""

from decimal import Decimal as D

import pytest

from fundarb.core.events import BookUpdated
from fundarb.core.models import Level
from fundarb.data_providers.synthetic_cast import listed_terms
from fundarb.sandbox.hyperliquid_desk import HyperliquidDesk
from fundarb.sandbox.hyperliquid_orders import place_order
from fundarb.sandbox.world import World

SECOND_NS = 10**9


@pytest.fixture
def desk():
    doge = listed_terms()["hyperliquid", "DOGE"]
    assert doge.price_tick == D("0.00001")
    levels = {"bids": (Level(0.09905, 5e5),), "asks": (Level(0.09906, 5e5),)}
    feed = [BookUpdated(ts_init_ns=SECOND_NS, venue="hyperliquid", symbol="DOGE", **levels)]
    world = World([doge], feed, {"hyperliquid": D(10_000)})
    world.advance(2 * SECOND_NS)
    desk = HyperliquidDesk(world, "0x" + "11" * 20)
    world.listen(desk.hear)
    return desk


def wire(buys, price, size, tif, cloid=None):
    there = {"a": 0, "b": buys, "p": price, "s": size, "r": False, "t": {"limit": {"tif": tif}}}
    return there | ({"c": cloid} if cloid else {})


@pytest.mark.parametrize("buys, price, paid", [(True, "0.099069", "0.09906"), (False, "0.099041", "0.09905")])
def test_five_figures_are_taken_where_the_tick_has_four(desk, buys, price, paid):
    came = place_order(desk, wire(buys, price, "1000", "Ioc"))
    assert came.get("filled", came) == {"totalSz": "1000.0", "avgPx": paid} | {"oid": came["filled"]["oid"]}


@pytest.mark.parametrize("buys, price", [(True, "0.099059"), (False, "0.099051")])
def test_a_limit_within_the_tick_trades_at_nothing_worse(desk, buys, price):
    assert "could not immediately match" in place_order(desk, wire(buys, price, "1000", "Ioc"))["error"]


def test_what_rests_is_told_as_it_was_asked(desk):
    cloid = "0x" + "ab" * 16
    assert "resting" in place_order(desk, wire(True, "0.099011", "1000", "Gtc", cloid))
    assert desk.records.find(wire_id=cloid).order.limit_price == D("0.099011")


def test_a_sixth_figure_is_still_refused(desk):
    assert "divisible by tick size" in place_order(desk, wire(True, "0.0990695", "1000", "Ioc"))["error"]
