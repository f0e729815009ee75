"""Plain PyTorch building blocks, copied into the models that need them.

These files are read as text by `targets.torch.library`, never imported by the toolkit itself: a generated
`model.py` holds the source of the classes it uses and stands alone. They are ordinary modules so that they can be
linted, type-checked and tested like any other code. Each works under `torch.jit.script` and `torch.export`.
"""
