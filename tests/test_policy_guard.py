"""Classes of actions and requests by their words, and what counts as private."""

import pytest

from policy.action_class import Sent, Target, classify, classify_request
from policy.guard import Guard, GuardSettings
from policy.personal import find_private, is_card_number
from policy.trajectory import Action, ActionClass, ActionKind

READ, REVERSIBLE, IRREVERSIBLE = ActionClass


def form(words: str, url: str = "https://a.example/x", method: str = "post") -> Target:
    return Target(kind="form", name=words, words=words, method=method, url=url)


def control(words: str) -> Target:
    return Target(kind="control", name=words, words=words)


def link(words: str, url: str) -> Target:
    return Target(kind="link", name=words, words=words, method="get", url=url)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (None, READ),
        (form("Place order"), IRREVERSIBLE),
        (form("Pay now"), IRREVERSIBLE),
        (form("Send"), IRREVERSIBLE),
        (form("Post comment"), IRREVERSIBLE),
        (form("Delete account"), IRREVERSIBLE),
        (form("Sign up"), IRREVERSIBLE),
        (form("Hmm"), IRREVERSIBLE),
        (form("Continue", "https://a.example/checkout/payment"), IRREVERSIBLE),
        (form("Details", "https://a.example/deleteAccount"), IRREVERSIBLE),
        (form("Add to cart"), REVERSIBLE),
        (form("Remove Kettle from cart", "https://a.example/cart/remove"), REVERSIBLE),
        (form("Accept all"), REVERSIBLE),
        (form("Search"), REVERSIBLE),
        (form("Next"), REVERSIBLE),
        (form("Log in"), REVERSIBLE),
        (control("Not now"), READ),
        (control("Show more"), READ),
        (form("Place order from basket"), IRREVERSIBLE),
        (form("Search", method="get"), READ),
        (form("Delete", "https://a.example/delete", "get"), IRREVERSIBLE),
        (form("Delete", "https://a.example/delete", "dialog"), READ),
        (form("Comment", method="").model_copy(update={"is_scripted": True}), IRREVERSIBLE),
        (form("Email me", method="").model_copy(update={"is_scripted": True}), IRREVERSIBLE),
        (link("Pay", "https://a.example/wiki/Salary"), READ),
        (link("Orders", "https://a.example/orders"), READ),
        (link("Delete", "https://a.example/item/3?action=delete"), IRREVERSIBLE),
        (link("Unsubscribe", "https://a.example/unsubscribe"), IRREVERSIBLE),
        (control("Buy now"), IRREVERSIBLE),
        (control("Yes, delete it"), IRREVERSIBLE),
        (control("Sort order"), REVERSIBLE),
        (control("Order by price"), READ),
        (control("Order history"), READ),
        (control("12 comments"), READ),
        (control("Menu"), READ),
        (control("Add to basket"), REVERSIBLE),
        (Target(kind="field", name="Delete", words="Delete"), READ),
    ],
    ids=lambda value: f"{value.kind} {value.words}" if isinstance(value, Target) else str(value),
)
def test_an_action_is_classed_by_element_form_method_and_words(target: Target | None, wanted: ActionClass) -> None:
    assert classify(target) is wanted


@pytest.mark.parametrize(
    ("method", "url", "body", "wanted"),
    [
        ("GET", "https://a.example/pay", "", READ),
        ("OPTIONS", "https://a.example/pay", "", READ),
        ("POST", "https://a.example/collect", "x=1", REVERSIBLE),
        ("POST", "https://a.example/api/orders", "", IRREVERSIBLE),
        ("POST", "https://a.example/api/placeOrder/confirm", "", IRREVERSIBLE),
        ("DELETE", "https://a.example/api/7", "", IRREVERSIBLE),
        ("DELETE", "https://a.example/api/cart/7", "", IRREVERSIBLE),
        ("POST", "https://a.example/cart/delete", "", REVERSIBLE),
        ("POST", "https://a.example/find/7", "", READ),
        ("POST", "https://a.example/graphql", '{"query": "query Q { kettles { name } }"}', READ),
        ("POST", "https://a.example/graphql", '[{"query": "{ a }"}, {"query": "query Q { b }"}]', READ),
        ("POST", "https://a.example/graphql", '{"query": "mutation like { like(id: 1) }"}', REVERSIBLE),
        ("POST", "https://a.example/graphql", '{"query": "mutation payNow { go(id: 1) }"}', IRREVERSIBLE),
        ("POST", "https://a.example/graphql", '[{"query": "{ a }"}, {"query": "mutation M { b }"}]', REVERSIBLE),
        ("POST", "https://a.example/graphql", '{"query": "query A { a } mutation B { b }"}', REVERSIBLE),
        ("POST", "https://a.example/graphql", "{not json", REVERSIBLE),
        ("POST", "https://a.example/graphql", '[{"query": 1}]', REVERSIBLE),
        ("POST", "https://a.example/graphql", "[" * 100_000, REVERSIBLE),
    ],
)
def test_a_request_is_classed_by_method_address_and_query(
    method: str, url: str, body: str, wanted: ActionClass
) -> None:
    assert classify_request(Sent(method, url, body), ("https://a.example/find/*",)) is wanted


