"""The sweep against a referee in plain Python, and the promises of its one call."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import sweep as benchmark  # noqa: E402
from sweep_rules import grid, make_market, referee  # noqa: E402

from fundarb.core.errors import InputError  # noqa: E402
from fundarb.research.sweep import parameter_grid, sweep  # noqa: E402
from fundarb.strategies.cross_funding_signal import CrossFundingParams, signal  # noqa: E402


@pytest.fixture(scope="module")
def market():
    return make_market(coins=6, hours=900, seed=3)


def test_every_set_is_what_the_referee_makes_of_it(market):
    rules = grid(12)
    found = benchmark.ours(benchmark.arrays_of(market), rules, threads=2)
    for row, each in zip(found, rules, strict=True):
        truth = list(referee(market, each).values())
        np.testing.assert_allclose(row, truth, rtol=1e-9, atol=1e-9 * 1e6, err_msg=str(each))
    assert len({tuple(row) for row in found.round(6)}) > 6  # the sets differ


def test_one_call_gives_a_row_for_each_set_on_any_number_of_threads(market):
    data, desk = benchmark.arrays_of(market), benchmark.desk(True)
    sets, refused = parameter_grid(CrossFundingParams(), {"slow_h": [24, 72], "fast_h": [12, 48], "max_pairs": [1, 3]})
    assert (len(sets), len(refused)) == (6, 2) and "fast_h = 48" in refused[0]
    one, two = (sweep(data, desk, sets, threads=n, progress=False) for n in (1, 2))
    assert one.equals(two)
    assert list(one.config_hash) and one.config_hash.is_unique and one.attrs["trials"] == 6
    np.testing.assert_allclose(one.net_usd, one.price_usd + one.funding_usd - one.fees_usd, atol=1e-9)


def test_what_cannot_be_swept_is_refused(market):
    data, desk = benchmark.arrays_of(market), benchmark.desk(True)
    with pytest.raises(InputError, match="no parameter set"):
        sweep(data, desk, [], progress=False)
    with pytest.raises(InputError, match="no parameter is called 'slow'"):
        parameter_grid(CrossFundingParams(), {"slow": [1]})
    with pytest.raises(InputError, match="refuses every combination"):
        parameter_grid(CrossFundingParams(), {"slow_h": [1]})


def test_the_signal_enters_nothing_below_its_edge():
    """The sweep's scan for entries ends at the first candidate below it."""
    rng = np.random.default_rng(0)
    for look in rng.normal(0, [1, 1, 10, 10, 5], (500, 5)):
        for enter in (0.0, 2.0, 20.0):
            side, _, net = signal(0, *look, 168.0, 0.5, 0.15, enter, -0.02)
            assert side == 0 or net >= enter
