/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line: every option thinmgr knows, once, and readers for what
 * people write as values (sizes, times, names). Help, the manual's check and the
 * shell completion's check all rest on the one table here.
 */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/name.h"

enum cli_option_id {
	/* Everywhere. */
	CLI_OPT_SOCKET,
	CLI_OPT_JSON,
	CLI_OPT_COLOR,
	CLI_OPT_QUIET,
	CLI_OPT_HELP,
	CLI_OPT_VERSION,
	/* Changes. */
	CLI_OPT_WAIT,
	CLI_OPT_NO_WAIT,
	CLI_OPT_DRY_RUN,
	CLI_OPT_YES,
	/* Of single commands. */
	CLI_OPT_DIRECTORY,
	CLI_OPT_SIZE,
	CLI_OPT_METADATA_SIZE,
	CLI_OPT_BLOCK_SIZE,
	CLI_OPT_SPARSE,
	CLI_OPT_NO_ZEROING,
	CLI_OPT_NO_DISCARD,
	CLI_OPT_NO_PASSDOWN,
	CLI_OPT_NO_ACTIVATE,
	CLI_OPT_ACTIVATE,
	CLI_OPT_WITH_VOLUMES,
	CLI_OPT_FORGET,
	CLI_OPT_FORCE,
	CLI_OPT_COPY,
	CLI_OPT_DATA,
	CLI_OPT_METADATA,
	CLI_OPT_SHRINK,
	CLI_OPT_READ_ONLY,
	/* Policy. */
	CLI_OPT_WHEN_FULL,
	CLI_OPT_MAX,
	CLI_OPT_AUTO_EXTEND,
	CLI_OPT_LOW_WATER,
	CLI_OPT_STEP,
	CLI_OPT_STEP_MIN,
	CLI_OPT_METADATA_MAX,
	CLI_OPT_METADATA_AUTO_EXTEND,
	CLI_OPT_METADATA_LOW_WATER,
	CLI_OPT_METADATA_STEP,
	CLI_OPT_METADATA_STEP_MIN,
	CLI_OPT_ACTIVATE_AT_START,
	CLI_OPT_SAMPLE_SECONDS,
	CLI_OPT_REPAIR,
	CLI_OPT_KEEP_COPIES,
	CLI_OPT_KEEP_DAYS,
	CLI_OPT_COPY_HOURS,
	CLI_OPT_CHECK_DAYS,
	CLI_OPT_CHECK_VOLUMES,
	/* Lists. */
	CLI_OPT_POOL,
	CLI_OPT_TYPE,
	CLI_OPT_SEVERITY,
	CLI_OPT_STATUS,
	CLI_OPT_AFTER,
	CLI_OPT_SINCE,
	CLI_OPT_UNTIL,
	CLI_OPT_EVERY,
	CLI_OPT_LIMIT,
	CLI_OPT_COUNT,
};

/* A set of options. */
#define CLI_BIT(id) ((uint64_t)1 << (id))
#define CLI_GLOBAL_OPTIONS                                                          \
	(CLI_BIT(CLI_OPT_SOCKET) | CLI_BIT(CLI_OPT_JSON) | CLI_BIT(CLI_OPT_COLOR) | \
	 CLI_BIT(CLI_OPT_QUIET) | CLI_BIT(CLI_OPT_HELP) | CLI_BIT(CLI_OPT_VERSION))
#define CLI_CHANGE_OPTIONS \
	(CLI_BIT(CLI_OPT_WAIT) | CLI_BIT(CLI_OPT_NO_WAIT) | CLI_BIT(CLI_OPT_DRY_RUN))
#define CLI_POLICY_OPTIONS                                                                     \
	(CLI_BIT(CLI_OPT_MAX) | CLI_BIT(CLI_OPT_AUTO_EXTEND) | CLI_BIT(CLI_OPT_LOW_WATER) |    \
	 CLI_BIT(CLI_OPT_STEP) | CLI_BIT(CLI_OPT_STEP_MIN) | CLI_BIT(CLI_OPT_METADATA_MAX) |   \
	 CLI_BIT(CLI_OPT_METADATA_AUTO_EXTEND) | CLI_BIT(CLI_OPT_METADATA_LOW_WATER) |         \
	 CLI_BIT(CLI_OPT_METADATA_STEP) | CLI_BIT(CLI_OPT_METADATA_STEP_MIN) |                 \
	 CLI_BIT(CLI_OPT_ACTIVATE_AT_START) | CLI_BIT(CLI_OPT_SAMPLE_SECONDS) |                \
	 CLI_BIT(CLI_OPT_REPAIR) | CLI_BIT(CLI_OPT_KEEP_COPIES) | CLI_BIT(CLI_OPT_KEEP_DAYS) | \
	 CLI_BIT(CLI_OPT_COPY_HOURS) | CLI_BIT(CLI_OPT_CHECK_DAYS) |                           \
	 CLI_BIT(CLI_OPT_CHECK_VOLUMES) | CLI_BIT(CLI_OPT_WHEN_FULL))

