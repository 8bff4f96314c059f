"""Light fine-tuning as a method of PEFT: `get_peft_model(model, MPOConfig())`, on any model with linear layers.

In the form "A M B" of `MPO.from_blocks`: of each matrix M the outer legs are turned by two square blocks, and M itself stays as it
was. So nothing is decomposed, a base in half precision or of any size will do, and before the first step the model computes what it
computed, to the last bit. Importing this module registers the method.

>>> from transformers import BertConfig, BertForSequenceClassification
>>> from peft import get_peft_model
>>> model = BertForSequenceClassification(BertConfig(hidden_size=48, intermediate_size=96, num_attention_heads=4))
>>> light = get_peft_model(model, MPOConfig(task_type="SEQ_CLS"))
>>> light.get_nb_trainable_parameters()[0] < model.num_parameters() / 10
True
"""

import copy
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mpo_tutorial.maths.contraction import contract
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import N_CORES, Shape, blocks_of, sized_blocks, usual_shape
from mpo_tutorial.models.convert import shapes_of
from mpo_tutorial.models.layers import own_precision

INSTALL = "pip install 'peft>=0.20'"
try:
    from peft import PeftConfig, PeftType
    from peft.tuners._buffer_dict import BufferDict
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
    from peft.utils import register_peft_method
except ImportError as error:
    raise ImportError(
        f"MPO as a method of PEFT needs PEFT 0.20 or later, and here is none or an older one; type: {INSTALL}"
    ) from error

