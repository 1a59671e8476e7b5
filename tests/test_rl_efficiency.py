"""What is gained by learning (bench/quickstart_learning.py, bench/learner_efficiency.py): small scripted runs."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from bench import learner_efficiency, quickstart_learning
from bench.quickstart_learning import bootstrap, gains_between, mean_gain, tasks_across_seeds, tasks_within_seeds
from bench.scripted import CONFIG, Call, ScriptedServer, StarterTokens, wander, write_tiny_starter
from launch.books import Purpose
from launch.ledger import Ledger
from rl.manifest import read_manifest


class Judging:
    """A script whose judge calls every other attempt at a task a success."""

    def __init__(self) -> None:
        self.num_judged: Counter[str] = Counter()

    def __call__(self, call: Call) -> str | None:
        if call.role != "judge":
            return wander(call)
        (task,) = set(re.findall(r"Find thing number \d+", call.text)) or {"a measured one"}
        self.num_judged[task] += 1
        return f"Reason: so it seems.\nVerdict: {'success' if self.num_judged[task] % 2 else 'failure'}"


SMALL = (
    *("rollout.samples_per_task=2", "rollout.tasks_per_round=2", "rollout.agent.max_steps=2"),
    *("evaluation.num_tasks=2", "learner.lora_rank=4", "judge.checked=false"),
)


@pytest.mark.slow
def test_algorithms_learn_from_the_same_episodes_and_are_measured_on_the_same_tasks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny_starter(tmp_path)
    with ScriptedServer(Judging(), StarterTokens()) as server:
        settings = [*server.settings(tmp_path), *SMALL]
        arms = ["pulled: learner.algorithm.name=grpo learner.algorithm.kl=0.1"]
        learner_efficiency.main(
            "3", arms=arms, rounds=1, config=str(CONFIG), overrides=settings, runs_dir=tmp_path / "runs"
        )
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert told.keys() == {"filtered_bc_gain", "pulled_gain", "best_ratio", "episodes", "seeds"}
    assert (told["episodes"], told["seeds"]) == (4, 1)
    base, other = (tmp_path / "runs" / name for name in ("efficiency-seed3", "efficiency-seed3-pulled"))
    with Ledger.open_readonly(base) as books, Ledger.open_readonly(other) as others:
        attempts = [(row.id, row.sha256, row.judgement) for row in books.trajectories(1, Purpose.TRAIN)]
        assert [(row.id, row.sha256, row.judgement) for row in others.trajectories(1, Purpose.TRAIN)] == attempts
        assert [row.sha256 for row in others.trajectories(0)] == [row.sha256 for row in books.trajectories(0)]
        assert [row.id for row in others.trajectories(1, Purpose.EVAL)] == [
            row.id for row in books.trajectories(1, Purpose.EVAL)
        ]
        assert (others.weights()[-1].version, others.weights()[-1].round) == (1, 1)
        counts, manifest = others.metrics(1), others.manifest(1)
    assert manifest is not None
    data = read_manifest(manifest)
    assert counts["learn/groups"] == counts["learn/kept_tasks"] == 2
    assert counts["learn/kept_steps"] == len(data.samples) > 0
    assert "learn/starter_kl" in counts
    assert {attempt.trajectory_id for attempt in data.attempts} <= {name for name, *_ in attempts}
    assert {attempt.reward for attempt in data.attempts} == {0, 1}


def test_an_arm_is_an_algorithm_or_a_name_and_what_it_changes() -> None:
    assert learner_efficiency.changes_of("grpo") == ("grpo", ["learner.algorithm.name=grpo"])
    named = learner_efficiency.changes_of("few: selection.critical_share=0.5  learner.lr=1e-3")
    assert named == ("few", ["selection.critical_share=0.5", "learner.lr=1e-3"])


@pytest.mark.slow
def test_seeds_share_what_the_starter_can_do_and_practise_other_tasks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny_starter(tmp_path)
    with ScriptedServer(Judging(), StarterTokens()) as server:
        settings = [*server.settings(tmp_path), *SMALL, "run.rounds=1", "evaluation.unseen_num_tasks=0"]
        quickstart_learning.main("3,4", config=str(CONFIG), overrides=settings, runs_dir=tmp_path / "runs")
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert told == {"gain_mean": 0, "gain_ci_low": 0, "gain_ci_high": 0, "unseen_gain_mean": None, "seeds": 2, "n": 4}
    first, second = (tmp_path / "runs" / f"scripted-seed{seed}" for seed in (3, 4))
    with Ledger.open_readonly(first) as books, Ledger.open_readonly(second) as others:
        assert [row.sha256 for row in books.trajectories(0)] == [row.sha256 for row in others.trajectories(0)] != []
        worlds = [{task.world for task in each.tasks(1, Purpose.TRAIN)} for each in (books, others)]
        assert worlds[0].isdisjoint(worlds[1])
        assert all(each.trajectories(1, Purpose.EVAL) for each in (books, others))


def test_a_gain_is_of_tasks_measured_both_times_and_its_interval_of_seeds_and_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quickstart_learning, "NUM_DRAWS", 1000)
    won = gains_between({"a": False, "b": True, "c": False}, {"a": True, "b": True, "d": True})
    assert won == {"a": 1, "b": 0}
    assert mean_gain([won, {"a": 0, "b": 0}]) == 0.25
    assert mean_gain([won, {}]) is None
    assert bootstrap([{"a": 1, "b": 1}] * 3, tasks_within_seeds, 0) == [1, 1]
    one_task = [dict.fromkeys("abcdefgh", gain) for gain in (0, 1)]  # all of a seed's tasks alike: only seeds differ
    assert bootstrap(one_task, tasks_within_seeds, 0) == [0, 1]
    alike = [{"a": 1, "b": -1}] * 9  # all seeds alike: one draw of tasks for all of them is ever so wide
    assert bootstrap(alike, tasks_across_seeds, 0) == [-1, 1]
    low, high = bootstrap(alike, tasks_within_seeds, 0)
    assert -0.6 < low < -0.3 and 0.3 < high < 0.6  # the mean of 18 draws of 1 or -1: 1.96 / sqrt(18) is 0.46
