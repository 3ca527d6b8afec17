"""The command line: reads words, calls one function, prints. Errors of the user are one line, exit code 2."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer

from genbench.cli import boards, judging, plugins, publishing, running, scoring
from genbench.errors import GenbenchError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Benchmark suite for generative image models: GANs and VAEs under one fixed budget, scored in one way.",
)  # fmt: skip
leaderboard = typer.Typer(no_args_is_help=True, help="Build leaderboards from the records of runs.")
judge = typer.Typer(no_args_is_help=True, help="Human judgement: a page that collects votes, and what they come to.")
extractor = typer.Typer(no_args_is_help=True, help="Train the in-domain classifiers whose features FID is computed in.")

app.command("list")(plugins.list_command)
app.command("run")(running.run_command)
app.command("sweep")(running.sweep_command)
app.command("evaluate")(scoring.evaluate_command)
app.add_typer(leaderboard, name="leaderboard")
leaderboard.command("build")(boards.build_command)
leaderboard.command("check")(publishing.leaderboard_check_command)
app.command("verify")(publishing.verify_command)
app.command("submit")(publishing.submit_command)
app.command("export")(publishing.export_command)
app.command("compare")(boards.compare_command)
app.add_typer(judge, name="judge")
judge.command("serve")(judging.serve_command)
judge.command("report")(judging.report_command)
judge.command("plan")(judging.plan_command)
judge.command("export")(judging.export_command)
judge.command("import")(judging.import_command)
app.command("new")(plugins.new_command)
app.command("check")(plugins.check_command)
app.command("doctor")(plugins.doctor_command)
app.add_typer(extractor, name="extractor")
extractor.command("train")(scoring.extractor_command)


def main() -> None:
    """Run the command line; exit codes: 0 all done, 1 some run failed, 2 the user's mistake, 130 interrupted."""
    signal.signal(signal.SIGTERM, _terminated)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # by nohup
        signal.signal(signal.SIGHUP, _terminated)
    try:
        app()
    except GenbenchError as error:
        _exit(f"genbench: {error}", 2)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != 130:  # typer's word for Ctrl-C
            raise
        _exit("genbench: interrupted; the same command resumes", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what was not written yet is not tried again at the end
        _exit(f"genbench: {error.filename or 'output'}: {error.strerror}", 1)


@app.callback(invoke_without_command=True)
def version_option(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Answer --version before any command."""
    if version:
        from genbench import __version__

        print(__version__)
        raise typer.Exit


def _terminated(number: int, frame: Any) -> NoReturn:
    """A scheduler that takes the machine back sends SIGTERM, a terminal that is closed SIGHUP: what runs is saved as at Ctrl-C."""
    raise KeyboardInterrupt


def _exit(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)
