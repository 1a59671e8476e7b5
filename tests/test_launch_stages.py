"""Stages alone, with real books and no servers: what an outage does, and what it must never do."""

import asyncio
import itertools
import re
import time
from pathlib import Path
from typing import Any, cast

import pytest

import evaluator.judge
from bench.scripted import Call, ScriptedServer, quick_answers
from evaluator.truth import gold_task
from evaluator.verdict import Judgement, Verdict
from launch import config as configs
from launch import gauge, inbox, stages
from launch.books import DamagedError, Phase, Purpose, WeightsRow
from launch.config import CanarySettings, Config, ModelSource
from launch.errors import RunFailed, Stopped, WorkerLost
from launch.judging import open_panel
from launch.ledger import Ledger
from launch.status import describe
from launch.summary import round_metrics
from launch.team import Team, make_team
from launch.tracking import Tracker
from launch.workers import Order, Workers, failed_trajectory
from policy.fleet import Fleet
from policy.server_settings import ServerSettings
from policy.trajectory import Action, ActionKind, Observation, Outcome, Step, Trajectory
from proposer.generate import ModelError, Prompt, Response, Sampling
from proposer.task import Task, Website
from rl.algorithms.base import Algorithm
from rl.algorithms.filtered_bc import FilteredBC
from rl.algorithms.grpo import GRPO
from rl.algorithms.off_policy import OffPolicy
from rl.learner import LearnerSettings
from rl.manifest import read_manifest
from rl.steplog import OptimizerStep, log_step
from tests.makers import picture, step, trajectory

SHOP = Website(name="shop", url="practice:shop")
NUM_TASKS = 24


@pytest.fixture
def team(tmp_path: Path):
    """A team with 24 planned training episodes of round 1 and none rolled out."""
    settings = [f"run.runs_dir={tmp_path}", "tracking.wandb=off", "judge.checked=false"]
    config = configs.load("quickstart", settings)
    for name in (inbox.INBOX, "manifests"):
        (tmp_path / name).mkdir()
    with Ledger(tmp_path) as ledger, Tracker(tmp_path, config.tracking, {}) as tracker:
        tasks = [Task(website=SHOP, instruction=f"Do thing {n}.", world="train-1") for n in range(NUM_TASKS)]
        ledger.begin_round(1, Phase.ROLLOUT)
        ledger.plan(1, Purpose.TRAIN, tasks, num_samples=1)
        yield make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())


def commit(team: Team, outcome: Outcome, count: int, answer: str | None = None) -> None:
    screenshot = team.blobs.put(picture())
    for episode in team.ledger.missing_episodes(1, Purpose.TRAIN)[:count]:
        seen = Observation(url="", title="", elements=(), listing="", screenshot=screenshot)
        said = Action(kind=ActionKind.ANSWER, text=answer) if answer else None
        step = Step(observation=seen, response="", thought="", action=said, token_ids=(1,), prompt_ids=(1,))
        trajectory = Trajectory(
            id=episode.id, task=episode.task, steps=(step,), outcome=outcome, final=seen, answer=answer
        )
        inbox.deliver(team.run_dir, trajectory)
        inbox.take(team.run_dir, team.ledger, trajectory)


async def says_success(prompt: Prompt, sampling: Sampling) -> Response:
    return Response("Reason: it did.\nVerdict: success")


async def is_out(prompt: Prompt, sampling: Sampling) -> Response:
    raise ModelError("out")


class Hands:
    """In the place of the Ray workers: every episode ends as told, outcome by outcome; None: the worker is lost."""

    num_slots = 4

    def __init__(self, team: Team, *outcomes: Outcome | None) -> None:
        self.run_dir = team.run_dir
        self.outcomes = itertools.cycle(outcomes)
        self.num_runs = 0

    async def run(self, order: Order) -> str:
        self.num_runs += 1
        outcome = next(self.outcomes)
        if outcome is None:
            raise WorkerLost("gone")
        return inbox.deliver(self.run_dir, failed_trajectory(order, outcome, "as told"))


