"""The policy's prompt, and the parser of its replies."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.prompt import SYSTEM, action_text, describe, parse, render, system_prompt
from policy.trajectory import Action, ActionKind, ActionSpace, Element, Observation

OBSERVATION = Observation(
    url="http://shop.test/",
    title="Shop",
    elements=(Element(mark=1, tag="a", name="Copper Kettle", box=(0, 0, 10, 10)),),
    listing="<a> Copper Kettle [1]  $12.50",
    screenshot="0" * 64,
    notice="The page has not changed.",
)

texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20).filter(
    lambda t: t[0] not in "[;:,*"
)
marks = st.integers(1, 999)
actions = st.one_of(
    st.builds(Action, kind=st.just(ActionKind.CLICK), mark=marks),
    st.builds(Action, kind=st.sampled_from([ActionKind.TYPE, ActionKind.SELECT]), mark=marks, text=texts),
    st.builds(Action, kind=st.just(ActionKind.SCROLL), mark=st.none() | marks, text=st.sampled_from(["up", "down"])),
    st.builds(Action, kind=st.sampled_from([ActionKind.WAIT, ActionKind.GO_BACK, ActionKind.HOME])),
    st.builds(Action, kind=st.just(ActionKind.ANSWER), text=texts.filter(lambda t: "**" not in t)),
)


@given(actions, st.sampled_from(["", "Copper Kettle", "Cart (5)", "Page 2", "Add 3 to cart"]))
def test_every_action_is_read_back_as_it_was_written(action: Action, name: str) -> None:
    if "**" not in action.text:
        assert parse(f"Thought: because.\nAction: {action_text(action, name)}").action == action


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("thought: x\naction: click [7]", Action(kind=ActionKind.CLICK, mark=7)),
        ("Thought: x\nAction: Click 7", Action(kind=ActionKind.CLICK, mark=7)),
        ("Thought: x\nAction: Click Cart (5) [9]", Action(kind=ActionKind.CLICK, mark=9)),
        (
            "Thought: x\nAction: Select Sort by [10]; Price [high]",
            Action(kind=ActionKind.SELECT, mark=10, text="Price [high]"),
        ),
        ("Thought: x\n**Action:** Click [7]", Action(kind=ActionKind.CLICK, mark=7)),
        ("Thought: x\nAction: Type [3]: blue mug", Action(kind=ActionKind.TYPE, mark=3, text="blue mug")),
        ("Action: Answer; 12.50", Action(kind=ActionKind.ANSWER, text="12.50")),
        ("Action: ANSWER: 7 products", Action(kind=ActionKind.ANSWER, text="7 products")),
        ("Action: Answer; [Blue]", Action(kind=ActionKind.ANSWER, text="Blue")),
        ("Action: Scroll [WINDOW]; Down", Action(kind=ActionKind.SCROLL, text="down")),
        ("Action: Go back", Action(kind=ActionKind.GO_BACK)),
        ("Thought: x\nAction: Home\nand then more words", Action(kind=ActionKind.HOME)),
    ],
)
def test_harmless_variation_is_read(reply: str, action: Action) -> None:
    assert parse(reply).action == action


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ("", "no line starting with Action:"),
        ("I would click the kettle.", "no line starting with Action:"),
        ("Thought: x\nAction:", "there is no action"),
        ("Action: Fly [3]", "there is no action 'Fly [3]'"),
        ("Action: Click", "needs the number"),
        ("Action: Click [kettle]", "needs the number"),
        ("Action: Type [3]", "needs a text"),
        ("Action: Type; mug", "needs the number"),
        ("Action: Select [3];", "needs a text"),
        ("Action: Scroll [WINDOW]; left", "up or down"),
        ("Action: Answer;", "needs a text"),
    ],
)
def test_malformed_replies_say_what_was_expected(reply: str, complaint: str) -> None:
    parsed = parse(reply)
    assert parsed.action is None
    assert complaint in parsed.malformed


def element(mark: int, name: str) -> Element:
    return Element(mark=mark, tag="a", name=name, box=(0, 0, 10, 10))


@pytest.mark.parametrize(
    ("action", "mark"),
    [
        ("Click Returns [2]", 2),
        ("Click Returns [8]", 2),
        ("Click returns", 2),
        ("Click Copper  Kettle [2]", 1),
        ("Click The unnamed button [6]", 6),
        ("Click Copper [3]", 1),
        ("Click the Copper Kettle link [9]", 1),
        ("Click [3]", 3),
        ("Click Details [4]", 4),
        ("Click Cart (5)", 5),
    ],
)
def test_a_name_that_one_element_bears_decides_and_a_number_where_names_do_not(action: str, mark: int) -> None:
    names = ["Copper Kettle", "Returns", "Details", "Details", "Cart (5)", ""]
    elements = [element(number, name) for number, name in enumerate(names, 1)]
    assert parse(f"Action: {action}", elements).action == Action(kind=ActionKind.CLICK, mark=mark)


def test_a_name_finds_a_field_and_leaves_the_text_as_it_is() -> None:
    typed = Action(kind=ActionKind.TYPE, mark=6, text="blue [mug]; 2")
    for target in ("Search [6]", "Search [9]", "Search"):
        assert parse(f"Action: Type {target}; blue [mug]; 2", [element(6, "Search")]).action == typed


@pytest.mark.parametrize(
    "action",
    [
        Action(kind=ActionKind.CLICK, mark=3),
        Action(kind=ActionKind.TYPE, mark=4, text="blue [mug]; 2"),
        Action(kind=ActionKind.SCROLL, mark=3, text="down"),
        Action(kind=ActionKind.DRAG, mark=3, to_mark=4),
    ],
)
def test_a_name_that_holds_semicolons_and_numbers_is_read_as_the_page_lists_it(action: Action) -> None:
    names = ["Cart", "Save", "Save [2]; more", "Field; name"]
    elements = [element(number, name) for number, name in enumerate(names, 1)]
    written = action_text(action, names[(action.mark or 0) - 1]).replace("; [4]", "; Field; name [4]")
    assert parse(f"Action: {written}", elements, ActionSpace.FULL).action == action


def test_an_ambiguous_name_without_its_number_is_told() -> None:
    reply = parse("Action: Click Details [7]", [element(1, "Details"), element(2, "Details")])
    assert reply.action is None
    assert "2 elements are named Details" in reply.malformed


def test_a_name_is_not_taken_for_a_button_that_does_something_to_it() -> None:
    reply = parse("Action: Click Copper Kettle [2]", [element(1, "Cart"), element(2, "Remove Copper Kettle")])
    assert reply.malformed == "no element is named Copper Kettle, and [2] is Remove Copper Kettle"


def test_a_name_that_no_element_bears_is_not_taken_for_the_element_with_its_number() -> None:
    reply = parse("Action: Click Cooler [1]", [element(1, "Cart (5)")])
    assert reply.action is None
    assert reply.malformed == "no element is named Cooler, and [1] is Cart (5)"


def test_the_prompt_holds_page_history_notice_and_task_in_this_order() -> None:
    text = render("Buy it", OBSERVATION, ["Click [Home]"], None).parts[0]
    places = [
        str(text).index(part)
        for part in ("Page: Shop", "Copper Kettle [1]", "1. Click [Home]", "has not changed", "Buy it")
    ]
    assert places == sorted(places)


def test_without_a_picture_the_prompt_is_text_alone_and_with_one_the_picture_comes_first() -> None:
    assert len(render("Buy it", OBSERVATION, [], None).parts) == 1
    assert render("Buy it", OBSERVATION, [], b"jpeg").parts[0] == b"jpeg"


def test_history_names_elements_since_their_marks_die_with_the_page() -> None:
    assert describe(Action(kind=ActionKind.CLICK, mark=1), OBSERVATION) == "clicked Copper Kettle"
    assert describe(Action(kind=ActionKind.CLICK, mark=9), OBSERVATION) == "clicked element 9"


MORE = [
    ("Append Note [2]; more", Action(kind=ActionKind.APPEND, mark=2, text="more")),
    ("Hover Menu [1]", Action(kind=ActionKind.HOVER, mark=1)),
    ("Drag Menu [1]; Note [2]", Action(kind=ActionKind.DRAG, mark=1, to_mark=2)),
    ("Upload Note [2]; list.txt", Action(kind=ActionKind.UPLOAD, mark=2, text="list.txt")),
    ("Press Control+A", Action(kind=ActionKind.PRESS, text="Control+A")),
    ("Scroll [WINDOW]; right", Action(kind=ActionKind.SCROLL, text="right")),
    ("Answer; 7", Action(kind=ActionKind.ANSWER, text="7")),
]
POINTED = [
    ("Click (12, 34)", Action(kind=ActionKind.CLICK, point=(12, 34))),
    ("Type [12,34]; blue; mug", Action(kind=ActionKind.TYPE, point=(12, 34), text="blue; mug")),
    ("Drag (1, 2); (3, 4)", Action(kind=ActionKind.DRAG, point=(1, 2), to_point=(3, 4))),
    ("Scroll (12, 34); down", Action(kind=ActionKind.SCROLL, point=(12, 34), text="down")),
    ("Scroll [WINDOW]; up", Action(kind=ActionKind.SCROLL, text="up")),
]
TWO = (element(1, "Menu"), element(2, "Note"))


@pytest.mark.parametrize(("line", "action"), MORE)
def test_the_full_space_has_more_actions_and_the_basic_one_knows_nothing_of_them(line: str, action: Action) -> None:
    assert parse(f"Action: {line}", TWO, ActionSpace.FULL).action == action
    assert parse(f"Action: {action_text(action)}", (), ActionSpace.FULL).action == action
    basic = parse(f"Action: {line}", TWO)
    if action.kind not in ActionSpace.BASIC.kinds:
        assert basic.malformed.endswith("use one of Click, Type, Select, Scroll, Wait, GoBack, Home, Answer")
    elif action.kind is ActionKind.SCROLL:
        assert basic.malformed == "Scroll needs a direction: up or down"


@pytest.mark.parametrize(("line", "action"), POINTED)
def test_at_points_an_action_names_a_place(line: str, action: Action) -> None:
    assert parse(f"Action: {line}", TWO, ActionSpace.POINTS).action == action
    assert parse(f"Action: {action_text(action)}", (), ActionSpace.POINTS).action == action


@pytest.mark.parametrize(
    ("line", "space", "complaint"),
    [
        ("Click Menu [1]", ActionSpace.POINTS, "Click needs a point: Click (x, y)"),
        ("Drag Menu [1]", ActionSpace.FULL, "Drag needs where to: Drag name [n]; name [m]"),
        ("Drag Menu [1]; Bin [2]", ActionSpace.FULL, "no element is named Bin, and [2] is Note"),
        ("Press", ActionSpace.FULL, "Press needs a text after a semicolon"),
        ("Scroll [WINDOW]; sideways", ActionSpace.FULL, "Scroll needs a direction: up or down or left or right"),
    ],
)
def test_what_an_action_of_the_larger_spaces_lacks_is_said(line: str, space: ActionSpace, complaint: str) -> None:
    assert parse(f"Action: {line}", TWO, space).malformed == complaint


def test_the_system_message_of_the_basic_space_is_the_one_that_the_starter_was_taught() -> None:
    assert system_prompt(ActionSpace.BASIC, (1024, 768)) == SYSTEM
    assert hashlib.sha256(SYSTEM.encode()).hexdigest()[:16] == "11c637bb75e257bd"
    assert "1024 by 768" in system_prompt(ActionSpace.POINTS, (1024, 768))


def test_an_action_at_a_point_is_told_by_the_element_around_it() -> None:
    assert describe(Action(kind=ActionKind.CLICK, point=(5, 5)), OBSERVATION) == "clicked Copper Kettle"
    assert describe(Action(kind=ActionKind.CLICK, point=(500, 5)), OBSERVATION) == "clicked (500, 5)"
    dragged = Action(kind=ActionKind.DRAG, mark=1, to_mark=9)
    assert describe(dragged, OBSERVATION) == "dragged Copper Kettle to element 9"
