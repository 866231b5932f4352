"""A reference in, one file that can be read and reviewed out — and back, with the same numbers."""

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.cells import LENGTH_BINS
from introspan_collector.detect.reference.classes import Classes
from introspan_collector.detect.reference.reference import Counts, Identity, Population, Reference, State
from introspan_collector.detect.reference.scores import TAIL_NUMBERS
from introspan_collector.detect.reference.space import Space
from introspan_collector.detect.sample import Feature
from introspan_wire.signals import PROJECTION_COMPONENTS, Kind

VERSION = 2
_MANIFEST = "manifest.json"
_QUANTILES = (0.05, 0.5, 0.95)
_MOST_BYTES = 1 << 26
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
# RuntimeError: a password, a compression that there is not, JSON in itself a thousand times.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_REMEDY = "export it again from the collector that built it"


def content_hash(reference: Reference) -> str:
    """SHA-256 of everything a reference says, in hex: the same wherever and however often it is exported."""
    digest = hashlib.sha256(json.dumps(_described(reference), sort_keys=True).encode())
    for name, array in sorted(_arrays(reference).items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def to_bytes(reference: Reference) -> bytes:
    """A zip archive: manifest.json says what it is, the .npy files hold the numbers. Equal references, equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _write(archive, _MANIFEST, json.dumps(overview(reference), indent=1).encode())
        for name, array in sorted(_arrays(reference).items()):
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array), allow_pickle=False)
            _write(archive, f"{name}.npy", content.getvalue())
    return buffer.getvalue()


def from_bytes(data: bytes, identity: Identity | None = None) -> Reference:
    """The reference in the file. identity: what it has to be of, if it matters.

    Raises ValueError, with a remedy, for a file that is damaged, of another version or of another identity.
    """
    try:
        manifest, arrays = _read(data)
    except _UNREADABLE as error:
        raise ValueError(f"reference of {len(data)} bytes cannot be read ({error}): {_REMEDY}") from error
    if (version := manifest["version"]) != VERSION:
        raise ValueError(
            f"reference has version {version}, not {VERSION}: {_REMEDY} with this version installed"
        )
    try:
        reference = _reference(manifest, arrays)
        unharmed = manifest == json.loads(json.dumps(overview(reference)))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"reference is damaged ({error!r}): {_REMEDY}") from error
    if not all(_fits(part, len(reference.classes)) for part in reference.populations.values()):
        raise ValueError(f"reference is damaged: its arrays do not fit one another; {_REMEDY}")
    if not unharmed:
        raise ValueError(f"reference is damaged: its numbers do not have the hash in {_MANIFEST}; {_REMEDY}")
    if identity is not None and (differences := reference.identity.differences(identity)):
        raise ValueError(
            f"reference is of something else: {'; '.join(differences)}; import one of this model, or build one"
        )
    return reference


def import_file(path: Path, identity: Identity | None = None) -> Reference:
    """Reads a reference; see from_bytes."""
    return from_bytes(path.read_bytes(), identity)


def _described(reference: Reference) -> dict[str, object]:
    """Everything but the arrays."""
    return {
        "version": VERSION,
        "identity": asdict(reference.identity),
        "state": reference.state.value,
        "counts": asdict(reference.counts),
        "created_unix_seconds": reference.created_unix_seconds,
        # Left out where there is nothing, as in files of before there could be.
        **({"despite": list(reference.despite)} if reference.despite else {}),
        "populations": {
            kind.value: {"names": population.names, "projection_layers": population.projection_layers}
            for kind, population in sorted(reference.populations.items())
        },
    }


# Any: what JSON can hold.
def overview(reference: Reference) -> dict[str, Any]:
    """What is described, its hash, and figures for whoever reviews the file."""
    return {
        **_described(reference),
        "content_sha256": content_hash(reference),
        "summary": {
            kind.value: _summary(population, len(reference.classes))
            for kind, population in sorted(reference.populations.items())
        },
    }


def _summary(population: Population, classes: int) -> dict[str, Any]:
    features = np.where(np.isfinite(population.features), population.features, np.nan)
    some = ~np.all(np.isnan(features), axis=0)
    quantiles = np.full((features.shape[1], len(_QUANTILES)), np.nan)
    if some.any():
        quantiles[some] = np.nanquantile(features[:, some], _QUANTILES, axis=0).T
    return {
        "rows": len(population),
        "cells": population.cell_count,
        "scores": len(population.scores),
        "rows_of_classes": np.bincount(population.class_id + 1, minlength=classes + 1)[1:].tolist(),
        "rows_without_class": int(np.count_nonzero(population.class_id < 0)),
        "rows_outside_all_classes": int(np.count_nonzero(population.outside)),
        "quantiles": {
            f"{name.signal}/{name.layer}" if name.layer >= 0 else name.signal: [
                None if np.isnan(value) else float(f"{value:.6g}") for value in row
            ]
            for name, row in zip(population.names, quantiles, strict=True)
        },
    }


# Any: arrays of every type, as in the fields of Population.
def _arrays(reference: Reference) -> dict[str, NDArray[Any]]:
    classes = reference.classes
    arrays: dict[str, NDArray[Any]] = {
        "classes/centroids": classes.centroids,
        "classes/limit": np.array([classes.limit]),
        "classes/axes": classes.axes,
        "classes/means": classes.means,
        **_space("classes", classes.space),
        **_space("classes/within", classes.within),
    }
    for kind, population in reference.populations.items():
        for field in fields(Population):
            value = getattr(population, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"{kind.value}/{field.name}"] = value
        arrays |= _space(kind.value, population.space)
    return arrays


def _space(folder: str, space: Space) -> dict[str, NDArray[Any]]:
    return {f"{folder}/space/{field.name}": getattr(space, field.name) for field in fields(Space)}


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _FIXED_TIME), content, zipfile.ZIP_DEFLATED)


def _read(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # A file from elsewhere must not be able to fill the memory.
        size = sum(item.file_size for item in archive.infolist())
        if size > _MOST_BYTES:
            raise ValueError(f"it holds {size} bytes, more than {_MOST_BYTES}")
        manifest = {"version": None, **json.loads(archive.read(_MANIFEST))}
        arrays = {
            item.filename.removesuffix(".npy"): np.load(io.BytesIO(archive.read(item)), allow_pickle=False)
            for item in archive.infolist()
            if item.filename != _MANIFEST
        }
    return manifest, arrays


def _reference(manifest: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Reference:
    populations = {
        Kind(kind): _population(kind, described, arrays)
        for kind, described in manifest["populations"].items()
    }
    return Reference(
        Identity(**manifest["identity"]),
        State(manifest["state"]),
        Counts(**manifest["counts"]),
        manifest["created_unix_seconds"],
        _classes(arrays),
        populations,
        tuple(manifest.get("despite", ())),
    )


def _classes(arrays: dict[str, NDArray[Any]]) -> Classes:
    axes, centroids, means = (arrays[f"classes/{name}"] for name in ("axes", "centroids", "means"))
    within = _space_of("classes/within", arrays)
    limit = float(arrays["classes/limit"][0])
    return Classes(_space_of("classes", arrays), axes, centroids, means, within, limit)


def _population(kind: str, described: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Population:
    values: dict[str, Any] = {
        "names": tuple(Feature(*name) for name in described["names"]),
        "projection_layers": tuple(described["projection_layers"]),
        "space": _space_of(kind, arrays),
    }
    for field in fields(Population):
        if field.name not in values:
            values[field.name] = arrays[f"{kind}/{field.name}"]
    return Population(**values)


def _fits(population: Population, classes: int) -> bool:
    """Whether arrays have the shapes that they must have, and what points into another array points inside it."""
    rows, names, cells = len(population), len(population.names), population.cell_count
    projected = len(population.projection_layers) * PROJECTION_COMPONENTS
    by_row = (
        population.length_bin,
        population.class_id,
        population.cluster,
        population.fit,
        population.outside,
    )
    return (
        population.features.shape == (rows, names)
        and population.projection.shape == (rows, projected)
        and all(array.shape == (rows,) for array in by_row)
        and population.centre.shape == population.spread.shape == (cells, names)
        and population.tails.shape == (2, names, TAIL_NUMBERS)
        and population.space.whitening.shape == (projected, projected)
        and population.cells.shape == (classes + 1, LENGTH_BINS)
        and bool(np.all(population.cells >= 0))
        and bool(np.all((population.class_id >= -1) & (population.class_id < classes)))
        and bool(np.all((population.length_bin >= 0) & (population.length_bin < LENGTH_BINS)))
    )


def _space_of(folder: str, arrays: dict[str, NDArray[Any]]) -> Space:
    return Space(*(arrays[f"{folder}/space/{field.name}"] for field in fields(Space)))
