// SPDX-License-Identifier: GPL-2.0-or-later
#include "host/mount.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "logic/json.h"

/* The texts of a line, in the order in which they are kept. */
enum { ROOT, POINT, OPTIONS, TYPE, SOURCE, SUPER_OPTIONS, TEXTS };

static const char *const keys[TEXTS] = {
	[ROOT] = "root", [POINT] = "mount_point", [OPTIONS] = "options",
	[TYPE] = "type", [SOURCE] = "source",     [SUPER_OPTIONS] = "super_options",
};

static void texts_of(const struct tm_mount_line *line, const char *texts[TEXTS])
{
	texts[ROOT] = line->root;
	texts[POINT] = line->point;
	texts[OPTIONS] = line->options;
	texts[TYPE] = line->type;
	texts[SOURCE] = line->source;
	texts[SUPER_OPTIONS] = line->super_options;
}

int tm_mount_set_line(struct tm_mount *m, const struct tm_mount_line *line, const char *base)
{
	const char *texts[TEXTS], *copies[TEXTS];
	const size_t base_len = strcmp(base, "/") != 0 ? strlen(base) : 0;
	size_t size = base_len;
	char *buffer, *at;

	texts_of(line, texts);
	for (size_t i = 0; i < TEXTS; i++)
		size += strlen(texts[i]) + 1;
	at = buffer = malloc(size);
	if (!buffer)
		return -ENOMEM;
	for (size_t i = 0; i < TEXTS; i++) {
		size_t len = strlen(texts[i]);

		copies[i] = at;
		if (i == POINT && base_len) {
			memcpy(at, base, base_len);
			at += base_len;
			if (len == 1) /* its root: nothing comes below the base */
				len = 0;
		}
		memcpy(at, texts[i], len);
		at += len;
		*at++ = '\0';
	}
	m->line = *line;
	m->line.root = copies[ROOT];
	m->line.point = copies[POINT];
	m->line.options = copies[OPTIONS];
	m->line.type = copies[TYPE];
	m->line.source = copies[SOURCE];
	m->line.super_options = copies[SUPER_OPTIONS];
	free(m->buffer);
	m->buffer = buffer;
	return 0;
}

int tm_mount_copy(const struct tm_mount *m, struct tm_mount *ret)
{
	struct tm_mount copy = *m;

	copy.buffer = NULL;
	if (tm_mount_set_line(&copy, &m->line, "/") < 0)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

void tm_mount_done(struct tm_mount *m)
{
	free(m->buffer);
	*m = (struct tm_mount){ 0 };
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static void decrefp(json_t **json)
{
	json_decref(*json);
}

static json_t *escaped(const char *text)
{
	const size_t size = 4 * strlen(text) + 1;
	tm_auto_free char *buf = malloc(size);

	return buf && tm_mount_escape(text, buf, size) == 0 ? json_string(buf) : NULL;
}

json_t *tm_mount_to_json(const struct tm_mount *m)
{
	tm_cleanup(decrefp) json_t *object = NULL;
	const char *texts[TEXTS];

	object = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:b, s:I, s:I, s:s}", "id",
			   (json_int_t)m->line.id, "parent", (json_int_t)m->line.parent, "major",
			   (json_int_t)m->line.major, "minor", (json_int_t)m->line.minor, "shared",
			   (json_int_t)m->line.shared, "master", (json_int_t)m->line.master,
			   "unbindable", (int)m->line.unbindable, "namespace", (json_int_t)m->ns,
			   "here", (int)m->here, "pid", (json_int_t)m->pid, "seen_ticks",
			   (json_int_t)m->seen_ticks, "boot", m->boot);
	texts_of(&m->line, texts);
	for (size_t i = 0; object && i < TEXTS; i++)
		if (json_object_set_new(object, keys[i], escaped(texts[i])) < 0)
			return NULL;
	return TM_TAKE(object);
}

int tm_mount_from_json(json_t *object, const char *prefix, struct tm_mount *ret,
		       struct tm_error *err)
{
	uint64_t major = 0, minor = 0, pid = 0;
	const char *texts[TEXTS] = { NULL }, *boot = "";
	struct tm_mount_line line = { 0 };
	struct tm_json_reader r;
	struct tm_mount m = { 0 };

	tm_json_reader_init(&r, object, prefix, err);
#define NUMBER(name, max, to) tm_json_require(&r, name, tm_json_get_uint(&r, name, 0, max, to))
	(void)NUMBER("id", INT64_MAX, &line.id);
	(void)NUMBER("parent", INT64_MAX, &line.parent);
	(void)NUMBER("major", UINT_MAX, &major);
	(void)NUMBER("minor", UINT_MAX, &minor);
	(void)NUMBER("shared", INT64_MAX, &line.shared);
	(void)NUMBER("master", INT64_MAX, &line.master);
	(void)NUMBER("namespace", INT64_MAX, &m.ns);
	(void)NUMBER("pid", INT_MAX, &pid);
	(void)NUMBER("seen_ticks", INT64_MAX, &m.seen_ticks);
#undef NUMBER
	(void)tm_json_require(&r, "unbindable",
			      tm_json_get_bool(&r, "unbindable", &line.unbindable));
	(void)tm_json_require(&r, "here", tm_json_get_bool(&r, "here", &m.here));
	(void)tm_json_require(&r, "boot", tm_json_get_string(&r, "boot", &boot));
	for (size_t i = 0; i < TEXTS; i++)
		(void)tm_json_require(&r, keys[i], tm_json_get_string(&r, keys[i], &texts[i]));
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	if (texts[POINT][0] != '/' || !texts[TYPE][0] || strlen(boot) >= sizeof(m.boot))
		return tm_error_set(err, TM_ERR_OUT_OF_RANGE, EINVAL,
				    "%s is not the record of a mount", prefix[0] ? prefix : "this");
	line.major = (unsigned int)major;
	line.minor = (unsigned int)minor;
	line.root = texts[ROOT];
	line.point = texts[POINT];
	line.options = texts[OPTIONS];
	line.type = texts[TYPE];
	line.source = texts[SOURCE];
	line.super_options = texts[SUPER_OPTIONS];
	m.pid = (pid_t)pid;
	memcpy(m.boot, boot, strlen(boot));
	if (tm_mount_set_line(&m, &line, "/") < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
	/* They lie in the buffer one after the other, and decoding makes none longer. */
	for (size_t i = 0, at = 0; i < TEXTS; i++) {
		const size_t len = strlen(m.buffer + at);

		tm_mount_unescape(m.buffer + at);
		at += len + 1;
	}
	*ret = m;
	return 0;
}
