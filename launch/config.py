"""One experiment: what a TOML file under launch/configs may say, and reading it.

In: a TOML file and overrides. Out: a frozen, fully resolved `Config`. Importing this loads no model, browser or cluster
library.
"""

import copy
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluator.judge import JudgeSettings
from launch.tracking import TrackingSettings
from policy.agent import AgentSettings
from policy.browser_settings import BrowserSettings
from policy.endpoint import EndpointSettings
from policy.server_settings import ServerSettings
from proposer.propose import ProposerSettings
from proposer.task import Website
from rl.algorithms.base import LearnsFrom
from rl.learner import LearnerSettings
from rl.selection import SelectionSettings

BUILT_IN = Path(__file__).parent / "configs"
NONE = "none"
"""How a config says None."""


class ConfigError(ValueError):
    """The config can't be used; one line with the file, the key and what was expected."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RunSettings(_Section):
    """The run as a whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run's directory under `runs_dir`."""
    seed: int = Field(default=0, ge=0)
    """Of everything random: the worlds practised on, sampling, the learner."""
    rounds: int = Field(ge=0)
    """Rounds of learning (the paper's k); round 0 only measures the first weights."""
    overlap: bool = False
    """Whether a round's tasks are proposed and attempted while the round before trains: by the weights that this
    training begins with, so what a round trains is at most one version ahead of what sampled its episodes. It pays
    where model servers and learner don't share their processors (docs/learner.md)."""
    runs_dir: Path = Path("runs")
    """Where run directories are made; relative to the working directory."""
    min_free_disk_gb: float = Field(default=4.0, ge=0)
    """Free disk space (GB) without which a run doesn't start."""
    min_free_memory_gb: float = Field(default=4.0, ge=0)
    """Available memory (GB) without which a run doesn't start."""
    stop_free_disk_gb: float = Field(default=1.0, ge=0)
    """Free disk space (GB) without which no further phase of a round begins: the run stops before the disk is full."""


class PractisedWebsite(Website):
    """A website and its part in the experiment."""

    role: Literal["train", "unseen"] = "train"
    """``train``: tasks are proposed and learned from here. ``unseen``: only measured on."""

    @property
    def website(self) -> Website:
        """The website alone."""
        return Website(**self.model_dump(exclude={"role"}))


Role = Literal["policy", "judge", "proposer"]
FrozenRole = Literal["judge", "proposer"]
FROZEN_ROLES: tuple[FrozenRole, ...] = ("judge", "proposer")


class ModelSource(_Section):
    """The model that the run starts from: exactly one of the two."""

    starter: Path | None = None
    """Directory made by ``python -m launch starter build``: models ``policy``, ``judge`` and ``proposer``."""
    base: Path | None = None
    """Vision-language model in Hugging Face layout: all three roles start from it, and only the policy learns."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.starter is None) == (self.base is None):
            raise ValueError("expected exactly one of `starter` and `base`")
        return self

    def directory(self, role: Role) -> Path:
        """The model that a role starts from."""
        if self.starter is not None:
            return self.starter / role
        assert self.base is not None, "one of the two is set"
        return self.base


class Endpoints(_Section):
    """Who plays the frozen roles; the policy always has a model server (see `serving`)."""

    proposer: EndpointSettings | None = None
    """Who writes tasks; None: the starter's proposer, or the base model."""
    judge: EndpointSettings | None = None
    """Who scores attempts; None: the starter's judge, or the base model."""
    take_turns: bool = False
    """Frozen roles without an endpoint answer from the policy's server, which loads each role's weights when its turn
    comes (under a second for a small model): one model in memory, and none waits for another's processor cores, but
    verdicts come after the rollouts. Otherwise they have a server beside the policy's, and judging streams."""


class PanelJudge(_Section):
    """One more judge, best of another model family."""

    endpoint: EndpointSettings
    """Where it answers."""
    judge: JudgeSettings = JudgeSettings()
    """What it is shown and how it answers."""


