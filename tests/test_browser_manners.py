"""Manners: turns, back-off, robots.txt, and pages that turn robots away; on loopback, where they are asked for."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.small_site import Reply, SmallSite
from policy.blobs import BlobStore
from policy.blocks import find_block
from policy.browser import Browser, BrowserError
from policy.browser_settings import BrowserSettings
from policy.manners import Pace, PolitenessSettings, read_retry_after
from policy.robots import Fetched, Robots
from policy.trajectory import Action, ActionKind, Outcome

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLICK = Action(kind=ActionKind.CLICK, mark=1)
QUICK = PolitenessSettings(on_practice=True, pages_per_minute=6000, backoff_s=0.1, max_wait_s=2.0)
SETTINGS = BrowserSettings(
    settle_deadline_s=1.5, action_deadline_s=3.0, start_deadline_s=3.0, recycle_after=1000, politeness=QUICK
)


class Clock:
    """Seconds that pass when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pace(**changes: float) -> tuple[Pace, Clock]:
    settings = {"pages_per_minute": 6.0, "burst": 2, "max_wait_s": 60.0, "backoff_s": 10.0} | changes
    clock = Clock()
    return Pace(PolitenessSettings.model_validate(settings), clock), clock


async def test_a_burst_is_let_through_and_then_one_page_each_gap_for_each_host() -> None:
    paced, clock = pace()
    assert [await paced.reserve("a") for _ in range(4)] == [0, 0, 10, 20]
    assert await paced.reserve("b") == 0
    clock.now += 25
    assert await paced.reserve("a") == 5
    clock.now += 1000
    assert [await paced.reserve("a") for _ in range(3)] == [0, 0, 10]


async def test_a_turn_that_comes_too_late_is_not_taken() -> None:
    paced, _ = pace(max_wait_s=15.0)
    assert [await paced.reserve("a") for _ in range(5)] == [0, 0, 10, 20, 20]


async def test_the_host_s_own_gap_holds_from_the_first_page() -> None:
    paced, _ = pace()
    assert [await paced.reserve("a", 30.0) for _ in range(3)] == [0, 30, 60]


async def test_a_busy_host_is_left_alone_by_all_as_long_as_it_says_and_no_burst_follows() -> None:
    paced, clock = pace()
    assert await paced.back_off("a", 40.0) == 40
    assert [await paced.reserve("a"), await paced.reserve("a")] == [40, 50]
    assert await paced.reserve("b") == 0
    clock.now += 10
    assert await paced.back_off("a", 20.0) == 30  # another worker was told earlier


async def test_a_host_that_does_not_say_how_long_is_left_alone_twice_as_long_each_time() -> None:
    paced, clock = pace()
    waits = []
    for _ in range(3):
        waits.append(await paced.back_off("a", None))
        assert await paced.back_off("a", None) == waits[-1]  # the same news from another worker
        clock.now += waits[-1]
    assert waits == [10, 20, 40]
    clock.now += 10_000
    assert await paced.back_off("a", None) == 10


async def test_retry_after_is_seconds_or_a_date() -> None:
    assert read_retry_after("120") == 120
    assert read_retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert (read_retry_after("Fri, 31 Dec 2999 23:59:59 GMT") or 0) > 1e9
    for malformed in (None, "", "soon", "-1", "1.5", "\N{SUPERSCRIPT TWO}", "99 Foo 2020"):
        assert read_retry_after(malformed) is None


RULES = (
    "User-agent: *\nDisallow: /a\nAllow: /a/open\nDisallow: /*.pdf$\nCrawl-delay: 3\n\nUser-agent: PAE\nDisallow: /pae"
)


