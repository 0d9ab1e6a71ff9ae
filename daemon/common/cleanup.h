/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ownership that ends with the scope. A variable marked tm_auto_free is freed
 * when it goes out of scope unless its value was handed over with TM_TAKE().
 */
#ifndef TM_COMMON_CLEANUP_H
#define TM_COMMON_CLEANUP_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define tm_cleanup(fn) __attribute__((cleanup(fn)))

/* Hand over a pointer: yields its value and leaves NULL behind. */
#define TM_TAKE(p)                      \
	({                              \
		__typeof__(p) _t = (p); \
		(p) = NULL;             \
		_t;                     \
	})

/* Hand over a file descriptor: yields its value and leaves -1 behind. */
#define TM_TAKE_FD(fd)         \
	({                     \
		int _f = (fd); \
		(fd) = -1;     \
		_f;            \
	})

static inline void tm_freep(void *p)
{
	free(*(void **)p);
}

static inline void tm_closep(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void tm_fclosep(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

static inline void tm_unlockp(pthread_mutex_t **m)
{
	if (*m)
		(void)pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *tm_lock(pthread_mutex_t *m)
{
	(void)pthread_mutex_lock(m);
	return m;
}

#define tm_auto_free   tm_cleanup(tm_freep)
#define tm_auto_close  tm_cleanup(tm_closep)
#define tm_auto_fclose tm_cleanup(tm_fclosep)

/* Holds @m until the end of the enclosing scope. */
#define TM_LOCK_SCOPE(m) \
	tm_cleanup(tm_unlockp) __attribute__((unused)) pthread_mutex_t *_tm_scope_lock = tm_lock(m)

#define TM_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
