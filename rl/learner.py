"""The learner: a manifest and the parent weights in, new weights out (the paper's pi_k -> pi_k+1).

What is minimised is the algorithm's business (rl/algorithms); here are the batches, the optimizer, and an update that
may be killed at any moment: called again, it goes on from its last checkpoint and gives the weights, on CPU bit for
bit, that it would have given undisturbed.

Deviations from the paper (PAE, section 4.4) whatever the algorithm: LoRA matrices are trained instead of all weights
where `lora_rank` is set (and merged into the weights that are written), pi is the distribution that was sampled from
(logits divided by the rollouts' temperature), and the weights written may lie beyond the trained ones
(`extrapolation`).
"""

import hashlib
import itertools
import logging
import math
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policy.blobs import BlobStore, name_of
from policy.crash import crash_point
from rl.algorithms.base import Algorithm, Batch, Loss
from rl.algorithms.filtered_bc import FilteredBC
from rl.algorithms.registry import AnyAlgorithm
from rl.batches import batches, micro_batches
from rl.manifest import Attempt, Manifest, Sample, read_manifest
from rl.steplog import OptimizerStep, go_back, log_step

logger = logging.getLogger(__name__)


class LearnerError(RuntimeError):
    """The update could not be made; nothing was published."""


class LearnerSettings(BaseModel):
    """How weights are updated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    algorithm: AnyAlgorithm = FilteredBC()
    """What is learned, and its own settings; `name` chooses it."""
    lr: float = Field(default=5e-5, gt=0)
    """Peak learning rate."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the round's samples."""
    batch_size: int = Field(default=8, ge=1)
    """Samples per optimizer step."""
    micro_tokens: int = Field(default=2048, ge=64)
    """Padded tokens in one forward pass; a batch is cut into as many as it needs."""
    share_prefixes: bool = False
    """Whether what samples with the same pictures begin with is computed once for all of them in a forward pass; then a
    batch is made of neighbours, so that there is something to share (rl/batches.py)."""
    picture_cache_mb: float = Field(default=0.0, ge=0)
    """Memory for what a frozen vision tower makes of pictures, so that each is encoded once an update; 0: none."""
    train_vision: bool = False
    """Whether the vision tower and its connector are trained as well, whole."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass instead of being kept: a third more work, for memory
    that grows with one layer instead of all."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of products of matrices, and of weights that aren't trained; auto: bf16, and fp32 on a processor that can't
    multiply in it."""
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
    """A batch whose loss is further from 0 than this, or isn't a number, stops the update."""
    max_mismatch_kl: float = Field(default=0.1, gt=0)
    """Where learner and server differ by more than this (KL, nats a token) on what was just sampled, the update stops
    before its first step: they don't compute the same policy. bf16 alone makes 0.0002 to 0.003."""
    image_px: int | None = Field(default=256, ge=16)
    """Longest side (pixels) of the pictures, the same as served."""
    seed: int = Field(default=0, ge=0)
    """Of the order of samples and the first LoRA matrices."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads; None: all."""
    num_processes: int = Field(default=1, ge=1)
    """Processes of this machine, a GPU each where there are some, over which weights and batches are shared out."""
    checkpoint_s: float = Field(default=600, gt=0)
    """Seconds from one checkpoint of an update to the next: what a killed update loses at most, and one more step."""

    @model_validator(mode="after")
    def _extrapolates_what_it_can(self) -> Self:
        if self.train_vision and self.lora_rank is not None and self.extrapolation != 1:
            raise ValueError("extrapolation: expected 1 where train_vision is set beside LoRA matrices")
        return self

    @model_validator(mode="after")
    def _processes_keep_in_step(self) -> Self:
        # Each has other pictures, and whoever computes something sharded alone would wait for the others forever.
        if self.num_processes > 1 and (self.share_prefixes or self.picture_cache_mb or self.train_vision):
            raise ValueError("num_processes: expected 1 with share_prefixes, picture_cache_mb or train_vision")
        return self


