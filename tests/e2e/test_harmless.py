"""The served model answers the same, bit for bit, whether Introspan is absent, present, everywhere or broken."""

import numpy as np
import pytest
from bad_collectors import BAD_COLLECTORS
from broken import BROKEN
from engine import EVERYTHING, Call, Result, Run, run
from tiny_models import SERVED, VOCABULARY, write

TINY = SERVED | {"max_model_len": 1024, "max_num_seqs": 6, "max_num_batched_tokens": 96}
COMPILED = TINY | {"enforce_eager": False}
REAL = {"max_model_len": 1024, "max_num_seqs": 6, "max_num_batched_tokens": 128}
DEFAULTS = {"INTROSPAN_ENDPOINT": "127.0.0.1:1"}


def _schedule(vocabulary: int, tokens: int) -> list[Call]:
    """A fixed schedule with chunks, cached prefixes, n > 1, an abort, and sampling from the engine's own generator."""
    draw = np.random.default_rng(11)
    prompts = [draw.integers(3, vocabulary, length).tolist() for length in (4, 150, 290, 33, 150)]
    prompts[4] = prompts[1]
    sampling = (
        {"temperature": 0.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.0, "top_k": 20, "presence_penalty": 0.3},
        {"temperature": 1.2, "n": 2},
        {"temperature": 0.0},
    )
    calls = [
        Call(f"{i}", prompt, params | {"max_tokens": tokens, "ignore_eos": True, "logprobs": 5}, at=2 * i)
        for i, (prompt, params) in enumerate(zip(prompts, sampling, strict=True))
    ]
    return [*calls, Call("aborted", prompts[0], {"max_tokens": 100, "temperature": 0.0}, at=3, abort_at=12)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write("llama", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def without(tiny, tmp_path_factory) -> Result:
    calls = _schedule(VOCABULARY, 30)
    return run(Run(str(tiny), calls, TINY, pipeline="none"), tmp_path_factory.mktemp("off"))


def _same(left: Result, right: Result) -> None:
    assert left.tokens == right.tokens
    assert left.logprobs == right.logprobs


def test_everything_on_changes_no_bit(tiny, without, tmp_path):
    result = run(Run(str(tiny), _schedule(VOCABULARY, 30), TINY, EVERYTHING), tmp_path)
    assert len(result.row_ids) > 150
    assert result.status["disabled"] == []
    _same(without, result)


@pytest.mark.parametrize("collector", BAD_COLLECTORS)
def test_a_bad_collector_changes_no_bit(collector, tiny, without, tmp_path):
    with BAD_COLLECTORS[collector]() as endpoint:
        env = {"INTROSPAN_ENDPOINT": endpoint}
        result = run(Run(str(tiny), _schedule(VOCABULARY, 30), TINY, env, pipeline="real"), tmp_path)
    assert "introspan: exporting" in result.stderr
    _same(without, result)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_probe_changes_no_bit_and_is_switched_off(what, tiny, without, tmp_path):
    task = Run(str(tiny), _schedule(VOCABULARY, 30), TINY, EVERYTHING, before=BROKEN[what])
    result = run(task, tmp_path)
    _same(without, result)
    _switched_off(what, result)


def _switched_off(what: str, result: Result) -> None:
    assert "broken on purpose" in result.stderr
    if what != "attaching":
        assert [entry["reason"] for entry in result.status["disabled"]] == ["probe_error"]
        ours = [line for line in result.stderr.splitlines() if line.startswith("Traceback")]
        assert len(ours) == 1, "an error is logged once"


def test_a_wrong_setting_serves_without_capture_and_says_so_once(tiny, without, tmp_path):
    env = DEFAULTS | {"INTROSPAN_TOKEN_STRIDE": "none"}
    result = run(Run(str(tiny), _schedule(VOCABULARY, 30), TINY, env, pipeline="real"), tmp_path)
    _same(without, result)
    said = [line for line in result.stderr.splitlines() if "INTROSPAN_TOKEN_STRIDE" in line]
    assert len(said) == 1, "a wrong setting is said once"
    assert "must be an integer ≥ 1, got 'none'" in said[0]
    assert "introspan: exporting" not in result.stderr


def test_the_real_model_in_eager_mode_changes_no_bit(model_directory, tmp_path):
    calls = _schedule(40_000, 24)
    off = run(Run(str(model_directory), calls, REAL, pipeline="none"), tmp_path / "off")
    on = run(Run(str(model_directory), calls, REAL, DEFAULTS, pipeline="real"), tmp_path / "on")
    _same(off, on)


@pytest.fixture(scope="module")
def compiled_without(tiny, tmp_path_factory) -> Result:
    calls = _schedule(VOCABULARY, 30)
    return run(Run(str(tiny), calls, COMPILED, pipeline="none"), tmp_path_factory.mktemp("compiled"))


def _same_but_for_rounding(left: Result, right: Result) -> None:
    """Taps move the borders of compiled kernels, and with them the last bits."""
    assert left.tokens == right.tokens
    for name, samples in left.logprobs.items():
        for before, after in zip(samples, right.logprobs[name], strict=True):
            for one, other in zip(before, after, strict=True):
                shared = one.keys() & other.keys()
                assert shared
                assert max(abs(one[token] - other[token]) for token in shared) <= 1e-5


# What they are all held against takes a compilation too.
_IN_ONE_PROCESS = pytest.mark.xdist_group("compiled")


def _measured_everywhere(result: Result) -> None:
    assert result.status["disabled"] == [], result.stderr[-2000:]
    assert not np.isnan(result.block("residual.log_rms")).any()


@_IN_ONE_PROCESS
def test_the_compiled_model_gives_equal_tokens_and_logprobs_within_1e_5(tiny, compiled_without, tmp_path):
    result = run(Run(str(tiny), _schedule(VOCABULARY, 30), COMPILED, EVERYTHING), tmp_path)
    _measured_everywhere(result)
    _same_but_for_rounding(compiled_without, result)


@_IN_ONE_PROCESS
@pytest.mark.parametrize(
    "what", ["stream tap", "attention tap", "attaching", pytest.param("output probe", marks=pytest.mark.slow)]
)
def test_a_broken_probe_of_a_compiled_model_changes_no_token_and_is_switched_off(
    what, tiny, compiled_without, tmp_path
):
    task = Run(str(tiny), _schedule(VOCABULARY, 30), COMPILED, EVERYTHING, before=BROKEN[what])
    result = run(task, tmp_path)
    _same_but_for_rounding(compiled_without, result)
    _switched_off(what, result)


@pytest.mark.slow  # compiles twice
def test_the_compiled_real_model_gives_equal_tokens_and_logprobs_within_1e_5(model_directory, tmp_path):
    calls, engine = _schedule(40_000, 24), REAL | {"enforce_eager": False}
    off = run(Run(str(model_directory), calls, engine, pipeline="none"), tmp_path / "off")
    on = run(Run(str(model_directory), calls, engine, EVERYTHING), tmp_path / "on")
    _measured_everywhere(on)
    _same_but_for_rounding(off, on)
