// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a repair took off volumes: planned or refused, kept in a file, given back in order, or left
 * for a reason. The mounts are of another boot, so that giving back has nothing to do; of a kind
 * that cannot be mounted, so that it fails; or need no system at all.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core/internal.h"
#include "core/released.h"

static const struct tm_volume_record volumes[] = {
	{ .id = { "00000000-0000-4000-8000-000000000001" }, .name = "home", .dev_id = 1 },
	{ .id = { "00000000-0000-4000-8000-000000000002" }, .name = "mail", .dev_id = 2 },
};

static struct tm_holder mount_on(size_t device, const char *type, int id, int parent,
				 const char *point)
{
	struct tm_holder h = { .kind = TM_HOLDER_MOUNT, .device = device };
	struct tm_mount_line line;
	char text[256];

	(void)snprintf(text, sizeof(text), "%d %d 254:3 / %s rw,relatime shared:1 - %s /dev/x rw",
		       id, parent, point, type);
	assert_int_equal(tm_mountinfo_parse(text, &line), 0);
	assert_int_equal(tm_mount_set_line(&h.mount, &line, "/"), 0);
	(void)snprintf(h.mount.boot, sizeof(h.mount.boot), "11111111-1111-4111-8111-111111111111");
	h.mount.ns = 4026531840;
	h.mount.pid = 1;
	assert_true(asprintf(&h.text, "mounted at %s", point) > 0);
	return h;
}

static struct tm_holder process(size_t device)
{
	struct tm_holder h = { .kind = TM_HOLDER_PROCESS, .device = device };

	h.text = strdup("open in process 4711 (dd)");
	return h;
}

/* Takes the @n of @list. */
static struct tm_holding holding_of(const struct tm_holder *list, size_t n)
{
	struct tm_holding h = { .n_devices = 2 };

	h.devices = calloc(2, sizeof(*h.devices));
	h.names = calloc(2, sizeof(*h.names));
	h.holders.list = calloc(n, sizeof(*list));
	assert_true(h.devices && h.names && h.holders.list);
	for (size_t i = 0; i < 2; i++)
		(void)snprintf(h.names[i], sizeof(h.names[0]), "%s", volumes[i].name);
	memcpy(h.holders.list, list, n * sizeof(*list));
	h.holders.n = h.holders.room = n;
	return h;
}

static int plan(const struct tm_holder *list, size_t n, struct tm_released_list *l,
		struct tm_error *err)
{
	tm_cleanup(tm_holding_done) struct tm_holding holding = holding_of(list, n);

	*err = (struct tm_error){ 0 };
	return tm_released_plan(&holding, "tank", volumes, 2, l, err);
}

/* /a on home; /a/b on mail, in it; /c on mail. */
static struct tm_released_list three(void)
{
	const struct tm_holder list[] = {
		mount_on(0, "ext4", 100, 1, "/a"),
		mount_on(1, "ext4", 101, 100, "/a/b"),
		mount_on(1, "ext4", 102, 1, "/c"),
	};
	struct tm_released_list l = { 0 };
	struct tm_error err;

	if (plan(list, 3, &l, &err) < 0)
		fail_msg("%s", err.detail);
	assert_int_equal(l.n, 3);
	return l;
}

static void plans(void **state)
{
	tm_cleanup(tm_released_done) struct tm_released_list l = three();

	(void)state;
	assert_string_equal(l.list[0].text, "home is mounted at /a");
	assert_string_equal(l.list[0].volume.text, volumes[0].id.text);
	assert_string_equal(l.list[2].volume.text, volumes[1].id.text);
	assert_string_equal(l.list[1].release.mount.line.point, "/a/b");
}

static void refuses(void **state)
{
	const struct tm_holder stays[] = { mount_on(0, "ext4", 100, 1, "/a"), process(1) };
	const struct tm_holder fuse[] = { mount_on(0, "fuse.x", 100, 1, "/a") };
	tm_cleanup(tm_released_done) struct tm_released_list l = { 0 };
	struct tm_error err;

	(void)state;
	assert_int_equal(plan(stays, 2, &l, &err), -EBUSY);
	assert_int_equal(err.code, TM_ERR_BUSY);
	assert_non_null(strstr(err.detail, ": mail is open in process 4711 (dd)."));
	assert_int_equal(l.n, 0);
	assert_int_equal(plan(fuse, 1, &l, &err), -EBUSY);
	assert_int_equal(err.code, TM_ERR_BUSY);
	assert_non_null(strstr(err.detail, "tank/home is mounted at /a, which cannot"));
	assert_int_equal(l.n, 0);
}

static char *text_of(const struct tm_released_list *l)
{
	json_t *json = tm_released_to_json(l);
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	assert_non_null(text);
	return text;
}

