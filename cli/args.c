/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "args.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"

static const struct cli_option options[CLI_OPT_COUNT] = {
	[CLI_OPT_SOCKET] = { "socket", 0, "PATH", "the daemon's socket" },
	[CLI_OPT_JSON] = { "json", 'j', NULL, "print the API's documents as they come" },
	[CLI_OPT_COLOR] = { "color", 0, "WHEN", "auto, always or never" },
	[CLI_OPT_QUIET] = { "quiet", 'q', NULL, "say nothing when all went well" },
	[CLI_OPT_HELP] = { "help", 'h', NULL, "this text" },
	[CLI_OPT_VERSION] = { "version", 'V', NULL, "print the version" },

	[CLI_OPT_WAIT] = { "wait", 'w', "TIME", "wait no longer than this (default: to the end)" },
	[CLI_OPT_NO_WAIT] = { "no-wait", 0, NULL, "start the operation, print it and return" },
	[CLI_OPT_DRY_RUN] = { "dry-run", 'n', NULL, "check and say what would be done" },
	[CLI_OPT_YES] = { "yes", 'y', NULL, "do not ask before data is destroyed" },

	[CLI_OPT_DIRECTORY] = { "directory", 'd', "DIR", "where the pool's files are kept" },
	[CLI_OPT_SIZE] = { "size", 's', "SIZE", "size: 256M, 1.5GiB; to resize also +1G" },
	[CLI_OPT_METADATA_SIZE] = { "metadata-size", 0, "SIZE", "metadata (default: by rule)" },
	[CLI_OPT_BLOCK_SIZE] = { "block-size", 0, "SIZE", "data block (default: by size)" },
	[CLI_OPT_SPARSE] = { "sparse", 0, NULL, "do not reserve the space in the file system" },
	[CLI_OPT_NO_ZEROING] = { "no-zeroing", 0, NULL, "do not zero new blocks" },
	[CLI_OPT_NO_DISCARD] = { "no-discard", 0, NULL, "ignore discards" },
	[CLI_OPT_NO_PASSDOWN] = { "no-passdown", 0, NULL, "keep discards from the backing" },
	[CLI_OPT_NO_ACTIVATE] = { "no-activate", 0, NULL, "leave it inactive" },
	[CLI_OPT_ACTIVATE] = { "activate", 0, NULL, "activate what was made" },
	[CLI_OPT_WITH_VOLUMES] = { "with-volumes", 0, NULL, "delete the pool's volumes, too" },
	[CLI_OPT_FORGET] = { "forget", 0, NULL, "also when none of its files can be found" },
	[CLI_OPT_FORCE] = { "force", 0, NULL, "unmount what is in the way; or accept losses" },
	[CLI_OPT_COPY] = { "copy", 0, NULL, "keep what is read as a safety copy" },
	[CLI_OPT_DATA] = { "data", 0, "SIZE", "new data size, or +SIZE to add" },
	[CLI_OPT_METADATA] = { "metadata", 0, "SIZE", "new metadata size, or +SIZE to add" },
	[CLI_OPT_SHRINK] = { "shrink", 0, NULL, "allow a smaller size: the end is cut off" },
	[CLI_OPT_READ_ONLY] = { "read-only", 'r', NULL, "make the snapshots read-only" },

	[CLI_OPT_WHEN_FULL] = { "when-full", 0, "WHAT", "queue or error: writes to a full pool" },
	[CLI_OPT_MAX] = { "max", 0, "SIZE", "data grows no further, or none" },
	[CLI_OPT_AUTO_EXTEND] = { "auto-extend", 0, "BOOL", "grow data before it is full" },
	[CLI_OPT_LOW_WATER] = { "low-water", 0, "PERCENT", "free data that makes it grow" },
	[CLI_OPT_STEP] = { "step", 0, "PERCENT", "how much data grows at a time" },
	[CLI_OPT_STEP_MIN] = { "step-min", 0, "SIZE", "but at least by this" },
	[CLI_OPT_METADATA_MAX] = { "metadata-max", 0, "SIZE",
				   "metadata grows no further, or none" },
	[CLI_OPT_METADATA_AUTO_EXTEND] = { "metadata-auto-extend", 0, "BOOL",
					   "grow metadata before it is full" },
	[CLI_OPT_METADATA_LOW_WATER] = { "metadata-low-water", 0, "PERCENT",
					 "free metadata that makes it grow" },
	[CLI_OPT_METADATA_STEP] = { "metadata-step", 0, "PERCENT",
				    "how much metadata grows at a time" },
	[CLI_OPT_METADATA_STEP_MIN] = { "metadata-step-min", 0, "SIZE", "but at least by this" },
	[CLI_OPT_ACTIVATE_AT_START] = { "activate-at-start", 0, "BOOL",
					"come back after a reboot" },
	[CLI_OPT_SAMPLE_SECONDS] = { "sample-seconds", 0, "N", "how often space is sampled" },
	[CLI_OPT_REPAIR] = { "repair", 0, "WHEN",
			     "manual, when_idle or force: mending broken metadata" },
	[CLI_OPT_KEEP_COPIES] = { "keep-copies", 0, "N", "copies of metadata that always stay" },
	[CLI_OPT_KEEP_DAYS] = { "keep-days", 0, "N", "days for which the others stay" },
	[CLI_OPT_COPY_HOURS] = { "copy-hours", 0, "N", "hours between safety copies of metadata" },
	[CLI_OPT_CHECK_DAYS] = { "check-days", 0, "N", "days between checks of metadata" },
	[CLI_OPT_CHECK_VOLUMES] = { "check-volumes", 0, "BOOL",
				    "check file systems that a repair leaves suspect" },

	[CLI_OPT_POOL] = { "pool", 'p', "POOL", "only of this pool" },
	[CLI_OPT_TYPE] = { "type", 't', "TYPE", "only of this type: extended, low-space, ..." },
	[CLI_OPT_SEVERITY] = { "severity", 0, "LEVEL",
			       "info, notice, warning, error, critical: this and worse" },
	[CLI_OPT_STATUS] = { "status", 0, "STATUS", "queued, running, undoing, done or failed" },
	[CLI_OPT_AFTER] = { "after", 0, "NUMBER", "only events with larger numbers" },
	[CLI_OPT_SINCE] = { "since", 0, "TIME", "from this time, or so long ago: 2h" },
	[CLI_OPT_UNTIL] = { "until", 0, "TIME", "up to this time" },
	[CLI_OPT_EVERY] = { "every", 0, "TIME", "one line for each span of this length" },
	[CLI_OPT_LIMIT] = { "limit", 'l', "N", "no more than this many" },
};

