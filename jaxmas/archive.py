"""The archive of a submission: a manifest, programs and weights; all is checked by size and sum before any is used.

``policy.zip`` holds ``manifest.json``, the programs of a policy, and the weights of every training run, under names of
one pattern; there is no code in it, no pickle, nothing to unpack. Nothing here starts a device.
``docs/submissions.md`` describes the format.
"""

import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmas.checkpoints import atomic_write
from jaxmas.errors import JaxmasError, printable, refuse
from jaxmas.result_files import DESCRIPTION, PROVENANCE, SETTING, SHA256, check_entry, check_world
from jaxmas.schema import Check, mapping, one_of, or_null, parsed, sequence, shown, structure, text, whole

FORMAT = "jaxmas-policy-1"
MANIFEST = "manifest.json"
SIDES = ("designer", "executor")
"""Who is in an archive; the executor where it was trained."""
LARGEST = 2**26
"""Bytes of an archive, and of all that it holds."""
LARGEST_MANIFEST = 2**18
"""Bytes of a manifest, as of a result file."""
MOST_RUNS = 100
MEMBER = rf"({'|'.join(SIDES)})-(start|apply)|(0|[1-9]\d?)/({'|'.join(SIDES)})"
"""Programs, and weights with the number of their run."""
MOST_FILES = len(SIDES) * (2 + MOST_RUNS)
ENTRY = b"PK\x01\x02"
"""How an entry of a zip archive's list of files begins."""
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    LookupError,
)
"""What zipfile raises where places, sizes or contents of an archive are not what its entries say."""

_name: Check = text(40, MEMBER, "such as designer-apply or 0/designer")
SCHEMA = structure(
    format=one_of(FORMAT),
    setting=SETTING,
    entry=structure(**DESCRIPTION),
    provenance=PROVENANCE,
    runs=sequence(structure(seed=or_null(whole(0, 2**63))), 1, MOST_RUNS),
    files=mapping(_name, structure(sha256=SHA256, bytes=whole(0, LARGEST)), 3, MOST_FILES),
)
"""What a manifest holds; what its parts have to do with each other is checked after that."""

Files = dict[str, bytes]
"""What an archive holds besides its manifest, by name."""


def write(out: Path, manifest: Mapping[str, Any], files: Files) -> None:
    """Write an archive, in whole or not at all; the same policy gives the same bytes."""
    listed = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in sorted(files.items())
    }
    whole_manifest = {"format": FORMAT, **manifest, "files": listed}
    _check_manifest(whole_manifest)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {MANIFEST: json.dumps(whole_manifest, indent=1).encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    refuse(buffer.tell() > LARGEST, f"the policy comes to {buffer.tell():,} bytes; at most {LARGEST:,} are taken")
    atomic_write(out, buffer.getvalue())


def read(path: Path) -> tuple[dict[str, Any], Files, str]:
    """Return manifest, files and SHA-256 of an archive in which everything is as the format says."""
    refuse(not path.is_file(), f"{path} is no file; jaxmas export makes a policy.zip")
    try:
        refuse(path.stat().st_size > LARGEST, f"it has more than {LARGEST:,} bytes, the most that are taken")
        data = path.read_bytes()
        members = _members(data)
        refuse(MANIFEST not in members, f"it has no {MANIFEST}; jaxmas export writes one")
        manifest = parsed(members.pop(MANIFEST))
        _check_manifest(manifest)
        _check_files(manifest["files"], members)
        return manifest, members, hashlib.sha256(data).hexdigest()
    except JaxmasError as error:
        raise JaxmasError(f"{path}: {error}") from error


def _members(data: bytes) -> dict[str, bytes]:
    """Return what an archive holds, read into memory up to a size; names that mean a place elsewhere are refused."""
    # Counted before zipfile makes an object of each.
    entries = data.count(ENTRY)
    refuse(entries > 1 + MOST_FILES, f"it holds {entries:,} files; at most {1 + MOST_FILES} are taken")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_names(infos)
            members, left = {}, LARGEST
            for info in infos:
                most = LARGEST_MANIFEST if info.filename == MANIFEST else left
                with archive.open(info) as member:
                    found = member.read(most + 1)
                left -= len(found)
                refuse(left < 0, f"what it holds comes to more than {LARGEST:,} bytes, the most that are taken")
                refuse(len(found) > most, f"{MANIFEST} has more than {most:,} bytes, the most that are taken")
                members[info.filename] = found
            return members
    except UNREADABLE as error:
        said = printable(error, 150) or type(error).__name__
        raise JaxmasError(f"it cannot be read as a zip archive ({said}); make it anew by jaxmas export") from error


def _check_names(infos: list[zipfile.ZipInfo]) -> None:
    """Refuse names that are not those of the format, names given twice, and what is no plain file."""
    seen = set()
    for info in infos:
        name = info.orig_filename
        right = name == info.filename and (name == MANIFEST or re.fullmatch(MEMBER, name) is not None)
        refuse(not right, f"it holds {shown(name)}; only {MANIFEST}, designer-apply, 0/designer and the like may be")
        refuse(name in seen, f"it holds {name} twice")
        seen.add(name)
        kind = info.external_attr >> 28
        refuse(kind not in (0, 0o10), f"{name} is a link or another special file; only plain files may be there")
        refuse(bool(info.flag_bits & 1), f"{name} is encrypted; only plain files may be there")
        known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        refuse(not known, f"{name} is compressed by method {info.compress_type}; only stored and deflated are read")


def _check_manifest(manifest: Any) -> None:
    """Refuse a manifest that is not of the format, or of a setting that is not installed."""
    tag = manifest.get("format") if isinstance(manifest, dict) else None
    refuse(tag != FORMAT, f"its format is {shown(tag)}; a manifest is an object whose format is {FORMAT!r}")
    SCHEMA(manifest, "")
    entry, training = manifest["entry"], manifest["entry"]["training"]
    refuse(entry["kind"] in ("random", "reference"), f"entry.kind is {entry['kind']!r}; submit a learned or a strategy")
    refuse(bool(manifest["setting"]["files"]), "setting.files has to be empty: whoever verifies has no such file")
    check_entry(manifest)
    check_world(manifest["setting"])
    sides = SIDES if training is not None and training["trains_executors"] else SIDES[:1]
    expected = {f"{side}-{part}" for side in sides for part in ("start", "apply")}
    expected |= {f"{run}/{side}" for run in range(len(manifest["runs"])) for side in sides}
    lacks = sorted(expected - set(manifest["files"]))
    refuse(bool(lacks), f"files has no {', '.join(lacks[:3])}; there have to be {', '.join(sorted(expected)[:6])} …")
    more = sorted(set(manifest["files"]) - expected)
    refuse(bool(more), f"files has {', '.join(more[:3])}, of a run or an executor that the manifest does not name")


def _check_files(listed: Mapping[str, Any], files: Files) -> None:
    """Refuse files that are not those that the manifest lists."""
    lacks, more = sorted(set(listed) - set(files)), sorted(set(files) - set(listed))
    refuse(bool(lacks), f"it lacks {', '.join(lacks[:3])}, which its manifest lists")
    refuse(bool(more), f"it holds {', '.join(more[:3])}, which its manifest does not list")
    for name, about in listed.items():
        found = hashlib.sha256(files[name]).hexdigest()
        refuse(
            found != about["sha256"] or len(files[name]) != about["bytes"],
            f"{name} is not what the manifest lists: its SHA-256 is {found[:12]}…, not {about['sha256'][:12]}…",
        )
