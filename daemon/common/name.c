// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/name.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Not ctype.h: what a name may be must not depend on the locale. */
static bool is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

int tm_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool is_dash(unsigned int at)
{
	return at == 8 || at == 13 || at == 18 || at == 23;
}

bool tm_name_valid(const char *name)
{
	struct tm_uuid id;
	size_t i;

	if (!name || !is_alnum(name[0]))
		return false;
	for (i = 1; name[i]; i++)
		if (i >= TM_NAME_MAX ||
		    !(is_alnum(name[i]) || name[i] == '.' || name[i] == '_' || name[i] == '-'))
			return false;
	return tm_uuid_parse(name, &id) < 0;
}

void tm_uuid_generate(struct tm_uuid *ret)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char raw[16];
	unsigned int i, at;
	ssize_t n;

	do
		n = getrandom(raw, sizeof(raw), 0);
	while (n < 0 && errno == EINTR);
	/* Ids that are not random would let two pools share devices: there is no going on. */
	if (n != (ssize_t)sizeof(raw))
		abort();
	raw[6] = (unsigned char)((raw[6] & 0x0f) | 0x40);
	raw[8] = (unsigned char)((raw[8] & 0x3f) | 0x80);
	for (i = 0, at = 0; i < sizeof(raw); i++) {
		if (is_dash(at))
			ret->text[at++] = '-';
		ret->text[at++] = digits[raw[i] >> 4];
		ret->text[at++] = digits[raw[i] & 15];
	}
	ret->text[at] = '\0';
}

int tm_uuid_parse(const char *text, struct tm_uuid *ret)
{
	struct tm_uuid id;
	unsigned int i;

	for (i = 0; i < sizeof(id.text) - 1; i++) {
		if (is_dash(i) ? text[i] != '-' : tm_hex_digit(text[i]) < 0)
			return -EINVAL;
		id.text[i] = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] - 'A' + 'a')
							      : text[i];
	}
	if (text[i])
		return -EINVAL;
	id.text[i] = '\0';
	*ret = id;
	return 0;
}

bool tm_uuid_equal(const struct tm_uuid *a, const struct tm_uuid *b)
{
	return !strcmp(a->text, b->text);
}

void tm_dm_name(char buf[TM_DM_NAME_SIZE], enum tm_dm_role role, const char *pool,
		const char *volume)
{
	const char *tail = "";

	switch (role) {
	case TM_ROLE_POOL:
		tail = "_pool";
		break;
	case TM_ROLE_DATA:
		tail = "_data";
		break;
	case TM_ROLE_META:
		tail = "_meta";
		break;
	case TM_ROLE_VOLUME:
		tail = volume;
		break;
	}
	(void)snprintf(buf, TM_DM_NAME_SIZE, "%s:%s", pool, tail);
}

/* The 32 hex digits of an id, without its dashes. */
static void bare_id(char buf[33], const struct tm_uuid *id)
{
	unsigned int at = 0;
	const char *p;

	for (p = id->text; *p && at < 32; p++)
		if (*p != '-')
			buf[at++] = *p;
	buf[at] = '\0';
}

void tm_dm_uuid(char buf[TM_DM_UUID_SIZE], enum tm_dm_role role, const struct tm_uuid *pool,
		const struct tm_uuid *volume_id)
{
	char pool_hex[33], volume_hex[33];

	bare_id(pool_hex, pool);
	switch (role) {
	case TM_ROLE_POOL:
		(void)snprintf(buf, TM_DM_UUID_SIZE, TM_DM_UUID_PREFIX "%s-pool", pool_hex);
		break;
	case TM_ROLE_DATA:
		(void)snprintf(buf, TM_DM_UUID_SIZE, TM_DM_UUID_PREFIX "%s-data", pool_hex);
		break;
	case TM_ROLE_META:
		(void)snprintf(buf, TM_DM_UUID_SIZE, TM_DM_UUID_PREFIX "%s-meta", pool_hex);
		break;
	case TM_ROLE_VOLUME:
		bare_id(volume_hex, volume_id);
		(void)snprintf(buf, TM_DM_UUID_SIZE, TM_DM_UUID_PREFIX "%s-vol-%s", pool_hex,
			       volume_hex);
		break;
	}
}

/* Reads 32 lower case hex digits into the dashed form and moves *at past them. */
static int read_bare_id(const char **at, struct tm_uuid *ret)
{
	unsigned int out = 0, i;

	for (i = 0; i < 32; i++) {
		char c = (*at)[i];

		if (tm_hex_digit(c) < 0 || (c >= 'A' && c <= 'F'))
			return -EINVAL;
		if (is_dash(out))
			ret->text[out++] = '-';
		ret->text[out++] = c;
	}
	ret->text[out] = '\0';
	*at += 32;
	return 0;
}

int tm_dm_uuid_parse(const char *dm_uuid, enum tm_dm_role *ret_role, struct tm_uuid *ret_pool,
		     struct tm_uuid *ret_volume)
{
	const size_t prefix = sizeof(TM_DM_UUID_PREFIX) - 1;
	struct tm_uuid pool, volume = { "" };
	enum tm_dm_role role;
	const char *at = dm_uuid;

	if (strncmp(at, TM_DM_UUID_PREFIX, prefix))
		return -EINVAL;
	at += prefix;
	if (read_bare_id(&at, &pool) < 0)
		return -EINVAL;
	if (!strcmp(at, "-pool")) {
		role = TM_ROLE_POOL;
	} else if (!strcmp(at, "-data")) {
		role = TM_ROLE_DATA;
	} else if (!strcmp(at, "-meta")) {
		role = TM_ROLE_META;
	} else if (!strncmp(at, "-vol-", 5)) {
		role = TM_ROLE_VOLUME;
		at += 5;
		if (read_bare_id(&at, &volume) < 0 || *at)
			return -EINVAL;
	} else {
		return -EINVAL;
	}
	*ret_role = role;
	*ret_pool = pool;
	if (ret_volume)
		*ret_volume = volume;
	return 0;
}
