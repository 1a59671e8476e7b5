"""Recording: what a person does by mouse and keyboard becomes the agent's actions, done by the agent's own hands."""

import asyncio
import os
import shutil
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page
from typer.testing import CliRunner

from bench.small_site import Reply, SmallSite
from evaluator.labels import LabelError, read_labels, read_trajectory
from launch import config as configs
from launch import record as recording
from launch.cli import app
from launch.errors import RunFailed
from policy.agent import AgentSettings, roll_out
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.demonstrator import Demonstrator, HandledBrowser, confirm
from policy.guard import GuardSettings, Question
from policy.prompt import action_text
from policy.replay import replay
from policy.trajectory import Action, ActionKind, ActionSpace, Effect, Outcome, Trajectory
from proposer.generate import Prompt, Response, Sampling
from proposer.task import Task, Website
from sites.catalogue import SITES
from sites.contract import Move, gold_tasks
from sites.server import PracticeServer

Hands = Callable[[Page], Awaitable[object]]
DEADLINE_S = 20.0

loop = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def handled(blobs: BlobStore) -> AsyncIterator[HandledBrowser]:
    settings = BrowserSettings(
        settle_deadline_s=1.5, action_deadline_s=5.0, recycle_after=1000, actions=ActionSpace.FULL
    )
    async with HandledBrowser(settings, blobs, headed=False) as browser:
        yield browser


class Person:
    """Acts on the page as a person would: each time after the browser has shown what came of it."""

    def __init__(self, browser: HandledBrowser) -> None:
        self.lines = deque[str]()
        self.told: list[str] = []
        self._browser = browser
        self._demonstrator = Demonstrator(browser, self.lines, self._tell)
        self._asked = asyncio.Event()

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Response:
        self._asked.set()
        return await self._demonstrator(prompt, sampling)

    def _tell(self, line: str) -> None:
        self.told.append(line)
        if line.startswith("  "):  # nothing was done
            self._asked.set()

    async def act(self, *doings: Hands | str) -> None:
        """Do one thing after the other; a text is written on the terminal."""
        for doing in doings:
            await asyncio.wait_for(self._asked.wait(), DEADLINE_S)
            self._asked.clear()
            tab = self._browser.tab
            assert tab is not None
            if isinstance(doing, str):
                self.lines.append(doing)
                continue
            await tab._page.page.evaluate("0")  # the page has been told to listen
            await doing(tab._page.page)


async def demonstrated(
    browser: HandledBrowser, url: str, *doings: Hands | str, person: Person | None = None
) -> tuple[Trajectory, list[str]]:
    """The record of what a person did on a page, and what the person was told."""
    person = person or Person(browser)
    episode = roll_out(
        Task(website=Website(name="test", url=url), instruction="Do it."),
        "t",
        browser=browser,
        practice=None,
        generate=person.generate,
        settings=AgentSettings(max_steps=20, time_limit_s=60),
        sampling=Sampling(),
    )
    async with asyncio.TaskGroup() as group:
        rolling = group.create_task(episode)
        group.create_task(person.act(*doings, "Answer; done"))
    return rolling.result(), person.told


def actions(record: Trajectory) -> list[str]:
    """What was done, as the policy writes it."""
    return [action_text(step.action) for step in record.steps if step.action]


def click(selector: str) -> Hands:
    """A click of the mouse, held down as long as people do."""
    return lambda page: page.locator(selector).click(delay=80, force=True, no_wait_after=True)


def write(selector: str, text: str, then: str = "Enter") -> Hands:
    """Click into a field, type over what it holds, and press a key."""

    async def do(page: Page) -> None:
        await click(selector)(page)
        await page.keyboard.press("Control+A")
        await page.keyboard.type(text)
        await page.keyboard.press(then)

    return do


@loop
async def test_a_click_is_done_once_and_by_our_hands(handled: HandledBrowser, site: SmallSite) -> None:
    html = "<button onclick='document.title = `${+document.title + 1}`'>More</button><title>0</title>"
    record, _ = await demonstrated(handled, site.serve(html), click("button"), click("button"))
    assert actions(record) == ["Click [1]", "Click [1]", "Answer; done"]
    assert [step.observation.title for step in record.steps] == ["0", "1", "2"]
    assert record.outcome is Outcome.FINISHED and record.answer == "done"


