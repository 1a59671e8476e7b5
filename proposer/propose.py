"""The proposer: a website and looks at its pages in, practice tasks out (the paper's c ~ C(. | z)).

PAE, section 4.2: the context z is a website's name and description, or screenshots of it. Here it is both, with the
page's text, one page a call: many short calls at temperature 1 vary more than one long list. Replies are JSON,
``{"tasks": ["..."]}``; every task that isn't kept is counted under its reason.
"""

import asyncio
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from proposer.generate import Generate, Prompt, Sampling
from proposer.look import Look
from proposer.task import Task, Website, missing_names

SYSTEM = """You invent practice tasks for a web agent. You see one page of a website. Write tasks that a visitor could \
do on this website, each with one clear end, naming things exactly as the page does.
Reply with JSON only: {"tasks": ["..."]}"""

CALLS_AT_ONCE = 8


class ProposerSettings(BaseModel):
    """How tasks are written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature."""
    tasks_per_call: int = Field(default=1, ge=1)
    """Tasks asked for in one reply."""
    max_calls_per_task: float = Field(default=4.0, ge=1)
    """The proposer is asked at most this many times for each task wanted; then fewer tasks must do."""
    max_tokens: int = Field(default=80, ge=16)
    """Tokens of one reply."""
    pictures: bool = True
    """Whether the page's screenshot is shown besides its text."""
    min_words: int = Field(default=3, ge=1)
    """Shorter instructions are rejected."""
    max_words: int = Field(default=60, ge=1)
    """Longer instructions are rejected."""
    max_per_opening: int | None = Field(default=None, ge=1)
    """Tasks of one website or world in a round that may begin with the same word (Show, Find, Add ...); None: any
    number. A small proposer writes what its page most obviously allows, and what isn't practised isn't learned."""
    grounded: bool = False
    """Reject instructions with a proper name that the page doesn't show; for proposers that make names up."""


@dataclass(slots=True)
class Proposals:
    """What the proposer wrote and what became of it: num_proposed = len(tasks) + sum(rejections.values())."""

    tasks: list[Task] = field(default_factory=list)
    num_proposed: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    """Reason -> count: malformed, too_short, too_long, ungrounded, held_out, duplicate, crowded."""


def render(website: Website, look: Look, settings: ProposerSettings) -> Prompt:
    """The proposer's prompt for one page."""
    site = f"Website: {website.name}. {website.description}".strip()
    text = f"{site}\nPage: {look.title}\n{look.listing}\nWrite {settings.tasks_per_call} task(s).\n"
    return Prompt(SYSTEM, (look.screenshot, text) if settings.pictures else (text,))


def parse(reply: str) -> list[str] | None:
    """The instructions in a reply; None if it isn't the JSON asked for (a code fence around it is forgiven)."""
    try:
        document = json.loads(re.sub(r"^```(?:json)?\s*|\s*```$", "", reply.strip()))
    except json.JSONDecodeError:
        return None
    tasks = document.get("tasks") if isinstance(document, dict) else None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, str) and _is_text(task) for task in tasks):
        return None
    return [" ".join(task.split()) for task in tasks]


def _is_text(task: str) -> bool:
    """Whether it can be written down: JSON's escapes can name half a character."""
    try:
        task.encode()
    except UnicodeEncodeError:
        return False
    return True


def normal(instruction: str) -> str:
    """An instruction as compared for duplicates: case, punctuation and articles ignored."""
    words = re.findall(r"[\w.$#-]+", instruction.casefold())
    return " ".join(word.strip(".") for word in words if word not in ("a", "an", "the", "please"))


async def propose(
    website: Website,
    world: str | None,
    looks: Sequence[Look],
    generate: Generate,
    *,
    num_tasks: int,
    taken: Set[str] = frozenset(),
    held_out: Collection[str] = (),
    settings: ProposerSettings,
    seed: int,
) -> Proposals:
    """At most `num_tasks` new tasks for a website.

    Args:
        website: Where the tasks are to be done.
        world: Practice sites: the world looked at; None elsewhere.
        looks: Pages to write about, taken in turn; at least one.
        generate: The proposer's model.
        num_tasks: Tasks wanted.
        taken: Instructions that exist already, as `normal` compares them.
        held_out: Instructions that are examined on and must never be practised.
        settings: How to ask.
        seed: Of the sampling.

    Raises:
        ModelError: the model is out.
    """
    if not looks:
        raise ValueError(f"website {website.name}: expected at least one page to propose from")
    gate = _Gate(taken, {normal(text) for text in held_out}, settings)
    found = Proposals()
    seeds = iter(random.Random(seed).sample(range(2**31), int(num_tasks * settings.max_calls_per_task)))
    pages = itertools.cycle(looks[::-1])  # the start page last: what it names needs no searching
    while len(found.tasks) < num_tasks and (batch := list(itertools.islice(seeds, CALLS_AT_ONCE))):
        shown = list(itertools.islice(pages, len(batch)))
        prompts = [render(website, look, settings) for look in shown]
        samplings = [Sampling(settings.temperature, settings.max_tokens, call_seed) for call_seed in batch]
        replies = await asyncio.gather(*map(generate, prompts, samplings))
        written = [
            (look, task) for look, reply in zip(shown, replies, strict=True) for task in parse(reply.text) or [""]
        ]
        for look, instruction in written:
            if len(found.tasks) == num_tasks:
                break
            found.num_proposed += 1
            if reason := gate.reject(instruction, look):
                found.rejections[reason] += 1
            else:
                found.tasks.append(Task(website=website, instruction=instruction, world=world))
    return found


@dataclass(slots=True)
class _Gate:
    taken: Set[str]
    held_out: set[str]
    settings: ProposerSettings
    kept: set[str] = field(default_factory=set)
    openings: Counter[str] = field(default_factory=Counter)

    def reject(self, instruction: str, look: Look) -> str:
        """Why an instruction isn't kept; empty if it is, and then its like isn't kept again."""
        key, num_words = normal(instruction), len(instruction.split())
        if not instruction:
            return "malformed"
        if num_words < self.settings.min_words:
            return "too_short"
        if num_words > self.settings.max_words:
            return "too_long"
        if self.settings.grounded and missing_names(instruction, f"{look.title}\n{look.listing}"):
            return "ungrounded"
        if key in self.held_out:
            return "held_out"
        if key in self.taken or key in self.kept:
            return "duplicate"
        opening = instruction.split()[0].casefold()
        if self.settings.max_per_opening is not None and self.openings[opening] >= self.settings.max_per_opening:
            return "crowded"
        self.openings[opening] += 1
        self.kept.add(key)
        return ""
