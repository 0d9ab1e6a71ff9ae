// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Files as backing, as far as no loop device is needed (tests/tools/dm-exercise.c has those), on
 * whatever file system the build runs on.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "backing/backing.h"
#include "backing/fs.h"
#include "common/cleanup.h"
#include "common/units.h"
#include "skip.h"

/* ---- decisions ---------------------------------------------------------------------------- */

static void margin(void **state)
{
	static const struct {
		uint64_t fs, margin;
	} table[] = {
		{ 0, 16 * TM_MIB },
		{ TM_GIB, 16 * TM_MIB },
		{ 1600 * TM_MIB, 16 * TM_MIB },
		{ 3200 * TM_MIB, 32 * TM_MIB },
		{ 100 * TM_GIB, TM_GIB },
		{ 101 * TM_GIB, TM_GIB },
		{ UINT64_MAX, TM_GIB },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(table); i++)
		assert_int_equal(tm_backing_margin(table[i].fs), table[i].margin);
}

static void room(void **state)
{
	static const struct {
		uint64_t fs, available, promised, room;
	} table[] = {
		{ TM_GIB, 0, 0, 0 },
		{ TM_GIB, 16 * TM_MIB - 1, 0, 0 },
		{ TM_GIB, 16 * TM_MIB, 0, 0 },
		{ TM_GIB, 16 * TM_MIB + 1, 0, 1 },
		{ TM_GIB, 100 * TM_MIB, 0, 84 * TM_MIB },
		{ TM_GIB, 100 * TM_MIB, 80 * TM_MIB, 4 * TM_MIB },
		{ TM_GIB, 100 * TM_MIB, 84 * TM_MIB, 0 },
		{ TM_GIB, 100 * TM_MIB, UINT64_MAX, 0 },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(table); i++)
		assert_int_equal(tm_fs_room(table[i].fs, table[i].available, table[i].promised),
				 table[i].room);
}

static void file_systems(void **state)
{
	static const struct {
		uint64_t magic;
		enum tm_fs_verdict verdict;
		const char *name;
		bool fine, fine_sparse;
	} table[] = {
		{ EXT4_SUPER_MAGIC, TM_FS_FINE, "", true, true },
		{ XFS_SUPER_MAGIC, TM_FS_FINE, "", true, true },
		{ TMPFS_MAGIC, TM_FS_MEMORY, "tmpfs", false, false },
		{ RAMFS_MAGIC, TM_FS_MEMORY, "ramfs", false, false },
		{ NFS_SUPER_MAGIC, TM_FS_NETWORK, "NFS", false, false },
		{ 0xFF534D42, TM_FS_NETWORK, "CIFS", false, false },
		{ OVERLAYFS_SUPER_MAGIC, TM_FS_STACKED, "overlay", false, false },
		{ FUSE_SUPER_MAGIC, TM_FS_STACKED, "FUSE", false, false },
		{ MSDOS_SUPER_MAGIC, TM_FS_IMAGE, "FAT", false, false },
		{ PROC_SUPER_MAGIC, TM_FS_PSEUDO, "proc", false, false },
		{ BTRFS_SUPER_MAGIC, TM_FS_SPARSE, "Btrfs", false, true },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(table); i++) {
		struct tm_error err = { 0 };
		const char *name;

		assert_int_equal(tm_fs_verdict(table[i].magic, &name), table[i].verdict);
		assert_string_equal(name, table[i].name);
		assert_int_equal(tm_fs_check(table[i].magic, true, "/x", NULL),
				 table[i].fine_sparse ? 0 : -EOPNOTSUPP);
		assert_int_equal(tm_fs_check(table[i].magic, false, "/x", &err),
				 table[i].fine ? 0 : -EOPNOTSUPP);
		if (table[i].fine)
			continue;
		assert_int_equal(err.code, TM_ERR_UNSUPPORTED);
		assert_non_null(strstr(err.detail, "\"/x\""));
		assert_non_null(strstr(err.detail, name));
		assert_int_not_equal(err.hint[0], 0);
	}
}

