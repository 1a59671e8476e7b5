"""The agent's loop: a task in, a trajectory out."""

from pydantic import BaseModel, ConfigDict, Field


class AgentSettings(BaseModel):
    """Limits and sampling of one episode."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_steps: int = Field(10, ge=1)
    """Steps after which an episode ends with outcome step_limit."""
    time_limit_s: float = Field(180.0, gt=0)
    """Seconds after which an episode ends with outcome time_limit."""
    history: int = Field(3, ge=0)
    """Earlier responses shown to the policy."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature in training rollouts; evaluation is greedy."""
    max_tokens: int = Field(96, ge=1)
    """Tokens per response."""
