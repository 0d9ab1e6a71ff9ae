/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Letters arrive once, in order, on the main loop; crews do every job and end. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "core/mailbox.h"

#define SENDERS 4
#define LETTERS 2000

struct fixture {
	sd_event *event;
	struct tm_mailbox *mailbox;
	pthread_t loop; /* the thread letters have to be read on */
	unsigned int last[SENDERS];
	unsigned int n_read;
};

struct letter {
	struct fixture *f;
	unsigned int sender, number;
};

static int setup(void **state)
{
	struct fixture *f = test_calloc(1, sizeof(*f));

	assert_true(sd_event_new(&f->event) >= 0);
	assert_int_equal(tm_mailbox_new(f->event, &f->mailbox), 0);
	f->loop = pthread_self();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	f->mailbox = tm_mailbox_free(f->mailbox);
	(void)sd_event_unref(f->event);
	test_free(f);
	return 0;
}

/* Run the loop until @n letters were read; false after ten seconds. */
static bool run_until_read(struct fixture *f, unsigned int n)
{
	const uint64_t end = tm_now_monotonic_usec() + 10 * TM_USEC_PER_SEC;

	while (f->n_read < n) {
		if (tm_now_monotonic_usec() > end)
			return false;
		assert_true(sd_event_run(f->event, 100 * TM_USEC_PER_MSEC) >= 0);
	}
	return true;
}

/* A letter may be read before its sender has rung the bell, which then rings once for nothing. */
static bool loop_is_idle(struct fixture *f)
{
	(void)sd_event_run(f->event, 0);
	return sd_event_run(f->event, 0) == 0;
}

static void read_letter(void *arg)
{
	struct letter *l = arg;

	assert_true(pthread_equal(pthread_self(), l->f->loop));
	assert_int_equal(l->number, l->f->last[l->sender] + 1);
	l->f->last[l->sender] = l->number;
	l->f->n_read++;
}

static void *send_all(void *arg)
{
	struct letter *letters = arg;

	for (unsigned int i = 0; i < LETTERS; i++)
		tm_mailbox_post(letters[i].f->mailbox, read_letter, &letters[i]);
	return NULL;
}

static void keeps_the_order(void **state)
{
	struct fixture *f = *state;
	struct letter(*letters)[LETTERS] = test_calloc(SENDERS, sizeof(*letters));
	pthread_t threads[SENDERS];

	for (unsigned int s = 0; s < SENDERS; s++) {
		for (unsigned int i = 0; i < LETTERS; i++)
			letters[s][i] = (struct letter){ f, s, i + 1 };
		assert_int_equal(pthread_create(&threads[s], NULL, send_all, letters[s]), 0);
	}
	assert_true(run_until_read(f, SENDERS * LETTERS));
	for (unsigned int s = 0; s < SENDERS; s++)
		assert_int_equal(pthread_join(threads[s], NULL), 0);
	assert_int_equal(f->n_read, SENDERS * LETTERS);
	assert_true(loop_is_idle(f));
	test_free(letters);
}

static void read_and_post(void *arg)
{
	struct fixture *f = arg;

	f->n_read++;
	if (f->n_read < 100)
		tm_mailbox_post(f->mailbox, read_and_post, f);
}

/* A letter may post the next: it is read in a later round, so that the loop's other sources have
 * their turn. */
static void posts_from_letters(void **state)
{
	struct fixture *f = *state;

	tm_mailbox_post(f->mailbox, read_and_post, f);
	assert_true(sd_event_run(f->event, 10 * TM_USEC_PER_SEC) >= 0);
	assert_int_equal(f->n_read, 1);
	assert_true(run_until_read(f, 100));
	assert_true(loop_is_idle(f));
	assert_int_equal(f->n_read, 100);
}

static void never(void *arg)
{
	(void)arg;
	fail_msg("a letter was read after the mailbox was gone");
}

static void drops_what_is_left(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 10; i++)
		tm_mailbox_post(f->mailbox, never, NULL);
	f->mailbox = tm_mailbox_free(f->mailbox);
	assert_null(f->mailbox);
	assert_true(loop_is_idle(f));
	assert_null(tm_mailbox_free(NULL));
}

/* ---- crews ----------------------------------------------------------------------------------- */

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int inside, most, done;
	unsigned int wanted; /* all wait inside until there are so many */
	bool late;
};

static void pass_gate(void *arg)
{
	struct gate *g = arg;
	struct timespec end;

	assert_int_equal(clock_gettime(CLOCK_REALTIME, &end), 0);
	end.tv_sec += 10;
	TM_LOCK_SCOPE(&g->lock);
	g->inside++;
	if (g->inside > g->most)
		g->most = g->inside;
	(void)pthread_cond_broadcast(&g->changed);
	while (g->most < g->wanted && !g->late) {
		if (pthread_cond_timedwait(&g->changed, &g->lock, &end) == ETIMEDOUT)
			g->late = true;
	}
	g->inside--;
	g->done++;
}

