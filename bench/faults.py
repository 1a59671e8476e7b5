"""Is a failure of ours ever the agent's zero? Episodes on websites and with models that fail in every way we know.

An agent that clicks the one link of a start page and then answers "done", in a real browser. Faults of the website are
injected at the start page and behind the link, faults of the model at its first and at its second call. What a fault
may end as: those that keep the agent from what the site or the model would have given end as an infrastructure outcome;
those that a website may well do (a page of 10 MB, a storm of alerts) or that are the agent's own (a reply that can't be
read) end as the agent's.

- injected: episodes run;
- fake_zeros: infrastructure faults whose episode ended with an outcome of the agent's, and so could reach the reward;
- untyped: episodes that ended with an exception instead of an outcome, or in no outcome of the agent's though they were
  the agent's to end.

    python -m bench.faults --seed 0
"""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.scripted import Call, Fault, ScriptedServer
from policy.agent import AgentSettings, roll_out
from policy.blobs import BlobStore
from policy.browser import Browser
from policy.browser_settings import BrowserSettings
from policy.endpoint import EndpointSettings, open_endpoint
from policy.trajectory import Trajectory
from proposer.generate import Sampling
from proposer.task import Task, Website

BROWSER = BrowserSettings(settle_deadline_s=1.0, action_deadline_s=5.0, start_deadline_s=5.0)
AGENT = AgentSettings(max_steps=4, time_limit_s=30.0)
MODEL_TIMEOUT_S = 2.0
FINE = b"<title>Fine</title><p>All is well.</p><a href=/next>On</a>"
STORM = b"<title>Storm</title><a href=/next>On</a><script>for (let i = 0; i < 50; i++) alert(i)</script>"
BIG = b"<title>Big</title><a href=/next>On</a>" + (b"<p>" + b"much " * 2_000 + b"</p>") * 1_000


@dataclass(frozen=True, slots=True)
class SiteFault:
    """What a website does in place of a page."""

    name: str
    is_infrastructure: bool
    head: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
    body: bytes = b""
    length_told: int | None = None
    """Content-Length where it isn't the body's."""
    drip_s: float | None = None
    """Pause between bytes; None: all at once."""
    hangs: bool = False
    """Whether no byte ever comes."""


