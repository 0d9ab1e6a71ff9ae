// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * New metadata and what is kept of the old, on whatever file system the build runs on. Being cut
 * off is made by putting the names where they are after each of the calls that a swap is made of.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backing/copies.h"
#include "backing/spare.h"
#include "common/cleanup.h"
#include "common/units.h"

#define NAME "20261123T024512Z-repair"
#define SIZE (256 * TM_KIB)

struct place {
	char base[64];
	struct tm_pool_record pool;
};

static int delete_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static void in_pool(const struct place *p, const char *name, char buf[TM_PATH_SIZE + 64])
{
	(void)snprintf(buf, TM_PATH_SIZE + 64, "%s/%s", p->pool.directory, name);
}

static void put(const struct place *p, const char *name, char content, size_t len)
{
	char path[TM_PATH_SIZE + 64];
	tm_auto_free char *text = malloc(len ? len : 1);
	int fd;

	assert_non_null(text);
	memset(text, content, len);
	in_pool(p, name, path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), (ssize_t)len);
	assert_int_equal(close(fd), 0);
}

/* The first byte of a file; 0: it is not there. Its size, too. */
static char has(const struct place *p, const char *name, off_t *ret_size)
{
	char path[TM_PATH_SIZE + 64], first = 0;
	struct stat st;
	int fd;

	in_pool(p, name, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_size == 0 || read(fd, &first, 1) == 1);
	assert_int_equal(close(fd), 0);
	if (ret_size)
		*ret_size = st.st_size;
	return first;
}

static bool exists(const struct place *p, const char *name)
{
	char path[TM_PATH_SIZE + 64];
	struct stat st;

	in_pool(p, name, path);
	return lstat(path, &st) == 0;
}

static void linked(const struct place *p, const char *from, const char *to)
{
	char a[TM_PATH_SIZE + 64], b[TM_PATH_SIZE + 64];

	in_pool(p, from, a);
	in_pool(p, to, b);
	assert_int_equal(link(a, b), 0);
}

static void renamed(const struct place *p, const char *from, const char *to)
{
	char a[TM_PATH_SIZE + 64], b[TM_PATH_SIZE + 64];

	in_pool(p, from, a);
	in_pool(p, to, b);
	assert_int_equal(rename(a, b), 0);
}

static void with_kept(const struct place *p)
{
	char path[TM_PATH_SIZE + 64];

	in_pool(p, "kept", path);
	assert_int_equal(mkdir(path, 0700), 0);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	(void)snprintf(p->base, sizeof(p->base), "/var/tmp/test-copies.XXXXXX");
	if (!mkdtemp(p->base)) {
		free(p);
		return -1;
	}
	(void)snprintf(p->pool.directory, sizeof(p->pool.directory), "%s/pool", p->base);
	*state = p;
	if (mkdir(p->pool.directory, 0700) < 0)
		return -1;
	put(p, "metadata", 'o', SIZE);
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;
	int r = nftw(p->base, delete_one, 8, FTW_DEPTH | FTW_PHYS);

	free(p);
	return r;
}

static void names(void **state)
{
	char name[TM_COPY_NAME_SIZE];

	(void)state;
	assert_int_equal(tm_copy_name(1795401912000000, "repair", name), 0);
	assert_string_equal(name, "20261123T024512Z-repair");
	assert_int_equal(tm_copy_name(0, "x", name), 0);
	assert_string_equal(name, "19700101T000000Z-x");
	assert_int_equal(tm_copy_name(0, "", name), -EINVAL);
	assert_int_equal(tm_copy_name(0, "a/b", name), -EINVAL);
	assert_int_equal(tm_copy_name(0, "abcdefghijklmnopqrstuvwxyzabcdefg", name), -EINVAL);
	assert_int_equal(tm_copy_name(253402300800 * TM_USEC_PER_SEC, "x", name), -EINVAL);
}

