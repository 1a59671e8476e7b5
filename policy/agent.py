"""The agent's loop: a task in, a trajectory out (the paper's tau ~ pi(. | c)).

`roll_out` never raises for what the world does: however an episode ends, it ends in one typed outcome.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from policy.blobs import Blobs
from policy.browser_settings import BrowserError
from policy.prompt import describe, parse, render, system_prompt
from policy.trajectory import Action, ActionKind, Observation, Outcome, Step, Trajectory
from proposer.generate import Generate, ModelError, PromptRefused, Sampling
from proposer.task import Checks, Task
from sites.server import PracticeServer, Visit

if TYPE_CHECKING:
    from policy.browser import Browser, Tab


class AgentSettings(BaseModel):
    """Limits and sampling of one episode."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_steps: int = Field(default=10, ge=1)
    """Steps after which an episode ends with outcome step_limit."""
    max_repeats: int = Field(default=3, ge=2)
    """An episode ends as stuck when the policy has said the same so many times in a row on a page that looked the same
    each time (WebArena stops such episodes too)."""
    time_limit_s: float = Field(default=180.0, gt=0)
    """Seconds after which an episode ends with outcome time_limit."""
    history: int = Field(default=5, ge=0)
    """Earlier actions told to the policy."""
    pictures: bool = True
    """Whether the screenshot is shown to the policy; its marks are listed in text either way."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature in training rollouts; measuring has its own (`evaluation.temperature`)."""
    retry_temperature: float | None = Field(default=None, gt=0)
    """The same for a step that is told something about the last one, mostly that it failed: there a policy tends to say
    the same again, and attempts that all repeat a mistake have nothing to learn from. None: as elsewhere."""
    max_tokens: int = Field(default=96, ge=1)
    """Tokens per response."""


class Referee(Protocol):
    """A suite's own program that readies a page, says what is to be done, and when and how well it was."""

    async def begin(self, tab: "Tab") -> str:
        """Ready the page; the task's instruction. Raises BrowserError."""
        ...

    async def look(self, tab: "Tab", answer: str | None) -> bool:
        """Look at the page after a step, or at the end; whether the episode is over. Raises BrowserError."""
        ...

    async def end(self) -> None:
        """Let go of what was taken, while the page is still there. Raises BrowserError."""
        ...

    @property
    def score(self) -> float:
        """What the looks gave so far."""
        ...


@dataclass(slots=True)
class Episode:
    """An attempt under way."""

    task: Task
    tab: "Tab"
    blobs: Blobs
    generate: Generate
    settings: AgentSettings
    sampling: Sampling
    referee: Referee | None = None
    """None: nobody but the agent ends it."""
    steps: list[Step] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    notice: str = ""
    answer: str | None = None

    async def run(self) -> Outcome:
        """Step until an answer, the step limit, or nothing new. Raises ModelError and BrowserError."""
        for _ in range(self.settings.max_steps):
            started = time.monotonic()
            observation = await self.tab.observe(self.notice)
            action = await self.take_step(observation, time.monotonic() - started)
            if action is not None and action.kind is ActionKind.ANSWER:
                self.answer = action.text
            is_over = self.referee is not None and await self.referee.look(self.tab, self.answer)
            if self.answer is not None:
                return Outcome.FINISHED
            if is_over:
                return Outcome.OVER
            if self.is_stuck():
                return Outcome.STUCK
        return Outcome.STEP_LIMIT

    def is_stuck(self) -> bool:
        """Whether the last steps were all the same reply to the same screen; waiting may take as long as it takes."""
        last = self.steps[-self.settings.max_repeats :]
        said = {(step.response, step.observation.screenshot) for step in last}
        waits = last[-1].action is not None and last[-1].action.kind is ActionKind.WAIT
        return len(last) == self.settings.max_repeats and len(said) == 1 and not waits

    def sampling_now(self) -> Sampling:
        """How this step is sampled: after a notice it explores, unless it is greedy."""
        explores = self.notice and self.sampling.temperature > 0 and self.settings.retry_temperature is not None
        return replace(self.sampling, temperature=self.settings.retry_temperature) if explores else self.sampling

    async def take_step(self, observation: Observation, observe_s: float) -> Action | None:
        """Ask the policy, act, and record; the action taken, None if the reply was malformed."""
        asked = time.monotonic()
        picture = self.blobs.get(observation.screenshot) if self.settings.pictures else None
        history = self.history[-self.settings.history :] if self.settings.history else []
        system = system_prompt(self.tab.actions, self.tab.facts.viewport)
        prompt = render(self.task.instruction, observation, history, picture, system)
        sampling = self.sampling_now()
        response = await self.generate(prompt, sampling)
        answered = time.monotonic()
        reply = parse(response.text, observation.elements, self.tab.actions)
        effect = action_class = None
        if reply.action is None:
            self.notice = f"Your reply was not understood: {reply.malformed}."
        else:
            self.notice = await self.tab.act(reply.action, observation)
            effect, action_class = self.tab.effect, self.tab.action_class
            self.history.append(describe(reply.action, observation))
        self.steps.append(
            Step(
                observation=observation,
                response=response.text,
                thought=reply.thought,
                action=reply.action,
                malformed=reply.malformed,
                effect=effect,
                action_class=action_class,
                pictured=picture is not None,
                weights=response.weights,
                prompt_ids=response.prompt_ids,
                token_ids=response.token_ids,
                logprobs=response.logprobs,
                temperature=sampling.temperature,
                model_s=answered - asked,
                browser_s=observe_s + time.monotonic() - answered,
            )
        )
        return reply.action


