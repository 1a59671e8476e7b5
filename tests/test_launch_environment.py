"""The Gymnasium environment: it is one by Gymnasium's own check, and its episodes are the agent's."""

import math
import warnings
from collections.abc import Iterator

import pytest

from policy.agent import AgentSettings
from policy.browser_settings import BrowserSettings
from policy.trajectory import Outcome
from proposer.task import Task, Website
from rl.demonstrate import practice_website
from sites.catalogue import SITES
from sites.contract import gold_tasks

pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env

from launch.environment import WebEnv

GOLD = next(task for task in gold_tasks(SITES["shop"], "train-1") if task.kind == "search")
SEARCH = Task(
    website=practice_website("shop"), instruction=GOLD.instruction, world="train-1", source="gold", gold_id=GOLD.id
)
LOOK = Task(website=practice_website("shop"), instruction="Look around.", world="train-1")


@pytest.fixture(scope="module")
def env() -> Iterator[WebEnv]:
    settings = BrowserSettings(settle_deadline_s=1.5, action_deadline_s=3.0, start_deadline_s=3.0)
    env = WebEnv([SEARCH, LOOK], agent=AgentSettings(max_steps=4), browser=settings)
    yield env
    env.close()


def test_it_passes_gymnasiums_own_check(env: WebEnv) -> None:
    with warnings.catch_warnings(record=True):  # that text may hold any character is not as Gymnasium has it
        warnings.simplefilter("always")
        check_env(env, skip_render_check=True)


def test_an_answer_terminates_with_the_truth_as_the_reward(env: WebEnv) -> None:
    for moves, reward in ((GOLD.solution, 1.0), (GOLD.near_misses[0], 0.0)):
        seen, info = env.reset(options={"task": 0})
        assert GOLD.instruction in seen["text"] and seen["picture"].shape == (768, 1024, 3)
        assert info["outcome"] is None and info["system"].startswith("You are a web agent")
        worth, terminated, truncated = math.nan, False, False
        for move in moves:
            said = f"{move.action.title()} {move.target}; {move.text}" if move.target else f"Answer; {move.text}"
            seen, worth, terminated, truncated, info = env.step(f"Action: {said}")
        assert (worth, terminated, truncated, info["outcome"]) == (reward, True, False, Outcome.FINISHED)
        assert info["trajectory"].answer == moves[-1].text
        assert seen in env.observation_space


def test_the_step_limit_truncates(env: WebEnv) -> None:
    _, info = env.reset(options={"task": 1})
    reward = 0.0
    for number, said in enumerate(("Scroll [WINDOW]; down", "Dance", "Wait", "Home"), 1):
        seen, reward, terminated, truncated, info = env.step(f"Action: {said}")
        assert (terminated, truncated) == (False, number == 4)
        assert number != 2 or "Notice: Your reply was not understood" in seen["text"]
    assert info["outcome"] is Outcome.STEP_LIMIT
    assert math.isnan(reward)  # nobody knows how well one looked around
    with pytest.raises(RuntimeError, match="call reset"):
        env.step("Action: Wait")


def test_what_is_not_the_agents_doing_gets_no_number(env: WebEnv) -> None:
    gone = WebEnv([Task(website=Website(name="gone", url="http://127.0.0.1:9/"), instruction="Go.")])
    with pytest.raises(RuntimeError, match="no episode: site_error"):
        gone.reset()
    gone.close()
    gone.close()
