"""The torture site: pages on which a browser agent's hands slip, and what must have become of each.

A page keeps its state in its title, so that a case is checked by what the page itself has got, not by what we sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.small_site import Reply, SmallSite
from policy.browser import Browser, BrowserSettings, Tab
from policy.trajectory import Action, ActionKind, ActionSpace, Effect, Observation

CLICK, TYPE, SELECT, SCROLL = ActionKind.CLICK, ActionKind.TYPE, ActionKind.SELECT, ActionKind.SCROLL
APPEND, HOVER, DRAG, UPLOAD = ActionKind.APPEND, ActionKind.HOVER, ActionKind.DRAG, ActionKind.UPLOAD
PRESS, BACK, HOME = ActionKind.PRESS, ActionKind.GO_BACK, ActionKind.HOME
FILE_TEXT = "kettle, 2"
MAX_DOWNLOAD_MB = 0.1

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    b"trailer<</Root 1 0 R>>"
)
ATTACHED = {"Content-Disposition": "attachment; filename=list.csv", "Content-Type": "text/csv"}
AUTH = {"WWW-Authenticate": 'Basic realm="Staff"'}


@dataclass(frozen=True, slots=True)
class Deed:
    """One action of a case."""

    kind: ActionKind
    name: str = ""
    """Accessible name of the element; empty for the page as a whole."""
    text: str = ""
    to: str = ""
    """Name of the element to drag to."""
    stale: bool = False
    """Whether it is meant for what was seen before the deed before."""


@dataclass(frozen=True, slots=True)
class Case:
    """A page, what is done there, and what must come of it."""

    name: str
    html: str
    deeds: tuple[Deed, ...]
    title: str
    """The page's own account at the end."""
    notice: str = ""
    """What the agent is told in the end, or a part of it; empty: nothing at all."""
    effect: Effect = Effect.DONE
    """How the last action went."""
    pages: Mapping[str, Reply] = field(default_factory=dict)
    """Other pages of the site, by path."""
    marks_only: bool = False
    """Whether it makes no sense at points of the picture."""


# What happens between the look at a page and the action on it: pointing at Trigger makes the change.
TRIGGER = "<button onmouseenter='change()'>Trigger</button>"
HIT = "<button id=b onclick='document.title = `hit`'>Old</button>"
POINT_AND_CLICK = (Deed(HOVER, "Trigger"), Deed(CLICK, "Old", stale=True))


def changing(change: str, html: str = HIT) -> str:
    """A page on which something happens to what was marked."""
    return f"{TRIGGER}<p>{html}</p><script>const change = () => {{ {change} }}</script>"


def echo(html: str) -> str:
    """A page whose title is the value of its field F at all times."""
    return f"""<div>{html}</div><script>
    const f = document.querySelector("[aria-label=F]");
    const show = () => document.title = f.isContentEditable ? f.innerText : f.value;
    for (const type of ["input", "change"]) f.addEventListener(type, show);</script>"""


