"""How far can the judge be trusted? Its verdicts against ground truth, on the policy's own measured episodes.

Reads finished runs (the held-out and unseen episodes of every round); nothing is run again. Prints a table per site and
task kind, then the figures with 95 % Wilson intervals.

    python -m bench.judge_accuracy runs/quickstart
"""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from evaluator.agreement import agreement, wilson
from evaluator.verdict import Judgement, Verdict
from launch.books import Purpose
from launch.ledger import Ledger


def judged(run_dir: Path) -> list[tuple[str, bool, Verdict]]:
    """(site/kind, truth, verdict) of every measured and judged episode of a run."""
    rows = []
    with Ledger.open_readonly(run_dir) as ledger:
        for purpose in (Purpose.EVAL, Purpose.UNSEEN):
            for row in ledger.trajectories(purpose=purpose):
                verdict = ledger.verdict(row.id)
                if row.truth is None or verdict is None:
                    continue
                site, _, name = (ledger.load(row).task.gold_id or "//").split("/", 2)
                rows.append((f"{site}/{name.rpartition('-')[0]}", row.truth, verdict))
    return rows


def main(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.")],
    seed: Annotated[int, typer.Option(help="Of the choice of episodes where --most limits them.")] = 0,
    most: Annotated[int | None, typer.Option(help="Use at most so many episodes.")] = None,
) -> None:
    """Compare the judge with ground truth on the episodes that runs have measured."""
    rows = [row for run_dir in runs for row in judged(run_dir)]
    if most is not None and len(rows) > most:
        rows = random.Random(seed).sample(rows, most)
    kinds: dict[str, list[tuple[bool, Verdict]]] = defaultdict(list)
    for kind, truth, verdict in rows:
        kinds[kind].append((truth, verdict))
    for kind, pairs in sorted(kinds.items()):
        found = agreement(pairs)
        print(f"{kind:32} n {found.n:4}  true {sum(t for t, _ in pairs):4}  {found.precision=} {found.recall=}")
    everything = agreement((truth, verdict) for _, truth, verdict in rows)
    claimed = [truth for _, truth, verdict in rows if verdict.judgement is Judgement.SUCCESS]
    real = [verdict.judgement is Judgement.SUCCESS for _, truth, verdict in rows if truth]
    precision, recall = wilson(sum(claimed), len(claimed)), wilson(sum(real), len(real))
    figures = {
        "precision": everything.precision,
        "recall": everything.recall,
        "abstained": everything.abstained,
        "n": everything.n,
        "precision_ci": [precision.low, precision.high],
        "recall_ci": [recall.low, recall.high],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
