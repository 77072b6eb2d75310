"""Field by field: whatever a venue was recorded sending, the sandbox sends with the same keys and the same JSON types."""

import asyncio
import gzip
import json
import os
import time
from decimal import Decimal as D
from pathlib import Path

import aiohttp
import ccxt.async_support as ccxt
import pytest
import yaml
from msgspec.structs import replace

from fundarb.core.numbers import HOUR_NS, SECOND_NS
from fundarb.sandbox.host import OPENERS, Sandbox, synthetic_market
from fundarb.sandbox.okx_gate import Keys
from fundarb.sandbox.world import deleverage, seize

SHARED = Path(os.environ.get("FUNDARB_SHARED") or Path(__file__).parents[3] / "shared")
RECORDED = SHARED / "data" / "recorded"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="recorded payloads are not here: set FUNDARB_SHARED")

BTC, SWAP = {"symbol": "BTCUSDT"}, {"instId": "BTC-USDT-SWAP"}
BARS = {"contractType": "PERPETUAL", "pair": "BTCUSDT", "interval": "1h"}
BINANCE_ASKS = {
    "exchangeInfo": ("fapiPublicGetExchangeInfo", {}),
    "premiumIndex": ("fapiPublicGetPremiumIndex", {}),
    "premiumIndex of one": ("fapiPublicGetPremiumIndex", BTC),
    "fundingInfo": ("fapiPublicGetFundingInfo", {}),
    "fundingRate": ("fapiPublicGetFundingRate", BTC),
    "bookTicker": ("fapiPublicGetTickerBookTicker", {}),
    "bookTicker of one": ("fapiPublicGetTickerBookTicker", BTC),
    "ticker": ("fapiPublicGetTicker24hr", BTC),
    "price": ("fapiPublicGetTickerPrice", BTC),
    "depth": ("fapiPublicGetDepth", BTC),
    "trades": ("fapiPublicGetTrades", BTC),
    "aggTrades": ("fapiPublicGetAggTrades", BTC),
    "openInterest": ("fapiPublicGetOpenInterest", BTC),
    "klines": ("fapiPublicGetKlines", BTC | BARS),
    "markPriceKlines": ("fapiPublicGetMarkPriceKlines", BTC | BARS),
    "continuousKlines": ("fapiPublicGetContinuousKlines", BARS),
    "account v2": ("fapiPrivateV2GetAccount", {}),
    "balance": ("fapiPrivateV3GetBalance", {}),
    "positionRisk": ("fapiPrivateV2GetPositionRisk", BTC),
    "order": ("fapiPrivateGetOpenOrder", BTC | {"origClientOrderId": "shape-2"}),
    "allOrders": ("fapiPrivateGetAllOrders", BTC),
    "userTrades": ("fapiPrivateGetUserTrades", BTC),
    "commissionRate": ("fapiPrivateGetCommissionRate", BTC),
    "positionSide": ("fapiPrivateGetPositionSideDual", {}),
    "symbolConfig": ("fapiPrivateGetSymbolConfig", BTC),
}
OKX_ASKS = {
    "balance": ("privateGetAccountBalance", {}),
    "bars": ("publicGetMarketCandles", SWAP | {"bar": "1H"}),
    "funding history": ("publicGetPublicFundingRateHistory", SWAP),
    "index": ("publicGetMarketIndexTickers", {"instId": "BTC-USDT"}),
    "instruments": ("publicGetPublicInstruments", {"instType": "SWAP"}),
    "mark": ("publicGetPublicMarkPrice", SWAP | {"instType": "SWAP"}),
    "book": ("publicGetMarketBooks", SWAP),
    "trades": ("publicGetMarketTrades", SWAP),
    "history": ("privateGetTradeOrdersHistory", {"instType": "SWAP"}),
    "pending": ("privateGetTradeOrdersPending", {}),
    "tiers": ("publicGetPublicPositionTiers", {"instType": "SWAP", "tdMode": "cross", "instFamily": "BTC-USDT"}),
    "positions": ("privateGetAccountPositions", {}),
    "fee": ("privateGetAccountTradeFee", {"instType": "SWAP"}),
    "mode": ("privatePostAccountSetPositionMode", {"posMode": "net_mode"}),
    "fills": ("privateGetTradeFills", {}),
}
HYPERLIQUID_ASKS = """meta metaAndAssetCtxs allMids l2Book candleSnapshot fundingHistory clearinghouseState recentTrades
spotClearinghouseState spotMeta userFills userRateLimit perpDexs allPerpMetas""".split()
BINANCE_HEARS = """depth@100ms aggTrade trade bookTicker kline_1h markPrice@1s ticker forceOrder""".split()
OKX_HEARS = "books bbo-tbt candle1H funding-rate tickers trades".split()


