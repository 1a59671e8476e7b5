"""What the bench scripts share: bringing a run of the real program to its end, and reading what it wrote."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from launch import config as configs
from launch.books import Phase
from launch.config import Config
from launch.driver import check_config, stored_config
from launch.fork import fork
from launch.ledger import Ledger, has_run

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
TRUTH = (
    "rollout.gold_tasks=true",
    "judge.kind=truth",
    "judge.checked=false",
    "selection.same_answer=false",
)
"""Overrides for practice on gold tasks with the truth as the judge."""


def own_settings(name: str, seed: int, runs_dir: Path, overrides: Sequence[str]) -> list[str]:
    """Overrides for a run under a name of its own; name, seed and place can't be overridden."""
    return [*overrides, f"run.name={name}", f"run.seed={seed}", f"run.runs_dir={runs_dir.resolve()}"]


def runs_of_seeds(
    config: str, name: str, seeds: Iterable[int], runs_dir: Path, overrides: Sequence[str]
) -> Iterator[Path]:
    """A seed's finished run, ``<name>-seed<N>``, one after the other; what is missing of a run is done first.

    What the starter can do is the same for all, so the first run measures it and the others branch off after that.

    Raises:
        ConfigError: no such config, or a directory holds a run that was begun with another one.
        typer.Exit: a run failed; it has said why.
    """
    first: Path | None = None
    for seed in seeds:
        own = f"{name}-seed{seed}"
        if first is None:
            run_dir = first = run_to_end(config, own_settings(own, seed, runs_dir, overrides))
        else:
            run_dir = fork_to_end(first, own, 1, Phase.PROPOSE, [f"run.seed={seed}"])
        yield run_dir


def run_command(config: str, settings: Sequence[str]) -> list[str]:
    """The command that runs a config, or goes on with the run if it was begun with the same one."""
    words = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "launch", "run", str(configs.find(config).resolve()), "--resume-ok", *words]


def run_to_end(config: str, settings: Sequence[str]) -> Path:
    """The directory of a finished run; what is missing of it is run first.

    Raises:
        ConfigError: no such config, or the directory holds a run that was begun with another one.
        typer.Exit: the run failed; it has said why.
    """
    resolved = configs.load(config, settings)
    if has_run(resolved.run_dir):
        check_config(resolved)
    return _finish(resolved, run_command(config, settings))


def fork_to_end(base: Path, name: str, k: int, before: Phase, overrides: Sequence[str]) -> Path:
    """The directory of a finished run that branches off `base`; what is missing of it is done first.

    Raises:
        ConfigError: the overrides can't be applied, or it was begun with others.
        typer.Exit: the run failed; it has said why.
    """
    run_dir = base.with_name(name)
    resolved = stored_config(base, overrides, place=run_dir)
    if has_run(run_dir):
        check_config(resolved)
    else:
        fork(base, run_dir, k, before, overrides)
    return _finish(resolved, [sys.executable, "-m", "launch", "resume", str(run_dir.resolve())])


def _finish(config: Config, command: Sequence[str]) -> Path:
    if not _is_finished(config):
        code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode
        if code:
            raise typer.Exit(code)
    return config.run_dir


def _is_finished(config: Config) -> bool:
    if not has_run(config.run_dir):
        return False
    with Ledger.open_readonly(config.run_dir) as books:
        return sum(row.phase is Phase.DONE for row in books.rounds()) > config.run.rounds


def round_summaries(run_dir: Path) -> list[dict[str, Any]]:
    """The rounds in a run's ``summary.json``, round 0 first."""
    return json.loads((run_dir / "summary.json").read_text())["rounds"]
