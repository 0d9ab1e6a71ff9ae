// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/thin-status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"

/* Reads what stands at *at and moves past it; false leaves *at anywhere, for the line is lost. */
static bool take_text(const char **at, const char *text)
{
	size_t len = strlen(text);

	if (strncmp(*at, text, len))
		return false;
	*at += len;
	return true;
}

static bool take_uint(const char **at, unsigned int *ret)
{
	uint64_t value;

	if (!tm_take_number(at, &value) || value > UINT32_MAX)
		return false;
	*ret = (unsigned int)value;
	return true;
}

/* A word, ended by a space (taken too) or by the end of the line. */
static bool take_word(const char **at, const char *word)
{
	const char *p = *at;

	if (!take_text(&p, word) || (*p && *p != ' '))
		return false;
	*at = *p ? p + 1 : p;
	return true;
}

/* The end of a line; the kernel leaves a space there. */
static bool at_end(const char *at)
{
	return !*at || (at[0] == ' ' && !at[1]);
}

static bool take_mode(const char **at, enum tm_pool_mode *ret)
{
	if (take_word(at, "rw"))
		*ret = TM_MODE_WRITE;
	else if (take_word(at, "ro"))
		*ret = TM_MODE_READ_ONLY;
	else if (take_word(at, "out_of_data_space"))
		*ret = TM_MODE_OUT_OF_DATA_SPACE;
	else
		return false;
	return true;
}

static bool take_discard(const char **at, struct tm_thin_pool_status *s)
{
	s->discard = true;
	s->discard_passdown = false;
	if (take_word(at, "discard_passdown"))
		s->discard_passdown = true;
	else if (take_word(at, "ignore_discard"))
		s->discard = false;
	else if (!take_word(at, "no_discard_passdown"))
		return false;
	return true;
}

static bool take_when_full(const char **at, bool *ret_error)
{
	if (take_word(at, "error_if_no_space"))
		*ret_error = true;
	else if (take_word(at, "queue_if_no_space"))
		*ret_error = false;
	else
		return false;
	return true;
}

static bool take_needs_check(const char **at, bool *ret)
{
	if (take_word(at, "needs_check"))
		*ret = true;
	else if (take_word(at, "-"))
		*ret = false;
	else
		return false;
	return true;
}

static bool is_failed(const char *params)
{
	return (take_word(&params, "Fail") || take_word(&params, "Error")) && !*params;
}

int tm_thin_pool_status_parse(const char *params, struct tm_thin_pool_status *ret)
{
	struct tm_thin_pool_status s = { 0 };
	const char *at = params;

	if (is_failed(params)) {
		s.failed = true;
		s.mode = TM_MODE_FAIL;
		*ret = s;
		return 0;
	}
	if (!tm_take_number(&at, &s.transaction_id) || !take_text(&at, " ") ||
	    !tm_take_number(&at, &s.metadata_used) || !take_text(&at, "/") ||
	    !tm_take_number(&at, &s.metadata_total) || !take_text(&at, " ") ||
	    !tm_take_number(&at, &s.data_used) || !take_text(&at, "/") ||
	    !tm_take_number(&at, &s.data_total) || !take_text(&at, " "))
		return -EINVAL;
	if (!take_word(&at, "-")) {
		if (!tm_take_number(&at, &s.held_root) || !take_text(&at, " "))
			return -EINVAL;
		s.held_root_valid = true;
	}
	if (!take_mode(&at, &s.mode) || !take_discard(&at, &s) ||
	    !take_when_full(&at, &s.error_if_no_space) || !take_needs_check(&at, &s.needs_check))
		return -EINVAL;
	if (*at) {
		if (!tm_take_number(&at, &s.metadata_low_water))
			return -EINVAL;
		s.metadata_low_water_valid = true;
	}
	if (!at_end(at))
		return -EINVAL;
	*ret = s;
	return 0;
}