class Sent(dict):
    """What the sandbox has sent, by venue and name; the first of each."""

    def take(self, venue, name, payload):
        self.setdefault(f"{venue} {name}", payload)


def clients(known):
    quick = {"enableRateLimit": False, "quoteJsonNumbers": False}
    keys = {v: {"apiKey": known[v]["api_key"], "secret": known[v]["secret"]} for v in ("binance", "okx")}
    binance, okx = ccxt.binanceusdm(quick | keys["binance"]), ccxt.okx(quick | keys["okx"] | {"password": known["okx"]["passphrase"]})
    for name, url in list(binance.urls["api"].items()):
        if isinstance(url, str):
            binance.urls["api"][name] = f"{known['binance']['rest']}/{url.split('/', 3)[3]}"
    okx.urls["api"] = {**okx.urls["api"], "rest": known["okx"]["rest"]}
    wallet = {"walletAddress": known["hyperliquid"]["wallet_address"], "privateKey": known["hyperliquid"]["private_key"]}
    hyperliquid = ccxt.hyperliquid(quick | wallet)
    hyperliquid.urls["api"] = {"public": known["hyperliquid"]["rest"], "private": known["hyperliquid"]["rest"]}
    for client in (binance, okx, hyperliquid):
        client.quoteJsonNumbers = False  # so that what is a number stays one
    return {"binance": binance, "okx": okx, "hyperliquid": hyperliquid}


async def listen(sent, venue, socket, name_of):
    async for frame in socket:
        if frame.data != "pong":
            message = json.loads(frame.data)
            if (name := name_of(message)) is not None:
                sent.take(venue, f"ws {name}", message)


def binance_name(message):
    if message.get("e") == "ORDER_TRADE_UPDATE":
        forced = message["o"]["c"].partition("-")[0] if message["o"]["c"].startswith(("auto", "adl")) else ""
        return f"{forced or 'order'} {message['o']['x']}"
    return message.get("e")


def hyperliquid_name(message):
    fills = message["data"].get("fills") if message["channel"] == "user" else None
    return "user liquidated" if fills and "liquidation" in fills[0] else message["channel"]


def okx_name(message):
    if "data" not in message or not message["data"] or "arg" not in message:
        return None
    channel, row = message["arg"]["channel"], message["data"][0]
    if channel == "orders":
        return f"orders {row['category']}" if row["tradeId"] else None
    return f"{channel} {message['action']}" if "action" in message else channel


