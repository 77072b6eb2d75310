"""What a sweep does with one parameter set, hour by hour, in plain Python: a ledger of cash per venue and nothing else.

It shares no code with the sweep and knows none of its tables. Cash moves when something is bought, sold, paid as a fee
or settled as funding; equity is cash and what is held at mark. Everything else follows from the order of a decision:
the desk looks at itself, the signal says what leaves, what fell short is filled up, the best candidates enter, and
what leaves is closed last.
"""

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

LEVELS, TINY = 4, 1e-12


class Leg(NamedTuple):
    venue: int
    price: list[float]  # middle of the book, by hour
    mark: list[float]
    level_base: list[float]  # on each level
    rate: list[float | None]  # settled at that hour
    interval_h: int
    half_bps: float
    fee_bps: float
    lot: Fraction
    tick: Fraction
    min_base: float
    min_usd: float
    maintenance: float
    margin: float


class Pair(NamedTuple):
    a: int
    b: int
    coin: int
    lot: Fraction
    fees_bps: float
    wait_h: float
    usual_bps: list[float]
    volume_usd: list[float]
    at_cap: list[bool]
    may_open: list[bool]
    silent_h: list[float]


class Held:
    def __init__(self, p: int, side: int) -> None:
        self.p, self.side, self.lots, self.since_h, self.leaves = p, side, 0, 0.0, False


