"""The synthetic market against a second implementation, and against everything it promises."""

import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.core.errors import InputError
from fundarb.core.events import (
    BookUpdated,
    CandleClosed,
    FundingIntervalChanged,
    FundingMissing,
    FundingPredicted,
    FundingRealised,
    FundingScheduled,
    MarkPriceUpdated,
    SessionEnding,
    TimerFired,
    encode,
)
from fundarb.core.funding import PriceBasis
from fundarb.core.numbers import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS
from fundarb.data_providers.market_state import MarketState
from fundarb.data_providers.order_book import BookModel
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.data_providers.synthetic_funding import VenueAverage
from fundarb.data_providers.synthetic_incidents import Halt, IntervalChange, MissingSettlement
from fundarb.data_providers.synthetic_paths import FadingSums, RandomStream, TickGrid, ladder

SPEC = default_spec(seed=11, days=3)
START, FIRST = SPEC.start_ns, SPEC.first_ns
INSTRUMENTS = default_instruments(SPEC)


def market(spec=SPEC, instruments=None):
    return SyntheticMarket(spec, default_instruments(spec) if instruments is None else instruments)


def digest(spec):
    whole = hashlib.sha256()
    for event in market(spec):
        whole.update(encode(event) + b"\n")
    return whole.hexdigest()


def small(seed=5, **changes):
    """One day of warm-up and one of session, two coins, no incidents."""
    changes = {"days": 1, "warmup_days": 1, "incidents": (), **changes}
    spec = default_spec(seed, 2)
    return replace(spec, **{"coins": (spec.coins[0], spec.coins[5]), **changes})


def of(kind, events):
    return [event for event in events if type(event) is kind]


def samples_of(spec):
    """Every premium sample by instrument, in units of 1e-8, five minutes apart from the first instant."""
    samples = defaultdict(list)
    for _, lanes in market(spec).weeks():
        for lane in lanes:
            samples[lane.venue, lane.symbol] += lane.path.samples[:-1]  # the last opens the next week
    return samples


@pytest.fixture(scope="module")
def events():
    return list(market())


# the second implementation: fractions, and the venues' rules written out once more


def second_rate(venue, samples, interval_h, cap):
    if venue == "hyperliquid" or (venue == "binance" and interval_h == 1):
        weights = [1] * len(samples)
    else:
        weights = range(1, len(samples) + 1)
    premium = Fraction(sum(w * s for w, s in zip(weights, samples, strict=True)), sum(weights)) / 10**8
    pulled = min(max(Fraction(1, 10_000) - premium, Fraction(-5, 10_000)), Fraction(5, 10_000))
    rate = (premium + pulled) * interval_h / 8
    rate = min(max(rate, -cap), cap)
    return Decimal(round(rate * 10**10)).scaleb(-10)  # round() of a fraction goes to even, as we do


