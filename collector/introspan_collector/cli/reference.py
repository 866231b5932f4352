"""References of a collector and files of them in, tables and files out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from introspan_collector.client import Client, ClientError
from introspan_collector.terminal import (
    DEFAULT_URL,
    Form,
    Format,
    TokenFile,
    Url,
    asking,
    at,
    fail,
    print_json,
    print_table,
)
from introspan_collector.whole import write_whole

if TYPE_CHECKING:
    from introspan_collector.detect.reference.diff import FeatureDifference
    from introspan_collector.detect.reference.reference import Reference

_SHOWN = 20
_CHANCE = 0.01

_Model = Annotated[str, typer.Option(help="Name of the model.")]
_Adapter = Annotated[str, typer.Option(help="Name of the adapter [the model alone].")]
_Output = Annotated[Path, typer.Option(help="File to write.")]
_Force = Annotated[
    bool, typer.Option("--force", help="Though canaries are not clean or its halves differ: it then says so.")
]


def register(app: typer.Typer) -> None:
    """Adds `introspan reference`."""
    group = typer.Typer(help="What healthy traffic looks like, and files of it.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("import")(import_)
    for command in (build, show, diff, promote, export):
        group.command(command.__name__)(command)
    app.add_typer(group, name="reference")


def list_(url: Url = DEFAULT_URL, token_file: TokenFile = None, form: Form = Format.TABLE) -> None:
    """Lists what every model and adapter is compared with, and how far the next reference is."""
    with asking("reference list", url, token_file) as client:
        answer = client.get("references")
        if form is Format.JSON:
            print_json(answer)
            return
        rows = [
            (one["model"], one["adapter"], one["state"], *_present(one["reference"]), _next(one))
            for one in answer["references"]
        ]
        columns = ("model", "adapter", "state", "clusters", "hours", "built", "hash", "next")
        print_table("References" if rows else "No model was heard of yet.", columns, rows)


def build(
    model: _Model,
    output: _Output,
    adapter: _Adapter = "",
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Makes a reference now of what the collector has collected for the next one, and writes it to a file.

    It is provisional and not taken up: review it with show and diff, then import it, or promote what is collected.
    """
    with asking("reference build", url, token_file) as client:
        data = _file(client, url, model=model, adapter=adapter, which="draft")
    _write("build", output, data)


