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

An update may be killed at any moment: called again, it goes on from its last checkpoint and gives the weights, on CPU
bit for bit, that it would have given undisturbed.
"""

import hashlib
import itertools
import logging
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from policy.blobs import BlobStore
from policy.crash import crash_point
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
    checkpoint_s: float = Field(default=600, gt=0)
    """Seconds from one checkpoint of an update to the next: what a killed update loses at most, and one more step."""


WITHOUT_EFFECT = {"micro_tokens", "max_loss", "num_threads", "checkpoint_s"}
"""Settings that say how an update is computed, not what comes out of it (but for rounding): they may be changed, say
after memory ran out, and it still goes on from its checkpoint."""


def update(manifest: Path, parent: Path, out: Path, *, settings: LearnerSettings) -> dict[str, float]:
    """Train on a manifest, write the new weights to the directory `out`, and return the learner's metrics.

    If this process is killed, the same call goes on from the last checkpoint, ``.<out>.checkpoint`` beside `out`. If
    `out` is there already, whole and made from the same, nothing is trained: the metrics are those of then.

    Args:
        manifest: Sealed by the round; pictures are looked up in ``../blobs`` beside it.
        parent: Hugging Face directory to start from.
        out: Appears whole or not at all.
        settings: How to train.

    Returns:
        Metrics under ``learn/``. ``learn/seconds`` is the sum over all attempts; of one that was killed, what came
        before its last checkpoint. Writing the weights is not in it.

    Raises:
        LearnerError: a loss was not a number or exploded; `out` wasn't written.
        ValueError: the manifest can't be read, or holds no samples.
    """
    from rl.model import checkpoint_path, read_commit, remove_leftovers  # torch is heavy; settings are read without it

    data = read_manifest(manifest)
    if not data.samples:
        raise ValueError(f"manifest {manifest}: expected at least one sample")
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    origin = {"round": data.round, **_origin(manifest, parent, settings)}
    commit = read_commit(out)
    if commit is not None and commit.items() >= origin.items():
        logger.info("%s was finished before", out)
        metrics = commit["metrics"]
    else:
        blobs = BlobStore(manifest.parent.parent / "blobs")
        metrics = _make_weights(data.samples, blobs, parent, out, settings, origin)
    checkpoint_path(out).unlink(missing_ok=True)
    return metrics


def _origin(manifest: Path, parent: Path, settings: LearnerSettings) -> dict[str, Any]:
    """What new weights are made from, as JSON values: equal origins give equal weights."""
    commit = parent / "COMMIT.json"
    return {
        "manifest": manifest.name,
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "parent": parent.name,
        # The first version, which no update has made, has none.
        "parent_commit_sha256": hashlib.sha256(commit.read_bytes()).hexdigest() if commit.exists() else None,
        "settings": settings.model_dump(mode="json", exclude=WITHOUT_EFFECT),
    }


def _make_weights(
    samples: Sequence[Sample],
    blobs: BlobStore,
    parent: Path,
    out: Path,
    settings: LearnerSettings,
    origin: Mapping[str, Any],
) -> dict[str, float]:
    """Train from the checkpoint, if there is one, and write the weights; the metrics."""
    from rl.model import checkpoint_path, load_model, save_checkpoint, save_weights

    began = time.monotonic()
    training = Training(load_model(parent, settings), settings)
    if not _resume(training, checkpoint_path(out), origin):
        training.progress.parity = measure_parity(training.model, samples, blobs, settings)
    began -= training.progress.seconds  # as if the attempts before had ended just now
    due = time.monotonic() + settings.checkpoint_s
    for _ in training.steps(samples, blobs):
        training.progress.seconds = time.monotonic() - began
        if time.monotonic() >= due:
            save_checkpoint(checkpoint_path(out), {"origin": origin, **training.state()})
            crash_point("learn:checkpoint")
            due = time.monotonic() + settings.checkpoint_s
    training.model.extrapolate(parent, settings.extrapolation)
    progress = training.progress
    metrics = progress.parity | progress.metrics() | {"learn/seconds": time.monotonic() - began}
    commit = {**origin, "metrics": metrics}
    save_weights(training.model, parent, out, commit, image_px=settings.image_px)
    return metrics


def _resume(training: "Training", checkpoint: Path, origin: Mapping[str, Any]) -> bool:
    """Put a training where the checkpoint says it was; False where there is none of this origin."""
    from rl.model import load_checkpoint

    state = load_checkpoint(checkpoint)
    if state is None:
        return False
    if state["origin"] != origin:
        logger.warning("%s is of another update and isn't used", checkpoint)
        return False
    training.restore(state)
    logger.info("going on after optimizer step %d, from %s", training.progress.steps, checkpoint)
    return True


def train(model: Any, samples: Sequence[Sample], blobs: BlobStore, settings: LearnerSettings) -> dict[str, float]:
    """Fit the model to the samples in place; metrics under ``learn/``. Raises LearnerError."""
    training = Training(model, settings)
    for _ in training.steps(samples, blobs):
        pass
    return training.progress.metrics()


@dataclass(slots=True)
class Progress:
    """Sums over an update, all attempts at it together."""

    loss: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    """Optimizer steps, and so batches, that are done."""
    grad_norm: float = 0.0
    seconds: float = 0.0
    parity: dict[str, float] = field(default_factory=dict)
    """Metrics from before the first step; only the first attempt can measure them."""

    def metrics(self) -> dict[str, float]:
        """Means and sums under ``learn/``, of at least one step."""
        return {
            "learn/loss": self.loss / self.steps,
            "learn/grad_norm": self.grad_norm / self.steps,
            "learn/optimizer_steps": self.steps,
            "learn/trained_tokens": self.tokens,
            "learn/read_tokens": self.tokens + self.prompt_tokens,
        }


class Training:
    """A model being fitted: its optimizer, and how far it is."""

    def __init__(self, model: Any, settings: LearnerSettings) -> None:
        """Make a new optimizer; nothing is done yet."""
        self.model = model
        self.progress = Progress()
        self._settings = settings
        self._optimizer = model.make_optimizer(settings.lr)

    def state(self) -> dict[str, Any]:
        """All that changes from step to step.

        No random state is among it: the network is in evaluation mode, as loaded, so no dropout draws from torch's, and
        the order of batches follows from the seed alone.
        """
        return {"progress": asdict(self.progress), **self.model.state(self._optimizer)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.progress = Progress(**state["progress"])
        self.model.restore(self._optimizer, state)

    def steps(self, samples: Sequence[Sample], blobs: BlobStore) -> Iterator[None]:
        """Take the optimizer steps that are missing, and yield after each. Raises LearnerError."""
        settings, progress = self._settings, self.progress
        total_steps = settings.epochs * math.ceil(len(samples) / settings.batch_size)
        for batch in itertools.islice(batches(samples, settings), progress.steps, None):
            share = schedule(progress.steps, total_steps, settings.warmup_share)
            self.model.set_lr(self._optimizer, settings.lr * share)
            loss = self._add_gradients(batch, blobs)
            if not math.isfinite(loss) or loss > settings.max_loss:
                names = ", ".join(f"{sample.trajectory_id}#{sample.step}" for sample in batch)
                raise LearnerError(f"loss {loss} in optimizer step {progress.steps + 1}; its samples: {names}")
            progress.grad_norm += self.model.apply_gradients(self._optimizer, settings.max_grad_norm)
            progress.loss += loss
            progress.steps += 1
            progress.tokens += _num_tokens(batch)
            progress.prompt_tokens += sum(len(sample.prompt_ids) for sample in batch)
            logger.info("optimizer step %d of %d: loss %.4f", progress.steps, total_steps, loss)
            crash_point("learn:step")
            yield

    def _add_gradients(self, batch: Sequence[Sample], blobs: BlobStore) -> float:
        """The batch's loss, whose gradients are added up part by part."""
        loss = 0.0
        for micro in micro_batches(batch, self._settings.micro_tokens):
            logprobs, mask = self.model.logprobs(micro, blobs, self._settings.image_px)  # (B, T), (B, T)
            weights = objective_weights(micro, logprobs.detach(), mask)  # (B,)
            part = -(logprobs * mask * weights[:, None]).sum() / _num_tokens(batch)
            part.backward()
            loss += part.item()
        return loss


def _num_tokens(batch: Sequence[Sample]) -> int:
    return sum(len(sample.token_ids) for sample in batch)


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
