"""Runs a converted PyTorch folder on a recorded input and prints how far it is from the recorded Keras output.

python scripts/compare_recorded.py FOLDER RECORDED.npz
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch


def main(folder: str, recorded: str) -> None:
    spec = importlib.util.spec_from_file_location("converted", Path(folder) / "model.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder}: no model.py")
    converted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converted)
    arrays = np.load(recorded)
    with torch.no_grad():
        ours = converted.load()(torch.from_numpy(arrays["x"])).numpy()
    for name, values in (("Keras", arrays["y"]), ("PyTorch", ours)):
        print(f"{name:8}", np.array2string(values.ravel()[:6], precision=7))
    print(f"largest difference {np.abs(ours - arrays['y']).max():.1e}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
