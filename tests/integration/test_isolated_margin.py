"""Isolated margin over the wire: clients that we did not write switch to it, move it, and lose it without losing the rest."""

import json
from decimal import Decimal as D
from decimal import localcontext

import ccxt
import pytest
from bots import SYMBOLS, bot, jump, opened, python_okx, until, user_stream

from fundarb.exchanges.simulated_account import whole_equity


@pytest.fixture(autouse=True)
def arithmetic():
    """Plain ccxt makes the whole thread round half up, and other tests are in it."""
    with localcontext():
        yield


@pytest.fixture
def thread():
    with opened() as thread:
        yield thread


def sizes(client, symbol, base):
    """Write a quantity as a client counts it."""
    return base / (client.market(symbol)["contractSize"] or 1)


def position(client, symbol):
    (row,) = [row for row in client.fetch_positions() if row["symbol"] == symbol and row["contracts"]]
    return row


def parts(account):
    """The sandbox's own truth: cross cash and what bitcoin has of its own."""
    return account.wallet - account.isolated.total, account.isolated.own.get("BTC")


# -- unmodified ccxt


def move(client, name, symbol, amount):
    """Add or take margin; for OKX ccxt 4.5.90 sends the request and then trips over its own reading of the answer."""
    if client.id == "okx":
        with pytest.raises(TypeError, match="string indices"):
            getattr(client, name)(symbol, amount)
    else:
        getattr(client, name)(symbol, amount)


@pytest.mark.parametrize("venue", list(SYMBOLS))
def test_plain_ccxt_isolates_adds_takes_and_is_liquidated_alone(thread, venue):
    client, symbol, account = bot(ccxt, venue, thread.known), SYMBOLS[venue], thread.sandbox.world.account(venue)
    other = symbol.replace("BTC", "ETH")
    client.load_markets()
    client.set_margin_mode("isolated", symbol, {"leverage": 10, "lever": 10})
    client.set_leverage(10, symbol, {"marginMode": "isolated"})
    isolated = {"marginMode": "isolated"} if venue == "okx" else {}
    prices = {name: client.fetch_order_book(name)["asks"][0][0] for name in (symbol, other)}
    client.create_order(other, "market", "buy", sizes(client, other, 1), prices[other])
    client.create_order(symbol, "market", "buy", sizes(client, symbol, 0.1), prices[symbol], isolated)

    entry = account.fills[-1]
    was_cross, own = parts(account)
    assert own == entry.qty_base * entry.price / 10 and "ETH" not in account.isolated.own
    shown = position(client, symbol)
    assert (shown["marginMode"], position(client, other)["marginMode"]) == ("isolated", "cross")
    assert shown["initialMargin"] == pytest.approx(float(own), rel=1e-2)
    liquidated_at = shown["liquidationPrice"]
    assert 0.85 < liquidated_at / float(entry.price) < 0.95

    move(client, "add_margin", symbol, 200)
    assert parts(account) == (was_cross - 200, own + 200)
    assert position(client, symbol)["liquidationPrice"] < liquidated_at - 1_900
    move(client, "reduce_margin", symbol, 50)
    with pytest.raises(ccxt.ExchangeError):
        client.reduce_margin(symbol, 200)
    assert parts(account) == (was_cross - 150, own + 150)

    client.create_order(symbol, "market", "sell", sizes(client, symbol, 0.04), prices[symbol] * 0.98, isolated)
    left = (own + 150) * D("0.6")
    assert parts(account)[1] == left and sum(parts(account)) == account.wallet

    cross_before, equity = parts(account)[0], whole_equity(account)
    jump(thread, venue, "BTC", 0.8)
    assert "BTC" not in account.positions and account.held("ETH") > 0
    assert 0 <= parts(account)[0] - cross_before < left and whole_equity(account) < equity
    assert [row["symbol"] for row in client.fetch_positions() if row["contracts"]] == [other]
    assert client.fetch_balance()["info"]


# -- the official clients


