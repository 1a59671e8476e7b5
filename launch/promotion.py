"""The promotion gate's arithmetic: a round's new weights against those before them, on the same gold tasks.

In: the outcomes, by ground truth, of both at each task. Out: whether the new ones are worse by more than chance.
"""

import math
from collections.abc import Iterable

from launch.books import GateRow, LedgerReader, Purpose, TrajectoryRow, WeightsRow
from launch.config import PromotionSettings


def sign_test(losses: int, wins: int) -> float:
    """Probability of at least so many losses if a loss is as likely as a win; 1 where there are neither.

    McNemar's test, exact and one-sided: pairs that went alike say nothing. sign_test(5, 0) == 1/32.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """
    num = losses + wins
    return sum(math.comb(num, number) for number in range(losses, num + 1)) / 2**num


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
