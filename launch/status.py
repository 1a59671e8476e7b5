"""Where a run stands, in lines, for whoever looks at it from outside: nothing here waits for it or writes to it."""

import time
from collections.abc import Iterator
from pathlib import Path

from launch.books import LedgerReader, Phase, Purpose, weights_path
from launch.ledger import Ledger, writer
from policy.server_record import ServerRecord
from rl.steplog import read_steps

NUM_EVENTS = 5
USUAL = (Purpose.TRAIN, Purpose.EVAL, Purpose.UNSEEN)
"""Purposes that are told of in every round; the others where the config asks for them."""


def describe(run_dir: Path) -> Iterator[str]:
    """The lines. Raises LedgerError if the directory holds no run."""
    with Ledger.open_readonly(run_dir) as books:
        yield f"{run_dir}: {_driver(run_dir)}, {_place(books)}"
        yield from _episodes(books)
        yield from _training(books)
        yield f"  weights: version {max((row.version for row in books.promoted_weights()), default=None)}"
        yield from _servers(run_dir)
        yield from (f"  {event.kind}: {event.text}" for event in books.events()[-NUM_EVENTS:])


def _driver(run_dir: Path) -> str:
    pid = writer(run_dir)
    return "not running" if pid is None else f"running (process {pid})"


def _place(books: LedgerReader) -> str:
    rounds = books.rounds()
    under_way = [row for row in rounds if row.phase is not Phase.DONE] or rounds[-1:]
    return "; ".join(f"round {row.round}, phase {row.phase}" for row in under_way) or "no round begun"


def _episodes(books: LedgerReader) -> Iterator[str]:
    for row in books.rounds()[-1:]:
        for purpose in Purpose:
            if purpose not in USUAL and not books.num_episodes(row.round, purpose):
                continue
            rows = books.trajectories(row.round, purpose)
            num_judged = sum(row.judgement is not None for row in rows)
            num_out = sum(episode.attempts > 0 for episode in books.missing_episodes(row.round, purpose))
            yield (
                f"  {purpose}: {len(rows)} of {books.num_episodes(row.round, purpose)} episodes, {num_out} handed out, "
                f"{num_judged} verdicts"
            )
        last = books.last_commit()
        yield f"  last episode: {f'{time.time() - last:.0f} s ago' if last else 'none yet'}"


def _training(books: LedgerReader) -> Iterator[str]:
    for row in books.rounds():
        if row.phase is Phase.TRAIN and (steps := read_steps(books.run_dir / weights_path(row.round))):
            last = steps[-1]
            yield (
                f"  training: {last.step} of {last.total} optimizer steps, loss {last.loss:.4f}, "
                f"last one {time.time() - last.at:.0f} s ago"
            )


def _servers(run_dir: Path) -> Iterator[str]:
    for log in sorted((run_dir / "logs").glob("*.log")):
        if record := ServerRecord.read(log):
            weights = record.model if record.version is None else f"version {record.version}"
            yield f"  server {log.stem}: {record.state}, {weights}, port {record.port} (process {record.process.pid})"
        elif log.stem.startswith("policy-"):  # one of several replicas
            yield f"  server {log.stem}: not running; see {log}"
