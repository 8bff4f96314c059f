"""What the command `decompose` does: a model decomposed, cut, and written to a folder."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError

from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.tasks import load_task
from mpo_tutorial.experiments.tuned import CALIBRATION
from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.shapes import N_CORES
from mpo_tutorial.models.activations import Inputs
from mpo_tutorial.models.convert import decompose, is_decomposed
from mpo_tutorial.models.families import USUAL
from mpo_tutorial.models.ledger import Ledger, Row
from mpo_tutorial.models.loading import auto_class, load_pretrained, quiet_transformers
from mpo_tutorial.models.sources import model_path
from mpo_tutorial.models.truncation import Cut, truncate


def save_compressed(
    name: str,
    out: Path,
    n_cores: int | None = None,
    matrices: str | None = None,
    cut: Cut | None = None,
    fit_to: str | None = None,
) -> Ledger:
    """Compress a model, cut it, and write it with its head and its tokenizer to a folder. One that has MPOs is cut only.

    A head that predicts masked words is left out if there is a pooler, which it would displace.

    Parameters
    ----------
    cut : Cut, optional
        Without one the bonds stay full.
    fit_to : str, optional
        A task, to whose training sentences the cut is fitted.

    Raises
    ------
    ValueError, FileNotFoundError, ConnectionError, OSError
        As in `look_at`, `truncate` and `load_task`; or if the folder cannot be written.
    """
    path = model_path(name)
    model, tokenizer = load_pretrained(path, auto_class(path))
    compressed = is_decomposed(model, n_cores, matrices)
    n_cores = n_cores or N_CORES
    ledger = Ledger.of(model) if compressed else decompose(model, n_cores, matrices=matrices or USUAL)
    if cut is not None:
        moments = None
        if fit_to is not None:
            texts = [text for text, _ in load_task(fit_to).train(None)[:CALIBRATION]]
            moments = Inputs(tokenizer, texts, RunConfig.max_length)
        whole = {row.name: model.get_submodule(row.name).mpo.to_matrix() for row in ledger.rows}
        truncate(model, **vars(cut), moments=moments, progress=True)
        layers = {name: model.get_submodule(name) for name in whole}
        ledger = Ledger(
            tuple(
                Row.of(name, layers[name], relative_error(layers[name].mpo.to_matrix(), whole[name])) for name in whole
            )
        )
    with locked(out):
        save_model(model, tokenizer, out)
    return ledger


def save_model(model, tokenizer, out: Path) -> None:
    """Write both to a folder, by one inside of it: what cannot be written whole leaves there what was there."""
    out.mkdir(exist_ok=True)
    try:
        with TemporaryDirectory(dir=out) as partial, quiet_transformers():
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            for file in Path(partial).iterdir():
                os.replace(file, out / file.name)
    except SafetensorError as error:  # how a full disk is reported
        raise OSError(f"could not write the model to {out}: {error}") from error
