"""The signal service says a target only where what is wanted differs from what is held."""

from decimal import Decimal as D

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from fundarb.core.errors import InputError
from fundarb.core.events import BookUpdated, PairStateChanged, SessionEnding, SignalDetected
from fundarb.core.events import TargetPosition, TimerFired, decode, encode
from fundarb.core.models import Pair
from fundarb.strategies.base import Decision, HeldPair, Outlook, SignalService, target_of
from terms import SOL

MID = 100.0
STATES = ("IDLE", "ENTERING", "OPEN", "EXITING", "REPAIRING", "FAILED")
MOVING = ("ENTERING", "EXITING", "REPAIRING")
OUTLOOK = Outlook(
    slow_bps_h=0.5,
    fast_bps_h=0.6,
    expected_bps_h=0.25,
    horizon_h=168.0,
    cost_bps=25.0,
    basis_bps=3.0,
    net_edge_bps=20.0,
)
WISH = Decision(
    pair_id="SOL:a-b",
    long_venue="a",
    short_venue="b",
    notional_usd=D(1000),
    reason="because",
    outlook=OUTLOOK,
)
OUT = replace(WISH, notional_usd=D(0))


def make_pair(symbol="SOL"):
    coin = replace(SOL, symbol=symbol, venue_symbol=symbol)
    return Pair(a=replace(coin, venue="a"), b=replace(coin, venue="b"))


class Asked:
    """A strategy that answers what it is told to, and notes that it was asked."""

    name = "asked"
    wakes_on = (TimerFired,)

    def __init__(self, *answer):
        self.answer, self.seen = answer, []

    def evaluate(self, event, market, portfolio):
        self.seen.append((event, dict(portfolio)))
        return self.answer


class Mids:
    def __init__(self, mid_price=MID):
        self.mid_price = mid_price

    def mid(self, venue, symbol):
        assert (venue, symbol) in {("a", "SOL"), ("b", "SOL"), ("a", "BTC")}
        return self.mid_price


def service_of(*answer, mid_price=MID):
    strategy = Asked(*answer)
    pairs = [make_pair(), make_pair("BTC")]
    return strategy, SignalService(strategy, pairs, Mids(mid_price))


def hear(service, event):
    return list(service.handlers()[type(event)](event))


def tick(service, ts_init_ns=1):
    return hear(service, TimerFired(ts_init_ns=ts_init_ns, name="decision"))


def change(service, now, held_base="0", long_venue="a", ts_init_ns=1, pair_id="SOL:a-b"):
    event = PairStateChanged(
        ts_init_ns=ts_init_ns,
        pair_id=pair_id,
        was="?",
        now=now,
        long_venue=long_venue,
        short_venue="" if not long_venue else "b" if long_venue == "a" else "a",
        held_base=D(held_base),
        naked_base=D(0),
        reason="",
    )
    assert hear(service, event) == []


def held(state, held_base, long_venue="a"):
    short_venue = "b" if long_venue == "a" else "a"
    return HeldPair(
        state=state,
        since_ns=0,
        long_venue=long_venue,
        short_venue=short_venue,
        held_base=D(held_base),
    )


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("base", ["0", "8.99", "9", "10", "20"])
@pytest.mark.parametrize("wanted", [D(0), D(1000)])
@pytest.mark.parametrize("long_venue", ["a", "b"])
def test_the_whole_table_of_states(state, base, wanted, long_venue):
    """Written a second time, as a list of the cases in which something is said."""
    answer = target_of(replace(WISH, notional_usd=wanted), held(state, base, long_venue), MID)
    holds, leave = D(base) > 0, (long_venue, "b" if long_venue == "a" else "a", D(0))
    if state == "IDLE":
        expected = ("a", "b", wanted) if wanted else None
    elif state in MOVING or not holds:
        expected = None
    elif wanted == 0 or long_venue == "b":
        expected = leave
    elif state == "OPEN" and D(base) * 100 < 900:
        expected = ("a", "b", wanted)
    else:
        expected = None
    assert answer == expected


@given(st.decimals(1, 1000, places=2), st.decimals("0.01", 100, places=2))
def test_a_pair_at_its_size_is_left_alone_and_a_short_one_filled_up(notional_usd, base):
    wish = replace(WISH, notional_usd=notional_usd)
    answer = target_of(wish, held("OPEN", base), MID)
    share = base * 100 / notional_usd
    if abs(share - D("0.9")) > D("1e-9"):
        assert (answer is None) == (share > D("0.9"))


def test_what_cannot_be_valued_is_not_filled_up_but_can_be_left():
    assert target_of(WISH, held("OPEN", "1"), None) is None
    assert target_of(OUT, held("OPEN", "1"), None) == ("a", "b", D(0))
    assert target_of(WISH, None, None) == ("a", "b", D(1000))


