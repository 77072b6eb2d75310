"""The sweep against a referee in plain Python, and the promises of its one call."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import sweep as benchmark
from sweep_rules import grid, make_market, referee

from fundarb.core.errors import InputError
from fundarb.research.sweep import parameter_grid, sweep
from fundarb.strategies.cross_funding_signal import CrossFundingParams


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


def test_a_dask_cluster_gives_the_same_frame(market):
    distributed = pytest.importorskip("distributed", reason="the cluster extra is not installed")
    data, desk = benchmark.arrays_of(market), benchmark.desk(True)
    sets, _ = parameter_grid(CrossFundingParams(), {"slow_h": [36, 72], "max_pairs": [1, 3]})
    here = sweep(data, desk, sets, progress=False)
    quiet = {"processes": False, "dashboard_address": None, "n_workers": 1, "threads_per_worker": 2}
    with distributed.LocalCluster(**quiet) as cluster:
        there = sweep(data, desk, sets, address=cluster.scheduler_address, progress=False)
    assert here.equals(there)


LOOK = """
import numpy as np
from fundarb.research.sweep_looks import Looks, _edges

one = np.ones((1, 2))
seen = np.array([[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
looks = Looks(slow=one, fast=one, seen=seen, slippage=one, fixed_bps=np.ones(1), edges=np.zeros((1, 2)))
_edges(looks, 0, 0.0, 10.0, np.zeros(1, bool), (100.0, 1.0, 0.0, 0.0, 0.0))
print(looks.edges[0, 1], sum(_edges.stats.cache_hits.values()))
"""


def test_a_signal_that_is_edited_in_its_notebook_is_compiled_again(tmp_path):
    """The disk keeps compiled code; an edit elsewhere must not leave the sweep with the old signal."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "fundarb", tmp_path / "fundarb", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "nbs").mkdir()
    notebook = tmp_path / "nbs" / "30a_strategies_cross_funding_signal.ipynb"
    shutil.copy(root / "nbs" / notebook.name, notebook)
    shutil.copy(root / "pyproject.toml", tmp_path)
    where = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    env = {name: value for name, value in os.environ.items() if name != "IN_TEST"} | where

    def run(code: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert run(LOOK) == ["98.0", "0"]  # 1 bps an hour for 100 h, less costs of 2
    assert run(LOOK) == ["98.0", "1"]  # from disk
    text = notebook.read_text()
    assert text.count("- cost_bps\\n") == 1
    notebook.write_text(text.replace("- cost_bps\\n", "- 2 * cost_bps\\n"))
    run(f"from nbdev.export import nb_export; nb_export({str(notebook)!r}, lib_path='fundarb')")
    assert run(LOOK) == ["96.0", "0"]
