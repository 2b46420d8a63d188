"""What a user sees of a run that fails or is stopped: the screen of a terminal, and the folder."""

import os
import pty
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from wsss.config.model import DEMO

from .conftest import CONFIG, ENGINE, RUN, SCREEN, Project, copy_project
from .jobs import forking, python_of_jobs

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

MANIFEST = Path("results/photos/manifest")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OF_ENGINES = ("PYTHONPATH", "WSSS_ENGINE_PID", "WSSS_ENGINE_HOST")


def _forked() -> list[str | Path]:
    """`snakemake` as a fork."""
    return [python_of_jobs(), "-m", "snakemake"]


class Terminal:
    """A run of `snakemake --cores 1` on a terminal of its own.

    It and its jobs may fork (`jobs.py`), where the run gets no signal.
    """

    def __init__(self, project: Project, *arguments: str, forks: bool = False) -> None:
        self._screen, inner = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k not in _OF_ENGINES}
        self._process = subprocess.Popen(
            [*(_forked() if forks else [ENGINE]), "--cores", "1", *arguments],
            cwd=project.root,
            env=(forking(environment) if forks else environment) | {"TERM": "xterm"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            # A shell that starts tests in the background ignores Ctrl-C for all of them.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(inner)
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def press_ctrl_c(self) -> None:
        """The signal that a terminal sends to all processes of the run."""
        os.killpg(self._process.pid, signal.SIGINT)

    def send(self, number: signal.Signals) -> None:
        """A signal to the engine alone."""
        self._process.send_signal(number)

    def end(self) -> tuple[int, list[str]]:
        """The exit code and the lines of the screen, without colours."""
        code = self._process.wait(120)
        self._reader.join()
        return code, _COLOURS.sub("", self.text).replace("\r", "").rstrip().split("\n")

    @property
    def text(self) -> str:
        """All that the screen received, with what moves the cursor."""
        return b"".join(self._chunks).decode()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._screen, 65536)
            except OSError:  # the last process of the run is gone
                break
            self._chunks.append(chunk)
        os.close(self._screen)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose configuration is three photos in a folder."""
    project = copy_project(tmp_path_factory.mktemp("photos"))
    config = yaml.safe_load((project.root / "config.yaml").read_text())
    config |= {"name": "photos", "shards": 1, "compute": {"workers": 1}}
    config["data"] = {"kind": "folder", "root": "photos", "val_list": ""}
    config |= {"clip": dict(DEMO["clip"]), "cams": {"splits": ["train"]}}
    config["retrain"] = {"enabled": False}
    (project.root / "config.yaml").write_text(yaml.safe_dump(config))
    return project


@pytest.fixture
def project(copy: Project) -> Iterator[Project]:
    """The same with good photos and no result."""
    photos = copy.root / "photos"
    photos.mkdir()
    for name, colour in (("a", "red"), ("b", "green"), ("c", "blue")):
        Image.new("RGB", (16, 16), colour).save(photos / f"{name}.jpg")
    (photos / "tags.csv").write_text("image,tags\na.jpg,cat\nb.jpg,dog\nc.jpg,bird\n")
    yield copy
    for name in ("photos", "results", ".snakemake"):
        shutil.rmtree(copy.root / name, ignore_errors=True)


class Pause:
    """Stops ingest before it decodes: what it remembers of earlier ingests is a pipe."""

    def __init__(self, project: Project) -> None:
        self._pipe = project.root / MANIFEST / ".cache" / "decoded.json"
        self._pipe.parent.mkdir(parents=True)
        os.mkfifo(self._pipe)

    def reached(self) -> int:
        """Wait until ingest reads the pipe; it goes on when the returned file is closed."""
        file = os.open(self._pipe, os.O_WRONLY)
        self._pipe.unlink()
        return file


def _run_into_a_pipe(project: Project, *arguments: str) -> str:
    """What a run without a terminal shows."""
    environment = {k: v for k, v in os.environ.items() if k not in _OF_ENGINES}
    command = [*_forked(), "--cores", "1", *arguments]
    done = subprocess.run(
        command,
        cwd=project.root,
        env=forking(environment),
        text=True,
        capture_output=True,
        check=True,
    )
    return done.stderr


def _without_cursor(text: str) -> str:
    """What a terminal received, without colours, with a new line for each movement."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", _COLOURS.sub("", text))


def _no_internals(lines: list[str]) -> None:
    screen = "\n".join(lines)
    assert "Traceback" not in screen
    assert '{"' not in screen  # no JSON
    assert not re.search(r'^ *File ".*", line', screen, re.MULTILINE)


