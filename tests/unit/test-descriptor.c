// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "common/utf8.h"
#include "logic/descriptor.h"
#include "logic/superblock.h"

#define ID(n) "00000000-0000-4000-8000-00000000000" #n

static struct tm_descriptor make(size_t n)
{
	struct tm_descriptor d = {
		.pool = {
			.id = { ID(0) },
			.name = "one",
			.sparse = true,
			.block_bytes = 65536,
			.zeroing = true,
			.discard = true,
			.when_full = TM_WHEN_FULL_ERROR,
			.data_bytes = 256 * TM_MIB,
			.data_reserve_bytes = 64 * TM_MIB,
			.metadata_bytes = 2 * TM_MIB,
			.metadata_reserve_bytes = 4096,
			.low_water_bytes = 50 * TM_MIB,
			.transaction_id = 12,
			.next_dev_id = 9,
			.active = true,
			.created_usec = 1767323045678000,
		},
		.n_volumes = n,
	};
	size_t i;

	(void)snprintf(d.pool.directory, sizeof(d.pool.directory), "/srv/one");
	tm_policy_default(&d.pool.policy);
	d.volumes = calloc(n ? n : 1, sizeof(*d.volumes));
	assert_non_null(d.volumes);
	for (i = 0; i < n; i++) {
		struct tm_volume_record *v = &d.volumes[i];

		(void)snprintf(v->id.text, sizeof(v->id.text), "00000000-0000-4000-8000-%012u",
			       (unsigned int)(i + 1) % 100000);
		(void)snprintf(v->name, sizeof(v->name), "vol%u", (unsigned int)i % 100000);
		v->dev_id = (uint32_t)i;
		v->size_bytes = (i + 1) * TM_GIB;
		v->active = i % 2;
		v->read_only = i % 3 == 0;
		v->created_usec = 1767323045678000 + i * 1000;
		if (i)
			v->origin = d.volumes[i - 1].id;
	}
	return d;
}

static void assert_same(const struct tm_descriptor *a, const struct tm_descriptor *b)
{
	size_t i;

	assert_string_equal(a->pool.id.text, b->pool.id.text);
	assert_string_equal(a->pool.name, b->pool.name);
	assert_int_equal(a->pool.backing, b->pool.backing);
	assert_int_equal(a->pool.sparse, b->pool.sparse);
	assert_int_equal(a->pool.block_bytes, b->pool.block_bytes);
	assert_int_equal(a->pool.zeroing, b->pool.zeroing);
	assert_int_equal(a->pool.discard, b->pool.discard);
	assert_int_equal(a->pool.discard_passdown, b->pool.discard_passdown);
	assert_int_equal(a->pool.when_full, b->pool.when_full);
	assert_int_equal(a->pool.data_bytes, b->pool.data_bytes);
	assert_int_equal(a->pool.data_reserve_bytes, b->pool.data_reserve_bytes);
	assert_int_equal(a->pool.metadata_bytes, b->pool.metadata_bytes);
	assert_int_equal(a->pool.metadata_reserve_bytes, b->pool.metadata_reserve_bytes);
	assert_int_equal(a->pool.low_water_bytes, b->pool.low_water_bytes);
	assert_int_equal(a->pool.transaction_id, b->pool.transaction_id);
	assert_int_equal(a->pool.next_dev_id, b->pool.next_dev_id);
	assert_int_equal(a->pool.active, b->pool.active);
	assert_int_equal(a->pool.created_usec, b->pool.created_usec);
	assert_int_equal(a->pool.policy.sample_seconds, b->pool.policy.sample_seconds);
	assert_int_equal(a->pool.policy.keep_copies, b->pool.policy.keep_copies);
	assert_int_equal(a->pool.policy.keep_days, b->pool.policy.keep_days);
	assert_int_equal(a->pool.policy.copy_hours, b->pool.policy.copy_hours);
	assert_int_equal(a->pool.policy.check_days, b->pool.policy.check_days);
	assert_int_equal(a->pool.policy.check_volumes, b->pool.policy.check_volumes);
	assert_int_equal(a->pool.policy.data.maximum_bytes, b->pool.policy.data.maximum_bytes);
	assert_int_equal(a->n_volumes, b->n_volumes);
	for (i = 0; i < a->n_volumes; i++) {
		const struct tm_volume_record *x = &a->volumes[i], *y = &b->volumes[i];

		assert_string_equal(x->id.text, y->id.text);
		assert_string_equal(x->name, y->name);
		assert_string_equal(x->origin.text, y->origin.text);
		assert_int_equal(x->dev_id, y->dev_id);
		assert_int_equal(x->size_bytes, y->size_bytes);
		assert_int_equal(x->active, y->active);
		assert_int_equal(x->read_only, y->read_only);
		assert_int_equal(x->created_usec, y->created_usec);
	}
}

