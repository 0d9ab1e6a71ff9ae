# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's asynchronous I/O: several writes at once, and writes with FUA alone. To a synchronous
write with O_SYNC the kernel adds a flush, so that one says nothing of FUA.
"""

import contextlib
import ctypes
import mmap
import os


class _Iocb(ctypes.Structure):
    """struct iocb of <linux/aio_abi.h>"""

    _fields_ = [("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("rw_flags", ctypes.c_int32),
                ("opcode", ctypes.c_uint16), ("priority", ctypes.c_int16), ("fd", ctypes.c_uint32),
                ("buffer", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("offset", ctypes.c_int64),
                ("reserved", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("event_fd", ctypes.c_uint32)]


class _Event(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint64), ("iocb", ctypes.c_uint64), ("result", ctypes.c_int64),
                ("result2", ctypes.c_int64)]


class Writes:
    """Asynchronous writes: several at once, and FUA ones without the flush that a synchronous write of
    this kind is followed by."""

    SETUP, DESTROY, GETEVENTS, SUBMIT = 206, 207, 208, 209  # x86-64
    PWRITE, DSYNC = 1, 2
    MOST = 16
    ROOM = 2 << 20

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.context = ctypes.c_ulong(0)
        self._call(self.SETUP, self.MOST, ctypes.byref(self.context))
        self.arena = mmap.mmap(-1, self.ROOM)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.arena))

    def _call(self, number, *args):
        done = self.libc.syscall(ctypes.c_long(number), *args)
        if done < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return done

    def run(self, fd, writes, fua):
        """(offset, data) each; returns when all have ended."""
        blocks, at = [], 0
        for offset, data in writes:
            self.arena[at:at + len(data)] = data
            blocks.append(_Iocb(rw_flags=self.DSYNC if fua else 0, opcode=self.PWRITE, fd=fd,
                                buffer=self.address + at, bytes=len(data), offset=offset))
            at += len(data)
        pointers = (ctypes.POINTER(_Iocb) * len(blocks))(*[ctypes.pointer(b) for b in blocks])
        submitted = 0
        while submitted < len(blocks):
            submitted += self._call(self.SUBMIT, self.context, ctypes.c_long(len(blocks) - submitted),
                                    ctypes.byref(pointers, submitted * ctypes.sizeof(ctypes.c_void_p)))
        events = (_Event * len(blocks))()
        ended = 0
        while ended < len(blocks):
            got = self._call(self.GETEVENTS, self.context, ctypes.c_long(1), ctypes.c_long(len(blocks)),
                             ctypes.byref(events), None)
            for event in events[:got]:
                if event.result <= 0:
                    raise OSError(-event.result, "a write failed")
            ended += got

    def close(self):
        self._call(self.DESTROY, self.context)


def write_fua(path, sector, data):
    """One write with FUA, and no flush after it. Its failure is an OSError."""
    with contextlib.closing(Writes()) as writes:
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        try:
            writes.run(fd, [(sector * 512, data)], fua=True)
        finally:
            os.close(fd)
