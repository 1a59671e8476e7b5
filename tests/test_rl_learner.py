"""The learner on a tiny random model of the starter's architecture: exact log-probs, right gradients, whole weights."""

import functools
import hashlib
import io
import itertools
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor

from bench.scripted import write_tiny_model
from policy import canary
from policy.blobs import BlobStore
from policy.crash import VARIABLE
from rl.algorithms.filtered_bc import FilteredBC
from rl.algorithms.grpo import GRPO
from rl.algorithms.off_policy import OffPolicy
from rl.algorithms.rloo import RLOO
from rl.algorithms.topr import TOPR
from rl.batches import batches, micro_batches
from rl.learner import (
    LearnerError,
    LearnerSettings,
    Training,
    _padded,
    imitate,
    lessons_of,
    measure_parity,
    schedule,
    train,
    update,
)
from rl.manifest import Sample, write_manifest
from rl.model import TrainedModel, load_checkpoint, load_model, save_checkpoint, sing
from rl.steplog import OptimizerStep, read_steps, steps_path
from tests.makers import manifest_of

GROUP_ALGORITHMS = [RLOO(tokens_per_step=8), GRPO(tokens_per_step=8), OffPolicy(tokens_per_step=8)]
SETTINGS = LearnerSettings(lr=1e-2, lora_rank=4, lora_alpha=8, batch_size=2, num_threads=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter's processor around two narrow random layers."""
    folder = tmp_path_factory.mktemp("tiny") / "v000000"
    write_tiny_model(folder)
    return folder


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def picture(blobs: BlobStore, colour: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (1024, 768), colour).save(buffer, "JPEG")
    return blobs.put(buffer.getvalue())


@functools.cache
def processor_of(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder)


def sample(folder: Path, blobs: BlobStore, name: str, prompt: str, reply: str, colour: str = "red") -> Sample:
    processor = processor_of(folder)
    text = f"<|im_start|>user\n<image>{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = processor(text=text, images=[Image.new("RGB", (256, 192))]).input_ids[0]
    reply_ids = processor.tokenizer(f"{reply}<|im_end|>", add_special_tokens=False).input_ids
    return Sample(
        trajectory_id=name,
        step=0,
        prompt_ids=tuple(ids),
        token_ids=tuple(reply_ids),
        logprobs=(),
        pictures=(picture(blobs, colour),),
        weights=0,
    )


@pytest.fixture
def samples(tiny: Path, blobs: BlobStore) -> list[Sample]:
    return [
        sample(tiny, blobs, "a", "Open the kettle.", "Action: Click [3]"),
        sample(tiny, blobs, "b", "How much is the lamp, please?", "Action: Answer; 12", "blue"),
        sample(tiny, blobs, "c", "Buy it.", "Action: Wait").model_copy(update={"temperature": 0.6}),
    ]


def slow_logprobs(model: TrainedModel, one: Sample, blobs: BlobStore) -> list[float]:
    """Log-probs from the whole model's logits, one token after the other, one sample alone."""
    ids = torch.tensor([[*one.prompt_ids, *one.token_ids]], device=model.device)
    pixels = model._pixels([one], blobs, SETTINGS.image_px)
    with torch.no_grad(), model.autocast():
        logits = model.network(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels).logits[0].float()
    first = len(one.prompt_ids) - 1
    scaled = logits[first:] / one.temperature
    return [float(scaled[r].log_softmax(-1)[token]) for r, token in enumerate(one.token_ids)]


def test_batched_logprobs_equal_those_of_each_sample_alone(tiny: Path, blobs: BlobStore, samples: list[Sample]) -> None:
    model = load_model(tiny, SETTINGS)
    for one, scored in zip(samples, model.score(samples, blobs, 256), strict=True):
        assert scored == pytest.approx(slow_logprobs(model, one, blobs), abs=0.02)


def test_the_mask_covers_response_tokens_and_nothing_else(tiny: Path, blobs: BlobStore, samples: list[Sample]) -> None:
    logprobs, mask = load_model(tiny, SETTINGS).logprobs(samples, blobs, 256)
    assert logprobs.shape == mask.shape == (3, max(len(s.token_ids) for s in samples))
    for row, one in zip(mask.tolist(), samples, strict=True):
        assert row == [1.0] * len(one.token_ids) + [0.0] * (mask.shape[1] - len(one.token_ids))


def test_the_picture_reaches_the_model(tiny: Path, blobs: BlobStore, samples: list[Sample]) -> None:
    model = load_model(tiny, SETTINGS)
    other = samples[0].model_copy(update={"pictures": (picture(blobs, "white"),)})
    assert model.score([samples[0]], blobs, 256) != model.score([other], blobs, 256)


@pytest.mark.parametrize("lora_rank", [4, None])
def test_training_makes_the_trained_responses_likelier(
    tiny: Path, blobs: BlobStore, samples: list[Sample], lora_rank: int | None
) -> None:
    settings = SETTINGS.model_copy(update={"lora_rank": lora_rank, "epochs": 5})
    model = load_model(tiny, settings)
    before = [sum(row) for row in model.score(samples, blobs, 256)]
    metrics = imitate(model, samples, blobs, settings)
    after = [sum(row) for row in model.score(samples, blobs, 256)]
    assert all(late > early for early, late in zip(before, after, strict=True))
    assert metrics["learn/optimizer_steps"] == 10


def test_training_unlearns_a_failure_and_leaves_the_rest(tiny: Path, blobs: BlobStore, samples: list[Sample]) -> None:
    model = load_model(tiny, SETTINGS)
    before = known(model, samples, blobs)[:2]
    settings = SETTINGS.model_copy(update={"epochs": 20, "algorithm": TOPR()})
    train(model, lessons_of(manifest_of(before, a=0, b=1), TOPR()), blobs, settings)
    failed, done = known(model, samples, blobs)[:2]
    assert sum(failed.logprobs) < sum(before[0].logprobs) - 1
    assert sum(done.logprobs) > sum(before[1].logprobs) + 1


def test_cutting_a_batch_into_parts_leaves_the_gradient_as_it_is(
    tiny: Path, blobs: BlobStore, samples: list[Sample]
) -> None:
    gradients = []
    for micro_tokens in (64, 100_000):
        model = load_model(tiny, SETTINGS)
        for micro in micro_batches(samples, micro_tokens):
            logprobs, mask = model.logprobs(micro, blobs, 256)
            (-(logprobs * mask).sum()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters if p.grad is not None]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.999


EXACT = SETTINGS.model_copy(update={"precision": "fp32", "lora_rank": None})


@pytest.fixture
def relatives(samples: list[Sample]) -> list[Sample]:
    """Samples of which two share prompt and picture, one shares its beginning with them, and one shares nothing."""
    first, other, third = samples
    twin = first.model_copy(update={"trajectory_id": "twin", "token_ids": first.token_ids[:3] + third.token_ids})
    longer = first.prompt_ids[:-4] + other.prompt_ids[-9:]
    cousin = first.model_copy(update={"trajectory_id": "cousin", "prompt_ids": longer, "temperature": 0.7})
    return [first, other, twin, cousin]


def loss_and_gradients(folder: Path, given: list[Sample], blobs: BlobStore, **changes: Any) -> tuple[float, Any]:
    settings = EXACT.model_copy(update={"batch_size": len(given), "algorithm": RLOO(tokens_per_step=8), **changes})
    model = load_model(folder, settings)
    rewards: dict[str, Literal[0, 1]] = {one.trajectory_id: 1 if n % 2 else 0 for n, one in enumerate(given)}
    loss = Training(model, settings)._add_gradients(given, lessons_of(manifest_of(given, **rewards), RLOO()), blobs)
    return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters]


