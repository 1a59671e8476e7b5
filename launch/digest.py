"""What a run decided, as hashes: two runs of one config with the same model answers have the same digest.

Left out is what differs between runs that decide alike: times, costs, attempts, events, trajectory files (with times),
and names of pictures, since Chromium now and then draws a few glyphs a shade lighter or darker (docs/browser.md).
Weights are rounded (`rl.model.rounded_hash`), for that moves some of them a little.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from evaluator.verdict import Verdict
from launch.books import LedgerReader, Purpose
from launch.gauge import CANARIES, JudgedCanaries
from launch.thoughts import THOUGHTS, JudgedWithThoughts
from rl.manifest import read_manifest


def digest(books: LedgerReader) -> dict[str, str]:
    """Hashes (sha256, hex) of what a run decided: tasks, outcomes, truths, verdicts, gauges, and what it learned."""
    from rl.model import rounded_hash  # torch

    rows = books.trajectories()
    verdicts = (books.verdict(row.id) for row in rows)
    parts: dict[str, Iterable[object]] = {
        "tasks": [
            (row.round, purpose, task.model_dump(mode="json"))
            for row in books.rounds()
            for purpose in Purpose
            for task in books.tasks(row.round, purpose)
        ],
        "outcomes": [(row.id, row.outcome, row.num_steps, row.truth) for row in rows],
        "verdicts": [_verdict(verdict) for verdict in verdicts if verdict],
        "canaries": [(path.name, _canary_verdicts(path)) for path in sorted((books.run_dir / CANARIES).glob("*.json"))],
        "thoughts": [
            (path.name, [_verdict(verdict) for verdict in _with_thoughts(path)])
            for path in sorted((books.run_dir / THOUGHTS).glob("*.json"))
        ],
        "manifests": [(row.round, _manifest(path)) for row in books.rounds() if (path := books.manifest(row.round))],
        "weights": [(row.version, row.parent, rounded_hash(books.run_dir / row.path)) for row in books.weights()],
        "gates": [astuple(row) for row in books.gates()],
    }
    return {name: hashlib.sha256(json.dumps(list(items)).encode()).hexdigest() for name, items in parts.items()}


def _canary_verdicts(path: Path) -> list[object]:
    canaries = JudgedCanaries.model_validate_json(path.read_bytes()).canaries
    return [
        (
            canary.family,
            canary.trajectory.id,
            canary.verdict and _verdict(canary.verdict),
        )
        for canary in canaries
    ]


def _with_thoughts(path: Path) -> Iterable[Verdict]:
    return JudgedWithThoughts.model_validate_json(path.read_bytes()).verdicts


def _verdict(verdict: Verdict) -> object:
    return verdict.model_dump(mode="json", exclude={"cost"})


def _manifest(path: Path) -> object:
    return read_manifest(path).model_dump(mode="json", exclude={"samples": {"__all__": {"pictures"}}})