static void strange_names(void **state)
{
	static const char *const bad[] = { "",
					   "..",
					   "../metadata",
					   "20261123T024512Z-",
					   "20261123T024512Z-A",
					   "20261123T024512Z-a/b",
					   "20260231T024512Z-a",
					   "2026112T024512Z-a",
					   "20261123T024512Z-a.none" };
	const struct place *p = *state;

	put(p, "metadata.new", 'n', SIZE);
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		struct tm_error err = { 0 };

		assert_int_equal(tm_copies_swap(&p->pool, bad[i], &err), -EINVAL);
		assert_int_equal(err.code, TM_ERR_BAD_NAME);
		assert_int_equal(tm_copies_swap_back(&p->pool, bad[i], NULL), -EINVAL);
		assert_int_equal(tm_copies_remove(&p->pool, bad[i], NULL), -EINVAL);
	}
	assert_int_equal(has(p, "metadata", NULL), 'o');
	assert_int_equal(has(p, "metadata.new", NULL), 'n');
}

static void made_new(void **state)
{
	const struct place *p = *state;
	struct tm_error err = { 0 };
	char path[TM_PATH_SIZE + 64];
	struct stat st;
	off_t size = 0;

	put(p, "metadata.new", 'x', 17); /* left from before */
	assert_int_equal(tm_copies_make_new(&p->pool, 2 * SIZE, NULL), 0);
	assert_int_equal(has(p, "metadata.new", &size), 0);
	assert_int_equal(size, 2 * SIZE);
	in_pool(p, "metadata.new", path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true((uint64_t)st.st_blocks * TM_SECTOR >= 2 * SIZE);

	assert_int_equal(tm_copies_make_new(&p->pool, 0, &err), -EINVAL);
	assert_int_equal(tm_copies_make_new(&p->pool, 100, &err), -EINVAL);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_copies_make_new(&p->pool, UINT64_C(1) << 60, &err), -ENOSPC);
	assert_int_equal(err.code, TM_ERR_NO_SPACE);
	assert_int_equal(access(path, F_OK), -1); /* none on failure */

	assert_int_equal(tm_copies_drop_new(&p->pool, NULL), 0);
	assert_int_equal(tm_copies_drop_new(&p->pool, NULL), 0);
	assert_int_equal(has(p, "metadata", &size), 'o');
	assert_int_equal(size, SIZE);
}

static void cloned(void **state)
{
	const struct place *p = *state;
	struct tm_error err = { 0 };
	char path[TM_PATH_SIZE + 64];
	tm_auto_close int fd = -1;
	char last[2];
	off_t size = 0;

	assert_int_equal(tm_copies_clone_new(&p->pool, SIZE, NULL), 0);
	assert_int_equal(has(p, "metadata.new", &size), 'o');
	assert_int_equal(size, SIZE);
	assert_int_equal(tm_copies_clone_new(&p->pool, 2 * SIZE, NULL), 0);
	in_pool(p, "metadata.new", path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, last, 2, SIZE - 1), 2);
	assert_int_equal(last[0], 'o');
	assert_int_equal(last[1], 0);
	assert_int_equal(tm_copies_clone_new(&p->pool, SIZE - TM_SECTOR, &err), -EINVAL);
	assert_int_equal(err.code, TM_ERR_OUT_OF_RANGE);
}

static void expect_swapped(const struct place *p)
{
	assert_int_equal(has(p, "metadata", NULL), 'n');
	assert_int_equal(has(p, "kept/" NAME, NULL), 'o');
	assert_int_equal(has(p, "metadata.new", NULL), 0);
}

static void expect_back(const struct place *p)
{
	char path[TM_PATH_SIZE + 64];

	assert_int_equal(has(p, "metadata", NULL), 'o');
	in_pool(p, "kept/" NAME, path);
	assert_int_equal(access(path, F_OK), -1);
	in_pool(p, "metadata.new", path);
	assert_int_equal(access(path, F_OK), -1);
}

static void swapped(void **state)
{
	const struct place *p = *state;

	put(p, "metadata.new", 'n', SIZE);
	assert_int_equal(tm_copies_swap(&p->pool, NAME, NULL), 0);
	expect_swapped(p);
	assert_int_equal(tm_copies_swap(&p->pool, NAME, NULL), 0); /* again */
	expect_swapped(p);
	assert_int_equal(tm_copies_swap_back(&p->pool, NAME, NULL), 0);
	expect_back(p);
	assert_int_equal(tm_copies_swap_back(&p->pool, NAME, NULL), 0);
	expect_back(p);
}

