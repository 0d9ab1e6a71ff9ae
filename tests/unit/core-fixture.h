/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A real core's bare bones for tests of its parts: a database in a directory of its own. No device.
 */
#ifndef TM_TESTS_CORE_FIXTURE_H
#define TM_TESTS_CORE_FIXTURE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"

struct core_fixture {
	struct tm_core core;
	char directory[64];
	struct tm_store_reader *reader;
};

static inline struct tm_uuid id_of(unsigned int n)
{
	struct tm_uuid id;

	(void)snprintf(id.text, sizeof(id.text), "00000000-0000-4000-8000-%012u", n);
	return id;
}

static inline int core_setup(void **state)
{
	struct core_fixture *f = calloc(1, sizeof(*f));
	struct tm_error err = { 0 };

	assert_non_null(f);
	(void)snprintf(f->directory, sizeof(f->directory), "/tmp/test-core-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	if (tm_store_new(f->directory, &f->core.store, &err) < 0 ||
	    tm_store_reader_new(f->directory, &f->reader, &err) < 0)
		fail_msg("%s", err.detail);
	assert_int_equal(pthread_mutex_init(&f->core.live_lock, NULL), 0);
	atomic_init(&f->core.stopping, false);
	f->core.config.tool_limit_usec = 20 * TM_USEC_PER_SEC;
	*state = f;
	return 0;
}

static inline int core_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline int core_teardown(void **state)
{
	struct core_fixture *f = *state;
	int r;

	f->reader = tm_store_reader_free(f->reader);
	f->core.store = tm_store_free(f->core.store);
	(void)pthread_mutex_destroy(&f->core.live_lock);
	r = nftw(f->directory, core_remove, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return r;
}

#endif
