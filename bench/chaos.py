"""Does killing lose anything? A run that is killed again and again against one that is left alone.

Two tiny runs of one config, with real Ray, Chromium, learner and ledger, and by default a scripted model: one unbroken,
the other killed (-9) at seeded moments and resumed until it is done; then another one, until all kills are spent. Kills
are of the driver or a worker at a crash point (policy/crash.py), or of the driver, the rollout actor or Chromium when
some episodes are in the books; or the judge is out for some calls. With `--overlap` a round is proposed and rolled out
while the one before trains (`run.overlap`), and kills hit both at once. With `--real-model` it is the starter on real
vLLM, whose server and engine are killed as well; its samples differ from run to run, so that there is no digest to
compare.

- lost: rows committed before a kill (trajectories, verdicts, manifests, weights) that are gone or changed at the end;
- duplicated: committed trajectories whose file was written again, and files without a row;
- digest_equal: whether tasks, outcomes, verdicts, manifests and weights of every killed run are the unbroken one's;
  null with the real model;
- orphans: processes of killed programs that are still there when all is done;
- resume_s_median: seconds from starting the program again to its going on with a phase.

    python -m bench.chaos --kills 100 --seed 0
    python -m bench.chaos --kills 100 --seed 0 --overlap
    python -m bench.chaos --kills 20 --seed 0 --real-model
"""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer

from bench.common import ROOT, run_command
from bench.scripted import CONFIG, Call, Reply, Script, ScriptedServer, StarterTokens, wander, write_tiny_starter
from launch.books import LedgerError, Purpose
from launch.digest import digest
from launch.ledger import Ledger
from policy.crash import MARK, VARIABLE
from policy.leash import is_alive
from policy.server_record import ServerRecord

EXIT_FAILED, EXIT_KILLED = 1, -9
PROGRAM_DEADLINE_S = 900.0
GONE_DEADLINE_S = 90.0
"""Ray's own agents end about a minute after their node was killed; all else within seconds."""
POLL_S = 0.1
OUTAGE_CALLS = 4

SIZE = (
    "run.rounds=2",
    "run.min_free_disk_gb=0",
    "run.min_free_memory_gb=0",
    "rollout.episodes_per_actor=3",
    "rollout.tasks_per_round=6",
    "rollout.samples_per_task=1",
    "rollout.num_pages=2",
    "rollout.max_attempts=50",
    "rollout.agent.max_steps=3",
    "canaries.per_round=3",
    "canaries.max_fooled=1",
    "audit.share=0.3",
    "audit.max_fpr=1",
    "audit.thoughts_per_round=2",
    "promotion.num_tasks=2",
    "evaluation.num_tasks=3",
    "evaluation.unseen_num_tasks=0",
    "learner.batch_size=2",
    "learner.checkpoint_s=1e-6",
    "tracking.wandb=off",
)
"""Overrides that make a run small, whichever the model."""
SCRIPTED = (
    'websites=[{name="shop",url="practice:shop"},{name="forum",url="practice:forum"}]',
    "endpoints.judge.max_retries=0",
    "learner.lora_rank=4",
    "learner.lora_alpha=8",
)
OVERLAPPED = ("run.overlap=true", "run.rounds=3")
REAL = (f"model.starter={ROOT}/starter", "serving.max_restarts=50")

POINTS = {
    "propose:proposed": 4,
    "propose:committed": 4,
    "rollout:leased": 9,
    "rollout:moved": 9,
    "rollout:committed": 9,
    "judge:judged": 9,
    "judge:canaries": 1,
    "judge:thoughts": 1,
    "seal:written": 1,
    "seal:committed": 1,
    "learn:step": 3,
    "learn:checkpoint": 3,
    "learn:save": 1,
    "learn:renamed": 1,
    "train:learned": 1,
    "gate:compared": 1,
    "gate:committed": 1,
    "publish:paused": 2,
    "publish:loaded": 2,
    "record:logged": 1,
    "record:done": 1,
    "worker:delivered": 3,
}
"""Crash point -> the highest number of the time at which it is tried."""
POINTS_AHEAD = {"ahead:practised": 1, "ahead:joined": 1}
"""The same, of runs whose rounds overlap."""
STRIKES = ("driver", "actor", "chromium")
"""What is struck from outside, when some episodes were committed since the program was started."""
SCRIPTED_STRIKES = ("judge out",)
REAL_STRIKES = ("vllm server", "vllm engine", "vllm engine, driver")
MAX_EPISODES = 5


