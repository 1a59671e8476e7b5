"""Benchmark suites with our policy and workers: tasks from a file, or BrowserGym's.

In: weights, a config, tasks. Out: a folder with the trajectories and ``suite.json``; called again after it was killed,
it goes on, but not with other weights or settings (``made-with.json``). Success is what the suite's own checks or
program say, and the judge's verdict where that is what there is. What ended for reasons that aren't the agent's is
counted apart, and is no failure of the agent.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from evaluator.agreement import Share
from evaluator.checks import Result, check, for_judge
from evaluator.verdict import Judgement, Verdict
from launch import made_with
from launch.books import Episode, Purpose
from launch.config import Config, ConfigError
from launch.errors import WorkerLost
from launch.inbox import INBOX, RETRIED, discard, read, write_atomic
from launch.judging import VERDICTS, VerdictFile, Work, as_json, judge_all
from launch.made_with import SERVING, Making
from launch.storage import SharedDirectory
from launch.team import open_judge
from launch.turns import Turns, unvisited
from launch.workers import Order, Workers, failed_trajectory
from policy.blobs import BlobStore
from policy.fleet import Fleet
from policy.trajectory import Outcome, Trajectory
from proposer.generate import Sampling
from proposer.task import GYM, Task, Website
from proposer.task_files import READERS

RESULT = "suite.json"
TRAJECTORIES = "trajectories"
DECIDING = (
    "endpoints.judge",
    "evaluation.temperature",
    "judge",
    "model",
    "panel",
    "rollout.agent",
    "rollout.browser",
    *SERVING,
)
"""How the keys of the settings begin that results depend on."""
_EXTRA = "pip install -e '.[browsergym]'"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """How the policy did on a suite."""

    folder: Path
    kinds: dict[str, Share]
    """Successes by kind of task: of BrowserGym the task without its seed, of files the website."""
    overall: Share
    outcomes: dict[str, int]
    num_open: int
    """Attempts of which nobody has said how they went: not the agent's doing, or the judge was undecided or out."""


class Chosen(NamedTuple):
    """Which tasks of a suite."""

    file: Path | None = None
    """Of a suite that comes as a file."""
    places: Sequence[str] = ()
    """``NAME=address`` of what the file leaves open."""
    num_seeds: int = 1
    """Of each task of a BrowserGym suite so many."""
    only: str = ""
    """Only tasks of a BrowserGym suite whose name holds this."""


@contextlib.contextmanager
def chosen_tasks(suite: str, chosen: Chosen) -> Iterator[list[Task]]:
    """The tasks of a suite; where it brings pages of its own they are served meanwhile.

    Raises ConfigError, and TaskFileError for a file that can't be read.
    """
    if suite not in READERS:
        with _gym_tasks(suite, chosen.num_seeds, chosen.only) as tasks:
            yield tasks
        return
    if chosen.file is None:
        raise ConfigError(f"suite {suite}: expected its task file, --tasks FILE")
    places = dict(place.split("=", 1) for place in chosen.places if "=" in place)
    if len(places) < len(chosen.places):
        raise ConfigError("--place: expected NAME=address, each name once")
    for name, address in places.items():
        if not re.match(r"https?://\w", address):
            raise ConfigError(f"--place {name}={address}: expected an address that begins with http:// or https://")
    yield READERS[suite](chosen.file, places)


@contextlib.contextmanager
def _gym_tasks(suite: str, num_seeds: int, only: str) -> Iterator[list[Task]]:
    """The tasks of a BrowserGym suite whose names hold `only`, each with so many seeds; its pages are served meanwhile.

    Raises ConfigError if the suite isn't installed or its pages can't be had.
    """
    try:
        importlib.import_module(f"browsergym.{suite}")
        registry = importlib.import_module("gymnasium").registry
    except ImportError as error:
        raise ConfigError(f"suite {suite}: {error}; install the extra: {_EXTRA}") from None
    names = sorted(name for name in registry if name.startswith(f"{GYM}{suite}.") and only in name)
    if not names:
        raise ConfigError(f"suite {suite}: no task of it has {only!r} in its name")
    with _pages(suite) as url:
        website = Website(name=suite, url=url)
        yield [
            Task(website=website, instruction=name, source="suite", suite_id=name, seed=seed)
            for name in names
            for seed in range(num_seeds)
        ]


