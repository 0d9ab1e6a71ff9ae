/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A SQLite connection: opening, prepared statements, binding, reading, errors. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/internal.h"

void tm_db_hint_damaged(const struct tm_db *db, struct tm_error *err)
{
	tm_error_hint(
		err,
		"Stop thinmgrd, move %s and its -wal and -shm files aside, start it again and "
		"bring the pools back with \"thinmgr pool import\".",
		db->path);
}

/*
 * What the file system said, where SQLite only says that something failed: of the log or of the
 * main file, whichever knows. The connection's own word may be of a later, other call.
 */
static int io_errno(struct tm_db *db)
{
	static const int pointers[] = { SQLITE_FCNTL_JOURNAL_POINTER, SQLITE_FCNTL_FILE_POINTER };
	int e = 0;

	for (size_t i = 0; i < TM_ARRAY_SIZE(pointers) && e == 0; i++) {
		sqlite3_file *file = NULL;

		if (sqlite3_file_control(db->handle, "main", pointers[i], &file) != SQLITE_OK ||
		    !file || !file->pMethods ||
		    file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &e) != SQLITE_OK)
			e = 0;
	}
	if (e == 0)
		e = sqlite3_system_errno(db->handle);
	switch (e) {
	case EFBIG:
	case EDQUOT:
		return ENOSPC;
	case 0:
		return EIO;
	default:
		return e;
	}
}

int tm_db_error(struct tm_db *db, int rc, const char *what, struct tm_error *err)
{
	const char *text = db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc);
	enum tm_error_code code = TM_ERR_STORE;
	int e;

	switch (rc & 0xff) {
	case SQLITE_FULL:
		e = ENOSPC;
		break;
	case SQLITE_READONLY:
		e = EROFS;
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		e = EBADMSG;
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		e = EBUSY;
		break;
	case SQLITE_NOMEM:
		e = ENOMEM;
		code = TM_ERR_NO_MEMORY;
		break;
	case SQLITE_PERM:
	case SQLITE_AUTH:
		e = EACCES;
		break;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		e = db->handle ? io_errno(db) : EIO;
		break;
	default:
		e = EIO;
		break;
	}
	(void)tm_error_set(err, code, e, "cannot %s in %s: %s", what, db->path, text);
	if (e == ENOSPC)
		tm_error_hint(err, "Free space on the file system that holds %s.", db->path);
	else if (e == EROFS)
		tm_error_hint(err, "Make %s and its directory writable for thinmgrd.", db->path);
	else if (e == EBADMSG)
		tm_db_hint_damaged(db, err);
	else if (e == EBUSY)
		tm_error_hint(err, "End the other program that has %s open.", db->path);
	return -e;
}

int tm_db_exec(struct tm_db *db, const char *sql, const char *what, struct tm_error *err)
{
	int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? 0 : tm_db_error(db, rc, what, err);
}

/*
 * The file is made here, so that nobody else can read it even for a moment; SQLite
 * gives -wal and -shm the same mode. An existing file is never opened by ourselves: closing it
 * would drop the locks that other connections of this process hold on it.
 */
static int ensure_private(const char *path, struct tm_error *err)
{
	struct stat st;
	int fd;

	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0) {
		(void)close(fd);
		return 0;
	}
	if (errno != EEXIST) {
		int e = errno;

		(void)tm_error_set(err, TM_ERR_STORE, e, "cannot make %s: %s", path, strerror(e));
		tm_error_hint(err, "The state directory must exist and be writable for thinmgrd.");
		return -e;
	}
	if (lstat(path, &st) < 0)
		return tm_error_set(err, TM_ERR_STORE, errno, "cannot look at %s: %s", path,
				    strerror(errno));
	if (!S_ISREG(st.st_mode))
		return tm_error_set(err, TM_ERR_STORE, EINVAL, "%s is not a regular file", path);
	if ((st.st_mode & 077) && chmod(path, 0600) < 0)
		return tm_error_set(err, TM_ERR_STORE, errno, "cannot make %s private: %s", path,
				    strerror(errno));
	return 0;
}

