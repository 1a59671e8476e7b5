"""A website of a few pages for browser tests and benches: real HTTP on loopback, a page per path, any status."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answers for a path."""

    body: str | bytes = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class SmallSite:
    """A running website; a context manager. `paths` records what was asked for, `heads` with which headers."""

    def __init__(self) -> None:
        """Listen on a free port of loopback."""
        self.replies: dict[str, Reply | Callable[[str], Reply]] = {}
        self.paths: list[str] = []
        self.heads: list[Message] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.paths.append(self.path)
                site.heads.append(self.headers)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                reply = site.replies.get(self.path.partition("?")[0], Reply("no such page", 404))
                self._send(reply(self.path) if callable(reply) else reply)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

            def _send(self, reply: Reply) -> None:
                body = reply.body.encode() if isinstance(reply.body, str) else reply.body
                self.send_response(reply.status)
                headers = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body))}
                for name, value in (headers | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A browser that closes its connection early is nothing to tell."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def serve(self, html: str, path: str = "/", host: str = "test.localhost") -> str:
        """The address of a page with that content."""
        self.replies[path] = Reply(html)
        return self.url(path, host)

    def url(self, path: str = "/", host: str = "test.localhost") -> str:
        """The address of a path."""
        return f"http://{host}:{self.port}{path}"

    def __enter__(self) -> "SmallSite":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
