"""Stops and targets over the wire: kept apart from orders, listed where the venue lists them, and sent when the mark gets there."""

import json
from decimal import localcontext

import ccxt
import pytest
from bots import SYMBOLS, bot, jump, opened, python_okx, until, user_stream


@pytest.fixture(autouse=True)
def arithmetic():
    """Plain ccxt makes the whole thread round half up, and other tests are in it."""
    with localcontext():
        yield


@pytest.fixture
def thread():
    with opened() as thread:
        yield thread


@pytest.mark.parametrize("venue", list(SYMBOLS))
def test_plain_ccxt_protects_a_position_with_a_stop_and_a_target(thread, venue):
    client, symbol, account = bot(ccxt, venue, thread.known), SYMBOLS[venue], thread.sandbox.world.account(venue)
    client.load_markets()
    amount, price = 0.1 / (client.market(symbol)["contractSize"] or 1), client.fetch_order_book(symbol)["asks"][0][0]
    client.create_order(symbol, "market", "buy", amount, price)
    reduces = {"reduceOnly": True}

    def protect(kind, at, **more):
        return client.create_order(symbol, kind, "sell", amount, at, reduces | more)

    def waiting():
        kind = {"ordType": "conditional"} if venue == "okx" else {}
        return {row["id"]: row for row in client.fetch_open_orders(symbol, params={"trigger": True} | kind)}

    stop = protect("market", price * 0.95, stopLossPrice=round(price * 0.97))
    target = protect("market", price * 0.98, takeProfitPrice=round(price * 1.03))
    limit = protect("limit", round(price * 0.99), takeProfitPrice=round(price * 1.04))
    assert set(waiting()) == {stop["id"], target["id"], limit["id"]}
    row = waiting()[stop["id"]]
    assert (row["triggerPrice"] or row["stopLossPrice"]) == round(price * 0.97)
    assert (row["side"], row["status"], row["amount"]) == ("sell", "open", amount)
    with pytest.raises(ccxt.ExchangeError):  # the price is there already
        protect("market", price, stopLossPrice=round(price * 1.01))
    client.cancel_order(limit["id"], symbol, {"trigger": True})
    assert set(waiting()) == {stop["id"], target["id"]}
    with pytest.raises(ccxt.ExchangeError):
        client.cancel_order(limit["id"], symbol, {"trigger": True})

    jump(thread, venue, "BTC", 0.98)
    assert account.held("BTC") > 0 and len(waiting()) == 2
    jump(thread, venue, "BTC", 0.98)
    assert account.held("BTC") == 0
    sells = [trade for trade in client.fetch_my_trades(symbol) if trade["side"] == "sell"]
    assert sum(trade["amount"] for trade in sells) == pytest.approx(amount)
    assert client.fetch_order(stop["id"], symbol, {"trigger": True})["status"] == "closed"
    assert stop["id"] not in waiting()
    client.cancel_order(target["id"], symbol, {"trigger": True})
    assert waiting() == {} and client.fetch_open_orders(symbol) == []


