"""Looks around a website without a task: what the proposer is shown before it makes up tasks."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from policy.blobs import Blobs
from policy.browser import Browser, Tab
from policy.trajectory import Action, ActionKind, Observation
from proposer.look import Look

_MAX_CLICKS_PER_PAGE = 4  # some links lead to pages already seen, or nowhere
LOOK_LIMIT_S = 180.0
"""What a website is given to be looked at."""


async def look_around(
    browser: Browser,
    start_url: str,
    allowed_hosts: Sequence[str],
    num_pages: int,
    rng: random.Random,
    blobs: Blobs | None = None,
    limit_s: float = LOOK_LIMIT_S,
) -> list[Look]:
    """Up to `num_pages` different pages: the start page, then a random walk along links, home again from dead ends.

    `blobs` takes the pictures with marks, which nobody is shown; None: the browser's. After `limit_s` it is what was
    seen by then, maybe nothing. Raises BrowserError if the start page can't be had or the site breaks down on the way.
    """
    looks: dict[str, Look] = {}
    clicked: set[tuple[str, str]] = set()
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s), browser.episode(start_url, allowed_hosts, blobs) as tab:
            for _ in range(num_pages * _MAX_CLICKS_PER_PAGE):
                look = await tab.look()
                looks.setdefault(look.url, look)
                if len(looks) >= num_pages or not await _wander(tab, clicked, rng):
                    break
    return list(looks.values())


async def _wander(tab: Tab, clicked: set[tuple[str, str]], rng: random.Random) -> bool:
    """Whether there was anywhere to go: along a link not yet tried, or home where there is none."""
    observation = await tab.observe()
    links = _fresh_links(observation, clicked)
    if not links:
        home = Action(kind=ActionKind.HOME)
        await tab.act(home, observation)
        observation = await tab.observe()
        links = _fresh_links(observation, clicked)
    if not links:
        return False
    mark = rng.choice(links)
    clicked.add((observation.url, observation.elements[mark - 1].name))
    await tab.act(Action(kind=ActionKind.CLICK, mark=mark), observation)
    return True


def _fresh_links(observation: Observation, clicked: set[tuple[str, str]]) -> list[int]:
    links = (element for element in observation.elements if element.tag == "a")
    return [element.mark for element in links if (observation.url, element.name) not in clicked]
