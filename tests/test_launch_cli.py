"""The command line: what can't work is refused in one line each, with exit code 2, and leaves nothing behind."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch import config as configs
from launch import preflight
from launch.books import Phase, Purpose, WeightsRow
from launch.cli import app
from launch.config import load
from launch.ledger import Ledger
from launch.preflight import PreflightError
from proposer.task import Task
from rl.manifest import read_manifest
from tests.makers import SHOP

ROOT = Path(__file__).parents[1]
COMMANDS = ("run", "resume", "eval", "report", "status", "propose", "judge", "rejudge", "judge-eval", "clean")
COMMANDS += ("export-labels", "convert-labels", "replay", "record", "settings")


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    starter = tmp_path / "starter"
    starter.mkdir()
    (starter / "STARTER.json").write_text("{}")
    path = tmp_path / "mini.toml"
    path.write_text(f"""
[run]
name = "mini"
rounds = 1
runs_dir = "{tmp_path}/runs"
min_free_disk_gb = 0
min_free_memory_gb = 0
[model]
starter = "{starter}"
[rollout]
tasks_per_round = 4
[[websites]]
name = "shop"
url = "practice:shop"
""")
    return path


def refused(*words: str) -> list[str]:
    """The lines on stderr of a command that is refused."""
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_the_real_command_refuses_an_unknown_config_in_one_line() -> None:
    command = [sys.executable, "-m", "launch", "run", "no-such-config"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: no-such-config: expected a TOML file or one of the built-in configs: pae_webvoyager_7b, quickstart"
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rollout.num_actor=1", "rollout.num_actor: unknown key"),
        ("model.starter=elsewhere", "no starter at elsewhere"),
        ("websites.0.url=practice:shoop", "no practice site 'shoop'"),
        ("websites.0.url=http://127.0.0.1:9/", "nothing answers at http://127.0.0.1:9/"),
        ("rollout.browser.executable=no-such-browser", "no-such-browser"),
        ("run.min_free_disk_gb=1e9", "expected 1e+09 (run.min_free_disk_gb)"),
        ("run.min_free_memory_gb=1e9", "expected 1e+09 (run.min_free_memory_gb)"),
        ('serving.base_urls=["http://127.0.0.1:9"]', "serving.base_urls: nothing answers"),
        ("judge.kind=truth", "judge.kind: the truth of proposed tasks isn't known"),
        ("judge.quorum=2", "judge: quorum: expected more than half of num_votes = 1, got 2"),
    ],
)
def test_what_can_not_work_is_refused_in_one_line_and_leaves_nothing(toml: Path, override: str, words: str) -> None:
    (line,) = refused("run", str(toml), "--set", override)
    assert words in line
    assert not (toml.parent / "runs").exists()


def test_a_run_that_was_begun_goes_on_without_a_website_but_not_without_all(
    toml: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop, gone = '{name="shop", url="practice:shop"}', '{name="gone", url="http://127.0.0.1:9/"}'
    alone, beside = (configs.load(toml, [f"websites=[{sites}]"]) for sites in (gone, f"{shop}, {gone}"))
    silent = r"^websites: gone: nothing answers at http://127\.0\.0\.1:9/$"
    with pytest.raises(PreflightError, match=silent):
        preflight.check(beside)
    beside.run_dir.mkdir(parents=True)
    Ledger(beside.run_dir).close()
    with pytest.raises(PreflightError, match=silent):
        preflight.check(alone)
    preflight.check(beside)
    assert "nothing answers at http://127.0.0.1:9/; the run goes on" in caplog.text


def test_a_taken_port_is_refused(toml: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (line,) = refused("run", str(toml), "--set", f"serving.port={port}")
    assert f"{port} on 127.0.0.1 is taken" in line


def test_a_missing_key_in_the_environment_is_refused(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    endpoint = 'endpoints.judge={base_url = "http://127.0.0.1:9/v1", model = "m", api_key_env = "NO_SUCH_KEY"}'
    lines = refused("run", str(toml), "--set", endpoint)
    assert any("NO_SUCH_KEY is not set" in line for line in lines)


def test_run_does_not_start_a_begun_run_again(toml: Path) -> None:
    run_dir = toml.parent / "runs" / "mini"
    run_dir.mkdir(parents=True)
    Ledger(run_dir).close()
    (line,) = refused("run", str(toml))
    assert f"python -m launch resume {run_dir}" in line


def damaged(books: Ledger) -> None:
    """Learn from a manifest that was changed after it was sealed."""
    books.commit_manifest(1, "manifests/m.json", "0" * 64, 1)
    books.manifest(1)


def contradictory(books: Ledger) -> None:
    """Learn from a manifest that contradicts itself."""
    stray = {"trajectory_id": "a", "step": 0, "prompt_ids": [1], "token_ids": [1], "logprobs": [], "weights": 0}
    whole = {"round": 1, "samples": [stray | {"pictures": []}], "attempts": []}
    (books.run_dir / "manifests" / "m.json").write_text(json.dumps(whole))
    read_manifest(books.run_dir / "manifests" / "m.json")


@pytest.mark.parametrize(
    ("learn", "words"),
    [(damaged, "not the manifest that was sealed"), (contradictory, "of trajectories that are no attempt: a")],
)
def test_a_manifest_that_can_not_be_learned_from_ends_the_run_in_one_line(
    toml: Path, monkeypatch: pytest.MonkeyPatch, learn: Callable[[Ledger], None], words: str
) -> None:
    monkeypatch.setattr("launch.preflight.check", lambda config: None)
    monkeypatch.setattr("launch.driver.drive", lambda config, books, watch: learn(books))
    result = CliRunner().invoke(app, ["run", str(toml)])
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()  # after the line of the progress bars
    assert "manifests/m.json" in line
    assert words in line


def test_a_finished_run_is_told_again_whatever_is_no_longer_there(toml: Path) -> None:
    gone = ["websites.0.url=http://127.0.0.1:9/", "rollout.browser.executable=no-such-browser", "run.rounds=0"]
    gone += ['serving.base_urls=["http://127.0.0.1:9"]', "cluster.storage=nonsense://bucket/runs"]
    config = load(toml, gone)
    config.run_dir.mkdir(parents=True)
    with Ledger(config.run_dir) as books:
        books.set_meta("config", config.model_dump_json())
        books.commit_weights(WeightsRow(0, None, -1, "w"))
        books.begin_round(0, Phase.DONE)
    again = ["run", str(toml), "--resume-ok", *(word for key in gone for word in ("--set", key))]
    for words in (["resume", str(config.run_dir)], again):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert "all 0 rounds are done" in result.stdout
        assert "report.html" in result.stdout
    problems = refused("resume", str(config.run_dir), "--set", "run.rounds=1")
    assert any("no-such-browser" in line for line in problems)


@pytest.mark.parametrize("command", ["resume", "status", "report", "judge", "rejudge", "eval", "clean"])
def test_a_run_that_is_not_there_is_refused(command: str) -> None:
    (line,) = refused(command, "no-such-run")
    assert "no-such-run: no run there" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"python -m launch {command}" in result.stdout


def test_dry_run_prints_the_resolved_config_and_writes_nothing(toml: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(toml), "--dry-run", "--set", "run.seed=7"])
    assert json.loads(result.stdout)["run"]["seed"] == 7
    assert not (toml.parent / "runs").exists()


def test_status_says_where_a_run_stands(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.begin_round(0, Phase.EVAL)
        ledger.commit_weights(WeightsRow(0, None, -1, "w"))
        ledger.plan(0, Purpose.EVAL, [Task(website=SHOP, instruction="Buy a lamp.", world="w")], 1)
        ledger.lease(ledger.missing_episodes(0, Purpose.EVAL)[0].id)
        running = CliRunner().invoke(app, ["status", str(tmp_path)]).stdout
    ended = CliRunner().invoke(app, ["status", str(tmp_path)]).stdout
    assert f"running (process {os.getpid()}), round 0, phase eval" in running
    assert "not running, round 0, phase eval" in ended
    assert "eval: 0 of 1 episodes, 1 handed out, 0 verdicts" in ended
