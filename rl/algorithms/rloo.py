"""RLOO: REINFORCE with the mean reward of the task's other attempts as the baseline.

    A_i = r_i - c sum_{j != i} r_j / (G - 1), c the baseline's share, 1 by default
    L = - sum_i A_i sum_t log pi(y_it | x_i) / (batch size * tokens per step)

Source: Ahmadian et al. 2024, arXiv 2402.14740 (the estimator: Kool et al. 2019, "Buy 4 REINFORCE samples,
get a baseline for free!").

Deviations: an attempt is a trajectory, whose steps share its advantage; the reward holds no KL term; sums are divided
by a constant (rl/algorithms/base.py); several optimizer steps are taken on one round's attempts without correcting for
it, where the paper takes one, so nothing bounds how far a failure is unlearned but a small `learner.lr` and few steps:
a larger `learner.batch_size` comes closer to the paper, grpo and off_policy have a bound; c below 1 is not the paper's
(rl/algorithms/base.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from rl.algorithms.base import Batch, GroupAlgorithm, Loss


class RLOO(GroupAlgorithm):
    """REINFORCE, leave one out."""

    takes_replay: ClassVar[bool] = False

    name: Literal["rloo"] = "rloo"
    """REINFORCE against the mean of the task's other attempts."""

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """See `leave_one_out`."""
        return leave_one_out(rewards, self.baseline_share)

    def loss(self, batch: Batch) -> Loss:
        """Minus the log-probs weighed by their advantages."""
        weighed_BR = batch.logprobs_BR * batch.mask_BR * batch.advantages_B[:, None]
        return Loss(-self.by_constant(weighed_BR.sum(), batch))


def leave_one_out(rewards: Sequence[float], share: float = 1.0) -> list[float]:
    """Each reward less a share of the mean of the others; of a single one 0.

    Example: [1, 0, 0] gives [1, -0.5, -0.5] with share 1, [1, -0.1, -0.1] with 0.2.
    """
    others = len(rewards) - 1
    return [reward - share * (sum(rewards) - reward) / others for reward in rewards] if others else [0.0]
