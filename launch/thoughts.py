"""The gap that thoughts make: what the judge says of some episodes when it is shown them, against its verdict without.

In: a round's judged training episodes. Out: ``thoughts/round-0001.json`` in the run's directory, with verdicts that
reach no reward, group or manifest; and metrics. A policy that learns to argue instead of to act widens the gap.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from evaluator.agreement import sign_test
from evaluator.panel import seeing_thoughts
from evaluator.verdict import Judgement, Verdict
from launch.books import LedgerReader, Purpose
from launch.errors import RunFailed
from launch.inbox import write_atomic
from launch.judging import Work, judge_all
from policy.crash import crash_point
from policy.trajectory import Outcome

if TYPE_CHECKING:
    from launch.team import Team

THOUGHTS = "thoughts"


class JudgedWithThoughts(BaseModel):
    """A round's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    round: int
    verdicts: tuple[Verdict, ...]


async def measure_gap(team: "Team", k: int) -> None:
    """Have some of the round's episodes judged with their thoughts, unless they were; note the figures.

    Raises:
        RunFailed: the judge is out.
    """
    if not team.config.audit.thoughts_per_round:
        return
    path = file_of(team.run_dir, k)
    if not path.is_file():
        judged = JudgedWithThoughts(round=k, verdicts=tuple(await _judge(team, k)))
        write_atomic(path, judged.model_dump_json().encode())
    crash_point("judge:thoughts")
    verdicts = JudgedWithThoughts.model_validate_json(path.read_bytes()).verdicts
    team.ledger.set_metrics(k, figures(team.ledger, verdicts))


def file_of(run_dir: Path, k: int) -> Path:
    """Where a round's verdicts with thoughts are kept."""
    return run_dir / THOUGHTS / f"round-{k:04d}.json"


async def _judge(team: "Team", k: int) -> list[Verdict]:
    """Verdicts on a sample of the episodes that the agent finished, in the order of their ids."""
    finished = [row for row in team.ledger.trajectories(k, Purpose.TRAIN) if row.outcome is Outcome.FINISHED]
    judged = [row for row in finished if row.judgement is not None]
    count = min(len(judged), team.config.audit.thoughts_per_round)
    rows = random.Random(team.seed(k, THOUGHTS)).sample(judged, count)
    verdicts: list[Verdict] = []
    work = Work(team.config.rollout.num_judgements, team.config.rollout.max_attempts)
    await judge_all(seeing_thoughts(await team.judge()), rows, team.ledger.load, verdicts.append, work)
    if rows and not verdicts:
        raise RunFailed(f"round {k}: the judge gave no verdict on any of {count} episodes with thoughts; then `resume`")
    return sorted(verdicts, key=lambda verdict: verdict.trajectory_id)


def figures(books: LedgerReader, verdicts: Iterable[Verdict]) -> dict[str, float]:
    """The metrics of a round's gap (keys ``thoughts/``); shares only where anything was judged.

    ``thoughts/gap`` is the share of successes with thoughts less the share without, on the same episodes;
    ``thoughts/p`` the chance of at least so many gained successes if thoughts made no difference.
    """
    pairs = [
        (verdict.judgement is Judgement.SUCCESS, without.judgement is Judgement.SUCCESS)
        for verdict in verdicts
        if (without := books.verdict(verdict.trajectory_id))
    ]
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    metrics: dict[str, float] = {"thoughts/judged": len(pairs), "thoughts/gained": gained, "thoughts/lost": lost}
    if pairs:
        metrics |= {
            "thoughts/with": sum(with_thoughts for with_thoughts, _ in pairs) / len(pairs),
            "thoughts/without": sum(without for _, without in pairs) / len(pairs),
            "thoughts/gap": (gained - lost) / len(pairs),
            "thoughts/p": sign_test(gained, lost),
        }
    return metrics
