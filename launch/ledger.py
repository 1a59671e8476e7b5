"""The run's books, kept: one SQLite file per run directory, one writer, every write safe to repeat.

Killing the writer at any moment loses nothing that was committed, and a write that is repeated changes nothing.
"""

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import IO

from evaluator.changes import Changes
from evaluator.rubric import Rubric
from evaluator.verdict import Verdict
from launch.books import DATABASE, GateRow, LedgerError, LedgerReader, Phase, ProposalRow, Purpose, WeightsRow
from policy.trajectory import Trajectory
from proposer.propose import normal
from proposer.task import Task

LOCK = "run.lock"

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, phase TEXT NOT NULL, begun REAL NOT NULL, ended REAL);
CREATE TABLE IF NOT EXISTS proposals (round INTEGER, website TEXT, world TEXT, num_proposed INTEGER NOT NULL,
    num_kept INTEGER NOT NULL, rejections TEXT NOT NULL, PRIMARY KEY (round, website, world)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tasks (round INTEGER, purpose TEXT, id TEXT, website TEXT NOT NULL, task TEXT NOT NULL,
    PRIMARY KEY (round, purpose, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tasks_by_website ON tasks (website);
CREATE TABLE IF NOT EXISTS episodes (id TEXT PRIMARY KEY, round INTEGER NOT NULL, purpose TEXT NOT NULL,
    task_id TEXT NOT NULL, sample INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS episodes_by_round ON episodes (round, purpose);
CREATE TABLE IF NOT EXISTS trajectories (id TEXT PRIMARY KEY REFERENCES episodes (id), outcome TEXT NOT NULL,
    path TEXT NOT NULL, sha256 TEXT NOT NULL, num_steps INTEGER NOT NULL, num_malformed INTEGER NOT NULL,
    seconds REAL NOT NULL, model_s REAL NOT NULL, browser_s REAL NOT NULL, committed REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS truths (trajectory_id TEXT PRIMARY KEY REFERENCES trajectories (id),
    success INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (trajectory_id TEXT PRIMARY KEY REFERENCES trajectories (id),
    changes TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (trajectory_id TEXT PRIMARY KEY REFERENCES trajectories (id),
    judgement TEXT NOT NULL, verdict TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rubrics (task_id TEXT, judge TEXT, prompt_hash TEXT, rubric TEXT NOT NULL,
    PRIMARY KEY (task_id, judge, prompt_hash)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (round INTEGER PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL,
    num_samples INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS weights (version INTEGER PRIMARY KEY, parent INTEGER, round INTEGER NOT NULL,
    path TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS gates (round INTEGER PRIMARY KEY, candidate INTEGER NOT NULL, incumbent INTEGER NOT NULL,
    pairs INTEGER NOT NULL, wins INTEGER NOT NULL, losses INTEGER NOT NULL, p REAL NOT NULL, promoted INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS metrics (round INTEGER, key TEXT, value REAL NOT NULL, PRIMARY KEY (round, key))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS figures (round INTEGER PRIMARY KEY, figures TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, at REAL NOT NULL, round INTEGER, kind TEXT NOT NULL,
    text TEXT NOT NULL);
"""


class Ledger(LedgerReader):
    """The one writer of a run's books."""

    def __init__(self, run_dir: Path) -> None:
        """Open for writing, creating the database if it is missing. Raises LedgerError if another process writes."""
        self._lock = _take_lock(run_dir / LOCK)
        db = sqlite3.connect(run_dir / DATABASE, isolation_level=None)
        super().__init__(run_dir, db)
        self._taken: dict[str, set[str]] = {}
        try:
            db.executescript(
                f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; {SCHEMA}"
            )
        except sqlite3.Error:
            self.close()
            raise

    @staticmethod
    def open_readonly(run_dir: Path) -> LedgerReader:
        """The books for reading. Raises LedgerError if the directory holds no run."""
        if not (run_dir / DATABASE).is_file():
            raise LedgerError(f"{run_dir}: not a run (no {DATABASE})")
        db = sqlite3.connect(f"file:{run_dir / DATABASE}?mode=ro", uri=True, isolation_level=None)
        return LedgerReader(run_dir, db)

    def close(self) -> None:
        """Close the database and let the lock go."""
        super().close()
        self._lock.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # on some errors, a full disk's among them, SQLite has rolled back itself
                self._db.execute("ROLLBACK")
            raise

    def set_meta(self, key: str, value: str) -> None:
        """Set a fact about the run as a whole."""
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value)
        )

    def begin_round(self, round: int, phase: Phase) -> None:
        """Begin a round in its first phase, unless it has begun."""
        self._db.execute(
            "INSERT INTO rounds VALUES (?, ?, ?, NULL) ON CONFLICT DO NOTHING", (round, phase, time.time())
        )

    def set_phase(self, round: int, phase: Phase) -> None:
        """Move a round to a phase; DONE also notes when."""
        ended = time.time() if phase is Phase.DONE else None
        self._db.execute("UPDATE rounds SET phase = ?, ended = ? WHERE round = ?", (phase, ended, round))

    def add_proposals(self, row: ProposalRow, tasks: Sequence[Task], num_samples: int) -> None:
        """Commit what was proposed for one website and world, with its tasks and their episodes, all or nothing."""
        with self._transaction() as db:
            values = (row.round, row.website, row.world or "", row.num_proposed, row.num_kept)
            insert = "INSERT INTO proposals VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            is_first = db.execute(insert, (*values, json.dumps(row.rejections, sort_keys=True))).rowcount > 0
            if is_first:
                self._plan(row.round, Purpose.TRAIN, tasks, range(num_samples))
        if is_first:
            self._note_taken(tasks)

    def plan(
        self, round: int, purpose: Purpose, tasks: Sequence[Task], num_samples: int, *, first_sample: int = 0
    ) -> None:
        """Want `num_samples` episodes of each task in a round, numbered from `first_sample`.

        Where two purposes of a round share tasks, their samples have other numbers.
        """
        with self._transaction():
            self._plan(round, purpose, tasks, range(first_sample, first_sample + num_samples))
        self._note_taken(tasks)

    def _plan(self, round: int, purpose: Purpose, tasks: Sequence[Task], samples: Iterable[int]) -> None:
        self._db.executemany(
            "INSERT INTO tasks VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(round, purpose, task.id, task.website.name, task.model_dump_json()) for task in tasks],
        )
        self._db.executemany(
            "INSERT INTO episodes (id, round, purpose, task_id, sample) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(f"{round}-{task.id}-{sample}", round, purpose, task.id, sample) for task in tasks for sample in samples],
        )

    def taken(self, website: str) -> Set[str]:
        """Every instruction ever used on a website, of any purpose, as `normal` compares them.

        It is read once and grows with what is planned from then on: a long run has too many to read for every world.
        """
        if website not in self._taken:
            query = "SELECT DISTINCT json_extract(task, '$.instruction') FROM tasks WHERE website = ?"
            self._taken[website] = {normal(text) for (text,) in self._db.execute(query, (website,))}
        return self._taken[website]

    def _note_taken(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if task.website.name in self._taken:
                self._taken[task.website.name].add(normal(task.instruction))

    def lease(self, episode_id: str) -> int:
        """Note that an episode is handed to a worker; returns the number of this attempt, from 1."""
        update = "UPDATE episodes SET attempts = attempts + 1 WHERE id = ? RETURNING attempts"
        return self._db.execute(update, (episode_id,)).fetchall()[0][0]

    def commit_trajectory(
        self, trajectory: Trajectory, path: str, sha256: str, truth: bool | None, changes: Changes | None = None
    ) -> bool:
        """Commit a trajectory whose file is in place; False if an earlier attempt was committed first."""
        steps = trajectory.steps
        values = (
            *(trajectory.id, trajectory.outcome, path, sha256, len(steps), sum(step.action is None for step in steps)),
            *(trajectory.seconds, sum(step.model_s for step in steps), sum(step.browser_s for step in steps)),
        )
        with self._transaction() as db:
            insert = "INSERT INTO trajectories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            is_first = db.execute(insert, (*values, time.time())).rowcount > 0
            if is_first and truth is not None:
                db.execute("INSERT INTO truths VALUES (?, ?) ON CONFLICT DO NOTHING", (trajectory.id, truth))
            if is_first and changes is not None:
                insert = "INSERT INTO changes VALUES (?, ?) ON CONFLICT DO NOTHING"
                db.execute(insert, (trajectory.id, changes.model_dump_json()))
        return is_first

    def commit_verdict(self, verdict: Verdict) -> None:
        """Commit a verdict; the first one stands."""
        self._db.execute(
            "INSERT INTO verdicts VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (verdict.trajectory_id, verdict.judgement, verdict.model_dump_json()),
        )

    def commit_rubric(self, rubric: Rubric) -> None:
        """Commit a task's rubric; the first one of a judge and prompt stands."""
        insert = "INSERT INTO rubrics VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        self._db.execute(insert, (rubric.task_id, rubric.judge, rubric.prompt_hash, rubric.model_dump_json()))

    def commit_manifest(self, round: int, path: str, sha256: str, num_samples: int) -> None:
        """Commit a sealed manifest; the first one stands."""
        insert = "INSERT INTO manifests VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        self._db.execute(insert, (round, path, sha256, num_samples))

    def commit_weights(self, row: WeightsRow) -> None:
        """Commit a version whose directory is in place; the first one stands."""
        insert = "INSERT INTO weights VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        self._db.execute(insert, (row.version, row.parent, row.round, row.path))

    def commit_gate(self, row: GateRow, text: str) -> None:
        """Commit what became of a round's new weights, with an event that says so; the first one stands."""
        with self._transaction() as db:
            insert = "INSERT INTO gates VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            if db.execute(insert, astuple(row)).rowcount > 0:
                self.add_event("gate", text, row.round)

    def set_figures(self, round: int, figures: str) -> None:
        """Settle a round's figures (JSON, launch/summary.py); settled again, the new ones count."""
        upsert = "INSERT INTO figures VALUES (?, ?) ON CONFLICT DO UPDATE SET figures = excluded.figures"
        self._db.execute(upsert, (round, figures))

    def set_metrics(self, round: int, metrics: Mapping[str, float]) -> None:
        """Set metrics of a round; a repeated key takes the new value."""
        upsert = "INSERT INTO metrics VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
        with self._transaction() as db:
            db.executemany(upsert, [(round, key, float(value)) for key, value in metrics.items()])

    def add_seconds(self, round: int, phase: str, seconds: float) -> None:
        """Add to the time spent in a phase, so that a resumed round tells its whole time."""
        upsert = "INSERT INTO metrics VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
        self._db.execute(upsert, (round, f"time/{phase}", seconds))

    def cut(self, round: int, before: Phase) -> None:
        """Forget what was made from a phase of a round on, SEAL at the latest; for a run that branches off there."""

        def since(phase: Phase) -> str:
            """What that phase of the round has made."""
            return f"round = :round AND {before.position} <= {phase.position}"

        later = f"round > :round OR round = :round AND purpose NOT IN ('{Purpose.TRAIN}', '{Purpose.AUDIT}')"
        attempted = f"SELECT id FROM episodes WHERE {later} OR {since(Phase.ROLLOUT)}"
        judged = f"SELECT id FROM episodes WHERE {later} OR {since(Phase.JUDGE)}"
        wholes = ("manifests", "weights", "gates", "figures", "metrics", "events")
        with self._transaction() as db:
            for statement in (
                f"DELETE FROM verdicts WHERE trajectory_id IN ({judged})",
                *(f"DELETE FROM {table} WHERE trajectory_id IN ({attempted})" for table in ("truths", "changes")),
                f"DELETE FROM trajectories WHERE id IN ({attempted})",
                f"UPDATE episodes SET attempts = 0 WHERE {since(Phase.ROLLOUT)}",
                *(f"DELETE FROM {table} WHERE {later} OR {since(Phase.PROPOSE)}" for table in ("episodes", "tasks")),
                f"DELETE FROM proposals WHERE round > :round OR {since(Phase.PROPOSE)}",
                *(f"DELETE FROM {table} WHERE round >= :round" for table in wholes),
                f"DELETE FROM rounds WHERE round > :round OR {since(Phase.PROPOSE)}",
                f"UPDATE rounds SET phase = '{before}', ended = NULL WHERE round = :round",
                "DELETE FROM meta WHERE key NOT IN ('config', 'created')",
            ):
                db.execute(statement, {"round": round})

    def add_event(self, kind: str, text: str, round: int | None = None) -> None:
        """Note something worth telling."""
        insert = "INSERT INTO events (at, round, kind, text) VALUES (?, ?, ?, ?)"
        self._db.execute(insert, (time.time(), round, kind, text))


def has_run(run_dir: Path) -> bool:
    """Whether a directory already holds a run's state."""
    return (run_dir / DATABASE).exists()


def writer(run_dir: Path) -> int | None:
    """Number of the process that writes to a run now; None if none does."""
    try:
        with (run_dir / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int((run_dir / LOCK).read_text() or 0)  # 0: it has just begun, and not yet said who it is
    return None


def _take_lock(path: Path) -> IO[str]:
    lock = path.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise LedgerError(f"{path.parent}: another process is writing to this run") from None
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except OSError:
        lock.close()
        raise
    return lock
