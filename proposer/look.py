"""Look: what somebody sees who opens a page of a website, without a task in mind."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Look:
    """One page as seen: the context from which the proposer makes up tasks."""

    url: str
    title: str
    text: str
    """The visible text of the viewport, one line per line of the page."""
    listing: str
    """The page as the policy gets it: marked elements and text."""
    screenshot: bytes = field(repr=False)
    """JPEG without marks, viewport size."""
