"""How vLLM is started: its settings, and the command line and environment that follow from them."""

import contextlib
import json
import os
import sys
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

SERVED_NAME = "model"
GIB = 2**30
REPOSITORY = Path(__file__).resolve().parent.parent


class ServerSettings(BaseModel):
    """How a model is served."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_url: str | None = None
    """Address of a running server (``http://127.0.0.1:8000``); None: the program starts its own."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port on 127.0.0.1 of a server that the program starts; 0: any free one."""
    max_model_len: int = Field(default=2048, ge=128)
    """Longest prompt and answer together, in tokens."""
    max_num_seqs: int = Field(default=16, ge=1)
    """Requests decoded together; more wait their turn."""
    max_images: int = Field(default=3, ge=0)
    """Pictures in one prompt at most."""
    image_px: int | None = Field(default=256, ge=16)
    """Longest side (pixels) of pictures sent to this model; None: full screenshots."""
    dtype: str = "bfloat16"
    """Number format of the weights served."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share one copy of the model; 1 on CPU."""
    kv_cache_gib: float = Field(default=0.5, gt=0)
    """Key-value cache of a CPU server, GiB; on GPUs vLLM takes its own share of memory."""
    picture_cache_gib: float = Field(default=0.25, ge=0)
    """Pictures kept ready for prompts that show them again, GiB, both in the server and in its engine."""
    cpu_cores: str = "auto"
    """Cores of a CPU server, ``0-1``; ``nobind``: no binding; ``auto``: all that this process may use."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds for one answer."""
    start_deadline_s: float = Field(default=600.0, gt=0)
    """Seconds from start to the first healthy answer."""
    max_restarts: int = Field(default=3, ge=0)
    """How often a server that the program started, and that has died since, is started again."""


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
        "--dtype": settings.dtype,
        "--max-model-len": str(settings.max_model_len),
        "--max-num-seqs": str(settings.max_num_seqs),
        "--tensor-parallel-size": str(settings.tensor_parallel),
        "--limit-mm-per-prompt": json.dumps({"image": settings.max_images}),
        "--mm-processor-cache-gb": str(settings.picture_cache_gib),
        "--logprobs-mode": "processed_logprobs",
        "--worker-extension-cls": "policy.reload.ReloadExtension",
    }
    if _is_cpu_build():
        chosen["--kv-cache-memory-bytes"] = str(round(settings.kv_cache_gib * GIB))
    return chosen


def environment(settings: ServerSettings) -> dict[str, str]:
    """vLLM's environment: development endpoints on, no outside calls, this checkout importable."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    variables = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": cores if settings.cpu_cores == "auto" else settings.cpu_cores,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": path,
    }
    if _is_cpu_build():
        # A graph that was saved whole can't be loaded again on CPU (vLLM 0.32): every start would compile anew.
        variables["VLLM_USE_AOT_COMPILE"] = "0"
    return os.environ | variables


def _is_cpu_build() -> bool:
    """Whether the vLLM installed here is the one for CPUs: a distribution of its own, or a version that says so."""
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return "cpu" in f"{name} {metadata.version(name)}"
    return False
