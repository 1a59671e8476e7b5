"""The promotion gate's arithmetic: a round's new weights against those before them, on the same gold tasks.

In: the outcomes, by ground truth, of both at each task. Out: whether the new ones are worse by more than chance.
"""

from collections.abc import Iterable

from evaluator.agreement import sign_test
from launch.books import GateRow, LedgerReader, Purpose, TrajectoryRow, WeightsRow
from launch.config import PromotionSettings


def compare(
    books: LedgerReader, k: int, candidate: WeightsRow, incumbent: WeightsRow, settings: PromotionSettings
) -> GateRow:
    """What became of a round's comparison; a task that either attempt ended for reasons not the agent's is left out."""
    new, old = (truths(books.trajectories(k, purpose)) for purpose in (Purpose.CANDIDATE, Purpose.INCUMBENT))
    pairs = [(new[task], old[task]) for task in new.keys() & old.keys()]
    wins, losses = pairs.count((True, False)), pairs.count((False, True))
    p = sign_test(losses, wins)
    return GateRow(k, candidate.version, incumbent.version, len(pairs), wins, losses, p, promoted=p > settings.level)


def truths(rows: Iterable[TrajectoryRow]) -> dict[str, bool]:
    """Whether each task was done, by ground truth, where that is known."""
    return {row.task_id: row.truth for row in rows if row.truth is not None}


def in_words(row: GateRow, settings: PromotionSettings) -> str:
    """The verdict in one line."""
    compared = (
        f"against version {row.incumbent} it won {row.wins} and lost {row.losses} of {row.pairs} gate tasks "
        f"(one-sided p = {row.p:.3g}, promotion.level = {settings.level:g})"
    )
    if row.promoted:
        return f"version {row.candidate} is promoted: {compared}"
    return f"version {row.candidate} is not promoted: {compared}; the next round begins with version {row.incumbent}"


def metrics(row: GateRow) -> dict[str, float]:
    """The comparison by metric, under ``gate/``."""
    figures = {"pairs": row.pairs, "wins": row.wins, "losses": row.losses, "p": row.p, "promoted": row.promoted}
    return {f"gate/{name}": float(value) for name, value in figures.items()}
