"""How fast the sweep is: against vectorbt's best form and a kernel tuned by hand, in one run, on equal work.

All four play by the rules in sweep_rules.py, which are simpler than ours, since vectorbt cannot express
ours. The engine under test is the package's own, with the same compiled signal; `textbook` switches off
what the rules do not have (limits, margin, filling up), and books without spread or steps stand in for
those with them. What the whole model costs is measured beside it, on the same arrays, and printed
as `full_model_sets_per_s`; no rival has anything to compare it with.

    python tests/benchmarks/sweep.py --json result.json
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import sweep_rivals
from sweep_rules import CAPITAL, FEE, HOURS_YEAR, Market, Rules, check, grid, make_market

from fundarb.research.sweep import evaluate
from fundarb.research.sweep_book import Desk
from fundarb.research.sweep_data import Legs, Pairs, SweepData
from fundarb.research.sweep_kernel import RESULTS

INF, HORIZON_H = np.inf, 24.0
ENTER_PER_YEAR = HORIZON_H / (HOURS_YEAR * 1e-8)  # an annual fraction as rate units over the horizon


def arrays_of(market: Market) -> SweepData:
    """Lay the market out for our engine; the whole signal lies in leg b, so that its sums stay whole numbers."""
    hours, coins = market.price_a.shape
    price = np.hstack([market.price_a, market.price_b])
    rates = np.hstack([market.rate_a, market.rate_b])
    paid = np.cumsum(price * rates * 1e-8, axis=0)
    sums, known = np.zeros((2, hours + 25, 2 * coins))
    sums[25:, coins:] = np.cumsum(market.rate_b - market.rate_a, axis=0)
    known[25:] = np.arange(1, hours + 1)[:, None]
    legs, one = 2 * coins, np.ones(2 * coins)
    none = np.tile([1.0, 0.0], (legs, 1))
    by_hour = {"open": price, "price": price, "mark": price, "level_base": np.full(price.shape, INF)}
    clocks = {"top": np.repeat(np.arange(hours)[:, None], legs, axis=1), "interval_h": np.ones((hours, legs), "int64")}
    terms = {"venue": np.repeat([0, 1], coins), "half_bps": 0 * one, "fee_bps": FEE * 1e4 * one, "step": none}
    terms |= {"tick": none, "min_base": 0 * one, "min_usd": 0 * one, "maintenance": 0 * one, "margin": 0 * one}
    funding = paid[:, coins:] - paid[:, :coins]
    flat, number = np.zeros((hours, coins)), np.arange(coins)
    pairs = Pairs(
        a=number, b=number + coins, coin=number, step=none[:coins], fees_bps=np.zeros(coins), wait_h=np.zeros(coins),
        ref=market.price_a, basis_bps=flat, usual_bps=flat, volume_usd=flat + INF, at_cap=flat.astype("uint8"),
        may_open=np.ones((hours, coins), "uint8"), silent_h=flat, funding=funding,
        value=market.price_a - market.price_b + funding,
    )  # fmt: skip
    names = tuple(f"C{n:02d}" for n in range(coins))
    return SweepData(
        venues=("A", "B"), pair_ids=names, symbols=names, leg_names=tuple((v, n) for v in "AB" for n in names),
        first_h=0, from_row=0, fingerprint="", deposits_usd=np.array([CAPITAL / 2, CAPITAL / 2]),
        legs=Legs(paid=paid, sum_bps=sums, known=known, **by_hour, **clocks, **terms), pairs=pairs,
    )  # fmt: skip


def with_steps(table):
    """Trade in thousandths: the whole model sizes in lots, and without any its smallest order is one unit."""
    return table._replace(step=np.tile([1.0, 1000.0], (len(table.step), 1)))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def desk(textbook: bool) -> Desk:
    off = dict.fromkeys(Desk._fields, INF)
    return Desk(**off | {"max_orders": 10**6, "collar_bps": 20.0, "entry_collar_bps": 5.0, "max_depth_frac": 0.5,
                         "top_up_below": 0.9, "covered": 1.0, "textbook": textbook})  # fmt: skip


def questions(rules: list[Rules]) -> tuple[dict[tuple, list[int]], np.ndarray]:
    """Say the rules in the words of our engine: the forecast is the trailing mean, nothing is refused."""
    groups: dict[tuple, list[int]] = {}
    for place, each in enumerate(rules):
        shared = (each.window_h, each.window_h, HORIZON_H, 1.0, 0.0, 1.0, 0.0, 0.0, INF, (), 30.0)
        groups.setdefault(shared, []).append(place)
    own = [
        (r.enter * ENTER_PER_YEAR, r.leave / (HOURS_YEAR * 1e-8), r.slots, 0.0, INF, CAPITAL / (2 * r.slots))
        for r in rules
    ]
    return groups, np.array(own)


def ours(data: SweepData, rules: list[Rules], threads: int, textbook: bool = True) -> np.ndarray:
    found = evaluate(data, desk(textbook), *questions(rules), threads=threads)
    names = ("equity_end_usd", "price_usd", "funding_usd", "fees_usd", "entries", "max_drawdown_frac", "sharpe")
    return found[:, [RESULTS.index(name) for name in names]]


def timed(plays: dict, repeat: int) -> tuple[dict[str, float], dict[str, float]]:
    """Let all play in turn, so that a busy machine slows them alike; the best of equally many rounds.

    Gives the seconds of the clock and those of the processors, which a busy machine hardly changes."""
    clock, work = {name: math.inf for name in plays}, {name: math.inf for name in plays}
    for _ in range(repeat):
        for name, play in plays.items():
            start, used = time.perf_counter(), time.process_time()
            play()
            clock[name] = min(clock[name], time.perf_counter() - start)
            work[name] = min(work[name], time.process_time() - used)
    return clock, work


FIRST_CALL = """
import sys, time
sys.path.insert(0, {folder!r})
import sweep
market = sweep.make_market(20, 600)
data, rules = sweep.arrays_of(market), sweep.grid(10)
start = time.process_time()
sweep.ours(data, rules, 1)
print(time.process_time() - start)
"""


def first_call_s() -> float:
    """Processor seconds of the first call in a fresh process, from Numba's cache on disk."""
    script = FIRST_CALL.format(folder=str(Path(__file__).parent))
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--json", type=Path, help="write the figures here")
    ask.add_argument("--coins", type=int, default=20)
    ask.add_argument("--hours", type=int, default=17_520)
    ask.add_argument("--sets", type=int, default=1000)
    ask.add_argument("--vectorbt-sets", type=int, default=20, help="spread over the grid")
    ask.add_argument("--repeat", type=int, default=5)
    ask.add_argument("--checked", type=int, default=4, help="sets that the referee plays, for each rival")
    asked = ask.parse_args()
    threads = os.cpu_count() or 1
    market, rules = make_market(asked.coins, asked.hours), grid(asked.sets)
    few, small = grid(asked.vectorbt_sets), make_market(asked.coins, 600)
    data, small_data = arrays_of(market), arrays_of(small)
    stepped = data._replace(legs=with_steps(data.legs), pairs=with_steps(data.pairs))
    ours(small_data, grid(20), threads)
    ours(data, rules, threads)
    own_mb = peak_mb()
    sweep_rivals.tuned_kernel(small, grid(20), threads)
    sweep_rivals.vectorbt_best(small, grid(4))
    plays = {
        "ours": lambda: ours(data, rules, threads),
        "kernel": lambda: sweep_rivals.tuned_kernel(market, rules, threads),
        "vectorbt": lambda: sweep_rivals.vectorbt_best(market, few),
        "one": lambda: ours(data, rules, 1),
        "full": lambda: ours(stepped, rules, threads, textbook=False),
    }
    first = {name: play() for name, play in plays.items() if name in ("ours", "kernel", "vectorbt")}
    some = [int(place) for place in np.linspace(0, len(rules) - 1, asked.checked)]
    check("the sweep", market, rules, first["ours"], some)
    check("the tuned kernel", market, rules, first["kernel"], some)
    check("vectorbt", market, few, first["vectorbt"], [0, len(few) // 2])
    np.testing.assert_allclose(first["ours"][:, :4], first["kernel"][:, :4], atol=0.005)  # every set
    clock, work = timed(plays, asked.repeat)
    per_s = {name: (len(few) if name == "vectorbt" else asked.sets) / clock[name] for name in plays}
    per_work_s = {name: (len(few) if name == "vectorbt" else asked.sets) / work[name] for name in plays}
    figures = {
        "sets": asked.sets,
        "rows": 2 * asked.coins * asked.hours,
        "threads": threads,
        "sets_per_s": round(per_s["ours"], 1),
        "sets_per_s_one_thread": round(per_s["one"], 1),
        "full_model_sets_per_s": round(per_s["full"], 1),
        "kernel_sets_per_s": round(per_s["kernel"], 1),
        "vectorbt_sets_per_s": round(per_s["vectorbt"], 2),
        "ratio_to_vectorbt": round(per_s["ours"] / per_s["vectorbt"], 1),
        "fraction_of_kernel": round(per_s["ours"] / per_s["kernel"], 3),
        "ratio_to_vectorbt_by_processor_time": round(per_work_s["one"] / per_work_s["vectorbt"], 1),
        "fraction_of_kernel_by_processor_time": round(per_work_s["ours"] / per_work_s["kernel"], 3),
        "first_call_s": round(first_call_s(), 2),
        "peak_rss_before_rivals_mb": round(own_mb),
        "checked_by_referee": 2 * asked.checked + 2,
    }
    print(json.dumps(figures, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
