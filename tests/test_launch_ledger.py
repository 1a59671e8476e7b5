"""The books: written once, whatever is repeated; what is missing is what was wanted and isn't committed."""

import sqlite3
from pathlib import Path

import pytest

from evaluator.verdict import Judgement, Verdict
from launch import inbox
from launch.books import DamagedError, LedgerError, Phase, ProposalRow, Purpose, WeightsRow
from launch.ledger import Ledger
from policy.trajectory import Outcome, Trajectory
from proposer.task import Task, Website

SHOP = Website(name="shop", url="practice:shop")
TASKS = [Task(website=SHOP, instruction=f"Do thing {n}.", world="train-1") for n in range(2)]


@pytest.fixture
def ledger(tmp_path: Path):
    (tmp_path / inbox.INBOX).mkdir()
    with Ledger(tmp_path) as ledger:
        yield ledger


def record(task: Task, sample: int = 0, outcome: Outcome = Outcome.FINISHED) -> Trajectory:
    return Trajectory(id=f"1-{task.id}-{sample}", task=task, steps=(), outcome=outcome)


def deliver_and_take(ledger: Ledger, trajectory: Trajectory) -> None:
    inbox.deliver(ledger.run_dir, trajectory)
    inbox.take(ledger.run_dir, ledger, trajectory)


def test_planned_again_nothing_is_planned_twice(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=3)
    assert ledger.num_episodes(1, Purpose.TRAIN) == 6
    assert len({episode.id for episode in ledger.missing_episodes(1, Purpose.TRAIN)}) == 6


def test_missing_is_wanted_less_committed(ledger: Ledger) -> None:
    ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=1)
    deliver_and_take(ledger, record(TASKS[0]))
    assert [episode.task for episode in ledger.missing_episodes(1, Purpose.TRAIN)] == [TASKS[1]]


def test_the_first_committed_attempt_stands(ledger: Ledger) -> None:
    ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=1)
    deliver_and_take(ledger, record(TASKS[0]))
    deliver_and_take(ledger, record(TASKS[0], outcome=Outcome.STEP_LIMIT))
    (row,) = ledger.trajectories(1)
    assert row.outcome is Outcome.FINISHED
    assert ledger.load(row).outcome is Outcome.FINISHED
    assert not list((ledger.run_dir / inbox.INBOX).iterdir())


def test_proposals_and_their_episodes_are_committed_together_and_once(ledger: Ledger) -> None:
    row = ProposalRow(1, "shop", "train-1", 5, 2, {"duplicate": 3})
    ledger.add_proposals(row, TASKS, num_samples=2)
    ledger.add_proposals(row, [Task(website=SHOP, instruction="Another.")], num_samples=2)
    assert ledger.proposals(1) == [row]
    assert ledger.num_episodes(1, Purpose.TRAIN) == 4


def test_the_first_verdict_stands(ledger: Ledger) -> None:
    ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=1)
    deliver_and_take(ledger, record(TASKS[0]))
    for judgement in (Judgement.SUCCESS, Judgement.FAILURE):
        verdict = Verdict(trajectory_id=record(TASKS[0]).id, judgement=judgement, reason="", judge="j", prompt_hash="h")
        ledger.commit_verdict(verdict)
    assert [row.judgement for row in ledger.trajectories(1)] == [Judgement.SUCCESS]


def test_a_reopened_ledger_knows_everything_that_was_committed(tmp_path: Path) -> None:
    (tmp_path / inbox.INBOX).mkdir()
    with Ledger(tmp_path) as ledger:
        ledger.begin_round(1, Phase.PROPOSE)
        ledger.set_phase(1, Phase.ROLLOUT)
        ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=1)
        ledger.commit_weights(WeightsRow(0, None, -1, "/starter/policy"))
        deliver_and_take(ledger, record(TASKS[0]))
    with Ledger(tmp_path) as ledger:
        assert ledger.phase(1) is Phase.ROLLOUT
        assert len(ledger.missing_episodes(1, Purpose.TRAIN)) == 1
        assert ledger.newest_weights(before_round=1).version == 0


def test_newest_weights_are_those_made_before_the_round(ledger: Ledger) -> None:
    for version, number in ((0, -1), (1, 1), (3, 3)):
        ledger.commit_weights(WeightsRow(version, None, number, f"v{version}"))
    assert [ledger.newest_weights(before_round=k).version for k in (0, 1, 2, 3, 4)] == [0, 0, 1, 1, 3]


def test_a_second_writer_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="another process"):
        Ledger(ledger.run_dir)


def test_a_reader_sees_the_books_beside_the_writer_and_can_not_write(ledger: Ledger) -> None:
    ledger.begin_round(0, Phase.EVAL)
    with Ledger.open_readonly(ledger.run_dir) as reader:
        assert [row.round for row in reader.rounds()] == [0]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM rounds")


def test_a_directory_without_books_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="not a run"):
        Ledger.open_readonly(tmp_path)


def test_seconds_of_a_phase_add_up_over_resumes(ledger: Ledger) -> None:
    ledger.add_seconds(1, "rollout", 2.0)
    ledger.add_seconds(1, "rollout", 3.0)
    assert ledger.metrics(1) == {"time/rollout": 5.0}


def test_a_finished_episode_left_in_the_inbox_is_taken_in(ledger: Ledger) -> None:
    ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=1)
    inbox.deliver(ledger.run_dir, record(TASKS[0]))
    assert inbox.take_orphans(ledger.run_dir, ledger) == 1
    assert ledger.is_committed(record(TASKS[0]).id)


def test_an_episode_moved_but_not_committed_is_taken_in(ledger: Ledger) -> None:
    ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=1)
    name = inbox.deliver(ledger.run_dir, record(TASKS[0]))
    (ledger.run_dir / inbox.TRAJECTORIES).mkdir()
    (ledger.run_dir / inbox.INBOX / name).rename(ledger.run_dir / inbox.TRAJECTORIES / name)
    assert inbox.take_orphans(ledger.run_dir, ledger) == 1
    assert ledger.is_committed(record(TASKS[0]).id)


@pytest.mark.parametrize("text", ["", '{"id": "1-', "[]"])
def test_a_torn_file_in_the_inbox_is_set_aside_and_reported(ledger: Ledger, text: str) -> None:
    (ledger.run_dir / inbox.INBOX / "torn.json").write_text(text)
    assert inbox.take_orphans(ledger.run_dir, ledger) == 0
    assert (ledger.run_dir / inbox.SET_ASIDE / "torn.json").read_text() == text
    assert [event.kind for event in ledger.events()] == ["set-aside"]


def test_an_orphan_that_failed_for_our_reasons_is_tried_again(ledger: Ledger) -> None:
    ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=1)
    inbox.deliver(ledger.run_dir, record(TASKS[0], outcome=Outcome.BROWSER_CRASH))
    assert inbox.take_orphans(ledger.run_dir, ledger) == 0
    assert len(ledger.missing_episodes(1, Purpose.TRAIN)) == 2


def test_a_trajectory_file_changed_after_commit_is_noticed(ledger: Ledger) -> None:
    ledger.plan(1, Purpose.TRAIN, TASKS, num_samples=1)
    deliver_and_take(ledger, record(TASKS[0]))
    (row,) = ledger.trajectories(1)
    (ledger.run_dir / row.path).write_text("{}")
    with pytest.raises(DamagedError, match="not the file that was committed"):
        ledger.load(row)
