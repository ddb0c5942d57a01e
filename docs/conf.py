"""How Sphinx builds the documentation: offline, warnings are errors (`make docs`)."""

from importlib.metadata import version as installed_version

project = "circuitgraph"
author = "circuitgraph developers"
copyright = "circuitgraph developers"
release = installed_version("circuitgraph-lens")
version = release

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "conf.py", "notebooks.py", "**/__pycache__", "**/__init__.py"]

# Pages are Markdown; the examples are percent scripts, run when the documentation is built.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_output_stderr = "remove"  # hints of other packages on what could be installed

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "circuitgraph"
