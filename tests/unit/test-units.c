// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/units.h"

static void test_rounding(void **state)
{
	static const struct {
		uint64_t value, unit, up, down;
	} cases[] = {
		{ 0, 1, 0, 0 },
		{ 0, 4096, 0, 0 },
		{ 1, 4096, 4096, 0 },
		{ 4095, 4096, 4096, 0 },
		{ 4096, 4096, 4096, 4096 },
		{ 4097, 4096, 8192, 4096 },
		{ 10, 3, 12, 9 },
		{ UINT64_MAX, 1, UINT64_MAX, UINT64_MAX },
		{ UINT64_MAX, 4096, UINT64_MAX - 4095, UINT64_MAX - 4095 },
		{ UINT64_MAX - 4096, 4096, UINT64_MAX - 4095, UINT64_MAX - 8191 },
		{ UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX },
		{ 5, UINT64_MAX, UINT64_MAX, 0 },
		{ UINT64_MAX, ((uint64_t)1 << 63) + 1, ((uint64_t)1 << 63) + 1,
		  ((uint64_t)1 << 63) + 1 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(tm_round_up(cases[i].value, cases[i].unit), cases[i].up);
		assert_int_equal(tm_round_down(cases[i].value, cases[i].unit), cases[i].down);
	}
}

static void test_saturation(void **state)
{
	(void)state;
	assert_int_equal(tm_sat_add(1, 2), 3);
	assert_int_equal(tm_sat_add(UINT64_MAX, 0), UINT64_MAX);
	assert_int_equal(tm_sat_add(UINT64_MAX, 1), UINT64_MAX);
	assert_int_equal(tm_sat_mul(3, 4), 12);
	assert_int_equal(tm_sat_mul(0, UINT64_MAX), 0);
	assert_int_equal(tm_sat_mul((uint64_t)1 << 32, (uint64_t)1 << 32), UINT64_MAX);
	assert_int_equal(tm_sat_mul((uint64_t)1 << 32, (uint64_t)1 << 31), (uint64_t)1 << 63);
	assert_int_equal(tm_mul_div(10, 20, 3), 66);
	assert_int_equal(tm_mul_div(UINT64_MAX, UINT64_MAX, UINT64_MAX), UINT64_MAX);
	assert_int_equal(tm_mul_div(UINT64_MAX, 100, 50), UINT64_MAX);
	assert_int_equal(tm_mul_div(UINT64_MAX, 50, 100), UINT64_MAX / 2);
	assert_int_equal(tm_mul_div(0, 50, 100), 0);
}

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t value;
	} cases[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "512B", 0, 512 },
		{ "512 B", 0, 512 },
		{ "1k", 0, 1024 },
		{ "1K", 0, 1024 },
		{ "1kB", 0, 1024 },
		{ "1KiB", 0, 1024 },
		{ "1Ki", 0, 1024 },
		{ "256M", 0, 256 * TM_MIB },
		{ "256m", 0, 256 * TM_MIB },
		{ "1.5GiB", 0, 1536 * TM_MIB },
		{ "1.5G", 0, 1536 * TM_MIB },
		{ "10 GiB", 0, 10 * TM_GIB },
		{ "10   GiB", 0, 10 * TM_GIB },
		{ "2TB", 0, 2 * TM_TIB },
		{ "1P", 0, 1024 * TM_TIB },
		{ "7E", 0, (uint64_t)7 << 60 },
		{ "007", 0, 7 },
		{ "0.5K", 0, 512 },
		{ "0.0009765625K", 0, 1 },
		{ "0.0009765624K", 0, 0 },
		{ "1.999999999999999999999999999999K", 0, 2047 },
		{ "7.99999999999999999E", 0, 9223372036854775796U },
		{ "9223372036854775807", 0, INT64_MAX },
		{ "9223372036854775808", -ERANGE, 0 },
		{ "8E", -ERANGE, 0 },
		{ "18446744073709551615E", -ERANGE, 0 },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999999999999", -ERANGE, 0 },
		{ "8191P", 0, (uint64_t)8191 << 50 },
		{ "8192P", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ " ", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 },
		{ "1G ", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "1.", -EINVAL, 0 },
		{ "1.G", -EINVAL, 0 },
		{ ".5G", -EINVAL, 0 },
		{ "1.5", -EINVAL, 0 },
		{ "1.5B", -EINVAL, 0 },
		{ "1.5.5G", -EINVAL, 0 },
		{ "1,5G", -EINVAL, 0 },
		{ "1e3", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "G", -EINVAL, 0 },
		{ "1X", -EINVAL, 0 },
		{ "1GG", -EINVAL, 0 },
		{ "1GiBx", -EINVAL, 0 },
		{ "1GBi", -EINVAL, 0 },
		{ "1iB", -EINVAL, 0 },
		{ "1b", -EINVAL, 0 },
		{ "99999999999999999999999999999999x", -EINVAL, 0 },
		{ "nan", -EINVAL, 0 },
		{ "\xff", -EINVAL, 0 },
		{ "1\xff", -EINVAL, 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		uint64_t value = 0xdead;
		int r = tm_size_parse(cases[i].text, &value);

		if (r != cases[i].r || value != (r ? 0xdead : cases[i].value))
			print_error("\"%s\": %d, %llu\n", cases[i].text, r,
				    (unsigned long long)value);
		assert_int_equal(r, cases[i].r);
		assert_int_equal(value, r ? 0xdead : cases[i].value);
	}
}

