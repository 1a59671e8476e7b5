"""Ray: rollout actors with a browser each, and the learner's own process. The only file that imports ray.

In: episode orders. Out: names of files in the run's inbox, however they get there (launch/storage.py). At most
`num_actors * episodes_per_actor` episodes are under way; an actor that dies is started again by Ray, and whoever
ordered its episodes is told with `WorkerLost`.
"""

import asyncio
import contextlib
import functools
import logging
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from launch.config import ClusterSettings, RolloutSettings
from launch.disk import is_full
from launch.errors import RunFailed, StorageError, WorkerLost
from launch.storage import DELIVER_DEADLINE_S, Storage
from policy.agent import AgentSettings, roll_out
from policy.browser import Browser
from policy.browser_settings import BrowserError, BrowserSettings
from policy.browser_suite import SuiteReferee, open_referee
from policy.crash import crash_point
from policy.endpoint import EndpointSettings, open_endpoint
from policy.explore import LOOK_LIMIT_S, look_around
from policy.manners import Pace, Pacer
from policy.trajectory import Outcome, Trajectory
from proposer.generate import Generate, Sampling
from proposer.look import Look
from proposer.task import Task, Website
from rl.learner import LearnerSettings
from sites.server import PracticeServer

logger = logging.getLogger(__name__)

DEADLINE_MARGIN_S = 60.0
"""Beyond the agent's own time limit, or that of a look: opening a browser context, the last model call, writing the
file."""
START_DEADLINE_S = 180.0
"""For an actor to be there, at first or again: libraries are read anew, and a node's death is noticed late."""
PACE = "pace"
"""Name of the actor that keeps the pace, within the run."""
LEARNER_RETRIES = 2
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Local Ray only; what passes through it is small (screenshots travel as files)."""


@dataclass(frozen=True, slots=True)
class Order:
    """One episode to run."""

    trajectory_id: str
    task: Task
    policy: EndpointSettings
    weights: int
    """Version of the policy behind the endpoint; stamped on every step."""
    sampling: Sampling


class RolloutActor:
    """One browser, one server of practice worlds, several episodes at once."""

    def __init__(self, storage: Storage, agent: AgentSettings, browser: BrowserSettings, pacer: Pacer) -> None:
        """Note the settings; browser and server start with the first order."""
        self._pacer = pacer
        self._storage = storage
        self._agent = agent
        self._browser_settings = browser
        self._browser: Browser | None = None
        self._practice: PracticeServer | None = None
        self._starting = asyncio.Lock()
        self._policies: dict[tuple[str, int], Generate] = {}

    async def ready(self) -> None:
        """Answers once the actor is there."""

    async def run(self, order: Order) -> str:
        """Run one episode; the name of its file in the inbox. Raises StorageError."""
        blobs = self._storage.open_blobs()
        try:
            browser = await self._open_browser()
            referee = _open_referee(order.task)
        except BrowserError as error:
            trajectory = failed_trajectory(order, Outcome.RESET_FAILURE, str(error))
        else:
            trajectory = await roll_out(
                order.task,
                order.trajectory_id,
                browser=browser,
                practice=self._open_practice(order.task.website),
                generate=self._open_policy(order),
                settings=self._agent,
                sampling=order.sampling,
                blobs=blobs,
                referee=referee,
            )
        name = await self._storage.deliver(trajectory, blobs)
        crash_point("worker:delivered")
        return name

    async def look(self, website: Website, world: str | None, num_pages: int, seed: int) -> list[Look]:
        """What the proposer is shown of a website; empty if it can't be opened."""
        practice = self._open_practice(website)
        visit = practice.open(website.practice_site or "", world or "") if practice else None
        url = visit.url if visit else website.url
        try:
            browser = await self._open_browser()
            blobs = self._storage.open_blobs()
            return await look_around(browser, url, website.allowed_hosts, num_pages, random.Random(seed), blobs)
        except BrowserError as error:
            logger.warning("%s can't be looked at: %s", url, error)
            return []
        finally:
            if practice and visit:
                practice.close_visit(visit)

    async def _open_browser(self) -> Browser:
        async with self._starting:
            if self._browser is None:
                browser = Browser(self._browser_settings, self._storage.open_blobs(), pacer=self._pacer)
                self._browser = await browser.__aenter__()
            return self._browser

    def _open_policy(self, order: Order) -> Generate:
        key = (order.policy.base_url, order.weights)
        if key not in self._policies:
            replicas = {other: policy for other, policy in self._policies.items() if other[1] == order.weights}
            self._policies = replicas | {key: open_endpoint(order.policy, weights=order.weights)}
        return self._policies[key]

    def _open_practice(self, website: Website) -> PracticeServer | None:
        if website.practice_site is None:
            return None
        if self._practice is None:
            self._practice = PracticeServer()
        return self._practice


