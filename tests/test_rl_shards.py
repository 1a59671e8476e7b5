"""Two processes (gloo) that share a model out: they learn what one learns, and their checkpoint is anybody's."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from bench.learner_speed import make_samples
from bench.scripted import write_tiny_model
from policy.blobs import BlobStore
from rl.learner import LearnerError, LearnerSettings, Lessons, Training, update
from rl.manifest import Sample, write_manifest
from rl.model import load_model, read_commit
from rl.shards import find_shards, save_shards, shard, together, whole
from rl.steplog import read_steps
from tests.makers import manifest_of

BASE = LearnerSettings(precision="fp32", lr=1e-3, lora_rank=4, batch_size=3, num_threads=1, max_mismatch_kl=100)
"""Batches of 3: of each, one process has twice as many samples as the other, and of the last one all."""
RANKS = (4, None)
STEPS = 3
SAVED_AT = 2

two_devices = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none")
a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "v000000"
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    made = make_samples(7, 1000, seed=0)
    return tuple(one.model_copy(update={"prompt_ids": one.prompt_ids[-20 - 7 * n :]}) for n, one in enumerate(made))


def settings_of(lora_rank: int | None) -> LearnerSettings:
    return BASE.model_copy(update={"lora_rank": lora_rank})


def take_steps(training: Training, samples: tuple[Sample, ...], folder: Path) -> None:
    lessons = Lessons(samples, {one.trajectory_id: 1.0 for one in samples})
    for _ in training.steps(lessons, BlobStore(folder / "blobs")):
        progress = training.progress
        if training.model.peers.size > 1 and progress.steps == SAVED_AT:
            state = {"progress": {"loss": progress.loss, "tokens": progress.tokens, "steps": progress.steps}}
            save_shards(folder / "shards", state, training.shards())


def fit_both(tiny: Path, samples: tuple[Sample, ...], folder: Path) -> dict[str, float]:
    """Train with LoRA and in whole by the processes joined; the losses."""
    losses = {}
    for lora_rank in RANKS:
        here = folder / str(lora_rank)
        training = Training(load_model(tiny, settings_of(lora_rank)), settings_of(lora_rank))
        take_steps(training, samples, here)
        weights = {name: whole(tensor).contiguous() for name, tensor in training.shards()["parameters"].items()}
        if training.model.peers.rank == 0:
            save_file(weights, here / "trained.safetensors")
        losses[str(lora_rank)] = training.progress.metrics()["learn/loss"]
    return losses


@pytest.fixture(scope="module")
def by_two(tiny: Path, samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have left what they trained, and a checkpoint from on the way."""
    folder = tmp_path_factory.mktemp("two")
    losses = together(2, fit_both, tiny, samples, folder)
    for name, loss in losses.items():
        (folder / name / "loss").write_text(str(loss))
    return folder


def same_weights(training: Training, folder: Path) -> None:
    theirs = load_file(folder / "trained.safetensors")
    ours = training.shards()["parameters"]
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        # AdamW's steps are lr long whatever the gradient: where that is rounding noise, they may differ.
        gaps = (tensor - theirs[name]).abs()
        assert gaps.mean() < 1e-6
        assert gaps.max() < STEPS * BASE.lr / 10


@two_devices
@pytest.mark.parametrize("lora_rank", RANKS)
def test_two_processes_learn_what_one_learns(
    tiny: Path, samples: tuple[Sample, ...], by_two: Path, tmp_path: Path, lora_rank: int | None
) -> None:
    training = Training(load_model(tiny, settings_of(lora_rank)), settings_of(lora_rank))
    before = {name: tensor.clone() for name, tensor in training.shards()["parameters"].items()}
    take_steps(training, samples, tmp_path)
    assert training.progress.steps == STEPS
    loss = float((by_two / str(lora_rank) / "loss").read_text())
    assert training.progress.metrics()["learn/loss"] == pytest.approx(loss, rel=1e-5)
    same_weights(training, by_two / str(lora_rank))
    after = training.shards()["parameters"]
    assert max((after[name] - before[name]).abs().max().item() for name in after) > BASE.lr


