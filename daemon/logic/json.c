// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "logic/policy.h"

void tm_json_reader_init(struct tm_json_reader *r, json_t *object, const char *prefix,
			 struct tm_error *err)
{
	*r = (struct tm_json_reader){ .object = object, .prefix = prefix, .err = err };
	if (!json_is_object(object))
		r->failed = tm_error_field(err, TM_ERR_WRONG_TYPE, prefix,
					   "%s has to be a JSON object",
					   prefix[0] ? prefix : "this");
}

/* The JSON pointer of a field; a name from outside may hold anything, so RFC 6901's escapes. */
static void pointer_of(const struct tm_json_reader *r, const char *name,
		       char buf[TM_ERROR_FIELD_SIZE])
{
	size_t at;
	int n = snprintf(buf, TM_ERROR_FIELD_SIZE, "%s/", r->prefix);

	if (n < 0)
		buf[0] = '\0';
	if (n < 0 || n >= TM_ERROR_FIELD_SIZE)
		return;
	for (at = (size_t)n; *name && at + 2 < TM_ERROR_FIELD_SIZE; name++) {
		if (*name == '~' || *name == '/') {
			buf[at++] = '~';
			buf[at++] = *name == '~' ? '0' : '1';
		} else {
			buf[at++] = *name;
		}
	}
	buf[at] = '\0';
}

static const char *type_name(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a number with a fraction or exponent";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		break;
	}
	return "null";
}

static int wrong_type(struct tm_json_reader *r, const char *name, const char *wanted,
		      const json_t *value)
{
	char pointer[TM_ERROR_FIELD_SIZE];

	pointer_of(r, name, pointer);
	r->failed = tm_error_field(r->err, TM_ERR_WRONG_TYPE, pointer, "%s has to be %s, not %s",
				   pointer, wanted, type_name(value));
	return r->failed;
}

/* Notes that @name is known. 1 with its value, 0 when absent, -EINVAL once something failed. */
static int look_up(struct tm_json_reader *r, const char *name, json_t **ret)
{
	if (r->failed)
		return -EINVAL;
	if (r->n_seen == TM_ARRAY_SIZE(r->seen)) {
		r->failed = tm_error_set(r->err, TM_ERR_INTERNAL, E2BIG,
					 "an object has more fields than its reader can note");
		return -EINVAL;
	}
	r->seen[r->n_seen++] = name;
	*ret = json_object_get(r->object, name);
	return *ret ? 1 : 0;
}

int tm_json_get_string(struct tm_json_reader *r, const char *name, const char **ret)
{
	json_t *value = NULL;
	int got = look_up(r, name, &value);

	if (got <= 0)
		return got;
	if (!json_is_string(value))
		return wrong_type(r, name, "a string", value);
	*ret = json_string_value(value);
	return 1;
}

int tm_json_get_string_or_null(struct tm_json_reader *r, const char *name, const char **ret)
{
	json_t *value = NULL;
	int got = look_up(r, name, &value);

	if (got <= 0)
		return got;
	if (!json_is_string(value) && !json_is_null(value))
		return wrong_type(r, name, "a string or null", value);
	*ret = json_string_value(value);
	return 1;
}

int tm_json_get_bool(struct tm_json_reader *r, const char *name, bool *ret)
{
	json_t *value = NULL;
	int got = look_up(r, name, &value);

	if (got <= 0)
		return got;
	if (!json_is_boolean(value))
		return wrong_type(r, name, "true or false", value);
	*ret = json_is_true(value);
	return 1;
}

static int take_uint(struct tm_json_reader *r, const char *name, const json_t *value,
		     const char *wanted, uint64_t min, uint64_t max, uint64_t *ret)
{
	char pointer[TM_ERROR_FIELD_SIZE];
	json_int_t number;

	if (!json_is_integer(value))
		return wrong_type(r, name, wanted, value);
	number = json_integer_value(value);
	if (number < 0 || (uint64_t)number < min || (uint64_t)number > max) {
		pointer_of(r, name, pointer);
		r->failed = tm_error_field(r->err, TM_ERR_OUT_OF_RANGE, pointer,
					   "%s is %" JSON_INTEGER_FORMAT
					   ", but has to be between %" PRIu64 " and %" PRIu64,
					   pointer, number, min, max);
		return r->failed;
	}
	*ret = (uint64_t)number;
	return 1;
}

int tm_json_get_uint(struct tm_json_reader *r, const char *name, uint64_t min, uint64_t max,
		     uint64_t *ret)
{
	json_t *value = NULL;
	int got = look_up(r, name, &value);

	return got <= 0 ? got : take_uint(r, name, value, "an integer", min, max, ret);
}

