"""The forum's gold tasks: a couple of each kind per world."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sites.contract import GoldTask, Move, State
from sites.forum.content import CITIES, DIGESTS, THEMES, YEARS, Forum, Member, Thread, initial_state, slug
from sites.moves import Moves, answer, choose, click, done, draft, enter, other_counts, said

TASKS_PER_KIND = 2
REPLIES = ("Good luck with it", "I will try this", "Same here", "Ask in the shop", "Please tell us more", "Well done")
TEXTS = ("Who can help", "Any advice is welcome", "What do you think", "Please share yours")
HEADINGS = ("My first attempt", "Looking for a tutor", "Swap meeting in May", "Spare parts wanted")


def _pick(forum: Forum, rng: random.Random, number: int, *others: Thread) -> Thread:
    """A thread that is none of the others: one of the home page for task 0, else one that isn't."""
    fitting = [t for t in forum.threads if t not in others and (t in forum.recent) == (number == 0)]
    return rng.choice(fitting)


def _visit(forum: Forum, thread: Thread) -> Moves:
    """From the home page to a thread's page."""
    found = () if thread in forum.recent else (_find(thread),)
    return (*found, _open(thread))


def _open(thread: Thread) -> Move:
    return click(thread.title, f"I open {thread.title}.")


def _board(name: str) -> Move:
    return click(name, f"I open {name}.")


def _find(thread: Thread) -> Move:
    return enter("Search", thread.title, f"I search for {thread.title}.")


def _wanted(forum: Forum, **changes: object) -> State:
    return {**initial_state(forum), **changes}


def _upvote(thread: Thread) -> Move:
    return click(f"Upvote {thread.title}", f"I upvote {thread.title}.")


def _follow(thread: Thread) -> Move:
    return click(f"Follow {thread.title}", f"I follow {thread.title}.")


