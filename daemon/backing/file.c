// SPDX-License-Identifier: GPL-2.0-or-later
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "backing/backing.h"
#include "backing/copies.h"
#include "backing/fs.h"
#include "backing/internal.h"
#include "backing/loop.h"
#include "common/cleanup.h"
#include "common/units.h"

/* So much is allocated at a time at least, in so many pieces at most, with a pause after each. */
#define PIECE_BYTES (64 * TM_MIB)
#define PIECES      64
#define PAUSE_NSEC  500000

#define DESCRIPTOR_NAME      "pool.json"
#define DESCRIPTOR_TEMPORARY "pool.json.tmp" /* what an interrupted replacement leaves */

static const char *errno_text(int errnum)
{
	const char *text = strerrordesc_np(errnum);

	return text ? text : "Unknown error";
}

static const char *part_name(enum tm_part part)
{
	return part == TM_PART_DATA ? "data" : "metadata";
}

/* Metadata never meets a full file system, sparse pool or not: the pool would break. */
static bool preallocated(const struct tm_pool_record *pool, enum tm_part part)
{
	return part == TM_PART_METADATA || !pool->sparse;
}

/* ---- errors ------------------------------------------------------------------------------- */

int tm_file_fail(struct tm_error *err, int errnum, const char *what,
		 const struct tm_pool_record *pool, const char *name)
{
	enum tm_error_code code = TM_ERR_IO;
	const char *hint = NULL;
	int r;

	switch (errnum) {
	case ENOENT:
		code = TM_ERR_BACKING_GONE;
		hint = "mount the file system or put the file back, then try again";
		break;
	case ELOOP:
	case ENOTDIR:
		code = TM_ERR_BACKING_GONE;
		hint = "symbolic links are not followed here: give the real path";
		break;
	case ENOSPC:
	case EDQUOT:
		code = TM_ERR_NO_SPACE;
		hint = "free space in the file system, or make it larger";
		break;
	case EOPNOTSUPP:
		code = TM_ERR_UNSUPPORTED;
		hint = "the file system cannot allocate ahead: choose a directory on ext4 or XFS";
		break;
	case EFBIG:
		code = TM_ERR_UNSUPPORTED;
		hint = "the file system does not take a file that large";
		break;
	case EROFS:
		hint = "the file system is mounted read-only: look for errors in the kernel log";
		break;
	case ENOMEM:
		code = TM_ERR_NO_MEMORY;
		break;
	default:
		break;
	}
	r = tm_error_set(err, code, errnum, "cannot %s \"%.300s%s%s\": %s", what, pool->directory,
			 name ? "/" : "", name ? name : "", errno_text(errnum));
	if (hint)
		tm_error_hint(err, "%s", hint);
	return r;
}

int tm_file_not_regular(struct tm_error *err, const struct tm_pool_record *pool, const char *name)
{
	int r = tm_error_set(err, TM_ERR_BACKING_GONE, EINVAL,
			     "\"%.300s/%s\" is not a regular file", pool->directory, name);

	tm_error_hint(err, "put the pool's own file back in its place");
	return r;
}

static int no_room(struct tm_error *err, const struct tm_pool_record *pool, uint64_t need,
		   uint64_t room)
{
	char need_text[32], room_text[32];
	int r = tm_error_set(err, TM_ERR_NO_SPACE, ENOSPC,
			     "\"%.300s\" needs %s more, and its file system can give %s",
			     pool->directory, tm_size_format(need, need_text, sizeof(need_text)),
			     tm_size_format(room, room_text, sizeof(room_text)));

	tm_error_hint(err, "free space in the file system, make it larger, or ask for less; a part "
			   "of it is always left free");
	return r;
}

/* ---- opening ------------------------------------------------------------------------------ */

int tm_file_open_directory(const struct tm_pool_record *pool)
{
	int fd = open(pool->directory, TM_DIRECTORY_FLAGS);

	return fd < 0 ? -errno : fd;
}

