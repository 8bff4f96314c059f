"""Models that transformers' own classes save and load with MPO layers in them.

A compressed BERT keeps transformers' code and gets a class and a config of its own, MPOBertForSequenceClassification with the
`model_type` "mpo_bert", made here by inheritance. Its config says which matrices are MPOs, with which legs and bonds. After
`import mpo_tutorial` the Auto classes know these names; without it they refuse them.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models import stored
from mpo_tutorial.models.layers import MPOEmbedding, MPOLayer, MPOLinear, TiedLinear
from mpo_tutorial.models.readout import (
    FAMILY,
    POOLINGS,
    Reading,
    family_of,
    pooling_of,
    prepare_reading,
    require_pooling,
    said_pooling,
)

HEADS = (
    "AutoModel",
    "AutoModelForSequenceClassification",
    "AutoModelForMaskedLM",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMultipleChoice",
    "AutoModelForPreTraining",
    "AutoModelForNextSentencePrediction",
    "AutoModelForCausalLM",
)
MODEL_TYPES = tuple(POOLINGS)
FROM_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class MPOModel:
    """What the classes made by `mpo_class` add to those of transformers."""

    def __init__(self, config: PreTrainedConfig, *inputs, **kwargs):
        super().__init__(config, *inputs, **kwargs)
        layers = {}
        for module, shape, bonds in _described(self, config):
            kind = MPOEmbedding if isinstance(module, nn.Embedding) else MPOLinear
            layers[module] = kind.in_place_of(module, MPO.random(shape, bonds, config.initializer_range))
            layers[module].to(module.weight.dtype)
        put_layers(self, layers)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *inputs, config=None, use_safetensors=True, **kwargs):
        """As in transformers, but never with a matrix that the files do not hold.

        Raises
        ------
        ValueError
            If a file is no whole safetensors file or not the one that was saved, the tensors of the encoder are not what the
            config says, or there are none.
        """
        if not use_safetensors:
            raise ValueError("an MPO model is read from safetensors files only, not from pickles")
        where = {name: kwargs[name] for name in FROM_HUB if name in kwargs}
        path, found = pretrained_model_name_or_path, config
        if not isinstance(config, PreTrainedConfig):
            found = AutoConfig.from_pretrained(config or path, **where)
        if path is not None:
            _check_files(cls, found, str(path), kwargs.get("variant"), where)
        elif kwargs.get("state_dict") is not None:
            shapes = {name: tuple(tensor.shape) for name, tensor in kwargs["state_dict"].items()}
            _check_tensors(cls, found, "the state_dict", shapes)
        else:
            raise ValueError(
                "a pretrained MPO model comes from a folder, the hub or a state_dict, none of them is given"
            )
        return super().from_pretrained(path, *inputs, config=config, use_safetensors=True, **kwargs)

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """As in transformers; legs and bonds are written as they are now, and the SHA-256 of the files.

        With adapters in the model transformers writes these alone, and no config.
        """
        self.config.mpo = description(self)
        writes_model = not getattr(self, "_hf_peft_config_loaded", False) and not kwargs.get("distributed_checkpoint")
        if not writes_model or not is_main_process:
            return super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        folder = Path(save_directory)
        others = stored.saved_sha256(str(folder)) if folder.is_dir() else {}  # files of another variant
        self.config.mpo_sha256 = None
        super().save_pretrained(save_directory, **kwargs)
        written = stored.sha256_of(stored.weight_files(str(folder), kwargs.get("variant")))
        there = {name: found for name, found in others.items() if (folder / name).is_file()}
        self.config.mpo_sha256 = there | written
        self.config.save_pretrained(folder)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args, **kwargs):
        """As in transformers, but an MPO embedding keeps the words it has: other numbers are a ValueError."""
        embedding = self.get_input_embeddings()
        if not isinstance(embedding, MPOEmbedding):
            return super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        words = embedding.mpo.shape.in_size
        if new_num_tokens not in (None, words):
            raise ValueError(
                f"an MPO embedding keeps its {words} words, got {new_num_tokens}; decompress the model, resize, compress again"
            )
        return embedding


@cache
def mpo_class(plain: type) -> type:
    """MPOBertConfig of BertConfig, MPOBertModel of BertModel, and so on."""
    if issubclass(plain, PreTrainedConfig):
        bases, members = (plain,), {"model_type": FAMILY + plain.model_type}
    else:
        encoder = plain is transformers.AutoModel._model_mapping.get(plain.config_class, None)
        bases = (Reading, MPOModel, plain) if encoder else (MPOModel, plain)
        members = {"config_class": mpo_class(plain.config_class)}
    return type(f"MPO{plain.__name__}", bases, {**members, "__module__": __name__})


def __getattr__(name: str) -> type:
    """The class of this name, for pickle: MPOBertModel where transformers has a BertModel."""
    plain = getattr(transformers, name.removeprefix("MPO"), None) if name.startswith("MPO") else None
    if plain is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return mpo_class(plain)


@cache
def register() -> None:
    """Make configs and models known to the Auto classes, once."""
    for model_type in MODEL_TYPES:
        plain = type(AutoConfig.for_model(model_type))
        config = mpo_class(plain)
        AutoConfig.register(config.model_type, config)
        for auto in (getattr(transformers, name) for name in HEADS):
            if plain in auto._model_mapping:
                auto.register(config, mpo_class(auto._model_mapping[plain]))


def read_by(model: PreTrainedModel, pooling: str) -> None:
    """Have a classifier read its encoder in one of the ways that its family can, in place.

    Where that is not transformers' own way, its class becomes one that saves and loads it, without MPO layers as well.

    Raises
    ------
    ValueError
        If the family cannot, or the pooler that is to be read was left out before.
    """
    require_pooling(model.config.model_type, pooling)
    now = pooling_of(model)
    if pooling == now:
        return
    if pooling == "pooler":
        raise ValueError(f"{model.name_or_path or 'the model'} was saved without its pooler, to be read by {now}")
    put_layers(model, {}, pooling)


def put_layers(model: PreTrainedModel, layers: dict[nn.Module, nn.Module], pooling: str | None = None) -> None:
    """Put layers in the places of others, in all of them where one is shared, and make the model's class fit.

    An output layer that was tied to an embedding stays tied to it. With a pooling the model is read so from now on. A model of
    another family is a ValueError.
    """
    family = family_of(model.config.model_type)
    if family not in MODEL_TYPES:
        raise ValueError(
            f"the families whose models can be saved and loaded are {', '.join(MODEL_TYPES)}, got {family!r}"
        )
    tied = _output_layer(model)
    embedding = model.get_input_embeddings()
    if tied is not None and embedding in layers:
        new = layers[embedding]
        if isinstance(new, MPOEmbedding):
            layers[tied] = TiedLinear(new, tied.bias)
        else:
            layers[tied] = nn.Linear(new.embedding_dim, new.num_embeddings, bias=False)
            layers[tied].weight, layers[tied].bias = new.weight, tied.bias
    for name, old in list(model.named_modules(remove_duplicate=False)):
        if old in layers:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layers[old])
    old, new = model.config, copy.deepcopy(model.config)  # the caller's own may serve other models
    pooling = pooling or said_pooling(old)
    if pooling or hasattr(new, "pooling"):
        new.pooling = pooling
    mpo = any(isinstance(module, MPOLayer) for module in model.modules()) or bool(pooling)
    new.__class__ = _class_of(new, mpo)
    for module in model.modules():
        if getattr(module, "config", None) is old:
            module.config = new
        if isinstance(module, PreTrainedModel):
            module.__class__ = _class_of(module, mpo)
            # Filled by a model's __init__, and without an entry for its class a model returns no hidden states.
            dict.__setitem__(_CAN_RECORD_REGISTRY, str(type(module)), module._can_record_outputs)
    if mpo:
        register()
        model.config.mpo = description(model)
    elif hasattr(model.config, "mpo"):
        del model.config.mpo
        model.config.__dict__.pop("mpo_sha256", None)
    if pooling:
        prepare_reading(model)
    _forget_ties(model)


def description(model: PreTrainedModel) -> dict[str, dict]:
    """Legs, padding and bonds of every MPO layer, by the name that it has in a model with a head."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, MPOLayer):
            mpo = module.mpo
            sides = {"in_legs": mpo.shape.in_legs, "out_legs": mpo.shape.out_legs, "padding": mpo.padding}
            full_name = f"{model.base_model_prefix}.{name}" if model.base_model is model else name
            found[full_name] = {key: list(value) for key, value in {**sides, "bonds": mpo.bonds}.items()}
    return found


