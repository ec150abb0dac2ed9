"""What the documentation shows besides docs/*.md: the README, a page per algorithm, and every published table.

A hook of mkdocs. Links are written for a reader of the repository; here they are turned towards the page that a file
becomes, and towards a copy of the file where it becomes none.
"""

import dataclasses
import inspect
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
TABLES = "experiments/results"
NAMES = {
    "workflow.md": "The workflow environment",
    "warehouse.md": "The warehouse environment",
    "scaling.md": "Scaling",
    "designers.md": "Designers",
    "training.md": "Training executors",
    "sweeps.md": "Sweeps",
    "devices.md": "Several devices and hosts",
    "protocol.md": "The protocol",
    "results.md": "Results",
    "leaderboard.md": "The leaderboard",
    "submissions.md": "Submissions",
}


def place_of(path: str) -> str:
    """Return where a file of the repository is on the site."""
    if path in TOP:
        return TOP[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(f"{TABLES}/") and path.count("/") == 2 and path.endswith((".md", ".png")):
        return path.replace(TABLES, "tables")
    return f"source/{path}"


def source_of(place: str) -> str:
    """Return which file of the repository a page of the site is; the inverse of ``place_of``."""
    at_top = {site: path for path, site in TOP.items()}
    if place in at_top:
        return at_top[place]
    if place.startswith("tables/"):
        return place.replace("tables", TABLES, 1)
    return f"docs/{place}"


def algorithm_pages() -> dict[str, str]:
    """Return a page per algorithm: what its file says, and its settings."""
    from jaxmas.catalog import ALGORITHMS

    pages = {}
    for entry in ALGORITHMS:
        said = inspect.getdoc(inspect.getmodule(entry.value)) or ""
        title, _, rest = said.partition("\n")
        default = entry.value()
        rows = [f"| `{one.name}` | `{getattr(default, one.name)!r}` |" for one in dataclasses.fields(default)]
        lines = [f"# {entry.name}", "", title, rest.replace("``", "`"), "", "## Settings", ""]
        lines += [f"`jaxmas train {entry.name} SCENARIO --out DIR --algo.SETTING VALUE`", ""]
        lines += ["| setting | default |", "|---|---|", *rows, ""]
        pages[f"algorithms/{entry.name}.md"] = "\n".join(lines)
    return pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from other files."""
    for path, place in TOP.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for file in sorted((ROOT / TABLES).glob("*.*")):
        if file.suffix in (".md", ".png"):
            files.append(File.generated(config, f"tables/{file.name}", abs_src_path=str(file)))
    for place, content in algorithm_pages().items():
        files.append(File.generated(config, place, content=content))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the order of the pages."""
    tables = sorted(file.name for file in (ROOT / TABLES).glob("*.md"))
    config.nav = [
        {"Quick start": "index.md"},
        *({name: place} for place, name in NAMES.items()),
        {"Algorithms": [{page.split("/")[1].removesuffix(".md"): page} for page in algorithm_pages()]},
        {"Tables": [{name.removesuffix(".md").replace("_", " "): f"tables/{name}"} for name in tables]},
        {"Contributing": "contributing.md"},
        {"Changes": "changelog.md"},
    ]
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository to where these are on the site; those to folders become plain text."""
    here = source_of(page.file.src_uri)

    def turned(found: re.Match[str]) -> str:
        text, target, anchor = found["text"], found["target"], found["anchor"] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        file = ROOT / path
        if not file.is_file():
            return text if file.exists() else found[0]
        place = place_of(path)
        if place.startswith("source/") and files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(file)))
        towards = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
        return f"{found['mark']}[{text}]({towards}{anchor})"

    return re.sub(r"(?P<mark>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)", turned, markdown)
