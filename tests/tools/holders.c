// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who holds block devices, and having them let go, without the daemon:
 *
 *     holders find DEVICE...           tm_holders_find() as JSON
 *     holders release FILE DEVICE...   plan for every mount and swap, write the plans to FILE, do
 * them holders restore FILE [DEVICE]    undo what FILE says; of a mount on DEVICE, if it is given
 *
 * Errors are printed as "error SLUG: DETAIL", with status 1. LIMIT=seconds in the environment (20).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "host/holders.h"
#include "host/release.h"

static struct tm_host host = { "/proc", "/sys", 20 };

static int failed(const struct tm_error *err)
{
	printf("error %s: %s\n", tm_error_slug(err->code), err->detail);
	if (err->hint[0])
		printf("hint: %s\n", err->hint);
	return EXIT_FAILURE;
}

static dev_t device_at(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode)) {
		printf("no block device: %s\n", path);
		exit(2);
	}
	return st.st_rdev;
}

static int find(char **paths, size_t n)
{
	tm_auto_free dev_t *devices = calloc(n, sizeof(*devices));
	tm_auto_free char *text = NULL;
	struct tm_error err = { 0 };
	struct tm_holders h;
	json_t *json;

	for (size_t i = 0; devices && i < n; i++)
		devices[i] = device_at(paths[i]);
	if (!devices || tm_holders_find(devices, n, host.proc, host.sys, &h, &err) < 0)
		return failed(&err);
	json = tm_holders_json(&h, devices);
	text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
	json_decref(json);
	tm_holders_done(&h);
	puts(text ? text : "out of memory");
	return text ? 0 : EXIT_FAILURE;
}

/* As a restart of the daemon would: what was planned is read back, and that is done. */
static int from_file(const char *path, bool undo, const char *device)
{
	json_t *array = json_load_file(path, 0, NULL);
	const size_t n = json_array_size(array);
	tm_auto_free struct tm_release *list = calloc(n ? n : 1, sizeof(*list));
	tm_auto_free size_t *order = calloc(n ? n : 1, sizeof(*order));
	struct tm_error err = { 0 };
	int status = 0;

	if (!list || !order)
		return EXIT_FAILURE;
	for (size_t i = 0; i < n; i++)
		if (tm_release_from_json(json_array_get(array, i), "", &list[i], &err) < 0)
			return failed(&err);
	json_decref(array);
	tm_release_order(list, n, order);
	for (size_t i = 0; i < n; i++) {
		err = (struct tm_error){ 0 };
		if (undo ? tm_release_undo(&list[i], device, &host, &err) < 0
			 : tm_release_do(&list[order[i]], &host, &err) < 0)
			status = failed(&err);
	}
	for (size_t i = 0; i < n; i++)
		tm_release_done(&list[i]);
	return status;
}

static int release(const char *path, char **paths, size_t n)
{
	tm_auto_free dev_t *devices = calloc(n, sizeof(*devices));
	struct tm_error err = { 0 };
	struct tm_holders h;
	json_t *array = json_array();
	int r;

	for (size_t i = 0; devices && i < n; i++)
		devices[i] = device_at(paths[i]);
	if (!devices || tm_holders_find(devices, n, host.proc, host.sys, &h, &err) < 0) {
		json_decref(array);
		return failed(&err);
	}
	r = 0;
	for (size_t i = 0; r == 0 && i < h.n; i++) {
		struct tm_release plan;

		if (h.list[i].kind != TM_HOLDER_MOUNT && h.list[i].kind != TM_HOLDER_SWAP)
			continue;
		r = tm_release_plan(&h.list[i], &plan, &err);
		if (r == 0 && json_array_append_new(array, tm_release_to_json(&plan)) < 0)
			r = -ENOMEM;
		if (r == 0)
			tm_release_done(&plan);
	}
	tm_holders_done(&h);
	if (r == 0 && json_dump_file(array, path, JSON_INDENT(1)) < 0)
		r = -EIO;
	json_decref(array);
	return r < 0 ? failed(&err) : from_file(path, false, NULL);
}

int main(int argc, char **argv)
{
	const char *limit = getenv("LIMIT");

	if (limit)
		host.limit_seconds = (unsigned int)strtoul(limit, NULL, 10);
	if (argc > 2 && !strcmp(argv[1], "find"))
		return find(argv + 2, (size_t)argc - 2);
	if (argc > 3 && !strcmp(argv[1], "release"))
		return release(argv[2], argv + 3, (size_t)argc - 3);
	if (argc > 2 && !strcmp(argv[1], "restore"))
		return from_file(argv[2], true, argv[3]);
	puts("usage: see the head of tests/tools/holders.c");
	return 2;
}
