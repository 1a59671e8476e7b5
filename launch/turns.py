"""Turns: which of a round's episodes is next, so that no live website meets a crowd, or the same task twice at once.

In: the episodes to run, in order. Out: one at a time, when it may begin. Websites that this machine serves itself are
not kept waiting, unless `on_practice` says so.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from launch.books import Episode
from policy.manners import PolitenessSettings
from policy.trajectory import Outcome, Trajectory
from proposer.task import is_loopback

MIN_TO_LEAVE = 10
"""A website is left on no fewer episodes, whatever their share."""


class Turns:
    """The episodes that are still to begin."""

    def __init__(
        self, episodes: Sequence[Episode], settings: PolitenessSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock`: seconds."""
        self._waiting = list(episodes)
        self._settings = settings
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._begun: dict[str, float] = {}
        self._ended: Counter[str] = Counter()
        self._blocked: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def next(self) -> AsyncIterator[Episode]:
        """The first episode that may begin, once there is one; its host has a place less while inside."""
        async with self._changed:
            while (episode := self._take()) is None:
                with suppress(TimeoutError):  # then somebody's gap is over
                    async with asyncio.timeout(self._next_gap_s()):
                        await self._changed.wait()
        host = spared_host(episode, self._settings)
        try:
            yield episode
        finally:
            async with self._changed:
                self._running[host] -= 1
                self._changed.notify_all()

    def note(self, episode: Episode, outcome: Outcome) -> None:
        """Remember how an episode ended."""
        host = spared_host(episode, self._settings)
        self._ended[host] += 1
        self._blocked[host] += outcome is Outcome.BLOCKED

    def why_left(self, episode: Episode) -> str:
        """Why an episode's website is not visited any more, in words; "" if it is."""
        host = spared_host(episode, self._settings)
        num_blocked, num_ended = self._blocked[host], self._ended[host]
        limit = self._settings.max_block_share
        if not host or num_ended < MIN_TO_LEAVE or num_blocked <= limit * num_ended:
            return ""
        return f"{host} blocked {num_blocked} of {num_ended} episodes (politeness.max_block_share = {limit:g})"

    def _take(self) -> Episode | None:
        for place, episode in enumerate(self._waiting):
            host = spared_host(episode, self._settings)
            is_full = self._running[host] >= self._settings.episodes_per_host
            if host and (is_full or self._gap_s(episode) > 0):
                continue
            self._running[host] += 1
            self._begun[episode.task.id] = self._clock()
            return self._waiting.pop(place)
        return None

    def _gap_s(self, episode: Episode) -> float:
        """Seconds until another attempt at its task may begin."""
        return self._begun.get(episode.task.id, -math.inf) + self._settings.sample_gap_s - self._clock()

    def _next_gap_s(self) -> float | None:
        """Seconds until something may begin for want of which nothing does; None: not before an episode ends."""
        gaps = [gap_s for episode in self._waiting if (gap_s := self._gap_s(episode)) > 0]
        return min(gaps, default=None)


def spared_host(episode: Episode, settings: PolitenessSettings) -> str:
    """Host that an episode visits, where manners are due; "" where none are, and where it has a world of its own."""
    website = episode.task.website
    parts = urlsplit(website.url)
    is_spared = settings.on_practice or not is_loopback(parts.hostname or "")
    return parts.netloc.lower() if is_spared and not website.practice_site else ""


def unvisited(episode: Episode, why: str) -> Trajectory:
    """The record of an episode that isn't begun, since its website turns us away."""
    return Trajectory(id=episode.id, task=episode.task, steps=(), outcome=Outcome.BLOCKED, error=f"not visited: {why}")