def test_the_binance_stream_tells_the_life_of_a_conditional_order(thread):
    futures = pytest.importorskip("binance.um_futures", reason="binance-futures-connector is not installed")
    from binance.error import ClientError

    known, world = thread.known["binance"], thread.sandbox.world
    client = futures.UMFutures(known["api_key"], known["secret"], base_url=known["rest"])
    mark = world.mark("binance", "BTC").mark_price
    stop = {"symbol": "BTCUSDT", "algoType": "CONDITIONAL", "side": "BUY", "quantity": "0.01"}

    def ask(method, path, **form):
        return client.sign_request(method, f"/fapi/v1/{path}", form)

    with user_stream(known, client) as events:
        with pytest.raises(ClientError) as said:
            client.new_order(symbol="BTCUSDT", side="BUY", type="STOP_MARKET", quantity=0.01, stopPrice=round(mark * 1.02, 1))
        assert said.value.error_code == -4120
        up = {"triggerPrice": f"{mark * 1.02:.1f}", "type": "STOP_MARKET"}
        bought = ask("POST", "algoOrder", **stop, **up, clientAlgoId="up-1")
        assert (bought["algoStatus"], bought["orderType"], bought["quantity"]) == ("NEW", "STOP_MARKET", "0.01")
        big = ask("POST", "algoOrder", **stop | {"quantity": "500"}, **up, clientAlgoId="big-1")
        low = ask("POST", "algoOrder", **stop, type="TAKE_PROFIT", triggerPrice=f"{mark * 0.97:.1f}", price=f"{mark * 0.96:.1f}")
        assert [row["algoId"] for row in ask("GET", "openAlgoOrders", symbol="BTCUSDT")] == [
            bought["algoId"], big["algoId"], low["algoId"]]  # fmt: skip
        assert client.get_orders(symbol="BTCUSDT") == []
        jump(thread, "binance", "BTC", 1.021)
        assert ask("DELETE", "algoOrder", algoId=low["algoId"])["code"] == "200"
        done = ask("GET", "algoOrder", clientAlgoId="up-1")
        order = client.query_order(symbol="BTCUSDT", orderId=int(done["actualOrderId"]))
        assert (done["algoStatus"], order["status"], order["executedQty"]) == ("FINISHED", "FILLED", "0.01")
        assert float(done["actualPrice"]) == float(order["avgPrice"])
        assert [row["algoStatus"] for row in ask("GET", "allAlgoOrders", symbol="BTCUSDT")] == ["FINISHED", "REJECTED", "CANCELED"]

        def told(id):
            return [e["o"]["X"] for e in events if e.get("e") == "ALGO_UPDATE" and e["o"]["caid"] == id]

        until(lambda: told(low["clientAlgoId"]) == ["NEW", "CANCELED"])
        assert told("up-1") == ["NEW", "TRIGGERING", "TRIGGERED", "FINISHED"]
        assert told("big-1") == ["NEW", "TRIGGERING", "REJECTED"]
        fills = [e["o"] for e in events if e.get("e") == "ORDER_TRADE_UPDATE" and e["o"]["x"] == "TRADE"]
        assert [(o["c"], o["i"], o["o"]) for o in fills] == [("up-1", order["orderId"], "MARKET")]


def test_the_hyperliquid_sdk_places_finds_and_takes_back_trigger_orders(thread):
    exchange = pytest.importorskip("hyperliquid.exchange", reason="hyperliquid-python-sdk is not installed")
    from eth_account import Account as Wallet
    from hyperliquid.info import Info
    from hyperliquid.utils.types import Cloid

    known, account = thread.known["hyperliquid"], thread.sandbox.world.account("hyperliquid")
    address, name = known["wallet_address"], Cloid("0x" + "5e" * 16)
    client = exchange.Exchange(Wallet.from_key(known["private_key"]), known["rest"], account_address=address)
    info, updates = Info(known["rest"]), []
    mark = thread.sandbox.world.mark("hyperliquid", "BTC").mark_price

    def trigger(px, tpsl, is_market=True):
        return {"trigger": {"triggerPx": float(round(px)), "isMarket": is_market, "tpsl": tpsl}}

    try:
        info.subscribe({"type": "orderUpdates", "user": address}, lambda said: updates.extend(said["data"]))
        client.market_open("BTC", False, 0.1)  # short: its stop is above
        stop = client.order("BTC", True, 0.1, round(mark * 1.02), trigger(mark * 1.02, "sl"), True, cloid=name)
        target = client.order("BTC", True, 0.05, round(mark * 0.97), trigger(mark * 0.97, "tp", is_market=False), True)
        oids = [said["response"]["data"]["statuses"][0]["resting"]["oid"] for said in (stop, target)]
        wrong = client.order("BTC", True, 0.1, round(mark), trigger(mark * 0.99, "sl"), True)
        assert wrong["response"]["data"]["statuses"][0]["error"].startswith("Invalid TP/SL price.")
        rows = {row["oid"]: row for row in client.info.frontend_open_orders(address)}
        assert [rows[oid]["orderType"] for oid in oids] == ["Stop Market", "Take Profit Limit"]
        assert [rows[oid]["triggerCondition"] for oid in oids] == [f"Price above {round(mark * 1.02)}", f"Price below {round(mark * 0.97)}"]
        assert {row["oid"] for row in client.info.open_orders(address)} == set(oids)
        jump(thread, "hyperliquid", "BTC", 0.96)  # the target's limit is above the mark, and the book still is higher
        resting = client.info.query_order_by_oid(address, oids[1])["order"]
        assert (resting["status"], account.held("BTC")) == ("open", -account.fills[0].qty_base.copy_abs())
        assert client.cancel("BTC", oids[1])["response"]["data"]["statuses"] == ["success"]
        jump(thread, "hyperliquid", "BTC", 1.07)
        done = client.info.query_order_by_cloid(address, name)["order"]
        assert (done["status"], done["order"]["isTrigger"], account.held("BTC")) == ("filled", True, 0)
        assert client.info.frontend_open_orders(address) == []
        until(lambda: {(u["order"]["oid"], u["status"]) for u in updates} >= {(oids[0], "filled"), (oids[1], "canceled"), (oids[0], "open")})
    finally:
        info.disconnect_websocket()


