"""Malformed and hostile pages: what websites do to a browser, by mistake or on purpose."""

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_OK = b"HTTP/1.1 200 OK\r\n"
_HTML = b"Content-Type: text/html; charset=utf-8\r\n"
_LINK = "<title>Page</title><button id=b>Push</button>"


@dataclass(frozen=True, slots=True)
class HostilePage:
    """A page, as the bytes of an answer over HTTP."""

    name: str
    answer: bytes
    """Head and body; the connection closes after them."""
    endless: bytes = b""
    """What follows them again and again for as long as anyone listens."""
    pause_s: float = 0.0
    """Seconds between the bytes of the answer, and between the endless ones; 0: as fast as they are taken."""
    others: Mapping[str, bytes] = field(default_factory=dict)
    """Answers of other paths; they are the page's own where it says nothing of a path."""


def answer(body: str | bytes, head: bytes = _HTML, status: bytes = _OK) -> bytes:
    """An ordinary answer."""
    data = body.encode() if isinstance(body, str) else body
    return status + head + f"Content-Length: {len(data)}\r\n\r\n".encode() + data


def _scripted(name: str, script: str) -> HostilePage:
    """A page whose script runs as it loads."""
    return HostilePage(name, answer(f"{_LINK}<script>{script}</script>"))


def _clicked(name: str, script: str) -> HostilePage:
    """A page whose script runs when its button is pushed."""
    return HostilePage(f"{name}, on a click", answer(f"{_LINK}<script>b.onclick = () => {{ {script} }}</script>"))


