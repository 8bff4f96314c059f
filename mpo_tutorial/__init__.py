"""Matrix product operators for light fine-tuning: the library behind the course.

The names below are loaded when first used, so that the command line can refuse bad input before torch is imported.
"""

from importlib import import_module
from typing import Any

from wrapt import patch_function_wrapper, when_imported

_HOMES = {
    "MPO": "mpo",
    "MPOEmbedding": "layers",
    "MPOLinear": "layers",
    "Shape": "shapes",
    "Spectra": "entropy",
    "allocate": "budget",
    "balanced_shape": "shapes",
    "cached": "layers",
    "paper": "shapes",
}

__all__ = ["MPO", "MPOEmbedding", "MPOLinear", "Shape", "Spectra", "allocate", "balanced_shape", "cached", "paper"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mpo_tutorial' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"mpo_tutorial.{_HOMES[name]}"), name)


@when_imported("transformers.models.auto.configuration_auto")
def _make_known(module) -> None:
    """Tell the Auto classes of our models, no sooner than one is used: before, transformers may be half imported."""

    @patch_function_wrapper(module, "AutoConfig.from_pretrained")
    def from_pretrained(wrapped, _, args, kwargs):
        import_module("mpo_tutorial.architectures").register()
        return wrapped(*args, **kwargs)