def test_a_run_that_fails(project: Project) -> None:
    with (project.root / "photos/tags.csv").open("a") as stream:
        stream.writelines(f"nothere{n}.jpg,cat\n" for n in range(6))  # five would not stop it
    code, lines = Terminal(project, forks=True).end()
    assert code == 1
    *above, title, message = lines
    assert title == "ingest failed; log: results/photos/logs/ingest.log"
    assert message.startswith("error: 6 of 9 images (66.7%) cannot be used")
    _no_internals(lines)
    assert "Logfile results/photos/logs/ingest.log:" in above  # show-failed-logs
    (table,) = re.findall(r"All are listed in (\S+);", message)
    assert (
        "photos/nothere0.jpg,nothere0.jpg,train,no,missing file"
        in (project.root / table).read_text()
    )

    shutil.rmtree(project.root / "photos")
    code, lines = Terminal(project, forks=True).end()
    assert code == 1
    assert lines[-1] == "error: data.root: photos: no such folder"
    _no_internals(lines)
    assert not (project.root / table).exists()  # that of the run before


def test_a_job_that_warns(project: Project) -> None:
    """What it warns of is seen, on a terminal and in a file, and no second time."""
    with (project.root / "photos/tags.csv").open("a") as stream:
        stream.write("not\x1bhere.jpg,cat\n")
    target = str(MANIFEST / "manifest.csv")
    run = Terminal(project, target, forks=True)
    code, lines = run.end()
    assert code == 0, lines
    screen = _without_cursor(run.text)
    (warning,) = re.findall(r"^(warning: .*)\r\n(.*)\r$", screen, re.MULTILINE)
    assert warning[0].startswith("warning: 1 of 4 images cannot be used and are left out: ")
    assert "not\\x1bhere.jpg" in warning[0]  # a name cannot steer the terminal
    assert warning[1] == "  log: results/photos/logs/ingest.log"
    _no_internals(lines)
    screen = _run_into_a_pipe(project, "--forcerun", "ingest", "--", target)
    assert screen.count("warning: 1 of 4 images cannot be used") == 1
    assert "[100 %] Decoding" in screen
    assert "warning" not in _run_into_a_pipe(project, "--", target)


def test_ctrl_c(project: Project) -> None:
    pause = Pause(project)
    run = Terminal(project)
    file = pause.reached()
    run.press_ctrl_c()
    code, lines = run.end()
    os.close(file)
    assert code == 1
    assert lines[-1].startswith("stopped by Ctrl-C. What is finished stays.")
    _no_internals(lines)
    assert not list(project.root.glob(".snakemake/locks/*"))
    assert not list((project.root / MANIFEST).glob("*.csv"))


def test_sigterm(project: Project) -> None:
    pause = Pause(project)
    run = Terminal(project)
    file = pause.reached()
    run.send(signal.SIGTERM)
    os.close(file)
    code, lines = run.end()
    assert code == 1
    assert lines[-1].startswith("stopped by SIGTERM, after the jobs that were running.")
    _no_internals(lines)
    assert (project.root / MANIFEST / "manifest.csv").exists()
    assert not (project.root / "results/photos/cams").exists()


def test_a_killed_engine_needs_the_same_command_again(project: Project) -> None:
    """Also when it was killed between two outputs of a rule."""
    target = str(MANIFEST / "manifest.csv")
    pause = Pause(project)
    run = Terminal(project, target)
    file = pause.reached()
    (project.root / MANIFEST / "classes.json").write_text("half")
    run.send(signal.SIGKILL)
    code, lines = run.end()
    os.close(file)
    assert code == -signal.SIGKILL
    assert list(project.root.glob(".snakemake/locks/*"))
    code, lines = Terminal(project, target, forks=True).end()
    assert code == 0, lines
    assert "An engine was killed here; its lock is removed." in lines
    assert "cat" in (project.root / MANIFEST / "classes.json").read_text()


