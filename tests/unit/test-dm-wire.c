// SPDX-License-Identifier: GPL-2.0-or-later
/* The device-mapper buffers, built and taken apart without a kernel. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "dm/wire.h"

/* ---- requests ----------------------------------------------------------------------------- */

static void header(void **state)
{
	char longest[DM_NAME_LEN + 1];
	struct dm_ioctl io;

	(void)state;
	memset(&io, 0xff, sizeof(io));
	assert_int_equal(tm_dm_wire_header(&io, sizeof(io), "p:_pool", DM_NOFLUSH_FLAG), 0);
	assert_int_equal(io.version[0], 4);
	assert_int_equal(io.version[1], 0);
	assert_int_equal(io.data_size, sizeof(io));
	assert_int_equal(io.data_start, sizeof(io));
	assert_int_equal(io.flags, DM_NOFLUSH_FLAG);
	assert_int_equal(io.event_nr, 0);
	assert_string_equal(io.name, "p:_pool");
	assert_string_equal(io.uuid, "");

	assert_int_equal(tm_dm_wire_header(&io, sizeof(io), NULL, 0), 0);
	assert_string_equal(io.name, "");
	assert_int_equal(tm_dm_wire_header(&io, sizeof(io), "", 0), -EINVAL);

	memset(longest, 'x', sizeof(longest));
	longest[DM_NAME_LEN] = '\0';
	assert_int_equal(tm_dm_wire_header(&io, sizeof(io), longest, 0), -ENAMETOOLONG);
	longest[DM_NAME_LEN - 1] = '\0';
	assert_int_equal(tm_dm_wire_header(&io, sizeof(io), longest, 0), 0);
	assert_string_equal(io.name, longest);
}

static void flags(void **state)
{
	(void)state;
	assert_int_equal(tm_dm_wire_suspend_flags(0), 0);
	assert_int_equal(tm_dm_wire_suspend_flags(TM_DM_NOFLUSH), 1 << 11);
	assert_int_equal(tm_dm_wire_suspend_flags(TM_DM_NOLOCKFS), 1 << 10);
	assert_int_equal(tm_dm_wire_suspend_flags(TM_DM_NOFLUSH | TM_DM_NOLOCKFS), 3 << 10);

	assert_int_equal(tm_dm_wire_udev_flags(TM_DM_UDEV_FULL), 0x20);
	assert_int_equal(tm_dm_wire_udev_flags(TM_DM_UDEV_HIDDEN), 0x2e);
	assert_int_equal(tm_dm_wire_cookie(TM_DM_UDEV_FULL), 0x600000);
	assert_int_equal(tm_dm_wire_cookie(TM_DM_UDEV_HIDDEN), 0x6e0000);
}

static void load(void **state)
{
	const struct tm_dm_target targets[] = {
		{ 0, 8, "linear", "7:0 0" },
		{ 8, 1ull << 40, "linear", "7:1 2048" },
	};
	tm_auto_free struct dm_ioctl *io = NULL;
	struct dm_target_spec spec;

	(void)state;
	assert_int_equal(tm_dm_wire_load("a:_data", targets, 2, true, &io), 0);
	assert_int_equal(io->target_count, 2);
	assert_int_equal(io->flags, DM_READONLY_FLAG);
	assert_string_equal(io->name, "a:_data");

	const char *at = (const char *)io + io->data_start;
	memcpy(&spec, at, sizeof(spec));
	assert_int_equal(spec.sector_start, 0);
	assert_int_equal(spec.length, 8);
	assert_string_equal(spec.target_type, "linear");
	assert_string_equal(at + sizeof(spec), "7:0 0");
	assert_int_equal(spec.next % 8, 0);
	assert_true(spec.next >= sizeof(spec) + sizeof("7:0 0"));

	at += spec.next;
	memcpy(&spec, at, sizeof(spec));
	assert_int_equal(spec.sector_start, 8);
	assert_int_equal(spec.length, 1ull << 40);
	assert_string_equal(at + sizeof(spec), "7:1 2048");
	assert_ptr_equal(at + spec.next, (const char *)io + io->data_size);

	free(TM_TAKE(io));
	assert_int_equal(tm_dm_wire_load("a", targets, 1, false, &io), 0);
	assert_int_equal(io->flags, 0);
}

