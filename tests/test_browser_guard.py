"""The guard in a real browser: what it lets through, and what reaches the website past it (nothing)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bench.small_site import Reply, SmallSite
from policy.blobs import BlobStore
from policy.browser import Browser, Tab
from policy.browser_settings import BrowserSettings
from policy.guard import GuardSettings, Question
from policy.trajectory import Action, ActionClass, ActionKind, ActionSpace, Effect

pytestmark = pytest.mark.asyncio(loop_scope="session")

READ, REVERSIBLE, IRREVERSIBLE = ActionClass
CLICK, TYPE, APPEND, PRESS = ActionKind.CLICK, ActionKind.TYPE, ActionKind.APPEND, ActionKind.PRESS
SETTINGS = BrowserSettings(
    settle_deadline_s=1.5,
    action_deadline_s=3.0,
    start_deadline_s=3.0,
    recycle_after=1000,
    actions=ActionSpace.FULL,
    guard=GuardSettings(practice="refuse", may_type=("me@home.example",)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict(blobs: BlobStore) -> AsyncIterator[Browser]:
    async with Browser(SETTINGS, blobs) as browser:
        yield browser


async def do(tab: Tab, kind: ActionKind, name: str = "", text: str = "") -> str:
    """Act on the first element of that name; what the agent is told."""
    seen = await tab.observe()
    mark = next((element.mark for element in seen.elements if name and element.name == name), None)
    assert name == "" or mark is not None
    return await tab.act(Action(kind=kind, mark=mark, text=text), seen)


def sent(site: SmallSite) -> list[str]:
    """The requests that reached the website and aren't the page's own."""
    return [path for path in site.paths if path not in ("/", "/favicon.ico")]


@pytest.mark.parametrize(
    ("html", "name", "wanted"),
    [
        ("<form method=post action=/a><button>Place order</button></form>", "Place order", IRREVERSIBLE),
        ("<form method=post action=/a><button>Add to cart</button></form>", "Add to cart", REVERSIBLE),
        ("<form method=post action=/a><button aria-label=Details>Pay 9.99</button></form>", "Details", IRREVERSIBLE),
        ("<form method=post action=/pay><button>Add to cart</button></form>", "Add to cart", IRREVERSIBLE),
        ("<form action=/a><button formmethod=post>Yes</button></form>", "Yes", IRREVERSIBLE),
        ("<form id=f method=post action=/pay></form><p><button form=f>Show</button>", "Show", IRREVERSIBLE),
        (
            "<form method=post action=/pay><input type=hidden name=method value=get><input type=hidden name=action>"
            "<input type=hidden name=elements><button>Show</button></form>",
            "Show",
            IRREVERSIBLE,
        ),
        ("<form action=/a><button>Search</button></form>", "Search", READ),
        ("<form onsubmit='fetch(`/a`); return false'><button>Buy</button></form>", "Buy", IRREVERSIBLE),
        ("<a href=/a>Delete</a>", "Delete", READ),
        ("<a href=/delete/3>Delete</a>", "Delete", IRREVERSIBLE),
        ("<a href=/a data-method=delete>Item</a>", "Item", IRREVERSIBLE),
        ("<a href='#' onclick='fetch(`/a`)'>Pay now</a>", "Pay now", IRREVERSIBLE),
        ("<button onclick='fetch(`/a`)'>Unsubscribe</button>", "Unsubscribe", IRREVERSIBLE),
        ("<div role=button tabindex=0 onclick='fetch(`/a`)'><b>Buy now</b></div>", "Buy now", IRREVERSIBLE),
        ("<button onclick='fetch(`/a`)'>More</button>", "More", READ),
        ("<label>Delete <input type=checkbox onclick='fetch(`/a`)'></label>", "Delete", READ),
    ],
)  # fmt: skip
async def test_what_cant_be_undone_is_not_done_and_the_agent_is_told(
    strict: Browser, site: SmallSite, html: str, name: str, wanted: ActionClass
) -> None:
    site.replies["/a"] = Reply("<title>There</title>")
    async with strict.episode(site.serve(html)) as tab:
        told = await do(tab, CLICK, name)
        assert tab.action_class is wanted
        if wanted is IRREVERSIBLE:
            assert (tab.effect, sent(site)) == (Effect.REFUSED, [])
            assert told == f'"{name}" was not done: it can\'t be undone, and that is not allowed here.'
            assert [(entry.what, entry.allowed) for entry in tab.side_effects] == [("action", False)]
        else:
            assert (tab.effect, told) == (Effect.DONE, "")
            assert sent(site) == ["/a"]


async def test_enter_in_a_field_sends_its_form_too(strict: Browser, site: SmallSite) -> None:
    html = """<form method=post action=/order><input aria-label=One name=a></form>
    <form method=post action=/order><input aria-label=Two name=b><input name=c><button>Go</button></form>
    <form method=post action=/order><textarea aria-label=Three name=d></textarea></form>"""
    async with strict.episode(site.serve(html)) as tab:
        assert "was not done" in await do(tab, TYPE, "One", "kettle")
        assert await do(tab, TYPE, "Two", "kettle") == ""
        assert "was not done" in await do(tab, PRESS, text="Enter")
        assert await do(tab, TYPE, "Three", "kettle") == ""
        assert await do(tab, PRESS, text="Enter") == ""
        assert (tab.action_class, sent(site)) == (READ, [])
        assert [entry.fields for entry in tab.side_effects] == [("a",), ("b", "c")]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"mark": 1, "to_mark": 1}, IRREVERSIBLE),
        ({"point": (20, 20), "to_point": (150, 40)}, IRREVERSIBLE),
        ({"mark": 1, "to_mark": 2}, REVERSIBLE),
        ({"mark": 2, "to_mark": 2}, REVERSIBLE),
    ],
    ids=["onto itself", "from one end of it to the other", "onto another", "harmless, onto itself"],
)
async def test_a_drag_onto_itself_is_a_click(
    strict: Browser, site: SmallSite, where: dict[str, Any], wanted: ActionClass
) -> None:
    html = "<form method=post action=/order><button style='width:200px;height:60px'>Place order</button></form>"
    async with strict.episode(site.serve(f"{html}<button>More</button>")) as tab:
        told = await tab.act(Action(kind=ActionKind.DRAG, **where), await tab.observe())
        assert tab.action_class is wanted
        assert ("was not done" in told) == (tab.effect is Effect.REFUSED) == (wanted is IRREVERSIBLE)
        assert sent(site) == []


# Ways for a harmless-looking press to send something all the same.
BEHIND = {
    "fetch": "fetch('/pay', {method: 'POST'})",
    "beacon": "navigator.sendBeacon('/pay')",
    "another method": "const x = new XMLHttpRequest(); x.open('DELETE', '/item'); x.send()",
    "form": "f.submit()",
    "form in a new tab": "f.target = '_blank'; f.submit()",
    "form in a frame": "f.target = 'n'; f.submit()",
    "frame's fetch": "n.fetch('/pay', {method: 'POST'})",
    "worker": "new Worker('/worker')",
    "shared worker": "new SharedWorker('/worker')",
    "as the page goes": "onpagehide = () => fetch('/pay', {method: 'POST', keepalive: true}); location = '/next'",
    "ping of a link": "document.body.insertAdjacentHTML('beforeend', '<a id=a href=# ping=/pay>x</a>'); a.click()",
    "later": "setTimeout(() => fetch('/pay', {method: 'POST'}), 100)",
    "redirect that keeps the method": "fetch('/mild', {method: 'POST'})",
}


@pytest.mark.parametrize("script", BEHIND.values(), ids=BEHIND)
async def test_a_script_behind_a_harmless_button_gets_no_further_than_the_button(
    strict: Browser, site: SmallSite, script: str
) -> None:
    site.replies["/worker"] = Reply("fetch('/pay', {method: 'POST'})", headers={"Content-Type": "text/javascript"})
    site.replies["/mild"] = Reply("", 307, {"Location": "/pay"})
    site.serve("<title>Next</title>", "/next")
    site.serve("<p>Frame</p>", "/frame")
    frame = "<iframe name=n src=/frame></iframe><form id=f method=post action=/pay><input type=hidden name=q></form>"
    page = f'<title>Home</title>{frame}<button onclick="{script}">Add to cart</button>'
    async with strict.episode(site.serve(page)) as tab:
        await do(tab, CLICK, "Add to cart")
        while not any(not entry.allowed for entry in tab.side_effects):
            await do(tab, ActionKind.WAIT)
        seen = await tab.observe()
    assert not {"/pay", "/item"} & set(site.paths)
    assert seen.title == ("Next" if "next" in script else "Home")
    assert {entry.of for entry in tab.side_effects if not entry.allowed} == {IRREVERSIBLE}


async def test_what_the_page_was_kept_from_is_told_and_no_failure_of_the_site(strict: Browser, site: SmallSite) -> None:
    html = "<title>Home</title><form id=f method=post action=/x></form><button onclick='f.submit()'>Menu</button>"
    async with strict.episode(site.serve(html)) as tab:
        told = await do(tab, CLICK, "Menu")
        assert told == f"The page tried to send something to {site.url('/x')}; that is not allowed here."
        assert (tab.effect, tab.action_class, tab.failure) == (Effect.REFUSED, READ, "")
        assert ((await tab.observe()).title, sent(site)) == ("Home", [])


async def test_what_can_be_taken_back_is_done_and_entered(strict: Browser, site: SmallSite) -> None:
    site.serve("<title>Cart</title>", "/cart/add")
    html = "<form method=post action=/cart/add><input type=hidden name=id value=7><button>Add to cart</button></form>"
    async with strict.episode(site.serve(html)) as tab:
        assert await do(tab, CLICK, "Add to cart") == ""
        assert [(e.after, e.what, e.of, e.method, e.url, e.fields, e.allowed) for e in tab.side_effects] == [
            (1, "action", REVERSIBLE, "POST", site.url("/cart/add"), ("id",), True),
            (1, "request", REVERSIBLE, "POST", site.url("/cart/add"), (), True),
        ]


async def test_are_you_sure_is_answered_no_to_what_cant_be_undone(strict: Browser, site: SmallSite) -> None:
    html = "<button onclick='document.title = confirm(`Delete everything?`)'>Menu</button>"
    async with strict.episode(site.serve(html)) as tab:
        assert "(confirm, dismissed)" in await do(tab, CLICK, "Menu")
        assert (await tab.observe()).title == "false"


async def test_nothing_private_is_typed(strict: Browser, site: SmallSite) -> None:
    html = """<input aria-label=Password type=password><input aria-label=Q><input aria-label=Mail type=email>
    <input aria-label=Key type=password id=k><button onclick='k.focus()'>Show</button>"""
    async with strict.episode(site.serve(html)) as tab:
        for kind, name, text in (
            (TYPE, "Password", "x"), (TYPE, "Q", "4111 1111 1111 1111"), (TYPE, "Mail", "eve@evil.example")
        ):  # fmt: skip
            assert (await do(tab, kind, name, text)).startswith("That was not typed: ")
            assert tab.effect is Effect.REFUSED
        assert await do(tab, TYPE, "Mail", "me@home.example") == ""
        assert await do(tab, TYPE, "Q", "eve@evil") == ""
        assert "an e-mail address" in await do(tab, APPEND, "Q", ".example")
        await do(tab, CLICK, "Show")
        assert "a password" in await do(tab, PRESS, text="x")
        values = [element.value for element in (await tab.observe()).elements]
        assert values == ["", "eve@evil", "me@home.example", "", ""]


async def test_who_watches_is_asked(blobs: BlobStore, site: SmallSite) -> None:
    asked: list[Question] = []

    async def ask(question: Question) -> bool:
        asked.append(question)
        return True

    site.serve("<title>Ordered</title>", "/order")
    html = "<form method=post action=/order><button>Order</button></form>"
    settings = SETTINGS.model_copy(update={"guard": GuardSettings(practice="ask")})
    async with Browser(settings, blobs, ask=ask) as browser, browser.episode(site.serve(html)) as tab:
        assert await do(tab, CLICK, "Order") == ""
        assert (await tab.observe()).title == "Ordered"
    assert [(question.action.kind, question.target.url) for question in asked] == [(CLICK, site.url("/order"))]


async def test_practice_websites_allow_everything_by_default_and_the_ledger_is_kept(
    browser: Browser, site: SmallSite
) -> None:
    site.serve("<title>Ordered</title>", "/order")
    html = "<form method=post action=/order><button>Order</button></form>"
    async with browser.episode(site.serve(html)) as tab:
        assert await do(tab, CLICK, "Order") == ""
        assert (await tab.observe()).title == "Ordered"
        assert [(entry.what, entry.of, entry.allowed) for entry in tab.side_effects] == [
            ("action", IRREVERSIBLE, True), ("request", IRREVERSIBLE, True)
        ]  # fmt: skip


async def test_an_episode_beside_it_is_under_its_own_guard(strict: Browser, site: SmallSite) -> None:
    site.replies["/mild"] = Reply("")
    html = "<button onclick='fetch(`/mild`, {method: `POST`})'>NAME</button>"
    mild, menu = html.replace("NAME", "Add to cart"), html.replace("NAME", "Menu")
    async with strict.episode(site.serve(menu, "/menu")) as one, strict.episode(site.serve(mild)) as other:
        await do(other, CLICK, "Add to cart")
        await do(one, CLICK, "Menu")
        assert [entry.allowed for entry in one.side_effects] == [False]
        assert [entry.allowed for entry in other.side_effects] == [True, True]
    assert site.paths.count("/mild") == 1


async def test_a_pages_last_words_are_its_own_episodes(strict: Browser, site: SmallSite) -> None:
    url = site.serve("<title>Fine</title>")
    async with strict.episode(url) as other:
        async with strict.episode(url) as tab:
            await tab._page.page.evaluate("setInterval(() => fetch('/tick', { method: 'POST' }), 4)")
            while not tab.side_effects:
                await asyncio.sleep(0.01)
        assert other.side_effects == []
