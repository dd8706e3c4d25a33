"""A SLURM of one machine in one directory: munged, slurmctld and slurmd, and accounting if a test needs it.

It runs without systemd and control groups, so memory is enforced by a look every two seconds.
"""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

from tests.conftest import free_ports
from tests.support import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "my_print_defaults", "sacctmgr")
CPUS = 8

_STOP_SECONDS = 10.0


def missing(programs: tuple[str, ...] = PROGRAMS) -> list[str]:
    """The programs that this machine lacks."""
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    return [program for program in programs if shutil.which(program, path=path) is None]


@dataclass
class Slurm:
    """A running SLURM. Its clients find it by `SLURM_CONF`."""

    directory: Path
    has_accounting: bool
    _running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict, init=False)
    _commands: dict[str, list[str]] = field(default_factory=dict, init=False)

    @property
    def conf(self) -> Path:
        return self.directory / "slurm.conf"

    @property
    def variables(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf)}

    def run(self, *command: str) -> str:
        """What a command of SLURM's client prints."""
        done = subprocess.run(
            command, env={**os.environ, **self.variables}, capture_output=True, text=True, check=True
        )
        return done.stdout

    def queue(self) -> list[str]:
        """The ids of all jobs that wait or run."""
        return self.run("squeue", "-h", "-r", "-o", "%i").split()

    def start(self, name: str, command: list[str] | None = None) -> None:
        command = command or self._commands[name]
        self._commands[name] = command
        with (self.directory / f"{name}.out").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                env={**os.environ, **self.variables, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def runs(self, name: str) -> bool:
        return name in self._running

    def stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def succeeds(self, *command: str) -> bool:
        try:
            self.run(*command)
        except (OSError, subprocess.SubprocessError):
            return False
        return True


@contextmanager
def slurm(directory: Path, *, accounting: bool = False) -> Iterator[Slurm]:
    """SLURM in `directory`, as long as the context is entered."""
    running = Slurm(directory, accounting)
    for name in ("state", "spool", "munge"):
        (directory / name).mkdir(parents=True)
    directory.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(_stop_all, running)
        socket_path = _start_munge(running)
        ports = free_ports(4)
        _write_configuration(running, socket_path, ports)
        if accounting:
            _start_accounting(running, socket_path, ports)
        running.start("slurmctld", ["slurmctld", "-D"])
        wait_until(lambda: "UP" in _output(running, "scontrol", "ping"), "slurmctld answers", 20)
        running.start("slurmd", ["slurmd", "-D", "-N", _host()])
        wait_until(lambda: "idle" in _output(running, "sinfo", "-h", "-o", "%T"), "slurmd answers", 20)
        if accounting:
            _add_account(running)
        yield running


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _output(running: Slurm, *command: str) -> str:
    try:
        return running.run(*command)
    except subprocess.SubprocessError:
        return ""


def _start_munge(running: Slurm) -> Path:
    """Munge with a key of its own. It wants safe owners of all directories above, which /tmp is not."""
    home = running.directory / "munge"
    home.chmod(0o755)
    (home / "key").write_bytes(secrets.token_bytes(128))
    (home / "key").chmod(0o600)
    files = {name: f"--{name}-file={home / name}" for name in ("key", "pid", "log", "seed")}
    command = ["munged", "--foreground", "--force", f"--socket={home / 'socket'}", *files.values()]
    running.start("munged", command)
    wait_until((home / "socket").exists, "munged answers", 10)
    return home / "socket"


def _write_configuration(running: Slurm, munge: Path, ports: list[int]) -> None:
    user, here, home = pwd.getpwuid(os.geteuid()).pw_name, _host(), running.directory
    accounting = "AccountingStorageType=accounting_storage/none"
    if running.has_accounting:
        accounting = (
            "AccountingStorageType=accounting_storage/slurmdbd\n"
            f"AccountingStorageHost={here}\nAccountingStoragePort={ports[2]}\n"
            f"AccountingStoragePass={munge}"
        )
    text = f"""
        ClusterName=here
        SlurmctldHost={here}(127.0.0.1)
        SlurmctldPort={ports[0]}
        SlurmdPort={ports[1]}
        SlurmUser={user}
        SlurmdUser={user}
        AuthType=auth/munge
        AuthInfo=socket={munge}
        CredType=cred/munge
        StateSaveLocation={home}/state
        SlurmdSpoolDir={home}/spool
        SlurmctldPidFile={home}/slurmctld.pid
        SlurmdPidFile={home}/slurmd.pid
        SlurmctldLogFile={home}/slurmctld.log
        SlurmdLogFile={home}/slurmd.log
        SlurmdParameters=config_overrides
        ProctrackType=proctrack/pgid
        TaskPlugin=task/none
        JobAcctGatherType=jobacct_gather/linux
        JobAcctGatherFrequency=task=2
        JobAcctGatherParams=OverMemoryKill,UsePss
        SelectType=select/cons_tres
        SelectTypeParameters=CR_Core_Memory
        SchedulerParameters=batch_sched_delay=0,sched_min_interval=50000,sched_interval=2,bf_interval=2
        SwitchType=switch/none
        MpiDefault=none
        ReturnToService=2
        SlurmctldTimeout=30
        SlurmdTimeout=30
        InactiveLimit=0
        KillWait=2
        MinJobAge=300
        MailProg=/bin/true
        NodeName={here} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory=8000 State=UNKNOWN
        PartitionName=short Nodes={here} Default=YES MaxTime=60 DefaultTime=10 DefMemPerCPU=200 State=UP
        PartitionName=long Nodes={here} MaxTime=INFINITE DefMemPerCPU=200 State=UP
    """
    running.conf.write_text(f"{dedent(text)}{accounting}\n")


def _start_accounting(running: Slurm, munge: Path, ports: list[int]) -> None:
    home, user = running.directory / "mysql", pwd.getpwuid(os.geteuid()).pw_name
    home.mkdir()
    running.run(
        *("mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={home}", "--skip-test-db"),
        "--auth-root-authentication-method=socket",
    )
    password = secrets.token_hex(8)
    setup = home / "setup.sql"
    setup.write_text(
        "".join(
            f"create user slurm@'{host}' identified by '{password}';\n"
            f"grant all on slurm_acct_db.* to slurm@'{host}';\n"
            for host in ("127.0.0.1", "localhost")
        )
    )
    running.start(
        "mariadbd",
        [
            *("mariadbd", "--no-defaults", f"--user={user}", f"--datadir={home}", f"--socket={home}/socket"),
            *(f"--port={ports[3]}", "--bind-address=127.0.0.1", f"--init-file={setup}"),
            *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"),
            *("--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=2"),
        ],
    )
    text = f"""
        AuthType=auth/munge
        AuthInfo=socket={munge}
        DbdHost={_host()}
        DbdAddr=127.0.0.1
        DbdPort={ports[2]}
        SlurmUser={user}
        LogFile={running.directory}/slurmdbd.log
        PidFile={running.directory}/slurmdbd.pid
        StorageType=accounting_storage/mysql
        StorageHost=127.0.0.1
        StoragePort={ports[3]}
        StorageUser=slurm
        StoragePass={password}
        StorageLoc=slurm_acct_db
    """
    conf = running.directory / "slurmdbd.conf"
    conf.write_text(dedent(text))
    conf.chmod(0o600)
    wait_until((home / "socket").exists, "the database answers", 30)
    running.start("slurmdbd", ["slurmdbd", "-D"])
    wait_until(lambda: running.succeeds("sacctmgr", "-i", "-n", "show", "cluster"), "slurmdbd answers", 40)


def _add_account(running: Slurm) -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    running.succeeds("sacctmgr", "-i", "add", "cluster", "here")
    running.run("sacctmgr", "-i", "add", "account", "lab")
    running.run("sacctmgr", "-i", "add", "user", user, "account=lab")


def _stop_all(running: Slurm) -> None:
    for name in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
        if running.runs(name):
            running.stop(name)
