"""The record of a model server that was started here: a file beside its log, for its leash, `status` and an heir."""

import contextlib
from enum import StrEnum
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from policy.leash import Owned, ProcessId


class State(StrEnum):
    """What a server that was started here is about."""

    STARTING = "starting"
    READY = "ready"
    UPDATING = "updating"
    """Its weights are being swapped; it answers nobody."""
    POISONED = "poisoned"
    """A swap failed, so it may hold anything, or one of several gave no answer: before it answers anybody it loads the
    weights anew, after a new start if need be."""


class ServerRecord(Owned):
    """A server that was started here, as its file tells it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: ProcessId
    """Of the leash that holds it."""
    port: int
    options: dict[str, str]
    """What it was started with, model and port apart."""
    state: State
    model: Path
    """Directory of the weights served."""
    version: int | None
    """Policy version of these weights; None for weights that have no versions."""

    @staticmethod
    def path(log: Path) -> Path:
        """Where the record of the server with that log is."""
        return log.with_suffix(".server.json")

    @staticmethod
    def read(log: Path) -> "ServerRecord | None":
        """The record of a server that is still there; None if there is none."""
        with contextlib.suppress(OSError, ValidationError):
            record = ServerRecord.model_validate_json(ServerRecord.path(log).read_bytes())
            return record if record.process.find() else None
        return None
