/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Samples: appended raw, rolled up as they grow old, joined into buckets when read.
 *
 * A bucket has the values of the newest sample in it, the highest data use, the
 * worst mode, and how many raw samples it stands for. Joining buckets gives the same as joining
 * the samples they were made of, so rolling up in two stages loses nothing more than one.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/units.h"
#include "store/internal.h"

#define MINUTE_USEC (60 * TM_USEC_PER_SEC)
#define HOUR_USEC   (60 * MINUTE_USEC)
#define DAY_USEC    (24 * HOUR_USEC)

#define KEEP_RAW_USEC    DAY_USEC
#define KEEP_MINUTE_USEC (30 * DAY_USEC)
#define KEEP_HOUR_USEC   (2 * 365 * DAY_USEC)

/* Most samples one read gives when the caller sets no limit. */
#define READ_MAX 100000

/* In the database: seconds in a bucket, 0 for raw. */
#define RAW    0
#define MINUTE 60
#define HOUR   3600

struct bucket {
	struct tm_sample sample; /* time_usec: where the bucket begins */
	uint64_t last_usec;      /* of the newest sample in it */
	bool used;
};

static void bucket_add(struct bucket *b, uint64_t begin_usec, const struct tm_sample *s,
		       uint64_t last_usec)
{
	uint32_t count = 0;
	uint64_t highest = 0;
	enum tm_pool_mode worst = TM_MODE_WRITE;

	if (b->used) {
		count = b->sample.count;
		highest = b->sample.data_used_max_bytes;
		worst = b->sample.mode;
	}
	if (!b->used || last_usec >= b->last_usec) {
		b->sample = *s;
		b->last_usec = last_usec;
	}
	b->sample.time_usec = begin_usec;
	b->sample.count = s->count > UINT32_MAX - count ? UINT32_MAX : s->count + count;
	b->sample.data_used_max_bytes = s->data_used_max_bytes > highest ? s->data_used_max_bytes
									 : highest;
	b->sample.mode = s->mode > worst ? s->mode : worst;
	b->used = true;
}

#define SAMPLE_COLUMNS                                                               \
	"time_usec, last_usec, data_used, data_used_max, data_total, metadata_used," \
	" metadata_total, mode, count"

static void bind_sample(struct tm_query *q, const struct tm_sample *s, uint64_t last_usec)
{
	tm_bind_time(q, s->time_usec);
	tm_bind_time(q, last_usec);
	tm_bind_u64(q, s->data_used_bytes);
	tm_bind_u64(q, s->data_used_max_bytes);
	tm_bind_u64(q, s->data_total_bytes);
	tm_bind_u64(q, s->metadata_used_bytes);
	tm_bind_u64(q, s->metadata_total_bytes);
	tm_bind_u64(q, (uint64_t)s->mode);
	tm_bind_u64(q, s->count);
}

static void get_sample(struct tm_query *q, struct tm_sample *s, uint64_t *ret_last_usec)
{
	uint64_t mode;

	s->time_usec = tm_get_u64(q);
	*ret_last_usec = tm_get_u64(q);
	s->data_used_bytes = tm_get_u64(q);
	s->data_used_max_bytes = tm_get_u64(q);
	s->data_total_bytes = tm_get_u64(q);
	s->metadata_used_bytes = tm_get_u64(q);
	s->metadata_total_bytes = tm_get_u64(q);
	mode = tm_get_u64(q);
	s->count = tm_get_u32(q);
	if (mode > TM_MODE_FAIL) {
		tm_query_damaged(q, "mode", "out of range");
		mode = TM_MODE_FAIL;
	}
	s->mode = (enum tm_pool_mode)mode;
}

static int append_sample(struct tm_store *s, const struct tm_pool_sample *p, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	struct tm_sample sample = p->sample;
	int r;

	if (sample.count == 0)
		sample.count = 1;
	if (sample.data_used_max_bytes < sample.data_used_bytes)
		sample.data_used_max_bytes = sample.data_used_bytes;
	/* A pool deleted since the sample was taken takes nothing, and fails nothing. */
	r = tm_query_begin(&q, &s->db,
			   "INSERT OR REPLACE INTO samples (" SAMPLE_COLUMNS ", resolution, pool)"
			   " SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, key FROM pools WHERE id = ?",
			   "record a sample", err);
	if (r < 0)
		return r;
	bind_sample(&q, &sample, sample.time_usec);
	tm_bind_text(&q, p->pool.text);
	return tm_query_run(&q);
}