def test_a_failing_chart_leaves_the_other_products(finished: Project, tmp_path: Path) -> None:
    project = Project(tmp_path / "copy")
    shutil.copytree(finished.root, project.root, symlinks=True)
    record = project.results / "scores/blob.train.json"
    stat = record.stat()
    record.write_bytes(record.read_bytes().replace(b"blob", b"blot"))
    os.utime(record, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    curve = project.results / "pictures/segmenter_loss.png"
    targets = [
        project.results / "pictures/class_iou.png",
        project.results / "tables/table.md",
        curve,
    ]
    for path in targets:
        path.unlink()
    arguments = [str(path.relative_to(project.root)) for path in targets]
    # With a limit, as on a cluster: a job ends sooner, and the engine says that the next waits.
    command = ("--configfile", "tiny.yaml", "--max-jobs-per-timespan", "1/3s", "--", *arguments)
    code, lines = Terminal(project, *command, forks=True).end()
    assert code == 1
    assert curve.exists()  # keep-going
    engine_log = max((project.root / ".snakemake/log").glob("*.log"))
    assert "Job rate limit reached" in engine_log.read_text()
    assert not any("Job rate limit reached" in line for line in lines)
    failures = "\n".join(lines).split("At least one job did not complete successfully.\n\n")[1]
    for rule, log in (("class_chart", "class_chart.log"), ("table", "table.log")):
        reason = f"error: results/{RUN}/scores/blob.train.json: is damaged"
        assert f"{rule} failed; log: results/{RUN}/logs/{log}\n{reason}" in failures
    assert failures.count("error:") == 2
    _no_internals(lines)


def _percentages(lines: list[str]) -> list[int]:
    return [int(number) for line in lines for number in re.findall(r"\b(\d+) %", line)]


def test_progress_without_a_terminal(finished: Project) -> None:
    """Plain lines, of several jobs at once; the engine's own lines are in its log."""
    screen = (finished.root / SCREEN).read_text()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", screen)
    lines = [line for line in screen.splitlines() if line.startswith("[")]
    done = [line for line in lines if ", done in " in line or ": done in " in line]
    first = next(line for line in screen.splitlines() if line.endswith(" jobs to run"))
    assert len(done) == int(first.split()[0])
    assert _percentages(lines) == sorted(_percentages(lines))
    assert _percentages(lines)[-1] == 100
    assert re.search(r"\] CAMs of val, part 1-of-2: (\d+)/\1, done in (\d+ min )?\d+ s\n", screen)
    (log,) = [
        text
        for path in (finished.root / ".snakemake/log").glob("*.log")
        if "Job stats" in (text := path.read_text()) and f"{len(done) + 1} of " in text
    ]
    noise = ("Job stats:", "Reason: ", "Select jobs to execute", "Finished jobid", "steps (")
    for words in noise:
        assert words in log
        assert words not in screen
    assert "filesystem" not in screen
    assert screen.endswith(f"\nresult page: {(finished.results / 'index.html').as_uri()}\n")


def test_progress_on_a_terminal(finished: Project, tmp_path: Path) -> None:
    project = Project(tmp_path / "copy")
    shutil.copytree(finished.root, project.root, symlinks=True)
    training = CONFIG["retrain"] | {"iterations": 200, "checkpoint_every": 200}
    project.configure(retrain=training)
    target = f"results/{RUN}/segmenter/weights.safetensors"
    run = Terminal(project, "--configfile", "tiny.yaml", "--", target, forks=True)
    code, lines = run.end()
    assert code == 0, lines
    frames = _without_cursor(run.text)
    steps = re.findall(r"Training the segmenter: (\d+)/200, loss \d+\.\d+, \d+ s left", frames)
    assert len(set(steps)) > 1, frames
    assert list(map(int, steps)) == sorted(map(int, steps))
    done = re.search(r"\[100 %\] Training the segmenter: 200/200, loss \S+, done in ", frames)
    assert done
    percentages = _percentages(frames[: done.end()].splitlines())
    assert percentages == sorted(percentages)
    assert len(set(percentages)) > 3
    hidden, shown = (run.text.count(f"\x1b[?25{end}") for end in "lh")
    assert 0 < hidden <= shown  # the cursor is always there, also after a kill
    log = (project.results / "logs/retrain.log").read_text()
    assert "training the segmenter: 200/200, loss " in log
    assert "Finished jobid" not in frames


def test_quiet_is_quiet(finished: Project) -> None:
    target = f"results/{RUN}/pictures/class_iou.png"
    done = finished.snakemake("--quiet", "--forcerun", "class_chart", "--", target)
    for words in (" %", "Drawing", "jobs", "shell"):
        assert words not in done.stderr


def test_a_configuration_that_is_not_there(project: Project) -> None:
    arguments = ("--configfile", "workflow/presets/voc.yaml", "table")
    code, lines = Terminal(project, *arguments, forks=True).end()
    assert code == 1
    assert lines[-1].startswith("error: workflow/presets/voc.yaml: no such configuration file; ")
    _no_internals(lines)


@pytest.mark.parametrize(
    ("text", "message", "end"),
    [
        ("refine:\n\tmethod: none\n", "is not valid YAML: while scanning", "spaces, not tabs"),
        ("seed: 0\nseed: 1\n", "is not valid YAML: the key 'seed' is written twice", "line 2"),
        ("# seed: 0\n", "expected sections such as `refine:`", "leave the file out"),
    ],
)
@pytest.mark.parametrize("name", ["config.yaml", "mine.yaml"])
def test_a_configuration_that_cannot_be_read(
    project: Project, tmp_path: Path, text: str, message: str, end: str, name: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    option = "--directory" if name == "config.yaml" else "--configfile"
    argument = tmp_path if name == "config.yaml" else file
    code, lines = Terminal(project, option, str(argument), forks=True).end()
    assert code == 1
    assert f"error: {file}: {message}" in "\n".join(lines)
    assert end in lines[-1]
    _no_internals(lines)


def test_a_misspelt_key(project: Project) -> None:
    code, lines = Terminal(project, "--config", "retrian={lr: 1}", forks=True).end()
    assert code == 1
    assert lines[-2].endswith(": not a valid configuration")
    assert lines[-1] == "  retrian: unknown key; did you mean retrain?"
    _no_internals(lines)
