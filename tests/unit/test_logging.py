"""Logging: a known secret never reaches a line, whatever carries it; and logging never fails its caller."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from fundarb.config.settings import load_settings
from fundarb.monitoring.logging import MASK, SUBJECTS, configure_logging, log_session, logger, scrubber

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def restored():
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def written(act, log_format="json", secrets=(), level="info"):
    logging.getLogger().handlers.clear()  # pytest's own listens too, and raises where ours does not
    stream = io.StringIO()
    configure_logging(log_format, level, stream, [SecretStr(secret) for secret in secrets])
    act(logger(component="tests"))
    return stream.getvalue()


def records(act, **kwargs):
    return [json.loads(line) for line in written(act, **kwargs).splitlines()]


# --- no secret gets out -------------------------------------------------------------------------


class Says:
    """An object that shows a secret, in one way or the other."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return f"<says {self.text}>"


class Message(msgspec.Struct):
    text: str


def raised(log, error):
    try:
        raise error
    except type(error):
        log.exception("failed")


def chained(log, s):
    try:
        try:
            raise ValueError(s)
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        log.error("failed", exc_info=True)  # noqa: G201


def from_stdlib(s):
    library = logging.getLogger("some.library")
    library.warning("sent %s and %r", s, {"key": s})
    library.error(f"plain {s}")
    library.error("does not fit %d", s)
    try:
        raise ConnectionError(f"https://x/?k={quote(s, errors='replace')}")
    except ConnectionError:
        library.exception("lost")


def in_session(log, s):
    with log_session(s), structlog.contextvars.bound_contextvars(other=[s]):
        log.info("bound")
    log.bind(venue=s, pair=s).info("bound")


CARRIERS = {
    "event": lambda log, s: log.info(f"event {s} text"),
    "event alone": lambda log, s: log.info(s),
    "event bytes": lambda log, s: log.info(s.encode("utf-8", "replace")),
    "interpolated": lambda log, s: log.info("text %s", s),
    "value": lambda log, s: log.info("x", value=s),
    "key": lambda log, s: log.info("x", **{s: 1}),
    "nested value": lambda log, s: log.info("x", dump={"a": [{"b": (s, {"c": s})}]}),
    "nested key": lambda log, s: log.info("x", dump={"a": {s: 1}}),
    "set": lambda log, s: log.info("x", values={s}),
    "bytes": lambda log, s: log.info("x", raw=f"\x00{s}\x01".encode("utf-8", "replace")),
    "repr": lambda log, s: log.info("x", shown=repr({"k": s})),
    "repr of bytes": lambda log, s: log.info("x", shown=repr(s.encode("utf-8", "replace"))),
    "json body": lambda log, s: log.info("x", body=json.dumps({"k": [s]})),
    "json body, not ascii": lambda log, s: log.info("x", body=json.dumps({"k": [s]}, ensure_ascii=False)),
    "url": lambda log, s: log.info("GET https://x/?k=" + quote(s, safe="", errors="replace")),
    "url path": lambda log, s: log.info("GET https://x/" + quote(s, errors="replace") + "/y"),
    "url plus": lambda log, s: log.info("x", url="https://x/?k=" + quote_plus(s, errors="replace")),
    "object": lambda log, s: log.info("x", obj=Says(s), struct=Message(s)),
    "deep": lambda log, s: log.info("x", deep=[[[[[[[[[[[[s]]]]]]]]]]]]),
    "exception": lambda log, s: raised(log, ValueError(f"bad {s}")),
    "key error": lambda log, s: raised(log, KeyError(s)),
    "exception with notes": lambda log, s: raised(log, noted(s)),
    "cause": chained,
    "stdlib": lambda log, s: from_stdlib(s),
    "session": in_session,
}


def noted(s):
    error = RuntimeError("x")
    error.add_note(s)
    return error


def readings(output):
    """The output as it is, and as whoever greps, parses or decodes it would read it."""
    yield output
    for line in output.splitlines():
        try:
            yield str(json.loads(line).values())
        except ValueError:
            pass
        yield unquote(line)
        yield unquote_plus(line)


