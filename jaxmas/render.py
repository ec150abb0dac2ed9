"""Pictures of a query: one frame per step, a final picture that tells the story, and an animation.

What is drawn is up to the environment family's renderer, a module with ``read`` (state to what a frame shows) and
``draw`` (that to a matplotlib figure). A query is played with the keys that ``evaluation.play`` uses, so that the
picture of a test query shows the episode that its table counted.
"""

import dataclasses
import functools
import importlib
import io
import os
import secrets
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxmas.distributions import invert
from jaxmas.errors import JaxmasError, did_you_mean
from jaxmas.types import Environment, Executor, MetaPolicy

RENDERERS = {
    "workflow": "jaxmas.environments.workflow.render",
    "warehouse": "jaxmas.environments.warehouse.render",
}
"""Environment family to the module that draws it."""
MAX_FRAMES = 40
"""An animation of a longer query shows this many of its steps, evenly spread."""
FRAME_MS, LAST_FRAME_MS = 900, 4000
SIZE_INCHES = (12.0, 7.6)
DPI = 100
REPORT_BYTES = 120_000
"""What a picture within a report may weigh."""


@dataclasses.dataclass(frozen=True)
class Before:
    """What led to a state: the state before, what was shown of it, and the executors' actions; None for a new plan."""

    state: Any
    scene: Any
    actions: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Story:
    """A query from its first plan to its end: what a frame shows of every step, on the host."""

    scenario: str
    policy: str
    scenes: list[Any]
    reward: float
    """The team's reward, summed over the query."""


@runtime_checkable
class Renderer(Protocol):
    """What the module of an environment family offers."""

    def read(self, env: Any, params: Any, state: Any, before: Before | None) -> Any:
        """Return what a frame shows of a state on the host."""
        ...

    def draw(self, figure: Any, story: Story, index: int) -> None:
        """Draw the story up to one of its scenes."""
        ...


def renderer_of(env: Environment) -> Any:
    """Return the renderer of an environment's family."""
    if env.family not in RENDERERS:
        raise JaxmasError(f"no renderer for environment {env.family!r}; {did_you_mean(env.family, list(RENDERERS))}")
    return importlib.import_module(RENDERERS[env.family])


def show(
    scenario: str,
    env: Environment,
    params: Any,
    policy_name: str,
    meta: MetaPolicy,
    meta_params: Any,
    executor: Executor,
    executor_params: Any,
    out: Path,
    key: PRNGKeyArray,
) -> list[Path]:
    """Play one query and write its last frame as ``query.png`` and all frames as ``query.gif``."""
    story = tell(scenario, env, params, policy_name, meta, meta_params, executor, executor_params, key)
    renderer = renderer_of(env)
    images = [_image(renderer, story, index) for index in frame_indices(len(story.scenes))]
    # Both are complete before either file appears.
    files = {out / "query.png": _png(images[-1]), out / "query.gif": _gif(images)}
    for path, data in files.items():
        _write(path, data)
    return list(files)


def query_png(
    scenario: str,
    env: Environment,
    params: Any,
    policy_name: str,
    meta: MetaPolicy,
    meta_params: Any,
    executor: Executor,
    executor_params: Any,
    key: PRNGKeyArray,
) -> bytes:
    """Play one query and return its last frame as a PNG small enough to stand in a report."""
    story = tell(scenario, env, params, policy_name, meta, meta_params, executor, executor_params, key)
    return story_png(env, story)


def story_png(env: Environment, story: Story, max_bytes: int = REPORT_BYTES) -> bytes:
    """Return a story's last frame as a PNG of at most ``max_bytes``, at a lower resolution where need be."""
    dpi, data = DPI, b""
    while dpi >= DPI // 2:
        data = _png(_image(renderer_of(env), story, len(story.scenes) - 1, dpi))
        if len(data) <= max_bytes:
            return data
        dpi -= 15
    raise JaxmasError(f"the picture takes {len(data)} bytes, more than {max_bytes}, at the lowest resolution")


