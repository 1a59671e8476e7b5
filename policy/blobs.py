"""Pictures and other bytes kept by content: the same screenshot is stored once, however often it is seen."""

import hashlib
import os
import tempfile
from pathlib import Path


class BlobStore:
    """A directory of immutable files named by the sha256 of their bytes; many processes may write to it at once."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which is made with the first blob."""
        self.root = root

    def path(self, name: str) -> Path:
        """Where the blob of that name is, or would be."""
        return self.root / name[:2] / name

    def put(self, data: bytes) -> str:
        """The name of the stored bytes (sha256, hex). A reader never sees half a blob."""
        name = hashlib.sha256(data).hexdigest()
        path = self.path(name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, data)
        return name

    def get(self, name: str) -> bytes:
        """The bytes of a blob. Raises FileNotFoundError if there is none of that name."""
        return self.path(name).read_bytes()


def _write_whole(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
