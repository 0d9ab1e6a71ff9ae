/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared inside daemon/store/ only: one SQLite connection with its prepared
 * statements, and a query that reads and binds strictly from left to right.
 */
#ifndef TM_STORE_INTERNAL_H
#define TM_STORE_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "logic/model.h"
#include "store/store.h"

#define TM_STORE_FILE      "state.db"
#define TM_STORE_BUSY_MSEC 10000
#define TM_STORE_LIMIT_MAX 1000

struct tm_db {
	sqlite3 *handle;
	char *path;
	sqlite3_stmt **statements; /* prepared once, found again by their text */
	size_t n_statements;
};

struct tm_store {
	struct tm_db db;
	pthread_mutex_t mutex; /* recursive: held once for each level of begin */
	unsigned int depth;    /* levels of begin; only read or written with the mutex held */
	bool doomed;           /* rolled back inside; the outer levels can only roll back too */
	bool relaxed;          /* the connection is at synchronous=NORMAL now */
};

struct tm_store_reader {
	struct tm_db db;
};

/* db.c: a connection. */

/* Opens DIRECTORY/state.db; @write also makes it. The schema is not looked at. */
int tm_db_open(struct tm_db *db, const char *directory, bool write, struct tm_error *err);
void tm_db_close(struct tm_db *db);
/* Runs SQL text that returns no rows. @what completes "cannot ..." in the error. */
int tm_db_exec(struct tm_db *db, const char *sql, const char *what, struct tm_error *err);
/* Fill @err from SQLite's result code @rc and return the negative errno. */
int tm_db_error(struct tm_db *db, int rc, const char *what, struct tm_error *err);
/* Add the way out for a file that is damaged. */
void tm_db_hint_damaged(const struct tm_db *db, struct tm_error *err);

/*
 * A query: begin, bind every parameter in order, step, get every column in order, end.
 * The first fault in binding or getting is kept and reported by the next step or by tm_query_end.
 */
struct tm_query {
	struct tm_db *db;
	sqlite3_stmt *stmt;
	const char *what; /* completes "cannot ..." */
	struct tm_error *err;
	int parameter, column; /* next one */
	int failed;            /* 0 or negative errno */
};
int tm_query_begin(struct tm_query *q, struct tm_db *db, const char *sql, const char *what,
		   struct tm_error *err);
/* Values above 2^63-1 come back as they were, but do not compare: for times use tm_bind_time. */
void tm_bind_u64(struct tm_query *q, uint64_t value);
/* As tm_bind_u64, but cut to 2^63-1, so that it orders. */
void tm_bind_time(struct tm_query *q, uint64_t usec);
/* NULL binds SQL's NULL. @text must live until the query ends. */
void tm_bind_text(struct tm_query *q, const char *text);
/* 1: a row is there. 0: no more. Negative: failed, and the error is set. */
int tm_query_step(struct tm_query *q);
/* For a query without rows: step to the end. 0 or negative. */
int tm_query_run(struct tm_query *q);
uint64_t tm_get_u64(struct tm_query *q);
uint32_t tm_get_u32(struct tm_query *q);
bool tm_get_bool(struct tm_query *q);
/* Copies text; NULL gives "". Text that does not fit is damage. */
void tm_get_text(struct tm_query *q, char *buf, size_t size);
/* Allocated copy, or NULL for SQL's NULL. */
char *tm_get_text_dup(struct tm_query *q);
void tm_get_uuid(struct tm_query *q, struct tm_uuid *ret);
/* A value that we never write was found: marks the query as failed. */
void tm_query_damaged(struct tm_query *q, const char *column, const char *value);
/* Gives the statement back; the query can begin again. Harmless on a query that failed to begin. */
void tm_query_end(struct tm_query *q);
static inline void tm_query_endp(struct tm_query *q)
{
	tm_query_end(q);
}
#define tm_auto_query tm_cleanup(tm_query_endp)

/*
 * Room for one more in an array that doubles: returns the new element, zeroed, or NULL
 * with the error set. The array then holds *n elements, the new one not counted.
 */
void *tm_grow(void **array, size_t n, size_t size, struct tm_error *err);

/* schema.c */

/* Brings the file to our version; refuses a newer one and a file that is not thinmgr's. */
int tm_schema_migrate(struct tm_db *db, struct tm_error *err);
/* 0 when the file is at exactly our version. */
int tm_schema_check(struct tm_db *db, struct tm_error *err);
/* Looks for damage in everything but the samples, whose size could hold up the start. */
int tm_schema_verify(struct tm_db *db, struct tm_error *err);
int tm_schema_version(void);

/* store.c */

/* As tm_store_begin, for data that may be lost with the machine's power: no fsync at commit. */
int tm_store_begin_relaxed(struct tm_store *s, struct tm_error *err);
/* Ends what begin began: commits when @r is 0, else rolls back. Returns @r or the commit's error.
 */
int tm_store_end(struct tm_store *s, int r, struct tm_error *err);

/*
 * Delete rows in short transactions, until none is left: @sql takes the time before which they are
 * old, and the most it may delete.
 */
int tm_store_expire(struct tm_store *s, const char *sql, const char *what, uint64_t before_usec,
		    struct tm_error *err);

/* Parts of tm_store_rollup; each in transactions of its own that are short. */
int tm_store_rollup_samples(struct tm_store *s, uint64_t now_usec, struct tm_error *err);
int tm_store_expire_events(struct tm_store *s, uint64_t before_usec, struct tm_error *err);
int tm_store_expire_operations(struct tm_store *s, uint64_t before_usec, struct tm_error *err);

#endif
