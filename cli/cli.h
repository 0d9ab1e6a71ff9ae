/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all commands share: the context of this run, and the table of commands that
 * cli/cmd-*.c each give a part of.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "args.h"
#include "client.h"
#include "output.h"

#define CLI_SOCKET_DEFAULT "/run/thinmgr/thinmgr.sock"

/* Exit statuses that are not those of an error in api/errors.def. */
#define CLI_EXIT_OTHER       1
#define CLI_EXIT_INTERRUPTED 130

struct cli {
	struct cli_output output;
	struct cli_client *client; /* borrowed */
	bool json;
	bool quiet;
	int exit_status; /* 0, or what to end with instead of the status of the error */
};

struct cli_command {
	const char *noun, *verb; /* verb NULL: the noun alone is the command */
	const char *operands;    /* "POOL", as in the synopsis; "" for none */
	const char *summary;
	const char *note; /* a paragraph for its help, or NULL */
	uint64_t options; /* beside those of every command */
	int min, max;     /* number of operands; max -1: any */
	/* 0, or -errno with @err; prints on its own. */
	int (*run)(struct cli *cli, const struct cli_args *args, struct tm_error *err);
};

/* Each ends with an entry without a noun. */
extern const struct cli_command cli_system_commands[];
extern const struct cli_command cli_pool_commands[];
extern const struct cli_command cli_volume_commands[];
extern const struct cli_command cli_snapshot_commands[];
extern const struct cli_command cli_event_commands[];
extern const struct cli_command cli_operation_commands[];
extern const struct cli_command cli_history_commands[];

/*
 * cli_get - GET @url; under --json the document is printed as it came.
 *
 * A problem becomes the error, with exit_status set when its type is not known here (and is
 * printed, too, under --json). *ret holds the answer on 0.
 */
int cli_get(struct cli *cli, const struct cli_url *url, struct cli_response *ret,
	    struct tm_error *err);

/* cli_ask - POST @url, which makes no operation of its own. Never prints. 0 or an error. */
int cli_ask(struct cli *cli, const struct cli_url *url, struct cli_response *ret,
	    struct tm_error *err);

/* As cli_get, but never prints: for looking something up on the way to something else. */
int cli_look_up(struct cli *cli, const struct cli_url *url, struct cli_response *ret,
		struct tm_error *err);

/* The error in an answer whose status is 400 or more; -errno. Prints the problem under --json. */
int cli_refused(struct cli *cli, const struct cli_response *response, struct tm_error *err);

/*
 * cli_list - GET all pages of a list, at most @max items (0: no limit).
 *
 * Under --json each page is printed as it came, on its own; *ret_items is then empty. Otherwise it
 * holds all items, in order. A new reference, also when empty.
 */
int cli_list(struct cli *cli, const struct cli_url *url, uint64_t max, json_t **ret_items,
	     struct tm_error *err);

/*
 * cli_list_table - cli_list for people: the items, and a table with these columns to put them in.
 *
 * 1 when there are rows to be made. 0 when nothing is left to do: it was printed under --json, or
 * there are none, which was said in the words of @none unless --quiet. Or a negative errno.
 */
int cli_list_table(struct cli *cli, const struct cli_url *url, uint64_t max, const char *none,
		   const struct cli_column *columns, size_t n_columns, json_t **ret_items,
		   struct cli_table **ret_table, struct tm_error *err);

/* The time given as option @id, when it was, as parameter @name of @url. 0, or -EINVAL with @err.
 */
int cli_add_time(const struct cli_args *args, enum cli_option_id id, const char *name,
		 struct cli_url *url, struct tm_error *err);

/*
 * cli_change - make a change and, unless told otherwise, see it through.
 *
 * Sends the request, waits for the operation with progress, and says what was done, all as the
 * options of CLI_CHANGE_OPTIONS in @args have it. @body is borrowed and may be NULL.
 */
int cli_change(struct cli *cli, const struct cli_args *args, const char *method,
	       struct cli_url *url, const json_t *body, struct tm_error *err);

/*
 * cli_wait - wait for operation @id to end, with progress, at most @limit_seconds (0: for ever).
 *
 * *ret holds the last answer. 0 when it ended well, the error it ended with, -ETIMEDOUT, or
 * -EINTR after SIGINT or SIGTERM (exit_status is set and a line was said).
 */
int cli_wait(struct cli *cli, const char *id, uint64_t limit_seconds, struct cli_response *ret,
	     struct tm_error *err);

/* "pool 'web' created" and the like for an operation that is done; returns buf. */
const char *cli_done_text(const json_t *operation, char *buf, size_t len);

/*
 * cli_confirm - ask on the terminal whether to go on; 0 for yes.
 *
 * Asks nothing with --yes or --dry-run. -ECANCELED with @err for any other answer, and, with what
 * to do, when there is no terminal to ask on.
 */
int cli_confirm(struct cli *cli, const struct cli_args *args, struct tm_error *err, const char *fmt,
		...) __attribute__((format(printf, 4, 5)));

/* TM_ERR_NO_MEMORY; returns -ENOMEM. */
int cli_no_memory(struct tm_error *err);

#endif