def _open_referee(task: Task) -> SuiteReferee | None:
    """Who looks after a task of a BrowserGym suite; None for all other tasks. Raises BrowserError."""
    if task.suite_id is None or not task.is_gym:
        return None
    return open_referee(task.suite_id, task.seed or 0, task.website.url)


class SharedPacer:
    """The pace that all workers of a run share, which an actor of its own keeps.

    It is found by its name, since Ray warns of actors that have another one's handle among their arguments: they may
    not be started again.
    """

    async def reserve(self, host: str, least_gap_s: float = 0.0) -> float:
        """See `Pacer`."""
        return await self._keeper.reserve.options(max_task_retries=-1).remote(host, least_gap_s)

    async def back_off(self, host: str, retry_after_s: float | None) -> float:
        """See `Pacer`."""
        return await self._keeper.back_off.options(max_task_retries=-1).remote(host, retry_after_s)

    @functools.cached_property
    def _keeper(self) -> Any:
        import ray

        return ray.get_actor(PACE)


def failed_trajectory(order: Order, outcome: Outcome, error: str) -> Trajectory:
    """The record of an episode that never began or whose worker died."""
    return Trajectory(id=order.trajectory_id, task=order.task, steps=(), outcome=outcome, error=error)


class Workers:
    """The rollout actors of a run; an async context manager."""

    def __init__(self, storage: Storage, rollout: RolloutSettings, cluster: ClusterSettings) -> None:
        """Note the settings; Ray starts on entry."""
        self._storage = storage
        self._rollout = rollout
        self._cluster = cluster
        self._ray: Any = None
        self._actors: list[Any] = []
        self._pace: Any = None
        self._slots: asyncio.Queue[int] = asyncio.Queue()

    @property
    def num_slots(self) -> int:
        """Episodes that can be under way at once."""
        return self._rollout.num_actors * self._rollout.episodes_per_actor

    async def __aenter__(self) -> Self:
        self._ray = await asyncio.to_thread(_connect, self._cluster)
        settings = self._rollout
        make = self._ray.remote(RolloutActor).options(
            num_cpus=0,
            memory=1,  # byte: actors that ask for nothing at all are placed by chance, whatever the strategy
            max_concurrency=settings.episodes_per_actor + 1,
            max_restarts=-1,
            scheduling_strategy="SPREAD",
        )
        # One that died remembers no host; whoever asked it meanwhile asks again.
        keep_pace = self._ray.remote(Pace).options(num_cpus=0, max_restarts=-1, name=PACE)
        self._pace = keep_pace.remote(settings.browser.politeness)
        self._actors = [
            make.remote(self._storage, settings.agent, settings.browser, SharedPacer())
            for _ in range(settings.num_actors)
        ]
        for _ in range(settings.episodes_per_actor):
            for index in range(settings.num_actors):
                self._slots.put_nowait(index)
        return self

    async def __aexit__(self, *_: object) -> None:
        for actor in (*self._actors, self._pace):
            self._ray.kill(actor)
        await asyncio.to_thread(self._ray.shutdown)

    async def run(self, order: Order) -> str:
        """Run one episode on the least busy actor; the name of its file in the inbox.

        Raises:
            WorkerLost: it died or can't deliver; the episode may be in the inbox all the same.
            StorageError: the driver can't fetch what was delivered.
        """
        deadline_s = self._rollout.agent.time_limit_s + DEADLINE_MARGIN_S
        if self._cluster.storage is not None:
            deadline_s += DELIVER_DEADLINE_S
        async with self._slot() as index:
            try:
                name = await self._ask(index, self._actors[index].run.remote(order), deadline_s)
            except WorkerLost:
                await self._storage.fetch(order.trajectory_id)
                raise
            if not await self._storage.fetch(order.trajectory_id):
                raise WorkerLost(f"what rollout actor {index} delivered can't be read")
            return name

    async def look(self, website: Website, world: str | None, num_pages: int, seed: int) -> list[Look]:
        """What the proposer is shown of a website; empty if it can't be opened. Raises WorkerLost."""
        async with self._slot() as index:
            reference = self._actors[index].look.remote(website, world, num_pages, seed)
            return await self._ask(index, reference, LOOK_LIMIT_S + DEADLINE_MARGIN_S)

    async def learn(
        self, manifest: Path, parent: Path, out: Path, starter: Path, sampler: Path, settings: LearnerSettings
    ) -> dict[str, float]:
        """Update the weights in a process of its own (see `rl.learner.update`); its metrics. Raises RunFailed."""
        make = self._ray.remote(max_calls=1)  # the process ends with the update, and its memory with it
        # One that is killed goes on from its checkpoint; an error of its own is not tried again.
        gpus, retries = self._cluster.learner_gpus, LEARNER_RETRIES
        task = make(_update).options(num_gpus=gpus, max_retries=retries, retry_exceptions=False, **self._learner_node())
        reference = task.remote(*(path.resolve() for path in (manifest, parent, out, starter, sampler)), settings)
        try:
            return await asyncio.wrap_future(reference.future())
        except self._ray.exceptions.RayError as error:
            raise RunFailed(f"the learner failed: {str(error).strip().splitlines()[-1]}") from error
        finally:
            self._ray.cancel(reference, force=True)

    def _learner_node(self) -> dict[str, Any]:
        """Ray's options that give the learner all cores of one node, which keeps others away."""
        nodes = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]}
        if self._cluster.storage is None:  # more than the largest node has would be waited for in vain
            return {"num_cpus": max(nodes.values())}
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()  # manifest, pictures and weights are on no other disk
        return {"num_cpus": nodes[here], "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[int]:
        """One of an actor that is there. Raises WorkerLost.

        One that is being started again is waited for: Ray would refuse an order after two seconds of that, and an
        episode's few tries would be spent before the actor is back.
        """
        index = await self._slots.get()
        try:
            ready = self._actors[index].ready.options(max_task_retries=-1)
            await self._ask(index, ready.remote(), START_DEADLINE_S)
            yield index
        finally:
            self._slots.put_nowait(index)

    async def _ask(self, index: int, reference: Any, deadline_s: float) -> Any:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(reference.future()), deadline_s)
        except self._ray.exceptions.RayActorError as error:
            raise WorkerLost(f"rollout actor {index} died: {error}") from error
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, StorageError):
                raise WorkerLost(f"rollout actor {index} can't deliver: {error.cause}") from error
            if is_full(error.cause):  # trying again would fill it further, and the episode's end isn't the agent's
                raise error.cause from error
            raise
        except TimeoutError as error:
            self._ray.kill(self._actors[index], no_restart=False)
            raise WorkerLost(f"rollout actor {index} was killed: nothing after {deadline_s:.0f} s") from error


def _update(
    manifest: Path, parent: Path, out: Path, starter: Path, sampler: Path, settings: LearnerSettings
) -> dict[str, float]:
    from rl.learner import update  # loads torch: in this process only

    log = manifest.parent.parent / "logs" / "learner.log"
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(filename=log, format=form, level=logging.INFO, force=True)
    return update(manifest, parent, out, settings=settings, starter=starter, sampler=sampler)


def _connect(cluster: ClusterSettings) -> Any:
    """Join the cluster of RAY_ADDRESS or the config, else start one on this machine, on loopback only; the ray module.

    Ray reads its environment when it is imported, so it is imported here, after the environment is set.
    """
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # it would abort on the SIGTERM that stops a run
    address = os.environ.get("RAY_ADDRESS") or cluster.address
    options: dict[str, Any] = {"address": address}
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # despite its name: a node of its own, on 127.0.0.1
        options = {
            "address": "local",  # never another cluster that happens to run here
            "num_cpus": cluster.num_cpus,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    import ray

    ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    return ray