static void paths(void **state)
{
	static const char *const good[] = { "/a",     "/srv/pools/a", "/a/.b",
					    "/a/..b", "/a/b..",       "/a b" };
	static const char *const bad[] = { "",      "a",      "./a",   "/",     "//a", "/a/",
					   "/a//b", "/a/./b", "/a/..", "/../a", "/a/." };
	char path[TM_PATH_SIZE + 1];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(good); i++)
		assert_int_equal(tm_fs_check_path(good[i], NULL), 0);
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		struct tm_error err = { 0 };

		assert_int_equal(tm_fs_check_path(bad[i], &err), -EINVAL);
		assert_int_equal(err.code, TM_ERR_BAD_PATH);
		assert_int_not_equal(err.hint[0], 0);
	}
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[TM_PATH_SIZE] = '\0';
	assert_int_equal(tm_fs_check_path(path, NULL), -EINVAL);
	path[TM_PATH_SIZE - 1] = '\0';
	assert_int_equal(tm_fs_check_path(path, NULL), 0);
}

/* ---- files -------------------------------------------------------------------------------- */

struct place {
	char base[256];
	struct tm_pool_record pool; /* in <base>/pool, which is not there yet */
};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	(void)snprintf(p->base, sizeof(p->base), "/var/tmp/test-backing.XXXXXX");
	if (!mkdtemp(p->base)) {
		free(p);
		return -1;
	}
	(void)snprintf(p->pool.directory, sizeof(p->pool.directory), "%s/pool", p->base);
	p->pool.data_bytes = 4 * TM_MIB;
	p->pool.metadata_bytes = 2 * TM_MIB;
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;
	int r = nftw(p->base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);

	free(p);
	return r;
}

/* On a build machine whose files lie on overlay or tmpfs there is nothing to see here. */
static void needs_fit_file_system(const struct place *p)
{
	struct statfs fs;

	assert_int_equal(statfs(p->base, &fs), 0);
	if (tm_fs_check((uint32_t)fs.f_type, false, p->base, NULL) < 0)
		TM_SKIP("file pools cannot lie on this file system");
}

static void make(struct place *p)
{
	assert_true(tm_backing_create_dir(&p->pool, NULL) >= 0);
	assert_int_equal(tm_backing_create_part(&p->pool, TM_PART_DATA, 4 * TM_MIB, NULL), 0);
	assert_int_equal(tm_backing_create_part(&p->pool, TM_PART_METADATA, 2 * TM_MIB, NULL), 0);
}

static struct stat part_stat(const struct place *p, enum tm_part part)
{
	char path[TM_PATH_SIZE + 16];
	struct stat st;

	tm_backing_part_path(&p->pool, part, path);
	assert_int_equal(lstat(path, &st), 0);
	return st;
}

static void path_names(void **state)
{
	struct place *p = *state;
	char path[TM_PATH_SIZE + 16], want[512];

	tm_backing_part_path(&p->pool, TM_PART_DATA, path);
	(void)snprintf(want, sizeof(want), "%s/pool/data", p->base);
	assert_string_equal(path, want);
	tm_backing_part_path(&p->pool, TM_PART_METADATA, path);
	(void)snprintf(want, sizeof(want), "%s/pool/metadata", p->base);
	assert_string_equal(path, want);
	tm_backing_descriptor_path("/x", path);
	assert_string_equal(path, "/x/pool.json");
}