WITHOUT_EFFECT = {
    "micro_tokens",
    "picture_cache_mb",
    "checkpointing",
    "max_loss",
    "max_mismatch_kl",
    "num_threads",
    "num_processes",
    "checkpoint_s",
}
"""Settings that say how an update is computed, not what comes out of it (but for rounding): they may be changed, say
after memory ran out, and it still goes on from its checkpoint."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is trained on."""

    samples: Sequence[Sample]
    advantages: Mapping[str, float]
    """By trajectory."""
    starter_logprobs: Mapping[tuple[str, int], Sequence[float]] = field(default_factory=dict)
    """By trajectory and step; empty unless the algorithm asks for them."""
    fresh: Sequence[Sample] = ()
    """Those samples that the sampler sampled: steps of this round's attempts, not of earlier ones'."""
    sampler: Path | None = None
    """Hugging Face directory of the weights that sampled them; None: the parent's."""


def update(
    manifest: Path,
    parent: Path,
    out: Path,
    *,
    settings: LearnerSettings,
    starter: Path | None = None,
    sampler: Path | None = None,
) -> dict[str, float]:
    """Train on a manifest, write the new weights to the directory `out`, and return the learner's metrics.

    If this process is killed, the same call goes on from the last checkpoint, ``.<out>.checkpoint`` beside `out` (of
    several processes the directory ``.<out>.shards``, which any number of them can go on from). If `out` is there
    already, whole and made from the same, nothing is trained: the metrics are those of then.

    Args:
        manifest: Sealed by the round; pictures are looked up in ``../blobs`` beside it.
        parent: Hugging Face directory to start from.
        out: Appears whole or not at all.
        settings: How to train.
        starter: Hugging Face directory that the run began with; needed by algorithms that hold on to it.
        sampler: Hugging Face directory of the weights that sampled the round's own attempts, by which the server's
            log-probs are checked; None: the parent.

    Returns:
        Metrics under ``learn/``. ``learn/optimizer_steps`` is 0 where the algorithm finds nothing to learn from: then
        `out` isn't written. ``learn/seconds`` is the sum over all attempts; of one that was killed, what came before
        its last checkpoint. Writing the weights is not in it.

    Raises:
        LearnerError: a loss, a gradient or the new weights were not a number or exploded, a picture isn't what was
            sealed, or learner and server don't agree on the tokens that were sampled; `out` wasn't written.
        ValueError: the manifest can't be read, or the starter is needed and wasn't given.
    """
    from rl.model import read_commit  # torch is heavy; settings are read without it
    from rl.shards import one_update, peers, together

    data = read_manifest(manifest)
    lessons = replace(lessons_of(data, settings.algorithm), sampler=None if sampler == parent else sampler)
    if not lessons.samples:
        logger.warning("%s: nothing that %s can learn from", manifest, settings.algorithm.name)
        return {"learn/optimizer_steps": 0}
    if settings.algorithm.needs_starter and starter is None:
        raise ValueError(f"algorithm {settings.algorithm.name}: expected the weights that the run began with")
    if settings.num_processes > 1 and peers().size == 1:
        return together(settings.num_processes, one_update, manifest, parent, out, settings, starter, sampler)
    out.parent.mkdir(parents=True, exist_ok=True)
    origin = {"round": data.round, **_origin(manifest, parent, settings)}
    commit = peers().gather(read_commit(out))[0]
    _tidy(out, is_done=False)
    if commit is not None and commit.items() >= origin.items():
        logger.info("%s was finished before", out)
        metrics = commit["metrics"]
    else:
        blobs = BlobStore(manifest.parent.parent / "blobs")
        _check_pictures(lessons.samples, blobs)
        if settings.algorithm.needs_starter and starter is not None:
            lessons = replace(lessons, starter_logprobs=_score_all(starter, lessons.samples, blobs, settings))
        metrics = _make_weights(lessons, blobs, parent, out, settings, origin)
    _tidy(out, is_done=True)
    return metrics


def _tidy(out: Path, *, is_done: bool) -> None:
    """Remove what died processes left half written and, once `out` is there, its checkpoints; one process does it."""
    from rl.model import checkpoint_path, remove_leftovers, shards_path
    from rl.shards import peers

    if peers().rank == 0:
        remove_leftovers(out)
        if is_done:
            checkpoint_path(out).unlink(missing_ok=True)
            shutil.rmtree(shards_path(out), ignore_errors=True)
    peers().gather(None)


