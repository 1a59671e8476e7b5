"""What would stop a run before it has begun: looked at before anything is written.

In: a config. Out: one line for each thing that is missing, taken, full or out of reach.
"""

import asyncio
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from launch.config import Config
from launch.disk import GB, free_gb
from launch.errors import StorageError
from launch.ledger import has_run
from launch.storage import ObjectStore
from policy.blobs import BlobStore
from policy.browser import Browser
from policy.browser_settings import BrowserError, BrowserSettings
from policy.server_record import ServerRecord
from policy.server_settings import is_cpu_build, visible_gpus
from sites.catalogue import SITES

logger = logging.getLogger(__name__)

REACH_TIMEOUT_S = 10.0


class PreflightError(ValueError):
    """The run can't start; `problems` has one line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        """Keep the reasons."""
        super().__init__("; ".join(problems))
        self.problems = problems


def check(config: Config) -> None:
    """Return if the run can start. Raises PreflightError with every reason why it can't."""
    checks = (_model, _server, _browser, _space, _storage, _websites, _truth, _endpoints)
    problems = [problem for look in checks for problem in look(config)]
    if problems:
        raise PreflightError(problems)


def _model(config: Config) -> Iterator[str]:
    model = config.model
    if model.starter is not None and not (model.starter / "STARTER.json").is_file():
        yield f"model.starter: no starter at {model.starter}; make one with `python -m launch starter build`"
    if model.base is not None and not (model.base / "config.json").is_file():
        yield f"model.base: no model at {model.base}; expected a directory in Hugging Face layout"


def _server(config: Config) -> Iterator[str]:
    serving = config.serving
    for url in serving.base_urls:
        if not _reachable(f"{url}/health"):
            yield f"serving.base_urls: nothing answers at {url}"
    starts_one = not serving.base_urls or any(config.endpoint(role) is None for role in config.frozen_roles)
    if starts_one and importlib.util.find_spec("vllm") is None:
        yield "serving: vLLM is not installed; run `make setup`, or name running servers"
    left_behind = ServerRecord.read(config.run_dir / "logs" / "policy.log")  # by a killed driver: it will be adopted
    is_ours = left_behind is not None and left_behind.port == serving.port
    if not serving.base_urls and serving.port and not is_ours and not _is_free(serving.port):
        yield f"serving.port: {serving.port} on 127.0.0.1 is taken; choose another, or 0 for any free one"
    if not serving.base_urls and serving.replicas > 1 and not is_cpu_build():
        wanted, found = serving.replicas * serving.tensor_parallel, len(visible_gpus())
        if wanted > found:
            yield f"serving.replicas: {wanted} GPUs needed (serving.tensor_parallel each), {found} visible"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _browser(config: Config) -> Iterator[str]:
    try:
        asyncio.run(_start_browser(config.rollout.browser))
    except BrowserError as error:
        yield f"rollout.browser: {error}"


async def _start_browser(settings: BrowserSettings) -> None:
    async with Browser(settings, BlobStore(Path(os.devnull))):
        pass


def _space(config: Config) -> Iterator[str]:
    directory = next(path for path in (config.run_dir.absolute(), *config.run_dir.absolute().parents) if path.exists())
    if not os.access(directory, os.W_OK):
        yield f"run.runs_dir: {directory} can't be written to"
    free, wanted = free_gb(directory), config.run.min_free_disk_gb
    if free < wanted:
        yield f"disk: {free:.1f} GB free at {directory}, expected {wanted:g} (run.min_free_disk_gb)"
    available, wanted = psutil.virtual_memory().available / GB, config.run.min_free_memory_gb
    if available < wanted:
        yield f"memory: {available:.1f} GB available, expected {wanted:g} (run.min_free_memory_gb)"


def _storage(config: Config) -> Iterator[str]:
    if (url := config.cluster.storage) is not None:
        try:
            asyncio.run(ObjectStore(url, config.run_dir).check(REACH_TIMEOUT_S))
        except StorageError as error:
            yield f"cluster.storage: {error}"


def _websites(config: Config) -> Iterator[str]:
    for entry in config.websites:
        if entry.practice_site is not None and entry.practice_site not in SITES:
            expected = ", ".join(sorted(SITES))
            yield f"websites: {entry.name}: no practice site {entry.practice_site!r}; expected one of {expected}"
    live = [entry for entry in config.websites if entry.practice_site is None]
    silent = [entry for entry in live if not _reachable(entry.url)]
    lines = [f"websites: {entry.name}: nothing answers at {entry.url}" for entry in silent]
    if has_run(config.run_dir) and len(silent) < len(config.websites):
        for line in lines:  # a run of days outlives a website's bad hour
            logger.warning("%s; the run goes on, and asks it again in every round", line)
    else:
        yield from lines


def _truth(config: Config) -> Iterator[str]:
    gold, by_truth = config.rollout.gold_tasks, config.judge.kind == "truth"
    live = [website.name for website in config.websites_of("train") if website.practice_site is None]
    if gold and live:
        yield f"rollout.gold_tasks: only practice sites have gold tasks, not {', '.join(live)}"
    asked = {"audit.share": config.audit.share, "promotion.num_tasks": config.promotion.num_tasks}
    if len(live) == len(config.websites_of("train")):
        for key in (key for key, value in asked.items() if value):
            yield f"{key}: only practice sites have gold tasks, and no website of role 'train' is one"
    if by_truth and config.run.rounds and not gold:
        yield "judge.kind: the truth of proposed tasks isn't known; practise on gold tasks (rollout.gold_tasks = true)"
    if by_truth and config.canaries.per_round:
        yield "judge.kind: the truth of canaries isn't looked up; expected canaries.per_round = 0"
    if config.judge.kind != "model" and config.panel:
        yield f"judge.kind: a panel judges beside a model, not beside {config.judge.kind!r}"


def _endpoints(config: Config) -> Iterator[str]:
    asked = {f"endpoints.{role}": config.endpoint(role) for role in config.frozen_roles}
    asked |= {f"panel.{number}.endpoint": seat.endpoint for number, seat in enumerate(config.panel)}
    for key, endpoint in asked.items():
        if endpoint is None:
            continue
        if endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
            yield f"{key}.api_key_env: {endpoint.api_key_env} is not set in the environment"
        if not _reachable(f"{endpoint.base_url}/models"):
            yield f"{key}.base_url: nothing answers at {endpoint.base_url}"


def _reachable(url: str) -> bool:
    """Whether anything answers over HTTP, whatever it says."""
    try:
        httpx.head(url, timeout=REACH_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True
