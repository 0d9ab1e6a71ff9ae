// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/dump-scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/units.h"
#include "logic/model.h"

/* The value of an attribute of the tag: a number of @most at most. */
static bool attribute(const char *tag, const char *name, uint64_t most, uint64_t *ret)
{
	const char *at = strstr(tag, name);
	uint64_t value = 0;

	if (!at)
		return false;
	at += strlen(name);
	if (*at < '0' || *at > '9')
		return false;
	for (; *at >= '0' && *at <= '9'; at++) {
		const uint64_t digit = (uint64_t)(*at - '0');

		if (value > (most - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*ret = value;
	return *at == '"';
}

static int add_device(struct tm_dump_scan *scan)
{
	uint64_t dev_id = 0, mapped = 0;

	if (!attribute(scan->tag, " dev_id=\"", TM_DEV_ID_MAX, &dev_id) ||
	    !attribute(scan->tag, " mapped_blocks=\"", INT64_MAX, &mapped)) {
		scan->malformed = true;
		return 0;
	}
	if (scan->n_devices == scan->room) {
		const size_t room = scan->room ? scan->room * 2 : 16;
		struct tm_dump_device *more = reallocarray(scan->devices, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		scan->devices = more;
		scan->room = room;
	}
	scan->devices[scan->n_devices++] = (struct tm_dump_device){ (uint32_t)dev_id, mapped };
	return 0;
}

static bool is(const char *tag, const char *name)
{
	const size_t len = strlen(name);

	return strncmp(tag, name, len) == 0 && strchr(" >/", tag[len]);
}

static int end_tag(struct tm_dump_scan *scan)
{
	scan->tag[scan->tag_len] = '\0';
	if (is(scan->tag, "superblock")) {
		scan->malformed = scan->malformed || scan->begun;
		scan->begun = true;
	} else if (is(scan->tag, "/superblock")) {
		scan->malformed = scan->malformed || !scan->begun || scan->ended;
		scan->ended = true;
	} else if (is(scan->tag, "device")) {
		scan->malformed = scan->malformed || !scan->begun || scan->ended;
		return add_device(scan);
	}
	return 0;
}

int tm_dump_scan_feed(struct tm_dump_scan *scan, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!scan->in_tag) {
			scan->in_tag = data[i] == '<';
			scan->tag_len = 0;
			continue;
		}
		if (data[i] == '>') {
			scan->in_tag = false;
			if (end_tag(scan) < 0)
				return -ENOMEM;
		} else if (scan->tag_len + 1 < sizeof(scan->tag)) {
			scan->tag[scan->tag_len++] = data[i];
		} else {
			scan->malformed = true;
		}
	}
	return 0;
}

bool tm_dump_scan_whole(const struct tm_dump_scan *scan)
{
	return scan->ended && !scan->malformed && !scan->in_tag;
}

bool tm_dump_scan_has(const struct tm_dump_scan *scan, uint32_t dev_id)
{
	for (size_t i = 0; i < scan->n_devices; i++)
		if (scan->devices[i].dev_id == dev_id)
			return true;
	return false;
}

uint64_t tm_dump_scan_mapped(const struct tm_dump_scan *scan)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < scan->n_devices; i++)
		sum = tm_sat_add(sum, scan->devices[i].mapped_blocks);
	return sum;
}

void tm_dump_scan_done(struct tm_dump_scan *scan)
{
	free(scan->devices);
	*scan = (struct tm_dump_scan){ 0 };
}

/* The number that the element has is another from here on. */
static int set_data_blocks(struct tm_dump_head *head, uint64_t data_blocks)
{
	static const char name[] = " nr_data_blocks=\"";
	char all[sizeof(head->text)];
	char *at;
	int n;

	head->text[head->len] = '\0';
	at = strstr(head->text, name);
	if (!at)
		return -EINVAL;
	at += sizeof(name) - 1;
	n = snprintf(all, sizeof(all), "%.*s%" PRIu64 "%s", (int)(at - head->text), head->text,
		     data_blocks, at + strspn(at, "0123456789"));
	if (n < 0 || (size_t)n >= sizeof(all))
		return -EINVAL;
	memcpy(head->text, all, (size_t)n);
	head->len = (size_t)n;
	head->done = true;
	return 1;
}

int tm_dump_head_feed(struct tm_dump_head *head, const char *data, size_t len, uint64_t data_blocks,
		      size_t *ret_taken)
{
	for (size_t i = 0; i < len; i++) {
		if (head->len + 1 >= sizeof(head->text))
			return -EINVAL;
		head->text[head->len++] = data[i];
		head->text[head->len] = '\0';
		*ret_taken = i + 1;
		if (data[i] == '>' && strstr(head->text, "<superblock "))
			return set_data_blocks(head, data_blocks);
	}
	*ret_taken = len;
	return 0;
}
