"""Count false promotions on pure noise, and promotions of a planted spread, over many seeds.

    python tests/benchmarks/honesty.py --seeds 100 [--days 90] [--json FILE]

Sets are evaluated on funding less costs, pair by pair; the replay gate, which asks whether two engines
agree and not whether there is an edge, is taken as passed. Noise is traded free of fees and slippage: with them every set loses and nothing
would be asked of the gates.
"""

import argparse
import json
import sys
import tempfile
from itertools import product
from pathlib import Path

from fundarb.config.seals import failing
from fundarb.research.promotion import scorecard
from fundarb.research.validation import CarryEvaluator, Examination, examine
from fundarb.research.worlds import WorldSpec, make_world
from fundarb.strategies.cross_funding_signal import CrossFundingParams

SETS = [
    CrossFundingParams(slow_h=slow, fast_h=12, horizon_h=168, persistence=keep, enter_edge_bps=edge, cool_down_h=0)
    for slow, keep, edge in product((24, 72, 168), (0.5, 1.0), (0.0, 10.0))
]
PLAN = Examination(train_days=40, test_days=20, draws=300, placebos=2)


def examined(kind: str, seed: int, free: bool = False, days: int = 120, coins: int = 4):
    """Make a world, examine its best set and put it through the gates."""
    fees = {"binance": 0.0, "hyperliquid": 0.0} if free else {"binance": 5.0, "hyperliquid": 4.5}
    evaluate = CarryEvaluator(fees, 0.0 if free else 4.0)
    with tempfile.TemporaryDirectory() as scratch:
        spec = WorldSpec(kind=kind, seed=seed, days=days, coins=coins)
        source = make_world(Path(scratch) / "world", spec)
        sets = [s.model_copy(update={"capital_rate_year": 0.0}) for s in SETS] if free else SETS
        figures = examine(evaluate, source, sets, evaluate(source, sets), PLAN)
    return figures, scorecard(figures | {"replay_gap_frac": 0.0}, len(SETS))


def promoted(kind: str, seed: int, **world) -> bool:
    """Tell whether every gate holds for the best set of a world."""
    return not failing(examined(kind, seed, **world)[1])


def main() -> None:
    """Run the seeds and print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--planted", type=int, default=10)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    false, traded = [], 0
    for seed in range(asked.seeds):
        figures, gates = examined("noise", seed, free=True, days=asked.days)
        traded += figures["winner"] is not None
        if not failing(gates):
            false.append(seed)
        print(f"{seed + 1} seeds, {traded} with a winner, promoted {false}", file=sys.stderr, flush=True)
    found = [seed for seed in range(asked.planted) if promoted("planted", 1000 + seed, days=asked.days)]
    result = {"days": asked.days, "noise_seeds": asked.seeds, "noise_promoted": false, "noise_with_a_winner": traded}
    result |= {"planted_seeds": asked.planted, "planted_promoted": len(found)}
    print(json.dumps(result, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
