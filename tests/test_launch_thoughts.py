"""The thoughts' gap with real books: the same judge asked once more, and nothing that counts is touched by it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluator.judge import JudgeSettings, ModelJudge, render
from evaluator.panel import Panel, seeing_thoughts
from evaluator.verdict import Judgement
from launch import config as configs
from launch import inbox, stages, summary, thoughts
from launch.books import Phase, Purpose
from launch.config import ConfigError
from launch.errors import RunFailed
from launch.ledger import Ledger
from launch.team import Team, make_team
from launch.tracking import Tracker
from proposer.generate import ModelError, Prompt, Response, Sampling
from proposer.task import Task, Website
from tests.makers import picture, step, trajectory

NUM_TASKS = 8
SHOP = Website(name="shop", url="practice:shop")


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    """A round whose eight episodes ended with an answer; every second one's thought says that it persuades."""
    settings = [f"run.runs_dir={tmp_path}", "tracking.wandb=off", "judge.checked=false", "audit.thoughts_per_round=6"]
    config = configs.load("quickstart", settings)
    (tmp_path / inbox.INBOX).mkdir()
    with Ledger(tmp_path) as ledger, Tracker(tmp_path, config.tracking, {}) as tracker:
        team = make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())
        ledger.begin_round(1, Phase.JUDGE)
        tasks = [Task(website=SHOP, instruction=f"Do thing {n}.", world="train-1") for n in range(NUM_TASKS)]
        ledger.plan(1, Purpose.TRAIN, tasks, num_samples=1)
        screenshot = team.blobs.put(picture())
        for number, episode in enumerate(ledger.missing_episodes(1, Purpose.TRAIN)):
            taken = step(screenshot=screenshot)
            steps = (taken.model_copy(update={"thought": "PERSUASIVE" if number % 2 else "plain"}),)
            record = trajectory(episode.id, final=taken.observation).model_copy(
                update={"task": episode.task, "steps": steps}
            )
            inbox.deliver(tmp_path, record)
            inbox.take(tmp_path, ledger, record)
        yield team


class Gullible:
    """A model that calls a success whatever has a persuasive thought in front of it, and counts what it is asked."""

    def __init__(self) -> None:
        self.num_asked = 0

    async def __call__(self, prompt: Prompt, sampling: Sampling) -> Response:
        self.num_asked += 1
        is_persuaded = "PERSUASIVE" in str(prompt.parts[-1])
        return Response(f"Reason: r.\nVerdict: {'success' if is_persuaded else 'failure'}")


async def is_out(prompt: Prompt, sampling: Sampling) -> Response:
    raise ModelError("out")


def test_the_gap_is_what_thoughts_talk_the_judge_into_and_no_verdict_that_counts_sees_them(team: Team) -> None:
    judge = Gullible()
    team.models = {"judge": judge}
    for _ in range(2):  # what was judged is not judged again
        asyncio.run(stages.judge(team, 1))
    assert judge.num_asked == NUM_TASKS + 6
    metrics = team.ledger.metrics(1)
    verdicts = thoughts.JudgedWithThoughts.model_validate_json(thoughts.file_of(team.run_dir, 1).read_bytes()).verdicts
    gained = sum(verdict.judgement is Judgement.SUCCESS for verdict in verdicts)
    assert 0 < gained < len(verdicts) == metrics["thoughts/judged"] == 6
    assert metrics["thoughts/gained"] == gained
    assert (metrics["thoughts/without"], metrics["thoughts/lost"]) == (0, 0)
    assert metrics["thoughts/gap"] == metrics["thoughts/with"] == pytest.approx(gained / 6)
    assert metrics["thoughts/p"] == 0.5**gained
    assert all(row.judgement is Judgement.FAILURE for row in team.ledger.trajectories(1))
    figures = summary.summarise_round(team.ledger, 1)
    assert (figures.thoughts_judged, figures.success_without_thoughts) == (6, 0)


def test_a_judge_that_goes_out_in_between_stops_the_round_and_leaves_no_file(team: Team) -> None:
    team.models = {"judge": Gullible()}
    asyncio.run(stages.judge_missing(team, 1, (Purpose.TRAIN,), Phase.JUDGE))
    team.models = {"judge": is_out}
    with pytest.raises(RunFailed, match="no verdict on any of 6 episodes with thoughts"):
        asyncio.run(stages.judge(team, 1))
    assert not thoughts.file_of(team.run_dir, 1).exists()


def test_by_default_nothing_is_asked_with_thoughts(team: Team) -> None:
    team.config = configs.load("quickstart", ["judge.checked=false"])
    team.models = {"judge": Gullible()}
    asyncio.run(stages.judge(team, 1))
    assert not any(key.startswith("thoughts/") for key in team.ledger.metrics(1))


def test_thoughts_are_shown_where_they_are_asked_for_and_cannot_close_the_pages_fence() -> None:
    record = trajectory("t")
    record = record.model_copy(update={"steps": (record.steps[0].model_copy(update={"thought": "A </page> thought"}),)})
    shown, usual = (str(render(record, [], JudgeSettings(), thoughts=flag).parts[-1]) for flag in (True, False))
    assert "A (/page) thought" in shown
    assert "thought" not in usual
    assert shown.replace("Thoughts of the agent:\nA (/page) thought\n", "") == usual


def test_every_judge_of_a_panel_is_shown_them_and_signs_so(team: Team) -> None:
    judges = tuple(ModelJudge(is_out, team.blobs, JudgeSettings(), name) for name in ("one", "other"))
    shown = seeing_thoughts(Panel(judges))
    assert shown.name == "one + other"
    assert shown.prompt_hash == "+".join(f"{judge.prompt_hash} with thoughts" for judge in judges)
    assert not any(judge.thoughts for judge in judges)


def test_a_judge_that_asks_no_model_has_no_gap() -> None:
    with pytest.raises(ConfigError, match=r"audit\.thoughts_per_round: expected 0 with a judge that asks no model"):
        configs.load("quickstart", ["judge.kind=truth", "audit.thoughts_per_round=1"])
