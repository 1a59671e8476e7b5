"""How far the judge agrees with ground truth, and intervals for shares."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from evaluator.verdict import Judgement, Verdict

Z_95 = 1.959964
"""97.5 % quantile of the normal distribution, for two-sided 95 % intervals."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval of a share."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Judge against ground truth over one set of episodes."""

    precision: float | None
    """Share of the judge's successes that are true; None if it said success nowhere."""
    recall: float | None
    """Share of the true successes that the judge called success; None if there were none."""
    abstained: float | None
    """Share left undecided; None without episodes."""
    n: int


def agreement(pairs: Iterable[tuple[bool, Verdict]]) -> Agreement:
    """Precision and recall of success verdicts; an undecided verdict counts against recall, not precision."""
    rows = [(truth, verdict.judgement) for truth, verdict in pairs]
    hits = sum(truth and judged is Judgement.SUCCESS for truth, judged in rows)
    claimed = sum(judged is Judgement.SUCCESS for _, judged in rows)
    real = sum(truth for truth, _ in rows)
    undecided = sum(judged is Judgement.UNDECIDED for _, judged in rows)
    return Agreement(_share(hits, claimed), _share(hits, real), _share(undecided, len(rows)), len(rows))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval of a share (E. B. Wilson, 1927); (0, 1) without observations."""
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
