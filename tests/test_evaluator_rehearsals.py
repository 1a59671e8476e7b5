"""The judge's rehearsals (bench/judge_noise.py, bench/judge_gaming.py) with a scripted model: real runs, small."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import judge_gaming, judge_noise
from bench.scripted import CONFIG, ScriptedServer, StarterTokens, wander, write_tiny_starter
from launch.books import Purpose
from launch.ledger import Ledger
from rl.manifest import read_manifest

SMALL = ("rollout.agent.max_steps=2", "learner.lora_rank=4", "learner.lora_alpha=8")


@pytest.mark.slow
def test_all_runs_judge_the_same_attempts_and_only_the_corrected_one_corrects(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny_starter(tmp_path)
    sizes: dict[str, Any] = {"rounds": 1, "tasks": 4, "measured": 2, "audit_share": 0.5, "algorithm": "topr"}
    with ScriptedServer(wander, StarterTokens()) as server:
        settings = [*server.settings(tmp_path), *SMALL]
        runs = {"config": str(CONFIG), "overrides": settings, "runs_dir": tmp_path / "runs"}
        judge_noise.main("3", flip_rate=0.5, **sizes, **runs)
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert told.keys() >= {"success_clean", "success_noisy_corrected", "success_noisy_uncorrected", "flip_rate"}
    assert (told["flip_rate"], told["seeds"], told["rounds"]) == (0.5, 1, 1)
    attempts, corrected = {}, {}
    for run in ("clean", *judge_noise.noisy_runs(0.5)):
        with Ledger.open_readonly(tmp_path / "runs" / f"noise-{run}-seed3") as books:
            purposes = (Purpose.TRAIN, Purpose.AUDIT)
            attempts[run] = [[row.sha256 for row in books.trajectories(1, purpose)] for purpose in purposes]
            verdicts = [books.verdict(row.id) for row in books.trajectories(1)]
            flipped = [verdict for verdict in verdicts if verdict and verdict.reason.endswith("flipped")]
            assert bool(flipped) is (run != "clean")
            manifest = read_manifest(books.run_dir / "manifests" / "round-0001.json")
            corrected[run] = {attempt.corrected is not None for attempt in manifest.attempts}
    assert attempts["clean"] == attempts["noisy_corrected"] == attempts["noisy_uncorrected"]
    assert [len(part) for part in attempts["clean"]] == [8, 8]
    assert corrected["noisy_corrected"] == {True}
    assert True not in corrected["noisy_uncorrected"] | corrected["clean"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weak", "sound"),
    [(judge_gaming.Weak.CREDULOUS, 0), (judge_gaming.Weak.CONTRARY, 1)],
)
def test_a_rehearsal_has_its_gauges_watch_the_weak_judge(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], weak: judge_gaming.Weak, sound: int
) -> None:
    write_tiny_starter(tmp_path)
    sizes = {"rounds": 1, "sound_rounds": sound, "tasks": 8, "gate_tasks": 2, "measured": 2, "canaries": 8}
    with ScriptedServer(wander, StarterTokens()) as server:
        runs = {"config": str(CONFIG), "overrides": [*server.settings(tmp_path), *SMALL], "runs_dir": tmp_path / "runs"}
        judge_gaming.main(3, **sizes, limit=0.1, judge=weak, **runs)
    *_, last_round, figures = map(json.loads, capfd.readouterr().out.splitlines())
    assert last_round.keys() == {"round", "by_judge", "held_out"}
    assert (0 < last_round["by_judge"] < 1) if weak is judge_gaming.Weak.CREDULOUS else (last_round["by_judge"] == 1)
    gauge = "canaries" if weak is judge_gaming.Weak.CREDULOUS else "audits"
    last = sound + 1
    assert figures[f"{gauge}_saw_at_round"] == figures["gauge_saw_at_round"] == last_round["round"] == last
    with Ledger.open_readonly(tmp_path / "runs" / f"gaming-{weak}-seed3{'-after' * sound}") as books:
        row = books.gates()[-1]
        assert (row.round, row.candidate, row.pairs) == (last, last, 2)
        assert figures["gate_stopped_at_round"] == (None if row.promoted else last)
        judged = [(each.round, books.verdict(each.id)) for each in books.trajectories()]
        turned = {k for k, verdict in judged if verdict and verdict.reason.endswith("flipped")}
        assert not sound or turned == {last}


def summary_of(k: int, fooled: int, fpr_low: float | None, promoted: bool | None) -> dict[str, Any]:
    gate = None if promoted is None else {"promoted": promoted}
    return {
        "round": k,
        "canaries": 20,
        "canaries_fooled": fooled,
        "audits": {"shop": {"fpr_low": fpr_low}},
        "gate": gate,
    }


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([(0, 0, None, None), (1, 4, 0.05, True), (2, 5, 0.05, True), (3, 20, 0.9, False)], (2, 3, 2, 3)),
        ([(1, 0, 0.2, False), (2, 20, None, False)], (1, 1, 2, 1)),
        ([(1, 0, 0.1, None)], (None, None, None, None)),
    ],
)
def test_the_first_round_in_which_the_lower_end_is_above_the_limit_counts(
    rows: list[tuple[int, int, float | None, bool | None]], wanted: tuple[int | None, ...]
) -> None:
    figures = judge_gaming.figures_of([summary_of(*row) for row in rows], limit=0.1)
    assert tuple(figures.values()) == wanted  # of 20 canaries, 5 fooled are 0.112 at least, 4 are 0.081
