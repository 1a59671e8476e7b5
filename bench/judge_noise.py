"""What is correcting rewards for the judge's error worth? Held-out success after equal rounds under a judge that errs.

Per seed one run practises on gold tasks of training worlds, with audits, and is measured before and after on held-out
tasks. The others branch off it (launch/fork.py) after the first round's attempts: they judge the very same ones anew,
learn from them and go on by themselves. What differs is the judge:

- clean: the truth;
- noisy, uncorrected: the truth, but a known share of verdicts, on successes and failures alike, is flipped;
- noisy, corrected: flipped as before, and rewards are corrected for the error that the round's audits tell.

The algorithm is topr by default: against a group's baseline a correction changes the scale only, and filtered_bc never
sees the negative rewards of failures (docs/learner.md).

A small one (six hundred episodes and three updates: 66 minutes on two cores without bf16) stands in docs/results.md.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from bench.common import RUNS, TRUTH, fork_to_end, round_summaries, runs_of_seeds
from launch.books import Phase
from launch.config import ConfigError

PRACTICE = (*TRUTH, "rollout.samples_per_task=4")


def noisy_runs(flip_rate: float) -> dict[str, list[str]]:
    """What distinguishes the others from the clean run, by name."""
    noisy = [f"judge.flip_successes={flip_rate}", f"judge.flip_failures={flip_rate}"]
    return {"noisy_uncorrected": noisy, "noisy_corrected": [*noisy, "audit.correct=true"]}


def of_algorithm(name: str) -> list[str]:
    """Overrides that choose an algorithm, and give it what it learns from."""
    return [f"learner.algorithm.name={name}", f"selection.max_failures_per_task={2 if name == 'topr' else 0}"]


def successes_of(seed: int, base: Path, flip_rate: float) -> dict[str, float]:
    """Held-out success of the last weights of each of a seed's runs, `base` the clean one; the others are run first."""
    run_dirs = {"clean": base} | {
        run: fork_to_end(base, f"noise-{run}-seed{seed}", 1, Phase.JUDGE, own)
        for run, own in noisy_runs(flip_rate).items()
    }
    return {run: _last_success(run_dir) for run, run_dir in run_dirs.items()}


def _last_success(run_dir: Path) -> float:
    success = round_summaries(run_dir)[-1]["held_out_success"]
    if success is None:
        raise typer.BadParameter("expected runs that measure held-out tasks", param_hint="--measured")
    return success


def main(
    seeds: Annotated[str, typer.Option("--seeds", "--seed", help="Seeds of the runs, with commas between.")] = "0",
    flip_rate: Annotated[float, typer.Option(help="Share of verdicts flipped.", min=0, max=1)] = 0.2,
    rounds: Annotated[int, typer.Option(help="Rounds of learning in each run.", min=1)] = 2,
    tasks: Annotated[int, typer.Option(help="Tasks a round, audits among them, four attempts each.", min=2)] = 60,
    measured: Annotated[int, typer.Option(help="Held-out tasks measured after each round.", min=1)] = 150,
    audit_share: Annotated[float, typer.Option(help="Share of the tasks that are audits.", min=0.01, max=0.99)] = 0.25,
    algorithm: Annotated[str, typer.Option(help="What learns.")] = "topr",
    config: Annotated[str, typer.Option(help="Config to run: a TOML file or a built-in name.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=c, as for `launch run`.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where the run directories are made.")] = RUNS,
) -> None:
    """Compare held-out success after learning from a flawless judge, a noisy one, and a noisy one corrected for."""
    sizes = [f"run.rounds={rounds}", f"rollout.tasks_per_round={tasks}", f"evaluation.num_tasks={measured}"]
    sizes += [
        "evaluation.unseen_num_tasks=0",
        f"audit.share={audit_share}",
        f"audit.pool_rounds={rounds}",
        "audit.max_fpr=1",
    ]
    common = [*PRACTICE, *sizes, *of_algorithm(algorithm), *(overrides or [])]
    found: list[dict[str, float]] = []
    numbers = [int(number) for number in seeds.split(",")]
    try:
        for number, base in zip(numbers, runs_of_seeds(config, "noise-clean", numbers, runs_dir, common), strict=True):
            found.append(successes_of(number, base, flip_rate))
            print(f"seed {number}: held-out success {found[-1]}")
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--config, --set, --algorithm") from error
    figures = {f"success_{run}": mean(successes[run] for successes in found) for run in found[0]}
    sizes_run = {"rounds": rounds, "seeds": len(found), "algorithm": algorithm}
    print(json.dumps({**figures, "flip_rate": flip_rate, **sizes_run}))


if __name__ == "__main__":
    typer.run(main)
