"""Restores a checkpoint in a process of its own: `python -m normconvert.runtimes.tf1_saver_worker FOLDER`.

`framework_process.py` says what the folder holds. Answers are the bytes of each variable, by its number in the request.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


class RestoreError(Exception):
    """The checkpoint is not the one that was asked for."""


def main(folder: Path) -> None:
    """Answer the request in a folder: `prefix` (path), `variables` (name, dtype and shape of each)."""
    import tensorflow as tf

    request = json.loads((folder / "request.json").read_text())
    names = {name for name, _, _ in request["variables"]}
    found = {name for name, _ in tf.train.list_variables(request["prefix"])}
    if names != found:
        raise RestoreError(f"the checkpoint and the request differ in {sorted(names ^ found)[0]}")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(
                name, shape, tf.as_dtype(dtype), initializer=tf.compat.v1.zeros_initializer(), use_resource=False
            )
            for name, dtype, shape in request["variables"]
        ]
        tf.compat.v1.train.Saver(variables).restore(session, request["prefix"])
        values = session.run(variables)
    answers = {str(number): np.frombuffer(value.tobytes(), np.uint8) for number, value in enumerate(values)}
    np.savez(folder / "outputs.npz", **answers)  # type: ignore[arg-type]
    (folder / "reply.json").write_text(json.dumps({"tensorflow": str(tf.__version__)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
