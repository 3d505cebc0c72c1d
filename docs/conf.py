"""Sphinx's configuration of the documentation site.

The source directory is the checkout, not this folder: links between pages, models' READMEs and the changelog are then
the same files on a git host and in the site. Nothing is fetched from a network, neither while building nor by a page.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

DOCS = Path(__file__).resolve().parent
# What is described is this checkout, whatever is installed.
sys.path[:0] = [str(DOCS / "_extensions"), str(DOCS.parent)]

project = "sensorium-pipeline"
copyright = "the authors of sensorium-pipeline; Apache-2.0"
release = version = installed_version("sensorium-pipeline")
language = "en"
root_doc = "docs/index"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "breakable_names",
    "command_help",
    "gallery_guards",
    "gallery_links",
    "site_root",
    "network_sources",
    "thumbnail_texts",
]

include_patterns = [
    "docs/*.md",
    "docs/command-help.rst",
    "docs/api/*.rst",
    "docs/api/*/*.rst",
    "docs/gallery/*.rst",
    "docs/gallery/*/*.rst",
    "models/README.md",
    "models/*/README.md",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "notebooks/*.ipynb",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
# Folders that the search for pages does not enter.
exclude_patterns = [
    ".*", "build", "demo", "runs", "deploy", "flows", "sensorium_data", "tests", "*.egg-info", "**/__pycache__",
    "docs/examples", "docs/gallery/images", "docs/gallery/*/images",
]  # fmt: skip

# A reference to a name that does not exist is an error; `api_pages` says which names exist.
nitpicky = True

# Pages
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
# What was committed is shown. The tests run the notebooks.
nb_execution_mode = "off"
# No page asks a content delivery network for the scripts of widgets.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

toc_object_entries_show_parents = "hide"

# Docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# As the source has them: a function's representation is no Python, and no signature with it can be read.
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_google_docstring = True  # flows describe their parameters in this style
napoleon_numpy_docstring = True
# Types in prose ("str, optional") are not names to link.
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Gallery
sphinx_gallery_conf = {
    "examples_dirs": ["docs/examples"],
    "gallery_dirs": ["docs/gallery"],
    "filename_pattern": r"plot_",
    "subsection_order": [
        f"docs/examples/{name}" for name in ("recordings", "neurons", "behavior", "sessions", "predictions", "stores")
    ],
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    # Twice the size that they are shown in (docs/_static/site.css), for screens of high density.
    "thumbnail_size": (640, 448),
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    # Times differ from build to build.
    "min_reported_time": 1e9,
    "remove_config_comments": True,
    "plot_gallery": True,
    "abort_on_example_error": True,
    "matplotlib_animations": False,
    "reset_modules": ("matplotlib", "gallery_guards.heed_warnings"),
    "reset_modules_order": "both",
    "show_api_usage": False,
    "copyfile_regex": r"GALLERY_HEADER\.rst",
}

# Appearance
# Options begin with two hyphens, which are to be copied.
smartquotes = False
html_theme = "pydata_sphinx_theme"
html_title = "sensorium-pipeline"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "sensorium-pipeline"},
    "header_links_before_dropdown": 8,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
