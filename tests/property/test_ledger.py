"""The books balance to the last digit, whatever fills, fees, payments and marks they are given."""

from collections import defaultdict
from decimal import Decimal as D
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from fundarb.core.engine import Engine, MemoryJournal, inputs_of
from fundarb.core.events import FundingPaid, FundingRealised, MarkPriceUpdated, OrderFilled, OrderPlaced
from fundarb.core.events import TimerFired, decode, encode
from fundarb.core.funding import FundingKind, FundingRate, funding_cash
from fundarb.core.models import Liquidity, Pair
from fundarb.core.numbers import HOUR_NS, SECOND_NS, utc_ns
from fundarb.portfolio.attribution import attribution
from fundarb.portfolio.books import EntryKind, book_transfer
from fundarb.portfolio.ledger import LedgerService
from fundarb.portfolio.positions import FLAT, apply, market_value, share_cash, share_fill, unrealised

from terms import BINANCE as TERMS

START_NS = utc_ns("2026-03-02")
VENUES = ("binance", "hyperliquid", "okx")
LEGS = {venue: replace(TERMS, venue=venue) for venue in VENUES}
PAIRS = [Pair(a=LEGS[a], b=LEGS[b]) for a, b in (VENUES[:2], VENUES[1:], VENUES[::2])]
DEPOSITS = dict.fromkeys(VENUES, D(100_000))

lots = st.integers(-400, 400).filter(bool).map(lambda n: n * D("0.001"))
prices = st.integers(30_000_00, 90_000_00).map(lambda n: n * D("0.01"))
fees = st.integers(-1_000_000, 9_000_000).map(lambda n: n * D("0.000001"))
cash = st.integers(-(10**10), 10**10).map(lambda n: n * D("0.00000001"))
rates = st.integers(-40_000, 40_000).map(lambda n: n * D("0.0000001"))  # so that payments need no rounding
rough_marks = st.floats(30_000, 90_000)
tidy_marks = prices.map(float)


def order(n, pair, venue, mid):
    return OrderPlaced(
        ts_init_ns=START_NS,
        client_order_id=f"o{n}",
        pair_id=pair.pair_id,
        intent_no=n,
        venue=venue,
        symbol="BTC",
        qty_base=D(1),
        limit_price=mid,
        reduce_only=False,
        decision_mid=mid,
    )


def fill(n, venue, at_ns, qty, price, fee=D(0), order_no=None, trade=None):
    return OrderFilled(
        ts_init_ns=at_ns,
        client_order_id=f"o{n if order_no is None else order_no}",
        venue=venue,
        symbol="BTC",
        trade_id=trade or f"t{n}",
        qty_base=qty,
        price=price,
        fee=fee,
        liquidity=Liquidity.TAKER,
        ts_event_ns=at_ns,
    )


def mark(venue, at_ns, price):
    return MarkPriceUpdated(ts_init_ns=at_ns, venue=venue, symbol="BTC", mark_price=price, oracle_price=price)


def payment(venue, settlement_ns, at_ns, qty, price, rate, amount=None):
    return FundingPaid(
        ts_init_ns=at_ns,
        venue=venue,
        symbol="BTC",
        settlement_time_ns=settlement_ns,
        qty_base=qty,
        price=price,
        rate=rate,
        cash=funding_cash(qty, price, rate) if amount is None else amount,
    )


def published(venue, settlement_ns, at_ns, rate, price):
    known = FundingRate(
        venue=venue,
        symbol="BTC",
        kind=FundingKind.REALISED,
        rate=rate,
        interval_h=1,
        settlement_time_ns=settlement_ns,
        ts_init_ns=at_ns,
    )
    return FundingRealised(ts_init_ns=at_ns, funding=known, price=price)


