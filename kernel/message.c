// SPDX-License-Identifier: GPL-2.0-only
/* Messages to a pool. Each is carried out whole and committed before it is answered, or not at all;
 * grow_data alone is committed with what first uses the space. */

#include "pool.h"

static int parse_id(const char *text, u32 *ret)
{
	return kstrtou32(text, 10, ret) || *ret > DTM_MAX_DEVICE_ID ? -EINVAL : 0;
}

static int parse_u64(const char *text, u64 *ret)
{
	unsigned long long value;

	if (kstrtoull(text, 10, &value))
		return -EINVAL;
	*ret = value;
	return 0;
}

static int create_thin(struct dtm_pool *pool, char **argv)
{
	u32 id;
	int r = parse_id(argv[1], &id);

	return r ? r : dtm_metadata_create_thin(pool->metadata, id);
}

static int create_snap(struct dtm_pool *pool, char **argv)
{
	u32 id, origin;
	int r = parse_id(argv[1], &id);

	if (!r)
		r = parse_id(argv[2], &origin);
	if (r)
		return r;
	/* What the origin's mappings were has to be there, whatever becomes of the rest. */
	r = dtm_pool_commit(pool);
	return r ? r : dtm_metadata_create_snap(pool->metadata, id, origin);
}

static int delete_thin(struct dtm_pool *pool, char **argv)
{
	u32 id;
	int r = parse_id(argv[1], &id);

	return r ? r : dtm_metadata_delete(pool->metadata, id);
}

static int set_transaction_id(struct dtm_pool *pool, char **argv)
{
	u64 current_id, new_id;

	if (parse_u64(argv[1], &current_id) || parse_u64(argv[2], &new_id))
		return -EINVAL;
	return dtm_metadata_set_transaction_id(pool->metadata, current_id, new_id);
}

static int reserve_metadata_snap(struct dtm_pool *pool, char **argv)
{
	int r = dtm_pool_commit(pool);

	return r ? r : dtm_metadata_reserve_snap(pool->metadata);
}

static int release_metadata_snap(struct dtm_pool *pool, char **argv)
{
	return dtm_metadata_release_snap(pool->metadata);
}

static int set_low_water(struct dtm_pool *pool, char **argv)
{
	u64 blocks;

	if (parse_u64(argv[1], &blocks))
		return -EINVAL;
	pool->low_water = blocks;
	dtm_low_water_set(&pool->data_mark, blocks);
	dtm_pool_wake(pool); /* what is low by it is told now */
	return 0;
}

static int set_metadata_low_water(struct dtm_pool *pool, char **argv)
{
	u64 blocks;

	if (parse_u64(argv[1], &blocks))
		return -EINVAL;
	pool->set_metadata_mark = blocks;
	dtm_pool_set_metadata_mark(pool);
	dtm_pool_wake(pool);
	return 0;
}

static int grow_data(struct dtm_pool *pool, char **argv)
{
	u64 blocks;
	int r;

	if (parse_u64(argv[1], &blocks))
		return -EINVAL;
	r = dtm_pool_grow_data(pool, blocks);
	if (!r && pool->line)
		pool->line->grown = true;
	return r;
}

static int grow_metadata(struct dtm_pool *pool, char **argv)
{
	u64 blocks;

	return parse_u64(argv[1], &blocks) ? -EINVAL : dtm_pool_grow_metadata(pool, blocks);
}

static const struct {
	const char *name;
	unsigned int argc;
	int (*fn)(struct dtm_pool *pool, char **argv);
	bool changes_metadata;
} messages[] = {
	{ "create_thin", 2, create_thin, true },
	{ "create_snap", 3, create_snap, true },
	{ "delete", 2, delete_thin, true },
	{ "set_transaction_id", 3, set_transaction_id, true },
	{ "reserve_metadata_snap", 1, reserve_metadata_snap, true },
	{ "release_metadata_snap", 1, release_metadata_snap, true },
	{ "set_low_water", 2, set_low_water, false },
	{ "set_metadata_low_water", 2, set_metadata_low_water, false },
	{ "grow_data", 2, grow_data, false },
	{ "grow_metadata", 2, grow_metadata, false },
};

static int carry_out(struct dtm_pool *pool, unsigned int i, char **argv)
{
	struct dtm_metadata_sizes sizes;
	int r;

	if (messages[i].changes_metadata) {
		if (!dtm_mode_may_change(pool->mode))
			return -EOPNOTSUPP;
		r = dtm_metadata_sizes(pool->metadata, &sizes);
		if (r)
			return r;
		/* A refusal costs nothing; running into the reserve costs the transaction. What
		 * frees space is let through, and the number LVM2 sets after each delete, which
		 * takes none. */
		if (!sizes.metadata_free && messages[i].fn != delete_thin &&
		    messages[i].fn != release_metadata_snap &&
		    messages[i].fn != set_transaction_id) {
			r = dtm_pool_commit(pool); /* it gives back what it replaced */
			if (!r)
				r = dtm_metadata_sizes(pool->metadata, &sizes);
			if (r)
				return r;
			if (!sizes.metadata_free)
				return -ENOSPC;
		}
	}
	r = messages[i].fn(pool, argv);
	/* Refused, for it may take from half of the reserve only: what was replaced, but is not
	 * given back yet, may be all there is. */
	if (dtm_pool_commit_for_room(pool, r))
		r = messages[i].fn(pool, argv);
	if (messages[i].changes_metadata && !r)
		r = dtm_pool_commit(pool);
	if (r)
		dtm_pool_change_failed(pool, messages[i].name, r);
	return r;
}

int dtm_pool_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
		     unsigned int size)
{
	struct dtm_pool_line *line = ti->private;
	struct dtm_pool *pool = line->pool;
	int r = -EINVAL;

	if (!strcasecmp(argv[0], "events")) {
		u64 since;

		if (argc != 2 || parse_u64(argv[1], &since)) {
			DMWARN("%s: the message is: events <number>", dm_device_name(pool->md));
			return -EINVAL;
		}
		if (!dtm_events_print(&pool->events, since, result, size))
			DMWARN("%s: not all events fit", dm_device_name(pool->md));
		return 1;
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(messages); i++) {
		if (strcasecmp(argv[0], messages[i].name))
			continue;
		if (argc != messages[i].argc) {
			DMWARN("%s: message %s takes %u arguments, not %u",
			       dm_device_name(pool->md), messages[i].name, messages[i].argc - 1,
			       argc - 1);
			return -EINVAL;
		}
		dtm_engine_lock(pool);
		r = carry_out(pool, i, argv);
		dtm_engine_unlock(pool);
		if (r)
			DMWARN("%s: message %s failed: error %d", dm_device_name(pool->md),
			       messages[i].name, r);
		else
			dtm_pool_wake(pool); /* space may have been freed */
		return r;
	}
	DMWARN("%s: message %s is not known", dm_device_name(pool->md), argv[0]);
	return r;
}