int tm_json_get_uint_or_null(struct tm_json_reader *r, const char *name, uint64_t min, uint64_t max,
			     uint64_t *ret)
{
	json_t *value = NULL;
	int got = look_up(r, name, &value);

	if (got <= 0)
		return got;
	if (json_is_null(value)) {
		*ret = 0;
		return 1;
	}
	return take_uint(r, name, value, "an integer or null", min, max, ret);
}

int tm_json_get_object(struct tm_json_reader *r, const char *name, json_t **ret)
{
	json_t *value = NULL;
	int got = look_up(r, name, &value);

	if (got <= 0)
		return got;
	if (!json_is_object(value))
		return wrong_type(r, name, "an object", value);
	*ret = value;
	return 1;
}

int tm_json_get_array(struct tm_json_reader *r, const char *name, json_t **ret)
{
	json_t *value = NULL;
	int got = look_up(r, name, &value);

	if (got <= 0)
		return got;
	if (!json_is_array(value))
		return wrong_type(r, name, "an array", value);
	*ret = value;
	return 1;
}

int tm_json_require(struct tm_json_reader *r, const char *name, int got)
{
	char pointer[TM_ERROR_FIELD_SIZE];

	if (!r->failed && got == 0) {
		pointer_of(r, name, pointer);
		r->failed = tm_error_field(r->err, TM_ERR_MISSING_FIELD, pointer, "%s is missing",
					   pointer);
	}
	return r->failed;
}

static bool was_asked_for(const struct tm_json_reader *r, const char *name)
{
	unsigned int i;

	for (i = 0; i < r->n_seen; i++)
		if (!strcmp(r->seen[i], name))
			return true;
	return false;
}

int tm_json_reader_finish(struct tm_json_reader *r)
{
	char pointer[TM_ERROR_FIELD_SIZE];
	const char *name;
	json_t *value;

	if (r->failed)
		return r->failed;
	json_object_foreach (r->object, name, value) {
		if (was_asked_for(r, name))
			continue;
		pointer_of(r, name, pointer);
		r->failed = tm_error_field(r->err, TM_ERR_UNKNOWN_FIELD, pointer,
					   "%s is not a known field", pointer);
		return r->failed;
	}
	return 0;
}

/* Is the text deeper than we take? jansson's own limit is far larger and builds the tree first. */
static bool too_deep(const char *text, size_t len)
{
	unsigned int depth = 0;
	bool in_string = false;
	size_t i;

	for (i = 0; i < len; i++) {
		if (in_string) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"')
				in_string = false;
		} else if (text[i] == '"') {
			in_string = true;
		} else if (text[i] == '{' || text[i] == '[') {
			if (++depth > TM_JSON_DEPTH_MAX)
				return true;
		} else if ((text[i] == '}' || text[i] == ']') && depth) {
			depth--;
		}
	}
	return false;
}

json_t *tm_json_parse(const char *text, size_t len, struct tm_error *err)
{
	json_error_t fault;
	json_t *root;

	if (!len) {
		(void)tm_error_set(err, TM_ERR_BAD_JSON, EINVAL, "the text is empty");
		tm_error_hint(err, "Send a JSON object.");
		return NULL;
	}
	if (too_deep(text, len)) {
		(void)tm_error_set(err, TM_ERR_BAD_JSON, EINVAL,
				   "the text nests objects and arrays more than %d deep",
				   TM_JSON_DEPTH_MAX);
		return NULL;
	}
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &fault);
	if (!root) {
		if (json_error_code(&fault) == json_error_out_of_memory)
			(void)tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM,
					   "out of memory while reading JSON");
		else
			(void)tm_error_set(err, TM_ERR_BAD_JSON, EINVAL,
					   "not valid JSON at line %d, column %d: %s", fault.line,
					   fault.column, fault.text);
		return NULL;
	}
	if (!json_is_object(root)) {
		(void)tm_error_set(err, TM_ERR_BAD_JSON, EINVAL,
				   "the text has to be a JSON object, not %s", type_name(root));
		json_decref(root);
		return NULL;
	}
	return root;
}

static json_t *extend_to_json(const struct tm_extend_policy *p)
{
	/* "o" takes the reference, also when packing fails. */
	return json_pack(
		"{s:b, s:I, s:I, s:I, s:o}", "auto_extend", (int)p->enabled, "low_water_percent",
		(json_int_t)p->low_water_percent, "step_percent", (json_int_t)p->step_percent,
		"step_min", (json_int_t)p->step_min_bytes, "maximum",
		p->maximum_bytes ? json_integer((json_int_t)p->maximum_bytes) : json_null());
}

