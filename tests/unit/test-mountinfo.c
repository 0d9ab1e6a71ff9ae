// SPDX-License-Identifier: GPL-2.0-or-later
/* What the kernel says of mounts and swap, and what others may have put into it. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/utf8.h"
#include "logic/mountinfo.h"

static int parse(const char *text, char buf[512], struct tm_mount_line *ret)
{
	assert_true(strlen(text) < 512);
	memcpy(buf, text, strlen(text) + 1);
	return tm_mountinfo_parse(buf, ret);
}

static void test_whole_line(void **state)
{
	struct tm_mount_line m;
	char buf[512];

	(void)state;
	assert_int_equal(parse("36 35 253:7 /mnt1 /srv/a rw,noatime shared:12 master:3 unbindable "
			       "- ext3 /dev/mapper/p:v rw,errors=continue",
			       buf, &m),
			 0);
	assert_int_equal(m.id, 36);
	assert_int_equal(m.parent, 35);
	assert_int_equal(m.major, 253);
	assert_int_equal(m.minor, 7);
	assert_string_equal(m.root, "/mnt1");
	assert_string_equal(m.point, "/srv/a");
	assert_string_equal(m.options, "rw,noatime");
	assert_int_equal(m.shared, 12);
	assert_int_equal(m.master, 3);
	assert_true(m.unbindable);
	assert_string_equal(m.type, "ext3");
	assert_string_equal(m.source, "/dev/mapper/p:v");
	assert_string_equal(m.super_options, "rw,errors=continue");
}

static void test_odd_lines(void **state)
{
	struct tm_mount_line m;
	char buf[512];

	(void)state;
	/* Nothing optional; a source that is empty. */
	assert_int_equal(parse("1 0 0:31 / / rw - btrfs  rw,subvol=/", buf, &m), 0);
	assert_string_equal(m.source, "");
	assert_int_equal(m.shared, 0);
	assert_false(m.unbindable);
	/* Tags of a newer kernel. */
	assert_int_equal(
		parse("1 0 8:1 / / rw propagate_from:2 novel:x y - xfs /dev/sda1 rw", buf, &m), 0);
	assert_string_equal(m.type, "xfs");
	/* Spaces, a newline, a tab, a backslash; bytes that are not UTF-8. */
	assert_int_equal(parse("1 0 8:1 /\\134040 /a\\040b\\011c\\012d\xff rw - fuse.x "
			       "/dev/s\\040- rw",
			       buf, &m),
			 0);
	assert_string_equal(m.root, "/\\040");
	assert_string_equal(m.point, "/a b\tc\nd\xff");
	assert_string_equal(m.type, "fuse.x");
	assert_string_equal(m.source, "/dev/s -");
	/* A name space that is kept by a file, and a directory that is gone. */
	assert_int_equal(
		parse("1 0 0:4 mnt:[4026532281] /run/x//deleted rw - nsfs nsfs rw", buf, &m), 0);
	assert_string_equal(m.root, "mnt:[4026532281]");
}

static void test_bad_lines(void **state)
{
	static const char good[] = "36 35 253:7 / /srv rw shared:1 - ext4 /dev/x rw";
	static const char *const bad[] = {
		"",
		" ",
		"36",
		"36 35 253:7 / /srv rw",
		"36 35 253:7 / /srv rw shared:1",
		"36 35 253:7 / /srv rw -",
		"36 35 253:7 / /srv rw - ext4",
		"36 35 253:7 / /srv rw - ext4 /dev/x",
		"36 35 253:7 / /srv rw - ext4 /dev/x rw more",
		"36 35 253:7 / /srv rw - ext4 /dev/x rw ",
		"36 35 253:7 / /srv rw -  /dev/x rw",
		" 36 35 253:7 / /srv rw - ext4 /dev/x rw",
		"36  35 253:7 / /srv rw - ext4 /dev/x rw",
		"-36 35 253:7 / /srv rw - ext4 /dev/x rw",
		"x 35 253:7 / /srv rw - ext4 /dev/x rw",
		"36 3x 253:7 / /srv rw - ext4 /dev/x rw",
		"36 35 253 / /srv rw - ext4 /dev/x rw",
		"36 35 253: / /srv rw - ext4 /dev/x rw",
		"36 35 253:7x / /srv rw - ext4 /dev/x rw",
		"36 35 :7 / /srv rw - ext4 /dev/x rw",
		"36 35 4294967296:7 / /srv rw - ext4 /dev/x rw",
		"18446744073709551616 35 253:7 / /srv rw - ext4 /dev/x rw",
		"36 35 253:7 / srv rw - ext4 /dev/x rw",
		"36 35 253:7 /  rw - ext4 /dev/x rw",
		"36 35 253:7 / /srv rw shared: - ext4 /dev/x rw",
		"36 35 253:7 / /srv rw master:x - ext4 /dev/x rw",
	};
	struct tm_mount_line m = { .id = 77 };
	char buf[512], cut[sizeof(good)];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++)
		assert_int_equal(parse(bad[i], buf, &m), -EINVAL);
	assert_int_equal(m.id, 77);
	for (size_t len = 0; len < sizeof(good); len++) {
		memcpy(cut, good, len);
		cut[len] = '\0';
		/* The last words may be of any length. */
		assert_int_equal(parse(cut, buf, &m), len < sizeof(good) - 3 ? -EINVAL : 0);
	}
}

