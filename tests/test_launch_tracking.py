"""Metrics file and wandb: what is recorded, and that wandb's troubles stay wandb's."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.tracking import METRICS, Tracker, TrackingSettings, read_metrics

OFF = TrackingSettings(wandb="off")
OFFLINE = TrackingSettings(wandb="offline")


def offline_runs(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "wandb").glob("offline-run-*"))


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
    (record,) = newest.glob("*.wandb")
    assert b"0.125" in record.read_bytes()
    assert b"0.875" in record.read_bytes()


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
