"""The environment as Gymnasium's: an observation is what the policy is shown, an action what it says.

The agent's own loop runs behind it (policy/agent.py), so limits, outcomes and records are those of any rollout. Needs
the extra ``gym``.
"""

import asyncio
import contextlib
import io
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import gymnasium
import numpy as np
from PIL import Image

from evaluator.truth import ground_truth
from policy.agent import AgentSettings, roll_out
from policy.blobs import MemoryBlobs
from policy.browser import Browser, BrowserSettings
from policy.prompt import describe, render, system_prompt
from policy.trajectory import Outcome, Trajectory
from proposer.generate import Prompt, Response, Sampling
from proposer.task import Task
from sites.server import PracticeServer

Result = TypeVar("Result")
Observed = dict[str, Any]

MAX_TEXT_CHARS = 100_000
MAX_ACTION_CHARS = 4_000
_ENDS = {Outcome.FINISHED, Outcome.STUCK}  # the agent's own; all else cuts the episode off
_CLOSE_DEADLINE_S = 30.0


class Words(gymnasium.spaces.Text):
    """Text of any characters; samples are letters and digits."""

    def contains(self, x: Any) -> bool:
        """Whether it is text and not too long."""
        return isinstance(x, str) and len(x) <= self.max_length


class WebEnv(gymnasium.Env[Observed, str]):
    """Tasks on websites.

    Observation: ``text``, the policy's prompt (the page, what was done, the task), and unless `agent.pictures` is off
    ``picture``, the screenshot as (height, width, 3) of 0 to 255. Action: a reply of the policy, ``Action: Click [3]``.

    An episode is terminated by an answer (or by saying the same again and again, outcome ``stuck``), and truncated by
    the step limit, the time limit, and by what the agent can't help. The reward comes at the end: `score` of the
    trajectory. It is NaN where nothing is known, or the outcome isn't the agent's: no number may be learned from that.

    ``info`` says ``task``, ``system`` (the system message) and ``outcome`` (None until the end; policy/trajectory.py),
    and at the end has the whole ``trajectory``.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        agent: AgentSettings | None = None,
        browser: BrowserSettings | None = None,
        score: Callable[[Trajectory], float | bool | None] = ground_truth,
    ) -> None:
        """Nothing is started before the first `reset`.

        Args:
            tasks: From which `reset` draws one; ``options={"task": 3}`` chooses the fourth.
            agent: Limits, as in a run; None: the defaults.
            browser: As in a run; None: the defaults.
            score: What an episode is worth; None: nobody knows.
        """
        self._tasks = list(tasks)
        self._agent = agent or AgentSettings()
        self._settings = browser or BrowserSettings()
        self._score = score
        spaces: dict[str, gymnasium.Space[Any]] = {"text": Words(MAX_TEXT_CHARS)}
        if self._agent.pictures:
            shape = (self._settings.height_px, self._settings.width_px, 3)
            spaces["picture"] = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.action_space = Words(MAX_ACTION_CHARS)
        self._stage: _Stage | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Begin an episode in a fresh world. Raises RuntimeError if that can't be had."""
        super().reset(seed=seed)
        number = (options or {}).get("task")
        task = self._tasks[self.np_random.integers(len(self._tasks)) if number is None else number]
        if self._stage is None:
            self._stage = _Stage(self._settings)
        turn = self._stage.begin(task, self._agent)
        if isinstance(turn, Trajectory):
            raise RuntimeError(f"no episode: {turn.outcome}: {turn.error}")
        return self._see(turn), self._info(task, turn.system)

    def step(self, action: str) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Do what the policy says. Raises RuntimeError if no episode is under way."""
        if self._stage is None:
            raise RuntimeError("no episode is under way: call reset")
        turn = self._stage.go_on(action)
        if isinstance(turn, Prompt):
            return self._see(turn), 0.0, False, False, self._info(self._stage.task, turn.system)
        info = self._info(turn.task, system_prompt(self._settings.actions, self._viewport)) | {
            "outcome": turn.outcome,
            "trajectory": turn,
        }
        worth = self._score(turn) if turn.outcome.is_agents else None
        ended = turn.outcome in _ENDS
        return self._see_end(turn), float("nan") if worth is None else float(worth), ended, not ended, info

    def close(self) -> None:
        """End the episode and the browser."""
        if self._stage is not None:
            self._stage.close()
            self._stage = None

    @property
    def _viewport(self) -> tuple[int, int]:
        return self._settings.width_px, self._settings.height_px

    def _info(self, task: Task, system: str) -> dict[str, Any]:
        return {"task": task.id, "system": system, "outcome": None}

    def _see(self, prompt: Prompt) -> Observed:
        seen: Observed = {"text": "".join(part for part in prompt.parts if isinstance(part, str))}
        for part in prompt.parts:
            if isinstance(part, bytes):
                seen["picture"] = np.asarray(Image.open(io.BytesIO(part)).convert("RGB"))
        return seen

    def _see_end(self, trajectory: Trajectory) -> Observed:
        """The page at the end; nothing where it could not be looked at."""
        assert self._stage is not None, "an episode was under way"
        if trajectory.final is None:
            nothing: Observed = {"text": ""}
            return nothing | (
                {"picture": np.zeros((*self._viewport[::-1], 3), np.uint8)} if self._agent.pictures else {}
            )
        taken = [describe(step.action, step.observation) for step in trajectory.steps if step.action]
        history = taken[-self._agent.history :] if self._agent.history else []
        picture = self._stage.blobs.get(trajectory.final.screenshot) if self._agent.pictures else None
        return self._see(render(trajectory.task.instruction, trajectory.final, history, picture))


class _Reins:
    """A policy that says what it is given from outside."""

    def __init__(self) -> None:
        self.prompts: asyncio.Queue[Prompt] = asyncio.Queue()
        self.replies: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, prompt: Prompt, sampling: Sampling) -> Response:
        self.prompts.put_nowait(prompt)
        return Response(await self.replies.get())


class _Stage:
    """A browser, practice worlds and one episode, in an event loop on a thread of its own."""

    def __init__(self, settings: BrowserSettings) -> None:
        self.blobs = MemoryBlobs()
        """Pictures of the episode under way."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._browser = Browser(settings, self.blobs)
        self._has_begun = False
        self._practice: PracticeServer | None = None
        self._reins = _Reins()
        self._episode: asyncio.Task[Trajectory] | None = None

    def begin(self, task: Task, agent: AgentSettings) -> Prompt | Trajectory:
        """Give up the episode under way and begin another: the first prompt, or how it ended before."""
        self.task = task
        if task.website.practice_site and self._practice is None:
            self._practice = PracticeServer()
        return self._run(self._begin(task, agent))

    def go_on(self, reply: str) -> Prompt | Trajectory:
        """The next prompt after a reply, or how the episode ended."""
        if self._episode is None or self._episode.done():
            raise RuntimeError("no episode is under way: call reset")
        self._loop.call_soon_threadsafe(self._reins.replies.put_nowait, reply)
        return self._run(self._next(self._episode))

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(TimeoutError):
            self._run(self._close(), _CLOSE_DEADLINE_S)
        if self._practice is not None:
            self._practice.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_DEADLINE_S)
        self._loop.close()

    def _run(self, what: Coroutine[Any, Any, Result], limit_s: float | None = None) -> Result:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(limit_s)

    async def _begin(self, task: Task, agent: AgentSettings) -> Prompt | Trajectory:
        await self._give_up()
        if not self._has_begun:
            await self._browser.__aenter__()
            self._has_begun = True
        self.blobs = self._browser.blobs = MemoryBlobs()
        self._reins = _Reins()
        episode = roll_out(
            task,
            task.id,
            browser=self._browser,
            practice=self._practice,
            generate=self._reins,
            settings=agent,
            sampling=Sampling(),
        )
        self._episode = asyncio.create_task(episode)
        return await self._next(self._episode)

    async def _next(self, episode: asyncio.Task[Trajectory]) -> Prompt | Trajectory:
        asked = asyncio.create_task(self._reins.prompts.get())
        await asyncio.wait({asked, episode}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return asked.result()
        asked.cancel()
        return episode.result()

    async def _give_up(self) -> None:
        if self._episode is not None:
            self._episode.cancel()
            await asyncio.gather(self._episode, return_exceptions=True)

    async def _close(self) -> None:
        await self._give_up()
        if self._has_begun:
            await self._browser.__aexit__()
