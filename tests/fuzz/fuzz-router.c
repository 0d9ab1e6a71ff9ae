// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz the router: "METHOD path". What it lets through must be safe to use as a name. */

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "api/router.h"
#include "common/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	const char *space = size ? memchr(text, ' ', size) : NULL;
	char method[16] = "GET";
	struct tm_error err = { 0 };
	struct tm_match match;
	int r;

	if (space && (size_t)(space - text) < sizeof(method)) {
		memset(method, 0, sizeof(method));
		memcpy(method, text, (size_t)(space - text));
		size -= (size_t)(space - text) + 1;
		text = space + 1;
	}
	r = tm_router_match(method, text, size, &match, &err);
	assert(r <= 0 && (r == 0) == (err.code == TM_OK));
	assert(memchr(match.allow, '\0', sizeof(match.allow)));
	if (r < 0) {
		assert(err.detail[0]);
		return 0;
	}
	assert(match.options != (match.route != NULL));
	assert(match.n_params <= TM_ROUTE_PARAMS_MAX);
	for (unsigned int i = 0; i < match.n_params; i++) {
		struct tm_uuid id;

		assert(tm_name_valid(match.params[i]) || tm_uuid_parse(match.params[i], &id) == 0);
		assert(!strchr(match.params[i], '/'));
	}
	return 0;
}
