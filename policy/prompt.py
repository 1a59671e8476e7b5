"""The policy's prompt and the parser of its replies.

Each step is one prompt of its own (system message, then one user turn), so that a training sample is exactly one
prompt and one response. The action space is the paper's (PAE, section 4.1, taken over from WebVoyager) with Select for
drop-down lists; the wording is ours.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from policy.trajectory import Action, ActionKind, Observation
from proposer.generate import Prompt

SYSTEM = """You are a web agent. Reply with one thought and one action:
Thought: why
Action: Click [n] | Type [n]; text | Select [n]; option | Scroll [n or WINDOW]; up or down | Wait | GoBack | Home \
| Answer; text
n is the number of an element on the page. When the task is done, or its answer is known, use Answer."""

MAX_HISTORY_CHARS = 120
"""A past action is cut at this length in the prompt."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed response."""

    thought: str
    action: Action | None
    """None: malformed."""
    malformed: str = ""
    """What was wrong, worded for the agent; empty if there is an action."""


def render(instruction: str, observation: Observation, history: Sequence[str], picture: bytes | None) -> Prompt:
    """The prompt of one step.

    Args:
        instruction: The task.
        observation: The page now; its notice tells about the last action.
        history: Past actions as `describe` words them, oldest first, already cut to the length wanted.
        picture: The screenshot at the size the model takes; None leaves pictures out.
    """
    done = "\n".join(f"{n}. {action}" for n, action in enumerate(history, 1)) or "nothing"
    notice = f"\nNotice: {observation.notice}" if observation.notice else ""
    page = f"Page: {observation.title}\n{observation.listing}"
    # The page comes first: vLLM keeps it cached for every sample and task that meets the same page.
    text = f"{page}\nDone so far:\n{done}{notice}\nTask: {instruction}\n"
    return Prompt(SYSTEM, (text,) if picture is None else (picture, text))


def describe(action: Action, observation: Observation) -> str:
    """An action in words that outlive its page, for the history: ``Click [4] Add to cart``."""
    name = next((element.name for element in observation.elements if element.mark == action.mark), "")
    text = action_text(action)
    if name and action.kind is not ActionKind.SCROLL:
        text = text.replace(f"[{action.mark}]", f"[{name}]", 1)
    return text if len(text) <= MAX_HISTORY_CHARS else text[: MAX_HISTORY_CHARS - 3] + "..."


_NAMES = {
    ActionKind.CLICK: "Click",
    ActionKind.TYPE: "Type",
    ActionKind.SELECT: "Select",
    ActionKind.SCROLL: "Scroll",
    ActionKind.WAIT: "Wait",
    ActionKind.GO_BACK: "GoBack",
    ActionKind.HOME: "Home",
    ActionKind.ANSWER: "Answer",
}
_KINDS = {name.lower(): kind for kind, name in _NAMES.items()}
_WITH_MARK = {ActionKind.CLICK, ActionKind.TYPE, ActionKind.SELECT}
_WITH_TEXT = {ActionKind.TYPE, ActionKind.SELECT, ActionKind.ANSWER}
_ACTION = re.compile(r"(?P<name>[a-z]+(?:[ _]?back)?)\b\s*(?:\[?(?P<target>\d+|window)\]?)?\s*[;:,]?\s*(?P<text>.*)", re.I | re.S)


def action_text(action: Action) -> str:
    """An action as the policy writes it; `parse` reads it back."""
    match action.kind:
        case ActionKind.SCROLL:
            target = "WINDOW" if action.mark is None else action.mark
            return f"Scroll [{target}]; {action.text}"
        case ActionKind.CLICK:
            return f"Click [{action.mark}]"
        case ActionKind.TYPE | ActionKind.SELECT:
            return f"{_NAMES[action.kind]} [{action.mark}]; {action.text}"
        case ActionKind.ANSWER:
            return f"Answer; {action.text}"
        case _:
            return _NAMES[action.kind]


def parse(response: str) -> Reply:
    """The thought and action in a response.

    Harmless variation is accepted: case, missing brackets, markdown emphasis, ``:`` for ``;``, text after the
    action's line. Everything else is a `Reply` without an action that says what was expected.
    """
    cleaned = response.replace("**", "").strip()
    parts = re.split(r"^\s*action\s*:\s*", cleaned, maxsplit=1, flags=re.I | re.M)
    thought = re.sub(r"^\s*thought\s*:\s*", "", parts[0], flags=re.I).strip()
    if len(parts) < 2:
        return Reply(thought, None, "your reply had no line starting with Action:")
    line = parts[1].strip().split("\n")[0].strip()
    match = _ACTION.fullmatch(line)
    name = re.sub(r"[ _]", "", match["name"]).lower() if match else ""
    kind = _KINDS.get(name)
    if match is None or kind is None:
        return Reply(thought, None, f"there is no action {line[:40]!r}; use one of {', '.join(_NAMES.values())}")
    if kind is ActionKind.ANSWER:  # an answer may begin with a number, which is no mark
        text = re.sub(r"^\s*[;:,]\s*", "", line[match.end("name") :]).strip()
        return _checked(thought, kind, None, text.removeprefix("[").removesuffix("]") if text.startswith("[") else text)
    target = match["target"]
    mark = int(target) if target and target.isdigit() else None
    return _checked(thought, kind, mark, match["text"].strip())


def _checked(thought: str, kind: ActionKind, mark: int | None, text: str) -> Reply:
    name = _NAMES[kind]
    if kind in _WITH_MARK and mark is None:
        return Reply(thought, None, f"{name} needs the number of an element: {name} [n]")
    if kind in _WITH_TEXT and not text:
        return Reply(thought, None, f"{name} needs a text after a semicolon")
    if kind is ActionKind.SCROLL:
        text = text.strip("[]. ").lower()
        if text not in ("up", "down"):
            return Reply(thought, None, "Scroll needs a direction: up or down")
    return Reply(thought, Action(kind=kind, mark=mark, text=text if kind in _WITH_TEXT | {ActionKind.SCROLL} else ""))