SECRETS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="*"), min_size=8, max_size=40)
SECRETS |= st.text("abcdef0123456789", min_size=8, max_size=64)
SECRETS |= st.text("abc\"'\\/%+= \n\t{}&\x1b\x00é漢🔑", min_size=8, max_size=20)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("carrier", CARRIERS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=SECRETS)
@example(secret="vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A")
@example(secret="c0ffee/\"8\"+='x'")
@example(secret="-----BEGIN KEY-----\nMC4CAQ+/=\n-----END KEY-----")
@example(secret="component")
@example(secret="\\\\\"\"''%%2F")
def test_a_secret_never_reaches_a_line(log_format, carrier, secret):
    output = written(lambda log: CARRIERS[carrier](log, secret), log_format, [secret])
    assert output.endswith("\n")
    for reading in readings(output):
        assert secret not in reading


@pytest.mark.parametrize("carrier", CARRIERS)
def test_an_ordinary_secret_is_masked_and_the_line_stays_json(carrier):
    """The test above could pass by writing nothing: here the line is whole and the mask is in it."""
    secret = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv"
    output = written(lambda log: CARRIERS[carrier](log, secret), secrets=[secret])
    for line in output.splitlines():
        assert set(SUBJECTS) <= set(json.loads(line)) or carrier == "key"
    assert MASK in output


def test_every_secret_of_the_settings_is_masked(tmp_path):
    (tmp_path / "settings.ini").write_text((ROOT / "settings.ini").read_text())
    names = [f"FUNDARB_VENUES__{venue}__API_{what}" for venue in ("OKX", "BYBIT") for what in ("KEY", "SECRET")]
    env = {name: f"value-of-{name.lower()}" for name in names}
    loaded = load_settings(tmp_path / "settings.ini", env)
    stream = io.StringIO()
    configure_logging("json", stream=stream, secrets=loaded.secrets())
    logger("tests").info("start", env=env, settings=loaded, dump=loaded.model_dump(), values=list(env.values()))
    assert "value-of" not in stream.getvalue()


def test_secrets_of_which_one_contains_the_other():
    output = written(lambda log: log.info("abcdefgh-12345678"), secrets=["abcdefgh", "abcdefgh-12345678"])
    assert json.loads(output)["event"] == MASK


def test_an_empty_secret_masks_nothing():
    assert records(lambda log: log.info("text"), secrets=[""])[0]["event"] == "text"


@pytest.mark.parametrize(
    "text, left",
    [
        ("https://x/?a=1&signature=abc123&b=2", "https://x/?a=1&signature=***&b=2"),
        ("https://x/?apiKey=abc123", "https://x/?apiKey=***"),
        ("https://x/?api_key=abc123#f", "https://x/?api_key=***"),
        ("https://x/?API-KEY=abc123", "https://x/?API-KEY=***"),
        ("wss://x/ws?listenKey=abc123 closed", "wss://x/ws?listenKey=*** closed"),
        ("'https://x/?token=abc123'", "'https://x/?token=***'"),
        ('{"url":"https://x/?token=abc123"}', '{"url":"https://x/?token=***"}'),
        ("https://x/?symbol=BTCUSDT&side=BUY", "https://x/?symbol=BTCUSDT&side=BUY"),
    ],
)
def test_credentials_in_urls_go_by_name(text, left):
    assert scrubber([])(text) == left


CREDENTIALS = ["api_key", "apiKey", "API-SECRET", "token", "passphrase", "Authorization", "X-Signature"]


@pytest.mark.parametrize("name", CREDENTIALS)
def test_fields_named_like_credentials_lose_their_value(name):
    fields = {name: "abc123", "headers": {name: ["abc123"], "a": 1}, "absent": {name: None}}
    (record,) = records(lambda log: log.info("x", **fields))
    assert record[name] == MASK and record["headers"] == {name: MASK, "a": 1} and record["absent"] == {name: None}


# --- the line -----------------------------------------------------------------------------------


