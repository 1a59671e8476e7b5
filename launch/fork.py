"""A run that branches off another one: the same books up to a phase of a round, other settings from there on.

In: a run, which stays as it is and may even be running. Out: a run directory of its own, which `resume` goes on with.
Both hold the very same tasks, episodes or verdicts, so what differs afterwards is due to what was changed, and chance.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from launch import gauge, thoughts
from launch.books import LedgerError, LedgerReader, Phase, Purpose
from launch.config import ConfigError
from launch.driver import changed_keys, next_round, stored_config
from launch.ledger import Ledger
from launch.retention import is_inside
from launch.tracking import METRICS, read_metrics
from rl.steplog import steps_path

FORKS = (Phase.PROPOSE, Phase.ROLLOUT, Phase.JUDGE, Phase.SEAL)
"""Where a run can branch off: before a round's tasks, its attempts, its verdicts, or the choice of what it learns."""
OF_JUDGING = ("canary/", "thoughts/")
"""Metrics that the judging phase itself notes; nearly all others are noted at a round's end."""


def fork(run_dir: Path, target: Path, k: int, before: Phase, overrides: Sequence[str] = ()) -> None:
    """Make `target` a run with what `run_dir` has up to phase `before` of round `k`, and with its config changed.

    Files are linked where the file system can do that, else copied. A call that fails or is killed leaves no `target`.

    Args:
        run_dir: What is branched off.
        target: A directory that isn't there yet.
        k: A round from 1.
        before: One of `FORKS`.
        overrides: ``a.b=c``; what they change of phases that are kept has no effect there.

    Raises:
        ConfigError: the overrides can't be applied.
        LedgerError: `run_dir` is no run, hasn't come that far or no longer has the files; or `target` exists.
    """
    stored, config = stored_config(run_dir), stored_config(run_dir, overrides, place=target)
    if config.run_dir.resolve() != target.resolve():
        raise ConfigError(f"{target}: run.name and run.runs_dir are where the run is; name another directory")
    if target.exists():
        raise LedgerError(f"{target}: expected a new directory")
    changed = ", ".join(changed_keys(stored, config)) or "nothing"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        with Ledger.open_readonly(run_dir) as books:
            books.copy_to(partial)
            with Ledger(partial) as ledger:
                _check_reached(ledger, run_dir, k, before)
                _check_weights(ledger, books, k, before)
                metrics = {key: value for key, value in ledger.metrics(k).items() if _is_kept(key, before)}
                ledger.cut(k, before)
                ledger.set_metrics(k, metrics)
                ledger.set_meta("config", config.model_dump_json())
                ledger.add_event("fork", f"of {run_dir.resolve()} before {before} of round {k}; changed: {changed}", k)
                _link_files(run_dir, partial, _files(ledger, books, k, before))
        _write_metrics(partial / METRICS, read_metrics(run_dir), k)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial)
        raise


def _check_reached(ledger: LedgerReader, run_dir: Path, k: int, before: Phase) -> None:
    """Raise LedgerError unless there is something to branch off in that place."""
    if before not in FORKS:
        raise LedgerError(f"{run_dir}: can't branch off before {before}; expected one of {', '.join(FORKS)}")
    if not 1 <= k <= next_round(ledger):
        raise LedgerError(f"{run_dir}: round {k} can't be branched off; expected one of 1 to {next_round(ledger)}")
    reached = ledger.phase(k) or Phase.PROPOSE
    if reached.position < before.position:
        raise LedgerError(
            f"{run_dir}: round {k} has only come to {reached}, so it can't be branched off before {before}"
        )


def _check_weights(kept: LedgerReader, books: LedgerReader, k: int, before: Phase) -> None:
    """Raise LedgerError if weights are gone with which the round began, or by which attempts that it keeps were made.

    Where rounds overlap these are others; the learner compares itself with them.
    """
    needed = {kept.newest_weights(before_round=k).version: "began with"}
    if before in (Phase.JUDGE, Phase.SEAL):
        sampled = {books.load(row).weights for row in kept.trajectories(k, Purpose.TRAIN)}
        needed = dict.fromkeys(sampled, "was practised with") | needed
    for row in kept.weights():
        if row.version in needed and not (path := books.run_dir / row.path).is_dir():
            raise LedgerError(
                f"{path}: the weights that round {k} {needed[row.version]} are no longer kept ([retention])"
            )


def _is_kept(key: str, before: Phase) -> bool:
    """Whether a metric of the round in which a run branches off was noted before that."""
    phases = {f"time/{phase}" for phase in Phase if phase.position < before.position}
    return key in phases or (before is Phase.SEAL and key.startswith(OF_JUDGING))


def _files(kept: LedgerReader, books: LedgerReader, k: int, before: Phase) -> Iterator[Path]:
    """Files and directories of a run that the part of its books that is kept still needs."""
    run_dir = books.run_dir
    yield run_dir / "blobs"
    yield from (run_dir / row.path for row in kept.trajectories())
    versions = [path for row in kept.weights() if is_inside(run_dir, path := run_dir / row.path)]
    yield from (path for path in versions if path.is_dir())
    yield from (log for log in map(steps_path, versions) if log.is_file())
    manifests = map(books.manifest, range(1, k))
    yield from (path for path in manifests if path)
    judged = range(1, k + 1 if before is Phase.SEAL else k)
    noted = (file_of(run_dir, number) for number in judged for file_of in (gauge.file_of, thoughts.file_of))
    yield from (path for path in noted if path.is_file())


def _link_files(run_dir: Path, target: Path, paths: Iterator[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise LedgerError(f"{path}: named in the books, but missing")
        link = target / path.relative_to(run_dir)
        link.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # a running run's pictures may have unfinished ones among them
            shutil.copytree(path, link, copy_function=_link, ignore=shutil.ignore_patterns("tmp*"))
        else:
            _link(path, link)


def _link(source: str | Path, target: str | Path) -> None:
    """A second name for a file that is never written to again."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _write_metrics(path: Path, metrics: dict[int, dict[str, float]], k: int) -> None:
    lines = (json.dumps({"round": number, **values}) for number, values in metrics.items() if number < k)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
