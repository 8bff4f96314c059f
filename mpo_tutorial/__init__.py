"""Matrix product operators for light fine-tuning: the library behind the course.

The names below are loaded when first used, so that the command line can refuse bad input before torch is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wrapt import patch_function_wrapper, when_imported

from mpo_tutorial.moved import MOVED

if TYPE_CHECKING:
    from mpo_tutorial.course import capstone_results as capstone_results
    from mpo_tutorial.course import comparisons as comparisons
    from mpo_tutorial.course import cut_explorers as cut_explorers
    from mpo_tutorial.course import cut_figures as cut_figures
    from mpo_tutorial.course import dashboard as dashboard
    from mpo_tutorial.course import exercises as exercises
    from mpo_tutorial.course import explorers as explorers
    from mpo_tutorial.course import figures as figures
    from mpo_tutorial.course import gpu_tables as gpu_tables
    from mpo_tutorial.course import model_explorers as model_explorers
    from mpo_tutorial.course import movement_figures as movement_figures
    from mpo_tutorial.course import network_explorers as network_explorers
    from mpo_tutorial.course import network_figures as network_figures
    from mpo_tutorial.course import plots as plots
    from mpo_tutorial.course import squeeze_explorers as squeeze_explorers
    from mpo_tutorial.course import squeeze_figures as squeeze_figures
    from mpo_tutorial.course import squeeze_tables as squeeze_tables
    from mpo_tutorial.course import tables as tables
    from mpo_tutorial.course import widgets as widgets
    from mpo_tutorial.course.demo import beside_full as beside_full
    from mpo_tutorial.course.notebook import set_up as set_up
    from mpo_tutorial.doctor import examine as examine
    from mpo_tutorial.experiments import capstone as capstone
    from mpo_tutorial.experiments import compare as compare
    from mpo_tutorial.experiments import cut_results as cut_results
    from mpo_tutorial.experiments import light as light
    from mpo_tutorial.experiments import movement_results as movement_results
    from mpo_tutorial.experiments import network_study as network_study
    from mpo_tutorial.experiments import squeezes as squeezes
    from mpo_tutorial.experiments import statistics as statistics
    from mpo_tutorial.experiments.config import RunConfig as RunConfig
    from mpo_tutorial.experiments.evaluation import evaluate as evaluate
    from mpo_tutorial.experiments.finetune import finetune as finetune
    from mpo_tutorial.experiments.plans import Plan as Plan
    from mpo_tutorial.experiments.records import shipped as shipped
    from mpo_tutorial.experiments.records import shipped_points as shipped_points
    from mpo_tutorial.experiments.squeeze import Squeeze as Squeeze
    from mpo_tutorial.experiments.squeezing import squeeze as squeeze
    from mpo_tutorial.experiments.tasks import load_task as load_task
    from mpo_tutorial.experiments.tuned import Tuned as Tuned
    from mpo_tutorial.maths import contraction as contraction
    from mpo_tutorial.maths import reach as reach
    from mpo_tutorial.maths import states as states
    from mpo_tutorial.maths.budget import allocate as allocate
    from mpo_tutorial.maths.entropy import Spectra as Spectra
    from mpo_tutorial.maths.entropy import cheapest_truncation as cheapest_truncation
    from mpo_tutorial.maths.entropy import entropy as entropy
    from mpo_tutorial.maths.fitting import fit as fit
    from mpo_tutorial.maths.linalg import relative_error as relative_error
    from mpo_tutorial.maths.mpo import MPO as MPO
    from mpo_tutorial.maths.shapes import Shape as Shape
    from mpo_tutorial.maths.shapes import balanced_shape as balanced_shape
    from mpo_tutorial.maths.shapes import paper_shape as paper_shape
    from mpo_tutorial.models import activations as activations
    from mpo_tutorial.models import families as families
    from mpo_tutorial.models import images as images
    from mpo_tutorial.models import networks as networks
    from mpo_tutorial.models.conv import MPOConv2d as MPOConv2d
    from mpo_tutorial.models.convert import decompose as decompose
    from mpo_tutorial.models.convert import decompress as decompress
    from mpo_tutorial.models.convert import freeze as freeze
    from mpo_tutorial.models.layers import MPOEmbedding as MPOEmbedding
    from mpo_tutorial.models.layers import MPOLinear as MPOLinear
    from mpo_tutorial.models.layers import cached as cached
    from mpo_tutorial.models.layers import mpo_layers as mpo_layers
    from mpo_tutorial.models.ledger import Ledger as Ledger
    from mpo_tutorial.models.loading import load as load
    from mpo_tutorial.models.truncation import Cut as Cut
    from mpo_tutorial.models.truncation import bonds_of_ratio as bonds_of_ratio
    from mpo_tutorial.models.truncation import truncate as truncate

_MODULES = {  # by the room that they are in
    "course": (
        "capstone_results",
        "comparisons",
        "cut_explorers",
        "cut_figures",
        "dashboard",
        "exercises",
        "explorers",
        "figures",
        "gpu_tables",
        "model_explorers",
        "movement_figures",
        "network_explorers",
        "network_figures",
        "plots",
        "squeeze_explorers",
        "squeeze_figures",
        "squeeze_tables",
        "tables",
        "widgets",
    ),
    "experiments": (
        "capstone",
        "compare",
        "cut_results",
        "light",
        "movement_results",
        "network_study",
        "squeezes",
        "statistics",
    ),
    "maths": ("contraction", "reach", "states"),
    "models": ("activations", "families", "images", "networks"),
}
_NAMES = {
    "course.demo": ("beside_full",),
    "course.notebook": ("set_up",),
    "doctor": ("examine",),
    "experiments.config": ("RunConfig",),
    "experiments.evaluation": ("evaluate",),
    "experiments.finetune": ("finetune",),
    "experiments.plans": ("Plan",),
    "experiments.records": ("shipped", "shipped_points"),
    "experiments.squeeze": ("Squeeze",),
    "experiments.squeezing": ("squeeze",),
    "experiments.tasks": ("load_task",),
    "experiments.tuned": ("Tuned",),
    "maths.budget": ("allocate",),
    "maths.entropy": ("Spectra", "cheapest_truncation", "entropy"),
    "maths.fitting": ("fit",),
    "maths.linalg": ("relative_error",),
    "maths.mpo": ("MPO",),
    "maths.shapes": ("Shape", "balanced_shape", "paper_shape"),
    "models.conv": ("MPOConv2d",),
    "models.convert": ("decompose", "decompress", "freeze"),
    "models.layers": ("MPOEmbedding", "MPOLinear", "cached", "mpo_layers"),
    "models.ledger": ("Ledger",),
    "models.loading": ("load",),
    "models.truncation": ("Cut", "bonds_of_ratio", "truncate"),
}
_HOMES = {name: home for homes in (_MODULES, _NAMES) for home, names in homes.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        if name in MOVED:
            raise AttributeError(f"mpo_tutorial.{name} is now {MOVED[name]}")
        raise AttributeError(f"module 'mpo_tutorial' has no attribute {name!r}; it has {', '.join(__all__)}")
    home = f"mpo_tutorial.{_HOMES[name]}"
    found = import_module(f"{home}.{name}") if _HOMES[name] in _MODULES else getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@when_imported("transformers.models.auto.configuration_auto")
def _make_known(module) -> None:
    """Tell the Auto classes of our models, no sooner than one is used: before, transformers may be half imported."""

    @patch_function_wrapper(module, "AutoConfig.from_pretrained")
    def from_pretrained(wrapped, _, args, kwargs):
        import_module("mpo_tutorial.models.architectures").register()
        return wrapped(*args, **kwargs)
