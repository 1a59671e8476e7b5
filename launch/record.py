"""Recording a demonstration: a person attempts one task in a browser with a window.

In: a task, and what the person does. Out: a folder of labelled trajectories with the one attempt (evaluator/labels.py),
labelled by the truth where that is known.
"""

import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from evaluator.labels import Label, LabelWriter
from evaluator.truth import gold_task, ground_truth
from launch.config import ConfigError, RolloutSettings
from launch.errors import RunFailed
from launch.judge_eval import kind_of
from policy.agent import roll_out
from policy.blobs import BlobStore
from policy.demonstrator import Demonstrator, HandledBrowser, confirm
from policy.guard import GuardSettings
from policy.trajectory import Outcome, Trajectory
from proposer.generate import Sampling
from proposer.task import Task, Website
from sites.catalogue import SITES
from sites.server import PracticeServer

MAX_STEPS = 200
TIME_LIMIT_S = 3600.0
"""Of a demonstration; people take their time."""


def gold(gold_id: str) -> Task:
    """The gold task of that id as a task. Raises ConfigError if there is none."""
    try:
        found = gold_task(gold_id)
    except (ValueError, KeyError):
        raise ConfigError(
            f"{gold_id}: no such gold task; expected an id like shop/train-1/find_price-0 ({', '.join(sorted(SITES))})"
        ) from None
    site, world, _ = found.id.split("/")
    website = Website(name=site, url=f"practice:{site}", description=SITES[site].description)
    return Task(website=website, instruction=found.instruction, world=world, source="gold", gold_id=found.id)


async def record(
    task: Task,
    folder: Path,
    rollout: RolloutSettings,
    lines: deque[str],
    tell: Callable[[str], None],
    *,
    headed: bool = True,
) -> Trajectory:
    """One demonstration, written to a new folder.

    Args:
        task: What the person is to do.
        folder: Where it goes.
        rollout: Whose `browser` and `agent` are used, but for the limits; where its guard would refuse what can't be
            undone, the person is asked.
        lines: What the person writes on the terminal.
        tell: Shows the person a line.
        headed: Whether there is a window; without one nobody but a program can act.

    Raises:
        LabelError: the folder holds something.
        RunFailed: the attempt did not end with an answer; nothing is written.
    """
    writer = LabelWriter(folder)
    try:
        trajectory = await _attempt(task, writer.blobs, rollout, lines, tell, headed=headed)
    except BaseException:  # also interrupted
        shutil.rmtree(folder)
        raise
    truth = ground_truth(trajectory)
    source = "" if truth is None else "truth"
    label = Label(id=trajectory.id, site=task.website.name, kind=kind_of(task), success=truth, source=source)
    writer.add(label, trajectory)
    writer.finish()
    return trajectory


async def _attempt(
    task: Task,
    blobs: BlobStore,
    rollout: RolloutSettings,
    lines: deque[str],
    tell: Callable[[str], None],
    *,
    headed: bool,
) -> Trajectory:
    agent = rollout.agent.model_copy(
        update={"max_steps": MAX_STEPS, "max_repeats": MAX_STEPS, "time_limit_s": TIME_LIMIT_S}
    )
    settings = rollout.browser.model_copy(update={"guard": _asking(rollout.browser.guard)})
    ask = partial(confirm, lines=lines, tell=tell)
    with PracticeServer() if task.website.practice_site else nullcontext() as practice:
        async with HandledBrowser(settings, blobs, ask=ask, headed=headed) as browser:
            trajectory = await roll_out(
                task,
                f"demonstration-{task.id}",
                browser=browser,
                practice=practice,
                generate=Demonstrator(browser, lines, tell),
                settings=agent,
                sampling=Sampling(),
            )
    if trajectory.outcome is not Outcome.FINISHED:
        raise RunFailed(f"no demonstration, it ended as {trajectory.outcome}: {trajectory.error or 'no answer'}")
    return trajectory


def _asking(guard: GuardSettings) -> GuardSettings:
    conducts = {"practice": guard.practice, "live": guard.live}
    return guard.model_copy(update={where: "ask" for where, conduct in conducts.items() if conduct == "refuse"})


def check_screen() -> None:
    """Raise ConfigError where no window can be shown."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError("record: a window needs a screen, and neither DISPLAY nor WAYLAND_DISPLAY is set")


def terminal_lines() -> deque[str]:
    """What is written on the terminal from now on, a line at a time."""
    lines = deque[str]()

    def read() -> None:
        lines.extend(line.strip() for line in sys.stdin)

    threading.Thread(target=read, daemon=True).start()  # nobody waits for it: it hangs in its last read
    return lines
