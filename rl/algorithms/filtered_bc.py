"""Filtered behaviour cloning: imitate the successes.

    A_i = r_i
    L = - sum_i A_i sum_t log pi(y_it | x_i) / number of tokens in the batch

Source: PAE, arXiv 2412.13194, section 4.4, equation 2.

Deviations from the paper: the loss is the mean over the tokens of a whole batch, so that long responses weigh more; the
successes are balanced over tasks (rl/selection.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from rl.algorithms.base import Algorithm, Batch, LearnsFrom, Loss


class FilteredBC(Algorithm):
    """Filtered behaviour cloning."""

    takes_replay: ClassVar[bool] = True

    name: Literal["filtered_bc"] = "filtered_bc"
    """Imitate the successes."""

    @property
    def learns_from(self) -> LearnsFrom:
        """Successes."""
        return LearnsFrom.SUCCESSES

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """The rewards: [1, 0, 1] gives [1, 0, 1]."""
        return list(rewards)

    def loss(self, batch: Batch) -> Loss:
        """Minus the mean log-prob of the tokens."""
        weighed_BR = batch.logprobs_BR * batch.mask_BR * batch.advantages_B[:, None]
        return Loss(-weighed_BR.sum() / batch.num_tokens)
