"""Gate: a forward proxy on loopback that lets one episode's browser reach its allowed hosts and nothing else.

It stands below the page: redirects, frames, sockets, workers and name look-ups all end here, whatever a script tries.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from proposer.task import is_loopback, split_host

logger = logging.getLogger(__name__)

_CONNECT_DEADLINE_S = 10.0
_HEAD_DEADLINE_S = 30.0
_CHUNK = 64 * 1024
_WEB_PORTS = {80, 443}
_MAX_REFUSED = 100
_MAX_REFUSED_CHARS = 300
_HOP_HEADERS = (b"connection:", b"proxy-connection:", b"proxy-authorization:", b"keep-alive:")


@dataclass(frozen=True, slots=True)
class AllowList:
    """The addresses that an episode may reach: its start address, and the hosts named besides."""

    start_host: str
    start_port: int
    hosts: tuple[tuple[str, int | None], ...]
    """``example.com`` or ``*.example.com`` (subdomains), and the port; None: 80 and 443."""

    @classmethod
    def of(cls, start_url: str, hosts: Sequence[str]) -> "AllowList":
        """The list for a start address. Raises ValueError if that is not http or https, or a host isn't one."""
        parts = urlsplit(start_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"start address {start_url!r}: expected http:// or https://")
        return cls(parts.hostname, _port_of(parts), tuple(map(split_host, hosts)))

    @property
    def is_practice(self) -> bool:
        """Whether this machine serves the website itself."""
        return is_loopback(self.start_host)

    def allows(self, host: str, port: int) -> bool:
        """Whether a connection to that host and port may be made; on loopback every port is an address of its own."""
        host = host.lower()
        if host == self.start_host and (port == self.start_port or (port in _WEB_PORTS and not is_loopback(host))):
            return True
        return any(_matches(name, wanted_port, host, port) for name, wanted_port in self.hosts)


def _matches(name: str, wanted_port: int | None, host: str, port: int) -> bool:
    port_fits = port in _WEB_PORTS if wanted_port is None else port == wanted_port
    return port_fits and (host.endswith(name[1:]) if name.startswith("*.") else host == name)


def _port_of(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


class Gate:
    """A running proxy for one episode."""

    def __init__(self, allowed: AllowList, max_bytes: float) -> None:
        """Use `open`."""
        self.allowed = allowed
        self.refused: list[str] = []
        """``host:port`` of each refused address, and what else was noted: each once, cut, the first hundred."""
        self._left = max_bytes
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, allowed: AllowList, max_bytes: float = math.inf) -> "Gate":
        """A gate that listens on a free port of loopback; servers may send `max_bytes` through it in all."""
        gate = cls(allowed, max_bytes)
        gate._server = await asyncio.start_server(gate._accept, "127.0.0.1", 0, limit=_CHUNK)
        return gate

    @property
    def address(self) -> str:
        """What the browser is given as its proxy."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def refuses(self, url: str) -> bool:
        """Whether an address lies outside the allow-list."""
        parts = urlsplit(url)
        return parts.hostname is None or not self.allowed.allows(parts.hostname, _port_of(parts))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the browser; a refusal is a connection that closes without an answer."""
        try:
            async with asyncio.timeout(_HEAD_DEADLINE_S):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            tunnel = method == "CONNECT"
            parts = urlsplit(f"//{target}" if tunnel else target)
            if not parts.hostname or parts.scheme not in ("", "http"):
                return
            port = parts.port or 80
            if not self.allowed.allows(parts.hostname, port):
                self.note_refused(f"{parts.hostname}:{port}")
                return
            await self._forward(reader, writer, parts.hostname, port, b"" if tunnel else _forwarded(head, parts))
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            logger.debug("connection dropped: %s", error)
        finally:
            writer.close()

    def note_refused(self, address: str) -> None:
        """Note an address that a page tried to reach in vain."""
        address = address[:_MAX_REFUSED_CHARS]
        if address not in self.refused and len(self.refused) < _MAX_REFUSED:
            logger.info("refused %s", address)
            self.refused.append(address)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, head: bytes
    ) -> None:
        """Relay between browser and server until the server has finished; no head: a tunnel."""
        address = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
        async with asyncio.timeout(_CONNECT_DEADLINE_S):
            server_reader, server_writer = await asyncio.open_connection(address, port, limit=_CHUNK)
        try:
            if head:
                server_writer.write(head)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            upwards = asyncio.ensure_future(_relay(reader, server_writer))
            try:
                await _relay(server_reader, writer, self._take)
            finally:
                upwards.cancel()
        finally:
            server_writer.close()

    def _take(self, num_bytes: int) -> bool:
        """Whether the episode may have these bytes of a server's as well."""
        if self._left < num_bytes:
            self.note_refused("more than the episode may receive")
        self._left -= num_bytes
        return self._left >= 0


def _forwarded(head: bytes, parts: SplitResult) -> bytes:
    """A request head as the server is to see it: its own path, and one request per connection."""
    first, *headers = head.rstrip(b"\r\n").split(b"\r\n")
    method, _, version = first.split(b" ")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = [line for line in headers if not line.lower().startswith(_HOP_HEADERS)]
    return b"\r\n".join([b" ".join((method, path.encode("latin-1"), version)), *kept, b"Connection: close", b"", b""])


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may_pass: Callable[[int], bool] = lambda _: True
) -> None:
    with suppress(ConnectionError):
        while (data := await reader.read(_CHUNK)) and may_pass(len(data)):
            writer.write(data)
            await writer.drain()
