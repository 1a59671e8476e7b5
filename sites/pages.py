"""What the sites' pages share: rendering, posted forms, redirects with a message, the page that isn't there."""

from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sites.contract import World

TEMPLATES_DIR = Path(__file__).parent / "templates"

# Without it the browser's Back shows an old copy: a stale cart count, and a location the server never hears of.
_FRESH = {"Cache-Control": "no-store"}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES_DIR),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def world_of(request: Request) -> World:
    """The episode's world behind a request."""
    return cast(World, request.state.world)


def render(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page; templates also see site, content, state, path, query (the text searched for) and notice."""
    world = world_of(request)
    shared = {
        "site": world.site,
        "content": world.content,
        "state": world.state,
        "path": request.url.path,
        "query": request.query_params.get("q", ""),
        "notice": world.state.pop("notice", ""),
    }
    html = _environment().get_template(template).render(shared | context)
    return HTMLResponse(html, status, headers=_FRESH)


def redirect(request: Request, path: str, notice: str = "") -> Response:
    """See-other to a page of the same site; the notice is shown there once and leaves no trace in the state."""
    if notice:
        world_of(request).state["notice"] = notice
    return RedirectResponse(path, 303)


async def form(request: Request) -> dict[str, str]:
    """Fields of a posted urlencoded form, stripped; a field that was sent twice has its last value."""
    body = (await request.body()).decode("utf-8", errors="replace")
    return {key: value.strip() for key, value in parse_qsl(body, keep_blank_values=True)}


def number(text: str | None, default: int, low: int, high: int) -> int:
    """A whole number from a form or query, brought into low..high; default if the text isn't one."""
    if text is None or not text.strip().isdecimal():
        return default
    return min(max(int(text), low), high)


async def not_found(request: Request, _: Exception) -> Response:
    """The page for an address that the site doesn't have."""
    return render(request, "not_found.html", 404)
