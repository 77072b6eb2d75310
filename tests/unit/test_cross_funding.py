"""The cross-funding signal and strategy: what enters, what stays, what leaves, and why."""

import itertools
import math
import random
import struct
from decimal import Decimal as D
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

import fundarb
from fundarb.config.parameters import load_parameters
from fundarb.core.costs import capital_cost_bps
from fundarb.core.events import BookUpdated, FundingRealised, PairStateChanged, SignalDetected
from fundarb.core.events import TargetPosition, TimerFired
from fundarb.core.funding import FundingKind, FundingRate
from fundarb.core.models import Level, Pair
from fundarb.core.numbers import HOUR_NS, SECOND_NS, exact, utc_ns
from fundarb.data_providers.market_state import MarketState
from fundarb.data_providers.order_book import BookModel
from fundarb.strategies.base import HeldPair, SignalService
from fundarb.strategies.cross_funding import CrossFunding, Finding, Verdict, judge, ranked, refusal
from fundarb.strategies.cross_funding_look import Look, basis_and_slippage_bps, look_at, silence_h
from fundarb.strategies.cross_funding_signal import CrossFundingParams, signal, signal_knobs
from terms import SOL

NOW_NS = utc_ns("2026-03-02T08:01:10Z")
PARAMS = CrossFundingParams()
KNOBS = signal_knobs(PARAMS)
NAN = math.nan
LOOK = Look(0.5, 0.5, 3.0, 3.0, 25.0)

# ---------------------------------------------------------------- the signal

SPREADS = st.floats(-3, 3)
BASES = st.floats(-60, 60)
COSTS = st.floats(0, 60)
SIDES = st.sampled_from([-1, 0, 1])


def bits(answer):
    """Take the exact bits of an answer; any NaN is the same NaN."""
    side, *numbers = answer
    return side, *(None if math.isnan(n) else struct.pack("<d", n) for n in numbers)


def random_arguments(rng):
    def unknown(value):
        return NAN if rng.random() < 0.03 else value

    return (
        rng.choice((-1, 0, 1)),
        unknown(rng.gauss(0, 0.5)),
        unknown(rng.gauss(0, 0.7)),
        unknown(rng.gauss(0, 20)),
        unknown(rng.gauss(0, 10)),
        unknown(rng.uniform(0, 60)),
        float(rng.choice((24, 72, 168, 336))),
        rng.random(),
        rng.random(),
        rng.choice((0.0, rng.uniform(0, 40))),
        rng.uniform(-0.2, 0.05),
    )


def test_numba_compiles_the_signal_and_agrees_to_the_last_bit():
    numba = pytest.importorskip("numba")
    compiled = numba.njit(signal)
    rng = random.Random(11)
    answers = set()
    for _ in range(5_000):
        arguments = random_arguments(rng)
        plain = signal(*arguments)
        assert bits(compiled(*arguments)) == bits(plain), arguments
        answers.add((arguments[0], plain[0]))
    assert answers == {(0, -1), (0, 0), (0, 1), (1, 1), (1, 0), (-1, -1), (-1, 0)}


@given(SIDES, SPREADS, SPREADS, BASES, BASES, COSTS)
def test_swapping_the_legs_swaps_the_side_and_nothing_else(held, slow, fast, basis, out, cost):
    there = signal(held, slow, fast, basis, out, cost, *KNOBS)
    back = signal(-held, -slow, -fast, -basis, -out, cost, *KNOBS)
    assert back[0] == -there[0] and back[1] == -there[1]
    if there[1] != 0:
        assert back[2] == there[2]


@given(
    SPREADS, SPREADS, BASES, BASES, COSTS,
    st.just(0.0) | st.floats(0.01, 40), st.floats(1e-6, 1), st.integers(24, 720),
)  # fmt: skip
def test_what_is_entered_is_not_left_at_once(slow, fast, basis, out, cost, edge, below, horizon_h):
    """The band never closes, whatever the parameters that are allowed."""
    params = CrossFundingParams(
        enter_edge_bps=edge, exit_bps_h=edge / horizon_h - below, horizon_h=horizon_h
    )
    knobs = signal_knobs(params)
    side, *_ = signal(0, slow, fast, basis, out, cost, *knobs)
    if side:
        assert signal(side, slow, fast, basis, out, cost, *knobs)[0] == side


