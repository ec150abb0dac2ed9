"""The leaderboard takes no file's word for anything, shows what is in the files, and works in a browser."""

import copy
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser, browser

import jaxmas
from jaxmas import anchors, leaderboard, result_files
from jaxmas.cli import main
from jaxmas.errors import JaxmasError
from jaxmas.experiments import leaderboard as own_files
from jaxmas.statistics import probability_of_improvement

MIXED, POOL, PROBE = "workflow-mixed-v0", "workflow-pool-v0", "probe-context-v0"
HOSTILE = "</script><img src=x onerror=alert(1)>"


def setting(scenario: str = MIXED, executor: str = "frozen-90") -> dict[str, Any]:
    env, params = jaxmas.make(scenario)
    sizes = {"num_agents": env.num_agents, "coordination_interval": env.coordination_interval}
    return {"scenario": scenario, **sizes, "executor": executor, "files": {}, "params": anchors.params_hash(params)}


def estimate(mean: float, half: float = 0.02) -> dict[str, Any]:
    return {"mean": mean, "ci95": [mean - half, mean + half]}


def result(name: str = "a", rewards: tuple[float, ...] = (0.3, 0.32, 0.34), **changes: Any) -> dict[str, Any]:
    """Return a sound result; ``scenario``, ``success``, ``cost`` and any part of ``entry`` can be given."""
    scenario, executor = changes.pop("scenario", MIXED), changes.pop("executor", "frozen-90")
    others = {"success": changes.pop("success", 0.4), "cost": changes.pop("cost", 0.5)}
    learned = len(rewards) > 1
    budget = {"plays": 1000, "runs": len(rewards), "command": "jaxmas train …", "trains_executors": False}
    entry = {"name": name, "kind": "learned" if learned else "strategy", "by": "jaxmas", "link": None, "about": None}
    found = {
        "format": result_files.FORMAT,
        "setting": setting(scenario, executor),
        "protocol": {"split": "test", "seed": 0, "queries": 2048, "replicates": 1},
        "entry": {**entry, "training": budget if learned else None, "status": "self-reported", **changes},
        "artifact": None,
        "verification": None,
        "provenance": {"versions": {"jax": "0.10"}, "commit": "0123abcd", "date": "2026-11-28", "device": "cpu: cpu"},
        "metrics": {"reward": estimate(float(np.mean(rewards))), **{key: estimate(x) for key, x in others.items()}},
        "runs": [
            {"seed": 100 + run if learned else None, "metrics": {"reward": reward, **others}}
            for run, reward in enumerate(rewards)
        ],
    }
    return {**found, "score": result_files.score(found["setting"], found["metrics"]["reward"])}


def kept(folder: Path, results: list[dict[str, Any]]) -> Path:
    for number, one in enumerate(results):
        result_files.write(folder / f"{number}.json", one)
    return folder


# --- result files


def test_a_sound_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = result(link="https://example.org/a?b=1", about="what it does")
    result_files.write(tmp_path / "a.json", written)
    assert result_files.read(tmp_path / "a.json") == written


def test_the_score_is_that_of_the_anchors() -> None:
    anchor = anchors.frozen_anchors()[f"{MIXED}/agents=16/interval=12/frozen-90"]
    gap = anchor["strategy"]["mean"] - anchor["random"]["mean"]
    expected = [(reward - anchor["random"]["mean"]) / gap for reward in (0.32, 0.30, 0.34)]
    found = result()["score"]
    assert [found["mean"], *found["ci95"]] == pytest.approx(expected)
    assert result_files.score(setting(PROBE, "act"), estimate(0.5)) is None


def change(path: str, value: Any) -> Callable[[dict], Any]:
    """Return a function that sets what stands at a path of names and numbers."""

    def changed(found: dict) -> None:
        *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in way:
            found = found[step]
        found[last] = value

    return changed


