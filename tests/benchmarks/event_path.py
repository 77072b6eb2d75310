"""Measure the exact event path: quotes in, through every service of a live session, to the exact ledger.

    python tests/benchmarks/event_path.py [--quotes 1000000] [--rounds 3] [--rival PYTHON] [--json FILE]

The services are those of `build_core`, in their order, with a strategy object that wakes on every book; the venues are
the simulated exchange without latency. Every session is checked against a plain loop before its time counts. With
--rival, an interpreter that has nautilus_trader runs `event_path_nautilus.py` on the same quotes in the same rounds.
The time to build the data objects is left out on both sides. Both are single-threaded, so what counts is the time of
the processor: that of the clock on the wall, told beside it, is also that of whatever else the machine has to do.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from math import floor, nan
from pathlib import Path

import event_workload as w

from fundarb.apps.composition import RunSpec, build_core, make_pairs
from fundarb.apps.session import trade
from fundarb.config.settings import load_settings
from fundarb.core.engine import Engine
from fundarb.core.events import BookUpdated, Event, FundingRealised, MarkPriceUpdated, TimerFired
from fundarb.core.funding import FundingKind, FundingRate, PriceBasis
from fundarb.core.models import Instrument, Level
from fundarb.core.numbers import exact
from fundarb.exchanges.simulated import SimulatedExchange
from fundarb.strategies.base import Decision

ROOT = Path(__file__).parents[2]
PLACES = [(venue, coin) for venue in w.VENUES for coin in w.COINS]
WIDE = {  # limits that never speak here; the checks behind them run all the same
    "max_gross_x": 20, "max_venue_gross_x": 20, "max_symbol_gross_x": 20, "max_pair_notional_usd": 10**6,
    "max_symbol_margin_frac": "0.99", "max_leverage_x": 20, "max_book_age_s": 3600, "max_mark_age_s": 10**6,
    "max_funding_age_s": 10**6, "max_orders_per_min": 6000, "max_from_mark_bps": 1000, "max_depth_frac": 1.0,
    "max_daily_loss_frac": "0.5", "max_drawdown_frac": "0.5",
}  # fmt: skip


class Crossing:
    """The workload's rules as a strategy: the same interface as the one that trades live."""

    name = "crossing"
    wakes_on = (BookUpdated, FundingRealised)

    def __init__(self, end_ns: int) -> None:
        self._end_ns = end_ns
        self._rate = dict.fromkeys(PLACES, 0)
        self._coins = {  # kept here, as the rival's strategy does, and not asked for again at every quote
            coin: (f"{coin}:{'-'.join(w.VENUES)}", [nan, nan, nan, nan, 0.0])  # bid, ask, bid, ask, carry in bps
            for coin in w.COINS
        }

    def evaluate(self, event, market, portfolio):
        if type(event) is FundingRealised:
            return self._take(event.funding)
        pair_id, seen = self._coins[event.symbol]
        if event.venue == "binance":
            bid_a = seen[0] = event.bids[0].price
            ask_a = seen[1] = event.asks[0].price
            bid_b, ask_b = seen[2], seen[3]
        else:
            bid_b = seen[2] = event.bids[0].price
            ask_b = seen[3] = event.asks[0].price
            bid_a, ask_a = seen[0], seen[1]
        carry_bps = seen[4]
        buy_a_bps = (bid_b - ask_a) / ask_a * 1e4 + carry_bps
        sell_a_bps = (bid_a - ask_b) / ask_b * 1e4 - carry_bps
        held = portfolio.get(pair_id)
        if held is not None and held.held_base:
            turned_bps = sell_a_bps if held.long_venue == "binance" else buy_a_bps
            if turned_bps <= w.EXIT_BPS and event.ts_init_ns < self._end_ns:
                return ()
            if self._waits(event):
                return ()
            return (self._decision(event.symbol, held.long_venue == "binance", Decimal(0)),)
        if not (buy_a_bps > w.ENTER_BPS or sell_a_bps > w.ENTER_BPS) or event.ts_init_ns >= self._end_ns:
            return ()  # as well while a book is unknown: nothing compares with nan
        if self._waits(event):
            return ()
        mid = Decimal(repr(((bid_a + ask_a) / 2 + (bid_b + ask_b) / 2) / 2))
        lots = floor(w.NOTIONAL_USD / ask_a / w.LOT_BASE)
        notional_usd = (lots + Decimal("0.5")) * exact(w.LOT_BASE) * mid
        return (self._decision(event.symbol, buy_a_bps > w.ENTER_BPS, notional_usd),)

    def _waits(self, event):
        """Tell whether the gate and the desk would make it wait, and remember that they did."""
        return w.must_wait(event.ts_init_ns, [self._rate[venue, event.symbol] for venue in w.VENUES], 0, 1)

    def _take(self, funding):
        self._rate[funding.venue, funding.symbol] = int(funding.rate * 10**8)
        rate_a, rate_b = (self._rate[venue, funding.symbol] for venue in w.VENUES)
        self._coins[funding.symbol][1][4] = (rate_b * 8 - rate_a) * 1e-4
        return ()

    def _decision(self, coin, buys_a, notional_usd):
        legs = list(w.VENUES)[:: 1 if buys_a else -1]
        reason = {"reason": "crossing", "outlook": None}
        return Decision(
            pair_id=self._coins[coin][0], long_venue=legs[0], short_venue=legs[1], notional_usd=notional_usd, **reason
        )


