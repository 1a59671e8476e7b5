"""Cleaning a run: what nothing refers to goes, and whatever may still be looked at stays."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch import config as configs
from launch import inbox
from launch.books import LedgerError, Purpose, WeightsRow
from launch.clean import MIN_AGE_S, find_waste
from launch.cli import app
from launch.config import Config, RetentionSettings
from launch.ledger import Ledger
from policy.blobs import BlobStore
from rl.manifest import Sample, write_manifest
from tests.makers import manifest_of, observation, step, trajectory

ALL = RetentionSettings(keep_last=99)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a run that was begun."""
    config = configs.load("quickstart", [f"run.runs_dir={tmp_path}", "run.name=one"])
    for name in (inbox.INBOX, inbox.SET_ASIDE, inbox.TRAJECTORIES, "manifests", "weights"):
        (config.run_dir / name).mkdir(parents=True)
    with Ledger(config.run_dir) as ledger:
        ledger.set_meta("config", config.model_dump_json())
    return config


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    with Ledger(config.run_dir) as ledger:
        yield ledger


def put_old_blob(run_dir: Path, data: bytes) -> str:
    """The name of a blob that was stored long ago."""
    store = BlobStore(run_dir / "blobs")
    name = store.put(data)
    age(store.path(name))
    return name


def age(path: Path) -> None:
    long_ago = time.time() - MIN_AGE_S - 60
    os.utime(path, (long_ago, long_ago))


def blobs(run_dir: Path) -> set[str]:
    return {path.name for path in (run_dir / "blobs").rglob("*") if path.is_file()}


def clean(run_dir: Path, *words: str) -> list[str]:
    """The lines that the command prints."""
    result = CliRunner().invoke(app, ["clean", str(run_dir), *words])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_pictures_are_kept_wherever_a_file_still_names_them(config: Config) -> None:
    run_dir = config.run_dir
    names = [put_old_blob(run_dir, bytes([number])) for number in range(7)]
    seen, final, delivered, torn, learned, discarded, looked_at = names
    with Ledger(run_dir) as ledger:
        attempt = trajectory("x", final=observation(screenshot=final))
        attempt = attempt.model_copy(update={"id": f"1-{attempt.task.id}-0", "steps": (step(screenshot=seen),)})
        ledger.plan(1, Purpose.TRAIN, [attempt.task], num_samples=1)
        inbox.deliver(run_dir, attempt)
        inbox.take(run_dir, ledger, attempt)
    inbox.deliver(run_dir, trajectory("orphan", final=observation(screenshot=delivered)))
    inbox.deliver(run_dir, trajectory("retried", final=observation(screenshot=discarded)))
    inbox.discard(run_dir, "retried.json")
    text = trajectory("torn", final=observation(screenshot=torn)).model_dump_json()
    (run_dir / inbox.SET_ASIDE / "torn.json").write_text(text[: text.index(torn) + 64])
    sample = Sample(
        trajectory_id="x", step=0, prompt_ids=(1,), token_ids=(1,), logprobs=(), pictures=(learned,), weights=0
    )
    write_manifest(run_dir / "manifests" / "round-0001.json", manifest_of([sample]))
    assert blobs(run_dir) == set(names)
    assert "pictures that nothing shows: 2 (0.0 MB) removed" in clean(run_dir)
    assert blobs(run_dir) == set(names) - {discarded, looked_at}


def test_a_dry_run_tells_the_same_and_removes_nothing(config: Config) -> None:
    put_old_blob(config.run_dir, b"x" * 2_000_000)
    assert "pictures that nothing shows: 1 (2.0 MB) would be removed" in clean(config.run_dir, "--dry-run")
    assert len(blobs(config.run_dir)) == 1
    assert "pictures that nothing shows: 1 (2.0 MB) removed" in clean(config.run_dir)
    assert blobs(config.run_dir) == set()


def test_what_was_removed_is_in_the_books(config: Config) -> None:
    put_old_blob(config.run_dir, b"x")
    clean(config.run_dir)
    with Ledger.open_readonly(config.run_dir) as books:
        (event,) = books.events()
    assert (event.kind, event.text.split(";")[0]) == ("clean", "removed pictures that nothing shows: 1 (0.0 MB)")


def test_files_that_were_never_finished_go_and_others_stay(config: Config) -> None:
    run_dir = config.run_dir
    unfinished = (".summary.json.7.partial", "inbox/.a.json.7.partial", "blobs/aa/tmpx1", "manifests/round-0001.tmp")
    kept = ("summary.json", "blobs/aa/README", "weights/.v000001.checkpoint", "weights/.v000001.checkpoint.torn")
    for name in (*unfinished, "weights/.v000001.checkpoint.7", *kept):
        path = run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        age(path)
    half = run_dir / "weights" / ".v000001.7"
    half.mkdir()
    (half / "model.safetensors").write_text("x")
    age(half)
    assert "unfinished files: 6 (0.0 MB) removed" in clean(run_dir)
    assert not any((run_dir / name).exists() for name in unfinished)
    assert not half.exists()
    assert all((run_dir / name).exists() for name in kept)


def test_what_a_worker_may_have_written_just_now_stays(config: Config) -> None:
    BlobStore(config.run_dir / "blobs").put(b"just now")
    (config.run_dir / "inbox" / ".a.json.7.partial").write_text("{")
    assert clean(config.run_dir)[:2] == [
        "pictures that nothing shows: 0 (0.0 MB) removed",
        "unfinished files: 0 (0.0 MB) removed",
    ]
    assert len(blobs(config.run_dir)) == 1


def test_weights_that_are_no_longer_kept_go_too(config: Config) -> None:
    with Ledger(config.run_dir) as ledger:
        for version in range(1, 4):
            (config.run_dir / "weights" / f"v{version}").mkdir()
            ledger.commit_weights(WeightsRow(version, version - 1, version, f"weights/v{version}"))
    assert clean(config.run_dir)[2] == "versions of the weights: 1 (0.0 MB) removed"
    assert clean(config.run_dir, "--set", "retention.keep_last=1")[2] == "versions of the weights: 1 (0.0 MB) removed"
    assert [path.name for path in (config.run_dir / "weights").iterdir()] == ["v3"]


def test_a_run_that_somebody_writes_to_is_refused_in_one_line(ledger: Ledger) -> None:
    put_old_blob(ledger.run_dir, b"x")
    result = CliRunner().invoke(app, ["clean", str(ledger.run_dir)])
    assert result.exit_code == 2
    assert "another process is writing to this run" in result.stderr
    assert len(result.stderr.splitlines()) == len(blobs(ledger.run_dir)) == 1


def test_nothing_is_told_apart_while_trajectories_are_missing(ledger: Ledger) -> None:
    attempt = trajectory("x")
    attempt = attempt.model_copy(update={"id": f"1-{attempt.task.id}-0"})
    ledger.plan(1, Purpose.TRAIN, [attempt.task], num_samples=1)
    inbox.deliver(ledger.run_dir, attempt)
    inbox.take(ledger.run_dir, ledger, attempt)
    (ledger.run_dir / inbox.TRAJECTORIES / f"{attempt.id}.json").unlink()
    with pytest.raises(LedgerError, match="1 committed trajectories are missing"):
        find_waste(ledger, ALL)


def test_pictures_outside_the_run_are_never_removed(config: Config, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    put_old_blob(tmp_path / "shared", b"another run's")
    (config.run_dir / "blobs").symlink_to(shared / "blobs")
    clean(config.run_dir)
    assert len(blobs(shared)) == 1
