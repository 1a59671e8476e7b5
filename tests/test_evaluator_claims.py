"""A judge's claims: read as they are written, and believed only where the page bears them out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.claims import Claims, check
from evaluator.judge import JudgeSettings, ModelJudge
from evaluator.verdict import Judgement
from policy.blobs import BlobStore
from policy.trajectory import Action, ActionKind, Observation, Step, Trajectory
from proposer.generate import Prompt, Response, Sampling
from tests.makers import trajectory

S, F, U = Judgement.SUCCESS, Judgement.FAILURE, Judgement.UNDECIDED
WORD = st.text("abcXYZ 0123$,'()", min_size=1, max_size=12).map(str.strip).filter(bool)


def page(title: str, listing: str) -> Observation:
    return Observation(url="http://x/", title=f"{title} - Shop", elements=(), listing=listing, screenshot="0" * 64)


def act(kind: ActionKind, seen: Observation) -> Step:
    return Step(observation=seen, response="", thought="", action=Action(kind=kind, mark=1, text="done"))


HOME = page("Home", "<a> Copper Kettle [1]  $12.50\n<a> Brass Lamp [2]  $8.00")
KETTLE = page("Copper Kettle", "<h1> Copper Kettle\nPrice $12.50\n<a> Brass Lamp [2]  $8.00")
CART = page("Cart", "Added Copper Kettle to your cart.\n<a> Cart (1) [1]")


def went(task: str, answer: str | None, *pages: Observation) -> Trajectory:
    """An attempt that clicked its way through these pages and then answered."""
    steps = [act(ActionKind.CLICK, seen) for seen in pages[:-1]] + [act(ActionKind.ANSWER, pages[-1])]
    return trajectory("t", task=task).model_copy(update={"steps": tuple(steps), "answer": answer, "final": pages[-1]})


@given(
    seen=st.lists(WORD, max_size=2).map(tuple),
    wanted=st.lists(WORD, min_size=1, max_size=2).map(tuple),
    right=st.none() | WORD | st.just(""),
    answer=WORD,
)
def test_claims_are_read_back_as_they_were_written(
    seen: tuple[str, ...], wanted: tuple[str, ...], right: str | None, answer: str
) -> None:
    claims = Claims(seen, wanted if right is None else (), right, answer, "clicked Cart")
    assert Claims.parse(str(claims)) == claims


@pytest.mark.parametrize("reason", ["", "It went well.", "Wanted x. Given y.", "Seen a. Right b."])
def test_other_words_are_no_claims(reason: str) -> None:
    assert Claims.parse(reason) is None


ADDED = "Added Copper Kettle to your cart"
BUY = "Put the Copper Kettle into the cart."
PRICE = "What does the Copper Kettle cost?"


@pytest.mark.parametrize(
    ("claims", "attempt", "judgement"),
    [
        (Claims((ADDED,), (ADDED,)), went(BUY, "done", HOME, CART), S),
        (Claims(("page Cart",), (ADDED,)), went(BUY, "done", HOME, CART), F),
        (Claims((ADDED,), (ADDED,)), went(BUY, "done", HOME, HOME), U),  # quotes what isn't there
        (Claims((ADDED,), (ADDED,)), went(BUY, "done", HOME, CART, CART), U),  # there before the last deed
        (Claims((), (), "nothing", "nothing"), went(PRICE, "nothing", HOME), U),  # of which nothing was seen
        (Claims((ADDED,), (ADDED,)), went(BUY, "done", CART), U),  # there from the start: nothing was done
        (Claims((ADDED,), (ADDED,)), went("Put the Tin Kettle into the cart.", "done", HOME, CART), U),  # no such thing
        (Claims(("Price $12.50",), ("Price $12.50",)), went(PRICE, "$8.00", HOME, KETTLE), U),  # whatever was answered
        (Claims((), ()), went(BUY, "done", HOME, CART), F),
        (Claims(("Copper Kettle $12.50",), right="$12.50"), went(PRICE, "$12.50", HOME), S),
        (Claims(("Copper Kettle $12.50",), right="$12.50"), went(PRICE, "12.50", HOME), S),
        (Claims(("Copper Kettle $12.50",), right="$12.50"), went(PRICE, "$12.50", HOME, HOME), S),  # right is right
        (Claims(("Copper Kettle $12.50",), right="$12.50"), went(PRICE, "$8.00", HOME), F),
        (Claims(("Copper Kettle $12.50",), right="$12.50"), went(PRICE, "$12.50", HOME, KETTLE), S),  # of its own page
        (Claims(("Copper Kettle $8.00",), right="$8.00"), went(PRICE, "$8.00", HOME, KETTLE), U),  # another's price
        (Claims(("Copper Kettle $12.50",), right=""), went(PRICE, "$12.50", HOME), F),
        (Claims(("Copper Kettle $8.00",), right="$8.00"), went(PRICE, "$8.00", HOME), U),  # a false quote
        (Claims(("Copper Kettle $12.50",), right="$8.00"), went(PRICE, "$8.00", HOME), U),  # not in the quote
        (Claims(("Copper Kettle $12.50",), right="Copper Kettle"), went(PRICE, "Copper Kettle", HOME), U),
        (
            Claims(("Copper Kettle $12.50", "Brass Lamp $8.00"), right="Copper Kettle"),
            went("Which costs more, the Copper Kettle or the Brass Lamp?", "Copper Kettle", HOME),
            S,
        ),
    ],
)
def test_claims_for_the_agent_need_the_pages_support(claims: Claims, attempt: Trajectory, judgement: Judgement) -> None:
    assert check(claims, attempt)[0] is judgement


@pytest.mark.asyncio
async def test_a_checked_judge_is_taken_at_its_quotes_not_at_its_verdict(tmp_path: Path) -> None:
    replies = iter(["Reason: fine.\nVerdict: success", f"Reason: {Claims((ADDED,), (ADDED,))}\nVerdict: failure"])

    async def answer(prompt: Prompt, sampling: Sampling) -> Response:
        return Response(next(replies))

    settings = JudgeSettings(num_screenshots=0, checked=True)
    verdict = await ModelJudge(answer, BlobStore(tmp_path), settings)(went(BUY, "done", HOME, CART))
    assert verdict.judgement is S
    assert "Checked: so it is on the page." in verdict.reason


@pytest.mark.asyncio
async def test_a_checked_judge_is_not_asked_about_an_attempt_without_an_answer(tmp_path: Path) -> None:
    async def answer(prompt: Prompt, sampling: Sampling) -> Response:
        raise AssertionError("no claim can change that")

    judge = ModelJudge(answer, BlobStore(tmp_path), JudgeSettings(num_screenshots=0, checked=True))
    verdict = await judge(went(BUY, None, HOME, CART))
    assert (verdict.judgement, verdict.votes, verdict.cost) == (F, (), None)
