"""The name of a part in, Python that makes it raise whenever it is called out, also as a plugin of vLLM's own."""

from pathlib import Path


def _raising(module: str, owner: str, function: str) -> str:
    return (
        f"import {module} as module\n"
        "def broken(*_): raise RuntimeError('broken on purpose')\n"
        f"module.{owner}{function} = broken"
    )


_STREAM_TAP = (
    "import introspan.capture.taps.host_streams as t\n"
    "class Broken(tuple):\n"
    "    def __getitem__(self, _): raise RuntimeError('broken on purpose')\n"
    "original = t.HostStreams.select\n"
    "def select(*args, **kwargs):\n"
    "    original(*args, **kwargs)\n"
    "    t._selection.into = Broken(t._selection.into)\n"
    "t.HostStreams.select = select"
)

BROKEN = {
    "stream tap": _STREAM_TAP,
    "attention tap": _raising("introspan.capture.taps.attention", "AttentionTap.", "_record"),
    "stream probe": _raising("introspan.capture.stream.probe", "StreamProbe.", "measure"),
    "attention probe": _raising("introspan.capture.attention.probe", "AttentionProbe.", "measure"),
    "output probe": _raising("introspan.capture.output.probe", "OutputProbe.", "measure"),
    "row selection": _raising("introspan.capture.rows", "Table.", "select"),
    "digest": _raising("introspan.testing", "RowLog.", "rows"),
    "following a step": _raising("introspan.capture.step.recorder", "Recorder.", "must_flush"),
    "attaching": _raising("introspan.capture.worker", "", "survey"),
}

EVERY_STEP = {
    "residual": _STREAM_TAP,
    "attention": _raising("introspan.capture.attention.probe", "AttentionProbe.", "take_in"),
    "output": _raising("introspan.capture.output.probe", "OutputProbe.", "keep"),
}
"""By probe: what is called once in each step, the first of them inside the model's forward."""


def patience(errors: int) -> str:
    """Python that lets a probe raise this often, in place of the few times that the product allows."""
    return f"import introspan.capture.health as health\nhealth.ERRORS_BEFORE_OFF = {errors}"


def write_plugin(folder: Path, *codes: str) -> dict[str, str]:
    """A plugin that vLLM loads in every process with the environment it gives: it runs the codes there."""
    metadata = folder / "broken_on_purpose-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-on-purpose\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nbroken = broken_on_purpose:register\n"
    )
    lines = [f"exec({code!r}, {{}})" for code in codes]
    module = "\n    ".join(["def register():", *lines])
    (folder / "broken_on_purpose.py").write_text(f"{module}\n")
    return {"PYTHONPATH": str(folder)}
