"""Suites end to end: task files and BrowserGym's, with the real workers, browser and servers, and a scripted model."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.scripted import CONFIG, Call, ScriptedServer
from bench.small_site import Reply, SmallSite
from launch import config as configs
from launch.books import WeightsRow
from launch.cli import app
from launch.config import ConfigError
from launch.ledger import Ledger
from launch.suite import Chosen, chosen_tasks

CART = "<title>Cart</title><p id=total>$12</p>"


def script(call: Call) -> str:
    """An agent that goes to the cart and reads, and a judge for whom twelve is right."""
    if call.role == "judge":
        return f"Reason: so it is.\nVerdict: {'success' if 'means: twelve' in call.text else 'failure'}"
    on_cart = "Page: Cart" in call.text
    return f"Thought: on.\nAction: {'Answer; $12' if on_cart else 'Click Cart'}"


def arena(number: int, url: str, **evaluation: object) -> dict[str, object]:
    return {
        "task_id": number,
        "sites": ["shopping"],
        "start_url": url,
        "intent": f"What is the total? ({number})",
        "eval": evaluation,
    }


def refusal(words: list[str]) -> str:
    """The one line by which a command that can't be done is refused."""
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def model(tmp_path: Path) -> Iterator[list[str]]:
    """Options of a command that uses the scripted model."""
    (tmp_path / "starter" / "policy").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "starter" / "policy" / name).write_text("{}")
    with ScriptedServer(script) as server:
        settings = [*server.settings(tmp_path), "rollout.agent.max_steps=3", "cluster.num_cpus=1"]
        yield ["--config", str(CONFIG), *(word for setting in settings for word in ("--set", setting))]


def test_a_task_file_is_attempted_and_scored_by_checks_and_judge(
    tmp_path: Path, site: SmallSite, model: list[str]
) -> None:
    url = site.serve("<title>Home</title><a href=/cart>Cart</a>")
    site.replies["/cart"] = Reply(CART)
    program = {"url": "last", "locator": "document.querySelector('#total').innerText"}
    wanted = {"required_contents": {"exact_match": "$12"}}
    site.replies["/broken"] = Reply(CART, 500)
    broken = {"url": f"{url}broken", "required_contents": {"must_include": ["$12"]}}
    elsewhere = {"url": f"{url}cart", "locator": "document.title", "required_contents": {"must_include": ["Basket"]}}
    tasks = [
        arena(0, "__SHOPPING__", eval_types=["string_match"], reference_answers={"must_include": ["12"]}),
        arena(1, "__SHOPPING__", eval_types=["url_match"], reference_url="__SHOPPING__/cart"),
        arena(2, "__SHOPPING__", eval_types=["program_html"], program_html=[program | wanted]),
        arena(3, "__SHOPPING__", eval_types=["program_html"], program_html=[elsewhere]),
        arena(4, "__SHOPPING__", eval_types=["string_match"], reference_answers={"fuzzy_match": ["twelve"]}),
        arena(5, "__SHOPPING__", eval_types=["string_match"], reference_answers={"fuzzy_match": ["thirteen"]}),
        arena(6, "http://127.0.0.1:9/", eval_types=["string_match"], reference_answers={"exact_match": "12"}),
        arena(7, "__SHOPPING__", eval_types=["program_html"], program_html=[broken]),
    ]
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(tasks))
    words = ["eval", "--suite", "webarena", "--tasks", str(file), "--place", f"SHOPPING={url}", *model]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "all: 67 [30, 90] %, n = 6" in result.stdout and "2 open" in result.stdout
    folder = tmp_path / "runs" / "tiny-suite-webarena"
    found = json.loads((folder / "suite.json").read_text())
    assert (found["n"], found["open"]) == (6, 2)
    assert found["outcomes"] == {"finished": 6, "site_error": 2}
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("trajectories/*.json")}
    assert len(stamps) == len(tasks)
    for same in ([], ["--set", "rollout.num_judgements=1"]):
        assert CliRunner().invoke(app, [*words, *same]).exit_code == 0  # nothing is done twice
    other = ["--set", "rollout.agent.max_steps=4", "--set", "judge.num_votes=3"]
    assert refusal([*words, *other]) == (
        f"error: {folder}: its results were made with other judge.num_votes, rollout.agent.max_steps; "
        "make others beside them with `--set run.name=...`, or remove the folder"
    )
    (tmp_path / "starter" / "policy" / "model.safetensors").write_text("{ }")
    assert "were made with other weights; make" in refusal(words)
    (folder / "made-with.json").unlink()  # as in a folder of the version before
    assert "don't say with which weights and settings they were made; make" in refusal(words)
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("trajectories/*.json")}


