"""Numbers for dashboards: ``metrics.jsonl`` in the run directory, and Weights & Biases as a copy of it.

In: a round's metrics, and the optimizer steps that a learner has logged (rl/steplog.py). Out: one JSON object per round
and line, and both as a wandb run, each against rounds: half-way through round 3's update stands at 2.5. wandb can't
resume an offline run, so every start opens a fresh wandb run in the same group and replays the files: the newest wandb
run is always complete.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from launch.books import weights_path
from policy.files import append_line, cut_torn_line
from rl.steplog import OptimizerStep, read_steps

if TYPE_CHECKING:
    import wandb

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
ROUND, STEP = "round", "optimizer/round"
"""What wandb draws metrics over: a round's, and an optimizer step's."""
SHOWN_OF_STEP = ("loss", "grad_norm", "lr", "tokens")
INIT_TIMEOUT_S = 30  # for wandb's server to answer; the run waits that long once, at its start


class TrackingSettings(BaseModel):
    """Weights & Biases, next to the metrics file that is always written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """``auto``: online if WANDB_API_KEY is set, else offline. `wandb sync` uploads what lies in ``<run>/wandb``."""
    project: str = "pae"
    """wandb project; the run's name is the group, so that all starts of a run stand together."""
    entity: str | None = None
    """wandb team or user; None: the default of the key's owner."""

    @property
    def mode(self) -> Literal["online", "offline", "off"]:
        """What ``auto`` comes to in this environment."""
        if self.wandb == "auto":
            return "online" if os.environ.get("WANDB_API_KEY") else "offline"
        return self.wandb


class Tracker:
    """Writes the metrics file and feeds wandb; wandb's failures are logged once and never end the run."""

    def __init__(self, run_dir: Path, settings: TrackingSettings, config: Mapping[str, Any]) -> None:
        """Open the metrics file of a run (mending a torn last line) and replay it into a fresh wandb run.

        `config` is shown in wandb as it is: it must hold names of secrets only, never secrets.
        """
        self._path = run_dir / METRICS
        cut_torn_line(self._path)
        self._wandb: wandb.Run | None = None
        self._axes: set[str] = set()
        self._num_sent: Counter[int] = Counter()
        if settings.mode != "off":
            self._guard(lambda: self._open_wandb(run_dir, settings, config))
        for round, metrics in read_metrics(run_dir).items():
            self.log_steps(round, read_steps(run_dir / weights_path(round)))
            self._send(ROUND, round, metrics)

    def log(self, round: int, metrics: Mapping[str, float]) -> None:
        """Record a round's metrics; recorded again (after a resume), the last ones count."""
        append_line(self._path, json.dumps({"round": round, **metrics}))
        self._send(ROUND, round, metrics)

    def log_steps(self, round: int, steps: Sequence[OptimizerStep]) -> None:
        """Show those of a round's optimizer steps that wandb doesn't have yet."""
        for step in steps[self._num_sent[round] :]:
            place = round - 1 + step.step / step.total
            self._send(STEP, place, {f"optimizer/{key}": getattr(step, key) for key in SHOWN_OF_STEP})
        self._num_sent[round] = len(steps)

    def finish(self) -> None:
        """Close the wandb run."""
        if run := self._wandb:
            self._guard(run.finish)
            self._wandb = None

    def __enter__(self) -> Self:
        """The tracker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the wandb run."""
        self.finish()

    def _open_wandb(self, run_dir: Path, settings: TrackingSettings, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import; offline means no connection at all
        import wandb

        self._wandb = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=run_dir.name,
            name=run_dir.name,
            dir=run_dir,
            mode="online" if settings.mode == "online" else "offline",
            config=dict(config),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", save_code=False, disable_git=True, init_timeout=INIT_TIMEOUT_S
            ),
        )

    def _send(self, axis: str, place: float, metrics: Mapping[str, float]) -> None:
        """To wandb, to be drawn over an axis of ours: its own, the number of calls, would mix rounds with steps."""
        run = self._wandb
        if run is None:
            return

        def send() -> None:
            for key in metrics.keys() - self._axes:
                run.define_metric(key, step_metric=axis)
                self._axes.add(key)
            run.log({axis: place, **metrics})

        self._guard(send)

    def _guard(self, call: Callable[[], None]) -> None:
        """Call wandb; if it fails, say so and go on without it."""
        from wandb.errors import Error as WandbError

        try:
            call()
        except (WandbError, OSError) as error:  # OSError: its background process is gone
            logger.warning("wandb gave up, %s goes on without it: %s", self._path.name, error)
            self._wandb = None


def read_metrics(run_dir: Path) -> dict[int, dict[str, float]]:
    """Metrics by round, rounds ascending; of several records of a round the last. Empty if there is no file."""
    path = run_dir / METRICS
    if not path.is_file():
        return {}
    whole_lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    records = [json.loads(line) for line in whole_lines]
    last = {record.pop("round"): record for record in records}
    return dict(sorted(last.items()))
