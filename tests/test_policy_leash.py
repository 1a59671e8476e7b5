"""The leash: a command outlives its owner only for a while, and takes its children along when it goes."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from policy.leash import Owned, ProcessId, is_owned

DEADLINE_S = 20.0
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
"""A command with a child, which would outlive it."""
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


@pytest.fixture
def owner() -> Iterator[psutil.Popen]:
    process = psutil.Popen(SLEEPER)
    yield process
    if process.is_running():
        process.kill()
    process.wait()


@pytest.fixture
def record(tmp_path: Path, owner: psutil.Popen) -> Path:
    path = tmp_path / "vllm.server.json"
    path.write_text(Owned(owner=ProcessId.of(owner)).model_dump_json())
    return path


@pytest.fixture
def leashed(record: Path) -> Iterator[list[psutil.Process]]:
    """A leash of one second, the command that it holds, and that one's child."""
    command = [sys.executable, "-m", "policy.leash", str(record), "1.0", sys.executable, "-c", PARENT]
    leash = psutil.Popen(command, start_new_session=True, cwd=Path(__file__).parents[1])
    assert until(lambda: len(leash.children(recursive=True)) == 2)
    family = [leash, *leash.children(recursive=True)]
    yield family
    for process in family:
        if process.is_running():
            process.kill()
    leash.wait()


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_a_server_whose_owner_was_killed_ends_with_its_children(
    leashed: list[psutil.Process], owner: psutil.Popen
) -> None:
    owner.kill()
    owner.wait()
    assert until(lambda: all_gone(leashed))


def test_a_server_that_is_adopted_in_time_lives_on(
    leashed: list[psutil.Process], owner: psutil.Popen, record: Path
) -> None:
    record.write_text(Owned(owner=ProcessId.of(psutil.Process())).model_dump_json())
    owner.kill()
    owner.wait()
    with pytest.raises(psutil.TimeoutExpired):
        leashed[0].wait(3.0)  # three times the leash
    assert all(process.is_running() for process in leashed)


def test_a_stopped_leash_ends_its_command_in_order(leashed: list[psutil.Process]) -> None:
    leash, command, _ = leashed
    leash.terminate()
    assert until(lambda: not leash.is_running() or leash.status() == psutil.STATUS_ZOMBIE)
    assert all_gone([command])


def test_a_leash_tells_how_its_command_ended(record: Path) -> None:
    command = [sys.executable, "-m", "policy.leash", str(record), "1.0", sys.executable, "-c", "raise SystemExit(3)"]
    done = subprocess.run(command, start_new_session=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 3


@pytest.mark.parametrize("text", ["", "{", '{"owner": null}'])
def test_a_record_that_can_not_be_read_has_no_owner(tmp_path: Path, text: str) -> None:
    (tmp_path / "torn").write_text(text)
    assert not is_owned(tmp_path / "torn")
    assert not is_owned(tmp_path / "missing")


def test_another_process_with_the_number_of_an_ended_one_is_not_taken_for_it(owner: psutil.Popen) -> None:
    known = ProcessId.of(owner)
    assert known.find() == owner
    assert known.model_copy(update={"started": known.started - 1}).find() is None


def test_a_process_is_found_again_after_the_clock_was_set(
    owner: psutil.Popen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, told_before = ProcessId.of(owner), owner.create_time()
    stat = Path("/proc/stat").read_text()  # where the system tells when it was started, by its clock
    (tmp_path / "stat").write_text(re.sub(r"btime (\d+)", lambda told: f"btime {int(told[1]) + 3600}", stat))
    (tmp_path / str(owner.pid)).symlink_to(f"/proc/{owner.pid}")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert psutil.Process(owner.pid).create_time() - told_before == pytest.approx(3600)
    assert known.find() == owner
