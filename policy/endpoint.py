"""A model behind an OpenAI-compatible HTTP endpoint, as a `Generate`."""

from pydantic import BaseModel, ConfigDict, Field


class EndpointSettings(BaseModel):
    """Where a model answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_url: str
    """Address of the API, ``http://127.0.0.1:8000/v1``."""
    model: str
    """Name of the model there."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None: no key."""
    image_px: int | None = Field(None, ge=16)
    """Side (pixels) to which pictures are scaled before sending; None: sent as they are."""
    timeout_s: float = Field(120.0, gt=0)
    """Seconds for one answer."""
    max_retries: int = Field(3, ge=0)
    """Further tries when the endpoint is unreachable or overloaded."""