@dataclass(frozen=True, slots=True)
class Kill:
    """One failure: at the `number`-th time that a crash point is reached, or after `number` committed episodes."""

    where: str
    number: int


def draw_kills(seed: int, points: Mapping[str, int], strikes: Sequence[str]) -> Iterator[Kill]:
    """Kills without end, every place in turn, in a new order each time round."""
    rng = random.Random(seed)
    places = [*points, *strikes]
    while True:
        for where in rng.sample(places, len(places)):
            yield Kill(where, rng.randint(1, points.get(where, MAX_EPISODES)))


class Model:
    """The script of the model, whose judge can be out for some calls."""

    def __init__(self) -> None:
        """Be there, for the time being."""
        self.otherwise: Script = wander
        """What answers when nobody is out."""
        self.num_refusals_left = 0

    def __call__(self, call: Call) -> Reply | Awaitable[Reply]:
        """The reply."""
        if call.role == "judge" and self.num_refusals_left:
            self.num_refusals_left -= 1
            return None
        return self.otherwise(call)


def victims(where: str, program: psutil.Process, run_dir: Path) -> list[psutil.Process]:
    """The processes that a strike kills."""
    record = ServerRecord.read(run_dir / "logs" / "policy.log")
    leash = record.process.find() if record else None
    served = leash.children(recursive=True) if leash else []
    family = program.children(recursive=True)
    wanted = {
        "driver": [program],
        "actor": [process for process in family if process.name().startswith("ray::RolloutActor")],
        "chromium": [process for process in family if process.name().startswith("chrom")],
        "vllm server": served[:1],
        "vllm engine": [process for process in served if process.name().startswith("VLLM::EngineCor")],
    }
    return [process for part in where.split(", ") for process in wanted[part][:1]]


@dataclass
class Tally:
    """What came of the kills."""

    kills: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    duplicated: int = 0
    digest_equal: bool | None = True
    """None: there is nothing to compare with."""
    resume_s: list[float] = field(default_factory=list)
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def orphans(self) -> list[psutil.Process]:
        """Processes of ended programs that are still there, given time to go.

        Not by psutil's wait: that raises where a thread has been given the number of a process that ended.
        """
        deadline = time.monotonic() + GONE_DEADLINE_S
        while (alive := list(filter(is_alive, self.family))) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return alive


@dataclass(frozen=True, slots=True)
class Glance:
    """How far a run is, as its books tell."""

    start_s: float = 0.0
    """Seconds spent in starting, all starts together: it grows when a start has come to its phase."""
    num_episodes: int = 0


def glance(run_dir: Path) -> Glance:
    """A look at the books, beside whoever writes them."""
    try:
        with Ledger.open_readonly(run_dir) as books:
            numbers = [row.round for row in books.rounds()]
            start_s = sum(books.metrics(number).get("time/start", 0.0) for number in numbers)
            return Glance(start_s, sum(sum(books.outcomes(number, tuple(Purpose)).values()) for number in numbers))
    except (LedgerError, sqlite3.OperationalError):  # not there yet
        return Glance()


