"""Do learner and server agree on the same tokens and pictures, before and after a weight sync?

Serves the starter's policy with the quickstart's settings, lets it act on held-out shop worlds (real pages and
pictures, temperature 1), scores the very tokens that were sampled with the learner's model, trains one update on them,
publishes the new weights to the running server, and samples and compares again: the learner's log-probs under the new
weights against those that the reloaded server gave. As a control the line before the last scores the same tokens under
the old weights, which must fit worse. The learner leaves embeddings (and the head tied to them) alone, so that a reload
also replaces a changed head is not seen here but in tests/test_policy_server.py.

    python -m bench.logprob_parity --seed 0
"""

import asyncio
import json
import random
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bench.common import ROOT
from launch.config import Config, load
from launch.stages import measured_tasks
from policy.agent import roll_out
from policy.blobs import BlobStore
from policy.browser import Browser
from policy.fleet import Fleet
from policy.trajectory import Trajectory
from proposer.generate import Sampling
from rl.learner import PARITY_SAMPLES, measure_parity, update
from rl.manifest import Attempt, Manifest, Sample, write_manifest
from rl.model import load_model
from sites.server import PracticeServer

STEPS_PER_EPISODE = 2
"""Steps counted on from an episode when deciding how many to begin; most have more."""


async def sample(fleet: Fleet, browser: Browser, config: Config, steps: int) -> tuple[Sample, ...]:
    """Steps that the served weights sampled on held-out shop worlds, good or bad, drawn from all episodes."""
    seed = config.run.seed
    shop = [website for website in config.websites_of("train") if website.practice_site == "shop"]
    tasks = measured_tasks(shop, -(-steps // STEPS_PER_EPISODE), first_world=seed)
    with PracticeServer() as practice:
        attempts = (
            roll_out(
                task,
                f"{fleet.version}-{number}",
                browser=browser,
                practice=practice,
                generate=fleet.generate(),
                settings=config.rollout.agent,
                sampling=Sampling(config.rollout.agent.temperature, seed=seed + number),
            )
            for number, task in enumerate(tasks)
        )
        found = [step for record in await asyncio.gather(*attempts) for step in samples(record)]
    return tuple(random.Random(seed).sample(found, min(steps, len(found))))


def samples(record: Trajectory) -> list[Sample]:
    """Every step of an episode as the learner takes it."""
    return [
        Sample(
            trajectory_id=record.id,
            step=index,
            pictures=(step.observation.screenshot,) if step.pictured else (),
            **step.model_dump(include={"prompt_ids", "token_ids", "logprobs", "temperature", "weights"}),
        )
        for index, step in enumerate(record.steps)
    ]


async def compare(model: Path, work: Path, seed: int, steps: int) -> dict[str, object]:
    """The figures."""
    config = load("quickstart", [f"run.seed={seed}", f"learner.seed={seed}"])
    manifest, new, blobs = work / "manifests" / "1.json", work / "v1", BlobStore(work / "blobs")

    def parity(weights: Path, found: tuple[Sample, ...]) -> dict[str, float]:
        return measure_parity(load_model(weights, config.learner), found, blobs, config.learner)

    async with (
        Fleet(config.serving, model, work / "policy.log") as fleet,
        Browser(config.rollout.browser, blobs) as browser,
    ):
        await fleet.publish(0, model)
        first = await sample(fleet, browser, config, steps)
        before = parity(model, first)
        episodes = sorted({step.trajectory_id for step in first})
        successes = tuple(Attempt(trajectory_id=name, group=name, reward=1) for name in episodes)
        write_manifest(manifest, Manifest(round=1, samples=first, attempts=successes))
        update(manifest, model, new, settings=config.learner)
        await fleet.publish(1, new)
        second = await sample(fleet, browser, config, steps)
    after, control = parity(new, second), parity(model, second)
    print(json.dumps({"before_sync": before, "after_sync": after, "after_sync_under_old_weights": control}))
    return {
        "mean_abs_diff": after["learn/logprob_mean_abs_diff"],
        "max_abs_diff": after["learn/logprob_max_abs_diff"],
        "n_tokens": int(after["learn/parity_tokens"]),
        "with_images": all(step.pictures for step in (*first, *second)),
        "mismatch_kl": after["learn/mismatch_kl"],
        "before_sync_mean_abs_diff": before["learn/logprob_mean_abs_diff"],
    }


def main(
    seed: Annotated[int, typer.Option(help="Of the worlds, the sampling and the update.", min=0)] = 0,
    steps: Annotated[int, typer.Option(help="Sampled steps to compare.", min=1, max=PARITY_SAMPLES)] = PARITY_SAMPLES,
    model: Annotated[Path, typer.Option(help="Policy weights to start from.")] = ROOT / "starter" / "policy",
) -> None:
    """Compare the learner's log-probs with the server's for the same sampled tokens, before and after a weight sync."""
    if not (model / "config.json").is_file():
        raise typer.BadParameter(f"{model}: expected a Hugging Face directory", param_hint="--model")
    with tempfile.TemporaryDirectory(prefix="pae-parity-") as work:
        print(json.dumps(asyncio.run(compare(model.resolve(), Path(work), seed, steps))))


if __name__ == "__main__":
    typer.run(main)