def test_python_okx_places_a_pair_and_its_channel_tells_which_was_met(thread, monkeypatch):
    account = thread.sandbox.world.account("okx")
    mark = round(thread.sandbox.world.mark("okx", "BTC").mark_price)
    coin = {"instId": "BTC-USDT-SWAP", "tdMode": "isolated"}
    pair = coin | {"side": "buy", "ordType": "oco", "sz": "10", "reduceOnly": "true", "tpOrdPx": "-1", "slOrdPx": "-1"}
    low, high = str(round(mark * 0.97)), str(round(mark * 1.03))

    def coded(said):
        return said["data"][0]["sCode"]

    with python_okx(thread, monkeypatch, "business") as (words, socket):
        from okx import Trade

        desk = Trade.TradeAPI(**words)
        socket.subscribe({"channel": "orders-algo", "instType": "SWAP"})
        until(lambda: any('"event":"subscribe"' in text for text in socket.messages))
        assert coded(desk.place_order(**coin, side="sell", ordType="market", sz="10")) == "0"
        assert coded(desk.place_algo_order(**pair, tpTriggerPx=high, slTriggerPx=high)) == "51277"
        assert coded(desk.place_algo_order(**pair, tpTriggerPx=low, slTriggerPx=low)) == "51278"
        both = desk.place_algo_order(**pair, tpTriggerPx=low, slTriggerPx=high, algoClOrdId="pair1")["data"][0]["algoId"]
        assert coded(desk.place_algo_order(**pair, tpTriggerPx=low, slTriggerPx=high, algoClOrdId="pair1")) == "51065"
        entry = coin | {"side": "sell", "ordType": "trigger", "sz": "5", "triggerPx": low, "orderPx": "-1"}
        more = desk.place_algo_order(**entry)["data"][0]["algoId"]
        assert [row["algoId"] for row in desk.order_algos_list(ordType="oco,trigger")["data"]] == [more, both]
        cancel = [{"instId": "BTC-USDT-SWAP", "algoId": more}]
        assert [coded(desk.cancel_algo_order(cancel)) for _ in range(2)] == ["0", "51400"]
        jump(thread, "okx", "BTC", 0.969)
        assert account.positions == {} and desk.order_algos_list(ordType="oco")["data"] == []
        (row,) = desk.order_algos_history(ordType="oco", state="effective")["data"]
        order = desk.get_order(instId="BTC-USDT-SWAP", ordId=row["ordId"])["data"][0]
        assert (row["actualSide"], row["actualSz"], order["state"], order["tdMode"]) == ("tp", "10", "filled", "isolated")
        assert desk.get_algo_order_details(algoClOrdId="pair1")["data"] == [row]

        def told(id):
            said = [json.loads(text) for text in socket.messages]
            return [row["state"] for each in said if "data" in each for row in each["data"] if row["algoId"] == id]

        until(lambda: told(both) == ["live", "effective"])
        assert told(more) == ["live", "canceled"]
