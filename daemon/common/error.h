/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors for people. Functions return 0 or a negative errno; those that can
 * say more also fill a struct tm_error: which kind of error (the catalogue in
 * api/errors.def), what failed on which object and why, and what to do.
 */
#ifndef TM_COMMON_ERROR_H
#define TM_COMMON_ERROR_H

#include <stdint.h>

enum tm_error_code {
	TM_OK = 0,
#define TM_ERROR(sym, slug, http, exitcode, title) TM_ERR_##sym,
#include "errors.def"
#undef TM_ERROR
	TM_ERR_COUNT,
};

#define TM_ERROR_FIELD_SIZE 96

struct tm_error {
	enum tm_error_code code;         /* TM_OK: nothing was reported */
	int errnum;                      /* positive errno behind it, or 0 */
	char field[TM_ERROR_FIELD_SIZE]; /* the field of the request at fault, JSON pointer style;
					    or "" */
	char detail[512];                /* one sentence: what failed, on which object, why */
	char hint[256];                  /* one sentence: what to do; or "" */
};

/*
 * tm_error_set - fill @err and return -errnum.
 *
 * @err may be NULL. When @err already has a code it is kept: the first report
 * is the cause. A detail that does not fit is cut; control characters and bytes that are not UTF-8
 * are replaced, so that it can go into JSON and logs as it is. @errnum is a positive errno;
 * 0 returns -EIO so that a caller can always "return tm_error_set(...)".
 */
int tm_error_set(struct tm_error *err, enum tm_error_code code, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* As tm_error_set, naming the request's @field at fault; returns -EINVAL. */
int tm_error_field(struct tm_error *err, enum tm_error_code code, const char *field,
		   const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Add what to do about it, unless something was said already. Does nothing when @err is NULL. */
void tm_error_hint(struct tm_error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Static facts of the catalogue; for TM_OK or a bad code: the facts of INTERNAL. */
const char *tm_error_slug(enum tm_error_code code);
const char *tm_error_title(enum tm_error_code code);
const char *tm_error_dbus_name(enum tm_error_code code);
unsigned int tm_error_http_status(enum tm_error_code code);
int tm_error_exit_code(enum tm_error_code code);

/* The code whose slug is @slug, or TM_OK when there is none. */
enum tm_error_code tm_error_from_slug(const char *slug);

#endif
