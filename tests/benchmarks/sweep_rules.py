"""The rules that all rivals of the sweep play by, a market to play in, and a referee in plain Python.

Two venues settle funding: A every 8 hours, B every hour. At each hour, what was carried into it is
settled; then the trailing sum of the settled difference, B less A, says by its size and sign what to
hold: leave where it has fallen below `leave`, enter the largest above `enter` while fewer than `slots`
are held. Both legs trade at the price of the hour and pay `FEE`. Rates are whole numbers of 1e-8 and
prices whole cents, so that every order of summation gives the same signal.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

HOURS_YEAR, FEE, CAPITAL = 8760, 0.0004, 1_000_000.0
COLUMNS = ("equity", "price", "funding", "fees", "entries", "drawdown", "sharpe")


class Market(NamedTuple):
    price_a: np.ndarray  # (T, N)
    price_b: np.ndarray
    rate_a: np.ndarray  # (T, N) int64, in 1e-8 per settlement; 0: none
    rate_b: np.ndarray


class Rules(NamedTuple):
    enter: float  # fraction per year
    leave: float
    window_h: int
    slots: int


def drift(rng, pull, size, hours, coins):
    """A walk that falls back to zero."""
    steps, out = rng.standard_normal((hours, coins)) * size, np.zeros((hours, coins))
    for t in range(1, hours):
        out[t] = out[t - 1] * (1 - pull) + steps[t]
    return out


def make_market(coins: int, hours: int, seed: int = 11) -> Market:
    rng = np.random.default_rng(seed)
    start = np.exp(rng.uniform(math.log(50), math.log(50_000), coins))
    moves = 0.003 * rng.standard_normal((hours, 1)) + rng.uniform(0.003, 0.009, coins) * rng.standard_normal(
        (hours, coins)
    )
    walk = np.cumsum(moves - moves.mean(axis=0), axis=0)
    mid = start * np.exp(np.clip(walk, -1.2, 1.2))
    basis = drift(rng, 0.05, 3e-4, hours, coins)
    common, gap = drift(rng, 0.01, 2e-6, hours, coins), drift(rng, 0.004, 1.6e-6, hours, coins)
    hourly_a = 8e-6 + common - gap / 2
    hourly_b = 8e-6 + common + gap / 2 + 3e-6 * rng.standard_normal((hours, coins))
    rate_a, eights = np.zeros((hours, coins), "int64"), np.arange(8, hours, 8)
    summed = np.vstack([np.zeros(coins), np.cumsum(hourly_a, axis=0)])
    rate_a[eights] = np.round((summed[eights] - summed[eights - 8]) * 1e8)
    rate_b = np.round(hourly_b * 1e8).astype("int64")
    rate_b[0] = 0
    return Market(np.round(mid * (1 - basis / 2), 2), np.round(mid * (1 + basis / 2), 2), rate_a, rate_b)


def grid(sets: int) -> list[Rules]:
    """The whole grid is 1,000 sets; fewer are spread over it evenly."""
    enter = (0.03, 0.05, 0.07, 0.09, 0.11, 0.14, 0.17, 0.20, 0.25, 0.30)
    everything = itertools.product(enter, (-0.02, -0.01, 0.0, 0.01, 0.02), (8, 24, 72, 168, 336), (1, 3, 5, 10))
    rules = [Rules(*values) for values in everything]
    return [rules[int(place)] for place in np.linspace(0, len(rules) - 1, sets).round()]


def referee(market: Market, rules: Rules) -> dict[str, float]:
    """Play by the rules with a ledger per leg, as plainly as they can be written."""
    price_a, price_b = market.price_a.tolist(), market.price_b.tolist()
    rate_a, rate_b = market.rate_a.tolist(), market.rate_b.tolist()
    hours, coins = market.price_a.shape
    to_year, size_usd = HOURS_YEAR * 1e-8 / rules.window_h, CAPITAL / (2 * rules.slots)
    trailing, held = [0] * coins, {}
    cash, peak, depth, before = CAPITAL, CAPITAL, 0.0, CAPITAL
    price = funding = fees = 0.0
    entries, returns = 0, []
    for t in range(hours):
        for n, (side, qty, _, _) in held.items():
            paid = side * qty * (price_b[t][n] * rate_b[t][n] - price_a[t][n] * rate_a[t][n]) * 1e-8
            cash, funding = cash + paid, funding + paid
        for n in range(coins):
            trailing[n] += rate_b[t][n] - rate_a[t][n]
            if t >= rules.window_h:
                trailing[n] -= rate_b[t - rules.window_h][n] - rate_a[t - rules.window_h][n]
        if t >= rules.window_h - 1:
            signal = [total * to_year for total in trailing]
            for n in [n for n in held if held[n][0] * signal[n] < rules.leave]:
                side, qty, a, b = held.pop(n)
                gain, fee = (
                    side * qty * ((price_a[t][n] - a) - (price_b[t][n] - b)),
                    FEE * qty * (price_a[t][n] + price_b[t][n]),
                )
                cash, price, fees = cash + gain - fee, price + gain, fees + fee
            for n in sorted(range(coins), key=lambda n: (-abs(signal[n]), n)):
                if len(held) < rules.slots and n not in held and abs(signal[n]) > rules.enter:
                    qty = size_usd / price_a[t][n]
                    fee = FEE * qty * (price_a[t][n] + price_b[t][n])
                    cash, fees, entries = cash - fee, fees + fee, entries + 1
                    held[n] = (1 if signal[n] > 0 else -1, qty, price_a[t][n], price_b[t][n])
        open_ = sum(s * q * ((price_a[t][n] - a) - (price_b[t][n] - b)) for n, (s, q, a, b) in held.items())
        returns.append((cash + open_) / before - 1)
        before, peak = cash + open_, max(peak, cash + open_)
        depth = max(depth, 1 - before / peak)
    mean = sum(returns) / hours
    spread = math.sqrt(sum((each - mean) ** 2 for each in returns) / (hours - 1))
    sharpe = mean / spread * math.sqrt(HOURS_YEAR) if spread else 0.0
    return dict(zip(COLUMNS, (before, price + open_, funding, fees, entries, depth, sharpe), strict=True))


def check(name: str, market: Market, rules: list[Rules], results: np.ndarray, places: list[int]) -> None:
    """Money to the cent, counts exactly, ratios to 1e-7; NaN: the rival cannot tell."""
    for place in places:
        truth = referee(market, rules[place])
        for column, found in zip(COLUMNS, results[place], strict=True):
            near = {"entries": 0.0, "drawdown": 1e-7, "sharpe": 1e-7 * max(1, abs(truth[column]))}.get(column, 0.005)
            if not math.isnan(found) and abs(found - truth[column]) > near:
                raise SystemExit(f"{name} {rules[place]}: {column} is {found}, the referee says {truth[column]}")
