// SPDX-License-Identifier: GPL-2.0-or-later
/* What people type: sizes, times, names and ids. */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/fsutil.h"
#include "common/name.h"
#include "common/units.h"
#include "common/utf8.h"
#include "logic/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_size(const char *text)
{
	uint64_t bytes, back, error;
	char buf[32];
	int r = tm_size_parse(text, &bytes);

	assert(r == 0 || r == -EINVAL || r == -ERANGE);
	if (r < 0)
		return;
	assert(bytes <= INT64_MAX);
	r = tm_size_parse(tm_size_format(bytes, buf, sizeof(buf)), &back);
	/* "8 EiB", rounded up from just below, is the one that does not fit. */
	if (r == -ERANGE && bytes >= ((uint64_t)795 << 60) / 100)
		return;
	assert(r == 0);
	error = back > bytes ? back - bytes : bytes - back;
	assert(error <= bytes / 19);
}

static void check_time(const char *text)
{
	uint64_t usec, back;
	char buf[32];

	if (tm_time_parse(text, &usec) < 0)
		return;
	assert(tm_time_parse(tm_time_format(usec, buf, sizeof(buf)), &back) == 0);
	assert(back == usec / 1000 * 1000);
}

static void check_name(const char *text)
{
	struct tm_uuid id, pool;
	enum tm_dm_role role;
	char buf[TM_DM_UUID_SIZE];

	if (tm_name_valid(text)) {
		assert(strlen(text) <= TM_NAME_MAX && text[0] != '_');
		assert(tm_uuid_parse(text, &id) < 0);
		assert(!strchr(text, '/') && !strchr(text, ':'));
	}
	if (tm_path_check(text, "", NULL) == 0)
		assert(text[0] == '/' && tm_utf8_valid(text) && !strstr(text, "/../"));
	if (tm_dm_uuid_parse(text, &role, &pool, &id) == 0) {
		tm_dm_uuid(buf, role, &pool, &id);
		assert(!strcmp(buf, text));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	check_size(text);
	check_time(text);
	check_name(text);
	tm_utf8_clean(text);
	assert(tm_utf8_valid(text));
	free(text);
	return 0;
}
