// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Having volumes let go, as far as nothing is mounted for it (tests/tools/holders.c does that):
 * what could not be put back, what is off already, the child that may hang, the record, and
 * systemd, played by a process on a bus of our own.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "host/child.h"
#include "host/release.h"
#include "logic/json.h"
#include "skip.h"

/* ---- the child ------------------------------------------------------------------------------ */

#define LONG_USEC (60 * TM_USEC_PER_SEC)

static void answer_sum(void *userdata, struct tm_child_answer *answer)
{
	const int *numbers = userdata;

	answer->step = numbers[0] + numbers[1];
	answer->errnum = EXDEV;
	memset(answer->text, 'x', sizeof(answer->text));
}

static void count_descriptors(void *userdata, struct tm_child_answer *answer)
{
	(void)userdata;
	for (int fd = 3; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			answer->step++;
}

static void hang(void *userdata, struct tm_child_answer *answer)
{
	const int *fd = userdata;

	(void)answer;
	(void)!write(*fd, "x", 1);
	for (;;)
		(void)pause();
}

static void die(void *userdata, struct tm_child_answer *answer)
{
	(void)userdata, (void)answer;
	_exit(0);
}

static void child(void **state)
{
	struct tm_child_answer answer;
	int numbers[] = { 40, 2 }, ends[2], more[6];
	char byte;

	(void)state;
	assert_int_equal(tm_child_run(answer_sum, numbers, NULL, 0, LONG_USEC, &answer), 0);
	assert_int_equal(answer.step, 42);
	assert_int_equal(answer.errnum, EXDEV);
	assert_int_equal(strlen(answer.text), sizeof(answer.text) - 1);
	assert_int_equal(tm_child_run(die, NULL, NULL, 0, LONG_USEC, &answer), -EPIPE);

	/* Its own socket, and those it was given, in any order. */
	for (size_t i = 0; i < TM_ARRAY_SIZE(more); i++) {
		more[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_true(more[i] >= 0);
	}
	assert_int_equal(tm_child_run(count_descriptors, NULL, NULL, 0, LONG_USEC, &answer), 0);
	assert_int_equal(answer.step, 1);
	assert_int_equal(tm_child_run(count_descriptors, NULL,
				      (const int[]){ more[4], -1, more[1], more[2] }, 4, LONG_USEC,
				      &answer),
			 0);
	assert_int_equal(answer.step, 4);
	assert_int_equal(tm_child_run(die, NULL, more, 5, LONG_USEC, &answer), -EINVAL);
	for (size_t i = 0; i < TM_ARRAY_SIZE(more); i++)
		assert_int_equal(close(more[i]), 0);

	/* One that hangs is given up, and killed: then nobody has the pipe's other end open. */
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(tm_child_run(hang, &ends[1], &ends[1], 1, 300 * TM_USEC_PER_MSEC, &answer),
			 -ETIMEDOUT);
	assert_int_equal(close(ends[1]), 0);
	assert_int_equal(read(ends[0], &byte, 1), 1);
	assert_int_equal(read(ends[0], &byte, 1), 0);
	assert_int_equal(close(ends[0]), 0);
	/* No child is left for anybody here to wait for. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* ---- what could not be mounted again -------------------------------------------------------- */

static struct tm_mount mount_of(const char *line)
{
	struct tm_mount m = { .here = true, .pid = 7, .ns = 77 };
	struct tm_mount_line parsed;
	char buf[512];

	(void)snprintf(buf, sizeof(buf), "%s", line);
	assert_int_equal(tm_mountinfo_parse(buf, &parsed), 0);
	assert_int_equal(tm_mount_set_line(&m, &parsed, "/"), 0);
	return m;
}

static void mountable(void **state)
{
	static const char *const good[] = {
		"36 35 253:7 / /srv rw - ext4 /dev/x rw",
		"36 35 253:7 /a/b /srv ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow "
		"shared:1 - xfs /dev/x ro,attr2,inode64",
		"36 35 253:7 / /srv rw,relatime unbindable - ext4 /dev/x "
		"rw,seclabel,errors=continue",
		"31 30 0:40 /@a /srv rw - btrfs /dev/x rw,subvolid=256,subvol=/@a",
		"31 30 0:40 /@a/b /srv rw - btrfs /dev/x rw,subvolid=256,subvol=/@a",
		"31 30 0:40 / /srv rw - btrfs /dev/x rw,subvolid=5,subvol=/",
		"36 35 253:7 / /srv rw - ext4 /dev/x ",
	};
	static const struct {
		const char *line, *why;
	} bad[] = {
		{ "36 35 253:7 / /srv rw - fuseblk /dev/x rw", "a program" },
		{ "36 35 253:7 / /srv rw - fuse.ntfs-3g /dev/x rw", "a program" },
		{ "36 35 253:7 / /srv//deleted rw - ext4 /dev/x rw", "deleted" },
		{ "36 35 253:7 /a//deleted /srv rw - ext4 /dev/x rw", "deleted" },
		{ "36 35 253:7 / /srv rw,idmapped - ext4 /dev/x rw", "\"idmapped\"" },
		{ "36 35 253:7 / /srv rw,novel=x - ext4 /dev/x rw", "\"novel\"" },
		{ "36 35 253:7 mnt:[77] /srv rw - nsfs /dev/x rw", "no directory" },
		{ "31 30 0:40 /@b /srv rw - btrfs /dev/x rw,subvolid=256,subvol=/@a", "subvolume" },
		{ "31 30 0:40 /@ab /srv rw - btrfs /dev/x rw,subvolid=256,subvol=/@a",
		  "subvolume" },
	};
	char line[512], key[400];

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(good); i++) {
		struct tm_mount m = mount_of(good[i]);
		struct tm_error err = { 0 };

		if (tm_unmount_check(&m, &err) < 0)
			fail_msg("%s: %s", good[i], err.detail);
		tm_mount_done(&m);
	}
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		struct tm_mount m = mount_of(bad[i].line);
		struct tm_error err = { 0 };

		assert_int_equal(tm_unmount_check(&m, &err), -EOPNOTSUPP);
		assert_int_equal(err.code, TM_ERR_UNSUPPORTED);
		if (!strstr(err.detail, bad[i].why))
			fail_msg("%s: %s", bad[i].line, err.detail);
		assert_int_not_equal(err.hint[0], 0);
		tm_mount_done(&m);
	}
	memset(key, 'k', sizeof(key));
	key[sizeof(key) - 1] = '\0';
	(void)snprintf(line, sizeof(line), "36 35 253:7 / /srv rw - ext4 /dev/x rw,%s", key);
	struct tm_mount m = mount_of(line);

	assert_int_equal(tm_unmount_check(&m, NULL), -EOPNOTSUPP);
	tm_mount_done(&m);
}

/* ---- what is off already -------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void put(const char *base, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", base, name);
	for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
		*slash = '/';
	}
	f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int unlink_in(const char *base, const char *name)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", base, name);
	return unlink(path);
}

static void put_link(const char *base, const char *name, const char *target)
{
	char path[256];

	/* Over a link that dangles nothing can be put. */
	(void)unlink_in(base, name);
	put(base, name, "");
	assert_int_equal(unlink_in(base, name), 0);
	(void)snprintf(path, sizeof(path), "%s/%s", base, name);
	assert_int_equal(symlink(target, path), 0);
}

