"""A person as the policy: what is done by hand in the browser becomes the agent's actions, in the agent's own loop.

`Demonstrator` is a `Generate` like any model, so a demonstration is an ordinary rollout and its record an ordinary
trajectory. What the person does is held back from the page (policy/record.js), said as one action, and done as every
action of the agent is: a demonstration can hold nothing that the agent could not do as well. A click into a text field
only puts the caret there; typing becomes one action when it ends (Enter, or leaving the field). What can't be done on
the page is written on the terminal as the policy writes it: ``Answer; $12``, ``GoBack``, ``Home``, ``Wait``. There the
person is also asked about what can't be undone (`confirm`). A page that goes elsewhere meanwhile, by itself or by the
window's own buttons, is waited for.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from policy.blobs import Blobs
from policy.browser import Browser, Tab
from policy.browser_settings import BrowserSettings
from policy.guard import Ask, Question
from policy.prompt import action_text, parse
from policy.trajectory import Action, ActionKind, ActionSpace
from proposer.generate import Prompt, Response, Sampling

_LOOK_S = 0.2  # between two looks at the terminal
_UNAIMED = (ActionKind.PRESS, ActionKind.SCROLL)
_WENT_ELSEWHERE = (
    "The page went elsewhere by itself, or by the window's own buttons, which the agent doesn't have (there are GoBack"
    " and Home). Put down as Wait."
)
_NOTICE = re.compile(r"^Notice: (.*)$", re.M)


class HandledBrowser(Browser):
    """A browser on whose pages a person acts, one episode at a time."""

    def __init__(self, settings: BrowserSettings, blobs: Blobs, *, ask: Ask | None = None, headed: bool = True) -> None:
        """As `Browser`; `headed`: with a window, which needs a screen."""
        super().__init__(settings, blobs, ask=ask, headed=headed, by_hand=True)
        self.tab: Tab | None = None
        """Of the episode under way."""

    @asynccontextmanager
    async def episode(
        self, start_url: str, allowed_hosts: Sequence[str] = (), blobs: Blobs | None = None
    ) -> AsyncIterator[Tab]:
        """As `Browser.episode`."""
        async with super().episode(start_url, allowed_hosts, blobs) as self.tab:
            yield self.tab


class Demonstrator:
    """What the person in front of a browser says is to be done next."""

    def __init__(self, browser: HandledBrowser, lines: deque[str], tell: Callable[[str], None]) -> None:
        """Of the episode that runs in `browser`.

        Args:
            browser: Where the person acts.
            lines: What the person has written on the terminal; taken from its left as it is read.
            tell: Shows the person a line.
        """
        self._browser = browser
        self._lines = lines
        self._tell = tell

    async def __call__(self, prompt: Prompt, sampling: Sampling) -> Response:
        """The next action, as the policy writes it, once the person has done it or written it down."""
        text = "".join(part for part in prompt.parts if isinstance(part, str))
        if notice := _NOTICE.search(text):
            self._tell(f"  {notice[1]}")
        tab = self._browser.tab
        assert tab is not None, "the browser's episode asks"
        address = tab.address
        while True:
            deed = await tab.demonstrated(_LOOK_S, is_last=bool(self._lines))
            if tab.address != address:
                self._tell(_WENT_ELSEWHERE)
                action = Action(kind=ActionKind.WAIT)
            else:
                action = self._possible(deed, tab.actions) if deed else self._written(tab) if self._lines else None
            if action:
                self._tell(action_text(action))
                return Response(f"Action: {action_text(action)}")

    def _possible(self, deed: Action, space: ActionSpace) -> Action | None:
        """The deed, if the agent could do it; else None, and the person is told."""
        if deed.kind not in space.kinds:
            self._tell(f"  Not among the agent's actions: {action_text(deed)}")
        elif deed.kind not in _UNAIMED and deed.mark is None and deed.point is None:
            self._tell("  That bears no mark as the page was last looked at; write Wait to have it looked at again.")
        elif deed.kind is ActionKind.TYPE and not deed.text:
            self._tell("  The agent can't type nothing.")
        else:
            return deed
        return None

    def _written(self, tab: Tab) -> Action | None:
        """The action that the terminal's next line says; None, and the person is told, if it says none."""
        reply = parse(f"Action: {self._lines.popleft()}", tab.marked, tab.actions)
        if reply.action is None:
            self._tell(f"  {reply.malformed}")
        return reply.action


async def confirm(question: Question, lines: deque[str], tell: Callable[[str], None]) -> bool:
    """Whether the person wants something done that can't be undone: the terminal's next line is ``yes``."""
    where = f" ({question.target.method or 'get'} {question.target.url})" if question.target.url else ""
    tell(f'  "{question.target.name}"{where} can\'t be undone. Write yes to have it done; anything else leaves it.')
    while not lines:
        await asyncio.sleep(_LOOK_S)
    return lines.popleft().lower() == "yes"