def tell(
    scenario: str,
    env: Environment,
    params: Any,
    policy_name: str,
    meta: MetaPolicy,
    meta_params: Any,
    executor: Executor,
    executor_params: Any,
    key: PRNGKeyArray,
) -> Story:
    """Play the query of ``key`` step by step under its first replicate's noise, as ``evaluation.play`` does."""
    read = functools.partial(renderer_of(env).read, env, params)
    noise = jax.random.fold_in(key, 1)
    state, meta_carry, carry = _begin(env, params, meta, executor, key, noise)
    scenes: list[Any] = []
    total, earlier = 0.0, None
    for interval_key in jax.random.split(noise, env.horizon // env.coordination_interval):
        state, observation, meta_carry, uniforms, keys = _plan(
            env, params, meta, meta_params, meta_carry, state, interval_key
        )
        before = Before(earlier, scenes.pop(), None) if scenes else None
        earlier = jax.device_get(state)
        scenes.append(read(earlier, before))
        for uniform, step_key in zip(uniforms, keys, strict=True):
            if env.is_over(state):
                return Story(scenario, policy_name, scenes, total)
            state, observation, carry, reward, actions = _act(
                env, params, executor, executor_params, (state, observation, carry), uniform, step_key
            )
            before = Before(earlier, scenes[-1], np.asarray(actions))
            earlier = jax.device_get(state)
            scenes.append(read(earlier, before))
            total += float(reward)
    return Story(scenario, policy_name, scenes, total)


@functools.partial(jax.jit, static_argnames=("env", "meta", "executor"))
def _begin(env, params, meta, executor, key, noise):
    state, _ = env.reset(key, params)
    return env.reseed(noise, state, params), meta.init(), executor.init(env.num_agents)


@functools.partial(jax.jit, static_argnames=("env", "meta"))
def _plan(env, params, meta, meta_params, carry, state, key):
    """Plan and apply the plan; also draw the interval's random numbers as ``rollout.play_interval`` does."""
    plan_key, coordinate_key, sample_key, step_key = jax.random.split(key, 4)
    plan, carry, _ = meta.apply(meta_params, carry, env.observe_team(state, params), plan_key)
    state, observation = env.coordinate(coordinate_key, state, plan, params)
    uniforms = jax.random.uniform(sample_key, (env.coordination_interval, env.num_agents))
    return state, observation, carry, uniforms, jax.random.split(step_key, env.coordination_interval)


@functools.partial(jax.jit, static_argnames=("env", "executor"))
def _act(env, params, executor, executor_params, episode, uniform, key):
    state, observation, carry = episode
    carry, distribution = executor.apply(executor_params, carry, observation, observation.acting, key)
    actions = invert(distribution, uniform)
    state, timestep = env.step(key, state, actions, params)
    return state, timestep.observation, carry, timestep.reward, actions


def frame_indices(num: int) -> list[int]:
    """Return which of a query's scenes become frames: all, or ``MAX_FRAMES`` evenly spread with both ends."""
    return [int(index) for index in np.unique(np.linspace(0, num - 1, min(num, MAX_FRAMES)).round())]


def _image(renderer: Renderer, story: Story, index: int, dpi: int = DPI) -> Any:
    """Draw one frame without touching matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=SIZE_INCHES, dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    renderer.draw(figure, story, index)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    _indexed([image])[0].save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _gif(images: list[Any]) -> bytes:
    """Join frames under one palette, so that only what changes is stored; the last frame stays longer."""
    buffer = io.BytesIO()
    frames = _indexed(images)
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return buffer.getvalue()


def _indexed(images: list[Any], colours: int = 250) -> list[Any]:
    """Reduce pictures to their commonest distinct colours, the others to the nearest of these.

    Flat colours stay exact; Pillow's own quantisers blend the rare ones, so that right and wrong would lose theirs.
    """
    from PIL import Image

    words = np.stack([np.asarray(image).astype(np.int64) @ np.array([65536, 256, 1]) for image in images])
    values, where, counts = np.unique(words, return_inverse=True, return_counts=True)
    shades = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1).astype(np.float32)
    palette = _distinct(shades[np.argsort(-counts, kind="stable")], colours)
    distance = np.sum(palette**2, axis=1) - 2 * shades @ palette.T
    indices = np.argmin(distance, axis=1).astype(np.uint8)[where].reshape(words.shape)
    indexed = [Image.fromarray(index, "P") for index in indices]
    for image in indexed:
        image.putpalette(palette.astype(np.uint8).tobytes())
    return indexed


def _distinct(shades: np.ndarray, most: int, apart: float = 14.0) -> np.ndarray:
    """Return the first colours that are not close to an earlier one."""
    chosen = np.empty((0, 3), np.float32)
    while len(shades) and len(chosen) < most:
        chosen = np.concatenate([chosen, shades[:1]])
        shades = shades[np.linalg.norm(shades - shades[0], axis=1) >= apart]
    return chosen


def _write(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
