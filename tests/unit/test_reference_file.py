"""A reference as one file: the same numbers, small, and refused when it is not what it should be."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.live.bank import Bank
from introspan_collector.detect.live.extremes import Extremes
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.diff import difference
from introspan_collector.detect.reference.file import (
    content_hash,
    from_bytes,
    import_file,
    to_bytes,
)
from introspan_collector.detect.reference.placement import Placer
from introspan_collector.detect.reference.reference import State
from introspan_collector.detect.sample import Feature
from introspan_wire.signals import Kind
from tests.samples import IDENTITY, features, sample

MOST_BYTES = 5_000_000


def reference(rng, count=1500, **fields):
    builder = Builder(IDENTITY)
    prompts = sample(rng, count, **fields)
    builder.add(prompts)
    builder.add(sample(rng, count, kind=Kind.DECODED, seed=prompts.seed, **fields))
    return builder.reference(State.FROZEN, 1_800_000_000)


@pytest.fixture(scope="module")
def one():
    return reference(np.random.default_rng(1))


def changed(data, name, content):
    """The file with another content under a name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, content if item.filename == name else old.read(item))
    return buffer.getvalue()


def test_what_is_imported_gives_bit_identical_evidence_and_has_the_same_hash(one, tmp_path):
    (tmp_path / "m.reference").write_bytes(to_bytes(one))
    again = import_file(tmp_path / "m.reference", IDENTITY)
    assert content_hash(again) == content_hash(one)
    assert to_bytes(again) == to_bytes(one)
    rng = np.random.default_rng(2)
    prompts = sample(rng, 200)
    decoded = sample(rng, 200, kind=Kind.DECODED, seed=prompts.seed)
    placers = Placer(one), Placer(again)
    for live in (prompts, decoded):
        placed = [placer.place(live) for placer in placers]
        for detector in (Bank, Extremes):
            ours, theirs = (
                detector(of).evidence(live, at) for of, at in zip((one, again), placed, strict=True)
            )
            assert ours.streams == theirs.streams
            np.testing.assert_array_equal(ours.x, theirs.x)
            np.testing.assert_array_equal(ours.bound, theirs.bound)


def test_another_reference_has_another_hash(one):
    others = [
        replace(one, state=State.PROVISIONAL),
        replace(one, created_unix_seconds=1),
        replace(one, identity=replace(one.identity, dtype="float32")),
        replace(one, counts=replace(one.counts, requests=1)),
        reference(np.random.default_rng(3)),
    ]
    assert len({content_hash(other) for other in (one, *others)}) == 1 + len(others)


def test_the_manifest_can_be_read_by_a_person(one):
    with zipfile.ZipFile(io.BytesIO(to_bytes(one))) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["identity"]["model"] == "m"
    assert manifest["state"] == "frozen"
    assert manifest["counts"]["clusters"] == 1500
    assert manifest["content_sha256"] == content_hash(one)
    summary = manifest["summary"]["prompt"]
    assert sum(summary["rows_of_classes"]) == summary["rows"] == 1500
    low, middle, high = summary["quantiles"]["residual.log_rms/3"]
    assert low < middle < high


@pytest.mark.parametrize("signals", [75, 300])
def test_the_file_is_small_for_a_model_of_32_layers(signals):
    # 75: the default layers; 300: every layer, projections of all of them offered
    rng = np.random.default_rng(4)
    values = rng.standard_normal((9000, signals))
    layers = (16, 30) if signals == 75 else tuple(range(32))
    projection = rng.standard_normal((9000, 32 * len(layers))).astype(np.float32)
    big = reference(rng, 9000, values=values, projection_layers=layers, projection=projection)
    assert len(to_bytes(big)) < MOST_BYTES
    assert len(big.populations[Kind.PROMPT]) > (3000 if signals == 75 else 1000)
    assert big.populations[Kind.PROMPT].projection.shape[1] == 64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layer_count", 30),
        ("fingerprint", "beef"),
        ("engine_version", "0.33.0"),
        ("dtype", "float32"),
        ("adapter", "german"),
    ],
)
def test_a_reference_of_something_else_is_refused_and_the_message_says_of_what(one, field, value):
    wanted = replace(IDENTITY, **{field: value})
    with pytest.raises(
        ValueError, match=f"{field} is .*, not {value!r}; import one of this model, or build one"
    ):
        from_bytes(to_bytes(one), wanted)


def test_a_file_that_is_damaged_anywhere_is_refused(one):
    data = to_bytes(one)
    rng = np.random.default_rng(5)
    for place in rng.integers(0, len(data), 60).tolist():
        broken = bytearray(data)
        broken[place] ^= 0x10
        try:
            again = from_bytes(bytes(broken))
        except ValueError as error:
            assert "export it again" in str(error)  # noqa: PT017 some bytes of a zip mean nothing
        else:
            assert content_hash(again) == content_hash(one)
    for size in (0, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="cannot be read"):
            from_bytes(data[:size])


