"""The command line: ``python -m launch --help``.

Exit codes: 0 done; 1 the run failed, what was finished is kept; 2 the command or config can't be used, nothing was
written; 75 stopped by a signal after saving, to be queued again.
"""

import asyncio
import contextlib
import functools
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from launch import config as configs
from launch.books import DamagedError, LedgerError, Phase
from launch.config import Config, ConfigError
from launch.disk import full_disk_fails
from launch.errors import RunFailed, Stopped
from launch.ledger import Ledger, has_run

if TYPE_CHECKING:
    from launch.suite import Chosen

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
    from policy.browser_settings import BrowserError
    from proposer.generate import ModelError
    from proposer.task_files import TaskFileError
    from rl.manifest import ManifestError

    try:
        with full_disk_fails():
            yield
    except (RunFailed, ModelError, BrowserError, DamagedError, ManifestError) as error:
        _fail(EXIT_FAILED, str(error))
    except PreflightError as error:
        _fail(EXIT_USAGE, *error.problems)
    except (ConfigError, LedgerError, LabelError, NoGroundTruthError, TaskFileError) as error:
        _fail(EXIT_USAGE, str(error))
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


@app.command()
def fork(
    run: RunArgument,
    new: Annotated[str, typer.Argument(help="A new run's directory, or its name beside RUN.", metavar="NEW")],
    k: Annotated[int, typer.Option("--round", help="The round in which it branches off.", min=1)],
    before: Annotated[Phase, typer.Option(help="propose, rollout, judge or seal: what is done anew from there on.")],
    overrides: SetOption = None,
) -> None:
    """Branch a run off another one: it has the same up to a phase of a round, and goes on with a changed config.

    For comparing on the very same tasks, attempts or verdicts. RUN stays as it is.

    Examples:
    - `python -m launch fork quickstart grpo --round 1 --before seal --set learner.algorithm.name=grpo`

    - `python -m launch fork quickstart three-votes --round 1 --before judge --set judge.num_votes=3`
    """
    with _errors():
        from launch.fork import fork as branch_off

        run_dir = _run_dir(run)
        target = Path(new) if len(Path(new).parts) > 1 else run_dir.resolve().with_name(new)
        branch_off(run_dir, target, k, before, overrides or [])
        out.print(f"{target}: go on with `python -m launch resume {target}`", markup=False, highlight=False)


@app.command("eval")
def evaluate(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run's directory, or its name; with --suite also none: the config's starter.", metavar="RUN"
        ),
    ] = None,
    weights: Annotated[
        int | None, typer.Option(help="Version to measure; default: the newest promoted.", min=0)
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="A benchmark suite: webvoyager, webarena, mind2web, or one of BrowserGym's (miniwob)."),
    ] = None,
    tasks: Annotated[Path | None, typer.Option(help="The suite's task file; BrowserGym's need none.")] = None,
    places: Annotated[
        list[str] | None, typer.Option("--place", help="Where a site of the file is: `SHOPPING=http://...`.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Of each task of a BrowserGym suite so many.", min=1)] = 1,
    only: Annotated[str, typer.Option(help="Only tasks of a BrowserGym suite whose name holds this.")] = "",
    config: Annotated[str, typer.Option("--config", help="Used with --suite where no run is given.")] = "quickstart",
    overrides: SetOption = None,
) -> None:
    """Measure one version of a run's weights on its own, in a run directory beside it, or on a benchmark suite.

    Examples:
    - `python -m launch eval quickstart --weights 0`

    - `python -m launch eval quickstart --set evaluation.num_tasks=500 --set evaluation.first_world=1000`

    - `python -m launch eval --suite miniwob --only click-`

    - `python -m launch eval quickstart --suite webarena --tasks test.json --place SHOPPING=http://127.0.0.1:7770`
    """
    with _errors():
        if suite is not None:
            from launch.suite import Chosen

            chosen = Chosen(tasks, places or [], seeds, only)
            _evaluate_suite(suite, run, weights, config, overrides or [], chosen)
        elif run is None:
            raise ConfigError("eval: expected a run, or --suite")
        else:
            _evaluate_run(run, weights, overrides or [])


def _version(run: str, weights: int | None) -> tuple[Path, int, Path]:
    """A run's directory, a version of its weights (None: the newest promoted), and where that is."""
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
    return run_dir, version, versions[version]


def _evaluate_run(run: str, weights: int | None, overrides: list[str]) -> None:
    from launch.driver import check_config, stored_config

    run_dir, version, directory = _version(run, weights)
    name = f"run.name={run_dir.resolve().name}-eval-v{version}"
    config = stored_config(run_dir, ["run.rounds=0", name, *overrides])
    if has_run(config.run_dir):
        check_config(config)
    _execute(config, directory)


