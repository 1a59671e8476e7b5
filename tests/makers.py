"""Records for tests, built from the real types."""

import io
from collections.abc import Sequence
from typing import Literal

from PIL import Image

from policy.trajectory import Action, ActionKind, Element, Observation, Outcome, Step, Trajectory
from proposer.task import Task, Website
from rl.manifest import Attempt, Manifest, Sample

SHOP = Website(name="shop", url="practice:shop", description="A shop.")


def picture(colour: str = "white") -> bytes:
    """A small screenshot."""
    out = io.BytesIO()
    Image.new("RGB", (320, 200), colour).save(out, "JPEG")
    return out.getvalue()


def observation(listing: str = "<a> Copper Kettle [1]  $12.50", screenshot: str = "0" * 64) -> Observation:
    """A page with one link."""
    link = Element(mark=1, tag="a", name="Copper Kettle", box=(0, 0, 10, 10))
    return Observation(url="http://shop.test/", title="Shop", elements=(link,), listing=listing, screenshot=screenshot)


def step(token: int = 1, action: Action | None = None, screenshot: str = "0" * 64) -> Step:
    """A step whose one sampled token is `token`."""
    return Step(
        observation=observation(screenshot=screenshot),
        response="Thought: x\nAction: Click [1]",
        thought="x",
        action=action or Action(kind=ActionKind.CLICK, mark=1),
        prompt_ids=(5, 6),
        token_ids=(token,),
        logprobs=(-0.5,),
        weights=0,
    )


def manifest_of(samples: Sequence[Sample], **rewards: Literal[0, 1]) -> Manifest:
    """A manifest of round 1: trajectories with a reward are one group, each other one is a success by itself."""
    names = sorted({sample.trajectory_id for sample in samples} | rewards.keys())
    attempts = [
        Attempt(trajectory_id=name, group="g" if name in rewards else name, reward=rewards.get(name, 1))
        for name in names
    ]
    return Manifest(round=1, samples=tuple(samples), attempts=tuple(attempts))


def trajectory(
    name: str,
    task: str = "Buy the Copper Kettle.",
    steps: int = 1,
    outcome: Outcome = Outcome.FINISHED,
    answer: str | None = "done",
    **changes: object,
) -> Trajectory:
    """A trajectory of `steps` steps that differ from those of every other name."""
    first = sum(name.encode()) * 100
    record = Trajectory(
        id=name,
        task=Task(website=SHOP, instruction=task, world="train-1"),
        steps=tuple(step(first + number) for number in range(steps)),
        outcome=outcome,
        answer=answer,
        final=observation(),
    )
    return record.model_copy(update=changes)