class Arena:
    """A directory in which runs are killed, and the scripted model that they talk to; a context manager."""

    def __init__(self, directory: Path, seed: int, settings: Sequence[str] = (), *, real_model: bool = False) -> None:
        """Write the scripted runs' model; with `real_model` they start their own server of the starter.

        `settings` are those of all of its runs.
        """
        self.directory, self.seed, self.settings, self.real_model = directory, seed, settings, real_model
        self.model = Model()
        self._server = ScriptedServer(self.model, None if real_model else StarterTokens())
        if not real_model:
            write_tiny_starter(directory)

    def __enter__(self) -> "Arena":
        """Start the model server."""
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._server.__exit__()

    def command(self, name: str, settings: Sequence[str] = ()) -> list[str]:
        """The command that begins a run of that name, or goes on with it."""
        ours = [f"run.name={name}", f"run.seed={self.seed}", *SIZE, *self.settings]
        if self.real_model:
            return run_command("quickstart", [*ours, *REAL, f"run.runs_dir={self.directory}/runs", *settings])
        return run_command(str(CONFIG), [*ours, *SCRIPTED, *self._server.settings(self.directory), *settings])

    def run_dir(self, name: str) -> Path:
        """Where that run is."""
        return self.directory / "runs" / name

    def launch(self, run_dir: Path, kill: Kill | None, tally: Tally, settings: Sequence[str] = ()) -> tuple[int, bool]:
        """Start the program, or start it again, and let `kill` befall it: its exit code, and whether it was struck."""
        mark = self.directory / "crashed"
        mark.unlink(missing_ok=True)
        is_point = kill and kill.where in POINTS | POINTS_AHEAD
        at_point = {VARIABLE: f"{kill.where}#{kill.number}", MARK: str(mark)} if kill and is_point else {}
        command = self.command(run_dir.name, settings)
        with (self.directory / f"{run_dir.name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=os.environ | at_point, stdout=log, stderr=log)
            struck = self._watch(process, run_dir, None if at_point else kill, tally)
        return process.returncode, struck or mark.exists()

    def _watch(self, process: subprocess.Popen[bytes], run_dir: Path, kill: Kill | None, tally: Tally) -> bool:
        """Note the program's family and when it goes on, until it ends; whether it was struck on the way."""
        root, started, before = psutil.Process(process.pid), time.monotonic(), glance(run_dir)
        is_resumed, struck = before.num_episodes > 0, False
        while process.poll() is None:
            if time.monotonic() > started + PROGRAM_DEADLINE_S:
                process.kill()
                raise AssertionError(f"{run_dir} not done within {PROGRAM_DEADLINE_S:.0f} s, {kill or 'spared'}")
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                tally.family.update(root.children(recursive=True))
                now = glance(run_dir)
                if is_resumed and now.start_s > before.start_s:
                    tally.resume_s.append(time.monotonic() - started)
                    is_resumed = False
                if kill and not struck and now.num_episodes >= before.num_episodes + kill.number:
                    struck = self._strike(kill.where, root, run_dir)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
        return struck

    def _strike(self, where: str, program: psutil.Process, run_dir: Path) -> bool:
        """Kill what is to be killed; whether it was there."""
        if where == "judge out":
            self.model.num_refusals_left = OUTAGE_CALLS
            return True
        found = victims(where, program, run_dir)
        for victim in found:
            victim.kill()
        return bool(found)


Committed = dict[tuple[str, ...], object]
"""What the books hold for good: key -> content; a trajectory's also tells when its file was written."""


def committed(run_dir: Path) -> Committed:
    """Everything that must still be there, unchanged, whatever happens later."""
    with Ledger.open_readonly(run_dir) as books:
        rows = books.trajectories()
        return {
            **{("trajectory", row.id): (row.sha256, (run_dir / row.path).stat().st_mtime_ns) for row in rows},
            **{("verdict", row.id): books.verdict(row.id) for row in rows if row.judgement},
            **{("round", str(row.round)): books.manifest(row.round) for row in books.rounds() if row.ended},
            **{("weights", str(row.version)): row for row in books.weights()},
        }


def num_unbooked_files(run_dir: Path) -> int:
    """Trajectory files that no row names, and episodes left in the inbox."""
    with Ledger.open_readonly(run_dir) as books:
        named = {row.path for row in books.trajectories()}
    files = {f"trajectories/{path.name}" for path in (run_dir / "trajectories").iterdir()}
    return len(files - named) + len(list((run_dir / "inbox").iterdir()))


def compare(before: Committed, run_dir: Path, tally: Tally) -> None:
    """Note what was committed once and isn't any more, or was written again."""
    now = committed(run_dir)
    tally.lost += sum(key not in now for key in before)
    tally.duplicated += sum(key in now and now[key] != value for key, value in before.items())


def run_killed(arena: Arena, name: str, kills: Iterator[Kill], limit: int, tally: Tally) -> Path:
    """A run that is killed until it is done, or `limit` kills have befallen it and it is spared; its directory."""
    run_dir, snapshots = arena.run_dir(name), list[Committed]()
    code = None
    while code != 0:
        kill = next(kills) if tally.kills.total() < limit else None
        code, struck = arena.launch(run_dir, kill, tally)
        assert code in (0, EXIT_FAILED, EXIT_KILLED), f"exit code {code} after {kill}: see {arena.directory}"
        if kill and struck:
            tally.kills[kill.where] += 1
        elif code:
            raise AssertionError(f"the program failed without a kill: see {arena.directory}/{name}.log")
        if (run_dir / "run.db").exists():
            snapshots.append(committed(run_dir))
    for snapshot in snapshots:
        compare(snapshot, run_dir, tally)
    tally.duplicated += num_unbooked_files(run_dir)
    return run_dir


def digest_of(run_dir: Path) -> dict[str, str]:
    """The digest of a run."""
    with Ledger.open_readonly(run_dir) as books:
        return digest(books)


def wreak(directory: Path, num_kills: int, seed: int, *, overlap: bool = False, real_model: bool = False) -> Tally:
    """Run once unbroken, unless the model is real, then killed as often as asked for."""
    tally = Tally(digest_equal=None if real_model else True)
    points = POINTS | POINTS_AHEAD if overlap else POINTS
    kills = draw_kills(seed, points, STRIKES + (REAL_STRIKES if real_model else SCRIPTED_STRIKES))
    with Arena(directory, seed, OVERLAPPED if overlap else (), real_model=real_model) as arena:
        unbroken = None if real_model else digest_of(run_killed(arena, "unbroken", kills, 0, Tally()))
        number = 0
        while tally.kills.total() < num_kills:
            number += 1
            found = digest_of(run_killed(arena, f"killed-{number}", kills, num_kills, tally))
            differing = [part for part in found if unbroken and unbroken[part] != found[part]]
            tally.digest_equal = tally.digest_equal and not differing
            print(f"run {number}: {tally.kills.total()} kills so far, differing: {differing or 'nothing'}", flush=True)
    return tally


def main(
    kills: Annotated[int, typer.Option(help="How many kills.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of the kills and of the runs.", min=0)] = 0,
    overlap: Annotated[bool, typer.Option("--overlap", help="Rounds that overlap.")] = False,
    real_model: Annotated[bool, typer.Option("--real-model", help="The starter on real vLLM.")] = False,
) -> None:
    """Kill a run at seeded moments, resume it, and compare it with an unbroken one."""
    if overlap and real_model:
        raise typer.BadParameter("expected one of the two: the starter's roles take turns", param_hint="--overlap")
    directory = Path(tempfile.mkdtemp(prefix="pae-chaos-"))
    tally = wreak(directory, kills, seed, overlap=overlap, real_model=real_model)
    for where, number in sorted(tally.kills.items()):
        print(f"{number:4} x {where}")
    orphans = tally.orphans
    for process in orphans:
        print(f"still there: {process}")
    shutil.rmtree(directory)  # where something failed it is kept: its logs tell what
    figures = {
        "kills": tally.kills.total(),
        "lost": tally.lost,
        "duplicated": tally.duplicated,
        "digest_equal": tally.digest_equal,
        "orphans": len(orphans),
        "resume_s_median": round(median(tally.resume_s), 2) if tally.resume_s else None,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
