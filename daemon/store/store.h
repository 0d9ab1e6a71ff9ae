/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state database: SQLite, WAL. All SQL is in daemon/store/. State (pools, volumes, operations)
 * is committed with synchronous=FULL before a call returns; samples are batched.
 *
 * struct tm_store is the one writer, safe from any thread (a mutex inside; a call may wait for
 * an fsync, so never from the main loop after start-up). struct tm_store_reader is a
 * read-only connection for one thread at a time, which never waits for the writer.
 *
 * Errors: TM_ERR_STORE with SQLite's own words and -EIO, or where the cause is known -ENOSPC (full
 * disk), -EROFS, -EBADMSG (damaged), -EBUSY (another program holds the file for 10 s), -EACCES;
 * TM_ERR_NO_MEMORY. Every uint64_t comes back as it went in; times are cut to 2^63-1. An empty
 * result is NULL and 0.
 */
#ifndef TM_STORE_STORE_H
#define TM_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "logic/model.h"

struct tm_store;
struct tm_store_reader;

/*
 * Opens or makes DIR/state.db (0600), migrates forward. A newer schema than ours is refused
 * (-EPROTO), as is a damaged file (-EBADMSG) and another program's database (-EINVAL), each with
 * what to do. The samples are not searched for damage here: their number could hold up the start.
 */
int tm_store_new(const char *directory, struct tm_store **ret, struct tm_error *err);
struct tm_store *tm_store_free(struct tm_store *store);
/* Needs a file that tm_store_new made or migrated. */
int tm_store_reader_new(const char *directory, struct tm_store_reader **ret, struct tm_error *err);
struct tm_store_reader *tm_store_reader_free(struct tm_store_reader *reader);

/*
 * Several changes as one: everything this thread calls between begin and commit lands
 * together or not at all. Holds the writer; keep it short. Roll back on any error: every changing
 * function that fails has rolled back all of it already (-ECANCELED from whatever follows), and
 * commit fails then. Commit ends the hold whether it succeeds or not; a rollback after that does
 * nothing. Both nest: only the outermost commit writes.
 */
int tm_store_begin(struct tm_store *s, struct tm_error *err);
int tm_store_commit(struct tm_store *s, struct tm_error *err);
void tm_store_rollback(struct tm_store *s);

/* Pools and volumes: insert or replace by id; -EEXIST with TM_ERR_EXISTS for a name in use by
 * another. */
int tm_store_put_pool(struct tm_store *s, const struct tm_pool_record *pool, struct tm_error *err);
/* And its volumes and samples; not its events and operations. One that is not there is no error. */
int tm_store_delete_pool(struct tm_store *s, const struct tm_uuid *pool, struct tm_error *err);
/* -ENOENT with TM_ERR_NOT_FOUND when the pool is not there; -EEXIST as above, names within the
 * pool. */
int tm_store_put_volume(struct tm_store *s, const struct tm_uuid *pool,
			const struct tm_volume_record *volume, struct tm_error *err);
/*
 * Whether volumes are suspect. tm_store_put_volume does NOT touch that on an existing row: it comes
 * beside running operations.
 */
int tm_store_set_suspect(struct tm_store *s, const struct tm_uuid *volume, enum tm_suspicion why,
			 uint64_t usec, struct tm_error *err);
/* The same for all volumes of a pool that it touches: see tm_suspect_touches. */
int tm_store_suspect_pool(struct tm_store *s, const struct tm_uuid *pool, enum tm_suspicion why,
			  uint64_t usec, uint64_t happened_usec, struct tm_error *err);

/* One that is not there is no error. */
int tm_store_delete_volume(struct tm_store *s, const struct tm_uuid *volume, struct tm_error *err);

/*
 * Only the sizes and the mark: what the extension path changes beside running operations, so that
 * neither overwrites what the other wrote. tm_store_put_pool does NOT touch these on an existing
 * row.
 */
struct tm_pool_sizes {
	uint64_t data_bytes, data_reserve_bytes, metadata_bytes, metadata_reserve_bytes;
	uint64_t low_water_bytes;
};
/* Why nothing may change the pool until an administrator acted, over restarts; "": nothing. A pool
 * that is not there is no error. */
int tm_store_set_uncertain(struct tm_store *s, const struct tm_uuid *pool, const char *why,
			   struct tm_error *err);
int tm_store_get_uncertain(struct tm_store *s, const struct tm_uuid *pool, char *buf, size_t len,
			   struct tm_error *err);

/* -ENOENT with TM_ERR_NOT_FOUND when the pool is not there. */
int tm_store_set_sizes(struct tm_store *s, const struct tm_uuid *pool,
		       const struct tm_pool_sizes *sizes, struct tm_error *err);
/* When its metadata was last found sound, and when last copied; 0: never. Likewise. */
int tm_store_set_checked(struct tm_store *s, const struct tm_uuid *pool, uint64_t checked_usec,
			 uint64_t copied_usec, struct tm_error *err);

/* Everything; arrays are the caller's to free. */
int tm_store_load_pools(struct tm_store *s, struct tm_pool_record **ret, size_t *ret_n,
			struct tm_error *err);
int tm_store_load_volumes(struct tm_store *s, const struct tm_uuid *pool,
			  struct tm_volume_record **ret, size_t *ret_n, struct tm_error *err);
/* One pool: 0, or -ENOENT. */
int tm_store_load_pool(struct tm_store *s, const struct tm_uuid *pool, struct tm_pool_record *ret,
		       struct tm_error *err);

/* Operations: the journal. */
enum tm_op_status { TM_OP_QUEUED, TM_OP_RUNNING, TM_OP_UNDOING, TM_OP_DONE, TM_OP_FAILED };
const char *tm_op_status_name(
	enum tm_op_status status); /* "queued", "running", "undoing", "done", "failed" */