def lessons_of(data: Manifest, algorithm: Algorithm) -> Lessons:
    """The samples that an algorithm gives an advantage other than 0, which all steps of a trajectory share."""
    groups: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in data.attempts:
        groups[attempt.group].append(attempt)
    advantages = {
        attempt.trajectory_id: advantage
        for group in groups.values()
        for attempt, advantage in zip(group, algorithm.advantages([a.worth for a in group]), strict=True)
    }
    samples = [sample for sample in data.samples if advantages[sample.trajectory_id]]
    new = {a.trajectory_id for a in data.attempts if a.age == 0 and a.staleness == data.staleness}
    return Lessons(samples, advantages, fresh=[sample for sample in samples if sample.trajectory_id in new])


def _check_pictures(samples: Sequence[Sample], blobs: BlobStore) -> None:
    """Return if every picture is the one that was sealed. Raises LearnerError."""
    for name in sorted({name for sample in samples for name in sample.pictures}):
        try:
            found = name_of(blobs.get(name))
        except FileNotFoundError:
            found = "none"
        if found != name:
            raise LearnerError(f"picture {name}: expected a file of that sha256 in {blobs.root}, found {found}")


def _score_all(
    directory: Path, samples: Sequence[Sample], blobs: BlobStore, settings: LearnerSettings
) -> dict[tuple[str, int], list[float]]:
    """Log-probs (nats) of every sample's tokens under weights that are loaded for this only."""
    from rl.model import load_model

    model, scores = load_model(directory, settings), {}
    for part in _parts(samples, settings):
        rows = model.score(part, blobs, settings.image_px)
        scores |= {(sample.trajectory_id, sample.step): row for sample, row in zip(part, rows, strict=True)}
    return scores


def _origin(manifest: Path, parent: Path, settings: LearnerSettings) -> dict[str, Any]:
    """What new weights are made from, as JSON values: equal origins give equal weights.

    The run's first weights are not among it: they never change.
    """
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
    lessons: Lessons,
    blobs: BlobStore,
    parent: Path,
    out: Path,
    settings: LearnerSettings,
    origin: Mapping[str, Any],
) -> dict[str, float]:
    """Train from the checkpoint, if there is one, and write the weights; the metrics."""
    from rl.model import load_model, save_weights
    from rl.shards import gather_model

    began = time.monotonic()
    training = Training(load_model(parent, settings), settings)
    if not _resume(training, out, origin):
        sampler = load_model(lessons.sampler, settings) if lessons.sampler else training.model
        training.progress.parity = measure_parity(sampler, lessons.fresh, blobs, settings)
        del sampler
        _check_parity(training.progress.parity, settings)
    began -= training.progress.seconds  # as if the attempts before had ended just now
    due = time.monotonic() + settings.checkpoint_s
    is_first = training.model.peers.rank == 0
    if is_first:
        go_back(out, training.progress.steps)
    for step in training.steps(lessons, blobs):
        training.progress.seconds = time.monotonic() - began
        if is_first:
            log_step(out, step)
        if training.model.peers.gather(time.monotonic() >= due)[0]:
            _save_progress(training, out, origin)
            crash_point("learn:checkpoint")
            due = time.monotonic() + settings.checkpoint_s
    progress = training.progress
    metrics = progress.parity | progress.metrics() | {"learn/seconds": time.monotonic() - began}
    model = gather_model(training.model, parent)
    if model is not None:
        model.extrapolate(parent, settings.extrapolation)
        save_weights(model, parent, out, {**origin, "metrics": metrics}, image_px=settings.image_px)
    return training.model.peers.gather(metrics)[0]


def _save_progress(training: "Training", out: Path, origin: Mapping[str, Any]) -> None:
    """A checkpoint: a file of one process, shards of several."""
    from rl.model import checkpoint_path, save_checkpoint, shards_path
    from rl.shards import save_shards

    if training.model.peers.size > 1:
        save_shards(shards_path(out), {"origin": origin, "progress": asdict(training.progress)}, training.shards())
    else:
        save_checkpoint(checkpoint_path(out), {"origin": origin, **training.state()})
        shutil.rmtree(shards_path(out), ignore_errors=True)  # they are older


