"""Episodes: how they begin, settle, stay apart from each other, and end when something breaks."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import BrowserContext

from bench.small_site import Reply, SmallSite
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserError, BrowserSettings, _Process
from policy.browser_net import Net
from policy.browser_page import PageMoved
from policy.browser_proxy import Gate
from policy.explore import look_around
from policy.trajectory import Action, ActionKind, Outcome

pytestmark = pytest.mark.asyncio(loop_scope="session")

WAIT = Action(kind=ActionKind.WAIT)
CLICK = Action(kind=ActionKind.CLICK, mark=1)


async def outcome_of(browser: Browser, url: str) -> Outcome:
    with pytest.raises(BrowserError) as caught:
        async with browser.episode(url) as tab:
            await tab.observe()
    return caught.value.outcome


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply("broken", 500), Outcome.SITE_ERROR),
        (Reply("gone", 404), Outcome.SITE_ERROR),
        (Reply("no", 403), Outcome.BLOCKED),
        (Reply("slow down", 429), Outcome.BLOCKED),
        (Reply("<title>Just a moment</title>Please verify you are human"), Outcome.BLOCKED),
    ],
)
async def test_a_start_page_that_is_refused_has_its_own_outcome(
    browser: Browser, site: SmallSite, reply: Reply, outcome: Outcome
) -> None:
    site.replies["/"] = reply
    assert await outcome_of(browser, site.url()) == outcome


async def test_an_unreachable_or_endless_start_page_is_a_site_error(browser: Browser, site: SmallSite) -> None:
    assert await outcome_of(browser, "http://127.0.0.1:9/") == Outcome.SITE_ERROR
    over = asyncio.Event()

    def never(path: str) -> Reply:
        while not over.is_set():
            time.sleep(0.05)
        return Reply()

    site.replies["/"] = never
    started = time.monotonic()
    try:
        assert await outcome_of(browser, site.url()) == Outcome.SITE_ERROR
    finally:
        over.set()
    assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply("<title>Cart</title>", 500), Outcome.SITE_ERROR),
        (Reply("<title>Cart</title>", 403), Outcome.BLOCKED),
        (Reply("<title>Cart</title>Please verify you are human"), Outcome.BLOCKED),
        (lambda _: time.sleep(4) or Reply("<title>Cart</title>"), Outcome.SITE_ERROR),
        (Reply(headers={"Location": "http://127.0.0.1:9/"}, status=302), Outcome.SITE_ERROR),
    ],
)
async def test_a_page_to_be_read_that_can_not_be_had_is_no_empty_page(
    browser: Browser, site: SmallSite, reply: Reply | Callable[[str], Reply], outcome: Outcome
) -> None:
    site.replies["/cart"] = reply
    with pytest.raises(BrowserError) as caught:
        async with browser.episode(site.serve("<title>Home</title>"), ("127.0.0.1:9",)) as tab:
            await tab.read_text("document.title", site.url("/cart"))
    assert caught.value.outcome is outcome


async def test_a_page_to_be_read_is_empty_outside_the_website_and_as_it_is_where_there_is_none(
    browser: Browser, site: SmallSite
) -> None:
    async with browser.episode(site.serve("<title>Home</title>")) as tab:
        assert await tab.read_text("document.title", "http://127.0.0.1:9/") == ""
        assert await tab.read_text("document.body.innerText", site.url("/cart")) == "no such page"
        assert await tab.read_text("document.title", site.url("/")) == "Home"


async def test_a_browser_that_dies_before_a_page_is_read_is_a_crash(blobs: BlobStore, site: SmallSite) -> None:
    url = site.serve("<title>Home</title>")
    async with Browser(BrowserSettings(action_deadline_s=3), blobs) as browser:
        with pytest.raises(BrowserError) as caught:
            async with browser.episode(url) as tab:
                for process in chromium_processes(os.getpid()):
                    process.kill()
                await tab.read_text("document.title", url)
    assert caught.value.outcome is Outcome.BROWSER_CRASH


async def test_a_script_that_never_ends_is_a_typed_end_of_the_episode(browser: Browser, site: SmallSite) -> None:
    started = time.monotonic()
    with pytest.raises(BrowserError) as caught:
        async with browser.episode(site.serve("<button onclick='while (true);'>Hang</button>")) as tab:
            await tab.act(CLICK, await tab.observe())
    assert caught.value.outcome == Outcome.SITE_ERROR
    assert time.monotonic() - started < 8
    async with browser.episode(site.serve("<title>Fine</title>")) as tab:
        assert (await tab.observe()).title == "Fine"


async def test_a_crashed_browser_ends_its_episodes_and_is_replaced(blobs: BlobStore, site: SmallSite) -> None:
    async with Browser(BrowserSettings(action_deadline_s=3), blobs) as browser:
        url = site.serve("<title>Fine</title><button>Push</button>")
        with pytest.raises(BrowserError) as caught:
            async with browser.episode(url) as tab:
                observation = await tab.observe()
                for process in chromium_processes(os.getpid()):
                    process.kill()
                await tab.act(CLICK, observation)
        assert caught.value.outcome == Outcome.BROWSER_CRASH
        async with browser.episode(url) as tab:
            assert (await tab.observe()).title == "Fine"


class Doomed(Browser):
    """Its Chromium dies as soon as an episode has a context."""

    async def _open_context(self, process: _Process, gate: Gate) -> BrowserContext:
        context = await super()._open_context(process, gate)
        for each in chromium_processes(os.getpid()):
            each.kill()
        return context


async def test_a_browser_that_dies_before_the_first_page_is_a_failed_reset(blobs: BlobStore, site: SmallSite) -> None:
    async with Doomed(BrowserSettings(), blobs) as browser:
        assert await outcome_of(browser, site.serve("<title>Fine</title>")) is Outcome.RESET_FAILURE


async def test_a_browser_that_hangs_is_a_failed_reset_and_is_replaced(blobs: BlobStore, site: SmallSite) -> None:
    url = site.serve("<title>Fine</title>")
    async with Browser(BrowserSettings(), blobs) as browser:
        in_time, hung = browser._settings, browser._process
        browser._settings = in_time.model_copy(update={"start_deadline_s": 1.0})
        stopped = chromium_processes(os.getpid())
        for each in stopped:
            each.suspend()
        failing = asyncio.create_task(outcome_of(browser, url))
        while browser._process is hung and not failing.done():
            await asyncio.sleep(0.05)
        for each in stopped:  # so that it can be closed in no time
            each.resume()
        assert await failing is Outcome.RESET_FAILURE
        browser._settings = in_time
        async with browser.episode(url) as tab:
            assert (await tab.observe()).title == "Fine"


async def test_a_browser_that_hangs_as_it_starts_is_a_failed_reset(
    blobs: BlobStore, site: SmallSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = Net.spread

    async def hang(chromium: Chromium) -> Net:
        for each in chromium_processes(os.getpid()):
            each.suspend()
            asyncio.get_running_loop().call_later(5, each.resume)  # so that it can be closed in no time
        return await spread(chromium)

    monkeypatch.setattr(Net, "spread", hang)
    with pytest.raises(BrowserError, match="does not start: it does not answer") as caught:
        async with Browser(BrowserSettings(start_deadline_s=4.0), blobs):
            pass
    assert caught.value.outcome is Outcome.RESET_FAILURE


async def test_a_page_that_closes_between_two_documents_is_not_waited_for(browser: Browser, site: SmallSite) -> None:
    async with browser.episode(site.serve("<title>Fine</title>")) as tab:
        page = tab._page
        page._note_worlds_gone({})  # as when a document goes and the next hasn't come
        asking = asyncio.create_task(page.ask("collect", False))
        await page.page.close()
        with pytest.raises(PageMoved):
            await asking


def chromium_processes(pid: int) -> list[psutil.Process]:
    """Chromium's processes that were started last among those below a process.

    Ended ones that nobody has waited for yet are left out: they are still listed, without a command line.
    """
    newest = max(
        filter(is_first_of_a_browser, psutil.Process(pid).children(recursive=True)), key=lambda p: p.create_time()
    )
    return [newest, *newest.children(recursive=True)]


def is_first_of_a_browser(process: psutil.Process) -> bool:
    try:
        is_alive = "chrom" in process.name() and process.status() != psutil.STATUS_ZOMBIE
        return is_alive and "--type=" not in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return False


async def test_a_browser_that_is_not_there_is_named(blobs: BlobStore) -> None:
    with pytest.raises(BrowserError, match="no-such-chromium"):
        async with Browser(BrowserSettings(executable="no-such-chromium"), blobs):
            pass


@pytest.mark.parametrize("wear", [BrowserSettings(recycle_after=1), BrowserSettings(recycle_mb=1)], ids=["age", "mb"])
async def test_a_worn_browser_process_is_replaced_while_episodes_run(
    blobs: BlobStore, site: SmallSite, wear: BrowserSettings
) -> None:
    url = site.serve("<title>Fine</title>")
    async with Browser(wear, blobs) as browser:
        async with browser.episode(url) as first, browser.episode(url) as second:
            first_process = chromium_processes(os.getpid())[0]
            assert (await first.observe()).title == (await second.observe()).title == "Fine"
        async with browser.episode(url) as third:
            assert (await third.observe()).title == "Fine"
            assert chromium_processes(os.getpid())[0] != first_process


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Playwright's own tasks
async def test_a_driver_that_was_killed_is_replaced_for_the_next_episode(blobs: BlobStore, site: SmallSite) -> None:
    url = site.serve("<title>Fine</title>")
    before = set(psutil.Process().children())
    async with Browser(BrowserSettings(), blobs) as browser:
        (driver,) = set(psutil.Process().children()) - before
        driver.kill()
        with pytest.raises(BrowserError) as failure:
            async with browser.episode(url):
                pass
        assert failure.value.outcome is Outcome.RESET_FAILURE
        async with browser.episode(url) as tab:
            assert (await tab.observe()).title == "Fine"


async def test_the_browsers_memory_is_told_and_does_not_wear_it_out(blobs: BlobStore, site: SmallSite) -> None:
    async with Browser(BrowserSettings(), blobs) as browser:
        async with browser.episode(site.serve("<title>Fine</title>")), browser.episode(site.url()):
            process = browser._process
            assert process is not None and process.root is not None
            assert "chrom" in process.root.name()
            assert 20 < process.memory_mb() < 2000
        async with browser.episode(site.url()):
            assert browser._process is process


async def test_episodes_share_neither_cookies_nor_storage(browser: Browser, site: SmallSite) -> None:
    html = """<script>document.title = `${document.cookie}|${localStorage.k || ""}`;
    document.cookie = "k=1"; localStorage.k = 1;</script>"""
    async with browser.episode(site.serve(html)) as one, browser.episode(site.url()) as two:
        assert [(await tab.observe()).title for tab in (one, two)] == ["|", "|"]
        await one.act(Action(kind=ActionKind.HOME), await one.observe())
        assert (await one.observe()).title == "k=1|1"


async def test_a_slow_answer_and_what_a_script_does_with_it_are_waited_for(browser: Browser, site: SmallSite) -> None:
    def slow(path: str) -> Reply:
        time.sleep(0.3)
        return Reply("<title>Slow</title>")

    site.replies["/slow"] = slow
    html = """<a href=/slow>Page</a><button onclick='load()'>Data</button><script>
    const load = async () => { await fetch("/slow"); setTimeout(() => document.title = "Loaded", 20); }</script>"""
    async with browser.episode(site.serve(html)) as tab:
        observation = await tab.observe()
        await tab.act(Action(kind=ActionKind.CLICK, mark=2), observation)
        assert (await tab.observe()).title == "Loaded"
        await tab.act(CLICK, await tab.observe())
        assert (await tab.observe()).title == "Slow"


@pytest.mark.parametrize(
    "script",
    [
        "setInterval(() => fetch('/p'), 20)",
        "setInterval(() => document.body.append('x'), 10)",
        "const f = () => { document.body.style.paddingTop = Math.random() * 9 + 'px'; requestAnimationFrame(f) }; f()",
    ],
)
async def test_a_page_that_never_rests_is_taken_as_it_is_at_the_deadline(
    browser: Browser, site: SmallSite, script: str
) -> None:
    async with browser.episode(site.serve(f"<button>Push</button><script>{script}</script>")) as tab:
        observation = await tab.observe()
        started = time.monotonic()
        assert await tab.act(CLICK, observation) == "The page is still loading."
        assert 1.4 < time.monotonic() - started < 3.0


async def test_the_agent_is_told_that_its_first_page_has_not_come_to_rest(browser: Browser, site: SmallSite) -> None:
    came = threading.Event()

    def picture(path: str) -> Reply:
        came.wait(20)
        return Reply()

    site.replies["/picture"] = picture
    try:
        async with browser.episode(site.serve("<img src=/picture width=90 height=90>")) as tab:
            assert (await tab.observe()).notice == "The page is still loading."
            assert (await tab.observe()).notice == ""
    finally:
        came.set()


@pytest.mark.parametrize("frame", [False, True])
async def test_a_caret_in_a_page_at_rest_does_not_blink(browser: Browser, site: SmallSite, frame: bool) -> None:
    html = "<style>input { font: 60px serif }</style><input autofocus>"
    async with browser.episode(site.serve(f'<iframe srcdoc="{html}"></iframe>' if frame else html)) as tab:
        await tab.act(CLICK, await tab.observe())
        pictures, end = set[str](), time.monotonic() + 1.2  # it is seen for half a second, and then not for as long
        while time.monotonic() < end:
            pictures.add((await tab.observe()).screenshot)
    assert len(pictures) == 1


async def test_a_long_poll_is_not_waited_for(browser: Browser, site: SmallSite) -> None:
    over = asyncio.Event()

    def poll(path: str) -> Reply:
        while not over.is_set():
            time.sleep(0.05)
        return Reply()

    site.replies["/poll"] = poll
    html = "<button>Push</button><script>setTimeout(() => fetch('/poll'), 100)</script>"
    try:
        async with browser.episode(site.serve(html)) as tab:
            observation = await tab.observe()
            await tab.act(WAIT, observation)
            assert await tab.act(CLICK, await tab.observe()) == ""
    finally:
        over.set()


async def test_a_page_that_keeps_navigating_can_still_be_seen(browser: Browser, site: SmallSite) -> None:
    url = site.serve(
        "<title>Again</title><button>Push</button><script>setTimeout(() => location.reload(), 200)</script>"
    )
    async with browser.episode(url) as tab:
        seen = {(await tab.observe()).title for _ in range(6)}
    assert "Again" in seen <= {"Again", ""}  # some may fall between two pages


async def test_many_episodes_at_once_each_see_their_own_page(browser: Browser, site: SmallSite) -> None:
    def page(path: str) -> Reply:
        return Reply(f"<title>{path}</title><a href={path}1>On</a>")

    names = [f"/{letter}" for letter in "abcdef"]
    for name in names:
        site.replies |= {name: page, name + "1": page, name + "11": page}

    async def walk(name: str) -> str:
        async with browser.episode(site.url(name)) as tab:
            for _ in range(2):
                await tab.act(CLICK, await tab.observe())
            return (await tab.observe()).title

    assert await asyncio.gather(*map(walk, names)) == [name + "11" for name in names]


async def test_looking_around_finds_the_pages_of_a_site(browser: Browser, site: SmallSite) -> None:
    for number in range(4):
        site.serve(f"<title>P{number}</title><h1>Page {number}</h1><a href=/{number + 1}>Next</a>", f"/{number}")
    looks = await look_around(browser, site.url("/0"), (), 3, random.Random(0))
    assert [look.title for look in looks] == ["P0", "P1", "P2"]
    assert looks[1].text == "Page 1\nNext"


async def test_a_look_around_that_takes_too_long_is_what_was_seen_by_then(browser: Browser, site: SmallSite) -> None:
    site.replies["/"] = lambda path: Reply(f"<title>{path}</title><a href={path}1>On</a>")
    started = time.monotonic()
    looks = await look_around(browser, site.url("/?n="), (), 1_000_000, random.Random(0), limit_s=3.0)
    assert time.monotonic() - started < 8
    assert looks
    assert [look.title for look in looks] == ["/?n=" + "1" * number for number in range(len(looks))]


OWNER = """
import asyncio, sys
from pathlib import Path
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
async def main():
    async with Browser(BrowserSettings(), BlobStore(Path(sys.argv[1]))) as browser:
        async with browser.episode(sys.argv[2]):
            print("ready", flush=True)
            await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_chromium_dies_with_its_owner_however_that_ends(tmp_path: Path, site: SmallSite) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path), site.serve("<button>Push</button>")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
        family = psutil.Process(owner.pid).children(recursive=True)
        assert any("chrom" in process.name() for process in family)
        owner.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [process.name() for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
