"""The books to the digit: a worked day, settlements that change their clock or never come, fills of nobody."""

import json
from decimal import Decimal as D

import pytest
from msgspec.structs import replace

from fundarb.core.engine import Engine, MemoryJournal, replay
from fundarb.core.errors import Halted, InputError
from fundarb.core.events import BookUpdated, FundingMissing, FundingPaid, FundingRealised, MarginUpdated
from fundarb.core.events import MarkPriceUpdated, OrderFilled, OrderPlaced, PnlUpdated, PositionChanged
from fundarb.core.events import PositionLiquidated, TimerFired
from fundarb.core.funding import FundingKind, FundingRate, PriceBasis, funding_cash
from fundarb.core.models import Liquidity, Pair
from fundarb.core.numbers import HOUR_NS, MINUTE_NS, utc_ns
from fundarb.portfolio.attribution import as_json, attribution, held_spans, max_drawdown
from fundarb.portfolio.books import EntryKind, Ledger, book_transfer, pnl
from fundarb.portfolio.ledger import LedgerService
from fundarb.portfolio.positions import FLAT, Holding, Position, apply, average_price, money_text, unrealised
from fundarb.portfolio.positions import share_cash, share_fill
from terms import BINANCE

HYPERLIQUID = replace(
    BINANCE, venue="hyperliquid", interval_h=1, maintenance_frac=D("0.0125"), price_basis=PriceBasis.ORACLE
)
OKX = replace(BINANCE, venue="okx")
PAIR = Pair(a=BINANCE, b=HYPERLIQUID)
OTHER = Pair(a=BINANCE, b=OKX)
DEPOSITS = {"binance": D(20_000), "hyperliquid": D(20_000), "okx": D(20_000)}
DAY_NS = utc_ns("2026-03-02")


def at(clock):
    hours, minutes = clock.split(":")
    return DAY_NS + int(hours) * HOUR_NS + int(minutes) * MINUTE_NS


def placed(order_id, venue, pair=PAIR, mid="60000"):
    return OrderPlaced(
        ts_init_ns=DAY_NS,
        client_order_id=order_id,
        pair_id=pair.pair_id,
        intent_no=1,
        venue=venue,
        symbol="BTC",
        qty_base=D(1),
        limit_price=D(mid),
        reduce_only=False,
        decision_mid=D(mid),
    )


def filled(order_id, venue, clock, qty, price, fee="0", liquidity=Liquidity.TAKER, symbol="BTC", trade_id=None):
    return OrderFilled(
        ts_init_ns=at(clock),
        client_order_id=order_id,
        venue=venue,
        symbol=symbol,
        trade_id=trade_id or f"{order_id}-{clock}-{qty}",
        qty_base=D(qty),
        price=D(price),
        fee=D(fee),
        liquidity=liquidity,
        ts_event_ns=at(clock),
    )


def paid(venue, clock, qty, price, rate, heard=None, cash=None):
    amount = funding_cash(D(qty), D(price), D(rate)) if cash is None else D(cash)
    return FundingPaid(
        ts_init_ns=at(heard or clock) + 2 * 10**9,
        venue=venue,
        symbol="BTC",
        settlement_time_ns=at(clock),
        qty_base=D(qty),
        price=D(price),
        rate=D(rate),
        cash=amount,
    )


def realised(venue, clock, rate, interval_h=1, price=None):
    known_ns = at(clock) + 10**9
    funding = FundingRate(
        venue=venue,
        symbol="BTC",
        kind=FundingKind.REALISED,
        rate=D(rate),
        interval_h=interval_h,
        settlement_time_ns=at(clock),
        ts_init_ns=known_ns,
    )
    return FundingRealised(ts_init_ns=known_ns, funding=funding, price=price and D(price))


def missing(venue, clock, interval_h=1):
    return FundingMissing(
        ts_init_ns=at(clock) + 10 * MINUTE_NS,
        venue=venue,
        symbol="BTC",
        settlement_time_ns=at(clock),
        interval_h=interval_h,
    )


def marked(venue, clock, price, oracle=None):
    oracle = price if oracle is None else oracle
    return MarkPriceUpdated(
        ts_init_ns=at(clock), venue=venue, symbol="BTC", mark_price=float(price), oracle_price=float(oracle)
    )


def tick(clock, name="decision"):
    return TimerFired(ts_init_ns=at(clock), name=name)


def tell(service, *events):
    handlers = service.handlers()
    return [message for event in events for message in handlers[type(event)](event)]


