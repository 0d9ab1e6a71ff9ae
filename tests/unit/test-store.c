/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state database: what comes back, what never repeats, what a crash and a full disk leave. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/units.h"
#include "store/internal.h"
#include "store/store.h"

#define SEC  TM_USEC_PER_SEC
#define HOUR (3600 * SEC)
#define DAY  (24 * HOUR)

struct fixture {
	char directory[64];
	char file[96];
	struct tm_store *store;
	struct tm_store_reader *reader;
};

static void open_writer(struct fixture *f)
{
	struct tm_error err = { 0 };

	if (tm_store_new(f->directory, &f->store, &err) < 0)
		fail_msg("%s", err.detail);
}

static void open_reader(struct fixture *f)
{
	struct tm_error err = { 0 };

	if (tm_store_reader_new(f->directory, &f->reader, &err) < 0)
		fail_msg("%s", err.detail);
}

static void close_both(struct fixture *f)
{
	f->reader = tm_store_reader_free(f->reader);
	f->store = tm_store_free(f->store);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->directory, sizeof(f->directory), "/tmp/test-store-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	(void)snprintf(f->file, sizeof(f->file), "%s/state.db", f->directory);
	open_writer(f);
	open_reader(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
	struct fixture *f = *state;
	char path[160];

	close_both(f);
	for (size_t i = 0; i < TM_ARRAY_SIZE(suffixes); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", f->file, suffixes[i]);
		(void)unlink(path);
	}
	assert_int_equal(rmdir(f->directory), 0);
	free(f);
	return 0;
}

/* Ids that sort and read well: the number in the last group. */
static struct tm_uuid id_of(unsigned int n)
{
	struct tm_uuid id;

	(void)snprintf(id.text, sizeof(id.text), "00000000-0000-4000-8000-%012u", n);
	return id;
}

static struct tm_pool_record pool_of(unsigned int n, const char *name)
{
	struct tm_pool_record p = {
		.id = id_of(n),
		.backing = TM_BACKING_FILE,
		.directory = "/srv/pools/one",
		.sparse = true,
		.block_bytes = 65536,
		.zeroing = true,
		.discard_passdown = true,
		.when_full = TM_WHEN_FULL_ERROR,
		.data_bytes = 1,
		.data_reserve_bytes = 2,
		.metadata_bytes = 3,
		.metadata_reserve_bytes = 4,
		.low_water_bytes = 5,
		.transaction_id = UINT64_MAX,
		.next_dev_id = TM_DEV_ID_MAX,
		.active = true,
		.policy = {
			.data = { true, 20, 30, 4096, UINT64_MAX - 1 },
			.metadata = { false, 21, 31, 8192, 77 },
			.activate_at_start = true,
			.sample_seconds = 15,
			.repair = TM_REPAIR_MANUAL,
			.keep_copies = 3,
			.keep_days = 99,
			.copy_hours = 77,
			.check_days = 66,
			.check_volumes = true,
		},
		.checked_usec = 1234567890123457,
		.copied_usec = 1234567890123458,
		.created_usec = 1234567890123456,
	};

	(void)snprintf(p.name, sizeof(p.name), "%s", name);
	return p;
}

static struct tm_volume_record volume_of(unsigned int n, const char *name)
{
	struct tm_volume_record v = {
		.id = id_of(n),
		.dev_id = n,
		.size_bytes = TM_TIB,
		.origin = id_of(999),
		.active = true,
		.read_only = true,
		.created_usec = 42,
	};

	(void)snprintf(v.name, sizeof(v.name), "%s", name);
	return v;
}

static void put_pool(struct fixture *f, unsigned int n, const char *name)
{
	struct tm_pool_record p = pool_of(n, name);
	struct tm_error err = { 0 };

	if (tm_store_put_pool(f->store, &p, &err) < 0)
		fail_msg("%s", err.detail);
}

static size_t count_pools(struct fixture *f)
{
	struct tm_pool_record *pools = NULL;
	size_t n = 0;

	assert_int_equal(tm_store_load_pools(f->store, &pools, &n, NULL), 0);
	free(pools);
	return n;
}

static void assert_same_pool(const struct tm_pool_record *a, const struct tm_pool_record *b)
{
	/* Field by field: padding need not be the same. */
	assert_string_equal(a->id.text, b->id.text);
	assert_string_equal(a->name, b->name);
	assert_int_equal(a->backing, b->backing);
	assert_string_equal(a->directory, b->directory);
	assert_int_equal(a->sparse, b->sparse);
	assert_int_equal(a->block_bytes, b->block_bytes);
	assert_int_equal(a->zeroing, b->zeroing);
	assert_int_equal(a->discard, b->discard);
	assert_int_equal(a->discard_passdown, b->discard_passdown);
	assert_int_equal(a->when_full, b->when_full);
	assert_int_equal(a->data_bytes, b->data_bytes);
	assert_int_equal(a->data_reserve_bytes, b->data_reserve_bytes);
	assert_int_equal(a->metadata_bytes, b->metadata_bytes);
	assert_int_equal(a->metadata_reserve_bytes, b->metadata_reserve_bytes);
	assert_int_equal(a->low_water_bytes, b->low_water_bytes);
	assert_int_equal(a->transaction_id, b->transaction_id);
	assert_int_equal(a->next_dev_id, b->next_dev_id);
	assert_int_equal(a->active, b->active);
	for (int i = 0; i < 2; i++) {
		const struct tm_extend_policy *x = i ? &a->policy.metadata : &a->policy.data;
		const struct tm_extend_policy *y = i ? &b->policy.metadata : &b->policy.data;

		assert_int_equal(x->enabled, y->enabled);
		assert_int_equal(x->low_water_percent, y->low_water_percent);
		assert_int_equal(x->step_percent, y->step_percent);
		assert_int_equal(x->step_min_bytes, y->step_min_bytes);
		assert_int_equal(x->maximum_bytes, y->maximum_bytes);
	}
	assert_int_equal(a->policy.activate_at_start, b->policy.activate_at_start);
	assert_int_equal(a->policy.sample_seconds, b->policy.sample_seconds);
	assert_int_equal(a->policy.repair, b->policy.repair);
	assert_int_equal(a->policy.keep_copies, b->policy.keep_copies);
	assert_int_equal(a->policy.keep_days, b->policy.keep_days);
	assert_int_equal(a->policy.copy_hours, b->policy.copy_hours);
	assert_int_equal(a->policy.check_days, b->policy.check_days);
	assert_int_equal(a->policy.check_volumes, b->policy.check_volumes);
	assert_int_equal(a->checked_usec, b->checked_usec);
	assert_int_equal(a->copied_usec, b->copied_usec);
	assert_int_equal(a->created_usec, b->created_usec);
}

static void test_file_is_private(void **state)
{
	struct fixture *f = *state;
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	char path[160];
	struct stat st;

	put_pool(f, 1, "one");
	for (size_t i = 0; i < TM_ARRAY_SIZE(suffixes); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", f->file, suffixes[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
	}
	/* Also when somebody opened it up meanwhile. */
	close_both(f);
	assert_int_equal(chmod(f->file, 0644), 0);
	open_writer(f);
	assert_int_equal(stat(f->file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_pool_round_trip(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_record in = pool_of(1, "one"), out, *all = NULL;
	size_t n = 0;

	assert_int_equal(tm_store_put_pool(f->store, &in, NULL), 0);
	put_pool(f, 2, "a-first");
	assert_int_equal(tm_store_load_pool(f->store, &in.id, &out, NULL), 0);
	assert_same_pool(&in, &out);

	close_both(f);
	open_writer(f);
	assert_int_equal(tm_store_load_pools(f->store, &all, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_string_equal(all[0].name, "a-first");
	assert_same_pool(&in, &all[1]);
	free(all);
}

static void test_sizes_are_apart(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_record p = pool_of(1, "one"), out;
	const struct tm_pool_sizes sizes = { 10, 20, 30, 40, 50 };
	struct tm_uuid nobody = id_of(7);
	struct tm_error err = { 0 };

	assert_int_equal(tm_store_put_pool(f->store, &p, NULL), 0);
	assert_int_equal(tm_store_set_sizes(f->store, &p.id, &sizes, NULL), 0);
	/* What an operation held since before must not turn the sizes back. */
	(void)snprintf(p.name, sizeof(p.name), "renamed");
	p.transaction_id = 8;
	p.policy.data.step_percent = 99;
	assert_int_equal(tm_store_put_pool(f->store, &p, NULL), 0);
	assert_int_equal(tm_store_load_pool(f->store, &p.id, &out, NULL), 0);
	p.data_bytes = 10;
	p.data_reserve_bytes = 20;
	p.metadata_bytes = 30;
	p.metadata_reserve_bytes = 40;
	p.low_water_bytes = 50;
	assert_same_pool(&p, &out);

	assert_int_equal(tm_store_set_sizes(f->store, &nobody, &sizes, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_NOT_FOUND);
}

static void test_checks_are_apart(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_record p = pool_of(1, "one"), out;
	struct tm_uuid nobody = id_of(7);
	struct tm_error err = { 0 };

	p.checked_usec = p.copied_usec = 0;
	assert_int_equal(tm_store_put_pool(f->store, &p, NULL), 0);
	assert_int_equal(tm_store_set_checked(f->store, &p.id, 1234, 1233, NULL), 0);
	/* What was read before does not make it unchecked. */
	p.policy.copy_hours = 1;
	assert_int_equal(tm_store_put_pool(f->store, &p, NULL), 0);
	close_both(f);
	open_writer(f);
	assert_int_equal(tm_store_load_pool(f->store, &p.id, &out, NULL), 0);
	p.checked_usec = 1234;
	p.copied_usec = 1233;
	assert_same_pool(&p, &out);
	open_reader(f);

	assert_int_equal(tm_store_set_checked(f->store, &nobody, 1, 1, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_NOT_FOUND);
}

static void test_uncertain_is_kept(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_record p = pool_of(1, "one");
	char why[64];

	assert_int_equal(tm_store_put_pool(f->store, &p, NULL), 0);
	assert_int_equal(tm_store_get_uncertain(f->store, &p.id, why, sizeof(why), NULL), 0);
	assert_string_equal(why, "");
	assert_int_equal(tm_store_set_uncertain(f->store, &p.id, "No undo.", NULL), 0);
	/* Another change of the pool says nothing about it. */
	assert_int_equal(tm_store_put_pool(f->store, &p, NULL), 0);
	close_both(f);
	open_writer(f);
	assert_int_equal(tm_store_get_uncertain(f->store, &p.id, why, sizeof(why), NULL), 0);
	assert_string_equal(why, "No undo.");
	assert_int_equal(tm_store_set_uncertain(f->store, &p.id, "", NULL), 0);
	assert_int_equal(tm_store_get_uncertain(f->store, &p.id, why, sizeof(why), NULL), 0);
	assert_string_equal(why, "");
}

static void test_names_are_unique(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_record p = pool_of(2, "one");
	struct tm_volume_record v = volume_of(10, "v"), w = volume_of(11, "v"), *all = NULL;
	struct tm_error err = { 0 };
	struct tm_uuid one = id_of(1), two = id_of(2);
	size_t n = 0;

	put_pool(f, 1, "one");
	assert_int_equal(tm_store_put_pool(f->store, &p, &err), -EEXIST);
	assert_int_equal(err.code, TM_ERR_EXISTS);
	assert_int_equal(count_pools(f), 1);
	put_pool(f, 2, "two");
	assert_int_equal(tm_store_put_pool(f->store, &p, NULL), -EEXIST); /* by renaming */

	assert_int_equal(tm_store_put_volume(f->store, &one, &v, NULL), 0);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_store_put_volume(f->store, &one, &w, &err), -EEXIST);
	assert_int_equal(err.code, TM_ERR_EXISTS);
	assert_int_equal(tm_store_put_volume(f->store, &two, &w, NULL), 0);
	/* A device id belongs to one volume of a pool. */
	w = volume_of(12, "other");
	w.dev_id = v.dev_id;
	assert_true(tm_store_put_volume(f->store, &one, &w, NULL) < 0);
	assert_int_equal(tm_store_load_volumes(f->store, &one, &all, &n, NULL), 0);
	assert_int_equal(n, 1);
	free(all);
}

static void expect_suspect(struct fixture *f, const char *expected)
{
	struct tm_volume_record *all = NULL;
	struct tm_uuid one = id_of(1);
	char found[512] = "";
	size_t n = 0;

	assert_int_equal(tm_store_load_volumes(f->store, &one, &all, &n, NULL), 0);
	for (size_t i = 0; i < n; i++)
		(void)snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s:%s@%u ",
			       all[i].name, tm_suspicion_name(all[i].suspect),
			       (unsigned int)all[i].suspect_usec);
	assert_string_equal(found, expected);
	free(all);
}

static void test_suspect(void **state)
{
	struct fixture *f = *state;
	struct tm_volume_record v[4];
	struct tm_uuid one = id_of(1);

	put_pool(f, 1, "one");
	for (unsigned int i = 0; i < 4; i++) {
		const char name[] = { (char)('a' + i), '\0' };

		v[i] = volume_of(10 + i, name);
		v[i].active = i != 1;
		v[i].read_only = i == 2;
		v[i].created_usec = 100 + i;
		assert_int_equal(tm_store_put_volume(f->store, &one, &v[i], NULL), 0);
	}
	expect_suspect(f, "a:@0 b:@0 c:@0 d:@0 ");
	/* Those that it touches, and of an event in time only those that were there. */
	assert_int_equal(tm_store_suspect_pool(f->store, &one, TM_SUSPECT_FAIL, 102, 102, NULL), 0);
	expect_suspect(f, "a:fail@102 b:@0 c:@0 d:@0 ");
	assert_int_equal(tm_store_suspect_pool(f->store, &one, TM_SUSPECT_NO_SPACE, 7, 0, NULL), 0);
	expect_suspect(f, "a:fail@102 b:@0 c:@0 d:no_space@7 ");
	/* An operation that knows nothing of it does not undo it. */
	v[0].size_bytes += 4096;
	assert_int_equal(tm_store_put_volume(f->store, &one, &v[0], NULL), 0);
	assert_int_equal(tm_store_set_suspect(f->store, &v[3].id, TM_SUSPECT_NOT, 500, NULL), 0);
	expect_suspect(f, "a:fail@102 b:@0 c:@0 d:@500 ");
	/* What was before that does not count again. */
	assert_int_equal(tm_store_suspect_pool(f->store, &one, TM_SUSPECT_FAIL, 499, 499, NULL), 0);
	expect_suspect(f, "a:fail@102 b:@0 c:@0 d:@500 ");
	/* A new row says what it is. */
	v[0] = volume_of(20, "e");
	v[0].suspect = TM_SUSPECT_REPAIRED;
	v[0].suspect_usec = 9;
	assert_int_equal(tm_store_put_volume(f->store, &one, &v[0], NULL), 0);
	expect_suspect(f, "a:fail@102 b:@0 c:@0 d:@500 e:repaired@9 ");
}

static void test_volume_round_trip(void **state)
{
	struct fixture *f = *state;
	struct tm_volume_record in = volume_of(10, "v"), second = volume_of(11, "a"), *all = NULL;
	struct tm_uuid one = id_of(1);
	struct tm_error err = { 0 };
	size_t n = 0;

	assert_int_equal(tm_store_put_volume(f->store, &one, &in, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_NOT_FOUND);
	put_pool(f, 1, "one");
	assert_int_equal(tm_store_load_volumes(f->store, &one, &all, &n, NULL), 0);
	assert_int_equal(n, 0);
	assert_null(all);
	second.origin.text[0] = '\0';
	second.active = second.read_only = false;
	assert_int_equal(tm_store_put_volume(f->store, &one, &in, NULL), 0);
	assert_int_equal(tm_store_put_volume(f->store, &one, &second, NULL), 0);
	in.size_bytes = 3;
	assert_int_equal(tm_store_put_volume(f->store, &one, &in, NULL), 0);
	assert_int_equal(tm_store_load_volumes(f->store, &one, &all, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_string_equal(all[0].name, "a");
	assert_string_equal(all[0].origin.text, "");
	assert_false(all[0].active);
	assert_false(all[0].read_only);
	assert_string_equal(all[1].id.text, in.id.text);
	assert_string_equal(all[1].name, "v");
	assert_int_equal(all[1].dev_id, 10);
	assert_int_equal(all[1].size_bytes, 3);
	assert_string_equal(all[1].origin.text, in.origin.text);
	assert_true(all[1].active);
	assert_true(all[1].read_only);
	assert_int_equal(all[1].created_usec, 42);
	free(all);

	assert_int_equal(tm_store_delete_volume(f->store, &in.id, NULL), 0);
	assert_int_equal(tm_store_delete_volume(f->store, &in.id, NULL), 0);
	assert_int_equal(tm_store_load_volumes(f->store, &one, &all, &n, NULL), 0);
	assert_int_equal(n, 1);
	free(all);
}

static struct tm_pool_sample sample_of(unsigned int pool, uint64_t time, uint64_t used)
{
	return (struct tm_pool_sample){
		.pool = id_of(pool),
		.sample = { .time_usec = time,
			    .data_used_bytes = used,
			    .data_total_bytes = 1000,
			    .metadata_used_bytes = used / 2,
			    .metadata_total_bytes = 500,
			    .mode = TM_MODE_WRITE,
			    .count = 1,
			    .data_used_max_bytes = used },
	};
}

static size_t read_samples(struct fixture *f, unsigned int pool, uint64_t step,
			   struct tm_sample **ret)
{
	struct tm_uuid id = id_of(pool);
	struct tm_error err = { 0 };
	size_t n = 0;

	*ret = NULL;
	if (tm_store_read_samples(f->reader, &id, 0, UINT64_MAX, step, 0, ret, &n, &err) < 0)
		fail_msg("%s", err.detail);
	return n;
}

static void test_delete_pool_takes_its_own(void **state)
{
	struct fixture *f = *state;
	struct tm_volume_record v = volume_of(10, "v"), *all = NULL;
	struct tm_pool_sample samples[] = { sample_of(1, 5, 5), sample_of(2, 5, 5),
					    sample_of(3, 5, 5) };
	struct tm_sample *read;
	struct tm_uuid one = id_of(1);
	size_t n = 0;

	put_pool(f, 1, "one");
	put_pool(f, 2, "two");
	assert_int_equal(tm_store_put_volume(f->store, &one, &v, NULL), 0);
	/* The third pool is not there: its sample is dropped and disturbs nobody. */
	assert_int_equal(tm_store_append_samples(f->store, samples, 3, NULL), 0);
	assert_int_equal(tm_store_delete_pool(f->store, &one, NULL), 0);
	assert_int_equal(tm_store_delete_pool(f->store, &one, NULL), 0);
	assert_int_equal(count_pools(f), 1);
	assert_int_equal(tm_store_load_volumes(f->store, &one, &all, &n, NULL), 0);
	assert_int_equal(n, 0);
	put_pool(f, 1, "one"); /* the same id again starts with no history */
	assert_int_equal(read_samples(f, 1, 0, &read), 0);
	assert_int_equal(read_samples(f, 2, 0, &read), 1);
	free(read);
	put_pool(f, 3, "three");
	assert_int_equal(read_samples(f, 3, 0, &read), 0);
}

static void test_transactions(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_record again = pool_of(9, "one");
	struct tm_error err = { 0 };

	assert_int_equal(tm_store_commit(f->store, &err), -EINVAL);
	tm_store_rollback(f->store); /* nothing to do */

	assert_int_equal(tm_store_begin(f->store, NULL), 0);
	put_pool(f, 1, "one");
	put_pool(f, 2, "two");
	tm_store_rollback(f->store);
	assert_int_equal(count_pools(f), 0);

	assert_int_equal(tm_store_begin(f->store, NULL), 0);
	put_pool(f, 1, "one");
	assert_int_equal(tm_store_begin(f->store, NULL), 0); /* nests */
	put_pool(f, 2, "two");
	assert_int_equal(tm_store_commit(f->store, NULL), 0);
	assert_int_equal(tm_store_commit(f->store, NULL), 0);
	assert_int_equal(count_pools(f), 2);

	/* A failure inside takes all of it; what follows fails, and commit too. */
	assert_int_equal(tm_store_begin(f->store, NULL), 0);
	put_pool(f, 3, "three");
	assert_int_equal(tm_store_put_pool(f->store, &again, NULL), -EEXIST);
	(void)snprintf(again.name, sizeof(again.name), "free");
	assert_int_equal(tm_store_put_pool(f->store, &again, NULL), -ECANCELED);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_store_commit(f->store, &err), -ECANCELED);
	assert_int_equal(err.code, TM_ERR_STORE);
	tm_store_rollback(f->store);
	assert_int_equal(count_pools(f), 2);

	/* And the store is as good as new. */
	put_pool(f, 3, "three");
	assert_int_equal(count_pools(f), 3);
}

struct adder {
	struct tm_store *store;
	unsigned int first, n;
	int failures;
};

static void *add_pools(void *userdata)
{
	struct adder *a = userdata;

	for (unsigned int i = 0; i < a->n; i++) {
		char name[32];
		struct tm_pool_record p;

		(void)snprintf(name, sizeof(name), "pool-%u", a->first + i);
		p = pool_of(a->first + i, name);
		if (tm_store_begin(a->store, NULL) < 0 ||
		    tm_store_put_pool(a->store, &p, NULL) < 0 ||
		    tm_store_commit(a->store, NULL) < 0)
			a->failures++;
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct fixture *f = *state;
	struct adder adders[4];
	pthread_t threads[4];

	for (unsigned int i = 0; i < 4; i++) {
		adders[i] = (struct adder){ f->store, 100 * i, 25, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, add_pools, &adders[i]), 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(adders[i].failures, 0);
	}
	assert_int_equal(count_pools(f), 100);
}

static void test_operation_round_trip(void **state)
{
	struct fixture *f = *state;
	struct tm_operation_record in = {
		.id = id_of(1),
		.kind = "volume-create",
		.pool = id_of(2),
		.pool_name = "one",
		.volume_name = "v",
		.status = TM_OP_RUNNING,
		.step = 3,
		.n_steps = 7,
		.step_name = "reserve",
		.state = (char[]){ "{\"a\":1}" },
		.created_usec = 1,
		.started_usec = 2,
		.finished_usec = 3,
		.idempotency_key = (char[]){ "k" },
	};
	struct tm_operation_record out, *all = NULL;
	struct tm_error err = { 0 };
	struct tm_uuid nobody = id_of(99);
	size_t n = 0;

	(void)tm_error_set(&in.error, TM_ERR_NO_SPACE, ENOSPC, "no room");
	tm_error_hint(&in.error, "make some");
	(void)snprintf(in.error.field, sizeof(in.error.field), "/size");
	assert_int_equal(tm_store_put_operation(f->store, &in, NULL), 0);
	assert_int_equal(tm_store_read_operation(f->reader, &in.id, &out, NULL), 0);
	assert_string_equal(out.kind, "volume-create");
	assert_string_equal(out.pool.text, in.pool.text);
	assert_string_equal(out.pool_name, "one");
	assert_string_equal(out.volume_name, "v");
	assert_int_equal(out.status, TM_OP_RUNNING);
	assert_int_equal(out.step, 3);
	assert_int_equal(out.n_steps, 7);
	assert_string_equal(out.step_name, "reserve");
	assert_string_equal(out.state, "{\"a\":1}");
	assert_string_equal(out.idempotency_key, "k");
	assert_int_equal(out.error.code, TM_ERR_NO_SPACE);
	assert_int_equal(out.error.errnum, ENOSPC);
	assert_string_equal(out.error.field, "/size");
	assert_string_equal(out.error.detail, "no room");
	assert_string_equal(out.error.hint, "make some");
	assert_int_equal(out.created_usec, 1);
	assert_int_equal(out.started_usec, 2);
	assert_int_equal(out.finished_usec, 3);
	tm_operation_record_done(&out);
	assert_null(out.state);

	assert_int_equal(
		tm_store_step_operation(f->store, &in.id, TM_OP_UNDOING, 4, "undo", NULL, NULL), 0);
	assert_int_equal(tm_store_read_operation(f->reader, &in.id, &out, NULL), 0);
	assert_int_equal(out.status, TM_OP_UNDOING);
	assert_int_equal(out.step, 4);
	assert_string_equal(out.step_name, "undo");
	assert_string_equal(out.state, "{\"a\":1}");
	tm_operation_record_done(&out);
	assert_int_equal(
		tm_store_step_operation(f->store, &in.id, TM_OP_RUNNING, 5, "x", "{}", NULL), 0);
	assert_int_equal(tm_store_load_unfinished(f->store, &all, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_string_equal(all[0].state, "{}");
	tm_operation_record_done(&all[0]);
	free(all);

	assert_int_equal(tm_store_step_operation(f->store, &nobody, TM_OP_DONE, 0, "", NULL, &err),
			 -ENOENT);
	assert_int_equal(err.code, TM_ERR_NOT_FOUND);
	err = (struct tm_error){ 0 };
	assert_int_equal(tm_store_read_operation(f->reader, &nobody, &out, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_NOT_FOUND);
}

static void test_operation_status_names(void **state)
{
	(void)state;
	assert_string_equal(tm_op_status_name(TM_OP_QUEUED), "queued");
	assert_string_equal(tm_op_status_name(TM_OP_RUNNING), "running");
	assert_string_equal(tm_op_status_name(TM_OP_UNDOING), "undoing");
	assert_string_equal(tm_op_status_name(TM_OP_DONE), "done");
	assert_string_equal(tm_op_status_name(TM_OP_FAILED), "failed");
}

/* The ids' numbers, as text like "3 1 ", of what a filter gives. */
static void assert_operations(struct fixture *f, const struct tm_operation_filter *filter,
			      const char *expected)
{
	struct tm_operation_record *all = NULL;
	char text[128] = "";
	size_t n = 0, len = 0;

	assert_int_equal(tm_store_read_operations(f->reader, filter, &all, &n, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%d ",
					(int)strtol(all[i].id.text + 24, NULL, 10));
		tm_operation_record_done(&all[i]);
	}
	free(all);
	assert_string_equal(text, expected);
}

static void test_operation_lists(void **state)
{
	struct fixture *f = *state;
	/* Made in this order; the clock went back between the second and the third. */
	static const struct {
		unsigned int id, pool;
		enum tm_op_status status;
		uint64_t created;
	} rows[] = {
		{ 5, 1, TM_OP_DONE, 100 },    { 4, 1, TM_OP_RUNNING, 200 },
		{ 3, 2, TM_OP_QUEUED, 150 },  { 2, 1, TM_OP_FAILED, 300 },
		{ 1, 2, TM_OP_UNDOING, 400 },
	};
	struct tm_uuid one = id_of(1), four = id_of(4);
	struct tm_operation_record *all = NULL;
	size_t n = 0;

	for (size_t i = 0; i < TM_ARRAY_SIZE(rows); i++) {
		struct tm_operation_record r = {
			.id = id_of(rows[i].id),
			.pool = id_of(rows[i].pool),
			.status = rows[i].status,
			.created_usec = rows[i].created,
			.finished_usec = rows[i].created,
		};

		assert_int_equal(tm_store_put_operation(f->store, &r, NULL), 0);
		/* Replaced, it keeps its place. */
		assert_int_equal(tm_store_put_operation(f->store, &r, NULL), 0);
	}
	assert_operations(f, &(struct tm_operation_filter){ .status = -1 }, "1 2 3 4 5 ");
	assert_operations(f, &(struct tm_operation_filter){ .status = -1, .limit = 2 }, "1 2 ");
	assert_operations(f, &(struct tm_operation_filter){ .status = -1, .pool = &one }, "2 4 5 ");
	assert_operations(f, &(struct tm_operation_filter){ .status = TM_OP_DONE }, "5 ");
	assert_operations(f, &(struct tm_operation_filter){ .status = -1, .before_usec = 200 },
			  "3 5 ");
	assert_operations(f, &(struct tm_operation_filter){ .status = -1, .before = &four }, "5 ");
	assert_operations(f,
			  &(struct tm_operation_filter){
				  .status = TM_OP_RUNNING, .pool = &one, .before_usec = 1000 },
			  "4 ");

	assert_int_equal(tm_store_load_unfinished(f->store, &all, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_string_equal(all[0].id.text, id_of(4).text);
	assert_string_equal(all[1].id.text, id_of(3).text);
	assert_string_equal(all[2].id.text, id_of(1).text);
	for (size_t i = 0; i < n; i++)
		tm_operation_record_done(&all[i]);
	free(all);

	/* Only finished ones grow old. */
	assert_int_equal(tm_store_rollup(f->store, 1250, 1000, NULL), 0);
	assert_operations(f, &(struct tm_operation_filter){ .status = -1 }, "1 2 3 4 ");
	assert_int_equal(tm_store_rollup(f->store, 10000, 1000, NULL), 0);
	assert_operations(f, &(struct tm_operation_filter){ .status = -1 }, "1 3 4 ");
}

static void append_event(struct fixture *f, enum tm_event_type type, unsigned int pool,
			 uint64_t time, uint64_t expected_seq)
{
	struct tm_event e = { .time_usec = time, .type = type, .message = "m" };
	struct tm_error err = { 0 };

	if (pool)
		e.pool = id_of(pool);
	if (tm_store_append_events(f->store, &e, 1, &err) < 0)
		fail_msg("%s", err.detail);
	assert_int_equal(e.seq, expected_seq);
}

static void assert_events(struct fixture *f, const struct tm_event_filter *filter,
			  const char *expected)
{
	struct tm_event *all = NULL;
	char text[128] = "";
	size_t n = 0, len = 0;

	assert_int_equal(tm_store_read_events(f->reader, filter, &all, &n, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%" PRIu64 " ", all[i].seq);
		tm_event_done(&all[i]);
	}
	free(all);
	assert_string_equal(text, expected);
}

static void test_event_round_trip(void **state)
{
	struct fixture *f = *state;
	struct tm_event in[2] = {
		{ .time_usec = 5,
		  .type = TM_EVENT_EXTENDED,
		  .pool = id_of(1),
		  .pool_name = "one",
		  .volume_name = "v",
		  .operation = "op",
		  .message = "it's \"done\"",
		  .data = (char[]){ "{\"to\":1}" } },
		{ .time_usec = 6, .type = TM_EVENT_DAEMON_STARTED },
	};
	struct tm_event *out = NULL;
	uint64_t last = 77;
	size_t n = 0;

	assert_int_equal(tm_store_last_seq(f->reader, &last, NULL), 0);
	assert_int_equal(last, 0);
	assert_int_equal(tm_store_append_events(f->store, in, 2, NULL), 0);
	assert_int_equal(in[0].seq, 1);
	assert_int_equal(in[1].seq, 2);
	assert_int_equal(tm_store_read_events(f->reader, &(struct tm_event_filter){ .type = -1 },
					      &out, &n, NULL),
			 0);
	assert_int_equal(n, 2);
	assert_int_equal(out[0].seq, 1);
	assert_int_equal(out[0].time_usec, 5);
	assert_int_equal(out[0].type, TM_EVENT_EXTENDED);
	assert_string_equal(out[0].pool.text, in[0].pool.text);
	assert_string_equal(out[0].pool_name, "one");
	assert_string_equal(out[0].volume_name, "v");
	assert_string_equal(out[0].operation, "op");
	assert_string_equal(out[0].message, "it's \"done\"");
	assert_string_equal(out[0].data, "{\"to\":1}");
	assert_string_equal(out[1].pool.text, "");
	assert_null(out[1].data);
	for (size_t i = 0; i < n; i++)
		tm_event_done(&out[i]);
	free(out);
	assert_int_equal(tm_store_last_seq(f->reader, &last, NULL), 0);
	assert_int_equal(last, 2);
}

static void test_event_filters(void **state)
{
	struct fixture *f = *state;
	struct tm_uuid one = id_of(1);

	append_event(f, TM_EVENT_DAEMON_STARTED, 0, 100, 1);
	append_event(f, TM_EVENT_LOW_SPACE, 1, 200, 2);
	append_event(f, TM_EVENT_EXTENDED, 1, 300, 3);
	append_event(f, TM_EVENT_LOW_SPACE, 2, 400, 4);
	append_event(f, TM_EVENT_OUT_OF_SPACE, 1, 500, 5);

	assert_events(f, &(struct tm_event_filter){ .type = -1 }, "1 2 3 4 5 ");
	assert_events(f, &(struct tm_event_filter){ .type = -1, .newest_first = true, .limit = 2 },
		      "5 4 ");
	assert_events(f, &(struct tm_event_filter){ .type = -1, .after_seq = 3 }, "4 5 ");
	assert_events(f, &(struct tm_event_filter){ .type = -1, .after_seq = UINT64_MAX }, "");
	assert_events(f,
		      &(struct tm_event_filter){
			      .type = -1, .after_seq = 1, .before_seq = 4, .newest_first = true },
		      "3 2 ");
	assert_events(f, &(struct tm_event_filter){ .type = -1, .pool = &one }, "2 3 5 ");
	assert_events(f, &(struct tm_event_filter){ .type = TM_EVENT_LOW_SPACE }, "2 4 ");
	assert_events(f,
		      &(struct tm_event_filter){ .type = -1, .since_usec = 200, .until_usec = 400 },
		      "2 3 ");
	assert_events(f, &(struct tm_event_filter){ .type = -1, .min_severity = TM_SEV_NOTICE },
		      "2 4 5 ");
	assert_events(f, &(struct tm_event_filter){ .type = -1, .min_severity = TM_SEV_CRITICAL },
		      "5 ");
	assert_events(f,
		      &(struct tm_event_filter){ .type = TM_EVENT_LOW_SPACE,
						 .pool = &one,
						 .after_seq = 1,
						 .since_usec = 1,
						 .until_usec = 1000,
						 .min_severity = TM_SEV_NOTICE },
		      "2 ");
}

static void test_event_limit(void **state)
{
	struct fixture *f = *state;
	struct tm_event *events = calloc(1100, sizeof(*events)), *out = NULL;
	static const uint32_t limits[] = { 0, 1000, 5000 };
	size_t n;

	assert_non_null(events);
	assert_int_equal(tm_store_append_events(f->store, events, 1100, NULL), 0);
	assert_int_equal(events[1099].seq, 1100);
	free(events);
	for (size_t i = 0; i < TM_ARRAY_SIZE(limits); i++) {
		assert_int_equal(tm_store_read_events(f->reader,
						      &(struct tm_event_filter){
							      .type = -1, .limit = limits[i] },
						      &out, &n, NULL),
				 0);
		assert_int_equal(n, 1000);
		free(out);
	}
}

static void test_numbers_never_repeat(void **state)
{
	struct fixture *f = *state;
	struct tm_event e = { .time_usec = 3 };
	uint64_t last = 0;

	append_event(f, TM_EVENT_LOW_SPACE, 0, 1, 1);
	append_event(f, TM_EVENT_LOW_SPACE, 0, 2, 2);
	assert_int_equal(tm_store_rollup(f->store, 10 * DAY, DAY, NULL), 0);
	assert_events(f, &(struct tm_event_filter){ .type = -1 }, "");
	assert_int_equal(tm_store_last_seq(f->reader, &last, NULL), 0);
	assert_int_equal(last, 2);
	close_both(f);
	open_writer(f);
	open_reader(f);
	append_event(f, TM_EVENT_LOW_SPACE, 0, 3, 3);

	/* A number that was never committed was never seen. */
	assert_int_equal(tm_store_begin(f->store, NULL), 0);
	assert_int_equal(tm_store_append_events(f->store, &e, 1, NULL), 0);
	tm_store_rollback(f->store);
	append_event(f, TM_EVENT_LOW_SPACE, 0, 4, 4);
	assert_events(f, &(struct tm_event_filter){ .type = -1 }, "3 4 ");
}

static void test_old_events_go(void **state)
{
	struct fixture *f = *state;
	struct tm_event *events = calloc(11000, sizeof(*events));

	/* More than one batch of deletion. */
	assert_non_null(events);
	for (size_t i = 0; i < 11000; i++)
		events[i].time_usec = i < 10999 ? DAY : 3 * DAY;
	assert_int_equal(tm_store_append_events(f->store, events, 11000, NULL), 0);
	free(events);
	assert_int_equal(tm_store_rollup(f->store, 4 * DAY, 5 * DAY, NULL), 0);
	assert_events(f, &(struct tm_event_filter){ .type = -1, .limit = 1 }, "1 ");
	assert_int_equal(tm_store_rollup(f->store, 4 * DAY, 2 * DAY, NULL), 0);
	assert_events(f, &(struct tm_event_filter){ .type = -1 }, "11000 ");
	/* Exactly at the edge it stays. */
	assert_int_equal(tm_store_rollup(f->store, 5 * DAY, 2 * DAY, NULL), 0);
	assert_events(f, &(struct tm_event_filter){ .type = -1 }, "11000 ");
}

static void test_samples(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_sample in[] = { sample_of(1, 30 * SEC, 10), sample_of(1, 10 * SEC, 30),
				       sample_of(1, 20 * SEC, 20), sample_of(2, 20 * SEC, 99) };
	struct tm_uuid one = id_of(1);
	struct tm_sample *out;
	size_t n = 0;

	in[1].sample.mode = TM_MODE_READ_ONLY;
	put_pool(f, 1, "one");
	put_pool(f, 2, "two");
	assert_int_equal(tm_store_append_samples(f->store, in, TM_ARRAY_SIZE(in), NULL), 0);
	assert_int_equal(read_samples(f, 1, 0, &out), 3);
	assert_int_equal(out[0].time_usec, 10 * SEC);
	assert_int_equal(out[0].data_used_bytes, 30);
	assert_int_equal(out[0].mode, TM_MODE_READ_ONLY);
	assert_int_equal(out[1].data_total_bytes, 1000);
	assert_int_equal(out[2].metadata_used_bytes, 5);
	assert_int_equal(out[2].metadata_total_bytes, 500);
	assert_int_equal(out[2].count, 1);
	free(out);

	/* The second [10 s, 30 s) is left open at its end; buckets of 20 s begin at 0 and 20. */
	assert_int_equal(
		tm_store_read_samples(f->reader, &one, 10 * SEC, 30 * SEC, 0, 0, &out, &n, NULL),
		0);
	assert_int_equal(n, 2);
	free(out);
	assert_int_equal(read_samples(f, 1, 20 * SEC, &out), 2);
	assert_int_equal(out[0].time_usec, 0);
	assert_int_equal(out[0].count, 1);
	assert_int_equal(out[1].time_usec, 20 * SEC);
	assert_int_equal(out[1].data_used_bytes, 10);
	assert_int_equal(out[1].data_used_max_bytes, 20);
	assert_int_equal(out[1].count, 2);
	assert_int_equal(out[1].mode, TM_MODE_WRITE);
	free(out);
	for (uint32_t limit = 1; limit <= 3; limit++) {
		assert_int_equal(tm_store_read_samples(f->reader, &one, 0, UINT64_MAX, 0, limit,
						       &out, &n, NULL),
				 0);
		assert_int_equal(n, limit);
		assert_int_equal(out[0].time_usec, 10 * SEC);
		free(out);
	}
	/* Twice the same time: the later word counts. */
	in[0] = sample_of(1, 30 * SEC, 11);
	assert_int_equal(tm_store_append_samples(f->store, in, 1, NULL), 0);
	assert_int_equal(read_samples(f, 1, 0, &out), 3);
	assert_int_equal(out[2].data_used_bytes, 11);
	free(out);
}

/* Data use at a time, with a short peak that only the highest value can show. */
static uint64_t model_used(uint64_t step)
{
	return step % 17 == 3 ? 1000000 + step : step;
}

/*
 * Three years, a sample every 20 minutes and for some hours every 10 seconds, rolled up along the
 * way; at the end every bucket is compared with what the samples themselves say.
 */
static void test_rollup_three_years(void **state)
{
	struct fixture *f = *state;
	const uint64_t t0 = 1700000000 * SEC, end = t0 + 3 * 365 * DAY;
	struct tm_pool_sample *batch = calloc(20000, sizeof(*batch));
	uint64_t *times = calloc(120000, sizeof(*times)), t = t0;
	uint64_t raw_edge, minute_edge, hour_edge, total = 0, expected_total = 0;
	size_t n_times = 0, n_batch = 0, n, at = 0;
	struct tm_sample *out;

	assert_non_null(batch);
	assert_non_null(times);
	put_pool(f, 1, "one");
	for (uint64_t next_rollup = t0; t < end;) {
		uint64_t step = n_times;

		batch[n_batch] = sample_of(1, t, model_used(step));
		if (step % 1000 == 0)
			batch[n_batch].sample.mode = TM_MODE_OUT_OF_DATA_SPACE;
		n_batch++;
		times[n_times++] = t;
		assert_true(n_times < 120000);
		/* Dense at the start, around a month before the end, and on the last day. */
		if (t < t0 + 4 * HOUR || (t > end - 31 * DAY && t < end - 31 * DAY + 8 * HOUR) ||
		    t > end - 30 * HOUR)
			t += 10 * SEC;
		else
			t += 1200 * SEC + 7;
		if (t >= next_rollup || n_batch == 20000) {
			assert_int_equal(tm_store_append_samples(f->store, batch, n_batch, NULL),
					 0);
			assert_int_equal(tm_store_rollup(f->store, t, 365 * DAY, NULL), 0);
			n_batch = 0;
			next_rollup = t + 13 * DAY + 5 * HOUR;
		}
	}
	assert_int_equal(tm_store_append_samples(f->store, batch, n_batch, NULL), 0);
	assert_int_equal(tm_store_rollup(f->store, end, 365 * DAY, NULL), 0);
	assert_int_equal(tm_store_rollup(f->store, end, 365 * DAY, NULL), 0); /* changes nothing */

	raw_edge = tm_round_down(end - DAY, 60 * SEC);
	minute_edge = tm_round_down(end - 30 * DAY, HOUR);
	hour_edge = tm_round_down(end - 730 * DAY, HOUR);
	n = read_samples(f, 1, 0, &out);
	while (at < n_times && times[at] < hour_edge)
		at++;
	expected_total = n_times - at;
	for (size_t i = 0; i < n; i++) {
		uint64_t width = out[i].time_usec >= raw_edge      ? 1
				 : out[i].time_usec >= minute_edge ? 60 * SEC
								   : HOUR;
		uint64_t highest = 0, last = 0;
		enum tm_pool_mode worst = TM_MODE_WRITE;
		uint32_t count = 0;

		assert_true(at < n_times);
		assert_int_equal(out[i].time_usec, tm_round_down(times[at], width));
		for (; at < n_times && times[at] < out[i].time_usec + width; at++) {
			last = model_used(at);
			highest = last > highest ? last : highest;
			worst = at % 1000 == 0 ? TM_MODE_OUT_OF_DATA_SPACE : worst;
			count++;
		}
		assert_int_equal(out[i].count, count);
		assert_int_equal(out[i].data_used_bytes, last);
		assert_int_equal(out[i].metadata_used_bytes, last / 2);
		assert_int_equal(out[i].data_used_max_bytes, highest);
		assert_int_equal(out[i].mode, worst);
		total += count;
	}
	assert_int_equal(at, n_times);
	assert_int_equal(total, expected_total);
	free(out);

	/* Joined into days at reading: nothing is lost or counted twice. */
	n = read_samples(f, 1, DAY, &out);
	assert_true(n >= 729 && n <= 732);
	total = 0;
	for (size_t i = 0; i < n; i++) {
		total += out[i].count;
		assert_int_equal(out[i].time_usec % DAY, 0);
		assert_true(i == 0 || out[i].time_usec > out[i - 1].time_usec);
	}
	assert_int_equal(total, expected_total);
	free(out);
	free(times);
	free(batch);
}

/* A sample that comes when its bucket is made already: the clock had been set back. */
static void test_rollup_late_samples(void **state)
{
	struct fixture *f = *state;
	const uint64_t t = 100 * DAY;
	struct tm_pool_sample first = sample_of(1, t + 30 * SEC, 50);
	struct tm_pool_sample late = sample_of(1, t + 10 * SEC, 70);
	struct tm_pool_sample newer = sample_of(1, t + 40 * SEC, 20);
	struct tm_sample *out;

	put_pool(f, 1, "one");
	assert_int_equal(tm_store_append_samples(f->store, &first, 1, NULL), 0);
	assert_int_equal(tm_store_rollup(f->store, t + 2 * DAY, DAY, NULL), 0);
	assert_int_equal(tm_store_append_samples(f->store, &late, 1, NULL), 0);
	assert_int_equal(tm_store_rollup(f->store, t + 2 * DAY, DAY, NULL), 0);
	assert_int_equal(read_samples(f, 1, 0, &out), 1);
	assert_int_equal(out[0].time_usec, t);
	assert_int_equal(out[0].data_used_bytes, 50);
	assert_int_equal(out[0].data_used_max_bytes, 70);
	assert_int_equal(out[0].count, 2);
	free(out);
	assert_int_equal(tm_store_append_samples(f->store, &newer, 1, NULL), 0);
	assert_int_equal(tm_store_rollup(f->store, t + 60 * DAY, DAY, NULL), 0);
	assert_int_equal(read_samples(f, 1, 0, &out), 1);
	assert_int_equal(out[0].data_used_bytes, 20);
	assert_int_equal(out[0].data_used_max_bytes, 70);
	assert_int_equal(out[0].count, 3);
	free(out);
	/* A clock near zero rolls nothing up and deletes nothing. */
	assert_int_equal(tm_store_rollup(f->store, 0, DAY, NULL), 0);
	assert_int_equal(tm_store_rollup(f->store, 5, DAY, NULL), 0);
	assert_int_equal(read_samples(f, 1, 0, &out), 1);
	free(out);
}

static uint64_t scalar(struct tm_db *db, const char *sql)
{
	tm_auto_query struct tm_query q = { 0 };

	assert_int_equal(tm_query_begin(&q, db, sql, "test", NULL), 0);
	assert_int_equal(tm_query_step(&q), 1);
	return tm_get_u64(&q);
}

static void test_durability_levels(void **state)
{
	struct fixture *f = *state;
	struct tm_pool_sample s = sample_of(1, 1, 1);
	const uint64_t normal = 1, full = 2;

	assert_int_equal(scalar(&f->store->db, "PRAGMA synchronous"), full);
	put_pool(f, 1, "one");
	assert_int_equal(tm_store_append_samples(f->store, &s, 1, NULL), 0);
	assert_int_equal(scalar(&f->store->db, "PRAGMA synchronous"), normal);
	put_pool(f, 2, "two");
	assert_int_equal(scalar(&f->store->db, "PRAGMA synchronous"), full);
	/* As part of a change of state, samples are as durable as that. */
	assert_int_equal(tm_store_begin(f->store, NULL), 0);
	assert_int_equal(tm_store_append_samples(f->store, &s, 1, NULL), 0);
	assert_int_equal(scalar(&f->store->db, "PRAGMA synchronous"), full);
	assert_int_equal(tm_store_commit(f->store, NULL), 0);
	assert_int_equal(scalar(&f->store->db, "PRAGMA foreign_keys"), 1);
}

/*
 * The child writes and tells each finished commit through a pipe; it is killed at a random moment.
 * Whatever was told must be there, whole, and the numbers go on.
 */
static void test_kill_while_writing(void **state)
{
	struct fixture *f = *state;
	uint64_t last_seq = 0;

	close_both(f);
	for (unsigned int round = 0; round < 12; round++) {
		struct timespec pause = { 0, (long)(3 + round * 4) * 1000000 };
		uint64_t told = 0, n_events, word;
		int pipes[2], status;
		pid_t pid;

		assert_int_equal(pipe(pipes), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			struct tm_store *s = NULL;

			(void)close(pipes[0]);
			if (tm_store_new(f->directory, &s, NULL) < 0)
				_exit(1);
			for (unsigned int i = 0;; i++) {
				char name[64];
				struct tm_pool_record p;
				struct tm_event e[2] = { { .time_usec = 1 }, { .time_usec = 1 } };

				(void)snprintf(name, sizeof(name), "r%u-%u", round, i);
				p = pool_of(round * 1000000 + i, name);
				e[0].pool = e[1].pool = p.id;
				if (tm_store_begin(s, NULL) < 0 ||
				    tm_store_put_pool(s, &p, NULL) < 0 ||
				    tm_store_append_events(s, e, 2, NULL) < 0 ||
				    tm_store_commit(s, NULL) < 0)
					_exit(2);
				if (write(pipes[1], &e[1].seq, sizeof(e[1].seq)) !=
				    (ssize_t)sizeof(e[1].seq))
					_exit(3);
			}
		}
		(void)close(pipes[1]);
		/* Not before it has begun to write. */
		assert_int_equal(read(pipes[0], &told, sizeof(told)), sizeof(told));
		assert_true(told > last_seq);
		(void)nanosleep(&pause, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		while (read(pipes[0], &word, sizeof(word)) == (ssize_t)sizeof(word)) {
			assert_true(word > told);
			told = word;
		}
		(void)close(pipes[0]);

		open_writer(f);
		open_reader(f);
		assert_int_equal(tm_store_last_seq(f->reader, &last_seq, NULL), 0);
		/* All that was told, and at most the one commit that was not. */
		assert_in_range(last_seq, told, told + 2);
		n_events = scalar(&f->store->db, "SELECT count(*) FROM events");
		assert_int_equal(n_events, 2 * count_pools(f));
		assert_int_equal(n_events, last_seq);
		close_both(f);
	}
	open_writer(f);
	open_reader(f);
}

static void test_disk_full(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, small = { 0 };
	struct tm_error err = { 0 };
	size_t before, n = 0;
	int r = 0;

	put_pool(f, 1, "one");
	before = count_pools(f);
	/* SIGXFSZ would end the process; ignored, write() fails as on a full disk. */
	assert_ptr_not_equal(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = (rlim_t)256 * 1024;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (unsigned int i = 2; r == 0 && i < 5000; i++, n += r == 0) {
		char name[32];
		struct tm_pool_record p;

		(void)snprintf(name, sizeof(name), "pool-%u", i);
		p = pool_of(i, name);
		r = tm_store_put_pool(f->store, &p, &err);
	}
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(err.code, TM_ERR_STORE);
	assert_int_equal(err.errnum, ENOSPC);
	assert_non_null(strstr(err.hint, "Free space"));
	assert_int_equal(count_pools(f), before + n);
	/* With room again it goes on, in the same process and in the next. */
	put_pool(f, 9999, "after");
	close_both(f);
	open_writer(f);
	assert_int_equal(count_pools(f), before + n + 1);
}

static void test_disk_full_in_pages(void **state)
{
	struct fixture *f = *state;
	struct tm_error err = { 0 };
	struct tm_event *events = calloc(20000, sizeof(*events));

	assert_non_null(events);
	put_pool(f, 1, "one");
	assert_int_equal(tm_db_exec(&f->store->db, "PRAGMA max_page_count=40", "test", NULL), 0);
	/* Within a change of the caller: SQLite rolls it back by itself, and no part of it stays.
	 */
	assert_int_equal(tm_store_begin(f->store, NULL), 0);
	put_pool(f, 2, "two");
	assert_int_equal(tm_store_append_events(f->store, events, 20000, &err), -ENOSPC);
	assert_int_equal(err.code, TM_ERR_STORE);
	assert_int_equal(events[0].seq, 0);
	assert_int_equal(tm_store_append_events(f->store, events, 1, NULL), -ECANCELED);
	assert_int_equal(tm_store_commit(f->store, NULL), -ECANCELED);
	free(events);
	assert_int_equal(count_pools(f), 1);
	append_event(f, TM_EVENT_LOW_SPACE, 0, 1, 1);
}

static void overwrite(const char *path, off_t offset, size_t len)
{
	char *junk = malloc(len);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_non_null(junk);
	memset(junk, 0xa5, len);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, junk, len, offset), len);
	(void)close(fd);
	free(junk);
}

static void assert_refused(struct fixture *f, int expected)
{
	struct tm_store *s = NULL;
	struct tm_error err = { 0 };

	assert_int_equal(tm_store_new(f->directory, &s, &err), expected);
	assert_null(s);
	assert_int_equal(err.code, TM_ERR_STORE);
	assert_non_null(strstr(err.detail, f->file));
	assert_true(err.hint[0]);
}

static void test_damaged_header_refused(void **state)
{
	struct fixture *f = *state;

	put_pool(f, 1, "one");
	close_both(f);
	overwrite(f->file, 0, 100);
	assert_refused(f, -EBADMSG);
}

static void test_damaged_table_refused(void **state)
{
	struct fixture *f = *state;
	struct tm_error err = { 0 };
	uint64_t page;

	for (unsigned int i = 0; i < 40; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "pool-%u", i);
		put_pool(f, i, name);
	}
	page = scalar(&f->store->db, "SELECT rootpage FROM sqlite_schema WHERE name='pools'");
	close_both(f);
	overwrite(f->file, (off_t)(page - 1) * 4096, 4096);
	assert_refused(f, -EBADMSG);
	/* A reader that was opened by somebody else finds it as well, and says what to do. */
	open_reader(f);
	assert_true(f->reader != NULL);
	assert_int_equal(tm_schema_verify(&f->reader->db, &err), -EBADMSG);
	assert_non_null(strstr(err.hint, "pool import"));
}

static void test_values_we_never_write(void **state)
{
	struct fixture *f = *state;
	static const char *const damage[] = {
		"UPDATE pools SET backing = 'floppy'",
		"UPDATE pools SET when_full = 'panic'",
		"UPDATE pools SET name = printf('%.100c', 'x')",
	};
	struct tm_pool_record *pools = NULL;
	struct tm_uuid one = id_of(1);
	size_t n = 0;

	for (size_t i = 0; i < TM_ARRAY_SIZE(damage); i++) {
		struct tm_pool_record out;
		struct tm_error err = { 0 };

		put_pool(f, 1, "one");
		assert_int_equal(tm_db_exec(&f->store->db, damage[i], "test", NULL), 0);
		assert_int_equal(tm_store_load_pools(f->store, &pools, &n, &err), -EBADMSG);
		assert_int_equal(err.code, TM_ERR_STORE);
		assert_int_equal(tm_store_load_pool(f->store, &one, &out, NULL), -EBADMSG);
	}
}

static void test_newer_schema_refused(void **state)
{
	struct fixture *f = *state;
	struct tm_store_reader *reader = NULL;

	assert_int_equal(tm_db_exec(&f->store->db, "PRAGMA user_version=1000", "test", NULL), 0);
	close_both(f);
	assert_refused(f, -EPROTO);
	assert_int_equal(tm_store_reader_new(f->directory, &reader, NULL), -EPROTO);
}

static void test_foreign_database_refused(void **state)
{
	struct fixture *f = *state;
	sqlite3 *db = NULL;

	close_both(f);
	assert_int_equal(unlink(f->file), 0);
	assert_int_equal(sqlite3_open(f->file, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE shopping (item)", NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_refused(f, -EINVAL);
}

static void test_places_that_do_not_work(void **state)
{
	struct fixture *f = *state;
	struct tm_store *s = NULL;
	struct tm_store_reader *reader = NULL;
	struct tm_error err = { 0 };
	char path[96];

	assert_int_equal(tm_store_new("/nonexistent/thinmgr", &s, &err), -ENOENT);
	assert_int_equal(err.code, TM_ERR_STORE);
	assert_true(err.hint[0]);
	assert_true(tm_store_reader_new("/nonexistent/thinmgr", &reader, NULL) < 0);

	close_both(f);
	(void)snprintf(path, sizeof(path), "%s/elsewhere", f->directory);
	assert_int_equal(rename(f->file, path), 0);
	assert_int_equal(symlink(path, f->file), 0);
	assert_int_equal(tm_store_new(f->directory, &s, NULL), -EINVAL);
	assert_int_equal(unlink(f->file), 0);
	assert_int_equal(rename(path, f->file), 0);

	/* An interrupted first start left an empty file: that is none yet. */
	assert_int_equal(truncate(f->file, 0), 0);
	open_writer(f);
	assert_int_equal(count_pools(f), 0);
}

static void test_read_only_refused(void **state)
{
	struct fixture *f = *state;
	struct tm_error err = { 0 };
	struct tm_pool_record p = pool_of(1, "one");

	assert_int_equal(tm_db_exec(&f->store->db, "PRAGMA query_only=ON", "test", NULL), 0);
	assert_int_equal(tm_store_put_pool(f->store, &p, &err), -EROFS);
	assert_int_equal(err.code, TM_ERR_STORE);
	assert_true(err.hint[0]);
}

struct reading {
	const char *directory;
	volatile bool *stop;
	unsigned int rounds;
	int failures;
};

static void *keep_reading(void *userdata)
{
	struct reading *r = userdata;
	struct tm_store_reader *reader = NULL;
	uint64_t highest = 0;

	if (tm_store_reader_new(r->directory, &reader, NULL) < 0) {
		r->failures++;
		return NULL;
	}
	while (!__atomic_load_n(r->stop, __ATOMIC_ACQUIRE) || r->rounds == 0) {
		struct tm_event *events = NULL;
		size_t n = 0;

		if (tm_store_read_events(reader, &(struct tm_event_filter){ .type = -1 }, &events,
					 &n, NULL) < 0)
			r->failures++;
		/* Events come in pairs; half a pair would be half a transaction. */
		if (n % 2 || (n && events[n - 1].seq < highest))
			r->failures++;
		highest = n ? events[n - 1].seq : highest;
		for (size_t i = 0; i < n; i++)
			tm_event_done(&events[i]);
		free(events);
		r->rounds++;
	}
	(void)tm_store_reader_free(reader);
	return NULL;
}

static void test_two_readers_while_writing(void **state)
{
	struct fixture *f = *state;
	volatile bool stop = false;
	struct reading readings[2];
	pthread_t threads[2];

	for (int i = 0; i < 2; i++) {
		readings[i] = (struct reading){ f->directory, &stop, 0, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, keep_reading, &readings[i]), 0);
	}
	for (unsigned int i = 0; i < 200; i++) {
		struct tm_event e[2] = { { .time_usec = i }, { .time_usec = i } };

		assert_int_equal(tm_store_append_events(f->store, e, 2, NULL), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(readings[i].failures, 0);
		assert_true(readings[i].rounds > 0);
	}
}

/* A reader sees neither the half of a change nor waits for its end. */
static void test_reader_beside_open_change(void **state)
{
	struct fixture *f = *state;
	struct tm_event e = { .time_usec = 1 };

	append_event(f, TM_EVENT_LOW_SPACE, 0, 1, 1);
	assert_int_equal(tm_store_begin(f->store, NULL), 0);
	assert_int_equal(tm_store_append_events(f->store, &e, 1, NULL), 0);
	assert_events(f, &(struct tm_event_filter){ .type = -1 }, "1 ");
	assert_int_equal(tm_store_commit(f->store, NULL), 0);
	assert_events(f, &(struct tm_event_filter){ .type = -1 }, "1 2 ");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_file_is_private),
		TEST(test_pool_round_trip),
		TEST(test_sizes_are_apart),
		TEST(test_checks_are_apart),
		TEST(test_uncertain_is_kept),
		TEST(test_names_are_unique),
		TEST(test_volume_round_trip),
		TEST(test_suspect),
		TEST(test_delete_pool_takes_its_own),
		TEST(test_transactions),
		TEST(test_threads),
		TEST(test_operation_round_trip),
		cmocka_unit_test(test_operation_status_names),
		TEST(test_operation_lists),
		TEST(test_event_round_trip),
		TEST(test_event_filters),
		TEST(test_event_limit),
		TEST(test_numbers_never_repeat),
		TEST(test_old_events_go),
		TEST(test_samples),
		TEST(test_rollup_three_years),
		TEST(test_rollup_late_samples),
		TEST(test_durability_levels),
		TEST(test_kill_while_writing),
		TEST(test_disk_full),
		TEST(test_disk_full_in_pages),
		TEST(test_damaged_header_refused),
		TEST(test_damaged_table_refused),
		TEST(test_values_we_never_write),
		TEST(test_newer_schema_refused),
		TEST(test_foreign_database_refused),
		TEST(test_places_that_do_not_work),
		TEST(test_read_only_refused),
		TEST(test_two_readers_while_writing),
		TEST(test_reader_beside_open_change),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
