"""Browser: one Chromium, many episodes at once, each in a context of its own. The environment of the agent.

Chromium dies with its owner: Playwright drives it over a pipe, and it exits when the pipe closes, however that came.
"""

import asyncio
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self
from xml.sax.saxutils import escape

import psutil
from playwright.async_api import Browser as Chromium
from playwright.async_api import BrowserContext, Error, Playwright, async_playwright

from policy.blobs import Blobs
from policy.browser_files import Folder
from policy.browser_manners import Manners
from policy.browser_net import Net
from policy.browser_proxy import AllowList, Gate
from policy.browser_settings import BrowserError, BrowserSettings
from policy.browser_tab import CLOSE_DEADLINE_S, Surroundings, Tab
from policy.guard import Ask, Guard
from policy.manners import Pace, Pacer
from policy.robots import Robots
from policy.trajectory import BrowserFacts, Outcome

__all__ = ["Browser", "BrowserError", "BrowserSettings", "Tab", "find_executable"]

logger = logging.getLogger(__name__)

_COMMANDS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # names are the gate's business: look-ups tell too
)
_DEVICE_SCALE_FACTOR = 1
_FONT_FAMILIES = ("serif", "sans-serif", "monospace", "system-ui")


def find_executable(settings: BrowserSettings, bundled: str, *, headed: bool = False) -> str | None:
    """Path of the Chromium to use; None: Playwright's own, which it finds itself (`bundled` is where it would be).

    `headed`: one that can show a window. Raises BrowserError if there is none.
    """
    if settings.executable is None and Path(bundled).exists():
        return None
    commands = _COMMANDS[1:] if headed else _COMMANDS
    candidates = [settings.executable] if settings.executable else list(commands)
    for candidate in candidates:
        if found := shutil.which(candidate):
            return found
    looked_for = ", ".join(candidates if settings.executable else [bundled, *candidates])
    raise BrowserError(Outcome.RESET_FAILURE, f"no Chromium found; looked for {looked_for}. Try: apt install chromium")


@dataclass(slots=True)
class _Process:
    """A running Chromium and what it has carried."""

    playwright: Playwright
    """Its driver, a process of its own that grows with the episodes too, and so is recycled with it."""
    chromium: Chromium
    root: psutil.Process | None
    """Its first process; None if it couldn't be told."""
    net: Net
    facts: BrowserFacts
    scratch: tempfile.TemporaryDirectory[str] | None
    """Files of ours that Chromium reads; None: none."""
    num_open: int = 0
    num_begun: int = 0

    def memory_mb(self) -> float:
        """Memory of all its processes, MB: resident pages that they don't share, and the first one's shared ones."""
        if self.root is None:
            return 0.0
        with suppress(psutil.Error):  # one has just ended: the next episode looks again
            each = [process.memory_info() for process in (self.root, *self.root.children(recursive=True))]
            shared = [getattr(memory, "shared", 0) for memory in each]  # told on Linux only
            return (sum(memory.rss for memory in each) - sum(shared[1:])) / 1e6
        return 0.0


