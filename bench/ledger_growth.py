"""Does a round's bookkeeping take longer the longer a run is? The same round after 1,000 episodes and after 100,000.

A round goes through the program's own stages (propose, roll out, judge, seal, evaluate, record) with real books and
files; workers and models answer at once, and the workers' own writing is taken off, so that the driver's work is what
is timed. Nothing is trained or published: that is one row each. The rounds before are rows in the books without files,
which no stage looks at. The two runs play their next rounds in turn; figures are medians over them.

    python -m bench.ledger_growth --seed 0
"""

import asyncio
import contextlib
import itertools
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, cast

import typer

from evaluator.verdict import Judgement, Verdict
from launch import config as configs
from launch import inbox, stages, summary
from launch.books import DATABASE, Phase, ProposalRow, Purpose, WeightsRow
from launch.ledger import Ledger
from launch.team import Team, make_team
from launch.tracking import Tracker
from launch.workers import Order, Workers
from policy.blobs import BlobStore
from policy.trajectory import Action, ActionKind, Element, Observation, Outcome, Step, Trajectory
from proposer.generate import Prompt, Response, Sampling
from proposer.look import Look
from proposer.task import Task, Website

SHORT, LONG = 1_000, 100_000
NUM_ROUNDS = 9
SETTINGS = (
    *("rollout.tasks_per_round=100", "rollout.samples_per_task=2", "evaluation.num_tasks=40"),
    *("evaluation.unseen_num_tasks=10", "proposer.grounded=false", "proposer.max_per_opening=100"),
    *("judge.checked=false", "tracking.wandb=off", 'serving.base_urls=["http://127.0.0.1:9"]'),
)
EPISODES_PER_ROUND = 250
STEPS_PER_EPISODE = 5
PROMPT_TOKENS, RESPONSE_TOKENS = 450, 30
VERDICT = Verdict(
    trajectory_id="", judgement=Judgement.SUCCESS, reason="So it seems.", judge="none", prompt_hash="0" * 12
)


@dataclass
class Hands:
    """In the place of the Ray workers: looks and finished episodes come at once."""

    run_dir: Path
    seconds: float = 0.0
    """Spent on writing episodes, which is the workers' work."""
    num_slots: int = 12

    async def look(self, website: Website, world: str | None, num_pages: int, seed: int) -> list[Look]:
        """One page."""
        return [Look(website.url, website.name, "Kettle", "<a> Kettle [1]", b"picture")]

    async def run(self, order: Order) -> str:
        """An episode of some steps with as many tokens as the quickstart's."""
        began = time.perf_counter()
        screenshot = BlobStore(self.run_dir / "blobs").put(order.trajectory_id.encode())
        steps = tuple(_step(order, number, screenshot) for number in range(STEPS_PER_EPISODE))
        name = inbox.deliver(
            self.run_dir,
            Trajectory(
                id=order.trajectory_id,
                task=order.task,
                steps=steps,
                outcome=Outcome.FINISHED,
                answer="done",
                final=steps[-1].observation,
            ),
        )
        self.seconds += time.perf_counter() - began
        return name


def _step(order: Order, number: int, screenshot: str) -> Step:
    kettle = Element(mark=1, tag="a", name="Kettle", box=(0, 0, 10, 10))
    seed = order.sampling.seed or 0
    return Step(
        observation=Observation(url="", title="", elements=(kettle,), listing="<a> Kettle [1]", screenshot=screenshot),
        response="Thought: The kettle.\nAction: Click Kettle [1]",
        thought="The kettle.",
        action=Action(kind=ActionKind.CLICK, mark=1),
        weights=order.weights,
        prompt_ids=tuple(range(PROMPT_TOKENS)),
        token_ids=(seed, *range(number, number + RESPONSE_TOKENS)),
        logprobs=(-0.5,) * (RESPONSE_TOKENS + 1),
    )


@dataclass
class Run:
    """A run with some rounds behind it."""

    team: Team
    hands: Hands
    next_round: int
    seconds: list[float] = field(default_factory=list)
    """Of each round played, less what the workers would have done."""

    def play(self) -> None:
        """Play and time the next round."""
        began, before = time.perf_counter(), self.hands.seconds
        asyncio.run(play_round(self.team, self.next_round))
        self.seconds.append(time.perf_counter() - began - (self.hands.seconds - before))
        self.next_round += 1


async def play_round(team: Team, k: int) -> None:
    """All that a round does but training and publishing."""
    team.judge_slots = asyncio.Semaphore(team.config.rollout.num_judgements)  # it belongs to one event loop
    team.ledger.begin_round(k, Phase.PROPOSE)
    for stage in (stages.propose, stages.roll_out, stages.judge, stages.seal, stages.evaluate):
        await stage(team, k)
    stages.record(team, k)
    num_ended = sum(team.ledger.outcomes(k, tuple(Purpose)).values())
    assert num_ended == EPISODES_PER_ROUND, f"round {k}: {num_ended} episodes ended, expected {EPISODES_PER_ROUND}"


