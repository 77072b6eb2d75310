"""Costs count every settlement and every part exactly once."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundarb.core.costs import Fees, LegFunding, break_even_h, break_even_ns, capital_frac
from fundarb.core.costs import net_edge, return_on_capital, settled_bps
from fundarb.core.numbers import HOUR_NS, MINUTE_NS, utc_ns

START_NS = utc_ns("2026-03-02T00:30Z")
RATES = st.floats(-5, 5)
INTERVALS = st.sampled_from([1, 2, 4, 8])
LEGS = st.builds(LegFunding, RATES, INTERVALS)
MINUTES = st.integers(0, 60 * 24 * 4)


@given(MINUTES, MINUTES, MINUTES, LEGS, LEGS)
def test_two_periods_in_a_row_are_worth_what_they_are_worth_together(a, b, c, long_leg, short_leg):
    first, middle, last = (START_NS + m * MINUTE_NS for m in sorted((a, b, c)))
    parts = settled_bps(first, middle, long_leg, short_leg)
    parts += settled_bps(middle, last, long_leg, short_leg)
    assert settled_bps(first, last, long_leg, short_leg) == pytest.approx(parts, abs=1e-9)


@given(MINUTES, LEGS, LEGS)
def test_the_other_way_round_receives_what_this_one_pays(minutes, long_leg, short_leg):
    end_ns = START_NS + minutes * MINUTE_NS
    there = settled_bps(START_NS, end_ns, long_leg, short_leg)
    assert settled_bps(START_NS, end_ns, short_leg, long_leg) == pytest.approx(-there, abs=1e-12)


ROUND_LEGS = st.builds(LegFunding, st.integers(-500, 500).map(lambda n: n / 100), INTERVALS)


@given(ROUND_LEGS, ROUND_LEGS, st.integers(10, 5000).map(lambda n: n / 100 + 0.005))
def test_break_even_is_the_first_settlement_that_pays(long_leg, short_leg, cost_bps):
    paid_ns = break_even_ns(cost_bps, START_NS, long_leg, short_leg, limit_h=240)
    instants = range(START_NS + 30 * MINUTE_NS, START_NS + 240 * HOUR_NS, HOUR_NS)
    enough = (t for t in instants if settled_bps(START_NS, t, long_leg, short_leg) > cost_bps)
    assert paid_ns == next(enough, None)


def test_break_even_takes_exactly_enough_for_enough_whatever_floats_make_of_it():
    paid_ns = break_even_ns(0.3, START_NS, LegFunding(0.0, 8), LegFunding(0.1, 1))
    assert paid_ns == START_NS + 2 * HOUR_NS + 30 * MINUTE_NS  # 3 x 0.1
    paid_ns = break_even_ns(23.1, START_NS, LegFunding(0.3, 8), LegFunding(0.4, 1))
    assert paid_ns == utc_ns("2026-03-04T15:00Z")


def test_a_rate_is_spread_over_its_interval_for_comparing():
    assert LegFunding(0.8, 8).bps_h == pytest.approx(0.1)


def test_break_even_at_the_edges():
    assert break_even_h(23, 0.0) == break_even_h(23, -1) == math.inf
    assert break_even_h(0, -1) == break_even_h(-5, 0.1) == 0
    assert break_even_h(0.5, 0.1) == pytest.approx(5)


def test_fees_are_four_numbers_and_a_rebate_is_negative():
    assert Fees(5, -0.5, 4, 2).round_trip_bps == 10.5


def test_net_edge_counts_each_part_once():
    parts = dict(funding_bps=100, basis_in_bps=10, basis_out_bps=3, fees=Fees(1, 2, 4, 8))
    edge = net_edge(
        **parts, slippage_bps=16, horizon_h=8760, leverage_long=1, leverage_short=2, rate_year=0.01
    )
    assert edge == (100, 7, 15, 16, pytest.approx(150))
    assert edge.cost_bps == pytest.approx(15 + 16 + 150)
    assert edge.net_bps == pytest.approx(100 + 7 - 181)


def test_capital_is_the_margin_of_both_legs_and_the_buffer():
    assert capital_frac(2, 4) == 0.75
    assert return_on_capital(75, 2, 4) == pytest.approx(0.01)
    assert return_on_capital(75, 2, 4, buffer_frac=0.75) == pytest.approx(0.005)
