"""Gold tasks about finding things: their goal is an answer or a place, and the state stays as it was."""

import random
from collections.abc import Callable, Iterable, Sequence

from sites.contract import GoldTask
from sites.forum.content import CITIES, YEARS, Forum, Member, Thread, slug
from sites.forum.drafts import open_board, open_page, pick, press_follow, press_upvote, visit, wanted
from sites.moves import Moves, answer, choose, click, done, draft, enter, other_counts, said, said_of_two


def who_started(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Name the member who started a thread."""
    thread = pick(forum, rng, number)
    name, way = thread.starter.name, visit(forum, thread)
    others = [member.name for member in forum.members if member.name != name]
    wrong = rng.choice(others)
    phrases = (
        f"Who started the thread {thread.title}?",
        f"Which member began {thread.title}?",
        f"Find the starter of {thread.title}.",
    )
    end = f"{thread.title} was started by"
    return draft(
        rng.choice(phrases),
        wanted(forum),
        (*way, answer(name, f"{end} {name}.")),
        [(*way, answer(wrong, f"{end} {wrong}.")), (*way, press_upvote(thread), answer(name, f"{end} {name}."))],
        (name,),
        others,
    )


def _of_starter(
    forum: Forum,
    rng: random.Random,
    number: int,
    phrases: Callable[[Member], Sequence[str]],
    fact: Callable[[Member], str],
    possible: Iterable[str],
) -> GoldTask:
    """A question on a member whose profile is reached through a thread that the member started."""
    thread = pick(forum, rng, number)
    member = thread.starter
    wrong = rng.choice([fact(other) for other in forum.members if fact(other) != fact(member)])
    way = (*visit(forum, thread), click(member.name, f"I open the profile of {member.name}."))
    right_end, wrong_end = (answer(text, f"The profile says {text}.") for text in (fact(member), wrong))
    asked = f"{rng.choice(phrases(member))} The member started {thread.title}."
    others = [text for text in possible if text != fact(member)]
    return draft(asked, wanted(forum), (*way, right_end), [(*way, wrong_end), (wrong_end,)], (fact(member),), others)


def member_city(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Say where a member lives."""

    def phrases(member: Member) -> Sequence[str]:
        return (
            f"In which city does {member.name} live?",
            f"Where does {member.name} live?",
            f"Find the city of {member.name}.",
        )

    return _of_starter(forum, rng, number, phrases, lambda member: member.city, CITIES)


def member_joined(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Say since when somebody is a member."""

    def phrases(member: Member) -> Sequence[str]:
        return (
            f"Since which year is {member.name} a member?",
            f"In what year did {member.name} join?",
            f"When did {member.name} become a member?",
        )

    return _of_starter(forum, rng, number, phrases, lambda member: str(member.joined), map(str, YEARS))


def _counted(asked: str, forum: Forum, solution: Moves, misses: Sequence[Moves], count: int) -> GoldTask:
    """A question whose answer is a number."""
    return draft(asked, wanted(forum), solution, misses, said(count), other_counts(count))


def count_replies(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Count a thread's replies."""
    thread = pick(forum, rng, number)
    count, way = len(thread.replies), visit(forum, thread)
    phrases = (
        f"How many replies does {thread.title} have?",
        f"Count the replies to {thread.title}.",
        f"What is the number of replies in {thread.title}?",
    )
    right_end, wrong_end = (answer(str(n), f"{thread.title} has {n} replies.") for n in (count, count + 1))
    misses = [(*way, wrong_end), (*way, press_follow(thread), right_end)]
    return _counted(rng.choice(phrases), forum, (*way, right_end), misses, count)


def count_threads(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Count a board's threads."""
    name = forum.boards[(rng.randrange(2) + 2 * number) % len(forum.boards)]
    count = len(forum.of_board(name))
    phrases = (
        f"How many threads are in {name}?",
        f"Count the threads of the board {name}.",
        f"What is the number of threads in {name}?",
    )
    right_end, wrong_end = (answer(str(n), f"{name} has {n} threads.") for n in (count, count - 1))
    way = (open_board(name),)
    return _counted(rng.choice(phrases), forum, (*way, right_end), [(*way, wrong_end), (wrong_end,)], count)


def compare_votes(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Say which of two threads of the home page has more votes."""
    first, second = rng.sample(forum.recent, 2)
    more, fewer = sorted((first, second), key=lambda thread: -thread.votes)
    phrases = (
        f"Which thread has more votes: {first.title} or {second.title}?",
        f"Does {first.title} or {second.title} have more votes?",
        f"Compare {first.title} and {second.title}: which has more votes?",
    )
    right_end, wrong_end = (
        answer(t.title, f"{more.title} has {more.votes} votes, {fewer.title} has {fewer.votes}.") for t in (more, fewer)
    )
    misses = [(wrong_end,), (open_page(more), press_upvote(more), right_end)]
    accepted = said_of_two(more.title, fewer.title, "has more votes than")
    return draft(rng.choice(phrases), wanted(forum), (right_end,), misses, accepted, (fewer.title,))


def _top(
    forum: Forum,
    rng: random.Random,
    option: str,
    phrases: Callable[[str], Sequence[str]],
    size: Callable[[Thread], int],
) -> GoldTask:
    """A board's first thread in an order that has a clear winner."""

    def ranked(name: str) -> list[Thread]:
        return sorted(forum.of_board(name), key=size, reverse=True)

    clear = [name for name in forum.boards if size(ranked(name)[0]) > size(ranked(name)[1])] or [forum.boards[0]]
    name = rng.choice(clear)
    best = [thread.title for thread in ranked(name) if size(thread) == size(ranked(name)[0])]
    other = ranked(name)[-1].title
    way = (open_board(name), choose("Sort by", option, f"I choose {option}."), click("Apply", "I apply the order."))
    first = ranked(name)[0].title  # sorting keeps equal threads in order, here and on the page
    right_end, wrong_end = (answer(title, f"{title} comes first.") for title in (first, other))
    others = [thread.title for thread in forum.threads if thread.title not in best]
    return draft(
        rng.choice(phrases(name)), wanted(forum), (*way, right_end), [(*way, wrong_end), (wrong_end,)], best, others
    )


def most_replies(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Name a board's thread with the most replies."""

    def phrases(name: str) -> Sequence[str]:
        return (
            f"Which thread in {name} has the most replies?",
            f"Find the most answered thread of {name}.",
            f"What is the title of the thread with the most replies in {name}?",
        )

    return _top(forum, rng, "Most replies", phrases, lambda thread: len(thread.replies))


def most_votes(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Name a board's thread with the most votes."""

    def phrases(name: str) -> Sequence[str]:
        return (
            f"Which thread in {name} has the most votes?",
            f"Find the thread of {name} with the most votes.",
            f"What is the title of the most voted thread in {name}?",
        )

    return _top(forum, rng, "Most votes", phrases, lambda thread: thread.votes)


def open_thread(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Go to a thread's page."""
    thread, other = pick(forum, rng, number), pick(forum, rng, 0)
    while other == thread:
        other = pick(forum, rng, 0)
    phrases = (f"Open the thread {thread.title}.", f"Go to the thread {thread.title}.", f"Show me {thread.title}.")
    end = done(f"{thread.title} is open.")
    way = visit(forum, thread)
    misses = [(*way[:-1], end), (*visit(forum, other), end)]
    return draft(rng.choice(phrases), wanted(forum, location=f"/thread/{thread.slug}"), (*way, end), misses)


def open_place(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Go to a board or to the rules."""
    name = rng.choice(forum.boards) if number == 0 else rng.choice(("Rules", "New thread"))
    path = f"/board/{slug(name)}" if number == 0 else {"Rules": "/info/rules", "New thread": "/new"}[name]
    called = f"board {name}" if number == 0 else f"page {name}"
    phrases = (f"Open the {called}.", f"Go to the {called}.", f"Show me the {called}.")
    end = done(f"{name} is open.")
    misses = [(end,), (click("Settings", "I open Settings."), end)]
    return draft(rng.choice(phrases), wanted(forum, location=path), (open_board(name), end), misses)


def search_count(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Say how many threads a search finds."""
    word = rng.choice(sorted({thread.title.split()[2].casefold() for thread in forum.threads}))
    count = sum(word in thread.title.casefold() for thread in forum.threads)
    phrases = (
        f'Search for "{word}" and say how many threads are found.',
        f'How many threads does a search for "{word}" find?',
        f'Find out how many threads match "{word}".',
    )
    right_end, wrong_end = (answer(str(n), f"The search found {n}.") for n in (count, count + 1))
    way = (enter("Search", word, f"I search for {word}."),)
    return _counted(rng.choice(phrases), forum, (*way, right_end), [(*way, wrong_end), (wrong_end,)], count)
