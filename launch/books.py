"""What the run's books say: rows, and the queries that summary, report, status and the stages read them with.

In: the SQLite file of a run directory. Out: rows, and what is still to do. Nothing here writes.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from evaluator.changes import Changes
from evaluator.rubric import Rubric
from evaluator.verdict import Judgement, Verdict
from policy.trajectory import Outcome, Trajectory
from proposer.task import Task

DATABASE = "run.db"


class Phase(StrEnum):
    """The phases of a round, in order; each can be run again."""

    PROPOSE = "propose"
    ROLLOUT = "rollout"
    JUDGE = "judge"
    SEAL = "seal"
    TRAIN = "train"
    GATE = "gate"
    PUBLISH = "publish"
    EVAL = "eval"
    DONE = "done"

    @property
    def position(self) -> int:
        """Place in the order, from 0."""
        return list(Phase).index(self)


class Purpose(StrEnum):
    """What an episode is for; only ``train`` ever reaches the learner."""

    TRAIN = "train"
    AUDIT = "audit"
    """Gold tasks on worlds of their own, attempted and judged beside those of ``train``, to measure the judge."""
    EVAL = "eval"
    """Gold tasks on held-out worlds of the training sites."""
    UNSEEN = "unseen"
    """Gold tasks on sites that are never trained on."""
    INCUMBENT = "incumbent"
    """Gold tasks on worlds of their own, attempted with the weights that the round began with."""
    CANDIDATE = "candidate"
    """The same tasks, attempted with the weights that the round has made."""

    @property
    def is_judged(self) -> bool:
        """Whether a judge is asked; weights are compared by ground truth alone."""
        return self not in (Purpose.INCUMBENT, Purpose.CANDIDATE)


class LedgerError(ValueError):
    """The run directory can't be used as asked: already written to, held by another process, or not a run."""


class DamagedError(LedgerError):
    """A file of the run is no longer what the books say; it may be found in the middle of a run."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A planned episode: one attempt series at one task."""

    id: str
    """The trajectory's id: ``<round>-<task id>-<sample>``."""
    round: int
    purpose: Purpose
    task: Task
    sample: int
    attempts: int
    """How often it was handed to a worker so far."""


@dataclass(frozen=True, slots=True)
class TrajectoryRow:
    """A committed trajectory, as the books know it; `path` holds the whole."""

    id: str
    round: int
    purpose: Purpose
    task_id: str
    sample: int
    outcome: Outcome
    path: str
    """Relative to the run directory."""
    sha256: str
    """Of the file's bytes."""
    num_steps: int
    num_malformed: int
    seconds: float
    model_s: float
    browser_s: float
    truth: bool | None
    """Ground truth; None where there is none (proposed task, or the outcome isn't the agent's)."""
    judgement: Judgement | None
    """None: not judged (the outcome isn't the agent's, or the judge gave no answer)."""


@dataclass(frozen=True, slots=True)
class ProposalRow:
    """What the proposer gave for one website and world in one round."""

    round: int
    website: str
    world: str | None
    num_proposed: int
    num_kept: int
    rejections: dict[str, int]


@dataclass(frozen=True, slots=True)
class RoundRow:
    """Where a round stands. Times are Unix seconds; `ended` is None while it runs."""

    round: int
    phase: Phase
    begun: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class WeightsRow:
    """One version of the policy's weights; version 0 is the starter's."""

    version: int
    parent: int | None
    round: int
    path: str
    """Relative to the run directory, or absolute for the starter's."""


WEIGHTS = "weights"
"""Folder of a run's versions."""


def weights_path(round: int) -> str:
    """Where the version that a round's update makes lies, relative to the run directory."""
    return f"{WEIGHTS}/v{round:06d}"


@dataclass(frozen=True, slots=True)
class GateRow:
    """How a round's new weights did against those that the round began with (launch/promotion.py)."""

    round: int
    candidate: int
    """Version of the new weights."""
    incumbent: int
    """Version of those before."""
    pairs: int
    """Tasks that both attempted to an end of the agent's doing."""
    wins: int
    """Of these, those that only the new weights did."""
    losses: int
    """Those that only the weights before did."""
    p: float
    """Probability of at least so many losses if neither were better."""
    promoted: bool
    """Whether the next round begins with the new weights."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something worth telling: a retry, a set-aside file, an allowed change of config."""

    at: float
    round: int | None
    kind: str
    text: str


_TRAJECTORY_QUERY = """
SELECT t.id, e.round, e.purpose, e.task_id, e.sample, t.outcome, t.path, t.sha256, t.num_steps, t.num_malformed,
       t.seconds, t.model_s, t.browser_s, g.success, v.judgement
FROM episodes e JOIN trajectories t ON t.id = e.id
     LEFT JOIN truths g ON g.trajectory_id = t.id LEFT JOIN verdicts v ON v.trajectory_id = t.id
"""


