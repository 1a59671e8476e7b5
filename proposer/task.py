"""Website and Task: what the agent practises on, and what it is asked to do there."""

import hashlib
import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

GYM = "browsergym/"
"""How the suite ids of BrowserGym's tasks begin."""


def split_host(pattern: str) -> tuple[str, int | None]:
    """Host, in small letters, and port (None: not said) of ``example.com``, ``*.example.com:8080`` or ``[::1]``.

    Raises ValueError.
    """
    try:
        parts = urlsplit(f"//{pattern}")
        host, port = parts.hostname, parts.port
        is_all = parts.netloc == pattern and parts.username is None
    except ValueError:  # of a port, or a bracket that isn't closed
        host, port, is_all = None, None, False
    if not host or not is_all or "*" in host.removeprefix("*."):
        raise ValueError(f"{pattern!r}: expected a host, such as example.com, *.example.com or example.com:8080")
    return host, port


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, which then serves the website: guard and manners are about all others."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(pattern: str) -> str:
    split_host(pattern)
    return pattern


class Website(BaseModel):
    """A website that the agent may practise on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What it is called, in prompts and reports; no other website of a config has the same."""
    url: str
    """Where an episode starts. ``practice:<site>`` is a built-in practice site: every episode gets a private world."""
    description: str = ""
    """One sentence for the proposer: what the website is for."""
    allowed_hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    """Hosts reachable besides the start address's own; ``*.example.com`` covers subdomains. Without ``:port`` at 80 and
    443."""

    @property
    def practice_site(self) -> str | None:
        """Name of the built-in practice site behind this website; None for any other website."""
        prefix, _, site = self.url.partition(":")
        return site if prefix == "practice" else None


class PageCheck(BaseModel):
    """What a page has to hold at the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    """The page's; empty: the one on which the episode ended."""
    locator: str = ""
    """A JavaScript expression for the text looked at; empty: the whole page's HTML."""
    exact: str | None = None
    """What the text has to be."""
    must_include: tuple[tuple[str, ...], ...] = ()
    """What the text has to hold: of each entry one of the alternatives."""


class Checks(BaseModel):
    """When a task of a suite counts as done, as WebArena words it (arXiv 2307.13854, section 3.2): all of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exact: str | None = None
    """What the answer has to be (``string_match``, exact_match)."""
    must_include: tuple[str, ...] = ()
    """What the answer has to hold (must_include)."""
    fuzzy: tuple[str, ...] = ()
    """What the answer has to mean (fuzzy_match), which takes a judge."""
    urls: tuple[str, ...] = ()
    """The address at the end has to fit one of these (``url_match``)."""
    pages: tuple[PageCheck, ...] = ()
    """What pages have to hold (``program_html``)."""


class Task(BaseModel):
    """One instruction on one website (the paper's c, drawn from the proposer's C(. | z))."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    website: Website
    instruction: str = Field(min_length=1)
    world: str | None = None
    """Practice sites: the generated world (``train-17``); None on other websites."""
    source: Literal["proposer", "gold", "suite"] = "proposer"
    gold_id: str | None = None
    """Gold tasks of practice sites: their id, from which the checker is found; None for other tasks."""
    suite_id: str | None = None
    """Tasks of a benchmark suite: ``<suite>/<id>``; None for other tasks."""
    seed: int | None = None
    """Tasks that a suite makes from a seed: which; None for other tasks."""
    checks: Checks | None = None
    """Tasks of a suite: how it says whether they are done; None: a judge does, or the suite's own program."""

    @property
    def is_gym(self) -> bool:
        """Whether a program of BrowserGym's says what is to be done, and when it is."""
        return (self.suite_id or "").startswith(GYM)

    @property
    def id(self) -> str:
        """Content hash: the same task on the same world has the same id in every run."""
        url = "" if self.is_gym else self.website.url  # such pages are served at another port each time
        parts = [self.website.name, url, self.world or "", self.gold_id or "", self.instruction]
        if self.suite_id is not None:
            parts += [self.suite_id, str(self.seed)]
        text = "\x1f".join(parts)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def missing_names(instruction: str, page: str) -> list[str]:
    """The proper names (capitalised words, but for the first of a sentence) of an instruction that a page doesn't show.

    What is quoted may be something to write, which no page shows yet.
    """
    unquoted = re.sub(r"[\"“].*?[\"”]", "", instruction)
    names = re.findall(r"(?<=\s)(?<![.!?]\s)[A-Z][\w-]*(?: [A-Z][\w-]*)*", unquoted)
    return [name for name in names if name not in page]
