"""Which steps are learned from, by what the algorithm learns from (rl/algorithms).

In: judged attempts. Out: samples, the attempts that they are compared with, and for each filter how many attempts or
steps it kept and dropped.

Successes (filtered behaviour cloning's filter, PAE, section 4.4) are balanced over tasks: the paper keeps every
successful trajectory; kept all, easy tasks drown the rest: here a task gives at most `max_per_task` of its successes,
shortest first, a task that always succeeds gives one, and no shape of trajectory (its website and sequence of actions)
may give more than `max_per_shape`. Where the algorithm takes failures too, failed attempts at tasks that give successes
are selected as well, at most `max_failures_per_task`: what not to do where it is known that it can be done. Their steps
that any success of the task took too, selected or not, aren't to blame.

Groups are the attempts at one task, all of them: those whose attempts all succeeded or all failed are dropped, since
there is nothing to compare, except where side effects take more off some successes than off others. Where the algorithm
learns from tasks that are always done as well, `max_per_saturated_task` of their attempts are kept, as among successes.
A step that two attempts share, and that one takes for better and one for worse, is kept twice.

An undecided attempt is neither a success nor a failure, and is in no group. Where `same_answer` is set, a success must
also agree with the task's other successes, else it is undecided.

By config, duplicates are dropped: attempts at one task with the same actions and the same verdict; in groups they are
no part of the mean either. Where earlier rounds are replayed, limits drop the oldest attempts first. By config, only a
trajectory's critical steps are kept: those that surprised most, surprise being minus the log-prob of the whole response
when it was sampled. What a policy says almost surely it goes on saying, and its gradient is next to nothing: most of
what RL teaches language models it teaches on the few uncertain tokens (Wang et al. 2025, arXiv 2506.01939, there by
entropy and token by token). The change of the log-prob from the sampling policy to the parent was not taken for it: but
for replayed steps they are one policy, and the change is rounding noise.

By config, of failures only those steps count that read what a success of their task read too, and that went on
otherwise: there it is known what would have been better, while a whole failure blames its good steps as well. Attempts
at one task begin on the same page, and many come to the same pages. To compare steps that start from the same state is
taken from GiGPO (Feng et al. 2025, arXiv 2505.10978, section 4.2), which gives each of them an advantage of its own;
here it only tells which steps are left out.
"""

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from evaluator.verdict import Judgement
from policy.trajectory import Step, Trajectory
from rl.algorithms.base import LearnsFrom
from rl.manifest import Attempt, Sample


class SelectionSettings(BaseModel):
    """Filter and balance. The limits by number are for algorithms that imitate; mixed groups are taken whole."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_per_task: int = Field(default=2, ge=1)
    """Successful trajectories kept per task, shortest first."""
    max_per_saturated_task: int = Field(default=1, ge=0)
    """The same for a task all of whose rollouts succeeded: there is little left to learn."""
    same_answer: bool = False
    """Whether a task's successes must agree: of different answers to one task at most one is right, so only those with
    the most frequent one are kept, and none where two are equally frequent. For tasks whose right answer is a fact."""
    max_failures_per_task: int = Field(default=0, ge=0)
    """With the algorithm ``topr``: failed trajectories kept of a task that gives successes too, shortest first."""
    max_per_shape: int = Field(default=40, ge=1)
    """Trajectories kept with the same website and sequence of action kinds."""
    max_trajectories: int | None = Field(default=None, ge=1)
    """Trajectories learned from in a round, newest first: of groups whole ones, failures too, as many as fit; else the
    successes. None: no limit."""
    drop_duplicates: bool = False
    """Whether of a task's attempts with the same actions and the same verdict only one, the newest, counts."""
    critical_share: float = Field(default=1.0, gt=0, le=1)
    """Share of each trajectory's steps that are learned from, rounded up: those whose response was least likely when it
    was sampled; steps of unknown log-probs count as such. 1: all."""
    contrasted_only: bool = False
    """Whether of a failure only those steps are learned from whose prompt a success of the task was given too, and
    answered otherwise. For algorithms that learn from failures."""
    replay_rounds: int = Field(default=0, ge=0)
    """Rounds before this one whose attempts are selected from as well; 0: each round learns from its own."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An attempt, and what the judge made of it."""

    trajectory: Trajectory
    judgement: Judgement
    age: int = 0
    """Rounds since it was made."""
    staleness: int = 0
    """Versions by which the weights that learn from it are ahead of those that made it."""
    corrected: float | None = None
    """Its reward corrected for the judge's error; None: it isn't corrected. What is selected doesn't depend on it."""
    left: float = 1.0
    """Share of its reward that its side effects leave, from 0 to 1 (launch/side_effects.py)."""

    @property
    def is_success(self) -> bool:
        """Whether it is worth 1; undecided ones are to be left out before."""
        return self.judgement is Judgement.SUCCESS

    @property
    def standing(self) -> float:
        """Where it stands among the attempts at its task: 1 for a success, less with side effects, 0 for a failure."""
        return self.left if self.is_success else 0.0