/* As it is on disk after each of the calls: 0 nothing, 1 the directory, 2 the link, 3 the rename.
 */
static void leave_at(const struct place *p, int calls)
{
	put(p, "metadata.new", 'n', SIZE);
	if (calls >= 1)
		with_kept(p);
	if (calls >= 2)
		linked(p, "metadata", "kept/" NAME);
	if (calls >= 3)
		renamed(p, "metadata.new", "metadata");
}

static void cut_off(void **state)
{
	struct place *p = *state;
	const struct tm_pool_record first = p->pool;

	for (int calls = 0; calls <= 3; calls++) {
		for (int back = 0; back < 2; back++) {
			(void)snprintf(p->pool.directory, sizeof(p->pool.directory), "%.900s%d-%d",
				       first.directory, calls, back);
			assert_int_equal(mkdir(p->pool.directory, 0700), 0);
			put(p, "metadata", 'o', SIZE);
			leave_at(p, calls);
			if (back) {
				assert_int_equal(tm_copies_swap_back(&p->pool, NAME, NULL), 0);
				expect_back(p);
			} else {
				assert_int_equal(tm_copies_swap(&p->pool, NAME, NULL), 0);
				expect_swapped(p);
			}
		}
	}
}

static void nothing_to_keep(void **state)
{
	const struct place *p = *state;
	char path[TM_PATH_SIZE + 64];
	struct tm_copy *list;
	size_t n;

	in_pool(p, "metadata", path);
	for (int again = 0; again < 2; again++) {
		(void)unlink(path);
		put(p, "metadata.new", 'n', SIZE);
		for (int i = 0; i <= again; i++)
			assert_int_equal(tm_copies_swap(&p->pool, NAME, NULL), 0);
		assert_int_equal(has(p, "metadata", NULL), 'n');
		assert_int_equal(tm_copies_list(&p->pool, &list, &n, NULL), 0);
		assert_int_equal(n, 0);
		for (int i = 0; i <= again; i++)
			assert_int_equal(tm_copies_swap_back(&p->pool, NAME, NULL), 0);
		assert_int_equal(access(path, F_OK), -1);
	}
}

static void refused(void **state)
{
	const struct place *p = *state;
	struct tm_error err = { 0 };

	assert_int_equal(tm_copies_swap(&p->pool, NAME, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_BACKING_GONE);
	put(p, "metadata.new", 'n', SIZE);
	put(p, "kept/" NAME, 'k', SIZE); /* swap made the directory */
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_copies_swap(&p->pool, NAME, &err), -EEXIST);
	assert_int_equal(err.code, TM_ERR_EXISTS);
	assert_int_equal(has(p, "metadata", NULL), 'o');
	assert_int_equal(has(p, "metadata.new", NULL), 'n');
	assert_int_equal(has(p, "kept/" NAME, NULL), 'k');
}

static void no_links_followed(void **state)
{
	const struct place *p = *state;
	char new[TM_PATH_SIZE + 64], kept[TM_PATH_SIZE + 64];

	in_pool(p, "metadata.new", new);
	assert_int_equal(symlink("metadata", new), 0);
	assert_true(tm_copies_swap(&p->pool, NAME, NULL) < 0);
	assert_int_equal(has(p, "metadata", NULL), 'o');
	assert_int_equal(tm_copies_drop_new(&p->pool, NULL), 0);
	assert_int_equal(has(p, "metadata", NULL), 'o');

	in_pool(p, "kept", kept);
	assert_int_equal(rmdir(kept), 0);
	assert_int_equal(symlink("/var/tmp", kept), 0);
	put(p, "metadata.new", 'n', SIZE);
	assert_true(tm_copies_swap(&p->pool, NAME, NULL) < 0);
	assert_int_equal(has(p, "metadata", NULL), 'o');
}