int tm_thin_status_parse(const char *params, struct tm_thin_status *ret)
{
	struct tm_thin_status s = { 0 };
	const char *at = params;

	if (is_failed(params)) {
		s.failed = true;
		*ret = s;
		return 0;
	}
	if (!tm_take_number(&at, &s.mapped_sectors) || !take_text(&at, " "))
		return -EINVAL;
	if (!take_text(&at, "-")) {
		if (!tm_take_number(&at, &s.highest_sector))
			return -EINVAL;
		s.highest_valid = true;
	}
	if (!at_end(at))
		return -EINVAL;
	*ret = s;
	return 0;
}

/* Takes one feature into the table; false when it is unknown or was there before. */
static bool take_feature(const char **at, struct tm_thin_pool_table *t)
{
	bool *flag;

	if (take_word(at, "skip_block_zeroing"))
		flag = &t->skip_block_zeroing;
	else if (take_word(at, "ignore_discard"))
		flag = &t->ignore_discard;
	else if (take_word(at, "no_discard_passdown"))
		flag = &t->no_discard_passdown;
	else if (take_word(at, "read_only"))
		flag = &t->read_only;
	else if (take_word(at, "error_if_no_space"))
		flag = &t->error_if_no_space;
	else
		return false;
	if (*flag)
		return false;
	*flag = true;
	return true;
}

int tm_thin_pool_table_parse(const char *params, struct tm_thin_pool_table *ret)
{
	struct tm_thin_pool_table t = { 0 };
	const char *at = params;
	uint64_t features;

	if (!take_uint(&at, &t.metadata_major) || !take_text(&at, ":") ||
	    !take_uint(&at, &t.metadata_minor) || !take_text(&at, " ") ||
	    !take_uint(&at, &t.data_major) || !take_text(&at, ":") ||
	    !take_uint(&at, &t.data_minor) || !take_text(&at, " ") ||
	    !tm_take_number(&at, &t.block_sectors) || !take_text(&at, " ") ||
	    !tm_take_number(&at, &t.low_water_blocks))
		return -EINVAL;
	if (!at_end(at)) {
		if (!take_text(&at, " ") || !tm_take_number(&at, &features))
			return -EINVAL;
		if (features && !take_text(&at, " "))
			return -EINVAL;
		for (; features; features--)
			if (!take_feature(&at, &t))
				return -EINVAL;
		if (!at_end(at))
			return -EINVAL;
	}
	*ret = t;
	return 0;
}

static int fits(int n, size_t len, char *buf)
{
	if (n >= 0 && (size_t)n < len)
		return 0;
	/* A cut table line might still be a valid one: leave none. */
	if (len)
		buf[0] = '\0';
	return -ENOSPC;
}

int tm_thin_pool_table_format(const struct tm_thin_pool_table *table, char *buf, size_t len)
{
	unsigned int features = (unsigned int)table->skip_block_zeroing + table->ignore_discard +
				table->no_discard_passdown + table->read_only +
				table->error_if_no_space;

	return fits(snprintf(buf, len, "%u:%u %u:%u %" PRIu64 " %" PRIu64 " %u%s%s%s%s%s",
			     table->metadata_major, table->metadata_minor, table->data_major,
			     table->data_minor, table->block_sectors, table->low_water_blocks,
			     features, table->skip_block_zeroing ? " skip_block_zeroing" : "",
			     table->ignore_discard ? " ignore_discard" : "",
			     table->no_discard_passdown ? " no_discard_passdown" : "",
			     table->read_only ? " read_only" : "",
			     table->error_if_no_space ? " error_if_no_space" : ""),
		    len, buf);
}

int tm_thin_table_format(unsigned int pool_major, unsigned int pool_minor, uint32_t dev_id,
			 char *buf, size_t len)
{
	return fits(snprintf(buf, len, "%u:%u %" PRIu32, pool_major, pool_minor, dev_id), len, buf);
}
