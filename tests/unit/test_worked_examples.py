"""The economics reproduce the worked examples of the domain, digit by digit."""

import pytest

from fundarb.core.costs import Fees, LegFunding, break_even_h, break_even_ns, capital_cost_bps
from fundarb.core.costs import expected_cumulative_spread, half_life_h, net_edge, per_year
from fundarb.core.costs import return_on_capital, settled_bps
from fundarb.core.funding import settlements_ns
from fundarb.core.models import Level
from fundarb.core.numbers import HOUR_NS, utc_ns
from fundarb.data_providers.order_book import premium_index, slippage_bps, walk

START_NS = utc_ns("2026-03-02T00:30Z")
BINANCE, HYPERLIQUID = LegFunding(0.3, 8), LegFunding(0.4, 1)
ASKS = (Level(60_000, 0.3), Level(60_005, 0.5), Level(60_020, 1.0))


def digits(value: float) -> float:
    """Compare to the six decimals that are written down."""
    return pytest.approx(value, abs=5e-7, rel=0)


@pytest.mark.parametrize(
    "bid, ask, premium",
    [(100.3, 100.4, 0.003), (99.5, 99.8, -0.002), (99.9, 100.1, 0.0)],
)
def test_e2a_premium_index(bid, ask, premium):
    found = premium_index([Level(bid, 1e6)], [Level(ask, 1e6)], 100.0, impact_notional=20_000)
    assert found == pytest.approx(premium, abs=1e-12)


def edge_of_e3():
    end_ns = START_NS + 72 * HOUR_NS
    return net_edge(
        funding_bps=settled_bps(START_NS, end_ns, BINANCE, HYPERLIQUID),
        basis_in_bps=5,
        basis_out_bps=2,
        fees=Fees(5.0, 4.5, 5.0, 4.5),
        slippage_bps=4,
        horizon_h=72,
        leverage_long=5,
        leverage_short=5,
        rate_year=0.05,
    )


def test_e3_every_part_of_the_net_edge():
    edge = edge_of_e3()
    assert edge.funding_bps == digits(26.10)
    assert edge.fees_bps == digits(19.00)
    assert edge.slippage_bps == digits(4.00)
    assert edge.basis_bps == digits(3.00)
    assert edge.capital_bps == digits(1.643836)
    assert edge.net_bps == digits(4.456164)
    assert edge.net_bps / 1e4 * 10_000 == digits(4.456164)  # USD on 10 000 a leg


def test_e3_what_it_is_on_capital_and_per_year():
    edge = edge_of_e3()
    on_capital = return_on_capital(edge.net_bps, 5, 5)
    assert 100 * on_capital == digits(0.111404)
    assert 100 * per_year(on_capital, 72) == digits(13.554167)
    assert per_year(edge.funding_bps / 100, 72) == digits(31.755)
    assert round(per_year(edge.net_bps / 100, 72), 1) == 5.4


def test_e3_capital_cost_follows_both_leverages_and_the_time():
    assert capital_cost_bps(72, 5, 5, 0.05) == digits(1.643836)
    assert capital_cost_bps(8760, 2, 4, 0.10) == pytest.approx(750)


def test_e4_break_even_smooth():
    assert break_even_h(23, 0.3625) == digits(63.448276)
    assert break_even_h(15, 0.3625) == digits(41.379310)


def test_e4_break_even_by_settlements():
    paid_ns = break_even_ns(23, START_NS, BINANCE, HYPERLIQUID)
    assert paid_ns == utc_ns("2026-03-04T15:00Z")
    assert len(settlements_ns(START_NS, paid_ns, 1)) == 63
    assert (paid_ns - START_NS) / HOUR_NS == 62.5
    assert settled_bps(START_NS, paid_ns, BINANCE, HYPERLIQUID) == pytest.approx(23.1)
    assert settled_bps(START_NS, paid_ns - HOUR_NS, BINANCE, HYPERLIQUID) == pytest.approx(22.7)


@pytest.mark.parametrize("hours", [1, 7, 8, 9, 24, 63, 100])
def test_e4_cumulative_is_the_formula_by_hand(hours):
    end_ns = START_NS + hours * HOUR_NS
    by_hand = 0.4 * hours - 0.3 * (hours // 8)  # the 8th hour from 00:30 holds 08:00
    assert settled_bps(START_NS, end_ns, BINANCE, HYPERLIQUID) == pytest.approx(by_hand)


def test_e13_spread_forecast():
    assert half_life_h(0.98) == digits(34.309618)
    cumulative = {24: 15.578734, 48: 26.093940, 72: 33.491124, 168: 49.948471}
    for hours, bps in cumulative.items():
        assert expected_cumulative_spread(hours, 0.8, 0.1, 0.98) == digits(bps)
    covered_h = next(h for h in range(200) if expected_cumulative_spread(h, 0.8, 0.1, 0.98) >= 23)
    assert covered_h == 40
    assert expected_cumulative_spread(40, 0.8, 0.1, 0.98) == digits(23.012476)
    assert break_even_h(23, 0.8) == 28.75


def test_e13_closed_form_is_the_sum_of_the_recursion():
    spread, total = 0.8, 0.0
    for hours in range(1, 50):
        spread = 0.1 + 0.98 * (spread - 0.1)
        total += spread
        assert expected_cumulative_spread(hours, 0.8, 0.1, 0.98) == pytest.approx(total)


def test_e14_book_walk():
    bought = walk(ASKS, 1.0)
    assert bought.vwap == pytest.approx(60_006.5)
    assert slippage_bps(bought.vwap, 59_999.5, +1) == digits(1.166676)
    assert walk(ASKS, 2.0) is None  # not enough depth: no price, and never the worst level
