"""Each limit lets through what is on it, stops what is a hair above it, and says so by name."""

from decimal import Decimal as D
from math import inf, nan

import pytest
from msgspec.structs import replace

from fundarb.config.settings import LimitSettings
from fundarb.core.engine import Engine, MemoryJournal, replay
from fundarb.core.events import BookUpdated, FeedStale, FundingIntervalChanged, FundingMissing, KillSwitchSet
from fundarb.core.events import MarginUpdated, MarkPriceUpdated, OrderPlaced, PairIntent, PairStateChanged
from fundarb.core.events import PnlUpdated, PositionChanged, RiskLimitBreached, SessionEnding
from fundarb.core.events import TargetApproved, TargetPosition, VenueHealthReported, decode, encode
from fundarb.core.funding import FundingKind, FundingRate
from fundarb.core.models import KillLevel, Level, Pair
from fundarb.core.numbers import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS, utc_ns
from fundarb.data_providers.market_state import MarketState
from fundarb.risk.breach import exceeds, falls_short
from fundarb.risk.gate import RiskGate
from fundarb.risk.limits import OrderRate, worst_case_usd
from fundarb.risk.liquidation import liquidation_distance, liquidation_price, required_equity, trigger_frac
from fundarb.data_providers.charge_windows import CHARGE_WINDOWS
from fundarb.risk.market_checks import check_charge_window
from fundarb.risk.order_check import OrderCheck
from fundarb.risk.position_sizer import PositionSizer

from terms import BINANCE as COMMON

EIGHT = utc_ns("2026-03-02T08:00Z")
NOW = EIGHT + 70 * SECOND_NS
MIDNIGHT = utc_ns("2026-03-03")
TINY = D("0.000001")
PRICES = {"BTC": 60_000.0, "ETH": 2_000.0}

BINANCE = replace(COMMON, maintenance_frac=D("0.005"))


def instrument(venue, symbol="BTC"):
    return replace(BINANCE, venue=venue, symbol=symbol)


BTC = Pair(a=instrument("binance"), b=instrument("hyperliquid"))
BTC_OKX = Pair(a=instrument("binance"), b=instrument("okx"))
ETH = Pair(a=instrument("binance", "ETH"), b=instrument("hyperliquid", "ETH"))
PAIRS = (BTC, BTC_OKX, ETH)

LOOSE = {
    "max_gross_x": 20,
    "max_venue_gross_x": 20,
    "max_symbol_gross_x": 20,
    "max_pair_notional_usd": 1_000_000,
    "max_symbol_margin_frac": 1,
    "max_leverage_x": 2,
    "block_margin_ratio": "0.5",
    "reduce_margin_ratio": "0.65",
    "max_drawdown_frac": "0.05",
    "max_daily_loss_frac": "0.01",
    "max_volatility_ratio": 3,
    "max_book_age_s": 5,
    "max_mark_age_s": 90,
    "max_funding_age_s": 120,
    "max_orders_per_min": 60,
    "collar_bps": 20,
    "max_from_mark_bps": 50,
    "max_depth_frac": 0.1,
    "max_failed_entries": 2,
    "cool_down_h": 1,
}


def limits_of(**changes):
    return LimitSettings(**LOOSE).model_copy(update=changes)


class Market:
    """A market that is whatever a test says it is, at any time it is asked."""

    def __init__(self, **ages_s):
        self.ages_s = {"book": 3.0, "mark": 70.0, "funding": 40.0} | ages_s
        self.volatility = 2.5
        self.next_ns, self.hours = EIGHT + 8 * HOUR_NS, 8
        self.one_sided = set()
        self.now_ns = NOW

    def _stamp(self, stream):
        return self.now_ns - int(self.ages_s[stream] * SECOND_NS)

    def book(self, venue, symbol):
        if self.ages_s["book"] == inf:
            return None
        mid = PRICES[symbol]
        bids, asks = ((Level(mid * (1 + side / 1e4), 60_000.0 / mid),) for side in (-1, 1))
        bids = () if venue in self.one_sided else bids
        return BookUpdated(ts_init_ns=self._stamp("book"), venue=venue, symbol=symbol, bids=bids, asks=asks)

    def mid(self, venue, symbol):
        return None if self.book(venue, symbol) is None or venue in self.one_sided else PRICES[symbol]

    def book_age_s(self, venue, symbol, now_ns):
        return self.ages_s["book"] + (now_ns - self.now_ns) / SECOND_NS

    def mark(self, venue, symbol):
        if self.ages_s["mark"] == inf:
            return None
        price = PRICES[symbol]
        stamp = self._stamp("mark")
        return MarkPriceUpdated(ts_init_ns=stamp, venue=venue, symbol=symbol, mark_price=price, oracle_price=price)

    def predicted(self, venue, symbol):
        if self.ages_s["funding"] == inf:
            return None
        return FundingRate(
            venue=venue,
            symbol=symbol,
            kind=FundingKind.PREDICTED,
            rate=D("0.0001"),
            interval_h=8,
            settlement_time_ns=EIGHT + 8 * HOUR_NS,
            ts_init_ns=self._stamp("funding"),
        )

    def last_realised(self, venue, symbol):
        return None

    def next_settlement_ns(self, venue, symbol):
        return self.next_ns

    def interval_h(self, venue, symbol):
        return self.hours

    def volatility_ratio(self, venue, symbol):
        return self.volatility


def target(notional_usd, pair=BTC, long_venue="binance", short_venue="hyperliquid", now_ns=NOW):
    return TargetPosition(
        ts_init_ns=now_ns,
        pair_id=pair.pair_id,
        long_venue=long_venue,
        short_venue=short_venue,
        notional_usd=D(notional_usd),
        reason="spread",
    )