@dataclass(frozen=True, slots=True)
class Selection:
    """What is learned from this round."""

    samples: tuple[Sample, ...]
    attempts: tuple[Attempt, ...]
    """All that the samples' trajectories are compared with, and these themselves."""
    counts: dict[str, int]
    """What each filter kept and dropped."""


Groups = Mapping[str, Sequence[Judged]]
"""Attempts by task."""


def select(attempts: Iterable[Judged], settings: SelectionSettings, learns_from: LearnsFrom, seed: int) -> Selection:
    """The samples of one round. What the agent did not end is left out, and so is what is undecided."""
    ended = sorted((a for a in attempts if a.trajectory.outcome.is_agents), key=lambda a: a.trajectory.id)
    decided: dict[str, list[Judged]] = defaultdict(list)
    for attempt in ended:
        if attempt.judgement is not Judgement.UNDECIDED:
            decided[attempt.trajectory.task.id].append(attempt)
    trusted = {task: _agreeing(group) if settings.same_answer else group for task, group in decided.items()}
    num_successes, num_agreed = (sum(a.is_success for g in groups.values() for a in g) for groups in (decided, trusted))
    counts = {
        "undecided": len(ended) - sum(map(len, decided.values())),
        "successes": num_successes,
        "dropped_by_disagreement": num_successes - num_agreed,
    }
    if learns_from.is_of_groups:
        max_saturated = settings.max_per_saturated_task if learns_from is LearnsFrom.GROUPS_AND_SUCCESSES else 0
        selection = _groups(trusted, settings, max_saturated, seed)
    else:
        num_decided = {task: len(group) for task, group in decided.items()}
        max_failures = settings.max_failures_per_task if learns_from is LearnsFrom.FAILURES_TOO else 0
        selection = _successes(trusted, num_decided, settings, max_failures, seed)
    return Selection(selection.samples, selection.attempts, counts | selection.counts)


def _agreeing(group: Sequence[Judged]) -> list[Judged]:
    """A task's attempts without the successes whose answer isn't that of most (case, outer punctuation ignored)."""
    answers = Counter(_plain(attempt.trajectory.answer) for attempt in group if attempt.is_success)
    if len(answers) < 2:
        return list(group)
    (answer, most), (_, second) = answers.most_common(2)
    right = answer if most > second else None
    return [a for a in group if not a.is_success or _plain(a.trajectory.answer) == right]


def _plain(answer: str | None) -> str:
    return (answer or "").casefold().strip(" .,;:!'\"")


def _successes(
    trusted: Groups, num_decided: Mapping[str, int], settings: SelectionSettings, max_failures: int, seed: int
) -> Selection:
    """Successes, balanced over tasks, and at most so many failures of each task that gives some."""
    unlike = _unlike if settings.drop_duplicates else list
    successes = {task: [a for a in group if a.is_success] for task, group in trusted.items()}
    different = {task: unlike(group) for task, group in successes.items()}
    saturated = {task for task, group in successes.items() if len(group) == num_decided[task] > 1}
    limits = {task: settings.max_per_saturated_task if task in saturated else settings.max_per_task for task in trusted}
    balanced = [a for task, group in different.items() for a in _shortest(group, limits[task])]
    random.Random(seed).shuffle(balanced)
    balanced.sort(key=lambda a: a.age)
    shaped = _limit_shapes(balanced, settings.max_per_shape)
    kept = shaped[: settings.max_trajectories]
    tasks = sorted({a.trajectory.task.id for a in kept})
    failures = [unlike([a for a in trusted[task] if not a.is_success]) for task in tasks]
    failed = [a for group in failures for a in _shortest(group, max_failures)]
    places = _places([*kept, *failed])
    blamed = _blamed(places, trusted)
    contrasted = _contrasted(blamed, trusted) if settings.contrasted_only else blamed
    critical = _critical(contrasted, settings.critical_share)
    usable = [place for place in critical if _is_usable(place)]
    samples = _distinct(usable)
    counts = {
        "dropped_duplicates": sum(map(len, successes.values())) - sum(map(len, different.values())),
        "dropped_by_task_balance": sum(map(len, different.values())) - len(balanced),
        "dropped_by_shape_balance": len(balanced) - len(shaped),
        "dropped_as_oldest": len(shaped) - len(kept),
        "kept_trajectories": len(kept),
        "kept_tasks": len(tasks),
        "kept_failures": len(failed),
        "dropped_steps_not_to_blame": len(places) - len(blamed),
        "dropped_steps_uncontrasted": len(blamed) - len(contrasted),
        "dropped_steps_uncritical": len(contrasted) - len(critical),
        "dropped_steps_unusable": len(critical) - len(usable),
        "dropped_steps_equal": len(usable) - len(samples),
    }
    return _selection(samples, [trusted[task] for task in tasks], counts)


