"""Which steps are learned from: filtered behaviour cloning's filter, balanced over tasks (PAE, section 4.4).

In: trajectories and verdicts. Out: samples, and for each filter how many trajectories or steps it kept and dropped.
The paper keeps every successful trajectory; kept all, easy tasks drown the rest: here a task gives at most
`max_per_task` of its successes, shortest first, a task that always succeeds gives one, and no shape of trajectory (its
website and sequence of actions) may give more than `max_per_shape`. Where `same_answer` is set, what a judge let pass
must also agree with the task's other successes. Where `max_failures_per_task` is set, failed attempts at tasks that
also succeed are learned from too, with a negative advantage: what not to do where it is known that it can be done.
"""

import hashlib
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from evaluator.verdict import Judgement, Verdict
from policy.trajectory import Step, Trajectory

MANIFEST_VERSION = 1


class SelectionSettings(BaseModel):
    """Filter and balance."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_per_task: int = Field(default=2, ge=1)
    """Successful trajectories kept per task, shortest first."""
    max_per_saturated_task: int = Field(default=1, ge=0)
    """The same for a task all of whose rollouts succeeded: there is little left to learn."""
    same_answer: bool = False
    """Whether a task's successes must agree: of different answers to one task at most one is right, so only those with
    the most frequent one are kept, and none where two are equally frequent. For tasks whose right answer is a fact."""
    max_failures_per_task: int = Field(default=0, ge=0)
    """Failed trajectories kept of a task that gives successes too, shortest first; 0: none, as in the paper."""
    max_per_shape: int = Field(default=40, ge=1)
    """Trajectories kept with the same website and sequence of action kinds."""


class Sample(BaseModel):
    """One step to learn from: the exact tokens that were read and sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trajectory_id: str
    step: int
    """Index of the step in its trajectory, from 0."""
    prompt_ids: tuple[int, ...]
    """Prompt as the server saw it, image tokens expanded."""
    token_ids: tuple[int, ...]
    """Response as sampled, end of turn included."""
    logprobs: tuple[float, ...]
    """Behaviour log-probs (nats) of `token_ids`; empty where they are not known."""
    temperature: float = Field(default=1.0, gt=0)
    """The sampling temperature: the policy is the distribution sampled from, so its logits are divided by it."""
    pictures: tuple[str, ...]
    """Blob names of the pictures in the prompt, in order."""
    weights: int | None
    """Policy version that sampled the step."""
    advantage: float = 1.0
    """What the step's log-prob weighs in the objective: 1 for a step of a success. For one of a failure it is minus the
    share of successes among its task's decided attempts: the more often a task is done, the more a failure is to blame.
    """


class Manifest(BaseModel):
    """The learner's only data input. Pictures lie in the blob store beside the manifest's folder, at ``../blobs``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = MANIFEST_VERSION
    round: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is learned from this round."""

    samples: tuple[Sample, ...]
    counts: dict[str, int]
    """What each filter kept and dropped."""


def select(
    trajectories: Sequence[Trajectory], verdicts: Iterable[Verdict], settings: SelectionSettings, seed: int
) -> Selection:
    """The samples of one round. Undecided verdicts are neither kept nor counted as failures."""
    judged = {verdict.trajectory_id: verdict.judgement for verdict in verdicts}
    attempts = [t for t in sorted(trajectories, key=lambda t: t.id) if t.outcome.is_agents and t.id in judged]
    decided: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in attempts:
        if judged[trajectory.id] is not Judgement.UNDECIDED:
            decided[trajectory.task.id].append(trajectory)
    kept, counts = _successes(decided, judged, settings, seed)
    kept_tasks = sorted({t.task.id for t in kept})
    failed = [
        failure for task in kept_tasks for failure in _failed(decided[task], judged, settings.max_failures_per_task)
    ]
    weighed = [*((t, 1.0) for t in kept), *failed]
    samples = tuple(sorted(_samples(weighed), key=lambda sample: (sample.trajectory_id, sample.step)))
    counts |= {
        "kept_tasks": len(kept_tasks),
        "kept_failures": len(failed),
        "kept_failed_steps": sum(sample.advantage < 0 for sample in samples),
        "kept_steps": len(samples),
    }
    return Selection(samples, counts)


