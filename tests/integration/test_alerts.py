"""Alerts over a real socket: they arrive, are tried again, never stand in the way, and their tokens are in no log."""

import asyncio
import io
import json
import logging
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import fundarb
from fundarb.apps.live_recipe import LivePlan
from fundarb.apps.live_trader import run_live
from fundarb.config.settings import AlertSettings, load_settings
from fundarb.core.errors import SettingsError
from fundarb.core.events import AlertRaised
from fundarb.monitoring.alerts import Courier
from fundarb.monitoring.logging import configure_logging

pytest.importorskip("apprise", reason="the alerts extra is not installed")
ROOT, TOKEN = Path(fundarb.__file__).parents[1], "tok3n-0f-the-desk"


@contextmanager
def hook(*answers):
    """A service on loopback that answers with these codes in turn, then 200; 0: it hangs until the test is over."""
    heard, released = [], threading.Event()
    answers = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            code = answers.pop(0) if answers else 200
            if not code:
                released.wait(20)
            self.send_response(code or 200)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/{TOKEN}", heard
    finally:
        released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def log():
    lines = io.StringIO()
    yield lines
    configure_logging("json", "info", io.StringIO(), ())


def alert(text, severity="critical"):
    return AlertRaised(ts_init_ns=0, severity=severity, scope="okx", text=text)


def settings_of(tmp_path, *urls, **more):
    (tmp_path / "settings.ini").write_text((ROOT / "settings.ini").read_text())
    return load_settings(tmp_path / "settings.ini", {"FUNDARB_ALERTS__URLS": " ".join(urls), **more})


async def told(settings, *alerts, pauses_s=(0.01, 0.01)):
    courier = Courier(settings.alerts, "drill", pauses_s)
    task = asyncio.ensure_future(courier.run())
    for each in alerts:
        courier.hear(each)
    await courier.drain(15)
    assert not task.done()
    task.cancel()


def test_what_is_refused_twice_arrives_the_third_time_and_once(tmp_path, log):
    with hook(500, 429) as (url, heard):
        settings = settings_of(tmp_path, url)
        configure_logging("json", "debug", log, settings.secrets())
        logging.getLogger("apprise").setLevel("DEBUG")
        asyncio.run(told(settings, alert("naked for 3.1 s"), alert("naked for 9.4 s"), alert("a note", "info")))
    assert [(h["title"], h["message"].splitlines()[0], h["type"]) for h in heard] == [
        ("fundarb CRITICAL okx", "naked for 3.1 s", "failure")
    ] * 3
    assert log.getvalue().count("alert not delivered") == 2
    assert TOKEN not in log.getvalue() and TOKEN not in repr(settings) and TOKEN not in json.dumps(settings.public())


def test_an_address_that_is_down_does_not_keep_the_other_waiting(tmp_path, log):
    with hook() as (url, heard):
        settings = settings_of(tmp_path, f"json://127.0.0.1:9/{TOKEN}", url)
        configure_logging("json", "debug", log, settings.secrets())
        asyncio.run(told(settings, alert("one"), alert("two")))
    assert [h["message"].splitlines()[0] for h in heard] == ["one", "two"]
    assert log.getvalue().count("alert given up") == 2 and TOKEN not in log.getvalue()


def test_a_service_that_hangs_does_not_stop_the_loop(tmp_path):
    async def ticks():
        courier = Courier(settings.alerts, "drill", ())
        task, done = asyncio.ensure_future(courier.run()), 0
        courier.hear(alert("one"))
        while not heard:
            await asyncio.sleep(0)
        for done in range(1, 1001):  # noqa: B007  turns of the loop while the request hangs
            await asyncio.sleep(0)
        assert not courier._idle.is_set()
        task.cancel()
        return done

    with hook(0) as (url, heard):
        settings = settings_of(tmp_path, f"{url}?rto=30")
        run = asyncio.new_event_loop()
        assert run.run_until_complete(ticks()) == 1000
    run.run_until_complete(run.shutdown_default_executor())
    run.close()


def test_without_apprise_a_start_with_addresses_stops_before_any_venue_is_asked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    settings = settings_of(tmp_path, f"json://127.0.0.1:9/{TOKEN}")

    def connect(clock, emit):
        raise AssertionError("a venue was asked")

    plan = LivePlan(kind="live", session_id="drill", folder=tmp_path / "run", title="", origin={})
    with pytest.raises(SettingsError, match=r'pip install "fundarb\[alerts\]".*Nothing was started') as refused:
        asyncio.run(run_live(settings, None, plan, None, connect, None))
    assert TOKEN not in str(refused.value) and not (tmp_path / "run").exists()


def test_addresses_belong_into_the_environment(tmp_path):
    text = (ROOT / "settings.ini").read_text().replace("[alerts]", f"[alerts]\nurls = slack://{TOKEN}/b/c")
    (tmp_path / "settings.ini").write_text(text)
    with pytest.raises(SettingsError, match="a secret in a file is burnt; revoke it") as refused:
        load_settings(tmp_path / "settings.ini", {})
    assert TOKEN not in str(refused.value)
    assert AlertSettings().urls == ()