static int configure(struct tm_db *db, bool write, struct tm_error *err)
{
	static const struct {
		int option, value;
	} options[] = {
		{ SQLITE_DBCONFIG_DEFENSIVE, 1 },      { SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },
		{ SQLITE_DBCONFIG_DQS_DML, 0 },        { SQLITE_DBCONFIG_DQS_DDL, 0 },
		{ SQLITE_DBCONFIG_ENABLE_TRIGGER, 1 }, { SQLITE_DBCONFIG_ENABLE_FKEY, 1 },
	};
	int rc;

	(void)sqlite3_extended_result_codes(db->handle, 1);
	rc = sqlite3_busy_timeout(db->handle, TM_STORE_BUSY_MSEC);
	for (size_t i = 0; i < TM_ARRAY_SIZE(options) && rc == SQLITE_OK; i++)
		rc = sqlite3_db_config(db->handle, options[i].option, options[i].value, NULL);
	if (rc != SQLITE_OK)
		return tm_db_error(db, rc, "set up the connection", err);
	/* Temporary tables and sorts need no file: the daemon may not be able to write /tmp. */
	if (!write)
		return tm_db_exec(db, "PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON;",
				  "set up the connection", err);
	return tm_db_exec(db,
			  "PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON;"
			  "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
			  "PRAGMA journal_size_limit=16777216;",
			  "set up the connection", err);
}

int tm_db_open(struct tm_db *db, const char *directory, bool write, struct tm_error *err)
{
	int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
	int r, rc;

	*db = (struct tm_db){ 0 };
	if (asprintf(&db->path, "%s/" TM_STORE_FILE, directory) < 0) {
		db->path = NULL;
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	}
	if (write) {
		r = ensure_private(db->path, err);
		if (r < 0)
			goto fail;
	}
	/* Our own mutex (or the reader's contract) serialises; SQLite need not do it again. */
	flags |= write ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY;
	rc = sqlite3_open_v2(db->path, &db->handle, flags, NULL);
	if (rc != SQLITE_OK) {
		r = tm_db_error(db, rc, "open the state", err);
		goto fail;
	}
	r = configure(db, write, err);
	if (r < 0)
		goto fail;
	return 0;
fail:
	tm_db_close(db);
	return r;
}

void tm_db_close(struct tm_db *db)
{
	for (size_t i = 0; i < db->n_statements; i++)
		(void)sqlite3_finalize(db->statements[i]);
	free(db->statements);
	(void)sqlite3_close(db->handle);
	free(db->path);
	*db = (struct tm_db){ 0 };
}

/* A prepared statement that is not in use, from the cache or new. */
static int statement(struct tm_db *db, const char *sql, const char *what, sqlite3_stmt **ret,
		     struct tm_error *err)
{
	sqlite3_stmt **bigger, *stmt;
	int rc;

	for (size_t i = 0; i < db->n_statements; i++) {
		stmt = db->statements[i];
		if (!sqlite3_stmt_busy(stmt) && strcmp(sqlite3_sql(stmt), sql) == 0) {
			*ret = stmt;
			return 0;
		}
	}
	rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);
	if (rc != SQLITE_OK)
		return tm_db_error(db, rc, what, err);
	bigger = reallocarray(db->statements, db->n_statements + 1, sizeof(sqlite3_stmt *));
	if (!bigger) {
		(void)sqlite3_finalize(stmt);
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	}
	bigger[db->n_statements++] = stmt;
	db->statements = bigger;
	*ret = stmt;
	return 0;
}

int tm_query_begin(struct tm_query *q, struct tm_db *db, const char *sql, const char *what,
		   struct tm_error *err)
{
	*q = (struct tm_query){ .db = db, .what = what, .err = err, .parameter = 1 };
	q->failed = statement(db, sql, what, &q->stmt, err);
	return q->failed;
}

static void bound(struct tm_query *q, int rc)
{
	q->parameter++;
	if (rc != SQLITE_OK)
		q->failed = tm_db_error(q->db, rc, q->what, q->err);
}

