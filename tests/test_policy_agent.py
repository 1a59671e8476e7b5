"""The agent's loop in the real browser: a policy that says as told, and how its episodes end."""

import itertools
from collections.abc import Sequence

import pytest

from policy.agent import AgentSettings, roll_out
from policy.browser import Browser
from policy.trajectory import Outcome, Trajectory
from proposer.generate import ModelError, Prompt, Response, Sampling
from proposer.task import Task, Website
from sites.server import PracticeServer

SHOP = Website(name="shop", url="practice:shop")
TASK = Task(website=SHOP, instruction="Open the settings.", world="train-1")
SETTINGS = AgentSettings(max_steps=5, max_repeats=3, retry_temperature=1.5)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def attempt(browser: Browser, replies: Sequence[str], temperature: float = 0.0) -> Trajectory:
    """An episode of a policy that says these replies, the last one for ever."""
    sampling = Sampling(temperature)
    said = itertools.chain(replies, itertools.repeat(replies[-1]))

    async def generate(prompt: Prompt, sampling: Sampling) -> Response:
        reply = next(said)
        if reply == "out":
            raise ModelError("out")
        return Response(reply)

    with PracticeServer() as practice:
        return await roll_out(
            TASK, "t", browser=browser, practice=practice, generate=generate, settings=SETTINGS, sampling=sampling
        )


async def test_an_answer_ends_the_episode_and_is_kept(browser: Browser) -> None:
    record = await attempt(browser, ["Action: Click Settings", "Thought: there.\nAction: Answer; done"])
    assert (record.outcome, record.answer, len(record.steps)) == (Outcome.FINISHED, "done", 2)
    assert record.final is not None
    assert record.final.title.startswith("Settings")


async def test_the_same_reply_to_the_same_screen_again_and_again_is_stuck(browser: Browser) -> None:
    record = await attempt(browser, ["Action: Click Settings", "Action: Fly"])
    assert (record.outcome, len(record.steps)) == (Outcome.STUCK, 4)
    assert record.outcome.is_agents


async def test_waiting_is_not_being_stuck(browser: Browser) -> None:
    record = await attempt(browser, ["Action: Wait"])
    assert (record.outcome, len(record.steps)) == (Outcome.STEP_LIMIT, 5)


async def test_what_was_wrong_with_a_reply_is_told_before_the_next(browser: Browser) -> None:
    record = await attempt(browser, ["Action: Click Teleport [1]", "Action: Answer; done"])
    assert record.steps[0].action is None
    assert "no element is named Teleport" in record.steps[1].observation.notice


@pytest.mark.parametrize(("temperature", "told"), [(0.6, [0.6, 1.5, 0.6]), (0.0, [0.0, 0.0, 0.0])])
async def test_after_a_failure_training_explores_and_evaluation_stays_greedy(
    browser: Browser, temperature: float, told: list[float]
) -> None:
    record = await attempt(browser, ["Action: Fly", "Action: Click Settings", "Action: Answer; done"], temperature)
    assert [step.temperature for step in record.steps] == told


async def test_a_model_outage_is_not_the_agents_doing(browser: Browser) -> None:
    record = await attempt(browser, ["Action: Click Settings", "out"])
    assert record.outcome is Outcome.MODEL_OUTAGE
    assert not record.outcome.is_agents
