"""A run's stored episodes scored by another judge, and which training samples that would flip.

In: a run directory, which is only read, and a judge. Out: a folder beside the run, ``<run>-rejudge-<judge>``, with the
verdicts as they come (a second call goes on after them) and ``rejudge.json``.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluator.agreement import agreement
from evaluator.verdict import Verdict
from launch.books import LedgerReader, Purpose, TrajectoryRow
from launch.config import Config
from launch.inbox import write_atomic
from launch.judging import VERDICTS, VerdictFile, Work, as_json, judge_all, slug, total_cost
from launch.ledger import Ledger
from launch.made_with import keep_apart, of_verdicts
from launch.team import open_judge
from policy.blobs import BlobStore
from rl.manifest import read_manifest

RESULT = "rejudge.json"
NONE = "none"
"""In the place of a judgement where the run's judge gave none."""


@dataclass(frozen=True, slots=True)
class Flip:
    """An episode on which the two judges differ."""

    round: int
    purpose: Purpose
    website: str
    task: str
    """Its id."""
    instruction: str
    trajectory: str
    before: str
    """Judgement of the run's judge, or ``none``."""
    after: str
    samples: int
    """Steps of it that the round's update learned from."""
    truth: bool | None
    reason_before: str
    reason_after: str

    def __str__(self) -> str:
        learned = f", {self.samples} samples learned" if self.samples else ""
        return (
            f"round {self.round} {self.purpose}: {self.before} -> {self.after}{learned}: {self.website}: "
            f"{self.instruction} ({self.trajectory})"
        )


@dataclass(frozen=True, slots=True)
class RoundChanges:
    """What flips in one round's episodes of one purpose."""

    round: int
    purpose: Purpose
    episodes: int
    changes: dict[str, int]
    """``before->after``, kept judgements too, -> episodes."""
    samples: int
    """Steps that the update learned from."""
    samples_flipped: int
    """Those of episodes that the other judge doesn't call what the run's judge called them."""

    def __str__(self) -> str:
        kept = sum(number for change, number in self.changes.items() if len(set(change.split("->"))) == 1)
        flips = [f"{number} {change}" for change, number in self.changes.items() if len(set(change.split("->"))) == 2]
        learned = f"; {self.samples_flipped} of {self.samples} learned samples flip" if self.samples else ""
        return f"round {self.round} {self.purpose}: {kept} of {self.episodes} as before, {', '.join(flips)}{learned}"


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What came of it."""

    folder: Path
    judge: str
    num_out: int
    """Episodes on which the judge was out."""
    rounds: list[RoundChanges]
    flips: list[Flip]


async def rejudge(run_dir: Path, config: Config) -> Rejudged:
    """Judge a run's episodes that ended by the agent's doing with the config's judge, and compare.

    Raises:
        ConfigError: verdicts that lie there are on other episodes, or by another model (launch/made_with.py).
        ModelError: the judge can't be opened.
        NoGroundTruthError: the judge is the truth, and the run has episodes at proposed tasks.
    """
    folder = run_dir.resolve().with_name(f"{run_dir.resolve().name}-rejudge-{slug(config)}")
    blobs = BlobStore(run_dir / "blobs")
    with Ledger.open_readonly(run_dir) as books:
        rows = [row for row in books.trajectories() if row.outcome.is_agents and row.purpose.is_judged]
        verdicts = VerdictFile(folder / VERDICTS)
        keep_apart(folder, of_verdicts(config, {row.id: row.sha256 for row in rows}), verdicts.by_id)
        missing = [row for row in rows if row.id not in verdicts.by_id]
        work = Work(config.rollout.num_judgements, config.rollout.max_attempts)
        (folder / "logs").mkdir(exist_ok=True)
        async with open_judge(config, folder, blobs) as judge:
            out = await judge_all(judge, missing, books.load, verdicts.add, work)
            name, prompt_hash = judge.name, judge.prompt_hash
        judged = [row for row in rows if row.id in verdicts.by_id]
        learned = _learned(books)
        flips = list(_flips(books, judged, verdicts.by_id, learned))
        rounds = list(_rounds(judged, verdicts.by_id, learned))
        known = [row for row in judged if row.truth is not None and row.judgement is not None]  # by both judges
        before = agreement((row.truth is True, old) for row in known if (old := books.verdict(row.id)))
        after = agreement((row.truth is True, verdicts.by_id[row.id]) for row in known)
    cost = total_cost(verdicts.by_id[row.id] for row in judged)
    result = {
        "run": str(run_dir),
        "judge": name,
        "prompt_hash": prompt_hash,
        "settings": config.model_dump(mode="json", include={"judge", "panel"}),
        "episodes": len(judged),
        "no_verdict": len(out),
        "cost": cost.model_dump() if cost else None,
        "measured": {"before": before.figures(), "after": after.figures()},
        "rounds": [asdict(changes) for changes in rounds],
        "flips": [asdict(flip) for flip in flips],
    }
    write_atomic(folder / RESULT, as_json(result))
    return Rejudged(folder, name, len(out), rounds, flips)


def _learned(books: LedgerReader) -> Counter[str]:
    """Trajectory id -> steps of it in a sealed manifest."""
    paths = [path for row in books.rounds() if (path := books.manifest(row.round))]
    return Counter(sample.trajectory_id for path in paths for sample in read_manifest(path).samples)


def _flips(
    books: LedgerReader, rows: Sequence[TrajectoryRow], after: dict[str, Verdict], learned: Counter[str]
) -> Iterator[Flip]:
    for row in rows:
        new, old = after[row.id], books.verdict(row.id)
        if old is None or old.judgement is not new.judgement:
            task = books.load(row).task
            yield Flip(
                round=row.round,
                purpose=row.purpose,
                website=task.website.name,
                task=row.task_id,
                instruction=task.instruction,
                trajectory=row.id,
                before=old.judgement if old else NONE,
                after=new.judgement,
                samples=learned[row.id],
                truth=row.truth,
                reason_before=old.reason if old else "",
                reason_after=new.reason,
            )


def _rounds(rows: Sequence[TrajectoryRow], after: dict[str, Verdict], learned: Counter[str]) -> Iterator[RoundChanges]:
    for number, purpose in dict.fromkeys((row.round, row.purpose) for row in rows):
        members = [row for row in rows if (row.round, row.purpose) == (number, purpose)]
        flipped = [row for row in members if row.judgement is not after[row.id].judgement]
        changes = Counter(f"{row.judgement or NONE}->{after[row.id].judgement}" for row in members)
        yield RoundChanges(
            round=number,
            purpose=purpose,
            episodes=len(members),
            changes=dict(sorted(changes.items())),
            samples=sum(learned[row.id] for row in members),
            samples_flipped=sum(learned[row.id] for row in flipped),
        )
