"""Proposals: parsed, counted, never a duplicate, never a held-out task."""

import json
from collections.abc import Sequence, Set
from dataclasses import replace

import pytest

from proposer.generate import Generate, ModelError, Prompt, Response, Sampling
from proposer.look import Look
from proposer.propose import Proposals, ProposerSettings, normal, parse, propose, render
from proposer.task import missing_names
from tests.makers import SHOP

LOOK = Look("http://shop.test/", "Shop", "Copper Kettle", "<a> Copper Kettle [1]", b"jpeg")
SETTINGS = ProposerSettings()


def says(replies: Sequence[str]) -> Generate:
    queue = list(replies)

    async def generate(prompt: Prompt, sampling: Sampling) -> Response:
        return Response(queue.pop(0) if queue else "nothing more")

    return generate


def task(*instructions: str) -> str:
    return json.dumps({"tasks": instructions})


async def run(replies: Sequence[str], num_tasks: int = 3, **options: Set[str]) -> Proposals:
    return await propose(
        SHOP, "train-1", [LOOK], says(replies), num_tasks=num_tasks, settings=SETTINGS, seed=1, **options
    )


@pytest.mark.asyncio
async def test_proposed_tasks_belong_to_the_world_that_was_looked_at() -> None:
    found = await run([task("Open the Copper Kettle.")])
    assert [(t.instruction, t.world, t.source, t.gold_id) for t in found.tasks] == [
        ("Open the Copper Kettle.", "train-1", "proposer", None)
    ]


@pytest.mark.asyncio
async def test_every_rejection_is_counted_with_its_reason() -> None:
    replies = ["not json", task("Buy"), task("Buy the Kettle."), task("please buy a kettle"), task("Sell the big lamp")]
    found = await run([*replies, task("word " * 61)], held_out={"Sell the BIG lamp."})
    assert found.rejections["too_short"] == 1
    assert found.rejections["duplicate"] == 1
    assert found.rejections["held_out"] == 1
    assert found.rejections["too_long"] == 1
    assert found.num_proposed == len(found.tasks) + sum(found.rejections.values())


def test_a_page_shows_every_name_of_an_instruction_or_it_does_not() -> None:
    assert not missing_names("Open the page of the Copper Kettle.", "<a> Copper Kettle [1]")
    assert missing_names("Open the page of the Copper Kettle.", "<a> Copper Lamp [1]") == ["Copper Kettle"]
    assert not missing_names('Review the Copper Lamp: "Very Handy".', "<a> Copper Lamp [1]")
    assert not missing_names("Search for lamps. How many are found?", "<a> Copper Lamp [1]")


@pytest.mark.asyncio
async def test_where_asked_for_tasks_name_only_what_their_page_shows() -> None:
    replies = [task("Open the Copper Kettle."), task("Open the Silver Spoon.")]
    for grounded, num_kept in ((True, 1), (False, 2)):
        settings = SETTINGS.model_copy(update={"grounded": grounded})
        found = await propose(SHOP, "train-1", [LOOK], says(replies), num_tasks=2, settings=settings, seed=1)
        assert len(found.tasks) == num_kept
        assert found.rejections["ungrounded"] == 2 - num_kept


@pytest.mark.asyncio
@pytest.mark.parametrize(("limit", "num_kept"), [(None, 3), (2, 2), (1, 1)])
async def test_where_asked_for_tasks_do_not_all_begin_alike(limit: int | None, num_kept: int) -> None:
    replies = [task("Open the Copper Kettle."), task("open the cart."), task("Open the Brass Lamp.")]
    settings = SETTINGS.model_copy(update={"max_per_opening": limit})
    found = await propose(SHOP, "train-1", [LOOK], says(replies), num_tasks=3, settings=settings, seed=1)
    assert len(found.tasks) == num_kept
    assert found.rejections["crowded"] == 3 - num_kept


@pytest.mark.asyncio
async def test_the_start_page_comes_last() -> None:
    asked: list[str] = []

    async def keep(prompt: Prompt, sampling: Sampling) -> Response:
        asked.append(str(prompt.parts[-1]))
        return Response(task(f"Open thing number {len(asked)}."))

    looks = [replace(LOOK, title=title) for title in ("Start", "Second", "Third")]
    await propose(SHOP, "train-1", looks, keep, num_tasks=3, settings=SETTINGS, seed=1)
    assert [next(title for title in ("Start", "Second", "Third") if title in text) for text in asked[:3]] == [
        "Third",
        "Second",
        "Start",
    ]


@pytest.mark.asyncio
async def test_tasks_known_already_are_not_proposed_again() -> None:
    found = await run([task("Open the Copper Kettle")], taken={"open copper kettle"})
    assert found.tasks == []


@pytest.mark.asyncio
async def test_asking_ends_when_the_model_has_nothing_more_to_say() -> None:
    found = await run([], num_tasks=2)
    assert found.tasks == []
    assert found.num_proposed == int(2 * SETTINGS.max_calls_per_task)


@pytest.mark.asyncio
async def test_an_outage_is_an_error_and_no_empty_proposal() -> None:
    async def out(prompt: Prompt, sampling: Sampling) -> Response:
        raise ModelError("down")

    with pytest.raises(ModelError):
        await propose(SHOP, None, [LOOK], out, num_tasks=1, settings=SETTINGS, seed=0)


@pytest.mark.asyncio
async def test_without_a_page_there_is_nothing_to_propose_from() -> None:
    with pytest.raises(ValueError, match="at least one page"):
        await propose(SHOP, None, [], says([]), num_tasks=1, settings=SETTINGS, seed=0)


@pytest.mark.parametrize(
    ("reply", "tasks"),
    [
        ('{"tasks": ["Buy  the kettle"]}', ["Buy the kettle"]),
        ('```json\n{"tasks": ["a", "b"]}\n```', ["a", "b"]),
        ('{"tasks": []}', None),
        ('{"tasks": "Buy the kettle"}', None),
        ('{"tasks": [1]}', None),
        ('{"tasks": ["Find the \\ud83d thing"]}', None),
        ('["Buy the kettle"]', None),
        ('{"tasks": ["Buy', None),
        ("", None),
    ],
)
def test_only_the_json_asked_for_is_read(reply: str, tasks: list[str] | None) -> None:
    assert parse(reply) == tasks


def test_the_prompt_tells_website_and_page() -> None:
    picture, text = render(SHOP, LOOK, SETTINGS).parts
    assert picture == b"jpeg"
    assert "shop. A shop." in str(text)
    assert "Copper Kettle [1]" in str(text)


def test_instructions_that_differ_in_a_number_are_different() -> None:
    assert normal("Add 2 of it.") != normal("Add 3 of it.")
