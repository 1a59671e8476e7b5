"""What a practice site is: content made from a seed, a small mutable state, pages, and gold tasks.

A *world* is one generated instance of a site, named ``train-17`` or ``heldout-3``, or after what else it is for:
``audit-5`` (measuring the judge), ``gate-2`` (comparing weights). Its content (products, threads, articles) is
immutable and shared; its state (cart, posts, settings) belongs to one episode, is plain JSON, and is read, copied and
put back by method call in the process that serves it, never over HTTP: a page's scripts can't reach it.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

from starlette.routing import BaseRoute

State = dict[str, Any]
"""An episode's mutable state, JSON values only. Key ``location`` is the path and query of the last page shown."""

Split = Literal["train", "heldout"]

TASKS_PER_KIND = 2
"""Gold tasks of each kind in a world."""


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a scripted solution, addressed by what a reader of the page sees."""

    action: Literal["click", "type", "select", "go_back", "home", "answer"]
    target: str = ""
    """Accessible name of the element, unique on its page; empty for actions without an element."""
    text: str = ""
    """What is typed, selected or answered."""
    thought: str = ""
    """Why, in one short sentence: it becomes the thought of a demonstration."""


@dataclass(frozen=True, slots=True)
class Goal:
    """When a gold task is accomplished; a conjunction of what is given."""

    state: State
    """The whole final state wanted, so that a side effect is a failure. ``location`` counts only where it is set."""
    answers: tuple[str, ...] = ()
    """Acceptable answers; empty: any answer, or none, will do."""
    distractors: tuple[str, ...] = ()
    """Phrases that make an answer wrong that also holds an acceptable one ("A or B, I think"), unless it is one as a
    whole ("A is cheaper than B")."""


@dataclass(frozen=True, slots=True)
class GoldTask:
    """A task whose success can be computed. It measures; it is learned from only where a run asks for that."""

    id: str
    """``<site>/<world>/<kind>-<n>``: enough to make the task again."""
    kind: str
    instruction: str
    goal: Goal
    solution: tuple[Move, ...]
    near_misses: tuple[tuple[Move, ...], ...] = ()
    """Realistic ways to fail: wrong item, wrong answer on the right page, one step short, a side effect."""


@dataclass(frozen=True, slots=True)
class Site:
    """One practice site. ``Content`` is whatever frozen type the site makes from its seed."""

    name: str
    title: str
    description: str
    make_content: Callable[[random.Random, Split], Any]
    initial_state: Callable[[Any], State]
    kinds: Mapping[str, Callable[[Any, random.Random, int], GoldTask]] = field(repr=False, compare=False)
    """Kind of task -> (content, rng, number) -> a task without id and kind; the number varies it, from 0. New kinds go
    last, so that the tasks of the others stay what they are."""
    routes: tuple[BaseRoute, ...] = field(repr=False, compare=False)
    """Starlette routes; a handler finds its World in ``request.state.world``."""


@dataclass(slots=True)
class World:
    """One episode's private copy of a generated world."""

    site: Site
    name: str
    content: Any
    state: State

    def read(self) -> State:
        """A copy of the state as it is now."""
        return json.loads(self.snapshot())

    def snapshot(self) -> str:
        """The state as JSON text, for `restore`."""
        return json.dumps(self.state)

    def restore(self, snapshot: str) -> None:
        """Put a snapshot of this world back."""
        self.state = json.loads(snapshot)

    def reset(self) -> None:
        """Back to the world's first state."""
        self.state = self.site.initial_state(self.content)


def split_of(world: str) -> Split:
    """The split whose proper names a world is made of: held-out ones in ``heldout-<n>`` only.

    Raises:
        ValueError: the name is not ``train-<n>``, ``audit-<n>``, ``gate-<n>`` or ``heldout-<n>``.
    """
    match = re.fullmatch(r"(train|audit|gate|heldout)-\d+", world)
    if not match:
        raise ValueError(f"world {world!r}: expected train-<n>, audit-<n>, gate-<n> or heldout-<n>")
    return "heldout" if match[1] == "heldout" else "train"


@lru_cache(maxsize=512)
def _content(site: Site, world: str) -> Any:
    return site.make_content(random.Random(f"{site.name}/{world}"), split_of(world))


def open_world(site: Site, world: str) -> World:
    """A fresh world in its first state; the same name gives the same content on every machine."""
    content = _content(site, world)
    return World(site, world, content, site.initial_state(content))


