#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Quick tests of the lab's own logic: no machine is started."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import btf, cases, cli, deb, debugkernel, image, layout, scan, schedule, util, vm  # noqa: E402


class Scanner(unittest.TestCase):
    def test_each_complaint_is_found(self) -> None:
        for line in (
                "[    5.1] BUG: kernel NULL pointer dereference, address: 0000000000000000",
                "[    5.1] WARNING: CPU: 0 PID: 91 at drivers/md/dm-thin.c:2301 process_cell+0x1/0x2",
                "[    5.1] Oops: 0000 [#1] PREEMPT SMP NOPTI",
                "[    5.1] kernel BUG at drivers/md/dm-bufio.c:99!",
                "[    5.1] WARNING: possible circular locking dependency detected",
                "[    5.1] INFO: task kworker/0:1:12 blocked for more than 120 seconds.",
                "[    5.1] Call Trace:",
                "[    5.1] Kernel panic - not syncing: Fatal exception",
                "[    5.1] BUG: KASAN: slab-use-after-free in pool_map+0x1/0x2",
                "[    5.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!"):
            self.assertEqual(scan.bad_lines(f"fine\n{line}\nfine\n"), [line])

    def test_ordinary_lines_pass(self) -> None:
        self.assertEqual(scan.bad_lines(
            "[1.0] device-mapper: thin: 254:2: reached low water mark for data device\n"
            "[1.0] device-mapper: thin: 254:2: switching pool to out-of-data-space mode\n"
            "[1.0] Buffer I/O error on dev dm-3\n[1.0] debugging a bug: none\n"), [])

    def test_our_module_may_be_from_elsewhere_and_unsigned_but_no_more(self) -> None:
        self.assertEqual(scan.bad_lines(
            "[1.0] dm_thinmgr: loading out-of-tree module taints kernel.\n"
            "[1.0] dm_thinmgr: module verification failed: signature and/or required key missing"
            " - tainting kernel\n[1.0]       Not tainted 6.1.0-56-cloud-amd64\n"), [])
        for line in ("[1.0] other: loading out-of-tree module taints kernel.",
                     "[1.0] dm_thinmgr: module license 'x' taints kernel.",
                     "[1.0] CPU: 0 PID: 1 Comm: insmod Tainted: G           OE      6.1.0"):
            self.assertEqual(scan.bad_lines(line), [line])

    def test_provoked_lines_are_allowed_by_pattern(self) -> None:
        text = "WARNING: CPU: 0 at a.c:1\nWARNING: CPU: 0 at b.c:2\n"
        self.assertEqual(scan.bad_lines(text, [r"at a\.c"]), ["WARNING: CPU: 0 at b.c:2"])

    def test_a_provoked_report_is_allowed_with_its_stack_and_no_more(self) -> None:
        stack = ["CPU: 1 PID: 227 Comm: python3 Tainted: G           O       6.1.192 #1",
                 "Call Trace:", " <TASK>", " ? lockdep_hardirqs_on_prepare+0x1/0x2", " </TASK>"]
        other = ["BUG: KASAN: slab-use-after-free in pool_map+0x1/0x2", *stack]
        text = "\n".join(["python3: page allocation failure: order:0", *stack, *other])
        self.assertEqual(scan.bad_lines(text, ["page allocation failure"]),
                         [line for line in other if scan.BAD.search(line)])
        # One without a stack takes none of another.
        text = "\n".join(["python3: page allocation failure: order:0", *other])
        self.assertEqual(len(scan.bad_lines(text, ["page allocation failure"])), 4)
        # A pattern can ask for what is in the stack.
        self.assertEqual(scan.bad_lines("\n".join(other), ["use-after-free.*lockdep"]), [])
        self.assertEqual(len(scan.bad_lines("\n".join([*other, "fine", *other]), ["use-after-free.*other"])), 8)

    def test_growing_file_is_read_once_and_by_whole_lines(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "console"
            scanner = scan.LogScanner(path)
            self.assertEqual(scanner.new_text(), "")
            path.write_bytes(b"one\nBUG")
            self.assertEqual(scanner.new_text(), "one\n")
            with path.open("ab") as log:
                log.write(b": two\n")
            self.assertEqual(scan.bad_lines(scanner.new_text()), ["BUG: two"])
            self.assertEqual(scanner.new_text(), "")


class Keys(unittest.TestCase):
    def test_boundaries_count(self) -> None:
        self.assertNotEqual(util.digest(["ab", "c"]), util.digest(["a", "bc"]))
        self.assertEqual(util.digest(["a", b"b"]), util.digest([b"a", "b"]))

    def test_tree_follows_content_not_build_results(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            subprocess.run(["git", "init", "-q", name], check=True)
            (root / ".gitignore").write_text("/build/\n")
            (root / "src").mkdir()
            (root / "src" / "a.c").write_text("int a;\n")
            first = util.tree_digest(root, ["."])
            (root / "build").mkdir()
            (root / "build" / "a.o").write_text("object")
            os.utime(root / "src" / "a.c", (1, 1))
            self.assertEqual(util.tree_digest(root, ["."]), first)
            (root / "src" / "b.c").write_text("int b;\n")
            second = util.tree_digest(root, ["."])
            self.assertNotEqual(second, first)
            (root / "src" / "b.c").unlink()
            self.assertEqual(util.tree_digest(root, ["."]), first)
            (root / "src" / "a.c").chmod(0o755)
            self.assertNotEqual(util.tree_digest(root, ["."]), first)


class Images(unittest.TestCase):
    def test_packages_by_suite(self) -> None:
        text = "# comment\nall: a b\nbookworm: c # why\ntrixie: d\n+more: e\n"
        self.assertEqual(image.packages("bookworm", text), ["a", "b", "c"])
        self.assertEqual(image.packages("trixie", text), ["a", "b", "d"])
        self.assertEqual(image.packages("trixie", text, "more"), ["a", "b", "d", "e"])
        with self.assertRaises(util.LabError):
            image.packages("bookworm", "a b\n")

    def test_modules_come_after_what_they_need(self) -> None:
        dep = ("k/virtio_net.ko.xz: k/net_failover.ko.xz k/failover.ko.xz\n"
               "k/net_failover.ko.xz: k/failover.ko.xz\nk/failover.ko.xz:\n")
        self.assertEqual(image.module_order(dep, "kernel/fs/ext4/ext4.ko\n", ("virtio_net", "ext4")),
                         ["k/failover.ko.xz", "k/net_failover.ko.xz", "k/virtio_net.ko.xz"])
        with self.assertRaises(util.LabError):
            image.module_order(dep, "", ("missing",))

    def test_archive_is_readable_by_cpio_rules(self) -> None:
        data = image.cpio([("init", 0o100755, b"abc")])
        self.assertEqual(len(data) % 4, 0)
        self.assertTrue(data.startswith(b"070701"))
        self.assertIn(b"init\0", data)
        self.assertIn(b"TRAILER!!!\0", data)


class Packages(unittest.TestCase):
    def test_build_depends(self) -> None:
        control = ("Source: x\nBuild-Depends: debhelper-compat (= 13),\n libfoo-dev (>= 1),\n"
                   " a | b\nStandards-Version: 4\n\nPackage: x\nDepends: y\n")
        self.assertEqual(deb.build_depends(control), ["debhelper", "libfoo-dev", "a"])

    def test_ours_can_be_read(self) -> None:
        control = (util.REPO / "packaging/debian/control").read_text()
        self.assertIn("libdevmapper-dev", deb.build_depends(control))


HEADER = """
/* struct comment { int no; }; */
#define MACRO(x) \\
	((x) + 1)
struct opaque;
typedef unsigned long big;
struct inner {
	int a, b;
};
struct outer { /* one { two */
	struct inner in[2];
	union {
		big number;
		void *pointer;
	};
	int (*method)(struct outer *o, const big *n);
	unsigned int low : 3, high : 5;
};
enum colour {
	RED,
	BLUE = 7,
};
static inline int twice(int n)
{
	return 2 * n;
}
struct opaque *make(struct outer *o,
		    int (*callback)(int), enum colour c);
void drop(struct opaque *o);
"""


class Layout(unittest.TestCase):
    def compiled(self, header: str, more: str = "") -> btf.Btf:
        with tempfile.TemporaryDirectory() as name:
            home = Path(name)
            (home / "h.h").write_text(header)
            text = layout.source(["h.h"], layout.declared(HEADER)).replace("#include <linux/module.h>", "")
            (home / "x.c").write_text(text + more)
            subprocess.run(["gcc", "-gbtf", "-c", "-o", home / "x.o", home / "x.c"], check=True)
            return btf.Btf(btf.section((home / "x.o").read_bytes(), ".BTF"))

    def wrong(self, header: str, what: layout.Declared | None = None) -> dict[str, list[str]]:
        """What is found where this is the header and HEADER the kernel's."""
        kernel = self.compiled(HEADER, "struct opaque *make(struct outer *o, int (*f)(int), enum colour c)"
                                       " { return 0; } void drop(struct opaque *o) {}")
        return layout.compare(self.compiled(header), [kernel], what or layout.declared(HEADER)).wrong

    def test_what_a_header_declares(self) -> None:
        found = layout.declared(HEADER)
        self.assertEqual(found.types, [("struct", "inner"), ("struct", "outer"), ("enum", "colour")])
        self.assertEqual(found.functions, ["make", "drop"])
        with self.assertRaises(util.LabError):
            layout.declared("int variable;")

    def test_what_agrees_is_not_complained_about(self) -> None:
        self.assertEqual(self.wrong(HEADER), {})

    def test_each_difference_is_found(self) -> None:
        for old, new, name in (
                ("int a, b;", "int b, a;", "struct inner"),
                ("int a, b;", "int a, b, c;", "struct inner"),
                ("int a, b;", "int a;\n\tunsigned int b;", "struct inner"),
                ("in[2]", "in[3]", "struct outer"),
                ("void *pointer;", "int pointer;", "struct outer"),
                ("(struct outer *o, const big *n)", "(struct outer *o, const int *n)", "struct outer"),
                ("low : 3, high : 5", "low : 4, high : 5", "struct outer"),
                ("BLUE = 7", "BLUE = 8", "enum colour"),
                ("enum colour c)", "long c)", "make()"),
                ("void drop", "int drop", "drop()")):
            self.assertIn(old, HEADER)
            self.assertIn(name, self.wrong(HEADER.replace(old, new)), new)

    def test_structures_held_inside_are_looked_at(self) -> None:
        only = layout.Declared([("struct", "outer")], [])
        self.assertEqual(list(self.wrong(HEADER.replace("int a, b;", "int b, a;"), only)), ["struct inner"])

    def test_moving_moves_in_every_structure(self) -> None:
        self.assertEqual({"struct inner", "struct outer"} - set(self.wrong(layout.moved(HEADER))), set())
        alone = layout.moved("struct one {\n\tint a;\n};\n")
        self.assertIn("layout_moved; \n\tint a;", alone)

    def test_what_the_kernel_lacks_is_said(self) -> None:
        self.assertEqual(self.wrong(HEADER + "struct more { int a; };\nstruct more *more;\n",
                                    layout.Declared([("struct", "more")], [])),
                         {"struct more": ["the kernel has none of this name"]})

    def test_what_is_no_btf_is_refused(self) -> None:
        for junk in (b"", b"\x9f\xeb", bytes(64)):
            with self.assertRaises(btf.BtfError):
                btf.Btf(junk)


class DebugKernel(unittest.TestCase):
    def test_a_setting_that_did_not_come_to_be_is_named(self) -> None:
        finished = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\n"
        self.assertEqual(debugkernel.missing("# why\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_C=y\n", finished),
                         ["CONFIG_B=y", "CONFIG_C=y"])
        self.assertEqual(debugkernel.missing("CONFIG_A=y\n", finished), [])
        self.assertEqual(debugkernel.missing("# CONFIG_A is not set\n# CONFIG_B is not set\n# CONFIG_D is not set\n", finished),
                         ["CONFIG_A=n"])


class RunDirs(unittest.TestCase):
    def test_each_is_new_and_the_oldest_go(self) -> None:
        with tempfile.TemporaryDirectory() as name, unittest.mock.patch.object(vm, "BUILD", Path(name)):
            home = Path(name) / "vm"
            for number in range(vm.RUN_DIRS_KEPT + 2):
                (home / f"20200101-0000{number:02}-x-99999999.0").mkdir(parents=True)
                os.utime(home / f"20200101-0000{number:02}-x-99999999.0", (number, number))
            first, second = vm.new_run_dir("same"), vm.new_run_dir("same")
            self.assertNotEqual(first, second)
            there = sorted(p.name for p in home.iterdir() if p.is_dir())
        self.assertEqual(len(there), vm.RUN_DIRS_KEPT + 2)
        self.assertEqual(there[0], "20200101-000002-x-99999999.0")
        self.assertIn(first.name, there)


class Schedule(unittest.TestCase):
    HOW = schedule.How("bookworm", "ours")

    @staticmethod
    def case(name: str, limit: float, own_boot: bool = False) -> cases.CaseInfo:
        return cases.CaseInfo(name, Path(name), limit=limit, own_boot=own_boot)

    def plan(self) -> schedule.Plan:
        return schedule.plan([self.case("a", 10), self.case("b", 30), self.case("c", 30), self.case("d", 20, True)])

    def test_the_longest_come_first(self) -> None:
        todo = self.plan()
        self.assertEqual([c.name for c in todo.shared], ["b", "c", "a"])
        self.assertEqual([c.name for c in todo.own], ["d"])
        self.assertEqual([c.name for c in todo.sharing], ["b", "c", "a"])

    def test_as_many_machines_as_the_host_has_room_for(self) -> None:
        def at_once(wanted: int, jobs: int, cores: int, mib: int) -> int:
            return schedule.machines_at_once(wanted, jobs, 2048, cores, mib)
        self.assertEqual(at_once(0, 9, 2, 20000), 2)
        self.assertEqual(at_once(0, 9, 64, 99999), schedule.MOST_MACHINES)
        self.assertEqual(at_once(0, 9, 4, 1024 + 3 * 2048), 3)
        self.assertEqual(at_once(0, 9, 4, 100), 1)
        self.assertEqual(at_once(0, 1, 4, 20000), 1)
        self.assertEqual(at_once(3, 9, 1, 100), 3)
        self.assertGreater(schedule.available_mib(), 0)

    def test_every_case_runs_once_whoever_takes_it(self) -> None:
        def run(number: int, todo: schedule.Plan, _how: schedule.How) -> None:
            for left in (todo.shared, todo.own):
                while case := todo.take(left):
                    todo.done(cases.Verdict(case.name, True, number))
        verdicts = schedule.share_out(self.plan(), self.HOW, 3, run)
        self.assertEqual(sorted(v.name for v in verdicts), ["a", "b", "c", "d"])
        self.assertTrue(all(v.ok for v in verdicts))

    def test_what_nobody_takes_has_failed(self) -> None:
        def run(_number: int, todo: schedule.Plan, _how: schedule.How) -> None:
            todo.trouble = "no machine"
        verdicts = schedule.share_out(self.plan(), self.HOW, 2, run)
        self.assertEqual([(v.name, v.ok, v.why) for v in verdicts],
                         [(name, False, "no machine") for name in "bcad"])

    def test_what_is_taken_and_lost_has_failed(self) -> None:
        def run(_number: int, todo: schedule.Plan, _how: schedule.How) -> None:
            todo.take(todo.shared)
        verdicts = schedule.share_out(self.plan(), self.HOW, 1, run)
        self.assertEqual(sorted((v.name, v.ok) for v in verdicts), [(name, False) for name in "abcd"])

    def test_a_case_fails_whatever_its_machine_raises(self) -> None:
        def begin() -> cases.Machine:
            raise OSError("no room")
        left, done = [self.case("a", 1)], []
        with contextlib.redirect_stdout(io.StringIO()), self.assertRaises(OSError):
            cases.run_group(lambda: left.pop() if left else None, begin, done.append)
        self.assertEqual([(v.name, v.ok, v.why) for v in done], [("a", False, "no room")])

    def test_one_machine_takes_them_as_they_were_named(self) -> None:
        todo = schedule.plan([self.case("a", 10), self.case("b", 30)], 1)
        self.assertEqual([c.name for c in todo.shared], ["a", "b"])

    def test_nothing_begins_after_the_end(self) -> None:
        todo = self.plan()
        todo.end()
        self.assertIsNone(todo.take(todo.shared))
        with self.assertRaises(util.LabError):
            todo.begin(None)

    def test_a_group_goes_on_in_another_machine_when_one_breaks(self) -> None:
        begun: list[Broken] = []
        done: list[str] = []

        class Broken:
            """A machine in which every case ends with the machine."""
            class vm:
                class options:
                    keep = False
                    suite = "x"
                    debug = None
                class scanner:
                    new_text = staticmethod(str)
                alive = staticmethod(lambda: False)

            def __enter__(self) -> Broken:
                begun.append(self)
                return self

            def __exit__(self, *_: object) -> None: ...

            def run_inside(self, case: cases.CaseInfo) -> cases.Verdict:
                raise util.LabError(f"{case.name}: hangs")

        left = [self.case("a", 1), self.case("b", 1)]
        with contextlib.redirect_stdout(io.StringIO()):
            cases.run_group(lambda: left.pop(0) if left else None, Broken, lambda v: done.append(f"{v.name} {v.ok} {v.why}"))
        self.assertEqual(done, ["a False a: hangs", "b False b: hangs"])
        self.assertEqual(len(begun), 2)


    def test_a_machine_is_not_used_again_after_a_case_on_the_host_failed(self) -> None:
        machine = unittest.mock.Mock()
        machine.vm.options.debug = None
        machine.vm.options.suite = "x"
        machine.vm.alive.return_value = True
        machine.vm.scanner.new_text.return_value = ""
        for host, ok, sound in ((True, True, True), (True, False, False), (False, False, True)):
            verdict = cases.Verdict("a", ok, 1)
            machine.run_inside.return_value = verdict
            with unittest.mock.patch.object(cases, "run_on_host", return_value=verdict), \
                    contextlib.redirect_stdout(io.StringIO()):
                found = cases.run_one(cases.CaseInfo("a", Path("a"), host=host), machine)
            self.assertEqual(found, (verdict, sound), (host, ok))


class Cases(unittest.TestCase):
    def test_constants_are_read_without_running(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "x.py"
            path.write_text("raise SystemExit\nSUITES = ['trixie']\nLIMIT = 7\nDISKS = ['1G']\n"
                            "OWN_BOOT = True\nMODULE = True\nALLOW_LOG = ['a.*b']\n")
            info = cases.read_info(path)
        self.assertEqual((info.name, info.suites, info.limit, info.disks, info.own_boot, info.host,
                          info.module, info.allow_log),
                         ("x", ["trixie"], 7, ["1G"], True, False, True, ["a.*b"]))

    def test_shared_machine_has_the_largest_of_each_disk(self) -> None:
        def info(*disks: str) -> cases.CaseInfo:
            return cases.CaseInfo("n", Path("n"), disks=list(disks))
        self.assertEqual(cases.shared_disks([info("512M"), info("8G", "1G", "2G")]), ["8G", "4G", "2G"])

    def test_choice(self) -> None:
        both = cases.CaseInfo("both", Path("b"), suites=["bookworm", "trixie"])
        one = cases.CaseInfo("one", Path("o"))
        self.assertEqual(cases.choose([], "trixie", [both, one]), [both])
        self.assertEqual(cases.choose(["one"], "trixie", [both, one]), [one])
        one.default = False
        self.assertEqual(cases.choose([], "bookworm", [both, one]), [both])
        with self.assertRaises(util.LabError):
            cases.choose(["none"], "trixie", [both, one])

    def test_every_case_states_what_the_lab_knows(self) -> None:
        for info in cases.find():
            self.assertTrue(set(info.suites) <= set(image.SUITES), info.name)
            self.assertGreater(info.limit, 0, info.name)
            self.assertIn("def run(t)", info.path.read_text(), info.name)

    def test_pairs(self) -> None:
        self.assertEqual(cli.pair("a:/b"), ("a", "/b"))
        with self.assertRaises(util.LabError):
            cli.pair("a")


def main() -> int:
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(verbosity=1, stream=sys.stdout).run(suite)
    failed = len(result.failures) + len(result.errors)
    passed = result.testsRun - failed
    util.record("lab-selftest", passed, failed)
    print(f"lab self-test: {passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
