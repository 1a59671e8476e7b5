"""The help desk's gold tasks: a couple of each kind per world."""

import random
from collections.abc import Sequence
from dataclasses import replace

from sites.contract import GoldTask
from sites.helpdesk import errands, questions
from sites.helpdesk.content import Desk
from sites.helpdesk.drafts import Draft

TASKS_PER_KIND = 2

KINDS: dict[str, Draft] = {
    "find_fact": questions.find_fact,
    "agent_fact": questions.agent_fact,
    "count_tickets": questions.count_tickets,
    "count_articles": questions.count_articles,
    "compare": questions.compare,
    "compare_tickets": questions.compare_tickets,
    "navigate": questions.navigate,
    "search": questions.search,
    "filter": questions.filter_by_status,
    "sort": questions.sort,
    "comment": errands.comment,
    "set_status": errands.set_status,
    "set_priority": errands.set_priority,
    "assign": errands.assign,
    "bookmark": errands.bookmark,
    "remove_bookmark": errands.remove_bookmark,
    "helpful": errands.helpful,
    "new_ticket": errands.new_ticket,
    "change_setting": errands.change_setting,
}


def make_tasks(desk: Desk, rng: random.Random, prefix: str) -> Sequence[GoldTask]:
    """The world's gold tasks, no instruction twice."""
    tasks: dict[str, GoldTask] = {}
    for kind, draft in KINDS.items():
        for number in range(TASKS_PER_KIND):
            task = draft(desk, rng, number)
            while task.instruction in tasks:
                task = draft(desk, rng, number)
            tasks[task.instruction] = replace(task, id=f"{prefix}/{kind}-{number}", kind=kind)
    return tuple(tasks.values())
