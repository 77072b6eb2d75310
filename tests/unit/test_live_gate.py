"""What stands between a parameter file and real orders: a clean commit, and a signal that foretold, by coin and month."""

from pathlib import Path

import pytest

import fundarb
from fundarb.apps.composition import parameter_schemas
from fundarb.apps.connect import pass_gate
from fundarb.config.parameters import write_parameters
from fundarb.config.seals import REQUIRED_GATES, Gate, Promotion, strategy_version
from fundarb.config.settings import load_settings
from fundarb.config.signal_limits import DEFAULT_LIMITS
from fundarb.core.errors import InputError
from fundarb.strategies.cross_funding_signal import CrossFundingParams

FINE = {"samples": 400, "rank_corr": 0.4, "hit_frac": 0.7, "calibration": 0.9}
WHOLE = FINE | {"by_coin": {"BTC": FINE, "SOL": FINE}, "by_month": {"2025-01": FINE, "2025-02": FINE}}
READY = {
    "FUNDARB_RUNTIME__MODE": "live",
    "FUNDARB_LIVE__CONFIRM": "these orders are real",
    "FUNDARB_LIMITS__MAX_MARK_AGE_S": "5",
    "FUNDARB_VENUES__OKX__API_PASSPHRASE": "0123456789",
}
READY |= {
    f"FUNDARB_VENUES__{venue}__API_{part}": "0123456789"
    for venue in ("BINANCE", "HYPERLIQUID", "OKX")
    for part in ("KEY", "SECRET")
}


def start(folder, measured=WHOLE, limits=DEFAULT_LIMITS, dirty=False):
    """Ask the gate for live orders with a sealed file of these measures."""
    evidence = {"run": "r", "synthetic": False, "dirty": dirty, "figures": {"signal_quality": measured}}
    seal = Promotion(
        strategy_version=strategy_version("cross_funding", CrossFundingParams),
        evidence=evidence,
        gates=tuple(Gate(name=n, value=1.0, limit=0.0, unit="", holds=True, says="holds") for n in REQUIRED_GATES),
    )
    path, title = folder / "0001.json", "Made by a test"
    write_parameters(
        path,
        strategy="cross_funding",
        title=title,
        parameters=CrossFundingParams(),
        promotion=seal,
        signal_quality=limits,
    )
    settings = load_settings(Path(fundarb.__file__).parents[1] / "settings.ini", env=READY)
    return pass_gate(settings, path, parameter_schemas())


def test_a_set_with_all_of_it_may_start(tmp_path):
    assert start(tmp_path).title == "Made by a test"


def part(kind, name, **change):
    return WHOLE | {kind: WHOLE[kind] | {name: FINE | change}}


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        (part("by_coin", "SOL", rank_corr=-0.12), ("coin_frac is 0.500", "0.6", "SOL: rank_corr -0.120, above 0")),
        (part("by_coin", "SOL", hit_frac=0.5), ("coin_frac", "SOL: hit_frac 0.500, above 0.5")),
        (part("by_month", "2025-02", calibration=-1.5), ("month_frac", "2025-02: calibration -1.500, above 0")),
        (WHOLE | {"rank_corr": 0.05}, ("rank_corr is 0.050, at least 0.1",)),
        (WHOLE | {"hit_frac": None}, ("hit_frac is unknown, at least 0.55",)),
        (WHOLE | {"by_month": {}}, ("month_frac is unknown",)),
        (WHOLE | {"samples": 99}, ("samples is 99.000, at least 100",)),
        (None, ("no measures of the signal's quality",)),
    ],
)
def test_a_weak_signal_is_refused_by_coin_month_measure_and_limit(tmp_path, measured, says):
    with pytest.raises(InputError) as refused:
        start(tmp_path, measured)
    assert "Nothing was started" in str(refused.value)
    assert [word for word in says if word not in str(refused.value)] == []


@pytest.mark.parametrize("limits", [None, {}])
def test_no_limits_no_start(tmp_path, limits):
    with pytest.raises(InputError, match="signal_quality is missing"):
        start(tmp_path, limits=limits)


@pytest.mark.parametrize("dirty", [True, None])
def test_evidence_of_no_commit_is_refused(tmp_path, dirty):
    with pytest.raises(InputError, match="which commit made it"):
        start(tmp_path, dirty=dirty)
