"""Name the packages: the top-level folders are found on disk, so that a new sub-package is never forgotten."""

from setuptools import find_packages, setup

FOLDERS = ("environments", "algorithms", "experiments")

# The links jaxmas/environments and so on are skipped: a source archive and a checkout without links have none.
core = find_packages(
    include=["jaxmas", "jaxmas.*"],
    exclude=[name for folder in FOLDERS for name in (f"jaxmas.{folder}", f"jaxmas.{folder}.*")],
)
linked = find_packages(include=[name for folder in FOLDERS for name in (folder, f"{folder}.*")])

setup(packages=core + [f"jaxmas.{name}" for name in linked])