def test_every_json_line_has_the_same_first_keys():
    def act(log):
        log.info("about nothing")
        log.warning("about something", venue="okx", pair="BTC:binance-okx", zebra=1, ant=2)
        logging.getLogger("some.library").error("from elsewhere")

    nothing, something, elsewhere = records(act)
    head = ["time", "level", "event", "session", "component", "venue", "pair"]
    assert [list(record)[:7] for record in (nothing, something, elsewhere)] == [head] * 3
    assert list(something)[7:] == ["zebra", "ant"]
    assert [nothing[key] for key in SUBJECTS] == [None, "tests", None, None]
    assert [something[key] for key in SUBJECTS] == [None, "tests", "okx", "BTC:binance-okx"]
    assert [elsewhere[key] for key in SUBJECTS] == [None, "some.library", None, None]
    assert [record["level"] for record in (nothing, something, elsewhere)] == ["info", "warning", "error"]
    assert nothing["time"].endswith("Z") and nothing["time"][10] == "T"


def test_console_lines_leave_out_what_is_absent():
    line = written(lambda log: log.info("filled", venue="okx", price=None), "console")
    assert "component=tests venue=okx price=None" in line
    assert "session" not in line and "pair" not in line and "\x1b" not in line


def test_the_session_is_on_every_line_within_and_on_none_after():
    def act(log):
        with log_session("demo-7"):
            log.info("within")
            logging.getLogger("lib").info("within")
        log.info("after")

    assert [record["session"] for record in records(act)] == ["demo-7", "demo-7", None]


def test_a_session_belongs_to_its_thread():
    def act(log):
        def session(name):
            with log_session(name):
                for _ in range(50):
                    log.info("line", name=name)

        threads = [threading.Thread(target=session, args=(f"s{number}",)) for number in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]

    lines = records(act)
    assert len(lines) == 400 and all(record["session"] == record["name"] for record in lines)


@pytest.mark.parametrize("level, shown", [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level, shown):
    def act(log):
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)("ours")
            getattr(logging.getLogger("lib"), name)("theirs")

    assert len(records(act, level=level)) == 2 * shown


@pytest.mark.parametrize("number, name", [(5, "debug"), (15, "debug"), (25, "info"), (35, "warning"), (99, "critical")])
def test_odd_levels_of_libraries_are_rounded_down(number, name):
    def act(log):
        logging.getLogger("lib").setLevel(1)
        logging.getLogger("lib").log(number, "odd")

    try:
        assert records(act, level="debug")[0]["level"] == name
    finally:
        logging.getLogger("lib").setLevel(logging.NOTSET)


def test_decimals_and_floats_keep_their_digits():
    record = records(lambda log: log.info("x", price=Decimal("60012.50"), mid=0.1, qty=3, yes=True, no=None))[0]
    assert [record[key] for key in ("price", "mid", "qty", "yes", "no")] == ["60012.50", 0.1, 3, True, None]


# --- logging never fails its caller -------------------------------------------------------------


class Broken:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


class BrokenError(Exception):
    def __str__(self):
        raise RuntimeError("no")


LOOP = {}
LOOP["self"] = [LOOP]
ODD = {
    "broken": Broken(),
    "broken key": {Broken(): 1},
    "loop": LOOP,
    "lone surrogate": "\ud800",
    "surrogate key": {"\udc80": "\udc80"},
    "bytes": b"\xff\x00",
    "big": 2**70,
    "nan": float("nan"),
    "infinity": [float("inf"), -float("inf")],
    "set of sets": {frozenset({1})},
    "type": int,
    "lambda": lambda: 0,
    "enum": st,
    "keys that are not text": {1: 2, None: 3, (1, 2): 4},
    "control": "\x00\x1b[31m\n",
}


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("name", ODD)
def test_any_value_can_be_logged(log_format, name):
    output = written(lambda log: log.info("x", value=ODD[name], inner=[{"v": ODD[name]}]), log_format)
    assert output and (log_format == "console" or json.loads(output)["event"] == "x")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_any_event_and_exception_can_be_logged(log_format):
    def act(log):
        for event in (None, 7, b"raw", "\ud800", "100 % sure", "{braces}", Broken()):
            log.info(event)
        raised(log, BrokenError())
        log.exception("no exception here")
        log.error("none either", exc_info=True)  # noqa: LOG014

    assert written(act, log_format)


