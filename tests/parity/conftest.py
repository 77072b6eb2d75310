"""The sweep, compiled before the first test that needs it."""

import fcntl
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # what the tests share stands beside them

from random_market import OPEN_DESK, arrays_of, make_legs, make_pairs, some_sets

from fundarb.research.sweep import sweep


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """One worker compiles, which is a minute of work; the others wait for it and find the code on disk."""
    rng = np.random.default_rng(1)
    legs = make_legs(rng, 120, 1, 2)
    data = arrays_of(legs, make_pairs(rng, legs, 120, 1, 2), 1, 2)
    with (tmp_path_factory.getbasetemp().parent / "sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(data, OPEN_DESK, some_sets(rng, 1), threads=1, progress=False)
