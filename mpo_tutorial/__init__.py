"""Matrix product operators for light fine-tuning: the library behind the course.

The names below are loaded when first used, so that the command line can refuse bad input before torch is imported.
"""

from importlib import import_module
from typing import Any

_HOMES = {"MPO": "mpo", "MPOLinear": "layers", "Shape": "shapes", "balanced_shape": "shapes", "cached": "layers"}

__all__ = ["MPO", "MPOLinear", "Shape", "balanced_shape", "cached"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mpo_tutorial' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"mpo_tutorial.{_HOMES[name]}"), name)