int tm_store_append_samples(struct tm_store *s, const struct tm_pool_sample *samples, size_t n,
			    struct tm_error *err)
{
	int r = tm_store_begin_relaxed(s, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++)
		r = append_sample(s, &samples[i], err);
	return tm_store_end(s, r, err);
}

/* Adds to what the bucket's row holds already, for samples that come late (a clock set back). */
static int store_bucket(struct tm_store *s, uint64_t pool, uint64_t resolution,
			const struct bucket *add, struct tm_error *err)
{
	tm_auto_query struct tm_query get = { 0 };
	tm_auto_query struct tm_query put = { 0 };
	struct bucket b = { 0 };
	int r;

	r = tm_query_begin(&get, &s->db,
			   "SELECT " SAMPLE_COLUMNS " FROM samples"
			   " WHERE pool = ? AND resolution = ? AND time_usec = ?",
			   "read a sample", err);
	if (r < 0)
		return r;
	tm_bind_u64(&get, pool);
	tm_bind_u64(&get, resolution);
	tm_bind_time(&get, add->sample.time_usec);
	r = tm_query_step(&get);
	if (r > 0) {
		get_sample(&get, &b.sample, &b.last_usec);
		b.used = true;
		r = get.failed;
	}
	if (r < 0)
		return r;
	bucket_add(&b, add->sample.time_usec, &add->sample, add->last_usec);

	r = tm_query_begin(&put, &s->db,
			   "INSERT OR REPLACE INTO samples (" SAMPLE_COLUMNS ", resolution, pool)"
			   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			   "roll up samples", err);
	if (r < 0)
		return r;
	bind_sample(&put, &b.sample, b.last_usec);
	tm_bind_u64(&put, resolution);
	tm_bind_u64(&put, pool);
	return tm_query_run(&put);
}

static int delete_samples(struct tm_store *s, uint64_t pool, uint64_t resolution,
			  uint64_t before_usec, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(
		&q, &s->db,
		"DELETE FROM samples WHERE pool = ? AND resolution = ? AND time_usec < ?",
		"delete old samples", err);
	if (r < 0)
		return r;
	tm_bind_u64(&q, pool);
	tm_bind_u64(&q, resolution);
	tm_bind_time(&q, before_usec);
	return tm_query_run(&q);
}

/*
 * Moves what is older than @before_usec (a boundary of the coarser buckets, so that a bucket is
 * made whole and once) from one resolution to the next.
 */
static int move_samples(struct tm_store *s, uint64_t pool, uint64_t from, uint64_t to,
			uint64_t before_usec, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	uint64_t width = to * TM_USEC_PER_SEC;
	struct bucket b = { 0 };
	bool any = false;
	int r;

	r = tm_query_begin(
		&q, &s->db,
		"SELECT " SAMPLE_COLUMNS " FROM samples"
		" WHERE pool = ? AND resolution = ? AND time_usec < ? ORDER BY time_usec",
		"read old samples", err);
	if (r < 0)
		return r;
	tm_bind_u64(&q, pool);
	tm_bind_u64(&q, from);
	tm_bind_time(&q, before_usec);
	while ((r = tm_query_step(&q)) > 0) {
		struct tm_sample sample;
		uint64_t last, begin;

		get_sample(&q, &sample, &last);
		if (q.failed)
			return q.failed;
		begin = tm_round_down(sample.time_usec, width);
		if (b.used && b.sample.time_usec != begin) {
			r = store_bucket(s, pool, to, &b, err);
			if (r < 0)
				return r;
			b.used = false;
		}
		bucket_add(&b, begin, &sample, last);
		any = true;
	}
	if (r < 0 || !any)
		return r;
	tm_query_end(&q);
	r = store_bucket(s, pool, to, &b, err);
	return r < 0 ? r : delete_samples(s, pool, from, before_usec, err);
}

