"""What a website's ``robots.txt`` closes to robots (RFC 9309).

Read by Protego: of several rules that match the standard takes the longest, and it knows ``*`` and ``$``; the standard
library's parser takes the first and reads them as letters.
"""

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from protego import Protego

_KEPT_S = 24 * 3600.0  # RFC 9309, section 2.4: no longer than a day
_MAX_CHARS = 500 * 1024  # section 2.5


class Fetched(NamedTuple):
    """What a website answered."""

    status: int
    text: str


Fetch = Callable[[str], Awaitable[Fetched | None]]
"""What is at an address; None: no answer."""


class Robots:
    """The rules of the websites that a worker visits, each fetched once a day."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`name`: what the rules may call us by; `clock`: seconds."""
        self._name = name
        self._clock = clock
        self._rules: dict[str, tuple[float, Protego]] = {}

    async def allows(self, url: str, fetch: Fetch) -> bool | None:
        """Whether a page may be opened; None: its website's rules can't be had for now, so it may not (2.3.1.4)."""
        rules = await self._rules_for(url, fetch)
        return rules.can_fetch(url, self._name) if rules else None

    async def least_gap_s(self, url: str, fetch: Fetch) -> float:
        """Seconds that the website wants between two pages (``Crawl-delay``, which isn't in the standard); 0: none."""
        rules = await self._rules_for(url, fetch)
        return float((rules and rules.crawl_delay(self._name)) or 0.0)

    async def _rules_for(self, url: str, fetch: Fetch) -> Protego | None:
        origin, now = origin_of(url), self._clock()
        read_at, rules = self._rules.get(origin, (0.0, None))
        if rules is not None and now - read_at < _KEPT_S:
            return rules
        fetched = await fetch(f"{origin}/robots.txt")
        if fetched is None or fetched.status >= 500:  # asked for again at the next page
            return None
        rules = Protego.parse(fetched.text[:_MAX_CHARS] if fetched.status < 400 else "")
        self._rules[origin] = now, rules
        return rules


def origin_of(url: str) -> str:
    """Whose rules hold for an address: ``https://example.com:8080``."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