json_t *tm_policy_to_json(const struct tm_policy *policy)
{
	return json_pack(
		"{s:o, s:o, s:b, s:I, s:s, s:I, s:I, s:I, s:I, s:b}", "data",
		extend_to_json(&policy->data), "metadata", extend_to_json(&policy->metadata),
		"activate_at_start", (int)policy->activate_at_start, "sample_seconds",
		(json_int_t)policy->sample_seconds, "repair", tm_repair_policy_name(policy->repair),
		"keep_copies", (json_int_t)policy->keep_copies, "keep_days",
		(json_int_t)policy->keep_days, "copy_hours", (json_int_t)policy->copy_hours,
		"check_days", (json_int_t)policy->check_days, "check_volumes",
		(int)policy->check_volumes);
}

static int extend_from_json(struct tm_json_reader *outer, const char *name,
			    struct tm_extend_policy *policy)
{
	struct tm_json_reader r;
	uint64_t low_water = policy->low_water_percent, step = policy->step_percent;
	char prefix[TM_ERROR_FIELD_SIZE];
	json_t *object = NULL;
	int got;

	got = tm_json_get_object(outer, name, &object);
	if (got <= 0)
		return got;
	pointer_of(outer, name, prefix);
	tm_json_reader_init(&r, object, prefix, outer->err);
	(void)tm_json_get_bool(&r, "auto_extend", &policy->enabled);
	(void)tm_json_get_uint(&r, "low_water_percent", 1, 90, &low_water);
	(void)tm_json_get_uint(&r, "step_percent", 1, 1000, &step);
	(void)tm_json_get_uint(&r, "step_min", TM_STEP_MIN_LEAST, TM_STEP_MIN_MOST,
			       &policy->step_min_bytes);
	(void)tm_json_get_uint_or_null(&r, "maximum", TM_STEP_MIN_LEAST, INT64_MAX,
				       &policy->maximum_bytes);
	policy->low_water_percent = (uint32_t)low_water;
	policy->step_percent = (uint32_t)step;
	outer->failed = tm_json_reader_finish(&r);
	return outer->failed;
}

int tm_policy_from_json(json_t *object, const char *prefix, struct tm_policy *policy,
			struct tm_error *err)
{
	struct tm_policy changed = *policy;
	uint64_t sample_seconds = policy->sample_seconds, keep_copies = policy->keep_copies,
		 keep_days = policy->keep_days, copy_hours = policy->copy_hours,
		 check_days = policy->check_days;
	const char *repair = NULL;
	struct tm_json_reader r;
	int ret;

	tm_json_reader_init(&r, object, prefix, err);
	(void)extend_from_json(&r, "data", &changed.data);
	(void)extend_from_json(&r, "metadata", &changed.metadata);
	(void)tm_json_get_bool(&r, "activate_at_start", &changed.activate_at_start);
	(void)tm_json_get_uint(&r, "sample_seconds", 5, 3600, &sample_seconds);
	(void)tm_json_get_uint(&r, "keep_copies", 0, TM_KEEP_COPIES_MOST, &keep_copies);
	(void)tm_json_get_uint(&r, "keep_days", 0, TM_KEEP_DAYS_MOST, &keep_days);
	(void)tm_json_get_uint(&r, "copy_hours", 0, TM_COPY_HOURS_MOST, &copy_hours);
	(void)tm_json_get_uint(&r, "check_days", 0, TM_CHECK_DAYS_MOST, &check_days);
	(void)tm_json_get_bool(&r, "check_volumes", &changed.check_volumes);
	changed.sample_seconds = (uint32_t)sample_seconds;
	changed.keep_copies = (uint32_t)keep_copies;
	changed.keep_days = (uint32_t)keep_days;
	changed.copy_hours = (uint32_t)copy_hours;
	changed.check_days = (uint32_t)check_days;
	(void)tm_json_get_string(&r, "repair", &repair);
	ret = tm_json_reader_finish(&r);
	if (ret == 0 && repair && tm_repair_policy_parse(repair, &changed.repair) < 0) {
		char pointer[TM_ERROR_FIELD_SIZE];

		pointer_of(&r, "repair", pointer);
		ret = tm_error_field(
			err, TM_ERR_OUT_OF_RANGE, pointer,
			"repair is \"%.32s\", it must be \"manual\", \"when_idle\" or \"force\".",
			repair);
	}
	if (ret == 0)
		ret = tm_policy_check(&changed, prefix, err);
	if (ret == 0)
		*policy = changed;
	return ret;
}
