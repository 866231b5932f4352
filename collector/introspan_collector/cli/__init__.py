"""A command line in, one of the commands in this folder out: each module has `register(app)`."""

import importlib
import os
import pkgutil
import sys
from importlib.metadata import entry_points

_MISSING = (
    "introspan: the command line needs {name}, which is part of the collector; "
    "install it with: pip install 'introspan[collector]'. "
    "`python -m introspan.doctor MODEL` works without it"
)


def main() -> None:
    """The console script `introspan`."""
    # NumPy reads it when it is imported. Our matrices are small: threads of BLAS gain nothing, and on a machine that
    # serves a model as well each waits for the others' turn, seconds for what takes one thread milliseconds.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        import typer  # noqa: PLC0415 absent where only the SDK is installed, which must be said clearly

        app = typer.Typer(
            help="Introspan: internal signals of live language models, collected and exposed.",
            no_args_is_help=True,
            add_completion=False,
            pretty_exceptions_enable=False,
            rich_markup_mode="markdown",  # in rich's own, [a default] is an order to rich and not shown
        )
        for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
            importlib.import_module(f"{__name__}.{module.name}").register(app)
        # The SDK adds its own command: neither package imports the other.
        for command in sorted(entry_points(group="introspan.commands")):
            command.load()(app)
    except ModuleNotFoundError as error:
        print(_MISSING.format(name=error.name), file=sys.stderr)  # noqa: T201 this is the command line
        sys.exit(2)
    app()
