"""Manners of one episode: it waits for its turn, leaves pages alone that are closed to robots, and comes back later."""

import asyncio
import logging
from typing import NamedTuple
from urllib.parse import urlsplit

from playwright.async_api import APIRequestContext, Error

from policy.browser_settings import BrowserError, BrowserSettings
from policy.manners import Pacer
from policy.robots import Fetched, Robots, origin_of
from policy.trajectory import Outcome

logger = logging.getLogger(__name__)

_MAX_RETURNS = 2


class Busy(NamedTuple):
    """A page in whose place the website said that it has too much to do."""

    url: str
    is_repeatable: bool
    """Whether it can be asked for again: it was by GET."""
    retry_after_s: float | None
    """After how long, as the website says; None: it doesn't."""


class Manners:
    """What an episode owes to the website that it visits."""

    def __init__(
        self, settings: BrowserSettings, pacer: Pacer, robots: Robots, request: APIRequestContext, *, is_practice: bool
    ) -> None:
        """`request` fetches through the episode's own proxy."""
        politeness = settings.politeness
        self.are_due = politeness.on_practice or not is_practice
        """Whether any are owed: not to websites that this machine serves itself, unless the settings say so."""
        self.closed: list[str] = []
        """Addresses that were left alone since ``robots.txt`` asks for it."""
        self._without_rules: set[str] = set()
        self._settings = settings
        self._pacer = pacer
        self._robots = robots if politeness.robots == "obey" else None
        self._request = request
        self._num_returns = 0

    async def take_turn(self, url: str) -> None:
        """Return when a page of that host may be loaded. Raises BrowserError (BLOCKED) if that would take too long."""
        if not self.are_due:
            return
        gap_s = await self._robots.least_gap_s(url, self._fetch) if self._robots else 0.0
        wait_s = await self._pacer.reserve(_host(url), gap_s)
        if wait_s > self._settings.politeness.max_wait_s:
            raise BrowserError(Outcome.BLOCKED, f"{_host(url)}: no page for another {wait_s:.0f} s")
        await asyncio.sleep(wait_s)

    async def may_open(self, url: str) -> bool:
        """Whether a page may be asked for; one that is closed to robots is noted, and a website without its rules."""
        if not self.are_due or self._robots is None:
            return True
        allowed = await self._robots.allows(url, self._fetch)
        self._without_rules.discard(origin_of(url))
        if allowed is None:
            self._without_rules.add(origin_of(url))
        elif not allowed:
            self.closed.append(url)
        if not allowed:
            logger.info("robots.txt %s %s", "can't be had for" if allowed is None else "closes", url)
        return bool(allowed)

    def lacks_rules(self, url: str) -> bool:
        """Whether the page was left alone since its website's ``robots.txt`` couldn't be had, which is its failure."""
        return origin_of(url) in self._without_rules

    async def may_return(self, busy: Busy) -> bool:
        """Whether a busy website may be asked again, now that all workers have left it alone for a while."""
        if not self.are_due:
            return False
        wait_s = await self._pacer.back_off(_host(busy.url), busy.retry_after_s)
        self._num_returns += 1
        is_worth_it = busy.is_repeatable and self._num_returns <= _MAX_RETURNS
        if not is_worth_it or wait_s > self._settings.politeness.max_wait_s:
            return False
        await self.take_turn(busy.url)
        return True

    async def _fetch(self, url: str) -> Fetched | None:
        try:
            reply = await self._request.get(url, timeout=self._settings.action_deadline_s * 1000, max_redirects=5)
            return Fetched(reply.status, await reply.text())
        except (Error, UnicodeDecodeError) as error:
            logger.info("%s: %s", url, error)
            return None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].lower()
