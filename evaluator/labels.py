"""Labelled trajectories: a folder that says of attempts how they went, with all that a judge is shown of them.

    <folder>/labels.jsonl                      one label per line; the file is written last
    <folder>/trajectories/<id>.json            the attempt (policy/trajectory.py)
    <folder>/blobs/<ab>/<sha256>               its screenshots, JPEG or PNG

A label: ``{"version": 1, "id": "1-5f0e-0", "site": "shop", "kind": "find_price", "success": true, "source": "truth"}``.
``success`` is null where nobody has said yet: look at the attempt and write it in.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policy.blobs import BlobStore
from policy.files import sha256
from policy.trajectory import Trajectory

LABELS = "labels.jsonl"
TRAJECTORIES = "trajectories"
BLOBS = "blobs"
LABEL_VERSION = 1


class LabelError(ValueError):
    """A folder can't be used as labelled trajectories; one line with file, place and what was expected."""


class Label(BaseModel):
    """What somebody says of an attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = LABEL_VERSION
    id: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")
    """The trajectory's."""
    site: str
    kind: str = ""
    """Kind of task within the site; empty where kinds aren't known."""
    success: bool | None
    """Whether the task was done; None: nobody has said yet."""
    source: str = ""
    """Who says so: ``truth`` (a practice site's state), or whoever looked."""


class LabelWriter:
    """Fills a new folder; without `finish` it isn't one."""

    def __init__(self, folder: Path) -> None:
        """Begin. Raises LabelError if the folder holds anything."""
        if folder.exists() and any(folder.iterdir()):
            raise LabelError(f"{folder}: expected a new or empty folder")
        self.blobs = BlobStore(folder / BLOBS)
        """Where the trajectories' screenshots belong."""
        self._folder = folder
        self._labels: list[Label] = []
        (folder / TRAJECTORIES).mkdir(parents=True, exist_ok=True)

    def add(self, label: Label, trajectory: Trajectory) -> None:
        """Write an attempt, and keep its label for `finish`; the tokens that were sampled stay behind."""
        text = without_tokens(trajectory.model_copy(update={"id": label.id})).model_dump_json()
        (self._folder / TRAJECTORIES / f"{label.id}.json").write_text(text, encoding="utf-8")
        self._labels.append(label)

    def copy_pictures(self, names: Iterable[str], source: BlobStore) -> None:
        """Copy screenshots. Raises LabelError if one is missing."""
        for name in names:
            target = self.blobs.path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source.path(name), target)
            except FileNotFoundError:
                raise LabelError(f"{source.path(name)}: no such picture") from None

    def finish(self) -> int:
        """Write the labels; how many."""
        lines = "".join(f"{label.model_dump_json()}\n" for label in self._labels)
        (self._folder / LABELS).write_text(lines, encoding="utf-8")
        return len(self._labels)


def without_tokens(trajectory: Trajectory) -> Trajectory:
    """A trajectory without the tokens that were sampled, most of its size, which no judge needs."""
    bare = {"prompt_ids": (), "token_ids": (), "logprobs": ()}
    return trajectory.model_copy(update={"steps": tuple(step.model_copy(update=bare) for step in trajectory.steps)})


def read_labels(folder: Path) -> list[Label]:
    """The labels of a folder. Raises LabelError."""
    path = folder / LABELS
    if not path.is_file():
        raise LabelError(f"{folder}: not a folder of labelled trajectories (no {LABELS})")
    labels = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            labels.append(Label.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "line"
            raise LabelError(f"{path}:{number}: {where}: {first['msg']}") from None
    ids = [label.id for label in labels]
    if len(set(ids)) < len(ids):
        raise LabelError(f"{path}: ids must differ, got {max(ids, key=ids.count)} more than once")
    return labels


def read_trajectory(folder: Path, label: Label) -> Trajectory:
    """The attempt that a label is about. Raises LabelError if it is missing or no trajectory."""
    try:
        return Trajectory.model_validate_json(_path(folder, label).read_bytes())
    except ValidationError as error:
        raise LabelError(f"{_path(folder, label)}: not a trajectory: {error.errors()[0]['msg']}") from None


def trajectory_hash(folder: Path, label: Label) -> str:
    """The sha256 of that attempt's file, which names its pictures by theirs. Raises LabelError if it is missing."""
    return sha256(_path(folder, label))


def _path(folder: Path, label: Label) -> Path:
    path = folder / TRAJECTORIES / f"{label.id}.json"
    if not path.is_file():
        raise LabelError(f"{path}: no such file, but {LABELS} has a label for it")
    return path
