"""The learners' comparison (bench/learner_efficiency.py) with a scripted model: real runs, real updates, small."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from bench.learner_efficiency import main
from bench.scripted import CONFIG, Call, ScriptedServer, StarterTokens, wander, write_tiny_model
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


@pytest.mark.slow
def test_algorithms_learn_from_the_same_episodes_and_are_measured_on_the_same_tasks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny_model(tmp_path / "starter" / "policy")
    (tmp_path / "starter" / "STARTER.json").write_text("{}")
    small = ["rollout.samples_per_task=2", "rollout.tasks_per_round=2", "rollout.agent.max_steps=2"]
    small += ["evaluation.num_tasks=2", "learner.lora_rank=4", "judge.checked=false"]
    with ScriptedServer(Judging(), StarterTokens()) as server:
        settings = [*server.settings(tmp_path), *small]
        arms = ["grpo", "pulled: learner.algorithm.name=grpo learner.algorithm.kl=0.1"]
        main("3", arms=arms, rounds=1, config=str(CONFIG), overrides=settings, runs_dir=tmp_path / "runs")
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert told.keys() == {"filtered_bc_gain", "grpo_gain", "pulled_gain", "best_ratio", "episodes", "seeds"}
    assert (told["episodes"], told["seeds"]) == (4, 1)
    base, *others = (tmp_path / "runs" / f"efficiency-seed3{arm}" for arm in ("", "-grpo", "-pulled"))
    with Ledger.open_readonly(base) as books:
        attempts = [(row.id, row.sha256, row.judgement) for row in books.trajectories(1, Purpose.TRAIN)]
        before = [(row.id, row.sha256, row.truth) for row in books.trajectories(0)]
        measured = [row.id for row in books.trajectories(1, Purpose.EVAL)]
    for other in others:
        with Ledger.open_readonly(other) as books:
            assert [(row.id, row.sha256, row.judgement) for row in books.trajectories(1, Purpose.TRAIN)] == attempts
            assert [(row.id, row.sha256, row.truth) for row in books.trajectories(0)] == before
            assert [row.id for row in books.trajectories(1, Purpose.EVAL)] == measured
            counts, manifest = books.metrics(1), books.manifest(1)
            assert manifest is not None
            assert (books.weights()[-1].version, books.weights()[-1].round) == (1, 1)
        data = read_manifest(manifest)
        assert counts["learn/groups"] == counts["learn/kept_tasks"] == 2
        assert counts["learn/kept_steps"] == len(data.samples) > 0
        assert ("learn/starter_kl" in counts) is True
        assert {attempt.trajectory_id for attempt in data.attempts} <= {name for name, *_ in attempts}
        assert {attempt.reward for attempt in data.attempts} == {0, 1}
