"""Which steps are learned from, by what the algorithm learns from (rl/algorithms).

In: judged attempts. Out: samples, the attempts that they are compared with, and for each filter how many attempts or
steps it kept and dropped.

Successes (filtered behaviour cloning's filter, PAE, section 4.4) are balanced over tasks: the paper keeps every
successful trajectory; kept all, easy tasks drown the rest: here a task gives at most `max_per_task` of its successes,
shortest first, a task that always succeeds gives one, and no shape of trajectory (its website and sequence of actions)
may give more than `max_per_shape`. Where the algorithm takes failures too, failed attempts at tasks that give successes
are selected as well, at most `max_failures_per_task`: what not to do where it is known that it can be done.

Groups are the attempts at one task, all of them: those whose attempts all succeeded or all failed are dropped, since
there is nothing to compare. A step that two attempts share, and that one takes for better and one for worse, is kept
twice.

An undecided attempt is neither a success nor a failure, and is in no group. Where `same_answer` is set, a success must
also agree with the task's other successes, else it is undecided.
"""

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
    """Filter and balance. The limits by number are for algorithms that imitate; groups are taken whole."""

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
    replay_rounds: int = Field(default=0, ge=0)
    """Rounds before this one whose attempts are selected from as well; 0: each round learns from its own."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An attempt, and what the judge made of it."""

    trajectory: Trajectory
    judgement: Judgement
    age: int = 0
    """Rounds since it was made."""
    corrected: float | None = None
    """Its reward corrected for the judge's error; None: it isn't corrected. What is selected doesn't depend on it."""

    @property
    def is_success(self) -> bool:
        """Whether it is worth 1; undecided ones are to be left out before."""
        return self.judgement is Judgement.SUCCESS


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
    if learns_from is LearnsFrom.GROUPS:
        selection = _groups(trusted)
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
    successes = {task: [a for a in group if a.is_success] for task, group in trusted.items()}
    balanced = [a for task, group in successes.items() for a in _balanced(group, num_decided[task], settings)]
    random.Random(seed).shuffle(balanced)
    kept = _limit_shapes(balanced, settings.max_per_shape)
    tasks = sorted({a.trajectory.task.id for a in kept})
    failed = [a for task in tasks for a in _shortest([a for a in trusted[task] if not a.is_success], max_failures)]
    samples = _distinct([*kept, *failed])
    counts = {
        "dropped_by_task_balance": sum(map(len, successes.values())) - len(balanced),
        "dropped_by_shape_balance": len(balanced) - len(kept),
        "kept_trajectories": len(kept),
        "kept_tasks": len(tasks),
        "kept_failures": len(failed),
    }
    return _selection(samples, [trusted[task] for task in tasks], counts)


def _balanced(successes: Sequence[Judged], num_decided: int, settings: SelectionSettings) -> list[Judged]:
    saturated = len(successes) == num_decided > 1
    limit = settings.max_per_saturated_task if saturated else settings.max_per_task
    return _shortest(successes, limit)


def _shortest(attempts: Iterable[Judged], limit: int) -> list[Judged]:
    return sorted(attempts, key=lambda a: (len(a.trajectory.steps), a.trajectory.id))[:limit]


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


def _distinct(attempts: Iterable[Judged]) -> list[Sample]:
    """Each pair of prompt and response once; one that a success holds too, and those come first, isn't to blame.

    Of successes the well-formed steps. Of failures the malformed ones as well, but none of unknown log-probs: without
    them there is no telling how far a step has been unlearned already.
    """
    distinct: dict[tuple[tuple[int, ...], tuple[int, ...]], Sample] = {}
    for attempt in attempts:
        for index, step in enumerate(attempt.trajectory.steps):
            usable = step.action is not None if attempt.is_success else _has_logprobs(step)
            if usable and _has_tokens(step):
                distinct.setdefault((step.prompt_ids, step.token_ids), _sample(attempt.trajectory.id, index, step))
    return list(distinct.values())


def _groups(trusted: Groups) -> Selection:
    """The groups of which some attempts succeeded and some failed: every step of them, well-formed or not."""
    shares = {task: [a.is_success for a in group] for task, group in trusted.items() if group}
    mixed = [trusted[task] for task, successes in shares.items() if any(successes) and not all(successes)]
    kept = [attempt for group in mixed for attempt in group]
    steps = [(a.trajectory.id, index, step) for a in kept for index, step in enumerate(a.trajectory.steps)]
    usable = [place for place in steps if _has_tokens(place[2]) and _has_logprobs(place[2])]
    counts = {
        "groups": len(shares),
        "dropped_groups_of_one": sum(len(successes) == 1 for successes in shares.values()),
        "dropped_groups_all_succeeded": sum(len(s) > 1 and all(s) for s in shares.values()),
        "dropped_groups_all_failed": sum(len(s) > 1 and not any(s) for s in shares.values()),
        "dropped_steps_without_logprobs": len(steps) - len(usable),
        "kept_trajectories": sum(attempt.is_success for attempt in kept),
        "kept_tasks": len(mixed),
        "kept_failures": sum(not attempt.is_success for attempt in kept),
    }
    return _selection([_sample(*place) for place in usable], mixed, counts)


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
    return Attempt(
        trajectory_id=trajectory.id,
        group=trajectory.task.id,
        reward=reward,
        corrected=attempt.corrected,
        age=attempt.age,
    )


def _has_tokens(step: Step) -> bool:
    return bool(step.prompt_ids and step.token_ids)


def _has_logprobs(step: Step) -> bool:
    return len(step.logprobs) == len(step.token_ids)


def _sample(trajectory_id: str, index: int, step: Step) -> Sample:
    return Sample(
        trajectory_id=trajectory_id,
        step=index,
        prompt_ids=step.prompt_ids,
        token_ids=step.token_ids,
        logprobs=step.logprobs if _has_logprobs(step) else (),
        temperature=step.temperature or 1.0,
        pictures=(step.observation.screenshot,) if step.pictured else (),
        weights=step.weights,
    )
