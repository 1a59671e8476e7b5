"""The log of an update: a line per optimizer step, for whoever watches while it trains.

In: optimizer steps as they are taken. Out: ``<out>.steps.jsonl`` beside the weights that the update makes; it stays
when those are dropped. No torch.
"""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from policy.files import append_line, sync


class OptimizerStep(BaseModel):
    """An optimizer step that was taken."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    step: int
    """Its number in the update, from 1."""
    total: int
    """Steps of the whole update."""
    loss: float
    """Of its batch."""
    grad_norm: float
    """Before it was clipped."""
    lr: float
    """Learning rate."""
    tokens: int
    """Response tokens of its batch."""
    at: float
    """When it was taken (unix seconds)."""


def steps_path(out: Path) -> Path:
    """Where the update that writes the directory `out` tells of its steps."""
    return out.with_name(f"{out.name}.steps.jsonl")


def read_steps(out: Path) -> list[OptimizerStep]:
    """The steps taken so far by the update that writes the directory `out`; empty before the first one."""
    path = steps_path(out)
    whole_lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [OptimizerStep.model_validate_json(line) for line in whole_lines]


def go_back(out: Path, num_steps: int) -> None:
    """Forget what came after so many steps: an update that goes on from a checkpoint takes it again."""
    path = steps_path(out)
    kept = [step for step in read_steps(out) if step.step <= num_steps]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(f"{step.model_dump_json()}\n" for step in kept), encoding="utf-8")
    sync(temporary)
    temporary.replace(path)


def log_step(out: Path, step: OptimizerStep) -> None:
    """Add a step that was just taken."""
    append_line(steps_path(out), step.model_dump_json())