@contextlib.contextmanager
def _pages(suite: str) -> Iterator[str]:
    """Address of a suite's pages, with a slash at its end."""
    variable = f"{suite.upper()}_URL"
    parts = urlsplit(os.environ.get(variable, ""))
    if parts.scheme in ("http", "https"):
        yield parts.geturl()
        return
    folder = Path(parts.path) if parts.scheme == "file" else _packaged(suite)
    if folder is None or not folder.is_dir():
        raise ConfigError(
            f"suite {suite}: its pages are needed; set {variable} to where they are (http://.../{suite}/ or file://...)"
            + (f", or {_EXTRA}" if suite == "miniwob" else "")
        )
    with _serving(folder.parent) as url:  # pages ask for what lies beside their folder
        yield f"{url}/{folder.name}/"


def _packaged(suite: str) -> Path | None:
    """MiniWoB++'s pages as the package ``miniwob`` brings them; None where there is none, and for other suites."""
    found = importlib.util.find_spec("miniwob") if suite == "miniwob" else None
    return Path(found.origin).parent / "html" / "miniwob" if found and found.origin else None


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """Address of a folder's files, on loopback."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def keep_apart(folder: Path, config: Config, weights: Path) -> None:
    """Note what a folder's results are made with. Raises ConfigError if those that lie there were made otherwise."""
    way_out = "make others beside them with `--set run.name=...`, or remove the folder"
    done = [path.stem for path in (folder / TRAJECTORIES).glob("*.json")]
    made_with.keep_apart(folder, Making(config, DECIDING, weights, way_out), done)