async def roll_out(
    task: Task,
    trajectory_id: str,
    *,
    browser: "Browser",
    practice: PracticeServer | None,
    generate: Generate,
    settings: AgentSettings,
    sampling: Sampling,
    blobs: Blobs | None = None,
    referee: Referee | None = None,
) -> Trajectory:
    """One attempt at a task.

    Args:
        task: What to do and where.
        trajectory_id: Name of the record.
        browser: Where to act; many episodes may share it.
        practice: Server of practice worlds; needed only for tasks on practice sites.
        generate: The policy.
        settings: Limits.
        sampling: How the policy samples; its max_tokens is taken from `settings`.
        blobs: Where the pictures go; None: where the browser's go.
        referee: Of a task whose suite has one: the record's task then has the instruction that it gave.
    """
    started = time.monotonic()
    with visiting(task, practice) as visit:
        record = await _attempt(task, visit, browser, blobs or browser.blobs, generate, settings, sampling, referee)
    return Trajectory(id=trajectory_id, seconds=time.monotonic() - started, **record)


async def look_up(tab: "Tab", checks: Checks) -> tuple[str, ...]:
    """What the pages that checks name hold now; "" where there is nothing to be found.

    Raises BrowserError if one can't be had: that is no doing of the agent's.
    """
    return tuple([await tab.read_text(page.locator, page.url) for page in checks.pages])


@contextmanager
def visiting(task: Task, practice: PracticeServer | None) -> Iterator[Visit | None]:
    """A fresh world for an episode of a task, gone at the end; None where the task is on no practice site."""
    site = task.website.practice_site
    if site is None:
        yield None
        return
    assert practice is not None and task.world is not None, "a task on a practice site needs a server and a world"
    visit = practice.open(site, task.world)
    try:
        yield visit
    finally:
        practice.close_visit(visit)


async def _attempt(
    task: Task,
    visit: Visit | None,
    browser: "Browser",
    blobs: Blobs,
    generate: Generate,
    settings: AgentSettings,
    sampling: Sampling,
    referee: Referee | None,
) -> dict[str, Any]:
    """The fields of a Trajectory that the attempt decides."""
    episode: Episode | None = None
    tab: Tab | None = None
    final: Observation | None = None
    found: tuple[str, ...] = ()
    error = ""
    try:
        async with asyncio.timeout(settings.time_limit_s):
            url = visit.url if visit else task.website.url
            async with browser.episode(url, task.website.allowed_hosts, blobs) as tab, AsyncExitStack() as ending:
                sampling = Sampling(sampling.temperature, settings.max_tokens, sampling.seed)
                if referee is not None:
                    ending.push_async_callback(referee.end)
                    task = task.model_copy(update={"instruction": await referee.begin(tab)})
                episode = Episode(task, tab, blobs, generate, settings, sampling, referee)
                outcome = await episode.run()
                final = await tab.observe()
                if tab.failure:  # whatever the agent made of it, it might have done better with a site that works
                    outcome, error = Outcome.SITE_ERROR, tab.failure
                elif task.checks is not None:
                    found = await look_up(tab, task.checks)
    except TimeoutError:
        outcome, error = Outcome.TIME_LIMIT, f"not done within {settings.time_limit_s:.0f} s"
    except PromptRefused as failure:
        outcome, error = Outcome.PROMPT_REFUSED, str(failure)
    except ModelError as failure:
        outcome, error = Outcome.MODEL_OUTAGE, str(failure)
    except BrowserError as failure:
        outcome, error = failure.outcome, str(failure)
    return {
        "task": task,
        "steps": tuple(episode.steps) if episode else (),
        "outcome": outcome,
        "error": error,
        "answer": episode.answer if episode else None,
        "final": final,
        "found": found,
        "score": referee.score if referee and final else None,
        "final_state": visit.world.read() if visit else None,
        "browser": tab.facts if tab else None,
        "refused": tuple(tab.refused) if tab else (),
        "side_effects": tuple(tab.side_effects) if tab else (),
    }
