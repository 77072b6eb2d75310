"""What the sandbox sends has the fields of what the venues were recorded sending."""

import json
import os
from decimal import Decimal as D
from pathlib import Path

import pytest

from fundarb.core.events import OrderFilled, SubmitOrder
from fundarb.core.funding import PriceBasis
from fundarb.core.models import Instrument, Liquidity
from fundarb.core.numbers import utc_ns
from fundarb.exchanges.simulated_account import Account, TimeInForce, margin
from fundarb.sandbox import hyperliquid_account, okx_account
from fundarb.sandbox.hyperliquid_market import Listing
from fundarb.sandbox.okx_market import Swap, instrument_row
from fundarb.sandbox.order_records import OrderRecords

SHARED = Path(os.environ.get("FUNDARB_SHARED") or Path(__file__).parents[3] / "shared")
RECORDED = SHARED / "data" / "recorded"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="recorded payloads are not here: set FUNDARB_SHARED")
NOW_NS = utc_ns("2026-03-02T08:00Z")


def recorded(name):
    return json.loads((RECORDED / name).read_text())


@pytest.fixture
def filled():
    """A venue's terms, its account and records after one fill."""

    def make(venue, venue_symbol, quote):
        terms = Instrument(
            venue=venue,
            symbol="BTC",
            venue_symbol=venue_symbol,
            quote=quote,
            units_per_price=D(1),
            lot_step_base=D("0.0001"),
            min_qty_base=D("0.0001"),
            min_notional_usd=D(10),
            price_tick=D(1),
            maker_fee_bps=D(2),
            taker_fee_bps=D(5),
            max_leverage=D(40),
            maintenance_frac=D("0.0125"),
            liquidation_fee_bps=D(0),
            interval_h=8,
            rate_cap=D("0.04"),
            price_basis=PriceBasis.MARK,
        )
        records, account = OrderRecords(venue, 100), Account([terms], D(1000))
        name = {"client_order_id": records.name("a1"), "venue": venue, "symbol": "BTC"}
        shape = {"qty_base": D("0.01"), "limit_price": D(60000), "reduce_only": False}
        sent = records.new(SubmitOrder(ts_init_ns=NOW_NS, **name, **shape), "a1", TimeInForce.GTC)
        how = {"fee": D("0.3"), "liquidity": Liquidity.TAKER, "ts_event_ns": NOW_NS, "price": D(60000)}
        fill = OrderFilled(ts_init_ns=NOW_NS, **name, trade_id="t", qty_base=D("0.01"), **how)
        records.hear(fill)
        account.trade(fill)
        return terms, account, sent, records.trades[0]

    return make


def test_hyperliquid_fills_and_state(filled):
    terms, account, sent, trade = filled("hyperliquid", "BTC", "USDC")
    listed = Listing(0, terms)
    ours = hyperliquid_account.fill_row(trade, sent, listed, "0x")
    theirs = recorded("hyperliquid/nautilus_http_user_fills_dust_conversion.json")[0]
    assert theirs.keys() <= ours.keys()
    assert {key: type(ours[key]) for key in theirs} == {key: type(theirs[key]) for key in theirs} | {"twapId": type(None)}
    state = recorded("hyperliquid/nautilus_http_clearinghouse_state_negative_total_raw_usd.json")
    written = hyperliquid_account.clearinghouse(account, [listed], NOW_NS, {})
    assert state.keys() <= written.keys()
    assert state["crossMarginSummary"].keys() <= written["crossMarginSummary"].keys()


def test_okx_orders_balances_and_instruments(filled):
    terms, account, sent, trade = filled("okx", "BTC-USDT-SWAP", "USDT")
    swap = Swap(10458, terms)
    row = okx_account.pushed_row(okx_account.order_row(sent, swap, D(5), trade=trade), trade)
    theirs = recorded("okx/nautilus_ws_orders.json")["data"][0]
    assert theirs.keys() <= row.keys()
    assert all(isinstance(row[key], type(theirs[key])) for key in theirs)
    balance = okx_account.balance_row(account, "USDT", NOW_NS, margin(account))
    theirs = recorded("okx/nautilus_http_get_account_balance.json")["data"][0]
    needed = {"eq", "cashBal", "availEq", "availBal", "frozenBal", "upl", "uTime", "ccy", "isoEq", "disEq", "eqUsd"}
    assert needed <= theirs["details"][0].keys() and needed <= balance["details"][0].keys()
    listed = recorded("okx/nautilus_http_get_instruments_swap.json")["data"][0]
    assert listed.keys() - instrument_row(swap).keys() <= {"preMktSwTime", "posLmtAmt", "posLmtPct", "maxPlatOILmt", "initPxLmtPct"}
    fill = okx_account.fill_row(trade, sent, swap)
    assert recorded("okx/nautilus_http_transaction_detail.json").keys() <= fill.keys()
    position = okx_account.position_row(account, swap, NOW_NS, margin(account), D(0), D("0.3"))
    ours = {"instId", "pos", "posSide", "mgnMode", "avgPx", "upl", "lever", "liqPx", "markPx", "imr", "mmr", "cTime", "uTime"}
    assert ours <= position.keys()
    assert all(isinstance(value, str) for key, value in position.items() if key != "closeOrderAlgo")
