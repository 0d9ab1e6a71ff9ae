/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A pool's own record, kept beside its storage as JSON: enough to rebuild the
 * database entry. Text in, records out, and back; the file itself is the caller's.
 *
 * { "thinmgr": 1, "pool": { "id", "name", "block_size", ..., "policy": {...}, "transaction_id" },
 *   "volumes": [ { "id", "name", "dev_id", "size", "origin", ... } ], "checksum": "crc32c:xxxxxxxx"
 * }
 *
 * The checksum (CRC-32C as in RFC 3720) covers the canonical (sorted, compact) text of the object
 * without it. Times are kept to the millisecond.
 */
#ifndef TM_LOGIC_DESCRIPTOR_H
#define TM_LOGIC_DESCRIPTOR_H

#include <stddef.h>

#include "common/error.h"
#include "logic/model.h"

#define TM_DESCRIPTOR_LIMIT (16 * 1024 * 1024) /* bytes; a larger file is refused */

struct tm_descriptor {
	struct tm_pool_record
		pool; /* .directory is not in the text: it is where the file was found */
	struct tm_volume_record *volumes;
	size_t n_volumes;
};

void tm_descriptor_done(struct tm_descriptor *d);

/*
 * *ret_text is the caller's to free. An origin that is no longer among the volumes is written as
 * null. 0, -ENOMEM, or -EFBIG past TM_DESCRIPTOR_LIMIT.
 */
int tm_descriptor_format(const struct tm_descriptor *d, char **ret_text, size_t *ret_len);

/*
 * Strict: unknown format version, unknown or missing fields, names and sizes out of range,
 * duplicate ids, names or device ids, origins that are not there, a wrong checksum: -EINVAL with
 * TM_ERR_BAD_DESCRIPTOR and what is wrong. *ret only filled on 0; free with tm_descriptor_done.
 */
int tm_descriptor_parse(const char *text, size_t len, struct tm_descriptor *ret,
			struct tm_error *err);

#endif
