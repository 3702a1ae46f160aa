"""What the command line promises: exit codes, one clear error, one JSON document, and a quick --help."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import STUDENT, TEACHER, Outcome, Pair, environment, hwdkit, steps

from hwdkit.checkpoints.files import load_model, save_model
from hwdkit.cli import catalogue
from hwdkit.commands.recipes import listing

COMMANDS = [
    *([name] for name in catalogue.COMMANDS),
    *(["recipes", name] for name in ("list", "show", "validate", "copy", "schema")),
]
WITHOUT_TORCH = """
import json, sys
from hwdkit.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["hwdkit", *arguments]
    try:
        main()
    except SystemExit as leaving:
        loaded = [name for name in ("torch", "timm", "numpy") if name in sys.modules]
        print(arguments, leaving.code, loaded, file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HWDKIT_DATA", "HWDKIT_RECIPES", "HWDKIT_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def process(*arguments: object, **more: str) -> subprocess.Popen[str]:
    """Start `python -m hwdkit` as the shell would."""
    return subprocess.Popen(
        [sys.executable, "-m", "hwdkit", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
    )


def end(running: subprocess.Popen[str], seen: str = "") -> Outcome:
    out, err = running.communicate(timeout=90)
    return Outcome(running.returncode, out, seen + err)


def wait_for_step(running: subprocess.Popen[str]) -> str:
    """Read the log up to the first training step."""
    seen = ""
    assert running.stderr is not None
    for line in running.stderr:
        seen += line
        if line.startswith("step "):
            return seen
    raise AssertionError(seen)


def distilling(pair: Pair, *more: object) -> list[object]:
    return ["distill", *STUDENT, "--teacher", pair.teacher, "--data-root", pair.data, "--gpus", 0, *more]


def fails(outcome: Outcome, code: int, kind: str, *words: str) -> None:
    """One clear error on stderr, nothing on stdout."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert outcome.err.count("error[") == 1
    assert f"error[{kind}]: " in outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err


# --- help, version, completion: quick, because torch stays out


def test_what_needs_no_network_never_imports_torch() -> None:
    lines: list[list[str]] = [["--help"], ["--version"], ["recipes", "list"], ["--show-completion", "bash"]]
    lines += [["distill", "--help"], ["recipes", "schema"], ["recipes", "validate", "scenes-r10-hwd"]]
    lines += [["distill", "-r", "nope"], ["distill", "-r", "scenes-r10-hwd", "--max-time", "soon"]]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(lines)],
        capture_output=True,
        text=True,
        env=environment(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"),  # pytest is no shell
        timeout=60,
    )
    codes = [0] * 7 + [3, 2]
    for line, code in zip(lines, codes, strict=True):
        assert f"{line} {code} []" in done.stderr, done.stderr
    assert "_hwdkit_completion" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(command: list[str]) -> None:
    helped = hwdkit(*command, "--help")
    assert (helped.code, helped.err) == (0, "")
    assert f"Example:  hwdkit {command[0]}" in " ".join(helped.out.replace("\n", " ").split(" "))
    assert "machine ." not in helped.out  # what a default in brackets becomes


def test_without_arguments_help_is_printed() -> None:
    bare = hwdkit()
    assert bare.code == 2
    assert "per-class-report" in bare.out
    assert "Exit codes" in bare.out
    assert "validate" in hwdkit("recipes").out
    assert hwdkit("--version").out.startswith("hwdkit 0.")


# --- 2: the command line itself


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("distill", "give either --recipe (a new run) or --resume"),
        ("distill -r scenes-r10-hwd --resume runs/x", "give either --recipe"),
        ("distill -r scenes-r10-hwd --max-tim 3", "--max-time"),
        ("distill -r scenes-r10-hwd --max-time 3x", "'3x' is not a duration such as 90s, 45m or 11h30m"),
        ("distill -r scenes-r10-hwd --auto-resume", "--auto-resume needs --out"),
        ("distill --resume a --out b", "--out means nothing with --resume"),
        ("distill -r scenes-r10-hwd --gpus many", "'many' is neither auto nor a number"),
        ("distill -r scenes-r10-hwd --nnodes 2", "--nnodes needs --rdzv-endpoint"),
        ("distill -r scenes-r10-hwd --nnodes two", "'two' is neither N nor MIN:MAX"),
        ("distill -r scenes-r10-hwd --ranks 0", "--ranks"),
        ("train-teacher -r scenes-r18-teacher --nnodes 2 --rdzv-endpoint host", "'host' is not HOST:PORT"),
        ("evaluate", "Missing option '--checkpoint'"),
        ("evaluate -c x --mode half", "'half' is not one of 'whole', 'slide'"),
        ("evaluate -c x --scales 1,big", "'1,big' is not a list of numbers"),
        ("evaluate -c x --scales nan", "within 0.1 and 10"),
        ("evaluate -c x --stride 0 0", "--stride: 0 0 is not a height and a width"),
        ("evaluate -c x --fail-under 70", "--fail-under"),
        ("profile", "give --recipe (its networks)"),
        ("profile -r scenes-r10-hwd --input 512", "'512' is not HEIGHTxWIDTH"),
        ("profile -r scenes-r10-hwd --counter fvcore", "'torch', 'thop', 'paper'"),
        ("profile -c x --classes 3", "--classes means nothing with --checkpoint"),
        ("per-class-report --student x --teacher y --compare cwd", "'cwd' is not NAME=CHECKPOINT"),
        ("per-class-report --student x --teacher y --compare a=1 --compare a=2", "'a' is taken"),
        ("per-class-report --student x --teacher y --compare teacher=1", "'teacher' is taken"),
        ("per-class-report --student x --teacher y --format pdf", "'pdf' is not one of table, json"),
        ("per-class-report --student x --teacher y --sort size", "'size' is not one of 'iou'"),
        ("prepare-data kitti", "'kitti' is not one of ade20k, camvid"),
        ("prepare-data scnes", "Did you mean 'scenes'?"),
        ("destill", "No such command 'destill'"),
    ],
)
def test_a_command_line_that_cannot_be_meant_exits_2(line: str, words: str) -> None:
    fails(hwdkit(*line.split()), 2, "usage", words)
    as_json = hwdkit(*line.split(), "--json")
    assert as_json.code == 2
    assert as_json.document["status"] == "error"
    assert as_json.document["exit_code"] == 2
    assert as_json.document["error"]["kind"] == "usage"


# --- 3: recipes


def test_recipe_faults_exit_3(pair: Pair) -> None:
    Path("mine.yaml").write_text("base: scenes-r10-hwd\nlosses:\n  hwd: {temprature: 2}\n")
    fails(hwdkit("distill", "-r", "mine.yaml"), 3, "recipe", "mine.yaml:3", "Did you mean 'temperature'?")
    beta = hwdkit("distill", "-r", "scenes-r10-hwd", "--set", "losses.hwd.beta=1.5")
    fails(beta, 3, "recipe", "losses.hwd.beta", "1.5")
    fails(hwdkit("distill", "-r", "scenes-r10-hwdd"), 3, "recipe", "Did you mean 'scenes-r10-hwd'?")
    on_cpu = ["--data-root", pair.data, "--gpus", 0, "-q"]
    fails(hwdkit("distill", "-r", "scenes-r18-teacher", *on_cpu), 3, "recipe", "no student", "train-teacher")
    fails(hwdkit(*distilling(pair, "--out", pair.student, "-q")), 3, "recipe", "already used", "--resume")
    fails(hwdkit("recipes", "validate", "mine.yaml"), 3, "recipe", "temprature")
    fails(hwdkit("demo", "--out", pair.data, "--quick", "-q"), 3, "recipe", "choose another --out")


# --- 4: data


def test_data_faults_exit_4(pair: Pair) -> None:
    fails(hwdkit("evaluate", "-c", pair.student, "--data-root", "nowhere"), 4, "data", "prepare-data scenes")
    none = hwdkit("evaluate", "-c", pair.student, "--data-root", pair.data, "--split", "test", "--gpus", 0)
    fails(none, 4, "data", "no split 'test'; it has train, val")
    for split in ("train", "val"):
        for kind, mode in (("images", "RGB"), ("labels", "L")):
            path = Path("camvid", kind, split, "a.jpg" if kind == "images" else "a.png")
            path.parent.mkdir(parents=True)
            Image.new(mode, (64, 48), 3 if mode == "L" else "teal").save(path)
    Image.new("L", (64, 48), 77).save("camvid/labels/val/a.png")
    prepare = ["prepare-data", "camvid", "--data-root", ".", "--workers", 1, "--allow-partial", "-q"]
    fails(hwdkit(*prepare), 4, "data", "labels/val/a.png", "77", str(64 * 48))
    Image.new("L", (64, 48), 3).save("camvid/labels/val/a.png")
    whole = Path("camvid/images/train/a.jpg").read_bytes()
    Path("camvid/images/train/a.jpg").write_bytes(whole[: len(whole) // 2])
    fails(hwdkit(*prepare), 4, "data", "images/train/a.jpg")


# --- 5: checkpoints


class _RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("it-ran",))


def test_checkpoint_faults_exit_5(pair: Pair) -> None:
    more = ["--data-root", pair.data, "--gpus", 0, "-q"]
    fails(
        hwdkit("distill", *STUDENT, "--teacher", "gone", *more), 5, "checkpoint", "gone: no such checkpoint"
    )
    state, description = load_model(pair.student / "student.safetensors")
    save_model(Path("other.safetensors"), state, {**description, "classes": description["classes"][:-1]})
    fails(hwdkit("evaluate", "-c", "other.safetensors", *more), 5, "checkpoint", "other.safetensors")
    names = [f"class {i}" for i in range(12)]
    save_model(Path("renamed.safetensors"), state, {**description, "classes": names})
    renamed = hwdkit("evaluate", "-c", "renamed.safetensors", *more)
    fails(renamed, 5, "checkpoint", "'class 0' against 'road'")
    Path("evil.pth").write_bytes(pickle.dumps(_RunsCode()))
    torch.save(_RunsCode(), "evil-zip.pth")
    for name in ("evil.pth", "evil-zip.pth"):
        fails(hwdkit("evaluate", "-c", name, *more), 5, "checkpoint", name)
    assert not Path("it-ran").exists()
    Path("page.safetensors").write_text("<!DOCTYPE html><html>404</html>")
    fails(hwdkit("evaluate", "-c", "page.safetensors", *more), 5, "checkpoint", "web page")
    fails(hwdkit("evaluate", "-c", pair.data, *more), 5, "checkpoint", "no student.safetensors")
    fails(hwdkit("distill", "--resume", "gone", *more), 5, "checkpoint", "no run to resume")


# --- 6: the machine


@pytest.mark.skipif(torch.cuda.device_count() > 90, reason="has that many GPUs")
@pytest.mark.parametrize(
    "line",
    ["distill -r scenes-r10-hwd", "profile -r scenes-r10-hwd", "evaluate -c x", "demo --out d", None],
)
def test_gpus_that_are_not_there_exit_6(line: str | None) -> None:
    words = (line or "per-class-report --student x --teacher y").split()
    fails(hwdkit(*words, "--gpus", 99), 6, "environment", "--gpus 99", "--gpus 0 for the CPU")
    assert not Path("d").exists()


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit here")
def test_a_full_disk_exits_6_and_keeps_the_old_checkpoint(pair: Pair) -> None:
    begun = hwdkit(*distilling(pair, "--out", "run", *steps(3), "--max-time", "0s", "-q"))
    assert begun.code == 75
    old = Path("run/checkpoints/last.pt").read_bytes()

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2,) * 2)

    resumed = subprocess.run(
        [
            sys.executable,
            "-m",
            "hwdkit",
            "distill",
            "--resume",
            "run",
            "--gpus",
            "0",
            "--data-root",
            pair.data,
        ],
        capture_output=True,
        text=True,
        env=environment(),
        preexec_fn=little_room,
        timeout=90,
    )
    fails(
        Outcome(resumed.returncode, resumed.stdout, resumed.stderr), 6, "environment", "cannot write", "free"
    )
    assert Path("run/checkpoints/last.pt").read_bytes() == old
    assert not list(Path("run").rglob("*.tmp"))


# --- 7, 9


def test_a_diverged_run_exits_7_and_names_the_loss(pair: Pair) -> None:
    wild = ["--set", "optimizer.lr=1e18", "--set", "optimizer.name=sgd", *steps(4)]
    fails(hwdkit(*distilling(pair, *wild, "-q")), 7, "diverged", "loss ce", "optimizer.lr")


def test_a_missed_gate_exits_9_after_the_result(pair: Pair) -> None:
    line = ["evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0, "-q", "--fail-under"]
    missed = hwdkit(*line, 0.99, "--json")
    assert missed.code == 9
    assert missed.document["status"] == "error"
    assert missed.document["error"]["kind"] == "gate"
    assert len(missed.document["per_class"]) == 12
    assert "is below --fail-under 0.99" in missed.err
    shown = hwdkit(*line, 0.99)
    assert (shown.code, "mIoU" in shown.out) == (9, True)
    met = hwdkit(*line, 0, "--json")
    assert (met.code, met.document["status"], met.err) == (0, "ok", "")


# --- 75 and 130: stopped, saved, resumable


def test_a_time_limit_exits_75_and_the_run_goes_on(pair: Pair) -> None:
    line = distilling(pair, "--out", "run", *steps(3), "-q")
    stopped = hwdkit(*line, "--max-time", "0s", "--json")
    assert stopped.code == 75
    going_on = f"continue: hwdkit distill --resume run --data-root {pair.data}"
    assert stopped.document["error"]["hint"] == going_on
    assert torch.load("run/checkpoints/last.pt", weights_only=True)["step"] == 1
    other = hwdkit(*line, "--auto-resume", *steps(5))
    fails(other, 3, "recipe", "cannot change train.iterations")
    done = hwdkit(*line, "--auto-resume", "--json")
    assert done.code == 0, done.err
    assert done.document["last"]["step"] == 3
    teacher = hwdkit("train-teacher", *TEACHER, "--out", "run", "--auto-resume")
    fails(teacher, 3, "recipe", "holds a run of scenes-r10-hwd, not of scenes-r18-teacher")


def test_a_run_that_never_saved_is_begun_again_by_the_same_command(pair: Pair) -> None:
    line = distilling(pair, "--out", "run", *steps(2), "-q")
    broken = hwdkit(*line, "--set", "optimizer.name=sgd", "--set", "optimizer.lr=1e30", "--auto-resume")
    assert broken.code == 7, broken.err
    assert not Path("run/checkpoints/last.pt").exists()
    fails(hwdkit(*line), 3, "recipe", "ended before the first checkpoint", "--auto-resume")
    done = hwdkit(*line, "--auto-resume", "--json")
    assert done.code == 0, done.err
    assert done.document["last"]["step"] == 2


def test_auto_resume_refuses_a_recipe_that_was_edited_meanwhile(pair: Pair) -> None:
    line = distilling(pair, "--out", "run", *steps(3), "-q")
    assert hwdkit(*line, "--max-time", "0s").code == 75
    other = hwdkit(*line, "--auto-resume", "--set", "losses.hwd.beta=0.3")
    fails(other, 3, "recipe", "cannot change losses.hwd.beta")


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGTERM, 75, "interrupted"), (signal.SIGINT, 130, "cancelled")]
)
def test_a_signal_saves_and_the_run_goes_on(pair: Pair, number: signal.Signals, code: int, kind: str) -> None:
    running = process(*distilling(pair, "--out", "run", *steps(100_000)))
    seen = wait_for_step(running)
    running.send_signal(number)
    stopped = end(running, seen)
    fails(stopped, code, kind, f"continue: hwdkit distill --resume run --data-root {pair.data}")
    assert torch.load("run/checkpoints/last.pt", weights_only=True)["step"] >= 1
    more = ["--data-root", pair.data, "--gpus", 0, "-q"]
    again = hwdkit("distill", "--resume", "run", "--max-time", "0s", *more)
    assert again.code == 75


# --- one JSON document, whatever happens


def test_json_is_one_document_for_every_command(pair: Pair) -> None:
    on_cpu = ["--data-root", pair.data, "--gpus", 0]
    both = ["--student", pair.student, "--teacher", pair.teacher, "--examples", 0]
    Path("mine.yaml").write_text("base: scenes-r10-hwd\n")
    lines: list[Sequence[object]] = [
        ("prepare-data", "scenes", "--data-root", pair.data, "--check"),
        ("train-teacher", *TEACHER, *steps(1), *on_cpu),
        (*distilling(pair), *steps(1)),
        ("evaluate", "-c", pair.student, *on_cpu),
        ("profile", "-c", pair.student, "--input", "64x64", "--gpus", 0),
        ("per-class-report", *both, *on_cpu, "--format", "json"),
        ("recipes", "list"),
        ("recipes", "show", "scenes-r10-hwd"),
        ("recipes", "validate", "mine.yaml"),
        ("recipes", "copy", "scenes-r10-hwd", "copied"),
        ("recipes", "schema"),
    ]
    for line in lines:
        done = hwdkit(*line, "--json")
        assert done.code == 0, done.err
        if line[1] != "schema":
            assert (done.document["schema_version"], done.document["status"]) == (1, "ok")
        assert "NaN" not in done.out
        name = line[:2] if line[0] == "recipes" else line[:1]
        again = hwdkit(*name, "--no-such-option", "--json")
        assert (again.code, again.document["exit_code"]) == (2, 2)


def test_an_error_is_one_document_too() -> None:
    missing = hwdkit("evaluate", "-c", "gone", "--json")
    assert (missing.document["status"], missing.document["exit_code"]) == ("error", 5)
    error = missing.document["error"]
    assert set(error) == {"kind", "message", "where", "hint"}
    assert (error["kind"], error["message"], error["where"]) == ("checkpoint", "no such checkpoint", "gone")
    assert "error[checkpoint]: gone: no such checkpoint" in missing.err


# --- what is nobody's mistake, and what is ours


def test_ctrl_c_is_no_traceback_and_a_bug_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    for stop in (KeyboardInterrupt, typer.Abort):
        monkeypatch.setattr(listing, "list_recipes", _raising(stop()))
        fails(hwdkit("recipes", "list"), 130, "cancelled")
    assert hwdkit("recipes", "list", "--json").document["exit_code"] == 130
    monkeypatch.setattr(listing, "list_recipes", _raising(ZeroDivisionError("oops")))
    bug = hwdkit("recipes", "list", "--json")
    assert bug.code == 1
    assert "Traceback" in bug.err
    assert "this is a bug in hwdkit" in bug.err
    assert bug.document["error"]["kind"] == "internal"
    assert bug.document["error"]["message"] == "ZeroDivisionError: oops"


def _raising(error: BaseException):  # type: ignore[no-untyped-def]
    def fail() -> None:
        raise error

    return fail


def test_debug_shows_the_traceback_of_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWDKIT_DEBUG", "0")
    assert "Traceback" not in hwdkit("recipes", "show", "nope").err
    monkeypatch.setenv("HWDKIT_DEBUG", "1")
    shown = hwdkit("recipes", "show", "nope")
    assert shown.code == 3
    assert "Traceback" in shown.err
    assert "error[recipe]: unknown recipe 'nope'" in shown.err


# --- pipes


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "cancelled"), (signal.SIGTERM, 75, "interrupted")]
)
def test_a_signal_while_modules_are_imported_ends_the_command(
    number: signal.Signals, code: int, kind: str
) -> None:
    """Third-party modules catch whatever is raised while they are imported."""
    program = (
        "import os, sys; from hwdkit.terminal import signals\n"
        "sys.argv = ['hwdkit', 'distill', '--json']\n"
        "with signals.leaving_at_once():\n"
        f"    try: os.kill(os.getpid(), {int(number)})\n"
        "    except BaseException: pass\n"
        "    print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment())
    assert done.returncode == code
    assert json.loads(done.stdout)["error"]["kind"] == kind
    assert done.stderr.count("error[") == 1


def test_letters_that_stdout_lacks_are_replaced(pair: Pair) -> None:
    arguments = ["evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0, "-q"]
    outcome = end(process(*arguments, PYTHONIOENCODING="ascii", PYTHONUTF8="0"))
    assert outcome.code == 0, outcome.err
    assert "mIoU" in outcome.out


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("recipes list >&-", 6, "stdout is closed"),
        ("recipes list > /dev/full", 6, "cannot write to stdout"),
        ("--version > /dev/full", 6, "No space left"),
        ("recipes show nope --json > /dev/full", 3, "unknown recipe 'nope'"),
    ],
)
def test_a_closed_or_full_stdout_is_no_bug(line: str, code: int, words: str) -> None:
    command = f"{sys.executable} -m hwdkit {line}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment())
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_ends_the_processes_too() -> None:
    """They are deaf to Ctrl-C, and a parent that has gone would leave them for ever."""
    program = (
        "import multiprocessing, os, signal, time\n"
        "from hwdkit.terminal import signals\n"
        "with signals.leaving_at_once():\n"
        "    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    child.start()\n"
        "    os.kill(os.getpid(), signal.SIGINT)"
    )
    # It returns once nobody holds stdout any more: neither the command nor its child.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment(), timeout=30)
    assert done.returncode == 130


def test_quiet_is_for_the_terminal_not_for_the_runs_own_log(pair: Pair, tmp_path: Path) -> None:
    done = hwdkit(*distilling(pair, *steps(1), "--out", tmp_path / "run", "--quiet"))
    assert (done.code, done.err) == (0, "")
    assert "step 1/1" in (tmp_path / "run" / "train.log").read_text()


def test_a_reader_that_leaves_is_no_failure() -> None:
    for line in (["recipes", "list"], ["recipes", "schema"], ["recipes", "show", "scenes-r10-hwd", "--json"]):
        running = process(*line)
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(30) == 0


def test_a_pipe_gets_plain_whole_lines(pair: Pair) -> None:
    listed = hwdkit("recipes", "list")
    rows = listing.list_recipes()
    lines = listed.out.splitlines()
    assert len(lines) == len(rows) + 2
    for row in rows:
        assert any(line.split()[0] == row["name"] and line.endswith(row["summary"]) for line in lines)
    evaluated = hwdkit("evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0)
    trained = hwdkit(*distilling(pair, *steps(2)))
    assert trained.code == 0, trained.err
    assert [line.partition("  ")[0] for line in trained.err.splitlines() if line.startswith("step ")] == [
        "step 1/2",
        "step 2/2",
        "step 2",
    ]
    for text in (listed.out, evaluated.out, trained.out, trained.err, evaluated.err):
        assert not {"\x1b", "\r", "…"} & set(text)
        assert all(line == line.rstrip() for line in text.splitlines())


# --- several processes


@pytest.mark.distributed
def test_two_processes_evaluate_as_one(pair: Pair) -> None:
    line = ["evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0, "--fail-under", 0.99]
    two = end(process(*line, "--ranks", 2, "--json"))
    one = hwdkit(*line, "--json")
    assert (two.code, one.code) == (9, 9)
    assert two.document == one.document
    assert two.err == "starting 2 processes on this machine\n" + one.err


@pytest.mark.distributed
def test_two_processes_train_and_speak_once(pair: Pair) -> None:
    line = distilling(pair, *steps(2), "--ranks", 2, "--json")
    trained = end(process(*line, "--out", "run"))
    assert trained.code == 0, trained.err
    assert trained.document["last"]["step"] == 2
    assert trained.err.count("run directory: run") == 1
    assert "2 processes of 1 on cpu" in trained.err
    used = end(process(*line, "--out", "run"))
    assert used.code == 3
    assert used.document["error"]["message"] == "the run directory is already used"
    assert used.err.count("error[") == 1
    assert "Traceback" not in used.err


@pytest.mark.distributed
def test_ctrl_c_stops_two_processes_with_their_work_saved(pair: Pair) -> None:
    running = process(*distilling(pair, *steps(100_000), "--ranks", 2, "--out", "run"))
    seen = wait_for_step(running)
    running.send_signal(signal.SIGINT)
    fails(end(running, seen), 130, "cancelled", "--resume run")
    assert Path("run/checkpoints/last.pt").is_file()
