"""Stand-ins that tests share: a reader of practice sites that follows links and fills forms without a browser."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from sites.contract import Move
from sites.server import Visit

VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
TEXT_FIELDS = {"text", "search", "email", "password", "tel", "url", "number"}


@dataclass(eq=False)
class Node:
    """One element of a parsed page; a field's current value lives in its attributes."""

    tag: str
    attrs: dict[str, str]
    parent: "Node | None" = None
    children: list["Node | str"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        """This element and all below it, in document order."""
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def ancestor(self, tag: str) -> "Node | None":
        """The nearest element around this one with the tag."""
        node = self.parent
        while node and node.tag != tag:
            node = node.parent
        return node

    @property
    def text(self) -> str:
        """Text inside, spaces normalised, pictures by their alternative text."""
        return " ".join(self._raw_text().split())

    def _raw_text(self) -> str:
        if self.tag == "img":
            return self.attrs.get("alt", "")
        return "".join(child if isinstance(child, str) else child._raw_text() for child in self.children)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.open = Node("document", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs}, self.open)
        self.open.children.append(node)
        if tag not in VOID:
            self.open = node

    def handle_endtag(self, tag: str) -> None:
        node = self.open
        while node.parent and node.tag != tag:
            node = node.parent
        if node.parent:
            self.open = node.parent

    def handle_data(self, data: str) -> None:
        self.open.children.append(data)


def parse(html: str) -> Node:
    """The tree of a page."""
    parser = _Parser()
    parser.feed(html)
    return parser.root


def is_interactive(node: Node) -> bool:
    """Whether a user can click, fill or choose it."""
    if node.tag == "a":
        return "href" in node.attrs
    if node.tag == "input":
        return node.attrs.get("type") != "hidden"
    return node.tag in ("button", "select", "textarea", "summary")


def is_shown(node: Node) -> bool:
    """Whether no closed dialogue or menu hides it."""
    child, around = node, node.parent
    while around:
        shut = "open" not in around.attrs
        if shut and (around.tag == "dialog" or (around.tag == "details" and child.tag != "summary")):
            return False
        child, around = around, around.parent
    return True


def is_text_field(node: Node) -> bool:
    """Whether text is typed into it."""
    return node.tag == "textarea" or (node.tag == "input" and node.attrs.get("type", "text") in TEXT_FIELDS)


