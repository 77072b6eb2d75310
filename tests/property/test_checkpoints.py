"""A core that goes on from a checkpoint cannot be told from one that never stopped, wherever it was taken."""

import os
import subprocess
import sys
from decimal import Decimal
from functools import cache
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundarb.apps.checkpointer import Checkpointer
from fundarb.apps.composition import build_core, make_recipe, parameter_schemas
from fundarb.apps.live_session import watchers
from fundarb.apps.open_orders import OpenOrders
from fundarb.apps.recovery import Cast, Snapshot, restore
from fundarb.apps.replayer import replay_run
from fundarb.apps.session import read_spec, trade, write_spec
from fundarb.apps.session_log import begin_log, database_of, opened_log
from fundarb.config.parameters import load_parameters
from fundarb.config.settings import StorageSettings, load_settings
from fundarb.core.engine import Engine, MemoryJournal, inputs_of
from fundarb.core.events import (
    AccountReported,
    FeedStale,
    KillSwitchReset,
    KillSwitchSet,
    OrderFilled,
    OrderPlaced,
    SessionEnding,
    SubmitOrder,
    TimerFired,
)
from fundarb.core.models import KillLevel
from fundarb.core.numbers import SECOND_NS
from fundarb.data_providers.synthetic import SyntheticMarket, default_instruments, default_spec
from fundarb.exchanges.simulated import SimulatedExchange
from fundarb.storage.audit_check import check_log
from fundarb.storage.audit_log import find_session, read_log
from fundarb.storage.checkpoints import freeze, thaw

ROOT = Path(__file__).parents[2]
SYMBOLS = ("DOGE", "SOL", "LINK")
SECOND_START = """
import sys
sys.path.insert(0, sys.argv[1])
import test_checkpoints
test_checkpoints.go_on(sys.argv[2], int(sys.argv[3]))
"""


def recipe():
    settings_, params = load_settings(ROOT / "settings.ini", {}), load_parameters(
        ROOT / "params/cross_funding/demo.json", parameter_schemas()
    )
    traded = [each for each in default_instruments(default_spec(7, 2)) if each.symbol in SYMBOLS]
    venues = sorted({each.venue for each in traded})
    deposits = dict.fromkeys(venues, Decimal(50_000))
    return make_recipe("live", "checkpointed", settings_, params, traded, deposits, simulated=venues)


def operated(market):
    """Have somebody stop a part of the session and let it go on, a feed fall silent, and an end asked for."""
    hour = None
    for event in market:
        yield event
        if not isinstance(event, TimerFired):
            continue
        hour, now_ns = 0 if hour is None else hour + 1, event.ts_init_ns
        if hour % 5 == 1:
            stop = {"level": KillLevel.PAUSE_ENTRIES, "scope": "okx", "reason": "maintenance", "who": "operator"}
            yield KillSwitchSet(ts_init_ns=now_ns, **stop)
        elif hour % 5 == 2:
            yield KillSwitchReset(ts_init_ns=now_ns, scope="okx", reason="over", who="operator")
        elif hour % 5 == 3:
            yield FeedStale(ts_init_ns=now_ns, venue="okx", symbol="SOL", stream="book", age_s=9.0, limit_s=5.0)
        elif hour == 44:
            yield SessionEnding(ts_init_ns=now_ns, reason="enough")


