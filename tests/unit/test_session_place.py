"""A session's folder: who may begin in it, and what is not begun anew."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from fundarb.apps.composition import RunSpec
from fundarb.apps.course import begin_session, begun_session, unheeded
from fundarb.apps.recovery import recipe_flaws
from fundarb.apps.requests import Requests
from fundarb.apps.session import SPEC_FILE, read_spec, write_spec
from fundarb.apps.session_log import opened_log
from fundarb.config.settings import StorageSettings, load_settings
from fundarb.core.errors import InputError
from fundarb.storage.database import SQLITE_FILE

SQLITE = StorageSettings()
BLANK = {name: {} for name in ("parameters", "limits", "execution", "deposits_usd", "latency_ms", "origin")}
SPEC = RunSpec(**BLANK, kind="live", session_id="one", code_version="1", parameters_digest="abc", strategy="", instruments=[])


@pytest.fixture
def settings():
    return load_settings(Path(__file__).parents[2] / "settings.ini")


def traded(folder):
    """Leave a folder as a process does that began, traded and died."""
    log = begin_session(folder, SQLITE, SPEC)
    with Requests(folder, None, None, None):
        log.abandon()


def test_who_comes_second_leaves_the_recipe_of_the_first(tmp_path):
    folder = tmp_path / "session"
    specs = [replace(SPEC, session_id=f"session-{number}") for number in range(8)]

    def begin(spec):
        try:
            return begin_session(folder, SQLITE, spec)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(len(specs)) as together:
        came_of_it = list(together.map(begin, specs))
    logs = [each for each in came_of_it if not isinstance(each, str)]
    refused = [each for each in came_of_it if isinstance(each, str)]
    assert len(logs) == 1 and all("another process" in each for each in refused), came_of_it
    assert read_spec(folder).session_id == logs[0].session.session_id
    logs[0].abandon()
    with opened_log(folder, SQLITE) as (_, session):
        assert recipe_flaws(folder, session.recipe) == ()


def test_a_recipe_alone_begins_anew(tmp_path):
    write_spec(tmp_path, SPEC)
    assert begun_session(tmp_path, SQLITE, "live", "abc") is None
    begin_session(tmp_path, SQLITE, replace(SPEC, session_id="two")).abandon()
    assert begun_session(tmp_path, SQLITE, "live", "abc").session_id == "two"


def test_a_session_whose_log_is_gone_is_not_begun_anew(tmp_path):
    traded(tmp_path)
    for file in tmp_path.glob(f"{SQLITE_FILE}*"):
        file.unlink()
    recipe = (tmp_path / SPEC_FILE).read_bytes()
    with pytest.raises(InputError, match="has traded, and its audit log is not where"):
        begun_session(tmp_path, SQLITE, "live", "abc")
    with pytest.raises(InputError, match="has traded, and its audit log is not where"):
        begin_session(tmp_path, SQLITE, replace(SPEC, session_id="two"))
    assert (tmp_path / SPEC_FILE).read_bytes() == recipe


def test_a_session_on_a_server_is_not_begun_anew_without_it(tmp_path, postgres):
    log = begin_session(tmp_path, StorageSettings(url=postgres), SPEC)
    with Requests(tmp_path, None, None, None):
        log.abandon()
    assert begun_session(tmp_path, StorageSettings(url=postgres), "live", "abc").session_id == "one"
    with pytest.raises(InputError, match="has traded, and its audit log is not where .storage. url says, sqlite"):
        begun_session(tmp_path, SQLITE, "live", "abc")


def test_what_is_set_after_the_beginning_is_told_not_taken_silently(settings):
    limits, execution = (section.model_dump(mode="json") for section in (settings.limits, settings.execution))
    spec = replace(SPEC, limits=limits, execution=execution)
    assert unheeded(spec, settings) == []
    tighter = settings.limits.model_copy(update={"max_gross_x": settings.limits.max_gross_x / 2})
    (said,) = unheeded(spec, settings.model_copy(update={"limits": tighter}))
    assert f"[limits] max_gross_x is set to {tighter.model_dump(mode='json')['max_gross_x']}: not in force" in said
    assert f"goes on with {limits['max_gross_x']}" in said
