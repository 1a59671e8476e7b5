"""What may come of an action or a request, told before it is done: by element, form, method, address and words.

In: what policy/guard.js tells about an element, or a request. Out: its class. Words are English ones. What is sent by a
form and can't be told counts as irreversible; what a script does on a press can't be seen, so that its requests are
judged once more as they leave (policy/browser_net.py).
"""

import json
import re
from fnmatch import fnmatch
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from policy.trajectory import ActionClass

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that by HTTP's own rules change nothing (RFC 9110, section 9.2.1)."""

_FINAL = re.compile(
    r"""\b(?: pay | buy | purchase | check[ ]?out
    | (?<!sort[ ])order(?![ ](?:by|history|status|details|number|tracking))
    | book(?![ ](?:details|club)) | reserve | rent | bid | donate | transfer | withdraw | deposit | hire
    | send | submit | post | publish | reply | comment | message | invite | share | tweet | e-?mail | review(?=[ ]*$)
    | sign[ -]?up | register | create[ ](?:an?[ ]|your[ ])?account | join | apply[ ](?:now|for) | (?:un)?subscribe
    | delete | remove | erase | destroy | wipe | cancel | deactivate | terminate | close[ ](?:my[ ]|your[ ])?account
    | confirm | approve | grant | authori[sz]e )\b""",
    re.VERBOSE | re.IGNORECASE,
)
_REMOVAL = re.compile(r"\b(?:delete|remove|erase|cancel)\b", re.IGNORECASE)
_MILD = re.compile(
    r"""\b(?: cart | basket | bag | wish[ ]?list | favou?rites? | bookmark | saved? | add | update | change | set
    | switch
    | select | choose | compare | like | unlike | vote | upvote | downvote | follow | unfollow | watch | helpful
    | search | find | filter | sort | load | apply | clear | reset | calculate | compute | translate | convert
    | accept | agree | reject | decline | allow | deny | consent | cookies? | privacy
    | log[ ]?in | sign[ ]?in | log[ ]?out | sign[ ]?out | language | country | region )\b""",
    re.VERBOSE | re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"""\b(?: look | go | show | view | see | more | next | previous | continue | back | preview | start | play
    | close | dismiss | skip | ok | got[ ]it | not[ ]now | no[ ]thanks )\b""",
    re.VERBOSE | re.IGNORECASE,
)
"""A form sent by POST may be called so; a button so called has nothing to send."""
_CART = re.compile(r"\b(?:cart|basket|bag|wish ?list|comparison|favou?rites|bookmarks?)\b", re.IGNORECASE)
_FINAL_STEPS = frozenset(
    """pay payment payments purchase purchases buy order orders checkout book booking bookings reserve reservation
    reservations delete destroy remove erase send message messages mail comment comments reply replies review reviews
    publish submit invite subscribe unsubscribe subscription subscriptions register registration signup donate donation
    donations transfer transfers withdraw withdrawal cancel confirm deactivate terminate""".split()
)
"""Parts of an address that name what can't be undone."""
_READING_QUERY = re.compile(r"\s*(?:query\b|\{|fragment\b(?!.*\bmutation\b))", re.DOTALL)
_MUTATION = re.compile(r"\bmutation\b")


class Target(BaseModel):
    """What an action would set going, as policy/guard.js tells it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["link", "form", "field", "control"]
    """It leads to a page; sends a form; is only filled in, chosen or unfolded; or a script does what is done."""
    name: str
    """Accessible name of the element."""
    words: str
    """What it and its form say, also where the accessible name says something else."""
    method: str = ""
    """In small letters; empty: not said."""
    url: str = ""
    """Where the link leads, or the form is sent."""
    is_scripted: bool = False
    """Whether the form names neither method nor address: a script sends it."""
    fields: tuple[str, ...] = ()
    """Names of the fields that the form sends."""
    field_type: str = ""
    """``type`` of the element: ``password``."""
    autocomplete: str = ""
    """What the element says that belongs into it: ``cc-number``."""
    value: str = ""
    """What it holds."""


def classify(target: Target | None) -> ActionClass:
    """The class of acting on an element; None: there is none."""
    if target is None or target.kind == "field" or target.method == "dialog":
        return ActionClass.READ
    if target.kind == "control" or target.is_scripted:
        return _by_words(target.words) or ActionClass.READ
    if target.method in ("", "get"):
        says_and_does = _by_words(target.words) is ActionClass.IRREVERSIBLE and _is_final_address(target.url)
        return ActionClass.IRREVERSIBLE if says_and_does else ActionClass.READ
    if _is_final_address(target.url):
        return ActionClass.IRREVERSIBLE
    harmless = ActionClass.REVERSIBLE if _HARMLESS.search(target.words) else ActionClass.IRREVERSIBLE
    return _by_words(target.words) or harmless


def is_final_talk(text: str) -> bool:
    """Whether a question (a dialog's) is about what can't be undone."""
    return _by_words(text) is ActionClass.IRREVERSIBLE


def _by_words(text: str) -> ActionClass | None:
    """None: the words don't tell."""
    text = " ".join(re.sub(r"[_-]", " ", text).split())
    if _CART.search(text):
        text = _REMOVAL.sub("", text)  # what was only laid in there can be laid in again
    if _FINAL.search(text):
        return ActionClass.IRREVERSIBLE
    return ActionClass.REVERSIBLE if _MILD.search(text) else None


def _is_final_address(url: str) -> bool:
    parts = urlsplit(url)
    steps = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", f"{parts.path} {parts.query}").lower())
    if _CART.search(" ".join(steps)):
        steps = [step for step in steps if not _REMOVAL.fullmatch(step)]
    return not _FINAL_STEPS.isdisjoint(steps)


class Sent(NamedTuple):
    """A request as it leaves the page."""

    method: str
    url: str
    body: str = ""
    """Its beginning, as far as it is known."""


def classify_request(sent: Sent, reading: tuple[str, ...]) -> ActionClass:
    """The class of a request; `reading`: patterns of addresses that only read, whatever the method."""
    if sent.method.upper() in SAFE_METHODS or any(fnmatch(sent.url, pattern) for pattern in reading):
        return ActionClass.READ
    queries = _graph_queries(sent.body)
    if queries and all(_READING_QUERY.match(query) and not _MUTATION.search(query) for query in queries):
        return ActionClass.READ
    named = " ".join(re.sub(r"([a-z])([A-Z])", r"\1 \2", query.partition("{")[0]) for query in queries)
    if sent.method.upper() == "DELETE" or _is_final_address(sent.url) or _FINAL.search(named):
        return ActionClass.IRREVERSIBLE
    return ActionClass.REVERSIBLE


def _graph_queries(body: str) -> list[str]:
    """The GraphQL documents that a request carries (GraphQL over HTTP: JSON with ``query``; several as a list)."""
    try:
        data: Any = json.loads(body) if body[:1] in ("{", "[") else None
    except (ValueError, RecursionError):  # or nested deeper than can be read
        return []
    items = data if isinstance(data, list) else [data]
    documents = [item.get("query") if isinstance(item, dict) else None for item in items]
    return [text for text in documents if isinstance(text, str)] if None not in documents else []
