"""What the command `compress` does: a model's ledger, with or without its weights, and the compressed model in a folder."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from mpo_tutorial import result_plots, stored
from mpo_tutorial.config import RunConfig
from mpo_tutorial.data import load_task
from mpo_tutorial.degradation import CALIBRATION
from mpo_tutorial.families import KNOWN, PAPERS_PARTS, USUAL_PARTS, known_config
from mpo_tutorial.finetune import locked
from mpo_tutorial.fitting import input_moments
from mpo_tutorial.ledger import Ledger, Row, Trained
from mpo_tutorial.linalg import relative_error
from mpo_tutorial.model import (
    compress,
    count,
    decompress,
    is_compressed,
    load,
    load_classifier,
    outline,
    quiet_transformers,
    refused,
)
from mpo_tutorial.plots import styled
from mpo_tutorial.sources import EMBEDDED_MODELS, model_path
from mpo_tutorial.truncation import truncate

INCHES_PER_MATRIX = 0.3


def known() -> tuple[str, ...]:
    """Models whose ledger needs no network."""
    return (*EMBEDDED_MODELS, *KNOWN)


def look_at(
    name: str, n_cores: int | None = None, max_bond: int | None = None, which: Sequence[str] | None = None
) -> Trained:
    """A model's ledger and what light fine-tuning would train of it. One that has MPOs already is looked at as it is.

    Parameters
    ----------
    name : str
        One of `families.KNOWN`, whose config is enough; the path of a config.json; or what `sources.model_path` takes, then with
        the weights, for the errors.
    n_cores : int, optional
        Of each MPO; where none is given, as many as the MPOs of the model have, else `RunConfig.cores`.
    which : sequence of str, optional
        As in `families.matrices`; without it what the paper decomposes: embedding, attention, feed-forward, pooler.

    Raises
    ------
    ValueError, FileNotFoundError, ConnectionError
        As in `model_path`, `load_classifier`, `compress`; or if a file is no config.
    """
    if name in KNOWN:
        model = outline(known_config(name))
    elif name.endswith(".json"):
        model = outline(_config(name))
    else:
        model, _ = load_classifier(model_path(name), 2, seed=0)
    if not is_compressed(model, n_cores, which):
        dense = count(model.base_model)
        return Trained(name, dense, compress(model, n_cores or RunConfig.cores, max_bond, which or PAPERS_PARTS))
    if max_bond is not None:
        raise ValueError(f"{name} is compressed, and looked at as it is; cut it by compress without --report")
    return Trained(name, count(decompress(model).base_model), Ledger.of(model))


def draw(view: Trained, folder: Path) -> Path:
    """Write a model's ledger as a picture, a bar a matrix."""
    rows = view.ledger.rows
    with styled(1, (12, 2 + INCHES_PER_MATRIX * len(rows))) as (figure, (ax,)):
        result_plots.ledger(ax, {row.label: Ledger((row,)) for row in rows}).set_title(view.name)
    path = folder / f"ledger-{re.sub(r'[^A-Za-z0-9.-]+', '-', view.name)}.png"
    result_plots.save(figure, path, f"Central and auxiliary numbers of the {len(rows)} matrices of {view.name}")
    return path


def save_compressed(
    name: str,
    out: Path,
    n_cores: int | None = None,
    which: Sequence[str] | None = None,
    limits: Mapping[str, float] | None = None,
    fit_to: str | None = None,
) -> Ledger:
    """Compress a model, cut it, and write it with its head and its tokenizer to a folder. One that has MPOs is cut only.

    A head that predicts masked words is left out if there is a pooler, which it would displace.

    Parameters
    ----------
    limits : mapping, optional
        max_bond, cutoff, ratio or n_params: how `truncate` is told to cut. Without one the bonds stay full.
    fit_to : str, optional
        A task, to whose training sentences the cut is fitted.

    Raises
    ------
    ValueError, FileNotFoundError, ConnectionError, OSError
        As in `look_at`, `truncate` and `load_task`; or if the folder cannot be written.
    """
    path = model_path(name)
    model, tokenizer = load(path, _auto_class(path))
    compressed = is_compressed(model, n_cores, which)
    n_cores = n_cores or RunConfig.cores
    ledger = Ledger.of(model) if compressed else compress(model, n_cores, which=which or USUAL_PARTS)
    if limits:
        moments = None
        if fit_to is not None:
            texts = [text for text, _ in load_task(fit_to).train(None)[:CALIBRATION]]
            moments = input_moments(model, tokenizer, texts, max_length=RunConfig.max_length, progress=True)
        whole = {row.name: model.get_submodule(row.name).mpo.to_matrix() for row in ledger.rows}
        truncate(model, **limits, moments=moments, progress=True)
        cut = {name: model.get_submodule(name) for name in whole}
        ledger = Ledger(
            tuple(Row.of(name, cut[name], relative_error(cut[name].mpo.to_matrix(), whole[name])) for name in whole)
        )
    with locked(out):
        _save(model, tokenizer, out)
    return ledger


def _save(model, tokenizer, out: Path) -> None:
    """Write both to a folder inside of `out` first: what cannot be written whole leaves there what was there."""
    try:
        with TemporaryDirectory(dir=out) as partial, quiet_transformers():
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            for file in Path(partial).iterdir():
                os.replace(file, out / file.name)
    except SafetensorError as error:  # how a full disk is reported
        raise OSError(f"could not write the model to {out}: {error}") from error


def _auto_class(path: str) -> type:
    """The Auto class that loads a model with the head that it was saved with; AutoModel if it knows no such head.

    And AutoModel if the head predicts masked words and the files hold a pooler, as those of BERT and ALBERT do: classifiers
    need it, and the class that the config names would leave it out.
    """
    import transformers

    from mpo_tutorial.architectures import HEADS

    config = _config(path)
    autos = [getattr(transformers, head) for head in HEADS]
    named = config.architectures or [""]
    auto = next(
        (auto for auto in autos if getattr(auto._model_mapping.get(type(config), None), "__name__", None) in named),
        autos[0],
    )
    if auto is not transformers.AutoModelForMaskedLM:
        return auto
    return autos[0] if any("pooler." in name for name in stored.shapes_in(stored.weight_files(path))) else auto


def _config(path: str):
    from transformers import AutoConfig

    if path.endswith(".json") and not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; give the config.json of a model")
    with refused(f"{path} is no config.json of a model that transformers knows"):
        return AutoConfig.from_pretrained(path)
