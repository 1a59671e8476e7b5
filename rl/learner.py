"""The learner: a manifest and the parent weights in, new weights out (the paper's pi_k -> pi_k+1).

Filtered behaviour cloning (PAE, section 4.4, equation 2): maximise log pi(thought and action | prompt) over the steps
of successful trajectories. Deviations from the paper: samples are balanced over tasks (rl/selection.py), LoRA matrices
are trained instead of all weights where `lora_rank` is set (and merged into the weights that are written), the
loss is the mean over the tokens of a whole batch, so that long responses weigh more, pi is the distribution that was
sampled from (logits divided by the rollouts' temperature), and the weights written may lie beyond the trained ones
(`extrapolation`).

Where the manifest holds steps of failures, with a negative advantage, they are unlearned as in TOPR (Le Roux et al.
2025, arXiv 2503.14286, section 3): the gradient of their log-prob is weighed by the ratio, at most 1, of pi to the
policy that sampled them, so that it fades as they become unlikely. Deviation: a ratio for each step, not for the whole
trajectory.
"""

import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from policy.blobs import BlobStore
from rl.selection import Sample, read_manifest

logger = logging.getLogger(__name__)


class LearnerError(RuntimeError):
    """The update could not be made; nothing was published."""


class LearnerSettings(BaseModel):
    """How weights are updated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    lr: float = Field(default=5e-5, gt=0)
    """Peak learning rate."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the round's samples."""
    batch_size: int = Field(default=8, ge=1)
    """Samples per optimizer step."""
    micro_tokens: int = Field(default=2048, ge=64)
    """Padded tokens in one forward pass; a batch is cut into as many as it needs."""
    warmup_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the optimizer steps in which the learning rate climbs to its peak; then it falls linearly to a tenth."""
    lora_rank: int | None = Field(default=32, ge=1)
    """Rank of the LoRA matrices; None: all weights of the language model are trained."""
    lora_alpha: int = Field(default=64, ge=1)
    """LoRA's scale times its rank."""
    extrapolation: float = Field(default=1.0, ge=0)
    """Where the written weights lie on the line from the parent (0) through the trained ones (1); above 1: beyond them.

    An update that is small because practice was short points further than it goes (ExPO: Zheng et al. 2024, arXiv
    2404.16792, section 3, which does this once, after training; here every round begins with such weights).
    """
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    max_loss: float = Field(default=20.0, gt=0)
    """A batch with a loss above this, or one that isn't a number, stops the update."""
    image_px: int | None = Field(default=256, ge=16)
    """Longest side (pixels) of the pictures, the same as served."""
    seed: int = Field(default=0, ge=0)
    """Of the order of samples and the first LoRA matrices."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads; None: all."""


def update(manifest: Path, parent: Path, out: Path, *, settings: LearnerSettings) -> dict[str, float]:
    """Train on a manifest, write the new weights to the directory `out`, and return the learner's metrics.

    Args:
        manifest: Sealed by the round; pictures are looked up in ``../blobs`` beside it.
        parent: Hugging Face directory to start from.
        out: Appears whole or not at all.
        settings: How to train.

    Raises:
        LearnerError: a loss was not a number or exploded; `out` wasn't written.
        ValueError: the manifest can't be read, or holds no samples.
    """
    from rl.model import load_model, save_weights  # torch is heavy, and settings are read without it

    data = read_manifest(manifest)
    if not data.samples:
        raise ValueError(f"manifest {manifest}: expected at least one sample")
    started = time.monotonic()
    model = load_model(parent, settings)
    blobs = BlobStore(manifest.parent.parent / "blobs")
    parity = measure_parity(model, data.samples, blobs, settings)
    metrics = train(model, data.samples, blobs, settings)
    model.extrapolate(parent, settings.extrapolation)
    save_weights(model, parent, out, {"round": data.round, "manifest": str(manifest.name), "parent": parent.name})
    return parity | metrics | {"learn/seconds": time.monotonic() - started}


@dataclass(slots=True)
class Progress:
    """Sums over an update."""

    loss: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    grad_norm: float = 0.0