AIM = [
    Case(
        "a click is trusted",
        "<button onclick='document.title = `${event.isTrusted} ${navigator.userActivation.isActive}`'>B</button>",
        (Deed(CLICK, "B"),),
        "true true",
    ),
    Case(
        "in a frame",
        "<iframe srcdoc=\"<button onclick='parent.document.title = `hit`'>B</button>\" style='margin:40px'></iframe>",
        (Deed(CLICK, "B"),),
        "hit",
    ),
    Case(
        "in a frame in a frame",
        "<iframe src=/a style='margin:20px;border:7px solid'></iframe>",
        (Deed(CLICK, "B"),),
        "hit",
        pages={
            "/a": Reply("<p>Outer</p><iframe src=/b style='padding:9px'></iframe>"),
            "/b": Reply("<button onclick='top.document.title = `hit`'>B</button>"),
        },
    ),
    Case(
        "in a shadow root",
        """<div id=h></div><script>const root = h.attachShadow({mode: "open"});
        root.innerHTML = "<button>B</button>";
        root.firstChild.onclick = () => document.title = "hit"</script>""",
        (Deed(CLICK, "B"),),
        "hit",
    ),
    Case(
        "a link broken over two lines",
        "<div style='width:200px'>Some words before <a href=# onclick='document.title = `hit`'>a long link of "
        "words</a></div>",
        (Deed(CLICK, "a long link of words"),),
        "hit",
    ),
    Case(
        "turned and scaled",
        "<button style='transform:rotate(60deg) scale(1.5);margin:90px' onclick='document.title = `hit`'>"
        "Turned</button>",
        (Deed(CLICK, "Turned"),),
        "hit",
    ),
    Case(
        "half under a header",
        "<div style='position:fixed;top:0;left:0;right:0;height:30px;background:#ddd' "
        "onclick='document.title = `header`'></div>"
        "<button style='position:absolute;top:10px;height:60px' onclick='document.title = `hit`'>B</button>",
        (Deed(CLICK, "B"),),
        "hit",
    ),
    Case(
        "under a cover that lets clicks through",
        "<button onclick='document.title = `hit`'>B</button>"
        "<div style='position:fixed;inset:0;pointer-events:none'></div>",
        (Deed(CLICK, "B"),),
        "hit",
    ),
    Case("moved since", changing("b.style.marginTop = '300px'"), POINT_AND_CLICK, "hit"),
    Case("scrolled away since", changing("b.style.marginTop = '3000px'"), POINT_AND_CLICK, "hit"),
    Case(
        "gone since",
        changing("b.remove()"),
        POINT_AND_CLICK,
        "",
        notice="Element [2] is no longer there.",
        effect=Effect.GONE,
    ),
    Case(
        "replaced by a look-alike since",
        changing("b.replaceWith(b.cloneNode(true))"),
        POINT_AND_CLICK,
        "",
        notice="Element [2] is no longer there.",
        effect=Effect.GONE,
    ),
    Case(
        "hidden since",
        changing("b.hidden = true"),
        POINT_AND_CLICK,
        "",
        notice="Element [2] is no longer visible.",
        effect=Effect.HIDDEN,
    ),
    Case(
        "disabled since",
        changing("b.disabled = true"),
        POINT_AND_CLICK,
        "",
        notice="Element [2] is disabled.",
        effect=Effect.DISABLED,
    ),
    Case(
        "covered since",
        changing("document.body.insertAdjacentHTML('beforeend', '<div style=\"position:fixed;inset:0\">Wall</div>')"),
        POINT_AND_CLICK,
        "",
        notice='Element [2] is covered by "Wall".',
        effect=Effect.COVERED,
    ),
    Case(
        "a list covered since takes no choice",
        changing(
            "document.body.insertAdjacentHTML('beforeend', '<div style=\"position:fixed;inset:0\">Wall</div>')",
            "<select aria-label=Old onchange='document.title = `hit`'><option>A<option>B</select>",
        ),
        (Deed(HOVER, "Trigger"), Deed(SELECT, "Old", "B", stale=True)),
        "",
        notice='Element [2] is covered by "Wall".',
        effect=Effect.COVERED,
    ),
    Case(
        "runs away from the mouse, and something else comes under it",
        """<button id=b style='position:absolute;left:20px;top:20px' onclick='document.title = "caught"'>Keep</button>
        <button id=c style='position:absolute;left:20px;top:300px' onclick='document.title = "wrong"'>Delete</button>
        <script>b.onmouseenter = () => [b.style.top, c.style.top] = [c.style.top, b.style.top]</script>""",
        (Deed(CLICK, "Keep"),),
        "",
        notice="Element [1] moved away before it could be reached.",
        effect=Effect.MOVED,
    ),
    Case(
        "steps aside once",
        """<button id=b style='position:absolute;left:20px;top:20px' onclick='document.title = "hit"'>Keep</button>
        <button id=c style='position:absolute;left:20px;top:300px' onclick='document.title = "wrong"'>Delete</button>
        <script>b.addEventListener("mouseenter", () => { b.style.top = "300px"; c.style.top = "20px" }, {once: true})
        </script>""",
        (Deed(CLICK, "Keep"),),
        "hit",
        marks_only=True,
    ),
    Case(
        "two of one name",
        "<button onclick='document.title += 1'>One</button><button onclick='document.title += 2'>Two</button>",
        (Deed(CLICK, "Two"), Deed(CLICK, "One")),
        "21",
    ),
]

