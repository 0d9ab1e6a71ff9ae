/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pools and volumes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"

/* Indexed by enum tm_backing_kind. */
static const char *const backing_names[] = { [TM_BACKING_FILE] = "file" };

/* Is there a row for the two texts? 1, 0 or negative. */
static int exists(struct tm_store *s, const char *sql, const char *what, const char *a,
		  const char *b, const char *c, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db, sql, what, err);
	if (r < 0)
		return r;
	tm_bind_text(&q, a);
	if (b)
		tm_bind_text(&q, b);
	if (c)
		tm_bind_text(&q, c);
	return tm_query_step(&q);
}

static void bind_policy(struct tm_query *q, const struct tm_extend_policy *p)
{
	tm_bind_u64(q, p->enabled);
	tm_bind_u64(q, p->low_water_percent);
	tm_bind_u64(q, p->step_percent);
	tm_bind_u64(q, p->step_min_bytes);
	tm_bind_u64(q, p->maximum_bytes);
}

static void get_policy(struct tm_query *q, struct tm_extend_policy *p)
{
	p->enabled = tm_get_bool(q);
	p->low_water_percent = tm_get_u32(q);
	p->step_percent = tm_get_u32(q);
	p->step_min_bytes = tm_get_u64(q);
	p->maximum_bytes = tm_get_u64(q);
}

/* One order for writing and reading. */
#define POOL_COLUMNS                                                                      \
	"id, name, backing, directory, sparse, block_bytes, zeroing, discard,"            \
	" discard_passdown, when_full, data_bytes, data_reserve_bytes, metadata_bytes,"   \
	" metadata_reserve_bytes, low_water_bytes, transaction_id, next_dev_id, active,"  \
	" data_extend, data_low_water_percent, data_step_percent, data_step_min_bytes,"   \
	" data_maximum_bytes, metadata_extend, metadata_low_water_percent,"               \
	" metadata_step_percent, metadata_step_min_bytes, metadata_maximum_bytes,"        \
	" activate_at_start, sample_seconds, repair, keep_copies, keep_days, copy_hours," \
	" check_days, check_volumes, checked_usec, copied_usec, created_usec"

/*
 * The sizes and the mark of a row that exists belong to tm_store_set_sizes, the times of checks to
 * tm_store_set_checked.
 */
static const char sql_put_pool[] =
	"INSERT INTO pools (" POOL_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
	" ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	" ON CONFLICT (id) DO UPDATE SET name = excluded.name, backing = excluded.backing,"
	" directory = excluded.directory, sparse = excluded.sparse,"
	" block_bytes = excluded.block_bytes, zeroing = excluded.zeroing,"
	" discard = excluded.discard, discard_passdown = excluded.discard_passdown,"
	" when_full = excluded.when_full, transaction_id = excluded.transaction_id,"
	" next_dev_id = excluded.next_dev_id, active = excluded.active,"
	" data_extend = excluded.data_extend,"
	" data_low_water_percent = excluded.data_low_water_percent,"
	" data_step_percent = excluded.data_step_percent,"
	" data_step_min_bytes = excluded.data_step_min_bytes,"
	" data_maximum_bytes = excluded.data_maximum_bytes,"
	" metadata_extend = excluded.metadata_extend,"
	" metadata_low_water_percent = excluded.metadata_low_water_percent,"
	" metadata_step_percent = excluded.metadata_step_percent,"
	" metadata_step_min_bytes = excluded.metadata_step_min_bytes,"
	" metadata_maximum_bytes = excluded.metadata_maximum_bytes,"
	" activate_at_start = excluded.activate_at_start,"
	" sample_seconds = excluded.sample_seconds, repair = excluded.repair,"
	" keep_copies = excluded.keep_copies, keep_days = excluded.keep_days,"
	" copy_hours = excluded.copy_hours, check_days = excluded.check_days,"
	" check_volumes = excluded.check_volumes,"
	" created_usec = excluded.created_usec";

