"""What keeping the audit log costs a live session: from the venues' bytes to the chained row, over real sockets.

A trader on a sandbox in another process, by turns with its audit log and with one that forgets whatever it is told.
Processor time of the trader alone, all its threads, by entry: sessions over sockets are never twice the same.

    python tests/benchmarks/live_session.py --json result.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fundarb.apps import live_trader
from fundarb.apps.cli import main as fundarb
from fundarb.storage.audit_log import AuditLog

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params/cross_funding/demo.json"
SETTINGS = ("--settings", ROOT / "settings.ini")
TARGETS = {"live_session_with_audit_over_without": 1.10}


def forget():
    """Let audit logs take everything and keep nothing."""
    AuditLog.append = AuditLog.append_input = lambda *_: None
    AuditLog.write = AuditLog.flush = lambda _: None


def trade(kept, sandbox, folder, hours):
    """Run one session in this process, and print what it took."""
    if not kept:
        forget()
    run = live_trader.run_session

    async def timed(session, *others):
        began_s = time.process_time()
        closed, reports = await run(session, *others)
        spent_s = time.process_time() - began_s
        (folder / "spent.json").write_text(json.dumps({"cpu_s": spent_s, "entries": session.loop._engine._last_seq}))
        return closed, reports

    live_trader.run_session = timed
    words = ("live", "--sandbox", sandbox, "--session", folder / "session", "--hours", hours, "--symbols", "all")
    sys.argv = ["fundarb", *map(str, (*words, "--params", PARAMS, *SETTINGS))]
    fundarb()


def session_us(kept, hours):
    """Serve a sandbox, trade on it in yet another process: microseconds of processor time by entry."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sandbox, log = folder / "sandbox.json", (folder / "log").open("w")
        served = ("sandbox", "--json", sandbox, "--days", 3, "--speed", 0, *SETTINGS)
        command = "from fundarb.apps.cli import main; main()"
        server = subprocess.Popen([sys.executable, "-c", command, *map(str, served)], cwd=ROOT, stdout=log, stderr=log)
        try:
            while not sandbox.exists():
                time.sleep(0.1)
                if server.poll() is not None:
                    raise SystemExit((folder / "log").read_text())
            words = (__file__, "--trade", "kept" if kept else "forgotten", "--place", folder, "--hours", hours)
            subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, stdout=log, stderr=log, check=False)
        finally:
            server.kill()
            server.wait()
            log.close()
        if not (folder / "spent.json").exists():
            raise SystemExit((folder / "log").read_text())
        spent = json.loads((folder / "spent.json").read_text())
        return spent["cpu_s"] * 1e6 / spent["entries"]


def rounds(number, hours):
    """Measure by turns; each ratio is of one round."""
    out = {"live_without_us_per_entry": [], "live_with_audit_us_per_entry": [], "live_session_with_audit_over_without": []}
    for _ in range(number):
        without, kept = session_us(False, hours), session_us(True, hours)
        for name, value in zip(out, (without, kept, kept / without), strict=True):
            out[name].append(value)
    return {name: statistics.median(values) for name, values in out.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=float, default=30.0, help="of the market, in each session")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trade", choices=("kept", "forgotten"), help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.trade:
        trade(asked.trade == "kept", asked.place / "sandbox.json", asked.place, asked.hours)
        return
    result = rounds(asked.rounds, asked.hours)
    for name, value in result.items():
        target = TARGETS.get(name)
        held = "" if target is None else f"   target <= {target:g}: {'held' if value <= target else 'MISSED'}"
        print(f"{name:38} {value:14,.2f}{held}")
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