@cache
def recorded():
    """A session of two days: its recipe, its inputs and all that was said."""
    spec, journal = recipe(), MemoryJournal()
    latency_ns = {venue: ms * SECOND_NS // 1000 for venue, ms in spec.latency_ms.items()}
    exchange = SimulatedExchange(spec.instruments, latency_ns, spec.deposits_usd)
    market = SyntheticMarket(default_spec(7, 2), spec.instruments)
    trade(Engine(cast_of(spec).services, journal), exchange, operated(market))
    return spec, list(inputs_of(journal.entries)), journal.entries


def cast_of(spec):
    core = build_core(spec)
    return Cast(core, watchers(core, "checkpoints"))


def test_the_session_is_one_that_could_go_wrong():
    kinds = {type(entry.message) for entry in recorded()[2]}
    assert {OrderPlaced, OrderFilled, SubmitOrder, KillSwitchSet, AccountReported, FeedStale, TimerFired} <= kinds


# in memory: after any input, and more than once


@settings(max_examples=8)
@given(st.sets(st.integers(1, len(recorded()[1]) - 1), min_size=1, max_size=5))
def test_what_comes_after_is_what_would_have_come(stops):
    """Go on, at some inputs, with what was written down there; compare all that is said with the whole session."""
    spec, inputs, whole = recorded()
    cast, journal = cast_of(spec), MemoryJournal()
    engine = Engine(cast.services, journal)
    for number, event in enumerate(inputs):
        if number in stops:
            cast = thaw(freeze(Snapshot(cast, OpenOrders(), 0))).cast
            engine = Engine(cast.services, journal, len(journal.entries))
        engine.turn(event)
    assert journal.entries == whole
    assert cast.watching[0].rows == rows_of_whole()


@cache
def rows_of_whole():
    """What a recorder has that heard the session without a stop."""
    spec, inputs, _ = recorded()
    cast = cast_of(spec)
    engine = Engine(cast.services, MemoryJournal())
    for event in inputs:
        engine.turn(event)
    return cast.watching[0].rows


# in a database, across processes


@pytest.fixture(params=["sqlite", "postgres"])
def session(request, tmp_path):
    """A session's folder with its recipe, and where its log is to be kept."""
    url, name = "sqlite", f"checkpointed-{os.getpid()}-{tmp_path.name}"  # a server may be others' as well
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").replace("postgres:@", "postgres@")
    write_spec(tmp_path, msgspec.structs.replace(recipe(), session_id=name))
    return tmp_path, StorageSettings(url=url)


def build(spec):
    """The core of the recorded session, whatever this one is called: its order ids are to be the same."""
    return build_core(msgspec.structs.replace(spec, session_id="checkpointed"))


def watch(core):
    return watchers(core, "checkpoints")


def begin(session, until, checkpoints):
    """Trade up to an input, with checkpoints after some, and die there with everything flushed."""
    log, core = begin_log(*session), build(recipe())
    cast = Cast(core, watch(core))
    keeper = Checkpointer(log, cast, OpenOrders(), every=0, failed=pytest.fail)
    engine = Engine(cast.services, log)
    for number, event in enumerate(recorded()[1][:until], 1):
        engine.turn(event)
        if number in checkpoints:
            assert keeper.write(event.ts_init_ns)
    log.flush()
    log.abandon()


def finish(session):
    """Restore a session and give it the rest of the inputs; return how it was restored."""
    restored = restore(*session, build=build, watch=watch)
    heard = sum(entry.cause_seq is None for entry in recorded()[2][: restored.log.last_seq])
    engine = Engine(restored.cast.services, restored.log, restored.log.last_seq)
    for event in islice(recorded()[1], heard, None):
        engine.turn(event)
    restored.log.close()
    assert restored.cast.watching[0].rows == rows_of_whole()
    return restored


def assert_whole(session):
    with opened_log(str(session[0]), session[1]) as (connection, row):
        assert check_log(connection, row.session_id).flaws == ()
        assert list(read_log(connection, row)) == recorded()[2]


@pytest.fixture(scope="module")
def placed():
    """The number of the input in whose turn the first order is placed, and of that which fills it."""
    inputs = [entry for entry in recorded()[2] if entry.cause_seq is None]
    number_of = {entry.seq: number for number, entry in enumerate(inputs, 1)}
    first = next(entry for entry in recorded()[2] if type(entry.message) is SubmitOrder)
    turn = max(seq for seq in number_of if seq < first.seq)
    fill = next(entry for entry in inputs if type(entry.message) is OrderFilled)
    return number_of[turn], number_of[fill.seq]


def test_a_restart_hears_what_came_after_the_newest(session, placed):
    begin(session, placed[1] + 900, {placed[1] - 300, placed[1] + 100})
    restored = finish(session)
    assert restored.refused == ()
    before = recorded()[2][: restored.heard_after]
    assert sum(entry.cause_seq is None for entry in before) == placed[1] + 100
    assert_whole(session)


def test_an_order_that_was_open_at_the_checkpoint_is_asked_for(session, placed):
    """The account of open orders is restored with the rest: the order is commanded before, its fill comes after."""
    begin(session, placed[0], {placed[0]})
    restored = restore(*session, build=build, watch=watch)
    restored.log.abandon()
    before = (entry.message for entry in recorded()[2][: restored.log.last_seq])
    commanded = [message.client_order_id for message in before if type(message) is SubmitOrder]
    assert restored.heard_after == restored.log.last_seq
    assert [known.order.client_order_id for known in restored.open_orders] == commanded != []
    assert all(known.may_have_left for known in restored.open_orders)
    finish(session)
    assert_whole(session)


def spoil(session, statement):
    """Do something to the newest checkpoint, as somebody with a console could."""
    database = database_of(*session)
    with database.begin() as connection:
        number = find_session(connection, read_spec(session[0]).session_id).session_no
        newest = f"seq = (SELECT max(seq) FROM checkpoints WHERE session_no = {number})"
        connection.exec_driver_sql(f"{statement} WHERE session_no = {number} AND {newest}")
    database.dispose()


FLIPPED = "UPDATE checkpoints SET state = state || CAST('x' AS {blob})"
FLAWS = {
    "a longer state": (FLIPPED, "its bytes are not what was written"),
    "another place": ("UPDATE checkpoints SET seq = seq + 1", "its bytes are not what was written"),
}


@pytest.mark.parametrize("what", FLAWS)
def test_one_that_was_changed_is_named_and_the_one_before_is_taken(session, what, placed):
    statement, said = FLAWS[what]
    begin(session, placed[1] + 500, {placed[1] + 100, placed[1] + 300})
    spoil(session, statement.format(blob="BLOB" if session[1].url == "sqlite" else "BYTEA"))
    restored = finish(session)
    assert len(restored.refused) == 1 and said in restored.refused[0] and "checkpoint #" in restored.refused[0]
    assert 0 < restored.heard_after < restored.log.last_seq
    assert_whole(session)


def test_one_of_other_code_is_refused_and_all_is_heard_again(session, placed, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("fundarb.storage.checkpoints.maker", lambda: b"another version of the code .....")
        begin(session, placed[1] + 500, {placed[1] + 100})
    restored = finish(session)
    assert "it was made by another version of the code" in restored.refused[0]
    assert restored.heard_after == 0
    assert_whole(session)


def test_a_state_that_is_not_what_it_should_be_is_found_out_by_what_follows(session, placed):
    """Its digest is right and its place is right; what it makes the core say is not what was said."""
    _, inputs, _ = recorded()
    log, core, other = begin_log(*session), build(recipe()), build(recipe())
    engine, wrong = Engine([*core.services, *watch(core)], log), Cast(other, watch(other))
    for event in inputs[: placed[0] - 1]:
        engine.turn(event)
    assert Checkpointer(log, wrong, OpenOrders(), every=0, failed=pytest.fail).write(inputs[placed[0] - 2].ts_init_ns)
    for event in inputs[placed[0] - 1 : placed[0] + 50]:
        engine.turn(event)
    log.abandon()
    restored = finish(session)
    assert "does not come out as it was" in restored.refused[0]
    assert restored.heard_after == 0
    assert_whole(session)


def go_on(folder, until):
    """What a second process does: restore from the checkpoint, trade on, and die again."""
    session = Path(folder), StorageSettings()
    restored = restore(*session, build=build, watch=watch)
    assert restored.heard_after, restored.refused
    heard = sum(entry.cause_seq is None for entry in recorded()[2][: restored.log.last_seq])
    keeper = Checkpointer(restored.log, restored.cast, restored.orders, every=0, failed=print)
    engine = Engine(restored.cast.services, restored.log, restored.log.last_seq)
    for event in recorded()[1][heard:until]:
        engine.turn(event)
    assert keeper.write(event.ts_init_ns)
    os.kill(os.getpid(), 9)


def test_another_process_goes_on_whatever_the_order_of_its_sets(tmp_path, placed):
    """Python hashes text differently in every process, so sets come back in another order there."""
    session = tmp_path, StorageSettings()
    write_spec(tmp_path, recipe())
    begin(session, placed[1] - 200, {placed[1] - 300})
    for seed, until in (("1", placed[1]), ("2", placed[1] + 1000)):
        words = [sys.executable, "-c", SECOND_START, str(Path(__file__).parent), str(tmp_path), str(until)]
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == -9, done.stderr
    restored = finish(session)
    assert restored.refused == () and restored.heard_after
    assert_whole(session)
    assert replay_run(tmp_path) is None