@pytest.mark.parametrize(
    "changes",
    [
        {"share_prefixes": True},
        {"share_prefixes": True, "micro_tokens": 64},
        {"share_prefixes": True, "train_vision": True},
        {"picture_cache_mb": 1.0},
        {"checkpointing": True},
        {"micro_tokens": 64},
    ],
    ids=str,
)
def test_what_saves_work_or_memory_changes_neither_loss_nor_gradient(
    tiny: Path, blobs: BlobStore, relatives: list[Sample], changes: dict[str, Any]
) -> None:
    plain = {"train_vision": changes.get("train_vision", False)}
    loss, gradients = loss_and_gradients(tiny, relatives, blobs, **plain)
    other_loss, other_gradients = loss_and_gradients(tiny, relatives, blobs, **changes)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    largest = max(gradient.abs().max().item() for gradient in gradients)
    for ours, theirs in zip(other_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * largest)


def count_calls(module: torch.nn.Module) -> list[None]:
    calls: list[None] = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


@pytest.mark.parametrize(("megabytes", "calls"), [(1.0, 2), (0.0005, 3)])
def test_a_picture_is_encoded_once_while_there_is_room_for_it(
    tiny: Path, blobs: BlobStore, samples: list[Sample], megabytes: float, calls: int
) -> None:
    model = load_model(tiny, EXACT.model_copy(update={"picture_cache_mb": megabytes}))
    encoded = count_calls(model.network.model.vision_model)
    for one in (samples[0], samples[1], samples[0]):
        model.score([one], blobs, 256)
    assert len(encoded) == calls


def test_checkpointing_computes_layers_again_and_drops_nothing_at_random(
    tiny: Path, blobs: BlobStore, samples: list[Sample]
) -> None:
    model = load_model(tiny, EXACT.model_copy(update={"checkpointing": True}))
    layer = model.network.model.text_model.layers[1]
    calls = count_calls(layer.self_attn)
    model.logprobs(samples[:1], blobs, 256)[0].sum().backward()
    assert len(calls) == 2
    assert not any(module.training for module in (layer.mlp, layer.self_attn, model.network))


