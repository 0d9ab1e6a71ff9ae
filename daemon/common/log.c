// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/log.h"

/* The source location would be this file's for every message. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "common/utf8.h"

#define MESSAGE_SIZE 2048

/*
 * The one piece of state that belongs to the process and not to an object: where
 * stderr leads and how much is said there.
 */
static atomic_int log_max_level = LOG_INFO;
static atomic_bool log_to_journal;

/*
 * JOURNAL_STREAM names the device and inode of the socket systemd gave us; stderr may since point
 * elsewhere.
 */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;
	char *end;

	if (!stream || fstat(STDERR_FILENO, &st) < 0)
		return false;
	errno = 0;
	dev = strtoull(stream, &end, 10);
	if (errno || end == stream || *end != ':')
		return false;
	stream = end + 1;
	ino = strtoull(stream, &end, 10);
	return !errno && end != stream && !*end && dev == st.st_dev && ino == st.st_ino;
}

void tm_log_init(int max_level)
{
	atomic_store(&log_max_level, max_level);
	atomic_store(&log_to_journal, stderr_is_journal());
}

void tm_log_set_level(int max_level)
{
	atomic_store(&log_max_level, max_level);
}

int tm_log_level(void)
{
	return atomic_load(&log_max_level);
}

static const char *level_name(int level)
{
	static const char *const names[] = { "emergency", "alert",  "critical", "error",
					     "warning",   "notice", "info",     "debug" };

	return names[level & 7];
}

/* Adds @more after @join unless the text has it already. */
static void append_once(char text[MESSAGE_SIZE], const char *join, const char *more)
{
	size_t len = strlen(text);

	if (more[0] && !strstr(text, more))
		(void)snprintf(text + len, MESSAGE_SIZE - len, "%s%s", join, more);
}

struct journal_fields {
	char text[10][MESSAGE_SIZE + 32];
	struct iovec iov[10];
	int n;
};

static void add_field(struct journal_fields *f, const char *name, const char *value)
{
	int len;

	if (!value || !value[0])
		return;
	len = snprintf(f->text[f->n], sizeof(f->text[f->n]), "%s=%s", name, value);
	if (len < 0)
		return;
	if ((size_t)len >= sizeof(f->text[f->n]))
		len = (int)sizeof(f->text[f->n]) - 1;
	f->iov[f->n].iov_base = f->text[f->n];
	f->iov[f->n].iov_len = (size_t)len;
	f->n++;
}

static int write_journal(int level, const struct tm_log_fields *fields, const char *message)
{
	struct journal_fields f = { .n = 0 };
	char number[16];

	add_field(&f, "MESSAGE", message);
	(void)snprintf(number, sizeof(number), "%d", level & 7);
	add_field(&f, "PRIORITY", number);
	add_field(&f, "SYSLOG_IDENTIFIER", program_invocation_short_name);
	if (fields) {
		add_field(&f, "TM_POOL", fields->pool);
		add_field(&f, "TM_VOLUME", fields->volume);
		add_field(&f, "TM_OPERATION", fields->operation);
		add_field(&f, "TM_EVENT", fields->event);
		add_field(&f, "MESSAGE_ID", fields->message_id);
		if (fields->error && fields->error->code != TM_OK) {
			add_field(&f, "TM_ERROR", tm_error_slug(fields->error->code));
			if (fields->error->errnum) {
				(void)snprintf(number, sizeof(number), "%d", fields->error->errnum);
				add_field(&f, "ERRNO", number);
			}
		}
	}
	return sd_journal_sendv(f.iov, f.n);
}

static void write_stderr(int level, const struct tm_log_fields *fields, const char *message)
{
	char line[MESSAGE_SIZE + 256];
	size_t len;
	int n;

	n = snprintf(line, sizeof(line) - 1, "%s: %s", level_name(level), message);
	if (n < 0)
		return;
	len = strlen(line);
	if (fields && fields->pool && fields->pool[0] && len < sizeof(line) - 1)
		(void)snprintf(line + len, sizeof(line) - 1 - len, " [%s%s%s%s%s]", fields->pool,
			       fields->volume && fields->volume[0] ? "/" : "",
			       fields->volume ? fields->volume : "",
			       fields->operation && fields->operation[0] ? " " : "",
			       fields->operation ? fields->operation : "");
	len = strlen(line);
	line[len++] = '\n';
	/*
	 * One write, so that lines of several threads do not mix; nowhere to report a failure to.
	 */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

static void log_message(int level, const struct tm_log_fields *fields, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

static void log_message(int level, const struct tm_log_fields *fields, const char *fmt, va_list ap)
{
	char message[MESSAGE_SIZE];
	int saved = errno;

	if (level > tm_log_level())
		return;
	if (vsnprintf(message, sizeof(message), fmt, ap) < 0)
		message[0] = '\0';
	if (fields && fields->error && fields->error->code != TM_OK) {
		append_once(message, ": ", fields->error->detail);
		append_once(message, ". ", fields->error->hint);
	}
	tm_utf8_clean(message);
	if (!atomic_load(&log_to_journal) || write_journal(level, fields, message) < 0)
		write_stderr(level, fields, message);
	errno = saved;
}

void tm_log(int level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_message(level, NULL, fmt, ap);
	va_end(ap);
}

void tm_log_fields(int level, const struct tm_log_fields *fields, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_message(level, fields, fmt, ap);
	va_end(ap);
}
