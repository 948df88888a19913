"""The pages as a site: sphinx-build -W docs build/docs, which a test does; a dead link or anchor is an error."""

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

import ostraka

lexers["hex"] = TextLexer()  # format/ shows bytes

project = "Ostraka"
author = "the Ostraka authors"
version = release = ostraka.__version__
extensions = ["myst_parser"]
myst_heading_anchors = 3  # as forges make them, so that a link works on both
nitpicky = True
html_theme = "alabaster"
html_title = f"Ostraka {release}"
html_show_sourcelink = False
html_theme_options = {
    "description": "Durable object storage that pip install brings",
    "fixed_sidebar": True,
    "page_width": "1100px",
    "body_max_width": "none",
}
