"""What is expected of a pair at each fault and phase: one table, which the notebook shows and the matrix is held against."""

from collections.abc import Callable
from typing import Any, NamedTuple

PHASES = ("waiting", "entering, long leg", "entering, short leg", "open", "settlement", "exiting, long leg", "exiting, short leg", "repairing")
HOW = {phase: phase.partition(",")[0] for phase in PHASES}
STRIKES_LONG = {"waiting", "entering, long leg", "exiting, long leg", "open"}

ORDER = {"binance": "POST /fapi/v1/order", "hyperliquid": "POST /exchange order", "okx": "POST /api/v5/trade/batch-orders"}
BOOKS = {"binance": "*@depth*", "hyperliquid": "l2Book:*", "okx": "books/*"}
OWN = {"binance": ("ORDER_TRADE_UPDATE",), "hyperliquid": ("orderUpdates*", "userFills*"), "okx": ("orders/*",)}
IN_ORDER = {"entering", "exiting", "repairing"}
VENUES = ("binance", "hyperliquid", "okx")


class FaultSpec(NamedTuple):
    """How a fault is told to the sandbox."""

    script: Callable[[Any], list[dict[str, Any]]]
    hold_s: float = 2.0  # wall time for which it stands
    lasts: bool = False  # it stands until the pair is settled
    venues: tuple[str, ...] = VENUES
    strikes: str = "sent"  # before the struck order leaves; "traded": when it has traded
    mend: Callable[[Any], list[dict[str, Any]]] = lambda cell: []


def request(fault, **words):
    """A fault of a request: of the order alone where there is one, else of every request for a while."""

    def script(cell):
        if HOW[cell.phase] in IN_ORDER:
            return [{"fault": fault, "venue": cell.struck, "endpoint": ORDER[cell.struck], **words}]
        return [{"fault": fault, "venue": cell.struck, "times": 0, **words}]

    return script


def plain(fault, **words):
    return lambda cell: [{"fault": fault, "venue": cell.struck, **words}]


def of_coin(fault, **words):
    return lambda cell: [{"fault": fault, "venue": cell.forced_at, "symbol": cell.symbol, **words}]


def own(fault, **words):
    """A fault of the account's own stream, and of the books."""

    def script(cell):
        streams = (*OWN[cell.struck], BOOKS[cell.struck])
        return [{"fault": fault, "venue": cell.struck, "endpoint": name, **words} for name in streams]

    return script


def lagging(cell):
    lost = request("reset", executed=True)(cell) if HOW[cell.phase] in IN_ORDER else []
    return [{"fault": "lag", "venue": cell.struck, "seconds": 2.0}, *lost]


def stale(cell):
    gap = {"fault": "drop_push", "venue": cell.struck, "endpoint": BOOKS[cell.struck]}
    return [gap, {"fault": "stale_snapshot", "venue": cell.struck, "times": 0}]


FAULTS = {
    "delay": FaultSpec(request("delay", seconds=1.0)),
    "late": FaultSpec(request("late", seconds=1.0)),
    "reset": FaultSpec(request("reset")),
    "hang": FaultSpec(request("hang", seconds=30.0)),
    "error": FaultSpec(request("error", status=503)),
    "truncate": FaultSpec(request("truncate")),
    "stale_snapshot": FaultSpec(stale),
    "reject_order": FaultSpec(plain("reject_order")),
    "fill_partly": FaultSpec(plain("fill_partly", share="0.5")),
    "lag": FaultSpec(lagging),
    "drop_push": FaultSpec(own("drop_push", times=0)),
    "duplicate_push": FaultSpec(own("duplicate_push", times=0)),
    "swap_pushes": FaultSpec(own("swap_pushes")),
    "freeze": FaultSpec(plain("freeze"), hold_s=3.0),
    "mute_pongs": FaultSpec(plain("mute_pongs"), hold_s=3.0),
    "cross_book": FaultSpec(lambda cell: [{"fault": "cross_book", "venue": cell.struck, "endpoint": cell.symbol, "times": 0}], hold_s=3.0),
    "refuse_connect": FaultSpec(lambda cell: [{"fault": "refuse_connect", "venue": cell.struck, "times": 0}, {"fault": "disconnect", "venue": cell.struck}]),
    "disconnect": FaultSpec(plain("disconnect")),
    "down": FaultSpec(plain("down", seconds=60), hold_s=3.0),
    "expire_listen_key": FaultSpec(plain("expire_listen_key"), venues=("binance",)),
    "skew_clock": FaultSpec(plain("skew_clock", milliseconds=-3000), mend=plain("skew_clock", milliseconds=0)),
    "key_rights": FaultSpec(plain("key_rights"), mend=plain("key_rights", withdraw=False)),
    "change_interval": FaultSpec(of_coin("change_interval", interval_h=4)),
    "deleverage": FaultSpec(of_coin("deleverage", share="0.5"), strikes="traded"),
    "liquidate": FaultSpec(of_coin("liquidate"), strikes="traded"),
    "delist": FaultSpec(of_coin("delist"), lasts=True),
}


