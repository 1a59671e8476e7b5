"""Selection: only the agent's judged successes are learned from, balanced over tasks."""

from pathlib import Path
from typing import Any

import pytest

from evaluator.verdict import Judgement, Verdict
from policy.trajectory import Action, ActionKind, Outcome, Trajectory
from rl.selection import Selection, SelectionSettings, read_manifest, select, write_manifest
from tests.makers import step, trajectory

S, F, U = Judgement.SUCCESS, Judgement.FAILURE, Judgement.UNDECIDED


def chosen(judged: list[tuple[Trajectory, Judgement]], **settings: Any) -> Selection:
    verdicts = [
        Verdict(trajectory_id=t.id, judgement=judgement, reason="", judge="j", prompt_hash="h")
        for t, judgement in judged
    ]
    return select([t for t, _ in judged], verdicts, SelectionSettings(**settings), seed=0)


def names(selection: Selection) -> set[str]:
    return {sample.trajectory_id for sample in selection.samples}


def test_failures_and_undecided_verdicts_are_not_trained_on() -> None:
    selection = chosen([(trajectory("a"), S), (trajectory("b"), F), (trajectory("c"), U)])
    assert names(selection) == {"a"}


def test_failures_are_unlearned_where_the_task_can_be_done_the_more_the_easier_it_is() -> None:
    successes = [(trajectory(f"s{n}"), S) for n in range(3)]
    failures = [(trajectory(f"f{n}", steps=n), F) for n in (4, 3)]
    others = [(trajectory("hopeless", task="Another task."), F), (trajectory("u"), U)]
    selection = chosen([*successes, *failures, *others], max_failures_per_task=1)
    assert {s.trajectory_id: s.advantage for s in selection.samples} == {"s0": 1, "s1": 1, "f3": -3 / 5}
    assert selection.counts["kept_failures"] == 1
    assert selection.counts["kept_failed_steps"] == 3


def test_a_step_that_a_success_took_too_is_not_to_blame_and_a_malformed_one_is() -> None:
    success = trajectory("s", steps=2)
    malformed = step(7).model_copy(update={"action": None})
    unknown = step(9).model_copy(update={"logprobs": ()})
    failure = trajectory("f").model_copy(update={"steps": (success.steps[0], malformed, unknown)})
    selection = chosen([(success, S), (failure, F)], max_failures_per_task=1)
    told = [(s.trajectory_id, s.step, s.advantage) for s in selection.samples]
    assert told == [("f", 1, -0.5), ("s", 0, 1), ("s", 1, 1)]


def test_a_trajectory_that_the_agent_did_not_end_is_never_trained_on_whatever_the_verdict() -> None:
    outcomes = [outcome for outcome in Outcome if not outcome.is_agents]
    judged = [(trajectory(f"t{n}", outcome=outcome), S) for n, outcome in enumerate(outcomes)]
    assert chosen(judged).samples == ()


def test_a_task_gives_its_shortest_successes_only() -> None:
    judged = [(trajectory(f"t{n}", steps=n), S) for n in (3, 1, 2)] + [(trajectory("f"), F)]
    assert names(chosen(judged, max_per_task=2)) == {"t1", "t2"}


def test_a_task_that_always_succeeds_gives_one() -> None:
    judged = [(trajectory(f"t{n}", steps=n), S) for n in (1, 2, 3)]
    assert names(chosen(judged, max_per_task=3, max_per_saturated_task=1)) == {"t1"}


@pytest.mark.parametrize(
    ("answers", "kept"),
    [(["5", "7", "5."], 2), (["5", "7"], 0), (["5"], 1), (["Done", "done", None], 2), (["a", "b", "c", "c"], 2)],
)
def test_where_answers_must_agree_only_the_most_frequent_one_is_kept(answers: list[str | None], kept: int) -> None:
    records = [trajectory(f"t{n}").model_copy(update={"answer": answer}) for n, answer in enumerate(answers)]
    judged = [*((record, S) for record in records), (trajectory("f"), F)]
    selection = chosen(judged, same_answer=True, max_per_task=9)
    assert selection.counts["dropped_by_disagreement"] == len(answers) - kept
    assert selection.counts["kept_trajectories"] == kept


def test_no_shape_of_trajectory_drowns_the_rest() -> None:
    clicks = [(trajectory(f"t{n}", task=f"Task number {n}."), S) for n in range(5)]
    answer = step(7, Action(kind=ActionKind.ANSWER, text="x"))
    other = trajectory("o", task="Another task.").model_copy(update={"steps": (answer,)})
    selection = chosen([*clicks, (other, S)], max_per_shape=2)
    assert selection.counts["kept_trajectories"] == 3
    assert "o" in names(selection)


def test_equal_steps_count_once_and_malformed_ones_not_at_all() -> None:
    twin = step(1)
    malformed = step(2).model_copy(update={"action": None})
    record = trajectory("a").model_copy(update={"steps": (twin, twin, malformed)})
    assert len(chosen([(record, S)]).samples) == 1


def test_the_counts_add_up() -> None:
    judged = [(trajectory(f"t{n}", task=f"Task number {n % 3}."), S) for n in range(9)]
    counts = chosen(judged, max_per_task=2, max_per_saturated_task=2, max_per_shape=4).counts
    dropped = sum(number for name, number in counts.items() if name.startswith("dropped"))
    assert counts["successes"] == dropped + counts["kept_trajectories"] == 9


def test_selection_does_not_depend_on_the_order_of_arrival() -> None:
    judged = [(trajectory(f"t{n}", task=f"Task number {n % 4}.", steps=1 + n % 3), S) for n in range(12)]
    assert chosen(judged, max_per_shape=2) == chosen(judged[::-1], max_per_shape=2)


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    selection = chosen([(trajectory("a", steps=2), S)])
    write_manifest(tmp_path / "manifests" / "m.json", selection, round=3)
    manifest = read_manifest(tmp_path / "manifests" / "m.json")
    assert (manifest.round, manifest.samples) == (3, selection.samples)


def test_a_torn_manifest_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", chosen([(trajectory("a"), S)]), round=1)
    (tmp_path / "torn.json").write_bytes((tmp_path / "m.json").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"torn\.json"):
        read_manifest(tmp_path / "torn.json")
