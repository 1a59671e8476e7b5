"""How many steps a second, and at what price? Our browser against BrowserGym, plain Playwright, and bare screenshots.

One page, a shop of 60 product cards with about 125 interactive elements, served on loopback; the actions are the same
everywhere, a click on "Add" of one product after the other. A step is to act, to settle and to observe:

- ours: `Tab.act` and `Tab.observe` (elements, listing, picture with marks), contexts side by side in one Chromium;
- BrowserGym: ``step`` with its usual observation (DOM, accessibility tree, screenshot), a process for each environment:
  as it comes; with ``slow_mo`` at 0, which its settings can do; and without any pause (`Pauses`), which is the one that
  ours is compared with;
- Playwright: click and ``page.screenshot``, without elements or marks, contexts side by side in one Chromium;
- the limit: nothing but ``Page.captureScreenshot``, over and over.

All with the same Chromium, in turn, several times; medians. CPU time is of all processes together. Memory per context
is what Chromium grew by with ours. Needs the extra ``browsergym``.

    python -m bench.browser_steps --contexts 4 --seed 0
"""

import asyncio
import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Annotated, Any

import psutil
import typer
from playwright.async_api import Page, async_playwright

from bench.round_profile import MB, tree_memory
from bench.small_site import SmallSite
from policy.blobs import MemoryBlobs
from policy.browser import Browser, BrowserSettings, find_executable
from policy.trajectory import Action, ActionKind

NUM_PRODUCTS = 60
SIZE = {"width": 1024, "height": 768}
READY_S = 120.0
"""For all environments of BrowserGym to start."""


class Pauses(StrEnum):
    """Which of BrowserGym's pauses are left."""

    AS_IT_COMES = "browsergym_as_it_comes"
    BY_SETTINGS = "browsergym_slow_mo_0"
    """All but those that no setting turns off: half a second after each action, in 0.13.3."""
    NONE = "browsergym"
    """Not even those: ``time.sleep`` in its environment does nothing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one way of stepping took."""

    steps_per_s: float
    cpu_ms_per_step: float


def shop() -> str:
    """The page."""
    card = (
        "<li style='display:inline-block;width:150px;margin:4px;border:1px solid #ccc'><a href='#p{n}'>Product {n}</a>"
        "<p>${n}.50</p><button onclick='add({n})' id=b{n}>Add {n}</button></li>"
    )
    cards = "".join(card.format(n=n) for n in range(NUM_PRODUCTS))
    return (
        "<title>Shop</title><input type=search aria-label=Search><a href='#cart'>Cart</a> <b id=cart>0</b>"
        f"<ul style='padding:0'>{cards}</ul>"
        "<script>let n = 0; const add = (p) => { document.getElementById('cart').textContent = `${++n} ${p}` }</script>"
    )


def cpu_s() -> float:
    """CPU seconds of this process and all that it started and that still run."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


async def timed(step: Callable[[int, int], Awaitable[object]], contexts: int, steps: int) -> Measured:
    """Steps in each of the contexts, side by side; `step` is told context and number."""

    async def walk(context: int) -> None:
        for number in range(steps):
            await step(context, number)

    before, started = cpu_s(), time.monotonic()
    await asyncio.gather(*map(walk, range(contexts)))
    return _measured(contexts * steps, time.monotonic() - started, cpu_s() - before)


def _measured(num_steps: int, seconds: float, cpu: float) -> Measured:
    return Measured(num_steps / seconds, 1000 * cpu / num_steps)


async def measure_ours(url: str, contexts: int, steps: int) -> tuple[Measured, float, float]:
    """Our browser; also MB per context, and the seconds that one took to open, start page and all."""
    async with Browser(BrowserSettings(), MemoryBlobs()) as browser, AsyncExitStack() as stack:
        before_mb = _memory_mb()
        started = time.monotonic()
        tabs = [await stack.enter_async_context(browser.episode(url)) for _ in range(contexts)]
        opening_s = (time.monotonic() - started) / contexts
        seen = [await tab.observe() for tab in tabs]

        async def step(context: int, number: int) -> None:
            tab, observation = tabs[context], seen[context]
            wanted = f"Add {number % 20}"  # of those in view at first
            mark = next(element.mark for element in observation.elements if element.name == wanted)
            notice = await tab.act(Action(kind=ActionKind.CLICK, mark=mark), observation)
            seen[context] = await tab.observe(notice)

        measured = await timed(step, contexts, steps)
        return measured, (_memory_mb() - before_mb) / contexts, opening_s


def _memory_mb() -> float:
    return tree_memory(set(), psutil.Process()).total() / MB


@asynccontextmanager
async def plain_pages(url: str, executable: str | None, contexts: int) -> AsyncIterator[list[Page]]:
    """Pages of Playwright's own, a context each."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=executable)
        opened = [await chromium.new_context(viewport={"width": 1024, "height": 768}) for _ in range(contexts)]
        pages = [await context.new_page() for context in opened]
        for page in pages:
            await page.goto(url)
        yield pages
        await chromium.close()


