"""What a worker measures now in; how many requests the API process may send again out, asked before each of them.

The collector's brake reaches the worker alone, which sends the observations. What lowers or ends measuring there
lowers or ends what is sent again as much: nothing is kept in the API process that could be out of date.
"""

from collections.abc import Callable
from typing import Any

from introspan.admission import Admission
from introspan.capture.health import Health
from introspan.context import is_chosen

METHOD = "introspan_reprefill_limit"
"""Name of the worker's method that the API process calls through the engine."""


def limit(rate: float, request_rate: float, admission: Admission, health: Health) -> float:
    """The probability, by hash, with which a request may be sent again now; never more than is measured.

    rate and request_rate: what was asked for, of requests sent again and of those measured.
    """
    is_compared = health.is_on("residual") and health.is_on("consistency")
    if not is_compared or not request_rate:
        return 0.0
    return min(admission.probability, rate * min(admission.probability / request_rate, 1.0))


# Any: vLLM's worker.
def offer(worker: Any, may: Callable[[], float]) -> None:
    """Lets the API process ask a worker for its limit."""
    setattr(worker, METHOD, may)


# Any: vLLM's engine client.
async def allows(client: Any, request_hash: int) -> bool:
    """Whether every worker of the engine lets a request be sent again. Raises what the engine raises."""
    limits = await client.collective_rpc(METHOD)
    return all(is_chosen(request_hash, one) for one in limits)
