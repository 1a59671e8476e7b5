"""The model server: vLLM started, watched and stopped by the program, or one that runs already."""

from pydantic import BaseModel, ConfigDict, Field


class ServerSettings(BaseModel):
    """How the model is served."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_url: str | None = None
    """Address of a running server (``http://127.0.0.1:8000``); None: the program starts its own."""
    port: int = Field(0, ge=0, le=65535)
    """Port on 127.0.0.1 of a server that the program starts; 0: any free one."""
