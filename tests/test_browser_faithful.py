"""The page gets what the agent meant: a part of the torture site; bench/browser_faithful.py plays all of it."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import ImageFont

from bench.browser_faithful import cases_in
from bench.small_site import SmallSite
from bench.torture import FILE_TEXT, Case, play, settings
from policy.agent import AgentSettings, roll_out
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserError, BrowserSettings
from policy.trajectory import Action, ActionKind, ActionSpace, Effect
from proposer.generate import Prompt, Response, Sampling
from proposer.task import Task, Website

pytestmark = pytest.mark.asyncio(loop_scope="session")

ON_MARKS = cases_in(ActionSpace.FULL)[::3]
AT_POINTS = cases_in(ActionSpace.POINTS)[::9]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("files") / "list.txt"
    path.write_text(FILE_TEXT)
    return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def marking(blobs: BlobStore, file: str) -> AsyncIterator[Browser]:
    async with Browser(settings(ActionSpace.FULL, file), blobs) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pointing(blobs: BlobStore, file: str) -> AsyncIterator[Browser]:
    async with Browser(settings(ActionSpace.POINTS, file), blobs) as browser:
        yield browser


@pytest.mark.parametrize(("group", "case"), ON_MARKS, ids=[f"{group}: {case.name}" for group, case in ON_MARKS])
async def test_on_marks_the_page_gets_what_was_meant(marking: Browser, group: str, case: Case) -> None:
    assert await play(case, marking) == ""


@pytest.mark.parametrize(("group", "case"), AT_POINTS, ids=[f"{group}: {case.name}" for group, case in AT_POINTS])
async def test_at_points_the_page_gets_what_was_meant(pointing: Browser, group: str, case: Case) -> None:
    assert await play(case, pointing) == ""


async def test_at_points_nothing_is_numbered(pointing: Browser, site: SmallSite) -> None:
    async with pointing.episode(site.serve("<button>Push</button>")) as tab:
        seen = await tab.observe()
        outside = Action(kind=ActionKind.CLICK, point=(2000, 5))
        assert await tab.act(outside, seen) == "What is at (2000, 5) is outside the page."
        assert tab.effect is Effect.GONE
    assert seen.listing == "<button> Push"


async def test_what_an_action_came_to_and_what_the_pages_were_shown_by_is_recorded(
    marking: Browser, site: SmallSite
) -> None:
    replies = iter(["Action: Hover Push [1]", "Action: Click Push [1]", "Action: Answer; done"])

    async def generate(prompt: Prompt, sampling: Sampling) -> Response:
        assert "Hover name [n]" in prompt.system
        return Response(next(replies))

    html = "<button onmouseover='disabled = true; new Image().src = `http://elsewhere.localhost/`'>Push</button>"
    record = await roll_out(
        Task(website=Website(name="w", url=site.serve(html)), instruction="Push."),
        "t",
        browser=marking,
        practice=None,
        generate=generate,
        settings=AgentSettings(),
        sampling=Sampling(),
    )
    assert [step.effect for step in record.steps] == [Effect.DONE, Effect.GONE, Effect.DONE]
    assert record.refused == ("elsewhere.localhost:80",)
    assert record.browser is not None
    assert (record.browser.build, record.browser.viewport) == (marking.version, (1024, 768))
    assert (record.browser.locale, record.browser.time_zone, record.browser.colour_scheme) == ("en-US", "UTC", "light")


async def test_pages_see_what_is_pinned_and_only_the_fonts_of_a_folder(
    blobs: BlobStore, site: SmallSite, tmp_path: Path
) -> None:
    font = ImageFont.load_default(12)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert isinstance(font.path, io.BytesIO)
    (tmp_path / "only.ttf").write_bytes(font.path.getvalue())
    pinned = BrowserSettings(locale="de-DE", time_zone="Asia/Tokyo", colour_scheme="dark", fonts=str(tmp_path))
    html = """<script>document.title = [navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone,
    matchMedia("(prefers-color-scheme: dark)").matches, devicePixelRatio, innerWidth, innerHeight]</script>"""
    async with Browser(pinned, blobs) as browser, browser.episode(site.serve(html)) as tab:
        assert (await tab.observe()).title == "de-DE,Asia/Tokyo,true,1,1024,768"
        assert set(tab.facts.fonts.values()) == {font.getname()[0]}


async def test_another_build_than_the_one_pinned_is_refused(blobs: BlobStore) -> None:
    with pytest.raises(BrowserError, match="not 1"):
        async with Browser(BrowserSettings(build="1"), blobs):
            pass