def state(was, now, held_base=0, pair=BTC, now_ns=NOW, long_venue="binance"):
    return PairStateChanged(
        ts_init_ns=now_ns,
        pair_id=pair.pair_id,
        was=was,
        now=now,
        long_venue=long_venue,
        short_venue=pair.b.venue if long_venue == pair.a.venue else pair.a.venue,
        held_base=D(held_base),
        naked_base=D(0),
        reason="",
    )


def pnl(equity, now_ns=NOW):
    return PnlUpdated(ts_init_ns=now_ns, equity=D(equity), price=D(0), funding=D(0), fees=D(0))


def margin(venue, equity, maintenance, now_ns=NOW):
    return MarginUpdated(ts_init_ns=now_ns, venue=venue, equity=D(equity), maintenance=D(maintenance), gross=D(0))


def position(venue, symbol, qty_base):
    cost = D(qty_base) * D(PRICES[symbol])
    return PositionChanged(ts_init_ns=NOW, venue=venue, symbol=symbol, qty_base=D(qty_base), cost=cost)


def order(name="a", qty_base="0.05", now_ns=NOW, **changes):
    placed = OrderPlaced(
        ts_init_ns=now_ns,
        client_order_id=name,
        pair_id=BTC.pair_id,
        intent_no=1,
        venue="binance",
        symbol="BTC",
        qty_base=D(qty_base),
        limit_price=D(60_030),
        reduce_only=False,
        decision_mid=D(60_000),
    )
    return replace(placed, **changes)


class Desk:
    """A gate with 60,000 USD on Binance, 40,000 on Hyperliquid and 10,000 of ETH between them."""

    def __init__(self, market=None, eth=True, **limits):
        self.market = market or Market()
        self.gate = RiskGate(limits_of(**limits), PAIRS, self.market)
        self.hear(margin("binance", 60_000, 600), margin("hyperliquid", 40_000, 800), pnl(100_000))
        if eth:
            self.hear(position("binance", "ETH", 5), position("hyperliquid", "ETH", -5))
            self.hear(state("ENTERING", "OPEN", 5, pair=ETH))

    def hear(self, *events):
        said = []
        for event in events:
            self.market.now_ns = max(self.market.now_ns, event.ts_init_ns)
            said += self.gate.handlers()[type(event)](event)
        return said

    def ask(self, *args, **kwargs):
        [answer] = self.hear(target(*args, **kwargs))
        return answer


    def passes(self, *args, **kwargs):
        """Tell whether a target is approved; a refusal may have been said before."""
        return any(isinstance(said, TargetApproved) for said in self.hear(target(*args, **kwargs)))


def limit_of(answer):
    return answer.limit if isinstance(answer, RiskLimitBreached) else None


# ---- every limit, on it and a hair above it ----

FOUND = {
    "max_gross_x": "0.6",  # 20,000 twice, 10,000 twice, over 100,000
    "max_venue_gross_x": "0.3",
    "max_symbol_gross_x": "0.4",
    "max_leverage_x": "0.75",  # 30,000 over 40,000, on Hyperliquid
    "block_margin_ratio": "0.0225",  # 800 and half a percent of 20,000, over 40,000
    "max_pair_notional_usd": "20000",
    "max_volatility_ratio": "2.5",
    "max_book_age_s": "3",
    "max_mark_age_s": "70",
    "max_funding_age_s": "40",
    "max_orders_per_min": "2",
}


@pytest.mark.parametrize(("limit", "found"), FOUND.items())
def test_an_entry_passes_on_a_limit_and_is_refused_a_hair_above_it(limit, found):
    loose = {"max_symbol_margin_frac": D(10)}
    assert isinstance(Desk(**loose, **{limit: D(found)}).ask(20_000), TargetApproved)
    answer = Desk(**loose, **{limit: D(found) - TINY}).ask(20_000)
    assert (answer.scope, answer.limit, answer.value) == (BTC.pair_id, limit, D(found))
    assert answer.allowed == D(found) - TINY
    assert "20000 USD a leg refused" in answer.consequence


def test_concentration_counts_margin_at_the_lower_of_two_leverages():
    """40,000 of BTC at two times leverage ties up 20,000 of 100,000."""
    assert isinstance(Desk(max_symbol_margin_frac=D("0.2")).ask(20_000), TargetApproved)
    answer = Desk(max_symbol_margin_frac=D("0.2") - TINY).ask(20_000)
    assert (answer.limit, answer.value) == ("max_symbol_margin_frac", D("0.2"))
    assert isinstance(Desk(max_symbol_margin_frac=D("0.05"), max_leverage_x=D(8)).ask(20_000), TargetApproved)
    capped = Pair(a=replace(BTC.a, max_leverage=D(1)), b=BTC.b)
    gate = RiskGate(limits_of(max_symbol_margin_frac=D("0.3") - TINY), [capped], Market())
    for event in (margin("binance", 60_000, 0), margin("hyperliquid", 40_000, 0), pnl(100_000)):
        list(gate.handlers()[type(event)](event))
    [answer] = gate.handlers()[TargetPosition](target(20_000))
    assert (answer.limit, answer.value) == ("max_symbol_margin_frac", D("0.3"))  # 20,000 / 1 and / 2


@pytest.mark.parametrize("stream", ["book", "mark", "funding"])
def test_a_stream_that_never_spoke_is_infinitely_old(stream):
    answer = Desk(Market(**{stream: inf})).ask(20_000)
    assert (answer.limit, answer.value) == (f"max_{stream}_age_s", D("Infinity"))
    assert decode(encode(answer)) == answer


def test_a_venue_that_never_reported_has_infinite_leverage():
    answer = Desk().ask(1_000, pair=BTC_OKX, short_venue="okx")
    assert (answer.limit, answer.value) == ("max_leverage_x", D("Infinity"))
    assert "okx" in answer.consequence


def test_an_account_without_equity_takes_nothing():
    desk = Desk()
    desk.hear(margin("hyperliquid", 0, 0))
    assert limit_of(desk.ask(1_000)) == "max_leverage_x"


