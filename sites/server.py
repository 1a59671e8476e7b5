"""Serves practice worlds on loopback: one HTTP server per process, one host name per episode.

``http://<episode>.<site>.localhost:<port>/`` gives every episode its own origin (cookies, storage, links starting
with ``/``). Chromium resolves ``*.localhost`` to loopback itself; other clients send the Host header.
"""

import http.client
import secrets
import socket
import threading
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sites.catalogue import SITES
from sites.contract import World, open_world
from sites.pages import not_found
from sites.pictures import PICTURES_DIR, STATIC_DIR, make_pictures

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 2  # what requests still running at the end are given to finish


@dataclass(frozen=True, slots=True)
class Visit:
    """An open episode: where the browser starts, and the state behind it."""

    key: str
    url: str
    world: World

    @property
    def host(self) -> str:
        """The host name that belongs to this episode alone."""
        return f"{self.key}.{self.world.site.name}.localhost"


class _Worlds:
    """ASGI middleware: finds the episode's world from the host name; an unknown host is 404."""

    def __init__(self, app: ASGIApp, visits: dict[str, Visit]) -> None:
        self.app = app
        self.visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        visit = self.visits.get(host.partition(".")[0])
        if visit is None or host.partition(":")[0] != visit.host:
            return await PlainTextResponse("no such world", 404)(scope, receive, send)
        scope.setdefault("state", {})["world"] = visit.world

        async def send_and_note(message: Message) -> None:
            if scope["method"] == "GET" and _starts_page(message):
                visit.world.state["location"] = normal_location(scope["path"], scope["query_string"].decode())
            await send(message)

        await self.app(scope, receive, send_and_note)


def _starts_page(message: Message) -> bool:
    if message["type"] != "http.response.start" or message["status"] != 200:
        return False
    return dict(message["headers"]).get(b"content-type", b"").startswith(b"text/html")


def normal_location(path: str, query: str) -> str:
    """Path and query as kept in the state: parameters sorted, empty ones dropped."""
    pairs = sorted((key, value) for key, value in parse_qsl(query) if value)
    return f"{path}?{urlencode(pairs)}" if pairs else path


class PracticeServer:
    """A running server of practice worlds; a context manager. Worlds live as long as their visit is open."""

    def __init__(self, port: int = 0) -> None:
        """Listen on 127.0.0.1:port (0: any free one) and answer. Raises OSError if the port is taken."""
        self._visits: dict[str, Visit] = {}
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        make_pictures()
        static = [
            Mount("/static/pictures", StaticFiles(directory=PICTURES_DIR)),
            Mount("/static", StaticFiles(directory=STATIC_DIR)),
        ]
        hosts = [Host(f"{{episode}}.{name}.localhost", Router([*static, *site.routes])) for name, site in SITES.items()]
        app = Starlette(
            routes=hosts,
            middleware=[Middleware(_Worlds, visits=self._visits)],
            exception_handlers={404: not_found},
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=STOP_DEADLINE_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_DEADLINE_S)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            self.close()
            raise
        finally:
            connection.close()

    def open(self, site: str, world: str, key: str | None = None) -> Visit:
        """Open a fresh world for one episode. Raises ValueError for an unknown site or a malformed world name."""
        if site not in SITES:
            raise ValueError(f"practice site {site!r}: expected one of {sorted(SITES)}")
        key = key or secrets.token_hex(6)
        visit = Visit(key, f"http://{key}.{site}.localhost:{self.port}/", open_world(SITES[site], world))
        self._visits[key] = visit
        return visit

    def close_visit(self, visit: Visit) -> None:
        """Forget an episode's world; its address answers 404 from then on."""
        self._visits.pop(visit.key, None)

    def close(self) -> None:
        """Stop listening and end the server's thread."""
        self._server.should_exit = True
        self._thread.join(START_DEADLINE_S)
        self._socket.close()

    def __enter__(self) -> "PracticeServer":
        """The server, already answering."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