def train(model: Any, samples: Sequence[Sample], blobs: BlobStore, settings: LearnerSettings) -> dict[str, float]:
    """Fit the model to the samples in place; metrics under ``learn/``. Raises LearnerError."""
    total_steps = settings.epochs * math.ceil(len(samples) / settings.batch_size)
    optimizer = model.make_optimizer(settings.lr)
    progress = Progress()
    for batch in batches(samples, settings):
        model.set_lr(optimizer, settings.lr * schedule(progress.steps, total_steps, settings.warmup_share))
        num_tokens = sum(len(sample.token_ids) for sample in batch)
        loss = 0.0
        for micro in micro_batches(batch, settings.micro_tokens):
            logprobs, mask = model.logprobs(micro, blobs, settings.image_px)  # (B, T), (B, T)
            weights = objective_weights(micro, logprobs.detach(), mask)  # (B,)
            part = -(logprobs * mask * weights[:, None]).sum() / num_tokens
            part.backward()
            loss += part.item()
        if not math.isfinite(loss) or loss > settings.max_loss:
            names = ", ".join(f"{sample.trajectory_id}#{sample.step}" for sample in batch)
            raise LearnerError(f"loss {loss} in optimizer step {progress.steps + 1}; its samples: {names}")
        progress.grad_norm += model.apply_gradients(optimizer, settings.max_grad_norm)
        progress.loss += loss
        progress.steps += 1
        progress.tokens += num_tokens
        progress.prompt_tokens += sum(len(sample.prompt_ids) for sample in batch)
        logger.info("optimizer step %d of %d: loss %.4f", progress.steps, total_steps, loss)
    return {
        "learn/loss": progress.loss / progress.steps,
        "learn/grad_norm": progress.grad_norm / progress.steps,
        "learn/optimizer_steps": progress.steps,
        "learn/trained_tokens": progress.tokens,
        "learn/read_tokens": progress.tokens + progress.prompt_tokens,
    }


def objective_weights(samples: Sequence[Sample], logprobs_BR: Any, mask_BR: Any) -> Any:
    """What each sample's log-prob weighs in the objective, (B,): its advantage, tapered where that is negative.

    Example: an advantage of -0.5 and a response that is now a fifth as likely as when it was sampled weigh -0.1.
    """
    steps_B = (logprobs_BR * mask_BR).sum(1).tolist()
    weights = [
        sample.advantage * math.exp(min(0.0, now - sum(sample.logprobs))) if sample.advantage < 0 else sample.advantage
        for sample, now in zip(samples, steps_B, strict=True)
    ]
    return logprobs_BR.new_tensor(weights)


def schedule(step: int, total_steps: int, warmup_share: float) -> float:
    """Share of the peak learning rate at a step, from 0: linear climb, then linear fall to a tenth."""
    warmup = max(1, round(warmup_share * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 - 0.9 * (step - warmup + 1) / max(1, total_steps - warmup)


def batches(samples: Sequence[Sample], settings: LearnerSettings) -> Iterator[list[Sample]]:
    """Each epoch's samples in a new order, `batch_size` at a time."""
    order = random.Random(settings.seed)
    for _ in range(settings.epochs):
        shuffled = order.sample(list(samples), len(samples))
        for start in range(0, len(shuffled), settings.batch_size):
            yield shuffled[start : start + settings.batch_size]


def micro_batches(batch: Sequence[Sample], micro_tokens: int) -> Iterator[list[Sample]]:
    """A batch cut so that no part, padded to its longest sample, exceeds `micro_tokens`; similar lengths together."""
    part: list[Sample] = []
    for sample in sorted(batch, key=_length):
        if part and _length(sample) * (len(part) + 1) > micro_tokens:
            yield part
            part = []
        part.append(sample)
    if part:
        yield part


def _length(sample: Sample) -> int:
    return len(sample.prompt_ids) + len(sample.token_ids)


PARITY_SAMPLES = 24


def measure_parity(
    model: Any, samples: Sequence[Sample], blobs: BlobStore, settings: LearnerSettings
) -> dict[str, float]:
    """How far the learner's log-probs, before training, are from those that the server recorded with the tokens."""
    recorded = [sample for sample in samples if len(sample.logprobs) == len(sample.token_ids)]
    chosen = random.Random(settings.seed).sample(recorded, min(PARITY_SAMPLES, len(recorded)))
    gaps: list[float] = []
    for micro in micro_batches(chosen, settings.micro_tokens):
        for ours, sample in zip(model.score(micro, blobs, settings.image_px), micro, strict=True):
            gaps += [mine - theirs for mine, theirs in zip(ours, sample.logprobs, strict=True)]
    if not gaps:
        return {}
    # KL(served || learner) by Schulman's k3 estimator on tokens sampled from the server: exp(d) - 1 - d.
    return {
        "learn/logprob_mean_abs_diff": sum(map(abs, gaps)) / len(gaps),
        "learn/logprob_max_abs_diff": max(map(abs, gaps)),
        "learn/mismatch_kl": sum(math.exp(gap) - 1 - gap for gap in gaps) / len(gaps),
        "learn/parity_tokens": len(gaps),
    }
