"""WebArena's matches, each against examples worked out by hand."""

import pytest

from evaluator.checks import Result, check, for_judge, includes, is_exact, url_fits
from policy.trajectory import Outcome, Trajectory
from proposer.task import Checks, PageCheck
from tests.makers import observation, trajectory

SHOP = "http://shop.test:7770"


def attempt(checks: Checks | None, answer: str | None = None, url: str = "", found: tuple[str, ...] = ()) -> Trajectory:
    record = trajectory("t", answer=answer, final=observation().model_copy(update={"url": url}), found=found)
    return record.model_copy(update={"task": record.task.model_copy(update={"checks": checks})})


@pytest.mark.parametrize(
    ("text", "wanted", "is_same"),
    [
        ("Blue Mug", "blue mug", True),
        (' "Blue Mug" ', "Blue Mug", True),
        ("'12'", "12", True),
        ("a blue mug", "blue mug", False),
        ("", "blue mug", False),
        ('"', '"', True),
    ],
)
def test_exact_match(text: str, wanted: str, is_same: bool) -> None:
    assert is_exact(text, wanted) is is_same


@pytest.mark.parametrize(
    ("text", "wanted", "is_held"),
    [
        ("It costs $12.50 today", "$12.50", True),
        ("It costs $12.50 today", "$13", False),
        ("There are 10", "1", False),
        ("There is 1.", "1", True),
        ("BLUE mugs", "blue Mug", True),
    ],
)
def test_must_include(text: str, wanted: str, is_held: bool) -> None:
    assert includes(text, wanted) is is_held


@pytest.mark.parametrize(
    ("url", "wanted", "fits"),
    [
        (f"{SHOP}/cart/", (f"{SHOP}/cart",), True),
        (f"{SHOP}/cart/items?page=2", (f"{SHOP}/cart",), True),
        (f"{SHOP}/", (f"{SHOP}/cart",), False),
        ("http://evil.test/cart", (f"{SHOP}/cart",), False),
        (f"{SHOP}/s?q=mug&sort=price", (f"{SHOP}/s?q=mug",), True),
        (f"{SHOP}/s?q=pan", (f"{SHOP}/s?q=mug",), False),
        (f"{SHOP}/s", (f"{SHOP}/s?q=mug",), False),
        (f"{SHOP}/s?q=pan", (f"{SHOP}/s?q=mug", f"{SHOP}/s?q=pan"), True),
        (f"{SHOP}/done", (f"{SHOP}/order", f"{SHOP}/done"), True),
    ],
)
def test_url_match(url: str, wanted: tuple[str, ...], fits: bool) -> None:
    assert url_fits(url, wanted) is fits


def test_pages_hold_what_they_have_to() -> None:
    page = PageCheck(locator="x", must_include=(("Cart", "Basket"), ("M&M",)))
    assert check(attempt(Checks(pages=(page,)), found=("your basket: m&amp;m, 3",))) is Result.PASSED
    assert check(attempt(Checks(pages=(page,)), found=("your basket: mug",))) is Result.FAILED
    assert check(attempt(Checks(pages=(page,)), found=("",))) is Result.FAILED
    exact = PageCheck(exact="Done")
    assert check(attempt(Checks(pages=(page, exact)), found=("Cart M&M", "done"))) is Result.PASSED
    assert check(attempt(Checks(pages=(page, exact)), found=("Cart M&M", "not done"))) is Result.FAILED


def test_all_checks_have_to_be_met_and_an_answer_be_given() -> None:
    checks = Checks(exact="12", urls=(f"{SHOP}/cart",))
    assert check(attempt(checks, "12", f"{SHOP}/cart")) is Result.PASSED
    assert check(attempt(checks, "12", f"{SHOP}/")) is Result.FAILED
    assert check(attempt(checks, None, f"{SHOP}/cart")) is Result.FAILED
    assert check(attempt(Checks(urls=(f"{SHOP}/cart",)), None, f"{SHOP}/cart")) is Result.PASSED


def test_what_an_answer_means_is_left_to_a_judge_that_is_told() -> None:
    checks = Checks(must_include=("mug",), fuzzy=("a blue mug", "or a cup"))
    assert check(attempt(checks, "the mug")) is Result.OPEN
    assert check(attempt(checks, "the pan")) is Result.FAILED
    assert check(attempt(Checks(fuzzy=("x",)), None)) is Result.FAILED
    told = for_judge(attempt(checks, "the mug"))
    assert told.task.instruction.endswith("(A right answer means: a blue mug; or a cup)")
    plain = attempt(None, "x")
    assert for_judge(plain) == plain


def test_nothing_is_said_where_the_outcome_is_not_the_agents_or_there_are_no_checks() -> None:
    assert check(attempt(None)) is None
    blocked = attempt(Checks(exact="x"), "x").model_copy(update={"outcome": Outcome.BLOCKED})
    assert check(blocked) is None
