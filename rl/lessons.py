"""Lessons for the starter: demonstrations turned into prompts and the replies wanted, for each of the three roles."""

import json
import logging
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import evaluator.judge
import policy.prompt
import proposer.propose
from evaluator.judge import JudgeSettings, last_screenshots
from evaluator.truth import ground_truth
from policy.agent import AgentSettings
from policy.blobs import BlobStore
from policy.trajectory import ActionKind, Observation, Step, Trajectory
from proposer.look import Look
from proposer.propose import ProposerSettings
from proposer.task import missing_names
from rl.evidence import reason
from rl.manifest import Sample
from rl.model import encode

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

SUCCESS_SHARE = 0.45
"""Share of successes among the judge's lessons: under half, since a false success is what spoils learning."""
OWN_SHARE = 0.6
"""Share of a policy's own failures among the failures, where there are enough of them."""
GIVEN_UP_SHARE = 0.1
"""Share among the failures of those of a policy that gave no answer: they are easy to tell."""


Kind = tuple[str, str]
"""Site and kind of a task, whatever its world."""


def policy_lessons(
    attempts: Iterable[Trajectory],
    blobs: BlobStore,
    processor: Any,
    count: int,
    seed: int,
    kinds: Collection[Kind] | None = None,
) -> list[Sample]:
    """`count` steps of successful demonstrations as the policy will meet them, or fewer.

    Of these kinds of tasks; None: of all.

    Even over the places in a kind of task (its first step, its second, ...), so that every step of a long kind is seen
    as often as the only one of a short one: even over kinds alone, a policy masters the short ones and never ends a
    long one, and practice has no success to show it how.
    """
    places: dict[tuple[tuple[str, str], int], list[tuple[Trajectory, int]]] = defaultdict(list)
    for attempt in attempts:
        if ground_truth(attempt) and (kinds is None or _kind(attempt) in kinds):
            deeds = [index for index, step in enumerate(attempt.steps) if step.action]  # none where a script stumbles
            for place, index in enumerate(deeds):
                places[_kind(attempt), place].append((attempt, index))
    chosen = _evenly(places.values(), count, random.Random(seed))
    return [_acted(attempt, index, blobs, processor) for attempt, index in chosen]


def seldom_done(attempts: Iterable[Trajectory], share: float) -> set[Kind]:
    """The kinds of tasks of whose attempts less than this share succeed."""
    done: dict[Kind, list[bool]] = defaultdict(list)
    for attempt in attempts:
        done[_kind(attempt)].append(ground_truth(attempt) is True)
    logger.info("done: %s", {"/".join(kind): f"{sum(done[kind])}/{len(done[kind])}" for kind in sorted(done)})
    return {kind for kind, successes in done.items() if sum(successes) < share * len(successes)}


def _acted(attempt: Trajectory, index: int, blobs: BlobStore, processor: Any) -> Sample:
    num_told = AgentSettings().history
    past = [policy.prompt.describe(step.action, step.observation) for step in attempt.steps[:index] if step.action]
    step = attempt.steps[index]
    picture = blobs.get(step.observation.screenshot)
    prompt = policy.prompt.render(attempt.task.instruction, step.observation, past[-num_told:], picture)
    return encode(prompt, _reply(step), blobs, processor, name=f"{attempt.id}#{index}")


