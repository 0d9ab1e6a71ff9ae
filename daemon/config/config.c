/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration. inih splits lines into sections, keys and values; lines are handed to it one
 * by one from memory, because by itself it knows no line numbers, cuts long lines in two and
 * passes over sections without keys.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "config/config.h"
#include "logic/policy.h"

#define FILE_MAX_BYTES (1024 * 1024)
/* inih's buffer for a line has 200 bytes; a longer line would come out as two. */
#define LINE_MAX_BYTES 190

struct key;
typedef bool (*parse_fn)(const struct key *key, const char *value, void *out);

struct key {
	const char *section, *name;
	parse_fn parse; /* false: not a good value, and the key's hint says what would be */
	size_t offset, size;
	uint64_t min, max;
	const char *hint;
};

/* All digits, no sign, in the key's range. */
static bool parse_number(const struct key *key, const char *value, void *out)
{
	uint64_t n = 0;
	uint32_t narrow;

	if (!*value)
		return false;
	for (; *value; value++) {
		if (*value < '0' || *value > '9')
			return false;
		n = n * 10 + (uint64_t)(*value - '0');
		if (n > key->max)
			return false;
	}
	if (n < key->min)
		return false;
	narrow = (uint32_t)n;
	memcpy(out, &narrow, sizeof(narrow));
	return true;
}

static bool parse_bool(const struct key *key, const char *value, void *out)
{
	static const char *const words[][2] = {
		{ "no", "yes" }, { "false", "true" }, { "off", "on" }, { "0", "1" }
	};

	(void)key;
	for (size_t i = 0; i < TM_ARRAY_SIZE(words); i++) {
		for (int b = 0; b < 2; b++) {
			if (strcmp(value, words[i][b]) == 0) {
				*(bool *)out = b;
				return true;
			}
		}
	}
	return false;
}

static bool parse_size(const struct key *key, const char *value, void *out)
{
	uint64_t bytes;

	if (tm_size_parse(value, &bytes) < 0 || bytes < key->min || bytes > key->max)
		return false;
	memcpy(out, &bytes, sizeof(bytes));
	return true;
}

/* A number and its unit; the unit is never left out, so that nobody's days are read as seconds. */
static bool parse_duration(const struct key *key, const char *value, void *out)
{
	static const struct {
		const char *unit;
		uint64_t seconds;
	} units[] = {
		{ "s", 1 },     { "min", 60 },      { "h", 3600 },
		{ "d", 86400 }, { "w", 7 * 86400 }, { "y", 365 * 86400 },
	};
	uint64_t n = 0, usec;
	const char *p = value;

	for (; *p >= '0' && *p <= '9'; p++)
		n = tm_sat_add(tm_sat_mul(n, 10), (uint64_t)(*p - '0'));
	if (p == value)
		return false;
	while (*p == ' ')
		p++;
	for (size_t i = 0; i < TM_ARRAY_SIZE(units); i++) {
		if (strcmp(p, units[i].unit) != 0)
			continue;
		usec = tm_sat_mul(n, units[i].seconds * TM_USEC_PER_SEC);
		if (usec < key->min || usec > key->max)
			return false;
		memcpy(out, &usec, sizeof(usec));
		return true;
	}
	return false;
}

static bool parse_path(const struct key *key, const char *value, void *out)
{
	size_t len = strlen(value);

	if (len >= key->size || tm_path_check(value, "", NULL) < 0)
		return false;
	memcpy(out, value, len + 1);
	return true;
}

static bool parse_group(const struct key *key, const char *value, void *out)
{
	size_t len = strlen(value);

	if (len == 0 || len >= key->size || value[0] == '-')
		return false;
	for (const char *p = value; *p; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("_-.", *p))
			return false;
	}
	memcpy(out, value, len + 1);
	return true;
}

static bool parse_role(const struct key *key, const char *value, void *out)
{
	const bool admin = strcmp(value, "admin") == 0;

	(void)key;
	if (!admin && strcmp(value, "view") != 0)
		return false;
	*(bool *)out = admin;
	return true;
}

static bool parse_level(const struct key *key, const char *value, void *out)
{
	static const struct {
		const char *name;
		int level;
	} levels[] = {
		{ "err", LOG_ERR },       { "error", LOG_ERR }, { "warning", LOG_WARNING },
		{ "notice", LOG_NOTICE }, { "info", LOG_INFO }, { "debug", LOG_DEBUG },
	};

	(void)key;
	for (size_t i = 0; i < TM_ARRAY_SIZE(levels); i++) {
		if (strcmp(value, levels[i].name) == 0) {
			*(int *)out = levels[i].level;
			return true;
		}
	}
	return false;
}

#define MEMBER(m)     offsetof(struct tm_config, m), sizeof(((struct tm_config *)NULL)->m)
#define HINT_BOOLEAN  "yes or no"
#define HINT_PATH     "an absolute path without \"..\" and \"//\""
#define YEAR_USEC     (365 * 86400 * TM_USEC_PER_SEC)
#define SECOND(value) ((value)*TM_USEC_PER_SEC)

