/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of daemon/backing/ share. Only they include this. */
#ifndef TM_BACKING_INTERNAL_H
#define TM_BACKING_INTERNAL_H

#include <fcntl.h>

#include "backing/backing.h"

#define TM_DIRECTORY_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
/* Not blocking: the name could have become a pipe. */
#define TM_FILE_FLAGS (O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)

/* A safety copy that is being made, in the pool's directory; once whole it moves to the others. */
#define TM_PACKED_NAME "copy.new"

/* "cannot <what> "<directory>[/<name>]": why", with what to do; @name may be NULL. -@errnum. */
int tm_file_fail(struct tm_error *err, int errnum, const char *what,
		 const struct tm_pool_record *pool, const char *name);
/* The same of something that is there but no regular file. */
int tm_file_not_regular(struct tm_error *err, const struct tm_pool_record *pool, const char *name);

/* A descriptor for the pool's directory, or -errno without a report. */
int tm_file_open_directory(const struct tm_pool_record *pool);

/* Open a file in @dir_fd, which must be a regular one. A descriptor, or a reported error. */
int tm_file_open(int dir_fd, const struct tm_pool_record *pool, const char *name, int flags,
		 struct stat *ret_st, struct tm_error *err);

/* Refuse what cannot be had before anything is changed: @need more bytes. NO_SPACE. */
int tm_file_check_room(const struct tm_pool_record *pool, int dir_fd, uint64_t need,
		       struct tm_error *err);

#endif
