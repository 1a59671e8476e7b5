"""Verdict: what the judge says of a trajectory."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Judgement(StrEnum):
    """The three things a judge can say; undecided is neither 0 nor 1."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNDECIDED = "undecided"


class Cost(BaseModel):
    """What a verdict took; tokens are None if a server doesn't tell them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replies: int
    """Replies asked for, over all votes and tries."""
    prompt_tokens: int | None
    reply_tokens: int | None
    seconds: float
    """From the first request to the last reply, waiting for a busy server included."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            replies=self.replies + other.replies,
            prompt_tokens=_sum(self.prompt_tokens, other.prompt_tokens),
            reply_tokens=_sum(self.reply_tokens, other.reply_tokens),
            seconds=self.seconds + other.seconds,
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


NO_COST = Cost(replies=0, prompt_tokens=0, reply_tokens=0, seconds=0.0)
"""Of what wasn't asked."""


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
    votes: tuple[Judgement, ...] = ()
    """The votes behind it in the order asked, of several judges one after the other; empty where none were kept."""
    cost: Cost | None = None
    """None where no model was asked, or the cost wasn't kept."""

    @property
    def reward(self) -> float | None:
        """1 for success, 0 for failure, None for undecided."""
        return {Judgement.SUCCESS: 1.0, Judgement.FAILURE: 0.0, Judgement.UNDECIDED: None}[self.judgement]
