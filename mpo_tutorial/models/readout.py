"""How a classifier reads its encoder: the mean over tokens, the first token, or a pooler, as the encoder was trained to be read."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

# By family, transformers' own way first. The heads of RoBERTa and DistilBERT have a layer of their own on the first token.
POOLINGS = {
    "bert": ("pooler", "first", "mean"),
    "albert": ("pooler", "first", "mean"),
    "mobilebert": ("pooler", "first", "mean"),
    "roberta": ("first", "mean"),
    "distilbert": ("first", "mean"),
}
FAMILY = "mpo_"  # what the model_type of our classes begins with


def own_pooling(path: str) -> str | None:
    """How a model is read, by its own files: its config if we saved it, sentence-transformers' 1_Pooling/config.json, its family.

    Parameters
    ----------
    path : str
        A folder or a name on the hub, as `sources.model_path` gives it.

    Returns
    -------
    str or None
        "mean", "first" or "pooler"; None for a family whose head is transformers' own affair.

    Raises
    ------
    ValueError
        If it was trained to be read in another way, or a file is no JSON object.
    """
    config = _json_of(path, "config.json")
    model_type = str(config.get("model_type"))
    possible = POOLINGS.get(family_of(model_type))
    if possible is None:
        return None
    if model_type.startswith(FAMILY) and config.get("pooling"):
        return config["pooling"]
    found = _json_of(path, "1_Pooling/config.json")
    on = [name for name, value in found.items() if name.startswith("pooling_mode") and value]
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
    if "pooling_mode" in on:  # as newer versions write it
        on, modes = [str(found["pooling_mode"])], {"mean": "mean", "cls": "first"}
    if on:
        if len(on) > 1 or on[0] not in modes:
            raise ValueError(
                f"{path} was trained to be read by {', '.join(on)}, which is not known here; give --pooling mean or first"
            )
        return modes[on[0]]
    return possible[0]


def pooling_of(model: "PreTrainedModel") -> str | None:
    """How a model in memory is read; None for a family whose head is transformers' own affair."""
    own, *_ = POOLINGS.get(family_of(model.config.model_type), (None,))
    return said_pooling(model.config) or own


def said_pooling(config: "PreTrainedConfig") -> str | None:
    """What a config of our own says; in others the word, if it is there, is someone else's."""
    return getattr(config, "pooling", None) if type(config).model_type.startswith(FAMILY) else None


def family_of(model_type: str) -> str:
    return model_type.removeprefix(FAMILY)


def require_pooling(model_type: str, pooling: str) -> None:
    """Refuse what a family of models cannot have, by a ValueError that lists what it can."""
    possible = POOLINGS.get(family_of(model_type), ())
    if pooling not in possible:
        raise ValueError(
            f"pooling of a {family_of(model_type)} is "
            + (f"one of {', '.join(possible)}" if possible else "that of its own head")
            + f", got {pooling!r}"
        )


def pooled(states: "Tensor", mask: "Tensor | None", pooling: str) -> "Tensor":
    """One vector for each sentence.

    Parameters
    ----------
    states : Tensor of shape (sentences, tokens, width)
    mask : Tensor of shape (sentences, tokens), optional
        1 for tokens, 0 for padding; None: there is no padding.
    pooling : {"mean", "first"}

    Returns
    -------
    Tensor of shape (sentences, width)
    """
    if pooling == "first":
        return states[:, 0]
    if mask is None:
        return states.mean(1)
    if mask.dim() != 2:
        raise ValueError(
            f"for a mean over tokens the attention mask has the shape (sentences, tokens), got {tuple(mask.shape)}"
        )
    mask = mask.to(states.dtype)
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class Reading:
    """What an encoder's class gets where its config has a `pooling`: the vector that heads take, made from all tokens.

    The heads of BERT, ALBERT and MobileBERT take it as `pooler_output`; those of RoBERTa and DistilBERT take the first token's
    state, in whose place it is put.
    """

    def forward(self, input_ids=None, attention_mask=None, *args, **kwargs):
        from transformers.utils.generic import can_return_tuple

        return can_return_tuple(Reading._read)(self, input_ids, attention_mask, *args, **kwargs)

    def _read(self, input_ids, attention_mask, *args, **kwargs):
        found = super().forward(input_ids, attention_mask, *args, **kwargs, return_dict=True)
        pooling = getattr(self.config, "pooling", None)
        if pooling is None:
            return found
        vector = pooled(found.last_hidden_state, attention_mask, pooling)
        values = {field.name: getattr(found, field.name) for field in fields(found)}
        if getattr(self, "read_in_place", False):
            values["last_hidden_state"] = vector[:, None]
        elif "pooler_output" in values:
            values["pooler_output"] = vector
        return type(found)(**values)  # made anew: a tuple of the values has them in the order of the fields


def prepare_reading(model: "PreTrainedModel") -> None:
    """Take a pooler away that is not read; tell an encoder whose head takes the first token where to put the mean.

    Raises
    ------
    ValueError
        If the config names a pooling that the family cannot have without a pooler.
    """
    pooling = model.config.pooling
    require_pooling(model.config.model_type, pooling)
    if pooling == "pooler":
        raise ValueError("a config says pooling mean or first, or nothing where the pooler is read; got 'pooler'")
    encoder = model.base_model
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    model.new_pooler = False
    in_head = model is not encoder and type(model).__name__.endswith("ForSequenceClassification")
    encoder.read_in_place = in_head and "pooler" not in POOLINGS[family_of(model.config.model_type)]


def _json_of(path: str, name: str) -> dict:
    from transformers.utils import cached_file

    file = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
    if file is None:
        return {}
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name} of {path} must be JSON, it is not: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} of {path} must be a JSON object, got {type(found).__name__}")
    return found