static void life(void **state)
{
	struct place *p = *state;
	uint64_t bytes = 0, before = 0, after = 0;
	struct stat st;

	needs_fit_file_system(p);
	assert_int_equal(tm_backing_probe(&p->pool, NULL), 0);
	assert_int_equal(access(p->pool.directory, F_OK), -1);
	make(p);
	st = part_stat(p, TM_PART_DATA);
	assert_int_equal(st.st_size, 4 * TM_MIB);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_true((uint64_t)st.st_blocks * 512 >= 4 * TM_MIB);
	/* Again: as if a crash had come before it was noted. */
	assert_int_equal(tm_backing_create_part(&p->pool, TM_PART_DATA, 4 * TM_MIB, NULL), 0);

	assert_int_equal(tm_backing_free_bytes(&p->pool, &before, NULL), 0);
	assert_int_equal(tm_backing_grow_part(&p->pool, TM_PART_DATA, 8 * TM_MIB, NULL), 0);
	assert_int_equal(tm_backing_grow_part(&p->pool, TM_PART_DATA, 8 * TM_MIB, NULL), 0);
	assert_int_equal(tm_backing_grow_part(&p->pool, TM_PART_DATA, 1 * TM_MIB, NULL), 0);
	assert_int_equal(tm_backing_part_size(&p->pool, TM_PART_DATA, &bytes, NULL), 0);
	assert_int_equal(bytes, 8 * TM_MIB);
	st = part_stat(p, TM_PART_DATA);
	assert_true((uint64_t)st.st_blocks * 512 >= 8 * TM_MIB);
	assert_int_equal(tm_backing_free_bytes(&p->pool, &after, NULL), 0);

	/* Growing undone: the space is given back, and nothing below the size asked for. */
	assert_int_equal(tm_backing_shrink_part(&p->pool, TM_PART_DATA, 4 * TM_MIB, NULL), 0);
	assert_int_equal(tm_backing_shrink_part(&p->pool, TM_PART_DATA, 4 * TM_MIB, NULL), 0);
	assert_int_equal(tm_backing_shrink_part(&p->pool, TM_PART_DATA, 8 * TM_MIB, NULL), 0);
	st = part_stat(p, TM_PART_DATA);
	assert_int_equal(st.st_size, 4 * TM_MIB);
	assert_true((uint64_t)st.st_blocks * 512 < 8 * TM_MIB);

	assert_int_equal(tm_backing_destroy(&p->pool, NULL), 0);
	assert_int_equal(access(p->pool.directory, F_OK), -1);
	assert_int_equal(tm_backing_destroy(&p->pool, NULL), 0);
}

static void completed(void **state)
{
	struct place *p = *state;
	char path[TM_PATH_SIZE + 16];

	needs_fit_file_system(p);
	make(p);
	/* Cut off half-way: the rest is made. */
	tm_backing_part_path(&p->pool, TM_PART_DATA, path);
	assert_int_equal(truncate(path, 1 * TM_MIB), 0);
	assert_int_equal(tm_backing_create_part(&p->pool, TM_PART_DATA, 4 * TM_MIB, NULL), 0);
	assert_int_equal(part_stat(p, TM_PART_DATA).st_size, 4 * TM_MIB);
	assert_true((uint64_t)part_stat(p, TM_PART_DATA).st_blocks * 512 >= 4 * TM_MIB);
}

static void sparse(void **state)
{
	struct place *p = *state;
	uint64_t before = 0, after = 0;

	needs_fit_file_system(p);
	p->pool.sparse = true;
	assert_false(tm_backing_anything_left(&p->pool));
	assert_int_equal(tm_backing_create_dir(&p->pool, NULL), 1);
	assert_int_equal(tm_backing_create_dir(&p->pool, NULL), 0);
	assert_false(tm_backing_anything_left(&p->pool));
	assert_int_equal(tm_backing_free_bytes(&p->pool, &before, NULL), 0);
	assert_int_equal(tm_backing_create_part(&p->pool, TM_PART_DATA, TM_GIB, NULL), 0);
	assert_true(tm_backing_anything_left(&p->pool));
	assert_int_equal(part_stat(p, TM_PART_DATA).st_size, TM_GIB);
	assert_true(part_stat(p, TM_PART_DATA).st_blocks < 2048);
	/* Promised is not free; other programs may move the rest. */
	assert_int_equal(tm_backing_free_bytes(&p->pool, &after, NULL), 0);
	assert_true(before == 0 || after < before);
	assert_int_equal(tm_backing_grow_part(&p->pool, TM_PART_DATA, 2 * TM_GIB, NULL), 0);
	assert_true(part_stat(p, TM_PART_DATA).st_blocks < 2048);
	/* Metadata is never sparse. */
	assert_int_equal(tm_backing_create_part(&p->pool, TM_PART_METADATA, 2 * TM_MIB, NULL), 0);
	assert_true((uint64_t)part_stat(p, TM_PART_METADATA).st_blocks * 512 >= 2 * TM_MIB);
}

