"""What episodes change on real practice sites, and what of it their tasks didn't ask for."""

from collections.abc import Iterator, Sequence

import pytest

from evaluator.changes import Changes, changes_of
from evaluator.truth import ground_truth, is_question
from policy.browser import Browser
from policy.trajectory import ActionClass, Outcome, SideEffect, Trajectory
from proposer.task import Task, Website
from rl.demonstrate import demonstrate, practice_website
from sites.catalogue import SITES
from sites.contract import GoldTask, Move, changes_between, gold_tasks
from sites.server import PracticeServer
from tests.fakes import play
from tests.makers import trajectory

LIVE = Website(name="live", url="https://a.example/")


@pytest.fixture(scope="module")
def server() -> Iterator[PracticeServer]:
    with PracticeServer() as server:
        yield server


def gold(site: str, kind: str, number: int = 0) -> GoldTask:
    return next(task for task in gold_tasks(SITES[site], "train-1") if task.id.endswith(f"/{kind}-{number}"))


def asked(site: str, gold: GoldTask) -> Task:
    _, world, _ = gold.id.split("/")
    website = practice_website(site)
    return Task(website=website, instruction=gold.instruction, world=world, source="gold", gold_id=gold.id)


def attempt(server: PracticeServer, task: Task, moves: Sequence[Move]) -> Trajectory:
    """What is left of an episode that made these moves."""
    assert task.website.practice_site and task.world
    visit = server.open(task.website.practice_site, task.world)
    answer = play(visit, moves)
    return trajectory("t", answer=answer, final_state=visit.world.read()).model_copy(update={"task": task})


def beyond(server: PracticeServer, site: str, gold: GoldTask, moves: Sequence[Move]) -> tuple[str, ...] | None:
    changes = changes_of(attempt(server, asked(site, gold), moves))
    assert changes is not None
    return changes.beyond


def test_changes_are_rows_that_came_or_went_and_fields_with_another_value() -> None:
    before = {
        "location": "/",
        "cart": {"pot": 1, "jug": 2},
        "votes": ["a", "a", "b"],
        "settings": {"digest": True},
        "tickets": {"7": {"status": "Open", "comments": []}},
        "reviews": {},
    }
    after = {
        "location": "/elsewhere",
        "cart": {"jug": 3, "mug": 1},
        "votes": ["b", "a"],
        "settings": {"digest": 1},
        "tickets": {"7": {"status": "Closed", "comments": [{"text": "x", "by": "y"}]}, "8": {"status": "Open"}},
        "reviews": {"pot": ["good", "good"]},
    }
    assert list(map(str, changes_between(before, after))) == [
        "changed cart/jug: 2 to 3",
        "added to cart/mug: 1",
        "removed from cart/pot: 1",
        'added to reviews/pot: "good"',
        'added to reviews/pot: "good"',
        "changed settings/digest: true to 1",
        'added to tickets/7/comments: {"by": "y", "text": "x"}',
        'changed tickets/7/status: "Open" to "Closed"',
        'added to tickets/8: {"status": "Open"}',
        'removed from votes: "a"',
    ]
    assert changes_between(after, after) == []


@pytest.mark.parametrize("site", sorted(SITES))
def test_a_scripted_solution_has_no_side_effects(server: PracticeServer, site: str) -> None:
    num_changing = 0
    for task in gold_tasks(SITES[site], "train-3"):
        changes = changes_of(attempt(server, asked(site, task), task.solution))
        assert changes is not None
        assert changes.beyond == (), task.id
        assert not (changes.made and is_question(asked(site, task))), task.id
        num_changing += bool(changes.made)
    assert num_changing >= 8


@pytest.mark.parametrize(
    ("site", "kind", "counts"),
    [
        ("forum", "reply", [0, 1, 1]),  # nothing sent; another text; the same twice, of which one was asked for
        ("forum", "upvote", [0, 1, 1]),  # nothing done; another thread; followed too
        ("shop", "add_to_cart", [0, 1, 1]),  # nothing done; another product; 2 pieces, where 1 was asked for
    ],
)
def test_near_misses_have_the_side_effects_that_one_counts_by_hand(
    server: PracticeServer, site: str, kind: str, counts: list[int]
) -> None:
    task = gold(site, kind)
    assert [len(beyond(server, site, task, moves) or ()) for moves in task.near_misses] == counts


