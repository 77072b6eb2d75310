"""A session on a sandbox, and what is done to it from outside."""

import json
import os
import subprocess
import urllib.request

import crash_drill as drill

HOUR_NS = 3_600 * 10**9


class Desk:
    """A sandbox, and what is done to the session that trades there."""

    def __init__(self, folder, control):
        self.folder, self.control, self.session, self.log = folder, control, folder / "session", folder / "trader.log"
        self.env = os.environ.copy()

    def trade(self, kind="live"):
        words = (kind, "--sandbox", self.folder / "sandbox.json", "--session", self.session, "--symbols", drill.SYMBOLS)
        words += ("--params", drill.ROOT / "params" / "cross_funding" / "demo.json")
        with self.log.open("a") as log:
            return drill.fundarb(*words, stdout=log, stderr=log, env=self.env)

    def trade_until_filled(self, running):
        """Trade until two orders have filled, at the pace of a clock on the wall from then on."""
        running.append(trader := self.trade())
        drill.wait_for("fills", lambda: drill.there(self.control, "fills") >= 2, trader)
        self.clock(speed=1)
        return trader

    def say(self, *words):
        process = drill.fundarb(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env)
        return process.communicate(timeout=drill.PATIENCE_S)[0], process.returncode

    def kill(self, *words):
        said, code = self.say("kill", *words, "--session", self.session)
        assert code == 0 and "hears it within a second" in said, said

    def control_post(self, path, said, method="POST"):
        request = urllib.request.Request(f"{self.control}{path}", json.dumps(said).encode(), method=method)
        with urllib.request.urlopen(request, timeout=60):
            pass

    def clock(self, **words):
        self.control_post("/clock", words)

    def refuse_orders(self):
        self.control_post("/faults", [{"fault": "reject_order", "times": 0}])

    def take_orders(self):
        self.control_post("/faults", [], "DELETE")

    def tail(self):
        return self.log.read_text()[-3000:]

    def now_ns(self):
        return drill.ask(f"{self.control}/state")["now_ns"]

    def pass_hours(self, hours, trader):
        """Let the market go on as fast as it is read, then at the pace of a clock on the wall."""
        until_ns = self.now_ns() + hours * HOUR_NS
        self.clock(speed=0)
        drill.wait_for(f"{hours} hours", lambda: self.now_ns() >= until_ns, trader)
        self.clock(speed=1)

    def positions(self):
        return [books["positions"] for books in drill.ask(f"{self.control}/state")["venues"].values() if books["positions"]]

    def wait_for(self, kind, number, trader):
        drill.wait_for(kind, lambda: drill.count(self.folder, kind) >= number, trader)

    def ends(self, trader, code):
        assert trader.wait(drill.PATIENCE_S) == code, self.log.read_text()[-3000:]
        assert "Traceback" not in self.log.read_text(), self.log.read_text()[-3000:]

    def said(self, kind):
        found = drill.rows(self.folder, "SELECT payload FROM entries WHERE kind = ? ORDER BY seq", kind)
        return [json.loads(payload)["message"] for (payload,) in found]
