"""What the agent's actions do, and what it is told when they can't be done."""

from typing import Any

import pytest
from playwright.async_api import Page

from bench.small_site import Reply, SmallSite
from policy.browser import Browser, Tab
from policy.trajectory import Action, ActionKind, Effect, Observation

pytestmark = pytest.mark.asyncio(loop_scope="session")


def mark_of(observation: Observation, name: str) -> int:
    (mark,) = [element.mark for element in observation.elements if element.name == name]
    return mark


async def do(tab: Tab, kind: ActionKind, name: str = "", text: str = "") -> Observation:
    """Act on the element of that name on a fresh observation; what is seen afterwards, notice included."""
    before = await tab.observe()
    mark = mark_of(before, name) if name else None
    return await tab.observe(await tab.act(Action(kind=kind, mark=mark, text=text), before))


async def test_a_click_is_a_real_one_on_the_marked_element(browser: Browser, site: SmallSite) -> None:
    html = """<button>A</button><button id=b>B</button><script>
    b.onclick = event => { document.title = `B ${event.isTrusted} ${navigator.userActivation.isActive}`; };</script>"""
    async with browser.episode(site.serve(html)) as tab:
        seen = await do(tab, ActionKind.CLICK, "B")
    assert (seen.title, seen.notice) == ("B true true", "")


async def test_a_link_leads_to_the_next_page_which_is_there_when_the_action_ends(
    browser: Browser, site: SmallSite
) -> None:
    site.serve("<title>Next</title>", "/next")
    async with browser.episode(site.serve("<a href=/next>Go</a>")) as tab:
        seen = await do(tab, ActionKind.CLICK, "Go")
    assert (seen.title, seen.url) == ("Next", site.url("/next"))


@pytest.mark.parametrize(
    ("form", "submitted"),
    [
        ("<form action=/s><input aria-label=F name=q></form>", True),
        ("<form action=/s><input aria-label=F name=q><input type=hidden name=h><button>Go</button></form>", True),
        ("<form action=/s><input aria-label=F name=q><input name=r></form>", False),
        ("<form action=/s><textarea aria-label=F name=q></textarea></form>", False),
        ("<input aria-label=F type=search onkeydown='if (event.key == `Enter`) location = `/s?q=${value}`'>", True),
        ("<input aria-label=F onkeydown='if (event.key == `Enter`) location = `/s`'>", False),
    ],
)
async def test_enter_follows_only_where_one_field_is_the_whole_form(
    browser: Browser, site: SmallSite, form: str, submitted: bool
) -> None:
    site.serve("<title>Found</title>", "/s")
    async with browser.episode(site.serve(form)) as tab:
        seen = await do(tab, ActionKind.TYPE, "F", "blue mug")
    assert (seen.title == "Found") == submitted
    if not submitted:
        assert seen.elements[0].value == "blue mug"


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("<input aria-label=F name=a value=old><input name=b>", "new", "new"),
        ("<input aria-label=F name=a value=old><input name=b>", "", ""),
        ("<textarea aria-label=F>old</textarea>", "two\nlines", "two lines"),
        ("<input type=date aria-label=F value=2020-01-01>", "2026-11-23", "2026-11-23"),
        ("<input type=number aria-label=F value=1>", "12", "12"),
        ("<div contenteditable=true aria-label=F>old <b>text</b></div>", "new", "new"),
    ],
)
async def test_typing_replaces_what_was_there(
    browser: Browser, site: SmallSite, field: str, text: str, value: str
) -> None:
    async with browser.episode(site.serve(f"<div>{field}</div>")) as tab:
        seen = await do(tab, ActionKind.TYPE, "F", text)
    assert (seen.elements[0].value, seen.notice) == (value, "")


async def test_scripts_hear_of_typing_and_selecting(browser: Browser, site: SmallSite) -> None:
    html = """<input aria-label=F name=a><select aria-label=S><option>One<option>Two</select><script>
    let heard = [];
    for (const type of ["input", "change"]) document.addEventListener(type, event => {
      heard.push(event.target.tagName + " " + type); document.title = heard.join(", "); });</script>"""
    async with browser.episode(site.serve(html)) as tab:
        await do(tab, ActionKind.TYPE, "F", "x")
        seen = await do(tab, ActionKind.SELECT, "S", "Two")
    assert seen.title == "INPUT input, SELECT input, SELECT change"


async def test_an_option_is_selected_by_its_label_whatever_the_case(browser: Browser, site: SmallSite) -> None:
    html = "<select aria-label=Sort><option value=1>Newest<option value=2>Most  votes</select>"
    async with browser.episode(site.serve(html)) as tab:
        seen = await do(tab, ActionKind.SELECT, "Sort", "most votes")
        assert seen.elements[0].value == "Most votes"
        seen = await do(tab, ActionKind.SELECT, "Sort", "Oldest")
    assert seen.notice == 'Element [1] has no option "Oldest"; it has: Newest, Most votes.'


