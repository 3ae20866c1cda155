"""Machines: hosts of a network whose processes, home folder and folder of Ray are their own as well.

`ray stop` kills whatever is called like a process of Ray, wherever it looks: here it sees one machine's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bench.hosts import ROOT, ClusterError, Host, network, obstacle

PASSWD = Path("/etc/passwd")
# where Ray keeps its sessions, and root's connections: each machine has its own
RAY = Path("/tmp/ray")
SSH = Path(f"/tmp/ray_ssh_{sha256(b'root').hexdigest()[:10]}")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# as the first process it takes in the orphans; the last line says that all is mounted
_INIT = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/ray" "$2"
mount --bind "$1/ssh" "$3"
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
touch "$1/ready"
sleep infinity & wait
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A host that is like a computer.

    Attributes:
        host: its place in the network.
        home: root's home folder there; has the same path outside.
        init: its first process, as it is called outside.
    """

    host: Host
    home: Path
    init: int

    def start(self, *command: str, folder: Path | None = None) -> subprocess.Popen[str]:
        """Start a process there, with a new environment and its output in a pipe."""
        environment = {"PATH": SYSTEM_PATH, "HOME": str(self.home), "USER": "root", "TERM": "dumb"}
        words = ["nsenter", "--target", str(self.init), "--all", f"--wd={folder or self.home}", *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)

    def shell(self, command: str, *, seconds: float = 120, folder: Path | None = None) -> str:
        """What a command prints that is run as Ray runs one over ssh.

        Raises:
            ClusterError: it fails, or takes longer.
        """
        interactive = f"source ~/.bashrc; {command}"
        with self.start("bash", "--login", "-c", "-i", interactive, folder=folder) as process:
            try:
                told, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                told, _ = process.communicate()
                raise ClusterError(f"{command!r} takes more than {seconds} s: {told[-3000:]}") from None
        if process.returncode:
            raise ClusterError(f"{command!r} ended with {process.returncode}: {told[-3000:]}")
        return told

    def names(self) -> set[str]:
        """What the processes there are called by the kernel."""
        return {_name(pid) for pid in self.host.pids()}


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def why_not(*programs: str) -> str:
    """Why machines with these programs can't be made here; "" where they can."""
    packages = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync"}
    for program in ("unshare", "nsenter", *programs):
        if shutil.which(program, path=f"{os.environ['PATH']}:{SYSTEM_PATH}") is None:
            package = packages.get(program, "util-linux")
            return f"the command {program} is missing (Debian: apt-get install {package})"
    return obstacle() or _no_machine()


def _no_machine() -> str:
    try:
        with network(1) as (host,), machine(host):
            return ""
    except ClusterError as error:
        return str(error)


@contextmanager
def machine(host: Host) -> Iterator[Machine]:
    """Make a machine of a host; it ends with the host, or here."""
    folder = Path(f"/tmp/{host.space}")
    home = folder / "home"
    for made in (home, folder / "ray", folder / "ssh", RAY, SSH):
        made.mkdir(parents=True, exist_ok=True)
    _give_root_a_home(home, folder / "passwd")
    # Ray's address is the one from which the world would be reached
    subprocess.run(["ip", "-n", host.space, "route", "add", "default", "dev", "eth0"], check=True)
    words = ["ip", "netns", "exec", host.space, "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    words += ["--mount-proc", "bash", "-c", _INIT, "init", str(folder), str(RAY), str(SSH)]
    process = subprocess.Popen(words)
    try:
        yield Machine(host=host, home=home, init=_first_of(process, folder / "ready"))
    finally:
        host.kill()
        process.wait()
        shutil.rmtree(folder)


def _give_root_a_home(home: Path, passwd: Path) -> None:
    others = [line for line in PASSWD.read_text().splitlines() if not line.startswith("root:")]
    passwd.write_text("\n".join([f"root:x:0:0:root:{home}:/bin/bash", *others, ""]))


def _first_of(process: subprocess.Popen[bytes], ready: Path) -> int:
    until = time.monotonic() + 30
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise ClusterError("a machine can't be made: its mounts failed")
        time.sleep(0.02)
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def install_dependencies(made: Machine) -> None:
    """Make the environment that setup commands install into, with all but this project in it."""
    folder = made.home / "rsi-ray" / "venv"
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    ray = folder / "bin" / "ray"
    ray.write_text(f"#!{folder}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)


def build_wheel(folder: Path) -> None:
    """Build this project's wheel into a folder, from a copy: a build leaves files behind."""
    source = folder.parent / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for package in ("rsi_ray", "safety", "search_spaces"):
        shutil.copytree(ROOT / package, source / package, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([sys.executable, *words, f"--wheel-dir={folder}", str(source)], check=True)
