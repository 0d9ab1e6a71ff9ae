// SPDX-License-Identifier: GPL-2.0-or-later
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "logic/meta-size.h"
#include "logic/model.h"
#include "skip.h"

struct rule_case {
	uint64_t data_bytes;
	uint32_t block_bytes, thins;
	uint64_t sectors; /* what thin_metadata_size 0.9.0 prints */
};

static const struct rule_case rule_cases[] = {
	{ 256 * TM_MIB, 65536, 1, 272 },
	{ 256 * TM_MIB, 65536, 100, 1064 },
	{ 1536 * TM_MIB, 65536, 100, 2368 },
	{ TM_TIB, 65536, 1000, 1073224 },
	/* Not whole blocks, not whole leaves. */
	{ 1000000 * TM_KIB, 131072, 7, 560 },
	{ 1000000 * TM_SECTOR, 65536, 1, 512 },
	{ 8064 * TM_KIB, 65536, 1, 24 },
	{ 8063 * TM_KIB, 65536, 1, 16 },
	{ 8065 * TM_KIB, 65536, 1, 24 },
	{ 100 * TM_KIB, 65536, 1, 16 },
};

static void test_rule(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(rule_cases); i++) {
		const struct rule_case *c = &rule_cases[i];

		assert_int_equal(tm_metadata_size_rule(c->data_bytes, c->block_bytes, c->thins),
				 c->sectors * TM_SECTOR);
	}
	/* Nothing the tool could be asked, but it must not wrap. */
	assert_int_equal(tm_metadata_size_rule(0, 65536, 0), 4096);
	assert_int_equal(tm_metadata_size_rule(UINT64_MAX, 1, UINT32_MAX), UINT64_MAX);
}

/* Runs thin_metadata_size: its answer in sectors, or 0 when it is not installed. */
static uint64_t ask_tool(uint64_t sectors, uint32_t block_sectors, uint32_t thins)
{
	char size[32], block[32], count[32], text[64] = "";
	char *argv[] = { (char *)"thin_metadata_size", (char *)"-n", block, size, count, NULL };
	char *envp[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	posix_spawn_file_actions_t actions;
	int pipes[2], status, r;
	pid_t child;
	ssize_t n;

	(void)snprintf(size, sizeof(size), "-s%llus", (unsigned long long)sectors);
	(void)snprintf(block, sizeof(block), "-b%us", block_sectors);
	(void)snprintf(count, sizeof(count), "-m%u", thins);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO), 0);
	assert_int_equal(posix_spawn_file_actions_addclose(&actions, pipes[0]), 0);
	r = posix_spawn(&child, "/usr/sbin/thin_metadata_size", &actions, NULL, argv, envp);
	assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
	assert_int_equal(close(pipes[1]), 0);
	if (r) {
		assert_int_equal(close(pipes[0]), 0);
		return 0;
	}
	n = read(pipes[0], text, sizeof(text) - 1);
	assert_int_equal(close(pipes[0]), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	assert_true(n > 0);
	return strtoull(text, NULL, 10);
}

/* The rule is the tool's, so that administrators find the sizes they know. */
static void test_rule_is_the_tools(void **state)
{
	static const uint32_t blocks[] = { 128, 1024, 2048, 2097152 };
	static const uint32_t thins[] = { 1, 100, 100000 };
	uint64_t sectors;
	size_t i;

	(void)state;
	if (access("/usr/sbin/thin_metadata_size", X_OK) < 0)
		TM_SKIP("thin_metadata_size is not installed");
	for (i = 0, sectors = 3000001; i < 20; i++, sectors = sectors * 5 / 2 + 77) {
		uint32_t block = blocks[i % TM_ARRAY_SIZE(blocks)];
		uint32_t count = thins[i % TM_ARRAY_SIZE(thins)];
		uint64_t answer;

		if (sectors <= block)
			continue;
		answer = ask_tool(sectors, block, count);
		assert_int_equal(answer * TM_SECTOR,
				 tm_metadata_size_rule(sectors * TM_SECTOR, block * 512, count));
	}
}

static void test_initial(void **state)
{
	(void)state;
	assert_int_equal(tm_metadata_size_initial(256 * TM_MIB, 65536), 2 * TM_MIB);
	assert_int_equal(tm_metadata_size_initial(0, 65536), 2 * TM_MIB);
	assert_int_equal(tm_metadata_size_initial(TM_TIB, 65536),
			 tm_metadata_size_rule(TM_TIB, 65536, 100));
	assert_int_equal(tm_metadata_size_initial((uint64_t)1 << 62, 65536), TM_METADATA_MAX_BYTES);
	assert_int_equal(TM_METADATA_MAX_BYTES % TM_METADATA_BLOCK, 0);
}

static void test_kernel_low_water(void **state)
{
	static const uint64_t cases[][2] = { { 0, 0 },       { 3, 0 },
					     { 4, 1 },       { 512, 128 },
					     { 4095, 1023 }, { 4096, 1024 },
					     { 5000, 1024 }, { UINT64_MAX, 1024 } };
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++)
		assert_int_equal(tm_metadata_low_water_blocks(cases[i][0]), cases[i][1]);
}

static void test_block_size(void **state)
{
	unsigned int shift;

	(void)state;
	assert_int_equal(tm_block_size_default(0), 65536);
	assert_int_equal(tm_block_size_default(TM_TIB), 65536);
	assert_int_equal(tm_block_size_default(2 * TM_TIB), 131072);
	assert_int_equal(tm_block_size_default(4 * TM_TIB), 262144);
	assert_int_equal(tm_block_size_default(UINT64_MAX), TM_BLOCK_SIZE_MAX);
	for (shift = 30; shift < 63; shift++) {
		uint64_t bytes = (uint64_t)1 << shift;
		uint32_t block = tm_block_size_default(bytes);

		assert_true(tm_metadata_size_rule(bytes, block, 0) <= TM_GIB ||
			    block == TM_BLOCK_SIZE_MAX);
		assert_true(block == TM_BLOCK_SIZE_MIN ||
			    tm_metadata_size_rule(bytes, block / 2, 0) > TM_GIB);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rule),       cmocka_unit_test(test_rule_is_the_tools),
		cmocka_unit_test(test_initial),    cmocka_unit_test(test_kernel_low_water),
		cmocka_unit_test(test_block_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
