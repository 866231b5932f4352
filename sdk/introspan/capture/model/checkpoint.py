"""vLLM's description of the served model in, the fingerprint of its files out."""

import json
from pathlib import Path
from typing import Any

from introspan.capture.model.fingerprint import fingerprint

_NOT_THE_MODEL = {"transformers_version", "_name_or_path"}


# Any: vLLM's ModelConfig.
def fingerprint_of(model: Any, download_dir: str | None = None) -> str:
    """The fingerprint of a served model: of its directory, or of its snapshot in the Hugging Face cache.

    The configuration in force goes in as well, since engine flags may override the one on disk. It alone counts,
    and the result says `partial-`, where the files are not on this machine's disk.
    """
    config = {key: value for key, value in model.hf_config.to_dict().items() if key not in _NOT_THE_MODEL}
    extra = {"config": json.dumps(config, sort_keys=True, default=str)}
    if model.tokenizer != model.model:
        extra["tokenizer"] = str(model.tokenizer)
    path = Path(model.model)
    if path.is_file():
        extra["file"] = f"{path.name} of {path.stat().st_size} bytes"
        return fingerprint(path.parent, extra)
    return fingerprint(path if path.is_dir() else _snapshot(model, download_dir), extra)


# Any: vLLM's ModelConfig.
def _snapshot(model: Any, download_dir: str | None) -> Path | None:
    """Where a model of the hub was stored by the loader; None where it came from elsewhere, such as a bucket."""
    # Only a model of the hub needs it; vLLM brings it along.
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - the comment above says why
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415 - the comment above says why

    try:
        found = snapshot_download(
            model.model, revision=model.revision, cache_dir=download_dir, local_files_only=True
        )
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    return Path(found)