@given(SPREADS, SPREADS, BASES, BASES, COSTS)
def test_entries_pay_for_themselves_and_funding_alone_brings_the_edge(slow, fast, basis, out, cost):
    side, expected_bps_h, net_bps = signal(0, slow, fast, basis, out, cost, *KNOBS)
    better = 1 if expected_bps_h > 0 else -1
    funding_bps, gain_bps = abs(expected_bps_h) * 168, better * (basis - out)
    assert net_bps == pytest.approx(funding_bps + gain_bps - cost, abs=1e-9)
    assert expected_bps_h == pytest.approx(0.5 * slow + 0.15 * (fast - slow), abs=1e-12)
    pays = net_bps >= 5 and funding_bps > 5
    assert side == (better if pays else 0)


def decide(held, slow=0.0, fast=None, basis=0.0, out=0.0, cost=25.0):
    return signal(held, slow, slow if fast is None else fast, basis, out, cost, *KNOBS)[0]


def test_thresholds_are_where_the_arithmetic_puts_them():
    """With 25 bps of cost and 5 of edge: 30 / (0.5 * 168) = 0.35714 bps/h."""
    assert [decide(0, slow) for slow in (0.3571, 0.3572, -0.3571, -0.3572)] == [0, 1, 0, -1]
    assert [decide(1, slow) for slow in (-0.0399, -0.0401)] == [1, 0]
    assert [decide(-1, slow) for slow in (0.0399, 0.0401)] == [-1, 0]
    assert [decide(0, 0.05, basis=100), decide(0, 0.06, basis=100)] == [0, 1]  # 5 / 84
    assert [decide(0, 0.4, basis=2, out=5.5), decide(0, 0.4, basis=2, out=5.7)] == [1, 0]
    assert decide(0, 0.3, fast=0.3 + 0.1) == 0  # 25.2 + 2.52 - 25 is below 5
    assert decide(0, 0.3, fast=0.3 + 0.2) == 1


def test_equality_enters_and_stays():
    knobs = (100.0, 1.0, 0.0, 10.0, 0.05)
    assert signal(0, 0.5, 0.5, 0.0, 0.0, 40.0, *knobs) == (1, 0.5, 10.0)
    assert signal(1, 0.05, 0.05, 0.0, 0.0, 40.0, *knobs)[0] == 1
    assert signal(0, 0.1, 0.1, 50.0, 0.0, 0.0, *knobs)[0] == 0  # funding is just the edge


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("held", [-1, 0, 1])
def test_the_unknown_neither_enters_nor_leaves(place, held):
    numbers = [5.0 * (held or 1)] * 2 + [0.0, 0.0, 1.0]
    numbers[place] = NAN
    assert signal(held, *numbers, *KNOBS)[0] == held


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"slow_h": 23},
        {"slow_h": 721},
        {"fast_h": 0},
        {"slow_h": 168, "fast_h": 168},
        {"horizon_h": 23},
        {"horizon_h": 2161},
        {"persistence": -0.1},
        {"persistence": 1.1},
        {"fast_weight": -0.1},
        {"fast_weight": 1.1},
        {"enter_edge_bps": -1},
        {"enter_edge_bps": 0, "exit_bps_h": 0},
        {"enter_edge_bps": 16.8, "exit_bps_h": 0.1},
        {"exit_bps_h": NAN},
        {"exit_bps_h": -math.inf},
        {"notional_usd": 0},
        {"leverage": 0.5},
        {"leverage": 21},
        {"capital_rate_year": -0.01},
        {"max_pairs": 0},
        {"min_volume_usd_24h": -1},
        {"max_basis_bps": 0},
        {"max_book_age_s": 0},
        {"max_silence_h": 0.5},
        {"cool_down_h": -1},
        {"plan": "vwap"},
        {"exclude_symbols": "BTC"},
        {"exclude_symbols": ("btc",)},
        {"exclude_symbols": ("",)},
        {"exclude_symbols": ("BTC, ETH",)},
        {"enter_edge": 5},
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValidationError):
        CrossFundingParams(**wrong)


