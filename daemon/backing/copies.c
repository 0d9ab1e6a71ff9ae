// SPDX-License-Identifier: GPL-2.0-or-later
#include "backing/copies.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "backing/internal.h"
#include "backing/spare.h"
#include "common/cleanup.h"
#include "common/units.h"

#define OLD  "metadata"
#define NEW  "metadata.new"
#define KEPT "kept"

/* "20261123T024512Z-": the beginning of a name. */
#define STAMP_LENGTH 17
/* Beside a name: at that time there was no metadata to be kept. */
#define NONE       ".none"
#define WHY_MAX    32
#define COPY_BYTES ((size_t)1 << 20)

/* ---- names -------------------------------------------------------------------------------- */

void tm_copies_new_path(const struct tm_pool_record *pool, char buf[TM_PATH_SIZE + 16])
{
	(void)snprintf(buf, TM_PATH_SIZE + 16, "%s/" NEW, pool->directory);
}

void tm_copies_kept_path(const struct tm_pool_record *pool, const char *name,
			 char buf[TM_PATH_SIZE + TM_COPY_NAME_SIZE + 16])
{
	(void)snprintf(buf, TM_PATH_SIZE + TM_COPY_NAME_SIZE + 16, "%s/" KEPT "/%s",
		       pool->directory, name);
}

static bool good_reason(const char *why)
{
	const size_t len = strlen(why);

	return len >= 1 && len <= WHY_MAX && strspn(why, "abcdefghijklmnopqrstuvwxyz-") == len;
}

int tm_copy_name(uint64_t realtime_usec, const char *why, char ret[TM_COPY_NAME_SIZE])
{
	const time_t seconds = (time_t)(realtime_usec / TM_USEC_PER_SEC);
	char stamp[STAMP_LENGTH + 1];
	struct tm utc;

	ret[0] = '\0';
	if (!good_reason(why) || !gmtime_r(&seconds, &utc) || utc.tm_year > 9999 - 1900 ||
	    strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ-", &utc) != STAMP_LENGTH)
		return -EINVAL;
	(void)snprintf(ret, TM_COPY_NAME_SIZE, "%s%s", stamp, why);
	return 0;
}

const char *tm_copy_why(const struct tm_copy *copy)
{
	return copy->name + STAMP_LENGTH;
}

bool tm_copy_is_dump(const struct tm_copy *copy)
{
	return strcmp(tm_copy_why(copy), TM_COPY_SAFETY) == 0;
}

/* The reverse: whether it is the name of something kept, and since when. */
static bool read_name(const char *name, struct tm_copy *ret)
{
	struct tm utc = { 0 };
	char again[TM_COPY_NAME_SIZE];
	const char *rest = strptime(name, "%Y%m%dT%H%M%SZ-", &utc);
	time_t seconds;

	if (!rest || rest - name != STAMP_LENGTH || !good_reason(rest))
		return false;
	seconds = timegm(&utc);
	*ret = (struct tm_copy){ .kept_usec = (uint64_t)seconds * TM_USEC_PER_SEC };
	/* Only what tm_copy_name makes: no 31st of February. */
	if (seconds < 0 || tm_copy_name(ret->kept_usec, rest, again) < 0 ||
	    strcmp(again, name) != 0)
		return false;
	(void)snprintf(ret->name, sizeof(ret->name), "%s", name);
	return true;
}

bool tm_copy_name_valid(const char *name)
{
	struct tm_copy parsed;

	return read_name(name, &parsed);
}

static void none_name(const char *name, char ret[TM_COPY_NAME_SIZE + sizeof(NONE)])
{
	(void)snprintf(ret, TM_COPY_NAME_SIZE + sizeof(NONE), "%s" NONE, name);
}

static int bad_name(const char *name, struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_BAD_NAME, EINVAL,
			    "\"%.100s\" is not the name of kept metadata", name);
}

/* The directory of what is kept, made where it is wanted. A descriptor; -ENOENT without a report.
 */
