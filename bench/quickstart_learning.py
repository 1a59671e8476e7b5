"""Does the quickstart learn? Held-out and unseen success by ground truth, first weights against last, over seeds.

Runs the quickstart once per seed (finished runs in runs/quickstart-seed<N> are reused). Before and after are measured
on the same tasks of the same worlds. The interval of the mean gain is a bootstrap that draws seeds, then tasks within
each seed, pairs kept together; 2.5 and 97.5 % quantiles.

    python -m bench.quickstart_learning --seeds 0,1,2
"""

import json
import random
import statistics
from collections.abc import Sequence
from typing import Annotated

import typer

from bench.common import measured, run_to_end, summary
from launch.books import Purpose

NUM_DRAWS = 10_000


def paired_gains(run_dir, last: int, purpose: Purpose) -> list[int]:
    """Success after minus success before, for every task measured in both rounds: 1, 0 or -1."""
    before = {row.task_id: row.truth is True for row in measured(run_dir, 0, purpose)}
    after = {row.task_id: row.truth is True for row in measured(run_dir, last, purpose)}
    return [after[task] - before[task] for task in sorted(before.keys() & after.keys())]


def bootstrap(gains: Sequence[Sequence[int]], seed: int) -> tuple[float, float]:
    """95 % interval of the mean over seeds of the mean gain."""
    rng = random.Random(seed)
    means = []
    for _ in range(NUM_DRAWS):
        drawn = rng.choices(gains, k=len(gains))
        means.append(statistics.mean(statistics.mean(rng.choices(tasks, k=len(tasks))) for tasks in drawn))
    quantiles = statistics.quantiles(means, n=40)
    return quantiles[0], quantiles[-1]


def main(
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, with commas between.")] = "0,1,2",
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    config: Annotated[str, typer.Option(help="Config to run.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=c, as for `launch run`.")] = None,
) -> None:
    """Compare the quickstart's last weights with its first: held-out and unseen success, ground truth, over seeds."""
    held_out, unseen = [], []
    for number in map(int, seeds.split(",")):
        run_dir = run_to_end(config, f"{config}-seed{number}", number, overrides or [])
        last = summary(run_dir)["rounds"][-1]["round"]
        held_out.append(paired_gains(run_dir, last, Purpose.EVAL))
        unseen.append(paired_gains(run_dir, last, Purpose.UNSEEN))
        print(f"seed {number}: gain {statistics.mean(held_out[-1]):+.3f} over {len(held_out[-1])} held-out tasks")
    low, high = bootstrap(held_out, seed)
    figures = {
        "gain_mean": statistics.mean(map(statistics.mean, held_out)),
        "gain_ci_low": low,
        "gain_ci_high": high,
        "unseen_gain_mean": statistics.mean(map(statistics.mean, unseen)),
        "seeds": len(held_out),
        "n": sum(map(len, held_out)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