def test_the_band_may_be_as_narrow_as_it_can():
    assert CrossFundingParams(enter_edge_bps=16.8, exit_bps_h=0.0999).exit_bps_h == 0.0999
    assert CrossFundingParams(slow_h=168, fast_h=167).fast_h == 167


def test_parameters_do_not_change():
    with pytest.raises(ValidationError):
        PARAMS.max_pairs = 6


def test_the_starter_file_holds_the_defaults():
    path = Path(fundarb.__file__).parents[1] / "params" / "cross_funding" / "starter.json"
    if not path.exists():
        pytest.skip("installed without its params folder")
    starter = load_parameters(path, {"cross_funding": CrossFundingParams})
    assert starter.parameters == PARAMS


def test_knobs_are_floats_in_the_order_of_the_signal():
    params = CrossFundingParams(
        horizon_h=72, persistence=0.4, fast_weight=0.3, enter_edge_bps=7, exit_bps_h=-0.1
    )
    assert signal_knobs(params) == (72.0, 0.4, 0.3, 7.0, -0.1)
    assert {type(knob) for knob in signal_knobs(params)} == {float}


# ---------------------------------------------------------------- a market by hand


def make_pair(symbol="SOL", a="binance", b="hyperliquid", **changes):
    coin = replace(SOL, symbol=symbol, venue_symbol=symbol)
    first, second = replace(coin, venue=a), replace(coin, venue=b, **({"taker_fee_bps": D("4.5")} | changes))
    return Pair(a=first, b=second)


class Market:
    """Answers by (venue, symbol), then by venue, then by the default."""

    def __init__(self, **answers):
        self.answers = answers

    def _answer(self, what, venue, symbol, default):
        given = self.answers.get(what, {})
        return given.get((venue, symbol), given.get(venue, default))

    def book(self, venue, symbol):
        price = self._answer("price", venue, symbol, 100.0)
        model = self.answers.get(
            "model",
            BookModel(half_spread_bps=0.5, level_step_bps=0.5, level_usd=5_000.0, levels=4),
        )
        bids, asks = model.around(price)
        return BookUpdated(ts_init_ns=0, venue=venue, symbol=symbol, bids=bids, asks=asks)

    def mid(self, venue, symbol):
        return self._answer("price", venue, symbol, 100.0)

    def book_age_s(self, venue, symbol, now_ns):
        assert now_ns == NOW_NS
        return self._answer("age_s", venue, symbol, 1.0)

    def trailing_bps_h(self, venue, symbol, hours, now_ns):
        assert now_ns == NOW_NS and hours in (168, 24)
        name = "slow" if hours == 168 else "fast"
        return self._answer(name, venue, symbol, 0.1 if venue == "binance" else 0.6)

    def basis_median_bps(self, pair):
        return self.answers.get("usual", 0.0)

    def volume_usd_24h(self, venue, symbol):
        return self._answer("volume", venue, symbol, 1e6)

    def last_realised(self, venue, symbol):
        ago_h, interval_h, frac = self._answer("last", venue, symbol, (0, 8, "0.0001"))
        return None if ago_h is None else rate_of(venue, symbol, ago_h, interval_h, frac)

    def predicted(self, venue, symbol):
        frac = self._answer("predicted", venue, symbol, None)
        return frac and rate_of(venue, symbol, 0, 8, frac)


def rate_of(venue, symbol, ago_h, interval_h, frac):
    settled_ns = utc_ns("2026-03-02T08:00Z") - ago_h * HOUR_NS
    return FundingRate(
        venue=venue,
        symbol=symbol,
        kind=FundingKind.REALISED,
        rate=D(frac),
        interval_h=interval_h,
        settlement_time_ns=settled_ns,
        ts_init_ns=settled_ns,
    )


def held(state="OPEN", long_venue="binance", hours=48.0, base="100"):
    return HeldPair(
        state=state,
        since_ns=NOW_NS - int(hours * HOUR_NS),
        long_venue=long_venue,
        short_venue="hyperliquid" if long_venue == "binance" else "binance",
        held_base=D(base),
    )


def survey(portfolio=None, pairs=None, params=PARAMS, **answers):
    pairs = pairs or [make_pair()]
    found = CrossFunding(params, pairs).survey(NOW_NS, Market(**answers), portfolio or {})
    return {each.pair.pair_id: each for each in found}