def _png(width: int, height: int) -> bytes:
    """A picture of one colour: few bytes, many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + bytes((width + 7) // 8)) * height, 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _sizes() -> Iterator[HostilePage]:
    bodies = {
        "100,000 elements": "<div>x</div>" * 100_000,
        "20,000 buttons": "<button>x</button>" * 20_000,
        "elements 5,000 deep": "<div>" * 5_000 + "x",
        "inline elements 5,000 deep": "<b><i>" * 2_500 + "x",
        "50,000 cells": "<table>" + "<tr>" + "<td>x" * 50 * 1_000,
        "a word of 5 MB": "x" * 5_000_000,
        "a line of 5 MB": "many words " * 450_000,
        "a list of 50,000 choices": "<select>" + "<option>x" * 50_000 + "</select>",
        "a title of 1 MB": f"<title>{'x' * 1_000_000}</title>",
        "a name of 1 MB": f"<button aria-label='{'x' * 1_000_000}'>x</button>",
        "an attribute of 5 MB": f"<p data-x='{'x' * 5_000_000}'>x</p>",
        "50,000 attributes": f"<p {' '.join(f'a{n}=1' for n in range(50_000))}>x</p>",
        "200 frames": "<iframe srcdoc='<button>x</button>'></iframe>" * 200,
        "a page that frames itself": "<iframe src=/></iframe><iframe src=/?2></iframe>",
        "30,000 rules of style": "<style>"
        + "".join(f".c{n} > p:nth-child({n}) {{color:red}}" for n in range(30_000))
        + "</style>",
        "a page a million pixels high": "<div style='height:1000000px;width:1000000px'>x</div>" + _LINK,
        "a canvas of 400 megapixels": "<canvas width=20000 height=20000></canvas>" + _LINK,
        "heavy filters": "<div style='filter:blur(90px);backdrop-filter:blur(90px)'>x</div>" * 300,
        "5,000 shadow roots": "<script>for (let i = 0; i < 5000; i++) "
        "document.body.appendChild(document.createElement('div')).attachShadow({mode: 'open'}).innerHTML = "
        "'<button>x</button>'</script>",
        "shadow roots 800 deep": "<body><script>let at = document.body; for (let i = 0; i < 800; i++) { const d = "
        "document.createElement('div'); at.append(d); at = d.attachShadow({mode: 'open'}) }</script>",
    }
    for name, body in bodies.items():
        yield HostilePage(name, answer(f"<!doctype html><body>{body}"))
    picture = answer(_png(30_000, 30_000), b"Content-Type: image/png\r\n")
    yield HostilePage("a picture of 900 megapixels", answer(f"<img src=/p.png>{_LINK}"), others={"/p.png": picture})


def _scripts() -> Iterator[HostilePage]:
    both = {
        "an endless loop": "while (true);",
        "endless microtasks": "const f = () => Promise.resolve().then(f); f()",
        "endless messages": "while (true) alert('x'.repeat(1000))",
        "endless questions": "while (!prompt('Name?'));",
        "a regular expression that never ends": "/^(a+)+$/.test('a'.repeat(60) + '!')",
        "growth without end": "const f = () => { document.body.append('x'.repeat(1e4)); setTimeout(f) }; f()",
        "frames that busy the processor": "const f = () => { const t = Date.now(); while (Date.now() - t < 300); "
        "requestAnimationFrame(f) }; f()",
        "recursion without end": "const f = () => f() + f(); f()",
        "200 new tabs": "for (let i = 0; i < 200; i++) window.open('/')",
        "closes itself": "window.close()",
        "writes itself anew": "document.open(); document.write('<p>anew'); document.body.remove()",
        "removes itself": "document.documentElement.remove()",
        "an answer waited for in the way": "const x = new XMLHttpRequest(); x.open('GET', '/never', false); x.send()",
        "300 MB of memory": "window.kept = Array.from({length: 30}, () => new Uint8Array(1e7).fill(1))",
        "10,000 pages of history": "for (let i = 0; i < 1e4; i++) try { history.pushState(i, '', '/?' + i) } catch {}",
        "crash": "location = 'chrome://crash'",
        "hang": "location = 'chrome://hang'",
        "nowhere": "location = 'about:blank'",
        "a script as an address": "location = 'javascript:while(true);'",
        "an address that is none": "location = 'http://[::bad'",
        "an unknown kind of address": "location = 'nosuch:thing'",
    }
    for name, script in both.items():
        yield HostilePage(name, answer(f"{_LINK}<script>{script}</script>"), others={"/never": b""})
        yield HostilePage(
            f"{name}, on a click",
            answer(f"{_LINK}<script>b.onclick = () => {{ {script} }}</script>"),
            others={"/never": b""},
        )
    yield _scripted("reloads without end", "location.reload()")
    yield _scripted("goes on without end", "location = '/?' + Math.random()")
    yield _scripted("goes on at its own end", "setTimeout(() => location = '/?' + Math.random(), 60)")
    yield _scripted("100,000 lines of log", "for (let i = 0; i < 1e5; i++) console.log('x'.repeat(100))")
    yield _scripted("errors without end", "setInterval(() => { throw new Error('x'.repeat(1e4)) }, 1)")
    yield _scripted("requests without end", "setInterval(() => fetch('/?' + Math.random()), 1)")
    yield _scripted("workers", "for (let i = 0; i < 8; i++) new Worker('data:text/javascript,while(true);')")
    yield _scripted(
        "changes that cause changes",
        "new MutationObserver(() => document.body.id += 'x')"
        ".observe(document.body, {attributes: true}); document.body.id = 'x'",
    )
    yield _scripted(
        "methods taken away",
        "for (const o of [Element, Node, Document, Array, Promise, String]) "
        "for (const k of Object.getOwnPropertyNames(o.prototype)) try { o.prototype[k] = null } catch {}",
    )
    yield _scripted("leaving is refused", "onbeforeunload = event => event.preventDefault(); setInterval(() => 0, 1)")
    yield _scripted(
        "runs away from the mouse", "onmousemove = () => b.style = `position:fixed;left:${Math.random() * 900}px`"
    )
    yield _scripted("takes focus without end", "setInterval(() => b.focus(), 1)")
    yield _scripted("scrolls without end", "document.body.style.height = '9e4px'; setInterval(() => scrollBy(0, 9), 1)")
    names = "matches getAttribute tagName childNodes nodeType shadowRoot ownerDocument title parentNode".split()
    clobbered = "".join(f"<input name={name}>" for name in names)
    yield HostilePage("fields that bear the names of methods", answer(f"{_LINK}<form tabindex=0>{clobbered}</form>"))
    yield _clicked(
        "downloads without end",
        "setInterval(() => { const a = document.createElement('a'); a.href = '/'; a.download = 'x'; a.click() }, 50)",
    )


def _malformed() -> Iterator[HostilePage]:
    bodies: Mapping[str, str | bytes] = {
        "nothing": "",
        "a comment that never ends": "<!-- <button>x</button>",
        "a script that never ends": "<script>const x = '",
        "a tag that never ends": "<button aria-label='x",
        "tags crossed": "<b><p><i></b><table><form><td></p></form><button>x</i></table>" * 500,
        "10,000 open tags": "<b><font><nobr><a href=/>" * 2_500,
        "plain text for ever": "<plaintext><button>x</button>",
        "a set of frames": "<frameset cols='50%,50%'><frame src=/x><frame src=/y></frameset>",
        "zero bytes": b"<p>\0\0\0<button>\0x\0</button>" * 100,
        "what is no UTF-8": b"<button>\xff\xfe\xc3\x28\xf0\x9f</button>" * 50,
        "UTF-16 without a word": "<button>x</button>".encode("utf-16-le"),
        "text turned round": "<button>\u202e\u2066x\u200b\u200d\ufeff</button>" * 200,
        "half characters": "<button>&#xD800;&#x110000;&#0;&notanentity;</button>" + _LINK,
        "names of 300 marks on a letter": f"<button>e{chr(0x301) * 300}</button>" * 50,
    }
    for name, body in bodies.items():
        yield HostilePage(name, answer(body))
    laughs = (
        '<!DOCTYPE x [<!ENTITY a "ha">'
        + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
        + "]><x>&j;</x>"
    )
    documents = {
        "a billion laughs": (laughs, b"text/xml"),
        "XHTML that is none": ("<html xmlns='http://www.w3.org/1999/xhtml'><p>x</html>", b"application/xhtml+xml"),
        "a drawing": (
            "<svg xmlns='http://www.w3.org/2000/svg'><a href='/'><text y='20'>x</text></a></svg>",
            b"image/svg+xml",
        ),
        "data": ('{"a": ' * 1_000, b"application/json"),
        "plain text": ("x" * 100_000, b"text/plain"),
        "a broken picture": ("\x89PNG broken", b"image/png"),
        "a broken PDF": ("%PDF-1.7 broken", b"application/pdf"),
        "a kind that is none": ("<button>x</button>", b"no/such; ;;=,"),
        "bytes": ("MZ\0\1", b"application/octet-stream"),
        "pages that replace each other": (
            "--x\r\nContent-Type: text/html\r\n\r\n<p>x\r\n" * 50,
            b"multipart/x-mixed-replace; boundary=x",
        ),
    }
    for name, (body, kind) in documents.items():
        yield HostilePage(name, answer(body, b"Content-Type: " + kind + b"\r\n"))


def _protocol() -> Iterator[HostilePage]:
    bomb = gzip.compress(b"<p>" + b"x" * 100_000_000, 9)
    packed = _HTML + b"Content-Encoding: gzip\r\n"
    yield HostilePage("a bomb of 100 MB", answer(bomb, packed))
    yield HostilePage("what is not packed", answer("<p>x", packed))
    yield HostilePage("packing that breaks off", answer(bomb[:2_000], packed))
    yield HostilePage("no answer", b"")
    yield HostilePage("half a head", b"HTTP/1.1 200 OK\r\nContent-Ty")
    yield HostilePage("no head", b"<button>x</button>")
    yield HostilePage("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n")
    yield HostilePage("a body that breaks off", _OK + _HTML + b"Content-Length: 9999\r\n\r\n<button>x")
    yield HostilePage("chunks that are none", _OK + _HTML + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx")
    yield HostilePage("a head of 1 MB", _OK + _HTML + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n<p>x")
    yield HostilePage("headers without end", _OK, endless=b"X: y\r\n", pause_s=0.001)
    yield HostilePage(
        "a body without end", _OK + _HTML + b"\r\n" + _LINK.encode(), endless=b"<p>more</p>" * 1_000, pause_s=0.01
    )
    yield HostilePage(
        "a body at full speed without end", _OK + _HTML + b"\r\n" + _LINK.encode(), endless=b"<!-- x -->" * 6_000
    )
    yield HostilePage("a slow head", _OK + _HTML + b"\r\n<p>x", pause_s=0.5)
    yield HostilePage("a slow body", _OK + _HTML + b"\r\n", endless=b"x", pause_s=0.3)
    yield HostilePage("hangs", b"", endless=b"", pause_s=3600.0)
    yield HostilePage("sends on to itself", answer("", b"Location: /\r\n", b"HTTP/1.1 302 Found\r\n"))
    yield HostilePage("sends on to nowhere", answer("", b"Location: http://[::bad\r\n", b"HTTP/1.1 302 Found\r\n"))
    yield HostilePage("sends on to a file", answer("", b"Location: file:///etc/passwd\r\n", b"HTTP/1.1 302 Found\r\n"))
    yield HostilePage("sends on, but where", answer("", b"", b"HTTP/1.1 302 Found\r\n"))
    yield HostilePage("refreshes without end", answer(_LINK, _HTML + b"Refresh: 0\r\n"))
    yield HostilePage(
        "4,000 cookies", answer(_LINK, _HTML + b"".join(b"Set-Cookie: c%d=x\r\n" % n for n in range(4_000)))
    )
    yield HostilePage("its own sandbox", answer(_LINK, _HTML + b"Content-Security-Policy: sandbox\r\n"))
    yield HostilePage(
        "a download in place of a page", answer("x", b"Content-Disposition: attachment; filename=x.exe\r\n")
    )
    for status in (204, 205, 304, 401, 403, 404, 418, 429, 451, 500, 503, 599, 999):
        yield HostilePage(
            f"status {status}", answer("" if status < 400 else "<p>x", _HTML, b"HTTP/1.1 %d x\r\n" % status)
        )


def hostile_pages() -> list[HostilePage]:
    """All of them."""
    groups: Iterable[Iterator[HostilePage]] = (_sizes(), _scripts(), _malformed(), _protocol())
    return [page for group in groups for page in group]
