// SPDX-License-Identifier: GPL-2.0-or-later
#include "logic/descriptor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "logic/json.h"
#include "logic/policy.h"
#include "logic/superblock.h"

#define FORMAT_VERSION 1
#define SIZE_MOST      ((uint64_t)1 << 62)
#define CHECKSUM_SIZE  16 /* "crc32c:" and 8 digits */

static void decrefp(json_t **json)
{
	json_decref(*json);
}
#define auto_json tm_cleanup(decrefp)

void tm_descriptor_done(struct tm_descriptor *d)
{
	free(d->volumes);
	*d = (struct tm_descriptor){ .volumes = NULL };
}

/* An id, and what the cycle check needs to know of the volume that has it. */
struct volume_ref {
	const struct tm_volume_record *volume;
	size_t walk; /* number of the walk that came by; 0: none yet */
};

static int compare_refs(const void *a, const void *b)
{
	const struct volume_ref *x = a, *y = b;

	return strcmp(x->volume->id.text, y->volume->id.text);
}

/* Volumes sorted by id; the caller's to free. NULL when out of memory. */
static struct volume_ref *sort_refs(const struct tm_volume_record *volumes, size_t n)
{
	struct volume_ref *refs = calloc(n ? n : 1, sizeof(*refs));
	size_t i;

	if (!refs)
		return NULL;
	for (i = 0; i < n; i++)
		refs[i].volume = &volumes[i];
	if (n)
		qsort(refs, n, sizeof(*refs), compare_refs);
	return refs;
}

static struct volume_ref *find_ref(struct volume_ref *refs, size_t n, const struct tm_uuid *id)
{
	struct tm_volume_record wanted = { .id = *id };
	struct volume_ref key = { .volume = &wanted };

	return n ? bsearch(&key, refs, n, sizeof(*refs), compare_refs) : NULL;
}

/* The checksum of an object that has none in it. 0 or -ENOMEM. */
static int checksum(const json_t *object, char buf[CHECKSUM_SIZE])
{
	tm_auto_free char *text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);

	if (!text)
		return -ENOMEM;
	(void)snprintf(buf, CHECKSUM_SIZE, "crc32c:%08" PRIx32,
		       ~tm_crc32c(UINT32_MAX, text, strlen(text)));
	return 0;
}

static json_t *pool_to_json(const struct tm_pool_record *p)
{
	char created[32];

	(void)tm_time_format(p->created_usec, created, sizeof(created));
	return json_pack(
		"{s:s, s:s, s:s, s:b, s:I, s:b, s:b, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I,"
		" s:I, s:b, s:o, s:s}",
		"id", p->id.text, "name", p->name, "backing", "file", "sparse", (int)p->sparse,
		"block_size", (json_int_t)p->block_bytes, "zeroing", (int)p->zeroing, "discard",
		(int)p->discard, "discard_passdown", (int)p->discard_passdown, "when_full",
		tm_when_full_name(p->when_full), "data_size", (json_int_t)p->data_bytes,
		"data_reserve", (json_int_t)p->data_reserve_bytes, "metadata_size",
		(json_int_t)p->metadata_bytes, "metadata_reserve",
		(json_int_t)p->metadata_reserve_bytes, "low_water", (json_int_t)p->low_water_bytes,
		"transaction_id", (json_int_t)p->transaction_id, "next_dev_id",
		(json_int_t)p->next_dev_id, "active", (int)p->active, "policy",
		tm_policy_to_json(&p->policy), "created", created);
}

static json_t *volume_to_json(const struct tm_volume_record *v, const char *origin)
{
	char created[32];

	(void)tm_time_format(v->created_usec, created, sizeof(created));
	return json_pack("{s:s, s:s, s:I, s:I, s:s?, s:b, s:b, s:s}", "id", v->id.text, "name",
			 v->name, "dev_id", (json_int_t)v->dev_id, "size",
			 (json_int_t)v->size_bytes, "origin", origin, "active", (int)v->active,
			 "read_only", (int)v->read_only, "created", created);
}

