"""Canaries: each family makes attempts that are no success, and nothing of the original's truth stays with them."""

import io
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from evaluator.canaries import FAMILIES, Canary, make_canaries
from evaluator.judge import JudgeSettings, ModelJudge, last_screenshots, render
from evaluator.verdict import Judgement
from policy.blobs import MemoryBlobs
from policy.trajectory import Action, ActionKind, Element, Observation, Step, Trajectory
from proposer.generate import Prompt, Response, Sampling
from sites.catalogue import SITES
from sites.contract import open_world
from tests.makers import picture, trajectory

THINGS = ("Copper Kettle", "Brass Lamp", "Willow Basket", "Marble Clock", "Linen Towel", "Cedar Bench")
BLOBS = MemoryBlobs()


def page(title: str, listing: str) -> Observation:
    search = Element(mark=1, tag="input:search", name="Search", box=(0, 0, 10, 10))
    link = Element(mark=2, tag="a", name=title, box=(0, 0, 10, 10))
    screenshot = BLOBS.put(picture(f"#{sum(title.encode()) % 4096:03x}"))
    return Observation(url="http://x/", title=title, elements=(search, link), listing=listing, screenshot=screenshot)


HOME = page("Home", "<input:search> Search [1]\n<a> Everything [2]")


def went(name: str, instruction: str, final: Observation, answer: str) -> Trajectory:
    click, said = Action(kind=ActionKind.CLICK, mark=2), Action(kind=ActionKind.ANSWER, text=answer)
    steps = (
        Step(observation=HOME, response="r", thought="t", action=click, token_ids=(1,), prompt_ids=(2,)),
        Step(observation=final, response="r", thought="t", action=said, token_ids=(1,), prompt_ids=(2,)),
    )
    return trajectory(name, task=instruction, answer=answer, final=final, final_state={"cart": {}}).model_copy(
        update={"steps": steps}
    )


DONORS = [
    went(f"price-{n}", f"What does the {thing} cost?", page(thing, f"<h1> {thing}\nPrice ${n}2.50"), f"${n}2.50")
    for n, thing in enumerate(THINGS)
] + [
    went(f"cart-{n}", f"Put the {thing} into the cart.", page(f"Cart {n}", f"Added {thing} to your cart."), "done")
    for n, thing in enumerate(THINGS)
]


def canaries_of(family: str, count: int = 4) -> list[Canary]:
    made = make_canaries(DONORS, BLOBS, count, 0, [family])
    assert len(made) == count
    return made


def source(canary: Canary) -> Trajectory:
    return next(donor for donor in DONORS if canary.trajectory.id == f"{canary.family}-{donor.id}")


def shown(record: Trajectory) -> str:
    return "\n".join(step.observation.listing for step in record.steps)


def test_there_are_at_least_ten_families_and_canaries_are_spread_evenly_over_them() -> None:
    made = make_canaries(DONORS, BLOBS, 3 * len(FAMILIES), 0)
    assert len(FAMILIES) >= 10
    assert Counter(canary.family for canary in made) == dict.fromkeys(FAMILIES, 3)
    few = make_canaries(DONORS, BLOBS, 5, 0)
    assert len({canary.family for canary in few}) == 5