class Reader:
    """Reads a visit's pages as a browser without scripts would; a context manager."""

    def __init__(self, visit: Visit) -> None:
        parts = urlsplit(visit.url)
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{parts.port}",
            headers={"Host": parts.netloc},
            follow_redirects=True,
            verify=False,  # there is no TLS here, and loading certificates takes longer than a page
        )
        self.history: list[str] = []
        self.goto("/")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def goto(self, path: str) -> None:
        """Open an address of the site."""
        self._show(self._client.get(path))

    def _show(self, response: httpx.Response, *, remember: bool = True) -> None:
        response.raise_for_status()
        self.page = parse(response.text)
        self.url = response.url.raw_path.decode()
        if remember:
            self.history.append(self.url)

    def elements(self) -> list[Node]:
        """The interactive elements in sight."""
        return [node for node in self.page.walk() if is_interactive(node) and is_shown(node)]

    def name(self, node: Node) -> str:
        """Accessible name: aria-label, label, text, placeholder, title, whichever comes first."""
        labels = [label.text for label in self.page.walk() if label.tag == "label" and self._labels(label, node)]
        attrs = node.attrs
        own_text = "" if node.tag in ("select", "textarea") else node.text
        names = (attrs.get("aria-label"), *labels, own_text, attrs.get("placeholder"), attrs.get("title"))
        return next((name for name in names if name), attrs.get("value", ""))

    def _labels(self, label: Node, node: Node) -> bool:
        return label.attrs.get("for") == node.attrs.get("id", "?") or node.ancestor("label") is label

    def find(self, target: str) -> Node:
        """The one element with this name. Raises LookupError if there are none or several."""
        found = [node for node in self.elements() if self.name(node) == target]
        if len(found) != 1:
            names = [self.name(node) for node in self.elements()]
            raise LookupError(f"{len(found)} elements are called {target!r} at {self.url}: {names}")
        return found[0]

    def play(self, moves: Sequence[Move]) -> str | None:
        """Carry out moves from the page shown; what was answered, None if nothing was."""
        for move in moves:
            match move.action:
                case "click":
                    self.click(self.find(move.target))
                case "type":
                    self.type(self.find(move.target), move.text)
                case "select":
                    self.select(self.find(move.target), move.text)
                case "go_back":
                    self.history.pop()
                    self._show(self._client.get(self.history[-1]), remember=False)
                case "home":
                    self.goto("/")
                case "answer":
                    return move.text
        return None

    def click(self, node: Node) -> None:
        """Follow a link, press a button, tick a box, unfold a menu."""
        kind = node.attrs.get("type", "submit" if node.tag == "button" else "text")
        if node.tag == "a":
            self.goto(urljoin(self.url, node.attrs["href"]))
        elif node.tag == "summary":
            _toggle(node.parent.attrs if node.parent else {}, "open")
        elif kind == "checkbox":
            _toggle(node.attrs, "checked")
        elif kind == "radio":
            for other in self.page.walk():
                if other.attrs.get("name") == node.attrs.get("name"):
                    other.attrs.pop("checked", None)
            node.attrs["checked"] = ""
        elif kind in ("submit", "image") and (form := node.ancestor("form")):
            self.submit(form, node)

    def type(self, node: Node, text: str) -> None:
        """Replace a field's text; Enter follows where it is the only text field of its form."""
        if not is_text_field(node):
            raise LookupError(f"{self.name(node)!r} is no text field")
        if node.tag == "textarea":
            node.children = [text]
            return
        node.attrs["value"] = text
        form = node.ancestor("form")
        if form and sum(map(is_text_field, form.walk())) == 1:
            self.submit(form)

    def select(self, node: Node, text: str) -> None:
        """Choose an option by its text."""
        options = [option for option in node.walk() if option.tag == "option"]
        chosen = [option for option in options if option.text == text]
        if len(chosen) != 1:
            raise LookupError(f"{len(chosen)} options are called {text!r}: {[option.text for option in options]}")
        for option in options:
            option.attrs.pop("selected", None)
        chosen[0].attrs["selected"] = ""

    def submit(self, form: Node, button: Node | None = None) -> None:
        """Send a form as a browser would."""
        overrides = button.attrs if button else {}
        method = overrides.get("formmethod", form.attrs.get("method", "get")).lower()
        path = urljoin(self.url, overrides.get("formaction", form.attrs.get("action", self.url)))
        pairs = [pair for node in form.walk() for pair in _sent(node)]
        if button and "name" in button.attrs:
            pairs.append((button.attrs["name"], button.attrs.get("value", "")))
        body = urlencode(pairs)
        if method == "post":
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            self._show(self._client.post(path, content=body, headers=headers))
        elif method == "get":
            self.goto(f"{path.partition('?')[0]}?{body}")


def play(visit: Visit, moves: Sequence[Move]) -> str | None:
    """Carry out moves from a visit's start page; what was answered, None if nothing was."""
    with Reader(visit) as reader:
        return reader.play(moves)


def _toggle(attrs: dict[str, str], key: str) -> None:
    if attrs.pop(key, None) is None:
        attrs[key] = ""


def _sent(node: Node) -> list[tuple[str, str]]:
    """What a field adds to its form's data."""
    name, kind = node.attrs.get("name"), node.attrs.get("type", "text")
    if not name or "disabled" in node.attrs:
        return []
    if node.tag == "textarea":
        return [(name, "".join(child for child in node.children if isinstance(child, str)))]
    if node.tag == "select":
        options = [option for option in node.walk() if option.tag == "option"]
        chosen = [option for option in options if "selected" in option.attrs] or options[:1]
        return [(name, option.attrs.get("value", option.text)) for option in chosen]
    if node.tag != "input" or kind in ("submit", "button", "image", "reset"):
        return []
    if kind in ("checkbox", "radio"):
        return [(name, node.attrs.get("value", "on"))] if "checked" in node.attrs else []
    return [(name, node.attrs.get("value", ""))]
