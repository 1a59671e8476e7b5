"""The policy's prompt and the parser of its replies.

Each step is one prompt of its own (system message, then one user turn), so that a training sample is exactly one
prompt and one response. The action space is the paper's (PAE, section 4.1, taken over from WebVoyager) with Select for
drop-down lists, or by config a larger one (`ActionSpace`); the wording is ours. An action repeats its element's name
before its number, ``Click Cart [9]``: a small model looks a name up in the page and reads on, where a bare number must
be looked back for. A name that only one element bears decides, with whatever number or none; ``Click [9]`` is read too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from policy.trajectory import Action, ActionKind, ActionSpace, Element, Observation, Point
from proposer.generate import Prompt

SYSTEM = """You are a web agent. Reply with one thought and one action:
Thought: why
Action: Click name [n] | Type name [n]; text | Select name [n]; option | Scroll [WINDOW]; up or down | Wait | GoBack \
| Home | Answer; text
name [n] is an element as the page lists it. When the task is done, or its answer is known, use Answer."""

_MORE_ACTIONS = """You are a web agent. Reply with one thought and one action:
Thought: why
Action: Click {at} | Type {at}; text to replace what is there | Append {at}; text to add | Select {at}; option \
| Hover {at} | Drag {at}; {to} | Upload {at}; file | Press key | Scroll [WINDOW] or {at}; up, down, left or right \
| Wait | GoBack | Home | Answer; text
{where} When the task is done, or its answer is known, use Answer."""
_ON_MARKS = "name [n] is an element as the page lists it."
_AT_POINTS = "(x, y) is a point of the picture, which is {} by {}: pixels from the left and from the top."

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


def system_prompt(space: ActionSpace, viewport: tuple[int, int]) -> str:
    """The system message for an action space; `viewport`: width and height of the picture in pixels."""
    match space:
        case ActionSpace.BASIC:
            return SYSTEM
        case ActionSpace.FULL:
            return _MORE_ACTIONS.format(at="name [n]", to="name [m]", where=_ON_MARKS)
        case ActionSpace.POINTS:
            return _MORE_ACTIONS.format(at="(x, y)", to="(x, y)", where=_AT_POINTS.format(*viewport))


def render(
    instruction: str, observation: Observation, history: Sequence[str], picture: bytes | None, system: str = SYSTEM
) -> Prompt:
    """The prompt of one step.

    Args:
        instruction: The task.
        observation: The page now; its notice tells about the last action.
        history: Past actions as `describe` words them, oldest first, already cut to the length wanted.
        picture: The screenshot at the size the model takes; None leaves pictures out.
        system: What `system_prompt` says for the action space.
    """
    done = "\n".join(f"{n}. {action}" for n, action in enumerate(history, 1)) or "nothing"
    notice = f"\nNotice: {observation.notice}" if observation.notice else ""
    page = f"Page: {observation.title}\n{observation.listing}"
    # The page comes first: vLLM keeps it cached for every sample and task that meets the same page.
    text = f"{page}\nDone so far:\n{done}{notice}\nTask: {instruction}\n"
    return Prompt(system, (text,) if picture is None else (picture, text))


def describe(action: Action, observation: Observation) -> str:
    """An action in words that outlive its page, for the history: ``clicked Cart (2)``, ``typed "mug" into Search``.

    In the past tense, so that no small model takes a line of it for an action to repeat.
    """
    name = element_name(action, observation) or (str(action.point) if action.point else f"element {action.mark}")
    goal = action.model_copy(update={"mark": action.to_mark, "point": action.to_point})
    words = {
        ActionKind.CLICK: f"clicked {name}",
        ActionKind.TYPE: f'typed "{action.text}" into {name}',
        ActionKind.SELECT: f'selected "{action.text}" in {name}',
        ActionKind.SCROLL: f"scrolled {action.text}",
        ActionKind.WAIT: "waited",
        ActionKind.GO_BACK: "went back",
        ActionKind.HOME: "went to the start page",
        ActionKind.ANSWER: f'answered "{action.text}"',
        ActionKind.APPEND: f'added "{action.text}" to {name}',
        ActionKind.HOVER: f"pointed at {name}",
        ActionKind.DRAG: f"dragged {name} to {element_name(goal, observation) or goal.point or f'element {goal.mark}'}",
        ActionKind.UPLOAD: f"gave {action.text} to {name}",
        ActionKind.PRESS: f"pressed {action.text}",
    }[action.kind]
    return words if len(words) <= MAX_HISTORY_CHARS else words[: MAX_HISTORY_CHARS - 3] + "..."


def element_name(action: Action, observation: Observation) -> str:
    """Name of the element acted on; empty if there is none. At a point it is the smallest element's around it."""
    if action.point is None:
        return next((element.name for element in observation.elements if element.mark == action.mark), "")
    around = [element for element in observation.elements if _holds(element, action.point)]
    return min(around, key=lambda element: element.box[2] * element.box[3]).name if around else ""


