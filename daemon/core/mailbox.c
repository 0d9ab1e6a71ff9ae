/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mailbox and crew: see mailbox.h. */

#include "core/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

/* One function to be called; in a list that keeps the order. */
struct letter {
	tm_job_fn fn;
	void *arg;
	struct letter *next;
};

struct queue {
	struct letter *head;
	struct letter **tail;
};

static void queue_init(struct queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void queue_put(struct queue *q, tm_job_fn fn, void *arg)
{
	struct letter *l = calloc(1, sizeof(*l));

	if (!l) {
		tm_log(LOG_CRIT, "Out of memory; stopping so that the journal can be replayed.");
		abort();
	}
	l->fn = fn;
	l->arg = arg;
	*q->tail = l;
	q->tail = &l->next;
}

static void queue_put_first(struct queue *q, tm_job_fn fn, void *arg)
{
	struct letter *rest = q->head, **end = q->tail;

	queue_init(q);
	queue_put(q, fn, arg);
	if (rest) {
		q->head->next = rest;
		q->tail = end;
	}
}

static struct letter *queue_take(struct queue *q)
{
	struct letter *l = q->head;

	if (l) {
		q->head = l->next;
		if (!q->head)
			q->tail = &q->head;
	}
	return l;
}

struct tm_mailbox {
	pthread_mutex_t lock;
	struct queue queue; /* under lock */
	int fd;
	sd_event_source *source;
};

static int mailbox_wake(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct tm_mailbox *m = userdata;
	struct queue batch;
	struct letter *l;
	uint64_t n;

	(void)source;
	(void)revents;
	(void)!read(fd, &n, sizeof(n));
	queue_init(&batch);
	{
		TM_LOCK_SCOPE(&m->lock);
		if (m->queue.head) {
			batch = m->queue;
			queue_init(&m->queue);
		}
	}
	while (batch.head) {
		l = batch.head;
		batch.head = l->next;
		l->fn(l->arg);
		free(l);
	}
	return 0;
}

int tm_mailbox_new(sd_event *event, struct tm_mailbox **ret)
{
	struct tm_mailbox *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	(void)pthread_mutex_init(&m->lock, NULL);
	queue_init(&m->queue);
	m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->fd < 0) {
		r = -errno;
		tm_mailbox_free(m);
		return r;
	}
	r = sd_event_add_io(event, &m->source, m->fd, EPOLLIN, mailbox_wake, m);
	if (r < 0) {
		tm_mailbox_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

struct tm_mailbox *tm_mailbox_free(struct tm_mailbox *m)
{
	struct letter *l;

	if (!m)
		return NULL;
	sd_event_source_disable_unref(m->source);
	while ((l = queue_take(&m->queue)))
		free(l);
	if (m->fd >= 0)
		(void)close(m->fd);
	(void)pthread_mutex_destroy(&m->lock);
	free(m);
	return NULL;
}

void tm_mailbox_post(struct tm_mailbox *m, tm_job_fn fn, void *arg)
{
	const uint64_t one = 1;

	{
		TM_LOCK_SCOPE(&m->lock);
		queue_put(&m->queue, fn, arg);
	}
	(void)!write(m->fd, &one, sizeof(one)); /* EAGAIN: the counter is full, so it is awake */
}

struct tm_crew {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct queue queue; /* under lock */
	bool ending;        /* under lock */
	const char *name;
	unsigned int n_threads, most_threads;
	pthread_t threads[];
};

static void *crew_member(void *arg)
{
	struct tm_crew *c = arg;

	for (;;) {
		struct letter *l;

		{
			TM_LOCK_SCOPE(&c->lock);
			while (!(l = queue_take(&c->queue)) && !c->ending)
				(void)pthread_cond_wait(&c->wake, &c->lock);
		}
		if (!l)
			return NULL;
		l->fn(l->arg);
		free(l);
	}
}

static int add_thread(struct tm_crew *c)
{
	int r = pthread_create(&c->threads[c->n_threads], NULL, crew_member, c);

	if (r)
		return -r;
	(void)pthread_setname_np(c->threads[c->n_threads++], c->name);
	return 0;
}

int tm_crew_new(unsigned int threads, const char *name, struct tm_crew **ret)
{
	const unsigned int most = threads + TM_CREW_SPARE;
	struct tm_crew *c = calloc(1, sizeof(*c) + most * sizeof(c->threads[0]));
	int r;

	if (!c)
		return -ENOMEM;
	(void)pthread_mutex_init(&c->lock, NULL);
	(void)pthread_cond_init(&c->wake, NULL);
	queue_init(&c->queue);
	c->name = name;
	c->most_threads = most;
	for (unsigned int i = 0; i < threads; i++) {
		r = add_thread(c);
		if (r < 0) {
			tm_crew_free(c);
			return r;
		}
	}
	*ret = c;
	return 0;
}

int tm_crew_grow(struct tm_crew *c)
{
	return c->n_threads < c->most_threads ? add_thread(c) : -EAGAIN;
}

struct tm_crew *tm_crew_free(struct tm_crew *c)
{
	if (!c)
		return NULL;
	{
		TM_LOCK_SCOPE(&c->lock);
		c->ending = true;
		(void)pthread_cond_broadcast(&c->wake);
	}
	for (unsigned int i = 0; i < c->n_threads; i++)
		(void)pthread_join(c->threads[i], NULL);
	(void)pthread_cond_destroy(&c->wake);
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
	return NULL;
}

void tm_crew_run(struct tm_crew *c, tm_job_fn fn, void *arg)
{
	TM_LOCK_SCOPE(&c->lock);
	queue_put(&c->queue, fn, arg);
	(void)pthread_cond_signal(&c->wake);
}

void tm_crew_run_first(struct tm_crew *c, tm_job_fn fn, void *arg)
{
	TM_LOCK_SCOPE(&c->lock);
	queue_put_first(&c->queue, fn, arg);
	(void)pthread_cond_signal(&c->wake);
}