@loop
async def test_typing_is_one_action_that_the_page_hears_only_from_our_hands(
    handled: HandledBrowser, site: SmallSite
) -> None:
    html = """<form onsubmit="event.preventDefault(); document.title = `sent ${q.value} ${heard}`">
      <input id=q aria-label=Search value=old></form>
      <script>let heard = 0; q.addEventListener("input", () => heard += 1)</script>"""
    record, _ = await demonstrated(handled, site.serve(html), write("#q", "blue mug"))
    assert actions(record) == ["Type [1]; blue mug", "Answer; done"]
    assert record.steps[0].observation.elements[0].value == "old"
    assert record.steps[1].observation.title == "sent blue mug 2"  # once pasted, once the last key


@loop
async def test_a_field_that_is_left_by_a_click_elsewhere_is_typed_and_then_clicked(
    handled: HandledBrowser, site: SmallSite
) -> None:
    html = """<input id=a aria-label=A><input id=b aria-label=B>
      <select id=s aria-label=S><option>one<option>two</select>
      <input type=checkbox id=c aria-label=C><button onclick="document.title =
      [a.value, b.value, s.value, c.checked].join()">Go</button>"""

    async def fill(page: Page) -> None:
        await click("#a")(page)
        await page.keyboard.type("x")
        await click("#b")(page)

    async def fill_rest(page: Page) -> None:
        await page.keyboard.type("y")  # the caret has stayed in B
        await click("#c")(page)

    async def choose(page: Page) -> None:
        await page.locator("#s").focus()
        await page.keyboard.press("ArrowDown")

    record, _ = await demonstrated(
        handled, site.serve(html), fill, fill_rest, lambda page: asyncio.sleep(0), choose, click("button")
    )
    wanted = ["Type [1]; x", "Type [2]; y", "Click [4]", "Select [3]; two", "Click [5]", "Answer; done"]
    assert actions(record) == wanted
    assert record.final is not None and record.final.title == "x,y,two,true"


@loop
async def test_keys_and_the_wheel_are_actions_where_the_agent_has_them(
    handled: HandledBrowser, site: SmallSite
) -> None:
    html = "<body style='height:4000px' onkeydown='document.title += event.key'><title>.</title><a href=#>Link</a>"

    async def turn(page: Page) -> None:
        await page.mouse.move(300, 300)
        for _ in range(3):
            await page.mouse.wheel(0, 100)

    record, _ = await demonstrated(handled, site.serve(html), lambda page: page.keyboard.press("k"), turn)
    assert actions(record) == ["Press k", "Scroll [WINDOW]; down", "Answer; done"]
    assert record.final is not None and record.final.title == ".k"


@loop
async def test_a_new_page_and_a_new_tab_are_acted_on_too_and_the_terminal_goes_back(
    handled: HandledBrowser, site: SmallSite
) -> None:
    site.replies["/next"] = Reply("<title>next</title><a href=/tab target=_blank>Tab</a>")
    site.replies["/tab"] = Reply("<title>tab</title><button onclick='document.title = `hit`'>B</button>")
    url = site.serve("<title>first</title><a href=/next>Next</a>")
    record, told = await demonstrated(handled, url, click("a"), click("a"), click("button"), "GoBack", "Dance", "Home")
    wanted = ["Click [1]", "Click [1]", "Click [1]", "GoBack", "Home", "Answer; done"]
    assert actions(record) == wanted
    assert [step.observation.title for step in record.steps] == ["first", "next", "tab", "hit", "next", "first"]
    assert any("there is no action 'Dance'" in line for line in told)
    assert any("A new tab was opened" in line for line in told)