def test_numbers_that_were_edited_are_refused(one):
    data = to_bytes(one)
    values = one.populations[Kind.PROMPT].features.copy()
    values[0, 0] += 1
    buffer = io.BytesIO()
    np.save(buffer, values)
    with pytest.raises(ValueError, match="do not have the hash"):
        from_bytes(changed(data, "prompt/features.npy", buffer.getvalue()))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        manifest = archive.read("manifest.json")
    with pytest.raises(ValueError, match="do not have the hash"):
        from_bytes(changed(data, "manifest.json", manifest.replace(b'"bfloat16"', b'"float32"')))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("features", lambda array: array[1:]),
        ("projection", lambda array: array[:, :33]),
        ("class_id", lambda array: array + np.int16(99)),
        ("length_bin", lambda array: array + np.int8(32)),
        ("cells", lambda array: array[:-1]),
        ("cells", lambda array: array - np.int16(1)),
        ("centre", lambda array: array[1:]),
        ("cluster", lambda array: array[1:]),
    ],
)
def test_arrays_that_do_not_fit_one_another_are_refused_although_their_hash_is_right(one, field, change):
    population = one.populations[Kind.PROMPT]
    wrong = replace(population, **{field: change(getattr(population, field))})
    with pytest.raises(ValueError, match=r"damaged.*export it again"):
        from_bytes(to_bytes(replace(one, populations={**one.populations, Kind.PROMPT: wrong})))


def manifest_of(content, *, compression=0, flags=0):
    """A reference's file of a manifest alone, whose headers are changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("manifest.json", content)
    data = bytearray(buffer.getvalue())
    for header, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(header) + at
        data[place], data[place + 2] = flags, compression
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        manifest_of("{}", flags=1),
        manifest_of("{}", compression=99),
        manifest_of('{"version": ' + "[" * 100_000),
    ],
    ids=["with a password", "compressed in another way", "nested without end"],
)
def test_a_file_that_python_has_other_words_for_is_refused_with_a_remedy_too(data):
    with pytest.raises(ValueError, match=r"cannot be read .*export it again"):
        from_bytes(data)


def test_pickled_objects_are_never_loaded(one):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        from_bytes(changed(to_bytes(one), "prompt/features.npy", buffer.getvalue()))


def test_a_file_of_another_version_says_so(one):
    data = to_bytes(one)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    newer = json.dumps({**manifest, "version": 3}).encode()
    with pytest.raises(ValueError, match="version 3, not 2"):
        from_bytes(changed(data, "manifest.json", newer))


@pytest.mark.parametrize("manifest", [b"[]", b"{}", b"3", b"\xff", b'{"version": 1}'])
def test_a_manifest_that_says_nothing_is_refused(one, manifest):
    with pytest.raises(ValueError, match="export it again"):
        from_bytes(changed(to_bytes(one), "manifest.json", manifest))


def test_an_archive_that_would_fill_the_memory_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(1 << 27))
    with pytest.raises(ValueError, match="more than 67108864"):
        from_bytes(buffer.getvalue())


def test_references_of_the_same_traffic_hardly_differ(one):
    found = difference(one, reference(np.random.default_rng(6)))
    assert found.identity == ()
    assert found.only_first == found.only_second == ()
    assert max(item.distance for item in found.features) < 0.08
    assert np.abs(found.class_shares[:, 0] - found.class_shares[:, 1]).max() < 0.05
    np.testing.assert_allclose(found.class_shares.sum(axis=0), 1)


def test_a_difference_names_identity_features_and_classes(one):
    rng = np.random.default_rng(7)
    values = rng.standard_normal((1500, 9)) + 0.75
    values[:, 2] += 3
    names = (*features(8), Feature("output.entropy", -1))
    other = reference(rng, values=values, names=names, class_id=np.zeros(1500, int))
    found = difference(one, replace(other, identity=replace(IDENTITY, dtype="float32")))
    assert found.identity == ("dtype is 'bfloat16', not 'float32'",)
    assert {item.feature for item in found.features[:2]} == {Feature("residual.log_rms", 2)}
    assert found.features[0].distance > 0.7
    assert found.features[0].second_median - found.features[0].first_median > 2
    assert found.only_second == ((Kind.DECODED, names[8]), (Kind.PROMPT, names[8]))
    assert np.abs(found.class_shares[:, 0] - found.class_shares[:, 1]).max() > 0.1
