"""How far can the judge be trusted? Its verdicts against ground truth, on the policy's own measured episodes.

Reads run directories (held-out and unseen episodes of every finished round); nothing is run again. Prints a table per
site and task kind, then the figures with 95 % Wilson intervals. The same tasks come back every round, so the intervals
are somewhat too narrow where several rounds or runs are taken together.

    python -m bench.judge_accuracy runs/quickstart
"""

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from evaluator.agreement import agreement, wilson
from evaluator.verdict import Judgement, Verdict
from launch.books import LedgerError, LedgerReader, Phase, Purpose
from launch.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Episode:
    """A measured episode that the judge has answered on."""

    site: str
    kind: str
    """``<site>/<task kind>``."""
    truth: bool
    verdict: Verdict


def judged(run_dir: Path) -> list[Episode]:
    """The judged episodes of a run's finished rounds. Raises LedgerError if there is no run."""
    with Ledger.open_readonly(run_dir) as books:
        done = [row.round for row in books.rounds() if row.phase is Phase.DONE]
        return [
            episode for k in done for purpose in (Purpose.EVAL, Purpose.UNSEEN) for episode in of(books, k, purpose)
        ]


def of(books: LedgerReader, k: int, purpose: Purpose) -> list[Episode]:
    """The judged episodes of one round and purpose."""
    gold_ids = {task.id: task.gold_id or "" for task in books.tasks(k, purpose)}
    episodes = []
    for row in books.trajectories(k, purpose):
        verdict = books.verdict(row.id)
        if row.truth is not None and verdict is not None:  # None: not the agent's doing, or a judge outage
            site, _, name = gold_ids[row.task_id].split("/", 2)
            episodes.append(Episode(site, f"{site}/{name.rpartition('-')[0]}", row.truth, verdict))
    return episodes


def line(name: str, episodes: list[Episode]) -> str:
    """One line of the table."""
    found = agreement((episode.truth, episode.verdict) for episode in episodes)
    shares = (found.precision, found.recall, found.abstained)
    words = " ".join(f"{'-' if share is None else f'{share:.3f}':>9}" for share in shares)
    return f"{name:32} {found.n:5} {sum(episode.truth for episode in episodes):5} {words}"


def main(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", exists=True, file_okay=False)],
    seed: Annotated[int, typer.Option(help="Of the choice of episodes where --most limits them.")] = 0,
    most: Annotated[int | None, typer.Option(help="Use at most so many episodes; default: all.", min=1)] = None,
) -> None:
    """Compare the judge's verdicts with ground truth on the held-out and unseen episodes that runs have measured."""
    try:
        episodes = [episode for run_dir in runs for episode in judged(run_dir)]
    except LedgerError as error:
        raise typer.BadParameter(str(error), param_hint="RUNS") from error
    if most is not None and len(episodes) > most:
        episodes = random.Random(seed).sample(episodes, most)
    groups: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        groups[episode.site].append(episode)
        groups[episode.kind].append(episode)
    print(f"{'site/kind':32} {'n':>5} {'true':>5} {'precision':>9} {'recall':>9} {'abstained':>9}")
    for name, members in sorted(groups.items()):
        print(line(name, members))
    everything = agreement((episode.truth, episode.verdict) for episode in episodes)
    claimed = [episode.truth for episode in episodes if episode.verdict.judgement is Judgement.SUCCESS]
    real = [episode.verdict.judgement is Judgement.SUCCESS for episode in episodes if episode.truth]
    precision, recall = wilson(sum(claimed), len(claimed)), wilson(sum(real), len(real))
    figures = {
        "precision": everything.precision,
        "recall": everything.recall,
        "abstained": everything.abstained,
        "n": everything.n,
        "precision_ci_low": precision.low,
        "precision_ci_high": precision.high,
        "recall_ci_low": recall.low,
        "recall_ci_high": recall.high,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
