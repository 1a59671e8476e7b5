"""How much do the algorithms learn from the very same episodes? Held-out success by ground truth, after against before.

Per seed one run of the config practises and learns from it by filtered behaviour cloning; what the starter can do is
measured once, by the first seed's. For every other arm a run branches off it (launch/fork.py) once the first round's
attempts are judged: it learns from these very verdicts (rl/selection.py picks from them what the algorithm learns from)
and is measured on the same tasks; further rounds it makes by itself. What is there already is used again. A gain is
that of bench/quickstart_learning.py, and so is its interval; each arm's is also compared with filtered behaviour
cloning's, task by task, and told with the seconds that its updates took.

An arm is an algorithm with the config's other settings, or a name and what it changes, for ablations. Learning rates
that suit each algorithm best are not looked for (`--set learner.lr=...` sets that of all).

    python -m bench.learner_efficiency --seeds 0,1,2 --set rollout.samples_per_task=4
    python -m bench.learner_efficiency --arm "pulled: learner.algorithm.name=grpo learner.algorithm.kl=0.01"
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.common import RUNS, fork_to_end, runs_of_seeds
from bench.quickstart_learning import Gains, bootstrap, gains_between, mean_gain, paired_gains, tasks_within_seeds
from launch.books import Phase, Purpose
from launch.config import ConfigError
from launch.ledger import Ledger

BASELINE = "filtered_bc"
FIRST = 1
"""The round whose attempts all arms share."""


def changes_of(arm: str) -> tuple[str, list[str]]:
    """An arm's name and overrides: ``grpo``, or ``mine: a.b=c d.e=f``."""
    name, _, changes = arm.partition(":")
    return name.strip(), changes.split() or [f"learner.algorithm.name={name.strip()}"]


def learning_s(run_dir: Path) -> float:
    """Seconds of all of a run's updates."""
    with Ledger.open_readonly(run_dir) as books:
        return sum(books.metrics(row.round).get("learn/seconds", 0.0) for row in books.rounds())


def tell(gains: Mapping[str, Sequence[Gains]], updates_s: Mapping[str, float], seed: int) -> None:
    """A line for each arm, and one for how it compares with the baseline."""
    for name, arm in gains.items():
        print(f"{name}: gain {mean_gain(arm)}, 95 %: {bootstrap(arm, tasks_within_seeds, seed)}")
        print(f"  {updates_s[name]:.0f} s of learning")
        if name != BASELINE:
            more = [gains_between(base, own) for base, own in zip(gains[BASELINE], arm, strict=True)]
            print(f"  against {BASELINE}: {mean_gain(more)}, 95 %: {bootstrap(more, tasks_within_seeds, seed)}")


def main(
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, with commas between.")] = "0,1,2",
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arm", help="Compared with filtered_bc: `grpo`, or `NAME: a.b=c d.e=f`; default: rloo, grpo."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of learning; all share the first one's attempts.", min=1)] = 1,
    config: Annotated[str, typer.Option(help="Config to run: a TOML file or a built-in name.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=c, as for `launch run`.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where the run directories are made.")] = RUNS,
) -> None:
    """Compare what algorithms gain from the same episodes: held-out success, ground truth, over seeds."""
    others = dict(map(changes_of, arms or ["rloo", "grpo"]))
    gains: dict[str, list[Gains]] = {name: [] for name in (BASELINE, *others)}
    updates_s = dict.fromkeys(gains, 0.0)
    episodes = 0
    common = [*(overrides or []), f"run.rounds={rounds}"]
    try:
        for base in runs_of_seeds(config, "efficiency", map(int, seeds.split(",")), runs_dir, common):
            forks = {
                name: fork_to_end(base, f"{base.name}-{name}", FIRST, Phase.SEAL, own) for name, own in others.items()
            }
            for name, run_dir in {BASELINE: base, **forks}.items():
                gains[name].append(paired_gains(run_dir, Purpose.EVAL))
                updates_s[name] += learning_s(run_dir)
            with Ledger.open_readonly(base) as books:
                episodes += sum(books.num_episodes(k, Purpose.TRAIN) for k in range(1, rounds + 1))
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--config, --set, --arm") from error
    if not all(gains[BASELINE]):
        raise typer.BadParameter("expected runs that measure held-out tasks", param_hint="--config")
    tell(gains, updates_s, seed)
    means = {name: mean_gain(arm) or 0.0 for name, arm in gains.items()}
    best = max(means[name] for name in others)
    figures = {
        **{f"{name}_gain": mean for name, mean in means.items()},
        "best_ratio": best / means[BASELINE] if means[BASELINE] > 0 else None,
        "episodes": episodes,
        "seeds": len(gains[BASELINE]),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
