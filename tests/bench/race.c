// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The fill race: one writer as fast as it can, in a volume of a pool that must grow in time.
 *
 *     race VOLUME MIB
 *
 * Writes MIB from the volume's beginning, past the page cache, a MiB at a time, each once the one
 * before is done; so the longest time one write took is the longest anybody had to wait.
 * Prints one JSON object.
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

int main(int argc, char **argv)
{
	tm_auto_close int fd = -1;
	tm_auto_free unsigned char *buffer = NULL;
	uint64_t began, before, now, longest = 0, longest_at = 0, mib, i, over_100 = 0;

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
		if (now - before > longest) {
			longest = now - before;
			longest_at = i;
		}
		over_100 += now - before > 100000;
		before = now;
	}
	printf("{\"mib\": %" PRIu64 ", \"seconds\": %.3f, \"mib_per_s\": %.1f, "
	       "\"longest_stall_ms\": %.3f, \"longest_stall_at_mib\": %" PRIu64
	       ", \"writes_over_100_ms\": %" PRIu64 "}\n",
	       mib, (double)(before - began) / 1e6, (double)mib * 1e6 / (double)(before - began),
	       (double)longest / 1e3, longest_at, over_100);
	return EXIT_SUCCESS;
}