static void test_round_trip(void **state)
{
	static const size_t counts[] = { 0, 1, 2, 500 };
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(counts); i++) {
		struct tm_descriptor d = make(counts[i]), back;
		struct tm_error err = { .code = TM_OK };
		char *text = NULL;
		size_t len = 0;

		d.pool.policy.data.maximum_bytes = 3 * TM_GIB;
		assert_int_equal(tm_descriptor_format(&d, &text, &len), 0);
		assert_int_equal(strlen(text), len);
		assert_int_equal(text[len - 1], '\n');
		assert_null(strstr(text, "/srv/one"));
		if (tm_descriptor_parse(text, len, &back, &err) < 0)
			fail_msg("%s %s", err.field, err.detail);
		assert_string_equal(back.pool.directory, "");
		assert_same(&d, &back);
		free(text);
		tm_descriptor_done(&back);
		assert_null(back.volumes);
		tm_descriptor_done(&back);
		tm_descriptor_done(&d);
	}
}

/* The origin of a snapshot may have been deleted since: it has none then. */
static void test_deleted_origin(void **state)
{
	struct tm_descriptor d = make(2), back;
	char *text;
	size_t len;

	(void)state;
	(void)snprintf(d.volumes[0].origin.text, sizeof(d.volumes[0].origin.text), "%s", ID(9));
	assert_int_equal(tm_descriptor_format(&d, &text, &len), 0);
	assert_int_equal(tm_descriptor_parse(text, len, &back, NULL), 0);
	assert_string_equal(back.volumes[0].origin.text, "");
	assert_string_equal(back.volumes[1].origin.text, d.volumes[0].id.text);
	free(text);
	tm_descriptor_done(&back);
	tm_descriptor_done(&d);
}

/* Any byte that is changed, and any cut, is noticed (but for white space and the like). */
static void test_damage(void **state)
{
	struct tm_descriptor d = make(2), back;
	char *text;
	size_t len, i;

	(void)state;
	assert_int_equal(tm_descriptor_format(&d, &text, &len), 0);
	for (i = 0; i < len; i++) {
		struct tm_error err = { .code = TM_OK };
		char old = text[i];

		if (i < len - 1) {
			assert_int_equal(tm_descriptor_parse(text, i, &back, &err), -EINVAL);
			assert_int_equal(err.code, TM_ERR_BAD_DESCRIPTOR);
			assert_true(tm_utf8_valid(err.detail));
		}
		if (old == ' ' || old == '\n')
			continue;
		text[i] = (char)(old ^ 1);
		assert_int_equal(tm_descriptor_parse(text, len, &back, NULL), -EINVAL);
		text[i] = old;
	}
	free(text);
	tm_descriptor_done(&d);
}

