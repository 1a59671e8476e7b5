"""The trained model: a Hugging Face vision-language model, log-probs of given tokens, saving, checkpoints. Owns torch.

Works on any model of transformers' image-text-to-text family whose inner ``model`` returns hidden states and whose
``lm_head`` maps them to logits (Idefics3, LLaVA, Qwen-VL): logits are made for response tokens only.

Tensor suffixes: B sample, T token of the padded sequence, R response token of the batch, D hidden, V vocabulary.
"""

import contextlib
import ctypes
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from policy import canary
from policy.blobs import BlobStore
from policy.crash import crash_point
from policy.files import file_hashes, sha256, sync
from policy.marks import scaled
from policy.precision import multiplies_bf16
from proposer.generate import Prompt
from rl.batches import Row, rows_of
from rl.learner import LearnerError, LearnerSettings
from rl.manifest import Sample
from rl.shards import peers, shard, whole

logger = logging.getLogger(__name__)

LORA_TARGETS = r".*(text_model|language_model).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The language model's linear layers; the vision tower is frozen, or trained whole."""
ENCODED_APART = ("idefics3", "smolvlm")
"""Models that take features of pictures ready made, and plain positions; others are not tested with it."""
VISION = r"(vision_model|vision_tower|visual|connector|multi_modal_projector)"
"""Names of vision towers and of what joins them to the language model."""
END_OF_TURN = "<|im_end|>"
DIGEST_BYTES = hashlib.sha256().digest_size
ROUNDED_TO = 2**-10
"""To what multiples `rounded_hash` rounds weights."""


