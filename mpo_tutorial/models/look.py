"""A model looked at: its ledger and what light fine-tuning would train of it, with or without its weights."""

from mpo_tutorial.maths.shapes import N_CORES
from mpo_tutorial.models.convert import count, decompose, decompress, is_decomposed, outline
from mpo_tutorial.models.families import KNOWN, PAPERS, config_by_name
from mpo_tutorial.models.ledger import Ledger, Trained
from mpo_tutorial.models.loading import load, read_config
from mpo_tutorial.models.sources import EMBEDDED_MODELS


def offline_models() -> tuple[str, ...]:
    """Models whose ledger needs no network."""
    return (*EMBEDDED_MODELS, *KNOWN)


def look_at(name: str, n_cores: int | None = None, max_bond: int | None = None, matrices: str | None = None) -> Trained:
    """A model's ledger and what light fine-tuning would train of it. One that has MPOs already is looked at as it is.

    Parameters
    ----------
    name : str
        One of `families.KNOWN`, whose config is enough; the path of a config.json; or what `sources.model_path` takes, then with
        the weights, for the errors.
    n_cores : int, optional
        Of each MPO; where none is given, as many as the MPOs of the model have, else `shapes.N_CORES`.
    matrices : str, optional
        As in `families.split_words`; without it what the paper decomposes: embedding, attention, feed-forward, pooler.

    Raises
    ------
    ValueError, FileNotFoundError, ConnectionError
        As in `model_path`, `load`, `decompose`; or if a file is no config.
    """
    if name in KNOWN:
        model = outline(config_by_name(name))
    elif name.endswith(".json"):
        model = outline(read_config(name))
    else:
        model, _ = load(name, 2, seed=0)
    if not is_decomposed(model, n_cores, matrices):
        dense = count(model.base_model)
        return Trained(name, dense, decompose(model, n_cores or N_CORES, max_bond, matrices or PAPERS))
    if max_bond is not None:
        raise ValueError(f"{name} is compressed, and looked at as it is; cut it by compress without --report")
    return Trained(name, count(decompress(model).base_model), Ledger.of(model))