@pytest.mark.parametrize(
    ("html", "kind", "notice"),
    [
        ("<a href=/>F</a>", ActionKind.TYPE, "Element [1] is not a text field."),
        ("<input aria-label=F readonly>", ActionKind.TYPE, "Element [1] can't be changed."),
        ("<input aria-label=F type=date>", ActionKind.TYPE, 'Element [1] doesn\'t take "soon": write YYYY-MM-DD.'),
        ("<button>F</button>", ActionKind.SELECT, "Element [1] is not a drop-down list."),
        ("<select aria-label=F><option>A</select>", ActionKind.CLICK, "Element [1] is a drop-down list: use Select."),
    ],
)
async def test_an_action_that_does_not_fit_its_element_is_explained(
    browser: Browser, site: SmallSite, html: str, kind: ActionKind, notice: str
) -> None:
    async with browser.episode(site.serve(html)) as tab:
        assert (await do(tab, kind, "F", "soon")).notice == notice


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("old.remove()", "is no longer there"),
        ("old.replaceWith(old.cloneNode(true))", "is no longer there"),
        ("old.hidden = true", "is no longer visible"),
        ("old.disabled = true", "is disabled"),
        ("document.body.append(cover)", 'is covered by "Wall"'),
    ],
)
async def test_an_element_that_has_gone_since_it_was_marked_is_not_clicked(
    browser: Browser, site: SmallSite, change: str, problem: str
) -> None:
    html = f"""<button id=old onclick='document.title = "hit"'>Old</button><script>
    const cover = document.createElement("div");
    cover.style = "position:fixed;inset:0;background:white"; cover.textContent = "Wall";
    const poll = async () => {{
      if (await (await fetch("/word")).text() !== "go") return setTimeout(poll, 150);
      {change};
    }};
    poll()</script>"""
    site.serve("stay", "/word")
    async with browser.episode(site.serve(html)) as tab:
        before = await tab.observe()
        site.serve("go", "/word")
        await tab.act(Action(kind=ActionKind.WAIT), before)
        notice = await tab.act(Action(kind=ActionKind.CLICK, mark=1), before)
        assert notice == f"Element [1] {problem}."
        assert (await tab.observe()).title != "hit"


async def test_an_element_that_has_moved_is_hit_where_it_is_now(browser: Browser, site: SmallSite) -> None:
    html = """<button id=one onclick='document.title += "1"'>One</button><p>
    <button id=two onclick='document.title += "2"'>Two</button><script>
    setTimeout(() => one.style.marginTop = "300px", 400)</script>"""
    async with browser.episode(site.serve(html)) as tab:
        before = await tab.observe()
        await tab.act(Action(kind=ActionKind.WAIT), before)
        await tab.act(Action(kind=ActionKind.CLICK, mark=1), before)
        assert (await tab.observe()).title == "1"


async def test_a_mark_that_was_never_there_is_named(browser: Browser, site: SmallSite) -> None:
    async with browser.episode(site.serve("<button>One</button>")) as tab:
        observation = await tab.observe()
        assert await tab.act(Action(kind=ActionKind.CLICK, mark=37), observation) == "There is no [37] on this page."


async def test_marks_of_an_earlier_page_are_not_taken_for_this_one(browser: Browser, site: SmallSite) -> None:
    site.serve("<button onclick='document.title = `hit`'>Delete</button>", "/next")
    async with browser.episode(site.serve("<a href=/next>Go</a>")) as tab:
        before = await tab.observe()
        await tab.act(Action(kind=ActionKind.CLICK, mark=1), before)
        await tab.observe()
        notice = await tab.act(Action(kind=ActionKind.CLICK, mark=1), before)
        assert notice == "Element [1] is no longer there."
        assert (await tab.observe()).title != "hit"


async def test_the_window_scrolls_and_says_when_it_is_at_the_end(browser: Browser, site: SmallSite) -> None:
    html = "<button>Top</button><div style='height:900px'></div><button>Bottom</button>"
    async with browser.episode(site.serve(html)) as tab:
        assert (await do(tab, ActionKind.SCROLL, text="up")).notice == "It can't be scrolled further up."
        seen = await do(tab, ActionKind.SCROLL, text="down")
        assert ([element.name for element in seen.elements], seen.notice) == (["Bottom"], "")
        assert (await do(tab, ActionKind.SCROLL, text="down")).notice == "It can't be scrolled further down."


async def test_a_pane_scrolls_by_an_element_in_it_or_where_it_is_the_whole_page(
    browser: Browser, site: SmallSite
) -> None:
    pane = "<div style='height:{}px;overflow:auto'><button>In</button><p style='height:2000px'></p></div>"
    async with browser.episode(site.serve(pane.format(200))) as tab:
        assert [e.name for e in (await do(tab, ActionKind.SCROLL, "In", "down")).elements] == []
    async with browser.episode(site.serve(pane.format(740))) as tab:
        assert [e.name for e in (await do(tab, ActionKind.SCROLL, text="down")).elements] == []


