"""Nothing in, the releases of vLLM that are looked at out."""

SUPPORTED = (
    "0.20.0",
    "0.20.1",
    "0.20.2",
    "0.21.0",
    "0.22.0",
    "0.22.1",
    "0.23.0",
    "0.24.0",
    "0.25.0",
    "0.25.1",
    "0.26.0",
    "0.27.0",
    "0.27.1",
    "0.28.0",
    "0.29.0",
    "0.30.0",
    "0.31.0",
    "0.32.0",
    "0.33.0",
)
"""Every release from 0.20 to 0.33, oldest first."""

RESOLVED = ("0.25.1", "0.32.0")
"""Those whose requirements are resolved together with ours: the newest of torch 2.11, and the one that is tested."""
