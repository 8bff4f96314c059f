import random
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import warm

from mpo_tutorial.course import notebook, plots


@pytest.fixture(autouse=True)
def _style_as_before():
    with plt.rc_context():
        yield


def drawn(seed: int) -> tuple[float, float, float]:
    notebook.set_up(seed)
    return random.random(), np.random.random(), torch.rand(()).item()


def test_all_generators_follow_the_seed():
    first, again, other = drawn(0), drawn(0), drawn(1)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_figures_get_the_style_of_the_course():
    notebook.set_up(0)
    assert plots.STYLE.items() <= plt.rcParams.items()


def test_a_model_that_is_not_to_be_had_is_refused_at_once():
    with pytest.raises(ValueError, match="unknown model 'no such model'"):
        notebook.set_up(0, model="no such model")
    notebook.set_up(0, model="minilm")


@pytest.mark.parametrize(
    ("code", "name", "advised"), [("made_further_up", "NameError", True), ("1 / 0", "ZeroDivisionError", False)]
)
def test_advice_stands_under_a_missing_name_and_under_no_other_error(code, name, advised):
    """In IPython itself, which must fail all the same: else Run All would go on."""
    done = warm.python("-m", "IPython", "--colors=NoColor", "-c", f"import mpo_tutorial as mt; mt.set_up(0)\n{code}")
    assert done.returncode == 1
    assert re.search(rf"^{name}: ", done.stdout, re.MULTILINE)
    assert ("Run > Run All Above" in done.stdout) == advised