static void crew_works_in_parallel(void **state)
{
	static const unsigned int threads[] = { 1, 2, 4 };

	(void)state;
	for (size_t i = 0; i < TM_ARRAY_SIZE(threads); i++) {
		struct gate g = { .wanted = threads[i] };
		struct tm_crew *crew = NULL;

		assert_int_equal(pthread_mutex_init(&g.lock, NULL), 0);
		assert_int_equal(pthread_cond_init(&g.changed, NULL), 0);
		assert_int_equal(tm_crew_new(threads[i], "test-crew", &crew), 0);
		for (int job = 0; job < 50; job++)
			tm_crew_run(crew, pass_gate, &g);
		/* Everything that was queued is done before the crew is gone. */
		assert_null(tm_crew_free(crew));
		assert_int_equal(g.done, 50);
		assert_int_equal(g.inside, 0);
		assert_false(g.late);
		assert_int_equal(g.most, threads[i]);
		(void)pthread_cond_destroy(&g.changed);
		(void)pthread_mutex_destroy(&g.lock);
	}
	assert_null(tm_crew_free(NULL));
}

struct sequence {
	unsigned int next;
	bool wrong;
};

struct numbered {
	struct sequence *sequence;
	unsigned int number;
};

static void take_number(void *arg)
{
	struct numbered *n = arg;

	if (n->sequence->next++ != n->number)
		n->sequence->wrong = true;
}

/* The recorder relies on it: one thread, so one after the other as they came. */
static void crew_of_one_keeps_the_order(void **state)
{
	struct numbered jobs[500];
	struct sequence sequence = { 0 };
	struct tm_crew *crew = NULL;

	(void)state;
	assert_int_equal(tm_crew_new(1, "test-crew", &crew), 0);
	for (unsigned int i = 0; i < TM_ARRAY_SIZE(jobs); i++) {
		jobs[i] = (struct numbered){ &sequence, i };
		tm_crew_run(crew, take_number, &jobs[i]);
	}
	assert_null(tm_crew_free(crew));
	assert_int_equal(sequence.next, TM_ARRAY_SIZE(jobs));
	assert_false(sequence.wrong);
}

/* What is urgent goes before what waits, and the newest of it first. */
static void crew_takes_the_urgent_first(void **state)
{
	struct gate g = { .wanted = 2 };
	struct numbered jobs[4];
	struct sequence sequence = { 0 };
	struct tm_crew *crew = NULL;

	(void)state;
	assert_int_equal(pthread_mutex_init(&g.lock, NULL), 0);
	assert_int_equal(pthread_cond_init(&g.changed, NULL), 0);
	assert_int_equal(tm_crew_new(1, "test-crew", &crew), 0);
	tm_crew_run(crew, pass_gate, &g); /* the thread waits in it until the test joins */
	jobs[0] = (struct numbered){ &sequence, 2 };
	jobs[1] = (struct numbered){ &sequence, 3 };
	jobs[2] = (struct numbered){ &sequence, 1 };
	jobs[3] = (struct numbered){ &sequence, 0 };
	{
		TM_LOCK_SCOPE(&g.lock);
		while (!g.inside)
			(void)pthread_cond_wait(&g.changed, &g.lock);
	}
	tm_crew_run(crew, take_number, &jobs[0]);
	tm_crew_run(crew, take_number, &jobs[1]);
	tm_crew_run_first(crew, take_number, &jobs[2]);
	tm_crew_run_first(crew, take_number, &jobs[3]);
	pass_gate(&g);
	assert_null(tm_crew_free(crew));
	assert_int_equal(sequence.next, TM_ARRAY_SIZE(jobs));
	assert_false(sequence.wrong);
	assert_false(g.late);
	(void)pthread_cond_destroy(&g.changed);
	(void)pthread_mutex_destroy(&g.lock);
}

/* One thread hangs until a second one passes: only a crew that grew gets done. */
static void crew_grows(void **state)
{
	struct gate g = { .wanted = 2 };
	struct tm_crew *crew = NULL;
	int r = 0, n = 0;

	(void)state;
	assert_int_equal(pthread_mutex_init(&g.lock, NULL), 0);
	assert_int_equal(pthread_cond_init(&g.changed, NULL), 0);
	assert_int_equal(tm_crew_new(1, "test-crew", &crew), 0);
	tm_crew_run(crew, pass_gate, &g);
	tm_crew_run(crew, pass_gate, &g);
	assert_int_equal(tm_crew_grow(crew), 0);
	for (n = 1; r == 0; n++)
		r = tm_crew_grow(crew);
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(n, TM_CREW_SPARE + 1);
	assert_null(tm_crew_free(crew));
	assert_int_equal(g.done, 2);
	assert_false(g.late);
	(void)pthread_cond_destroy(&g.changed);
	(void)pthread_mutex_destroy(&g.lock);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(keeps_the_order, setup, teardown),
		cmocka_unit_test_setup_teardown(posts_from_letters, setup, teardown),
		cmocka_unit_test_setup_teardown(drops_what_is_left, setup, teardown),
		cmocka_unit_test(crew_works_in_parallel),
		cmocka_unit_test(crew_of_one_keeps_the_order),
		cmocka_unit_test(crew_takes_the_urgent_first),
		cmocka_unit_test(crew_grows),
	};

	return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
