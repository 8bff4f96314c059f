"""The widgets with ipywidgets 7.7.1, as on Colab, beside the installed version. Only the kernel's side, not Colab's page."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import warm
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

COLAB = "7.7.1"
FOLDER = Path(sys.prefix) / "ipywidgets-7"  # Makefile's test-installed puts it there


@pytest.fixture
def with_colabs_version() -> dict[str, str]:
    """An environment in which `import ipywidgets` finds Colab's."""
    if not (FOLDER / "ipywidgets").is_dir():
        install = (
            f"{sys.executable} -m pip install --no-deps --target {FOLDER} ipywidgets=={COLAB} ipython_genutils==0.2.0"
        )
        pytest.fail(f"Colab's ipywidgets is missing; type: {install}")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(FOLDER), os.getenv("PYTHONPATH")]))}


@pytest.mark.parametrize("tests", ["test_widgets.py", pytest.param("test_record_widgets.py", marks=pytest.mark.full)])
def test_the_tests_of_the_widgets_pass(tests, with_colabs_version):
    code = "import ipywidgets, pytest, sys; print(ipywidgets.__version__); sys.exit(pytest.main(sys.argv[1:]))"
    # Its use of ipykernel.comm.Comm is deprecated, and ours to bear as long as Colab has it.
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    done = warm.python("-c", code, *options, Path(__file__).with_name(tests), env=with_colabs_version)
    assert done.stdout.splitlines()[0] == COLAB
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("wanted", [COLAB, version("ipywidgets")])
def test_a_slider_moved_in_a_kernel_sends_the_page_new_words(wanted, with_colabs_version, tmp_path):
    make = new_code_cell("""
import ipywidgets, numpy as np
from mpo_tutorial import widgets

box = widgets.rank_explorer(np.eye(3))
print(ipywidgets.__version__)
box
""")
    move = new_code_cell("box.children[0].value = 3")
    notebook = new_notebook(cells=[make, move])
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    with warm.kernels():
        client.execute(env=with_colabs_version if wanted == COLAB else dict(os.environ))
    assert make.outputs[0].text == f"{wanted}\n"
    assert "application/vnd.jupyter.widget-view+json" in make.outputs[1].data
    sent = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    (words,) = (widget["state"]["value"] for widget in sent if widget["model_name"] == "HTMLModel")
    assert "Rank 3 of 3" in words
