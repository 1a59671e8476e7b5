"""Runs whose workers and driver share no file system: an S3 server on loopback (moto's) is between them, for real."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

import launch.storage
from bench.chaos import Arena, committed, digest_of, num_unbooked_files
from bench.scripted import Call, Reply, wander
from launch import config as configs
from launch import inbox, preflight
from launch.books import Purpose
from launch.config import ConfigError
from launch.errors import StorageError, WorkerLost
from launch.ledger import Ledger
from launch.storage import ObjectStore, SharedDirectory, open_storage
from launch.workers import Order, Workers
from policy.blobs import Blobs, BlobStore, MemoryBlobs
from policy.crash import MARK, VARIABLE
from policy.endpoint import EndpointSettings
from policy.trajectory import Trajectory
from proposer.generate import Sampling
from proposer.task import Task
from tests.makers import SHOP, observation, trajectory

ROOT = Path(__file__).parents[1]
BUCKET = "bucket"
URL = f"s3://{BUCKET}/some/prefix"
DEADLINE_S = 240
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """The server's files, as fsspec sees them; this process and those it starts find it by their environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # another test's has no credentials
        files = fsspec.filesystem("s3", use_listings_cache=False)
        files.mkdir(BUCKET)
        yield files
    server.stop()


@pytest.fixture(scope="module")
def cluster(s3: Any) -> Iterator[Any]:
    """Two nodes; the driver's is the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        from ray.cluster_utils import Cluster

        arguments = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=arguments)
        cluster.add_node(num_cpus=4, node_ip_address="127.0.0.1")
        yield cluster
        cluster.shutdown()


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Ledger]:
    """A run with one planned episode."""
    (tmp_path / inbox.INBOX).mkdir()
    with Ledger(tmp_path) as ledger:
        ledger.plan(1, Purpose.TRAIN, [Task(website=SHOP, instruction="Do thing.", world="train-1")], num_samples=1)
        yield ledger


def episode(books: Ledger, blobs: Blobs) -> Trajectory:
    """The planned episode, finished."""
    [planned] = books.missing_episodes(1, Purpose.TRAIN)
    seen = observation(screenshot=blobs.put(b"picture"))
    return trajectory(planned.id, steps=0, final=seen, task="-").model_copy(update={"task": planned.task})


def store_of(books: Ledger) -> ObjectStore:
    store = open_storage(URL, books)
    assert isinstance(store, ObjectStore)
    return store


def objects(s3: Any, books: Ledger) -> dict[str, bytes]:
    """Name -> content of what lies in the run's inbox in the store."""
    folder = f"{BUCKET}/some/prefix/{books.meta(launch.storage.PLACE)}/inbox"
    return {path.removeprefix(f"{folder}/"): s3.cat_file(path) for path in s3.find(folder)}


def put(s3: Any, books: Ledger, name: str, data: bytes) -> None:
    s3.pipe_file(f"{BUCKET}/some/prefix/{books.meta(launch.storage.PLACE)}/inbox/{name}", data)


