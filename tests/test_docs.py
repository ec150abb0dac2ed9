"""The documents say what is so: their code runs, their commands parse, their links and tables hold."""

import dataclasses
import importlib.util
import json
import re
import shlex
import sys
import types
import typing
from pathlib import Path

import jax
import pytest

import jaxmas
from jaxmas import catalog, registry
from jaxmas.algorithms.meta_skill import MetaSkillConfig
from jaxmas.environments.workflow.observe import feature_size
from jaxmas.environments.workflow.params import WorkflowParams, role_names
from jaxmas.environments.workflow.query import QueryMix
from jaxmas.errors import JaxmasError
from jaxmas.registry import ALGORITHMS, DESIGN_SPACES, EXECUTORS, SCENARIOS, STRATEGIES

ROOT = Path(__file__).resolve().parent.parent
DOCS = tuple(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS)
WITH_CODE = ("README.md", "CONTRIBUTING.md")

assert catalog.SCENARIOS is SCENARIOS


def read(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a language, each with the number of lines before its first one."""
    text = read(page)
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: match.start(1)].count("\n"), match[1]) for match in found]


def spans(page: str) -> list[str]:
    """Return the code spans within the prose."""
    prose = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def table(page: str, first: str, second: str = "") -> dict[str, list[str]]:
    """Return the rows of the table whose head begins with ``first`` and ``second``, by the name in their first cell."""
    rows, inside = {}, False
    for line in read(page).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        inside = bool(cells) and (inside or cells[:2] == [first, second or cells[1]])
        if inside and not rows.get(cells[0]):
            rows[cells[0].strip("`")] = cells[1:]
    return {name: cells for name, cells in rows.items() if name != first and not set(name) <= set("-")}


@pytest.fixture
def own_registries(monkeypatch) -> None:
    """Let what a document registers be forgotten."""
    for value in vars(registry).values():
        if isinstance(value, registry.Registry):
            monkeypatch.setattr(value, "_entries", dict(value._entries))


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_runs(page, own_registries, monkeypatch) -> None:
    module = types.ModuleType(f"docs_{Path(page).stem.lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = blocks(page, "python")
    assert found
    for above, code in found:
        # Empty lines above keep the page's own line numbers in a traceback.
        exec(compile("\n" * above + code, str(ROOT / page), "exec", dont_inherit=True), module.__dict__)


def command_lines() -> list[str]:
    """Return the calls of ``jaxmas`` in the documents: shell lines, and spans that name a command and an argument."""
    shell = [line for page in PAGES for _, block in blocks(page, "sh") for line in block.splitlines()]
    prose = [span for page in PAGES for span in spans(page) if len(span.split()) > 2 and "…" not in span]
    return sorted({line for line in shell + prose if line.startswith("jaxmas ")})


@pytest.mark.parametrize("line", command_lines())
def test_command_parses(line) -> None:
    cli = pytest.importorskip("jaxmas.cli")
    words = shlex.split(line, comments=True)[1:]
    try:
        command = cli._parse(words)
    except JaxmasError as error:
        pytest.fail(str(error))
    assert isinstance(command, cli.COMMANDS[words[0]][0])


def test_every_command_has_an_example() -> None:
    cli = pytest.importorskip("jaxmas.cli")
    shown = {
        line.split()[1] for _, block in blocks("README.md", "sh") for line in block.splitlines() if "jaxmas " in line
    }
    assert set(cli.COMMANDS) <= shown


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_and_modules_exist(page) -> None:
    text, makefile = read(page), read("Makefile")
    for target in set(re.findall(r"(?:`|^ *)make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
    for module in set(re.findall(r"python -m ([\w.]+)", text)):
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page) -> None:
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target.split("#")[0]).resolve().exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_is_left(page) -> None:
    assert not re.findall(r"\{\{.*?\}\}", read(page))


@pytest.mark.parametrize("page", PAGES)
def test_no_absolute_path(page) -> None:
    assert not re.findall(r"(?<![\w./:-])/(?:work|home|root|tmp|usr)\b", read(page))


@pytest.mark.parametrize("page", PAGES)
def test_scenario_names_are_registered(page) -> None:
    named = set(re.findall(r"\b(?:workflow|probe|signal|warehouse)-[a-z]+-v\d+\b", read(page)))
    assert named <= set(SCENARIOS.names())


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert all(picture.stat().st_size < 200_000 for picture in pictures)


def test_readme_lists_the_scenarios() -> None:
    rows = table("README.md", "scenario", "agents")
    rows = {name: cells for name, cells in rows.items() if len(cells) == 3}
    assert {name: (int(cells[0]), cells[2].strip("`")) for name, cells in rows.items()} == {
        entry.name: (entry.value.num_agents, entry.value.executor) for entry in SCENARIOS
    }


@pytest.mark.parametrize(
    ("head", "known"),
    [
        ("strategy", STRATEGIES),
        ("algorithm", ALGORITHMS),
        ("design space", DESIGN_SPACES),
        ("executor", EXECUTORS),
    ],
)
def test_readme_lists_what_is_registered(head, known) -> None:
    assert sorted(table("README.md", head)) == sorted(known.names())


def test_readme_lists_the_learners() -> None:
    assert tuple(table("README.md", "learner")) == typing.get_args(typing.get_type_hints(MetaSkillConfig)["learner"])


def test_readme_gives_the_accuracies_of_the_executors() -> None:
    measured = json.loads((ROOT / "jaxmas" / "data" / "executors.json").read_text())
    rows = table("README.md", "executor")
    for name, values in measured.items():
        if not name.startswith("workflow"):
            continue
        cells = rows[f"frozen-{name.rsplit('-', 1)[1]}"]
        wanted = [values["single_matched"], *values["by_number_of_parents"]]
        assert [float(cell) for cell in cells[1:]] == pytest.approx(wanted, abs=5.1e-4)


def test_changelog_has_this_version() -> None:
    assert f"## [{jaxmas.__version__}]" in read("CHANGELOG.md")


def test_workflow_page_gives_the_sizes() -> None:
    for name, cells in table("docs/workflow.md", "scenario").items():
        env, _ = jaxmas.make(name)
        space = env.plan_space
        sizes = [env.num_agents, space.num_tasks, space.num_tiers, space.inbox, env.horizon]
        assert [int(cell) for cell in cells] == sizes, name
    assert set(table("docs/workflow.md", "scenario")) == {
        entry.name for entry in SCENARIOS if entry.family == "workflow"
    }


def test_workflow_page_names_parameters_roles_and_metrics() -> None:
    text, known = read("docs/workflow.md"), set(spans("docs/workflow.md"))
    for fields in (QueryMix, WorkflowParams):
        assert {field.name for field in dataclasses.fields(fields)} <= known
    assert set(role_names(4)) - known <= {"specialist-1", "specialist-2"}
    assert f"{feature_size(4)} numbers with four skills" in " ".join(text.split())
    env, params = jaxmas.make("workflow-mixed-v0")

    def metrics(key):
        state, _ = env.reset(key, params)
        actions = jax.numpy.zeros(env.num_agents, int)
        return env.step(key, state, actions, params)[1].metrics

    assert set(jax.eval_shape(metrics, jax.random.key(0))) <= known
