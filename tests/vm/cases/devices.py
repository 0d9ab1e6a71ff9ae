# SPDX-License-Identifier: GPL-2.0-or-later
"""Every call of the device-mapper and backing layers, without the daemon: tests/tools/dm-exercise.c."""

import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 300


def run(t):
    done = tm.sh([t.tool("dm-exercise"), str(t.scratch)], check=False, limit=150)
    if done.status != 0:
        t.log(done.out[-4000:] + done.err)
    t.equal(done.status, 0, "dm-exercise")
    t.log(done.out.strip().splitlines()[-1])
