// SPDX-License-Identifier: GPL-2.0-or-later
/* Safety copies: what was written comes back, or it is said that it does not. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backing/copies.h"
#include "backing/packed.h"
#include "common/cleanup.h"

#define NAME "20261123T024512Z-copy"
#define MANY ((size_t)5 << 20)

struct place {
	char base[64];
	struct tm_pool_record pool;
};

static int delete_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	(void)snprintf(p->base, sizeof(p->base), "/var/tmp/test-packed.XXXXXX");
	*state = p;
	if (!mkdtemp(p->base))
		return -1;
	(void)snprintf(p->pool.directory, sizeof(p->pool.directory), "%s/pool", p->base);
	(void)snprintf(p->pool.name, sizeof(p->pool.name), "tank");
	return mkdir(p->pool.directory, 0700);
}

static int teardown(void **state)
{
	struct place *p = *state;
	int r = nftw(p->base, delete_one, 8, FTW_DEPTH | FTW_PHYS);

	free(p);
	return r;
}

static bool there(const struct place *p, const char *name)
{
	char path[TM_PATH_SIZE + 64];

	(void)snprintf(path, sizeof(path), "%s/%s", p->pool.directory, name);
	return access(path, F_OK) == 0;
}

/* Some that is alike, some that is not: both are to come back. */
static char *make_text(size_t n)
{
	char *text = malloc(n + 1);
	uint32_t random = 1;

	assert_non_null(text);
	for (size_t i = 0; i < n; i++) {
		random = random * 1664525 + 1013904223;
		text[i] = i % 65536 < 32768 ? 'a' : (char)(random >> 24);
	}
	return text;
}

static void pack(const struct place *p, const char *text, size_t n, size_t piece)
{
	struct tm_packed *packed = NULL;

	assert_int_equal(tm_packed_begin(&p->pool, &packed, NULL), 0);
	for (size_t at = 0; at < n; at += piece)
		assert_int_equal(
			tm_packed_write(packed, text + at, n - at < piece ? n - at : piece, NULL),
			0);
	assert_int_equal(tm_packed_finish(packed, NULL), 0);
	assert_null(tm_packed_free(packed));
}

static void comes_back(void **state)
{
	static const size_t sizes[] = { 0, 1, 100, 131072, MANY };
	const struct place *p = *state;

	for (size_t i = 0; i < TM_ARRAY_SIZE(sizes); i++) {
		tm_auto_free char *text = make_text(sizes[i]), *got = malloc(sizes[i] + 1);
		tm_auto_close int fd = -1;

		assert_non_null(got);
		pack(p, text, sizes[i], 40000);
		assert_false(there(p, "kept/" NAME));
		assert_int_equal(tm_copies_keep_packed(&p->pool, NAME, NULL), 0);
		assert_false(there(p, "copy.new"));
		assert_true(there(p, "kept/" NAME));
		assert_int_equal(tm_copies_keep_packed(&p->pool, NAME, NULL), 0); /* again */
		fd = tm_packed_open(&p->pool, NAME, NULL);
		assert_true(fd >= 0);
		assert_int_equal(pread(fd, got, sizes[i] + 1, 0), sizes[i]);
		assert_memory_equal(got, text, sizes[i]);
		assert_int_equal(tm_copies_remove(&p->pool, NAME, NULL), 0);
	}
}

/* Wherever it is cut off or changed. */
static void tells_damage(void **state)
{
	const struct place *p = *state;
	tm_auto_free char *text = make_text(100000);
	char path[TM_PATH_SIZE + TM_COPY_NAME_SIZE + 16];
	struct stat st = { 0 };

	pack(p, text, 100000, 100000);
	assert_int_equal(tm_copies_keep_packed(&p->pool, NAME, NULL), 0);
	tm_copies_kept_path(&p->pool, NAME, path);
	assert_int_equal(stat(path, &st), 0);
	for (int i = 0; i < 20; i++) {
		const off_t at = st.st_size * i / 20;
		tm_auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
		struct tm_error err = { 0 };
		char was = 0, is;

		assert_int_equal(pread(fd, &was, 1, at), 1);
		is = (char)~was;
		assert_int_equal(pwrite(fd, &is, 1, at), 1);
		assert_int_equal(tm_packed_open(&p->pool, NAME, &err), -EBADMSG);
		assert_int_equal(err.code, TM_ERR_DAMAGED);
		assert_non_null(strstr(err.detail, NAME));
		assert_int_equal(pwrite(fd, &was, 1, at), 1);
	}
	for (int i = 0; i < 20; i++) {
		assert_int_equal(truncate(path, st.st_size * (19 - i) / 20), 0);
		assert_int_equal(tm_packed_open(&p->pool, NAME, NULL), -EBADMSG);
	}
}

static void never_half(void **state)
{
	const struct place *p = *state;
	struct tm_packed *packed = NULL;
	struct tm_error err = { 0 };

	assert_null(tm_packed_free(NULL));
	assert_int_equal(tm_copies_keep_packed(&p->pool, NAME, &err), -ENOENT);
	assert_int_equal(tm_copies_keep_packed(&p->pool, "../metadata", NULL), -EINVAL);
	assert_int_equal(tm_packed_open(&p->pool, NAME, &err), -ENOENT);
	assert_int_equal(tm_packed_begin(&p->pool, &packed, NULL), 0);
	assert_int_equal(tm_packed_write(packed, "abc", 3, NULL), 0);
	(void)tm_packed_free(packed);
	/* What one that was cut off has left is no text of the next. */
	pack(p, "xyz", 3, 1);
	assert_int_equal(tm_copies_keep_packed(&p->pool, NAME, NULL), 0);
	pack(p, "xyz", 3, 3);
	assert_int_equal(tm_copies_keep_packed(&p->pool, NAME, &err), -EEXIST);
	assert_int_equal(tm_copies_drop_packed(&p->pool, NULL), 0);
	assert_int_equal(tm_copies_drop_packed(&p->pool, NULL), 0);
	assert_false(there(p, "copy.new"));
	pack(p, "xyz", 3, 3);
	assert_int_equal(tm_copies_destroy(&p->pool, NULL), 0);
	assert_false(there(p, "copy.new"));
	assert_false(there(p, "kept"));
}

int main(void)
{
#define PLACED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		PLACED(comes_back),
		PLACED(tells_damage),
		PLACED(never_half),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
