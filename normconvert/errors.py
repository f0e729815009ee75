"""The errors a user can meet: what went wrong, where, and what to do next.

Every class carries the process exit code that the command line returns for it.
"""

from __future__ import annotations


class NormconvertError(Exception):
    """Base of every error that is reported in one line, without a traceback.

    Args:
        what: what went wrong, a sentence without a final full stop.
        where: the place: file, layer, tensor, or line and column. May be empty.
        remedy: what the user can do next. May be empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        stop = "" if self.what.endswith((".", "?")) else "."
        advice = f"{stop} {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{advice}"

    def at(self, where: str) -> NormconvertError:
        """The same error with an enclosing place (a file, a layer) put in front of its own."""
        place = f"{where}: {self.where}" if self.where else where
        error = type(self).__new__(type(self))
        NormconvertError.__init__(error, self.what, where=place, remedy=self.remedy)
        return error


class NotEquivalent(NormconvertError):
    """Two models do not compute the same function (exit code 1)."""

    exit_code = 1


class UsageError(NormconvertError):
    """The request itself cannot be carried out: options, recipe, output path (exit code 2)."""

    exit_code = 2


class EquationError(UsageError):
    """An equation that does not parse or does not fit together; `where` holds line and column."""


class Unsupported(NormconvertError):
    """A layer, cell or option the toolkit does not know; names what would be needed (exit code 3)."""

    exit_code = 3


class CorruptFile(NormconvertError):
    """A file that is damaged, unsafe, or not what its name says (exit code 4)."""

    exit_code = 4


class MissingRuntime(NormconvertError):
    """A framework that is not installed; names the extra that brings it (exit code 5)."""

    exit_code = 5
