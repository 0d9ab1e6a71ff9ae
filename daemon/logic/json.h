/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strict reading of JSON objects with jansson, shared by request bodies and the
 * descriptor: every field is asked for by name and type, and what nobody asked for
 * is an error. Also the JSON form of a policy, used by both.
 */
#ifndef TM_LOGIC_JSON_H
#define TM_LOGIC_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "logic/model.h"

/*
 * Reads one object. Getters return 1 when the field was there and right, 0 when it
 * was absent (the output is untouched), or -EINVAL with the error set; once one has
 * failed the others do nothing, so a reader may call all and check once at the end.
 */
struct tm_json_reader {
	json_t *object;       /* borrowed */
	const char *prefix;   /* JSON pointer of the object: "" or "/policy/data" */
	struct tm_error *err; /* filled at the first fault */
	int failed;           /* 0 or negative errno */
	const char *seen[48]; /* names asked for */
	unsigned int n_seen;
};

void tm_json_reader_init(struct tm_json_reader *r, json_t *object, const char *prefix,
			 struct tm_error *err);
int tm_json_get_string(struct tm_json_reader *r, const char *name, const char **ret);
/* As tm_json_get_string, but null is fine too and gives NULL. */
int tm_json_get_string_or_null(struct tm_json_reader *r, const char *name, const char **ret);
int tm_json_get_bool(struct tm_json_reader *r, const char *name, bool *ret);
int tm_json_get_uint(struct tm_json_reader *r, const char *name, uint64_t min, uint64_t max,
		     uint64_t *ret);
/* As tm_json_get_uint, but null is fine too and gives 0 (which @min then need not allow). */
int tm_json_get_uint_or_null(struct tm_json_reader *r, const char *name, uint64_t min, uint64_t max,
			     uint64_t *ret);
int tm_json_get_object(struct tm_json_reader *r, const char *name, json_t **ret); /* borrowed */
int tm_json_get_array(struct tm_json_reader *r, const char *name, json_t **ret);  /* borrowed */
/* Turn an absent field (a getter's 0) into MISSING_FIELD. Returns the reader's state. */
int tm_json_require(struct tm_json_reader *r, const char *name, int got);
/*
 * Refuse fields that were never asked for. Returns 0 or -EINVAL: the verdict on the whole object.
 */
int tm_json_reader_finish(struct tm_json_reader *r);

#define TM_JSON_DEPTH_MAX 16
/*
 * Parse @len bytes into an object: at most TM_JSON_DEPTH_MAX deep, duplicate keys and
 * trailing text refused. New reference, or NULL with @err (BAD_JSON, NO_MEMORY).
 */
json_t *tm_json_parse(const char *text, size_t len, struct tm_error *err);

/* New reference or NULL (no memory). */
json_t *tm_policy_to_json(const struct tm_policy *policy);
/*
 * Fields that are absent keep their value in *policy: serves PATCH and create. Checked with
 * tm_policy_check; on an error *policy is untouched. "maximum": null stands for none.
 */
int tm_policy_from_json(json_t *object, const char *prefix, struct tm_policy *policy,
			struct tm_error *err);

#endif
