"""Finished episodes on their way from a worker to the books.

A worker delivers ``inbox/<id>.json``, whole or not at all; the driver takes it to ``trajectories/`` and commits it.
What a dead driver left in the inbox is taken in at the next start; what can't be read is set aside, never deleted.
How an episode gets to the inbox where no file system is shared: launch/storage.py.
"""

import hashlib
import logging
import os
from pathlib import Path

from pydantic import ValidationError

from evaluator.changes import changes_of
from evaluator.truth import ground_truth
from launch.ledger import Ledger
from policy.crash import crash_point
from policy.files import sync
from policy.trajectory import Outcome, Trajectory

logger = logging.getLogger(__name__)

INBOX = "inbox"
TRAJECTORIES = "trajectories"
SET_ASIDE = "set-aside"

RETRIED = frozenset({Outcome.BROWSER_CRASH, Outcome.RESET_FAILURE, Outcome.MODEL_OUTAGE})
"""Outcomes that are ours: the episode is tried again. A site that refuses or fails is not asked again, nor a
model that refuses a prompt."""


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all, also when the machine stops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # a full disk has no room for it
        raise
    sync(path.parent)


def deliver(run_dir: Path, trajectory: Trajectory) -> str:
    """Put a finished episode into the inbox (called by workers); returns the file's name."""
    name = f"{trajectory.id}.json"
    write_atomic(run_dir / INBOX / name, trajectory.model_dump_json().encode())
    return name


def read(run_dir: Path, name: str) -> Trajectory:
    """The delivered episode of that name. Raises OSError or ValueError if it can't be read."""
    return Trajectory.model_validate_json((run_dir / INBOX / name).read_bytes())


def delivered(run_dir: Path, trajectory_id: str) -> Trajectory | None:
    """What a worker that has died since had delivered of an episode; None if it hadn't finished it."""
    name = f"{trajectory_id}.json"
    return read(run_dir, name) if (run_dir / INBOX / name).exists() else None


def discard(run_dir: Path, name: str) -> None:
    """Drop a delivered episode that will be tried again."""
    (run_dir / INBOX / name).unlink(missing_ok=True)


def take(run_dir: Path, ledger: Ledger, trajectory: Trajectory) -> None:
    """Move a delivered episode among the trajectories and commit it; a later attempt of a committed one is dropped."""
    source = run_dir / INBOX / f"{trajectory.id}.json"
    if ledger.is_committed(trajectory.id):
        source.unlink(missing_ok=True)
        return
    path = f"{TRAJECTORIES}/{trajectory.id}.json"
    target = run_dir / path
    target.parent.mkdir(exist_ok=True)
    if source.exists():
        source.replace(target)
        sync(target.parent)
    crash_point("rollout:moved")
    ledger.commit_trajectory(
        trajectory,
        path,
        hashlib.sha256(target.read_bytes()).hexdigest(),
        truth=ground_truth(trajectory),
        changes=changes_of(trajectory),
    )
    crash_point("rollout:committed")


def take_orphans(run_dir: Path, ledger: Ledger) -> int:
    """Take in what an earlier driver left behind; returns how many episodes that saved."""
    num_taken = 0
    _restore_uncommitted(run_dir, ledger)
    for path in sorted((run_dir / INBOX).glob("*")):
        if path.name.endswith(".partial"):
            path.unlink()
            continue
        try:
            trajectory = read(run_dir, path.name)
        except ValidationError:
            _set_aside(run_dir, ledger, path, "can't be read")
            continue
        if path.name != f"{trajectory.id}.json" or not ledger.is_planned(trajectory.id):
            _set_aside(run_dir, ledger, path, "belongs to no planned episode")
        elif trajectory.outcome in RETRIED:
            path.unlink()
        else:
            take(run_dir, ledger, trajectory)
            num_taken += 1
    return num_taken


def _restore_uncommitted(run_dir: Path, ledger: Ledger) -> None:
    """Put files that were moved but not committed back into the inbox."""
    committed = {Path(row.path).name for row in ledger.trajectories()}
    for path in (run_dir / TRAJECTORIES).glob("*.json"):
        if path.name not in committed:
            path.replace(run_dir / INBOX / path.name)


def _set_aside(run_dir: Path, ledger: Ledger, path: Path, reason: str) -> None:
    target = run_dir / SET_ASIDE / path.name
    target.parent.mkdir(exist_ok=True)
    path.replace(target)
    logger.warning("%s %s: set aside as %s", path, reason, target)
    ledger.add_event("set-aside", f"{path.name} {reason}; kept as {target}")
