"""The policy's prompt and the parser of its replies.

Each step is one prompt of its own (system message, then one user turn), so that a training sample is exactly one
prompt and one response. The action space is the paper's (PAE, section 4.1, taken over from WebVoyager) with Select for
drop-down lists; the wording is ours. An action repeats its element's name before its number, ``Click Cart [9]``: a
small model looks a name up in the page and reads on, where a bare number must be looked back for. A name that only one
element bears decides, with whatever number or none; ``Click [9]`` is read too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from policy.trajectory import Action, ActionKind, Element, Observation
from proposer.generate import Prompt

SYSTEM = """You are a web agent. Reply with one thought and one action:
Thought: why
Action: Click name [n] | Type name [n]; text | Select name [n]; option | Scroll [WINDOW]; up or down | Wait | GoBack \
| Home | Answer; text
name [n] is an element as the page lists it. When the task is done, or its answer is known, use Answer."""

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
    """An action in words that outlive its page, for the history: ``clicked Cart (2)``, ``typed "mug" into Search``.

    In the past tense, so that no small model takes a line of it for an action to repeat.
    """
    name = element_name(action, observation) or f"element {action.mark}"
    words = {
        ActionKind.CLICK: f"clicked {name}",
        ActionKind.TYPE: f'typed "{action.text}" into {name}',
        ActionKind.SELECT: f'selected "{action.text}" in {name}',
        ActionKind.SCROLL: f"scrolled {action.text}",
        ActionKind.WAIT: "waited",
        ActionKind.GO_BACK: "went back",
        ActionKind.HOME: "went to the start page",
        ActionKind.ANSWER: f'answered "{action.text}"',
    }[action.kind]
    return words if len(words) <= MAX_HISTORY_CHARS else words[: MAX_HISTORY_CHARS - 3] + "..."


def element_name(action: Action, observation: Observation) -> str:
    """Name of the element acted on; empty if there is none."""
    return next((element.name for element in observation.elements if element.mark == action.mark), "")


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
_VERB = re.compile(r"(?P<verb>go[ _]?back|[a-z]+)\b", re.I)
_TARGET = re.compile(
    r"(?:(?P<name>[^;]*?)\[(?P<listed>\d+|window)\]\s*[;:,]?|\s*(?P<bare>\d+|window)\b\s*[;:,]?|(?P<alone>[^;]*);?)"
    r"\s*(?P<text>.*)",
    re.I,
)


def action_text(action: Action, name: str = "") -> str:
    """An action as the policy writes it, `name` being its element's; `parse` reads it back."""
    named = f"{name} " if name else ""
    match action.kind:
        case ActionKind.SCROLL:
            return f"Scroll [{'WINDOW' if action.mark is None else action.mark}]; {action.text}"
        case ActionKind.CLICK:
            return f"Click {named}[{action.mark}]"
        case ActionKind.TYPE | ActionKind.SELECT:
            return f"{_NAMES[action.kind]} {named}[{action.mark}]; {action.text}"
        case ActionKind.ANSWER:
            return f"Answer; {action.text}"
        case _:
            return _NAMES[action.kind]


def parse(response: str, elements: Sequence[Element] = ()) -> Reply:
    """The thought and action in a response.

    Harmless variation is accepted: case, missing brackets, markdown emphasis, ``:`` for ``;``, text after the
    action's line. Everything else is a `Reply` without an action that says what was expected.

    Args:
        response: What the policy said.
        elements: The page's marked elements, among which names are looked up; without them only numbers count. A name
            that no element bears is malformed if its number is another element's: acting on that would be chance.
    """
    cleaned = response.replace("**", "").strip()
    parts = re.split(r"^\s*action\s*:\s*", cleaned, maxsplit=1, flags=re.I | re.M)
    thought = re.sub(r"^\s*thought\s*:\s*", "", parts[0], flags=re.I).strip()
    if len(parts) < 2:
        return Reply(thought, None, "your reply had no line starting with Action:")
    line = parts[1].strip().split("\n")[0].strip()
    verb = _VERB.match(line)
    kind = _KINDS.get(re.sub(r"[ _]", "", verb["verb"]).lower()) if verb else None
    if verb is None or kind is None:
        return Reply(thought, None, f"there is no action {line[:40]!r}; use one of {', '.join(_NAMES.values())}")
    rest = line[verb.end() :]
    target = _TARGET.fullmatch(rest)
    if kind is ActionKind.ANSWER or target is None:  # an answer's number is no mark
        return _checked(thought, kind, None, rest.lstrip(" ;:,"))
    number = target["listed"] or target["bare"] or ""
    mark = int(number) if number.isdigit() else None
    name = (target["name"] or target["alone"] or "").strip()
    if kind in _WITH_MARK and name and elements:
        mark, complaint = _named(name, mark, elements)
        if complaint:
            return Reply(thought, None, complaint)
    return _checked(thought, kind, mark, target["text"].strip())


def _named(name: str, mark: int | None, elements: Sequence[Element]) -> tuple[int | None, str]:
    """The mark of the element meant, and a complaint where name and number don't say which that is.

    An element bears a name that is its own, or else one that its own begins with or that has its own as a part. What
    only ends with the name does something else to it: who clicks Copper Kettle doesn't mean Remove Copper Kettle.
    """
    wanted = _words(name)
    bearers = [e.mark for e in elements if _words(e.name) == wanted] or [
        e.mark for e in elements if e.name and (_words(e.name).startswith(wanted) or _words(e.name) in wanted)
    ]
    if len(bearers) == 1:
        return bearers[0], ""
    if mark in bearers:
        return mark, ""
    if bearers:
        return None, f"{len(bearers)} elements are named {name}: give the number of one"
    marked = next((element.name for element in elements if element.mark == mark), "")
    return (None, f"no element is named {name}, and [{mark}] is {marked}") if marked else (mark, "")


def _words(name: str) -> str:
    """A name as compared: case and spaces ignored, and only whole words are parts of it."""
    return f" {' '.join(name.casefold().split())} "


def _checked(thought: str, kind: ActionKind, mark: int | None, text: str) -> Reply:
    name = _NAMES[kind]
    if kind in _WITH_MARK and mark is None:
        return Reply(thought, None, f"{name} needs the number of an element: {name} name [n]")
    if kind in _WITH_TEXT and not text:
        return Reply(thought, None, f"{name} needs a text after a semicolon")
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if kind is ActionKind.SCROLL:
        text = text.strip("[]. ").lower()
        if text not in ("up", "down"):
            return Reply(thought, None, "Scroll needs a direction: up or down")
    return Reply(thought, Action(kind=kind, mark=mark, text=text if kind in _WITH_TEXT | {ActionKind.SCROLL} else ""))
