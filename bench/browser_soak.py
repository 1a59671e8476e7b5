"""Does the browser's side of an episode grow? Thousands of episodes in one process, without Ray, driver and books.

One browser, so many episodes at once, whose policy acts out the solutions of gold tasks; this process, Playwright's and
Chromium's are measured every two seconds, as by bench/soak.py, which has the whole program.

    python -m bench.browser_soak --episodes 2000 --seed 0
"""

import asyncio
import itertools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import psutil
import typer

from bench.soak import SAMPLE_S, Sample, lasting_zombies, look, tell
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.trajectory import Outcome
from proposer.task import Website
from rl.demonstrate import demonstrate, practice_website
from sites.catalogue import SITES
from sites.contract import GoldTask, gold_tasks
from sites.server import PracticeServer


def endless_tasks(seed: int) -> Iterator[tuple[Website, GoldTask]]:
    """Gold tasks of all practice sites, world after world, each world's in an order of its own."""
    rng = random.Random(seed)
    for number in itertools.count():
        for name, site in SITES.items():
            tasks = list(gold_tasks(site, f"train-{number}"))
            for task in rng.sample(tasks, len(tasks)):
                yield practice_website(name), task


async def soak(episodes: int, at_once: int, seed: int, folder: Path) -> tuple[list[Sample], int]:
    """Samples while the episodes are under way, and the zombies that last."""
    tasks, num_done = itertools.islice(endless_tasks(seed), episodes), 0
    seen, samples, root = set[psutil.Process](), list[Sample](), psutil.Process()

    async def work(browser: Browser, practice: PracticeServer) -> None:
        nonlocal num_done
        for website, task in tasks:  # shared: each goes to exactly one worker
            record = await demonstrate(task, task.solution, website, task.id, browser=browser, practice=practice)
            assert record.outcome is Outcome.FINISHED, f"{task.id}: {record.outcome} {record.error}"
            num_done += 1

    async def measure() -> None:
        while True:
            samples.append(look(seen, root, num_done))
            await asyncio.sleep(SAMPLE_S)

    with PracticeServer() as practice:
        async with Browser(BrowserSettings(), BlobStore(folder)) as browser:
            measuring = asyncio.create_task(measure())
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(work(browser, practice))
            measuring.cancel()
            return samples, await asyncio.to_thread(lasting_zombies, seen)


def main(
    episodes: Annotated[int, typer.Option(help="How many episodes.", min=50)] = 2000,
    at_once: Annotated[int, typer.Option(help="Episodes at once in the browser.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the order of tasks.", min=0)] = 0,
) -> None:
    """Run many episodes in one browser and tell whether memory, open files or zombies grew."""
    with tempfile.TemporaryDirectory(prefix="pae-soak-") as folder:
        tell(*asyncio.run(soak(episodes, at_once, seed, Path(folder))))


if __name__ == "__main__":
    typer.run(main)
