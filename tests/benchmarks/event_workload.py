"""A million top-of-book quotes of two venues and five coins with their funding, and a plain loop that trades them.

The rules are as simple as a real decision can be, so that what is measured is the engine around them: enter a coin
when crossing both books now and the carry of the next eight hours are worth more than ENTER_BPS, leave when crossing
back is no longer worse than EXIT_BPS. Both legs take the top of the book at once.
"""

from math import floor
from typing import NamedTuple

import numpy as np

COINS = {"BTC": 60_000.0, "ETH": 3_000.0, "SOL": 150.0, "LINK": 20.0, "BNB": 600.0}
VENUES = {"binance": 0.0004, "hyperliquid": 0.00045}  # taker fee, fraction
INTERVAL_H = {"binance": 8, "hyperliquid": 1}
CHARGED_S = {"binance": (5, 20), "hyperliquid": (2, 2)}  # no order so long before and after a settlement
NOTIONAL_USD, ENTER_BPS, EXIT_BPS = 10_000.0, 6.0, -1.0
LOT_BASE, TICK = 0.001, 0.01
DEPOSIT_USD = 10_000_000
HOUR_NS = 3_600_000_000_000
START_NS = 472_224 * HOUR_NS  # a multiple of eight hours
DAYS = 7


class Workload(NamedTuple):
    """Quotes and settlements, each in time order; instruments are numbered venue by venue."""

    time_ns: list[int]
    instrument: list[int]
    bid: list[float]
    ask: list[float]
    bid_base: list[float]
    ask_base: list[float]
    funding: list[tuple[int, int, int, float]]  # time ns, instrument, rate in 1e-8, mark price
    end_ns: int  # no entries from here on, and what is open is closed


