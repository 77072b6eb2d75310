"""What bots that we did not write ask for: every common request and stream is answered, and the rest is refused in the venue's own words."""

import asyncio
import hmac
import json
import time
from decimal import localcontext
from urllib.parse import urlencode

import aiohttp
import ccxt
import ccxt.pro
import pytest
import requests
from bots import SYMBOLS, OkxSocket, bot, opened

from fundarb.core.numbers import SECOND_NS
from fundarb.sandbox.host import OPENERS
from fundarb.sandbox.okx_gate import Keys

IDS = {"binance": "bot-1", "hyperliquid": "0x" + "ab" * 16, "okx": "bot1"}


@pytest.fixture(autouse=True)
def arithmetic():
    """Plain ccxt makes the whole thread round half up, and other tests are in it."""
    with localcontext():
        yield


@pytest.fixture
def moving():
    """A sandbox of one's own, whose market is moved on by hand."""
    with opened() as thread:
        yield thread


@pytest.fixture(scope="module")
def open_thread():
    with opened() as thread:
        yield thread


@pytest.fixture
def thread(open_thread):
    """The same sandbox for all, each with a fresh budget of requests."""
    servers = open_thread.sandbox.servers
    servers["hyperliquid"].weight.used = 0
    servers["okx"].windows.clear()
    return open_thread


# -- plain ccxt, without any of the settings that our own adapters make


READS = """fetch_status fetch_time fetch_currencies fetch_markets fetch_tickers fetch_mark_prices fetch_funding_rates
fetch_funding_intervals fetch_balance fetch_positions fetch_leverages fetch_trading_fees fetch_ledger fetch_deposits
fetch_withdrawals fetch_transfers fetch_accounts""".split()
READS_OF_ONE = """fetch_ticker fetch_order_book fetch_trades fetch_ohlcv fetch_mark_ohlcv fetch_index_ohlcv
fetch_premium_index_ohlcv fetch_mark_price fetch_funding_rate fetch_funding_rate_history fetch_funding_interval
fetch_open_interest fetch_leverage fetch_market_leverage_tiers fetch_margin_mode fetch_position_mode fetch_trading_fee
fetch_open_orders fetch_orders fetch_closed_orders fetch_canceled_orders fetch_canceled_and_closed_orders fetch_my_trades
fetch_funding_history fetch_my_liquidations fetch_position_adl_rank""".split()
FULL = "fetch_ticker fetch_order_book fetch_ohlcv fetch_funding_rate fetch_markets".split()


@pytest.mark.parametrize("venue", OPENERS)
def test_whatever_plain_ccxt_can_ask_is_answered(thread, venue):
    client, symbol = bot(ccxt, venue, thread.known), SYMBOLS[venue]
    client.load_markets()
    calls = [(name, ()) for name in READS] + [(name, (symbol,)) for name in READS_OF_ONE]
    calls = [(name, about) for name, about in calls if client.has.get(camel(name))]
    assert len(calls) >= 20
    said = {name: getattr(client, name)(*about) for name, about in calls}
    assert not [name for name in FULL if name in said and not said[name]]
    market_ms = thread.sandbox.world.now_ns // 1_000_000
    assert client.fetch_funding_rate_history(symbol, market_ms - 86_400_000)
    minutes = client.fetch_ohlcv(symbol, "1m", market_ms - 3 * 3_600_000, 120)
    assert len(minutes) >= 100 and {b[0] - a[0] for a, b in zip(minutes, minutes[1:])} == {60_000}


def camel(name):
    first, *rest = name.split("_")
    return first + "".join("OHLCV" if word == "ohlcv" else word.title() for word in rest)


@pytest.mark.parametrize("venue", OPENERS)
def test_plain_ccxt_trades_amends_and_closes(thread, venue):
    client, symbol = bot(ccxt, venue, thread.known), SYMBOLS[venue]
    client.load_markets()
    price, amount = client.fetch_order_book(symbol)["bids"][0][0], 0.01 / (client.market(symbol)["contractSize"] or 1)
    client.set_leverage(5, symbol)
    client.create_order(symbol, "limit", "buy", amount, round(price * 0.99), {"clientOrderId": IDS[venue]})
    (rests,) = client.fetch_open_orders(symbol)
    client.edit_order(rests["id"], symbol, "limit", "buy", amount * 2, round(price * 0.98))
    (rests,) = client.fetch_open_orders(symbol)
    client.edit_order(rests["id"], symbol, "limit", "buy", amount * 3, round(price * 0.98))  # once is never enough
    (rests,) = client.fetch_open_orders(symbol)
    assert (rests["amount"], rests["price"]) == (pytest.approx(amount * 3), round(price * 0.98))
    client.cancel_order(rests["id"], symbol)
    assert client.fetch_open_orders(symbol) == []
    assert client.fetch_order(rests["id"], symbol)["status"] == "canceled"
    client.create_order(symbol, "market", "buy", amount, price)
    (held,) = client.fetch_positions([symbol])
    assert (held["side"], held["contracts"]) == ("long", amount)
    client.create_order(symbol, "market", "sell", amount, price, {"reduceOnly": True})
    assert client.fetch_positions([symbol]) == []
    assert [row["side"] for row in client.fetch_my_trades(symbol)] == ["buy", "sell"]
    account = thread.sandbox.world.account(venue)
    assert client.fetch_balance()["total"]["USDC" if venue == "hyperliquid" else "USDT"] == pytest.approx(float(account.wallet))


