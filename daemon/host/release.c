// SPDX-License-Identifier: GPL-2.0-or-later
#include "host/release.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "logic/json.h"

static int out_of_memory(struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
}

void tm_release_done(struct tm_release *r)
{
	tm_mount_done(&r->mount);
	tm_unit_done(&r->unit);
	free(r->swap.path);
	*r = (struct tm_release){ 0 };
}

static int plan_mount(const struct tm_holder *h, struct tm_release *r, struct tm_error *err)
{
	int found = 0;

	if (tm_mount_copy(&h->mount, &r->mount) < 0)
		return out_of_memory(err);
	/* Systemd's own table is of the first namespace, in which the daemon is. */
	if (h->mount.here)
		found = tm_unit_find(h->mount.line.point, ".mount", &r->unit);
	if (found < 0)
		return out_of_memory(err);
	return found ? 0 : tm_unmount_check(&r->mount, err);
}

static int plan_swap(const struct tm_holder *h, struct tm_release *r, struct tm_error *err)
{
	r->swap = h->swap;
	r->swap.path = strdup(h->swap.path);
	if (!r->swap.path || tm_unit_find(h->swap.path, ".swap", &r->unit) < 0)
		return out_of_memory(err);
	return 0;
}

int tm_release_plan(const struct tm_holder *h, struct tm_release *ret, struct tm_error *err)
{
	struct tm_release plan = { .kind = h->kind };
	int r;

	if (h->kind == TM_HOLDER_MOUNT)
		r = plan_mount(h, &plan, err);
	else if (h->kind == TM_HOLDER_SWAP)
		r = plan_swap(h, &plan, err);
	else
		r = tm_error_set(err, TM_ERR_UNSUPPORTED, EOPNOTSUPP, "cannot make it let go: %s",
				 h->text);
	if (r < 0)
		tm_release_done(&plan);
	else
		*ret = plan;
	return r;
}

void tm_release_order(const struct tm_release *list, size_t n, size_t *ret_order)
{
	enum { SWAP, HERE, ELSEWHERE };
	size_t at = 0;

	for (int part = SWAP; part <= ELSEWHERE; part++) {
		for (size_t i = n; i--;) {
			const int its = list[i].kind == TM_HOLDER_SWAP ? SWAP
					: list[i].mount.here           ? HERE
								       : ELSEWHERE;

			if (its == part)
				ret_order[at++] = i;
		}
	}
}

int tm_release_do(const struct tm_release *r, const struct tm_host *host, struct tm_error *err)
{
	if (r->unit.name[0]) {
		struct tm_error said = { 0 };
		int stopped = tm_unit_stop(r->unit.name, host->limit_seconds, &said);

		/* What systemd does not tell is who is in the way: its umount failed for that. */
		if (stopped == 0 || said.code != TM_ERR_BUSY || r->kind != TM_HOLDER_MOUNT) {
			if (stopped < 0 && err && err->code == TM_OK)
				*err = said;
			return stopped;
		}
	}
	return r->kind == TM_HOLDER_MOUNT ? tm_unmount(&r->mount, host, err)
					  : tm_swap_off(&r->swap, host, err);
}

int tm_release_undo(const struct tm_release *r, const char *device, const struct tm_host *host,
		    struct tm_error *err)
{
	int result;