@loop
async def test_a_page_that_goes_elsewhere_by_other_hands_is_waited_for_and_looked_at(
    handled: HandledBrowser, site: SmallSite
) -> None:
    async def press_the_windows_own_button(page: Page) -> None:
        await page.go_back()

    async def click_at_once(page: Page) -> None:
        await page.go_forward()
        await click("button")(page)  # meant for a page that no observation has shown yet

    site.replies["/next"] = Reply("<title>next</title><button onclick='document.title = `hit`'>B</button>")
    url = site.serve("<title>first</title><a href=/next>Next</a>")
    record, told = await demonstrated(
        handled, url, click("a"), press_the_windows_own_button, click_at_once, click("button")
    )
    assert actions(record) == ["Click [1]", "Wait", "Wait", "Click [1]", "Answer; done"]
    assert [step.observation.title for step in record.steps] == ["first", "next", "first", "next", "hit"]
    assert sum("by the window's own buttons" in line for line in told) == 2


@loop
async def test_what_the_agent_could_not_do_is_told_and_not_done(handled: HandledBrowser, site: SmallSite) -> None:
    html = "<p id=p>Words</p><script>document.onclick = () => document.title = 'heard'</script><title>-</title>"
    record, told = await demonstrated(handled, site.serve(html), click("#p"))
    assert actions(record) == ["Answer; done"]
    assert record.final is not None and record.final.title == "-"
    assert any("bears no mark" in line for line in told)


ORDER = "<title>Shop</title><form method=post action=/order><button>Order</button></form><i id=i>Words</i>"


@loop
async def test_the_person_is_asked_about_what_cant_be_undone_and_does_nothing_else_meanwhile(
    blobs: BlobStore, site: SmallSite
) -> None:
    async def ask(question: Question) -> bool:
        page = handled.tab and handled.tab._page.page
        assert page is not None
        await page.locator("#i").click()
        return await confirm(question, person.lines, person._tell)

    site.serve("<title>Ordered</title>", "/order")
    script = "<script>i.onclick = () => document.title = 'heard'</script>"
    settings = BrowserSettings(settle_deadline_s=1.5, guard=GuardSettings(practice="ask"))
    async with HandledBrowser(settings, blobs, ask=ask, headed=False) as handled:
        person = Person(handled)
        hands = (click("button"), "no", click("button"), "yes")
        record, told = await demonstrated(handled, site.serve(ORDER + script), *hands, person=person)
    assert [step.observation.title for step in record.steps] == ["Shop", "Shop", "Ordered"]
    assert [step.effect for step in record.steps] == [Effect.REFUSED, Effect.DONE, Effect.DONE]
    wanted = (
        f'  "Order" (post {site.url("/order")}) can\'t be undone. Write yes to have it done; anything else leaves it.'
    )
    assert told.count(wanted) == 2 and site.paths.count("/order") == 1


@loop
async def test_where_a_run_refuses_a_demonstration_asks(tmp_path: Path, site: SmallSite) -> None:
    site.serve("<title>Ordered</title>", "/order")
    rollout = configs.load("quickstart", ["rollout.browser.guard.practice=refuse"]).rollout
    task = Task(website=Website(name="test", url=site.serve(ORDER)), instruction="Order it.")
    lines, told = deque(["Click [1]", "yes", "Answer; done"]), list[str]()
    record = await recording.record(task, tmp_path / "out", rollout, lines, told.append, headed=False)
    assert record.final is not None and record.final.title == "Ordered"
    assert [effect.allowed for effect in record.side_effects] == [True, True]


GOLD = next(task for task in gold_tasks(SITES["shop"], "train-1") if task.kind == "set_quantity")


def as_written(move: Move) -> str:
    """A scripted move as somebody writes it on the terminal, by name."""
    action = Action(kind=ActionKind(move.action), text=move.text)
    return action_text(action, move.target).replace(" [None]", "")


@loop
async def test_a_demonstration_is_a_labelled_trajectory_that_can_be_replayed(tmp_path: Path, browser: Browser) -> None:
    lines = deque(as_written(move) for move in GOLD.solution)
    rollout = configs.load("quickstart").rollout
    told: list[str] = []
    record = await recording.record(
        recording.gold(GOLD.id), tmp_path / "out", rollout, lines, told.append, headed=False
    )
    (label,) = read_labels(tmp_path / "out")
    assert (label.success, label.source, label.kind) == (True, "truth", "set_quantity")
    kept = read_trajectory(tmp_path / "out", label)
    assert kept.steps == record.steps and len(told) == len(GOLD.solution)
    assert all(BlobStore(tmp_path / "out" / "blobs").get(name) for name in kept.screenshots)
    with PracticeServer() as practice:
        assert await replay(kept, browser, practice) is None


