"""Random crashes through the phases of real rounds with real books: however a run is broken, it ends alike.

Workers, learner and models are stand-ins that answer by a hash of what they are asked, so hundreds of crashes take
seconds; bench/chaos.py does the same with real ones and real kills. A crash here is an exception that nothing catches.
"""

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policy.crash
from bench.chaos import POINTS
from bench.scripted import ROLES, Call, wander
from evaluator.truth import gold_task
from launch import config as configs
from launch import inbox
from launch.books import Phase, Purpose, WeightsRow
from launch.config import Config
from launch.digest import digest
from launch.errors import Stopped
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
from rl.manifest import read_manifest
from tests.makers import picture, step, trajectory

REACHED = sorted(point for point in POINTS if not point.startswith(("learn:", "publish:", "worker:")))
"""The driver's points; the others are in processes that have stand-ins here."""
ROUNDS = 2
TURNS_OF_TRAINING = 12
"""Of the event loop: so many that what overlaps with training is under way when it ends."""
SYNCHRONOUS: dict[str, object] = {"run.rounds": ROUNDS}
OVERLAPPED: dict[str, object] = {"run.overlap": "true", "run.rounds": ROUNDS + 1, "endpoints.take_turns": "false"}
AHEAD = (
    *("propose:proposed#3", "propose:committed#4", "rollout:leased#17", "rollout:moved#20", "rollout:committed#24"),
    *("train:learned", "ahead:practised", "ahead:joined"),
)
"""Where round 2 is practised while round 1 trains: their first passages are round 1's own."""


class Crash(BaseException):
    """The process has died."""


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
        "audit.correct": "true",
        "audit.thoughts_per_round": 3,
        "promotion.num_tasks": 6,
        "promotion.level": 0.5,
    }
    changes |= {"proposer.grounded": "false", "proposer.max_per_opening": 9, "run.stop_free_disk_gb": 0}
    return configs.load("quickstart", [*(f"{key}={value}" for key, value in changes.items()), "tracking.wandb=off"])


@contextmanager
def crashing(at: str | None) -> Iterator[None]:
    """Crash at a point in the way that processes do, as far as the books can tell."""

    def die() -> None:
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy.crash, "die", die)
        policy.crash._reached.clear()
        if at is not None:
            patch.setitem(os.environ, policy.crash.VARIABLE, at)
        yield


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
    with Ledger(config.run_dir) as ledger, Tracker(config.run_dir, config.tracking, {}) as tracker:
        ledger.commit_weights(WeightsRow(0, None, -1, "/nowhere/starter"))
        inbox.take_orphans(config.run_dir, ledger)
        team = make_team(config, ledger, tracker, watch, stop)
        team.workers, team.fleet = cast(Workers, Hands(config.run_dir)), servers()
        team.models = {"judge": judge, "proposer": answer}
        asyncio.run(run_rounds(team))


def run_with(crashes: Sequence[str], way: Mapping[str, object] = SYNCHRONOUS) -> dict[str, str]:
    """The digest of a run with these crashes, one for each start until they are spent or the run is done."""
    with tempfile.TemporaryDirectory() as directory:
        config = load(Path(directory), way)
        for at in (*crashes, None):
            try:
                with crashing(at):
                    start(config)
            except Crash:
                continue
            break
        with Ledger.open_readonly(config.run_dir) as books:
            for k in range(1, config.run.rounds + 1):
                assert sum(books.outcomes(k, (Purpose.TRAIN,)).values()) == books.num_episodes(k, Purpose.TRAIN) > 0
            assert not list((config.run_dir / inbox.INBOX).iterdir())
            return digest(books)


@pytest.fixture(scope="module")
def unbroken() -> dict[str, str]:
    return run_with([])


def test_an_unbroken_run_learns_in_every_round(tmp_path: Path) -> None:
    start(load(tmp_path))
    with Ledger.open_readonly(tmp_path / "run") as books:
        assert [row.version for row in books.weights()] == [0, 1, 2]
        assert [row.promoted for row in books.gates()] == [True, False]
        assert {row.judgement for row in books.trajectories()} > {None}
        assert {row.truth for row in books.trajectories(purpose=Purpose.AUDIT)} >= {True, False}
        attempts = read_manifest(tmp_path / "run" / "manifests" / "round-0001.json").attempts
        assert any(attempt.corrected not in (0, 1) for attempt in attempts)


@pytest.mark.parametrize("point", REACHED)
def test_a_crash_at_each_point_is_reached_and_changes_nothing(unbroken: dict[str, str], point: str) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.raises(Crash), crashing(point):
        start(load(Path(directory)))
    assert run_with([point]) == unbroken


CRASHES = st.lists(st.builds("{}#{}".format, st.sampled_from(REACHED), st.integers(1, 9)), min_size=2, max_size=7)


