"""Which steps of which trajectories are learned from."""

from pydantic import BaseModel, ConfigDict, Field


class SelectionSettings(BaseModel):
    """Filter and balance."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_per_task: int = Field(2, ge=1)
    """Successful trajectories kept per task, shortest first."""
