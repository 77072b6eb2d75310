"""Every fault of the sandbox and every phase of a pair's life, through real sockets: the part of the matrix that fits into a minute.

The whole of it: python tests/faults/fault_matrix.py --all
"""

import json
from collections import Counter
from pathlib import Path

import fault_table as table
import pytest
from fault_matrix import BOUND_S, MOST_USD, play_all

from fundarb.sandbox.faults import KNOWN_FAULTS

pytestmark = pytest.mark.timeout(600)  # half a minute, on a machine that is not busy
SESSIONS = 4  # beside each other; most of their time they wait


@pytest.fixture(scope="module")
def played():
    results, wrong = play_all(table.part(), SESSIONS)
    return {(result["fault"], result["phase"]): result for result in results}, wrong


def test_the_table_has_every_fault_of_the_sandbox():
    assert list(table.FAULTS) == list(table.OUTCOMES)
    assert set(table.FAULTS) == {kind.__struct_config__.tag for kind in KNOWN_FAULTS}


def test_the_part_has_every_fault_and_every_phase_several_times():
    cells = table.part()
    assert [fault for fault, _ in cells] == list(table.FAULTS)
    phases = Counter(phase for _, phase in cells)
    assert set(phases) == set(table.PHASES) and min(phases.values()) >= 3


@pytest.mark.parametrize(("fault", "phase"), table.part())
def test_a_pair_ends_where_the_table_says(fault, phase, played):
    """Its end, its naked time and notional by the venues' own trail, the books to the cent, and who was told."""
    results, _ = played
    assert table.judge(results[fault, phase], MOST_USD, BOUND_S) == [], results[fault, phase]


def test_sessions_end_flat_replay_and_send_nothing_twice(played):
    _, wrong = played
    assert wrong == []


def test_the_notebook_shows_this_table():
    """What the operator reads is what is asserted here."""
    notebook = Path(__file__).parents[2] / "nbs" / "70a_sandbox_faults.ipynb"
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"]}
    assert "\n".join(table.as_table()) in cells["about-matrix"]