def who_started(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Name the member who started a thread."""
    thread = _pick(forum, rng, number)
    name, way = thread.starter.name, _visit(forum, thread)
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
        _wanted(forum),
        (*way, answer(name, f"{end} {name}.")),
        [(*way, answer(wrong, f"{end} {wrong}.")), (*way, _upvote(thread), answer(name, f"{end} {name}."))],
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
    thread = _pick(forum, rng, number)
    member = thread.starter
    wrong = rng.choice([fact(other) for other in forum.members if fact(other) != fact(member)])
    way = (*_visit(forum, thread), click(member.name, f"I open the profile of {member.name}."))
    right_end, wrong_end = (answer(text, f"The profile says {text}.") for text in (fact(member), wrong))
    asked = f"{rng.choice(phrases(member))} The member started {thread.title}."
    others = [text for text in possible if text != fact(member)]
    return draft(asked, _wanted(forum), (*way, right_end), [(*way, wrong_end), (wrong_end,)], (fact(member),), others)


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
    return draft(asked, _wanted(forum), solution, misses, said(count), other_counts(count))


def count_replies(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Count a thread's replies."""
    thread = _pick(forum, rng, number)
    count, way = len(thread.replies), _visit(forum, thread)
    phrases = (
        f"How many replies does {thread.title} have?",
        f"Count the replies to {thread.title}.",
        f"What is the number of replies in {thread.title}?",
    )
    right_end, wrong_end = (answer(str(n), f"{thread.title} has {n} replies.") for n in (count, count + 1))
    misses = [(*way, wrong_end), (*way, _follow(thread), right_end)]
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
    way = (_board(name),)
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
    misses = [(wrong_end,), (_open(more), _upvote(more), right_end)]
    return draft(rng.choice(phrases), _wanted(forum), (right_end,), misses, (more.title,), (fewer.title,))


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
    way = (_board(name), choose("Sort by", option, f"I choose {option}."), click("Apply", "I apply the order."))
    first = ranked(name)[0].title  # sorting keeps equal threads in order, here and on the page
    right_end, wrong_end = (answer(title, f"{title} comes first.") for title in (first, other))
    others = [thread.title for thread in forum.threads if thread.title not in best]
    return draft(
        rng.choice(phrases(name)), _wanted(forum), (*way, right_end), [(*way, wrong_end), (wrong_end,)], best, others
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
    thread, other = _pick(forum, rng, number), _pick(forum, rng, 0)
    while other == thread:
        other = _pick(forum, rng, 0)
    phrases = (f"Open the thread {thread.title}.", f"Go to the thread {thread.title}.", f"Show me {thread.title}.")
    end = done(f"{thread.title} is open.")
    way = _visit(forum, thread)
    misses = [(*way[:-1], end), (*_visit(forum, other), end)]
    return draft(rng.choice(phrases), _wanted(forum, location=f"/thread/{thread.slug}"), (*way, end), misses)


def open_place(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Go to a board or to the rules."""
    name = rng.choice(forum.boards) if number == 0 else rng.choice(("Rules", "New thread"))
    path = f"/board/{slug(name)}" if number == 0 else {"Rules": "/info/rules", "New thread": "/new"}[name]
    called = f"board {name}" if number == 0 else f"page {name}"
    phrases = (f"Open the {called}.", f"Go to the {called}.", f"Show me the {called}.")
    end = done(f"{name} is open.")
    misses = [(end,), (click("Settings", "I open Settings."), end)]
    return draft(rng.choice(phrases), _wanted(forum, location=path), (_board(name), end), misses)


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


def reply(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Post a reply."""
    thread, (text, other) = _pick(forum, rng, number), rng.sample(REPLIES, 2)
    phrases = (
        f'Reply "{text}" in the thread {thread.title}.',
        f'Post the reply "{text}" to {thread.title}.',
        f'Answer {thread.title} with "{text}".',
    )
    way, end = _visit(forum, thread), done("My reply was posted.")
    write = enter("Reply", text, f"I reply {text}.")
    wrong = enter("Reply", other, f"I reply {other}.")
    state = _wanted(forum, replies=[{"thread": thread.slug, "text": text}])
    misses = [(*way, end), (*way, wrong, end), (*way, write, write, end)]
    return draft(rng.choice(phrases), state, (*way, write, end), misses)


def upvote(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Upvote a thread."""
    thread = _pick(forum, rng, number)
    other = _pick(forum, rng, 0, thread)
    phrases = (f"Upvote the thread {thread.title}.", f"Give {thread.title} your vote.", f"Vote for {thread.title}.")
    way, end = _visit(forum, thread), done(f"I upvoted {thread.title}.")
    misses = [(*way, end), (*_visit(forum, other), _upvote(other), end), (*way, _upvote(thread), _follow(thread), end)]
    return draft(rng.choice(phrases), _wanted(forum, votes=[thread.slug]), (*way, _upvote(thread), end), misses)


def follow(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Follow a thread."""
    thread = _pick(forum, rng, number)
    other = _pick(forum, rng, 0, thread)
    phrases = (
        f"Follow the thread {thread.title}.",
        f"Start following {thread.title}.",
        f"I want to follow {thread.title}.",
    )
    way, end = _visit(forum, thread), done(f"I follow {thread.title}.")
    misses = [(*way, end), (*_visit(forum, other), _follow(other), end), (*way, _upvote(thread), end)]
    return draft(rng.choice(phrases), _wanted(forum, following=[thread.slug]), (*way, _follow(thread), end), misses)


def upvote_and_follow(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Upvote and follow the same thread."""
    thread = _pick(forum, rng, number)
    phrases = (
        f"Upvote and follow {thread.title}.",
        f"Vote for {thread.title} and follow it.",
        f"Follow {thread.title} and give it your vote.",
    )
    way, end = _visit(forum, thread), done(f"I upvoted and follow {thread.title}.")
    state = _wanted(forum, votes=[thread.slug], following=[thread.slug])
    both = (_upvote(thread), _follow(thread))
    misses = [(*way, both[0], end), (*way, both[1], end)]
    return draft(rng.choice(phrases), state, (*way, *both, end), misses)


def new_thread(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Create a thread."""
    board, title, text = rng.choice(forum.boards[1:]), HEADINGS[rng.randrange(2) + 2 * number], rng.choice(TEXTS)
    phrases = (
        f'Create a thread "{title}" with the text "{text}" in {board}.',
        f'Start a new thread in {board}: title "{title}", text "{text}".',
        f'Post a new thread titled "{title}" with the text "{text}" on the board {board}.',
    )
    fill = (
        click("New thread", "I open New thread."),
        enter("Title", title, f"I type the title {title}."),
        enter("Text", text, f"I type the text {text}."),
    )
    pick, create = choose("Board", board, f"I choose {board}."), click("Create thread", "I create the thread.")
    end = done("The thread was created.")
    state = _wanted(forum, threads=[{"board": board, "title": title, "text": text}])
    return draft(rng.choice(phrases), state, (*fill, pick, create, end), [(*fill, create, end), (*fill, pick, end)])


def change_setting(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Change the digest, or the theme."""
    label, key, options = (("E-mail digest", "digest", DIGESTS), ("Theme", "theme", THEMES))[number % 2]
    first = initial_state(forum)["settings"]
    value, other = rng.sample([option for option in options if option != first[key]], 2)
    called = label.lower()
    phrases = (
        f"Set the {called} to {value}.",
        f"Change the {called} to {value}.",
        f"I want the {called} to be {value}.",
    )
    way = (click("Settings", "I open Settings."), choose(label, value, f"I choose {value}."))
    wrong = (way[0], choose(label, other, f"I choose {other}."))
    save, end = click("Save", "I save the settings."), done("The settings are saved.")
    state = _wanted(forum, settings=first | {key: value})
    return draft(rng.choice(phrases), state, (*way, save, end), [(*way, end), (*wrong, save, end)])


Draft = Callable[[Forum, random.Random, int], GoldTask]
KINDS: tuple[Draft, ...] = (
    who_started,
    member_city,
    member_joined,
    count_replies,
    count_threads,
    compare_votes,
    most_replies,
    most_votes,
    open_thread,
    open_place,
    search_count,
    reply,
    upvote,
    follow,
    upvote_and_follow,
    new_thread,
    change_setting,
)


def make_tasks(forum: Forum, rng: random.Random, prefix: str) -> Sequence[GoldTask]:
    """The world's gold tasks, no instruction twice."""
    tasks: dict[str, GoldTask] = {}
    for make in KINDS:
        for number in range(TASKS_PER_KIND):
            task = make(forum, rng, number)
            while task.instruction in tasks:
                task = make(forum, rng, number)
            kind = make.__name__
            tasks[task.instruction] = replace(task, id=f"{prefix}/{kind}-{number}", kind=kind)
    return tuple(tasks.values())
