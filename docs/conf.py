"""Sphinx: the pages of this folder, and a reference from the docstrings. `make docs` builds into build/docs."""

from __future__ import annotations

from prunesearch._version import __version__

project = "prunesearch"
author = "The prunesearch authors"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"prunesearch {version}"
html_show_copyright = False

# Pages are plain Markdown, so that they read the same on GitHub. Every heading is an anchor; a link to a page, file or
# anchor that does not exist is a warning, and warnings fail the build (-W).
myst_heading_anchors = 4
myst_links_external_new_tab = True

# The notebook is kept without outputs; the build runs it, and an error there fails the build.
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_in_temp = True  # it saves a network
nb_execution_raise_on_error = True

# Docstrings are Google's style, with `names` in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_use_ivar = True  # attributes in the docstring of their class, not once more each
napoleon_use_rtype = False
python_use_unqualified_type_names = True

# -n: a reference to a name of ours that is not in the reference, or not at all, is a warning. Names of other libraries
# cannot be looked up without a network.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|np|npt|numpy|nn|os|Path|pathlib|Tensor|Module|collections|fx)\b.*"),
    (r"py:.*", r"(typing\.Literal|tuple)\[.*"),  # cut apart at their commas on the way
    (
        r"py:class",
        r"Source|Ranking|Metric|Callback|Batch|Rule|Known|Role|Masking|Statistics|Say|Train|AnyVerifier|AnyBudget|BudgetOrSet|Recorder|Progress|Axes|DataFrame|Conditions|Layer|Use|Built|Timing|abc\.ABC|Mapping\[str"
        r"|prunesearch\.models\.(coupling|linear_map|traced|operators|corrections)\.\w+|prunesearch\.resources\.resource\.Traced",
    ),  # aliases; what is inside a network
    (r"py:class", r".* .*"),  # the first line of a property's docstring, if it has a colon, is taken for a type
]

copybutton_prompt_text = "$ "