def give_hands(team: Team, *outcomes: Outcome | None) -> Hands:
    hands = Hands(team, *outcomes)
    team.workers = cast(Workers, hands)
    team.models = {"judge": says_success}
    team.fleet = Fleet(ServerSettings(base_urls=("http://127.0.0.1:9",)), Path("/nowhere"), Path("/nowhere.log"))
    team.fleet.version = 0
    team.ledger.commit_weights(WeightsRow(0, None, -1, "/nowhere"))
    return hands


@pytest.mark.asyncio
async def test_too_many_failures_that_are_not_the_agents_stop_the_round(team: Team) -> None:
    give_hands(team, Outcome.BLOCKED)
    with pytest.raises(RunFailed, match=r"10 of 10 episodes ended .* mostly blocked"):
        await stages.roll_out(team, 1)


@pytest.mark.asyncio
async def test_a_live_website_that_blocks_is_not_visited_any_more_and_every_episode_has_its_outcome(team: Team) -> None:
    live = Website(name="live", url="https://a.example/")
    tasks = [Task(website=live, instruction=f"Do live thing {n}.") for n in range(20)]
    team.ledger.plan(1, Purpose.TRAIN, tasks, num_samples=1)
    team.config = team.config.model_copy(
        update={"rollout": team.config.rollout.model_copy(update={"max_failure_share": 1.0})}
    )
    hands = give_hands(team, Outcome.BLOCKED)
    await stages.roll_out(team, 1)
    assert sum(team.ledger.outcomes(1, (Purpose.TRAIN,)).values()) == NUM_TASKS + 20
    assert NUM_TASKS + 10 <= hands.num_runs < NUM_TASKS + 10 + hands.num_slots
    assert round_metrics(team.ledger, 1)["rollout/block_rate/live"] == 1.0
    assert "rollout/block_rate/shop" not in round_metrics(team.ledger, 1)
    (event,) = [event for event in team.ledger.events() if event.kind == "left"]
    assert event.text.startswith("a.example blocked 10 of 10 episodes")


@pytest.mark.parametrize("outcome", [None, Outcome.MODEL_OUTAGE])
@pytest.mark.asyncio
async def test_a_failure_of_ours_is_tried_again_and_counted_once(team: Team, outcome: Outcome | None) -> None:
    hands = give_hands(team, outcome, Outcome.STEP_LIMIT)
    await stages.roll_out(team, 1)
    assert set(team.ledger.outcomes(1, (Purpose.TRAIN,))) <= {Outcome.STEP_LIMIT, outcome or Outcome.BROWSER_CRASH}
    assert sum(team.ledger.outcomes(1, (Purpose.TRAIN,)).values()) == NUM_TASKS
    num_retries = sum(event.kind == "retry" for event in team.ledger.events())
    assert hands.num_runs == NUM_TASKS + num_retries


@pytest.mark.asyncio
async def test_an_episode_that_never_works_ends_in_its_failure(team: Team) -> None:
    hands = give_hands(team, None)
    with pytest.raises(RunFailed, match="mostly browser_crash"):
        await stages.roll_out(team, 1)
    assert hands.num_runs >= 10 * team.config.rollout.max_attempts
    assert all(row.judgement is None for row in team.ledger.trajectories(1))


@pytest.mark.asyncio
async def test_failures_that_are_not_the_agents_are_neither_judged_nor_selected(team: Team) -> None:
    for outcome in Outcome:
        commit(team, outcome, 3)
    team.models = {"judge": says_success}
    await stages.judge(team, 1)
    judged = [row for row in team.ledger.trajectories(1) if row.judgement is not None]
    assert {row.outcome for row in judged} == {Outcome.FINISHED, Outcome.STEP_LIMIT, Outcome.STUCK, Outcome.OVER}
    await stages.seal(team, 1)
    assert team.ledger.metrics(1)["learn/successes"] == len(judged) == 12