static void load_refused(void **state)
{
	static const struct {
		struct tm_dm_target targets[2];
		size_t n;
		const char *name;
		int error;
	} table[] = {
		{ { { 0, 8, "linear", "" } }, 0, "a", -EINVAL },
		{ { { 0, 0, "linear", "" } }, 1, "a", -EINVAL },
		{ { { 8, 8, "linear", "" } }, 1, "a", -EINVAL },
		{ { { 0, 8, "", "" } }, 1, "a", -EINVAL },
		{ { { 0, 8, "a-type-of-sixteen", "" } }, 1, "a", -EINVAL },
		{ { { 0, 8, "linear", "" }, { 9, 8, "linear", "" } }, 2, "a", -EINVAL },
		{ { { 0, 8, "linear", "" }, { 7, 8, "linear", "" } }, 2, "a", -EINVAL },
		{ { { 0, 8, "linear", "" }, { 8, UINT64_MAX, "linear", "" } }, 2, "a", -EINVAL },
		{ { { 0, 8, "linear", "" } }, 1, "", -EINVAL },
		{ { { 0, 8, "linear", "" } }, (size_t)-1, "a", -E2BIG },
	};
	struct dm_ioctl *io;

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(table); i++) {
		io = (void *)1;
		assert_int_equal(
			tm_dm_wire_load(table[i].name, table[i].targets, table[i].n, false, &io),
			table[i].error);
		assert_null(io);
	}

	char *params = malloc((17 << 20) + 1);
	assert_non_null(params);
	memset(params, 'x', 17 << 20);
	params[17 << 20] = '\0';
	const struct tm_dm_target large = { 0, 8, "linear", params };
	assert_int_equal(tm_dm_wire_load("a", &large, 1, false, &io), -E2BIG);
	assert_int_equal(tm_dm_wire_message("a", params, 0, &io), -E2BIG);
	assert_int_equal(tm_dm_wire_message("a", "m", 17 << 20, &io), -E2BIG);
	free(params);
}

static void message(void **state)
{
	tm_auto_free struct dm_ioctl *io = NULL;
	struct dm_target_msg msg;

	(void)state;
	assert_int_equal(tm_dm_wire_message("p:_pool", "create_thin 7", 0, &io), 0);
	const char *at = (const char *)io + io->data_start;
	memcpy(&msg, at, sizeof(msg));
	assert_int_equal(msg.sector, 0);
	assert_string_equal(at + offsetof(struct dm_target_msg, message), "create_thin 7");
	assert_true(at + sizeof(msg) + sizeof("create_thin 7") <= (const char *)io + io->data_size);

	/* Room for an answer is more of the same, empty. */
	tm_auto_free struct dm_ioctl *roomy = NULL;
	assert_int_equal(tm_dm_wire_message("p:_pool", "events 0", 1000, &roomy), 0);
	assert_true(roomy->data_size >= sizeof(*roomy) + 1000);
	assert_int_equal(((const char *)roomy)[roomy->data_size - 1], '\0');
	at = (const char *)roomy + roomy->data_start;
	assert_string_equal(at + offsetof(struct dm_target_msg, message), "events 0");

	struct dm_ioctl *none = (void *)1;
	assert_int_equal(tm_dm_wire_message("p", "", 0, &none), -EINVAL);
	assert_null(none);
	assert_int_equal(tm_dm_wire_message("", "x", 0, &none), -EINVAL);
	assert_null(none);
}

/* ---- answers ------------------------------------------------------------------------------ */

/* An answer under construction, on the heap and exactly as large as told, for ASan to see overruns.
 */
struct answer {
	struct dm_ioctl *io;
	size_t size;
};

