"""What somebody asks or decides about alarms in, a collector's answer out."""

import getpass
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from introspan_collector.duration import seconds
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

_COLUMNS = ("id", "since", "state", "severity", "model", "adapter", "alarm", "triage", "layer", "evidence")

_Id = Annotated[str, typer.Argument(metavar="ID", help="Id of an alarm, see `introspan alarms list`.")]
_By = Annotated[str | None, typer.Option(help="Who looks after it [you].")]
_Comment = Annotated[str, typer.Option(help="What others should know.")]
_Model = Annotated[str | None, typer.Option(help="Only of this model.")]
_Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Though canaries are not clean or halves differ of the reference that this promotes."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds `introspan alarms`."""
    group = typer.Typer(
        help="Alarms of a collector, and deploys that are announced to it.", no_args_is_help=True
    )
    group.command("list")(list_)
    for command in (show, ack, accept, announce, windows, withdraw):
        group.command(command.__name__)(command)
    app.add_typer(group, name="alarms")


def list_(
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    model: _Model = None,
    adapter: Annotated[str | None, typer.Option(help="Only of this adapter; '' for the model alone.")] = None,
    state: Annotated[str | None, typer.Option(help="Only open, acknowledged or resolved ones.")] = None,
    form: Form = Format.TABLE,
) -> None:
    """Lists alarms: those that last first, then those that are over."""
    with asking("alarms list", url, token_file) as client:
        answer = client.get("alarms", model=model, adapter=adapter, state=state)
        if form is Format.JSON:
            print_json(answer)
            return
        rows = [
            (
                one["id"],
                at(one["opened_unix_seconds"]),
                one["state"],
                one["severity"],
                one["model"],
                one["adapter"],
                one["alertname"],
                one["triage"]["verdict"],
                one["layer"],
                ", ".join(sorted({clue["stream"]["detector"] for clue in one["evidence"]})),
            )
            for one in answer["alarms"]
        ]
        print_table("Alarms" if rows else "No alarms.", _COLUMNS, rows)


def show(id_: _Id, url: Url = DEFAULT_URL, token_file: TokenFile = None, form: Form = Format.TABLE) -> None:
    """Shows one alarm with its evidence, its reasoning and requests that show it."""
    with asking("alarms show", url, token_file) as client:
        answer = client.get(f"alarms/{quote(id_, safe='')}")
        if form is Format.JSON:
            print_json(answer)
            return
        _print_alarm(answer)


def ack(
    id_: _Id,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    by: _By = None,
    comment: _Comment = "",
    form: Form = Format.TABLE,
) -> None:
    """Says that somebody looks after an alarm."""
    _acknowledge("ack", id_, url, token_file, by, comment, form)


def accept(
    id_: _Id,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    by: _By = None,
    comment: _Comment = "",
    force: _Force = False,  # noqa: FBT002 typer makes a flag of it
    form: Form = Format.TABLE,
) -> None:
    """Says that what raised an alarm is healthy: it is learnt, and the alarm ends once it is."""
    _acknowledge("accept", id_, url, token_file, by, comment, form, force=force)


def announce(
    reason: Annotated[str, typer.Option(help="What is deployed.")],
    lasting: Annotated[str, typer.Option("--for", help="How long it takes: 30m, 2h.")],
    start_in: Annotated[str | None, typer.Option("--in", help="When it begins: 10m from now [now].")] = None,
    model: Annotated[str, typer.Option(help="The model that is worked on [every].")] = "",
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    form: Form = Format.TABLE,
) -> None:
    """Announces a deploy: alarms that begin in it are recorded, and nobody is told while it lasts."""
    with asking("alarms announce", url, token_file) as client:
        # Without --in the collector's clock says when it begins: ours may differ.
        start = None if start_in is None else time.time() + seconds(start_in)
        end = (time.time() if start is None else start) + seconds(lasting)
        answer = client.tell("maintenance", model=model, start=start, end=end, reason=reason)
        if form is Format.JSON:
            print_json(answer)
            return
        window = answer["window"]
        typer.echo(f"{window['id']}: {window['model'] or 'every model'} until {at(window['end'])} UTC")


def windows(url: Url = DEFAULT_URL, token_file: TokenFile = None, form: Form = Format.TABLE) -> None:
    """Lists announced deploys."""
    with asking("alarms windows", url, token_file) as client:
        answer = client.get("maintenance")
        if form is Format.JSON:
            print_json(answer)
            return
        rows = [
            (one["id"], one["model"] or "every", at(one["start"]), at(one["end"]), one["reason"])
            for one in answer["windows"]
        ]
        title = "Announced deploys, UTC" if rows else "No deploys are announced."
        print_table(title, ("id", "model", "from", "to", "reason"), rows)


def withdraw(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of a deploy, see `introspan alarms windows`.")],
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Ends an announced deploy, or forgets one that has not begun."""
    with asking("alarms withdraw", url, token_file) as client:
        client.delete(f"maintenance/{quote(id_, safe='')}")
    typer.echo(f"{id_} is no longer announced")


def _acknowledge(
    command: str,
    id_: str,
    url: str,
    token_file: TokenFile,
    by: str | None,
    comment: str,
    form: Format,
    *,
    force: bool = False,
) -> None:
    who = by if by is not None else _user()
    if not who:
        fail(f"alarms {command}", "--by must name somebody", 2)
    with asking(f"alarms {command}", url, token_file) as client:
        answer = client.tell(
            f"alarms/{quote(id_, safe='')}/acknowledge",
            by=who,
            comment=comment,
            accept_as_class=command == "accept",
            force=force,
        )
        if form is Format.JSON:
            print_json(answer)
            return
        typer.echo(f"{id_} is {answer['alarm']['state']}, by {who}")
        if answer["accepted"]:
            typer.echo(answer["accepted"])


def _user() -> str:
    """Who runs this; empty where nobody knows, as in a container whose user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


# Any: JSON.
def _print_alarm(one: dict[str, Any]) -> None:
    facts = {
        "alarm": one["alertname"],
        "model": one["model"],
        "adapter": one["adapter"],
        "severity": one["severity"],
        "state": one["state"],
        "since": f"{at(one['opened_unix_seconds'])} UTC",
        "triage": one["triage"]["verdict"],
        "because": " ".join(one["triage"]["reasons"]),
        "layer": one["layer"],
        "replicas": ", ".join(one["replicas"]),
        "singled out": ", ".join(one["singled_out"]),
        "guarantee": one["guarantee"],
        "reference": one["reference"],
        "deploy": one["maintenance"],
        "looked after": _said(one["acknowledgement"]),
        "over since": at(one["resolved_unix_seconds"]),
        "ended by": one["resolution"],
    }
    print_table(one["id"], ("", ""), [(name, text) for name, text in facts.items() if text])
    evidence = [
        (
            clue["stream"]["detector"],
            clue["copy"],
            f"{clue['level']:.1f}",
            f"{clue['share']:.0%}",
            clue["sentence"],
        )
        for clue in one["evidence"]
    ]
    print_table("Evidence", ("detector", "copy", "log10", "share", "what was seen"), evidence)
    requests = [
        (request["request_id"], request["trace_id"], request["replica"], request["feature"],
         f"{request['measure']} = {request['score']:.3g}")
        for request in one["exemplars"]
    ]  # fmt: skip
    print_table("Requests that show it", ("request", "trace", "replica", "feature", "score"), requests)


# Any: as above.
def _said(acknowledgement: dict[str, Any] | None) -> str:
    if acknowledgement is None:
        return ""
    comment = acknowledgement["comment"]
    return f"by {acknowledgement['by']}" + (f": {comment}" if comment else "")
