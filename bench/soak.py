"""Does anything grow? Hundreds of episodes in one run: memory, open files and zombies at their start and at their end.

The real program with real Ray and Chromium and a scripted model, one round of as many episodes as asked for. Its whole
process tree, without the model, is measured every two seconds. Start: the median over the second tenth of the episodes,
when all is warm; end: over the last tenth. Memory is the proportional set size, or resident minus shared pages where
the system hides that. Zombies are those at the end that nobody waits for within seconds: every process is one for a
moment when it has ended. The lines before the last say which program grew by how much.

    python -m bench.soak --episodes 500 --seed 0
"""

import json
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer

from bench.chaos import Arena
from bench.common import ROOT
from bench.round_profile import MB, tree_memory
from launch.books import LedgerError, Phase, Purpose
from launch.ledger import Ledger

SAMPLE_S = 2.0
DEADLINE_S = 3600.0
REAP_DEADLINE_S = 15.0
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """The process tree at one moment."""

    num_episodes: int
    """Committed so far."""
    memory: Counter[str]
    """Bytes by program."""
    num_files: int
    """Open file descriptors."""


def num_committed(run_dir: Path) -> int | None:
    """Practised episodes in the books; None once they are all there."""
    try:
        with Ledger.open_readonly(run_dir) as books:
            if books.phase(1) not in (None, Phase.PROPOSE, Phase.ROLLOUT):
                return None
            return sum(books.outcomes(1, (Purpose.TRAIN,)).values())
    except LedgerError:
        return 0  # not begun yet


def look(seen: set[psutil.Process], root: psutil.Process, num_episodes: int) -> Sample:
    """Measure the tree."""
    memory = tree_memory(seen, root)
    num_files = 0
    for process in list(seen):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            num_files += process.num_fds()
    return Sample(num_episodes, memory, num_files)


def lasting_zombies(seen: set[psutil.Process]) -> int:
    """How many processes have ended and are not waited for by anyone, also after a while."""
    deadline = time.monotonic() + REAP_DEADLINE_S
    while (zombies := list(filter(is_zombie, seen))) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return len(zombies)


def is_zombie(process: psutil.Process) -> bool:
    """Whether a process has ended and nobody has waited for it yet."""
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return False


def watch(process: subprocess.Popen[bytes], run_dir: Path) -> tuple[list[Sample], int]:
    """Samples while episodes roll out, and the zombies that last."""
    root, seen, samples = psutil.Process(process.pid), set[psutil.Process](), list[Sample]()
    deadline = time.monotonic() + DEADLINE_S
    while (done := num_committed(run_dir)) is not None:
        assert process.poll() is None, "the program ended before its episodes were done"
        assert time.monotonic() < deadline, f"not done within {DEADLINE_S:.0f} s"
        samples.append(look(seen, root, done))
        time.sleep(SAMPLE_S)
    return samples, lasting_zombies(seen)


def between(samples: list[Sample], low: float, high: float) -> list[Sample]:
    """Those from a share of the last one's episodes to another."""
    total = samples[-1].num_episodes
    return [sample for sample in samples if low * total <= sample.num_episodes <= high * total]


def typical(samples: list[Sample]) -> Counter[str]:
    """Median bytes by program."""
    programs = {program for sample in samples for program in sample.memory}
    return Counter({program: round(median(sample.memory[program] for sample in samples)) for program in programs})


def tell(samples: list[Sample], num_zombies: int) -> None:
    """Print which program grew by how much, and the figures."""
    first, last = between(samples, 0.1, 0.2), between(samples, 0.9, 1.0)
    start, end = typical(first), typical(last)
    for program in sorted(start | end, key=lambda program: start[program] - end[program]):
        print(f"{start[program] / MB:8.0f} -> {end[program] / MB:8.0f} MB {program}")
    figures = {
        "episodes": samples[-1].num_episodes,
        "rss_mb_start": round(start.total() / MB),
        "rss_mb_end": round(end.total() / MB),
        "fds_start": round(median(sample.num_files for sample in first)),
        "fds_end": round(median(sample.num_files for sample in last)),
        "zombies": num_zombies,
    }
    print(json.dumps(figures))


def main(
    episodes: Annotated[int, typer.Option(help="How many episodes.", min=50)] = 500,
    seed: Annotated[int, typer.Option(help="Of the run.", min=0)] = 0,
) -> None:
    """Run many episodes and tell whether memory, open files or zombies grew."""
    with tempfile.TemporaryDirectory(prefix="pae-soak-") as directory, Arena(Path(directory), seed) as arena:
        settings = ["run.rounds=1", f"rollout.tasks_per_round={episodes}", "rollout.tasks_per_world=10"]
        command = arena.command("soak", [*settings, "evaluation.num_tasks=0"])
        with (Path(directory) / "soak.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            try:
                samples, num_zombies = watch(process, arena.run_dir("soak"))
            finally:
                process.terminate()
                process.wait()
    tell(samples, num_zombies)


if __name__ == "__main__":
    typer.run(main)
