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
        main("3", algorithms="grpo", config=str(CONFIG), overrides=settings, runs_dir=tmp_path / "runs")
    *_, learned, _, _, figures = map(str, capfd.readouterr().out.splitlines())
    told = json.loads(figures)
    assert told.keys() == {"filtered_bc_gain", "grpo_gain", "best_ratio", "episodes", "seeds"}
    assert (told["episodes"], told["seeds"]) == (4, 1)
    base, other = (tmp_path / "runs" / name for name in ("efficiency-seed3", "efficiency-seed3-grpo"))
    with Ledger.open_readonly(base) as books, Ledger.open_readonly(other) as others:
        assert [row.task_id for row in books.trajectories(0)] == [row.task_id for row in others.trajectories(0)]
        episodes = {row.id for row in books.trajectories(1, Purpose.TRAIN)}
    counts, data = json.loads(learned), read_manifest(base / "manifests" / "grpo.json")
    assert counts["groups"] == counts["kept_tasks"] == 2
    assert counts["kept_steps"] == len(data.samples) > 0
    assert {attempt.trajectory_id for attempt in data.attempts} <= episodes
    assert {attempt.reward for attempt in data.attempts} == {0, 1}
    assert (tmp_path / "runs" / "efficiency-seed3-grpo-model" / "policy" / "COMMIT.json").is_file()