async def measure_playwright(url: str, executable: str | None, contexts: int, steps: int) -> Measured:
    """Clicks and screenshots without elements or marks."""
    async with plain_pages(url, executable, contexts) as pages:

        async def step(context: int, number: int) -> None:
            await pages[context].click(f"#b{number % 20}")
            await pages[context].screenshot(type="jpeg", quality=80)

        return await timed(step, contexts, steps)


async def measure_screenshots(url: str, executable: str | None, contexts: int, steps: int) -> Measured:
    """Screenshots alone."""
    async with plain_pages(url, executable, contexts) as pages:
        sessions = [await page.context.new_cdp_session(page) for page in pages]
        parameters = {"format": "jpeg", "quality": 80, "optimizeForSpeed": True}

        async def step(context: int, number: int) -> None:
            await sessions[context].send("Page.captureScreenshot", parameters)

        return await timed(step, contexts, steps)


def browsers_path(executable: str, bundled: str, folder: Path) -> None:
    """Have Playwright find our Chromium as its own, which BrowserGym starts without asking which."""
    match = re.search(r"chromium-(\d+)", bundled)
    assert match is not None, f"{bundled}: expected Playwright's Chromium there"
    places = {
        f"chromium_headless_shell-{match[1]}": "chrome-headless-shell-linux64/chrome-headless-shell",
        f"chromium-{match[1]}": "chrome-linux64/chrome",
    }
    for name, path in places.items():
        link = folder / name / path
        link.parent.mkdir(parents=True)
        link.symlink_to(executable)
        (folder / name / "INSTALLATION_COMPLETE").touch()
    os.environ["PLAYWRIGHT_BROWSERS_PATH"] = str(folder)


def gym_steps(url: str, steps: int, pauses: Pauses, failed: Any, ready: Any, go: Any, done: Any, leave: Any) -> None:
    """A process with one environment of BrowserGym: start, say so, wait, step, say so, stay until told to leave."""
    import browsergym.core.env  # registers  # pyright: ignore[reportMissingImports]
    import gymnasium

    if pauses is Pauses.NONE:
        browsergym.core.env.time = SimpleNamespace(time=time.time, sleep=lambda _: None)
    env = gymnasium.make(
        "browsergym/openended",
        disable_env_checker=True,
        task_kwargs={"start_url": url, "goal": "Shop."},
        viewport=SIZE,
        **({} if pauses is Pauses.AS_IT_COMES else {"slow_mo": 0}),
    )
    seen, _ = env.reset()
    ready.release()
    go.wait()
    for number in range(steps):
        seen, *_ = env.step(f'click("{_bid(seen, f"Add {number % 20}")}")')
        if seen["last_action_error"]:  # it gives a click half a second
            with failed:
                failed.value += 1
    done.release()
    leave.wait()
    env.close()


def _bid(seen: dict[str, Any], name: str) -> str:
    """BrowserGym's id of the button of that name."""
    for node in seen["axtree_object"]["nodes"]:
        if node.get("name", {}).get("value") == name and node["role"]["value"] == "button":
            return node["browsergym_id"]
    raise LookupError(name)


