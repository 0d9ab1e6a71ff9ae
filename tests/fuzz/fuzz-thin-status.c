// SPDX-License-Identifier: GPL-2.0-or-later
/* Status and table lines: what is accepted has to come back out the same. */
#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "logic/derive.h"
#include "logic/thin-status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Is @line @text, give or take the space that the kernel leaves at the end? */
static void assert_line(const char *line, const char *text)
{
	size_t len = strlen(text);

	assert(!strncmp(line, text, len));
	assert(!line[len] || (line[len] == ' ' && !line[len + 1]));
}

static void check_pool(const char *line)
{
	static const char *const modes[] = { "rw", "out_of_data_space", "ro" };
	struct tm_thin_pool_status s;
	char text[512], held[24] = "-", mark[24] = "";

	if (tm_thin_pool_status_parse(line, &s) < 0)
		return;
	assert(s.failed == (s.mode == TM_MODE_FAIL));
	(void)tm_derive(NULL, 0, &s, s.data_total / 5);
	assert(!s.failed || tm_derive(&s, 0, &s, 0) == 0);
	if (s.failed)
		return;
	if (s.held_root_valid)
		(void)snprintf(held, sizeof(held), "%" PRIu64, s.held_root);
	if (s.metadata_low_water_valid)
		(void)snprintf(mark, sizeof(mark), " %" PRIu64, s.metadata_low_water);
	(void)snprintf(text, sizeof(text),
		       "%" PRIu64 " %" PRIu64 "/%" PRIu64 " %" PRIu64 "/%" PRIu64
		       " %s %s %s %s_if_no_space %s%s",
		       s.transaction_id, s.metadata_used, s.metadata_total, s.data_used,
		       s.data_total, held, modes[s.mode],
		       !s.discard           ? "ignore_discard"
		       : s.discard_passdown ? "discard_passdown"
					    : "no_discard_passdown",
		       s.error_if_no_space ? "error" : "queue", s.needs_check ? "needs_check" : "-",
		       mark);
	assert_line(line, text);
}

static void check_thin(const char *line)
{
	struct tm_thin_status s;
	char text[64];

	if (tm_thin_status_parse(line, &s) < 0 || s.failed)
		return;
	if (s.highest_valid)
		(void)snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64, s.mapped_sectors,
			       s.highest_sector);
	else
		(void)snprintf(text, sizeof(text), "%" PRIu64 " -", s.mapped_sectors);
	assert_line(line, text);
}

static void check_table(const char *line)
{
	struct tm_thin_pool_table t, back;
	char text[256], again[256];

	if (tm_thin_pool_table_parse(line, &t) < 0)
		return;
	assert(tm_thin_pool_table_format(&t, text, sizeof(text)) == 0);
	assert(tm_thin_pool_table_parse(text, &back) == 0);
	assert(tm_thin_pool_table_format(&back, again, sizeof(again)) == 0);
	assert(!strcmp(text, again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Exactly as large as the line, so that reading past it is seen. */
	char *line = malloc(size + 1);

	if (!line)
		return 0;
	if (size)
		memcpy(line, data, size);
	line[size] = '\0';
	check_pool(line);
	check_thin(line);
	check_table(line);
	free(line);
	return 0;
}
