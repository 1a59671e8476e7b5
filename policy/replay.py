"""An episode gone through again: the recorded actions in a fresh world, and where what comes of them first differs.

No model is asked. Compared are, before each action, the address, the elements and the listing, after it how it went,
and at the end the page, how the episode ended and, on practice sites, the world's state. Where elements lie and what
the pictures look like isn't: those depend on the machine's fonts.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from policy.agent import visiting
from policy.browser import Browser, Tab
from policy.browser_settings import BrowserError
from policy.trajectory import BrowserFacts, Observation, Outcome, Step, Trajectory
from sites.server import PracticeServer


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay first differs from its record."""

    step: int
    """From 1; the number of steps + 1 is the episode's end."""
    what: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.what}: recorded {self.recorded}, replayed {self.replayed}"


async def replay(trajectory: Trajectory, browser: Browser, practice: PracticeServer | None) -> Difference | None:
    """Do a trajectory's actions again; where it first differs, None if nowhere.

    Args:
        trajectory: What was recorded. An episode that was cut off is gone through as far as it came.
        browser: With the settings that it was recorded with.
        practice: Server of practice worlds; needed only for tasks on practice sites.
    """
    task, number = trajectory.task, 1
    with visiting(task, practice) as visit:
        url = visit.url if visit else task.website.url
        try:
            async with browser.episode(url, task.website.allowed_hosts) as tab:
                for step in trajectory.steps:
                    if found := await _redo(tab, step):
                        return Difference(number, *found)
                    number += 1
                found = await _compare_end(tab, trajectory)
        except BrowserError as error:
            same = error.outcome is trajectory.outcome
            found = None if same else ("outcome", trajectory.outcome, f"{error.outcome} ({error})")
        if found is None and visit and trajectory.final and visit.world.read() != trajectory.final_state:
            found = ("state", *_first_change(_lines(trajectory.final_state), _lines(visit.world.read())))
    return Difference(number, *found) if found else None


def changed_facts(trajectory: Trajectory, browser: BrowserFacts) -> list[str]:
    """In what the browser differs from the one that a trajectory was recorded with; empty if in nothing."""
    before = trajectory.browser.model_dump() if trajectory.browser else {}
    now = browser.model_dump()
    return [
        f"{key}: recorded with {before[key]}, replayed with {now[key]}" for key in before if before[key] != now[key]
    ]


_Found = tuple[str, str, str]
"""What differs, as recorded and as replayed."""


async def _redo(tab: Tab, step: Step) -> _Found | None:
    observation = await tab.observe()
    if found := _compare(step.observation, observation):
        return found
    if step.action is None:
        return None
    await tab.act(step.action, observation)
    if step.effect is not None and tab.effect is not step.effect:
        return "effect", step.effect, tab.effect
    return None


async def _compare_end(tab: Tab, trajectory: Trajectory) -> _Found | None:
    if trajectory.final is None:
        return None
    observation = await tab.observe()
    failed = trajectory.outcome is Outcome.SITE_ERROR
    if bool(tab.failure) is not failed:
        return "outcome", trajectory.outcome, tab.failure or "no site error"
    return _compare(trajectory.final, observation)


def _compare(recorded: Observation, replayed: Observation) -> _Found | None:
    for what, lines in (("url", _place), ("elements", _elements), ("listing", _listing)):
        before, after = lines(recorded), lines(replayed)
        if before != after:
            return what, *_first_change(before, after)
    return None


def _place(observation: Observation) -> list[str]:
    """The address; on this machine (``*.localhost``) without host and port, which are a visit's own."""
    parts = urlsplit(observation.url)
    own = (parts.hostname or "").endswith(".localhost")
    return [parts._replace(scheme="", netloc="").geturl() if own else observation.url]


def _elements(observation: Observation) -> list[str]:
    return [f"<{e.tag}> {e.name} [{e.mark}]" + (f" = {e.value}" if e.value else "") for e in observation.elements]


def _listing(observation: Observation) -> list[str]:
    return observation.listing.splitlines()


def _lines(state: object) -> list[str]:
    return list(_leaves(state, ""))


def _leaves(state: object, path: str) -> Iterator[str]:
    """A JSON value as ``a.b.c = value``, one line for each leaf."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    if not items:
        yield f"{path} = {state!r}"
    for key, value in items:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _first_change(before: list[str], after: list[str]) -> tuple[str, str]:
    """The first lines that differ between two texts that do; "nothing" where one has none."""
    changes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    _, from_before, to_before, from_after, to_after = next(change for change in changes if change[0] != "equal")
    return _said(before[from_before:to_before]), _said(after[from_after:to_after])


def _said(lines: list[str]) -> str:
    return repr(lines[0]) if lines else "nothing"
