// SPDX-License-Identifier: GPL-2.0-or-later
/* Looking things up in the published picture, and its references. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/view.h"

#define ID_PREFIX "00000000-0000-4000-8000-0000000000"

static struct tm_pool_view *make_pool(const char *name, unsigned int number, size_t n_volumes)
{
	struct tm_pool_view *pool =
		calloc(1, sizeof(*pool) + n_volumes * sizeof(struct tm_volume_view));

	assert_non_null(pool);
	pool->refs = 1;
	(void)snprintf(pool->record.name, sizeof(pool->record.name), "%s", name);
	(void)snprintf(pool->record.id.text, sizeof(pool->record.id.text), ID_PREFIX "%02x",
		       number);
	pool->n_volumes = n_volumes;
	for (size_t i = 0; i < n_volumes; i++) {
		struct tm_volume_record *record = &pool->volumes[i].record;

		(void)snprintf(record->name, sizeof(record->name), "vol%zu", i);
		(void)snprintf(record->id.text, sizeof(record->id.text), ID_PREFIX "%02x",
			       0x80 + (unsigned int)i);
	}
	return pool;
}

static struct tm_view *make_view(const char *const *names, size_t n)
{
	struct tm_view *view = calloc(1, sizeof(*view) + n * sizeof(struct tm_pool_view *));

	assert_non_null(view);
	view->refs = 1;
	view->n_pools = n;
	for (size_t i = 0; i < n; i++)
		view->pools[i] = make_pool(names[i], (unsigned int)i + 1, 3);
	return view;
}

static void finds_pools(void **state)
{
	static const char *const names[] = { "Alpha", "a", "aa", "b", "tank", "tank2", "z.z" };

	(void)state;
	/* Every length, so that both ends of the search are met. */
	for (size_t n = 0; n <= TM_ARRAY_SIZE(names); n++) {
		tm_auto_view struct tm_view *view = make_view(names, n);
		char id[37];

		for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++) {
			const struct tm_pool_view *want = i < n ? view->pools[i] : NULL;

			assert_ptr_equal(tm_view_pool(view, names[i]), want);
			(void)snprintf(id, sizeof(id), ID_PREFIX "%02x", (unsigned int)i + 1);
			assert_ptr_equal(tm_view_pool(view, id), want);
		}
		assert_null(tm_view_pool(view, ""));
		assert_null(tm_view_pool(view, "A"));
		assert_null(tm_view_pool(view, "tan"));
		assert_null(tm_view_pool(view, "zz"));
		assert_null(tm_view_pool(view, ID_PREFIX "ff"));
	}
}

static void finds_ids_in_any_case(void **state)
{
	static const char *const names[] = { "tank" };
	tm_auto_view struct tm_view *view = make_view(names, 1);

	(void)state;
	(void)snprintf(view->pools[0]->record.id.text, sizeof(view->pools[0]->record.id.text), "%s",
		       "6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f");
	assert_ptr_equal(tm_view_pool(view, "6F1C2B5E-8D3A-4B7E-9C55-0A1B2C3D4E5F"),
			 view->pools[0]);
}

static void finds_volumes(void **state)
{
	struct tm_pool_view *pool = make_pool("tank", 1, 3);

	(void)state;
	assert_ptr_equal(tm_pool_view_volume(pool, "vol0"), &pool->volumes[0]);
	assert_ptr_equal(tm_pool_view_volume(pool, "vol2"), &pool->volumes[2]);
	assert_ptr_equal(tm_pool_view_volume(pool, ID_PREFIX "81"), &pool->volumes[1]);
	assert_null(tm_pool_view_volume(pool, "vol3"));
	assert_null(tm_pool_view_volume(pool, ""));
	assert_null(tm_pool_view_volume(pool, ID_PREFIX "01"));
	assert_null(tm_pool_view_unref(pool));
}

static void shares_pools(void **state)
{
	static const char *const names[] = { "tank" };
	struct tm_view *old = make_view(names, 1);
	struct tm_view *new = make_view(names, 0);
	struct tm_view *grown;

	(void)state;
	grown = realloc(new, sizeof(*grown) + sizeof(struct tm_pool_view *));
	assert_non_null(grown);
	grown->n_pools = 1;
	grown->pools[0] = tm_pool_view_ref(old->pools[0]);
	assert_int_equal(grown->pools[0]->refs, 2);
	assert_ptr_equal(tm_view_ref(old), old);
	assert_null(tm_view_unref(old));
	assert_int_equal(grown->pools[0]->refs, 2);
	assert_null(tm_view_unref(old));
	assert_int_equal(grown->pools[0]->refs, 1);
	assert_string_equal(grown->pools[0]->record.name, "tank");
	assert_null(tm_view_unref(grown));
	assert_null(tm_view_unref(NULL));
	assert_null(tm_pool_view_unref(NULL));
}

static void names_states(void **state)
{
	static const char *const names[] = { "creating", "inactive",  "active",
					     "deleting", "uncertain", "uncertain" };

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(names); i++)
		assert_string_equal(tm_pool_state_name((enum tm_pool_state)i), names[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_pools),   cmocka_unit_test(finds_ids_in_any_case),
		cmocka_unit_test(finds_volumes), cmocka_unit_test(shares_pools),
		cmocka_unit_test(names_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
