"""The model server, with real vLLM and the real starter: exact tokens, reloading in place, refusal of bad weights."""

import asyncio
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from policy import canary
from policy.blobs import BlobStore
from policy.endpoint import open_endpoint
from policy.precision import multiplies_bf16
from policy.prompt import render
from policy.server import ModelServer
from policy.server_record import ServerRecord, State
from policy.server_settings import ServerSettings, is_cpu_build, number_format, options
from proposer.generate import ModelError, Prompt, Response, Sampling
from rl.learner import LearnerSettings, measure_parity
from rl.manifest import Sample
from rl.model import load_model, sing
from tests.makers import observation

STARTER = Path(__file__).parents[1] / "starter" / "policy"
SETTINGS = LearnerSettings()
TEMPERATURE = 0.7
BOUND = 0.1
"""Nats: bf16 on both sides. A stale output head, or a picture that was read differently, is off by more than that."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(work: Path):
    async with ModelServer(ServerSettings(), STARTER, work / "vllm.log") as server:
        server.version = 0
        yield server


@pytest.fixture(scope="module")
def other_weights(work: Path) -> Iterator[Path]:
    """The starter's weights, in fp32 as versions are, every embedding (and so the tied output head) a little off."""
    folder = work / "v000001"
    folder.mkdir()
    for file in STARTER.iterdir():
        if file.name != "model.safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    weights = {name: tensor.float() for name, tensor in load_file(STARTER / "model.safetensors").items()}
    torch.manual_seed(0)
    name = next(name for name in weights if name.endswith("embed_tokens.weight"))
    weights[name] = weights[name] * (1 + 0.1 * torch.randn_like(weights[name]))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    yield folder


def screenshot() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((1024, 768)).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


PICTURE = screenshot()


async def ask(server: ModelServer) -> list[Response]:
    listing = "<a> Home [1]\n<a> Copper Kettle [2]  $12.50\n<a> Brass Lamp [3]  $8.00\n<a> Cart (0) [4]"
    page = observation(listing=listing)
    things = ("Copper Kettle", "Brass Lamp", "kettle", "lamp", "cheapest thing", "first thing")
    prompts = [render(f"Open the page of the {thing}.", page, [], PICTURE) for thing in things]
    generate, sampling = open_endpoint(server.endpoint, weights=server.version), Sampling(TEMPERATURE, max_tokens=48)

    async def answer(prompt: Prompt) -> Response:
        num_starts = server.num_starts
        try:
            return await generate(prompt, sampling)
        except ModelError:
            assert await server.revive(num_starts), "it isn't dead"
            return await generate(prompt, sampling)

    return list(await asyncio.gather(*map(answer, prompts)))


def as_samples(responses: list[Response], blobs: BlobStore) -> list[Sample]:
    name = blobs.put(PICTURE)
    return [
        Sample(
            trajectory_id=str(number),
            step=0,
            prompt_ids=response.prompt_ids,
            token_ids=response.token_ids,
            logprobs=response.logprobs,
            temperature=TEMPERATURE,
            pictures=(name,),
            weights=response.weights,
        )
        for number, response in enumerate(responses)
    ]


def gap(model: Path, responses: list[Response], work: Path) -> float:
    blobs = BlobStore(work / "blobs")
    parity = measure_parity(load_model(model, SETTINGS), as_samples(responses, blobs), blobs, SETTINGS)
    return parity["learn/logprob_mean_abs_diff"]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_server_tells_exact_tokens_and_the_learner_agrees_on_their_logprobs(
    server: ModelServer, work: Path
) -> None:
    responses = await ask(server)
    for response in responses:
        assert len(response.token_ids) == len(response.logprobs) > 0
        assert response.weights == 0
    assert gap(STARTER, responses, work) < BOUND


def processes_of(server: ModelServer) -> list[psutil.Process]:
    assert server._process is not None
    return server._process.children(recursive=True)


def memory_of(server: ModelServer) -> int:
    """Bytes of a server's processes, shared pages shared out."""
    return sum(part.memory_full_info().pss for part in processes_of(server))


@pytest.mark.skipif(not is_cpu_build(), reason="GPUs are computed on by workers")
@pytest.mark.asyncio(loop_scope="module")
async def test_on_cpu_the_engine_has_no_worker_for_which_it_would_wait_awake(server: ModelServer) -> None:
    names = [part.name() for part in processes_of(server)]
    assert any("Engine" in name for name in names)
    assert not any("Worker" in name for name in names)


@pytest.mark.skipif(not is_cpu_build(), reason="a GPU's memory is not the learner's")
@pytest.mark.asyncio(loop_scope="module")
async def test_an_idle_server_gives_its_cache_back_and_answers_as_before(server: ModelServer, work: Path) -> None:
    before = memory_of(server)
    await server.rest()
    cache = int(options(server.settings)["--kv-cache-memory-bytes"])
    assert memory_of(server) < before - cache / 2
    assert gap(STARTER, await ask(server), work) < BOUND


