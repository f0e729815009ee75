"""A written checkpoint as TensorFlow restores it, to be proven."""

from __future__ import annotations

from pathlib import Path

from normconvert.errors import NotEquivalent
from normconvert.ir.model import Model
from normconvert.runtimes import tf1_saver
from normconvert.runtimes.interpreted import Interpreted
from normconvert.sources.tf1.bundle import open_bundle
from normconvert.targets.layouts import record
from normconvert.targets.tf1 import PREFIX, read_back

READ_BACK = "TensorFlow is not installed, so that no tf.train.Saver restored the checkpoint; normconvert read it back"
"""What a report says of a proof without TensorFlow."""


def runner(model: Model, folder: Path) -> Interpreted:
    """The model with what `tf.train.Saver` restores, each variable compared bit by bit with the file.

    Without TensorFlow the variables are those that our own reader finds.

    Args:
        model: what the checkpoint is compared with.
        folder: an artefact of this target.

    Raises:
        NotEquivalent: TensorFlow restores another value; names the variable.
        RunError: TensorFlow does not restore the checkpoint at all.
    """
    bundle = open_bundle(folder / PREFIX)
    stored = {name: bundle.load(name) for name in bundle.variables}
    told = record.read(folder / record.NAME).notes
    if not tf1_saver.is_installed():
        title = "the checkpoint, read back, in the interpreter"
        return Interpreted(read_back(model, folder, stored), title, remarks=(READ_BACK, *told))
    restored = tf1_saver.restore(folder / PREFIX, stored)
    for name, array in stored.items():
        if restored.tensors[name].tobytes() != array.tobytes():
            raise NotEquivalent("tf.train.Saver restores another value than was written", where=f"variable {name}")
    saver = f"tf.train.Saver of TensorFlow {restored.versions['tensorflow']}"
    return Interpreted(
        read_back(model, folder, restored.tensors),
        f"the checkpoint as {saver} restores it, in the interpreter",
        restored.versions,
        (f"{saver} restores all {len(stored)} variables bit for bit", *told),
    )
