# SPDX-License-Identifier: GPL-2.0-or-later
"""Bootable images: Debian unpacked by mmdebstrap, a root disk made from it, a small initrd.

An image is a directory in the cache, named after all that went into it; it is complete once it
has its final name, so a build that was cut off is never mistaken for one.
"""

from __future__ import annotations

import lzma
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import util
from .util import LabError, as_root, run, say

SUITES = ("bookworm", "trixie")
ROOT_DISK_BYTES = 12 << 30
# Drivers for disks and network; modules.dep adds what they need. Built-in ones are left out.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net")
IMAGE_DIR = util.VM_DIR / "image"
# Raised by hand when this file changes what an image holds.
LAYOUT = "4"


@dataclass(frozen=True)
class Image:
    suite: str
    path: Path  # for a variant, of it

    @property
    def root_disk(self) -> Path:
        return self.path / "root.img"

    @property
    def kernel(self) -> Path:
        return self.path / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.path / "initrd"

    @property
    def release(self) -> str:
        """Of its kernel, as uname -r says it."""
        return (self.path / "release").read_text().strip()


def packages(suite: str, text: str | None = None, variant: str = "") -> list[str]:
    """The packages `image/packages` names for one suite, and for a variant of its image."""
    if text is None:
        text = (IMAGE_DIR / "packages").read_text()
    names: set[str] = set()
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        who, colon, rest = line.partition(":")
        if not colon:
            raise LabError(f"image/packages: no suite named in: {line}")
        if who.strip() in ("all", suite, f"+{variant}"):
            names.update(rest.split())
    return sorted(names)


def keys() -> Path:
    """The throw-away keys of this cache: they open nothing but our own test machines."""
    path = util.cache_dir() / "keys"
    with util.locked(util.cache_dir() / "keys.lock"):
        path.mkdir(exist_ok=True)
        for name in ("login", "host"):
            if not (path / name).exists():
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"thinlab-{name}",
                     "-f", str(path / name)])
        public = (path / "host.pub").read_text().split()[:2]
        known = path / "known_hosts"
        text = f"thinlab {' '.join(public)}\n"
        if not known.exists() or known.read_text() != text:  # never half a file: others are reading it
            part = path / f"known_hosts.{os.getpid()}"
            part.write_text(text)
            part.rename(known)
    return path


def mmdebstrap(suite: str, target: Path, include: list[str], log: Path, extra: list[str]) -> None:
    """Unpack a minimal Debian of `suite` with `include` into the directory `target`."""
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase",
            "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
            # Our own initrd is smaller, so the package's need not be made.
            "--dpkgopt=path-exclude=/etc/kernel/postinst.d/initramfs-tools",
            "--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Retries \"3\"",
            f"--include={','.join(include)}", *extra, suite, str(target)]
    # An archive mirror near the machine, when its administrator names one; else mmdebstrap's own.
    mirror = os.environ.get("THINMGR_MIRROR")
    if mirror:
        argv.append(mirror)
    run(as_root(argv), log=log, limit=1200)


def image_key(suite: str, variant: str = "") -> str:
    key = keys()
    return util.digest([LAYOUT, suite, *packages(suite, None, variant), (IMAGE_DIR / "customise").read_bytes(),
                        (IMAGE_DIR / "init").read_bytes(), (key / "login.pub").read_bytes(),
                        (key / "host.pub").read_bytes()])


def get(suite: str, variant: str = "") -> Image:
    """The image of a suite, or a variant with more in it, built now if the cache has none."""
    if suite not in SUITES:
        raise LabError(f"no such suite: {suite} (there are: {', '.join(SUITES)})")
    key = image_key(suite, variant)
    home = util.cache_dir()
    name = f"{suite}+{variant}" if variant else suite
    final = home / f"image-{name}-{key}"
    with util.locked(home / f"image-{name}.lock"):
        if not final.exists():
            say(f"lab: building the {name} image (once; kept in {home})")
            _build(suite, variant, final)
            _drop_old(home, name, final)
    return Image(suite, final)


def _drop_old(home: Path, name: str, keep: Path) -> None:
    """Older images of this name go, but not while a running VM may still have one open."""
    old = sorted((p for p in home.glob(f"image-{name}-*") if p.is_dir() and p != keep),
                 key=lambda p: p.stat().st_mtime)
    for path in old[:-1]:
        shutil.rmtree(path, ignore_errors=True)


