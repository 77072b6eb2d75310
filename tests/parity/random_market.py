"""A random market, said once in the words of the oracle and once in those of the sweep."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import sweep_oracle as oracle

from fundarb.research.sweep_book import Desk
from fundarb.research.sweep_data import Legs, Pairs, SweepData
from fundarb.strategies.cross_funding_signal import CrossFundingParams

FIRST_H, FROM_ROW, DEPOSITS = 473_000, 60, [40_000.0, 30_000.0, 35_000.0]
OPEN_DESK = Desk(
    max_gross_x=6.0, max_venue_gross_x=4.0, max_symbol_gross_x=2.0, max_pair_notional_usd=50_000.0, max_symbol_margin_frac=0.5,
    max_leverage_x=5.0, block_margin_ratio=0.6, reduce_margin_ratio=0.8, max_drawdown_frac=0.9, max_daily_loss_frac=0.9,
    max_orders=8, collar_bps=20.0, max_from_mark_bps=60.0, max_depth_frac=0.5, entry_collar_bps=8.0, top_up_below=0.9,
    covered=0.8, textbook=False,
)  # fmt: skip


def some_silence(rng, hours):
    """Ages of what was heard last: mostly fresh, now and then a stretch of nothing."""
    ages, age = [], 0.001
    for _ in range(hours):
        age = age + 1 if rng.random() < (0.8 if age > 1 else 0.03) else 0.001
        ages.append(age)
    return ages


def make_legs(rng, hours, coins, venues):
    """Make one contract per coin and venue: a common price, a rate of its own, now and then a thin book."""
    legs = []
    for coin in range(coins):
        base = float(rng.uniform(20, 400))
        common = base * np.exp(np.cumsum(rng.normal(0, 0.004, hours)))
        for venue in range(venues):
            interval = int(rng.choice([1, 4, 8]))
            price = common * (1 + np.cumsum(rng.normal(0, 1e-4, hours)) * 0.3)
            carry = rng.normal(0, 4e-5) + np.cumsum(rng.normal(0, 1e-5, hours)) * 0.5
            rate = [float(carry[t] * interval) if (FIRST_H + t) % interval == 0 else None for t in range(hours)]
            level = rng.uniform(0.3, 3, hours) * rng.choice([1, 1, 1, 0.1], hours) * 6_000 / base
            legs.append(
                oracle.Leg(
                    venue, price.tolist(), (price * (1 + rng.normal(0, 3e-4, hours))).tolist(), level.tolist(), rate,
                    interval, 1.0, float(rng.uniform(0.5, 5)), Fraction(int(rng.choice([1, 5])), 100), Fraction(1, 100),
                    0.02, 10.0, 0.05, 0.2,
                )
            )  # fmt: skip
    return legs


def make_pairs(rng, legs, hours, coins, venues):
    """Match up the venues of each coin, with what is usual between them."""
    pairs = []
    for coin in range(coins):
        for va, vb in combinations(range(venues), 2):
            a, b = coin * venues + va, coin * venues + vb
            lot = max(legs[a].lot, legs[b].lot)
            pairs.append(
                oracle.Pair(
                    a, b, coin, lot, 2 * (legs[a].fee_bps + legs[b].fee_bps), float(rng.uniform(1e-5, 1e-4)),
                    rng.normal(0, 3, hours).tolist(), rng.uniform(0.5e6, 20e6, hours).tolist(),
                    (rng.random(hours) < 0.02).tolist(), (rng.random(hours) < 0.9).tolist(), some_silence(rng, hours),
                )
            )  # fmt: skip
    return pairs


def fraction(value: Fraction) -> tuple[float, float]:
    return float(value.numerator), float(value.denominator)


def arrays_of(legs, pairs, coins, venues) -> SweepData:
    """Say the same market in the words of the sweep."""
    hours = len(legs[0].price)
    by_hour = lambda name: np.array([getattr(leg, name) for leg in legs]).T
    once = lambda name: np.array([getattr(leg, name) for leg in legs])
    settled = np.array([[r is not None for r in leg.rate] for leg in legs]).T
    rate = np.array([[r or 0.0 for r in leg.rate] for leg in legs]).T
    sums, known = np.zeros((2, hours + 25, len(legs)))
    top = np.full((hours, len(legs)), -25)
    for n, leg in enumerate(legs):
        for r in np.flatnonzero(settled[:, n]):
            for hour in range(r - leg.interval_h + 1, r + 1):
                sums[hour + 25, n] = sums[hour + 24, n] + leg.rate[r] / leg.interval_h * 1e4
                known[hour + 25, n] = known[hour + 24, n] + 1
            top[r:, n] = r
    interval = np.where(top > -25, once("interval_h"), 0)
    price, mark = by_hour("price"), by_hour("mark")
    paid = np.cumsum(rate * mark, axis=0)
    a, b = (np.array([getattr(pair, side) for pair in pairs]) for side in "ab")
    of_pairs = lambda name: np.array([getattr(pair, name) for pair in pairs]).T
    funding, ref = paid[:, b] - paid[:, a], (price[:, a] + price[:, b]) / 2
    names = tuple(f"C{n}" for n in range(coins))
    return SweepData(
        venues=tuple("XYZ"[:venues]), pair_ids=tuple(f"{n:02d}" for n in range(len(pairs))), symbols=names,
        leg_names=tuple(("XYZ"[leg.venue], names[n // venues]) for n, leg in enumerate(legs)), first_h=FIRST_H,
        from_row=FROM_ROW, fingerprint="", deposits_usd=np.array(DEPOSITS[:venues]),
        legs=Legs(
            open=price, price=price, level_base=by_hour("level_base"), mark=mark, paid=paid, sum_bps=sums, known=known,
            top=top, interval_h=interval, venue=once("venue"), half_bps=once("half_bps"), fee_bps=once("fee_bps"),
            step=np.array([fraction(leg.lot) for leg in legs]), tick=np.array([fraction(leg.tick) for leg in legs]),
            min_base=once("min_base"), min_usd=once("min_usd"), maintenance=once("maintenance"), margin=once("margin"),
        ),
        pairs=Pairs(
            a=a, b=b, coin=of_pairs("coin"), step=np.array([fraction(pair.lot) for pair in pairs]),
            fees_bps=of_pairs("fees_bps"), wait_h=of_pairs("wait_h"), ref=ref,
            basis_bps=(price[:, b] - price[:, a]) / ref * 1e4, usual_bps=of_pairs("usual_bps"),
            volume_usd=of_pairs("volume_usd"), at_cap=of_pairs("at_cap").astype("uint8"),
            may_open=of_pairs("may_open").astype("uint8"), silent_h=of_pairs("silent_h"),
            value=mark[:, a] - mark[:, b] + funding, funding=funding,
        ),
    )  # fmt: skip


def some_sets(rng, count) -> list[CrossFundingParams]:
    """Draw parameter sets from the values that matter."""
    draw = rng.choice
    return [
        CrossFundingParams(
            slow_h=int(draw([24, 48])), fast_h=int(draw([3, 12])), horizon_h=float(draw([48, 168])),
            persistence=float(draw([0.5, 1.0])), fast_weight=float(draw([0.0, 0.3])), enter_edge_bps=float(draw([0, 5, 20])),
            exit_bps_h=float(draw([-0.2, -0.02])), notional_usd=int(draw([3_000, 12_000])), max_pairs=int(draw([1, 2, 5])),
            cool_down_h=float(draw([0, 3, 24])), max_silence_h=float(draw([2, 12])), max_basis_bps=float(draw([15, 50])),
        )
        for _ in range(count)
    ]  # fmt: skip
