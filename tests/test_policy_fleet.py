"""Replicas of the policy's server: spread, kept to one version, left out when they fail, and brought back.

The servers are scripted ones, over real HTTP: at an address, or started by the program in the place of vLLM's module.
"""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.chaos import SCRIPTED, SIZE, digest_of
from bench.common import ROOT, run_command
from bench.scripted import (
    CONFIG,
    Call,
    Fault,
    Reply,
    ScriptedServer,
    StarterTokens,
    quick_answers,
    wander,
    write_tiny_starter,
)
from evaluator.judge import SYSTEM
from launch.books import Purpose
from launch.ledger import Ledger
from launch.status import describe
from policy.fleet import Fleet
from policy.server_record import ServerRecord, State
from policy.server_settings import ServerSettings, gpus_of
from policy.trajectory import Outcome
from proposer.generate import Generate, ModelError, Prompt, PromptRefused, Sampling

QUESTION = Prompt(SYSTEM, ("?",))
DEADLINE_S = 60.0
RUN_DEADLINE_S = 300.0


class Told(asyncio.Queue[str]):
    """What a fleet tells, line by line."""

    async def until(self, words: str) -> None:
        """Wait for a line with these words."""
        async with asyncio.timeout(DEADLINE_S):
            while words not in await self.get():
                pass


class Moody:
    """A script that answers only in a good mood."""

    def __init__(self) -> None:
        self.is_out = False
        self.is_picky = False

    def __call__(self, call: Call) -> Reply:
        if self.is_picky:
            return Fault(status=400)
        return None if self.is_out else quick_answers(call)


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Directories that pass for weights: version 0, 1, 2."""
    folders = [tmp_path / f"v{version}" for version in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    return folders


@pytest.fixture
def moods() -> list[Moody]:
    return [Moody(), Moody()]


@pytest.fixture
def servers(moods: list[Moody]) -> Iterator[list[ScriptedServer]]:
    with ScriptedServer(moods[0]) as first, ScriptedServer(moods[1]) as second:
        yield [first, second]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def fleet(servers: list[ScriptedServer], models: list[Path], tmp_path: Path, told: Told) -> Fleet:
    settings = ServerSettings(base_urls=tuple(server.url for server in servers))
    return Fleet(settings, models[0], tmp_path / "logs" / "policy.log", told.put_nowait)


async def ask(generate: Generate, times: int = 6) -> None:
    for _ in range(times):
        assert "Verdict" in (await generate(QUESTION, Sampling())).text


def asked(server: ScriptedServer) -> int:
    return server.calls.count("judge")


def names(published: list[str]) -> list[str]:
    return [Path(path).name for path in published]


@pytest.mark.asyncio
async def test_requests_go_to_the_least_busy_server_and_in_turn(fleet: Fleet, servers: list[ScriptedServer]) -> None:
    async with fleet:
        with fleet.least_busy() as busy:
            for _ in range(3):
                with fleet.least_busy() as other:
                    assert other is not busy
        await ask(fleet.generate())
    assert [asked(server) for server in servers] == [3, 3]


@pytest.mark.asyncio
async def test_published_weights_are_loaded_by_every_server(
    fleet: Fleet, servers: list[ScriptedServer], models: list[Path]
) -> None:
    async with fleet:
        await fleet.publish(1, models[1])
        response = await fleet.generate()(QUESTION, Sampling())
    assert (fleet.version, fleet.model, response.weights) == (1, models[1], 1)
    assert [names(server.published) for server in servers] == [["v1"], ["v1"]]


@pytest.mark.asyncio
async def test_a_server_that_does_not_load_the_weights_is_not_asked_until_it_has_loaded_later_ones(
    fleet: Fleet, servers: list[ScriptedServer], models: list[Path], told: Told
) -> None:
    async with fleet:
        servers[0].refuses = True
        await fleet.publish(1, models[1])
        await told.until(f"{servers[0].url} is left out: publishing")
        await ask(fleet.generate())
        assert [asked(server) for server in servers] == [0, 6]
        assert [server.state for server in fleet.servers] == [State.POISONED, State.READY]
        servers[0].refuses = False
        await fleet.publish(2, models[2])
        await told.until(f"{servers[0].url} is asked again")
        await ask(fleet.generate())
    assert [asked(server) for server in servers] == [3, 9]
    assert [names(server.published) for server in servers] == [["v2"], ["v1", "v2"]]


@pytest.mark.asyncio
async def test_weights_that_no_server_loads_are_one_line_and_nothing_is_asked_any_more(
    fleet: Fleet, servers: list[ScriptedServer], models: list[Path]
) -> None:
    async with fleet:
        for server in servers:
            server.refuses = True
        with pytest.raises(ModelError, match=rf"at {servers[0].url}: .* at {servers[1].url}: ") as caught:
            await fleet.publish(1, models[1])
        assert "\n" not in str(caught.value)
        with pytest.raises(ModelError, match="no model server has loaded"):
            await ask(fleet.generate())


@pytest.mark.asyncio
async def test_a_server_that_gives_no_answer_is_asked_again_when_it_has_loaded_the_weights_anew(
    fleet: Fleet, servers: list[ScriptedServer], moods: list[Moody], models: list[Path], told: Told
) -> None:
    async with fleet:
        await fleet.publish(1, models[1])
        moods[0].is_out = True
        await ask(fleet.generate(), times=2)
        moods[0].is_out = False
        await told.until(f"{servers[0].url} is left out: gave no answer")
        await told.until(f"{servers[0].url} is asked again")
        await ask(fleet.generate())
    assert names(servers[0].published) == ["v1", "v1"]
    assert names(servers[1].published) == ["v1"]


@pytest.mark.asyncio
async def test_a_server_that_refuses_a_prompt_is_well_and_no_other_is_asked(
    fleet: Fleet, servers: list[ScriptedServer], moods: list[Moody], told: Told
) -> None:
    async with fleet:
        moods[0].is_picky = True
        with pytest.raises(PromptRefused, match="Error code: 400"):
            await ask(fleet.generate(), times=1)
    assert ([asked(server) for server in servers], told.qsize()) == ([1, 0], 0)


@pytest.mark.asyncio
async def test_when_the_last_server_gives_no_answer_those_left_out_are_tried_again(
    fleet: Fleet, servers: list[ScriptedServer], moods: list[Moody], models: list[Path], told: Told
) -> None:
    async with fleet:
        servers[0].refuses = True
        await fleet.publish(1, models[1])
        servers[0].refuses = False
        moods[1].is_out = True
        await ask(fleet.generate(), times=1)
        await told.until(f"{servers[0].url} is asked again")
        await told.until(f"{servers[1].url} is left out: gave no answer")
    assert names(servers[0].published) == ["v1"]


@pytest.mark.asyncio
async def test_the_last_server_is_not_left_out_for_giving_no_answer(
    fleet: Fleet, servers: list[ScriptedServer], moods: list[Moody], models: list[Path]
) -> None:
    async with fleet:
        servers[0].refuses = True
        await fleet.publish(1, models[1])
        moods[1].is_out = True
        with pytest.raises(ModelError):
            await ask(fleet.generate())
        moods[1].is_out = False
        await ask(fleet.generate())
    assert asked(servers[0]) == 0


def test_each_replica_gets_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3, 4,6,7")
    assert [gpus_of(replica, tensor_parallel=2) for replica in range(2)] == [["1", "3"], ["4", "6"]]


# Servers that the program starts itself.

STAND_IN = """
import sys, threading
from bench.scripted import ScriptedServer, quick_answers