static void listed(void **state)
{
	const struct place *p = *state;
	struct tm_copy *list = NULL;
	size_t n = 1;

	assert_int_equal(tm_copies_list(&p->pool, &list, &n, NULL), 0);
	assert_int_equal(n, 0);
	with_kept(p);
	put(p, "kept/20261124T000000Z-safety", 'b', 10);
	put(p, "kept/20261123T024512Z-repair", 'a', 20);
	put(p, "kept/letter", 'x', 30);
	put(p, "kept/20261125T000000Z-safety.none", 'x', 0);
	assert_int_equal(tm_copies_list(&p->pool, &list, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].name, "20261123T024512Z-repair");
	assert_int_equal(list[0].bytes, 20);
	assert_int_equal(list[0].kept_usec, 1795401912000000);
	assert_string_equal(list[1].name, "20261124T000000Z-safety");
	free(list);

	assert_int_equal(tm_copies_remove(&p->pool, "20261123T024512Z-repair", NULL), 0);
	assert_int_equal(tm_copies_remove(&p->pool, "20261123T024512Z-repair", NULL), 0);
	assert_int_equal(tm_copies_list(&p->pool, &list, &n, NULL), 0);
	assert_int_equal(n, 1);
	free(list);

	/* All of ours goes, not what somebody put there. */
	assert_int_equal(tm_backing_destroy(&p->pool, NULL), 0);
	assert_int_equal(has(p, "kept/letter", NULL), 'x');
	assert_int_equal(has(p, "kept/20261124T000000Z-safety", NULL), 0);
}

static void taken_up_again(void **state)
{
	const struct place *p = *state;
	struct tm_error err = { 0 };
	struct tm_copy copy;
	off_t size = 0;

	assert_int_equal(tm_copies_take_new(&p->pool, NAME, SIZE, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_NOT_FOUND);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_copies_find(&p->pool, NAME, &copy, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_NOT_FOUND);
	assert_non_null(strstr(err.hint, "pool copies"));

	with_kept(p);
	put(p, "kept/" NAME, 'k', SIZE);
	assert_int_equal(tm_copies_find(&p->pool, NAME, &copy, NULL), 0);
	assert_string_equal(copy.name, NAME);
	assert_string_equal(tm_copy_why(&copy), "repair");
	assert_int_equal(copy.bytes, SIZE);
	assert_int_equal(copy.kept_usec, 1795401912000000);
	put(p, "metadata.new", 'x', 10); /* left from before */
	assert_int_equal(tm_copies_take_new(&p->pool, NAME, SIZE * 2, NULL), 0);
	assert_int_equal(has(p, "metadata.new", &size), 'k');
	assert_int_equal(size, SIZE * 2);
	assert_int_equal(has(p, "kept/" NAME, &size), 'k');
	assert_int_equal(size, SIZE);
	assert_int_equal(has(p, "metadata", NULL), 'o');
	assert_int_equal(tm_copies_take_new(&p->pool, NAME, SIZE / 2, NULL), -EINVAL);

	/* Not what has another name, wherever it leads. */
	assert_true(tm_copy_name_valid(NAME));
	assert_false(tm_copy_name_valid("../metadata"));
	assert_false(tm_copy_name_valid(NAME ".none"));
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_copies_find(&p->pool, "../metadata", &copy, &err), -EINVAL);
	assert_int_equal(err.code, TM_ERR_BAD_NAME);
	assert_int_equal(tm_copies_take_new(&p->pool, "../metadata", SIZE, NULL), -EINVAL);
	assert_int_equal(tm_copies_remove(&p->pool, NAME, NULL), 0);
	linked(p, "metadata", "kept/20261124T000000Z-repair");
	assert_int_equal(tm_copies_find(&p->pool, NAME, &copy, NULL), -ENOENT);
}

static void all_destroyed(void **state)
{
	const struct place *p = *state;

	put(p, "metadata.new", 'n', SIZE);
	assert_int_equal(tm_copies_swap(&p->pool, NAME, NULL), 0);
	put(p, "metadata.new", 'x', SIZE);
	put(p, "kept/20261125T000000Z-safety.none", 'x', 0);
	assert_int_equal(tm_backing_destroy(&p->pool, NULL), 0);
	assert_int_equal(access(p->pool.directory, F_OK), -1);
	assert_int_equal(tm_copies_destroy(&p->pool, NULL), 0);
}