static int put_pool(struct tm_store *s, const struct tm_pool_record *p, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	if ((size_t)p->backing >= TM_ARRAY_SIZE(backing_names))
		return tm_error_set(err, TM_ERR_INTERNAL, EINVAL,
				    "cannot record pool %s: unknown backing %d", p->name,
				    (int)p->backing);
	r = exists(s, "SELECT 1 FROM pools WHERE name = ? AND id <> ?", "look for a pool's name",
		   p->name, p->id.text, NULL, err);
	if (r < 0)
		return r;
	if (r > 0)
		return tm_error_set(err, TM_ERR_EXISTS, EEXIST, "a pool named %s exists already",
				    p->name);
	r = tm_query_begin(&q, &s->db, sql_put_pool, "record a pool", err);
	if (r < 0)
		return r;
	tm_bind_text(&q, p->id.text);
	tm_bind_text(&q, p->name);
	tm_bind_text(&q, backing_names[p->backing]);
	tm_bind_text(&q, p->directory);
	tm_bind_u64(&q, p->sparse);
	tm_bind_u64(&q, p->block_bytes);
	tm_bind_u64(&q, p->zeroing);
	tm_bind_u64(&q, p->discard);
	tm_bind_u64(&q, p->discard_passdown);
	tm_bind_text(&q, tm_when_full_name(p->when_full));
	tm_bind_u64(&q, p->data_bytes);
	tm_bind_u64(&q, p->data_reserve_bytes);
	tm_bind_u64(&q, p->metadata_bytes);
	tm_bind_u64(&q, p->metadata_reserve_bytes);
	tm_bind_u64(&q, p->low_water_bytes);
	tm_bind_u64(&q, p->transaction_id);
	tm_bind_u64(&q, p->next_dev_id);
	tm_bind_u64(&q, p->active);
	bind_policy(&q, &p->policy.data);
	bind_policy(&q, &p->policy.metadata);
	tm_bind_u64(&q, p->policy.activate_at_start);
	tm_bind_u64(&q, p->policy.sample_seconds);
	tm_bind_text(&q, tm_repair_policy_name(p->policy.repair));
	tm_bind_u64(&q, p->policy.keep_copies);
	tm_bind_u64(&q, p->policy.keep_days);
	tm_bind_u64(&q, p->policy.copy_hours);
	tm_bind_u64(&q, p->policy.check_days);
	tm_bind_u64(&q, p->policy.check_volumes);
	tm_bind_u64(&q, p->checked_usec);
	tm_bind_u64(&q, p->copied_usec);
	tm_bind_u64(&q, p->created_usec);
	return tm_query_run(&q);
}

int tm_store_put_pool(struct tm_store *s, const struct tm_pool_record *pool, struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	return r < 0 ? r : tm_store_end(s, put_pool(s, pool, err), err);
}

static void get_pool(struct tm_query *q, struct tm_pool_record *p)
{
	char backing[32], when_full[32], repair[32];
	size_t i;

	tm_get_uuid(q, &p->id);
	tm_get_text(q, p->name, sizeof(p->name));
	tm_get_text(q, backing, sizeof(backing));
	tm_get_text(q, p->directory, sizeof(p->directory));
	p->sparse = tm_get_bool(q);
	p->block_bytes = tm_get_u32(q);
	p->zeroing = tm_get_bool(q);
	p->discard = tm_get_bool(q);
	p->discard_passdown = tm_get_bool(q);
	tm_get_text(q, when_full, sizeof(when_full));
	p->data_bytes = tm_get_u64(q);
	p->data_reserve_bytes = tm_get_u64(q);
	p->metadata_bytes = tm_get_u64(q);
	p->metadata_reserve_bytes = tm_get_u64(q);
	p->low_water_bytes = tm_get_u64(q);
	p->transaction_id = tm_get_u64(q);
	p->next_dev_id = tm_get_u32(q);
	p->active = tm_get_bool(q);
	get_policy(q, &p->policy.data);
	get_policy(q, &p->policy.metadata);
	p->policy.activate_at_start = tm_get_bool(q);
	p->policy.sample_seconds = tm_get_u32(q);
	tm_get_text(q, repair, sizeof(repair));
	p->policy.keep_copies = tm_get_u32(q);
	p->policy.keep_days = tm_get_u32(q);
	p->policy.copy_hours = tm_get_u32(q);
	p->policy.check_days = tm_get_u32(q);
	p->policy.check_volumes = tm_get_bool(q);
	p->checked_usec = tm_get_u64(q);
	p->copied_usec = tm_get_u64(q);
	p->created_usec = tm_get_u64(q);

	for (i = 0; i < TM_ARRAY_SIZE(backing_names); i++) {
		if (strcmp(backing, backing_names[i]) == 0)
			break;
	}
	if (i == TM_ARRAY_SIZE(backing_names))
		tm_query_damaged(q, "backing", backing);
	else
		p->backing = (enum tm_backing_kind)i;
	if (tm_when_full_parse(when_full, &p->when_full) < 0)
		tm_query_damaged(q, "when_full", when_full);
	if (tm_repair_policy_parse(repair, &p->policy.repair) < 0)
		tm_query_damaged(q, "repair", repair);
}