_Static_assert(CLI_OPT_COUNT <= 64, "a set of options is 64 bits");

const struct cli_option *cli_option(enum cli_option_id id)
{
	return &options[id];
}

int cli_usage(struct tm_error *err, const char *fmt, ...)
{
	char text[sizeof(err->detail)];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return tm_error_set(err, TM_ERR_BAD_QUERY, EINVAL, "%s", text);
}

/* The value getopt_long returns for an option without a letter. */
#define LONG_ONLY 256

int cli_args_parse(int argc, char **argv, uint64_t allowed, bool stop_at_operand,
		   struct cli_args *args, struct tm_error *err)
{
	struct option longs[CLI_OPT_COUNT + 1];
	char shorts[2 * CLI_OPT_COUNT + 3];
	size_t n_longs = 0, n_shorts = 0;
	int c;

	if (stop_at_operand)
		shorts[n_shorts++] = '+';
	shorts[n_shorts++] = ':';
	memset(longs, 0, sizeof(longs));
	for (int id = 0; id < CLI_OPT_COUNT; id++) {
		if (!(allowed & CLI_BIT(id)))
			continue;
		longs[n_longs++] = (struct option){
			.name = options[id].name,
			.has_arg = options[id].value ? required_argument : no_argument,
			.val = LONG_ONLY + id,
		};
		if (options[id].letter) {
			shorts[n_shorts++] = options[id].letter;
			if (options[id].value)
				shorts[n_shorts++] = ':';
		}
	}
	shorts[n_shorts] = '\0';

	/* 0 makes getopt_long forget an earlier scan: thinmgr scans twice. */
	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		int found = -1;

		if (c == ':' || c == '?') {
			const char *word = optind > 0 && optind <= argc ? argv[optind - 1] : "";
			int id = optopt - LONG_ONLY;

			if (c == ':' && id >= 0 && id < CLI_OPT_COUNT)
				return cli_usage(err, "--%s needs a value", options[id].name);
			if (c == ':')
				return cli_usage(err, "-%c needs a value", optopt);
			if (id >= 0 && id < CLI_OPT_COUNT)
				return cli_usage(err, "--%s takes no value", options[id].name);
			if (optopt > ' ' && optopt < 127)
				return cli_usage(err, "unknown option -%c", optopt);
			return cli_usage(err, "unknown or ambiguous option %s", word);
		}
		if (c >= LONG_ONLY) {
			found = c - LONG_ONLY;
		} else {
			for (int id = 0; id < CLI_OPT_COUNT; id++)
				if ((allowed & CLI_BIT(id)) && options[id].letter == c)
					found = id;
		}
		if (found < 0 || found >= CLI_OPT_COUNT)
			return cli_usage(err, "unknown option");
		args->values[found] = options[found].value ? optarg : "";
	}
	args->operands = argv + optind;
	args->n_operands = argc - optind;
	return 0;
}

