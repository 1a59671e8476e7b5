"""A model behind an OpenAI-compatible HTTP endpoint, as a `Generate`."""

import base64
import json
import os
from functools import lru_cache
from typing import Any, Self

from openai import AsyncOpenAI, BadRequestError, OpenAIError
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from pydantic import BaseModel, ConfigDict, Field, model_validator

from policy.marks import scaled
from policy.server_settings import check_address
from proposer.generate import Generate, ModelError, Prompt, PromptRefused, Response, Sampling, Usage


class EndpointSettings(BaseModel):
    """Where a model answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_url: str
    """Address of the API, ``http://127.0.0.1:8000/v1``."""
    model: str
    """Name of the model there."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None: no key."""
    image_px: int | None = Field(default=None, ge=16)
    """Longest side (pixels) to which pictures are scaled before sending; None: sent as they are."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds for one answer."""
    max_retries: int = Field(default=3, ge=0)
    """Further tries when the endpoint is unreachable or overloaded, with growing pauses between."""
    send_seed: bool = True
    """Pass sampling seeds on. vLLM's CPU backend (0.32.0) dies of them: it sets back a generator's offset, which torch
    hasn't got on CPU."""
    send_schema: bool = True
    """Pass on the JSON schema that a reply is to follow, where there is one (OpenAI's ``response_format``, which vLLM
    knows too). Without it a reply of another form is only asked for again."""
    exact_tokens: bool = False
    """Ask for token ids and log-probs (vLLM): needed where the answers are trained on."""

    @model_validator(mode="after")
    def _keeps_no_secret(self) -> Self:
        check_address(self.base_url, "base_url")
        return self


def open_endpoint(settings: EndpointSettings, *, weights: int | None = None) -> Generate:
    """A `Generate` that asks the endpoint and stamps its responses with the weights version.

    Raises:
        ModelError: at once, if the named API key isn't in the environment; from the returned callable, if the
            endpoint doesn't answer; as PromptRefused, if it answers that it won't take the prompt (HTTP 400).
    """
    client = _client(settings)

    async def generate(prompt: Prompt, sampling: Sampling) -> Response:
        return _response(await _complete(client, settings, _request(settings, prompt, sampling, weights)), weights)

    return generate


def _client(settings: EndpointSettings) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=settings.base_url,
        api_key=_api_key(settings.api_key_env),
        timeout=settings.timeout_s,
        max_retries=settings.max_retries,
        # No connection outlives its request: a `Generate` is a plain callable that nobody closes, and a server that was
        # restarted would be met with dead connections.
        default_headers={"Connection": "close"},
    )


async def score(settings: EndpointSettings, prompt: Prompt, reply: str) -> list[float]:
    """Log-probs (nats, at temperature 1) of a given reply's tokens, the end of turn left out; vLLM only.

    Raises:
        ModelError: the endpoint doesn't answer, or doesn't tell.
    """
    client, given = _client(settings), _messages(prompt, settings.image_px)
    whole = [*given, {"role": "assistant", "content": reply}]
    asked = {"prompt_logprobs": 0, "add_generation_prompt": False, "continue_final_message": True}
    request: dict[str, Any] = {"model": settings.model, "max_tokens": 1}
    told = await _complete(client, settings, request | {"messages": whole, "extra_body": asked})
    before = await _complete(client, settings, request | {"messages": given, "extra_body": {"return_token_ids": True}})
    logprobs, num_before = told.get("prompt_logprobs"), len(before.get("prompt_token_ids") or ())
    if not logprobs or not num_before:
        raise ModelError(f"{settings.model} at {settings.base_url}: tells no log-probs of prompts")
    return [next(iter(token.values()))["logprob"] for token in logprobs[num_before:]]


async def _complete(client: AsyncOpenAI, settings: EndpointSettings, request: dict[str, Any]) -> dict[str, Any]:
    """The endpoint's answer as JSON. Raises ModelError."""
    try:
        completion = await client.chat.completions.create(**request)
    except BadRequestError as error:
        raise PromptRefused(f"{settings.model} at {settings.base_url}: {error}") from error
    except OpenAIError as error:
        raise ModelError(f"{settings.model} at {settings.base_url}: {error}") from error
    if not isinstance(completion, ChatCompletion):  # what isn't JSON comes as text
        raise ModelError(f"{settings.model} at {settings.base_url}: the answer is no chat completion")
    return completion.model_dump()


def _api_key(variable: str | None) -> str:
    if variable is None:
        return "none"
    if not os.environ.get(variable):
        raise ModelError(f"environment variable {variable}: expected an API key, found nothing")
    return os.environ[variable]


def _request(settings: EndpointSettings, prompt: Prompt, sampling: Sampling, weights: int | None) -> dict[str, Any]:
    request: dict[str, Any] = {
        "model": settings.model,
        "messages": _messages(prompt, settings.image_px),
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.seed is not None and settings.send_seed:
        request["seed"] = sampling.seed
    if sampling.schema is not None and settings.send_schema:
        wanted = {"name": "reply", "schema": json.loads(sampling.schema)}
        request["response_format"] = {"type": "json_schema", "json_schema": wanted}
    if settings.exact_tokens:
        # The salt keeps cached prefixes of one version from serving another. A model's generation_config.json may ask
        # for penalties and limits, which the learner doesn't know.
        extra = {"return_token_ids": True, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
        request |= {"presence_penalty": 0.0, "frequency_penalty": 0.0, "top_p": 1.0, "logprobs": True}
        request["extra_body"] = extra | {"cache_salt": f"v{weights}"}
    return request


def _messages(prompt: Prompt, image_px: int | None) -> list[ChatCompletionMessageParam]:
    parts: list[Any] = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_url(part, image_px)}}
        for part in prompt.parts
    ]
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": parts}]


@lru_cache(maxsize=256)
def _data_url(picture: bytes, image_px: int | None) -> str:
    data = picture if image_px is None else scaled(picture, image_px)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _response(completion: dict[str, Any], weights: int | None) -> Response:
    choices = completion.get("choices") or []
    if not choices or choices[0].get("message") is None:
        raise ModelError("the endpoint's answer holds no message")
    choice = choices[0]
    logprobs = (choice.get("logprobs") or {}).get("content") or []
    return Response(
        text=choice["message"].get("content") or "",
        weights=weights,
        prompt_ids=tuple(completion.get("prompt_token_ids") or ()),
        token_ids=tuple(choice.get("token_ids") or ()),
        logprobs=tuple(token["logprob"] for token in logprobs),
        finish_reason=choice.get("finish_reason") or "stop",
        usage=_usage(completion.get("usage") or {}),
    )


def _usage(told: dict[str, Any]) -> Usage | None:
    prompt_tokens, reply_tokens = told.get("prompt_tokens"), told.get("completion_tokens")
    return None if prompt_tokens is None or reply_tokens is None else Usage(prompt_tokens, reply_tokens)