def export(
    model: _Model,
    output: _Output,
    adapter: _Adapter = "",
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Writes the reference that a model is compared with to a file."""
    with asking("reference export", url, token_file) as client:
        data = _file(client, url, model=model, adapter=adapter)
    _write("export", output, data)


def import_(
    file: Annotated[Path, typer.Argument(help="File that build or export wrote.")],
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Has a model compared with the reference in a file; refused where another model, engine or dtype is served."""
    reference = _read("import", file)
    with asking("reference import", url, token_file) as client:
        found = client.send("references/import", file.read_bytes())["reference"]
        typer.echo(f"{_named(reference)} is compared with {found['content_sha256']}, {found['state']}")


def promote(
    model: _Model,
    adapter: _Adapter = "",
    force: _Force = False,  # noqa: FBT002 typer makes a flag of it
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Makes what was collected the frozen reference now, though there is not yet as much as it should have."""
    with asking("reference promote", url, token_file) as client:
        found = client.tell("references/promote", model=model, adapter=adapter, force=force)["reference"]
        typer.echo(f"{model} is compared with {found['content_sha256']}, {found['state']}")


def show(
    file: Annotated[Path | None, typer.Argument(help="File that build or export wrote.")] = None,
    model: Annotated[str | None, typer.Option(help="Instead of a file: the reference of this model.")] = None,
    adapter: _Adapter = "",
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    form: Form = Format.TABLE,
) -> None:
    """Shows what a reference holds; a file needs no collector."""
    from introspan_collector.detect.reference.file import overview  # noqa: PLC0415 --help should not wait

    if (file is None) == (model is None):
        fail("reference show", "give either a file or --model", 2)
    reference = (
        _read("show", file) if file is not None else _live("show", model or "", adapter, url, token_file)
    )
    if form is Format.JSON:
        print_json(overview(reference))
        return
    _print_reference(overview(reference))


def diff(
    first: Annotated[Path, typer.Argument(help="File that build or export wrote.")],
    second: Annotated[
        Path | None, typer.Argument(help="Another [what the model of the first is compared with now].")
    ] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    form: Form = Format.TABLE,
) -> None:
    """Shows how two references differ; ends with 1 where they do, beyond chance."""
    from introspan_collector.detect.reference.diff import difference  # noqa: PLC0415 --help should not wait

    ours = _read("diff", first)
    theirs = (
        _live("diff", ours.identity.model, ours.identity.adapter, url, token_file)
        if second is None
        else _read("diff", second)
    )
    found = difference(ours, theirs)
    # So many are compared that some look unlikely.
    beyond = [item for item in found.features if item.chance * len(found.features) < _CHANCE]
    missing = [
        *(f"only in the first: {kind.value} {_feature(name)}" for kind, name in found.only_first),
        *(f"only in the second: {kind.value} {_feature(name)}" for kind, name in found.only_second),
    ]
    if form is Format.JSON:
        print_json(
            {
                "identity": list(found.identity),
                "features": [_described(item) for item in found.features],
                "missing": missing,
                "class_shares": None if found.class_shares is None else found.class_shares.tolist(),
            }
        )
    else:
        _print_difference((*found.identity, *missing), beyond, len(found.features))
    raise typer.Exit(1 if beyond or missing or found.identity else 0)


def _print_difference(said: tuple[str, ...], beyond: list["FeatureDifference"], compared: int) -> None:
    for sentence in said:
        typer.echo(sentence)
    rows = [
        (item.kind.value, _feature(item.feature), f"{item.distance:.3f}", f"{item.chance:.1e}",
         f"{item.first_median:.4g}", f"{item.second_median:.4g}")
        for item in beyond[:_SHOWN]
    ]  # fmt: skip
    title = f"{len(beyond)} of {compared} features differ beyond chance"
    print_table(title, ("row", "feature", "distance", "chance", "first median", "second median"), rows)


def _read(command: str, file: Path) -> "Reference":
    from introspan_collector.detect.reference.file import import_file  # noqa: PLC0415 --help should not wait

    try:
        return import_file(file)
    except (OSError, ValueError) as error:
        fail(f"reference {command}", f"{file}: {error}", 2)


def _live(command: str, model: str, adapter: str, url: str, token_file: Path | None) -> "Reference":
    from introspan_collector.detect.reference.file import from_bytes  # noqa: PLC0415 as above

    with asking(f"reference {command}", url, token_file) as client:
        return from_bytes(_file(client, url, model=model, adapter=adapter))


def _file(client: Client, url: str, **which: str) -> bytes:
    """A file that a collector gave, once it was read as one: what is kept must not be a proxy's page."""
    from introspan_collector.detect.reference.file import from_bytes  # noqa: PLC0415 as above

    data = client.file("references/export", **which)
    try:
        from_bytes(data)
    except ValueError as error:
        raise ClientError(f"--url {url} is no collector, or of another version: {error}") from error
    return data


def _write(command: str, output: Path, data: bytes) -> None:
    try:
        write_whole(output, data)
    except OSError as error:
        fail(f"reference {command}", f"--output {output} cannot be written: {error.strerror}", 2)
    typer.echo(f"{output}: {len(data)} bytes")


def _named(reference: "Reference") -> str:
    identity = reference.identity
    return f"{identity.model} with adapter {identity.adapter}" if identity.adapter else identity.model


# Any: JSON.
def _present(reference: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if reference is None:
        return ("", "", "", "")
    return (
        str(reference["clusters"]),
        f"{reference['hours']:.1f}",
        at(reference["created_unix_seconds"]),
        reference["content_sha256"][:12],
    )


# Any: as above.
def _next(one: dict[str, Any]) -> str:
    said = []
    if one["reference"] is not None:
        said += one["reference"]["differs_from_served"]
        said += [f"promoted though {why}" for why in one["reference"]["despite"]]
    if one["accepted_until_clusters"] is not None:
        said.append(f"accepted: taken up at {one['accepted_until_clusters']} clusters")
    if one["building"]:
        newest = one["building"][-1]
        if newest["reached"] == "none":
            said.append(f"provisional: {newest['clusters']} of {newest['provisional_clusters']} clusters")
        said.append(f"frozen: {'; '.join(newest['objections']) or 'as soon as it is looked at'}")
    return ". ".join(said)


# Any: as above.
def _print_reference(one: dict[str, Any]) -> None:
    facts = {
        **one["identity"],
        "state": one["state"],
        **one["counts"],
        "built": f"{at(one['created_unix_seconds'])} UTC",
        **({"promoted though": "; ".join(one["despite"])} if "despite" in one else {}),
        "hash": one["content_sha256"],
    }
    print_table("Reference", ("", ""), [(name, str(value)) for name, value in facts.items()])
    for kind, summary in one["summary"].items():
        counted = f"{kind}: {summary['rows']} rows, {summary['cells']} cells, {summary['scores']} scores"
        rows = [
            (name, *("" if value is None else f"{value:.4g}" for value in values))
            for name, values in summary["quantiles"].items()
        ]
        print_table(counted, ("feature", "5 %", "median", "95 %"), rows)


def _feature(name: Any) -> str:  # Any: detect.sample.Feature, which --help should not wait for
    return f"{name.signal} at layer {name.layer}" if name.layer >= 0 else str(name.signal)


# Any: JSON.
def _described(item: "FeatureDifference") -> dict[str, Any]:
    return {
        "kind": item.kind.value,
        "signal": item.feature.signal,
        "layer": item.feature.layer,
        "distance": item.distance,
        "chance": item.chance,
        "first_median": item.first_median,
        "second_median": item.second_median,
    }
