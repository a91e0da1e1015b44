"""Sphinx configuration: `make docs`."""

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
# Names of other libraries; linking them would require their indices from the network.
nitpick_ignore_regex = [("py:.*", r"(?!simclr_tf\.)\w+\..*")]

# The same rendering as on GitHub.
highlight_language = "none"
myst_heading_anchors = 3
# Only dashes are converted, as between a parameter and its description.
smartquotes_action = "D"

# Notebooks are shown with their stored outputs; `make notebook` and a test run them.
nb_execution_mode = "off"
exclude_patterns = ["runs"]  # written by the notebook
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
html_show_search_summary = False  # a page that is opened from a disk cannot read other pages


def setup(app: Sphinx) -> None:
    """Registers the event handlers; called by Sphinx."""
    app.connect("missing-reference", _resolve_public_name)
    app.add_autodoc_attrgetter(type, _get_attribute)
    app.connect("autodoc-process-docstring", _add_option_help)
    # autodoc_preserve_defaults reads the source, which does not contain the options of these.
    for owner in (simclr_tf, simclr_tf.Run):
        for name in dir(owner):
            if hasattr(function := getattr(owner, name), "__signature__"):
                vars(function).pop("__wrapped__", None)


def _resolve_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Resolves annotations, which name the defining module, to the public package."""
    module, _, name = node["reftarget"].rpartition(".")
    if not module.startswith("simclr_tf"):
        return None
    node["refspecific"] = True
    python = env.domains.python_domain
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, text)


def _get_attribute(cls: type, name: str, *default: Any) -> Any:
    """Documents a model by `__init__`, because keras.Model defines a generic `__new__`."""
    if name == "__new__" and issubclass(cls, keras.Model):
        name = "__init__"
    return safe_getattr(cls, name, *default)


def _add_option_help(app, what, name, documented, settings, lines) -> None:
    """Adds the help of options, which is not in the docstring, as parameters."""
    if what == "class" and issubclass(documented, OptionGroup):
        for field in option_fields(documented):
            help_text = re.sub(r"--\w+(=\w+)?", r"`\g<0>`", field.metadata["help"])
            lines.append(f":param {field.name}: {help_text}")
