"""GRPO, with the corrections of 2025: clipped policy gradient against the mean reward of the task's attempts.

    A_i = r_i - c mean(r), c the baseline's share, 1 by default
    L = sum_i sum_t [- min(rho_it A_i, clip(rho_it, 1 - clip_low, 1 + clip_high) A_i) + kl k_it] / C
    rho_it = pi(y_it | x_i) / mu(y_it | x_i)
    k_it = (log pi(y_it | x_i) - log pi_starter(y_it | x_i))^2 / 2
    C = batch size * tokens per step

Sources: Shao et al. 2024, arXiv 2402.03300, section 4.1 (equation 3); Liu et al. 2025, arXiv 2503.20783, section 3.2
(no division by the rewards' standard deviation, which favours tasks that are nearly always or nearly never done, nor by
a response's length); DAPO, arXiv 2503.14476, section 3.1 (the upper bound is the larger one, so that rare tokens may
become likelier) and 3.2 (groups whose rewards are all the same are dropped).

Deviations: an attempt is a trajectory, whose steps share its advantage. c below 1 (rl/algorithms/base.py). mu's
log-probs are those that the server recorded, not recomputed by the learner, so that rho also corrects for what the two
differ by. Dropped groups aren't sampled anew, but counted (rl/selection.py). The KL term is off by default; its
estimator is the squared one, whose gradient is that of KL(pi || pi_starter) at the sampled places for tokens drawn from
pi, while that of the original's, exp(-d) - 1 + d, is that of KL(pi_starter || pi) (Tang and Munos 2025, arXiv
2506.09477, on both, and on what any sum over tokens leaves out: what a token does to the KL of later ones). Its tokens
are drawn from mu and not reweighed.

The starter's log-probs are exact and not kept anywhere: before the first step the learner loads the weights that the
run began with and scores every sample, one forward pass; they never leave the disk, as version 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rl.algorithms.base import Batch, GroupAlgorithm, Loss


class GRPO(GroupAlgorithm):
    """Group-relative policy optimisation."""

    takes_replay: ClassVar[bool] = True

    name: Literal["grpo"] = "grpo"
    """Clipped policy gradient against the mean of the task's attempts."""
    clip_low: float = Field(default=0.2, ge=0, le=1)
    """A token that has become less likely than 1 less this, as a share of when it was sampled, isn't pushed further."""
    clip_high: float = Field(default=0.28, ge=0)
    """One that has become likelier than 1 and this isn't pulled further (both as in DAPO, section 4.1)."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the starter; 0: none, and the starter isn't loaded."""

    @property
    def needs_starter(self) -> bool:
        """Whether there is a KL term."""
        return self.kl > 0

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """Each reward less the baseline: [1, 0, 0, 0] gives [0.75, -0.25, -0.25, -0.25] where that is the mean."""
        baseline = self.baseline_share * sum(rewards) / len(rewards)
        return [reward - baseline for reward in rewards]

    def loss(self, batch: Batch) -> Loss:
        """The clipped surrogate, and the KL term."""
        mask_BR, advantages_B1 = batch.mask_BR, batch.advantages_B[:, None]
        ratio_BR = (batch.logprobs_BR - batch.behaviour_BR).exp()
        free_BR = ratio_BR * advantages_B1
        clipped_BR = ratio_BR.clamp(1 - self.clip_low, 1 + self.clip_high) * advantages_B1
        terms_BR = -free_BR.minimum(clipped_BR)
        num_clipped = ((clipped_BR < free_BR) * mask_BR).sum().item()
        sums = {}
        if self.kl:
            divergence_BR = (batch.logprobs_BR - batch.starter_BR).square() / 2
            terms_BR = terms_BR + self.kl * divergence_BR
            sums["starter_kl"] = (divergence_BR.detach() * mask_BR).sum().item()
        return Loss(self.by_constant((terms_BR * mask_BR).sum(), batch), num_clipped, sums)
