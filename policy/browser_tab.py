"""Tab: one episode's view of the web. It observes, acts, waits until the page has settled, and tells what happened."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from playwright.async_api import (
    BrowserContext,
    Dialog,
    Download,
    Error,
    FileChooser,
    Page,
    Request,
    Response,
    ViewportSize,
)
from playwright.async_api import TimeoutError as PlaywrightTimeout

from policy.blobs import Blobs
from policy.blocks import find_block
from policy.browser_actions import DONE, Done, act_on_page, target_of
from policy.browser_files import Folder
from policy.browser_manners import Busy, Manners
from policy.browser_net import Net, Watched
from policy.browser_page import LivePage, PageMoved, well_formed
from policy.browser_proxy import Gate
from policy.browser_settings import BrowserError, BrowserSettings
from policy.guard import Guard
from policy.listing import RawPage
from policy.manners import read_retry_after
from policy.marks import draw_marks
from policy.trajectory import (
    Action,
    ActionClass,
    ActionKind,
    ActionSpace,
    BrowserFacts,
    Effect,
    Element,
    Observation,
    Outcome,
    SideEffect,
)
from proposer.look import Look

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_BUSY = {429, 503}
_UNAUTHORISED = 401
_SERVER_ERROR = 500
_NO_RULES = "the website's robots.txt can't be had"
_GIVEN_UP = {"net::ERR_ABORTED"}  # by the browser: another page was asked for, or it was a download or had no content
_UNSAFE_REDIRECT = "net::ERR_UNSAFE_REDIRECT"
_AWAITED = {"document", "xhr", "fetch", "script", "stylesheet"}  # what a page may still change by
_LONG_POLL_S = 1.0  # a request that is open for longer is a long poll or a stream, not something to wait for
_WAIT_S = 2.0  # what the agent's Wait waits for a change
_POLL_S = 0.01
_WEB = ("http:", "https:", "about:")  # all else is the browser's own: its error page, file:, chrome:
CLOSE_DEADLINE_S = 5.0
_MAX_NOTICES = 5
_MAX_NOTICE_CHARS = 200
_MAY_LOAD = {ActionKind.CLICK, ActionKind.TYPE, ActionKind.PRESS}
_HANDS_OFF = {ActionKind.WAIT, ActionKind.GO_BACK, ActionKind.HOME}  # the page feels nothing of them
_NOT_SETTLED = "The page is still loading."


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an episode has besides its pages."""

    gate: Gate
    net: Net
    guard: Guard
    manners: Manners
    folder: Folder
    blobs: Blobs
    settings: BrowserSettings
    facts: BrowserFacts
    by_hand: bool = False
    """Whether a person acts on its pages (policy/demonstrator.py)."""