def fresh(*pairs):
    return LedgerService(pairs or (PAIR,), DEPOSITS)

ORDERS = [placed(f"b{n}", "binance") for n in (1, 2, 3)] + [placed(f"h{n}", "hyperliquid") for n in (1, 2, 3)]
LEG_B = [
    filled("h1", "hyperliquid", "03:30", "-0.4", "60000", "3.60", Liquidity.MAKER),
    paid("hyperliquid", "04:00", "-0.4", "60010", "0.00002"),
    filled("h2", "hyperliquid", "04:30", "-0.6", "60050", "16.2135"),
    paid("hyperliquid", "05:00", "-1.0", "60040", "0.000018"),
    paid("hyperliquid", "06:00", "-1.0", "59980", "0.0000125"),
    paid("hyperliquid", "07:00", "-1.0", "59950", "-0.000004"),
    paid("hyperliquid", "08:00", "-1.0", "59920", "0.0000125"),
    filled("h3", "hyperliquid", "08:30", "1.0", "59900", "26.955"),
]
LEG_A = [
    filled("b1", "binance", "03:30", "0.4", "59990", "11.998"),
    filled("b2", "binance", "04:30", "0.6", "60045", "18.0135"),
    paid("binance", "08:00", "1.0", "59985", "0.00005"),
    filled("b3", "binance", "08:30", "-1.0", "59895", "29.9475"),
]


# the worked day


def test_short_leg_of_the_worked_day_to_the_digit():
    service = fresh()
    tell(service, *ORDERS, *LEG_B)
    leg = attribution(service.ledger).by_venue["hyperliquid"]
    assert (leg.price, leg.funding, leg.fees) == (D(130), D("2.819750"), D("46.768500"))
    assert leg.net == D("86.051250") == D(60030) - D(59900) - D("46.7685") + D("2.81975")


def test_short_leg_after_its_second_settlement():
    service = fresh()
    tell(service, *ORDERS, *LEG_B[:4], marked("hyperliquid", "05:01", 60030))
    holding = service.ledger.accounts["hyperliquid"].holdings["BTC"]
    assert average_price(holding.position) == D(60030)
    assert unrealised(holding.position, holding.price) == 0
    assert service.ledger.accounts["hyperliquid"].equity() - 20_000 == D("-18.252700")


def test_long_leg_of_the_worked_day_to_the_digit():
    service = fresh()
    tell(service, *ORDERS, *LEG_A[:2])
    assert average_price(service.ledger.accounts["binance"].holdings["BTC"].position) == D(60023)
    tell(service, *LEG_A[2:])
    leg = attribution(service.ledger).by_venue["binance"]
    assert (leg.price, leg.funding, leg.fees) == (D(-128), D("-2.99925"), D("59.959"))
    assert leg.net == D("-190.95825")


def test_pair_of_the_worked_day_to_the_digit():
    service = fresh()
    tell(service, *ORDERS, *LEG_A, *LEG_B)
    report = attribution(service.ledger)
    pair = report.by_pair[PAIR.pair_id]
    assert (pair.price, pair.funding, pair.fees) == (D("2.00"), D("-0.17950"), D("106.7275"))
    assert pair.net == D("-104.90700") == report.equity_end - report.equity_start
    assert pair == report.total
    assert list(report.by_pair) == [PAIR.pair_id]
    assert (report.settlements_due, report.settlements_booked, report.settlements_missing) == (6, 6, 0)
    assert report.activity.round_trips == 1


def test_every_funding_check_of_the_worked_day_agrees():
    service = fresh()
    tell(service, *ORDERS, *LEG_A, *LEG_B)
    assert [check.difference for check in service.ledger.funding_checks] == [0] * 6


def test_the_worked_day_replays_from_its_journal_entry_for_entry():
    journal = MemoryJournal()
    engine = Engine([fresh()], journal)
    for event in [*ORDERS, *LEG_A, *LEG_B, marked("binance", "09:00", 60000), tick("09:00")]:
        engine.turn(event)
    assert replay(journal.entries, [fresh()]) is None
    said = [entry.message for entry in journal.entries if entry.source == "LedgerService"]
    assert [type(message) for message in said[-4:]] == [PnlUpdated] + [MarginUpdated] * 3
    assert sum(isinstance(message, PositionChanged) for message in said) == 6


# the service


def test_books_are_not_heard():
    assert BookUpdated not in fresh().handlers()


