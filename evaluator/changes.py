"""What an episode changed on its website, and what of it its task didn't ask for: its side effects.

In: a trajectory. Out: its changes in words, None where nothing is known of them. On practice sites they are what
differs between the world's first state and its last; on other websites what the guard let the agent do that doesn't
merely read (`policy.guard.Guard`). A gold task asks for what its goal changes, a question for nothing. What a proposed
errand asks for can't be computed, so its changes are recorded and none of them is called a side effect.
"""

from collections import Counter

from pydantic import BaseModel, ConfigDict

from evaluator.truth import gold_task, is_question
from policy.trajectory import ActionClass, SideEffect, Trajectory
from proposer.task import Task
from sites.catalogue import SITES
from sites.contract import State, changes_between, open_world


class Changes(BaseModel):
    """What an episode changed, one phrase for each change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    made: tuple[str, ...]
    """All of it."""
    beyond: tuple[str, ...] | None
    """What the task didn't ask for, a wrong value or a wrong row as much as one too many; None: that isn't known."""


def changes_of(trajectory: Trajectory) -> Changes | None:
    """What an episode changed, however it ended; None where its website's last state wasn't read."""
    made = _made(trajectory)
    if made is None:
        return None
    wanted = _wanted(trajectory.task)
    beyond = None if wanted is None else tuple((Counter(made) - Counter(wanted)).elements())
    return Changes(made=tuple(made), beyond=beyond)


def _made(trajectory: Trajectory) -> list[str] | None:
    if trajectory.task.website.practice_site is None:
        return [_in_words(entry) for entry in trajectory.side_effects if _is_deed(entry)]
    return None if trajectory.final_state is None else _since_the_start(trajectory.task, trajectory.final_state)


def _wanted(task: Task) -> list[str] | None:
    """The changes that a task asks for; None: nobody knows."""
    if task.gold_id is not None:
        return _since_the_start(task, gold_task(task.gold_id).goal.state)
    return [] if is_question(task) else None


def _since_the_start(task: Task, state: State) -> list[str]:
    """How a state of a task's practice site differs from the first one."""
    assert task.website.practice_site is not None and task.world is not None, "the task is on a practice site"
    first = open_world(SITES[task.website.practice_site], task.world).read()
    return list(map(str, changes_between(first, state)))


def _is_deed(entry: SideEffect) -> bool:
    """Whether the agent did something that may last. The page's own requests follow from that, or are statistics."""
    return entry.what == "action" and entry.allowed and entry.of is not ActionClass.READ


def _in_words(entry: SideEffect) -> str:
    return f"{entry.of}: {entry.method} {entry.url}" if entry.url else f"{entry.of}: by a script"
