"""The model server: vLLM started, watched and stopped by the program, or one that runs already.

vLLM is spoken to over HTTP only. Its development endpoints (pause, reload) ask for no password: a server started here
listens on loopback, and one given by address must be on a private network.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import TracebackType

import httpx
from pydantic import BaseModel, ConfigDict, Field

from policy.crash import crash_point
from policy.endpoint import EndpointSettings, open_endpoint
from proposer.generate import Generate, ModelError, Prompt, Response, Sampling

logger = logging.getLogger(__name__)

SERVED_NAME = "model"
STOP_DEADLINE_S = 20.0
DEATH_DEADLINE_S = 15.0
"""An engine that died takes its server along within seconds; one that answers nothing for so long is given up."""
POLL_S = 0.25
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


class ModelServer:
    """One served model: an async context manager. `publish` swaps its weights while it runs."""

    def __init__(self, settings: ServerSettings, model: Path, log: Path) -> None:
        """Serve the Hugging Face directory `model`; vLLM's own words go to the file `log`."""
        self.settings = settings
        self.model = model
        """Directory of the weights served now."""
        self.log = log
        self.version: int | None = None
        """Policy version served now; None until the first `publish` of one, and for weights that have no versions."""
        self.num_starts = 0
        """How often the server was started here."""
        self._process: subprocess.Popen[bytes] | None = None
        self._url = settings.base_url
        self._reviving = asyncio.Lock()

    @property
    def base_url(self) -> str:
        """Address of the running server, without ``/v1``. Raises ModelError before it was started."""
        if self._url is None:
            raise ModelError("the model server was not started")
        return self._url

    @property
    def endpoint(self) -> EndpointSettings:
        """How to reach the model."""
        return EndpointSettings(
            base_url=f"{self.base_url}/v1",
            model=SERVED_NAME,
            image_px=self.settings.image_px,
            timeout_s=self.settings.timeout_s,
            send_seed=False,
            exact_tokens=True,
        )

    def generate(self) -> Generate:
        """A `Generate` stamped with the version served now; if the server has died, it asks again once that is back."""
        endpoint = open_endpoint(self.endpoint, weights=self.version)

        async def generate(prompt: Prompt, sampling: Sampling) -> Response:
            num_starts = self.num_starts
            try:
                return await endpoint(prompt, sampling)
            except ModelError:
                if not await self.revive(num_starts):
                    raise
            return await endpoint(prompt, sampling)

        return generate

    async def __aenter__(self) -> "ModelServer":
        if self._url is None:
            self._url = f"http://127.0.0.1:{self.settings.port or _free_port()}"
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._start()
        await self._until_ready()
        return self

    def _start(self) -> None:
        command = self._command(int(self.base_url.rpartition(":")[2]))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        self.num_starts += 1

    async def _until_ready(self) -> None:
        try:
            await self._until_healthy()
            await self._warm_up()
        except BaseException:
            self.stop()
            raise

    async def revive(self, num_starts: int) -> bool:
        """Whether the server was started again since its `num_starts`-th start; a dead one is started now.

        It comes back at the same address with the weights that it served. One that was given by address is never
        started here.

        Raises:
            ModelError: it has died more often than `max_restarts` allows, or does not start.
        """
        async with self._reviving:  # of many that ask, the first one starts it and the others wait
            # Without a process it was given by address, or has been stopped: a late request must not bring it back.
            if self.num_starts == num_starts and self._process is not None and await self._is_dead():
                if self.num_starts > self.settings.max_restarts:
                    raise ModelError(f"vLLM died {self.num_starts} times; see {self.log}")
                logger.warning("vLLM has died; starting it again with %s (its words are in %s)", self.model, self.log)
                self.stop()
                self._start()
                await self._until_ready()
        return self.num_starts > num_starts

    async def _is_dead(self) -> bool:
        deadline = time.monotonic() + DEATH_DEADLINE_S
        async with httpx.AsyncClient(base_url=self.base_url, timeout=5.0) as client:
            while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):  # it may be on its way down
                    if (await client.get("/health")).status_code == 200:
                        return False
                await asyncio.sleep(POLL_S)
        return True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server if it was started here; a running one that was given by address is left alone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_DEADLINE_S)
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, 9)  # also an engine that outlived its server
        process.wait()

    async def publish(self, version: int | None, weights: Path) -> None:
        """Serve other weights: pause, reload, clear caches, go on. `version`: None if they aren't the policy's.

        Raises:
            ModelError: the server refused or died; what it serves is then unknown and it must be stopped.
        """
        if not (weights / "config.json").is_file():
            raise ModelError(f"weights {weights}: expected a Hugging Face directory")  # a bad path breaks vLLM for good
        async with httpx.AsyncClient(base_url=self.base_url, timeout=self.settings.timeout_s) as client:
            try:
                await _post(client, "/pause", params={"mode": "wait"})
                crash_point("publish:paused")
                await _post(client, "/collective_rpc", body={"method": "load_weights_from", "args": [str(weights)]})
                crash_point("publish:loaded")
                await _post(client, "/resume")
            except httpx.HTTPError as error:
                raise ModelError(f"publishing {weights} to {self.base_url}: {error!r}") from error
        self.model, self.version = weights, version

    async def _until_healthy(self) -> None:
        deadline = time.monotonic() + self.settings.start_deadline_s
        async with httpx.AsyncClient(base_url=self.base_url, timeout=5.0) as client:
            while True:
                if self._process is not None and self._process.poll() is not None:
                    raise ModelError(f"vLLM ended at start with code {self._process.returncode}; see {self.log}")
                try:
                    if (await client.get("/health")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                if time.monotonic() > deadline:
                    raise ModelError(f"{self.base_url}: not healthy within {self.settings.start_deadline_s:.0f} s")
                await asyncio.sleep(POLL_S)

    async def _warm_up(self) -> None:
        """The first answers compile kernels and take seconds: let them be nobody's."""
        generate = open_endpoint(self.endpoint)
        prompt = Prompt("Warm-up.", ("Say yes. " * 50,))
        await asyncio.gather(*(generate(prompt, Sampling(temperature=1.0, max_tokens=4)) for _ in range(4)))

    def _command(self, port: int) -> list[str]:
        settings = self.settings
        options = {
            "--model": str(self.model),
            "--served-model-name": SERVED_NAME,
            "--host": "127.0.0.1",
            "--port": str(port),
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
            options["--kv-cache-memory-bytes"] = str(round(settings.kv_cache_gib * GIB))
        words = [word for pair in options.items() for word in pair]
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words]

    def _environment(self) -> dict[str, str]:
        """The server's environment: development endpoints on, no outside calls, this checkout importable."""
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        variables = {
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": cores if self.settings.cpu_cores == "auto" else self.settings.cpu_cores,
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


async def _post(
    client: httpx.AsyncClient, path: str, *, params: dict[str, str] | None = None, body: object = None
) -> None:
    response = await client.post(path, params=params, json=body)
    response.raise_for_status()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
