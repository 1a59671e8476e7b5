"""What fails on the website's or the model's side is never the agent's zero: a part of bench/faults.py."""

from collections.abc import Iterator

import pytest
import pytest_asyncio

from bench.faults import BROWSER, Case, Clicker, SiteFault, attempt, cases
from bench.scripted import Call, Fault, ScriptedServer
from policy.blobs import BlobStore
from policy.browser import Browser
from policy.trajectory import Outcome

FAULTS = [case for case in cases() if case.behind or case.model_call == 1]
"""Each fault at its later place; the earlier ones are in other tests."""

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hasty_browser(blobs: BlobStore):
    async with Browser(BROWSER, blobs) as browser:
        yield browser


class Returner(Clicker):
    """Clicks, goes back from what it finds, and answers."""

    def __call__(self, call: Call) -> str:
        self.num_calls += 1
        actions = ("Click [1]", "GoBack", "Answer; done")
        return f"Thought: On.\nAction: {actions[min(self.num_calls, 3) - 1]}"


@pytest.fixture(scope="module")
def clicker() -> Iterator[tuple[Clicker, ScriptedServer]]:
    script = Clicker()
    with ScriptedServer(script) as server:
        yield script, server


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
async def test_a_fault_ends_as_what_it_is(
    case: Case, hasty_browser: Browser, clicker: tuple[Clicker, ScriptedServer]
) -> None:
    script, server = clicker
    trajectory = await attempt(case, hasty_browser, server, script)
    assert trajectory.outcome.is_agents is not case.is_infrastructure
    assert bool(trajectory.error) is case.is_infrastructure


async def test_a_prompt_that_the_models_server_will_not_take_is_no_outage(
    hasty_browser: Browser, clicker: tuple[Clicker, ScriptedServer]
) -> None:
    script, server = clicker
    case = Case("too long", True, model=Fault(status=400), model_call=1)
    trajectory = await attempt(case, hasty_browser, server, script)
    assert (trajectory.outcome, script.num_calls) == (Outcome.PROMPT_REFUSED, 2)
    assert "Error code: 400" in trajectory.error


async def test_an_agent_that_leaves_what_failed_is_judged_by_what_it_does_then(hasty_browser: Browser) -> None:
    fault = SiteFault("500", True, b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n", b"<p>Oops</p>")
    script = Returner()
    with ScriptedServer(script) as server:
        trajectory = await attempt(Case("left again", False, behind=fault), hasty_browser, server, script)
    assert (trajectory.outcome, len(trajectory.steps)) == (Outcome.FINISHED, 3)
