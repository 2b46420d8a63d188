"""Run the workflow on a folder of photos: one command from photos with tags to masks."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wsss.artifacts.atomic import write_text
from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.exclusive_lock import exclusive_lock
from wsss.config.errors import ConfigError
from wsss.config.load import load_config
from wsss.config.model import Config
from wsss.config.paths import expand_path
from wsss.config.safe_yaml import read_yaml
from wsss.data.counted import counted
from wsss.photos.check import MOST_SHOWN
from wsss.photos.classes import read_class_table
from wsss.photos.page import INDEX
from wsss.photos.record import read_record
from wsss.photos.review import REVIEW, median_unsure, photo_flags
from wsss.photos.settings import HEADER, NAME, settings_yaml
from wsss.pipeline.engine import workflow_folder
from wsss.pipeline.engine_lock import engine_runs
from wsss.pipeline.failures import PAGES_NAMED

CONFIG = "config.yaml"
_RESULTS = Path("results", NAME)
_FIRST_OF_TABLE = "Job stats:"


@dataclass(frozen=True)
class PhotoRun:
    """A run on photos.

    Args:
        config: see `wsss.photos.settings.photo_settings`.
        cores: ``all`` or a number.
    """

    config: Config
    out: Path
    cores: str = "all"

    def command(self, folder: Path | None = None) -> list[str]:
        """The engine's command; it also continues the run by itself.

        Args:
            folder: to run in, by default ``out``.
        """
        out = folder or self.out.absolute()
        snakefile = str(workflow_folder() / "Snakefile")
        return ["snakemake", "--cores", self.cores, "--snakefile", snakefile,
                "--directory", str(out), "--configfile", str(out / CONFIG)]  # fmt: skip

    def start(self) -> int:
        """Write the configuration and run all stages, unless another process does.

        Returns:
            Exit code of the engine, which has said why it failed, if it did.

        Raises:
            ArtifactError: another process writes to the folder.
        """
        label = f"--out {self.out}"
        with exclusive_lock(self.out / ".snakemake", label=label):
            if engine_runs(self.out):  # by another command, or its `wsss photos` was killed
                raise ArtifactError(
                    f"{label}: an engine works there; wait for it, stop it, or choose another "
                    "folder"
                )
            self._write_config(self.out)
            return _engine(self.command())

    def planned(self) -> str:
        """The table of the jobs that `start` would run; writes nothing.

        Raises:
            ConfigError: the engine cannot say it.
        """
        with self._folder() as folder:
            done = subprocess.run(
                [*_python(self.command(folder)), "--dry-run"],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise ConfigError(done.stderr.strip() or done.stdout.strip())
        table = done.stdout.partition(_FIRST_OF_TABLE)[2].strip().split("\n\n")[0]
        return table or "nothing is to be done"

    def summary(self) -> Iterator[str]:
        """Where the results are, and how many photos to look at.

        Raises:
            ArtifactError: the run did not finish.
        """
        record = read_record(self.out / _RESULTS / "gallery.json")
        doubtful = sum(bool(photo_flags(entry)) for entry in record.entries)
        photos = counted(len(record.entries), "photo")
        yield f"masks of {photos}: {self.out / 'masks'}"
        yield f"page: {(self.out / INDEX).absolute().as_uri()}"
        review = self.out / REVIEW
        yield f"to review: {doubtful} of {photos}, listed in {review}"
        yield f"unsure pixels: {100 * median_unsure(record.entries):.0f} % of a photo (median)"
        if self.config.retrain.enabled:
            results = self.out / _RESULTS
            yield f"segmenter: {results / 'segmenter'}; for new photos: {self._predict_command()}"
            yield f"its masks of these photos: {(results / 'index.html').absolute().as_uri()}"
        for photo in record.left_out[:MOST_SHOWN]:
            yield f"not used: {photo.photo}: {photo.reason}"
        if (more := len(record.left_out) - MOST_SHOWN) > 0:
            yield f"not used: {more} more, all on the page"
        yield f"the same with snakemake: {shlex.join(self.command())}"

    def _predict_command(self) -> str:
        return f"wsss predict FOLDER --weights {shlex.quote(str(self.out / _RESULTS))}"

    def _write_config(self, folder: Path) -> None:
        text = settings_yaml(self.config, shlex.join(self.command()))
        write_text(folder / CONFIG, text)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder for a dry run: with the results so far, and with the new configuration."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for entry in self.out.iterdir() if self.out.is_dir() else ():
                if entry.name != CONFIG:
                    (folder / entry.name).symlink_to(entry.absolute())
            self._write_config(folder)
            yield folder


def run_on_photos(folder: Path) -> PhotoRun | None:
    """The run on photos that a folder of a run belongs to, if it does.

    Raises:
        ConfigError: its configuration is damaged.
    """
    out = folder.parent.parent
    return PhotoRun(load_config(out / CONFIG), out) if is_of_photos(out) else None


def print_summary(folder: Path) -> bool:
    """Print what a run on photos said at its end; gives whether it is one.

    Args:
        folder: of a run, of photos or not.

    Raises:
        ArtifactError: the run did not finish.
        ConfigError: its configuration is damaged.
    """
    run = run_on_photos(folder)
    for line in run.summary() if run else ():
        print(line)
    return run is not None


def lasting_classes(out: Path, names: tuple[str, ...]) -> list[str]:
    """The classes of a folder of results: earlier ones keep their ids, new ones are appended.

    Args:
        out: folder of results; need not exist.

    Raises:
        ArtifactError: the class table there is damaged.
    """
    return list(read_class_table(out).with_classes(names).names[1:])


def results_folder(photos: Path, out: Path | None, *, ending: str = "masks") -> Path:
    """Where the results of photos go: next to where one stands, if not said otherwise.

    Args:
        photos: a folder, or one photo.
        out: as the user said; None: the name of the photos with an ending.

    Raises:
        ConfigError: it lies among the photos, where masks would be taken for photos.
    """
    inside = photos.resolve()
    chosen = out or Path(f"{inside.stem if photos.is_file() else inside.name}-{ending}")
    if photos.is_file():
        return chosen
    if out is None and chosen.resolve().is_relative_to(inside):
        chosen = inside.with_name(f"{inside.name}-{ending}")
    if chosen.resolve().is_relative_to(inside):
        raise ConfigError(
            f"--out {chosen}: lies in the folder of the photos, where masks would count as photos; "
            "choose a folder outside"
        )
    return chosen


def refuse_other_files(folder: Path, *, is_ours: bool) -> None:
    """Refuse to write among files of something else, some of which would be replaced.

    Args:
        folder: of results; need not exist.
        is_ours: whether the same command wrote to it before.

    Raises:
        ConfigError: it is a file, or holds other files.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder}: is a file; choose a folder")
    entries = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if (others := sorted(entries - {"results", ".snakemake"})) and not is_ours:
        raise ConfigError(
            f"--out {folder}: holds {others[0]!r}, which this command did not write; choose "
            "another folder, or a new one"
        )


