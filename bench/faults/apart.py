"""A function in, its result out, computed in a copy of this process: what it does to what is there is forgotten."""

import json
import os
from collections.abc import Callable
from typing import Any


# Any: JSON.
def apart(function: Callable[[], Any]) -> Any:
    """The function's result, which must be JSON. Raises RuntimeError where it failed; the copy prints why."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as file:
                json.dump(function(), file)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        found = file.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"a trial failed with status {status}")
    return json.loads(found)
