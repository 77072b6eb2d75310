"""Clients that we did not write trade on the sandbox's Binance, over real sockets.

Unmodified ccxt.pro goes to the production addresses, which a resolver leads to loopback; the venue's official
SDK goes to loopback directly. Both do the same, and must leave the venue in the same state.
"""

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from decimal import Decimal as D
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import ccxt.pro
import pytest

from fundarb.core.numbers import HOUR_NS
from fundarb.sandbox.faults import DropPush, ErrorAnswer, Lag, Reset, StaleSnapshot
from fundarb.sandbox.host import OPENERS, Sandbox, sandbox_thread, synthetic_market

SYMBOL, DEPOSITS = "BTC/USDT:USDT", {venue: D(10_000) for venue in OPENERS}
ROOT = Path(__file__).parents[2]


class Loopback(aiohttp.abc.AbstractResolver):
    """Leads production names to loopback, and every other name nowhere."""

    def __init__(self, hosts):
        self.hosts = hosts

    async def resolve(self, host, port=0, family=socket.AF_INET):
        if host not in self.hosts:
            raise OSError(f"{host} is not in the sandbox")
        address, port = self.hosts[host].split(":")
        found = {"hostname": host, "host": address, "port": int(port), "family": socket.AF_INET}
        return [found | {"proto": 0, "flags": socket.AI_NUMERICHOST}]

    async def close(self):
        pass


def new_sandbox(days=1, **more):
    return Sandbox(synthetic_market(seed=7, days=days), DEPOSITS, **({"paused": True} | more))


@asynccontextmanager
async def trading(secret="", **more):
    """A sandbox whose time stands still, two minutes after its first hour, and ccxt before it."""
    sandbox = new_sandbox(**more)
    async with sandbox:
        sandbox.world.advance(sandbox.world.now_ns + 120 * 10**9)
        known = sandbox.known()
        tls = ssl.create_default_context(cafile=known["tls"]["ca_file"])
        resolver = Loopback(known["tls"]["hosts"])
        connector = aiohttp.TCPConnector(resolver=resolver, ssl=tls, use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector) as session:
            keys = {"apiKey": known["binance"]["api_key"], "secret": secret or known["binance"]["secret"]}
            options = {"fetchCurrencies": False, "fetchMargins": False}
            client = ccxt.pro.binanceusdm({**keys, "session": session, "enableRateLimit": False, "options": options})
            await client.load_markets()
            yield sandbox, client
            await client.close()


def within(seconds, awaitable):
    return asyncio.wait_for(awaitable, seconds)


def truth(sandbox):
    account = sandbox.world.account("binance")
    fills = [(fill.qty_base, fill.price, fill.fee) for fill in account.fills]
    return account.wallet, fills, [paid.cash for paid in account.funding.values()]


async def ccxt_scenario():
    """Sell, be paid or charged at eight, buy back; say what the venue and what ccxt has then."""
    async with trading() as (sandbox, client):
        await client.set_leverage(5, SYMBOL)
        sold = await client.create_order(SYMBOL, "market", "sell", 0.05, None, {"clientOrderId": "fa-1"})
        assert (sold["status"], sold["filled"]) == ("closed", 0.05)
        (position,) = await client.fetch_positions([SYMBOL])
        assert (position["side"], position["contracts"]) == ("short", 0.05)
        await sandbox.clock.advance(sandbox.world.now_ns + 8 * HOUR_NS)
        cover = {"clientOrderId": "fa-2", "reduceOnly": True}
        bought = await client.create_order(SYMBOL, "market", "buy", 0.05, None, cover)
        assert bought["status"] == "closed"
        paid = [row["amount"] for row in await client.fetch_funding_history(SYMBOL)]
        trades = await client.fetch_my_trades(SYMBOL)
        balance = (await client.fetch_balance())["USDT"]["total"]
        return truth(sandbox), paid, [(t["side"], t["amount"], t["price"], t["fee"]["cost"]) for t in trades], balance


