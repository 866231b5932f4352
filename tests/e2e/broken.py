"""The name of a part in, Python that makes it raise whenever it is called out, also as a plugin of vLLM's own."""

from pathlib import Path

BROKEN = {
    "stream tap": (
        "import introspan.capture.taps as t\n"
        "class Broken(list):\n"
        "    def __getitem__(self, _): raise RuntimeError('broken on purpose')\n"
        "original = t.Taps.select\n"
        "def select(*args, **kwargs):\n"
        "    original(*args, **kwargs)\n"
        "    t._selection.rows = Broken()\n"
        "t.Taps.select = select"
    ),
    "attention tap": (
        "from introspan.capture.attention_taps import AttentionTap\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "AttentionTap._record = broken"
    ),
    "stream probe": (
        "from introspan.capture.stream_probe import StreamProbe\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "StreamProbe.measure = broken"
    ),
    "attention probe": (
        "from introspan.capture.attention_probe import AttentionProbe\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "AttentionProbe.measure = broken"
    ),
    "output probe": (
        "from introspan.capture.output_probe import OutputProbe\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "OutputProbe.measure = broken"
    ),
    "row selection": (
        "from introspan.capture.rows import Table\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "Table.select = broken"
    ),
    "digest": (
        "from introspan.testing import RowLog\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "RowLog.rows = broken"
    ),
    "following a step": (
        "from introspan.capture.recorder import Recorder\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "Recorder.must_flush = broken"
    ),
    "attaching": (
        "import introspan.capture.worker as w\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        "w.survey = broken"
    ),
}


def write_plugin(folder: Path, *parts: str) -> dict[str, str]:
    """A plugin that vLLM loads where the environment it gives is set: it breaks the parts in every process."""
    metadata = folder / "broken_on_purpose-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-on-purpose\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nbroken = broken_on_purpose:register\n"
    )
    lines = [f"exec({BROKEN[part]!r}, {{}})" for part in parts]
    module = "\n    ".join(["def register():", *lines])
    (folder / "broken_on_purpose.py").write_text(f"{module}\n")
    return {"PYTHONPATH": str(folder)}