def test_a_live_website_that_blocks_is_visited_by_one_after_another_and_then_left(
    tmp_path: Path, site: SmallSite, model: list[str]
) -> None:
    site.replies["/"] = Reply("no", 403)
    file = tmp_path / "tasks.json"
    answers = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "12"}}
    file.write_text(json.dumps([arena(number, site.url(), **answers) for number in range(12)]))
    manners = "on_practice=true robots=ignore pages_per_minute=6000 episodes_per_host=1".split()
    words = ["eval", "--suite", "webarena", "--tasks", str(file), *model]
    for setting in manners:
        words += ["--set", f"rollout.browser.politeness.{setting}"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "{'blocked': 12}, 12 open" in result.stdout
    assert site.paths.count("/") == 10  # had two been there at once, one more would have come
    records = [path.read_text() for path in (tmp_path / "runs").rglob("trajectories/*.json")]
    assert sum("not visited: test.localhost" in record for record in records) == 2


def test_miniwob_is_played_from_its_packaged_pages(tmp_path: Path, model: list[str]) -> None:
    pytest.importorskip("browsergym.miniwob")
    words = ["eval", "--suite", "miniwob", "--only", "click-link", "--seeds", "2", *model]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    attempts = set((tmp_path / "runs").rglob("trajectories/*.json"))
    lost = attempts.pop()  # as if the call had been killed before it
    stamps = {path: path.stat().st_mtime_ns for path in attempts}
    lost.unlink()
    assert CliRunner().invoke(app, words).exit_code == 0  # its pages are at another port now
    assert set((tmp_path / "runs").rglob("trajectories/*.json")) == {*stamps, lost}
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert re.search(r"miniwob.click-link: 0 \[.*\] %, n = 2", result.stdout)  # there is no Cart to click


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "eval: expected a run, or --suite"),
        (["--suite", "nosuch"], "suite nosuch: No module named 'browsergym"),
        (["--suite", "webarena"], "suite webarena: expected its task file, --tasks FILE"),
        (["--suite", "webarena", "--tasks", "none.json"], "none.json: No such file or directory"),
        (["--suite", "mind2web", "--tasks", "none.json", "--place", "aa"], "--place: expected NAME=address"),
        (["--suite", "mind2web", "--tasks", "none.json", "--place", "a=b"], "--place a=b: expected an address"),
        (["--suite", "webarena", "--set", "model.starter=nowhere"], "no model there"),
    ],
)
def test_what_can_not_be_measured_is_refused_in_one_line(
    tmp_path: Path, model: list[str], words: list[str], said: str
) -> None:
    assert said in refusal(["eval", *model, *words])
    assert not (tmp_path / "runs").exists()


def test_each_version_of_a_run_has_a_folder_which_another_name_changes(tmp_path: Path, model: list[str]) -> None:
    config = configs.load(CONFIG, [word for word in model[2:] if word != "--set"])
    config.run_dir.mkdir(parents=True)
    with Ledger(config.run_dir) as ledger:
        ledger.set_meta("config", config.model_dump_json())
        ledger.commit_weights(WeightsRow(0, None, -1, str(tmp_path / "starter" / "policy")))
    file = tmp_path / "tasks.json"
    file.write_text("[]")
    words = ["eval", str(config.run_dir), "--suite", "webarena", "--tasks", str(file)]
    for setting in ("run.seed=0", "rollout.agent.max_steps=9", "run.name=other"):  # no results yet that could differ
        assert CliRunner().invoke(app, [*words, "--set", setting]).exit_code == 0
    assert {path.parent.name for path in tmp_path.rglob("suite.json")} == {
        "tiny-v0-suite-webarena",
        "other-v0-suite-webarena",
    }


def test_miniwob_without_its_pages_says_where_it_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("browsergym.miniwob")
    monkeypatch.setenv("MINIWOB_URL", "file:///nowhere/miniwob/")
    with pytest.raises(ConfigError, match="set MINIWOB_URL to where they are"), chosen_tasks("miniwob", Chosen()):
        pass