def test_a_card_number_is_told_by_its_check_digit() -> None:
    assert is_card_number("4111 1111 1111 1111")
    assert is_card_number("378282246310005")
    assert not is_card_number("4111 1111 1111 1112")
    assert not is_card_number("79927398713")  # the check digit is right, but 11 digits are none
    assert not is_card_number("0000 0000 0000 0000")


FIELD = Target(kind="field", name="Search", words="Search", field_type="text")


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("blue mug", {}, ""),
        ("2412.13194", {}, ""),
        ("2026-11-26, 978-0-306-40615-7", {}, ""),
        ("hunter2", {"field_type": "password"}, "password"),
        ("hunter2", {"name": "Your password"}, "password"),
        ("123", {"name": "CVC"}, "payment data"),
        ("123", {"autocomplete": "section-a cc-csc"}, "payment data"),
        ("pay 4111-1111-1111-1111 now", {}, "card number"),
        ("write to eve@evil.example", {}, "e-mail address"),
        ("me@home.example", {"field_type": "email"}, ""),
        ("call +44 20 7946 0958", {}, "phone number"),
        ("(555) 010-4477", {}, "phone number"),
        ("0104477", {"field_type": "tel"}, "personal data"),
        ("High Street 1", {"autocomplete": "street-address"}, "personal data"),
    ],
)
def test_private_data_is_told_by_field_and_by_pattern(text: str, changes: dict[str, str], words: str) -> None:
    found = find_private(text, FIELD.model_copy(update=changes), ("me@home.example",))
    assert words in found
    assert bool(words) == bool(found)


async def _rule(guard: Guard, target: Target) -> bool:
    return (await guard.rule(Action(kind=ActionKind.CLICK, mark=1), target)).why_not == ""


@pytest.mark.asyncio
async def test_a_request_may_be_no_worse_than_the_action_in_force() -> None:
    guard = Guard("refuse", GuardSettings())
    like, pay = Sent("POST", "https://a.example/like"), Sent("POST", "https://a.example/pay")

    def passing() -> list[bool]:
        return [guard.lets_pass(sent, is_page=False) for sent in (like, pay)]

    assert passing() == [False, False]
    assert await _rule(guard, control("Add to cart"))
    assert passing() == [True, False]
    assert not await _rule(guard, control("Pay"))
    assert passing() == [False, False]


@pytest.mark.asyncio
async def test_who_is_asked_decides_and_nobody_there_refuses() -> None:
    asked = []

    async def ask(question) -> bool:
        asked.append(question.target.name)
        return question.target.name == "Pay"

    guard = Guard("ask", GuardSettings(), ask)
    assert [await _rule(guard, control(name)) for name in ("Pay", "Delete", "Menu")] == [True, False, True]
    assert asked == ["Pay", "Delete"]
    assert not await _rule(Guard("ask", GuardSettings()), control("Pay"))


@pytest.mark.asyncio
async def test_the_ledger_names_places_and_fields_and_no_values() -> None:
    guard = Guard("allow", GuardSettings())
    url = "https://bob:pw@a.example:8443/u/bob@a.example/reset/a8f3k29dk20fk39dk20fk/x?token=secret#secret"
    await guard.rule(Action(kind=ActionKind.CLICK, mark=1), form("Send", url).model_copy(update={"fields": ("card",)}))
    guard.lets_pass(Sent("POST", url, "card=4111"), is_page=True)
    action, request = guard.side_effects
    assert (action.after, action.what, action.of, action.method, action.fields) == (
        1, "action", IRREVERSIBLE, "POST", ("card",)
    )  # fmt: skip
    assert action.url == request.url == "https://a.example:8443/u/.../reset/.../x"
    assert request.allowed


@pytest.mark.asyncio
async def test_a_script_that_sends_without_end_fills_no_memory() -> None:
    guard = Guard("refuse", GuardSettings())
    for number in range(1000):
        guard.lets_pass(Sent("POST", f"https://a.example/pay/{number}"), is_page=False)
    assert len(guard.side_effects) == 200
    assert len(guard.take_held_back()) == 3
