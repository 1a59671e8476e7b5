"""Guard: one episode's conscience. It refuses what can't be undone and what gives data away, and keeps the ledger.

An action is classed before it is done. While its class is in force, the page's requests may be no worse than that
(policy/browser_net.py), so that a script behind a harmless button gets no further than the button would.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from policy.action_class import Sent, Target, classify, classify_request, is_final_talk
from policy.personal import find_private
from policy.trajectory import Action, ActionClass, ActionKind, SideEffect

Conduct = Literal["allow", "refuse", "ask"]
"""What becomes of irreversible actions. ``ask``: whoever watches the episode is asked; nobody there: refused."""

_MAX_SIDE_EFFECTS = 200
_MAX_URL_CHARS = 200
_MAX_HELD_BACK = 3
_SECRET = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[\w.~%-]{20,}|[^/]*@[^/]*")
"""Parts of a path that may be a token, or a person."""
_TYPED = {ActionKind.TYPE, ActionKind.APPEND}


class GuardSettings(BaseModel):
    """What an agent may do to websites."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    practice: Conduct = "allow"
    """Irreversible actions on websites that this machine serves itself: ``allow``, ``refuse`` or ``ask``."""
    live: Conduct = "refuse"
    """The same on all others. Unless it is ``allow``, personal data and credentials are not typed either."""
    may_type: tuple[str, ...] = ()
    """E-mail addresses, phone numbers and the like that may be typed all the same."""
    reading: tuple[str, ...] = ()
    """Addresses that only read though they are sent to by POST, a search's for instance: ``https://example.com/find*``.
    GraphQL queries are known without."""

    def conduct(self, *, is_practice: bool) -> Conduct:
        """What becomes of irreversible actions on a website."""
        return self.practice if is_practice else self.live


class Question(NamedTuple):
    """What is asked about an irreversible action."""

    action: Action
    target: Target


Ask = Callable[[Question], Awaitable[bool]]
"""Whether the action may be done; it may take its time, within the episode's limit."""


class Ruling(NamedTuple):
    """What becomes of an action."""

    of: ActionClass
    why_not: str = ""
    """Why it isn't done, for the agent; empty: it is."""


class Guard:
    """The guard of one episode."""

    def __init__(self, conduct: Conduct, settings: GuardSettings, ask: Ask | None = None) -> None:
        """A guard with only reading in force; `conduct`: on this website; `ask`: who is asked, None for nobody."""
        self.conduct: Conduct = conduct
        self._settings = settings
        self._ask = ask
        self._in_force = ActionClass.READ
        self.side_effects: list[SideEffect] = []
        self._held_back: list[str] = []
        self._num_actions = 0

    async def rule(self, action: Action, target: Target | None) -> Ruling:
        """What becomes of an action; its class is then in force, reading only where it is refused."""
        self._num_actions += 1
        if action.kind is ActionKind.WAIT:
            return Ruling(ActionClass.READ)  # for what the action before it has begun
        self._in_force = ActionClass.READ
        of = classify(target)
        if action.kind is ActionKind.DRAG:  # also where it is a click besides
            of = max(of, ActionClass.REVERSIBLE, key=lambda one: one.severity)
        if why_not := self._why_private(action, target):
            return Ruling(of, f"That was not typed: {why_not}.")
        may = of is not ActionClass.IRREVERSIBLE or target is None or await self._may_be_final(Question(action, target))
        if target is not None and (of is not ActionClass.READ or target.kind == "form"):
            self._enter("action", of, Sent(target.method, target.url), target.fields, allowed=may)
        if not may:
            name = target.name if target else ""
            return Ruling(of, f'"{name}" was not done: it can\'t be undone, and that is not allowed here.')
        self._in_force = of
        return Ruling(of)

    def lets_pass(self, sent: Sent, *, is_page: bool) -> bool:
        """Whether a request whose method isn't safe may leave now; `is_page`: its answer is a page, or a frame's."""
        of = classify_request(sent, self._settings.reading)
        allowed = self.conduct == "allow" or of.severity <= self._in_force.severity
        self._enter("request", of, sent, (), allowed=allowed)
        is_telling = is_page or of is ActionClass.IRREVERSIBLE  # all else is mostly statistics
        if not allowed and is_telling:
            self._hold_back(f"The page tried to send something to {_bare(sent.url)}; that is not allowed here.")
        return allowed

    def may_accept(self, question: str) -> bool:
        """Whether a page's "are you sure?" may be answered with yes."""
        if self.conduct == "allow" or self._in_force is ActionClass.IRREVERSIBLE or not is_final_talk(question):
            return True
        self._hold_back("The page was answered with no: what it asked for can't be undone.")
        return False

    def _hold_back(self, what: str) -> None:
        if len(self._held_back) < _MAX_HELD_BACK:
            self._held_back.append(what)

    def take_held_back(self) -> list[str]:
        """What the page was kept from, in words, as far as the agent ought to know it; each is given once."""
        held_back, self._held_back = self._held_back, []
        return held_back

    async def _may_be_final(self, question: Question) -> bool:
        if self.conduct == "ask" and self._ask:
            return await self._ask(question)
        return self.conduct == "allow"

    def _why_private(self, action: Action, target: Target | None) -> str:
        """What is private about what an action types, in words; "" if nothing."""
        is_key = action.kind is ActionKind.PRESS and len(action.text) == 1
        if self.conduct == "allow" or not (is_key or action.kind in _TYPED):
            return ""
        held = target.value if target and action.kind is not ActionKind.TYPE else ""
        return find_private(held + action.text, target, self._settings.may_type)

    def _enter(
        self, what: Literal["action", "request"], of: ActionClass, sent: Sent, fields: tuple[str, ...], *, allowed: bool
    ) -> None:
        if len(self.side_effects) < _MAX_SIDE_EFFECTS:
            entry = SideEffect(
                after=self._num_actions,
                what=what,
                of=of,
                method=sent.method.upper(),
                url=_bare(sent.url),
                fields=fields,
                allowed=allowed,
            )
            self.side_effects.append(entry)


def _bare(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    if not parts.hostname:
        return ""
    host = parts.netloc.rpartition("@")[2]
    path = "/".join(_SECRET.sub("...", step) for step in parts.path.split("/"))
    return f"{parts.scheme}://{host}{path}"[:_MAX_URL_CHARS]