def _check_parity(parity: Mapping[str, float], settings: LearnerSettings) -> None:
    """Raise LearnerError where learner and server don't compute the same policy."""
    if not parity:
        logger.warning("no log-probs were recorded with this round's tokens: whether the server agrees isn't known")
    elif not parity["learn/mismatch_kl"] <= settings.max_mismatch_kl:
        found = ", ".join(f"{name.removeprefix('learn/')} {value:.4g}" for name, value in parity.items())
        raise LearnerError(
            f"learner and server disagree: {found}; expected a mismatch_kl of at most {settings.max_mismatch_kl} "
            "(learner.max_mismatch_kl); nothing was trained"
        )


def _resume(training: "Training", out: Path, origin: Mapping[str, Any]) -> bool:
    """Put a training where the checkpoint says it was; False where there is none of this origin.

    Shards are read by any number of processes, a file by one alone.
    """
    from rl.model import checkpoint_path, load_checkpoint, read_commit, shards_path
    from rl.shards import find_shards

    checkpoint = find_shards(shards_path(out))
    is_file = checkpoint is None
    if checkpoint is not None:
        state = read_commit(checkpoint)
    else:
        checkpoint = checkpoint_path(out)
        state = load_checkpoint(checkpoint) if training.model.peers.size == 1 else None
    if state is None:
        return False
    if state["origin"] != origin:
        logger.warning("%s is of another update and isn't used", checkpoint)
        return False
    training.restore(state) if is_file else training.restore_shards(state, checkpoint)
    logger.info("going on after optimizer step %d, from %s", training.progress.steps, checkpoint)
    return True


def imitate(model: Any, samples: Sequence[Sample], blobs: BlobStore, settings: LearnerSettings) -> dict[str, float]:
    """Fit the model to the samples in place, each of them worth 1; metrics under ``learn/``. Raises LearnerError."""
    return train(model, Lessons(samples, {sample.trajectory_id: 1.0 for sample in samples}), blobs, settings)