def test_every_timer_is_answered_with_the_whole_account():
    service = fresh()
    tell(service, tick("00:30", "close"))
    assert service.ledger.equities == [(at("00:30"), D(60_000))]
    update, *margins = tell(service, tick("01:00"))
    assert update == PnlUpdated(ts_init_ns=at("01:00"), equity=D(60_000), price=D(0), funding=D(0), fees=D(0))
    assert [margin.venue for margin in margins] == ["binance", "hyperliquid", "okx"]
    assert service.ledger.equities[1:] == [(at("01:00"), D(60_000))]


def test_position_changed_says_what_is_held_after_each_fill():
    service = fresh()
    said = tell(service, *ORDERS, *LEG_B[:1], *LEG_B[2:3], *LEG_B[-1:])
    assert [(change.qty_base, change.cost) for change in said] == [
        (D("-0.4"), D(-24_000)),
        (D("-1.0"), D(-60_030)),
        (D(0), D(0)),
    ]
    assert {(change.venue, change.symbol) for change in said} == {("hyperliquid", "BTC")}
    assert said[0].ts_init_ns == at("03:30")


def test_trade_ids_are_unique_per_venue_and_not_between_venues():
    service = fresh()
    first = filled("b1", "binance", "03:30", "1", "60000", trade_id="7")
    tell(service, *ORDERS, first, first, filled("h1", "hyperliquid", "03:30", "-1", "60000", trade_id="7"))
    positions = [service.ledger.accounts[venue].holding("BTC").position for venue in DEPOSITS]
    assert [position.qty_base for position in positions] == [1, -1, 0]


def test_repeated_payment_is_booked_once_even_with_another_amount():
    service = fresh()
    first = paid("hyperliquid", "05:00", "-1", "60000", "0.00001")
    tell(service, *ORDERS, filled("h1", "hyperliquid", "03:30", "-1", "60000"), first, first)
    tell(service, replace(first, cash=D(9)))
    assert service.ledger.totals[EntryKind.FUNDING] == D("0.6")


def test_a_fill_before_any_mark_is_valued_at_its_price_and_then_at_the_mark():
    service = fresh()
    tell(service, *ORDERS, filled("b1", "binance", "03:30", "2", "60000"))
    assert service.ledger.equity() == 60_000
    tell(service, marked("binance", "03:31", 60_100.5))
    assert service.ledger.equity() == 60_201
    tell(service, filled("b2", "binance", "03:32", "-1", "60000"))
    assert service.ledger.equity() == 60_000 + 0 + D("100.5")


