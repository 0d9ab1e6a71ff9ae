// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz the reading of query strings. */

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "api/query.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char known[] = "wait dry_run limit cursor from";
	struct tm_url_query query;
	struct tm_error err = { 0 };
	uint64_t number = 1;
	bool yes;
	int r;

	r = tm_url_query_parse((const char *)data, size, known, &query, &err);
	assert((r == 0) == (err.code == TM_OK));
	if (r < 0) {
		assert(err.code == TM_ERR_BAD_QUERY && err.detail[0]);
		return 0;
	}
	assert(query.n <= 5); /* each at most once */
	for (size_t i = 0; i < query.n; i++) {
		assert(strstr(known, query.items[i].name));
		assert(query.items[i].value[0] && tm_utf8_valid(query.items[i].value));
		assert(tm_url_query_text(&query, query.items[i].name) == query.items[i].value);
	}
	r = tm_url_query_uint(&query, "limit", 1, 1000, &number, &err);
	assert(r == 1 ? number >= 1 && number <= 1000 : number == 1);
	(void)tm_url_query_bool(&query, "dry_run", &yes, NULL);
	(void)tm_url_query_time(&query, "from", &number, NULL);
	return 0;
}