	if (!r->unit.name[0])
		return r->kind == TM_HOLDER_MOUNT ? tm_mount_again(&r->mount, device, host, err)
						  : tm_swap_on(&r->swap, device, host, err);
	result = tm_unit_start(r->unit.name, host->limit_seconds, err);
	if (result < 0)
		return result;
	/* The first error is told, as everywhere; each is tried. */
	for (size_t i = 0; i < r->unit.n_more; i++) {
		int started = tm_unit_start(r->unit.more[i], host->limit_seconds, err);

		if (result == 0)
			result = started;
	}
	return result;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static void decrefp(json_t **json)
{
	json_decref(*json);
}
#define auto_json tm_cleanup(decrefp)

static json_t *swap_to_json(const struct tm_swap *s)
{
	const size_t size = 4 * strlen(s->path) + 1;
	tm_auto_free char *path = malloc(size);

	if (!path || tm_mount_escape(s->path, path, size) < 0)
		return NULL;
	return json_pack("{s:s, s:b, s:i}", "path", path, "file", (int)s->is_file, "priority",
			 s->priority);
}

json_t *tm_release_to_json(const struct tm_release *r)
{
	auto_json json_t *more = json_array();

	for (size_t i = 0; more && i < r->unit.n_more; i++)
		if (json_array_append_new(more, json_string(r->unit.more[i])) < 0)
			return NULL;
	if (!more)
		return NULL;
	return json_pack("{s:o, s:s, s:O}", r->kind == TM_HOLDER_MOUNT ? "mount" : "swap",
			 r->kind == TM_HOLDER_MOUNT ? tm_mount_to_json(&r->mount)
						    : swap_to_json(&r->swap),
			 "unit", r->unit.name, "units", more);
}

static int swap_from_json(json_t *object, struct tm_swap *ret, struct tm_error *err)
{
	struct tm_json_reader r;
	struct tm_swap s = { 0 };
	const char *path = NULL;
	json_t *priority = json_object_get(object, "priority");

	tm_json_reader_init(&r, object, "/swap", err);
	(void)tm_json_require(&r, "path", tm_json_get_string(&r, "path", &path));
	(void)tm_json_require(&r, "file", tm_json_get_bool(&r, "file", &s.is_file));
	/* The only number that may be negative. */
	if (!json_is_integer(priority) || json_integer_value(priority) < -INT_MAX ||
	    json_integer_value(priority) > INT_MAX)
		return tm_error_field(err, TM_ERR_WRONG_TYPE, "/swap/priority",
				      "/swap/priority has to be the priority of swap space");
	s.priority = (int)json_integer_value(priority);
	r.seen[r.n_seen++] = "priority";
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	if (path[0] != '/')
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/swap/path",
				      "/swap/path has to be a path");
	s.path = strdup(path);
	if (!s.path)
		return out_of_memory(err);
	tm_mount_unescape(s.path);
	*ret = s;
	return 0;
}

static int unit_from_json(const char *name, json_t *more, struct tm_unit *ret, struct tm_error *err)
{
	const size_t n = json_array_size(more);

	if (strlen(name) >= TM_UNIT_NAME_SIZE || n > TM_UNIT_MORE_MAX)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/unit",
				      "/unit and /units have to be names of units");
	memcpy(ret->name, name, strlen(name) + 1);
	if (!n)
		return 0;
	ret->more = calloc(n, sizeof(*ret->more));
	if (!ret->more)
		return out_of_memory(err);
	for (size_t i = 0; i < n; i++) {
		const char *one = json_string_value(json_array_get(more, i));

		if (!one || strlen(one) >= TM_UNIT_NAME_SIZE)
			return tm_error_field(err, TM_ERR_WRONG_TYPE, "/units",
					      "/units has to hold names of units");
		memcpy(ret->more[ret->n_more++], one, strlen(one) + 1);
	}
	return 0;
}

int tm_release_from_json(json_t *object, const char *prefix, struct tm_release *ret,
			 struct tm_error *err)
{
	struct tm_release release = { 0 };
	json_t *mount = NULL, *swap = NULL, *more = NULL;
	const char *unit = "";
	struct tm_json_reader r;
	int result;

	tm_json_reader_init(&r, object, prefix, err);
	(void)tm_json_get_object(&r, "mount", &mount);
	(void)tm_json_get_object(&r, "swap", &swap);
	(void)tm_json_require(&r, "unit", tm_json_get_string(&r, "unit", &unit));
	(void)tm_json_require(&r, "units", tm_json_get_array(&r, "units", &more));
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	if (!mount == !swap)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, prefix,
				      "it has to be one of a mount and swap");
	release.kind = mount ? TM_HOLDER_MOUNT : TM_HOLDER_SWAP;
	result = mount ? tm_mount_from_json(mount, "/mount", &release.mount, err)
		       : swap_from_json(swap, &release.swap, err);
	if (result == 0)
		result = unit_from_json(unit, more, &release.unit, err);
	if (result < 0)
		tm_release_done(&release);
	else
		*ret = release;
	return result;
}