class Tab:
    """The current page of an episode, whichever tab that is."""

    def __init__(self, given: Surroundings, start_url: str) -> None:
        """Use `open`."""
        self.facts = given.facts
        self.effect = Effect.DONE
        """How the last action went."""
        self.action_class: ActionClass | None = None
        """What could come of the last action."""
        self._by_hand = given.by_hand
        self._gate = given.gate
        self._guard = given.guard
        self._folder = given.folder
        self._settings = given.settings
        self._blobs = given.blobs
        self._start_url = start_url
        self._downloads: dict[Download, asyncio.Task[None]] = {}
        self._file_to_give: Path | None = None
        self._manners = given.manners
        self._busy: Busy | None = None
        self._pages: list[LivePage] = []
        self._opened: list[Page] = []
        self._requests: dict[Request, float] = {}
        self._answered_at = 0.0
        self._loading: tuple[Request, float] | None = None
        self._load_failure = ""
        self._status = 0
        self._notices: list[str] = []
        self._marked: tuple[Element, ...] = ()
        self._seen: LivePage | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, context: BrowserContext, given: Surroundings, start_url: str) -> AsyncIterator["Tab"]:
        """A tab at its start page; its context is closed at the end. Raises BrowserError if the page can't be had."""
        tab = cls(given, start_url)
        with ExitStack() as watching:
            try:
                context_id = await tab._open_page(context)
                watched = Watched(given.guard, context_id, tab._has_frame, tab._may_open)
                watching.enter_context(given.net.episode(watched))
                async with tab._at_start(context):
                    yield tab
            finally:
                await _close(context)  # while it is watched: a page's last words are its own episode's

    @asynccontextmanager
    async def _at_start(self, context: BrowserContext) -> AsyncIterator[None]:
        context.on("page", self._note_new_tab)
        context.on("request", self._note_request)
        context.on("requestfinished", self._note_request_over)
        context.on("requestfailed", self._note_request_failed)
        context.on("dialog", self._answer_dialog)
        context.on("response", self._note_answer)
        try:
            await self._go_home()
            if not await self._settle():
                self._notices.append(_NOT_SETTLED)
            yield
        finally:
            await self._give_up_downloads()

    @property
    def refused(self) -> list[str]:
        """What the episode's pages have tried to reach in vain so far (`Gate.refused`)."""
        return self._gate.refused

    @property
    def side_effects(self) -> list[SideEffect]:
        """The ledger of what the episode has done to the website so far (`Guard.side_effects`)."""
        return self._guard.side_effects

    @property
    def actions(self) -> ActionSpace:
        """What may be done in it."""
        return self._settings.actions

    @property
    def marked(self) -> tuple[Element, ...]:
        """The elements of the latest observation."""
        return self._marked

    @property
    def address(self) -> str:
        """Where the current page is by now."""
        return self._page.page.url

    # What a person does, where one acts (policy/record.js).

    async def demonstrated(self, limit_s: float, *, is_last: bool) -> Action | None:
        """What the person wants done next; None: nothing within the limit.

        `is_last`: what is being typed now is all of it. The page has heard nothing of it. Raises BrowserError.
        """
        try:
            deed = await self._page.ask("demonstrated", round(limit_s * 1000), is_last, limit_s=limit_s)
        except PageMoved:
            return None
        if deed is None:
            return None
        at_point = self.actions is ActionSpace.POINTS and deed["point"] is not None
        where = {"point": deed["point"]} if at_point else {"mark": deed["mark"] or None}
        return Action(kind=ActionKind(deed["kind"]), text=deed["text"], **where)

    async def _take_over(self) -> None:
        """Let what is done from now on reach the page: it is ours."""
        with suppress(PageMoved):
            await self._page.ask("handsOver")

    # What the page does on its own.

    async def _open_page(self, context: BrowserContext) -> str:
        """Open the first page; Chromium's id of the context. Raises BrowserError."""
        try:
            async with asyncio.timeout(self._settings.start_deadline_s):
                await self._adopt(await context.new_page())
                return await self._page.context_id()
        except (Error, TimeoutError, PageMoved) as error:  # a browser that dies closes its pages first: PageMoved
            raise BrowserError(Outcome.RESET_FAILURE, f"no page in a new browser context: {error}") from error

    async def _adopt(self, page: Page) -> None:
        page.on("download", self._note_download)
        page.on("filechooser", self._give_file)
        viewport = ViewportSize(width=self._settings.width_px, height=self._settings.height_px)
        async with asyncio.timeout(self._settings.action_deadline_s):
            if page.viewport_size != viewport:  # a pop-up's own: pictures are to be of one size
                await page.set_viewport_size(viewport)
            attach = LivePage.attach(page, self._settings, self._gate.note_refused, by_hand=self._by_hand)
            self._pages.append(await attach)

    def _has_frame(self, frame: str) -> bool:
        return any(frame in page.frames for page in self._pages)

    def _note_new_tab(self, page: Page) -> None:
        self._opened.append(page)

    def _note_request(self, request: Request) -> None:
        if request.resource_type in _AWAITED:
            self._requests[request] = time.monotonic()
        if _is_page(request):
            self._loading = request, time.monotonic()

    def _note_request_over(self, request: Request) -> None:
        if self._requests.pop(request, None):
            self._answered_at = time.monotonic()
        if self._loading and self._loading[0] == request:
            self._loading, self._load_failure = None, ""

    def _note_answer(self, response: Response) -> None:
        if _is_page(response.request):
            is_busy, is_get = response.status in _BUSY, response.request.method == "GET"
            retry_after_s = read_retry_after(response.headers.get("retry-after"))
            self._busy = Busy(response.url, is_get, retry_after_s) if is_busy else None

    async def _may_open(self, url: str) -> bool:
        if self._gate.refuses(url) or await self._manners.may_open(url):
            return True
        if not self._manners.lacks_rules(url):
            self._tell(f"{url} was not opened: the website's robots.txt closes it to robots.")
        return False

    def _note_request_failed(self, request: Request) -> None:
        if request.failure == _UNSAFE_REDIRECT:
            self._gate.note_refused(f"{request.url}: a redirect to what isn't the web")
        failed_before = self._load_failure
        is_newest = self._loading is not None and self._loading[0] == request
        self._note_request_over(request)
        if is_newest and self._manners.lacks_rules(request.url):
            self._load_failure = f"{request.url}: {_NO_RULES}"
        elif is_newest:
            gave_up = (request.failure or "") in _GIVEN_UP or self._gate.refuses(request.url)
            self._load_failure = failed_before if gave_up else f"{request.url}: {request.failure}"

    @property
    def failure(self) -> str:
        """What the site fails at now, so that what the agent does next isn't its own doing; "" if nothing.

        A page that could not be had (and none since), one that has been loading for longer than a page is given to
        settle, or a server's error (5xx) in place of a page.
        """
        if self._status >= _SERVER_ERROR:
            return f"{self._page.page.url}: HTTP {self._status}"
        if self._loading and time.monotonic() - self._loading[1] > self._settings.settle_deadline_s:
            return f"{self._loading[0].url}: still loading after {self._settings.settle_deadline_s:g} s"
        return self._load_failure

    async def _give_up_downloads(self) -> None:
        for keeping in self._downloads.values():
            keeping.cancel()
        await asyncio.gather(*self._downloads.values(), return_exceptions=True)

    def _note_download(self, download: Download) -> None:
        self._downloads[download] = asyncio.ensure_future(self._keep(download))

    async def _keep(self, download: Download) -> None:
        try:
            self._tell(await self._folder.keep(download))
        finally:
            del self._downloads[download]

    async def _give_file(self, chooser: FileChooser) -> None:
        file, self._file_to_give = self._file_to_give, None
        if file is None:
            self._tell("The page asked for a file; it was given none.")
            return
        with suppress(Error):  # the page may have gone meanwhile
            await chooser.set_files(file)

    async def _answer_dialog(self, dialog: Dialog) -> None:
        said = dialog.message or "Leave this page?"
        accept = dialog.type != "prompt" and (dialog.type != "confirm" or self._guard.may_accept(said))
        answer = "accepted" if accept else "dismissed"
        self._tell(f'The page said: "{said}" ({dialog.type}, {answer}).')
        with suppress(Error):  # the page may have gone with its dialog
            await (dialog.accept() if accept else dialog.dismiss())

    @property
    def _page(self) -> LivePage:
        while len(self._pages) > 1 and self._pages[-1].page.is_closed():
            self._pages.pop()
            self._tell("The tab was closed; this is the tab before it.")
        if self._pages[-1].page.is_closed():
            # Also where it was closed by hand: of a browser that dies, its pages' end is told before its own.
            raise BrowserError(Outcome.BROWSER_CRASH, "the page is closed")
        return self._pages[-1]

    # Observing.

    async def observe(self, notice: str = "") -> Observation:
        """What the agent sees now; `notice` is passed on to it. Raises BrowserError if the site refuses the agent."""
        raw, jpeg = await self._read()
        drawn = () if self.actions is ActionSpace.POINTS else self._marked
        picture = await asyncio.to_thread(self._store_marked, jpeg, drawn)
        return Observation(
            url=raw.url,
            title=raw.title,
            elements=self._marked,
            listing=self._listing(raw),
            screenshot=picture,
            notice=" ".join(filter(None, [notice, *self._take_notices()])),
        )

    async def look(self) -> Look:
        """The page as it is, without marks and for no task."""
        raw, jpeg = await self._read()
        return Look(raw.url, raw.title, raw.text(), self._listing(raw), jpeg)

    async def read_text(self, expression: str, url: str = "") -> str:
        """What a JavaScript expression says of the page, or of the one at `url`, to which the tab then goes.

        No expression: its HTML. "" if it raises, or if `url` is outside this website. Raises BrowserError if the page
        can't be had, or doesn't answer.
        """
        if url:
            if self._gate.refuses(url):
                return ""
            await self._visit(url)
        try:
            return await self._page.read_text(expression or "document.documentElement.outerHTML")
        except PageMoved as error:
            raise BrowserError(Outcome.SITE_ERROR, f"{self._page.page.url} never stops navigating") from error

    async def run_on_page(self, do: Callable[[Page], Awaitable[Result]]) -> Result:
        """Let somebody else do something with Playwright's page; it has then settled. Raises what `do` raises."""
        result = await do(self._page.page)
        await self._settle()
        return result

    def _listing(self, raw: RawPage) -> str:
        return raw.listing(
            page_text=self._settings.page_text,
            max_chars=self._settings.max_listing_chars,
            numbered=self.actions is not ActionSpace.POINTS,
        )

    def _store_marked(self, jpeg: bytes, elements: tuple[Element, ...]) -> str:
        return self._blobs.put(draw_marks(jpeg, elements, self._settings.jpeg_quality))

    async def _read(self) -> tuple[RawPage, bytes]:
        """One pass over the page and its picture, both of one document."""
        deadline = time.monotonic() + self._settings.action_deadline_s
        while True:
            page = self._page
            try:
                panes = self.actions is ActionSpace.FULL
                read, jpeg = await asyncio.gather(page.ask("collect", panes), page.capture())
            except PageMoved as error:
                if time.monotonic() > deadline:
                    raise BrowserError(Outcome.SITE_ERROR, f"{page.page.url} never stops navigating") from error
            else:
                raw = RawPage.model_validate(read)
                self._seen, self._marked, self._status = page, raw.marked(), raw.status
                if await self._came_back():
                    continue
                if block := find_block(raw.status, raw.title, raw.text(), [frame.url for frame in page.page.frames]):
                    raise BrowserError(Outcome.BLOCKED, f"{raw.url}: {block}")
                if raw.status == _UNAUTHORISED:
                    self._tell("This page asks for a user name and a password; it was given none.")
                return raw, jpeg

    def _tell(self, notice: str) -> None:
        """Note something for the agent: once, in few words, not without end (a page can ask for attention forever)."""
        notice = well_formed(notice)
        notice = notice if len(notice) <= _MAX_NOTICE_CHARS else notice[: _MAX_NOTICE_CHARS - 1] + "…"
        if notice not in self._notices and len(self._notices) < _MAX_NOTICES:
            self._notices.append(notice)

    def _take_notices(self) -> list[str]:
        notices, self._notices = self._notices, []
        return notices

    # Acting.

    async def act(self, action: Action, observation: Observation) -> str:
        """What the agent is to be told about its action, "" if all went well; the page has then settled.

        `effect` then says how it went. Raises BrowserError if the episode can't go on: crash, site error, a page that
        doesn't answer.
        """
        self.action_class = None
        if action.kind is ActionKind.ANSWER:
            self.effect = Effect.DONE
            return ""
        self.effect, problem = self._missing(action, observation) or await self._rule(action)
        if not problem:
            if self._by_hand and action.kind not in _HANDS_OFF:
                await self._take_over()
            self.effect, problem = await self._perform(action)
        settled = problem != "" or await self._settle()
        for held_back in self._guard.take_held_back():
            self.effect = Effect.REFUSED
            self._tell(held_back)
        return " ".join(filter(None, [problem, *self._take_notices(), "" if settled else _NOT_SETTLED]))

    async def _rule(self, action: Action) -> Done:
        """What the guard says of an action before it is done."""
        target = None
        with suppress(PageMoved):  # then what comes of it is for the net below to hold
            target = await target_of(self._page, action)
        ruling = await self._guard.rule(action, target)
        self.action_class = ruling.of
        return Done(Effect.REFUSED, ruling.why_not) if ruling.why_not else DONE

    async def _perform(self, action: Action) -> Done:
        try:
            match action.kind:
                case ActionKind.GO_BACK:
                    self._load_failure = ""  # the agent leaves what failed
                    await self._manners.take_turn(self._page.page.url)
                    return await self._go_back()
                case ActionKind.WAIT:
                    await self._page.ask("change", round(_WAIT_S * 1000), limit_s=_WAIT_S)
                case ActionKind.HOME:
                    await self._go_home()
                case ActionKind.UPLOAD:
                    return await self._upload(action)
                case _:
                    if action.kind in _MAY_LOAD:
                        await self._manners.take_turn(self._page.page.url)
                    return await act_on_page(self._page, action)
        except PageMoved:
            pass  # the page went elsewhere meanwhile; settling waits for the new one
        return DONE

    def _missing(self, action: Action, observation: Observation) -> Done | None:
        """What an action is on and that isn't there any more; None: nothing."""
        if action.kind not in _HANDS_OFF and self._page is not self._seen:
            # A pop-up that has closed itself: the page below has marks of its own, of which the agent knows nothing.
            return Done(Effect.GONE, "The page that you saw is no longer there.")
        for mark in (action.mark, action.to_mark):
            if mark is None:
                continue
            if not 1 <= mark <= len(observation.elements):
                return Done(Effect.GONE, f"There is no [{mark}] on this page.")
            if self._marked != observation.elements:
                return Done(Effect.GONE, f"Element [{mark}] is no longer there.")
        return None

    async def _upload(self, action: Action) -> Done:
        """Click what asks for a file, and give it the one named."""
        self._file_to_give = self._folder.find(action.text)
        if self._file_to_give is None:
            return Done(Effect.UNFIT, f"There is no file {action.text}; there are: {', '.join(self._folder.names())}.")
        done = await act_on_page(self._page, action.model_copy(update={"kind": ActionKind.CLICK, "text": ""}))
        deadline = time.monotonic() + self._settings.settle_deadline_s
        while done == DONE and self._file_to_give and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        asked, self._file_to_give = self._file_to_give is None, None
        return done if asked or done != DONE else Done(Effect.UNFIT, "Nothing there asks for a file.")

    async def _go_back(self) -> Done:
        if await self._page.go_back():
            return DONE
        if len(self._pages) == 1:
            return Done(Effect.NOTHING, "There is no page to go back to.")
        await self._pages.pop().page.close()
        return Done(Effect.DONE, "The tab was closed; this is the tab before it.")

    async def _go_home(self) -> None:
        """To the start page. Raises BrowserError if the site doesn't show it."""
        status = await self._go_to(self._start_url)
        if status >= 400:
            raise BrowserError(Outcome.SITE_ERROR, f"{self._start_url}: HTTP {status}")

    async def _visit(self, url: str) -> None:
        """To a page, which has then settled, or to the site's word that there is none (404). Raises BrowserError."""
        await self._go_to(url)
        await self._settle()
        await self._read()
        if self.failure:
            raise BrowserError(Outcome.SITE_ERROR, self.failure)

    async def _go_to(self, url: str) -> int:
        """To a page: its HTTP status, 0 if it has none. Raises BrowserError if it can't be had, or the site refuses."""
        await self._manners.take_turn(url)
        status = await self._open_address(url)
        while self._busy and await self._manners.may_return(self._busy):
            status = await self._open_address(url)
        if block := find_block(status, "", ""):
            raise BrowserError(Outcome.BLOCKED, f"{url}: {block}")
        return status

    async def _open_address(self, url: str) -> int:
        timeout_ms, self._busy = self._settings.start_deadline_s * 1000, None
        num_closed = len(self._manners.closed)
        try:
            response = await self._page.page.goto(url, wait_until="domcontentloaded", timeout=timeout_ms)
        except (Error, PlaywrightTimeout) as error:
            if len(self._manners.closed) > num_closed:
                raise BrowserError(Outcome.BLOCKED, f"robots.txt closes {self._manners.closed[-1]}") from error
            if self._manners.lacks_rules(url):
                raise BrowserError(Outcome.SITE_ERROR, f"{url}: {_NO_RULES}") from error
            outside = f" (outside this website: {', '.join(self.refused)})" if self.refused else ""
            raise _load_error(error, outside) from error
        return response.status if response else 0

    async def _came_back(self) -> bool:
        """Whether the website was too busy to answer, and its page has been asked for once more, after a while."""
        busy, self._busy = self._busy, None
        if busy is None or not await self._manners.may_return(busy):
            return False
        try:
            await self._page.page.reload(wait_until="domcontentloaded", timeout=self._settings.start_deadline_s * 1000)
        except (Error, PlaywrightTimeout) as error:
            raise _load_error(error) from error
        await self._settle()
        return True

    # Settling.

    async def _settle(self) -> bool:
        """Whether the page came to rest by the deadline; a new tab is then current, an unreachable page left again."""
        deadline = time.monotonic() + self._settings.settle_deadline_s
        settled = await self._come_to_rest(deadline)
        if not self._page.page.url.startswith(_WEB):
            failure = self._load_failure
            with suppress(PageMoved):
                await self._leave_foreign_page()
            settled = await self._come_to_rest(time.monotonic() + self._settings.settle_deadline_s)
            self._load_failure = failure  # that the page before is still there is no answer of the site
        return settled

    async def _come_to_rest(self, deadline: float) -> bool:
        afresh = True
        while (left_s := deadline - time.monotonic()) > 0:
            await self._follow_new_tabs(deadline)
            try:
                quiet = await self._page.is_quiet(left_s, afresh=afresh)
            except PageMoved:
                continue
            finally:
                afresh = False
            if self._is_waiting():
                await asyncio.sleep(_POLL_S)
            elif not self._opened and not self._page.num_opening:
                return quiet
        return False

    def _is_waiting(self) -> bool:
        """Whether an answer of the network may still change the page, or came just now."""
        if self._page.is_navigating or self._downloads:
            return True
        now = time.monotonic()
        just_now = now - self._answered_at < self._settings.settle_quiet_ms / 1000
        return just_now or any(now - asked_at < _LONG_POLL_S for asked_at in self._requests.values())

    async def _follow_new_tabs(self, deadline: float) -> None:
        page = self._page
        while page.num_opening > len(self._opened) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        page.num_opening = 0
        while self._opened:
            opened = self._opened.pop(0)
            try:
                await self._adopt(opened)
                await opened.wait_for_load_state("domcontentloaded", timeout=_left_ms(deadline))
            except PlaywrightTimeout:
                logger.info("a new tab is slow to load")
            except (Error, TimeoutError) as error:
                logger.info("a new tab closed at once, or never answered: %s", error)
                continue
            self._tell("A new tab was opened; this is the new tab.")

    async def _leave_foreign_page(self) -> None:
        """Away from the browser's own error page, or whatever isn't the web: the agent is told and is where it was."""
        url = await self._page.wanted_url()
        outside = self._gate.refuses(url)
        if outside and not url.startswith(_WEB):
            self._gate.note_refused(url)  # never asked of the network
        self._tell(f"{url} " + ("is outside this website." if outside else "could not be opened."))
        if await self._go_back() != DONE:
            await self._go_home()


def _is_page(request: Request) -> bool:
    """Whether a request is for a whole page, not for a part of one."""
    with suppress(Error):  # a new tab may have no frame yet
        return request.is_navigation_request() and request.frame.parent_frame is None
    return False


def _load_error(error: Error, more: str = "") -> BrowserError:
    """A page that could not be had, in our terms; `more` is said where it is the site's doing."""
    text = str(error).split("\n", 1)[0]
    if "crash" in text or "closed" in text:
        return BrowserError(Outcome.BROWSER_CRASH, text)
    return BrowserError(Outcome.SITE_ERROR, text + more)


async def _close(context: BrowserContext) -> None:
    with suppress(Error, TimeoutError):  # a crashed browser has closed it already; a hung one is closed whole, later
        async with asyncio.timeout(CLOSE_DEADLINE_S):
            await context.close()


def _left_ms(deadline: float) -> float:
    return max(1.0, (deadline - time.monotonic()) * 1000)