def test_a_stdlib_record_that_cannot_be_formatted_keeps_its_arguments_to_itself(capsys):
    def act(log):
        logging.getLogger("lib").error("price %d", "s3cret-s3cret")
        logging.getLogger("lib").error(Broken(), "s3cret-s3cret")

    first, second = records(act)
    assert first["event"] == "price %d (its arguments do not fit)" and "Broken" in second["event"]
    assert "s3cret" not in "".join(capsys.readouterr())


class Flaky(io.StringIO):
    broken = None

    def write(self, text):
        if self.broken:
            raise self.broken
        return super().write(text)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), BrokenPipeError(), ValueError("closed file")])
def test_a_line_that_cannot_be_written_is_lost_and_counted(error):
    stream = Flaky()
    configure_logging("json", stream=stream)
    log = logger("tests")
    log.info("one")
    stream.broken = error
    log.info("two")
    logging.getLogger("lib").error("three")
    stream.broken = None
    log.info("four")
    log.info("five")
    one, four, five = map(json.loads, stream.getvalue().splitlines())
    assert "lost_lines" not in one and four["lost_lines"] == 2 and "lost_lines" not in five


def test_lines_of_many_threads_stay_whole():
    def act(log):
        threads = [threading.Thread(target=lambda: [log.info("x" * 500) for _ in range(40)]) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]

    assert len(records(act)) == 320


# --- configuring --------------------------------------------------------------------------------


def test_the_last_configuration_holds_for_loggers_made_before():
    first, second = io.StringIO(), io.StringIO()
    configure_logging("json", stream=first)
    log = logger("tests")
    log.info("one")
    configure_logging("json", "warning", stream=second, secrets=[SecretStr("s3cret-s3cret")])
    log.info("hidden")
    log.warning("two s3cret-s3cret")
    logging.getLogger("lib").warning("three")
    assert len(first.getvalue().splitlines()) == 1
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == [f"two {MASK}", "three"]


def test_a_handler_of_basic_config_does_not_write_beside_us():
    beside = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(beside))
    records(lambda log: logging.getLogger("lib").error("once"))
    assert beside.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    "log_format, stream, is_json",
    [
        ("auto", Terminal(), False),
        ("auto", io.StringIO(), True),
        ("console", io.StringIO(), False),
        ("json", Terminal(), True),
    ],
)
def test_format(log_format, stream, is_json):
    configure_logging(log_format, stream=stream)
    logger("tests").info("x")
    assert stream.getvalue().startswith("{") == is_json


@pytest.mark.parametrize("no_color", [True, False])
def test_colours_only_on_a_terminal_that_wants_them(monkeypatch, no_color):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure_logging("auto", stream=stream, secrets=[SecretStr("s3cret-s3cret")])
    logger("tests").info("a s3cret-s3cret b", key="s3cret-s3cret")
    assert ("\x1b[" in stream.getvalue()) != no_color and "s3cret" not in stream.getvalue()


def run(code):
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=60)


def test_stdout_is_for_results_even_before_anything_is_configured():
    done = run("from fundarb.monitoring.logging import logger; logger('x').info('hello'); print('result')")
    assert done.stdout == "result\n" and json.loads(done.stderr)["event"] == "hello"


def test_importing_changes_nobodys_logging():
    code = "import logging, structlog, fundarb.monitoring.logging as l; l.logger('x')"
    assert run(code + "; print(logging.getLogger().handlers)").stdout == "[]\n"


def test_stderr_replaced_after_configuring_is_the_one_written_to(capsys):
    configure_logging("json")
    logger("tests").info("x")
    captured = capsys.readouterr()
    assert json.loads(captured.err)["event"] == "x" and captured.out == ""