static int open_kept(int dir_fd, const struct tm_pool_record *pool, bool make, struct tm_error *err)
{
	int fd;

	if (make && mkdirat(dir_fd, KEPT, 0700) < 0 && errno != EEXIST)
		return tm_file_fail(err, errno, "make", pool, KEPT);
	fd = openat(dir_fd, KEPT, TM_DIRECTORY_FLAGS);
	if (fd < 0 && errno == ENOENT && !make)
		return -ENOENT;
	return fd < 0 ? tm_file_fail(err, errno, "open", pool, KEPT) : fd;
}

int tm_copies_make_directory(const struct tm_pool_record *pool, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);

	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	if (mkdirat(dir_fd, KEPT, 0700) < 0 && errno != EEXIST)
		return tm_file_fail(err, errno, "make", pool, KEPT);
	return 0;
}

static int not_kept(const struct tm_pool_record *pool, const char *name, struct tm_error *err)
{
	int r = tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT,
			     "Pool %s has no copy %s of its metadata.", pool->name, name);

	tm_error_hint(err, "Those there are: thinmgr pool copies %s", pool->name);
	return r;
}

/* ---- new metadata ------------------------------------------------------------------------- */

static int check_bytes(uint64_t bytes, struct tm_error *err)
{
	if (bytes == 0 || bytes % TM_SECTOR != 0 || bytes > INT64_MAX)
		return tm_error_set(err, TM_ERR_OUT_OF_RANGE, EINVAL,
				    "metadata cannot be %ju bytes long", (uintmax_t)bytes);
	return 0;
}

/* An empty file of that name, with room for @bytes behind it. A descriptor. */
static int make_empty(int dir_fd, const struct tm_pool_record *pool, uint64_t bytes,
		      struct tm_error *err)
{
	int fd, r;

	r = check_bytes(bytes, err);
	if (r < 0)
		return r;
	r = tm_spare_give_back(dir_fd, pool, NEW, err);
	if (r < 0)
		return r;
	r = tm_file_check_room(pool, dir_fd, bytes, err);
	/* What was set aside for this is only used up when there is nothing else. */
	if (r == -ENOSPC && tm_spare_use(dir_fd, pool, NEW, bytes, NULL) >= 0) {
		r = 0;
		if (err)
			*err = (struct tm_error){ 0 };
	}
	if (r < 0)
		return r;
	fd = openat(dir_fd, NEW, O_RDWR | O_CREAT | TM_FILE_FLAGS, 0600);
	return fd < 0 ? tm_file_fail(err, errno, "make", pool, NEW) : fd;
}

