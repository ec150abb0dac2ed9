"""The documentation builds without a warning, has a page for everything, and asks for nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmas.catalog import ALGORITHMS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return out


def test_everything_has_a_page(site: Path) -> None:
    pages = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    assert {f"algorithms/{name}.html" for name in ALGORITHMS.names()} <= pages
    assert {f"tables/{table.stem}.html" for table in (ROOT / "experiments" / "results").glob("*.md")} <= pages
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} | {"index.html", "contributing.html"} <= pages


def test_links_lead_to_what_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for target in re.findall(r'(?:href|src)="?([^"\s>#]+)', text):
            if not re.match(r"[a-z]+:|//|/", target):
                assert (page.parent / target.split("?")[0]).exists(), f"{page.relative_to(site)}: {target}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loads = r'<(?:script|img|iframe)[^>]*src="?(https?:[^"\s>]+)|<link[^>]*href="?(https?:[^"\s>]+)'
        assert re.findall(loads, page.read_text()) == [], page