def _holds(element: Element, point: Point) -> bool:
    left, top, width, height = element.box
    return left <= point[0] < left + width and top <= point[1] < top + height


_NAMES = {
    ActionKind.CLICK: "Click",
    ActionKind.TYPE: "Type",
    ActionKind.SELECT: "Select",
    ActionKind.SCROLL: "Scroll",
    ActionKind.WAIT: "Wait",
    ActionKind.GO_BACK: "GoBack",
    ActionKind.HOME: "Home",
    ActionKind.ANSWER: "Answer",
    ActionKind.APPEND: "Append",
    ActionKind.HOVER: "Hover",
    ActionKind.DRAG: "Drag",
    ActionKind.UPLOAD: "Upload",
    ActionKind.PRESS: "Press",
}
_KINDS = {name.lower(): kind for kind, name in _NAMES.items()}
_WITH_AIM = {
    ActionKind.CLICK,
    ActionKind.TYPE,
    ActionKind.SELECT,
    ActionKind.APPEND,
    ActionKind.HOVER,
    ActionKind.DRAG,
    ActionKind.UPLOAD,
}
_WITH_TEXT = {
    ActionKind.TYPE,
    ActionKind.SELECT,
    ActionKind.ANSWER,
    ActionKind.APPEND,
    ActionKind.UPLOAD,
    ActionKind.PRESS,
}
_VERB = re.compile(r"(?P<verb>go[ _]?back|[a-z]+)\b", re.I)
_POINT = re.compile(r"\s*[(\[]?\s*(?P<x>\d+)\s*,\s*(?P<y>\d+)\s*[)\]]?\s*[;:,]?\s*(?P<text>.*)")
_TARGET = re.compile(
    r"(?:(?P<name>[^;]*?)\[(?P<listed>\d+|window)\]\s*[;:,]?|\s*(?P<bare>\d+|window)\b\s*[;:,]?|(?P<alone>[^;]*);?)"
    r"\s*(?P<text>.*)",
    re.I,
)


def action_text(action: Action, name: str = "") -> str:
    """An action as the policy writes it, `name` being its element's; `parse` reads it back."""
    verb = _NAMES[action.kind]
    aim = f"{name} [{action.mark}]".lstrip() if action.point is None else str(action.point)
    match action.kind:
        case ActionKind.SCROLL:
            return f"{verb} {'[WINDOW]' if action.mark is None and action.point is None else aim}; {action.text}"
        case ActionKind.CLICK | ActionKind.HOVER:
            return f"{verb} {aim}"
        case ActionKind.TYPE | ActionKind.SELECT | ActionKind.APPEND | ActionKind.UPLOAD:
            return f"{verb} {aim}; {action.text}"
        case ActionKind.DRAG:
            return f"{verb} {aim}; {action.to_point or f'[{action.to_mark}]'}"
        case ActionKind.ANSWER:
            return f"{verb}; {action.text}"
        case ActionKind.PRESS:
            return f"{verb} {action.text}"
        case _:
            return verb