class LedgerReader:
    """Read-only view of a run's books; safe beside a running writer."""

    def __init__(self, run_dir: Path, db: sqlite3.Connection) -> None:
        """Wrap an open connection; use `Ledger.open_readonly`."""
        self.run_dir = run_dir
        self._db = db

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def copy_to(self, directory: Path) -> None:
        """Put a copy of the books, as they are at this moment, into a directory that has none."""
        with contextlib.closing(sqlite3.connect(directory / DATABASE)) as copy:
            self._db.backup(copy)

    def meta(self, key: str) -> str | None:
        """A fact about the run as a whole (``config``: the resolved config as JSON); None if never set."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def rounds(self) -> list[RoundRow]:
        """All rounds begun, oldest first."""
        rows = self._db.execute("SELECT round, phase, begun, ended FROM rounds ORDER BY round")
        return [RoundRow(number, Phase(phase), begun, ended) for number, phase, begun, ended in rows]

    def phase(self, round: int) -> Phase | None:
        """The phase a round is in; None if it has not begun."""
        row = self._db.execute("SELECT phase FROM rounds WHERE round = ?", (round,)).fetchone()
        return Phase(row[0]) if row else None

    def tasks(self, round: int, purpose: Purpose) -> list[Task]:
        """The tasks of a round, by id."""
        query = "SELECT task FROM tasks WHERE round = ? AND purpose = ? ORDER BY id"
        return [Task.model_validate_json(text) for (text,) in self._db.execute(query, (round, purpose))]

    def proposals(self, round: int) -> list[ProposalRow]:
        """What was proposed in a round, one row per website and world."""
        query = "SELECT * FROM proposals WHERE round = ? ORDER BY website, world"
        return [
            ProposalRow(number, website, world or None, num_proposed, num_kept, json.loads(rejections))
            for number, website, world, num_proposed, num_kept, rejections in self._db.execute(query, (round,))
        ]

    def num_episodes(self, round: int, purpose: Purpose) -> int:
        """How many episodes are planned."""
        query = "SELECT count(*) FROM episodes WHERE round = ? AND purpose = ?"
        return self._db.execute(query, (round, purpose)).fetchone()[0]

    def missing_episodes(self, round: int, purpose: Purpose) -> list[Episode]:
        """Planned episodes without a committed trajectory, by id."""
        query = """SELECT e.id, e.sample, e.attempts, k.task FROM episodes e
            JOIN tasks k ON k.round = e.round AND k.purpose = e.purpose AND k.id = e.task_id
            LEFT JOIN trajectories t ON t.id = e.id
            WHERE e.round = ? AND e.purpose = ? AND t.id IS NULL ORDER BY e.sample, e.id"""
        return [
            Episode(name, round, purpose, Task.model_validate_json(task), sample, attempts)
            for name, sample, attempts, task in self._db.execute(query, (round, purpose))
        ]

    def trajectories(self, round: int | None = None, purpose: Purpose | None = None) -> list[TrajectoryRow]:
        """Committed trajectories with truth and verdict, by round and id; None: all rounds, all purposes."""
        wanted = {"e.round": round, "e.purpose": purpose}
        given = {column: value for column, value in wanted.items() if value is not None}
        where = " WHERE " + " AND ".join(f"{column} = ?" for column in given) if given else ""
        rows = self._db.execute(f"{_TRAJECTORY_QUERY}{where} ORDER BY e.round, t.id", tuple(given.values()))
        return [_trajectory_row(row) for row in rows]

    def outcomes(self, round: int, purposes: Collection[Purpose]) -> dict[Outcome, int]:
        """How many committed episodes of these purposes ended how."""
        marks = ", ".join("?" * len(purposes))
        query = f"""SELECT t.outcome, count(*) FROM episodes e JOIN trajectories t ON t.id = e.id
            WHERE e.round = ? AND e.purpose IN ({marks}) GROUP BY t.outcome ORDER BY t.outcome"""
        return {Outcome(outcome): number for outcome, number in self._db.execute(query, (round, *purposes))}

    def last_commit(self) -> float | None:
        """When the last episode was committed, Unix seconds; None before the first."""
        return self._db.execute("SELECT max(committed) FROM trajectories").fetchone()[0]

    def is_committed(self, trajectory_id: str) -> bool:
        """Whether an episode's trajectory is in the books."""
        return self._db.execute("SELECT 1 FROM trajectories WHERE id = ?", (trajectory_id,)).fetchone() is not None

    def is_planned(self, trajectory_id: str) -> bool:
        """Whether an episode of this id was ever wanted."""
        return self._db.execute("SELECT 1 FROM episodes WHERE id = ?", (trajectory_id,)).fetchone() is not None

    def verdict(self, trajectory_id: str) -> Verdict | None:
        """The verdict of a trajectory; None if it has none."""
        query = "SELECT verdict FROM verdicts WHERE trajectory_id = ?"
        row = self._db.execute(query, (trajectory_id,)).fetchone()
        return Verdict.model_validate_json(row[0]) if row else None

    def changes(self, trajectory_id: str) -> Changes | None:
        """What an episode changed on its website; None where that isn't known."""
        if not self._has_table("changes"):
            return None
        row = self._db.execute("SELECT changes FROM changes WHERE trajectory_id = ?", (trajectory_id,)).fetchone()
        return Changes.model_validate_json(row[0]) if row else None

    def rubric(self, task_id: str, judge: str, prompt_hash: str) -> Rubric | None:
        """The rubric that a judge wrote for a task, asked with that prompt; None: none."""
        if not self._has_table("rubrics"):
            return None
        query = "SELECT rubric FROM rubrics WHERE task_id = ? AND judge = ? AND prompt_hash = ?"
        row = self._db.execute(query, (task_id, judge, prompt_hash)).fetchone()
        return Rubric.model_validate_json(row[0]) if row else None

    def load(self, row: TrajectoryRow) -> Trajectory:
        """The whole trajectory. Raises DamagedError if its file no longer is what was committed."""
        data = (self.run_dir / row.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise DamagedError(f"{self.run_dir / row.path}: not the file that was committed")
        return Trajectory.model_validate_json(data)

    def is_sealed(self, round: int) -> bool:
        """Whether a round's manifest is in the books."""
        return self._db.execute("SELECT 1 FROM manifests WHERE round = ?", (round,)).fetchone() is not None

    def manifest(self, round: int) -> Path | None:
        """The sealed manifest of a round; None if not sealed or nothing was selected.

        Raises:
            DamagedError: the file is not what was sealed.
        """
        query = "SELECT path, sha256 FROM manifests WHERE round = ? AND num_samples > 0"
        row = self._db.execute(query, (round,)).fetchone()
        if row is None:
            return None
        path, sha256 = self.run_dir / row[0], row[1]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise DamagedError(f"{path}: not the manifest that was sealed (expected sha256 {sha256})")
        return path

    def weights(self) -> list[WeightsRow]:
        """All versions, oldest first."""
        rows = self._db.execute("SELECT version, parent, round, path FROM weights ORDER BY version")
        return [WeightsRow(*row) for row in rows]

    def promoted_weights(self) -> list[WeightsRow]:
        """The versions that the gate let through, oldest first; without a gate all of them, once they are made."""
        passed, waiting = {row.candidate: row.promoted for row in self.gates()}, self._rounds_before_the_gate()
        return [row for row in self.weights() if passed.get(row.version, row.round not in waiting)]

    def _rounds_before_the_gate(self) -> set[int]:
        """Rounds whose new weights, if they have made any, are still to be compared."""
        config = json.loads(self.meta("config") or "{}")
        if not config.get("promotion", {}).get("num_tasks"):
            return set()
        return {row.round for row in self.rounds() if row.phase in (Phase.TRAIN, Phase.GATE)}

    def newest_weights(self, before_round: int) -> WeightsRow:
        """The newest promoted version made before a round; the run's start has one."""
        return self.lineage(before_round)[-1]

    def lineage(self, before_round: int) -> list[WeightsRow]:
        """The promoted versions made before a round, oldest first: the last is what the round trains."""
        return [row for row in self.promoted_weights() if row.round < before_round]

    def gates(self) -> list[GateRow]:
        """The comparisons of new weights with those before, oldest first."""
        if not self._has_table("gates"):
            return []
        rows = self._db.execute("SELECT * FROM gates ORDER BY round")
        return [GateRow(*row, promoted=bool(promoted)) for *row, promoted in rows]

    def gate(self, round: int) -> GateRow | None:
        """The comparison in a round; None if there was none, or none yet."""
        return next((row for row in self.gates() if row.round == round), None)

    def _has_table(self, name: str) -> bool:
        """Whether the books have a table; those begun by an older program and only read lack the newer ones."""
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None

    def figures(self, round: int) -> str | None:
        """A round's figures as they were settled (JSON, launch/summary.py); None before that."""
        row = self._db.execute("SELECT figures FROM figures WHERE round = ?", (round,)).fetchone()
        return row[0] if row else None

    def metrics(self, round: int) -> dict[str, float]:
        """All metrics of a round.

        Keys ``propose/ rollout/ judge/ canary/ thoughts/ audit/ side_effects/ learn/ gate/ eval/ time/``.
        """
        return dict(self._db.execute("SELECT key, value FROM metrics WHERE round = ? ORDER BY key", (round,)))

    def events(self) -> list[EventRow]:
        """All events, oldest first."""
        return [EventRow(*row) for row in self._db.execute("SELECT at, round, kind, text FROM events ORDER BY id")]


def _trajectory_row(row: Sequence) -> TrajectoryRow:
    name, number, purpose, task_id, sample, outcome, *rest, truth, judgement = row
    return TrajectoryRow(
        *(name, number, Purpose(purpose), task_id, sample, Outcome(outcome), *rest),
        truth=None if truth is None else bool(truth),
        judgement=None if judgement is None else Judgement(judgement),
    )
