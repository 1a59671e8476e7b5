"""Off-policy RLOO, for attempts of earlier rounds as well: importance weights, truncated, and dropped when too large.

    A_i = r_i - c sum_{j != i} r_j / (G - 1), c the baseline's share, 1 by default
    L = - sum_i A_i sum_t w_it log pi(y_it | x_i) / (batch size * tokens per step)
    w_it = min(rho_it, truncate_at) where rho_it <= drop_above, else 0, without gradient
    rho_it = pi(y_it | x_i) / mu(y_it | x_i), mu by the log-probs recorded when the token was sampled

Where pi is mu, it is RLOO. How old an attempt may be is bounded in rounds (`selection.replay_rounds`).

Sources: IMPALA, Espeholt et al. 2018, arXiv 1802.01561, section 4.1 (truncated importance weights); IcePop, in Ring-1T,
arXiv 2510.18855 (a token whose weight is out of bounds is left out altogether: such a weight says that the token, or
what is known of it, belongs to another policy).

Deviations: weights are those of single tokens, not products over a response or trajectory: less variance, but what
other tokens a policy of today would have come to is not corrected for. IMPALA's value function is the group's baseline,
of attempts that were made by the same weights; c below 1 (rl/algorithms/base.py). There is no lower bound: a token that
is hardly ever said now weighs hardly anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rl.algorithms.base import Batch, GroupAlgorithm, Loss
from rl.algorithms.rloo import leave_one_out


class OffPolicy(GroupAlgorithm):
    """RLOO with truncated importance weights."""

    takes_replay: ClassVar[bool] = True

    name: Literal["off_policy"] = "off_policy"
    """RLOO with truncated importance weights."""
    truncate_at: float = Field(default=2.0, ge=1)
    """Importance weights are at most this."""
    drop_above: float = Field(default=10.0, ge=1)
    """A token whose importance weight, before truncating, is above this is left out."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.drop_above < self.truncate_at:
            raise ValueError(f"drop_above: expected at least truncate_at = {self.truncate_at}, got {self.drop_above}")
        return self

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """See `rl.algorithms.rloo.leave_one_out`."""
        return leave_one_out(rewards, self.baseline_share)

    def loss(self, batch: Batch) -> Loss:
        """Minus the log-probs weighed by their advantages and importance weights."""
        mask_BR = batch.mask_BR
        ratio_BR = (batch.logprobs_BR.detach() - batch.behaviour_BR).exp()
        dropped_BR = ratio_BR > self.drop_above
        weights_BR = ratio_BR.clamp(max=self.truncate_at).masked_fill(dropped_BR, 0.0)
        weighed_BR = batch.logprobs_BR * mask_BR * weights_BR * batch.advantages_B[:, None]
        num_dropped = (dropped_BR * mask_BR).sum().item()
        num_truncated = ((ratio_BR > self.truncate_at) & ~dropped_BR).mul(mask_BR).sum().item()
        return Loss(-self.by_constant(weighed_BR.sum(), batch), num_dropped, {"truncated_share": num_truncated})
