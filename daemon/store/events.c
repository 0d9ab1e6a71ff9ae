/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events: numbered, appended, read by number. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"

void tm_event_done(struct tm_event *e)
{
	free(e->data);
	e->data = NULL;
}

static int append_event(struct tm_store *s, struct tm_event *e, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db,
			   "INSERT INTO events (time_usec, type, severity, pool, pool_name,"
			   " volume_name, operation, message, data)"
			   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			   "record an event", err);
	if (r < 0)
		return r;
	tm_bind_time(&q, e->time_usec);
	tm_bind_text(&q, tm_event_slug(e->type));
	tm_bind_u64(&q, (uint64_t)tm_event_severity(e->type));
	tm_bind_text(&q, e->pool.text);
	tm_bind_text(&q, e->pool_name);
	tm_bind_text(&q, e->volume_name);
	tm_bind_text(&q, e->operation);
	tm_bind_text(&q, e->message);
	tm_bind_text(&q, e->data);
	r = tm_query_run(&q);
	if (r < 0)
		return r;
	e->seq = (uint64_t)sqlite3_last_insert_rowid(s->db.handle);
	return 0;
}

int tm_store_append_events(struct tm_store *s, struct tm_event *events, size_t n,
			   struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++)
		r = append_event(s, &events[i], err);
	r = tm_store_end(s, r, err);
	/* A number that was not committed may be given again: leave none behind. */
	for (size_t i = 0; i < n && r < 0; i++)
		events[i].seq = 0;
	return r;
}

/* 1 when the row's type is known (a type that a later version dropped is passed over). */
static int get_event(struct tm_query *q, struct tm_event *e)
{
	char type[64];

	e->seq = tm_get_u64(q);
	e->time_usec = tm_get_u64(q);
	tm_get_text(q, type, sizeof(type));
	tm_get_uuid(q, &e->pool);
	tm_get_text(q, e->pool_name, sizeof(e->pool_name));
	tm_get_text(q, e->volume_name, sizeof(e->volume_name));
	tm_get_text(q, e->operation, sizeof(e->operation));
	tm_get_text(q, e->message, sizeof(e->message));
	e->data = tm_get_text_dup(q);
	return tm_event_from_slug(type, &e->type) == 0;
}

static int collect(struct tm_query *q, struct tm_event **ret, size_t *ret_n, struct tm_error *err)
{
	void *array = NULL;
	size_t n = 0;
	int r;

	while ((r = tm_query_step(q)) > 0) {
		struct tm_event *e = tm_grow(&array, n, sizeof(*e), err);

		if (!e) {
			r = -ENOMEM;
			break;
		}
		if (get_event(q, e))
			n++;
		else
			tm_event_done(e);
	}
	if (r < 0) {
		for (size_t i = 0; i < n; i++)
			tm_event_done((struct tm_event *)array + i);
		free(array);
		return r;
	}
	*ret = array;
	*ret_n = n;
	return 0;
}

int tm_store_read_events(struct tm_store_reader *r, const struct tm_event_filter *filter,
			 struct tm_event **ret, size_t *ret_n, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	uint32_t limit = filter->limit;
	char sql[512];
	int rc;

	if (limit == 0 || limit > TM_STORE_LIMIT_MAX)
		limit = TM_STORE_LIMIT_MAX;
	(void)snprintf(
		sql, sizeof(sql),
		"SELECT seq, time_usec, type, pool, pool_name, volume_name, operation,"
		" message, data FROM events WHERE seq > ?%s%s%s%s%s%s ORDER BY seq%s LIMIT ?",
		filter->before_seq ? " AND seq < ?" : "",
		filter->since_usec ? " AND time_usec >= ?" : "",
		filter->until_usec ? " AND time_usec < ?" : "", filter->pool ? " AND pool = ?" : "",
		filter->type >= 0 ? " AND type = ?" : "",
		filter->min_severity > TM_SEV_INFO ? " AND severity >= ?" : "",
		filter->newest_first ? " DESC" : "");
	rc = tm_query_begin(&q, &r->db, sql, "read the events", err);
	if (rc < 0)
		return rc;
	tm_bind_time(&q, filter->after_seq);
	if (filter->before_seq)
		tm_bind_time(&q, filter->before_seq);
	if (filter->since_usec)
		tm_bind_time(&q, filter->since_usec);
	if (filter->until_usec)
		tm_bind_time(&q, filter->until_usec);
	if (filter->pool)
		tm_bind_text(&q, filter->pool->text);
	if (filter->type >= 0)
		tm_bind_text(&q, tm_event_slug((enum tm_event_type)filter->type));
	if (filter->min_severity > TM_SEV_INFO)
		tm_bind_u64(&q, (uint64_t)filter->min_severity);
	tm_bind_u64(&q, limit);
	return collect(&q, ret, ret_n, err);
}

int tm_store_last_seq(struct tm_store_reader *r, uint64_t *ret, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int rc;

	rc = tm_query_begin(&q, &r->db, "SELECT seq FROM sqlite_sequence WHERE name = 'events'",
			    "read the last event's number", err);
	if (rc < 0)
		return rc;
	rc = tm_query_step(&q);
	if (rc < 0)
		return rc;
	*ret = rc ? tm_get_u64(&q) : 0;
	return 0;
}

int tm_store_expire_events(struct tm_store *s, uint64_t before_usec, struct tm_error *err)
{
	return tm_store_expire(s,
			       "DELETE FROM events WHERE seq IN"
			       " (SELECT seq FROM events WHERE time_usec < ? LIMIT ?)",
			       "delete old events", before_usec, err);
}