/* New reference, or NULL when out of memory. */
static json_t *volumes_to_json(const struct tm_volume_record *volumes, size_t n)
{
	tm_auto_free struct volume_ref *refs = sort_refs(volumes, n);
	auto_json json_t *array = json_array();
	size_t i;

	if (!refs || !array)
		return NULL;
	for (i = 0; i < n; i++) {
		const struct tm_volume_record *v = &volumes[i];
		/* Origins may have been deleted since. */
		const char *origin = find_ref(refs, n, &v->origin) ? v->origin.text : NULL;

		if (json_array_append_new(array, volume_to_json(v, origin)) < 0)
			return NULL;
	}
	return TM_TAKE(array);
}

int tm_descriptor_format(const struct tm_descriptor *d, char **ret_text, size_t *ret_len)
{
	auto_json json_t *root = NULL;
	tm_auto_free char *text = NULL;
	char sum[CHECKSUM_SIZE], *with_newline;
	size_t len;
	int r;

	root = json_pack("{s:i, s:o, s:o}", "thinmgr", FORMAT_VERSION, "pool",
			 pool_to_json(&d->pool), "volumes",
			 volumes_to_json(d->volumes, d->n_volumes));
	if (!root)
		return -ENOMEM;
	r = checksum(root, sum);
	if (r < 0)
		return r;
	if (json_object_set_new(root, "checksum", json_string(sum)) < 0)
		return -ENOMEM;
	text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS);
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	if (len + 1 > TM_DESCRIPTOR_LIMIT)
		return -EFBIG;
	with_newline = realloc(text, len + 2);
	if (!with_newline)
		return -ENOMEM;
	text = with_newline;
	memcpy(text + len, "\n", 2);
	*ret_len = len + 1;
	*ret_text = TM_TAKE(text);
	return 0;
}

/* A field whose form is right but whose content is not. */
static void bad_value(struct tm_json_reader *r, const char *name, const char *why)
{
	char pointer[TM_ERROR_FIELD_SIZE];

	if (r->failed)
		return;
	(void)snprintf(pointer, sizeof(pointer), "%s/%s", r->prefix, name);
	r->failed = tm_error_field(r->err, TM_ERR_BAD_DESCRIPTOR, pointer, "%s %s", pointer, why);
}

/* These read a field that has to be there; a failure stays in the reader. */
static void need_bool(struct tm_json_reader *r, const char *name, bool *ret)
{
	(void)tm_json_require(r, name, tm_json_get_bool(r, name, ret));
}

static void need_uint(struct tm_json_reader *r, const char *name, uint64_t min, uint64_t max,
		      uint64_t *ret)
{
	(void)tm_json_require(r, name, tm_json_get_uint(r, name, min, max, ret));
}

/* A size in bytes, a multiple of @unit. */
static void need_size(struct tm_json_reader *r, const char *name, uint64_t min, uint64_t max,
		      uint64_t unit, uint64_t *ret)
{
	uint64_t value = 0;

	need_uint(r, name, min, max, &value);
	if (!r->failed && value % unit)
		bad_value(r, name, "is not a whole number of blocks");
	*ret = value;
}

static const char *need_string(struct tm_json_reader *r, const char *name)
{
	const char *text = "";

	(void)tm_json_require(r, name, tm_json_get_string(r, name, &text));
	return r->failed ? "" : text;
}

static void need_uuid(struct tm_json_reader *r, const char *name, struct tm_uuid *ret)
{
	const char *text = need_string(r, name);

	if (!r->failed && tm_uuid_parse(text, ret) < 0)
		bad_value(r, name, "is not a UUID");
}

static void need_name(struct tm_json_reader *r, char ret[TM_NAME_MAX + 1])
{
	const char *text = need_string(r, "name");

	if (r->failed)
		return;
	if (tm_name_valid(text))
		(void)snprintf(ret, TM_NAME_MAX + 1, "%s", text);
	else
		bad_value(r, "name", "is not a valid name");
}

