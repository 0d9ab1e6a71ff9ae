/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Room for a repair, set aside: an allocated file of the pool's directory ("metadata.spare"), and
 * the directory for what is kept. A repair has to make new metadata beside the old; with these it
 * can even where others have filled the file system. Nothing else takes them: see copies.h.
 *
 * Calls block. Paths as in backing.h; errors not named: IO, BACKING_GONE.
 */
#ifndef TM_BACKING_SPARE_H
#define TM_BACKING_SPARE_H

#include <stdint.h>

#include "backing/backing.h"

/* The least is @bytes from here on. NO_SPACE when the margin would not be left: what was there
 * stays. */
int tm_spare_keep(const struct tm_pool_record *pool, uint64_t bytes, struct tm_error *err);

/*
 * Give it the name @name in @dir_fd, where nothing has it, with @bytes that read as zeroes. More
 * than was set aside is only had with the margin left. NO_SPACE; NOT_FOUND when nothing is set
 * aside.
 */
int tm_spare_use(int dir_fd, const struct tm_pool_record *pool, const char *name, uint64_t bytes,
		 struct tm_error *err);

/*
 * What has the name @name is of no more use: it is set aside again, reading as zeroes, or deleted
 * where something is set aside already. Fine when there is none.
 */
int tm_spare_give_back(int dir_fd, const struct tm_pool_record *pool, const char *name,
		       struct tm_error *err);

/* Fine when there is none. */
int tm_spare_drop(int dir_fd, const struct tm_pool_record *pool, struct tm_error *err);

#endif
