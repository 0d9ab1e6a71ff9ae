// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Every call of dm/dm.h and backing/backing.h against a real kernel.
 *
 *     dm-exercise [DIRECTORY]
 *
 * DIRECTORY (/var/tmp) must be on ext4 or XFS with 512 MiB free. Needs root, and says so with
 * status 77 when the kernel has no device-mapper. Ends at the first check that fails; what it made
 * is then left for a look.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

#include "backing/backing.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/log.h"
#include "common/units.h"
#include "dm/dm.h"

#define STATUS_SKIPPED 77

#define POOL_ID    "THINMGR-00112233445566778899aabbccddeeff-"
#define DATA_BYTES (64 * TM_MIB)
#define META_BYTES (4 * TM_MIB)
#define BLOCK      (64 * TM_KIB)

struct exercise {
	struct tm_dm *dm;
	char base[512]; /* everything happens below this directory */
	struct tm_pool_record pool;
	struct tm_attachment data, meta;
	unsigned int checks;
};

/* ---- checking ----------------------------------------------------------------------------- */

static void check(struct exercise *x, bool ok, int line, const char *what,
		  const struct tm_error *err)
{
	x->checks++;
	if (ok)
		return;
	printf("FAILED at line %d: %s\n", line, what);
	if (err && err->code)
		printf("  error %s (%d): %s\n  hint: %s\n", tm_error_slug(err->code), err->errnum,
		       err->detail, err->hint);
	exit(EXIT_FAILURE);
}

#define CHECK(x, condition) check((x), (condition), __LINE__, #condition, NULL)

