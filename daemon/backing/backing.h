/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a pool's bytes come from. A backing gives the core block devices to put
 * dm-linear on; it knows nothing of thin pools. This one: files in a directory
 * (file.c) behind loop devices (loop.c).
 *
 * Calls block (allocation, fsync); none from the main loop but tm_backing_free_bytes.
 * The directory's path is that of the record; symbolic links are not followed in its last part
 * or in the files' names. Errors not named below: IO, NO_MEMORY.
 *
 * A discard that reaches the loop device punches a hole into the file, so a preallocated pool keeps
 * its promise (no write of the pool ever meets a full file system) only when its table says
 * no_discard_passdown.
 */
#ifndef TM_BACKING_BACKING_H
#define TM_BACKING_BACKING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "logic/model.h"

enum tm_part { TM_PART_DATA, TM_PART_METADATA };

/*
 * A piece of a block device, to be mapped by dm-linear. Behind @length_sectors the device may go
 * on, to @room_sectors in all: what is there has no space yet, but a mapping of it need not be
 * loaded anew once it has.
 */
struct tm_segment {
	unsigned int major, minor;
	uint64_t offset_sectors, length_sectors, room_sectors;
};

/* An attached part: stays attached as long as something has the device open. */
struct tm_attachment {
	struct tm_segment segment;
	int fd;         /* keeps it until dm-linear holds it; close with tm_attachment_done */
	bool direct_io; /* the loop bypasses the page cache */
};
void tm_attachment_done(struct tm_attachment *a);

/*
 * May this pool be made here? Checks and changes nothing: the directory (absent, or empty and
 * writable; its parent there), a real file system (tmpfs, ramfs, overlay, network file systems are
 * refused with the reason; so is one mounted read-only, and one that copies on write unless the
 * pool is sparse), room for what is preallocated with the margin left. Errors: BAD_PATH, NO_SPACE,
 * UNSUPPORTED, EXISTS.
 */
int tm_backing_probe(const struct tm_pool_record *pool, struct tm_error *err);

/* Bytes always left to the file system beside what a pool takes: 1 % of it, 16 MiB..1 GiB. */
uint64_t tm_backing_margin(uint64_t fs_bytes);

/* Make the directory (0700) with no content. 1: made; 0: it was there, and empty. */
int tm_backing_create_dir(const struct tm_pool_record *pool, struct tm_error *err);

/*
 * Make the file of a part at @bytes (a multiple of 512; 0600, fsynced, directory fsynced). Reads as
 * zeroes, as the kernel wants new metadata. Preallocated; only the data of a sparse pool is not.
 * Idempotent: a file of that size is taken as done, a smaller one is completed, a larger one is
 * EXISTS. NO_SPACE when the margin would not be left. On failure nothing new is left behind.
 */
int tm_backing_create_part(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
			   struct tm_error *err);

/*
 * Grow the file of a part to @bytes (a multiple of 512) and every loop device on it; what is there
 * beyond the sizes in the record is allocated, too. Idempotent. On failure the size is what it was;
 * NO_SPACE when the margin would not be left, BACKING_GONE when the file is shorter than what the
 * pool uses of it. A smaller @bytes than the file's is success and does not change its size.
 */
int tm_backing_grow_part(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
			 struct tm_error *err);

/*
 * Give back what the file of a part has beyond @bytes: undoes growing, so nothing may use it any
 * more. A file that is no larger is success and not changed. Loop devices stay as large as they
 * are.
 */
int tm_backing_shrink_part(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
			   struct tm_error *err);

/*
 * As tm_backing_grow_part and then tm_backing_attach, for a part that was behind the loop device
 * @major:@minor when last seen. While it still is, no other is looked at, so that this takes no
 * longer with many pools than with one. @major 0: it is not known.
 */
int tm_backing_grow_attached(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
			     unsigned int major, unsigned int minor, struct tm_attachment *ret,
			     struct tm_error *err);

/* Size of a part's file. -ENOENT with BACKING_GONE when it is missing. */
int tm_backing_part_size(const struct tm_pool_record *pool, enum tm_part part, uint64_t *ret_bytes,
			 struct tm_error *err);

/*
 * Put the part behind a loop device (auto-clearing, direct I/O where the file system can), or find
 * the one that is there. For data it is as large as the file system, so that a growing file never
 * needs a longer mapping. BACKING_GONE when the file is missing or is not a regular file.
 */
int tm_backing_attach(const struct tm_pool_record *pool, enum tm_part part,
		      struct tm_attachment *ret, struct tm_error *err);

/*
 * What the backing could still give, beside the margin and what the sizes of sparse files promised
 * already (reserves are allocated). Never blocks on I/O beyond stat and statvfs. BACKING_GONE when
 * the directory is missing.
 */
int tm_backing_free_bytes(const struct tm_pool_record *pool, uint64_t *ret_bytes,
			  struct tm_error *err);

/* Whether any of the pool's files is in its directory. */
bool tm_backing_anything_left(const struct tm_pool_record *pool);

/*
 * Detach loop devices still on the pool's files, delete files and descriptor, then the directory if
 * empty. Idempotent. BUSY, with nothing changed, when a loop device is below another device.
 */
int tm_backing_destroy(const struct tm_pool_record *pool, struct tm_error *err);

/* Path of a part's file ("<directory>/data", "<directory>/metadata") and of the descriptor
 * ("<directory>/pool.json"). */
void tm_backing_part_path(const struct tm_pool_record *pool, enum tm_part part,
			  char buf[TM_PATH_SIZE + 16]);
void tm_backing_descriptor_path(const char *directory, char buf[TM_PATH_SIZE + 16]);

/* Read the first @len bytes of a part's file (the superblock). DAMAGED when it is shorter. */
int tm_backing_read(const struct tm_pool_record *pool, enum tm_part part, void *buf, size_t len,
		    struct tm_error *err);

#endif