def make(quotes: int, seed: int = 11) -> Workload:
    """Make a week of quotes by formula: a walk per coin, and a basis that falls back to nothing."""
    rng, coins = np.random.default_rng(seed), len(COINS)
    micros = np.unique(rng.integers(1, DAYS * 24 * HOUR_NS // 1000, quotes + quotes // 50 + 64))
    time_ns = START_NS + 1000 * np.sort(rng.choice(micros, quotes, replace=False)) + 17
    instrument = rng.integers(0, 2 * coins, quotes)
    price = np.empty(quotes)
    for coin, start in enumerate(COINS.values()):
        own = np.flatnonzero(instrument % coins == coin)
        walk = np.cumsum(rng.standard_normal(own.size)) * 2e-5 * (1e6 / quotes) ** 0.5
        basis_bps = _falling_back(rng.standard_normal(own.size) * 0.35, 0.996)
        side = np.where(instrument[own] >= coins, 0.5, -0.5)
        price[own] = start * np.exp(walk) * (1 + side * basis_bps * 1e-4)
    half_ticks = np.maximum(np.round(price * 0.4e-4 / TICK), 1) / 2
    bid = np.round(np.round(price / TICK - half_ticks) * TICK, 2)
    ask = np.round(bid + 2 * half_ticks * TICK, 2)
    sizes = [np.round(NOTIONAL_USD / price * rng.uniform(3, 30, quotes) + 1, 3) for _ in range(2)]
    funding = _funding(rng, time_ns, instrument, (bid + ask) / 2)
    columns = (time_ns, instrument, bid, ask, *sizes)
    return Workload(*(column.tolist() for column in columns), funding, int(time_ns[int(quotes * 0.99)]))


def _falling_back(shocks: np.ndarray, kept: float) -> np.ndarray:
    level, path = 0.0, []
    for shock in shocks.tolist():
        level = kept * level + shock
        path.append(level)
    return np.array(path)


def _funding(rng: np.random.Generator, time_ns: np.ndarray, instrument: np.ndarray, mid: np.ndarray) -> list:
    coins, rows = len(COINS), []
    drift = np.cumsum(rng.standard_normal((DAYS * 24, coins)) * 4e-6, axis=0)
    last_mid = np.array(list(COINS.values()))
    begin = 0
    for hour in range(1, DAYS * 24):
        at_ns = START_NS + hour * HOUR_NS
        end = int(np.searchsorted(time_ns, at_ns))
        last_mid[instrument[begin:end] % coins] = mid[begin:end]
        begin = end
        for coin in range(coins):
            mark, gap = round(float(last_mid[coin]), 2), drift[hour, coin]
            if hour % 8 == 0:
                rows.append((at_ns, coin, round((8e-5 + 4 * gap) * 1e8), mark))
            rows.append((at_ns, coins + coin, round((1e-5 + gap) * 1e8), mark))
    return rows


class Outcome(NamedTuple):
    """What a session came to, USD; all engines must agree on it."""

    wallets: tuple[float, float]  # change of each venue's account
    fees: float
    funding: float
    fills: int

    def check(self, other: "Outcome", who: str) -> None:
        """Raise AssertionError unless another engine agrees: to the cent on money, exactly on fills."""
        money = [*zip(self.wallets, other.wallets), (self.fees, other.fees), (self.funding, other.funding)]
        apart = max(abs(ours - theirs) for ours, theirs in money)
        assert apart < 0.005 and self.fills == other.fills, f"{who} disagrees: {other} is not {self}"


def plain_loop(
    work: Workload,
    waits: bool,  # no trade before funding is known, nor near a settlement, as our house rules have it
) -> Outcome:
    """Trade the workload in one loop, with no engine at all: the answer the engines are checked against."""
    coins, fees = len(COINS), list(VENUES.values())
    bid, ask, rate = [0.0] * 2 * coins, [0.0] * 2 * coins, [0] * 2 * coins
    side, qty, paid = [0] * coins, [0.0] * coins, [(0.0, 0.0)] * coins
    wallet, fee_sum, funding_sum, fills = [0.0, 0.0], 0.0, 0.0, 0
    settlements, due = work.funding, 0
    for now_ns, leg, new_bid, new_ask in zip(work.time_ns, work.instrument, work.bid, work.ask):
        while due < len(settlements) and settlements[due][0] <= now_ns:
            _, where, per_interval, mark = settlements[due]
            venue, coin = divmod(where, coins)
            rate[where] = per_interval
            if side[coin]:
                cash = (-side[coin], side[coin])[venue] * qty[coin] * mark * per_interval * 1e-8
                wallet[venue] += cash
                funding_sum += cash
            due += 1
        bid[leg], ask[leg] = new_bid, new_ask
        coin = leg % coins
        a, b = coin, coins + coin
        if not bid[a] or not bid[b]:
            continue
        carry_bps = (rate[b] * 8 - rate[a]) * 1e-4
        buy_a_bps = (bid[b] - ask[a]) / ask[a] * 1e4 + carry_bps
        sell_a_bps = (bid[a] - ask[b]) / ask[b] * 1e4 - carry_bps
        held = side[coin]
        if waits and must_wait(now_ns, rate, a, b):
            continue
        if held:
            if (sell_a_bps if held > 0 else buy_a_bps) <= EXIT_BPS and now_ns < work.end_ns:
                continue
            turn = -held
        else:
            turn = (buy_a_bps > ENTER_BPS) - (buy_a_bps <= ENTER_BPS < sell_a_bps)
            if not turn or now_ns >= work.end_ns:
                continue
            qty[coin] = floor(NOTIONAL_USD / ask[a] / LOT_BASE) * LOT_BASE
        prices = (ask[a], bid[b]) if turn > 0 else (bid[a], ask[b])
        if held:
            wallet[0] += held * qty[coin] * (prices[0] - paid[coin][0])
            wallet[1] -= held * qty[coin] * (prices[1] - paid[coin][1])
        side[coin], paid[coin] = held + turn, prices
        for venue, price in enumerate(prices):
            fee = qty[coin] * price * fees[venue]
            wallet[venue] -= fee
            fee_sum += fee
        fills += 2
    return Outcome((wallet[0], wallet[1]), fee_sum, funding_sum, fills)


def must_wait(now_ns: int, rate: list[int], *legs: int) -> bool:
    """Tell whether a leg's funding is unknown so far, or a settlement is so near that it may still charge."""
    for leg, (venue, (before_s, after_s)) in zip(legs, CHARGED_S.items()):
        interval_ns = INTERVAL_H[venue] * HOUR_NS
        since_ns = now_ns % interval_ns
        near = since_ns <= after_s * 10**9 or since_ns >= interval_ns - before_s * 10**9
        if near or not rate[leg]:
            return True
    return False