TYPING = [
    Case("replaces", echo("<input aria-label=F value=old>"), (Deed(TYPE, "F", "new words"),), "new words"),
    Case("replaces with one letter", echo("<input aria-label=F value=old>"), (Deed(TYPE, "F", "x"),), "x"),
    Case("empties", echo("<input aria-label=F value=old>"), (Deed(TYPE, "F"),), ""),
    Case("appends", echo("<input aria-label=F value='old '>"), (Deed(APPEND, "F", "new"),), "old new"),
    Case(
        "appends where there is no selection",
        echo("<input type=email aria-label=F value=ann@>"),
        (Deed(APPEND, "F", "site.example"),),
        "ann@site.example",
    ),
    Case(
        "appends to a text area of lines",
        echo("<textarea aria-label=F>one\ntwo\n</textarea>"),
        (Deed(APPEND, "F", "three"),),
        "one two three",
    ),
    Case(
        "replaces rich text",
        echo("<div contenteditable=true aria-label=F>old <b>text</b></div>"),
        (Deed(TYPE, "F", "new"),),
        "new",
    ),
    Case(
        "appends to rich text",
        echo("<div contenteditable=true aria-label=F>old <b>text</b></div>"),
        (Deed(APPEND, "F", ", new"),),
        "old text, new",
    ),
    Case(
        "letters beyond ASCII",
        echo("<input aria-label=F>"),
        (Deed(TYPE, "F", "Zürich 東京 🫖"),),
        "Zürich 東京 🫖",
    ),
    Case("lines", echo("<textarea aria-label=F></textarea>"), (Deed(TYPE, "F", "one\ntwo"),), "one two"),
    Case("fractions", echo("<input type=number step=any aria-label=F>"), (Deed(TYPE, "F", "-12.5"),), "-12.5"),
    Case("no more than fits", echo("<input aria-label=F maxlength=3>"), (Deed(TYPE, "F", "abcdef"),), "abc"),
    Case(
        "scripts hear a key with the whole text",
        "<div><input aria-label=F onkeyup='document.title = `${event.isTrusted} ${value}`'></div>",
        (Deed(TYPE, "F", "kettle"),),
        "true kettle",
    ),
    Case(
        "a field that a script holds at what it was told",
        """<input aria-label=F value=old><script>
        const f = document.querySelector("input"); let state = "old";
        f.addEventListener("input", () => { state = f.value; document.title = state; });
        setInterval(() => { if (f.value !== state) f.value = state; }, 10)</script>""",
        (Deed(TYPE, "F", "new"),),
        "new",
    ),
    Case(
        "a field that formats what it gets",
        echo("<input aria-label=F oninput='value = value.replace(/\\D/g, ``).replace(/^(..)(.+)/, `$1-$2`)'>"),
        (Deed(TYPE, "F", "12345"),),
        "12-345",
    ),
    Case(
        "a field that hands its focus on",
        """<input aria-label=F onfocus='g.focus()'><input id=g aria-label=G oninput='document.title = value'>""",
        (Deed(TYPE, "F", "secret"),),
        "",
        notice="Element [1] moved away before it could be reached.",
        effect=Effect.MOVED,
    ),
    Case(
        "in a frame",
        "<iframe srcdoc=\"<div><input aria-label=F oninput='parent.document.title = value'></div>\"></iframe>",
        (Deed(TYPE, "F", "inside"),),
        "inside",
    ),
    Case(
        "read-only",
        "<input aria-label=F readonly value=old>",
        (Deed(TYPE, "F", "new"),),
        "",
        notice="can't be changed",
        effect=Effect.DISABLED,
    ),
    Case(
        "not a field",
        "<button>F</button>",
        (Deed(TYPE, "F", "new"),),
        "",
        notice="is not a text field",
        effect=Effect.UNFIT,
    ),
]

