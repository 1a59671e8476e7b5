"""The canary: two fixed prompts with a fixed reply, whose log-probs tell whether a server answers with given weights.

The learner writes what new weights make of them into COMMIT.json; the server, told to serve these weights, must find
the same. One prompt is text alone, the other has a picture, so that a vision tower that wasn't loaded is noticed too.
"""

import io
import json
from functools import cache
from pathlib import Path

from PIL import Image

from proposer.generate import Prompt

REPLY = "Thought: The lamp costs less.\nAction: Click Brass Lamp [3]"
TOLERANCE = 0.15
"""Nats per token, mean. Between torch and vLLM, both bf16, 0.006 to 0.016 were measured (docs/results.md)."""

_QUESTION = "<a> Home [1]\n<a> Copper Kettle [2]  $12.50\n<a> Brass Lamp [3]  $8.00\nTask: Open the cheaper thing.\n"


@cache
def prompts() -> dict[str, Prompt]:
    """The prompts by kind, ``text`` and ``image``."""
    system = "You are a web agent."
    return {"text": Prompt(system, (_QUESTION,)), "image": Prompt(system, (_picture(), _QUESTION))}


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((256, 192)).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def expected(weights: Path) -> dict[str, list[float]] | None:
    """Log-probs (nats) of the reply's tokens by kind, as the learner wrote them; None for weights it didn't make."""
    commit = weights / "COMMIT.json"
    return json.loads(commit.read_text()).get("canary") if commit.is_file() else None


def gap(found: dict[str, list[float]], wanted: dict[str, list[float]]) -> float:
    """The larger of the kinds' mean absolute differences (nats per token); infinite if the tokens differ in number.

    Example: found {"text": [-1.0, -2.0]} and wanted {"text": [-1.5, -2.0]} give 0.25.
    """
    gaps = []
    for kind, logprobs in wanted.items():
        if len(found[kind]) != len(logprobs):
            return float("inf")
        gaps.append(sum(abs(a - b) for a, b in zip(found[kind], logprobs, strict=True)) / len(logprobs))
    return max(gaps)