def test_the_binance_connector_and_its_user_stream_tell_one_story(thread):
    futures = pytest.importorskip("binance.um_futures", reason="binance-futures-connector is not installed")
    from binance.error import ClientError

    known, account = thread.known["binance"], thread.sandbox.world.account("binance")
    client = futures.UMFutures(known["api_key"], known["secret"], base_url=known["rest"])
    btc = {"symbol": "BTCUSDT"}

    def refused(call, **form):
        with pytest.raises(ClientError) as said:
            call(**form)
        return said.value.error_code

    with user_stream(known, client) as events:
        assert refused(client.change_margin_type, **btc, marginType="CROSSED") == -4046
        assert refused(client.modify_isolated_position_margin, **btc, amount=5, type=1) == -4049
        assert client.change_margin_type(**btc, marginType="ISOLATED") == {"code": 200, "msg": "success"}
        assert refused(client.modify_isolated_position_margin, **btc, amount=5, type=1) == -4054
        client.change_leverage(**btc, leverage=10)
        low = round(thread.sandbox.world.book("binance", "BTC").bids[0].price * 0.98, 0)
        client.new_order(**btc, side="BUY", type="LIMIT", timeInForce="GTC", quantity=0.01, price=low)
        assert refused(client.change_margin_type, **btc, marginType="CROSSED") == -4047
        client.cancel_open_orders(**btc)
        client.new_order(**btc, side="SELL", type="MARKET", quantity=0.1)
        assert refused(client.change_margin_type, **btc, marginType="CROSSED") == -4048
        assert refused(client.change_leverage, **btc, leverage=9) == -4161
        assert refused(client.modify_isolated_position_margin, **btc, amount=-5, type=1) == -4055
        assert refused(client.modify_isolated_position_margin, **btc, amount=90_000, type=1) == -4050
        assert refused(client.modify_isolated_position_margin, **btc, amount=90_000, type=2) == -4051
        said = client.modify_isolated_position_margin(**btc, amount=100, type=1)
        assert said == {"amount": 100.0, "code": 200, "msg": "Successfully modify position margin.", "type": 1}

        (risk,) = client.get_position_risk()
        whole = client.account()
        (row,) = [row for row in whole["positions"] if row["symbol"] == "BTCUSDT"]
        cross, own = parts(account)
        assert {D(risk["isolatedWallet"]), D(row["isolatedWallet"])} == {own} and row["isolated"] is True
        assert D(whole["totalCrossWalletBalance"]) == cross == D(client.balance()[0]["crossWalletBalance"])
        assert D(whole["totalWalletBalance"]) == cross + own
        assert D(whole["totalMarginBalance"]) == whole_equity(account)
        assert D(risk["isolatedMargin"]) == own + D(risk["unRealizedProfit"])
        history = [(row["type"], row["deltaType"]) for row in client.get_position_margin_history(**btc)]
        assert history == [(1, "TRADE"), (1, "USER_ADJUST")]

        jump(thread, "binance", "BTC", 1.3)
        assert client.get_position_risk() == [] and parts(account)[1] is None
        wanted = ["MARGIN_TYPE_CHANGE", "ORDER", "MARGIN_TRANSFER", "ORDER"]
        until(lambda: len([e for e in events if e.get("e") == "ACCOUNT_UPDATE"]) >= len(wanted))

    updates = [event["a"] for event in events if event.get("e") == "ACCOUNT_UPDATE"]
    assert [update["m"] for update in updates] == wanted
    assert [(p["mt"], p["pa"]) for update in updates for p in update["P"]] == [
        ("isolated", "0"), ("isolated", "-0.1"), ("isolated", "-0.1"), ("isolated", "0")]  # fmt: skip
    held = [(D(u["B"][0]["wb"]) - D(u["B"][0]["cw"]), D(u["P"][0]["iw"])) for u in updates]
    assert all(apart == iw for apart, iw in held) and held[2][1] == own
    assert [e["ac"] for e in events if e.get("e") == "ACCOUNT_CONFIG_UPDATE"] == [{"s": "BTCUSDT", "l": 10}]
    assert account.deposit - account.wallet <= own + account.fills[0].fee