static int rollup_pool(struct tm_store *s, uint64_t pool, uint64_t now_usec, struct tm_error *err)
{
	int r = 0;

	if (now_usec > KEEP_RAW_USEC)
		r = move_samples(s, pool, RAW, MINUTE,
				 tm_round_down(now_usec - KEEP_RAW_USEC, MINUTE_USEC), err);
	if (r == 0 && now_usec > KEEP_MINUTE_USEC)
		r = move_samples(s, pool, MINUTE, HOUR,
				 tm_round_down(now_usec - KEEP_MINUTE_USEC, HOUR_USEC), err);
	if (r == 0 && now_usec > KEEP_HOUR_USEC)
		r = delete_samples(s, pool, HOUR,
				   tm_round_down(now_usec - KEEP_HOUR_USEC, HOUR_USEC), err);
	return r;
}

static int pool_keys(struct tm_store *s, uint64_t **ret, size_t *ret_n, struct tm_error *err)
{
	TM_LOCK_SCOPE(&s->mutex);
	tm_auto_query struct tm_query q = { 0 };
	tm_auto_free void *keys = NULL;
	size_t n = 0;
	int r;

	r = tm_query_begin(&q, &s->db, "SELECT key FROM pools", "read the pools", err);
	if (r < 0)
		return r;
	while ((r = tm_query_step(&q)) > 0) {
		uint64_t *key = tm_grow(&keys, n, sizeof(*key), err);

		if (!key)
			return -ENOMEM;
		*key = tm_get_u64(&q);
		n++;
	}
	if (r < 0)
		return r;
	*ret = TM_TAKE(keys);
	*ret_n = n;
	return 0;
}

int tm_store_rollup_samples(struct tm_store *s, uint64_t now_usec, struct tm_error *err)
{
	tm_auto_free uint64_t *keys = NULL;
	size_t n = 0;
	int r;

	r = pool_keys(s, &keys, &n, err);
	/* A pool at a time: whoever waits for the writer waits for one pool's samples. */
	for (size_t i = 0; i < n && r == 0; i++) {
		r = tm_store_begin_relaxed(s, err);
		if (r == 0)
			r = tm_store_end(s, rollup_pool(s, keys[i], now_usec, err), err);
	}
	return r;
}

/* The three resolutions in one order of time; each part comes ordered out of the table. */
#define PART(resolution)                                      \
	"SELECT " SAMPLE_COLUMNS " FROM samples"              \
	" WHERE pool = (SELECT key FROM pools WHERE id = ?1)" \
	" AND resolution = " #resolution " AND time_usec >= ?2 AND time_usec < ?3"

static const char sql_read_samples[] =
	PART(0) " UNION ALL " PART(60) " UNION ALL " PART(3600) " ORDER BY 1";

int tm_store_read_samples(struct tm_store_reader *r, const struct tm_uuid *pool, uint64_t from_usec,
			  uint64_t until_usec, uint64_t step_usec, uint32_t limit,
			  struct tm_sample **ret, size_t *ret_n, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	tm_auto_free void *samples = NULL;
	struct bucket b = { 0 };
	size_t n = 0;
	int rc;

	if (limit == 0 || limit > READ_MAX)
		limit = READ_MAX;
	rc = tm_query_begin(&q, &r->db, sql_read_samples, "read samples", err);
	if (rc < 0)
		return rc;
	tm_bind_text(&q, pool->text);
	tm_bind_time(&q, from_usec);
	tm_bind_time(&q, until_usec);
	while (n < limit && (rc = tm_query_step(&q)) > 0) {
		struct tm_sample sample, *out;
		uint64_t last, begin;

		get_sample(&q, &sample, &last);
		if (q.failed)
			return q.failed;
		begin = step_usec ? tm_round_down(sample.time_usec, step_usec) : sample.time_usec;
		if (b.used && (!step_usec || b.sample.time_usec != begin)) {
			out = tm_grow(&samples, n, sizeof(*out), err);
			if (!out)
				return -ENOMEM;
			*out = b.sample;
			n++;
			b.used = false;
		}
		bucket_add(&b, begin, &sample, last);
	}
	if (rc < 0)
		return rc;
	if (b.used && n < limit) {
		struct tm_sample *out = tm_grow(&samples, n, sizeof(*out), err);

		if (!out)
			return -ENOMEM;
		*out = b.sample;
		n++;
	}
	*ret = TM_TAKE(samples);
	*ret_n = n;
	return 0;
}
