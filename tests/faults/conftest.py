"""What tests of faults share."""

import pytest


@pytest.fixture
def running():
    """Processes that are not to outlive the test."""
    started = []
    yield started
    for process in started:
        process.kill()
        process.wait()