/* A descriptor for the directory that holds the pool's, or -errno. */
static int open_parent(const struct tm_pool_record *pool)
{
	char parent[TM_PATH_SIZE];
	const char *slash = strrchr(pool->directory, '/');
	size_t len = slash ? (size_t)(slash - pool->directory) : 0;
	int fd;

	if (len >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, pool->directory, len);
	parent[len] = '\0';
	fd = open(len ? parent : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

int tm_file_open(int dir_fd, const struct tm_pool_record *pool, const char *name, int flags,
		 struct stat *ret_st, struct tm_error *err)
{
	tm_auto_close int fd = openat(dir_fd, name, flags | TM_FILE_FLAGS);

	if (fd < 0) {
		/* A symbolic link, a device or a pipe nobody reads is not the pool's file. */
		if (errno == ELOOP || errno == ENXIO)
			return tm_file_not_regular(err, pool, name);
		return tm_file_fail(err, errno, "open", pool, name);
	}
	if (fstat(fd, ret_st) < 0)
		return tm_file_fail(err, errno, "look at", pool, name);
	if (!S_ISREG(ret_st->st_mode))
		return tm_file_not_regular(err, pool, name);
	return TM_TAKE_FD(fd);
}

/* Open a part's file, which must be there and be a regular file. A descriptor, or a reported error.
 */
static int open_part(const struct tm_pool_record *pool, enum tm_part part, int flags,
		     struct stat *ret_st, struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);

	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	return tm_file_open(dir_fd, pool, part_name(part), flags, ret_st, err);
}

/* ---- space -------------------------------------------------------------------------------- */

/* Bytes the files' sizes promise and the file system has not given yet. */
static uint64_t promised_bytes(int dir_fd)
{
	uint64_t promised = 0;

	for (enum tm_part part = TM_PART_DATA; part <= TM_PART_METADATA; part++) {
		struct stat st = { 0 };

		if (fstatat(dir_fd, part_name(part), &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		uint64_t size = (uint64_t)st.st_size, held = (uint64_t)st.st_blocks * TM_SECTOR;

		if (S_ISREG(st.st_mode) && size > held)
			promised = tm_sat_add(promised, size - held);
	}
	return promised;
}

static int room(int dir_fd, uint64_t promised, uint64_t *ret)
{
	struct statvfs fs;

	if (fstatvfs(dir_fd, &fs) < 0)
		return -errno;
	*ret = tm_fs_room(tm_sat_mul(fs.f_blocks, fs.f_frsize),
			  tm_sat_mul(fs.f_bavail, fs.f_frsize), promised);
	return 0;
}

int tm_file_check_room(const struct tm_pool_record *pool, int dir_fd, uint64_t need,
		       struct tm_error *err)
{
	uint64_t have = 0;
	int r = room(dir_fd, 0, &have);

	if (r < 0)
		return tm_file_fail(err, -r, "see how much space there is for", pool, NULL);
	return need > have ? no_room(err, pool, need, have) : 0;
}

int tm_backing_free_bytes(const struct tm_pool_record *pool, uint64_t *ret_bytes,
			  struct tm_error *err)
{
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	int r;

	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	r = room(dir_fd, promised_bytes(dir_fd), ret_bytes);
	return r < 0 ? tm_file_fail(err, -r, "see how much space there is for", pool, NULL) : 0;
}

static uint64_t bytes_of_pool(const struct tm_pool_record *pool)
{
	uint64_t bytes = tm_sat_add(pool->metadata_bytes, pool->metadata_reserve_bytes);

	if (!pool->sparse)
		bytes = tm_sat_add(bytes, tm_sat_add(pool->data_bytes, pool->data_reserve_bytes));
	return bytes;
}

/* ---- the directory ------------------------------------------------------------------------ */

static void closedirp(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

/* What every directory has, and what mkfs puts into the root of a file system of its own. */
static bool belongs_to_file_system(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lost+found") == 0;
}

static int check_empty(const struct tm_pool_record *pool, int dir_fd, struct tm_error *err)
{
	struct stat st = { 0 };
	int r, fd;

	if (fstatat(dir_fd, DESCRIPTOR_NAME, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		r = tm_error_set(err, TM_ERR_EXISTS, EEXIST, "\"%.300s\" holds a pool already",
				 pool->directory);
		tm_error_hint(err, "take that pool in with \"thinmgr pool import\", or choose "
				   "another directory");
		return r;
	}
	fd = openat(dir_fd, ".", TM_DIRECTORY_FLAGS);
	if (fd < 0)
		return tm_file_fail(err, errno, "open", pool, NULL);
	tm_cleanup(closedirp) DIR *dir = fdopendir(fd);
	if (!dir) {
		r = -errno;
		(void)close(fd);
		return tm_file_fail(err, -r, "read", pool, NULL);
	}
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);

		if (!entry)
			return errno ? tm_file_fail(err, errno, "read", pool, NULL) : 0;
		if (belongs_to_file_system(entry->d_name))
			continue;
		r = tm_error_set(err, TM_ERR_EXISTS, EEXIST,
				 "\"%.300s\" is not empty: it has \"%.100s\"", pool->directory,
				 entry->d_name);
		tm_error_hint(err, "choose an empty directory, or one that does not exist yet");
		return r;
	}
}

/* Why the directory cannot be opened, for somebody who asked for a pool there. */
static int bad_directory(const struct tm_pool_record *pool, int errnum, struct tm_error *err)
{
	int r;

	if (errnum != ENOTDIR && errnum != ELOOP)
		return tm_error_set(err, TM_ERR_BAD_PATH, errnum, "cannot open \"%.300s\": %s",
				    pool->directory, errno_text(errnum));
	r = tm_error_set(err, TM_ERR_BAD_PATH, errnum,
			 "\"%.300s\" is a symbolic link or not a directory", pool->directory);
	tm_error_hint(err, "give the real path of a directory");
	return r;
}

static int bad_parent(const struct tm_pool_record *pool, int errnum, struct tm_error *err)
{
	int r = tm_error_set(err, TM_ERR_BAD_PATH, errnum,
			     "cannot make \"%.300s\": the directory above it: %s", pool->directory,
			     errno_text(errnum));

	tm_error_hint(err, "make the directory above it first, with mkdir -p");
	return r;
}

/* A file system fit for pools that can be written, seen through a directory on it. */
static int check_file_system(const struct tm_pool_record *pool, int dir_fd, struct tm_error *err)
{
	struct statfs fs;
	struct statvfs vfs;
	int r;

	if (fstatfs(dir_fd, &fs) < 0 || fstatvfs(dir_fd, &vfs) < 0)
		return tm_file_fail(err, errno, "look at the file system of", pool, NULL);
	/* f_type is signed and narrower on some machines. */
	r = tm_fs_check((uint32_t)fs.f_type, pool->sparse, pool->directory, err);
	if (r < 0)
		return r;
	if (vfs.f_flag & ST_RDONLY) {
		r = tm_error_set(err, TM_ERR_UNSUPPORTED, EROFS,
				 "\"%.300s\" is on a file system that is mounted read-only",
				 pool->directory);
		tm_error_hint(err, "mount it for writing, or allow the service to write there "
				   "(ReadWritePaths=)");
		return r;
	}
	if (faccessat(dir_fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
		r = tm_error_set(err, TM_ERR_BAD_PATH, errno, "\"%.300s\" cannot be written: %s",
				 pool->directory, errno_text(errno));
		tm_error_hint(err, "look at its permissions and attributes (ls -ld, lsattr -d)");
		return r;
	}
	return tm_file_check_room(pool, dir_fd, bytes_of_pool(pool), err);
}

int tm_backing_probe(const struct tm_pool_record *pool, struct tm_error *err)
{
	int r = tm_fs_check_path(pool->directory, err);

	if (r < 0)
		return r;
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	if (dir_fd == -ENOENT) {
		tm_auto_close int parent_fd = open_parent(pool);

		return parent_fd < 0 ? bad_parent(pool, -parent_fd, err)
				     : check_file_system(pool, parent_fd, err);
	}
	if (dir_fd < 0)
		return bad_directory(pool, -dir_fd, err);
	r = check_empty(pool, dir_fd, err);
	return r < 0 ? r : check_file_system(pool, dir_fd, err);
}

int tm_backing_create_dir(const struct tm_pool_record *pool, struct tm_error *err)
{
	int r = tm_fs_check_path(pool->directory, err);

	if (r < 0)
		return r;
	tm_auto_close int parent_fd = open_parent(pool);
	if (parent_fd < 0)
		return bad_parent(pool, -parent_fd, err);
	const bool made = mkdirat(parent_fd, last_part(pool->directory), 0700) == 0;
	if (!made && errno != EEXIST)
		return tm_file_fail(err, errno, "make", pool, NULL);
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	if (dir_fd < 0)
		return bad_directory(pool, -dir_fd, err);
	r = check_empty(pool, dir_fd, err);
	if (r < 0)
		return r;
	if (fsync(parent_fd) < 0)
		return tm_file_fail(err, errno, "sync the directory above", pool, NULL);
	return made;
}

/* ---- the files ---------------------------------------------------------------------------- */

void tm_backing_part_path(const struct tm_pool_record *pool, enum tm_part part,
			  char buf[TM_PATH_SIZE + 16])
{
	(void)snprintf(buf, TM_PATH_SIZE + 16, "%s/%s", pool->directory, part_name(part));
}

void tm_backing_descriptor_path(const char *directory, char buf[TM_PATH_SIZE + 16])
{
	(void)snprintf(buf, TM_PATH_SIZE + 16, "%s/" DESCRIPTOR_NAME, directory);
}

bool tm_backing_anything_left(const struct tm_pool_record *pool)
{
	static const char *const names[] = { "data", "metadata", DESCRIPTOR_NAME };
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	struct stat st;

	for (size_t i = 0; dir_fd >= 0 && i < TM_ARRAY_SIZE(names); i++)
		if (fstatat(dir_fd, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	return false;
}

/*
 * Make the file longer, its new space allocated or not. -errno; it may have grown in part. Only
 * what is new is allocated, so that a failure is undone by cutting it off; and in pieces, for
 * meanwhile the file system keeps others from writing to the file (ext4 needs 0.6 ms for 128 MiB).
 */
static int set_size(int fd, bool allocate, uint64_t from, uint64_t to)
{
	uint64_t most = tm_round_up((to - from) / PIECES, TM_MIB);

	if (most < PIECE_BYTES)
		most = PIECE_BYTES;
	while (from < to) {
		const uint64_t piece = !allocate || to - from < most ? to - from : most;
		int r = allocate ? fallocate(fd, 0, (off_t)from, (off_t)piece)
				 : ftruncate(fd, (off_t)to);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		from += piece;
		if (from < to)
			(void)nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NSEC }, NULL);
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* 0 when @bytes can be a file's size at all. */
static int check_bytes(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
		       struct tm_error *err)
{
	if (bytes == 0 || bytes % TM_SECTOR != 0 || bytes > INT64_MAX)
		return tm_error_set(err, TM_ERR_OUT_OF_RANGE, EINVAL,
				    "\"%.300s/%s\" cannot be %ju bytes long", pool->directory,
				    part_name(part), (uintmax_t)bytes);
	return 0;
}

/* Open a part's file for create_part, making it when it is not there. *ret_made tells. */
static int open_or_make(int dir_fd, const struct tm_pool_record *pool, const char *name,
			struct stat *ret_st, bool *ret_made, struct tm_error *err)
{
	tm_auto_close int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | TM_FILE_FLAGS,
				      0600);

	*ret_made = fd >= 0;
	if (fd < 0 && errno == EEXIST)
		fd = openat(dir_fd, name, O_RDWR | TM_FILE_FLAGS);
	if (fd < 0 && (errno == ELOOP || errno == ENXIO))
		return tm_file_not_regular(err, pool, name);
	if (fd < 0)
		return tm_file_fail(err, errno, "make", pool, name);
	if (fstat(fd, ret_st) < 0)
		return tm_file_fail(err, errno, "look at", pool, name);
	if (!S_ISREG(ret_st->st_mode))
		return tm_file_not_regular(err, pool, name);
	return TM_TAKE_FD(fd);
}

int tm_backing_create_part(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
			   struct tm_error *err)
{
	const char *name = part_name(part);
	const bool allocate = preallocated(pool, part);
	struct stat st = { 0 };
	bool made;
	int r = check_bytes(pool, part, bytes, err);

	if (r < 0)
		return r;
	tm_auto_close int dir_fd = tm_file_open_directory(pool);
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);
	tm_auto_close int fd = open_or_make(dir_fd, pool, name, &st, &made, err);
	if (fd < 0)
		return fd;
	if ((uint64_t)st.st_size > bytes) {
		r = tm_error_set(err, TM_ERR_EXISTS, EEXIST,
				 "\"%.300s/%s\" exists and is larger than the pool asked for",
				 pool->directory, name);
		tm_error_hint(err,
			      "choose another directory, or remove the file if nothing needs it");
		return r;
	}

	if ((uint64_t)st.st_size < bytes) {
		if (allocate)
			r = tm_file_check_room(pool, dir_fd, bytes - (uint64_t)st.st_size, err);
		if (r == 0) {
			r = set_size(fd, allocate, (uint64_t)st.st_size, bytes);
			if (r < 0)
				r = tm_file_fail(err, -r, "allocate", pool, name);
		}
	} else if (fsync(fd) < 0) {
		/* An earlier run may have been cut off before this. */
		r = tm_file_fail(err, errno, "sync", pool, name);
	}
	if (r == 0 && fsync(dir_fd) < 0)
		r = tm_file_fail(err, errno, "sync", pool, NULL);
	if (r < 0 && made)
		(void)unlinkat(dir_fd, name, 0);
	else if (r < 0)
		(void)!ftruncate(fd, st.st_size);
	return r;
}

/*
 * How large the loop device of a part shall be. Metadata is as long as its device is, so that must
 * be exact; of data the kernel takes what the pool's table says.
 */
static uint64_t loop_wish(int fd, enum tm_part part)
{
	struct statvfs fs;

	if (part != TM_PART_DATA || fstatvfs(fd, &fs) < 0)
		return 0;
	return tm_sat_mul(fs.f_blocks, fs.f_frsize);
}

/*
 * Tell the loop device that is known to be on the file, or all that are, that its size changed.
 * The known one is left in *ret_loop, the caller's to close.
 */
static int resize_loops(int fd, enum tm_part part, const char *path, unsigned int major,
			unsigned int minor, struct tm_loop *ret_loop, struct tm_error *err)
{
	if (major && tm_loop_known(fd, major, minor, loop_wish(fd, part), ret_loop) > 0)
		return 0;
	return tm_loop_resize(fd, path, err);
}

static int grow_part(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
		     unsigned int major, unsigned int minor, struct tm_loop *ret_loop,
		     uint64_t *ret_bytes, struct tm_error *err)
{
	const bool allocate = preallocated(pool, part);
	char path[TM_PATH_SIZE + 16];
	struct stat st = { 0 };
	uint64_t in_use, from;
	int r = check_bytes(pool, part, bytes, err);

	if (r < 0)
		return r;
	tm_backing_part_path(pool, part, path);
	tm_auto_close int fd = open_part(pool, part, O_RDWR, &st, err);
	if (fd < 0)
		return fd;
	/* To make it longer would only hide that its end is lost. */
	in_use = part == TM_PART_DATA ? pool->data_bytes : pool->metadata_bytes;
	from = tm_sat_add(in_use, part == TM_PART_DATA ? pool->data_reserve_bytes
						       : pool->metadata_reserve_bytes);
	if (from > (uint64_t)st.st_size)
		from = (uint64_t)st.st_size;
	if ((uint64_t)st.st_size < in_use && in_use <= bytes) {
		r = tm_error_set(err, TM_ERR_BACKING_GONE, EIO,
				 "\"%s\" has %ju bytes, but %ju are in use: it was cut short", path,
				 (uintmax_t)st.st_size, (uintmax_t)in_use);
		tm_error_hint(err, "what was behind its end is lost; restore it from a copy");
		return r;
	}
	if (allocate && bytes > (uint64_t)st.st_size) {
		r = tm_file_check_room(pool, fd, bytes - (uint64_t)st.st_size, err);
		if (r < 0)
			return r;
	}
	/* Where it is long enough an earlier run was cut off: before the loop devices grew, or with
	 * the file made longer for their sake. */
	if (bytes > (uint64_t)st.st_size || (allocate && bytes > from))
		r = set_size(fd, allocate, from, bytes);
	if (r < 0)
		r = tm_file_fail(err, -r, "grow", pool, part_name(part));
	else
		r = resize_loops(fd, part, path, major, minor, ret_loop, err);
	if (r < 0)
		(void)!ftruncate(fd, st.st_size);
	else
		*ret_bytes = bytes > (uint64_t)st.st_size ? bytes : (uint64_t)st.st_size;
	return r;
}

int tm_backing_grow_part(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
			 struct tm_error *err)
{
	struct tm_loop loop = { .fd = -1 };
	uint64_t now_bytes;

	return grow_part(pool, part, bytes, 0, 0, &loop, &now_bytes, err);
}

int tm_backing_shrink_part(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
			   struct tm_error *err)
{
	struct stat st = { 0 };
	int r = check_bytes(pool, part, bytes, err);

	if (r < 0)
		return r;
	tm_auto_close int fd = open_part(pool, part, O_RDWR, &st, err);
	if (fd < 0)
		return fd;
	if ((uint64_t)st.st_size > bytes && (ftruncate(fd, (off_t)bytes) < 0 || fsync(fd) < 0))
		return tm_file_fail(err, errno, "shrink", pool, part_name(part));
	return 0;
}

int tm_backing_part_size(const struct tm_pool_record *pool, enum tm_part part, uint64_t *ret_bytes,
			 struct tm_error *err)
{
	struct stat st = { 0 };
	tm_auto_close int fd = open_part(pool, part, O_RDONLY, &st, err);

	if (fd < 0)
		return fd;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

int tm_backing_read(const struct tm_pool_record *pool, enum tm_part part, void *buf, size_t len,
		    struct tm_error *err)
{
	struct stat st = { 0 };
	size_t done = 0;
	tm_auto_close int fd = open_part(pool, part, O_RDONLY, &st, err);

	if (fd < 0)
		return fd;
	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return tm_file_fail(err, errno, "read", pool, part_name(part));
		if (n == 0)
			return tm_error_set(err, TM_ERR_DAMAGED, ENODATA,
					    "\"%.300s/%s\" ends after %zu bytes", pool->directory,
					    part_name(part), done);
		done += (size_t)n;
	}
	return 0;
}

/* ---- attaching ---------------------------------------------------------------------------- */

void tm_attachment_done(struct tm_attachment *a)
{
	if (a->fd >= 0)
		(void)close(a->fd);
	a->fd = -1;
}

static struct tm_attachment attachment(const struct tm_loop *loop, uint64_t bytes)
{
	return (struct tm_attachment){
		.segment = {
			.major = loop->major,
			.minor = loop->minor,
			.length_sectors = bytes / TM_SECTOR,
			.room_sectors = loop->bytes / TM_SECTOR,
		},
		.fd = loop->fd,
		.direct_io = loop->direct_io,
	};
}

int tm_backing_attach(const struct tm_pool_record *pool, enum tm_part part,
		      struct tm_attachment *ret, struct tm_error *err)
{
	char path[TM_PATH_SIZE + 16];
	struct tm_loop loop = { .fd = -1 };
	struct stat st = { 0 };
	int r;

	*ret = (struct tm_attachment){ .fd = -1 };
	tm_backing_part_path(pool, part, path);
	tm_auto_close int fd = open_part(pool, part, O_RDWR, &st, err);
	if (fd < 0)
		return fd;
	r = tm_loop_attach(fd, path, loop_wish(fd, part), &loop, err);
	if (r < 0)
		return r;
	*ret = attachment(&loop, (uint64_t)st.st_size);
	return 0;
}

int tm_backing_grow_attached(const struct tm_pool_record *pool, enum tm_part part, uint64_t bytes,
			     unsigned int major, unsigned int minor, struct tm_attachment *ret,
			     struct tm_error *err)
{
	struct tm_loop loop = { .fd = -1 };
	uint64_t now_bytes = 0;
	int r = grow_part(pool, part, bytes, major, minor, &loop, &now_bytes, err);

	*ret = (struct tm_attachment){ .fd = -1 };
	if (r < 0)
		return r;
	if (loop.fd < 0)
		return tm_backing_attach(pool, part, ret, err);
	*ret = attachment(&loop, now_bytes);
	return 0;
}

/* ---- the end ------------------------------------------------------------------------------ */

/* Call @fn for a part's file if there is one. What is not a regular file was never attached. */
static int with_part(int dir_fd, const struct tm_pool_record *pool, enum tm_part part,
		     int (*fn)(int fd, const char *path, struct tm_error *err),
		     struct tm_error *err)
{
	char path[TM_PATH_SIZE + 16];
	struct stat st = { 0 };
	tm_auto_close int fd = openat(dir_fd, part_name(part), O_RDONLY | TM_FILE_FLAGS);

	if (fd < 0)
		return errno == ENOENT || errno == ELOOP || errno == ENXIO
			       ? 0
			       : tm_file_fail(err, errno, "open", pool, part_name(part));
	if (fstat(fd, &st) < 0)
		return tm_file_fail(err, errno, "look at", pool, part_name(part));
	if (!S_ISREG(st.st_mode))
		return 0;
	tm_backing_part_path(pool, part, path);
	return fn(fd, path, err);
}

int tm_backing_destroy(const struct tm_pool_record *pool, struct tm_error *err)
{
	static const char *const names[] = { "data", "metadata", DESCRIPTOR_TEMPORARY,
					     DESCRIPTOR_NAME };
	int r;
	tm_auto_close int dir_fd = tm_file_open_directory(pool);

	if (dir_fd == -ENOENT)
		return 0;
	if (dir_fd < 0)
		return tm_file_fail(err, -dir_fd, "open", pool, NULL);

	/* All are asked before one is changed. */
	for (enum tm_part part = TM_PART_DATA; part <= TM_PART_METADATA; part++) {
		r = with_part(dir_fd, pool, part, tm_loop_in_use, err);
		if (r > 0) {
			r = tm_error_set(err, TM_ERR_BUSY, EBUSY,
					 "\"%.300s/%s\" is still below an active device",
					 pool->directory, part_name(part));
			tm_error_hint(err,
				      "deactivate the pool; dmsetup ls --tree shows what uses it");
		}
		if (r < 0)
			return r;
	}
	for (enum tm_part part = TM_PART_DATA; part <= TM_PART_METADATA; part++) {
		r = with_part(dir_fd, pool, part, tm_loop_detach, err);
		if (r < 0)
			return r;
	}
	r = tm_copies_destroy(pool, err);
	if (r < 0)
		return r;
	/* The descriptor last: as long as anything is left, it says whose it is. */
	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++) {
		if (unlinkat(dir_fd, names[i], 0) < 0 && errno != ENOENT)
			return tm_file_fail(err, errno, "delete", pool, names[i]);
	}
	if (fsync(dir_fd) < 0)
		return tm_file_fail(err, errno, "sync", pool, NULL);

	/* Kept when somebody put other things there, or when it is a mount point. */
	if (rmdir(pool->directory) < 0 && errno != ENOTEMPTY && errno != EEXIST && errno != EBUSY &&
	    errno != ENOENT)
		return tm_file_fail(err, errno, "delete", pool, NULL);
	tm_auto_close int parent_fd = open_parent(pool);
	if (parent_fd >= 0 && fsync(parent_fd) < 0)
		return tm_file_fail(err, errno, "sync the directory above", pool, NULL);
	return 0;
}
