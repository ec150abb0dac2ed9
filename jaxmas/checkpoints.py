"""Checkpoints that are whole or not there, parameter files with fixed bytes, and files that appear all at once.

A checkpoint is a step folder of orbax and a manifest of every file in it, written last: what has no manifest was never
finished, and what differs from it was damaged since. Orbax sees a flat dict of host arrays; the manifest keeps the
names, shapes and types of the leaves, so that a state of another shape is refused before any file is opened. One
process writes; any number may read meanwhile.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmas.errors import JaxmasError

MANIFEST = "manifest.json"
FORMAT = 1


class _Corrupt(Exception):
    """A checkpoint is not what was saved; the message names the file that differs."""


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The last few checkpoints of a run, under ``run_dir/checkpoints``."""

    run_dir: str | Path
    max_to_keep: int = 3
    report: Callable[[str], None] = _warn

    def __post_init__(self) -> None:
        if self.max_to_keep < 1:
            raise JaxmasError(f"max_to_keep is {self.max_to_keep}; keep at least 1 checkpoint")

    @property
    def directory(self) -> Path:
        return Path(self.run_dir).resolve() / "checkpoints"

    def all_steps(self) -> list[int]:
        """List the finished steps in ascending order; only restoring checks their contents."""
        return [step for step in _step_folders(self.directory) if (self.directory / str(step) / MANIFEST).is_file()]

    def save(self, step: int, state: Any) -> None:
        """Save a pytree as a step, then drop all but the last few; an earlier save of the same step is replaced."""
        if step < 0:
            raise ValueError(f"step is {step}; steps count from 0")
        names, leaves = _named_leaves(state)
        specs = [_spec(name, leaf) for name, leaf in zip(names, leaves, strict=True)]
        arrays = _storable([_to_host(leaf) for leaf in leaves])
        _make_way(self.directory, step)
        with _manager(self.directory, cleanup_tmp_directories=True) as manager, _orbax() as ocp:
            # Forced, as orbax skips a step below a damaged one without a word.
            manager.save(step, args=ocp.args.PyTreeSave(arrays), force=True)
        _write_manifest(self.directory / str(step), step, specs)
        _prune(self.directory, self.all_steps()[-self.max_to_keep :])

    def restore_latest(self, template: Any) -> tuple[int, Any] | None:
        """Restore the newest sound checkpoint in the form of a template; None where there is none at all.

        The template is a state of the same structure, or its ``jax.eval_shape``. Typed keys, numpy and Python scalars
        come back as what the template holds, on its devices. A damaged checkpoint is reported and passed over.
        """
        damaged = []
        for step in reversed(_step_folders(self.directory)):
            folder = self.directory / str(step)
            try:
                manifest = _verified_manifest(folder, step)
            except _Corrupt as fault:
                damaged.append(f"step {step}: {fault}")
                self.report(f"checkpoint {folder} is damaged and passed over: {fault}")
                continue
            return step, _restore(folder, manifest, template)
        if not damaged:
            return None
        raise JaxmasError(
            f"no checkpoint in {self.directory} is usable ({'; '.join(damaged)}); "
            "bring the folder back from a copy, or delete it to start the run anew"
        )


# --- saving


def _step_folders(directory: Path) -> list[int]:
    """List every step that has a folder, finished or not, in ascending order."""
    if not directory.is_dir():
        return []
    # Orbax marks what it has not finished by a suffix.
    return sorted(int(p.name) for p in directory.iterdir() if re.fullmatch("0|[1-9][0-9]*", p.name) and p.is_dir())


