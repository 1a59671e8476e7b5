"""What a run's directory holds for nothing, and removing it: pictures nobody is shown, unfinished files, old weights.

A picture is needed if its name stands in a trajectory, committed or not, in a file set aside, or in a manifest;
discarded attempts and looks around leave others. Only for a run that nobody else writes to: its `Ledger` is held.
"""

import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch import gauge, inbox
from launch.books import LedgerError
from launch.config import RetentionSettings
from launch.ledger import Ledger
from launch.retention import drop_weights, is_inside, unneeded

MIN_AGE_S = 600.0
"""Younger files stay: a worker may outlive a killed driver by moments, and still deliver an episode that shows them."""
REFERRING = (inbox.TRAJECTORIES, inbox.INBOX, inbox.SET_ASIDE, "manifests", gauge.CANARIES)
"""Folders whose files name pictures."""
UNFINISHED = (".*.partial", "inbox/.*.partial", "blobs/??/tmp*", "manifests/*.tmp", "weights/.*.[0-9]*")
"""Names of files and directories while they are written; the last is the learner's, with the number of its process."""
MB = 1e6

_BLOB = re.compile(r"[0-9a-f]{64}")
_NAMED = re.compile(rb'"([0-9a-f]{64})')


@dataclass(frozen=True, slots=True)
class Waste:
    """Files or directories of one kind that nothing needs."""

    kind: str
    paths: tuple[Path, ...]
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.kind}: {len(self.paths)} ({self.num_bytes / MB:.1f} MB)"


def find_waste(ledger: Ledger, settings: RetentionSettings) -> list[Waste]:
    """All that can go, by kind; a kind of which there is nothing is told too.

    Raises:
        LedgerError: trajectories are missing, so that it can't be told which pictures they show.
    """
    run_dir, before = ledger.run_dir, time.time() - MIN_AGE_S
    return [
        _waste("pictures that nothing shows", _removable(run_dir, _unnamed_blobs(ledger), before)),
        _waste("unfinished files", _removable(run_dir, _unfinished(run_dir), before)),
        _waste("versions of the weights", unneeded(ledger, settings)),
    ]


def remove(ledger: Ledger, settings: RetentionSettings, found: Sequence[Waste]) -> None:
    """Remove what `find_waste` found, and note it."""
    drop_weights(ledger, settings)
    for path in (path for waste in found for path in waste.paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    ledger.add_event("clean", f"removed {'; '.join(map(str, found))}")


def _unnamed_blobs(ledger: Ledger) -> list[Path]:
    run_dir = ledger.run_dir
    if missing := sum(not (run_dir / row.path).is_file() for row in ledger.trajectories()):
        raise LedgerError(
            f"{run_dir}: {missing} committed trajectories are missing, so which pictures they show is unknown"
        )
    named = {name for folder in REFERRING for path in (run_dir / folder).rglob("*") for name in _names_in(path)}
    blobs = (path for path in (run_dir / "blobs").glob("??/*") if _BLOB.fullmatch(path.name))
    return [path for path in blobs if path.name.encode() not in named]


def _names_in(path: Path) -> list[bytes]:
    """Blob names in a file, which may be torn."""
    return _NAMED.findall(path.read_bytes()) if path.is_file() else []


def _unfinished(run_dir: Path) -> list[Path]:
    return [path for pattern in UNFINISHED for path in run_dir.glob(pattern)]


def _removable(run_dir: Path, paths: Iterable[Path], before: float) -> list[Path]:
    return [path for path in paths if path.stat().st_mtime < before and is_inside(run_dir, path)]


def _waste(kind: str, paths: Iterable[Path]) -> Waste:
    paths = tuple(paths)
    return Waste(kind, paths, sum(map(_num_bytes, paths)))


def _num_bytes(path: Path) -> int:
    files = (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)
