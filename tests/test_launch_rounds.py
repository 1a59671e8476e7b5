"""The whole loop through its real entry: real Ray, real Chromium, real HTTP, a model that answers as told.

In round 1's rollouts first the rollout actor is killed, then the whole program; the run is resumed, asked to stop
(SIGTERM) in a later round, and resumed again; then its books are looked at.
"""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from bench.common import run_command
from bench.scripted import CONFIG, Call, ScriptedServer, quick_answers
from launch.books import LedgerReader, Phase, Purpose
from launch.ledger import Ledger
from launch.stages import measured_tasks, plan_practice, spread
from proposer.task import Website

ROOT = Path(__file__).parents[1]
DEADLINE_S = 120
GONE_DEADLINE_S = 20
EXIT_STOPPED = 75
RAYS_OWN = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""They end by themselves, about a minute after their node was killed."""


@dataclass
class Saboteur:
    """A script that strikes at chosen calls to the policy: kills the actor, kills the program, asks it to stop."""

    victim: subprocess.Popen[bytes] | None = None
    strikes: dict[int, str] = field(default_factory=lambda: {5: "kill actor", 9: "kill", 20: "stop"})
    num_policy_calls: int = 0
    family: list[psutil.Process] = field(default_factory=list)
    """The killed program's processes that hold anything of ours."""

    def __call__(self, call: Call) -> str | None:
        self.num_policy_calls += call.role == "policy"
        strike = self.strikes.pop(self.num_policy_calls, None)
        if strike and self.victim:
            self.do(strike, psutil.Process(self.victim.pid))
        return quick_answers(call)

    def do(self, strike: str, program: psutil.Process) -> None:
        family = program.children(recursive=True)
        match strike:
            case "kill actor":
                (actor,) = (process for process in family if process.name().startswith("ray::RolloutActor"))
                actor.kill()
            case "kill":
                self.family = [process for process in family if process.name() not in RAYS_OWN]
                program.kill()
            case "stop":
                program.terminate()


@dataclass(frozen=True)
class Story:
    """What happened to the run."""

    run_dir: Path
    codes: list[int]
    survivors: list[psutil.Process]
    phases_at_exit: list[tuple[int, Phase]]
    files_at_kill: dict[str, int]
    """Committed trajectories when the program was killed: name -> modification time."""
    published: list[str]
    num_policy_calls: int
    said_when_done: str
    """By one more `resume` of the finished run."""


def launch(saboteur: Saboteur, command: Sequence[str]) -> int:
    saboteur.victim = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    return saboteur.victim.wait(DEADLINE_S)


def phase_of(run_dir: Path) -> tuple[int, Phase]:
    with Ledger.open_readonly(run_dir) as books:
        last = books.rounds()[-1]
    return last.round, last.phase


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    directory = tmp_path_factory.mktemp("launch")
    (directory / "starter" / "policy").mkdir(parents=True)
    (directory / "starter" / "STARTER.json").write_text("{}")
    (directory / "starter" / "policy" / "config.json").write_text("{}")
    run_dir, saboteur = directory / "runs" / "tiny", Saboteur()
    with ScriptedServer(saboteur) as server:
        begin = run_command(str(CONFIG), [*server.settings(directory), "rollout.samples_per_task=2"])
        codes, phases = [launch(saboteur, begin)], [phase_of(run_dir)]
        _, survivors = psutil.wait_procs(saboteur.family, GONE_DEADLINE_S)
        with Ledger.open_readonly(run_dir) as books:
            files = {row.path: (run_dir / row.path).stat().st_mtime_ns for row in books.trajectories()}
        for _ in range(2):
            codes.append(launch(saboteur, [sys.executable, "-m", "launch", "resume", str(run_dir)]))
            phases.append(phase_of(run_dir))
        again = subprocess.run(
            [sys.executable, "-m", "launch", "resume", str(run_dir)], cwd=ROOT, capture_output=True, text=True
        )
    return Story(run_dir, codes, survivors, phases, files, server.published, saboteur.num_policy_calls, again.stdout)


@pytest.fixture
def books(story: Story):
    with Ledger.open_readonly(story.run_dir) as books:
        yield books


def test_exit_codes_tell_killed_stopped_and_done(story: Story) -> None:
    assert story.codes == [-signal.SIGKILL, EXIT_STOPPED, 0]


def test_the_run_was_stopped_inside_a_round_and_went_on_there(story: Story) -> None:
    assert story.phases_at_exit[0] == (1, Phase.ROLLOUT)
    assert story.phases_at_exit[-1] == (2, Phase.DONE)


def test_the_episodes_of_a_killed_actor_were_tried_again(books: LedgerReader) -> None:
    retries = [event.text for event in books.events() if event.kind == "retry"]
    assert retries
    assert all("browser_crash" in text for text in retries)
    assert all(row.outcome.is_agents for row in books.trajectories())