def test_what_is_done_besides_the_task_is_named(server: PracticeServer) -> None:
    task, other = gold("shop", "add_to_cart"), gold("shop", "change_setting", 1)
    moves = (*task.solution[:-1], *other.solution)
    assert beyond(server, "shop", task, moves) == ("changed settings/newsletter: false to true",)


def test_a_gold_question_asks_for_no_change(server: PracticeServer) -> None:
    question, errand = gold("shop", "find_price"), gold("shop", "add_to_cart")
    moves = (*errand.solution[:-1], *question.solution[-1:])
    effects = beyond(server, "shop", question, moves) or ()
    assert [effect.partition("/")[0] for effect in effects] == ["added to cart"]


@pytest.mark.parametrize(
    ("instruction", "is_known"),
    [("How many items are in the cart?", True), ("Put something nice into the cart.", False)],
)
def test_of_proposed_tasks_only_questions_have_side_effects_and_what_errands_change_is_recorded(
    server: PracticeServer, instruction: str, is_known: bool
) -> None:
    task = Task(website=practice_website("shop"), instruction=instruction, world="train-1")
    changes = changes_of(attempt(server, task, gold("shop", "add_to_cart").solution))
    assert changes is not None
    assert len(changes.made) == 1
    assert changes.beyond == (changes.made if is_known else None)


@pytest.mark.parametrize(
    ("instruction", "wants_an_answer_only"),
    [
        ("What does the Copper Kettle cost?", True),
        ("Is the Copper Kettle cheaper than the Brass Lamp?", True),
        ("Tell me who wrote the last reply and when.", True),
        ("Can you add the Copper Kettle to my cart?", False),
        ("Tell me the price of the Copper Kettle and add it to the cart.", False),
        ("Find out which lamp is cheapest, then put it into my cart.", False),
        ("Add the Copper Kettle to the cart.", False),
        ("Add the Copper Kettle to the cart, is that possible?", False),
        ("Which is cheaper, the Copper Kettle or the Brass Lamp? Put it into the cart.", False),
        ("I want the Copper Kettle, could you put it into my cart?", False),
        ("Tell Mira Bloom that her thread is great.", False),
    ],
)
def test_a_question_is_told_by_its_words(instruction: str, wants_an_answer_only: bool) -> None:
    assert is_question(Task(website=LIVE, instruction=instruction)) is wants_an_answer_only


def test_where_no_state_was_read_nothing_is_known() -> None:
    assert changes_of(trajectory("t", outcome=Outcome.BROWSER_CRASH)) is None


def entry(of: ActionClass, url: str, *, is_action: bool = True, allowed: bool = True) -> SideEffect:
    what = "action" if is_action else "request"
    return SideEffect(after=1, what=what, of=of, method="POST" if url else "", url=url, allowed=allowed)


@pytest.mark.parametrize(("instruction", "is_known"), [("What does it cost?", True), ("Like it.", False)])
def test_on_live_websites_the_guards_ledger_tells(instruction: str, is_known: bool) -> None:
    ledger = (
        entry(ActionClass.READ, "https://a.example/find"),
        entry(ActionClass.REVERSIBLE, "https://a.example/like"),
        entry(ActionClass.REVERSIBLE, "https://a.example/like", is_action=False),
        entry(ActionClass.IRREVERSIBLE, "https://a.example/order", allowed=False),
        entry(ActionClass.REVERSIBLE, ""),
    )
    made = ("reversible: POST https://a.example/like", "reversible: by a script")
    task = Task(website=LIVE, instruction=instruction)
    record = trajectory("t", side_effects=ledger).model_copy(update={"task": task})
    assert changes_of(record) == Changes(made=made, beyond=made if is_known else None)


@pytest.mark.asyncio(loop_scope="session")
async def test_an_episode_in_the_browser_tells_what_it_did_besides(browser: Browser, server: PracticeServer) -> None:
    task = gold("forum", "upvote")
    upvoted_and_followed = task.near_misses[2]
    record = await demonstrate(
        task, upvoted_and_followed, practice_website("forum"), "t", browser=browser, practice=server
    )
    changes = changes_of(record)
    assert changes is not None
    assert ground_truth(record) is False
    assert [words.partition(":")[0] for words in changes.made] == ["added to following", "added to votes"]
    assert changes.beyond == changes.made[:1]