static void reading(void **state)
{
	struct place *p = *state;
	char path[TM_PATH_SIZE + 16], buffer[4096];
	struct tm_error err = { 0 };

	needs_fit_file_system(p);
	make(p);
	memset(buffer, 0xff, sizeof(buffer));
	assert_int_equal(tm_backing_read(&p->pool, TM_PART_METADATA, buffer, sizeof(buffer), NULL),
			 0);
	for (size_t i = 0; i < sizeof(buffer); i++)
		assert_int_equal(buffer[i], 0);

	tm_backing_part_path(&p->pool, TM_PART_METADATA, path);
	tm_auto_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "superblock", 10, 0), 10);
	assert_int_equal(tm_backing_read(&p->pool, TM_PART_METADATA, buffer, 10, NULL), 0);
	assert_memory_equal(buffer, "superblock", 10);
	assert_int_equal(ftruncate(fd, 4095), 0);
	assert_int_equal(tm_backing_read(&p->pool, TM_PART_METADATA, buffer, 4096, &err), -ENODATA);
	assert_int_equal(err.code, TM_ERR_DAMAGED);
}

/* Runs a call that must fail and says what it said. */
#define REFUSED(errnum_, code_, call)                        \
	do {                                                 \
		struct tm_error err = { 0 };                 \
		assert_int_equal((call), -(errnum_));        \
		assert_int_equal(err.code, (code_));         \
		assert_int_equal(err.errnum, (errnum_));     \
		assert_non_null(strstr(err.detail, "pool")); \
	} while (0)