def sdk_scenario():
    """The same, with the official SDK."""
    futures = pytest.importorskip("binance.um_futures", reason="binance-futures-connector is not installed")
    sandbox = new_sandbox()
    sandbox.world.advance(sandbox.world.now_ns + 120 * 10**9)
    with sandbox_thread(sandbox) as thread:
        known = thread.known["binance"]
        client = futures.UMFutures(known["api_key"], known["secret"], base_url=known["rest"], show_limit_usage=True)
        assert "BTCUSDT" in [row["symbol"] for row in client.exchange_info()["data"]["symbols"]]
        assert client.depth("BTCUSDT", limit=5)["data"]["lastUpdateId"] > 0
        key = client.new_listen_key()["data"]["listenKey"]
        assert client.renew_listen_key(key)["data"] == {"listenKey": key}
        assert client.change_leverage(symbol="BTCUSDT", leverage=5)["data"]["leverage"] == 5
        order = {"symbol": "BTCUSDT", "type": "MARKET", "quantity": 0.05, "newOrderRespType": "RESULT"}
        sold = client.new_order(side="SELL", newClientOrderId="fa-1", **order)
        assert sold["data"]["status"] == "FILLED"
        assert int(sold["limit_usage"]["x-mbx-order-count-10s"]) == 1
        (position,) = client.get_position_risk()["data"]
        assert position["positionAmt"] == "-0.05"
        thread.call(sandbox.clock.advance(sandbox.world.now_ns + 8 * HOUR_NS))
        client.new_order(side="BUY", newClientOrderId="fa-2", reduceOnly="true", **order)
        resting = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTX", "quantity": 0.05, "price": 60000}
        client.new_order(symbol="BTCUSDT", newClientOrderId="fa-3", **resting)
        assert [row["clientOrderId"] for row in client.get_orders(symbol="BTCUSDT")["data"]] == ["fa-3"]
        cancelled = client.cancel_order("BTCUSDT", origClientOrderId="fa-3")
        assert cancelled["data"]["status"] == "CANCELED"
        paid = [float(row["income"]) for row in client.get_income_history(incomeType="FUNDING_FEE")["data"]]
        trades = client.get_account_trades("BTCUSDT")["data"]
        rows = [(t["side"].lower(), *(float(t[key]) for key in ("qty", "price", "commission"))) for t in trades]
        return truth(sandbox), paid, rows, float(client.balance()["data"][0]["balance"])


def test_ccxt_and_the_official_sdk_leave_the_same_account():
    by_ccxt, by_sdk = asyncio.run(ccxt_scenario()), sdk_scenario()
    assert by_ccxt == by_sdk
    (wallet, fills, funding), paid, trades, balance = by_ccxt
    assert paid == [float(cash) for cash in funding] and len(paid) == 1
    assert [(amount, price, fee) for _, amount, price, fee in trades] == [
        (float(abs(qty)), float(price), float(fee)) for qty, price, fee in fills
    ]
    assert balance == float(wallet)
    assert wallet == 10_000 + sum(funding) - sum(qty * price + fee for qty, price, fee in fills)


def test_a_wrong_signature_is_refused_and_nothing_is_done():
    async def scenario():
        async with trading(secret="0" * 64) as (sandbox, client):
            with pytest.raises(ccxt.AuthenticationError, match="-1022"):
                await client.create_order(SYMBOL, "market", "buy", 0.05)
            assert not sandbox.world.account("binance").orders

    asyncio.run(scenario())


async def read_book(sandbox, client):
    """Read until ccxt has the book that was published last."""
    watching = asyncio.ensure_future(client.watch_order_book(SYMBOL))
    while not watching.done():
        sandbox.world.now_ns += 10**9
        sandbox.world.beat()
        await asyncio.sleep(0.01)
    return watching.result()


def sides(book):
    return [[(float(p), float(q)) for p, q in rows] for rows in (book["bids"], book["asks"])]


