"""AgentRewardBench's annotated trajectories (arXiv 2504.08942) as a folder of labels (evaluator/labels.py).

What is read, as its repository lays it out:

    annotations.csv      columns benchmark, model_name, task_id, trajectory_success (Successful, Unsuccessful, Unsure)
    trajectories/cleaned/<benchmark>/<model_name>/<experiment>/<task_id>.json
                         goal, and steps of url, axtree_pruned, action, reasoning, screenshot_path; the last step is
                         what the page showed at the end, without an action
    trajectories/screenshots/...   as screenshot_path says, relative to the folder

The first annotation of an attempt counts; an unsure one leaves its success open. Annotations don't name the experiment:
of several with the same attempt the first by name is read. Actions that the agent here doesn't have (keys, hovering,
tabs) are kept as what was said, and are not among the last actions that a judge is shown.
"""

import ast
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.labels import Label, LabelError, LabelWriter
from policy.blobs import BlobStore
from policy.trajectory import Action, ActionKind, Element, Observation, Outcome, Step, Trajectory
from proposer.task import Task, Website

COLUMNS = ("benchmark", "model_name", "task_id", "trajectory_success")
SUCCESS = {"successful": True, "unsuccessful": False, "unsure": None}

_NODE = re.compile(r"^\s*\[(?P<bid>\w+)\] (?P<role>\w+) (?P<quote>['\"])(?P<name>.*?)(?P=quote)(?P<rest>.*)$")


@dataclass(frozen=True, slots=True)
class _Page:
    """A step's page, and the marks of its elements."""

    observation: Observation
    marks: Mapping[str, int]


def convert(annotations: Path, folder: Path, out: Path) -> int:
    """Write the annotated attempts whose trajectories are in `folder` as labels into `out`; how many.

    Raises:
        LabelError: a file isn't as described, or none of the annotated trajectories is there.
    """
    writer = LabelWriter(out)
    for row in _first_annotations(annotations):
        found = (folder / "trajectories/cleaned" / row["benchmark"] / row["model_name"]).glob("*/*.json")
        path = min((path for path in found if path.stem == row["task_id"]), default=None)
        if path is not None:
            label = _label(row, annotations)
            writer.add(label, _trajectory(path, folder, row["benchmark"], label.id, writer.blobs))
    if not (num_written := writer.finish()):
        raise LabelError(
            f"{folder}: no trajectory of {annotations} under trajectories/cleaned/<benchmark>/<model_name>"
        )
    return num_written


def _first_annotations(annotations: Path) -> Iterator[dict[str, str]]:
    try:
        with annotations.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise LabelError(f"{annotations}: {error.strerror}") from None
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise LabelError(f"{annotations}: expected columns {', '.join(COLUMNS)}")
    first: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        first.setdefault(tuple(row[column] for column in COLUMNS[:3]), row)
    yield from first.values()


def _label(row: Mapping[str, str], annotations: Path) -> Label:
    said = row["trajectory_success"].strip().casefold()
    if said not in SUCCESS:
        raise LabelError(f"{annotations}: trajectory_success: expected one of {', '.join(SUCCESS)}, got {said!r}")
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", f"{row['model_name']}_{row['task_id']}")
    return Label(id=name, site=row["benchmark"], success=SUCCESS[said], source="AgentRewardBench")


def _trajectory(path: Path, folder: Path, benchmark: str, name: str, blobs: BlobStore) -> Trajectory:
    try:
        record = json.loads(path.read_bytes())
        goal, told = record["goal"], record["steps"]
        pages = [_page(step, folder, blobs) for step in told]
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(f"{path}: not a trajectory as described: {error}") from None
    website = Website(name=benchmark, url=pages[0].observation.url if pages else "about:blank")
    steps = [_step(step, page) for step, page in zip(told, pages, strict=True) if step.get("action")]
    answers = [step.action.text for step in steps if step.action and step.action.kind is ActionKind.ANSWER]
    return Trajectory(
        id=name,
        task=Task(website=website, instruction=str(goal).strip() or "(no goal)"),
        steps=tuple(steps),
        outcome=Outcome.FINISHED if answers else Outcome.STEP_LIMIT,
        answer=answers[-1] if answers else None,
        final=pages[-1].observation if pages else None,
    )


def _page(step: Mapping[str, Any], folder: Path, blobs: BlobStore) -> _Page:
    elements, lines, marks = [], [], dict[str, int]()
    for line in (step.get("axtree_pruned") or "").splitlines():
        if node := _NODE.match(line):
            mark = marks[node["bid"]] = len(marks) + 1
            elements.append(Element(mark=mark, tag=node["role"], name=node["name"], box=(0, 0, 0, 0)))
            lines.append(f"<{node['role']}> {node['name']} [{mark}]{node['rest']}")
        else:
            lines.append(line.strip())
    picture = folder / step["screenshot_path"]
    if not picture.is_file():
        raise LabelError(f"{picture}: no such screenshot")
    observation = Observation(
        url=step.get("url") or "",
        title=step.get("url") or "",
        elements=tuple(elements),
        listing="\n".join(lines),
        screenshot=blobs.put(picture.read_bytes()),
    )
    return _Page(observation, marks)


def _step(told: Mapping[str, Any], page: _Page) -> Step:
    said, thought = str(told["action"]), str(told.get("reasoning") or "")
    action = _action(said, page.marks)
    return Step(
        observation=page.observation,
        response=said,
        thought=thought,
        action=action,
        malformed="" if action else "no action of the agent's here",
    )


def _action(said: str, marks: Mapping[str, int]) -> Action | None:
    """One call in BrowserGym's action language; None for what has no counterpart."""
    try:
        call = ast.parse(said.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            return None
        args = [ast.literal_eval(arg) for arg in call.args]
    except (SyntaxError, ValueError):
        return None
    return _counterpart(call.func.id, args, marks)


def _counterpart(name: str, args: Sequence[Any], marks: Mapping[str, int]) -> Action | None:
    mark = marks.get(str(args[0])) if args else None
    text = str(args[1]) if len(args) > 1 else ""
    match name:
        case "send_msg_to_user" | "report_infeasible" if args:
            return Action(kind=ActionKind.ANSWER, text=str(args[0]))
        case "click" | "dblclick" if mark:
            return Action(kind=ActionKind.CLICK, mark=mark)
        case "fill" if mark:
            return Action(kind=ActionKind.TYPE, mark=mark, text=text)
        case "select_option" if mark:
            return Action(kind=ActionKind.SELECT, mark=mark, text=text)
        case "scroll" if len(args) > 1:
            return Action(kind=ActionKind.SCROLL, text="up" if text.startswith("-") else "down")
        case "noop":
            return Action(kind=ActionKind.WAIT)
        case "go_back":
            return Action(kind=ActionKind.GO_BACK)
        case _:
            return None
