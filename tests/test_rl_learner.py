"""The learner on a tiny random model of the starter's architecture: exact log-probs, right gradients, whole weights."""

import hashlib
import io
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor

from bench.scripted import write_tiny_model
from policy import canary
from policy.blobs import BlobStore
from policy.crash import VARIABLE
from rl.learner import (
    LearnerError,
    LearnerSettings,
    measure_parity,
    micro_batches,
    objective_weights,
    schedule,
    train,
    update,
)
from rl.model import TrainedModel, load_checkpoint, load_model, save_checkpoint, sing
from rl.selection import Sample, Selection, write_manifest

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


def sample(folder: Path, blobs: BlobStore, name: str, prompt: str, reply: str, colour: str = "red") -> Sample:
    processor = AutoProcessor.from_pretrained(folder)
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
    ids = torch.tensor([[*one.prompt_ids, *one.token_ids]])
    pixels = model._pixels([one], blobs, SETTINGS.image_px)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
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
    metrics = train(model, samples, blobs, settings)
    after = [sum(row) for row in model.score(samples, blobs, 256)]
    assert all(late > early for early, late in zip(before, after, strict=True))
    assert metrics["learn/optimizer_steps"] == 10


def test_a_failure_weighs_less_the_more_it_is_unlearned(samples: list[Sample]) -> None:
    recorded = [
        sample.model_copy(update={"logprobs": (-0.5, -0.5), "token_ids": (1, 2), "advantage": advantage})
        for sample, advantage in zip(samples, (1.0, -0.5, -0.5), strict=True)
    ]
    now = torch.tensor([[-9.0, -9.0], [-0.5, -0.5 + math.log(0.2)], [-0.1, -0.1]])
    weights = objective_weights(recorded, now, torch.ones(3, 2))
    assert weights.tolist() == pytest.approx([1.0, -0.1, -0.5])


def test_training_unlearns_a_failure_and_leaves_the_rest(tiny: Path, blobs: BlobStore, samples: list[Sample]) -> None:
    model = load_model(tiny, SETTINGS)
    before = [row for sample in samples for row in model.score([sample], blobs, 256)]
    known = [sample.model_copy(update={"logprobs": tuple(row)}) for sample, row in zip(samples, before, strict=True)]
    failure = known[0].model_copy(update={"advantage": -0.5})
    train(model, [failure, known[1]], blobs, SETTINGS.model_copy(update={"epochs": 20}))
    failed, done = (sum(model.score([sample], blobs, 256)[0]) for sample in known[:2])
    assert failed < sum(before[0]) - 1
    assert done > sum(before[1]) + 1


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


def test_an_exploding_loss_names_its_batch_and_writes_nothing(
    tiny: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", Selection(tuple(samples), {}), round=1)
    settings = SETTINGS.model_copy(update={"max_loss": 0.001})
    with pytest.raises(LearnerError, match=r"samples: .*#0"):
        update(tmp_path / "manifests" / "m.json", tiny, tmp_path / "v000001", settings=settings)
    assert not (tmp_path / "v000001").exists()


def test_new_weights_are_whole_and_differ_from_the_parents(tiny: Path, tmp_path: Path, samples: list[Sample]) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", Selection(tuple(samples), {}), round=1)
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
    write_manifest(manifest, Selection(tuple(samples), {}), round=1)
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
        # bf16 keeps 8 bits: each of the weights compared is off by up to 1/256 of its size.
        torch.testing.assert_close(written(factor), before + factor * (trained - before), rtol=2**-7, atol=2**-9)


def test_new_weights_come_with_the_canarys_song_as_they_sing_it(
    tiny: Path, tmp_path: Path, samples: list[Sample]
) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", Selection(tuple(samples), {}), round=1)
    settings = SETTINGS.model_copy(update={"epochs": 20})  # the tiny model is nearly uniform: a few steps hardly tell
    update(tmp_path / "manifests" / "m.json", tiny, tmp_path / "v000001", settings=settings)
    told = canary.expected(tmp_path / "v000001")
    assert told is not None
    assert canary.gap(sing(load_model(tmp_path / "v000001", SETTINGS), SETTINGS.image_px), told) < 0.01
    assert canary.gap(sing(load_model(tiny, SETTINGS), SETTINGS.image_px), told) > 0.1
    assert canary.expected(tiny) is None


def test_the_same_manifest_gives_the_same_weights(tiny: Path, tmp_path: Path, samples: list[Sample]) -> None:
    write_manifest(tmp_path / "manifests" / "m.json", Selection(tuple(samples), {}), round=1)
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


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", Selection((), {}), round=1)
    with pytest.raises(ValueError, match="at least one sample"):
        update(tmp_path / "m.json", tmp_path, tmp_path / "out", settings=SETTINGS)


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


LONG = SETTINGS.model_copy(update={"epochs": 3, "checkpoint_s": 1e-9})
"""Six optimizer steps, each followed by a checkpoint."""


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
    write_manifest(manifest, Selection(recorded, {}), round=1)
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


def interrupt_after_three_steps(monkeypatch: pytest.MonkeyPatch, manifest: Path, parent: Path, out: Path) -> Path:
    """The checkpoint that an update leaves which ends there."""
    points: list[str] = []

    def interrupt(point: str) -> None:
        points.append(point)
        if points.count("learn:checkpoint") == 3:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr("rl.learner.crash_point", interrupt)
        with pytest.raises(InterruptedError):
            update(manifest, parent, out, settings=LONG)
    return out.with_name(f".{out.name}.checkpoint")


def steps_taken(caplog: pytest.LogCaptureFixture) -> list[int]:
    args = [record.args for record in caplog.records if record.msg.startswith("optimizer step")]
    return [arg[0] for arg in args if isinstance(arg, tuple) and isinstance(arg[0], int)]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def altered(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


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
    assert [path.name for path in out.parent.iterdir()] == ["v000001"]


def test_the_seconds_of_an_interrupted_update_are_those_of_all_attempts(
    tiny: Path, tmp_path: Path, unbroken: Unbroken, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = interrupt_after_three_steps(monkeypatch, unbroken.manifest, tiny, tmp_path / "out")
    state = load_checkpoint(checkpoint)
    assert state is not None
    state["progress"]["seconds"] += 1000
    save_checkpoint(checkpoint, state)
    assert 1000 < update(unbroken.manifest, tiny, tmp_path / "out", settings=LONG)["learn/seconds"] < 1900


def test_a_checkpoint_of_another_manifest_is_not_used(
    tiny: Path,
    tmp_path: Path,
    samples: list[Sample],
    unbroken: Unbroken,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other, out = tmp_path / "manifests" / "m.json", tmp_path / "out"
    write_manifest(other, Selection(tuple(samples), {}), round=1)
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