@lru_cache(maxsize=64)
def gold_tasks(site: Site, world: str) -> Sequence[GoldTask]:
    """The gold tasks of one world, always the same ones: some of each kind, no instruction twice."""
    prefix = f"{site.name}/{world}"
    content, rng = _content(site, world), random.Random(f"{prefix}/tasks")
    tasks: dict[str, GoldTask] = {}
    for kind, draft in site.kinds.items():
        for number in range(TASKS_PER_KIND):
            task = draft(content, rng, number)
            while task.instruction in tasks:
                task = draft(content, rng, number)
            tasks[task.instruction] = replace(task, id=f"{prefix}/{kind}-{number}", kind=kind)
    return tuple(tasks.values())


def in_split(name: str, split: Split) -> bool:
    """Whether a generated proper name may be used in a split: names are dealt out, so no name is in both."""
    return (sum(name.encode()) % 2 == 0) == (split == "train")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing in which two states differ: a row that came or went, or a field that has another value."""

    where: str
    """The keys that lead there: ``settings/currency``; of a row in a list, to the list."""
    before: str
    """What was there, as JSON; empty: nothing."""
    after: str
    """What is there instead; empty: nothing."""

    def __str__(self) -> str:
        """In words: ``added to cart/copper-kettle: 1``."""
        if not self.before:
            return f"added to {self.where}: {self.after}"
        if not self.after:
            return f"removed from {self.where}: {self.before}"
        return f"changed {self.where}: {self.before} to {self.after}"


def changes_between(before: State, after: State) -> list[Change]:
    """What differs, in the order of the keys. ``location`` doesn't count: looking at a page changes nothing.

    The order of a list's rows doesn't count either; rows that are the same count each. A row that is an object counts
    once, however many fields it has.
    """
    return [
        change
        for key in sorted({*before, *after} - {"location"})
        for change in _differences(key, before.get(key), after.get(key))
    ]


def _differences(where: str, before: Any, after: Any) -> Iterator[Change]:
    """Changes at one place; None: there is nothing there, which of a list is the same as no rows."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from _differences(f"{where}/{key}", before.get(key), after.get(key))
    elif {type(before), type(after)} <= {list, type(None)}:
        old, new = Counter(map(_as_json, before or ())), Counter(map(_as_json, after or ()))
        yield from (Change(where, row, "") for row in sorted((old - new).elements()))
        yield from (Change(where, "", row) for row in sorted((new - old).elements()))
    elif _as_json(before) != _as_json(after):
        yield Change(where, _as_json(before), _as_json(after))


def _as_json(value: Any) -> str:
    return "" if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)


def accomplished(goal: Goal, state: State, answer: str | None) -> bool:
    """Ground truth of a gold task from the episode's final state and its answer (None: the agent gave none)."""
    wanted = goal.state if "location" in goal.state else {**goal.state, "location": state.get("location")}
    return wanted == state and (not goal.answers or answers_match(answer or "", goal.answers, goal.distractors))


def answers_match(answer: str, accepted: Sequence[str], distractors: Sequence[str] = ()) -> bool:
    """Whether an answer is an accepted phrase, or holds one, and no distractor, as whole words (case, $ and , ignored).

    An answer that is nothing but a number is also right by its value where a decimal is wanted: ``$12`` for ``$12.00``.
    Within a sentence it isn't: who is to say what a 12 there counts?
    """
    text = _plain(answer)
    if any(text.removesuffix(".") == _plain(phrase) or _is_worth(answer, phrase) for phrase in accepted):
        return True

    def holds(phrase: str) -> bool:
        return re.search(rf"(?<![\w.]){re.escape(_plain(phrase))}(?![\w]|\.\d)", text) is not None

    return any(map(holds, accepted)) and not any(map(holds, distractors))


def _is_worth(answer: str, phrase: str) -> bool:
    """Whether both are numbers, the phrase a decimal, and of the same value."""
    return "." in phrase and _value(phrase) is not None and _value(phrase) == _value(answer)


def _value(text: str) -> Decimal | None:
    """What a text is worth that is nothing but a number, in dollars or of anything; None for all others."""
    match = re.fullmatch(r"\$?((?:0|[1-9][0-9]*)(?:\.[0-9]+)?)\.?", text.strip())
    return Decimal(match[1]) if match else None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[$€,\"'\u2018\u2019\u201c\u201d!?]", "", text.casefold()).split())