int tm_store_load_pools(struct tm_store *s, struct tm_pool_record **ret, size_t *ret_n,
			struct tm_error *err)
{
	TM_LOCK_SCOPE(&s->mutex);
	tm_auto_query struct tm_query q = { 0 };
	tm_auto_free void *pools = NULL;
	size_t n = 0;
	int r;

	r = tm_query_begin(&q, &s->db, "SELECT " POOL_COLUMNS " FROM pools ORDER BY name",
			   "read the pools", err);
	if (r < 0)
		return r;
	while ((r = tm_query_step(&q)) > 0) {
		struct tm_pool_record *p = tm_grow(&pools, n, sizeof(*p), err);

		if (!p)
			return -ENOMEM;
		get_pool(&q, p);
		n++;
	}
	if (r < 0)
		return r;
	*ret = TM_TAKE(pools);
	*ret_n = n;
	return 0;
}

int tm_store_load_pool(struct tm_store *s, const struct tm_uuid *pool, struct tm_pool_record *ret,
		       struct tm_error *err)
{
	TM_LOCK_SCOPE(&s->mutex);
	tm_auto_query struct tm_query q = { 0 };
	struct tm_pool_record p = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db, "SELECT " POOL_COLUMNS " FROM pools WHERE id = ?",
			   "read a pool", err);
	if (r < 0)
		return r;
	tm_bind_text(&q, pool->text);
	r = tm_query_step(&q);
	if (r < 0)
		return r;
	if (r == 0)
		return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT, "there is no pool %s",
				    pool->text);
	get_pool(&q, &p);
	if (q.failed)
		return q.failed;
	*ret = p;
	return 0;
}

static int delete_row(struct tm_store *s, const char *sql, const char *what,
		      const struct tm_uuid *id, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db, sql, what, err);
	if (r < 0)
		return r;
	tm_bind_text(&q, id->text);
	return tm_query_run(&q);
}

int tm_store_delete_pool(struct tm_store *s, const struct tm_uuid *pool, struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	if (r < 0)
		return r;
	/* Volumes and samples go with it, by their references. */
	r = delete_row(s, "DELETE FROM pools WHERE id = ?", "delete a pool", pool, err);
	return tm_store_end(s, r, err);
}

static int set_sizes(struct tm_store *s, const struct tm_uuid *pool,
		     const struct tm_pool_sizes *sizes, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db,
			   "UPDATE pools SET data_bytes = ?, data_reserve_bytes = ?,"
			   " metadata_bytes = ?, metadata_reserve_bytes = ?, low_water_bytes = ?"
			   " WHERE id = ?",
			   "record a pool's sizes", err);
	if (r < 0)
		return r;
	tm_bind_u64(&q, sizes->data_bytes);
	tm_bind_u64(&q, sizes->data_reserve_bytes);
	tm_bind_u64(&q, sizes->metadata_bytes);
	tm_bind_u64(&q, sizes->metadata_reserve_bytes);
	tm_bind_u64(&q, sizes->low_water_bytes);
	tm_bind_text(&q, pool->text);
	r = tm_query_run(&q);
	if (r < 0)
		return r;
	if (sqlite3_changes(s->db.handle) == 0)
		return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT, "there is no pool %s",
				    pool->text);
	return 0;
}

int tm_store_set_sizes(struct tm_store *s, const struct tm_uuid *pool,
		       const struct tm_pool_sizes *sizes, struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	return r < 0 ? r : tm_store_end(s, set_sizes(s, pool, sizes, err), err);
}

