"""What a model is to the rest of the program: an async callable from a prompt to a response."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


class ModelError(RuntimeError):
    """The model gave no response: unreachable, overloaded, timed out or refused. Never the agent's failure."""


class PromptRefused(ModelError):
    """The model is there, but won't take this prompt however often it is asked: mostly one that is too long for it."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user turn under a system message."""

    system: str
    parts: tuple[str | bytes, ...]
    """Text, and encoded pictures (JPEG or PNG bytes, already at the size the model takes), in reading order."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; temperature 0 is greedy."""

    temperature: float = 0.0
    max_tokens: int = 96
    seed: int | None = None
    """None: the server draws its own."""
    schema: str | None = None
    """JSON schema (as JSON) that the reply is to follow, for servers that can see to that; None: it is free."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply cost."""

    prompt_tokens: int
    reply_tokens: int


@dataclass(frozen=True, slots=True)
class Response:
    """What the model said, with what is needed to train on exactly the tokens it sampled."""

    text: str
    weights: int | None = None
    """Version of the policy weights that answered; None where versions don't apply (judge, proposer, remote)."""
    prompt_ids: tuple[int, ...] = ()
    """Token ids of the prompt as the server saw it, image tokens expanded; empty if the server doesn't tell."""
    token_ids: tuple[int, ...] = ()
    """Sampled ids, the end-of-turn token included; empty if the server doesn't tell."""
    logprobs: tuple[float, ...] = ()
    """Log-probability (nats) of each of `token_ids` under the distribution sampled from, temperature included."""
    finish_reason: str = "stop"
    """``stop`` or ``length`` (cut at max_tokens)."""
    usage: Usage | None = None
    """None if the server doesn't tell."""


Generate = Callable[[Prompt, Sampling], Awaitable[Response]]
"""Prompt in, response out. Raises ModelError. vLLM, a remote endpoint and a scripted model look the same."""
