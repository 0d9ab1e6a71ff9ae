// SPDX-License-Identifier: GPL-2.0-only
/* See flights.h. */

#include <linux/sched.h>

#include "flights.h"

void dtm_flights_init(struct dtm_flights *f)
{
	spin_lock_init(&f->lock);
	f->newer = 0;
	f->n[0] = f->n[1] = 0;
	INIT_LIST_HEAD(&f->after_older);
	INIT_LIST_HEAD(&f->after_newer);
	init_waitqueue_head(&f->none);
	f->closed = false;
}

int dtm_flights_begin(struct dtm_flights *f)
{
	unsigned long flags;
	int turn = -EBUSY;

	spin_lock_irqsave(&f->lock, flags);
	if (!f->closed) {
		turn = f->newer;
		f->n[turn]++;
	}
	spin_unlock_irqrestore(&f->lock, flags);
	smp_mb(); /* with the one in dtm_flights_after() */
	return turn;
}

/* The older turn is over: who waited for it is ready, and the newer one becomes the older. */
static void turn_over(struct dtm_flights *f, struct list_head *ready)
{
	do {
		list_splice_tail_init(&f->after_older, ready);
		list_splice_tail_init(&f->after_newer, &f->after_older);
		f->newer = !f->newer;
	} while (!f->n[!f->newer] && !list_empty(&f->after_older));
}

void dtm_flights_end(struct dtm_flights *f, int turn, struct list_head *ret_ready)
{
	unsigned long flags;

	spin_lock_irqsave(&f->lock, flags);
	if (!--f->n[turn]) {
		/* Somebody waits for the newer turn only while the older one is not over. */
		if ((unsigned int)turn != f->newer &&
		    !(list_empty(&f->after_older) && list_empty(&f->after_newer)))
			turn_over(f, ret_ready);
		if (!f->n[0] && !f->n[1])
			wake_up_all(&f->none);
	}
	spin_unlock_irqrestore(&f->lock, flags);
}

bool dtm_flights_after(struct dtm_flights *f, struct list_head *work)
{
	unsigned long flags;
	bool none = false;

	smp_mb(); /* with the one in dtm_flights_begin() */
	spin_lock_irqsave(&f->lock, flags);
	if (!f->n[0] && !f->n[1]) {
		none = true;
	} else if (!f->n[!f->newer]) {
		/* Nobody is left of the older turn: what is under way now becomes it. */
		f->newer = !f->newer;
		list_add_tail(work, &f->after_older);
	} else {
		list_add_tail(work, &f->after_newer);
	}
	spin_unlock_irqrestore(&f->lock, flags);
	return none;
}

void dtm_flights_close(struct dtm_flights *f)
{
	unsigned long flags;

	spin_lock_irqsave(&f->lock, flags);
	f->closed = true;
	spin_unlock_irqrestore(&f->lock, flags);
}

static bool none_left(struct dtm_flights *f)
{
	bool none;

	spin_lock_irq(&f->lock); /* so that the last one has let go of it */
	none = !f->n[0] && !f->n[1];
	spin_unlock_irq(&f->lock);
	return none;
}

void dtm_flights_drain(struct dtm_flights *f)
{
	wait_event(f->none, none_left(f));
}

void dtm_flights_open(struct dtm_flights *f)
{
	unsigned long flags;

	spin_lock_irqsave(&f->lock, flags);
	f->closed = false;
	spin_unlock_irqrestore(&f->lock, flags);
}