class Script:
    """The script of the model, which notes what the driver has of the first episode before that is finished."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.first_seen: list[Path] | None = None

    def __call__(self, call: Call) -> Reply:
        if call.role == "policy" and self.first_seen is None:
            self.first_seen = [path for path in (self.run_dir / "blobs").rglob("*") if path.is_file()]
        return wander(call)


def test_a_run_without_a_shared_file_system_ends_as_one_with_it_however_it_is_broken(
    cluster: Any, s3: Any, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    settings = ["run.rounds=1", "rollout.num_actors=2", f"cluster.storage={URL}"]
    with Arena(tmp_path, seed=3) as arena:

        def start(name: str, environment: dict[str, str]) -> int:
            command = arena.command(name, settings)
            return subprocess.run(command, cwd=ROOT, env=os.environ | environment, timeout=DEADLINE_S).returncode

        unbroken, broken = arena.run_dir("unbroken"), arena.run_dir("broken")
        arena.model.otherwise = script = Script(unbroken)
        two_nodes = {"RAY_ADDRESS": cluster.address}
        assert start("unbroken", two_nodes) == 0
        assert start("broken", two_nodes | {VARIABLE: "storage:kept#2"}) == -9
        assert start("broken", two_nodes | {VARIABLE: "rollout:moved#2"}) == -9
        # Without a cluster, whose workers have the cluster's environment.
        assert start("broken", {VARIABLE: "worker:delivered#1", MARK: str(tmp_path / "died")}) == 0
    assert script.first_seen == []
    assert (tmp_path / "died").exists()
    assert digest_of(unbroken) == digest_of(broken) == undisturbed
    assert num_unbooked_files(unbroken) == num_unbooked_files(broken) == 0
    assert s3.find(f"{BUCKET}/some/prefix") == []
    with Ledger.open_readonly(broken) as ledger:
        for row in ledger.trajectories():
            assert all(BlobStore(broken / "blobs").get(name) for name in ledger.load(row).screenshots)


@pytest.mark.asyncio
async def test_the_learner_works_where_the_driver_is(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    config = configs.load("quickstart", [f"cluster.storage={URL}"])
    async with Workers(ObjectStore(URL, tmp_path), config.rollout, config.cluster) as workers:
        where = ray.remote(lambda: ray.get_runtime_context().get_node_id()).options(**workers._learner_node())
        assert await asyncio.wrap_future(where.remote().future()) == ray.get_runtime_context().get_node_id()


@pytest.mark.asyncio
async def test_an_episode_is_moved_with_its_pictures(s3: Any, books: Ledger) -> None:
    store, blobs = store_of(books), MemoryBlobs()
    record = episode(books, blobs)
    assert not await store.fetch(record.id)
    name = await store.deliver(record, blobs)
    assert set(objects(s3, books)) == {name}
    assert await store.fetch(record.id)
    assert inbox.read(books.run_dir, name) == record
    assert record.final
    assert BlobStore(books.run_dir / "blobs").get(record.final.screenshot) == b"picture"
    assert objects(s3, books) == {}
    assert not await store.fetch(record.id)


@pytest.mark.asyncio
async def test_a_shared_directory_has_the_pictures_on_its_disk_before_the_episode(
    books: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced = os.fsync, []

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    shared = SharedDirectory(books.run_dir)
    record = episode(books, shared.open_blobs())
    await shared.deliver(record, shared.open_blobs())
    (picture,) = record.screenshots
    assert synced[:3] == [picture, picture[:2], "blobs"]
    assert any(record.id in name for name in synced[3:])


def test_a_picture_that_a_stop_of_the_machine_left_empty_is_stored_anew(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    name = blobs.put(b"picture")
    blobs.path(name).write_bytes(b"")
    assert blobs.put(b"picture") == name
    assert blobs.get(name) == b"picture"


@pytest.mark.asyncio
async def test_what_a_dead_driver_left_is_taken_in_once_and_what_can_not_be_read_is_set_aside(
    s3: Any, books: Ledger
) -> None:
    store, blobs = store_of(books), MemoryBlobs()
    record = episode(books, blobs)
    name = await store.deliver(record, blobs)
    whole = objects(s3, books)[name]
    strange = {
        "torn.json": whole[:-9],
        "renamed.json": whole,
        "picture-missing.json": whole.replace(b"cGljdHVyZQ", b"cGljdHVyZR"),
        "record-alone.json": record.model_dump_json().encode(),
        "notes.partial": b"not ours \xff",
    }
    for other, data in strange.items():
        put(s3, books, other, data)
    await store.fetch_all()
    assert inbox.take_orphans(books.run_dir, books) == 1
    assert [row.id for row in books.trajectories()] == [record.id]
    aside = {path.name: path.read_bytes() for path in (books.run_dir / inbox.SET_ASIDE).iterdir()}
    assert aside == {f"{other}.unreadable": data for other, data in strange.items()}
    assert objects(s3, books) == {}
    before = committed(books.run_dir)
    await store.deliver(record, blobs)  # by a worker that was thought dead
    await store.fetch_all()
    inbox.take_orphans(books.run_dir, books)
    assert committed(books.run_dir) == before
    assert num_unbooked_files(books.run_dir) == 0


@pytest.mark.asyncio
async def test_an_unreadable_delivery_is_no_episode(s3: Any, books: Ledger) -> None:
    store, [planned] = store_of(books), books.missing_episodes(1, Purpose.TRAIN)
    put(s3, books, f"{planned.id}.json", b"{")
    assert not await store.fetch(planned.id)
    assert inbox.delivered(books.run_dir, planned.id) is None


def test_runs_of_one_name_have_places_of_their_own(s3: Any, tmp_path: Path) -> None:
    places = []
    for folder in ("here", "there", "here"):
        run_dir = tmp_path / folder / "run"
        run_dir.mkdir(parents=True, exist_ok=True)
        with Ledger(run_dir) as ledger:
            open_storage(URL, ledger)
            places.append(ledger.meta(launch.storage.PLACE))
    assert places[0] == places[2] != places[1]


@pytest.mark.asyncio
async def test_a_store_that_is_away_for_a_while_is_asked_again(
    s3: Any, books: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    away = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    away.start()
    host, port = away.get_host_and_port()
    away.stop()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "cachable", False)
    store, blobs = store_of(books), MemoryBlobs()
    record = episode(books, blobs)
    delivering = asyncio.create_task(store.deliver(record, blobs))
    await asyncio.wait([delivering], timeout=1.0)
    assert not delivering.done()
    back = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    back.start()
    await delivering
    assert await store.fetch(record.id)
    back.stop()
    monkeypatch.setattr(launch.storage, "FETCH_DEADLINE_S", 1.0)
    with pytest.raises(StorageError, match=r"can't fetch .* within 1 s") as caught:
        await store.fetch(record.id)
    assert "\n" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_worker_that_can_not_deliver_is_a_lost_worker(s3: Any, tmp_path: Path) -> None:
    config = configs.load("quickstart", [f"cluster.storage={URL}", "rollout.num_actors=1"])
    task = Task(website=SHOP, instruction="Do thing.", world="train-1")
    nowhere = EndpointSettings(base_url=f"{NOBODY}/v1", model="never asked", max_retries=0)
    store = ObjectStore("s3://no-such-bucket/run", tmp_path)
    async with Workers(store, config.rollout, config.cluster) as workers:
        with pytest.raises(WorkerLost, match="can't deliver"):
            await workers.run(Order("1-x-0", task, nowhere, 0, Sampling(0.0, 8, 0)))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (URL, ""),
        ("s3://no-such-bucket/prefix", "can't be used"),
        ("gs://bucket/prefix", "Please install gcsfs"),
        ("nonsense://bucket/prefix", "Protocol not known"),
        ("file://tmp/store", "expected an object store"),
    ],
)
def test_a_store_that_can_not_be_used_is_found_before_the_run_begins(s3: Any, url: str, words: str) -> None:
    problems = list(preflight._storage(configs.load("quickstart", [f"cluster.storage={url}"])))
    assert len(problems) == bool(words)
    assert all(problem.startswith(f"cluster.storage: {url}") and words in problem for problem in problems)
    assert not any("\n" in problem for problem in problems)
    assert [path for path in s3.find(f"{BUCKET}") if "preflight" in path] == []


def test_the_program_tells_an_unreachable_store_in_one_line_and_writes_nothing(s3: Any, tmp_path: Path) -> None:
    with Arena(tmp_path, seed=3) as arena:
        command = arena.command("unreachable", [f"cluster.storage={URL}"])
        environment = os.environ | {"AWS_ENDPOINT_URL": NOBODY}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if "bucket" in line or "error" in line.casefold()]
    # which of the two comes first is up to the client's own attempts and their random pauses
    assert re.match(rf"error: cluster.storage: {URL} can't be used: (Could not connect|no answer within)", line)
    assert not arena.run_dir("unreachable").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://KEY:sec/ret@bucket/prefix", "no credentials"),
        ("s3://KEY:secret@bucket/prefix", "no credentials"),
        ("s3://bucket/prefix?key=secret", "no credentials"),
        ("bucket/prefix", "s3://bucket/prefix"),
        ("s3://bucket/prefix/", "without a slash"),
        ("simplecache::s3://bucket/prefix", "s3://bucket/prefix"),
    ],
)
def test_an_address_with_a_secret_or_of_no_store_is_refused_and_not_repeated(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        configs.load("quickstart", [f"cluster.storage={url}"])
    assert "sec" not in str(caught.value)


def test_a_package_for_a_store_is_loaded_only_where_there_is_one() -> None:
    script = "import sys, launch.team; print('s3fs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
