"""What the help desk's gold tasks are put together from: ways to articles and tickets, the state wanted."""

import random
from collections.abc import Callable

from sites.contract import GoldTask, Move, State
from sites.helpdesk.content import Article, Desk, Ticket, initial_state
from sites.moves import Moves, click, enter

Draft = Callable[[Desk, random.Random, int], GoldTask]
"""(desk, rng, number) -> a task without id and kind. The number varies it: 0 is near the start page, 1 further away."""

TICKETS = click("Tickets", "I open the ticket table.")
TEAM = click("Team", "The team page lists the agents.")
KNOWLEDGE_BASE = click("Knowledge base", "I open the knowledge base.")


def wanted(desk: Desk, **changes: object) -> State:
    """The first state with some of its keys replaced."""
    return {**initial_state(desk), **changes}


def with_ticket(desk: Desk, number: str, **changes: object) -> State:
    """The first state with some fields of one ticket replaced."""
    tickets = initial_state(desk)["tickets"]
    return wanted(desk, tickets={**tickets, number: {**tickets[number], **changes}})


def pick_article(desk: Desk, rng: random.Random, number: int, *others: Article) -> Article:
    """An article that isn't bookmarked nor one of the others: one of the start page for task 0, else one that isn't."""
    taken = {desk.bookmarked.slug} | {article.slug for article in others}
    fitting = [a for a in desk.articles if a.slug not in taken and (a in desk.popular) == (number == 0)]
    return rng.choice(fitting)


def pick_tickets(desk: Desk, rng: random.Random, number: int) -> tuple[Ticket, Ticket]:
    """Two different tickets; the first is one of the start page for task 0, else one that isn't."""
    ticket = rng.choice([t for t in desk.tickets if (t in desk.latest) == (number == 0)])
    return ticket, rng.choice([other for other in desk.tickets if other is not ticket])


def look_up(article: Article) -> Moves:
    """From any page to the article by searching."""
    return enter("Search", article.name, f"I search for the {article.name}."), open_article(article)


def browse(article: Article) -> Moves:
    """From any page to the article by its section."""
    section = click(article.section, f"The {article.name} belongs to {article.section}.")
    return KNOWLEDGE_BASE, section, open_article(article)


def open_article(article: Article) -> Move:
    """Follow the article's link."""
    return click(article.name, f"I open the article on the {article.name}.")


def visit(desk: Desk, article: Article) -> Moves:
    """From the start page to the article."""
    return (open_article(article),) if article in desk.popular else look_up(article)


def open_section(section: str) -> Moves:
    """From any page to the section."""
    return KNOWLEDGE_BASE, click(section, f"I open the section {section}.")


def visit_ticket(desk: Desk, ticket: Ticket) -> Moves:
    """From the start page to the ticket."""
    link = click(f"#{ticket.number}", f"I open ticket #{ticket.number}.")
    return (link,) if ticket in desk.latest else (TICKETS, link)
