"""The TF1 target: a V2 checkpoint that `tf.train.Saver` restores, its cells in the layouts of public code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Array, Model
from normconvert.targets.layouts import record
from normconvert.targets.layouts.choosing import Chosen
from normconvert.targets.layouts.keeping import Names
from normconvert.targets.layouts.model import Naming, restore_model, store_model
from normconvert.targets.layouts.storing import STEP
from normconvert.targets.tf1.bundle import write_bundle

PREFIX = "model.ckpt"
"""What the files of the checkpoint are called."""

_ROLES = {"mean": "moving_mean", "variance": "moving_variance"}


def _arrange(layer: AnyLayer, role: str, array: Array) -> tuple[str, Array]:
    head, dot, last = role.rpartition(".")
    return f"{head.replace('.', '/')}{'/' if dot else ''}{_ROLES.get(last, last)}", array


def _tensor(scope: str, tensor: str, chosen: Chosen, side: str) -> str:
    name = "/".join(filter(None, [scope, _SIDES[side], tensor]))
    return f"{name}[0]" if STEP in tensor and chosen.family.name in _IN_ROWS else name


_SIDES = {"": "", "forward": "fw", "backward": "bw"}
"""As `tf.nn.bidirectional_dynamic_rnn` calls them."""

_IN_ROWS = {"bn_lstm_sonnet_indexed"}
"""Families whose statistics of one time step are stored as `[1, features]`, as Sonnet's BatchNorm has them."""


def _step(name: str, row: int) -> str:
    """Of a name that the graph is asked for again and again, the first copy is not numbered."""
    return (name.replace(f"_{STEP}", "") if row == 0 else name).replace(STEP, str(row))


NAMING = Naming("tf1", "/", _arrange, lambda layer, role, array: array, _tensor, _step)


def write_checkpoint(
    model: Model, folder: Path, *, layout: str = "", scope: str = "", names: Names | None = None
) -> None:
    """Write a checkpoint `model.ckpt` with its layouts, and the file by which `tf.train.latest_checkpoint` finds it.

    TensorFlow is not imported. Arguments and errors are those of `targets.layouts.model.store_model`.

    Args:
        model: what to write.
        folder: an existing, empty folder.
    """
    stored = store_model(model, NAMING, layout=layout, scope=scope, names=names)
    write_bundle(folder / PREFIX, stored.tensors)
    (folder / "checkpoint").write_text(
        f'model_checkpoint_path: "{PREFIX}"\nall_model_checkpoint_paths: "{PREFIX}"\n', encoding="utf-8"
    )
    record.write(stored.record, folder / record.NAME)


def read_back(model: Model, folder: Path, variables: Mapping[str, Array]) -> Model:
    """The model with what the variables of its checkpoint hold."""
    return restore_model(model, record.read(folder / record.NAME), variables, NAMING)