port, journal = int(sys.argv[sys.argv.index("--port") + 1]), {journal!r}

def note(word):
    with open(journal, "a") as file:
        file.write(f"{{word}} {{port}}\\n")

def script(call):
    if call.role == "other" and call.number == 0:  # the first of the warm-up
        note("ready")
    return quick_answers(call)

note("start")
with ScriptedServer(script, port=port):
    threading.Event().wait()
"""
"""A program in the place of vLLM's, started by the same command."""


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which servers note that they start and that they answer, line by line."""
    journal, package = tmp_path / "journal", tmp_path / "packages" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(STAND_IN.format(journal=str(journal)))
    for folder in (package, *package.parents[:2]):
        (folder / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    return journal


def own_fleet(models: list[Path], told: Told, max_restarts: int = 3) -> Fleet:
    log = models[0].parent / "logs" / "policy.log"
    return Fleet(ServerSettings(replicas=2, max_restarts=max_restarts), models[0], log, told.put_nowait)


def kill(fleet: Fleet, number: int) -> None:
    """Kill what answers at a server's port; its leash ends by itself."""
    record = ServerRecord.read(fleet.servers[number].log)
    process = record.process.find() if record else None
    assert process is not None
    children = process.children(recursive=True)
    for child in children:
        child.kill()
    psutil.wait_procs(children, DEADLINE_S)


