"""What the forum's gold tasks are put together from: ways to threads and boards, the state wanted."""

import random
from collections.abc import Callable

from sites.contract import GoldTask, Move, State
from sites.forum.content import Forum, Thread, initial_state
from sites.moves import Moves, click, enter

Draft = Callable[[Forum, random.Random, int], GoldTask]
"""(forum, rng, number) -> a task without id and kind. The number varies it: 0 is near the home page, 1 further away."""


def pick(forum: Forum, rng: random.Random, number: int, *others: Thread) -> Thread:
    """A thread that is none of the others: one of the home page for task 0, else one that isn't."""
    fitting = [t for t in forum.threads if t not in others and (t in forum.recent) == (number == 0)]
    return rng.choice(fitting)


def visit(forum: Forum, thread: Thread) -> Moves:
    """From the home page to a thread's page."""
    found = () if thread in forum.recent else (look_up(thread),)
    return (*found, open_page(thread))


def open_page(thread: Thread) -> Move:
    """Follow the thread's link."""
    return click(thread.title, f"I open {thread.title}.")


def open_board(name: str) -> Move:
    """Follow the link of a board, or of a page of the menu."""
    return click(name, f"I open {name}.")


def look_up(thread: Thread) -> Move:
    """From any page to a page with the thread's link."""
    return enter("Search", thread.title, f"I search for {thread.title}.")


def wanted(forum: Forum, **changes: object) -> State:
    """The first state with some of its keys replaced."""
    return {**initial_state(forum), **changes}


def press_upvote(thread: Thread) -> Move:
    """Upvote the thread shown."""
    return click(f"Upvote {thread.title}", f"I upvote {thread.title}.")


def press_follow(thread: Thread) -> Move:
    """Follow the thread shown."""
    return click(f"Follow {thread.title}", f"I follow {thread.title}.")
