"""A Slurm of one node on this machine, with separate controller, keys and ports."""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "srun", "scancel")
_SECONDS = 30
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SwitchType=switch/none
GresTypes=gpu
MinJobAge=3600
KillWait=1
OverTimeLimit=0
InactiveLimit=0
ReturnToService=2
SlurmdTimeout=300
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class SlurmUnavailableError(Exception):
    """Slurm cannot run here; the message says why."""


@dataclass
class Slurm:
    """A running Slurm."""

    folder: Path
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What its clients need."""
        conf = str(self.folder / "slurm.conf")
        return os.environ | {"SLURM_CONF": conf, "PATH": f"{self.folder}/bin:{_PATH}"}

    def run(self, *command: str, check: bool = True) -> str:
        """Run a client, such as squeue."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.stderr}")
        return done.stdout.strip()

    def jobs(self) -> dict[str, dict[str, str]]:
        """All its jobs, finished or not, by id: state, comment, exit code …"""
        by_id = {}
        for line in self.run("scontrol", "show", "job", "--oneliner").splitlines():
            fields = dict(part.split("=", 1) for part in line.split(" ") if "=" in part)
            if "JobId" in fields:
                by_id[fields["JobId"]] = fields
        return by_id


@contextmanager
def one_node(folder: Path, *, cpus: int = 2, gpus: int = 0) -> Iterator[Slurm]:
    """Start munge, a controller and a node; end them at the end.

    Args:
        folder: for state, keys and logs; short, since it holds a socket, and reachable for the
            user munge.
        cpus: that the node reports; it may have fewer.
        gpus: the same; they are not real.

    Raises:
        SlurmUnavailableError: it is not installed, not allowed, or does not come up.
    """
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        raise SlurmUnavailableError(
            f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)"
        )
    if os.geteuid() != 0:
        raise SlurmUnavailableError("starting Slurm's daemons needs root")
    slurm = Slurm(folder)
    try:
        _start(slurm, cpus, gpus)
        yield slurm
    finally:
        if len(slurm._processes) == 3:
            slurm.run("scancel", "--user=root", check=False)
            _wait_a_while(lambda: not slurm.run("squeue", "--noheader", check=False))
        for process in reversed(slurm._processes):
            process.terminate()
        for process in slurm._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(slurm: Slurm, cpus: int, gpus: int) -> None:
    folder = slurm.folder
    try:
        user = pwd.getpwnam("munge")
    except KeyError:
        raise SlurmUnavailableError("there is no user munge") from None
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    # The executor plugin takes SLURM_CONF away from the srun that it calls inside a job.
    srun = folder / "bin" / "srun"
    srun.write_text(
        f'#!/bin/sh\nexport SLURM_CONF={folder}/slurm.conf\nexec {_program("srun")} "$@"\n'
    )
    srun.chmod(0o755)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    for path in (key, folder):
        os.chown(path, user.pw_uid, user.pw_gid)
    host = socket.gethostname().split(".")[0]
    controller, daemon = _free_ports(2)
    (folder / "slurm.conf").write_text(
        _CONF.format(
            host=host, controller=controller, daemon=daemon, folder=folder, cpus=cpus, gpus=gpus,
            memory=64_000,
        )
    )  # fmt: skip
    for index in range(gpus):  # Slurm needs a device file per GPU: one like /dev/null
        os.mknod(folder / f"gpu{index}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    files = f"AutoDetect=off\nNodeName={host} Name=gpu File={folder}/gpu[0-{gpus - 1}]\n"
    (folder / "gres.conf").write_text(files if gpus else "")
    (folder / "slurmctld.log").touch()
    munge = ("--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket")
    files = (f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed"))
    _spawn(slurm, "munged", *munge, *files, user="munge")
    _wait(slurm, (folder / "munge.socket").exists, "munged")
    _spawn(slurm, "slurmctld", "-D")
    _wait(slurm, lambda: "UP" in slurm.run("scontrol", "ping", check=False), "slurmctld")
    _spawn(slurm, "slurmd", "-D", "-N", host)
    _wait(
        slurm, lambda: slurm.run("sinfo", "-h", "-o", "%T", check=False) in ("idle", "mixed"),
        "slurmd",
    )  # fmt: skip


def _spawn(slurm: Slurm, program: str, *arguments: str, user: str | None = None) -> None:
    with (slurm.folder / f"{program}.out").open("wb") as out:
        slurm._processes.append(
            subprocess.Popen(
                [_program(program), *arguments],
                env=slurm.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                user=user,
                preexec_fn=_end_with_parent,
                cwd=slurm.folder,
            )
        )


def _program(name: str) -> str:
    path = shutil.which(name, path=_PATH)
    assert path is not None
    return path


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: killed tests leave no daemons


def _wait_a_while(ready: Callable[[], bool], stopped: Callable[[], bool] = lambda: False) -> bool:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and not stopped():
        if ready():
            return True
        time.sleep(0.1)
    return False


def _wait(slurm: Slurm, ready: Callable[[], bool], program: str) -> None:
    if _wait_a_while(ready, lambda: slurm._processes[-1].poll() is not None):
        return
    output = (slurm.folder / f"{program}.out").read_text(errors="replace")[-600:]
    log = slurm.folder / f"{program}.log"
    output += log.read_text(errors="replace")[-600:] if log.exists() else ""
    raise SlurmUnavailableError(f"{program} does not come up here: {output}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for bound in sockets:
            bound.bind(("", 0))
        return [bound.getsockname()[1] for bound in sockets]
    finally:
        for bound in sockets:
            bound.close()
