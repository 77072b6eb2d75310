"""What tests of faults share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # crash_drill.py and desk.py stand beside the tests
import crash_drill
from desk import Desk


@pytest.fixture
def running():
    """Processes that are not to outlive the test."""
    started = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def desk(tmp_path):
    """A sandbox that trades, with nobody on it yet."""
    with crash_drill.sandbox(tmp_path, 7) as control:
        yield Desk(tmp_path, control)
