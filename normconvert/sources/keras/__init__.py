"""Keras files, read with h5py, zipfile and a JSON decoder: Keras itself is never imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from normconvert.cells import Family, read_family
from normconvert.errors import CorruptFile, NormconvertError, UsageError
from normconvert.sources.keras import saved_model
from normconvert.sources.keras.container import Container, opened
from normconvert.sources.keras.inference import infer_recipe
from normconvert.sources.keras.reader import dialect_for, read_container
from normconvert.sources.keras.recipe import Recipe, read_recipe
from normconvert.sources.keras.recipe_writer import write_recipe
from normconvert.sources.reading import Assumption, Plan, ReadResult, TensorUse


def read(
    path: Path, *, config: Path | None = None, recipe: Path | None = None, define: Mapping[str, Path] | None = None
) -> ReadResult:
    """Read a Keras model of any version.

    Args:
        path: `.h5`, `.hdf5`, `.keras`, `.weights.h5`, a zip that holds one of them, or the folder of a SavedModel.
        config: the architecture JSON of a file of weights.
        recipe: a TOML recipe that gives the architecture, and the files of cells it defines.
        define: files that describe the user's own cell and layer classes, by class name.

    Raises:
        CorruptFile: the file is damaged, unsafe, or does not fit its configuration.
        Unsupported: a layer that is unknown or would need to run code.
        UsageError: the architecture is missing, or a recipe or definition cannot be read.
    """
    given = None if recipe is None else read_recipe(recipe)
    paths = {**({} if given is None else given.define), **(define or {})}
    families = {name: read_family(file) for name, file in paths.items()}
    options = {"config": config, "recipe": recipe, **{f"define {name}": file for name, file in paths.items()}}
    with saved_model.opened(path) if is_saved_model(path) else opened(path, config) as container:
        if given is not None:
            container = _with_recipe(container, given)
        try:
            return _read(container, families, {name: file.name for name, file in options.items() if file is not None})
        except NormconvertError as error:
            raise error if error.where.startswith(container.place) else error.at(container.place) from None
        except RecursionError:
            raise CorruptFile("the configuration is nested too deeply", where=container.place) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise CorruptFile(
                f"the configuration does not make sense ({type(error).__name__}: {error})", where=container.place
            ) from error


def is_saved_model(path: Path) -> bool:
    """Whether a path is the folder of a SavedModel."""
    return (path / saved_model.GRAPH).is_file()


def plan(
    path: Path, *, config: Path | None = None, recipe: Path | None = None, define: Mapping[str, Path] | None = None
) -> Plan:
    """How a file is or would be read; arguments and errors as in `read`.

    For weights without an architecture the plan's recipe is what their names and shapes suggest, and no array is
    used yet.
    """
    if config is None and recipe is None and not is_saved_model(path):
        with opened(path) as container:
            if container.config is None:
                return _suggestion(container)
    return read(path, config=config, recipe=recipe, define=define).plan


def _read(container: Container, define: Mapping[str, Family], options: Mapping[str, str]) -> ReadResult:
    reading = read_container(container, define, options)
    assert container.config is not None
    recipe = write_recipe(container.config, dialect_for(container), container.backend)
    return ReadResult(reading.model, Plan(reading.tensors, reading.assumptions, recipe))


def _with_recipe(container: Container, recipe: Recipe) -> Container:
    """The container with the recipe's architecture in place of its own."""
    if recipe.config is None:
        return container
    return replace(
        container,
        config=recipe.config,
        version=recipe.version or container.version,
        backend=recipe.backend or container.backend,
    )


def _suggestion(container: Container) -> Plan:
    tensors = tuple(
        TensorUse(stored.name, stored.shape, stored.dtype, "", "no architecture yet")
        for stored in container.file.arrays.values()
    )
    if not tensors:
        raise UsageError("holds no arrays", where=container.place)
    assumption = Assumption(
        "The layers and their order are inferred from the names and shapes of the arrays",
        "lines marked '# assumed' are to be checked",
    )
    return Plan(tensors, (assumption,), infer_recipe(container))
