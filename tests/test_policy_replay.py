"""Replay: a recorded episode done again is the same, and what was changed about it is found where it was changed."""

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from bench.scripted import CONFIG
from evaluator.labels import Label, LabelWriter
from launch import config as configs
from launch import inbox
from launch.books import Phase, Purpose
from launch.cli import app
from launch.ledger import Ledger
from policy.blobs import BlobStore
from policy.browser import Browser
from policy.replay import Difference, changed_facts, replay
from policy.trajectory import Action, ActionKind, Effect, Outcome, Trajectory
from proposer.task import Website
from rl.demonstrate import demonstrate
from sites.catalogue import SITES
from sites.contract import gold_tasks
from sites.server import PracticeServer

SHOP = Website(name="shop", url="practice:shop")
Replay = Callable[[Trajectory], Awaitable[Difference | None]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def recorded(browser: Browser) -> Trajectory:
    """A scripted episode of several steps that changes the world."""
    gold = next(task for task in gold_tasks(SITES["shop"], "train-1") if task.kind == "set_quantity")
    with PracticeServer() as practice:
        record = await demonstrate(gold, gold.solution, SHOP, "1-abc-0", browser=browser, practice=practice)
    assert record.outcome is Outcome.FINISHED and len(record.steps) > 2
    return record


async def again(trajectory: Trajectory, browser: Browser) -> Difference | None:
    with PracticeServer() as practice:
        return await replay(trajectory, browser, practice)


def with_step(trajectory: Trajectory, index: int, **changes: object) -> Trajectory:
    """The record with one step's fields changed."""
    steps = list(trajectory.steps)
    steps[index] = steps[index].model_copy(update=changes)
    return trajectory.model_copy(update={"steps": tuple(steps)})


@pytest.mark.asyncio(loop_scope="session")
async def test_an_episode_done_again_is_the_same(browser: Browser, recorded: Trajectory) -> None:
    assert await again(recorded, browser) is None
    assert changed_facts(recorded, browser.facts) == []


@pytest.mark.asyncio(loop_scope="session")
async def test_what_was_changed_is_found_where_it_was_changed(browser: Browser, recorded: Trajectory) -> None:
    seen = recorded.steps[1].observation
    elsewhere = with_step(recorded, 1, observation=seen.model_copy(update={"url": "http://x.shop.localhost:1/other"}))
    renamed = (seen.elements[0].model_copy(update={"name": "Horn"}), *seen.elements[1:])
    otherwise = with_step(recorded, 1, observation=seen.model_copy(update={"elements": renamed}))
    missed = with_step(recorded, 1, effect=Effect.COVERED)
    worded = with_step(recorded, 1, observation=seen.model_copy(update={"listing": f"{seen.listing}\nSold out"}))
    for changed, what in ((elsewhere, "url"), (otherwise, "elements"), (missed, "effect"), (worded, "listing")):
        found = await again(changed, browser)
        assert found is not None and (found.step, found.what) == (2, what)
    assert "Horn" in str(await again(otherwise, browser))


@pytest.mark.asyncio(loop_scope="session")
async def test_another_action_shows_in_the_step_after_it_and_another_state_at_the_end(
    browser: Browser, recorded: Trajectory
) -> None:
    home = with_step(recorded, 0, action=Action(kind=ActionKind.WAIT))
    found = await again(home, browser)
    assert found is not None and found.step == 2
    assert recorded.final_state is not None
    state = recorded.final_state | {"location": "/elsewhere"}
    found = await again(recorded.model_copy(update={"final_state": state}), browser)
    assert found is not None
    assert (found.step, found.what) == (len(recorded.steps) + 1, "state")
    assert "location = '/elsewhere'" in found.recorded


@pytest.mark.asyncio(loop_scope="session")
async def test_an_episode_that_a_site_ended_ends_so_again(browser: Browser, recorded: Trajectory) -> None:
    website = Website(name="gone", url="http://127.0.0.1:9/")
    task = recorded.task.model_copy(update={"website": website})
    refused = Trajectory(id="t", task=task, steps=(), outcome=Outcome.SITE_ERROR)
    assert await again(refused, browser) is None
    found = await again(refused.model_copy(update={"outcome": Outcome.BLOCKED}), browser)
    assert found is not None and found.what == "outcome"


@pytest.fixture
def folder(tmp_path: Path, recorded: Trajectory, blobs: BlobStore) -> Path:
    """The record as a folder of labelled trajectories."""
    writer = LabelWriter(tmp_path / "labels")
    writer.add(Label(id=recorded.id, site="shop", success=True), recorded)
    writer.copy_pictures(recorded.screenshots, blobs)
    writer.finish()
    return tmp_path / "labels"


def test_the_command_says_that_nothing_differs_or_what(folder: Path) -> None:
    result = CliRunner().invoke(app, ["replay", str(folder), "1-a"])
    assert result.exit_code == 0, result.output
    assert "nothing differs" in result.stdout
    path = folder / "trajectories" / "1-abc-0.json"
    record = json.loads(path.read_text())
    record["steps"][0]["effect"] = "gone"
    path.write_text(json.dumps(record))
    result = CliRunner().invoke(app, ["replay", str(folder), "1-abc-0"])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["error: 1-abc-0: step 1, effect: recorded gone, replayed done"]


def test_an_episode_of_a_run_is_replayed_with_the_runs_own_settings(tmp_path: Path, recorded: Trajectory) -> None:
    run_dir = tmp_path / "runs" / "done"
    (run_dir / inbox.INBOX).mkdir(parents=True)
    settings = [f"run.runs_dir={tmp_path}/runs", "run.name=done", "rollout.browser.page_text=false"]
    with Ledger(run_dir) as ledger:
        ledger.set_meta("config", configs.load(CONFIG, settings).model_dump_json())
        ledger.begin_round(1, Phase.ROLLOUT)
        ledger.plan(1, Purpose.TRAIN, [recorded.task], num_samples=1)
        record = recorded.model_copy(update={"id": ledger.missing_episodes(1, Purpose.TRAIN)[0].id})
        inbox.deliver(run_dir, record)
        inbox.take(run_dir, ledger, record)
    result = CliRunner().invoke(app, ["replay", str(run_dir), "1-"])
    assert result.exit_code == 1, result.output
    assert "step 1, listing: recorded" in result.stderr  # it was recorded with the page's text
    path = run_dir / "trajectories" / f"{record.id}.json"
    os.truncate(path, path.stat().st_size // 2)
    result = CliRunner().invoke(app, ["replay", str(run_dir), "1-"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [f"error: {path}: not the file that was committed"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "1-abc-0.json: not a trajectory: Invalid JSON"),
        (lambda path: path.write_text('{"id": "x"}'), "1-abc-0.json: not a trajectory: Field required"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: shutil.rmtree(path.parents[1]), "no run there"),
        (lambda path: path.parents[1].joinpath("labels.jsonl").unlink(), "not a folder of labelled trajectories"),
        (lambda path: path.parents[1].joinpath("labels.jsonl").write_text("{"), "labels.jsonl:1: line: Invalid JSON"),
        (lambda path: path.parents[1].joinpath("labels.jsonl").write_text(""), "0 of 0 episodes begin with '1-abc-0'"),
    ],
)
def test_what_can_not_be_replayed_is_one_line(folder: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(folder / "trajectories" / "1-abc-0.json")
    result = CliRunner().invoke(app, ["replay", str(folder), "1-abc-0"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert words in line
