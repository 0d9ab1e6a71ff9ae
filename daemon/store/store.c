/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The writer and the readers: opening, closing, transactions, upkeep. */
#include <errno.h>
#include <stdlib.h>

#include "store/internal.h"

/* Rows deleted in one transaction: short enough that others hardly wait. */
#define EXPIRE_BATCH 5000

int tm_store_new(const char *directory, struct tm_store **ret, struct tm_error *err)
{
	pthread_mutexattr_t attr;
	struct tm_store *s;
	int r;

	s = calloc(1, sizeof(*s));
	if (!s)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	r = pthread_mutexattr_init(&attr);
	if (r == 0) {
		r = pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
		if (r == 0)
			r = pthread_mutex_init(&s->mutex, &attr);
		(void)pthread_mutexattr_destroy(&attr);
	}
	if (r != 0) {
		free(s);
		return tm_error_set(err, TM_ERR_INTERNAL, r, "cannot make a mutex");
	}
	r = tm_db_open(&s->db, directory, true, err);
	if (r == 0)
		r = tm_schema_migrate(&s->db, err);
	if (r == 0)
		r = tm_schema_verify(&s->db, err);
	if (r < 0) {
		(void)tm_store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct tm_store *tm_store_free(struct tm_store *store)
{
	if (!store)
		return NULL;
	tm_db_close(&store->db);
	(void)pthread_mutex_destroy(&store->mutex);
	free(store);
	return NULL;
}

int tm_store_reader_new(const char *directory, struct tm_store_reader **ret, struct tm_error *err)
{
	struct tm_store_reader *reader;
	int r;

	reader = calloc(1, sizeof(*reader));
	if (!reader)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	r = tm_db_open(&reader->db, directory, false, err);
	if (r == 0)
		r = tm_schema_check(&reader->db, err);
	if (r < 0) {
		(void)tm_store_reader_free(reader);
		return r;
	}
	*ret = reader;
	return 0;
}

struct tm_store_reader *tm_store_reader_free(struct tm_store_reader *reader)
{
	if (!reader)
		return NULL;
	tm_db_close(&reader->db);
	free(reader);
	return NULL;
}

/* The connection's level is only moved when the next transaction needs another one. */
static int set_relaxed(struct tm_store *s, bool relaxed, struct tm_error *err)
{
	int r;

	if (s->relaxed == relaxed)
		return 0;
	r = tm_db_exec(&s->db, relaxed ? "PRAGMA synchronous=NORMAL" : "PRAGMA synchronous=FULL",
		       "set how commits reach the disk", err);
	if (r == 0)
		s->relaxed = relaxed;
	return r;
}

static int run(struct tm_store *s, const char *sql, const char *what, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db, sql, what, err);
	return r < 0 ? r : tm_query_run(&q);
}

static int begin(struct tm_store *s, bool relaxed, struct tm_error *err)
{
	int r = 0;

	(void)pthread_mutex_lock(&s->mutex);
	if (s->depth == 0) {
		r = set_relaxed(s, relaxed, err);
		if (r == 0)
			r = run(s, "BEGIN IMMEDIATE", "begin a change", err);
	} else {
		/* SQLite rolls back by itself on some errors: nothing may be written then. */
		if (sqlite3_get_autocommit(s->db.handle))
			s->doomed = true;
		if (s->doomed)
			r = tm_error_set(err, TM_ERR_STORE, ECANCELED,
					 "cannot change %s: an earlier part of this change failed",
					 s->db.path);
	}
	if (r < 0) {
		(void)pthread_mutex_unlock(&s->mutex);
		return r;
	}
	s->depth++;
	return 0;
}

int tm_store_begin(struct tm_store *s, struct tm_error *err)
{
	return begin(s, false, err);
}

int tm_store_begin_relaxed(struct tm_store *s, struct tm_error *err)
{
	return begin(s, true, err);
}

static void roll_back(struct tm_store *s)
{
	if (!sqlite3_get_autocommit(s->db.handle))
		(void)run(s, "ROLLBACK", "roll back", NULL);
}

/* Gives up one level and the two holds on the mutex: the level's and the caller's. */
static void leave(struct tm_store *s)
{
	if (--s->depth == 0)
		s->doomed = false;
	(void)pthread_mutex_unlock(&s->mutex);
	(void)pthread_mutex_unlock(&s->mutex);
}

int tm_store_commit(struct tm_store *s, struct tm_error *err)
{
	int r = 0;

	(void)pthread_mutex_lock(&s->mutex);
	if (s->depth == 0) {
		(void)pthread_mutex_unlock(&s->mutex);
		return tm_error_set(err, TM_ERR_INTERNAL, EINVAL, "commit without begin");
	}
	if (s->doomed || sqlite3_get_autocommit(s->db.handle)) {
		s->doomed = true;
		r = tm_error_set(err, TM_ERR_STORE, ECANCELED,
				 "cannot change %s: a part of this change failed", s->db.path);
	} else if (s->depth == 1) {
		r = run(s, "COMMIT", "commit a change", err);
		if (r < 0)
			roll_back(s);
	}
	leave(s);
	return r;
}

void tm_store_rollback(struct tm_store *s)
{
	(void)pthread_mutex_lock(&s->mutex);
	if (s->depth == 0) {
		(void)pthread_mutex_unlock(&s->mutex);
		return;
	}
	roll_back(s);
	s->doomed = true;
	leave(s);
}

int tm_store_end(struct tm_store *s, int r, struct tm_error *err)
{
	if (r == 0)
		return tm_store_commit(s, err);
	tm_store_rollback(s);
	return r;
}

static int expire_batch(struct tm_store *s, const char *sql, const char *what, uint64_t before_usec,
			struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, &s->db, sql, what, err);
	if (r < 0)
		return r;
	tm_bind_time(&q, before_usec);
	tm_bind_u64(&q, EXPIRE_BATCH);
	return tm_query_run(&q);
}

int tm_store_expire(struct tm_store *s, const char *sql, const char *what, uint64_t before_usec,
		    struct tm_error *err)
{
	int r, deleted = EXPIRE_BATCH;

	while (deleted == EXPIRE_BATCH) {
		r = tm_store_begin_relaxed(s, err);
		if (r < 0)
			return r;
		r = expire_batch(s, sql, what, before_usec, err);
		deleted = r == 0 ? sqlite3_changes(s->db.handle) : 0;
		r = tm_store_end(s, r, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int tm_store_rollup(struct tm_store *s, uint64_t now_realtime_usec, uint64_t keep_events_usec,
		    struct tm_error *err)
{
	uint64_t before;
	int r;

	r = tm_store_rollup_samples(s, now_realtime_usec, err);
	if (r < 0 || keep_events_usec >= now_realtime_usec)
		return r;
	before = now_realtime_usec - keep_events_usec;
	r = tm_store_expire_events(s, before, err);
	return r < 0 ? r : tm_store_expire_operations(s, before, err);
}
