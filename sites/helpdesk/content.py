"""A generated help desk: its articles, team and tickets, and the state an episode starts with."""

import random
from dataclasses import dataclass
from functools import cached_property

from sites.contract import Split, State, in_split

NUM_POPULAR = 5
NUM_LATEST = 4

SECTIONS: dict[str, tuple[str, ...]] = {
    "Printing": ("Printer", "Scanner", "Plotter", "Copier"),
    "Network": ("Router", "Switch", "Modem", "Repeater"),
    "Displays": ("Monitor", "Projector", "Beamer", "Touchscreen"),
    "Phones": ("Headset", "Deskphone", "Intercom", "Handset"),
    "Computers": ("Laptop", "Tablet", "Workstation", "Dock"),
    "Entry": ("Badge Reader", "Turnstile", "Door Lock", "Gate"),
}
"""Section -> kinds of device."""

BRANDS = tuple(
    "Abacus Anchor Argon Basalt Beacon Boreal Bravo Cinder Cobalt Comet Corvid Cypress Dynamo Echo Emblem Ferro "
    "Flint Galaxy Gecko Halo Helix Iris Jasper Juniper Kestrel Krypton Lotus Lynx Magnet Meteor Nebula Nexus Onyx "
    "Orbit Osprey Panther Pixel Prism Quartz Radius Raven Saturn Sparrow Talon Tango Titan Tundra Umbra Vector Vortex "
    "Walrus Xenon Yonder Zenith".split()
)

FIRST_NAMES = tuple(
    "Aldo Bree Cyril Delia Edda Farid Greta Hugo Ines Jorin Kaia Leif Mira Nils Olga Pavel Ruth Sven Thea".split()
)
LAST_NAMES = tuple(
    "Abend Bauer Castell Drago Engel Falk Grimm Hartog Ibsen Jahn Kovac Lopez Marek Nagel Orlov Prinz Roth".split()
)

ROLES = ("First line", "Hardware", "Networks", "Accounts", "Team lead", "Software")
CABLES = ("red", "blue", "green", "yellow", "black", "white", "grey", "orange")
STATUSES = ("open", "pending", "closed")
PRIORITIES = ("low", "normal", "high")
LANGUAGES = ("English", "German", "French", "Spanish")
PAGE_SIZES = ("5", "10", "20")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
UNASSIGNED = "nobody yet"

SYMPTOMS = (
    "is offline",
    "is slow",
    "keeps restarting",
    "makes a noise",
    "will not start",
    "shows an error",
    "gets hot",
)
REMARKS = ("I checked the plug.", "It started this morning.", "A colleague sees it too.", "A spare part is ordered.")
STEPS = (
    "Switch it off, check the cable, then reset it.",
    "Save your work first, then reset it and wait.",
    "Ask nobody to use it while you reset it.",
)


@dataclass(frozen=True, slots=True)
class Article:
    """What the knowledge base says about one device."""

    name: str
    """The device's name, which is also the article's title."""
    section: str
    error_code: str
    reset_s: int
    """How long a reset takes; no two articles of a world have the same."""
    port: int
    cable: str
    """Colour of its cable."""
    author: str
    revision_date: str
    """Day and month; no two articles of a world have the same."""
    steps: str
    num_helpful: int
    """Votes of others."""

    @property
    def slug(self) -> str:
        """The device's name in the article's address."""
        return slug(self.name)


