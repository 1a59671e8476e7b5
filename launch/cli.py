"""The command line: ``python -m launch --help``.

Exit codes: 0 done; 1 the run failed, what was finished is kept; 2 the command or config can't be used, nothing was
written; 75 stopped by a signal after saving, to be queued again.
"""

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from launch import config as configs
from launch.books import LedgerError, Phase
from launch.config import Config, ConfigError
from launch.disk import full_disk_fails
from launch.errors import RunFailed, Stopped
from launch.ledger import Ledger, has_run

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 75
MAX_LINES = 40  # of a list on the terminal; files hold the whole

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False, help=__doc__)
starter_app = typer.Typer(no_args_is_help=True, help="The small model that runs without a GPU or a hub.")
app.add_typer(starter_app, name="starter")
out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)

ConfigArgument = Annotated[str, typer.Argument(help="A TOML file, or the name of a built-in config.", metavar="CONFIG")]
RunArgument = Annotated[str, typer.Argument(help="A run's directory, or its name under runs/.", metavar="RUN")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Set a key: `rollout.tasks_per_round=8`. May be repeated.")
]


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn the errors a user can do something about into one line each and an exit code."""
    from evaluator.labels import LabelError
    from evaluator.truth import NoGroundTruthError
    from launch.preflight import PreflightError
    from proposer.generate import ModelError

    try:
        with full_disk_fails():
            yield
    except PreflightError as error:
        _fail(EXIT_USAGE, *error.problems)
    except (ConfigError, LedgerError, LabelError, NoGroundTruthError) as error:
        _fail(EXIT_USAGE, str(error))
    except (RunFailed, ModelError) as error:
        _fail(EXIT_FAILED, str(error))
    except (Stopped, KeyboardInterrupt):
        _fail(EXIT_STOPPED, "stopped; what was finished is saved, go on with `python -m launch resume`")


def _fail(code: int, *lines: str) -> NoReturn:
    for line in lines:
        err.print(f"error: {line}", markup=False, highlight=False)
    raise typer.Exit(code)


def _run_dir(run: str) -> Path:
    candidates = (Path(run), Path("runs") / run)
    for path in candidates:
        if has_run(path):
            return path
    raise LedgerError(f"{run}: no run there, nor at {candidates[1]}")


@app.command()
def run(
    config: ConfigArgument,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved config as JSON and stop.")] = False,
    resume_ok: Annotated[bool, typer.Option("--resume-ok", help="Go on if the run was begun already.")] = False,
) -> None:
    """Run an experiment from its beginning.

    Examples:
    - `python -m launch run quickstart`

    - `python -m launch run quickstart --set run.name=second --set run.seed=1`

    - `python -m launch run my.toml --dry-run`
    """
    with _errors():
        resolved = configs.load(config, overrides or [])
        if dry_run:
            out.print_json(resolved.model_dump_json())
            return
        if has_run(resolved.run_dir):
            if not resume_ok:
                raise LedgerError(
                    f"{resolved.run_dir}: the run was begun already; go on with `python -m launch resume "
                    f"{resolved.run_dir}`, or begin another with `--set run.name=...`"
                )
            from launch.driver import check_config

            check_config(resolved)
        _execute(resolved)


@app.command()
def resume(run: RunArgument, overrides: SetOption = None) -> None:
    """Go on with a run where it was stopped or killed, also in the middle of a round.

    Examples:
    - `python -m launch resume quickstart`

    - `python -m launch resume runs/quickstart --set run.rounds=5` (a changed config is recorded in the run)
    """
    with _errors():
        from launch.driver import stored_config

        run_dir = _run_dir(run)
        config = stored_config(run_dir, overrides or [])
        if config.run_dir.resolve() != run_dir.resolve():
            raise ConfigError(f"{run_dir}: run.name and run.runs_dir are where the run is; move the directory")
        _execute(config)


@app.command("eval")
def evaluate(
    run: RunArgument,
    weights: Annotated[
        int | None, typer.Option(help="Version to measure; default: the newest promoted.", min=0)
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Measure one version of a run's weights on its own, in a run directory beside it.

    Examples:
    - `python -m launch eval quickstart --weights 0`

    - `python -m launch eval quickstart --set evaluation.num_tasks=500 --set evaluation.first_world=1000`
    """
    with _errors():
        from launch.driver import check_config, stored_config

        run_dir = _run_dir(run)
        with Ledger.open_readonly(run_dir) as books:
            versions = {row.version: (run_dir / row.path).resolve() for row in books.weights()}
            newest = max(row.version for row in books.promoted_weights())
        version = newest if weights is None else weights
        if version not in versions:
            raise LedgerError(f"{run_dir}: no weights {version}; expected one of {sorted(versions)}")
        if not versions[version].is_dir():
            kept = sorted(number for number, path in versions.items() if path.is_dir())
            raise LedgerError(f"{run_dir}: weights {version} are no longer kept ([retention]); expected one of {kept}")
        name = f"run.name={run_dir.resolve().name}-eval-v{version}"
        config = stored_config(run_dir, ["run.rounds=0", name, *(overrides or [])])
        if has_run(config.run_dir):
            check_config(config)
        _execute(config, versions[version])


