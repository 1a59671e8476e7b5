"""How far the judge agrees with ground truth, and with itself, each share with its interval."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluator.verdict import Judgement, Verdict

Z_95 = 1.959964
"""97.5 % quantile of the normal distribution, for two-sided 95 % intervals."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval of a share."""

    low: float
    high: float


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval of a share (E. B. Wilson, 1927); (0, 1) without observations."""
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # The ends exactly, whatever rounding makes of them: an alarm that tolerates nothing sees nothing in 0 of n.
    return Interval(centre - half if successes else 0.0, centre + half if successes < n else 1.0)


def sign_test(losses: int, wins: int) -> float:
    """Probability of at least so many losses if a loss is as likely as a win; 1 where there are neither.

    McNemar's test, exact and one-sided: pairs that went alike say nothing. sign_test(5, 0) == 1/32.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """
    num = losses + wins
    return sum(math.comb(num, number) for number in range(losses, num + 1)) / 2**num


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, counted."""

    part: int
    whole: int

    @property
    def value(self) -> float | None:
        """None where the whole is nothing: not measured, which isn't 0."""
        return self.part / self.whole if self.whole else None

    @property
    def interval(self) -> Interval:
        """95 %, by Wilson."""
        return wilson(self.part, self.whole)

    def __str__(self) -> str:
        """In per cent with its interval: ``97 [91, 99]``; ``-`` if not measured."""
        if not self.whole:
            return "-"
        return f"{100 * self.part / self.whole:.0f} [{100 * self.interval.low:.0f}, {100 * self.interval.high:.0f}]"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Judge against ground truth over one set of episodes."""

    precision: Share
    """Of the judge's successes those that are true."""
    recall: Share
    """Of the true successes those that the judge called success."""
    abstained: Share
    """Of all episodes those left undecided."""

    @property
    def n(self) -> int:
        """Episodes."""
        return self.abstained.whole

    def figures(self) -> dict[str, float | int | None]:
        """Flat, for JSON: each share, and the ends of its interval where it was measured."""
        shares = {"precision": self.precision, "recall": self.recall, "abstained": self.abstained}
        flat: dict[str, float | int | None] = {name: share.value for name, share in shares.items()} | {"n": self.n}
        for name, share in shares.items():
            flat[f"{name}_ci_low"] = share.interval.low if share.whole else None
            flat[f"{name}_ci_high"] = share.interval.high if share.whole else None
        return flat


def agreement(pairs: Iterable[tuple[bool, Verdict]]) -> Agreement:
    """Precision and recall of success verdicts; an undecided verdict counts against recall, not precision."""
    rows = [(truth, verdict.judgement) for truth, verdict in pairs]
    hits = sum(truth and judged is Judgement.SUCCESS for truth, judged in rows)
    claimed = sum(judged is Judgement.SUCCESS for _, judged in rows)
    real = sum(truth for truth, _ in rows)
    undecided = sum(judged is Judgement.UNDECIDED for _, judged in rows)
    return Agreement(Share(hits, claimed), Share(hits, real), Share(undecided, len(rows)))


def unanimity(verdicts: Iterable[Verdict]) -> Share:
    """Of the verdicts behind which stand several votes, those whose votes are all the same.

    Only with a quorum are all votes asked whatever the first ones say; without one, this is about successes.
    """
    asked = [verdict.votes for verdict in verdicts if len(verdict.votes) > 1]
    return Share(sum(len(set(votes)) == 1 for votes in asked), len(asked))


@dataclass(frozen=True, slots=True)
class Measured:
    """An episode of known outcome that was judged."""

    site: str
    kind: str
    """Kind of task within the site; empty where kinds aren't known."""
    truth: bool
    verdict: Verdict


def breakdown(episodes: Iterable[Measured]) -> dict[str, Agreement]:
    """Agreement by site and by ``<site>/<kind>``, in the order of these names."""
    groups: dict[str, list[tuple[bool, Verdict]]] = {}
    for episode in episodes:
        for name in {episode.site, f"{episode.site}/{episode.kind}"} if episode.kind else {episode.site}:
            groups.setdefault(name, []).append((episode.truth, episode.verdict))
    return {name: agreement(groups[name]) for name in sorted(groups)}


def table(groups: dict[str, Agreement]) -> Sequence[str]:
    """Lines of text, a heading first; shares in per cent with 95 % intervals."""
    heading = f"{'site/kind':32} {'n':>5} {'true':>5} {'precision':>14} {'recall':>14} {'abstained':>14}"
    rows = (
        f"{name:32} {found.n:5} {found.recall.whole:5} {found.precision!s:>14} {found.recall!s:>14} "
        f"{found.abstained!s:>14}"
        for name, found in groups.items()
    )
    return [heading, *rows]