class Oracle:
    """One market, one desk; `play` gives the results of one set."""

    def __init__(
        self, legs: list[Leg], pairs: list[Pair], first_h: int, from_row: int, deposits: list[float], desk: Any
    ):
        self.legs, self.pairs, self.first_h, self.from_row = legs, pairs, first_h, from_row
        self.deposits, self.desk, self.hours = deposits, desk, len(legs[0].price)
        self.means: dict[tuple[int, int, int], float] = {}

    # ---- what can be known at an hour

    def ref(self, p: int, t: int) -> float:
        return (self.legs[self.pairs[p].a].price[t] + self.legs[self.pairs[p].b].price[t]) / 2

    def basis_bps(self, p: int, t: int) -> float:
        a, b = self.legs[self.pairs[p].a].price[t], self.legs[self.pairs[p].b].price[t]
        return (b - a) / self.ref(p, t) * 1e4

    def trailing(self, n: int, t: int, window: int) -> float:
        """Mean hourly rate in bps over the hours of a window for which a settlement has come."""
        if (n, t, window) not in self.means:
            self.means[n, t, window] = self.mean(n, t, window)
        return self.means[n, t, window]

    def mean(self, n: int, t: int, window: int) -> float:
        leg, known = self.legs[n], []
        for r in range(t + 1):
            if leg.rate[r] is None:
                continue
            for hour in range(r - leg.interval_h + 1, r + 1):
                if t - window < hour <= t:
                    known.append(leg.rate[r] / leg.interval_h * 1e4)
        due = window - (self.first_h + t) % leg.interval_h
        return sum(known) / len(known) if due >= 1 and len(known) >= self.desk.covered * due else math.nan

    def spread(self, p: int, t: int, window: int) -> float:
        return self.trailing(self.pairs[p].b, t, window) - self.trailing(self.pairs[p].a, t, window)

    def slippage_bps(self, p: int, t: int, notional: float) -> float:
        ref, cost = self.ref(p, t), 0.0
        for n in (self.pairs[p].a, self.pairs[p].b):
            leg, left, gap = self.legs[n], notional / ref, 0.0
            for level in range(LEVELS):
                part = min(left, leg.level_base[t])
                gap += part * 2 * leg.price[t] * leg.half_bps * (level + 1) / 1e4
                left -= part
                if left <= 0:
                    break
            else:
                return math.nan
            cost += gap / (notional / ref)
        return cost / ref * 1e4

    # ---- one set

    def play(self, params: Any, fixed_bps: float) -> dict[str, float]:
        self.params, self.notional, self.fixed_bps = params, float(params.notional_usd), fixed_bps
        start = sum(self.deposits)
        self.cash, self.held, self.rest_h = list(self.deposits), [], {}
        self.funding = self.fees = self.slippage = 0.0
        self.entries = self.round_trips = self.uneven = self.refused = in_market = 0
        course, peak, depth, part = [start], start, 0.0, 0.0
        day, day_start, barred, halted = None, start, False, False
        for t in range(self.from_row, self.hours):
            last = t == self.hours - 1
            self.settle(t)
            equity = sum(self.equity(v, t) for v in range(len(self.cash)))
            if (self.first_h + t) // 24 != day:
                day, day_start, barred = (self.first_h + t) // 24, course[-1], False
            course.append(equity)
            peak = max(peak, equity)
            depth, part = max(depth, peak - equity), max(part, (peak - equity) / peak)
            halted |= peak - equity > self.desk.max_drawdown_frac * peak
            barred |= day_start - equity > self.desk.max_daily_loss_frac * day_start
            self.decide(t, last, halted, halted or barred)
            in_market += bool(self.held)
        final = sum(self.equity(v, t) for v in range(len(self.cash)))
        course.append(final)
        peak = max(peak, final)
        depth, part = max(depth, peak - final), max(part, (peak - final) / peak)
        hours = self.hours - self.from_row
        returns = [now / before - 1 for before, now in pairwise(course)]
        mean = sum(returns) / hours
        spread = (sum(r * r for r in returns) - sum(returns) * mean) / (hours - 1)
        return {
            "net_usd": final - start, "price_usd": final - start - self.funding + self.fees,
            "funding_usd": self.funding, "fees_usd": self.fees, "slippage_usd": self.slippage,
            "entries": self.entries, "round_trips": self.round_trips, "in_market_frac": in_market / hours,
            "max_drawdown_usd": depth, "max_drawdown_frac": part,
            "sharpe": mean / math.sqrt(spread) * math.sqrt(8760) if spread > 0 else 0.0,
            "equity_end_usd": final, "uneven": self.uneven, "refused": self.refused, "halted": int(halted),
        }  # fmt: skip

    def qty(self, hold: Held) -> float:
        return float(hold.lots * self.pairs[hold.p].lot)

    def venues_of(self, p: int) -> tuple[int, int]:
        return self.legs[self.pairs[p].a].venue, self.legs[self.pairs[p].b].venue

    def positions(self) -> list[tuple[Held, int, float]]:
        """Every leg that is held: of which pair, which leg, signed base units."""
        both = []
        for hold in self.held:
            pair, qty = self.pairs[hold.p], self.qty(hold) * hold.side
            both += [(hold, pair.a, qty), (hold, pair.b, -qty)]
        return both

    def settle(self, t: int) -> None:
        for _, n, qty in self.positions():
            leg = self.legs[n]
            if leg.rate[t] is not None:
                paid = qty * leg.rate[t] * leg.mark[t]
                self.cash[leg.venue] -= paid
                self.funding -= paid

    def equity(self, venue: int, t: int) -> float:
        own = [qty * self.legs[n].mark[t] for _, n, qty in self.positions() if self.legs[n].venue == venue]
        return self.cash[venue] + sum(own)

    def edge(self, p: int, t: int) -> tuple[int, float]:
        """Side that the signal would enter, 0 for none, and the net edge."""
        pair, q = self.pairs[p], self.params
        slow, fast = self.spread(p, t, q.slow_h), self.spread(p, t, q.fast_h)
        cost = pair.fees_bps + self.fixed_bps + self.slippage_bps(p, t, self.notional)
        off = self.basis_bps(p, t) - pair.usual_bps[t]
        if math.isnan(slow + fast + cost + off) or pair.at_cap[t] or pair.volume_usd[t] < q.min_volume_usd_24h:
            return 0, -math.inf
        if abs(off) > q.max_basis_bps:
            return 0, -math.inf
        forecast = q.persistence * slow + q.fast_weight * (fast - slow)
        side = 1 if forecast > 0 else -1
        funding = side * forecast * q.horizon_h
        net = funding + side * off - cost
        return (side if funding > q.enter_edge_bps and net >= q.enter_edge_bps else 0), net

    def leaves(self, hold: Held, t: int) -> bool:
        slow, fast = (self.spread(hold.p, t, hours) for hours in (self.params.slow_h, self.params.fast_h))
        forecast = self.params.persistence * slow + self.params.fast_weight * (fast - slow)
        return hold.side * forecast < self.params.exit_bps_h

    def decide(self, t: int, last: bool, halted: bool, shut: bool) -> None:
        venues = range(len(self.cash))
        self.own = [self.equity(v, t) for v in venues]
        self.gross, self.owed, self.orders = [0.0] * len(self.cash), [0.0] * len(self.cash), 0
        for _, n, qty in self.positions():
            leg, value = self.legs[n], abs(qty) * self.legs[n].mark[t]
            self.gross[leg.venue] += value
            self.owed[leg.venue] += value * leg.maintenance
        for v in venues if not last else ():
            if self.owed[v] > self.desk.reduce_margin_ratio * self.own[v]:
                there = [h for h in self.held if v in self.venues_of(h.p)]
                if there and not any(h.leaves for h in there):
                    max(there, key=lambda h: self.qty(h) * self.ref(h.p, t)).leaves = True
        for hold in self.held:
            silent_h = min(self.pairs[hold.p].silent_h[t], t - hold.since_h)
            hold.leaves |= last or halted or silent_h > self.params.max_silence_h or self.leaves(hold, t)
        if not last:
            self.fill_up(t, shut)
            self.enter(t, shut)
        self.close(t)

    def fill_up(self, t: int, shut: bool) -> None:
        for hold in self.held:
            bought = self.legs[self.pairs[hold.p].a if hold.side > 0 else self.pairs[hold.p].b]
            short = self.qty(hold) * bought.price[t] < self.desk.top_up_below * self.notional
            if short and not hold.leaves and self.edge(hold.p, t)[0] == hold.side:
                self.refused += not self.add(hold, t, shut)

    def enter(self, t: int, shut: bool) -> None:
        slots, taken = self.params.max_pairs - len(self.held), {self.pairs[h.p].coin for h in self.held}
        rested = [p for p in range(len(self.pairs)) if t - self.rest_h.get(p, -math.inf) >= self.params.cool_down_h]
        wanted = [(p, *self.edge(p, t)) for p in rested]
        for p, side, _ in sorted((w for w in wanted if w[1]), key=lambda w: (-w[2], w[0])):
            if slots > 0 and self.pairs[p].coin not in taken:
                slots -= 1
                taken.add(self.pairs[p].coin)
                hold = Held(p, side)
                if not self.add(hold, t, shut):
                    self.refused += 1
                elif hold.lots > 0:
                    self.held.append(hold)
                    self.entries += 1

    def add(self, hold: Held, t: int, shut: bool) -> bool:
        ref = self.ref(hold.p, t)
        more = self.notional - self.qty(hold) * ref
        if shut or not self.pairs[hold.p].may_open[t] or more <= 0 or not self.allowed(hold, t, more):
            return False
        lots = self.size(hold, t, ref)
        if lots <= 0 or self.orders + 2 > self.desk.max_orders:
            return False
        self.orders += 2
        self.trade(hold, t, hold.side, lots)
        return True

    def allowed(self, hold: Held, t: int, more: float) -> bool:
        desk, equity = self.desk, sum(self.own)
        both = [self.legs[n] for n in (self.pairs[hold.p].a, self.pairs[hold.p].b)]
        values = [self.qty(hold) * leg.mark[t] + more for leg in both]
        gross = {leg.venue: self.gross[leg.venue] + more for leg in both}
        owed = {leg.venue: self.owed[leg.venue] + more * leg.maintenance for leg in both}
        fits = self.notional <= desk.max_pair_notional_usd and equity > 0
        fits &= sum(self.gross) + 2 * more <= desk.max_gross_x * equity
        fits &= all(each <= desk.max_venue_gross_x * equity for each in gross.values())
        fits &= all(each <= desk.max_leverage_x * self.own[v] for v, each in gross.items())
        fits &= all(each <= desk.block_margin_ratio * self.own[v] for v, each in owed.items())
        fits &= sum(values) <= desk.max_symbol_gross_x * equity
        margin = sum(value * leg.margin for value, leg in zip(values, both, strict=True))
        fits &= margin <= desk.max_symbol_margin_frac * equity
        if fits:
            for v, each in gross.items():
                self.gross[v], self.owed[v] = each, owed[v]
        return fits

    def size(self, hold: Held, t: int, ref: float) -> int:
        pair, desk = self.pairs[hold.p], self.desk
        lots = math.floor(Fraction(self.notional / ref) / pair.lot) - hold.lots
        least = 0.0
        for n, side in ((pair.a, hold.side), (pair.b, -hold.side)):
            leg, price = self.legs[n], self.legs[n].price[t]
            near = sum(price * leg.half_bps * (i + 1) / 1e4 <= price * desk.collar_bps / 1e4 for i in range(LEVELS))
            standing = near * leg.level_base[t] * desk.max_depth_frac
            lots = min(lots, math.floor(Fraction(standing) / pair.lot))
            least = max(least, leg.min_base, leg.min_usd / ref)
            limit = worst(leg, price, desk.entry_collar_bps, side)
            if abs(limit / leg.mark[t] - 1) * 1e4 > desk.max_from_mark_bps:
                return 0
        return lots if lots >= max(1, math.ceil(Fraction(least * (1 - 1e-14)) / pair.lot)) else 0

    def trade(self, hold: Held, t: int, side: int, lots: int) -> None:
        pair = self.pairs[hold.p]
        want, fills = float(lots * pair.lot), []
        for n, way in ((pair.a, side), (pair.b, -side)):
            fills.append(fill(self.legs[n], t, way, want, self.desk.entry_collar_bps))
        qty = min(got for got, _ in fills)
        if any(got != want for got, _ in fills):
            self.uneven += 1
            lots = math.floor(Fraction(qty * (1 + TINY)) / pair.lot)
            qty = float(lots * pair.lot)
            fills = [(qty, paid * qty / got if got > 0 else 0.0) for got, paid in fills]
        for n, way, (_, paid) in ((pair.a, side, fills[0]), (pair.b, -side, fills[1])):
            leg = self.legs[n]
            fee = paid * leg.fee_bps / 1e4
            self.cash[leg.venue] -= way * paid + fee
            self.fees += fee
            self.slippage += way * (paid - qty * leg.price[t])
        hold.lots += lots if side == hold.side else -lots
        hold.since_h = t + pair.wait_h

    def close(self, t: int) -> None:
        place = 0
        while place < len(self.held):
            hold = self.held[place]
            if not hold.leaves:
                place += 1
                continue
            self.trade(hold, t, -hold.side, hold.lots)
            if hold.lots:
                place += 1
                continue
            self.round_trips += 1
            self.rest_h[hold.p] = hold.since_h
            self.held[place] = self.held[-1]
            self.held.pop()


def worst(leg: Leg, price: float, bps: float, side: int) -> float:
    """The worst price at which an order may fill, on the tick that is nearer."""
    ticks = Fraction(price * (1 + side * bps / 1e4)) / leg.tick
    return float((math.floor(ticks) if side > 0 else math.ceil(ticks)) * leg.tick)


def fill(leg: Leg, t: int, side: int, want: float, bps: float) -> tuple[float, float]:
    """Walk the book: what was filled, and what it cost or brought."""
    limit, left, cash = worst(leg, leg.price[t], bps, side), want, 0.0
    whole = float(math.floor(Fraction(leg.level_base[t]) / leg.lot) * leg.lot)
    for level in range(LEVELS):
        ticks = Fraction(leg.price[t] * (1 + side * leg.half_bps * (level + 1) / 1e4)) / leg.tick
        price = float((math.ceil(ticks) if side > 0 else math.floor(ticks)) * leg.tick)
        if left <= 0 or side * price > side * limit:
            break
        part = min(left, whole)
        cash, left = cash + part * price, left - part
        if left < TINY * want:
            left = 0.0
    return want - left, cash