int cli_read_size(const char *what, const char *text, uint64_t *ret, struct tm_error *err)
{
	uint64_t value;
	int r = tm_size_parse(text, &value);

	if (r == -ERANGE)
		return cli_usage(err, "%s: '%s' is too large", what, text);
	if (r < 0) {
		(void)cli_usage(err, "%s: '%s' is not a size", what, text);
		tm_error_hint(err, "write a number and a unit, such as 512M, 1.5GiB or 2T");
		return -EINVAL;
	}
	if (value == 0)
		return cli_usage(err, "%s: must be more than 0", what);
	*ret = value;
	return 0;
}

int cli_read_size_change(const char *what, const char *text, uint64_t *ret, bool *ret_relative,
			 struct tm_error *err)
{
	bool relative = text[0] == '+';
	int r = cli_read_size(what, relative ? text + 1 : text, ret, err);

	if (r == 0)
		*ret_relative = relative;
	return r;
}

int cli_read_size_or_none(const char *what, const char *text, uint64_t *ret, struct tm_error *err)
{
	if (strcmp(text, "none") == 0) {
		*ret = 0;
		return 0;
	}
	return cli_read_size(what, text, ret, err);
}

/* Digits only, no sign; returns what follows them, or NULL for no digits or an overflow. */
static const char *read_digits(const char *text, uint64_t *ret)
{
	const char *p = text;
	uint64_t value = 0;

	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return NULL;
	if (p == text)
		return NULL;
	*ret = value;
	return p;
}

int cli_read_number(const char *what, const char *text, uint64_t min, uint64_t max, bool percent,
		    uint64_t *ret, struct tm_error *err)
{
	uint64_t value;
	const char *end = read_digits(text, &value);

	if (end && percent && *end == '%')
		end++;
	if (!end || *end != '\0')
		return cli_usage(err, "%s: '%s' is not a whole number", what, text);
	if (value < min || value > max)
		return cli_usage(err, "%s: %s is not between %llu and %llu", what, text,
				 (unsigned long long)min, (unsigned long long)max);
	*ret = value;
	return 0;
}

int cli_read_bool(const char *what, const char *text, bool *ret, struct tm_error *err)
{
	static const char *const words[][2] = {
		{ "no", "yes" }, { "off", "on" }, { "false", "true" }, { "0", "1" }
	};

	for (size_t i = 0; i < TM_ARRAY_SIZE(words); i++)
		for (int value = 0; value < 2; value++)
			if (strcasecmp(text, words[i][value]) == 0) {
				*ret = value != 0;
				return 0;
			}
	return cli_usage(err, "%s: '%s' is neither yes nor no", what, text);
}

/* 0 or -EINVAL, without a message: also used to try whether a time is a duration. */
static int parse_duration(const char *text, uint64_t *ret_seconds)
{
	static const struct {
		const char *unit;
		uint64_t seconds;
	} units[] = {
		{ "", 1 },      { "s", 1 },         { "sec", 1 },
		{ "m", 60 },    { "min", 60 },      { "h", 3600 },
		{ "d", 86400 }, { "w", 7 * 86400 }, { "y", 365 * 86400 },
	};
	uint64_t value;
	const char *end = read_digits(text, &value);

	if (!end)
		return -EINVAL;
	for (size_t i = 0; i < TM_ARRAY_SIZE(units); i++) {
		if (strcmp(end, units[i].unit) != 0)
			continue;
		if (__builtin_mul_overflow(value, units[i].seconds, &value))
			return -EINVAL;
		*ret_seconds = value;
		return 0;
	}
	return -EINVAL;
}

int cli_read_duration(const char *what, const char *text, uint64_t *ret_seconds,
		      struct tm_error *err)
{
	uint64_t value;

	if (parse_duration(text, &value) < 0 || value > (uint64_t)100 * 365 * 86400) {
		(void)cli_usage(err, "%s: '%s' is not a span of time", what, text);
		tm_error_hint(err, "write seconds, or a number and one of s, min, h, d, w, y");
		return -EINVAL;
	}
	*ret_seconds = value;
	return 0;
}

