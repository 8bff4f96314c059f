"""What the matrices of BERT and its relatives are called, and what each is for."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from mpo_tutorial.models.layers import MPOLayer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# What the paper decomposes (its counts say that the pooler is among it), and the projections by which ALBERT and MobileBERT go
# from one width to another, of which it does not speak.
PARTS = ("embedding", "attention", "feed-forward", "pooler", "projection")
# As options have them, with commas between.
PAPERS = "embedding, attention, feed-forward, pooler"
USUAL = "attention, feed-forward, pooler"

# How the name of a matrix ends, its kind, its part; the first that fits. {} takes the number that the pattern finds.
_PLACES = (
    (r"embeddings\.word_embeddings", "word embedding", "embedding"),
    (r"embeddings\.embedding_transformation|embedding_hidden_mapping_in", "embedding projection", "projection"),
    (r"output\.bottleneck\.dense", "bottleneck out", "projection"),
    (r"bottleneck\.(input|attention)\.dense", "bottleneck in, {}", "projection"),
    (r"(?:cross)?attention\.(?:self\.)?(?:query|q_lin)", "query", "attention"),
    (r"(?:cross)?attention\.(?:self\.)?(?:key|k_lin)", "key", "attention"),
    (r"(?:cross)?attention\.(?:self\.)?(?:value|v_lin)", "value", "attention"),
    (r"(?:cross)?attention\.(?:output\.dense|dense|out_lin)", "attention output", "attention"),
    (r"ffn\.(\d+)\.intermediate\.dense", "feed-forward in, {}", "feed-forward"),
    (r"ffn\.(\d+)\.output\.dense", "feed-forward out, {}", "feed-forward"),
    (r"intermediate\.dense|ffn|ffn\.lin1", "feed-forward in", "feed-forward"),
    (r"output\.dense|ffn_output|ffn\.lin2", "feed-forward out", "feed-forward"),
    (r"pooler|pooler\.dense", "pooler", "pooler"),
)
KINDS = ("query", "key", "value", "attention output", "feed-forward in", "feed-forward out")

# The models of the paper and two more, by their names on the hub: model_type and what differs from transformers' defaults.
KNOWN = {
    "bert-base-uncased": ("bert", {}),
    "albert-base-v2": (
        "albert",
        {"embedding_size": 128, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    ),
    "distilbert-base-uncased": ("distilbert", {}),
    "google/mobilebert-uncased": ("mobilebert", {}),
    "bert-large-uncased": (
        "bert",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "roberta-base": ("roberta", {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}),
}
PAPERS_MODELS = tuple(KNOWN)[:4]


class Place(NamedTuple):
    """Where a matrix is: its layer, None outside of layers; its kind; the part it belongs to, one of `PARTS`."""

    layer: int | None
    kind: str
    part: str


def place(name: str) -> Place | None:
    """Where the matrix of this name is, by the names that the families' models use; None for all other names.

    >>> place("bert.encoder.layer.3.attention.self.query")
    Place(layer=3, kind='query', part='attention')
    >>> place("distilbert.transformer.layer.0.ffn.lin2").kind, place("bert.pooler.dense").layer, place("classifier")
    ('feed-forward out', None, None)
    """
    for ending, kind, part in _PLACES:
        if found := re.search(rf"(?:^|\.)(?:{ending})$", name):
            kind = kind.format(*filter(None, found.groups()))
            return Place(layer_of(name), kind, part)
    return None


def layer_of(name: str) -> int | None:
    """The number of the layer that a module or parameter of this name is in.

    >>> layer_of("bert.encoder.layer.3.output.dense.bias"), layer_of("classifier.weight")
    (3, None)
    """
    found = re.search(r"layers?\.(\d+)\.", name)
    return int(found[1]) if found else None


def config_by_name(name: str) -> "PreTrainedConfig":
    """The config of one of the `KNOWN` models, without asking the hub. Other names are a KeyError."""
    from transformers import AutoConfig

    model_type, different = KNOWN[name]
    return AutoConfig.for_model(model_type, **different)


def matches(name: str, matrices: str) -> bool:
    """Whether a matrix is among those asked for: by part, by kind, by "all", or by a pattern that its name fits.

    >>> matches("bert.encoder.layer.0.attention.self.query", "pooler, *.layer.0.*")
    True
    """
    found = place(name)
    kind = found.kind.partition(",")[0]
    return any(word in ("all", found.part, kind) or fnmatchcase(name, word) for word in split_words(matrices))


def split_words(text: str) -> tuple[str, ...]:
    """The words by which matrices are chosen, parted by commas: `PARTS`, `KINDS`, "all", or patterns of names.

    >>> split_words("attention, *.layer.0.*")
    ('attention', '*.layer.0.*')

    Raises
    ------
    ValueError
        If a word is neither known nor a pattern.
    """
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        if not _is_pattern(word) and word not in ("all", *PARTS, *KINDS):
            raise ValueError(
                f"matrices are named by all, {', '.join((*PARTS, *KINDS))}, or by a pattern such as '*.layer.0.*', got {word!r}"
            )
    return words


def dense_matrices(model: "PreTrainedModel", matrices: str = USUAL) -> Iterator[tuple[str, nn.Module]]:
    """The dense matrices that become MPOs, a shared one once; not the classifier.

    Parameters
    ----------
    matrices : str
        As in `split_words`. By default neither embedding nor projections.

    Yields
    ------
    (str, nn.Linear or nn.Embedding)

    Raises
    ------
    ValueError
        If a word is neither known nor a pattern, nothing or no matrix for a pattern is found, or what is found is
        quantised or an MPO already.
    """
    which = split_words(matrices)
    base = model.base_model
    prefix = "" if base is model else f"{model.base_model_prefix}."
    placed = {f"{prefix}{name}": module for name, module in base.named_modules() if place(name)}
    for name in list(placed):  # BERT's pooler holds pooler.dense, ALBERT's is a matrix
        if any(other.startswith(f"{name}.") for other in placed):
            del placed[name]
    for pattern in which:
        if _is_pattern(pattern) and not any(fnmatchcase(name, pattern) for name in placed):
            raise ValueError(f"no matrix has a name like {pattern!r}; there are {_some(list(placed))}")
    found = {name: module for name, module in placed.items() if matches(name, matrices)}
    if not found:
        there = _some(list(placed)) or _some(sorted({type(module).__name__ for module in model.modules()}))
        raise ValueError(
            f"no matrix to decompose among {matrices} in {type(model).__name__}; it has {there}; the families that "
            "have some are BERT, RoBERTa, ALBERT, DistilBERT and MobileBERT"
        )
    for name, module in found.items():
        if isinstance(module, MPOLayer):
            raise ValueError(f"{name} is an MPO already; truncate it, or take the model that it was made from")
        weight = getattr(module, "weight", None)
        floating = isinstance(weight, nn.Parameter) and weight.is_floating_point()
        if not isinstance(module, nn.Linear | nn.Embedding) or not floating:
            numbers = getattr(weight, "dtype", "packed numbers")
            raise ValueError(
                f"a matrix to decompose is an nn.Linear or nn.Embedding with floating-point weights, {name} is a "
                f"{type(module).__module__}.{type(module).__name__} of {numbers}; load the model without quantisation"
            )
        yield name, module


def mpo_matrices(model: nn.Module, matrices: str = "all") -> dict[str, MPOLayer]:
    """The matrices that are MPOs already, by name, a shared one once, chosen as in `split_words`; none is no error."""
    split_words(matrices)
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, MPOLayer))
    return {name: layer for name, layer in layers if matches(name, matrices)}


def _is_pattern(word: str) -> bool:
    return re.search(r"[*?\[.]", word) is not None


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