@settings(max_examples=15, deadline=None)
@given(crashes=CRASHES)
def test_however_often_it_crashes_the_run_ends_as_the_unbroken_one(
    unbroken: dict[str, str], crashes: list[str]
) -> None:
    assert run_with(crashes) == unbroken


@pytest.fixture(scope="module")
def overlapped() -> dict[str, str]:
    return run_with([], OVERLAPPED)


def test_overlapped_rounds_learn_from_weights_one_version_older_unless_those_of_before_were_refused(
    tmp_path: Path,
) -> None:
    start(load(tmp_path, OVERLAPPED))
    with Ledger.open_readonly(tmp_path / "run") as books:
        assert [row.promoted for row in books.gates()] == [True, False, True]
        sampled = {
            k: {books.load(row).weights for row in books.trajectories(k, Purpose.TRAIN) if row.num_steps}
            for k in (1, 2, 3)
        }
        assert sampled == {1: {0}, 2: {0}, 3: {1}}  # version 2 was refused, so round 3 trains what sampled it
        assert [row.parent for row in books.weights()] == [None, 0, 1, 1]
        manifests = [read_manifest(tmp_path / "run" / "manifests" / f"round-000{k}.json") for k in (1, 2, 3)]
        assert [manifest.staleness for manifest in manifests] == [0, 1, 0]
        assert [books.metrics(k)["learn/max_staleness"] for k in (1, 2, 3)] == [0, 1, 0]
        assert [books.metrics(k)["learn/dropped_as_stale"] for k in (1, 2, 3)] == [0, 0, 0]
        assert ["time/hidden" in books.metrics(k) for k in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize("point", AHEAD)
def test_a_crash_while_a_round_trains_and_the_next_is_practised_changes_nothing(
    overlapped: dict[str, str], point: str
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        config = load(Path(directory), OVERLAPPED)
        with pytest.raises(Crash), crashing(point):
            start(config)
        with Ledger.open_readonly(config.run_dir) as books:
            assert books.phase(1) is Phase.TRAIN
            assert books.phase(2) in (Phase.PROPOSE, Phase.ROLLOUT)
            assert [row.version for row in books.weights()] in ([0], [0, 1])
        start(config)
        with Ledger.open_readonly(config.run_dir) as books:
            assert digest(books) == overlapped


def test_no_judgement_of_what_is_practised_ahead_is_under_way_when_other_weights_are_served(tmp_path: Path) -> None:
    under_way, beside = 0, list[int]()

    async def deliberate(prompt: Prompt, sampling: Sampling) -> Response:
        nonlocal under_way
        under_way += 1
        for _ in range(10 * TURNS_OF_TRAINING):
            await asyncio.sleep(0)
        under_way -= 1
        return await answer(prompt, sampling)

    class Watched(Servers):
        async def publish(self, version: int | None, weights: Path) -> None:
            beside.append(under_way)
            await super().publish(version, weights)

    start(load(tmp_path, OVERLAPPED), judge=deliberate, servers=Watched)
    assert len(beside) > ROUNDS and not any(beside)


def test_asked_to_stop_while_rounds_overlap_training_ends_first(overlapped: dict[str, str], tmp_path: Path) -> None:
    config = load(tmp_path, OVERLAPPED)
    with pytest.raises(Stopped):
        start(config, (2, Phase.ROLLOUT))
    with Ledger.open_readonly(config.run_dir) as books:
        assert books.phase(1) is Phase.TRAIN
        assert [row.version for row in books.weights()] == [0, 1]
        assert 0 < len(books.trajectories(2)) < sum(books.num_episodes(2, purpose) for purpose in Purpose)
    start(config)
    with Ledger.open_readonly(config.run_dir) as books:
        assert digest(books) == overlapped


@settings(max_examples=8, deadline=None)
@given(crashes=CRASHES)
def test_however_often_an_overlapped_run_crashes_it_ends_as_the_unbroken_one(
    overlapped: dict[str, str], crashes: list[str]
) -> None:
    assert run_with(crashes, OVERLAPPED) == overlapped


def test_what_is_staler_than_the_config_allows_is_dropped_and_counted(tmp_path: Path) -> None:
    config = load(tmp_path, OVERLAPPED)
    with pytest.raises(Crash), crashing("rollout:committed#16"):
        start(config)
    with Ledger.open_readonly(config.run_dir) as books:
        old = {row.id for row in books.trajectories(2, Purpose.TRAIN) if row.outcome.is_agents}
    start(load(tmp_path, OVERLAPPED | {"run.overlap": "false"}))
    with Ledger.open_readonly(config.run_dir) as books:
        assert books.metrics(2)["learn/dropped_as_stale"] == len(old) > 0
        attempts = read_manifest(config.run_dir / "manifests" / "round-0002.json").attempts
        assert attempts
        assert not old & {attempt.trajectory_id for attempt in attempts}
        assert {attempt.staleness for attempt in attempts} == {0}
