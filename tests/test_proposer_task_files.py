"""Task files of WebVoyager, WebArena and Mind2Web: what is read from them; what is wrong is said in one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proposer.task import PageCheck, Task, Website
from proposer.task_files import READERS, TaskFileError

PLACES = {"SHOPPING": "http://127.0.0.1:7770/", "aa": "https://www.aa.com"}
ARENA: dict[str, Any] = {
    "task_id": 7,
    "sites": ["shopping"],
    "start_url": "__SHOPPING__/home |AND| __SHOPPING__/cart",
    "intent": "Buy the mug",
    "eval": {
        "eval_types": ["string_match", "url_match", "program_html"],
        "reference_answers": {"must_include": ["mug", "$12"], "fuzzy_match": ["a blue mug"]},
        "reference_url": "__SHOPPING__/order?id=1 |OR| __SHOPPING__/done",
        "url_note": "GOLD in PRED",
        "program_html": [
            {
                "url": "__SHOPPING__/cart",
                "locator": "document.title",
                "required_contents": {"must_include": ["Cart |OR| Basket"]},
            },
            {"url": "last", "locator": "", "required_contents": {"exact_match": "done"}},
        ],
    },
}
VOYAGER = {"web_name": "Allrecipes", "id": "Allrecipes--0", "ques": "Find soup.", "web": "https://www.allrecipes.com/"}
MIND = {"website": "aa", "confirmed_task": "Book a flight.", "annotation_id": "x1", "actions": []}


def read(tmp_path: Path, suite: str, text: str, places: Mapping[str, str] = PLACES) -> list[Task]:
    path = tmp_path / "tasks.json"
    path.write_text(text)
    return READERS[suite](path, places)


def test_webvoyager_has_a_task_in_each_line(tmp_path: Path) -> None:
    first, second = read(tmp_path, "webvoyager", f"{json.dumps(VOYAGER)}\n\n{json.dumps(VOYAGER | {'id': 'b'})}\n")
    assert (first.instruction, first.website.name, first.website.url) == (
        "Find soup.",
        "Allrecipes",
        "https://www.allrecipes.com/",
    )
    assert (first.source, first.suite_id, first.checks) == ("suite", "webvoyager/Allrecipes--0", None)
    assert first.id != second.id


def test_webarena_comes_with_its_checks_and_placeholders_filled(tmp_path: Path) -> None:
    (task,) = read(tmp_path, "webarena", json.dumps([ARENA]))
    assert task.website.url == "http://127.0.0.1:7770/home" and task.suite_id == "webarena/7"
    assert task.website.allowed_hosts == ("127.0.0.1:7770",)
    checks = task.checks
    assert checks is not None
    assert (checks.exact, checks.must_include, checks.fuzzy) == (None, ("mug", "$12"), ("a blue mug",))
    assert checks.urls == ("http://127.0.0.1:7770/order?id=1", "http://127.0.0.1:7770/done")
    assert checks.pages == (
        PageCheck(url="http://127.0.0.1:7770/cart", locator="document.title", must_include=(("Cart", "Basket"),)),
        PageCheck(exact="done"),
    )


def test_what_can_not_be_done_is_to_be_said(tmp_path: Path) -> None:
    answers = {
        "eval_types": ["string_match"],
        "reference_answers": {"fuzzy_match": "N/A"},
        "string_note": "No such mug.",
    }
    (task,) = read(tmp_path, "webarena", json.dumps([ARENA | {"eval": answers}]))
    assert task.checks is not None and task.checks.fuzzy == ("This can't be done. No such mug.",)


def test_mind2web_names_are_given_addresses(tmp_path: Path) -> None:
    online = {"website": "https://www.x.org/", "confirmed_task": "Look.", "task_id": "o1", "level": "easy"}
    book, look = read(tmp_path, "mind2web", json.dumps([MIND, online]))
    assert (book.website.url, book.suite_id) == ("https://www.aa.com", "mind2web/x1")
    assert (look.website.url, look.website.name, look.suite_id) == ("https://www.x.org/", "www.x.org", "mind2web/o1")


def arena(**evaluation: Any) -> str:
    return json.dumps([ARENA | {"eval": ARENA["eval"] | evaluation}])


@pytest.mark.parametrize(
    ("suite", "text", "words"),
    [
        ("webvoyager", "{", "line 1: not JSON"),
        ("webvoyager", json.dumps(VOYAGER) + "\n[]", "line 2: entry: "),
        ("webvoyager", json.dumps(VOYAGER | {"ques": ""}), "line 1: ques: "),
        ("webvoyager", json.dumps(VOYAGER | {"web": "allrecipes"}), "line 1: 'allrecipes' is no address of the web"),
        (
            "webvoyager",
            f"{json.dumps(VOYAGER)}\n{json.dumps(VOYAGER)}",
            "ids must differ, got webvoyager/Allrecipes--0",
        ),
        ("webarena", '[{"task_id": 1}]', "task 0: intent: Field required"),
        ("webarena", "{}", "expected a list of tasks"),
        ("webarena", '[{"task', "file: not JSON"),
        ("webarena", arena(eval_types=["telepathy"]), "task 0: eval.eval_types.0: "),
        ("webarena", arena(reference_answers=None), "eval.reference_answers: expected"),
        ("webarena", arena(reference_url=""), "eval.reference_url: expected an address"),
        (
            "webarena",
            arena(reference_url="__GITLAB__/x"),
            "no address is known for __GITLAB__; give one: --place GITLAB=",
        ),
        ("webarena", arena(program_html=[]), "eval.program_html: expected at least one page"),
        (
            "webarena",
            arena(program_html=[{"url": "func:last_order()", "required_contents": {"exact_match": "x"}}]),
            "func: asks a site's own interface, which isn't supported",
        ),
        ("webarena", arena(program_html=[{"url": "last", "required_contents": {}}]), "required_contents: expected"),
        (
            "mind2web",
            json.dumps([MIND | {"website": "bb"}]),
            "task 0: 'bb' is no address of the web; give one: --place bb=",
        ),
        ("mind2web", json.dumps([MIND | {"confirmed_task": 3}]), "task 0: confirmed_task: "),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, suite: str, text: str, words: str) -> None:
    with pytest.raises(TaskFileError) as caught:
        read(tmp_path, suite, text)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match="No such file"):
        READERS["webarena"](tmp_path / "none.json", {})
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(TaskFileError, match="expected UTF-8 text"):
        READERS["mind2web"](tmp_path / "bytes.json", {})


def test_a_task_of_browsergym_is_the_same_wherever_its_pages_are_and_others_are_not() -> None:
    def made(suite_id: str, port: int, seed: int = 0) -> Task:
        website = Website(name="miniwob", url=f"http://127.0.0.1:{port}/miniwob/")
        return Task(website=website, instruction="x", source="suite", suite_id=suite_id, seed=seed)

    gym = made("browsergym/miniwob.click-test", 1)
    assert gym.id == made("browsergym/miniwob.click-test", 2).id
    assert gym.id != made("browsergym/miniwob.click-test", 1, seed=1).id
    assert made("webarena/1", 1).id != made("webarena/1", 2).id