VERIFIED = {"queries": 64, "seeds": "0" * 64, "reward": estimate(0.3), **dict.fromkeys(result_files.MADE_BY)}
BAD: dict[str, tuple[Callable[[dict], Any], str]] = {
    "other format": (change("format", "jaxmas-result-2"), "format is 'jaxmas-result-2'"),
    "missing key": (lambda found: found["entry"].pop("name"), "entry.name is missing"),
    "unknown key": (lambda found: found["entry"].update(nme="b"), "'entry.nme' does not belong here; did you"),
    "unknown top key": (lambda found: found.update(extra=1), "'extra' does not belong"),
    "no object": (change("setting", []), "setting is []; it has to be an object"),
    "text for a number": (change("protocol.queries", "2048"), "protocol.queries is '2048'; it has to be a whole"),
    "truth for a number": (change("setting.num_agents", True), "setting.num_agents is True"),
    "one for a truth": (change("entry.training.trains_executors", 1), "trains_executors is 1"),
    "part of an agent": (change("setting.num_agents", 16.5), "setting.num_agents is 16.5"),
    "endless number": (change("metrics.reward.mean", math.inf), "metrics.reward.mean is inf; it has to be a finite"),
    "huge number": (change("metrics.reward.mean", 10**400), "it has to be a finite"),
    "long interval": (change("metrics.reward.ci95", [0.1, 0.2, 0.3]), "metrics.reward.ci95 is [0.1, 0.2, 0.3]"),
    "mean outside": (change("metrics.reward.ci95", [0.4, 0.5]), "has to lie within its ci95, 0.4 to 0.5"),
    "interval turned round": (change("metrics.cost.ci95", [0.6, 0.4]), "metrics.cost.mean is 0.5"),
    "mean of no runs": (change("runs.0.metrics.reward", 0.9), "the mean of the runs is 0.52; they have to agree"),
    "success above 1": (
        lambda found: (
            found["metrics"].update(success=estimate(1.5)),
            [run["metrics"].update(success=1.5) for run in found["runs"]],
        ),
        "between 0 and 1",
    ),
    "run without a metric": (
        lambda found: found["runs"][1]["metrics"].pop("cost"),
        "runs[1] and metrics differ in cost",
    ),
    "odd name of a metric": (
        lambda found: found["metrics"].update({"<b>": estimate(1.0)}),
        "a name in metrics is '<b>'",
    ),
    "unknown scenario": (change("setting.scenario", "workflow-mixd-v0"), "did you mean 'workflow-mixed-v0'"),
    "other parameters": (change("setting.params", "0" * 16), "the installed workflow-mixed-v0 has 28fb3d017e1bbe87"),
    "unknown executor": (change("setting.executor", "runs/mine"), "setting.executor is 'runs/mine'"),
    "other number of agents": (change("setting.num_agents", 8), "it was changed, or is of another version"),
    "impossible interval": (change("setting.coordination_interval", 5), "divide"),
    "file of another scenario": (change("setting.files", {"map": "0" * 64}), "is made of no such file"),
    "better score": (change("score", estimate(1.3)), "score has 1.3 where the anchors give"),
    "no score": (change("score", None), "score is null; with this reward it is"),
    "score of own executors": (change("entry.training.trains_executors", True), "score has to be null"),
    "unknown kind": (change("entry.kind", "best"), "entry.kind is 'best'"),
    "untrained learner": (change("entry.training", None), "say how a learned method was trained"),
    "trained strategy": (change("entry.kind", "strategy"), "no training makes a strategy"),
    "run left out": (lambda found: found["runs"].append(copy.deepcopy(found["runs"][0])), "entry.training.runs is 3"),
    "seed twice": (change("runs.1.seed", 100), "two of the runs have the same seed"),
    "no seed": (change("runs.1.seed", None), "a run's seed is null"),
    "no name": (change("entry.name", ""), "entry.name is ''"),
    "absurdly long name": (change("entry.name", "a" * 500), "one line of 1 to 60 printable characters"),
    "markup": (change("entry.name", HOSTILE), "without < and >"),
    "name of two lines": (change("entry.name", "a\nb"), "printable"),
    "name that turns text round": (change("entry.name", "a\u202eb"), "printable"),
    "half a character": (change("entry.name", "a\ud800"), "printable"),
    "script for a link": (change("entry.link", "javascript:alert(1)"), "an address that begins with https://"),
    "quote in a link": (change("entry.link", 'https://example.org/"x'), "an address that begins with https://"),
    "no date": (change("provenance.date", "yesterday"), "a date as 2026-01-31"),
    "verified by nobody": (change("entry.status", "verified"), "verification is null for a verified row"),
    "verified in secret": (change("verification", VERIFIED), "verification has to be null"),
    "verified on public queries": (
        lambda found: (
            found["entry"].update(status="verified"),
            found.update(verification=VERIFIED, artifact="0" * 64),
        ),
        "protocol.seed has to be null for a verified row",
    ),
    "own status": (change("entry.status", "best"), "'self-reported' or 'verified'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_clear_line(name: str) -> None:
    found = result()
    spoil, hint = BAD[name]
    spoil(found)
    with pytest.raises(JaxmasError) as error:
        result_files.checked(found)
    assert hint in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("\x00", "cannot be read as JSON"),
        ('{"format": NaN}', "it holds NaN"),
        ('{"format": -Infinity}', "it holds -Infinity"),
        ('{"format": "a", "format": "b"}', "it gives 'format' twice"),
        ("[]", "its format is None"),
        (" " * result_files.LARGEST + "{}", "has more than"),
    ],
    ids=range(8),
)
def test_a_file_that_is_none_is_refused_by_name(
    text: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "bad.json", tmp_path / "page.html"
    kept(tmp_path, [result()])
    file.write_text(text)
    assert main(["leaderboard", "build", str(tmp_path), "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"error: {file}: ") and hint in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "bad.json"]


def test_the_projects_own_files_are_sound() -> None:
    files = leaderboard.find([leaderboard.default_source()])
    results = leaderboard.load(files)
    assert {one["entry"]["by"] for one in results} == {own_files.BY}
    assert all(file.stat().st_size < 20_000 for file in files)
    named = {one["entry"]["name"] for one in results if one["setting"]["scenario"] == MIXED}
    assert {"meta-skill", "masrouter", "roles-by-skill", "random", "depth-3 rule"} <= named


# --- files of what the studies keep


def test_own_files_are_made_of_what_is_kept(tmp_path: Path) -> None:
    levels = {metric: estimate(level) for metric, level in {"reward": 0.2, "success": 0.3, "cost": 0.1}.items()}
    world = {"params": setting(POOL)["params"], "test": 2048}
    again = f"cheap-first{own_files.AGAIN}"
    rows = {name: {**levels, "by_family": {}} for name in ("random", "mesh", again, "best fixed plan")}
    rewards = {
        "depth-3 rule": {"reward": estimate(0.25)},
        "best plan per query": {"low": estimate(0.3), "queries": 512},
    }
    folder, out = tmp_path / "designers_pool", tmp_path / "out"
    folder.mkdir()
    (folder / "strategies.json").write_text(json.dumps(world | {"strategies": rows}))
    (folder / "references.json").write_text(json.dumps(world | {"references": rewards}))
    kept(out, [result("no longer played"), result("not ours", by="somebody")])
    own_files.main(own_files.Settings(tmp_path, out))
    found = {one["entry"]["name"]: one for one in map(result_files.read, sorted(out.rglob("*.json")))}
    assert set(found) == {
        "random",
        "mesh",
        "cheap-first",
        "best fixed plan",
        "depth-3 rule",
        own_files.LOWER,
        "not ours",
    }
    kinds = {name: one["entry"]["kind"] for name, one in found.items()}
    assert [kinds[name] for name in ("random", "mesh", "best fixed plan")] == ["random", "strategy", "reference"]
    assert found["cheap-first"]["setting"]["coordination_interval"] == 3 and found["cheap-first"]["score"] is None
    assert found[own_files.LOWER]["protocol"]["queries"] == 512
    assert set(found["depth-3 rule"]["metrics"]) == {"reward"}


def test_a_trained_system_becomes_a_file() -> None:
    part = own_files.ceiling_systems.PARTS["systems"]
    system = part.systems["coupled"]
    trained = {"reward": [0.1, 0.3], "success": [0, 1], "cost": [0.5, 0.7]}
    made = {"commit": "0123abcd", "device": "cpu: cpu", "python": "3.11", "versions": {"jax": "0.10"}}
    runs = [{"seed": seed, "provenance": made, "trained": trained} for seed in (100, 101)]
    name = own_files.method_name("systems", part, "coupled")
    found = own_files.of_system(part, name, system, {"plays": 48, "test": 2, "runs": runs}, "python -m …")
    assert result_files.checked(found)["entry"]["name"] == "metaagent-x, coupled"
    assert found["metrics"]["reward"]["mean"] == 0.2 and found["runs"][1]["metrics"]["success"] == 0.5
    assert found["entry"]["training"]["trains_executors"] and found["score"] is None
    assert (
        own_files.method_name("ceiling", own_files.ceiling_systems.PARTS["ceiling"], "frozen-60, frozen")
        == "meta-skill"
    )


# --- the board


def test_chances_are_those_of_the_protocol() -> None:
    x, y, one = (0.3, 0.32, 0.5), (0.31, 0.32), (0.4,)
    assert leaderboard.chance(one, one) is None
    by_hand = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(x, y)])
    view = leaderboard.board([result("x", x), result("y", y), result("z", one)])["views"][-1]
    names = [row["name"] for row in view["rows"]]
    assert names == ["z", "x", "y"]
    found = view["wins"][1][0]
    assert found[0] == pytest.approx(by_hand, abs=1e-4)
    assert found[1:] == pytest.approx(probability_of_improvement(x, y).ci95, abs=1e-4)
    assert view["wins"][0][0][0] == pytest.approx(2 / 3, abs=1e-4)
    assert [len(row) for row in view["wins"]] == [2, 1, 0]


def test_rows_are_ranked_by_reward_and_references_are_not() -> None:
    rule = result("rule", (0.9,), kind="reference")
    view = leaderboard.board([result("worse", (0.1,)), rule, result("better", (0.2, 0.4))])["views"][-1]
    assert [(row["name"], row["rank"]) for row in view["rows"]] == [("rule", None), ("better", 1), ("worse", 2)]
    anchor = anchors.frozen_anchors()[f"{MIXED}/agents=16/interval=12/frozen-90"]
    assert view["anchors"] == pytest.approx([anchor[end]["mean"] for end in ("random", "strategy")], abs=1e-3)


def test_settings_are_not_mixed() -> None:
    views = leaderboard.board([result(), result(executor="scripted"), result("b", executor="scripted")])["views"]
    assert [view["id"] for view in views] == [
        "overall",
        f"{MIXED}/16/12/frozen-90",
        f"{MIXED}/16/12/scripted",
    ]
    assert views[2]["scores"] == 0 and len(views[2]["rows"]) == 2


def test_overall_is_the_mean_over_scenarios() -> None:
    everywhere = [result("a", (0.2, 0.3), scenario=scenario) for scenario in (MIXED, POOL)]
    once = result("b", (0.5, 0.6))
    unscored = result("c", (0.9, 1.0), scenario=PROBE, executor="act")
    view = leaderboard.board([*everywhere, once, unscored])["views"][0]
    assert view["scenarios"] == [MIXED, POOL]
    assert [(row["name"], row["rank"], len(row["scores"])) for row in view["rows"]] == [("a", 1, 2), ("b", None, 1)]
    scores = [one["score"] for one in everywhere]
    mean = np.mean([score["mean"] for score in scores])
    below = math.hypot(*(score["mean"] - score["ci95"][0] for score in scores)) / 2
    assert view["rows"][0]["score"][:2] == pytest.approx([mean, mean - below], abs=1e-5)
    assert view["rows"][0]["metrics"]["cost"][0] == pytest.approx(0.5)
    assert "reward" not in view["rows"][0]["metrics"] and view["rows"][0]["runs"] == 4
    assert view["wins"] == [[[0.0, 0.0, 0.0]], []]


def test_overall_chances_are_of_shared_settings() -> None:
    results = [result(name, rewards, scenario=scenario) for scenario in (MIXED, POOL)
               for name, rewards in (("a", (0.2, 0.4)), ("b", (0.3, 0.3)))]  # fmt: skip
    results.append(result("c", (0.1, 0.2), scenario=POOL))
    view = leaderboard.board(results)["views"][0]
    assert [row["name"] for row in view["rows"]] == ["a", "b", "c"]
    assert view["wins"][0][0][0] == pytest.approx(0.5) and view["wins"][0][0][1] < 0.5
    # The settings' own order does not matter: a run of c comes to 0.2, as one of a does.
    assert view["wins"][0][1][0] == pytest.approx(0.875)


# --- the page


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    results = [result("a"), result("b", (0.2,)), result("c", scenario=POOL)]
    pages = []
    for name, order in (("1", results), ("2", results[::-1])):
        leaderboard.build([kept(tmp_path / name, order)], tmp_path / f"{name}.html")
        pages.append((tmp_path / f"{name}.html").read_bytes())
    assert pages[0] == pages[1]


def test_the_command_tells_what_it_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = kept(tmp_path / "in", [result(), result("b", (0.2,))]), tmp_path / "new" / "page.html"
    words = ["leaderboard", "build", str(folder), "--out", str(out)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"out": str(out), "results": 2, "views": {"overall": 2, f"{MIXED}/16/12/frozen-90": 2}}
    assert main(words) == 0
    assert "2 result files" in capsys.readouterr().out
    assert [file.name for file in out.parent.iterdir()] == ["page.html"]


def test_what_cannot_be_built_leaves_the_old_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = kept(tmp_path / "in", [result(), result("a", (0.1, 0.2))]), tmp_path / "page.html"
    out.write_text("old")
    for sources, hint in (
        ([folder], "holds the same method in the same setting"),
        ([tmp_path / "nowhere"], "does not exist"),
        ([tmp_path / "empty"], "holds no result file"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main(["leaderboard", "build", *map(str, sources), "--out", str(out)]) == 2
        assert hint in capsys.readouterr().err
    assert main(["leaderboard", "build", str(folder), "--out", str(tmp_path / "in")]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert out.read_text() == "old"


def test_text_cannot_leave_its_place(tmp_path: Path) -> None:
    """The page holds, even if a check of files should miss something."""
    page = leaderboard.page(leaderboard.board([result(HOSTILE, about=HOSTILE)]))
    assert "<img" not in page and page.count("</script>") == 2
    data = re.search(r'id="data">(.*?)</script>', page)
    assert data and json.loads(data[1])["views"][-1]["rows"][0]["name"] == HOSTILE


def test_the_page_asks_for_nothing_from_outside() -> None:
    page = leaderboard.page(leaderboard.board([result()]))
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|<script[^>]* src", page)
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,"]
    assert "default-src 'none'" in page and "$" not in re.sub(r"(?s)<script>.*</script>", "", page)


# --- in a browser


def many() -> list[dict[str, Any]]:
    """Return sixty methods of all kinds, some of them everywhere, one verified, one with executors of its own."""
    rng = np.random.default_rng(0)
    results = []
    for number in range(56):
        rewards = tuple(rng.uniform(-0.1, 0.4, 1 if number % 3 == 0 else 4))
        options = {"success": float(rng.uniform(0.1, 0.6)), "cost": float(rng.uniform(0.05, 2.0))}
        results.append(result(f"method {number}", rewards, **options))
    budget = {"plays": 10, "runs": 2, "command": None, "trains_executors": True}
    results.append({**result("co-trained", (0.5, 0.5), training=budget), "score": None})
    results += [result("rule", (0.3,), kind="reference"), result("random", (-0.1,), kind="random")]
    results.append(result("checked", (0.3, 0.4), status="verified", by="somebody else", link="https://example.org/"))
    return results + [result(f"method {number}", (0.1, 0.2), scenario=POOL) for number in (1, 2)]


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    return leaderboard.board(many())


@pytest.fixture(scope="module")
def page(board: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "leaderboard.html"
    file.write_text(leaderboard.page(board))
    return file


@pytest.fixture
def opened(tab: Browser, page: Path) -> Browser:
    tab.open(page)
    choose(tab, "view", f"{MIXED}/16/12/frozen-90")
    return tab


def choose(tab: Browser, select: str, value: Any) -> None:
    place = f"document.getElementById({json.dumps(select)})"
    tab.run(f"{place}.value = {json.dumps(value)}; {place}.dispatchEvent(new Event('change'))")


def texts(tab: Browser, selector: str) -> list[str]:
    return tab.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.textContent)")


def names(tab: Browser) -> list[str]:
    return texts(tab, "tr.row td.c-name button")


@needs_chromium
def test_it_loads_without_complaint_or_request(tab: Browser, page: Path) -> None:
    tab.open(page)
    assert tab.run("document.getElementById('view').value") == "overall"
    assert names(tab)[:2] != [] and texts(tab, "#plot .point")
    choose(tab, "view", f"{MIXED}/16/12/frozen-90")
    assert len(names(tab)) == 60
    tab.run("for (const one of document.querySelectorAll('button')) one.click()")
    assert tab.complaints == []
    assert tab.requests == [page.resolve().as_uri()]


@needs_chromium
def test_it_sorts_by_click_and_by_key(opened: Browser) -> None:
    assert texts(opened, "th[aria-sort]") == ["#"]
    for order, sign in (("ascending", 1), ("descending", -1)):
        opened.run("document.querySelector('[data-sort=cost]').click()")
        assert opened.run("document.querySelector('[data-sort=cost]').parentNode.ariaSort") == order
        costs = [sign * float(text) for text in texts(opened, "tr.row td.c-cost")]
        assert costs == sorted(costs) and len(costs) == 60
    opened.run("document.querySelector('[data-sort=name]').focus()")
    opened.press("Enter")
    assert names(opened)[:2] == ["checked", "co-trained"]
    assert opened.run("document.activeElement.dataset.sort") == "name"


@needs_chromium
def test_it_filters_by_kind_and_by_text(opened: Browser) -> None:
    opened.run("document.querySelector('[data-chip=learned]').click()")
    assert opened.run("document.querySelector('[data-chip=learned]').ariaPressed") == "false"
    assert len(names(opened)) == 21 and "method 1" not in names(opened)
    opened.run(
        "const box = document.getElementById('find'); box.value = 'METHOD 3'; box.dispatchEvent(new Event('input'))"
    )
    assert sorted(names(opened)) == ["method 3", "method 30", "method 33", "method 36", "method 39"]
    assert texts(opened, "#count") == ["5 of 60 methods"]
    opened.run("box.value = 'nobody'; box.dispatchEvent(new Event('input'))")
    assert names(opened) == [] and opened.run("document.getElementById('none').hidden") is False


@needs_chromium
def test_a_row_opens_and_tells_where_it_is_from(opened: Browser) -> None:
    row = "[...document.querySelectorAll('td.c-name button')].find(one => one.textContent === 'checked')"
    opened.run(f"{row}.focus()")
    opened.press("Enter")
    assert opened.run(f"{row}.ariaExpanded") == "true"
    (detail,) = texts(opened, "tr.detail")
    for words in ("somebody else", "verified", "2 runs of 1,000 plays", "0123abcd", "2,048 test queries", "jax 0.10"):
        assert words in detail
    assert opened.run("document.querySelector('tr.detail a').href") == "https://example.org/"
    assert "own executors" in "".join(texts(opened, "tr.row .tag"))


@needs_chromium
def test_two_rows_are_compared(opened: Browser, board: dict[str, Any]) -> None:
    view = board["views"][1]
    at = {row["name"]: place for place, row in enumerate(view["rows"])}
    first, second = sorted((at["method 1"], at["method 2"]))
    chance = view["wins"][first][second - first - 1][0]
    choose(opened, "a", str(first))
    choose(opened, "b", str(second))
    assert float(texts(opened, "#odds")[0]) == pytest.approx(chance, abs=0.006)
    opened.run("document.getElementById('swap').click()")
    assert float(texts(opened, "#odds")[0]) == pytest.approx(1 - chance, abs=0.006)
    choose(opened, "a", str(at["rule"]))
    choose(opened, "b", str(at["random"]))
    assert texts(opened, "#odds") == [] and "no probability" in texts(opened, "#verdict")[0]


@needs_chromium
def test_the_front_is_marked_and_walked_by_keys(opened: Browser, board: dict[str, Any]) -> None:
    rows = board["views"][1]["rows"]
    points = [(row["metrics"]["cost"][0], row["metrics"]["success"][0]) for row in rows]
    cost, success = np.array(points).T
    beaten = [np.any((cost <= c) & (success >= s) & ((cost < c) | (success > s))) for c, s in points]
    assert len(texts(opened, ".point")) == 60
    assert len(texts(opened, ".point.best")) == sum(not one for one in beaten)
    opened.run("document.querySelector('.point[tabindex=\"0\"]').focus()")
    before = opened.run("document.activeElement.dataset.cost")
    opened.press("ArrowRight")
    assert float(opened.run("document.activeElement.dataset.cost")) > float(before)
    assert "success" in texts(opened, ".tip")[0]


@needs_chromium
def test_nothing_scrolls_sideways_on_a_phone(tab: Browser, page: Path) -> None:
    tab.open(page, 360, 800, dark=True)
    for view in tab.run("DATA.views.map(view => view.id)"):
        choose(tab, "view", view)
        tab.run("for (const one of document.querySelectorAll('.more, td.c-name button')) one.click()")
        assert tab.run("document.documentElement.scrollWidth") == 360
        right = "[...document.querySelectorAll('body *')].map(one => one.getBoundingClientRect().right)"
        assert tab.run(f"Math.max(...{right})") <= 361
    assert tab.run("getComputedStyle(document.querySelector('thead')).display") == "none"
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(23, 27, 32)"
    choose(tab, "order", "cost")
    assert tab.run("document.getElementById('turn').textContent") == "↑"
    assert tab.complaints == []


@needs_chromium
def test_hostile_text_stays_text(tab: Browser, tmp_path: Path) -> None:
    hostile = result(HOSTILE, by=HOSTILE, about=HOSTILE, link="javascript:alert(1)")
    hostile["provenance"]["commit"] = HOSTILE
    file = tmp_path / "page.html"
    file.write_text(leaderboard.page(leaderboard.board([hostile, result("b")])))
    tab.open(file)
    tab.run("for (const one of document.querySelectorAll('td.c-name button')) one.click()")
    assert HOSTILE in names(tab)
    assert HOSTILE in "".join(texts(tab, "tr.detail"))
    assert tab.run("document.images.length + document.querySelectorAll('main a').length") == 0
    assert tab.complaints == [] and len(tab.requests) == 1