def test_unknown_volatility_does_not_stop_anything_and_no_number_stops_all():
    market = Market()
    market.volatility = None
    assert isinstance(Desk(market).ask(20_000), TargetApproved)
    market.volatility = nan
    assert limit_of(Desk(market).ask(20_000)) == "max_volatility_ratio"


@pytest.mark.parametrize("venues", [("binance", "okx"), ("hyperliquid", "hyperliquid"), ("", "")])
def test_a_target_between_other_venues_is_refused(venues):
    assert limit_of(Desk().ask(1_000, BTC, *venues)) == "unknown_pairs"


def test_a_target_for_a_pair_of_another_session_is_refused():
    stranger = Pair(a=BTC.a, b=replace(BTC.b, venue="bybit"))
    assert limit_of(Desk().ask(0, pair=stranger)) == "unknown_pairs"


# ---- leaving ----


def trouble(desk):
    """Bring everything at once that can speak against an entry."""
    where = {"venue": "binance", "symbol": "BTC"}
    desk.market.ages_s = dict.fromkeys(desk.market.ages_s, 1e6)
    desk.market.volatility = 99.0
    desk.market.next_ns = NOW
    desk.hear(
        pnl(50_000),
        margin("binance", 1, 1_000),
        FundingMissing(ts_init_ns=NOW, **where, settlement_time_ns=EIGHT, interval_h=8),
        SessionEnding(ts_init_ns=NOW, reason="night"),
        *[order(str(n)) for n in range(100)],
        VenueHealthReported(ts_init_ns=NOW, venue="binance", error_frac=1.0, latency_p95_s=9.0, clock_skew_s=5.0),
    )


@pytest.mark.parametrize("usd", [0, 100, 23_999, 24_000])
def test_what_holds_no_more_than_before_is_approved_whatever_happens(usd):
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "0.4"))
    trouble(desk)
    assert desk.ask(usd) == TargetApproved(**{f: getattr(target(usd), f) for f in target(usd).__struct_fields__})


def test_turning_round_is_approved_as_the_exit_it_begins_with():
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "0.4"))
    trouble(desk)
    answer = desk.ask(50_000, BTC, "hyperliquid", "binance")
    assert (type(answer), answer.long_venue, answer.notional_usd) == (TargetApproved, "hyperliquid", 50_000)


def test_adding_a_dollar_to_what_is_held_is_an_entry():
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "0.4"))
    trouble(desk)
    assert isinstance(desk.ask(24_001), RiskLimitBreached)


def test_without_a_price_only_closing_is_known_to_reduce():
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "0.4"))
    desk.market.ages_s["book"] = inf
    assert isinstance(desk.ask(0), TargetApproved)
    assert limit_of(desk.ask(100)) == "max_book_age_s"


# ---- worst case ----


def test_worst_case_takes_the_worse_end():
    assert [worst_case_usd(D(10), D(b), D(s)) for b, s in ((5, 0), (0, 5), (0, 25), (5, 25))] == [15, 10, 15, 15]
    assert [worst_case_usd(D(-10), D(b), D(s)) for b, s in ((5, 0), (0, 5), (25, 0))] == [10, 15, 15]


def test_approvals_of_one_instant_add_up_and_are_forgotten_when_nothing_came_of_them():
    desk = Desk(eth=False, max_gross_x=D("0.8"))
    assert isinstance(desk.ask(20_000), TargetApproved)
    assert desk.ask(20_001, ETH).value == D("0.80002")
    assert isinstance(desk.ask(20_000, ETH), TargetApproved)
    assert isinstance(desk.ask(40_000, ETH, now_ns=NOW + 1), TargetApproved)


def test_an_approval_counts_while_its_pair_is_busy():
    desk = Desk(eth=False, max_gross_x=D("0.8"))
    desk.ask(30_000)
    for busy in ("ENTERING", "REPAIRING", "EXITING"):
        desk.hear(state("IDLE", busy))
        assert not desk.passes(10_001, ETH, now_ns=NOW + 1)
    desk.hear(state("ENTERING", "IDLE"))
    assert isinstance(desk.ask(40_000, ETH, now_ns=NOW + 2), TargetApproved)


def test_a_smaller_wish_does_not_shrink_orders_that_are_out():
    desk = Desk(eth=False, max_gross_x=D("0.8"))
    desk.ask(30_000)
    desk.hear(state("IDLE", "ENTERING"))
    assert isinstance(desk.ask(0), TargetApproved)
    assert isinstance(desk.ask(5_000), TargetApproved)
    assert desk.ask(10_001, ETH, now_ns=NOW + 1).value == D("0.80002")


def test_the_other_way_round_on_one_instrument_is_counted_at_the_worse_end():
    """Binance holds 30,000 long of one pair; selling 20,000 there for another adds nothing there."""
    desk = Desk(eth=False, max_venue_gross_x=D("0.3"), max_leverage_x=D(100))
    desk.hear(margin("okx", 40_000, 0), position("binance", "BTC", "0.5"), position("hyperliquid", "BTC", "-0.5"))
    desk.hear(state("ENTERING", "OPEN", "0.5"))
    assert isinstance(desk.ask(20_000, BTC_OKX, "okx", "binance"), TargetApproved)
    answer = desk.ask(20_000, BTC_OKX, "binance", "okx", now_ns=NOW + 1)
    assert (answer.limit, answer.value) == ("max_venue_gross_x", D("0.357143"))


def test_what_is_held_counts_once_when_it_is_added_to():
    desk = Desk(eth=False, max_gross_x=D("0.6"))
    desk.hear(position("binance", "BTC", "0.4"), position("hyperliquid", "BTC", "-0.4"))
    desk.hear(state("ENTERING", "OPEN", "0.4"))
    assert isinstance(desk.ask(30_000), TargetApproved)
    assert desk.ask(30_001).value == D("0.60002")


def test_reported_maintenance_is_topped_by_what_may_still_come():
    desk = Desk(block_margin_ratio=D("0.02"))
    assert isinstance(desk.ask(0), TargetApproved)
    assert desk.ask(100).value == D("0.020013")  # 800.5 over 40,000, rounded up