@st.composite
def sessions(draw, marks=tidy_marks, foreign=True, size=16):
    """Draw the events of a session on three venues whose three pairs share every instrument."""
    events, now_ns = [], START_NS + HOUR_NS
    kinds = ["fill", "fill", "fill", "paid", "published", "mark", "tick"] + ["foreign"] * foreign
    for n in range(draw(st.integers(1, size))):
        now_ns += draw(st.integers(1, 3 * HOUR_NS))
        kind, pair = draw(st.sampled_from(kinds)), draw(st.sampled_from(PAIRS))
        venue = draw(st.sampled_from([pair.a.venue, pair.b.venue]))
        settled_ns = now_ns // HOUR_NS * HOUR_NS
        if kind == "fill":
            events.append(order(n, pair, venue, draw(prices)))
        if kind in ("fill", "foreign"):
            events.append(fill(n, venue, now_ns, draw(lots), draw(prices), draw(fees)))
        elif kind == "paid":
            price, rate = draw(prices), draw(rates)
            events.append(payment(venue, settled_ns, now_ns, D(0), price, rate, draw(cash)))
        elif kind == "published":
            at_ns = max(now_ns, settled_ns)
            events.append(published(venue, settled_ns, at_ns, draw(rates), draw(st.none() | prices)))
        elif kind == "mark":
            events.append(mark(venue, now_ns, draw(marks)))
        else:
            events.append(TimerFired(ts_init_ns=now_ns, name="decision"))
    return events


def tell(events, service=None):
    service = service or LedgerService(PAIRS, DEPOSITS)
    handlers = service.handlers()
    for event in events:
        list(handlers[type(event)](event))
    return service.ledger


def fills_of(events, venue):
    return [e for e in events if isinstance(e, OrderFilled) and e.venue == venue]


def payments_of(events, venue):
    first = {}
    for e in events:
        if isinstance(e, FundingPaid) and e.venue == venue:
            first.setdefault(e.settlement_time_ns, e)
    return list(first.values())


# the identity


@given(sessions())
def test_equity_is_what_the_events_add_up_to(events):
    """I1, I2, I3, I11: positions, wallets and equity against plain sums over the events, exactly."""
    ledger = tell(events)
    for venue in VENUES:
        account, fills = ledger.accounts[venue], fills_of(events, venue)
        holding = account.holding("BTC")
        held = sum((e.qty_base for e in fills), D(0))
        assert holding.position.qty_base == held
        assert sum((part.qty_base for part in holding.by_pair.values()), D(0)) == held
        spent = sum((e.qty_base * e.price for e in fills), D(0))
        flows = sum((e.cash for e in payments_of(events, venue)), D(0)) - sum((e.fee for e in fills), D(0))
        assert account.equity() == 100_000 - spent + held * holding.price + flows
        assert account.equity() == account.wallet + unrealised(holding.position, holding.price)
        position, realised = FLAT, D(0)
        for e in fills:
            position, profit = apply(position, e.qty_base, e.price)
            realised += profit
        assert account.wallet == 100_000 + realised + flows


@given(sessions(marks=rough_marks, size=24))
def test_report_adds_up_whatever_the_digits_of_the_marks(events):
    """Price + funding - fees is the change in equity: in total, by venue, and over the pairs."""
    ledger = tell(events)
    report = attribution(ledger)
    for parts in (report.total, *report.by_venue.values(), *report.by_pair.values()):
        assert parts.net == parts.price + parts.funding - parts.fees
    assert report.equity_end - report.equity_start == report.total.net
    for name in ("price", "slippage", "funding", "fees", "net"):
        for rows in (report.by_pair, report.by_venue):
            assert sum((getattr(parts, name) for parts in rows.values()), D(0)) == getattr(report.total, name)
    for venue, account in ledger.accounts.items():
        assert report.by_venue[venue].net == account.equity() - 100_000


@given(sessions())
def test_book_and_wallets_are_two_views_of_one_thing(events):
    """The lines of a venue, with what its position cost, are its wallet; the sums are those of the lines."""
    ledger = tell(events)
    for venue, account in ledger.accounts.items():
        lines = sum((entry.cash for entry in ledger.entries if entry.venue == venue), D(0))
        assert lines + account.holding("BTC").position.cost == account.wallet
    for kind in EntryKind:
        assert ledger.totals[kind] == sum((e.cash for e in ledger.entries if e.kind is kind), D(0))


# positions


