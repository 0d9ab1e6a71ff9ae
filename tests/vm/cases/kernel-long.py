# SPDX-License-Identifier: GPL-2.0-or-later
"""More of kernel-faults and kernel-model, which takes minutes: run it by its name."""

import target
import thin
import tm

SUITES = []
LIMIT = 900
PACKAGE = False
MODULE = True

MIB = 1 << 20


def grows(t, by_message):
    """Row 6: data and metadata grow a hundred times under fio, by tables or by messages."""
    meta, data = thin.Disk(t, "meta", 4 * MIB).through(), thin.Disk(t, "data", 320 * MIB).through()
    with thin.no_space_timeout(0):
        pool = thin.Pool(t, meta, data, sectors=16 * MIB // 512)
        vol = pool.make(0, 1 << 30)
        fio = thin.Background(
            tm.sh, ["fio", "--name=x", f"--filename={vol.path}", "--rw=randwrite", "--bsrange=4k-128k", "--direct=1",
                    "--size=300m", "--ioengine=libaio", "--iodepth=16", "--fsync=50", "--verify=crc32c",
                    "--do_verify=0", "--randseed=7", "--norandommap=0", "--thread=1"], True, 400)
        blocks = 256
        for number in range(100):
            blocks += 40
            if number % 4 == 0:
                meta.resize(4 * MIB + (number + 1) * 65536)
            if by_message:
                pool.message(f"grow_data {blocks}")
                if number % 4 == 0:
                    pool.message(f"grow_metadata {meta.sectors // 8}")
            else:
                pool.change(sectors=blocks * 128)
            t.equal(pool.state().data_total, blocks, f"growth {number}")
        t.equal(pool.state().metadata_total, meta.sectors // 8, "metadata")
        blocks = data.sectors // 128
        pool.change(sectors=blocks * 128)
        fio.ended(400)
    t.equal((pool.mode(), pool.state().needs_check), ("rw", False), "the pool")
    done = tm.sh(["fio", "--name=x", f"--filename={vol.path}", "--rw=randwrite", "--bsrange=4k-128k", "--direct=1",
                  "--size=300m", "--verify=crc32c", "--verify_only=1", "--randseed=7", "--norandommap=0",
                  "--ioengine=libaio", "--iodepth=16"], check=False, limit=400)
    t.equal(done.status, 0, f"what was written: {done.err}")
    thin.check(pool)
    vol.remove()
    pool.remove()
    meta.close()
    data.close()


def run(t):
    import runner
    faults, model = runner.load("kernel-faults"), runner.load("kernel-model")
    thin.quiet(t)
    t.defer(target.use, t.target)
    target.use("ours")
    for by_message in (False, True):
        grows(t, by_message)
        t.log(f"a hundred grows under I/O, by {'messages' if by_message else 'tables'}")
    faults.full_metadata(t, 2 * MIB)
    faults.full_metadata(t, 16 * MIB)
    t.log("larger metadata, full")
    faults.oversized(t)
    t.log("oversized metadata devices")
    model.long(t)
