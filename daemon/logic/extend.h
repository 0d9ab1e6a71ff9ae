/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When a pool's space grows, by how much, and where the low-water mark lies.
 *
 * The mark: what is left at the mark must outlast the extension that the mark
 * sets off. So mark = max(low_water_percent of the size,
 *                         rate * (4 * reaction + 2 * arm time)), at most half the size,
 * where rate is the fastest growth seen lately, reaction the slowest recent time
 * from the kernel's event to the larger table being live, and arm time what it
 * takes to put the next step's space under the data device. Where the policy extends nothing,
 * the percentage alone.
 *
 * The step: max(step_percent of the size, step_min_bytes, rate * 5 s but at most the size,
 * what leaves the target free afterwards), whole blocks, cut to the maximum and to
 * what the backing has. The target lies well above the mark, so that an idle pool is
 * never extended twice: twice the mark's rate and kernel parts, its percentage plus
 * an eighth of the size (twice it when arm_only_near), at most 5/8 of the size (3/4).
 *
 * What is armed goes first: when the reserve is smaller than the step, but takes the free
 * space at least half the way from the mark to the target, or when waiting for the backing could
 * outlast what is free, the plan takes the reserve alone.
 *
 * Levels decide, never edges: a pool exactly at its mark is extended.
 */
#ifndef TM_LOGIC_EXTEND_H
#define TM_LOGIC_EXTEND_H

#include "logic/model.h"

struct tm_extend_input {
	const struct tm_extend_policy *policy;
	uint64_t unit_bytes; /* bytes in a block: the data block, or 4096 for metadata */
	uint64_t used_blocks;
	uint64_t total_blocks;   /* in the live table */
	uint64_t reserve_blocks; /* armed: under the device, not in the table */
	/*
	 * Where the kernel speaks up, once: metadata: its own mark; data: the one in the live
	 * table. The mark decided on is not below it, or that one event would be in vain. 0:
	 * unknown.
	 */
	uint64_t kernel_low_water_blocks;
	uint64_t limit_blocks;       /* most the format or target can take in total; 0: no limit */
	uint64_t backing_free_bytes; /* what the backing can give beyond the reserve */
	uint64_t rate_bytes_per_sec; /* fastest recent growth; 0 when unknown */
	uint64_t reaction_usec; /* slowest recent event-to-live; 0: use the default of 200 ms */
	uint64_t arm_usec;      /* slowest recent arming; 0: use the default of 500 ms */
	bool arm_only_near; /* metadata: any resume takes all that is armed into use, so arm only
			     * when less than the target is free */
	bool frozen;        /* read-only, fail or needs_check: the kernel would not grow it */
};

enum tm_extend_verdict {
	TM_EXTEND_NOT_NEEDED,
	TM_EXTEND_NOW, /* new_total_blocks says to what; all of it armed or partly to be taken from
			  the backing */
	TM_EXTEND_DISABLED,   /* needed, but the policy says no */
	TM_EXTEND_AT_MAXIMUM, /* needed, but policy or format allow no more */
	TM_EXTEND_NO_BACKING, /* needed, but the backing has nothing left */
	TM_EXTEND_FROZEN,     /* needed, but the pool has to be repaired first */
};

struct tm_extend_plan {
	enum tm_extend_verdict verdict;
	uint64_t mark_blocks;         /* the low-water mark that belongs to total_blocks now */
	uint64_t new_total_blocks;    /* valid for TM_EXTEND_NOW */
	uint64_t new_mark_blocks;     /* the mark for the table of new_total_blocks */
	uint64_t want_reserve_blocks; /* how much should lie armed for the next step, from the
				       * current total when nothing is extended, else from
				       * new_total_blocks; 0 when no more may be */
};

/* Pure; never fails for a valid policy (tm_policy_check). */
void tm_extend_decide(const struct tm_extend_input *in, struct tm_extend_plan *ret);

/*
 * The rate follower: a peak that decays by half every 10 minutes. Feed it every
 * observation of used bytes with its monotonic time; time running backwards or a
 * shrinking use only moves the base. Intervals under 1 ms are joined to the next.
 */
#define TM_RATE_HALF_LIFE_USEC ((uint64_t)600 * 1000000)
struct tm_rate {
	uint64_t last_usec, last_used_bytes;
	uint64_t peak_bytes_per_sec, peak_usec;
	bool primed;
};
void tm_rate_observe(struct tm_rate *rate, uint64_t now_usec, uint64_t used_bytes);
uint64_t tm_rate_get(const struct tm_rate *rate, uint64_t now_usec);

/*
 * What a data writer is trusted to be capable of although it has not shown it yet: a pool that
 * rested, or is new, must outlast the first burst as well. Follows the rate seen when that is
 * higher.
 */
#define TM_RATE_ASSUMED_BYTES_PER_SEC ((uint64_t)200 << 20)
static inline uint64_t tm_rate_assume(uint64_t seen_bytes_per_sec)
{
	return seen_bytes_per_sec > TM_RATE_ASSUMED_BYTES_PER_SEC ? seen_bytes_per_sec
								  : TM_RATE_ASSUMED_BYTES_PER_SEC;
}

/*
 * Slowest of the last 16 durations; grows at once, forgets slowly. Also the figures shown to users.
 */
struct tm_latency {
	uint64_t ring_usec[16];
	unsigned int n, next;
	uint64_t count, total_usec, max_usec, last_usec;
};
void tm_latency_add(struct tm_latency *l, uint64_t usec);
uint64_t tm_latency_slowest(const struct tm_latency *l); /* of the ring; 0 when empty */
uint64_t tm_latency_median(const struct tm_latency *l);  /* of the ring; 0 when empty */

/*
 * Back-off after a failed attempt: 1 s doubling to 60 s. One event at the first
 * failure only; cleared by success or by space appearing in the backing.
 */
struct tm_backoff {
	unsigned int failures;
	uint64_t not_before_usec; /* monotonic */
};
/* Returns true when this failure is the first of its series: report it. */
bool tm_backoff_fail(struct tm_backoff *b, uint64_t now_usec);
bool tm_backoff_allows(const struct tm_backoff *b, uint64_t now_usec);
/* Returns true when there had been a failure. */
bool tm_backoff_clear(struct tm_backoff *b);

#endif
