"""Everything a round works with, opened in order and closed in reverse: model servers, workers, models, books."""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from evaluator.judge import Judge
from launch.books import Phase, WeightsRow
from launch.config import Config, FrozenRole
from launch.errors import Stopped
from launch.judging import RUBRICS, RubricFile, open_panel, seat, without_model
from launch.ledger import Ledger
from launch.storage import open_storage
from launch.tracking import Tracker
from launch.workers import Workers
from policy.blobs import BlobStore
from policy.endpoint import open_endpoint
from policy.fleet import Fleet
from policy.server import ModelServer
from proposer.generate import Generate

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Watch = Callable[[int, Phase, int, int], None]
"""(round, phase, done, wanted): told as work gets done, for a progress bar."""


@contextlib.asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first error cancels the rest and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from None


@dataclass(slots=True)
class Team:
    """What the stages of a round work with."""

    config: Config
    run_dir: Path
    ledger: Ledger
    blobs: BlobStore
    fleet: Fleet
    workers: Workers
    tracker: Tracker
    watch: Watch
    stop: asyncio.Event
    judge_slots: asyncio.Semaphore
    """As many judgements as may be under way at once."""
    panel: tuple[Judge, ...] = ()
    """Judges that have to agree with the judge."""
    models: dict[FrozenRole, Generate] = field(default_factory=dict)
    """Judge and proposer, where they don't take turns with the policy."""
    judging: list[asyncio.Task[None]] = field(default_factory=list)
    """Judgements begun while episodes still roll out."""

    async def serve(self, weights: WeightsRow) -> None:
        """Have the policy's servers answer with a version, unless they do."""
        if self.fleet.version != weights.version:
            await self.fleet.publish(weights.version, self.weights_dir(weights))

    async def model(self, role: FrozenRole) -> Generate:
        """The model of a frozen role; one that takes turns is loaded into the policy's servers."""
        if role in self.models:
            return self.models[role]
        directory = self.config.model.directory(role).resolve()
        if self.fleet.model != directory:
            await self.fleet.publish(None, directory)
        return self.fleet.generate()

    async def judge(self) -> Judge:
        """The judge; one that takes turns is loaded into the policy's servers."""
        if judge := without_model(self.config.judge):
            return judge
        return seat(self.config, await self.model("judge"), self.panel, self.blobs, self.ledger)

    async def streaming_judge(self) -> Judge | None:
        """The judge, if it can be asked while episodes roll out; None where it takes turns with the policy."""
        return await self.judge() if "judge" in self.models or self.config.judge.kind != "model" else None

    def weights_dir(self, weights: WeightsRow) -> Path:
        """Directory of a version."""
        return (self.run_dir / weights.path).resolve()

    async def each(self, items: Iterable[Item], do: Callable[[Item], Awaitable[None]], limit: int) -> None:
        """Do something with each item, at most `limit` at once; the first error stops the rest.

        Raises:
            Stopped: the run was asked to stop; what had begun was finished first.
        """
        queue = iter(items)

        async def work() -> None:
            for item in queue:  # shared: each item goes to exactly one worker
                await do(item)
                if self.stop.is_set():
                    return

        self.check_stop()
        async with together() as group:
            for _ in range(limit):
                group.create_task(work())
        self.check_stop()

    async def drop_judging(self) -> None:
        """Cancel the judgements under way; their errors are not told, since the run is ending with one already."""
        for task in self.judging:
            task.cancel()
        await asyncio.gather(*self.judging, return_exceptions=True)
        self.judging.clear()

    def check_stop(self) -> None:
        """Raise Stopped if the run was asked to stop."""
        if self.stop.is_set():
            raise Stopped

    def seed(self, *parts: object) -> int:
        """A seed for one purpose, from the run's seed; 31 bits."""
        text = json.dumps([self.config.run.seed, *map(str, parts)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


@contextlib.asynccontextmanager
async def open_team(
    config: Config, ledger: Ledger, tracker: Tracker, watch: Watch, stop: asyncio.Event
) -> AsyncIterator[Team]:
    """A team that is ready to work; everything it started ends with the context."""
    async with contextlib.AsyncExitStack() as stack:
        team = make_team(config, ledger, tracker, watch, stop)
        async with together() as starting:
            starting.create_task(stack.enter_async_context(team.fleet))
            starting.create_task(stack.enter_async_context(team.workers))
            models = starting.create_task(open_frozen(config, ledger.run_dir, config.served_apart, stack))
        team.models = models.result()
        try:
            yield team
        finally:
            await team.drop_judging()


def make_team(config: Config, ledger: Ledger, tracker: Tracker, watch: Watch, stop: asyncio.Event) -> Team:
    """A team whose servers and workers aren't started, and whose frozen models aren't opened."""
    run_dir = ledger.run_dir
    model, log = config.model.directory("policy"), run_dir / "logs" / "policy.log"
    blobs = BlobStore(run_dir / "blobs")
    return Team(
        config=config,
        run_dir=run_dir,
        ledger=ledger,
        tracker=tracker,
        blobs=blobs,
        fleet=Fleet(config.serving, model, log, tell=lambda text: ledger.add_event("replica", text)),
        workers=Workers(open_storage(config.cluster.storage, ledger), config.rollout, config.cluster),
        watch=watch,
        stop=stop,
        judge_slots=asyncio.Semaphore(config.rollout.num_judgements),
        panel=open_panel(config, blobs, ledger),
    )


async def open_frozen(
    config: Config, run_dir: Path, roles: Sequence[FrozenRole], stack: contextlib.AsyncExitStack
) -> dict[FrozenRole, Generate]:
    """The frozen models asked for: remote, or on servers started here; roles with the same model share a server."""
    settings = config.serving.model_copy(update={"port": 0})
    directories = {role: config.model.directory(role).resolve() for role in roles if config.endpoint(role) is None}
    servers = {
        path: ModelServer(settings, path, run_dir / "logs" / f"{role}.log") for role, path in directories.items()
    }
    for server in servers.values():
        await stack.enter_async_context(server)
    return {role: open_endpoint(config.endpoint(role) or servers[directories[role]].endpoint) for role in roles}


@contextlib.asynccontextmanager
async def open_judge(config: Config, directory: Path, blobs: BlobStore) -> AsyncIterator[Judge]:
    """A config's judge apart from any run; a server started for it writes its log into `directory`/logs.

    Rubrics that it writes are kept in `directory`.
    """
    if judge := without_model(config.judge):
        yield judge
        return
    async with contextlib.AsyncExitStack() as stack:
        models = await open_frozen(config, directory, ("judge",), stack)
        shelf = RubricFile(directory / RUBRICS)
        yield seat(config, models["judge"], open_panel(config, blobs, shelf), blobs, shelf)