static struct answer answer_new(uint32_t minor, uint32_t flags)
{
	struct answer a = { calloc(1, sizeof(struct dm_ioctl)), sizeof(struct dm_ioctl) };

	assert_non_null(a.io);
	assert_int_equal(tm_dm_wire_header(a.io, sizeof(*a.io), NULL, flags), 0);
	a.io->version[1] = minor;
	return a;
}

static void answer_add(struct answer *a, const void *bytes, size_t len)
{
	char *more = realloc(a->io, a->size + len);

	assert_non_null(more);
	memcpy(more + a->size, bytes, len);
	a->io = (struct dm_ioctl *)(void *)more;
	a->size += len;
	a->io->data_size = (uint32_t)a->size;
}

static void answered(void **state)
{
	struct answer a = answer_new(47, DM_DATA_OUT_FLAG);
	char *text = (void *)1;

	(void)state;
	answer_add(&a, "7\n8", 4);
	assert_int_equal(tm_dm_wire_parse_message(a.io, a.size, &text), 0);
	assert_string_equal(text, "7\n8");
	free(text);
	/* What lies behind the answer is none of it. */
	assert_int_equal(tm_dm_wire_parse_message(a.io, a.size - 1, &text), -EBADMSG);
	assert_null(text);
	a.io->data_size--;
	assert_int_equal(tm_dm_wire_parse_message(a.io, a.size, &text), -EBADMSG);
	a.io->data_size++;
	a.io->data_start = (uint32_t)a.size + 1;
	assert_int_equal(tm_dm_wire_parse_message(a.io, a.size, &text), -EBADMSG);
	a.io->data_start = sizeof(*a.io);
	a.io->flags = 0;
	assert_int_equal(tm_dm_wire_parse_message(a.io, a.size, &text), -ENODATA);
	assert_null(text);
	free(a.io);

	a = answer_new(47, DM_DATA_OUT_FLAG);
	assert_int_equal(tm_dm_wire_parse_message(a.io, a.size, &text), -EBADMSG);
	answer_add(&a, "", 1);
	assert_int_equal(tm_dm_wire_parse_message(a.io, a.size, &text), 0);
	assert_string_equal(text, "");
	free(text);
	free(a.io);
}

static void answer_pad(struct answer *a)
{
	static const char zeroes[8];

	answer_add(a, zeroes, (8 - a->size % 8) % 8);
}

static void add_line(struct answer *a, const char *type, uint64_t length, const char *params)
{
	struct dm_target_spec spec = { .length = length };

	memcpy(spec.target_type, type, strnlen(type, sizeof(spec.target_type)));
	answer_add(a, &spec, sizeof(spec));
	answer_add(a, params, strlen(params) + 1);
	answer_pad(a);
	a->io->target_count++;
}

static void line(void **state)
{
	struct answer a = answer_new(47, DM_ACTIVE_PRESENT_FLAG);
	char type[16], params[64];
	uint64_t length = 0;

	(void)state;
	add_line(&a, "thin-pool", 4096, "1 2/3 4/5 - rw");
	add_line(&a, "linear", 1, "second");
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, type, sizeof(type), &length, params,
					       sizeof(params)),
			 0);
	assert_string_equal(type, "thin-pool");
	assert_string_equal(params, "1 2/3 4/5 - rw");
	assert_int_equal(length, 4096);

	/* Not everything is asked for; what is asked for must fit. */
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, NULL, 0, NULL, params,
					       sizeof("1 2/3 4/5 - rw")),
			 0);
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, NULL, 0, NULL, params,
					       sizeof("1 2/3 4/5 - rw") - 1),
			 -EMSGSIZE);
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, type, sizeof("thin-pool") - 1, NULL,
					       params, sizeof(params)),
			 -EMSGSIZE);

	/* No live table. */
	a.io->flags = DM_INACTIVE_PRESENT_FLAG;
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, type, sizeof(type), &length, params,
					       sizeof(params)),
			 -ENODATA);
	a.io->flags = DM_ACTIVE_PRESENT_FLAG;
	a.io->target_count = 0;
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, type, sizeof(type), &length, params,
					       sizeof(params)),
			 -ENODATA);
	free(a.io);
}

