"""One open page: its DevTools session, the isolated world in which settle.js and observe.js run.

Everything that the page is asked has a deadline, and what goes wrong comes out as a BrowserError.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import CDPSession, Error, Page

from policy.browser_settings import BrowserError, BrowserSettings
from policy.trajectory import Outcome

_WORLD = "pae"
_SCRIPTS = {
    name: (Path(__file__).parent / f"{name}.js").read_text("utf-8") for name in ("settle", "observe", "guard", "record")
}
_DOCUMENT_GONE = (
    "Cannot find context",
    "uniqueContextId not found",
    "context was destroyed",
    "navigated or closed",
    "Unable to capture screenshot",  # nothing painted yet
    "Not attached to an active page",
)
_TAB_GONE = "Target page, context or browser has been closed"
_FORBIDDEN = re.compile(
    r"(?:Not allowed to (?:load local resource|navigate top frame to \w+ URL):|cannot load|a connection to) "
    r"(\S+?)(?=\. URL|: net::|\s|$)"
)
_DRAG_STEPS = 5
_PAGE_GONE = ("closed", "crashed", "detached")


class PageMoved(Exception):
    """The document that was asked has gone: a navigation took its place, or its tab was closed."""


class LivePage:
    """An open page under our control."""

    def __init__(
        self,
        page: Page,
        session: CDPSession,
        settings: BrowserSettings,
        main_frame: str,
        on_forbidden: Callable[[str], None],
    ) -> None:
        """Use `attach`, which also readies the page."""
        self.page = page
        self.num_opening = 0
        """New tabs that the page has asked for and that the context has not reported yet."""
        self.is_navigating = False
        """Whether the page is on its way to a document that hasn't come yet."""
        self.frames: set[str] = set()
        """Chromium's ids of the frames it has had."""
        self._session = session
        self._settings = settings
        self._main_frame = main_frame
        self._on_forbidden = on_forbidden
        self._crashed = False
        self._world: str | None = None
        self._world_ready = asyncio.Event()
        self._document_gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def attach(
        cls, page: Page, settings: BrowserSettings, on_forbidden: Callable[[str], None], *, by_hand: bool = False
    ) -> "LivePage":
        """A page made ready: its isolated world exists in this document and in all that follow.

        `on_forbidden` is told the addresses that Chromium itself keeps the page from: files, its own pages. `by_hand`:
        a person acts on it.
        """
        session = await page.context.new_cdp_session(page)
        tree = await session.send("Page.getFrameTree")
        live = cls(page, session, settings, tree["frameTree"]["frame"]["id"], on_forbidden)
        live.frames.update(_frame_ids(tree["frameTree"]))
        page.on("crash", live._note_crash)
        page.on("close", live._note_close)
        session.on("Runtime.executionContextCreated", live._note_world)
        session.on("Runtime.executionContextsCleared", live._note_worlds_gone)
        session.on("Page.frameAttached", live._note_frame)
        session.on("Page.frameStartedNavigating", live._note_navigation)
        session.on("Page.frameNavigated", live._note_commit)
        session.on("Page.frameStoppedLoading", live._note_stop)
        session.on("Page.windowOpen", live._note_window)
        session.on("Log.entryAdded", live._note_log)
        source = "\n".join(script for name, script in _SCRIPTS.items() if by_hand or name != "record")
        script = {"source": source, "worldName": _WORLD, "runImmediately": True}
        await asyncio.gather(
            session.send("Page.enable"),
            session.send("Runtime.enable"),
            session.send("Log.enable"),
            session.send("Page.addScriptToEvaluateOnNewDocument", script),
        )
        return live

    def _note_crash(self, _: Page) -> None:
        self._crashed = True
        self._world_ready.set()

    def _note_close(self, _: Page) -> None:
        self._world_ready.set()  # whoever waits for it has waited enough

    def _note_frame(self, event: dict[str, Any]) -> None:
        self.frames.add(event["frameId"])

    def _note_window(self, _: dict[str, Any]) -> None:
        self.num_opening += 1

    def _note_navigation(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self._main_frame and not event["navigationType"].lower().endswith("samedocument"):
            self.is_navigating = True

    def _note_commit(self, event: dict[str, Any]) -> None:
        if event["frame"]["id"] == self._main_frame:
            self.is_navigating = False

    def _note_stop(self, event: dict[str, Any]) -> None:
        if event["frameId"] == self._main_frame:
            self.is_navigating = False  # also where nothing came: a download, or an answer without content

    def _note_log(self, event: dict[str, Any]) -> None:
        if match := _FORBIDDEN.search(event["entry"]["text"]):
            self._on_forbidden(match[1])

    def _note_world(self, event: dict[str, Any]) -> None:
        context = event["context"]
        if context["name"] == _WORLD and context["auxData"].get("frameId") == self._main_frame:
            self._world = context["uniqueId"]
            self._world_ready.set()

    def _note_worlds_gone(self, _: dict[str, Any]) -> None:
        self._world = None
        self._world_ready.clear()
        self._document_gone.set_result(None)
        self._document_gone = asyncio.get_running_loop().create_future()

    async def ask(self, function: str, *arguments: Any, limit_s: float | None = None) -> Any:
        """What a function of the scripts answers. Raises PageMoved if a navigation takes the document away first."""
        expression = f"pae.{function}({', '.join(map(json.dumps, arguments))})"
        reply = await self._evaluate(expression, limit_s or 0.0)
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            raise BrowserError(
                Outcome.SITE_ERROR, f"{function}: {details.get('exception', details).get('description')}"
            )
        return well_formed(reply["result"].get("value"))

    async def read_text(self, expression: str) -> str:
        """What a JavaScript expression says of the document, as text; "" if it raises. Raises PageMoved."""
        reply = await self._evaluate(f"String({expression})", 0.0)
        return "" if "exceptionDetails" in reply else well_formed(reply["result"]["value"])

    async def _evaluate(self, expression: str, limit_s: float) -> dict[str, Any]:
        """The answer to an expression in our world, which may take so long beyond the action deadline."""
        deadline_s = limit_s + self._settings.action_deadline_s
        parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        try:
            async with asyncio.timeout(deadline_s):
                await self._world_ready.wait()
                self._check_alive()
                return await self._session.send("Runtime.evaluate", {**parameters, "uniqueContextId": self._world})
        except (Error, TimeoutError) as error:
            raise self._translated(error) from error

    async def send(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a DevTools command, within the action deadline."""
        async with self._in_time():
            return await self._session.send(method, parameters)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.action_deadline_s):
                self._check_alive()
                yield
        except (Error, TimeoutError) as error:
            raise self._translated(error) from error

    def _check_alive(self) -> None:
        if self._crashed:
            raise BrowserError(Outcome.BROWSER_CRASH, "the page crashed")
        if self.page.is_closed():
            raise PageMoved("the page is closed")

    def _translated(self, error: Exception) -> Exception:
        """The same failure in our terms."""
        text = str(error).split("\n", 1)[0]
        if isinstance(error, TimeoutError):
            return BrowserError(Outcome.SITE_ERROR, f"{self.page.url}: the page does not answer")
        browser = self.page.context.browser
        has_closed = _TAB_GONE in text and not self._crashed and browser is not None and browser.is_connected()
        if has_closed or any(phrase in text for phrase in _DOCUMENT_GONE):
            return PageMoved(text)
        if self._crashed or any(phrase in text for phrase in _PAGE_GONE):
            return BrowserError(Outcome.BROWSER_CRASH, text)
        return BrowserError(Outcome.SITE_ERROR, text)

    async def context_id(self) -> str:
        """Chromium's id of the browser context that the page is in."""
        return (await self.send("Target.getTargetInfo"))["targetInfo"]["browserContextId"]

    async def is_quiet(self, limit_s: float, *, afresh: bool) -> bool:
        """Whether the document came to rest within the limit. Raises PageMoved if another took its place.

        `afresh`: what happened before this call doesn't count as rest.
        """
        limit_ms = max(0, round(limit_s * 1000))
        return bool(await self.ask("quiet", self._settings.settle_quiet_ms, limit_ms, afresh, limit_s=limit_s))

    async def capture(self) -> bytes:
        """The viewport as JPEG. Raises PageMoved if another document came, or nothing is painted yet."""
        parameters = {"format": "jpeg", "quality": self._settings.jpeg_quality, "optimizeForSpeed": True}
        capture = asyncio.ensure_future(self.send("Page.captureScreenshot", parameters))
        try:
            # A document that goes takes its unfinished screenshot with it: no answer would ever come.
            await asyncio.wait({capture, self._document_gone}, return_when=asyncio.FIRST_COMPLETED)
            if not capture.done():
                raise PageMoved("the document went while its picture was taken")
            return base64.b64decode(capture.result()["data"])
        finally:
            capture.cancel()

    async def click(self, x: float, y: float) -> None:
        """Press and release the left mouse button at a point of the viewport."""
        at = {"x": x, "y": y}
        button = {**at, "button": "left", "clickCount": 1}
        await asyncio.gather(
            self.send("Input.dispatchMouseEvent", {"type": "mouseMoved", **at}),
            self.send("Input.dispatchMouseEvent", {"type": "mousePressed", **button, "buttons": 1}),
            self.send("Input.dispatchMouseEvent", {"type": "mouseReleased", **button}),
        )

    async def hover(self, x: float, y: float) -> None:
        """Move the mouse to a point of the viewport."""
        await self.send("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    async def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the left mouse button at one point, move, and release it at another; drag and drop comes of it."""
        mouse = self.page.mouse  # Playwright's: it also does what the system does where the page drags an element
        async with self._in_time():
            await mouse.move(*start)
            await mouse.down()
            await mouse.move(*end, steps=_DRAG_STEPS)
            await mouse.up()

    async def write(self, text: str, *, last_by_key: bool) -> None:
        """Put text in place of what is selected; empty text deletes it.

        It comes as if pasted, but for the last character where `last_by_key`: pages that listen for keys hear that one.
        """
        if not text:
            await self._press("Delete", 46)
        elif not last_by_key or not text[-1].isprintable():
            await self.send("Input.insertText", {"text": text})
        else:
            if text[:-1]:
                await self.send("Input.insertText", {"text": text[:-1]})
            await self._press(
                text[-1], ord(text[-1].upper()) if text[-1].isascii() and text[-1].isalnum() else 0, text[-1]
            )

    async def press(self, keys: str) -> None:
        """Press a key, or several together (``Control+A``), where the focus is. Raises ValueError if there is none."""
        try:
            async with self._in_time():
                await self.page.keyboard.press(keys)
        except BrowserError as error:
            if "Unknown key" in str(error):
                raise ValueError(f"there is no key {keys}") from error
            raise

    async def press_enter(self) -> None:
        """Press Enter in the focused element."""
        await self._press("Enter", 13, text="\r")

    async def press_end(self) -> None:
        """Move the caret behind the text of the focused field."""
        await self._press("End", 35)

    async def _press(self, key: str, code: int, text: str = "") -> None:
        event = {"key": key, "windowsVirtualKeyCode": code, **({"code": key} if len(key) > 1 else {})}
        down = {"type": "keyDown" if text else "rawKeyDown", **event, **({"text": text} if text else {})}
        await asyncio.gather(
            self.send("Input.dispatchKeyEvent", down), self.send("Input.dispatchKeyEvent", {"type": "keyUp", **event})
        )

    async def wanted_url(self) -> str:
        """The address that was asked for, also where the browser shows its error page instead."""
        history = await self.send("Page.getNavigationHistory")
        return history["entries"][history["currentIndex"]]["url"]

    async def go_back(self) -> bool:
        """Whether there was a page to go back to; the navigation has then begun."""
        history = await self.send("Page.getNavigationHistory")
        index = history["currentIndex"]
        if index == 0 or history["entries"][index - 1]["url"] == "about:blank":
            return False
        await self.send("Page.navigateToHistoryEntry", {"entryId": history["entries"][index - 1]["id"]})
        return True


def _frame_ids(tree: dict[str, Any]) -> Iterator[str]:
    yield tree["frame"]["id"]
    for child in tree.get("childFrames", ()):
        yield from _frame_ids(child)


def well_formed(value: Any) -> Any:
    """What a page said, without halves of characters: scripts may cut one in two, and UTF-8 can't hold what is left."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [well_formed(item) for item in value]
    return {key: well_formed(item) for key, item in value.items()} if isinstance(value, dict) else value
