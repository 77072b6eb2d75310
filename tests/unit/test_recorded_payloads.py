"""What the venues were recorded sending becomes our events: through ccxt's markets and the adapters' own reading."""

import gzip
import json
import os
from decimal import Decimal as D
from pathlib import Path

import ccxt
import pytest

from fundarb.core.events import BookUpdated, FundingPredicted, MarkPriceUpdated, OrderFilled
from fundarb.core.funding import PriceBasis
from fundarb.core.models import Instrument, Liquidity
from fundarb.core.numbers import utc_ns
from fundarb.exchanges.binance_words import read_order, read_update, wire_up
from fundarb.exchanges.connection import Connection
from fundarb.exchanges.venues import adapter_for
from fundarb.exchanges.wire_names import Wired

SHARED = Path(os.environ.get("FUNDARB_SHARED") or Path(__file__).parents[3] / "shared")
RECORDED = SHARED / "data" / "recorded"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="recorded payloads are not here: set FUNDARB_SHARED")
NOW_NS = utc_ns("2026-03-02T08:00Z")


def recorded(name):
    raw = (RECORDED / name).read_bytes()
    return json.loads(gzip.decompress(raw) if name.endswith(".gz") else raw)


def listening(venue):
    told = []
    words = {"symbols": ["BTC"], "credentials": None, "connection": Connection()}
    adapter = adapter_for(venue, **words, clock=lambda: NOW_NS, emit=told.append)
    for coins in adapter.wanted.values():
        coins.add("BTC")
    return adapter, told


def only(told, kind):
    (event,) = [each for each in told if isinstance(each, kind)]
    return event


def binance_markets():
    rows = {row["symbol"]: row for row in recorded("binance_usdm/20260703T051738Z_exchangeInfo.json.gz")["symbols"]}
    caps = {row["symbol"]: row for row in recorded("binance_usdm/20260704T155543Z_fundingInfo.json.gz")}
    return ccxt.binanceusdm(), rows, caps


def binance_btc():
    api, rows, caps = binance_markets()
    return wire_up("BTC", D(1), api.parse_market(rows["BTCUSDT"]), caps["BTCUSDT"], {}, {})


def test_every_binance_perpetual_has_terms():
    api, rows, caps = binance_markets()
    listed = [row for row in rows.values() if row["contractType"] == "PERPETUAL" and row["status"] == "TRADING"]
    assert len(listed) > 100
    for row in listed:
        terms = wire_up(row["baseAsset"], D(1), api.parse_market(row), caps.get(row["symbol"], {}), {}, {}).instrument
        assert terms.lot_step_base > 0 and terms.price_tick > 0 and terms.interval_h in (1, 2, 4, 6, 8), row["symbol"]


def test_binance_marks_and_estimates():
    adapter, told = listening("binance")
    adapter.add(binance_btc())
    adapter.intervals["BTC"] = 8
    adapter.hear(recorded("binance_usdm/nautilus_docs_mark_price_stream.json"))
    assert only(told, MarkPriceUpdated).mark_price == 11794.15
    assert only(told, FundingPredicted).funding.rate == D("0.00038167")


def test_binance_orders_and_trades():
    wired = binance_btc()
    fill, order = read_update(wired, recorded("binance_usdm/nautilus_docs_order_update_trade_partial.json")["o"])
    assert (fill.qty_base, fill.price, fill.fee) == (D("0.001"), D("7100.50"), D("0.01"))
    assert order.qty_base == D("0.002") and order.filled_base == D("0.001")
    answer = read_order(wired, recorded("binance_usdm/nautilus_docs_order_response.json"))
    assert answer.qty_base == D("0.001") and answer.filled_base == 0


def okx_btc(adapter):
    rows = {row["instId"]: row for row in recorded("okx/nautilus_http_get_instruments_swap.json")["data"]}
    return adapter._wire("BTC", D(1), ccxt.okx().parse_market(rows["BTC-USDT-SWAP"]), {}, {})


@pytest.mark.parametrize("name", ["nautilus_ws_orders.json", "nautilus_ws_orders_ioc.json", "nautilus_ws_orders_liquidation.json"])
def test_okx_orders_and_their_trades(name):
    adapter, told = listening("okx")
    adapter.add(wired := okx_btc(adapter))
    frame = recorded(f"okx/{name}")
    adapter.hear(frame)
    rows = [row for row in frame["data"] if row["instId"] == "BTC-USDT-SWAP" and row["tradeId"]]
    fills = [event for event in told if isinstance(event, OrderFilled)]
    assert [abs(fill.qty_base) for fill in fills] == [wired.qty(row["fillSz"]) for row in rows]
    assert [fill.fee for fill in fills] == [-D(row.get("fillFee", row["fee"])) for row in rows]
    if "liquidation" in name:
        assert {fill.liquidity for fill in fills} == {Liquidity.LIQUIDATION}


def test_okx_estimates():
    adapter, told = listening("okx")
    adapter.add(okx_btc(adapter))
    frame = recorded("okx/nautilus_ws_funding_rate.json")
    for key, hour in (("fundingTime", 16), ("nextFundingTime", 24)):  # its stamps were made up, and stand between hours
        frame["data"][0][key] = str(utc_ns("2026-03-02") // 1_000_000 + hour * 3_600_000)
    adapter.hear(frame)
    said = only(told, FundingPredicted).funding
    assert (said.rate, said.interval_h) == (D("0.0001"), 8)


def hyperliquid_btc():
    one = Instrument(
        venue="hyperliquid",
        symbol="BTC",
        venue_symbol="BTC",
        quote="USDC",
        units_per_price=D(1),
        lot_step_base=D("0.00001"),
        min_qty_base=D("0.00001"),
        min_notional_usd=D(10),
        price_tick=D(1),
        maker_fee_bps=D("1.5"),
        taker_fee_bps=D("4.5"),
        max_leverage=D(40),
        maintenance_frac=D("0.0125"),
        liquidation_fee_bps=D(0),
        interval_h=1,
        rate_cap=D("0.04"),
        price_basis=PriceBasis.ORACLE,
    )
    return Wired(instrument=one, name="BTC/USDC:USDC", qty_units=D(1), figures=5)


def test_hyperliquid_books():
    adapter, told = listening("hyperliquid")
    adapter.add(hyperliquid_btc())
    for name in ("nautilus_ws_book_data.json", "eugene_l2book_btc_nsf5.json"):
        told.clear()
        book = recorded(f"hyperliquid/{name}")
        adapter.hear({"channel": "l2Book", "data": book})
        heard = only(told, BookUpdated)
        assert heard.bids[0].price == float(book["levels"][0][0]["px"]) < heard.asks[0].price


def test_hyperliquid_trades():
    adapter, told = listening("hyperliquid")
    adapter.add(hyperliquid_btc())
    rows = recorded("hyperliquid/nautilus_ws_user_fill_liquidation.json")["data"]["fills"]
    adapter.hear({"channel": "userFills", "data": {"fills": rows}})
    fills = [event for event in told if isinstance(event, OrderFilled)]
    assert [(abs(fill.qty_base), fill.fee) for fill in fills] == [(D(row["sz"]), D(row["fee"])) for row in rows]