@pytest.mark.parametrize("price", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_mark_that_cannot_be_a_price_leaves_the_last_one(price):
    service = fresh()
    tell(service, *ORDERS, filled("b1", "binance", "03:30", "2", "60000"), marked("binance", "03:31", 60_100))
    tell(service, marked("binance", "03:32", price))
    holding = service.ledger.accounts["binance"].holdings["BTC"]
    assert (holding.mark_price, holding.oracle_price) == (60_100, 60_100)


def test_marks_of_strangers_are_ignored():
    service = fresh()
    assert tell(service, marked("bybit", "03:31", 60_100), marked("okx", "03:31", 60_100)) == []
    assert service.ledger.find("bybit", "BTC") is None


def test_liquidation_fee_and_event_are_kept_apart_from_ordinary_fees():
    service = fresh()
    seized = PositionLiquidated(
        ts_init_ns=at("05:00"), venue="hyperliquid", symbol="BTC", equity=D(700), maintenance=D(800)
    )
    forced = filled("liquidation-1", "hyperliquid", "05:00", "1.0", "63000", "75.6", Liquidity.LIQUIDATION)
    tell(service, *ORDERS, filled("h1", "hyperliquid", "03:30", "-1", "60000", "27"), seized, forced)
    report = attribution(service.ledger)
    assert service.ledger.totals[EntryKind.LIQUIDATION_FEE] == D("-75.6")
    assert report.by_pair[PAIR.pair_id].fees == D("102.6")
    assert report.by_pair[PAIR.pair_id].slippage == 0
    assert report.liquidations == 1
    assert report.activity.round_trips == 1


# the venue's account


def test_margin_is_that_of_the_account_and_not_of_its_pairs():
    service = fresh(PAIR, OTHER)
    tell(service, *ORDERS, placed("o1", "binance", OTHER))
    tell(service, filled("b1", "binance", "01:00", "1", "60000"), filled("o1", "binance", "01:00", "-0.4", "60000"))
    margin = tell(service, marked("binance", "01:01", 50_000), tick("02:00"))[1]
    assert (margin.gross, margin.maintenance) == (D(30_000), D(120))
    assert margin.equity == 20_000 - D("0.6") * 10_000
    assert tell(service, tick("03:00"))[2].maintenance == 0


def test_instrument_without_terms_requires_its_whole_notional():
    service = fresh()
    tell(service, filled("web", "okx", "01:00", "-2", "3000", symbol="ETH"))
    margin = tell(service, tick("02:00"))[3]
    assert (margin.gross, margin.maintenance) == (D(6_000), D(6_000))


def test_deposits_open_the_book():
    ledger = fresh().ledger
    assert [(entry.kind, entry.venue, entry.cash) for entry in ledger.entries] == [
        (EntryKind.DEPOSIT, venue, amount) for venue, amount in DEPOSITS.items()
    ]
    assert ledger.accounts["okx"].paid_in == ledger.accounts["okx"].wallet == 20_000


def test_pair_without_a_deposit_at_its_venue_does_not_start():
    with pytest.raises(InputError, match="no account at 'hyperliquid'"):
        LedgerService([PAIR], {"binance": D(1)})
    with pytest.raises(InputError, match="deposit at binance is -1 USD"):
        LedgerService([PAIR], {**DEPOSITS, "binance": D(-1)})


def test_pairs_may_come_as_an_iterator():
    service = LedgerService(iter([PAIR, OTHER]), DEPOSITS)
    tell(service, *ORDERS, filled("b1", "binance", "01:00", "1", "60000"))
    tell(service, filled("liq", "binance", "02:00", "-1", "60000"))
    assert service.ledger.entries[-1].pair_id == PAIR.pair_id


# settlements


def held_short():
    service = fresh()
    tell(service, *ORDERS, filled("b1", "binance", "00:30", "-1", "60000"))
    return service


def test_interval_change_mid_hold_pays_every_settlement_to_the_cent():
    """8 h until 08:00, then 4 h until 12:00, then 1 h: five payments, and the sixth never comes."""
    service = held_short()
    clock = [("08:00", 8, "0.0001"), ("12:00", 4, "0.003"), ("13:00", 1, "0.0005"), ("14:00", 1, "-0.0002")]
    for time, interval_h, rate in clock:
        tell(service, realised("binance", time, rate, interval_h), paid("binance", time, "-1", "60010.25", rate))
    tell(service, missing("binance", "15:00"), realised("binance", "16:00", "0.0001"))
    expected = D("6.001025") + D("180.03075") + D("30.005125") - D("12.00205")
    assert service.ledger.totals[EntryKind.FUNDING] == expected == D("204.03485")
    settlements = service.ledger.settlements
    assert (len(settlements.due), len(settlements.booked)) == (6, 4)
    assert settlements.missing == {("binance", "BTC", at("15:00"))}
    assert settlements.awaited == {("binance", "BTC", at("16:00"))}
    report = attribution(service.ledger)
    counts = (report.settlements_due, report.settlements_booked, report.settlements_missing)
    assert counts == (6, 4, 1)


def test_nothing_is_due_where_nothing_was_held():
    service = fresh()
    tell(service, realised("binance", "00:00", "0.0001"), missing("binance", "01:00"))
    tell(service, realised("bybit", "00:00", "0.0001"), missing("bybit", "01:00"))
    assert not service.ledger.settlements.due and not service.ledger.settlements.missing


@pytest.mark.parametrize(("clock", "due"), [("04:59", 1), ("05:00", 0), ("05:01", 0)])
def test_opened_at_the_instant_is_too_late_for_its_settlement(clock, due):
    service = fresh()
    tell(service, *ORDERS, filled("h1", "hyperliquid", clock, "-1", "60000"))
    tell(service, realised("hyperliquid", "05:00", "0.0001"), missing("hyperliquid", "05:00"))
    assert len(service.ledger.settlements.due) == len(service.ledger.settlements.missing) == due


@pytest.mark.parametrize(("clock", "due"), [("04:59", 0), ("05:00", 1), ("05:01", 1)])
def test_closed_at_the_instant_is_still_charged(clock, due):
    service = fresh()
    tell(service, *ORDERS, filled("h1", "hyperliquid", "03:00", "-1", "60000"))
    tell(service, filled("h2", "hyperliquid", clock, "1", "60000"), realised("hyperliquid", "05:00", "0.0001"))
    assert len(service.ledger.settlements.due) == due


def test_a_flipped_position_is_paid_for_what_it_was():
    service = fresh()
    tell(service, *ORDERS, filled("b1", "binance", "07:00", "-1", "60000"))
    tell(service, filled("b2", "binance", "08:01", "3", "60000"))
    tell(service, paid("binance", "08:00", "-1", "60000", "0.0001", heard="08:05"))
    check = service.ledger.funding_checks[0]
    assert (check.qty_base, check.expected, check.difference) == (-1, 6, 0)


def test_payment_before_its_rate_counts_once():
    service = held_short()
    tell(service, paid("binance", "08:00", "-1", "60000", "0.0001"), realised("binance", "08:00", "0.0001", 8))
    settlements = service.ledger.settlements
    assert (len(settlements.due), len(settlements.booked), len(settlements.awaited)) == (1, 1, 0)


def test_payment_that_was_missing_and_comes_late_is_booked_and_no_longer_missing():
    service = held_short()
    tell(service, missing("binance", "08:00"), paid("binance", "08:00", "-1", "60000", "0.0001", heard="09:00"))
    tell(service, missing("binance", "08:00"))
    settlements = service.ledger.settlements
    assert (len(settlements.due), len(settlements.booked), len(settlements.missing)) == (1, 1, 0)
    assert service.ledger.totals[EntryKind.FUNDING] == 6


def test_payment_that_nobody_expected_is_booked_to_nobody():
    service = fresh()
    tell(service, paid("binance", "08:00", "0", "60000", "0.0001", cash="-0.5"))
    report = attribution(service.ledger)
    assert report.by_pair[""].funding == D("-0.5")
    assert (report.settlements_due, report.settlements_booked) == (0, 1)
    assert service.ledger.funding_checks[0].difference == D("-0.5")


def test_check_compares_with_the_published_rate_and_our_quantity():
    service = held_short()
    tell(service, realised("binance", "08:00", "0.0001", 8), paid("binance", "08:00", "-0.9", "60000", "0.0002"))
    check = service.ledger.funding_checks[0]
    assert (check.qty_base, check.rate, check.expected) == (-1, D("0.0001"), 6)
    assert (check.reported, check.difference) == (D("10.8"), D("4.8"))
    assert service.ledger.totals[EntryKind.FUNDING] == D("10.8")


def test_funding_is_divided_by_what_the_pairs_held_then_and_not_now():
    service = fresh(PAIR, OTHER)
    tell(service, *ORDERS, placed("o1", "binance", OTHER), placed("o2", "binance", OTHER))
    tell(service, filled("b1", "binance", "07:00", "2", "60000"), filled("o1", "binance", "07:00", "1", "60000"))
    tell(service, filled("b2", "binance", "08:01", "-2", "60000"), filled("o2", "binance", "08:02", "4", "60000"))
    tell(service, paid("binance", "08:00", "3", "60000", "0.0001", cash="-10", heard="08:05"))
    report = attribution(service.ledger)
    assert report.by_pair[PAIR.pair_id].funding == D("-6.666666666667")
    assert report.by_pair[OTHER.pair_id].funding == D("-3.333333333333")
    assert report.total.funding == -10


def test_pairs_that_hold_each_other_pay_each_other_at_the_venues_price():
    service = fresh(PAIR, OTHER)
    tell(service, *ORDERS, placed("o1", "hyperliquid"), placed("o2", "binance", OTHER))
    tell(service, filled("b1", "binance", "07:00", "2", "60000"), filled("o2", "binance", "07:00", "-2", "60000"))
    event = realised("binance", "08:00", "0.0001", 8, price="60010")
    tell(service, event, event)
    report = attribution(service.ledger)
    assert report.by_pair[PAIR.pair_id].funding == D("-12.002")
    assert report.by_pair[OTHER.pair_id].funding == D("12.002")
    assert report.total.funding == 0
    assert report.settlements_due == 0


def test_netted_settlement_without_a_price_takes_mark_or_oracle_as_the_venue_does():
    third = Pair(a=HYPERLIQUID, b=OKX)
    service = fresh(PAIR, third)
    tell(service, *ORDERS, placed("t1", "hyperliquid", third))
    tell(service, filled("h1", "hyperliquid", "03:00", "-1", "60000"))
    tell(service, filled("t1", "hyperliquid", "03:00", "1", "60000"))
    tell(service, realised("hyperliquid", "03:00", "0.01"))  # opened at the instant
    tell(service, realised("hyperliquid", "04:00", "0.0001"))
    tell(service, marked("hyperliquid", "04:30", 60_100, oracle=60_200), realised("hyperliquid", "05:00", "0.0001"))
    cash = [entry.cash for entry in service.ledger.entries if entry.pair_id == PAIR.pair_id][-2:]
    assert cash == [D(6), D("6.02")]


# fills of nobody


def test_foreign_fill_takes_pairs_in_their_configured_order():
    """The second pair opened first; the first in the settings is still the first to lose."""
    service = fresh(PAIR, OTHER)
    tell(service, *ORDERS, placed("o1", "binance", OTHER), filled("o1", "binance", "01:00", "2", "60000"))
    tell(service, filled("b1", "binance", "02:00", "1", "60000"))
    tell(service, filled("adl", "binance", "03:00", "-1.5", "61000", "9"))
    booked = service.ledger.entries[-4:]
    assert [entry.pair_id for entry in booked] == [PAIR.pair_id, OTHER.pair_id] * 2
    assert [entry.qty_base for entry in booked[:2]] == [D(-1), D("-0.5")]
    assert [entry.cash for entry in booked[2:]] == [D(-6), D(-3)]
    assert [entry.slippage for entry in booked] == [0] * 4


def test_foreign_fill_beyond_what_is_held_is_unassigned_and_accounted_for():
    service = fresh()
    tell(service, *ORDERS, filled("b1", "binance", "01:00", "1", "60000"))
    change = tell(service, filled("web", "binance", "02:00", "-3", "60000", "90"))[0]
    tell(service, marked("binance", "02:01", 59_000), tick("03:00"))
    report = attribution(service.ledger)
    assert (change.qty_base, change.cost) == (-2, -120_000)
    assert (report.by_pair[""].price, report.by_pair[""].fees) == (2_000, 60)
    assert (report.by_pair[PAIR.pair_id].price, report.by_pair[PAIR.pair_id].fees) == (0, 30)
    assert report.activity_by_pair.keys() == {PAIR.pair_id}


def test_two_foreign_fills_that_cancel_leave_nobody_with_anything():
    service = fresh()
    tell(service, filled("web-1", "okx", "01:00", "1", "60000"), filled("web-2", "okx", "01:01", "-1", "60010"))
    assert service.ledger.accounts["okx"].holdings["BTC"].by_pair == {}
    assert attribution(service.ledger).by_pair[""].net == 10


def test_fill_at_a_venue_without_account_is_refused():
    with pytest.raises(InputError, match="no account at 'bybit'"):
        tell(fresh(), filled("x", "bybit", "01:00", "1", "60000"))


# the check


def test_wallet_off_by_a_cash_unit_halts_at_the_next_decision():
    service = fresh()
    tell(service, *ORDERS, *LEG_A, *LEG_B)
    service.ledger.accounts["okx"].wallet += D("1E-12")
    with pytest.raises(Halted, match="59895.093 and 59895.093000000001, -0.000000000001 apart"):
        tell(service, tick("09:00"))


def test_pair_that_lost_a_lot_halts_by_name():
    service = fresh()
    tell(service, *ORDERS, *LEG_A[:1])
    holding = service.ledger.accounts["binance"].holdings["BTC"]
    holding.by_pair[PAIR.pair_id] = Position(D("0.399"), holding.position.cost)
    with pytest.raises(Halted, match=r"binance BTC: base units of pairs and account: 0\.399 and 0\.4, -0\.001 apart"):
        tell(service, tick("09:00"))


def test_pair_that_vanished_halts_too():
    service = fresh()
    tell(service, *ORDERS, *LEG_A[:1])
    service.ledger.accounts["binance"].holdings["BTC"].by_pair.clear()
    with pytest.raises(Halted, match="base units"):
        tell(service, tick("09:00"))


def test_money_moved_between_venues_without_a_line_halts_the_report():
    """The sum is right, so only the venues can notice."""
    service = fresh()
    tell(service, *ORDERS, *LEG_A, *LEG_B)
    service.ledger.accounts["binance"].wallet += 1
    service.ledger.accounts["okx"].wallet -= 1
    pnl(service.ledger, 0)
    with pytest.raises(Halted, match="binance: net and change in equity: -190.95825 and -189.95825, -1 apart"):
        attribution(service.ledger)


def test_line_that_is_not_in_the_running_sums_halts_the_report():
    service = fresh()
    tell(service, *ORDERS, *LEG_A, *LEG_B)
    fee = next(n for n, entry in enumerate(service.ledger.entries) if entry.kind is EntryKind.FEE)
    service.ledger.entries[fee] = replace(service.ledger.entries[fee], kind=EntryKind.FUNDING)
    with pytest.raises(Halted, match="funding of all pairs and of the session"):
        attribution(service.ledger)


def test_deposit_that_is_not_paid_in_halts_the_report():
    service = fresh()
    service.ledger.accounts["binance"].paid_in -= 5
    with pytest.raises(Halted, match="binance: net and change in equity: 0 and 5, -5 apart"):
        attribution(service.ledger)


# the report


def test_transfer_is_profit_of_nobody_and_its_fee_is_a_fee():
    service = fresh()
    tell(service, *ORDERS, *LEG_A, *LEG_B)
    book_transfer(service.ledger, at("09:00"), "hyperliquid", "binance", D(1_000), D(1))
    report = attribution(service.ledger)
    assert report.equity_start == 60_000
    assert report.by_pair[""].net == -1 == report.by_venue["hyperliquid"].net - D("86.05125")
    assert report.by_venue["binance"].net == D("-190.95825")
    assert report.equity_end == 60_000 - D("104.907") - 1


def test_report_of_an_empty_session():
    report = attribution(fresh().ledger)
    assert (report.total.net, report.by_pair, report.session_h, report.activity.in_market_frac) == (0, {}, 0.0, 0.0)
    assert report.equity_start == report.equity_end == 60_000
    assert (report.max_drawdown_usd, report.max_drawdown_frac) == (0, 0.0)
    assert report.by_venue.keys() == DEPOSITS.keys()


def test_session_is_measured_from_the_first_event_heard_to_the_last():
    service = fresh()
    tell(service, marked("okx", "01:00", 60_000), *ORDERS, *LEG_A[:1], *LEG_A[3:], tick("11:00"))
    report = attribution(service.ledger)
    assert report.session_h == 10.0
    assert report.activity.held_h == 7.5  # -0.6 is held from 08:30 on
    assert report.activity.in_market_frac == 0.75
    assert report.activity.round_trips == 0


def test_time_in_market_of_overlapping_pairs_is_not_counted_twice():
    service = fresh(PAIR, OTHER)
    orders = [placed("o1", "okx", OTHER), placed("o2", "okx", OTHER)]
    tell(service, tick("00:00"), *ORDERS, *orders)
    tell(service, filled("b1", "binance", "01:00", "1", "60000"), filled("o1", "okx", "02:00", "1", "60000"))
    tell(service, filled("b2", "binance", "05:00", "-1", "60000"), filled("o2", "okx", "04:00", "-1", "60000"))
    tell(service, tick("10:00"))
    report = attribution(service.ledger)
    assert (report.activity.held_h, report.activity.round_trips) == (4.0, 2)
    assert {name: a.held_h for name, a in report.activity_by_pair.items()} == {PAIR.pair_id: 4.0, OTHER.pair_id: 2.0}


def test_turning_around_without_being_flat_is_one_round_trip():
    service = fresh()
    tell(service, *ORDERS, filled("b1", "binance", "01:00", "1", "60000"))
    tell(service, filled("b2", "binance", "02:00", "-2", "60000"), filled("b3", "binance", "03:00", "1", "60000"))
    assert held_spans(service.ledger.entries) == {PAIR.pair_id: [(at("01:00"), at("03:00"))]}


def test_open_leg_on_either_venue_holds_the_pair():
    service = fresh()
    tell(service, *ORDERS, filled("b1", "binance", "01:00", "1", "60000"))
    tell(service, filled("h1", "hyperliquid", "01:30", "-1", "60000"))
    tell(service, filled("b2", "binance", "02:00", "-1", "60000"), filled("h2", "hyperliquid", "03:00", "1", "60000"))
    tell(service, filled("b3", "binance", "04:00", "1", "60000"))
    assert held_spans(service.ledger.entries) == {PAIR.pair_id: [(at("01:00"), at("03:00")), (at("04:00"), None)]}


def test_drawdown_counts_what_was_lost_after_the_last_decision():
    service = fresh()
    tell(service, tick("01:00"), *ORDERS, filled("b1", "binance", "01:30", "1", "60000", "600"))
    report = attribution(service.ledger)
    assert (report.max_drawdown_usd, report.max_drawdown_frac) == (600, 0.01)


def test_drawdown_in_money_and_in_parts_may_be_different_falls():
    assert max_drawdown([D(100), D(50), D(1_000), D(900)]) == (D(100), 0.5)
    assert max_drawdown([D(0), D(-5)]) == (D(5), 0.0)


def test_report_as_json_has_money_as_plain_text():
    service = fresh()
    tell(service, *ORDERS, *LEG_A, *LEG_B, tick("09:00"))
    plain = as_json(attribution(service.ledger))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["total"] == {
        "price": "2",
        "slippage": "-2",
        "funding": "-0.1795",
        "fees": "106.7275",
        "net": "-104.907",
    }
    assert plain["equity_start"] == "60000"
    assert plain["activity"]["round_trips"] == 1
    assert "e" not in "".join(plain["by_venue"]["binance"].values()).lower()


def test_slippage_is_against_the_mid_of_the_order():
    service = fresh()
    tell(service, placed("b1", "binance", mid="60010"), filled("b1", "binance", "01:00", "0.5", "60013"))
    tell(service, placed("h1", "hyperliquid", mid="60020"), filled("h1", "hyperliquid", "01:00", "-0.5", "60016"))
    report = attribution(service.ledger)
    assert report.by_venue["binance"].slippage == D("1.5")
    assert report.by_venue["hyperliquid"].slippage == D(2)
    assert report.total.net == 0  # valued at the fills: slippage is inside price, and in nothing else


# the parts


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0"), ("-0.000", "0"), ("1E-12", "0.000000000001"), ("1E+3", "1000"), ("-10.50", "-10.5"), ("100", "100")],
)
def test_money_text_is_plain(amount, text):
    assert money_text(D(amount)) == text


