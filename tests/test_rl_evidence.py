"""What the judge is taught to say before a verdict: what is wanted and what is shown, side by side."""

import pytest

from evaluator.claims import clean, page_lines
from policy.trajectory import Action, ActionKind, Observation, Outcome, Step, Trajectory
from proposer.task import Task, Website
from rl.evidence import reason
from sites.catalogue import SITES
from sites.contract import GoldTask, gold_tasks


def page(title: str, *lines: str) -> Observation:
    return Observation(
        url="http://x/", title=f"{title} - Shop", elements=(), listing="\n".join(lines), screenshot="0" * 64
    )


HOME = page("Home", "<a> Bags [1]", "<a> Cart (0) [2]")


def gold(site: str, kind: str) -> GoldTask:
    return next(task for task in gold_tasks(SITES[site], "train-1") if task.kind == kind)


def attempt(task: GoldTask, final: Observation, answer: str | None) -> Trajectory:
    """An attempt that began on the home page, did one thing, and ended on `final`."""
    site = task.id.split("/")[0]
    asked = Task(
        website=Website(name=site, url=f"practice:{site}"),
        instruction=task.instruction,
        world="train-1",
        gold_id=task.id,
        source="gold",
    )
    first = Step(observation=HOME, response="", thought="", action=Action(kind=ActionKind.HOME))
    last = Step(observation=final, response="", thought="", action=Action(kind=ActionKind.ANSWER, text=answer or ""))
    return Trajectory(id="t", task=asked, steps=(first, last), outcome=Outcome.FINISHED, answer=answer, final=final)


def test_lines_are_read_without_tags_marks_and_full_stops_the_title_first() -> None:
    assert clean("<select> Sort by [9] = Newest (Newest, Oldest)") == "Sort by = Newest (Newest, Oldest)"
    assert page_lines(page("Cart", "<a> Bags [1]  x", "Saved.")) == ["page Cart", "Bags x", "Saved"]
    assert page_lines(None) == []


@pytest.mark.parametrize("given", ["right", "wrong", None])
def test_of_a_question_the_right_answer_is_looked_up_whatever_was_answered(given: str | None) -> None:
    task = gold("shop", "find_price")
    name, price = task.solution[-1].thought.removesuffix(".").removeprefix("The ").split(" costs ")
    shown = page("Search", "<a> Other Lamp [7]  $1.50", f"<a> {name} [8]  {price}")
    answer = {"right": price, "wrong": "$1.50", None: None}[given]
    found = reason(attempt(task, shown, answer), attempt(task, shown, price))
    assert found.fits
    assert f"Seen {name} {price}. Right {price}. Given {answer or 'nothing'}," in found.text


def test_an_answer_that_the_page_does_not_show_is_said_to_be_missing() -> None:
    task = gold("shop", "find_price")
    price = task.goal.answers[0]
    found = reason(attempt(task, HOME, price), attempt(task, page("Search", f"It costs {price}"), price))
    assert not found.fits
    assert "Right not shown." in found.text


def test_of_an_errand_what_its_success_newly_shows_stands_beside_what_is_shown() -> None:
    task = gold("shop", "add_to_cart")
    name = next(move.target for move in task.solution if move.target in task.instruction)
    solved = attempt(task, page("Cart", "<a> Bags [1]", f"Added {name} to your cart.", "<a> Cart (1) [2]"), "done")
    assert reason(solved, solved).fits
    other = attempt(task, page("Cart", "<a> Bags [1]", "Added Plain Box to your cart."), "done")
    found = reason(other, solved)
    assert not found.fits
    assert f"Wanted Added {name} to your cart. Seen Added Plain Box to your cart. Given done" in found.text


def test_where_the_task_is_a_place_its_title_is_wanted() -> None:
    task = gold("forum", "open_place")
    name = task.solution[0].target
    solved = attempt(task, page(name, "something"), "done")
    assert f"Wanted page {name}" in reason(solved, solved).text
    assert f"Wanted page {name}. Seen page Home." in reason(attempt(task, HOME, "done"), solved).text
