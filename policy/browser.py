"""Browser: one Chromium, many episodes at once, each in a context of its own. The environment of the agent.

Chromium dies with its owner: Playwright drives it over a pipe, and it exits when the pipe closes, however that came.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.async_api import Browser as Chromium
from playwright.async_api import BrowserContext, Error, Playwright, async_playwright

from policy.blobs import Blobs
from policy.browser_proxy import AllowList, Gate
from policy.browser_settings import BrowserError, BrowserSettings
from policy.browser_tab import Tab
from policy.trajectory import Outcome

__all__ = ["Browser", "BrowserError", "BrowserSettings", "Tab", "find_executable"]

logger = logging.getLogger(__name__)

_COMMANDS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
)
_CLOSE_DEADLINE_S = 5.0


def find_executable(settings: BrowserSettings, bundled: str) -> str | None:
    """Path of the Chromium to use; None: Playwright's own, which it finds itself (`bundled` is where it would be).

    Raises BrowserError if there is none.
    """
    if settings.executable is None and Path(bundled).exists():
        return None
    candidates = [settings.executable] if settings.executable else list(_COMMANDS)
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

    def __init__(self, settings: BrowserSettings, blobs: Blobs) -> None:
        """Nothing starts before the context manager is entered; `blobs`: where pictures go, unless an episode says."""
        self._settings = settings
        self.blobs = blobs
        self._process: _Process | None = None
        self._launching = asyncio.Lock()

    async def __aenter__(self) -> "Browser":
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

    async def _launch(self) -> _Process:
        playwright = await async_playwright().start()
        try:
            return await self._launch_with(playwright)
        except BaseException:  # also cancelled
            await playwright.stop()
            raise

    async def _launch_with(self, playwright: Playwright) -> _Process:
        engine = playwright.chromium
        bundled = engine.executable_path
        executable = find_executable(self._settings, bundled)
        as_root = os.geteuid() == 0
        if as_root:
            logger.warning("running as root: Chromium's sandbox is off")
        before = _roots()
        try:
            chromium = await engine.launch(
                executable_path=executable,
                headless=True,
                chromium_sandbox=not as_root,
                args=list(_FLAGS),
                timeout=self._settings.start_deadline_s * 1000,
            )
        except Error as error:
            raise BrowserError(Outcome.RESET_FAILURE, f"{executable or bundled} does not start: {error}") from error
        logger.info("started Chromium %s: %s", chromium.version, executable or bundled)
        started = sorted(_roots() - before, key=lambda process: (process.create_time(), process.pid))
        root = next(iter(started), None)  # a script may have started it: then that comes first
        return _Process(playwright, chromium, root)

    @asynccontextmanager
    async def episode(
        self, start_url: str, allowed_hosts: Sequence[str] = (), blobs: Blobs | None = None
    ) -> AsyncIterator[Tab]:
        """A tab of a fresh context at `start_url`; nothing of it outlives the episode, but its pictures in `blobs`.

        Only the start address and `allowed_hosts` can be reached (`AllowList`). `blobs` None: the browser's. Raises
        BrowserError: RESET_FAILURE (no context), SITE_ERROR or BLOCKED (no start page), BROWSER_CRASH; ValueError for
        an address that isn't http(s).
        """
        async with _gate(AllowList.of(start_url, allowed_hosts)) as gate, self._use_process() as process:
            context = await self._open_context(process, gate)
            try:
                yield await Tab.open(context, gate, self._settings, blobs or self.blobs, start_url)
            finally:
                await _close_context(context)

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
            return await process.chromium.new_context(
                viewport={"width": settings.width_px, "height": settings.height_px},
                device_scale_factor=1,
                locale="en-US",
                timezone_id="UTC",
                color_scheme="light",
                reduced_motion="reduce",
                service_workers="block",
                accept_downloads=False,
                proxy={"server": gate.address},
            )
        except Error as error:
            if self._process is process:
                self._process = None  # the next episode gets another: where the driver died, Playwright doesn't tell
            raise BrowserError(Outcome.RESET_FAILURE, f"no browser context: {error}") from error


@asynccontextmanager
async def _gate(allowed: AllowList) -> AsyncIterator[Gate]:
    try:
        gate = await Gate.open(allowed)
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


async def _close_context(context: BrowserContext) -> None:
    with suppress(Error, TimeoutError):  # a crashed browser has closed it already; a hung one is closed whole, later
        async with asyncio.timeout(_CLOSE_DEADLINE_S):
            await context.close()


async def _close(process: _Process) -> None:
    for end in (process.chromium.close, process.playwright.stop):
        with suppress(Error, TimeoutError):  # it has gone already
            async with asyncio.timeout(_CLOSE_DEADLINE_S):
                await end()