static const struct key keys[] = {
	{ "daemon", "state_directory", parse_path, MEMBER(state_directory), 0, 0, HINT_PATH },
	{ "daemon", "log_level", parse_level, MEMBER(log_level), 0, 0,
	  "err, warning, notice, info or debug" },
	{ "daemon", "worker_threads", parse_number, MEMBER(worker_threads), 1, 32,
	  "a number from 1 to 32" },
	{ "http", "socket", parse_path, MEMBER(socket), 0, 0,
	  HINT_PATH ", of at most 107 characters" },
	{ "http", "socket_group", parse_group, MEMBER(socket_group), 0, 0, "the name of a group" },
	{ "http", "loopback_port", parse_number, MEMBER(loopback_port), 0, 65535,
	  "a port from 1 to 65535, or 0 for none" },
	{ "http", "loopback_role", parse_role, MEMBER(loopback_admin), 0, 0, "view or admin" },
	{ "http", "max_body", parse_size, MEMBER(max_body_bytes), 4 * TM_KIB, 64 * TM_MIB,
	  "a size from 4KiB to 64MiB" },
	{ "http", "threads", parse_number, MEMBER(http_threads), 1, 16, "a number from 1 to 16" },
	{ "http", "max_connections", parse_number, MEMBER(max_connections), 1, 10000,
	  "a number from 1 to 10000" },
	{ "bus", "enabled", parse_bool, MEMBER(bus_enabled), 0, 0, HINT_BOOLEAN },
	{ "history", "keep_events", parse_duration, MEMBER(keep_events_usec), SECOND(3600),
	  100 * YEAR_USEC, "a duration from 1h to 100y, with its unit: s, min, h, d, w or y" },
	{ "repair", "tool_limit", parse_duration, MEMBER(tool_limit_usec), SECOND(1), SECOND(86400),
	  "a duration from 1s to 1d, with its unit: s, min, h or d" },
	{ "kernel", "load_module", parse_bool, MEMBER(load_module), 0, 0, HINT_BOOLEAN },
};

void tm_config_default(struct tm_config *ret)
{
	*ret = (struct tm_config){
		.state_directory = "/var/lib/thinmgr",
		.log_level = LOG_INFO,
		.worker_threads = 4,
		.socket = "/run/thinmgr/thinmgr.sock",
		.socket_group = "thinmgr",
		.loopback_port = 0,
		.loopback_admin = false,
		.max_body_bytes = TM_MIB,
		.http_threads = 2,
		.max_connections = 256,
		.bus_enabled = true,
		.keep_events_usec = YEAR_USEC,
		.tool_limit_usec = SECOND(600),
		.load_module = true,
	};
}

/* One file on its way through inih. */
struct parser {
	const char *name;
	const char *text;
	size_t len, pos;
	int line;  /* the one handed out last, from 1 */
	int fault; /* line of the first fault that we found, 0: none */
	bool seen[TM_ARRAY_SIZE(keys)];
	struct tm_config config;
	struct tm_error *err;
};

/* For messages: a value from a file, cut, with nothing that could hurt a terminal or JSON. */
struct shown {
	char text[48];
};

static struct shown show(const char *value)
{
	struct shown s = { 0 };
	size_t i;

	for (i = 0; i < sizeof(s.text) - 4 && value[i]; i++)
		s.text[i] = value[i] >= ' ' && value[i] <= '~' ? value[i] : '?';
	if (value[i])
		memcpy(s.text + i, "...", 4);
	return s;
}

static bool section_known(const char *name)
{
	for (size_t i = 0; i < TM_ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].section, name) == 0)
			return true;
	}
	return false;
}

/* Notes the fault of the line being read, unless an earlier line had one. */
__attribute__((format(printf, 2, 3))) static void fault(struct parser *p, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (p->fault)
		return;
	p->fault = p->line;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)tm_error_set(p->err, TM_ERR_BAD_CONFIG, EINVAL, "%s:%d: %s", p->name, p->line, text);
}

static void unknown_section(struct parser *p, const char *name)
{
	fault(p, "unknown section [%s]", show(name).text);
	tm_error_hint(p->err, "Sections are [daemon], [http], [bus], [history] and [kernel].");
}

/* What inih would let pass: @line is without its newline and terminated. */
static void check_line(struct parser *p, const char *line, size_t len)
{
	const char *word = line + strspn(line, " \t\r");

	if (memchr(line, '\0', len)) {
		fault(p, "a NUL byte");
		return;
	}
	for (const char *c = line; *c; c++) {
		if (iscntrl((unsigned char)*c) && *c != '\t' && (*c != '\r' || c[1])) {
			fault(p, "a control character");
			return;
		}
	}
	if (!*word || strchr("#;", *word))
		return;
	if (word != line) {
		fault(p, "the line begins with white space; values have one line only");
		return;
	}
	if (*word == '[') {
		const char *end = strchr(word, ']');

		if (!end)
			return; /* inih says so */
		if (end[1 + strspn(end + 1, " \t\r")]) {
			fault(p, "text after a section's name");
			return;
		}
	}
}

