"""Pages that tear at the scripts that read them: names that overshadow, and built-in functions replaced."""

import html
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.small_site import SmallSite
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.guard import GuardSettings
from policy.trajectory import Action, ActionClass, ActionKind, ActionSpace, Effect, Observation

pytestmark = pytest.mark.asyncio(loop_scope="session")

# A form whose fields bear the names of all that a form has; it is a button, a pane and around all others itself.
SHADOWED = """<form id=f method=post action=/pay tabindex=0 aria-label=Form style='height:150px; overflow:auto'>
<input aria-label=Field name=q value=old><button>Place order</button><p style='height:400px'></p></form><script>
const names = []; for (const name in f) names.push(name);
f.append(...names.map((name) => Object.assign(document.createElement("input"), { type: "hidden", name })));
parent.document.title = `${typeof f.getAttribute} ${typeof f.tagName}`;
</script>"""

# What old libraries do to built-in functions, and worse.
REPLACED = """<script>
const never = () => { throw new Error("the page's own"); };
for (const one of [Node, Element, HTMLElement, HTMLFormElement, Document, EventTarget, Event, Array, String, Set, Map,
    WeakSet, Promise, RegExp, Function, JSON, Math, Reflect, Object, MutationObserver, Performance, Window])
  for (const owner of [one, one.prototype].filter(Boolean)) for (const name of Object.getOwnPropertyNames(owner)) {
    const is = Object.getOwnPropertyDescriptor(owner, name);
    if (!is.configurable || name === "constructor") continue;
    Object.defineProperty(owner, name, is.get ? { get: never } : { value: never });
  }
</script>"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict(blobs: BlobStore) -> AsyncIterator[Browser]:
    guard = GuardSettings(practice="refuse")
    async with Browser(BrowserSettings(actions=ActionSpace.FULL, guard=guard, settle_deadline_s=1.5), blobs) as browser:
        yield browser


def named(seen: Observation, name: str) -> int:
    (mark,) = [element.mark for element in seen.elements if element.name == name]
    return mark


FRAMED = f'<iframe srcdoc="{html.escape(SHADOWED + REPLACED)}" width=500 height=300></iframe>'


@pytest.mark.parametrize(
    "page", [SHADOWED, SHADOWED + REPLACED, FRAMED], ids=["shadowed", "replaced too", "in a frame"]
)
async def test_a_torn_page_is_read_classed_and_acted_on_like_any_other(
    strict: Browser, site: SmallSite, page: str
) -> None:
    async with strict.episode(site.serve(page)) as tab:
        seen = await tab.observe()
        assert seen.title == "object object"
        assert [(element.tag, element.name, element.value) for element in seen.elements] == [
            ("button", "Form", ""),
            ("input", "Field", "old"),
            ("button", "Place order", ""),
        ]
        click = Action(kind=ActionKind.CLICK, mark=named(seen, "Place order"))
        assert "was not done" in await tab.act(click, seen)
        assert (tab.action_class, tab.side_effects[0].url) == (ActionClass.IRREVERSIBLE, site.url("/pay"))
        type_ = Action(kind=ActionKind.TYPE, mark=named(seen, "Field"), text="new")  # Enter would follow
        assert "was not done" in await tab.act(type_, seen)
        scroll = Action(kind=ActionKind.SCROLL, mark=named(seen, "Form"), text="down")
        assert (await tab.act(scroll, seen), tab.effect) == ("", Effect.DONE)
        assert "Field" not in [element.name for element in (await tab.observe()).elements]


async def test_an_element_that_bears_the_scripts_name_hides_nothing(strict: Browser, site: SmallSite) -> None:
    site.serve("<title>There</title><button id=pae>Push</button><img name=collect>", "/there")
    async with strict.episode(site.serve("<a href=/there target=_blank>Open</a>")) as tab:
        await tab.act(Action(kind=ActionKind.CLICK, mark=1), await tab.observe())
        seen = await tab.observe()
        assert (seen.title, seen.elements[0].name) == ("There", "Push")


async def test_a_list_item_that_counts_can_be_clicked(strict: Browser, site: SmallSite) -> None:
    async with strict.episode(site.serve("<ol><li value=3 onclick='document.title = `hit`'>Third</ol>")) as tab:
        assert await tab.act(Action(kind=ActionKind.CLICK, mark=1), await tab.observe()) == ""
        assert (await tab.observe()).title == "hit"