FORMS = [
    Case(
        "a list by label",
        echo("<select aria-label=F><option value=1>Newest<option value=2>Most  votes</select>"),
        (Deed(SELECT, "F", "most votes"),),
        "2",
    ),
    Case(
        "a list in groups",
        echo(
            "<select aria-label=F><optgroup label=A><option>One</optgroup>"
            "<optgroup label=B><option>Two</optgroup></select>"
        ),
        (Deed(SELECT, "F", "Two"),),
        "Two",
    ),
    Case(
        "a list of many",
        """<select aria-label=F multiple onchange='document.title = [...selectedOptions].map(o => o.value)'>
        <option>One<option>Two<option>Three</select>""",
        (Deed(SELECT, "F", "One"), Deed(SELECT, "F", "Three")),
        "One,Three",
    ),
    Case(
        "a choice that isn't there",
        echo("<select aria-label=F><option>One<option>Two</select>"),
        (Deed(SELECT, "F", "Three"),),
        "",
        notice='has no option "Three"; it has: One, Two',
        effect=Effect.UNFIT,
    ),
    Case(
        "a list is not clicked",
        echo("<select aria-label=F><option>One</select>"),
        (Deed(CLICK, "F"),),
        "",
        notice="use Select",
        effect=Effect.UNFIT,
    ),
    Case(
        "a check box",
        "<label><input type=checkbox onchange='document.title = checked'> F</label>",
        (Deed(CLICK, "F"),),
        "true",
    ),
    Case(
        "a check box behind its picture",
        "<input type=checkbox id=c style='opacity:0;position:absolute' onchange='document.title = checked'>"
        "<label for=c><span style='display:inline-block;width:40px;height:20px;background:teal'></span>F</label>",
        (Deed(CLICK, "F"),),
        "true",
    ),
    Case(
        "one of several",
        "<label><input type=radio name=r value=1> A</label><label><input type=radio name=r value=2 "
        "onchange='document.title = value'> B</label>",
        (Deed(CLICK, "A"), Deed(CLICK, "B")),
        "2",
    ),
    Case(
        "a switch",
        "<div role=switch aria-checked=false aria-label=F tabindex=0 style='width:40px;height:20px' "
        "onclick='ariaChecked = `true`; document.title = `on`'></div>",
        (Deed(CLICK, "F"),),
        "on",
    ),
    Case("a date", echo("<input type=date aria-label=F>"), (Deed(TYPE, "F", "2026-11-23"),), "2026-11-23"),
    Case("a time", echo("<input type=time aria-label=F>"), (Deed(TYPE, "F", "09:30"),), "09:30"),
    Case(
        "a date and time",
        echo("<input type=datetime-local aria-label=F>"),
        (Deed(TYPE, "F", "2026-11-23T09:30"),),
        "2026-11-23T09:30",
    ),
    Case("a range by its number", echo("<input type=range aria-label=F max=10>"), (Deed(TYPE, "F", "7"),), "7"),
    Case("a colour", echo("<input type=color aria-label=F>"), (Deed(TYPE, "F", "#ff8800"),), "#ff8800"),
    Case(
        "what is no date",
        echo("<input type=date aria-label=F value=2020-01-01>"),
        (Deed(TYPE, "F", "soon"),),
        "",
        notice="write YYYY-MM-DD",
        effect=Effect.UNFIT,
    ),
    Case(
        "a file",
        "<input type=file aria-label=F onchange='files[0].text().then(t => document.title = files[0].name + ` ` + t)'>",
        (Deed(UPLOAD, "F", "list.txt"),),
        f"list.txt {FILE_TEXT}",
    ),
    Case(
        "a file by a button",
        "<input type=file id=i hidden onchange='document.title = files[0].name'>"
        "<button onclick='i.click()'>Choose</button>",
        (Deed(UPLOAD, "Choose", "list.txt"),),
        "list.txt",
    ),
    Case(
        "no file of ours",
        "<input type=file aria-label=F onchange='document.title = files[0].name'>",
        (Deed(UPLOAD, "F", "../../etc/passwd"),),
        "",
        notice="There is no file ../../etc/passwd; there are: list.txt.",
        effect=Effect.UNFIT,
    ),
    Case(
        "a file where none is asked for",
        "<button>F</button>",
        (Deed(UPLOAD, "F", "list.txt"),),
        "",
        notice="Nothing there asks for a file.",
        effect=Effect.UNFIT,
    ),
    Case(
        "a file chooser that was opened by a click",
        "<input type=file aria-label=F>",
        (Deed(CLICK, "F"),),
        "",
        notice="The page asked for a file; it was given none.",
    ),
]

