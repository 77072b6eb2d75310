"""Clients that we did not write trade on the sandbox's Hyperliquid and OKX, over real sockets.

Unmodified ccxt.pro goes to the production addresses, which a resolver leads to loopback; the official SDKs
go to loopback directly. Both do the same, and must leave the venue in the same state.
"""

import asyncio
import datetime
import socket
import ssl
import threading
from decimal import Decimal as D

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fundarb.core.events import BookUpdated, FundingPredicted, FundingRealised, FundingScheduled, MarkPriceUpdated
from fundarb.core.funding import FundingKind, FundingRate, PriceBasis
from fundarb.core.models import Instrument, Level
from fundarb.core.numbers import HOUR_NS, MINUTE_NS, SECOND_NS, utc_ns
from fundarb.sandbox.traffic import Traffic
from fundarb.sandbox.faults import DropPush, ErrorAnswer, FaultBook, Reset
from fundarb.sandbox.hyperliquid import HyperliquidServer
from fundarb.sandbox.okx import OkxServer
from fundarb.sandbox.okx_gate import Keys
from fundarb.sandbox.world import World

ccxt = pytest.importorskip("ccxt.pro", reason="ccxt is not installed")

KEY, OWNER = "0x" + "11" * 32, "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
KEYS = Keys("okx-key", "okx-secret", "okx-word")
START_NS, SETTLES_NS = utc_ns("2026-03-02T15:50Z"), utc_ns("2026-03-02T16:00Z")
CLOID = "0x" + "ab" * 15


def instrument(venue, venue_symbol, quote, **more):
    terms = {"symbol": "BTC", "units_per_price": D(1), "min_notional_usd": D(10), "max_leverage": D(40)}
    terms |= {"maker_fee_bps": D("1.5"), "taker_fee_bps": D("4.5"), "maintenance_frac": D("0.0125")}
    terms |= {"liquidation_fee_bps": D(5), "rate_cap": D("0.04")}
    return Instrument(venue=venue, venue_symbol=venue_symbol, quote=quote, **(terms | more))


INSTRUMENTS = [
    instrument(
        "hyperliquid",
        "BTC",
        "USDC",
        lot_step_base=D("0.00001"),
        min_qty_base=D("0.00001"),
        price_tick=D(1),
        interval_h=1,
        price_basis=PriceBasis.ORACLE,
    ),
    instrument(
        "okx",
        "BTC-USDT-SWAP",
        "USDT",
        lot_step_base=D("0.0001"),
        min_qty_base=D("0.0001"),
        price_tick=D("0.1"),
        interval_h=8,
        price_basis=PriceBasis.MARK,
    ),
]


def market():
    """Ten minutes before a settlement, the settlement, and books in between."""
    for venue, hours, rate in (("hyperliquid", 1, "0.0000125"), ("okx", 8, "0.0001")):
        name = {"venue": venue, "symbol": "BTC"}
        words = name | {"rate": D(rate), "interval_h": hours, "settlement_time_ns": SETTLES_NS}
        estimate = FundingRate(kind=FundingKind.PREDICTED, ts_init_ns=START_NS, **words)
        yield FundingScheduled(ts_init_ns=START_NS, **name, interval_h=hours, next_settlement_ns=SETTLES_NS)
        yield FundingPredicted(ts_init_ns=START_NS, funding=estimate)
        yield from _prices(name, START_NS)
        yield from _prices(name, START_NS + MINUTE_NS, shift=2)
        now_ns = SETTLES_NS + SECOND_NS
        charged = FundingRate(kind=FundingKind.REALISED, ts_init_ns=now_ns, **words)
        price = D(60000) if venue == "hyperliquid" else D(60010)
        yield FundingRealised(ts_init_ns=now_ns, funding=charged, price=price)
        due_ns = SETTLES_NS + hours * HOUR_NS
        yield FundingScheduled(ts_init_ns=now_ns, **name, interval_h=hours, next_settlement_ns=due_ns)
        yield from _prices(name, SETTLES_NS + 2 * MINUTE_NS)


def _prices(name, now_ns, shift=0):
    yield MarkPriceUpdated(ts_init_ns=now_ns, **name, mark_price=60010.0, oracle_price=60000.0)
    bids, asks = (Level(60005.0 + shift, 1.0), Level(60001.0, 5.0)), (Level(60008.0 + shift, 2.0),)
    yield BookUpdated(ts_init_ns=now_ns, **name, bids=bids, asks=asks)


