"""The shop's gold tasks: a couple of each kind per world."""

import random
from collections.abc import Sequence
from dataclasses import replace

from sites.contract import GoldTask
from sites.shop import errands, questions
from sites.shop.content import Shop
from sites.shop.drafts import Draft

TASKS_PER_KIND = 2

KINDS: dict[str, Draft] = {
    "find_price": questions.find_price,
    "find_detail": questions.find_detail,
    "count": questions.count,
    "cheapest": questions.cheapest,
    "compare": questions.compare,
    "navigate": questions.navigate,
    "search": questions.search,
    "filter": questions.filter_by_price,
    "sort": questions.sort,
    "add_to_cart": errands.add_to_cart,
    "add_quantity": errands.add_quantity,
    "add_two": errands.add_two,
    "remove": errands.remove,
    "set_quantity": errands.set_quantity,
    "clear_cart": errands.clear_cart,
    "change_setting": errands.change_setting,
    "write_review": errands.write_review,
    "checkout": errands.checkout,
}


def make_tasks(shop: Shop, rng: random.Random, prefix: str) -> Sequence[GoldTask]:
    """The world's gold tasks, no instruction twice."""
    tasks: dict[str, GoldTask] = {}
    for kind, draft in KINDS.items():
        for number in range(TASKS_PER_KIND):
            task = draft(shop, rng, number)
            while task.instruction in tasks:
                task = draft(shop, rng, number)
            tasks[task.instruction] = replace(task, id=f"{prefix}/{kind}-{number}", kind=kind)
    return tuple(tasks.values())
