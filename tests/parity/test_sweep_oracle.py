"""The sweep against an oracle in plain Python: costs, funding, limits, margin, halts, silence, thin books, all of it."""

import sys
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import sweep_oracle as oracle

from fundarb.core.costs import capital_cost_bps
from fundarb.research import sweep_answers
from fundarb.research.sweep import sweep, trace
from fundarb.research.sweep_book import Desk
from fundarb.research.sweep_data import Legs, Pairs, SweepData
from fundarb.research.sweep_kernel import RESULTS
from fundarb.strategies.cross_funding_signal import CrossFundingParams

FIRST_H, FROM_ROW, DEPOSITS = 473_000, 60, [40_000.0, 30_000.0, 35_000.0]
OPEN_DESK = Desk(
    max_gross_x=6.0, max_venue_gross_x=4.0, max_symbol_gross_x=2.0, max_pair_notional_usd=50_000.0, max_symbol_margin_frac=0.5,
    max_leverage_x=5.0, block_margin_ratio=0.6, reduce_margin_ratio=0.8, max_drawdown_frac=0.9, max_daily_loss_frac=0.9,
    max_orders=8, collar_bps=20.0, max_from_mark_bps=60.0, max_depth_frac=0.5, entry_collar_bps=8.0, top_up_below=0.9,
    covered=0.8, textbook=False,
)  # fmt: skip
DESKS = {
    "open": OPEN_DESK,
    "limits": OPEN_DESK._replace(max_gross_x=0.35, max_venue_gross_x=0.2, max_symbol_gross_x=0.25, max_orders=4),
    "margin": OPEN_DESK._replace(reduce_margin_ratio=0.012, block_margin_ratio=0.03),
    "daily loss": OPEN_DESK._replace(max_daily_loss_frac=0.0001),
    "drawdown": OPEN_DESK._replace(max_drawdown_frac=0.0002),
}


def some_silence(rng, hours):
    """Ages of what was heard last: mostly fresh, now and then a stretch of nothing."""
    ages, age = [], 0.001
    for _ in range(hours):
        age = age + 1 if rng.random() < (0.8 if age > 1 else 0.03) else 0.001
        ages.append(age)
    return ages


def make_legs(rng, hours, coins, venues):
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


def both(seed: int, desk: Desk, count: int, hours: int = 260, coins: int = 3, venues: int = 3):
    """Play sets on a random market in both; gives the sweep's results and the oracle's, by set."""
    rng = np.random.default_rng(seed)
    legs = make_legs(rng, hours, coins, venues)
    pairs, sets = make_pairs(rng, legs, hours, coins, venues), some_sets(rng, count)
    found = sweep(arrays_of(legs, pairs, coins, venues), desk, sets, threads=1, progress=False)
    judge = oracle.Oracle(legs, pairs, FIRST_H, FROM_ROW, DEPOSITS[:venues], desk)
    costs = [capital_cost_bps(p.horizon_h, p.leverage, p.leverage, p.capital_rate_year) for p in sets]
    truth = [judge.play(params, cost) for params, cost in zip(sets, costs, strict=True)]
    return found, truth


@pytest.mark.parametrize("name", DESKS)
def test_every_figure_of_every_set_is_what_the_oracle_says(name):
    found, truth = both(seed=len(name), desk=DESKS[name], count=12)
    for row, expected in zip(found.to_dict("records"), truth, strict=True):
        for figure in RESULTS:
            assert row[figure] == pytest.approx(expected[figure], rel=1e-9, abs=1e-6), (figure, row)
    total = {figure: sum(expected[figure] for expected in truth) for figure in RESULTS}
    assert total["entries"] > 20 and total["round_trips"] > 20 and total["uneven"] > 0 and total["refused"] > 0, total
    assert (total["halted"] > 0) == (name == "drawdown"), total


def test_pairs_that_never_enter_change_nothing_however_many_they_are():
    """A hundred pairs need two words of bits; what trades is among the last of them."""
    rng = np.random.default_rng(4)
    legs = make_legs(rng, 200, 2, 2)
    pairs, sets = make_pairs(rng, legs, 200, 2, 2), some_sets(rng, 6)
    few = sweep(arrays_of(legs, pairs, 2, 2), OPEN_DESK, sets, threads=1, progress=False)
    idle_legs = make_legs(rng, 200, 98, 2)
    idle = [pair._replace(volume_usd=[0.0] * 200) for pair in make_pairs(rng, idle_legs, 200, 98, 2)]
    moved = [pair._replace(a=pair.a + 196, b=pair.b + 196, coin=pair.coin + 98) for pair in pairs]
    sets = [each.model_copy(update={"min_volume_usd_24h": 1.0}) for each in sets]
    many = sweep(arrays_of(idle_legs + legs, idle + moved, 100, 2), OPEN_DESK, sets, threads=1, progress=False)
    assert few.entries.sum() > 10
    np.testing.assert_array_equal(few[list(RESULTS)], many[list(RESULTS)])


def test_thresholds_that_matter_to_each_other_cost_tables_and_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    legs = make_legs(rng, 200, 2, 2)
    data = arrays_of(legs, make_pairs(rng, legs, 200, 2, 2), 2, 2)
    sets = [
        CrossFundingParams(slow_h=24, fast_h=3, persistence=1.0, enter_edge_bps=enter, exit_bps_h=leave, cool_down_h=0)
        for enter in (0.0, 5.0, 20.0)
        for leave in (-0.2, -0.02)
    ]
    apart = sweep(data, OPEN_DESK, sets, threads=1, progress=False)
    monkeypatch.setattr(sweep_answers, "_apart", lambda *asked: False)
    together = sweep(data, OPEN_DESK, sets, threads=1, progress=False)
    assert len({*apart.net_usd.round(6)}) > 2
    np.testing.assert_array_equal(apart[list(RESULTS)], together[list(RESULTS)])


def changed_after(legs, pairs, row: int):
    """Keep every fact up to a row, and change all of them from then on."""
    other = lambda facts, factor: facts[: row + 1] + [fact and fact * factor for fact in facts[row + 1 :]]
    legs = [
        leg._replace(
            price=other(leg.price, 1.04),
            mark=other(leg.mark, 0.97),
            level_base=other(leg.level_base, 0.5),
            rate=other(leg.rate, -3.0),
        )
        for leg in legs
    ]
    pairs = [
        pair._replace(
            usual_bps=other(pair.usual_bps, -2.0),
            volume_usd=other(pair.volume_usd, 0.2),
            may_open=pair.may_open[: row + 1] + [not may for may in pair.may_open[row + 1 :]],
            silent_h=other(pair.silent_h, 3.0),
        )
        for pair in pairs
    ]
    return legs, pairs


@pytest.mark.parametrize("row", [90, 131, 192])
def test_no_set_knows_what_comes_after_an_hour(row):
    rng = np.random.default_rng(row)
    legs = make_legs(rng, 260, 3, 3)
    pairs, sets = make_pairs(rng, legs, 260, 3, 3), some_sets(rng, 8)
    told, other = (arrays_of(*market, 3, 3) for market in ((legs, pairs), changed_after(legs, pairs, row)))
    felt, until = 0, told.times[row - FROM_ROW]
    for params in sets:
        one, two = (trace(data, OPEN_DESK, params) for data in (told, other))
        before = [each.trades[each.trades.time <= until].reset_index(drop=True) for each in (one, two)]
        pd.testing.assert_frame_equal(*before, check_exact=True)
        pd.testing.assert_series_equal(one.equity[:until], two.equity[:until], check_exact=True)
        felt += not one.trades.equals(two.trades)
    assert felt > 4