def _class_of(thing: PreTrainedModel | PreTrainedConfig, mpo: bool) -> type:
    plain = next(cls for cls in type(thing).__mro__ if cls.__module__ not in (__name__, Reading.__module__))
    return mpo_class(plain) if mpo else plain


def _output_layer(model: PreTrainedModel) -> nn.Module | None:
    """The output layer whose weight is the embedding's, if there is one."""
    output = model.get_output_embeddings()
    tied = output is not None and getattr(model.config, "tie_word_embeddings", False)
    return output if tied else None


def _forget_ties(model: PreTrainedModel) -> None:
    """Strike those parameters from transformers' list of tied ones that no longer exist; put all others back."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            there = {name for name, _ in module.named_parameters(remove_duplicate=False)}
            ties = type(module)._tied_weights_keys or {}
            module._tied_weights_keys = {to: of for to, of in ties.items() if {to, of} <= there}
            module.all_tied_weights_keys = module.get_expanded_tied_weights_keys(all_submodels=True)


def _described(model: PreTrainedModel, config: PreTrainedConfig) -> Iterator[tuple[nn.Module, Shape, tuple[int, ...]]]:
    """The modules that a config says are MPOs, with shape and bonds. A head's are left out where the head is not there."""
    described = getattr(config, "mpo", None)
    if not isinstance(described, dict) or not (described or getattr(config, "pooling", None)):
        raise ValueError(
            f"the config of an MPO model says by `mpo` which matrices are MPOs, this one has {described!r}"
        )
    modules = dict(model.named_modules())
    prefix = f"{model.base_model_prefix}."
    for full_name, numbers in described.items():
        name = full_name.removeprefix(prefix) if model.base_model is model else full_name
        module = modules.get(name)
        if module is None and re.search(r"pooler", name):  # some heads need none
            continue
        if not isinstance(module, nn.Linear | nn.Embedding):
            raise ValueError(f"the config says that {full_name} is an MPO, {type(model).__name__} has no such matrix")
        try:
            shape = Shape(numbers["in_legs"], numbers["out_legs"], tuple(numbers["padding"]))
            bonds = shape.one_for_each(numbers["bonds"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the config's legs and bonds of {full_name} make no MPO: {error}") from error
        rows, columns = module.weight.shape if isinstance(module, nn.Embedding) else reversed(module.weight.shape)
        if (shape.in_size, shape.out_size) != (rows, columns):
            raise ValueError(
                f"the config's legs of {full_name} make a matrix of {shape.in_size} x {shape.out_size}, the model's has "
                f"{rows} x {columns}"
            )
        yield module, shape, bonds


def _check_files(cls: type, config: PreTrainedConfig, path: str, variant: str | None, where: dict) -> None:
    """Compare a model's files with its config, by their tensors' shapes and by the SHA-256 that was saved beside them."""
    files = stored.weight_files(path, variant, **where)
    _check_tensors(cls, config, path, stored.shapes_in(files))
    saved = stored.saved_sha256(path, **where)
    if altered := sorted(name for name, found in stored.sha256_of(files).items() if saved.get(name, found) != found):
        raise ValueError(f"{path} was altered after it was saved: {altered[0]} is another file; save the model again")


def _check_tensors(cls: type, config: PreTrainedConfig, origin: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare tensors with those that the config calls for, before any memory is taken for either."""
    stored.check_sizes(config, shapes)
    with torch.device("meta"):
        model = cls(config)
    encoder, prefix = set(map(id, model.base_model.parameters())), f"{cls.base_model_prefix}."
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    needed = {
        name.removeprefix(prefix): tuple(tensor.shape)
        for name, tensor in model.named_parameters()
        if id(tensor) in encoder or ".cores." in name
    }
    new = re.compile(r"pooler\.(?!.*cores\.)")  # a dense pooler that was not saved begins anew, as in transformers
    wrong = [name for name, shape in needed.items() if shapes.get(name) != shape and not new.match(name)]
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"{origin} must hold the encoder that its config describes; {len(wrong)} tensors are missing or of another shape, "
            f"the first is {first}: {shapes.get(first, 'missing')}, not {needed[first]}"
        )
