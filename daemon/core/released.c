/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mounts and swap that were taken off, and are owed. See released.h. */

#include "core/released.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "core/internal.h"
#include "logic/json.h"

#define FILE_LIMIT ((size_t)16 << 20)

static const struct tm_host host = { "/proc", "/sys", TM_RELEASE_LIMIT_SECONDS };

static void decrefp(json_t **json)
{
	json_decref(*json);
}
#define auto_json tm_cleanup(decrefp)

static int out_of_memory(struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "Out of memory.");
}

static void one_done(struct tm_released *one)
{
	free(one->text);
	tm_release_done(&one->release);
}

void tm_released_done(struct tm_released_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		one_done(&l->list[i]);
	free(l->list);
	*l = (struct tm_released_list){ 0 };
}

static int reserve(struct tm_released_list *l, size_t more)
{
	struct tm_released *list = calloc(l->n + more + 1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	if (l->n)
		memcpy(list, l->list, l->n * sizeof(*list));
	free(l->list);
	l->list = list;
	return 0;
}

/* ---- planning and taking -------------------------------------------------------------------- */

static bool can_let_go(const struct tm_holder *h)
{
	return h->kind == TM_HOLDER_MOUNT || h->kind == TM_HOLDER_SWAP;
}

/* Processes and devices stay where they are: all of them are named. */
static int refuse_stayers(const struct tm_holding *holding, const char *pool, struct tm_error *err)
{
	char text[512] = "";
	size_t at = 0, n = 0;

	for (size_t i = 0; i < holding->holders.n; i++) {
		const struct tm_holder *h = &holding->holders.list[i];
		int len;

		if (can_let_go(h))
			continue;
		n++;
		len = snprintf(text + at, sizeof(text) - at, "%s%s is %s", at ? ", " : "",
			       holding->names[h->device], h->text);
		if (len < 0 || at + (size_t)len >= sizeof(text))
			text[at] = '\0'; /* as many as fit */
		else
			at += (size_t)len;
	}
	if (!n && holding->holders.cut)
		return tm_error_set(err, TM_ERR_BUSY, EBUSY,
				    "The volumes of pool %s are used by more than can be released.",
				    pool);
	if (!n)
		return 0;
	(void)tm_error_set(err, TM_ERR_BUSY, EBUSY,
			   "Volumes of pool %s are in use by what cannot be released: %s.", pool,
			   text);
	tm_error_hint(err, "End what uses them. Nothing was unmounted.");
	return -EBUSY;
}

static int plan_one(const struct tm_holding *holding, const struct tm_holder *h, const char *pool,
		    const struct tm_volume_record *volumes, size_t n_volumes,
		    struct tm_released *ret, struct tm_error *err)
{
	const char *name = holding->names[h->device];
	struct tm_error why = { 0 };
	int r;

	*ret = (struct tm_released){ 0 };
	for (size_t i = 0; i < n_volumes; i++)
		if (strcmp(volumes[i].name, name) == 0)
			ret->volume = volumes[i].id;
	r = tm_release_plan(h, &ret->release, &why);
	if (r == -ENOMEM)
		return out_of_memory(err);
	if (r < 0) {
		(void)tm_error_set(err, TM_ERR_BUSY, EBUSY,
				   "Volume %s/%s is %.200s, which cannot be released: %.200s", pool,
				   name, h->text, why.detail);
		tm_error_hint(err, "Nothing was unmounted. %s", why.hint);
		return -EBUSY;
	}
	if (asprintf(&ret->text, "%s is %s", name, h->text) < 0) {
		ret->text = NULL;
		one_done(ret);
		return out_of_memory(err);
	}
	return 0;
}

int tm_released_plan(const struct tm_holding *holding, const char *pool,
		     const struct tm_volume_record *volumes, size_t n_volumes,
		     struct tm_released_list *l, struct tm_error *err)
{
	int r = refuse_stayers(holding, pool, err);

	if (r < 0)
		return r;
	if (reserve(l, holding->holders.n) < 0)
		return out_of_memory(err);
	for (size_t i = 0; i < holding->holders.n; i++) {
		r = plan_one(holding, &holding->holders.list[i], pool, volumes, n_volumes,
			     &l->list[l->n], err);
		if (r < 0)
			return r;
		l->n++;
	}
	return 0;
}

int tm_released_take(const struct tm_released_list *l, const char *pool, struct tm_error *err)
{
	tm_auto_free struct tm_release *list = calloc(l->n + 1, sizeof(*list));
	tm_auto_free size_t *order = calloc(l->n + 1, sizeof(*order));

	if (!list || !order)
		return out_of_memory(err);
	for (size_t i = 0; i < l->n; i++)
		list[i] = l->list[i].release; /* borrowed */
	tm_release_order(list, l->n, order);
	for (size_t i = 0; i < l->n; i++) {
		struct tm_error why = { 0 };

		if (tm_release_do(&list[order[i]], &host, &why) >= 0)
			continue;
		(void)tm_error_set(err, TM_ERR_BUSY, EBUSY,
				   "Volumes of pool %s are in use, as %.150s: %.250s", pool,
				   l->list[order[i]].text, why.detail);
		tm_error_hint(err, "%s", why.hint);
		return -EBUSY;
	}
	return 0;
}

/* ---- giving back ---------------------------------------------------------------------------- */

static const char *fate_text(enum tm_fate fate)
{
	switch (fate) {
	case TM_FATE_INTACT:
		break;
	case TM_FATE_LOST_BLOCKS:
		return "without some of its blocks";
	case TM_FATE_LOST:
		return "lost";
	case TM_FATE_CHANGED:
		return "changed";
	case TM_FATE_UNKNOWN:
		return "with unknown losses";
	}
	return NULL;
}

void tm_released_judge(struct tm_released_list *l, const struct tm_volume_record *volumes,
		       size_t n_volumes, const struct tm_repair_verdict *verdict)
{
	for (size_t i = 0; i < l->n; i++) {
		struct tm_released *one = &l->list[i];

		one->leave[0] = '\0';
		for (size_t k = 0; k < n_volumes && k < verdict->n_lines; k++) {
			const char *text = fate_text(verdict->lines[k].fate);

			if (text && tm_uuid_equal(&volumes[k].id, &one->volume))
				(void)snprintf(one->leave, sizeof(one->leave),
					       "the repair left volume %s %s; check what is on it, "
					       "then use it again",
					       volumes[k].name, text);
		}
	}
}

void tm_released_leave_nothing(struct tm_released_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		l->list[i].leave[0] = '\0';
}

/* Is @one the same mount as @other (found by another device of its file system), or in it? */
static bool depends(const struct tm_released *one, const struct tm_released *other)
{
	const struct tm_mount *a = &one->release.mount, *b = &other->release.mount;

	return one->release.kind == TM_HOLDER_MOUNT && other->release.kind == TM_HOLDER_MOUNT &&
	       a->ns == b->ns && (a->line.id == b->line.id || a->line.parent == b->line.id);
}

static const char *name_of(const struct tm_released *one, const struct tm_volume_record *volumes,
			   size_t n_volumes)
{
	for (size_t i = 0; i < n_volumes; i++)
		if (tm_uuid_equal(&volumes[i].id, &one->volume))
			return volumes[i].name;
	return NULL;
}

/* Does the name it had lead there still? Then it is mounted by that, as whoever mounted it did. */
static bool leads_there(const struct tm_release *r, const char *device)
{
	const char *was = r->kind == TM_HOLDER_MOUNT ? r->mount.line.source : r->swap.path;
	struct stat a, b;

	return strncmp(was, "/dev/", 5) == 0 && stat(was, &a) == 0 && stat(device, &b) == 0 &&
	       S_ISBLK(a.st_mode) && S_ISBLK(b.st_mode) && a.st_rdev == b.st_rdev;
}

/* 0 when it is where it was; else *why. @before: the ones that were not given back so far. */
static int give_one(const struct tm_released *one, const struct tm_released *before,
		    size_t n_before, const char *pool, const char *volume, bool heed,
		    struct tm_error *why)
{
	char device[TM_PATH_SIZE];

	if (heed && one->leave[0])
		return tm_error_set(why, TM_ERR_DAMAGED, EUCLEAN, "%s", one->leave);
	for (size_t i = 0; i < n_before; i++)
		if (depends(one, &before[i]))
			return tm_error_set(why, TM_ERR_BUSY, EBUSY,
					    "it is the same or lies in another that is not back");
	if (!volume)
		return tm_error_set(why, TM_ERR_NOT_FOUND, ENOENT, "its volume is no more");
	tm_device_path(device, pool, volume);
	return tm_release_undo(&one->release, leads_there(&one->release, device) ? NULL : device,
			       &host, why);
}

size_t tm_released_give_back(struct tm_released_list *l, const char *pool,
			     const struct tm_volume_record *volumes, size_t n_volumes, bool heed,
			     json_t **ret_back, json_t **ret_off, struct tm_error *err)
{
	json_t *back = json_array(), *off = json_array();
	size_t kept = 0, failed = 0;

	for (size_t i = 0; i < l->n; i++) {
		struct tm_released one = l->list[i];
		const char *volume = name_of(&one, volumes, n_volumes);
		struct tm_error why = { 0 };

		/* What is not told of for want of memory is done all the same. */
		if (give_one(&one, l->list, kept, pool, volume, heed, &why) >= 0) {
			(void)json_array_append_new(back, json_string(one.text));
			one_done(&one);
			continue;
		}
		(void)json_array_append_new(off, json_pack("{s:s?, s:s, s:s}", "volume", volume,
							   "text", one.text, "reason", why.detail));
		if (!heed || !one.leave[0]) {
			failed++;
			if (err && !err->code)
				*err = why;
		}
		l->list[kept++] = one;
	}
	l->n = kept;
	*ret_back = back;
	*ret_off = off;
	return failed;
}

/* ---- the file ------------------------------------------------------------------------------- */

json_t *tm_released_to_json(const struct tm_released_list *l)
{
	auto_json json_t *list = json_array();

	for (size_t i = 0; list && i < l->n; i++) {
		const struct tm_released *one = &l->list[i];

		if (json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o}", "volume",
							  one->volume.text, "text", one->text,
							  "leave", one->leave, "release",
							  tm_release_to_json(&one->release))) < 0)
			return NULL;
	}
	return list ? json_pack("{s:b, s:O}", "repaired", (int)l->repaired, "list", list) : NULL;
}