def matched(fills, last_in_first_out):
    """Match lots one against another, in exact fractions: realised profit, and the lots left."""
    held, realised = [], Fraction(0)
    for qty, price in fills:
        left = Fraction(qty)
        while left and held and held[0][0] * left < 0:
            n = -1 if last_in_first_out else 0
            lot_qty, lot_price = held[n]
            closed = min(abs(lot_qty), abs(left)) * (1 if lot_qty > 0 else -1)
            realised += closed * (Fraction(price) - lot_price)
            left += closed
            held[n] = (lot_qty - closed, lot_price)
            if not held[n][0]:
                held.pop(n)
        if left:
            held.append((left, Fraction(price)))
    return realised, held


@given(st.lists(st.tuples(lots, prices), max_size=30), prices)
def test_profit_does_not_depend_on_the_cost_method(fills, last):
    """I4: average, first in first out, last in first out, and no method at all: one total, exactly."""
    position, realised = FLAT, D(0)
    for qty, price in fills:
        position, profit = apply(position, qty, price)
        realised += profit
    ours = Fraction(realised + unrealised(position, last))
    for last_in_first_out in (False, True):
        banked, held = matched(fills, last_in_first_out)
        assert ours == banked + sum(qty * (Fraction(last) - price) for qty, price in held)
    assert ours == sum(Fraction(qty) * (Fraction(last) - Fraction(price)) for qty, price in fills)


@given(st.lists(st.tuples(lots, prices), max_size=30))
def test_position_is_cost_of_one_side_only(fills):
    """The cost has the sign of the quantity, a flat position has none, and only reductions realise."""
    position = FLAT
    for qty, price in fills:
        was = position
        position, profit = apply(was, qty, price)
        assert position.qty_base == was.qty_base + qty
        assert position.cost * position.qty_base > 0 or position == FLAT
        assert profit == 0 or was.qty_base * qty < 0
        assert position.cost == was.cost + qty * price + profit


@given(lots, prices, st.lists(st.integers(1, 9), min_size=1, max_size=6), st.tuples(lots, prices), prices)
def test_splitting_a_fill_at_one_price_changes_nothing(qty, price, weights, before, last):
    """I15: cost may differ by the roundings of the partial closes, profit in all does not."""
    start, _ = apply(FLAT, *before)
    whole, realised = apply(start, qty, price)
    parts, split, unit = D(0), start, qty / sum(weights)
    pieces = [(unit * weight).quantize(D("1E-8")) for weight in weights[:-1]]
    for piece in [*pieces, qty - sum(pieces)]:
        split, profit = apply(split, piece, price)
        parts += profit
    assert split.qty_base == whole.qty_base
    assert abs(split.cost - whole.cost) <= len(weights) * D("1E-12")
    assert parts + unrealised(split, last) == realised + unrealised(whole, last)


@given(cash, st.dictionaries(st.sampled_from("abcdef"), lots, max_size=6))
def test_shares_of_cash_add_up(amount, weights):
    assert sum(share_cash(amount, weights).values()) == amount


@given(lots, st.dictionaries(st.sampled_from(["", *"abcdef"]), lots, max_size=7))
def test_shares_of_a_fill_add_up_and_only_close(qty, held):
    parts = share_fill(qty, held)
    assert sum(parts.values()) == qty
    for owner in parts.keys() - {""}:
        assert held[owner] * parts[owner] < 0 and abs(parts[owner]) <= abs(held[owner])
    if "" in parts:  # somebody still holding against the fill would have had to close first
        rest = {owner: held[owner] + parts.get(owner, 0) for owner in held if owner}
        assert all(left * qty >= 0 for left in rest.values())


# funding


@given(st.lists(st.tuples(lots, st.integers(0, 4 * HOUR_NS)), min_size=1, max_size=12), prices, rates)
def test_payment_is_expected_on_what_was_held_just_before_the_settlement(fills, price, rate):
    """I5: our expectation is -quantity * price * rate with fills stamped before the instant, in any order heard."""
    settled_ns = START_NS + 2 * HOUR_NS
    trades = [fill(n, "okx", START_NS + at, qty, price) for n, (qty, at) in enumerate(fills)]
    held = sum((e.qty_base for e in trades if e.ts_event_ns < settled_ns), D(0))
    events = [order(n, PAIRS[n % 2 + 1], "okx", price) for n in range(len(fills))]
    paid = payment("okx", settled_ns, START_NS + 5 * HOUR_NS, held, price, rate)
    ledger = tell([*events, *trades, paid])
    check = ledger.funding_checks[0]
    assert (check.qty_base, check.expected, check.difference) == (held, -held * price * rate, 0)
    assert bool(ledger.settlements.due) == bool(held)


