"""How Sphinx, with MyST-NB, makes the book. CONTRIBUTING.md says why these two."""

from importlib.util import find_spec
from pathlib import Path

project = html_title = "mpo_tutorial"
extensions = ["myst_nb"]
myst_enable_extensions = ["amsmath", "dollarmath"]

nb_execution_mode = "force"
nb_execution_in_temp = True  # so that the exercises' progress is not kept in the sources
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "warn"
nb_merge_streams = True
nb_ipywidgets_js = {}  # the default fetches require.js

# The MathJax that the notebooks are written for, as one file: it draws with paths and needs no fonts.
mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg-full.js"
mathjax_path = mathjax.name

html_theme = "furo"
html_static_path = ["book.css", str(mathjax)]
html_css_files = ["book.css"]
html_copy_source = False
html_use_index = False
html_show_copyright = False
