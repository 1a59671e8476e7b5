"""Runs that branch off others: real books, files and rounds; what takes processes has stand-ins (tests/standins.py)."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.books import LedgerError, Phase, Purpose, weights_path
from launch.cli import app
from launch.config import ConfigError, PromotionSettings
from launch.digest import digest
from launch.driver import stored_config
from launch.fork import FORKS, fork
from launch.ledger import Ledger
from launch.tracking import read_metrics
from rl.manifest import read_manifest
from rl.steplog import OptimizerStep, log_step, read_steps
from tests.standins import OVERLAPPED, SYNCHRONOUS, load, start


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds, done. Read only."""
    config = load(tmp_path_factory.mktemp("synchronous"), SYNCHRONOUS | {"retention.keep_last": 9})
    start(config)
    return config.run_dir


@pytest.fixture(scope="module")
def overlapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load(tmp_path_factory.mktemp("overlapped"), OVERLAPPED | {"retention.keep_last": 9})
    start(config)
    return config.run_dir


def digest_of(run_dir: Path) -> dict[str, str]:
    with Ledger.open_readonly(run_dir) as books:
        return digest(books)


def branch_of(run_dir: Path, k: int, before: Phase, *overrides: str) -> Path:
    target = run_dir.with_name(f"branch-{k}-{before}-{len(overrides)}")
    fork(run_dir, target, k, before, overrides)
    return target


@pytest.mark.parametrize("before", FORKS)
@pytest.mark.parametrize("k", [1, 2])
def test_a_branch_without_changes_ends_as_the_run_itself_did(base: Path, k: int, before: Phase) -> None:
    whole, figures = digest_of(base), read_metrics(base)
    target = branch_of(base, k, before)
    assert digest_of(target) != whole
    start(stored_config(target))
    assert digest_of(target) == whole
    assert [metrics.keys() - {"time/start"} for metrics in read_metrics(target).values()] == [
        metrics.keys() - {"time/start"} for metrics in figures.values()
    ]
    assert digest_of(base) == whole


@pytest.mark.parametrize("before", [Phase.JUDGE, Phase.SEAL])
def test_a_branch_keeps_what_was_practised_ahead_by_older_weights(overlapped: Path, before: Phase) -> None:
    target = branch_of(overlapped, 2, before)
    start(stored_config(target))
    assert digest_of(target) == digest_of(overlapped)


@pytest.mark.parametrize("before", FORKS)
def test_a_branch_has_what_its_round_made_before_that_phase_and_nothing_later(base: Path, before: Phase) -> None:
    target = branch_of(base, 2, before, "learner.lr=0.5")
    with Ledger.open_readonly(target) as books, Ledger.open_readonly(base) as others:
        assert books.trajectories(1) == others.trajectories(1)
        assert all(books.verdict(row.id) == others.verdict(row.id) for row in others.trajectories(1))
        assert [row.version for row in books.weights()] == [0, 1]
        assert [row.round for row in books.gates()] == [1]
        expected = [] if before is Phase.PROPOSE else others.tasks(2, Purpose.TRAIN)
        assert books.tasks(2, Purpose.TRAIN) == expected
        assert bool(books.proposals(2)) is bool(expected)
        assert books.phase(2) is (before if expected else None)
        assert books.tasks(2, Purpose.CANDIDATE) == []
        made = books.trajectories(2)
        assert bool(made) is (before in (Phase.JUDGE, Phase.SEAL))
        assert {row.purpose for row in made} <= {Purpose.TRAIN, Purpose.AUDIT}
        assert [(row.id, row.truth) for row in made] == [
            (row.id, row.truth)
            for row in others.trajectories(2)
            if made and row.purpose in (Purpose.TRAIN, Purpose.AUDIT)
        ]
        judged = {books.verdict(row.id) is not None for row in made if row.outcome.is_agents}
        assert judged == ({True} if before is Phase.SEAL else {False} if made else set())
        assert any(key.startswith("canary/") for key in books.metrics(2)) is (before is Phase.SEAL)
        assert all(books.load(row) for row in books.trajectories())
        (event,) = (event for event in books.events() if event.kind == "fork")
        assert event.text.endswith(f"before {before} of round 2; changed: learner.lr")
        assert [row.round for row in books.rounds() if row.phase is Phase.DONE] == [0, 1]
    assert stored_config(target).learner.lr == 0.5
    assert stored_config(base).learner.lr != 0.5