@two_devices
@pytest.mark.parametrize("lora_rank", RANKS)
def test_one_process_goes_on_from_the_checkpoint_of_two(
    tiny: Path, samples: tuple[Sample, ...], by_two: Path, tmp_path: Path, lora_rank: int | None
) -> None:
    folder = by_two / str(lora_rank)
    checkpoint = find_shards(folder / "shards")
    assert checkpoint is not None
    state = read_commit(checkpoint)
    assert state is not None
    training = Training(load_model(tiny, settings_of(lora_rank)), settings_of(lora_rank))
    training.restore_shards(state, checkpoint)
    assert training.progress.steps == SAVED_AT
    take_steps(training, samples, tmp_path)
    same_weights(training, folder)
    assert training.progress.metrics()["learn/loss"] == pytest.approx(float((folder / "loss").read_text()), rel=1e-5)


@two_devices
def test_a_torn_checkpoint_of_shards_is_not_used(by_two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    whole_one = find_shards(by_two / "4" / "shards")
    assert whole_one is not None
    torn = folder / "00000009"
    torn.mkdir(parents=True)
    for file in whole_one.iterdir():
        (torn / file.name).write_bytes(file.read_bytes())
    assert find_shards(folder) == torn
    shard = next(torn.glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert find_shards(folder) is None


@two_devices
def test_an_update_by_two_processes_writes_whole_weights_and_says_what_is_wrong(
    tiny: Path, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    manifest, out = tmp_path / "manifests" / "m.json", tmp_path / "weights" / "v000001"
    write_manifest(manifest, manifest_of(samples))
    settings = BASE.model_copy(update={"num_processes": 2, "checkpoint_s": 1e-9})
    metrics = update(manifest, tiny, out, settings=settings)
    assert metrics["learn/optimizer_steps"] == STEPS
    assert metrics["learn/trained_tokens"] == sum(len(one.token_ids) for one in samples)
    assert read_commit(out) is not None
    assert sorted(path.name for path in out.parent.iterdir()) == ["v000001", "v000001.steps.jsonl"]
    assert [step.step for step in read_steps(out)] == list(range(1, STEPS + 1))
    one = tmp_path / "weights" / "v000002"
    update(manifest, tiny, one, settings=BASE)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, one))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=2**-7, atol=STEPS * BASE.lr / 10)
    with pytest.raises(LearnerError, match=r"process \d of 2: .*optimizer step 1; its samples"):
        update(manifest, tiny, tmp_path / "x", settings=settings.model_copy(update={"max_loss": 0.01}))


def fit_sharded(tiny: Path, samples: tuple[Sample, ...], folder: Path) -> list[float]:
    """Train by this process alone, as if it had peers, its checkpoint written and read halfway; the weights' gaps."""
    settings = settings_of(lora_rank=4)
    lessons = Lessons(samples, {one.trajectory_id: 1.0 for one in samples})
    made = {}
    for is_sharded in (False, True):
        model = load_model(tiny, settings)
        if is_sharded:
            shard(model.network.get_base_model())
            model.parameters = [parameter for parameter in model.network.parameters() if parameter.requires_grad]
        training = Training(model, settings)
        for _ in training.steps(lessons, BlobStore(folder / "blobs")):
            if is_sharded and training.progress.steps == SAVED_AT:
                state = {"progress": asdict(training.progress)}
                save_shards(folder / "shards", state, training.shards())
                checkpoint = find_shards(folder / "shards")
                assert checkpoint is not None
                training.restore_shards(state, checkpoint)
        assert model.device.type == "cuda"
        made[is_sharded] = {name: whole(tensor) for name, tensor in training.shards()["parameters"].items()}
    return [(made[True][name] - tensor).abs().max().item() for name, tensor in made[False].items()]


@pytest.mark.gpu
@a_gpu
def test_shards_over_nccl_learn_what_whole_weights_learn(
    tiny: Path, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    assert max(together(1, fit_sharded, tiny, samples, tmp_path)) < STEPS * BASE.lr / 10


@pytest.mark.gpu
@a_gpu
def test_more_processes_than_gpus_are_refused_in_a_line(tiny: Path, tmp_path: Path) -> None:
    num = torch.cuda.device_count()
    with pytest.raises(
        LearnerError, match=f"num_processes: expected at most {num}, this machine's GPUs, got {num + 1}"
    ):
        together(num + 1, fit_sharded, tiny, (), tmp_path)


def test_what_would_have_processes_wait_for_each_other_is_refused() -> None:
    with pytest.raises(ValidationError, match="num_processes: expected 1 with share_prefixes"):
        LearnerSettings(num_processes=2, share_prefixes=True)
