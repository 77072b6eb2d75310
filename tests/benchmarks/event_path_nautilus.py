"""The rival of event_path.py: the same quotes, funding and rules in nautilus_trader's Rust engine.

    PYTHON_WITH_NAUTILUS tests/benchmarks/event_path_nautilus.py [--quotes 1000000]

Needs nautilus_trader 1.231 and numpy. Prints one line of JSON; fails if its money differs from the plain loop's. Its
time leaves out the building of its data objects, as ours does. It logs nothing and keeps no analysis.
"""

import argparse
import gc
import json
import os
import sys
import time
from decimal import Decimal
from math import floor

import event_workload as w
from nautilus_trader.core.nautilus_pyo3 import AccountType, BacktestEngine, BacktestEngineConfig, CryptoPerpetual
from nautilus_trader.core.nautilus_pyo3 import Currency, FundingRateUpdate, InstrumentId, LoggerConfig, MarkPriceUpdate
from nautilus_trader.core.nautilus_pyo3 import Money, OmsType, OrderSide, Price, Quantity, QuoteTick, Strategy
from nautilus_trader.core.nautilus_pyo3 import StrategyConfig, StrategyId, Symbol, TimeInForce, Venue

USDT = Currency.from_str("USDT")
IDS = [InstrumentId(Symbol(f"{coin}USDT-PERP"), Venue(venue.upper())) for venue in w.VENUES for coin in w.COINS]
COINS = len(w.COINS)


def perpetual(place: int) -> CryptoPerpetual:
    """Describe one instrument."""
    margin = {"margin_init": Decimal("0.02"), "margin_maint": Decimal("0.01")}
    fees = {"maker_fee": Decimal(0), "taker_fee": Decimal(str(list(w.VENUES.values())[place // COINS]))}
    steps = {"price_increment": Price.from_str("0.01"), "size_increment": Quantity.from_str("0.001")}
    base = Currency.from_str(list(w.COINS)[place % COINS])
    return CryptoPerpetual(
        instrument_id=IDS[place], raw_symbol=IDS[place].symbol, base_currency=base, quote_currency=USDT,
        settlement_currency=USDT, is_inverse=False, price_precision=2, size_precision=3, ts_event=0, ts_init=0,
        **steps, **margin, **fees,
    )  # fmt: skip


def data(work: w.Workload) -> tuple[list, list]:
    """Build quotes, and marks just before the settlements that they value."""
    quotes = [
        QuoteTick(IDS[leg], Price(bid, 2), Price(ask, 2), Quantity(bid_base, 3), Quantity(ask_base, 3), at_ns, at_ns)
        for at_ns, leg, bid, ask, bid_base, ask_base in zip(*work[:6])
    ]
    settled = []
    for at_ns, leg, rate, mark in work.funding:
        minutes = 60 * list(w.INTERVAL_H.values())[leg // COINS]
        settled.append(MarkPriceUpdate(IDS[leg], Price(mark, 2), at_ns - 1, at_ns - 1))
        settled.append(FundingRateUpdate(IDS[leg], Decimal(rate).scaleb(-8), at_ns, at_ns, interval=minutes))
    return quotes, settled


class Crossing(Strategy):
    """The workload's rules."""

    def __new__(cls, end_ns: int):
        return Strategy.__new__(cls, StrategyConfig(strategy_id=StrategyId("CROSSING-001")))

    def __init__(self, end_ns: int) -> None:
        super().__init__(StrategyConfig(strategy_id=StrategyId("CROSSING-001")))
        self.end_ns, self.fills, self.fees = end_ns, 0, 0.0
        self.place = {name: number for number, name in enumerate(IDS)}
        self.bid, self.ask, self.rate = [0.0] * 2 * COINS, [0.0] * 2 * COINS, [0] * 2 * COINS
        self.side, self.qty = [0] * COINS, [None] * COINS

    def on_start(self):
        for name in IDS:
            self.subscribe_quotes(name)
            self.subscribe_funding_rates(name)

    def on_funding_rate(self, update):
        self.rate[self.place[update.instrument_id]] = round(float(update.rate) * 1e8)

    def on_quote(self, quote):
        leg, bid, ask = self.place[quote.instrument_id], self.bid, self.ask
        bid[leg], ask[leg] = float(quote.bid_price), float(quote.ask_price)
        coin = leg % COINS
        a, b = coin, COINS + coin
        if not bid[a] or not bid[b]:
            return
        carry_bps = (self.rate[b] * 8 - self.rate[a]) * 1e-4
        buy_a_bps = (bid[b] - ask[a]) / ask[a] * 1e4 + carry_bps
        sell_a_bps = (bid[a] - ask[b]) / ask[b] * 1e4 - carry_bps
        held = self.side[coin]
        if held:
            if (sell_a_bps if held > 0 else buy_a_bps) <= w.EXIT_BPS and quote.ts_event < self.end_ns:
                return
            turn = -held
            if w.must_wait(quote.ts_event, self.rate, a, b):
                return
        else:
            turn = (buy_a_bps > w.ENTER_BPS) - (buy_a_bps <= w.ENTER_BPS < sell_a_bps)
            if not turn or quote.ts_event >= self.end_ns or w.must_wait(quote.ts_event, self.rate, a, b):
                return
            self.qty[coin] = Quantity(floor(w.NOTIONAL_USD / ask[a] / w.LOT_BASE) * w.LOT_BASE, 3)
        self.side[coin] = held + turn
        for place, buys in ((a, turn > 0), (b, turn < 0)):
            side = OrderSide.BUY if buys else OrderSide.SELL
            order = self.order_factory.market(IDS[place], side, self.qty[coin], time_in_force=TimeInForce.IOC)
            self.submit_order(order)

    def on_order_filled(self, event):
        self.fills += 1
        self.fees += float(str(event.commission).split()[0].replace("_", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotes", type=int, default=1_000_000)
    work = w.make(parser.parse_args().quotes)
    quiet = LoggerConfig(bypass_logging=True)
    engine = BacktestEngine(BacktestEngineConfig(bypass_logging=True, run_analysis=False, logging=quiet))
    for venue in w.VENUES:
        account = {"account_type": AccountType.MARGIN, "starting_balances": [Money(w.DEPOSIT_USD, USDT)]}
        engine.add_venue(venue=Venue(venue.upper()), oms_type=OmsType.NETTING, base_currency=None, **account)
    for place in range(2 * COINS):
        engine.add_instrument(perpetual(place))
    for part in data(work):
        engine.add_data(part, sort=False)
    engine.sort_data()
    strategy = Crossing(work.end_ns)
    engine.add_strategy(strategy)
    gc.collect()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    engine.run()
    cpu_s, wall_s = time.process_time() - began_cpu_s, time.perf_counter() - began_s
    totals = [engine.cache.account_for_venue(Venue(venue.upper())).balance_total(USDT) for venue in w.VENUES]
    wallets = tuple(total.as_double() - w.DEPOSIT_USD for total in totals)
    wanted = w.plain_loop(work, waits=True)
    wanted.check(w.Outcome(wallets, strategy.fees, wanted.funding, strategy.fills), "nautilus_trader")
    events = len(work.time_ns) + len(work.funding)
    rates = {"cpu_events_per_s": round(events / cpu_s), "events_per_s": round(events / wall_s)}
    print(json.dumps({"engine": "nautilus_trader, Rust engine", **rates, "checked": True}))
    sys.stdout.flush()
    os._exit(0)  # its destructors are not part of the measurement, and may crash


if __name__ == "__main__":
    main()
