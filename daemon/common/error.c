// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

struct fact {
	const char *slug;
	const char *title;
	unsigned int http;
	int exit_code;
};

static const struct fact facts[TM_ERR_COUNT] = {
#define TM_ERROR(sym, slug_, http_, exit_, title_)                                        \
	[TM_ERR_##sym] = {                                                                \
		.slug = (slug_), .title = (title_), .http = (http_), .exit_code = (exit_) \
	},
#include "errors.def"
#undef TM_ERROR
};

#define DBUS(sym, name) [TM_ERR_##sym] = "org.thinmgr1.Error." name

/* The preprocessor cannot change case, so these are spelled out; the unit test derives them. */
static const char *const dbus_names[] = {
	DBUS(BAD_JSON, "BadJson"),
	DBUS(UNKNOWN_FIELD, "UnknownField"),
	DBUS(MISSING_FIELD, "MissingField"),
	DBUS(WRONG_TYPE, "WrongType"),
	DBUS(OUT_OF_RANGE, "OutOfRange"),
	DBUS(BAD_NAME, "BadName"),
	DBUS(BAD_QUERY, "BadQuery"),
	DBUS(BAD_PATH, "BadPath"),
	DBUS(BODY_TOO_LARGE, "BodyTooLarge"),
	DBUS(MEDIA_TYPE, "MediaType"),
	DBUS(BAD_CONFIG, "BadConfig"),
	DBUS(FORBIDDEN, "Forbidden"),
	DBUS(NO_ROUTE, "NoRoute"),
	DBUS(NOT_FOUND, "NotFound"),
	DBUS(METHOD, "Method"),
	DBUS(EXISTS, "Exists"),
	DBUS(WRONG_STATE, "WrongState"),
	DBUS(BUSY, "Busy"),
	DBUS(PRECONDITION, "Precondition"),
	DBUS(NEEDS_CHECK, "NeedsCheck"),
	DBUS(NO_SPACE, "NoSpace"),
	DBUS(AT_MAXIMUM, "AtMaximum"),
	DBUS(UNSUPPORTED, "Unsupported"),
	DBUS(BAD_DESCRIPTOR, "BadDescriptor"),
	DBUS(DAMAGED, "Damaged"),
	DBUS(BACKING_GONE, "BackingGone"),
	DBUS(TOOL_MISSING, "ToolMissing"),
	DBUS(TOOL_FAILED, "ToolFailed"),
	DBUS(TARGET_MISSING, "TargetMissing"),
	DBUS(KERNEL, "Kernel"),
	DBUS(IO, "Io"),
	DBUS(STORE, "Store"),
	DBUS(NO_MEMORY, "NoMemory"),
	DBUS(TIMEOUT, "Timeout"),
	DBUS(CANCELLED, "Cancelled"),
	DBUS(INTERRUPTED, "Interrupted"),
	DBUS(TOO_MANY, "TooMany"),
	DBUS(SHUTTING_DOWN, "ShuttingDown"),
	DBUS(INTERNAL, "Internal"),
};

_Static_assert(sizeof(dbus_names) / sizeof(dbus_names[0]) == TM_ERR_COUNT,
	       "an error of the catalogue has no D-Bus name");

static enum tm_error_code sane(enum tm_error_code code)
{
	return code > TM_OK && code < TM_ERR_COUNT ? code : TM_ERR_INTERNAL;
}

static void fill(struct tm_error *err, enum tm_error_code code, int errnum, const char *field,
		 const char *fmt, va_list ap) __attribute__((format(printf, 5, 0)));

static void fill(struct tm_error *err, enum tm_error_code code, int errnum, const char *field,
		 const char *fmt, va_list ap)
{
	if (!err || err->code != TM_OK)
		return;
	err->code = sane(code);
	err->errnum = errnum;
	err->hint[0] = '\0';
	(void)snprintf(err->field, sizeof(err->field), "%s", field);
	tm_utf8_clean(err->field);
	if (vsnprintf(err->detail, sizeof(err->detail), fmt, ap) < 0)
		err->detail[0] = '\0';
	tm_utf8_clean(err->detail);
}

int tm_error_set(struct tm_error *err, enum tm_error_code code, int errnum, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fill(err, code, errnum, "", fmt, ap);
	va_end(ap);
	return errnum > 0 ? -errnum : -EIO;
}

int tm_error_field(struct tm_error *err, enum tm_error_code code, const char *field,
		   const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fill(err, code, EINVAL, field ? field : "", fmt, ap);
	va_end(ap);
	return -EINVAL;
}

void tm_error_hint(struct tm_error *err, const char *fmt, ...)
{
	va_list ap;

	if (!err || err->hint[0])
		return;
	va_start(ap, fmt);
	if (vsnprintf(err->hint, sizeof(err->hint), fmt, ap) < 0)
		err->hint[0] = '\0';
	va_end(ap);
	tm_utf8_clean(err->hint);
}

const char *tm_error_slug(enum tm_error_code code)
{
	return facts[sane(code)].slug;
}

const char *tm_error_title(enum tm_error_code code)
{
	return facts[sane(code)].title;
}

const char *tm_error_dbus_name(enum tm_error_code code)
{
	return dbus_names[sane(code)];
}

unsigned int tm_error_http_status(enum tm_error_code code)
{
	return facts[sane(code)].http;
}

int tm_error_exit_code(enum tm_error_code code)
{
	return facts[sane(code)].exit_code;
}

enum tm_error_code tm_error_from_slug(const char *slug)
{
	int i;

	for (i = TM_OK + 1; i < TM_ERR_COUNT; i++)
		if (slug && !strcmp(facts[i].slug, slug))
			return (enum tm_error_code)i;
	return TM_OK;
}
