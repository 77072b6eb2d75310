"""Every number that a person sets has two ends, and a refusal says which, in which unit, and that nothing was started."""

import math
import re
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fundarb.config.bounds import in_words, nearest, unit_of
from fundarb.config.settings import (
    AlertSettings,
    ExecutionSettings,
    LimitSettings,
    StorageSettings,
    VenueTerms,
    load_settings,
)
from fundarb.core.errors import SettingsError
from fundarb.strategies.cross_funding_signal import CrossFundingParams

SHIPPED = Path(__file__).parents[2] / "settings.ini"
SECTIONS = {
    "limits": LimitSettings,
    "execution": ExecutionSettings,
    "storage": StorageSettings,
    "alerts": AlertSettings,
    "venues.okx": VenueTerms,
}


def is_number(annotation):
    if annotation in (int, float, Decimal):
        return True
    return any(is_number(part) for part in get_args(annotation))


NUMBERS = [
    (section, key)
    for section, model in SECTIONS.items()
    for key, field in model.model_fields.items()
    if is_number(field.annotation)
]
PARAMETERS = [key for key, field in CrossFundingParams.model_fields.items() if is_number(field.annotation)]
NEVER = ["nan", "inf", "-inf", "Infinity", "1e999", "-1e999", "1e30", "-1e30", "1e-999999", "1e15"]
MAY_BE_NOTHING = {  # what is as good as zero may be zero
    "cool_down_h", "third_venue_bps", "funding_hold_h", "again_h", "min_notional_usd", "half_spread_bps", "depth_floor_usd",
}  # fmt: skip


def refusal(section, key, text):
    name = f"FUNDARB_{section.replace('.', '__')}__{key}".upper()
    with pytest.raises(SettingsError) as caught:
        load_settings(SHIPPED, {name: text})
    message = str(caught.value)
    assert str(SHIPPED) in message and name in message and "Nothing was started." in message
    return message


def test_these_are_all_the_numbers():
    """Should a section be added, its numbers are tested here or this fails."""
    known = {model.__name__ for model in SECTIONS.values()}
    fields = load_settings(SHIPPED, {})
    others = {type(fields.runtime), type(fields.paths), type(fields.live)}
    assert not any(is_number(f.annotation) for model in others for f in model.model_fields.values())
    assert len(NUMBERS) > 50 and len(known) == len(SECTIONS)


@pytest.mark.parametrize("section, key", NUMBERS, ids=[key for _, key in NUMBERS])
def test_no_setting_takes_what_no_desk_could_mean(section, key):
    for text in NEVER:
        if text == "1e-999999" and key in MAY_BE_NOTHING:
            continue
        assert "should" in refusal(section, key, text), (key, text)


@pytest.mark.parametrize("key", PARAMETERS)
def test_no_parameter_takes_what_no_desk_could_mean(key):
    for value in (math.nan, math.inf, -math.inf, 1e30, -1e30, True, "1e999", "nan"):
        with pytest.raises(ValidationError) as caught:
            CrossFundingParams.model_validate({key: value}, strict=True)
        assert key in str(caught.value)


SLIPS = [
    # section, key, what was written, what the refusal says
    ("limits", "max_gross_x", "400", "at most 20 times equity"),  # per cent
    ("limits", "max_venue_gross_x", "250", "at most 20 times equity"),
    ("limits", "max_symbol_gross_x", "150", "at most 20 times equity"),
    ("limits", "max_leverage_x", "0.003", "at least 0.01 times equity"),
    ("limits", "max_pair_notional_usd", "25e9", "at most 100000000 USD"),
    ("limits", "max_pair_notional_usd", "0.025", "at least 1 USD"),  # in millions
    ("limits", "max_symbol_margin_frac", "25", "at most 1, a fraction: 0.05 is 5 per cent"),
    ("limits", "max_drawdown_frac", "1", "at most 0.5, a fraction: 0.05 is 5 per cent"),
    ("limits", "max_daily_loss_frac", "1", "at most 0.5, a fraction"),  # 1 %
    ("limits", "max_daily_loss_frac", "100", "at most 0.5, a fraction"),  # bps
    ("limits", "max_daily_loss_frac", "-0.01", "at least 0.0001, a fraction"),
    ("limits", "block_margin_ratio", "50", "at most 1"),
    ("limits", "emergency_margin_ratio", "80", "at most 1"),
    ("limits", "max_error_frac", "20", "at most 1, a fraction"),
    ("limits", "max_latency_s", "3000", "at most 60 s"),  # ms
    ("limits", "max_clock_skew_s", "1000", "at most 60 s"),
    ("limits", "block_stable_bps", "0.005", "at least 0.1 bps"),  # a fraction
    ("limits", "max_volatility_ratio", "300", "at most 100"),
    ("limits", "max_book_age_s", "5000", "at most 3600 s"),
    ("limits", "max_mark_age_s", "4000000", "at most 1000000 s"),
    ("limits", "max_funding_age_s", "30000000", "at most 1000000 s"),
    ("limits", "max_orders_per_min", "60000", "at most 6000"),
    ("limits", "collar_bps", "0.002", "at least 0.1 bps"),
    ("limits", "collar_bps", "20000", "at most 1000 bps"),
    ("limits", "max_from_mark_bps", "0.005", "at least 0.1 bps"),
    ("limits", "max_depth_frac", "50", "at most 1, a fraction"),
    ("limits", "cool_down_h", "3600", "at most 720 h"),  # s
    ("execution", "entry_collar_bps", "0.0005", "at least 0.1 bps"),
    ("execution", "repair_collars_bps", "0.0005, 0.001", "at least 0.1 bps"),
    ("execution", "repair_collars_bps", "5, nan", "finite"),
    ("execution", "hedge_timeout_s", "2000", "at most 600 s"),
    ("execution", "hedge_timeout_s", "-2", "at least 0.1 s"),
    ("execution", "repair_deadline_s", "60000", "at most 3600 s"),
    ("execution", "unknown_guard_s", "10000", "at most 600 s"),
    ("execution", "delta_tolerance_usd", "0", "at least 1 USD"),
    ("execution", "maker_patience_s", "15000", "at most 3600 s"),
    ("execution", "max_imbalance_usd", "0.05", "at least 1 USD"),
    ("storage", "timeout_s", "5000", "at most 600 s"),
    ("alerts", "again_h", "3600", "at most 168 h"),
    ("venues.okx", "maker_fee_bps", "0.0002", "0 or at least 0.1 bps: is it in another unit?"),
    ("venues.okx", "taker_fee_bps", "0.05", "0 or at least 0.1 bps"),  # per cent
    ("venues.okx", "taker_fee_bps", "-1", "at least 0 bps"),
    ("venues.okx", "maker_fee_bps", "-20", "at least -10 bps"),
    ("venues.okx", "liquidation_fee_bps", "0.005", "0 or at least 0.1 bps"),
    ("venues.okx", "rate_cap", "1.5", "at most 0.2"),  # per cent
    ("venues.okx", "rate_cap", "150", "at most 0.2"),  # bps
    ("venues.okx", "maintenance_frac", "1.5", "at most 1, a fraction"),
    ("venues.okx", "max_leverage", "5000", "at most 200"),
    ("venues.okx", "latency_ms", "0.15", "valid integer"),  # s
    ("venues.okx", "lot_usd", "0", "at least 0.0001 USD"),
    ("venues.okx", "deposit_usd", "0", "at least 1 USD"),
    ("venues.okx", "interval_h", "28800", "should divide 24"),  # s
    ("venues.okx", "interval_h", "-8", "should divide 24"),
]