static void need_time(struct tm_json_reader *r, const char *name, uint64_t *ret)
{
	const char *text = need_string(r, name);

	if (!r->failed && tm_time_parse(text, ret) < 0)
		bad_value(r, name, "is not a time as RFC 3339 writes it");
}

static int parse_policy(json_t *object, struct tm_policy *ret, struct tm_error *err)
{
	static const char *const later[] = { "repair",     "keep_copies", "keep_days",
					     "copy_hours", "check_days",  "check_volumes" };
	auto_json json_t *whole = NULL;
	int r;

	tm_policy_default(ret);
	r = tm_policy_from_json(object, "/pool/policy", ret, err);
	if (r < 0)
		return r;
	/* Absent fields keep a default there; here all have to be said, but for what descriptors
	 * did not have in the beginning. */
	whole = tm_policy_to_json(ret);
	if (!whole)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	for (size_t i = 0; i < TM_ARRAY_SIZE(later); i++)
		if (!json_object_get(object, later[i]))
			(void)json_object_del(whole, later[i]);
	if (!json_equal(whole, object))
		return tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, "/pool/policy",
				      "/pool/policy lacks a field");
	return 0;
}

static int parse_pool(json_t *object, struct tm_pool_record *ret, struct tm_error *err)
{
	struct tm_pool_record p = { .backing = TM_BACKING_FILE };
	uint64_t block_bytes = 0, next_dev_id = 0;
	struct tm_json_reader r;
	const char *text;
	json_t *policy = NULL;
	int failed;

	tm_json_reader_init(&r, object, "/pool", err);
	need_uuid(&r, "id", &p.id);
	need_name(&r, p.name);
	text = need_string(&r, "backing");
	if (!r.failed && strcmp(text, "file"))
		bad_value(&r, "backing", "is of a kind that is not known here");
	need_bool(&r, "sparse", &p.sparse);
	need_uint(&r, "block_size", 0, TM_BLOCK_SIZE_MAX, &block_bytes);
	if (!r.failed)
		r.failed = tm_block_size_check(block_bytes, "/pool/block_size", err);
	need_bool(&r, "zeroing", &p.zeroing);
	need_bool(&r, "discard", &p.discard);
	need_bool(&r, "discard_passdown", &p.discard_passdown);
	text = need_string(&r, "when_full");
	if (!r.failed && tm_when_full_parse(text, &p.when_full) < 0)
		bad_value(&r, "when_full", "is neither \"queue\" nor \"error\"");
	if (r.failed)
		return r.failed;
	p.block_bytes = (uint32_t)block_bytes;
	need_size(&r, "data_size", block_bytes, SIZE_MOST, block_bytes, &p.data_bytes);
	need_size(&r, "data_reserve", 0, SIZE_MOST, TM_SECTOR, &p.data_reserve_bytes);
	need_size(&r, "metadata_size", TM_METADATA_BLOCK, SIZE_MOST, TM_METADATA_BLOCK,
		  &p.metadata_bytes);
	need_size(&r, "metadata_reserve", 0, SIZE_MOST, TM_SECTOR, &p.metadata_reserve_bytes);
	need_uint(&r, "low_water", 0, SIZE_MOST, &p.low_water_bytes);
	need_uint(&r, "transaction_id", 0, INT64_MAX, &p.transaction_id);
	need_uint(&r, "next_dev_id", 0, TM_DEV_ID_MAX + 1, &next_dev_id);
	p.next_dev_id = (uint32_t)next_dev_id;
	need_bool(&r, "active", &p.active);
	need_time(&r, "created", &p.created_usec);
	(void)tm_json_require(&r, "policy", tm_json_get_object(&r, "policy", &policy));
	failed = tm_json_reader_finish(&r);
	if (failed < 0)
		return failed;
	failed = parse_policy(policy, &p.policy, err);
	if (failed == 0)
		*ret = p;
	return failed;
}