MENU = """<style>ul {display:none; margin:0} nav:hover ul {display:block}</style>
<nav><a href=#>Menu</a><ul><li><a href=# onclick='document.title = "hit"'>Entry</a></ul></nav>"""
KNOB = """<div role=slider aria-label=Knob tabindex=0
style='position:absolute;left:50px;top:50px;width:30px;height:30px;background:teal'></div>
<button style='position:absolute;left:300px;top:50px;height:30px'>There</button>"""
DROP = """z.ondragover = event => event.preventDefault();
z.ondrop = event => { event.preventDefault(); document.title = event.dataTransfer.getData("text") }"""
HANDS = [
    Case("a menu under the mouse", MENU, (Deed(HOVER, "Menu"), Deed(CLICK, "Entry")), "hit"),
    Case(
        "pointing presses nothing",
        "<button onclick='document.title += `pressed`' onmouseover='document.title += `over`'>F</button>",
        (Deed(HOVER, "F"),),
        "over",
    ),
    Case(
        "drag and drop",
        "<div role=button tabindex=0 draggable=true ondragstart='event.dataTransfer.setData(`text`, `A came`)' "
        f"style='width:80px;height:40px'>A</div><div role=button tabindex=0 id=z style='height:80px'>Bin</div>"
        f"<script>{DROP}</script>",
        (Deed(DRAG, "A", to="Bin"),),
        "A came",
    ),
    Case(
        "a knob that follows the mouse",
        KNOB
        + """<script>const k = document.querySelector("[role=slider]"); let held = false;
        k.onpointerdown = event => { held = true; k.setPointerCapture(event.pointerId) };
        k.onpointermove = event => { if (held) k.style.left = event.clientX - 15 + "px" };
        k.onpointerup = () => { held = false; document.title = parseInt(k.style.left) > 280 ? "there" : k.style.left }
        </script>""",
        (Deed(DRAG, "Knob", to="There"),),
        "there",
    ),
    Case(
        "a range by its thumb",
        "<input type=range aria-label=F max=100 value=50 style='position:absolute;left:20px;top:20px;width:300px' "
        "oninput='document.title = value > 90'><button style='position:absolute;left:310px;top:60px'>End</button>",
        (Deed(DRAG, "F", to="End"),),
        "true",
    ),
    Case(
        "Escape closes",
        "<button onclick='d.showModal()'>Open</button><dialog id=d onclose='document.title = `closed`'>Hi</dialog>",
        (Deed(CLICK, "Open"), Deed(PRESS, text="Escape")),
        "closed",
    ),
    Case(
        "arrow and Enter",
        "<input aria-label=F onkeydown='document.title += event.key + `;`'>",
        (Deed(CLICK, "F"), Deed(PRESS, text="ArrowDown"), Deed(PRESS, text="Enter")),
        "ArrowDown;Enter;",
    ),
    Case(
        "keys together",
        "<div><input aria-label=F value=old oninput='document.title = `[${value}]`'></div>",
        (Deed(CLICK, "F"), Deed(PRESS, text="Control+A"), Deed(PRESS, text="Backspace")),
        "[]",
    ),
    Case(
        "Tab moves on",
        "<input aria-label=F><input aria-label=G onfocus='document.title = `G`'>",
        (Deed(CLICK, "F"), Deed(PRESS, text="Tab")),
        "G",
    ),
    Case(
        "a key that isn't there",
        "<input aria-label=F>",
        (Deed(PRESS, text="Hyperdrive"),),
        "",
        notice="there is no key Hyperdrive",
        effect=Effect.UNFIT,
    ),
    Case(
        "a pane by what is in it",
        "<div style='height:200px;overflow:auto' onscroll='document.title = scrollTop > 50'><button>In</button>"
        "<p style='height:2000px'></p></div>",
        (Deed(SCROLL, "In", "down"),),
        "true",
    ),
    Case(
        "a pane of nothing but text",
        "<div aria-label=Terms style='height:150px;overflow:auto' onscroll='document.title = scrollTop > 50'>"
        + "<p>Terms and more terms.</p>" * 40
        + "</div>",
        (Deed(SCROLL, "Terms", "down"),),
        "true",
        marks_only=True,
    ),
    Case(
        "a row that scrolls sideways",
        "<div style='width:300px;overflow:auto;white-space:nowrap' onscroll='document.title = scrollLeft > 50'>"
        "<button>First</button><span style='display:inline-block;width:3000px'></span></div>",
        (Deed(SCROLL, "First", "right"),),
        "true",
    ),
    Case(
        "a list that grows",
        """<div id=l style='height:1500px'>List</div><script>onscroll = () => {
        if (innerHeight + scrollY > document.body.scrollHeight - 50)
          setTimeout(() => { l.style.height = "3000px"; document.title = "more" }, 30) }</script>""",
        (Deed(SCROLL, text="down"), Deed(SCROLL, text="down")),
        "more",
    ),
    Case(
        "the end of a page",
        "<p>Short</p>",
        (Deed(SCROLL, text="down"),),
        "",
        notice="It can't be scrolled further down.",
        effect=Effect.NOTHING,
    ),
]