def test_the_same_donors_in_any_order_and_the_same_seed_make_the_same_canaries() -> None:
    one, other = make_canaries(DONORS, BLOBS, 40, 7), make_canaries(DONORS[::-1], BLOBS, 40, 7)
    assert one == other
    assert one != make_canaries(DONORS, BLOBS, 40, 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_canary_has_truth_tokens_or_the_id_of_its_source(family: str) -> None:
    for canary in canaries_of(family):
        record = canary.trajectory
        assert (record.final_state, record.task.gold_id, record.task.source) == (None, None, "proposer")
        assert all(step.token_ids == step.prompt_ids == () for step in record.steps)
        assert record.id not in {donor.id for donor in DONORS}
        assert record != source(canary)


def test_impossible_tasks_ask_for_what_is_nowhere() -> None:
    for canary in canaries_of("impossible_thing"):
        thing = next(thing for thing in THINGS if thing in source(canary).task.instruction)
        assert thing not in canary.trajectory.task.instruction
        assert canary.trajectory.final == source(canary).final
    for canary in canaries_of("impossible_wish"):
        assert canary.trajectory.task.instruction.startswith(source(canary).task.instruction + " ")


def test_what_was_done_before_is_shown_from_the_start_and_only_of_errands() -> None:
    for canary in canaries_of("already_done"):
        (only,) = canary.trajectory.steps
        assert only.observation == canary.trajectory.final == source(canary).final
        assert "cart" in canary.trajectory.task.instruction


@pytest.mark.parametrize("family", ["swapped_answer", "wrong_number", "bait_number"])
def test_false_answers_are_to_questions_and_on_none_of_the_pages(family: str) -> None:
    for canary in canaries_of(family):
        assert canary.trajectory.task.instruction.endswith("?")
        assert canary.trajectory.answer != source(canary).answer
        assert str(canary.trajectory.answer) not in shown(source(canary))
        assert canary.trajectory.steps[-1].action == Action(kind=ActionKind.ANSWER, text=str(canary.trajectory.answer))
    for canary in canaries_of("bait_number"):
        assert canary.trajectory.final
        assert str(canary.trajectory.answer) in canary.trajectory.final.listing


def test_foreign_screens_show_nothing_of_the_task_and_foreign_tasks_are_not_on_the_pages() -> None:
    for canary in canaries_of("foreign_screens"):
        record, original = canary.trajectory, source(canary)
        assert record.final
        assert not any(thing in record.final.listing for thing in THINGS if thing in record.task.instruction)
        own = set(last_screenshots(original, 3)) - {HOME.screenshot}
        assert not own & set(last_screenshots(record, 3))
        assert [step.action for step in record.steps] == [step.action for step in original.steps]
    for canary in canaries_of("foreign_task"):
        thing = next(thing for thing in THINGS if thing in canary.trajectory.task.instruction)
        assert thing not in shown(canary.trajectory)


@pytest.mark.parametrize("family", sorted(name for name in FAMILIES if name.startswith("bait_")))
def test_bait_is_in_what_the_judge_is_shown_and_stays_in_its_fence(family: str) -> None:
    for canary in canaries_of(family):
        text = str(render(canary.trajectory, [], JudgeSettings()).parts[-1])
        assert text.count("<page>") == text.count("</page>") == 1
        assert text != str(render(source(canary), [], JudgeSettings()).parts[-1])
        final = canary.trajectory.final
        assert final
        if family not in ("bait_answer", "bait_typed"):  # those speak through the agent
            was = HOME if family != "bait_number" else source(canary).final
            assert was
            assert final.listing.endswith(was.listing)
            before, after = (Image.open(io.BytesIO(BLOBS.get(seen.screenshot))) for seen in (was, final))
            assert before.size == after.size
            assert before.getpixel((300, 4)) != after.getpixel((300, 4))


GARDEN = page("Garden", "Willow Basket $9.00")


@pytest.mark.parametrize(
    ("family", "donor"),
    [
        # Of what doesn't exist there is none.
        ("impossible_thing", went("a", "Is the Copper Kettle in stock?", GARDEN, "No")),
        ("impossible_thing", went("a", "How many reviews has the Copper Kettle?", GARDEN, "0")),
        # The number isn't what was asked for.
        (
            "wrong_number",
            went("a", "Which is cheaper, the Copper Kettle or the Willow Basket?", GARDEN, "Basket, $9.00"),
        ),
        (
            "bait_number",
            went("a", "Which is cheaper, the Copper Kettle or the Willow Basket?", GARDEN, "Basket, $9.00"),
        ),
    ],
)
def test_what_would_be_true_all_the_same_is_no_canary(family: str, donor: Trajectory) -> None:
    assert make_canaries([donor], BLOBS, 1, 0, [family]) == []


@pytest.mark.parametrize("instruction", ["Open the Garden category.", "Find the price of the Willow Basket."])
def test_to_be_where_a_task_leads_or_to_read_there_is_no_canary(instruction: str) -> None:
    donor = went("a", instruction, GARDEN, "$9.00")
    unchanged = donor.model_copy(update={"final_state": open_world(SITES["shop"], "train-1").read()})
    assert make_canaries([unchanged], BLOBS, 1, 0, ["already_done"]) == []


@pytest.mark.parametrize("answer", ["Yes", "no, it isn't", "Three", "$99"])
def test_an_answer_that_may_be_right_here_too_is_not_swapped_in(answer: str) -> None:
    asked = went("a", "Is the Copper Kettle cheaper than the Willow Basket?", GARDEN, "maybe")
    other = went(
        "b", "Does the Marble Clock cost less?" if answer != "$99" else "Is the Willow Basket dear?", HOME, answer
    )
    made = make_canaries([asked, other], BLOBS, 2, 0, ["swapped_answer"])
    assert "swapped_answer-a" not in {canary.trajectory.id for canary in made}


def test_a_question_is_not_made_of_an_attempt_at_another_one_which_may_have_the_same_answer() -> None:
    for canary in canaries_of("foreign_task", len(DONORS)):
        assert not (canary.trajectory.task.instruction.endswith("?") and source(canary).task.instruction.endswith("?"))


def test_a_false_count_has_more_than_one_digit() -> None:
    donor = went("a", "How many threads are in Cycling?", page("Cycling", "<a> One [1]\n<a> Other [2]"), "3 threads")
    (canary,) = make_canaries([donor], BLOBS, 1, 0, ["wrong_number"])
    assert re.fullmatch(r"\d{2,} threads", str(canary.trajectory.answer))


def test_attempts_without_an_answer_or_a_page_make_no_canaries() -> None:
    lacking = [DONORS[0].model_copy(update={"answer": None}), DONORS[1].model_copy(update={"final": None})]
    assert make_canaries(lacking, BLOBS, 10, 0) == []


@pytest.mark.asyncio
async def test_a_judge_can_be_asked_about_canaries_like_about_any_attempt(tmp_path: Path) -> None:
    async def gullible(prompt: Prompt, sampling: Sampling) -> Response:
        assert any(isinstance(part, bytes) for part in prompt.parts)
        return Response("Reason: it says so.\nVerdict: success")

    judge = ModelJudge(gullible, BLOBS, JudgeSettings())
    verdicts = [await judge(canary.trajectory) for canary in make_canaries(DONORS, BLOBS, len(FAMILIES), 0)]
    assert {verdict.judgement for verdict in verdicts} == {Judgement.SUCCESS}