# ---- losses ----


def test_a_drawdown_closes_everything_once_and_halts_for_good():
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "0.4"), state("IDLE", "ENTERING", pair=BTC_OKX))
    assert desk.hear(pnl(101_000, NOW + 1)) == []
    assert [limit_of(m) for m in desk.hear(pnl("95950", NOW + 2))] == ["max_daily_loss_frac"]  # 5 % exactly
    said = desk.hear(pnl("95949.9", NOW + 3))
    assert [(m.scope, m.limit, m.value) for m in said[:1]] == [("portfolio", "max_drawdown_frac", D("0.050001"))]
    assert {m.pair_id: (m.notional_usd, m.reason) for m in said[1:]} == {
        ETH.pair_id: (0, "max_drawdown_frac"),
        BTC.pair_id: (0, "max_drawdown_frac"),
    }
    later = NOW + 40 * DAY_NS
    desk.hear(state("EXITING", "IDLE"), state("EXITING", "IDLE", pair=ETH))
    assert desk.hear(pnl(200_000, later)) == []
    assert limit_of(desk.ask(1_000, now_ns=later)) == "max_drawdown_frac"


def test_after_a_drawdown_what_is_still_held_is_closed_with_every_update():
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "0.4"))
    assert len(desk.hear(pnl(90_000, NOW + 1))) == 4  # two halts, two pairs
    desk.hear(state("OPEN", "EXITING", "0.4"))
    assert [m.pair_id for m in desk.hear(pnl(90_000, NOW + 2))] == [ETH.pair_id]  # BTC is being worked on
    desk.hear(state("EXITING", "OPEN", "0.1"), state("OPEN", "IDLE", pair=ETH))
    assert [m.pair_id for m in desk.hear(pnl(90_000, NOW + 3))] == [BTC.pair_id]


def test_an_entry_on_its_way_at_a_drawdown_is_closed_when_it_is_open():
    desk = Desk(eth=False)
    desk.hear(state("IDLE", "ENTERING"), pnl(90_000))
    assert desk.hear(state("EXITING", "OPEN", "0.2", now_ns=NOW + 1)) == []
    [close] = desk.hear(state("ENTERING", "OPEN", "0.2", now_ns=NOW + 2))
    assert (close.pair_id, close.notional_usd, close.long_venue) == (BTC.pair_id, 0, "binance")
    assert Desk(eth=False).hear(state("ENTERING", "OPEN", "0.2")) == []


def test_a_daily_loss_halts_until_midnight_and_closes_nothing():
    desk = Desk()
    assert desk.hear(pnl(99_000, NOW + HOUR_NS)) == []
    [said] = desk.hear(pnl("98999.9", NOW + 2 * HOUR_NS))
    assert (said.scope, said.limit, said.value) == ("portfolio", "max_daily_loss_frac", D("0.010001"))
    assert "2026-03-03T00:00:00.000Z" in said.consequence
    assert desk.hear(pnl(98_000, NOW + 3 * HOUR_NS)) == []
    assert limit_of(desk.ask(1_000, now_ns=MIDNIGHT - 1)) == "max_daily_loss_frac"
    assert isinstance(desk.ask(1_000, now_ns=MIDNIGHT), TargetApproved)
    assert desk.hear(pnl(98_000, MIDNIGHT + HOUR_NS)) == []
    assert [limit_of(m) for m in desk.hear(pnl("97019.9", MIDNIGHT + 2 * HOUR_NS))] == ["max_daily_loss_frac"]


def test_a_loss_across_midnight_belongs_to_the_new_day():
    desk = Desk()
    assert [limit_of(m) for m in desk.hear(pnl(98_000, MIDNIGHT + 1))] == ["max_daily_loss_frac"]


# ---- margin ----


def test_near_liquidation_the_largest_pair_there_is_closed_one_at_a_time():
    desk = Desk(min_liquidation_frac=D("0.0001"))  # the ladder of ratios alone
    desk.hear(state("ENTERING", "OPEN", "0.1"), state("ENTERING", "OPEN", "1", pair=BTC_OKX))  # ETH 10,000
    [warned] = desk.hear(margin("hyperliquid", 1_000, 650))
    assert "warn_margin_ratio is 0.6500" in warned.text
    breach, close = desk.hear(margin("hyperliquid", 1_000, "650.01"))
    assert (breach.scope, breach.limit, breach.value) == ("hyperliquid", "reduce_margin_ratio", D("0.65001"))
    assert (close.pair_id, close.notional_usd, close.reason) == (ETH.pair_id, 0, "reduce_margin_ratio")
    desk.hear(state("OPEN", "EXITING", 5, pair=ETH))
    assert desk.hear(margin("hyperliquid", 1_000, 700, NOW + MINUTE_NS)) == []
    desk.hear(state("EXITING", "IDLE", pair=ETH))
    assert [m.pair_id for m in desk.hear(margin("hyperliquid", 1_000, 700, NOW + 2 * MINUTE_NS))] == [BTC.pair_id]


def test_a_pair_is_reduced_by_no_more_than_brings_its_venue_back_to_the_warning():
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "5", pair=ETH))  # 10,000 USD a leg, 0.5 % of it is maintenance
    _, reduced = desk.hear(margin("hyperliquid", 50, 40 - 5))
    held_usd, too_much = 10_000, 35 - D("0.35") * 50
    assert reduced.notional_usd == held_usd - too_much / D("0.005")
    assert reduced.urgent and reduced.pair_id == ETH.pair_id
    desk.hear(state("OPEN", "EXITING", 5, pair=ETH))
    assert desk.hear(margin("hyperliquid", 50, 35, NOW + MINUTE_NS)) == []  # on its way already


