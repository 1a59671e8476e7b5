"""Gold tasks about finding things: their goal is an answer or a place, and the state stays as it was."""

import random
from collections.abc import Sequence

from sites.contract import GoldTask
from sites.helpdesk.content import CABLES, MONTHS, PRIORITIES, STATUSES, Article, Desk, slug
from sites.helpdesk.drafts import (
    TEAM,
    TICKETS,
    browse,
    look_up,
    open_article,
    open_section,
    pick_article,
    pick_tickets,
    visit,
    visit_ticket,
    wanted,
)
from sites.helpdesk.routes import SORTS
from sites.moves import Moves, answer, choose, click, done, draft, enter, other_counts, said, said_of_two

FACTS = ("error code", "reset time", "port", "cable colour", "author", "revision date")

PLACES = {
    "contact": ("Contact", "contact page"),
    "team": ("Team", "team page"),
    "bookmarks": ("Bookmarks", "list of bookmarks"),
    "settings": ("Settings", "settings page"),
    "tickets/new": ("New ticket", "form for a new ticket"),
}
"""Path -> its link, and what a task calls it."""


def _counted(desk: Desk, asked: Sequence[str], rng: random.Random, way: Moves, right: int, what: str) -> GoldTask:
    """A task whose answer is a number that the last page of the way shows."""

    def say(number: int) -> Moves:
        return *way, answer(str(number), f"The page shows {number} {what}.")

    return draft(
        rng.choice(asked),
        wanted(desk),
        say(right),
        [say(right + 1), say(right + 3), (answer(str(right + 2), "I guess the number."),)],
        answers=said(right),
        distractors=other_counts(right),
    )


