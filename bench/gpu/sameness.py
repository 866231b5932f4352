"""The small real model with Introspan, without, and without again, in; how far their answers differ out."""

from typing import Any

from bench.gpu.engines import ABSENT, ENDPOINT, EVERYTHING, Kind, serving
from bench.gpu.models import prompts, real
from bench.gpu.scale import Scale


def run(scale: Scale, mode: str) -> dict[str, Any]:
    """Tokens that differ, and the largest difference of log-probabilities of tokens behind the same ones."""
    model, asked = real(), prompts(scale.answers)
    # On a CPU compiling takes minutes, and what is rehearsed is this program.
    engine = {"enforce_eager": mode == "eager" or scale.is_rehearsal, "max_model_len": 1024}
    said = {}
    for name, env in (("off", ABSENT), ("again", ABSENT), ("on", ENDPOINT | EVERYTHING)):
        with serving(Kind(model, env, engine), scale) as served:
            said[name] = served.answers(asked, scale.answer_tokens)
            state = served.state()
    on, again = apart(said["on"], said["off"]), apart(said["again"], said["off"])
    return {
        "differing_tokens": on[0],
        "largest_logprob_difference": on[1],
        "without_introspan_again": {"differing_tokens": again[0], "largest_logprob_difference": again[1]},
        "tokens": sum(len(each) for each in said["off"]["tokens"]),
        "graphs": state["graphs"],
        "runner": state["runner"],
    }


def apart(left: dict[str, Any], right: dict[str, Any]) -> tuple[int, float]:
    """Tokens that are not the same; and the largest difference of log-probabilities up to the first such token."""
    tokens, largest = 0, 0.0
    for mine, other, p, q in zip(
        left["tokens"], right["tokens"], left["logprobs"], right["logprobs"], strict=True
    ):
        differing = [i for i, pair in enumerate(zip(mine, other, strict=True)) if pair[0] != pair[1]]
        tokens += len(differing)
        same = differing[0] if differing else len(mine)
        largest = max([largest, *(abs(a - b) for a, b in zip(p[:same], q[:same], strict=True))])
    return tokens, largest