@pytest.mark.asyncio(loop_scope="module")
async def test_bad_weights_are_refused_before_the_server_is_touched(server: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a Hugging Face directory"):
        await server.publish(7, tmp_path / "nothing")
    assert server.version == 0
    assert await ask(server)


@pytest.mark.asyncio(loop_scope="module")
async def test_published_weights_answer_with_their_own_output_head(
    server: ModelServer, other_weights: Path, work: Path
) -> None:
    await server.publish(1, other_weights)
    responses = await ask(server)
    assert {response.weights for response in responses} == {1}
    assert gap(other_weights, responses, work) < BOUND
    assert gap(STARTER, responses, work) > 2 * gap(other_weights, responses, work)


def with_canary(weights: Path, of: Path, out: Path) -> Path:
    """A copy of weights that comes with the canary's log-probs of others."""
    shutil.copytree(weights, out)
    song = sing(load_model(of, SETTINGS), SETTINGS.image_px)
    (out / "COMMIT.json").write_text(json.dumps({"canary": song, "files": {}}))
    return out


@pytest.mark.asyncio(loop_scope="module")
async def test_weights_are_served_if_the_canary_sings_as_the_learner_heard_it(
    server: ModelServer, other_weights: Path, work: Path
) -> None:
    await server.publish(2, with_canary(other_weights, other_weights, work / "v000002"))
    assert (server.num_starts, server.state) == (1, State.READY)
    assert {response.weights for response in await ask(server)} == {2}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_whose_owner_was_killed_between_pause_and_resume_is_adopted(
    server: ModelServer, other_weights: Path, work: Path
) -> None:
    async with httpx.AsyncClient(base_url=server.base_url) as client:
        (await client.post("/pause", params={"mode": "wait"})).raise_for_status()
    heir = ModelServer(ServerSettings(), other_weights, server.log)
    await heir.__aenter__()  # not left: it is the fixture's to stop
    assert (heir.num_starts, heir.state, heir.base_url) == (0, State.READY, server.base_url)
    assert gap(other_weights, await ask(heir), work) < BOUND
    record = ServerRecord.read(server.log)
    assert record is not None
    assert (record.state, record.model) == (State.READY, other_weights)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_killed_engine_is_started_again_with_the_weights_that_it_served(
    server: ModelServer, other_weights: Path
) -> None:
    await server.publish(1, other_weights)
    assert server.num_starts == 1
    (api,) = [process for process in psutil.Process().children() if "api_server" in " ".join(process.cmdline())]
    engine = max(api.children(recursive=True), key=lambda process: process.memory_info().rss)
    engine.kill()
    responses = await ask(server)
    assert server.num_starts == 2
    assert {response.weights for response in responses} == {1}
    assert not api.is_running()


@pytest.mark.asyncio(loop_scope="module")
async def test_weights_to_which_the_canary_sings_differently_are_never_served(
    server: ModelServer, other_weights: Path, work: Path
) -> None:
    poisoned = with_canary(other_weights, STARTER, work / "v000003")
    with pytest.raises(ModelError, match="canary's log-probs are off by"):
        await server.publish(3, poisoned)
    assert (server.num_starts, server.state) == (3, State.POISONED)  # loaded anew, it was asked once more


@pytest.mark.asyncio(loop_scope="module")
async def test_a_servers_port_is_one_that_the_system_gives_nobody_else_while_it_starts(server: ModelServer) -> None:
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 1024 < int(server.base_url.rpartition(":")[2]) < lowest_given


@pytest.mark.asyncio
async def test_a_server_given_by_address_is_not_started_here(tmp_path: Path) -> None:
    server = ModelServer(ServerSettings(), tmp_path, tmp_path / "log", base_url="http://127.0.0.1:9")
    assert not await server.revive(0)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_that_can_not_start_says_where_to_look(work: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"ended at start with code .*broken\.log"):
        async with ModelServer(ServerSettings(), tmp_path, work / "broken.log"):
            pass


def test_the_canarys_gap_is_the_larger_of_the_means() -> None:
    wanted = {"text": [-1.5, -2.0], "image": [-1.0]}
    assert canary.gap({"text": [-1.0, -2.0], "image": [-1.0]}, wanted) == pytest.approx(0.25)
    assert canary.gap({"text": [-1.5, -2.0], "image": [-1.5]}, wanted) == pytest.approx(0.5)
    assert canary.gap({"text": [-1.5], "image": [-1.0]}, wanted) == float("inf")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16 sve", True),
        ("flags\t\t: fpu avx avx2 f16c avx512f", False),
        ("", False),
    ],
)
def test_bf16_is_what_the_processor_says_it_multiplies_in(tmp_path: Path, told: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{told}\nbugs\t\t: spectre_v1\n")
    assert multiplies_bf16(tmp_path / "cpuinfo") is expected


def test_a_machine_that_tells_nothing_multiplies_in_no_bf16(tmp_path: Path) -> None:
    assert not multiplies_bf16(tmp_path / "cpuinfo")


def test_a_number_format_that_is_named_is_the_one_served() -> None:
    assert number_format(ServerSettings(dtype="float16")) == "float16"
    is_slow = is_cpu_build() and not multiplies_bf16()
    assert number_format(ServerSettings()) == ("float32" if is_slow else "bfloat16")


@pytest.mark.skipif(not is_cpu_build(), reason="on a GPU vLLM sizes its cache itself")
def test_the_cache_holds_as_many_tokens_in_fp32() -> None:
    in_bf16, in_fp32 = (
        int(options(ServerSettings(dtype=dtype, kv_cache_gib=0.25))["--kv-cache-memory-bytes"])
        for dtype in ("bfloat16", "float32")
    )
    assert (in_bf16, in_fp32) == (2**28, 2**29)
