"""Metrics file and wandb: what is recorded, and that wandb's troubles stay wandb's."""

import json
import logging
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from launch.books import weights_path
from launch.tracking import METRICS, Tracker, TrackingSettings, read_metrics
from rl.steplog import OptimizerStep, log_step, read_steps

OFF = TrackingSettings(wandb="off")
OFFLINE = TrackingSettings(wandb="offline")


def offline_runs(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*"))


def records(path: Path) -> Iterator[bytes]:
    """What stands in a wandb run's file: a head of 7 bytes, then LevelDB's log of checksum, length, type and data."""
    data, place, record = path.read_bytes(), 7, b""
    while place < len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_rows(run: Path) -> list[dict[str, float]]:
    """What a wandb run was told, in order, without wandb's own keys."""
    rows = []
    (path,) = run.glob("*.wandb")
    for data in records(path):
        history = wandb_internal_pb2.Record.FromString(data).history  # pyright: ignore[reportAttributeAccessIssue]
        values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}
        if row := {key: value for key, value in values.items() if not key.startswith("_")}:
            rows.append(row)
    return rows


def until(holds: Callable[[], bool]) -> bool:
    """Wait for wandb's own process, which may still write when a run is finished."""
    deadline = time.monotonic() + 30
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_each_round_is_one_json_line(tmp_path: Path) -> None:
    with Tracker(tmp_path, OFF, {}) as tracker:
        tracker.log(0, {"eval/success": 0.25})
        tracker.log(1, {"eval/success": 0.5})
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"round": 0, "eval/success": 0.25},
        {"round": 1, "eval/success": 0.5},
    ]


def test_a_round_logged_again_counts_once_with_its_last_numbers(tmp_path: Path) -> None:
    with Tracker(tmp_path, OFF, {}) as tracker:
        for round, value in [(0, 0.1), (1, 0.2), (1, 0.3), (0, 0.15)]:
            tracker.log(round, {"eval/success": value})
    assert read_metrics(tmp_path) == {0: {"eval/success": 0.15}, 1: {"eval/success": 0.3}}


def test_a_line_torn_by_a_kill_is_dropped_and_later_lines_are_whole(tmp_path: Path) -> None:
    with Tracker(tmp_path, OFF, {}) as tracker:
        tracker.log(0, {"a": 1.0})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"round": 1, "a": 2')
    assert read_metrics(tmp_path) == {0: {"a": 1.0}}
    with Tracker(tmp_path, OFF, {}) as tracker:
        tracker.log(1, {"a": 3.0})
    assert read_metrics(tmp_path) == {0: {"a": 1.0}, 1: {"a": 3.0}}


def test_a_run_without_metrics_reads_as_empty(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}


@pytest.mark.parametrize(
    ("key", "setting", "mode"),
    [
        ("", "auto", "offline"),
        ("a-key", "auto", "online"),
        ("a-key", "offline", "offline"),
        ("", "online", "online"),
        ("a-key", "off", "off"),
    ],
)
def test_wandb_is_online_only_with_a_key_or_when_asked(
    monkeypatch: pytest.MonkeyPatch, key: str, setting: str, mode: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert TrackingSettings.model_validate({"wandb": setting}).mode == mode


def test_the_newest_offline_run_holds_all_rounds_after_a_resume(tmp_path: Path) -> None:
    with Tracker(tmp_path, OFFLINE, {"seed": 1}) as tracker:
        tracker.log(0, {"eval/success": 0.125})
    first = set(offline_runs(tmp_path))
    assert len(first) == 1
    with Tracker(tmp_path, OFFLINE, {"seed": 1}) as tracker:
        tracker.log(1, {"eval/success": 0.875})
    (newest,) = set(offline_runs(tmp_path)) - first
    assert until(lambda: [row["eval/success"] for row in wandb_rows(newest)] == [0.125, 0.875])


def test_optimizer_steps_stand_between_rounds_each_once_also_after_a_resume(tmp_path: Path) -> None:
    out = tmp_path / weights_path(1)
    out.parent.mkdir()

    def take(*numbers: int) -> None:
        for number in numbers:
            log_step(out, OptimizerStep(step=number, total=4, loss=1 / number, grad_norm=2, lr=0.5, tokens=8, at=0))

    with Tracker(tmp_path, OFFLINE, {}) as tracker:
        tracker.log(0, {"eval/success": 0.125})
        take(1, 2)
        tracker.log_steps(1, read_steps(out))
        tracker.log_steps(1, read_steps(out))
        take(3, 4)
        tracker.log_steps(1, read_steps(out))
        tracker.log(1, {"eval/success": 0.25})
    (first,) = offline_runs(tmp_path)
    with Tracker(tmp_path, OFFLINE, {}):
        pass
    (second,) = set(offline_runs(tmp_path)) - {first}
    for run in (first, second):
        assert until(lambda run=run: len(wandb_rows(run)) == 6)
        rows = wandb_rows(run)
        steps = [(row["optimizer/round"], row["optimizer/loss"]) for row in rows if "optimizer/round" in row]
        assert steps == [(0.25, 1), (0.5, 1 / 2), (0.75, 1 / 3), (1, 1 / 4)]
        rounds = [(row["round"], row["eval/success"]) for row in rows if "round" in row]
        assert rounds == [(0, 0.125), (1, 0.25)]


def test_a_lost_wandb_process_is_told_once_and_the_file_goes_on(tmp_path: Path) -> None:
    script = """
import logging, pathlib, psutil, sys
from launch.tracking import Tracker, TrackingSettings
logging.basicConfig()
tracker = Tracker(pathlib.Path(sys.argv[1]), TrackingSettings(wandb="offline"), {})
started = psutil.Process().children()
assert started
for process in started:
    process.kill()
psutil.wait_procs(started, timeout=10)
for round in range(3):
    tracker.log(round, {"a": float(round)})
tracker.finish()
"""
    env = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # not the one of this process
    done = subprocess.run([sys.executable, "-c", script, tmp_path], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wandb gave up") == 1
    assert list(read_metrics(tmp_path)) == [0, 1, 2]


def test_a_bad_key_is_told_once_and_the_file_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "not a key")
    with (
        caplog.at_level(logging.WARNING, logger="launch.tracking"),
        Tracker(tmp_path, TrackingSettings(), {}) as tracker,
    ):
        tracker.log(0, {"a": 1.0})
    told = [record.getMessage() for record in caplog.records if record.name == "launch.tracking"]
    assert len(told) == 1
    assert "WANDB_API_KEY" in told[0]
    assert read_metrics(tmp_path) == {0: {"a": 1.0}}