class Browser:
    """Chromium for many concurrent episodes; an async context manager. It restarts Chromium where that is needed."""

    def __init__(
        self,
        settings: BrowserSettings,
        blobs: Blobs,
        *,
        ask: Ask | None = None,
        pacer: Pacer | None = None,
        headed: bool = False,
        by_hand: bool = False,
    ) -> None:
        """Nothing starts before the context manager is entered.

        Args:
            settings: What a run may choose.
            blobs: Where pictures go, unless an episode says.
            ask: Who is asked about irreversible actions where the settings say so; None: nobody, so that they are
                refused.
            pacer: Who says when a page of a live website may be loaded; None: this browser has nobody beside it.
            headed: Whether its window is shown.
            by_hand: Whether a person acts on its pages (policy/demonstrator.py).
        """
        self._settings = settings
        self._ask = ask
        self._pacer = pacer or Pace(settings.politeness)
        self._robots = Robots(settings.politeness.robots_name)
        self._headed = headed
        self._by_hand = by_hand
        self.blobs = blobs
        self._process: _Process | None = None
        self._launching = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Start Chromium. Raises BrowserError if there is none or it does not start."""
        self._process = await self._launch()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process:
            await _close(self._process)

    @property
    def version(self) -> str:
        """Version of the running Chromium, for the record of a run."""
        return self._process.chromium.version if self._process else ""

    @property
    def facts(self) -> BrowserFacts:
        """What it shows pages by, as trajectories record it; known once it has started."""
        assert self._process is not None, "a browser has facts once it has started"
        return self._process.facts

    async def _launch(self) -> _Process:
        scratch = tempfile.TemporaryDirectory(prefix="pae-browser-") if self._settings.fonts else None
        playwright = await async_playwright().start()
        try:
            return await self._launch_with(playwright, scratch)
        except BaseException:  # also cancelled
            await playwright.stop()
            if scratch:
                scratch.cleanup()
            raise

    async def _launch_with(self, playwright: Playwright, scratch: tempfile.TemporaryDirectory[str] | None) -> _Process:
        settings = self._settings
        engine = playwright.chromium
        bundled = engine.executable_path
        executable = find_executable(settings, bundled, headed=self._headed)
        as_root = os.geteuid() == 0
        if as_root:
            _tell_no_sandbox()
        before = _roots()
        try:
            chromium = await engine.launch(
                executable_path=executable,
                headless=not self._headed,
                chromium_sandbox=not as_root,
                args=list(_FLAGS),
                env=_fonts_only(settings.fonts, scratch.name) if settings.fonts and scratch else None,
                timeout=settings.start_deadline_s * 1000,
            )
            async with asyncio.timeout(settings.start_deadline_s):
                net = await Net.spread(chromium)
                fonts = await _drawn_fonts(chromium)
        except (Error, TimeoutError) as error:
            said = str(error) or "it does not answer"
            raise BrowserError(Outcome.RESET_FAILURE, f"{executable or bundled} does not start: {said}") from error
        if settings.build is not None and not f"{chromium.version}.".startswith(f"{settings.build}."):
            raise BrowserError(
                Outcome.RESET_FAILURE, f"{executable or bundled} is Chromium {chromium.version}, not {settings.build}"
            )
        logger.info("started Chromium %s: %s", chromium.version, executable or bundled)
        started = sorted(_roots() - before, key=lambda process: (process.create_time(), process.pid))
        root = next(iter(started), None)  # a script may have started it: then that comes first
        facts = _facts(settings, chromium.version, executable or bundled, fonts, sandbox=not as_root)
        return _Process(playwright, chromium, root, net, facts, scratch)

    @asynccontextmanager
    async def episode(
        self, start_url: str, allowed_hosts: Sequence[str] = (), blobs: Blobs | None = None
    ) -> AsyncIterator[Tab]:
        """A tab of a fresh context at `start_url`; nothing of it outlives the episode, but its pictures in `blobs`.

        Only the start address and `allowed_hosts` can be reached (`AllowList`). `blobs` None: the browser's. Raises
        BrowserError: RESET_FAILURE (no context), SITE_ERROR or BLOCKED (no start page), BROWSER_CRASH; ValueError for
        an address that isn't http(s).
        """
        settings = self._settings
        allowed = AllowList.of(start_url, allowed_hosts)
        with _folder(settings) as folder:
            async with _gate(allowed, settings.max_traffic_mb) as gate, self._use_process() as process:
                context = await self._open_context(process, gate)
                given = self._surround(process, context, gate, folder, blobs or self.blobs)
                async with Tab.open(context, given, start_url) as tab:
                    yield tab

    def _surround(
        self, process: _Process, context: BrowserContext, gate: Gate, folder: Folder, blobs: Blobs
    ) -> Surroundings:
        settings, is_practice = self._settings, gate.allowed.is_practice
        return Surroundings(
            gate=gate,
            net=process.net,
            guard=Guard(settings.guard.conduct(is_practice=is_practice), settings.guard, self._ask),
            manners=Manners(settings, self._pacer, self._robots, context.request, is_practice=is_practice),
            folder=folder,
            blobs=blobs,
            settings=settings,
            facts=process.facts,
            by_hand=self._by_hand,
        )

    @asynccontextmanager
    async def _use_process(self) -> AsyncIterator[_Process]:
        process = await self._take_process()
        try:
            yield process
        finally:
            process.num_open -= 1
            if process is not self._process and process.num_open == 0:
                await _close(process)

    async def _take_process(self) -> _Process:
        """The process for a new episode: the present one, or a fresh one if that has crashed or served its time."""
        async with self._launching:
            process = self._process
            if process is None or not process.chromium.is_connected() or await self._is_worn(process):
                fresh = await self._launch()
                if process and process.num_open == 0:
                    await _close(process)
                self._process = process = fresh
            process.num_begun += 1
            process.num_open += 1
            return process

    async def _is_worn(self, process: _Process) -> bool:
        settings = self._settings
        aged = process.num_begun >= settings.recycle_after
        return aged or await asyncio.to_thread(process.memory_mb) > settings.recycle_mb

    async def _open_context(self, process: _Process, gate: Gate) -> BrowserContext:
        settings = self._settings
        try:
            async with asyncio.timeout(settings.start_deadline_s):
                return await process.chromium.new_context(
                    viewport={"width": settings.width_px, "height": settings.height_px},
                    device_scale_factor=_DEVICE_SCALE_FACTOR,
                    locale=settings.locale,
                    timezone_id=settings.time_zone,
                    color_scheme=settings.colour_scheme,
                    reduced_motion="reduce",
                    service_workers="block",
                    accept_downloads=settings.max_download_mb > 0,
                    proxy={"server": gate.address},
                )
        except (Error, TimeoutError) as error:
            if self._process is process:
                self._process = None  # the next episode gets another: where the driver died, Playwright doesn't tell
            raise BrowserError(Outcome.RESET_FAILURE, f"no browser context: {error}") from error


@contextmanager
def _folder(settings: BrowserSettings) -> Iterator[Folder]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(Folder.open(settings.files, settings.max_download_mb))
        except OSError as error:
            raise BrowserError(Outcome.RESET_FAILURE, f"no folder for the episode: {error}") from error
        yield folder  # the episode's own errors are its own


@cache  # once in a process, not at every recycled browser
def _tell_no_sandbox() -> None:
    logger.warning("running as root: Chromium's sandbox is off")


def _facts(
    settings: BrowserSettings, build: str, executable: str, fonts: dict[str, str], *, sandbox: bool
) -> BrowserFacts:
    return BrowserFacts(
        build=build,
        executable=executable,
        platform=f"{platform.system()} {platform.machine()}",
        sandbox=sandbox,
        viewport=(settings.width_px, settings.height_px),
        device_scale_factor=_DEVICE_SCALE_FACTOR,
        locale=settings.locale,
        time_zone=settings.time_zone,
        colour_scheme=settings.colour_scheme,
        reduced_motion=True,
        fonts=fonts,
    )


def _fonts_only(folder: str, scratch: str) -> dict[str, str | float | bool]:
    """The environment of a program that is to see the fonts of a folder alone."""
    config = Path(scratch) / "fonts.conf"
    places = f"<dir>{escape(str(Path(folder).resolve()))}</dir><cachedir>{escape(scratch)}</cachedir>"
    config.write_text(f"<?xml version='1.0'?><fontconfig>{places}</fontconfig>")
    return {**os.environ, "FONTCONFIG_FILE": str(config)}


async def _drawn_fonts(chromium: Chromium) -> dict[str, str]:
    """What the generic font families are drawn with."""
    context = await chromium.new_context()
    page = await context.new_page()
    session = await context.new_cdp_session(page)
    await page.set_content(
        "".join(f"<p style='font-family:{family};visibility:hidden'>Ag</p>" for family in _FONT_FAMILIES)
    )
    for domain in ("DOM", "CSS"):
        await session.send(f"{domain}.enable")
    root = (await session.send("DOM.getDocument"))["root"]["nodeId"]
    nodes = (await session.send("DOM.querySelectorAll", {"nodeId": root, "selector": "p"}))["nodeIds"]
    used = [await session.send("CSS.getPlatformFontsForNode", {"nodeId": node}) for node in nodes]
    await context.close()
    names = (fonts["fonts"][0]["familyName"] if fonts["fonts"] else "none" for fonts in used)
    return dict(zip(_FONT_FAMILIES, names, strict=True))


@asynccontextmanager
async def _gate(allowed: AllowList, max_traffic_mb: float) -> AsyncIterator[Gate]:
    try:
        gate = await Gate.open(allowed, max_traffic_mb * 1e6)
    except OSError as error:
        raise BrowserError(Outcome.RESET_FAILURE, f"no proxy for the episode: {error}") from error
    try:
        yield gate
    finally:
        await gate.close()


def _roots() -> set[psutil.Process]:
    """The first processes of the browsers that this process has started."""
    return set(filter(_is_first, psutil.Process().children(recursive=True)))


def _is_first(process: psutil.Process) -> bool:
    """Whether it is the first process of a browser: the others are told their `--type`."""
    try:
        return "chrom" in process.name() and not any(word.startswith("--type=") for word in process.cmdline())
    except psutil.Error:  # it has ended
        return False


async def _close(process: _Process) -> None:
    for end in (process.chromium.close, process.playwright.stop):
        with suppress(Error, TimeoutError):  # it has gone already
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await end()
    if process.scratch:
        process.scratch.cleanup()
