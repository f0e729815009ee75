"""A group whose commands are imported when they are used, so that `--help` is quick."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

NO_READER = 141
"""Exit code where standard output is a pipe that nobody reads any more."""

SOURCES = (
    "keras",
    "tf1",
    "torch",
    "ir",
)
TARGETS = ("torch", "torchscript", "export", "onnx", "keras", "keras-h5", "tf", "tf1", "state-dict", "ir")
"""Names of `normconvert.targets.TARGETS`, here again so that `--help` need not import them."""

PAIRS = tuple(f"{source}-to-{target}" for source in SOURCES for target in TARGETS if (source, target) != ("ir", "ir"))
"""Shortcuts: `A-to-B` is `convert --from A --to B`."""

_HELP = {
    "convert": "Convert a model and prove the result.",
    "inspect": "Show a model's layers, parameters and cells.",
    "plan": "Show what a conversion would use, ignore and assume, as a recipe to edit.",
    "validate": "Compare two models; exit code 1 if they differ.",
    "diff": "Show what differs between two models; exit code 1 if they are not the same.",
    "bench": "Measure how long a model takes in each runtime.",
    "cells": "The known cells and their equations.",
}


class LazyGroup(click.Group):
    """Commands `NAME` live in `normconvert.cli.NAME` as `command`; pairs are made from `convert`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs first, then pairs."""
        return [*_HELP, *PAIRS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a verb, or make the command of a pair."""
        if cmd_name in PAIRS:
            pair: click.Command = import_module("normconvert.cli.convert").pair_command(cmd_name)
            return pair
        if cmd_name in _HELP:
            command: click.Command = import_module(f"normconvert.cli.{cmd_name}").command
            return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; click itself would end with 1, the code of a failed proof, where the reader has gone."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise SystemExit(NO_READER) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))
        with formatter.section("Pairs, each an alias: A-to-B is 'convert --from A --to B'"):
            formatter.write_dl([(f"{source}-to-...", ", ".join(_targets_of(source))) for source in SOURCES])


def _targets_of(source: str) -> list[str]:
    return [to for each, to in (pair.split("-to-") for pair in PAIRS) if each == source]