@pytest.mark.parametrize(
    ("fetched", "name", "closed"),
    [
        (Fetched(200, RULES), "Other", {"/a/b", "/x.pdf"}),
        (Fetched(200, RULES), "PAE", {"/pae"}),
        (Fetched(404, "Disallow: /"), "PAE", set()),
        (Fetched(503, ""), "PAE", {"/", "/a/b", "/a/open", "/x.pdf", "/x.pdf?v", "/pae"}),
        (None, "PAE", {"/", "/a/b", "/a/open", "/x.pdf", "/x.pdf?v", "/pae"}),
        (Fetched(200, "<html>\0: Disallow"), "PAE", set()),
    ],
)
async def test_robots_rules_are_read_as_the_standard_says(fetched: Fetched | None, name: str, closed: set[str]) -> None:
    async def fetch(url: str) -> Fetched | None:
        assert url == "https://h.example/robots.txt"
        return fetched

    robots = Robots(name)
    paths = ("/", "/a/b", "/a/open", "/x.pdf", "/x.pdf?v", "/pae")
    assert {path for path in paths if not await robots.allows(f"https://h.example{path}", fetch)} == closed


async def test_robots_rules_are_kept_for_a_day_and_asked_for_again_after_a_failure() -> None:
    clock, asked = Clock(), []
    answers = iter([None, Fetched(200, RULES), Fetched(200, "")])

    async def fetch(url: str) -> Fetched | None:
        asked.append(url)
        return next(answers)

    robots = Robots("Other", clock)
    assert not await robots.allows("https://h.example/", fetch)
    assert await robots.allows("https://h.example/", fetch)
    assert await robots.least_gap_s("https://h.example/", fetch) == 3
    assert len(asked) == 2
    clock.now += 25 * 3600
    assert await robots.allows("https://h.example/a/b", fetch)
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "title", "text", "frames", "blocks"),
    [
        (403, "", "", [], True),
        (429, "", "", [], True),
        (200, "Just a moment…", "", [], True),
        (200, "Attention Required! | Cloudflare", "Sorry, you have been blocked", [], True),
        (200, "Access Denied", "You don't have permission. Reference #18.2f", [], True),
        (200, "Access Denied", "This lesson is about the words.", [], False),
        (200, "Robot Check", "Enter the characters you see below", [], True),
        (200, "Access to this page has been denied", "Press & Hold to confirm you are a human", [], True),
        (200, "h.example", "", ["https://geo.captcha-delivery.com/captcha/?x"], True),
        (200, "Shop", "Kettles and mugs", ["https://www.youtube.com/embed/x"], False),
        (200, "CAPTCHA", "CAPTCHA is a test. " * 100, ["https://newassets.hcaptcha.com/x"], False),
        (200, "Kettle", "9.99", [], False),
        (404, "Not found", "", [], False),
    ],
)
async def test_pages_that_turn_robots_away_are_recognised(
    status: int, title: str, text: str, frames: list[str], blocks: bool
) -> None:
    assert bool(find_block(status, title, text, frames)) == blocks


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def polite(blobs: BlobStore) -> AsyncIterator[Browser]:
    async with Browser(SETTINGS, blobs) as browser:
        yield browser


def busy_until(site: SmallSite, num_answers: int, path: str, status: int = 429, wait: str = "0") -> None:
    """The page comes only after so many answers that it has too much to do."""

    def reply(asked: str) -> Reply:
        num_asked = sum(each == path for each in site.paths)
        return Reply("<title>There</title>") if num_asked > num_answers else Reply("", status, {"Retry-After": wait})

    site.replies[path] = reply


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_website_is_asked_again_after_a_while(polite: Browser, site: SmallSite, status: int) -> None:
    busy_until(site, 1, "/next", status)
    async with polite.episode(site.serve("<a href=/next>Go</a>")) as tab:
        await tab.act(CLICK, await tab.observe())
        assert (await tab.observe()).title == "There"
        assert tab.failure == ""
    assert site.paths.count("/next") == 2


async def test_a_busy_start_page_is_asked_for_again_too(polite: Browser, site: SmallSite) -> None:
    busy_until(site, 1, "/")
    async with polite.episode(site.url("/")) as tab:
        assert (await tab.observe()).title == "There"


@pytest.mark.parametrize("wait", ["0", "3600"])
async def test_a_website_that_stays_busy_or_asks_for_too_long_has_blocked(
    polite: Browser, site: SmallSite, wait: str
) -> None:
    busy_until(site, 99, "/next", wait=wait)
    async with polite.episode(site.serve("<a href=/next>Go</a>", host=f"w{wait}.localhost")) as tab:
        await tab.act(CLICK, await tab.observe())
        with pytest.raises(BrowserError) as caught:
            await tab.observe()
    assert caught.value.outcome is Outcome.BLOCKED
    assert site.paths.count("/next") == (3 if wait == "0" else 1)


