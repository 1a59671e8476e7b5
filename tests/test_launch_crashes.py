"""Random crashes through the phases of real rounds with real books: however a run is broken, it ends alike.

Workers, learner and models are stand-ins that answer by a hash of what they are asked, so hundreds of crashes take
seconds; bench/chaos.py does the same with real ones and real kills. A crash here is an exception that nothing catches.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policy.crash
from bench.chaos import POINTS
from launch import inbox
from launch.books import Phase, Purpose
from launch.digest import digest
from launch.errors import Stopped
from launch.ledger import Ledger
from proposer.generate import Prompt, Response, Sampling
from rl.manifest import read_manifest
from tests.standins import OVERLAPPED, ROUNDS, SYNCHRONOUS, TURNS_OF_TRAINING, Servers, answer, load, start

REACHED = sorted(point for point in POINTS if not point.startswith(("learn:", "publish:", "worker:")))
"""The driver's points; the others are in processes that have stand-ins here."""
AHEAD = (
    *("propose:proposed#3", "propose:committed#4", "rollout:leased#17", "rollout:moved#20", "rollout:committed#24"),
    *("train:learned", "ahead:practised", "ahead:joined"),
)
"""Where round 2 is practised while round 1 trains: their first passages are round 1's own."""


class Crash(BaseException):
    """The process has died."""


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
