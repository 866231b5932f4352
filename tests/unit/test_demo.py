"""What the demonstration promises: it ends what it started and nothing else, and it shows what was measured."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from dataclasses import replace
from itertools import islice
from pathlib import Path

import httpx
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from demo import watched
from demo.callers import chats
from demo.collected import EMPTY, read
from demo.faults import NewTraffic, NoFault, damaged, write_wrong_sampler
from demo.health import check_alive
from demo.outcome import story
from demo.phases import HEALTHY_SECONDS, READING_SECONDS, Director, Phase
from demo.picture import save
from demo.positive import positive
from demo.processes import DemoError, PortTakenError, Program, loopback_port, start
from demo.run import on_free_ports
from demo.server import ModelServer
from demo.show import Plan, Show
from demo.stage import Stage
from demo.traffic import Tally
from demo.view import COLUMNS, Run, Scene, fitting, plain_line, screen
from demo.watch_view import Act
from demo.watched import NOTHING

_PARENT_OF_TWO = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2)]
print(*(child.pid for child in children), flush=True)
time.sleep(60)
"""
_STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def _wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if text := path.read_text():
            return text
        time.sleep(0.02)
    pytest.fail(f"nothing was written to {path}")


def _alive(pid: int) -> bool:
    try:
        # A zombie has ended; only its parent has not asked yet.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_leaving_ends_a_program_with_its_children_and_nothing_else(tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with start("parent", [sys.executable, "-c", _PARENT_OF_TWO], {}, tmp_path, 5.0) as program:
            children = [int(pid) for pid in _wait_for(program.log).split()]
            assert all(_alive(pid) for pid in children)
        assert not _alive(program.process.pid)
        assert not any(_alive(pid) for pid in children)
        assert _alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_program_that_ignores_sigterm_is_killed_after_the_patience_it_was_given(tmp_path):
    began = time.monotonic()
    with start("stubborn", [sys.executable, "-c", _STUBBORN], {}, tmp_path, 0.5) as program:
        _wait_for(program.log)
    assert program.process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 20


def test_program_is_ended_when_an_exception_passes(tmp_path):
    pids = []

    def interrupted():
        with start("parent", [sys.executable, "-c", _PARENT_OF_TWO], {}, tmp_path, 5.0) as program:
            pids.extend([program.process.pid, *map(int, _wait_for(program.log).split())])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 3
    assert not any(_alive(pid) for pid in pids)


def test_program_is_in_a_process_group_of_its_own(tmp_path):
    with start("parent", [sys.executable, "-c", _PARENT_OF_TWO], {}, tmp_path, 5.0) as program:
        assert os.getpgid(program.process.pid) == program.process.pid != os.getpgid(0)


def test_taken_port_is_replaced_by_a_free_one(free_port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert loopback_port(port) != port
    preferred = free_port()
    assert loopback_port(preferred) == preferred


@pytest.mark.parametrize("program", ["collector", "another"])
def test_program_that_could_not_listen_is_told_from_one_that_failed_otherwise(tmp_path, program, free_port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if program == "collector":
            where = ("--data", tmp_path / "data", "--grpc", f"127.0.0.1:{free_port()}")
            command = (Path(sys.executable).with_name("introspan"), "collector", *where)
            command += ("--http", f"127.0.0.1:{port}")
        else:
            command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))
        with start(program, command, {}, tmp_path, 5.0) as running:
            running.process.wait(20)
            with pytest.raises(PortTakenError, match="ended with exit code"):
                check_alive(running)
    with start(
        "wrong", (sys.executable, "-c", "raise SystemExit('no memory')"), {}, tmp_path, 5.0
    ) as running:
        running.process.wait(20)
        with pytest.raises(DemoError, match="no memory") as caught:
            check_alive(running)
    assert not isinstance(caught.value, PortTakenError)


def test_demonstration_starts_anew_where_a_port_was_taken_meanwhile_and_gives_up_in_the_end():
    said, outcomes = [], [PortTakenError("one"), PortTakenError("two"), None]

    def attempt():
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    on_free_ports(attempt, said.append, attempts=3)
    assert (outcomes, len(said)) == ([], 2)
    for failure, tries in ((PortTakenError("again"), 3), (DemoError("no memory"), 1)):
        outcomes[:] = [failure] * 3
        with pytest.raises(type(failure), match=str(failure)):
            on_free_ports(attempt, said.append, attempts=3)
        assert len(outcomes) == 3 - tries


