"""The judge: trajectory in, verdict out."""

from pydantic import BaseModel, ConfigDict, Field


class JudgeSettings(BaseModel):
    """What the judge is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    num_screenshots: int = Field(3, ge=0)
    """Last screenshots shown (PAE, section 4: three)."""
    page_text: bool = True
    """Whether the final page's text is shown too."""