void tm_bind_u64(struct tm_query *q, uint64_t value)
{
	if (!q->failed)
		bound(q, sqlite3_bind_int64(q->stmt, q->parameter, (sqlite3_int64)value));
}

void tm_bind_time(struct tm_query *q, uint64_t usec)
{
	tm_bind_u64(q, usec > INT64_MAX ? INT64_MAX : usec);
}

void tm_bind_text(struct tm_query *q, const char *text)
{
	if (!q->failed)
		bound(q, sqlite3_bind_text(q->stmt, q->parameter, text, -1, SQLITE_STATIC));
}

int tm_query_step(struct tm_query *q)
{
	int rc;

	if (q->failed)
		return q->failed;
	rc = sqlite3_step(q->stmt);
	q->column = 0;
	if (rc == SQLITE_ROW)
		return 1;
	if (rc == SQLITE_DONE)
		return 0;
	q->failed = tm_db_error(q->db, rc, q->what, q->err);
	return q->failed;
}

int tm_query_run(struct tm_query *q)
{
	int r;

	do
		r = tm_query_step(q);
	while (r > 0);
	return r;
}

void tm_query_damaged(struct tm_query *q, const char *column, const char *value)
{
	if (q->failed)
		return;
	q->failed = tm_error_set(q->err, TM_ERR_STORE, EBADMSG,
				 "cannot %s in %s: unexpected value \"%.64s\" in column %s",
				 q->what, q->db->path, value ? value : "(null)", column);
	tm_db_hint_damaged(q->db, q->err);
}

uint64_t tm_get_u64(struct tm_query *q)
{
	return q->failed ? 0 : (uint64_t)sqlite3_column_int64(q->stmt, q->column++);
}

uint32_t tm_get_u32(struct tm_query *q)
{
	return (uint32_t)tm_get_u64(q);
}

bool tm_get_bool(struct tm_query *q)
{
	return tm_get_u64(q) != 0;
}

/* The text of the next column, or NULL for SQL's NULL; memory trouble marks the query. */
static const char *get_text(struct tm_query *q, int *ret_column)
{
	int column = q->column++;
	const char *text;

	*ret_column = column;
	if (q->failed || sqlite3_column_type(q->stmt, column) == SQLITE_NULL)
		return NULL;
	text = (const char *)sqlite3_column_text(q->stmt, column);
	if (!text)
		q->failed = tm_db_error(q->db, SQLITE_NOMEM, q->what, q->err);
	return text;
}

void tm_get_text(struct tm_query *q, char *buf, size_t size)
{
	int column;
	const char *text = get_text(q, &column);
	size_t len = text ? strlen(text) : 0;

	if (len >= size) {
		tm_query_damaged(q, sqlite3_column_name(q->stmt, column), text);
		len = 0;
	}
	if (len)
		memcpy(buf, text, len);
	buf[len] = '\0';
}

char *tm_get_text_dup(struct tm_query *q)
{
	int column;
	const char *text = get_text(q, &column);
	char *copy;

	if (!text)
		return NULL;
	copy = strdup(text);
	if (!copy)
		q->failed = tm_error_set(q->err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	return copy;
}

void tm_get_uuid(struct tm_query *q, struct tm_uuid *ret)
{
	tm_get_text(q, ret->text, sizeof(ret->text));
}

void tm_query_end(struct tm_query *q)
{
	if (!q->stmt)
		return;
	/* Whatever went wrong was reported by the step; these repeat it. */
	(void)sqlite3_reset(q->stmt);
	(void)sqlite3_clear_bindings(q->stmt);
	q->stmt = NULL;
}

void *tm_grow(void **array, size_t n, size_t size, struct tm_error *err)
{
	char *element;

	/* Grow at each power of two from 16 on, without keeping the capacity anywhere. */
	if (n == 0 || (n >= 16 && (n & (n - 1)) == 0)) {
		void *bigger = reallocarray(*array, n < 16 ? 16 : 2 * n, size);

		if (!bigger) {
			(void)tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
			return NULL;
		}
		*array = bigger;
	}
	element = (char *)*array + n * size;
	memset(element, 0, size);
	return element;
}