def instruments() -> list[Instrument]:
    """List the ten instruments of the workload."""
    terms = {
        "quote": "USDT", "units_per_price": 1, "lot_step_base": w.LOT_BASE, "min_qty_base": w.LOT_BASE,
        "min_notional_usd": 1, "price_tick": w.TICK, "maker_fee_bps": 0, "max_leverage": 50,
        "maintenance_frac": 0.01, "liquidation_fee_bps": 0, "rate_cap": 0.04,
    }  # fmt: skip
    owned = {name: exact(value) if isinstance(value, int | float) else value for name, value in terms.items()}
    return [
        Instrument(
            venue=venue, symbol=coin, venue_symbol=coin, taker_fee_bps=exact(w.VENUES[venue]) * 10_000,
            interval_h=w.INTERVAL_H[venue], price_basis=PriceBasis.MARK, **owned,
        )
        for venue, coin in PLACES
    ]  # fmt: skip


def feed(work: w.Workload) -> Iterator[Event]:
    """Turn the workload into events, one by one, as a feed would."""
    for venue, coin in PLACES:
        prices = {"mark_price": w.COINS[coin], "oracle_price": w.COINS[coin]}
        yield MarkPriceUpdated(ts_init_ns=w.START_NS, venue=venue, symbol=coin, **prices)
    yield TimerFired(ts_init_ns=w.START_NS, name="decision")  # the account speaks once, so that risk knows it
    settlements, due = work.funding, 0
    for time_ns, leg, bid, ask, bid_base, ask_base in zip(*work[:6]):
        while due < len(settlements) and settlements[due][0] <= time_ns:
            yield settlement(*settlements[due])
            due += 1
        venue, coin = PLACES[leg]
        sides = {"bids": (Level(bid, bid_base),), "asks": (Level(ask, ask_base),)}
        yield BookUpdated(ts_init_ns=time_ns, venue=venue, symbol=coin, **sides)


def settlement(time_ns: int, leg: int, rate: int, mark: float) -> FundingRealised:
    """Turn one row of the workload's funding into an event."""
    venue, coin = PLACES[leg]
    funding = FundingRate(
        venue=venue, symbol=coin, kind=FundingKind.REALISED, rate=Decimal(rate).scaleb(-8),
        interval_h=w.INTERVAL_H[venue], settlement_time_ns=time_ns, ts_init_ns=time_ns,
    )  # fmt: skip
    return FundingRealised(ts_init_ns=time_ns, funding=funding, price=exact(mark))