def test_the_hyperliquid_sdk_and_its_socket_tell_one_story(thread):
    exchange = pytest.importorskip("hyperliquid.exchange", reason="hyperliquid-python-sdk is not installed")
    from eth_account import Account as Wallet
    from hyperliquid.info import Info

    known, account = thread.known["hyperliquid"], thread.sandbox.world.account("hyperliquid")
    wallet = Wallet.from_key(known["private_key"])
    client = exchange.Exchange(wallet, known["rest"], account_address=known["wallet_address"])
    info, states = Info(known["rest"]), []
    try:
        about = {"type": "webData2", "user": known["wallet_address"]}
        info.subscribe(about, lambda said: states.append(said["data"]["clearinghouseState"]))
        assert client.update_isolated_margin(10, "BTC")["response"] == "Cannot update margin for empty position."
        assert client.update_leverage(10, "BTC", is_cross=False) == {"status": "ok", "response": {"type": "default"}}
        assert client.market_open("BTC", False, 0.1)["response"]["data"]["statuses"][0]["filled"]["totalSz"] == "0.1"
        assert client.market_open("ETH", True, 1.0)["status"] == "ok"
        for call, text in [
            (lambda: client.update_leverage(10, "BTC", is_cross=True), "Cannot switch leverage type with open position."),
            (lambda: client.update_leverage(2, "BTC", is_cross=False), "add margin to the position"),
            (lambda: client.update_isolated_margin(90_000, "BTC"), "margin available for increase"),
            (lambda: client.update_isolated_margin(-90_000, "BTC"), "sufficient margin for reduction"),
            (lambda: client.update_isolated_margin(5, "ETH"), "does not use isolated margin"),
        ]:
            said = call()
            assert said["status"] == "err" and text in said["response"]
        assert client.update_isolated_margin(150.5, "BTC")["status"] == "ok"

        state = client.info.user_state(known["wallet_address"])
        rows = {row["position"]["coin"]: row["position"] for row in state["assetPositions"]}
        cross, own = parts(account)
        entry = account.positions["BTC"]
        assert own == D("0.1") * account.fills[0].price / 10 + D("150.5")
        assert rows["BTC"]["leverage"] == {"type": "isolated", "value": 10, "rawUsd": f"{own - entry.cost:f}".rstrip("0")}
        assert rows["ETH"]["leverage"]["type"] == "cross"
        assert D(rows["BTC"]["marginUsed"]) == own + D(rows["BTC"]["unrealizedPnl"])
        assert D(state["marginSummary"]["accountValue"]) == whole_equity(account)
        assert D(state["crossMarginSummary"]["accountValue"]) == cross + D(rows["ETH"]["unrealizedPnl"])
        until(lambda: states and states[-1]["marginSummary"] == state["marginSummary"])
        told = {row["position"]["coin"]: row["position"]["leverage"] for row in states[-1]["assetPositions"]}
        assert told == {coin: row["leverage"] for coin, row in rows.items()}

        jump(thread, "hyperliquid", "BTC", 1.3)
        rows = client.info.user_state(known["wallet_address"])["assetPositions"]
        assert [row["position"]["coin"] for row in rows] == ["ETH"] and cross <= parts(account)[0] < cross + own
        assert client.info.user_fills(known["wallet_address"])[0]["liquidation"]["method"] == "market"
    finally:
        info.disconnect_websocket()