@loop
async def test_a_demonstration_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    task = Task(website=Website(name="gone", url="http://127.0.0.1:9/"), instruction="Do it.")
    rollout, lines = configs.load("quickstart").rollout, deque[str]()
    with pytest.raises(RunFailed, match="it ended as site_error"):
        await recording.record(task, tmp_path / "out", rollout, lines, print, headed=False)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine.txt").touch()
    with pytest.raises(LabelError, match="expected a new or empty folder"):
        await recording.record(task, tmp_path, rollout, lines, print, headed=False)
    assert (tmp_path / "mine.txt").exists()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A screen that nobody looks at, for windows to be shown on."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("Xvfb or xdotool is missing")
    number, told = os.pipe()
    size = ["-screen", "0", "1280x960x24"]
    server = subprocess.Popen(["Xvfb", "-displayfd", str(told), "-nolisten", "tcp", *size], pass_fds=[told])
    os.close(told)
    try:
        with os.fdopen(number) as line:
            monkeypatch.setenv("DISPLAY", f":{line.readline().strip()}")
        yield
    finally:
        server.terminate()
        server.wait(DEADLINE_S)


async def at_the_screen(*words: str) -> None:
    """Move mouse and keys as the screen's own do, for whichever window is there."""
    process = await asyncio.create_subprocess_exec("xdotool", *words)
    assert await process.wait() == 0


def mouse(selector: str) -> Hands:
    """A click where the element is on the screen."""

    async def do(page: Page) -> None:
        box = await page.locator(selector).bounding_box()
        left, top = await page.evaluate("[screenX + outerWidth - innerWidth, screenY + outerHeight - innerHeight]")
        assert box is not None
        place = (str(round(left + box["x"] + box["width"] / 2)), str(round(top + box["y"] + box["height"] / 2)))
        await at_the_screen("mousemove", *place, "click", "1")

    return do


@loop
async def test_in_a_window_mouse_and_keys_of_the_screen_are_understood(
    screen: None, blobs: BlobStore, site: SmallSite
) -> None:
    html = """<title>first</title><form action=/next><input name=q aria-label=Search></form>
      <select id=s aria-label=S onchange="document.title = s.value"><option>one<option>two</select>"""

    async def search(page: Page) -> None:
        await mouse("input")(page)
        await at_the_screen("type", "--delay", "40", "blue mug")
        await at_the_screen("key", "Return")

    async def choose(page: Page) -> None:
        await mouse("select")(page)
        await at_the_screen("key", "Down")
        await at_the_screen("key", "Return")

    site.replies["/next"] = Reply("<title>next</title><button onclick='document.title = `hit`'>B</button>")
    async with HandledBrowser(BrowserSettings(settle_deadline_s=1.5), blobs) as handled:
        record, _ = await demonstrated(handled, site.serve(html), choose, search, mouse("button"))
    assert actions(record) == ["Select [2]; two", "Type [1]; blue mug", "Click [1]", "Answer; done"]
    assert [step.observation.title for step in record.steps] == ["first", "two", "next", "hit"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gold", "shop/train-1/nonsense-0"], "shop/train-1/nonsense-0: no such gold task"),
        (["--gold", "shoop"], "shoop: no such gold task"),
        (["--gold", GOLD.id], "neither DISPLAY nor WAYLAND_DISPLAY is set"),
        (["--url", "http://a.test/"], "expected either --gold, or --url and --task"),
        ([], "expected either --gold, or --url and --task"),
    ],
)
def test_what_can_not_be_recorded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, ":0") if "no such" in said else monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, ["record", str(tmp_path / "out"), *words])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", "").split())
    assert not (tmp_path / "out").exists()
