// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "logic/superblock.h"
#include "skip.h"

static void put32(unsigned char *p, uint32_t v)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> 8 * i);
}

static void put64(unsigned char *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

static void seal(unsigned char *b)
{
	put32(b, tm_crc32c(UINT32_MAX, b + 4, TM_SUPERBLOCK_SIZE - 4) ^ 160774);
}

static void build(unsigned char *b)
{
	memset(b, 0, TM_SUPERBLOCK_SIZE);
	put64(b + 32, 27022010);
	put32(b + 40, 2);
	put32(b + 44, 9);
	put64(b + 48, 0x1122334455667788);
	put64(b + 64, 4096);
	put64(b + 72, 10);
	put64(b + 192, 512);
	put64(b + 200, 11);
	put64(b + 320, 5);
	put64(b + 328, 6);
	put32(b + 336, 128);
	put32(b + 340, 8);
	put64(b + 344, 512);
	seal(b);
}

static void test_crc32c(void **state)
{
	static const char digits[] = "123456789";
	unsigned char zeroes[32] = { 0 };

	(void)state;
	/* The check value of the polynomial, and RFC 3720's example. */
	assert_int_equal((uint32_t)~tm_crc32c(UINT32_MAX, digits, 9), 0xe3069283);
	assert_int_equal((uint32_t)~tm_crc32c(UINT32_MAX, zeroes, 32), 0x8a9136aa);
	assert_int_equal(tm_crc32c(UINT32_MAX, zeroes, 0), UINT32_MAX);
	/* In two pieces it is the same. */
	assert_int_equal(tm_crc32c(tm_crc32c(UINT32_MAX, digits, 4), digits + 4, 5),
			 tm_crc32c(UINT32_MAX, digits, 9));
}

static void test_good(void **state)
{
	unsigned char b[TM_SUPERBLOCK_SIZE];
	struct tm_superblock s;

	(void)state;
	build(b);
	assert_int_equal(tm_superblock_parse(b, &s), 0);
	assert_false(s.needs_check);
	assert_false(s.held_root);
	assert_int_equal(s.held_root_block, 0);
	assert_int_equal(s.time, 9);
	assert_int_equal(s.mapping_root, 5);
	assert_int_equal(s.details_root, 6);
	assert_int_equal(s.version, 2);
	assert_int_equal(s.transaction_id, 0x1122334455667788);
	assert_int_equal(s.data_blocks, 4096);
	assert_int_equal(s.data_used, 10);
	assert_int_equal(s.metadata_blocks, 512);
	assert_int_equal(s.metadata_used, 11);
	assert_int_equal(s.block_sectors, 128);

	put32(b + 4, 1);
	put64(b + 56, 77);
	seal(b);
	assert_int_equal(tm_superblock_parse(b, &s), 0);
	assert_true(s.needs_check);
	assert_true(s.held_root);
	assert_int_equal(s.held_root_block, 77);
	/* Only the first flag is that one. */
	put32(b + 4, 2);
	seal(b);
	assert_int_equal(tm_superblock_parse(b, &s), 0);
	assert_false(s.needs_check);
}

/* A metadata snapshot's superblock lies elsewhere, and says so. */
static void test_elsewhere(void **state)
{
	unsigned char b[TM_SUPERBLOCK_SIZE];
	struct tm_superblock s;

	(void)state;
	build(b);
	assert_int_equal(tm_superblock_parse_at(b, 0, &s), 0);
	assert_int_equal(tm_superblock_parse_at(b, 77, &s), -EBADMSG);
	put64(b + 8, 77);
	seal(b);
	assert_int_equal(tm_superblock_parse_at(b, 77, &s), 0);
	assert_int_equal(s.mapping_root, 5);
	assert_int_equal(tm_superblock_parse(b, &s), -EBADMSG);
}

/* Any single bit that flips is noticed. */
static void test_damage(void **state)
{
	unsigned char b[TM_SUPERBLOCK_SIZE];
	struct tm_superblock s, kept;
	unsigned int bit;

	(void)state;
	memset(&s, 0xa5, sizeof(s));
	memcpy(&kept, &s, sizeof(s));
	build(b);
	for (bit = 0; bit < 8 * TM_SUPERBLOCK_SIZE; bit += bit < 3200 ? 1 : 97) {
		b[bit / 8] ^= (unsigned char)(1 << bit % 8);
		assert_int_equal(tm_superblock_parse(b, &s), -EBADMSG);
		b[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
	assert_memory_equal(&s, &kept, sizeof(s));
	assert_int_equal(tm_superblock_parse(b, &s), 0);

	memset(b, 0, sizeof(b));
	assert_int_equal(tm_superblock_parse(b, &s), -EBADMSG);
	memset(b, 0xff, sizeof(b));
	assert_int_equal(tm_superblock_parse(b, &s), -EBADMSG);
}

static void test_other_formats(void **state)
{
	static const struct {
		unsigned int at;
		uint32_t value;
		int r;
	} cases[] = {
		{ 8, 1, -EBADMSG }, /* says it is another block */
		{ 32, 27022011, -EBADMSG },
		{ 36, 1, -EBADMSG },
		{ 40, 1, -EPROTONOSUPPORT },
		{ 40, 3, -EPROTONOSUPPORT },
		{ 340, 16, -EPROTONOSUPPORT },
		{ 360, 1, -EPROTONOSUPPORT },
		{ 352, 1, 0 }, /* compatible, whatever it is */
		{ 356, 1, 0 }, /* and this for reading */
	};
	unsigned char b[TM_SUPERBLOCK_SIZE];
	struct tm_superblock s;
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		build(b);
		put32(b + cases[i].at, cases[i].value);
		seal(b);
		assert_int_equal(tm_superblock_parse(b, &s), cases[i].r);
	}
}

static const char dump[] =
	"<superblock uuid=\"\" time=\"1\" transaction=\"7\" flags=\"0\" version=\"2\""
	" data_block_size=\"128\" nr_data_blocks=\"4096\">\n"
	"  <device dev_id=\"1\" mapped_blocks=\"10\" transaction=\"0\" creation_time=\"0\""
	" snap_time=\"0\">\n"
	"    <range_mapping origin_begin=\"0\" data_begin=\"0\" length=\"10\" time=\"0\"/>\n"
	"  </device>\n"
	"</superblock>\n";

/* Against metadata that was not made by this test: thin_restore writes it. */
static void test_real_metadata(void **state)
{
	char dir[] = "/tmp/thinmgr-test-XXXXXX", xml[64], bin[64];
	char *argv[] = { (char *)"thin_restore", (char *)"-i", xml, (char *)"-o", bin, NULL };
	char *envp[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	posix_spawn_file_actions_t actions;
	tm_auto_free char *text = NULL;
	struct tm_superblock s;
	pid_t child;
	size_t len;
	int status, fd;

	(void)state;
	if (access("/usr/sbin/thin_restore", X_OK) < 0)
		TM_SKIP("thin_restore is not installed");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(xml, sizeof(xml), "%s/xml", dir);
	(void)snprintf(bin, sizeof(bin), "%s/bin", dir);
	assert_int_equal(tm_write_file_atomic(xml, dump, sizeof(dump) - 1, 0600), 0);
	fd = open(bin, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1024 * 4096), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(
		posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0),
		0);
	assert_int_equal(posix_spawn(&child, "/usr/sbin/thin_restore", &actions, NULL, argv, envp),
			 0);
	assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));

	assert_int_equal(tm_read_file(bin, 1 << 24, &text, &len), 0);
	assert_int_equal(tm_superblock_parse(text, &s), 0);
	assert_false(s.needs_check);
	assert_int_equal(s.transaction_id, 7);
	assert_int_equal(s.data_blocks, 4096);
	assert_int_equal(s.data_used, 10);
	assert_int_equal(s.metadata_blocks, 1024);
	assert_in_range(s.metadata_used, 5, 40);
	assert_int_equal(s.block_sectors, 128);
	assert_int_equal(unlink(xml), 0);
	assert_int_equal(unlink(bin), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc32c),    cmocka_unit_test(test_good),
		cmocka_unit_test(test_damage),    cmocka_unit_test(test_other_formats),
		cmocka_unit_test(test_elsewhere), cmocka_unit_test(test_real_metadata),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
