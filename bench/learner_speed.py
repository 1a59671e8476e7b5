"""How fast is the learner, and how much memory does it take, beside TRL's SFTTrainer on the same model and data?

All train LoRA matrices of the same rank on the same language model's layers, by the same samples (token ids, loss on
responses alone), in bf16 (fp32 by a processor without it) with as many threads and samples per optimizer step, with the
same attention. Each is a process of its own, so that its peak memory is its own, and they take turns, so that a machine
that slows down slows all. Where there is a GPU all are on it, and memory is what torch has taken of it. Tokens are
those of prompts and responses as the samples hold them, whatever is computed of them: ours is measured with
`learner.share_prefixes` and (plain) without. Pictures are left out.

Samples are made up in the shape of a practice round's groups (a quickstart's: prompts of 240 to 480 tokens, responses
of 23; of 223 steps 69 share the whole prompt with another one, and 59 % of all tokens continue what another began).

The share of the matmul rate is the time that the matrix products of one of our (plain) optimizer steps take alone, same
shapes, strides and types, over the time of that step's forward and backward passes.

    pip install -e '.[bench]'
    python -m bench.learner_speed --seed 0
    python -m bench.learner_speed --large --num-samples 256 --batch-size 32 --micro-tokens 8192  # for a GPU
"""

import json
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.common import ROOT
from bench.scripted import LARGE, write_random_model
from policy.blobs import BlobStore
from rl.batches import rows_of
from rl.learner import LearnerSettings, Lessons, Training, train
from rl.manifest import Sample

Round = Callable[[], dict[str, float]]
MB_PER_KB, MB_PER_BYTE = 1e-3, 1e-6
KB_PER_KIB = 1.024  # Linux gives ru_maxrss in units of 1,024 bytes
MOST_TOKENS = 512
"""No sample is longer."""
TWINS = 4
"""Tensors of a kind that take each other's place when products are timed alone; more, and a cache would hold fewer."""


@dataclass(frozen=True, slots=True)
class Work:
    """What each contestant is given."""

    model: Path
    samples: tuple[Sample, ...]
    settings: LearnerSettings


def make_samples(num_samples: int, num_ids: int, seed: int) -> tuple[Sample, ...]:
    """Steps that saw a page each: two to four a page, of which some have the whole prompt in common."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, num_ids) for _ in range(rng.randint(low, high)))

    samples: list[Sample] = []
    while len(samples) < num_samples:
        page, tail = ids(200, 400), ids(40, 60)
        for _ in range(rng.randint(2, 4)):
            tail = tail if rng.random() < 0.5 else ids(40, 60)
            samples.append(_sample(len(samples), page + tail, ids(15, 31)))
    return tuple(samples[:num_samples])


def _sample(number: int, prompt: tuple[int, ...], reply: tuple[int, ...]) -> Sample:
    return Sample(
        trajectory_id=f"t{number}",
        step=0,
        prompt_ids=prompt,
        token_ids=reply,
        logprobs=(),
        pictures=(),
        weights=0,
    )


def ours(work: Work) -> Round:
    """An update of ours."""
    from rl.model import load_model

    model = load_model(work.model, work.settings)
    lessons = Lessons(work.samples, {sample.trajectory_id: 1.0 for sample in work.samples})
    blobs = BlobStore(work.model)  # of no pictures

    def run() -> dict[str, float]:
        began = time.perf_counter()
        train(model, lessons, blobs, work.settings)
        return {"seconds": seconds_since(began)}

    return run


def theirs(work: Work) -> Round:
    """An epoch of TRL's SFTTrainer, which the extra `bench` installs."""
    import pyarrow  # pyright: ignore[reportMissingImports]
    import torch
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

    from rl.model import LORA_TARGETS, attention, uses_bf16

    settings = work.settings
    torch.set_num_threads(settings.num_threads or 1)
    rows = [
        {
            "input_ids": [*sample.prompt_ids, *sample.token_ids],
            "labels": [-100] * len(sample.prompt_ids) + list(sample.token_ids),  # the loss leaves out -100
        }
        for sample in work.samples
    ]
    num_at_once = min(settings.batch_size, settings.micro_tokens // MOST_TOKENS)
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(
            work.model,
            dtype=torch.bfloat16 if uses_bf16(settings) else torch.float32,
            attn_implementation=attention(settings),
        ),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(prefix="pae-trl-"),
            per_device_train_batch_size=num_at_once,
            gradient_accumulation_steps=settings.batch_size // num_at_once,
            num_train_epochs=1,
            learning_rate=settings.lr,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            bf16=uses_bf16(settings),
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=settings.seed,
        ),
        train_dataset=Dataset(pyarrow.Table.from_pylist(rows), fingerprint="samples"),
        processing_class=AutoTokenizer.from_pretrained(work.model),
        peft_config=LoraConfig(r=settings.lora_rank or 1, lora_alpha=settings.lora_alpha, target_modules=LORA_TARGETS),
    )

    def run() -> dict[str, float]:
        began = time.perf_counter()
        trainer.train()
        return {"seconds": seconds_since(began)}

    return run


