/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Journal messages with structured fields; to stderr as plain lines when not
 * started by systemd. Transitions are logged, not states. Levels are syslog's:
 * LOG_ERR an operator must act, LOG_WARNING degraded, LOG_INFO a requested change done.
 * Safe from any thread.
 */
#ifndef TM_COMMON_LOG_H
#define TM_COMMON_LOG_H

#include <syslog.h>

#include "common/error.h"

/* Where and from which level; call once before other threads start. */
void tm_log_init(int max_level);
void tm_log_set_level(int max_level);
int tm_log_level(void);

/*
 * Fields may be NULL. The error's slug and errno become fields; its detail and hint are added to
 * the message unless the message has them already. @message_id: 32 hex digits
 * (packaging/thinmgr.catalog), or NULL.
 */
struct tm_log_fields {
	const char *pool;
	const char *volume;
	const char *operation;
	const char *event; /* type of the event that the message tells of */
	const char *message_id;
	const struct tm_error *error;
};

void tm_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tm_log_fields(int level, const struct tm_log_fields *fields, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
