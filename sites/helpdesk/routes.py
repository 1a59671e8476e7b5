"""The help desk's pages and what their forms do to the state."""

import math
import re
from typing import Any
from urllib.parse import quote_plus, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sites.contract import State
from sites.helpdesk.content import LANGUAGES, PAGE_SIZES, PRIORITIES, STATUSES, UNASSIGNED, Article, Desk, slug
from sites.pages import form, number, redirect, render, world_of

SORTS = {"": "Number", "-number": "Newest first", "priority": "Most urgent first", "assignee": "Assignee"}
"""Value of the sort parameter -> what the select says."""

VOTES = {"yes": "helpful", "no": "not helpful"}
MAX_TICKETS = 20
MAX_COMMENTS = 12


def _desk(request: Request) -> Desk:
    return world_of(request).content


def _state(request: Request) -> State:
    return world_of(request).state


def _page(request: Request, template: str, **context: Any) -> Response:
    return render(request, f"helpdesk/{template}", slug=slug, **context)


def _article(request: Request) -> Article:
    found = _desk(request).by_slug.get(request.path_params["article"])
    if found is None:
        raise HTTPException(404)
    return found


def _ticket(request: Request) -> tuple[str, State]:
    key = str(request.path_params["number"])
    tickets = _state(request)["tickets"]
    if key not in tickets:
        raise HTTPException(404)
    return key, tickets[key]


async def home(request: Request) -> Response:
    """The start page: articles that are read most and the newest tickets."""
    latest = list(_state(request)["tickets"].items())[-len(_desk(request).latest) :]
    return _page(request, "home.html", latest=latest)


async def articles(request: Request) -> Response:
    """The sections of the knowledge base."""
    return _page(request, "articles.html")


async def section(request: Request) -> Response:
    """The articles of a section."""
    desk = _desk(request)
    name = next((name for name in desk.sections if slug(name) == request.path_params["section"]), None)
    if name is None:
        raise HTTPException(404)
    return _page(request, "section.html", section=name, articles=desk.of_section(name))


async def search(request: Request) -> Response:
    """Articles whose title holds the words searched for."""
    words = request.query_params.get("q", "")
    plain = " ".join(words.casefold().split())
    if words != plain:
        return redirect(request, f"/search?q={quote_plus(plain)}")
    return _page(request, "search.html", found=_desk(request).search(plain))


async def article(request: Request) -> Response:
    """Everything about one device."""
    shown, state = _article(request), _state(request)
    vote = state["votes"].get(shown.slug, "")
    return _page(
        request,
        "article.html",
        article=shown,
        bookmarked=shown.slug in state["bookmarks"],
        vote=VOTES.get(vote, ""),
        num_helpful=shown.num_helpful + (vote == "yes"),
    )


async def article_vote(request: Request) -> Response:
    """Vote on an article; a later vote replaces an earlier one."""
    voted, vote = _article(request), (await form(request)).get("vote", "")
    if vote not in VOTES:
        return redirect(request, f"/article/{voted.slug}", "Your vote was not counted.")
    _state(request)["votes"][voted.slug] = vote
    return redirect(request, f"/article/{voted.slug}", f"You marked {voted.name} as {VOTES[vote]}.")


async def article_bookmark(request: Request) -> Response:
    """Bookmark an article, or take the bookmark away if it has one."""
    marked, bookmarks = _article(request), _state(request)["bookmarks"]
    wanted = (await form(request)).get("bookmark") == "on"
    if wanted and marked.slug not in bookmarks:
        bookmarks.append(marked.slug)
    if not wanted and marked.slug in bookmarks:
        bookmarks.remove(marked.slug)
    message = f"Bookmark added: {marked.name}." if wanted else f"Bookmark removed: {marked.name}."
    return redirect(request, f"/article/{marked.slug}", message)


async def bookmarks(request: Request) -> Response:
    """The bookmarked articles."""
    marked = [_desk(request).by_slug[key] for key in _state(request)["bookmarks"]]
    return _page(request, "bookmarks.html", marked=marked)


async def tickets(request: Request) -> Response:
    """The ticket table: of one status or all, in an order, as many to a page as the settings say."""
    params, state = request.query_params, _state(request)
    status = params.get("status", "") if params.get("status") in STATUSES else ""
    sort = params.get("sort", "") if params.get("sort") in SORTS else ""
    found = _sorted([row for row in state["tickets"].items() if status in ("", row[1]["status"])], sort)
    size = int(state["settings"]["items_per_page"])
    num_pages = max(1, math.ceil(len(found) / size))
    page = number(params.get("page"), 1, 1, num_pages)
    given = {"status": status, "sort": sort, "page": _page_text(page)}
    if {key: value for key, value in given.items() if value} != {key: value for key, value in params.items() if value}:
        return redirect(request, _table_address(given))
    return _page(
        request,
        "tickets.html",
        tickets=found[(page - 1) * size : page * size],
        num_tickets=len(found),
        page=page,
        num_pages=num_pages,
        link_to=lambda page: _table_address(given | {"page": _page_text(page)}),
        chosen=status,
        sort=sort,
        sorts=SORTS,
        statuses=STATUSES,
    )


def _page_text(page: int) -> str:
    return str(page) if page > 1 else ""


def _table_address(params: dict[str, str]) -> str:
    query = urlencode({key: value for key, value in params.items() if value})
    return f"/tickets?{query}" if query else "/tickets"


