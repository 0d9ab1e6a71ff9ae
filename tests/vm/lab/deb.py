# SPDX-License-Identifier: GPL-2.0-or-later
"""thinmgr's Debian package, built in a chroot of the release it is for.

Library names and kernels differ between releases, so what is built on the host would only run there.
The chroot is kept in the cache; a build copies the sources into a directory of its own in it, so
that builds may run at the same time, and runs in its own namespaces, so that no mount stays behind.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import image, util
from .util import REPO, LabError, as_root, run, say

# What goes into a package or its test tools; a change anywhere else needs no new build.
SOURCES = ("Makefile", "mk", "daemon", "cli", "kernel", "api", "packaging", "docs", "README.md", "LICENSES",
           "tests/bench", "tests/tools")
LAYOUT = "1"


@dataclass(frozen=True)
class Built:
    """What one build left: the packages, and a tar of test programs (usr/lib/thinmgr-tests)."""
    deb: Path
    dkms: Path
    tools: Path


def build_depends(control: str) -> list[str]:
    """The names in a control file's Build-Depends, without versions; alternatives' first."""
    found = re.search(r"^Build-Depends:(.*(?:\n[ \t].*)*)", control, re.MULTILINE)
    if not found:
        raise LabError("packaging/debian/control: no Build-Depends")
    names = []
    for item in found[1].split(","):
        name = item.split("|")[0].split("(")[0].split(":")[0].strip()
        if name:
            names.append("debhelper" if name == "debhelper-compat" else name)
    return names


def chroot(suite: str, more: Sequence[str] = ()) -> Path:
    """The build chroot of a suite, made now if the cache has none: with the headers of exactly the
    kernel that the suite's image boots, and sparse, for the module. With `more` packages it is another."""
    control = (REPO / "packaging/debian/control").read_text()
    img = image.get(suite)
    headers = f"linux-headers-{img.release}"
    include = sorted({"build-essential", "util-linux", "sparse", headers, *build_depends(control), *more})
    key = util.digest([LAYOUT, suite, *include])
    home = util.cache_dir()
    final = home / f"chroot-{suite}-{key}"
    with util.locked(home / f"chroot-{suite}.lock"):
        if not final.exists():
            say(f"lab: making the {suite} build chroot (once; kept in {home})")
            part = final.with_name(f"part-{final.name}")
            run(as_root(["rm", "-rf", "--one-file-system", str(part)]))
            log = home / f"chroot-{suite}.log"
            log.unlink(missing_ok=True)
            try:
                image.mmdebstrap(suite, part, include, log, [])
            except LabError as err:
                if f"package {headers}" not in str(err):
                    raise
                raise LabError(
                    f"{suite}: the archive has no {headers} any more, for the kernel of the image in "
                    f"{img.path}: the image is older than the archive. Remove that directory; the next "
                    "run makes an image with today's kernel.") from err
            run(as_root(["mkdir", "-p", str(part / "build")]))
            # /dev may hold no nodes where making them is not allowed; a build needs these.
            run(as_root(["sh", "-c", f"cd {part}/dev && for n in 'null 3' 'zero 5' 'urandom 9'; do "
                         "set -- $n; [ -e $1 ] || mknod -m 666 $1 c 1 $2; done; ln -sfn /proc/self/fd fd"]))
            run(as_root(["mv", str(part), str(final)]))
    return final


def enter(root: Path, place: str, script: str, args: Sequence[str]) -> list[str]:
    """The command that runs a shell script in a chroot's directory `place`, in namespaces of its own."""
    return as_root(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts",
                    f"--root={root}", f"--wd={place}", "--mount-proc", "env", "-i",
                    "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/nonexistent",
                    "sh", "-euc", script, "build", *args])


def source_key(suite: str) -> str:
    return util.digest([suite, util.tree_digest(REPO, SOURCES)])


def get(suite: str) -> Built:
    """The package of the sources as they are now; built only when they changed."""
    out = util.BUILD / "deb" / suite
    out.mkdir(parents=True, exist_ok=True)
    with util.locked(out / ".lock"):
        key = source_key(suite)
        stamp = out / "sources.key"
        debs = sorted(out.glob("thinmgr_*.deb"))
        if not (stamp.exists() and stamp.read_text().strip() == key and debs):
            say(f"lab: building the package for {suite}")
            _build(suite, out)
            stamp.write_text(key + "\n")
            debs = sorted(out.glob("thinmgr_*.deb"))
        if len(debs) != 1:
            raise LabError(f"{len(debs)} packages in {out}, one expected")
        (dkms,) = out.glob("thinmgr-dkms_*.deb")
        return Built(debs[0], dkms, out / "tools.tar")


def _build(suite: str, out: Path) -> None:
    for old in [*out.glob("thinmgr*.deb"), out / "tools.tar", out / "sources.key"]:
        old.unlink(missing_ok=True)
    in_chroot(suite, SOURCES, SCRIPT, [str(os.cpu_count() or 2)], out, ["*.deb", "tools.tar"])


def in_chroot(suite: str, paths: Sequence[str], script: str, args: Sequence[str], out: Path,
              results: Sequence[str], more: Mapping[str, str] | None = None,
              root: Path | None = None) -> None:
    """Copy the sources below `paths` to a place of their own in the suite's chroot (or in `root`), with
    `more` files by name, run a shell script there, and take from the directory above what matches
    `results`. What the script said is in out/build.log."""
    log = out / "build.log"
    log.unlink(missing_ok=True)
    root = root or chroot(suite)
    with tempfile.TemporaryDirectory(prefix="thinlab-build-") as scratch_name:
        scratch = Path(scratch_name)
        sources = scratch / "sources.tar"
        names = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", str(REPO), "ls-files", "-z", "--cached",
             "--others", "--exclude-standard", "--", *paths],
            check=True, stdout=subprocess.PIPE).stdout
        # git may still know a file that was just deleted.
        present = [n for n in names.split(b"\0") if n and (REPO / n.decode()).exists()]
        (scratch / "names").write_bytes(b"\0".join(present))
        run(["tar", "-C", str(REPO), "--null", "-T", str(scratch / "names"), "-cf", str(sources)])
        added = scratch / "more"
        added.mkdir()
        for name, text in (more or {}).items():
            (added / name).parent.mkdir(parents=True, exist_ok=True)
            (added / name).write_text(text)
        place = f"/build/{scratch.name}"
        inside = Path(f"{root}{place}")
        run(as_root(["mkdir", "-p", str(inside / "thinmgr")]))
        try:
            run(as_root(["tar", "-C", str(inside / "thinmgr"), "--no-same-owner", "-xf", str(sources)]))
            run(as_root(["cp", "-r", f"{added}/.", str(inside / "thinmgr")]))
            run(enter(root, f"{place}/thinmgr", script, args), log=log, limit=900)
            for pattern in results:
                for result in inside.glob(pattern):
                    shutil.copyfile(result, out / result.name)
        except LabError as err:
            raise LabError(f"{err}\nlab: the whole log is {log}") from err
        finally:
            run(as_root(["rm", "-rf", "--one-file-system", str(inside)]))


SCRIPT = """
cp -r packaging/debian debian
export DEB_BUILD_OPTIONS="parallel=$1 noautodbgsym nocheck"
dpkg-buildpackage --build=binary --no-sign --no-pre-clean
make -j"$1" WERROR= test-tools
mkdir -p build/plain/tools
tar -C build/plain/tools -cf ../tools.tar .
"""