/* @call uses &err. It succeeds without saying anything. */
#define OK(x, call)                                                              \
	do {                                                                     \
		struct tm_error err = { 0 };                                     \
		int _r = (call);                                                 \
		check((x), _r >= 0 && err.code == TM_OK, __LINE__, #call, &err); \
	} while (0)

/* @call fails with @errnum and @error, in words. */
#define FAILS(x, errnum_, error, call)                                                      \
	do {                                                                                \
		struct tm_error err = { 0 };                                                \
		int _r = (call);                                                            \
		if (_r >= 0)                                                                \
			printf("returned %d\n", _r);                                        \
		check((x),                                                                  \
		      _r == -(errnum_) && err.code == (error) && err.errnum == (errnum_) && \
			      err.detail[0],                                                \
		      __LINE__, #call, &err);                                               \
		printf("    says: %s\n", err.detail);                                       \
	} while (0)

static void chapter(const char *title)
{
	printf("- %s\n", title);
	(void)fflush(stdout);
}

static void pause_ms(long ms)
{
	(void)nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

static int run(char *const argv[])
{
	extern char **environ;
	int status = -1;
	pid_t pid;

	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0 ||
	    waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A number from a sysfs file of a block device, or -1. */
static long long queue_number(unsigned int major_nr, unsigned int minor_nr, const char *attribute)
{
	char path[128];
	tm_auto_free char *text = NULL;
	size_t len;

	(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major_nr, minor_nr,
		       attribute);
	return tm_read_file(path, 4096, &text, &len) < 0 ? -1 : strtoll(text, NULL, 10);
}

static struct tm_pool_record pool_at(const char *directory, const char *name)
{
	struct tm_pool_record pool = {
		.block_bytes = BLOCK,
		.data_bytes = DATA_BYTES,
		.metadata_bytes = META_BYTES,
	};

	(void)snprintf(pool.directory, sizeof(pool.directory), "%s%s%s", directory,
		       name[0] ? "/" : "", name);
	return pool;
}

static void part_stat(struct exercise *x, const struct tm_pool_record *pool, enum tm_part part,
		      struct stat *st)
{
	char path[TM_PATH_SIZE + 16];

	tm_backing_part_path(pool, part, path);
	CHECK(x, lstat(path, st) == 0);
}

/* ---- backing ------------------------------------------------------------------------------ */

static void make_files(struct exercise *x)
{
	struct tm_pool_record *pool = &x->pool;
	char zeroes[4096] = { 0 }, head[4096];
	uint64_t bytes, before, after;
	struct stat st;

	chapter("a pool's files: probed, made, found as made");
	OK(x, tm_backing_probe(pool, &err));
	CHECK(x, access(pool->directory, F_OK) < 0);
	OK(x, tm_backing_create_dir(pool, &err));
	OK(x, tm_backing_create_dir(pool, &err));
	CHECK(x, lstat(pool->directory, &st) == 0 && (st.st_mode & 07777) == 0700);
	OK(x, tm_backing_probe(pool, &err));
	OK(x, tm_backing_free_bytes(pool, &before, &err));
	for (int i = 0; i < 2; i++) {
		OK(x, tm_backing_create_part(pool, TM_PART_DATA, DATA_BYTES, &err));
		OK(x, tm_backing_create_part(pool, TM_PART_METADATA, META_BYTES, &err));
	}
	OK(x, tm_backing_free_bytes(pool, &after, &err));
	CHECK(x, before >= after + DATA_BYTES);
	part_stat(x, pool, TM_PART_DATA, &st);
	CHECK(x, (st.st_mode & 07777) == 0600);
	CHECK(x, (uint64_t)st.st_size == DATA_BYTES);
	CHECK(x, (uint64_t)st.st_blocks * 512 >= DATA_BYTES);
	OK(x, tm_backing_part_size(pool, TM_PART_METADATA, &bytes, &err));
	CHECK(x, bytes == META_BYTES);
	OK(x, tm_backing_read(pool, TM_PART_METADATA, head, sizeof(head), &err));
	CHECK(x, memcmp(head, zeroes, sizeof(head)) == 0);
	FAILS(x, EEXIST, TM_ERR_EXISTS, tm_backing_probe(pool, &err));
	FAILS(x, EEXIST, TM_ERR_EXISTS, tm_backing_create_part(pool, TM_PART_DATA, BLOCK, &err));
}

static uint64_t device_bytes(struct exercise *x, int fd)
{
	uint64_t bytes = 0;

	CHECK(x, ioctl(fd, BLKGETSIZE64, &bytes) == 0);
	return bytes;
}

static void attach(struct exercise *x)
{
	struct tm_pool_record *pool = &x->pool;
	struct tm_attachment again;
	struct statvfs fs;
	struct stat st;
	uint64_t room;

	chapter("loop devices: attached, found again, grown");
	OK(x, tm_backing_attach(pool, TM_PART_DATA, &x->data, &err));
	OK(x, tm_backing_attach(pool, TM_PART_METADATA, &x->meta, &err));
	CHECK(x, x->data.segment.minor != x->meta.segment.minor);
	CHECK(x, x->data.segment.offset_sectors == 0);
	CHECK(x, x->data.segment.length_sectors == DATA_BYTES / 512);
	CHECK(x, x->data.direct_io && x->meta.direct_io);
	CHECK(x, queue_number(x->data.segment.major, x->data.segment.minor, "loop/dio") == 1);
	CHECK(x, queue_number(x->data.segment.major, x->data.segment.minor, "loop/autoclear") == 1);
	/* Metadata's is as long as its file; that of data need never grow. */
	CHECK(x, device_bytes(x, x->meta.fd) == META_BYTES);
	CHECK(x, x->meta.segment.room_sectors == META_BYTES / 512);
	CHECK(x, statvfs(pool->directory, &fs) == 0);
	room = (uint64_t)fs.f_blocks * fs.f_frsize / 4096 * 4096;
	CHECK(x, room > 3 * DATA_BYTES);
	CHECK(x, device_bytes(x, x->data.fd) == room);
	CHECK(x, x->data.segment.room_sectors == room / 512);
	part_stat(x, pool, TM_PART_DATA, &st);
	CHECK(x, (uint64_t)st.st_size == DATA_BYTES);

	OK(x, tm_backing_attach(pool, TM_PART_DATA, &again, &err));
	CHECK(x, again.segment.major == x->data.segment.major &&
			 again.segment.minor == x->data.segment.minor);
	CHECK(x, again.direct_io);
	tm_attachment_done(&again);
	CHECK(x, again.fd == -1);
	tm_attachment_done(&again);

	for (int i = 0; i < 2; i++) {
		OK(x, tm_backing_grow_part(pool, TM_PART_DATA, 2 * DATA_BYTES, &err));
		OK(x, tm_backing_grow_part(pool, TM_PART_METADATA, 2 * META_BYTES, &err));
		CHECK(x, device_bytes(x, x->data.fd) == room);
		CHECK(x, device_bytes(x, x->meta.fd) == 2 * META_BYTES);
	}
	OK(x, tm_backing_grow_part(pool, TM_PART_METADATA, META_BYTES, &err));
	CHECK(x, device_bytes(x, x->meta.fd) == 2 * META_BYTES);
	OK(x, tm_backing_shrink_part(pool, TM_PART_METADATA, META_BYTES, &err));

	/* Somebody had the loop device ask for its file's size: it is made large again. */
	CHECK(x, ioctl(x->data.fd, LOOP_SET_CAPACITY, 0) == 0);
	CHECK(x, device_bytes(x, x->data.fd) == 2 * DATA_BYTES);
	OK(x, tm_backing_grow_attached(pool, TM_PART_DATA, 2 * DATA_BYTES, x->data.segment.major,
				       x->data.segment.minor, &again, &err));
	CHECK(x, device_bytes(x, x->data.fd) == room);
	CHECK(x, again.segment.length_sectors == 2 * DATA_BYTES / 512);
	tm_attachment_done(&again);

	/*
	 * A stop between the two sizes that the file has for that: what is allocated is no more
	 * than was, until it is asked for.
	 */
	char path[TM_PATH_SIZE + 16];
	tm_backing_part_path(pool, TM_PART_DATA, path);
	CHECK(x, truncate(path, (off_t)room) == 0);
	OK(x, tm_backing_grow_part(pool, TM_PART_DATA, 3 * DATA_BYTES, &err));
	part_stat(x, pool, TM_PART_DATA, &st);
	CHECK(x, (uint64_t)st.st_size == room);
	CHECK(x, (uint64_t)st.st_blocks * 512 >= 3 * DATA_BYTES);
	CHECK(x, (uint64_t)st.st_blocks * 512 < 4 * DATA_BYTES);
	OK(x, tm_backing_shrink_part(pool, TM_PART_DATA, 3 * DATA_BYTES, &err));
	part_stat(x, pool, TM_PART_DATA, &st);
	CHECK(x, (uint64_t)st.st_size == 3 * DATA_BYTES);
	CHECK(x, (uint64_t)st.st_blocks * 512 >= 3 * DATA_BYTES);
	CHECK(x, device_bytes(x, x->data.fd) == room);
}

static void bad_places(struct exercise *x)
{
	struct tm_pool_record pool;
	struct tm_attachment a;
	char path[TM_PATH_SIZE + 16], other[TM_PATH_SIZE];
	uint64_t bytes;

	chapter("places that are refused");
	pool = pool_at("relative", "");
	FAILS(x, EINVAL, TM_ERR_BAD_PATH, tm_backing_probe(&pool, &err));
	pool = pool_at(x->base, "no/where");
	FAILS(x, ENOENT, TM_ERR_BAD_PATH, tm_backing_probe(&pool, &err));
	FAILS(x, ENOENT, TM_ERR_BAD_PATH, tm_backing_create_dir(&pool, &err));

	pool = pool_at(x->base, "link");
	CHECK(x, symlink(x->base, pool.directory) == 0);
	FAILS(x, ENOTDIR, TM_ERR_BAD_PATH, tm_backing_probe(&pool, &err));
	FAILS(x, ENOTDIR, TM_ERR_BAD_PATH, tm_backing_create_dir(&pool, &err));
	FAILS(x, ENOTDIR, TM_ERR_BACKING_GONE,
	      tm_backing_create_part(&pool, TM_PART_DATA, BLOCK, &err));

	pool = pool_at(x->base, "huge");
	pool.data_bytes = 1024 * TM_TIB;
	FAILS(x, ENOSPC, TM_ERR_NO_SPACE, tm_backing_probe(&pool, &err));

	pool = pool_at(x->base, "tmp");
	CHECK(x, mkdir(pool.directory, 0700) == 0);
	CHECK(x, mount("none", pool.directory, "tmpfs", 0, NULL) == 0);
	FAILS(x, EOPNOTSUPP, TM_ERR_UNSUPPORTED, tm_backing_probe(&pool, &err));
	CHECK(x, umount(pool.directory) == 0);
	CHECK(x, mount(pool.directory, pool.directory, NULL, MS_BIND, NULL) == 0);
	CHECK(x, mount(NULL, pool.directory, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
	FAILS(x, EROFS, TM_ERR_UNSUPPORTED, tm_backing_probe(&pool, &err));
	FAILS(x, EROFS, TM_ERR_IO, tm_backing_create_part(&pool, TM_PART_DATA, BLOCK, &err));
	CHECK(x, umount(pool.directory) == 0);

	chapter("files that are gone or are something else");
	FAILS(x, ENOENT, TM_ERR_BACKING_GONE,
	      tm_backing_part_size(&pool, TM_PART_DATA, &bytes, &err));
	FAILS(x, ENOENT, TM_ERR_BACKING_GONE, tm_backing_attach(&pool, TM_PART_DATA, &a, &err));
	CHECK(x, a.fd == -1);
	FAILS(x, ENOENT, TM_ERR_BACKING_GONE,
	      tm_backing_grow_part(&pool, TM_PART_DATA, BLOCK, &err));
	tm_backing_part_path(&pool, TM_PART_DATA, path);
	CHECK(x, mkfifo(path, 0600) == 0);
	FAILS(x, EINVAL, TM_ERR_BACKING_GONE, tm_backing_attach(&pool, TM_PART_DATA, &a, &err));
	CHECK(x, unlink(path) == 0);
	(void)snprintf(other, sizeof(other), "%s/other", x->base);
	CHECK(x, symlink(other, path) == 0);
	FAILS(x, EINVAL, TM_ERR_BACKING_GONE, tm_backing_attach(&pool, TM_PART_DATA, &a, &err));
	FAILS(x, EINVAL, TM_ERR_BACKING_GONE,
	      tm_backing_create_part(&pool, TM_PART_DATA, BLOCK, &err));
	CHECK(x, access(other, F_OK) < 0);
	OK(x, tm_backing_destroy(&pool, &err));
	OK(x, tm_backing_destroy(&pool, &err));
	CHECK(x, access(pool.directory, F_OK) < 0);
	FAILS(x, ENOENT, TM_ERR_BACKING_GONE, tm_backing_free_bytes(&pool, &bytes, &err));
}

/* A file system of 96 MiB of its own, on the loop device of a pool's metadata file. */
static void full_disk(struct exercise *x)
{
	struct tm_pool_record host = pool_at(x->base, "small"), pool;
	struct tm_attachment a;
	char device[32], target[TM_PATH_SIZE], filler[TM_PATH_SIZE + 16];
	struct stat st;
	uint64_t bytes, have, left;

	chapter("a full disk");
	OK(x, tm_backing_create_dir(&host, &err));
	OK(x, tm_backing_create_part(&host, TM_PART_METADATA, 96 * TM_MIB, &err));
	OK(x, tm_backing_attach(&host, TM_PART_METADATA, &a, &err));
	(void)snprintf(device, sizeof(device), "/dev/loop%u", a.segment.minor);
	char *const mkfs[] = { (char *)"mke2fs", (char *)"-Fq", (char *)"-t",
			       (char *)"ext4",   device,        NULL };
	CHECK(x, run(mkfs) == 0);
	(void)snprintf(target, sizeof(target), "%s/mnt", x->base);
	CHECK(x, mkdir(target, 0700) == 0);
	CHECK(x, mount(device, target, "ext4", 0, NULL) == 0);

	/* lost+found does not make it a directory in use. */
	pool = pool_at(target, "");
	pool.data_bytes = 16 * TM_MIB;
	OK(x, tm_backing_probe(&pool, &err));
	pool = pool_at(target, "p");
	pool.data_bytes = 90 * TM_MIB;
	FAILS(x, ENOSPC, TM_ERR_NO_SPACE, tm_backing_probe(&pool, &err));
	pool.sparse = true;
	OK(x, tm_backing_probe(&pool, &err));
	pool.sparse = false;
	pool.data_bytes = 16 * TM_MIB;
	OK(x, tm_backing_probe(&pool, &err));
	OK(x, tm_backing_create_dir(&pool, &err));
	OK(x, tm_backing_free_bytes(&pool, &have, &err));
	CHECK(x, have > 40 * TM_MIB && have < 80 * TM_MIB);
	FAILS(x, ENOSPC, TM_ERR_NO_SPACE,
	      tm_backing_create_part(&pool, TM_PART_DATA, have + TM_MIB, &err));
	tm_backing_part_path(&pool, TM_PART_DATA, filler);
	CHECK(x, access(filler, F_OK) < 0);
	OK(x, tm_backing_create_part(&pool, TM_PART_DATA, 16 * TM_MIB, &err));

	/* Somebody else takes the rest: growth is refused and nothing has changed. */
	(void)snprintf(filler, sizeof(filler), "%s/filler", target);
	int fd = open(filler, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(x, fd >= 0 && fallocate(fd, 0, 0, (off_t)(have - 20 * TM_MIB)) == 0);
	CHECK(x, close(fd) == 0);
	FAILS(x, ENOSPC, TM_ERR_NO_SPACE,
	      tm_backing_grow_part(&pool, TM_PART_DATA, 32 * TM_MIB, &err));
	OK(x, tm_backing_part_size(&pool, TM_PART_DATA, &bytes, &err));
	CHECK(x, bytes == 16 * TM_MIB);
	part_stat(x, &pool, TM_PART_DATA, &st);
	CHECK(x, (uint64_t)st.st_blocks * 512 < 17 * TM_MIB);

	/* A sparse file's promise counts as taken. */
	pool.sparse = true;
	OK(x, tm_backing_free_bytes(&pool, &have, &err));
	OK(x, tm_backing_grow_part(&pool, TM_PART_DATA, 18 * TM_MIB, &err));
	OK(x, tm_backing_free_bytes(&pool, &left, &err));
	CHECK(x, left <= have - 2 * TM_MIB);
	OK(x, tm_backing_grow_part(&pool, TM_PART_DATA, 64 * TM_MIB, &err));
	OK(x, tm_backing_free_bytes(&pool, &left, &err));
	CHECK(x, left == 0);
	OK(x, tm_backing_destroy(&pool, &err));
	CHECK(x, umount(target) == 0);
	tm_attachment_done(&a);
	OK(x, tm_backing_destroy(&host, &err));
	CHECK(x, rmdir(target) == 0);
}

/* ---- device-mapper ------------------------------------------------------------------------ */

static void load_linear(struct exercise *x, const char *name, const struct tm_segment *segment,
			uint64_t bytes, bool read_only)
{
	char params[64];
	struct tm_dm_target target = { 0, bytes / 512, "linear", params };

	(void)snprintf(params, sizeof(params), "%u:%u %ju", segment->major, segment->minor,
		       (uintmax_t)segment->offset_sectors);
	OK(x, tm_dm_load(x->dm, name, &target, 1, read_only, &err));
}

static struct tm_dm_info info(struct exercise *x, const char *name)
{
	struct tm_dm_info i;

	OK(x, tm_dm_info(x->dm, name, &i, &err));
	return i;
}

/* Wait for udev, where it runs, to have made a link. */
static bool link_appears(const char *path)
{
	if (access("/run/udev/control", F_OK) < 0)
		return true;
	for (int i = 0; i < 500; i++) {
		if (access(path, F_OK) == 0)
			return true;
		pause_ms(20);
	}
	return false;
}

/* What udev's database says of a device, once it knows it. */
static bool udev_has(const struct tm_dm_info *i, const char *line)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/run/udev/data/b%u:%u", i->major, i->minor);
	for (int k = 0; k < 500; k++) {
		tm_auto_free char *text = NULL;
		size_t len;

		if (tm_read_file(path, 65536, &text, &len) == 0 && strstr(text, "E:DM_NAME="))
			return strstr(text, line) != NULL;
		pause_ms(20);
	}
	return false;
}

static void linear(struct exercise *x)
{
	struct tm_dm *dm = x->dm;
	struct tm_dm_target bad = { 0, 8, "linear", "no such thing" };
	struct tm_dm_target split[2] = { { 0, 2048, "linear", NULL },
					 { 2048, 2048, "linear", NULL } };
	char type[16], params[256], piece[2][64];
	struct tm_dm_info i;
	uint64_t sectors;

	chapter("a linear device");
	CHECK(x, !info(x, "ex:_data").exists);
	FAILS(x, ENXIO, TM_ERR_KERNEL, tm_dm_suspend(dm, "ex:_data", 0, &err));
	FAILS(x, ENXIO, TM_ERR_KERNEL, tm_dm_resume(dm, "ex:_data", 0, TM_DM_UDEV_HIDDEN, &err));
	FAILS(x, ENXIO, TM_ERR_KERNEL, tm_dm_remove(dm, "ex:_data", TM_DM_UDEV_HIDDEN, 1000, &err));
	FAILS(x, ENXIO, TM_ERR_KERNEL, tm_dm_message(dm, "ex:_data", "x", &err));
	FAILS(x, ENXIO, TM_ERR_KERNEL, tm_dm_rename(dm, "ex:_data", "ex:_else", &err));
	FAILS(x, ENXIO, TM_ERR_KERNEL, tm_dm_load(dm, "ex:_data", &bad, 1, false, &err));
	FAILS(x, ENXIO, TM_ERR_KERNEL, tm_dm_clear(dm, "ex:_data", &err));
	FAILS(x, ENXIO, TM_ERR_KERNEL,
	      tm_dm_line(dm, "ex:_data", true, type, sizeof(type), NULL, params, sizeof(params),
			 &err));
	FAILS(x, EINVAL, TM_ERR_BAD_NAME,
	      tm_dm_create(dm, "ex/data", "x", TM_DM_UDEV_HIDDEN, &err));

	OK(x, tm_dm_create(dm, "ex:_data", POOL_ID "data", TM_DM_UDEV_HIDDEN, &err));
	FAILS(x, EBUSY, TM_ERR_EXISTS,
	      tm_dm_create(dm, "ex:_data", "another", TM_DM_UDEV_HIDDEN, &err));
	FAILS(x, EBUSY, TM_ERR_EXISTS,
	      tm_dm_create(dm, "another", POOL_ID "data", TM_DM_UDEV_HIDDEN, &err));
	i = info(x, "ex:_data");
	CHECK(x, i.exists && !i.live_table && !i.inactive_table && i.open_count == 0);
	CHECK(x, strcmp(i.uuid, POOL_ID "data") == 0);
	FAILS(x, ENODATA, TM_ERR_KERNEL,
	      tm_dm_line(dm, "ex:_data", false, type, sizeof(type), NULL, params, sizeof(params),
			 &err));
	FAILS(x, EINVAL, TM_ERR_KERNEL, tm_dm_load(dm, "ex:_data", &bad, 1, false, &err));
	FAILS(x, EINVAL, TM_ERR_KERNEL, tm_dm_load(dm, "ex:_data", NULL, 0, false, &err));
	bad.type = "no-such-target";
	FAILS(x, EINVAL, TM_ERR_KERNEL, tm_dm_load(dm, "ex:_data", &bad, 1, false, &err));

	load_linear(x, "ex:_data", &x->data.segment, DATA_BYTES, false);
	CHECK(x, info(x, "ex:_data").inactive_table);
	OK(x, tm_dm_clear(dm, "ex:_data", &err));
	CHECK(x, !info(x, "ex:_data").inactive_table);
	load_linear(x, "ex:_data", &x->data.segment, DATA_BYTES, false);
	OK(x, tm_dm_resume(dm, "ex:_data", 0, TM_DM_UDEV_HIDDEN, &err));
	i = info(x, "ex:_data");
	CHECK(x, i.live_table && !i.inactive_table && !i.suspended && !i.read_only);
	CHECK(x, link_appears("/dev/mapper/ex:_data"));
	if (access("/run/udev/control", F_OK) == 0)
		CHECK(x, udev_has(&i, "E:DM_UDEV_DISABLE_OTHER_RULES_FLAG=1"));

	OK(x, tm_dm_line(dm, "ex:_data", true, type, sizeof(type), &sectors, params, sizeof(params),
			 &err));
	CHECK(x, strcmp(type, "linear") == 0 && sectors == DATA_BYTES / 512);
	CHECK(x, strtoul(params, NULL, 10) == x->data.segment.major);
	OK(x, tm_dm_line(dm, "ex:_data", false, NULL, 0, NULL, params, sizeof(params), &err));
	CHECK(x, params[0] == '\0');
	FAILS(x, EMSGSIZE, TM_ERR_KERNEL,
	      tm_dm_line(dm, "ex:_data", true, type, 3, NULL, params, sizeof(params), &err));
	/* A linear device takes no message. */
	FAILS(x, EINVAL, TM_ERR_KERNEL, tm_dm_message(dm, "ex:_data", "hello", &err));

	chapter("several targets, read-only, suspended");
	for (size_t k = 0; k < 2; k++) {
		(void)snprintf(piece[k], sizeof(piece[k]), "%u:%u %zu", x->data.segment.major,
			       x->data.segment.minor, k * 8192);
		split[k].params = piece[k];
	}
	OK(x, tm_dm_create(dm, "ex:other", POOL_ID "vol-ffeeddccbbaa99887766554433221100",
			   TM_DM_UDEV_FULL, &err));
	OK(x, tm_dm_load(dm, "ex:other", split, 2, true, &err));
	OK(x, tm_dm_resume(dm, "ex:other", TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_FULL, &err));
	i = info(x, "ex:other");
	CHECK(x, i.read_only && i.live_table);
	CHECK(x, queue_number(i.major, i.minor, "size") == 4096);
	CHECK(x, link_appears("/dev/mapper/ex:other"));
	if (access("/run/udev/control", F_OK) == 0)
		CHECK(x, !udev_has(&i, "E:DM_UDEV_DISABLE_OTHER_RULES_FLAG=1"));
	for (unsigned int f = 0; f < 4; f++) {
		OK(x, tm_dm_suspend(dm, "ex:other", f, &err));
		CHECK(x, info(x, "ex:other").suspended);
		OK(x, tm_dm_suspend(dm, "ex:other", f, &err));
		OK(x, tm_dm_resume(dm, "ex:other", f, TM_DM_UDEV_FULL, &err));
		CHECK(x, !info(x, "ex:other").suspended);
	}

	chapter("renamed, busy, removed");
	FAILS(x, EBUSY, TM_ERR_EXISTS, tm_dm_rename(dm, "ex:other", "ex:_data", &err));
	OK(x, tm_dm_rename(dm, "ex:other", "ex:new.name-1", &err));
	CHECK(x, !info(x, "ex:other").exists && info(x, "ex:new.name-1").exists);
	CHECK(x, link_appears("/dev/mapper/ex:new.name-1"));
	if (access("/run/udev/control", F_OK) == 0) {
		char *const settle[] = { (char *)"udevadm", (char *)"settle", NULL };

		CHECK(x, run(settle) == 0);
		CHECK(x, access("/dev/mapper/ex:other", F_OK) < 0);
	}
	{
		char node[32];

		(void)snprintf(node, sizeof(node), "/dev/dm-%u", i.minor);
		tm_auto_close int fd = open(node, O_RDONLY | O_CLOEXEC);
		CHECK(x, fd >= 0);
		CHECK(x, info(x, "ex:new.name-1").open_count == 1);
		uint64_t begin = tm_now_monotonic_usec();
		FAILS(x, EBUSY, TM_ERR_BUSY,
		      tm_dm_remove(dm, "ex:new.name-1", TM_DM_UDEV_FULL, 300, &err));
		CHECK(x, tm_now_monotonic_usec() - begin >= 300 * TM_USEC_PER_MSEC);
	}
	OK(x, tm_dm_remove(dm, "ex:new.name-1", TM_DM_UDEV_FULL, 5000, &err));
	CHECK(x, !info(x, "ex:new.name-1").exists);
}

static bool readable(struct exercise *x, int timeout_ms)
{
	struct pollfd p = { .fd = tm_dm_poll_fd(x->dm), .events = POLLIN };
	int n = poll(&p, 1, timeout_ms);

	CHECK(x, n >= 0);
	return n > 0 && (p.revents & POLLIN);
}

static struct tm_dm_entry entry(struct exercise *x, const char *name)
{
	tm_auto_free struct tm_dm_entry *list = NULL;
	struct tm_dm_entry found = { 0 };
	size_t n;

	OK(x, tm_dm_list(x->dm, &list, &n, &err));
	for (size_t i = 0; i < n; i++) {
		if (strcmp(list[i].name, name) == 0)
			found = list[i];
	}
	return found;
}

static void load_pool(struct exercise *x, uint64_t bytes, uint64_t low_water_blocks)
{
	char params[128];
	struct tm_dm_target target = { 0, bytes / 512, "thin-pool", params };
	struct tm_dm_info data = info(x, "ex:_data"), meta = info(x, "ex:_meta");

	(void)snprintf(params, sizeof(params), "%u:%u %u:%u %ju %ju 1 no_discard_passdown",
		       meta.major, meta.minor, data.major, data.minor, (uintmax_t)(BLOCK / 512),
		       (uintmax_t)low_water_blocks);
	OK(x, tm_dm_load(x->dm, "ex:_pool", &target, 1, false, &err));
}

static void thin_pool(struct exercise *x)
{
	struct tm_dm *dm = x->dm;
	struct tm_dm_target thin = { 0, TM_GIB / 512, "thin", NULL };
	struct tm_dm_info i;
	struct tm_dm_entry before, after;
	char params[256], type[16], node[32], thin_params[32];
	uint64_t sectors;
	unsigned int version[3] = { 0 };
	void *buffer = NULL;

	chapter("a thin pool: messages, volumes");
	FAILS(x, ENOENT, TM_ERR_TARGET_MISSING,
	      tm_dm_target_version(dm, "no-such-target", version, &err));
	OK(x, tm_dm_create(dm, "ex:_meta", POOL_ID "meta", TM_DM_UDEV_HIDDEN, &err));
	load_linear(x, "ex:_meta", &x->meta.segment, META_BYTES, false);
	OK(x, tm_dm_resume(dm, "ex:_meta", 0, TM_DM_UDEV_HIDDEN, &err));
	/* dm-linear holds the loop devices now. */
	tm_attachment_done(&x->data);
	tm_attachment_done(&x->meta);
	OK(x, tm_dm_create(dm, "ex:_pool", POOL_ID "pool", TM_DM_UDEV_HIDDEN, &err));
	load_pool(x, DATA_BYTES, 512);
	OK(x, tm_dm_target_version(dm, "thin-pool", version, &err));
	CHECK(x, version[0] == 1 && version[1] > 0);
	OK(x, tm_dm_resume(dm, "ex:_pool", 0, TM_DM_UDEV_HIDDEN, &err));
	OK(x, tm_dm_message(dm, "ex:_pool", "create_thin 7", &err));
	FAILS(x, EEXIST, TM_ERR_EXISTS, tm_dm_message(dm, "ex:_pool", "create_thin 7", &err));
	FAILS(x, ENODATA, TM_ERR_KERNEL, tm_dm_message(dm, "ex:_pool", "delete 8", &err));
	FAILS(x, EINVAL, TM_ERR_KERNEL, tm_dm_message(dm, "ex:_pool", "nonsense", &err));
	OK(x, tm_dm_message(dm, "ex:_pool", "set_transaction_id 0 1", &err));

	i = info(x, "ex:_pool");
	(void)snprintf(thin_params, sizeof(thin_params), "%u:%u 7", i.major, i.minor);
	thin.params = thin_params;
	printf("    pool: write_zeroes_max_bytes %lld\n",
	       queue_number(i.major, i.minor, "queue/write_zeroes_max_bytes"));
	OK(x, tm_dm_create(dm, "ex:vol", POOL_ID "vol-00000000000000000000000000000001",
			   TM_DM_UDEV_FULL, &err));
	OK(x, tm_dm_load(dm, "ex:vol", &thin, 1, false, &err));
	OK(x, tm_dm_resume(dm, "ex:vol", 0, TM_DM_UDEV_FULL, &err));
	CHECK(x, link_appears("/dev/mapper/ex:vol"));

	chapter("events: armed, quiet, low water, seen in the list");
	OK(x, tm_dm_poll_arm(dm, &err));
	CHECK(x, !readable(x, 200));
	before = entry(x, "ex:_pool");
	CHECK(x, before.event_nr_valid);
	CHECK(x, before.uuid[0] == '\0' || strcmp(before.uuid, POOL_ID "pool") == 0);
	CHECK(x, before.major == i.major && before.minor == i.minor);
	CHECK(x, entry(x, "ex:vol").name[0] && !entry(x, "ex:none").name[0]);
	CHECK(x, !readable(x, 0));

	(void)snprintf(node, sizeof(node), "/dev/dm-%u", info(x, "ex:vol").minor);
	tm_auto_close int fd = open(node, O_RDWR | O_DIRECT | O_CLOEXEC);
	CHECK(x, fd >= 0);
	CHECK(x, posix_memalign(&buffer, 4096, TM_MIB) == 0);
	memset(buffer, 0x5a, TM_MIB);
	/* Low water is 512 of 1024 blocks: crossed after 32 MiB. */
	for (uint64_t at = 0; at < 34 * TM_MIB; at += TM_MIB)
		CHECK(x, pwrite(fd, buffer, TM_MIB, (off_t)at) == (ssize_t)TM_MIB);
	CHECK(x, readable(x, 5000));
	after = entry(x, "ex:_pool");
	CHECK(x, after.event_nr == before.event_nr + 1);
	CHECK(x, info(x, "ex:_pool").event_nr == after.event_nr);
	/* Looking does not arm. */
	CHECK(x, readable(x, 0));
	OK(x, tm_dm_poll_arm(dm, &err));
	CHECK(x, !readable(x, 0));

	chapter("status without a commit, and the pool grown under load");
	OK(x, tm_dm_line(dm, "ex:_pool", false, type, sizeof(type), &sectors, params,
			 sizeof(params), &err));
	CHECK(x, strcmp(type, "thin-pool") == 0 && sectors == DATA_BYTES / 512);
	printf("    %s\n", params);
	CHECK(x, strstr(params, " 544/1024 ") && strncmp(params, "1 ", 2) == 0);
	FAILS(x, EBUSY, TM_ERR_BUSY, tm_dm_remove(dm, "ex:_pool", TM_DM_UDEV_HIDDEN, 0, &err));
	FAILS(x, EBUSY, TM_ERR_BUSY, tm_backing_destroy(&x->pool, &err));

	tm_auto_close int loop_fd = -1;
	{
		struct tm_attachment a;

		OK(x, tm_backing_attach(&x->pool, TM_PART_DATA, &a, &err));
		CHECK(x, a.segment.length_sectors == 3 * DATA_BYTES / 512);
		load_linear(x, "ex:_data", &a.segment, 3 * DATA_BYTES, false);
		tm_attachment_done(&a);
	}
	OK(x,
	   tm_dm_resume(dm, "ex:_data", TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_HIDDEN, &err));
	load_pool(x, 3 * DATA_BYTES, 512);
	uint64_t begin = tm_now_monotonic_usec();
	OK(x,
	   tm_dm_resume(dm, "ex:_pool", TM_DM_NOFLUSH | TM_DM_NOLOCKFS, TM_DM_UDEV_HIDDEN, &err));
	printf("    the larger table was live after %ju us\n",
	       (uintmax_t)(tm_now_monotonic_usec() - begin));
	OK(x, tm_dm_line(dm, "ex:_pool", false, NULL, 0, &sectors, params, sizeof(params), &err));
	CHECK(x, sectors == 3 * DATA_BYTES / 512 && strstr(params, " 544/3072 "));
	for (uint64_t at = 34 * TM_MIB; at < 80 * TM_MIB; at += TM_MIB)
		CHECK(x, pwrite(fd, buffer, TM_MIB, (off_t)at) == (ssize_t)TM_MIB);
	free(buffer);

	chapter("preallocated space stays with the pool");
	struct stat st;
	part_stat(x, &x->pool, TM_PART_DATA, &st);
	/* 2 * DATA_BYTES were preallocated; the last third was made by truncate above. */
	CHECK(x, (uint64_t)st.st_blocks * 512 >= 2 * DATA_BYTES);
}

/* ---- threads ------------------------------------------------------------------------------ */

struct worker {
	struct exercise *x;
	unsigned int number;
	struct tm_segment segment;
	struct tm_error err;
	int result;
};

static int cycle(struct worker *w)
{
	char name[32], other[32], uuid[64], params[64], line[128];
	struct tm_dm_target target = { 0, 2048, "linear", params };
	struct tm_dm *dm = w->x->dm;
	struct tm_dm_info i;
	int r;

	(void)snprintf(name, sizeof(name), "ex:t%u", w->number);
	(void)snprintf(other, sizeof(other), "ex:u%u", w->number);
	(void)snprintf(uuid, sizeof(uuid), "THINMGR-thread-%u", w->number);
	(void)snprintf(params, sizeof(params), "%u:%u %u", w->segment.major, w->segment.minor,
		       2048 * w->number);
	r = tm_dm_create(dm, name, uuid, TM_DM_UDEV_HIDDEN, &w->err);
	if (r == 0)
		r = tm_dm_load(dm, name, &target, 1, false, &w->err);
	if (r == 0)
		r = tm_dm_resume(dm, name, 0, TM_DM_UDEV_HIDDEN, &w->err);
	if (r == 0)
		r = tm_dm_rename(dm, name, other, &w->err);
	if (r == 0)
		r = tm_dm_line(dm, other, true, NULL, 0, NULL, line, sizeof(line), &w->err);
	if (r == 0)
		r = tm_dm_info(dm, other, &i, &w->err);
	if (r == 0)
		r = tm_dm_remove(dm, other, TM_DM_UDEV_HIDDEN, 10000, &w->err);
	return r;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < 20 && w->result == 0; i++)
		w->result = cycle(w);
	return NULL;
}

static void threads(struct exercise *x)
{
	struct worker workers[4];
	pthread_t ids[TM_ARRAY_SIZE(workers)];
	struct tm_attachment a;

	chapter("four threads at once");
	OK(x, tm_backing_attach(&x->pool, TM_PART_DATA, &a, &err));
	for (unsigned int i = 0; i < TM_ARRAY_SIZE(workers); i++) {
		workers[i] = (struct worker){ .x = x, .number = i, .segment = a.segment };
		CHECK(x, pthread_create(&ids[i], NULL, work, &workers[i]) == 0);
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(workers); i++)
		CHECK(x, pthread_join(ids[i], NULL) == 0);
	for (size_t i = 0; i < TM_ARRAY_SIZE(workers); i++)
		check(x, workers[i].result == 0, __LINE__, "a thread's cycle", &workers[i].err);
	tm_attachment_done(&a);
}

/* More devices than one list buffer holds. */
static void long_list(struct exercise *x)
{
	char name[128], uuid[128];
	size_t n, before;
	struct tm_dm_entry *list;

	chapter("a list of three hundred devices");
	OK(x, tm_dm_list(x->dm, &list, &before, &err));
	free(list);
	for (int i = 0; i < 300; i++) {
		(void)snprintf(name, sizeof(name), "ex:%0100d", i);
		(void)snprintf(uuid, sizeof(uuid), "THINMGR-%0100d", i);
		OK(x, tm_dm_create(x->dm, name, uuid, TM_DM_UDEV_HIDDEN, &err));
	}
	for (int i = 0; i < 3; i++) {
		uint64_t begin = tm_now_monotonic_usec();

		OK(x, tm_dm_list(x->dm, &list, &n, &err));
		printf("    listed in %ju us\n", (uintmax_t)(tm_now_monotonic_usec() - begin));
		CHECK(x, n == before + 300);
		free(list);
	}
	for (int i = 0; i < 300; i++) {
		(void)snprintf(name, sizeof(name), "ex:%0100d", i);
		OK(x, tm_dm_remove(x->dm, name, TM_DM_UDEV_HIDDEN, 5000, &err));
	}
}

/* ---- the end ------------------------------------------------------------------------------ */

/* Loop devices on files below a directory. */
static int loops_below(const char *directory)
{
	int n = 0;
	glob_t g;

	if (glob("/sys/block/loop*/loop/backing_file", 0, NULL, &g) != 0)
		return 0;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		tm_auto_free char *text = NULL;
		size_t len;

		if (tm_read_file(g.gl_pathv[i], 4096, &text, &len) == 0)
			n += strncmp(text, directory, strlen(directory)) == 0;
	}
	globfree(&g);
	return n;
}

static void take_down(struct exercise *x)
{
	static const char *const names[] = { "ex:vol", "ex:_pool", "ex:_meta", "ex:_data" };
	struct tm_attachment a;

	chapter("taken down, and nothing left");
	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++) {
		OK(x, tm_dm_remove(x->dm, names[i], i == 0 ? TM_DM_UDEV_FULL : TM_DM_UDEV_HIDDEN,
				   10000, &err));
		CHECK(x, !info(x, names[i]).exists);
	}
	/* The loop devices cleared themselves: attaching makes new ones. */
	OK(x, tm_backing_attach(&x->pool, TM_PART_DATA, &a, &err));
	OK(x, tm_backing_destroy(&x->pool, &err));
	tm_attachment_done(&a);
	OK(x, tm_backing_destroy(&x->pool, &err));
	CHECK(x, access(x->pool.directory, F_OK) < 0);

	/* Descriptors of ours that programs started by the daemon would inherit. */
	for (int fd = 3; fd < 256; fd++) {
		int flags = fcntl(fd, F_GETFD);

		CHECK(x, flags < 0 || (flags & FD_CLOEXEC));
	}

	/* udev may still be looking at a loop device; it is detached when the last user closes it.
	 */
	for (int i = 0; i < 250 && loops_below(x->base) > 0; i++)
		pause_ms(20);
	CHECK(x, loops_below(x->base) == 0);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

int main(int argc, char **argv)
{
	struct exercise x = { .data.fd = -1, .meta.fd = -1 };
	struct tm_error err = { 0 };

	if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
		printf("usage: dm-exercise [DIRECTORY]\n");
		return 2;
	}
	tm_log_init(LOG_INFO);
	if (tm_dm_new(&x.dm, &err) < 0) {
		printf("skipped: %s (%s)\n", err.detail, err.hint);
		return STATUS_SKIPPED;
	}
	(void)snprintf(x.base, sizeof(x.base), "%s/dm-exercise.XXXXXX",
		       argc == 2 ? argv[1] : "/var/tmp");
	if (!mkdtemp(x.base)) {
		perror(x.base);
		return EXIT_FAILURE;
	}
	x.pool = pool_at(x.base, "pool");

	make_files(&x);
	bad_places(&x);
	full_disk(&x);
	attach(&x);
	linear(&x);
	thin_pool(&x);
	threads(&x);
	long_list(&x);
	take_down(&x);

	x.dm = tm_dm_free(x.dm);
	(void)nftw(x.base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	printf("%u checks passed\n", x.checks);
	return EXIT_SUCCESS;
}