def _successes(
    decided: Mapping[str, Sequence[Trajectory]],
    judged: Mapping[str, Judgement],
    settings: SelectionSettings,
    seed: int,
) -> tuple[list[Trajectory], dict[str, int]]:
    """The successes to learn from, and how many trajectories each filter kept and dropped."""
    successes = [[t for t in ts if judged[t.id] is Judgement.SUCCESS] for ts in decided.values()]
    agreed = [_agreeing(ts) if settings.same_answer else ts for ts in successes]
    sizes = map(len, decided.values())
    balanced = [t for ts, size in zip(agreed, sizes, strict=True) for t in _balanced(ts, size, settings)]
    random.Random(seed).shuffle(balanced)
    kept = _limit_shapes(balanced, settings.max_per_shape)
    num_successes, num_agreed = (sum(map(len, groups)) for groups in (successes, agreed))
    return kept, {
        "successes": num_successes,
        "dropped_by_disagreement": num_successes - num_agreed,
        "dropped_by_task_balance": num_agreed - len(balanced),
        "dropped_by_shape_balance": len(balanced) - len(kept),
        "kept_trajectories": len(kept),
    }


def _agreeing(successes: Sequence[Trajectory]) -> list[Trajectory]:
    """A task's successes with the answer that most of them gave (case and outer punctuation ignored)."""
    answers = Counter(_plain(trajectory.answer) for trajectory in successes)
    if len(answers) > 1:
        (answer, most), (_, second) = answers.most_common(2)
        return [t for t in successes if _plain(t.answer) == answer] if most > second else []
    return list(successes)


def _plain(answer: str | None) -> str:
    return (answer or "").casefold().strip(" .,;:!'\"")


def _balanced(successes: Sequence[Trajectory], num_decided: int, settings: SelectionSettings) -> list[Trajectory]:
    saturated = len(successes) == num_decided > 1
    limit = settings.max_per_saturated_task if saturated else settings.max_per_task
    return _shortest(successes, limit)


def _shortest(trajectories: Iterable[Trajectory], limit: int) -> list[Trajectory]:
    return sorted(trajectories, key=lambda t: (len(t.steps), t.id))[:limit]


def _limit_shapes(trajectories: Iterable[Trajectory], limit: int) -> list[Trajectory]:
    seen: Counter[tuple[str, ...]] = Counter()
    kept = []
    for trajectory in trajectories:
        shape = (trajectory.task.website.name, *(step.action.kind for step in trajectory.steps if step.action))
        seen[shape] += 1
        if seen[shape] <= limit:
            kept.append(trajectory)
    return kept


def _failed(
    decided: Sequence[Trajectory], judged: Mapping[str, Judgement], limit: int
) -> list[tuple[Trajectory, float]]:
    """A task's shortest failures with their advantage."""
    failures = [t for t in decided if judged[t.id] is Judgement.FAILURE]
    advantage = len(failures) / len(decided) - 1
    return [(t, advantage) for t in _shortest(failures, limit)]


def _samples(weighed: Iterable[tuple[Trajectory, float]]) -> list[Sample]:
    """Each pair of prompt and response once; one that a success holds too, and those come first, isn't to blame.

    Of successes the well-formed steps. Of failures the malformed ones as well, but none of unknown log-probs: without
    them there is no telling how far a step has been unlearned already.
    """
    distinct: dict[tuple[tuple[int, ...], tuple[int, ...]], Sample] = {}
    for trajectory, advantage in weighed:
        for index, step in enumerate(trajectory.steps):
            usable = step.action is not None if advantage > 0 else len(step.logprobs) == len(step.token_ids)
            if usable and step.token_ids:
                distinct.setdefault((step.prompt_ids, step.token_ids), _sample(trajectory.id, index, step, advantage))
    return list(distinct.values())


def _sample(trajectory_id: str, index: int, step: Step, advantage: float) -> Sample:
    return Sample(
        trajectory_id=trajectory_id,
        step=index,
        prompt_ids=step.prompt_ids,
        token_ids=step.token_ids,
        logprobs=step.logprobs,
        temperature=step.temperature or 1.0,
        pictures=(step.observation.screenshot,) if step.pictured else (),
        weights=step.weights,
        advantage=advantage,
    )


def write_manifest(path: Path, selection: Selection, round: int) -> str:
    """Write a round's manifest atomically; the sha256 of the file."""
    data = Manifest(round=round, samples=selection.samples).model_dump_json().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return hashlib.sha256(data).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """A manifest. Raises ValueError if the file isn't one."""
    try:
        return Manifest.model_validate(json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"manifest {path}: {error}") from error
