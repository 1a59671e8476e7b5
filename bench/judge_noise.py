"""What is correcting rewards for the judge's error worth? Held-out success after equal rounds under a judge that errs.

Three runs per seed of one config, real loops from the same weights: they practise on gold tasks of training worlds,
which are the same in all of them, and are measured on the same held-out tasks. What differs is the judge:

- clean: the truth;
- noisy, uncorrected: the truth, but a known share of verdicts, on successes and failures alike, is flipped;
- noisy, corrected: flipped as before, and rewards are corrected for the error that the round's audits tell.

All of them have audits, so that they practise equally much. The algorithm is topr by default: against a group's
baseline a correction changes the scale only, and filtered_bc never sees the negative rewards of failures
(docs/learner.md).

A small one (about two hundred episodes a round and run, some tens of minutes on two cores):

    python -m bench.judge_noise --rounds 1 --tasks 40 --measured 40
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from bench.common import RUNS, own_settings, round_summaries, run_to_end
from launch.config import ConfigError

PRACTICE = (
    "rollout.gold_tasks=true",
    "rollout.samples_per_task=4",
    "judge.kind=truth",
    "judge.checked=false",
    "selection.same_answer=false",
)


def arms(flip_rate: float) -> dict[str, list[str]]:
    """What distinguishes the runs, by name."""
    noisy = [f"judge.flip_successes={flip_rate}", f"judge.flip_failures={flip_rate}"]
    return {"clean": [], "noisy_uncorrected": noisy, "noisy_corrected": [*noisy, "audit.correct=true"]}


def of_algorithm(name: str) -> list[str]:
    """Overrides that choose an algorithm, and give it what it learns from."""
    return [f"learner.algorithm.name={name}", f"selection.max_failures_per_task={2 if name == 'topr' else 0}"]


def success_of(run: str, seed: int, config: str, settings: Sequence[str], runs_dir: Path) -> float:
    """Held-out success of a run's last weights; what is missing of the run is run first."""
    run_dir = run_to_end(config, own_settings(f"noise-{run}-seed{seed}", seed, runs_dir, settings))
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
    sizes += ["evaluation.unseen_num_tasks=0", f"audit.share={audit_share}", f"audit.pool_rounds={rounds}"]
    common = [*PRACTICE, *sizes, *of_algorithm(algorithm), *(overrides or [])]
    found: dict[str, list[float]] = {}
    try:
        for run, own in arms(flip_rate).items():
            numbers = map(int, seeds.split(","))
            found[run] = [success_of(run, number, config, [*common, *own], runs_dir) for number in numbers]
            print(f"{run}: held-out success by seed {found[run]}")
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--config, --set, --algorithm") from error
    figures = {f"success_{run}": mean(successes) for run, successes in found.items()}
    sizes_run = {"rounds": rounds, "seeds": len(found["clean"]), "algorithm": algorithm}
    print(json.dumps({**figures, "flip_rate": flip_rate, **sizes_run}))


if __name__ == "__main__":
    typer.run(main)
