"""A few real kills of a run that learns: a part of bench/chaos.py."""

from pathlib import Path

from bench.chaos import wreak

NUM_KILLS = 3


def test_a_run_that_is_killed_and_resumed_decides_and_learns_what_the_unbroken_one_does(tmp_path: Path) -> None:
    tally = wreak(tmp_path, NUM_KILLS, seed=5)
    assert tally.kills.total() == NUM_KILLS
    assert (tally.lost, tally.duplicated, tally.digest_equal) == (0, 0, True)
    assert tally.orphans == []
