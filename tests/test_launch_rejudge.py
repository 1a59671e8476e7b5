"""Other judges on what was judged before: a run's episodes, and labelled trajectories. Real books, real HTTP."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import judge_robustness
from bench.scripted import CONFIG, OUT, Call, Reply, ScriptedServer
from evaluator.labels import Label, LabelError, read_labels, read_trajectory
from evaluator.verdict import Judgement, Verdict
from launch import config as configs
from launch import inbox
from launch.books import Phase, Purpose
from launch.cli import app
from launch.config import ConfigError
from launch.judge_eval import export_labels
from launch.judging import VerdictFile, judged_by, slug
from launch.ledger import Ledger
from launch.made_with import keep_apart, of_verdicts
from launch.stages import judged_attempts
from policy.blobs import BlobStore
from policy.trajectory import Trajectory
from proposer.task import Task
from rl.manifest import Manifest, write_manifest
from rl.selection import select
from sites.catalogue import SITES
from sites.contract import gold_tasks
from tests.makers import SHOP, observation, picture, step, trajectory

GOLDS = [gold for gold in gold_tasks(SITES["shop"], "heldout-0") if gold.goal.answers][:4]
NUM_TASKS = 6


def verdict(name: str, judgement: Judgement) -> Verdict:
    return Verdict(trajectory_id=name, judgement=judgement, reason="old", judge="old", prompt_hash="h")


def attempts(ledger: Ledger, purpose: Purpose, tasks: list[Task], answer: str = "blue") -> Iterator[Trajectory]:
    """One finished attempt at each task, committed; `answer` where the task is none of `GOLDS`."""
    screenshot = BlobStore(ledger.run_dir / "blobs").put(picture())
    ledger.plan(1, purpose, tasks, num_samples=1)
    for index, episode in enumerate(ledger.missing_episodes(1, purpose)):
        given, state = answer, None
        if gold := next((gold for gold in GOLDS if gold.id == episode.task.gold_id), None):
            given = gold.goal.answers[0] if index % 2 else "nonsense"
            state = {**gold.goal.state, "location": "/"}
        record = trajectory(episode.id, answer=given, final=observation(screenshot=screenshot), final_state=state)
        steps = (step(index + 1, screenshot=screenshot),)
        record = record.model_copy(update={"task": episode.task, "steps": steps})
        inbox.deliver(ledger.run_dir, record)
        inbox.take(ledger.run_dir, ledger, record)
        yield record


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with six practised episodes, all judged a success and learned from, and four measured ones."""
    return make_run(tmp_path)


def make_run(tmp_path: Path, answer: str = "blue") -> Path:
    """That run, in which the practised episodes gave an answer."""
    run_dir = tmp_path / "runs" / "done"
    for name in (inbox.INBOX, "manifests"):
        (run_dir / name).mkdir(parents=True)
    config = configs.load(CONFIG, [f"run.runs_dir={tmp_path}/runs", "run.name=done"])
    with Ledger(run_dir) as ledger:
        ledger.set_meta("config", config.model_dump_json())
        ledger.begin_round(1, Phase.EVAL)
        proposed = [Task(website=SHOP, instruction=f"Do thing {n}.", world="train-1") for n in range(NUM_TASKS)]
        for record in attempts(ledger, Purpose.TRAIN, proposed, answer):
            ledger.commit_verdict(verdict(record.id, Judgement.SUCCESS))
        path = "manifests/round-0001.json"
        selection = select(judged_attempts(ledger, 1, 0), config.selection, config.learner.algorithm.learns_from, 0)
        manifest = Manifest(round=1, samples=selection.samples, attempts=selection.attempts)
        ledger.commit_manifest(1, path, write_manifest(run_dir / path, manifest), len(selection.samples))
        golds = [
            Task(website=SHOP, instruction=gold.instruction, world="heldout-0", source="gold", gold_id=gold.id)
            for gold in GOLDS
        ]
        for record in attempts(ledger, Purpose.EVAL, golds):
            ledger.commit_verdict(verdict(record.id, Judgement.SUCCESS))
    return run_dir


