"""The model server: vLLM started, watched and stopped by the program, or one that runs already.

vLLM is spoken to over HTTP only. Its development endpoints (pause, reload) ask for no password: a server started here
listens on loopback, and one given by address must be on a private network.

A server started here has a record beside its log. If the program is killed, the server lives on for a while
(policy/leash.py), and the program that goes on with the run adopts it: that takes a second, a start a minute.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import httpx
import psutil

from policy import canary
from policy.crash import crash_point
from policy.endpoint import EndpointSettings, open_endpoint, score
from policy.leash import ProcessId, is_alive
from policy.server_record import ServerRecord, State
from policy.server_settings import SERVED_NAME, ServerSettings, command, environment, is_cpu_build, options
from proposer.generate import ModelError, Prompt, Sampling

logger = logging.getLogger(__name__)

STOP_DEADLINE_S = 20.0
DEATH_DEADLINE_S = 15.0
"""An engine that died takes its server along within seconds; one that answers nothing for so long is given up."""
ADOPTION_S = 120.0
"""How long a server waits for another owner when its own was killed."""
MAX_BACKOFF_S = 30.0
UNASSIGNED_PORTS = range(20_000, 32_768)
"""Registered ports; Linux gives the ones above to outgoing connections and to whoever asks for any."""
POLL_S = 0.25


class ModelServer:
    """One served model: an async context manager. `publish` swaps its weights while it runs."""

    def __init__(
        self,
        settings: ServerSettings,
        model: Path,
        log: Path,
        *,
        base_url: str | None = None,
        replica: int | None = None,
        starting: asyncio.Lock | None = None,
    ) -> None:
        """Serve the Hugging Face directory `model`; vLLM's own words go to the file `log`.

        Args:
            settings: How to serve it.
            model: The weights served first.
            log: Its record is beside it.
            base_url: Address of a running server; None: one is started.
            replica: Which of several it is (policy/fleet.py); None: the only one.
            starting: Held while it is started again: of those that share it, only one is at a time. None: its own.
        """
        self.settings = settings
        self.model = model
        """Directory of the weights served now."""
        self.log = log
        self.version: int | None = None
        """Policy version served now; None until the first `publish` of one, and for weights that have no versions."""
        self.num_starts = 0
        """How often the server was started here."""
        self.state = State.STARTING
        self._process: psutil.Process | None = None
        """The leash that holds a server started here; None for one given by address, and once it was stopped."""
        self._process_id: ProcessId | None = None
        """Its id, for the record."""
        self._is_given = base_url is not None
        self._url = base_url
        self._replica = replica
        self._starting = starting or asyncio.Lock()
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

    async def __aenter__(self) -> "ModelServer":
        if not self._is_given:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            if await self._adopt():
                return self
            self._url = _loopback(self.settings.port or _free_port())
            self._start()
        await self._until_ready()
        return self

    async def _adopt(self) -> bool:
        """Whether a server that a killed program left behind serves this model now; one that can't is ended."""
        record = ServerRecord.read(self.log)
        if record is None or (process := record.process.find()) is None:
            return False
        self._process, self._process_id, self._url = process, record.process, _loopback(record.port)
        self.note(record.state)
        is_fit = record.options == options(self.settings) and record.state is not State.STARTING
        with self._stopped_on_error():
            try:
                if is_fit and not await self._is_dead():
                    await self._swap(self.model)  # it may have been killed with requests waiting, or half-way in a swap
                    self.note(State.READY)
                    logger.info("adopted the vLLM of a program that was killed: process %d", process.pid)
                    return True
            except ModelError as error:
                logger.warning("the vLLM of a program that was killed can't be used: %s", error)
        self.stop()
        return False

    @contextlib.contextmanager
    def _stopped_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # also cancelled: nobody else knows of the process yet
            self.stop()
            raise

    def _start(self) -> None:
        port = int(self.base_url.rpartition(":")[2])
        leash = [sys.executable, "-m", "policy.leash", str(ServerRecord.path(self.log)), str(ADOPTION_S)]
        with self.log.open("ab") as log:
            self._process = psutil.Popen(
                [*leash, *command(self.settings, self.model, port)],
                env=environment(self.settings, self._replica),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._process_id = ProcessId.of(self._process)
        self.num_starts += 1
        self.note(State.STARTING)

    def note(self, state: State) -> None:
        """Be in a state, and say so in the record, from which the leash reads who owns the server."""
        self.state = state
        if self._process_id is None:
            return
        record = ServerRecord(
            owner=ProcessId.of(psutil.Process()),
            process=self._process_id,
            port=int(self.base_url.rpartition(":")[2]),
            options=options(self.settings),
            state=state,
            model=self.model,
            version=self.version,
        )
        path = ServerRecord.path(self.log)
        partial = path.with_suffix(".partial")
        partial.write_text(record.model_dump_json())
        partial.replace(path)

    async def _until_ready(self) -> None:
        with self._stopped_on_error():
            await self._until_healthy()
            if self._process is None:  # given by address: whoever used it before may have been killed in a swap
                await self._unpause()
            await self._warm_up()
        self.note(State.READY)

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
                await self._restart("has died")
        return self.num_starts > num_starts

    async def _restart(self, why: str) -> None:
        """Start it again with the weights that it is to serve, after a pause that doubles every time."""
        if self.num_starts > self.settings.max_restarts:
            raise ModelError(f"vLLM {why}, for the {self.num_starts}th time (serving.max_restarts); see {self.log}")
        logger.warning("vLLM %s; starting it again with %s (its words are in %s)", why, self.model, self.log)
        self.stop()
        await asyncio.sleep(min(MAX_BACKOFF_S, 2.0 ** max(0, self.num_starts - 1)))
        async with self._starting:
            self._start()
            await self._until_ready()

    async def _is_dead(self) -> bool:
        deadline = time.monotonic() + DEATH_DEADLINE_S
        async with httpx.AsyncClient(base_url=self.base_url, timeout=5.0) as client:
            while self._process is not None and is_alive(self._process) and time.monotonic() < deadline:
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
        process, self._process, self._process_id = self._process, None, None
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(STOP_DEADLINE_S)
        with contextlib.suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, 9)  # also an engine that outlived its server
        process.wait()
        ServerRecord.path(self.log).unlink(missing_ok=True)

    async def publish(self, version: int | None, weights: Path) -> None:
        """Serve other weights: pause, reload, clear caches, go on. `version`: None if they aren't the policy's.

        Where the weights come with a canary, it must sing alike here (policy/canary.py). A server started here that
        fails at any of it is started again with these weights, within `max_restarts`, and asked once more.

        Raises:
            ModelError: it can't be made to serve them.
        """
        if not (weights / "config.json").is_file():
            raise ModelError(f"weights {weights}: expected a Hugging Face directory")  # a bad path breaks vLLM for good
        self.model, self.version = weights, version
        num_starts = self.num_starts
        self.note(State.UPDATING)
        try:
            await self._swap(weights)
            await self._listen(weights)
        except ModelError as error:
            self.note(State.POISONED)
            if self._process is None:
                raise
            async with self._reviving:
                if self.num_starts == num_starts:
                    await self._restart(f"failed to load other weights ({error})")
            await self._listen(weights)
        self.note(State.READY)

    async def rest(self) -> None:
        """Give back the memory that a server can do without while it isn't asked; only of one started here, on CPU.

        What it remembers of prompts and pictures is gone, as with other weights. Raises ModelError: it doesn't answer.
        """
        if self._process is not None and is_cpu_build():
            await self._while_paused("releasing memory", "release_memory")

    async def _listen(self, weights: Path) -> None:
        """Return if the canary's log-probs are those that came with the weights, or none came. Raises ModelError."""
        wanted = canary.expected(weights)
        if wanted is None:
            return
        found = {kind: await score(self.endpoint, canary.prompts()[kind], canary.REPLY) for kind in wanted}
        gap = canary.gap(found, wanted)
        if gap > canary.TOLERANCE:
            self.note(State.POISONED)
            raise ModelError(
                f"{weights}: the canary's log-probs are off by {gap:.3f} nats, expected {canary.TOLERANCE} at most"
            )
        logger.info("%s: the canary's log-probs are off by %.4f nats", weights, gap)

    async def _swap(self, weights: Path) -> None:
        await self._while_paused(f"publishing {weights}", "load_weights_from", str(weights))

    async def _while_paused(self, doing: str, method: str, *args: str) -> None:
        """Call a method of policy/reload.py while nothing is answered; what was cached is gone. Raises ModelError."""
        async with httpx.AsyncClient(base_url=self.base_url, timeout=self.settings.timeout_s) as client:
            try:
                await _post(client, "/pause", params={"mode": "wait"})
                crash_point("publish:paused")
                await _post(client, "/collective_rpc", body={"method": method, "args": args})
                crash_point("publish:loaded")
                await _post(client, "/resume")
            except httpx.HTTPError as error:
                raise ModelError(f"{doing} at {self.base_url}: {error!r}") from error

    async def _until_healthy(self) -> None:
        deadline = time.monotonic() + self.settings.start_deadline_s
        async with httpx.AsyncClient(base_url=self.base_url, timeout=5.0) as client:
            while True:
                if self._process is not None and not is_alive(self._process):
                    raise ModelError(f"vLLM ended at start with code {self._process.wait()}; see {self.log}")
                try:
                    if (await client.get("/health")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                if time.monotonic() > deadline:
                    raise ModelError(f"{self.base_url}: not healthy within {self.settings.start_deadline_s:.0f} s")
                await asyncio.sleep(POLL_S)

    async def _unpause(self) -> None:
        async with httpx.AsyncClient(base_url=self.base_url, timeout=self.settings.timeout_s) as client:
            try:
                await _post(client, "/resume")
            except httpx.HTTPError as error:
                raise ModelError(f"{self.base_url}: expected vLLM with VLLM_SERVER_DEV_MODE=1: {error!r}") from error

    async def _warm_up(self) -> None:
        """The first answers compile kernels and take seconds: let them be nobody's."""
        generate = open_endpoint(self.endpoint)
        prompt = Prompt("Warm-up.", ("Say yes. " * 50,))
        await asyncio.gather(*(generate(prompt, Sampling(temperature=1.0, max_tokens=4)) for _ in range(4)))


async def _post(
    client: httpx.AsyncClient, path: str, *, params: dict[str, str] | None = None, body: object = None
) -> None:
    response = await client.post(path, params=params, json=body)
    response.raise_for_status()


def _loopback(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _free_port() -> int:
    """A port that is free, and likely to be so still when vLLM listens there, ten seconds later.

    One that the system itself picks isn't: it may pick it again for anybody's connection in the meantime.
    """
    for port in random.SystemRandom().sample(UNASSIGNED_PORTS, len(UNASSIGNED_PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise ModelError(f"no free port from {UNASSIGNED_PORTS[0]} to {UNASSIGNED_PORTS[-1]} for vLLM")