# fault: (entry while it stands, entering, open or over a settlement, exiting, repairing, at most naked (s), what it is here)
QUICK_S, SLOW_S = 5, 12  # mended at once; after unknown_guard_s, or when prices are known and orders taken again
OUTCOMES = {
    "delay": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "answers come 1 s late"),
    "late": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "requests arrive 1 s late"),
    "reset": ("refused", "OPEN", "OPEN", "IDLE", "OPEN", SLOW_S, "the line is cut, the order never arrived"),
    "hang": ("refused", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "executed, and never answered"),
    "error": ("refused", "OPEN", "OPEN", "IDLE", "OPEN", SLOW_S, "HTTP 503, not executed"),
    "truncate": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "executed, and answered with half a body"),
    "stale_snapshot": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", SLOW_S, "a gap in the book, and an old book to mend it with"),
    "reject_order": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN or IDLE", QUICK_S, "the matching engine refuses one order"),
    "fill_partly": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "half of one order trades"),
    "lag": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "the answer is lost, and the order not found for 2 s"),
    "drop_push": ("refused or OPEN", "OPEN", "OPEN", "IDLE", "OPEN", SLOW_S, "nothing of our orders and of the books is pushed"),
    "duplicate_push": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "all of that is pushed twice"),
    "swap_pushes": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "one push of each comes after the next"),
    "freeze": ("refused or OPEN", "OPEN", "OPEN", "IDLE", "OPEN or IDLE", SLOW_S, "all streams are silent, and the sockets alive"),
    "mute_pongs": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "the sockets look dead"),
    "cross_book": ("refused or OPEN", "OPEN", "OPEN", "IDLE", "OPEN", SLOW_S, "books whose bid is above their ask"),
    "refuse_connect": ("refused or OPEN", "OPEN", "OPEN", "IDLE", "OPEN", SLOW_S, "the sockets are closed, and no other is let in"),
    "disconnect": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "the sockets are cut"),
    "down": ("refused", "OPEN", "OPEN", "IDLE", "OPEN", SLOW_S, "the venue is gone for 3 s"),
    "expire_listen_key": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "Binance lets our stream expire"),
    "skew_clock": ("refused", "OPEN or IDLE", "OPEN", "IDLE", "OPEN or IDLE", SLOW_S, "the venue's clock is 3 s behind"),
    "key_rights": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "the key may withdraw: seen at the next start"),
    "change_interval": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN", QUICK_S, "the coin settles every 4 h from the next hour on"),
    "deleverage": ("OPEN", "OPEN", "OPEN", "IDLE", "OPEN or IDLE", QUICK_S, "half of the leg is closed by force"),
    "liquidate": ("OPEN", "IDLE", "IDLE", "IDLE", "IDLE", QUICK_S, "the leg is taken away"),
    "delist": ("OPEN or IDLE", "OPEN or IDLE", "OPEN", "IDLE", "OPEN or IDLE", QUICK_S, "the coin may only be reduced"),
}
COLUMNS = ("waiting", "entering", "open", "exiting", "repairing")
FORCED = ("deleverage", "liquidate")


def expected(fault, phase):
    """Look up where a pair ends; "A or B": the cheaper of two ways decides."""
    how = "open" if phase == "settlement" else HOW[phase]
    return OUTCOMES[fault][COLUMNS.index(how)]


def judge(result, size_usd, bound_s):
    """Compare what a cell came to with what the table says; return what differs."""
    if result["broke"]:
        return [result["broke"]]
    fault, phase = result["fault"], result["phase"]
    end = "refused" if result["note"] == "refused" else result["end"]
    most_s, wanted = OUTCOMES[fault][len(COLUMNS)], expected(fault, phase).split(" or ")
    found = [] if end in wanted else [f"ends {end}, not {' or '.join(wanted)}"]
    if end == "refused" and not (result["why"] and result["recovered"] == "entered"):
        found.append(f"refused because of {result['why']!r}, and afterwards {result['recovered']!r}")
    if not result["naked_s"] <= most_s <= bound_s:
        found.append(f"naked for {result['naked_s']} s, allowed {most_s}, by the settings {bound_s}")
    if result["naked_usd_s"] > size_usd * most_s or result["max_naked_usd"] > size_usd:
        found.append(f"naked by {result['max_naked_usd']} USD, {result['naked_usd_s']} USD s")
    if result["gap"]:
        found.append(f"books differ: {result['gap']}")
    if result["stops"]:
        found.append(f"stopped: {result['stops']}")
    loud = any(text.startswith("critical") for text in result["alerts"])
    if loud != (fault in FORCED and phase != "waiting"):
        found.append(f"a person heard {result['alerts']}")
    return found


def part():
    """Choose a part: every fault once, every phase three times or more."""
    return [(fault, PHASES[3 * number % len(PHASES)]) for number, fault in enumerate(FAULTS)]


def as_table():
    """Write the table as the notebook shows it."""
    head = "| fault | what it is here | entry meanwhile | entering | open, over a settlement | exiting | repairing | at most naked, s |"
    rows = [f"| `{fault}` | {row[-1]} | {' | '.join(row[:5])} | {row[5]} |" for fault, row in OUTCOMES.items()]
    return [head, "|:--|:--|:--|:--|:--|:--|:--|--:|", *rows]
