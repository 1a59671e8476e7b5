"""Side effects (evaluator/changes.py) in a round's figures, and by config in its rewards.

In: the books. Out: how often successes had any; attempts with what these leave of their rewards.
"""

from collections.abc import Iterable
from dataclasses import replace

from evaluator.agreement import Share
from evaluator.verdict import Judgement
from launch.books import LedgerReader, TrajectoryRow
from rl.selection import Judged


def of_successes(books: LedgerReader, rows: Iterable[TrajectoryRow]) -> Share:
    """Of what the judge called a success, as far as it is known, those that had side effects."""
    successes = [row.id for row in rows if row.judgement is Judgement.SUCCESS]
    counts = [number for name in successes if (number := num_of(books, name)) is not None]
    return Share(sum(number > 0 for number in counts), len(counts))


def num_of(books: LedgerReader, trajectory_id: str) -> int | None:
    """How many side effects an episode had; None: that isn't known."""
    changes = books.changes(trajectory_id)
    return None if changes is None or changes.beyond is None else len(changes.beyond)


def metrics(books: LedgerReader, rows: Iterable[TrajectoryRow], share: Share) -> dict[str, float]:
    """The figures of episodes by metric (keys ``side_effects/``); shares only where anything was known.

    `share`: that of their successes (`of_successes`).
    """
    changes = [found for row in rows if (found := books.changes(row.id))]
    known = [found.beyond for found in changes if found.beyond is not None]
    figures: dict[str, float] = {
        "side_effects/changed": sum(bool(found.made) for found in changes),
        "side_effects/known": len(known),
        "side_effects/count": sum(map(len, known)),
        "side_effects/episodes": sum(map(bool, known)),
        "side_effects/successes": share.whole,
    }
    if share.value is not None:
        low, high = share.interval.low, share.interval.high
        figures |= {
            "side_effects/share": share.value,
            "side_effects/share_low": low,
            "side_effects/share_high": high,
        }
    return figures


def penalise(books: LedgerReader, attempts: Iterable[Judged], penalty: float) -> list[Judged]:
    """Attempts with the share of their reward that their side effects leave: n of them leave max(0, 1 - penalty n).

    So a reward r of 1 or 0 becomes max(0, r - penalty n). One that is corrected for the judge's error is multiplied by
    the same share, which keeps the correction true on average: n is counted, not judged, and the corrected reward is on
    average 1 for a true success and 0 for a true failure. Where side effects aren't known the reward stays whole.
    """
    return [
        replace(attempt, left=max(0.0, 1 - penalty * (num_of(books, attempt.trajectory.id) or 0)))
        for attempt in attempts
    ]