class RolloutSettings(_Section):
    """How much is practised in a round, and by how many workers."""

    num_actors: int = Field(default=1, ge=1)
    """Ray actors, one browser each."""
    episodes_per_actor: int = Field(default=4, ge=1)
    """Episodes at once in one actor's browser."""
    tasks_per_round: int = Field(ge=1)
    """Tasks wanted per round, over all training websites: proposed ones, and audits among them (`audit.share`)."""
    samples_per_task: int = Field(default=1, ge=1)
    """Episodes per proposed task."""
    tasks_per_world: int = Field(default=4, ge=1)
    """Practice sites: proposed tasks per generated world."""
    gold_tasks: bool = False
    """Practise on the gold tasks of training worlds (of `evaluation.max_moves` moves at most) instead of proposed ones:
    for experiments on practice sites, such as learning from a judge that knows the truth (`judge.kind`)."""
    num_pages: int = Field(default=3, ge=1)
    """Pages the proposer is shown per world or website: the start page, then a random walk."""
    max_attempts: int = Field(default=3, ge=1)
    """How often an episode is tried when browser, world or model fail (never when the agent does), in all."""
    max_failure_share: float = Field(default=0.3, gt=0, le=1)
    """The round stops when more than this share of its episodes (or verdicts) ended for reasons not the agent's."""
    num_judgements: int = Field(default=4, ge=1)
    """Trajectories judged at once."""
    agent: AgentSettings = AgentSettings()
    """The agent's loop: step and time limits, history, sampling."""
    browser: BrowserSettings = BrowserSettings()
    """The browser: size of the page, what the agent is shown, deadlines."""


class EvaluationSettings(_Section):
    """Measuring with gold tasks; never trained on."""

    num_tasks: int = Field(default=150, ge=0)
    """Gold tasks on held-out worlds of the training sites, the same ones every time."""
    unseen_num_tasks: int = Field(default=50, ge=0)
    """Gold tasks on the unseen sites, the same ones every time."""
    every_rounds: int = Field(default=1, ge=1)
    """Measure after every so many rounds; round 0 and the last round are always measured."""
    max_moves: int | None = Field(default=None, ge=2)
    """Only gold tasks whose scripted solution has at most so many moves, the answer included; None: all."""
    first_world: int = Field(default=0, ge=0)
    """Number of the first held-out world used; another number, other worlds."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature when the policy is measured, by the gate and on suites too; 0: greedily. That of practice
    tells what the policy can do there, of which a greedy policy that is stuck shows less."""


class CanarySettings(_Section):
    """Attempts that can't be a success, judged beside a round's episodes; they reach no reward, group or manifest."""

    per_round: int = Field(default=0, ge=0)
    """Canaries judged in each round, spread over the families (evaluator/canaries.py); 0: none."""
    max_fooled: float = Field(default=0.1, ge=0, le=1)
    """The run stops, and learns nothing from the round, when the share of canaries that the judge called a success is
    above this, by the lower end of its 95 % interval; 1: it never stops, and the share is only recorded."""


