/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strict parsers of the status lines of the thin-pool and thin targets
 * (Documentation/admin-guide/device-mapper/thin-provisioning.rst; the forms the
 * documentation omits, "ignore_discard" and "Error", were seen in 6.1).
 * A line is accepted whole or not at all; numbers that overflow are refused.
 */
#ifndef TM_LOGIC_THIN_STATUS_H
#define TM_LOGIC_THIN_STATUS_H

#include "logic/model.h"

/*
 * 0, or -EINVAL with *ret untouched. "Fail" and "Error" give failed and TM_MODE_FAIL. "ro" without
 * needs_check and full metadata is READ_ONLY too.
 */
int tm_thin_pool_status_parse(const char *params, struct tm_thin_pool_status *ret);
int tm_thin_status_parse(const char *params, struct tm_thin_status *ret);

/* The target's own table line back from the kernel: what "thin-pool" was loaded with. */
struct tm_thin_pool_table {
	unsigned int metadata_major, metadata_minor, data_major, data_minor;
	uint64_t block_sectors, low_water_blocks;
	bool skip_block_zeroing, ignore_discard, no_discard_passdown, read_only, error_if_no_space;
};
int tm_thin_pool_table_parse(const char *params, struct tm_thin_pool_table *ret);

/* Format tables. @buf is always terminated; 0, or -ENOSPC when it does not fit. */
int tm_thin_pool_table_format(const struct tm_thin_pool_table *table, char *buf, size_t len);
int tm_thin_table_format(unsigned int pool_major, unsigned int pool_minor, uint32_t dev_id,
			 char *buf, size_t len);

#endif