async def test_going_back_and_home(browser: Browser, site: SmallSite) -> None:
    site.serve("<title>Two</title><a href=/three>On</a>", "/two")
    site.serve("<title>Three</title>", "/three")
    async with browser.episode(site.serve("<title>One</title><a href=/two>On</a>")) as tab:
        assert (await do(tab, ActionKind.GO_BACK)).notice == "There is no page to go back to."
        await do(tab, ActionKind.CLICK, "On")
        await do(tab, ActionKind.CLICK, "On")
        assert (await do(tab, ActionKind.GO_BACK)).title == "Two"
        assert (await do(tab, ActionKind.HOME)).title == "One"


@pytest.mark.parametrize(
    ("script", "title", "notice"),
    [
        ("alert('Saved')", "undefined", 'The page said: "Saved" (alert, accepted).'),
        ("confirm('Sure?')", "true", 'The page said: "Sure?" (confirm, accepted).'),
        ("prompt('Name?')", "null", 'The page said: "Name?" (prompt, dismissed).'),
    ],
)
async def test_dialogs_are_answered_and_reported(
    browser: Browser, site: SmallSite, script: str, title: str, notice: str
) -> None:
    html = f'<button onclick="document.title = {script}">Ask</button>'
    async with browser.episode(site.serve(html)) as tab:
        seen = await do(tab, ActionKind.CLICK, "Ask")
    assert (seen.title, seen.notice) == (title, notice)


async def test_many_and_long_dialogs_do_not_swamp_the_agent(browser: Browser, site: SmallSite) -> None:
    html = "<button onclick='for (let i = 0; i < 30; i++) alert(`${i % 9} ` + `long `.repeat(99))'>Ask</button>"
    async with browser.episode(site.serve(html)) as tab:
        assert len((await do(tab, ActionKind.CLICK, "Ask")).notice) < 1100


@pytest.mark.parametrize(
    "opener", ["<a href=/new target=_blank>Open</a>", "<button onclick='window.open(`/new`)'>Open</button>"]
)
async def test_a_new_tab_becomes_the_current_page_and_back_closes_it(
    browser: Browser, site: SmallSite, opener: str
) -> None:
    site.serve("<title>New</title><button onclick='close()'>Done</button>", "/new")
    async with browser.episode(site.serve(f"<title>Old</title>{opener}")) as tab:
        seen = await do(tab, ActionKind.CLICK, "Open")
        assert (seen.title, seen.notice) == ("New", "A new tab was opened; this is the new tab.")
        seen = await do(tab, ActionKind.GO_BACK)
        assert (seen.title, seen.notice) == ("Old", "The tab was closed; this is the tab before it.")


@pytest.mark.parametrize("done_to", [{"mark": 1}, {"point": (60, 20)}], ids=["mark", "point"])
async def test_what_was_meant_for_a_pop_up_that_has_closed_itself_is_not_done_to_the_page_below(
    browser: Browser, site: SmallSite, done_to: dict[str, Any]
) -> None:
    async def close(page: Page) -> None:
        async with page.expect_event("close"):
            await page.evaluate("setTimeout(close)")

    site.serve("<title>New</title><button>Later</button>", "/new")
    async with browser.episode(
        site.serve("<title>Old</title><button onclick='window.open(`/new`)'>Open</button>")
    ) as tab:
        seen = await do(tab, ActionKind.CLICK, "Open")
        await tab.run_on_page(close)
        told = await tab.act(Action(kind=ActionKind.CLICK, **done_to), seen)
        assert told == "The page that you saw is no longer there. The tab was closed; this is the tab before it."
        assert tab.effect is Effect.GONE
        assert (await tab.observe()).title == "Old"


async def test_a_download_is_refused_and_reported(browser: Browser, site: SmallSite) -> None:
    site.replies["/f.zip"] = Reply(
        "PK", headers={"Content-Disposition": "attachment", "Content-Type": "application/zip"}
    )
    async with browser.episode(site.serve("<a href=/f.zip>Get</a>")) as tab:
        seen = await do(tab, ActionKind.CLICK, "Get")
    assert (seen.url, seen.notice) == (site.url(), "The download of f.zip was refused.")


async def test_a_link_that_leads_nowhere_is_left_again(browser: Browser, site: SmallSite) -> None:
    url = site.serve("<title>Old</title><a href='http://127.0.0.1:9/'>Dead</a>")
    async with browser.episode(url, ("127.0.0.1:9",)) as tab:
        seen = await do(tab, ActionKind.CLICK, "Dead")
    assert (seen.title, seen.notice) == ("Old", "http://127.0.0.1:9/ could not be opened.")
