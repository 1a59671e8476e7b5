"""Verdict: what the judge says of a trajectory."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Judgement(StrEnum):
    """The three things a judge can say; undecided is neither 0 nor 1."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNDECIDED = "undecided"


class Verdict(BaseModel):
    """A judgement with who made it and why (the paper's r = R(tau, c), 1 for success and 0 for failure)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trajectory_id: str
    judgement: Judgement
    reason: str
    judge: str
    """Model name of the judge."""
    prompt_hash: str
    """Hash of the judge's prompt template, so that a change of prompt shows."""

    @property
    def reward(self) -> float | None:
        """1 for success, 0 for failure, None for undecided."""
        return {Judgement.SUCCESS: 1.0, Judgement.FAILURE: 0.0, Judgement.UNDECIDED: None}[self.judgement]