def test_a_book_is_in_step_again_after_a_gap():
    async def scenario():
        async with trading() as (sandbox, client):
            published = sandbox.servers["binance"].books["BTCUSDT"]
            await within(30, read_book(sandbox, client))
            sandbox.faults.add(DropPush(venue="binance", endpoint="btcusdt@depth*"))
            await sandbox.clock.advance(sandbox.world.now_ns + HOUR_NS)
            with pytest.raises(ccxt.ChecksumError):
                for _ in range(4):
                    await within(30, read_book(sandbox, client))
            await within(30, read_book(sandbox, client))
            await sandbox.clock.advance(sandbox.world.now_ns + HOUR_NS)
            await sandbox.traffic.read_by_all()
            kept = client.orderbooks[SYMBOL]
            assert kept["nonce"] == published.update_id
            told = published.snapshot(1000)
            assert sides({"bids": kept["bids"], "asks": kept["asks"]}) == sides(told)
            sandbox.faults.add(StaleSnapshot(venue="binance"))
            stale = await client.fetch_order_book(SYMBOL)
            assert stale["nonce"] < published.update_id

    asyncio.run(scenario())


@pytest.mark.parametrize("executed", [True, False])
def test_a_lost_answer_is_told_by_a_question(executed):
    async def scenario():
        async with trading() as (sandbox, client):
            sandbox.faults.add(Reset(venue="binance", endpoint="POST /fapi/v1/order", executed=executed))
            with pytest.raises(ccxt.NetworkError):
                await client.create_order(SYMBOL, "market", "buy", 0.05, None, {"clientOrderId": "fa-7"})
            asked = client.fetch_order(None, SYMBOL, {"clientOrderId": "fa-7"})
            if executed:
                assert (await asked)["filled"] == 0.05
            else:
                with pytest.raises(ccxt.OrderNotFound):
                    await asked
            assert sandbox.world.account("binance").held("BTC") == (D("0.05") if executed else 0)

    asyncio.run(scenario())


def test_an_order_that_was_accepted_may_not_be_found_at_once():
    async def scenario():
        async with trading() as (sandbox, client):
            sandbox.faults.add(Lag(venue="binance", seconds=0.2))
            name = {"clientOrderId": "fa-8"}
            await client.create_order(SYMBOL, "market", "buy", 0.05, None, name)
            with pytest.raises(ccxt.OrderNotFound):
                await client.fetch_order(None, SYMBOL, name)
            for _ in range(100):
                await asyncio.sleep(0.02)
                try:
                    return await client.fetch_order(None, SYMBOL, name)
                except ccxt.OrderNotFound:
                    continue

    assert asyncio.run(scenario())["status"] == "closed"


def test_errors_come_out_as_the_classes_that_production_gives():
    async def scenario():
        async with trading() as (sandbox, client):
            buy = (SYMBOL, "limit", "buy")
            price = (await client.fetch_order_book(SYMBOL))["asks"][0][0]
            with pytest.raises(ccxt.InsufficientFunds):
                await client.create_order(*buy, 30, price)
            with pytest.raises(ccxt.OrderNotFillable):
                await client.create_order(*buy, 0.01, price + 10, {"postOnly": True})
            with pytest.raises(ccxt.InvalidOrder):
                await client.create_order(SYMBOL, "market", "sell", 0.01, None, {"reduceOnly": True})
            with pytest.raises(ccxt.MarginModeAlreadySet):
                await client.set_margin_mode("cross", SYMBOL)
            with pytest.raises(ccxt.OrderNotFound):
                await client.cancel_order(None, SYMBOL, {"clientOrderId": "never"})
            sandbox.faults.add(ErrorAnswer(venue="binance", status=429, retry_after_s=7))
            with pytest.raises(ccxt.DDoSProtection):
                await client.fetch_time()
            assert client.last_response_headers["Retry-After"] == "7"
            assert not sandbox.world.account("binance").fills

    asyncio.run(scenario())


