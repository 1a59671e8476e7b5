"""The manifest: the learner's only data input, sealed once a round's attempts are judged.

It holds what every algorithm needs: the steps to learn from, as exact tokens with the log-probs they were sampled at,
and of each attempt its reward and the group that it is compared with.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MANIFEST_VERSION = 2


class ManifestError(ValueError):
    """The file is no manifest, or one that contradicts itself; one line with the file and the field."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sample(_Record):
    """One step to learn from: the exact tokens that were read and sampled."""

    trajectory_id: str
    step: int
    """Index of the step in its trajectory, from 0."""
    prompt_ids: tuple[int, ...] = Field(min_length=1)
    """Prompt as the server saw it, image tokens expanded."""
    token_ids: tuple[int, ...] = Field(min_length=1)
    """Response as sampled, end of turn included."""
    logprobs: tuple[float, ...]
    """Behaviour log-probs (nats) of `token_ids`; empty where they are not known."""
    temperature: float = Field(default=1.0, gt=0)
    """The sampling temperature: the policy is the distribution sampled from, so its logits are divided by it."""
    pictures: tuple[str, ...]
    """Blob names of the pictures in the prompt, in order."""
    weights: int | None
    """Policy version that sampled the step."""

    @model_validator(mode="after")
    def _one_logprob_a_token(self) -> Self:
        if len(self.logprobs) not in (0, len(self.token_ids)):
            raise ValueError(
                f"logprobs: expected {len(self.token_ids)}, one a token, or none; got {len(self.logprobs)}"
            )
        return self


class Attempt(_Record):
    """A decided attempt at a task, what it was worth, and what it is compared with."""

    trajectory_id: str
    group: str
    """Attempts of one group are attempts at one task."""
    reward: Literal[0, 1]
    """The judge's: 1 for a success, 0 for a failure. An undecided attempt is not listed, so it is neither."""
    corrected: float | None = None
    """The reward corrected for how the judge was measured to err (evaluator/noise.py) and for side effects
    (launch/side_effects.py); None: it isn't corrected."""
    age: int = Field(default=0, ge=0)
    """Rounds since it was made; above 0: it is learned from again."""
    staleness: int = Field(default=0, ge=0)
    """Versions by which the weights that learn from it are ahead of those that made it, of several the oldest."""

    @property
    def worth(self) -> float:
        """What is learned from: the corrected reward where there is one."""
        return self.reward if self.corrected is None else self.corrected


class Manifest(_Record):
    """What a round's update learns from. Pictures lie in the blob store beside the manifest's folder, at ``../blobs``.

    Groups are whole: an attempt is listed even if none of its steps is among the samples.
    """

    version: Literal[2] = MANIFEST_VERSION
    round: int
    samples: tuple[Sample, ...]
    attempts: tuple[Attempt, ...]

    @property
    def staleness(self) -> int:
        """That of the round's own attempts: 1 where they were made while the round before trained, else 0."""
        return max((attempt.staleness for attempt in self.attempts if attempt.age == 0), default=0)

    @model_validator(mode="after")
    def _every_sample_is_of_one_attempt(self) -> Self:
        listed = [attempt.trajectory_id for attempt in self.attempts]
        if len(set(listed)) < len(listed):
            raise ValueError("attempts: expected each trajectory once")
        if strays := {sample.trajectory_id for sample in self.samples} - set(listed):
            raise ValueError(f"samples: of trajectories that are no attempt: {', '.join(sorted(strays))}")
        return self


def write_manifest(path: Path, manifest: Manifest) -> str:
    """Write a manifest atomically; the sha256 of the file."""
    data = manifest.model_dump_json().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return hashlib.sha256(data).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """A manifest. Raises ManifestError if the file isn't one."""
    try:
        data = json.loads(path.read_bytes())
        is_old = isinstance(data, dict) and data.get("version") == 1
        return Manifest.model_validate(_of_version_1(data) if is_old else data)
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ManifestError(": ".join(filter(None, (f"manifest {path}", where, what)))) from error
    except (ValueError, KeyError) as error:
        raise ManifestError(f"manifest {path}: {error}") from error


def _of_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """A manifest of version 1 as one of today; it told neither rewards nor groups, so its attempts are all successes.

    Raises:
        ValueError: it holds failures, whose groups can't be told any more.
    """
    samples = [dict(sample) for sample in data["samples"]]
    if any(sample.pop("advantage", 1.0) != 1 for sample in samples):
        raise ValueError("of version 1 with failures in it, whose groups it doesn't tell: expected version 2")
    names = sorted({sample["trajectory_id"] for sample in samples})
    attempts = [{"trajectory_id": name, "group": name, "reward": 1} for name in names]
    return data | {"version": MANIFEST_VERSION, "samples": samples, "attempts": attempts}
