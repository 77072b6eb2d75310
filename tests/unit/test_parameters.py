"""Parameter files: complete or refused, the digest says what is meant, and nothing is written over."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fundarb.config import parameters as module
from fundarb.config.parameters import ParameterSet, load_parameters, parameters_digest, write_parameters
from fundarb.core.errors import ParametersError


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Exit(Strict):
    bps: float = Field(1.0, ge=0)
    patience_h: int = 8


class CrossFunding(Strict):
    enter_bps: Decimal = Field(gt=0, le=100)
    horizon_h: float = Field(72.0, gt=0)
    coins: tuple[str, ...] = ("BTC",)
    exit: Exit = Exit()
    hedge: bool = True

    @model_validator(mode="after")
    def _exit_below_entry(self):
        if self.exit.bps >= self.enter_bps:
            raise ValueError(f"exit.bps {self.exit.bps} must be below enter_bps {self.enter_bps}")
        return self


class CashAndCarry(Strict):
    schema_version: ClassVar[int] = 3
    enter_bps: float = 1.0


SCHEMAS = {"cross_funding": CrossFunding, "cash_and_carry": CashAndCarry}
GOOD = {
    "strategy": "cross_funding",
    "schema_version": 1,
    "title": "Calm majors",
    "parameters": {
        "enter_bps": "12.5",
        "horizon_h": 72,
        "coins": ["BTC", "ETH"],
        "exit": {"bps": 2.5, "patience_h": 8},
        "hedge": True,
    },
}


def with_(**changes):
    return GOOD | changes


def parameters(**changes):
    return with_(parameters=GOOD["parameters"] | changes)


def without(name):
    return with_(parameters={key: value for key, value in GOOD["parameters"].items() if key != name})


@pytest.fixture
def load(tmp_path):
    def _load(document):
        path = tmp_path / "set.json"
        text = document if isinstance(document, bytes | str) else json.dumps(document)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_parameters(path, SCHEMAS)

    return _load


def refusal(load, document):
    with pytest.raises(ParametersError) as caught:
        load(document)
    message = str(caught.value)
    message.encode()  # it can be printed
    assert "set.json: " in message and "Nothing was started." in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def test_a_good_file_loads(load, tmp_path):
    loaded = load(GOOD)
    assert loaded == ParameterSet(
        strategy="cross_funding",
        title="Calm majors",
        schema_version=1,
        parameters=CrossFunding(enter_bps="12.5", horizon_h=72, coins=("BTC", "ETH"), exit=Exit(bps=2.5)),
        digest=loaded.digest,
        path=tmp_path / "set.json",
    )
    assert isinstance(loaded.parameters.enter_bps, Decimal)
    with pytest.raises(AttributeError):
        loaded.title = "x"


def test_a_schema_may_speak_another_version(load):
    document = {"strategy": "cash_and_carry", "schema_version": 3, "title": "t", "parameters": {"enter_bps": 2}}
    assert load(document).schema_version == 3
    assert "schema_version = 1: cash_and_carry speaks 3" in refusal(load, document | {"schema_version": 1})


# --- the digest ---------------------------------------------------------------------------------


def test_the_digest_is_pinned():
    """Whoever changes how it is computed orphans every digest in the records of runs."""
    digest = parameters_digest("cash_and_carry", 3, CashAndCarry(enter_bps=2.5))
    canonical = b'{"parameters":{"enter_bps":2.5},"schema_version":3,"strategy":"cash_and_carry"}'
    assert digest == hashlib.sha256(canonical).hexdigest()


def test_the_digest_ignores_spelling(load):
    digest = load(GOOD).digest
    assert load(with_(title="Another title")).digest == digest
    assert load(json.dumps(dict(reversed(GOOD.items())), indent=4)).digest == digest
    assert load(with_(parameters=dict(reversed(GOOD["parameters"].items())))).digest == digest
    assert load(parameters(horizon_h=72.0)).digest == digest
    assert load("\ufeff" + json.dumps(GOOD)).digest == digest
    assert load(json.dumps(GOOD).replace("72", "7.2e1")).digest == digest
    assert load(json.dumps(GOOD).replace('"12.5"', "12.5")).digest == digest


@pytest.mark.parametrize(
    "change",
    [
        {"enter_bps": "12.6"},
        {"horizon_h": 72.0000001},
        {"coins": ["ETH", "BTC"]},
        {"coins": ["BTC"]},
        {"exit": {"bps": 2.5, "patience_h": 9}},
        {"hedge": False},
    ],
)
def test_the_digest_sees_every_parameter(load, change):
    assert load(parameters(**change)).digest != load(GOOD).digest


def test_the_digest_sees_strategy_and_version():
    one = CashAndCarry()
    digests = {parameters_digest("a", 1, one), parameters_digest("b", 1, one), parameters_digest("a", 2, one)}
    assert len(digests) == 3 and all(len(digest) == 64 for digest in digests)


# --- bad files ----------------------------------------------------------------------------------

BAD = [
    ("", "is empty"),
    (" \n\t ", "is empty"),
    ("\ufeff", "is empty"),
    ("{", "not JSON, line 1"),
    ('{"strategy": "cross_funding",}', "not JSON, line 1"),
    ("{}\n{}", "not JSON, line 2: Extra data"),
    ("strategy = cross_funding", "not JSON, line 1"),
    ("{'strategy': 'x'}", "not JSON, line 1"),
    ("[" * 100_000, "nested too deeply"),
    ("[]", "a list, should be an object"),
    ('[{"strategy": "cross_funding"}]', "a list, should be an object"),
    ("1", "1, should be an object"),
    ("1.5", "1.5, should be an object"),
    ('"cross_funding"', '"cross_funding", should be an object'),
    ("null", "null, should be an object"),
    ("true", "true, should be an object"),
    ("NaN", "NaN is not a finite number"),
    (b"\xff\xfe{}", "not UTF-8 at byte 0"),
    (json.dumps(GOOD).encode("utf-16"), "not UTF-8 at byte 0"),
    ("{}", "key 'strategy' is missing"),
    ("{}", "key 'schema_version' is missing"),
    ("{}", "key 'title' is missing"),
    ("{}", "key 'parameters' is missing"),
    (with_(remarks={}), "key 'remarks' is unknown, known are strategy, schema_version, title, parameters"),
    (with_(evidence={}), "key 'gates' is missing: a seal is whole or not there"),
    (with_(stratgy="x"), "key 'stratgy' is unknown, did you mean strategy?"),
    (with_(strategy="spot_grid"), 'strategy = "spot_grid": should be one of cross_funding, cash_and_carry'),
    (with_(strategy=None), "strategy = null: should be one of"),
    (with_(strategy=[]), "strategy = a list: should be one of"),
    (with_(strategy={"a": 1}), "strategy = an object: should be one of"),
    (with_(strategy="Cross_Funding"), "should be one of cross_funding"),
    (with_(schema_version=2), "schema_version = 2: cross_funding speaks 1"),
    (with_(schema_version=0), "schema_version = 0: cross_funding speaks 1"),
    (with_(schema_version="1"), 'schema_version = "1": cross_funding speaks 1'),
    (with_(schema_version=1.0), "schema_version = 1.0: cross_funding speaks 1"),
    (with_(schema_version=True), "schema_version = true: cross_funding speaks 1"),
    (with_(schema_version=None), "schema_version = null: cross_funding speaks 1"),
    (with_(title=""), 'title = "": should be a line'),
    (with_(title="  "), 'title = "  ": should be a line'),
    (with_(title="a\nb"), "should be a line of at most 200"),
    (with_(title="\x1b[31mred"), "should be a line of at most 200"),
    (with_(title="\ud800"), "should be a line of at most 200"),
    (with_(title="x" * 201), "should be a line of at most 200"),
    (with_(title=7), "title = 7: should be a line"),
    (with_(title=None), "title = null: should be a line"),
    (with_(parameters=[]), "parameters = a list: should be an object"),
    (with_(parameters=None), "parameters = null: should be an object"),
    (with_(parameters={}), "parameter 'enter_bps' is missing"),
    (with_(parameters={}), "parameter 'hedge' is missing"),
    (parameters(enter_bp=1), "parameter 'enter_bp' is unknown, did you mean enter_bps?"),
    (parameters(leverage=1), "parameter 'leverage' is unknown"),
    (without("enter_bps"), "parameter 'enter_bps' is missing"),
    (without("horizon_h"), "parameter 'horizon_h' is missing"),
    (without("hedge"), "parameter 'hedge' is missing"),
    (parameters(exit={"bps": 1.0}), "parameter 'exit' leaves something out"),
    (parameters(exit={}), "parameter 'exit' leaves something out"),
    (parameters(exit={"bps": 1.0, "patience_h": 8, "x": 1}), "exit.x = 1: Extra inputs"),
    (parameters(exit={"bps": -1, "patience_h": 8}), "exit.bps = -1: should be at least 0 bps"),
    (parameters(exit={"bps": 50.0, "patience_h": 8}), "parameters: exit.bps 50.0 must be below enter_bps 12.5"),
    (parameters(exit=None), "exit = null: should be"),
    (parameters(enter_bps=0), "enter_bps = 0: should be above 0 bps"),
    (parameters(enter_bps=101), "enter_bps = 101: should be at most 100 bps"),
    (parameters(enter_bps="many"), 'enter_bps = "many": should be a valid decimal'),
    (parameters(enter_bps="NaN"), 'enter_bps = "NaN": should be a finite number'),
    (parameters(enter_bps=True), "enter_bps = true: "),
    (parameters(enter_bps=None), "enter_bps = null: "),
    (parameters(horizon_h="72"), 'horizon_h = "72": should be a valid number'),
    (parameters(horizon_h=True), "horizon_h = true: should be a valid number"),
    (parameters(horizon_h=[72]), "horizon_h = a list: should be a valid number"),
    (parameters(horizon_h=0), "horizon_h = 0: should be above 0 h"),
    (parameters(horizon_h=10**400), "is too long for a number"),
    (json.dumps(GOOD).replace("72", "1" * 5000), "is too long for a number"),
    (json.dumps(GOOD).replace("72", "1e999"), "1e999 is not a finite number"),
    (json.dumps(GOOD).replace("72", "NaN"), "NaN is not a finite number"),
    (json.dumps(GOOD).replace("72", "Infinity"), "Infinity is not a finite number"),
    (json.dumps(GOOD).replace("72", "-Infinity"), "-Infinity is not a finite number"),
    (json.dumps(GOOD).replace('"horizon_h"', '"horizon_h": 7, "horizon_h"'), "'horizon_h' stands twice"),
    (json.dumps(GOOD).replace('"title"', '"title": "x", "title"'), "'title' stands twice"),
    (json.dumps(GOOD).replace('"bps"', '"bps": 1, "bps"'), "'bps' stands twice"),
    (parameters(coins="BTC"), 'coins = "BTC": should be'),
    (parameters(coins=[1]), "coins.0 = 1: should be a valid string"),
    (parameters(hedge="yes"), 'hedge = "yes": should be a valid boolean'),
    (parameters(hedge=1), "hedge = 1: should be a valid boolean"),
]


@pytest.mark.parametrize("document, said", BAD, ids=[said[:50] for _, said in BAD])
def test_a_bad_file_is_refused_and_says_why(load, document, said):
    assert said in refusal(load, document)


SECRET_NAMES = ["webhook", "webhookUrl", "discord_webhook", "secret", "API_SECRET", "token", "bot-token", "api_key"]
SECRET_NAMES += ["apiKey", "API-KEY", "api key", "private_key", "privateKey", "password", "passwd", "passphrase"]


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize(
    "place",
    [
        lambda name, value: with_(**{name: value}),
        lambda name, value: parameters(**{name: value}),
        lambda name, value: parameters(exit={name: value}),
        lambda name, value: parameters(coins=[{"deep": [{name: {"x": value}}]}]),
        lambda name, value: with_(strategy={name: value}),
        lambda name, value: with_(title={name: value}),
        lambda name, value: with_(parameters=[{name: value}]),
        lambda name, value: with_(strategy="foreign", parameters={name: value}),
    ],
)
def test_what_looks_like_a_secret_is_refused_and_its_value_not_repeated(load, name, place):
    message = refusal(load, place(name, "v4lue-0123"))
    assert f"{name!r} looks like a secret" in message and "v4lue" not in message


def test_all_mistakes_are_told_at_once(load):
    document = parameters(enter_bps=-1, horizn_h=7, token="t") | {"title": "", "schema_version": 2, "x": 1}
    del document["parameters"]["horizon_h"]
    message = refusal(load, document)
    assert "set.json: 7 problems. Nothing was started." in message and message.count("\n  ") == 7


def test_a_long_value_is_cut(load):
    assert len(refusal(load, parameters(enter_bps="x" * 10_000))) < 500


# --- bad paths ----------------------------------------------------------------------------------


def test_a_missing_file_says_what_is_there(load, tmp_path):
    load(GOOD)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ParametersError, match=r"sett\.json: no such file; \S+ holds set\.json\. Nothing was started"):
        load_parameters(tmp_path / "sett.json", SCHEMAS)


def test_a_missing_file_in_an_empty_folder(tmp_path):
    with pytest.raises(ParametersError, match="holds no .json file"):
        load_parameters(tmp_path / "a.json", SCHEMAS)


def test_a_missing_folder(tmp_path):
    with pytest.raises(ParametersError, match="there is no folder .*gone"):
        load_parameters(tmp_path / "gone" / "a.json", SCHEMAS)


def test_a_full_folder_is_not_listed_to_the_end(tmp_path):
    for number in range(100):
        (tmp_path / f"{number:03}.json").touch()
    with pytest.raises(ParametersError) as caught:
        load_parameters(tmp_path / "a.json", SCHEMAS)
    assert "019.json" in str(caught.value) and "020.json" not in str(caught.value)


@pytest.mark.parametrize("path", [Path("/dev/zero"), Path("/")])
def test_what_is_not_a_file_is_not_read(path):
    with pytest.raises(ParametersError, match="not a file. Nothing was started"):
        load_parameters(path, SCHEMAS)


def test_a_directory(tmp_path):
    with pytest.raises(ParametersError, match="not a file"):
        load_parameters(tmp_path, SCHEMAS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(load, tmp_path):
    load(GOOD)
    (tmp_path / "set.json").chmod(0)
    with pytest.raises(ParametersError, match="Permission denied"):
        load_parameters(tmp_path / "set.json", SCHEMAS)


# --- writing ------------------------------------------------------------------------------------

SET = CrossFunding(enter_bps="12.50", horizon_h=0.1, coins=("BTC", "ŽŁ"), exit=Exit(bps=2.5))


def write(path, **changes):
    fields = {"strategy": "cross_funding", "title": "Calm – ünïcode", "parameters": SET}
    return write_parameters(path, **(fields | changes))


def test_what_is_written_is_what_is_read(tmp_path):
    written = write(tmp_path / "new" / "deep" / "a.json")
    assert load_parameters(written.path, SCHEMAS) == written
    assert written.parameters == SET and written.digest == parameters_digest("cross_funding", 1, SET)
    assert [child.name for child in written.path.parent.iterdir()] == ["a.json"]
    assert written.path.read_bytes().endswith(b"}\n")
    assert stat.S_IMODE(written.path.stat().st_mode) == 0o644


def test_nothing_is_written_over(tmp_path):
    before = write(tmp_path / "a.json").path.read_bytes()
    with pytest.raises(ParametersError, match="a.json: exists, and a set is never changed: .* Nothing was written"):
        write(tmp_path / "a.json", title="Other")
    assert (tmp_path / "a.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_an_empty_file_or_a_dangling_link_is_in_the_way_too(tmp_path):
    (tmp_path / "a.json").touch()
    (tmp_path / "b.json").symlink_to(tmp_path / "gone.json")
    (tmp_path / "c.json").mkdir()
    for name in "abc":
        with pytest.raises(ParametersError, match="exists"):
            write(tmp_path / f"{name}.json")
    assert (tmp_path / "a.json").read_bytes() == b"" and not (tmp_path / "gone.json").exists()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"title": ""}, "title = "),
        ({"title": "a\nb"}, "title = "),
        ({"strategy": ""}, None),
        ({"parameters": SET.model_copy(update={"horizon_h": float("nan")})}, "NaN"),
        ({"parameters": SET.model_copy(update={"horizon_h": float("inf")})}, None),
        ({"parameters": SET.model_copy(update={"enter_bps": Decimal(-1)})}, "enter_bps = "),
        ({"parameters": SET.model_copy(update={"hedge": "yes"})}, "hedge = "),
    ],
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer")
def test_what_could_not_be_read_back_is_not_written(tmp_path, changes, said):
    if said is None and "strategy" in changes:
        assert load_parameters(write(tmp_path / "a.json", **changes).path, {"": CrossFunding})
        return
    with pytest.raises(ParametersError, match=said):
        write(tmp_path / "sub" / "a.json", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_before_the_name_leaves_no_set(tmp_path, monkeypatch):
    """Up to the last step there is no file of that name, after it there is a whole one."""
    seen = []

    def crash(fd):
        seen.append([child.name for child in tmp_path.glob("*.json")])
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.os, "fsync", crash)
    with pytest.raises(ParametersError, match="Input/output error. Nothing was written"):
        write(tmp_path / "a.json")
    assert seen == [[]] and list(tmp_path.iterdir()) == []


def test_data_reaches_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    calls = []
    real = {name: getattr(os, name) for name in ("fsync", "link")}
    monkeypatch.setattr(module.os, "fsync", lambda fd: (calls.append("fsync"), real["fsync"](fd)))
    monkeypatch.setattr(module.os, "link", lambda a, b: (calls.append("link"), real["link"](a, b)))
    write(tmp_path / "a.json")
    assert calls == ["fsync", "link", "fsync"]


def test_of_many_writers_one_wins(tmp_path):
    results = []

    def attempt(number):
        try:
            results.append(write(tmp_path / "a.json", title=f"writer {number}").title)
        except ParametersError:
            results.append(None)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    (winner,) = [title for title in results if title]
    assert load_parameters(tmp_path / "a.json", SCHEMAS).title == winner
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("path", ["/dev/null/a.json", "/proc/a.json"])
def test_where_nothing_can_be_written(path):
    with pytest.raises(ParametersError, match="Nothing was written"):
        write(Path(path))


# --- anything at all ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from([*GOOD, *GOOD["parameters"], "token"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=JSON
    | st.dictionaries(NAMES, JSON).map(lambda changes: GOOD | changes)
    | st.dictionaries(NAMES, JSON).map(lambda changes: parameters(**changes))
)
def test_no_document_does_more_than_be_refused(load, document):
    try:
        assert load(document).strategy in SCHEMAS
    except ParametersError as error:
        str(error).encode()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    enter_bps=st.decimals("2.6", 100, allow_nan=False, places=6),
    horizon_h=st.floats(0, 1e300, exclude_min=True),
    coins=st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
)
def test_every_valid_set_survives_the_round_trip(tmp_path_factory, enter_bps, horizon_h, coins):
    original = CrossFunding(enter_bps=enter_bps, horizon_h=horizon_h, coins=tuple(coins), exit=Exit(bps=2.5))
    path = tmp_path_factory.mktemp("sets") / "a.json"
    written = write(path, parameters=original)
    again = load_parameters(path, SCHEMAS)
    assert again == written and again.parameters == original
    assert str(again.parameters.enter_bps) == str(enter_bps)


def test_importing_is_light():
    heavy = {"numpy", "pandas", "pyarrow", "numba", "fastcore", "IPython", "structlog"}
    code = f"import sys, fundarb.config.settings, fundarb.config.parameters; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
