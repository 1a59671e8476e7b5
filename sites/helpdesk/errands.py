"""Gold tasks that change something: tickets, bookmarks, votes, settings. Their goal is the whole final state."""

import random
from collections.abc import Sequence

from sites.contract import GoldTask
from sites.helpdesk.content import (
    LANGUAGES,
    PAGE_SIZES,
    PRIORITIES,
    STATUSES,
    UNASSIGNED,
    Desk,
    Ticket,
    initial_state,
    make_room,
)
from sites.helpdesk.drafts import look_up, pick_article, pick_tickets, visit, visit_ticket, wanted, with_ticket
from sites.moves import Moves, choose, click, done, draft, enter

COMMENTS = (
    "Cable replaced",
    "Works again now",
    "Waiting for a spare part",
    "Reset did not help",
    "I will come at noon",
    "Please switch it off",
    "Tested without errors",
)
SUBJECTS = (
    "Keyboard is broken",
    "No sound in the meeting room",
    "Screen stays dark",
    "Need a second monitor",
    "Mouse is missing",
    "Cannot log in",
    "Paper is stuck",
)

SET_WORDINGS = (
    "Set the {field} of ticket #{ticket} to {value}.",
    "Change ticket #{ticket} to the {field} {value}.",
    "Ticket #{ticket} should have the {field} {value}. Save it.",
)
ASSIGN_WORDINGS = (
    "Assign ticket #{ticket} to {value}.",
    "Set the assignee of ticket #{ticket} to {value}.",
    "{value} should work on ticket #{ticket}. Assign it and save.",
)

BOOKMARK = click("Bookmark", "I bookmark the article.")
SAVE = click("Save", "I save the settings.")
SETTINGS = click("Settings", "I open the settings.")