class AuditSettings(_Section):
    """What rewards are corrected for, and measuring the judge, by attempts at gold tasks that nothing is learned of."""

    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of `rollout.tasks_per_round` that are gold tasks, at least one, on worlds of their own: attempted and
    judged like the others, to measure the judge. 0: none, since nothing is learned from them and few tell little."""
    max_fpr: float = Field(default=0.3, ge=0, le=1)
    """The run stops, and learns nothing from the round, when on any website the share of its failed audits that the
    judge called a success is above this, by the lower end of its 95 % interval; 1: it never stops."""
    pool_rounds: int = Field(default=0, ge=0)
    """Rounds before this one whose audits, by the same judge with the same prompt, count for the correction too."""
    correct: bool = False
    """Whether the learner's rewards are corrected for the judge's measured error (evaluator/noise.py)."""
    thoughts_per_round: int = Field(default=0, ge=0)
    """Finished practice episodes that are judged once more in each round, with the agent's thoughts shown, to measure
    what these talk the judge into; 0: none."""
    min_gap: float = Field(default=0.2, gt=0, lt=1)
    """With `correct`, nothing is learned from a website on which the judge's true positive rate is not this much above
    its false positive rate, not even by the far ends of their 95 % intervals: there its verdicts tell too little."""
    side_effect_penalty: float = Field(default=0.0, ge=0, le=1)
    """What each side effect (evaluator/changes.py) takes off a success's reward, down to 0; at 1 a success with any is
    worth no more than a failure. 0: they are only recorded."""


class PromotionSettings(_Section):
    """Whether a round's new weights replace those that it began with: both attempt the same gold tasks."""

    num_tasks: int = Field(default=0, ge=0)
    """Gold tasks, on worlds of their own and others in every round; each is attempted twice. 0: new weights are always
    promoted, since comparing takes its time, and few tasks would see large losses only."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """New weights that are no worse are refused with at most this probability (one-sided exact sign test): smaller, and
    only larger losses are seen."""


class RetentionSettings(_Section):
    """Which versions of the weights stay on disk; the starter's always does."""

    keep_last: int = Field(default=2, ge=1)
    """The newest versions, as many as this."""
    keep_every: int | None = Field(default=None, ge=1)
    """Besides, versions whose number is a multiple of this; None: none besides."""


class ClusterSettings(_Section):
    """Where the workers run."""

    address: str | None = None
    """Address of a running Ray cluster (``auto`` finds one); None: a local one for this run. RAY_ADDRESS overrides."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Processor cores that the local Ray may use; None: all."""
    storage: str | None = None
    """Object store between workers and the driver, as fsspec names it (``s3://bucket/prefix``), credentials from the
    environment; None: the run's directory is on a file system that all nodes share."""
    learner_gpus: float = Field(default=0, ge=0)
    """GPUs given to the learner."""

    @model_validator(mode="after")
    def _storage_is_a_bare_url(self) -> Self:  # of the whole section: an error about one key repeats its value
        if self.storage is not None:
            parts = urlsplit(self.storage)
            if ":" in parts.netloc or parts.query:  # a secret may hold slashes, so no @ need follow in the host's part
                raise ValueError("storage: expected no credentials in the URL; they come from the environment")
            if not parts.scheme or not parts.netloc or "::" in self.storage or self.storage.endswith("/"):
                raise ValueError("storage: expected a URL such as s3://bucket/prefix, without a slash at its end")
        return self


