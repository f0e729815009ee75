"""The command line: one module per verb, which reads options, calls the API and prints."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from normconvert.cli.lazy import NO_READER, LazyGroup
from normconvert.cli.output import printable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_INTERRUPTED = 130
_TERMINATED = 143
_LONGEST = 1000


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(package_name="normconvert", message="%(prog)s %(version)s")
def cli() -> None:
    """Move recurrent networks with normalisation between frameworks, and prove that nothing changed."""


def main() -> None:
    """Run the command line and end the process: an error of ours becomes one line and its exit code."""
    from normconvert.errors import CorruptFile, NormconvertError, UsageError

    signal.signal(signal.SIGTERM, _stop)
    try:
        cli.main(prog_name="normconvert", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except NormconvertError as error:
        fail(str(error), error.exit_code)
    except click.exceptions.Abort:
        fail("interrupted", _INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "normconvert"
        usage = UsageError(error.format_message().rstrip("."), remedy=f"See '{command} --help'")
        fail(str(usage), error.exit_code)
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except BrokenPipeError:
        _silence()
        sys.exit(NO_READER)
    except MemoryError:
        fail("the model needs more memory than there is", CorruptFile.exit_code)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        _silence()
        sys.exit(NO_READER)
    except OSError as error:
        _silence()
        fail(
            f"{error.filename or 'the output'}: cannot be read or written ({error.strerror})",
            click.UsageError.exit_code,
        )


def fail(message: str, exit_code: int) -> None:
    """Print one line on standard error and end the process; of a very long message the beginning and the end."""
    line = printable(" ".join(message.split()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    click.echo(f"error: {line}", err=True)
    sys.exit(exit_code)


def _silence() -> None:
    """Nothing more goes to standard output, what is still buffered neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(*_: Any) -> None:
    """End as on Ctrl-C, so that half-written files are removed."""
    sys.exit(_TERMINATED)