static void places_refused(void **state)
{
	struct place *p = *state;
	struct tm_pool_record *pool = &p->pool;
	char path[TM_PATH_SIZE + 16];

	needs_fit_file_system(p);
	pool->data_bytes = UINT64_MAX - 1;
	REFUSED(ENOSPC, TM_ERR_NO_SPACE, tm_backing_probe(pool, &err));
	pool->data_bytes = TM_MIB;

	/* In use: any file, or a pool's record. */
	assert_true(tm_backing_create_dir(pool, NULL) >= 0);
	assert_int_equal(tm_backing_probe(pool, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/lost+found", pool->directory);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(tm_backing_probe(pool, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/.hidden", pool->directory);
	assert_int_equal(mkdir(path, 0700), 0);
	REFUSED(EEXIST, TM_ERR_EXISTS, tm_backing_probe(pool, &err));
	REFUSED(EEXIST, TM_ERR_EXISTS, tm_backing_create_dir(pool, &err));
	tm_backing_descriptor_path(pool->directory, path);
	assert_int_equal(mkdir(path, 0700), 0);
	REFUSED(EEXIST, TM_ERR_EXISTS, tm_backing_probe(pool, &err));

	/* Not a directory, a link to one, below neither. */
	(void)snprintf(pool->directory, sizeof(pool->directory), "%s/pool-link", p->base);
	assert_int_equal(symlink(p->base, pool->directory), 0);
	REFUSED(ENOTDIR, TM_ERR_BAD_PATH, tm_backing_probe(pool, &err));
	REFUSED(ENOTDIR, TM_ERR_BAD_PATH, tm_backing_create_dir(pool, &err));
	REFUSED(ENOTDIR, TM_ERR_BACKING_GONE, tm_backing_destroy(pool, &err));
	assert_int_equal(unlink(pool->directory), 0);
	tm_auto_close int fd = open(pool->directory, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	REFUSED(ENOTDIR, TM_ERR_BAD_PATH, tm_backing_probe(pool, &err));
	(void)snprintf(pool->directory, sizeof(pool->directory), "%s/pool-link/x", p->base);
	REFUSED(ENOTDIR, TM_ERR_BAD_PATH, tm_backing_probe(pool, &err));
	(void)snprintf(pool->directory, sizeof(pool->directory), "%s/no/pool", p->base);
	REFUSED(ENOENT, TM_ERR_BAD_PATH, tm_backing_probe(pool, &err));
	REFUSED(ENOENT, TM_ERR_BAD_PATH, tm_backing_create_dir(pool, &err));
}

static void tmpfs_refused(void **state)
{
	struct tm_pool_record pool = { .directory = "/dev/shm/pool-of-test-backing" };
	struct statfs fs;

	(void)state;
	if (statfs("/dev/shm", &fs) < 0 || fs.f_type != TMPFS_MAGIC)
		TM_SKIP("/dev/shm is not a tmpfs");
	REFUSED(EOPNOTSUPP, TM_ERR_UNSUPPORTED, tm_backing_probe(&pool, &err));
}

static void files_refused(void **state)
{
	struct place *p = *state;
	struct tm_pool_record *pool = &p->pool;
	struct tm_attachment a;
	char path[TM_PATH_SIZE + 16], other[512], buffer[16];
	uint64_t bytes;

	needs_fit_file_system(p);
	/* No directory. */
	REFUSED(ENOENT, TM_ERR_BACKING_GONE, tm_backing_free_bytes(pool, &bytes, &err));
	REFUSED(ENOENT, TM_ERR_BACKING_GONE,
		tm_backing_create_part(pool, TM_PART_DATA, 4096, &err));
	REFUSED(ENOENT, TM_ERR_BACKING_GONE,
		tm_backing_part_size(pool, TM_PART_DATA, &bytes, &err));

	/* No files. */
	assert_true(tm_backing_create_dir(pool, NULL) >= 0);
	REFUSED(ENOENT, TM_ERR_BACKING_GONE,
		tm_backing_part_size(pool, TM_PART_DATA, &bytes, &err));
	REFUSED(ENOENT, TM_ERR_BACKING_GONE, tm_backing_grow_part(pool, TM_PART_DATA, 4096, &err));
	REFUSED(ENOENT, TM_ERR_BACKING_GONE,
		tm_backing_shrink_part(pool, TM_PART_DATA, 4096, &err));
	REFUSED(ENOENT, TM_ERR_BACKING_GONE, tm_backing_attach(pool, TM_PART_DATA, &a, &err));
	assert_int_equal(a.fd, -1);
	REFUSED(ENOENT, TM_ERR_BACKING_GONE,
		tm_backing_read(pool, TM_PART_METADATA, buffer, sizeof(buffer), &err));

	/* Sizes no loop device has. */
	static const uint64_t sizes[] = { 0, 511, 513, (uint64_t)INT64_MAX + 1 };
	for (size_t i = 0; i < TM_ARRAY_SIZE(sizes); i++) {
		REFUSED(EINVAL, TM_ERR_OUT_OF_RANGE,
			tm_backing_create_part(pool, TM_PART_DATA, sizes[i], &err));
		REFUSED(EINVAL, TM_ERR_OUT_OF_RANGE,
			tm_backing_grow_part(pool, TM_PART_DATA, sizes[i], &err));
		REFUSED(EINVAL, TM_ERR_OUT_OF_RANGE,
			tm_backing_shrink_part(pool, TM_PART_DATA, sizes[i], &err));
	}
	tm_backing_part_path(pool, TM_PART_DATA, path);
	assert_int_equal(access(path, F_OK), -1);

	/* No room: nothing is left, nothing is changed. */
	REFUSED(ENOSPC, TM_ERR_NO_SPACE,
		tm_backing_create_part(pool, TM_PART_DATA, 1024 * TM_TIB, &err));
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(tm_backing_create_part(pool, TM_PART_DATA, TM_MIB, NULL), 0);
	/* Cut short below what the pool uses: made longer, it would look whole. */
	REFUSED(EIO, TM_ERR_BACKING_GONE,
		tm_backing_grow_part(pool, TM_PART_DATA, 8 * TM_MIB, &err));
	assert_int_equal(part_stat(p, TM_PART_DATA).st_size, TM_MIB);
	pool->data_bytes = TM_MIB;
	REFUSED(ENOSPC, TM_ERR_NO_SPACE,
		tm_backing_grow_part(pool, TM_PART_DATA, 1024 * TM_TIB, &err));
	REFUSED(ENOSPC, TM_ERR_NO_SPACE,
		tm_backing_create_part(pool, TM_PART_DATA, 1024 * TM_TIB, &err));
	assert_int_equal(part_stat(p, TM_PART_DATA).st_size, TM_MIB);
	REFUSED(EEXIST, TM_ERR_EXISTS, tm_backing_create_part(pool, TM_PART_DATA, 4096, &err));
	assert_int_equal(part_stat(p, TM_PART_DATA).st_size, TM_MIB);

	/* The file system refuses half-way through what the check let pass: back to what it was. */
	pool->sparse = true;
	REFUSED(EFBIG, TM_ERR_UNSUPPORTED,
		tm_backing_grow_part(pool, TM_PART_DATA, INT64_MAX / 512 * 512, &err));
	assert_int_equal(part_stat(p, TM_PART_DATA).st_size, TM_MIB);
	assert_int_equal(unlink(path), 0);
	REFUSED(EFBIG, TM_ERR_UNSUPPORTED,
		tm_backing_create_part(pool, TM_PART_DATA, INT64_MAX / 512 * 512, &err));
	assert_int_equal(access(path, F_OK), -1);
	pool->sparse = false;

	/* Something else under the name is neither used nor harmed. */
	(void)snprintf(other, sizeof(other), "%s/other", p->base);
	assert_int_equal(symlink(other, path), 0);
	REFUSED(EINVAL, TM_ERR_BACKING_GONE, tm_backing_attach(pool, TM_PART_DATA, &a, &err));
	REFUSED(EINVAL, TM_ERR_BACKING_GONE,
		tm_backing_create_part(pool, TM_PART_DATA, 4096, &err));
	assert_int_equal(access(other, F_OK), -1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	REFUSED(EINVAL, TM_ERR_BACKING_GONE,
		tm_backing_part_size(pool, TM_PART_DATA, &bytes, &err));
	REFUSED(EINVAL, TM_ERR_BACKING_GONE, tm_backing_grow_part(pool, TM_PART_DATA, 4096, &err));
	assert_int_equal(tm_backing_destroy(pool, NULL), 0);
}

static void destroy_keeps_strangers(void **state)
{
	struct place *p = *state;
	char path[TM_PATH_SIZE + 16];

	needs_fit_file_system(p);
	make(p);
	static const char *const ours[] = { "pool.json", "pool.json.tmp" };
	for (size_t i = 0; i < TM_ARRAY_SIZE(ours); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", p->pool.directory, ours[i]);
		tm_auto_close int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
	}
	(void)snprintf(path, sizeof(path), "%s/letter", p->pool.directory);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(tm_backing_destroy(&p->pool, NULL), 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(p->pool.directory), 0);
}

int main(void)
{
#define PLACED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(margin),
		cmocka_unit_test(room),
		cmocka_unit_test(file_systems),
		cmocka_unit_test(paths),
		cmocka_unit_test(tmpfs_refused),
		PLACED(path_names),
		PLACED(life),
		PLACED(completed),
		PLACED(sparse),
		PLACED(reading),
		PLACED(places_refused),
		PLACED(files_refused),
		PLACED(destroy_keeps_strangers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