async def evaluate(
    config: Config, weights: Path, tasks: Sequence[Task], folder: Path, watch: Callable[[int, int], None]
) -> Evaluated:
    """Attempt each task once and score the attempts.

    Args:
        config: Whose model servers, workers and judge are used.
        weights: Directory of the policy.
        tasks: What to attempt.
        folder: Where everything goes; what lies there of these tasks isn't done again.
        watch: Told how many attempts of how many are done.

    Raises:
        ModelError: a model server can't be started.
    """
    for name in (TRAJECTORIES, INBOX, "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    missing = [task for task in tasks if not _path(folder, task).exists()]
    if missing:
        await _attempt_all(config, weights, missing, folder, lambda left: watch(len(tasks) - left, len(tasks)))
    attempts = [Trajectory.model_validate_json(_path(folder, task).read_bytes()) for task in tasks]
    verdicts = await _judged(config, folder, [attempt for attempt in attempts if _needs_judge(attempt)])
    successes = {attempt.id: _is_success(attempt, verdicts.get(attempt.id)) for attempt in attempts}
    kinds = {kind: _share(successes, attempts, kind) for kind in sorted({_kind(attempt.task) for attempt in attempts})}
    outcomes = Counter(attempt.outcome.value for attempt in attempts)
    num_open = sum(success is None for success in successes.values())
    found = Evaluated(folder, kinds, _share(successes, attempts), dict(outcomes), num_open)
    result = {
        "weights": str(weights),
        "success": found.overall.value,
        "n": found.overall.whole,
        "open": num_open,
        "outcomes": found.outcomes,
        "kinds": {kind: {"success": share.value, "n": share.whole} for kind, share in kinds.items()},
        "attempts": dict(sorted(successes.items())),
    }
    write_atomic(folder / RESULT, as_json(result))
    return found


async def _attempt_all(
    config: Config, weights: Path, tasks: Sequence[Task], folder: Path, watch: Callable[[int], None]
) -> None:
    storage, rollout = SharedDirectory(folder), config.rollout
    turns = Turns([Episode(task.id, 0, Purpose.EVAL, task, 0, 0) for task in tasks], rollout.browser.politeness)
    num_left, queue = len(tasks), iter(range(len(tasks)))
    fleet = Fleet(config.serving, weights, folder / "logs" / "policy.log")
    async with fleet, Workers(storage, rollout, config.cluster) as workers:
        await fleet.publish(0, weights)

        async def work() -> None:
            nonlocal num_left
            for _ in queue:  # shared: there are as many turns as tasks
                async with turns.next() as episode:
                    if why_left := turns.why_left(episode):
                        attempt = unvisited(episode, why_left)
                    else:
                        attempt = await _attempt(config, episode.task, folder, fleet, workers)
                    turns.note(episode, attempt.outcome)
                write_atomic(_path(folder, episode.task), attempt.model_dump_json().encode())
                discard(folder, f"{attempt.id}.json")
                num_left -= 1
                watch(num_left)

        watch(num_left)
        await asyncio.gather(*(work() for _ in range(workers.num_slots)))


async def _attempt(config: Config, task: Task, folder: Path, fleet: Fleet, workers: Workers) -> Trajectory:
    """One attempt, tried again while the failure is ours."""
    sampling = Sampling(config.evaluation.temperature, config.rollout.agent.max_tokens)
    for num_left in reversed(range(config.rollout.max_attempts)):
        with fleet.least_busy() as server:
            num_starts = server.num_starts
            order = Order(task.id, task, server.endpoint, 0, sampling)
            try:
                attempt = read(folder, await workers.run(order))
            except WorkerLost as error:
                attempt = failed_trajectory(order, Outcome.BROWSER_CRASH, str(error))
        if attempt.outcome not in RETRIED or not num_left:
            return attempt
        if attempt.outcome is Outcome.MODEL_OUTAGE:
            await fleet.revive(server, num_starts)
    raise AssertionError("max_attempts is at least 1")


async def _judged(config: Config, folder: Path, attempts: Sequence[Trajectory]) -> dict[str, Verdict]:
    """The judge's verdicts by trajectory; no judge is opened where none is missing."""
    verdicts = VerdictFile(folder / VERDICTS)
    missing = [attempt for attempt in attempts if attempt.id not in verdicts.by_id]
    if missing:
        work = Work(config.rollout.num_judgements, config.rollout.max_attempts)
        async with open_judge(config, folder, BlobStore(folder / "blobs")) as judge:
            await judge_all(judge, missing, for_judge, verdicts.add, work)
    return verdicts.by_id


def _needs_judge(attempt: Trajectory) -> bool:
    if not attempt.outcome.is_agents or attempt.score is not None:
        return False
    return attempt.task.checks is None or check(attempt) is Result.OPEN


def _is_success(attempt: Trajectory, verdict: Verdict | None) -> bool | None:
    """Whether the attempt did its task; None: nobody knows."""
    if not attempt.outcome.is_agents:
        return None
    if attempt.score is not None:
        return attempt.score > 0
    if check(attempt) in (Result.PASSED, Result.FAILED):
        return check(attempt) is Result.PASSED
    known = {Judgement.SUCCESS: True, Judgement.FAILURE: False}
    return known.get(verdict.judgement) if verdict else None


def _share(successes: dict[str, bool | None], attempts: Sequence[Trajectory], kind: str | None = None) -> Share:
    known = [
        success
        for attempt in attempts
        if (success := successes[attempt.id]) is not None and kind in (None, _kind(attempt.task))
    ]
    return Share(sum(known), len(known))


def _kind(task: Task) -> str:
    return (task.suite_id or "").removeprefix(GYM) if task.is_gym else task.website.name


def _path(folder: Path, task: Task) -> Path:
    return folder / TRAJECTORIES / f"{task.id}.json"
