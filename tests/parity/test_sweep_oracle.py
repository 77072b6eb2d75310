"""The sweep against an oracle in plain Python: costs, funding, limits, margin, halts, silence, thin books, all of it."""

import numpy as np
import pandas as pd
import pytest
import sweep_oracle as oracle
from random_market import DEPOSITS, FIRST_H, FROM_ROW, OPEN_DESK, arrays_of, make_legs, make_pairs, some_sets

from fundarb.core.costs import capital_cost_bps
from fundarb.research import sweep_answers
from fundarb.research.sweep import sweep, trace
from fundarb.research.sweep_book import Desk
from fundarb.research.sweep_kernel import RESULTS
from fundarb.strategies.cross_funding_signal import CrossFundingParams

pytestmark = pytest.mark.timeout(900)  # the sweep may have to be compiled first, on a machine that may be busy
DESKS = {
    "open": OPEN_DESK,
    "limits": OPEN_DESK._replace(max_gross_x=0.35, max_venue_gross_x=0.2, max_symbol_gross_x=0.25, max_orders=4),
    "margin": OPEN_DESK._replace(reduce_margin_ratio=0.012, block_margin_ratio=0.03),
    "daily loss": OPEN_DESK._replace(max_daily_loss_frac=0.0001),
    "drawdown": OPEN_DESK._replace(max_drawdown_frac=0.0002),
}


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
