"""A model server on loopback that answers as told: the whole program runs against it, over real HTTP."""

import itertools
import json
import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import evaluator.judge
import policy.prompt
import proposer.propose

ROLES = {policy.prompt.SYSTEM: "policy", evaluator.judge.SYSTEM: "judge", proposer.propose.SYSTEM: "proposer"}
START_DEADLINE_S = 10.0

Script = Callable[[str, str, int], str | None]
"""(role, the prompt's text, number of the call) -> reply; None: the server is out."""


class FakeModelServer:
    """Speaks as much of vLLM's HTTP interface as the program uses; a context manager."""

    def __init__(self, script: Script) -> None:
        self.calls: list[str] = []
        self.published: list[str] = []
        """Directories of the weights it was told to load, in order."""
        self._script = script
        self._count = itertools.count()
        routes = [
            Route("/health", self._ok),
            Route("/v1/models", self._ok),
            Route("/pause", self._ok, methods=["POST"]),
            Route("/resume", self._ok, methods=["POST"]),
            Route("/collective_rpc", self._load, methods=["POST"]),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=0, log_level="warning", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "FakeModelServer":
        self._thread.start()
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._server.started:
            assert time.monotonic() < deadline, "the fake model server did not start"
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(START_DEADLINE_S)

    async def _ok(self, request: Request) -> Response:
        return JSONResponse({})

    async def _load(self, request: Request) -> Response:
        self.published.append((await request.json())["args"][0])
        return JSONResponse({"results": [None]})

    async def _complete(self, request: Request) -> Response:
        messages = (await request.json())["messages"]
        text = " ".join(part.get("text", "") for part in messages[-1]["content"])
        role = ROLES.get(messages[0]["content"], "other")
        self.calls.append(role)
        reply = self._script(role, text, next(self._count))
        if reply is None:
            return JSONResponse({"error": {"message": "out"}}, status_code=400)
        choice = {"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
        return JSONResponse({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})


def quick_answers(role: str, text: str, call: int) -> str | None:
    """Tasks that differ, an agent that answers at once, a judge that is content."""
    if role == "proposer":
        return json.dumps({"tasks": [f"Find product number {call} in the shop."]})
    if role == "judge":
        return "Reason: it answered.\nVerdict: success"
    return "Thought: I know it.\nAction: Answer; blue"
