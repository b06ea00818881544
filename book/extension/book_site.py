"""What this book's site needs beyond the settings of Jupyter Book."""

import csv
import re
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from sphinx.util.fileutil import copy_asset

TIMINGS = "book/timings.csv"
MATHJAX = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2")


def add_repository_buttons(app, config):
    """Show the buttons that need the repository's address, once it has one."""
    theme = config.html_theme_options
    if theme["repository_url"]:
        theme["use_repository_button"] = True
        theme["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }


def add_cpu_time(app, doctree):
    """Put the measured CPU time under the title of a chapter."""
    folder, _, chapter = app.env.docname.partition("/")
    if folder != "notebooks":
        return
    app.env.note_dependency(TIMINGS)
    with open(Path(app.srcdir, TIMINGS), encoding="utf-8") as file:
        measured = {row["what"]: row["value"] for row in csv.DictReader(file)}
    if chapter in measured:
        text = f"Runs in {float(measured[chapter]):.0f} s of CPU time on one core."
        line = nodes.paragraph("", text, classes=["cpu-time"])
        title = next(doctree.findall(nodes.title))
        title.parent.insert(title.parent.index(title) + 1, line)


def polish_docstring(app, what, name, obj, options, lines):
    """Set shapes as code, and link "Chapter 04" once there is a chapter 04."""
    chapters = {
        Path(doc).name[:2]: doc
        for doc in app.env.found_docs
        if doc.startswith("notebooks/")
    }

    def as_code(shape_field):
        return re.sub(r"\(.*?\)", r"``\g<0>``", shape_field[0])

    def as_link(mention):
        doc = chapters.get(mention[1])
        return f":doc:`{mention[0]} </{doc}>`" if doc else mention[0]

    text = "\n".join(lines)
    text = re.sub(r"^:Shape: (.+\n)+", as_code, text, flags=re.MULTILINE)
    lines[:] = re.sub(r"\bChapter (\d\d)\b", as_link, text).split("\n")


def drop_thebe(app, pagename, templatename, context, doctree):
    """Leave out the live-code script: it reports errors and we do not use it."""
    for key in ("script_files", "css_files"):
        context[key] = [
            file
            for file in context[key]
            if "thebe" not in f"{file.filename}{file.attributes.get('body')}"
        ]


def repair_roles(app, pagename, templatename, context, doctree):
    """Say in the HTML what keyboards and screen readers need to know."""

    def without_lists(signature):
        return re.sub(r"<(/?)d[ld]>", r"<\1div>", signature[0])

    body = context.get("body", "")
    # A wide table scrolls inside its box: the keyboard must be able to reach it.
    body = body.replace(
        '<div class="pst-scrollable-table-container">',
        '<div class="pst-scrollable-table-container" tabindex="0" role="group"'
        ' aria-label="Table">',
    )
    # The lines of a signature are no list of definitions.
    body = re.sub(r'<dt class="sig .*?</dt>', without_lists, body, flags=re.DOTALL)
    # A bibliography is a list, and its entries are the items.
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def copy_mathjax(app, error):
    """Serve MathJax from the site: the 2 MB that pages load, out of 24."""
    source = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax"
    for part in MATHJAX if error is None else ():
        target = Path(app.outdir, "_static/mathjax", part)
        copy_asset(source / part, target.parent if target.suffix else target)


def setup(app):
    """Connect each of the above to the moment when Sphinx needs it."""
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("config-inited", add_repository_buttons, priority=100)
    app.connect("doctree-read", add_cpu_time)
    app.connect("autodoc-process-docstring", polish_docstring, priority=900)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", repair_roles)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
