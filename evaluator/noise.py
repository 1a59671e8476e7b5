"""How a judge errs, measured on episodes of known outcome, and rewards corrected for it.

    r~ = (r - FPR) / (TPR - FPR)

TPR is the share of true successes, FPR the share of true failures, that the judge calls a success. On average the
corrected reward is worth what the truth is: (TPR - FPR) / (TPR - FPR) = 1 over attempts that succeeded, and
(FPR - FPR) / (TPR - FPR) = 0 over those that failed. With TPR 0.9 and FPR 0.1 a verdict of success is worth 1.125, one
of failure -0.125.

Source: Natarajan et al. 2013, "Learning with noisy labels", lemma 1, whose estimator this is of a loss that equals the
label, for labels 1 and 0, with rho_+1 = 1 - TPR and rho_-1 = FPR.

Both rates are of decided verdicts: an undecided one has no reward that could be corrected.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from evaluator.agreement import Share
from evaluator.verdict import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class Noise:
    """Rates at which a judge is taken to err; as it stands, it never does."""

    tpr: float = 1.0
    fpr: float = 0.0

    @property
    def gap(self) -> float:
        """TPR - FPR: how much a verdict tells. 1: everything, 0: nothing."""
        return self.tpr - self.fpr

    def corrected(self, reward: float) -> float:
        """The corrected reward; only where the gap isn't 0."""
        return (reward - self.fpr) / self.gap


@dataclass(frozen=True, slots=True)
class JudgeError:
    """A judge's error over episodes of known outcome."""

    tpr: Share
    """Of the true successes that it decided on, those that it called a success."""
    fpr: Share
    """Of the true failures that it decided on, those that it called a success."""

    @property
    def noise(self) -> Noise:
        """The rates that rewards are corrected by: no further from a flawless judge's than the data force.

        That is the upper end of the TPR's 95 % interval and the lower end of the FPR's. Unmeasured, nothing is
        corrected; the more is measured, the closer it comes to the rates themselves. Point estimates of few episodes
        can lie close together by chance, and dividing by their gap would blow up every reward.
        """
        return Noise(self.tpr.interval.high, self.fpr.interval.low)


def judge_error(pairs: Iterable[tuple[bool, Verdict]]) -> JudgeError:
    """A judge's error from truths and verdicts; undecided ones are left out."""
    said: dict[bool, list[Judgement]] = {True: [], False: []}
    for truth, verdict in pairs:
        if verdict.judgement is not Judgement.UNDECIDED:
            said[truth].append(verdict.judgement)
    return JudgeError(*(Share(said[truth].count(Judgement.SUCCESS), len(said[truth])) for truth in (True, False)))


def brier(pairs: Iterable[tuple[bool, Verdict]]) -> float | None:
    """Calibration: the mean square of the share of success votes less the truth (Brier 1950); 0 is best.

    A judge that always says "half of my votes" scores 0.25. Over verdicts behind which stand several votes; None where
    there are none.
    """
    errors = [
        (sum(vote is Judgement.SUCCESS for vote in verdict.votes) / len(verdict.votes) - truth) ** 2
        for truth, verdict in pairs
        if len(verdict.votes) > 1
    ]
    return sum(errors) / len(errors) if errors else None
