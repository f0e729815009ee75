"""The command line: one module per verb, which reads options, calls the API and prints."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from normconvert.cli.lazy import LazyGroup
from normconvert.cli.output import printable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_INTERRUPTED = 130
_TERMINATED = 143


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(package_name="normconvert", message="%(prog)s %(version)s")
def cli() -> None:
    """Move recurrent networks with normalisation between frameworks, and prove that nothing changed."""


def main() -> None:
    """Run the command line and end the process: an error of ours becomes one line and its exit code."""
    from normconvert.errors import NormconvertError

    signal.signal(signal.SIGTERM, _stop)
    try:
        cli.main(prog_name="normconvert", standalone_mode=False)
    except NormconvertError as error:
        fail(str(error), error.exit_code)
    except click.exceptions.Abort:
        fail("interrupted", _INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "normconvert"
        fail(f"{error.format_message().rstrip('.')}. See '{command} --help'", error.exit_code)
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing left to say
        sys.exit(_TERMINATED)


def fail(message: str, exit_code: int) -> None:
    """Print one line on standard error and end the process."""
    click.echo("error: " + printable(" ".join(message.split())), err=True)
    sys.exit(exit_code)


def _stop(*_: Any) -> None:
    """End as on Ctrl-C, so that half-written files are removed."""
    sys.exit(_TERMINATED)
