"""The name of a method that every endpoint of vLLM's API server calls in; the class that has it out.

Releases keep such methods in different classes: read off 0.20.0 to 0.33.0.
"""

from contextlib import suppress
from importlib import import_module
from typing import Any

PLACES = (
    ("vllm.entrypoints.serve.engine.serving", "BaseServing"),
    ("vllm.entrypoints.generate.base.serving", "GenerateBaseServing"),
    ("vllm.entrypoints.openai.engine.serving", "OpenAIServing"),
)
"""Modules and classes, newest first; each later one stands above fewer endpoints."""


# Any: a class of vLLM.
def having(method: str) -> Any:
    """The class that hands this method to every endpoint that generates. Raises AttributeError where none does."""
    for module, name in PLACES:
        with suppress(ModuleNotFoundError):  # of another release
            owner = getattr(import_module(module), name, None)
            if hasattr(owner, method):
                return owner
    looked = ", ".join(name for _, name in PLACES)
    raise AttributeError(f"no class of vLLM's API server has {method}; looked at {looked}")
