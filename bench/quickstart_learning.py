"""Does the quickstart learn? Held-out and unseen success by ground truth, last weights against first, over seeds.

Runs the config once per seed, one after the other, in runs/<config>-seed<N>: a finished run is reused, an unfinished
one goes on. What the starter can do is measured once, by the first seed's run, greedily; the others branch off it after
that (launch/fork.py). Before and after are the same tasks of the same worlds, so a run's gain is the mean over tasks of
success after minus success before (a task counts if both its episodes ended by the agent's doing).

The interval of the mean gain is a bootstrap (10,000 draws, 2.5 and 97.5 % quantiles): seeds are drawn with replacement,
then tasks within each drawn seed, a task's before and after kept together. All seeds measure the same tasks and share
what was measured before, which that ignores; the line before the last therefore tells a second interval, with one draw
of tasks for all seeds. Neither sees more of the spread between seeds than the few that were run.

    python -m bench.quickstart_learning --seeds 0,1,2
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bench.common import RUNS, round_summaries, runs_of_seeds
from launch.books import Purpose
from launch.config import ConfigError, find
from launch.ledger import Ledger

NUM_DRAWS = 10_000

Gains = dict[str, int]
"""Per task: success after minus success before, 1, 0 or -1."""


def successes(run_dir: Path, k: int, purpose: Purpose) -> dict[str, bool]:
    """Ground truth by task, of a round's measured episodes that ended by the agent's doing."""
    with Ledger.open_readonly(run_dir) as books:
        return {row.task_id: row.truth is True for row in books.trajectories(k, purpose) if row.outcome.is_agents}


def gains_between(before: Mapping[str, int], after: Mapping[str, int]) -> Gains:
    """By how much every task that both tell of is better off afterwards."""
    return {task: after[task] - before[task] for task in sorted(before.keys() & after.keys())}


def paired_gains(run_dir: Path, purpose: Purpose) -> Gains:
    """The gain of every task that was measured with the first and with the last weights."""
    last = round_summaries(run_dir)[-1]["round"]
    return gains_between(successes(run_dir, 0, purpose), successes(run_dir, last, purpose))


def mean_gain(runs: Sequence[Gains]) -> float | None:
    """Mean over runs of a run's mean gain; None where nothing was measured."""
    return float(np.mean([np.mean(list(gains.values())) for gains in runs])) if all(runs) else None


def tasks_within_seeds(runs: Sequence[Gains], rng: np.random.Generator) -> float:
    """One draw: seeds, then each drawn seed's tasks."""
    drawn = [list(runs[index].values()) for index in rng.integers(len(runs), size=len(runs))]
    return float(np.mean([rng.choice(gains, len(gains)).mean() for gains in drawn]))


def tasks_across_seeds(runs: Sequence[Gains], rng: np.random.Generator) -> float:
    """One draw: seeds, and the tasks that all of them share, the same ones for every seed."""
    shared = sorted(set.intersection(*(set(gains) for gains in runs)))
    tasks = [shared[index] for index in rng.integers(len(shared), size=len(shared))]
    drawn = [runs[index] for index in rng.integers(len(runs), size=len(runs))]
    return float(np.mean([[gains[task] for task in tasks] for gains in drawn]))


def bootstrap(
    runs: Sequence[Gains], draw: Callable[[Sequence[Gains], np.random.Generator], float], seed: int
) -> list[float]:
    """Lower and upper end of the 95 % interval of the mean gain."""
    rng = np.random.default_rng(seed)
    return np.quantile([draw(runs, rng) for _ in range(NUM_DRAWS)], [0.025, 0.975]).tolist()


def main(
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, with commas between.")] = "0,1,2",
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    config: Annotated[str, typer.Option(help="Config to run: a TOML file or a built-in name.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=c, as for `launch run`.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where the run directories are made.")] = RUNS,
) -> None:
    """Compare the quickstart's last weights with its first: held-out and unseen success, ground truth, over seeds."""
    held_out, unseen = [], []
    try:
        numbers = map(int, seeds.split(","))
        for run_dir in runs_of_seeds(config, find(config).stem, numbers, runs_dir, overrides or []):
            held_out.append(paired_gains(run_dir, Purpose.EVAL))
            unseen.append(paired_gains(run_dir, Purpose.UNSEEN))
            shares = [(row["held_out_success"], row["unseen_success"]) for row in round_summaries(run_dir)]
            pairs = f"{len(held_out[-1])} and {len(unseen[-1])} pairs"
            print(f"{run_dir.name}: (held-out, unseen) success by round {shares}, {pairs}")
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--config, --set") from error
    if not all(held_out):
        raise typer.BadParameter("expected runs that measure held-out tasks", param_hint="--config")
    if all(unseen):
        print(f"unseen gain, 95 %: {bootstrap(unseen, tasks_within_seeds, seed)}")
    print(f"held-out gain, 95 %, one draw of tasks for all seeds: {bootstrap(held_out, tasks_across_seeds, seed)}")
    low, high = bootstrap(held_out, tasks_within_seeds, seed)
    figures = {
        "gain_mean": mean_gain(held_out),
        "gain_ci_low": low,
        "gain_ci_high": high,
        "unseen_gain_mean": mean_gain(unseen),
        "seeds": len(held_out),
        "n": sum(map(len, held_out)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
