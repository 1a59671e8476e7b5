"""A long run's rounds cost what a short run's do: what is asked of the books in a round is found by an index."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.ledger_growth import open_run
from evaluator.verdict import Judgement, Verdict
from launch import inbox, summary
from launch.books import Phase, Purpose
from launch.ledger import Ledger
from proposer.task import Task
from tests.makers import SHOP, trajectory

GROWING = "tasks|episodes|trajectories|truths|verdicts|proposals|metrics|events"
"""Tables with rows for every episode, task, or figure of a round."""


@dataclass(frozen=True)
class Asked:
    """What a round asked of the books, and how SQLite went about it."""

    statements: list[str]
    plans: dict[str, list[str]]
    next_round: int


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    statements: list[str] = []
    with open_run(tmp_path_factory.mktemp("growth") / "run", num_episodes=500, seed=0) as run:
        db = run.team.ledger._db
        db.set_trace_callback(statements.append)
        run.play()
        db.set_trace_callback(None)
        queries = {text for text in statements if re.match(r"\s*(SELECT|INSERT|UPDATE)", text)}
        plans = {text: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}")] for text in queries}
        return Asked(statements, plans, run.next_round)


def test_no_statement_of_a_round_reads_a_whole_table_that_grows(asked: Asked) -> None:
    aliases = "e|t|k|g|v"  # as the books' queries call them
    scans = {
        (text, line)
        for text, plan in asked.plans.items()
        for line in plan
        if re.match(rf"SCAN ({GROWING}|{aliases})\b", line)
    }
    assert len(asked.plans) > 1000
    assert scans == set()


def test_earlier_rounds_are_not_counted_again(asked: Asked) -> None:
    of_round = re.compile(r"e?\.?round = (\d+)")
    counted = {
        int(number) for text in asked.statements if re.search(GROWING, text) for number in of_round.findall(text)
    }
    assert counted == {asked.next_round - 1}


def test_the_instructions_of_all_rounds_are_read_once_per_website(asked: Asked) -> None:
    reads = [text for text in asked.statements if "DISTINCT json_extract" in text]
    assert len(reads) == len(set(reads)) == 2


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    (tmp_path / inbox.INBOX).mkdir()
    with Ledger(tmp_path) as ledger:
        ledger.set_meta("created", "0")
        yield ledger


def test_taken_instructions_grow_with_what_is_planned_and_outlive_the_program(tmp_path: Path) -> None:
    def tasks(*numbers: int) -> list[Task]:
        return [Task(website=SHOP, instruction=f"Open the Kettle {number}.", world="train-1") for number in numbers]

    with Ledger(tmp_path) as ledger:
        ledger.plan(1, Purpose.TRAIN, tasks(1), num_samples=1)
        taken = ledger.taken("shop")
        assert taken == {"open kettle 1"}
        ledger.plan(2, Purpose.EVAL, tasks(1, 2), num_samples=1)
        assert ledger.taken("shop") == {"open kettle 1", "open kettle 2"}
        assert ledger.taken("forum") == set()
    with Ledger(tmp_path) as ledger:
        assert ledger.taken("shop") == {"open kettle 1", "open kettle 2"}


def finish_round(ledger: Ledger) -> str:
    """One measured episode of round 0, not judged; its trajectory's id."""
    attempt = trajectory("x")
    attempt = attempt.model_copy(update={"id": f"0-{attempt.task.id}-0"})
    ledger.begin_round(0, Phase.EVAL)
    ledger.plan(0, Purpose.EVAL, [attempt.task], num_samples=1)
    inbox.deliver(ledger.run_dir, attempt)
    inbox.take(ledger.run_dir, ledger, attempt)
    ledger._db.execute("INSERT INTO truths VALUES (?, 1)", (attempt.id,))
    ledger.set_phase(0, Phase.DONE)
    return attempt.id


def test_the_summary_of_rounds_done_before_figures_were_kept_is_the_same(ledger: Ledger) -> None:
    finish_round(ledger)
    assert ledger.figures(0) is None
    assert summary.summarise(ledger).rounds == [summary.summarise_round(ledger, 0)]
    assert ledger.figures(0) is not None
    assert summary.summarise(ledger).rounds == [summary.summarise_round(ledger, 0)]


def test_a_verdict_given_later_counts_once_the_round_is_settled_again(ledger: Ledger) -> None:
    name = finish_round(ledger)
    assert summary.summarise(ledger).rounds[0].judge_recall is None
    verdict = Verdict(trajectory_id=name, judgement=Judgement.SUCCESS, reason="", judge="j", prompt_hash="h")
    ledger.commit_verdict(verdict)
    summary.settle(ledger, 0)
    assert summary.summarise(ledger).rounds[0].judge_recall == 1.0