@pytest.mark.asyncio
async def test_a_judge_that_is_out_stops_the_round_and_leaves_no_verdict(team: Team) -> None:
    commit(team, Outcome.FINISHED, NUM_TASKS)
    team.models = {"judge": is_out}
    with pytest.raises(RunFailed, match="no verdict on 24 of 24"):
        await stages.judge(team, 1)
    assert all(row.judgement is None for row in team.ledger.trajectories(1))
    team.models = {"judge": says_success}
    await stages.judge(team, 1)
    assert all(row.judgement is Judgement.SUCCESS for row in team.ledger.trajectories(1))


@pytest.mark.asyncio
async def test_a_judge_that_is_out_now_and_then_leaves_those_undecided(team: Team) -> None:
    commit(team, Outcome.FINISHED, NUM_TASKS)

    async def flaky(prompt: Prompt, sampling: Sampling) -> Response:
        about = str(prompt.parts[-1])
        return await (is_out if re.search(r"Do thing (0|8|16)\.", about) else says_success)(prompt, sampling)

    team.models = {"judge": flaky}
    await stages.judge(team, 1)
    assert sum(row.judgement is None for row in team.ledger.trajectories(1)) == NUM_TASKS / 8
    await stages.seal(team, 1)
    assert team.ledger.metrics(1)["learn/successes"] == NUM_TASKS * 7 / 8


def watching(team: Team, **settings: float) -> Team:
    """The team of a run that has its judge watched by four canaries a round."""
    canaries = CanarySettings.model_validate({"per_round": 4} | settings)
    team.config = team.config.model_copy(update={"canaries": canaries})
    commit(team, Outcome.FINISHED, NUM_TASKS, answer="done")
    return team


async def sees_through_wishes(prompt: Prompt, sampling: Sampling) -> Response:
    about = str(prompt.parts[-1])
    wished = re.search(r"Do thing \d+\. (Afterwards|Then|Also)", about)
    return Response(f"Reason: so.\nVerdict: {'failure' if wished else 'success'}")


@pytest.mark.asyncio
async def test_canaries_are_judged_beside_the_episodes_and_reach_nothing_else(team: Team) -> None:
    watching(team).models = {"judge": sees_through_wishes}
    await stages.judge(team, 1)
    metrics = team.ledger.metrics(1)
    assert (metrics["canary/judged"], metrics["canary/fooled"], metrics["canary/share"]) == (4, 0, 0)
    await stages.seal(team, 1)
    rows = team.ledger.trajectories(1)
    assert len(rows) == team.ledger.num_episodes(1, Purpose.TRAIN) == NUM_TASKS
    assert team.ledger.metrics(1)["learn/successes"] == NUM_TASKS
    kept = gauge.JudgedCanaries.model_validate_json(gauge.file_of(team.run_dir, 1).read_bytes()).canaries
    assert not {canary.trajectory.id for canary in kept} & {row.id for row in rows}
    manifest = team.ledger.manifest(1)
    assert manifest
    assert not any(canary.trajectory.id in manifest.read_text() for canary in kept)


@pytest.mark.asyncio
async def test_a_judge_that_lets_canaries_pass_stops_the_run_before_it_learns_and_goes_on_stopping_it(
    team: Team,
) -> None:
    watching(team).models = {"judge": says_success}
    for _ in range(2):
        with pytest.raises(RunFailed, match=r"round 1: the judge called 4 of 4 canaries a success: .* at least 0\.51"):
            await stages.judge(team, 1)
    (alarm,) = [event for event in team.ledger.events() if event.kind == "alarm"]
    assert (alarm.round, team.ledger.metrics(1)["canary/fooled"]) == (1, 4)
    team.config = team.config.model_copy(update={"canaries": CanarySettings(per_round=4, max_fooled=1)})
    await stages.judge(team, 1)


