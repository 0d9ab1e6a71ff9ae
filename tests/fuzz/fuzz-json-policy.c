// SPDX-License-Identifier: GPL-2.0-or-later
/* Policies from request bodies: what is accepted is valid, and the same written and read again. */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "logic/json.h"
#include "logic/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(json_t *object)
{
	struct tm_error err = { .code = TM_OK };
	struct tm_policy policy, back;
	json_t *written, *again;
	int r;

	tm_policy_default(&policy);
	r = tm_policy_from_json(object, "", &policy, &err);
	assert(r == 0 || (r == -EINVAL && err.code != TM_OK));
	assert(tm_utf8_valid(err.detail) && tm_utf8_valid(err.field));
	if (r < 0) {
		/* Untouched. */
		tm_policy_default(&back);
		assert(policy.sample_seconds == back.sample_seconds);
		assert(policy.keep_copies == back.keep_copies);
		assert(policy.keep_days == back.keep_days);
		assert(policy.copy_hours == back.copy_hours);
		assert(policy.check_days == back.check_days);
		assert(policy.check_volumes == back.check_volumes);
		assert(policy.data.step_min_bytes == back.data.step_min_bytes);
		return;
	}
	assert(tm_policy_check(&policy, "", NULL) == 0);
	written = tm_policy_to_json(&policy);
	assert(written);
	memset(&back, 0, sizeof(back));
	assert(tm_policy_from_json(written, "", &back, &err) == 0);
	again = tm_policy_to_json(&back);
	assert(json_equal(written, again));
	json_decref(written);
	json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tm_error err = { .code = TM_OK };
	char *copy = malloc(size ? size : 1);
	json_t *object;

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	object = tm_json_parse(copy, size, &err);
	free(copy);
	assert((object != NULL) == (err.code == TM_OK));
	assert(tm_utf8_valid(err.detail));
	if (object)
		check(object);
	json_decref(object);
	return 0;
}
