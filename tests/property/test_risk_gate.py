"""However approvals, fills and exits are interleaved: exposure stays within the limits that let them through."""

from decimal import Decimal as D

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.config.settings import LimitSettings
from fundarb.core.events import BookUpdated, FundingRealised, MarginUpdated, MarkPriceUpdated, PairStateChanged
from fundarb.core.events import PnlUpdated, PositionChanged, TargetApproved, TargetPosition
from fundarb.core.funding import FundingKind, FundingRate
from fundarb.core.models import Level, Pair
from fundarb.core.numbers import SECOND_NS, utc_ns
from fundarb.data_providers.market_state import MarketState
from fundarb.risk.gate import RiskGate

from terms import BINANCE as COMMON

NOW = utc_ns("2026-03-02T08:01:10Z")
VENUES = ("binance", "hyperliquid", "okx")
PRICES = {"BTC": 60_000, "ETH": 2_000}
EQUITY = D(100_000)
TERMS = replace(COMMON, maintenance_frac=D("0.005"))
PAIRS = {
    pair.pair_id: pair
    for symbol in PRICES
    for a, b in (("binance", "hyperliquid"), ("binance", "okx"), ("okx", "hyperliquid"))
    for pair in [Pair(a=replace(TERMS, venue=a, symbol=symbol), b=replace(TERMS, venue=b, symbol=symbol))]
}
LIMITS = LimitSettings(
    max_gross_x=3,
    max_venue_gross_x="1.2",
    max_symbol_gross_x="2",
    max_leverage_x=3,
    max_pair_notional_usd=60_000,
    max_symbol_margin_frac=1,
).model_copy(update=dict.fromkeys(("max_book_age_s", "max_mark_age_s", "max_funding_age_s"), 1e9))  # time stands still


def shown_market():
    market = MarketState(list(PAIRS.values()), max_book_age_s=1e9)
    for venue in VENUES:
        for symbol, price in PRICES.items():
            where = {"venue": venue, "symbol": symbol}
            rate = FundingRate(
                **where,
                kind=FundingKind.REALISED,
                rate=D(0),
                interval_h=8,
                settlement_time_ns=NOW - 70 * SECOND_NS,
                ts_init_ns=NOW,
            )
            list(market.on_realised(FundingRealised(ts_init_ns=NOW, funding=rate)))
            side = (Level(float(price), 1e9),)
            market.on_book(BookUpdated(ts_init_ns=NOW, **where, bids=side, asks=side))
            market.on_mark(MarkPriceUpdated(ts_init_ns=NOW, **where, mark_price=price, oracle_price=price))
    return market


MARKET = shown_market()


class World:
    """What really happens between approvals: orders that fill in part, or much later, or never."""

    def __init__(self):
        self.gate = RiskGate(LIMITS, PAIRS.values(), MARKET)
        self.handlers = self.gate.handlers()
        self.now_ns = NOW
        self.held = {}  # USD by pair: (long venue, amount)
        self.working = {}  # USD by pair: (long venue, what it is to be)
        self.legs = dict.fromkeys(((venue, symbol) for venue in VENUES for symbol in PRICES), D(0))
        for venue in VENUES:
            self.hear(MarginUpdated(ts_init_ns=NOW, venue=venue, equity=EQUITY / 3, maintenance=D(0), gross=D(0)))
        self.hear(PnlUpdated(ts_init_ns=NOW, equity=EQUITY, price=D(0), funding=D(0), fees=D(0)))

    def hear(self, event):
        return list(self.handlers[type(event)](event))

    def ask(self, pair_id, usd, turned):
        pair = PAIRS[pair_id]
        long, short = (pair.b, pair.a) if turned else (pair.a, pair.b)
        wish = TargetPosition(
            ts_init_ns=self.now_ns,
            pair_id=pair_id,
            long_venue=long.venue,
            short_venue=short.venue,
            notional_usd=D(usd),
            reason="",
        )
        for said in self.hear(wish):
            if isinstance(said, TargetApproved) and pair_id not in self.working:
                self.start(said)

    def start(self, approved):
        """Do as sizer and execution do: turn round by closing, and work on one thing at a time."""
        held_long, held_usd = self.held.get(approved.pair_id, ("", D(0)))
        turned = held_usd and held_long != approved.long_venue
        goal = (held_long, D(0)) if turned else (approved.long_venue, approved.notional_usd)
        if goal[1] == held_usd:
            return
        self.working[approved.pair_id] = goal
        self.state(approved.pair_id, "ENTERING" if goal[1] > held_usd else "EXITING")

    def fill(self, pair_id, share):
        """Let part of what is working fill, and end the attempt."""
        if pair_id not in self.working:
            return
        long_venue, goal_usd = self.working.pop(pair_id)
        held_usd = self.held.get(pair_id, ("", D(0)))[1]
        traded_usd = (goal_usd - held_usd) * D(share) / 4
        pair = PAIRS[pair_id]
        for leg in (pair.a, pair.b):
            self.legs[leg.venue, leg.symbol] += traded_usd if leg.venue == long_venue else -traded_usd
            qty_base = self.legs[leg.venue, leg.symbol] / PRICES[leg.symbol]
            where = {"venue": leg.venue, "symbol": leg.symbol}
            self.hear(PositionChanged(ts_init_ns=self.now_ns, **where, qty_base=qty_base, cost=D(0)))
        self.held[pair_id] = long_venue, held_usd + traded_usd
        self.state(pair_id, "OPEN" if self.held[pair_id][1] else "IDLE")

    def state(self, pair_id, now):
        long_venue, held_usd = self.held.get(pair_id, ("", D(0)))
        pair = PAIRS[pair_id]
        short_venue = pair.a.venue if long_venue == pair.b.venue else pair.b.venue
        self.hear(
            PairStateChanged(
                ts_init_ns=self.now_ns,
                pair_id=pair_id,
                was="",
                now=now,
                long_venue=long_venue if held_usd else "",
                short_venue=short_venue if held_usd else "",
                held_base=held_usd / PRICES[pair.a.symbol],
                naked_base=D(0),
                reason="",
            )
        )

    def check(self):
        gross = {key: abs(usd) for key, usd in self.legs.items()}
        slack = D("0.001")  # USD, for what is divided by a price on the way
        assert sum(gross.values()) <= LIMITS.max_gross_x * EQUITY + slack
        for venue in VENUES:
            there = sum(usd for (at, _), usd in gross.items() if at == venue)
            assert there <= LIMITS.max_venue_gross_x * EQUITY + slack
            assert there <= LIMITS.max_leverage_x * EQUITY / 3 + slack
        for symbol in PRICES:
            assert sum(usd for (_, of), usd in gross.items() if of == symbol) <= LIMITS.max_symbol_gross_x * EQUITY + slack


pair_ids = st.sampled_from(sorted(PAIRS))
steps = st.one_of(
    st.tuples(st.just("ask"), pair_ids, st.integers(0, 70_000), st.booleans()),
    st.tuples(st.just("ask"), pair_ids, st.just(0), st.booleans()),
    st.tuples(st.just("fill"), pair_ids, st.integers(0, 4)),
    st.tuples(st.just("wait")),
)


@given(st.lists(steps, min_size=10, max_size=60))
def test_real_exposure_never_exceeds_a_limit(script):
    world = World()
    for word, *arguments in script:
        if word == "wait":
            world.now_ns += SECOND_NS
        else:
            getattr(world, word)(*arguments)
        world.check()