@contextlib.contextmanager
def open_run(run_dir: Path, num_episodes: int, seed: int) -> Iterator[Run]:
    """A run in which so many episodes were committed in earlier rounds."""
    overrides = [*SETTINGS, f"run.seed={seed}", f"run.runs_dir={run_dir.parent}", f"run.name={run_dir.name}"]
    config = configs.load("quickstart", overrides)
    (run_dir / inbox.INBOX).mkdir(parents=True)
    with Ledger(run_dir) as ledger, Tracker(run_dir, config.tracking, {}) as tracker:
        team = make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())
        hands = Hands(run_dir)
        team.workers = cast(Workers, hands)
        team.models = {"judge": says_success, "proposer": Inventor()}
        team.fleet.version = 0
        num_rounds = num_episodes // EPISODES_PER_ROUND
        write_history(team, num_rounds)
        yield Run(team, hands, num_rounds)


async def says_success(prompt: Prompt, sampling: Sampling) -> Response:
    """A judge that is content."""
    return Response("Reason: So it seems.\nVerdict: success")


class Inventor:
    """A proposer whose tasks are all different."""

    def __init__(self) -> None:
        """Begin with the first."""
        self._numbers = itertools.count()

    async def __call__(self, prompt: Prompt, sampling: Sampling) -> Response:
        """One task."""
        return Response(json.dumps({"tasks": [f"Find the kettle with the number {next(self._numbers)} in the shop."]}))


def write_history(team: Team, num_rounds: int) -> None:
    """Rows of earlier rounds: tasks and episodes by the program's own means, what came of them in bulk."""
    ledger = team.ledger
    ledger.set_meta("created", "0")
    ledger.commit_weights(WeightsRow(0, None, -1, "/nowhere"))
    for k in range(num_rounds):
        plan_round(team, k)
    with contextlib.closing(sqlite3.connect(ledger.run_dir / DATABASE)) as db, db:
        db.execute(
            """INSERT INTO trajectories SELECT id, 'finished', 'trajectories/' || id || '.json', ?, 5, 0, 9, 5, 4, 0
            FROM episodes""",
            ["0" * 64],
        )
        db.execute("INSERT INTO truths SELECT id, random() % 2 FROM episodes WHERE purpose <> 'train'")
        db.execute(
            "INSERT INTO verdicts SELECT id, 'success', json_set(?, '$.trajectory_id', id) FROM episodes",
            [VERDICT.model_dump_json()],
        )
    summary.write_summary(ledger)


def plan_round(team: Team, k: int) -> None:
    """Tasks and episodes of a round, which is then taken as done."""
    ledger, config = team.ledger, team.config
    ledger.begin_round(k, Phase.PROPOSE)
    websites, world = config.websites_of("train"), f"train-{k}"
    for website, num_tasks in zip(websites, stages.spread(config.rollout.tasks_per_round, len(websites)), strict=True):
        instructions = [f"Find kettle {number} of round {k}." for number in range(num_tasks)]
        tasks = [Task(website=website, instruction=text, world=world) for text in instructions]
        row = ProposalRow(k, website.name, world, num_tasks, num_tasks, {})
        ledger.add_proposals(row, tasks, config.rollout.samples_per_task)
    settings = config.evaluation
    held_out = stages.measured_tasks(websites, settings.num_tasks, settings.first_world, settings.max_moves)
    unseen = stages.measured_tasks(
        config.websites_of("unseen"), settings.unseen_num_tasks, settings.first_world, settings.max_moves
    )
    ledger.plan(k, Purpose.EVAL, held_out, num_samples=1)
    ledger.plan(k, Purpose.UNSEEN, unseen, num_samples=1)
    ledger.set_phase(k, Phase.DONE)


def main(seed: Annotated[int, typer.Option(help="Of the runs.", min=0)] = 0) -> None:
    """Compare the bookkeeping of a round after 1,000 episodes with that after 100,000; the last line is JSON."""
    with tempfile.TemporaryDirectory(prefix="pae-ledger-") as directory, contextlib.ExitStack() as stack:
        short, long = (
            stack.enter_context(open_run(Path(directory) / f"after-{number}", number, seed)) for number in (SHORT, LONG)
        )
        for _ in range(NUM_ROUNDS):
            short.play()
            long.play()
            print(f"a round of {EPISODES_PER_ROUND}: {short.seconds[-1]:.3f} s and {long.seconds[-1]:.3f} s")
    short_s, long_s = median(short.seconds), median(long.seconds)
    print(json.dumps({"round_s_at_1k": short_s, "round_s_at_100k": long_s, "ratio": long_s / short_s}))


if __name__ == "__main__":
    typer.run(main)
