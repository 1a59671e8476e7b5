"""Scripted demonstrations: gold tasks' solutions, and their near misses, acted out in the real browser.

A script is a `Generate` like any model, so a demonstration is an ordinary rollout: it reads the listing in its prompt,
finds the element that the next move names, and replies in the policy's own format.
"""

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from policy.agent import AgentSettings, roll_out
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.prompt import action_text
from policy.trajectory import Action, ActionKind, Trajectory
from proposer.generate import Generate, Prompt, Response, Sampling
from proposer.task import Task, Website
from sites.catalogue import SITES
from sites.contract import GoldTask, Move, gold_tasks
from sites.server import PracticeServer

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Act = Callable[[Item], Awaitable[Trajectory]]

_LINE = re.compile(r"^<[^>]+> (?P<name>.*?) \[(?P<mark>\d+)\]")
_BELOW = "... (page continues below)"
MAX_STEPS = 16
EPISODES_AT_ONCE = 4


class DemonstrationError(RuntimeError):
    """A scripted move names an element that its page doesn't show."""


def scripted(moves: Sequence[Move], stumble: str = "") -> Generate:
    """A policy that makes these moves in order, scrolling down to elements that aren't in view yet.

    With a `stumble` it first clicks that name, which no element bears, and is told so.
    """
    remaining = list(moves)
    to_stumble = [stumble] if stumble else []

    async def generate(prompt: Prompt, sampling: Sampling) -> Response:
        if to_stumble:
            return Response(f"Thought: I look for it.\nAction: Click {to_stumble.pop()} [1]")
        listing = "".join(part for part in prompt.parts if isinstance(part, str))
        move = remaining[0]
        mark = find_mark(listing, move.target) if move.target else None
        if move.target and mark is None:
            if _BELOW not in listing:
                raise DemonstrationError(f"no element named {move.target!r} in:\n{listing}")
            down = Action(kind=ActionKind.SCROLL, text="down")
            return Response(f"Thought: What I look for must be further down.\nAction: {action_text(down)}")
        remaining.pop(0)
        action = Action(kind=ActionKind(move.action), mark=mark, text=move.text)
        return Response(f"Thought: {move.thought}\nAction: {action_text(action)}")

    return generate


def find_mark(listing: str, name: str) -> int | None:
    """The mark of the first listed element with this accessible name; None if there is none."""
    for line in listing.splitlines():
        match = _LINE.match(line)
        if match and match["name"] == name:
            return int(match["mark"])
    return None


async def demonstrate(
    task: GoldTask,
    moves: Sequence[Move],
    website: Website,
    trajectory_id: str,
    *,
    stumble: str = "",
    browser: Browser,
    practice: PracticeServer,
) -> Trajectory:
    """The record of a script's attempt at a gold task. Raises DemonstrationError if a move can't be made."""
    world = task.id.split("/")[1]
    asked = Task(website=website, instruction=task.instruction, world=world, source="gold", gold_id=task.id)
    return await roll_out(
        asked,
        trajectory_id,
        browser=browser,
        practice=practice,
        generate=scripted(moves, stumble),
        settings=AgentSettings(max_steps=MAX_STEPS),
        sampling=Sampling(),
    )


@dataclass(frozen=True, slots=True)
class Script:
    """What to act out: a gold task with its solution, or with one of its near misses."""

    name: str
    site: str
    task: GoldTask
    moves: tuple[Move, ...]
    stumble: str = ""
    """What is clicked in vain before the first move."""


def scripts(tasks: Iterable[GoldTask]) -> list[Script]:
    """Every solution and near miss of these tasks."""
    return [_script(task, n, moves) for task in tasks for n, moves in enumerate((task.solution, *task.near_misses))]


def solutions(tasks: Iterable[GoldTask]) -> list[Script]:
    """The solutions of these tasks."""
    return [_script(task, 0, task.solution) for task in tasks]


def stumbles(tasks: Iterable[GoldTask]) -> list[Script]:
    """Solutions that search for a name, after a click on it in vain: what to do when a page doesn't show the name."""
    return [
        replace(script, name=f"{script.name}_stumble", stumble=script.moves[0].text)
        for script in solutions(tasks)
        if script.moves[0].target == "Search" and script.moves[0].text.istitle()
    ]


def _script(task: GoldTask, number: int, moves: tuple[Move, ...]) -> Script:
    return Script(f"{task.id.replace('/', '_')}_{number}", task.id.split("/")[0], task, moves)


def training_tasks(sites: Iterable[str], worlds: Iterable[int], max_moves: int | None = None) -> list[GoldTask]:
    """The gold tasks of training worlds; `max_moves` leaves out those with longer solutions."""
    return [
        task
        for site, number in itertools.product(sites, worlds)
        for task in gold_tasks(SITES[site], f"train-{number}")
        if max_moves is None or len(task.solution) <= max_moves
    ]


async def collect(folder: Path, blobs: BlobStore, wanted: Iterable[Script]) -> list[Trajectory]:
    """The records of scripts, kept as JSON files in `folder`: those that are there already aren't acted again."""

    @contextlib.asynccontextmanager
    async def stage() -> AsyncIterator[Act[Script]]:
        with PracticeServer() as practice:
            async with Browser(BrowserSettings(), blobs) as browser:

                async def act(script: Script) -> Trajectory:
                    site = practice_website(script.site)
                    return await demonstrate(
                        script.task,
                        script.moves,
                        site,
                        script.name,
                        stumble=script.stumble,
                        browser=browser,
                        practice=practice,
                    )

                yield act

    return await record(folder, {script.name: script for script in wanted}, stage(), EPISODES_AT_ONCE)


def practice_website(site: str) -> Website:
    """A practice site as the website of a task."""
    return Website(name=site, url=f"practice:{site}", description=SITES[site].description)


async def record(
    folder: Path, wanted: Mapping[str, Item], stage: AbstractAsyncContextManager[Act[Item]], at_once: int
) -> list[Trajectory]:
    """The records of all that is wanted, by name; the stage is only set up for those that don't lie in `folder` yet."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.json" for name in wanted}
    missing = iter([name for name, file in files.items() if not file.exists()])

    async def work(act: Act[Item]) -> None:
        for name in missing:  # shared: each name goes to exactly one worker
            trajectory = await act(wanted[name])
            files[name].write_text(trajectory.model_dump_json())

    if not all(file.exists() for file in files.values()):
        async with stage as act, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work(act))
    return [Trajectory.model_validate_json(file.read_text()) for file in files.values()]