async def test_a_form_is_not_sent_again_to_a_busy_website(polite: Browser, site: SmallSite) -> None:
    busy_until(site, 1, "/next")
    html = "<form method=post action=/next><button>Go</button></form>"
    async with polite.episode(site.serve(html)) as tab:
        await tab.act(CLICK, await tab.observe())
        with pytest.raises(BrowserError):
            await tab.observe()
    assert site.paths.count("/next") == 1


def hang_up(_: str) -> Reply:
    raise ConnectionResetError


async def test_pages_closed_to_robots_are_not_opened_and_the_agent_is_told(polite: Browser, site: SmallSite) -> None:
    site.replies["/robots.txt"] = Reply("User-agent: *\nDisallow: /closed", headers={"Content-Type": "text/plain"})
    site.serve("<title>Closed</title>", "/closed")
    site.replies["/turn"] = Reply("", 302, {"Location": "/closed"})
    for link in ("/closed", "/turn"):
        async with polite.episode(site.serve(f"<title>Home</title><a href={link}>Go</a>")) as tab:
            told = await tab.act(CLICK, await tab.observe())
            assert told == f"{site.url('/closed')} was not opened: the website's robots.txt closes it to robots."
            assert (await tab.observe()).title == "Home"
            assert tab.failure == ""
    assert "/closed" not in site.paths
    async with polite.episode(site.serve("<a href=/closed>Go</a>")) as tab:
        await tab.act(CLICK, await tab.observe())
        site.replies["/"] = hang_up
        with pytest.raises(BrowserError) as caught:  # a failure that comes after it is one all the same
            await tab.act(Action(kind=ActionKind.HOME), await tab.observe())
    assert caught.value.outcome is Outcome.SITE_ERROR
    with pytest.raises(BrowserError) as caught:
        async with polite.episode(site.url("/closed")):
            pass
    assert caught.value.outcome is Outcome.BLOCKED
    assert site.paths.count("/robots.txt") == 1


async def test_a_website_whose_rules_can_not_be_had_fails_and_closes_nothing(polite: Browser, site: SmallSite) -> None:
    other, there = "other.localhost", site.url("/next", "other.localhost")
    home = site.serve(f"<title>Home</title><a href={there}>Go</a>")
    async with polite.episode(home, (f"{other}:{site.port}",)) as tab:
        site.replies["/robots.txt"] = Reply("", 503)
        assert await tab.act(CLICK, await tab.observe()) == ""
        assert tab.failure == f"{there}: the website's robots.txt can't be had"
    with pytest.raises(BrowserError, match=r"robots\.txt can't be had") as caught:
        async with polite.episode(there):
            pass
    assert caught.value.outcome is Outcome.SITE_ERROR
    assert "/next" not in site.paths


async def test_a_step_waits_for_its_turn_and_a_turn_too_far_off_blocks(blobs: BlobStore, site: SmallSite) -> None:
    slow = QUICK.model_copy(update={"pages_per_minute": 1.0, "burst": 1, "max_wait_s": 1.0})
    async with (
        Browser(SETTINGS.model_copy(update={"politeness": slow}), blobs) as browser,
        browser.episode(site.serve("<a href=/next>Go</a>")) as tab,
    ):
        with pytest.raises(BrowserError, match=r"no page for another (59|60) s") as caught:
            await tab.act(CLICK, await tab.observe())
    assert caught.value.outcome is Outcome.BLOCKED
    assert "/next" not in site.paths


async def test_websites_of_this_machine_are_not_kept_waiting_by_default(browser: Browser, site: SmallSite) -> None:
    site.serve("<a href=/>Back</a>", "/b")
    async with browser.episode(site.serve("<a href=/b>Go</a>")) as tab:
        for _ in range(PolitenessSettings().burst + 3):
            await tab.act(CLICK, await tab.observe())
    assert "/robots.txt" not in site.paths