def test_a_resting_order_fills_as_maker_and_the_user_stream_says_so():
    async def scenario():
        async with trading() as (sandbox, client):
            told = asyncio.ensure_future(client.watch_my_trades(SYMBOL))
            while not sandbox.servers["binance"].sockets:
                await asyncio.sleep(0.01)
            price = (await client.fetch_order_book(SYMBOL))["bids"][0][0]
            maker = {"postOnly": True, "clientOrderId": "fa-9"}
            order = await client.create_order(SYMBOL, "limit", "buy", 0.05, price, maker)
            assert order["status"] == "open"
            while not told.done() and sandbox.world.next_ns is not None:
                await sandbox.clock.step()
            (trade,) = told.result()
            assert (trade["takerOrMaker"], trade["price"], trade["amount"]) == ("maker", price, 0.05)
            assert trade["fee"]["cost"] == pytest.approx(0.05 * price * 0.0002)
            told = await client.fetch_order(None, SYMBOL, {"clientOrderId": "fa-9"})
            assert (told["status"], told["average"]) == ("closed", price)

    asyncio.run(scenario())


async def hourly_orders(speed):
    """A client that reads marks and orders every sixth hour, at some speed of the clock."""
    sandbox = new_sandbox(speed=speed)
    async with sandbox, aiohttp.ClientSession() as session:
        known, server = sandbox.known()["binance"], sandbox.servers["binance"]
        async with session.ws_connect(f"{known['ws']}/btcusdt@markPrice@1s") as stream:
            client = ccxt.pro.binanceusdm({"apiKey": known["api_key"], "secret": known["secret"], "enableRateLimit": False})
            client.urls["api"]["fapiPrivate"] = f"{known['rest']}/fapi/v1"
            client.markets_by_id, client.markets = {}, {}
            while not server.sockets:
                await asyncio.sleep(0.01)
            over_ms = sandbox.world.now_ns // 10**6 + 24 * HOUR_NS // 10**6  # the clock runs on when the feed is over
            sandbox.clock.go()
            hours = set()
            while sandbox.world.next_ns is not None:
                try:
                    mark = await stream.receive_json(timeout=0.5)
                except TimeoutError:
                    continue
                hour, into_ms = divmod(mark["E"], HOUR_NS // 10**6)
                if hour % 6 or hour in hours or into_ms < 69_000 or mark["E"] >= over_ms:
                    continue
                hours.add(hour)
                side = "BUY" if len(hours) % 2 else "SELL"
                order = {"symbol": "BTCUSDT", "side": side, "type": "MARKET", "quantity": "0.05"}
                await client.fapiPrivatePostOrder(order | {"newClientOrderId": f"h-{hour}"})
            await client.close()
    return len(hours), truth(sandbox)


def test_the_speed_of_the_clock_changes_nothing(monkeypatch):
    monkeypatch.setattr("fundarb.sandbox.clock.LEG_S", 0.05)  # one leg is all that this client wants
    as_read, timed = asyncio.run(hourly_orders(0.0)), asyncio.run(hourly_orders(50_000.0))
    assert as_read[0] == 4 and len(as_read[1][1]) == 4
    assert as_read == timed


def test_the_command_serves_until_it_is_stopped(tmp_path):
    file = tmp_path / "sandbox.json"
    command = [sys.executable, "-c", "from fundarb.apps.cli import main; main()", "sandbox", "--json", str(file)]
    process = subprocess.Popen([*command, "--days", "1"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        until_s = time.monotonic() + 120
        while not (file.exists() and file.stat().st_size) and process.poll() is None and time.monotonic() < until_s:
            time.sleep(0.05)
        known = json.loads(file.read_text())
        assert file.stat().st_mode & 0o77 == 0
        with socket.create_connection((urlsplit(known["control"]).hostname, urlsplit(known["control"]).port)) as line:
            line.sendall(b"GET /state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: line.recv(65536), b""))
        state = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert sorted(state["venues"]) == ["binance", "hyperliquid", "okx"]
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert known["binance"]["api_key"] in said and known["okx"]["passphrase"] in said
