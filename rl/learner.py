"""The learner: manifest and parent weights in, new weights out."""

from pydantic import BaseModel, ConfigDict, Field


class LearnerSettings(BaseModel):
    """How weights are updated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    lr: float = Field(5e-5, gt=0)
    """Learning rate."""
