// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Descriptors. As a checksum is hard to guess, one without it is sealed first. What
 * is accepted has to be the same after it was written and read again.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "logic/descriptor.h"
#include "logic/superblock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The text with a right checksum, or NULL when it is not an object without one. */
static char *seal(const char *text, size_t size)
{
	json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	char sum[24], *compact, *sealed = NULL;

	if (json_is_object(root) && !json_object_get(root, "checksum")) {
		compact = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
		if (compact) {
			(void)snprintf(sum, sizeof(sum), "crc32c:%08" PRIx32,
				       ~tm_crc32c(UINT32_MAX, compact, strlen(compact)));
			free(compact);
			if (json_object_set_new(root, "checksum", json_string(sum)) == 0)
				sealed = json_dumps(root, 0);
		}
	}
	json_decref(root);
	return sealed;
}

static void check(const char *text, size_t len)
{
	struct tm_error err = { .code = TM_OK };
	struct tm_descriptor d, back;
	char *first, *second;
	size_t first_len, second_len;
	int r = tm_descriptor_parse(text, len, &d, &err);

	assert(r == 0 || (r == -EINVAL && err.code == TM_ERR_BAD_DESCRIPTOR));
	assert(tm_utf8_valid(err.detail) && tm_utf8_valid(err.field));
	if (r < 0)
		return;
	assert(tm_descriptor_format(&d, &first, &first_len) == 0);
	assert(tm_descriptor_parse(first, first_len, &back, &err) == 0);
	assert(back.n_volumes == d.n_volumes);
	assert(tm_descriptor_format(&back, &second, &second_len) == 0);
	assert(first_len == second_len && !memcmp(first, second, first_len));
	free(first);
	free(second);
	tm_descriptor_done(&d);
	tm_descriptor_done(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = malloc(size ? size : 1), *sealed;

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	check(copy, size);
	sealed = seal(copy, size);
	if (sealed)
		check(sealed, strlen(sealed));
	free(sealed);
	free(copy);
	return 0;
}
