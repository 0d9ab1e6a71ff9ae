/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads. A mailbox runs functions on the main loop on behalf of other threads, in
 * the order they were posted. A crew is a few threads that take jobs from one queue.
 */
#ifndef TM_CORE_MAILBOX_H
#define TM_CORE_MAILBOX_H

#include <stdbool.h>
#include <systemd/sd-event.h>

typedef void (*tm_job_fn)(void *arg);

struct tm_mailbox;

/* 0 or negative errno. */
int tm_mailbox_new(sd_event *event, struct tm_mailbox **ret);
/* Runs nothing more; letters that were never delivered are dropped. */
struct tm_mailbox *tm_mailbox_free(struct tm_mailbox *mailbox);

/* Any thread. Never fails but for memory, which ends the process: a lost letter would lose an
 * operation. */
void tm_mailbox_post(struct tm_mailbox *mailbox, tm_job_fn fn, void *arg);

struct tm_crew;

int tm_crew_new(unsigned int threads, const char *name, struct tm_crew **ret);
/* Waits for running and queued jobs, then ends the threads. */
struct tm_crew *tm_crew_free(struct tm_crew *crew);
/* Any thread. */
void tm_crew_run(struct tm_crew *crew, tm_job_fn fn, void *arg);
/* The same, before all jobs that wait. */
void tm_crew_run_first(struct tm_crew *crew, tm_job_fn fn, void *arg);
/* One more thread, in place of one that hangs; main loop only. 0, or -EAGAIN when it has
 * TM_CREW_SPARE more than it began with, or what pthread_create says. */
int tm_crew_grow(struct tm_crew *crew);
#define TM_CREW_SPARE 60

#endif
