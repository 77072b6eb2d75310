"""Walks, impact prices and the model book, for any book."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundarb.core.errors import InputError
from fundarb.core.events import BookUpdated
from fundarb.core.models import Level
from fundarb.data_providers.order_book import BookModel, book_from_price, depth_usd, impact_price
from fundarb.data_providers.order_book import mid, premium_index, slippage_bps, walk

PRICES = st.floats(10, 1000)
SIZES = st.floats(0.001, 1e4)


@st.composite
def asks(draw):
    """Levels with rising prices."""
    prices = sorted(draw(st.lists(PRICES, min_size=1, max_size=8, unique=True)))
    return tuple(Level(price, draw(SIZES)) for price in prices)


@given(asks(), st.floats(0.01, 0.99))
def test_a_walk_takes_exactly_the_quantity_within_the_prices_it_touched(levels, share):
    qty_base = share * sum(level.qty_base for level in levels)
    taken = walk(levels, qty_base)
    assert taken.qty_base == qty_base
    assert levels[0].price * (1 - 1e-12) <= taken.vwap <= taken.worst_price * (1 + 1e-12)
    touched = [level for level in levels if level.price <= taken.worst_price]
    before = sum(level.qty_base for level in touched[:-1])
    assert before < qty_base * (1 + 1e-9)
    cash = sum(price * size for price, size in touched[:-1])
    cash += (qty_base - before) * taken.worst_price
    assert taken.vwap == pytest.approx(cash / qty_base)


@given(asks(), st.floats(1.001, 10))
def test_more_than_the_book_holds_has_no_price(levels, factor):
    assert walk(levels, factor * sum(level.qty_base for level in levels)) is None
    worth = sum(price * size for price, size in levels)
    assert impact_price(levels, factor * worth) is None


@given(asks(), st.floats(0.01, 0.99))
def test_an_impact_price_is_the_walk_of_the_coins_it_buys(levels, share):
    notional = share * sum(price * size for price, size in levels)
    price = impact_price(levels, notional)
    bought = walk(levels, notional / price * (1 - 1e-9))
    assert bought.vwap == pytest.approx(price, rel=1e-6)


@given(asks(), st.floats(0.01, 0.9), st.floats(1.0, 1.1))
def test_a_larger_size_never_gets_a_better_price(levels, share, factor):
    total = sum(level.qty_base for level in levels)
    small, large = walk(levels, share * total), walk(levels, share * total * factor)
    assert large.vwap >= small.vwap * (1 - 1e-12)


def test_a_level_is_taken_whole_before_the_next_is_touched():
    levels = (Level(10, 1.0), Level(11, 1.0))
    assert walk(levels, 1.0) == (10, 1.0, 10)
    assert walk(levels, 2.0) == (10.5, 2.0, 11)
    assert impact_price(levels, 10) == 10
    assert impact_price(levels, 21) == pytest.approx(21 / 2)


def test_slippage_is_paid_by_both_sides_of_a_spread():
    assert slippage_bps(101, 100, +1) == pytest.approx(100)
    assert slippage_bps(99, 100, -1) == pytest.approx(100)
    assert slippage_bps(99, 100, +1) == pytest.approx(-100)


def test_a_premium_needs_both_sides_and_keeps_its_sign():
    def premium(bid, ask):
        return premium_index([Level(bid, 1e4)], [Level(ask, 1e4)], 100, 5_000)

    assert premium(101, 102) == pytest.approx(0.01)
    assert premium(98, 99) == pytest.approx(-0.01)
    assert premium(99, 101) == 0
    assert premium_index([Level(101, 1)], [Level(102, 1e4)], 100, 5_000) is None
    assert premium_index([Level(101, 1e4)], [], 100, 5_000) is None


def test_depth_counts_levels_within_reach_on_either_side():
    bids = (Level(99.9, 1), Level(99.5, 2), Level(98, 4))
    assert depth_usd(bids, 10, 100) == pytest.approx(99.9)
    assert depth_usd(bids, 51, 100) == pytest.approx(99.9 + 199)
    assert depth_usd(bids, 300, 100) == pytest.approx(99.9 + 199 + 392)
    assert depth_usd((), 300, 100) == 0


def test_the_middle_is_half_way_and_a_book_without_a_side_has_none():
    bids, asks_ = (Level(100, 1),), (Level(103, 1),)
    names = {"ts_init_ns": 0, "venue": "x", "symbol": "y"}
    assert mid(BookUpdated(**names, bids=bids, asks=asks_)) == 101.5
    assert mid(BookUpdated(**names, bids=bids, asks=())) is None
    assert mid(BookUpdated(**names, bids=(), asks=asks_)) is None


def test_a_level_at_the_edge_of_the_depth_counts():
    assert depth_usd((Level(101, 2), Level(102, 1)), 100, 100) == 202


@settings(max_examples=50)
@given(PRICES, st.floats(0, 5), st.floats(0.01, 5), st.floats(1e3, 1e6), st.integers(1, 20))
def test_the_model_book_is_what_its_four_numbers_say(price, half_bps, step_bps, level_usd, levels):
    model = BookModel(
        half_spread_bps=half_bps, level_step_bps=step_bps, level_usd=level_usd, levels=levels
    )
    bids, asks_ = model.around(price)
    assert len(bids) == len(asks_) == levels
    for n, (bid, ask) in enumerate(zip(bids, asks_, strict=True)):
        offset_bps = half_bps + n * step_bps
        assert bid.price == pytest.approx(price * (1 - offset_bps / 1e4))
        assert ask.price == pytest.approx(price * (1 + offset_bps / 1e4))
        assert bid.qty_base == ask.qty_base == level_usd / price
    assert (bids, asks_) == book_from_price(price, half_bps, step_bps, level_usd / price, levels)


@settings(max_examples=50)
@given(PRICES, st.floats(0.01, 0.99))
def test_the_models_slippage_is_that_of_its_book_on_both_sides(price, share):
    model = BookModel(half_spread_bps=1.5, level_step_bps=0.5, level_usd=10_000, levels=6)
    bids, asks_ = model.around(price)
    notional_usd = share * 60_000
    bought, sold = walk(asks_, notional_usd / price), walk(bids, notional_usd / price)
    expected = model.slippage_bps(notional_usd)
    assert slippage_bps(bought.vwap, price, +1) == pytest.approx(expected, abs=1e-7)
    assert slippage_bps(sold.vwap, price, -1) == pytest.approx(expected, abs=1e-7)
    assert model.slippage_bps(60_001) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"half_spread_bps": -0.1},
        {"level_step_bps": -0.1},
        {"level_usd": 0.0},
        {"level_usd": -1.0},
        {"levels": 0},
        {"half_spread_bps": 1e4, "levels": 1},
        {"level_step_bps": 5_000.0, "levels": 3},
    ],
)
def test_a_model_that_cannot_be_a_book_is_refused(wrong):
    right = {"half_spread_bps": 1.0, "level_step_bps": 1.0, "level_usd": 1e4, "levels": 5}
    with pytest.raises(InputError, match="No book is made of it"):
        BookModel(**right | wrong)
