"""A scripted model behind a server on loopback: the whole program runs against it, over real HTTP, without a GPU.

It speaks as much of vLLM's HTTP interface as the program uses. What it answers is a script's business: the tests bring
their own, and `Wanderer` answers every role by a hash of what it is asked, so that two runs of one config are the same.
"""

import asyncio
import base64
import hashlib
import io
import itertools
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import evaluator.judge
import evaluator.rubric
import policy.prompt
import proposer.propose
from policy import canary

ROLES = {
    policy.prompt.SYSTEM: "policy",
    evaluator.judge.SYSTEM: "judge",
    evaluator.rubric.CHECK: "judge",
    evaluator.rubric.WRITE: "rubric",
    proposer.propose.SYSTEM: "proposer",
}
START_DEADLINE_S = 10.0
STARTER = Path(__file__).resolve().parent.parent / "starter" / "policy"
CONFIG = Path(__file__).resolve().parent / "scripted.toml"
"""A tiny run; `ScriptedServer.settings` makes it a run against that server."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request for a reply."""

    role: str
    """``policy``, ``judge``, ``rubric`` (the judge, before any attempt), ``proposer``, or ``other`` (warm-up)."""
    text: str
    """The prompt's text."""
    number: int
    """How many requests the server had before this one."""
    seed: int | None = None
    """The sampling seed; None if none was sent."""
    schema: dict[str, Any] | None = None
    """The JSON schema that the reply is to follow; None if none was sent."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What the server does in place of a completion."""

    status: int = 200
    """HTTP status of an answer that holds no completion."""
    delay_s: float = 0.0
    aborts: bool = False
    """Whether the connection is closed in the middle of the answer."""


OUT = Fault(status=404)
"""An error that clients don't ask again after."""
Reply = Fault | str | None
"""None: the server is out."""
Script = Callable[[Call], Reply | Awaitable[Reply]]
"""A request -> its reply; others are answered while one is awaited."""
Tokenise = Callable[[Sequence[dict[str, Any]], str], tuple[list[int], list[int]]]
"""Chat messages and the reply to them -> prompt ids, image tokens expanded, and reply ids, end of turn included."""


class ScriptedServer:
    """The server; a context manager. Without `tokenise` it tells no token ids, so nothing can be learned from it."""

    def __init__(self, script: Script, tokenise: Tokenise | None = None, port: int = 0) -> None:
        """Answer as `script` says, from entry on, at that port of 127.0.0.1; 0: any free one."""
        self.calls: list[str] = []
        """Roles asked, in order."""
        self.published: list[str] = []
        """Directories of the weights it was told to load, in order."""
        self.is_paused = False
        self.refuses = False
        """Whether it fails to load weights."""
        self._script = script
        self._tokenise = tokenise
        self._count = itertools.count()
        routes = [
            Route("/health", self._ok),
            Route("/v1/models", self._ok),
            Route("/pause", self._pause, methods=["POST"]),
            Route("/resume", self._resume, methods=["POST"]),
            Route("/collective_rpc", self._load, methods=["POST"]),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=port, log_level="critical", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "ScriptedServer":
        """Start listening."""
        self._thread.start()
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._server.started:
            assert time.monotonic() < deadline, "the scripted model server did not start"
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.close()
        self._thread.join(START_DEADLINE_S)

    def close(self) -> None:
        """Begin to stop listening, also from within a script; what is being answered will be."""
        self._server.should_exit = True

    def settings(self, directory: Path) -> list[str]:
        """Overrides of `CONFIG` for a run in ``<directory>/runs`` that begins with ``<directory>/starter``."""
        return [
            f"run.runs_dir={directory}/runs",
            f"model.starter={directory}/starter",
            f'serving.base_urls=["{self.url}"]',
            f"endpoints.judge.base_url={self.url}/v1",
            f"endpoints.proposer.base_url={self.url}/v1",
        ]

    async def _ok(self, request: Request) -> Response:
        return JSONResponse({})

    async def _pause(self, request: Request) -> Response:
        self.is_paused = True
        return JSONResponse({})

    async def _resume(self, request: Request) -> Response:
        self.is_paused = False
        return JSONResponse({})

    async def _load(self, request: Request) -> Response:
        if self.refuses:
            return Response("no weights", status_code=500)
        self.published.append((await request.json())["args"][0])
        return JSONResponse({"results": [None]})

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        messages = body["messages"]
        if messages[-1]["role"] == "assistant":
            return self._sing(messages)
        text = " ".join(part.get("text", "") for part in messages[-1]["content"])
        role = ROLES.get(messages[0]["content"], "other")
        self.calls.append(role)
        if self.is_paused:  # a real one would keep the request waiting, and whoever asks would time out
            return await _fail(OUT)
        wanted = (body.get("response_format") or {}).get("json_schema") or {}
        reply = self._script(Call(role, text, next(self._count), body.get("seed"), wanted.get("schema")))
        if isinstance(reply, Awaitable):
            reply = await reply
        if reply is None:
            reply = OUT
        if isinstance(reply, Fault):
            return await _fail(reply)
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": reply},
            "finish_reason": "stop",
        }
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        counted = {"prompt_tokens": len(text.split()), "completion_tokens": len(reply.split())}
        completion["usage"] = counted | {"total_tokens": sum(counted.values())}
        if self._tokenise and body.get("return_token_ids"):
            completion["prompt_token_ids"], choice["token_ids"] = self._tokenise(messages, reply)
            told = [{"token": "", "logprob": -1.0, "top_logprobs": []} for _ in choice["token_ids"]]
            choice["logprobs"] = {"content": told}
        return JSONResponse(completion)

    def _sing(self, messages: Sequence[dict[str, Any]]) -> Response:
        """The canary's log-probs (policy/canary.py) as they came with the weights that it was told to load."""
        assert self._tokenise is not None, "weights come from what was learned, and that from tokens told"
        has_picture = any(part["type"] == "image_url" for part in messages[-2]["content"])
        song = (canary.expected(Path(self.published[-1])) or {})["image" if has_picture else "text"]
        num_before = len(self._tokenise(messages[:-1], "")[0])
        told = [None] * num_before + [{"0": {"logprob": logprob}} for logprob in song]
        choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return JSONResponse(completion | {"prompt_logprobs": told})


