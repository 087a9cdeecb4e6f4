"""Sphinx builds these pages with MyST; `make docs` fails on any warning."""

from headrace import __version__

project = "Headrace"
author = "the Headrace developers"
copyright = "2026, the Headrace developers"  # noqa: A001  (Sphinx's name)
release = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "Headrace"