def verdict(held_pair=None, params=PARAMS, **answers):
    portfolio = {} if held_pair is None else {"SOL:binance-hyperliquid": held_pair}
    (found,) = survey(portfolio, params=params, **answers).values()
    return str(found.verdict)


# ---------------------------------------------------------------- what a pair looks like


def test_four_walks_give_basis_at_mids_and_the_slippage_of_the_round_trip():
    """By hand: 2 coins a leg, one level at each side, then a second one."""
    a = dict(bids=(Level(99.9, 5),), asks=(Level(100.1, 1), Level(100.3, 5)))
    b = dict(bids=(Level(100.8, 1), Level(100.6, 5)), asks=(Level(101.2, 5),))
    book_a = BookUpdated(ts_init_ns=0, venue="a", symbol="X", **a)
    book_b = BookUpdated(ts_init_ns=0, venue="b", symbol="X", **b)
    basis_bps, slippage_bps = basis_and_slippage_bps(book_a, book_b, 2 * 100.5)
    assert basis_bps == pytest.approx(1 / 100.5 * 1e4)
    paid = (100.2 - 100) + (100 - 99.9) + (101.2 - 101) + (101 - 100.7)
    assert slippage_bps == pytest.approx(paid / 100.5 * 1e4)


@pytest.mark.parametrize("side", ["bids", "asks"])
@pytest.mark.parametrize("where", ["a", "b"])
@pytest.mark.parametrize("levels", [(), (Level(100, 0.5),)])
def test_one_side_that_is_too_thin_is_enough_to_have_no_price(side, where, levels):
    whole = dict(bids=(Level(99.9, 5),), asks=(Level(100.1, 5),))
    sides = {name: dict(whole) for name in ("a", "b")}
    sides[where][side] = levels
    books = [
        BookUpdated(ts_init_ns=0, venue=name, symbol="X", **each) for name, each in sides.items()
    ]
    basis_bps, slippage_bps = basis_and_slippage_bps(*books, 100.0)
    assert math.isnan(slippage_bps)
    assert math.isnan(basis_bps) == (levels == ())


def test_a_look_is_b_less_a_with_all_costs_of_the_round_trip():
    market = Market(
        slow={"binance": 0.2, "hyperliquid": 0.7},
        fast={"binance": 0.3, "hyperliquid": 1.2},
        price={"binance": 100.0, "hyperliquid": 100.2},
        usual=7.0,
    )
    look = look_at(make_pair(), market, PARAMS, NOW_NS, fixed_bps=19)
    assert look.slow_bps_h == pytest.approx(0.5)
    assert look.fast_bps_h == pytest.approx(0.9)
    assert look.basis_bps == pytest.approx(0.2 / 100.1 * 1e4)
    assert look.basis_out_bps == 7
    each_bps = 0.5 * 0.5 + 0.5 * 1.0  # half of 10 000 USD at each of two levels
    assert look.cost_bps == pytest.approx(19 + 4 * each_bps, abs=0.01)


@pytest.mark.parametrize(
    "answers, unknown",
    [
        ({}, []),
        ({"slow": {"binance": None}}, ["slow_bps_h"]),
        ({"slow": {"hyperliquid": None}}, ["slow_bps_h"]),
        ({"fast": {"binance": None}}, ["fast_bps_h"]),
        ({"usual": None}, ["basis_out_bps"]),
        ({"age_s": {"binance": 30.0}}, []),
        ({"age_s": {"binance": 30.1}}, ["basis_bps", "cost_bps"]),
        ({"age_s": {"hyperliquid": math.inf}}, ["basis_bps", "cost_bps"]),
    ],
)
def test_what_is_not_known_is_nan_and_only_that(answers, unknown):
    look = look_at(make_pair(), Market(**answers), PARAMS, NOW_NS, 19)
    assert [name for name, value in look._asdict().items() if math.isnan(value)] == unknown


# ---------------------------------------------------------------- who may enter

THIN = BookModel(half_spread_bps=0.5, level_step_bps=0.5, level_usd=4_900.0, levels=2)