def test_a_finished_run_is_told_again_and_nothing_is_done(story: Story) -> None:
    assert "all 2 rounds are done" in story.said_when_done
    assert "report.html" in story.said_when_done


def test_nothing_of_a_killed_program_stays_behind(story: Story) -> None:
    assert story.survivors == []


def test_what_was_committed_before_the_kill_was_not_done_again(story: Story) -> None:
    now = {path: (story.run_dir / path).stat().st_mtime_ns for path in story.files_at_kill}
    assert story.files_at_kill == now
    assert len(now) >= 4  # round 0's evaluation at the least


def test_every_planned_episode_has_exactly_one_outcome(books: LedgerReader) -> None:
    for k in range(3):
        for purpose in Purpose:
            assert sum(books.outcomes(k, (purpose,)).values()) == books.num_episodes(k, purpose)
    assert Counter(row.purpose for row in books.trajectories()) == {Purpose.EVAL: 12, Purpose.TRAIN: 12}


def test_every_episode_of_the_agents_was_judged_once(books: LedgerReader) -> None:
    rows = books.trajectories()
    assert all(row.judgement is not None for row in rows if row.outcome.is_agents)
    assert all(verdict.judge == "fake-judge" for row in rows if (verdict := books.verdict(row.id)))


def test_only_measured_episodes_have_a_ground_truth(books: LedgerReader) -> None:
    assert all((row.truth is not None) == (row.purpose is Purpose.EVAL) for row in books.trajectories())


def test_every_round_measures_the_same_held_out_tasks_and_practises_new_ones(books: LedgerReader) -> None:
    assert books.tasks(0, Purpose.EVAL) == books.tasks(1, Purpose.EVAL) == books.tasks(2, Purpose.EVAL)
    worlds = [{task.world for task in books.tasks(k, Purpose.TRAIN)} for k in (1, 2)]
    assert worlds[0].isdisjoint(worlds[1])
    assert all(world and world.startswith("train-") for world in worlds[0] | worlds[1])


def test_a_round_that_selects_nothing_leaves_the_weights_and_says_so(story: Story, books: LedgerReader) -> None:
    assert [row.version for row in books.weights()] == [0]  # the fake server tells no token ids to learn from
    assert [event.round for event in books.events() if event.kind == "unchanged"] == [1, 2]
    assert {Path(path).name for path in story.published} == {"policy"}


def test_the_summary_has_the_figures_of_every_round(story: Story) -> None:
    summary = json.loads((story.run_dir / "summary.json").read_text())
    assert summary.keys() == {"wall_s", "setup_s", "rounds"}
    assert [row["round"] for row in summary["rounds"]] == [0, 1, 2]
    last = summary["rounds"][-1]
    assert (last["n"], last["episodes"], last["tasks_kept"]) == (4, 10, 3)
    assert sum(last["outcomes"].values()) == last["episodes"]
    assert last["ci_low"] <= last["held_out_success"] <= last["ci_high"]
    assert last["seconds"]["rollout"] > 0


def test_metrics_and_report_are_there(story: Story) -> None:
    lines = [json.loads(line) for line in (story.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert (story.run_dir / "report.html").stat().st_size > 0


def test_the_inbox_is_empty_at_the_end(story: Story) -> None:
    assert list((story.run_dir / "inbox").iterdir()) == []


SHOP, FORUM = Website(name="shop", url="practice:shop"), Website(name="live", url="https://example.org/")


@pytest.mark.parametrize(("total", "parts", "shares"), [(7, 3, [3, 2, 2]), (2, 4, [1, 1, 0, 0]), (0, 2, [0, 0])])
def test_spread_is_even_and_loses_nothing(total: int, parts: int, shares: list[int]) -> None:
    assert spread(total, parts) == shares


def test_a_plan_practises_every_website_in_fresh_worlds() -> None:
    plan = plan_practice([SHOP, FORUM], num_tasks=10, tasks_per_world=2, seed=3)
    assert sum(practice.num_tasks for practice in plan) == 10
    worlds = [practice.world for practice in plan if practice.website == SHOP]
    assert len(set(worlds)) == len(worlds) == 3
    assert plan == plan_practice([SHOP, FORUM], num_tasks=10, tasks_per_world=2, seed=3)


def test_measured_tasks_are_gold_tasks_of_held_out_worlds() -> None:
    tasks = measured_tasks([SHOP, FORUM], num_tasks=30, first_world=5)
    assert len({task.id for task in tasks}) == 30
    assert all(task.source == "gold" and task.world.startswith("heldout-") for task in tasks if task.world)
    assert tasks[0].world == "heldout-5"