@pytest.mark.parametrize("section, key, text, said", SLIPS, ids=[f"{key}={text}" for _, key, text, _ in SLIPS])
def test_a_slip_of_a_unit_is_refused_with_the_limit_and_its_unit(section, key, text, said):
    assert said in refusal(section, key, text)


PARAMETER_SLIPS = [
    ("notional_usd", "0", "at least 1 USD"),
    ("notional_usd", "1000000000", "at most 100000000 USD"),
    ("persistence", 50, "at most 1"),
    ("fast_weight", 15, "at most 1"),
    ("enter_edge_bps", 0.0005, "0 or at least 0.01 bps"),  # a fraction
    ("enter_edge_bps", 2000, "at most 1000 bps"),
    ("exit_bps_h", -11, "at least -10 bps an hour"),
    ("capital_rate_year", 5, "at most 1 a year, a fraction"),
    ("max_basis_bps", 0.005, "at least 0.1 bps"),
    ("max_book_age_s", 30000, "at most 3600 s"),
    ("max_silence_h", 43200, "at most 168 h"),  # s
    ("cool_down_h", 1440, "at most 720 h"),  # min
    ("slow_h", 7, "at least 24 h"),  # days
    ("leverage", 300, "at most 20"),  # per cent
    ("min_volume_usd_24h", -1, "at least 0 USD a day"),
    ("min_volume_usd_24h", 1e13, "at most 1000000000000 USD a day"),
]


@pytest.mark.parametrize("key, value, said", PARAMETER_SLIPS, ids=[f"{key}={v}" for key, v, _ in PARAMETER_SLIPS])
def test_a_slip_in_a_parameter_is_refused_with_the_limit_and_its_unit(key, value, said):
    with pytest.raises(ValidationError) as caught:
        CrossFundingParams.model_validate({key: value})
    (error,) = caught.value.errors()
    assert error["loc"] == (key,) and said in in_words(error["msg"], key)


def test_every_shipped_number_is_well_inside_its_range():
    """Half and twice of each shipped value is taken too: the ranges are for slips, not for taste."""
    shipped = load_settings(SHIPPED, {})
    for section, key in NUMBERS:
        value = getattr(shipped.venues["okx"] if "." in section else getattr(shipped, section), key)
        if isinstance(value, tuple) or key in ("interval_h", "max_leverage"):
            continue
        model = SECTIONS[section]
        for factor in (Decimal("0.5"), Decimal(2)):
            share = key.endswith(("_frac", "_ratio", "_share")) and value <= 1
            text = str(min(Decimal(str(value)) * factor, Decimal(1 if share else 10**9)))
            text = str(math.ceil(Decimal(text))) if isinstance(value, int) else text
            try:
                model(**{key: text})
            except ValidationError as error:
                assert not [e for e in error.errors() if e["loc"] == (key,)], (key, text, error)


@given(st.text(max_size=30))
def test_any_name_has_a_unit_or_none(key):
    assert unit_of(key) == "" or re.match(r"[ ,]", unit_of(key))


def test_what_is_near_is_offered_and_else_all_that_is_known():
    assert nearest("colar_bps", ["collar_bps", "clips"]) == "did you mean collar_bps?"
    assert nearest("zzz", ["collar_bps", "clips"]) == "known are collar_bps, clips"
    assert nearest("zzz", ["collar_bps"], "ask") == "ask"
