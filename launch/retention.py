"""Which versions of the weights stay on disk; the others go, and the books keep their rows.

A directory goes in two steps, a rename that takes the version's name away and then the deletion, so that whatever has a
version's name is whole. Nothing outside the run's directory goes, so version 0, the starter's, always stays, and
so does the log of each update's steps (rl/steplog.py).
"""

import json
import logging
import shutil
from pathlib import Path

from launch.books import WEIGHTS, LedgerReader
from launch.config import RetentionSettings
from launch.ledger import Ledger
from policy.files import sync

logger = logging.getLogger(__name__)

DROPPED = ".dropped"


def unneeded(books: LedgerReader, settings: RetentionSettings) -> list[Path]:
    """Directories of the versions that need not be kept, oldest first.

    Versions that the gate refused go with those of their time; they push no promoted one out.
    """
    every, newest = settings.keep_every, settings.keep_last
    needed = {row.version for rows in (books.weights(), books.promoted_weights()) for row in rows[-newest:]}
    rows = [row for row in books.weights() if row.version and row.version not in needed]
    old = [row for row in rows if not every or row.version % every]
    directories = [books.run_dir / row.path for row in old]
    return [path for path in directories if path.is_dir() and is_inside(books.run_dir, path)]


def is_inside(run_dir: Path, path: Path) -> bool:
    """Whether a path, links followed, is in the run's directory."""
    return path.resolve().is_relative_to(run_dir.resolve())


def drop_weights(ledger: Ledger, settings: RetentionSettings) -> None:
    """Delete the versions that need not be kept, each with an event; what a killed call left is deleted by the next."""
    folder = ledger.run_dir / WEIGHTS
    for path in unneeded(ledger, settings):
        ledger.add_event("dropped", f"weights {path.name}, no longer kept: {_hashes(path)}")
        path.rename(path.with_name(f".{path.name}{DROPPED}"))
        sync(path.parent)
    for leftover in sorted(folder.glob(f".*{DROPPED}")):
        try:
            shutil.rmtree(leftover)
        except OSError as error:  # a network file system keeps what a server still has open
            logger.warning("%s can't be deleted yet: %s", leftover, error)


def _hashes(directory: Path) -> str:
    """What the weights were, as committed with them."""
    commit = directory / "COMMIT.json"
    files = json.loads(commit.read_text())["files"] if commit.is_file() else {}
    return ", ".join(f"{name} {sha256}" for name, sha256 in files.items() if name.endswith(".safetensors"))