static void test_escapes(void **state)
{
	static const struct {
		const char *text, *plain;
	} cases[] = {
		{ "", "" },
		{ "a", "a" },
		{ "\\040", " " },
		{ "a\\040b\\011\\012\\134", "a b\t\n\\" },
		{ "\\134040", "\\040" },
		{ "\\377\\200", "\xff\x80" },
		/* not escapes */
		{ "\\", "\\" },
		{ "\\0", "\\0" },
		{ "\\04", "\\04" },
		{ "\\048", "\\048" },
		{ "\\400", "\\400" },
		{ "\\000", "\\000" },
		{ "\\x20", "\\x20" },
	};
	static const char *const plain[] = { "/srv/a",   "/a b",     "\\",    "\n\t\x7f",
					     "\xc3\xa4", "\xff\xc3", "\\040", "" };
	char buf[64];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		(void)snprintf(buf, sizeof(buf), "%s", cases[i].text);
		tm_mount_unescape(buf);
		assert_string_equal(buf, cases[i].plain);
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(plain); i++) {
		assert_int_equal(tm_mount_escape(plain[i], buf, 4 * strlen(plain[i]) + 1), 0);
		assert_true(tm_utf8_valid(buf));
		for (const char *c = buf; *c; c++)
			assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
		tm_mount_unescape(buf);
		assert_string_equal(buf, plain[i]);
	}
	assert_int_equal(tm_mount_escape("a b\n\xc3\xa4", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "a b\\012\xc3\xa4");
	assert_int_equal(tm_mount_escape("abc", buf, 4), 0);
	assert_int_equal(tm_mount_escape("abc", buf, 3), -ENOSPC);
	assert_int_equal(tm_mount_escape("\n", buf, 5), 0);
	assert_int_equal(tm_mount_escape("\n", buf, 4), -ENOSPC);
	assert_int_equal(tm_mount_escape("", buf, 0), -ENOSPC);
}

static void test_options(void **state)
{
	char text[] = ",rw,,subvol=/@a=b,x=,noatime,";
	char *at = text, *value;

	(void)state;
	assert_string_equal(tm_mount_next_option(&at, &value), "rw");
	assert_null(value);
	assert_string_equal(tm_mount_next_option(&at, &value), "subvol");
	assert_string_equal(value, "/@a=b");
	assert_string_equal(tm_mount_next_option(&at, &value), "x");
	assert_string_equal(value, "");
	assert_string_equal(tm_mount_next_option(&at, &value), "noatime");
	assert_null(value);
	assert_null(tm_mount_next_option(&at, &value));
	assert_null(tm_mount_next_option(&at, &value));
}