static int parse_volume(json_t *object, size_t index, struct tm_volume_record *ret,
			struct tm_error *err)
{
	struct tm_json_reader r;
	uint64_t dev_id = 0;
	char prefix[48];
	const char *origin = NULL;

	(void)snprintf(prefix, sizeof(prefix), "/volumes/%zu", index);
	tm_json_reader_init(&r, object, prefix, err);
	need_uuid(&r, "id", &ret->id);
	need_name(&r, ret->name);
	need_uint(&r, "dev_id", 0, TM_DEV_ID_MAX, &dev_id);
	ret->dev_id = (uint32_t)dev_id;
	need_size(&r, "size", TM_SECTOR, SIZE_MOST, TM_SECTOR, &ret->size_bytes);
	(void)tm_json_require(&r, "origin", tm_json_get_string_or_null(&r, "origin", &origin));
	if (!r.failed && origin && tm_uuid_parse(origin, &ret->origin) < 0)
		bad_value(&r, "origin", "is not a UUID");
	need_bool(&r, "active", &ret->active);
	need_bool(&r, "read_only", &ret->read_only);
	need_time(&r, "created", &ret->created_usec);
	return tm_json_reader_finish(&r);
}

static int compare_names(const void *a, const void *b)
{
	const struct tm_volume_record *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static int compare_dev_ids(const void *a, const void *b)
{
	const struct tm_volume_record *const *x = a, *const *y = b;

	/* 24 bits each: the difference fits. */
	return (int)(*x)->dev_id - (int)(*y)->dev_id;
}

/* Sorts @sorted and refuses two neighbours that are equal. */
static int check_distinct(const struct tm_volume_record **sorted, size_t n,
			  int (*compare)(const void *, const void *), const char *what,
			  struct tm_error *err)
{
	size_t i;

	qsort(sorted, n, sizeof(*sorted), compare);
	for (i = 1; i < n; i++)
		if (!compare(&sorted[i - 1], &sorted[i]))
			return tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, "/volumes",
					      "the volumes \"%s\" and \"%s\" have the same %s",
					      sorted[i - 1]->name, sorted[i]->name, what);
	return 0;
}

/* Every origin is there, and no volume descends from itself. */
static int check_origins(struct volume_ref *refs, size_t n, struct tm_error *err)
{
	struct volume_ref *at;
	size_t i;

	for (i = 0; i < n; i++) {
		/* Each walk ends where an earlier one came by: all of them together visit n. */
		for (at = &refs[i]; !at->walk && at->volume->origin.text[0];) {
			const struct tm_volume_record *v = at->volume;

			at->walk = i + 1;
			at = find_ref(refs, n, &v->origin);
			if (!at)
				return tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, "/volumes",
						      "the origin of the volume \"%s\" is not among"
						      " the volumes",
						      v->name);
			if (at->walk == i + 1)
				return tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, "/volumes",
						      "the volume \"%s\" descends from itself",
						      at->volume->name);
		}
	}
	return 0;
}

static int check_volumes(const struct tm_volume_record *volumes, size_t n, struct tm_error *err)
{
	tm_auto_free struct volume_ref *refs = sort_refs(volumes, n);
	tm_auto_free const struct tm_volume_record **sorted = calloc(n ? n : 1, sizeof(*sorted));
	size_t i;
	int r;

	if (!refs || !sorted)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	for (i = 0; i < n; i++) {
		sorted[i] = refs[i].volume;
		if (i && tm_uuid_equal(&sorted[i - 1]->id, &sorted[i]->id))
			return tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, "/volumes",
					      "the volumes \"%s\" and \"%s\" have the same id",
					      sorted[i - 1]->name, sorted[i]->name);
	}
	r = check_distinct(sorted, n, compare_names, "name", err);
	if (r == 0)
		r = check_distinct(sorted, n, compare_dev_ids, "device id", err);
	return r < 0 ? r : check_origins(refs, n, err);
}

