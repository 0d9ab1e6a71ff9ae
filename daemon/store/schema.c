/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables, as a list of steps that only ever grows: the file's user_version says
 * how many were taken. A step that was released is never changed.
 *
 * Integers are 64 bits; sizes and times are kept as their two's complement, so every value
 * comes back as it went in. Times are real time in microseconds.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "store/internal.h"

/* "tmgr": says to file(1) and to us whose database this is. */
#define APPLICATION_ID 0x746d6772

static const char *const migrations[] = {
	/* 1 */
	"CREATE TABLE pools ("
	"  key INTEGER PRIMARY KEY,"
	"  id TEXT NOT NULL UNIQUE,"
	"  name TEXT NOT NULL UNIQUE,"
	"  backing TEXT NOT NULL,"
	"  directory TEXT NOT NULL,"
	"  sparse INTEGER NOT NULL,"
	"  block_bytes INTEGER NOT NULL,"
	"  zeroing INTEGER NOT NULL,"
	"  discard INTEGER NOT NULL,"
	"  discard_passdown INTEGER NOT NULL,"
	"  when_full TEXT NOT NULL,"
	"  data_bytes INTEGER NOT NULL,"
	"  data_reserve_bytes INTEGER NOT NULL,"
	"  metadata_bytes INTEGER NOT NULL,"
	"  metadata_reserve_bytes INTEGER NOT NULL,"
	"  low_water_bytes INTEGER NOT NULL,"
	"  transaction_id INTEGER NOT NULL,"
	"  next_dev_id INTEGER NOT NULL,"
	"  active INTEGER NOT NULL,"
	"  data_extend INTEGER NOT NULL,"
	"  data_low_water_percent INTEGER NOT NULL,"
	"  data_step_percent INTEGER NOT NULL,"
	"  data_step_min_bytes INTEGER NOT NULL,"
	"  data_maximum_bytes INTEGER NOT NULL,"
	"  metadata_extend INTEGER NOT NULL,"
	"  metadata_low_water_percent INTEGER NOT NULL,"
	"  metadata_step_percent INTEGER NOT NULL,"
	"  metadata_step_min_bytes INTEGER NOT NULL,"
	"  metadata_maximum_bytes INTEGER NOT NULL,"
	"  activate_at_start INTEGER NOT NULL,"
	"  sample_seconds INTEGER NOT NULL,"
	"  created_usec INTEGER NOT NULL"
	") STRICT;"

	"CREATE TABLE volumes ("
	"  id TEXT PRIMARY KEY NOT NULL,"
	"  pool TEXT NOT NULL REFERENCES pools (id) ON DELETE CASCADE,"
	"  name TEXT NOT NULL,"
	"  dev_id INTEGER NOT NULL,"
	"  size_bytes INTEGER NOT NULL,"
	"  origin TEXT NOT NULL," /* no reference: an origin may be deleted before its snapshot */
	"  active INTEGER NOT NULL,"
	"  read_only INTEGER NOT NULL,"
	"  created_usec INTEGER NOT NULL,"
	"  UNIQUE (pool, name),"
	"  UNIQUE (pool, dev_id)"
	") STRICT, WITHOUT ROWID;"

	/* The number keeps the order of making, whatever the clock did. */
	"CREATE TABLE operations ("
	"  number INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  id TEXT NOT NULL UNIQUE,"
	"  kind TEXT NOT NULL,"
	"  pool TEXT NOT NULL,"
	"  pool_name TEXT NOT NULL,"
	"  volume_name TEXT NOT NULL,"
	"  status TEXT NOT NULL,"
	"  step INTEGER NOT NULL,"
	"  n_steps INTEGER NOT NULL,"
	"  step_name TEXT NOT NULL,"
	"  state TEXT,"
	"  error TEXT," /* slug; NULL: none */
	"  error_errno INTEGER NOT NULL,"
	"  error_field TEXT NOT NULL,"
	"  error_detail TEXT NOT NULL,"
	"  error_hint TEXT NOT NULL,"
	"  created_usec INTEGER NOT NULL,"
	"  started_usec INTEGER NOT NULL,"
	"  finished_usec INTEGER NOT NULL,"
	"  idempotency_key TEXT"
	") STRICT;"
	"CREATE INDEX operations_pool ON operations (pool, number);"
	"CREATE INDEX operations_status ON operations (status, number);"

	/* AUTOINCREMENT: the largest number ever given is kept apart from the rows. */
	"CREATE TABLE events ("
	"  seq INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  time_usec INTEGER NOT NULL,"
	"  type TEXT NOT NULL,"
	"  severity INTEGER NOT NULL,"
	"  pool TEXT NOT NULL,"
	"  pool_name TEXT NOT NULL,"
	"  volume_name TEXT NOT NULL,"
	"  operation TEXT NOT NULL,"
	"  message TEXT NOT NULL,"
	"  data TEXT"
	") STRICT;"
	"CREATE INDEX events_pool ON events (pool, seq);"
	"CREATE INDEX events_type ON events (type, seq);"
	"CREATE INDEX events_time ON events (time_usec);"

	/*
	 * One row per sample, or per bucket of resolution seconds (0: a raw sample) beginning at
	 * time_usec; last_usec is the time of the newest sample in it, whose values the row has.
	 */
	"CREATE TABLE samples ("
	"  pool INTEGER NOT NULL REFERENCES pools (key) ON DELETE CASCADE,"
	"  resolution INTEGER NOT NULL,"
	"  time_usec INTEGER NOT NULL,"
	"  last_usec INTEGER NOT NULL,"
	"  data_used INTEGER NOT NULL,"
	"  data_used_max INTEGER NOT NULL,"
	"  data_total INTEGER NOT NULL,"
	"  metadata_used INTEGER NOT NULL,"
	"  metadata_total INTEGER NOT NULL,"
	"  mode INTEGER NOT NULL,"
	"  count INTEGER NOT NULL,"
	"  PRIMARY KEY (pool, resolution, time_usec)"
	") STRICT, WITHOUT ROWID;",

	/* 2: why nothing may change the pool until an administrator acted; "": nothing */
	"ALTER TABLE pools ADD COLUMN uncertain TEXT NOT NULL DEFAULT '';",

	/* 3: when a pool is repaired by itself */
	"ALTER TABLE pools ADD COLUMN repair TEXT NOT NULL DEFAULT 'when_idle';",

	/* 4: how many copies of its metadata are kept, and for how long */
	("ALTER TABLE pools ADD COLUMN keep_copies INTEGER NOT NULL DEFAULT 8;"
	 "ALTER TABLE pools ADD COLUMN keep_days INTEGER NOT NULL DEFAULT 30;"),

	/* 5: why a volume is suspect, "": it is not, and since when, or when that was cleared */
	("ALTER TABLE volumes ADD COLUMN suspect TEXT NOT NULL DEFAULT '';"
	 "ALTER TABLE volumes ADD COLUMN suspect_usec INTEGER NOT NULL DEFAULT 0;"),

	/* 6: how often its metadata is copied and checked by itself, and when it last was; 0: never
	 */
	("ALTER TABLE pools ADD COLUMN copy_hours INTEGER NOT NULL DEFAULT 24;"
	 "ALTER TABLE pools ADD COLUMN check_days INTEGER NOT NULL DEFAULT 7;"
	 "ALTER TABLE pools ADD COLUMN checked_usec INTEGER NOT NULL DEFAULT 0;"
	 "ALTER TABLE pools ADD COLUMN copied_usec INTEGER NOT NULL DEFAULT 0;"),

	/* 7: whether volumes that a repair leaves suspect are checked by themselves */
	"ALTER TABLE pools ADD COLUMN check_volumes INTEGER NOT NULL DEFAULT 0;",
};