@pytest.mark.asyncio
async def test_canaries_that_were_judged_are_not_judged_again(team: Team) -> None:
    watching(team, max_fooled=1).models = {"judge": says_success}
    await stages.judge(team, 1)
    team.models = {"judge": is_out}
    await stages.judge(team, 1)
    assert team.ledger.metrics(1)["canary/judged"] == 4


@pytest.mark.asyncio
async def test_without_canaries_none_are_made(team: Team) -> None:
    commit(team, Outcome.FINISHED, NUM_TASKS, answer="done")
    team.models = {"judge": says_success}
    await stages.judge(team, 1)
    assert not any(key.startswith("canary/") for key in team.ledger.metrics(1))
    assert not gauge.file_of(team.run_dir, 1).parent.exists()


def likes_ones(call: Call) -> str:
    return f"Reason: r.\nVerdict: {'success' if 'thing 1' in call.text else 'failure'}"


@pytest.mark.asyncio
async def test_a_panel_has_to_agree_with_the_judge(team: Team) -> None:
    commit(team, Outcome.FINISHED, NUM_TASKS, answer="done")
    with ScriptedServer(likes_ones) as other:
        seat = {"endpoint": {"base_url": f"{other.url}/v1", "model": "other"}}
        config = Config.model_validate(team.config.model_dump() | {"panel": [seat]})
        team.config, team.panel = config, open_panel(config, team.blobs, team.ledger)
        team.models = {"judge": says_success}
        await stages.judge(team, 1)
    verdicts = [given for row in team.ledger.trajectories(1) if (given := team.ledger.verdict(row.id))]
    assert {given.judge for given in verdicts} == {"starter + other"}
    agreed = {given.trajectory_id for given in verdicts if given.judgement is Judgement.SUCCESS}
    texts = {row.id: team.ledger.load(row).task.instruction for row in team.ledger.trajectories(1)}
    assert agreed == {name for name, text in texts.items() if "thing 1" in text}
    assert all(given.judgement is not Judgement.FAILURE for given in verdicts)


@pytest.mark.asyncio
async def test_gold_tasks_are_practised_in_training_worlds_and_the_truth_judges_them(team: Team) -> None:
    changed = team.config.model_dump()
    changed["rollout"] |= {"gold_tasks": True, "tasks_per_round": 12}
    changed["judge"] |= {"kind": "truth"}
    team.config = Config.model_validate(changed)
    assert team.config.frozen_roles == ()
    for _ in range(2):  # once more is the same
        await stages.propose(team, 2)
    tasks = team.ledger.tasks(2, Purpose.TRAIN)
    assert len(tasks) == 12
    assert all(task.gold_id and task.world and task.world.startswith("train-") for task in tasks)
    for episode in team.ledger.missing_episodes(2, Purpose.TRAIN):
        gold = gold_task(episode.task.gold_id or "")
        done = episode.sample == 0
        record = trajectory(
            episode.id,
            task=episode.task.instruction,
            answer=(gold.goal.answers or ("done",))[0] if done else None,
            final_state={"location": "/"} | gold.goal.state,
            outcome=Outcome.FINISHED if done else Outcome.STEP_LIMIT,
        ).model_copy(update={"task": episode.task})
        inbox.deliver(team.run_dir, record)
        inbox.take(team.run_dir, team.ledger, record)
    await stages.judge(team, 2)
    rows = team.ledger.trajectories(2, Purpose.TRAIN)
    assert {(row.sample, row.judgement) for row in rows} == {(0, Judgement.SUCCESS), (1, Judgement.FAILURE)}


