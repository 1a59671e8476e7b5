"""Audits: attempts at gold tasks beside a round's practice, by which the judge is measured and rewards are corrected.

In: the books. Out: how the judge errs, by website; attempts whose rewards are corrected for it. Audits are attempted
and judged like what is practised, on worlds that nothing else uses; nothing is learned from them.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from evaluator.agreement import Share, agreement, unanimity
from evaluator.noise import JudgeError, Noise, brier, judge_error
from evaluator.verdict import Verdict
from launch.books import LedgerReader, Purpose
from launch.config import AuditSettings
from rl.selection import Judged

logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where verdicts come from that err alike."""

    website: str
    judge: str
    prompt_hash: str


class AuditFigures(BaseModel):
    """What audits tell of the judge; None where nothing was measured. Rates are of decided verdicts, ends of 95 %."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    n: int
    """Judged attempts of known outcome."""
    tpr: float | None
    """Of the true successes those that the judge called a success."""
    tpr_low: float | None
    tpr_high: float | None
    tpr_n: int
    """True successes that it decided on."""
    fpr: float | None
    """Of the true failures those that it called a success."""
    fpr_low: float | None
    fpr_high: float | None
    fpr_n: int
    """True failures that it decided on."""
    abstained: float | None
    """Share left undecided."""
    same_votes: float | None
    """Of the verdicts behind which stand several votes, the share whose votes are all the same."""
    brier: float | None
    """How far the share of success votes is from the truth (evaluator/noise.py), of the same verdicts."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[bool, Verdict]]) -> Self:
        """The figures of truths and verdicts."""
        error = judge_error(pairs)
        return cls(
            n=len(pairs),
            **_with_interval("tpr", error.tpr),
            tpr_n=error.tpr.whole,
            **_with_interval("fpr", error.fpr),
            fpr_n=error.fpr.whole,
            abstained=agreement(pairs).abstained.value,
            same_votes=unanimity(verdict for _, verdict in pairs).value,
            brier=brier(pairs),
        )


def _with_interval(name: str, share: Share) -> dict[str, float | None]:
    low, high = (share.interval.low, share.interval.high) if share.whole else (None, None)
    return {name: share.value, f"{name}_low": low, f"{name}_high": high}


def measured(books: LedgerReader, rounds: Iterable[int]) -> dict[Source, list[tuple[bool, Verdict]]]:
    """Truths and verdicts of the audits of some rounds, without those on which the judge was out."""
    pairs: dict[Source, list[tuple[bool, Verdict]]] = defaultdict(list)
    for k in rounds:
        websites = {task.id: task.website.name for task in books.tasks(k, Purpose.AUDIT)}
        for row in books.trajectories(k, Purpose.AUDIT):
            verdict = books.verdict(row.id)
            if row.truth is not None and verdict is not None:
                pairs[Source(websites[row.task_id], verdict.judge, verdict.prompt_hash)].append((row.truth, verdict))
    return pairs


def measured_by_website(books: LedgerReader, k: int) -> dict[str, list[tuple[bool, Verdict]]]:
    """Truths and verdicts of a round's audits, by website in the order of their names."""
    pairs: dict[str, list[tuple[bool, Verdict]]] = defaultdict(list)
    for source, found in sorted(measured(books, (k,)).items()):
        pairs[source.website] += found
    return pairs


def by_website(books: LedgerReader, k: int) -> dict[str, AuditFigures]:
    """What a round's audits tell of its judge, by website in the order of their names."""
    return {website: AuditFigures.of(pairs) for website, pairs in measured_by_website(books, k).items()}


def metrics(figures: Mapping[str, AuditFigures]) -> dict[str, float | None]:
    """The figures by metric: ``audit/<website>/tpr`` and so on."""
    return {
        f"audit/{website}/{name}": value for website, row in figures.items() for name, value in row.model_dump().items()
    }


@dataclass(frozen=True, slots=True)
class Corrected:
    """Attempts with their rewards corrected."""

    attempts: list[Judged]
    """Those of websites on which the judge tells enough."""
    counts: dict[str, float]
    """What was left out, and the rates that rewards were corrected by: metrics under ``learn/``."""


def correct(books: LedgerReader, k: int, attempts: Iterable[Judged], settings: AuditSettings) -> Corrected:
    """Correct the rewards of attempts for how the judge erred in this round's audits and those pooled with them.

    An attempt is corrected by audits on its own website by its own judge and prompt; where there are none, its reward
    stays as it is.
    """
    audits = measured(books, range(max(1, k - settings.pool_rounds), k + 1))
    errors: dict[Source, JudgeError] = {source: judge_error(pairs) for source, pairs in audits.items()}
    kept: list[Judged] = []
    left_out: list[Judged] = []
    used: dict[str, float] = {}
    for attempt in attempts:
        verdict, website = books.verdict(attempt.trajectory.id), attempt.trajectory.task.website.name
        assert verdict is not None, "it was judged"
        error = errors.get(Source(website, verdict.judge, verdict.prompt_hash))
        noise = error.noise if error else Noise()
        used |= {f"noise/{website}/tpr": noise.tpr, f"noise/{website}/fpr": noise.fpr}
        if noise.gap < settings.min_gap:
            left_out.append(attempt)
        else:
            reward = verdict.reward
            kept.append(replace(attempt, corrected=None if reward is None else noise.corrected(reward)))
    tasks = {attempt.trajectory.task.id for attempt in left_out}
    for website in sorted({attempt.trajectory.task.website.name for attempt in left_out}):
        logger.warning("round %d: %s: the judge tells too little there, so nothing is learned from it", k, website)
    counts = {"dropped_by_judge_error": len(left_out), "dropped_tasks_by_judge_error": len(tasks)}
    return Corrected(kept, {**counts, **used})