class TrainedModel:
    """A model with its trainable parameters, in fp32; its other weights, and products, are as the settings say."""

    def __init__(self, network: Any, processor: Any, settings: LearnerSettings) -> None:
        """Wrap a loaded network, whose trainable parameters already require gradients."""
        self.network = network
        self.processor = processor
        self.settings = settings
        self.peers = peers()
        self._pictures = Pictures(self, settings) if settings.share_prefixes or settings.picture_cache_mb else None
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.device = next(network.parameters()).device

    @property
    def _inner(self) -> Any:
        return self.network.get_base_model() if hasattr(self.network, "get_base_model") else self.network

    def make_optimizer(self, lr: float) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters, without weight decay."""
        return torch.optim.AdamW(self.parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)

    @staticmethod
    def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
        """Set the learning rate of every group."""
        for group in optimizer.param_groups:
            group["lr"] = lr

    def clip_gradients(self, max_norm: float) -> float:
        """Clip the gradients together to a norm; what it was before, not a finite number if one of them isn't."""
        return float(whole(torch.nn.utils.clip_grad_norm_(self.parameters, max_norm)))

    @staticmethod
    def apply_gradients(optimizer: torch.optim.Optimizer) -> None:
        """One optimizer step; the gradients are gone then."""
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _give_back_memory()

    def state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """What optimizer steps change: ``parameters`` and ``optimizer``; the tensors are the live ones, not copies."""
        return {
            "parameters": [parameter.detach() for parameter in self.parameters],
            "optimizer": optimizer.state_dict(),
        }

    def restore(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Put parameters and optimizer back to a `state` of the same model, on whatever device it lies."""
        for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
            parameter.data.copy_(saved)
        optimizer.load_state_dict(state["optimizer"])

    def shards(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The tensors of `state` by name, live ones, this process's shards of them; missing moments are made, 0."""
        named = {name: parameter for name, parameter in self.network.named_parameters() if parameter.requires_grad}
        for parameter in named.values():
            if parameter not in optimizer.state:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
        return {
            "parameters": {name: parameter.detach() for name, parameter in named.items()},
            "optimizer": {name: dict(optimizer.state[parameter]) for name, parameter in named.items()},
        }

    def extrapolate(self, parent: Path, factor: float) -> None:
        """Move what was trained to ``parent + factor * (trained - parent)``; `parent` is where it was loaded from.

        Example: factor 1.5 makes 0.3 of a weight that was 0.1 and has been trained to 0.2333.
        """
        if factor == 1:
            return
        if self._inner is not self.network:
            # The change is scale * B A: scaled, not recomputed from merged weights, which would be rounded twice.
            for module in self.network.modules():
                if isinstance(module, LoraLayer):
                    module.scale_layer(factor)
            return
        before = AutoModelForImageTextToText.from_pretrained(parent, dtype="auto").state_dict()
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                parameter.data.lerp_(before[name].to(parameter), 1 - factor)

    def logprobs(
        self, samples: Sequence[Sample], blobs: BlobStore, image_px: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs (nats) of the response tokens, padded on the right, and their mask; both (B, longest response).

        They are those of the distribution that was sampled from: logits are divided by each sample's temperature.

        Example: responses of 2 and 3 tokens give shapes (2, 3) and a mask [[1, 1, 0], [1, 1, 1]].
        """
        rows = rows_of(samples, shares_prefixes=self.settings.share_prefixes)
        paths = {id(sample): (b, path) for b, row in enumerate(rows) for sample, path in _paths(row)}
        with self.autocast():
            hidden_BTD = self._inner.model(use_cache=False, **self._inputs(rows, blobs, image_px)).last_hidden_state
            # The hidden state one before a token predicts it.
            places = [(b, path[-len(s.token_ids) :]) for s in samples for b, path in [paths[id(s)]]]
            rows_R = [b for b, path in places for _ in path]
            logits_RV = self._inner.lm_head(hidden_BTD[rows_R, [place for _, path in places for place in path]])
        temperatures_R1 = torch.tensor([[s.temperature] for s in samples for _ in s.token_ids], device=self.device)
        targets_R = torch.tensor([token for s in samples for token in s.token_ids], device=self.device)
        flat_R = -torch.nn.functional.cross_entropy(logits_RV.float() / temperatures_R1, targets_R, reduction="none")
        return self._unflatten(flat_R, [len(sample.token_ids) for sample in samples])

    def autocast(self) -> torch.autocast:
        """A context whose products are of the precision that the settings name."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=uses_bf16(self.settings))

    def score(self, samples: Sequence[Sample], blobs: BlobStore, image_px: int | None) -> list[list[float]]:
        """Log-probs (nats) of each sample's response tokens, without gradients."""
        with torch.no_grad():
            logprobs, _ = self.logprobs(samples, blobs, image_px)
        return [row[: len(sample.token_ids)].tolist() for row, sample in zip(logprobs, samples, strict=True)]

    def _inputs(self, rows: Sequence[Row], blobs: BlobStore, image_px: int | None) -> dict[str, Any]:
        """What the network's inner model reads, padded on the right."""
        longest, pad = max(map(len, rows)), self.processor.tokenizer.pad_token_id
        ids_BT = torch.tensor([row.ids + [pad] * (longest - len(row)) for row in rows], device=self.device)
        if self._pictures is None:
            visual = self._pixels([sample for row in rows for sample in row.samples], blobs, image_px)
        else:
            visual = self._pictures.inputs(rows, blobs, image_px)
        if not self.settings.share_prefixes:
            real = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
            return {"input_ids": ids_BT, "attention_mask": torch.tensor(real, device=self.device), **visual}
        positions = [row.positions + [0] * (longest - len(row)) for row in rows]
        return {
            "input_ids": ids_BT,
            "attention_mask": self._tree_mask(rows, longest),
            "position_ids": torch.tensor(positions, device=self.device),
            **visual,
        }

    def _tree_mask(self, rows: Sequence[Row], longest: int) -> torch.Tensor:
        """What is added to attention scores, (B, 1, T, T): 0 for a token and those before it on its paths."""
        seen_BTT = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)
        for seen_TT, row in zip(seen_BTT, rows, strict=True):
            for path in map(torch.tensor, row.paths):
                seen_TT[path[:, None], path] = True
        seen_BTT &= torch.ones(longest, longest, dtype=torch.bool).tril()
        mask_BTT = torch.zeros(seen_BTT.shape, dtype=self._inner.get_input_embeddings().weight.dtype)
        mask_BTT.masked_fill_(~seen_BTT, torch.finfo(mask_BTT.dtype).min)
        return mask_BTT[:, None].to(self.device)

    def _unflatten(self, flat_R: torch.Tensor, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.nn.utils.rnn.pad_sequence(list(flat_R.split(list(lengths))), batch_first=True)
        mask = (
            torch.arange(rows.shape[1], device=self.device)[None] < torch.tensor(lengths, device=self.device)[:, None]
        )
        return rows, mask.to(rows.dtype)

    def _pixels(self, samples: Sequence[Sample], blobs: BlobStore, image_px: int | None) -> dict[str, torch.Tensor]:
        """What the processor makes of the samples' pictures; samples without any share no call with others."""
        pictures = [[open_picture(blobs.get(name), image_px) for name in sample.pictures] for sample in samples]
        if not any(pictures):
            return {}
        return self._processed(pictures)

    def encode_picture(self, data: bytes, image_px: int | None) -> torch.Tensor:
        """What the language model reads in the place of a picture's tokens: (image tokens, D)."""
        # A frozen tower makes no graph.
        features = self._inner.model.get_image_features(
            **self._processed([[open_picture(data, image_px)]]), return_dict=True
        ).pooler_output
        return features.flatten(0, -2)

    def _processed(self, pictures: list[list[Image.Image]]) -> dict[str, torch.Tensor]:
        features = self.processor.image_processor(pictures, return_tensors="pt")
        return {name: value.to(self.device) for name, value in features.items() if isinstance(value, torch.Tensor)}


def _paths(row: Row) -> Iterator[tuple[Sample, list[int]]]:
    return zip(row.samples, row.paths, strict=True)


class Pictures:
    """What the vision tower makes of pictures, each by itself; of a frozen one it is kept, the last used longest.

    Memory is bounded: what is over the bound goes, the least recently used first.
    """

    def __init__(self, model: TrainedModel, settings: LearnerSettings) -> None:
        """Start with nothing kept. Raises ValueError for a model whose pictures can't be encoded apart."""
        kind, kinds = model.network.config.model_type, ", ".join(ENCODED_APART)
        if kind not in ENCODED_APART:
            raise ValueError(
                f"learner.share_prefixes, learner.picture_cache_mb: expected a model of {kinds}, got {kind}"
            )
        self._model = model
        self._max_bytes = 0 if settings.train_vision else int(settings.picture_cache_mb * 1e6)
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._num_bytes = 0

    def inputs(self, rows: Sequence[Row], blobs: BlobStore, image_px: int | None) -> dict[str, Any]:
        """The features that rows' image tokens stand for, as the network's inner model takes them."""
        names = dict.fromkeys(name for row in rows for sample in row.samples for name in sample.pictures)
        features = {name: self._features(name, blobs, image_px) for name in names}
        if not features:
            return {}
        chosen = torch.cat([part for row in rows for part in self._of_row(row, features)])
        output = BaseModelOutputWithPooling(pooler_output=chosen)  # pyright: ignore[reportArgumentType]  # a plain Tensor
        return {"mm_encoder_outputs": {"image": output}}

    def _of_row(self, row: Row, features: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
        """The features of a row's image tokens in the row's order; a token that several samples share has them once."""
        token, num_placed = self._model.network.config.image_token_id, 0
        for sample, path in _paths(row):
            new = [place >= num_placed for place in path if row.ids[place] == token]
            if sample.pictures:
                yield torch.cat([features[name] for name in sample.pictures])[new]
            num_placed = max(num_placed, path[-1] + 1)

    def _features(self, name: str, blobs: BlobStore, image_px: int | None) -> torch.Tensor:
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        features = self._model.encode_picture(blobs.get(name), image_px)
        if self._max_bytes:
            self._kept[name] = features
            self._num_bytes += features.nbytes
        while self._num_bytes > self._max_bytes and self._kept:
            self._num_bytes -= self._kept.popitem(last=False)[1].nbytes
        return features


def _give_back_memory() -> None:
    """Hand freed host memory back to the system, where the C library knows how (glibc).

    Sequences differ in length, and the holes that they leave in the heap make it grow from step to step.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def open_picture(data: bytes, image_px: int | None) -> Image.Image:
    """A picture as the model takes it, longest side `image_px` (None: as it is)."""
    return Image.open(io.BytesIO(data if image_px is None else scaled(data, image_px))).convert("RGB")


def encode(
    prompt: Prompt,
    reply: str,
    blobs: BlobStore,
    processor: Any,
    *,
    name: str,
    image_px: int | None = 256,
    is_sampled: bool = True,
) -> Sample:
    """A prompt and the reply wanted as token ids, exactly as the server would read and sample them.

    With `is_sampled` False the reply is tokenised as the server does it that is given prompt and reply as one text.
    """
    pictures = [part for part in prompt.parts if isinstance(part, bytes)]
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in prompt.parts]
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    images = [open_picture(picture, image_px) for picture in pictures] or None
    prompt_ids = processor(text=text, images=images).input_ids[0]
    token_ids = (
        processor.tokenizer(reply + END_OF_TURN, add_special_tokens=False).input_ids
        if is_sampled
        else processor(text=text + reply, images=images).input_ids[0][len(prompt_ids) :]
    )
    return Sample(
        trajectory_id=name,
        step=0,
        prompt_ids=tuple(prompt_ids),
        token_ids=tuple(token_ids),
        logprobs=(),
        pictures=tuple(blobs.put(picture) for picture in pictures),
        weights=None,
    )


def sing(model: TrainedModel, image_px: int | None) -> dict[str, list[float]]:
    """Log-probs (nats) of the canary's reply by kind of prompt: what a server of these weights must find too."""
    with tempfile.TemporaryDirectory(prefix="pae-canary-") as folder:
        blobs = BlobStore(Path(folder))
        songs = {
            kind: encode(prompt, canary.REPLY, blobs, model.processor, name=kind, image_px=image_px, is_sampled=False)
            for kind, prompt in canary.prompts().items()
        }
        return {kind: model.score([sample], blobs, image_px)[0] for kind, sample in songs.items()}


def load_model(directory: Path, settings: LearnerSettings, *, as_masters: bool = False) -> TrainedModel:
    """A model ready to train: LoRA matrices on frozen weights, or (rank None) the language model's own weights.

    With `train_vision` the vision tower and its connector are trained as well. Where several processes make the update
    they share it out. `as_masters`: all weights as exact as they lie on disk, in fp32, in this process's host memory.

    Raises:
        ValueError: prefixes or pictures can't be shared with this kind of model.
    """
    torch.manual_seed(settings.seed)
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    network: Any = AutoModelForImageTextToText.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=attention(settings)
    )
    network.requires_grad_(False)
    if settings.lora_rank is not None:
        lora = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            target_modules=LORA_TARGETS,
            modules_to_save=_vision_parts(network) if settings.train_vision else None,
        )
        network = get_peft_model(network, lora)
        for module in network.modules():
            if isinstance(module, LoraLayer):
                module.cast_input_dtype_enabled = False  # to fp32, from which autocast would cast it back at once
    else:
        network.model.get_decoder().layers.requires_grad_(True)
        for name in _vision_parts(network) if settings.train_vision else ():
            network.model.get_submodule(name).requires_grad_(True)
    if settings.checkpointing:
        _recompute(network)
    if not as_masters:
        for parameter in network.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(number_format(settings))
        network.to(device())
        if peers().size > 1:
            shard(network.get_base_model() if settings.lora_rank is not None else network)
    return TrainedModel(network, AutoProcessor.from_pretrained(directory), settings)


def device() -> str:
    """Where models compute: on a GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def number_format(settings: LearnerSettings) -> torch.dtype:
    """Of products, and of weights that aren't trained."""
    return torch.bfloat16 if uses_bf16(settings) else torch.float32


def uses_bf16(settings: LearnerSettings) -> bool:
    """Whether products are of bf16, by the settings and by what the machine can do."""
    if settings.precision != "auto":
        return settings.precision == "bf16"
    return torch.cuda.is_available() or multiplies_bf16()


def attention(settings: LearnerSettings) -> str:
    """The attention that suits the machine, as transformers calls it: torch's fused one, but for bf16 on a CPU.

    There that is the slower one: a third of an update's time (measured at 400 tokens). In fp32 it takes about as long
    as step by step, and a quarter less memory.
    """
    return "eager" if uses_bf16(settings) and not torch.cuda.is_available() else "sdpa"


def _vision_parts(network: Any) -> list[str]:
    return [name for name, _ in network.model.named_children() if re.fullmatch(VISION, name)]


def _recompute(network: Any) -> None:
    """Have each layer's activations computed again in the backward pass."""
    network.gradient_checkpointing_enable({"use_reentrant": False})
    for module in network.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # the layer alone asks for it; what is in it may hold dropout and stays as it is


def save_weights(model: TrainedModel, parent: Path, out: Path, commit: dict[str, Any], *, image_px: int | None) -> None:
    """Write whole weights in Hugging Face layout with a COMMIT.json of file hashes, then rename into place.

    They are masters (rl/shards.py, `gather_model`) and written as such, in fp32, whatever they are served in: rounded
    to bf16, changes of less than half its step would be lost from round to round instead of adding up; of a single
    round's lesson that takes a fifth (0.07 nats of log-prob; docs/results.md). Processor and tokenizer files are copied
    from the parent, so that every version is served alike. COMMIT.json also holds the canary's log-probs, with pictures
    of `image_px`, by which the server is known to serve these weights.

    Raises:
        LearnerError: those aren't numbers; nothing was written.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    network = model.network.merge_and_unload() if hasattr(model.network, "merge_and_unload") else model.network
    network.save_pretrained(temporary)
    for file in parent.iterdir():
        if file.is_file() and not (temporary / file.name).exists() and file.name != "COMMIT.json":
            shutil.copy2(file, temporary / file.name)
    hashes = file_hashes(temporary)
    network.to(device(), number_format(model.settings))  # as it will be served
    song = sing(TrainedModel(network, model.processor, model.settings), image_px)
    if not all(math.isfinite(logprob) for verse in song.values() for logprob in verse):
        shutil.rmtree(temporary)
        raise LearnerError(f"{out}: expected log-probs of the canary that are numbers, got {song}")
    (temporary / "COMMIT.json").write_text(json.dumps(commit | {"canary": song, "files": hashes}, indent=2))
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    crash_point("learn:save")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(out)
    temporary.rename(out)
    crash_point("learn:renamed")
    sync(out.parent)


def read_commit(directory: Path) -> dict[str, Any] | None:
    """The COMMIT.json of written weights; None if there is none or a file isn't what it says."""
    try:
        commit = json.loads((directory / "COMMIT.json").read_text())
        damaged = [name for name, digest in commit["files"].items() if sha256(directory / name) != digest]
    except (FileNotFoundError, ValueError) as error:
        if directory.exists():
            logger.warning("%s holds no whole weights: %s", directory, error)
        return None
    if damaged:
        logger.warning("%s holds no whole weights: not as written: %s", directory, ", ".join(damaged))
        return None
    return commit


def rounded_hash(directory: Path) -> str | None:
    """The sha256 of written weights, rounded; None for a model from elsewhere, and for dropped versions.

    A picture drawn a shade lighter moves thousands of a tiny model's weights by up to 2e-8, which rounds to another
    value in one case of thirteen at most; a round's lesson moves tens of thousands by up to 1e-4, which always does.
    """
    if not (directory / "COMMIT.json").is_file():
        return None
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        for name, tensor in sorted(load_file(path).items()):
            digest.update(name.encode())
            digest.update((tensor.float() / ROUNDED_TO).round().int().numpy().tobytes())
    return digest.hexdigest()


def checkpoint_path(out: Path) -> Path:
    """Where the update that will write the directory `out` keeps its checkpoint."""
    return out.with_name(f".{out.name}.checkpoint")


def shards_path(out: Path) -> Path:
    """The directory in which several processes that will write the directory `out` keep their checkpoints."""
    return out.with_name(f".{out.name}.shards")


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values to a file at once: whoever reads it finds the last checkpoint or this one, whole.

    It begins with the sha256 (32 bytes) of what follows, a torch file: torch itself checks none of the data it reads.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("w+b") as file:
        file.write(bytes(DIGEST_BYTES))
        torch.save(state, file)
        file.seek(DIGEST_BYTES)
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        file.write(digest)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on CPU; None if there is none or it is torn.

    A torn one is set aside, for a look, under the suffix ``.torn``.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        if file.read(DIGEST_BYTES) == hashlib.file_digest(file, "sha256").digest():
            file.seek(DIGEST_BYTES)
            return torch.load(file, map_location="cpu", weights_only=True)
    torn = path.with_name(f"{path.name}.torn")
    path.replace(torn)
    logger.warning("checkpoint %s is torn: the update starts over; it is kept as %s", path, torn.name)
    return None


def remove_leftovers(out: Path) -> None:
    """Remove what processes that died while they wrote `out`, its checkpoint or its log have left half written."""
    for path in out.parent.iterdir():
        half = re.fullmatch(rf"\.{re.escape(out.name)}(\.checkpoint|\.steps\.jsonl)?\.(\d+)", path.name)
        if half and not psutil.pid_exists(int(half[2])):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