class Forgetful:
    """A journal that keeps nothing: what is measured is the path, its audit is measured by itself."""

    def append(self, entry):
        pass

    def append_input(self, seq, event):
        pass

    def flush(self):
        pass


def session(work: w.Workload) -> tuple[float, float, w.Outcome]:  # s of the processor, of the wall; what it came to
    """Trade the workload through the whole core."""
    settings, traded = load_settings(ROOT / "settings.ini", env={}), instruments()
    spec = RunSpec(
        kind="benchmark", session_id="benchmark", code_version="", strategy="", parameters={}, parameters_digest="",
        limits=settings.limits.model_dump(mode="json") | WIDE, execution=settings.execution.model_dump(mode="json"),
        instruments=traded, deposits_usd=dict.fromkeys(w.VENUES, Decimal(w.DEPOSIT_USD)),
        latency_ms=dict.fromkeys(w.VENUES, 0), origin={},
    )  # fmt: skip
    assert {pair.pair_id for pair in make_pairs(traded)} == {f"{coin}:{'-'.join(w.VENUES)}" for coin in w.COINS}
    core = build_core(spec, Crossing(work.end_ns))
    exchange = SimulatedExchange(traded, spec.latency_ms, spec.deposits_usd)
    engine, events = Engine(core.services, Forgetful()), list(feed(work))
    gc.collect()
    gc.freeze()  # the workload is not garbage, and not to be looked through for any
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    trade(engine, exchange, events)
    cpu_s, wall_s = time.process_time() - began_cpu_s, time.perf_counter() - began_s
    gc.unfreeze()
    accounts = [exchange.account(venue) for venue in w.VENUES]
    ledger = core.ledger.ledger
    assert [ledger.accounts[venue].wallet for venue in w.VENUES] == [account.wallet for account in accounts]
    fills = [fill for account in accounts for fill in account.fills]
    paid = [payment.cash for account in accounts for payment in account.funding.values()]
    wallets = tuple(float(account.wallet - w.DEPOSIT_USD) for account in accounts)
    return cpu_s, wall_s, w.Outcome(wallets, float(sum(fill.fee for fill in fills)), float(sum(paid)), len(fills))


def rival(python: str, quotes: int) -> dict:
    """Run the rival in its own interpreter; raise CalledProcessError if it fails its check."""
    script = Path(__file__).with_name("event_path_nautilus.py")
    said = subprocess.run([python, script, "--quotes", str(quotes)], check=True, capture_output=True, text=True)
    return json.loads(said.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotes", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rival", help="an interpreter that has nautilus_trader")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    work = w.make(asked.quotes)
    events = asked.quotes + len(work.funding)
    wanted = w.plain_loop(work, waits=True)
    rows: list[dict[str, float]] = []
    for number in range(asked.rounds):
        cpu_s, wall_s, outcome = session(work)
        wanted.check(outcome, "fundarb")
        row = {"cpu_events_per_s": events / cpu_s, "events_per_s": events / wall_s}
        if asked.rival:
            theirs = rival(asked.rival, asked.quotes)
            row |= {f"rival_{name}": theirs[name] for name in ("cpu_events_per_s", "events_per_s")}
            row |= {"ratio": row["cpu_events_per_s"] / theirs["cpu_events_per_s"]}
            row |= {"wall_ratio": row["events_per_s"] / theirs["events_per_s"]}
        rows.append(row)
        told = ", ".join(f"{name} {value:,.2f}" for name, value in row.items())
        print(f"round {number + 1}: {told}; {outcome.fills} fills, checked", file=sys.stderr)
    result = {"workload": "event path", "quotes": asked.quotes, "fills": wanted.fills}
    for name in rows[0]:
        result[name] = round(statistics.median(row[name] for row in rows), 2)
    if asked.rival:
        result |= {"rival": theirs["engine"], "ratios": [round(row["ratio"], 2) for row in rows]}
    print(json.dumps(result))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