static void line_damaged(void **state)
{
	struct answer a = answer_new(47, DM_ACTIVE_PRESENT_FLAG);
	char type[32], params[64];

	(void)state;
	add_line(&a, "thin-pool", 4096, "1234567");
	/* Cut anywhere: never read past the end. */
	for (size_t size = 0; size < a.size; size++) {
		struct dm_ioctl *cut = malloc(size ? size : 1);

		assert_non_null(cut);
		memcpy(cut, a.io, size);
		if (size >= sizeof(*cut))
			assert_int_equal(tm_dm_wire_parse_line(cut, size, type, sizeof(type), NULL,
							       params, sizeof(params)),
					 -EBADMSG);
		free(cut);
	}
	a.io->data_start = (uint32_t)a.size + 1;
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, type, sizeof(type), NULL, params,
					       sizeof(params)),
			 -EBADMSG);
	a.io->data_start = 8;
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, type, sizeof(type), NULL, params,
					       sizeof(params)),
			 -EBADMSG);
	free(a.io);

	/* A type that does not end. */
	a = answer_new(47, DM_ACTIVE_PRESENT_FLAG);
	add_line(&a, "sixteen-letters-x", 1, "");
	assert_int_equal(tm_dm_wire_parse_line(a.io, a.size, type, sizeof(type), NULL, params,
					       sizeof(params)),
			 -EBADMSG);
	free(a.io);
}

/* One record as the kernel of the answer's version lays it out; @uuid NULL: none. */
static void add_entry(struct answer *a, unsigned int minor_nr, const char *name, uint32_t event_nr,
		      const char *uuid, bool last)
{
	const size_t start = a->size;
	struct dm_name_list head = { .dev = makedev(253, minor_nr) };

	answer_add(a, &head, offsetof(struct dm_name_list, name));
	answer_add(a, name, strlen(name) + 1);
	if (a->io->version[1] >= 37) {
		answer_pad(a);
		answer_add(a, &event_nr, sizeof(event_nr));
	}
	if (a->io->version[1] >= 45) {
		uint32_t f = uuid ? DM_NAME_LIST_FLAG_HAS_UUID : DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID;

		answer_add(a, &f, sizeof(f));
		if (uuid)
			answer_add(a, uuid, strlen(uuid) + 1);
	}
	answer_pad(a);
	if (!last) {
		uint32_t next = (uint32_t)(a->size - start);

		memcpy((char *)a->io + start + offsetof(struct dm_name_list, next), &next,
		       sizeof(next));
	}
}

static void list(void **state)
{
	static const struct {
		uint32_t minor;
		bool events, uuids;
	} table[] = { { 35, false, false }, { 37, true, false }, { 44, true, false },
		      { 45, true, true },   { 47, true, true },  { 50, true, true } };

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(table); i++) {
		struct answer a = answer_new(table[i].minor, 0);
		tm_auto_free struct tm_dm_entry *e = NULL;
		size_t n = 0;

		add_entry(&a, 0, "p:_data", 0, "THINMGR-x-data", false);
		add_entry(&a, 300, "p:_pool", 0xfffffffe, NULL, false);
		add_entry(&a, 2, "n", 3, "", true);
		assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), 0);
		assert_int_equal(n, 3);
		assert_string_equal(e[0].name, "p:_data");
		assert_string_equal(e[1].name, "p:_pool");
		assert_string_equal(e[2].name, "n");
		assert_int_equal(e[1].major, 253);
		assert_int_equal(e[1].minor, 300);
		assert_string_equal(e[0].uuid, table[i].uuids ? "THINMGR-x-data" : "");
		assert_string_equal(e[1].uuid, "");
		for (size_t k = 0; k < n; k++)
			assert_int_equal(e[k].event_nr_valid, table[i].events);
		assert_int_equal(e[1].event_nr, table[i].events ? 0xfffffffe : 0);
		assert_int_equal(e[2].event_nr, table[i].events ? 3 : 0);
		free(a.io);
	}
}