def _named_leaves(tree: Any) -> tuple[list[str], list[Any]]:
    """Flatten a pytree into the names of its leaves, ``.params['dense']['kernel']``, and the leaves."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(path) for path, _ in pairs], [leaf for _, leaf in pairs]


def is_key(leaf: Any) -> bool:
    """Return whether a leaf is of typed keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _spec(name: str, leaf: Any) -> dict[str, Any]:
    """Describe a leaf by name, type and shape."""
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    if not is_key(leaf) and (array.dtype.hasobject or array.dtype.kind in "USMm"):
        raise TypeError(f"a checkpoint holds numbers and keys only, and {name} is a {type(leaf).__name__}")
    spec = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
    if is_key(leaf) and isinstance(leaf, jax.Array):
        spec["impl"] = str(jax.random.key_impl(leaf))
    return spec


def _to_host(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _storable(arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Number the leaves; orbax refuses arrays without elements, and a tree without arrays."""
    numbered = {f"{i:06d}": array for i, array in enumerate(arrays) if array.size}
    return {"format": np.asarray(FORMAT), **numbered}


def _make_way(directory: Path, step: int) -> None:
    """Remove what a new save of a step replaces: that step, and damaged ones after it."""
    for other in _step_folders(directory):
        if other > step and _is_sound(directory / str(other), other):
            raise JaxmasError(
                f"{directory} holds step {other}, later than step {step} that was to be saved: "
                "resume from there, or give the new run its own folder"
            )
    for other in _step_folders(directory):
        if other >= step:
            _remove(directory / str(other))


def _is_sound(folder: Path, step: int) -> bool:
    try:
        _verified_manifest(folder, step)
    except _Corrupt:
        return False
    return True


def _remove(folder: Path) -> None:
    # The manifest first: what is left of a removal that was killed then reads as unfinished.
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """Import orbax, which takes half a second, and hush it below errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import orbax.checkpoint as ocp

        # After the import: absl's logger has a class of its own, and a plain one of that name would take its place.
        logger = logging.getLogger("absl")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield ocp
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def _manager(directory: Path, **options: Any) -> Iterator[Any]:
    """Open orbax's manager for one operation: a cached list of steps would go stale beside other processes."""
    with _orbax() as ocp:
        # Orbax drops old steps before the manifest of the new one is there, so it keeps all and `_prune` drops them.
        if jax.process_count() > 1:
            options |= _alone(ocp, directory)
        settings = ocp.CheckpointManagerOptions(max_to_keep=None, enable_async_checkpointing=False, **options)
        with ocp.CheckpointManager(directory, options=settings) as manager:
            yield manager


def _alone(ocp: Any, directory: Path) -> dict[str, Any]:
    """Return options by which orbax waits for no other process."""
    directory.mkdir(parents=True, exist_ok=True)
    me = jax.process_index()
    only = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"{me}")
    return {"create": False, "multiprocessing_options": only}


def _write_manifest(folder: Path, step: int, specs: list[dict[str, Any]]) -> None:
    """Declare a step finished."""
    manifest = {"format": FORMAT, "step": step, "leaves": specs, "files": _digests(folder)}
    atomic_write_json(folder / MANIFEST, {**manifest, "sha256": _digest_of(manifest)})


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Map each file of a step but the manifest to its SHA-256 and size."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    return {p.relative_to(folder).as_posix(): {"sha256": _file_sha256(p), "size": p.stat().st_size} for p in files}


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(manifest: dict[str, Any]) -> str:
    return _sha256(json.dumps(manifest, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _prune(directory: Path, keep: list[int]) -> None:
    for step in _step_folders(directory):
        if step not in keep:
            _remove(directory / str(step))


# --- restoring


def _verified_manifest(folder: Path, step: int) -> dict[str, Any]:
    """Read a step's manifest, and check every file against it."""
    manifest = _read_manifest(folder)
    if manifest["format"] != FORMAT:
        raise JaxmasError(
            f"{folder} has checkpoint format {manifest['format']}, this version of jaxmas reads {FORMAT}: "
            "use the version that wrote it"
        )
    if manifest["step"] != step:
        raise _Corrupt(f"{MANIFEST} is that of step {manifest['step']}")
    try:
        found = _digests(folder)
    except OSError as error:
        raise _Corrupt(f"{error.filename} cannot be read ({error.strerror})") from error
    for name in sorted(manifest["files"].keys() | found.keys()):
        _compare_file(name, manifest["files"].get(name), found.get(name))
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        digest = manifest.pop("sha256")
    except FileNotFoundError as error:
        raise _Corrupt(f"{MANIFEST} is missing (the save was cut short, or is still under way)") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _Corrupt(f"{MANIFEST} cannot be read") from error
    if digest != _digest_of(manifest):
        raise _Corrupt(f"{MANIFEST} does not match its own SHA-256")
    return manifest


def _compare_file(name: str, wanted: dict[str, Any] | None, found: dict[str, Any] | None) -> None:
    if found is None:
        raise _Corrupt(f"{name} is missing")
    if wanted is None:
        raise _Corrupt(f"{name} is not in the manifest")
    if wanted["size"] != found["size"]:
        raise _Corrupt(f"{name} has {found['size']} bytes instead of {wanted['size']}")
    if wanted["sha256"] != found["sha256"]:
        raise _Corrupt(f"{name} does not match its SHA-256")


def _restore(folder: Path, manifest: dict[str, Any], template: Any) -> Any:
    """Read a verified step into the form of a template."""
    names, leaves = _named_leaves(template)
    saved = {spec["name"]: (i, spec) for i, spec in enumerate(manifest["leaves"])}
    _check_template(folder, manifest["leaves"], [_spec(n, leaf) for n, leaf in zip(names, leaves, strict=True)])
    stored = _read_arrays(folder, [f"{i:06d}" for i, spec in saved.values() if math.prod(spec["shape"])])
    restored = []
    for name, leaf in zip(names, leaves, strict=True):
        i, spec = saved[name]
        array = stored[f"{i:06d}"] if math.prod(spec["shape"]) else _without_elements(leaf)
        restored.append(_like(leaf, spec, array))
    return jax.tree.unflatten(jax.tree.structure(template), restored)


def _check_template(folder: Path, saved: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Refuse a template whose leaves are not those of the checkpoint."""
    there = {spec["name"]: _describe(spec) for spec in saved}
    here = {spec["name"]: _describe(spec) for spec in wanted}
    names = list(dict.fromkeys([*here, *there]))
    differ = [name for name in names if here.get(name) != there.get(name)]
    if not differ:
        return
    first = differ[0]
    more = f" ({len(differ) - 1} more of {len(names)} leaves differ)" if len(differ) > 1 else ""
    raise JaxmasError(
        f"checkpoint {folder} is of another kind of run: {first or 'the state'} is {there.get(first, 'absent')} in it "
        f"and {here.get(first, 'absent')} here{more}; resume with the settings that it was made with "
        "(number of agents, network, optimiser), or use another run folder"
    )


def _describe(spec: dict[str, Any]) -> str:
    return f"{spec['dtype']}{spec['shape']}"


def _read_arrays(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Read stored leaves as host arrays, bit for bit."""
    wanted = ["format", *names]
    with _manager(folder.parent, read_only=True) as manager, _orbax() as ocp:
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in wanted}
        item = dict.fromkeys(wanted, 0)
        return manager.restore(int(folder.name), args=ocp.args.PyTreeRestore(item, restore_args=as_numpy))


def _without_elements(leaf: Any) -> np.ndarray:
    host = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    return np.zeros(host.shape, host.dtype)


def _like(leaf: Any, spec: dict[str, Any], array: np.ndarray) -> Any:
    """Turn a host array into what the template's leaf is."""
    if is_key(leaf):
        return _placed(jax.random.wrap_key_data(jnp.array(array), impl=spec["impl"]), leaf)
    if isinstance(leaf, np.generic):
        return array[()]
    if isinstance(leaf, np.ndarray):
        return array
    if isinstance(leaf, bool | int | float | complex):
        return type(leaf)(array.item())
    # A weak scalar that came back strong would promote differently; JAX has no public way to weaken a whole array.
    weak_scalar = array.ndim == 0 and getattr(leaf, "weak_type", False)
    return _placed(jnp.asarray(array.item()) if weak_scalar else jnp.array(array), leaf)


def _placed(array: jax.Array, leaf: Any) -> jax.Array:
    """Put an array where the template's leaf is, unless that was left to JAX."""
    sharding = leaf.sharding if getattr(leaf, "committed", True) else None
    return array if sharding is None else jax.device_put(array, sharding)


# --- parameter files


def save_params(path: str | Path, params: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Write nested dicts of arrays and JSON metadata as one ``.npz`` file, and return its SHA-256.

    Equal contents give equal bytes on every machine: nothing in the file is compressed or dated.
    """
    members = {f"{name}.npy": _npy_bytes(name, leaf) for name, leaf in _flatten_params(params, "params")}
    # A damaged directory of the archive can lose members without a word.
    manifest = {"metadata": dict(metadata), "files": {name: _sha256(data) for name, data in members.items()}}
    members[MANIFEST] = json.dumps(manifest, sort_keys=True, indent=1).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    atomic_write(Path(path), buffer.getvalue())
    return _sha256(buffer.getvalue())


def _flatten_params(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise TypeError(f"{prefix} has the key {key!r}: a parameter file takes non-empty names without a slash")
        name = f"{prefix}/{key}"
        if isinstance(value, Mapping):
            if not value:
                raise TypeError(f"{name} is empty: a parameter file keeps arrays only")
            yield from _flatten_params(value, name)
        else:
            yield name, value


def _npy_bytes(name: str, leaf: Any) -> bytes:
    # Not ascontiguousarray, which gives scalars an axis.
    array = np.asarray(leaf, order="C")
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name} has dtype {array.dtype}, which .npy cannot hold: convert it to a plain number type")
    buffer = io.BytesIO()
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    np.lib.format.write_array(buffer, little_endian, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def load_params(path: str | Path, expected_sha256: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a parameter file into nested dicts of numpy arrays and its metadata."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise JaxmasError(f"cannot read the parameter file {path}: {error.strerror}; check the path") from error
    digest = _sha256(data)
    if expected_sha256 is not None and digest != expected_sha256:
        raise JaxmasError(
            f"the parameter file {path} has SHA-256 {digest} instead of {expected_sha256}: it is damaged or of another "
            "version; fetch or install it again"
        )
    try:
        return _parse_params(data)
    except (zipfile.BadZipFile, struct.error, OSError, ValueError, LookupError, EOFError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise JaxmasError(
            f"{path} is no readable parameter file ({reason}): it is damaged; fetch or install it again"
        ) from error


def _parse_params(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    params: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        manifest = json.loads(archive.read(MANIFEST))
        for name, digest in manifest["files"].items():
            member = archive.read(name)
            if _sha256(member) != digest:
                raise ValueError(f"{name} does not match its SHA-256")
            *folders, leaf = name.removeprefix("params/").removesuffix(".npy").split("/")
            node = params
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = np.lib.format.read_array(io.BytesIO(member), allow_pickle=False)
    return params, manifest["metadata"]


# --- files that appear all at once


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            # Else a power cut can leave the new name on an empty file.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    atomic_write(Path(path), text.encode())


def atomic_write_json(path: str | Path, obj: Any) -> None:
    """Write JSON atomically, with sorted keys; arrays become lists, and what is not finite becomes null."""
    atomic_write_text(path, json.dumps(_plain(obj), sort_keys=True, indent=2, allow_nan=False) + "\n")


def _plain(obj: Any) -> Any:
    """Turn numpy and jax values into what JSON knows."""
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    if isinstance(obj, np.ndarray | np.generic | jax.Array):
        return _plain(np.asarray(obj).tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj
