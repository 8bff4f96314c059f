"""What every chapter's first cell does, besides its imports and constants."""

import random

import numpy as np
import torch

from mpo_tutorial.course import plots
from mpo_tutorial.models.sources import model_path


def set_up(seed: int, model: str | None = None) -> None:
    """Prepare a notebook: seeds, the style of the figures, and advice for cells that are run too early.

    Parameters
    ----------
    seed : int
        For the generators of Python, NumPy and torch.
    model : str, optional
        What the chapter loads, so that its absence shows here and not twenty cells later.

    Raises
    ------
    FileNotFoundError, ConnectionError
        If the model is not to be had, with what to install.
    """
    import matplotlib.pyplot as plt
    from IPython import get_ipython

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    plt.rcParams.update(plots.STYLE)
    if model is not None:
        model_path(model)
    if shell := get_ipython():
        shell.set_custom_exc((NameError,), _say_what_to_run)


def _say_what_to_run(shell, kind: type, error: NameError, traceback, tb_offset: int | None = None) -> None:
    advice = (
        "Cells build on those above them. If this name is made further up, choose Run > Run All Above Selected Cell, then run "
        "this cell again."
    )
    error.args = (f"{error}\n{advice}",)  # Colab's IPython 7.34 shows no notes
    shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