def _evaluate_suite(
    suite: str, run: str | None, weights: int | None, config_name: str, overrides: list[str], chosen: "Chosen"
) -> None:
    from launch import suite as suites
    from launch.driver import stored_config
    from launch.made_with import check_model

    if run is None:
        config = configs.load(config_name, overrides)
        directory, name = config.model.directory("policy").resolve(), config.run.name
    else:
        run_dir, version, directory = _version(run, weights)
        config = stored_config(run_dir, overrides)
        name = f"{config.run.name}-v{version}"
    check_model(directory)
    folder = config.run.runs_dir / f"{name}-suite-{suite}"
    with suites.chosen_tasks(suite, chosen) as tasks:
        suites.keep_apart(folder, config, directory)
        with _progress() as watch:
            told = functools.partial(watch, 0, Phase.EVAL)
            found = asyncio.run(suites.evaluate(config, directory, tasks, folder, told))
    for kind, share in (found.kinds | {"all": found.overall}).items():
        out.print(f"{kind}: {share} %, n = {share.whole}", markup=False, highlight=False)
    out.print(f"{found.outcomes}, {found.num_open} open: {found.folder}", markup=False, highlight=False)


@app.command()
def settings(
    prefix: Annotated[
        str, typer.Argument(help="A table: what is in it and within; default: all.", metavar="PREFIX")
    ] = "",
) -> None:
    """Print every key that a config may hold, as Markdown: type, limits, default and meaning.

    Examples:
    - `python -m launch settings`

    - `python -m launch settings rollout.browser`
    """
    with _errors():
        from launch.settings import reference

        typer.echo(reference(prefix))


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


@app.command()
def replay(
    source: Annotated[str, typer.Argument(help="A run, or a folder of labelled trajectories.", metavar="SOURCE")],
    episode: Annotated[str, typer.Argument(help="The episode's id, or its beginning.", metavar="EPISODE")],
    config: Annotated[str, typer.Option("--config", help="The config whose `rollout.browser` is used.")] = "quickstart",
    overrides: SetOption = None,
) -> None:
    """Do a recorded episode's actions again in a fresh world, and tell where what comes of them first differs.

    A run's own config is used; `--config` is for folders. Exit code 0: nothing differs; 1: something does.

    Examples:
    - `python -m launch replay quickstart 1-5f0e`

    - `python -m launch replay demonstration price`
    """
    with _errors():
        from launch.replay import find_in_folder, find_in_run, replay_once

        if Path(source).is_dir() and not has_run(Path(source)) and not has_run(Path("runs") / source):
            trajectory, settings = find_in_folder(Path(source), episode, config, overrides or [])
        else:
            trajectory, settings = find_in_run(_run_dir(source), episode, overrides or [])
        found = asyncio.run(replay_once(trajectory, settings, lambda line: err.print(line, markup=False)))
        if found:
            raise RunFailed(f"{trajectory.id}: {found}")
        out.print(f"{trajectory.id}: {len(trajectory.steps)} steps, nothing differs", markup=False, highlight=False)


@app.command()
def record(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="OUT")],
    gold: Annotated[str | None, typer.Option(help="A gold task of a practice site, by id.")] = None,
    url: Annotated[str | None, typer.Option(help="Any website: where to begin.")] = None,
    task: Annotated[str | None, typer.Option(help="What is to be done there.")] = None,
    hosts: Annotated[list[str] | None, typer.Option("--host", help="Another host that may be reached.")] = None,
    config: Annotated[
        str, typer.Option("--config", help="The config whose `rollout.browser` and `rollout.agent` are used.")
    ] = "quickstart",
    overrides: SetOption = None,
) -> None:
    """Record a demonstration: do a task in a browser window; every step becomes one of the agent's actions.

    What can't be done on the page is written on the terminal: `Answer; $12` (which ends it), `GoBack`, `Home`, `Wait`.

    Examples:
    - `python -m launch record demonstration --gold shop/train-1/find_price-0`

    - `python -m launch record demonstration --url https://example.com/ --task "Find the contact address."`
    """
    if (gold is None) == (url is None) or (url is None) != (task is None):
        raise typer.BadParameter("expected either --gold, or --url and --task")
    with _errors():
        from launch import record as recording
        from proposer.task import Task, Website

        recording.check_screen()
        if gold is not None:
            wanted = recording.gold(gold)
        else:
            website = Website(name=urlsplit(url or "").hostname or "", url=url or "", allowed_hosts=tuple(hosts or ()))
            wanted = Task(website=website, instruction=task or "")
        out.print(wanted.instruction, markup=False, highlight=False)
        out.print("In the window, or here: Answer; what was asked (ends it), GoBack, Home, Wait", markup=False)
        rollout, lines = configs.load(config, overrides or []).rollout, recording.terminal_lines()
        tell = functools.partial(out.print, markup=False, highlight=False)
        trajectory = asyncio.run(recording.record(wanted, folder, rollout, lines, tell))
        out.print(f"{trajectory.id}: {len(trajectory.steps)} steps: {folder}", markup=False, highlight=False)


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
    """Run or go on; then the table and the report. Of a finished run these alone: nothing else need be there."""
    from launch import driver, preflight, summary

    if not driver.is_finished(config):
        preflight.check(config)
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
