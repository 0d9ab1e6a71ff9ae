# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface of the thin-pool and thin targets: tables, messages, status lines, good and bad.

The same list is tried with the distribution's target and with ours: what either refuses, and with
which errno, has to be the same, but for DIFFERENCES. Then what only ours has.
"""

import errno
import hashlib
import os

import target
import thin
import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 360
PACKAGE = False
MODULE = True

MIB = 1 << 20
# Where ours does not do as the distribution's, and why that is right.
DIFFERENCES = {
    "pool: M D 128 0 0 more": "an argument that nobody reads is a mistake somewhere",
    "second table: M D 256 0": "a pool's block size never changes; better said when it is loaded than ignored",
    "read-only: nonsense": "what no mode knows is -EINVAL in each",
}

GOOD_TABLES = [
    "M D 128 0", "M D 128 0 0", "M D 128 18446744073709551615 0", "M D 128 7 1 skip_block_zeroing",
    "M D 128 0 1 ignore_discard", "M D 128 0 1 no_discard_passdown", "M D 128 0 1 error_if_no_space",
    "M D 128 0 1 READ_ONLY", "M D 128 0 2 read_only read_only",
    "M D 128 0 4 skip_block_zeroing ignore_discard error_if_no_space read_only",
]
BAD_TABLES = [
    "", "M", "M D", "M D 128",
    "M D 0 0", "M D 64 0", "M D 127 0", "M D 129 0", "M D 192 0", "M D 2097280 0", "M D 4194304 0",
    "M D x 0", "M D -128 0", "M D 0x80 0", "M D 18446744073709551744 0", "M D 256 0",
    "M D 128 x", "M D 128 -1", "M D 128 18446744073709551616",
    "M D 128 0 x", "M D 128 0 1", "M D 128 0 2 read_only", "M D 128 0 1 nonsense", "M D 128 0 -1",
    "M D 128 0 6 read_only read_only read_only read_only read_only read_only", "M D 128 0 0 more",
    "M M 128 0", "/dev/none D 128 0", "M /dev/none 128 0", "9999:1 D 128 0", "GARBAGE D 128 0",
    "SMALL D 128 0", "EMPTY D 128 0 1 read_only", "BUSY D 128 0",
]
BAD_THINS = [
    "", "P", "P 0 D2 more", "P x", "P -1", "P 16777216", "P 4294967296", "P 16777215", "P 7",
    "/dev/none 0", "LOOP 0", "LINEAR 0", "P 0 P", "P 0 /dev/none",
]
BAD_MESSAGES = [
    "", "nonsense", "nonsense 1 2 3",
    "create_thin", "create_thin x", "create_thin -1", "create_thin 16777216", "create_thin 0",
    "create_thin 1 2",
    "create_snap", "create_snap 5", "create_snap 5 99", "create_snap 0 0", "create_snap 1 0", "create_snap x 0",
    "create_snap 5 x", "create_snap 16777216 0", "create_snap 5 16777216", "create_snap 5 0 0",
    "delete", "delete 99", "delete x", "delete 16777216", "delete 0", "delete 1 1",
    "set_transaction_id", "set_transaction_id 1", "set_transaction_id 7 8", "set_transaction_id x 1",
    "set_transaction_id 1 x", "set_transaction_id 1 2 3",
    "release_metadata_snap", "release_metadata_snap 1", "reserve_metadata_snap 1",
]
# What some of them are refused with, in words of ours.
REASONS = {
    "nonsense": "EINVAL", "create_thin x": "EINVAL", "create_thin 16777216": "EINVAL", "create_thin 1 2": "EINVAL",
    "create_thin 0": "EEXIST", "create_snap 1 0": "EEXIST", "create_snap 5 99": "ENODATA", "delete 99": "ENODATA",
    "delete 0": "EBUSY", "set_transaction_id 7 8": "EINVAL", "grow_data 1": "EINVAL", "events x": "EINVAL",
}
# Of ours only; the distribution's knows none of these words.
BAD_MESSAGES_OURS = [
    "set_low_water", "set_low_water x", "set_low_water -1", "set_low_water 1 2",
    "set_metadata_low_water", "set_metadata_low_water x", "set_metadata_low_water 1 2",
    "grow_data", "grow_data x", "grow_data 1", "grow_data 0", "grow_data 99999999", "grow_data 512 1",
    "grow_metadata", "grow_metadata x", "grow_metadata 1", "grow_metadata 99999999",
    "events", "events x", "events -1", "events 1 2",
]


def free(disk):
    """Nobody holds it."""
    try:
        os.close(os.open(disk.loop, os.O_RDWR | os.O_EXCL))
        return True
    except OSError:
        return False


def named(code):
    return errno.errorcode.get(code, code) if code else "accepted"


class Answers:
    """What a target answers to each line of the lists."""

    def __init__(self, t, which):
        self.t = t
        self.which = which
        self.got = {}
        self.log = thin.KernelLog()
        t.defer(self.log.close)

    def take(self, text, code):
        self.got[text] = code

    def said_why(self, text, *words):
        """Ours tells the kernel log why it refused something: a line with these words."""
        lines = self.log.new()
        if self.which == "ours":
            self.t.check(any(all(word in line for word in words) for line in lines),
                         f"the kernel log says why {text!r} is refused: {lines}")


def pool_tables(t, answers):
    meta, data = thin.Disk(t, "pt-meta", 2 * MIB), thin.Disk(t, "pt-data", 8 * MIB)
    garbage, small = thin.Disk(t, "pt-garbage", 2 * MIB), thin.Disk(t, "pt-small", 4096)
    empty, busy = thin.Disk(t, "pt-empty", 2 * MIB), thin.Disk(t, "pt-busy", 2 * MIB)
    garbage.file.write_bytes(b"garbage" * (2 * MIB // 7) + b"7")
    words = {"M": meta.path, "D": data.path, "GARBAGE": garbage.path, "SMALL": small.path,
             "EMPTY": empty.path, "BUSY": busy.path}

    def line(text, sectors=16384):
        return thin.Target(0, sectors, "thin-pool", " ".join(words.get(word, word) for word in text.split()))

    other_data = thin.Disk(t, "pt-data2", 8 * MIB)
    other = thin.Pool(t, busy, other_data, "other")
    # The first of these makes the metadata.
    for text in GOOD_TABLES:
        device = thin.Device.of(t, "pt", line(text))
        shown = device.table().args
        device.load(thin.Target(0, 16384, "thin-pool", shown))
        device.suspend()
        device.resume()
        t.equal(device.table().args, shown, f"{answers.which}: the table of {text!r} after it was loaded again")
        answers.take(f"shown: {text}", shown.split(None, 2)[2])
        answers.take(f"status: {text}", device.status().split(None, 3)[3])
        device.remove()
        t.check(free(meta) and free(data), f"{answers.which}: {text!r} is gone")
    before = meta.file.read_bytes(), garbage.file.read_bytes(), empty.file.read_bytes()
    for text in BAD_TABLES:
        device = thin.Device(t, "pt")
        answers.log.new()
        code = thin.error_of(device.load, line(text))
        if code:
            answers.said_why(text, "table: ", ": thin-pool: ")
        t.check(not device.info().waiting or not code, f"{answers.which}: {text!r} is refused whole")
        device.remove()
        t.check(free(meta) and free(data) and free(garbage) and free(small) and free(empty),
                f"{answers.which}: {text!r} leaves nothing behind")
        answers.take(f"pool: {text}", code)
    t.check((meta.file.read_bytes(), garbage.file.read_bytes(), empty.file.read_bytes()) == before,
            f"{answers.which}: metadata is untouched by tables that are refused")
    t.check(small.file.read_bytes() == bytes(4096), f"{answers.which}: too small a device is not written to")
    answers.take("pool: longer than the data device", thin.error_of(
        thin.Device.of, t, "pt", line("M D 128 0", 16384 + 128)))

    # A second table for a pool that is there: it keeps its devices and its block size.
    pool = thin.Pool(t, meta, data, "live")
    for text in ("M D 256 0", "EMPTY D 128 0", f"M {other_data.path} 128 0", "M D 128 0 1 nonsense",
                 "M D 128 0 1 ignore_discard"):
        answers.take(f"second table: {text.replace(other_data.path, 'D2')}",
                     thin.error_of(pool.load, line(text)))
        pool.clear()
    for sectors in (8192, 0):
        answers.take(f"second table: {sectors} sectors", thin.error_of(pool.load, line("M D 128 0", sectors)))
        pool.clear()
    t.equal(pool.mode(), "rw", f"{answers.which}: the live pool")
    pool.load(line("M D 128 0", 8192))
    pool.suspend()
    answers.take("resume with a shorter table", thin.error_of(pool.resume))
    pool.load(pool.line())
    pool.resume()
    t.equal((pool.mode(), pool.state().data_total), ("rw", 128), f"{answers.which}: with the right table again")
    for device in (pool, other):
        device.remove()
    thin.check(meta)
    for disk in (meta, data, garbage, small, empty, busy, other_data):
        disk.close()


def a_pool(t):
    """A pool with two volumes, some data, and metadata to spare."""
    pool = thin.Pool(t, thin.Disk(t, "meta", 2 * MIB).through(), thin.Disk(t, "data", 32 * MIB),
                     sectors=16 * MIB // thin.SECTOR)
    vol = pool.make(0, 16 * MIB)
    thin.fill(vol, 3, 5, 0x11)
    pool.message("create_thin 1")
    pool.message("set_transaction_id 0 1")
    return pool, vol


def gone(pool, *devices):
    for device in (*devices, pool):
        device.remove()
    thin.check(pool)
    pool.metadata.close()
    pool.data.close()


def thin_tables(t, answers):
    pool, vol = a_pool(t)
    extra = thin.Disk(t, "extra", MIB)
    linear = thin.Device.of(t, "linear", thin.Target(0, 128, "linear", f"{extra.path} 0"))
    words = {"P": pool.path, "LOOP": extra.path, "LINEAR": linear.path, "D2": linear.path}

    def line(text):
        return thin.Target(0, 1024, "thin", " ".join(words.get(word, word) for word in text.split()))

    opened = pool.info().open_count
    for text in BAD_THINS:
        device = thin.Device(t, "tt")
        answers.log.new()
        answers.take(f"thin: {text}", thin.error_of(device.load, line(text)))
        answers.said_why(text, "table: ", ": thin: ")
        device.remove()
        t.equal(pool.info().open_count, opened, f"{answers.which}: users of the pool after {text!r}")
        t.equal(linear.info().open_count, 0, f"{answers.which}: users of the origin after {text!r}")
    for text in ("P 1", "P 1 D2", "P 000001"):
        device = thin.Device.of(t, "tt", line(text))
        shown = device.table().args
        answers.take(f"thin shown: {text}", shown.replace(pool.node, "P").replace(linear.node, "D2"))
        device.swap(thin.Target(0, 1024, "thin", shown))
        t.equal(device.table().args, shown, f"{answers.which}: the table of {text!r} after it was loaded again")
        device.remove()
    # By another name at the same time: LVM2 does that, too.
    device = thin.Device(t, "tt")
    answers.take("thin: a device that has a name", thin.error_of(device.load, line("P 0")))
    device.remove()
    # Nothing of a pool that stands still.
    pool.suspend()
    device = thin.Device(t, "tt")
    answers.take("thin: P 1 while the pool is suspended", thin.error_of(device.load, line("P 1")))
    device.remove()
    pool.resume()
    linear.remove()
    extra.close()
    gone(pool, vol)


def messages(t, answers):
    pool, vol = a_pool(t)

    def state():
        return pool.status(flush=True), pool.table().args, vol.status(), pool.metadata_hash()

    pool.metadata_hash = lambda: hashlib.sha256(pool.metadata.file.read_bytes()).hexdigest() \
        if answers.which == "ours" else ""
    before, dumped = state(), thin.dump(pool)
    before = state()
    for text in BAD_MESSAGES + BAD_MESSAGES_OURS:
        answers.log.new()
        code = thin.error_of(pool.message, text)
        answers.take(f"message: {text}", code)
        if code:
            answers.said_why(text, "essage", *text.split()[:1])
        if not code:  # the lists say which; put it back
            pool.message("delete " + text.split()[1])
            before = state()
        t.equal(state(), before, f"{answers.which}: all there is after {text!r}")
    t.equal(thin.dump(pool), dumped, f"{answers.which}: thin_dump after bad messages")
    answers.take("message: to the thin device", thin.error_of(vol.message, "create_thin 5"))
    answers.take("message: to a sector beyond the pool", thin.error_of(pool.message, "create_thin 5", 1 << 30))

    # Each does what it says.
    pool.message("create_thin 16777215")
    pool.message("CREATE_THIN 7")
    pool.message("create_snap 8 0")
    pool.message("create_snap 9 8")
    pool.message("delete 7")
    pool.message("set_transaction_id 1 18446744073709551615")
    answers.take("devices", sorted(int(part.split('"')[1]) for part in thin.dump(pool).split("<device dev_id=")[1:]))
    answers.take("status with these", pool.status(flush=True))
    pool.message("reserve_metadata_snap")
    answers.take("a metadata snapshot", pool.state().held_root is not None)
    answers.take("message: reserve_metadata_snap twice", thin.error_of(pool.message, "reserve_metadata_snap"))
    thin.fill(vol, 3, 5, 0x22)  # the shared blocks are broken up meanwhile
    thin.check(pool)
    pool.message("release_metadata_snap")
    answers.take("no metadata snapshot", pool.state().held_root)
    for number in (9, 8, 16777215, 1):
        pool.message(f"delete {number}")
    answers.take("message: read by", thin.read(vol, 3 * 128, 1)[:1])

    # None of them in a read-only pool.
    vol.remove()
    pool.change(features="read_only")
    for text in ("create_thin 5", "create_snap 5 0", "delete 0", "set_transaction_id 18446744073709551615 1",
                 "reserve_metadata_snap", "release_metadata_snap", "nonsense"):
        answers.take(f"read-only: {text}", thin.error_of(pool.message, text))
    answers.take("read-only: status", pool.state().mode)
    gone(pool)


def status_fields(t, answers):
    """Each field once with another value."""
    meta, data = thin.Disk(t, "meta", 4 * MIB), thin.Disk(t, "data", 8 * MIB)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(3, 64 * MIB)
    lines = [pool.status(True), vol.status()]
    thin.fill(vol, 10, 1, 1)
    lines += [pool.status(True), vol.status()]
    thin.write(vol, 1023 * 128 + 5, b"x" * 512)
    lines += [pool.status(True), vol.status()]
    thin.discard(vol, 1000 * 128, 24 * 128)
    lines += [pool.status(True), vol.status()]
    t.equal([line.split()[:2] for line in lines[1::2]],
            [["0", "-"], ["128", "1407"], ["256", "131071"], ["128", "1407"]], f"{answers.which}: of the volume")
    used = [thin.Status.parse(line).data_used for line in lines[::2]]
    t.equal(used, [0, 1, 2, 1], f"{answers.which}: data blocks in use")
    for features in ("", "no_discard_passdown", "error_if_no_space", "skip_block_zeroing", "read_only", ""):
        pool.change(features=features)
        state = pool.state()
        t.equal((state.mode, state.discards, state.no_space),
                ("ro" if features == "read_only" else "rw",
                 features if features == "no_discard_passdown" else "discard_passdown",
                 features if features == "error_if_no_space" else "queue_if_no_space"),
                f"{answers.which}: with {features or 'no feature'}")
        lines.append(pool.status())
    pool.change(features="error_if_no_space")
    thin.fill(vol, 0, 10, 1)
    code = thin.error_of(thin.fill, vol, 20, 128, 1)
    t.equal(named(code), "ENOSPC", f"{answers.which}: a write without space")
    state = pool.state(flush=True)
    t.equal((state.mode, state.data_used, state.data_total, state.needs_check),
            ("out_of_data_space", 128, 128, False), f"{answers.which}: without space")
    lines.append(pool.status(True))
    thin.discard(vol, 0, 10 * 128)
    tm.wait_for(lambda: pool.state(flush=True).mode == "rw", 20, "space is there again")
    lines.append(pool.status(True))
    # How metadata is used depends on when commits fell; by much it may not differ.
    for number, line in enumerate(lines):
        if "/" not in line:
            answers.take(f"volume's status {number}", line)
            continue
        state = thin.Status.parse(line)
        t.check(abs(state.metadata_used - 115) < 12, f"{answers.which}: metadata in use, {line}")
        state.metadata_used = 0
        answers.take(f"pool's status {number}", state)
    answers.take("limits", {name: vol.limit(name) for name in (
        "discard_granularity", "logical_block_size", "physical_block_size", "minimum_io_size",
        "optimal_io_size", "max_sectors_kb", "fua", "rotational")})
    if answers.which == "ours":  # the distribution's depends on its version
        t.check(vol.limit("discard_max_bytes") >= 1 << 30, "large discards at once")
    answers.take("pool's limits", {name: pool.limit(name) for name in (
        "discard_granularity", "discard_max_bytes", "logical_block_size", "minimum_io_size", "optimal_io_size",
        "max_sectors_kb")})
    gone(pool, vol)


def causes(pool, since=0):
    """(number, cause, value) of each event after the number."""
    lines = pool.message(f"events {since}").split("\n")
    found = [line.split() for line in lines[1:]]
    if found and found[-1][0] != lines[0]:
        raise tm.Failed(f"the newest is {lines[0]}, but the last line is {found[-1]}")
    return [(int(number), cause, value) for number, _, cause, value in found]


def additions(t):
    """What only ours has."""
    pool, vol = a_pool(t)
    t.equal((pool.state().data_used, pool.state().data_total), (5, 256), "data blocks")
    newest = lambda: int(pool.message("events 0").split()[0])  # noqa: E731

    # A mark that moves: what is low by it is told at once, and once.
    before, since = pool.events(), newest()
    pool.message("set_low_water 100")
    pool.message("set_low_water 251")
    tm.wait_for(lambda: causes(pool, since), 10, "an event for free data below the mark")
    t.equal(causes(pool, since), [(since + 1, "data_low", "251")], "the event")
    t.equal(pool.events(), before + 1, "device-mapper events")
    t.equal(pool.table().args.split()[3], "251", "the mark in the live table")
    pool.message("set_low_water 0")
    before, since = pool.events(), newest()
    mark = pool.state().metadata_mark
    pool.message("set_metadata_low_water 500")
    t.equal(pool.state().metadata_mark, 500, "the metadata mark in the status")
    tm.wait_for(lambda: causes(pool, since), 10, "an event for free metadata below the mark")
    t.equal([cause for _, cause, _ in causes(pool, since)], ["metadata_low"], "events")
    pool.message("set_metadata_low_water 0")
    t.equal(pool.state().metadata_mark, mark, "0: mainline's rule again")

    # Data grows without a suspend, and what waited goes on.
    thin.fill(vol, 0, 256, 3)
    big = pool.make(5, 32 * MIB)
    waiting = thin.Background(thin.fill, big, 0, 1, 7)
    tm.wait_for(lambda: pool.mode() == "out_of_data_space", 20, "out of data space")
    t.check(waiting.waits(), "the write waits for space")
    since = newest()
    pool.message("grow_data 300")
    t.equal(waiting.ended(), 0, "the write that waited")
    t.equal((pool.mode(), pool.state().data_total), ("rw", 300), "after grow_data")
    found = causes(pool, since)
    t.check(("data_grown", "300") in [event[1:] for event in found] and
            ("mode", "rw") in [event[1:] for event in found], f"events of it: {found}")
    pool.suspend()
    pool.resume()
    t.equal((pool.mode(), pool.state().data_total), ("rw", 300), "after a suspend and resume with the same table")
    pool.load(pool.line(256 * 128))
    pool.suspend()
    t.equal(named(thin.error_of(pool.resume)), "EINVAL", "a new table that is shorter")
    pool.load(pool.line(300 * 128))
    pool.resume()
    pool.message("grow_data 300")
    pool.message("grow_data 512")
    t.equal(pool.state().data_total, 512, "all of the device")

    # And metadata, once its device is larger.
    t.equal(named(thin.error_of(pool.message, "grow_metadata 1024")), "EINVAL", "more than the device has")
    pool.metadata.resize(4 * MIB)
    t.equal(pool.state().metadata_total, 512, "metadata before")
    pool.message("grow_metadata 700")
    t.equal(pool.state().metadata_total, 700, "metadata after")
    pool.message("grow_metadata 1024")
    t.equal((pool.state().metadata_total, pool.state().metadata_mark), (1024, 256), "all of it, and its mark")
    t.equal([event[1:] for event in causes(pool)][-2:], [("metadata_grown", "700"), ("metadata_grown", "1024")], "events")

    # The ring keeps the last; numbers go on.
    for _ in range(70):
        since = newest()
        pool.message("set_low_water 100000")  # a mark that is set anew speaks up anew
        tm.wait_for(lambda since=since: newest() > since, 10, "low again", every=0.001)
    found = causes(pool)
    last = newest()
    t.equal([number for number, _, _ in found], list(range(last - len(found) + 1, last + 1)), "their numbers")
    t.check(32 <= len(found) <= 64 and last > 70, f"{len(found)} events of {last} are kept")
    t.equal(causes(pool, last), [], "nothing newer than the newest")
    t.equal(causes(pool, last - 2), found[-2:], "those since")
    for ahead in (last + 1000, (1 << 64) - 1):
        t.equal(causes(pool, ahead), [], "nothing newer than what is still to come")
    times = [int(line.split()[1]) for line in pool.message("events 0").split("\n")[1:]]
    t.equal(times, sorted(times), "their times")
    pool.message("set_low_water 0")

    pool.change(sectors=512 * 128, features="read_only")
    for text in ("grow_data 512", "grow_metadata 1024"):
        t.equal(named(thin.error_of(pool.message, text)), "EPERM", f"{text} while read-only")
    pool.change(features="")
    gone(pool, vol, big)


def compare(t, ours, stock):
    t.equal(set(ours), set(stock), "what was tried")
    wrong = []
    for text in stock:
        if text in DIFFERENCES:
            if ours[text] == stock[text]:
                wrong.append(f"{text!r}: no difference, although one is listed")
        elif ours[text] != stock[text]:
            shown = [named(x) if isinstance(x, int) else x for x in (ours[text], stock[text])]
            wrong.append(f"{text!r}: ours {shown[0]}, the distribution's {shown[1]}")
    wrong += [f"message: {text!r} is refused with {named(ours['message: ' + text])}, not {reason}"
              for text, reason in REASONS.items() if named(ours["message: " + text]) != reason]
    for kind, texts in (("pool", BAD_TABLES), ("thin", BAD_THINS), ("message", BAD_MESSAGES + BAD_MESSAGES_OURS)):
        wrong += [f"{kind}: {text!r} is accepted" for text in texts if not ours[f"{kind}: {text}"]]
    for line in wrong:
        t.log(line)
    t.equal(len(wrong), 0, "answers that are not as they should be")
    t.log(f"{len(ours)} answers are the distribution's, but for {len(DIFFERENCES)}")


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    answers = {}
    for which in ("stock", "ours"):
        target.use(which)
        answers[which] = Answers(t, which)
        for part in (pool_tables, thin_tables, messages, status_fields):
            part(t, answers[which])
    compare(t, answers["ours"].got, answers["stock"].got)
    additions(t)
