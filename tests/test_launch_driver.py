"""Going on with a run: with the config that it was begun with, or with a change that was asked for."""

import json
from pathlib import Path

import pytest

from launch import config as configs
from launch.books import LedgerError
from launch.config import Config, ConfigError
from launch.driver import check_config, differing_keys, stored_config
from launch.ledger import Ledger


@pytest.fixture
def begun(tmp_path: Path) -> Config:
    """The config of a run that was begun."""
    config = configs.load("quickstart", [f"run.runs_dir={tmp_path}", "run.name=one"])
    config.run_dir.mkdir()
    with Ledger(config.run_dir) as ledger:
        ledger.set_meta("config", config.model_dump_json())
    return config


def test_a_run_goes_on_with_the_config_that_it_was_begun_with(begun: Config) -> None:
    assert stored_config(begun.run_dir, []) == begun
    check_config(begun)


def test_a_changed_config_is_refused_with_the_key_and_the_way_to_allow_it(begun: Config) -> None:
    overrides = [f"run.runs_dir={begun.run.runs_dir}", "run.name=one", "learner.lr=1.0", "run.rounds=9"]
    with pytest.raises(ConfigError, match=r"another learner\.lr, run\.rounds; .*resume .* --set learner\.lr=\.\.\."):
        check_config(configs.load("quickstart", overrides))


def test_a_change_that_is_asked_for_is_made(begun: Config) -> None:
    assert stored_config(begun.run_dir, ["run.rounds=9"]).run.rounds == 9


def test_a_run_outlives_settings_that_are_gone(begun: Config, caplog: pytest.LogCaptureFixture) -> None:
    data = json.loads(begun.model_dump_json())
    data["selection"]["max_recoveries"] = 2
    data["learner"]["algorithm"]["lambda"] = 0.5
    data["websites"][1]["tint"] = "blue"
    data["tint"] = {"blue": 1}
    with Ledger(begun.run_dir) as ledger:
        ledger.set_meta("config", json.dumps(data))
    assert stored_config(begun.run_dir) == begun
    gone = {"selection.max_recoveries", "learner.algorithm.lambda", "websites.1.tint", "tint"}
    assert set(caplog.messages[0].partition("left out: ")[2].split(", ")) == gone
    check_config(begun)
    with pytest.raises(ConfigError, match=r"selection\.max_recoveries: unknown key"):
        stored_config(begun.run_dir, ["selection.max_recoveries=2"])


def test_a_moved_run_goes_on_where_it_is(begun: Config, tmp_path: Path) -> None:
    moved = begun.run_dir.rename(tmp_path / "two")
    config = stored_config(moved, [])
    assert config.run_dir == moved
    check_config(config)


def test_an_unbegun_run_has_no_config(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with pytest.raises(LedgerError, match="never begun"):
        stored_config(tmp_path, [])


def test_differing_keys_are_named_to_their_depth() -> None:
    before, after = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}, "e": 2}
    assert set(differing_keys(before, after)) == {"a.c", "d", "e"}