@pytest.mark.asyncio
async def test_a_round_has_no_more_tasks_than_asked_for_when_its_websites_change_while_they_are_proposed(
    team: Team,
) -> None:
    changed = team.config.model_dump()
    changed["judge"] |= {"kind": "truth"}
    changed["audit"] |= {"share": 0.25}
    shop, forum = changed["websites"][:2]
    audits = []
    for websites, num_tasks in (([shop], 8), ([shop, forum], 16), ([forum], 16), ([shop], 16)):
        changed["rollout"] |= {"gold_tasks": True, "tasks_per_round": num_tasks}
        team.config = Config.model_validate(changed | {"websites": websites})
        await stages.propose(team, 2)
        audits.append(team.ledger.tasks(2, Purpose.AUDIT))
        if num_tasks == 8:
            assert len(team.ledger.tasks(2, Purpose.TRAIN)) == 6
    practised = team.ledger.tasks(2, Purpose.TRAIN)
    assert len(practised) == 12
    assert {task.website.name for task in practised} == {"shop", "forum"}
    assert all(planned == audits[0] for planned in audits)


@pytest.mark.asyncio
async def test_the_first_error_ends_the_others_and_is_raised_as_itself(team: Team) -> None:
    done = []

    async def work(item: int) -> None:
        if item == 3:
            raise RunFailed("three")
        await asyncio.sleep(0 if item < 3 else 60)
        done.append(item)

    with pytest.raises(RunFailed, match="three"):
        await team.each(range(9), work, limit=2)
    assert set(done) <= {0, 1, 2}


@pytest.mark.asyncio
async def test_asked_to_stop_it_finishes_what_has_begun_and_begins_nothing(team: Team) -> None:
    begun, done = [], []

    async def work(item: int) -> None:
        begun.append(item)
        if item == 3:
            team.stop.set()
        await asyncio.sleep(0)
        done.append(item)

    with pytest.raises(Stopped):
        await team.each(range(9), work, limit=2)
    assert begun == done
    assert len(done) <= 5


@pytest.mark.asyncio
async def test_an_empty_selection_seals_a_manifest_and_trains_nothing(team: Team) -> None:
    await stages.seal(team, 1)
    await stages.train(team, 1)
    assert team.ledger.manifest(1) is None
    assert [event.kind for event in team.ledger.events()] == ["unchanged"]


class Learner:
    """In the place of the learner's process: tells what it was given, and that there was nothing to learn from."""

    async def learn(
        self, manifest: Path, parent: Path, out: Path, starter: Path, sampler: Path, settings: LearnerSettings
    ) -> dict[str, float]:
        self.given = (manifest, parent, out, starter, sampler)
        return {"learn/optimizer_steps": 0}


def judged(team: Team, k: int, *judgements: Judgement) -> None:
    """A finished round's attempts at one task."""
    team.ledger.plan(k, Purpose.TRAIN, [Task(website=SHOP, instruction=f"Of round {k}.")], len(judgements))
    episodes = [e for e in team.ledger.missing_episodes(k, Purpose.TRAIN) if e.task.instruction == f"Of round {k}."]
    for number, (episode, judgement) in enumerate(zip(episodes, judgements, strict=True)):
        steps = (step(100 * k + number),)
        record = trajectory(episode.id, final=steps[0].observation).model_copy(
            update={"task": episode.task, "steps": steps}
        )
        inbox.deliver(team.run_dir, record)
        inbox.take(team.run_dir, team.ledger, record)
        verdict = Verdict(trajectory_id=record.id, judgement=judgement, reason="", judge="j", prompt_hash="h")
        team.ledger.commit_verdict(verdict)


def choose(team: Team, algorithm: Algorithm, replay_rounds: int = 0) -> None:
    learner = team.config.learner.model_copy(update={"algorithm": algorithm})
    selection = team.config.selection.model_copy(update={"replay_rounds": replay_rounds, "same_answer": False})
    team.config = team.config.model_copy(update={"learner": learner, "selection": selection})


S, F, U = Judgement.SUCCESS, Judgement.FAILURE, Judgement.UNDECIDED