int tm_schema_version(void)
{
	return (int)TM_ARRAY_SIZE(migrations);
}

static int read_number(struct tm_db *db, const char *sql, uint64_t *ret, struct tm_error *err)
{
	tm_auto_query struct tm_query q = { 0 };
	int r;

	r = tm_query_begin(&q, db, sql, "read the schema's version", err);
	if (r < 0)
		return r;
	r = tm_query_step(&q);
	if (r < 0)
		return r;
	*ret = r ? tm_get_u64(&q) : 0;
	return 0;
}

/* Where the file stands; refuses what is not ours or newer. */
static int read_version(struct tm_db *db, uint64_t *ret, struct tm_error *err)
{
	uint64_t application, version, tables;
	int r;

	r = read_number(db, "PRAGMA application_id", &application, err);
	if (r == 0)
		r = read_number(db, "PRAGMA user_version", &version, err);
	if (r == 0)
		r = read_number(db, "SELECT count(*) FROM sqlite_schema", &tables, err);
	if (r < 0)
		return r;
	if (application != APPLICATION_ID && (application || version || tables)) {
		(void)tm_error_set(err, TM_ERR_STORE, EINVAL,
				   "%s is not a state database of thinmgr", db->path);
		tm_error_hint(err, "Move the file away, or set another state_directory.");
		return -EINVAL;
	}
	if (version > (uint64_t)tm_schema_version()) {
		(void)tm_error_set(err, TM_ERR_STORE, EPROTO,
				   "%s has schema version %" PRIu64
				   ", this thinmgrd knows only up to %d",
				   db->path, version, tm_schema_version());
		tm_error_hint(err, "Install the newer thinmgr that wrote it.");
		return -EPROTO;
	}
	*ret = version;
	return 0;
}

