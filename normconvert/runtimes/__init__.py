"""Running a model: the interpreter, the artefacts of each target, and the framework that wrote the source."""