static void test_swaps(void **state)
{
	static const char *const bad[] = {
		"",
		"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority",
		"/dev/dm-3",
		"/dev/dm-3 partition",
		"/dev/dm-3 partition 8 0",
		"/dev/dm-3 partition 8 0 -",
		"/dev/dm-3 partition 8 0 --2",
		"/dev/dm-3 partition 8 0 -2 x",
		"/dev/dm-3 partition -8 0 -2",
		"/dev/dm-3 partition 8 x -2",
		"/dev/dm-3 other 8 0 -2",
		"dm-3 partition 8 0 -2",
		"/dev/dm-3 partition 8 0 2147483648",
	};
	struct tm_swap_line s = { .kib = 77 };
	char buf[256];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		(void)snprintf(buf, sizeof(buf), "%s", bad[i]);
		assert_int_equal(tm_swaps_parse(buf, &s), -EINVAL);
	}
	assert_int_equal(s.kib, 77);
	(void)snprintf(buf, sizeof(buf),
		       "/dev/dm-3                               partition\t1048572\t\t12\t\t-2");
	assert_int_equal(tm_swaps_parse(buf, &s), 0);
	assert_string_equal(s.path, "/dev/dm-3");
	assert_false(s.is_file);
	assert_int_equal(s.kib, 1048572);
	assert_int_equal(s.used_kib, 12);
	assert_int_equal(s.priority, -2);
	(void)snprintf(buf, sizeof(buf),
		       "/srv/a\\040b\\012c\\040(deleted) file\t\t8\t0\t2147483647");
	assert_int_equal(tm_swaps_parse(buf, &s), 0);
	assert_string_equal(s.path, "/srv/a b\nc (deleted)");
	assert_true(s.is_file);
	assert_int_equal(s.priority, INT_MAX);
}

static void test_cgroups(void **state)
{
	static const struct {
		const char *text, *unit;
	} cases[] = {
		{ "", "" },
		{ "0::/\n", "" },
		{ "0::/system.slice/ssh.service\n", "ssh.service" },
		{ "0::/system.slice/ssh.service", "ssh.service" },
		{ "0::/user.slice/user-0.slice/user@0.service/app.slice/x.service\n",
		  "user@0.service" },
		{ "0::/machine.slice/c.scope/init.scope\n", "c.scope" },
		{ "0::/system.slice/_odd.service\n", "odd.service" },
		{ "0::/init.scope\n", "init.scope" },
		{ "0::/docker/0123\n", "" },
		{ "0::/a.slice\n0::/b.service\n", "b.service" },
		{ "12:cpu,cpuacct:/x.service\n1:name=systemd:/system.slice/y.service\n0::/\n",
		  "y.service" },
		{ "5:devices:/z.service\n", "" },
		{ "0::/.service\n", "" },
		{ "0::/_\n0::/_.service\n", "" },
		{ "0::/a\033b.service\n", "a b.service" },
		{ "nonsense\n:\n0:\n0::\n::\n", "" },
		{ "0::/0123456789012345678901234567890123456789.service\n", "" },
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		memset(buf, 'x', sizeof(buf));
		tm_cgroup_unit(cases[i].text, buf, sizeof(buf));
		assert_string_equal(buf, cases[i].unit);
	}
}

static void test_unit_names(void **state)
{
	static const struct {
		const char *path, *name;
	} cases[] = {
		{ "/", "-.mount" },
		{ "/srv", "srv.mount" },
		{ "/srv/a", "srv-a.mount" },
		{ "//srv//a//", "srv-a.mount" },
		{ "/srv/a-b", "srv-a\\x2db.mount" },
		{ "/.x/.y", "\\x2ex-.y.mount" },
		{ "/a b\\", "a\\x20b\\x5c.mount" },
		{ "/\xc3\xa4", "\\xc3\\xa4.mount" },
		{ "/a:b_c.d", "a:b_c.d.mount" },
	};
	char buf[512], path[512], small[8];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		assert_int_equal(tm_unit_name(cases[i].path, ".mount", buf, sizeof(buf)), 0);
		assert_string_equal(buf, cases[i].name);
	}
	assert_int_equal(tm_unit_name("srv", ".mount", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(tm_unit_name("", ".mount", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(tm_unit_name("/srv", ".mount", small, sizeof(small)), -ENAMETOOLONG);
	assert_int_equal(tm_unit_name("/", ".mount", small, sizeof(small)), 0);
	assert_int_equal(tm_unit_name("/", ".mount", small, 1), -ENAMETOOLONG);
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(tm_unit_name(path, ".mount", buf, sizeof(buf)), -ENAMETOOLONG);
	path[240] = '\0';
	assert_int_equal(tm_unit_name(path, ".mount", buf, sizeof(buf)), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_line), cmocka_unit_test(test_odd_lines),
		cmocka_unit_test(test_bad_lines),  cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_options),    cmocka_unit_test(test_swaps),
		cmocka_unit_test(test_cgroups),    cmocka_unit_test(test_unit_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
