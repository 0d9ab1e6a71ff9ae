# SPDX-License-Identifier: GPL-2.0-or-later
"""More of kernel-crash: at least 2,000 marks, which takes minutes. Run it by its name."""

SUITES = []
LIMIT = 5400
MODULE = True

MARKS = 2000


def run(t):
    import runner
    crash = runner.load("kernel-crash")
    seed = crash.prepare(t)
    marks = number = 0
    while marks < MARKS:
        marks += crash.crash(t, seed + number, bool(number % 2), 100)
        number += 1
    # The test itself, too, says nothing against the distribution's.
    of_stock = crash.crash(t, seed + number, False, 50, "stock")
    t.log(f"{marks} marks of ours, {of_stock} of the distribution's")
