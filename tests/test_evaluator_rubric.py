"""Rubrics: written from the task alone, once; a verdict is what follows from facts whose quotes stand on the page."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.scripted import Call, ScriptedServer
from evaluator.judge import JudgeSettings, ModelJudge, asker_of, prompt_hash
from evaluator.rubric import Fact, Rubric, Rubrics, judge_by, writing_hash, writing_prompt
from evaluator.verdict import Judgement
from launch import config as configs
from launch.config import ConfigError
from launch.judging import RubricFile, seat
from launch.ledger import Ledger
from policy.blobs import BlobStore
from policy.endpoint import EndpointSettings, open_endpoint
from policy.trajectory import Trajectory
from proposer.generate import ModelError, Prompt, Response, Sampling
from tests.makers import observation, picture, step, trajectory

S, F, U = Judgement.SUCCESS, Judgement.FAILURE, Judgement.UNDECIDED
SETTINGS = JudgeSettings(num_screenshots=2, rubric=True)
CART = Fact(about="page", fact="The cart holds a Copper Kettle.")
PRICE = Fact(about="answer", fact="The answer gives the price of the Copper Kettle.")
RUBRIC = Rubric(task_id="t", judge="j", prompt_hash="h", facts=(CART, PRICE))
SCREENS = (observation("<h1> Shop\n<a> Copper Kettle [1]  $12.50"), observation("Cart\n1 x Copper Kettle"))
WRITTEN = json.dumps({"facts": [CART.model_dump(), PRICE.model_dump()]})


def finding(fact: int, found: str = "supported", **evidence: Any) -> dict[str, Any]:
    return {"fact": fact, "found": found, **evidence}


IN_CART = finding(1, screen=2, quote="1 x copper  KETTLE")
PRICED = finding(2, screen=1, quote="Copper Kettle $12.50", answer="12.50")


def said(*findings: dict[str, Any]) -> str:
    return json.dumps({"findings": findings})


@pytest.mark.parametrize(
    ("reply", "judgement"),
    [
        (said(IN_CART, PRICED), S),
        (said(PRICED, IN_CART), S),
        (f"```json\n{said(IN_CART, PRICED)}\n```", S),
        (said(finding(1, "absent"), PRICED), F),
        (said(finding(1, "contradicted", screen=2, quote="Cart"), PRICED), F),
        (said(IN_CART, finding(2, "contradicted", screen=1, quote="$12.50")), F),
        (said(IN_CART | {"quote": "2 x Copper Kettle"}, PRICED), None),  # stands nowhere
        (said(IN_CART | {"screen": 1}, PRICED), None),  # stands on the other screen
        (said(IN_CART | {"screen": 3}, PRICED), None),
        (said(IN_CART | {"screen": 0}, PRICED), None),
        (said(IN_CART | {"quote": ""}, PRICED), None),
        (said(IN_CART | {"quote": "Copper Kett"}, PRICED), None),  # half a word
        (said(finding(1, "contradicted", screen=2, quote="empty"), PRICED), None),
        (said(finding(1, "absent"), PRICED | {"quote": "$8.00"}), None),  # what is false beside a failure is false too
        (said(IN_CART, PRICED | {"answer": ""}), None),
        (said(IN_CART, PRICED | {"answer": "$8.00"}), None),  # not what was answered
        (said(IN_CART, PRICED | {"screen": 0, "quote": ""}), None),  # the answer alone proves nothing
        (said(IN_CART), None),
        (said(IN_CART, IN_CART), None),
        (said(IN_CART, PRICED, finding(3, "absent")), None),
        (said(IN_CART | {"found": "probably"}, PRICED), None),
        (said(IN_CART | {"verdict": "success"}, PRICED), None),
        ("Reason: fine.\nVerdict: success", None),
        ("[]", None),
        ("", None),
    ],
)
def test_a_judgement_follows_from_facts_whose_quotes_are_shown(reply: str, judgement: Judgement | None) -> None:
    given = judge_by(RUBRIC, reply, SCREENS, "It costs $12.50")
    assert (given[0] if given else None) is judgement


def test_a_judgement_tells_what_was_found_where() -> None:
    only_cart = RUBRIC.model_copy(update={"facts": (CART,)})
    assert judge_by(only_cart, said(IN_CART), SCREENS, "done") == (
        S,
        'supported: The cart holds a Copper Kettle.: "1 x copper  KETTLE" on screen 2',
    )


def test_a_rubric_is_asked_for_with_the_task_and_nothing_else() -> None:
    task = trajectory("t", task="Buy the Copper Kettle.").task
    assert writing_prompt(task).parts == ("Website: shop. A shop.\nTask: Buy the Copper Kettle.\n",)


class Script:
    """Replies by role, in turn; what was asked is kept."""

    def __init__(self, rubrics: list[str], checks: list[str]) -> None:
        self.left = {"rubric": rubrics, "judge": checks}
        self.calls: list[Call] = []

    def __call__(self, call: Call) -> str:
        self.calls.append(call)
        return self.left[call.role].pop(0)

    @property
    def roles(self) -> list[str]:
        return [call.role for call in self.calls]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as ledger:
        yield ledger


def attempt(blobs: BlobStore, name: str = "a") -> Trajectory:
    """Two screens: the shop, then the cart."""
    shop, cart = (blobs.put(picture(colour)) for colour in ("red", "blue"))
    first = step().model_copy(update={"observation": SCREENS[0].model_copy(update={"screenshot": shop})})
    final = SCREENS[1].model_copy(update={"screenshot": cart})
    return trajectory(name, answer="$12.50", final=final).model_copy(update={"steps": (first,)})


def judge_at(
    server: ScriptedServer, ledger: Ledger, blobs: BlobStore, settings: JudgeSettings = SETTINGS
) -> ModelJudge:
    generate = open_endpoint(EndpointSettings(base_url=f"{server.url}/v1", model="big"))
    return ModelJudge(generate, blobs, settings, "big", Rubrics(asker_of(generate, settings), "big", ledger))


@pytest.mark.asyncio
async def test_all_attempts_at_a_task_are_judged_by_one_rubric_that_the_ledger_keeps(
    ledger: Ledger, tmp_path: Path
) -> None:
    blobs, script = BlobStore(tmp_path), Script([WRITTEN], [said(IN_CART, PRICED)] * 4)
    with ScriptedServer(script) as server:
        judge = judge_at(server, ledger, blobs)
        attempts = [attempt(blobs, name) for name in "abc"]
        verdicts = await asyncio.gather(*map(judge, attempts))
        again = await judge_at(server, ledger, blobs)(attempts[0])  # as after a restart
    assert {verdict.judgement for verdict in (*verdicts, again)} == {S}
    assert script.roles == ["rubric", "judge", "judge", "judge", "judge"]
    kept = ledger.rubric(attempts[0].task.id, "big", writing_hash())
    assert kept is not None
    assert kept.facts == (CART, PRICE)
    costs = [verdict.cost.replies for verdict in verdicts if verdict.cost]
    assert sorted(costs) == [1, 1, 2], "the one that was first paid for the rubric too"
    assert {verdict.prompt_hash for verdict in verdicts} == {prompt_hash(SETTINGS)}


@pytest.mark.asyncio
async def test_an_agent_that_never_answered_has_failed_and_nothing_is_asked(ledger: Ledger, tmp_path: Path) -> None:
    blobs, script = BlobStore(tmp_path), Script([], [])
    unanswered = attempt(blobs).model_copy(update={"answer": None})
    with ScriptedServer(script) as server:
        verdict = await judge_at(server, ledger, blobs)(unanswered)
    assert (verdict.judgement, verdict.reason) == (F, "the agent never said that it was done")
    assert script.roles == []


@pytest.mark.asyncio
async def test_the_judge_is_shown_numbered_facts_and_screens_and_told_the_form_of_its_reply(
    ledger: Ledger, tmp_path: Path
) -> None:
    blobs, script = BlobStore(tmp_path), Script([WRITTEN], [said(IN_CART, PRICED)])
    with ScriptedServer(script) as server:
        await judge_at(server, ledger, blobs)(attempt(blobs))
    written, checked = script.calls
    assert written.text == "Website: shop. A shop.\nTask: Buy the Copper Kettle.\n"
    for part in (
        "Screen 1:",
        "Screen 2:",
        "that of screen 2",
        "1. (about the page) The cart holds",
        "2. (about the answer)",
    ):
        assert part in checked.text
    assert written.schema is not None and checked.schema is not None
    assert (list(written.schema["properties"]), list(checked.schema["properties"])) == (["facts"], ["findings"])


@pytest.mark.parametrize(
    ("rubrics", "checks", "judgement", "reason"),
    [
        (["what?", WRITTEN], [said(IN_CART, PRICED)], S, "supported"),
        (['{"facts": []}', "{}"], [], U, "no reply held a rubric"),
        ([WRITTEN], [said(IN_CART), said(IN_CART, PRICED)], S, "supported"),
        ([WRITTEN], ["Verdict: success", said(IN_CART | {"quote": "2 x Brass Lamp"}, PRICED)], U, "no reply held"),
        ([WRITTEN], [said(finding(1, "absent"), PRICED)], F, "absent: The cart holds a Copper Kettle."),
    ],
)
@pytest.mark.asyncio
async def test_off_menu_replies_are_asked_for_again_and_then_undecided(
    ledger: Ledger, tmp_path: Path, rubrics: list[str], checks: list[str], judgement: Judgement, reason: str
) -> None:
    blobs, script = BlobStore(tmp_path), Script(rubrics, checks)
    with ScriptedServer(script) as server:
        verdict = await judge_at(server, ledger, blobs)(attempt(blobs))
    assert verdict.judgement is judgement
    assert verdict.reason.startswith(reason)
    assert script.left == {"rubric": [], "judge": []}


@pytest.mark.asyncio
async def test_votes_are_on_the_same_facts(ledger: Ledger, tmp_path: Path) -> None:
    absent = said(finding(1, "absent"), PRICED)
    blobs, script = BlobStore(tmp_path), Script([WRITTEN], [absent, said(IN_CART, PRICED), absent])
    settings = SETTINGS.model_copy(update={"num_votes": 3, "quorum": 2})
    with ScriptedServer(script) as server:
        verdict = await judge_at(server, ledger, blobs, settings)(attempt(blobs))
    assert verdict.judgement is F
    assert sorted(verdict.votes) == sorted((F, S, F))
    assert script.roles.count("rubric") == 1


@pytest.mark.asyncio
async def test_an_outage_while_a_rubric_is_written_is_no_verdict(tmp_path: Path) -> None:
    async def out(prompt: Prompt, sampling: Sampling) -> Response:
        raise ModelError("down")

    shelf = RubricFile(tmp_path / "rubrics.jsonl")
    judge = ModelJudge(out, BlobStore(tmp_path), SETTINGS, "big", Rubrics(asker_of(out, SETTINGS), "big", shelf))
    with pytest.raises(ModelError):
        await judge(trajectory("t"))


def test_the_first_rubric_stands_on_either_shelf(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "rubrics.jsonl"
    for shelf in (ledger, RubricFile(path)):
        shelf.commit_rubric(RUBRIC)
        shelf.commit_rubric(RUBRIC.model_copy(update={"facts": (CART,)}))
        assert shelf.rubric("t", "j", "h") == RUBRIC
        assert shelf.rubric("t", "another", "h") is shelf.rubric("t", "j", "another") is None
    assert RubricFile(path).rubric("t", "j", "h") == RUBRIC


@pytest.mark.asyncio
async def test_a_server_that_knows_no_schemas_is_sent_none(ledger: Ledger, tmp_path: Path) -> None:
    blobs, script = BlobStore(tmp_path), Script([WRITTEN], [said(IN_CART, PRICED)])
    with ScriptedServer(script) as server:
        endpoint = EndpointSettings(base_url=f"{server.url}/v1", model="big", send_schema=False)
        config = configs.load("pae_webvoyager_7b", ["judge.rubric=true"])
        judge = seat(config, open_endpoint(endpoint), (), blobs, ledger)
        assert (await judge(attempt(blobs))).judgement is S
    assert [call.schema for call in script.calls] == [None, None]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["judge.rubric=true"], "rubric: expected false with checked"),
        (["judge.rubric=true", "judge.checked=false"], "judge.rubric: expected false, since the starter's judge"),
        (
            ["judge.rubric=true", "judge.checked=false", "judge.page_text=false", "judge.num_screenshots=0"],
            "rubric: expected num_screenshots above 0 or page_text",
        ),
    ],
)
def test_a_rubric_is_refused_where_it_can_not_be_checked(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.load("quickstart", settings)