def test_a_venue_must_survive_a_move_against_it_long_before_its_ratio_says_so():
    desk = Desk()
    assert desk.hear(margin("hyperliquid", 1_550, 50)) == []  # 10,000 USD of ETH, short: 15 %
    breach, reduced = desk.hear(margin("hyperliquid", 1_250, 50))  # a ratio of 0.04
    assert (breach.limit, breach.value, breach.allowed) == ("min_liquidation_frac", D("0.12"), D("0.15"))
    assert abs(reduced.notional_usd - 1_200 / D("0.225")) < D("0.001") and reduced.urgent
    desk.hear(state("OPEN", "EXITING", 5, pair=ETH))
    assert desk.hear(margin("hyperliquid", 1_250, 50, NOW + MINUTE_NS)) == []  # on its way
    desk.hear(state("EXITING", "OPEN", 3, pair=ETH))
    gone = desk.hear(margin("hyperliquid", 40, 50, NOW + 2 * MINUTE_NS))
    assert [m.notional_usd for m in gone if isinstance(m, TargetApproved)] == [0]


def test_what_stands_on_the_other_side_of_a_venue_does_not_count_as_a_hedge():
    desk = Desk()
    desk.hear(position("hyperliquid", "BTC", "0.1"))  # 6,000 USD long beside 10,000 short
    assert desk.hear(margin("hyperliquid", 1_550, 50)) == []
    assert desk.hear(margin("hyperliquid", 1_540, 50))[0].value == D("0.149")


def test_flatten_begins_where_the_margin_is_worst():
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "0.1", pair=BTC_OKX), state("ENTERING", "OPEN", "1", pair=ETH))
    desk.hear(margin("okx", 50_000, 1_000), margin("hyperliquid", 50_000, 9_000))
    stop = {"level": KillLevel.FLATTEN, "scope": "", "reason": "drill", "who": "mara"}
    closed = desk.hear(KillSwitchSet(ts_init_ns=NOW, **stop))
    assert [m.pair_id for m in closed] == [ETH.pair_id, BTC_OKX.pair_id]


def test_two_venues_in_one_instant_close_one_pair_where_it_may_be_enough_for_both():
    desk = Desk()
    desk.hear(state("ENTERING", "OPEN", "0.1"))
    said = desk.hear(margin("binance", 1_000, 700), margin("hyperliquid", 1_000, 700))
    assert [m.pair_id for m in said if isinstance(m, TargetApproved)] == [ETH.pair_id]
    assert [m.scope for m in said if isinstance(m, RiskLimitBreached)] == ["binance", "hyperliquid"]


def test_a_venue_with_nothing_to_close_says_so():
    [said] = Desk(eth=False).hear(margin("hyperliquid", -5, 10))
    assert (said.value, said.consequence) == (D("Infinity"), "nothing more can be closed now")


# ---- what is noted ----


@pytest.mark.parametrize(
    "doubt",
    [
        FundingMissing(ts_init_ns=NOW, venue="binance", symbol="BTC", settlement_time_ns=EIGHT, interval_h=8),
        FundingIntervalChanged(ts_init_ns=NOW, venue="hyperliquid", symbol="BTC", was_h=8, now_h=1),
    ],
)
def test_a_doubt_about_funding_stops_additions_to_that_coin_for_an_hour(doubt):
    desk = Desk(max_mark_age_s=1e9, max_book_age_s=1e9, max_funding_age_s=1e9)
    desk.hear(doubt)
    answer = desk.ask(1_000)
    assert (answer.limit, answer.value) == ("funding_doubt_h", 1)
    assert isinstance(desk.ask(1_000, ETH), TargetApproved)
    assert not desk.passes(1_000, now_ns=NOW + HOUR_NS - 1)
    assert desk.passes(1_000, now_ns=NOW + HOUR_NS)


@pytest.mark.parametrize(("stream", "age_s"), [("book", 3), ("mark", 70), ("funding", 40)])
def test_a_feed_called_stale_is_held_to_its_own_limit(stream, age_s):
    for limit_s, kind in ((age_s, TargetApproved), (age_s - 0.5, RiskLimitBreached)):
        desk = Desk()
        where = {"venue": "hyperliquid", "symbol": "BTC", "stream": stream}
        desk.hear(FeedStale(ts_init_ns=NOW, **where, age_s=9.0, limit_s=limit_s))
        answer = desk.ask(1_000)
        assert isinstance(answer, kind)
        assert limit_of(answer) in (None, f"max_{stream}_age_s")
        assert isinstance(desk.ask(1_000, ETH), TargetApproved)


def test_an_ending_session_takes_no_entries():
    desk = Desk()
    desk.hear(SessionEnding(ts_init_ns=NOW, reason="night"))
    assert limit_of(desk.ask(1_000)) == "session_ending"


def test_the_pace_counts_both_orders_of_the_entry_over_a_sliding_minute():
    desk = Desk(max_orders_per_min=5)
    desk.hear(*[order(str(n), now_ns=NOW - 50 * SECOND_NS) for n in range(3)])
    assert isinstance(desk.ask(1_000), TargetApproved)
    desk.hear(order("4", now_ns=NOW))
    assert desk.ask(1_000).value == 6
    desk.market.ages_s["mark"] = 30.0
    assert isinstance(desk.ask(1_000, now_ns=NOW + 10 * SECOND_NS), TargetApproved)


def test_a_minute_ends_exactly_a_minute_later():
    rate = OrderRate()
    rate.add(NOW)
    assert [rate.last_minute(NOW + MINUTE_NS - 1), rate.last_minute(NOW + MINUTE_NS)] == [1, 0]


def fail(desk, n, now_ns=NOW, **pair):
    for _ in range(n):
        desk.hear(state("IDLE", "ENTERING", now_ns=now_ns, **pair), state("ENTERING", "IDLE", now_ns=now_ns, **pair))


