"""What all layers have in common that Keras does not have."""

import keras


class Declared(keras.layers.Layer):
    """A layer whose configuration says what it computes, so that the file can be read without this code.

    Args:
        declaration: the layer in the words of normconvert's format, as JSON; kept as it is.
    """

    def __init__(self, *, declaration=None, **options):
        super().__init__(**options)
        self.declaration = declaration

    def get_config(self):
        return {**super().get_config(), "declaration": self.declaration}
