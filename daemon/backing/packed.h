/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Safety copies: text, compressed with zstd while it comes in, and back. One that is being made has
 * a name of its own in the pool's directory, and gets its place among those that are kept
 * (copies.h) only once it is whole and on disk: one that was cut off is never taken for a copy.
 *
 * Calls block. Errors not named below: IO, BACKING_GONE, NO_MEMORY.
 */
#ifndef TM_BACKING_PACKED_H
#define TM_BACKING_PACKED_H

#include <stddef.h>

#include "backing/backing.h"

struct tm_packed;

/* Begin one; what is left of another is deleted. */
int tm_packed_begin(const struct tm_pool_record *pool, struct tm_packed **ret,
		    struct tm_error *err);
/* More of it. NO_SPACE when the margin would not be left in the file system. */
int tm_packed_write(struct tm_packed *p, const char *data, size_t len, struct tm_error *err);
/* That was all. It is on disk when this returns; tm_copies_keep_packed gives it its name. */
int tm_packed_finish(struct tm_packed *p, struct tm_error *err);
/* NULL in, NULL out. What was not finished is of no use; tm_copies_drop_packed deletes it. */
struct tm_packed *tm_packed_free(struct tm_packed *p);

/*
 * The text of what is kept as @name, in pieces, to @fn: a negative return ends it, and is then that
 * of the call. NOT_FOUND; DAMAGED when it is not, or not all of, what was written, by when @fn may
 * have had some of it.
 */
typedef int (*tm_packed_fn)(void *userdata, const char *data, size_t len, struct tm_error *err);
int tm_packed_read(const struct tm_pool_record *pool, const char *name, tm_packed_fn fn,
		   void *userdata, struct tm_error *err);

/*
 * The text of what is kept as @name, in a file that has no name and goes with its last descriptor.
 * A descriptor; NO_SPACE; NOT_FOUND; DAMAGED when it is not, or not all of, what was written.
 */
int tm_packed_open(const struct tm_pool_record *pool, const char *name, struct tm_error *err);

#endif
