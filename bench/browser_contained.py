"""Does a page get out, and does an episode leave anything to the next? Attempts against real listeners on loopback.

Every attempt of bench/escapes.py is made by a script in a page that a click of the agent sets off, in an episode of its
own, with a TCP and a UDP listener of its own outside the website. Names that are looked up are read from Chromium's own
network log. With `--control` each is made again where the listener is allowed, which shows that the attempt is real.

Every probe plants something in one episode and looks for it in another on the same website; before, it looks for it in
the first one: a probe that finds nothing there proves nothing, and isn't counted.

- escapes_tried, escaped: attempts, and those of which anything arrived, was looked up, or was shown;
- leak_probes, leaked: probes, and those that found what another episode had planted.

    python -m bench.browser_contained --seed 0
"""

import asyncio
import itertools
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from bench.escapes import ESCAPES, PROBES, Escape, Probe
from bench.small_site import Reply, SmallSite
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserError, BrowserSettings, Tab
from policy.trajectory import Action, ActionKind, Outcome

SETTINGS = BrowserSettings(settle_deadline_s=1.5, action_deadline_s=30.0, start_deadline_s=60.0, recycle_after=1000)
AT_ONCE = 3
PATIENCE_S = 6.0
"""What an attempt is given to be refused, and a control to arrive."""
LATE_S = 1.0
"""How long an arrival is waited for after the attempt was refused."""
LOG_COMMANDS = ("chromium-headless-shell", "chromium")
FORBIDDEN = ("file:", "chrome:", "data:text", "view-source:", "devtools:")
WORKER = "fetch(decodeURIComponent(location.search.slice(1)), {mode: 'no-cors'})"
SHARED = """let kept = ''; onconnect = event => { const port = event.ports[0];
port.onmessage = said => { if (said.data === '?') port.postMessage(kept); else kept = said.data } }"""
CLICK = Action(kind=ActionKind.CLICK, mark=1)


class Outside:
    """A server that no page has any business with: TCP and UDP on one port of loopback, noting what comes."""

    def __init__(self) -> None:
        """Use `open`."""
        self.arrived = asyncio.Event()
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Outside"]:
        """Listening, on IPv4."""
        outside = cls()

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            outside.arrived.set()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        class Datagrams(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                outside.arrived.set()

        server = await asyncio.start_server(note, "0.0.0.0", 0)
        outside.port = server.sockets[0].getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Datagrams, local_addr=("0.0.0.0", outside.port)
        )
        try:
            yield outside
        finally:
            transport.close()
            server.close()

    async def hears(self, limit_s: float) -> bool:
        """Whether anything has come by then."""
        try:
            async with asyncio.timeout(limit_s):
                await self.arrived.wait()
        except TimeoutError:
            return False
        return True


def page_of(escape: Escape, url: str, host: str) -> str:
    """A page whose one button makes the attempt."""
    script = escape.script.replace("HOST", host)
    body = f"b.onclick = () => {{ const URL_ = '{url}'; {script} }}"
    return f"<title>Home</title><button id=b>Out</button><script>{body}</script>"


@contextmanager
def website(escape: Escape, outside: Outside) -> Iterator[tuple[str, str]]:
    """Address of the website from which the attempt is made, and what its trace in the record is."""
    host = f"foreign.localhost:{outside.port}"
    filled = {"HOST": host, "PORT": str(outside.port), "NAME": f"name{outside.port}.escape.test"}
    url, trace = escape.url, escape.trace
    for word, value in filled.items():
        url, trace = url.replace(word, value), trace.replace(word, value)
    with SmallSite() as site:
        policy = {"Content-Security-Policy": f"img-src 'none'; report-uri {url}"}
        site.replies["/redirect"] = Reply("", 302, {"Location": url})
        site.replies["/policy"] = Reply("<img src=/x.png>", headers=policy)
        site.replies["/worker.js"] = Reply(WORKER, headers={"Content-Type": "text/javascript"})
        site.serve("<title>Next</title>", "/next")
        site.replies["/"] = Reply(page_of(escape, url, host))
        yield site.url(), trace