@given(sessions())
def test_pairs_share_a_payment_by_what_each_held_at_its_settlement(events):
    """The shares add up exactly, and each is its quantity's part of the whole."""
    ledger = tell(events)
    for venue in VENUES:
        lines = [e for e in ledger.entries if e.kind is EntryKind.FUNDING and e.venue == venue]
        for paid in payments_of(events, venue):
            now = [e for e in lines if (e.ts_event_ns, e.ts_init_ns) == (paid.settlement_time_ns, paid.ts_init_ns)]
            assert sum((e.cash for e in now), D(0)) == paid.cash
            held = sum((e.qty_base for e in now), D(0))
            for e in now if held else ():
                assert abs(e.cash * held - paid.cash * e.qty_base) <= abs(held) * D("1E-11")
    paid = sum((e.cash for venue in VENUES for e in payments_of(events, venue)), D(0))
    assert ledger.totals[EntryKind.FUNDING] == paid


@given(st.lists(lots, min_size=1, max_size=5), prices, rates)
def test_funding_sums_to_zero_over_a_closed_set_of_accounts(quantities, price, rate):
    """I6: whatever one account receives at a settlement, the others pay."""
    total, settled_ns = D(0), START_NS + HOUR_NS
    for qty in [*quantities, -sum(quantities)]:
        trade = fill(1, "okx", START_NS, qty, price)
        ledger = tell(
            [order(1, PAIRS[1], "okx", price), trade, payment("okx", settled_ns, settled_ns, qty, price, rate)]
        )
        total += ledger.totals[EntryKind.FUNDING]
    assert total == 0


@given(lots, lots, prices, rates, st.none() | prices)
def test_pairs_that_hold_each_other_pay_each_other(qty, other, price, rate, said):
    """A flat account is paid nothing, and each of its pairs has what it would have had alone."""
    settled_ns = START_NS + HOUR_NS
    orders = [order(n, pair, "okx", price) for n, pair in enumerate([PAIRS[1], PAIRS[2], PAIRS[2]])]
    legs = [(0, qty + other), (1, -qty), (2, -other)]
    trades = [fill(n, "okx", START_NS, part, price) for n, part in legs]
    event = published("okx", settled_ns, settled_ns, rate, said)
    ledger = tell([*orders, *trades, event, event])
    report = attribution(ledger)
    held = qty + other
    assume(held)
    worth = -held * (said or price) * rate
    assert report.total.funding == 0 and not ledger.settlements.due
    assert report.by_pair[PAIRS[1].pair_id].funding == worth == -report.by_pair[PAIRS[2].pair_id].funding


# whole trades


@given(lots, prices, prices, fees, fees, cash)
def test_round_trip_at_one_price_costs_its_fees(qty, price, mark_price, fee_in, fee_out, paid):
    """I7: out where it came in, nothing is left but funding and fees."""
    trip = [fill(1, "okx", START_NS, qty, price, fee_in), fill(2, "okx", START_NS + 2 * HOUR_NS, -qty, price, fee_out)]
    settled = payment("okx", START_NS + HOUR_NS, START_NS + HOUR_NS, qty, price, D(0), paid)
    ledger = tell([order(1, PAIRS[1], "okx", price), order(2, PAIRS[1], "okx", price), trip[0], settled, trip[1]])
    tell([mark("okx", START_NS + 3 * HOUR_NS, float(mark_price))])
    parts = attribution(ledger).by_pair[PAIRS[1].pair_id]
    assert (parts.price, parts.funding, parts.fees) == (0, paid, fee_in + fee_out)