/* Local time in the forms people type; 0 or -EINVAL. */
static int parse_local(const char *text, uint64_t *ret_usec)
{
	static const char *const formats[] = { "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S",
					       "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S" };

	for (size_t i = 0; i < TM_ARRAY_SIZE(formats); i++) {
		struct tm tm = { .tm_isdst = -1 };
		const char *end = strptime(text, formats[i], &tm);
		time_t t;

		if (!end || *end != '\0')
			continue;
		tm.tm_isdst = -1;
		t = mktime(&tm);
		if (t < 0)
			return -EINVAL;
		*ret_usec = (uint64_t)t * TM_USEC_PER_SEC;
		return 0;
	}
	return -EINVAL;
}

int cli_read_time(const char *what, const char *text, uint64_t now_usec, char *buf, size_t len,
		  struct tm_error *err)
{
	uint64_t usec, seconds;

	if (strcmp(text, "now") == 0) {
		usec = now_usec;
	} else if (parse_duration(text, &seconds) == 0) {
		uint64_t span = tm_sat_mul(seconds, TM_USEC_PER_SEC);

		usec = span < now_usec ? now_usec - span : 0;
	} else if (tm_time_parse(text, &usec) < 0 && parse_local(text, &usec) < 0) {
		(void)cli_usage(err, "%s: '%s' is not a time", what, text);
		tm_error_hint(err, "write 2h (ago), 2026-01-31, '2026-01-31 08:15' or RFC 3339");
		return -EINVAL;
	}
	(void)tm_time_format(usec, buf, len);
	return 0;
}

static bool valid_ref(const char *text)
{
	struct tm_uuid id;

	return tm_name_valid(text) || tm_uuid_parse(text, &id) == 0;
}

static int bad_name(const char *what, const char *text, struct tm_error *err)
{
	(void)tm_error_set(err, TM_ERR_BAD_NAME, EINVAL, "'%s' is not a %s", text, what);
	tm_error_hint(err,
		      "names have 1 to %d letters, digits and '.', '_', '-', and begin with a "
		      "letter or digit",
		      TM_NAME_MAX);
	return -EINVAL;
}

int cli_read_pool(const char *text, struct tm_error *err)
{
	if (!valid_ref(text))
		return bad_name("pool's name", text, err);
	return 0;
}

int cli_read_volume(const char *text, struct cli_volume_ref *ret, struct tm_error *err)
{
	const char *slash = strchr(text, '/');
	struct cli_volume_ref ref;
	size_t n;

	if (!slash) {
		(void)cli_usage(err, "'%s' lacks the pool's or the volume's name", text);
		tm_error_hint(err, "volumes are written POOL/VOLUME");
		return -EINVAL;
	}
	n = (size_t)(slash - text);
	if (n >= sizeof(ref.pool) || strlen(slash + 1) >= sizeof(ref.volume))
		return bad_name("volume's name", text, err);
	memcpy(ref.pool, text, n);
	ref.pool[n] = '\0';
	(void)snprintf(ref.volume, sizeof(ref.volume), "%s", slash + 1);
	if (!valid_ref(ref.pool))
		return bad_name("pool's name", ref.pool, err);
	if (!valid_ref(ref.volume))
		return bad_name("volume's name", ref.volume, err);
	*ret = ref;
	return 0;
}

int cli_read_id(const char *what, const char *text, struct tm_error *err)
{
	struct tm_uuid id;

	if (tm_uuid_parse(text, &id) < 0)
		return cli_usage(err, "'%s' is not %s's id", text, what);
	return 0;
}

int cli_read_directory(const char *what, const char *text, char **ret, struct tm_error *err)
{
	tm_auto_free char *cwd = NULL;
	tm_auto_free char *path = NULL;
	size_t n = 0;

	if (text[0] == '\0')
		return cli_usage(err, "%s: the path is empty", what);
	if (text[0] != '/') {
		cwd = getcwd(NULL, 0);
		if (!cwd)
			return tm_error_set(err, TM_ERR_IO, errno,
					    "the working directory cannot be found: %s",
					    strerror(errno));
	}
	if (asprintf(&path, "%s/%s", cwd ? cwd : "", text) < 0) {
		path = NULL;
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	}
	/* In place: each component that says something moves to the end of what is kept. */
	for (const char *p = path; *p;) {
		size_t len;

		while (*p == '/')
			p++;
		len = strcspn(p, "/");
		if (len > 0 && !(len == 1 && *p == '.')) {
			path[n++] = '/';
			memmove(path + n, p, len);
			n += len;
		}
		p += len;
	}
	if (n == 0)
		path[n++] = '/';
	path[n] = '\0';
	*ret = TM_TAKE(path);
	return 0;
}