@pytest.mark.parametrize("lora_rank", [4, None])
@pytest.mark.parametrize("train_vision", [True, False])
def test_the_vision_tower_is_trained_where_the_config_says_so_and_left_alone_else(
    tiny: Path, tmp_path: Path, samples: list[Sample], lora_rank: int | None, train_vision: bool
) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", manifest_of(samples))
    settings = SETTINGS.model_copy(update={"lora_rank": lora_rank, "train_vision": train_vision})
    update(tmp_path / "manifests" / "m.json", tiny, tmp_path / "out", settings=settings)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny, tmp_path / "out"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("text_model.layers" in name for name in moved)
    assert any("vision_model" in name or "connector" in name for name in moved) == train_vision


def test_a_model_whose_pictures_cannot_be_encoded_apart_is_refused(tiny: Path) -> None:
    model = load_model(tiny, SETTINGS)
    model.network.config.model_type = "qwen2_5_vl"
    with pytest.raises(ValueError, match="expected a model of idefics3, smolvlm, got qwen2_5_vl"):
        TrainedModel(model.network, model.processor, SETTINGS.model_copy(update={"share_prefixes": True}))


def known(model: TrainedModel, samples: list[Sample], blobs: BlobStore) -> list[Sample]:
    """The samples with the model's own log-probs, as if it had just sampled them."""
    rows = [row for one in samples for row in model.score([one], blobs, 256)]
    return [one.model_copy(update={"logprobs": tuple(row)}) for one, row in zip(samples, rows, strict=True)]


def test_filtered_bc_takes_the_very_steps_of_a_plain_loop(tiny: Path, blobs: BlobStore, samples: list[Sample]) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 2, "micro_tokens": 128})
    model, plain = load_model(tiny, settings), load_model(tiny, settings)
    train(model, lessons_of(manifest_of(samples), FilteredBC()), blobs, settings)
    optimizer = torch.optim.AdamW(plain.parameters, lr=1, betas=(0.9, 0.95), weight_decay=0)
    for number, batch in enumerate(batches(samples, settings.batch_size, settings.epochs, settings.seed)):
        optimizer.param_groups[0]["lr"] = settings.lr * schedule(number, 4, settings.warmup_share)
        for micro in micro_batches(batch, settings.micro_tokens):
            logprobs, mask = plain.logprobs(micro, blobs, settings.image_px)
            (-(logprobs * mask).sum() / sum(len(one.token_ids) for one in batch)).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters, plain.parameters, strict=True))


@pytest.mark.parametrize("algorithm", GROUP_ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_a_group_makes_its_success_likelier_and_its_failure_less_likely(
    tiny: Path, blobs: BlobStore, samples: list[Sample], algorithm: RLOO | GRPO | OffPolicy
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 10, "algorithm": algorithm})
    model = load_model(tiny, settings)
    before = known(model, samples, blobs)
    metrics = train(model, lessons_of(manifest_of(before, a=0, b=1), algorithm), blobs, settings)
    after = known(model, samples, blobs)
    failed, done, _ = (sum(new.logprobs) - sum(old.logprobs) for new, old in zip(after, before, strict=True))
    assert failed < -0.5
    assert done > 0.5
    assert metrics["learn/optimizer_steps"] == 10  # the third sample is alone: there is nothing to compare it with
    shares = {key: value for key, value in metrics.items() if key.endswith("_share")}
    assert all(0 <= share <= 1 for share in shares.values())


def test_what_a_success_and_a_failure_share_cancels_out(tiny: Path, blobs: BlobStore, samples: list[Sample]) -> None:
    settings = SETTINGS.model_copy(update={"algorithm": RLOO()})
    model = load_model(tiny, settings)
    twins = [samples[0], samples[0].model_copy(update={"trajectory_id": "twin"})]
    metrics = train(model, lessons_of(manifest_of(twins, a=1, twin=0), RLOO()), blobs, settings)
    assert metrics["learn/grad_norm"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "algorithm", [FilteredBC(), RLOO(tokens_per_step=8), GRPO(tokens_per_step=8)], ids=lambda algorithm: algorithm.name
)
def test_along_its_gradient_the_loss_changes_as_the_gradient_says(
    tiny: Path, blobs: BlobStore, samples: list[Sample], algorithm: FilteredBC | RLOO | GRPO
) -> None:
    settings = SETTINGS.model_copy(update={"batch_size": 3, "lora_rank": None, "algorithm": algorithm})
    model = load_model(tiny, settings)
    given = known(model, samples, blobs)
    training, lessons = Training(model, settings), lessons_of(manifest_of(given, a=0, b=1, c=1), algorithm)

    def loss_at(distance: float) -> float:
        for parameter, start, direction in zip(model.parameters, starts, directions, strict=True):
            parameter.data = start + distance * direction
        return training._add_gradients(lessons.samples, lessons, blobs)

    starts = [parameter.detach().clone() for parameter in model.parameters]
    training._add_gradients(lessons.samples, lessons, blobs)
    norm = model.clip_gradients(1.0)
    directions = [torch.zeros_like(p) if p.grad is None else p.grad.clone() / min(1.0, norm) for p in model.parameters]
    step = 0.02  # smaller, and bf16's rounding shows; larger, and the loss is no longer straight
    assert (loss_at(step) - loss_at(-step)) / (2 * step) == pytest.approx(norm, rel=0.05)


