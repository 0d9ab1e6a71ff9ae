/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations: the journal that a restart reads, and its history. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"

/* Rows deleted in one transaction, so that nobody waits long for the writer. */
static const char *const status_names[] = {
	[TM_OP_QUEUED] = "queued", [TM_OP_RUNNING] = "running", [TM_OP_UNDOING] = "undoing",
	[TM_OP_DONE] = "done",     [TM_OP_FAILED] = "failed",
};

const char *tm_op_status_name(enum tm_op_status status)
{
	return (size_t)status < TM_ARRAY_SIZE(status_names) ? status_names[status] : "failed";
}

void tm_operation_record_done(struct tm_operation_record *r)
{
	free(r->state);
	free(r->idempotency_key);
	r->state = NULL;
	r->idempotency_key = NULL;
}

#define OPERATION_COLUMNS                                                                  \
	"id, kind, pool, pool_name, volume_name, status, step, n_steps, step_name, state," \
	" error, error_errno, error_field, error_detail, error_hint, created_usec,"        \
	" started_usec, finished_usec, idempotency_key"

static const char sql_put_operation[] =
	"INSERT INTO operations (" OPERATION_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
	" ?, ?, ?, ?, ?, ?, ?, ?)"
	" ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, pool = excluded.pool,"
	" pool_name = excluded.pool_name, volume_name = excluded.volume_name,"
	" status = excluded.status, step = excluded.step, n_steps = excluded.n_steps,"
	" step_name = excluded.step_name, state = excluded.state, error = excluded.error,"
	" error_errno = excluded.error_errno, error_field = excluded.error_field,"
	" error_detail = excluded.error_detail, error_hint = excluded.error_hint,"
	" created_usec = excluded.created_usec, started_usec = excluded.started_usec,"
	" finished_usec = excluded.finished_usec, idempotency_key = excluded.idempotency_key";

static int put_operation(struct tm_store *s, const struct tm_operation_record *o,
			 struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db, sql_put_operation, "record an operation", err);
	if (r < 0)
		return r;
	tm_bind_text(&q, o->id.text);
	tm_bind_text(&q, o->kind);
	tm_bind_text(&q, o->pool.text);
	tm_bind_text(&q, o->pool_name);
	tm_bind_text(&q, o->volume_name);
	tm_bind_text(&q, tm_op_status_name(o->status));
	tm_bind_u64(&q, o->step);
	tm_bind_u64(&q, o->n_steps);
	tm_bind_text(&q, o->step_name);
	tm_bind_text(&q, o->state);
	tm_bind_text(&q, o->error.code == TM_OK ? NULL : tm_error_slug(o->error.code));
	tm_bind_u64(&q, (uint64_t)o->error.errnum);
	tm_bind_text(&q, o->error.field);
	tm_bind_text(&q, o->error.detail);
	tm_bind_text(&q, o->error.hint);
	tm_bind_time(&q, o->created_usec);
	tm_bind_time(&q, o->started_usec);
	tm_bind_time(&q, o->finished_usec);
	tm_bind_text(&q, o->idempotency_key);
	return tm_query_run(&q);
}

int tm_store_put_operation(struct tm_store *s, const struct tm_operation_record *r,
			   struct tm_error *err)
{
	int ret = tm_store_begin(s, err);

	return ret < 0 ? ret : tm_store_end(s, put_operation(s, r, err), err);
}

static int step_operation(struct tm_store *s, const struct tm_uuid *id, enum tm_op_status status,
			  uint32_t step, const char *step_name, const char *state,
			  struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db,
			   "UPDATE operations SET status = ?, step = ?, step_name = ?,"
			   " state = coalesce(?, state) WHERE id = ?",
			   "record an operation's step", err);
	if (r < 0)
		return r;
	tm_bind_text(&q, tm_op_status_name(status));
	tm_bind_u64(&q, step);
	tm_bind_text(&q, step_name);
	tm_bind_text(&q, state);
	tm_bind_text(&q, id->text);
	r = tm_query_run(&q);
	if (r < 0)
		return r;
	if (sqlite3_changes(s->db.handle) == 0)
		return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT, "there is no operation %s",
				    id->text);
	return 0;
}

int tm_store_step_operation(struct tm_store *s, const struct tm_uuid *id, enum tm_op_status status,
			    uint32_t step, const char *step_name, const char *state,
			    struct tm_error *err)
{
	int r = tm_store_begin(s, err);

	if (r < 0)
		return r;
	return tm_store_end(s, step_operation(s, id, status, step, step_name, state, err), err);
}