@given(lots, prices, prices, prices, prices, st.integers(-20_000_00, 20_000_00))
def test_parallel_move_is_no_profit_of_a_matched_pair(qty, price_a, price_b, mark_a, mark_b, move_cents):
    """I8: what both venues' prices gain together, the legs give each other."""
    move = move_cents * D("0.01")
    pair, orders = PAIRS[0], [order(n, PAIRS[0], PAIRS[0].b.venue, price_a) for n in (1, 2)]
    legs = [fill(1, pair.a.venue, START_NS, qty, price_a), fill(2, pair.b.venue, START_NS, -qty, price_b)]
    results = []
    for shift in (D(0), move):
        marks = [
            mark(pair.a.venue, START_NS, float(mark_a + shift)),
            mark(pair.b.venue, START_NS, float(mark_b + shift)),
        ]
        results.append(attribution(tell([*orders, *legs, *marks])).by_pair[pair.pair_id].price)
    assert results[0] == results[1] == qty * ((price_b - mark_b) - (price_a - mark_a))


@given(sessions(foreign=False), st.randoms(use_true_random=False))
def test_pairs_on_one_instrument_do_not_disturb_each_other(events, random):
    """Each pair's price, fees and slippage are the same alone, and however their fills are interleaved."""
    trades = [e for e in events if isinstance(e, OrderPlaced | OrderFilled)]
    marks = [e for e in events if isinstance(e, MarkPriceUpdated)]
    marks = [mark(venue, START_NS, 50_000.5) for venue in VENUES] + marks
    together = attribution(tell([*marks, *trades])).by_pair
    orders, fills = trades[::2], trades[1::2]
    random.shuffle(fills)
    assert attribution(tell([*marks, *orders, *fills])).by_pair == together
    for pair_id, parts in together.items():
        alone = [e for o, f in zip(orders, trades[1::2]) if o.pair_id == pair_id for e in (o, f)]
        assert attribution(tell([*marks, *alone])).by_pair == {pair_id: parts}


# replay and repetition


@given(sessions(marks=rough_marks), st.randoms(use_true_random=False))
def test_replay_and_repetition_make_the_same_books(events, random):
    """I9: read back from the journal, and with every fill and payment said again at random places."""
    journal = MemoryJournal()
    engine = Engine([first := LedgerService(PAIRS, DEPOSITS)], journal)
    for event in events:
        engine.turn(event)
    again = tell([decode(encode(event)) for event in inputs_of(journal.entries)])
    assert again.entries == first.ledger.entries
    assert attribution(again) == attribution(first.ledger)
    noisy = []
    for n, event in enumerate(events):
        noisy.append(event)
        said = [e for e in events[: n + 1] if isinstance(e, OrderFilled | FundingPaid | FundingRealised)]
        repeated = random.sample(said, min(len(said), random.randint(0, 3)))
        noisy += [e for e in repeated if not isinstance(e, FundingRealised) or e is event]
    assert tell(noisy).entries == first.ledger.entries


# symmetries


def mirrored(event):
    match event:
        case OrderFilled() | OrderPlaced():
            return replace(event, qty_base=-event.qty_base)
        case FundingPaid():
            return replace(event, rate=-event.rate)
        case FundingRealised():
            return replace(event, funding=replace(event.funding, rate=-event.funding.rate))
    return event


@given(sessions())
def test_swapping_sides_and_rates_leaves_funding_and_turns_prices_round(events):
    """I13: long for short, with rates negated, receives the same and gains what the other lost."""
    was, now = attribution(tell(events)), attribution(tell([mirrored(event) for event in events]))
    assert was.by_pair.keys() == now.by_pair.keys()
    for pair_id, parts in was.by_pair.items():
        assert now.by_pair[pair_id].funding == parts.funding
        assert now.by_pair[pair_id].fees == parts.fees
        assert now.by_pair[pair_id].price == -parts.price


def scaled(event, k):
    match event:
        case OrderFilled():
            return replace(event, qty_base=k * event.qty_base, fee=k * event.fee)
        case FundingPaid():
            return replace(event, qty_base=k * event.qty_base, cash=k * event.cash)
    return event


