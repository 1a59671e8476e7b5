"""Turns of episodes: crowds and repeats are kept from live websites, and those that block are left."""

import asyncio

import pytest

from launch.books import Episode, Purpose
from launch.turns import Turns, spared_host
from policy.manners import PolitenessSettings
from policy.trajectory import Outcome
from proposer.task import Task, Website

LIVE, OTHER = Website(name="live", url="https://a.example/x"), Website(name="other", url="https://b.example/")
SHOP = Website(name="shop", url="practice:shop")


def episode(website: Website, task: int, sample: int = 0) -> Episode:
    made = Task(website=website, instruction=f"Do {task}.", world=None)
    return Episode(f"{website.name}-{task}-{sample}", 1, Purpose.TRAIN, made, sample, 0)


async def begin_all(turns: Turns, count: int, limit_s: float = 0.1) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Ask for so many episodes at once, none of which ends; those that began within the limit, and all who asked."""
    begun: list[str] = []

    async def hold() -> None:
        async with turns.next() as begun_now:
            begun.append(begun_now.id)
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hold()) for _ in range(count)]
    await asyncio.sleep(limit_s)
    return begun, tasks


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_live_host_has_so_many_episodes_at_once_and_others_go_before_those_that_wait() -> None:
    planned = [*(episode(LIVE, n) for n in range(4)), episode(OTHER, 1), *(episode(SHOP, n) for n in range(3))]
    turns = Turns(planned, PolitenessSettings(episodes_per_host=2))
    begun, tasks = await begin_all(turns, len(planned))
    assert begun == ["live-0-0", "live-1-0", "other-1-0", "shop-0-0", "shop-1-0", "shop-2-0"]
    await end(tasks[:1])
    await asyncio.sleep(0.05)
    assert begun[6:] == ["live-2-0"]
    await end(tasks)


@pytest.mark.asyncio
async def test_attempts_at_one_task_on_a_live_website_begin_apart() -> None:
    planned = [episode(website, 1, sample) for website in (LIVE, SHOP) for sample in range(2)]
    turns = Turns(planned, PolitenessSettings(sample_gap_s=0.3))
    begun, tasks = await begin_all(turns, len(planned))
    assert begun == ["live-1-0", "shop-1-0", "shop-1-1"]
    async with asyncio.timeout(5):
        while len(begun) < 4:
            await asyncio.sleep(0.01)
    assert begun[3] == "live-1-1"
    await end(tasks)


def test_a_website_that_blocks_is_left_after_ten_episodes_and_a_practice_website_never() -> None:
    turns = Turns([], PolitenessSettings(max_block_share=0.5))
    live, shop, other = episode(LIVE, 1), episode(SHOP, 1), episode(OTHER, 1)
    for number in range(10):
        assert turns.why_left(live) == ""
        for each in (live, shop):
            turns.note(each, Outcome.BLOCKED if number < 6 else Outcome.FINISHED)
    assert turns.why_left(live).startswith("a.example blocked 6 of 10 episodes")
    assert turns.why_left(shop) == turns.why_left(other) == ""
    for _ in range(2):
        turns.note(live, Outcome.FINISHED)
    assert turns.why_left(live) == ""


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost:8000", "shop.localhost", "[::1]:8080"])
@pytest.mark.asyncio
async def test_websites_of_this_machine_are_spared_only_if_the_settings_say_so(host: str) -> None:
    planned = [episode(Website(name="local", url=f"http://{host}/x"), n) for n in range(2)]
    for on_practice, num_begun in ((False, 2), (True, 1)):
        settings = PolitenessSettings(episodes_per_host=1, on_practice=on_practice)
        assert spared_host(planned[0], settings) == (host if on_practice else "")
        begun, tasks = await begin_all(Turns(planned, settings), len(planned))
        assert len(begun) == num_begun
        await end(tasks)


def test_a_practice_world_is_a_host_of_its_own() -> None:
    assert spared_host(episode(SHOP, 1), PolitenessSettings(on_practice=True)) == ""
