"""The way of finished episodes from workers to the run's directory: a file system that all share, or an object store.

In an object store an episode is one object, ``<url>/inbox/<id>.json``: its record and its pictures. A store shows an
object whole or not at all, so an episode is delivered or it isn't, and nothing else is ever kept there. The driver
moves it into the run's directory, pictures first, and removes the object once all is on its disk; killed in between, it
does so again at its next start. What then lies in the directory's inbox is what a worker there would have left.

Only this file imports fsspec, which reads credentials from the environment of each machine.
"""

import asyncio
import itertools
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import fsspec
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from launch import inbox
from launch.errors import StorageError
from launch.ledger import Ledger
from policy.blobs import Blobs, BlobStore, MemoryBlobs, name_of
from policy.crash import crash_point
from policy.trajectory import Trajectory

logger = logging.getLogger(__name__)

DELIVER_DEADLINE_S = 60.0
FETCH_DEADLINE_S = 180.0
"""The driver waits longer than a worker: an episode that isn't delivered is tried again, a run that ends is not."""
MAX_PAUSE_S = 10.0
PLACE = "storage"
"""The fact in the books that names the run's place in the store."""

Answer = TypeVar("Answer")


class Storage(Protocol):
    """What workers and the driver know of each other's disks."""

    def open_blobs(self) -> Blobs:
        """Where a worker keeps the pictures of an episode."""
        ...

    async def deliver(self, trajectory: Trajectory, blobs: Blobs) -> str:
        """Hand over a finished episode (called by workers); its name in the inbox. Raises StorageError."""
        ...

    async def fetch(self, trajectory_id: str) -> bool:
        """Have a delivered episode in the run's inbox (called by the driver); whether it is. Raises StorageError."""
        ...

    async def fetch_all(self) -> None:
        """Have in the run's inbox whatever was delivered. Raises StorageError."""
        ...


class SharedDirectory:
    """The run's directory itself, where all machines see it."""

    def __init__(self, run_dir: Path) -> None:
        """Use a directory that has the same path everywhere."""
        self._run_dir = run_dir

    def open_blobs(self) -> BlobStore:
        """The run's pictures."""
        return BlobStore(self._run_dir / "blobs")

    async def deliver(self, trajectory: Trajectory, blobs: Blobs) -> str:
        """Put an episode into the inbox; its pictures are there already, and from now on for good."""
        await asyncio.to_thread(self.open_blobs().keep, trajectory.screenshots)
        return await asyncio.to_thread(inbox.deliver, self._run_dir, trajectory)

    async def fetch(self, trajectory_id: str) -> bool:
        """Whether the episode was delivered."""
        return (self._run_dir / inbox.INBOX / f"{trajectory_id}.json").exists()

    async def fetch_all(self) -> None:
        """Nothing to do."""


