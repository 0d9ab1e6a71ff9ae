/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What thin_dump says (its XML), read as it comes: which volumes there are and how much each maps.
 * Mappings themselves are passed over: there may be millions, and shared ones are told only once.
 */
#ifndef TM_LOGIC_DUMP_SCAN_H
#define TM_LOGIC_DUMP_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No tag of the format is as long. */
#define TM_DUMP_TAG_MAX 512

struct tm_dump_device {
	uint32_t dev_id;
	uint64_t mapped_blocks;
};

struct tm_dump_scan {
	struct tm_dump_device *devices; /* in the order of the dump; owned */
	size_t n_devices, room;
	bool begun, ended; /* the pool's own element was opened, and closed: it is whole */
	bool malformed;    /* something in it is not as thin_dump writes it */

	char tag[TM_DUMP_TAG_MAX];
	size_t tag_len;
	bool in_tag;
};

/* The next piece, cut anywhere. 0 or -ENOMEM. */
int tm_dump_scan_feed(struct tm_dump_scan *scan, const char *data, size_t len);
/* Whether it was a whole dump, as far as is looked at. */
bool tm_dump_scan_whole(const struct tm_dump_scan *scan);
bool tm_dump_scan_has(const struct tm_dump_scan *scan, uint32_t dev_id);
/* Of all volumes; blocks that several share count for each. */
uint64_t tm_dump_scan_mapped(const struct tm_dump_scan *scan);
void tm_dump_scan_done(struct tm_dump_scan *scan);

/*
 * A metadata snapshot does not say how large the data device is: its dump has nr_data_blocks="0",
 * of which thin_restore makes nothing. This is the beginning of a dump, until that is put right.
 */
struct tm_dump_head {
	char text[2 * TM_DUMP_TAG_MAX]; /* what came so far; then as it shall be */
	size_t len;
	bool done;
};

/*
 * Take from @data until the pool's own element is open; *ret_taken of @len bytes. 1: head->text has
 * it all, with @data_blocks; 0: more is needed; -EINVAL: this is no dump.
 */
int tm_dump_head_feed(struct tm_dump_head *head, const char *data, size_t len, uint64_t data_blocks,
		      size_t *ret_taken);

#endif
