"""Judges as a config names them, and judging many trajectories apart from a run's rounds.

In: a config, trajectories. Out: a `Judge`; verdicts, each appended to a file as it comes, so a killed call can go on.
"""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from evaluator.credulous import CredulousJudge
from evaluator.judge import Judge, JudgeSettings, ModelJudge, asker_of
from evaluator.panel import Panel
from evaluator.rubric import Rubric, Rubrics, Shelf
from evaluator.truth import TruthJudge
from evaluator.verdict import Cost, Verdict
from launch import config as configs
from launch.config import Config, ConfigError
from policy.blobs import BlobStore
from policy.endpoint import open_endpoint
from policy.files import append_line, cut_torn_line
from policy.trajectory import Trajectory
from proposer.generate import Generate, ModelError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

VERDICTS = "verdicts.jsonl"
RUBRICS = "rubrics.jsonl"
HEX_OF_IDENTITY = 8


def seat(config: Config, generate: Generate, panel: Sequence[Judge], blobs: BlobStore, shelf: Shelf) -> Judge:
    """The judge that a config asks for: its model, with the panel where there is one; rubrics are kept on the shelf."""
    judge = _model_judge(generate, blobs, config.judge, config.judge_name, shelf)
    return Panel((judge, *panel)) if panel else judge


def _model_judge(generate: Generate, blobs: BlobStore, settings: JudgeSettings, name: str, shelf: Shelf) -> ModelJudge:
    rubrics = Rubrics(asker_of(generate, settings), name, shelf) if settings.rubric else None
    return ModelJudge(generate, blobs, settings, name, rubrics)


def without_model(settings: JudgeSettings) -> Judge | None:
    """The judge that asks no model; None: the settings are a model's."""
    match settings.kind:
        case "truth":
            return TruthJudge(settings.flip_successes, settings.flip_failures)
        case "credulous":
            return CredulousJudge()
        case "model":
            return None


def open_panel(config: Config, blobs: BlobStore, shelf: Shelf) -> tuple[Judge, ...]:
    """The further judges of a config. Raises ModelError if an API key is missing."""
    return tuple(
        _model_judge(open_endpoint(other.endpoint), blobs, other.judge, other.endpoint.model, shelf)
        for other in config.panel
    )


def judged_by(config: Config, new: str | None, overrides: Sequence[str]) -> Config:
    """The config with another judge, overrides applied afterwards.

    `new` is ``truth``, ``URL#MODEL`` (an OpenAI-compatible endpoint), the directory of a starter or of a model in
    Hugging Face layout (served here), a config whose judge is meant, or None: the config's own. Only a starter's judge
    has learned to quote, so `judge.checked` is off for the others, and `judge.rubric` for the starter's.

    Raises:
        ConfigError: it is none of these.
    """
    data = config.model_dump(mode="json")
    data["audit"]["thoughts_per_round"] = 0  # a gauge of rounds, which not every judge has
    if new is not None:
        data["panel"], data["endpoints"]["judge"] = [], None
        _change(data, new)
    return configs.resolve(data, f"--judge {new}" if new else str(config.run_dir), overrides)


def _change(data: dict, new: str) -> None:
    url, _, model = new.partition("#")
    folder = Path(new)
    data["judge"] |= {"kind": "truth" if new == "truth" else "model", "flip_successes": 0, "flip_failures": 0}
    if new == "truth":
        return
    if "://" in new:
        if not model:
            raise ConfigError(f"--judge {new}: expected URL#MODEL, such as http://127.0.0.1:8000/v1#qwen")
        data["endpoints"]["judge"] = {"base_url": url, "model": model}
        data["judge"]["checked"] = False
    elif (folder / "STARTER.json").is_file():
        data["model"] = {"starter": new}
        data["judge"]["rubric"] = False
    elif (folder / "config.json").is_file():
        data["model"] = {"base": new}
        data["judge"]["checked"] = False
    elif folder.suffix == ".toml" or new in configs.built_in_names():
        other = configs.load(new).model_dump(mode="json")
        data |= {key: other[key] for key in ("judge", "panel", "model", "serving")}
        data["endpoints"]["judge"] = other["endpoints"]["judge"]
    else:
        raise ConfigError(f"--judge {new}: expected truth, URL#MODEL, the directory of a model, or a config")


def slug(config: Config) -> str:
    """A name for a folder of this judge's verdicts: readable, and another one for another judge."""
    shaping = {"judge": True, "panel": True, "model": True, "endpoints": {"judge"}}
    identity = hashlib.sha256(config.model_dump_json(include=shaping).encode()).hexdigest()[:HEX_OF_IDENTITY]
    name = config.judge_name if config.judge.kind == "model" else config.judge.kind
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}-{identity}"


class VerdictFile:
    """Verdicts in a file, one JSON object per line, each there for good once `add` returns."""

    def __init__(self, path: Path) -> None:
        """Read what is there, without a line that a killed call left torn."""
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        read = [Verdict.model_validate_json(line) for line in lines]
        self.by_id = {verdict.trajectory_id: verdict for verdict in read}
        """The verdicts by trajectory id."""
        self._path = path

    def add(self, verdict: Verdict) -> None:
        """Append a verdict."""
        append_line(self._path, verdict.model_dump_json())
        self.by_id[verdict.trajectory_id] = verdict


class RubricFile:
    """Rubrics in a file, one JSON object per line: the `Shelf` of judging apart from a run."""

    def __init__(self, path: Path) -> None:
        """Read what is there, without a line that a killed call left torn; the file is made when one is kept."""
        cut_torn_line(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self._by_key = {_key(rubric): rubric for rubric in map(Rubric.model_validate_json, lines)}
        self._path = path

    def rubric(self, task_id: str, judge: str, prompt_hash: str) -> Rubric | None:
        """See `Shelf`."""
        return self._by_key.get((task_id, judge, prompt_hash))

    def commit_rubric(self, rubric: Rubric) -> None:
        """See `Shelf`."""
        if _key(rubric) not in self._by_key:
            append_line(self._path, rubric.model_dump_json())
            self._by_key[_key(rubric)] = rubric


def _key(rubric: Rubric) -> tuple[str, str, str]:
    return rubric.task_id, rubric.judge, rubric.prompt_hash


@dataclass(frozen=True, slots=True)
class Work:
    """How much is judged at once, and how often what is out is asked again."""

    at_once: int
    attempts: int


async def judge_all(
    judge: Judge, items: Iterable[Item], load: Callable[[Item], Trajectory], keep: Callable[[Verdict], None], work: Work
) -> list[Item]:
    """Judge trajectories, each verdict kept as it comes; returns those on which the judge was out at every attempt."""
    missing = list(items)
    for _ in range(work.attempts):
        queue, out = iter(missing), list[Item]()

        async def ask(queue: Iterable[Item] = queue, out: list[Item] = out) -> None:
            for item in queue:  # shared: each item goes to exactly one of those who ask
                trajectory = load(item)
                try:
                    keep(await judge(trajectory))
                except ModelError as error:
                    logger.warning("%s: no verdict: %s", trajectory.id, error)
                    out.append(item)

        await asyncio.gather(*(ask() for _ in range(work.at_once)))
        missing = out
    return missing


def total_cost(verdicts: Iterable[Verdict]) -> Cost | None:
    """What these verdicts cost together; None if no model was asked, or it wasn't kept."""
    costs = [verdict.cost for verdict in verdicts if verdict.cost]
    return sum(costs[1:], costs[0]) if costs else None


def as_json(value: object) -> bytes:
    """As files of results are written."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