def is_of_photos(folder: Path) -> bool:
    """Whether `wsss photos` wrote to a folder."""
    try:
        return (folder / CONFIG).read_text("utf-8").startswith(HEADER)
    except (OSError, ValueError):
        return False


def refuse_other_photos(out: Path, photos: Path) -> None:
    """Refuse to replace the results of photos that lie in another folder.

    Photos that were moved or renamed go on: the folder that the results name is gone then.

    Args:
        out: folder of results; need not exist.

    Raises:
        ConfigError: the results there are those of another folder, which still exists.
    """
    if not is_of_photos(out):
        return
    try:
        before = out / expand_path(read_yaml(out / CONFIG)["data"]["root"])
    except (ConfigError, KeyError, TypeError, AttributeError):
        return  # edited by hand: whose results these are is not known
    if before.is_dir() and photos.is_dir() and not before.samefile(photos):
        raise ConfigError(
            f"--out {out}: holds the results of other photos, those in {before}; choose another "
            "folder"
        )


def _python(command: list[str]) -> list[str]:
    """The command in this environment, which need not be active."""
    return [sys.executable, "-m", *command]


def _engine(command: list[str]) -> int:
    """Run the engine; Ctrl-C reaches it, too, SIGTERM is passed on: it says what its jobs do."""
    process = subprocess.Popen(_python(command), env=os.environ | {PAGES_NAMED: "1"})
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