async def _fail(fault: Fault) -> Response:
    await asyncio.sleep(fault.delay_s)
    headers = {"Content-Length": "1000"} if fault.aborts else None  # the server closes on a body that is too short
    return Response("no completion", status_code=fault.status, headers=headers)


def quick_answers(call: Call) -> str | None:
    """Tasks that differ, an agent that answers at once, a judge that is content."""
    if call.role == "proposer":
        return json.dumps({"tasks": [f"Find product number {call.number} in the shop."]})
    if call.role == "judge":
        return "Reason: it answered.\nVerdict: success"
    return "Thought: I know it.\nAction: Answer; blue"


def wander(call: Call) -> str | None:
    """Every role by a hash of what it is asked: the agent clicks, answers or errs, the judge is of three minds."""
    digest = hashlib.sha256(f"{call.role}\x1f{call.text}\x1f{call.seed}".encode()).digest()
    if call.role == "proposer":
        return json.dumps({"tasks": [f"Find thing number {int.from_bytes(digest[:4])} on this website."]})
    if call.role == "judge":
        return f"Reason: so it seems.\nVerdict: {('success', 'success', 'failure', 'undecided')[digest[0] % 4]}"
    marks = re.findall(r"\[(\d+)\]", call.text)
    if digest[0] % 16 == 0:
        return "I had rather not say."
    if digest[0] % 3 == 0 or not marks:
        return f"Thought: It says so.\nAction: Answer; {digest[1]}"
    return f"Thought: Let me see.\nAction: Click [{marks[digest[1] % len(marks)]}]"


class StarterTokens:
    """`Tokenise` with the starter's own tokenizer and picture processor, and so with its chat template."""

    def __init__(self, folder: Path = STARTER) -> None:
        """Read the processor's files in a Hugging Face directory."""
        from transformers import AutoProcessor  # takes seconds, and most who script a server tell no tokens

        self._processor: Any = AutoProcessor.from_pretrained(folder)

    def __call__(self, messages: Sequence[dict[str, Any]], reply: str) -> tuple[list[int], list[int]]:
        """Prompt ids and reply ids."""
        parts = [part for message in messages for part in message["content"] if isinstance(part, dict)]
        pictures = [_picture(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        chat = [{"role": message["role"], "content": _template_parts(message["content"])} for message in messages]
        text = self._processor.apply_chat_template(chat, add_generation_prompt=True)
        prompt_ids = self._processor(text=text, images=pictures or None).input_ids[0]
        reply_ids = self._processor.tokenizer(f"{reply}<|im_end|>", add_special_tokens=False).input_ids
        return list(prompt_ids), list(reply_ids)


def _template_parts(content: str | Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part if part["type"] == "text" else {"type": "image"} for part in content]


def _picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


LARGE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 64,
}
"""The language model of SmolVLM-Instruct (2.2 billion parameters with its vision tower), by its config.json."""


def write_tiny_model(folder: Path, seed: int = 0) -> None:
    """A model of the starter's architecture with random weights and two narrow layers, a few MB: learns in a second."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    write_random_model(folder, sizes | {"num_key_value_heads": 1, "head_dim": 16}, seed)


def write_tiny_starter(directory: Path, seed: int = 0) -> None:
    """A starter in ``directory/starter``, where `ScriptedServer.settings` says it is; its policy is the tiny model."""
    write_tiny_model(directory / "starter" / "policy", seed)
    (directory / "starter" / "STARTER.json").write_text("{}")


def write_random_model(folder: Path, sizes: Mapping[str, int], seed: int = 0) -> None:
    """A model of the starter's architecture with random weights: its language model of these sizes, its tower tiny."""
    import torch
    from transformers import AutoConfig, AutoProcessor, Idefics3ForConditionalGeneration

    config = AutoConfig.from_pretrained(STARTER)
    for name, value in sizes.items():
        setattr(config.text_config, name, value)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    for name, value in tower.items():
        setattr(config.vision_config, name, value)
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # which draws two billion numbers in no time
        network: Any = Idefics3ForConditionalGeneration(config)
    network.to(torch.bfloat16).save_pretrained(folder)
    AutoProcessor.from_pretrained(STARTER).save_pretrained(folder)
