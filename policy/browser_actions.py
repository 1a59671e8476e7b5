"""What the agent's hands do on a page: an action in, how it went out.

The element that is acted on is the one that was marked: it is looked for when the action comes, wherever it is by then,
and what was pressed or typed reaches it or nothing (policy/observe.js, `guard`).
"""

from typing import Any, NamedTuple

from policy.action_class import Target
from policy.browser_page import LivePage
from policy.trajectory import Action, ActionKind, Effect, Point

_AIMED = {ActionKind.CLICK, ActionKind.TYPE, ActionKind.SELECT, ActionKind.APPEND, ActionKind.HOVER, ActionKind.DRAG}
_PRESSING = {ActionKind.CLICK, ActionKind.SELECT, ActionKind.UPLOAD, ActionKind.PRESS, ActionKind.DRAG}
_TYPING = {ActionKind.TYPE, ActionKind.APPEND}
_SPACE = {" ", "Space"}
_PRESS_TRIES = 2  # an element that moves may be met the second time


class Done(NamedTuple):
    """How an action went, and what the agent is told about it; "" if nothing."""

    effect: Effect
    notice: str = ""


DONE = Done(Effect.DONE)


class _Miss(Exception):
    """The action could not be done on its element."""

    def __init__(self, done: Done) -> None:
        super().__init__(done.notice)
        self.done = done


async def target_of(page: LivePage, action: Action) -> Target | None:
    """What an action would set going; None: nothing. Raises PageMoved if the page goes meanwhile."""
    if action.kind not in _PRESSING | _TYPING:
        return None
    is_key = action.kind is ActionKind.PRESS
    if not is_key and action.mark is None and action.point is None:
        return None
    presses = {
        "typed": action.kind in _TYPING,
        "byEnter": is_key and action.text.endswith("Enter"),
        "to": action.to_point or action.to_mark,  # dragged onto itself, an element is clicked
    }
    facts = await page.ask("facts", None if is_key else action.point or action.mark, presses)
    if facts is None:
        return None
    target = Target.model_validate(facts)
    is_idle_key = is_key and not presses["byEnter"] and action.text not in _SPACE
    return target.model_copy(update={"kind": "field"}) if is_idle_key else target


async def act_on_page(page: LivePage, action: Action) -> Done:
    """Do an action on what the page shows. Raises PageMoved if the page goes meanwhile, BrowserError if it fails."""
    if action.kind in _AIMED and action.mark is None and action.point is None:
        return Done(Effect.GONE, "Which element?")
    try:
        match action.kind:
            case ActionKind.CLICK:
                await _click(page, action)
            case ActionKind.TYPE | ActionKind.APPEND:
                await _type(page, action)
            case ActionKind.SELECT:
                await _ask(page, action, "choose", action.text)
            case ActionKind.HOVER:
                at = await _ask(page, action, "locate", False)
                await page.hover(at["x"], at["y"])
            case ActionKind.DRAG:
                await _drag(page, action)
            case ActionKind.PRESS:
                await page.press(action.text)
            case ActionKind.SCROLL:
                reply = await _ask(page, action, "scroll", action.text)
                if not reply["moved"]:
                    return Done(Effect.NOTHING, f"It can't be scrolled further {action.text}.")
    except _Miss as miss:
        return miss.done
    except ValueError as error:
        return Done(Effect.UNFIT, f"The key was not pressed: {error}.")
    return DONE


async def _click(page: LivePage, action: Action) -> None:
    for tries_left in reversed(range(_PRESS_TRIES)):
        at = await _ask(page, action, "locate", True)
        await page.click(at["x"], at["y"])
        if await _landed(page, action, is_last=not tries_left):
            return


async def _drag(page: LivePage, action: Action) -> None:
    end = await _ask(
        page, action.model_copy(update={"mark": action.to_mark, "point": action.to_point}), "locate", False
    )
    start = await _ask(page, action, "locate", True)
    await page.drag((start["x"], start["y"]), (end["x"], end["y"]))
    await _landed(page, action)


async def _type(page: LivePage, action: Action) -> None:
    field = await _ask(page, action, "prepare", action.text, action.kind is ActionKind.APPEND)
    if not field["done"]:
        if field["end"]:
            await page.press_end()
        await page.write(action.text, last_by_key=field["keys"])
        await _landed(page, action)
    if field["enter"]:
        await page.press_enter()


async def _landed(page: LivePage, action: Action, *, is_last: bool = True) -> bool:
    """Whether what was sent reached its element; where it was the last try, raises _Miss if not."""
    reply = await page.ask("landed")
    if is_last:
        _check(reply, action)
    return "problem" not in reply


async def _ask(page: LivePage, action: Action, function: str, *arguments: Any) -> dict[str, Any]:
    """What the page's script answers about the action's element. Raises _Miss where that can't be acted on."""
    reply = await page.ask(function, action.point or action.mark, *arguments)
    _check(reply, action)
    return reply


def _check(reply: dict[str, Any], action: Action) -> None:
    if "problem" in reply:
        raise _Miss(Done(Effect(reply["result"]), f"{_aim(action.mark, action.point)} {reply['problem']}."))


def _aim(mark: int | None, point: Point | None) -> str:
    return f"What is at {point}" if point else f"Element [{mark}]"
