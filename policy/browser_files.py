"""The folder of an episode: files that it may upload, and those that it has downloaded. It goes with the episode."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.async_api import Download, Error

_MAX_NAME = 80


class Folder:
    """The files of one episode."""

    def __init__(self, path: Path | None, max_download_mb: float) -> None:
        """Use `open`."""
        self._path = path
        self._max_bytes = max_download_mb * 1e6

    @classmethod
    @contextmanager
    def open(cls, files: Sequence[str], max_download_mb: float) -> Iterator["Folder"]:
        """A folder with copies of these files. Raises OSError if one can't be read.

        Where nothing can come into it there is none on disk.
        """
        if not files and max_download_mb == 0:
            yield cls(None, 0)
            return
        with tempfile.TemporaryDirectory(prefix="pae-episode-", ignore_cleanup_errors=True) as path:
            for file in files:
                shutil.copy(file, path)
            yield cls(Path(path), max_download_mb)

    def names(self) -> list[str]:
        """Names of the files in it."""
        return sorted(file.name for file in self._path.iterdir()) if self._path else []

    def find(self, name: str) -> Path | None:
        """The file of that name; None if there is none, whatever path is tried."""
        return self._path / name if self._path and name in self.names() else None

    async def keep(self, download: Download) -> str:
        """Wait for a download and keep it; what the agent is to be told."""
        wanted = download.suggested_filename
        if self._path is None or self._max_bytes == 0:
            return f"The download of {wanted} was refused."
        try:
            size = (await download.path()).stat().st_size
            if size > self._max_bytes:
                await download.delete()
                return f"The download of {wanted} was refused: it has {size / 1e6:.1f} MB."
            name = self._free_name(wanted)
            await download.save_as(self._path / name)
        except (Error, OSError):
            return f"The download of {wanted} failed."
        return f"Downloaded {name} ({size} bytes)."

    def _free_name(self, wanted: str) -> str:
        """A plain name that no other file has: a website's names aren't to be trusted."""
        plain = re.sub(r"[^\w. -]", "_", wanted).lstrip(".")[-_MAX_NAME:] or "file"
        taken, name, number = set(self.names()), plain, 1
        while name in taken:
            number += 1
            name = f"{Path(plain).stem}-{number}{Path(plain).suffix}"
        return name
