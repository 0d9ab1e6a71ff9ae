/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which signals of org.thinmgr1.Manager an event becomes, with their arguments. Pure. */
#ifndef TM_BUS_SIGNAL_H
#define TM_BUS_SIGNAL_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

/* @text is valid UTF-8 and never NULL; which one is meant says the member's signature. */
union tm_bus_argument {
	const char *text; /* 's' */
	uint64_t number;  /* 't' */
};

struct tm_bus_signal {
	const char *member;    /* "LowSpace" */
	const char *signature; /* of 's' and 't' */
	union tm_bus_argument arguments[8];
};

struct tm_bus_signals {
	size_t n;
	struct tm_bus_signal list[2]; /* the special one, if there is one, then Event */
	json_t *data;                 /* owns text */
	char message[256];
};

/*
 * Figures that the event's data lacks, or has in another form, come out as 0 and "". The
 * result borrows from @e and owns the rest; release it with tm_bus_signals_done before @e goes.
 */
void tm_bus_signals_of(const struct tm_event *e, struct tm_bus_signals *ret);
void tm_bus_signals_done(struct tm_bus_signals *signals);

#endif
