"""Gold tasks that change something: their goal is the whole final state."""

import random

from sites.contract import GoldTask
from sites.forum.content import DIGESTS, THEMES, Forum, initial_state
from sites.forum.drafts import pick, press_follow, press_upvote, visit, wanted
from sites.moves import choose, click, done, draft, enter

REPLIES = ("Good luck with it", "I will try this", "Same here", "Ask in the shop", "Please tell us more", "Well done")
TEXTS = ("Who can help", "Any advice is welcome", "What do you think", "Please share yours")
HEADINGS = ("My first attempt", "Looking for a tutor", "Swap meeting in May", "Spare parts wanted")


def reply(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Post a reply."""
    thread, (text, other) = pick(forum, rng, number), rng.sample(REPLIES, 2)
    phrases = (
        f'Reply "{text}" in the thread {thread.title}.',
        f'Post the reply "{text}" to {thread.title}.',
        f'Answer {thread.title} with "{text}".',
    )
    way, end = visit(forum, thread), done("My reply was posted.")
    write = enter("Reply", text, f"I reply {text}.")
    wrong = enter("Reply", other, f"I reply {other}.")
    state = wanted(forum, replies=[{"thread": thread.slug, "text": text}])
    misses = [(*way, end), (*way, wrong, end), (*way, write, write, end)]
    return draft(rng.choice(phrases), state, (*way, write, end), misses)


def upvote(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Upvote a thread."""
    thread = pick(forum, rng, number)
    other = pick(forum, rng, 0, thread)
    phrases = (f"Upvote the thread {thread.title}.", f"Give {thread.title} your vote.", f"Vote for {thread.title}.")
    way, end = visit(forum, thread), done(f"I upvoted {thread.title}.")
    misses = [
        (*way, end),
        (*visit(forum, other), press_upvote(other), end),
        (*way, press_upvote(thread), press_follow(thread), end),
    ]
    return draft(rng.choice(phrases), wanted(forum, votes=[thread.slug]), (*way, press_upvote(thread), end), misses)


def follow(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Follow a thread."""
    thread = pick(forum, rng, number)
    other = pick(forum, rng, 0, thread)
    phrases = (
        f"Follow the thread {thread.title}.",
        f"Start following {thread.title}.",
        f"I want to follow {thread.title}.",
    )
    way, end = visit(forum, thread), done(f"I follow {thread.title}.")
    misses = [(*way, end), (*visit(forum, other), press_follow(other), end), (*way, press_upvote(thread), end)]
    return draft(rng.choice(phrases), wanted(forum, following=[thread.slug]), (*way, press_follow(thread), end), misses)


def upvote_and_follow(forum: Forum, rng: random.Random, number: int) -> GoldTask:
    """Upvote and follow the same thread."""
    thread = pick(forum, rng, number)
    phrases = (
        f"Upvote and follow {thread.title}.",
        f"Vote for {thread.title} and follow it.",
        f"Follow {thread.title} and give it your vote.",
    )
    way, end = visit(forum, thread), done(f"I upvoted and follow {thread.title}.")
    state = wanted(forum, votes=[thread.slug], following=[thread.slug])
    both = (press_upvote(thread), press_follow(thread))
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
    state = wanted(forum, threads=[{"board": board, "title": title, "text": text}])
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
    state = wanted(forum, settings=first | {key: value})
    return draft(rng.choice(phrases), state, (*way, save, end), [(*way, end), (*wrong, save, end)])
