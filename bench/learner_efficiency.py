"""How much do the algorithms learn from the very same episodes? Held-out success by ground truth, after against before.

Per seed one run of the config practises for one round and learns from it by filtered behaviour cloning. Every other
algorithm starts from the same weights, learns from the same judged episodes (rl/selection.py picks from them what it
learns from) with the same learner's settings, and is measured as round 0 of a run of its own, on the same tasks. What
is there already is used again. A gain is that of bench/quickstart_learning.py, and so is its interval.

Not compared: more rounds, in which an algorithm would make episodes of its own and could replay those before, and
learning rates that suit each algorithm best (`--set learner.lr=...` sets that of all).

    python -m bench.learner_efficiency --seeds 0,1,2 --set rollout.samples_per_task=4
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.common import RUNS, own_settings, run_to_end
from bench.quickstart_learning import Gains, bootstrap, gains_between, mean_gain, successes, tasks_within_seeds
from launch import config as configs
from launch.books import Purpose
from launch.config import Config, ConfigError
from launch.ledger import Ledger
from launch.stages import judged_attempts
from rl.learner import update
from rl.manifest import Manifest, write_manifest
from rl.selection import select

BASELINE = "filtered_bc"
ROUND = 1


def learn(config: Config, run_dir: Path, starter: Path, model: Path) -> bool:
    """Make a starter whose policy has learned from a run's first round; False if there was nothing to learn from."""
    algorithm, manifest = config.learner.algorithm, run_dir / "manifests" / f"{config.learner.algorithm.name}.json"
    with Ledger.open_readonly(run_dir) as books:
        attempts = judged_attempts(books, ROUND, replay_rounds=0)
    selection = select(attempts, config.selection, algorithm.learns_from, config.run.seed)
    write_manifest(manifest, Manifest(round=ROUND, samples=selection.samples, attempts=selection.attempts))
    policy = (starter / "policy").resolve()
    metrics = update(manifest, policy, model / "policy", settings=config.learner, starter=policy)
    print(json.dumps({"algorithm": algorithm.name, **selection.counts, **metrics}))
    if metrics["learn/optimizer_steps"] == 0:
        return False
    for part in starter.resolve().iterdir():
        if part.name != "policy" and not (model / part.name).exists():
            (model / part.name).symlink_to(part)
    return True


def gains_of(algorithm: str, base: Path, config: str, settings: Sequence[str]) -> Gains:
    """An algorithm's gain by task, from the episodes of the run `base`; none where there was nothing to learn from."""
    before = successes(base, 0, Purpose.EVAL)
    if algorithm == BASELINE:
        return gains_between(before, successes(base, ROUND, Purpose.EVAL))
    recipe = configs.load(config, [*settings, f"learner.algorithm.name={algorithm}"])
    assert recipe.model.starter is not None, "main has asked for it"
    model = base.with_name(f"{base.name}-{algorithm}-model")
    if not learn(recipe, base, recipe.model.starter, model):
        return dict.fromkeys(before, 0)
    own = [f"run.name={base.name}-{algorithm}", "run.rounds=0", f"model.starter={model.resolve()}"]
    return gains_between(before, successes(run_to_end(config, [*settings, *own]), 0, Purpose.EVAL))


def main(
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, with commas between.")] = "0,1,2",
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    algorithms: Annotated[str, typer.Option(help="Compared with filtered_bc, with commas between.")] = "rloo,grpo",
    config: Annotated[str, typer.Option(help="Config to run: a TOML file or a built-in name.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="a.b=c, as for `launch run`.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where the run directories are made.")] = RUNS,
) -> None:
    """Compare what algorithms gain from the same episodes: held-out success, ground truth, over seeds."""
    names = [BASELINE, *algorithms.split(",")]
    gains: dict[str, list[Gains]] = {name: [] for name in names}
    episodes = 0
    for number in map(int, seeds.split(",")):
        settings = own_settings(f"efficiency-seed{number}", number, runs_dir, [*(overrides or []), "run.rounds=1"])
        try:
            if configs.load(config, settings).model.starter is None:
                raise typer.BadParameter("expected a config that begins with a starter", param_hint="--config")
            base = run_to_end(config, settings)
            for name in names:
                gains[name].append(gains_of(name, base, config, settings))
        except ConfigError as error:
            raise typer.BadParameter(str(error), param_hint="--config, --set, --algorithms") from error
        with Ledger.open_readonly(base) as books:
            episodes += books.num_episodes(ROUND, Purpose.TRAIN)
    if not all(gains[BASELINE]):
        raise typer.BadParameter("expected runs that measure held-out tasks", param_hint="--config")
    for name, runs in gains.items():
        print(f"{name}: gain {mean_gain(runs)}, 95 %: {bootstrap(runs, tasks_within_seeds, seed)}")
    means = {name: mean_gain(runs) or 0.0 for name, runs in gains.items()}
    best = max(means[name] for name in names[1:])
    figures = {
        **{f"{name}_gain": mean for name, mean in means.items()},
        "best_ratio": best / means[BASELINE] if means[BASELINE] > 0 else None,
        "episodes": episodes,
        "seeds": len(gains[BASELINE]),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
