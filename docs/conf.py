"""The documentation site: `make docs`. Its pages need no network when they are read."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_site"))

import samgan

project = "samgan"
author = "The samgan authors"
copyright = "The samgan authors"
version = release = samgan.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "pages",  # ours, in _site/
]
exclude_patterns = ["_site", "_build", "diagrams", "pictures"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # levels of headings are a matter of taste

smartquotes = False  # -- is an option
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes_style")]
python_maximum_signature_line_length = 88
add_module_names = False

copybutton_only_copy_prompt_lines = False

html_theme = "furo"
html_title = f"samgan {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"footer_icons": []}

# Address of the repository: pages then link to its files. Without one, they only name the files.
repository = os.environ.get("SAMGAN_REPOSITORY", "").rstrip("/")
if repository:
    html_theme_options |= {"source_repository": repository, "source_branch": "main", "source_directory": "docs/"}
