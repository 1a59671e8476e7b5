"""Rollout actors that die: real Ray, real Chromium."""

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch import config as configs
from launch.storage import SharedDirectory
from launch.workers import PACE, RolloutActor, Workers
from proposer.task import Website

SHOP = Website(name="shop", url="practice:shop")
START_S = 6.0
"""Longer than the two seconds for which Ray holds back what is asked of an actor that is being started again."""


class SlowToStart(RolloutActor):
    """A rollout actor on a machine where a process needs long to start."""

    def __init__(self, *settings: Any) -> None:
        time.sleep(START_S)
        super().__init__(*settings)


def process_of_actor() -> psutil.Process:
    (actor,) = (each for each in psutil.process_iter(["name"]) if each.info["name"].startswith("ray::SlowTo"))
    return actor


@pytest.mark.asyncio
async def test_what_is_ordered_while_an_actor_is_started_again_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.workers.RolloutActor", SlowToStart)
    config = configs.load("quickstart", ["rollout.num_actors=1"])
    async with Workers(SharedDirectory(tmp_path), config.rollout, config.cluster) as workers:
        assert await workers.look(SHOP, "train-1", 1, 0)
        before = process_of_actor()
        before.kill()
        before.wait(10)
        killed_at = time.monotonic()
        assert await workers.look(SHOP, "train-1", 1, 0)
        assert time.monotonic() - killed_at > START_S
        assert process_of_actor().pid != before.pid


@pytest.mark.asyncio
async def test_actors_ask_for_their_turn_even_if_who_keeps_the_pace_was_started_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    config = configs.load("quickstart", ["rollout.num_actors=1", "rollout.browser.politeness.on_practice=true"])
    async with Workers(SharedDirectory(tmp_path), config.rollout, config.cluster) as workers:
        assert await workers.look(SHOP, "train-1", 1, 0)
        ray.kill(ray.get_actor(PACE), no_restart=False)
        assert await workers.look(SHOP, "train-1", 1, 0)
    assert "the actor restart will fail" not in capfd.readouterr().err
