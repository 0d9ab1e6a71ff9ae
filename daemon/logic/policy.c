// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "common/utf8.h"

/* 0 when @value is in [@min, @max], else -EINVAL with the field's pointer and the range in @err. */
static int check_range(const char *prefix, const char *field, uint64_t value, uint64_t min,
		       uint64_t max, struct tm_error *err)
{
	char pointer[TM_ERROR_FIELD_SIZE];
	int r;

	if (value >= min && value <= max)
		return 0;
	(void)snprintf(pointer, sizeof(pointer), "%s/%s", prefix, field);
	r = tm_error_field(err, TM_ERR_OUT_OF_RANGE, pointer,
			   "%s is %" PRIu64 ", but has to be between %" PRIu64 " and %" PRIu64,
			   pointer, value, min, max);
	tm_error_hint(err, "Give a value between %" PRIu64 " and %" PRIu64 ".", min, max);
	return r;
}

static int check_extend(const struct tm_extend_policy *p, const char *prefix, const char *space,
			struct tm_error *err)
{
	char pointer[TM_ERROR_FIELD_SIZE];
	int r;

	(void)snprintf(pointer, sizeof(pointer), "%s/%s", prefix, space);
	r = check_range(pointer, "low_water_percent", p->low_water_percent, 1, 90, err);
	if (r == 0)
		r = check_range(pointer, "step_percent", p->step_percent, 1, 1000, err);
	if (r == 0)
		r = check_range(pointer, "step_min", p->step_min_bytes, TM_STEP_MIN_LEAST,
				TM_STEP_MIN_MOST, err);
	if (r == 0 && p->maximum_bytes)
		r = check_range(pointer, "maximum", p->maximum_bytes, TM_STEP_MIN_LEAST, INT64_MAX,
				err);
	return r;
}

int tm_policy_check(const struct tm_policy *policy, const char *field_prefix, struct tm_error *err)
{
	int r = check_extend(&policy->data, field_prefix, "data", err);

	if (r == 0)
		r = check_extend(&policy->metadata, field_prefix, "metadata", err);
	if (r == 0)
		r = check_range(field_prefix, "sample_seconds", policy->sample_seconds, 5, 3600,
				err);
	if (r == 0)
		r = check_range(field_prefix, "keep_copies", policy->keep_copies, 0,
				TM_KEEP_COPIES_MOST, err);
	if (r == 0)
		r = check_range(field_prefix, "keep_days", policy->keep_days, 0, TM_KEEP_DAYS_MOST,
				err);
	if (r == 0)
		r = check_range(field_prefix, "copy_hours", policy->copy_hours, 0,
				TM_COPY_HOURS_MOST, err);
	if (r == 0)
		r = check_range(field_prefix, "check_days", policy->check_days, 0,
				TM_CHECK_DAYS_MOST, err);
	return r;
}

int tm_block_size_check(uint64_t bytes, const char *field, struct tm_error *err)
{
	int r;

	if (bytes >= TM_BLOCK_SIZE_MIN && bytes <= TM_BLOCK_SIZE_MAX &&
	    bytes % TM_BLOCK_SIZE_MIN == 0)
		return 0;
	r = tm_error_field(err, TM_ERR_OUT_OF_RANGE, field,
			   "a block size of %" PRIu64 " bytes is not possible: thin pools take"
			   " multiples of 64 KiB up to 1 GiB",
			   bytes);
	tm_error_hint(err, "Leave it out to have a fitting one chosen, or give for example 65536.");
	return r;
}

/* Why @path is not one we take, or NULL. */
static const char *path_fault(const char *path)
{
	const char *at, *end;
	size_t len = strlen(path);

	if (path[0] != '/')
		return "it does not begin with \"/\"";
	if (len >= TM_PATH_SIZE)
		return "it is too long";
	if (len == 1)
		return "it is the root directory";
	if (!tm_utf8_valid(path))
		return "it is not valid UTF-8";
	for (at = path; *at; at++)
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			return "it has control characters";
	for (at = path; *at; at = end) {
		at++;
		end = strchrnul(at, '/');
		if (end == at)
			return "it has an empty component (\"//\", or a \"/\" at the end)";
		if ((end - at == 1 && at[0] == '.') ||
		    (end - at == 2 && at[0] == '.' && at[1] == '.'))
			return "it has a component \".\" or \"..\"";
	}
	return NULL;
}

int tm_path_check(const char *path, const char *field, struct tm_error *err)
{
	const char *fault = path_fault(path);
	int r;

	if (!fault)
		return 0;
	r = tm_error_field(err, TM_ERR_BAD_PATH, field, "the path \"%.200s\" is not valid: %s",
			   path, fault);
	tm_error_hint(err, "Give an absolute path in its shortest form, such as /srv/pools/one.");
	return r;
}

int tm_name_check(const char *name, const char *what, const char *field, struct tm_error *err)
{
	struct tm_uuid id;
	int r;

	if (tm_name_valid(name))
		return 0;
	if (tm_uuid_parse(name, &id) == 0)
		r = tm_error_field(err, TM_ERR_BAD_NAME, field,
				   "the %s name \"%s\" has the form of an id", what, name);
	else
		r = tm_error_field(err, TM_ERR_BAD_NAME, field,
				   "the %s name \"%.80s\"%s is not valid", what, name,
				   strlen(name) > 80 ? " (cut)" : "");
	tm_error_hint(err,
		      "Names have 1 to %d letters, digits, '.', '_' or '-' and begin with a letter"
		      " or digit.",
		      TM_NAME_MAX);
	return r;
}