class Config(_Section):
    """One experiment, fully resolved."""

    run: RunSettings
    """The run as a whole."""
    websites: tuple[PractisedWebsite, ...] = Field(min_length=1)
    """The websites, at least one with role ``train``."""
    model: ModelSource
    """What the run starts from: exactly one of the two."""
    serving: ServerSettings = ServerSettings()
    """The model servers; `base_urls`, `replicas` and `port` are the policy's."""
    endpoints: Endpoints = Endpoints()
    """Remote models for the frozen roles."""
    proposer: ProposerSettings = ProposerSettings()
    """How tasks are written."""
    rollout: RolloutSettings
    """Attempting tasks: how much in a round, and by how many workers."""
    judge: JudgeSettings = JudgeSettings()
    """Scoring the attempts."""
    panel: tuple[PanelJudge, ...] = ()
    """Further judges: what they and the judge don't agree on is undecided."""
    canaries: CanarySettings = CanarySettings()
    """Watching the judge, by attempts that can't be a success and are learned from by nobody."""
    audit: AuditSettings = AuditSettings()
    """Measuring the judge, and correcting rewards for its error and for side effects."""
    selection: SelectionSettings = SelectionSettings()
    """Choosing what is learned from."""
    learner: LearnerSettings = LearnerSettings()
    """Updating the weights."""
    promotion: PromotionSettings = PromotionSettings()
    """Letting no weights through that are worse than those that the round began with."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Measuring with gold tasks."""
    retention: RetentionSettings = RetentionSettings()
    """Which versions of the weights stay on disk; the starter's always does."""
    cluster: ClusterSettings = ClusterSettings()
    """Where the workers run."""
    tracking: TrackingSettings = TrackingSettings()
    """Weights & Biases."""

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        names = [entry.name for entry in self.websites]
        if len(set(names)) < len(names):
            raise ValueError(f"websites: names must differ, got {names}")
        if not self.websites_of("train"):
            raise ValueError("websites: expected at least one with role 'train'")
        self._check_algorithm()
        self._check_overlap()
        self._check_audit()
        self._check_judge()
        return self

    def _check_algorithm(self) -> None:
        """Raise ValueError where selection or rollouts don't give what the algorithm learns from."""
        algorithm, selection = self.learner.algorithm, self.selection
        if (selection.max_failures_per_task > 0) != (algorithm.learns_from is LearnsFrom.FAILURES_TOO):
            wanted = "at least 1" if algorithm.learns_from is LearnsFrom.FAILURES_TOO else "0"
            raise ValueError(f"selection.max_failures_per_task: expected {wanted} with {algorithm.name}")
        if selection.replay_rounds and not algorithm.takes_replay:
            raise ValueError(f"selection.replay_rounds: expected 0 with {algorithm.name}, which is on-policy")
        if algorithm.learns_from.is_of_groups and self.rollout.samples_per_task < 2:
            raise ValueError(f"rollout.samples_per_task: expected at least 2, to compare, with {algorithm.name}")
        limit, size = selection.max_trajectories, self.rollout.samples_per_task
        if algorithm.learns_from.is_of_groups and limit is not None and limit < size:
            raise ValueError(f"selection.max_trajectories: expected room for a group of {size} with {algorithm.name}")

    def _check_overlap(self) -> None:
        """Raise ValueError where rounds that overlap would share what they can't, or need what isn't kept."""
        if not self.run.overlap:
            return
        if self.endpoints.take_turns:
            raise ValueError("run.overlap: expected false with endpoints.take_turns, since overlapped they take none")
        if not self.learner.algorithm.takes_replay:
            raise ValueError(f"run.overlap: expected false with {self.learner.algorithm.name}, which is on-policy")
        if self.retention.keep_last < 2:
            raise ValueError("retention.keep_last: expected at least 2 with run.overlap: the learner reads two")

    def _check_judge(self) -> None:
        """Raise ValueError where the judge is asked for what it wasn't taught."""
        is_starters = self.model.starter is not None and self.endpoints.judge is None and self.judge.kind == "model"
        if self.judge.rubric and is_starters:
            raise ValueError("judge.rubric: expected false, since the starter's judge can't write or check facts")

    def _check_audit(self) -> None:
        """Raise ValueError where audits would leave no practice, or rewards can't be corrected by them."""
        if self.num_audits >= self.rollout.tasks_per_round:
            raise ValueError(f"audit.share: expected fewer audits than rollout.tasks_per_round, got {self.num_audits}")
        if self.audit.thoughts_per_round and self.judge.kind != "model":
            raise ValueError("audit.thoughts_per_round: expected 0 with a judge that asks no model (judge.kind)")
        if self.audit.correct and not self.audit.share:
            raise ValueError("audit.correct: expected audit.share above 0, else the judge's error isn't known")
        if self.audit.correct and self.selection.same_answer:
            raise ValueError("audit.correct: expected selection.same_answer = false, which changes what was measured")

    @property
    def max_staleness(self) -> int:
        """Versions by which the weights that a round trains may be ahead of those that sampled its own episodes."""
        return 1 if self.run.overlap else 0

    @property
    def num_audits(self) -> int:
        """Of a round's tasks those that measure the judge."""
        share, num_tasks = self.audit.share, self.rollout.tasks_per_round
        return max(1, round(share * num_tasks)) if share else 0

    def endpoint(self, role: FrozenRole) -> EndpointSettings | None:
        """The remote model of a frozen role; None: it is served by the run."""
        return self.endpoints.judge if role == "judge" else self.endpoints.proposer

    @property
    def frozen_roles(self) -> tuple[FrozenRole, ...]:
        """The frozen roles that a model plays."""
        needless = {"judge": self.judge.kind != "model", "proposer": self.rollout.gold_tasks}
        return tuple(role for role in FROZEN_ROLES if not needless[role])

    @property
    def served_apart(self) -> tuple[FrozenRole, ...]:
        """The frozen roles that don't take turns with the policy."""
        return tuple(role for role in self.frozen_roles if self.endpoint(role) or not self.endpoints.take_turns)

    @property
    def judge_name(self) -> str:
        """What the judge's verdicts are signed with; the judges of the panel have names of their own."""
        if self.endpoints.judge is not None:
            return self.endpoints.judge.model
        return "starter" if self.model.base is None else self.model.base.resolve().name

    @property
    def run_dir(self) -> Path:
        """The run's directory."""
        return self.run.runs_dir / self.run.name

    def websites_of(self, role: Literal["train", "unseen"]) -> tuple[Website, ...]:
        """The websites of one role, in the file's order."""
        return tuple(entry.website for entry in self.websites if entry.role == role)


