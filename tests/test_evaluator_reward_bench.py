"""AgentRewardBench's files, made here as its repository describes them, as labelled trajectories."""

import json
import shutil
from pathlib import Path

import pytest

from evaluator.judge import JudgeSettings, render
from evaluator.labels import LabelError, read_labels, read_trajectory
from evaluator.reward_bench import convert
from policy.trajectory import Action, ActionKind, Outcome

AGENT, TASK = "GenericAgent-gpt-4o", "webarena.27"
TREE = """RootWebArea 'Shop', focused
\t[a12] link 'Copper "Kettle"', clickable
\tStaticText '$12.50'
\t[b3] textbox 'Search'"""
STEPS = [
    {"action": "fill('b3', 'kettle')", "reasoning": "I search.", "axtree_pruned": TREE},
    {"action": "keyboard_press('Enter')", "reasoning": "Enter.", "axtree_pruned": TREE},
    {"action": "scroll(0, -200)", "reasoning": "", "axtree_pruned": None},
    {"action": "click('a12')", "reasoning": "There.", "axtree_pruned": TREE},
    {"action": "send_msg_to_user('It is $12.50.')", "reasoning": "Done.", "axtree_pruned": TREE},
    {"action": None, "reasoning": None, "axtree_pruned": "[a1] heading 'Kettle'"},
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "bench"
    cleaned = folder / "trajectories/cleaned/webarena" / AGENT / "experiment"
    cleaned.mkdir(parents=True)
    pictures = folder / "trajectories/screenshots/webarena" / AGENT / TASK
    pictures.mkdir(parents=True)
    steps = []
    for number, told in enumerate(STEPS):
        (pictures / f"{number}.png").write_bytes(b"picture %d" % number)
        picture = str((pictures / f"{number}.png").relative_to(folder))
        steps.append(told | {"num": number, "url": "http://shop/", "screenshot_path": picture})
    (cleaned / f"{TASK}.json").write_text(json.dumps({"goal": "What does the kettle cost?", "steps": steps}))
    (folder / "annotations.csv").write_text(
        "benchmark,model_name,task_id,trajectory_success,trajectory_side_effect\n"
        f"webarena,{AGENT},{TASK},Successful,No\nwebarena,{AGENT},{TASK},Unsuccessful,No\n"
        f"webarena,{AGENT},webarena.28,Unsure,No\n"
    )
    return folder


def test_an_annotated_attempt_is_what_a_judge_needs(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    assert convert(source / "annotations.csv", source, out) == 1  # the other's trajectory isn't there
    (label,) = read_labels(out)
    assert (label.site, label.success, label.source) == ("webarena", True, "AgentRewardBench")
    attempt = read_trajectory(out, label)
    assert (attempt.outcome, attempt.answer) == (Outcome.FINISHED, "It is $12.50.")
    assert [step.action for step in attempt.steps] == [
        Action(kind=ActionKind.TYPE, mark=2, text="kettle"),
        None,
        Action(kind=ActionKind.SCROLL, text="up"),
        Action(kind=ActionKind.CLICK, mark=1),
        Action(kind=ActionKind.ANSWER, text="It is $12.50."),
    ]
    assert attempt.final
    assert "<heading> Kettle [1]" in attempt.final.listing
    assert len(list((out / "blobs").rglob("*/*"))) == len(STEPS)
    text = str(render(attempt, [], JudgeSettings()).parts[-1])
    assert 'Copper "Kettle"' in text
    assert "I search." not in text


def test_an_attempt_that_lies_in_two_experiments_is_one_label(source: Path, tmp_path: Path) -> None:
    first = source / "trajectories/cleaned/webarena" / AGENT / "experiment"
    shutil.copytree(first, first.with_name("rerun"))
    assert convert(source / "annotations.csv", source, tmp_path / "labels") == 1
    assert len(read_labels(tmp_path / "labels")) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("trajectory_success", "success", "expected columns benchmark, model_name, task_id, trajectory_success"),
        ("Successful", "Yes", "expected one of successful, unsuccessful, unsure, got 'yes'"),
        (TASK, "webarena.99", "no trajectory of"),
    ],
)
def test_annotations_of_another_form_are_refused(source: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    path = source / "annotations.csv"
    path.write_text(path.read_text().replace(old, new, 1).replace(f"{AGENT},{old},Uns", f"{AGENT},{new},Uns"))
    with pytest.raises(LabelError, match=words):
        convert(path, source, tmp_path / "labels")


def test_a_missing_screenshot_is_told(source: Path, tmp_path: Path) -> None:
    next(source.rglob("3.png")).unlink()
    with pytest.raises(LabelError, match=r"3\.png: no such screenshot"):
        convert(source / "annotations.csv", source, tmp_path / "labels")