NEW_TAB = "A new tab was opened; this is the new tab."
CLOSED = "The tab was closed; this is the tab before it."
WINDOWS = [
    Case(
        "a link in a new tab",
        "<a href=/n target=_blank>On</a>",
        (Deed(CLICK, "On"),),
        "New",
        notice=NEW_TAB,
        pages={"/n": Reply("<title>New</title>")},
    ),
    Case(
        "a pop-up window",
        "<button onclick='window.open(`/n`, `w`, `width=300,height=200`)'>On</button>",
        (Deed(CLICK, "On"),),
        "1024x768",
        notice=NEW_TAB,
        pages={"/n": Reply("<script>(onresize = () => document.title = `${innerWidth}x${innerHeight}`)()</script>")},
    ),
    Case(
        "a pop-up that closes itself",
        "<title>Old</title><button onclick='window.open(`/n`)'>On</button>",
        (Deed(CLICK, "On"), Deed(CLICK, "Done")),
        "Old",
        notice=CLOSED,
        pages={"/n": Reply("<button onclick='opener.document.title = `Old`; window.close()'>Done</button>")},
    ),
    Case(
        "back from a new tab",
        "<title>Old</title><a href=/n target=_blank>On</a>",
        (Deed(CLICK, "On"), Deed(BACK)),
        "Old",
        notice=CLOSED,
        pages={"/n": Reply("<title>New</title>")},
    ),
    Case(
        "a message",
        "<button onclick='alert(`Saved`); document.title = `after`'>F</button>",
        (Deed(CLICK, "F"),),
        "after",
        notice='The page said: "Saved" (alert, accepted).',
    ),
    Case(
        "a question",
        "<button onclick='document.title = confirm(`Sure?`)'>F</button>",
        (Deed(CLICK, "F"),),
        "true",
        notice='The page said: "Sure?" (confirm, accepted).',
    ),
    Case(
        "a question for a word",
        "<button onclick='document.title = prompt(`Name?`)'>F</button>",
        (Deed(CLICK, "F"),),
        "null",
        notice='The page said: "Name?" (prompt, dismissed).',
    ),
    Case(
        "may you leave",
        "<input aria-label=F><a href=/n>On</a><script>onbeforeunload = event => event.preventDefault()</script>",
        (Deed(TYPE, "F", "draft"), Deed(CLICK, "On")),
        "New",
        notice='The page said: "Leave this page?" (beforeunload, accepted).',
        pages={"/n": Reply("<title>New</title>")},
    ),
    Case(
        "a page without reload, and back",
        """<button onclick='history.pushState(0, "", "/two"); document.title = "two"'>On</button>
        <script>document.title = "one"; onpopstate = () => document.title = "one again"</script>""",
        (Deed(CLICK, "On"), Deed(BACK)),
        "one again",
    ),
    Case(
        "a page that sends on",
        "<a href=/r>On</a>",
        (Deed(CLICK, "On"),),
        "New",
        pages={
            "/r": Reply("", 302, {"Location": "/m"}),
            "/m": Reply("<meta http-equiv=refresh content='0;url=/n'>"),
            "/n": Reply("<title>New</title>"),
        },
    ),
    Case(
        "home again",
        "<title>Start</title><a href=/n>On</a>",
        (Deed(CLICK, "On"), Deed(HOME)),
        "Start",
        pages={"/n": Reply("<title>New</title>")},
    ),
    Case("printing", "<button onclick='print(); document.title = `after`'>F</button>", (Deed(CLICK, "F"),), "after"),
    Case(
        "a user name and password asked for",
        "<a href=/s>On</a>",
        (Deed(CLICK, "On"),),
        "Staff only",
        notice="This page asks for a user name and a password; it was given none.",
        pages={"/s": Reply("<title>Staff only</title>", 401, AUTH)},
    ),
    Case(
        "a password asked for by a picture",
        "<button onclick='f.src = `/s`; f.onerror = () => document.title = `refused`'>F</button><img id=f>",
        (Deed(CLICK, "F"),),
        "refused",
        pages={"/s": Reply("", 401, AUTH)},
    ),
]

