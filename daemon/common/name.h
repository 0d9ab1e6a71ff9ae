/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names and ids: what users may call things and what device-mapper calls them.
 *
 * A pool's devices are named "<pool>:_pool", "<pool>:_data", "<pool>:_meta", its
 * volumes "<pool>:<volume>". Names have no ':' and never begin with '_', so these
 * cannot collide with each other, nor with LVM (whose names have no ':'), and two
 * names of the longest length still fit device-mapper's 127 characters. UUIDs are
 * "THINMGR-<pool id>-pool|data|meta" and "THINMGR-<pool id>-vol-<volume id>" with
 * ids of 32 hex digits: only devices that carry one are ever changed.
 */
#ifndef TM_COMMON_NAME_H
#define TM_COMMON_NAME_H

#include <stdbool.h>
#include <stddef.h>

#define TM_NAME_MAX       63
#define TM_DM_NAME_SIZE   128 /* with the final NUL */
#define TM_DM_UUID_SIZE   129
#define TM_DM_UUID_PREFIX "THINMGR-"

struct tm_uuid {
	char text[37]; /* lower case, 8-4-4-4-12; "" when unset */
};

enum tm_dm_role { TM_ROLE_POOL, TM_ROLE_DATA, TM_ROLE_META, TM_ROLE_VOLUME };

/* [A-Za-z0-9][A-Za-z0-9._-]{0,62}, and not in the form of a UUID (it would shadow an id). */
bool tm_name_valid(const char *name);

/* The value of a hex digit, either case, or -1. */
int tm_hex_digit(char c);

void tm_uuid_generate(struct tm_uuid *ret);
/* Accepts exactly the 36 character form, any case; 0 or -EINVAL. */
int tm_uuid_parse(const char *text, struct tm_uuid *ret);
bool tm_uuid_equal(const struct tm_uuid *a, const struct tm_uuid *b);

/*
 * Build names; @volume and @volume_id are only read for TM_ROLE_VOLUME. Never fail for valid input.
 */
void tm_dm_name(char buf[TM_DM_NAME_SIZE], enum tm_dm_role role, const char *pool,
		const char *volume);
void tm_dm_uuid(char buf[TM_DM_UUID_SIZE], enum tm_dm_role role, const struct tm_uuid *pool,
		const struct tm_uuid *volume_id);
/*
 * The reverse of tm_dm_uuid: 0, or -EINVAL when @dm_uuid is not one of ours. @ret_volume may be
 * NULL.
 */
int tm_dm_uuid_parse(const char *dm_uuid, enum tm_dm_role *ret_role, struct tm_uuid *ret_pool,
		     struct tm_uuid *ret_volume);

#endif