def built_in_names() -> list[str]:
    """Names of the configs that come with the program."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def find(config: str | Path) -> Path:
    """The file behind a path or a built-in name. Raises ConfigError."""
    candidates = (Path(config), BUILT_IN / f"{config}.toml")
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(f"{config}: expected a TOML file or one of the built-in configs: {', '.join(built_in_names())}")


def load(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The resolved config of a file (or a built-in name), each override ``a.b=value`` applied in turn.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a value out of range, a malformed override.
    """
    path = find(config)
    try:
        data = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return resolve(data, str(path), overrides)


def resolve(data: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Config:
    """The config of parsed TOML or JSON; `source` names it in errors. Raises ConfigError."""
    data = copy.deepcopy(data)
    for override in overrides:
        _apply(data, override)
    try:
        return Config.model_validate(_with_none(data))
    except ValidationError as error:
        raise ConfigError(f"{source}: {'; '.join(_describe(item) for item in error.errors())}") from None


def _with_none(value: Any) -> Any:
    """The same with None for the word ``none``, as TOML has nothing for it."""
    if isinstance(value, dict):
        return {key: _with_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_none(item) for item in value]
    return None if value == NONE else value


def drop_unknown(data: dict[str, Any]) -> list[str]:
    """Take the keys that are no settings (any more) out of parsed TOML or JSON, in place; their dotted names."""
    try:
        Config.model_validate(data)
    except ValidationError as error:
        unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
        return [_drop(data, loc) for loc in unknown]
    return []


def _drop(data: Any, loc: Sequence[int | str]) -> str:
    *parents, last = loc
    path: list[int | str] = []
    for name in parents:
        if isinstance(name, int) or name in data:  # else it names the kind of settings, as `grpo` does
            path, data = [*path, name], data[name]
    del data[last]
    return ".".join(map(str, [*path, last]))


def _apply(data: dict[str, Any], override: str) -> None:
    """Set one ``a.b=value`` in place; list items are addressed by number (``websites.0.role=unseen``)."""
    key, equals, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(f"--set {override}: expected section.key=value")
    node: Any = data
    try:
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
        node[int(last) if isinstance(node, list) else last] = _value(text.strip())
    except (ValueError, IndexError, TypeError, AttributeError):
        raise ConfigError(f"--set {override}: {key} names nothing that can be set") from None


def _value(text: str) -> Any:
    """A TOML value; what isn't one is taken as a string, so that names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _describe(error: Any) -> str:
    """One pydantic error as ``key: what was expected (got value)``."""
    key = ".".join(map(str, error["loc"])) or "config"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    return f"{key}: {message}" + (f" (got {value!r})" if isinstance(value, str | int | float | bool) else "")
