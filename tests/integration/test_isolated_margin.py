"""Isolated margin over the wire: clients that we did not write switch to it, move it, and lose it without losing the rest."""

import json
from contextlib import contextmanager
from decimal import Decimal as D
from decimal import localcontext

import ccxt
import pytest
from bots import SYMBOLS, bot, opened, until

from fundarb.core.events import MarkPriceUpdated
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


def jump(thread, venue, symbol, share):
    """Let a mark be a share of what it was."""
    world = thread.sandbox.world

    async def once():
        was = world.mark(venue, symbol)
        price = {"mark_price": was.mark_price * share, "oracle_price": was.oracle_price * share}
        world._happen(MarkPriceUpdated(ts_init_ns=world.now_ns, venue=venue, symbol=symbol, **price))

    thread.call(once())


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


@pytest.mark.parametrize("venue", ["binance"])
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

    client.add_margin(symbol, 200)
    assert parts(account) == (was_cross - 200, own + 200)
    assert position(client, symbol)["liquidationPrice"] < liquidated_at - 1_900
    client.reduce_margin(symbol, 50)
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


@contextmanager
def user_stream(known, rest):
    """The connector's own socket on the user stream; what it hears is a list of events."""
    from binance.websocket.um_futures.websocket_client import UMFuturesWebsocketClient

    events = []
    socket = UMFuturesWebsocketClient(
        stream_url=known["ws"].removesuffix("/ws"), on_message=lambda _, text: events.append(json.loads(text))
    )
    try:
        socket.user_data(listen_key=rest.new_listen_key()["listenKey"])
        yield events
    finally:
        socket.stop()


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
