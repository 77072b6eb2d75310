"""What a user types, on a folder of files: import, check, backtest, replay, and what is refused."""

import filecmp
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from fundarb.apps.cli import app
from fundarb.core.events import CandleClosed, FundingRealised
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("FUNDARB_SHARED", ROOT.parent / "shared")) / "data" / "real"
VENUES = ("binance", "hyperliquid")
MONEY = ("net_pnl", "price_pnl", "funding_pnl", "fees", "slippage")


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


def fundarb(*words, **variables):
    """Type a command; its exit code, what it printed, and what it complained about."""
    env = {name: None for name in os.environ if name.startswith("FUNDARB_")} | variables
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def worked(*words, **more):
    done = fundarb(*words, **more)
    assert done.exit_code == 0, (done.stderr, done.exception)
    return done.stdout


def refused(*words, says, **more):
    """A refusal exits with 2, says why in one place, and shows no traceback."""
    done = fundarb(*words, **more)
    assert done.exit_code == 2, (done.exit_code, done.stdout[-500:], done.stderr[-500:])
    assert "Traceback" not in done.stderr
    assert says in " ".join(done.stderr.split()), done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty days of the synthetic market, in the import layout."""
    place = tmp_path_factory.mktemp("history")
    spec = default_spec(seed=3, days=32)
    rows = {"candles": [], "funding": []}
    for event in SyntheticMarket(spec, default_instruments(spec)):
        if isinstance(event, CandleClosed) and event.venue in VENUES:
            rows["candles"].append(_candle(event))
        elif isinstance(event, FundingRealised) and event.funding.venue in VENUES:
            rows["funding"].append(_settlement(event))
    for venue in VENUES:
        for kind, name in (("candles", f"candles_{venue}_1h"), ("funding", f"funding_{venue}")):
            frame = pd.DataFrame([row for row in rows[kind] if row["venue"] == venue]).drop(columns="venue")
            frame["time"] = pd.to_datetime(frame["time"], utc=True)
            frame.to_parquet(place / f"{name}.parquet", index=False)
    return place


def _candle(bar):
    prices = {name: getattr(bar, name) for name in ("open", "high", "low", "close")}
    return {"venue": bar.venue, "time": bar.open_time_ns, "symbol": bar.symbol, **prices, "volume": bar.volume_base}


def _settlement(event):
    said = event.funding
    return {
        "venue": said.venue,
        "time": said.settlement_time_ns,
        "symbol": said.symbol,
        "venue_symbol": said.symbol,
        "rate": float(said.rate),
        "interval_hours": said.interval_h,
        "mark_price": float(event.price),
    }


@pytest.fixture(scope="module")
def lake(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("lake") / "lake"
    worked("data", "import", folder, "--lake", place)
    return place


SPAN = ("--venues", "binance,hyperliquid", "--from", "2026-03-02", "--to", "2026-04-02")
RESTLESS = ("--params", "params/cross_funding/demo.json")


@pytest.fixture(scope="module")
def run(lake, tmp_path_factory):
    """One backtest of the lake: where it is, and its result."""
    place = tmp_path_factory.mktemp("runs") / "run"
    worked("backtest", "--data", lake, *SPAN, *RESTLESS, "--out", place, "--json", place.parent / "result.json")
    return place, json.loads((place.parent / "result.json").read_text())


def contents(place):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.rglob("*") if path.is_file()}


def test_importing_twice_changes_nothing(folder, lake):
    before = contents(lake)
    assert " 0 rows added" in worked("data", "import", folder, "--lake", lake)
    assert contents(lake) == before


def test_coverage_is_a_line_per_series_and_names_the_holes(folder, tmp_path):
    for path in folder.iterdir():
        frame = pd.read_parquet(path)
        if path.name == "candles_binance_1h.parquet":
            frame = frame[frame["time"].dt.strftime("%Y-%m-%dT%H") != "2026-03-10T05"]
        frame.to_parquet(tmp_path / path.name, index=False)
    lines = worked("data", "check", tmp_path).splitlines()
    [btc] = [line for line in lines if "candles 1h binance" in line and " BTC " in line]
    assert "2026-03-10T05:00Z x 1" in btc
    [whole] = [line for line in lines if "candles 1h hyperliquid" in line and " BTC " in line]
    assert " x " not in whole


def test_a_lake_that_is_not_there_is_said_with_how_to_make_one(tmp_path):
    refused("data", "check", tmp_path / "none", says="`fundarb data import FOLDER` makes one")


def test_an_import_that_is_killed_leaves_the_lake_as_it_was(folder, lake, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    frame = pd.read_parquet(folder / "candles_binance_1h.parquet")
    frame.assign(time=frame["time"] + pd.Timedelta(days=400)).to_parquet(more / "candles_binance_1h.parquet")
    before = contents(lake)
    killed = (
        "import os, signal\n"
        "from fundarb.data_providers import lake\n"
        "before = os.replace\n"
        "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.rename = os.replace\n"
        "from pathlib import Path\n"
        "Path.rename = Path.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from fundarb.data_providers.lake_import import import_folder\n"
        f"import_folder({str(more)!r}, {str(lake)!r}, now_ns=2**62)\n"
    )
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -signal.SIGKILL
    after = contents(lake)
    assert {path: after[path] for path in before} == before
    assert "2027" not in worked("data", "check", lake)
    assert " 0 rows added" in worked("data", "import", folder, "--lake", lake)


def test_the_parts_add_up_to_the_change_in_equity(run):
    _, result = run
    money = {name: Decimal(result[name]) for name in (*MONEY, "equity_start", "equity_end")}
    assert money["net_pnl"] == money["equity_end"] - money["equity_start"]
    assert money["net_pnl"] == money["price_pnl"] + money["funding_pnl"] - money["fees"]
    for cut in ("by_pair", "by_venue"):
        for name in MONEY:
            assert sum(Decimal(part[name]) for part in result[cut].values()) == money[name], (cut, name)
    assert result["round_trips"] > 0 and result["fills"] > 0
    assert result["settlements_due"] == result["settlements_booked"] + result["settlements_missing"]


def test_funding_follows_from_the_files_and_the_fills(run, folder):
    """Rates, marks and intervals of the files, quantities of the fills: nothing else makes the cash."""
    place, result = run
    fills, paid = (pd.read_parquet(place / f"{name}.parquet") for name in ("fills", "funding"))
    fills["signed"] = fills["quantity"].where(fills["side"] == "buy", -fills["quantity"])
    due = 0
    for venue in VENUES:
        raw = pd.read_parquet(folder / f"funding_{venue}.parquet")
        for symbol, prints in raw.groupby("symbol"):
            own = fills[(fills["venue"] == venue) & (fills["symbol"] == symbol)]
            booked = paid[(paid["venue"] == venue) & (paid["symbol"] == symbol)].set_index("time")
            for print_ in prints.itertuples():
                held = own.loc[own["time"] < print_.time, "signed"].sum()
                if abs(held) > 1e-9:
                    due += 1
                    wanted = -held * print_.mark_price * print_.rate
                    assert booked.loc[print_.time, "cash"] == pytest.approx(wanted, abs=1e-9)
    assert due == len(paid) == result["settlements_booked"] > 100
    assert paid["cash"].sum() == pytest.approx(float(result["funding_pnl"]), abs=1e-6)


def test_the_same_again_is_the_same_to_the_byte(run, lake, tmp_path):
    place, result = run
    worked("backtest", "--data", lake, *SPAN, *RESTLESS, "--out", place, "--json", tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == result
    other = tmp_path / "other"
    worked("backtest", "--data", lake, *SPAN, *RESTLESS, "--out", other)
    same = [path.name for path in place.iterdir() if path.name != "result.json"]
    assert filecmp.cmpfiles(place, other, same, shallow=False)[0] == same


def test_a_run_replays_and_a_changed_one_is_found(run, tmp_path):
    place, _ = run
    assert "every event came out the same" in worked("replay", place)
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "journal.jsonl.gz").write_bytes((place / "journal.jsonl.gz").read_bytes())
    recipe = json.loads((place / "run.json").read_text())
    recipe["parameters"]["exit_bps_h"] = -5.0
    (changed / "run.json").write_text(json.dumps(recipe))
    done = fundarb("replay", changed)
    assert done.exit_code == 1 and "the first difference" in done.stdout
    assert "Target" in done.stdout or "Signal" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--venues", "binance"), "name two or more"),
        (("--venues", "binance,binance"), "named twice"),
        (("--venues", "binance,kraken"), "settings.ini has sections for"),
        (("--venues", "binance,okx"), "no venue 'okx'"),
        (("--symbols", "BTC,NOPE"), "no symbol 'NOPE'"),
        (("--from", "yesterday"), "not ISO 8601"),
        (("--from", "2026-03-02T00:00"), "has no zone"),
        (("--from", "2026-04-01", "--to", "2026-03-02"), "end must be later"),
        (("--data", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--params", "params/cross_funding/none.json"), "no such file"),
        (("--params", "settings.ini"), "not JSON"),
        (("--params", "params"), "not a file"),
        (("--out", str(ROOT / "nbs")), "holds no run"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_runs(lake, words, says, tmp_path):
    options = dict(zip(("--venues", "--from", "--to"), SPAN[1::2])) | {"--data": lake, "--out": tmp_path / "run"}
    options |= dict(zip(words[::2], words[1::2]))
    refused("backtest", *(word for pair in options.items() for word in pair), says=says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("mode = backtest", "mode = backtests", "[runtime] mode = 'backtests'"),
        ("max_gross_x = 4 ", "max_gros_x = 4 ", "did you mean max_gross_x?"),
        ("\n[limits]\n", "\n[limit]\n", "did you mean [limits]?"),
        ("taker_fee_bps = 5.0", "taker_fee_bps = five", "taker_fee_bps"),
        ("lot_usd = 100\n", "lot_usd =\n", "has no value"),
        ("[venues.okx]\n", "[venues.okx]\napi_secret = abcdefghijkl\n", "a secret in a file is burnt"),
        (None, "", "no section [runtime]"),
        (None, "\0\0", "not a text file"),
    ],
)
def test_a_wrong_settings_file_stops_the_start(was, now, says, tmp_path):
    text = (ROOT / "settings.ini").read_text()
    assert was is None or was in text
    (tmp_path / "settings.ini").write_text(now if was is None else text.replace(was, now, 1))
    refused("data", "check", "--settings", tmp_path / "settings.ini", says=says)


def test_a_wrong_environment_stops_the_start_and_is_not_repeated():
    refused("data", "check", says="FUNDARB_LIMITS__MAX_GROS_X", FUNDARB_LIMITS__MAX_GROS_X="2")
    done = fundarb("data", "check", FUNDARB_VENUES__OKX__API_KEY="k3y-of-ours")
    assert done.exit_code == 2 and "k3y-of-ours" not in done.stdout + done.stderr


def test_percent_for_fraction_and_a_wrong_multiplier_are_refused_by_name(folder, tmp_path):
    for path in folder.iterdir():
        frame = pd.read_parquet(path)
        if path.name == "funding_binance.parquet":
            frame.loc[frame["symbol"] == "BTC", "rate"] *= 10_000
        if path.name == "candles_hyperliquid_1h.parquet":
            frame.loc[frame["symbol"] == "DOGE", ["open", "high", "low", "close"]] *= 1000
        frame.to_parquet(tmp_path / path.name, index=False)
    done = fundarb("data", "import", tmp_path, "--lake", tmp_path / "lake")
    said = " ".join(done.stdout.split())
    assert "funding_binance.parquet" in said and "binance BTC" in said
    assert "hyperliquid DOGE" in said and "wrong multiplier" in said


@pytest.mark.skipif(not SHARED.is_dir(), reason="no recorded market data: set FUNDARB_SHARED")
def test_two_recorded_months_account_for_themselves(tmp_path):
    words = ("--venues", "binance,hyperliquid", "--symbols", "DOGE,XRP", "--from", "2024-11-15", "--to", "2025-01-15")
    worked("backtest", "--data", SHARED, *words, "--out", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    parts = Decimal(result["price_pnl"]) + Decimal(result["funding_pnl"]) - Decimal(result["fees"])
    assert parts == Decimal(result["equity_end"]) - Decimal(result["equity_start"])
    assert result["settlements_due"] == result["settlements_booked"] > 1000 and result["settlements_missing"] >= 0
    fills, paid = (pd.read_parquet(tmp_path / "run" / f"{name}.parquet") for name in ("fills", "funding"))
    fills["signed"] = fills["quantity"].where(fills["side"] == "buy", -fills["quantity"])
    raw = pd.read_parquet(SHARED / "funding_binance.parquet")
    checked = 0
    for row in paid[paid["venue"] == "binance"].itertuples():
        own = fills[(fills["venue"] == "binance") & (fills["symbol"] == row.symbol) & (fills["time"] < row.time)]
        [said] = raw[(raw["symbol"] == row.symbol) & (raw["time"] == row.time)].itertuples()
        assert row.cash == pytest.approx(-own["signed"].sum() * said.mark_price * said.rate, abs=1e-9)
        checked += 1
    assert checked > 50
