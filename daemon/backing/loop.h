/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loop devices on a file. The kernel is asked for them each time (by the file's device and inode
 * number), so nothing here can be out of date, and renamed files are found.
 */
#ifndef TM_BACKING_LOOP_H
#define TM_BACKING_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct tm_loop {
	int fd; /* read-only is enough to keep it; the caller's to close */
	unsigned int major, minor;
	uint64_t bytes; /* of the device: may be more than the file has */
	bool direct_io;
};

/*
 * Put the open regular file @file_fd (for reading and writing) behind a loop device, or take the
 * one that is there. A new one clears itself when its last user is gone. @path: for messages and
 * for losetup's list. Direct I/O is tried with the block size the file asks for.
 *
 * The device is made as large as the file, and @wish bytes where that is more and the file system
 * allows files of that size. A loop device asks for the size of its file only when it is told to
 * (LOOP_SET_CAPACITY, drivers/block/loop.c), so for that the file is made longer for a moment,
 * nothing of it allocated. What is behind the file's end reads as zeroes and must not be written.
 */
int tm_loop_attach(int file_fd, const char *path, uint64_t wish, struct tm_loop *ret,
		   struct tm_error *err);

/*
 * The loop device with this number, if it is still on the file, made as large as tm_loop_attach
 * does: 1, and *ret is filled; 0 when it is not; or a negative errno. Looks at no other.
 */
int tm_loop_known(int file_fd, unsigned int major, unsigned int minor, uint64_t wish,
		  struct tm_loop *ret);

/* Make every loop device on the file at least as large as that. None becomes smaller. */
int tm_loop_resize(int file_fd, const char *path, struct tm_error *err);

/* Is one of the file's loop devices below another block device? 1, 0 or a negative errno. */
int tm_loop_in_use(int file_fd, const char *path, struct tm_error *err);

/* Detach every loop device from the file; one that is open detaches when it is closed. */
int tm_loop_detach(int file_fd, const char *path, struct tm_error *err);

#endif