@dataclass(frozen=True, slots=True)
class Agent:
    """Someone of the team."""

    name: str
    role: str
    extension: str
    office: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket as it is at the start; what becomes of it is in the state."""

    number: str
    subject: str
    status: str
    priority: str
    assignee: str
    room: str
    remark: str
    """The first comment, by the assignee."""


@dataclass(frozen=True)
class Desk:
    """One world of the help desk."""

    articles: tuple[Article, ...]
    popular: tuple[Article, ...]
    """Those on the start page."""
    agents: tuple[Agent, ...]
    tickets: tuple[Ticket, ...]
    """By number; the last ones are on the start page."""
    user: str
    """Name of the person who is signed in."""
    bookmarked: Article
    """The only bookmark at the start."""
    hours: tuple[tuple[str, str], ...]
    """Days and opening hours."""
    phone: str

    @cached_property
    def by_slug(self) -> dict[str, Article]:
        """Articles by the name in their address."""
        return {article.slug: article for article in self.articles}

    @cached_property
    def sections(self) -> tuple[str, ...]:
        """Section names in the order of the knowledge base."""
        return tuple(dict.fromkeys(article.section for article in self.articles))

    @property
    def latest(self) -> tuple[Ticket, ...]:
        """The newest tickets of the start."""
        return self.tickets[-NUM_LATEST:]

    def of_section(self, section: str) -> tuple[Article, ...]:
        """Articles of a section."""
        return tuple(article for article in self.articles if article.section == section)

    def search(self, words: str) -> tuple[Article, ...]:
        """Articles in whose title every word begins some word; none for an empty search."""
        wanted = words.casefold().split()
        return tuple(article for article in self.articles if wanted and _holds(article.name, wanted))

    def names(self) -> set[str]:
        """Proper names made up for this world."""
        return {article.name for article in self.articles} | {agent.name for agent in self.agents} | {self.user}


def slug(name: str) -> str:
    """A name as it stands in an address."""
    return name.casefold().replace(" ", "-")


def _holds(name: str, wanted: list[str]) -> bool:
    words = name.casefold().split()
    return all(any(word.startswith(prefix) for word in words) for prefix in wanted)


def make_content(rng: random.Random, split: Split) -> Desk:
    """The help desk of one world."""
    user, *staff = _people(rng, split, rng.randint(6, 7))
    agents = _agents(rng, staff)
    articles = _articles(rng, split, agents)
    popular = tuple(rng.sample(articles, NUM_POPULAR))
    return Desk(
        articles=articles,
        popular=popular,
        agents=agents,
        tickets=_tickets(rng, articles, agents),
        user=user,
        bookmarked=rng.choice(articles),
        hours=_hours(rng),
        phone=f"555 0{rng.randint(100, 199)}",
    )


def _people(rng: random.Random, split: Split, count: int) -> list[str]:
    """Different names of a split."""
    names = [name for first in FIRST_NAMES for last in LAST_NAMES if in_split(name := f"{first} {last}", split)]
    return rng.sample(names, count)


def _agents(rng: random.Random, names: list[str]) -> tuple[Agent, ...]:
    extensions, offices = rng.sample(range(2000, 9000), len(names)), rng.sample(range(11, 60), len(names))
    return tuple(
        Agent(name, rng.choice(ROLES), str(extension), f"{rng.choice('ABCD')}{office}")
        for name, extension, office in zip(names, extensions, offices, strict=True)
    )


def _articles(rng: random.Random, split: Split, agents: tuple[Agent, ...]) -> tuple[Article, ...]:
    sections = [name for name in rng.sample(list(SECTIONS), 4) for _ in range(rng.randint(3, 5))]
    codes, ports = rng.sample(range(100, 1000), len(sections)), rng.sample(range(1100, 9900), len(sections))
    resets = rng.sample(range(12, 95), len(sections))
    dates = rng.sample([f"{day} {month}" for month in MONTHS for day in range(1, 29)], len(sections))
    # Brands don't repeat within a world, so a search for a full name finds one article.
    brands: list[str] = rng.sample(BRANDS, len(BRANDS))
    articles = []
    for section, code, port, reset, date in zip(sections, codes, ports, resets, dates, strict=True):
        noun = rng.choice(SECTIONS[section])
        brand = next(word for word in brands if in_split(f"{word} {noun}", split))
        brands.remove(brand)
        articles.append(
            Article(
                name=f"{brand} {noun}",
                section=section,
                error_code=f"E-{code}",
                reset_s=reset,
                port=port,
                cable=rng.choice(CABLES),
                author=rng.choice(agents).name,
                revision_date=date,
                steps=rng.choice(STEPS),
                num_helpful=rng.randint(2, 40),
            )
        )
    return tuple(articles)


def _tickets(rng: random.Random, articles: tuple[Article, ...], agents: tuple[Agent, ...]) -> tuple[Ticket, ...]:
    count = rng.randint(8, 12)
    devices = rng.sample(articles, count)
    # Each status and priority occurs.
    statuses = rng.sample([*STATUSES, *rng.choices(STATUSES, k=count - 3)], count)
    priorities = rng.sample([*PRIORITIES, *rng.choices(PRIORITIES, k=count - 3)], count)
    numbers = sorted(rng.sample(range(100, 990), count))
    return tuple(
        Ticket(
            number=str(number),
            subject=f"{device.name} {rng.choice(SYMPTOMS)}",
            status=status,
            priority=priority,
            assignee=rng.choice(agents).name,
            room=make_room(rng),
            remark=rng.choice(REMARKS),
        )
        for number, device, status, priority in zip(numbers, devices, statuses, priorities, strict=True)
    )


def make_room(rng: random.Random) -> str:
    """Some room of the house."""
    return f"{rng.choice('ABCD')}{rng.randint(11, 59)}"


def _hours(rng: random.Random) -> tuple[tuple[str, str], ...]:
    weekdays, friday, saturday = (f"{rng.randint(7, 10)}:00 to {rng.randint(14, 19)}:00" for _ in range(3))
    return ("Monday to Thursday", weekdays), ("Friday", friday), ("Saturday", saturday), ("Sunday", "closed")


def initial_state(desk: Desk) -> State:
    """The state of a fresh episode."""
    return {
        "tickets": {ticket.number: _ticket_state(ticket) for ticket in desk.tickets},
        "bookmarks": [desk.bookmarked.slug],
        "votes": {},
        "settings": {"language": "English", "items_per_page": "20", "digest": True},
    }


def _ticket_state(ticket: Ticket) -> State:
    return {
        "subject": ticket.subject,
        "status": ticket.status,
        "priority": ticket.priority,
        "assignee": ticket.assignee,
        "room": ticket.room,
        "comments": [{"author": ticket.assignee, "text": ticket.remark}],
    }
