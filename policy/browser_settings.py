"""How the browser is set up, and the one error that it raises. Importing this starts and loads nothing."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from policy.guard import GuardSettings
from policy.manners import PolitenessSettings
from policy.trajectory import ActionSpace, Outcome


def _differ_in_name(files: tuple[str, ...]) -> tuple[str, ...]:
    names = [Path(file).name for file in files]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two files are called {name}; expected names that differ, since one folder gets them all")
    return files


class BrowserSettings(BaseModel):
    """Everything about the environment that a run may choose; the rest is pinned so that runs compare."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    executable: str | None = None
    """Path or command of a Chromium; None: Playwright's own, else the first found on PATH."""
    build: str | None = None
    """Version of Chromium that it must be, in full or its beginning (``156``); None: whichever it is. It is recorded
    with each trajectory either way."""
    width_px: int = Field(default=1024, gt=0)
    """Width of the viewport; with device scale factor 1 also the screenshot's."""
    height_px: int = Field(default=768, gt=0)
    """Height of both."""
    locale: str = "en-US"
    """Language and country that pages are asked for in, and write dates and numbers in."""
    time_zone: str = "UTC"
    """The time zone that pages are told, by its IANA name (``Europe/Berlin``)."""
    colour_scheme: Literal["light", "dark"] = "light"
    """What pages are told that their visitor prefers."""
    fonts: str | None = None
    """A folder with the only fonts that pages are drawn with; None: the machine's. Pictures of two machines can only be
    the same where their fonts are."""
    actions: ActionSpace = ActionSpace.BASIC
    """What the agent may do: ``basic``, ``full`` (more actions on marks) or ``points`` (at points of the picture)."""
    files: Annotated[tuple[str, ...], AfterValidator(_differ_in_name)] = ()
    """Paths of files that every episode finds in its folder, for uploads."""
    max_download_mb: float = Field(default=0.0, ge=0)
    """Largest file that an episode may download into its folder, which goes when the episode ends; 0: downloads are
    refused."""
    max_traffic_mb: float = Field(default=500.0, gt=0)
    """What an episode may receive from the network in all; after that its connections are closed."""
    guard: GuardSettings = GuardSettings()
    """What the agent may do to websites."""
    politeness: PolitenessSettings = PolitenessSettings()
    """How live websites are treated."""
    jpeg_quality: int = Field(default=80, ge=1, le=95)
    """Of screenshots: higher is truer, and larger."""
    page_text: bool = True
    """Whether the listing carries the visible text between the marked elements."""
    max_listing_chars: int = Field(default=1800, gt=0)
    """Characters of the listing; a longer one is cut."""
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
