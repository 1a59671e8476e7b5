"""What outlasts a stop of the machine, what a killed process leaves, and whether files are what they were."""

import hashlib
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file of records; it is there for good on return."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut_torn_line(path: Path) -> None:
    """Drop what a killed process left behind a file's last line end, so that the next record starts its own line."""
    if path.is_file():
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)


def sha256(path: Path) -> str:
    """A file's hash, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(directory: Path) -> dict[str, str]:
    """The sha256 of each file in a directory, by name: what a COMMIT.json lists under ``files``."""
    return {file.name: sha256(file) for file in sorted(directory.iterdir()) if file.is_file()}
