"""Demonstrations: scripted solutions acted out in the real browser, and the lessons made from them."""

import re
from pathlib import Path

import pytest
from transformers import AutoProcessor

from evaluator.truth import ground_truth
from policy.blobs import BlobStore
from policy.browser import Browser
from policy.prompt import parse
from policy.trajectory import Outcome
from proposer.task import Website
from rl.demonstrate import DemonstrationError, demonstrate, find_mark, stumbles
from rl.lessons import judge_lessons, policy_lessons, proposer_lessons, seldom_done
from sites.catalogue import SITES
from sites.contract import Move, gold_tasks
from sites.server import PracticeServer

STARTER = Path(__file__).parents[1] / "starter" / "policy"
SHOP = Website(name="shop", url="practice:shop")
KINDS = {"shop": ("checkout", "cheapest"), "forum": ("new_thread", "member_city"), "helpdesk": ("set_status", "search")}


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("site", sorted(SITES))
async def test_solutions_work_in_the_browser_and_near_misses_do_not(browser: Browser, site: str) -> None:
    website = Website(name=site, url=f"practice:{site}")
    tasks = [task for task in gold_tasks(SITES[site], "train-1") if task.kind in KINDS[site]]
    assert len(tasks) >= 2
    with PracticeServer() as practice:
        for task in tasks[::2]:
            for moves, wanted in ((task.solution, True), (task.near_misses[0], False)):
                record = await demonstrate(task, moves, website, "t", browser=browser, practice=practice)
                assert record.outcome is Outcome.FINISHED
                assert ground_truth(record) is wanted, (task.id, [step.response for step in record.steps])


@pytest.mark.asyncio(loop_scope="session")
async def test_lessons_are_what_each_role_is_to_say(browser: Browser, blobs: BlobStore) -> None:
    task = next(task for task in gold_tasks(SITES["shop"], "train-1") if task.kind == "add_to_cart")
    with PracticeServer() as practice:
        attempts = [
            await demonstrate(task, moves, SHOP, f"t{n}", browser=browser, practice=practice)
            for n, moves in enumerate((task.solution, *task.near_misses))
        ]
    processor = AutoProcessor.from_pretrained(STARTER)
    steps = policy_lessons(attempts, blobs, processor, count=10, seed=0)
    assert len(steps) == len(attempts[0].steps)
    for lesson in steps:
        said = processor.tokenizer.decode(lesson.token_ids, skip_special_tokens=True)
        assert parse(said).action == attempts[0].steps[int(lesson.trajectory_id.rpartition("#")[2])].action
    kind = ("shop", "add_to_cart")
    assert len(policy_lessons(attempts, blobs, processor, count=10, seed=0, kinds={kind})) == len(steps)
    assert not policy_lessons(attempts, blobs, processor, count=10, seed=0, kinds={("shop", "remove")})
    done = [ground_truth(attempt) for attempt in attempts].count(True) / len(attempts)
    assert seldom_done(attempts, share=done) == set()
    assert seldom_done(attempts, share=done + 0.01) == {kind}
    verdicts = [
        processor.tokenizer.decode(lesson.token_ids)
        for lesson in judge_lessons(attempts[:2], attempts[2:], blobs, processor, count=5, seed=0)
    ]
    wanted = re.compile(r"Wanted (Added .* to your cart)\. Seen (.*)\. Given")
    for verdict in verdicts:
        match = wanted.search(verdict)
        assert match is not None
        assert ("success" in verdict) == (match[1] == match[2])
    assert sum("success" in verdict for verdict in verdicts) == 1
    assert sum("failure" in verdict for verdict in verdicts) >= 1
    proposals = [
        processor.tokenizer.decode(lesson.token_ids)
        for lesson in proposer_lessons(attempts, blobs, processor, count=9, seed=0)
    ]
    assert all(task.instruction in proposal for proposal in proposals)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(("kind", "elsewhere"), [("add_to_cart", True), ("remove", False)])
async def test_a_task_is_proposed_on_other_pages_only_if_what_it_names_is_all_it_needs(
    browser: Browser, blobs: BlobStore, kind: str, elsewhere: bool
) -> None:
    task = next(task for task in gold_tasks(SITES["shop"], "train-1") if task.kind == kind)
    with PracticeServer() as practice:
        attempt = await demonstrate(task, task.solution, SHOP, "t", browser=browser, practice=practice)
    step, picture = attempt.steps[0], blobs.put(blobs.get(attempt.steps[0].observation.screenshot) + b" ")
    shown = {"title": "Another page", "listing": f"<p> {task.instruction}", "screenshot": picture}
    seen = step.model_copy(update={"observation": step.observation.model_copy(update=shown)})
    failed = attempt.model_copy(update={"id": "f", "steps": (seen,), "answer": None, "final_state": {}})
    processor = AutoProcessor.from_pretrained(STARTER)
    prompts = [
        processor.tokenizer.decode(lesson.prompt_ids)
        for lesson in proposer_lessons([attempt, failed], blobs, processor, count=99, seed=0)
    ]
    assert any("Page: Another page" in prompt for prompt in prompts) is elsewhere
    assert any("Page: Another page" not in prompt for prompt in prompts)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_stumble_is_told_and_only_what_comes_after_it_is_a_lesson(browser: Browser, blobs: BlobStore) -> None:
    script = stumbles(gold_tasks(SITES["shop"], "train-1"))[0]
    name = script.moves[0].text
    with PracticeServer() as practice:
        attempt = await demonstrate(
            script.task, script.moves, SHOP, "t", stumble=script.stumble, browser=browser, practice=practice
        )
    assert ground_truth(attempt) is True
    assert attempt.steps[0].action is None
    assert f"no element is named {name}" in attempt.steps[1].observation.notice
    processor = AutoProcessor.from_pretrained(STARTER)
    lessons = policy_lessons([attempt], blobs, processor, count=99, seed=0)
    assert {lesson.trajectory_id for lesson in lessons} == {f"t#{index}" for index in range(1, len(attempt.steps))}
    first = next(lesson for lesson in lessons if lesson.trajectory_id == "t#1")
    assert f"no element is named {name}" in processor.tokenizer.decode(first.prompt_ids)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_move_that_the_page_does_not_offer_is_an_error(browser: Browser) -> None:
    task = gold_tasks(SITES["shop"], "train-1")[0]
    with PracticeServer() as practice, pytest.raises(DemonstrationError, match="no element named 'Teleport'"):
        await demonstrate(task, [Move("click", "Teleport")], SHOP, "t", browser=browser, practice=practice)


def test_a_mark_is_found_by_the_whole_name() -> None:
    listing = "<a> Cart (2) [4]\n<a> Copper Kettle [7]  $12.50\n<select> Sort by [9] = Newest (Newest, Oldest)"
    assert find_mark(listing, "Copper Kettle") == 7
    assert find_mark(listing, "Sort by") == 9
    assert find_mark(listing, "Cart (2)") == 4
    assert find_mark(listing, "Copper") is None