def check_rates(spec, events):
    """Recompute all rates; return how many were in the dead zone, at the cap, and in all."""
    samples, caps = samples_of(spec), {(i.venue, i.symbol): Fraction(i.rate_cap) for i in default_instruments(spec)}
    dead = capped = count = 0
    for event in events:
        if type(event) not in (FundingRealised, FundingPredicted):
            continue
        funding = event.funding
        name = funding.venue, funding.symbol
        begin = funding.settlement_time_ns - funding.interval_h * HOUR_NS
        end = funding.settlement_time_ns
        if type(event) is FundingPredicted:
            end = event.ts_init_ns - SECOND_NS + 5 * MINUTE_NS
        taken = samples[name][(begin - spec.first_ns) // (5 * MINUTE_NS) : (end - spec.first_ns) // (5 * MINUTE_NS)]
        assert funding.rate == second_rate(funding.venue, taken, funding.interval_h, caps[name]), event
        dead += funding.rate == Decimal("0.0001") * funding.interval_h / 8
        capped += abs(funding.rate) == caps[name]
        assert abs(funding.rate) <= caps[name]
        count += 1
    return dead, capped, count


def test_every_rate_follows_from_its_samples(events):
    """Realised and predicted rates equal those of the second implementation, to the last digit."""
    dead, capped, count = check_rates(SPEC, events)
    assert count > 4000 and capped == 0
    assert 0.3 < dead / count < 0.7


def test_caps_hold_and_are_reached():
    """With premiums of many per cent, rates stop at the cap of each instrument, on both sides."""
    spec = small()
    wild = [replace(v, premium=replace(v.premium, jumps_per_day=20.0, jump_sd_bps=6000.0)) for v in spec.venues]
    spec = replace(spec, venues=tuple(wild))
    events = list(market(spec))
    _, capped, count = check_rates(spec, events)
    assert capped > count / 10
    at_cap = {e.funding.venue for e in of(FundingRealised, events) if abs(e.funding.rate) >= Decimal("0.003")}
    assert at_cap == {"binance", "hyperliquid", "okx"}
    assert {e.funding.rate > 0 for e in of(FundingRealised, events)} == {True, False}


def test_intervals_change_up_and_down():
    """8 h to 4 to 1 and back to 8: each rate still follows from its samples, each clock from the script."""
    name = {"venue": "binance", "symbol": "BTC"}
    plan = [(8, 4), (12, 1), (16, 8)]
    incidents = tuple(IntervalChange(**name, at_ns=START + h * HOUR_NS, interval_h=n) for h, n in plan)
    spec = small(days=2, incidents=incidents)
    events = list(market(spec))
    check_rates(spec, events)
    mine = [e.funding for e in of(FundingRealised, events) if (e.funding.venue, e.funding.symbol) == tuple(name.values())]
    heard = [((f.settlement_time_ns - START) // HOUR_NS, f.interval_h) for f in mine]
    late = [(h, 1) for h in range(13, 17)] + [(24, 8), (32, 8), (40, 8)]
    assert heard == [(-16, 8), (-8, 8), (0, 8), (8, 8), (12, 4), *late]
    said = [e for e in of(FundingScheduled, events) if (e.venue, e.symbol) == tuple(name.values())]
    due = [(e.next_settlement_ns - START) // HOUR_NS for e in said]
    assert due == [h for h, _ in heard] + [48]
    assert [e.interval_h for e in said] == [n for _, n in heard] + [8]


def test_market_state_hears_the_incidents(events):
    """The usual market's two incidents reach the first service as notices, once each."""
    state, notices = MarketState([], max_book_age_s=60.0), []
    for event in events:
        notices += [message for message in state.handlers().get(type(event), lambda _: ())(event)]
    changed, missing = of(FundingIntervalChanged, notices), of(FundingMissing, notices)
    assert [(e.venue, e.symbol, e.was_h, e.now_h) for e in changed] == [("binance", "DOGE", 8, 4)]
    assert [(e.venue, e.symbol, e.interval_h) for e in missing] == [("okx", "ETH", 8)]
    script = {type(i): i.at_ns for i in SPEC.incidents}
    assert missing[0].settlement_time_ns == script[MissingSettlement]
    assert changed[0].ts_init_ns == script[IntervalChange] + SECOND_NS


def test_a_week_is_known_at_the_first_decision(events):
    """Warm-up fills the trailing week of every instrument before the first decision."""
    state = MarketState([], max_book_age_s=60.0)
    for event in events:
        if type(event) is TimerFired:
            break
        for _ in state.handlers().get(type(event), lambda _: ())(event):
            pass
    now_ns = event.ts_init_ns
    assert now_ns == START + 70 * SECOND_NS
    for each in INSTRUMENTS:
        assert state.trailing_bps_h(each.venue, each.symbol, 168, now_ns) is not None
        assert state.predicted(each.venue, each.symbol) is not None
        assert state.next_settlement_ns(each.venue, each.symbol) > now_ns
        assert state.book_age_s(each.venue, each.symbol, now_ns) == 1.0
        assert state.volume_usd_24h(each.venue, each.symbol) > 1e6


# order and time


def test_events_come_in_time_order(events):
    """Stamps never fall, and at one instant each kind comes in one piece, in the order of instruments."""
    assert all(a.ts_init_ns <= b.ts_init_ns for a, b in pairwise(events))
    place = {(i.venue, i.symbol): n for n, i in enumerate(INSTRUMENTS)}
    pieces, last, before = set(), None, -1
    for event in events:
        piece = event.ts_init_ns, type(event)
        about = getattr(event, "funding", event)
        where = place.get((getattr(about, "venue", None), getattr(about, "symbol", None)), -1)
        if piece == last:
            assert where > before
        else:
            assert piece not in pieces
            pieces.add(piece)
        last, before = piece, where


def test_the_hour_follows_the_timeline(events):
    """Within an hour: bars and marks, funding, the book, the decision, then three more books."""
    hour_ns = START + 8 * HOUR_NS
    hour = [e for e in events if hour_ns <= e.ts_init_ns < hour_ns + HOUR_NS]
    kinds = list(dict.fromkeys(((e.ts_init_ns - hour_ns) // SECOND_NS, type(e)) for e in hour))
    assert kinds == [
        (0, CandleClosed),
        (0, MarkPriceUpdated),
        (1, FundingRealised),
        (1, FundingScheduled),
        (1, FundingPredicted),
        (69, BookUpdated),
        (70, TimerFired),
        (900, BookUpdated),
        (1800, BookUpdated),
        (2700, BookUpdated),
    ]


def test_nothing_is_known_before_it_is(events):
    """Rates come after their settlement, bars when they end, predictions before what they predict."""
    assert all(e.ts_init_ns == e.funding.settlement_time_ns + SECOND_NS for e in of(FundingRealised, events))
    assert all(e.ts_init_ns == e.funding.ts_init_ns for e in of(FundingRealised, events))
    assert all(e.ts_init_ns < e.funding.settlement_time_ns for e in of(FundingPredicted, events))
    assert all(e.ts_init_ns < e.next_settlement_ns for e in of(FundingScheduled, events))
    for bar in of(CandleClosed, events):
        assert bar.ts_init_ns == bar.close_time_ns == bar.open_time_ns + HOUR_NS


def test_decisions_fill_the_session_and_nothing_else(events):
    """A decision in every hour of the session, none in the warm-up, and the ending just before the last."""
    timers = of(TimerFired, events)
    assert [e.ts_init_ns for e in timers] == [START + h * HOUR_NS + 70 * SECOND_NS for h in range(24 * SPEC.days)]
    assert {e.name for e in timers} == {"decision"}
    (ending,) = of(SessionEnding, events)
    assert events[events.index(ending) + 1] == timers[-1]
    assert ending.ts_init_ns == timers[-1].ts_init_ns
    assert events[0].ts_init_ns == FIRST and events[-1].ts_init_ns < SPEC.end_ns


# prices


def test_books_stand(events):
    """Never crossed, levels in order and apart, quantities positive, everything on the venue's steps."""
    terms = {(i.venue, i.symbol): i for i in INSTRUMENTS}
    for book in of(BookUpdated, events)[::7]:
        each = terms[book.venue, book.symbol]
        assert len(book.bids) == len(book.asks) == 4
        prices = [level.price for level in (*book.bids[::-1], *book.asks)]
        assert all(a < b for a, b in pairwise(prices)) and prices[0] > 0
        assert min(level.qty_base for level in (*book.bids, *book.asks)) >= float(each.min_qty_base)
        for level in (*book.bids, *book.asks):
            assert Decimal(repr(level.price)) % each.price_tick == 0
            assert Decimal(repr(level.qty_base)) % each.lot_step_base == 0


def test_prices_agree_with_each_other(events):
    """Bars join, marks stand at their close, and the hour's book stands around the mark."""
    terms = {(i.venue, i.symbol): i for i in INSTRUMENTS}
    closes, marks = {}, {}
    for event in events:
        if type(event) is CandleClosed:
            name = event.venue, event.symbol
            assert event.open == closes.get(name, event.open)
            assert event.low <= min(event.open, event.close) <= max(event.open, event.close) <= event.high
            assert event.volume_base > 0
            closes[name] = event.close
        elif type(event) is MarkPriceUpdated:
            name = event.venue, event.symbol
            assert event.mark_price == closes.get(name, event.mark_price)
            assert abs(event.mark_price / event.oracle_price - 1) < 0.02
            marks[name] = event
        elif type(event) is FundingRealised:
            name = event.funding.venue, event.funding.symbol
            at_mark = terms[name].price_basis is PriceBasis.MARK
            price = marks[name].mark_price if at_mark else marks[name].oracle_price
            assert event.price == Decimal(repr(price)) and event.price % terms[name].price_tick == 0
        elif type(event) is BookUpdated and event.ts_init_ns % HOUR_NS == 69 * SECOND_NS:
            name = event.venue, event.symbol
            middle = (event.bids[0].price + event.asks[0].price) / 2
            assert abs(middle - marks[name].mark_price) <= float(terms[name].price_tick)


def test_samples_are_what_the_prices_show(events):
    """The premium between mark and oracle is the sample of that instant, but for the rounding to ticks."""
    samples = samples_of(SPEC)
    ticks = {(i.venue, i.symbol): float(i.price_tick) for i in INSTRUMENTS}
    for event in of(MarkPriceUpdated, events):
        name = event.venue, event.symbol
        sample = samples[name][(event.ts_init_ns - FIRST) // (5 * MINUTE_NS)] * 1e-8
        assert abs(event.mark_price / event.oracle_price - 1 - sample) <= 1.01 * ticks[name] / event.oracle_price


def test_venues_of_a_coin_share_the_index(events):
    """One oracle price for a coin everywhere, but for the tick it is rounded to."""
    index = defaultdict(list)
    for event in of(MarkPriceUpdated, events):
        index[event.ts_init_ns, event.symbol].append(event.oracle_price)
    assert all(max(prices) / min(prices) - 1 < 2e-4 for prices in index.values())


@settings(max_examples=200, deadline=None)
@given(
    price=st.floats(1e-6, 1e5),
    ticks_in_price=st.floats(20, 1e7),
    half_bps=st.floats(0, 50),
    step_bps=st.floats(0, 50),
    levels=st.integers(1, 8),
)
def test_no_book_crosses(price, ticks_in_price, half_bps, step_bps, levels):
    """Whatever the tick and the spread, bids fall, asks rise, and there is room between them."""
    tick = Decimal(10) ** Decimal(price / ticks_in_price).adjusted()
    model = BookModel(half_spread_bps=half_bps, level_step_bps=step_bps, level_usd=1.0, levels=levels)
    bids, asks = ladder(np.array([price, price * 1.01]), TickGrid(tick), model)
    for low, high in zip(bids, asks, strict=True):
        prices = [*low[::-1], *high]
        assert all(a < b for a, b in pairwise(prices))
    assert bids[0, 0] <= price * (1 + 1e-12) and asks[0, 0] >= price * (1 - 1e-12)
    reach = price * (half_bps + levels * step_bps) * 1e-4 + (levels + 2) * float(tick)
    assert price - reach <= bids[0, -1] and asks[0, -1] <= price + reach


# chance


def test_another_process_makes_the_same_bytes():
    """The digest of every encoded event survives another process with another hash seed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from test_synthetic import digest, small; print(digest(small()))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    run = [sys.executable, "-c", code, os.path.dirname(__file__)]
    other = subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert other == digest(small())


def test_the_numbers_are_pinned():
    """One market's marks and rates, for every machine and version: they change with the formula, and only then."""
    numbers = hashlib.sha256()
    for event in market(small()):
        if type(event) is MarkPriceUpdated:
            numbers.update(f"{event.mark_price!r} {event.oracle_price!r}\n".encode())
        elif type(event) is FundingRealised:
            numbers.update(f"{event.funding.rate} {event.price}\n".encode())
    assert numbers.hexdigest() == "a6e42cc79cf70acedf499e2acdcc91df8c8acb3db4c2eb7ce495793942943534"


def test_seeds_make_different_markets():
    """No two of ten seeds share a single closing price path."""
    closes = set()
    for seed in range(10):
        bars = of(CandleClosed, market(small(seed)))
        closes.add(tuple(bar.close for bar in bars))
        assert bars
    assert len(closes) == 10


def test_a_coin_does_not_notice_the_others(events):
    """Coins and venues can be left out, and what is left is the same to the last digit."""

    def about(event):
        funding = getattr(event, "funding", event)
        return getattr(funding, "venue", "okx"), getattr(funding, "symbol", "SOL")

    few = [i for i in INSTRUMENTS if (i.venue, i.symbol) in {("okx", "SOL"), ("binance", "DOGE")}]
    kept = {(i.venue, i.symbol) for i in few}
    expected = [event for event in events if about(event) in kept]
    assert list(market(instruments=few)) == expected
    narrow = replace(SPEC, coins=SPEC.coins[2:4], venues=SPEC.venues[::-1], incidents=SPEC.incidents[:1])
    assert list(market(narrow, few)) == expected


def test_the_order_of_instruments_changes_the_order_alone():
    """Listing the instruments backwards makes the same events."""
    spec = small()
    assert set(market(spec, default_instruments(spec)[::-1])) == set(market(spec))


def test_a_longer_market_begins_with_the_shorter():
    """More days change nothing before the last hour of fewer, also across the week that paths are made in."""
    short, long = small(days=2), small(days=9)
    expected = [e for e in market(short) if e.ts_init_ns < short.end_ns - HOUR_NS]
    heard = market(long)
    assert all(event == next_event for event, next_event in zip(expected, heard, strict=False))


def test_a_market_can_be_heard_twice_at_once():
    """Two listeners of one market do not disturb each other."""
    one = market(small())
    assert all(a == b for a, b in zip(one, one, strict=True))


def test_books_are_as_frequent_as_asked():
    """Every five minutes, or every hour: the hour's own book is always there, and no price changes."""
    often, seldom = (list(market(small(book_minutes=minutes))) for minutes in (5, 60))
    hours = 24 * 2 * 6
    assert len(of(BookUpdated, often)) == 12 * hours and len(of(BookUpdated, seldom)) == hours
    assert set(seldom) < set(often)


def test_streams_are_named():
    """The same name repeats, any other seed or name differs, and one call of six is two of three."""
    first = RandomStream(1, "index", "BTC").uniforms(64)
    assert (RandomStream(1, "index", "BTC").uniforms(64) == first).all()
    for seed, name in ((2, ("index", "BTC")), (1, ("index", "ETH")), (1, ("BTC", "index")), (1, ("index",))):
        assert (RandomStream(seed, *name).uniforms(64) != first).all()
    stream = RandomStream(1, "index", "BTC")
    assert np.concatenate([stream.uniforms(40), stream.uniforms(24)]).tolist() == first.tolist()
    assert 0 <= first.min() and first.max() < 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=300), st.floats(0.1, 500), st.floats(-20, 20))
def test_fading_sums_are_the_plain_loop(shocks, half_life_h, last):
    """The passes of the scan add up to x[t] = keep * x[t-1] + shock[t]."""
    sums = FadingSums([half_life_h], np.array([last]))
    expected, x = [], last
    for shock in shocks:
        x = sums.keep[0] * x + shock
        expected.append(x)
    assert sums.extend(np.array([shocks]))[0] == pytest.approx(expected, rel=1e-9, abs=1e-8)
    assert sums.last[0] == pytest.approx(x, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("linear", [True, False])
def test_averages_do_not_care_how_samples_arrive(linear):
    """In one piece or one by one, the average is the same and exact."""
    samples = [3, -40, 100, 7, 7, -1]
    whole, single = VenueAverage(linear), VenueAverage(linear)
    whole.add(samples)
    for sample in samples:
        single.add([sample])
    weights = [n + 1 if linear else 1 for n in range(6)]
    expected = Fraction(sum(w * s for w, s in zip(weights, samples, strict=True)), sum(weights)) / 10**8
    assert whole.premium == single.premium
    assert Fraction(whole.premium) == pytest.approx(expected, rel=1e-20)


# incidents


def test_a_missing_settlement_is_silence():
    """Exactly the rate and the schedule of one settlement are not heard; all else is the same."""
    lost = MissingSettlement(venue="okx", symbol="BTC", at_ns=START + 8 * HOUR_NS)
    gone = set(market(small())) - set(market(small(incidents=(lost,))))
    assert {type(event) for event in gone} == {FundingRealised, FundingScheduled}
    assert {event.ts_init_ns for event in gone} == {lost.at_ns + SECOND_NS} and len(gone) == 2


def test_a_halt_is_silence_of_books_marks_and_bars():
    """For its hours, one venue's coin has none; its funding goes on, the others hear nothing of it."""
    halt = Halt(venue="hyperliquid", symbol="PEPE", at_ns=START + 5 * HOUR_NS, hours=4)
    gone = set(market(small())) - set(market(small(incidents=(halt,))))
    assert {(event.venue, event.symbol) for event in gone} == {("hyperliquid", "PEPE")}
    stamps = {kind: sorted(e.ts_init_ns for e in gone if type(e) is kind) for kind in map(type, gone)}
    hours = [halt.at_ns + h * HOUR_NS for h in range(4)]
    assert stamps[MarkPriceUpdated] == hours
    assert stamps[CandleClosed] == [ns + HOUR_NS for ns in hours]
    assert len(stamps[BookUpdated]) == 16
    assert min(stamps[BookUpdated]) == hours[0] + 69 * SECOND_NS
    assert max(stamps[BookUpdated]) == hours[-1] + 45 * MINUTE_NS
    assert set(stamps) == {MarkPriceUpdated, CandleClosed, BookUpdated}


@pytest.mark.parametrize("days", [1, 2, 3, 30, 365])
def test_the_usual_incidents_fit_any_session(days):
    """They fall into the session, on settlements of their clocks."""
    spec = default_spec(1, days)
    market(spec)
    assert all(spec.start_ns < incident.at_ns < spec.end_ns for incident in spec.incidents)


# what is refused

BTC = {"venue": "binance", "symbol": "BTC"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"days": 0}, "0 days after 1 of warm-up"),
        ({"warmup_days": -1}, "1 days after -1 of warm-up"),
        ({"start_ns": START + HOUR_NS}, "not midnight"),
        ({"start_ns": START + 1}, "not midnight"),
        ({"book_minutes": 7}, "a book every 7 min"),
        ({"book_minutes": 0}, "a book every 0 min"),
        ({"book_minutes": -15}, "a book every -15 min"),
        ({"book_minutes": 120}, "a book every 120 min"),
        ({"coins": SPEC.coins[:1] * 2}, "listed twice"),
        ({"venues": SPEC.venues[:1] * 2}, "listed twice"),
        ({"coins": (replace(SPEC.coins[0], start_price=0.0),)}, "BTC starts at 0.0"),
        ({"incidents": (Halt(venue="bybit", symbol="BTC", at_ns=START, hours=1),)}, "bybit BTC has an incident"),
        ({"incidents": (Halt(**{**BTC, "symbol": "XRP"}, at_ns=START, hours=1),)}, "binance XRP has an incident"),
        ({"incidents": (Halt(**BTC, at_ns=START + MINUTE_NS, hours=1),)}, "not on the hour"),
    ],
)
def test_specs_that_cannot_be_true(changes, why):
    """Each is refused with what is wrong and what was done about it."""
    with pytest.raises(InputError, match=why) as refused:
        small(**changes)
    assert "Nothing was made" in str(refused.value)


@pytest.mark.parametrize(
    "incidents",
    [
        (IntervalChange(**BTC, at_ns=START + 4 * HOUR_NS, interval_h=4),),
        (IntervalChange(**BTC, at_ns=START + 8 * HOUR_NS, interval_h=12),),
        (MissingSettlement(**BTC, at_ns=START + 9 * HOUR_NS),),
        (
            IntervalChange(**BTC, at_ns=START + 8 * HOUR_NS, interval_h=1),
            IntervalChange(**BTC, at_ns=START + 11 * HOUR_NS, interval_h=4),
        ),
    ],
)
def test_incidents_off_the_clock(incidents):
    """A script that names an instant at which nothing is settled is refused, not ignored."""
    with pytest.raises(InputError, match="binance BTC does not settle at"):
        market(small(incidents=incidents))


def test_an_incident_of_a_faster_clock_fits_it():
    """After a change to 1 h, any hour may be missing."""
    faster = IntervalChange(**BTC, at_ns=START + 8 * HOUR_NS, interval_h=1)
    lost = MissingSettlement(**BTC, at_ns=START + 9 * HOUR_NS)
    assert len(set(market(small(incidents=(lost, faster)))))


def test_instruments_must_fit_the_spec():
    """A coin or venue that the spec does not know, or one twice, is refused."""
    with pytest.raises(InputError, match="binance XRP is not part of the spec"):
        market(small(), [replace(INSTRUMENTS[0], symbol="XRP")])
    with pytest.raises(InputError, match="bybit BTC is not part of the spec"):
        market(small(), [replace(INSTRUMENTS[0], venue="bybit")])
    with pytest.raises(InputError, match="listed twice"):
        market(small(), [INSTRUMENTS[0], INSTRUMENTS[0]])


def test_the_usual_instruments():
    """Eighteen of them; PEPE per thousand at two venues, 4 h at one; fees of the venue on each."""
    assert len(INSTRUMENTS) == 18
    assert [(i.venue, i.symbol) for i in INSTRUMENTS[:4]] == [
        ("binance", "BTC"),
        ("hyperliquid", "BTC"),
        ("okx", "BTC"),
        ("binance", "ETH"),
    ]
    pepe = {i.venue: i for i in INSTRUMENTS if i.symbol == "PEPE"}
    assert {venue: i.venue_symbol for venue, i in pepe.items()} == {
        "binance": "1000PEPEUSDT",
        "hyperliquid": "kPEPE",
        "okx": "PEPE-USDT-SWAP",
    }
    assert [int(pepe[v].units_per_price) for v in ("binance", "hyperliquid", "okx")] == [1000, 1000, 1]
    assert {v: i.interval_h for v, i in pepe.items()} == {"binance": 4, "hyperliquid": 1, "okx": 8}
    fees = {i.venue: (i.maker_fee_bps, i.taker_fee_bps, i.quote, i.price_basis.value) for i in INSTRUMENTS}
    assert fees == {
        "binance": (2, 5, "USDT", "mark"),
        "hyperliquid": (Decimal("1.5"), Decimal("4.5"), "USDC", "oracle"),
        "okx": (2, 5, "USDT", "mark"),
    }
    assert all(i.min_qty_base % i.lot_step_base == 0 for i in INSTRUMENTS)
    assert all(i.maintenance_frac < 1 / i.max_leverage for i in INSTRUMENTS)


def test_sessions_start_at_midnight():
    """The default session begins on a whole day, after eight days of history."""
    assert START % DAY_NS == 0 and START - FIRST == 8 * DAY_NS


def test_thirty_coins_are_a_market_and_leave_the_six_as_they_are():
    """More coins change nothing about the usual ones; venues differ, and some do not list everything."""
    wide, usual = default_spec(7, 1, 30), default_spec(7, 1)
    instruments = default_instruments(wide)
    assert len({each.symbol for each in instruments}) == 30 and len(instruments) == 86
    assert {each.interval_h for each in instruments} == {1, 4, 8}
    assert default_instruments(usual) == [each for each in instruments if each.symbol in {c.symbol for c in usual.coins}]
    short = replace(wide, warmup_days=0)
    told = list(SyntheticMarket(short, instruments))
    assert told == list(SyntheticMarket(short, instruments))
    books = [event for event in told if isinstance(event, BookUpdated)]
    assert {(book.venue, book.symbol) for book in books} == {(each.venue, each.symbol) for each in instruments}
    assert all(book.bids[0].price < book.asks[0].price for book in books)
    terms = {(each.venue, each.symbol): each for each in instruments}
    for book in books[: len(instruments)]:
        tick = terms[book.venue, book.symbol].price_tick
        assert not Decimal(repr(book.bids[0].price)) % tick