@pytest.mark.asyncio
async def test_never_do_two_servers_start_at_once(journal: Path, models: list[Path], told: Told) -> None:
    async with own_fleet(models, told) as fleet:
        kill(fleet, 0)
        kill(fleet, 1)
        await fleet.publish(1, models[1])
        assert [server.num_starts for server in fleet.servers] == [2, 2]
    words = [line.split() for line in journal.read_text().splitlines()]
    assert [word for word, _ in words] == ["start", "ready"] * 4
    ports = [port for _, port in words]
    assert ports[::2] == ports[1::2]
    assert sorted(ports[:4]) == sorted(ports[4:])


@pytest.mark.asyncio
async def test_while_a_dead_server_starts_again_the_other_one_answers(
    journal: Path, models: list[Path], told: Told
) -> None:
    async with own_fleet(models, told) as fleet:
        await fleet.publish(1, models[1])
        kill(fleet, 0)
        await ask(fleet.generate(), times=2)
        assert fleet.servers[0].state is not State.READY
        await told.until(f"{fleet.servers[0].base_url} is asked again")
        assert [server.num_starts for server in fleet.servers] == [2, 1]
        assert [(server.version, server.model) for server in fleet.servers] == [(1, models[1])] * 2


@pytest.mark.asyncio
async def test_a_server_that_may_not_start_again_is_left_out_and_without_the_other_one_the_run_fails(
    journal: Path, models: list[Path], told: Told
) -> None:
    run_dir = models[0].parent
    Ledger(run_dir).close()
    async with own_fleet(models, told, max_restarts=0) as fleet:
        kill(fleet, 0)
        await ask(fleet.generate(), times=2)
        await told.until(f"{fleet.servers[0].base_url} is left out: gave no answer")
        lines = "\n".join(describe(run_dir))
        assert "server policy-0: not running" in lines
        assert "server policy-1: ready" in lines
        kill(fleet, 1)
        with pytest.raises(ModelError, match=r"vLLM has died, for the 1th time .*policy-1\.log"):
            await ask(fleet.generate())


@pytest.mark.asyncio
async def test_each_server_that_a_killed_driver_left_behind_is_adopted(
    journal: Path, models: list[Path], told: Told
) -> None:
    async with own_fleet(models, told) as fleet:
        heir = await own_fleet(models, told).__aenter__()  # not left: the servers are the fleet's to stop
        assert [server.num_starts for server in heir.servers] == [0, 0]
        assert [server.base_url for server in heir.servers] == [server.base_url for server in fleet.servers]
        await heir.publish(1, models[1])
        await ask(heir.generate())


# The whole program.


def run_of(directory: Path, name: str, first: ScriptedServer, *settings: str) -> Path:
    """The directory of a run that has come to its end, its frozen roles answered by `first`."""
    changes = [f"run.name={name}", *SIZE, *SCRIPTED, *first.settings(directory), *settings]
    done = subprocess.run(
        run_command(str(CONFIG), changes),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    return directory / "runs" / name


class Mortal:
    """A script whose server closes when it has begun to answer with the first weights that were learned."""

    server: ScriptedServer

    def __call__(self, call: Call) -> str | None:
        if call.role == "policy" and len(self.server.published) > 1:
            self.server.close()
        return wander(call)


def test_a_run_that_loses_one_of_two_servers_decides_and_learns_what_a_run_with_one_does(tmp_path: Path) -> None:
    write_tiny_starter(tmp_path)
    mortal = Mortal()
    mortal.server = ScriptedServer(mortal, StarterTokens())
    with ScriptedServer(wander, StarterTokens()) as alone:
        wanted = digest_of(run_of(tmp_path, "alone", alone))
    with ScriptedServer(wander, StarterTokens()) as first, mortal.server as second:
        run_dir = run_of(tmp_path, "both", first, f'serving.base_urls=["{first.url}", "{second.url}"]')
    assert digest_of(run_dir) == wanted
    assert names(second.published) == ["policy", "v000001"]
    assert names(first.published) == ["policy", "v000001", "v000002"]
    assert min(server.calls.count("policy") for server in (first, second)) > 5
    with Ledger.open_readonly(run_dir) as books:
        assert Outcome.MODEL_OUTAGE not in {row.outcome for row in books.trajectories()}
        assert {row.purpose for row in books.trajectories()} >= {Purpose.TRAIN, Purpose.EVAL}
        texts = [event.text for event in books.events() if event.kind == "replica"]
        assert texts == [f"{second.url} is left out: gave no answer"]
