"""The promotion gate: the test by hand, and rounds whose new weights are let through or not, with real books."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from evaluator.agreement import sign_test
from evaluator.truth import gold_task
from launch import inbox, stages, summary
from launch.books import GateRow, LedgerReader, Phase, Purpose, WeightsRow
from launch.config import RetentionSettings
from launch.ledger import Ledger
from launch.retention import unneeded
from launch.status import describe
from launch.team import Team
from launch.workers import Order, Workers
from policy.fleet import Fleet
from policy.server_settings import ServerSettings
from policy.trajectory import Outcome
from tests.makers import trajectory
from tests.teams import idle_team

NUM_TASKS = 12


@pytest.mark.parametrize(
    ("losses", "wins", "p"),
    [(0, 0, 1), (5, 0, 1 / 32), (0, 5, 1), (3, 1, 5 / 16), (1, 1, 3 / 4), (9, 2, 67 / 2048)],
)
def test_the_sign_test_is_exact_and_one_sided(losses: int, wins: int, p: float) -> None:
    assert sign_test(losses, wins) == p


class Hands:
    """In the place of the Ray workers: a version does the tasks whose place in the order of ids it is told."""

    num_slots = 4

    def __init__(self, team: Team, done: dict[int, range]) -> None:
        self.team, self.done = team, done
        self.orders: list[Order] = []

    async def run(self, order: Order) -> str:
        self.orders.append(order)
        ids = sorted(task.id for task in self.team.ledger.tasks(1, Purpose.CANDIDATE)) or sorted(
            task.id for task in self.team.ledger.tasks(1, Purpose.INCUMBENT)
        )
        goal = gold_task(order.task.gold_id or "").goal
        done = ids.index(order.task.id) in self.done[order.weights]
        record = trajectory(
            order.trajectory_id,
            answer=(goal.answers or ("done",))[0] if done else None,
            outcome=Outcome.FINISHED if done else Outcome.STEP_LIMIT,
            final_state={"location": "/"} | goal.state,
        )
        return inbox.deliver(self.team.run_dir, record.model_copy(update={"task": order.task}))


class Servers(Fleet):
    """In the place of vLLM: loads nothing, and notes what it was told to load."""

    def __init__(self) -> None:
        super().__init__(ServerSettings(base_urls=("http://127.0.0.1:9",)), Path("/nowhere"), Path("/nowhere.log"))
        self.published: list[int | None] = []

    async def publish(self, version: int | None, weights: Path) -> None:
        self.version = version
        self.published.append(version)


@contextmanager
def open_books(directory: Path, *settings: str) -> Iterator[Team]:
    """A run whose round 1 has made version 1 from version 0."""
    with idle_team(directory, f"promotion.num_tasks={NUM_TASKS}", *settings) as team:
        team.ledger.begin_round(1, Phase.GATE)
        team.ledger.commit_weights(WeightsRow(0, None, -1, "/nowhere/starter"))
        team.ledger.commit_weights(WeightsRow(1, 0, 1, "weights/v000001"))
        team.fleet = Servers()
        yield team


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with open_books(tmp_path) as team:
        yield team


def compare(team: Team, incumbent: range, candidate: range) -> Hands:
    hands = Hands(team, {0: incumbent, 1: candidate})
    team.workers = cast(Workers, hands)
    asyncio.run(stages.gate(team, 1))
    asyncio.run(stages.publish(team, 1))
    return hands


def only_gate(books: LedgerReader) -> GateRow:
    (row,) = books.gates()
    return row


def test_weights_that_lose_by_more_than_chance_are_not_promoted_and_the_round_before_goes_on(
    team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        compare(team, incumbent=range(6), candidate=range(1))
    assert only_gate(team.ledger) == GateRow(1, 1, 0, NUM_TASKS, wins=0, losses=5, p=1 / 32, promoted=False)
    assert team.ledger.newest_weights(before_round=2).version == 0
    assert cast(Servers, team.fleet).published == [0, 1, 0]
    said = (
        "version 1 is not promoted: against version 0 it won 0 and lost 5 of 12 gate tasks (one-sided p = 0.0312, "
        "promotion.level = 0.05); the next round begins with version 0"
    )
    assert [event.text for event in team.ledger.events() if event.kind == "gate"] == [said]
    assert f"round 1: {said}" in caplog.messages
    metrics = team.ledger.metrics(1)
    assert (metrics["gate/promoted"], metrics["gate/losses"], metrics["gate/p"]) == (0, 5, 1 / 32)
    assert summary.summarise_round(team.ledger, 1).gate == only_gate(team.ledger)
    assert [row.version for row in team.ledger.weights()] == [0, 1]  # the books keep what was refused


@pytest.mark.parametrize("candidate", [range(2), range(6), range(12)])  # four losses, none, wins
def test_weights_that_are_not_surely_worse_are_promoted(team: Team, candidate: range) -> None:
    compare(team, incumbent=range(6), candidate=candidate)
    assert only_gate(team.ledger).promoted
    assert team.ledger.newest_weights(before_round=2).version == 1
    assert cast(Servers, team.fleet).published == [0, 1]


def test_both_attempt_the_same_tasks_with_the_same_seeds_on_worlds_of_their_own(team: Team) -> None:
    hands = compare(team, incumbent=range(6), candidate=range(6))
    drawn = {version: [] for version in (0, 1)}
    for order in sorted(hands.orders, key=lambda order: order.trajectory_id):
        drawn[order.weights].append((order.task, order.sampling))
    assert drawn[0] == drawn[1]
    assert len({sampling.seed for _, sampling in drawn[0]}) == len(drawn[0]) == NUM_TASKS
    assert all(sampling.temperature == 0 for _, sampling in drawn[0])
    assert all(task.world and task.world.startswith("gate-") for task, _ in drawn[0])
    assert all(row.judgement is None for row in team.ledger.trajectories(1))


def test_they_are_compared_at_the_temperature_of_measuring(tmp_path: Path) -> None:
    with open_books(tmp_path, "evaluation.temperature=0.6") as team:
        hands = compare(team, incumbent=range(6), candidate=range(6))
    assert {order.sampling.temperature for order in hands.orders} == {0.6}


def test_what_was_compared_is_not_compared_again(team: Team) -> None:
    compare(team, incumbent=range(6), candidate=range(1))
    assert compare(team, incumbent=range(6), candidate=range(12)).orders == []
    assert not only_gate(team.ledger).promoted


def test_without_a_gate_or_without_new_weights_nothing_is_attempted(tmp_path: Path) -> None:
    with open_books(tmp_path, "promotion.num_tasks=0") as team:
        assert compare(team, incumbent=range(6), candidate=range(1)).orders == []
        assert team.ledger.newest_weights(before_round=2).version == 1
        gated = team.config.promotion.model_copy(update={"num_tasks": NUM_TASKS})
        team.config = team.config.model_copy(update={"promotion": gated})
        asyncio.run(stages.gate(team, 2))
        assert team.ledger.gates() == []


@pytest.mark.parametrize("phase", [Phase.TRAIN, Phase.GATE])
def test_weights_that_are_still_to_be_compared_are_not_yet_those_in_use(tmp_path: Path, phase: Phase) -> None:
    for num_tasks, before, after in ((NUM_TASKS, 0, 1), (0, 1, 1)):
        (tmp_path / str(num_tasks)).mkdir()
        with open_books(tmp_path / str(num_tasks), f"promotion.num_tasks={num_tasks}") as team:
            team.ledger.set_meta("config", team.config.model_dump_json())
            team.ledger.set_phase(1, phase)
            assert f"  weights: version {before}" in describe(team.run_dir)
            compare(team, incumbent=range(6), candidate=range(6))
            assert f"  weights: version {after}" in describe(team.run_dir)


def test_refused_weights_push_no_promoted_ones_off_the_disk(team: Team) -> None:
    for version in range(2, 5):
        team.ledger.commit_weights(WeightsRow(version, 1, version, f"weights/v{version:06d}"))
    for version in (3, 4):
        team.ledger.commit_gate(GateRow(version, version, 2, 9, 0, 9, 0.0, promoted=False), "")
    for row in team.ledger.weights()[1:]:
        (team.run_dir / row.path).mkdir(parents=True)
    gone = {keep: [path.name for path in unneeded(team.ledger, RetentionSettings(keep_last=keep))] for keep in (1, 2)}
    assert gone == {1: ["v000001", "v000003"], 2: []}


def test_books_from_before_the_gate_promote_all(team: Team) -> None:
    team.ledger._db.execute("DROP TABLE gates")
    with Ledger.open_readonly(team.run_dir) as books:
        assert books.newest_weights(before_round=2).version == 1
        assert summary.summarise_round(books, 1).gate is None