static int one_from_json(json_t *object, struct tm_released *one, struct tm_error *err)
{
	const char *volume = "", *text = "", *leave = "";
	json_t *release = NULL;
	struct tm_json_reader r;

	tm_json_reader_init(&r, object, "", err);
	(void)tm_json_require(&r, "volume", tm_json_get_string(&r, "volume", &volume));
	(void)tm_json_require(&r, "text", tm_json_get_string(&r, "text", &text));
	(void)tm_json_require(&r, "leave", tm_json_get_string(&r, "leave", &leave));
	(void)tm_json_require(&r, "release", tm_json_get_object(&r, "release", &release));
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	if (tm_uuid_parse(volume, &one->volume) < 0)
		return tm_error_field(err, TM_ERR_OUT_OF_RANGE, "/volume",
				      "/volume has to be an id.");
	(void)snprintf(one->leave, sizeof(one->leave), "%s", leave);
	one->text = strdup(text);
	if (!one->text)
		return out_of_memory(err);
	return tm_release_from_json(release, "/release", &one->release, err);
}

int tm_released_from_json(json_t *object, struct tm_released_list *ret, struct tm_error *err)
{
	tm_cleanup(tm_released_done) struct tm_released_list l = { 0 };
	json_t *list = NULL;
	struct tm_json_reader r;
	size_t n;

	tm_json_reader_init(&r, object, "", err);
	(void)tm_json_require(&r, "repaired", tm_json_get_bool(&r, "repaired", &l.repaired));
	(void)tm_json_require(&r, "list", tm_json_get_array(&r, "list", &list));
	if (tm_json_reader_finish(&r) < 0)
		return r.failed;
	n = json_array_size(list);
	if (reserve(&l, n) < 0)
		return out_of_memory(err);
	for (size_t i = 0; i < n; i++) {
		int result = one_from_json(json_array_get(list, i), &l.list[l.n++], err);

		if (result < 0)
			return result;
	}
	*ret = l;
	l = (struct tm_released_list){ 0 };
	return 0;
}

