"""What a folder's results were made with, noted beside them, so that none are taken for another model's or input's.

In: a folder, and what its results are made with now. Out: ``made-with.json``, or one line that tells what differs.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.config import Config, ConfigError, drop_unknown, resolve
from launch.driver import changed_keys
from launch.inbox import write_atomic
from launch.judging import as_json
from policy.files import file_hashes

MADE_WITH = "made-with.json"
SERVING = ("serving.dtype", "serving.image_px", "serving.max_images", "serving.max_model_len")
"""Settings of a model server that its replies depend on."""


@dataclass(frozen=True, slots=True)
class Making:
    """What results are made with."""

    config: Config
    deciding: tuple[str, ...]
    """How the keys of the settings begin that results depend on."""
    weights: Path | None
    """Directory of the model that is served for them; None: none is."""
    way_out: str
    """In words: what to do where results that lie there were made otherwise."""
    attempts: Mapping[str, str] = field(default_factory=dict)
    """Results about attempts that are there already: the sha256 of each attempt's file, by id."""


def of_verdicts(config: Config, attempts: Mapping[str, str]) -> Making:
    """What verdicts on attempts are made with; the judge's own settings are in the folder's name (`judging.slug`)."""
    is_served = "judge" in config.frozen_roles and config.endpoint("judge") is None
    weights = config.model.directory("judge") if is_served else None
    return Making(config, SERVING if is_served else (), weights, "move or remove the folder to judge anew", attempts)


def keep_apart(folder: Path, making: Making, done: Collection[str]) -> None:
    """Note what a folder's results are made with; `done`: ids of the attempts that have one.

    Raises:
        ConfigError: those that lie there were made otherwise, or the model isn't there.
    """
    path = folder / MADE_WITH
    note = {
        "weights": making.weights and _hashes(making.weights),
        "attempts": dict(making.attempts),
        "config": making.config.model_dump(mode="json"),
    }
    if done:
        if not path.exists():
            raise ConfigError(
                f"{folder}: its results don't say with which weights and settings they were made; {making.way_out}"
            )
        before = {"attempts": {}} | json.loads(path.read_bytes())
        if changed := [*_changed_keys(before["config"], making, path), *_changed_files(before, note, done)]:
            raise ConfigError(f"{folder}: its results were made with other {', '.join(changed)}; {making.way_out}")
        note = before | {"attempts": before["attempts"] | note["attempts"]}
    write_atomic(path, as_json(note))


def check_model(directory: Path) -> None:
    """Return if there is a model. Raises ConfigError."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no model there; `python -m launch starter build` makes the starter")


def _hashes(weights: Path) -> dict[str, str]:
    """Of the model's files, as committed with them; counted anew for one from elsewhere."""
    check_model(weights)
    commit = weights / "COMMIT.json"
    return json.loads(commit.read_text())["files"] if commit.is_file() else file_hashes(weights)


def _changed_keys(before: dict[str, Any], making: Making, path: Path) -> list[str]:
    """The keys that decide results and differ; settings that are gone, or that are new, count as their defaults."""
    drop_unknown(before)
    changed = changed_keys(resolve(before, str(path)), making.config)
    return [key for key in changed if key.startswith(making.deciding)]


def _changed_files(before: Mapping[str, Any], now: Mapping[str, Any], done: Collection[str]) -> list[str]:
    """In words: the weights, and attempts that have a result and no longer are what it is about."""
    changed = ["weights"] if before["weights"] != now["weights"] else []
    old, new = before["attempts"], now["attempts"]
    others = sorted(name for name in new.keys() & done if old.get(name) != new[name])
    return [*changed, f"attempts ({len(others)}, {others[0]} first)"] if others else changed
