// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The fill race: one writer as fast as it can, in a volume of a pool that must grow in time.
 *
 *     race VOLUME MIB
 *
 * Writes MIB from the volume's beginning, past the page cache, a MiB at a time, each once the one
 * before is done; so the longest time one write took is the longest anybody had to wait.
 * Prints one JSON object, with the longest of them and when they began (CLOCK_MONOTONIC).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fsutil.h"

#define WRITE_BYTES ((size_t)1 << 20)
#define STALLS      8

/* A write that took long. */
struct stall {
	uint64_t usec, began, mib;
};

/* @list is sorted, the longest first. */
static void note(struct stall list[STALLS], struct stall one)
{
	for (int i = 0; i < STALLS; i++) {
		if (one.usec > list[i].usec) {
			const struct stall moved = list[i];

			list[i] = one;
			one = moved;
		}
	}
}

int main(int argc, char **argv)
{
	tm_auto_close int fd = -1;
	tm_auto_free unsigned char *buffer = NULL;
	uint64_t began, before, now, mib, i, over_100 = 0;
	struct stall stalls[STALLS] = { 0 };

	if (argc != 3) {
		(void)fprintf(stderr, "usage: race VOLUME MIB\n");
		return EXIT_FAILURE;
	}
	mib = strtoull(argv[2], NULL, 10);
	fd = open(argv[1], O_WRONLY | O_DIRECT | O_CLOEXEC);
	buffer = aligned_alloc(4096, WRITE_BYTES);
	if (fd < 0 || !buffer || mlockall(MCL_CURRENT | MCL_FUTURE) < 0) {
		(void)fprintf(stderr, "race: %s: %s\n", argv[1], strerror(errno));
		return EXIT_FAILURE;
	}
	memset(buffer, 0xa5, WRITE_BYTES);
	began = before = tm_now_monotonic_usec();
	for (i = 0; i < mib; i++) {
		if (pwrite(fd, buffer, WRITE_BYTES, (off_t)(i * WRITE_BYTES)) !=
		    (ssize_t)WRITE_BYTES) {
			(void)fprintf(stderr, "race: MiB %" PRIu64 ": %s\n", i, strerror(errno));
			return EXIT_FAILURE;
		}
		now = tm_now_monotonic_usec();
		note(stalls, (struct stall){ .usec = now - before, .began = before, .mib = i });
		over_100 += now - before > 100000;
		before = now;
	}
	printf("{\"mib\": %" PRIu64 ", \"seconds\": %.3f, \"mib_per_s\": %.1f, "
	       "\"longest_stall_ms\": %.3f, \"writes_over_100_ms\": %" PRIu64 ", \"stalls\": [",
	       mib, (double)(before - began) / 1e6, (double)mib * 1e6 / (double)(before - began),
	       (double)stalls[0].usec / 1e3, over_100);
	for (i = 0; i < STALLS && stalls[i].usec; i++)
		printf("%s{\"ms\": %.3f, \"began_ms\": %.3f, \"mib\": %" PRIu64 "}", i ? ", " : "",
		       (double)stalls[i].usec / 1e3, (double)stalls[i].began / 1e3, stalls[i].mib);
	printf("]}\n");
	return EXIT_SUCCESS;
}