def test_a_pair_rests_after_too_many_failed_entries_in_a_row():
    desk = Desk(max_mark_age_s=1e9, max_book_age_s=1e9, max_funding_age_s=1e9)
    fail(desk, 2)
    assert isinstance(desk.ask(1_000), TargetApproved)
    fail(desk, 1)
    assert (desk.ask(1_000).limit, desk.ask(1_000, BTC_OKX, short_venue="okx").limit) == (
        "max_failed_entries",
        "max_leverage_x",
    )
    assert isinstance(desk.ask(1_000, now_ns=NOW + HOUR_NS), TargetApproved)
    fail(desk, 1, now_ns=NOW + HOUR_NS)
    assert desk.ask(1_000, now_ns=NOW + HOUR_NS + 1).value == 4


def test_a_success_forgets_and_an_exit_or_repair_is_no_failure():
    desk = Desk()
    fail(desk, 2)
    desk.hear(state("IDLE", "ENTERING"), state("ENTERING", "REPAIRING"), state("REPAIRING", "OPEN", "0.1"))
    fail(desk, 2)
    desk.hear(state("OPEN", "EXITING", "0.1"), state("EXITING", "IDLE"))
    assert isinstance(desk.ask(1_000), TargetApproved)
    desk.hear(state("IDLE", "ENTERING"), state("ENTERING", "REPAIRING"), state("REPAIRING", "FAILED"))
    desk.hear(state("FAILED", "IDLE"))
    assert desk.ask(1_000).value == 3


# ---- the charge window ----


@pytest.mark.parametrize("venue", [*CHARGE_WINDOWS, "bybit"])
def test_no_entry_in_the_charge_window_of_any_venue(venue):
    before_s, after_s = CHARGE_WINDOWS.get(venue, (5, 65))
    market = Market()
    for market.next_ns in (EIGHT, EIGHT + 8 * HOUR_NS):  # the settlement to come, and the one just over
        waits = {
            since_ns: check_charge_window(market, instrument(venue), EIGHT + since_ns)
            for since_ns in (-before_s * SECOND_NS - 1, -before_s * SECOND_NS, 0, after_s * SECOND_NS)
        }
        assert [breach is not None for breach in waits.values()] == [False, True, True, True]
        assert waits[0].limit == "charge_window_s" and round(waits[0].value) == after_s
        assert check_charge_window(market, instrument(venue), EIGHT + after_s * SECOND_NS + 1) is None


@pytest.mark.parametrize(("since_s", "waits_s"), [(1, 19), (10, 10), (20, 0), (21, None)])
def test_the_gate_waits_for_the_window_of_either_leg(since_s, waits_s):
    """Hyperliquid is done after two seconds, Binance after twenty."""
    now_ns = EIGHT + since_s * SECOND_NS
    market = Market()
    market.next_ns = EIGHT
    answer = Desk(market).ask(1_000, now_ns=now_ns)
    assert limit_of(answer) == (None if waits_s is None else "charge_window_s")
    assert waits_s is None or round(answer.value) == waits_s


def test_a_clock_that_is_not_known_has_no_window():
    market = Market()
    market.next_ns, market.hours = None, None
    assert check_charge_window(market, BTC.a, EIGHT) is None
    market.next_ns = EIGHT
    assert check_charge_window(market, BTC.a, EIGHT) is None


# ---- said once ----


def test_the_same_refusal_is_said_once_an_hour_and_again_when_it_has_doubled():
    desk = Desk(max_pair_notional_usd=D(1_000), max_mark_age_s=1e9, max_book_age_s=1e9, max_funding_age_s=1e9)
    asked = [(0, 1_500), (1, 1_999), (2, 2_000), (3, 3_999), (4, 1_500), (61, 3_000), (62, 1_500), (63, 4_000)]
    said = [minute for minute, usd in asked if desk.hear(target(usd, now_ns=NOW + minute * MINUTE_NS))]
    assert said == [0, 2, 62, 63]


def test_an_hour_is_an_hour_and_other_scopes_and_limits_are_other_news():
    desk = Desk(max_pair_notional_usd=D(1_000), max_mark_age_s=1e9, max_book_age_s=1e9, max_funding_age_s=1e9)
    assert desk.hear(target(1_500)) and desk.hear(target(1_500, ETH)) is not None
    assert desk.hear(target(1_500, now_ns=NOW + HOUR_NS - 1)) == []
    assert len(desk.hear(target(1_500, now_ns=NOW + HOUR_NS))) == 1
    desk.hear(SessionEnding(ts_init_ns=NOW + HOUR_NS, reason="night"))
    assert len(desk.hear(target(1_500, now_ns=NOW + HOUR_NS + 1))) == 1


def test_grades_of_a_breach():
    grades = {"1.001": 0, "1.999": 0, "2": 1, "3.999": 1, "4": 2, "Infinity": 99}
    assert {v: exceeds("a_x", D(v), 1, "").doublings for v in grades} == grades
    assert falls_short("min_qty_base", D(1), D(2), "").doublings == 0
    assert exceeds("a_x", D("0.5"), 0, "").doublings == 0


# ---- orders ----


def asked(*orders, market=None, **limits):
    check = OrderCheck(limits_of(**limits), PAIRS, market or Market())
    return [limit_of(check(placed)) for placed in orders][-1]


ORDER_EDGES = [
    ("collar_bps", {"limit_price": D(60_120)}, {"limit_price": D("60120.1")}),
    ("collar_bps", {"limit_price": D(59_880)}, {"limit_price": D("59879.9")}),
    ("price_tick", {"limit_price": D("60030.1")}, {"limit_price": D("60030.15")}),
    ("lot_step_base", {"qty_base": D("0.051")}, {"qty_base": D("0.0511")}),
    ("lot_step_base", {"qty_base": D("-0.051")}, {"qty_base": D("-0.0511")}),
    ("min_notional_usd", {"qty_base": D("0.002")}, {"qty_base": D("0.001")}),
    ("max_depth_frac", {"qty_base": D("0.1")}, {"qty_base": D("0.101")}),
    ("max_depth_frac", {"qty_base": D("-0.1")}, {"qty_base": D("-0.101")}),
]