def parse(response: str, elements: Sequence[Element] = (), space: ActionSpace = ActionSpace.BASIC) -> Reply:
    """The thought and action in a response.

    Harmless variation is accepted: case, missing brackets, markdown emphasis, ``:`` for ``;``, text after the
    action's line. Everything else is a `Reply` without an action that says what was expected.

    Args:
        response: What the policy said.
        elements: The page's marked elements, among which names are looked up; without them only numbers count. A name
            that no element bears is malformed if its number is another element's: acting on that would be chance.
        space: What the policy may say.
    """
    cleaned = response.replace("**", "").strip()
    parts = re.split(r"^\s*action\s*:\s*", cleaned, maxsplit=1, flags=re.I | re.M)
    thought = re.sub(r"^\s*thought\s*:\s*", "", parts[0], flags=re.I).strip()
    if len(parts) < 2:
        return Reply(thought, None, "your reply had no line starting with Action:")
    line = parts[1].strip().split("\n")[0].strip()
    verb = _VERB.match(line)
    kind = _KINDS.get(re.sub(r"[ _]", "", verb["verb"]).lower()) if verb else None
    if verb is None or kind is None or kind not in space.kinds:
        names = ", ".join(_NAMES[kind] for kind in space.kinds)
        return Reply(thought, None, f"there is no action {line[:40]!r}; use one of {names}")
    rest = line[verb.end() :]
    if kind in (ActionKind.ANSWER, ActionKind.PRESS):  # an answer's number is no mark
        return _checked(thought, kind, _Aim(text=rest.lstrip(" ;:,")), _NOWHERE, space)
    by_name = elements if kind in _WITH_AIM else ()
    aim = _read_aim(_numbered(rest, elements), by_name, space)
    goal = _read_aim(_numbered(aim.text, elements), by_name, space) if kind is ActionKind.DRAG else _NOWHERE
    return _checked(thought, kind, aim, goal, space)


class _Aim(NamedTuple):
    """What is acted on, and what follows it in the action's line."""

    mark: int | None = None
    point: Point | None = None
    text: str = ""
    complaint: str = ""

    @property
    def is_nowhere(self) -> bool:
        return self.mark is None and self.point is None


_NOWHERE = _Aim()


def _numbered(rest: str, elements: Sequence[Element]) -> str:
    """What follows a verb, an element that it begins with as the page lists it given by its number alone.

    A name may hold all that else divides a line: ``Click Save [2]; more [7]``.
    """
    rest = rest.lstrip()
    marks = {f"{element.name} [{element.mark}]": element.mark for element in elements}
    longest = max(filter(rest.startswith, marks), key=len, default="")
    return f"[{marks[longest]}]{rest[len(longest) :]}" if longest else rest


def _read_aim(rest: str, elements: Sequence[Element], space: ActionSpace) -> _Aim:
    if space is ActionSpace.POINTS and (at := _POINT.fullmatch(rest)):
        return _Aim(point=(int(at["x"]), int(at["y"])), text=at["text"].strip())
    target = _TARGET.fullmatch(rest)
    if target is None:
        return _Aim(text=rest.lstrip(" ;:,"))
    text = target["text"].strip()
    if space is ActionSpace.POINTS:
        return _Aim(text=text)
    number = target["listed"] or target["bare"] or ""
    mark = int(number) if number.isdigit() else None
    name = (target["name"] or target["alone"] or "").strip()
    complaint = ""
    if name and elements:
        mark, complaint = _named(name, mark, elements)
    return _Aim(mark, None, text, complaint)


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


def _checked(thought: str, kind: ActionKind, aim: _Aim, goal: _Aim, space: ActionSpace) -> Reply:
    name, text = _NAMES[kind], aim.text
    points = space is ActionSpace.POINTS
    if complaint := aim.complaint or goal.complaint:
        return Reply(thought, None, complaint)
    if kind in _WITH_AIM and aim.is_nowhere:
        needed = f"a point: {name} (x, y)" if points else f"the number of an element: {name} name [n]"
        return Reply(thought, None, f"{name} needs {needed}")
    if kind is ActionKind.DRAG and goal.is_nowhere:
        needed = "(x, y); (x, y)" if points else "name [n]; name [m]"
        return Reply(thought, None, f"{name} needs where to: {name} {needed}")
    if kind in _WITH_TEXT and not text:
        return Reply(thought, None, f"{name} needs a text after a semicolon")
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if kind is ActionKind.SCROLL:
        text = text.strip("[]. ").lower()
        directions = ("up", "down") if space is ActionSpace.BASIC else ("up", "down", "left", "right")
        if text not in directions:
            return Reply(thought, None, f"Scroll needs a direction: {' or '.join(directions)}")
    if kind not in _WITH_TEXT and kind is not ActionKind.SCROLL:
        text = ""
    action = Action(kind=kind, mark=aim.mark, text=text, point=aim.point, to_mark=goal.mark, to_point=goal.point)
    return Reply(thought, action)
