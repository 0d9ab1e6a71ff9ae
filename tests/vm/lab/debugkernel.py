# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that watches itself: Debian's own source of a suite, with KASAN, lockdep, kmemleak and
fault injection (debug-kernel/config). It boots the suite's image, and takes minutes to build, once.

It is built in a chroot of its own and its tree stays there, for our module to be built against.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from . import deb, image, util
from .util import VM_DIR, LabError, as_root, run, say

CONFIG = VM_DIR / "debug-kernel" / "config"
# What building a kernel takes besides a compiler.
NEEDED = ("linux-source", "flex", "bison", "bc", "kmod", "cpio", "libelf-dev", "libssl-dev", "xz-utils", "rsync")
LAYOUT = "1"  # raised by hand when what is built changes
BUILD_LIMIT = 7200
# Times slower than a plain kernel, for the limits of cases.
SLOWER = 6


@dataclass(frozen=True)
class DebugKernel:
    suite: str
    path: Path   # in the cache
    root: Path   # the chroot it was built in
    tree: str    # in that

    @property
    def image(self) -> Path:
        return self.path / "bzImage"

    @property
    def initrd(self) -> Path:
        return self.path / "initrd"

    @property
    def modules(self) -> Path:
        """A tar of lib/modules/RELEASE."""
        return self.path / "modules.tar.gz"

    @property
    def release(self) -> str:
        return (self.path / "release").read_text().strip()


def wanted(text: str) -> dict[str, str]:
    """The settings of a configuration, or those a fragment asks for; "n" for what is not to be set."""
    return dict(re.findall(r"^(CONFIG_\w+)=(.+)$", text, re.MULTILINE)) | \
        {name: "n" for name in re.findall(r"^# (CONFIG_\w+) is not set$", text, re.MULTILINE)}


def missing(fragment: str, config: str) -> list[str]:
    """Those of the fragment that a finished configuration does not have."""
    have = wanted(config)
    return [f"{name}={value}" for name, value in wanted(fragment).items() if have.get(name, "n") != value]


def get(suite: str) -> DebugKernel:
    """The debug kernel of a suite, built now if the cache has none of this source and configuration."""
    root = deb.chroot(suite, NEEDED)
    home = util.cache_dir()
    key = util.digest([LAYOUT, root.name, image.get(suite).path.name, CONFIG.read_bytes(), CONFIGURE, BUILD])
    final = home / f"debug-kernel-{suite}-{key}"
    tree = f"/usr/src/debug-{key}"
    with util.locked(home / f"debug-kernel-{suite}.lock"):
        if not final.exists():
            _build(suite, root, tree, final)
    return DebugKernel(suite, final, root, tree)


def _build(suite: str, root: Path, tree: str, final: Path) -> None:
    say(f"lab: building a debug kernel for {suite} (once, some ten minutes; kept in {final.parent})")
    part = final.with_name(f"part-{final.name}")
    run(as_root(["rm", "-rf", "--one-file-system", str(part), f"{root}{tree}"]))
    part.mkdir(parents=True)
    log = final.parent / f"debug-kernel-{suite}.log"
    log.unlink(missing_ok=True)
    run(as_root(["install", "-D", "-m", "644", str(CONFIG), f"{root}{tree}/fragment"]))
    run(deb.enter(root, tree, CONFIGURE, []), log=log, limit=BUILD_LIMIT)
    lost = missing(CONFIG.read_text(), Path(f"{root}{tree}/linux/.config").read_text())
    if lost:
        raise LabError(f"these settings did not come to be, see {log}: {', '.join(lost)}")
    run(deb.enter(root, f"{tree}/linux", BUILD, [str(os.cpu_count() or 2)]), log=log, limit=BUILD_LIMIT)
    for name in ("bzImage", "release", "modules.tar.gz"):
        run(["cp", f"{root}{tree}/{name}", str(part / name)])
    # The image's own, but without the modules in it, which are another kernel's.
    (part / "initrd").write_bytes(image.get(suite).initrd.read_bytes() +
                                  image.cpio([("modules/order", 0o100644, b"")]))
    part.rename(final)


CONFIGURE = """
mkdir linux
tar -C linux --strip-components=1 -xf /usr/src/linux-source-*.tar.xz
cd linux
make tinyconfig
scripts/kconfig/merge_config.sh -m .config ../fragment
make olddefconfig
"""
BUILD = """
make -j"$1" bzImage modules
make INSTALL_MOD_PATH="$PWD/../installed" INSTALL_MOD_STRIP=1 modules_install
make -s kernelrelease >../release
cp "$(make -s image_name)" ../bzImage
rm -f ../installed/lib/modules/*/build ../installed/lib/modules/*/source
tar -C ../installed -czf ../modules.tar.gz lib
# Building our module against it takes headers and scripts only.
find . -name '*.o' ! -path './scripts/*' ! -path './tools/*' -delete
rm -f vmlinux vmlinux.* .tmp_vmlinux*
"""