def test_what_is_learned_can_be_chosen_anew_from_the_same_verdicts(base: Path) -> None:
    target = branch_of(base, 1, Phase.SEAL, "learner.algorithm.name=grpo", "run.rounds=1")
    start(stored_config(target))
    with Ledger.open_readonly(target) as books, Ledger.open_readonly(base) as others:
        judged = [(row.id, row.judgement) for row in others.trajectories(1, Purpose.TRAIN)]
        assert [(row.id, row.judgement) for row in books.trajectories(1, Purpose.TRAIN)] == judged
        manifests = [read_manifest(run_dir / "manifests" / "round-0001.json") for run_dir in (base, target)]
        assert manifests[0].attempts != manifests[1].attempts
        assert {attempt.trajectory_id for attempt in manifests[1].attempts} <= {name for name, _ in judged}
        assert [row.round for row in books.rounds()] == [0, 1]


def test_a_branch_keeps_what_is_told_of_the_updates_it_begins_with(base: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(base, tmp_path / "run")
    for k in (1, 2):
        step = OptimizerStep(step=1, total=1, loss=0.5, grad_norm=1, lr=1, tokens=1, at=0)
        log_step(run_dir / weights_path(k), step)
    target = branch_of(run_dir, 2, Phase.SEAL)
    assert [bool(read_steps(target / weights_path(k))) for k in (1, 2)] == [True, False]


def test_deleting_either_run_leaves_the_other_whole(base: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    fork(base, first, 2, Phase.SEAL)
    fork(first, second, 2, Phase.SEAL)
    shutil.rmtree(first)
    start(stored_config(second))
    assert digest_of(second) == digest_of(base)


def lose_weights(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "weights" / "v000001")


def lose_trajectory(run_dir: Path) -> None:
    next((run_dir / "trajectories").glob("1-*")).unlink()


def change_manifest(run_dir: Path) -> None:
    manifest = run_dir / "manifests" / "round-0001.json"
    text = manifest.read_text()
    manifest.unlink()
    manifest.write_text(text + " ")


def nothing(run_dir: Path) -> None:
    """The run is as it was."""


@pytest.mark.parametrize(
    ("spoil", "k", "before", "said"),
    [
        (nothing, 0, Phase.PROPOSE, "round 0 can't be branched off; expected one of 1 to 3"),
        (nothing, 4, Phase.PROPOSE, "round 4 can't be branched off"),
        (nothing, 3, Phase.JUDGE, "round 3 has only come to propose, so it can't be branched off before judge"),
        (nothing, 1, Phase.EVAL, "can't branch off before eval; expected one of propose, rollout, judge, seal"),
        (lose_weights, 2, Phase.SEAL, "v000001: the weights that round 2 began with are no longer kept"),
        (lose_trajectory, 2, Phase.SEAL, "named in the books, but missing"),
        (change_manifest, 2, Phase.PROPOSE, "not the manifest that was sealed"),
    ],
)
def test_what_cant_be_branched_off_is_refused_in_a_line_and_leaves_nothing(
    base: Path, tmp_path: Path, spoil: Callable[[Path], None], k: int, before: Phase, said: str
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(base, run_dir)
    spoil(run_dir)
    with pytest.raises(LedgerError, match=said):
        fork(run_dir, tmp_path / "new", k, before)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_branch_from_attempts_whose_weights_are_gone_is_refused(tmp_path: Path) -> None:
    config = load(tmp_path, OVERLAPPED | {"retention.keep_last": 2})
    start(config.model_copy(update={"promotion": PromotionSettings()}))  # no gate: each version follows on the last
    for before in (Phase.JUDGE, Phase.SEAL):
        with pytest.raises(LedgerError, match="v000001: the weights that round 3 was practised with are no longer"):
            fork(config.run_dir, tmp_path / "new", 3, before)
    fork(config.run_dir, tmp_path / "new", 3, Phase.ROLLOUT)


def test_a_round_after_the_last_can_be_branched_off_before_its_tasks(base: Path) -> None:
    target = branch_of(base, 3, Phase.PROPOSE, "run.rounds=3", "run.seed=7")
    start(stored_config(target))
    with Ledger.open_readonly(target) as books, Ledger.open_readonly(base) as others:
        assert books.trajectories(2) == others.trajectories(2)
        assert books.trajectories(3)


def test_the_command_names_the_branch_and_says_how_to_go_on(base: Path) -> None:
    command = ["fork", str(base), "other", "--round", "1", "--before", "judge"]
    done = CliRunner().invoke(app, [*command, "--set", "judge.num_votes=3"])
    assert done.exit_code == 0
    target = base.with_name("other")
    assert f"python -m launch resume {target}" in done.output.replace("\n", "")
    assert stored_config(target).judge.num_votes == 3
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, "expected a new directory" in again.output.replace("\n", " ")) == (2, True)


@pytest.mark.parametrize("override", ["judge.num_vote=3", "run.name=elsewhere", "nonsense"])
def test_a_config_that_cant_be_is_refused_and_leaves_nothing(base: Path, override: str) -> None:
    before = sorted(base.parent.iterdir())
    with pytest.raises(ConfigError):
        fork(base, base.with_name("bad"), 1, Phase.SEAL, [override])
    assert sorted(base.parent.iterdir()) == before