@pytest.mark.parametrize(("limit", "fine", "over"), ORDER_EDGES)
def test_an_order_passes_on_a_limit_and_is_refused_a_hair_above_it(limit, fine, over):
    assert asked(order(**fine)) is None
    assert asked(order(**over)) == limit


@pytest.mark.parametrize(
    ("limit", "found"),
    [("max_book_age_s", "3"), ("max_orders_per_min", "1"), ("max_from_mark_bps", "5"), ("max_depth_frac", "0.05")],
)
def test_an_order_meets_the_limits_that_are_set(limit, found):
    assert asked(order(), **{limit: D(found)}) is None
    assert asked(order(), **{limit: D(found) - TINY}) == limit


CLOSING_MAY = [
    ({"qty_base": D("-0.001")}, {}),
    ({"qty_base": D("-9")}, {}),
    ({}, {"max_orders_per_min": 0}),
    ({}, {"max_book_age_s": 1}),
    ({}, {"max_from_mark_bps": D(1)}),
]


@pytest.mark.parametrize(("changes", "limits"), CLOSING_MAY)
def test_closing_is_not_stopped_by_what_stops_opening(changes, limits):
    assert asked(order(**changes), **limits) is not None
    assert asked(order(**changes, reduce_only=True), **limits) is None


@pytest.mark.parametrize("limit", ["collar_bps", "price_tick", "lot_step_base"])
def test_closing_is_stopped_by_a_wrong_size_or_price(limit):
    [over] = [over for name, _, over in ORDER_EDGES if name == limit][:1]
    assert asked(order(**over, reduce_only=True)) == limit


def test_closing_too_little_for_the_venue_is_stopped():
    assert asked(order(qty_base="0", reduce_only=True)) == "min_qty_base"


def test_without_a_mark_nothing_is_opened_and_without_a_book_nothing_either():
    assert asked(order(), market=Market(mark=inf)) == "max_from_mark_bps"
    assert asked(order(), market=Market(book=inf)) == "max_book_age_s"
    assert asked(order(reduce_only=True), market=Market(book=inf, mark=inf)) is None


def test_a_name_is_used_once_and_a_refusal_does_not_use_it():
    assert asked(order(), order()) == "duplicate_orders"
    assert asked(order(reduce_only=True), order(reduce_only=True)) == "duplicate_orders"
    assert asked(order(limit_price=D(70_000)), order()) is None


def test_a_second_attempt_mends_and_a_larger_or_opposite_one_opens():
    stale = {"max_book_age_s": 3}
    check = OrderCheck(limits_of(**stale), PAIRS, market := Market())
    assert check(order("1", "0.05")) is None
    market.ages_s["book"] = 4.0
    answers = {
        "smaller": order("2", "0.01"),
        "same": order("3", "0.05"),
        "larger": order("4", "0.051"),
        "opposite": order("5", "-0.05"),
        "other intent": order("6", "0.05", intent_no=2),
        "other venue": order("7", "0.05", venue="hyperliquid"),
        "other pair": order("8", "0.05", pair_id=BTC_OKX.pair_id),
    }
    passed = [name for name, placed in answers.items() if check(placed) is None]
    assert passed == ["smaller", "same"]


def test_a_closing_order_opens_no_door_for_an_opening_one():
    check = OrderCheck(limits_of(), PAIRS, market := Market())
    assert check(order("1", "0.05", reduce_only=True)) is None
    market.ages_s["book"] = 6.0
    assert check(order("2", "0.05")).limit == "max_book_age_s"


def test_closing_orders_count_toward_the_pace_of_others():
    closing = [order(str(n), reduce_only=True) for n in range(3)]
    assert asked(*closing, order("new"), max_orders_per_min=4) is None
    assert asked(*closing, order("new"), max_orders_per_min=3) == "max_orders_per_min"


def test_an_unknown_instrument_is_refused_even_when_closing():
    assert asked(order(symbol="DOGE", reduce_only=True)) == "unknown_instruments"


def test_a_refused_order_is_told_about_its_pair():
    refused = OrderCheck(limits_of(), PAIRS, Market())(order(limit_price=D(70_000)))
    assert refused.scope == BTC.pair_id
    assert refused.consequence == "order a of 0.05 BTC on binance at 70000 is not sent"


# ---- the sizer as a service ----


def approved(usd, long_venue="binance", now_ns=NOW, pair=BTC):
    wish = target(usd, pair, long_venue, pair.b.venue if long_venue == pair.a.venue else pair.a.venue, now_ns)
    return TargetApproved(**{name: getattr(wish, name) for name in wish.__struct_fields__})


def sized(*events, market=None, **limits):
    sizer = PositionSizer(limits_of(**limits), PAIRS, market or Market())
    return [message for event in events for message in sizer.handlers()[type(event)](event)]


@pytest.mark.parametrize("now", ["ENTERING", "EXITING", "REPAIRING"])
def test_a_busy_pair_gets_no_intent(now):
    assert sized(state("", now, "0.1"), approved(0)) == []
    assert sized(state("", now, "0.1"), approved(50_000)) == []


@pytest.mark.parametrize("now", ["IDLE", "OPEN"])
def test_a_pair_at_rest_gets_the_difference(now):
    [intent] = sized(state("", now, "0.1"), approved(9_000))
    assert (intent.opening, intent.qty_base, intent.reason) == (True, D("0.05"), "spread")


def test_a_failed_pair_is_only_closed():
    failed = state("", "FAILED", "0.1")
    assert sized(failed, approved(50_000)) == []
    [intent] = sized(failed, approved(0))
    assert (intent.opening, intent.qty_base) == (False, D("0.1"))


def test_intents_are_numbered_across_pairs_and_once_per_instant():
    said = sized(
        approved(6_000),
        approved(3_000),
        approved(2_000, pair=ETH),
        approved(6_000, now_ns=NOW + 1),
    )
    assert [(m.pair_id, m.intent_no) for m in said] == [(BTC.pair_id, 1), (ETH.pair_id, 2), (BTC.pair_id, 3)]


