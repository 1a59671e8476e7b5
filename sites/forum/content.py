"""What one world of the forum holds: members, boards and threads, made from a seed."""

import random
from dataclasses import dataclass
from functools import cached_property

from sites.contract import Split, State, in_split

BOARDS = ("Gardening", "Cooking", "Cycling", "Music", "Travel", "Repairs", "Photography", "Chess")
THREADS_PER_BOARD = (5, 9)
PAGE_SIZE = 6
NUM_RECENT = 5
DIGESTS = ("Daily", "Weekly", "Never")
THEMES = ("Light", "Dark", "Sepia")
MEMBER = "Sam Rivers"
"""Who is signed in, in every world."""

QUALITIES = tuple(
    "Rusty Quiet Broken Early Hidden Loose Sudden Perfect Strange Lucky Frozen Missing Second Famous Gentle Endless "
    "Faded Clever Bitter Noisy Patient Borrowed Crooked Sunny".split()
)
THINGS = tuple(
    "Chain Tomato Engine Violin Camera Bread Garden Bishop Harbor Lantern Pedal Compost Melody Tripod Passport Hammer "
    "Recipe Window Opening Sourdough Saddle Ticket Zipper Orchid".split()
)
MATTERS = ("Question", "Story", "Guide", "Problem", "Idea", "Review")
FIRST_NAMES = tuple(
    "Ada Boris Clara Dario Elif Farid Greta Hugo Ines Jonas Kaya Leon Mira Nils Olga Pavel Quentin Rosa Selma Timur "
    "Ursula Viktor Wanda Yara".split()
)
LAST_NAMES = tuple(
    "Archer Bloom Castle Dale Ember Frost Grove Harper Ivers Jordan Keller Lane Mason North Osman Pike Quill Reed "
    "Sharp Thorn Vance Winter York Zeller".split()
)
YEARS = range(2009, 2025)
CITIES = ("Lisbon", "Oslo", "Turin", "Ghent", "Krakow", "Malmo", "Porto", "Basel", "Split", "Cork", "Graz", "Lyon")
REMARKS = (
    "I had the same last year.",
    "Try it again in spring.",
    "A new one costs little.",
    "That worked for me.",
    "Could you show a picture?",
    "I would ask an expert.",
    "Thanks, this helped a lot.",
    "It depends on the weather.",
)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the forum."""

    name: str
    city: str
    joined: int
    """Year."""
    num_posts: int

    @property
    def slug(self) -> str:
        """The member's name in the address of the profile."""
        return slug(self.name)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a member wrote in a thread."""

    author: Member
    text: str


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread; `day` counts from the forum's first day, so a higher one is newer."""

    title: str
    board: str
    starter: Member
    text: str
    day: int
    votes: int
    replies: tuple[Reply, ...]

    @property
    def slug(self) -> str:
        """The thread's title in its address."""
        return slug(self.title)


@dataclass(frozen=True)
class Forum:
    """One world of the forum."""

    members: tuple[Member, ...]
    boards: tuple[str, ...]
    threads: tuple[Thread, ...]

    @cached_property
    def by_slug(self) -> dict[str, Thread]:
        """Threads by the title in their address."""
        return {thread.slug: thread for thread in self.threads}

    @cached_property
    def member_by_slug(self) -> dict[str, Member]:
        """Members by the name in their address."""
        return {member.slug: member for member in self.members}

    @cached_property
    def recent(self) -> tuple[Thread, ...]:
        """The newest threads, as the home page lists them."""
        return tuple(sorted(self.threads, key=lambda thread: -thread.day)[:NUM_RECENT])

    def of_board(self, board: str) -> list[Thread]:
        """The threads of a board, newest first."""
        return sorted((t for t in self.threads if t.board == board), key=lambda thread: -thread.day)

    def names(self) -> set[str]:
        """All proper names that belong to this world."""
        return {member.name for member in self.members} | {thread.title for thread in self.threads}


def slug(name: str) -> str:
    """A name as it stands in an address."""
    return name.lower().replace(" ", "-")


def make_content(rng: random.Random, split: Split) -> Forum:
    """A world of the forum."""
    members = tuple(
        Member(name, rng.choice(CITIES), rng.choice(YEARS), rng.randint(3, 900))
        for name in _names(rng, split, 12, FIRST_NAMES, LAST_NAMES)
    )
    boards = tuple(rng.sample(BOARDS, 4))
    places = [board for board in boards for _ in range(rng.randint(*THREADS_PER_BOARD))]
    titles = _names(rng, split, len(places), QUALITIES, THINGS, MATTERS)
    days = rng.sample(range(1, 400), len(places))
    votes = rng.sample(range(60), len(places))  # no two alike, so that comparisons and orders are clear
    threads = tuple(
        Thread(title, board, rng.choice(members), rng.choice(REMARKS), day, count, _replies(rng, members))
        for title, board, day, count in zip(titles, places, days, votes, strict=True)
    )
    return Forum(members, boards, threads)


def _names(rng: random.Random, split: Split, count: int, *parts: tuple[str, ...]) -> list[str]:
    """Different names of the split, no two with the same first word pair."""
    found: dict[tuple[str, ...], str] = {}
    while len(found) < count:
        words = tuple(rng.choice(part) for part in parts)
        if in_split(" ".join(words), split):
            found.setdefault(words[:2], " ".join(words))
    return list(found.values())


def _replies(rng: random.Random, members: tuple[Member, ...]) -> tuple[Reply, ...]:
    return tuple(Reply(rng.choice(members), remark) for remark in rng.sample(REMARKS, rng.randint(1, 6)))


def initial_state(forum: Forum) -> State:
    """Nothing voted, followed or written yet."""
    return {
        "votes": [],
        "following": [],
        "replies": [],
        "threads": [],
        "settings": {"digest": "Weekly", "theme": "Light", "signature": ""},
    }