FILES = [
    Case(
        "a download",
        "<title>Here</title><a href=/f>Get</a>",
        (Deed(CLICK, "Get"),),
        "Here",
        notice="Downloaded list.csv (5 bytes).",
        pages={"/f": Reply("a,b,c", headers=ATTACHED)},
    ),
    Case(
        "what was downloaded is uploaded",
        "<a href=/f>Get</a><input type=file aria-label=F onchange='files[0].text().then(t => document.title = t)'>",
        (Deed(CLICK, "Get"), Deed(UPLOAD, "F", "list.csv")),
        "a,b,c",
        pages={"/f": Reply("a,b,c", headers=ATTACHED)},
    ),
    Case(
        "two of one name",
        "<a href=/f>Get</a>",
        (Deed(CLICK, "Get"), Deed(CLICK, "Get")),
        "",
        notice="Downloaded list-2.csv (5 bytes).",
        pages={"/f": Reply("a,b,c", headers=ATTACHED)},
    ),
    Case(
        "a download that the page has made",
        "<a download=made.txt>Get</a><script>document.querySelector('a').href = URL.createObjectURL(new Blob(['made']))"
        "</script>",
        (Deed(CLICK, "Get"),),
        "",
        notice="Downloaded made.txt (4 bytes).",
    ),
    Case(
        "a name that would lead elsewhere",
        "<a href='data:text/plain,x' download='../../x/y.txt'>Get</a>",
        (Deed(CLICK, "Get"),),
        "",
        notice="(1 bytes).",
    ),
    Case(
        "too large a download",
        "<a href=/f>Get</a>",
        (Deed(CLICK, "Get"),),
        "",
        notice="The download of list.csv was refused: it has 0.2 MB.",
        pages={"/f": Reply("x" * 200_000, headers=ATTACHED)},
    ),
    Case(
        "a PDF",
        "<title>Here</title><a href=/p.pdf>Get</a>",
        (Deed(CLICK, "Get"),),
        "Here",
        notice=f"Downloaded p.pdf ({len(PDF)} bytes).",
        pages={"/p.pdf": Reply(PDF, headers={"Content-Type": "application/pdf"})},
    ),
]