SAMPLES = 16  # numbers of each matrix by which a base is known again
EXACT = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass
class MPOConfig(PeftConfig):
    """What `get_peft_model` is to train: of each chosen matrix two square blocks, on its outer legs.

    Parameters
    ----------
    n_cores : int
        How many cores the chains have whose legs are taken, those of `shapes.usual_shape`. Cores left of the central one act as
        one block, and those right of it as another, so that three and five differ in the sizes of the blocks alone.
    legs : str, optional
        As in "3.4.4.4.2 x 2.4.4.4.3, 12.4.8 x 8.4.12", for matrices of these sizes (in, out) instead of what `n_cores` gives.
    share : float, optional
        The size knob, in place of `n_cores`: how many numbers are trained for each number of a matrix, as near as its divisors
        allow. `MPOConfig.sized` finds it for a wanted number in all.
    target_modules : str or list of str
        As in PEFT: ends of names, a regular expression, or "all-linear", the default.
    exclude_modules, layers_to_transform, layers_pattern, modules_to_save
        As in PEFT's other methods.
    bias : {"none", "all", "mpo_only"}
        Which biases are trained besides; the study `light` trained all.
    init_weights : bool
        False begins with small random blocks instead of identities, for tests.

    Raises
    ------
    ValueError
        If two sizes are given, legs are not written as above, or a share is not in (0, 2].
    """

    n_cores: int = field(default=N_CORES, metadata={"help": "Cores of the chains whose legs are taken."})
    legs: str | None = field(default=None, metadata={"help": "Legs of single sizes, as in '3.4.4.4.2 x 2.4.4.4.3'."})
    share: float | None = field(default=None, metadata={"help": "Trained numbers for each number of a matrix."})
    target_modules: list[str] | str | None = field(default="all-linear", metadata={"help": "As in PEFT."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "As in PEFT."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "As in PEFT."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "As in PEFT."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "As in PEFT."})
    bias: str = field(default="none", metadata={"help": "Biases trained besides: none, all or mpo_only."})
    init_weights: bool = field(default=True, metadata={"help": "Begin with identities."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType.MPO  # pyright: ignore[reportAttributeAccessIssue]
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        if (
            isinstance(self.target_modules, str)
            and self.target_modules != "all-linear"
            and self.layers_to_transform is not None
        ):
            raise ValueError("layers_to_transform goes with a list of target_modules, got a regular expression")
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("layers_pattern says where the numbers of layers_to_transform stand; give those, too")
        if self.bias not in ("none", "all", "mpo_only"):
            raise ValueError(f"bias is one of none, all, mpo_only, got {self.bias!r}")
        if self.share is not None and (self.legs is not None or self.n_cores != N_CORES):
            raise ValueError("the blocks are sized by share, or by n_cores and legs, got both")
        if self.share is not None and not 0 < self.share <= 2:
            raise ValueError(f"share is a number above 0 and at most 2, got {self.share!r}")
        self._shapes = {(shape.in_size, shape.out_size): shape for shape in shapes_of(self.legs)} if self.legs else {}

    def shape_of(self, name: str, in_size: int, out_size: int) -> Shape:
        """The legs of a matrix of some size.

        Raises
        ------
        ValueError
            If legs were given, and none for this size.
        """
        if self.share is not None:
            return sized_blocks(in_size, out_size, self.share * in_size * out_size)
        if self._shapes and (in_size, out_size) not in self._shapes:
            usual = usual_shape(in_size, out_size, self.n_cores)
            legs = " x ".join(".".join(map(str, side)) for side in (usual.in_legs, usual.out_legs))
            raise ValueError(
                f"legs must multiply out to the matrix; {name} is {in_size} x {out_size}, and of the legs given none are. "
                f"Add {legs} for it, or leave it out of target_modules"
            )
        return self._shapes.get((in_size, out_size)) or usual_shape(in_size, out_size, self.n_cores)

    @classmethod
    def sized(cls, model: nn.Module, n_params: int, **options: Any) -> "MPOConfig":
        """The config whose blocks hold, over all its matrices of a model, as nearly `n_params` numbers as can be had.

        Parameters
        ----------
        model : nn.Module
            Stays as it is.
        n_params : int
            Numbers in blocks; biases and `modules_to_save` come on top.
        **options
            The config's other fields.

        Raises
        ------
        ValueError
            If even the nearest is off by more than a tenth; the sentence says which that is.
        """
        blank = copy.deepcopy(model).to("meta")
        MPOModel(blank, cls(**options), "sized")
        sizes = Counter(layer.size for layer in blank.modules() if isinstance(layer, MPOLinear))
        numbers = sum(rows * columns * count for (rows, columns), count in sizes.items())

        def trained(share: float) -> int:
            blocks = {size: blocks_of(sized_blocks(*size, share * math.prod(size))) for size in sizes}
            return sum(count * sum(block**2 for block in blocks[size]) for size, count in sizes.items())

        shares = [n_params / numbers * 1.01**k for k in range(-50, 51)]
        best = min(shares, key=lambda share: (abs(trained(share) - n_params), abs(share - n_params / numbers)))
        if abs(trained(best) - n_params) > 0.1 * n_params:
            raise ValueError(
                f"no blocks hold {n_params:,} numbers to within a tenth; the nearest hold {trained(best):,}"
            )
        return cls(share=best, **options)


class MPOLinear(nn.Module, BaseTunerLayer):
    """A linear layer whose matrix is turned by the blocks of the active adapters, one after the other.

    The blocks are kept less the identity: zeros at the start, and what weight decay pulls them back to.
    """

    adapter_layer_names = ("mpo_left", "mpo_right")
    other_param_names = ("mpo_base", "mpo_shape")

    def __init__(self, base_layer: nn.Module, name: str, config: MPOConfig, target: str):
        super().__init__()
        self.base_layer = base_layer
        self.target = target
        self.mpo_left, self.mpo_right = nn.ParameterDict(), nn.ParameterDict()
        self.mpo_base = BufferDict(persistent=True)
        self.mpo_shape: dict[str, Shape] = {}
        self.merged_adapters: list[str] = []
        self._before: Tensor | None = None
        self._active_adapter = name
        self.in_features, self.out_features = self.size
        self.update_layer(name, config)

    def update_layer(self, name: str, config: MPOConfig) -> None:
        """Add an adapter's blocks."""
        shape = config.shape_of(self.target, *self.size)
        for blocks, size in zip((self.mpo_left, self.mpo_right), blocks_of(shape), strict=True):
            block = torch.zeros(size, size) if config.init_weights else torch.randn(size, size) * 0.02 / size**0.5
            blocks[name] = nn.Parameter(block)
        self.mpo_shape[name] = shape
        self.mpo_base[name] = self._sample()
        self._move_adapter_to_device_of_base_layer(name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def matrix(self, names: list[str] | None = None) -> Tensor:
        """The matrix (in, out) with the blocks of some adapters, in the precision of the blocks."""
        matrix = self._weight()
        for name in self.active_adapters if names is None else names:
            if name not in self.mpo_left:
                continue
            left, right = self.mpo_left[name], self.mpo_right[name]
            with own_precision(matrix.device):
                chain = MPO.from_blocks(matrix.to(left.dtype), self.mpo_shape[name])
                a, centre, b = chain.cores
                matrix = contract((a + left.view_as(a), centre, b + right.view_as(b)), chain.padding)
        return matrix

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put blocks into the matrix; what it was is kept, so that `unmerge` is exact."""
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.mpo_left:
                continue
            weight = self.get_base_layer().weight
            merged = self.matrix([name]).detach().to(weight.dtype)
            if safe_merge and not torch.isfinite(merged).all():
                raise ValueError(f"merged, {self.target} would not be finite; the adapter {name!r} is broken")
            if self._before is None:
                self._before = weight.data
            weight.data = merged if self._is_transposed else merged.T.contiguous()
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Take all merged blocks out again."""
        if self._before is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self.get_base_layer().weight.data = self._before
        self._before = None
        self.merged_adapters.clear()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged or not any(name in self.mpo_left for name in self.active_adapters):
            return self.base_layer(x, *args, **kwargs)
        weight = (
            self.matrix().T.contiguous().to(self.get_base_layer().weight.dtype)
        )  # laid out as the base's, for the same sums
        return F.linear(self._cast_input_dtype(x, weight.dtype), weight, self.bias).to(x.dtype)

    @property
    def size(self) -> tuple[int, int]:
        """Of the matrix, in and out."""
        rows, columns = self._weight().shape
        return rows, columns

    @property
    def _is_transposed(self) -> bool:
        return isinstance(self.get_base_layer(), Conv1D)

    def _weight(self) -> Tensor:
        weight = self.get_base_layer().weight.detach()
        return weight if self._is_transposed else weight.T

    def _sample(self) -> Tensor:
        """Some numbers of the base, by which it is known again."""
        weight = self.get_base_layer().weight.detach() if self._before is None else self._before
        return weight.diagonal()[:: max(1, min(weight.shape) // SAMPLES)][:SAMPLES].clone()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata,
        strict,
        missing_keys,
        unexpected_keys,
        error_msgs,
    ) -> None:
        for name in self.mpo_shape:
            saved = state_dict.get(f"{prefix}mpo_base.{name}")
            if saved is not None and not _is_near(saved, self._sample()):
                error_msgs.append(f"the adapter was made for another base: {self.target} has other numbers here")
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def __repr__(self) -> str:
        return f"mpo.{super().__repr__()}"


class MPOModel(BaseTuner):
    """A model with `MPOLinear` layers in it. `get_peft_model` makes it of a model and an `MPOConfig`."""

    prefix: str = "mpo_"
    tuner_layer_cls = MPOLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(
        self,
        peft_config: MPOConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_optional: Any,
    ) -> None:
        if isinstance(target, MPOLinear):
            target.update_layer(adapter_name, peft_config)
            return
        _require_dense(target, current_key)
        layer = MPOLinear(target, adapter_name, peft_config, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def _require_dense(module: nn.Module, name: str) -> None:
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if not isinstance(base, nn.Linear | Conv1D):
        raise ValueError(
            f"MPO turns the matrices of linear layers, {name} is {type(base).__name__}; leave it out of target_modules"
        )
    if base.weight.dtype not in EXACT:
        raise ValueError(
            f"MPO turns matrices as they are, and {name} is quantised ({type(base).__name__}, {base.weight.dtype}): its numbers "
            "cannot be read without rounding. Load the model unquantised, in bfloat16 for instance, or take LoRA"
        )


def _is_near(saved: Tensor, own: Tensor) -> bool:
    """Whether some numbers are those of the same base, in whatever precision it was loaded."""
    if saved.shape != own.shape:
        return False
    saved, own = (numbers.detach().float().cpu() for numbers in (saved, own))
    return bool(((saved - own).abs() <= 2**-7 * own.abs() + 1e-3 * own.square().mean().sqrt()).all())


def _register() -> None:
    """Give PEFT's list of methods one more. It admits those from outside, if its enumeration of their names has them."""
    if "MPO" in PeftType.__members__:
        return
    member = str.__new__(PeftType, "MPO")
    member._name_ = member._value_ = "MPO"
    PeftType.MPO = member  # pyright: ignore[reportAttributeAccessIssue]
    PeftType._member_map_["MPO"] = PeftType._value2member_map_["MPO"] = member
    PeftType._member_names_.append("MPO")
    register_peft_method(name="mpo", config_cls=MPOConfig, model_cls=MPOModel)


_register()
