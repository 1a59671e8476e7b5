"""A disk that gets full: the run ends in one line, nothing is half written, and with room again it goes on."""

import asyncio
import errno
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from bench.common import run_command
from bench.scripted import CONFIG, Call, ScriptedServer, quick_answers
from launch import config as configs
from launch import inbox, stages
from launch.books import Phase, Purpose, WeightsRow
from launch.disk import full_disk_fails, is_full
from launch.errors import RunFailed
from launch.ledger import Ledger
from launch.rounds import perform
from launch.storage import SharedDirectory
from launch.team import Team, make_team
from launch.tracking import Tracker, TrackingSettings
from launch.workers import Order, Workers
from policy.blobs import BlobStore
from policy.endpoint import EndpointSettings
from policy.fleet import Fleet
from policy.server_settings import ServerSettings
from proposer.generate import Prompt, Response, Sampling
from proposer.task import Task
from tests.makers import SHOP, observation, trajectory

ROOT = Path(__file__).parents[1]
DISK_BYTES = 6_000_000
NUM_TASKS = 24
OFF = TrackingSettings(wandb="off")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system can't be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path, left: int = 0) -> Path:
    """Fill a file system but for `left` bytes; the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(file.tell() - left)
    return filler


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def make_run(run_dir: Path, ledger: Ledger, tracker: Tracker, *settings: str) -> Team:
    """A team with 24 planned training episodes of round 1."""
    config = configs.load("quickstart", [f"run.runs_dir={run_dir}", "tracking.wandb=off", *settings])
    tasks = [Task(website=SHOP, instruction=f"Do thing {n}.", world="train-1") for n in range(NUM_TASKS)]
    ledger.begin_round(1, Phase.PROPOSE)
    ledger.plan(1, Purpose.TRAIN, tasks, num_samples=1)
    ledger.commit_weights(WeightsRow(0, None, -1, "/nowhere"))
    team = make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())
    team.workers = cast(Workers, Hands(run_dir))
    team.models = {"judge": says_success}
    team.fleet = Fleet(ServerSettings(base_urls=("http://127.0.0.1:9",)), Path("/nowhere"), Path("/nowhere.log"))
    team.fleet.version = 0
    return team


async def says_success(prompt: Prompt, sampling: Sampling) -> Response:
    return Response("Reason: it did.\nVerdict: success")


@dataclass
class Hands:
    """In the place of the Ray workers: every episode is finished and takes up 100 kB."""

    run_dir: Path
    num_slots: int = 2

    async def run(self, order: Order) -> str:
        picture = BlobStore(self.run_dir / "blobs").put(b"picture")
        seen = observation(listing="x" * 100_000, screenshot=picture)
        return inbox.deliver(self.run_dir, trajectory(order.trajectory_id, steps=0, final=seen))


@pytest.mark.asyncio
async def test_no_phase_begins_without_room(tmp_path: Path) -> None:
    async def stage(team: Team, k: int) -> None:
        raise AssertionError("begun")

    with Ledger(tmp_path) as ledger, Tracker(tmp_path, OFF, {}) as tracker:
        team = make_run(tmp_path, ledger, tracker, "run.stop_free_disk_gb=1e6")
        with pytest.raises(RunFailed, match=r"GB free at .*, expected 1e\+06 \(run.stop_free_disk_gb\).*`resume`"):
            await perform(team, 1, Phase.ROLLOUT, stage)
        assert ledger.phase(1) is Phase.PROPOSE


def test_a_file_that_the_disk_has_no_room_for_leaves_nothing(disk: Path) -> None:
    inbox.write_atomic(disk / "summary.json", b"before")
    blobs = BlobStore(disk / "blobs")
    before = {f"blobs/{(name := blobs.put(b'before'))[:2]}/{name}", "summary.json", "filler"}
    fill(disk)
    for write in (lambda: inbox.write_atomic(disk / "summary.json", b"x" * 9000), lambda: blobs.put(b"x" * 9000)):
        with pytest.raises(OSError) as caught:
            write()
        assert is_full(caught.value)
    assert names(disk) == before
    assert (disk / "summary.json").read_bytes() == b"before"


@pytest.mark.parametrize("left", [0, 8192, 65536])
def test_books_that_the_disk_has_no_room_for_keep_what_was_committed(disk: Path, left: int) -> None:
    tasks = [Task(website=SHOP, instruction=f"Do thing {n}. {'x' * 999}", world="train-1") for n in range(500)]
    with Ledger(disk) as ledger:
        ledger.plan(1, Purpose.TRAIN, tasks[:1], num_samples=1)
        filler = fill(disk, left)
        with pytest.raises(RunFailed, match="the disk is full: database or disk is full"), full_disk_fails():
            ledger.plan(1, Purpose.TRAIN, tasks, num_samples=1)
        assert ledger.num_episodes(1, Purpose.TRAIN) == 1
        filler.unlink()
        ledger.plan(1, Purpose.TRAIN, tasks, num_samples=1)
    with Ledger.open_readonly(disk) as books:
        assert books.num_episodes(1, Purpose.TRAIN) == len(tasks)


def test_books_that_can_not_be_opened_for_want_of_room_say_so(disk: Path) -> None:
    Ledger(disk).close()
    fill(disk)
    with pytest.raises(RunFailed, match="the disk is full"), full_disk_fails(), Ledger(disk):
        pass


def test_another_error_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), full_disk_fails():
        (tmp_path / "nothing").read_bytes()


@pytest.mark.asyncio
async def test_a_phase_that_fills_the_disk_fails_and_goes_on_when_there_is_room(disk: Path) -> None:
    (disk / inbox.INBOX).mkdir()
    with Ledger(disk) as ledger, Tracker(disk, OFF, {}) as tracker:
        team = make_run(disk, ledger, tracker, "run.stop_free_disk_gb=0")
        filler = fill(disk, left=1_500_000)
        with pytest.raises(RunFailed, match="the disk is full"), full_disk_fails():
            await perform(team, 1, Phase.ROLLOUT, stages.roll_out)
        await team.drop_judging()
        num_before = len(ledger.trajectories(1))
        filler.unlink()
    assert 0 < num_before < NUM_TASKS
    with Ledger(disk) as ledger, Tracker(disk, OFF, {}) as tracker:
        inbox.take_orphans(disk, ledger)
        assert len(ledger.trajectories(1)) >= num_before
        team = make_run(disk, ledger, tracker, "run.stop_free_disk_gb=0")
        await perform(team, 1, Phase.ROLLOUT, stages.roll_out)
        await perform(team, 1, Phase.JUDGE, stages.judge)
        rows = ledger.trajectories(1)
        assert len({ledger.load(row).id for row in rows}) == len(rows) == NUM_TASKS
        assert all(row.judgement is not None for row in rows)


@pytest.mark.asyncio
async def test_a_worker_that_finds_the_disk_full_delivers_no_outcome_but_the_error(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "blobs").symlink_to(disk)
    fill(disk)
    config = configs.load("quickstart")
    task = Task(website=SHOP, instruction="Do thing.", world="train-1")
    nowhere = EndpointSettings(base_url="http://127.0.0.1:9/v1", model="never asked")
    async with Workers(SharedDirectory(tmp_path), config.rollout, config.cluster) as workers:
        with pytest.raises(RunFailed, match="the disk is full"), full_disk_fails():
            await workers.run(Order("1-x-0", task, nowhere, 0, Sampling(0.0, 8, 0)))
    assert not (tmp_path / inbox.INBOX).exists()


@dataclass
class Filler:
    """A script that fills the disk when the policy is asked for the third time."""

    disk: Path
    calls: list[str] = field(default_factory=list)

    def __call__(self, call: Call) -> str | None:
        self.calls.append(call.role)
        if call.role == "policy" and self.calls.count("policy") == 3:
            fill(self.disk)
        return quick_answers(call)


def launch(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_program_tells_a_full_disk_in_one_line_and_resumes(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "starter" / "policy").mkdir(parents=True)
    (tmp_path / "starter" / "STARTER.json").write_text("{}")
    (tmp_path / "starter" / "policy" / "config.json").write_text("{}")
    with ScriptedServer(Filler(disk)) as server:
        changes = [f"run.runs_dir={disk}", "run.rounds=0", "run.stop_free_disk_gb=0", "evaluation.num_tasks=6"]
        failed = launch(run_command(str(CONFIG), [*server.settings(tmp_path), *changes]))
        (disk / "filler").unlink()
        resumed = launch([sys.executable, "-m", "launch", "resume", f"{disk}/tiny"])
    assert (failed.returncode, resumed.returncode) == (1, 0), failed.stderr + resumed.stderr
    assert "Traceback" not in failed.stderr
    errors = [line for line in failed.stderr.splitlines() if "error" in line.casefold()]
    assert len(errors) == 1
    assert errors[0].startswith("error: the disk is full:")
    with Ledger.open_readonly(disk / "tiny") as books:
        rows = books.trajectories()
        assert len(rows) == books.num_episodes(0, Purpose.EVAL) == 6
        assert all(row.outcome.is_agents for row in rows)
