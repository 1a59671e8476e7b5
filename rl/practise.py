"""A model's own attempts at gold tasks of training worlds: what the judge is taught to tell apart.

Scripted failures are not the failures of a policy, which answers confidently from the wrong page or stops a step early.
Here a policy acts, ground truth says how it went, and rl/lessons.py makes lessons of it.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from policy.agent import AgentSettings, roll_out
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.fleet import Fleet
from policy.server_settings import ServerSettings
from policy.trajectory import Trajectory
from proposer.generate import Sampling
from proposer.task import Task
from rl.demonstrate import Act, practice_website, record
from sites.contract import GoldTask
from sites.server import PracticeServer

EPISODES_AT_ONCE = 8
SETTINGS = AgentSettings(max_steps=7, max_tokens=64)


async def practise(
    model: Path, folder: Path, blobs: BlobStore, golds: Sequence[GoldTask], temperature: float
) -> list[Trajectory]:
    """One attempt of a model at each of these gold tasks, kept as JSON files in `folder`."""

    @contextlib.asynccontextmanager
    async def stage() -> AsyncIterator[Act[GoldTask]]:
        fleet = Fleet(ServerSettings(), model, folder.parent / "vllm.log")
        with PracticeServer() as practice:
            async with fleet, Browser(BrowserSettings(), blobs) as browser:
                generate = fleet.generate()

                async def act(gold: GoldTask) -> Trajectory:
                    return await roll_out(
                        _task(gold),
                        _name(gold),
                        browser=browser,
                        practice=practice,
                        generate=generate,
                        settings=SETTINGS,
                        sampling=Sampling(temperature, SETTINGS.max_tokens),
                    )

                yield act

    return await record(folder, {_name(gold): gold for gold in golds}, stage(), EPISODES_AT_ONCE)


def _name(gold: GoldTask) -> str:
    return gold.id.replace("/", "_")


def _task(gold: GoldTask) -> Task:
    site, world, _ = gold.id.split("/")
    return Task(
        website=practice_website(site), instruction=gold.instruction, world=world, source="gold", gold_id=gold.id
    )
