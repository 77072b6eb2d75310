"""Whatever is traded, moved and paid on cross and isolated margin, the parts of an account add up to the whole."""

from decimal import Decimal as D

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from terms import BINANCE

from fundarb.core.events import (
    BookUpdated,
    FundingPaid,
    FundingRealised,
    MarkPriceUpdated,
    OrderFilled,
    PositionLiquidated,
    SubmitOrder,
)
from fundarb.core.funding import FundingKind, FundingRate
from fundarb.core.models import Level
from fundarb.core.numbers import HOUR_NS, to_cash, utc_ns
from fundarb.exchanges.margin_transfers import cross_spare, in_the_way, own_spare, set_isolated, transfer
from fundarb.exchanges.simulated_account import Account, margin, own_margin, whole_equity
from fundarb.exchanges.simulated_forces import move
from fundarb.exchanges.simulated_venue import NoFaults, SimulatedVenue
from fundarb.portfolio.positions import FLAT, apply, unrealised

T = utc_ns("2026-03-02T08:00Z")
COINS = ("BTC", "ETH")


def terms(symbol):
    """Hourly funding, a high maintenance margin and no smallest notional, so that all of it happens often."""
    often = {"interval_h": 1, "rate_cap": D("0.04"), "maintenance_frac": D("0.0125"), "min_notional_usd": D(0)}
    return replace(BINANCE, venue="v", symbol=symbol, venue_symbol=symbol, **often)


coin, LOTS = st.sampled_from(COINS), st.integers(-4_000, 4_000).filter(bool)
STEPS = st.one_of(
    st.tuples(st.just("trade"), coin, LOTS),
    st.tuples(st.just("price"), coin, st.integers(600, 1_500)),
    st.tuples(st.just("mode"), coin, st.booleans()),
    st.tuples(st.just("leverage"), coin, st.integers(1, 20)),
    st.tuples(st.just("margin"), coin, st.integers(-300, 300).filter(bool)),
    st.tuples(st.just("funding"), coin, st.integers(-400, 400)),
)


