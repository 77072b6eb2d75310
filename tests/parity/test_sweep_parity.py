"""The sweep and the event-driven backtest are two models of one market: they decide the same."""

import io
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fundarb.apps.backtester import BacktestPlan, run_backtest
from fundarb.apps.composition import parameter_schemas
from fundarb.config.parameters import load_parameters
from fundarb.config.settings import load_settings
from fundarb.core.events import CandleClosed, FundingRealised
from fundarb.core.numbers import HOUR_NS, utc_ns
from fundarb.data_providers.history_source import open_source
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.research.parity import compare
from fundarb.research.sweep import trace
from fundarb.research.sweep_data import sweep_data
from fundarb.research.sweep_book import desk_of

pytestmark = pytest.mark.timeout(900)  # the sweep may have to be compiled first, on a machine that may be busy
ROOT = Path(__file__).parents[2]
SETTINGS = load_settings(ROOT / "settings.ini", env={})
PARAMS = load_parameters(ROOT / "params" / "cross_funding" / "demo.json", parameter_schemas())
VENUES = ("binance", "hyperliquid", "okx")
SHARED = Path(os.environ.get("FUNDARB_SHARED", ROOT.parent / "shared")) / "data" / "real"


def write_files(folder: Path, seed: int, days: int):
    """Write a synthetic market down as anyone would keep it."""
    spec = default_spec(seed, days)
    instruments = default_instruments(spec)
    units = {(i.venue, i.symbol): float(i.units_per_price) for i in instruments}
    candles, prints = defaultdict(list), defaultdict(list)
    for event in SyntheticMarket(spec, instruments):
        if isinstance(event, CandleClosed):
            m = units[event.venue, event.symbol]
            prices = {name: getattr(event, name) * m for name in ("open", "high", "low", "close")}
            row = {"time": event.open_time_ns, "symbol": event.symbol, **prices, "volume": event.volume_base / m}
            candles[event.venue].append(row)
        elif isinstance(event, FundingRealised):
            funding = event.funding
            row = {"time": funding.settlement_time_ns, "symbol": funding.symbol, "rate": float(funding.rate)}
            mark = float(event.price) * units[funding.venue, funding.symbol]
            prints[funding.venue].append(row | {"interval_hours": funding.interval_h, "mark_price": mark})
    named = pd.DataFrame([(i.venue, i.symbol, i.venue_symbol, i.units_per_price) for i in instruments])
    named.columns = ["venue", "symbol", "venue_symbol", "base_units_per_price_unit"]
    named.to_csv(folder / "symbols.csv", index=False)
    spelled = {(i.venue, i.symbol): i.venue_symbol for i in instruments}
    for name, tables in (("candles_{}_1h", candles), ("funding_{}", prints)):
        for venue, rows in tables.items():
            frame = pd.DataFrame(rows)
            frame["time"] = pd.to_datetime(frame["time"], utc=True)
            frame["venue_symbol"] = [spelled[venue, symbol] for symbol in frame.symbol]
            frame.to_parquet(folder / f"{name.format(venue)}.parquet", index=False)
    return spec


def both(folder: Path, venues, symbols, from_ns, to_ns, out: Path):
    """Run a set through both models."""
    source = open_source(folder, {venue: float(terms.rate_cap) for venue, terms in SETTINGS.venues.items()})
    data = sweep_data(source, venues, symbols or None, from_ns, to_ns, SETTINGS.venues, SETTINGS.limits)
    swept = trace(data, desk_of(SETTINGS.limits, SETTINGS.execution), PARAMS.parameters)
    plan = BacktestPlan(folder, venues, symbols, from_ns, to_ns, out)
    result, _ = run_backtest(SETTINGS, PARAMS, plan, Console(file=io.StringIO()))
    return data, swept, result


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    spec = write_files(folder, seed=7, days=6)
    out = tmp_path_factory.mktemp("runs") / "run"
    data, swept, result = both(folder, VENUES, (), spec.start_ns, spec.end_ns - 2 * HOUR_NS, out)
    return folder, spec, data, swept, result, out


def test_decisions_are_the_same_and_every_difference_has_a_name(small):
    _, _, data, swept, result, out = small
    report = compare(data, swept, out)
    assert len(swept.trades) > 10
    assert report.same_decisions, f"{report.only_sweep}\n{report.only_backtest}"
    assert report.holds(1e-9), str(report)
    difference = float(result["net_pnl"]) - swept.result["net_usd"]
    assert report.net_usd == pytest.approx(difference, abs=1e-6)  # nothing is left over


def test_the_course_of_equity_is_the_same(small):
    _, _, _, swept, _, out = small
    equity = pd.read_parquet(out / "equity.parquet")["equity"].to_numpy()[: len(swept.equity)]
    uneven = swept.result["uneven"]
    assert np.abs(equity - swept.equity.to_numpy()).max() < (1e-6 if uneven == 0 else 100.0)


def disturb(folder: Path, into: Path, after: pd.Timestamp) -> None:
    """Copy a market and change everything in it from an instant on."""
    for path in folder.iterdir():
        if path.suffix == ".csv":
            (into / path.name).write_bytes(path.read_bytes())
            continue
        frame = pd.read_parquet(path)
        later = frame.time > after if "rate" in frame else frame.time >= after
        for name in set(frame) & {"open", "high", "low", "close", "mark_price"}:
            frame.loc[later, name] *= 1.03
        for name, factor in (("volume", 0.7), ("rate", -1.7)):
            if name in frame:
                frame.loc[later, name] *= factor
        frame.to_parquet(into / path.name, index=False)


def test_the_future_changes_no_decision_of_the_past(small, tmp_path):
    """Everything after 08:00 of a day is changed; decisions before that hour are what they were, in both models."""
    folder, spec, _, swept, _, out = small
    after = pd.Timestamp(spec.start_ns + 3 * 24 * HOUR_NS + 8 * HOUR_NS, tz="UTC")
    other = tmp_path / "files"
    other.mkdir()
    disturb(folder, other, after)
    _, moved, _ = both(other, VENUES, (), spec.start_ns, spec.end_ns - 2 * HOUR_NS, tmp_path / "run")
    columns = ["time", "pair_id", "side", "qty_base", "cash_a", "cash_b"]
    before, again = (t.trades[t.trades.time < after][columns] for t in (swept, moved))
    assert len(before) > 4
    pd.testing.assert_frame_equal(before, again)
    assert not swept.trades[columns].equals(moved.trades[columns])  # the change was felt afterwards
    fills, changed = (pd.read_parquet(run / "fills.parquet") for run in (out, tmp_path / "run"))
    names = ["time", "venue", "symbol", "side", "quantity", "price"]
    pd.testing.assert_frame_equal(fills[fills.time < after][names], changed[changed.time < after][names])


@pytest.mark.skipif(not SHARED.exists(), reason="no recorded market data: set FUNDARB_SHARED")
def test_a_month_of_real_markets(tmp_path):
    symbols = ("BTC", "ETH", "SOL", "DOGE")
    span = utc_ns("2024-12-01"), utc_ns("2024-12-22")
    data, swept, result = both(SHARED, ("binance", "hyperliquid"), symbols, *span, tmp_path / "run")
    report = compare(data, swept, tmp_path / "run")
    assert report.holds(1e-9), str(report)
    assert report.net_usd == pytest.approx(float(result["net_pnl"]) - swept.result["net_usd"], abs=1e-6)