static int set_checked(struct tm_store *s, const struct tm_uuid *pool, uint64_t checked_usec,
		       uint64_t copied_usec, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db,
			   "UPDATE pools SET checked_usec = ?, copied_usec = ? WHERE id = ?",
			   "record a check of a pool", err);
	if (r < 0)
		return r;
	tm_bind_u64(&q, checked_usec);
	tm_bind_u64(&q, copied_usec);
	tm_bind_text(&q, pool->text);
	r = tm_query_run(&q);
	if (r < 0)
		return r;
	if (sqlite3_changes(s->db.handle) == 0)
		return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT, "there is no pool %s",
				    pool->text);
	return 0;
}

int tm_store_set_checked(struct tm_store *s, const struct tm_uuid *pool, uint64_t checked_usec,
			 uint64_t copied_usec, struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	return r < 0 ? r
		     : tm_store_end(s, set_checked(s, pool, checked_usec, copied_usec, err), err);
}

static int set_uncertain(struct tm_store *s, const struct tm_uuid *pool, const char *why,
			 struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db, "UPDATE pools SET uncertain = ? WHERE id = ?",
			   "record that a pool is uncertain", err);
	if (r < 0)
		return r;
	tm_bind_text(&q, why);
	tm_bind_text(&q, pool->text);
	return tm_query_run(&q);
}

int tm_store_set_uncertain(struct tm_store *s, const struct tm_uuid *pool, const char *why,
			   struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	return r < 0 ? r : tm_store_end(s, set_uncertain(s, pool, why, err), err);
}

int tm_store_get_uncertain(struct tm_store *s, const struct tm_uuid *pool, char *buf, size_t len,
			   struct tm_error *err)
{
	TM_LOCK_SCOPE(&s->mutex);
	tm_auto_query struct tm_query q = { 0 };
	int r;

	buf[0] = '\0';
	r = tm_query_begin(&q, &s->db, "SELECT uncertain FROM pools WHERE id = ?",
			   "read whether a pool is uncertain", err);
	if (r < 0)
		return r;
	tm_bind_text(&q, pool->text);
	r = tm_query_step(&q);
	if (r > 0)
		tm_get_text(&q, buf, len);
	return r < 0 ? r : q.failed;
}

static int put_volume(struct tm_store *s, const struct tm_uuid *pool,
		      const struct tm_volume_record *v, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = exists(s, "SELECT 1 FROM pools WHERE id = ?", "look for a volume's pool", pool->text,
		   NULL, NULL, err);
	if (r < 0)
		return r;
	if (r == 0)
		return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT,
				    "cannot record volume %s: there is no pool %s", v->name,
				    pool->text);
	r = exists(s, "SELECT 1 FROM volumes WHERE pool = ? AND name = ? AND id <> ?",
		   "look for a volume's name", pool->text, v->name, v->id.text, err);
	if (r < 0)
		return r;
	if (r > 0)
		return tm_error_set(err, TM_ERR_EXISTS, EEXIST,
				    "a volume named %s exists already in its pool", v->name);
	r = tm_query_begin(&q, &s->db,
			   "INSERT INTO volumes (id, pool, name, dev_id, size_bytes, origin,"
			   " active, read_only, created_usec, suspect, suspect_usec)"
			   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
			   " ON CONFLICT (id) DO UPDATE SET pool = excluded.pool,"
			   " name = excluded.name, dev_id = excluded.dev_id,"
			   " size_bytes = excluded.size_bytes, origin = excluded.origin,"
			   " active = excluded.active, read_only = excluded.read_only,"
			   " created_usec = excluded.created_usec",
			   "record a volume", err);
	if (r < 0)
		return r;
	tm_bind_text(&q, v->id.text);
	tm_bind_text(&q, pool->text);
	tm_bind_text(&q, v->name);
	tm_bind_u64(&q, v->dev_id);
	tm_bind_u64(&q, v->size_bytes);
	tm_bind_text(&q, v->origin.text);
	tm_bind_u64(&q, v->active);
	tm_bind_u64(&q, v->read_only);
	tm_bind_u64(&q, v->created_usec);
	tm_bind_text(&q, tm_suspicion_name(v->suspect));
	tm_bind_time(&q, v->suspect_usec);
	return tm_query_run(&q);
}