static int apply(struct tm_db *db, uint64_t version, struct tm_error *err)
{
	char stamp[96];
	int r;

	(void)snprintf(stamp, sizeof(stamp),
		       "PRAGMA application_id=%d; PRAGMA user_version=%" PRIu64 "; COMMIT;",
		       APPLICATION_ID, version);
	r = tm_db_exec(db, migrations[version - 1], "change the schema", err);
	if (r < 0)
		return r;
	return tm_db_exec(db, stamp, "change the schema", err);
}

int tm_schema_migrate(struct tm_db *db, struct tm_error *err)
{
	uint64_t version;
	int r;

	for (;;) {
		/* Looked at with the write lock held: another process may be migrating too. */
		r = tm_db_exec(db, "BEGIN IMMEDIATE", "begin to change the schema", err);
		if (r < 0)
			return r;
		r = read_version(db, &version, err);
		if (r < 0 || version == (uint64_t)tm_schema_version())
			break;
		r = apply(db, version + 1, err);
		if (r < 0)
			break;
	}
	if (!sqlite3_get_autocommit(db->handle))
		(void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

int tm_schema_check(struct tm_db *db, struct tm_error *err)
{
	uint64_t version = 0;
	int r;

	r = read_version(db, &version, err);
	if (r < 0)
		return r;
	if (version != (uint64_t)tm_schema_version())
		return tm_error_set(err, TM_ERR_STORE, EPROTO,
				    "%s has schema version %" PRIu64 ", expected %d", db->path,
				    version, tm_schema_version());
	return 0;
}

int tm_schema_verify(struct tm_db *db, struct tm_error *err)
{
	static const char *const checks[] = {
		"PRAGMA quick_check(pools)",
		"PRAGMA quick_check(volumes)",
		"PRAGMA quick_check(operations)",
		"PRAGMA quick_check(events)",
	};

	for (size_t i = 0; i < TM_ARRAY_SIZE(checks); i++) {
		tm_auto_query struct tm_query q = { 0 };
		char verdict[256];
		int r;

		r = tm_query_begin(&q, db, checks[i], "check the state", err);
		if (r < 0)
			return r;
		r = tm_query_step(&q);
		if (r < 0)
			return r;
		if (r == 0)
			continue;
		(void)snprintf(verdict, sizeof(verdict), "%s",
			       (const char *)sqlite3_column_text(q.stmt, 0));
		if (verdict[0] == 'o' && verdict[1] == 'k' && !verdict[2])
			continue;
		(void)tm_error_set(err, TM_ERR_STORE, EBADMSG, "%s is damaged: %s", db->path,
				   verdict);
		tm_db_hint_damaged(db, err);
		return -EBADMSG;
	}
	return 0;
}
