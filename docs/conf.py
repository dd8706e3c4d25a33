"""The site of these pages: `make docs`. Nothing is downloaded, and every warning is an error."""

project = "prefect-snakemake"
html_title = project
html_theme = "furo"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

extensions = ["myst_parser"]
myst_heading_anchors = 3
"""A heading has the anchor that GitHub gives it, so links hold in both places."""

suppress_warnings = ["misc.highlighting_failure"]
"""No lexer knows an answer that is shortened with `…`."""