/* Room for a repair: more when more is asked for, never less; given away once, of the size
 * wanted. */
static void set_aside(void **state)
{
	struct place *p = *state;
	struct tm_error err = { 0 };
	off_t size = 0;
	tm_auto_close int dir_fd = open(p->pool.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(dir_fd >= 0);
	assert_int_equal(tm_spare_keep(&p->pool, SIZE, &err), 0);
	assert_int_equal(tm_spare_keep(&p->pool, 2 * SIZE, &err), 0);
	assert_int_equal(tm_spare_keep(&p->pool, SIZE, &err), 0);
	(void)has(p, "metadata.spare", &size);
	assert_int_equal(size, 2 * SIZE);
	assert_true(exists(p, "kept"));

	assert_int_equal(tm_spare_use(dir_fd, &p->pool, "metadata.new", SIZE, &err), 0);
	assert_int_equal(has(p, "metadata.new", &size), 0);
	assert_int_equal(size, SIZE);
	assert_false(exists(p, "metadata.spare"));
	assert_int_equal(tm_spare_use(dir_fd, &p->pool, "metadata.new", SIZE, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_NOT_FOUND);

	/* What comes of no more use is set aside again, and nothing of it can be read. */
	put(p, "metadata.new", 'x', SIZE);
	assert_int_equal(tm_copies_drop_new(&p->pool, &err), 0);
	assert_false(exists(p, "metadata.new"));
	assert_int_equal(has(p, "metadata.spare", &size), 0);
	assert_int_equal(size, SIZE);
	put(p, "metadata.new", 'y', SIZE); /* one is enough */
	assert_int_equal(tm_copies_drop_new(&p->pool, &err), 0);
	assert_false(exists(p, "metadata.new"));
	assert_int_equal(has(p, "metadata.spare", &size), 0);
	assert_int_equal(tm_spare_use(dir_fd, &p->pool, "metadata.new", SIZE, &err), 0);
	put(p, "metadata", 'o', SIZE);
	put(p, "metadata.new", 'n', SIZE);
	assert_int_equal(tm_copies_swap(&p->pool, "20261123T024512Z-repair", &err), 0);
	assert_int_equal(tm_copies_swap_back(&p->pool, "20261123T024512Z-repair", &err), 0);
	assert_int_equal(has(p, "metadata", NULL), 'o');
	assert_int_equal(has(p, "metadata.spare", &size), 0);
	assert_int_equal(size, SIZE);
	assert_int_equal(tm_spare_use(dir_fd, &p->pool, "metadata.new", SIZE, &err), 0);

	/* A bit more than there is, too, while there is room. */
	assert_int_equal(tm_spare_keep(&p->pool, SIZE, &err), 0);
	assert_int_equal(tm_spare_use(dir_fd, &p->pool, "metadata.new", 3 * SIZE, &err), 0);
	(void)has(p, "metadata.new", &size);
	assert_int_equal(size, 3 * SIZE);

	assert_int_equal(tm_spare_keep(&p->pool, SIZE, &err), 0);
	assert_int_equal(tm_copies_destroy(&p->pool, &err), 0);
	assert_false(exists(p, "metadata.spare"));
	assert_false(exists(p, "kept"));

	/* What has the name but is no file is left alone. */
	assert_int_equal(symlinkat("metadata", dir_fd, "metadata.spare"), 0);
	assert_int_equal(tm_spare_use(dir_fd, &p->pool, "metadata.new", SIZE, &err), -ENOENT);
	assert_true(tm_spare_keep(&p->pool, SIZE, &err) < 0);
}

int main(void)
{
#define PLACED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),   PLACED(strange_names),   PLACED(made_new),
		PLACED(set_aside),         PLACED(cloned),          PLACED(swapped),
		PLACED(cut_off),           PLACED(nothing_to_keep), PLACED(refused),
		PLACED(no_links_followed), PLACED(listed),          PLACED(taken_up_again),
		PLACED(all_destroyed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
