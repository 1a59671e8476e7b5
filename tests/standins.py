"""A whole run without processes: real books, stages and rounds; workers, learner and models answer by a hash.

What they answer depends on what they are asked alone, so two runs of one config end alike, in less than a second.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from bench.scripted import ROLES, Call, wander
from evaluator.truth import gold_task
from launch import config as configs
from launch import inbox
from launch.books import Phase, WeightsRow
from launch.config import Config
from launch.ledger import Ledger
from launch.rounds import run_rounds
from launch.team import make_team
from launch.tracking import Tracker
from launch.workers import Order, Workers
from policy.blobs import BlobStore
from policy.fleet import Fleet
from policy.server_settings import ServerSettings
from policy.trajectory import Outcome
from proposer.generate import Generate, Prompt, Response, Sampling
from proposer.look import Look
from proposer.task import Website
from rl.learner import LearnerSettings
from tests.makers import picture, step, trajectory

ROUNDS = 2
TURNS_OF_TRAINING = 12
"""Of the event loop: so many that what overlaps with training is under way when it ends."""
SYNCHRONOUS: dict[str, object] = {"run.rounds": ROUNDS}
OVERLAPPED: dict[str, object] = {"run.overlap": "true", "run.rounds": ROUNDS + 1, "endpoints.take_turns": "false"}


def number_of(*parts: object) -> int:
    return hashlib.sha256(json.dumps([*map(str, parts)]).encode()).digest()[0]


class Hands:
    """In the place of Ray: looks, episodes and updates that depend on what they are about, and on nothing else."""

    num_slots = 3

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    async def look(self, website: Website, world: str | None, num_pages: int, seed: int) -> list[Look]:
        return [Look("http://shop.test/", "Shop", f"World {world}", "<a> Home [1]", b"")]

    async def run(self, order: Order) -> str:
        await asyncio.sleep(0)  # so that a crash ends what is beside it, too
        number = number_of(order.trajectory_id)
        gold = gold_task(order.task.gold_id).goal if order.task.gold_id else None
        is_right = number_of(order.trajectory_id, "truth") % 2
        outcome = (Outcome.FINISHED, Outcome.FINISHED, Outcome.STUCK, Outcome.SITE_ERROR)[number % 4]
        screenshot = BlobStore(self.run_dir / "blobs").put(picture())
        answer = gold.answers[0] if gold and gold.answers and is_right else "blue"
        state = {"location": "/"} | gold.state if gold and is_right else {}
        steps = tuple(
            step(number * 10 + index, screenshot=screenshot).model_copy(update={"weights": order.weights})
            for index in range(1 + number % 3)
        )
        final = steps[-1].observation
        return inbox.deliver(
            self.run_dir,
            trajectory(order.trajectory_id, task="-", outcome=outcome, answer=answer, final=final).model_copy(
                update={"task": order.task, "steps": steps, "final_state": state}
            ),
        )

    async def learn(
        self, manifest: Path, parent: Path, out: Path, starter: Path, sampler: Path, settings: LearnerSettings
    ) -> dict[str, float]:
        for _ in range(TURNS_OF_TRAINING):
            await asyncio.sleep(0)
        sha256 = hashlib.sha256(manifest.read_bytes() + parent.name.encode()).hexdigest()
        inbox.write_atomic(
            out / "COMMIT.json", json.dumps({"files": {"model": sha256, "seed": settings.seed}}).encode()
        )
        return {"learn/loss": 1.0}


class Servers(Fleet):
    """In the place of vLLM: at an address where nobody listens, and nobody asks."""

    def __init__(self) -> None:
        super().__init__(ServerSettings(base_urls=("http://127.0.0.1:9",)), Path("/nowhere"), Path("/nowhere.log"))

    async def publish(self, version: int | None, weights: Path) -> None:
        self.version = version


async def answer(prompt: Prompt, sampling: Sampling) -> Response:
    text = " ".join(part for part in prompt.parts if isinstance(part, str))
    return Response(cast(str, wander(Call(ROLES[prompt.system], text, 0, sampling.seed))))


def load(directory: Path, way: Mapping[str, object] = SYNCHRONOUS) -> Config:
    changes = {"run.runs_dir": directory, "run.name": "run", "rollout.tasks_per_round": 7, **way}
    changes |= {"evaluation.num_tasks": 0, "evaluation.unseen_num_tasks": 0, "judge.checked": "false"}
    changes |= {"canaries.per_round": 4, "canaries.max_fooled": 1, "selection.same_answer": "false"}
    changes |= {
        "audit.share": 0.4,
        "audit.max_fpr": 1,
        "audit.correct": "true",
        "audit.thoughts_per_round": 3,
        "promotion.num_tasks": 6,
        "promotion.level": 0.5,
    }
    changes |= {"proposer.grounded": "false", "proposer.max_per_opening": 9, "run.stop_free_disk_gb": 0}
    return configs.load("quickstart", [*(f"{key}={value}" for key, value in changes.items()), "tracking.wandb=off"])


def start(
    config: Config,
    stop_at: tuple[int, Phase] | None = None,
    *,
    judge: Generate = answer,
    servers: Callable[[], Servers] = Servers,
) -> None:
    """What the program does from its start to its end, to a crash, or to being asked to stop in a round's phase."""
    stop = asyncio.Event()

    def watch(k: int, phase: Phase, done: int, wanted: int) -> None:
        if (k, phase) == stop_at and done:
            stop.set()

    config.run_dir.mkdir(exist_ok=True)
    for name in (inbox.INBOX, inbox.TRAJECTORIES, "manifests", "weights"):
        (config.run_dir / name).mkdir(exist_ok=True)
    starter = config.run_dir.with_name("starter")
    starter.mkdir(exist_ok=True)
    with Ledger(config.run_dir) as ledger, Tracker(config.run_dir, config.tracking, {}) as tracker:
        ledger.set_meta("config", config.model_dump_json())
        ledger.commit_weights(WeightsRow(0, None, -1, str(starter)))
        inbox.take_orphans(config.run_dir, ledger)
        team = make_team(config, ledger, tracker, watch, stop)
        team.workers, team.fleet = cast(Workers, Hands(config.run_dir)), servers()
        team.models = {"judge": judge, "proposer": answer}
        asyncio.run(run_rounds(team))