@pytest.mark.parametrize(
    "answers, expected",
    [
        ({}, "enter"),
        ({"slow": {"binance": None}}, "no_funding"),
        ({"fast": {"hyperliquid": None}}, "no_funding"),
        ({"age_s": {"hyperliquid": 31.0}}, "no_book"),
        ({"model": THIN}, "book_thin"),
        ({"usual": None}, "no_basis"),
        ({"volume": {"binance": 999_999.0}}, "low_volume"),
        ({"volume": {"hyperliquid": None}}, "low_volume"),
        ({"last": {"hyperliquid": (0, 8, "0.00294")}}, "at_cap"),
        ({"last": {"binance": (0, 8, "-0.003")}}, "at_cap"),
        ({"last": {"binance": (0, 8, "0.00293")}}, "enter"),
        ({"last": {"binance": (None, 8, "0")}}, "enter"),
        ({"predicted": {"binance": "0.00294"}}, "at_cap"),
        ({"predicted": {"hyperliquid": "-0.00294"}}, "at_cap"),
        ({"usual": -50.1}, "basis_wide"),
        ({"usual": 50.1}, "basis_wide"),
        ({"usual": -50.0}, "enter"),
        ({"slow": {"hyperliquid": 0.3}, "fast": {"hyperliquid": 0.3}}, "edge_small"),
    ],
)
def test_a_flat_pair_gets_the_first_word_that_applies(answers, expected):
    assert verdict(**answers) == expected


def test_excluded_coins_and_volume_limits_are_parameters():
    assert verdict(params=CrossFundingParams(exclude_symbols=("SOL",))) == "excluded"
    assert verdict(params=CrossFundingParams(exclude_symbols=("BTC",))) == "enter"
    calm = CrossFundingParams(min_volume_usd_24h=0)
    assert verdict(params=calm, volume={"binance": None}) == "enter"


def test_the_order_of_the_words():
    """Everything is wrong at once; mending one thing after another gives the next word."""
    wrong = dict(
        slow={"binance": None},
        age_s={"binance": 99.0},
        usual=None,
        volume={"binance": 0.0},
        last={"binance": (0, 8, "0.003")},
        model=THIN,
    )
    params = CrossFundingParams(exclude_symbols=("SOL",))
    words = []
    for mended in ("slow", "age_s", "usual", "model", None, "volume", "last"):
        words.append(verdict(params=params, **wrong))
        wrong.pop(mended, None)
        params = PARAMS if mended is None else params
    words.append(verdict(params=params, **wrong))
    expected = "no_funding no_book no_basis book_thin excluded low_volume at_cap enter"
    assert words == expected.split()


def test_refusal_speaks_of_the_universe_and_not_of_the_edge():
    assert refusal(make_pair(), LOOK._replace(slow_bps_h=0.0), Market(), PARAMS) is None
    assert refusal(make_pair(), LOOK._replace(basis_bps=NAN), Market(), PARAMS) is Verdict.NO_BOOK


# ---------------------------------------------------------------- what is held


@pytest.mark.parametrize("state", ["ENTERING", "EXITING", "REPAIRING", "FAILED"])
def test_a_pair_that_execution_has_is_left_alone(state):
    assert verdict(held(state)) == "moving"


def test_a_held_pair_is_reviewed_on_its_own_side():
    small = {"slow": {"hyperliquid": 0.2}, "fast": {"hyperliquid": 0.2}}
    turned = {"slow": {"hyperliquid": 0.0}, "fast": {"hyperliquid": 0.0}}
    assert verdict(held()) == "add"
    assert verdict(held(), **small) == "hold"
    assert verdict(held(), **turned) == "exit"
    assert verdict(held(long_venue="hyperliquid"), **turned) == "hold"
    assert verdict(held(long_venue="hyperliquid")) == "exit"


@pytest.mark.parametrize(
    "answers",
    [
        {"slow": {"binance": None}},
        {"age_s": {"binance": 60.0}},
        {"usual": None},
        {"volume": {"binance": 0.0}},
        {"last": {"binance": (0, 8, "0.003")}},
    ],
)
def test_what_keeps_a_pair_from_entering_does_not_throw_it_out(answers):
    assert verdict(held(), **answers) == "hold"


def test_an_exit_needs_the_forecast_and_not_the_books():
    turned = {"slow": {"hyperliquid": -0.5}, "fast": {"hyperliquid": -0.5}}
    blind = survey({"SOL:binance-hyperliquid": held()}, age_s={"binance": 60.0}, **turned)
    (found,) = blind.values()
    assert (found.verdict, found.outlook) == (Verdict.EXIT, None)