async def attempt(escape: Escape, browser: Browser, *, allowed: bool) -> tuple[bool, bool]:
    """Whether an attempt got out, and whether it is in the record of what was refused."""
    async with Outside.open() as outside:
        with website(escape, outside) as (url, trace):
            hosts = [
                f"{name}:{outside.port}" for name in ("foreign.localhost", "127.0.0.1", "0.0.0.0", "test.localhost")
            ]
            async with browser.episode(url, hosts if allowed else ()) as tab:
                await tab.act(CLICK, await tab.observe())
                out = await has_left(tab) if not allowed else False
                if allowed:
                    return await outside.hears(PATIENCE_S), False
                recorded = await is_recorded(tab, trace)
                return out or await outside.hears(LATE_S), recorded


async def has_left(tab: Tab) -> bool:
    """Whether any page of the episode, or frame in one, shows what isn't the web; a frame of data is the page's own."""
    frames = [frame for page in tab._page.page.context.pages for frame in page.frames]
    return any(
        frame.url.startswith(FORBIDDEN) and not (frame.parent_frame and frame.url.startswith("data:"))
        for frame in frames
    )


async def is_recorded(tab: Tab, trace: str) -> bool:
    """Whether a refusal comes into the record in time; of what leaves no trace that isn't waited for."""
    if not trace:
        return False
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not any(trace in address for address in tab.refused):
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    return True


async def try_all(browser: Browser, *, allowed: bool) -> dict[str, tuple[bool, bool]]:
    """Every attempt, some at once: name -> whether it got out, and whether it is in the record."""
    found: dict[str, tuple[bool, bool]] = {}
    left = iter([escape for escape in ESCAPES if escape.reaches_listener or not allowed])

    async def work() -> None:
        for escape in left:
            found[escape.name] = await attempt(escape, browser, allowed=allowed)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return found


def logging_chromium(folder: Path) -> Path:
    """A command that starts Chromium with its network log in ``<folder>/net.json``."""
    chromium = next(filter(None, map(shutil.which, LOG_COMMANDS)), None)
    if chromium is None:
        raise typer.BadParameter(f"no Chromium found; looked for {', '.join(LOG_COMMANDS)}")
    command = folder / "chromium"
    command.write_text(f'#!/bin/sh\nexec {chromium} --log-net-log={folder}/net.json "$@"\n')
    command.chmod(0o755)
    return command


def looked_up(log: Path) -> set[str]:
    """Names that Chromium has looked up, by its network log: constants on the first line, then an event a line."""
    lines = log.read_text(errors="replace").splitlines()
    kinds = json.loads(lines[0].rstrip(",") + "}")["constants"]["logEventTypes"]
    resolving = {str(kind) for name, kind in kinds.items() if name.startswith("HOST_RESOLVER")}
    names = set()
    for line in lines[1:]:
        kind, name = re.search(r'"type":(\d+)}[,\]]*$', line), re.search(r"[\w.-]+\.(?:escape\.test|localhost)", line)
        if kind and name and kind[1] in resolving:
            names.add(name[0])
    return names


def leaky_website(site: SmallSite) -> None:
    """The pages that the probes need."""
    script = {"Content-Type": "text/javascript"}
    lasting = {"Cache-Control": "max-age=9999"}

    def counted(
        body: str, headers: Mapping[str, str] = MappingProxyType({}), status: int = 200
    ) -> Callable[[str], Reply]:
        count = itertools.count()
        return lambda path: Reply(body.replace("N", str(next(count))), status, dict(headers))

    def secret(path: str) -> Reply:
        known = "Authorization" in site.heads[-1]
        return Reply("in") if known else Reply("", 401, {"WWW-Authenticate": 'Basic realm="Staff"'})

    def tagged(path: str) -> Reply:
        site.replies["/told"] = Reply("yes" if "If-None-Match" in site.heads[-1] else "no")
        return Reply("tagged", headers={"ETag": '"PLANTED"', "Cache-Control": "no-cache"})

    site.replies |= {
        "/": Reply("<title>Home</title>"),
        "/next": Reply("<title>Next</title>"),
        "/echo": lambda path: Reply(str(site.heads[-1])),
        "/cookie": Reply("", headers={"Set-Cookie": "h=PLANTED; HttpOnly; Max-Age=9999"}),
        "/cached": counted("answer N", lasting),
        "/counted.js": counted("export const number = N", script | lasting),
        "/moved": counted("", lasting | {"Location": "/cached"}, 301),
        "/tagged": tagged,
        "/secret": secret,
        "/worker.js": Reply("0", headers=script),
        "/shared.js": Reply(SHARED, headers=script),
    }