async def gather():
    """Trade a little on all three, be liquidated and deleveraged, and keep what was sent."""
    sent = Sent()
    sandbox = Sandbox(synthetic_market(seed=7, days=3, symbols=("BTC", "ETH")), dict.fromkeys(OPENERS, D(10_000)), paused=True)
    sandbox.world.advance(sandbox.world.now_ns + 26 * HOUR_NS + 120 * SECOND_NS)
    async with sandbox, aiohttp.ClientSession() as session:
        known, world = sandbox.known(), sandbox.world
        traders, tasks = clients(known), []
        try:
            key = (await traders["binance"].fapiPrivatePostListenKey())["listenKey"]
            streams = "/".join(["!forceOrder@arr", *(f"btcusdt@{name}" for name in BINANCE_HEARS)])
            sockets = [await session.ws_connect(f"{known['binance']['ws']}/{key}")]
            sockets.append(await session.ws_connect(f"{known['binance']['ws'].removesuffix('/ws')}/ws"))
            await sockets[1].send_json({"method": "SUBSCRIBE", "params": streams.split("/"), "id": 1})
            tasks += [asyncio.ensure_future(listen(sent, "binance", one, binance_name)) for one in sockets]
            sockets.append(hyper := await session.ws_connect(known["hyperliquid"]["ws"]))
            tasks.append(asyncio.ensure_future(listen(sent, "hyperliquid", hyper, hyperliquid_name)))
            for kind in ("allMids", "l2Book", "userEvents"):
                about = {"type": kind, "coin": "BTC", "user": known["hyperliquid"]["wallet_address"]}
                await hyper.send_json({"method": "subscribe", "subscription": about})
            keys = Keys(known["okx"]["api_key"], known["okx"]["secret"], known["okx"]["passphrase"])
            sockets += [public := await session.ws_connect(f"{known['okx']['ws']}/public"), private := await session.ws_connect(f"{known['okx']['ws']}/private")]
            tasks += [asyncio.ensure_future(listen(sent, "okx", one, okx_name)) for one in (public, private)]
            wanted = [{"channel": name} | SWAP for name in OKX_HEARS] + [{"channel": "instruments", "instType": "SWAP"}]
            await public.send_json({"op": "subscribe", "args": wanted})
            stamp = str(int(time.time()))
            said = {"apiKey": keys.api_key, "passphrase": keys.passphrase, "timestamp": stamp}
            await private.send_json({"op": "login", "args": [said | {"sign": keys.sign(f"{stamp}GET/users/self/verify".encode())}]})
            await private.send_json({"op": "subscribe", "args": [{"channel": name, "instType": "SWAP"} for name in ("orders", "account", "orders-algo")]})
            await sandbox.traffic.read_by_all()
            await trade(sent, traders, world)
            await wait_for_a_price(sent, traders, world)
            await ask(sent, traders, world)
            world.advance(world.now_ns + 2 * HOUR_NS)
            for close, venue in ((seize, "binance"), (seize, "hyperliquid"), (seize, "okx")):
                close(world, venue, "BTC")
                deleverage(world, venue, "ETH")
            await sandbox.traffic.read_by_all()
            about = {"type": "userFunding", "user": known["hyperliquid"]["wallet_address"], "startTime": 0}
            sent.take("okx", "closed", await traders["okx"].privateGetAccountPositionsHistory({}))
            sent.take("hyperliquid", "userFunding", await traders["hyperliquid"].publicPostInfo(about))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for client in traders.values():
                await client.close()
    return sent


async def trade(sent, traders, world):
    for venue, client in traders.items():
        quote = "USDC" if venue == "hyperliquid" else "USDT"
        await client.load_markets()
        for no, coin in enumerate(("BTC", "ETH")):
            symbol = f"{coin}/{quote}:{quote}"
            bid = world.book(venue, coin).bids[0].price
            amount = 0.1 / (client.market(symbol)["contractSize"] or 1)
            name = {"clientOrderId": {"hyperliquid": f"0x{no:032x}"}.get(venue, f"shape{no}")}
            order = await client.create_order(symbol, "market", "buy", amount, bid, name)
            sent.take(venue, "placed", order["info"])
        name = {"clientOrderId": {"hyperliquid": "0x" + "9" * 32, "okx": "shape2"}.get(venue, "shape-2")}
        bid = world.book(venue, "BTC").bids[0].price
        await client.create_order(f"BTC/{quote}:{quote}", "limit", "buy", amount, round(bid * 0.99), name)