def test_same_seed_gives_the_same_requests_and_every_request_its_own_trace():
    first, again = (list(islice(chats("m", 7), 50)) for _ in range(2))
    assert first == again
    assert len({chat.headers["traceparent"] for chat in first}) == 50
    assert len({chat.headers["Authorization"] for chat in first}) > 40, "callers are what counts as evidence"
    assert {chat.body["stream"] for chat in first} == {True, False}


def test_new_traffic_is_what_no_caller_sent_before():
    fault = NewTraffic()
    source = chats("m", 7, lambda: fault.is_on)
    before = {str(chat.body["messages"]) for chat in islice(source, 200)}
    asyncio.run(fault.begin())
    after = {str(chat.body["messages"]) for chat in islice(source, 50)}
    assert all(" " in text for text in before)
    assert not before & after
    assert all("==" in text or text.count(" ") == 3 for text in after), "no word, only a payload"


_LATEST = {
    "window_seconds": 60.0,
    "series": [
        {"signal": "residual.log_rms", "layer": 0, "mean": -1.25},
        {"signal": "residual.log_rms", "layer": 29, "mean": 3.5},
        {"signal": "attention.entropy", "layer": 29, "mean": 2.125},
        {"signal": "output.entropy", "layer": None, "mean": 0.875},
    ],
}
_STATUS = {
    "replicas": [
        {
            "segments": {"prompt": 3, "decoded": 4},
            "measured_steps": 10,
            "measured_rows": 30,
            "capture_seconds": 0.005,
            "drops": {"queue_full": 2},
            "disabled": [{"signal": "attention", "reason": "self_check_failed", "detail": "layer 3 differs"}],
        }
    ]
}
_RUN = Run(
    "a-model", 12.0, 60.0, Tally(sent=9, answered=7, failed=1, output_tokens=480), {"metrics": "there"}
)
_WATCHED = {
    "references": {
        "references": [
            {
                "model": "m",
                "state": "provisional",
                "reference": {"differs_from_served": ["dtype bfloat16, not float32"]},
                "building": [{"clusters": 150, "provisional_clusters": 200}],
            }
        ]
    },
    "canaries": {
        "canaries": [
            {
                "model": "m",
                "baseline": {"rounds": 4},
                "gathered": 0,
                "needed": 4,
                "replicas": [
                    {
                        "time": 5.0,
                        "compared": True,
                        "deviates": True,
                        "ratio": 90.0,
                        "place": "layer 17",
                        "kl_nats": 0.25,
                        "flipped": 3,
                    },
                    {"time": 9.0, "compared": False},
                ],
            }
        ]
    },
    "detection": {
        "levels": [
            {"model": "m", "adapter": "", "detector": "canary", "copy": "ticket", "log10": -2.0},
            {"model": "m", "adapter": "", "detector": "canary", "copy": "page", "log10": None},
            {"model": "another", "adapter": "", "detector": "bank", "copy": "page", "log10": -1.0},
        ]
    },
    "alarms": {
        "alarms": [
            {
                "id": "1",
                "model": "m",
                "alertname": "IntrospanCanaryDeviates",
                "severity": "critical",
                "triage": {"verdict": "model or engine", "reasons": ["The canary moved."]},
                "layer": "layer 17",
                "evidence": [
                    {"stream": {"detector": "canary"}, "sentence": f"The canary is 90 times off, {copy}."}
                    for copy in ("ticket", "page")
                ],
                "exemplars": [{"request_id": "chatcmpl-7", "trace_id": "ab12", "feature": "log rms"}],
                "guarantee": "A rule.",
                "resolution": "",
            }
        ]
    },
}
_SEEN = watched.read(_WATCHED, "m")
_ALARM = _SEEN.incidents[0]
_QUIET = Scene(Act(Phase.LEARNING, 3.0, "", "", "", ""), NOTHING, None)
_LOUD = Scene(
    Act(Phase.FAULT, 9.0, "a layer is damaged", "", "", "alarm 5 s after the fault began"), _SEEN, _ALARM
)


def _text(snapshot, width=COLUMNS, scene=_QUIET) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(screen(_RUN, snapshot, scene, width))
    return console.export_text()


def test_screen_shows_what_is_done_and_the_incident_with_triage_layer_and_a_request():
    text = _text(EMPTY, scene=_LOUD)
    for shown in (
        "a layer is damaged",
        "canary: DEVIATES, from layer 17 on",
        "alarm 5 s after the fault began",
        "model or engine",
        "The canary moved.",
        "layer 17",
        "chatcmpl-7",
        "ab12",
        "1.0e-02",
        "dtype bfloat16, not float32",
    ):
        assert shown in text, shown
    assert "bank" not in text, "another model's evidence"
    assert text.count("90 times") == 1, "tickets and pages say the same"


