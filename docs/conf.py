"""How Sphinx builds the site.

    sphinx-build --fail-on-warning --nitpicky --keep-going -c docs . build/docs

Its pages are all of this repository, so that the README and what lies in folders beside docs/ can be linked from
anywhere. Links are checked, also those to headings: one that leads nowhere is a warning. Nothing is fetched.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from pygments.lexers.special import TextLexer
from pygments.lexers.sql import PostgresLexer

import liveness

ROOT: Final = Path(__file__).resolve().parents[1]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# [`deploy/nats/`](../deploy/nats/)
LINK: Final = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)#:]+)\)")

project = PROJECT["name"]
version = release = liveness.__version__

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/reference/*.md", "schemas/README.md"]
exclude_patterns = [".*", "build", "dist", "liveness", "node_modules", "tests"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"{project} {version}"
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
# Leads from the top to docs/index.html.
html_extra_path = ["site"]


def without_links_to_folders(app: Any, document: str, source: list[str]) -> None:
    """Leave the text of a link that leads to a folder of the repository: the site has pages and files alone."""
    place = (Path(app.srcdir) / document).parent

    def text_or_link(link: re.Match[str]) -> str:
        return link["text"] if (place / link["target"]).is_dir() else link[0]

    source[0] = LINK.sub(text_or_link, source[0])


def setup(app: Any) -> None:
    """Take part in the build."""
    # Statements have Postgres' parameters, $1; and nobody knows the language of NATS' settings.
    app.add_lexer("sql", PostgresLexer)
    app.add_lexer("conf", TextLexer)
    app.connect("source-read", without_links_to_folders)