void tm_released_path(char buf[TM_PATH_SIZE], const struct tm_uuid *pool)
{
	(void)snprintf(buf, TM_PATH_SIZE, TM_RUN_DIRECTORY "/released/%s", pool->text);
}

int tm_released_load(const char *path, struct tm_released_list *ret, struct tm_error *err)
{
	auto_json json_t *root = NULL;
	tm_auto_free char *text = NULL;
	struct tm_error why = { 0 };
	size_t len = 0;
	int r = tm_read_file_itself(path, FILE_LIMIT, &text, &len);

	*ret = (struct tm_released_list){ 0 };
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r, "Cannot read %s: %s.", path, strerror(-r));
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (root && tm_released_from_json(root, ret, &why) == 0)
		return 0;
	return tm_error_set(err, TM_ERR_IO, EIO, "%s does not say what was released: %s", path,
			    why.code ? why.detail : "it is not JSON.");
}

int tm_released_save(const char *path, const struct tm_released_list *l, struct tm_error *err)
{
	auto_json json_t *root = NULL;
	tm_auto_free char *text = NULL, *directory = NULL;
	char *slash;
	int r;

	if (!l->n) {
		if (unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR)
			return 0;
		return tm_error_set(err, TM_ERR_IO, errno, "Cannot delete %s: %s.", path,
				    strerror(errno));
	}
	root = tm_released_to_json(l);
	text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
	directory = strdup(path);
	slash = directory ? strrchr(directory, '/') : NULL;
	if (!text || !slash)
		return out_of_memory(err);
	*slash = '\0';
	r = mkdir(directory, 0700) < 0 && errno != EEXIST ? -errno : 0;
	if (r == 0)
		r = tm_write_file_atomic(path, text, strlen(text), 0600);
	if (r < 0)
		return tm_error_set(err, TM_ERR_IO, -r, "Cannot write %s: %s.", path, strerror(-r));
	return 0;
}