#define BOOT "0a1b2c3d-0000-1111-2222-333344445555"

static void nothing_to_do(void **state)
{
	char base[] = "/tmp/test-unmount.XXXXXX";
	const struct tm_host host = { base, base, 60 };
	struct tm_mount m = mount_of("36 35 253:7 / /nowhere/at/all rw - ext4 /dev/x rw");
	char path[128], link[128], name[64];
	struct tm_error err = { 0 };
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(base));
	put(base, "sys/kernel/random/boot_id", BOOT "\n");
	put(base, "self/mountinfo", "35 35 253:7 / / rw - ext4 /dev/x rw\n");
	put_link(base, "self/ns/mnt", "mnt:[77]");
	/* Of another boot. */
	assert_int_equal(tm_unmount(&m, &host, &err), 0);
	assert_int_equal(tm_mount_again(&m, NULL, &host, &err), 0);
	/* Of this one, and not in the table. */
	memcpy(m.boot, BOOT, sizeof(m.boot));
	assert_int_equal(tm_unmount(&m, &host, &err), 0);
	/* Nobody in the other namespace; then only one who came later, and one who is elsewhere. */
	m.here = false;
	m.pid = 60;
	m.seen_ticks = 1000;
	assert_int_equal(tm_unmount(&m, &host, &err), 0);
	assert_int_equal(tm_mount_again(&m, NULL, &host, &err), 0);
	put_link(base, "60/ns/mnt", "mnt:[77]");
	put(base, "60/mountinfo", "36 35 253:7 / /nowhere/at/all rw - ext4 /dev/x rw\n");
	put(base, "60/stat", "60 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1001 20\n");
	put_link(base, "61/ns/mnt", "mnt:[78]");
	put(base, "61/stat", "61 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1 20\n");
	assert_int_equal(tm_unmount(&m, &host, &err), 0);
	assert_int_equal(tm_mount_again(&m, NULL, &host, &err), 0);
	assert_int_equal(err.code, TM_OK);
	/* One that began before is a witness, though what it leads to is no namespace. */
	put(base, "60/ns/file", "");
	(void)snprintf(path, sizeof(path), "%s/60/ns/file", base);
	assert_int_equal(stat(path, &st), 0);
	m.ns = st.st_ino;
	(void)snprintf(name, sizeof(name), "mnt:[%llu]", (unsigned long long)m.ns);
	(void)snprintf(link, sizeof(link), "%s/60/ns/%s", base, name);
	assert_int_equal(rename(path, link), 0);
	put_link(base, "60/ns/mnt", name);
	assert_int_equal(tm_unmount(&m, &host, &err), 0);
	put(base, "60/stat", "60 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1000 20\n");
	assert_true(tm_unmount(&m, &host, &err) < 0);
	assert_non_null(strstr(err.detail, "cannot enter the mount namespace"));
	/* A thread is one as well, and the noted process need not be there. */
	m.pid = 61;
	assert_int_equal(unlink_in(base, "60/ns/mnt"), 0);
	put_link(base, "60/task/62/ns/mnt", name);
	(void)snprintf(path, sizeof(path), "%s/60/task/62/ns/%s", base, name);
	assert_int_equal(rename(link, path), 0);
	put(base, "60/task/62/mountinfo", "36 35 253:7 / /nowhere/at/all rw - ext4 /dev/x rw\n");
	put(base, "60/task/62/stat",
	    "62 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1 20\n");
	err = (struct tm_error){ 0 };
	assert_true(tm_unmount(&m, &host, &err) < 0);
	assert_non_null(strstr(err.detail, "cannot enter the mount namespace"));
	err = (struct tm_error){ 0 };
	/* It is mounted already. */
	m.here = true;
	put(base, "self/mountinfo", "36 35 0:40 / /nowhere/at/all rw - ext4 /dev/x rw\n");
	assert_int_equal(tm_mount_again(&m, NULL, &host, &err), 0);
	assert_int_equal(err.code, TM_OK);
	/* As one with another root sees it. */
	m.here = false;
	m.pid = 60;
	put_link(base, "60/ns/mnt", name);
	put_link(base, "60/root", "/nowhere/at");
	(void)snprintf(link, sizeof(link), "%s/60/ns/%s", base, name);
	(void)snprintf(path, sizeof(path), "%s/60/task/62/ns/%s", base, name);
	assert_int_equal(rename(path, link), 0);
	put(base, "60/mountinfo", "36 35 0:40 / /all rw - ext4 /dev/x rw\n");
	assert_int_equal(tm_mount_again(&m, NULL, &host, &err), 0);
	assert_int_equal(err.code, TM_OK);
	m.here = true;
	/* By other options: those would be changed, were there anything at that place. */
	put(base, "self/mountinfo", "36 35 0:40 / /nowhere/at/all ro - ext4 /dev/x rw\n");
	assert_int_equal(tm_mount_again(&m, NULL, &host, &err), -ENOENT);
	assert_non_null(strstr(err.detail, "cannot set the options"));
	err = (struct tm_error){ 0 };
	/* No procfs at all is not the same as nothing mounted. */
	const struct tm_host blind = { "/nowhere", "/nowhere", 60 };

	assert_int_equal(tm_unmount(&m, &blind, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_IO);
	tm_mount_done(&m);
	assert_int_equal(nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* The mount is in the table, but the path leads to another: nothing may be unmounted. */
static void not_that_mount(void **state)
{
	char base[] = "/tmp/test-unmount.XXXXXX";
	const struct tm_host host = { base, base, 60 };
	struct tm_mount m = mount_of("4000000 1 253:7 / / rw - ext4 /dev/x rw");
	struct tm_error err = { 0 };

	(void)state;
	assert_non_null(mkdtemp(base));
	put(base, "self/mountinfo", "4000000 1 253:7 / / rw - ext4 /dev/x rw\n");
	assert_int_equal(tm_unmount(&m, &host, &err), -EBUSY);
	assert_int_equal(err.code, TM_ERR_BUSY);
	assert_non_null(strstr(err.detail, "another mount covers it"));
	tm_mount_done(&m);
	assert_int_equal(nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void swap_that_is_not(void **state)
{
	const struct tm_host host = { "/proc", "/sys", 60 };
	struct tm_swap swap = { .path = (char *)"/nowhere/at/all", .priority = 5 };
	struct tm_error err = { 0 };
	int r = tm_swap_on(&swap, NULL, &host, &err);

	(void)state;
	if (r == -EPERM)
		TM_SKIP("only root may use swap");
	assert_int_equal(r, -ENOENT);
	assert_int_equal(err.code, TM_ERR_IO);
	assert_non_null(strstr(err.detail, "/nowhere/at/all"));
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_swap_off(&swap, &host, &err), -ENOENT);
}

/* ---- the record ----------------------------------------------------------------------------- */

static json_t *there_and_back(const struct tm_release *r, struct tm_release *ret)
{
	json_t *json = tm_release_to_json(r);
	struct tm_error err = { 0 };

	assert_non_null(json);
	if (tm_release_from_json(json, "", ret, &err) < 0)
		fail_msg("%s: %s", err.field, err.detail);
	return json;
}

static void assert_refused(json_t *json, const char *key, json_t *value, enum tm_error_code code)
{
	json_t *changed = json_deep_copy(json);
	struct tm_release r = { 0 };
	struct tm_error err = { 0 };

	assert_int_equal(value ? json_object_set_new(changed, key, value)
			       : json_object_del(changed, key),
			 0);
	assert_true(tm_release_from_json(changed, "", &r, &err) < 0);
	assert_int_equal(err.code, code);
	assert_null(r.unit.more);
	assert_null(r.mount.buffer);
	assert_null(r.swap.path);
	json_decref(changed);
}

static void records(void **state)
{
	struct tm_release r = { .kind = TM_HOLDER_MOUNT }, back;
	json_t *json, *many = json_array();

	(void)state;
	r.mount = mount_of("36 35 253:7 /a\\134 /srv\\012 rw - ext4 /dev/x rw");
	r.unit.more = calloc(2, sizeof(*r.unit.more));
	assert_non_null(r.unit.more);
	r.unit.n_more = 2;
	(void)snprintf(r.unit.name, sizeof(r.unit.name), "srv.mount");
	(void)snprintf(r.unit.more[0], sizeof(r.unit.more[0]), "a.service");
	(void)snprintf(r.unit.more[1], sizeof(r.unit.more[1]), "b.service");
	json = there_and_back(&r, &back);
	assert_int_equal(back.kind, TM_HOLDER_MOUNT);
	assert_string_equal(back.mount.line.point, "/srv\n");
	assert_string_equal(back.mount.line.root, "/a\\");
	assert_string_equal(back.unit.name, "srv.mount");
	assert_int_equal(back.unit.n_more, 2);
	assert_string_equal(back.unit.more[1], "b.service");
	tm_release_done(&back);
	for (int i = 0; i <= TM_UNIT_MORE_MAX; i++)
		assert_int_equal(json_array_append_new(many, json_string("x.service")), 0);
	assert_refused(json, "unit", NULL, TM_ERR_MISSING_FIELD);
	assert_refused(json, "units", NULL, TM_ERR_MISSING_FIELD);
	assert_refused(json, "units", many, TM_ERR_OUT_OF_RANGE);
	assert_refused(json, "units", json_pack("[s, i]", "x", 1), TM_ERR_WRONG_TYPE);
	assert_refused(json, "mount", NULL, TM_ERR_OUT_OF_RANGE);
	assert_refused(json, "swap", json_object(), TM_ERR_OUT_OF_RANGE);
	assert_refused(json, "mount", json_object(), TM_ERR_MISSING_FIELD);
	assert_refused(json, "more", json_true(), TM_ERR_UNKNOWN_FIELD);
	json_decref(json);
	tm_release_done(&r);

	r = (struct tm_release){ .kind = TM_HOLDER_SWAP };
	r.swap.path = strdup("/dev/dm-3\n");
	r.swap.priority = -2;
	json = there_and_back(&r, &back);
	assert_int_equal(back.kind, TM_HOLDER_SWAP);
	assert_string_equal(back.swap.path, "/dev/dm-3\n");
	assert_int_equal(back.swap.priority, -2);
	assert_false(back.swap.is_file);
	assert_string_equal(back.unit.name, "");
	tm_release_done(&back);
	assert_refused(json, "swap", json_pack("{s:s, s:b}", "path", "/x", "file", 0),
		       TM_ERR_WRONG_TYPE);
	assert_refused(json, "swap",
		       json_pack("{s:s, s:b, s:I}", "path", "/x", "file", 0, "priority",
				 (json_int_t)1 << 40),
		       TM_ERR_WRONG_TYPE);
	assert_refused(json, "swap",
		       json_pack("{s:s, s:b, s:i}", "path", "x", "file", 0, "priority", 1),
		       TM_ERR_OUT_OF_RANGE);
	json_decref(json);
	tm_release_done(&r);
}

static void no_release(void **state)
{
	struct tm_holder h = { .kind = TM_HOLDER_PROCESS,
			       .text = (char *)"open in process 4711 (dd)" };
	struct tm_release r = { 0 };
	struct tm_error err = { 0 };

	(void)state;
	assert_int_equal(tm_release_plan(&h, &r, &err), -EOPNOTSUPP);
	assert_int_equal(err.code, TM_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.detail, "open in process 4711 (dd)"));
}

static void order(void **state)
{
	struct tm_release list[] = {
		{ .kind = TM_HOLDER_MOUNT, .mount.here = true },
		{ .kind = TM_HOLDER_MOUNT, .mount.here = true },
		{ .kind = TM_HOLDER_MOUNT },
		{ .kind = TM_HOLDER_MOUNT },
		{ .kind = TM_HOLDER_SWAP },
		{ .kind = TM_HOLDER_SWAP },
	};
	static const size_t want[] = { 5, 4, 1, 0, 3, 2 };
	size_t got[6];

	(void)state;
	tm_release_order(list, 6, got);
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(got[i], want[i]);
	tm_release_order(NULL, 0, NULL);
}

/* ---- systemd -------------------------------------------------------------------------------- */

/* What it is told, it does at once; jobs on hang.mount never end, those on bad.mount fail. */
struct unit {
	const char *name, *file;
	const char *required_by[3];
	bool active;
	const char *following;
};

struct systemd {
	sd_bus *bus;
	FILE *log;
	uint32_t job;
	struct unit units[13];
};

static struct unit *unit_of(struct systemd *s, const char *name)
{
	for (size_t i = 0; i < TM_ARRAY_SIZE(s->units); i++)
		if (s->units[i].name && !strcmp(s->units[i].name, name))
			return &s->units[i];
	return NULL;
}

static struct unit *unit_at(struct systemd *s, const char *path)
{
	return &s->units[strtoul(strrchr(path, '/') + 2, NULL, 10)];
}

static int on_get_unit(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct systemd *s = userdata;
	const char *name;
	struct unit *u;
	char path[64];
	int r = sd_bus_message_read(m, "s", &name);

	u = r < 0 ? NULL : unit_of(s, name);
	if (!u)
		return sd_bus_error_set(error, "org.freedesktop.systemd1.NoSuchUnit", "no unit");
	(void)snprintf(path, sizeof(path), "/org/freedesktop/systemd1/unit/u%td", u - s->units);
	return sd_bus_reply_method_return(m, "o", path);
}

static int on_job(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	const char *method = sd_bus_message_get_member(m), *name, *mode;
	struct systemd *s = userdata;
	char path[64];
	struct unit *u;
	int r = sd_bus_message_read(m, "ss", &name, &mode);

	u = r < 0 ? NULL : unit_of(s, name);
	if (!u)
		return sd_bus_error_set(error, "org.freedesktop.systemd1.NoSuchUnit", "no unit");
	(void)fprintf(s->log, "%s %s %s\n", method, name, mode);
	(void)fflush(s->log);
	(void)snprintf(path, sizeof(path), "/org/freedesktop/systemd1/job/%u", ++s->job);
	u->active = !strcmp(method, "StartUnit");
	if (strcmp(name, "hang.mount") != 0) {
		/* Somebody else's ends as well; and ours before its caller has the answer. */
		(void)sd_bus_emit_signal(s->bus, "/org/freedesktop/systemd1",
					 "org.freedesktop.systemd1.Manager", "JobRemoved", "uoss",
					 s->job + 100, "/org/freedesktop/systemd1/job/999", name,
					 "failed");
		(void)sd_bus_emit_signal(s->bus, "/org/freedesktop/systemd1",
					 "org.freedesktop.systemd1.Manager", "JobRemoved", "uoss",
					 s->job, path, name,
					 strcmp(name, "bad.mount") != 0 ? "done" : "failed");
	}
	return sd_bus_reply_method_return(m, "o", path);
}

static int on_nothing(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct systemd *s = userdata;

	(void)error;
	(void)fprintf(s->log, "%s\n", sd_bus_message_get_member(m));
	(void)fflush(s->log);
	return sd_bus_reply_method_return(m, "");
}

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
		    sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct unit *u = unit_at(userdata, path);

	(void)bus, (void)interface, (void)error;
	if (!strcmp(property, "Following"))
		return sd_bus_message_append(reply, "s", u->following ? u->following : "");
	return sd_bus_message_append(reply, "s",
				     strcmp(property, "FragmentPath") == 0 ? u->file
				     : u->active                           ? "active"
									   : "inactive");
}

static int get_list(sd_bus *bus, const char *path, const char *interface, const char *property,
		    sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct unit *u = unit_at(userdata, path);
	const bool one = !strcmp(property, "BoundBy");

	(void)bus, (void)interface, (void)error;
	/* The first is told by one property, the others by another. */
	return sd_bus_message_append_strv(
		reply,
		(char **)(one ? (const char *[]){ u->required_by[0], NULL }
			  : !strcmp(property, "RequiredBy") && u->required_by[0]
				  ? (const char *[]){ u->required_by[1], u->required_by[2], NULL }
				  : (const char *[]){ NULL }));
}

static int find_unit(sd_bus *bus, const char *path, const char *interface, void *userdata,
		     void **ret_found, sd_bus_error *error)
{
	(void)bus, (void)interface, (void)error;
	if (strncmp(path, "/org/freedesktop/systemd1/unit/u", 32) != 0)
		return 0;
	*ret_found = userdata;
	return 1;
}

static const sd_bus_vtable manager_table[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("GetUnit", "s", "o", on_get_unit, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Subscribe", "", "", on_nothing, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("StopUnit", "ss", "o", on_job, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("StartUnit", "ss", "o", on_job, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

static const sd_bus_vtable unit_table[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("ActiveState", "s", get_text, 0, 0),
	SD_BUS_PROPERTY("FragmentPath", "s", get_text, 0, 0),
	SD_BUS_PROPERTY("Following", "s", get_text, 0, 0),
	SD_BUS_PROPERTY("RequiredBy", "as", get_list, 0, 0),
	SD_BUS_PROPERTY("BoundBy", "as", get_list, 0, 0),
	SD_BUS_PROPERTY("ConsistsOf", "as", get_list, 0, 0),
	SD_BUS_VTABLE_END,
};

static const sd_bus_vtable job_table[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Cancel", "", "", on_nothing, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

static int find_job(sd_bus *bus, const char *path, const char *interface, void *userdata,
		    void **ret_found, sd_bus_error *error)
{
	(void)bus, (void)interface, (void)error;
	if (strncmp(path, "/org/freedesktop/systemd1/job/", 30) != 0)
		return 0;
	*ret_found = userdata;
	return 1;
}

/* Plays systemd until it is killed. */
static void play_systemd(const char *log) __attribute__((noreturn));

static void play_systemd(const char *log)
{
	struct systemd s = {
		.log = fopen(log, "ae"),
		.units = { { "srv-a.mount",
			     "/etc/systemd/system/srv-a.mount",
			     { "db.service", "idle.service", "x.target" },
			     true },
			   { "db.service", "/x", { "web.service" }, true },
			   { "web.service", "/x", { "x.target", "db.service" }, true },
			   { "idle.service", "/x", { NULL }, false },
			   { "x.target", "/x", { NULL }, true },
			   { "hand.mount", "", { NULL }, true },
			   { "run.mount", "/run/systemd/transient/run.mount", { NULL }, true },
			   { "off.mount", "/x", { NULL }, false },
			   { "hang.mount", "/x", { "thinmgrd.service" }, true },
			   { "bad.mount", "/x", { NULL }, true },
			   { "thinmgrd.service", "/x", { NULL }, true },
			   { "dev-dm\\x2d3.swap", "", { NULL }, true, "dev-sw.swap" },
			   { "dev-sw.swap", "/x", { NULL }, true } },
	};
	int r = sd_bus_open_system(&s.bus);

	if (r >= 0)
		r = sd_bus_add_object_vtable(s.bus, NULL, "/org/freedesktop/systemd1",
					     "org.freedesktop.systemd1.Manager", manager_table, &s);
	if (r >= 0)
		r = sd_bus_add_fallback_vtable(s.bus, NULL, "/org/freedesktop/systemd1/unit",
					       "org.freedesktop.systemd1.Unit", unit_table,
					       find_unit, &s);
	if (r >= 0)
		r = sd_bus_add_fallback_vtable(s.bus, NULL, "/org/freedesktop/systemd1/job",
					       "org.freedesktop.systemd1.Job", job_table, find_job,
					       &s);
	if (r >= 0)
		r = sd_bus_request_name(s.bus, "org.freedesktop.systemd1", 0);
	while (s.log && r >= 0) {
		r = sd_bus_process(s.bus, NULL);
		if (r == 0)
			r = sd_bus_wait(s.bus, UINT64_MAX);
	}
	_exit(1);
}

struct fixture {
	char base[64], log[128];
	pid_t bus, systemd;
};

static const char *find_daemon(void)
{
	static const char *const paths[] = { "/usr/bin/dbus-daemon", "/bin/dbus-daemon" };

	for (size_t i = 0; i < TM_ARRAY_SIZE(paths); i++)
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	return NULL;
}

static bool is_up(void)
{
	sd_bus *bus = NULL;
	int r = sd_bus_open_system(&bus);

	if (r >= 0)
		r = sd_bus_get_name_creds(bus, "org.freedesktop.systemd1", 0, NULL);
	(void)sd_bus_close_unref(bus);
	return r >= 0;
}

static int start_bus(void **state)
{
	static const char format[] =
		"<busconfig><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>"
		"<policy context=\"default\"><allow send_destination=\"*\"/>"
		"<allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>\n";
	struct fixture *f = calloc(1, sizeof(*f));
	char text[512], option[128];

	assert_non_null(f);
	*state = f;
	(void)snprintf(f->base, sizeof(f->base), "/tmp/test-unmount.XXXXXX");
	assert_non_null(mkdtemp(f->base));
	(void)snprintf(f->log, sizeof(f->log), "%s/log", f->base);
	(void)snprintf(text, sizeof(text), format, f->base);
	put(f->base, "bus.conf", text);
	(void)snprintf(text, sizeof(text), "unix:path=%s/bus", f->base);
	assert_int_equal(setenv("DBUS_SYSTEM_BUS_ADDRESS", text, 1), 0);
	if (!find_daemon())
		return 0;
	(void)snprintf(option, sizeof(option), "--config-file=%s/bus.conf", f->base);
	f->bus = fork();
	assert_true(f->bus >= 0);
	if (f->bus == 0) {
		(void)execl(find_daemon(), "dbus-daemon", option, "--nofork", "--nopidfile",
			    (char *)NULL);
		_exit(127);
	}
	(void)snprintf(text, sizeof(text), "%s/bus", f->base);
	for (int i = 0; i < 2000 && access(text, F_OK) < 0; i++)
		(void)nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	f->systemd = fork();
	assert_true(f->systemd >= 0);
	if (f->systemd == 0)
		play_systemd(f->log);
	for (int i = 0; i < 2000 && !is_up(); i++)
		(void)nanosleep(&(struct timespec){ 0, 10000000 }, NULL);
	return 0;
}

static int stop_bus(void **state)
{
	struct fixture *f = *state;
	const pid_t pids[] = { f->systemd, f->bus };
	int r;

	for (size_t i = 0; i < 2; i++) {
		if (pids[i] <= 0)
			continue;
		(void)kill(pids[i], SIGKILL);
		(void)waitpid(pids[i], NULL, 0);
	}
	r = nftw(f->base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return r;
}

static void assert_log(const struct fixture *f, const char *want)
{
	tm_auto_free char *text = NULL;

	assert_int_equal(tm_read_file(f->log, 65536, &text, NULL), 0);
	assert_string_equal(text, want);
	assert_int_equal(truncate(f->log, 0), 0);
}

static void no_bus(void **state)
{
	struct tm_error err = { 0 };
	struct tm_unit u;

	(void)state;
	assert_int_equal(setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/at/all", 1), 0);
	assert_int_equal(tm_unit_find("/srv/a", ".mount", &u), 0);
	assert_string_equal(u.name, "");
	assert_int_equal(tm_unit_start("srv-a.mount", 5, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_IO);
}

static void units(void **state)
{
	static const char *const none[] = {
		"/unknown", "/hand", "/run", "/off", "/hang", /* thinmgrd would go with it */
	};
	struct fixture *f = *state;
	struct tm_error err = { 0 };
	struct tm_unit u;

	if (!find_daemon())
		TM_SKIP("dbus-daemon is not installed");
	for (size_t i = 0; i < TM_ARRAY_SIZE(none); i++) {
		assert_int_equal(tm_unit_find(none[i], ".mount", &u), 0);
		assert_string_equal(u.name, "");
		assert_null(u.more);
	}
	assert_int_equal(tm_unit_find("/srv/a", ".mount", &u), 1);
	assert_string_equal(u.name, "srv-a.mount");
	/* Those that are active, over all steps, and once each. */
	assert_int_equal(u.n_more, 3);
	assert_string_equal(u.more[0], "x.target");
	assert_string_equal(u.more[1], "db.service");
	assert_string_equal(u.more[2], "web.service");
	tm_unit_done(&u);
	assert_int_equal(tm_unit_find("/srv/a", ".swap", &u), 0);
	assert_int_equal(tm_unit_find("/dev/dm-3", ".swap", &u), 1);
	assert_string_equal(u.name, "dev-sw.swap");
	assert_int_equal(u.n_more, 0);
	tm_unit_done(&u);

	assert_int_equal(truncate(f->log, 0), 0);
	assert_int_equal(tm_unit_stop("srv-a.mount", 60, &err), 0);
	assert_log(f, "Subscribe\nStopUnit srv-a.mount replace\n");
	assert_int_equal(tm_unit_find("/srv/a", ".mount", &u), 0);
	assert_int_equal(tm_unit_start("srv-a.mount", 60, &err), 0);
	assert_log(f, "Subscribe\nStartUnit srv-a.mount replace\n");
	assert_int_equal(err.code, TM_OK);

	assert_int_equal(tm_unit_stop("bad.mount", 60, &err), -EBUSY);
	assert_int_equal(err.code, TM_ERR_BUSY);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_unit_start("bad.mount", 60, &err), -EIO);
	assert_int_equal(err.code, TM_ERR_IO);
	err = (struct tm_error){ 0 };
	assert_true(tm_unit_start("unknown.mount", 60, &err) < 0);
	assert_int_equal(err.code, TM_ERR_IO);
	assert_non_null(strstr(err.detail, "no unit"));
	assert_int_equal(truncate(f->log, 0), 0);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_unit_stop("hang.mount", 1, &err), -ETIMEDOUT);
	assert_int_equal(err.code, TM_ERR_TIMEOUT);
	assert_log(f, "Subscribe\nStopUnit hang.mount replace\nCancel\n");
}

static void release_by_unit(void **state)
{
	const struct tm_host host = { "/proc", "/sys", 60 };
	struct fixture *f = *state;
	struct tm_holder h = { .kind = TM_HOLDER_MOUNT };
	struct tm_error err = { 0 };
	struct tm_release r;

	if (!find_daemon())
		TM_SKIP("dbus-daemon is not installed");
	/* With a unit also what could not be made again without. */
	h.mount = mount_of("4000000 35 253:7 / /srv/a rw - fuseblk /dev/x rw");
	assert_int_equal(tm_release_plan(&h, &r, &err), 0);
	assert_string_equal(r.unit.name, "srv-a.mount");
	assert_int_equal(tm_release_do(&r, &host, &err), 0);
	assert_log(f, "Subscribe\nStopUnit srv-a.mount replace\n");
	assert_int_equal(tm_release_undo(&r, "/dev/y", &host, &err), 0);
	assert_log(f, "Subscribe\nStartUnit srv-a.mount replace\n"
		      "Subscribe\nStartUnit x.target replace\n"
		      "Subscribe\nStartUnit db.service replace\n"
		      "Subscribe\nStartUnit web.service replace\n");
	/* One that cannot be started is told; the rest is started. */
	(void)snprintf(r.unit.more[0], sizeof(r.unit.more[0]), "bad.mount");
	assert_int_equal(tm_release_undo(&r, NULL, &host, &err), -EIO);
	assert_non_null(strstr(err.detail, "bad.mount"));
	assert_log(f, "Subscribe\nStartUnit srv-a.mount replace\n"
		      "Subscribe\nStartUnit bad.mount replace\n"
		      "Subscribe\nStartUnit db.service replace\n"
		      "Subscribe\nStartUnit web.service replace\n");
	/* Systemd says no more than that it failed: then it is tried and said here. */
	(void)snprintf(r.unit.name, sizeof(r.unit.name), "bad.mount");
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_release_do(&r, &host, &err), 0);
	tm_release_done(&r);

	/* In another namespace systemd has no say. */
	h.mount.here = false;
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_release_plan(&h, &r, &err), -EOPNOTSUPP);
	tm_mount_done(&h.mount);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(child),
		cmocka_unit_test(mountable),
		cmocka_unit_test(nothing_to_do),
		cmocka_unit_test(not_that_mount),
		cmocka_unit_test(swap_that_is_not),
		cmocka_unit_test(records),
		cmocka_unit_test(no_release),
		cmocka_unit_test(order),
		cmocka_unit_test(no_bus),
		cmocka_unit_test_setup_teardown(units, start_bus, stop_bus),
		cmocka_unit_test_setup_teardown(release_by_unit, start_bus, stop_bus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
