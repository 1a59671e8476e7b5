"""Weights that are kept and weights that go: never the newest, never outside the run, never half a version."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from launch import config as configs
from launch import retention, stages
from launch.books import Phase, WeightsRow
from launch.cli import app
from launch.config import RetentionSettings
from launch.ledger import Ledger
from launch.retention import drop_weights
from launch.team import make_team
from launch.tracking import Tracker

TWO = RetentionSettings()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The books of a run whose version 0 is the starter's."""
    starter = tmp_path / "starter"
    starter.mkdir()
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with Ledger(run_dir) as ledger:
        ledger.commit_weights(WeightsRow(0, None, -1, str(starter)))
        yield ledger


def write_versions(ledger: Ledger, last: int, skipped: tuple[int, ...] = ()) -> None:
    """Commit versions 1 to `last`, each with a file and its hash."""
    for version in range(1, last + 1):
        if version not in skipped:
            row = WeightsRow(version, version - 1, version, f"weights/v{version:06d}")
            directory = ledger.run_dir / row.path
            directory.mkdir(parents=True)
            (directory / "model.safetensors").write_bytes(b"w" * version)
            (directory / "COMMIT.json").write_text(json.dumps({"files": {"model.safetensors": f"hash-{version}"}}))
            ledger.commit_weights(row)


def on_disk(ledger: Ledger) -> list[str]:
    return sorted(path.name for path in (ledger.run_dir / "weights").iterdir())


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (RetentionSettings(), [6, 7]),
        (RetentionSettings(keep_last=1), [7]),
        (RetentionSettings(keep_last=9), [1, 2, 3, 4, 6, 7]),
        (RetentionSettings(keep_last=1, keep_every=3), [3, 6, 7]),
        (RetentionSettings(keep_last=1, keep_every=1), [1, 2, 3, 4, 6, 7]),
    ],
)
def test_the_newest_and_every_nth_version_are_kept(
    ledger: Ledger, settings: RetentionSettings, kept: list[int]
) -> None:
    write_versions(ledger, last=7, skipped=(5,))
    drop_weights(ledger, settings)
    assert on_disk(ledger) == [f"v{version:06d}" for version in kept]


def test_the_newest_version_can_not_be_given_up() -> None:
    with pytest.raises(ValidationError):
        RetentionSettings(keep_last=0)


def test_rows_and_hashes_of_dropped_versions_stay_in_the_books(ledger: Ledger) -> None:
    write_versions(ledger, last=4)
    drop_weights(ledger, TWO)
    assert [row.version for row in ledger.weights()] == [0, 1, 2, 3, 4]
    dropped = [event.text for event in ledger.events() if event.kind == "dropped"]
    assert [text.split()[-1] for text in dropped] == ["hash-1", "hash-2"]


def test_dropped_again_nothing_more_happens(ledger: Ledger) -> None:
    write_versions(ledger, last=4)
    drop_weights(ledger, TWO)
    before = on_disk(ledger), ledger.events()
    drop_weights(ledger, TWO)
    assert (on_disk(ledger), ledger.events()) == before


def test_what_is_outside_the_run_is_never_deleted(ledger: Ledger, tmp_path: Path) -> None:
    write_versions(ledger, last=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (ledger.run_dir / "weights" / "v000002").symlink_to(elsewhere)
    for version, path in ((2, "weights/v000002"), (3, str(elsewhere)), (4, "../elsewhere")):
        ledger.commit_weights(WeightsRow(version, version - 1, version, path))
    write_later = WeightsRow(9, 4, 9, "weights/v000009")
    ledger.commit_weights(write_later)
    drop_weights(ledger, RetentionSettings(keep_last=1))
    assert elsewhere.is_dir()
    assert (tmp_path / "starter").is_dir()
    assert on_disk(ledger) == ["v000002"]


def test_a_deletion_that_was_killed_is_finished_by_the_next(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path) -> None:
        next(path.iterdir()).unlink()
        raise KeyboardInterrupt

    write_versions(ledger, last=4)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        drop_weights(ledger, TWO)
    assert on_disk(ledger) == [".v000001.dropped", ".v000002.dropped", "v000003", "v000004"]
    drop_weights(ledger, TWO)
    assert on_disk(ledger) == ["v000003", "v000004"]
    assert sum(event.kind == "dropped" for event in ledger.events()) == 2


def test_what_can_not_be_deleted_yet_stays_out_of_sight(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(path: Path) -> None:
        raise OSError(f"{path} is busy")

    write_versions(ledger, last=3)
    monkeypatch.setattr(shutil, "rmtree", busy)
    drop_weights(ledger, TWO)
    assert on_disk(ledger) == [".v000001.dropped", "v000002", "v000003"]
    assert "can't be deleted yet" in caplog.text


def test_a_recorded_round_has_dropped_what_is_no_longer_kept(ledger: Ledger, tmp_path: Path) -> None:
    config = configs.load("quickstart", [f"run.runs_dir={tmp_path}", "tracking.wandb=off", "retention.keep_last=1"])
    write_versions(ledger, last=3)
    ledger.begin_round(3, Phase.EVAL)
    with Tracker(ledger.run_dir, config.tracking, {}) as tracker:
        team = make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())
        stages.record(team, 3)
        assert on_disk(ledger) == ["v000003"]
        assert team.weights_dir(ledger.newest_weights(before_round=4)).is_dir()
    assert ledger.phase(3) is Phase.DONE


def test_a_round_killed_while_it_drops_is_not_done(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    config = configs.load("quickstart", [f"run.runs_dir={tmp_path}", "tracking.wandb=off"])
    ledger.begin_round(3, Phase.EVAL)
    monkeypatch.setattr(retention, "drop_weights", killed)
    with Tracker(ledger.run_dir, config.tracking, {}) as tracker, pytest.raises(KeyboardInterrupt):
        stages.record(make_team(config, ledger, tracker, lambda *_: None, asyncio.Event()), 3)
    assert ledger.phase(3) is Phase.EVAL


def test_a_dropped_version_is_refused_to_eval_in_one_line(ledger: Ledger) -> None:
    write_versions(ledger, last=4)
    drop_weights(ledger, TWO)
    result = CliRunner().invoke(app, ["eval", str(ledger.run_dir), "--weights", "2"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.endswith("weights 2 are no longer kept ([retention]); expected one of [0, 3, 4]")
