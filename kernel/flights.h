/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Flights: I/O on its way to the data device, counted so that it can be waited for. Whoever takes
 * a block away from a device first waits until the I/O that may have looked the block up before is
 * down, while new I/O goes on.
 *
 * Counting comes first: a bio is counted, then its block is looked up. So everything that saw a
 * mapping before it changed is among those that dtm_flights_after() waits for.
 */
#ifndef DTM_FLIGHTS_H
#define DTM_FLIGHTS_H

#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>

/* Of one thin device. I/O of the older turn drains while that of the newer one may begin. */
struct dtm_flights {
	spinlock_t lock;
	unsigned int newer;           /* which of the two turns begins flights */
	unsigned long n[2];           /* flights of each turn */
	struct list_head after_older; /* wait for the older turn */
	struct list_head after_newer; /* wait for the newer one as well */
	wait_queue_head_t none;
	bool closed; /* nothing may begin */
};

void dtm_flights_init(struct dtm_flights *f);

/*
 * A flight begins; the result goes to dtm_flights_end(). -EBUSY: closed. May not sleep. A full
 * barrier: what is read after it is newer than the flight.
 */
int dtm_flights_begin(struct dtm_flights *f);

/* It ended. What waited for it, and for no other any more, is moved to the list. May not sleep. */
void dtm_flights_end(struct dtm_flights *f, int turn, struct list_head *ret_ready);

/*
 * True: nothing is under way. False: the work is on a list now, and comes out of
 * dtm_flights_end() when all that had begun before has ended. May not sleep. A full barrier.
 */
bool dtm_flights_after(struct dtm_flights *f, struct list_head *work);

/* Nothing begins from now on; then sleeps until nothing is under way. */
void dtm_flights_close(struct dtm_flights *f);
void dtm_flights_drain(struct dtm_flights *f);
void dtm_flights_open(struct dtm_flights *f);

#endif