static void get_operation(struct tm_query *q, struct tm_operation_record *o)
{
	char status[16], error[64];
	size_t i;

	tm_get_uuid(q, &o->id);
	tm_get_text(q, o->kind, sizeof(o->kind));
	tm_get_uuid(q, &o->pool);
	tm_get_text(q, o->pool_name, sizeof(o->pool_name));
	tm_get_text(q, o->volume_name, sizeof(o->volume_name));
	tm_get_text(q, status, sizeof(status));
	o->step = tm_get_u32(q);
	o->n_steps = tm_get_u32(q);
	tm_get_text(q, o->step_name, sizeof(o->step_name));
	o->state = tm_get_text_dup(q);
	tm_get_text(q, error, sizeof(error));
	o->error.errnum = (int)tm_get_u64(q);
	tm_get_text(q, o->error.field, sizeof(o->error.field));
	tm_get_text(q, o->error.detail, sizeof(o->error.detail));
	tm_get_text(q, o->error.hint, sizeof(o->error.hint));
	o->created_usec = tm_get_u64(q);
	o->started_usec = tm_get_u64(q);
	o->finished_usec = tm_get_u64(q);
	o->idempotency_key = tm_get_text_dup(q);

	for (i = 0; i < TM_ARRAY_SIZE(status_names); i++) {
		if (strcmp(status, status_names[i]) == 0)
			break;
	}
	if (i == TM_ARRAY_SIZE(status_names))
		tm_query_damaged(q, "status", status);
	else
		o->status = (enum tm_op_status)i;
	if (error[0]) {
		o->error.code = tm_error_from_slug(error);
		if (o->error.code == TM_OK)
			tm_query_damaged(q, "error", error);
	}
}

/* All rows of a query that is bound, as an array. */
static int collect(struct tm_query *q, struct tm_operation_record **ret, size_t *ret_n,
		   struct tm_error *err)
{
	void *array = NULL;
	size_t n = 0;
	int r;

	while ((r = tm_query_step(q)) > 0) {
		struct tm_operation_record *o = tm_grow(&array, n, sizeof(*o), err);

		if (!o) {
			r = -ENOMEM;
			break;
		}
		get_operation(q, o);
		n++;
	}
	if (r < 0) {
		for (size_t i = 0; i < n; i++)
			tm_operation_record_done((struct tm_operation_record *)array + i);
		free(array);
		return r;
	}
	*ret = array;
	*ret_n = n;
	return 0;
}

int tm_store_load_unfinished(struct tm_store *s, struct tm_operation_record **ret, size_t *ret_n,
			     struct tm_error *err)
{
	TM_LOCK_SCOPE(&s->mutex);
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db,
			   "SELECT " OPERATION_COLUMNS " FROM operations"
			   " WHERE status IN ('queued', 'running', 'undoing') ORDER BY number",
			   "read the unfinished operations", err);
	return r < 0 ? r : collect(&q, ret, ret_n, err);
}

int tm_store_read_operations(struct tm_store_reader *r, const struct tm_operation_filter *filter,
			     struct tm_operation_record **ret, size_t *ret_n, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	uint32_t limit = filter->limit;
	char sql[768];
	int rc;

	if (limit == 0 || limit > TM_STORE_LIMIT_MAX)
		limit = TM_STORE_LIMIT_MAX;
	(void)snprintf(
		sql, sizeof(sql),
		"SELECT " OPERATION_COLUMNS " FROM operations WHERE true%s%s%s%s"
		" ORDER BY number DESC LIMIT ?",
		filter->pool ? " AND pool = ?" : "", filter->status >= 0 ? " AND status = ?" : "",
		filter->before_usec ? " AND created_usec < ?" : "",
		filter->before ? " AND number < (SELECT number FROM operations WHERE id = ?)" : "");
	rc = tm_query_begin(&q, &r->db, sql, "read the operations", err);
	if (rc < 0)
		return rc;
	if (filter->pool)
		tm_bind_text(&q, filter->pool->text);
	if (filter->status >= 0)
		tm_bind_text(&q, tm_op_status_name((enum tm_op_status)filter->status));
	if (filter->before_usec)
		tm_bind_time(&q, filter->before_usec);
	if (filter->before)
		tm_bind_text(&q, filter->before->text);
	tm_bind_u64(&q, limit);
	return collect(&q, ret, ret_n, err);
}

int tm_store_read_operation(struct tm_store_reader *r, const struct tm_uuid *id,
			    struct tm_operation_record *ret, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	struct tm_operation_record o = { 0 };
	int rc;

	rc = tm_query_begin(&q, &r->db, "SELECT " OPERATION_COLUMNS " FROM operations WHERE id = ?",
			    "read an operation", err);
	if (rc < 0)
		return rc;
	tm_bind_text(&q, id->text);
	rc = tm_query_step(&q);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return tm_error_set(err, TM_ERR_NOT_FOUND, ENOENT, "there is no operation %s",
				    id->text);
	get_operation(&q, &o);
	if (q.failed) {
		tm_operation_record_done(&o);
		return q.failed;
	}
	*ret = o;
	return 0;
}

int tm_store_expire_operations(struct tm_store *s, uint64_t before_usec, struct tm_error *err)
{
	return tm_store_expire(s,
			       "DELETE FROM operations WHERE number IN"
			       " (SELECT number FROM operations WHERE status IN ('done', 'failed')"
			       " AND finished_usec < ? LIMIT ?)",
			       "delete old operations", before_usec, err);
}