@pytest.mark.parametrize(("algorithm", "rewards"), [(GRPO(), [0, 1]), (FilteredBC(), [0, 1])])
@pytest.mark.asyncio
async def test_the_sealed_manifest_tells_rewards_and_groups(
    team: Team, algorithm: Algorithm, rewards: list[int]
) -> None:
    judged(team, 1, S, F, U)
    choose(team, algorithm)
    await stages.seal(team, 1)
    path = team.ledger.manifest(1)
    assert path is not None
    data = read_manifest(path)
    assert sorted(attempt.reward for attempt in data.attempts) == rewards
    assert len({attempt.group for attempt in data.attempts}) == 1
    assert len(data.samples) == (2 if algorithm == GRPO() else 1)
    assert team.ledger.metrics(1)["learn/undecided"] == 1


@pytest.mark.asyncio
async def test_replay_takes_the_rounds_that_the_bound_allows_and_tells_their_age(team: Team) -> None:
    for k in (1, 2, 3):
        team.ledger.begin_round(k, Phase.SEAL)
        judged(team, k, S, F)
    choose(team, OffPolicy(), replay_rounds=1)
    await stages.seal(team, 3)
    path = team.ledger.manifest(3)
    assert path is not None
    data = read_manifest(path)
    assert {(attempt.trajectory_id[0], attempt.age) for attempt in data.attempts} == {("2", 1), ("3", 0)}
    assert {sample.trajectory_id[0] for sample in data.samples} == {"2", "3"}


@pytest.mark.asyncio
async def test_without_a_mixed_group_nothing_is_trained_and_why_is_counted(team: Team) -> None:
    judged(team, 1, S, S)
    choose(team, GRPO())
    await stages.seal(team, 1)
    await stages.train(team, 1)
    assert [event.kind for event in team.ledger.events()] == ["unchanged"]
    assert team.ledger.metrics(1)["learn/dropped_groups_all_succeeded"] == 1


@pytest.mark.asyncio
async def test_a_manifest_that_was_changed_after_it_was_sealed_is_refused(team: Team) -> None:
    judged(team, 1, S)
    await stages.seal(team, 1)
    path = team.ledger.manifest(1)
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b'"reward":1', b'"reward":0'))
    with pytest.raises(DamagedError, match=rf"{path.name}: not the manifest that was sealed"):
        await stages.train(team, 1)
    path.unlink()
    with pytest.raises(DamagedError, match="not the manifest that was sealed"):
        await stages.train(team, 1)


@pytest.mark.asyncio
async def test_what_is_sealed_is_not_sealed_again(team: Team) -> None:
    judged(team, 1, S, F)
    await stages.seal(team, 1)
    path = team.ledger.manifest(1)
    assert path is not None
    before = path.read_bytes()
    choose(team, GRPO())  # as `resume --set` may between sealing and training
    await stages.seal(team, 1)
    assert path.read_bytes() == before


@pytest.mark.asyncio
async def test_a_learner_that_finds_nothing_leaves_the_weights_and_it_is_noted(team: Team) -> None:
    judged(team, 1, S)
    learner = Learner()
    team.workers = cast(Workers, learner)
    team.ledger.commit_weights(WeightsRow(0, None, -1, "/starter"))
    await stages.seal(team, 1)
    await stages.train(team, 1)
    starter = Path("/starter")
    assert learner.given[1:] == (starter, team.run_dir / "weights" / "v000001", starter, starter)
    assert [event.text for event in team.ledger.events()] == [
        "filtered_bc found nothing to learn from, so the weights stay as they are"
    ]
    assert [row.version for row in team.ledger.weights()] == [0]