def _evenly(groups: Iterable[Sequence[Item]], count: int, rng: random.Random) -> list[Item]:
    """About `count` items, as many from each group as can be: the larger ones take up what the smaller ones leave."""
    chosen: list[Item] = []
    smallest_first = sorted(groups, key=len)
    for index, group in enumerate(smallest_first):
        chosen += _some(group, (count - len(chosen)) // (len(smallest_first) - index), rng)
    return rng.sample(chosen, len(chosen))


def _reply(step: Step) -> str:
    """What the policy is to say: where it is, why, and the action.

    Naming the page first makes a small model look at it: without, it goes on with its plan after the plan is done.
    """
    assert step.action is not None, "scripts make no malformed moves"
    page = step.observation.title.rpartition(" - ")[0] or step.observation.title
    name = policy.prompt.element_name(step.action, step.observation)
    return f"Thought: {page}. {step.thought}\nAction: {policy.prompt.action_text(step.action, name)}"


def judge_lessons(
    attempts: Sequence[Trajectory],
    practised: Sequence[Trajectory],
    blobs: BlobStore,
    processor: Any,
    count: int,
    seed: int,
) -> list[Sample]:
    """`count` judged attempts, or fewer, spread evenly over the kinds of tasks.

    Successes and failures are balanced within each kind. Balanced over all kinds together, a judge learns the odds of a
    kind instead of looking: that "done" means failure, say, where most kinds that end so are hard ones.

    Args:
        attempts: Demonstrations: near misses, and the solution of every task that anything here is an attempt at.
        practised: A policy's own attempts.
        blobs: Their screenshots.
        processor: The model's.
        count: Lessons wanted.
        seed: Of the choice.
    """
    rng = random.Random(seed)
    kinds = sorted(_by_kind(attempts, practised, rng), key=lambda kind: len(kind.successes))
    chosen: list[_Lesson] = []
    for index, kind in enumerate(kinds):  # kinds with few successes first; the others take up what those leave
        chosen += kind.some((count - len(chosen)) // (len(kinds) - index), rng)
    return [_judged(lesson, blobs, processor) for lesson in rng.sample(chosen, len(chosen))]


@dataclass(frozen=True, slots=True)
class _Lesson:
    """An attempt with what a judge is to say of it."""

    attempt: Trajectory
    reason: str
    success: bool


@dataclass(slots=True)
class _Kind:
    """What is to be learned from the attempts at one kind of task, of a site."""

    successes: list[_Lesson] = field(default_factory=list)
    own: list[_Lesson] = field(default_factory=list)
    """A policy's failures that ended with an answer: the hard ones; the others gave up."""
    given_up: list[_Lesson] = field(default_factory=list)
    made: list[_Lesson] = field(default_factory=list)
    """Failures by script, and those made from successes."""

    def some(self, count: int, rng: random.Random) -> list[_Lesson]:
        """About `count` of them, or fewer where there aren't as many."""
        successes = _some(self.successes, round(count * SUCCESS_SHARE), rng)
        num_failures = round(len(successes) * (1 - SUCCESS_SHARE) / SUCCESS_SHARE)
        failures = _some(self.own, round(num_failures * OWN_SHARE), rng)
        failures += _some(self.given_up, round(num_failures * GIVEN_UP_SHARE), rng)
        failures += _some(self.made, num_failures - len(failures), rng)
        return successes + failures


def _by_kind(attempts: Sequence[Trajectory], practised: Sequence[Trajectory], rng: random.Random) -> Iterable[_Kind]:
    """What can be learned from, by kind: where the words before the verdict would speak against it, nothing can."""
    kinds: dict[tuple[str, str], _Kind] = defaultdict(_Kind)
    successes = [attempt for attempt in (*attempts, *practised) if ground_truth(attempt)]
    solutions = {attempt.task.gold_id: attempt for attempt in reversed(successes)}  # the scripted ones come last

    def add(attempt: Trajectory, success: bool, group: list[_Lesson]) -> None:
        solution = solutions[attempt.task.gold_id]
        why = reason(attempt, solution)
        if why.fits if success else why != reason(solution, solution):
            group.append(_Lesson(attempt, why.text, success))

    for attempt in successes:
        add(attempt, True, kinds[_kind(attempt)].successes)
    for attempt in (*filter(_failed, attempts), *_misjudged(successes, rng)):
        add(attempt, False, kinds[_kind(attempt)].made)
    for attempt in filter(_failed, practised):
        kind = kinds[_kind(attempt)]
        add(attempt, False, kind.given_up if attempt.answer is None else kind.own)
    return kinds.values()


def _failed(attempt: Trajectory) -> bool:
    return ground_truth(attempt) is False


def _kind(attempt: Trajectory) -> Kind:
    site, _, name = (attempt.task.gold_id or "//").split("/")
    return site, name.rpartition("-")[0]


def _some(items: Sequence[Item], count: int, rng: random.Random) -> list[Item]:
    return rng.sample(items, min(count, len(items)))


def _misjudged(successes: Sequence[Trajectory], rng: random.Random) -> Iterator[Trajectory]:
    """Failures made from successes: the same attempt at another task of its world, or ended before its last deed."""
    alike: dict[tuple[str | None, ...], list[Trajectory]] = defaultdict(list)
    for attempt in successes:
        alike[attempt.task.world, *_kind(attempt)].append(attempt)
    for attempt in successes:
        others = alike[attempt.task.world, *_kind(attempt)]
        swapped = [attempt.model_copy(update={"task": other.task}) for other in others]
        wrong = [other for other in swapped if ground_truth(other) is False]  # two wordings may want the same
        if wrong:
            yield rng.choice(wrong)
        if len(attempt.steps) > 2:
            cut = rng.randrange(1, len(attempt.steps) - 1)  # the last step only answers
            early = {"steps": attempt.steps[:cut], "final": attempt.steps[cut].observation, "final_state": None}
            yield attempt.model_copy(update=early | {"answer": rng.choice(["done", None])})


def _judged(lesson: _Lesson, blobs: BlobStore, processor: Any) -> Sample:
    settings, attempt = JudgeSettings(), lesson.attempt
    pictures = [blobs.get(name) for name in last_screenshots(attempt, settings.num_screenshots)]
    reply = f"Reason: {lesson.reason}\nVerdict: {'success' if lesson.success else 'failure'}"
    return encode(
        evaluator.judge.render(attempt, pictures, settings), reply, blobs, processor, name=f"{attempt.id}#judge"
    )


def proposer_lessons(
    attempts: Sequence[Trajectory], blobs: BlobStore, processor: Any, count: int, seed: int
) -> list[Sample]:
    """`count` pages with a task that can be done there, or fewer, spread evenly over the kinds of tasks.

    Only pages that show every name in the task's wording: those seen while doing the task, and, where its solution goes
    to what it names, every other page of the same world. Without the latter a proposer hardly knows pages other than
    the start page, and writes there what can't be done. Unbalanced, a small one writes little else than what nearly
    every page allows: to open something.
    """
    pages: dict[str, dict[str, Observation]] = defaultdict(dict)
    for attempt in attempts:
        pages[_world(attempt)] |= {step.observation.screenshot: step.observation for step in attempt.steps}
    kinds: dict[tuple[str, str], dict[tuple[str, str], tuple[Trajectory, Observation]]] = defaultdict(dict)
    for attempt in filter(ground_truth, attempts):
        instruction = attempt.task.instruction
        seen = [step.observation for step in attempt.steps]
        for page in (*seen, *pages[_world(attempt)].values()) if _goes_to_what_it_names(attempt) else seen:
            if not missing_names(instruction, page.listing):
                kinds[_kind(attempt)][page.screenshot, instruction] = attempt, page
    chosen = _evenly([list(seen.values()) for seen in kinds.values()], count, random.Random(seed))
    return [_proposed(attempt, page, blobs, processor) for attempt, page in chosen]


def _world(attempt: Trajectory) -> str:
    return f"{attempt.task.website.name}/{attempt.task.world}"


def _goes_to_what_it_names(attempt: Trajectory) -> bool:
    """Whether something in the task's wording was clicked or searched for: then any page that shows it will do.

    Not so where the name is part of a button's (Remove Copper Kettle): that depends on more than a page shows.
    """
    actions = [(step.action, step.observation) for step in attempt.steps if step.action]
    went_to = [policy.prompt.element_name(action, page) for action, page in actions if action.kind is ActionKind.CLICK]
    went_to += [action.text for action, _ in actions if action.kind is ActionKind.TYPE]
    return any(name and name in attempt.task.instruction for name in went_to)


def _proposed(attempt: Trajectory, page: Observation, blobs: BlobStore, processor: Any) -> Sample:
    look = Look(page.url, page.title, page.listing, page.listing, blobs.get(page.screenshot))
    prompt = proposer.propose.render(attempt.task.website, look, ProposerSettings())
    reply = json.dumps({"tasks": [attempt.task.instruction]})
    return encode(prompt, reply, blobs, processor, name=f"{attempt.id}#propose")
