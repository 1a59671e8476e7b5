"""One update by several processes, as by one: weights are sharded over them (FSDP2), and each batch is dealt out.

All processes run the same update (rl/learner.py) in step. Each layer's weights are gathered for its forward and its
backward pass and dropped again; gradients are summed over the processes, and each steps its own shard. What is written
is gathered by the first one, tensor by tensor, into a whole model, and goes the way of one process from there.
Checkpoints are torch.distributed's: each process writes its shards, and any number of them reads them back.

Owns torch.distributed.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch
import torch.distributed as dist
import typer
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure, record
from torch.distributed.fsdp import fully_shard
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.tensor import DTensor

from policy.files import file_hashes, sync
from rl.learner import LearnerError, LearnerSettings, update

if TYPE_CHECKING:
    from rl.model import TrainedModel

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Peers:
    """The processes of an update, and which one this is."""

    rank: int = 0
    size: int = 1

    def deal(self, batch: Sequence[Item]) -> Sequence[Item]:
        """This process's items of a batch that is in the order of their length: every so manieth."""
        return batch[self.rank :: self.size]

    def gather(self, value: Item) -> list[Item]:
        """What each process brings, the first one's first. All have to call it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def peers() -> Peers:
    """The processes that this one has joined; itself alone where it hasn't."""
    return Peers(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Peers()


def shard(inner: Any) -> None:
    """Shard what reads tokens (`inner.model`), layer by layer; the output head, frozen, stays whole in each process."""
    device = next(inner.parameters()).device.type
    mesh = init_device_mesh(device, (peers().size,))
    for layer in inner.model.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(inner.model, mesh=mesh)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be sharded, gathered. All processes have to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_model(model: "TrainedModel", parent: Path) -> "TrainedModel | None":
    """The parent's weights with what was trained of them, in one piece and all in fp32; None but in the first process.

    All have to call it; `model` can't be used afterwards.
    """
    from rl.model import load_model, number_format

    if model.peers.size == 1 and number_format(model.settings) == torch.float32:
        return model
    trained = [whole(parameter.detach()).cpu() for parameter in model.parameters]
    if model.peers.rank:
        return None
    if model.peers.size == 1:
        model.network.to("meta")  # a GPU may have no room for both
    masters = load_model(parent, model.settings, as_masters=True)
    for parameter, value in zip(masters.parameters, trained, strict=True):
        parameter.data.copy_(value)
    return masters


def save_shards(folder: Path, state: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Write a checkpoint to a new directory in `folder`, and drop older ones once it is whole. All have to call it.

    Args:
        folder: Of the update's checkpoints, which lie in it by number of steps.
        state: Plain values, ``progress`` among them; whole is a checkpoint whose COMMIT.json holds them.
        tensors: What `TrainedModel.shards` gives.
    """
    target = folder / f"{state['progress']['steps']:08d}"
    if peers().rank == 0:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    peers().gather(None)
    with _alone():
        save(dict(tensors), checkpoint_id=target)
    if peers().rank == 0:
        for file in target.iterdir():
            sync(file)
        temporary = target / "COMMIT.tmp"
        temporary.write_text(json.dumps({**state, "files": file_hashes(target)}))
        sync(temporary)
        temporary.replace(target / "COMMIT.json")
        sync(target)
        for older in set(folder.iterdir()) - {target}:
            shutil.rmtree(older)
    peers().gather(None)


def find_shards(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; None if there is none."""
    from rl.model import read_commit

    found = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
    return next((path for path in found if read_commit(path) is not None), None)


def load_shards(checkpoint: Path, tensors: Mapping[str, Any]) -> None:
    """Read a checkpoint into tensors, however many processes wrote it and however many read it."""
    with _alone():
        load(dict(tensors), checkpoint_id=checkpoint)


def _alone() -> warnings.catch_warnings:
    """A context in which torch doesn't warn that a single process saves or loads alone."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def together(num_processes: int, do: Callable[..., Item], *args: Any) -> Item:
    """What a function gives in the first of so many new processes of this machine, all of which run it, joined.

    Raises:
        LearnerError: it failed in one of them, and then the others were ended; or there are fewer GPUs than processes.
    """
    if torch.cuda.is_available() and torch.cuda.device_count() < num_processes:
        raise LearnerError(
            f"num_processes: expected at most {torch.cuda.device_count()}, this machine's GPUs, got {num_processes}"
        )
    config = LaunchConfig(
        run_id="update",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        start_method="spawn",
    )
    try:
        return elastic_launch(config, joined)(do, *args)[0]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise LearnerError(f"process {rank} of {num_processes}: {_last_line(failure)}") from error


def _last_line(failure: ProcessFailure) -> str:
    told: Any = failure.message  # of an error that was raised a dict, whatever its type says; of a signal, words
    return (told["message"] if isinstance(told, dict) else told).strip().splitlines()[-1]


@record
def joined(do: Callable[..., Item], *args: Any) -> Item:
    """What a function gives in this process, which joins its peers for it; torchrun or `together` has started them."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        return do(*args)
    finally:
        dist.destroy_process_group()


def one_update(
    manifest: Path, parent: Path, out: Path, settings: LearnerSettings, starter: Path | None, sampler: Path | None
) -> dict[str, float]:
    """`rl.learner.update`, as `together` calls it."""
    return update(manifest, parent, out, settings=settings, starter=starter, sampler=sampler)


def main(
    manifest: Annotated[Path, typer.Argument(help="Sealed by the round.")],
    parent: Annotated[Path, typer.Argument(help="Weights to start from.")],
    out: Annotated[Path, typer.Argument(help="Directory of the new weights.")],
    settings: Annotated[Path, typer.Option(help="JSON file of learner settings.")],
    starter: Annotated[Path | None, typer.Option(help="Weights that the run began with.")] = None,
    sampler: Annotated[Path | None, typer.Option(help="Weights that sampled the round, if not the parent.")] = None,
) -> None:
    """One process's part of an update on several machines: what torchrun starts on each."""
    chosen = LearnerSettings.model_validate_json(settings.read_text())
    joined(one_update, manifest, parent, out, chosen, starter, sampler)


if __name__ == "__main__":
    typer.run(main)
