"""What the bench scripts share: starting a run of the real program, and reading its books."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.books import Purpose, TrajectoryRow
from launch.ledger import Ledger, has_run

ROOT = Path(__file__).resolve().parent.parent


def run_command(config: str, name: str, seed: int, overrides: Sequence[str]) -> tuple[list[str], Path]:
    """The command that runs a config under a name of its own, or goes on with it, and its run directory."""
    run_dir = ROOT / "runs" / name
    settings = [f"run.name={name}", f"run.seed={seed}", f"run.runs_dir={run_dir.parent}", *overrides]
    if has_run(run_dir):
        return [sys.executable, "-m", "launch", "resume", str(run_dir)], run_dir
    words = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "launch", "run", config, *words], run_dir


def run_to_end(config: str, name: str, seed: int, overrides: Sequence[str]) -> Path:
    """Run a config to its end; a finished run is left as it is. Its run directory.

    Raises:
        subprocess.CalledProcessError: the run failed.
    """
    command, run_dir = run_command(config, name, seed, overrides)
    subprocess.run(command, cwd=ROOT, check=True)
    return run_dir


def measured(run_dir: Path, round: int, purpose: Purpose) -> list[TrajectoryRow]:
    """The measured episodes of a round that ended by the agent's doing."""
    with Ledger.open_readonly(run_dir) as ledger:
        return [row for row in ledger.trajectories(round, purpose) if row.outcome.is_agents]


def summary(run_dir: Path) -> dict:
    """The run's ``summary.json``."""
    return json.loads((run_dir / "summary.json").read_text())
