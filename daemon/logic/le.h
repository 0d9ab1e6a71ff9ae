/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Little-endian numbers as they lie on a disk, at any address. */
#ifndef TM_LOGIC_LE_H
#define TM_LOGIC_LE_H

#include <stdint.h>

static inline uint32_t tm_le32(const void *at)
{
	const unsigned char *p = at;

	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t tm_le64(const void *at)
{
	const unsigned char *p = at;

	return tm_le32(p) | (uint64_t)tm_le32(p + 4) << 32;
}

#endif