@pytest.mark.parametrize(
    "answers, expected_h",
    [
        ({}, 1 / 3600),  # the age of a book
        ({"last": {"binance": (8, 8, "0")}}, 70 / 3600),
        ({"last": {"hyperliquid": (20, 8, "0")}}, 12 + 70 / 3600),
        ({"last": {"hyperliquid": (13, 1, "0")}}, 12 + 70 / 3600),
        ({"age_s": {"binance": 7200.0}}, 2.0),
        ({"age_s": {"hyperliquid": math.inf}}, 48.0),
        ({"last": {"binance": (None, 8, "0")}}, 48.0),
    ],
)
def test_silence_counts_from_when_something_was_due(answers, expected_h):
    found = silence_h(make_pair(), held(), Market(**answers), NOW_NS)
    assert found == pytest.approx(expected_h)


def test_a_pair_is_left_when_nothing_was_heard_for_too_long():
    assert verdict(held(), last={"hyperliquid": (19, 8, "0")}) == "add"
    assert verdict(held(), last={"hyperliquid": (20, 8, "0")}) == "exit"
    assert verdict(held(hours=11.9), age_s={"binance": math.inf}) == "hold"
    assert verdict(held(hours=12.1), age_s={"binance": math.inf}) == "exit"
    found = survey({"SOL:binance-hyperliquid": held()}, age_s={"binance": math.inf})
    assert [each.reason for each in found.values()] == ["nothing heard for 48.0 h"]


def test_a_pair_that_was_left_cools_down():
    assert verdict(held("IDLE", hours=23.99)) == "cooling_down"
    assert verdict(held("IDLE", hours=24)) == "enter"
    assert verdict(held("IDLE", hours=0), params=CrossFundingParams(cool_down_h=0)) == "enter"


def test_judge_says_the_direction_and_the_numbers_seen_from_it():
    here = judge(make_pair(), Look(0.5, 0.6, 4.0, 1.0, 25.0), 0, None, PARAMS)
    there = judge(make_pair(), Look(-0.5, -0.6, -4.0, -1.0, 25.0), 0, None, PARAMS)
    assert (here.side, there.side) == (1, -1)
    assert here.outlook == there.outlook
    assert here.outlook.slow_bps_h == 0.5
    assert here.outlook.fast_bps_h == 0.6
    assert here.outlook.expected_bps_h == pytest.approx(0.265)
    assert here.outlook.horizon_h == 168.0 and type(here.outlook.horizon_h) is float
    assert here.outlook.cost_bps == 25
    assert here.outlook.basis_bps == 3
    assert here.outlook.net_edge_bps == pytest.approx(0.265 * 168 + 3 - 25)
    assert here.reason == there.reason == "net edge +22.5 bps in 168 h"


def test_judge_gives_a_reason_for_every_verdict():
    def reason(held_side=0, refused=None, slow=0.5):
        look = Look(slow, slow, 0.0, 0.0, 25.0)
        return judge(make_pair(), look, held_side, refused, PARAMS).reason

    assert reason(slow=0.1) == "net edge -16.6 bps in 168 h"
    assert reason(1, slow=-0.1) == "forecast -0.050 bps/h is below -0.02 bps/h"
    assert reason(-1, slow=-0.1) == "forecast +0.050 bps/h"
    assert reason(1) == "net edge +17.0 bps in 168 h"
    assert reason(refused=Verdict.AT_CAP) == "at cap"


# ---------------------------------------------------------------- ranking


def entry(symbol, edge_bps, venue="okx"):
    look = Look(0.5, 0.5, edge_bps - 17, 0.0, 25.0)
    found = judge(make_pair(symbol, b=venue), look, 0, None, PARAMS)
    assert found.outlook.net_edge_bps == pytest.approx(edge_bps)
    return found


