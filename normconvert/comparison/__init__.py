"""The semantic difference of two models, whatever frameworks they come from."""

from normconvert.comparison.models import compare
from normconvert.comparison.reading import diff
from normconvert.comparison.records import Difference

__all__ = ["Difference", "compare", "diff"]
