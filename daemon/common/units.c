// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

uint64_t tm_round_down(uint64_t value, uint64_t unit)
{
	return value - value % unit;
}

uint64_t tm_round_up(uint64_t value, uint64_t unit)
{
	uint64_t rest = value % unit;

	if (!rest)
		return value;
	if (value - rest > UINT64_MAX - unit)
		return value - rest;
	return value - rest + unit;
}

uint64_t tm_sat_add(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

uint64_t tm_sat_mul(uint64_t a, uint64_t b)
{
	uint64_t product;

	return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

uint64_t tm_mul_div(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 result = (unsigned __int128)a * b / c;

	return result > UINT64_MAX ? UINT64_MAX : (uint64_t)result;
}

bool tm_take_number(const char **at, uint64_t *ret)
{
	const char *start = *at;
	uint64_t value = 0;

	for (; **at >= '0' && **at <= '9'; (*at)++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(**at - '0'), &value))
			return false;
	if (*at == start || (*start == '0' && *at - start > 1))
		return false;
	*ret = value;
	return true;
}

/* The power of two of a unit such as "", "B", "k", "KiB", "MB"; -1 when it is none. */
static int unit_shift(const char *unit)
{
	static const char letters[] = "KMGTPE";
	const char *at;

	if (!*unit || !strcmp(unit, "B"))
		return 0;
	at = strchr(letters, toupper((unsigned char)*unit));
	if (!at)
		return -1;
	unit++;
	if (*unit == 'i')
		unit++;
	if (*unit == 'B')
		unit++;
	return *unit ? -1 : 10 * (int)(at - letters + 1);
}

int tm_size_parse(const char *text, uint64_t *ret)
{
	unsigned __int128 value, fraction = 0, scale = 1;
	uint64_t whole = 0;
	bool huge = false, fractional = false;
	const char *p = text;
	int shift;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
			huge = true;
	if (*p == '.') {
		fractional = true;
		p++;
		if (!isdigit((unsigned char)*p))
			return -EINVAL;
		/* 19 digits are finer than a byte of an exbibyte; 10^19 * 2^60 fits 128 bits. */
		for (; isdigit((unsigned char)*p); p++) {
			if (scale >= (unsigned __int128)10000000000 * 1000000000)
				continue;
			fraction = fraction * 10 + (unsigned int)(*p - '0');
			scale *= 10;
		}
	}
	if (*p == ' ') {
		while (*p == ' ')
			p++;
		if (!*p)
			return -EINVAL;
	}
	shift = unit_shift(p);
	if (shift < 0 || (fractional && !shift))
		return -EINVAL;
	if (huge)
		return -ERANGE;
	value = ((unsigned __int128)whole << shift) + (fraction << shift) / scale;
	if (value > INT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)value;
	return 0;
}

const char *tm_size_format(uint64_t bytes, char *buf, size_t len)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned int i = 0;
	uint64_t tenths = bytes;

	/* Rounding may carry into the next unit: 1023.96 KiB is 1 MiB. */
	while (i + 1 < TM_ARRAY_SIZE(units) && tenths >= (i ? 10240 : 1024)) {
		unsigned int shift = 10 * ++i;
		unsigned __int128 scaled = (unsigned __int128)bytes * 10;

		tenths = (uint64_t)((scaled + ((unsigned __int128)1 << (shift - 1))) >> shift);
	}
	if (!i)
		(void)snprintf(buf, len, "%" PRIu64 " B", bytes);
	else if (tenths % 10)
		(void)snprintf(buf, len, "%" PRIu64 ".%u %s", tenths / 10,
			       (unsigned int)(tenths % 10), units[i]);
	else
		(void)snprintf(buf, len, "%" PRIu64 " %s", tenths / 10, units[i]);
	return buf;
}