def test_entries_come_by_edge_one_per_coin_and_no_more_than_there_is_room():
    entries = [entry("A", 9), entry("B", 12), entry("B", 20, "bybit"), entry("C", 9)]
    words = {
        slots: {each.pair.pair_id: str(each.verdict) for each in ranked(entries, (), slots)}
        for slots in (-1, 0, 1, 2, 3)
    }
    ids = ["B:binance-bybit", "A:binance-okx", "C:binance-okx"]
    for slots, found in words.items():
        assert [found[each] for each in ids] == ["enter"] * max(slots, 0) + ["no_slot"] * (
            3 - max(slots, 0)
        )
        assert found["B:binance-okx"] == ("no_slot" if slots < 1 else "coin_taken")


def test_ties_go_to_the_first_name_whatever_the_order_given():
    entries = [entry(symbol, 10.0) for symbol in "CAB"]
    orders = list(itertools.permutations(entries))
    answers = [ranked(each, (), 2) for each in orders]
    assert all(answer == answers[0] for answer in answers)
    assert [each.pair.a.symbol for each in answers[0] if each.verdict == "enter"] == ["A", "B"]


def test_what_is_done_comes_first_exits_before_all():
    def told(symbol, word):
        pair = make_pair(symbol)
        return Finding(pair=pair, verdict=Verdict(word), side=1, reason="", outlook=None)

    words = ["no_book", "hold", "exit", "add"]
    findings = [told(symbol, word) for symbol, word in zip("ABCD", words, strict=True)]
    answer = [str(each.verdict) for each in ranked([*findings, entry("E", 9)], (), 1)]
    assert answer == ["exit", "add", "enter", "hold", "no_book"]


def test_held_pairs_take_slots_and_coins_until_they_are_flat():
    pairs = [make_pair("SOL"), make_pair("SOL", b="okx"), make_pair("BTC"), make_pair("ETH")]
    answers = {"slow": {"okx": 0.6}, "fast": {"okx": 0.6}, "pairs": pairs}
    params = CrossFundingParams(max_pairs=2)

    def entered(state):
        portfolio = {"SOL:binance-hyperliquid": held(state)}
        found = survey(portfolio, params=params, **answers).values()
        return [each.pair.pair_id for each in found if each.verdict == "enter"]

    for state in ("OPEN", "ENTERING", "EXITING", "REPAIRING", "FAILED"):
        assert entered(state) == ["BTC:binance-hyperliquid"]
    assert entered("IDLE") == ["BTC:binance-hyperliquid", "ETH:binance-hyperliquid"]


# ---------------------------------------------------------------- decisions


def evaluate(portfolio=None, pairs=None, params=PARAMS, name="decision", **answers):
    strategy = CrossFunding(params, pairs or [make_pair()])
    event = TimerFired(ts_init_ns=NOW_NS, name=name)
    return strategy.evaluate(event, Market(**answers), portfolio or {})


def test_an_entry_names_the_legs_the_size_and_the_costs():
    (decision,) = evaluate()
    assert (decision.long_venue, decision.short_venue) == ("binance", "hyperliquid")
    assert decision.notional_usd == D(10_000)
    capital_bps = capital_cost_bps(168, 3, 3, 0.05)
    slippage_bps = 4 * (0.5 * 0.5 + 0.5 * 1.0)
    assert decision.outlook.cost_bps == pytest.approx(19 + capital_bps + slippage_bps, abs=0.01)
    assert decision.reason == f"net edge {decision.outlook.net_edge_bps:+.1f} bps in 168 h"


def test_the_other_way_round_when_the_other_side_pays():
    (decision,) = evaluate(slow={"hyperliquid": -0.4}, fast={"hyperliquid": -0.4})
    assert (decision.long_venue, decision.short_venue) == ("hyperliquid", "binance")
    assert decision.outlook.slow_bps_h == pytest.approx(0.5)


def test_an_exit_is_a_size_of_zero_on_the_side_that_is_held():
    portfolio = {"SOL:binance-hyperliquid": held(long_venue="hyperliquid")}
    (decision,) = evaluate(portfolio)
    assert (decision.long_venue, decision.notional_usd) == ("hyperliquid", D(0))
    assert decision.outlook.expected_bps_h == pytest.approx(-0.25)


def test_only_the_decision_timer_decides():
    assert evaluate(name="hourly") == ()


def test_a_held_pair_without_news_is_not_mentioned():
    portfolio = {"SOL:binance-hyperliquid": held()}
    small = {"slow": {"hyperliquid": 0.2}, "fast": {"hyperliquid": 0.2}}
    assert evaluate(portfolio, **small) == ()
    assert [each.notional_usd for each in evaluate(portfolio)] == [D(10_000)]  # an add