def _unlike(attempts: Iterable[Judged]) -> list[Judged]:
    """Attempts at a task of which no two have the same actions and the same verdict: the newest, then the first."""
    different: dict[tuple[object, ...], Judged] = {}
    for attempt in sorted(attempts, key=lambda a: (a.age, a.trajectory.id)):
        actions = tuple(step.action for step in attempt.trajectory.steps)
        different.setdefault((attempt.is_success, actions), attempt)
    return list(different.values())


def _shortest(attempts: Iterable[Judged], limit: int) -> list[Judged]:
    """Those with the least side effects first, and of these the shortest."""
    return sorted(attempts, key=lambda a: (-a.standing, len(a.trajectory.steps), a.trajectory.id))[:limit]


def _limit_shapes(attempts: Iterable[Judged], limit: int) -> list[Judged]:
    seen: Counter[tuple[str, ...]] = Counter()
    kept = []
    for attempt in attempts:
        trajectory = attempt.trajectory
        shape = (trajectory.task.website.name, *(step.action.kind for step in trajectory.steps if step.action))
        seen[shape] += 1
        if seen[shape] <= limit:
            kept.append(attempt)
    return kept


@dataclass(frozen=True, slots=True)
class _Place:
    """A step, and the attempt that it is of."""

    attempt: Judged
    index: int

    @property
    def step(self) -> Step:
        return self.attempt.trajectory.steps[self.index]


def _places(attempts: Iterable[Judged]) -> list[_Place]:
    return [_Place(attempt, index) for attempt in attempts for index in range(len(attempt.trajectory.steps))]


def _said_in_successes(trusted: Groups) -> Mapping[tuple[int, ...], set[tuple[int, ...]]]:
    """What successes said, selected or not, by prompt; a prompt holds its task."""
    said: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
    for place in _places(attempt for group in trusted.values() for attempt in group if attempt.is_success):
        if place.step.prompt_ids:
            said[place.step.prompt_ids].add(place.step.token_ids)
    return said


def _blamed(places: Iterable[_Place], trusted: Groups) -> list[_Place]:
    """All steps of successes, and of failures those that no success of the task took too."""
    said = _said_in_successes(trusted)
    return [p for p in places if p.attempt.is_success or p.step.token_ids not in said.get(p.step.prompt_ids, ())]


def _contrasted(places: Iterable[_Place], trusted: Groups) -> list[_Place]:
    """All steps of successes, and of failures those in whose place a success of the task said something else."""
    said = _said_in_successes(trusted)

    def is_contrasted(step: Step) -> bool:
        better = said.get(step.prompt_ids, set())
        return bool(better) and step.token_ids not in better

    return [place for place in places if place.attempt.is_success or is_contrasted(place.step)]


def _critical(places: Iterable[_Place], share: float) -> list[_Place]:
    """Of each attempt that share of its steps which surprised most, in their order; of equals the earlier ones."""
    kept = []
    for _, group in itertools.groupby(places, key=lambda place: place.attempt.trajectory.id):
        steps = list(group)
        most = sorted(steps, key=lambda place: -_surprise(place.step))[: math.ceil(share * len(steps))]
        kept += sorted(most, key=lambda place: place.index)
    return kept


def _surprise(step: Step) -> float:
    """Minus the log-prob (nats) of a response when it was sampled; infinite where that isn't known."""
    return -sum(step.logprobs) if _has_logprobs(step) else math.inf


def _is_usable(place: _Place) -> bool:
    """Whether a step can be imitated or unlearned.

    Of successes the well-formed steps. Of failures the malformed ones as well, but none of unknown log-probs: without
    them there is no telling how far a step has been unlearned already.
    """
    step = place.step
    return _has_tokens(step) and (step.action is not None if place.attempt.is_success else _has_logprobs(step))


def _distinct(places: Iterable[_Place]) -> list[Sample]:
    """Each pair of prompt and response once."""
    distinct: dict[tuple[tuple[int, ...], tuple[int, ...]], Sample] = {}
    for place in places:
        distinct.setdefault((place.step.prompt_ids, place.step.token_ids), _sample(place))
    return list(distinct.values())