def test_recorded_logprobs_are_padded_with_nothing_and_unknown_ones_are_no_numbers() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    padded = _padded([(-1.0, -2.0), (), (-3.0,)], mask)
    torch.testing.assert_close(
        padded, torch.tensor([[-1.0, -2.0, 0.0], [math.nan] * 3, [-3.0, 0.0, 0.0]]), equal_nan=True
    )


def test_holding_on_to_the_starter_keeps_closer_to_it(tiny: Path, tmp_path: Path, samples: list[Sample]) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    given = known(load_model(tiny, SETTINGS), samples, blobs)
    write_manifest(tmp_path / "manifests" / "m.json", manifest_of(given, a=0, b=1))

    def drift(kl: float) -> float:
        settings = SETTINGS.model_copy(update={"epochs": 8, "algorithm": GRPO(kl=kl, tokens_per_step=8)})
        out = tmp_path / f"kl-{kl}"
        metrics = update(tmp_path / "manifests" / "m.json", tiny, out, settings=settings, starter=tiny)
        assert ("learn/starter_kl" in metrics) == (kl > 0)
        rows = load_model(out, SETTINGS).score(given[:2], blobs, 256)
        return sum(abs(sum(row) - sum(one.logprobs)) for row, one in zip(rows, given[:2], strict=True))

    assert drift(10.0) < 0.5 * drift(0.0)


def test_an_algorithm_that_holds_on_to_the_starter_says_that_it_is_missing(
    tiny: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    write_manifest(tmp_path / "m.json", manifest_of(samples, a=0, b=1))
    settings = SETTINGS.model_copy(update={"algorithm": GRPO(kl=0.1)})
    with pytest.raises(ValueError, match="grpo: expected the weights that the run began with"):
        update(tmp_path / "m.json", tiny, tmp_path / "out", settings=settings)


def spoil(model: TrainedModel) -> None:
    """Have the second layer's gradients be no numbers, with a loss that is one."""
    next(p for p in model.parameters[::-1]).register_hook(lambda gradient: gradient * math.nan)


@pytest.mark.parametrize(
    ("changes", "rewards", "words"),
    [
        ({"max_loss": 0.001}, {}, r"loss \d"),
        ({"max_loss": 0.001, "algorithm": RLOO(), "batch_size": 3}, {"b": 0, "c": 1}, r"loss -\d"),
        ({"algorithm": GRPO()}, {"a": 0, "b": 1}, "loss nan"),
        ({"algorithm": OffPolicy()}, {"a": 0, "b": 1}, "loss nan"),
    ],
    ids=["exploding", "exploding downwards", "grpo without logprobs", "off_policy without logprobs"],
)
def test_a_loss_that_explodes_or_is_no_number_names_its_batch_and_writes_nothing(
    tiny: Path,
    tmp_path: Path,
    samples: list[Sample],
    changes: dict[str, Any],
    rewards: dict[str, Literal[0, 1]],
    words: str,
) -> None:
    manifest, out = tmp_path / "manifests" / "m.json", tmp_path / "weights" / "v000001"
    write_manifest(manifest, manifest_of(samples, **rewards))
    with pytest.raises(LearnerError, match=rf"{words}.* in optimizer step 1; its samples: .*[abc]#0"):
        update(manifest, tiny, out, settings=SETTINGS.model_copy(update=changes))
    assert list(out.parent.iterdir()) == [steps_path(out)]
    assert read_steps(out) == []


def test_a_gradient_that_is_no_number_stops_before_it_is_applied(
    tiny: Path, blobs: BlobStore, samples: list[Sample]
) -> None:
    model = load_model(tiny, SETTINGS)
    spoil(model)
    before = [parameter.detach().clone() for parameter in model.parameters]
    with pytest.raises(LearnerError, match=r"gradient norm nan in optimizer step 1; its samples: .*#0"):
        imitate(model, samples, blobs, SETTINGS)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters, strict=True))


