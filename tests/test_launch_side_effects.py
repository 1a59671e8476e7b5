"""Side effects in the books, in a round's figures, in the report, and in what is learned from."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluator.changes import Changes
from evaluator.truth import gold_task
from evaluator.verdict import Judgement, Verdict
from launch import inbox, stages, summary
from launch.books import Phase, Purpose
from launch.ledger import Ledger
from launch.report import write_report
from launch.side_effects import penalise
from launch.team import Team
from proposer.task import Task
from rl.learner import lessons_of
from rl.manifest import Attempt, read_manifest
from rl.selection import Judged
from sites.catalogue import SITES
from sites.contract import open_world
from tests.makers import SHOP, step, trajectory
from tests.teams import idle_team

S, F, U = Judgement.SUCCESS, Judgement.FAILURE, Judgement.UNDECIDED
QUESTION = Task(website=SHOP, instruction="What does the lamp cost?", world="train-1")
ERRAND = Task(website=SHOP, instruction="Put a lamp into the cart.", world="train-1")
SETTINGS = (
    "learner.algorithm.name=rloo",
    "rollout.samples_per_task=6",
    "selection.same_answer=false",
    "judge.checked=false",
)


@contextmanager
def open_books(directory: Path, *settings: str) -> Iterator[Team]:
    with idle_team(directory, *SETTINGS, *settings) as team:
        team.ledger.begin_round(1, Phase.SEAL)
        team.ledger.plan(1, Purpose.TRAIN, [QUESTION, ERRAND], num_samples=6)
        yield team


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with open_books(tmp_path, "audit.side_effect_penalty=0.25") as team:
        yield team


def take(team: Team, task: Task, sample: int, added: int, judgement: Judgement) -> str:
    """An attempt that put so many new things into the cart, in the books and judged; its id."""
    state = open_world(SITES["shop"], "train-1").state
    state["cart"] |= {f"thing-{number}": 1 for number in range(added)}
    name = f"1-{task.id}-{sample}"
    record = trajectory(name, final_state=state | {"location": "/cart"})
    record = record.model_copy(update={"task": task, "steps": (step(sum(name.encode()) + sample),)})
    inbox.deliver(team.run_dir, record)
    inbox.take(team.run_dir, team.ledger, record)
    verdict = Verdict(trajectory_id=name, judgement=judgement, reason="", judge="j", prompt_hash="h")
    team.ledger.commit_verdict(verdict)
    return name


def sealed(team: Team) -> dict[str, Attempt]:
    asyncio.run(stages.seal(team, 1))
    path = team.ledger.manifest(1)
    assert path is not None
    return {attempt.trajectory_id: attempt for attempt in read_manifest(path).attempts}


def test_what_an_episode_changed_is_in_the_books(team: Team) -> None:
    asked, told = (take(team, task, 0, 2, S) for task in (QUESTION, ERRAND))
    both = ("added to cart/thing-0: 1", "added to cart/thing-1: 1")
    assert team.ledger.changes(asked) == Changes(made=both, beyond=both)
    assert team.ledger.changes(told) == Changes(made=both, beyond=None)


def test_books_of_before_tell_no_changes(team: Team) -> None:
    name = take(team, QUESTION, 0, 2, S)
    team.ledger._db.execute("DROP TABLE changes")
    with Ledger.open_readonly(team.run_dir) as books:
        assert books.changes(name) is None
        assert summary.summarise_round(books, 1).successes_known == 0


def test_a_success_is_worth_less_by_its_side_effects_and_never_less_than_nothing(team: Team) -> None:
    verdicts = [(0, S), (1, S), (5, S), (0, F), (3, F), (1, U)]
    names = [take(team, QUESTION, sample, added, said) for sample, (added, said) in enumerate(verdicts)]
    attempts = sealed(team)
    assert names[5] not in attempts
    assert [attempts[name].reward for name in names[:5]] == [1, 1, 1, 0, 0]
    assert [attempts[name].worth for name in names[:5]] == [1, 0.75, 0, 0, 0]
    assert attempts[names[0]].corrected is None
    assert team.ledger.metrics(1)["learn/reduced_for_side_effects"] == 2


def test_advantages_are_of_what_is_left(team: Team) -> None:
    names = [take(team, QUESTION, sample, added, S) for sample, added in enumerate((0, 1))]
    asyncio.run(stages.seal(team, 1))
    path = team.ledger.manifest(1)
    assert path is not None, "two successes of which one has a side effect are something to compare"
    lessons = lessons_of(read_manifest(path), team.config.learner.algorithm)
    assert [lessons.advantages[name] for name in names] == [0.25, -0.25]  # of 1 and 0.75, each less the other
    assert team.ledger.metrics(1)["learn/dropped_groups_all_succeeded"] == 0


def test_what_nobody_can_know_takes_nothing_off(team: Team) -> None:
    names = [take(team, ERRAND, sample, 3, said) for sample, said in enumerate((S, F))]
    attempts = sealed(team)
    assert [(attempts[name].worth, attempts[name].corrected) for name in names] == [(1, None), (0, None)]


def test_without_a_penalty_they_are_only_recorded(tmp_path: Path) -> None:
    with open_books(tmp_path) as team:
        names = [take(team, QUESTION, sample, 3, said) for sample, said in enumerate((S, F))]
        attempts = sealed(team)
        assert [attempts[name].corrected for name in names] == [None, None]
        assert team.ledger.changes(names[0]) is not None


def test_a_corrected_reward_is_multiplied_so_that_on_average_it_is_the_truth_times_what_is_left(team: Team) -> None:
    tpr, fpr = 0.9, 0.1
    name = take(team, QUESTION, 0, 2, S)
    of = {said: ((said is S) - fpr) / (tpr - fpr) for said in (S, F)}
    record = trajectory(name)
    left = {
        said: penalise(team.ledger, [Judged(record, said, corrected=of[said])], 0.25)[0].left * of[said]
        for said in (S, F)
    }
    assert left == {S: pytest.approx(1.125 / 2), F: pytest.approx(-0.125 / 2)}
    assert tpr * left[S] + (1 - tpr) * left[F] == pytest.approx(0.5)
    assert fpr * left[S] + (1 - fpr) * left[F] == pytest.approx(0)


def test_a_rounds_figures_tell_how_many_successes_had_side_effects(team: Team) -> None:
    verdicts = [(0, S), (2, S), (0, S), (1, F), (0, U)]
    for sample, (added, said) in enumerate(verdicts):
        take(team, QUESTION, sample, added, said)
    take(team, ERRAND, 0, 4, S)  # not known
    figures = summary.summarise_round(team.ledger, 1)
    assert (figures.successes_with_side_effects, figures.successes_known) == (1, 3)
    told = {key: value for key, value in summary.round_metrics(team.ledger, 1).items() if key.startswith("side_")}
    assert told == {
        "side_effects/changed": 3,
        "side_effects/known": 5,
        "side_effects/count": 3,
        "side_effects/episodes": 2,
        "side_effects/successes": 3,
        "side_effects/share": 1 / 3,
        "side_effects/share_low": pytest.approx(0.0615, abs=1e-4),  # Wilson, 1 of 3
        "side_effects/share_high": pytest.approx(0.7923, abs=1e-4),
    }


def test_the_report_names_them(team: Team) -> None:
    take(team, QUESTION, 0, 1, S)
    take(team, ERRAND, 0, 1, S)
    html = write_report(team.run_dir).read_text()
    assert '<strong class="failure">added to cart/thing-0: 1</strong>' in html
    assert "1 of 1 successes with side effects" in html
    assert "not known for this task" in html


def test_an_audits_side_effects_are_what_its_goal_does_not_change(team: Team) -> None:
    gold = gold_task("shop/audit-3/add_to_cart-0")
    task = Task(website=SHOP, instruction=gold.instruction, world="audit-3", source="gold", gold_id=gold.id)
    team.ledger.plan(1, Purpose.AUDIT, [task], num_samples=1)
    state = gold.goal.state | {"location": "/", "settings": gold.goal.state["settings"] | {"newsletter": True}}
    record = trajectory(f"1-{task.id}-0", final_state=state).model_copy(update={"task": task})
    inbox.deliver(team.run_dir, record)
    inbox.take(team.run_dir, team.ledger, record)
    changes = team.ledger.changes(record.id)
    assert changes is not None
    assert changes.beyond == ("changed settings/newsletter: false to true",)
    assert len(changes.made) == 2