/* A descriptor with one thing changed, sealed again. */
static char *altered(const char *path, const char *value)
{
	struct tm_descriptor d = make(3);
	json_t *root, *object, *new_value = NULL;
	char *text, sum[32], *compact;
	const char *slash;
	char key[32];
	size_t len;

	assert_int_equal(tm_descriptor_format(&d, &text, &len), 0);
	tm_descriptor_done(&d);
	root = object = json_loads(text, 0, NULL);
	free(text);
	assert_non_null(root);
	assert_int_equal(json_object_del(root, "checksum"), 0);
	if (value) {
		new_value = json_loads(value, JSON_DECODE_ANY, NULL);
		assert_non_null(new_value);
	}
	while ((slash = strchr(path, '/'))) {
		(void)snprintf(key, sizeof(key), "%.*s", (int)(slash - path), path);
		object = json_is_array(object) ? json_array_get(object, (size_t)(key[0] - '0'))
					       : json_object_get(object, key);
		assert_non_null(object);
		path = slash + 1;
	}
	if (new_value)
		assert_int_equal(json_object_set_new(object, path, new_value), 0);
	else
		assert_int_equal(json_object_del(object, path), 0);
	compact = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
	(void)snprintf(sum, sizeof(sum), "crc32c:%08x",
		       (unsigned int)~tm_crc32c(UINT32_MAX, compact, strlen(compact)));
	free(compact);
	assert_int_equal(json_object_set_new(root, "checksum", json_string(sum)), 0);
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

static void test_refused(void **state)
{
	static const struct {
		const char *path, *value, *field;
	} cases[] = {
		{ "thinmgr", "2", "/thinmgr" },
		{ "thinmgr", "0", "/thinmgr" },
		{ "thinmgr", "\"1\"", "/thinmgr" },
		{ "thinmgr", NULL, "/thinmgr" },
		{ "extra", "1", "/extra" },
		{ "pool", NULL, "/pool" },
		{ "pool", "[]", "/pool" },
		{ "pool", "{}", "/pool/id" },
		{ "volumes", NULL, "/volumes" },
		{ "volumes", "{}", "/volumes" },
		{ "volumes", "[1]", "/volumes/0" },
		{ "volumes", "[null]", "/volumes/0" },
		{ "pool/extra", "1", "/pool/extra" },
		{ "pool/id", "\"x\"", "/pool/id" },
		{ "pool/id", NULL, "/pool/id" },
		{ "pool/name", "\"../x\"", "/pool/name" },
		{ "pool/name", "\"" ID(1) "\"", "/pool/name" },
		{ "pool/name", NULL, "/pool/name" },
		{ "pool/backing", "\"lvm\"", "/pool/backing" },
		{ "pool/backing", NULL, "/pool/backing" },
		{ "pool/sparse", "0", "/pool/sparse" },
		{ "pool/block_size", "65537", "/pool/block_size" },
		{ "pool/block_size", "0", "/pool/block_size" },
		{ "pool/block_size", "4294967296", "/pool/block_size" },
		{ "pool/zeroing", NULL, "/pool/zeroing" },
		{ "pool/discard", NULL, "/pool/discard" },
		{ "pool/discard_passdown", NULL, "/pool/discard_passdown" },
		{ "pool/when_full", "\"panic\"", "/pool/when_full" },
		{ "pool/when_full", NULL, "/pool/when_full" },
		{ "pool/data_size", "0", "/pool/data_size" },
		{ "pool/data_size", "65535", "/pool/data_size" },
		{ "pool/data_size", "98304", "/pool/data_size" },
		{ "pool/data_size", "9223372036854775807", "/pool/data_size" },
		{ "pool/data_size", "-65536", "/pool/data_size" },
		{ "pool/data_reserve", "1", "/pool/data_reserve" },
		{ "pool/metadata_size", "0", "/pool/metadata_size" },
		{ "pool/metadata_size", "5000", "/pool/metadata_size" },
		{ "pool/metadata_reserve", "7", "/pool/metadata_reserve" },
		{ "pool/low_water", "-1", "/pool/low_water" },
		{ "pool/transaction_id", "-1", "/pool/transaction_id" },
		{ "pool/transaction_id", "1.0", "/pool/transaction_id" },
		{ "pool/next_dev_id", "16777217", "/pool/next_dev_id" },
		{ "pool/active", "\"yes\"", "/pool/active" },
		{ "pool/created", "\"yesterday\"", "/pool/created" },
		{ "pool/created", "0", "/pool/created" },
		{ "pool/policy", NULL, "/pool/policy" },
		{ "pool/policy/data", NULL, "/pool/policy" },
		{ "pool/policy/data/step_percent", NULL, "/pool/policy" },
		{ "pool/policy/data/step_percent", "0", "/pool/policy/data/step_percent" },
		{ "pool/policy/data/other", "0", "/pool/policy/data/other" },
		{ "pool/policy/sample_seconds", NULL, "/pool/policy" },
		{ "pool/policy/repair", "\"never\"", "/pool/policy/repair" },
		{ "volumes/0/extra", "1", "/volumes/0/extra" },
		{ "volumes/2/id", "\"0\"", "/volumes/2/id" },
		{ "volumes/1/name", "\"a/b\"", "/volumes/1/name" },
		{ "volumes/1/name", "\"_a\"", "/volumes/1/name" },
		{ "volumes/1/dev_id", "16777216", "/volumes/1/dev_id" },
		{ "volumes/1/dev_id", "-1", "/volumes/1/dev_id" },
		{ "volumes/1/size", "0", "/volumes/1/size" },
		{ "volumes/1/size", "513", "/volumes/1/size" },
		{ "volumes/1/origin", NULL, "/volumes/1/origin" },
		{ "volumes/1/origin", "\"\"", "/volumes/1/origin" },
		{ "volumes/1/active", NULL, "/volumes/1/active" },
		{ "volumes/1/read_only", NULL, "/volumes/1/read_only" },
		{ "volumes/1/created", NULL, "/volumes/1/created" },
		/* What only fits together wrongly: ids, names, device ids, origins. */
		{ "volumes/0/id", "\"" ID(3) "\"", "/volumes" },
		{ "volumes/0/name", "\"vol2\"", "/volumes" },
		{ "volumes/0/dev_id", "2", "/volumes" },
		{ "volumes/0/origin", "\"" ID(9) "\"", "/volumes" },
		{ "volumes/0/origin", "\"" ID(1) "\"", "/volumes" },
		{ "volumes/0/origin", "\"" ID(3) "\"", "/volumes" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		tm_auto_free char *text = altered(cases[i].path, cases[i].value);
		struct tm_descriptor d = { .n_volumes = 77 };
		struct tm_error err = { .code = TM_OK };

		if (tm_descriptor_parse(text, strlen(text), &d, &err) != -EINVAL ||
		    strcmp(err.field, cases[i].field))
			fail_msg("%s = %s: %s, %s", cases[i].path,
				 cases[i].value ? cases[i].value : "absent", err.field, err.detail);
		assert_int_equal(err.code, TM_ERR_BAD_DESCRIPTOR);
		assert_int_equal(d.n_volumes, 77);
		assert_true(strlen(err.hint) > 0);
	}
}

/* The same ways of changing it, but into something good. */
static void test_accepted(void **state)
{
	static const struct {
		const char *path, *value;
	} cases[] = {
		{ "pool/transaction_id", "9223372036854775807" },
		{ "pool/next_dev_id", "16777216" },
		{ "volumes/0/dev_id", "16777215" },
		{ "volumes/2/origin", "null" },
		{ "volumes/2/origin", "\"" ID(1) "\"" },
		{ "volumes/2/id", "\"ABCDEF00-0000-4000-8000-000000000003\"" },
		{ "pool/created", "\"2026-01-02T03:04:05+02:00\"" },
		{ "pool/policy/data/maximum", "1073741824" },
		{ "volumes", "[]" },
		/* Descriptors of the first versions have none. */
		{ "pool/policy/repair", NULL },
		{ "pool/policy/keep_copies", NULL },
		{ "pool/policy/keep_days", NULL },
		{ "pool/policy/copy_hours", NULL },
		{ "pool/policy/check_days", NULL },
		{ "pool/policy/check_volumes", NULL },
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(cases); i++) {
		tm_auto_free char *text = altered(cases[i].path, cases[i].value);
		struct tm_error err = { .code = TM_OK };
		struct tm_descriptor d;

		if (tm_descriptor_parse(text, strlen(text), &d, &err) < 0)
			fail_msg("%s = %s: %s, %s", cases[i].path, cases[i].value, err.field,
				 err.detail);
		tm_descriptor_done(&d);
	}
}

static void test_checksum(void **state)
{
	static const char *const bad[] = {
		"{\"thinmgr\":1}",
		"{\"thinmgr\":1,\"checksum\":5}",
		"{\"thinmgr\":1,\"checksum\":\"\"}",
		"{\"thinmgr\":1,\"checksum\":\"crc32c:00000000\"}",
		"{\"thinmgr\":1,\"checksum\":\"crc32c:00000000000000000000000000000000000000\"}",
	};
	size_t i;

	(void)state;
	for (i = 0; i < TM_ARRAY_SIZE(bad); i++) {
		struct tm_error err = { .code = TM_OK };
		struct tm_descriptor d;

		assert_int_equal(tm_descriptor_parse(bad[i], strlen(bad[i]), &d, &err), -EINVAL);
		assert_int_equal(err.code, TM_ERR_BAD_DESCRIPTOR);
		assert_string_equal(err.field, "/checksum");
	}
}

static void test_too_large(void **state)
{
	struct tm_error err = { .code = TM_OK };
	struct tm_descriptor d;
	size_t size = (size_t)TM_DESCRIPTOR_LIMIT + 1;
	char *text = malloc(size);

	(void)state;
	assert_non_null(text);
	memset(text, ' ', size);
	assert_int_equal(tm_descriptor_parse(text, size, &d, &err), -EINVAL);
	assert_int_equal(err.code, TM_ERR_BAD_DESCRIPTOR);
	assert_non_null(strstr(err.detail, "larger"));
	assert_int_equal(tm_descriptor_parse("", 0, &d, NULL), -EINVAL);
	free(text);
}

/* Any file may be named as one: nothing of it is repeated. */
static void test_quotes_nothing(void **state)
{
	static const char *const texts[] = { "secret:words", "{\"secret", "{\"a\":secret}",
					     "{} secret", "secret\xff" };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct tm_error err = { .code = TM_OK };
		struct tm_descriptor d;

		assert_int_equal(tm_descriptor_parse(texts[i], strlen(texts[i]), &d, &err),
				 -EINVAL);
		assert_non_null(strstr(err.detail, "not valid JSON at line 1"));
		assert_null(strstr(err.detail, "secret"));
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_deleted_origin),
		cmocka_unit_test(test_damage),     cmocka_unit_test(test_refused),
		cmocka_unit_test(test_accepted),   cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_too_large),  cmocka_unit_test(test_quotes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