def _groups(trusted: Groups, settings: SelectionSettings, max_saturated: int, seed: int) -> Selection:
    """The groups of which some attempts succeeded and some failed: every step of them, well-formed or not.

    Of those of which all succeeded at most so many attempts.
    """
    shares = {task: [a.is_success for a in group] for task, group in trusted.items() if group}
    uneven = {task for task in shares if len({attempt.standing for attempt in trusted[task]}) > 1}
    saturated = {task for task, successes in shares.items() if len(successes) > 1 and all(successes)} - uneven
    unlike = _unlike if settings.drop_duplicates else list
    mixed = [trusted[task] for task in shares if task in uneven]
    different = [unlike(group) for group in mixed]
    wanted = [task for task in shares if task in saturated and max_saturated]
    rehearsed = [_shortest(unlike(trusted[task]), max_saturated) for task in wanted]
    newest = _newest([*different, *rehearsed], settings.max_trajectories, seed)
    kept = [attempt for group in newest for attempt in group]
    places = _places(kept)
    contrasted = _contrasted(places, trusted) if settings.contrasted_only else places
    critical = _critical(contrasted, settings.critical_share)
    usable = [place for place in critical if _has_tokens(place.step) and _has_logprobs(place.step)]
    counts = {
        "groups": len(shares),
        "dropped_groups_of_one": sum(len(successes) == 1 for successes in shares.values()),
        "dropped_groups_all_succeeded": len(saturated) - len(rehearsed),
        "dropped_groups_all_failed": sum(len(s) > 1 and not any(s) for s in shares.values()),
        "dropped_groups_as_oldest": len(mixed) + len(rehearsed) - len(newest),
        "dropped_duplicates": sum(map(len, mixed)) - sum(map(len, different)),
        "dropped_steps_uncontrasted": len(places) - len(contrasted),
        "dropped_steps_uncritical": len(contrasted) - len(critical),
        "dropped_steps_without_logprobs": len(critical) - len(usable),
        "kept_trajectories": sum(attempt.is_success for attempt in kept),
        "kept_tasks": len(newest),
        "kept_failures": sum(not attempt.is_success for attempt in kept),
    }
    # What is rehearsed has the whole group's mean, which alone says how far one attempt's success was expected.
    compared = [group if (task := group[0].trajectory.task.id) in uneven else trusted[task] for group in newest]
    return _selection(map(_sample, usable), compared, counts)


def _newest(groups: Sequence[Sequence[Judged]], limit: int | None, seed: int) -> Sequence[Sequence[Judged]]:
    """Whole groups, newest first and those of one age in a random order, up to the first that exceeds the limit."""
    if limit is None:
        return groups
    order = sorted(random.Random(seed).sample(groups, len(groups)), key=lambda group: min(a.age for a in group))
    totals = itertools.accumulate(map(len, order))
    return [group for group, total in zip(order, totals, strict=True) if total <= limit]


def _selection(samples: Iterable[Sample], groups: Iterable[Sequence[Judged]], counts: Mapping[str, int]) -> Selection:
    """In the order of their names, so that it doesn't depend on the order of arrival."""
    ordered = tuple(sorted(samples, key=lambda sample: (sample.trajectory_id, sample.step)))
    attempts = sorted((_attempt(a) for group in groups for a in group), key=lambda attempt: attempt.trajectory_id)
    failures = {attempt.trajectory_id for attempt in attempts if not attempt.reward}
    steps = {
        "kept_failed_steps": sum(sample.trajectory_id in failures for sample in ordered),
        "kept_steps": len(ordered),
    }
    return Selection(ordered, tuple(attempts), {**counts, **steps})


def _attempt(attempt: Judged) -> Attempt:
    trajectory = attempt.trajectory
    reward = 1 if attempt.is_success else 0
    worth = reward if attempt.corrected is None else attempt.corrected
    return Attempt(
        trajectory_id=trajectory.id,
        group=trajectory.task.id,
        reward=reward,
        corrected=attempt.corrected if attempt.left == 1 else worth * attempt.left,
        age=attempt.age,
        staleness=attempt.staleness,
    )


def _has_tokens(step: Step) -> bool:
    return bool(step.prompt_ids and step.token_ids)


def _has_logprobs(step: Step) -> bool:
    return len(step.logprobs) == len(step.token_ids)


def _sample(place: _Place) -> Sample:
    step = place.step
    return Sample(
        trajectory_id=place.attempt.trajectory.id,
        step=place.index,
        prompt_ids=step.prompt_ids,
        token_ids=step.token_ids,
        logprobs=step.logprobs if _has_logprobs(step) else (),
        temperature=step.temperature or 1.0,
        pictures=(step.observation.screenshot,) if step.pictured else (),
        weights=step.weights,
    )