class Bench:
    """One venue, and beside it books that are kept from its reports alone."""

    def __init__(self):
        self.account = Account([terms(symbol) for symbol in COINS], D(1_000))
        self.venue = SimulatedVenue(self.account)
        self.now_ns, self.orders = T, 0
        self.positions, self.cross, self.own, self.ends = {}, D(1_000), {}, []
        for symbol in COINS:
            self.price(symbol, 1_000)

    def price(self, symbol, price):
        book = BookUpdated(
            ts_init_ns=self.now_ns,
            venue="v",
            symbol=symbol,
            bids=(Level(price - 0.5, 10.0),),
            asks=(Level(price + 0.5, 10.0),),
        )
        self.hear(self.venue.on_book(book, self.now_ns))
        said = {"mark_price": float(price), "oracle_price": float(price)}
        mark = MarkPriceUpdated(ts_init_ns=self.now_ns, venue="v", symbol=symbol, **said)
        self.hear(move(self.account, mark, self.now_ns))

    def trade(self, symbol, lots):
        self.orders += 1
        order = SubmitOrder(
            ts_init_ns=self.now_ns,
            client_order_id=f"o-{self.orders}",
            venue="v",
            symbol=symbol,
            qty_base=D(lots) / 1_000,
            limit_price=D(2_000) if lots > 0 else D(1),
            reduce_only=False,
        )
        self.hear(self.venue.execute(order, NoFaults.ordinary, self.now_ns, self.now_ns))

    def mode(self, symbol, isolated):
        if not in_the_way(self.account, symbol):
            set_isolated(self.account, symbol, isolated)

    def leverage(self, symbol, leverage):
        self.account.leverage[symbol] = D(leverage)

    def margin(self, symbol, cash):
        if symbol not in self.own:
            return
        spare = cross_spare(self.account) if cash > 0 else own_spare(self.account, symbol)
        if transfer(self.account, symbol, D(cash), self.now_ns, spare):
            self.own[symbol] += cash
            self.cross -= cash
            giver = margin(self.account) if cash > 0 else own_margin(self.account, symbol)
            assert giver.equity >= giver.initial  # nobody gives what he must have

    def funding(self, symbol, rate):
        told = {"kind": FundingKind.REALISED, "interval_h": 1, "ts_init_ns": self.now_ns}
        about = {"venue": "v", "symbol": symbol, "rate": D(rate) / 10_000, "settlement_time_ns": self.now_ns}
        event = FundingRealised(ts_init_ns=self.now_ns, funding=FundingRate(**about, **told), price=None)
        self.hear(move(self.account, event, self.now_ns))

    def hear(self, reports):
        for report in reports:
            if isinstance(report, OrderFilled):
                assert report.fee >= 0
                self.fill(report)
            elif isinstance(report, PositionLiquidated):
                self.ends.append(report)
            elif isinstance(report, FundingPaid):
                if report.symbol in self.own:
                    self.own[report.symbol] += report.cash
                else:
                    self.cross += report.cash

    def fill(self, fill):
        symbol, was = fill.symbol, self.positions.get(fill.symbol, FLAT)
        now, realised = apply(was, fill.qty_base, fill.price)
        self.positions[symbol] = now
        self.cross += realised - fill.fee
        if symbol not in self.account.isolated.coins and symbol not in self.own:
            return
        had, leverage = self.own.pop(symbol, D(0)), self.account.leverage_of(symbol)
        closed_base = min(abs(was.qty_base), abs(fill.qty_base)) if was.qty_base * fill.qty_base < 0 else D(0)
        opened_base = abs(fill.qty_base) - closed_base
        keeps = had * (1 - closed_base / abs(was.qty_base)) if closed_base else had
        has = to_cash(keeps + opened_base * fill.price / leverage)
        self.cross += had - has
        if now.qty_base:
            self.own[symbol] = has


def near(one, other):
    return abs(one - other) < D("1e-9")  # shares of a position are rounded to the cash unit


@given(st.tuples(st.booleans(), st.booleans()), st.tuples(LOTS, LOTS), st.lists(STEPS, max_size=30))
def test_the_parts_add_up_to_the_whole(isolated, first, steps):
    bench = Bench()
    account = bench.account
    begins = [("mode", symbol, mode) for symbol, mode in zip(COINS, isolated, strict=True)]
    begins += [("trade", symbol, lots) for symbol, lots in zip(COINS, first, strict=True)]
    for kind, symbol, amount in begins + steps:
        bench.now_ns += HOUR_NS
        others = {name: own_margin(account, name).equity for name in account.isolated.own if name != symbol}
        cross, was_own = margin(account).equity, symbol in account.isolated.own
        ended = len(bench.ends)
        getattr(bench, kind)(symbol, amount)

        held = {name: position for name, position in account.positions.items()}
        assert held == {name: position for name, position in bench.positions.items() if position.qty_base}
        assert set(account.isolated.own) == set(bench.own) <= set(held)
        assert all(near(account.isolated.own[name], bench.own[name]) for name in bench.own)
        assert near(account.wallet - account.isolated.total, bench.cross)
        assert account.isolated.total == sum((move.cash for move in account.isolated.moves), D(0))

        marks = {name: D(str(account.marks[name].latest.mark_price)) for name in COINS}
        parts = [margin(account).equity, *(own_margin(account, name).equity for name in account.isolated.own)]
        profits = [unrealised(position, marks[name]) for name, position in held.items()]
        assert sum(parts) == account.wallet + sum(profits, D(0)) == whole_equity(account)

        if was_own and kind in ("price", "funding"):  # whatever it lost, nobody else has noticed
            assert {name: own_margin(account, name).equity for name in others} == others
            assert margin(account).equity >= cross
            assert symbol in held or len(bench.ends) > ended
