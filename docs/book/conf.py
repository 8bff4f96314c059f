"""How Sphinx, with MyST-NB, makes the book. CONTRIBUTING.md says why these two."""

from importlib.util import find_spec
from pathlib import Path

project = html_title = "mpo_tutorial"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3  # the chapters link to the glossary's words

# The types stand in the docstrings, in words: as links they would lead out of the book, to pages of others.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = napoleon_use_rtype = False
default_role = "code"

nb_execution_mode = "off"  # make_book.py has run the chapters
nb_output_stderr = "warn"
nb_merge_streams = True
nb_ipywidgets_js = {}  # the default fetches require.js

# The MathJax that the notebooks are written for, as one file: it draws with paths and needs no fonts.
mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg-full.js"
mathjax_path = mathjax.name

html_theme = "furo"
html_static_path = ["book.css", "chain.js", "widgets.js", str(mathjax)]
html_css_files = ["book.css"]
html_js_files = ["chain.js", "widgets.js"]
html_copy_source = False
html_use_index = False
html_show_copyright = False
