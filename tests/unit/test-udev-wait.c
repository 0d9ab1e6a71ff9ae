/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Waiting for nodes of devices to come and go, with a limit. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#include "common/fsutil.h"
#include "core-fixture.h"
#include "skip.h"

/* Of no driver: a node is looked at, never opened. */
#define MAJOR 250
#define MINOR 77
#define LONG  20000 /* ms: longer than anything here takes */

struct nodes {
	char directory[64], pool[80], node[80], link[96];
};

static int setup(void **state)
{
	struct nodes *n = calloc(1, sizeof(*n));

	assert_non_null(n);
	(void)snprintf(n->directory, sizeof(n->directory), "/tmp/test-udev-XXXXXX");
	assert_non_null(mkdtemp(n->directory));
	(void)snprintf(n->pool, sizeof(n->pool), "%s/pool", n->directory);
	(void)snprintf(n->node, sizeof(n->node), "%s/node", n->directory);
	(void)snprintf(n->link, sizeof(n->link), "%s/volume", n->pool);
	*state = n;
	return 0;
}

static int teardown(void **state)
{
	struct nodes *n = *state;
	int r = nftw(n->directory, core_remove, 16, FTW_DEPTH | FTW_PHYS);

	free(n);
	return r;
}

static bool make_node(const struct nodes *n, unsigned int minor_nr)
{
	return mknod(n->node, S_IFBLK | 0600, makedev(MAJOR, minor_nr)) == 0;
}

/* As udev does: the pool's directory, then the link in it. */
static void *make_link(void *arg)
{
	const struct nodes *n = arg;

	(void)mkdir(n->pool, 0755);
	(void)!symlink("../node", n->link);
	return NULL;
}

static void *remove_link(void *arg)
{
	const struct nodes *n = arg;

	(void)unlink(n->link);
	(void)rmdir(n->pool);
	return NULL;
}

static void waits_for_a_link(void **state)
{
	struct nodes *n = *state;
	pthread_t udev;

	if (!make_node(n, MINOR))
		TM_SKIP("block device nodes cannot be made here");
	assert_int_equal(pthread_create(&udev, NULL, make_link, n), 0);
	assert_int_equal(tm_udev_wait_link(n->link, MAJOR, MINOR, LONG), 0);
	assert_int_equal(pthread_join(udev, NULL), 0);
	/* There already. */
	assert_int_equal(tm_udev_wait_link(n->link, MAJOR, MINOR, 0), 0);
	/* It leads to another device. */
	assert_int_equal(tm_udev_wait_link(n->link, MAJOR, MINOR + 1, 20), -ETIMEDOUT);
	assert_int_equal(unlink(n->node), 0);
	/* It leads nowhere; it is still there. */
	assert_int_equal(tm_udev_wait_link(n->link, MAJOR, MINOR, 20), -ETIMEDOUT);
	assert_int_equal(tm_udev_wait_gone(n->link, 20), -ETIMEDOUT);
}

static void waits_until_it_is_gone(void **state)
{
	struct nodes *n = *state;
	pthread_t udev;

	(void)make_link(n);
	assert_int_equal(tm_udev_wait_gone(n->link, 20), -ETIMEDOUT);
	assert_int_equal(pthread_create(&udev, NULL, remove_link, n), 0);
	assert_int_equal(tm_udev_wait_gone(n->link, LONG), 0);
	assert_int_equal(pthread_join(udev, NULL), 0);
	assert_int_equal(tm_udev_wait_gone(n->link, 0), 0);
}

/* The limit holds where nothing happens and no directory is there to be watched. */
static void keeps_the_limit(void **state)
{
	struct nodes *n = *state;
	const uint64_t begin = tm_now_monotonic_usec();

	assert_int_equal(tm_udev_wait_link(n->link, MAJOR, MINOR, 100), -ETIMEDOUT);
	assert_int_equal(tm_udev_wait_link("/no/such/place/at/all", MAJOR, MINOR, 100), -ETIMEDOUT);
	assert_in_range(tm_now_monotonic_usec() - begin, 200 * TM_USEC_PER_MSEC,
			10 * TM_USEC_PER_SEC);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(waits_for_a_link, setup, teardown),
		cmocka_unit_test_setup_teardown(waits_until_it_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(keeps_the_limit, setup, teardown),
	};

	return cmocka_run_group_tests_name("udev-wait", tests, NULL, NULL);
}