def _sorted(rows: list[tuple[str, State]], sort: str) -> list[tuple[str, State]]:
    keys = {
        "": lambda row: int(row[0]),
        "-number": lambda row: -int(row[0]),
        "priority": lambda row: -PRIORITIES.index(row[1]["priority"]),
        "assignee": lambda row: row[1]["assignee"],
    }
    return sorted(rows, key=keys[sort])


async def ticket(request: Request) -> Response:
    """One ticket with its comments and forms."""
    key, shown = _ticket(request)
    return _page(
        request,
        "ticket.html",
        number=key,
        ticket=shown,
        statuses=STATUSES,
        priorities=PRIORITIES,
        assignees=_assignees(request),
    )


def _assignees(request: Request) -> tuple[str, ...]:
    return *(agent.name for agent in _desk(request).agents), UNASSIGNED


async def ticket_comment(request: Request) -> Response:
    """Add a comment; an empty one is refused."""
    key, changed = _ticket(request)
    text = (await form(request)).get("comment", "")
    if not text:
        return redirect(request, f"/ticket/{key}", "Write a comment first.")
    if len(changed["comments"]) >= MAX_COMMENTS:
        return redirect(request, f"/ticket/{key}", f"#{key} has too many comments already.")
    changed["comments"].append({"author": _desk(request).user, "text": text})
    return redirect(request, f"/ticket/{key}", f"Comment added to #{key}.")


async def ticket_status(request: Request) -> Response:
    """Set a ticket's status."""
    return await _set(request, "status", STATUSES)


async def ticket_priority(request: Request) -> Response:
    """Set a ticket's priority."""
    return await _set(request, "priority", PRIORITIES)


async def ticket_assignee(request: Request) -> Response:
    """Give a ticket to an agent, or to nobody."""
    return await _set(request, "assignee", _assignees(request))


async def _set(request: Request, field: str, values: tuple[str, ...]) -> Response:
    key, changed = _ticket(request)
    value = (await form(request)).get(field, "")
    if value not in values:
        return redirect(request, f"/ticket/{key}", f"The {field} of #{key} was not changed.")
    changed[field] = value
    return redirect(request, f"/ticket/{key}", f"{field.capitalize()} of #{key} set to {value}.")


async def closing(request: Request) -> Response:
    """When a ticket may be closed (a dialog says it where scripts run)."""
    return _page(request, "closing.html")


async def new_ticket(request: Request) -> Response:
    """The form for a new ticket; posted without a gap it opens one."""
    fields, errors = {"subject": "", "room": "", "priority": "normal"}, {}
    if request.method == "POST":
        posted, known = await form(request), _state(request)["tickets"]
        fields |= {key: posted[key] for key in fields if key in posted}
        fields["room"] = fields["room"].upper()
        errors = _gaps(fields, len(known))
        if not errors:
            key = str(max(map(int, known)) + 1)
            known[key] = {**fields, "status": "open", "assignee": UNASSIGNED, "comments": []}
            return redirect(request, f"/ticket/{key}", f"Ticket #{key} is created.")
    return _page(request, "new_ticket.html", fields=fields, errors=errors, priorities=PRIORITIES)


def _gaps(fields: dict[str, str], num_tickets: int) -> dict[str, str]:
    errors = {}
    if num_tickets >= MAX_TICKETS:
        errors["subject"] = "There are too many tickets: close some first."
    if len(fields["subject"]) < 5:
        errors["subject"] = "Enter a subject of at least 5 letters."
    if not re.fullmatch(r"[A-D]\d\d", fields["room"]):
        errors["room"] = "Enter a room such as B12."
    if fields["priority"] not in PRIORITIES:
        errors["priority"] = "Choose a priority."
    return errors


async def team(request: Request) -> Response:
    """The agents: role, extension, office."""
    return _page(request, "team.html")


async def contact(request: Request) -> Response:
    """Opening hours and telephone."""
    return _page(request, "contact.html")


async def settings(request: Request) -> Response:
    """The user's settings; posting the form saves all of them."""
    if request.method == "POST":
        posted, saved = await form(request), _state(request)["settings"]
        if posted.get("language") in LANGUAGES:
            saved["language"] = posted["language"]
        if posted.get("items_per_page") in PAGE_SIZES:
            saved["items_per_page"] = posted["items_per_page"]
        saved["digest"] = "digest" in posted
        digest = "on" if saved["digest"] else "off"
        summary = f"language {saved['language']}, {saved['items_per_page']} items per page, e-mail digest {digest}"
        return redirect(request, "/settings", f"Settings saved: {summary}.")
    return _page(request, "settings.html", languages=LANGUAGES, page_sizes=PAGE_SIZES)


ROUTES: tuple[BaseRoute, ...] = (
    Route("/", home),
    Route("/articles", articles),
    Route("/section/{section}", section),
    Route("/search", search),
    Route("/article/{article}", article),
    Route("/article/{article}/vote", article_vote, methods=["POST"]),
    Route("/article/{article}/bookmark", article_bookmark, methods=["POST"]),
    Route("/bookmarks", bookmarks),
    Route("/tickets", tickets),
    Route("/tickets/new", new_ticket, methods=["GET", "POST"]),
    Route("/ticket/{number:int}", ticket),
    Route("/ticket/{number:int}/comment", ticket_comment, methods=["POST"]),
    Route("/ticket/{number:int}/status", ticket_status, methods=["POST"]),
    Route("/ticket/{number:int}/priority", ticket_priority, methods=["POST"]),
    Route("/ticket/{number:int}/assignee", ticket_assignee, methods=["POST"]),
    Route("/closing", closing),
    Route("/team", team),
    Route("/contact", contact),
    Route("/settings", settings, methods=["GET", "POST"]),
)
