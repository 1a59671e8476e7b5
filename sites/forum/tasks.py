"""The forum's gold tasks: a couple of each kind per world."""

import random
from collections.abc import Sequence
from dataclasses import replace

from sites.contract import GoldTask
from sites.forum import errands, questions
from sites.forum.content import Forum
from sites.forum.drafts import Draft

TASKS_PER_KIND = 2

KINDS: tuple[Draft, ...] = (
    questions.who_started,
    questions.member_city,
    questions.member_joined,
    questions.count_replies,
    questions.count_threads,
    questions.compare_votes,
    questions.most_replies,
    questions.most_votes,
    questions.open_thread,
    questions.open_place,
    questions.search_count,
    errands.reply,
    errands.upvote,
    errands.follow,
    errands.upvote_and_follow,
    errands.new_thread,
    errands.change_setting,
)
"""Kinds are called what their functions are; new ones go last, so that the tasks of the others stay what they are."""


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
