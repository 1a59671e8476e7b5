"""Net: holds every request of a browser's that may change something until its episode's guard has ruled on it.

It lies below all pages, in Chromium's own network path for the whole browser: workers, shared workers, beacons, what is
sent as a page goes, and the first request of a new tab come through it too. Pictures, scripts and styles, which are
always fetched by GET, don't, and WebSockets can't be told apart.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
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
class _Watched:
    """An episode whose requests come by."""

    guard: Guard
    context: str
    """Chromium's id of its browser context."""
    has_frame: Callable[[str], bool]
    """Whether a frame, by Chromium's id, is in one of its pages."""


class Net:
    """The net of one browser."""

    def __init__(self, session: CDPSession) -> None:
        """Use `spread`."""
        self._session = session
        self._watched: list[_Watched] = []
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
    def episode(self, context: str, guard: Guard, has_frame: Callable[[str], bool]) -> Iterator[None]:
        """While inside, requests of that browser context are for `guard` to rule on."""
        watched = _Watched(guard, context, has_frame)
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
            if sent.method in SAFE_METHODS or await self._lets_pass(sent, event["frameId"], is_page=is_page):
                await self._session.send("Fetch.continueRequest", {"requestId": event["requestId"]})
            else:
                refusal = {"requestId": event["requestId"], "errorReason": "Aborted"}  # the page before stays
                await self._session.send("Fetch.failRequest", refusal)

    async def _lets_pass(self, sent: Sent, frame: str, *, is_page: bool) -> bool:
        guards = [watched.guard for watched in self._watched]
        guard = await self._guard_of(frame)
        if guard is None:  # a page's last words, or a frame's inside a frame of another website
            guard = guards[0] if len(guards) == 1 else None
        if guard is None:
            allowed = all(guard.conduct == "allow" for guard in guards)
            logger.info("%s %s of no known episode: %s", sent.method, sent.url, "let through" if allowed else "refused")
            return allowed
        return guard.lets_pass(sent, is_page=is_page)

    async def _guard_of(self, frame: str) -> Guard | None:
        """The guard of the episode that a frame, a new tab or a worker belongs to; None if it can't be told."""
        for watched in self._watched:
            if watched.has_frame(frame):
                return watched.guard
        targets = (await self._session.send("Target.getTargets"))["targetInfos"]
        context = next((info.get("browserContextId") for info in targets if info["targetId"] == frame), None)
        return next((watched.guard for watched in self._watched if watched.context == context), None)