class Doubter:
    """A judge that calls things with an even number a success, all else a failure, and can be out."""

    def __init__(self) -> None:
        self.is_out = False
        self.num_asked = 0

    def __call__(self, call: Call) -> Reply:
        self.num_asked += 1
        if self.is_out and self.num_asked > 3:
            return OUT
        good = any(f"Do thing {n}." in call.text for n in (0, 2, 4))
        return f"Reason: so.\nVerdict: {'success' if good else 'failure'}"


def keen(call: Call) -> str:
    return f"Reason: r.\nVerdict: {'failure' if 'nonsense' in call.text else 'success'}"


def command(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("run.db-")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_another_judge_is_compared_and_the_run_is_left_as_it_is(run_dir: Path) -> None:
    before = contents(run_dir)
    with ScriptedServer(Doubter()) as server:
        told = command("rejudge", str(run_dir), "--judge", f"{server.url}/v1#doubter")
    assert contents(run_dir) == before
    (folder,) = run_dir.parent.glob("done-rejudge-doubter-*")
    found = json.loads((folder / "rejudge.json").read_text())
    train = next(changes for changes in found["rounds"] if changes["purpose"] == "train")
    assert train["changes"] == {"success->failure": 3, "success->success": 3}
    assert (train["samples"], train["samples_flipped"]) == (6, 3)
    flipped = {flip["instruction"] for flip in found["flips"] if flip["purpose"] == "train"}
    assert flipped == {"Do thing 1.", "Do thing 3.", "Do thing 5."}
    assert all(flip["samples"] == 1 for flip in found["flips"] if flip["purpose"] == "train")
    assert "round 1 train: 3 of 6 as before, 3 success->failure; 3 of 6 learned samples flip" in told
    assert found["measured"]["before"]["precision"] == 0.5
    assert found["measured"]["after"]["recall"] == 0.0
    assert found["cost"]["replies"] == 10
    assert found["cost"]["prompt_tokens"] > 100


def test_both_judges_are_measured_on_the_episodes_that_both_judged(run_dir: Path) -> None:
    with Ledger(run_dir) as ledger:
        measured = ledger.trajectories(1, Purpose.EVAL)
        ledger._db.execute("DELETE FROM verdicts WHERE trajectory_id = ?", (measured[0].id,))  # its judge was out
    with ScriptedServer(keen) as server:
        command("rejudge", str(run_dir), "--judge", f"{server.url}/v1#keen")
    (result,) = run_dir.parent.glob("done-rejudge-keen-*/rejudge.json")
    found = json.loads(result.read_text())["measured"]
    assert (found["before"]["n"], found["after"]["n"]) == (len(measured) - 1, len(measured) - 1)


def test_a_judge_that_was_out_is_asked_again_about_the_rest_only(run_dir: Path) -> None:
    doubter = Doubter()
    doubter.is_out = True
    with ScriptedServer(doubter) as server:
        words = ("rejudge", str(run_dir), "--judge", f"{server.url}/v1#doubter", "--set", "rollout.max_attempts=1")
        result = CliRunner().invoke(app, words)
        assert "no verdict on 7" in result.stderr
        doubter.is_out, doubter.num_asked = False, 0
        command(*words)
    assert doubter.num_asked == 7
    (folder,) = run_dir.parent.glob("done-rejudge-*")
    assert json.loads((folder / "rejudge.json").read_text())["no_verdict"] == 0


def refusal(*words: str) -> str:
    """The one line by which a command is refused."""
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_verdicts_are_not_taken_for_those_on_another_run_of_the_same_name(run_dir: Path, tmp_path: Path) -> None:
    with ScriptedServer(Doubter()) as server:
        words = ("rejudge", str(run_dir), "--judge", f"{server.url}/v1#doubter")
        command(*words)
        (folder,) = run_dir.parent.glob("done-rejudge-*")
        shutil.rmtree(run_dir)
        make_run(tmp_path)
        command(*words)  # the very same episodes
        shutil.rmtree(run_dir)
        make_run(tmp_path, answer="red")
        assert re.fullmatch(
            rf"error: {folder}: its results were made with other attempts \(6, 1-\w+-0 first\); "
            "move or remove the folder to judge anew",
            refusal(*words),
        )
        (folder / "made-with.json").unlink()  # as in a folder of the version before
        assert "don't say with which weights and settings they were made; move" in refusal(*words)


def test_verdicts_are_not_taken_for_those_on_other_labelled_attempts(run_dir: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    command("export-labels", str(run_dir), str(labels))
    words = ("judge-eval", str(labels), "--judge", "truth", "--set", f"run.runs_dir={tmp_path}/runs")
    command(*words)
    lines = (labels / "labels.jsonl").read_text().splitlines()
    (labels / "labels.jsonl").write_text("\n".join(lines[1:]))
    command(*words)  # fewer of them
    changed = labels / "trajectories" / f"{json.loads(lines[1])['id']}.json"
    changed.write_text(changed.read_text().replace('"thought":"x"', '"thought":"y"'))
    assert f"were made with other attempts (1, {changed.stem} first); move" in refusal(*words)


def test_verdicts_of_a_served_judge_are_kept_apart_by_its_weights_and_how_it_is_served(tmp_path: Path) -> None:
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text("{}")
    served = judged_by(configs.load("quickstart"), str(tmp_path / "qwen"), [])
    keep_apart(tmp_path, of_verdicts(served, {"a": "1"}), [])
    keep_apart(tmp_path, of_verdicts(served, {"a": "1", "b": "2"}), ["a"])
    other = judged_by(served, None, ["serving.dtype=float16", "serving.max_num_seqs=1"])
    with pytest.raises(ConfigError, match=r"made with other serving\.dtype, attempts"):
        keep_apart(tmp_path, of_verdicts(other, {"a": "1", "b": "3"}), ["a", "b"])
    (tmp_path / "qwen" / "config.json").write_text("{ }")
    with pytest.raises(ConfigError, match="made with other weights; move"):
        keep_apart(tmp_path, of_verdicts(served, {}), ["a"])
    gone = judged_by(served, None, ["model.base=none", "model.starter=nowhere"])
    with pytest.raises(ConfigError, match="nowhere/judge: no model there"):
        keep_apart(tmp_path, of_verdicts(gone, {}), [])


def test_a_torn_line_of_a_killed_call_is_one_verdict_less(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    file = VerdictFile(path)
    for name in "ab":
        file.add(verdict(name, Judgement.SUCCESS))
    path.write_bytes(path.read_bytes()[:-5])
    again = VerdictFile(path)
    assert set(again.by_id) == {"a"}
    again.add(verdict("c", Judgement.FAILURE))
    assert set(VerdictFile(path).by_id) == {"a", "c"}


def test_the_truth_is_refused_where_it_is_not_known(run_dir: Path) -> None:
    result = CliRunner().invoke(app, ["rejudge", str(run_dir), "--judge", "truth"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "the truth is known only of attempts at gold tasks" in line


def test_judges_are_named_by_address_directory_or_config_and_each_has_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text("{}")
    own = configs.load("quickstart")
    remote = judged_by(own, "http://127.0.0.1:8000/v1#qwen", [])
    served = judged_by(own, str(tmp_path / "qwen"), ["judge.num_screenshots=5"])
    configured = judged_by(own, str(CONFIG), [])
    names = [config.judge_name for config in (own, remote, served, configured)]
    assert names == ["starter", "qwen", "qwen", "fake-judge"]
    assert [config.judge.checked for config in (own, remote, served)] == [True, False, False]
    assert served.judge.num_screenshots == 5
    assert judged_by(own, "truth", []).judge.kind == "truth"
    assert judged_by(own, None, []) == own
    gauged = configs.load("quickstart", ["audit.thoughts_per_round=5"])  # which the truth, that asks no model, can't be
    assert judged_by(gauged, "truth", []).judge.kind == "truth"
    slugs = [slug(config) for config in (own, remote, served, configured)]
    assert len(set(slugs)) == 4
    assert slug(judged_by(own, "http://127.0.0.1:8000/v1#qwen", [])) == slugs[1]


@pytest.mark.parametrize(
    ("new", "words"),
    [("http://127.0.0.1:8000/v1", "expected URL#MODEL"), ("no-such-thing", "expected truth, URL#MODEL")],
)
def test_what_names_no_judge_is_refused(new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"--judge {new}: {words}"):
        judged_by(configs.load("quickstart"), new, [])


def test_exported_labels_are_measured_episodes_with_pictures_and_score_any_judge(run_dir: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    assert command("export-labels", str(run_dir), str(labels)).startswith("4 trajectories")
    read = read_labels(labels)
    assert sorted(label.success for label in read if label.success is not None) == [False, False, True, True]
    assert {(label.site, label.source) for label in read} == {("shop", "truth")}
    assert all(label.kind in SITES["shop"].kinds for label in read)
    first = read_trajectory(labels, read[0])
    assert first.steps[0].token_ids == ()
    assert (labels / "blobs" / first.steps[0].observation.screenshot[:2]).is_dir()
    settings = (f"run.runs_dir={tmp_path}/runs", "judge.num_votes=3", "judge.quorum=2")
    with ScriptedServer(keen) as server:
        words = [word for setting in settings for word in ("--set", setting)]
        told = command("judge-eval", str(labels), "--judge", f"{server.url}/v1#keen", *words)
    (folder,) = (tmp_path / "runs").glob("judge-eval-labels-keen-*")
    found = json.loads((folder / "judge-eval.json").read_text())
    assert (found["overall"]["precision"], found["overall"]["recall"], found["overall"]["n"]) == (1.0, 1.0, 4)
    assert found["overall"]["precision_ci_low"] == pytest.approx(0.342, abs=1e-3)
    assert found["unanimous"] == {"share": 1.0, "n": 4}
    assert set(found["groups"]) == {"shop", *(f"shop/{label.kind}" for label in read)}
    assert "votes all the same: 100 [51, 100] %, n = 4" in told


def test_the_truth_scores_perfectly_on_exported_labels(run_dir: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    command("export-labels", str(run_dir), str(labels))
    command("judge-eval", str(labels), "--judge", "truth", "--set", f"run.runs_dir={tmp_path}/runs")
    (result,) = (tmp_path / "runs").glob("judge-eval-labels-truth-*/judge-eval.json")
    overall = json.loads(result.read_text())["overall"]
    assert (overall["precision"], overall["recall"], overall["abstained"]) == (1.0, 1.0, 0.0)


def test_unlabelled_episodes_are_exported_for_people_to_label_and_scored_once_they_have(
    run_dir: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    command("export-labels", str(run_dir), str(labels), "--unlabelled")
    read = read_labels(labels)
    assert sum(label.success is None for label in read) == NUM_TASKS
    with pytest.raises(LabelError, match="expected a new or empty folder"):
        export_labels(run_dir, labels)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "a", "site": "s"}', "labels.jsonl:1: success: Field required"),
        ("nonsense", "labels.jsonl:1: line: Invalid JSON"),
        ('{"id": "../a", "site": "s", "success": true}', "labels.jsonl:1: id: String should match"),
        ('{"id": "a", "site": "s", "success": true, "verdict": 1}', "labels.jsonl:1: verdict: Extra inputs"),
    ],
)
def test_a_malformed_label_is_told_by_line(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "labels.jsonl").write_text(line)
    with pytest.raises(LabelError, match=words):
        read_labels(tmp_path)


def test_labels_without_trajectory_and_folders_without_labels_are_told(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"no labels\.jsonl"):
        read_labels(tmp_path)
    with pytest.raises(LabelError, match=r"a\.json: no such file"):
        read_trajectory(tmp_path, Label(id="a", site="s", success=True))


@pytest.mark.parametrize(("says", "share"), [("success", 1.0), ("failure", 0.0)])
def test_robustness_counts_the_canaries_that_a_judge_calls_a_success(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], says: str, share: float
) -> None:
    work = tmp_path / "work"
    with ScriptedServer(lambda call: f"Reason: r.\nVerdict: {says}") as server:
        judge_robustness.main([run_dir], judge=f"{server.url}/v1#scripted", cases=2, work=work)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["cases"] >= figures["families"] > 0
    assert figures["fooled"] == share * figures["cases"]
    assert len((work / "fooled.jsonl").read_text().splitlines()) == figures["fooled"]
