"""The proposer: a website and looks at its pages in, tasks out."""

from pydantic import BaseModel, ConfigDict, Field


class ProposerSettings(BaseModel):
    """How tasks are written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    temperature: float = Field(1.0, ge=0)
    """Sampling temperature."""
