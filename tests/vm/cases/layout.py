# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernel/ declares of dm-persistent-data is what the running kernel has: see lab/layout.py.

And the check is worth something: of a copy of the header in which each structure had a member moved,
it finds every one.
"""

from pathlib import Path

from lab import btf, layout, module
from lab.util import REPO

SUITES = ["bookworm", "trixie"]
LIMIT = 240
HOST = True
PACKAGE = False
MODULE = True


def kernel_types(t):
    """The running kernel's types with those of its modules, each after the one before."""
    t.vm.sh("modprobe -a " + " ".join(layout.KERNEL_MODULES))
    found = []
    base = None
    for name in ("vmlinux", *layout.KERNEL_MODULES):
        path = t.vm.dir / f"{name}.btf"
        t.vm.get(f"/sys/kernel/btf/{name}", path)
        types = btf.Btf(path.read_bytes(), base)
        path.unlink()
        base = base or types
        found.append(types)
    return found[1:]


def compiled(path: Path):
    return btf.Btf(btf.section(path.read_bytes(), ".BTF"))


def run(t):
    what = layout.declared_in(REPO / "kernel")
    built = module.get(t.vm.options.suite)
    theirs = kernel_types(t)

    # Not a name is missed by reading the header: what the module takes from there is declared in it.
    exported = {name for types in theirs for name in types.own_names(btf.FUNC)}
    used = btf.undefined_symbols(built.ko.read_bytes()) & exported
    t.equal(used - set(what.functions), set(), "used, but not declared where it can be compared")
    t.check(what.types and what.functions, "kernel/ declares something of the kernel's")

    result = layout.compare(compiled(built.layout), theirs, what)
    for name, differences in result.wrong.items():
        for one in differences:
            t.log(f"{name}: {one}")
    for name in result.untold:
        t.log(f"{name}(): the kernel tells nothing of it")
    t.equal(list(result.wrong), [], "what differs from the kernel")
    t.check(len(result.untold) * 4 < len(what.functions), "most functions can be compared")

    moved = layout.compare(compiled(built.moved), theirs, what).wrong
    for kind, name in what.types:
        if kind == "struct":
            t.check(f"{kind} {name}" in moved, f"a member moved in {kind} {name} is seen")
    t.log(f"{result.types} types and {result.functions} of {len(what.functions)} functions agree with "
          f"{built.release}; a member moved in each of {len(what.types)} is seen, as in: "
          + next(f"{name}: {text[0]}" for name, text in moved.items()))
