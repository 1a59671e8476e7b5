"""Does it pay to practise a round while the one before trains (`run.overlap`), and when does it not?

Four runs of the real program, of equal rounds: one after the other and overlapping, each (a) where rolling out takes
longer than training and (b) where it is the other way round. The model server is scripted and answers after a while, as
one on another machine would: waiting costs no processor time here, while browser and learner share what there is. The
learner is a real one of a tiny model, made slow by epochs. Figures are seconds from the first round of learning to the
end of the last.

- ratio_a, ratio_b: seconds one after the other, divided by seconds overlapped; above 1 it pays;
- max_staleness: versions by which the weights that were trained were ahead of those that had sampled, at most.

    python -m bench.learner_overlap --seed 0
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.common import run_to_end
from bench.scripted import CONFIG, Call, Reply, ScriptedServer, StarterTokens, wander, write_tiny_starter
from launch.ledger import Ledger

SIZE = (
    "run.min_free_disk_gb=0",
    "run.min_free_memory_gb=0",
    "rollout.episodes_per_actor=4",
    "rollout.tasks_per_round=8",
    "rollout.agent.max_steps=4",
    "evaluation.num_tasks=0",
    "learner.lora_rank=4",
    "learner.lora_alpha=8",
    "tracking.wandb=off",
)


@dataclass(frozen=True, slots=True)
class Case:
    """How slow the two are."""

    name: str
    reply_s: float
    """Seconds that the policy's server takes for a reply."""
    epochs: int
    """The learner's passes over a round's samples."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run tells."""

    wall_s: float
    max_staleness: int


class SlowPolicy:
    """A script whose policy takes its time."""

    def __init__(self) -> None:
        """Answer at once, for the time being."""
        self.reply_s = 0.0

    async def __call__(self, call: Call) -> Reply:
        """The reply."""
        if call.role == "policy":
            await asyncio.sleep(self.reply_s)
        return wander(call)


def run(name: str, seed: int, settings: Sequence[str]) -> Figures:
    """A run's figures, once it is done; where its time went is printed."""
    run_dir = run_to_end(str(CONFIG), [*SIZE, f"run.name={name}", f"run.seed={seed}", *settings])
    with Ledger.open_readonly(run_dir) as books:
        rounds = [row for row in books.rounds() if row.round]
        wall_s = max(row.ended or 0.0 for row in rounds) - min(row.begun for row in rounds)
        metrics = [books.metrics(row.round) for row in rounds]
    parts = {part: sum(row.get(f"time/{part}", 0.0) for row in metrics) for part in ("rollout", "train", "hidden")}
    print(f"{name}: {wall_s:.0f} s, of which", ", ".join(f"{s:.0f} {part}" for part, s in parts.items()), flush=True)
    return Figures(wall_s, int(max(row["learn/max_staleness"] for row in metrics)))


def main(
    seed: Annotated[int, typer.Option(help="Of the runs and of the tiny model.", min=0)] = 0,
    rounds: Annotated[int, typer.Option(help="Rounds of each run; all but the first can overlap.", min=2)] = 4,
    slow_reply_s: Annotated[float, typer.Option(help="Seconds for a reply in (a); in (b) a tenth of it.")] = 4.0,
    slow_epochs: Annotated[int, typer.Option(help="Epochs in (b); in (a) a tenth of them.", min=10)] = 60,
) -> None:
    """Compare rounds one after the other with rounds that overlap."""
    directory = Path(tempfile.mkdtemp(prefix="pae-overlap-"))
    write_tiny_starter(directory, seed)
    script, found = SlowPolicy(), dict[str, Figures]()
    cases = (Case("a", slow_reply_s, slow_epochs // 10), Case("b", slow_reply_s / 10, slow_epochs))
    with ScriptedServer(script, StarterTokens()) as server:
        for case in cases:
            script.reply_s = case.reply_s
            own = [f"run.rounds={rounds}", f"learner.epochs={case.epochs}", *server.settings(directory)]
            for way, overlap in (("sync", "false"), ("overlap", "true")):
                name = f"{way}_{case.name}"
                found[name] = run(name, seed, [*own, f"run.overlap={overlap}"])
    shutil.rmtree(directory)
    figures: dict[str, float] = {}
    for case in cases:
        sync, overlap = found[f"sync_{case.name}"], found[f"overlap_{case.name}"]
        figures[f"sync_s_{case.name}"] = round(sync.wall_s, 1)
        figures[f"overlap_s_{case.name}"] = round(overlap.wall_s, 1)
        figures[f"ratio_{case.name}"] = round(sync.wall_s / overlap.wall_s, 3)
    figures["max_staleness"] = max(one.max_staleness for one in found.values())
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