static void test_format(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0 B" },
		{ 1, "1 B" },
		{ 1023, "1023 B" },
		{ 1024, "1 KiB" },
		{ 1075, "1 KiB" },
		{ 1076, "1.1 KiB" },
		{ 1536, "1.5 KiB" },
		{ TM_MIB - 1, "1 MiB" },
		{ TM_MIB - 52, "1023.9 KiB" },
		{ 256 * TM_MIB, "256 MiB" },
		{ 1536 * TM_MIB, "1.5 GiB" },
		{ TM_GIB - 1, "1 GiB" },
		{ 4 * TM_TIB, "4 TiB" },
		{ INT64_MAX, "8 EiB" },
		{ UINT64_MAX, "16 EiB" },
	};
	char buf[32], tiny[4];
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++)
		assert_string_equal(tm_size_format(cases[i].bytes, buf, sizeof(buf)),
				    cases[i].text);
	assert_string_equal(tm_size_format(1536, tiny, sizeof(tiny)), "1.5");
}

/* What is written for people reads back as the same to within the digits shown. */
static void test_format_parses(void **state)
{
	uint64_t value, back, error;
	unsigned int shift;
	char buf[32];

	(void)state;
	for (shift = 0; shift < 62; shift++) {
		for (value = (uint64_t)1 << shift; value < ((uint64_t)2 << shift);
		     value += ((uint64_t)1 << shift) / 7 + 1) {
			assert_int_equal(
				tm_size_parse(tm_size_format(value, buf, sizeof(buf)), &back), 0);
			error = back > value ? back - value : value - back;
			assert_true(error <= value / 19);
		}
	}
}

static void test_take_number(void **state)
{
	static const struct {
		const char *text;
		bool good;
		uint64_t value;
		size_t taken;
	} cases[] = {
		{ "0", true, 0, 1 },
		{ "7 8", true, 7, 1 },
		{ "10/20", true, 10, 2 },
		{ "18446744073709551615", true, UINT64_MAX, 20 },
		{ "18446744073709551616", false, 0, 0 },
		{ "99999999999999999999", false, 0, 0 },
		{ "00", false, 0, 0 },
		{ "01", false, 0, 0 },
		{ "", false, 0, 0 },
		{ " 1", false, 0, 0 },
		{ "-1", false, 0, 0 },
		{ "+1", false, 0, 0 },
		{ "x", false, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		const char *at = cases[i].text;
		uint64_t value = 4711;

		assert_int_equal(tm_take_number(&at, &value), cases[i].good);
		assert_int_equal(value, cases[i].good ? cases[i].value : 4711);
		if (cases[i].good)
			assert_ptr_equal(at, cases[i].text + cases[i].taken);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rounding),      cmocka_unit_test(test_saturation),
		cmocka_unit_test(test_parse),         cmocka_unit_test(test_format),
		cmocka_unit_test(test_format_parses), cmocka_unit_test(test_take_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