def train(model: Any, lessons: Lessons, blobs: BlobStore, settings: LearnerSettings) -> dict[str, float]:
    """Fit the model to the lessons in place; metrics under ``learn/``. Raises LearnerError."""
    training = Training(model, settings)
    for _ in training.steps(lessons, blobs):
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
    sums: dict[str, float] = field(default_factory=dict)
    """What the algorithm tells, summed over the trained tokens."""

    def metrics(self) -> dict[str, float]:
        """Means and sums under ``learn/``, of at least one step."""
        return {
            "learn/loss": self.loss / self.steps,
            "learn/grad_norm": self.grad_norm / self.steps,
            "learn/optimizer_steps": self.steps,
            "learn/trained_tokens": self.tokens,
            "learn/read_tokens": self.tokens + self.prompt_tokens,
            **{f"learn/{name}": total / self.tokens for name, total in self.sums.items()},
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

    def shards(self) -> dict[str, Any]:
        """The tensors of `state`, by names that don't depend on how they are sharded."""
        return self.model.shards(self._optimizer)

    def restore_shards(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        """Go back to where `shards` were written to a checkpoint, with the progress that `state` tells."""
        from rl.shards import load_shards

        self.progress = Progress(**state["progress"])
        load_shards(checkpoint, self.shards())

    def steps(self, lessons: Lessons, blobs: BlobStore) -> Iterator[OptimizerStep]:
        """Take the optimizer steps that are missing, and yield each. Raises LearnerError."""
        settings, progress = self._settings, self.progress
        total_steps = settings.epochs * math.ceil(len(lessons.samples) / settings.batch_size)
        planned = batches(
            lessons.samples,
            settings.batch_size,
            settings.epochs,
            settings.seed,
            shares_prefixes=settings.share_prefixes,
        )
        for batch in itertools.islice(planned, progress.steps, None):
            lr = settings.lr * schedule(progress.steps, total_steps, settings.warmup_share)
            self.model.set_lr(self._optimizer, lr)
            loss = self._add_gradients(batch, lessons, blobs)
            norm = self.model.clip_gradients(settings.max_grad_norm)
            if not abs(loss) <= settings.max_loss or not math.isfinite(norm):
                names = ", ".join(f"{sample.trajectory_id}#{sample.step}" for sample in batch)
                where = f"optimizer step {progress.steps + 1}"
                raise LearnerError(f"loss {loss}, gradient norm {norm} in {where}; its samples: {names}")
            self.model.apply_gradients(self._optimizer)
            progress.grad_norm += norm
            progress.loss += loss
            progress.steps += 1
            num_tokens = _num_tokens(batch)
            progress.tokens += num_tokens
            progress.prompt_tokens += sum(len(sample.prompt_ids) for sample in batch)
            logger.info("optimizer step %d of %d: loss %.4f", progress.steps, total_steps, loss)
            crash_point("learn:step")
            yield OptimizerStep(
                step=progress.steps,
                total=total_steps,
                loss=loss,
                grad_norm=norm,
                lr=lr,
                tokens=num_tokens,
                at=time.time(),
            )

    def _add_gradients(self, batch: Sequence[Sample], lessons: Lessons, blobs: BlobStore) -> float:
        """The batch's loss, whose gradients are added up part by part; each process takes its share of the batch."""
        peers, num_tokens = self.model.peers, _num_tokens(batch)
        parts = list(_parts(peers.deal(sorted(batch, key=_length)), self._settings))
        sums: dict[str, float] = defaultdict(float)
        for number in range(max(peers.gather(len(parts)))):
            # All take as many passes, for they gather weights together; one too many counts for nothing.
            counts = number < len(parts)
            loss = self._loss(parts[number] if counts else batch[:1], lessons, blobs, num_tokens)
            # The processes' gradients are averaged.
            (loss.total * (peers.size if counts else 0)).backward()
            if counts:
                for name, value in {"": loss.total.item(), "masked_share": loss.num_masked, **loss.sums}.items():
                    sums[name] += value
        totals: dict[str, float] = defaultdict(float)
        for name, value in (item for told in peers.gather(dict(sums)) for item in told.items()):
            totals[name] += value
        total = totals.pop("")
        for name, value in totals.items():
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
        return total

    def _loss(self, micro: Sequence[Sample], lessons: Lessons, blobs: BlobStore, num_tokens: int) -> Loss:
        logprobs_BR, mask_BR = self.model.logprobs(micro, blobs, self._settings.image_px)
        starter = [lessons.starter_logprobs.get((sample.trajectory_id, sample.step), ()) for sample in micro]
        advantages = [lessons.advantages[sample.trajectory_id] for sample in micro]
        return self._settings.algorithm.loss(
            Batch(
                logprobs_BR=logprobs_BR,
                mask_BR=mask_BR,
                behaviour_BR=_padded([sample.logprobs for sample in micro], mask_BR),
                starter_BR=_padded(starter, mask_BR),
                advantages_B=mask_BR.new_tensor(advantages),
                num_tokens=num_tokens,
                batch_size=self._settings.batch_size,
            )
        )


def _parts(samples: Sequence[Sample], settings: LearnerSettings) -> Iterator[list[Sample]]:
    """The samples, so many at a time as fit one forward pass."""
    return micro_batches(samples, settings.micro_tokens, shares_prefixes=settings.share_prefixes)


def _padded(rows: Sequence[Sequence[float]], mask_BR: Any) -> Any:
    """Rows as one tensor shaped like the mask: 0 where that is 0, and NaN throughout a row that is empty."""
    padded_BR = mask_BR.new_zeros(mask_BR.shape).masked_fill(mask_BR.bool(), math.nan)
    for b, row in enumerate(rows):
        padded_BR[b, : len(row)] = padded_BR.new_tensor(row)
    return padded_BR


def _length(sample: Sample) -> int:
    return len(sample.prompt_ids) + len(sample.token_ids)


def _num_tokens(batch: Sequence[Sample]) -> int:
    return sum(len(sample.token_ids) for sample in batch)


def schedule(step: int, total_steps: int, warmup_share: float) -> float:
    """Share of the peak learning rate at a step, from 0: linear climb, then linear fall to a tenth."""
    warmup = max(1, round(warmup_share * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 - 0.9 * (step - warmup + 1) / max(1, total_steps - warmup)


PARITY_SAMPLES = 24


def measure_parity(
    model: Any, samples: Sequence[Sample], blobs: BlobStore, settings: LearnerSettings
) -> dict[str, float]:
    """How far the learner's log-probs, before training, are from those that the server recorded with the tokens."""
    recorded = [sample for sample in samples if len(sample.logprobs) == len(sample.token_ids)]
    chosen = random.Random(settings.seed).sample(recorded, min(PARITY_SAMPLES, len(recorded)))
    gaps: list[float] = []
    for micro in _parts(chosen, settings):
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
