"""TOPR: imitate the successes, and unlearn failures the less the further they are unlearned.

    A_i = r_i - (1 - r_i) s: 1 for a success, - s for a failure
    s = mean(r), the share of successes among the attempts of its task, between 0 and 1
    L = - sum_i A_i w_i sum_t log pi(y_it | x_i) / number of tokens in the batch
    w_i = 1 for a success, min(1, pi(y_i | x_i) / mu(y_i | x_i)) for a failure, without gradient

mu is the policy that sampled. Example: a failed step of advantage -0.5 that is now a fifth as likely as when it was
sampled weighs -0.1.

Source: Le Roux et al. 2025, arXiv 2503.14286, section 3.

Deviations: a ratio for each step, not for the whole trajectory; a failure weighs by how often its task is done, since
the more often it is, the more a failure is to blame; failures enter only where another attempt succeeded, as many as
`selection.max_failures_per_task`, and none of their steps that a success took too. Rewards that are corrected for the
judge's error (evaluator/noise.py) enter linearly, as that correction asks for, but for the limits of s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from rl.algorithms.base import Algorithm, Batch, LearnsFrom, Loss


class TOPR(Algorithm):
    """Tapered off-policy REINFORCE."""

    takes_replay: ClassVar[bool] = True

    name: Literal["topr"] = "topr"
    """Imitate the successes and unlearn failures, with a taper."""

    @property
    def learns_from(self) -> LearnsFrom:
        """Successes, and failures of the same tasks."""
        return LearnsFrom.FAILURES_TOO

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """1 for a success, minus the share of successes for a failure: [1, 0, 1, 1] gives [1, -0.75, 1, 1]."""
        share = min(max(sum(rewards) / len(rewards), 0.0), 1.0)
        return [reward - (1 - reward) * share for reward in rewards]

    def loss(self, batch: Batch) -> Loss:
        """Minus the mean log-prob of the tokens, weighed by advantage and taper."""
        ratio_B = ((batch.logprobs_BR.detach() - batch.behaviour_BR) * batch.mask_BR).sum(1).clamp(max=0.0).exp()
        advantages_B = batch.advantages_B
        weights_B = advantages_B.where(advantages_B > 0, advantages_B * ratio_B)
        return Loss(-(batch.logprobs_BR * batch.mask_BR * weights_B[:, None]).sum() / batch.num_tokens)