def test_screen_says_how_far_the_reference_is_and_that_limits_are_small():
    seen = watched.read({**_WATCHED, "references": {"references": [
        {**_WATCHED["references"]["references"][0], "state": "none", "reference": None}
    ]}}, "m")  # fmt: skip
    text = _text(EMPTY, scene=Scene(_QUIET.act, seen, None))
    assert "150 of 200 clusters" in text
    assert "small for the demonstration" in text


@pytest.mark.parametrize("height", [24, 40, 100])
def test_live_screen_fits_the_terminal_and_leaves_out_the_incident_last(height):
    console = Console(width=COLUMNS, height=height, record=True, file=io.StringIO(), force_terminal=True)
    console.print(fitting(_RUN, read(_LATEST, _STATUS), _LOUD, console))
    text = console.export_text()
    assert len(text.splitlines()) < height
    assert "model or engine" in text
    assert ("0.875" in text) == (height > 24), "what the output was like is not in the incident's place"


def _seen(incidents=(), *, learnt=True):
    return watched.Watched(
        reference="provisional" if learnt else "none", has_canary=True, incidents=incidents
    )


def test_fault_begins_only_after_everything_is_learnt_and_was_healthy_for_a_while():
    director = Director(has_fault=True, is_reversible=True)
    assert director.step(_seen(learnt=False), 0.0) is Phase.LEARNING
    assert director.step(_seen(learnt=False), 500.0) is Phase.LEARNING
    assert director.step(_seen(), 501.0) is Phase.HEALTHY
    assert director.step(_seen(), 500.9 + HEALTHY_SECONDS) is Phase.HEALTHY
    assert director.step(_seen(), 501.0 + HEALTHY_SECONDS) is Phase.FAULT


def test_fault_is_taken_back_when_its_alarm_was_triaged_and_could_be_read():
    director = Director(has_fault=True, is_reversible=True, phase=Phase.FAULT)
    director.step(_seen(), 0.0)
    pending = replace(_ALARM, verdict="pending")
    assert director.step(_seen((pending,)), 10.0) is Phase.FAULT
    assert director.step(_seen((pending,)), 10.0 + READING_SECONDS) is Phase.FAULT, "still pending"
    assert director.step(_seen((_ALARM,)), 11.0 + READING_SECONDS) is Phase.OVER
    assert director.step(_seen((replace(_ALARM, resolution="Quiet."),)), 60.0) is Phase.OVER
    assert director.alarmed_at == 10.0
    assert director.resolved_at == 60.0
    told = "\n".join(story(director, 70.0))
    assert "alarm 10 s after the fault began, resolved 37 s after it was taken back" in told