async def ask(tab: Tab, script: str) -> Any:
    """What a script of the page's own comes to."""
    parameters = {"expression": f"Promise.resolve({script})", "awaitPromise": True, "returnByValue": True}
    reply = await tab._page.send("Runtime.evaluate", parameters)
    if "exceptionDetails" in reply:
        raise BrowserError(Outcome.SITE_ERROR, str(reply["exceptionDetails"].get("exception", {}).get("description")))
    return reply["result"].get("value")


async def probe(what: Probe, browser: Browser) -> tuple[bool, bool]:
    """Whether what was planted is found in its own episode, and whether in another."""
    with SmallSite() as site:
        leaky_website(site)
        async with browser.episode(site.url()) as first:
            if what.granted:
                await first._page.page.context.grant_permissions([what.granted])
            planted = json.dumps(await ask(first, what.plant))
            read = f"((planted) => {what.read})({planted})"
            is_real = bool(await ask(first, read))
            if what.at_once:
                async with browser.episode(site.url()) as second:
                    return is_real, bool(await ask(second, read))
        async with browser.episode(site.url()) as second:
            return is_real, bool(await ask(second, read))


async def run(folder: Path, *, control: bool) -> dict[str, int]:
    """Every attempt and every probe; the figures."""
    settings = SETTINGS.model_copy(update={"executable": str(logging_chromium(folder))})
    async with Browser(settings, BlobStore(folder / "blobs")) as browser:
        found = await try_all(browser, allowed=False)
    names = looked_up(folder / "net.json")
    print(f"names looked up: {', '.join(sorted(names)) or 'none'}")
    leaks = []
    async with Browser(SETTINGS, BlobStore(folder / "blobs")) as browser:
        reached = await try_all(browser, allowed=True) if control else {}
        for what in PROBES:
            is_real, leaked = await probe(what, browser)
            print(f"{what.name:36} {'leaked' if leaked else 'held' if is_real else 'not planted'}", flush=True)
            leaks += [leaked] if is_real or leaked else []
    for escape in ESCAPES:
        got_out, recorded = found[escape.name]
        arrives = (
            "" if escape.name not in reached else "arrives if allowed" if reached[escape.name][0] else "NOT IF ALLOWED"
        )
        print(f"{escape.name:36} {'ESCAPED' if got_out else 'held':8} {'recorded' if recorded else '':9} {arrives}")
    print(f"recorded: {sum(recorded for _, recorded in found.values())} of {len(found)}")
    escaped = sum(got_out for got_out, _ in found.values()) + len(names)
    return {"escapes_tried": len(found), "escaped": escaped, "leak_probes": len(leaks), "leaked": sum(leaks)}


def main(
    seed: Annotated[int, typer.Option(help="Unused: every attempt is made.", min=0)] = 0,
    control: Annotated[bool, typer.Option(help="Whether attempts are made again where they are allowed.")] = False,
) -> None:
    """Make every attempt to get out and to leave something behind, and count those that succeed."""
    with tempfile.TemporaryDirectory(prefix="pae-contained-") as folder:
        print(json.dumps(asyncio.run(run(Path(folder), control=control))))


if __name__ == "__main__":
    typer.run(main)