async def wait_for_a_price(sent, traders, world):
    """Leave a stop at the two venues that have a place of its own for it; one of each ends by its price."""
    mark = round(world.mark("binance", "BTC").mark_price)
    far, near = ({"triggerPrice": price, "quantity": "0.01"} for price in (mark - 9_000, mark - 1))
    stop = BTC | {"algoType": "CONDITIONAL", "side": "SELL", "type": "STOP_MARKET"}
    for price in (far, near):
        sent.take("binance", "algo placed", await traders["binance"].fapiPrivatePostAlgoOrder(stop | price))
    stop = SWAP | {"tdMode": "cross", "side": "sell", "ordType": "trigger", "sz": "1", "orderPx": "-1"}
    stops = [stop | {"triggerPx": str(price)} for price in (mark - 9_000, mark - 1)]
    stops.append(stop | {"ordType": "conditional", "closeFraction": "1", "reduceOnly": "true", "slTriggerPx": str(mark - 9_000), "slOrdPx": "-1"})
    for one in stops:
        placed = await traders["okx"].privatePostTradeOrderAlgo(one)
        sent.take("okx", "algo placed", placed)
    for venue in ("binance", "okx"):
        was = world.mark(venue, "BTC")
        world._happen(replace(was, ts_init_ns=world.now_ns, mark_price=mark - 50.0))
        world._happen(replace(was, ts_init_ns=world.now_ns))
    cancel = [SWAP | {"algoId": placed["data"][0]["algoId"]}]
    for kind in ("trigger", "conditional"):
        sent.take("okx", f"algo {kind}", await traders["okx"].privateGetTradeOrdersAlgoPending({"ordType": kind}))
    about = {"ordType": "trigger", "state": "effective"}
    sent.take("okx", "algo history", await traders["okx"].privateGetTradeOrdersAlgoHistory(about))
    sent.take("okx", "algo canceled", await traders["okx"].privatePostTradeCancelAlgos(cancel))


async def ask(sent, traders, world):
    for name, (method, about) in BINANCE_ASKS.items():
        sent.take("binance", name, await getattr(traders["binance"], method)(about))
    for name, (method, about) in OKX_ASKS.items():
        sent.take("okx", name, await getattr(traders["okx"], method)(about))
    about = {"user": traders["hyperliquid"].walletAddress, "coin": "BTC", "startTime": 0}
    about["req"] = {"coin": "BTC", "interval": "1h", "startTime": 0}
    for kind in HYPERLIQUID_ASKS:
        sent.take("hyperliquid", kind, await traders["hyperliquid"].publicPostInfo({"type": kind} | about))


@pytest.fixture(scope="module")
def sent():
    return asyncio.run(gather())


def kind(value):
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def lacking(theirs, ours, at=""):
    """List what the sandbox leaves out, or sends as another type; null stands for any."""
    if theirs is None or ours is None:
        return []
    if kind(theirs) != kind(ours):
        return [f"{at}: {kind(ours)} for {kind(theirs)}"]
    if isinstance(theirs, dict):
        gone = [f"{at}.{key}" for key in theirs.keys() - ours.keys()]
        return sorted(gone) + [each for key in sorted(theirs.keys() & ours.keys()) for each in lacking(theirs[key], ours[key], f"{at}.{key}")]
    if not isinstance(theirs, list) or not theirs:
        return []
    if not ours:
        return [f"{at}: empty"]
    row = any(not isinstance(each, list | dict) for each in theirs)  # a row of fields, not a list of rows
    if row and len(theirs) > len(ours):
        return [f"{at}: {len(ours)} fields for {len(theirs)}"]
    pairs = zip(theirs, ours) if row else [(theirs[0], ours[0])]
    return [each for no, (a, b) in enumerate(pairs) for each in lacking(a, b, f"{at}[{no}]")]