/* Its size, all of it allocated: the pool must never meet a full file system. */
static int allocate(int fd, uint64_t bytes)
{
	int r;

	do
		r = fallocate(fd, 0, 0, (off_t)bytes);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int tm_copies_make_new(const struct tm_pool_record *pool, uint64_t bytes, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	int r;

	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int fd = make_empty(dir_fd, pool, bytes, err);
	if (fd < 0)
		return fd;
	r = allocate(fd, bytes);
	if (r < 0) {
		r = tm_file_fail(err, -r, "allocate", pool, NEW);
		(void)tm_spare_give_back(dir_fd, pool, NEW, NULL);
	}
	return r;
}

/*
 * All of @from, @bytes of it, to the beginning of @to. -errno. By reading and writing: blocks that
 * a file system shares with the original would have to be allocated when one of them is written to.
 */
static int copy(int from, int to, uint64_t bytes)
{
	tm_auto_free char *buf = malloc(COPY_BYTES);
	uint64_t done = 0;

	if (!buf)
		return -ENOMEM;
	while (done < bytes) {
		ssize_t n = pread(from, buf, COPY_BYTES, (off_t)done), put = 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO; /* it became shorter */
		while (put < n) {
			ssize_t w = pwrite(to, buf + put, (size_t)(n - put), (off_t)done + put);

			if (w < 0 && errno != EINTR)
				return -errno;
			put += w > 0 ? w : 0;
		}
		done += (uint64_t)n;
	}
	return 0;
}

/* New metadata of @bytes with all that @from has, whose size is in @st. */
static int fill_new(int dir_fd, const struct tm_pool_record *pool, int from, const struct stat *st,
		    uint64_t bytes, struct tm_error *err)
{
	int r;

	if (bytes < (uint64_t)st->st_size)
		return tm_error_set(err, TM_ERR_OUT_OF_RANGE, EINVAL,
				    "%ju bytes are fewer than the metadata in \"%.300s\" has",
				    (uintmax_t)bytes, pool->directory);
	tm_auto_close int fd = make_empty(dir_fd, pool, bytes, err);
	if (fd < 0)
		return fd;
	r = allocate(fd, bytes);
	if (r >= 0)
		r = copy(from, fd, (uint64_t)st->st_size);
	if (r < 0) {
		r = tm_file_fail(err, -r, "copy the metadata to", pool, NEW);
		(void)tm_spare_give_back(dir_fd, pool, NEW, NULL);
	}
	return r;
}

int tm_copies_clone_new(const struct tm_pool_record *pool, uint64_t bytes, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	struct stat st = { 0 };

	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int old = tm_file_open(dir_fd, pool, OLD, O_RDONLY, &st, err);
	return old < 0 ? old : fill_new(dir_fd, pool, old, &st, bytes, err);
}

/* A descriptor of what is kept as @name, and what it is. */
static int open_copy(int dir_fd, const struct tm_pool_record *pool, const char *name,
		     struct stat *ret_st, struct tm_error *err)
{
	struct tm_copy parsed;

	if (!read_name(name, &parsed))
		return bad_name(name, err);
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int kept_fd = open_kept(dir_fd, pool, false, err);
	if (kept_fd == -ENOENT)
		return not_kept(pool, name, err);
	if (kept_fd < 0)
		return kept_fd;
	return tm_file_open(kept_fd, pool, name, O_RDONLY, ret_st, err);
}

int tm_copies_open(const struct tm_pool_record *pool, const char *name, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	struct stat st = { 0 };

	return open_copy(dir_fd, pool, name, &st, err);
}

int tm_copies_take_new(const struct tm_pool_record *pool, const char *name, uint64_t bytes,
		       struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	struct stat st = { 0 };
	tm_auto_close int from = open_copy(dir_fd, pool, name, &st, err);

	return from < 0 ? from : fill_new(dir_fd, pool, from, &st, bytes, err);
}

int tm_copies_drop_new(const struct tm_pool_record *pool, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);

	if (dir_fd == -ENOENT)
		return 0;
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	return tm_spare_give_back(dir_fd, pool, NEW, err);
}

