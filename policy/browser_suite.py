"""Tasks of BrowserGym's suites in our browser: their own programs ready the page and say how well a task was done.

A BrowserGym task (https://github.com/ServiceNow/BrowserGym) is handed Playwright's page as the synchronous interface
has it: ``setup(page) -> (goal, info)``, ``validate(page, chat_messages) -> (reward, done, message, info)``,
``teardown()``. Ours is asynchronous; `Synchronous` stands between, and the task runs on a thread. What BrowserGym
itself does (its browser, observations and actions) isn't used, and what pages reach is held by the episode's gate.
"""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from playwright.async_api import Page

from policy.browser_settings import BrowserError
from policy.browser_tab import Tab
from policy.trajectory import Outcome
from proposer.task import GYM

_DEADLINE_S = 60.0


class SuiteTask(Protocol):
    """A task as BrowserGym has it; pages are Playwright's, synchronous."""

    def setup(self, page: Any) -> tuple[Any, dict[str, Any]]:
        """Ready the page; the goal: text, or messages of text and pictures."""
        ...

    def validate(self, page: Any, chat_messages: list[Any]) -> tuple[float, bool, str, dict[str, Any]]:
        """Reward since the last call, whether the episode is over, a message for the chat, and more."""
        ...

    def teardown(self) -> None:
        """Let go of what `setup` took."""
        ...


class Synchronous:
    """An object of Playwright's asynchronous interface as the synchronous one has it, for use on another thread."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Stand for `inner`, which lives in `loop`."""
        self.__dict__.update(_inner=inner, _loop=loop)

    def __getattr__(self, name: str) -> Any:
        """An attribute; what has to be awaited is."""
        found = getattr(self._inner, name)
        if not callable(found) or isinstance(found, type):
            return self._outside(found)

        def call(*arguments: Any, **options: Any) -> Any:
            given = [_inside(argument) for argument in arguments]
            return self._outside(found(*given, **{key: _inside(value) for key, value in options.items()}))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        """Set on the object that this stands for, so that all who stand for it see it."""
        setattr(self._inner, name, value)

    def __eq__(self, other: object) -> bool:
        return self._inner == _inside(other)

    def __hash__(self) -> int:
        return hash(self._inner)

    def _outside(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = asyncio.run_coroutine_threadsafe(_awaited(value), self._loop).result(_DEADLINE_S)
        if isinstance(value, list):
            return [self._outside(one) for one in value]
        return Synchronous(value, self._loop) if type(value).__module__.startswith("playwright.") else value


def _inside(value: Any) -> Any:
    return value.__dict__["_inner"] if isinstance(value, Synchronous) else value


async def _awaited(value: Any) -> Any:
    return await value


class SuiteReferee:
    """A `Referee` (policy/agent.py) that asks a BrowserGym task."""

    def __init__(self, task: SuiteTask) -> None:
        """Of one episode."""
        self._task = task
        self._chat: list[dict[str, Any]] = []
        self.score = 0.0

    async def begin(self, tab: Tab) -> str:
        """Ready the page; the goal in words. Raises BrowserError (RESET_FAILURE) if the task can't."""
        goal, _ = await self._ask(tab, Outcome.RESET_FAILURE, self._task.setup)
        self._chat.append({"role": "user", "timestamp": 0.0, "message": _words(goal)})
        return _words(goal)

    async def look(self, tab: Tab, answer: str | None) -> bool:
        """What the task says now; an answer comes to it as a message in the chat. Raises BrowserError (SITE_ERROR)."""
        if answer is not None:
            self._chat.append({"role": "assistant", "timestamp": 0.0, "message": answer})
        validate = self._task.validate
        reward, is_over, _, _ = await self._ask(tab, Outcome.SITE_ERROR, lambda page: validate(page, self._chat))
        self.score += float(reward)
        return bool(is_over)

    async def end(self) -> None:
        """Let the task go. Raises BrowserError (RESET_FAILURE) if it can't."""
        with self._translated(Outcome.RESET_FAILURE):
            await asyncio.to_thread(self._task.teardown)

    async def _ask(self, tab: Tab, outcome: Outcome, do: Callable[[Any], Any]) -> Any:
        loop = asyncio.get_running_loop()

        def run(page: Page) -> Coroutine[Any, Any, Any]:
            return asyncio.to_thread(do, Synchronous(page, loop))

        with self._translated(outcome):
            return await tab.run_on_page(run)

    @contextmanager
    def _translated(self, outcome: Outcome) -> Iterator[None]:
        try:
            yield
        except BrowserError:
            raise
        except Exception as error:  # a task's program is somebody else's, and may raise anything
            said = str(error).split("\n", 1)[0]
            raise BrowserError(outcome, f"{type(self._task).__name__}: {type(error).__name__}: {said}") from error


def open_referee(suite_id: str, seed: int, url: str) -> SuiteReferee:
    """The referee of a registered BrowserGym task, ``browsergym/miniwob.click-test``.

    `url`: where the suite's pages are. Raises BrowserError (RESET_FAILURE) if the suite isn't installed.
    """
    suite = suite_id.removeprefix(GYM).partition(".")[0]
    try:
        importlib.import_module(f"browsergym.{suite}")
        spec = importlib.import_module("gymnasium").spec(suite_id)
    except ImportError as error:
        raise BrowserError(Outcome.RESET_FAILURE, f"{suite_id}: {error}; install the extra `browsergym`") from error
    env = spec.entry_point()
    keys = {"base_url": url} if "base_url" in _parameters(env.task_entrypoint) else {}
    return SuiteReferee(env.task_entrypoint(seed=seed, **env.task_kwargs, **keys))


def _parameters(entrypoint: Any) -> set[str]:
    """What the class behind BrowserGym's partial applications takes."""
    while hasattr(entrypoint, "func"):
        entrypoint = entrypoint.func
    return set(inspect.signature(entrypoint).parameters)


def _words(goal: Any) -> str:
    """A goal in words: of messages their texts."""
    if isinstance(goal, str):
        return goal
    return "\n".join(part["text"] for part in goal if part.get("type") == "text")