PAIRS = {
    # the beginning of a recorded file's name, and what the sandbox sent
    "binance_usdm/20260703T051738Z_exchangeInfo": "binance exchangeInfo",
    "binance_usdm/20260703T051738Z_premiumIndex": "binance premiumIndex",
    "binance_usdm/20260704T155543Z_fundingInfo": "binance fundingInfo",
    "binance_usdm/20260704T155543Z_fundingRate-": "binance fundingRate",
    "binance_usdm/20260710T061419Z_fundingRate-": "binance fundingRate",
    "binance_usdm/20260713T000000Z_fundingRate-": "binance fundingRate",
    "binance_usdm/20260715T0651Z_bookTicker": "binance bookTicker",
    "binance_usdm/nautilus_docs_account_info_v2": "binance account v2",
    "binance_usdm/nautilus_docs_account_update": "binance ws ACCOUNT_UPDATE",
    "binance_usdm/nautilus_docs_agg_trade_stream": "binance ws aggTrade",
    "binance_usdm/nautilus_docs_balance": "binance balance",
    "binance_usdm/nautilus_docs_book_ticker_stream": "binance ws bookTicker",
    "binance_usdm/nautilus_docs_depth_update_stream": "binance ws depthUpdate",
    "binance_usdm/nautilus_docs_kline_stream": "binance ws kline",
    "binance_usdm/nautilus_docs_liquidation_stream": "binance ws forceOrder",
    "binance_usdm/nautilus_docs_mark_price_stream": "binance ws markPriceUpdate",
    "binance_usdm/nautilus_docs_order_response": "binance order",
    "binance_usdm/nautilus_docs_order_update_adl": "binance ws adl_autoclose CALCULATED",
    "binance_usdm/nautilus_docs_order_update_calculated": "binance ws autoclose CALCULATED",
    "binance_usdm/nautilus_docs_order_update_new": "binance ws order NEW",
    "binance_usdm/nautilus_docs_order_update_trade": "binance ws order TRADE",
    "binance_usdm/nautilus_docs_position_risk": "binance positionRisk",
    "binance_usdm/nautilus_docs_ticker_stream": "binance ws 24hrTicker",
    "binance_usdm/nautilus_docs_trade_lite": "binance ws TRADE_LITE",
    "binance_usdm/nautilus_docs_trade_stream": "binance ws trade",
    "binance/py_resources/http_futures_account_orders": "binance allOrders",
    "binance/py_resources/http_futures_account_position_side_dual": "binance positionSide",
    "binance/py_resources/http_futures_account_positions_one_way": "binance positionRisk",
    "binance/py_resources/http_futures_account_symbol_config": "binance symbolConfig",
    "binance/py_resources/http_futures_account_trades": "binance userTrades",
    "binance/py_resources/http_futures_market_agg_trades": "binance aggTrades",
    "binance/py_resources/http_futures_market_book_ticker": "binance bookTicker of one",
    "binance/py_resources/http_futures_market_continuous_klines": "binance continuousKlines",
    "binance/py_resources/http_futures_market_depth": "binance depth",
    "binance/py_resources/http_futures_market_exchange_info": "binance exchangeInfo",
    "binance/py_resources/http_futures_market_funding_rate": "binance fundingRate",
    "binance/py_resources/http_futures_market_historical_trades": "binance trades",
    "binance/py_resources/http_futures_market_klines": "binance klines",
    "binance/py_resources/http_futures_market_mark_price_klines": "binance markPriceKlines",
    "binance/py_resources/http_futures_market_index_price_klines": "binance markPriceKlines",
    "binance/py_resources/http_futures_market_open_interest": "binance openInterest",
    "binance/py_resources/http_futures_market_premium_index": "binance premiumIndex of one",
    "binance/py_resources/http_futures_market_ticker_24hr": "binance ticker",
    "binance/py_resources/http_futures_market_ticker_price": "binance price",
    "binance/py_resources/http_futures_market_trades": "binance trades",
    "binance/py_resources/http_futures_wallet_commission_rate": "binance commissionRate",
    "binance/py_resources/ws_futures_book_ticker": "binance ws bookTicker",
    "binance/py_resources/ws_futures_depth": "binance ws depthUpdate",
    "binance/py_resources/ws_futures_order_update_adl": "binance ws adl_autoclose CALCULATED",
    "binance/py_resources/ws_futures_order_update_liquidation": "binance ws autoclose CALCULATED",
    "binance/py_resources/ws_futures_order_update_new": "binance ws order NEW",
    "binance/py_resources/ws_futures_order_update_trade": "binance ws order TRADE",
    "binance/py_resources/ws_futures_ticker_24hr": "binance ws 24hrTicker",
    "binance/py_resources/ws_futures_trade_lite": "binance ws TRADE_LITE",
    # Hyperliquid
    "hyperliquid/eugene_l2book": "hyperliquid l2Book",
    "hyperliquid/nautilus_http_l2_book": "hyperliquid l2Book",
    "hyperliquid/nautilus_http_all_perp_metas": "hyperliquid allPerpMetas",
    "hyperliquid/nautilus_http_clearinghouse_state": "hyperliquid clearinghouseState",
    "hyperliquid/nautilus_http_funding_history": "hyperliquid fundingHistory",
    "hyperliquid/nautilus_http_meta_perp_sample": "hyperliquid meta",
    "hyperliquid/nautilus_http_recent_trades": "hyperliquid recentTrades",
    "hyperliquid/nautilus_http_spot_clearinghouse_state": "hyperliquid spotClearinghouseState",
    "hyperliquid/nautilus_http_spot_meta": "hyperliquid spotMeta",
    "hyperliquid/nautilus_http_user_fills": "hyperliquid userFills",
    "hyperliquid/nautilus_ws_allmids": "hyperliquid ws allMids",
    "hyperliquid/nautilus_ws_book_data": "hyperliquid l2Book",
    "hyperliquid/nautilus_ws_user_fill_liquidation": "hyperliquid ws user liquidated",
    "hyperliquid/sdk_cassette_test_get_all_mids": "hyperliquid allMids",
    "hyperliquid/sdk_cassette_test_get_candles": "hyperliquid candleSnapshot",
    "hyperliquid/sdk_cassette_test_get_funding_history": "hyperliquid fundingHistory",
    "hyperliquid/sdk_cassette_test_get_info": "hyperliquid meta",
    "hyperliquid/sdk_cassette_test_get_l2_snapshot": "hyperliquid l2Book",
    "hyperliquid/sdk_cassette_test_get_user_state": "hyperliquid clearinghouseState",
    "hyperliquid/sdk_cassette_test_user_funding_history": "hyperliquid userFunding",
    "hyperliquid/sdk_cassette_test_user_rate_limit": "hyperliquid userRateLimit",
    "binance/py_resources/ws_futures_algo_update": "binance ws ALGO_UPDATE",
    "binance_usdm/nautilus_docs_algo_update": "binance ws ALGO_UPDATE",
    # OKX
    "okx/nautilus_http_cancel_algo_order": "okx algo canceled",
    "okx/nautilus_http_get_account_balance": "okx balance",
    "okx/nautilus_http_get_account_positions-history": "okx closed",
    "okx/nautilus_http_get_orders_algo_history": "okx algo history",
    "okx/nautilus_http_get_orders_algo_pending": "okx algo trigger",
    "okx/nautilus_http_get_orders_algo_pending_close_fraction": "okx algo conditional",
    "okx/nautilus_http_place_algo_order": "okx algo placed",
    "okx/nautilus_http_get_candlesticks": "okx bars",
    "okx/nautilus_http_get_funding_rate_history": "okx funding history",
    "okx/nautilus_http_get_index_price": "okx index",
    "okx/nautilus_http_get_instruments_swap": "okx instruments",
    "okx/nautilus_http_get_mark_price": "okx mark",
    "okx/nautilus_http_get_order_book": "okx book",
    "okx/nautilus_http_get_orders_history": "okx history",
    "okx/nautilus_http_get_orders_pending": "okx pending",
    "okx/nautilus_http_get_position_tiers": "okx tiers",
    "okx/nautilus_http_get_positions": "okx positions",
    "okx/nautilus_http_get_trade_fee": "okx fee",
    "okx/nautilus_http_get_trades": "okx trades",
    "okx/nautilus_http_place_order": "okx placed",
    "okx/nautilus_http_set_position_mode": "okx mode",
    "okx/nautilus_http_transaction_detail": "okx fills",
    "okx/nautilus_ws_account": "okx ws account",
    "okx/nautilus_ws_bbo_tbt": "okx ws bbo-tbt",
    "okx/nautilus_ws_books_snapshot": "okx ws books snapshot",
    "okx/nautilus_ws_books_update": "okx ws books update",
    "okx/nautilus_ws_candle": "okx ws candle1H",
    "okx/nautilus_ws_funding_rate": "okx ws funding-rate",
    "okx/nautilus_ws_instruments": "okx ws instruments",
    "okx/nautilus_ws_orders": "okx ws orders normal",
    "okx/nautilus_ws_orders_algo": "okx ws orders-algo",
    "okx/nautilus_ws_orders_adl": "okx ws orders adl",
    "okx/nautilus_ws_orders_liquidation": "okx ws orders full_liquidation",
    "okx/nautilus_ws_tickers": "okx ws tickers",
    "okx/nautilus_ws_trades": "okx ws trades",
}
NOT_SERVED = {  # words in the names of files that the sandbox has nothing for
    "orders that bring a target and a stop along, or take their price from the book": "attached orders_trigger price_match touched",
    "written by hand, with other names than the venue's": "docs_open_algo place_algo_order_rejected",
    "other products": "sprd_orders spread option opt_summary _futures.json _margin.json _spot.json quarterly delivery asset_index index_info blvt bnfcr",
    "hedge mode": "hedge",
    "statistics over all traders": "ratio historical.json",
    "books of other exchanges on Hyperliquid": "perpdexs all_dexs",
    "an insurance fund, settlements by force, orders that are not yet closed": "insurance settlement calculated_pending",
    "a part of another file": "balance_detail account_empty",
    "ccxt's own words": "leverage_tiers",
}
WORTHLESS = {  # keys that the sandbox leaves out, and why
    "AP cr W activatePrice priceRate": "only of trailing stops",
    "settlePlan": "given up by the venue",
    "maxTradeSzs": "given up by the venue",
    "spread": "added by the venue's own page",
    "isDelisted onlyIsolated": "null there; the venue leaves them out unless they are true",
}


