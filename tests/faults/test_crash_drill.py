"""The trader is killed at seeded moments and started again with the same words: no order twice, no fill lost."""

from crash_drill import hold

KILLS = 4  # `crash_drill.py --count` goes on for longer


def test_a_killed_session_comes_to_the_same_books_as_the_venues(tmp_path):
    measured = hold(tmp_path, seed=0, kills=KILLS)
    assert measured["kills"].get("order"), measured
    assert measured["fills"] > 0 and measured["orders"] > 0, measured
