"""What a page can reach: its own host and the allowed ones, whatever it tries."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.browser_contained import SETTINGS, attempt, logging_chromium, looked_up, probe
from bench.escapes import ESCAPES, PROBES, Probe
from bench.small_site import Reply, SmallSite
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.browser_proxy import AllowList
from policy.trajectory import Action, ActionKind
from proposer.task import Website

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLICK = Action(kind=ActionKind.CLICK, mark=1)


@pytest.fixture
def foreign() -> Iterator[SmallSite]:
    """Another server, which pages of `site` have no business with."""
    with SmallSite() as foreign:
        foreign.serve("<title>Foreign</title>")
        yield foreign


@pytest.mark.parametrize(
    ("host", "port", "allowed"),
    [
        ("shop.example", 443, True),
        ("shop.example", 80, True),
        ("shop.example", 8080, False),
        ("cdn.example", 443, True),
        ("cdn.example", 22, False),
        ("a.b.wild.example", 443, True),
        ("wild.example", 443, False),
        ("evilwild.example", 443, False),
        ("api.example", 8443, True),
        ("api.example", 443, False),
        ("127.0.0.1", 80, False),
        ("other.example", 443, False),
        ("::1", 9000, True),
        ("::1", 80, False),
        ("fe80::2", 443, True),
    ],
)
async def test_the_allow_list_names_hosts_and_ports(host: str, port: int, allowed: bool) -> None:
    hosts = ("CDN.example", "*.wild.example", "api.example:8443", "[::1]:9000", "[fe80::2]")
    assert AllowList.of("https://Shop.example/start", hosts).allows(host, port) == allowed


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a.example:http",
        "a.example:99999",
        "https://a.example",
        "a.example/path",
        "me@a.example",
        "::1",
        "[::1",
        "*",
        "*.*.example",
    ],
)
async def test_what_is_no_host_is_refused_where_it_is_named(host: str) -> None:
    with pytest.raises(ValidationError, match=r"expected a host, such as example\.com"):
        Website(name="a", url="https://a.example/", allowed_hosts=(host,))
    with pytest.raises(ValueError, match=r"expected a host, such as example\.com"):
        AllowList.of("https://a.example/", (host,))


async def test_only_the_web_can_be_started_at(browser: Browser) -> None:
    with pytest.raises(ValueError, match="expected http"):
        async with browser.episode("file:///etc/passwd"):
            pass


@pytest.mark.parametrize(
    "escape",
    [
        "document.body.append(Object.assign(new Image, {src: URL}))",
        "fetch(URL, {mode: 'no-cors'})",
        "navigator.sendBeacon(URL, 'x')",
        "document.body.append(Object.assign(document.createElement('iframe'), {src: URL}))",
        "document.body.append(Object.assign(document.createElement('script'), {src: URL}))",
        "new EventSource(URL)",
        "new WebSocket(URL.replace('http', 'ws'))",
        "new Worker(window.URL.createObjectURL(new Blob([`fetch('${URL}', {mode: 'no-cors'})`])))",
        "location = URL",
        "window.open(URL)",
        "fetch('/redirect')",
        "document.body.append(Object.assign(new Image, {src: '/redirect'}))",
        "location = '/redirect'",
        "document.body.append(Object.assign(document.createElement('link'), {rel: 'prefetch', href: URL}))",
    ],
)
async def test_a_page_does_not_get_out(browser: Browser, site: SmallSite, foreign: SmallSite, escape: str) -> None:
    url = foreign.url(host="foreign.localhost")
    site.replies["/redirect"] = Reply("", 302, {"Location": url})
    html = f"<title>Home</title><button id=b>Out</button><script>b.onclick = () => {{ const URL = '{url}'; {escape} }};"
    html = html.replace("window.URL", "self[`URL`]")
    async with browser.episode(site.serve(html + "</script>")) as tab:
        await tab.act(CLICK, await tab.observe())
        assert (await tab.observe()).title == "Home"
        await wait_for(tab.refused, f"foreign.localhost:{foreign.port}")
    assert foreign.paths == []


async def wait_for(refused: list[str], address: str) -> None:
    async with asyncio.timeout(5):
        while address not in refused:
            await asyncio.sleep(0.02)


async def test_the_agent_is_told_of_a_link_that_leads_outside(
    browser: Browser, site: SmallSite, foreign: SmallSite
) -> None:
    url = foreign.url(host="foreign.localhost")
    async with browser.episode(site.serve(f"<title>Home</title><a href='{url}'>Out</a>")) as tab:
        assert await tab.act(CLICK, await tab.observe()) == f"{url} is outside this website."
        assert (await tab.observe()).title == "Home"


async def test_an_allowed_host_is_reached(browser: Browser, site: SmallSite, foreign: SmallSite) -> None:
    url = foreign.url(host="friend.localhost")
    async with browser.episode(site.serve(f"<a href='{url}'>On</a>"), (f"*.localhost:{foreign.port}",)) as tab:
        await tab.act(CLICK, await tab.observe())
        assert (await tab.observe()).title == "Foreign"
        assert tab.refused == []


async def test_the_page_of_another_episode_is_out_of_reach(browser: Browser, site: SmallSite) -> None:
    other = site.url("/", host="other.localhost")
    async with browser.episode(site.serve(f"<a href='{other}'>Other world</a>")) as tab:
        assert "outside this website" in await tab.act(CLICK, await tab.observe())


async def test_webrtc_sends_nothing_past_the_proxy(browser: Browser, site: SmallSite) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stun:
        stun.bind(("127.0.0.1", 0))
        stun.setblocking(False)
        html = f"""<script>
        const peer = new RTCPeerConnection({{iceServers: [{{urls: "stun:127.0.0.1:{stun.getsockname()[1]}"}}]}});
        peer.onicegatheringstatechange = () => document.title = peer.iceGatheringState;
        peer.createDataChannel("x"); peer.createOffer().then(offer => peer.setLocalDescription(offer));</script>"""
        async with browser.episode(site.serve(html)) as tab:
            async with asyncio.timeout(10):
                while (await tab.observe()).title != "complete":
                    await tab.act(Action(kind=ActionKind.WAIT), await tab.observe())
        with pytest.raises(BlockingIOError):
            stun.recv(100)


SOME_ESCAPES = [escape for escape in ESCAPES if "name" in escape.name or not escape.reaches_listener][::2]


async def test_what_is_not_the_webs_is_out_of_reach_and_no_name_is_looked_up(blobs: BlobStore, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"executable": str(logging_chromium(tmp_path))})
    async with Browser(settings, blobs) as browser:
        found = await asyncio.gather(*(attempt(escape, browser, allowed=False) for escape in SOME_ESCAPES))
    assert found == [(False, escape.trace != "") for escape in SOME_ESCAPES]
    assert looked_up(tmp_path / "net.json") == set()


@pytest.mark.parametrize("what", PROBES[::4], ids=lambda what: what.name)
async def test_nothing_of_an_episode_is_found_in_another(browser: Browser, what: Probe) -> None:
    assert await probe(what, browser) == (True, False)


async def test_a_port_of_the_start_host_can_be_allowed(site: SmallSite) -> None:
    assert AllowList.of("http://127.0.0.1:8000/", ("127.0.0.1:9000",)).allows("127.0.0.1", 9000)


async def test_an_episode_receives_no_more_than_it_may(blobs: BlobStore, site: SmallSite) -> None:
    site.serve("x" * 2_000_000, "/big")
    html = "<button onclick='fetch(`/big`).then(r => r.text()).catch(() => document.title = `cut off`)'>Get</button>"
    async with (
        Browser(BrowserSettings(max_traffic_mb=1), blobs) as browser,
        browser.episode(site.serve(f"<title>Home</title>{html}")) as tab,
    ):
        await tab.act(CLICK, await tab.observe())
        assert (await tab.observe()).title == "cut off"
        assert tab.refused == ["more than the episode may receive"]
