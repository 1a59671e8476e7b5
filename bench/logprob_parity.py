"""Do learner and server agree on the same tokens and pictures, before and after a weight sync?

Serves the starter's policy, lets it act on held-out shop worlds (real pages and pictures, temperature 1), scores the
very tokens that were sampled with the learner's model, trains one update on them, publishes the new weights to the
running server, and compares again: the learner's log-probs of the new weights against those the reloaded server gives.

    python -m bench.logprob_parity --seed 0
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bench.common import ROOT
from policy.agent import AgentSettings, roll_out
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.server import ModelServer, ServerSettings
from policy.trajectory import Trajectory
from proposer.generate import Sampling
from proposer.task import Task, Website
from rl.learner import LearnerSettings, measure_parity, update
from rl.model import load_model
from rl.selection import Sample, Selection, write_manifest
from sites.catalogue import SITES
from sites.contract import gold_tasks
from sites.server import PracticeServer

SHOP = Website(name="shop", url="practice:shop")


async def attempts(server: ModelServer, browser: Browser, count: int, seed: int) -> list[Trajectory]:
    """Sampled attempts at the gold tasks of a held-out world."""
    world = f"heldout-{seed}"
    tasks = [
        Task(website=SHOP, instruction=gold.instruction, world=world, source="gold", gold_id=gold.id)
        for gold in gold_tasks(SITES["shop"], world)[:count]
    ]
    generate = server.generate()
    with PracticeServer() as practice:
        return await asyncio.gather(
            *(
                roll_out(
                    task,
                    f"{server.version}-{number}",
                    browser=browser,
                    practice=practice,
                    generate=generate,
                    settings=AgentSettings(max_steps=4),
                    sampling=Sampling(temperature=1.0, seed=seed + number),
                )
                for number, task in enumerate(tasks)
            )
        )


def samples(records: list[Trajectory]) -> tuple[Sample, ...]:
    """Every step that was sampled, good or bad."""
    return tuple(
        Sample(
            trajectory_id=record.id,
            step=index,
            prompt_ids=step.prompt_ids,
            token_ids=step.token_ids,
            logprobs=step.logprobs,
            pictures=(step.observation.screenshot,),
            weights=step.weights,
        )
        for record in records
        for index, step in enumerate(record.steps)
    )


async def compare(model: Path, work: Path, episodes: int, seed: int) -> dict[str, dict[str, float]]:
    """Parity before and after a sync."""
    settings, blobs = LearnerSettings(seed=seed), BlobStore(work / "blobs")
    async with (
        ModelServer(ServerSettings(), model, work / "vllm.log") as server,
        Browser(BrowserSettings(), blobs) as browser,
    ):
        server.version = 0
        first = samples(await attempts(server, browser, episodes, seed))
        before = measure_parity(load_model(model, settings), first, blobs, settings)
        write_manifest(work / "manifests" / "m.json", Selection(first, {}), round=1)
        update(work / "manifests" / "m.json", model, work / "v000001", settings=settings)
        await server.publish(1, work / "v000001")
        second = samples(await attempts(server, browser, episodes, seed))
        after = measure_parity(load_model(work / "v000001", settings), second, blobs, settings)
        stale = measure_parity(load_model(model, settings), second, blobs, settings)
    return {"before": before, "after": after, "stale": stale}


def main(
    seed: Annotated[int, typer.Option(help="Of the worlds, the sampling and the update.")] = 0,
    model: Annotated[Path, typer.Option(help="Policy weights to start from.")] = ROOT / "starter" / "policy",
    episodes: Annotated[int, typer.Option(help="Episodes sampled before and after.")] = 12,
) -> None:
    """Compare the learner's log-probs with the server's for the same sampled tokens, before and after a weight sync."""
    with tempfile.TemporaryDirectory() as work:
        found = asyncio.run(compare(model.resolve(), Path(work), episodes, seed))
    print(json.dumps(found, indent=2))
    after = found["after"]
    figures = {
        "mean_abs_diff": after["learn/logprob_mean_abs_diff"],
        "max_abs_diff": after["learn/logprob_max_abs_diff"],
        "n_tokens": int(after["learn/parity_tokens"]),
        "with_images": True,
        "mismatch_kl": after["learn/mismatch_kl"],
        "before_sync_mean_abs_diff": found["before"]["learn/logprob_mean_abs_diff"],
        "old_weights_mean_abs_diff": found["stale"]["learn/logprob_mean_abs_diff"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
