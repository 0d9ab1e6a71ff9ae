/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System calls that may never come back, such as an unmount whose device is stuck, and calls that
 * change what namespace the caller is in: made in a process of their own, with a time limit.
 */
#ifndef TM_HOST_CHILD_H
#define TM_HOST_CHILD_H

#include <stddef.h>
#include <stdint.h>

/* What the child has to say: which of its steps failed (0: none), with which errno, and more. */
struct tm_child_answer {
	int step;
	int errnum;
	char text[200];
};

/* Runs in a copy of a process with many threads: may only call what is safe in a signal handler. */
typedef void (*tm_child_fn)(void *userdata, struct tm_child_answer *answer);

#define TM_CHILD_FDS 4

/*
 * Run @fn in a child of its own that has no descriptors but 0 to 2 and the @n_fds of @fds (at most
 * TM_CHILD_FDS; negative ones are passed over), until it ends or @limit_usec have passed.
 *
 * 0 with *ret; -ETIMEDOUT when it did not end in time: it was sent SIGKILL, but what hangs in the
 * kernel goes on until that lets go of it, and what it was doing may yet be done. It is nobody's
 * zombie then. -EPIPE when it died without an answer; or the negative errno of making it.
 */
int tm_child_run(tm_child_fn fn, void *userdata, const int *fds, size_t n_fds, uint64_t limit_usec,
		 struct tm_child_answer *ret);

#endif