class Parcel(BaseModel):
    """An episode as it lies in the object store. Valid only with all its pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    trajectory: Trajectory
    pictures: tuple[bytes, ...]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if missing := self.trajectory.screenshots - set(map(name_of, self.pictures)):
            raise ValueError(f"{len(missing)} pictures are missing or aren't what they are named after")
        return self


class ObjectStore:
    """A place for one run in an object store; workers get a copy each."""

    def __init__(self, url: str, run_dir: Path) -> None:
        """Ask nothing of the store yet.

        Args:
            url: Of the place, as fsspec takes it: ``s3://bucket/prefix/name``.
            run_dir: The driver's; workers don't use it.

        Raises:
            StorageError: a protocol that is unknown, lacks its package or is of no object store.
        """
        self._url = url
        self._run_dir = run_dir
        self._files: Any
        try:
            self._files, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        except Exception as error:  # every protocol has errors of its own, here and below
            raise StorageError(f"{url}: {_line(error)}") from error
        if not self._files.async_impl:
            raise StorageError(f"{url}: expected an object store, as s3://bucket/prefix")

    def open_blobs(self) -> MemoryBlobs:
        """The episode's own."""
        return MemoryBlobs()

    async def deliver(self, trajectory: Trajectory, blobs: Blobs) -> str:
        """Put an episode with its pictures. Raises StorageError."""
        name = f"{trajectory.id}.json"
        parcel = Parcel(trajectory=trajectory, pictures=tuple(map(blobs.get, sorted(trajectory.screenshots))))
        data = parcel.model_dump_json().encode()
        await self._ask(f"deliver {name}", lambda: self._files._pipe_file(self._path(name), data), DELIVER_DEADLINE_S)
        return name

    async def fetch(self, trajectory_id: str) -> bool:
        """Move an episode to the run's directory; whether it was there and could be read. Raises StorageError."""
        return await self._move(f"{trajectory_id}.json")

    async def fetch_all(self) -> None:
        """Move everything; what is no episode is moved too, to be set aside. Raises StorageError."""
        folder = self._path("")
        listed = await self._ask("list the inbox", lambda: _or_none(self._files._find(folder)), FETCH_DEADLINE_S)
        names = [path.removeprefix(folder) for path in listed or ()]
        for name in sorted(name for name in names if "/" not in name):
            await self._move(name)

    async def check(self, deadline_s: float) -> None:
        """Return if objects can be put, listed, read and removed. Raises StorageError."""
        folder = f"{self._root}/preflight-{uuid.uuid4().hex}"
        path = f"{folder}/object"

        async def try_all() -> None:
            await self._files._pipe_file(path, b"to be removed")
            try:
                await self._files._find(folder)
                await self._files._cat_file(path)
            finally:
                await self._files._rm_file(path)

        try:
            await asyncio.wait_for(self._on_loop(try_all()), deadline_s)
        except TimeoutError as error:
            raise StorageError(f"{self._url} can't be used: no answer within {deadline_s:.0f} s") from error
        except Exception as error:
            raise StorageError(f"{self._url} can't be used: {_line(error)}") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{inbox.INBOX}/{name}"

    async def _move(self, name: str) -> bool:
        path = self._path(name)
        data = await self._ask(f"fetch {name}", lambda: _or_none(self._files._cat_file(path)), FETCH_DEADLINE_S)
        if data is None:
            return False
        is_episode = await asyncio.to_thread(_keep, self._run_dir, name, data)
        crash_point("storage:kept")
        await self._ask(f"remove {name}", lambda: _or_none(self._files._rm_file(path)), FETCH_DEADLINE_S)
        return is_episode

    async def _ask(self, what: str, request: Callable[[], Coroutine[Any, Any, Answer]], deadline_s: float) -> Answer:
        """What the store answers; asked again after growing pauses, but where it says that it won't."""
        reason = "no answer"
        try:
            async with asyncio.timeout(deadline_s):
                for number in itertools.count():
                    try:
                        return await self._on_loop(request())
                    except (FileNotFoundError, PermissionError) as error:
                        raise StorageError(f"{self._url} can't {what}: {_line(error)}") from error
                    except Exception as error:
                        reason = _line(error)
                        logger.warning("%s can't %s: %s", self._url, what, reason)
                    await asyncio.sleep(min(0.2 * 2**number, MAX_PAUSE_S))
        except TimeoutError:
            pass
        raise StorageError(f"{self._url} can't {what}: {reason} within {deadline_s:.0f} s")

    async def _on_loop(self, request: Coroutine[Any, Any, Answer]) -> Answer:
        """Await a request on fsspec's own event loop, a thread of its own."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(request, self._files.loop))


def open_storage(url: str | None, ledger: Ledger) -> Storage:
    """The run's storage, below an fsspec URL; None: its directory is shared.

    Its place there is called by the run's first name and a random number, so that no run takes in what another one of
    that name has left. Raises StorageError.
    """
    if url is None:
        return SharedDirectory(ledger.run_dir.resolve())
    place = ledger.meta(PLACE)
    if place is None:
        place = f"{ledger.run_dir.resolve().name}-{uuid.uuid4().hex[:8]}"
        ledger.set_meta(PLACE, place)
    return ObjectStore(f"{url}/{place}", ledger.run_dir.resolve())


def _keep(run_dir: Path, name: str, data: bytes) -> bool:
    """Put an object into the run's directory, for good; whether it is an episode."""
    parcel = _open(name, data)
    if parcel is None:
        inbox.write_atomic(run_dir / inbox.INBOX / f"{name}.unreadable", data)  # set aside at the next start
        return False
    blobs = BlobStore(run_dir / "blobs")
    for picture in parcel.pictures:
        blobs.put(picture, durable=True)
    inbox.deliver(run_dir, parcel.trajectory)
    return True


def _open(name: str, data: bytes) -> Parcel | None:
    """The episode in an object; None if it is none, or not the one that it is named after."""
    try:
        parcel = Parcel.model_validate_json(data)
    except ValidationError as error:
        logger.warning("%s is no episode: %s", name, error.errors()[0]["msg"])
        return None
    return parcel if name == f"{parcel.trajectory.id}.json" else None


async def _or_none(request: Awaitable[Answer]) -> Answer | None:
    """What a request answers; None if there is no such object."""
    try:
        return await request
    except FileNotFoundError:
        return None


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
