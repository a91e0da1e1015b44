"""The site of these pages: `make docs`."""

import re
from typing import Any

import tf_keras as keras
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import safe_getattr

import simclr_tf
from simclr_tf.options import OptionGroup, option_fields

project = "simclr_tf"
release = simclr_tf.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True
# What others define; to link it, their indices would have to be asked for over the network.
nitpick_ignore_regex = [("py:.*", r"(?!simclr_tf\.)\w+\..*")]

# What GitHub makes of the same pages.
highlight_language = "none"
myst_heading_anchors = 3
# Quotes stay as they are; only what Sphinx sets between a parameter and its words is a dash.
smartquotes_action = "D"

# A notebook shows the outputs that it was stored with; `make notebook` runs it, and so does a test.
nb_execution_mode = "off"
exclude_patterns = ["runs"]  # what the notebook leaves
nb_merge_streams = True

# Docstrings mark code as Markdown does.
default_role = "code"
napoleon_use_ivar = True
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"simclr_tf {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
pygments_dark_style = "github-dark"  # Furo's underlines the names of modules
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # a page that lies on a disk may not read the others


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("missing-reference", _where_it_is_public)
    app.add_autodoc_attrgetter(type, _attribute)
    app.connect("autodoc-process-docstring", _help_of_options)


def _where_it_is_public(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Annotations name a class where it is defined; its package is where it is to be had from."""
    place, _, name = node["reftarget"].rpartition(".")
    if not place.startswith("simclr_tf"):
        return None
    node["refspecific"] = True
    python = env.domains.python_domain
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, text)


def _attribute(of: type, name: str, *default: Any) -> Any:
    """Every keras.Model has a `__new__` of any arguments; what a model takes, `__init__` says."""
    if name == "__new__" and issubclass(of, keras.Model):
        name = "__init__"
    return safe_getattr(of, name, *default)


def _help_of_options(app, what, name, documented, settings, lines) -> None:
    """An option has its help in config.py alone, and not in a docstring."""
    if what == "class" and issubclass(documented, OptionGroup):
        for field in option_fields(documented):
            told = re.sub(r"--\w+(=\w+)?", r"`\g<0>`", field.metadata["help"])
            lines.append(f":param {field.name}: {told}")
