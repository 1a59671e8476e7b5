"""Net: holds every request of a browser's that may change something until its episode's guard has ruled on it.

It lies below all pages, in Chromium's own network path for the whole browser: workers, shared workers, beacons, what is
sent as a page goes, and the first request of a new tab come through it too. Pictures, scripts and styles, which are
always fetched by GET, don't, and WebSockets can't be told apart.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Browser as Chromium
from playwright.async_api import CDPSession, Error

from policy.action_class import SAFE_METHODS, Sent
from policy.guard import Guard

logger = logging.getLogger(__name__)

_HELD = ("Document", "XHR", "Fetch", "Ping", "CSPViolationReport", "Other")
_MAX_BODY = 100_000


@dataclass(frozen=True, slots=True)
class Watched:
    """An episode whose requests come by."""

    guard: Guard
    context: str
    """Chromium's id of its browser context."""
    has_frame: Callable[[str], bool]
    """Whether a frame, by Chromium's id, is in one of its pages."""
    may_open: Callable[[str], Awaitable[bool]]
    """Whether a page may be asked for at an address."""


class Net:
    """The net of one browser."""

    def __init__(self, session: CDPSession) -> None:
        """Use `spread`."""
        self._session = session
        self._watched: list[Watched] = []
        self._rulings: set[asyncio.Task[None]] = set()

    @classmethod
    async def spread(cls, chromium: Chromium) -> "Net":
        """A net below all contexts of a browser. Raises playwright's Error if that has gone."""
        session = await chromium.new_browser_cdp_session()
        net = cls(session)
        session.on("Fetch.requestPaused", net._take)
        patterns = [
            {"urlPattern": f"{scheme}://*", "resourceType": kind} for scheme in ("http", "https") for kind in _HELD
        ]
        await session.send("Fetch.enable", {"patterns": patterns})
        return net

    @contextmanager
    def episode(self, watched: Watched) -> Iterator[None]:
        """While inside, requests of that episode's pages are for its guard to rule on."""
        self._watched.append(watched)
        try:
            yield
        finally:
            self._watched.remove(watched)

    def _take(self, event: dict[str, Any]) -> None:
        ruling = asyncio.ensure_future(self._rule(event))
        self._rulings.add(ruling)
        ruling.add_done_callback(self._rulings.discard)

    async def _rule(self, event: dict[str, Any]) -> None:
        request = event["request"]
        sent = Sent(request["method"], request["url"], request.get("postData", "")[:_MAX_BODY])
        is_page = event["resourceType"] == "Document"
        with suppress(Error):  # the page has gone meanwhile, and its request with it
            if await self._lets_pass(sent, event["frameId"], is_page=is_page):
                await self._session.send("Fetch.continueRequest", {"requestId": event["requestId"]})
            else:
                refusal = {"requestId": event["requestId"], "errorReason": "Aborted"}  # the page before stays
                await self._session.send("Fetch.failRequest", refusal)

    async def _lets_pass(self, sent: Sent, frame: str, *, is_page: bool) -> bool:
        is_safe = sent.method.upper() in SAFE_METHODS
        if is_safe and not is_page:
            return True
        watched = await self._find(frame)
        if watched is None and len(self._watched) == 1:  # a page's last words, or a frame's in another website's frame
            watched = self._watched[0]
        if watched is None:
            allowed = is_safe or all(each.guard.conduct == "allow" for each in self._watched)
            logger.info("%s %s of no known episode: %s", sent.method, sent.url, "let through" if allowed else "refused")
            return allowed
        may_open = not is_page or await watched.may_open(sent.url)
        return may_open and (is_safe or watched.guard.lets_pass(sent, is_page=is_page))

    async def _find(self, frame: str) -> Watched | None:
        """The episode that a frame, a new tab or a worker belongs to; None if it can't be told."""
        for watched in self._watched:
            if watched.has_frame(frame):
                return watched
        targets = (await self._session.send("Target.getTargets"))["targetInfos"]
        context = next((info.get("browserContextId") for info in targets if info["targetId"] == frame), None)
        return next((watched for watched in self._watched if watched.context == context), None)
