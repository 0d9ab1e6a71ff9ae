// SPDX-License-Identifier: GPL-2.0-or-later
/* References to the published picture, and looking things up in it. */

#include <stdlib.h>
#include <string.h>

#include "core/view.h"

const char *tm_pool_state_name(enum tm_pool_state state)
{
	switch (state) {
	case TM_POOL_CREATING:
		return "creating";
	case TM_POOL_INACTIVE:
		return "inactive";
	case TM_POOL_ACTIVE:
		return "active";
	case TM_POOL_DELETING:
		return "deleting";
	case TM_POOL_UNCERTAIN:
		break;
	}
	/* What is not known is not to be touched either. */
	return "uncertain";
}

struct tm_pool_view *tm_pool_view_ref(struct tm_pool_view *pool)
{
	(void)__atomic_add_fetch(&pool->refs, 1, __ATOMIC_RELAXED);
	return pool;
}

struct tm_pool_view *tm_pool_view_unref(struct tm_pool_view *pool)
{
	if (pool && __atomic_sub_fetch(&pool->refs, 1, __ATOMIC_ACQ_REL) == 0) {
		free(pool->repair_waits_for);
		free(pool);
	}
	return NULL;
}

struct tm_view *tm_view_ref(struct tm_view *view)
{
	(void)__atomic_add_fetch(&view->refs, 1, __ATOMIC_RELAXED);
	return view;
}

struct tm_view *tm_view_unref(struct tm_view *view)
{
	if (!view || __atomic_sub_fetch(&view->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return NULL;
	for (size_t i = 0; i < view->n_pools; i++)
		(void)tm_pool_view_unref(view->pools[i]);
	free(view);
	return NULL;
}

const struct tm_pool_view *tm_view_pool(const struct tm_view *view, const char *ref)
{
	size_t low = 0, high = view->n_pools;
	struct tm_uuid id;

	if (tm_uuid_parse(ref, &id) == 0) {
		for (size_t i = 0; i < view->n_pools; i++) {
			if (tm_uuid_equal(&view->pools[i]->record.id, &id))
				return view->pools[i];
		}
		return NULL;
	}
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(ref, view->pools[middle]->record.name);

		if (order == 0)
			return view->pools[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

const struct tm_volume_view *tm_pool_view_volume(const struct tm_pool_view *pool, const char *ref)
{
	struct tm_uuid id;
	bool by_id = tm_uuid_parse(ref, &id) == 0;

	for (size_t i = 0; i < pool->n_volumes; i++) {
		const struct tm_volume_record *record = &pool->volumes[i].record;

		if (by_id ? tm_uuid_equal(&record->id, &id) : strcmp(record->name, ref) == 0)
			return &pool->volumes[i];
	}
	return NULL;
}
