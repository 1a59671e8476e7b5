"""Configs: every shipped one loads, and what is wrong with one is said in a line."""

from pathlib import Path
from typing import get_args

import pytest

from launch import config as configs
from launch.config import ConfigError
from rl.algorithms.filtered_bc import FilteredBC
from rl.algorithms.grpo import GRPO

MINIMAL = """
[run]
name = "mini"
rounds = 1
[model]
starter = "starter"
[rollout]
tasks_per_round = 4
[[websites]]
name = "shop"
url = "practice:shop"
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "mini.toml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", sorted(configs.BUILT_IN.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    assert configs.load(path).run.name == path.stem


def test_the_webvoyager_config_has_the_papers_thirteen_sites() -> None:
    websites = configs.load("pae_webvoyager_7b").websites_of("train")
    assert len(websites) == 13
    assert all(website.url.startswith("https://") and website.description for website in websites)


def test_a_built_in_config_is_found_by_its_bare_name() -> None:
    assert configs.load("quickstart") == configs.load(configs.BUILT_IN / "quickstart.toml")


def test_every_key_is_documented() -> None:
    sections = [configs.Config]
    while sections:
        section = sections.pop()
        for name, field in section.model_fields.items():
            assert field.description or section.__module__.startswith(("policy.browser", "proposer.task")), name
            kinds = get_args(field.annotation) if field.discriminator else (field.annotation,)
            sections += [kind for kind in kinds if isinstance(kind, type) and hasattr(kind, "model_fields")]


def test_overrides_set_nested_keys_of_any_type(toml: Path) -> None:
    overrides = ["rollout.tasks_per_round=9", "rollout.agent.temperature=0.5", "run.name=other", "websites.0.name=s"]
    config = configs.load(toml, overrides)
    assert (config.rollout.tasks_per_round, config.rollout.agent.temperature) == (9, 0.5)
    assert (config.run.name, config.websites[0].name) == ("other", "s")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run.rouns=3", "run.rouns: unknown key"),
        ("rollout.num_actors=0", "rollout.num_actors: Input should be greater than or equal to 1 (got 0)"),
        ("run.rounds=many", "run.rounds: Input should be a valid integer"),
        ("model.base=elsewhere", "expected exactly one of `starter` and `base`"),
        ("websites.0.role=unseen", "expected at least one with role 'train'"),
        ("websites.3.role=unseen", "--set websites.3.role=unseen"),
        ("rounds", "expected section.key=value"),
        ('serving={replicas=3, base_urls=["http://a", "http://b"]}', "3 to be started, and 2 named by base_urls"),
        ('serving.base_urls=["http://a", "http://a"]', "serving: base_urls: addresses must differ"),
        (
            "learner.algorithm.name=ppo",
            "does not match any of the expected tags: 'filtered_bc'",
        ),
        ("learner.algorithm={name='grpo', lambda=1}", "learner.algorithm.grpo.lambda: unknown key"),
        (
            "learner.algorithm={name='grpo', kl=-1}",
            "learner.algorithm.grpo.kl: Input should be greater than",
        ),
        ("learner.algorithm.name=grpo", "rollout.samples_per_task: expected at least 2, to compare, with grpo"),
        ("learner.algorithm.name=topr", "selection.max_failures_per_task: expected at least 1 with topr"),
        ("selection.max_failures_per_task=1", "selection.max_failures_per_task: expected 0 with filtered_bc"),
        ('rollout.browser.files=["a/list.txt", "b/list.txt"]', "rollout.browser.files: two files are called list.txt"),
        ('websites.0.allowed_hosts=["*"]', "websites.0.allowed_hosts.0: '*': expected a host"),
        ('serving.base_urls=["a.test:8000"]', "serving: base_urls: expected an address such as http://"),
        ('websites.0.allowed_hosts=["a.test:x"]', "websites.0.allowed_hosts.0: 'a.test:x': expected a host"),
        ("serving={replicas=2, port=8000}", "serving: port: expected 0 (any free one) with 2 replicas, got 8000"),
    ],
)
def test_a_mistake_is_named_with_its_key_in_one_line(toml: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.load(toml, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_none_is_a_word_in_toml_and_on_the_command_line(toml: Path) -> None:
    toml.write_text(f'{toml.read_text()}\n[serving]\nimage_px = "none"\n')
    config = configs.load(toml, ["learner.lora_rank=none", "evaluation.max_moves=none"])
    assert (config.serving.image_px, config.learner.lora_rank, config.evaluation.max_moves) == (None, None, None)
    with pytest.raises(ConfigError, match=r"run\.rounds: Input should be a valid integer"):
        configs.load(toml, ["run.rounds=none"])


@pytest.mark.parametrize("address", ["https://me:s3cret@a.test/v1", "https://a.test/v1?api-key=s3cret"])
@pytest.mark.parametrize(
    "override",
    [
        'endpoints.judge={base_url="ADDRESS", model="m"}',
        'panel=[{endpoint={base_url="ADDRESS", model="m"}}]',
        'serving.base_urls=["ADDRESS"]',
    ],
)
def test_a_key_in_an_address_is_refused_and_not_told(toml: Path, override: str, address: str) -> None:
    with pytest.raises(ConfigError, match="expected no credentials in an address") as caught:
        configs.load(toml, [override.replace("ADDRESS", address)])
    assert "s3cret" not in str(caught.value)


def test_replay_needs_an_algorithm_that_takes_it(toml: Path) -> None:
    group = ["rollout.samples_per_task=2", "selection.replay_rounds=2"]
    assert configs.load(toml, [*group, "learner.algorithm.name=off_policy"]).selection.replay_rounds == 2
    with pytest.raises(ConfigError, match=r"selection\.replay_rounds: expected 0 with rloo, which is on-policy"):
        configs.load(toml, [*group, "learner.algorithm.name=rloo"])


def test_overlap_is_refused_where_it_can_not_be(toml: Path) -> None:
    overlap = ["run.overlap=true", "rollout.samples_per_task=2"]
    assert configs.load(toml, overlap).max_staleness == 1
    assert configs.load(toml).max_staleness == 0
    for override, words in (
        ("endpoints.take_turns=true", "run.overlap: expected false with endpoints.take_turns"),
        ("learner.algorithm.name=rloo", "run.overlap: expected false with rloo, which is on-policy"),
        ("retention.keep_last=1", "retention.keep_last: expected at least 2 with run.overlap"),
    ):
        with pytest.raises(ConfigError) as caught:
            configs.load(toml, [*overlap, override])
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_limit_has_room_for_a_group(toml: Path) -> None:
    groups = ["rollout.samples_per_task=4", "learner.algorithm.name=grpo"]
    assert configs.load(toml, [*groups, "selection.max_trajectories=4"]).selection.max_trajectories == 4
    with pytest.raises(ConfigError, match=r"selection\.max_trajectories: expected room for a group of 4 with grpo"):
        configs.load(toml, [*groups, "selection.max_trajectories=3"])


def test_a_recipe_is_an_algorithm_with_its_own_settings(toml: Path) -> None:
    recipe = ["rollout.samples_per_task=4", "learner.algorithm={name='grpo', kl=0.01}"]
    algorithm = configs.load(toml, recipe).learner.algorithm
    assert algorithm == GRPO(kl=0.01)
    assert configs.load(toml).learner.algorithm == FilteredBC()


def test_a_missing_file_names_the_built_in_configs() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        configs.load("no-such-config")


def test_a_file_that_is_no_toml_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[run\n")
    with pytest.raises(ConfigError, match="not TOML"):
        configs.load(path)
