"""Clients of other people, and a sandbox that stands still for them."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from decimal import Decimal as D

import pytest

from fundarb.core.events import MarkPriceUpdated
from fundarb.core.numbers import HOUR_NS, SECOND_NS
from fundarb.sandbox.host import OPENERS, Sandbox, sandbox_thread, synthetic_market

SYMBOLS = {"binance": "BTC/USDT:USDT", "hyperliquid": "BTC/USDC:USDC", "okx": "BTC/USDT:USDT"}


@contextmanager
def opened():
    """A sandbox that stands still a day and two hours into its market."""
    market = synthetic_market(seed=7, days=3, symbols=("BTC", "ETH"))
    sandbox = Sandbox(market, dict.fromkeys(OPENERS, D(10_000)), paused=True)
    sandbox.world.advance(sandbox.world.now_ns + 26 * HOUR_NS + 120 * SECOND_NS)
    with sandbox_thread(sandbox) as thread:
        yield thread


def bot(package, venue, known):
    """A client with nothing set but its keys and the addresses."""
    told, quick = known[venue], {"enableRateLimit": False, "options": {"defaultType": "swap"}}
    if venue == "hyperliquid":
        client = package.hyperliquid(quick | {"walletAddress": told["wallet_address"], "privateKey": told["private_key"]})
        client.urls["api"] = {"public": told["rest"], "private": told["rest"], "ws": {"public": told["ws"]}}
        return client
    keys = {"apiKey": told["api_key"], "secret": told["secret"], "password": told.get("passphrase", "")}
    client = (package.binance if venue == "binance" else package.okx)(quick | keys)
    if venue == "okx":
        client.urls["api"] = {**client.urls["api"], "rest": told["rest"], "ws": told["ws"]}
        return client
    there = {name: f"{told['rest']}/{url.split('/', 3)[3]}" for name, url in client.urls["api"].items() if isinstance(url, str)}
    client.urls["api"] = {**client.urls["api"], **there}
    if "ws" in client.urls["api"]:
        client.urls["api"]["ws"] = {**client.urls["api"]["ws"], "linear": told["ws"], "future": told["ws"]}
    return client


class OkxSocket:
    """python-okx's own websocket client, in a loop and a thread of its own."""

    def __init__(self, kind, url, **keys):
        self.messages, self.loop, self.kind = [], asyncio.new_event_loop(), kind
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.client = self.run(self.made(url, keys))
        self.run(self.client.start())

    async def made(self, url, keys):
        return self.kind(**keys, url=url)

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def subscribe(self, *channels):
        self.run(self.client.subscribe(list(channels), self.messages.append))

    def stop(self):
        self.run(self.client.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)


@contextmanager
def python_okx(thread, monkeypatch, path):
    """The words that python-okx's own clients of one account take, and its socket on a private path."""
    pytest.importorskip("okx", reason="python-okx is not installed")
    from okx.websocket.WsPrivateAsync import WsPrivateAsync

    monkeypatch.setenv("SSL_CERT_FILE", thread.known["tls"]["ca_file"])
    known, port = thread.known["okx"], thread.sandbox.servers["okx"].tls_port
    key, secret, passphrase = (known[name] for name in ("api_key", "secret", "passphrase"))
    keys = {"apiKey": key, "passphrase": passphrase, "secretKey": secret}
    socket = OkxSocket(WsPrivateAsync, f"wss://127.0.0.1:{port}/ws/v5/{path}", **keys)
    words = {"api_key": key, "api_secret_key": secret, "passphrase": passphrase}
    try:
        yield words | {"flag": "0", "domain": known["rest"], "debug": False}, socket
    finally:
        socket.stop()


def until(thing, within_s=20.0):
    """Wait until something has become true; what is pushed over a socket comes when it comes."""
    end_s = time.monotonic() + within_s
    while not thing():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.01)


def jump(thread, venue, symbol, share):
    """Let a mark be a share of what it was."""
    world = thread.sandbox.world

    async def once():
        was = world.mark(venue, symbol)
        price = {"mark_price": was.mark_price * share, "oracle_price": was.oracle_price * share}
        world._happen(MarkPriceUpdated(ts_init_ns=world.now_ns, venue=venue, symbol=symbol, **price))

    thread.call(once())


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
