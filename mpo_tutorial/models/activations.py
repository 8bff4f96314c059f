"""What a model makes of sentences: embeddings, hidden states, and the moments of its layers' inputs."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.models.families import layer_of
from mpo_tutorial.models.layers import MPOLinear, cached

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


BATCH = 32
RIDGE = 0.1  # of the mean of the diagonal: what was rare among a few hundred sentences still counts


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a layer's inputs x, which are rows of length `in`.

    Parameters
    ----------
    mean : Tensor of shape (in,)
        E[x].
    covariance : Tensor of shape (in, in)
        E[x^T x] - E[x]^T E[x].
    """

    mean: Tensor
    covariance: Tensor

    def metric(self, centred: bool) -> Tensor:
        """C, of shape (in, in), with a ridge: about the mean if a bias takes up the mean of the error, else about zero."""
        metric = self.covariance.clone() if centred else self.covariance + torch.outer(self.mean, self.mean)
        metric.diagonal().add_(RIDGE * metric.diagonal().mean())
        return metric


def input_moments(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    sentences: Sequence[str],
    *,
    max_length: int,
    names: Collection[str] | None = None,
    progress: bool = False,
) -> dict[str, Moments]:
    """The moments of the inputs of each `MPOLinear`, over the tokens of some sentences, padding left out.

    To be taken of the uncut model, which is left in evaluation mode.

    Parameters
    ----------
    sentences : sequence of str
        A few hundred of those that the model was trained on.
    max_length : int
        Tokens at which a sentence is cut off.
    names : collection of str, optional
        Of the layers to look at; None takes all. A layer takes 8 bytes times the square of its inputs' size.

    Returns
    -------
    dict : by layer name; a layer that is called several times has all its inputs pooled, one that is never called is missing

    Raises
    ------
    ValueError
        If there is no sentence, or a name is not that of an `MPOLinear`.
    """
    if not sentences:
        raise ValueError("moments of the inputs need at least one sentence, got none")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, MPOLinear)}
    names = layers if names is None else names
    if unknown := sorted(set(names) - layers.keys()):
        raise ValueError(f"moments are taken of MPOLinear layers, {unknown[0]} is none; there are {', '.join(layers)}")
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}  # rows, their mean, the sum of (x - mean)^T (x - mean)
    mask = None

    def add(name: str, _layer: MPOLinear, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        x = x[mask] if x.shape[:-1] == mask.shape else x.flatten(0, -2)
        x = x.double()
        n, mean, spread = sums.get(name) or (0, x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], x.shape[1]))
        share = len(x) / (n + len(x))
        centre = x.mean(0)
        apart, x = centre - mean, x - centre
        # About the means of the batches: E[x^T x] - E[x]^T E[x] would be rounding, of any sign, where x hardly varies.
        spread.addmm_(x.T, x).addr_(apart, apart, alpha=n * share)
        sums[name] = n + len(x), mean + share * apart, spread

    model.eval()
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(layers[name].register_forward_pre_hook(partial(add, name)))
        stack.enter_context(torch.no_grad())
        stack.enter_context(cached(model))
        for start in tqdm(range(0, len(sentences), BATCH), desc="inputs", unit="batch", disable=not progress):
            batch = tokenizer(
                list(sentences[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(model.device)
            mask = batch["attention_mask"].bool()
            model(**batch)
    moments = {}
    for name in list(sums):
        n, mean, spread = sums.pop(name)
        moments[name] = Moments(mean.float(), (spread / n).float())
    return moments


@dataclass(frozen=True, eq=False)
class Inputs:
    """Sentences by which a model's layers are looked at while it is cut: what reaches a layer depends on those before it.

    Parameters
    ----------
    tokenizer
    sentences : sequence of str
    max_length : int
        As in `input_moments`.
    """

    tokenizer: "PreTrainedTokenizerBase"
    sentences: Sequence[str]
    max_length: int

    def of(self, model: "PreTrainedModel", names: Collection[str]) -> dict[str, Moments]:
        """The moments of some layers of a model as it is now; what is no `MPOLinear` is passed over."""
        names = [name for name in names if isinstance(model.get_submodule(name), MPOLinear)]
        return input_moments(model, self.tokenizer, self.sentences, max_length=self.max_length, names=names)

    def stages(
        self, model: "PreTrainedModel", names: Collection[str]
    ) -> Iterator[tuple[list[str], dict[str, Moments]]]:
        """Those of one encoder layer after the other, what is in none last: names, and their moments when they are asked for."""
        groups: dict[int | None, list[str]] = {}
        for name in names:
            groups.setdefault(layer_of(name), []).append(name)
        for number in sorted(groups, key=lambda number: len(names) if number is None else number):
            yield groups[number], self.of(model, groups[number])


def embed(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", sentences: Sequence[str]) -> Tensor:
    """Sentences as vectors of length 1, the mean of the encoder's last states over the tokens: MiniLM's authors' way.

    Returns
    -------
    Tensor of shape (sentences, hidden)
    """
    batch = tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt").to(model.device)
    model.eval()
    with torch.inference_mode(), cached(model):
        states = model.base_model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def hidden_states(model: "PreTrainedModel", dataset: "Dataset", tokenizer) -> list[Tensor]:
    """The states after each layer of the encoder, of all real tokens of some sentences.

    Parameters
    ----------
    dataset : Dataset
        As `tokenise` returns it.

    Returns
    -------
    list of Tensor of shape (tokens, hidden)
    """
    from transformers import DataCollatorWithPadding

    found, columns = [], [name for name in dataset.column_names if name not in ("labels", "length")]
    loader = DataLoader(dataset.select_columns(columns), BATCH, collate_fn=DataCollatorWithPadding(tokenizer))
    model.eval()
    with torch.inference_mode(), cached(model):
        for batch in loader:
            batch = batch.to(model.device)
            real = batch["attention_mask"].bool()
            states = model.base_model(**batch, output_hidden_states=True).hidden_states
            found.append([layer[real] for layer in states[1:]])
    return [torch.cat(layer) for layer in zip(*found, strict=True)]


def state_errors(states: Sequence[Tensor], whole: Sequence[Tensor]) -> list[float]:
    """Relative error after each layer, in the Frobenius norm over tokens."""
    return [relative_error(found, right) for found, right in zip(states, whole, strict=True)]
