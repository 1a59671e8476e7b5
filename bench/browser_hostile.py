"""Does every page end in a typed outcome in time, whatever it does? An agent on malformed and hostile pages.

It clicks the first element, or scrolls where there is none, then answers. The pages are those of bench/hostile.py, each
behind a server of its own on loopback.

- pages: episodes run;
- typed_outcomes: those that ended in an outcome, and neither raised nor hung;
- over_deadline: those that took longer than the agent's time limit and the closing of a page together.

    python -m bench.browser_hostile --seed 0
"""

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from bench.hostile import HostilePage, hostile_pages
from policy.agent import AgentSettings, roll_out
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.trajectory import Outcome
from proposer.generate import Generate, Prompt, Response, Sampling
from proposer.task import Task, Website

BROWSER = BrowserSettings(settle_deadline_s=1.5, action_deadline_s=4.0, start_deadline_s=5.0, max_traffic_mb=100)
AGENT = AgentSettings(max_steps=3, time_limit_s=15.0)
CLOSING_S = 7.0
"""Beyond the time limit: closing the page, at worst with the whole browser."""
AT_ONCE = 2
LOST_S = 60.0
"""After that an episode hangs."""


@asynccontextmanager
async def server(page: HostilePage) -> AsyncIterator[str]:
    """Address of the page."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode("latin-1")
            data = page.others.get(path)
            if data is not None:
                writer.write(data)
                await (asyncio.sleep(LOST_S) if not data else writer.drain())
                return
            for piece in (
                [page.answer[n : n + 1] for n in range(len(page.answer))] if page.pause_s >= 0.5 else [page.answer]
            ):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(page.pause_s)
            while page.endless:
                writer.write(page.endless)
                await writer.drain()
                await asyncio.sleep(page.pause_s)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the browser has gone
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://hostile.localhost:{listening.sockets[0].getsockname()[1]}/"
    finally:
        listening.close()


def script() -> Generate:
    """Click the first element or scroll, scroll, answer."""
    replies = iter(["Scroll [WINDOW]; down", "Answer; done", "Answer; done"])

    async def generate(prompt: Prompt, sampling: Sampling) -> Response:
        said = next(replies)
        first = "Scroll" in said and any("[1]" in part for part in prompt.parts if isinstance(part, str))
        return Response(f"Action: {'Click [1]' if first else said}")

    return generate


async def visit(page: HostilePage, browser: Browser) -> tuple[Outcome | None, str]:
    """How the episode on a page ended, None if it didn't; and what was said about it."""
    async with server(page) as url:
        episode = roll_out(
            Task(website=Website(name="hostile", url=url), instruction="Push."),
            "episode",
            browser=browser,
            practice=None,
            generate=script(),
            settings=AGENT,
            sampling=Sampling(),
        )
        try:
            record = await asyncio.wait_for(episode, LOST_S)
        except Exception as error:  # any at all is what this looks for
            return None, repr(error)
    return record.outcome, record.error


async def run(folder: Path, only: str) -> dict[str, int]:
    """Every page whose name holds `only`; the figures."""
    outcomes: Counter[str] = Counter()
    figures = {"pages": 0, "typed_outcomes": 0, "over_deadline": 0}
    left = iter([page for page in hostile_pages() if only in page.name])
    async with Browser(BROWSER, BlobStore(folder)) as browser:

        async def work() -> None:
            for page in left:
                started = time.monotonic()
                outcome, error = await visit(page, browser)
                seconds = time.monotonic() - started
                figures["pages"] += 1
                figures["typed_outcomes"] += outcome is not None
                figures["over_deadline"] += seconds > AGENT.time_limit_s + CLOSING_S
                outcomes[str(outcome)] += 1
                print(
                    f"{page.name:48} {seconds:5.1f} s  {outcome} {error.splitlines()[0][:90] if error else ''}",
                    flush=True,
                )

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    print(", ".join(f"{count} {name}" for name, count in outcomes.most_common()))
    return figures


def main(
    seed: Annotated[int, typer.Option(help="Unused: every page is visited.", min=0)] = 0,
    only: Annotated[str, typer.Option(help="Only pages whose name holds this.")] = "",
) -> None:
    """Visit every page, and count the episodes that ended as they must."""
    with tempfile.TemporaryDirectory(prefix="pae-hostile-") as folder:
        print(json.dumps(asyncio.run(run(Path(folder), only))))


if __name__ == "__main__":
    typer.run(main)
