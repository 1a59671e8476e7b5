"""Selection and manifest: the agent's judged attempts, balanced successes or whole groups, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluator.verdict import Judgement
from policy.trajectory import Action, ActionKind, Outcome, Trajectory
from rl.algorithms.base import LearnsFrom
from rl.algorithms.filtered_bc import FilteredBC
from rl.algorithms.off_policy import OffPolicy
from rl.algorithms.topr import TOPR
from rl.learner import lessons_of
from rl.manifest import Manifest, ManifestError, read_manifest, write_manifest
from rl.selection import Judged, Selection, SelectionSettings, select
from tests.makers import step, trajectory

S, F, U = Judgement.SUCCESS, Judgement.FAILURE, Judgement.UNDECIDED


def chosen(
    judged: list[tuple[Trajectory, Judgement]], learns_from: LearnsFrom = LearnsFrom.SUCCESSES, **settings: Any
) -> Selection:
    return select([Judged(*pair) for pair in judged], SelectionSettings(**settings), learns_from, seed=0)


def names(selection: Selection) -> set[str]:
    return {sample.trajectory_id for sample in selection.samples}


def places(selection: Selection) -> list[tuple[str, int]]:
    return [(sample.trajectory_id, sample.step) for sample in selection.samples]


def manifest(selection: Selection) -> Manifest:
    return Manifest(round=3, samples=selection.samples, attempts=selection.attempts)


def test_failures_and_undecided_verdicts_are_not_trained_on() -> None:
    selection = chosen([(trajectory("a"), S), (trajectory("b"), F), (trajectory("c"), U)])
    assert names(selection) == {"a"}


def test_failures_are_unlearned_where_the_task_can_be_done_the_more_the_easier_it_is() -> None:
    successes = [(trajectory(f"s{n}"), S) for n in range(3)]
    failures = [(trajectory(f"f{n}", steps=n), F) for n in (4, 3)]
    others = [(trajectory("hopeless", task="Another task."), F), (trajectory("u"), U)]
    selection = chosen([*successes, *failures, *others], learns_from=LearnsFrom.FAILURES_TOO, max_failures_per_task=1)
    assert names(selection) == {"s0", "s1", "f3"}
    assert lessons_of(manifest(selection), TOPR()).advantages["f3"] == -3 / 5
    assert selection.counts["kept_failures"] == 1
    assert selection.counts["kept_failed_steps"] == 3


def test_a_step_that_a_success_took_too_is_not_to_blame_and_a_malformed_one_is() -> None:
    success = trajectory("s", steps=2)
    malformed = step(7).model_copy(update={"action": None})
    unknown = step(9).model_copy(update={"logprobs": ()})
    failure = trajectory("f").model_copy(update={"steps": (success.steps[0], malformed, unknown)})
    selection = chosen([(success, S), (failure, F)], learns_from=LearnsFrom.FAILURES_TOO, max_failures_per_task=1)
    assert places(selection) == [("f", 1), ("s", 0), ("s", 1)]


@pytest.mark.parametrize("settings", [{"max_per_task": 1}, {"critical_share": 0.5}])
def test_a_step_of_a_success_that_is_not_selected_is_not_to_blame_either(settings: dict[str, Any]) -> None:
    shared, best, good, bad = (
        step(number).model_copy(update={"logprobs": (surprise,)})
        for number, surprise in enumerate((-0.1, -3, -3, -0.1))
    )
    short, long, failed = (
        trajectory(name).model_copy(update={"steps": steps})
        for name, steps in {"short": (best,), "long": (shared, good), "failed": (shared, bad)}.items()
    )
    judged = [(short, S), (long, S), (failed, F)]
    selection = chosen(judged, learns_from=LearnsFrom.FAILURES_TOO, max_failures_per_task=1, **settings)
    assert [place for place in places(selection) if place[0] == "failed"] == [("failed", 1)]
    assert selection.counts["dropped_steps_not_to_blame"] == 1


def test_of_two_successes_the_one_without_side_effects_is_taken_though_it_is_longer() -> None:
    judged = [Judged(trajectory("short", steps=1), S, left=0.0), Judged(trajectory("clean", steps=2), S)]
    assert names(select(judged, SelectionSettings(), LearnsFrom.SUCCESSES, seed=0)) == {"clean"}


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
    selection = chosen([(record, S)])
    assert len(selection.samples) == 1
    assert (selection.counts["dropped_steps_equal"], selection.counts["dropped_steps_unusable"]) == (1, 1)


def test_the_counts_add_up() -> None:
    judged = [(trajectory(f"t{n}", task=f"Task number {n % 3}."), S) for n in range(9)]
    counts = chosen(judged, max_per_task=2, max_per_saturated_task=2, max_per_shape=4).counts
    of_attempts = [name for name in counts if name.startswith("dropped") and "steps" not in name]
    dropped = sum(counts[name] for name in of_attempts)
    assert counts["successes"] == dropped + counts["kept_trajectories"] == 9


def test_selection_does_not_depend_on_the_order_of_arrival() -> None:
    judged = [(trajectory(f"t{n}", task=f"Task number {n % 4}.", steps=1 + n % 3), S) for n in range(12)]
    assert chosen(judged, max_per_shape=2) == chosen(judged[::-1], max_per_shape=2)


GROUP = [(trajectory("s", steps=3), S), (trajectory("f", steps=2), F), (trajectory("g"), F), (trajectory("u"), U)]
"""Attempts at one task."""


def test_a_group_is_taken_whole_but_for_what_is_undecided() -> None:
    selection = chosen(GROUP, LearnsFrom.GROUPS)
    assert places(selection) == [("f", 0), ("f", 1), ("g", 0), ("s", 0), ("s", 1), ("s", 2)]
    assert {a.trajectory_id: a.reward for a in selection.attempts} == {"f": 0, "g": 0, "s": 1}
    assert len({a.group for a in selection.attempts}) == 1
    assert selection.counts["undecided"] == 1


def test_groups_that_all_succeed_or_all_fail_are_dropped_and_counted() -> None:
    same = [(trajectory(f"{task}{n}", task=task), j) for task, j in (("w", S), ("l", F), ("v", F)) for n in range(2)]
    alone = [(trajectory("x", task="x"), S)]
    selection = chosen([*GROUP, *same, *alone], LearnsFrom.GROUPS)
    assert names(selection) == {"s", "f", "g"}
    counts = selection.counts
    dropped = {name: number for name, number in counts.items() if name.startswith("dropped_groups")}
    assert dropped == {
        "dropped_groups_of_one": 1,
        "dropped_groups_all_succeeded": 1,
        "dropped_groups_all_failed": 2,
        "dropped_groups_as_oldest": 0,
    }
    assert counts["groups"] == sum(dropped.values()) + counts["kept_tasks"] == 5
    assert (counts["kept_trajectories"], counts["kept_failures"]) == (1, 2)
    assert (counts["kept_steps"], counts["kept_failed_steps"]) == (6, 3)


def test_of_tasks_that_are_always_done_a_few_successes_are_rehearsed_where_the_algorithm_asks() -> None:
    saturated = [(trajectory(f"w{n}", task="w", steps=3 - n), S) for n in range(3)]
    failed = [(trajectory(f"l{n}", task="l"), F) for n in range(2)]
    alone = [(trajectory("x", task="x"), S)]
    judged = [*GROUP, *saturated, *failed, *alone]
    selection = chosen(judged, LearnsFrom.GROUPS_AND_SUCCESSES)
    assert names(selection) == {"s", "f", "g", "w2"}
    assert {a.trajectory_id for a in selection.attempts} == {"s", "f", "g", "w0", "w1", "w2"}
    counts = selection.counts
    assert (counts["dropped_groups_all_succeeded"], counts["dropped_groups_all_failed"]) == (0, 1)
    assert (counts["kept_tasks"], counts["kept_trajectories"], counts["kept_failures"]) == (2, 2, 2)
    advantages = lessons_of(manifest(selection), OffPolicy(baseline_share=0.25)).advantages
    assert advantages["w2"] == 0.75
    assert names(chosen(judged, LearnsFrom.GROUPS_AND_SUCCESSES, max_per_saturated_task=2)) >= {"w1", "w2"}
    none = chosen(judged, LearnsFrom.GROUPS_AND_SUCCESSES, max_per_saturated_task=0)
    assert none == chosen(judged, LearnsFrom.GROUPS)
    assert none.counts["dropped_groups_all_succeeded"] == 1


def test_of_a_group_malformed_steps_are_kept_and_those_without_logprobs_are_not() -> None:
    malformed = step(7).model_copy(update={"action": None})
    unknown = step(9).model_copy(update={"logprobs": ()})
    success = trajectory("s").model_copy(update={"steps": (malformed, unknown)})
    selection = chosen([(success, S), (trajectory("f"), F)], LearnsFrom.GROUPS)
    assert places(selection) == [("f", 0), ("s", 0)]
    assert selection.counts["dropped_steps_without_logprobs"] == 1


def test_a_success_that_others_disagree_with_counts_in_no_group() -> None:
    right = [trajectory(f"t{n}", answer="5") for n in range(2)]
    judged = [*((t, S) for t in right), (trajectory("odd", answer="7"), S), (trajectory("f"), F)]
    selection = chosen(judged, LearnsFrom.GROUPS, same_answer=True)
    assert {a.trajectory_id for a in selection.attempts} == {"t0", "t1", "f"}
    assert selection.counts["dropped_by_disagreement"] == 1


def test_a_step_that_two_attempts_of_a_group_share_is_kept_for_both() -> None:
    both = [trajectory(name).model_copy(update={"steps": (step(1),)}) for name in ("s", "f")]
    assert places(chosen([(both[0], S), (both[1], F)], LearnsFrom.GROUPS)) == [("f", 0), ("s", 0)]


@pytest.mark.parametrize("learns_from", LearnsFrom)
def test_steps_without_tokens_are_in_no_selection(learns_from: LearnsFrom) -> None:
    bare = [step(n).model_copy(update={"prompt_ids": (), "token_ids": (), "logprobs": ()}) for n in range(2)]
    judged = [(trajectory(n).model_copy(update={"steps": (s,)}), j) for n, s, j in zip("sf", bare, (S, F), strict=True)]
    assert chosen(judged, learns_from, max_failures_per_task=1).samples == ()


def test_how_old_an_attempt_is_goes_into_the_manifest() -> None:
    judged = [Judged(trajectory("old"), S, age=2), Judged(trajectory("new"), F)]
    selection = select(judged, SelectionSettings(), LearnsFrom.GROUPS, seed=0)
    assert {a.trajectory_id: a.age for a in selection.attempts} == {"new": 0, "old": 2}


def acting(name: str, *texts: str) -> Trajectory:
    """An attempt that answers so, step by step, in words of its own."""
    steps = [step(sum(name.encode()) + n, Action(kind=ActionKind.ANSWER, text=t)) for n, t in enumerate(texts)]
    return trajectory(name).model_copy(update={"steps": tuple(steps)})


TWINS = [(acting("s1", "5"), S), (acting("s2", "5"), S), (acting("s3", "6"), S), (acting("f1", "5"), F)]
"""Attempts at one task, of which the first two succeed by the same actions, and the last fails by them."""


def test_of_attempts_with_the_same_actions_and_verdict_one_counts_and_the_mean_is_of_those_left() -> None:
    whole, selection = (chosen(TWINS, LearnsFrom.GROUPS, drop_duplicates=drop) for drop in (False, True))
    assert {a.trajectory_id for a in whole.attempts} == {"s1", "s2", "s3", "f1"}
    assert {a.trajectory_id: a.reward for a in selection.attempts} == {"s1": 1, "s3": 1, "f1": 0}
    assert names(selection) == {"s1", "s3", "f1"}
    assert selection.counts["dropped_duplicates"] == 1


def test_a_duplicate_takes_no_success_s_place_and_the_task_is_as_saturated_as_it_was() -> None:
    assert names(chosen(TWINS, max_per_task=2)) == {"s1", "s2"}
    selection = chosen(TWINS, max_per_task=2, drop_duplicates=True)
    assert names(selection) == {"s1", "s3"}
    assert selection.counts["dropped_duplicates"] == 1
    assert names(chosen(TWINS[:2], max_per_saturated_task=0, drop_duplicates=True)) == set()


def replayed(name: str, judgement: Judgement, age: int) -> Judged:
    return Judged(trajectory(name, task=f"Task of round {age}."), judgement, age=age)


def test_what_exceeds_the_limit_is_dropped_oldest_first() -> None:
    judged = [replayed(f"{age}{n}", S, age) for age in (2, 0, 1) for n in "ax"]
    settings = SelectionSettings(max_trajectories=3, max_per_saturated_task=2)
    selection = select(judged, settings, LearnsFrom.SUCCESSES, seed=0)
    assert names(selection) > {"0a", "0x"}
    assert {name[0] for name in names(selection)} == {"0", "1"}
    assert selection.counts["dropped_as_oldest"] == 3
    shaped = SelectionSettings(max_per_shape=2, max_per_saturated_task=2)
    assert names(select(judged, shaped, LearnsFrom.SUCCESSES, seed=0)) == {"0a", "0x"}


def test_groups_are_dropped_whole_and_oldest_first() -> None:
    judged = [replayed(f"{age}{n}", S if n else F, age) for age in (1, 0, 2) for n in range(2)]
    settings = SelectionSettings(max_trajectories=5)
    selection = select(judged, settings, LearnsFrom.GROUPS, seed=0)
    assert names(selection) == {"00", "01", "10", "11"}
    assert selection.counts["dropped_groups_as_oldest"] == 1
    assert selection.counts["kept_tasks"] == 2


def surprising(name: str, *logprobs: float | None) -> Trajectory:
    """An attempt whose steps were sampled at these log-probs; None: not known."""
    steps = [step(sum(name.encode()) * 10 + n) for n in range(len(logprobs))]
    known = [s.model_copy(update={"logprobs": () if p is None else (p,)}) for s, p in zip(steps, logprobs, strict=True)]
    return trajectory(name).model_copy(update={"steps": tuple(known)})


def test_of_each_trajectory_the_share_of_steps_that_surprised_most_is_kept() -> None:
    judged = [(surprising("s", -0.1, -3.0, -0.2, -2.0), S), (surprising("f", -0.1, -0.3, -0.2), F)]
    selection = chosen(judged, LearnsFrom.GROUPS, critical_share=0.5)
    assert places(selection) == [("f", 1), ("f", 2), ("s", 1), ("s", 3)]
    assert selection.counts["dropped_steps_uncritical"] == 3
    assert places(chosen(judged, LearnsFrom.GROUPS)) == [("f", 0), ("f", 1), ("f", 2), *(("s", n) for n in range(4))]


def test_a_step_of_unknown_logprobs_counts_as_one_that_matters() -> None:
    selection = chosen([(surprising("s", -9.0, None, -0.1), S)], critical_share=1 / 3)
    assert places(selection) == [("s", 1)]
    assert selection.counts["dropped_steps_uncritical"] == 2


def walking(name: str, *said: tuple[tuple[int, ...], int]) -> Trajectory:
    """An attempt whose steps were given these prompts and said these tokens."""
    steps = [step(token).model_copy(update={"prompt_ids": prompt}) for prompt, token in said]
    return trajectory(name).model_copy(update={"steps": tuple(steps)})


@pytest.mark.parametrize("learns_from", [LearnsFrom.FAILURES_TOO, LearnsFrom.GROUPS])
def test_by_wish_a_failure_counts_only_where_a_success_of_the_task_went_on_otherwise(learns_from: LearnsFrom) -> None:
    home, cart, lost = (5, 6), (5, 7), (5, 8)
    judged = [
        (walking("s1", (home, 1), (cart, 2)), S),
        (walking("s2", (home, 3), (cart, 2), (cart, 4)), S),
        (walking("f", (home, 1), (cart, 9), (cart, 4), (lost, 9), ((), 9), (home, 7)), F),
        (walking("u", (lost, 1)), U),
    ]
    settings = {"max_per_task": 1, "max_failures_per_task": 1, "contrasted_only": True}
    selection = chosen(judged, learns_from, **settings)
    assert [place for place in places(selection) if place[0] == "f"] == [("f", 1), ("f", 5)]
    assert {("s1", 0), ("s1", 1)} <= set(places(selection))
    dropped = ("dropped_steps_not_to_blame", "dropped_steps_uncontrasted")
    assert sum(selection.counts.get(name, 0) for name in dropped) == 4
    halved = chosen(judged, learns_from, **settings, critical_share=0.5)
    assert sum(name == "f" for name, _ in places(halved)) == 1, "the share is of what is contrasted"
    assert chosen(judged, learns_from, max_failures_per_task=1).counts["dropped_steps_uncontrasted"] == 0


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    sealed = manifest(chosen(GROUP, LearnsFrom.GROUPS))
    write_manifest(tmp_path / "manifests" / "m.json", sealed)
    assert read_manifest(tmp_path / "manifests" / "m.json") == sealed


def of_version_1(*advantages: float) -> dict[str, Any]:
    """A manifest as it was written before it told rewards and groups."""
    step = {"step": 0, "prompt_ids": [1], "token_ids": [2], "logprobs": [], "pictures": [], "weights": 0}
    samples = [step | {"trajectory_id": f"t{n}", "advantage": advantage} for n, advantage in enumerate(advantages)]
    return {"version": 1, "round": 3, "samples": samples}


def test_an_old_manifest_of_successes_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(of_version_1(1.0, 1.0)))
    data = read_manifest(tmp_path / "m.json")
    assert [(a.trajectory_id, a.reward) for a in data.attempts] == [("t0", 1), ("t1", 1)]
    assert [s.trajectory_id for s in lessons_of(data, FilteredBC()).samples] == ["t0", "t1"]


def stray(data: dict[str, Any]) -> None:
    data["attempts"] = []


def twice(data: dict[str, Any]) -> None:
    data["attempts"] *= 2


def of_the_future(data: dict[str, Any]) -> None:
    data["version"] = 3


def half_judged(data: dict[str, Any]) -> None:
    data["attempts"][0]["reward"] = None


def without_a_logprob(data: dict[str, Any]) -> None:
    data["samples"][0]["logprobs"] = [-1, -2]


def not_a_number(data: dict[str, Any]) -> None:
    data["samples"][0]["logprobs"] = [float("nan")]


def without_prompt(data: dict[str, Any]) -> None:
    data["samples"][0]["prompt_ids"] = []


DAMAGES: dict[Callable[[dict[str, Any]], None], str] = {
    stray: "of trajectories that are no attempt: a",
    twice: "expected each trajectory once",
    of_the_future: "version",
    half_judged: "reward",
    without_a_logprob: "expected 1, one a token, or none; got 2",
    not_a_number: "finite number",
    without_prompt: "prompt_ids",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_manifest_that_contradicts_itself_is_refused_by_name(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    data = manifest(chosen([(trajectory("a"), S)])).model_dump(mode="json")
    damage(data)
    (tmp_path / "m.json").write_text(json.dumps(data))
    with pytest.raises(ManifestError, match=rf"m\.json: .*{DAMAGES[damage]}") as caught:
        read_manifest(tmp_path / "m.json")
    assert "\n" not in str(caught.value)


def test_a_torn_manifest_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", manifest(chosen([(trajectory("a"), S)])))
    (tmp_path / "torn.json").write_bytes((tmp_path / "m.json").read_bytes()[:50])
    with pytest.raises(ManifestError, match=r"torn\.json"):
        read_manifest(tmp_path / "torn.json")


def test_an_old_manifest_with_failures_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(of_version_1(1.0, -0.5)))
    with pytest.raises(ManifestError, match=r"m\.json: of version 1 with failures in it") as caught:
        read_manifest(tmp_path / "m.json")
    assert "\n" not in str(caught.value)
