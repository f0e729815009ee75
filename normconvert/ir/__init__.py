"""The intermediate format: equations, norms, cells, layers, models, and their file."""
