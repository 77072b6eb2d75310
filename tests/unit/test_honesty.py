"""The gates reject what is noise and accept what was planted; the count over 100 seeds is a benchmark's."""

import importlib.util
from pathlib import Path

from fundarb.config.seals import failing

_PATH = Path(__file__).parents[1] / "benchmarks" / "honesty.py"
_SPEC = importlib.util.spec_from_file_location("honesty", _PATH)
honesty = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(honesty)


def test_noise_is_hardly_ever_promoted_even_free_of_costs():
    """Without costs the best of some worthless sets earns by luck; five in a hundred may pass, one of four."""
    passed = [seed for seed in range(4) if not failing(honesty.examined("noise", seed, free=True, days=90)[1])]
    assert len(passed) <= 1


def test_some_noise_has_a_winner_to_reject():
    """Or the test above would ask nothing of the gates."""
    winners = [honesty.examined("noise", seed, free=True, days=90)[0]["winner"] for seed in range(2)]
    assert any(winner is not None for winner in winners)


def test_a_planted_spread_is_promoted_after_costs():
    """A real edge passes every gate: the gates are not merely closed."""
    figures, gates = honesty.examined("planted", 1000)
    assert failing(gates) == []
    assert figures["oos_usd_day"]["low"] > 0