def test_alarm_before_the_fault_is_told_as_a_false_one_and_is_not_taken_for_its_own():
    director = Director(has_fault=True, is_reversible=True, phase=Phase.HEALTHY)
    director.step(_seen((_ALARM,)), 0.0)
    director.step(_seen((_ALARM,)), HEALTHY_SECONDS)
    director.step(_seen((_ALARM,)), HEALTHY_SECONDS + 5)
    assert director.phase is Phase.FAULT
    assert director.alarm is None
    assert "alarms before anything was done to the system: 1" in story(director, 60.0)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_an_amount_that_is_none_is_refused_with_its_value(text):
    with pytest.raises(ArgumentTypeError, match=f"must be a number > 0, got '{text}'"):
        positive(text)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("demo.run", "--seconds=-1"), "argument --seconds: must be a number > 0, got '-1'"),
        (("demo.run", "--fault=layers"), "invalid choice: 'layers' (choose from "),
        (("deploy.stack.run", "--data=/proc/none"), "--data /proc/none cannot be written: No such file"),
    ],
)
def test_an_option_that_cannot_be_used_ends_a_program_before_it_starts_anything(command, said):
    without_a_model = os.environ | {"XDG_CACHE_HOME": "/proc/none", "HOME": "/proc/none"}
    done = subprocess.run(
        (sys.executable, "-m", *command),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env=without_a_model,
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_done_where_no_fault_is_asked_for():
    director = Director(has_fault=False, is_reversible=False, phase=Phase.HEALTHY)
    for now in (0.0, 1000.0):
        assert director.step(_seen(), now) is Phase.HEALTHY


def test_damaged_checkpoint_differs_in_one_tensor_of_one_layer(tmp_path):
    healthy = tmp_path / "healthy"
    healthy.mkdir()
    (healthy / "config.json").write_text("{}")
    weights = {f"model.layers.{i}.mlp.down_proj.weight": np.ones((4, 8), np.float32) for i in range(3)}
    save_file(weights, healthy / "model.safetensors")
    made = damaged(healthy, tmp_path, layer=1)
    found = load_file(made / "model.safetensors")
    changed = {name for name, values in found.items() if not np.array_equal(values, weights[name])}
    assert changed == {"model.layers.1.mlp.down_proj.weight"}
    assert np.count_nonzero(found["model.layers.1.mlp.down_proj.weight"]) == 24
    assert (made / "config.json").exists()
    assert damaged(healthy, tmp_path, layer=1) == made, "made once"


def test_wrong_sampler_is_a_plugin_that_any_vllm_finds_and_that_is_off_at_first(tmp_path):
    flag, environment = write_wrong_sampler(tmp_path / "plugin")
    assert not flag.exists()
    code = (
        "from importlib.metadata import entry_points\n"
        "print(entry_points(group='vllm.general_plugins')['demo_wrong_sampler'].value)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, check=True
    )
    assert found.stdout.decode().strip() == "demo_wrong_sampler:register"


def _stage(saved, director=None):
    server = ModelServer(Path(), 1, {}, asyncio.Event())
    return Stage(
        "m",
        server,
        NoFault(),
        director or Director(has_fault=False, is_reversible=False),
        saved,
        clock=lambda: 0.0,
    )


def _api(refusal, posted):
    def answer(request):
        if request.method == "POST":
            posted.append(request.content)
            return httpx.Response(200) if refusal is None else httpx.Response(409, json={"error": refusal})
        name = request.url.path.rsplit("/", 1)[1]
        return httpx.Response(200, json={**_WATCHED, "latest": _LATEST, "status": _STATUS}[name])

    return httpx.AsyncClient(base_url="http://c", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize("refusal", [None, {"remedy": "dtype bfloat16, not float32"}])
def test_saved_reference_is_handed_over_once_and_a_refusal_is_told(tmp_path, refusal):
    file = tmp_path / "reference.zip"
    file.write_bytes(b"a reference")
    stage, posted = _stage(file), []

    async def steps():
        async with _api(refusal, posted) as client:
            await stage.step(client)
            await stage.step(client)

    asyncio.run(steps())
    assert posted == [b"a reference"]
    assert ("refused" in stage.note) == (refusal is not None)
    assert ("dtype bfloat16, not float32" in stage.note) == (refusal is not None)


def test_screen_shows_every_mean_drop_and_disabled_signal():
    text = _text(read(_LATEST, _STATUS))
    for shown in (
        "-1.25",
        "3.50",
        "2.12",
        "0.875",
        "queue_full 2",
        "self_check_failed",
        "0.50 ms",
        "1 in flight",
    ):
        assert shown in text, shown


def test_summary_says_how_long_the_first_signal_took_since_the_start_and_since_the_server_was_ready():
    seconds = iter((130.0, 131.5))
    console = Console(width=200, record=True, file=io.StringIO())
    collector = Program(
        "collector", subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]), Path()
    )
    show = Show(
        Plan("m", 1.0), console, collector, "", _stage(None), iter(()), Tally(), started_seconds=100.0,
        clock=lambda: next(seconds),
    )  # fmt: skip
    show._began = show.clock()

    async def look():
        async with _api(None, []) as client:
            await show._look(client)

    try:
        asyncio.run(look())
    finally:
        collector.process.kill()
        collector.process.wait()
    show.clock = lambda: 140.0
    show._summarise()
    text = console.export_text()
    assert "first signal 1.5 s after the server was ready, 32 s after the start of the demonstration" in text


def test_screen_before_the_first_signal_says_that_there_is_nothing():
    assert "segments accepted: none" in _text(EMPTY)


@pytest.mark.parametrize("width", [80, COLUMNS])
def test_no_value_is_cut_in_a_terminal_of_80_columns_or_in_the_picture(width):
    text = _text(read(_LATEST, _STATUS), width, _LOUD)
    assert max(map(len, text.splitlines())) <= width
    assert "-1.25" in text
    assert "…" not in text


def test_plain_line_is_one_line_with_the_same_numbers():
    line = plain_line(_RUN, read(_LATEST, _STATUS))
    assert "\n" not in line
    assert "7 segments" in line
    assert "output.entropy=0.875" in line


def test_picture_loads_nothing_from_the_network(tmp_path):
    save(screen(_RUN, read(_LATEST, _STATUS), _LOUD, COLUMNS), tmp_path / "picture.svg")
    svg = (tmp_path / "picture.svg").read_text()
    assert "3.50" in svg
    assert "url(http" not in svg.replace('"', "")
    assert svg.count("://") == 1, "only the name of the SVG namespace looks like an address"
