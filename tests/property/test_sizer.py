"""Whatever is asked and held: the sizer stays on both lots, never above the target, and leaves nothing too small."""

from decimal import Decimal as D

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.core.models import Pair
from fundarb.core.numbers import floor_to_step
from fundarb.risk.position_sizer import Size, TooSmall, plan, smallest_base

from terms import BINANCE as COMMON

TERMS = replace(COMMON, venue="a", maintenance_frac=D("0.005"))

lots = st.sampled_from([D(lot) for lot in ("0.00001", "0.0001", "0.001", "0.2", "0.5", "1", "10", "1000")])
legs = st.builds(
    lambda lot, multiple, least: replace(
        TERMS, lot_step_base=lot, min_qty_base=lot * multiple, min_notional_usd=D(least)
    ),
    lots,
    st.integers(0, 30),
    st.integers(0, 200),
)
pairs = st.builds(lambda a, b: Pair(a=a, b=replace(b, venue="b")), legs, legs)
prices = st.decimals(min_value=D("0.01"), max_value=D(100_000), places=4)
dollars = st.decimals(min_value=D(0), max_value=D(1_000_000), places=2)


@st.composite
def cases(draw):
    """A pair, a price, a target, and something held that may have dust on it."""
    pair = draw(pairs)
    held = pair.lot_base * draw(st.integers(0, 5_000)) + draw(st.sampled_from([D(0), pair.lot_base / 4]))
    return pair, draw(dollars), draw(prices), held


def on_lots(pair, qty_base):
    return all(qty_base % leg.lot_step_base == 0 for leg in (pair.a, pair.b))


def tradable(pair, price, qty_base):
    return all(
        qty_base >= leg.min_qty_base and qty_base * price >= leg.min_notional_usd * (1 - D("1e-20"))
        for leg in (pair.a, pair.b)
    )


@given(cases())
def test_a_step_is_on_the_lots_of_both_legs(case):
    pair, _, _, held = case
    step = plan(*case)
    if isinstance(step, Size):
        assert step.qty_base > 0
        assert on_lots(pair, step.qty_base) or step == (False, held)  # the dust, closed as it stands


@given(cases())
def test_opening_never_ends_above_the_target_and_is_always_tradable(case):
    pair, usd, price, held = case
    step = plan(*case)
    if isinstance(step, Size) and step.opening:
        assert (held + step.qty_base) * price <= usd * (1 + D("1e-20"))
        assert tradable(pair, price, step.qty_base)


@given(cases())
def test_reducing_ends_at_the_target_or_below_and_leaves_nothing_or_enough(case):
    pair, usd, price, held = case
    step = plan(*case)
    if isinstance(step, Size) and not step.opening:
        left = held - step.qty_base
        assert 0 <= left
        assert left * price <= usd * (1 + D("1e-20")) or left < pair.lot_base
        assert left < pair.lot_base or left >= smallest_base(pair, price)
        assert left < pair.lot_base or tradable(pair, price, step.qty_base)


@given(cases())
def test_nothing_is_done_only_when_the_difference_is_smaller_than_an_order(case):
    pair, usd, price, held = case
    if plan(*case) is None:
        assert abs(usd / price - held) < smallest_base(pair, price) + pair.lot_base
        assert held > 0 or usd == 0


@given(cases())
def test_a_refusal_names_a_size_that_would_have_done_and_none_smaller(case):
    pair, _, price, held = case
    answer = plan(*case)
    if isinstance(answer, TooSmall):
        smallest, lot = answer.smallest_base, pair.lot_base
        assert held == 0
        assert on_lots(pair, smallest) and tradable(pair, price, smallest)
        assert smallest == lot or not tradable(pair, price, smallest - lot)
        enough_usd = smallest * price
        assert plan(pair, enough_usd * (1 + D("1e-20")), price, D(0)) == (True, smallest)
        assert answer.breach.value < answer.breach.allowed


@given(cases(), st.decimals(min_value=D(0), max_value=D(100), places=5))
def test_a_cut_step_is_the_same_step_or_a_smaller_one(case, most):
    pair, _, _, held = case
    whole, cut = plan(*case), plan(*case, most)
    if isinstance(whole, Size) and whole.opening and isinstance(cut, Size):
        assert cut.opening and cut.qty_base <= min(whole.qty_base, most)
        assert cut.qty_base in (whole.qty_base, floor_to_step(most, pair.lot_base))
    elif not (isinstance(whole, Size) and whole.opening):
        assert cut == whole or isinstance(cut, TooSmall)


@given(cases())
def test_a_target_reached_in_steps_comes_to_rest(case):
    """Repeating a target after each step ends, and ends where nothing more is asked for."""
    pair, usd, price, held = case
    for _ in range(3):
        step = plan(pair, usd, price, held)
        if not isinstance(step, Size):
            return
        held += step.qty_base if step.opening else -step.qty_base
    raise AssertionError(f"still moving at {held}")


@given(pairs, prices)
def test_swapping_the_legs_changes_nothing(pair, price):
    swapped = Pair(a=replace(pair.b, venue="a"), b=replace(pair.a, venue="b"))
    assert smallest_base(pair, price) == smallest_base(swapped, price)


@given(cases())
def test_a_multiple_in_coins_is_the_same_step_in_other_units(case):
    """A thousand coins for one, at a thousandth of the price: 1000PEPE and PEPE."""
    pair, usd, price, held = case
    assume(not isinstance(plan(*case), TooSmall))

    def scaled(leg):
        return replace(leg, lot_step_base=leg.lot_step_base * 1000, min_qty_base=leg.min_qty_base * 1000)

    step, other = plan(*case), plan(Pair(a=scaled(pair.a), b=scaled(pair.b)), usd, price / 1000, held * 1000)
    assert other == (step and (step.opening, step.qty_base * 1000))