def measure_browsergym(url: str, contexts: int, steps: int, pauses: Pauses) -> tuple[Measured, int]:
    """Environments of BrowserGym, each in a process; also how many of their clicks failed."""
    context = multiprocessing.get_context("spawn")
    ready, done, go, leave = context.Semaphore(0), context.Semaphore(0), context.Event(), context.Event()
    failed = context.Value("i", 0)
    given = (url, steps, pauses, failed, ready, go, done, leave)
    workers = [context.Process(target=gym_steps, args=given) for _ in range(contexts)]
    for worker in workers:
        worker.start()
    try:
        for _ in workers:
            assert ready.acquire(timeout=READY_S), "an environment of BrowserGym does not start"
        before, started = cpu_s(), time.monotonic()
        go.set()
        for _ in workers:
            assert done.acquire(timeout=READY_S + 10 * steps), "an environment of BrowserGym does not step"
        measured = _measured(contexts * steps, time.monotonic() - started, cpu_s() - before)
        leave.set()
        for worker in workers:
            worker.join(READY_S)
        return measured, failed.value
    finally:
        for worker in workers:
            worker.kill()


async def _bundled() -> str:
    async with async_playwright() as playwright:
        return playwright.chromium.executable_path


def main(
    contexts: Annotated[int, typer.Option(help="Contexts, or environments, side by side.", min=1, max=16)] = 4,
    steps: Annotated[int, typer.Option(help="Steps in each of them, each time.", min=1)] = 20,
    repeats: Annotated[int, typer.Option(help="Times that everything is measured.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Unused: nothing is left to chance.", min=0)] = 0,
) -> None:
    """Measure all in turn, and compare their medians."""
    if importlib.util.find_spec("browsergym") is None:
        raise typer.BadParameter("BrowserGym is not installed: pip install -e '.[browsergym]'")
    bundled = asyncio.run(_bundled())
    executable = find_executable(BrowserSettings(), bundled)
    found: dict[str, list[Measured]] = {name: [] for name in ("ours", *Pauses, "playwright", "screenshots")}
    memory_mb, opening_s, num_failed = [], [], 0
    with SmallSite() as site, tempfile.TemporaryDirectory(prefix="pae-steps-") as folder:
        url = site.serve(shop(), host="127.0.0.1")
        if executable is not None:
            browsers_path(shutil.which(executable) or executable, bundled, Path(folder))
        for _ in range(repeats):
            ours, grown_mb, took_s = asyncio.run(measure_ours(url, contexts, steps))
            found["ours"].append(ours)
            memory_mb.append(grown_mb)
            opening_s.append(took_s)
            for pauses in Pauses:
                gym, failures = measure_browsergym(url, contexts, steps, pauses)
                found[pauses].append(gym)
                num_failed += failures
            found["playwright"].append(asyncio.run(measure_playwright(url, executable, contexts, steps)))
            found["screenshots"].append(asyncio.run(measure_screenshots(url, executable, contexts, steps)))
    rate = {name: median(one.steps_per_s for one in all_) for name, all_ in found.items()}
    cpu_ms = {name: median(one.cpu_ms_per_step for one in all_) for name, all_ in found.items()}
    for name in found:
        print(f"{name:22} {rate[name]:6.2f} per second, {cpu_ms[name]:6.0f} ms of CPU each")
    figures = {
        "ours_steps_per_s": rate["ours"],
        "browsergym_steps_per_s": rate["browsergym"],
        "ratio": rate["ours"] / rate["browsergym"],
        "ours_cpu_ms_per_step": cpu_ms["ours"],
        "browsergym_cpu_ms_per_step": cpu_ms["browsergym"],
        "cpu_ratio": cpu_ms["browsergym"] / cpu_ms["ours"],
        "screenshot_limit_per_s": rate["screenshots"],
        "browsergym_slow_mo_0_steps_per_s": rate[Pauses.BY_SETTINGS],
        "browsergym_as_it_comes_steps_per_s": rate[Pauses.AS_IT_COMES],
        "ratio_as_it_comes": rate["ours"] / rate[Pauses.AS_IT_COMES],
        "browsergym_failed_clicks": num_failed,
        "playwright_steps_per_s": rate["playwright"],
        "contexts": contexts,
        "memory_mb_per_context": median(memory_mb),
        "open_s_per_context": median(opening_s),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
