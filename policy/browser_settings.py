"""How the browser is set up, and the one error that it raises. Importing this starts and loads nothing."""

from pydantic import BaseModel, ConfigDict, Field

from policy.trajectory import Outcome


class BrowserSettings(BaseModel):
    """Everything about the environment that a run may choose; the rest is pinned so that runs compare."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    executable: str | None = None
    """Path or command of a Chromium; None: Playwright's own, else the first found on PATH."""
    width_px: int = Field(default=1024, gt=0)
    """Viewport; with device scale factor 1 also the screenshot's size."""
    height_px: int = Field(default=768, gt=0)
    jpeg_quality: int = Field(default=80, ge=1, le=95)
    page_text: bool = True
    """Whether the listing carries the visible text between the marked elements."""
    max_listing_chars: int = Field(default=1800, gt=0)
    settle_quiet_ms: int = Field(default=50, ge=0)
    """A page is settled when nothing changed and nothing was asked of the network for so long."""
    settle_deadline_s: float = Field(default=3.0, gt=0)
    """After that a page counts as it is, settled or not."""
    action_deadline_s: float = Field(default=10.0, gt=0)
    """What a page is given to answer one request of ours; a page that doesn't is a site error."""
    start_deadline_s: float = Field(default=20.0, gt=0)
    """What a start page is given to load, and the browser to start."""
    recycle_after: int = Field(default=50, gt=0)
    """Episodes after which a fresh browser process takes over."""
    recycle_mb: int = Field(default=3000, gt=0)
    """Memory (MB, all processes of the browser together, shared pages once each) after which one takes over as well."""


class BrowserError(RuntimeError):
    """The episode can't go on, for a reason that isn't the agent's: crash, block, site error, no context."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        """An error that ends the episode with `outcome`."""
        super().__init__(message)
        self.outcome = outcome
