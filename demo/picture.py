"""A renderable in, an SVG file that needs nothing from elsewhere out."""

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType

from demo.view import COLUMNS

_REMOTE_FONT = re.compile(r"@font-face \{.*?\}|<!-- Generated .*? -->", re.DOTALL)


def save(picture: RenderableType, path: Path, title: str = "make demo") -> None:
    """Writes what a terminal that is just wide enough would show."""
    # The picture's colours do not depend on the terminal that it was taken in.
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(picture)
    # Rich's SVG loads its font from the network; the reader's own monospace font does as well.
    svg = _REMOTE_FONT.sub("", console.export_svg(title=title, unique_id="introspan"))
    path.write_text(svg, encoding="utf-8")
