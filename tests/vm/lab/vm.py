# SPDX-License-Identifier: GPL-2.0-or-later
"""One virtual machine: its disks, its QEMU process, and commands run inside over ssh."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import debugkernel
from . import image as images
from .qmp import Qmp
from .scan import LogScanner
from .util import BUILD, LabError, locked, run, wait_for

BOOT_LIMIT = 480.0
# On a busy host a processor of the guest may stand still for longer than RCU waits before it complains.
KERNEL_ARGS = ("rcupdate.rcu_cpu_stall_timeout=120 "
               "root=/dev/vda rw console=ttyS0 loglevel=5 no_timer_check net.ifnames=0 "
               "panic=0 random.trust_cpu=on mitigations=off audit=0 nowatchdog "
               "systemd.show_status=auto systemd.unit=multi-user.target")


@dataclass
class Options:
    suite: str = "bookworm"
    variant: str = ""                      # of the suite's image
    cpus: int = 2
    memory_mib: int = 2048
    disks: Sequence[str] = ()              # sizes of throw-away disks, as in "2G"
    cache: str = "unsafe"                  # QEMU's cache mode of those disks
    icount: bool = False                   # virtual time counts instructions; one CPU
    accel: str = "tcg"
    forward: Sequence[int] = ()            # guest TCP ports to be reached from the host
    kernel: Path | None = None             # another kernel, booted with the same disk
    initrd: Path | None = None
    debug: debugkernel.DebugKernel | None = None  # boot this one; everything takes longer then
    append: str = ""
    keep: bool = False                     # outlive this program
    lifetime: float = 3600                 # seconds after which it is killed, whatever it does
    extra: Sequence[str] = field(default_factory=tuple)


def kvm_works(img: images.Image, limit: float = 15) -> bool:
    """Whether a guest really runs under KVM: the device may exist and guests still hang or crawl.

    The image's own kernel is started without a disk. It gets as far as finding nothing to run, panics,
    and restarts, which ends QEMU: one or two seconds where KVM works.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    argv = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-kernel", str(img.kernel),
            "-append", "panic=-1 quiet no_timer_check"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=limit)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class VM:
    """A machine of one suite. Use as a context manager: it is killed on the way out."""

    def __init__(self, options: Options, run_dir: Path) -> None:
        self.options = options
        self.dir = run_dir
        self.dir.mkdir(parents=True, exist_ok=True)
        self.console = self.dir / "console.log"
        self.scanner = LogScanner(self.console)
        self.proc: subprocess.Popen | None = None
        self.qmp: Qmp | None = None
        self.resets_when_up = 0
        self.reaper: threading.Timer | None = None
        self.ssh_port = 0
        self.ports: dict[int, int] = {}
        self.keys = images.keys()
        # A socket's path may be 107 bytes at most, so it cannot lie in the run's directory.
        self.sockets = Path(tempfile.mkdtemp(prefix="thinlab-"))

    def __enter__(self) -> VM:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.options.keep:
            self.kill()

    # -- the machine ---------------------------------------------------------------------------

    def start(self) -> None:
        img = images.get(self.options.suite, self.options.variant)
        root = self.dir / "root.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(img.root_disk), "-F", "raw",
             str(root)])
        argv = self._argv(img, root)
        (self.dir / "qemu.args").write_text("\n".join(argv) + "\n")
        with (self.dir / "qemu.log").open("wb") as log:
            self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log,
                                         stderr=subprocess.STDOUT,
                                         start_new_session=True)
        if not self.options.keep:
            self.reaper = threading.Timer(self.options.lifetime * self.patience, self.proc.kill)
            self.reaper.daemon = True
            self.reaper.start()
        try:
            self._connect_qmp()
            self.wait_up()
        except BaseException:
            self.kill()
            raise

    def _argv(self, img: images.Image, root: Path) -> list[str]:
        opt = self.options
        argv: list[str] = []
        if not opt.keep:
            # Dies with this program, even when that is killed without warning.
            argv += ["setpriv", "--pdeathsig", "KILL", "--"]
        argv += ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-user-config",
                 "-machine", "q35,vmport=off,smm=off", "-m", str(opt.memory_mib)]
        if opt.icount:
            # Without ERMS the kernel copies words, not bytes: each one copied counts.
            argv += ["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off", "-smp", "1",
                     "-cpu", "max,-erms,-fsrm"]
        elif opt.accel == "kvm":
            argv += ["-accel", "kvm", "-cpu", "host", "-smp", str(opt.cpus)]
        else:
            argv += ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(opt.cpus)]
        argv += ["-serial", f"file:{self.console}",
                 "-qmp", f"unix:{self.sockets}/qmp,server=on,wait=off",
                 "-object", "rng-random,filename=/dev/urandom,id=rng",
                 "-device", "virtio-rng-pci,rng=rng"]
        net = "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-10.0.2.15:22"
        for port in opt.forward:
            net += f",hostfwd=tcp:127.0.0.1:0-10.0.2.15:{port}"
        argv += ["-netdev", net, "-device", "virtio-net-pci,netdev=net,romfile="]
        argv += self._disk_args("root", root, "qcow2", "unsafe")
        for number, size in enumerate(opt.disks):
            path = self.dir / f"disk{number}.raw"
            run(["qemu-img", "create", "-q", "-f", "raw", str(path), size])
            argv += self._disk_args(f"disk{number}", path, "raw", opt.cache)
        if opt.debug:
            argv += ["-kernel", str(opt.debug.image), "-initrd", str(opt.debug.initrd)]
        else:
            argv += ["-kernel", str(opt.kernel or img.kernel)]
            if opt.kernel is None or opt.initrd is not None:
                argv += ["-initrd", str(opt.initrd or img.initrd)]
        # A machine that counts instructions and waits for its host sees its clock run ahead.
        hung = " sysctl.kernel.hung_task_timeout_secs=0" if opt.icount else ""
        argv += ["-append", f"{KERNEL_ARGS}{hung} {opt.append}".strip(), *opt.extra]
        return argv

    @staticmethod
    def _disk_args(name: str, path: Path, form: str, cache: str) -> list[str]:
        return ["-drive", f"if=none,id={name},file={path},format={form},cache={cache},discard=unmap",
                "-device", f"virtio-blk-pci,drive={name},serial={name}"]

    def _connect_qmp(self) -> None:
        path = self.sockets / "qmp"

        def there() -> bool:
            if self.proc is None or self.proc.poll() is not None:
                log = (self.dir / "qemu.log").read_text(errors="replace")
                raise LabError(f"QEMU ended at once: {log.strip()}")
            if not path.exists():
                return False
            try:
                self.qmp = Qmp(path)
            except ConnectionRefusedError:
                return False
            return True

        wait_for(there, 30, "QEMU's control socket", every=0.05)
        assert self.qmp is not None
        # QEMU chose free ports itself (port 0), so no other run can take them in between.
        for line in self.qmp.human("info usernet").splitlines():
            found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+10\.0\.2\.15\s+(\d+)",
                              line)
            if found:
                self.ports[int(found[2])] = int(found[1])
        self.ssh_port = self.ports[22]

    @property
    def patience(self) -> int:
        """Times longer than on a plain kernel that everything may take."""
        return debugkernel.SLOWER if self.options.debug else 1

    def alive(self) -> bool:
        return self.proc is not None and self.proc.poll() is None

    def wait_up(self, limit: float = BOOT_LIMIT) -> None:
        """Until sshd answers in the guest and commands run there."""
        self._close_master()

        def greeted() -> bool:
            if not self.alive():
                raise LabError(f"QEMU ended while booting, see {self.dir}/qemu.log")
            if b"Kernel panic" in self.console.read_bytes():
                raise LabError(f"the kernel panicked while booting, see {self.console}")
            try:
                with socket.create_connection(("127.0.0.1", self.ssh_port), timeout=2) as sock:
                    sock.settimeout(15)
                    return sock.recv(4) == b"SSH-"
            except OSError:
                return False

        wait_for(greeted, limit * self.patience, f"sshd in the guest (console: {self.console})", every=0.2)
        self._open_master()
        self.resets_when_up = self.resets()

    def resets(self) -> int:
        """How often the machine was reset, from outside or by itself."""
        assert self.qmp is not None
        self.qmp.command("query-status")
        return self.qmp.resets

    def reset(self) -> None:
        """Pull the reset line: what the guest had only in memory is gone."""
        assert self.qmp is not None
        self.qmp.command("system_reset")
        self._close_master()

    def kill(self) -> None:
        self._close_master()
        if self.qmp is not None:
            self.qmp.close()
            self.qmp = None
        if self.reaper is not None:
            self.reaper.cancel()
        if self.proc is not None:
            if self.proc.poll() is None:
                self.proc.kill()
            self.proc.wait()
            self.proc = None
        shutil.rmtree(self.sockets, ignore_errors=True)
        for disk in [*self.dir.glob("*.qcow2"), *self.dir.glob("disk*.raw")]:
            disk.unlink(missing_ok=True)

    # -- commands in the guest -----------------------------------------------------------------

    def ssh_argv(self, *more: str) -> list[str]:
        return ["ssh", "-F", "none", "-q", "-T", "-p", str(self.ssh_port),
                "-i", str(self.keys / "login"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", f"UserKnownHostsFile={self.keys}/known_hosts", "-o", "HostKeyAlias=thinlab",
                "-o", "KexAlgorithms=curve25519-sha256", "-o", "Ciphers=aes128-gcm@openssh.com",
                "-o", "HostKeyAlgorithms=ssh-ed25519", "-o", "Compression=no",
                "-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=0",
                "-o", f"ControlPath={self.sockets}/ssh", *more, "root@127.0.0.1"]

    def _open_master(self) -> None:
        run(self.ssh_argv("-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-N", "-f"),
            log=self.dir / "ssh.log", limit=90 * self.patience)

    def _close_master(self) -> None:
        if (self.sockets / "ssh").exists():
            try:
                subprocess.run(self.ssh_argv("-O", "exit"), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=10)
            except subprocess.TimeoutExpired:
                pass
            (self.sockets / "ssh").unlink(missing_ok=True)

    def environment(self) -> str:
        """Of the lab's programs in the guest, as a shell writes it."""
        return f"env THINLAB_PATIENCE={self.patience}"

    def popen(self, command: str, **kwargs) -> subprocess.Popen:
        """Start a shell command in the guest; the caller reads and ends it."""
        return subprocess.Popen(self.ssh_argv() + [command], **kwargs)

    def sh(self, command: str, limit: float = 120, check: bool = True,
           data: bytes | None = None) -> str:
        """Run a shell command in the guest and return what it said."""
        limit *= self.patience
        try:
            done = subprocess.run(self.ssh_argv() + [command], timeout=limit,
                                  input=data if data is not None else b"",
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except subprocess.TimeoutExpired as err:
            raise LabError(f"in the guest: {command}: not done after {limit:.0f} s") from err
        text = done.stdout.decode(errors="replace")
        if check and done.returncode != 0:
            raise LabError(f"in the guest: {command}: exit status {done.returncode}\n{text}")
        return text

    def stream(self, command: str, limit: float, line: Callable[[str], None]) -> int:
        """Run a command in the guest, hand over each line as it comes, return its exit status.

        Past the limit the command's connection is cut and LabError raised.
        """
        proc = self.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
        late = threading.Event()
        limit *= self.patience

        def give_up() -> None:
            late.set()
            proc.kill()

        timer = threading.Timer(limit, give_up)
        timer.start()
        try:
            assert proc.stdout is not None
            for raw in proc.stdout:
                line(raw.decode(errors="replace").rstrip("\n"))
            status = proc.wait()
        finally:
            timer.cancel()
            if proc.poll() is None:
                proc.kill()
                proc.wait()
        if late.is_set():
            raise LabError(f"in the guest: {command}: not done after {limit:.0f} s")
        return status

    def put(self, files: Iterable[tuple[Path, str]], limit: float = 120) -> None:
        """Copy host files or directories to absolute paths in the guest, as one stream."""
        files = list(files)
        for source, _ in files:
            if not source.exists():
                raise LabError(f"no such file to copy to the guest: {source}")
        proc = self.popen("tar -xmf - -C / --no-same-owner", stdin=subprocess.PIPE)
        timer = threading.Timer(limit * self.patience, proc.kill)
        timer.start()

        def plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
            return None if "__pycache__" in info.name else info

        try:
            assert proc.stdin is not None
            with proc.stdin, tarfile.open(fileobj=proc.stdin, mode="w|") as tar:
                for source, target in files:
                    tar.add(source, arcname=target.lstrip("/"), filter=plain)
            if proc.wait() != 0:
                raise LabError("copying files to the guest failed")
        except BrokenPipeError as err:
            raise LabError("copying files to the guest failed or took too long") from err
        finally:
            timer.cancel()

    def get(self, path: str, target: Path, limit: float = 120) -> None:
        """Copy one guest file to the host."""
        with target.open("wb") as out:
            done = subprocess.run(self.ssh_argv() + [f"cat -- {path}"], stdin=subprocess.DEVNULL,
                                  stdout=out, timeout=limit * self.patience)
        if done.returncode != 0:
            target.unlink()
            raise LabError(f"the guest has no {path}")

    def forward_socket(self, guest_path: str) -> Path:
        """Reach a Unix socket of the guest through one on the host: root's alone, unlike a TCP port."""
        path = self.sockets / Path(guest_path).name
        run(self.ssh_argv("-O", "forward", "-o", "StreamLocalBindUnlink=yes", "-L",
                          f"{path}:{guest_path}"), limit=30)
        return path

    def save_logs(self, limit: float = 60) -> None:
        """Bring the journal and the kernel log to the run's directory; quiet if the guest hangs."""
        for name, command in (("journal.log", "journalctl --no-pager -o short-precise"),
                              ("kernel.log", "journalctl --no-pager -k -b all -o short-monotonic")):
            try:
                with (self.dir / name).open("wb") as out:
                    subprocess.run(self.ssh_argv() + [command], stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=subprocess.DEVNULL, timeout=limit)
            except subprocess.TimeoutExpired:
                pass

    def show_blocked(self) -> None:
        """Have the kernel write to the console who waits for what; works when ssh no longer does."""
        if self.qmp is not None and self.alive():
            size = self.console.stat().st_size
            try:
                self.qmp.human("sendkey alt-sysrq-w")
                wait_for(lambda: self.console.stat().st_size > size, 5, "sysrq")
            except (LabError, OSError):
                pass

    def how_to_get_in(self) -> str:
        ssh = " ".join(self.ssh_argv()).replace(" -q -T", "")
        return (f"  a shell:      {ssh}\n"
                f"  its console:  {self.console}\n"
                f"  to end it:    kill {self.proc.pid if self.proc else '-'}")


def on_signals() -> None:
    """SIGTERM and SIGHUP unwind like Ctrl-C does, so that no machine stays behind."""
    def stop(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)


RUN_DIRS_KEPT = 30


def new_run_dir(label: str) -> Path:
    """A fresh directory for one machine's logs; the oldest go, but not those of programs that still run."""
    home = BUILD / "vm"
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / ".lock"):
        old: list[tuple[float, Path]] = []
        for path in home.iterdir():
            owner = path.name.rpartition(".")[0].rpartition("-")[2]
            if path.is_dir() and not Path(f"/proc/{owner or 0}").exists():
                old.append((path.stat().st_mtime, path))
        for _, path in sorted(old)[:-RUN_DIRS_KEPT]:
            shutil.rmtree(path, ignore_errors=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        number = sum(1 for _ in home.glob(f"*-{os.getpid()}.*"))
        path = home / f"{stamp}-{label}-{os.getpid()}.{number}"
        path.mkdir()
    return path