@app.command()
def report(run: RunArgument) -> None:
    """Write the report of a run: one HTML file with curves and trajectories.

    Example: `python -m launch report quickstart`
    """
    with _errors():
        from launch.report import write_report

        out.print(str(write_report(_run_dir(run))))


@app.command()
def status(run: RunArgument) -> None:
    """Where a run stands: its driver, round and phase, episodes and verdicts, model servers, the last events.

    Example: `python -m launch status quickstart`
    """
    with _errors():
        from launch.status import describe

        for line in describe(_run_dir(run)):
            out.print(line, markup=False, highlight=False)


@app.command()
def propose(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Propose one round's tasks and print them, one JSON object per line; nothing is kept.

    Example: `python -m launch propose quickstart --set rollout.tasks_per_round=8`
    """
    with _errors():
        from launch.driver import propose_once

        resolved = configs.load(config, overrides or [])
        with tempfile.TemporaryDirectory(prefix="pae-propose-") as directory:
            updated = resolved.run.model_copy(update={"runs_dir": Path(directory)})
            tasks, rejections = propose_once(resolved.model_copy(update={"run": updated}))
        for task in tasks:
            typer.echo(task.model_dump_json())
        typer.echo(json.dumps({"kept": len(tasks), "rejected": rejections}), err=True)


@app.command()
def judge(run: RunArgument, overrides: SetOption = None) -> None:
    """Judge what a run's judge left without a verdict (after an outage); verdicts given stay.

    Example: `python -m launch judge quickstart`
    """
    with _errors():
        from launch.driver import judge_rest, stored_config

        num_judged = judge_rest(stored_config(_run_dir(run), overrides or []))
        out.print(f"{num_judged} new verdicts")


JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        help="`truth`, `URL#MODEL`, the directory of a starter or model, or a config; default: the config's own.",
        metavar="NEW",
    ),
]


@app.command()
def rejudge(run: RunArgument, judge: JudgeOption = None, overrides: SetOption = None) -> None:
    """Score a run's stored episodes with another judge and list what flips; the run itself stays as it is.

    Examples:
    - `python -m launch rejudge quickstart --judge http://127.0.0.1:8000/v1#qwen`

    - `python -m launch rejudge quickstart --set judge.num_votes=3 --set judge.quorum=2`
    """
    with _errors():
        from launch.driver import stored_config
        from launch.judging import judged_by
        from launch.rejudge import rejudge as judge_again

        run_dir = _run_dir(run)
        config = judged_by(stored_config(run_dir, []), judge, overrides or [])
        found = asyncio.run(judge_again(run_dir, config))
        for line in (*found.rounds, *found.flips[:MAX_LINES]):
            out.print(str(line), markup=False, highlight=False)
        _tell_rest(len(found.flips) - MAX_LINES, found.num_out)
        out.print(f"{len(found.flips)} flips by {found.judge}: {found.folder}", markup=False, highlight=False)


@app.command("judge-eval")
def judge_eval(
    labels: Annotated[Path, typer.Argument(help="A folder of labelled trajectories.", metavar="LABELS")],
    judge: JudgeOption = None,
    config: Annotated[
        str, typer.Option("--config", help="The config whose judge and settings are used.")
    ] = "quickstart",
    overrides: SetOption = None,
) -> None:
    """Score a judge on labelled trajectories: precision, recall, abstention, by site and task kind.

    Examples:
    - `python -m launch judge-eval labels`

    - `python -m launch judge-eval labels --judge http://127.0.0.1:8000/v1#qwen --set judge.num_screenshots=5`
    """
    with _errors():
        from evaluator.agreement import table
        from launch.judge_eval import judge_eval as evaluate_judge
        from launch.judging import judged_by

        found = asyncio.run(evaluate_judge(labels, judged_by(configs.load(config), judge, overrides or [])))
        for line in table(found.groups | {"all": found.overall}):
            out.print(line, markup=False, highlight=False)
        if found.unanimous.whole:
            out.print(f"votes all the same: {found.unanimous} %, n = {found.unanimous.whole}", markup=False)
        _tell_rest(0, found.num_out)
        out.print(f"{found.judge}, shares in % with 95 % intervals: {found.folder}", markup=False, highlight=False)


def _tell_rest(num_untold: int, num_out: int) -> None:
    if num_untold > 0:
        out.print(f"... and {num_untold} more")
    if num_out:
        err.print(f"no verdict on {num_out}: the judge was out; the same command asks again", highlight=False)


@app.command("export-labels")
def export_labels(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="OUT")],
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Also episodes of unknown outcome, to be labelled by hand.")
    ] = False,
) -> None:
    """Write a run's episodes of known outcome as labelled trajectories with their pictures.

    Example: `python -m launch export-labels quickstart labels`
    """
    with _errors():
        from launch.judge_eval import export_labels as export

        out.print(f"{export(_run_dir(run), folder, unlabelled=unlabelled)} trajectories: {folder}", highlight=False)


@app.command("convert-labels")
def convert_labels(
    annotations: Annotated[Path, typer.Argument(help="annotations.csv of AgentRewardBench.", metavar="ANNOTATIONS")],
    source: Annotated[Path, typer.Argument(help="The folder with its `trajectories`.", metavar="FOLDER")],
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="OUT")],
) -> None:
    """Write AgentRewardBench's annotated trajectories, downloaded before, as labelled trajectories.

    Example: `python -m launch convert-labels annotations.csv agent-reward-bench labels`
    """
    with _errors():
        from evaluator.reward_bench import convert

        out.print(f"{convert(annotations, source, folder)} trajectories: {folder}", highlight=False)


@app.command()
def clean(
    run: RunArgument,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be removed, and remove nothing.")] = False,
) -> None:
    """Remove what a run that nobody works on holds for nothing: unshown pictures, unfinished files, old weights.

    Examples:
    - `python -m launch clean quickstart --dry-run`

    - `python -m launch clean quickstart --set retention.keep_last=1`
    """
    with _errors():
        from launch.clean import find_waste, remove
        from launch.driver import stored_config

        run_dir = _run_dir(run)
        settings = stored_config(run_dir, overrides or []).retention
        with Ledger(run_dir) as ledger:
            found = find_waste(ledger, settings)
            if not dry_run:
                remove(ledger, settings, found)
        for waste in found:
            out.print(f"{waste} {'would be ' if dry_run else ''}removed", highlight=False)


@starter_app.command("build")
def build_starter(
    directory: Annotated[Path, typer.Option("--out", help="Where to put it.")] = Path("starter"),
) -> None:
    """Build the starter from its language model and the trained parts in rl/starter_parts: minutes, no training.

    Example: `python -m launch starter build`
    """
    with _errors():
        from rl.starter import build

        try:
            build(directory)
        except RuntimeError as error:
            raise RunFailed(str(error)) from error
        out.print(str(directory))


@starter_app.command("train")
def train_starter(
    work: Annotated[Path, typer.Option(help="Where demonstrations are kept; a second call goes on from there.")] = Path(
        "runs/starter"
    ),
    seed: Annotated[int, typer.Option(help="Of the choice of lessons and their order.", min=0)] = 0,
    only: Annotated[str | None, typer.Option(help="Train one part only: policy, judge or proposer.")] = None,
) -> None:
    """Train the parts in rl/starter_parts again, from scripted demonstrations of the practice sites.

    Example: `python -m launch starter train`
    """
    if only not in (None, "policy", "judge", "proposer"):
        raise typer.BadParameter(f"{only}: expected policy, judge or proposer", param_hint="--only")
    with _errors():
        from rl.starter import ROLES, Recipe, make_parts

        logging.basicConfig(level=logging.INFO, handlers=[RichHandler(console=err, show_path=False)], force=True)
        out.print_json(json.dumps(make_parts(work, Recipe(seed=seed), roles=[only] if only else ROLES)))


def _execute(config: Config, first: Path | None = None) -> None:
    """Run or go on; then the table and the report."""
    from launch import driver, summary

    with driver.open_books(config, first) as ledger:
        _log_to(ledger.run_dir / "logs" / "driver.log")
        out.print(f"{ledger.run_dir}: {driver.where(ledger, config)}")
        if not driver.is_done(ledger, config):
            with _progress() as watch:
                driver.drive(config, ledger, watch)
        out.print(summary.table(summary.summarise(ledger)))
        out.print(f"report: {_report(ledger.run_dir)}")


def _report(run_dir: Path) -> Path:
    from launch.report import write_report

    return write_report(run_dir)


class _LogFile(logging.FileHandler):
    """A log that lets a line go when the disk has no room for it, instead of a traceback on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _log_to(path: Path) -> None:
    """Everything from INFO into the file, warnings onto the terminal too."""
    to_file = _LogFile(path)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_terminal = RichHandler(console=err, level=logging.WARNING, show_path=False)
    to_terminal.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_terminal], force=True)
    for name in ("httpx", "httpx2"):  # one line per request otherwise
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, Phase, int, int], None]]:
    """Progress bars, one per round and phase."""
    columns = (TextColumn("round {task.fields[round]} {task.description}"), BarColumn(), MofNCompleteColumn())
    bars: dict[tuple[int, Phase], TaskID] = {}
    with Progress(*columns, TimeElapsedColumn(), console=err) as progress:

        def watch(round: int, phase: Phase, done: int, wanted: int) -> None:
            if (round, phase) not in bars:
                bars[round, phase] = progress.add_task(phase, round=round, total=wanted)
            progress.update(bars[round, phase], completed=done, total=wanted)

        yield watch
