/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Handing a change to the core, and answering with its operation. */
#ifndef TM_API_CHANGE_H
#define TM_API_CHANGE_H

#include "api/request.h"

/* The longest `wait`, in seconds. */
#define TM_WAIT_MAX 600

/*
 * Submit @cmd (taken) for @request: reads wait, dry_run and If-Match, suspends the connection, and
 * answers when the core has spoken. Returns what libmicrohttpd is told.
 */
int tm_change_submit(struct tm_request *request, struct tm_command *cmd);

/* The same for a change whose body @read understands (body.h), or that takes none (NULL). */
int tm_change(struct tm_request *request, enum tm_command_kind kind,
	      int (*read)(json_t *body, struct tm_command *cmd, struct tm_error *err));

/*
 * Cancel an operation for @request: reads wait, suspends the connection, and answers with the
 * operation, 200 when it has ended. Returns what libmicrohttpd is told.
 */
int tm_change_cancel(struct tm_request *request, const struct tm_uuid *id);

/*
 * Wait for an operation to end, without a thread; then @resume runs on libmicrohttpd's.
 * 0 or -ESHUTDOWN.
 */
int tm_change_wait(struct tm_request *request, const struct tm_uuid *id, uint64_t timeout_usec,
		   int (*resume)(struct tm_request *request));

/* The same for all events of what has happened by now, to be in the database. */
int tm_change_wait_recorded(struct tm_request *request, uint64_t timeout_usec,
			    int (*resume)(struct tm_request *request));

/*
 * Answer for a request that was woken before what it waits for had come: the server stops, or the
 * caller is gone. True with *ret when so.
 */
bool tm_change_interrupted(struct tm_request *request, int *ret);

/* The state of an operation: live, else from the database. 0, -ENOENT (NOT_FOUND), or an error of
 * the store. */
int tm_change_read_operation(struct tm_http *http, const struct tm_uuid *id,
			     struct tm_operation_record *ret, struct tm_error *err);

#endif
