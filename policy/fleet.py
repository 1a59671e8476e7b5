"""The policy's model servers: replicas of each other. Any may answer, and none with other weights than asked for.

A replica that fails is left out while others remain: requests go to those, and it comes back only when it has loaded
the current weights and the canary sang. The last one is never left out for giving no answer: there the run waits for
it, or fails. With one server, all this is that server.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType

from policy.endpoint import open_endpoint
from policy.server import ModelServer
from policy.server_record import State
from policy.server_settings import ServerSettings
from proposer.generate import Generate, ModelError, Prompt, PromptRefused, Response, Sampling

logger = logging.getLogger(__name__)


class Fleet:
    """The replicas of one served model: an async context manager. `publish` swaps their weights while they run."""

    def __init__(
        self, settings: ServerSettings, model: Path, log: Path, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """Note the settings; the servers start on entry.

        Args:
            settings: How many servers, or where they are, and how each serves.
            model: Hugging Face directory served first.
            log: vLLM's own words; of several servers each has its own, ``policy-0.log`` where this is ``policy.log``.
            tell: Called with a line when a replica is left out or comes back.
        """
        urls = settings.base_urls or (None,) * settings.replicas
        several = len(urls) > 1
        starting = asyncio.Lock()  # two vLLM that compile at once on one CPU hang
        self._first = model
        self.model = None if settings.base_urls else model
        """Directory of the weights served now; None: nobody knows, of servers given by address, before a `publish`."""
        self.version: int | None = None
        """Policy version served now; None until the first `publish` of one, and for weights that have no versions."""
        self.servers = [
            ModelServer(
                settings,
                model,
                log.with_stem(f"{log.stem}-{i}") if several else log,
                base_url=url,
                replica=i if several else None,
                starting=starting,
            )
            for i, url in enumerate(urls)
        ]
        self._tell = tell
        self._ready = list(self.servers)
        """Those that are asked, the one whose turn is next first; the others are left out."""
        self._num_busy = Counter[ModelServer]()
        """Episodes or requests under way."""
        self._returning: dict[ModelServer, asyncio.Task[None]] = {}
        """Attempts at bringing back a server that was left out, the newest of each."""

    async def __aenter__(self) -> "Fleet":
        """Start the servers, one after another. Raises ModelError if one does not start."""
        try:
            for server in self.servers:
                await server.__aenter__()
        except BaseException:  # also cancelled: those that have started must not stay behind
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the servers that were started here."""
        for task in self._returning.values():
            task.cancel()
        await asyncio.gather(*self._returning.values(), return_exceptions=True)
        await self._stop()

    async def _stop(self) -> None:
        """Side by side: a server may take its whole deadline to end, and schedulers don't wait for several."""
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self.servers))

    @contextlib.contextmanager
    def least_busy(self) -> Iterator[ModelServer]:
        """The server to ask while the context lasts: the least busy one, of equally busy ones the next in turn.

        Raises:
            ModelError: the last `publish` failed at every server.
        """
        if not self._ready:
            raise ModelError("no model server has loaded the weights that it was to serve")
        server = min(self._ready, key=self._num_busy.__getitem__)
        self._ready.remove(server)
        self._ready.append(server)
        self._num_busy[server] += 1
        try:
            yield server
        finally:
            self._num_busy[server] -= 1

    def generate(self) -> Generate:
        """A `Generate` stamped with the version served now, each request to the least busy server.

        If that server has died, it asks again: another one, or the same once it is back.
        """
        endpoints = {server: open_endpoint(server.endpoint, weights=self.version) for server in self.servers}

        async def generate(prompt: Prompt, sampling: Sampling) -> Response:
            with self.least_busy() as server:
                num_starts = server.num_starts
                try:
                    return await endpoints[server](prompt, sampling)
                except PromptRefused:
                    raise  # by a server that is well, and any other would refuse it too
                except ModelError:
                    if not await self.revive(server, num_starts):
                        raise
            with self.least_busy() as server:
                return await endpoints[server](prompt, sampling)

        return generate

    async def publish(self, version: int | None, weights: Path) -> None:
        """Have all servers load other weights, side by side; nothing may be asked meanwhile. `version`: see `version`.

        A server that can't be made to serve them is left out; one that had been left out comes back if it can.

        Raises:
            ModelError: no server can be made to serve them.
        """
        await asyncio.gather(*self._returning.values())  # or one might come back with the weights of before
        errors = await asyncio.gather(*(_error_of(server.publish(version, weights)) for server in self.servers))
        if all(errors):
            self._ready.clear()
            raise ModelError("; ".join(map(str, errors)))
        self.model, self.version = weights, version
        for server, error in zip(self.servers, errors, strict=True):
            if error is None:
                self._take_in(server)
            else:
                self._leave_out(server, str(error))

    async def rest(self) -> None:
        """Have idle servers give back what memory they can; one that doesn't answer is found out when it is asked."""
        ready = list(self._ready)
        errors = await asyncio.gather(*(_error_of(server.rest()) for server in ready))
        for server, error in zip(ready, errors, strict=True):
            if error is not None:
                logger.warning("%s keeps its memory: %s", server.base_url, error)

    async def revive(self, server: ModelServer, num_starts: int) -> bool:
        """Whether to ask again after a server gave no answer: another one is there, or it was started again.

        While others remain it is left out, and looked after meanwhile. `num_starts` is what it was when asked: a
        server that was started again since then has nothing wrong with it.

        Raises:
            ModelError: it was the last one, and it has died more often than `max_restarts` allows or does not start.
        """
        if self._ready == [server]:
            await self._bring_back_others()
        if self._ready == [server]:
            return await server.revive(num_starts)
        if server in self._ready and server.num_starts == num_starts:
            self._leave_out(server, "gave no answer")
            self._begin_return(server)
        return True

    async def _bring_back_others(self) -> None:
        left_out = [server for server in self.servers if server not in self._ready]
        await asyncio.gather(*(self._begin_return(server) for server in left_out))

    def _begin_return(self, server: ModelServer) -> asyncio.Task[None]:
        """The attempt under way at bringing it back, or a new one."""
        task = self._returning.get(server)
        if task is None or task.done():
            task = self._returning[server] = asyncio.create_task(self._bring_back(server))
        return task

    async def _bring_back(self, server: ModelServer) -> None:
        """Start it again if it has died; loading the weights anew, canary included, shows that it serves them."""
        try:
            await server.revive(server.num_starts)
            await server.publish(self.version, self.model or self._first)
        except ModelError as error:
            server.note(State.POISONED)
            logger.warning("%s stays left out: %s", server.base_url, error)
        else:
            self._take_in(server)

    def _leave_out(self, server: ModelServer, why: str) -> None:
        server.note(State.POISONED)
        if server in self._ready:
            self._ready.remove(server)
            logger.warning("%s is left out: %s", server.base_url, why)
            self._tell(f"{server.base_url} is left out: {why}")

    def _take_in(self, server: ModelServer) -> None:
        if server not in self._ready:
            self._ready.append(server)
            logger.info("%s is asked again", server.base_url)
            self._tell(f"{server.base_url} is asked again")


async def _error_of(doing: Awaitable[None]) -> ModelError | None:
    """Why a server couldn't do it; None: it did."""
    try:
        await doing
    except ModelError as error:
        return error
    return None