def test_both_events_carry_the_decision_and_its_time():
    _, service = service_of(WISH)
    signal, target = tick(service, ts_init_ns=77)
    assert signal == SignalDetected(
        ts_init_ns=77, pair_id="SOL:a-b", long_venue="a", short_venue="b", **asdict(OUTLOOK)
    )
    assert target == TargetPosition(
        ts_init_ns=77,
        pair_id="SOL:a-b",
        long_venue="a",
        short_venue="b",
        notional_usd=D(1000),
        reason="because",
    )
    assert [decode(encode(each)) for each in (signal, target)] == [signal, target]


def test_a_decision_without_an_outlook_is_a_target_alone():
    _, service = service_of(replace(OUT, outlook=None))
    change(service, "OPEN", "10")
    (target,) = tick(service)
    assert (type(target), target.notional_usd) == (TargetPosition, D(0))


def test_nothing_said_is_the_empty_tuple_itself():
    _, service = service_of()
    event = TimerFired(ts_init_ns=1, name="decision")
    assert service.handlers()[TimerFired](event) == ()


def test_each_decision_is_compared_on_its_own():
    btc = replace(WISH, pair_id="BTC:a-b")
    _, service = service_of(WISH, btc)
    change(service, "OPEN", "10")
    assert [target.pair_id for target in tick(service)] == ["BTC:a-b"] * 2


def test_the_strategy_sees_what_execution_last_said_and_since_when():
    strategy, service = service_of()
    change(service, "ENTERING", "0", ts_init_ns=10)
    change(service, "OPEN", "9", ts_init_ns=20)
    change(service, "OPEN", "10", ts_init_ns=30)
    tick(service, 40)
    change(service, "IDLE", "0", long_venue="", ts_init_ns=50)
    tick(service, 60)
    opened, closed = (portfolio["SOL:a-b"] for _, portfolio in strategy.seen)
    assert opened == replace(held("OPEN", "10"), since_ns=20)
    assert closed == HeldPair(
        state="IDLE", since_ns=50, long_venue="", short_venue="", held_base=D(0)
    )


def test_the_view_cannot_be_written_to():
    _, service = service_of()
    with pytest.raises(TypeError):
        service.portfolio["SOL:a-b"] = held("OPEN", "1")


def ending(service, ts_init_ns=5):
    return hear(service, SessionEnding(ts_init_ns=ts_init_ns, reason="operator"))


@pytest.mark.parametrize("state", STATES)
def test_the_end_of_a_session_closes_whatever_is_not_flat(state):
    _, service = service_of()
    base, long_venue = ("0", "") if state in ("IDLE", "ENTERING") else ("10", "b")
    change(service, state, base, long_venue)
    targets = [
        (target.pair_id, target.notional_usd, target.long_venue, target.short_venue, target.reason)
        for target in ending(service)
    ]
    venues = ("a", "b") if state == "ENTERING" else ("b", "a")
    expected = [("SOL:a-b", D(0), *venues, "session ends: operator")]
    assert targets == ([] if state == "IDLE" else expected)


def test_after_the_end_the_strategy_is_not_asked_and_held_pairs_are_closed_again():
    strategy, service = service_of(WISH)
    change(service, "OPEN", "10")
    assert len(ending(service)) == 1
    assert [target.notional_usd for target in tick(service)] == [D(0)]
    change(service, "EXITING", "10")
    assert tick(service) == []
    change(service, "FAILED", "3")
    assert [target.notional_usd for target in tick(service)] == [D(0)]
    change(service, "FAILED", "0", long_venue="")
    assert tick(service) == []
    change(service, "IDLE", "0", long_venue="")
    assert tick(service) == []
    assert strategy.seen == []


def test_small_sizes_are_sizes():
    assert target_of(replace(WISH, notional_usd=D("0.5")), None, MID) == ("a", "b", D("0.5"))
    _, service = service_of()
    change(service, "OPEN", "0.5")
    assert len(ending(service)) == 1


def test_pairs_are_closed_in_the_order_of_their_names():
    _, service = service_of()
    change(service, "OPEN", "10", pair_id="SOL:a-b")
    change(service, "OPEN", "10", pair_id="BTC:a-b")
    assert [target.pair_id for target in ending(service)] == ["BTC:a-b", "SOL:a-b"]


@pytest.mark.parametrize("wakes_on", [(), (PairStateChanged,), (TimerFired, SessionEnding)])
def test_a_strategy_that_wakes_on_the_wrong_events_is_refused(wakes_on):
    strategy = Asked()
    strategy.wakes_on = wakes_on
    with pytest.raises(InputError, match="asked wakes on .* No session starts"):
        SignalService(strategy, [make_pair()], Mids())


def test_every_event_the_strategy_names_wakes_it():
    strategy = Asked()
    strategy.wakes_on = (TimerFired, BookUpdated)
    service = SignalService(strategy, [make_pair()], Mids())
    book = BookUpdated(ts_init_ns=1, venue="a", symbol="SOL", bids=(), asks=())
    assert hear(service, book) == tick(service) == []
    assert [type(event) for event, _ in strategy.seen] == [BookUpdated, TimerFired]
    assert set(service.handlers()) == {TimerFired, BookUpdated, PairStateChanged, SessionEnding}
