"""How far can the judge be trusted? Its verdicts against ground truth, on the policy's own measured episodes.

Reads run directories (held-out and unseen episodes of every finished round); nothing is run again. Prints a table per
site and task kind, then the figures with 95 % Wilson intervals. The same tasks come back every round, so the intervals
are somewhat too narrow where several rounds or runs are taken together.

    python -m bench.judge_accuracy runs/quickstart
"""

import json
import random
from pathlib import Path
from typing import Annotated

import typer

from evaluator.agreement import Measured, agreement, breakdown, table
from launch.books import LedgerError, LedgerReader, Phase, Purpose
from launch.judge_eval import kind_of
from launch.ledger import Ledger


def judged(run_dir: Path) -> list[Measured]:
    """The judged episodes of a run's finished rounds. Raises LedgerError if there is no run."""
    with Ledger.open_readonly(run_dir) as books:
        done = [row.round for row in books.rounds() if row.phase is Phase.DONE]
        return [
            episode for k in done for purpose in (Purpose.EVAL, Purpose.UNSEEN) for episode in of(books, k, purpose)
        ]


def of(books: LedgerReader, k: int, purpose: Purpose) -> list[Measured]:
    """The judged episodes of one round and purpose."""
    tasks = {task.id: task for task in books.tasks(k, purpose)}
    episodes = []
    for row in books.trajectories(k, purpose):
        verdict = books.verdict(row.id)
        if row.truth is not None and verdict is not None:  # None: not the agent's doing, or a judge outage
            task = tasks[row.task_id]
            episodes.append(Measured(task.website.name, kind_of(task), row.truth, verdict))
    return episodes


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
    for line in table(breakdown(episodes)):
        print(line)
    print(json.dumps(agreement((episode.truth, episode.verdict) for episode in episodes).figures()))


if __name__ == "__main__":
    typer.run(main)
