"""What an algorithm is: from the rewards of a group to advantages, and from log-probs to a loss. Pure functions.

An algorithm is one file beside this one, a class whose fields are its settings, and its name in registry.py.
Reading settings loads no torch: losses call methods of the tensors that they are given.

Tensor suffixes: B sample (one step of a trajectory), R response token, padded on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor


class LearnsFrom(StrEnum):
    """Which attempts are selected (rl/selection.py)."""

    SUCCESSES = "successes"
    """Successes, balanced over tasks."""
    FAILURES_TOO = "failures_too"
    """The same, and some failures of tasks that were done in another attempt."""
    GROUPS = "groups"
    """Whole groups, of which some attempts are successes and some are failures."""
    GROUPS_AND_SUCCESSES = "groups_and_successes"
    """The same, and successes of tasks that were done in every attempt."""

    @property
    def is_of_groups(self) -> bool:
        """Whether attempts at one task are compared with each other."""
        return self in (LearnsFrom.GROUPS, LearnsFrom.GROUPS_AND_SUCCESSES)


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of an optimizer step's batch, as a loss sees it. Nothing but `logprobs_BR` carries a gradient."""

    logprobs_BR: Tensor
    """Log-probs (nats) of the sampled tokens under the policy that is trained."""
    mask_BR: Tensor
    """1 for a response token, 0 for padding."""
    behaviour_BR: Tensor
    """The same tokens' log-probs when they were sampled, as the server recorded them; NaN where they aren't known, so
    that a loss which needs them can't go unnoticed; 0 for padding."""
    starter_BR: Tensor
    """The same tokens' log-probs under the weights that the run began with; NaN unless the algorithm asks for them."""
    advantages_B: Tensor
    """Of each sample's trajectory: its steps share it."""
    num_tokens: int
    """Response tokens in the whole batch."""
    batch_size: int
    """Samples in a full batch, by the config: the same number for a smaller last one."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What is minimised, and what is worth telling about it."""

    total: Tensor
    """A scalar; the parts of a batch add up to its loss."""
    num_masked: float = 0.0
    """Response tokens without a gradient, for they are too far from when they were sampled."""
    sums: Mapping[str, float] = field(default_factory=dict)
    """Sums over response tokens by name; their means over all trained tokens are metrics, ``learn/<name>``."""


class Algorithm(BaseModel):
    """An algorithm and its settings. Each defines a field ``name``, by which a config chooses it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    takes_replay: ClassVar[bool]
    """Whether it may learn from attempts of earlier rounds, which other weights made."""

    @property
    def learns_from(self) -> LearnsFrom:
        """What it is given."""
        raise NotImplementedError

    @property
    def needs_starter(self) -> bool:
        """Whether its loss asks for the log-probs of the weights that the run began with."""
        return False

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """Advantages of a group's attempts from their rewards; 0: there is nothing to learn from it.

        Rewards are 1 or 0, or, corrected for the judge's error, somewhat more and less (evaluator/noise.py); by config
        side effects take something off them (launch/side_effects.py).
        """
        raise NotImplementedError

    def loss(self, batch: Batch) -> Loss:
        """The loss of a part of a batch."""
        raise NotImplementedError


class GroupAlgorithm(Algorithm):
    """One that compares attempts at the same task.

    Sums over tokens are divided by a constant, not by how many there are (Dr. GRPO: Liu et al. 2025, arXiv 2503.20783,
    section 3.2): divided by its own length, a long failure would be blamed less a token than a short one. So a token
    weighs the same in a long and in a short response, in a trajectory of many and of few steps, in a full batch and in
    the last one.

    Several optimizer steps on one round's attempts are off-policy from the second on, and there a baseline that is the
    mean reward itself is the edge of collapse: below it successes outweigh failures, and what is learned stays in
    bounds (asymmetric REINFORCE: Arnal et al. 2025, arXiv 2506.20520). They take a constant off the mean, with which a
    failure of a task that is seldom done would be imitated; here the mean is scaled, with which none ever is. Below the
    mean, where all attempts at a task succeed there is something to learn as well, if only to go on doing so: a policy
    that learns from the other tasks alone may forget the ones that it always did (docs/results.md).
    """

    tokens_per_step: int = Field(default=64, ge=1)
    """The constant: tokens that a response is reckoned to have. It scales the loss and so the gradient's norm, which
    `max_grad_norm` clips; AdamW doesn't see it otherwise."""
    baseline_share: float = Field(default=1.0, ge=0, le=1)
    """The baseline, as a share of the mean reward that it is at 1, as published; at less successes outweigh failures,
    and 0 is to imitate successes alone. Below 1 tasks that are always done are learned from as well."""

    @property
    def learns_from(self) -> LearnsFrom:
        """Where a task is always done, each advantage is one less the baseline's share, which may be nothing."""
        return LearnsFrom.GROUPS if self.baseline_share == 1 else LearnsFrom.GROUPS_AND_SUCCESSES

    def by_constant(self, total: Tensor, batch: Batch) -> Tensor:
        """A sum over tokens, divided by the constant number of tokens in a batch."""
        return total / (batch.batch_size * self.tokens_per_step)
