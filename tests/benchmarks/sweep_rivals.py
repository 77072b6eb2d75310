"""The rivals of the sweep: a kernel tuned by hand for these rules alone, and vectorbt in its fastest form."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numba import njit
from sweep_rules import CAPITAL, FEE, HOURS_YEAR, Market, Rules


def columns_of(rules: list[Rules]) -> tuple[np.ndarray, ...]:
    enter, leave, window_h, slots = zip(*rules, strict=True)
    return np.array(enter), np.array(leave), np.array(window_h), np.array(slots)


# ---- the hand-tuned kernel: everything that does not depend on thresholds and slots is laid out first


@njit(nogil=True, cache=True)
def lay_out(price_a, price_b, rate_a, rate_b):
    """Worth of a base unit long A and short B with its funding, that funding, and the summed difference."""
    hours, coins = price_a.shape
    worth, paid, total = np.empty((hours, coins)), np.empty((hours, coins)), np.empty((hours, coins), np.int64)
    for n in range(coins):
        money, units = 0.0, 0
        for t in range(hours):
            money += (price_b[t, n] * rate_b[t, n] - price_a[t, n] * rate_a[t, n]) * 1e-8
            units += rate_b[t, n] - rate_a[t, n]
            paid[t, n], worth[t, n], total[t, n] = money, price_a[t, n] - price_b[t, n] + money, units
    return worth, paid, total


@njit(nogil=True, cache=True)
def rank(total, window_h):
    """The annual signal of one window, and the coins in the order of its size."""
    hours, coins = total.shape
    signal, order, now = np.zeros((hours, coins)), np.zeros((hours, coins), np.uint8), np.arange(coins).astype(np.uint8)
    to_year = 8760 * 1e-8 / window_h
    for t in range(hours):
        if t >= window_h - 1:
            for n in range(coins):
                signal[t, n] = (total[t, n] - (total[t - window_h, n] if t >= window_h else 0)) * to_year
        for i in range(1, coins):
            n, size, j = now[i], abs(signal[t, now[i]]), i - 1
            while j >= 0 and (abs(signal[t, now[j]]) < size or (abs(signal[t, now[j]]) == size and now[j] > n)):
                now[j + 1] = now[j]
                j -= 1
            now[j + 1] = n
        order[t] = now
    return signal, order


@njit(nogil=True, cache=True)
def play(price_a, price_b, worth, paid, signal, order, window_h, enter, leave, slots, out):
    hours, coins = price_a.shape
    for c in range(len(enter)):
        up, down, most = enter[c], leave[c], slots[c]
        size_usd = 1_000_000.0 / (2 * most)
        coin, qty, way = np.zeros(most, np.uint64), np.zeros(most), np.zeros(most)
        worth0, paid0, has = np.zeros(most), np.zeros(most), np.zeros(coins, np.uint8)
        held, base, fees, funding, price, entries = 0, 1_000_000.0, 0.0, 0.0, 0.0, 0
        equity, peak, over_peak, depth, gains, squares = base, base, 1 / base, 0.0, 0.0, 0.0
        for t in range(hours):
            if t >= window_h - 1:
                h = 0
                while h < held:
                    n = coin[h]
                    if way[h] * signal[t, n] >= down:
                        h += 1
                        continue
                    gain, got = qty[h] * (worth[t, n] - worth0[h]), qty[h] * (paid[t, n] - paid0[h])
                    fee = 0.0004 * abs(qty[h]) * (price_a[t, n] + price_b[t, n])
                    base += gain - fee
                    price += gain - got
                    funding += got
                    fees += fee
                    has[n] = 0
                    held -= 1
                    coin[h], qty[h], way[h], worth0[h], paid0[h] = (
                        coin[held],
                        qty[held],
                        way[held],
                        worth0[held],
                        paid0[held],
                    )
                if held < most:
                    for i in range(coins):
                        n = order[t, i]
                        if abs(signal[t, n]) <= up:
                            break
                        if has[n]:
                            continue
                        amount = size_usd / price_a[t, n]
                        fee = 0.0004 * amount * (price_a[t, n] + price_b[t, n])
                        base -= fee
                        fees += fee
                        way[held] = 1.0 if signal[t, n] > 0 else -1.0
                        coin[held], qty[held], worth0[held], paid0[held] = (
                            n,
                            way[held] * amount,
                            worth[t, n],
                            paid[t, n],
                        )
                        has[n] = 1
                        held += 1
                        entries += 1
                        if held == most:
                            break
            now = base
            for h in range(held):
                now += qty[h] * (worth[t, coin[h]] - worth0[h])
            if now != equity:
                gain = now / equity - 1
                gains += gain
                squares += gain * gain
                equity = now
                if now > peak:
                    peak, over_peak = now, 1 / now
                elif 1 - now * over_peak > depth:
                    depth = 1 - now * over_peak
        for h in range(held):
            got = qty[h] * (paid[hours - 1, coin[h]] - paid0[h])
            funding += got
            price += qty[h] * (worth[hours - 1, coin[h]] - worth0[h]) - got
        mean = gains / hours
        spread = (squares - gains * mean) / (hours - 1)
        out[c, 0], out[c, 1], out[c, 2], out[c, 3], out[c, 4], out[c, 5] = equity, price, funding, fees, entries, depth
        out[c, 6] = mean / np.sqrt(spread) * np.sqrt(8760) if spread > 0 else 0.0


def tuned_kernel(market: Market, rules: list[Rules], threads: int) -> np.ndarray:
    enter, leave, window_h, slots = columns_of(rules)
    out = np.zeros((len(rules), 7))
    worth, paid, total = lay_out(*market)
    with ThreadPoolExecutor(threads) as pool:
        windows = np.unique(window_h)
        ranked = dict(zip(windows, pool.map(lambda hours: rank(total, hours), windows), strict=True))

        def some(places):
            signal, order = ranked[window_h[places[0]]]
            part = np.zeros((len(places), 7))
            play(market.price_a, market.price_b, worth, paid, signal, order, window_h[places[0]],
                 enter[places], leave[places], slots[places], part)  # fmt: skip
            out[places] = part

        pieces = [np.flatnonzero(window_h == hours) for hours in windows]
        pieces = [part for piece in pieces for part in np.array_split(piece, -(-len(piece) // 40))]
        list(pool.map(some, pieces))
    return out


# ---- vectorbt: the strategy inside its callbacks, one group of columns per set; no funding, so prices carry it


@njit
def before_group(context, coins):
    none = np.zeros(2 * coins + 1, np.int64)
    return np.zeros(coins), np.zeros(coins), np.zeros(1, np.int64), np.full(2 * coins, np.nan), none


@njit
def before_segment(context, way, qty, held, size, todo, price_a, signals, enter, leave, window_h, slots):
    g, t, coins = context.group, context.i, way.size
    todo[0] = 0
    if t < window_h[g] - 1:
        return size, todo
    signal = signals[g, t]
    for n in range(coins):
        if way[n] != 0.0 and way[n] * signal[n] < leave[g]:
            size[n], size[coins + n] = -way[n] * qty[n], way[n] * qty[n]
            todo[1 + todo[0]], todo[2 + todo[0]] = n, coins + n
            todo[0] += 2
            way[n] = 0.0
            held[0] -= 1
    while held[0] < slots[g]:
        best, most = -1, enter[g]
        for n in range(coins):
            if way[n] == 0.0 and abs(signal[n]) > most:
                best, most = n, abs(signal[n])
        if best < 0:
            break
        way[best] = 1.0 if signal[best] > 0 else -1.0
        qty[best] = 1_000_000.0 / (2 * slots[g]) / price_a[t, best]
        held[0] += 1
        again = False
        for i in range(todo[0]):
            again |= todo[1 + i] == best
        if again:  # left and entered in one hour: one order
            size[best] += way[best] * qty[best]
            size[coins + best] -= way[best] * qty[best]
        else:
            size[best], size[coins + best] = way[best] * qty[best], -way[best] * qty[best]
            todo[1 + todo[0]], todo[2 + todo[0]] = best, coins + best
            todo[0] += 2
    return size, todo


def vectorbt_best(market: Market, rules: list[Rules], chunk: int = 4) -> np.ndarray:
    """Its flexible order function, four sets at a time, with the group's value taken once."""
    import vectorbt as vbt
    from vectorbt.portfolio import nb as portfolio
    from vectorbt.portfolio.enums import Direction, SizeType

    if "order" not in globals():

        @njit
        def order(context, size, todo, fees):
            if context.call_idx >= todo[0]:
                return -1, portfolio.order_nothing_nb()
            column = todo[1 + context.call_idx]
            price = context.close[context.i, context.from_col + column]
            made = portfolio.order_nb(
                size=size[column],
                price=price,
                size_type=SizeType.Amount,
                direction=Direction.Both,
                fees=fees[context.i, column],
                raise_reject=True,
            )
            return context.from_col + column, made

        globals()["order"] = order
    prices, rates = np.hstack(market[:2]), np.hstack(market[2:]) * 1e-8
    carried = prices - np.cumsum(prices * rates, axis=0)  # funding as a fall of the price
    fees, total = FEE * prices / carried, np.cumsum(market.rate_b - market.rate_a, axis=0)
    hours, legs = prices.shape
    index, out = pd.date_range("2024", periods=hours, freq="h"), np.full((len(rules), 7), np.nan)
    for first in range(0, len(rules), chunk):
        part = rules[first : first + chunk]
        enter, leave, window_h, slots = columns_of(part)
        signals = np.empty((len(part), hours, legs // 2))
        for i, window in enumerate(window_h):
            since = np.vstack([np.zeros((window, legs // 2), "int64"), total[:-window]])
            signals[i] = (total - since) * (HOURS_YEAR * 1e-8 / window)
        columns = pd.MultiIndex.from_product([range(len(part)), range(legs)], names=["set", "leg"])
        close = pd.DataFrame(np.tile(carried, (1, len(part))), index=index, columns=columns)
        held = vbt.Portfolio.from_order_func(
            close, globals()["order"], fees, flexible=True, init_cash=CAPITAL, cash_sharing=True, group_by="set",
            pre_group_func_nb=before_group, pre_group_args=(legs // 2,), pre_segment_func_nb=before_segment,
            pre_segment_args=(market.price_a, signals, enter, leave, window_h, slots), freq="1h",
            max_orders=4000 * len(part), row_wise=False, update_value=False, fill_pos_record=False,
        )  # fmt: skip
        value = held.value()
        value = value.to_frame() if isinstance(value, pd.Series) else value
        returns = value.pct_change()
        returns.iloc[0] = value.iloc[0] / CAPITAL - 1
        stats = returns.vbt.returns(freq="1h")
        orders = held.orders.values
        paid = np.bincount(orders["col"] // legs, weights=orders["fees"], minlength=len(part))
        rows = slice(first, first + len(part))
        out[rows, 0], out[rows, 3] = value.iloc[-1], paid
        out[rows, 5], out[rows, 6] = -stats.max_drawdown(), stats.sharpe_ratio()
    return out
