"""Any judge scored on labelled trajectories, and a run's episodes written as such.

In: a folder of labels (evaluator/labels.py) and a config's judge. Out: precision, recall and abstention with intervals,
overall and by site and task kind, in a folder of its own beside the verdicts.
"""

from dataclasses import dataclass
from pathlib import Path

from evaluator.agreement import Agreement, Measured, Share, agreement, breakdown, unanimity
from evaluator.labels import BLOBS, Label, LabelError, LabelWriter, read_labels, read_trajectory, trajectory_hash
from launch.books import LedgerReader, TrajectoryRow
from launch.config import Config
from launch.inbox import write_atomic
from launch.judging import VERDICTS, VerdictFile, Work, as_json, judge_all, slug, total_cost
from launch.ledger import Ledger
from launch.made_with import keep_apart, of_verdicts
from launch.team import open_judge
from policy.blobs import BlobStore
from proposer.task import Task

RESULT = "judge-eval.json"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """How a judge did."""

    folder: Path
    judge: str
    overall: Agreement
    groups: dict[str, Agreement]
    """By site and by ``<site>/<kind>``."""
    unanimous: Share
    """Of the verdicts with several votes those whose votes were all the same."""
    num_out: int
    """Trajectories on which the judge was out."""


async def judge_eval(labels_folder: Path, config: Config) -> Evaluated:
    """Score the config's judge on the labels that say how it went; called again, it goes on after a killed call.

    Raises:
        LabelError: the folder can't be used, or no label in it says how it went.
        ConfigError: verdicts that lie there are on other attempts, or by another model (launch/made_with.py).
        ModelError: the judge can't be opened.
    """
    labels = [label for label in read_labels(labels_folder) if label.success is not None]
    if not labels:
        raise LabelError(f"{labels_folder}: no label says whether the attempt was a success")
    folder = config.run.runs_dir / f"judge-eval-{labels_folder.resolve().name}-{slug(config)}"
    verdicts = VerdictFile(folder / VERDICTS)
    attempts = {label.id: trajectory_hash(labels_folder, label) for label in labels}
    keep_apart(folder, of_verdicts(config, attempts), verdicts.by_id)
    blobs = BlobStore(labels_folder / BLOBS)
    missing = [label for label in labels if label.id not in verdicts.by_id]
    work = Work(config.rollout.num_judgements, config.rollout.max_attempts)
    (folder / "logs").mkdir(exist_ok=True)
    async with open_judge(config, folder, blobs) as judge:
        out = await judge_all(judge, missing, lambda label: read_trajectory(labels_folder, label), verdicts.add, work)
        name, prompt_hash = judge.name, judge.prompt_hash
    found = [
        Measured(label.site, label.kind, label.success is True, verdicts.by_id[label.id])
        for label in labels
        if label.id in verdicts.by_id
    ]
    overall = agreement((episode.truth, episode.verdict) for episode in found)
    groups = breakdown(found)
    unanimous = unanimity(episode.verdict for episode in found)
    cost = total_cost(episode.verdict for episode in found)
    result = {
        "labels": str(labels_folder),
        "judge": name,
        "prompt_hash": prompt_hash,
        "settings": config.model_dump(mode="json", include={"judge", "panel"}),
        "no_verdict": len(out),
        "cost": cost.model_dump() if cost else None,
        "unanimous": {"share": unanimous.value, "n": unanimous.whole},
        "overall": overall.figures(),
        "groups": {group: found.figures() for group, found in groups.items()},
    }
    write_atomic(folder / RESULT, as_json(result))
    return Evaluated(folder, name, overall, groups, unanimous, len(out))


def export_labels(run_dir: Path, folder: Path, *, unlabelled: bool = False) -> int:
    """Write a run's episodes of known outcome as labels; with `unlabelled` the others too, for somebody to look at.

    Returns how many. Raises LabelError if the folder holds anything or a picture is missing, LedgerError without a run.
    """
    with Ledger.open_readonly(run_dir) as books:
        rows = [row for row in books.trajectories() if row.outcome.is_agents]
        writer, blobs = LabelWriter(folder), BlobStore(run_dir / "blobs")
        for row in rows:
            if row.truth is not None or unlabelled:
                _export(books, row, writer, blobs)
        return writer.finish()


def _export(books: LedgerReader, row: TrajectoryRow, writer: LabelWriter, blobs: BlobStore) -> None:
    trajectory = books.load(row)
    task = trajectory.task
    known = row.truth is not None
    label = Label(
        id=row.id, site=task.website.name, kind=kind_of(task), success=row.truth, source="truth" if known else ""
    )
    writer.copy_pictures(trajectory.screenshots, blobs)
    writer.add(label, trajectory)


def kind_of(task: Task) -> str:
    """Kind of a gold task within its site; empty for proposed tasks."""
    return task.gold_id.split("/", 2)[2].rpartition("-")[0] if task.gold_id else ""