@given(sessions(), st.integers(2, 50))
def test_twice_the_size_is_twice_the_money(events, k):
    """I14: with fees in proportion, every part grows with the quantity; shares of thirds by a cash unit each."""
    was, now = attribution(tell(events)), attribution(tell([scaled(event, k) for event in events]))
    lines = sum(isinstance(e, FundingPaid | OrderFilled | FundingRealised) for e in events)
    tolerance = lines * k * 3 * D("1E-12")
    assert now.total.net == k * was.total.net
    for name in ("price", "funding", "fees", "slippage"):
        assert getattr(now.total, name) == k * getattr(was.total, name)
        for pair_id, parts in was.by_pair.items():
            assert abs(getattr(now.by_pair[pair_id], name) - k * getattr(parts, name)) <= tolerance


@given(sessions(foreign=False), st.integers(2, 4))
def test_a_fill_in_parts_is_the_same_fill(events, n):
    """I15 in the books: as many parts at one price, with the fee in parts, leave every number where it was."""
    pieces = []
    for event in events:
        if isinstance(event, OrderFilled):
            part = {"qty_base": event.qty_base / 8, "fee": event.fee / 8}
            rest = {"qty_base": event.qty_base - (n - 1) * part["qty_base"], "fee": event.fee - (n - 1) * part["fee"]}
            pieces += [replace(event, trade_id=f"{event.trade_id}-{k}", **part) for k in range(n - 1)]
            pieces.append(replace(event, **rest))
        else:
            pieces.append(event)
    was, now = attribution(tell(events)), attribution(tell(pieces))
    assert (now.total, now.by_pair, now.by_venue) == (was.total, was.by_pair, was.by_venue)


@given(sessions(), st.lists(st.tuples(st.permutations(VENUES), cash.map(abs), fees.map(abs)), max_size=4))
def test_transfers_change_no_profit_but_their_fees(events, transfers):
    """I12: what leaves less the fee arrives; in total only the fees are gone."""
    ledger = tell(events)
    was = attribution(ledger)
    equities = {venue: account.equity() for venue, account in ledger.accounts.items()}
    for (source, target, _), amount, fee in transfers:
        book_transfer(ledger, ledger.now_ns, source, target, amount, fee)
        equities[source] -= amount
        equities[target] += amount - fee
    now = attribution(ledger)
    assert {venue: account.equity() for venue, account in ledger.accounts.items()} == equities
    assert now.equity_start == was.equity_start
    assert now.equity_end == was.equity_end - sum((fee for *_, fee in transfers), D(0))
    assert (now.total.price, now.total.funding) == (was.total.price, was.total.funding)


# what is held


@given(sessions(size=24))
def test_history_of_what_was_held_agrees_with_the_fills(events):
    """At every instant, backwards from now: what each pair held is the sum of its lines before."""
    ledger = tell(events)
    for venue in VENUES:
        lines = [e for e in ledger.entries if e.kind is EntryKind.FILL and e.venue == venue]
        holding = ledger.accounts[venue].holding("BTC")
        for instant_ns in {e.ts_event_ns + shift for e in lines for shift in (-1, 0, 1)}:
            held = defaultdict(D)
            for e in lines:
                if e.ts_event_ns < instant_ns:
                    held[e.pair_id] += e.qty_base
            assert holding.held_at(instant_ns) == {pair_id: qty for pair_id, qty in held.items() if qty}


@given(lots, rough_marks)
def test_value_is_within_half_a_cash_unit(qty, price):
    position, _ = apply(FLAT, qty, D(1))
    exactly = Fraction(qty) * Fraction(D(repr(price)))
    assert abs(Fraction(market_value(position, D(repr(price)))) - exactly) <= Fraction(1, 2 * 10**12)


def test_a_second_is_a_second():
    """A fill one second after the hour is none of that hour's funding."""
    settled_ns = START_NS + HOUR_NS
    late = fill(1, "okx", settled_ns + SECOND_NS, D(1), D(50_000))
    ledger = tell(
        [order(1, PAIRS[1], "okx", D(50_000)), late, published("okx", settled_ns, settled_ns, D("0.01"), None)]
    )
    assert not ledger.settlements.due