def test_decisions_do_not_depend_on_the_order_of_pairs_nor_on_earlier_calls():
    pairs = [make_pair(symbol) for symbol in ("SOL", "BTC", "ETH", "XRP")]
    slow = {("hyperliquid", s): 0.6 + n / 10 for n, s in enumerate(("SOL", "BTC", "ETH", "XRP"))}
    portfolio = {"XRP:binance-hyperliquid": held(long_venue="hyperliquid")}
    market, event = Market(slow=slow, fast=slow), TimerFired(ts_init_ns=NOW_NS, name="decision")
    expected = None
    for order in itertools.permutations(pairs):
        strategy = CrossFunding(PARAMS, order)
        for _ in range(2):
            decisions = strategy.evaluate(event, market, dict(portfolio))
            expected = expected or decisions
            assert decisions == expected
    assert [each.pair_id[:3] for each in expected] == ["XRP", "ETH", "BTC", "SOL"]


# ---------------------------------------------------------------- with the market state itself


def settled(venue, hour_ns, bps_h, interval_h):
    rate = exact(bps_h * interval_h / 1e4)
    funding = rate_of(venue, "SOL", 0, interval_h, str(rate))
    funding = replace(funding, settlement_time_ns=hour_ns, ts_init_ns=hour_ns + SECOND_NS)
    return FundingRealised(ts_init_ns=hour_ns + SECOND_NS, funding=funding)


def test_a_fortnight_through_market_state_enters_once_and_leaves_once():
    """Hourly events as a session has them; the spread is there for nine days and then turns."""
    pair = make_pair(interval_h=1)
    market = MarketState([pair], max_book_age_s=60)
    params = CrossFundingParams(min_volume_usd_24h=0)
    service = SignalService(CrossFunding(params, [pair]), [pair], market)
    services = (market, service)
    model = BookModel(half_spread_bps=0.5, level_step_bps=0.5, level_usd=5_000.0, levels=4)
    start_ns, said = utc_ns("2026-03-01T00:00Z"), []

    def hear(event):
        return [
            message
            for each in services
            for message in each.handlers().get(type(event), lambda _: ())(event)
        ]

    def move(now, base, now_ns):
        legs = ("binance", "hyperliquid") if base else ("", "")
        hear(
            PairStateChanged(
                ts_init_ns=now_ns,
                pair_id=pair.pair_id,
                was="",
                now=now,
                long_venue=legs[0],
                short_venue=legs[1],
                held_base=D(base),
                naked_base=D(0),
                reason="",
            )
        )

    for hour in range(1, 15 * 24):
        hour_ns = start_ns + hour * HOUR_NS
        if hour % 8 == 0:
            hear(settled("binance", hour_ns, 0.1, 8))
        hear(settled("hyperliquid", hour_ns, 0.6 if hour < 9 * 24 else -0.4, 1))
        for venue in ("binance", "hyperliquid"):
            bids, asks = model.around(100.0)
            at_ns = hour_ns + 69 * SECOND_NS
            hear(BookUpdated(ts_init_ns=at_ns, venue=venue, symbol="SOL", bids=bids, asks=asks))
        now_ns = hour_ns + 70 * SECOND_NS
        messages = hear(TimerFired(ts_init_ns=now_ns, name="decision"))
        for target in (each for each in messages if isinstance(each, TargetPosition)):
            said.append((hour, target.long_venue, target.notional_usd))
            move("OPEN" if target.notional_usd else "IDLE", 100 if target.notional_usd else 0, now_ns)
        kinds = [type(each) for each in messages if isinstance(each, SignalDetected | TargetPosition)]
        assert kinds in ([], [SignalDetected, TargetPosition])

    (entered, *entry_), (left, *exit_), *more = said
    assert entry_ == ["binance", D(10_000)] and exit_ == ["binance", D(0)]
    assert 126 <= entered <= 134  # as soon as three quarters of a week are known
    assert 9 * 24 + 48 < left < 9 * 24 + 110  # when the forecast has turned, not the print
    assert all(venue == "hyperliquid" and hour - left >= 24 for hour, venue, _ in more)
