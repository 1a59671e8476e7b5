"""How near do rollouts come to what browser and model could do alone? The same episodes three times in one process.

Together: gold tasks of the practice sites, as many at once as asked for, in one browser, answered by the model. Model
alone: the prompts that then came up, asked again with as many at once, when the server has forgotten them. Browser
alone: the same episodes, the answers given at once. The bound is the smaller of the two alone.

The model is the starter's policy on a server of its own; with ``--scripted-ms`` a stand-in that acts out the solutions
and takes so long for each reply, so many at once as ``--slots`` says.

- episodes_per_hour: together;
- share_of_bound: that over the bound.

    python -m bench.rollout_throughput --episodes 24 --seed 0
"""

import asyncio
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from launch import config as configs
from policy.agent import AgentSettings, roll_out
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.fleet import Fleet
from proposer.generate import Generate, Prompt, Response, Sampling
from proposer.task import Task
from rl.demonstrate import practice_website, scripted
from sites.catalogue import SITES
from sites.contract import GoldTask, gold_tasks
from sites.server import PracticeServer

Policy = Callable[[GoldTask], Generate]
"""Who attempts a task."""
Forget = Callable[[], Awaitable[None]]
"""Makes a model forget what it has cached of prompts."""


@dataclass(slots=True)
class Script:
    """What was asked and answered in one episode."""

    gold: GoldTask
    asked: list[tuple[Prompt, Sampling]] = field(default_factory=list)
    answered: list[Response] = field(default_factory=list)

    def noting(self, generate: Generate) -> Generate:
        """The same model, noted."""

        async def note(prompt: Prompt, sampling: Sampling) -> Response:
            response = await generate(prompt, sampling)
            self.asked.append((prompt, sampling))
            self.answered.append(response)
            return response

        return note

    def repeating(self) -> Generate:
        """What was answered, at once; "Wait" should the episode go on for longer."""
        said = iter(self.answered)

        async def repeat(prompt: Prompt, sampling: Sampling) -> Response:
            return next(said, Response("Action: Wait"))

        return repeat


async def each(scripts: Sequence[Script], do: Callable[[Script], Awaitable[object]], at_once: int) -> float:
    """Seconds to do something with each episode, so many at once."""
    queue = iter(scripts)

    async def work() -> None:
        for script in queue:  # shared: each goes to exactly one worker
            await do(script)

    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return time.monotonic() - started


@asynccontextmanager
async def starter_policy(folder: Path) -> AsyncIterator[tuple[Policy, Forget]]:
    """The starter's policy behind a model server."""
    config = configs.load("quickstart")
    fleet = Fleet(config.serving, config.model.directory("policy").resolve(), folder / "policy.log")
    async with fleet:
        generate = fleet.generate()
        yield lambda gold: generate, fleet.rest


@asynccontextmanager
async def slow_script(reply_ms: float, slots: int) -> AsyncIterator[tuple[Policy, Forget]]:
    """Solutions, each reply of which takes its time."""
    free = asyncio.Semaphore(slots)

    def policy(gold: GoldTask) -> Generate:
        solve = scripted(gold.solution)

        async def generate(prompt: Prompt, sampling: Sampling) -> Response:
            async with free:
                await asyncio.sleep(reply_ms / 1000)
            return await solve(prompt, sampling)

        return generate

    async def forget() -> None:
        pass

    yield policy, forget


async def measure(
    scripts: Sequence[Script], policy: Policy, forget: Forget, at_once: int, folder: Path
) -> dict[str, float]:
    """Seconds of all episodes: together, model alone, browser alone."""
    agent = AgentSettings(max_steps=configs.load("quickstart").rollout.agent.max_steps)
    async with Browser(BrowserSettings(), BlobStore(folder / "blobs")) as browser:
        with PracticeServer() as practice:

            async def attempt(script: Script, generate: Generate) -> None:
                site, world, _ = script.gold.id.split("/")
                task = Task(website=practice_website(site), instruction=script.gold.instruction, world=world)
                record = await roll_out(
                    task,
                    "t",
                    browser=browser,
                    practice=practice,
                    generate=generate,
                    settings=agent,
                    sampling=Sampling(),
                )
                assert record.outcome.is_agents, f"{record.outcome}: {record.error}"

            async def ask_again(script: Script) -> None:
                ask = policy(script.gold)
                for prompt, sampling in script.asked:
                    await ask(prompt, sampling)

            warm = Script(scripts[0].gold)
            await attempt(warm, policy(warm.gold))
            together_s = await each(scripts, lambda one: attempt(one, one.noting(policy(one.gold))), at_once)
            browser_s = await each(scripts, lambda one: attempt(one, one.repeating()), at_once)
            await forget()
            model_s = await each(scripts, ask_again, at_once)
    return {"together": together_s, "browser": browser_s, "model": model_s}


async def run(golds: Sequence[GoldTask], at_once: int, reply_ms: float | None, slots: int) -> dict[str, float]:
    """The figures."""
    scripts = [Script(gold) for gold in golds]
    with tempfile.TemporaryDirectory(prefix="pae-throughput-") as directory:
        folder = Path(directory)
        model = starter_policy(folder) if reply_ms is None else slow_script(reply_ms, slots)
        async with model as (policy, forget):
            seconds = await measure(scripts, policy, forget, at_once, folder)
    for name, taken_s in seconds.items():
        print(f"{name}: {3600 * len(golds) / taken_s:.0f} episodes per hour")
    bound_s = max(seconds["browser"], seconds["model"])
    return {
        "episodes_per_hour": 3600 * len(golds) / seconds["together"],
        "share_of_bound": bound_s / seconds["together"],
    }


def main(
    episodes: Annotated[int, typer.Option(help="How many.", min=2)] = 24,
    at_once: Annotated[int | None, typer.Option(help="Episodes at once; default: the quickstart's.", min=1)] = None,
    scripted_ms: Annotated[float | None, typer.Option(help="A stand-in for the model: time of a reply.")] = None,
    slots: Annotated[int, typer.Option(help="Replies at once of the stand-in.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Of the choice of tasks.", min=0)] = 0,
) -> None:
    """Attempt the same tasks together, with the browser alone and with the model alone."""
    golds = [gold for number in range(8) for site in SITES.values() for gold in gold_tasks(site, f"train-{number}")]
    chosen = random.Random(seed).sample(golds, min(episodes, len(golds)))
    num_at_once = at_once or configs.load("quickstart").rollout.episodes_per_actor
    print(json.dumps(asyncio.run(run(chosen, num_at_once, scripted_ms, slots))))


if __name__ == "__main__":
    typer.run(main)