class SlowLearner:
    """A learner that takes three optimizer steps, each once the one before was told of."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Phase, int, int]] = []

    def watch(self, *progress: Any) -> None:
        self.told.append(progress)

    async def learn(self, manifest: Path, parent: Path, out: Path, *_: object) -> dict[str, float]:
        out.parent.mkdir()
        for number in (1, 2, 3):
            log_step(out, OptimizerStep(step=number, total=4, loss=1, grad_norm=1, lr=1, tokens=1, at=time.time() - 60))
            async with asyncio.timeout(30):
                while number < 3 and (1, Phase.TRAIN, number, 4) not in self.told:
                    await asyncio.sleep(0.01)
        return {"learn/optimizer_steps": 0}


@pytest.mark.asyncio
async def test_optimizer_steps_are_told_of_while_they_are_taken_and_the_last_one_at_the_end(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "TELL_S", 0.01)
    judged(team, 1, S)
    learner = SlowLearner()
    team.workers, team.watch = cast(Workers, learner), learner.watch
    team.ledger.commit_weights(WeightsRow(0, None, -1, "/starter"))
    await stages.seal(team, 1)
    team.ledger.set_phase(1, Phase.TRAIN)
    await stages.train(team, 1)
    assert list(dict.fromkeys(learner.told)) == [(1, Phase.TRAIN, number, 4) for number in (1, 2, 3)]
    (line,) = (line for line in describe(team.run_dir) if line.startswith("  training"))
    assert line == "  training: 3 of 4 optimizer steps, loss 1.0000, last one 60 s ago"


@pytest.mark.asyncio
async def test_a_learner_that_fails_is_no_longer_watched(team: Team) -> None:
    class Failing:
        async def learn(self, *_: object) -> dict[str, float]:
            raise RunFailed("the learner failed: why")

    judged(team, 1, S)
    team.workers = cast(Workers, Failing())
    team.ledger.commit_weights(WeightsRow(0, None, -1, "/starter"))
    await stages.seal(team, 1)
    with pytest.raises(RunFailed, match="the learner failed: why"):
        await stages.train(team, 1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_seed_depends_on_the_run_and_on_what_it_is_for(team: Team) -> None:
    assert team.seed(1, "worlds") == team.seed(1, "worlds")
    assert len({team.seed(k, what) for k in (1, 2) for what in ("worlds", "selection")}) == 4


@pytest.mark.asyncio
async def test_roles_that_take_turns_are_loaded_when_their_turn_comes_and_only_then(tmp_path: Path) -> None:
    starter = tmp_path / "starter"
    for name in ("policy", "judge", "proposer"):
        (starter / name).mkdir(parents=True)
        (starter / name / "config.json").write_text("{}")
    with ScriptedServer(quick_answers) as server, Ledger(tmp_path) as ledger:
        settings = [f"run.runs_dir={tmp_path}", f'serving.base_urls=["{server.url}"]', f"model.starter={starter}"]
        config = configs.load("quickstart", settings)
        assert config.served_apart == ()
        with Tracker(tmp_path, config.tracking.model_copy(update={"wandb": "off"}), {}) as tracker:
            team = make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())
            weights = WeightsRow(0, None, -1, str(starter / "policy"))
            await team.serve(weights)
            for role in ("proposer", "judge", "judge"):
                reply = await (await team.model(role))(Prompt(evaluator.judge.SYSTEM, ("?",)), Sampling())
                assert "Verdict" in reply.text
            await team.serve(weights)
            await team.serve(weights)
    assert [Path(path).name for path in server.published] == ["policy", "proposer", "judge", "policy"]


@pytest.mark.asyncio
async def test_a_frozen_role_is_loaded_into_given_servers_that_may_hold_weights_of_before(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    with ScriptedServer(quick_answers) as server, Ledger(tmp_path) as ledger:
        settings = [f"run.runs_dir={tmp_path}", f'serving.base_urls=["{server.url}"]']
        config = configs.load("quickstart", settings)
        config = config.model_copy(update={"model": ModelSource(base=base)})
        with Tracker(tmp_path, config.tracking.model_copy(update={"wandb": "off"}), {}) as tracker:
            ledger.commit_weights(WeightsRow(0, None, -1, str(base)))
            team = make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())
            for role in ("proposer", "judge"):
                await team.model(role)
    assert [Path(path).name for path in server.published] == ["base"]
