"""Audits with real books: planned on worlds of their own, judged, never learned from, and rewards corrected by them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluator.truth import gold_task
from evaluator.verdict import Judgement, Verdict
from launch import audit, inbox, stages, summary
from launch import config as configs
from launch.books import Phase, Purpose, WeightsRow
from launch.config import ConfigError
from launch.errors import RunFailed
from launch.team import Team
from policy.trajectory import Outcome
from proposer.generate import Prompt, Response, Sampling
from rl.manifest import Manifest, read_manifest
from tests.makers import step, trajectory
from tests.teams import idle_team

S, F, U = Judgement.SUCCESS, Judgement.FAILURE, Judgement.UNDECIDED
SETTINGS = (
    "rollout.gold_tasks=true",
    "rollout.tasks_per_round=20",
    "rollout.samples_per_task=2",
    "audit.share=0.3",
    "audit.correct=true",
    "selection.same_answer=false",
    "learner.algorithm.name=rloo",
)


@contextmanager
def open_books(directory: Path, *settings: str) -> Iterator[Team]:
    with idle_team(directory, *SETTINGS, *settings) as team:
        team.ledger.commit_weights(WeightsRow(0, None, -1, "/nowhere"))
        yield team


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with open_books(tmp_path) as team:
        yield team


def begin(team: Team, k: int) -> None:
    team.ledger.begin_round(k, Phase.PROPOSE)
    asyncio.run(stages.propose(team, k))


def attempt_all(team: Team, k: int, judge: str = "j", wrong: str = "") -> None:
    """Every second attempt succeeds, and the judge says so of all but the website `wrong`, where it says the opposite.

    Of the rest, its verdict on every fifth true success and true failure of the audits is false.
    """
    errors = Counter[tuple[str, bool]]()
    for purpose in stages.PRACTISED:
        for episode in team.ledger.missing_episodes(k, purpose):
            gold = gold_task(episode.task.gold_id or "")
            truth = episode.sample == 0
            steps = (step(sum(episode.id.encode())),)
            record = trajectory(
                episode.id,
                answer=(gold.goal.answers or ("done",))[0] if truth else None,
                outcome=Outcome.FINISHED if truth else Outcome.STEP_LIMIT,
                final_state={"location": "/"} | gold.goal.state,
            ).model_copy(update={"task": episode.task, "steps": steps})
            inbox.deliver(team.run_dir, record)
            inbox.take(team.run_dir, team.ledger, record)
            name = episode.task.website.name
            errors[name, truth] += purpose is Purpose.AUDIT
            errs = name == wrong or (purpose is Purpose.AUDIT and errors[name, truth] % 5 == 0)
            judgement = S if truth is not errs else F
            verdict = Verdict(trajectory_id=record.id, judgement=judgement, reason="", judge=judge, prompt_hash="h")
            team.ledger.commit_verdict(verdict)


def seal(team: Team, k: int) -> Manifest:
    asyncio.run(stages.seal(team, k))
    path = team.ledger.manifest(k)
    assert path is not None
    return read_manifest(path)


def test_a_share_of_a_rounds_tasks_are_audits_on_worlds_of_their_own(team: Team) -> None:
    for _ in range(2):  # once more is the same
        begin(team, 1)
    practised, audits = (team.ledger.tasks(1, purpose) for purpose in stages.PRACTISED)
    assert (len(practised), len(audits)) == (14, 6)
    assert team.ledger.num_episodes(1, Purpose.AUDIT) == 12
    assert Counter(task.website.name for task in audits) == {"shop": 3, "forum": 3}
    assert all(task.gold_id and task.world and task.world.startswith("audit-") for task in audits)
    begin(team, 2)
    assert not {task.world for task in audits} & {task.world for task in team.ledger.tasks(2, Purpose.AUDIT)}


def test_audits_are_counted_in_the_books_and_reach_no_manifest_and_no_selection(team: Team) -> None:
    begin(team, 1)
    attempt_all(team, 1)
    data = seal(team, 1)
    audits = {row.id for row in team.ledger.trajectories(1, Purpose.AUDIT)}
    assert len(audits) == 12
    assert not audits & {attempt.trajectory_id for attempt in data.attempts}
    assert team.ledger.metrics(1)["learn/groups"] == 14
    figures = summary.summarise_round(team.ledger, 1)
    assert figures.episodes == sum(figures.outcomes.values()) == 40


def test_the_manifest_tells_raw_and_corrected_rewards_and_verdicts_stay_as_they_were(team: Team) -> None:
    begin(team, 1)
    attempt_all(team, 1, wrong="forum")
    before = [team.ledger.verdict(row.id) for row in team.ledger.trajectories(1)]
    data = seal(team, 1)
    pairs = audit.measured(team.ledger, (1,))
    noise = {source.website: audit.judge_error(found).noise for source, found in pairs.items()}
    websites = {row.id: team.ledger.load(row).task.website.name for row in team.ledger.trajectories(1)}
    assert {attempt.reward for attempt in data.attempts} == {0, 1}
    for attempt in data.attempts:
        expected = noise[websites[attempt.trajectory_id]].corrected(attempt.reward)
        assert attempt.corrected == attempt.worth == expected
    assert [team.ledger.verdict(row.id) for row in team.ledger.trajectories(1)] == before


def test_nothing_is_learned_from_a_website_on_which_the_judge_certainly_tells_nothing(tmp_path: Path) -> None:
    with open_books(tmp_path, "rollout.samples_per_task=8", "audit.share=0.5") as team:
        begin(team, 1)
        attempt_all(team, 1, wrong="forum")
        data = seal(team, 1)
        websites = {row.id: team.ledger.load(row).task.website.name for row in team.ledger.trajectories(1)}
        assert {websites[attempt.trajectory_id] for attempt in data.attempts} == {"shop"}
        metrics = team.ledger.metrics(1)
        assert metrics["learn/dropped_tasks_by_judge_error"] == 5
        assert metrics["learn/dropped_by_judge_error"] == 40
        assert metrics["learn/noise/forum/tpr"] - metrics["learn/noise/forum/fpr"] < 0.2


def test_audits_of_earlier_rounds_count_by_config_and_only_those_of_the_same_judge(tmp_path: Path) -> None:
    with open_books(tmp_path, "audit.pool_rounds=1") as team:
        for k, judge in ((1, "j"), (2, "other"), (3, "other")):
            begin(team, k)
            attempt_all(team, k, judge)
        whole = [sum(map(len, audit.measured(team.ledger, rounds).values())) for rounds in ((1,), (2, 3))]
        assert whole == [12, 24]
        attempts = [stages.judged_attempts(team.ledger, k, 0) for k in (1, 2, 3)]
        found = [audit.correct(team.ledger, k, attempts[k - 1], team.config.audit).counts for k in (1, 2, 3)]
        assert found[0]["noise/shop/tpr"] == found[1]["noise/shop/tpr"]  # round 1 had another judge
        pooled = audit.judge_error([pair for pairs in audit.measured(team.ledger, (2, 3)).values() for pair in pairs])
        assert pooled.tpr.whole == 12
        own = audit.measured(team.ledger, (2, 3))[audit.Source("shop", "other", "h")]
        assert found[2]["noise/shop/tpr"] == audit.judge_error(own).noise.tpr


def test_without_audits_of_its_own_judge_a_reward_stays_what_it_is(team: Team) -> None:
    begin(team, 1)
    attempt_all(team, 1)
    for row in team.ledger.trajectories(1, Purpose.AUDIT):
        team.ledger._db.execute("DELETE FROM verdicts WHERE trajectory_id = ?", (row.id,))
    assert all(attempt.corrected == attempt.reward for attempt in seal(team, 1).attempts)


def test_the_rounds_figures_tell_how_the_judge_erred_on_each_website(team: Team) -> None:
    begin(team, 1)
    attempt_all(team, 1, wrong="forum")
    figures = summary.summarise_round(team.ledger, 1).audits
    assert (figures["forum"].tpr, figures["forum"].fpr, figures["forum"].n) == (0.0, 1.0, 6)
    assert (figures["shop"].tpr, figures["shop"].fpr, figures["shop"].tpr_n) == (1.0, 0.0, 3)
    assert figures["shop"].tpr_low == pytest.approx(0.4385, abs=1e-4)  # Wilson, 3 of 3
    assert figures["shop"].same_votes is figures["shop"].brier is None
    metrics = summary.round_metrics(team.ledger, 1)
    assert (metrics["audit/forum/fpr"], metrics["audit/shop/n"]) == (1.0, 6)
    assert "audit/shop/brier" not in metrics


async def is_never_asked(prompt: Prompt, sampling: Sampling) -> Response:
    raise AssertionError("every verdict was there")


def judge_round(team: Team, k: int) -> None:
    team.models = {"judge": is_never_asked}
    asyncio.run(stages.judge(team, k))


def test_a_judge_that_passes_failed_audits_stops_the_run_before_it_learns_until_it_is_told_to_go_on(
    tmp_path: Path,
) -> None:
    with open_books(tmp_path) as team:
        begin(team, 1)
        attempt_all(team, 1, wrong="forum")  # 3 of 3: at least 0.44 (Wilson); none of 3 in the shop
        said = r"round 1: the judge called 3 of 3 failed audits on forum a success: a share of at least 0\.44 .*"
        for _ in range(2):
            with pytest.raises(RunFailed, match=said + r"resume --set audit\.max_fpr=1"):
                judge_round(team, 1)
        (alarm,) = [event for event in team.ledger.events() if event.kind == "alarm"]
        assert (alarm.round, "audit.max_fpr = 0.3" in alarm.text, "shop" in alarm.text) == (1, True, False)
        assert team.ledger.manifest(1) is None
        for limit in (0.45, 1):
            audits = team.config.audit.model_copy(update={"max_fpr": limit})
            team.config = team.config.model_copy(update={"audit": audits})
            judge_round(team, 1)
        assert len([event for event in team.ledger.events() if event.kind == "alarm"]) == 1


def test_no_false_positives_and_unmeasured_ones_set_off_no_alarm(tmp_path: Path) -> None:
    with open_books(tmp_path, "audit.max_fpr=0") as team:
        begin(team, 1)
        attempt_all(team, 1)
        judge_round(team, 1)
    (tmp_path / "without").mkdir()
    with open_books(tmp_path / "without", "audit.max_fpr=0", "audit.share=0", "audit.correct=false") as team:
        begin(team, 1)
        attempt_all(team, 1, wrong="forum")
        judge_round(team, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["audit.share=0"], "audit.correct: expected audit.share above 0"),
        (["selection.same_answer=true"], "audit.correct: expected selection.same_answer = false"),
        (["rollout.tasks_per_round=1"], "audit.share: expected fewer audits than rollout.tasks_per_round, got 1"),
    ],
)
def test_what_cannot_be_measured_or_corrected_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.load("quickstart", [*SETTINGS, *settings])
