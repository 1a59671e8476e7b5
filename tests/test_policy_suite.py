"""BrowserGym-style tasks in our browser: their own programs ready the page, end the episode and give the score."""

import asyncio
from typing import Any

import pytest

from bench.small_site import Reply, SmallSite
from policy.agent import AgentSettings, roll_out
from policy.browser import Browser
from policy.browser_settings import BrowserError
from policy.browser_suite import SuiteReferee, SuiteTask, open_referee
from policy.trajectory import Outcome, Trajectory
from proposer.generate import Prompt, Response, Sampling
from proposer.task import Task, Website

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Count:
    """Press the button a number of times: written as for BrowserGym, on Playwright's synchronous interface."""

    def __init__(self, url: str, times: int) -> None:
        self.url, self.times, self.is_torn_down = url, times, False

    def setup(self, page: Any) -> tuple[Any, dict[str, Any]]:
        page.goto(f"{self.url}?count")
        page.evaluate("times => { window.wanted = times }", self.times)
        page.wait_for_function("() => window.wanted > 0")
        assert page.locator("button").first.inner_text() == "Press"
        assert [frame.url for frame in page.frames] == [page.url]
        page.zoom = 1.5
        self.page = page
        return [{"type": "text", "text": f"Press it {self.times} times."}], {}

    def validate(self, page: Any, chat_messages: list[Any]) -> tuple[float, bool, str, dict[str, Any]]:
        assert page == self.page and page.zoom == 1.5
        if chat_messages[-1]["role"] == "assistant":
            return float(chat_messages[-1]["message"] == "pressed"), True, "", {}
        is_done = page.evaluate("() => document.title") == str(self.times)
        return 0.5 * is_done, is_done, "", {}

    def teardown(self) -> None:
        self.is_torn_down = True


async def attempt(browser: Browser, site: SmallSite, task: SuiteTask, *replies: str) -> Trajectory:
    said = iter(replies)
    seen: list[str] = []

    async def generate(prompt: Prompt, sampling: Sampling) -> Response:
        seen.append(str(prompt.parts[-1]))
        return Response(f"Action: {next(said)}")

    record = await roll_out(
        Task(website=Website(name="s", url=site.url()), instruction="browsergym/count", source="suite", suite_id="s/1"),
        "t",
        browser=browser,
        practice=None,
        generate=generate,
        settings=AgentSettings(max_steps=3),
        sampling=Sampling(),
        referee=SuiteReferee(task),
    )
    assert all("Task: Press it" in text for text in seen)
    return record


@pytest.fixture
def counting(site: SmallSite) -> SmallSite:
    site.replies["/"] = Reply("<title>0</title><button onclick='document.title = +document.title + 1'>Press</button>")
    return site


async def test_a_task_ends_its_episode_and_scores_it(browser: Browser, counting: SmallSite) -> None:
    task = Count(counting.url(), 2)
    record = await attempt(browser, counting, task, "Click [1]", "Click [1]")
    assert (record.outcome, record.score, record.answer) == (Outcome.OVER, 0.5, None)
    assert record.task.instruction == "Press it 2 times." and task.is_torn_down
    assert record.outcome.is_agents


async def test_an_answer_comes_to_the_task_as_a_message(browser: Browser, counting: SmallSite) -> None:
    for answer, score in (("pressed", 1.0), ("no", 0.0)):
        record = await attempt(browser, counting, Count(counting.url(), 2), f"Answer; {answer}")
        assert (record.outcome, record.score, record.answer) == (Outcome.FINISHED, score, answer)
    record = await attempt(browser, counting, Count(counting.url(), 9), *["Click [1]"] * 3)
    assert (record.outcome, record.score) == (Outcome.STEP_LIMIT, 0.0)


async def test_a_task_that_fails_is_no_failure_of_the_agent(browser: Browser, counting: SmallSite) -> None:
    class Broken(Count):
        def setup(self, page: Any) -> tuple[Any, dict[str, Any]]:
            page.goto("http://127.0.0.1:9/")
            raise AssertionError("never reached")

    class Blind(Count):
        def validate(self, page: Any, chat_messages: list[Any]) -> tuple[float, bool, str, dict[str, Any]]:
            raise KeyError("WOB_REWARD")

    class Wrong(Count):
        def validate(self, page: Any, chat_messages: list[Any]) -> tuple[float, bool, str, dict[str, Any]]:
            return page.evaluate("null").score, True, "", {}

    broken = Broken(counting.url(), 1)
    record = await attempt(browser, counting, broken)
    assert record.outcome is Outcome.RESET_FAILURE and "Broken: Error: Page.goto" in record.error
    assert broken.is_torn_down and record.score is None
    record = await attempt(browser, counting, Blind(counting.url(), 1), "Wait")
    assert (record.outcome, record.error) == (Outcome.SITE_ERROR, "Blind: KeyError: 'WOB_REWARD'")
    record = await attempt(browser, counting, Wrong(counting.url(), 1), "Wait")
    assert record.outcome is Outcome.SITE_ERROR and "Wrong: AttributeError: 'NoneType'" in record.error


async def test_a_suite_that_is_not_installed_is_told_in_one_line() -> None:
    with pytest.raises(BrowserError, match="install the extra `browsergym`") as caught:
        open_referee("browsergym/nosuchsuite.task", 0, "http://x/")
    assert caught.value.outcome is Outcome.RESET_FAILURE


async def test_a_page_of_miniwob_is_played(browser: Browser) -> None:
    pytest.importorskip("browsergym.miniwob")
    from launch.suite import Chosen, chosen_tasks

    with chosen_tasks("miniwob", Chosen(only="click-test-2", num_seeds=1)) as (task,):
        referee = await asyncio.to_thread(open_referee, str(task.suite_id), 0, task.website.url)

        async def generate(prompt: Prompt, sampling: Sampling) -> Response:
            return Response("Action: Click ONE")

        record = await roll_out(
            task,
            "t",
            browser=browser,
            practice=None,
            generate=generate,
            settings=AgentSettings(max_steps=3),
            sampling=Sampling(),
            referee=referee,
        )
    assert record.task.instruction == "Click button ONE."
    assert (record.outcome, record.score) == (Outcome.OVER, 1.0)