class Bench:
    """A world and two venues on a thread of their own, so that blocking clients can talk to them."""

    def __init__(self, tls):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.faults = FaultBook()
        feed = sorted(market(), key=lambda event: event.ts_init_ns)
        self.world = World(INSTRUMENTS, feed, {"hyperliquid": D(10_000), "okx": D(10_000)})
        self.hyperliquid = HyperliquidServer(self.world, Traffic(), self.faults, OWNER)
        self.okx = OkxServer(self.world, Traffic(), self.faults, KEYS)
        for server in (self.hyperliquid, self.okx):
            self.run(server.start(tls))
        self.step()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def step(self):
        async def go():
            self.world.step()

        self.run(go())

    def settle(self):
        """Go on until the venues may be traded on after the settlement."""
        while self.world.now_ns < SETTLES_NS + MINUTE_NS:
            self.step()

    def close(self):
        for server in (self.hyperliquid, self.okx):
            self.run(server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for the production hosts, and the file that trusts it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now, hosts = datetime.datetime.now(datetime.UTC), HyperliquidServer.hosts + OkxServer.hosts
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(7).not_valid_before(now - datetime.timedelta(days=1))
    made = made.not_valid_after(now + datetime.timedelta(days=2))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), False)
    made = made.add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    folder, plain = tmp_path_factory.mktemp("tls"), serialization.NoEncryption()
    kept = serialization.PrivateFormat.PKCS8
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, kept, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context, str(folder / "ca.pem")


@pytest.fixture
def bench(authority):
    bench = Bench(authority[0])
    yield bench
    bench.close()


class ToLoopback(aiohttp.abc.AbstractResolver):
    def __init__(self, bench):
        servers = (bench.hyperliquid, bench.okx)
        self.ports = {host: server.tls_port for server in servers for host in server.hosts}

    async def resolve(self, host, port=0, family=socket.AF_INET):
        if host not in self.ports:
            raise OSError(f"{host} is not part of the sandbox")
        there = {"hostname": host, "host": "127.0.0.1", "port": self.ports[host]}
        return [there | {"family": socket.AF_INET, "proto": 0, "flags": socket.AI_NUMERICHOST}]

    async def close(self):
        pass


class QuietHyperliquid(ccxt.hyperliquid):
    """Without the approvals that nobody asked for."""

    async def handle_builder_fee_approval(self):
        return True

    async def set_ref(self):
        return True


def with_ccxt(bench, authority, make, scenario):
    """Run a scenario with a ccxt client on the production addresses."""

    async def go():
        trust = ssl.create_default_context(cafile=authority[1])
        connector = aiohttp.TCPConnector(resolver=ToLoopback(bench), ssl=trust, use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector) as session:
            client = make(session)
            try:
                return await asyncio.wait_for(scenario(client), 20)
            finally:
                await client.close()

    return asyncio.run(go())


def hyperliquid(session, key=KEY, kind=QuietHyperliquid, **options):
    quiet = {"enableUnifiedMargin": False, "fetchMarkets": {"types": ["swap"]}} | options
    keys = {"walletAddress": OWNER, "privateKey": key}
    client = kind(keys | {"session": session, "enableRateLimit": False, "options": quiet})
    client.has["fetchCurrencies"] = kind is ccxt.hyperliquid  # there it does more than its name says
    return client


def okx(session, keys=KEYS):
    keys = {"apiKey": keys.api_key, "secret": keys.secret, "password": keys.passphrase}
    options = {"defaultType": "swap", "fetchMarkets": {"types": ["swap"]}}
    client = ccxt.okx(keys | {"session": session, "enableRateLimit": False, "options": options})
    client.has["fetchCurrencies"] = False
    return client


def state(bench, venue):
    """What the venue itself holds for true, without its numbers and times."""
    records = bench.hyperliquid.desk.records if venue == "hyperliquid" else bench.okx.desk.records
    account = bench.world.account(venue)
    orders = [(sent.wire_id, sent.order.qty_base, sent.tif, sent.state, sent.filled_base) for sent in records]
    fills = [(fill.qty_base, fill.price, fill.fee, fill.liquidity) for fill in account.fills]
    paid = [(payment.qty_base, payment.rate, payment.cash) for payment in account.funding.values()]
    return {"wallet": account.wallet, "orders": orders, "fills": fills, "paid": paid, "leverage": account.leverage}


