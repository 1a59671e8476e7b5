"""Where does a round's time go, and how much memory does everything take together?

Runs one round of the quickstart with a small measurement and samples the memory of the whole process tree every second:
proportional set size (shared pages counted once) where the system tells it, else resident size.

    python -m bench.round_profile --seed 0
"""

import contextlib
import json
import subprocess
import sys
from typing import Annotated

import psutil
import typer

from bench.common import ROOT, run_command, summary

OVERRIDES = ("run.rounds=1", "evaluation.num_tasks=24", "evaluation.unseen_num_tasks=8")
SAMPLE_S = 1.0
MB = 1_000_000


def tree_memory(root: psutil.Process) -> float:
    """Memory of a process and all its descendants, MB."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", 0) or memory.rss
    return total / MB


def main(
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=c, as for `launch run`.")] = None,
) -> None:
    """Profile one round of the quickstart: seconds by stage, episodes per hour, peak memory of everything together."""
    command, run_dir = run_command("quickstart", f"profile-seed{seed}", seed, [*OVERRIDES, *(overrides or [])])
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    root, peak = psutil.Process(process.pid), 0.0
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, tree_memory(root))
        try:
            code = process.wait(SAMPLE_S)
            break
        except subprocess.TimeoutExpired:
            continue
    if code:
        raise typer.Exit(code)
    first, last = (summary(run_dir)["rounds"][index] for index in (0, -1))
    acting_s = last["seconds"]["rollout"] + last["seconds"]["eval"] + first["seconds"]["eval"]
    figures = {
        "episodes_per_hour": 3600 * (first["episodes"] + last["episodes"]) / acting_s,
        "seconds": last["seconds"],
        "peak_rss_mb": round(peak),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