static int set_suspect(struct tm_store *s, const struct tm_uuid *volume, enum tm_suspicion why,
		       uint64_t usec, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r = tm_query_begin(&q, &s->db,
			       "UPDATE volumes SET suspect = ?, suspect_usec = ? WHERE id = ?",
			       "record whether a volume is suspect", err);

	if (r < 0)
		return r;
	tm_bind_text(&q, tm_suspicion_name(why));
	tm_bind_time(&q, usec);
	tm_bind_text(&q, volume->text);
	return tm_query_run(&q);
}

int tm_store_set_suspect(struct tm_store *s, const struct tm_uuid *volume, enum tm_suspicion why,
			 uint64_t usec, struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	return r < 0 ? r : tm_store_end(s, set_suspect(s, volume, why, usec, err), err);
}

static int suspect_pool(struct tm_store *s, const struct tm_uuid *pool, enum tm_suspicion why,
			uint64_t usec, uint64_t happened_usec, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r = tm_query_begin(&q, &s->db,
			       "UPDATE volumes SET suspect = ?, suspect_usec = ? WHERE pool = ?"
			       " AND suspect = '' AND active <> 0 AND read_only = 0"
			       " AND created_usec <= ? AND suspect_usec <= ?",
			       "record that volumes are suspect", err);

	if (r < 0)
		return r;
	tm_bind_text(&q, tm_suspicion_name(why));
	tm_bind_time(&q, usec);
	tm_bind_text(&q, pool->text);
	tm_bind_time(&q, happened_usec ? happened_usec : UINT64_MAX);
	tm_bind_time(&q, happened_usec ? happened_usec : UINT64_MAX);
	return tm_query_run(&q);
}

int tm_store_suspect_pool(struct tm_store *s, const struct tm_uuid *pool, enum tm_suspicion why,
			  uint64_t usec, uint64_t happened_usec, struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	return r < 0 ? r
		     : tm_store_end(s, suspect_pool(s, pool, why, usec, happened_usec, err), err);
}

int tm_store_put_volume(struct tm_store *s, const struct tm_uuid *pool,
			const struct tm_volume_record *volume, struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	return r < 0 ? r : tm_store_end(s, put_volume(s, pool, volume, err), err);
}

int tm_store_delete_volume(struct tm_store *s, const struct tm_uuid *volume, struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	if (r < 0)
		return r;
	r = delete_row(s, "DELETE FROM volumes WHERE id = ?", "delete a volume", volume, err);
	return tm_store_end(s, r, err);
}

int tm_store_load_volumes(struct tm_store *s, const struct tm_uuid *pool,
			  struct tm_volume_record **ret, size_t *ret_n, struct tm_error *err)
{
	TM_LOCK_SCOPE(&s->mutex);
	tm_auto_query struct tm_query q = { 0 };
	tm_auto_free void *volumes = NULL;
	char word[32];
	size_t n = 0;
	int r;

	r = tm_query_begin(&q, &s->db,
			   "SELECT id, name, dev_id, size_bytes, origin, active, read_only,"
			   " created_usec, suspect, suspect_usec"
			   " FROM volumes WHERE pool = ? ORDER BY name",
			   "read the volumes", err);
	if (r < 0)
		return r;
	tm_bind_text(&q, pool->text);
	while ((r = tm_query_step(&q)) > 0) {
		struct tm_volume_record *v = tm_grow(&volumes, n, sizeof(*v), err);

		if (!v)
			return -ENOMEM;
		tm_get_uuid(&q, &v->id);
		tm_get_text(&q, v->name, sizeof(v->name));
		v->dev_id = tm_get_u32(&q);
		v->size_bytes = tm_get_u64(&q);
		tm_get_uuid(&q, &v->origin);
		v->active = tm_get_bool(&q);
		v->read_only = tm_get_bool(&q);
		v->created_usec = tm_get_u64(&q);
		tm_get_text(&q, word, sizeof(word));
		if (tm_suspicion_parse(word, &v->suspect) < 0)
			tm_query_damaged(&q, "suspect", word);
		v->suspect_usec = tm_get_u64(&q);
		n++;
	}
	if (r < 0)
		return r;
	*ret = TM_TAKE(volumes);
	*ret_n = n;
	return 0;
}
