"""An answer or what went wrong in, the response that says so out."""

import math
from typing import Any

from starlette.responses import JSONResponse

from introspan_collector.expose.parameters import ParameterError


class RefusedError(Exception):
    """A call that is not done: its status, and what to do about it."""

    def __init__(self, status: int, key: str, value: str, remedy: str) -> None:
        super().__init__(f"{key} = {value!r}: {remedy}")
        self.status = status
        self.key = key
        self.value = value
        self.remedy = remedy


# Any: JSON.
def reply(answer: dict[str, Any], status: int = 200) -> JSONResponse:
    """The answer as JSON; a number that is not finite is null, for which JSON has no other word."""
    return JSONResponse(_finite(answer), status)


def refusal(error: ParameterError | RefusedError) -> JSONResponse:
    """What is said of a call that is not done."""
    status = error.status if isinstance(error, RefusedError) else 400
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    problem = {"key": error.key, "value": error.value, "remedy": error.remedy}
    return JSONResponse({"error": problem}, status, headers)


# Any: as above.
def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