def matmuls(work: Work) -> Round:
    """Forward and backward passes of one optimizer step, and its matrix products alone."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from rl.model import load_model

    products = {torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default}
    calls: list[tuple[Any, list[torch.Tensor]]] = []
    pool: dict[tuple[Any, ...], deque[torch.Tensor]] = defaultdict(deque)

    def twin(tensor: torch.Tensor) -> torch.Tensor:
        """Numbers to multiply in its place: one of several tensors like it that take turns, for all won't fit."""
        like = pool[tuple(tensor.size()), tensor.stride(), tensor.dtype]
        if len(like) < TWINS:
            kind = {"dtype": tensor.dtype, "device": tensor.device}
            like.append(torch.empty_strided(tensor.size(), tensor.stride(), **kind).normal_())
        like.rotate()
        return like[0]

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in products:
                calls.append((func, [twin(tensor) for tensor in args]))
            return func(*args, **(kwargs or {}))

    batch = work.samples[: work.settings.batch_size]
    lessons = Lessons(batch, {sample.trajectory_id: 1.0 for sample in batch})
    training = Training(load_model(work.model, work.settings), work.settings)
    blobs = BlobStore(work.model)
    with Recorder():
        training._add_gradients(batch, lessons, blobs)

    def run() -> dict[str, float]:
        began = time.perf_counter()
        training._add_gradients(batch, lessons, blobs)
        seconds = seconds_since(began)
        began = time.perf_counter()
        with torch.no_grad():
            for func, tensors in calls:
                func(*tensors)
        return {"seconds": seconds, "products_s": seconds_since(began)}

    return run


def seconds_since(began: float) -> float:
    """Since `time.perf_counter()` told this, all that a GPU was given to do being done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_mb() -> float:
    """The most memory (MB) that this process has had: of the GPU, where there is one, what its tensors took."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() * MB_PER_BYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KB_PER_KIB * MB_PER_KB


def serve(make: Callable[[Work], Round], work: Work, pipe: Connection) -> None:
    """Make a contestant, run it as often as asked, and tell its peak memory (MB) with each round."""
    import torch

    run = make(work)
    pipe.send({})
    while pipe.recv():
        told = run() | {"peak_mb": peak_mb()}
        torch.cuda.empty_cache()  # all share one GPU; nothing happens where there is none
        pipe.send(told)


