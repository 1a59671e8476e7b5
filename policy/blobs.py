"""Pictures and other bytes kept by content: the same screenshot is stored once, however often it is seen."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from policy.files import sync


class Blobs(Protocol):
    """Immutable bytes, each under its name: the sha256 (hex) of them."""

    def put(self, data: bytes) -> str:
        """The name of the kept bytes."""
        ...

    def get(self, name: str) -> bytes:
        """The bytes of a blob. Raises FileNotFoundError if there is none of that name."""
        ...


class MemoryBlobs:
    """Blobs that are gone with the object: nobody has to clean up after a process that is killed."""

    def __init__(self) -> None:
        """Begin with none."""
        self._blobs: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """The name of the kept bytes (sha256, hex)."""
        name = name_of(data)
        self._blobs[name] = data
        return name

    def get(self, name: str) -> bytes:
        """The bytes of a blob. Raises FileNotFoundError if there is none of that name."""
        if name not in self._blobs:
            raise FileNotFoundError(name)
        return self._blobs[name]


class BlobStore:
    """A directory of immutable files named by the sha256 of their bytes; many processes may write to it at once."""

    def __init__(self, root: Path) -> None:
        """Use `root`, which is made with the first blob."""
        self.root = root

    def path(self, name: str) -> Path:
        """Where the blob of that name is, or would be."""
        return self.root / name[:2] / name

    def put(self, data: bytes, *, durable: bool = False) -> str:
        """The name of the stored bytes (sha256, hex). A reader never sees half a blob.

        `durable`: what is stored now also outlasts a stop of the machine.
        """
        name = name_of(data)
        path = self.path(name)
        if not path.exists() or path.stat().st_size != len(data):  # a stop of the machine may have left it empty
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, data, durable)
        return name

    def keep(self, names: Iterable[str]) -> None:
        """Have blobs that are stored outlast a stop of the machine too. Raises FileNotFoundError if one isn't."""
        paths = [self.path(name) for name in names]
        for path in [*paths, *{path.parent for path in paths}, self.root] if paths else ():
            sync(path)

    def get(self, name: str) -> bytes:
        """The bytes of a blob. Raises FileNotFoundError if there is none of that name."""
        return self.path(name).read_bytes()


def name_of(data: bytes) -> str:
    """The name of a blob with these bytes."""
    return hashlib.sha256(data).hexdigest()


def _write_whole(path: Path, data: bytes, durable: bool) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)  # the name of the file
        sync(path.parent.parent)  # the name of its directory