static void list_large(void **state)
{
	struct answer a = answer_new(47, 0);
	tm_auto_free struct tm_dm_entry *e = NULL;
	char name[16];
	size_t n = 0;

	(void)state;
	/* Short names without uuids: more records than the first guess. */
	for (unsigned int i = 0; i < 500; i++) {
		(void)snprintf(name, sizeof(name), "d%u", i);
		add_entry(&a, i, name, i, NULL, i == 499);
	}
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), 0);
	assert_int_equal(n, 500);
	assert_string_equal(e[499].name, "d499");
	assert_int_equal(e[499].event_nr, 499);
	free(a.io);
}

static void list_empty(void **state)
{
	struct answer a = answer_new(47, 0);
	const struct dm_name_list none = { 0 };
	struct tm_dm_entry *e = (void *)1;
	size_t n = 1;

	(void)state;
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), 0);
	assert_null(e);
	assert_int_equal(n, 0);
	answer_add(&a, &none, sizeof(none));
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), 0);
	assert_int_equal(n, 0);
	free(a.io);
}

static void list_damaged(void **state)
{
	struct answer a = answer_new(47, 0);
	const size_t start = a.size + offsetof(struct dm_name_list, next);
	struct tm_dm_entry *e;
	size_t n;

	(void)state;
	add_entry(&a, 1, "first", 1, "uuid", false);
	add_entry(&a, 2, "second", 2, "uuid", true);

	for (size_t size = sizeof(*a.io) + 1; size < a.size - 3; size++) {
		struct dm_ioctl *cut = malloc(size);

		assert_non_null(cut);
		memcpy(cut, a.io, size);
		assert_int_equal(tm_dm_wire_parse_list(cut, size, &e, &n), -EBADMSG);
		assert_null(e);
		free(cut);
	}

	static const uint32_t bad_next[] = { 1, 8, 13, 4096, UINT32_MAX, UINT32_MAX - 7 };
	for (size_t i = 0; i < TM_ARRAY_SIZE(bad_next); i++) {
		memcpy((char *)a.io + start, &bad_next[i], sizeof(bad_next[i]));
		assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), -EBADMSG);
	}
	/* The next record begins at the end. */
	const uint32_t to_end = (uint32_t)(a.size - sizeof(*a.io));
	memcpy((char *)a.io + start, &to_end, sizeof(to_end));
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), -EBADMSG);
	free(a.io);

	/* Nothing follows the name in old kernels' lists: it must end by itself. */
	a = answer_new(35, 0);
	add_entry(&a, 1, "to-the-end--", 1, NULL, true);
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), 0);
	free(e);
	const size_t cut = offsetof(struct dm_name_list, name) + strlen("to-the-end--");
	a.size = sizeof(*a.io) + cut;
	a.io = realloc(a.io, a.size);
	assert_non_null(a.io);
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), -EBADMSG);
	free(a.io);

	/* A name longer than any device's, one without end, one without letters. */
	char name[200];
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	a = answer_new(47, 0);
	add_entry(&a, 1, name, 1, NULL, true);
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), -EBADMSG);
	free(a.io);
	a = answer_new(47, 0);
	add_entry(&a, 1, "u", 1, name, true);
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), -EBADMSG);
	free(a.io);
	a = answer_new(47, 0);
	add_entry(&a, 1, "", 1, NULL, true);
	assert_int_equal(tm_dm_wire_parse_list(a.io, a.size, &e, &n), -EBADMSG);
	free(a.io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header),       cmocka_unit_test(flags),
		cmocka_unit_test(load),         cmocka_unit_test(load_refused),
		cmocka_unit_test(message),      cmocka_unit_test(line),
		cmocka_unit_test(line_damaged), cmocka_unit_test(list),
		cmocka_unit_test(list_large),   cmocka_unit_test(list_empty),
		cmocka_unit_test(list_damaged), cmocka_unit_test(answered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
