"""What the agent sees: which elements are marked, how they are named, and the listing."""

import io

import pytest
from PIL import Image, ImageChops

from bench.small_site import SmallSite
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.marks import scaled
from policy.trajectory import Action, ActionKind, Observation

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def observe(browser: Browser, site: SmallSite, body: str) -> Observation:
    async with browser.episode(site.serve(f"<title>Test</title><body>{body}")) as tab:
        return await tab.observe()


def names(observation: Observation) -> list[str]:
    return [element.name for element in observation.elements]


# (HTML, tag, accessible name, value) of elements that are marked
ELEMENTS = [
    ("<a href=/x>Amber  Kettle</a>", "a", "Amber Kettle", ""),
    ("<button aria-label='Close menu'>X</button>", "button", "Close menu", ""),
    ("<b id=l>Colour</b><button aria-labelledby=l>X</button>", "button", "Colour", ""),
    ("<label for=f>Your name</label><input id=f value=Ann>", "input", "Your name", "Ann"),
    ("<label>Age <input type=number value=4></label>", "input:number", "Age", "4"),
    ("<input type=search placeholder='Find it'>", "input:search", "Find it", ""),
    ("<label><input type=checkbox checked> In stock</label>", "input:checkbox", "In stock", "checked"),
    ("<a href=/x><img alt=Basket width=20 height=20></a>", "a", "Basket", ""),
    ("<button title=Save><svg width=9 height=9></svg></button>", "button", "Save", ""),
    ("<input type=submit value='Place order'>", "button", "Place order", ""),
    ("<input type=password aria-label=Secret value=abc>", "input:password", "Secret", "•••"),
    ("<textarea aria-label=Note>some text</textarea>", "textarea", "Note", "some text"),
    ("<div role=tab aria-selected=true>Reviews</div>", "tab", "Reviews", "selected"),
    ("<div onclick='1'>Open</div>", "button", "Open", ""),
    ("<div style='cursor:pointer'><i>Go</i></div>", "button", "Go", ""),
    ("<details><summary>More</summary>hidden text</details>", "button", "More", ""),
    ("<div contenteditable=true aria-label=Post>Hello</div>", "textarea", "Post", "Hello"),
]

UNREACHABLE = [
    "<button style='display:none'>No</button>",
    "<button style='visibility:hidden'>No</button>",
    "<button style='opacity:0'>No</button>",
    "<button disabled>No</button>",
    "<button aria-disabled=true>No</button>",
    "<button style='position:absolute;left:-500px'>No</button>",
    "<button style='position:absolute;top:2000px'>No</button>",
    "<div inert><button>No</button></div>",
    "<button style='width:0;height:0;padding:0;border:0;overflow:hidden'></button>",
    "<input type=hidden name=token value=No>",
    "<div style='height:50px;overflow:auto'><p style='height:90px'></p><button>No</button></div>",
]

COVERED = [
    "<button>No</button><div style='position:fixed;inset:0;background:white'></div>",
    "<button>No</button><dialog id=d></dialog><script>d.showModal()</script>",
]


async def test_an_element_has_its_tag_accessible_name_and_value(browser: Browser, site: SmallSite) -> None:
    observation = await observe(browser, site, "".join(f"<div>{html}</div>" for html, *_ in ELEMENTS))
    found = [(element.tag, element.name, element.value) for element in observation.elements]
    assert found == [(tag, name, value) for _, tag, name, value in ELEMENTS]
    assert [element.mark for element in observation.elements] == list(range(1, len(ELEMENTS) + 1))


@pytest.mark.parametrize("html", ["".join(f"<div>{html}</div>" for html in UNREACHABLE), *COVERED])
async def test_what_cannot_be_reached_by_a_click_is_not_marked(browser: Browser, site: SmallSite, html: str) -> None:
    assert (await observe(browser, site, html)).elements == ()


async def test_a_hidden_check_box_is_reached_through_its_label(browser: Browser, site: SmallSite) -> None:
    html = "<input type=checkbox id=c style='opacity:0;position:absolute'><label for=c>Gift wrap</label>"
    async with browser.episode(site.serve(html)) as tab:
        (element,) = (await tab.observe()).elements
    assert (element.tag, element.name) == ("input:checkbox", "Gift wrap")
    assert element.box[2] > 40


async def test_boxes_lie_where_the_elements_are(browser: Browser, site: SmallSite) -> None:
    html = "<button style='position:absolute;left:100px;top:200px;width:80px;height:30px'>Here</button>"
    (element,) = (await observe(browser, site, html)).elements
    assert element.box == (100, 200, 80, 30)


async def test_shadow_roots_and_frames_of_the_same_origin_are_read(browser: Browser, site: SmallSite) -> None:
    html = """<div id=host></div><script>
    const root = host.attachShadow({mode: "open"});
    root.innerHTML = "<button>Shadow</button><slot></slot>";
    host.innerHTML = "<a href=/s>Slotted</a>";
    </script><iframe srcdoc="<button>Framed</button><p>Inner text</p>" style="padding:10px"></iframe>
    <button>Last</button>"""
    observation = await observe(browser, site, html)
    assert names(observation) == ["Shadow", "Slotted", "Framed", "Last"]
    assert "Inner text" in observation.listing