struct tm_operation_record {
	struct tm_uuid id;
	char kind[32];       /* "volume-create" */
	struct tm_uuid pool; /* "" when none yet */
	char pool_name[TM_NAME_MAX + 1];
	char volume_name[TM_NAME_MAX + 1]; /* "" when none */
	enum tm_op_status status;
	uint32_t step, n_steps; /* step about to be, being, or last done */
	char step_name[32];
	char *state;           /* JSON text that the steps need after a restart; owned */
	struct tm_error error; /* of a failed one */
	uint64_t created_usec, started_usec, finished_usec;
	char *idempotency_key; /* NULL; later */
	/* Not in the database: only the core knows it of one that goes on. */
	bool live;
	bool cancellable;
	int percent; /* of the step, an estimate; -1: not known */
};
void tm_operation_record_done(struct tm_operation_record *r);

/* Insert or replace by id; one that is replaced keeps its place in the order. */
int tm_store_put_operation(struct tm_store *s, const struct tm_operation_record *r,
			   struct tm_error *err);
/*
 * The cheap form between steps: status, step, name and state (NULL: as it is) of an existing row,
 * one fsync. -ENOENT with TM_ERR_NOT_FOUND when there is no such row.
 */
int tm_store_step_operation(struct tm_store *s, const struct tm_uuid *id, enum tm_op_status status,
			    uint32_t step, const char *step_name, const char *state,
			    struct tm_error *err);
/* Those that were queued, running or undoing, in the order they were made. Free each and the array.
 */
int tm_store_load_unfinished(struct tm_store *s, struct tm_operation_record **ret, size_t *ret_n,
			     struct tm_error *err);

/* Events. Numbers are given at commit, grow, and never repeat, even after deletion or a crash. */
struct tm_event {
	uint64_t seq;
	uint64_t time_usec;
	enum tm_event_type type;
	struct tm_uuid pool; /* "" when none */
	char pool_name[TM_NAME_MAX + 1];
	char volume_name[TM_NAME_MAX + 1];
	char operation[37];
	char message[256]; /* one sentence for people */
	char *data;        /* JSON object text with the figures, or NULL; owned */
};
void tm_event_done(struct tm_event *e);

/*
 * Commits all of them in one transaction and fills each seq (0 on failure). Within a begin of
 * the caller the numbers are only good once that has been committed.
 */
int tm_store_append_events(struct tm_store *s, struct tm_event *events, size_t n,
			   struct tm_error *err);

/*
 * Samples; @n of possibly different pools in one transaction without its own fsync: a crash of the
 * daemon loses none, one of the machine may lose the newest. Those of a pool that is not there are
 * dropped.
 */
struct tm_pool_sample {
	struct tm_uuid pool;
	struct tm_sample sample;
};
int tm_store_append_samples(struct tm_store *s, const struct tm_pool_sample *samples, size_t n,
			    struct tm_error *err);
/*
 * Roll raw samples older than 24 h into minutes, minutes older than 30 d into hours, drop hours
 * older than 2 y (730 d); drop events and finished operations older than @keep_events_usec. A
 * bucket begins at a multiple of its width, has the values of the newest sample in it, the highest
 * data use, the worst mode, and the sum of the counts. Many short transactions: whoever else writes
 * waits for one pool's part at most.
 */
int tm_store_rollup(struct tm_store *s, uint64_t now_realtime_usec, uint64_t keep_events_usec,
		    struct tm_error *err);

/* Reading, from a reader. Arrays are the caller's to free (each element with its _done). */
struct tm_event_filter {
	uint64_t after_seq;              /* only larger numbers */
	uint64_t before_seq;             /* only smaller numbers; 0: all */
	uint64_t since_usec, until_usec; /* 0: open */
	const struct tm_uuid *pool;      /* NULL: any */
	int type;                        /* enum tm_event_type or -1 */
	enum tm_severity min_severity;
	uint32_t limit; /* at most 1000; 0: as many */
	bool newest_first;
};
int tm_store_read_events(struct tm_store_reader *r, const struct tm_event_filter *filter,
			 struct tm_event **ret, size_t *ret_n, struct tm_error *err);
/* The largest number ever given, also when its event is deleted by now; 0: none yet. */
int tm_store_last_seq(struct tm_store_reader *r, uint64_t *ret, struct tm_error *err);

struct tm_operation_filter {
	const struct tm_uuid *pool; /* NULL: any */
	int status;                 /* enum tm_op_status or -1 */
	uint64_t before_usec;       /* only made earlier; 0: open */
	uint32_t limit;             /* at most 1000; 0: as many */
	const struct tm_uuid
		*before; /* cursor: only those made before this operation; NULL: open */
};
/* Newest first, by the order they were recorded in. */
int tm_store_read_operations(struct tm_store_reader *r, const struct tm_operation_filter *filter,
			     struct tm_operation_record **ret, size_t *ret_n, struct tm_error *err);
/* -ENOENT when there is none. */
int tm_store_read_operation(struct tm_store_reader *r, const struct tm_uuid *id,
			    struct tm_operation_record *ret, struct tm_error *err);

/*
 * Samples of a pool in [from, until), joined into buckets of @step_usec (0: as they are) in the
 * manner of the roll-up, oldest first, at most @limit (at most 100000; 0: as many).
 */
int tm_store_read_samples(struct tm_store_reader *r, const struct tm_uuid *pool, uint64_t from_usec,
			  uint64_t until_usec, uint64_t step_usec, uint32_t limit,
			  struct tm_sample **ret, size_t *ret_n, struct tm_error *err);

#endif
