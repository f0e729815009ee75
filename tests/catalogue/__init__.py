"""Published normalised cells as equations, each beside a plain evaluation of what its source computes.

An entry is named after the cell's place in the catalogue of public cells: a section's letter and a number, then
the repository or paper. The references share no code with normconvert.
"""

from __future__ import annotations

from catalogue import batch_lstm, batch_other, gru, layer_lstm, layer_lstm_torch, plain, reparametrised
from catalogue.entry import Entry

MODULES = (batch_lstm, batch_other, layer_lstm, layer_lstm_torch, gru, reparametrised, plain)
ENTRIES: tuple[Entry, ...] = tuple(entry for module in MODULES for entry in module.ENTRIES)