def test_turning_round_closes_the_side_that_is_held():
    [intent] = sized(state("", "OPEN", "0.1"), approved(50_000, "hyperliquid"))
    assert (intent.opening, intent.qty_base, intent.long_venue, intent.short_venue) == (
        False,
        D("0.1"),
        "binance",
        "hyperliquid",
    )


def test_opening_is_cut_to_the_book_and_closing_is_not():
    [intent] = sized(approved(60_000))
    assert intent.qty_base == D("0.1")  # a tenth of one coin
    [intent] = sized(state("", "OPEN", "0.7"), approved(0))
    assert intent.qty_base == D("0.7")


def test_the_thinner_side_decides():
    market = Market()
    market.one_sided = {"hyperliquid"}
    [said] = sized(approved(6_000), market=market)
    assert (said.limit, said.value) == ("max_book_age_s", D("Infinity"))


def test_a_stale_book_stops_opening_and_not_closing():
    assert [limit_of(m) for m in sized(approved(6_000), max_book_age_s=2.9)] == ["max_book_age_s"]
    assert sized(approved(6_000), max_book_age_s=3.0)[0].opening
    [intent] = sized(state("", "OPEN", "0.1"), approved(0), max_book_age_s=2.9)
    assert not intent.opening


@pytest.mark.parametrize(("usd", "limit"), [(50, "min_qty_base"), (80, "min_notional_usd")])
def test_what_is_too_small_is_refused_with_the_smallest_possible(usd, limit):
    [said] = sized(approved(usd), approved(usd, now_ns=NOW + 1))
    assert (said.scope, said.limit) == (BTC.pair_id, limit)
    assert "the smallest possible is 0.002, worth 120 USD" in said.consequence


def test_a_book_too_thin_for_the_smallest_order_is_named():
    [said] = sized(approved(6_000), max_depth_frac=0.0019)
    assert (said.limit, said.value, said.allowed) == ("max_depth_frac", D("0.002"), D("0.0019"))
    assert sized(approved(6_000), max_depth_frac=0.002)[0].qty_base == D("0.002")


# ---- liquidation ----


def test_liquidation_prices_of_three_venues():
    """A coin at 60,000, ten times leverage: what each venue's own formula gives."""
    of = {"binance": ("0.005", 50), "hyperliquid": ("0.0125", 0), "okx": ("0.004", 0)}
    found = {}
    for venue, (maintenance_frac, deduction) in of.items():
        leg = replace(instrument(venue), maintenance_frac=D(maintenance_frac))
        prices = [
            liquidation_price(D(side), D(60_000), D(6_000), trigger_frac(leg), D(deduction)) for side in (1, -1)
        ]
        found[venue] = [round(price, 6) for price in prices]
    assert found == {
        "binance": [D("54221.105528"), D("65721.393035")],
        "hyperliquid": [D("54683.544304"), D("65185.185185")],
        "okx": [D("54244.098443"), D("65704.330513")],
    }


def test_required_equity_is_the_liquidation_price_read_backwards():
    for side, move in ((1, "0.3"), (-1, "0.3"), (1, "0.05"), (-1, "0.9")):
        needed = required_equity(D(60_000), D(move), D("0.0125"), long=side > 0)
        price = liquidation_price(D(side), D(60_000), needed, D("0.0125"))
        assert round(liquidation_distance(D(60_000), price), 12) == D(move)


def test_no_position_and_a_fully_margined_long_are_never_closed():
    assert liquidation_price(D(0), D(60_000), D(6_000), D("0.005")) is None
    assert liquidation_price(D(1), D(60_000), D(60_000), D("0.005")) is None
    assert liquidation_distance(D(60_000), None) == D("Infinity")


# ---- together ----


def test_gate_and_sizer_in_one_engine_replay_to_the_same_journal():
    def services():
        market, limits = MarketState([BTC, ETH], max_book_age_s=5), limits_of(max_funding_age_s=1e9)
        return [market, RiskGate(limits, [BTC, ETH], market), PositionSizer(limits, [BTC, ETH], market)]

    def inputs():
        for venue in ("binance", "hyperliquid"):
            for symbol in PRICES:
                book = Market().book(venue, symbol)
                yield replace(book, ts_init_ns=NOW)
                yield replace(Market().mark(venue, symbol), ts_init_ns=NOW)
                yield from [margin(venue, 50_000, 0)]
        yield pnl(100_000)
        yield target(12_000)
        yield state("IDLE", "ENTERING")
        yield state("ENTERING", "OPEN", "0.1", now_ns=NOW + SECOND_NS)
        yield pnl(90_000, NOW + 2 * SECOND_NS)

    journal = MemoryJournal()
    engine = Engine(services(), journal)
    for event in inputs():
        engine.turn(event)
    said = [entry.message for entry in journal.entries if entry.cause_seq]
    assert [m.limit for m in said if isinstance(m, RiskLimitBreached)] == [
        "max_funding_age_s",
        "max_drawdown_frac",
        "max_daily_loss_frac",
    ]
    [intent] = [m for m in said if isinstance(m, PairIntent)]
    assert (intent.opening, intent.qty_base) == (False, D("0.1"))
    assert replay(journal.entries, services()) is None


def test_a_venue_that_fails_is_left_but_not_entered_until_it_answers_again():
    desk = Desk()
    health = VenueHealthReported(ts_init_ns=NOW, venue="hyperliquid", error_frac=0.9, latency_p95_s=0.1, clock_skew_s=0.0)
    desk.hear(state("ENTERING", "OPEN", "0.1"), health)
    assert limit_of(desk.ask(9_000)) == "max_error_frac"
    assert isinstance(desk.ask(0), TargetApproved)
    desk.hear(replace(health, error_frac=0.0))
    assert isinstance(desk.ask(9_000), TargetApproved)
