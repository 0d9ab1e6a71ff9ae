/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What our own target remembers of a pool: the answer to its message "events" (kernel/events.c),
 * taken apart, and followed from one answer to the next. Pure. An answer is accepted whole or not
 * at all; causes and modes of a newer module are none of an error.
 */
#ifndef TM_LOGIC_KERNEL_EVENTS_H
#define TM_LOGIC_KERNEL_EVENTS_H

#include "logic/model.h"

#define TM_KERNEL_EVENTS_MAX 64

enum tm_kernel_cause {
	TM_CAUSE_DATA_LOW,
	TM_CAUSE_METADATA_LOW,
	TM_CAUSE_MODE,
	TM_CAUSE_NEEDS_CHECK,
	TM_CAUSE_NO_SPACE_TIMEOUT,
	TM_CAUSE_DATA_GROWN,
	TM_CAUSE_METADATA_GROWN,
	TM_CAUSE_OTHER, /* not known here */
};

struct tm_kernel_event {
	uint64_t number;
	uint64_t time_ns; /* since 1970, by the clock of the machine */
	enum tm_kernel_cause cause;
	uint64_t value;         /* blocks; 0 with a mode or an unknown cause */
	enum tm_pool_mode mode; /* with TM_CAUSE_MODE */
};

struct tm_kernel_events {
	uint64_t newest; /* number of the newest there is; 0: none yet */
	bool anew;       /* it is smaller than what was asked since: another life of the pool */
	bool lost;       /* there were more after that number than are known */
	size_t n;
	struct tm_kernel_event list[TM_KERNEL_EVENTS_MAX]; /* oldest first; the newest of them */
};

/* The answer to "events @since". 0, or -EINVAL with *ret untouched. */
int tm_kernel_events_parse(const char *text, uint64_t since, struct tm_kernel_events *ret);

/* What is known of a pool's events from one answer to the next. All zero: nothing. */
struct tm_kernel_ring {
	uint64_t floor_ns; /* nothing is told of what lies before this time */
	uint64_t since;    /* number of the newest event that was read */
	bool mode_known;
	enum tm_pool_mode before, mode; /* the mode it is in, and the one it came from */
	uint64_t began_ns;              /* when it came into it; 0: not known, or not to be told */
	bool told, timed_out;
	uint64_t data_low_ns, metadata_low_ns; /* when space became low, until it grew; 0: not */
};

/* A time in another mode than write, from its beginning to its end. */
struct tm_kernel_spell {
	enum tm_pool_mode before, mode, after;
	uint64_t began_ns, ended_ns;
	bool timed_out; /* writes waited for space for too long, and failed */
};

/* The last growth of a space, and how long after the kernel had said that it was low. */
struct tm_kernel_growth {
	uint64_t blocks;   /* 0: none */
	uint64_t low_usec; /* 0: it had not said so */
};

struct tm_kernel_news {
	size_t n_spells;
	struct tm_kernel_spell spells[TM_KERNEL_EVENTS_MAX]; /* oldest first */
	struct tm_kernel_growth data, metadata;
};

/*
 * Take an answer over. @seen: modes that status lines showed since the last answer, as a set of
 * bits 1 << mode: the last spell in each of them is known by that already. The spells left are
 * those that began and ended unseen.
 */
void tm_kernel_ring_follow(struct tm_kernel_ring *ring, const struct tm_kernel_events *events,
			   unsigned int seen, struct tm_kernel_news *ret);

#endif