def comment(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Add a comment with an exact text to a ticket."""
    ticket, other = pick_tickets(desk, rng, number)
    text, wrong = rng.sample(COMMENTS, 2)
    instruction = rng.choice(
        (
            f'Add the comment "{text}" to ticket #{ticket.number}.',
            f'Comment "{text}" on ticket #{ticket.number}.',
            f'Write "{text}" as a comment on ticket #{ticket.number}.',
        )
    )
    end = done(f"My comment stands under #{ticket.number}.")

    def write(ticket: Ticket, text: str) -> Moves:
        return *visit_ticket(desk, ticket), enter("Comment", text, "I write the comment."), end

    first = initial_state(desk)["tickets"][ticket.number]["comments"]
    return draft(
        instruction,
        with_ticket(desk, ticket.number, comments=[*first, {"author": desk.user, "text": text}]),
        write(ticket, text),
        [(*visit_ticket(desk, ticket), end), write(ticket, wrong), write(other, text)],
    )


def _set_field(
    desk: Desk, rng: random.Random, number: int, field: str, values: Sequence[str], wordings: tuple[str, ...]
) -> GoldTask:
    """Choose another value of a ticket's field and save it."""
    ticket, other = pick_tickets(desk, rng, number)
    value, wrong = rng.sample([value for value in values if value != getattr(ticket, field)], 2)
    instruction = rng.choice(wordings).format(field=field, ticket=ticket.number, value=value)
    save, end = click(f"Save {field}", f"I save the {field}."), done(f"The {field} of #{ticket.number} is {value}.")

    def change(ticket: Ticket, value: str) -> Moves:
        select = choose(field.capitalize(), value, f"I choose {value}.")
        return *visit_ticket(desk, ticket), select, save, end

    right = change(ticket, value)
    return draft(
        instruction,
        with_ticket(desk, ticket.number, **{field: value}),
        right,
        [(*right[:-2], end), change(ticket, wrong), change(other, value)],
    )


def set_status(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Set a ticket's status."""
    return _set_field(desk, rng, number, "status", STATUSES, SET_WORDINGS)


def set_priority(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Set a ticket's priority."""
    return _set_field(desk, rng, number, "priority", PRIORITIES, SET_WORDINGS)


def assign(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Give a ticket to another agent."""
    return _set_field(desk, rng, number, "assignee", [agent.name for agent in desk.agents], ASSIGN_WORDINGS)


def bookmark(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Bookmark an article."""
    article = pick_article(desk, rng, number)
    other, name = pick_article(desk, rng, 0, article), article.name
    instruction = rng.choice(
        (
            f"Bookmark the article on the {name}.",
            f"Add the article on the {name} to my bookmarks.",
            f"Open the article on the {name} and bookmark it.",
        )
    )
    way, end = visit(desk, article), done(f"The {name} is bookmarked.")
    like = click("Helpful", "I mark it.")
    return draft(
        instruction,
        wanted(desk, bookmarks=[desk.bookmarked.slug, article.slug]),
        (*way, BOOKMARK, end),
        [(*way, end), (*visit(desk, other), BOOKMARK, end), (*way, like, end)],
    )


def helpful(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Vote on an article: helpful (task 0) or not helpful (task 1)."""
    article = pick_article(desk, rng, number)
    other, name = pick_article(desk, rng, 0, article), article.name
    key, button, wrong = (("yes", "Helpful", "Not helpful"), ("no", "Not helpful", "Helpful"))[number]
    instruction = rng.choice(
        (
            f"Mark the article on the {name} as {button.casefold()}.",
            f"Vote {button.casefold()} on the article on the {name}.",
            f'Open the article on the {name} and choose "{button}".',
        )
    )
    way, end = visit(desk, article), done(f"My vote on the {name} is counted.")
    vote = click(button, f"I choose {button}.")
    return draft(
        instruction,
        wanted(desk, votes={article.slug: key}),
        (*way, vote, end),
        [(*way, end), (*way, click(wrong, f"I choose {wrong}."), end), (*visit(desk, other), vote, end)],
    )


def new_ticket(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Open a ticket of normal priority (task 0), or of another (task 1)."""
    (subject, wrong), room = rng.sample(SUBJECTS, 2), make_room(rng)
    priority = rng.choice(("low", "high")) if number else "normal"
    extra = f" and the priority {priority}" if number else ""
    instruction = rng.choice(
        (
            f'Create a ticket for room {room} with the subject "{subject}"{extra}.',
            f'Open a new ticket: room {room}, subject "{subject}"{extra}.',
            f'Report "{subject}" in room {room} as a new ticket with this subject{extra}.',
        )
    )
    create, end = click("Create ticket", "I create the ticket."), done("The ticket is created.")

    def fill(subject: str) -> Moves:
        choice = (choose("Priority", priority, f"I choose {priority}."),) if number else ()
        return (
            click("New ticket", "I open the form for a new ticket."),
            enter("Subject", subject, "I type the subject."),
            enter("Room", room, f"I type the room {room}."),
            *choice,
        )

    filled = fill(subject)
    made = {"subject": subject, "room": room, "priority": priority}
    made |= {"status": "open", "assignee": UNASSIGNED, "comments": []}
    new = str(int(desk.tickets[-1].number) + 1)
    return draft(
        instruction,
        wanted(desk, tickets={**initial_state(desk)["tickets"], new: made}),
        (*filled, create, end),
        [(*filled, end), (*fill(wrong), create, end), (*filled[:2], create, end)],
    )


def remove_bookmark(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Take the only bookmark away (task 0), or put another in its place (task 1)."""
    old = desk.bookmarked
    new = pick_article(desk, rng, 0)
    open_bookmarks = click("Bookmarks", "I open my bookmarks.")
    article = click(old.name, f"I open the {old.name}.")
    remove = click("Remove bookmark", "I remove the bookmark.")
    gone: Moves = (open_bookmarks, article, remove)
    if number == 0:
        asked = (
            f"Remove the bookmark of the {old.name}.",
            f"Take the article on the {old.name} out of my bookmarks.",
            f"I no longer need the bookmark of the {old.name}. Remove it.",
        )
        end = done(f"The {old.name} is no longer bookmarked.")
        misses = [(*gone[:2], end), (open_bookmarks, end), (*gone, BOOKMARK, end)]
        return draft(rng.choice(asked), wanted(desk, bookmarks=[]), (*gone, end), misses)
    asked = (
        f"Remove the bookmark of the {old.name} and vote helpful on its article.",
        f"Take the {old.name} out of my bookmarks, then mark its article as helpful.",
        f"Mark the article on the {old.name} as helpful and remove its bookmark.",
    )
    vote = click("Helpful", "I mark it as helpful.")
    end = done(f"The {old.name} has my vote and no bookmark.")
    misses = [(*gone, end), (*gone[:2], vote, end), (*gone, *look_up(new), vote, end)]
    state = wanted(desk, bookmarks=[], votes={old.slug: "yes"})
    return draft(rng.choice(asked), state, (*gone, vote, end), misses)


def change_setting(desk: Desk, rng: random.Random, number: int) -> GoldTask:
    """Change the language or the items per page (task 0), or switch the e-mail digest off (task 1)."""
    before = initial_state(desk)["settings"]
    key, label, values = rng.choice(
        (("language", "Language", LANGUAGES), ("items_per_page", "Items per page", PAGE_SIZES))
    )
    value, wrong = rng.sample([other for other in values if other != before[key]], 2)
    select = choose(label, value, f"I choose {value}.")
    untick = click("E-mail digest", "I switch the e-mail digest off.")
    if number == 0:
        asked = (
            f"Change the {label.casefold()} to {value}.",
            f'Set "{label}" to {value} in my settings.',
            f"In the settings, choose {value} as the {label.casefold()}.",
        )
        end = done(f"The settings are saved with {value} as the {label.casefold()}.")
        other = choose(label, wrong, f"I choose {wrong}.")
        misses = [(SETTINGS, select, end), (SETTINGS, other, SAVE, end), (SETTINGS, select, untick, SAVE, end)]
        state = wanted(desk, settings={**before, key: value})
        return draft(rng.choice(asked), state, (SETTINGS, select, SAVE, end), misses)
    asked = (
        "Turn off the e-mail digest.",
        "Switch the e-mail digest off in the settings.",
        "I do not want the e-mail digest any more. Turn it off and save.",
    )
    end = done("The settings are saved with the e-mail digest off.")
    misses = [(SETTINGS, untick, end), (SETTINGS, SAVE, end), (SETTINGS, select, untick, SAVE, end)]
    state = wanted(desk, settings={**before, "digest": False})
    return draft(rng.choice(asked), state, (SETTINGS, untick, SAVE, end), misses)