/* ---- the place of the old ----------------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* 1: it is there, a regular file; 0: nothing has that name; or a reported error. */
static int look_at(int dir_fd, const struct tm_pool_record *pool, const char *name,
		   struct stat *ret, struct tm_error *err)
{
	if (fstatat(dir_fd, name, ret, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : tm_file_fail(err, errno, "look at", pool, name);
	return S_ISREG(ret->st_mode) ? 1 : tm_file_not_regular(err, pool, name);
}

static int sync_both(int kept_fd, int dir_fd, const struct tm_pool_record *pool,
		     struct tm_error *err)
{
	if (fsync(kept_fd) < 0)
		return tm_file_fail(err, errno, "sync", pool, KEPT);
	if (fsync(dir_fd) < 0)
		return tm_file_fail(err, errno, "sync", pool, NULL);
	return 0;
}

/* Remember that there is nothing to bring back. */
static int keep_none(int dir_fd, int kept_fd, const struct tm_pool_record *pool, const char *name,
		     struct tm_error *err)
{
	char none[TM_COPY_NAME_SIZE + sizeof(NONE)];
	tm_auto_close int fd = -1;

	none_name(name, none);
	fd = openat(kept_fd, none, O_WRONLY | O_CREAT | TM_FILE_FLAGS, 0600);
	if (fd < 0)
		return tm_file_fail(err, errno, "make", pool, none);
	return sync_both(kept_fd, dir_fd, pool, err);
}

/* Give the old metadata its second name. Fine when it has it. */
static int keep_old(int dir_fd, int kept_fd, const struct tm_pool_record *pool, const char *name,
		    struct tm_error *err)
{
	struct stat old, kept;
	int is_old, is_kept;

	is_old = look_at(dir_fd, pool, OLD, &old, err);
	is_kept = is_old < 0 ? is_old : look_at(kept_fd, pool, name, &kept, err);
	if (is_kept < 0)
		return is_kept;
	if (is_old && is_kept && same_file(&old, &kept))
		return 0;
	if (is_kept)
		return tm_error_set(err, TM_ERR_EXISTS, EEXIST,
				    "\"%.300s/" KEPT "/%s\" exists already", pool->directory, name);
	if (!is_old)
		return keep_none(dir_fd, kept_fd, pool, name, err);
	if (linkat(dir_fd, OLD, kept_fd, name, 0) < 0)
		return tm_file_fail(err, errno, "keep", pool, OLD);
	/* It has both names on disk before it loses the first. */
	return sync_both(kept_fd, dir_fd, pool, err);
}

/* 1: there is a note that nothing had to be kept under this name; 0 or a reported error. */
static int was_none(int kept_fd, const struct tm_pool_record *pool, const char *name,
		    struct tm_error *err)
{
	char none[TM_COPY_NAME_SIZE + sizeof(NONE)];
	struct stat st;

	none_name(name, none);
	return look_at(kept_fd, pool, none, &st, err);
}

int tm_copies_swap(const struct tm_pool_record *pool, const char *name, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	struct tm_copy parsed;
	struct stat st;
	int r;

	if (!read_name(name, &parsed))
		return bad_name(name, err);
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int kept_fd = open_kept(dir_fd, pool, true, err);
	if (kept_fd < 0)
		return kept_fd;
	r = look_at(dir_fd, pool, NEW, &st, err);
	if (r == 0) {
		r = look_at(kept_fd, pool, name, &st, err);
		if (r == 0)
			r = was_none(kept_fd, pool, name, err);
		if (r > 0) /* done before, but perhaps not yet durable */
			return sync_both(kept_fd, dir_fd, pool, err);
		return r < 0 ? r : tm_file_fail(err, ENOENT, "open", pool, NEW);
	}
	if (r < 0)
		return r;
	tm_auto_close int fd = tm_file_open(dir_fd, pool, NEW, O_RDWR, &st, err);
	if (fd < 0)
		return fd;
	if (fsync(fd) < 0)
		return tm_file_fail(err, errno, "sync", pool, NEW);
	r = keep_old(dir_fd, kept_fd, pool, name, err);
	if (r < 0)
		return r;
	if (renameat(dir_fd, NEW, dir_fd, OLD) < 0)
		return tm_file_fail(err, errno, "rename", pool, NEW);
	return sync_both(kept_fd, dir_fd, pool, err);
}

/* Where there was no metadata there shall be none again. */
static int back_to_none(int dir_fd, int kept_fd, const struct tm_pool_record *pool,
			const char *name, struct tm_error *err)
{
	char none[TM_COPY_NAME_SIZE + sizeof(NONE)];

	none_name(name, none);
	if (unlinkat(dir_fd, OLD, 0) < 0 && errno != ENOENT)
		return tm_file_fail(err, errno, "delete", pool, OLD);
	if (fsync(dir_fd) < 0)
		return tm_file_fail(err, errno, "sync", pool, NULL);
	if (unlinkat(kept_fd, none, 0) < 0)
		return tm_file_fail(err, errno, "delete", pool, none);
	return 0;
}

static int back_to_old(int dir_fd, int kept_fd, const struct tm_pool_record *pool, const char *name,
		       const struct stat *kept, struct tm_error *err)
{
	struct stat old;
	int is_old = look_at(dir_fd, pool, OLD, &old, err);
	int r;

	if (is_old < 0)
		return is_old;
	/* What took its place may have been the room for a repair: see tm_copies_drop_new. */
	if (is_old && !same_file(&old, kept) && renameat(dir_fd, OLD, dir_fd, NEW) < 0)
		return tm_file_fail(err, errno, "take back", pool, OLD);
	/* Renaming a file to another of its own names does nothing. */
	if (is_old && same_file(&old, kept))
		r = unlinkat(kept_fd, name, 0);
	else
		r = renameat(kept_fd, name, dir_fd, OLD);
	return r < 0 ? tm_file_fail(err, errno, "bring back", pool, OLD) : 0;
}

int tm_copies_swap_back(const struct tm_pool_record *pool, const char *name, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	struct tm_copy parsed;
	struct stat kept;
	int r;

	if (!read_name(name, &parsed))
		return bad_name(name, err);
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int kept_fd = open_kept(dir_fd, pool, false, err);
	if (kept_fd == -ENOENT)
		return tm_copies_drop_new(pool, err);
	if (kept_fd < 0)
		return kept_fd;
	r = look_at(kept_fd, pool, name, &kept, err);
	if (r > 0) {
		r = back_to_old(dir_fd, kept_fd, pool, name, &kept, err);
	} else if (r == 0) {
		r = was_none(kept_fd, pool, name, err);
		if (r > 0)
			r = back_to_none(dir_fd, kept_fd, pool, name, err);
	}
	if (r >= 0)
		r = sync_both(kept_fd, dir_fd, pool, err);
	return r < 0 ? r : tm_copies_drop_new(pool, err);
}

/* ---- safety copies ------------------------------------------------------------------------ */

int tm_copies_keep_packed(const struct tm_pool_record *pool, const char *name, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	int is_packed, is_kept;
	struct tm_copy parsed;
	struct stat st;

	if (!read_name(name, &parsed))
		return bad_name(name, err);
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int kept_fd = open_kept(dir_fd, pool, true, err);
	if (kept_fd < 0)
		return kept_fd;
	is_packed = look_at(dir_fd, pool, TM_PACKED_NAME, &st, err);
	is_kept = is_packed < 0 ? is_packed : look_at(kept_fd, pool, name, &st, err);
	if (is_kept < 0)
		return is_kept;
	if (is_packed && is_kept)
		return tm_error_set(err, TM_ERR_EXISTS, EEXIST,
				    "\"%.300s/" KEPT "/%s\" exists already", pool->directory, name);
	if (!is_packed && !is_kept)
		return tm_file_fail(err, ENOENT, "keep", pool, TM_PACKED_NAME);
	if (is_packed && renameat(dir_fd, TM_PACKED_NAME, kept_fd, name) < 0)
		return tm_file_fail(err, errno, "keep", pool, TM_PACKED_NAME);
	return sync_both(kept_fd, dir_fd, pool, err);
}

int tm_copies_drop_packed(const struct tm_pool_record *pool, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);

	if (dir_fd == -ENOENT)
		return 0;
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	if (unlinkat(dir_fd, TM_PACKED_NAME, 0) < 0 && errno != ENOENT)
		return tm_file_fail(err, errno, "delete", pool, TM_PACKED_NAME);
	return 0;
}

/* ---- what is kept ------------------------------------------------------------------------- */

static void closedirp(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

/* The older first; of the same second by name. */
static int by_age(const void *a, const void *b)
{
	return strcmp(((const struct tm_copy *)a)->name, ((const struct tm_copy *)b)->name);
}

static int add(struct tm_copy **list, size_t *n, const struct tm_copy *one)
{
	struct tm_copy *more = reallocarray(*list, *n + 1, sizeof(**list));

	if (!more)
		return -ENOMEM;
	*list = more;
	more[(*n)++] = *one;
	return 0;
}

/* Whether it is a note that there was none: its name without the ending, then. */
static bool read_none(const char *name, struct tm_copy *ret)
{
	const size_t len = strlen(name), end = sizeof(NONE) - 1;
	char stem[TM_COPY_NAME_SIZE];

	if (len <= end || len - end >= sizeof(stem) || strcmp(name + len - end, NONE) != 0)
		return false;
	memcpy(stem, name, len - end);
	stem[len - end] = '\0';
	return read_name(stem, ret);
}

static int list_kept(const struct tm_pool_record *pool, bool notes, struct tm_copy **ret,
		     size_t *ret_n, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	tm_auto_free struct tm_copy *list = NULL;
	size_t n = 0;
	int fd;

	*ret = NULL;
	*ret_n = 0;
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	fd = open_kept(dir_fd, pool, false, err);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	tm_cleanup(closedirp) DIR *dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	}
	for (;;) {
		const struct dirent *entry;
		struct tm_copy one;
		struct stat st;

		errno = 0;
		entry = readdir(dir);
		if (!entry && errno)
			return tm_file_fail(err, errno, "read", pool, KEPT);
		if (!entry)
			break;
		if (!read_name(entry->d_name, &one) && !(notes && read_none(entry->d_name, &one)))
			continue;
		if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode))
			continue;
		one.bytes = (uint64_t)st.st_size;
		if (add(&list, &n, &one) < 0)
			return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	}
	if (n)
		qsort(list, n, sizeof(*list), by_age);
	*ret = TM_TAKE(list);
	*ret_n = n;
	return 0;
}