def test_new_weights_that_compute_no_numbers_are_not_written(tiny: Path, tmp_path: Path, samples: list[Sample]) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", manifest_of(samples))
    settings = SETTINGS.model_copy(update={"extrapolation": 1e38})
    with pytest.raises(LearnerError, match="expected log-probs of the canary that are numbers"):
        update(tmp_path / "manifests" / "m.json", tiny, tmp_path / "weights" / "v000001", settings=settings)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["v000001.steps.jsonl"]


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_picture_that_is_not_what_was_sealed_is_refused(
    tiny: Path, tmp_path: Path, blobs: BlobStore, samples: list[Sample], is_gone: bool
) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", manifest_of(samples))
    path = blobs.path(samples[1].pictures[0])
    path.unlink() if is_gone else path.write_bytes(blobs.get(samples[0].pictures[0]))
    with pytest.raises(LearnerError, match=f"picture {path.name}: expected a file of that sha256"):
        update(tmp_path / "manifests" / "m.json", tiny, tmp_path / "out", settings=SETTINGS)
    assert not (tmp_path / "out").exists()


def test_new_weights_are_whole_and_differ_from_the_parents(tiny: Path, tmp_path: Path, samples: list[Sample]) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", manifest_of(samples))
    out = tmp_path / "weights" / "v000001"
    out.parent.mkdir()
    update(tmp_path / "manifests" / "m.json", tiny, out, settings=SETTINGS)
    commit = json.loads((out / "COMMIT.json").read_text())
    for name, digest in commit["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in tiny.iterdir()} <= {path.name for path in out.iterdir()}
    assert (out / "model.safetensors").read_bytes() != (tiny / "model.safetensors").read_bytes()
    load_model(out, SETTINGS)


@pytest.mark.parametrize("lora_rank", [4, None])
def test_weights_are_written_where_the_extrapolation_says(
    tiny: Path, tmp_path: Path, samples: list[Sample], lora_rank: int | None
) -> None:
    manifest = tmp_path / "manifests" / "m.json"
    write_manifest(manifest, manifest_of(samples))
    name = "model.text_model.layers.0.self_attn.q_proj.weight"

    def written(factor: float) -> torch.Tensor:
        out = tmp_path / f"at-{factor}"
        update(
            manifest, tiny, out, settings=SETTINGS.model_copy(update={"lora_rank": lora_rank, "extrapolation": factor})
        )
        return load_file(out / "model.safetensors")[name].double()

    before, trained = load_file(tiny / "model.safetensors")[name].double(), written(1.0)
    assert (trained - before).abs().max() > 0.01
    assert torch.equal(written(0.0), before)
    for factor in (0.5, 3.0):
        torch.testing.assert_close(written(factor), before + factor * (trained - before), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lora_rank", [4, None])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_is_too_little_for_bf16_adds_up_from_round_to_round(
    tiny: Path, tmp_path: Path, samples: list[Sample], lora_rank: int | None, precision: Literal["bf16", "fp32"]
) -> None:
    manifest, name = tmp_path / "manifests" / "m.json", "model.text_model.layers.0.mlp.up_proj.weight"
    write_manifest(manifest, manifest_of(samples))
    settings = SETTINGS.model_copy(update={"lr": 1e-6, "lora_rank": lora_rank, "precision": precision})
    versions = [tiny, tmp_path / "v000001", tmp_path / "v000002"]
    for parent, out in itertools.pairwise(versions):
        update(manifest, parent, out, settings=settings)
    before, first, second = (load_file(path / "model.safetensors")[name] for path in versions)
    assert (first.dtype, second.dtype) == (torch.float32, torch.float32)
    assert (first.bfloat16() == before.bfloat16()).float().mean() > 0.95
    moved = (first.double() - before.double()).norm()
    assert moved > 0
    assert (second.double() - before.double()).norm() > 1.5 * moved


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_new_weights_come_with_the_canarys_song_as_they_sing_it(
    tiny: Path, tmp_path: Path, samples: list[Sample], precision: Literal["bf16", "fp32"]
) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", manifest_of(samples))
    # The tiny model is nearly uniform: a few steps hardly tell.
    settings = SETTINGS.model_copy(update={"epochs": 20, "precision": precision})
    update(tmp_path / "manifests" / "m.json", tiny, tmp_path / "v000001", settings=settings)
    told = canary.expected(tmp_path / "v000001")
    assert told is not None
    assert canary.gap(sing(load_model(tmp_path / "v000001", settings), SETTINGS.image_px), told) < 0.01
    assert canary.gap(sing(load_model(tiny, settings), SETTINGS.image_px), told) > 0.1
    assert canary.expected(tiny) is None


def test_the_same_manifest_gives_the_same_weights(tiny: Path, tmp_path: Path, samples: list[Sample]) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", manifest_of(samples))
    for name in ("one", "two"):
        update(tmp_path / "manifests" / "m.json", tiny, tmp_path / name, settings=SETTINGS)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()


def test_parity_is_zero_against_the_models_own_logprobs(tiny: Path, blobs: BlobStore, samples: list[Sample]) -> None:
    model = load_model(tiny, SETTINGS)
    scored = model.score(samples, blobs, 256)
    own = [s.model_copy(update={"logprobs": tuple(row)}) for s, row in zip(samples, scored, strict=True)]
    parity = measure_parity(model, own, blobs, SETTINGS)
    assert parity["learn/logprob_mean_abs_diff"] == pytest.approx(0, abs=0.01)
    assert parity["learn/mismatch_kl"] == pytest.approx(0, abs=1e-4)


def test_an_update_whose_server_computed_another_policy_stops_before_anything_is_trained(
    tiny: Path, tmp_path: Path, samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    manifest, out = tmp_path / "manifests" / "m.json", tmp_path / "weights" / "v000001"
    given = known(load_model(tiny, SETTINGS), samples, BlobStore(tmp_path / "blobs"))
    off = [one.model_copy(update={"logprobs": tuple(p - 0.5 for p in one.logprobs)}) for one in given]
    write_manifest(manifest, manifest_of(off))
    with (
        caplog.at_level(logging.INFO, "rl.learner"),
        # exp(0.5) - 1 - 0.5
        pytest.raises(LearnerError, match=r"logprob_mean_abs_diff 0\.5, .*mismatch_kl 0\.14.* at most 0\.1 \("),
    ):
        update(manifest, tiny, out, settings=SETTINGS)
    assert steps_taken(caplog) == []
    assert list(out.parent.iterdir()) == []
    metrics = update(manifest, tiny, out, settings=SETTINGS.model_copy(update={"max_mismatch_kl": 0.2}))
    assert metrics["learn/masked_share"] == 0


def test_what_older_weights_sampled_is_no_mismatch(samples: list[Sample]) -> None:
    data = manifest_of(samples)
    attempts = [attempt.model_copy(update={"age": n}) for n, attempt in enumerate(data.attempts)]
    lessons = lessons_of(data.model_copy(update={"attempts": tuple(attempts)}), FilteredBC())
    assert [sample.trajectory_id for sample in lessons.fresh] == ["a"]
    assert len(lessons.samples) == 3


def test_what_the_weights_before_the_parent_sampled_is_checked_by_those_weights(
    tiny: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    given = manifest_of(known(load_model(tiny, SETTINGS), samples, BlobStore(tmp_path / "blobs")))
    stale = [attempt.model_copy(update={"staleness": 1}) for attempt in given.attempts]
    manifest, parent = tmp_path / "manifests" / "m.json", tmp_path / "v000001"
    write_manifest(manifest, given.model_copy(update={"attempts": tuple(stale)}))
    settings = SETTINGS.model_copy(update={"epochs": 20, "max_mismatch_kl": 1e9})
    assert update(manifest, tiny, parent, settings=settings)["learn/mismatch_kl"] < 1e-3
    by_parent = update(manifest, parent, tmp_path / "one", settings=settings)
    by_sampler = update(manifest, parent, tmp_path / "two", settings=settings, sampler=tiny)
    assert by_sampler["learn/mismatch_kl"] < 1e-3 < 1e-2 < by_parent["learn/mismatch_kl"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("algorithm", [FilteredBC(), GRPO()], ids=lambda algorithm: algorithm.name)
def test_nothing_to_learn_from_leaves_the_weights_as_they_are_and_is_told(
    tmp_path: Path, samples: list[Sample], caplog: pytest.LogCaptureFixture, algorithm: FilteredBC | GRPO
) -> None:
    out = tmp_path / "weights" / "v000001"
    settings = SETTINGS.model_copy(update={"algorithm": algorithm})
    for data in (manifest_of([]), manifest_of(samples, a=0, b=0, c=0)):
        write_manifest(tmp_path / "m.json", data)
        assert update(tmp_path / "m.json", tmp_path, out, settings=settings) == {"learn/optimizer_steps": 0}
        assert f"nothing that {algorithm.name} can learn from" in caplog.text
        assert not out.parent.exists()
        caplog.clear()


def test_the_learning_rate_climbs_and_falls_as_computed_by_hand() -> None:
    shares = [schedule(step, 10, 0.2) for step in range(10)]
    assert shares[:3] == pytest.approx([0.5, 1.0, 1 - 0.9 / 8])
    assert shares[-1] == pytest.approx(0.1)


def test_parts_of_a_batch_keep_to_the_token_limit_and_lose_no_sample(samples: list[Sample]) -> None:
    longest = max(len(s.prompt_ids) + len(s.token_ids) for s in samples)
    parts = list(micro_batches(samples, 2 * longest))
    assert sorted(s.trajectory_id for part in parts for s in part) == ["a", "b", "c"]
    for part in parts:
        assert max(len(s.prompt_ids) + len(s.token_ids) for s in part) * len(part) <= 2 * longest


LONG = SETTINGS.model_copy(update={"epochs": 3, "checkpoint_s": 1e-9, "max_mismatch_kl": 100.0})
"""Six optimizer steps, each followed by a checkpoint; the log-probs that are given to it are invented."""


@dataclass(frozen=True)
class Unbroken:
    """An update that nothing interrupted."""

    manifest: Path
    metrics: dict[str, float]
    weights: bytes


@pytest.fixture(scope="module")
def unbroken(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    folder = tmp_path_factory.mktemp("unbroken")
    blobs = BlobStore(folder / "blobs")
    samples = [
        sample(tiny, blobs, name, prompt, reply)
        for name, prompt, reply in (("a", "Open it.", "Click"), ("b", "How much?", "12"), ("c", "Buy it.", "Wait"))
    ]
    recorded = tuple(s.model_copy(update={"logprobs": (-1.0,) * len(s.token_ids)}) for s in samples)
    manifest = folder / "manifests" / "m.json"
    write_manifest(manifest, manifest_of(recorded))
    metrics = update(manifest, tiny, folder / "out", settings=LONG)
    return Unbroken(manifest, metrics, (folder / "out" / "model.safetensors").read_bytes())


def update_killed_at(point: str, manifest: Path, parent: Path, out: Path) -> None:
    """An update in a process that kills itself there."""
    script = (
        "import sys; from pathlib import Path; from rl.learner import LearnerSettings, update;"
        "update(*map(Path, sys.argv[1:4]), settings=LearnerSettings.model_validate_json(sys.argv[4]))"
    )
    command = [sys.executable, "-c", script, str(manifest), str(parent), str(out), LONG.model_dump_json()]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=os.environ | {VARIABLE: point}, check=False)
    assert done.returncode == -signal.SIGKILL


def interrupt_after_three_steps(
    monkeypatch: pytest.MonkeyPatch, manifest: Path, parent: Path, out: Path, settings: LearnerSettings | None = None
) -> Path:
    """The checkpoint that an update leaves which ends there."""
    points: list[str] = []

    def interrupt(point: str) -> None:
        points.append(point)
        if points.count("learn:checkpoint") == 3:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr("rl.learner.crash_point", interrupt)
        with pytest.raises(InterruptedError):
            update(manifest, parent, out, settings=settings or LONG, starter=parent)
    return out.with_name(f".{out.name}.checkpoint")


def steps_taken(caplog: pytest.LogCaptureFixture) -> list[int]:
    args = [record.args for record in caplog.records if record.msg.startswith("optimizer step")]
    return [arg[0] for arg in args if isinstance(arg, tuple) and isinstance(arg[0], int)]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def altered(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def without_times(out: Path) -> list[OptimizerStep]:
    return [step.model_copy(update={"at": 0.0}) for step in read_steps(out)]


def without_seconds(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "learn/seconds"}


@pytest.mark.parametrize(
    ("point", "steps_left"),
    [("learn:step#4", [4, 5, 6]), ("learn:checkpoint#4", [5, 6]), ("learn:save", []), ("learn:renamed", [])],
    ids=["step", "checkpoint", "save", "renamed"],
)
def test_a_killed_update_takes_only_the_steps_left_and_gives_the_same_weights(
    tiny: Path, tmp_path: Path, unbroken: Unbroken, caplog: pytest.LogCaptureFixture, point: str, steps_left: list[int]
) -> None:
    out = tmp_path / "weights" / "v000001"
    update_killed_at(point, unbroken.manifest, tiny, out)
    with caplog.at_level(logging.INFO, "rl.learner"):
        metrics = update(unbroken.manifest, tiny, out, settings=LONG)
    assert steps_taken(caplog) == steps_left
    assert (out / "model.safetensors").read_bytes() == unbroken.weights
    assert without_seconds(metrics) == without_seconds(unbroken.metrics)
    assert without_times(out) == without_times(unbroken.manifest.parent.parent / "out")
    assert sorted(path.name for path in out.parent.iterdir()) == ["v000001", "v000001.steps.jsonl"]


def test_an_update_tells_of_its_steps_as_it_takes_them(
    tiny: Path, tmp_path: Path, unbroken: Unbroken, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert read_steps(out) == []
    begun = time.time()
    interrupt_after_three_steps(monkeypatch, unbroken.manifest, tiny, out)
    assert [(step.step, step.total) for step in read_steps(out)] == [(1, 6), (2, 6), (3, 6)]
    update(unbroken.manifest, tiny, out, settings=LONG)
    steps = read_steps(out)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    metrics = unbroken.metrics
    assert sum(step.loss for step in steps) / 6 == pytest.approx(metrics["learn/loss"])
    assert sum(step.grad_norm for step in steps) / 6 == pytest.approx(metrics["learn/grad_norm"])
    assert sum(step.tokens for step in steps) == metrics["learn/trained_tokens"]
    assert [step.lr for step in steps] == [LONG.lr * schedule(number, 6, LONG.warmup_share) for number in range(6)]
    assert all(begun <= earlier.at <= later.at for earlier, later in itertools.pairwise(steps))


def test_another_update_of_the_same_name_begins_its_log_anew(
    tiny: Path, tmp_path: Path, unbroken: Unbroken, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    interrupt_after_three_steps(monkeypatch, unbroken.manifest, tiny, out)
    update(unbroken.manifest, tiny, out, settings=LONG.model_copy(update={"epochs": 1}))
    assert [(step.step, step.total) for step in read_steps(out)] == [(1, 2), (2, 2)]


def test_a_step_torn_by_a_kill_is_not_read_and_is_written_whole_again(
    tiny: Path, tmp_path: Path, unbroken: Unbroken, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    interrupt_after_three_steps(monkeypatch, unbroken.manifest, tiny, out)
    with steps_path(out).open("a") as file:
        file.write('{"step": 4, "tot')
    assert [step.step for step in read_steps(out)] == [1, 2, 3]
    update(unbroken.manifest, tiny, out, settings=LONG)
    assert without_times(out) == without_times(unbroken.manifest.parent.parent / "out")


def test_the_seconds_of_an_interrupted_update_are_those_of_all_attempts(
    tiny: Path, tmp_path: Path, unbroken: Unbroken, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = interrupt_after_three_steps(monkeypatch, unbroken.manifest, tiny, tmp_path / "out")
    state = load_checkpoint(checkpoint)
    assert state is not None
    state["progress"]["seconds"] += 1000
    save_checkpoint(checkpoint, state)
    assert 1000 < update(unbroken.manifest, tiny, tmp_path / "out", settings=LONG)["learn/seconds"] < 1900


@pytest.mark.parametrize(
    "algorithm", [GRPO(kl=0.1, tokens_per_step=8), OffPolicy(tokens_per_step=8)], ids=lambda algorithm: algorithm.name
)
def test_an_update_by_groups_that_was_interrupted_ends_in_the_same_weights(
    tiny: Path,
    tmp_path: Path,
    samples: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    algorithm: GRPO | OffPolicy,
) -> None:
    manifest, settings = tmp_path / "manifests" / "m.json", LONG.model_copy(update={"algorithm": algorithm})
    given = known(load_model(tiny, SETTINGS), samples, BlobStore(tmp_path / "blobs"))
    write_manifest(manifest, manifest_of(given, a=0, b=1, c=1))
    metrics = update(manifest, tiny, tmp_path / "whole", settings=settings, starter=tiny)
    interrupt_after_three_steps(monkeypatch, manifest, tiny, tmp_path / "cut", settings)
    caplog.clear()
    with caplog.at_level(logging.INFO, "rl.learner"):
        assert without_seconds(
            update(manifest, tiny, tmp_path / "cut", settings=settings, starter=tiny)
        ) == without_seconds(metrics)
    assert steps_taken(caplog) == [4, 5, 6]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_checkpoint_of_another_manifest_is_not_used(
    tiny: Path,
    tmp_path: Path,
    samples: list[Sample],
    unbroken: Unbroken,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other, out = tmp_path / "manifests" / "m.json", tmp_path / "out"
    write_manifest(other, manifest_of(samples))
    checkpoint = interrupt_after_three_steps(monkeypatch, other, tiny, out)
    with caplog.at_level(logging.WARNING, "rl.learner"):
        update(unbroken.manifest, tiny, out, settings=LONG)
    assert f"{checkpoint} is of another update" in caplog.text
    assert (out / "model.safetensors").read_bytes() == unbroken.weights
    assert not checkpoint.exists()


@pytest.mark.parametrize("damage", [cut, altered])
def test_a_torn_checkpoint_is_set_aside_and_told(
    tiny: Path,
    tmp_path: Path,
    unbroken: Unbroken,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    checkpoint = interrupt_after_three_steps(monkeypatch, unbroken.manifest, tiny, tmp_path / "out")
    torn = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(torn)
    with caplog.at_level(logging.WARNING, "rl.model"):
        update(unbroken.manifest, tiny, tmp_path / "out", settings=LONG)
    assert "is torn" in caplog.text
    assert checkpoint.with_name(f"{checkpoint.name}.torn").read_bytes() == torn
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == unbroken.weights


def test_finished_weights_are_trained_again_only_if_they_are_damaged(
    tiny: Path, tmp_path: Path, unbroken: Unbroken, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rl.learner")
    out = tmp_path / "out"
    metrics = update(unbroken.manifest, tiny, out, settings=LONG)
    caplog.clear()
    assert update(unbroken.manifest, tiny, out, settings=LONG) == metrics
    assert steps_taken(caplog) == []
    (out / "model.safetensors").write_bytes(altered(unbroken.weights))
    update(unbroken.manifest, tiny, out, settings=LONG)
    assert steps_taken(caplog) == [1, 2, 3, 4, 5, 6]
    assert (out / "model.safetensors").read_bytes() == unbroken.weights
