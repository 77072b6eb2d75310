"""A trader that is killed between two sends, with a fill not booked and while it recovers: nothing is lost, nothing is doubled."""

import crash_drill
import pytest

KINDS = ("between the sends", "recovery", "fill not booked")  # the long form, by hand, has all and chooses by chance


@pytest.mark.timeout(600)  # two processes and four starts, on a machine that may be busy
def test_nothing_is_lost_or_doubled_by_a_killed_trader(tmp_path):
    measured = crash_drill.hold(tmp_path, 5, KINDS)
    assert sum(measured["kills"].values()) >= 2 and measured["fills"] > 0
    assert measured["kills"].get("between the sends") == 1
