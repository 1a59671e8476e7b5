"""Where does a round's time go, and how much memory does everything take together?

Runs one round of the quickstart, with a small measurement, in a fresh run directory, and samples the memory of its
whole process tree (driver, Ray, model servers, browsers, learner) every second. Memory is the proportional set size, in
which shared pages count once, as the system tells it; for a process that hides it, resident minus shared pages. The
lines before the last say which, by program, at the peak.

Episodes per hour: all episodes, practised and measured, over the seconds of the phases that attempt them (rollout,
eval; judging goes on beside them). Seconds: of round 1 by phase; servers and workers start in round 0.

    python -m bench.round_profile --seed 0
"""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import psutil
import typer

from bench.common import ROOT, RUNS, own_settings, round_summaries, run_command

OVERRIDES = ("run.rounds=1", "evaluation.num_tasks=24", "evaluation.unseen_num_tasks=8")
SAMPLE_S = 1.0
MB = 1_000_000


def measure(process: psutil.Process, usage: Counter[str]) -> None:
    """Add a process's memory (bytes) to its program's, under how it was measured. Raises NoSuchProcess."""
    try:
        pss = getattr(process.memory_full_info(), "pss", 0)
    except psutil.AccessDenied:  # sandboxed renderers hide it from other users
        pss = 0
    if pss:
        usage[f"{process.name()} (PSS)"] += pss
    else:
        memory = process.memory_info()
        usage[f"{process.name()} (RSS minus shared)"] += memory.rss - getattr(memory, "shared", 0)


def tree_memory(seen: set[psutil.Process], root: psutil.Process) -> Counter[str]:
    """Bytes by program of a process and all it started; `seen` keeps those whose parent has ended."""
    usage = Counter[str]()
    with contextlib.suppress(psutil.NoSuchProcess):  # the root has just ended
        seen.update([root, *root.children(recursive=True)])
    for process in list(seen):
        try:
            measure(process, usage)
        except psutil.NoSuchProcess:
            seen.discard(process)
    return usage


def peak_memory(process: subprocess.Popen[bytes]) -> Counter[str]:
    """Bytes by program at the moment when they were most together; comes back when the process ends."""
    root, seen, peak = psutil.Process(process.pid), set[psutil.Process](), Counter[str]()
    while True:
        peak = max(peak, tree_memory(seen, root), key=Counter.total)
        try:
            process.wait(SAMPLE_S)
            return peak
        except subprocess.TimeoutExpired:
            continue


def main(
    seed: Annotated[int, typer.Option(help="Of the run.", min=0)] = 0,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=c, as for `launch run`.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where the run directory is made.")] = RUNS,
) -> None:
    """Profile one round of the quickstart: seconds by stage, episodes per hour, peak memory of everything together."""
    name = f"profile-seed{seed}-{time.strftime('%Y%m%dT%H%M%S')}"
    settings = own_settings(name, seed, runs_dir, [*OVERRIDES, *(overrides or [])])
    process = subprocess.Popen(run_command("quickstart", settings), cwd=ROOT, stdout=sys.stderr)
    peak = peak_memory(process)
    if process.returncode:
        raise typer.Exit(process.returncode)
    rounds = round_summaries(runs_dir / name)
    for row in rounds:
        print(f"round {row['round']}: {row['episodes']} episodes {row['outcomes']}, seconds {row['seconds']}")
    for program, size in peak.most_common():
        print(f"at the peak: {size / MB:7.0f} MB {program}")
    acting_s = sum(row["seconds"]["rollout"] + row["seconds"]["eval"] for row in rounds)
    figures = {
        "episodes_per_hour": 3600 * sum(row["episodes"] for row in rounds) / acting_s,
        "seconds": rounds[-1]["seconds"],
        "peak_rss_mb": round(peak.total() / MB),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
