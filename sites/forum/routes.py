"""The forum's pages and what their forms do to the state."""

import math
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sites.contract import State
from sites.forum.content import DIGESTS, MEMBER, PAGE_SIZE, THEMES, Forum, Thread, slug
from sites.pages import form, number, redirect, render, world_of


def num_votes(thread: Thread, state: State) -> int:
    """A thread's votes, the member's own among them."""
    return thread.votes + (thread.slug in state["votes"])


def num_replies(thread: Thread, state: State) -> int:
    """A thread's replies, the member's own among them."""
    return len(thread.replies) + sum(reply["thread"] == thread.slug for reply in state["replies"])


SORTS: dict[str, tuple[str, Callable[[Thread, State], int]]] = {
    "": ("Newest", lambda thread, state: -thread.day),
    "replies": ("Most replies", lambda thread, state: -num_replies(thread, state)),
    "votes": ("Most votes", lambda thread, state: -num_votes(thread, state)),
}
"""Value of the sort parameter -> what the menu says, and the order."""
INFO_PAGES = {"rules": "Rules", "about": "About", "guidelines": "Guidelines"}
MIN_TITLE_CHARS = 5


def _forum(request: Request) -> Forum:
    return world_of(request).content


def _state(request: Request) -> State:
    return world_of(request).state


def _page(request: Request, template: str, **context: Any) -> Response:
    counts = {"num_votes": num_votes, "num_replies": num_replies}
    return render(request, f"forum/{template}", slug=slug, member=MEMBER, **counts, **context)


def _own_threads(request: Request, board: str) -> list[dict[str, str]]:
    return [thread for thread in _state(request)["threads"] if thread["board"] == board]


def _thread(request: Request) -> Thread:
    thread = _forum(request).by_slug.get(request.path_params["thread"])
    if thread is None:
        raise HTTPException(404)
    return thread


async def home(request: Request) -> Response:
    """Boards and recent threads."""
    forum = _forum(request)
    counts = {board: len(forum.of_board(board)) + len(_own_threads(request, board)) for board in forum.boards}
    return _page(request, "home.html", counts=counts)


async def board(request: Request) -> Response:
    """One board's threads, sorted, a page at a time."""
    forum, wanted = _forum(request), request.path_params["board"]
    name = next((name for name in forum.boards if slug(name) == wanted), None)
    if name is None:
        raise HTTPException(404)
    sort = request.query_params.get("sort", "")
    label, order = SORTS.get(sort, SORTS[""])
    threads = sorted(forum.of_board(name), key=lambda thread: order(thread, _state(request)))
    num_pages = math.ceil(len(threads) / PAGE_SIZE)
    page = number(request.query_params.get("page"), 1, 1, num_pages)
    own = _own_threads(request, name)
    shown = threads[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    labels = {key: text for key, (text, _) in SORTS.items()}
    context = {
        "board": name,
        "threads": shown,
        "total": len(threads) + len(own),
        "own": own,
        "sorts": labels,
        "label": label,
    }
    return _page(request, "board.html", sort=sort, page=page, num_pages=num_pages, **context)


async def thread(request: Request) -> Response:
    """One thread."""
    shown = _thread(request)
    own = [reply["text"] for reply in _state(request)["replies"] if reply["thread"] == shown.slug]
    return _page(request, "thread.html", thread=shown, own=own)


async def vote(request: Request) -> Response:
    """Upvote a thread; a second vote changes nothing."""
    shown, votes = _thread(request), _state(request)["votes"]
    if shown.slug in votes:
        return redirect(request, f"/thread/{shown.slug}", f"You had upvoted {shown.title} already.")
    votes.append(shown.slug)
    return redirect(request, f"/thread/{shown.slug}", f"You upvoted {shown.title}.")


async def follow(request: Request) -> Response:
    """Follow a thread, or stop following it."""
    shown, following = _thread(request), _state(request)["following"]
    if shown.slug in following:
        following.remove(shown.slug)
        return redirect(request, f"/thread/{shown.slug}", f"You no longer follow {shown.title}.")
    following.append(shown.slug)
    return redirect(request, f"/thread/{shown.slug}", f"You follow {shown.title}.")


async def reply(request: Request) -> Response:
    """Add a reply to a thread."""
    shown, text = _thread(request), (await form(request)).get("text", "")
    if not text:
        return redirect(request, f"/thread/{shown.slug}", "Write something before you post.")
    _state(request)["replies"].append({"thread": shown.slug, "text": text})
    return redirect(request, f"/thread/{shown.slug}", "Your reply was posted.")


async def member(request: Request) -> Response:
    """One member's profile."""
    found = _forum(request).member_by_slug.get(request.path_params["member"])
    if found is None:
        raise HTTPException(404)
    return _page(request, "member.html", profile=found)


async def search(request: Request) -> Response:
    """Threads whose title holds the words searched for."""
    words = request.query_params.get("q", "").casefold().strip()
    found = [thread for thread in _forum(request).threads if words and words in thread.title.casefold()]
    own = [thread for thread in _state(request)["threads"] if words and words in thread["title"].casefold()]
    return _page(request, "search.html", found=found, own=own, total=len(found) + len(own))


async def new_thread(request: Request) -> Response:
    """The form of a new thread, and its creation."""
    written = await form(request) if request.method == "POST" else {}
    error = _complaint(written, _forum(request).boards) if written else ""
    if not written or error:
        return _page(request, "new.html", written=written, error=error)
    created = {key: written[key] for key in ("board", "title", "text")}
    _state(request)["threads"].append(created)
    return redirect(request, f"/board/{slug(created['board'])}", f"Your thread {created['title']} was created.")


def _complaint(written: dict[str, str], boards: tuple[str, ...]) -> str:
    if len(written.get("title", "")) < MIN_TITLE_CHARS:
        return f"The title needs at least {MIN_TITLE_CHARS} characters."
    if not written.get("text"):
        return "The text is missing."
    return "" if written.get("board") in boards else "Choose a board."


async def settings(request: Request) -> Response:
    """Settings, and saving them."""
    if request.method == "GET":
        return _page(request, "settings.html", digests=DIGESTS, themes=THEMES)
    written, saved = await form(request), _state(request)["settings"]
    saved["digest"] = written["digest"] if written.get("digest") in DIGESTS else saved["digest"]
    saved["theme"] = written["theme"] if written.get("theme") in THEMES else saved["theme"]
    saved["signature"] = written.get("signature", "")
    told = f"digest {saved['digest']}, theme {saved['theme']}, signature {saved['signature'] or 'none'}"
    return redirect(request, "/settings", f"Settings saved: {told}.")


async def info(request: Request) -> Response:
    """Rules, about and guidelines."""
    key = request.path_params["info"]
    if key not in INFO_PAGES:
        raise HTTPException(404)
    return _page(request, "info.html", info=key, heading=INFO_PAGES[key])


ROUTES: tuple[BaseRoute, ...] = (
    Route("/", home),
    Route("/board/{board}", board),
    Route("/thread/{thread}", thread),
    Route("/thread/{thread}/vote", vote, methods=["POST"]),
    Route("/thread/{thread}/follow", follow, methods=["POST"]),
    Route("/thread/{thread}/reply", reply, methods=["POST"]),
    Route("/member/{member}", member),
    Route("/search", search),
    Route("/new", new_thread, methods=["GET", "POST"]),
    Route("/settings", settings, methods=["GET", "POST"]),
    Route("/info/{info}", info),
)