static void comes_back_from_a_file(void **state)
{
	tm_cleanup(tm_released_done) struct tm_released_list l = three(), back = { 0 };
	char directory[] = "/tmp/test-released.XXXXXX", path[64];
	tm_auto_free char *before = NULL, *after = NULL;
	struct tm_error err = { 0 };

	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/more/x", directory);
	assert_int_equal(tm_released_load(path, &back, &err), 0);
	assert_int_equal(back.n, 0);
	l.repaired = true;
	(void)snprintf(l.list[1].leave, sizeof(l.list[1].leave), "it lost blocks");
	if (tm_released_save(path, &l, &err) < 0 || tm_released_load(path, &back, &err) < 0)
		fail_msg("%s", err.detail);
	before = text_of(&l);
	after = text_of(&back);
	assert_string_equal(after, before);
	assert_true(back.repaired);
	assert_string_equal(back.list[1].leave, "it lost blocks");

	/* What cannot be read is an error, and nothing. */
	tm_released_done(&back);
	assert_int_equal(tm_write_file_atomic(path, before, strlen(before) - 1, 0600), 0);
	assert_int_equal(tm_released_load(path, &back, &err), -EIO);
	assert_int_equal(tm_write_file_atomic(path, "{\"list\":[],\"x\":1}", 17, 0600), 0);
	assert_int_equal(tm_released_load(path, &back, &err), -EIO);
	assert_int_equal(back.n, 0);

	assert_int_equal(tm_released_save(path, &back, &err), 0); /* nothing: no file */
	assert_int_equal(access(path, F_OK), -1);
	*strrchr(path, '/') = '\0';
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(directory), 0);
}

static size_t give(struct tm_released_list *l, size_t n_volumes, bool heed, json_t **off,
		   struct tm_error *err)
{
	json_t *back = NULL;
	size_t failed;

	*err = (struct tm_error){ 0 };
	failed = tm_released_give_back(l, "tank", volumes, n_volumes, heed, &back, off, err);
	assert_int_equal(json_array_size(back) + json_array_size(*off), 3);
	json_decref(back);
	return failed;
}

static const char *off_text(json_t *off, size_t i, const char *key)
{
	return json_string_value(json_object_get(json_array_get(off, i), key));
}

static void gives_back(void **state)
{
	tm_cleanup(tm_released_done) struct tm_released_list l = three();
	struct tm_error err;
	json_t *off;

	(void)state;
	assert_int_equal(give(&l, 2, true, &off, &err), 0);
	assert_int_equal(json_array_size(off), 0);
	assert_int_equal(l.n, 0);
	json_decref(off);
}

static void leaves_what_lost(void **state)
{
	tm_cleanup(tm_released_done) struct tm_released_list l = three();
	struct tm_error err;
	json_t *off;

	(void)state;
	(void)snprintf(l.list[0].leave, sizeof(l.list[0].leave), "it lost blocks");
	/* What lies in it cannot be mounted without it, which is a failure of its own. */
	assert_int_equal(give(&l, 2, true, &off, &err), 1);
	assert_int_equal(json_array_size(off), 2);
	assert_string_equal(off_text(off, 0, "reason"), "it lost blocks");
	assert_string_equal(off_text(off, 0, "volume"), "home");
	assert_string_equal(off_text(off, 1, "text"), "mail is mounted at /a/b");
	assert_non_null(strstr(off_text(off, 1, "reason"), "not back"));
	assert_int_equal(l.n, 2);
	json_decref(off);
}

static void undoes_all(void **state)
{
	tm_cleanup(tm_released_done) struct tm_released_list l = three();
	struct tm_error err;
	json_t *off;

	(void)state;
	(void)snprintf(l.list[0].leave, sizeof(l.list[0].leave), "it lost blocks");
	assert_int_equal(give(&l, 2, false, &off, &err), 0);
	assert_int_equal(l.n, 0);
	json_decref(off);
}

static void tells_failures(void **state)
{
	tm_cleanup(tm_released_done) struct tm_released_list l = three();
	struct tm_error err;
	json_t *off;

	(void)state;
	/* Of a volume that is no more: both of its mounts. */
	assert_int_equal(give(&l, 1, true, &off, &err), 2);
	assert_string_equal(err.detail, "its volume is no more");
	assert_int_equal(l.n, 2);
	json_decref(off);
}

/* Only what was taken off an intact volume comes back after a repair. */
static void judges(void **state)
{
	static const struct {
		enum tm_fate fate;
		const char *leave;
	} cases[] = {
		{ TM_FATE_INTACT, "" },
		{ TM_FATE_LOST_BLOCKS, "volume mail without some of its blocks" },
		{ TM_FATE_LOST, "volume mail lost" },
		{ TM_FATE_CHANGED, "volume mail changed" },
		{ TM_FATE_UNKNOWN, "volume mail with unknown losses" },
	};

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		struct tm_verdict_line lines[2] = { { .fate = TM_FATE_INTACT },
						    { .fate = cases[i].fate } };
		struct tm_repair_verdict verdict = { .n_lines = 2, .lines = lines };
		struct tm_released_list l = three();

		tm_released_judge(&l, volumes, 2, &verdict);
		assert_string_equal(l.list[0].leave, "");
		for (size_t k = 1; k < 3; k++) {
			const char *leave = l.list[k].leave;

			if (cases[i].leave[0])
				assert_non_null(strstr(leave, cases[i].leave));
			else
				assert_string_equal(leave, "");
		}
		tm_released_leave_nothing(&l);
		assert_string_equal(l.list[1].leave, "");
		tm_released_done(&l);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plans),
		cmocka_unit_test(refuses),
		cmocka_unit_test(comes_back_from_a_file),
		cmocka_unit_test(gives_back),
		cmocka_unit_test(leaves_what_lost),
		cmocka_unit_test(undoes_all),
		cmocka_unit_test(tells_failures),
		cmocka_unit_test(judges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