SITE_FAULTS = (
    SiteFault("500", True, b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n", b"<p>Oops</p>"),
    SiteFault("503", True, b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n", b"<p>Busy</p>"),
    SiteFault("429", True, b"HTTP/1.1 429 Slow down\r\nContent-Length: %d\r\n\r\n", b"<p>Slow down</p>"),
    SiteFault("403", True, b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n", b"<p>No</p>"),
    SiteFault("hang", True, hangs=True),
    SiteFault("slow drip", True, body=FINE, drip_s=0.5),
    SiteFault("truncated body", True, body=FINE, length_told=len(FINE) + 1000),
    SiteFault("connection closed", True, head=b""),
    SiteFault("no HTTP", True, head=b"\x00\xff\x00 what?"),
    SiteFault("redirect loop", True, b"HTTP/1.1 302 Round\r\nLocation: ?\r\nContent-Length: %d\r\n\r\n"),
    SiteFault("10 MB page", False, body=BIG),
    SiteFault("alert storm", False, body=STORM),
)
MODEL_FAULTS: dict[str, tuple[Fault | str, bool]] = {
    "400": (Fault(status=400), True),
    "429": (Fault(status=429), True),
    "500": (Fault(status=500), True),
    "time-out": (Fault(delay_s=2 * MODEL_TIMEOUT_S), True),
    "abort": (Fault(aborts=True), True),
    "no JSON": (Fault(status=200), True),
    "empty reply": ("", False),
    "malformed reply": ("Action: Fly; to the moon", False),
    "endless reply": ("Thought: " + "and then " * 2000, False),
}
"""What a model does in place of a reply, and whether that is the infrastructure's failure."""


@dataclass(frozen=True, slots=True)
class Case:
    """One episode to run, and what befalls it."""

    name: str
    is_infrastructure: bool
    at_start: SiteFault | None = None
    behind: SiteFault | None = None
    model: Fault | str | None = None
    model_call: int = 0


def cases() -> list[Case]:
    """Every fault at each of its two places."""
    return [
        *(Case(f"start page: {fault.name}", fault.is_infrastructure, at_start=fault) for fault in SITE_FAULTS),
        *(Case(f"behind the link: {fault.name}", fault.is_infrastructure, behind=fault) for fault in SITE_FAULTS),
        *(
            Case(f"model, call {call + 1}: {name}", is_infrastructure, model=fault, model_call=call)
            for call in (0, 1)
            for name, (fault, is_infrastructure) in MODEL_FAULTS.items()
        ),
    ]


@contextlib.asynccontextmanager
async def website(case: Case) -> AsyncIterator[str]:
    """The address of a website with these faults, on loopback."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            path = (await reader.readline()).split(b" ")[1].partition(b"?")[0]
            while (await reader.readline()).strip():
                pass
            fault = {b"/": case.at_start, b"/next": case.behind}.get(path)
            await send(writer, fault or SiteFault("", False, body=FINE))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://test.localhost:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def send(writer: asyncio.StreamWriter, fault: SiteFault) -> None:
    """Send what a fault makes of a page."""
    if fault.hangs:
        await asyncio.sleep(AGENT.time_limit_s)
        return
    length = len(fault.body) if fault.length_told is None else fault.length_told
    writer.write(fault.head.replace(b"%d", str(length).encode()))
    step = len(fault.body) if fault.drip_s is None else 1
    for at in range(0, len(fault.body), max(1, step)):
        writer.write(fault.body[at : at + step])
        await writer.drain()
        if fault.drip_s is not None:
            await asyncio.sleep(fault.drip_s)
    await writer.drain()


class Clicker:
    """The script of an agent that clicks the first link and then answers, with one fault on its way."""

    def __init__(self) -> None:
        """Without fault, until `arm`."""
        self.arm(None, 0)

    def arm(self, fault: Fault | str | None, at_call: int) -> None:
        """Begin an episode, whose model fails from this call on."""
        self.fault, self.at_call, self.num_calls = fault, at_call, 0

    def __call__(self, call: Call) -> Fault | str | None:
        """The reply."""
        number, self.num_calls = self.num_calls, self.num_calls + 1
        if self.fault is not None and number >= self.at_call:
            return self.fault
        return "Thought: On.\nAction: Click [1]" if number == 0 else "Thought: There.\nAction: Answer; done"


async def attempt(case: Case, browser: Browser, server: ScriptedServer, script: Clicker) -> Trajectory:
    """The episode of a case."""
    script.arm(case.model, case.model_call)
    endpoint = EndpointSettings(base_url=f"{server.url}/v1", model="scripted", timeout_s=MODEL_TIMEOUT_S, max_retries=1)
    async with website(case) as url:
        return await roll_out(
            Task(website=Website(name="faulty", url=url), instruction="Go on."),
            "episode",
            browser=browser,
            practice=None,
            generate=open_endpoint(endpoint, weights=0),
            settings=AGENT,
            sampling=Sampling(),
        )


async def inject(folder: Path) -> dict[str, int]:
    """Run every case; the figures."""
    script, figures = Clicker(), {"injected": 0, "fake_zeros": 0, "untyped": 0}
    with ScriptedServer(script) as server:
        async with Browser(BROWSER, BlobStore(folder)) as browser:
            for case in [Case("nothing", False), *cases()]:
                figures["injected"] += case.name != "nothing"
                try:
                    trajectory = await attempt(case, browser, server, script)
                except Exception as error:  # any at all is what this looks for
                    print(f"{case.name:32} untyped: {error!r}", flush=True)
                    figures["untyped"] += 1
                    continue
                is_agents = trajectory.outcome.is_agents
                figures["fake_zeros"] += case.is_infrastructure and is_agents
                figures["untyped"] += not case.is_infrastructure and not is_agents
                print(f"{case.name:32} {trajectory.outcome:14} {trajectory.error[:80]}", flush=True)
    return figures


def main(
    seed: Annotated[int, typer.Option(help="Unused: every fault is injected at every place.", min=0)] = 0,
) -> None:
    """Inject every fault, and count those that could reach the reward."""
    with tempfile.TemporaryDirectory(prefix="pae-faults-") as folder:
        print(json.dumps(asyncio.run(inject(Path(folder)))))


if __name__ == "__main__":
    typer.run(main)
