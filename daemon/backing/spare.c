/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "backing/spare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backing/copies.h"
#include "backing/internal.h"
#include "common/cleanup.h"

#define SPARE "metadata.spare"

static int allocate(int fd, uint64_t bytes)
{
	int r;

	do
		r = fallocate(fd, 0, 0, (off_t)bytes);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* Open it; *ret_made when it was not there. */
static int open_spare(int dir_fd, const struct tm_pool_record *pool, struct stat *ret_st,
		      bool *ret_made, struct tm_error *err)
{
	tm_auto_close int fd = openat(dir_fd, SPARE, O_WRONLY | O_CREAT | O_EXCL | TM_FILE_FLAGS,
				      0600);

	*ret_made = fd >= 0;
	if (fd < 0 && errno != EEXIST)
		return tm_file_fail(err, errno, "make", pool, SPARE);
	if (fd < 0)
		return tm_file_open(dir_fd, pool, SPARE, O_WRONLY, ret_st, err);
	*ret_st = (struct stat){ 0 };
	return TM_TAKE_FD(fd);
}

int tm_spare_keep(const struct tm_pool_record *pool, uint64_t bytes, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	struct stat st = { 0 };
	bool made = false;
	int r;

	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	/* On a full file system not even a directory can be made. */
	r = tm_copies_make_directory(pool, err);
	if (r < 0)
		return r;
	tm_auto_close int fd = open_spare(dir_fd, pool, &st, &made, err);
	if (fd < 0)
		return fd;
	if ((uint64_t)st.st_size >= bytes)
		return 0;
	r = tm_file_check_room(pool, dir_fd, bytes - (uint64_t)st.st_size, err);
	if (r >= 0) {
		r = allocate(fd, bytes);
		if (r < 0)
			r = tm_file_fail(err, -r, "allocate", pool, SPARE);
	}
	if (r < 0 && made)
		(void)unlinkat(dir_fd, SPARE, 0);
	else if (r < 0)
		(void)!ftruncate(fd, st.st_size);
	return r;
}

int tm_spare_use(int dir_fd, const struct tm_pool_record *pool, const char *name, uint64_t bytes,
		 struct tm_error *err)
{
	struct stat st = { 0 };
	int r = 0;

	tm_auto_close int fd = openat(dir_fd, SPARE, O_WRONLY | TM_FILE_FLAGS);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT,
				    "Nothing is set aside for pool %s.", pool->name);
	if ((uint64_t)st.st_size < bytes)
		r = tm_file_check_room(pool, dir_fd, bytes - (uint64_t)st.st_size, err);
	if (r < 0)
		return r;
	r = (uint64_t)st.st_size > bytes && ftruncate(fd, (off_t)bytes) < 0 ? -errno
									    : allocate(fd, bytes);
	if (r < 0)
		return tm_file_fail(err, -r, "allocate", pool, SPARE);
	return renameat(dir_fd, SPARE, dir_fd, name) < 0
		       ? tm_file_fail(err, errno, "rename", pool, SPARE)
		       : 0;
}

/*
 * All of it reads as zeroes, and stays allocated: on a full file system what is freed is not had
 * again.
 */
static int clear(int fd, uint64_t bytes)
{
	static const char zeroes[65536];

	if (fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, (off_t)bytes) == 0)
		return 0;
	for (uint64_t at = 0; at < bytes;) {
		const uint64_t left = bytes - at;
		ssize_t n = pwrite(fd, zeroes, left < sizeof(zeroes) ? left : sizeof(zeroes),
				   (off_t)at);

		if (n < 0 && errno != EINTR)
			return -errno;
		at += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

int tm_spare_give_back(int dir_fd, const struct tm_pool_record *pool, const char *name,
		       struct tm_error *err)
{
	tm_auto_close int fd = openat(dir_fd, name, O_WRONLY | TM_FILE_FLAGS);
	struct stat st = { 0 };

	/* What was left half made, or is known by another name, is not worth keeping. */
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
	    st.st_nlink == 1 && faccessat(dir_fd, SPARE, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
	    clear(fd, (uint64_t)st.st_size) == 0 &&
	    renameat2(dir_fd, name, dir_fd, SPARE, RENAME_NOREPLACE) == 0)
		return 0;
	return unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT
		       ? tm_file_fail(err, errno, "delete", pool, name)
		       : 0;
}

int tm_spare_drop(int dir_fd, const struct tm_pool_record *pool, struct tm_error *err)
{
	return unlinkat(dir_fd, SPARE, 0) < 0 && errno != ENOENT
		       ? tm_file_fail(err, errno, "delete", pool, SPARE)
		       : 0;
}