/* inih's source of lines, like fgets. After the first fault there are no more. */
static char *next_line(char *buf, int size, void *userdata)
{
	struct parser *p = userdata;
	const char *begin = p->text + p->pos, *newline;
	char line[LINE_MAX_BYTES + 1];
	size_t len;

	if (p->pos >= p->len || p->fault)
		return NULL;
	p->line++;
	newline = memchr(begin, '\n', p->len - p->pos);
	len = newline ? (size_t)(newline - begin) : p->len - p->pos;
	p->pos += len + (newline != NULL);
	if (len > LINE_MAX_BYTES || len + 2 > (size_t)size) {
		fault(p, "the line is longer than %d bytes", LINE_MAX_BYTES);
		return NULL;
	}
	memcpy(line, begin, len);
	line[len] = '\0';
	/* The mark that some editors put at the front; inih takes it off as well. */
	if (p->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
		check_line(p, line + 3, len - 3);
	else
		check_line(p, line, len);
	if (p->fault)
		return NULL;
	if (line[0] == '[') {
		char *end = strchr(line, ']');

		if (end) {
			*end = '\0';
			if (!section_known(line + 1)) {
				unknown_section(p, line + 1);
				return NULL;
			}
		}
	}
	memcpy(buf, begin, len);
	buf[len] = '\n';
	buf[len + 1] = '\0';
	return buf;
}

static int handle(void *userdata, const char *section, const char *name, const char *value)
{
	struct parser *p = userdata;
	size_t i;

	for (i = 0; i < TM_ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
			break;
	}
	if (!section[0]) {
		fault(p, "key \"%s\" stands before any section", show(name).text);
	} else if (!section_known(section)) {
		unknown_section(p, section);
	} else if (i == TM_ARRAY_SIZE(keys)) {
		fault(p, "unknown key \"%s\" in section [%s]", show(name).text, section);
	} else if (p->seen[i]) {
		fault(p, "key \"%s\" is set twice in this file", keys[i].name);
	} else if (!keys[i].parse(&keys[i], value, (char *)&p->config + keys[i].offset)) {
		fault(p, "%s=%s: must be %s", keys[i].name, show(value).text, keys[i].hint);
	} else {
		p->seen[i] = true;
	}
	return p->fault == 0;
}

int tm_config_parse(const char *name, const char *text, size_t len, struct tm_config *config,
		    struct tm_error *err)
{
	struct tm_error ours = { 0 };
	struct parser p = { .name = name, .text = text, .len = len, .config = *config };
	int line;

	p.err = err ? err : &ours;
	line = ini_parse_stream(next_line, &p, handle, &p);
	if (line < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	if (line > 0 && (!p.fault || line < p.fault)) {
		/* inih goes on after a line without '=' or ']'; what we found came later. */
		if (err && p.fault)
			*err = (struct tm_error){ 0 };
		return tm_error_set(err, TM_ERR_BAD_CONFIG, EINVAL,
				    "%s:%d: neither \"[section]\" nor \"key=value\"", name, line);
	}
	if (p.fault)
		return -EINVAL;
	*config = p.config;
	return 0;
}

static int load_file(const char *path, bool required, struct tm_config *config,
		     struct tm_error *err)
{
	tm_auto_free char *text = NULL;
	size_t len = 0;
	int r;

	r = tm_read_file(path, FILE_MAX_BYTES, &text, &len);
	if (r == -ENOENT && !required)
		return 0;
	if (r == -EFBIG)
		return tm_error_set(err, TM_ERR_BAD_CONFIG, EFBIG, "%s is larger than 1 MiB", path);
	if (r < 0)
		return tm_error_set(err, TM_ERR_BAD_CONFIG, -r, "cannot read %s: %s", path,
				    strerror(-r));
	return tm_config_parse(path, text, len, config, err);
}

static int is_drop_in(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".conf") == 0;
}

/* By bytes: the order must not depend on the locale. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_drop_ins(const char *directory, struct tm_config *config, struct tm_error *err)
{
	struct dirent **entries = NULL;
	int n, r = 0;

	n = scandir(directory, &entries, is_drop_in, by_name);
	if (n < 0) {
		if (errno == ENOENT)
			return 0;
		return tm_error_set(err, TM_ERR_BAD_CONFIG, errno, "cannot read %s: %s", directory,
				    strerror(errno));
	}
	for (int i = 0; i < n; i++) {
		tm_auto_free char *path = NULL;

		if (r == 0 && asprintf(&path, "%s/%s", directory, entries[i]->d_name) < 0) {
			path = NULL;
			r = tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
		}
		if (r == 0)
			r = load_file(path, true, config, err);
		free(entries[i]);
	}
	free(entries);
	return r;
}

int tm_config_load(const char *path, struct tm_config *ret, struct tm_error *err)
{
	tm_auto_free char *directory = NULL;
	struct tm_config config;
	bool required = path != NULL;
	int r;

	if (!path)
		path = TM_CONFIG_PATH;
	if (asprintf(&directory, "%s.d", path) < 0) {
		directory = NULL;
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	}
	tm_config_default(&config);
	r = load_file(path, required, &config, err);
	if (r == 0)
		r = load_drop_ins(directory, &config, err);
	if (r == 0)
		*ret = config;
	return r;
}
