"""Manners on live websites: how fast they are visited, and how long they are left alone when they say so.

In: hosts, and what they answered. Out: seconds to wait. One `Pace` serves all workers of a run (launch/workers.py).
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

_MAX_DOUBLINGS = 6


class PolitenessSettings(BaseModel):
    """How websites are treated that this machine doesn't serve itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    on_practice: bool = False
    """Whether websites that this machine serves itself are treated so as well."""
    pages_per_minute: float = Field(default=20.0, gt=0)
    """Steps that may load a page, per host and over all workers."""
    burst: int = Field(default=5, ge=1)
    """So many of them may come at once after a pause."""
    episodes_per_host: int = Field(default=4, ge=1)
    """Episodes on one host at once, over all workers."""
    sample_gap_s: float = Field(default=60.0, ge=0)
    """Least time between the beginnings of two attempts at one task: a website sees no crowd that does the same."""
    robots: Literal["obey", "ignore"] = "obey"
    """Whether pages that ``robots.txt`` closes to robots are left alone; a page that is closed can't be opened."""
    robots_name: str = Field(default="PAE", pattern=r"^[A-Za-z_-]+$")
    """The name that ``robots.txt`` may call us by; rules for ``*`` hold where it doesn't."""
    backoff_s: float = Field(default=10.0, gt=0)
    """How long a host is left alone that answers 429 or 503 and doesn't say how long, doubled each time again."""
    max_wait_s: float = Field(default=60.0, ge=0)
    """What an episode waits for its turn at most; where it would be longer it ends as blocked."""
    max_block_share: float = Field(default=0.5, ge=0, le=1)
    """A website is not visited any more in a round once a larger share of at least ten episodes there was blocked."""


class Pacer(Protocol):
    """Who says when it is a worker's turn."""

    async def reserve(self, host: str, least_gap_s: float = 0.0) -> float:
        """Seconds until a page of the host may be loaded; the turn is taken, unless that is longer than one waits."""
        ...

    async def back_off(self, host: str, retry_after_s: float | None) -> float:
        """Seconds for which the host is left alone from now on, since it asked for that; None: it didn't say."""
        ...


class _Host:
    """What is remembered of a host; times by the clock."""

    def __init__(self) -> None:
        self.next_at = -math.inf
        """When a turn would come if all so far were spread evenly (the generic cell rate algorithm)."""
        self.closed_until = -math.inf
        self.num_doublings = 0


class Pace:
    """A token bucket for each host (as the generic cell rate algorithm), closed while the host asks for rest."""

    def __init__(self, settings: PolitenessSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._settings = settings
        self._clock = clock
        self._hosts: dict[str, _Host] = {}

    async def reserve(self, host: str, least_gap_s: float = 0.0) -> float:
        """See `Pacer`; `least_gap_s` is what the host itself asks for between two pages."""
        known, now = self._hosts.setdefault(host, _Host()), self._clock()
        gap = max(60 / self._settings.pages_per_minute, least_gap_s)
        slack = 0.0 if least_gap_s else (self._settings.burst - 1) * gap
        opens_at = max(now, known.closed_until)
        due = max(opens_at, known.next_at - slack)
        if due - now <= self._settings.max_wait_s:
            known.next_at = max(opens_at, known.next_at) + gap
        return due - now

    async def back_off(self, host: str, retry_after_s: float | None) -> float:
        """See `Pacer`. Without a time from the host: twice as long each time in a row."""
        known, now = self._hosts.setdefault(host, _Host()), self._clock()
        if now >= known.closed_until:  # else another worker has just been told the same
            unspoken = self._settings.backoff_s * 2**known.num_doublings
            is_again = now - known.closed_until < unspoken
            known.num_doublings = min(known.num_doublings + 1, _MAX_DOUBLINGS) if is_again else 1
            wait_s = self._settings.backoff_s * 2 ** (known.num_doublings - 1)
            known.closed_until = now + (wait_s if retry_after_s is None else retry_after_s)
        elif retry_after_s is not None:
            known.closed_until = max(known.closed_until, now + retry_after_s)
        full = known.closed_until + (self._settings.burst - 1) * 60 / self._settings.pages_per_minute
        known.next_at = max(known.next_at, full)  # no burst after it
        return known.closed_until - now


def read_retry_after(text: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3); None: it is missing or malformed."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