async def test_the_listing_follows_the_page_line_by_line(browser: Browser, site: SmallSite) -> None:
    html = """<h1>Kettles</h1><p>Two of <b>our</b>  best.</p>
    <ul><li><a href=/1>Amber</a><p>$12.50</p></li><li><a href=/2>Blue</a> <i>$8</i></li></ul>
    <table><tr><th>Weight<td>2 kg<tr><td><a href=/3>Red</a><td>$9<td><button>Remove</button></table>
    <div style='display:flex'><span>Stock:</span><span>7</span></div>
    <label for=s>Sort by</label> <select id=s><option>Newest<option>Most votes</select>"""
    observation = await observe(browser, site, html)
    assert observation.listing.split("\n") == [
        "Kettles",
        "Two of our best.",
        "<a> Amber [1]  $12.50",
        "<a> Blue [2]  $8",
        "Weight  2 kg",
        "<a> Red [3]  $9",
        "<button> Remove [4]",
        "Stock:  7",
        "<select> Sort by [5] = Newest (Newest, Most votes)",
    ]


async def test_text_that_cannot_be_seen_is_not_listed(browser: Browser, site: SmallSite) -> None:
    html = """<p>Seen</p><p style='display:none'>A</p><p style='visibility:hidden'>B</p><p style='opacity:0'>C</p>
    <p style='position:absolute;left:-900px'>D</p><script>"E"</script><p style='margin-top:900px'>F</p>"""
    assert (await observe(browser, site, html)).listing == "Seen\n... (page continues below)"


async def test_a_long_page_is_cut_and_says_so(browser: Browser, site: SmallSite) -> None:
    html = "<p>" + "many words " * 400 + "</p><button>After</button>"
    listing = (await observe(browser, site, f"<div style='font-size:5px'>{html}</div>")).listing
    assert len(listing) < 400
    assert listing.split("\n")[1] == "<button> After [1]"


async def test_without_page_text_only_elements_are_listed(blobs: BlobStore, site: SmallSite) -> None:
    async with (
        Browser(BrowserSettings(page_text=False), blobs) as browser,
        browser.episode(site.serve("<h1>Title</h1><ul><li><a href=/>Home</a> $3</ul>")) as tab,
    ):
        assert (await tab.observe()).listing == "<a> Home [1]"


async def test_a_repeated_link_to_the_same_place_is_marked_once(browser: Browser, site: SmallSite) -> None:
    html = "<li><a href=/p><img alt=Amber width=30 height=30></a> <a href=/p>Amber</a></li>"
    assert names(await observe(browser, site, html)) == ["Amber"]


async def test_the_screenshot_shows_marks_and_the_page_does_not(
    browser: Browser, site: SmallSite, blobs: BlobStore
) -> None:
    async with browser.episode(site.serve("<body style='margin:60px'><button>Push</button>")) as tab:
        observation = await tab.observe()
        look = await tab.look()
    marked = Image.open(io.BytesIO(blobs.get(observation.screenshot)))
    plain = Image.open(io.BytesIO(look.screenshot))
    assert marked.size == plain.size == (1024, 768)
    difference = ImageChops.difference(marked.convert("L"), plain.convert("L"))
    left, top, right, bottom = difference.point([0] * 60 + [255] * 196).getbbox() or (0, 0, 0, 0)
    box = observation.elements[0].box
    assert abs(left - box[0]) <= 2 and abs(right - (box[0] + box[2])) <= 2 and abs(bottom - (box[1] + box[3])) <= 2
    assert top < box[1]


async def test_the_same_page_is_stored_once(browser: Browser, site: SmallSite) -> None:
    async with browser.episode(site.serve("<button>Push</button>")) as tab:
        assert (await tab.observe()).screenshot == (await tab.observe()).screenshot


async def test_the_page_sees_nothing_of_the_observer(browser: Browser, site: SmallSite) -> None:
    html = """<button>Push</button><p id=p></p><script>
    const before = document.documentElement.outerHTML;
    let changes = 0;
    new MutationObserver(() => changes++).observe(document.body, {subtree: true, attributes: true});
    setInterval(() => { document.title = `${typeof pae} ${changes}`; }, 20);
    </script>"""
    async with browser.episode(site.serve(html)) as tab:
        await tab.observe()
        assert (await tab.observe()).title == "undefined 0"


async def test_pictures_are_scaled_to_the_models_size(browser: Browser, site: SmallSite, blobs: BlobStore) -> None:
    observation = await observe(browser, site, "<h1>Big</h1>")
    picture = Image.open(io.BytesIO(scaled(blobs.get(observation.screenshot), 256)))
    assert (picture.format, picture.size) == ("JPEG", (256, 192))


async def test_half_a_character_is_seen_as_what_can_be_written_down(browser: Browser, site: SmallSite) -> None:
    body = "<a href=/x>x</a><script>document.title = document.links[0].textContent = 'Good \\ud83d'</script>"
    seen = await observe(browser, site, body)
    assert (seen.title, names(seen)) == ("Good \N{REPLACEMENT CHARACTER}", ["Good \N{REPLACEMENT CHARACTER}"])
    assert seen.model_validate_json(seen.model_dump_json()) == seen


async def test_a_link_that_is_no_address_can_be_pressed(browser: Browser, site: SmallSite) -> None:
    async with browser.episode(site.serve("<title>Home</title><a href='https://exa mple.com'>Go</a>")) as tab:
        await tab.act(Action(kind=ActionKind.CLICK, mark=1), await tab.observe())
        assert (await tab.observe()).title == "Home"