def test_python_okx_and_its_sockets_tell_one_story(thread, monkeypatch):
    account = thread.sandbox.world.account("okx")
    coin = {"instId": "BTC-USDT-SWAP"}
    order = coin | {"tdMode": "isolated", "side": "sell", "ordType": "market", "sz": "10"}
    with python_okx(thread, monkeypatch, "private") as (words, socket):
        from okx import Account, Trade

        desk, trade = Account.AccountAPI(**words), Trade.TradeAPI(**words)
        socket.subscribe({"channel": "positions", "instType": "SWAP"}, {"channel": "account"}, {"channel": "balance_and_position"})
        until(lambda: sum('"event":"subscribe"' in text for text in socket.messages) == 3)
        assert desk.set_leverage(lever="10", mgnMode="isolated", posSide="net", **coin)["code"] == "0"
        assert desk.adjustment_margin(**coin, posSide="net", type="add", amt="5")["code"] == "59300"
        assert trade.place_order(**order)["data"][0]["sCode"] == "0"
        assert trade.place_order(**order | {"tdMode": "cross"})["data"][0]["sCode"] == "51000"
        assert desk.adjustment_margin(**coin, posSide="net", type="add", amt="90000")["code"] == "59301"
        assert desk.adjustment_margin(**coin, posSide="net", type="reduce", amt="900")["code"] == "59301"
        assert desk.adjustment_margin(**coin, posSide="net", type="add", amt="150")["data"][0]["amt"] == "150"
        assert desk.set_leverage(lever="8", mgnMode="isolated", posSide="net", **coin)["code"] == "0"

        (row,) = desk.get_positions(instType="SWAP")["data"]
        (whole,) = desk.get_account_balance()["data"]
        cross, own = parts(account)
        cost = abs(account.positions["BTC"].cost)
        assert abs(own - (150 + cost / 8)) < D("1e-9") and (row["mgnMode"], row["lever"]) == ("isolated", "8")
        assert D(row["margin"]) == own and row["liqPx"] and D(row["liqPx"]) > D(row["avgPx"])
        assert D(whole["details"][0]["cashBal"]) == cross
        assert D(whole["details"][0]["eq"]) == whole_equity(account)
        assert abs(D(whole["isoEq"]) - own - D(row["upl"])) < D("1e-7")
        bills = desk.get_account_bills(instType="SWAP")["data"]
        assert [(b["type"], b["subType"]) for b in bills[::-1]] == [("2", "2"), ("6", "160"), ("6", "160")]
        assert sum(D(b["posBalChg"]) for b in bills) == own and sum(D(b["balChg"]) for b in bills) == cross - account.deposit
        assert desk.get_leverage(mgnMode="cross", **coin)["data"][0]["lever"] != "8"

        def told(channel):
            said = [json.loads(text) for text in socket.messages]
            return [each["data"] for each in said if each.get("arg", {}).get("channel") == channel and "data" in each]

        until(lambda: [rows[0]["margin"] for rows in told("positions") if rows][-1:] == [row["margin"]])
        until(lambda: told("account")[-1][0]["isoEq"] == whole["isoEq"])
        assert {rows[0]["eventType"] for rows in told("balance_and_position")} >= {"filled", "adjust_margin", "set_leverage"}

        jump(thread, "okx", "BTC", 1.3)
        assert desk.get_positions(instType="SWAP")["data"] == [] and cross <= parts(account)[0] < cross + own
        assert D(desk.get_account_bills()["data"][0]["bal"]) == account.wallet
        assert D(desk.get_account_balance()["data"][0]["details"][0]["cashBal"]) == account.wallet


def test_okx_remembers_what_was_closed_and_what_it_brought(thread):
    client, symbol, account = bot(ccxt, "okx", thread.known), SYMBOLS["okx"], thread.sandbox.world.account("okx")
    client.load_markets()
    isolated = {"marginMode": "isolated"}
    client.create_order(symbol, "market", "buy", 10, None, isolated)
    client.create_order(symbol, "market", "sell", 15, None, isolated)  # five of them flip it
    client.create_order(symbol.replace("BTC", "ETH"), "market", "buy", 10, None)
    jump(thread, "okx", "BTC", 1.5)
    long, short = sorted(client.fetch_positions_history([symbol]), key=lambda row: row["info"]["type"])
    assert [row["info"]["type"] for row in (long, short)] == ["2", "3"]  # closed by us, and by the venue
    assert [(row["marginMode"], row["info"]["direction"]) for row in (short, long)] == [("isolated", "short"), ("isolated", "long")]
    realised = sum(D(row["info"]["realizedPnl"]) for row in (short, long))
    eth_fee = next(fill.fee for fill in account.fills if fill.symbol == "ETH")
    assert abs(account.wallet - account.deposit - realised + eth_fee) < D("1e-9")
    assert client.fetch_positions_history([symbol.replace("BTC", "ETH")]) == []