# -- raw requests


@pytest.fixture
def binance(thread):
    known = thread.known["binance"]

    def ask(endpoint, **form):
        method, path = endpoint.split()
        text = urlencode(form | {"timestamp": time.time_ns() // 1_000_000})
        signature = hmac.new(known["secret"].encode(), text.encode(), "sha256").hexdigest()
        url = f"{known['rest']}{path}?{text}&signature={signature}"
        said = requests.request(method, url, headers={"X-MBX-APIKEY": known["api_key"]}, timeout=10)
        return said.status_code, said.json()

    return ask


BTC = {"symbol": "BTCUSDT"}
BINANCE = [
    ("GET /fapi/v1/exchangeInfo", {}, "symbols"),
    ("GET /fapi/v1/depth", BTC | {"limit": 5}, "lastUpdateId"),
    ("GET /fapi/v1/trades", BTC, "isBuyerMaker"),
    ("GET /fapi/v1/historicalTrades", BTC, "isBuyerMaker"),
    ("GET /fapi/v1/aggTrades", BTC, "a"),
    ("GET /fapi/v1/premiumIndex", BTC, "lastFundingRate"),
    ("GET /fapi/v1/premiumIndex", {}, "nextFundingTime"),
    ("GET /fapi/v1/fundingRate", BTC, "fundingTime"),
    ("GET /fapi/v1/fundingInfo", {}, "fundingIntervalHours"),
    ("GET /fapi/v1/ticker/24hr", BTC, "quoteVolume"),
    ("GET /fapi/v2/ticker/price", BTC, "price"),
    ("GET /fapi/v1/ticker/bookTicker", {}, "bidQty"),
    ("GET /fapi/v1/openInterest", BTC, "openInterest"),
    ("GET /fapi/v2/account", {}, "positions"),
    ("GET /fapi/v3/account", {}, "assets"),
    ("GET /fapi/v2/balance", {}, "crossWalletBalance"),
    ("GET /fapi/v3/balance", {}, "availableBalance"),
    ("GET /fapi/v2/positionRisk", BTC, "leverage"),
    ("GET /fapi/v1/accountConfig", {}, "canTrade"),
    ("GET /fapi/v1/symbolConfig", BTC, "marginType"),
    ("GET /fapi/v1/commissionRate", BTC, "takerCommissionRate"),
    ("GET /fapi/v1/leverageBracket", BTC, "brackets"),
    ("GET /fapi/v1/positionSide/dual", {}, "dualSidePosition"),
    ("GET /fapi/v1/multiAssetsMargin", {}, "multiAssetsMargin"),
    ("GET /fapi/v1/rateLimit/order", {}, "intervalNum"),
    ("GET /fapi/v1/adlQuantile", {}, "adlQuantile"),
    ("POST /fapi/v1/leverage", BTC | {"leverage": 7}, "maxNotionalValue"),
    ("POST /fapi/v1/countdownCancelAll", BTC | {"countdownTime": 0}, "countdownTime"),
    ("DELETE /fapi/v1/allOpenOrders", BTC, "code"),
    ("POST /fapi/v1/listenKey", {}, "listenKey"),
    ("PUT /fapi/v1/listenKey", {}, "listenKey"),
]
BINANCE_REFUSES = [
    ("GET /fapi/v1/nothing", {}, 404, -5000),
    ("GET /fapi/v1/klines", BTC | {"interval": "7m"}, 400, -1120),
    ("GET /fapi/v1/klines", {"interval": "1h"}, 400, -1102),
    ("GET /fapi/v1/depth", {"symbol": "NOPEUSDT"}, 400, -1121),
    ("GET /fapi/v1/depth", BTC | {"limit": "many"}, 400, -1102),
    ("POST /fapi/v1/marginType", BTC | {"marginType": "CROSSED"}, 400, -4046),
    ("POST /fapi/v1/positionSide/dual", {"dualSidePosition": "false"}, 400, -4059),
    ("POST /fapi/v1/multiAssetsMargin", {"multiAssetsMargin": "false"}, 400, -4171),
    ("POST /fapi/v1/batchOrders", {"batchOrders": "no list"}, 400, -1102),
    ("POST /fapi/v1/order", BTC | {"side": "BUY", "type": "STOP_MARKET", "quantity": "1"}, 400, -4120),
    ("POST /fapi/v1/countdownCancelAll", BTC | {"countdownTime": "soon"}, 400, -1102),
    ("POST /fapi/v1/algoOrder", BTC | {"side": "BUY", "type": "STOP_MARKET", "triggerPrice": "1"}, 400, -1102),
    ("DELETE /fapi/v1/algoOrder", {"algoId": 1}, 400, -2011),
    ("DELETE /fapi/v1/batchOrders", BTC, 400, -1102),
    ("POST /fapi/v1/marginType", BTC | {"marginType": "SIDEWAYS"}, 400, -1130),
    ("POST /fapi/v1/positionMargin", BTC | {"amount": "5", "type": "1"}, 400, -4049),
    ("POST /fapi/v1/positionMargin", BTC | {"amount": "5", "type": "3"}, 400, -1102),
    ("POST /fapi/v1/positionSide/dual", {"dualSidePosition": "true"}, 400, -1020),
    ("GET /futures/data/basis", {"pair": "BTCUSDT", "period": "7m"}, 400, -1130),
    ("GET /futures/data/nothing", {}, 404, -5000),
]
MARKET = BTC | {"side": "BUY", "type": "MARKET", "quantity": "0.01"}
BINANCE_REFUSES += [("POST /fapi/v1/order/test", MARKET | {"closePosition": "true"}, 400, -4136)]
STOP = BTC | {"side": "BUY", "algoType": "CONDITIONAL", "type": "STOP_MARKET", "quantity": "0.01"}
BINANCE_REFUSES += [
    ("POST /fapi/v1/algoOrder", STOP, 400, -1102),
    ("POST /fapi/v1/algoOrder", STOP | {"triggerPrice": "1"}, 400, -2021),
    ("POST /fapi/v1/algoOrder", STOP | {"triggerPrice": "99999.999"}, 400, -1111),
    ("POST /fapi/v1/algoOrder", STOP | {"triggerPrice": "99999", "closePosition": "true"}, 400, -4137),
    ("POST /fapi/v1/algoOrder", STOP | {"triggerPrice": "99999", "type": "TRAILING_STOP_MARKET"}, 400, -1020),
    ("GET /fapi/v1/algoOrder", {"algoId": 1}, 400, -2013),
]
BINANCE_REFUSES += [
    ("POST /fapi/v1/order/test", MARKET | {word: "1"}, 400, -1106)
    for word in ("stopPrice", "activationPrice", "callbackRate", "priceMatch", "goodTillDate")
]
EMPTY = ("openOrders", "userTrades", "income", "allOrders", "forceOrders", "positionMargin/history", "openAlgoOrders", "allAlgoOrders")


def test_binance_answers_what_is_asked_of_it(binance):
    for endpoint, form, key in BINANCE:
        status, said = binance(endpoint, **form)
        row = said[0] if isinstance(said, list) else said
        assert status == 200 and key in row, (endpoint, said)
    for name in EMPTY:
        status, said = binance(f"GET /fapi/v1/{name}", symbol="ETHUSDT")
        assert (status, said) == (200, []), name
    for kind in ("klines", "markPriceKlines", "premiumIndexKlines", "indexPriceKlines", "continuousKlines"):
        status, rows = binance(f"GET /fapi/v1/{kind}", **BTC, pair="BTCUSDT", interval="15m", contractType="PERPETUAL", limit=8)
        assert status == 200 and len(rows) == 8 and {len(row) for row in rows} == {12}


@pytest.mark.parametrize("endpoint, form, status, code", BINANCE_REFUSES)
def test_binance_refuses_in_its_own_words(binance, endpoint, form, status, code):
    got, said = binance(endpoint, **form)
    assert (got, said["code"], type(said["msg"])) == (status, code, str)


@pytest.mark.parametrize("in_query, in_body", [("timestamp", "symbol"), ("symbol", "timestamp"), ("symbol timestamp", ""), ("", "symbol timestamp")])
@pytest.mark.parametrize("signed_in", ["query", "body"])
def test_binance_verifies_what_is_signed_wherever_it_stands(thread, in_query, in_body, signed_in):
    """The query and the form are signed as one text without anything between them, as pybotters does."""
    known, words = thread.known["binance"], {"symbol": "BTCUSDT", "timestamp": time.time_ns() // 1_000_000}
    parts = {where: urlencode({name: words[name] for name in names.split()}) for where, names in (("query", in_query), ("body", in_body))}
    signature = hmac.new(known["secret"].encode(), "".join(parts.values()).encode(), "sha256").hexdigest()
    headers = {"X-MBX-APIKEY": known["api_key"], "Content-Type": "application/x-www-form-urlencoded"}
    for given, status in ((signature, 200), (signature[::-1], 400)):
        sent = parts | {signed_in: "&".join(filter(None, (parts[signed_in], f"signature={given}")))}
        url = f"{known['rest']}/fapi/v1/allOpenOrders?{sent['query']}".removesuffix("?")
        assert requests.delete(url, data=sent["body"], headers=headers, timeout=10).status_code == status


def test_binance_takes_the_same_requests_over_a_socket(thread):
    """What python-binance and the official SDK send to ws-fapi: all parameters in the order of the alphabet, signed."""
    known = thread.known["binance"]
    low = str(int(thread.sandbox.world.book("binance", "BTC").bids[0].price * 0.98))
    limit = BTC | {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": low, "newClientOrderId": "ws-1"}
    name = BTC | {"origClientOrderId": "ws-1"}
    turns = [("order.place", limit), ("order.modify", name | {"side": "BUY", "quantity": "0.02", "price": low})]
    turns += [("order.status", name), ("order.cancel", name), ("order.cancel", name)]
    turns += [(f"{version}account.{what}", {}) for version in ("", "v2/") for what in ("balance", "status", "position")]
    turns += [("depth", BTC), ("ticker.price", BTC), ("ticker.book", BTC), ("userDataStream.start", {}), ("order.guess", {})]

    async def play():
        async with aiohttp.ClientSession() as session, session.ws_connect(known["ws"].removesuffix("/ws") + "/ws-fapi/v1") as socket:
            for id, (method, params) in enumerate(turns):
                words = dict(sorted((params | {"apiKey": known["api_key"], "timestamp": time.time_ns() // 1_000_000}).items()))
                words["signature"] = hmac.new(known["secret"].encode(), urlencode(words).encode(), "sha256").hexdigest()
                await socket.send_json({"id": id, "method": method, "params": words})
            return [await socket.receive_json(timeout=20) for _ in turns]

    said = asyncio.run(play())
    assert [one["id"] for one in said] == list(range(len(turns)))
    assert [one["status"] for one in said] == [200] * 4 + [400] + [200] * 10 + [400]
    assert [one["result"]["status"] for one in said[:4]] == ["NEW", "NEW", "NEW", "CANCELED"]
    assert (said[2]["result"]["origQty"], said[4]["error"]["code"], said[-1]["error"]["code"]) == ("0.02", -2011, -1020)
    assert [row["rateLimitType"] for row in said[0]["rateLimits"]] == ["REQUEST_WEIGHT", "ORDERS", "ORDERS"]


@pytest.fixture
def okx(thread):
    known = thread.known["okx"]
    keys = Keys(known["api_key"], known["secret"], known["passphrase"])

    def ask(endpoint, **about):
        method, path = endpoint.split()
        query = f"?{urlencode(about)}" if method == "GET" and about else ""
        body = json.dumps(about) if method == "POST" else ""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        sign = keys.sign(f"{stamp}{method}/api/v5/{path}{query}{body}".encode())
        named = {"KEY": keys.api_key, "SIGN": sign, "TIMESTAMP": stamp, "PASSPHRASE": keys.passphrase}
        headers = {f"OK-ACCESS-{name}": value for name, value in named.items()} | {"Content-Type": "application/json"}
        url = f"{known['rest']}/api/v5/{path}{query}"
        said = requests.request(method, url, headers=headers, data=body, timeout=10)
        return said.status_code, said.json()

    return ask


SWAP = {"instId": "BTC-USDT-SWAP"}
OKX = [
    ("GET public/instruments", {"instType": "SWAP"}, "ctVal"),
    ("GET public/time", {}, "ts"),
    ("GET public/funding-rate", SWAP, "fundingTime"),
    ("GET public/funding-rate-history", SWAP, "realizedRate"),
    ("GET public/mark-price", SWAP | {"instType": "SWAP"}, "markPx"),
    ("GET public/open-interest", {"instType": "SWAP"}, "oiCcy"),
    ("GET public/price-limit", SWAP, "buyLmt"),
    ("GET public/position-tiers", {"instType": "SWAP", "tdMode": "cross", "instFamily": "BTC-USDT"}, "maxLever"),
    ("GET market/index-tickers", {"instId": "BTC-USDT"}, "idxPx"),
    ("GET market/books", SWAP | {"sz": 5}, "bids"),
    ("GET market/books-full", SWAP | {"sz": 5}, "asks"),
    ("GET market/ticker", SWAP, "last"),
    ("GET market/tickers", {"instType": "SWAP"}, "volCcy24h"),
    ("GET market/trades", SWAP, "tradeId"),
    ("GET market/history-trades", SWAP, "side"),
    ("GET account/config", {}, "posMode"),
    ("GET account/balance", {}, "totalEq"),
    ("GET account/instruments", {"instType": "SWAP"}, "lotSz"),
    ("GET account/leverage-info", SWAP | {"mgnMode": "cross"}, "lever"),
    ("GET account/trade-fee", {"instType": "SWAP"}, "taker"),
    ("GET account/max-size", SWAP | {"tdMode": "cross"}, "maxBuy"),
    ("GET account/max-avail-size", SWAP | {"tdMode": "cross"}, "availBuy"),
    ("GET account/account-position-risk", {}, "balData"),
    ("GET account/risk-state", {}, "atRisk"),
    ("GET trade/account-rate-limit", {}, "accRateLimit"),
    ("POST account/set-leverage", SWAP | {"lever": "4", "mgnMode": "cross"}, "lever"),
    ("POST account/set-position-mode", {"posMode": "net_mode"}, "posMode"),
    ("POST trade/cancel-all-after", {"timeOut": "0"}, "triggerTime"),
]
OKX_EMPTY = ("system/status", "trade/orders-pending", "account/positions", "asset/balances")
OKX_REFUSES = [
    ("GET public/nothing", {}, 404, "50404"),
    ("GET market/candles", SWAP | {"bar": "7m"}, 200, "51000"),
    ("GET market/books", {"instId": "NOPE-USDT-SWAP"}, 200, "51001"),
    ("GET market/books", SWAP | {"sz": "many"}, 400, "51000"),
    ("POST account/set-leverage", SWAP | {"lever": "4", "mgnMode": "portfolio"}, 200, "51000"),
    ("POST account/set-leverage", SWAP | {"lever": "4", "mgnMode": "isolated", "posSide": "long"}, 200, "51000"),
    ("POST trade/close-position", SWAP | {"mgnMode": "cross"}, 200, "51023"),
    ("POST trade/amend-order", SWAP | {"clOrdId": "never", "newSz": "1"}, 200, "1"),
    ("POST trade/cancel-all-after", {"timeOut": "5"}, 200, "51000"),
    ("POST trade/order", SWAP | {"side": "buy", "ordType": "market", "tdMode": "cross", "sz": "1", "attachAlgoOrds": [{}]}, 200, "1"),
    ("POST trade/order-algo", SWAP | {"side": "buy", "ordType": "trigger", "tdMode": "cross", "sz": "1"}, 200, "1"),
    ("POST trade/order-algo", SWAP | {"side": "buy", "ordType": "move_order_stop", "tdMode": "cross", "sz": "1"}, 200, "1"),
    ("GET trade/orders-algo-pending", {}, 200, "50014"),
    ("GET trade/order-algo", {"algoId": "1"}, 200, "51603"),
    ("POST account/position/margin-balance", SWAP | {"posSide": "net", "type": "add", "amt": "1"}, 200, "59300"),
    ("POST account/position/margin-balance", SWAP | {"posSide": "net", "type": "give", "amt": "1"}, 200, "51000"),
]


def test_okx_answers_what_is_asked_of_it(okx):
    for endpoint, about, key in OKX:
        status, said = okx(endpoint, **about)
        assert (status, said["code"]) == (200, "0") and key in said["data"][0], (endpoint, said)
    for path in OKX_EMPTY:
        assert okx(f"GET {path}") == (200, {"code": "0", "msg": "", "data": []}), path
    for kind in ("candles", "history-candles", "mark-price-candles", "index-candles"):
        status, said = okx(f"GET market/{kind}", instId="BTC-USDT" if "index" in kind else SWAP["instId"], bar="5m", limit=8)
        assert status == 200 and len(said["data"]) == 8, kind


@pytest.mark.parametrize("endpoint, about, status, code", OKX_REFUSES)
def test_okx_refuses_in_its_own_words(okx, endpoint, about, status, code):
    got, said = okx(endpoint, **about)
    assert (got, said["code"], type(said["msg"])) == (status, code, str)


INFO = """meta metaAndAssetCtxs allMids l2Book candleSnapshot fundingHistory predictedFundings clearinghouseState
spotClearinghouseState openOrders frontendOpenOrders historicalOrders userFills userFillsByTime userFunding orderStatus
userFees userRateLimit userRole spotMeta spotMetaAndAssetCtxs perpDexs recentTrades exchangeStatus activeAssetData webData2
portfolio extraAgents subAccounts referral userAbstraction maxBuilderFee userNonFundingLedgerUpdates userTwapSliceFills
userVaultEquities perpsAtOpenInterestCap allPerpMetas""".split()


def test_hyperliquid_answers_what_is_asked_of_it(thread):
    known, world = thread.known["hyperliquid"], thread.sandbox.world
    about = {"user": known["wallet_address"], "coin": "BTC", "startTime": 0, "oid": 1}
    about["req"] = {"coin": "BTC", "interval": "15m", "startTime": world.now_ns // 1_000_000 - 4 * 3_600_000}
    said = {}
    for kind in INFO:
        got = requests.post(f"{known['rest']}/info", json={"type": kind, **about}, timeout=10)
        assert got.status_code == 200, (kind, got.text)
        said[kind] = got.json()
    assert {b["t"] - a["t"] for a, b in zip(said["candleSnapshot"], said["candleSnapshot"][1:])} == {900_000}
    assert said["userRole"] == {"role": "user"} and said["orderStatus"] == {"status": "unknownOid"}
    assert said["activeAssetData"]["coin"] == "BTC" and said["webData2"]["clearinghouseState"] == said["clearinghouseState"]
    agent = ccxt.hyperliquid().eth_get_address_from_private_key(known["private_key"])
    role = requests.post(f"{known['rest']}/info", json={"type": "userRole", "user": agent}, timeout=10).json()
    assert role == {"role": "agent", "data": {"user": known["wallet_address"]}}
    for bad in ({"type": "nothing"}, {"type": "l2Book", "coin": "NOPE"}, {"type": "userFunding", "user": "me"}):
        got = requests.post(f"{known['rest']}/info", json=bad, timeout=10)
        assert got.status_code == 422 and got.text, bad


# -- streams


PUBLIC = """watch_order_book watch_trades watch_ticker watch_bids_asks watch_mark_price watch_ohlcv watch_funding_rate
watch_order_book_for_symbols watch_trades_for_symbols watch_tickers watch_mark_prices watch_funding_rates""".split()
PRIVATE = "watch_balance watch_orders watch_my_trades watch_positions".split()
MANY = ("for_symbols", "tickers", "prices", "asks", "rates")


async def step(thread):
    """Let the next thing happen in the sandbox's market."""

    async def once():
        thread.sandbox.world.step()

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(once(), thread._loop))


@pytest.mark.parametrize("venue", IDS)
def test_every_watch_of_ccxt_hears_something(moving, venue):
    async def play():
        client, symbol = bot(ccxt.pro, venue, moving.known), SYMBOLS[venue]
        try:
            await client.load_markets()
            await client.set_leverage(5, symbol)
            names = [name for name in PUBLIC if client.has.get(camel(name))] + PRIVATE
            about = {name: ([symbol],) if name.endswith(MANY) else (symbol,) for name in PUBLIC} | {name: () for name in PRIVATE}
            waiting = {name: asyncio.ensure_future(getattr(client, name)(*about[name])) for name in names}
            amount, side = 0.01 / (client.market(symbol)["contractSize"] or 1), "buy"
            price = (await client.fetch_order_book(symbol))["bids"][0][0]
            async with asyncio.timeout(60):
                while not all(task.done() for task in waiting.values()):
                    await client.create_order(symbol, "market", side, amount, price)
                    side = "sell" if side == "buy" else "buy"
                    for _ in range(4):
                        await step(moving)
                        await asyncio.sleep(0.01)
            said = {name: task.result() for name, task in waiting.items()}
            assert len(said) >= 9 and all(value for name, value in said.items() if name != "watch_positions"), said
            assert said["watch_my_trades"][0]["amount"] == amount and said["watch_balance"]["total"]
        except TimeoutError:
            pytest.fail(f"silent: {[name for name, task in waiting.items() if not task.done()]}")
        finally:
            for task in waiting.values():
                task.cancel()
            await asyncio.gather(*waiting.values(), return_exceptions=True)
            await client.close()

    asyncio.run(play())


def heard(messages, wanted, thread, within_s=60.0):
    """Step the market until every wanted name was heard; name what was not."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        names = {name for message in list(messages) for name in wanted if name in message}
        if names == set(wanted):
            return
        asyncio.run_coroutine_threadsafe(step_once(thread), thread._loop).result(5)
        time.sleep(0.02)
    pytest.fail(f"silent: {sorted(set(wanted) - names)}; heard {messages[:3]}")


async def step_once(thread):
    thread.sandbox.world.step()


async def pass_by(thread, seconds):
    """Let some time go by in the sandbox's market, and the prices be said again."""

    async def once():
        world = thread.sandbox.world
        world.advance(world.now_ns + seconds * SECOND_NS)
        world.beat()

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(once(), thread._loop))


CANDLES = {
    "binance": (["/market/ws/1", "/market/stream?streams=btcusdt@kline_1m", "/stream?streams=btcusdt@kline_1m"], "btcusdt@kline_1m"),
    "hyperliquid": (["/ws"], {"type": "candle", "coin": "BTC", "interval": "1m"}),
    "okx": (["/ws/v5/business"], {"channel": "candle1m", "instId": "BTC-USDT-SWAP"}),
}


def bar_in(venue, said):
    """Read a message: when the bar opened, its close, and whether it has ended, where the venue says so."""
    if venue == "binance":
        bar = said.get("data", said).get("k")
        return bar and (bar["t"], float(bar["c"]), bar["x"])
    if venue == "hyperliquid":
        bar = said["data"] if said.get("channel") == "candle" else None
        return bar and (bar["t"], float(bar["c"]), None)
    row = said["data"][0] if "data" in said else None
    return row and (int(row[0]), float(row[4]), row[-1] == "1")


@pytest.mark.parametrize("venue", CANDLES)
def test_who_watches_minutes_hears_of_the_one_that_grows_and_of_each_end(moving, venue):
    paths, asked = CANDLES[venue]
    base, world, said = moving.known[venue]["rest"], moving.sandbox.world, {path: [] for path in paths}
    words = {"binance": {"method": "SUBSCRIBE", "params": [asked], "id": 1}, "okx": {"op": "subscribe", "args": [asked]}}
    words["hyperliquid"] = {"method": "subscribe", "subscription": asked}

    async def listen(session, path):
        async with session.ws_connect(base + path) as socket:
            await socket.send_json(words[venue])
            while sum(bar is not None for bar in said[path]) < 8:
                said[path].append(bar_in(venue, await socket.receive_json(timeout=30)))

    async def play():
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            tasks = [asyncio.ensure_future(listen(session, path)) for path in paths]
            while not all(task.done() for task in tasks):
                await pass_by(moving, 30)
                await asyncio.sleep(0.02)
            await asyncio.gather(*tasks)

    asyncio.run(play())
    for path, bars in said.items():
        told = [bar for bar in bars if bar]
        opened = [at for at, _, _ in told]
        assert opened == sorted(opened) and {b - a for a, b in zip(opened, opened[1:])} == {0, 60_000}, path
        ends = [at for at, _, ended in told if ended]
        assert len(ends) == len(set(ends)) and (venue == "hyperliquid" or len(ends) >= 2), path
        assert opened[-1] <= world.now_ns // 1_000_000


@pytest.mark.parametrize("path", ["/stream", "/public/stream", "/market/stream", "/private/stream"])
def test_a_combined_socket_of_any_category_names_the_stream(moving, path):
    async def play():
        async with aiohttp.ClientSession() as session:
            url = f"{moving.known['binance']['rest']}{path}?streams=btcusdt@markPrice@1s/!ticker@arr"
            async with session.ws_connect(url) as socket:
                said = {}
                while len(said) < 2:
                    await pass_by(moving, 1)
                    message = await socket.receive_json(timeout=20)
                    said[message["stream"]] = message["data"]
        assert said["btcusdt@markPrice@1s"]["e"] == "markPriceUpdate" and said["!ticker@arr"][0]["e"] == "24hrTicker"

    asyncio.run(play())


def test_an_order_keeps_its_cloid_when_it_is_modified(thread):
    exchange = pytest.importorskip("hyperliquid.exchange", reason="hyperliquid-python-sdk is not installed")
    from eth_account import Account as Wallet
    from hyperliquid.utils.types import Cloid

    known, name = thread.known["hyperliquid"], Cloid("0x" + "c1" * 16)
    desk = exchange.Exchange(Wallet.from_key(known["private_key"]), known["rest"], account_address=known["wallet_address"])
    low = float(int(thread.sandbox.world.book("hyperliquid", "BTC").bids[0].price * 0.98))
    form = {"coin": "BTC", "is_buy": True, "sz": 0.01, "limit_px": low, "order_type": {"limit": {"tif": "Alo"}}, "reduce_only": False}
    desk.bulk_orders([form | {"cloid": name}])
    for size in (0.02, 0.03):
        said = desk.bulk_modify_orders_new([{"oid": name, "order": form | {"sz": size, "cloid": name}}])
        assert "resting" in said["response"]["data"]["statuses"][0], said
    now = desk.info.query_order_by_cloid(known["wallet_address"], name)["order"]
    assert (now["status"], now["order"]["origSz"]) == ("open", "0.03")
    assert desk.cancel_by_cloid("BTC", name)["response"]["data"]["statuses"] == ["success"]


def test_the_connectors_own_sockets(moving):
    futures = pytest.importorskip("binance.um_futures", reason="binance-futures-connector is not installed")
    from binance.websocket.um_futures.websocket_client import UMFuturesWebsocketClient

    known, messages = moving.known["binance"], []
    rest = futures.UMFutures(known["api_key"], known["secret"], base_url=known["rest"])
    socket = UMFuturesWebsocketClient(stream_url=known["ws"].removesuffix("/ws"), on_message=lambda _, text: messages.append(text))
    try:
        socket.user_data(listen_key=rest.new_listen_key()["listenKey"])
        socket.mark_price(symbol="btcusdt", speed=1)
        socket.diff_book_depth(symbol="btcusdt", speed=100)
        socket.partial_book_depth(symbol="btcusdt", level=5, speed=100)
        socket.book_ticker(symbol="btcusdt")
        socket.ticker(symbol="btcusdt")
        socket.mini_ticker(symbol="btcusdt")
        socket.agg_trade(symbol="btcusdt")
        socket.kline(symbol="btcusdt", interval="1m")
        heard(messages, ['"markPriceUpdate"', '"depthUpdate"', '"bookTicker"', '"24hrTicker"', '"24hrMiniTicker"'], moving)
        order = {"symbol": "BTCUSDT", "type": "MARKET", "quantity": 0.01, "side": "BUY"}
        assert rest.new_order(**order, newClientOrderId="sock-1", newOrderRespType="RESULT")["status"] == "FILLED"
        heard(messages, ['"ORDER_TRADE_UPDATE"', '"ACCOUNT_UPDATE"', '"aggTrade"', '"kline"'], moving)
    finally:
        socket.stop()
    fills = [json.loads(text)["o"] for text in messages if '"x":"TRADE"' in text]
    assert [(one["c"], one["l"], one["X"]) for one in fills] == [("sock-1", "0.01", "FILLED")]
    minutes = [json.loads(text)["k"] for text in messages if '"kline"' in text]
    assert {one["T"] - one["t"] for one in minutes} == {59_999}


def test_python_okx_listens_logs_in_and_trades_on_its_sockets(moving, monkeypatch):
    pytest.importorskip("okx", reason="python-okx is not installed")
    from okx.websocket.WsPrivateAsync import WsPrivateAsync
    from okx.websocket.WsPublicAsync import WsPublicAsync

    monkeypatch.setenv("SSL_CERT_FILE", moving.known["tls"]["ca_file"])
    known, port = moving.known["okx"], moving.sandbox.servers["okx"].tls_port
    keys = {"apiKey": known["api_key"], "passphrase": known["passphrase"], "secretKey": known["secret"]}
    public = OkxSocket(WsPublicAsync, f"wss://127.0.0.1:{port}/ws/v5/public")
    private = OkxSocket(WsPrivateAsync, f"wss://127.0.0.1:{port}/ws/v5/private", **keys)
    try:
        names = ["books", "books5", "bbo-tbt", "tickers", "mark-price", "funding-rate", "trades", "open-interest", "price-limit"]
        public.subscribe(*({"channel": name} | SWAP for name in names), {"channel": "index-tickers", "instId": "BTC-USDT"})
        heard(public.messages, [f'"channel":"{name}"' for name in (*names, "index-tickers")], moving)
        wanted = [{"channel": name, "instType": "SWAP"} for name in ("orders", "positions")]
        private.subscribe(*wanted, {"channel": "account"}, {"channel": "balance_and_position"})
        heard(private.messages, ['"event":"login"', '"event":"subscribe"'], moving)
        order = SWAP | {"tdMode": "cross", "side": "buy", "ordType": "market", "sz": "1", "clOrdId": "sock1"}
        private.run(private.client.send("order", [order], id="7"))
        heard(private.messages, ['"op":"order"', '"clOrdId":"sock1"', '"eventType":"filled"', '"availEq"'], moving)
        resting = order | {"ordType": "post_only", "px": "50000", "clOrdId": "sock2"}
        resting |= {"px": str(int(moving.sandbox.world.book("okx", "BTC").bids[0].price * 0.99))}
        private.run(private.client.send("order", [resting], id="8"))
        private.run(private.client.send("amend-order", [SWAP | {"clOrdId": "sock2", "newSz": "2"}], id="9"))
        private.run(private.client.send("cancel-order", [SWAP | {"clOrdId": "sock2"}], id="10"))
        heard(private.messages, ['"id":"10"', '"amendResult":"0"', '"state":"canceled"'], moving)
    finally:
        public.stop()
        private.stop()
    answers = [json.loads(text) for text in private.messages if '"op":' in text]
    assert [(one["id"], one["code"], one["data"][0]["sCode"]) for one in answers] == [(id, "0", "0") for id in ("7", "8", "9", "10")]
    assert str(moving.sandbox.world.account("okx").held("BTC")) == "0.01"