def _build(suite: str, variant: str, final: Path) -> None:
    part = final.with_name(f"part-{final.name}")
    run(as_root(["rm", "-rf", "--one-file-system", str(part)]))
    part.mkdir(parents=True)
    root = part / "root"
    log = part / "build.log"
    key = keys()
    hook = " ".join([str(IMAGE_DIR / "customise"), '"$1"', str(key / "login.pub"), str(key / "host")])
    mmdebstrap(suite, root, packages(suite, None, variant), log, [f"--customize-hook={hook}"])
    # A variant may hold another kernel besides.
    kernels = sorted((root / "boot").glob("vmlinuz-*-cloud-*"))
    if len(kernels) != 1:
        raise LabError(f"{suite}: {len(kernels)} cloud kernels in the image, one expected")
    release = kernels[0].name.removeprefix("vmlinuz-")
    shutil.copyfile(kernels[0], part / "vmlinuz")
    (part / "release").write_text(release + "\n")
    _make_initrd(root, release, part / "initrd")
    # Sparse, with room for pools in files; checksums off for speed under emulation.
    with (part / "root.img").open("wb") as disk:
        disk.truncate(ROOT_DISK_BYTES)
    run(as_root(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-O", "^metadata_csum",
                 "-E", "lazy_itable_init=1,root_owner=0:0", "-d", str(root), str(part / "root.img")]),
        log=log)
    run(as_root(["rm", "-rf", "--one-file-system", str(root)]))
    part.rename(final)


def module_order(modules_dep: str, builtin: str, wanted: tuple[str, ...]) -> list[str]:
    """Paths of `wanted` modules and all they need, each after what it needs."""
    def plain(path: str) -> str:
        return Path(path).name.split(".ko", 1)[0].replace("-", "_")

    needs: dict[str, list[str]] = {}
    where: dict[str, str] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        where[plain(path)] = path
        needs[plain(path)] = [plain(p) for p in rest.split()]
    inside = {plain(line) for line in builtin.splitlines()}
    order: list[str] = []

    def add(name: str) -> None:
        if name in inside or where.get(name) in order:
            return
        if name not in where:
            raise LabError(f"the image's kernel has no module {name}")
        for need in needs[name]:
            add(need)
        order.append(where[name])

    for name in wanted:
        add(name)
    return order


def _make_initrd(root: Path, release: str, target: Path) -> None:
    base = root / "usr" / "lib" / "modules" / release
    order = module_order((base / "modules.dep").read_text(), (base / "modules.builtin").read_text(),
                         BOOT_MODULES)
    busybox = next(p for p in (root / "usr/bin/busybox", root / "bin/busybox") if p.exists())
    files: list[tuple[str, int, bytes]] = [
        ("init", 0o100755, (IMAGE_DIR / "init").read_bytes()),
        ("bin", 0o040755, b""), ("modules", 0o040755, b""),
        ("bin/busybox", 0o100755, busybox.read_bytes())]
    names = []
    for path in order:
        data = (base / path).read_bytes()
        name = Path(path).name
        if name.endswith(".xz"):  # busybox cannot unpack; newer Debian compresses modules
            data, name = lzma.decompress(data), name.removesuffix(".xz")
        names.append(name)
        files.append((f"modules/{name}", 0o100644, data))
    files.append(("modules/order", 0o100644, "".join(n + "\n" for n in names).encode()))
    target.write_bytes(cpio(files))


def cpio(files: list[tuple[str, int, bytes]]) -> bytes:
    """An archive in the format the kernel unpacks ("newc")."""
    out = bytearray()

    def entry(number: int, name: str, mode: int, data: bytes) -> None:
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out.extend(b"070701" + "".join(f"{f:08x}" for f in fields).encode())
        out.extend(name.encode() + b"\0")
        out.extend(bytes(-len(out) % 4))
        out.extend(data)
        out.extend(bytes(-len(out) % 4))

    for number, (name, mode, data) in enumerate(files, 1):
        entry(number, name, mode, data)
    entry(0, "TRAILER!!!", 0, b"")
    return bytes(out)
