# SPDX-License-Identifier: GPL-2.0-or-later
"""Our kernel module, built for the kernel of a suite's image, in the suite's chroot.

With it come two objects for the layout check: what the compiler made of what kernel/ declares of the
kernel's own, and the same of a copy in which something was moved on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import deb, debugkernel, image, layout, util
from .util import REPO, LabError, say

SOURCES = ("kernel", "mk/module", "packaging/debian/changelog")
NAME = "dm-thinmgr.ko"
LAYOUT = "1"  # raised by hand when what is built besides changes


@dataclass(frozen=True)
class Built:
    """The objects of the layout check are not built for a debug kernel."""
    ko: Path
    release: str
    layout: Path
    moved: Path


def get(suite: str, debug: debugkernel.DebugKernel | None = None) -> Built:
    """The module of the sources as they are now; built only when they or the kernel changed."""
    if debug:
        return get_for(debug)
    release = image.get(suite).release
    out = util.BUILD / "module" / suite
    out.mkdir(parents=True, exist_ok=True)
    built = Built(out / NAME, release, out / "layout.o", out / "layout-moved.o")
    with util.locked(out / ".lock"):
        key = util.digest([LAYOUT, release, util.tree_digest(REPO, SOURCES), *layout_files().values()])
        stamp = out / "sources.key"
        if not (stamp.exists() and stamp.read_text().strip() == key):
            say(f"lab: building the module for {suite}, kernel {release}")
            for old in [*out.glob("*.ko"), *out.glob("*.o"), stamp]:
                old.unlink(missing_ok=True)
            deb.in_chroot(suite, SOURCES, SCRIPT, [release], out, ["*.ko", "*.o"], layout_files())
            if not built.ko.exists():
                raise LabError(f"the build left no {NAME}, see {out / 'build.log'}")
            stamp.write_text(key + "\n")
    return built


def get_for(kernel: debugkernel.DebugKernel) -> Built:
    out = util.BUILD / "module" / f"{kernel.suite}-debug"
    out.mkdir(parents=True, exist_ok=True)
    built = Built(out / NAME, kernel.release, out / "none", out / "none")
    with util.locked(out / ".lock"):
        key = util.digest([kernel.path.name, util.tree_digest(REPO, SOURCES)])
        stamp = out / "sources.key"
        if not (stamp.exists() and stamp.read_text().strip() == key):
            say(f"lab: building the module for {kernel.suite}'s debug kernel")
            stamp.unlink(missing_ok=True)
            deb.in_chroot(kernel.suite, SOURCES, DEBUG_SCRIPT, [f"{kernel.tree}/linux"], out, ["*.ko"],
                          root=kernel.root)
            stamp.write_text(key + "\n")
    return built


def layout_files() -> dict[str, str]:
    """What is compiled for the layout check, by name."""
    headers = [name for name in layout.HEADERS if (REPO / "kernel" / name).exists()]
    text = layout.source(headers, layout.declared_in(REPO / "kernel"))
    kbuild = ("# SPDX-License-Identifier: GPL-2.0-only\nobj-m := layout.o\n"
              "ccflags-y := -gbtf -I$(src) -I$(src)/../kernel\n")
    files = {}
    for where in ("layout", "layout-moved"):
        files |= {f"{where}/Kbuild": kbuild, f"{where}/layout.c": text}
    for name in headers:
        files[f"layout-moved/{name}"] = layout.moved((REPO / "kernel" / name).read_text())
    return files


SCRIPT = """
headers=/lib/modules/$1/build
mk/module "$headers"
cp "build/module/$1/dm-thinmgr.ko" ..
for where in layout layout-moved; do
	make --no-print-directory -C "$headers" M="$PWD/$where" layout.o
	cp "$where/layout.o" "../$where.o"
done
"""

DEBUG_SCRIPT = """
mk/module "$1"
cp build/module/*/dm-thinmgr.ko ..
"""