async def next_book(client, bench, symbol):
    """Let the world go on while the client waits for it."""
    waiting = asyncio.ensure_future(client.watch_order_book(symbol))
    await asyncio.sleep(0)
    bench.step()
    return await waiting


# -- Hyperliquid


async def trade_hyperliquid(client, bench):
    """Rest and cancel, take, be charged, close; reading everything back on the way."""
    symbol = "BTC/USDC:USDC"
    await client.load_markets()
    book = await client.watch_order_book(symbol)
    assert (book["bids"][0][0], book["asks"][0][0]) == (60005.0, 60008.0)
    assert (await next_book(client, bench, symbol))["bids"][0][0] == 60007.0
    await client.set_leverage(5, symbol, {"marginMode": "cross"})
    updates = asyncio.ensure_future(client.watch_orders())
    fills = asyncio.ensure_future(client.watch_my_trades())
    await client.create_order(symbol, "limit", "buy", 0.01, 60000, {"postOnly": True, "clientOrderId": CLOID + "01"})
    assert (await updates)[0]["clientOrderId"] == CLOID + "01"
    assert [row["clientOrderId"] for row in await client.fetch_open_orders(symbol)] == [CLOID + "01"]
    await client.cancel_order(None, symbol, {"clientOrderId": CLOID + "01"})
    with pytest.raises(ccxt.OrderNotFound):
        await client.cancel_order(None, symbol, {"clientOrderId": CLOID + "01"})
    with pytest.raises(ccxt.InvalidOrder, match="immediately matched"):
        await client.create_order(symbol, "limit", "buy", 0.01, 60010, {"postOnly": True})
    params = {"timeInForce": "IOC", "clientOrderId": CLOID + "02"}
    order = await client.create_order(symbol, "limit", "buy", 0.02, 60100, params)
    assert (order["filled"], order["average"]) == (0.02, 60010.0)
    assert (await fills)[0]["amount"] == 0.02
    bench.settle()
    assert (await client.fetch_funding_history(symbol))[0]["amount"] == -0.015
    assert (await client.fetch_funding_rate_history(symbol, START_NS // 10**6))[0]["fundingRate"] == 0.0000125
    assert (await client.fetch_positions([symbol]))[0]["contracts"] == 0.02
    params = {"timeInForce": "IOC", "reduceOnly": True, "clientOrderId": CLOID + "03"}
    await client.create_order(symbol, "limit", "sell", 0.02, 59990, params)
    assert await client.fetch_positions([symbol]) == []
    assert [trade["side"] for trade in await client.fetch_my_trades(symbol)] == ["buy", "sell"]
    assert (await client.fetch_order(CLOID + "01", symbol))["status"] == "canceled"
    return (await client.fetch_balance())["USDC"]["total"]


def sdk_hyperliquid(bench):
    """The same with the official SDK, which signs for the other network."""
    account = pytest.importorskip("eth_account", reason="hyperliquid-python-sdk is not installed")
    from hyperliquid.exchange import Exchange
    from hyperliquid.info import Info
    from hyperliquid.utils.types import Cloid

    url = f"http://127.0.0.1:{bench.hyperliquid.http_port}"
    info, heard = Info(url), []
    for kind in ("orderUpdates", "userFills"):
        info.subscribe({"type": kind, "user": OWNER}, heard.append)
    exchange = Exchange(account.Account.from_key(KEY), url)
    bench.step()
    assert info.l2_snapshot("BTC")["levels"][0][0]["px"] == "60007.0"
    assert exchange.update_leverage(5, "BTC")["status"] == "ok"
    resting, taking, closing = (Cloid.from_str(CLOID + number) for number in ("01", "02", "03"))
    answer = exchange.order("BTC", True, 0.01, 60000, {"limit": {"tif": "Alo"}}, cloid=resting)
    assert "resting" in answer["response"]["data"]["statuses"][0]
    for outcome in ("success", {"error": "Order was never placed, already canceled, or filled. asset=0"}):
        assert exchange.cancel_by_cloid("BTC", resting)["response"]["data"]["statuses"] == [outcome]
    answer = exchange.order("BTC", True, 0.01, 60010, {"limit": {"tif": "Alo"}})
    assert "bbo was 60007@60010" in answer["response"]["data"]["statuses"][0]["error"]
    exchange.order("BTC", True, 0.02, 60100, {"limit": {"tif": "Ioc"}}, cloid=taking)
    bench.settle()
    assert info.user_funding_history(OWNER, 0)[0]["delta"]["usdc"] == "-0.015"
    assert info.funding_history("BTC", 0)[0]["fundingRate"] == "0.0000125"
    exchange.order("BTC", False, 0.02, 59990, {"limit": {"tif": "Ioc"}}, reduce_only=True, cloid=closing)
    assert info.query_order_by_cloid(OWNER, resting)["order"]["status"] == "canceled"
    total = float(info.user_state(OWNER)["marginSummary"]["accountValue"])
    info.disconnect_websocket()
    assert {message["channel"] for message in heard} == {"orderUpdates", "userFills"}
    return total


def test_hyperliquid_ends_alike_for_ccxt_and_sdk(bench, authority):
    total = with_ccxt(bench, authority, hyperliquid, lambda client: trade_hyperliquid(client, bench))
    other = Bench(authority[0])
    try:
        assert sdk_hyperliquid(other) == pytest.approx(total)
        assert state(other, "hyperliquid") == state(bench, "hyperliquid")
    finally:
        other.close()
    account = bench.world.account("hyperliquid")
    fees = sum(fill.fee for fill in account.fills)
    realised = (D(60005) - D(60010)) * D("0.02")
    assert account.wallet == D(10_000) + realised - fees - D("0.015")
    assert float(account.wallet) == pytest.approx(total)


def test_hyperliquid_takes_no_order_from_a_stranger(bench, authority):
    async def scenario(client):
        await client.load_markets()
        with pytest.raises(ccxt.InvalidOrder, match="does not exist"):
            await client.create_order("BTC/USDC:USDC", "limit", "buy", 0.01, 60000)

    with_ccxt(bench, authority, lambda session: hyperliquid(session, "0x" + "22" * 32), scenario)
    assert state(bench, "hyperliquid")["orders"] == []


def test_hyperliquid_remembers_what_plain_ccxt_asks_for(bench, authority):
    async def scenario(client):
        await client.load_markets()
        await client.create_order("BTC/USDC:USDC", "limit", "buy", 0.01, 60000)

    plain = {"kind": ccxt.hyperliquid, "enableUnifiedMargin": None, "fetchMarkets": {"types": ["spot", "swap"]}}
    with_ccxt(bench, authority, lambda session: hyperliquid(session, **plain), scenario)
    assert len(bench.hyperliquid.desk.builders) == 1
    assert bench.hyperliquid.desk.referrer == "CCXT1"
    assert len(bench.hyperliquid.desk.records.working()) == 1


def test_hyperliquid_lets_an_approved_agent_trade(bench):
    account = pytest.importorskip("eth_account", reason="hyperliquid-python-sdk is not installed")
    from hyperliquid.exchange import Exchange

    url = f"http://127.0.0.1:{bench.hyperliquid.http_port}"
    answer, key = Exchange(account.Account.from_key(KEY), url).approve_agent("desk")
    assert answer["status"] == "ok"
    agent = Exchange(account.Account.from_key(key), url, account_address=OWNER)
    said = agent.order("BTC", True, 0.01, 60000, {"limit": {"tif": "Gtc"}})
    assert "resting" in said["response"]["data"]["statuses"][0]
    assert "does not exist" in agent.approve_agent()[0]["response"]


def test_hyperliquid_answers_a_lost_order_when_asked(bench, authority):
    """The line is cut instead of an answer, the order stands, and the question by its id finds it."""
    bench.faults.add(Reset(venue="hyperliquid", endpoint="POST /exchange order", executed=True))

    async def scenario(client):
        await client.load_markets()
        with pytest.raises(ccxt.NetworkError):
            await client.create_order("BTC/USDC:USDC", "limit", "buy", 0.01, 60000, {"clientOrderId": CLOID + "01"})
        return await client.fetch_order(CLOID + "01", "BTC/USDC:USDC")

    assert with_ccxt(bench, authority, hyperliquid, scenario)["status"] == "open"


# -- OKX


async def trade_okx(client, bench):
    symbol = "BTC/USDT:USDT"
    await client.load_markets()
    assert client.market(symbol)["contractSize"] == 0.01
    book = await client.watch_order_book(symbol)
    assert (book["bids"][0][:2], book["asks"][0][:2]) == ([60005.0, 100.0], [60008.0, 200.0])
    assert (await next_book(client, bench, symbol))["bids"][0][0] == 60007.0
    await client.set_leverage(5, symbol, {"marginMode": "cross"})
    updates, positions = (asyncio.ensure_future(one()) for one in (client.watch_orders, client.watch_positions))
    await asyncio.wait([positions])  # the snapshot: the login is over
    fills = asyncio.ensure_future(client.watch_my_trades())
    while not bench.okx.listeners("orders/ANY/"):
        await asyncio.sleep(0.005)
    await client.create_order(symbol, "limit", "buy", 1, 60000, {"postOnly": True, "clientOrderId": "fa01"})
    assert (await updates)[0]["clientOrderId"] == "fa01"
    assert [row["clientOrderId"] for row in await client.fetch_open_orders(symbol)] == ["fa01"]
    await client.cancel_order(None, symbol, {"clientOrderId": "fa01"})
    with pytest.raises(ccxt.OrderNotFound):
        await client.cancel_order(None, symbol, {"clientOrderId": "fa01"})
    await client.create_order(symbol, "limit", "buy", 1, 60010, {"postOnly": True, "clientOrderId": "fa02"})
    assert (await client.fetch_order(None, symbol, {"clientOrderId": "fa02"}))["status"] == "canceled"
    await client.create_order(symbol, "limit", "buy", 2, 60100, {"timeInForce": "IOC", "clientOrderId": "fa03"})
    assert (await fills)[0]["amount"] == 2
    order = await client.fetch_order(None, symbol, {"clientOrderId": "fa03"})
    assert (order["status"], order["average"]) == ("closed", 60010.0)
    bench.settle()
    assert (await client.fetch_funding_history(symbol))[0]["amount"] == -0.12002
    assert (await client.fetch_funding_rate_history(symbol))[0]["fundingRate"] == 0.0001
    assert (await client.fetch_funding_rate(symbol))["interval"] == "8h"
    assert (await client.fetch_positions([symbol]))[0]["contracts"] == 2
    params = {"reduceOnly": True, "clientOrderId": "fa04"}
    await client.create_order(symbol, "market", "sell", 2, None, params)
    assert await client.fetch_positions([symbol]) == []
    assert [trade["side"] for trade in await client.fetch_my_trades(symbol)] == ["buy", "sell"]
    return (await client.fetch_balance())["USDT"]["total"]


def sdk_okx(bench):
    pytest.importorskip("okx", reason="python-okx is not installed")
    from okx import Account, MarketData, PublicData, Trade

    domain, keys = f"http://127.0.0.1:{bench.okx.http_port}", KEYS._asdict()
    signed = {"api_key": keys["api_key"], "api_secret_key": keys["secret"], "passphrase": keys["passphrase"]}
    more = {"flag": "0", "domain": domain, "debug": False}
    account, trade = Account.AccountAPI(**signed, **more), Trade.TradeAPI(**signed, **more)
    public, market = PublicData.PublicAPI(**more), MarketData.MarketAPI(**more)
    coin = {"instId": "BTC-USDT-SWAP"}
    order = coin | {"tdMode": "cross", "side": "buy"}
    assert public.get_instruments("SWAP")["data"][0]["ctVal"] == "0.01"
    bench.step()
    assert market.get_orderbook("BTC-USDT-SWAP", sz="5")["data"][0]["seqId"] >= 1000
    assert account.set_leverage(lever="5", mgnMode="cross", **coin)["code"] == "0"
    assert trade.place_order(**order, ordType="post_only", sz="1", px="60000", clOrdId="fa01")["code"] == "0"
    assert [row["clOrdId"] for row in trade.get_order_list(instType="SWAP")["data"]] == ["fa01"]
    codes = [trade.cancel_order(**coin, clOrdId="fa01")["data"][0]["sCode"] for _ in range(2)]
    assert codes == ["0", "51401"]
    assert trade.place_order(**order, ordType="post_only", sz="1", px="60010", clOrdId="fa02")["code"] == "0"
    assert trade.get_order(**coin, clOrdId="fa02")["data"][0]["cancelSource"] == "31"
    assert trade.place_order(**order, ordType="ioc", sz="2", px="60100", clOrdId="fa03")["code"] == "0"
    bench.settle()
    assert account.get_account_bills(type="8")["data"][0]["pnl"] == "-0.12002"
    assert public.funding_rate_history("BTC-USDT-SWAP")["data"][0]["realizedRate"] == "0.0001"
    selling = order | {"side": "sell", "reduceOnly": "true"}
    assert trade.place_order(**selling, ordType="market", sz="2", clOrdId="fa04")["code"] == "0"
    assert account.get_positions(instType="SWAP")["data"] == []
    assert account.get_account_config()["data"][0]["posMode"] == "net_mode"
    return float(account.get_account_balance()["data"][0]["details"][0]["eq"])


def test_okx_ends_alike_for_ccxt_and_sdk(bench, authority):
    total = with_ccxt(bench, authority, okx, lambda client: trade_okx(client, bench))
    other = Bench(authority[0])
    try:
        assert sdk_okx(other) == pytest.approx(total)
        assert state(other, "okx") == state(bench, "okx")
    finally:
        other.close()
    account = bench.world.account("okx")
    fees = sum(fill.fee for fill in account.fills)
    realised = (D(60005) - D(60010)) * D("0.02")
    assert account.wallet == D(10_000) + realised - fees - D("0.12002")
    assert sum(D(bill["balChg"]) for bill in bench.okx.desk.bills) == account.wallet - 10_000


def test_okx_refuses_a_wrong_signature(bench, authority):
    async def scenario(client):
        await client.load_markets()
        with pytest.raises(ccxt.AuthenticationError, match="50113"):
            await client.create_order("BTC/USDT:USDT", "limit", "buy", 1, 60000)

    with_ccxt(bench, authority, lambda session: okx(session, KEYS._replace(secret="other")), scenario)
    assert state(bench, "okx")["orders"] == []


def test_okx_refuses_a_login_with_a_wrong_word(bench, authority):
    async def scenario(client):
        await client.load_markets()
        with pytest.raises(ccxt.AuthenticationError, match="60009"):
            await client.watch_orders()

    with_ccxt(bench, authority, lambda session: okx(session, KEYS._replace(passphrase="other")), scenario)


def test_okx_keeps_what_it_took_of_a_batch(bench, authority):
    async def scenario(client):
        await client.load_markets()
        name = {"symbol": "BTC/USDT:USDT", "type": "limit", "side": "buy", "amount": 1}
        prices = {"fa1": 60000, "fa2": 80000, "fa3": 59999}
        wanted = [name | {"price": price, "params": {"clientOrderId": id}} for id, price in prices.items()]
        return await client.create_orders(wanted)

    orders = with_ccxt(bench, authority, okx, scenario)
    assert [(order["clientOrderId"], order["status"]) for order in orders][1] == ("fa2", "rejected")
    assert [sent.wire_id for sent in bench.okx.desk.records.working()] == ["fa1", "fa3"]


def test_okx_says_it_is_busy_in_its_own_words(bench, authority):
    bench.faults.add(ErrorAnswer(venue="okx", endpoint="GET /api/v5/account/*", status=429))

    async def scenario(client):
        await client.load_markets()
        with pytest.raises(ccxt.RateLimitExceeded):
            await client.fetch_balance()
        return (await client.fetch_balance())["USDT"]["total"]

    assert with_ccxt(bench, authority, okx, scenario) == 10_000


def test_okx_starts_a_book_again_after_a_gap(bench, authority):
    async def scenario(client):
        await client.load_markets()
        symbol = "BTC/USDT:USDT"
        await client.watch_order_book(symbol)
        bench.faults.add(DropPush(venue="okx", endpoint="books//BTC-USDT-SWAP"))
        waiting = asyncio.ensure_future(client.watch_order_book(symbol))
        await asyncio.sleep(0)
        bench.step()  # lost
        bench.settle()  # the next one does not follow
        with pytest.raises(ccxt.InvalidNonce):
            await waiting
        return (await client.watch_order_book(symbol))["bids"][0][0]

    assert with_ccxt(bench, authority, okx, scenario) == 60005.0
