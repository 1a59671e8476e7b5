"""Do two processes that share a model out between them (FSDP2) learn what one process learns?

The same samples, in fp32, by one process and by two (gloo, this machine): the mean loss of the update, and the largest
difference between any trained weight of one and of the other. AdamW's first steps are as large for a gradient that is
rounding noise as for any other, so that a few weights may differ by more than their gradients do.

    python -m bench.learner_fsdp --seed 0
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import load_file, save_file

from bench.learner_speed import make_samples
from bench.scripted import write_tiny_model
from policy.blobs import BlobStore
from rl.learner import LearnerSettings, Lessons, Training
from rl.manifest import Sample
from rl.shards import together, whole


def fit(model: Path, samples: tuple[Sample, ...], settings: LearnerSettings, out: Path) -> float:
    """Train on the samples by the processes that this one has joined and save what was trained; the mean loss."""
    from rl.model import load_model

    training = Training(load_model(model, settings), settings)
    lessons = Lessons(samples, {sample.trajectory_id: 1.0 for sample in samples})
    for _ in training.steps(lessons, BlobStore(model)):
        pass
    weights = {name: whole(tensor).contiguous() for name, tensor in training.shards()["parameters"].items()}
    if training.model.peers.rank == 0:
        save_file(weights, out)
    return training.progress.metrics()["learn/loss"]


def main(
    seed: Annotated[int, typer.Option(help="Of the samples, the tiny model and the order.", min=0)] = 0,
    model: Annotated[Path | None, typer.Option(help="Model to train; unset: a tiny one is made.")] = None,
    num_samples: Annotated[int, typer.Option(help="Samples trained on.", min=2)] = 8,
) -> None:
    """Compare an update by two processes with one by a single process."""
    with tempfile.TemporaryDirectory(prefix="pae-fsdp-") as folder:
        work = Path(folder)
        if model is None:
            model = work / "tiny"
            write_tiny_model(model, seed)
        num_ids = json.loads((model / "config.json").read_text())["image_token_id"] - 1
        samples = make_samples(num_samples, num_ids, seed)
        settings = LearnerSettings(precision="fp32", lora_rank=4, batch_size=4, seed=seed, num_threads=1)
        losses = {size: together(size, fit, model, samples, settings, work / f"{size}") for size in (1, 2)}
        one, two = load_file(work / "1"), load_file(work / "2")
        largest = max((one[name] - two[name]).abs().max().item() for name in one)
    print(json.dumps({"world_size_1_loss": losses[1], "world_size_2_loss": losses[2], "max_weight_diff": largest}))


if __name__ == "__main__":
    typer.run(main)