int tm_copies_find(const struct tm_pool_record *pool, const char *name, struct tm_copy *ret,
		   struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	struct stat st;
	int r;

	if (!read_name(name, ret))
		return bad_name(name, err);
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int kept_fd = open_kept(dir_fd, pool, false, err);
	if (kept_fd < 0)
		return kept_fd == -ENOENT ? not_kept(pool, name, err) : kept_fd;
	r = look_at(kept_fd, pool, name, &st, err);
	if (r <= 0)
		return r < 0 ? r : not_kept(pool, name, err);
	ret->bytes = (uint64_t)st.st_size;
	return 0;
}

int tm_copies_list(const struct tm_pool_record *pool, struct tm_copy **ret, size_t *ret_n,
		   struct tm_error *err)
{
	return list_kept(pool, false, ret, ret_n, err);
}

int tm_copies_remove(const struct tm_pool_record *pool, const char *name, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	char none[TM_COPY_NAME_SIZE + sizeof(NONE)];
	struct tm_copy parsed;

	if (!read_name(name, &parsed))
		return bad_name(name, err);
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int kept_fd = open_kept(dir_fd, pool, false, err);
	if (kept_fd < 0)
		return kept_fd == -ENOENT ? 0 : kept_fd;
	none_name(name, none);
	if (unlinkat(kept_fd, name, 0) < 0 && errno != ENOENT)
		return tm_file_fail(err, errno, "delete", pool, name);
	if (unlinkat(kept_fd, none, 0) < 0 && errno != ENOENT)
		return tm_file_fail(err, errno, "delete", pool, none);
	return 0;
}

int tm_copies_destroy(const struct tm_pool_record *pool, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	tm_auto_free struct tm_copy *list = NULL;
	size_t n;
	int r;

	if (dir_fd == -ENOENT)
		return 0;
	r = tm_copies_drop_new(pool, err);
	if (r >= 0)
		r = tm_spare_drop(dir_fd, pool, err);
	if (r >= 0)
		r = tm_copies_drop_packed(pool, err);
	if (r >= 0)
		r = list_kept(pool, true, &list, &n, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		r = tm_copies_remove(pool, list[i].name, err);
		if (r < 0)
			return r;
	}
	/* Not what somebody else put there. */
	if (unlinkat(dir_fd, KEPT, AT_REMOVEDIR) < 0 && errno != ENOENT && errno != ENOTEMPTY &&
	    errno != EEXIST && errno != ENOTDIR)
		return tm_file_fail(err, errno, "delete", pool, KEPT);
	return 0;
}