def take_turns(
    contestants: dict[str, tuple[Callable[[Work], Round], Work]], rounds: int
) -> dict[str, dict[str, float]]:
    """Medians of what each contestant tells, over rounds in which all take a turn; one more before isn't counted."""
    context = multiprocessing.get_context("spawn")
    told: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    pipes: dict[str, Any] = {}
    processes = []
    for name, (make, work) in contestants.items():
        pipes[name], theirs_end = context.Pipe()
        processes.append(context.Process(target=serve, args=(make, work, theirs_end)))
        processes[-1].start()
        theirs_end.close()
        pipes[name].recv()
    for _ in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            told[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    return {
        name: {key: statistics.median(turn[key] for turn in turns[1:]) for key in turns[0]}
        for name, turns in told.items()
    }


def main(
    seed: Annotated[int, typer.Option(help="Of the samples and their order.", min=0)] = 0,
    model: Annotated[Path, typer.Option(help="Vision-language model to train.")] = ROOT / "starter" / "policy",
    num_samples: Annotated[int, typer.Option(help="Samples trained on in a turn.", min=2)] = 32,
    rounds: Annotated[int, typer.Option(help="Turns of each that are counted.", min=1)] = 3,
    batch_size: Annotated[int, typer.Option(help="Samples per optimizer step.", min=1)] = 8,
    threads: Annotated[int | None, typer.Option(help="CPU threads; unset: all that this process may use.")] = None,
    micro_tokens: Annotated[int, typer.Option(help="Padded tokens in one forward pass.", min=MOST_TOKENS)] = 2048,
    large: Annotated[bool, typer.Option("--large", help="Train 1.7 billion random weights instead.")] = False,
) -> None:
    """Compare the learner's speed and memory with TRL's SFTTrainer, and with torch's matrix products alone."""
    if not (model / "config.json").is_file():
        raise typer.BadParameter(f"{model}: expected a Hugging Face directory", param_hint="--model")
    settings = LearnerSettings(
        lr=3e-4,
        lora_rank=16,
        lora_alpha=32,
        batch_size=batch_size,
        micro_tokens=micro_tokens,
        max_loss=1000,
        seed=seed,
        num_threads=threads or len(os.sched_getaffinity(0)),
    )
    with tempfile.TemporaryDirectory(prefix="pae-large-") as folder:
        if large:
            model = Path(folder)
            write_random_model(model, LARGE, seed)
        print(json.dumps(compare(model, settings, num_samples, rounds)))


def compare(model: Path, plain: LearnerSettings, num_samples: int, rounds: int) -> dict[str, float | None]:
    """The figures."""
    num_ids = json.loads((model / "config.json").read_text())["image_token_id"] - 1
    samples = make_samples(num_samples, num_ids, plain.seed)
    shared = plain.model_copy(update={"share_prefixes": True})
    contestants = {
        "ours": (ours, Work(model, samples, shared)),
        "plain": (ours, Work(model, samples, plain)),
        "trl": (theirs, Work(model, samples, plain)),
        "matmul": (matmuls, Work(model, samples, plain)),
    }
    told = take_turns(contestants, rounds)
    num_tokens = sum(len(sample.prompt_ids) + len(sample.token_ids) for sample in samples)
    num_distinct = sum(map(len, rows_of(samples, shares_prefixes=True)))
    speeds = {name: num_tokens / told[name]["seconds"] for name in ("ours", "plain", "trl")}
    return {
        "ours_tokens_per_s": speeds["ours"],
        "trl_tokens_per_s": speeds["trl"],
        "ratio": speeds["ours"] / speeds["trl"],
        "ours_peak_mb": told["ours"]["peak_mb"],
        "trl_peak_mb": told["trl"]["peak_mb"],
        "share_of_matmul_rate": told["matmul"]["products_s"] / told["matmul"]["seconds"],
        "plain_tokens_per_s": speeds["plain"],
        "plain_ratio": speeds["plain"] / speeds["trl"],
        "plain_peak_mb": told["plain"]["peak_mb"],
        "tokens_shared": 1 - num_distinct / num_tokens,
        "threads": plain.num_threads,
    }


if __name__ == "__main__":
    typer.run(main)
