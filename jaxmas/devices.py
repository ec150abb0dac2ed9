"""Several devices and hosts: the queries of an update are shared out over a mesh, all else is on every device.

The code is the same for any number of devices. Without a mesh nothing is constrained, so that one device compiles the
program that it always did.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmas.checkpoints import is_key
from jaxmas.errors import JaxmasError, refuse

AXIS = "queries"

SHARED, WHOLE = PartitionSpec(AXIS), PartitionSpec()

SHUTDOWN_SECONDS = 60
"""How long a process that ends waits for the others, which may still be writing."""


# --- before JAX starts


def start_jax(devices: int = 1, coordinator: str | None = None, processes: int = 1, process: int = 0) -> None:
    """Join the processes that train together, if there are others, and give a CPU so many devices.

    Raises:
        JaxmasError: where the numbers do not fit each other, or the others are not met.
    """
    refuse(devices < 1, f"devices is {devices}; it has to be at least 1")
    refuse(processes < 1, f"processes is {processes}; it has to be at least 1")
    last = processes - 1
    refuse(not 0 <= process <= last, f"process is {process}; with --processes {processes} it has to be 0 to {last}")
    together = "--coordinator HOST:PORT and --processes N go together, and --process I says which of them this is"
    refuse((coordinator is None) != (processes == 1), together)
    # Whoever started the backend, or set the flag, has decided how many devices a CPU has.
    if devices > 1 and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", devices)
    if coordinator is None:
        return
    # Gloo, by which CPUs speak to each other, greets on standard output, which is for results.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, processes, process, shutdown_timeout_seconds=SHUTDOWN_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise JaxmasError(f"process {process} cannot join {coordinator}: {error}") from error


# --- around the compiled program


def mesh_of(devices: int = 1) -> Mesh | None:
    """Return the mesh of so many devices of every process; None for one device of one process.

    Raises:
        JaxmasError: where this process has fewer.
    """
    here = jax.local_devices()
    few = f"devices is {devices}; it has to be 1 to {len(here)}, as many as JAX sees here ({here[0].platform})"
    refuse(not 1 <= devices <= len(here), few)
    if devices * jax.process_count() == 1:
        return None
    of_process = [[d for d in jax.devices() if d.process_index == i][:devices] for i in range(jax.process_count())]
    return Mesh(np.array(of_process).reshape(-1), (AXIS,), axis_types=(AxisType.Auto,))


def over(mesh: Mesh | None) -> Any:
    """Return the context in which programs are shared out over a mesh."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def put(tree: Any, mesh: Mesh | None) -> Any:
    """Return a tree that every process has, on all devices of the mesh."""
    return tree if mesh is None else jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, WHOLE))(tree)


def local(tree: Any) -> Any:
    """Return the copy that the first device of this process has of what is on all of them."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf, tree)


def is_first() -> bool:
    """Return whether this process is the one that writes."""
    return jax.process_index() == 0


def check_same(*told: Any) -> None:
    """Refuse processes that were told different things: they would wait for each other without end."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(repr(told).encode()).digest(), np.uint8)
    differ = np.any(process_allgather(digest) != digest)
    refuse(bool(differ), "the processes differ in their settings, files or versions; start all with the same command")


def from_first(make: Callable[[], Any], like: Callable[[], Any]) -> Any:
    """Return what the first process makes, on all of them; ``like``, whose result has the same shapes, is only traced.

    Raises:
        JaxmasError: on all processes, where the first raised one.
    """
    if jax.process_count() == 1:
        return make()
    shapes = jax.eval_shape(like)
    plain = jax.eval_shape(_plain, shapes)
    made, failure = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), plain), None
    if is_first():
        try:
            made = _plain(make())
        except JaxmasError as error:
            failure = error
    if broadcast_one_to_all(np.int32(failure is not None)):
        raise failure or JaxmasError("the first process could not start and says why")
    # As bytes: a broadcast is a sum, which takes the sign from zeros.
    told = broadcast_one_to_all(jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1).view(np.uint8), made))
    arrays = jax.tree.map(lambda bits, leaf: jnp.array(bits.view(leaf.dtype).reshape(leaf.shape)), told, plain)
    return jax.tree.map(lambda leaf, array: jax.random.wrap_key_data(array) if is_key(leaf) else array, shapes, arrays)


def _plain(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


@contextlib.contextmanager
def among_others() -> Iterator[None]:
    """End with one line and at once where this process cannot go on: at its exit JAX would wait for the others."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, OSError, KeyboardInterrupt) as error:
        if jax.process_count() == 1:
            raise
        interrupted = isinstance(error, KeyboardInterrupt)
        why = "interrupted" if interrupted else " ".join(f"error: this process or another one failed: {error}".split())
        print(f"{why}; what was saved is kept, start all processes again with --resume", file=sys.stderr, flush=True)
        os._exit(130 if interrupted else 1)


# --- inside the compiled program


def num_devices() -> int:
    """Return over how many devices the program that is being traced is shared out."""
    return jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)


def shared_out(play: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function ``play(queries, *common)`` that every device runs on its share of the queries.

    They are the leading axis of all that is in ``queries`` and in what is returned; all devices have ``common``.
    """
    if num_devices() == 1:
        return play

    def shared(queries, *common):
        specs = (SHARED, *(WHOLE for _ in common))
        # Roll-outs speak to no other device, and nothing of that is left to the partitioner.
        return jax.shard_map(play, in_specs=specs, out_specs=SHARED, check_vma=False)(queries, *common)

    return shared


def split(tree: Any) -> Any:
    """Return a tree whose leading axes are shared out over the devices, so that what follows from it is, too."""
    return _constrained(tree, SHARED)


def whole(tree: Any) -> Any:
    """Return a tree that all devices have."""
    return _constrained(tree, WHOLE)


def _constrained(tree: Any, spec: PartitionSpec) -> Any:
    return tree if num_devices() == 1 else jax.lax.with_sharding_constraint(tree, spec)
