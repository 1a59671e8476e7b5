"""Watching the judge while a run goes on: canaries beside each round's episodes, and the alarm that stops the run.

In: a round's finished training episodes and its judged audits (launch/audit.py). Out: ``canaries/round-0001.json`` in
the run's directory, which is all that knows of the canaries: no reward, group or manifest does. Made again from the
same episodes they are the same. The alarm hears both: whatever is false by construction, and whatever is known to be.
"""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from evaluator.agreement import Share
from evaluator.canaries import Canary, make_canaries
from evaluator.noise import judge_error
from evaluator.verdict import Judgement, Verdict
from launch import audit
from launch.books import DATABASE, Purpose
from launch.errors import RunFailed
from launch.inbox import write_atomic
from launch.judging import Work, judge_all
from policy.crash import crash_point
from policy.trajectory import Outcome, Trajectory

if TYPE_CHECKING:
    from launch.team import Team

CANARIES = "canaries"
DONORS_PER_CANARY = 4
"""Episodes looked at for each canary wanted: not every one lends itself to every family."""
ALARM = "alarm"


class JudgedCanary(BaseModel):
    """A canary and what the judge said of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    trajectory: Trajectory
    verdict: Verdict | None
    """None: the judge was out."""

    @property
    def fooled(self) -> bool:
        """Whether the judge called it a success."""
        return self.verdict is not None and self.verdict.judgement is Judgement.SUCCESS


class JudgedCanaries(BaseModel):
    """A round's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    round: int
    canaries: tuple[JudgedCanary, ...]


class FalsePositives(NamedTuple):
    """What the judge wrongly called a success, and how much of that the run puts up with."""

    of: str
    share: Share
    key: str
    limit: float
    """The run stops when the lower end of the share's 95 % interval is above it."""
    kept_in: Path
    """Where each verdict can be read."""

    @property
    def alarming(self) -> bool:
        """Whether the judge certainly lets more pass than the limit."""
        return self.share.whole > 0 and self.share.interval.low > self.limit

    def __str__(self) -> str:
        """In words, for the alarm."""
        return (
            f"the judge called {self.share.part} of {self.share.whole} {self.of} a success: a share of at least "
            f"{self.share.interval.low:.2f} (95 % interval), where {self.key} = {self.limit:g}"
        )


async def watch_judge(team: "Team", k: int) -> None:
    """Have the round's canaries judged, unless they were, and note the figures.

    Raises:
        RunFailed: the judge lets too many canaries or failed audits pass for the run to learn from it, or is out.
    """
    found = [*await _of_canaries(team, k), *_of_audits(team, k)]
    _sound_alarm(team, k, [positives for positives in found if positives.alarming])


async def _of_canaries(team: "Team", k: int) -> list[FalsePositives]:
    if not team.config.canaries.per_round:
        return []
    path = file_of(team.run_dir, k)
    if not path.is_file():
        judged = JudgedCanaries(round=k, canaries=tuple(await _judge(team, k)))
        write_atomic(path, judged.model_dump_json().encode())
    crash_point("judge:canaries")
    canaries = JudgedCanaries.model_validate_json(path.read_bytes()).canaries
    team.ledger.set_metrics(k, figures(canaries))
    limit = team.config.canaries.max_fooled
    return [FalsePositives("canaries", fooled_share(canaries), "canaries.max_fooled", limit, path)]


def _of_audits(team: "Team", k: int) -> list[FalsePositives]:
    limit = team.config.audit.max_fpr
    return [
        FalsePositives(
            f"failed audits on {website}", judge_error(pairs).fpr, "audit.max_fpr", limit, team.run_dir / DATABASE
        )
        for website, pairs in audit.measured_by_website(team.ledger, k).items()
    ]


def file_of(run_dir: Path, k: int) -> Path:
    """Where a round's canaries are kept."""
    return run_dir / CANARIES / f"round-{k:04d}.json"


async def _judge(team: "Team", k: int) -> list[JudgedCanary]:
    settings, seed = team.config.canaries, team.seed(k, CANARIES)
    canaries = make_canaries(_donors(team, k, seed), team.blobs, settings.per_round, seed)
    verdicts: dict[str, Verdict] = {}

    def keep(verdict: Verdict) -> None:
        verdicts[verdict.trajectory_id] = verdict

    def load(canary: Canary) -> Trajectory:
        return canary.trajectory

    work = Work(team.config.rollout.num_judgements, team.config.rollout.max_attempts)
    await judge_all(await team.judge(), canaries, load, keep, work)
    if canaries and not verdicts:
        raise RunFailed(f"round {k}: the judge gave no verdict on any of {len(canaries)} canaries; then `resume`")
    return [
        JudgedCanary(family=canary.family, trajectory=canary.trajectory, verdict=verdicts.get(canary.trajectory.id))
        for canary in canaries
    ]


def _donors(team: "Team", k: int, seed: int) -> list[Trajectory]:
    rows = [row for row in team.ledger.trajectories(k, Purpose.TRAIN) if row.outcome is Outcome.FINISHED]
    count = min(len(rows), DONORS_PER_CANARY * team.config.canaries.per_round)
    return [team.ledger.load(row) for row in random.Random(seed).sample(rows, count)]


def fooled_share(canaries: Sequence[JudgedCanary]) -> Share:
    """Of the canaries that were judged those that the judge called a success."""
    return Share(sum(canary.fooled for canary in canaries), sum(canary.verdict is not None for canary in canaries))


def figures(canaries: Sequence[JudgedCanary]) -> dict[str, float]:
    """The metrics of a round's canaries (keys ``canary/``); shares only where any were judged."""
    share = fooled_share(canaries)
    metrics: dict[str, float] = {"canary/judged": share.whole, "canary/fooled": share.part}
    if share.value is not None:
        interval = share.interval
        metrics |= {"canary/share": share.value, "canary/share_low": interval.low, "canary/share_high": interval.high}
    by_family = Counter(canary.family for canary in canaries if canary.fooled)
    return metrics | {f"canary/fooled/{family}": number for family, number in by_family.items()}


def _sound_alarm(team: "Team", k: int, alarming: Sequence[FalsePositives]) -> None:
    if not alarming:
        return
    texts = [str(positives) for positives in alarming]
    noted = {event.text for event in team.ledger.events() if (event.kind, event.round) == (ALARM, k)}
    for text in texts:
        if text not in noted:
            team.ledger.add_event(ALARM, text, k)
    places = ", ".join(dict.fromkeys(str(positives.kept_in) for positives in alarming))
    off = " ".join(dict.fromkeys(f"--set {positives.key}=1" for positives in alarming))
    raise RunFailed(
        f"round {k}: {'; '.join(texts)}; nothing was learned from this round. See {places}; "
        f"`resume {off}` goes on all the same"
    )
