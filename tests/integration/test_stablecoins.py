"""A dollar coin that leaves its dollar, or is priced no more, over OKX's wire: said, entries across currencies blocked, and free again."""

import asyncio
from decimal import Decimal as D

from fundarb.config.settings import LimitSettings
from fundarb.core.events import AlertRaised, StablecoinPriced, decode, encode
from fundarb.core.models import Pair
from fundarb.core.numbers import SECOND_NS
from fundarb.data_providers.market_state import MarketState
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.exchanges.connection import HOSTS, Connection
from fundarb.exchanges.venues import adapter_for
from fundarb.risk.gate import RiskGate
from fundarb.risk.health import Stablecoins
from fundarb.sandbox.traffic import Traffic
from fundarb.sandbox.faults import ErrorAnswer, FaultBook
from fundarb.sandbox.okx import OkxServer
from fundarb.sandbox.okx_gate import Keys
from fundarb.sandbox.world import World


LIMITS = LimitSettings(max_stable_age_s=1)


async def story():
    """Let USDC fall, recover, vanish and come back; return what stands against an entry each time, and the alerts."""
    spec = default_spec(seed=7, days=2)
    instruments = {(i.venue, i.symbol): i for i in default_instruments(spec)}
    world = World(instruments.values(), SyntheticMarket(spec, list(instruments.values())), {t.venue: D(100_000) for t in spec.venues})
    world.advance(spec.start_ns + 100 * SECOND_NS)
    pair = Pair(a=instruments["hyperliquid", "BTC"], b=instruments["okx", "BTC"])
    assert {pair.a.quote, pair.b.quote} == {"USDC", "USDT"}
    rules = Stablecoins(LIMITS)
    gate, alerts, answers = RiskGate(LIMITS, [pair], MarketState([pair], 5)), [], []
    heard = asyncio.Event()

    def hear(event):
        if isinstance(event, StablecoinPriced):
            rules.hear(event)
            said = gate.handlers()[StablecoinPriced](decode(encode(event)))
            alerts.extend(each for each in said if isinstance(each, AlertRaised))
            heard.set() if event.currency == "USDC" else None

    async def entry():
        for _ in range(2):  # a reading that was under way, and one after it
            heard.clear()
            async with asyncio.timeout(20):
                await heard.wait()
        return rules.check(pair)  # what the gate asks at every entry

    faults = FaultBook()
    server = OkxServer(world, Traffic(), faults, Keys("key", "secret", "phrase"))
    await server.start()
    connection = Connection({host: ("127.0.0.1", server.http_port) for host in HOSTS["okx"]})
    words = {"symbols": ["BTC"], "credentials": None, "connection": connection, "timeout_ms": 5000}
    adapter = adapter_for("okx", clock=lambda: world.now_ns, emit=hear, **words)
    try:
        await adapter.open()
        watching = asyncio.ensure_future(adapter.watch_stablecoins(every_s=0.05))
        try:
            faults.add(ErrorAnswer(venue="okx", endpoint="*index-tickers*", status=502, times=4))  # out at first
            for usd in (1.0, 0.993, 0.9999):
                server.coins_usd["USDC"] = usd
                answers.append(await entry())
            del server.coins_usd["USDC"]
            answers.append(await entry())  # a moment ago it was known
            while (blocked := await entry()) is None:
                pass
            answers.append(blocked)
            server.coins_usd["USDC"] = 0.9999
            answers.append(await entry())
        finally:
            watching.cancel()
    finally:
        await adapter.close()
        await server.stop()
    return answers, alerts


def test_entries_across_currencies_are_blocked_while_a_dollar_is_none_or_unknown():
    answers, alerts = asyncio.run(story())
    off, old = ("block_stable_bps", "USDC"), ("max_stable_age_s", "USDC")
    assert [answer and (answer.limit, answer.scope) for answer in answers] == [None, off, None, None, old, None]
    assert D(69) < answers[1].value < D(71) and answers[4].value > 1
    assert [alert.scope for alert in alerts] == ["USDC", "USDC"] and "max_stable_age_s" in alerts[1].text