def find_fact(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Which error code, reset time, port, cable colour, author or revision date does an article give?"""
    article = pick_article(desk, rng, number)
    name, fact = article.name, rng.choice(FACTS)
    right, wrong = _fact(desk, article, fact)
    unit = " in seconds" if fact == "reset time" else ""
    instruction = rng.choice(
        (
            f"What is the {fact} of the {name}{unit}?",
            f"Find the {fact} of the {name}{unit}.",
            f"Look up the article on the {name} and tell me its {fact}{unit}.",
            f"Tell me which {fact}{unit} the article on the {name} gives.",
        )
    )
    way = rng.choice((look_up, browse))(article) if number else visit(desk, article)

    def say(text: str) -> Moves:
        return *way, answer(text, f"The article on the {name} says {fact}: {text}.")

    return draft(
        instruction,
        wanted(desk),
        say(right),
        [say(text) for text in rng.sample(wrong, 2)],
        answers=[right, *_turned(right)],
        distractors=[*wrong, *(text for date in (right, *wrong) for text in _turned(date))],  # so only by itself
    )


def _turned(fact: str) -> tuple[str, ...]:
    """A date such as ``3 March`` as ``March 3``; nothing of other facts."""
    day, _, month = fact.partition(" ")
    return (f"{month} {day}",) if month in MONTHS else ()


def _fact(desk: Desk, article: Article, fact: str) -> tuple[str, list[str]]:
    """What the article says, and wrong answers that stand elsewhere."""
    if fact == "cable colour":
        return article.cable, [colour for colour in CABLES if colour != article.cable]
    if fact == "author":
        return article.author, [agent.name for agent in desk.agents if agent.name != article.author]
    of = {
        "error code": lambda a: a.error_code,
        "reset time": lambda a: str(a.reset_s),
        "port": lambda a: str(a.port),
        "revision date": lambda a: a.revision_date,
    }
    return of[fact](article), [of[fact](other) for other in desk.articles if other is not article]


def agent_fact(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Which extension or office has an agent?"""
    agent, fact = rng.choice(desk.agents), ("extension", "office")[number]
    right = getattr(agent, fact)
    wrong = [getattr(other, fact) for other in desk.agents if other is not agent]
    instruction = rng.choice(
        (
            f"What is the {fact} of {agent.name}?",
            f"Which {fact} does {agent.name} have?",
            f"Find the {fact} of {agent.name} on the team page.",
        )
    )

    def say(text: str) -> Moves:
        return TEAM, answer(text, f"The {fact} of {agent.name} is {text}.")

    misses = [say(text) for text in rng.sample(wrong, 2)]
    return draft(instruction, wanted(desk), say(right), misses, answers=[right], distractors=wrong)


def count_tickets(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """How many tickets are open (task 0), or have another status (task 1)?"""
    status = "open" if number == 0 else rng.choice(STATUSES[1:])
    asked = (
        f"How many tickets are {status}?",
        f"Count the {status} tickets.",
        f"Tell me the number of tickets with the status {status}.",
    )
    right = sum(ticket.status == status for ticket in desk.tickets)
    return _counted(desk, asked, rng, _filtered(status), right, f"{status} tickets")


def count_articles(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """How many articles has a section?"""
    section = rng.choice(desk.sections)
    asked = (
        f"How many articles are in the section {section}?",
        f"Count the articles in the {section} section of the knowledge base.",
        f"What is the number of articles in {section}?",
    )
    return _counted(desk, asked, rng, open_section(section), len(desk.of_section(section)), f"articles in {section}")


def compare(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Which of two devices resets faster, or slower? Both are in one section for task 0."""
    if number == 0:
        one, two = rng.sample(desk.of_section(rng.choice(desk.sections)), 2)
        way = open_section(one.section)
    else:
        one = pick_article(desk, rng, 0)
        two = pick_article(desk, rng, 1)
        way = (open_article(one), *look_up(two))
    word = rng.choice(("faster", "slower"))
    right, wrong = sorted((one, two), key=lambda article: article.reset_s, reverse=word == "slower")
    instruction = rng.choice(
        (
            f"Which device resets {word}: the {one.name} or the {two.name}?",
            f"Compare the reset times of the {one.name} and the {two.name}. Which one is {word}?",
            f"Is the {one.name} or the {two.name} {word} to reset?",
        )
    )
    because = f"The {one.name} takes {one.reset_s} seconds and the {two.name} {two.reset_s}."
    said = (wrong.name, f"{one.name} or {two.name}", str(right.reset_s))
    return draft(
        instruction,
        wanted(desk),
        (*way, answer(right.name, because)),
        [(*way, answer(text, because)) for text in said],
        answers=said_of_two(right.name, wrong.name, f"resets {word} than", f"is {word} than"),
        distractors=[wrong.name],
    )


def compare_tickets(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Which of two tickets has the higher priority (task 0), or the lower (task 1)?"""
    one = rng.choice(desk.tickets)
    two = rng.choice([ticket for ticket in desk.tickets if ticket.priority != one.priority])
    word = ("higher", "lower")[number]
    right, wrong = sorted((one, two), key=lambda t: PRIORITIES.index(t.priority), reverse=word == "higher")
    first, second = f"#{one.number}", f"#{two.number}"
    instruction = rng.choice(
        (
            f"Which ticket has the {word} priority: {first} or {second}?",
            f"Compare the priorities of the tickets {first} and {second}. Which one is {word}?",
            f"Is the priority of ticket {first} or of ticket {second} {word}? Answer with the number.",
        )
    )
    because = f"Ticket {first} has the priority {one.priority} and {second} {two.priority}."
    said = (f"#{wrong.number}", f"{first} or {second}", right.priority)
    return draft(
        instruction,
        wanted(desk),
        (TICKETS, answer(f"#{right.number}", because)),
        [(TICKETS, answer(text, because)) for text in said],
        answers=[
            right.number,
            *said_of_two(f"#{right.number}", f"#{wrong.number}", f"has a {word} priority than"),
        ],
        distractors=[wrong.number, f"#{wrong.number}"],
    )


def navigate(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Go to a page of the menus (task 0), or to an article, section or ticket (task 1)."""
    thing, location, way, astray = _place(rng) if number == 0 else _far_place(desk, rng)
    instruction = rng.choice((f"Go to the {thing}.", f"Open the {thing}.", f"Show me the {thing}."))
    end = done("I am on the page that was asked for.")
    return draft(instruction, wanted(desk, location=location), (*way, end), [(*way[:-1], end), (*astray, end)])


def _place(rng: random.Random) -> tuple[str, str, Moves, Moves]:
    path, other = rng.sample(list(PLACES), 2)
    (link, thing), (wrong, _) = PLACES[path], PLACES[other]
    return thing, f"/{path}", (click(link, f"I follow {link}."),), (click(wrong, f"I follow {wrong}."),)


def _far_place(desk: Desk, rng: random.Random) -> tuple[str, str, Moves, Moves]:
    match rng.choice(("article", "section", "ticket")):
        case "article":
            article = pick_article(desk, rng, 1)
            neighbour = pick_article(desk, rng, 1, article)
            return f"article on the {article.name}", f"/article/{article.slug}", browse(article), browse(neighbour)
        case "section":
            section, other = rng.sample(desk.sections, 2)
            return (
                f"{section} section of the knowledge base",
                f"/section/{slug(section)}",
                open_section(section),
                open_section(other),
            )
        case _:
            ticket, other = pick_tickets(desk, rng, 1)
            thing = f"page of ticket #{ticket.number}"
            return thing, f"/ticket/{ticket.number}", visit_ticket(desk, ticket), visit_ticket(desk, other)


def search(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Show the articles that match a word (task 0), or say how many there are (task 1)."""
    word, other = (text.casefold() for text in rng.sample(sorted({a.name.split()[-1] for a in desk.articles}), 2))
    look = enter("Search", word, f'I search for "{word}".')
    if number == 0:
        asked = (
            f'Search the knowledge base for "{word}".',
            f'Search for "{word}" and show the articles that match.',
            f'Use the search of the help desk to look for "{word}".',
        )
        end = done(f'The articles that match "{word}" are shown.')
        astray = enter("Search", other, f'I search for "{other}".')
        return draft(
            rng.choice(asked), wanted(desk, location=f"/search?q={word}"), (look, end), [(astray, end), (end,)]
        )
    asked = (
        f'How many articles match a search for "{word}"?',
        f'Search for "{word}" and tell me how many articles match.',
        f'Search for "{word}". What is the number of articles found?',
    )
    return _counted(desk, asked, rng, (look,), len(desk.search(word)), f'articles that match "{word}"')


def filter_by_status(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Show the tickets of one status."""
    status, wrong = rng.sample(STATUSES, 2)
    asked = (
        f"Show only the {status} tickets.",
        f"Filter the tickets by the status {status}.",
        f"List the tickets that are {status} and no others.",
    )
    end = done(f"Only {status} tickets are shown.")
    way = _filtered(status)
    misses = [(TICKETS, end), (*way[:-1], end), (*_filtered(wrong), end)]
    return draft(rng.choice(asked), wanted(desk, location=f"/tickets?status={status}"), (*way, end), misses)


def _filtered(status: str) -> Moves:
    select = choose("Status", status, f"I choose the status {status}.")
    return TICKETS, select, click("Apply", "I apply the filter.")


def sort(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Show the tickets in an order."""
    by, wrong = rng.sample([value for value in SORTS if value], 2)
    order = {"-number": "newest first", "priority": "most urgent first", "assignee": "by assignee"}[by]
    asked = (
        f"Sort the tickets {order}.",
        f"Show the ticket table sorted {order}.",
        f"Open the tickets and sort them {order}.",
    )
    end = done("The tickets are sorted as asked.")
    way = _sorted(by)
    misses = [(TICKETS, end), (*way[:-1], end), (*_sorted(wrong), end)]
    return draft(rng.choice(asked), wanted(desk, location=f"/tickets?sort={by}"), (*way, end), misses)


def _sorted(by: str) -> Moves:
    return TICKETS, choose("Sort by", SORTS[by], f"I choose {SORTS[by]}."), click("Apply", "I apply the order.")