CASES: Mapping[str, list[Case]] = {
    "aim": AIM,
    "typing": TYPING,
    "forms": FORMS,
    "hands": HANDS,
    "windows": WINDOWS,
    "files": FILES,
}


def settings(space: ActionSpace, file: str) -> BrowserSettings:
    """How the browser is set up for the cases; `file`: path of one to upload, which holds `FILE_TEXT`."""
    return BrowserSettings(
        actions=space, files=(file,), max_download_mb=MAX_DOWNLOAD_MB, settle_deadline_s=2.0, action_deadline_s=20.0
    )


async def play(case: Case, browser: Browser) -> str:
    """What is wrong with a case's end; empty if nothing is. Raises BrowserError where it has none."""
    with SmallSite() as site:
        site.replies.update(case.pages)
        async with browser.episode(site.serve(case.html)) as tab:
            seen = before = await tab.observe()
            for deed in case.deeds:
                before = before if deed.stale else seen
                notice = await tab.act(_action(deed, before, tab), before)
                if not _comes_stale(case, deed):
                    seen = await tab.observe(notice)
            return _wrong(case, tab, seen)


def _comes_stale(case: Case, deed: Deed) -> bool:
    """Whether the next deed is meant for what was seen before this one."""
    index = case.deeds.index(deed)
    return index + 1 < len(case.deeds) and case.deeds[index + 1].stale


def _action(deed: Deed, seen: Observation, tab: Tab) -> Action:
    aim, goal = _mark(deed.name, seen), _mark(deed.to, seen)
    if tab.actions is not ActionSpace.POINTS:
        return Action(kind=deed.kind, mark=aim, text=deed.text, to_mark=goal)
    return Action(kind=deed.kind, text=deed.text, point=_centre(aim, seen), to_point=_centre(goal, seen))


def _mark(name: str, seen: Observation) -> int | None:
    if not name:
        return None
    marks = [element.mark for element in seen.elements if element.name == name]
    return marks[0] if marks else len(seen.elements) + 1  # what isn't marked can't be acted on, and that is told


def _centre(mark: int | None, seen: Observation) -> tuple[int, int] | None:
    if mark is None:
        return None
    left, top, width, height = seen.elements[mark - 1].box if mark <= len(seen.elements) else (-2, -2, 0, 0)
    return left + width // 2, top + height // 2


def _wrong(case: Case, tab: Tab, seen: Observation) -> str:
    told = case.notice in seen.notice if case.notice else not seen.notice
    wrong = [
        f"title {seen.title!r}, wanted {case.title!r}" if seen.title != case.title else "",
        "" if told else f"notice {seen.notice!r}, wanted {case.notice!r}",
        f"effect {tab.effect}, wanted {case.effect}" if tab.effect is not case.effect else "",
    ]
    return "; ".join(filter(None, wrong))