static int parse_volumes(json_t *array, struct tm_descriptor *d, struct tm_error *err)
{
	size_t n = json_array_size(array), i;
	int r;

	d->volumes = calloc(n ? n : 1, sizeof(*d->volumes));
	if (!d->volumes)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	d->n_volumes = n;
	for (i = 0; i < n; i++) {
		r = parse_volume(json_array_get(array, i), i, &d->volumes[i], err);
		if (r < 0)
			return r;
	}
	return check_volumes(d->volumes, n, err);
}

/* Takes "checksum" out of @root and compares it with what is left. */
static int check_checksum(json_t *root, struct tm_error *err)
{
	char found[CHECKSUM_SIZE] = "", computed[CHECKSUM_SIZE];
	const char *text = json_string_value(json_object_get(root, "checksum"));

	if (!text)
		return tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, "/checksum",
				      "the checksum is missing");
	if (strlen(text) == CHECKSUM_SIZE - 1)
		memcpy(found, text, CHECKSUM_SIZE);
	if (json_object_del(root, "checksum") < 0 || checksum(root, computed) < 0)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
	if (strcmp(found, computed))
		return tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, "/checksum",
				      "the checksum does not fit the content: it was changed or"
				      " damaged after thinmgr wrote it");
	return 0;
}

/* The file may be any, and who asked for it need not be allowed to read it. */
static void quote_nothing(struct tm_error *err)
{
	char *near = err ? strstr(err->detail, " near ") : NULL;

	if (near)
		*near = '\0';
}

static int parse(const char *text, size_t len, struct tm_descriptor *d, struct tm_error *err)
{
	auto_json json_t *root = NULL;
	json_t *pool = NULL, *volumes = NULL;
	struct tm_json_reader r;
	uint64_t version = 0;
	int failed;

	if (len > TM_DESCRIPTOR_LIMIT)
		return tm_error_set(err, TM_ERR_BAD_DESCRIPTOR, EINVAL,
				    "it is larger than %d bytes", TM_DESCRIPTOR_LIMIT);
	root = tm_json_parse(text, len, err);
	if (!root) {
		quote_nothing(err);
		return err->code == TM_ERR_NO_MEMORY ? -ENOMEM : -EINVAL;
	}

	/* The version first: of a later format nothing else can be judged. */
	tm_json_reader_init(&r, root, "", err);
	need_uint(&r, "thinmgr", 1, INT64_MAX, &version);
	if (r.failed)
		return r.failed;
	if (version != FORMAT_VERSION)
		return tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, "/thinmgr",
				      "it has format %" PRIu64
				      ", and this version of thinmgr knows only %d",
				      version, FORMAT_VERSION);
	failed = check_checksum(root, err);
	if (failed < 0)
		return failed;
	(void)tm_json_require(&r, "pool", tm_json_get_object(&r, "pool", &pool));
	(void)tm_json_require(&r, "volumes", tm_json_get_array(&r, "volumes", &volumes));
	failed = tm_json_reader_finish(&r);
	if (failed == 0)
		failed = parse_pool(pool, &d->pool, err);
	return failed < 0 ? failed : parse_volumes(volumes, d, err);
}

int tm_descriptor_parse(const char *text, size_t len, struct tm_descriptor *ret,
			struct tm_error *err)
{
	struct tm_descriptor d = { .volumes = NULL };
	struct tm_error why = { .code = TM_OK };
	int r = parse(text, len, &d, &why);

	if (r == 0) {
		*ret = d;
		return 0;
	}
	tm_descriptor_done(&d);
	if (why.code == TM_ERR_NO_MEMORY)
		return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM,
				    "out of memory while reading a pool's descriptor");
	r = tm_error_field(err, TM_ERR_BAD_DESCRIPTOR, why.field,
			   "the pool's descriptor is not valid: %.400s", why.detail);
	tm_error_hint(err, "Restore pool.json from a copy that is whole.");
	return r;
}