def test_apply_knows_every_way_a_fill_can_meet_a_position():
    long = Position(D(2), D(200))
    assert apply(FLAT, D(2), D(100)) == (long, 0)
    assert apply(long, D(2), D(110)) == (Position(D(4), D(420)), 0)
    assert apply(long, D(-1), D(110)) == (Position(D(1), D(100)), 10)
    assert apply(long, D(-2), D(110)) == (FLAT, 20)
    assert apply(long, D(-3), D(110)) == (Position(D(-1), D(-110)), 20)
    assert apply(long, D(0), D(110)) == (long, 0)
    assert apply(FLAT, D(0), D(110)) == (FLAT, 0)
    short = Position(D(-2), D(-200))
    assert apply(short, D(-2), D(110)) == (Position(D(-4), D(-420)), 0)
    assert apply(short, D(1), D(110)) == (Position(D(-1), D(-100)), -10)
    assert apply(short, D(3), D(110)) == (Position(D(1), D(110)), -20)


def test_shares_of_cash_add_up_and_follow_signs():
    assert share_cash(D(1), {"a": D(2), "b": D(1)}) == {"a": D("0.666666666667"), "b": D("0.333333333333")}
    assert share_cash(D(1), {"a": D(2), "b": D(-1)}) == {"a": 2, "b": -1}
    assert share_cash(D(1), {}) == {"": 1}


def test_shares_of_a_fill_never_reverse_an_owner():
    assert share_fill(D(-5), {"a": D(2), "": D(9), "b": D(-1)}) == {"a": -2, "": -3}
    assert share_fill(D(5), {"a": D(-2), "b": D(-4)}) == {"a": 2, "b": 3}
    assert share_fill(D(5), {}) == {"": 5}
    assert share_fill(D(0), {"a": D(1)}) == {}


def test_held_at_an_instant_survives_fills_heard_out_of_order():
    holding = Holding(BINANCE)
    for clock, qty in (("03:00", 1), ("05:00", 2), ("04:00", -3), ("05:00", 5)):
        holding.book("p", D(qty), D(100), at(clock))
    held = {clock: holding.held_at(at(clock)).get("p", 0) for clock in ("03:00", "04:00", "04:30", "05:00", "06:00")}
    assert held == {"03:00": 0, "04:00": 1, "04:30": -2, "05:00": -2, "06:00": 5}


def test_ledger_finds_only_what_exists():
    ledger = Ledger([PAIR], DEPOSITS)
    assert ledger.find("okx", "BTC") is None and ledger.find("bybit", "BTC") is None
    assert ledger.find("binance", "BTC").instrument is BINANCE
