# SPDX-License-Identifier: GPL-2.0-or-later
"""What a repair costs beside the tools it runs: a million mappings, the same file by hand and by thinmgrd.

Part of run.py. The space map of the metadata is wrong, so all three runs of the tools read everything, and
nothing is lost. The pool is sparse: of its data nothing is read or written.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import metadata
import pools
import tm

MAPPINGS = 1_000_000
BLOCK = 65536
META_MIB = 192
LIMIT = 36000  # of the machine's clock, which runs ahead while it waits for its host


def timed(argv: list[str | Path], expect: set[int]) -> float:
    began = time.monotonic()
    done = tm.sh(argv, check=False, limit=LIMIT)
    if done.status not in expect:
        raise tm.Failed(f"{argv}: status {done.status}: {done.out}{done.err}")
    return time.monotonic() - began


def write_xml(path: Path, device: int, transaction: int) -> None:
    """Every block of a volume somewhere else, so that no two mappings make a range."""
    places = list(range(MAPPINGS))
    random.Random(1).shuffle(places)
    with path.open("w") as out:
        out.write(f'<superblock uuid="" time="0" transaction="{transaction}" version="2" '
                  f'data_block_size="{BLOCK // 512}" nr_data_blocks="{MAPPINGS}">\n'
                  f'<device dev_id="{device}" mapped_blocks="{MAPPINGS}" transaction="0" creation_time="0" '
                  f'snap_time="0">\n')
        out.writelines(f'<single_mapping origin_block="{n}" data_block="{place}" time="0"/>\n'
                       for n, place in enumerate(places))
        out.write("</device>\n</superblock>\n")


def status_of(pid: int, key: str) -> int:
    """KiB, from the process's status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise tm.Failed(f"no {key} of {pid}")


def run(place: Path, rounds: int, say) -> dict:
    home = place / "million"
    tm.sh(["thinmgr", "pool", "create", "million", "-d", home, "-s", str(MAPPINGS * BLOCK), "--block-size", str(BLOCK),
           "--metadata-size", f"{META_MIB}M", "--sparse", "--auto-extend", "no", "--repair", "manual"], limit=LIMIT)
    tm.sh(["thinmgr", "volume", "create", "million/v", "-s", str(MAPPINGS * BLOCK)], limit=LIMIT)
    tm.sh(["thinmgr", "pool", "deactivate", "million"], limit=LIMIT)
    shown = pools.pool("million")
    device = tm.items(pools.api("GET", "/v1/pools/million/volumes", expect=200).body)[0]["dev_id"]
    xml, broken, mended = (place / name for name in ("million.xml", "million.broken", "million.mended"))
    write_xml(xml, device, shown["transaction_id"])
    tm.sh(["thin_restore", "-i", xml, "-o", home / "metadata"], limit=LIMIT)
    xml.unlink()
    metadata.forget_use(home / "metadata")
    shutil.copyfile(home / "metadata", broken)
    by_hand, by_daemon, peaks = [], [], []
    pid = tm.main_pid()
    for _ in range(rounds):
        mended.unlink(missing_ok=True)
        subprocess.run(["fallocate", "-l", f"{META_MIB}M", mended], check=True)
        parts = [timed(["thin_check", broken], {1, 64}), timed(["thin_repair", "-i", broken, "-o", mended], {0}),
                 timed(["thin_check", mended], {0})]
        by_hand.append(sum(parts))
        shutil.copyfile(broken, home / "metadata")
        tm.sh(["sync"], limit=LIMIT)
        Path(f"/proc/{pid}/clear_refs").write_text("5\n")  # the peak from here on
        before = status_of(pid, "VmRSS")
        began = time.monotonic()
        tm.sh(["thinmgr", "pool", "repair", "million"], limit=LIMIT)
        by_daemon.append(time.monotonic() - began)
        peaks.append((before, status_of(pid, "VmHWM")))
        say(f"bench: repair: by hand {by_hand[-1]:.2f} s ({', '.join(f'{p:.2f}' for p in parts)}), "
            f"by thinmgrd {by_daemon[-1]:.2f} s, its memory {before} KiB, at most {peaks[-1][1]} KiB")
    report = json.loads(tm.sh(["thinmgr", "--json", "event", "list", "--limit", "20"], limit=LIMIT).out)
    last = [e for e in report["items"] if e["type"] == "repaired"][-1]
    if last["data"]["verdict"] != "accept":
        raise tm.Failed(f"not whole: {last}")
    tm.sh(["thinmgr", "pool", "delete", "million", "--with-volumes", "--yes"], limit=LIMIT)
    hand, daemon = statistics.median(by_hand), statistics.median(by_daemon)
    return {"mappings": MAPPINGS, "by_hand_s": round(hand, 3), "by_thinmgrd_s": round(daemon, 3),
            "ratio": round(daemon / hand, 3), "memory_kib": peaks[-1][0],
            "memory_peak_kib": max(peak for _before, peak in peaks)}