def recorded(name):
    raw = (RECORDED / name).read_bytes()
    if name.endswith(".yaml"):  # a cassette: what was answered last
        return json.loads(yaml.safe_load(raw)["interactions"][-1]["response"]["body"]["string"])
    said = json.loads(gzip.decompress(raw) if name.endswith(".gz") else raw)
    return said["data"] if isinstance(said, dict) and said.keys() == {"stream", "data"} else said


def files():
    """List the recorded files of perpetuals."""
    folders = ("binance_usdm", "binance/py_resources", "hyperliquid", "okx") if RECORDED.is_dir() else ()
    names = [f"{folder}/{path.name}" for folder in folders for path in (RECORDED / folder).glob("*.*")]
    return sorted(name for name in names if name.endswith((".json", ".gz", ".yaml")) and ("py_resources" not in name or "futures" in name))


def is_served(name):
    return not any(word in name for words in NOT_SERVED.values() for word in words.split())


def test_the_comparison_finds_what_is_wrong():
    assert lacking({"a": 1, "b": [{"c": "x"}]}, {"a": 2.5, "b": [{"c": "y", "d": 1}]}) == []
    assert lacking({"a": 1, "b": [{"c": "x"}]}, {"b": [{"c": 7}]}) == [".a", ".b[0].c: number for str"]
    assert lacking([[1, "x"]], [[1]]) == ["[0]: 1 fields for 2"] and lacking([{}], []) == [": empty"]


@pytest.mark.parametrize("name", [name for name in files() if is_served(name)])
def test_a_recorded_payload_has_its_like_in_the_sandbox(sent, name):
    known = [begins for begins in PAIRS if name.startswith(begins)]
    assert known, "say in PAIRS what it is compared with, or in NOT_SERVED why with nothing"
    theirs, ours = recorded(name), sent[PAIRS[max(known, key=len)]]
    if isinstance(ours, dict) and "data" in ours and not (isinstance(theirs, dict) and "data" in theirs):
        ours = ours["data"][0] if isinstance(ours["data"], list) else ours["data"]  # recorded without its envelope
    if "mids" in name:
        theirs, ours = (said.get("data", {}).get("mids", said)["BTC"] for said in (theirs, ours))
    spared = {key for keys in WORTHLESS for key in keys.split()}
    assert [each for each in lacking(theirs, ours) if each.rpartition(".")[2] not in spared] == []
