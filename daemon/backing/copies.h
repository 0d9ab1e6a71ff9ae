/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Metadata that takes another's place, and what is kept of the old.
 *
 * A repair never writes to the metadata it found. What it makes is a file beside it
 * ("metadata.new"); once that was checked it gets the name, and the old one, the same file as ever,
 * moves to the directory "kept". Every step can be done again after it was cut off, and undone; at
 * no moment is there no complete metadata under one of the three names.
 *
 * Calls block, and nothing may have the metadata attached meanwhile but where a comment says so.
 * Paths as in backing.h; errors not named below: IO, BACKING_GONE, NO_MEMORY.
 */
#ifndef TM_BACKING_COPIES_H
#define TM_BACKING_COPIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backing/backing.h"

/* Name of a kept file: when it was kept, in UTC, and why, as in "20261123T024512Z-repair". */
#define TM_COPY_NAME_SIZE 64

struct tm_copy {
	char name[TM_COPY_NAME_SIZE];
	uint64_t bytes;
	uint64_t kept_usec; /* real time, as its name tells */
};

/*
 * The name for what is kept at @realtime_usec because of @why, 1 to 32 of [a-z-]. 0, or -EINVAL for
 * a reason that cannot be part of one or a time that has no four-digit year.
 */
int tm_copy_name(uint64_t realtime_usec, const char *why, char ret[TM_COPY_NAME_SIZE]);
bool tm_copy_name_valid(const char *name);
/* Why it was kept, as its name tells. */
const char *tm_copy_why(const struct tm_copy *copy);
/*
 * Whether it is a safety copy: not metadata as it was, but what thin_dump says of it, compressed
 * (packed.h). Those are what is kept because of TM_COPY_SAFETY.
 */
#define TM_COPY_SAFETY "copy"
bool tm_copy_is_dump(const struct tm_copy *copy);

/* "<directory>/metadata.new", and "<directory>/kept/<name>". */
void tm_copies_new_path(const struct tm_pool_record *pool, char buf[TM_PATH_SIZE + 16]);
void tm_copies_kept_path(const struct tm_pool_record *pool, const char *name,
			 char buf[TM_PATH_SIZE + TM_COPY_NAME_SIZE + 16]);

/*
 * Make new metadata of @bytes (a multiple of 512), allocated and reading as zeroes (0600). One that
 * is there already, left from before, is replaced. What was set aside for it (spare.h) is used
 * where there is no other room; NO_SPACE when the margin would not be left even so. On failure
 * there is none.
 */
int tm_copies_make_new(const struct tm_pool_record *pool, uint64_t bytes, struct tm_error *err);

/*
 * The same with the content of the metadata, which may be in use if whoever uses it only reads;
 * what is beyond that is zeroes. No block is shared with it. OUT_OF_RANGE when @bytes are fewer
 * than it has.
 */
int tm_copies_clone_new(const struct tm_pool_record *pool, uint64_t bytes, struct tm_error *err);

/*
 * The same with the content of what is kept as @name, which stays as it is. NOT_FOUND when there is
 * no such copy.
 */
int tm_copies_take_new(const struct tm_pool_record *pool, const char *name, uint64_t bytes,
		       struct tm_error *err);

/*
 * Give the safety copy that tm_packed_finish has left its place, as @name. Durable when it returns.
 * Fine when that was done before. EXISTS when something else has that name; BACKING_GONE when
 * there is neither.
 */
int tm_copies_keep_packed(const struct tm_pool_record *pool, const char *name,
			  struct tm_error *err);

/* Delete a safety copy that is not finished, or not kept yet; fine when there is none. */
int tm_copies_drop_packed(const struct tm_pool_record *pool, struct tm_error *err);

/* Open what is kept as @name for reading. A descriptor; BAD_NAME, NOT_FOUND. */
int tm_copies_open(const struct tm_pool_record *pool, const char *name, struct tm_error *err);

/* Delete new metadata, or set it aside for the next; fine when there is none. */
int tm_copies_drop_new(const struct tm_pool_record *pool, struct tm_error *err);

/*
 * Put the new metadata in the place of the old, which is kept as @name. Durable when it returns.
 * Fine when that was done before. Without metadata in the pool there is nothing to keep. EXISTS
 * when something else has that name; BACKING_GONE when there is no new metadata.
 */
int tm_copies_swap(const struct tm_pool_record *pool, const char *name, struct tm_error *err);

/*
 * Bring back what tm_copies_swap kept as @name; what took its place is deleted, and so is new
 * metadata that is still there. Fine when nothing was swapped, or only half.
 */
int tm_copies_swap_back(const struct tm_pool_record *pool, const char *name, struct tm_error *err);

/* The directory "kept", if it is not there. */
int tm_copies_make_directory(const struct tm_pool_record *pool, struct tm_error *err);

/* What is kept, the oldest first; files that are not ours by their name are left out. The caller
 * frees *ret. */
int tm_copies_list(const struct tm_pool_record *pool, struct tm_copy **ret, size_t *ret_n,
		   struct tm_error *err);

/* One of them. BAD_NAME, NOT_FOUND. */
int tm_copies_find(const struct tm_pool_record *pool, const char *name, struct tm_copy *ret,
		   struct tm_error *err);

/* Delete one that is kept; fine when it is not there. */
int tm_copies_remove(const struct tm_pool_record *pool, const char *name, struct tm_error *err);

/* Delete all of them, their directory, new metadata and what is set aside. */
int tm_copies_destroy(const struct tm_pool_record *pool, struct tm_error *err);

#endif