struct cli_option {
	const char *name;  /* without the dashes */
	char letter;       /* short form, or 0 */
	const char *value; /* what to call its value in help, or NULL for a switch */
	const char *help;
};

/* The facts of one option; static. @id must be below CLI_OPT_COUNT. */
const struct cli_option *cli_option(enum cli_option_id id);

/* What was given. Borrows from argv. */
struct cli_args {
	const char *values[CLI_OPT_COUNT]; /* NULL: not given; "" for a switch */
	char **operands;
	int n_operands;
};

static inline bool cli_has(const struct cli_args *args, enum cli_option_id id)
{
	return args->values[id] != NULL;
}

/*
 * cli_args_parse - read the options in argv[1..argc-1] that are in @allowed.
 *
 * With @stop_at_operand reading ends at the first operand (the noun of the command);
 * otherwise options and operands may be mixed and argv is reordered. Options are
 * added to *args, which the caller has zeroed; the last one of a kind counts.
 * 0, or -EINVAL with @err saying what is wrong.
 */
int cli_args_parse(int argc, char **argv, uint64_t allowed, bool stop_at_operand,
		   struct cli_args *args, struct tm_error *err);

/* A fault of the command line: exit status 2. Returns -EINVAL. */
int cli_usage(struct tm_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Readers. @what names the value in messages ("--size"). Each returns 0 with *ret
 * written, or -EINVAL with @err.
 */

/* A size in bytes, above 0. */
int cli_read_size(const char *what, const char *text, uint64_t *ret, struct tm_error *err);
/* A size, or with a leading '+' a growth: *ret_relative tells. */
int cli_read_size_change(const char *what, const char *text, uint64_t *ret, bool *ret_relative,
			 struct tm_error *err);
/* A size, or "none", which gives 0. */
int cli_read_size_or_none(const char *what, const char *text, uint64_t *ret, struct tm_error *err);
/* A whole number in [min, max]; a final '%' is accepted when @percent. */
int cli_read_number(const char *what, const char *text, uint64_t min, uint64_t max, bool percent,
		    uint64_t *ret, struct tm_error *err);
/* yes/no, on/off, true/false. */
int cli_read_bool(const char *what, const char *text, bool *ret, struct tm_error *err);
/* Seconds: "90", "90s", "5min", "2h", "7d", "2w". */
int cli_read_duration(const char *what, const char *text, uint64_t *ret_seconds,
		      struct tm_error *err);
/*
 * A point in time, written as RFC 3339 in UTC to @buf (at least 32 bytes): RFC 3339,
 * local "2026-01-31", "2026-01-31 08:15[:30]", "now", or a duration, which means that long before
 * @now_usec (real time).
 */
int cli_read_time(const char *what, const char *text, uint64_t now_usec, char *buf, size_t len,
		  struct tm_error *err);

/* A name or an id, as POOL. */
int cli_read_pool(const char *text, struct tm_error *err);

/* POOL/VOLUME, each a name or an id. */
struct cli_volume_ref {
	char pool[TM_NAME_MAX + 1];
	char volume[TM_NAME_MAX + 1];
};
int cli_read_volume(const char *text, struct cli_volume_ref *ret, struct tm_error *err);

/* An operation's id. */
int cli_read_id(const char *what, const char *text, struct tm_error *err);

/*
 * An absolute form of a directory's path, without "//", "/./" and a final '/'; relative ones
 * count from the working directory. ".." is left for the daemon to refuse: only it could resolve
 * it. *ret is the caller's to free. 0, -EINVAL, or -ENOMEM.
 */
int cli_read_directory(const char *what, const char *text, char **ret, struct tm_error *err);

#endif
