// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One round of a measurement: bring a pool to its low-water mark at a known moment, and wait, out
 * of the way, until it has grown.
 *
 *     probe data|metadata POOL VOLUME SETTLE WINDOW LIMIT TRACE [CGROUP]
 *     probe steadyPERCENT POOL VOLUME SETTLE WINDOW LIMIT TRACE [CGROUP]
 *     probe leaves POOL VOLUME 0 0 0 -      writes once what metadata rounds need in the volume
 *
 * POOL is the pool's device-mapper name, VOLUME a thin volume in it that only this program writes.
 * The pool is filled up to just before the mark until it stays as it is for SETTLE seconds, watched
 * at rest for WINDOW seconds, and then one write is made that crosses the mark. When the pool has
 * grown (at most LIMIT seconds later), another WINDOW seconds pass, so that what the manager does
 * afterwards is counted as well.
 *
 * steadyPERCENT uses metadata up block by block instead, eight in a second, and tells when PERCENT
 * of it were used: what a manager does that no event wakes.
 *
 * Otherwise no time is taken here: the kernel's own trace of the event and of the resume is what is
 * measured (TRACE, a tracing instance's directory, is emptied right before the write). On a machine
 * with one CPU a program that watched would take it from the manager: this one sleeps.
 *
 * Prints one JSON object: CPU time of the whole system and of CGROUP, at rest and in the round.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "dm/dm.h"
#include "logic/thin-status.h"

#define FIRST_MESSAGE_ID 1000000 /* device ids no manager gives out */
#define LAST_ID          ((1U << 24) - 1)
#define FILL_BYTES       ((size_t)1 << 20)
#define FILL_REST_MS     500
#define FILL_DEVICES     8 /* made in a row: as slowly */
#define DATA_DISTANCE    8 /* blocks from the mark while the pool settles */
/* More than the transaction of a message takes for a moment. Ours speaks up in the middle of one.
 */
#define METADATA_DISTANCE     14
#define OUR_METADATA_DISTANCE 40
/*
 * Of metadata used while the pool settles: below LVM2's threshold, and below what thinmgrd adds to
 * its own for the kernel's reserve.
 */
#define SETTLE_PERCENT 60
#define SETTLE_TRIES   4
#define STEADY_PERCENT 50  /* the same before it is used up slowly */
#define LEAVES         24  /* mapping-tree leaves that a burst of writes touches */
#define LEAF_BLOCKS    130 /* written in a row: a leaf of their own */

#define STATUS_AGAIN 2

struct probe {
	struct tm_dm *dm;
	const char *pool;
	const char *trace, *cgroup;
	bool metadata;
	unsigned int steady; /* percent; 0: cross the mark at once */
	int volume;
	unsigned char *buffer;
	uint64_t block_bytes, mark_blocks, volume_bytes;
	unsigned int settle, window, limit;
	unsigned int next_id; /* of the thin devices that use up metadata */
};

struct counters {
	uint64_t usec; /* when */
	uint64_t system_nsec, manager_usec, forks;
};

static void die(const char *what, const struct tm_error *err)
{
	if (err && err->code)
		(void)fprintf(stderr, "probe: %s: %s\n", what, err->detail);
	else
		(void)fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static void rest_ms(uint64_t ms)
{
	struct timespec t = { .tv_sec = (time_t)(ms / 1000),
			      .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
		continue;
}

/* ---- the pool ----------------------------------------------------------------------------- */

static struct tm_thin_pool_status status(const struct probe *p)
{
	struct tm_thin_pool_status s;
	struct tm_error err = { 0 };
	char params[512];

	if (tm_dm_line(p->dm, p->pool, false, NULL, 0, NULL, params, sizeof(params), &err) < 0)
		die("status", &err);
	if (tm_thin_pool_status_parse(params, &s) < 0 || s.failed) {
		(void)fprintf(stderr, "probe: %s: %s\n", p->pool, params);
		exit(EXIT_FAILURE);
	}
	return s;
}

/* Block size and low-water mark are the third and fourth field of the table. */
static void read_table(struct probe *p)
{
	struct tm_error err = { 0 };
	uint64_t block_sectors;
	char params[512];

	if (tm_dm_line(p->dm, p->pool, true, NULL, 0, NULL, params, sizeof(params), &err) < 0)
		die("table", &err);
	if (sscanf(params, "%*s %*s %" SCNu64 " %" SCNu64, &block_sectors, &p->mark_blocks) != 2)
		die("the table has no block size and mark", NULL);
	p->block_bytes = block_sectors * TM_SECTOR;
}

static uint32_t event_nr(const struct probe *p)
{
	struct tm_error err = { 0 };
	struct tm_dm_info info;

	if (tm_dm_info(p->dm, p->pool, &info, &err) < 0 || !info.exists)
		die("info", &err);
	return info.event_nr;
}

static void write_at(const struct probe *p, uint64_t offset, size_t bytes)
{
	if (offset + bytes > p->volume_bytes) {
		(void)fprintf(stderr, "probe: the volume is too small\n");
		exit(EXIT_FAILURE);
	}
	if (pwrite(p->volume, p->buffer, bytes, (off_t)offset) != (ssize_t)bytes)
		die("write", NULL);
}

/* Everything in the volume was written in a row from its beginning, so the next new block follows
 * those that are used. */
static void use_blocks(const struct probe *p, uint64_t blocks)
{
	uint64_t at = status(p).data_used * p->block_bytes, left = blocks * p->block_bytes;

	while (left) {
		size_t n = left < FILL_BYTES ? (size_t)left : FILL_BYTES;

		write_at(p, at, n);
		at += n;
		left -= n;
		/* Slowly: a manager that follows the rate is to grow the pool by its usual step. */
		if (left)
			rest_ms(FILL_REST_MS);
	}
}

static uint64_t data_free(const struct probe *p)
{
	struct tm_thin_pool_status s = status(p);

	return s.data_total - s.data_used;
}

/* Use data until @blocks are free, no fewer. */
static void leave_data(const struct probe *p, uint64_t blocks)
{
	uint64_t room = data_free(p);

	if (room > blocks)
		use_blocks(p, room - blocks);
}

static bool is_ours(void)
{
	return access("/sys/module/dm_thinmgr", F_OK) == 0;
}

static uint64_t metadata_distance(void)
{
	return is_ours() ? OUR_METADATA_DISTANCE : METADATA_DISTANCE;
}

static uint64_t metadata_free(const struct probe *p)
{
	struct tm_thin_pool_status s = status(p);

	return s.metadata_total - s.metadata_used;
}

/*
 * Use metadata until @blocks are free: a thin device without data takes one block. Where there
 * becomes more of it meanwhile that would never be: then no more is used.
 */
static void leave_metadata(struct probe *p, uint64_t blocks, bool slowly)
{
	const uint64_t total = status(p).metadata_total;
	struct tm_error err = { 0 };
	unsigned int made = 0;
	char message[64];

	while (metadata_free(p) > blocks && p->next_id < LAST_ID &&
	       status(p).metadata_total == total) {
		(void)snprintf(message, sizeof(message), "create_thin %u", p->next_id++);
		if (tm_dm_message(p->dm, p->pool, message, &err) < 0 && err.errnum != EEXIST)
			die("create_thin", &err);
		if (slowly && ++made % FILL_DEVICES == 0)
			rest_ms(FILL_REST_MS);
	}
}

/* Where the blocks of one leaf of the mapping tree begin in the volume. */
static uint64_t leaf_offset(const struct probe *p, uint64_t leaf)
{
	return leaf * 4 * LEAF_BLOCKS * p->block_bytes;
}

static void make_leaves(const struct probe *p)
{
	for (unsigned int leaf = 0; leaf < LEAVES; leaf++)
		for (unsigned int i = 0; i < LEAF_BLOCKS; i++)
			write_at(p, leaf_offset(p, leaf) + i * p->block_bytes, 4096);
}

/* ---- counting ----------------------------------------------------------------------------- */

/* A number that follows @key in a file; for /proc/schedstat the seventh of the line. */
static uint64_t number_after(const char *path, const char *key, unsigned int skip)
{
	tm_auto_free char *text = NULL;
	const char *at;
	size_t len;

	if (tm_read_file(path, 1 << 20, &text, &len) < 0)
		die(path, NULL);
	at = strstr(text, key);
	if (!at) {
		(void)fprintf(stderr, "probe: %s: no %s\n", path, key);
		exit(EXIT_FAILURE);
	}
	at += strlen(key);
	for (; skip; skip--) {
		at += strspn(at, " ");
		at += strcspn(at, " \n");
	}
	return strtoull(at, NULL, 10);
}

static struct counters count(const struct probe *p)
{
	struct counters c = { 0 };

	c.system_nsec = number_after("/proc/schedstat", "cpu0 ", 6);
	c.forks = number_after("/proc/stat", "\nprocesses ", 0);
	if (p->cgroup)
		c.manager_usec = number_after(p->cgroup, "usage_usec ", 0);
	c.usec = tm_now_monotonic_usec();
	return c;
}

static void print_counters(const char *name, const struct counters *from, const struct counters *to)
{
	printf(", \"%s\": {\"seconds\": %.6f, \"system_ms\": %.3f, \"manager_ms\": %.3f, "
	       "\"forks\": %" PRIu64 "}",
	       name, (double)(to->usec - from->usec) / 1e6,
	       (double)(to->system_nsec - from->system_nsec) / 1e6,
	       (double)(to->manager_usec - from->manager_usec) / 1e3, to->forks - from->forks);
}

/* ---- a round ------------------------------------------------------------------------------ */

static void empty_trace(const struct probe *p)
{
	char path[512];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/trace", p->trace);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		die(path, NULL);
	(void)close(fd);
}

static uint64_t size_of(const struct probe *p)
{
	struct tm_thin_pool_status s = status(p);

	return p->metadata ? s.metadata_total : s.data_total;
}

/* A manager may also look by itself: such a round is not one, and is to be repeated. */
static void still(const struct probe *p, uint64_t size, uint32_t event)
{
	if (size_of(p) == size && event_nr(p) == event)
		return;
	(void)fprintf(stderr,
		      "probe: before the mark was reached: %" PRIu64 " to %" PRIu64
		      " blocks, %u events\n",
		      size, size_of(p), event_nr(p) - event);
	exit(STATUS_AGAIN);
}

/*
 * Write until the pool has spoken up; @event is its event number so far. Returns the number of
 * writes. New data blocks one by one, or for metadata one in each leaf of the mapping tree in turn:
 * in one transaction each takes a block. LVM2's pools speak up later than they should (the kernel
 * computes the mark when a table is loaded, and it loads the table before metadata is larger), so
 * where a turn is not enough more is used up before the next.
 */
static unsigned int cross(struct probe *p, uint64_t size, uint32_t event,
			  uint64_t *ret_longest_usec)
{
	uint64_t next = p->metadata ? status(p).data_used - LEAVES * LEAF_BLOCKS : 0;
	unsigned int writes = 0;

	*ret_longest_usec = 0;
	for (;;) {
		uint64_t began = tm_now_monotonic_usec(), took;

		if (p->metadata)
			write_at(p,
				 leaf_offset(p, next % LEAVES) +
					 (LEAF_BLOCKS + next / LEAVES) * p->block_bytes,
				 4096);
		else
			use_blocks(p, 1);
		took = tm_now_monotonic_usec() - began;
		if (took > *ret_longest_usec)
			*ret_longest_usec = took;
		next++;
		writes++;
		if (event_nr(p) != event)
			return writes;
		if (!p->metadata && writes > 4)
			break;
		if (p->metadata && writes % LEAVES == 0) {
			uint64_t room = metadata_free(p);

			if (room < 2 * LEAVES)
				break;
			leave_metadata(p, room - metadata_distance() / 2, false);
			if (event_nr(p) != event)
				return writes;
			still(p, size, event);
		}
	}
	(void)fprintf(stderr, "probe: %u writes and no event\n", writes);
	exit(EXIT_FAILURE);
}

/*
 * Free blocks, as the status tells them, at which the kernel speaks up: a quarter of all, of which
 * the distribution's target keeps a tenth to itself without saying so; of neither more than 4 MiB.
 */
static uint64_t metadata_mark(uint64_t total)
{
	const uint64_t mark = total / 4 < 1024 ? total / 4 : 1024;

	if (is_ours())
		return mark;
	return mark - (total / 10 < 1024 ? total / 10 : 1024);
}

/* Use metadata slowly until the pool grows. Returns when the percentage was passed. */
static uint64_t go_steadily(struct probe *p, uint64_t size)
{
	const uint64_t end = tm_now_monotonic_usec() + p->limit * TM_USEC_PER_SEC;
	uint64_t passed = 0;

	while (size_of(p) == size && tm_now_monotonic_usec() < end) {
		struct tm_thin_pool_status s;

		leave_metadata(p, metadata_free(p) - 1, false);
		s = status(p);
		if (!passed && s.metadata_used * 100 >= s.metadata_total * p->steady)
			passed = tm_now_monotonic_usec();
		rest_ms(125);
	}
	return passed;
}

/* Fill the pool up to a little before its mark. */
static void fill(struct probe *p)
{
	const unsigned int percent = p->steady ? STEADY_PERCENT : SETTLE_PERCENT;
	uint64_t total;

	read_table(p);
	if (!p->metadata) {
		leave_data(p, p->mark_blocks + DATA_DISTANCE);
		return;
	}
	total = status(p).metadata_total;
	leave_metadata(p, total - total * percent / 100, true);
}

/* Fill the pool until its manager leaves it as it is. */
static void settle(struct probe *p)
{
	for (unsigned int i = 0; i < SETTLE_TRIES; i++) {
		uint64_t size, mark;

		fill(p);
		size = size_of(p);
		mark = p->mark_blocks;
		rest_ms(p->settle * 1000UL);
		read_table(p);
		if (size_of(p) == size && p->mark_blocks == mark)
			return;
	}
	(void)fprintf(stderr, "probe: the pool does not come to rest\n");
	exit(EXIT_FAILURE);
}

static void run_round(struct probe *p)
{
	struct counters rest_from, rest_to, from, to;
	uint64_t size, grown, longest_usec = 0, end, passed = 0;
	struct tm_thin_pool_status s;
	unsigned int writes = 0;
	uint32_t event;

	settle(p);
	rest_from = count(p);
	rest_ms(p->window * 1000UL);
	rest_to = count(p);

	read_table(p); /* a manager may move its mark */
	size = size_of(p);
	event = event_nr(p);
	if (p->steady) {
		/* from where it is */
	} else if (p->metadata) {
		leave_metadata(p, metadata_mark(size) + metadata_distance(), false);
	} else {
		/* Our target speaks up with the write that reaches the mark, others with the next.
		 */
		leave_data(p, p->mark_blocks + 1);
	}
	still(p, size, event);
	empty_trace(p);
	from = count(p);
	if (p->steady)
		passed = go_steadily(p, size);
	else
		writes = cross(p, size, event, &longest_usec);
	end = tm_now_monotonic_usec() + p->limit * TM_USEC_PER_SEC;
	do {
		rest_ms(50);
		grown = size_of(p);
	} while (grown == size && tm_now_monotonic_usec() < end);
	rest_ms(p->window * 1000UL);
	to = count(p);
	s = status(p);
	printf("{\"from\": %" PRIu64 ", \"to\": %" PRIu64 ", \"used\": %" PRIu64
	       ", \"mark\": %" PRIu64
	       ", \"passed_ms\": %.3f, \"writes\": %u, \"longest_write_ms\": %.3f",
	       size, grown, p->metadata ? s.metadata_used : s.data_used,
	       p->metadata ? metadata_mark(size) : p->mark_blocks, (double)passed / 1e3, writes,
	       (double)longest_usec / 1e3);
	print_counters("rest", &rest_from, &rest_to);
	print_counters("round", &from, &to);
	printf("}\n");
	if (grown == size) {
		(void)fprintf(stderr, "probe: the pool did not grow within %u s\n", p->limit);
		exit(3);
	}
}

int main(int argc, char **argv)
{
	struct probe p = { 0 };
	struct tm_error err = { 0 };

	if (argc < 8 || argc > 9) {
		(void)fprintf(
			stderr,
			"usage: probe data|metadata|steadyPERCENT|leaves POOL VOLUME SETTLE WINDOW "
			"LIMIT TRACE [CGROUP]\n");
		return EXIT_FAILURE;
	}
	if (strncmp(argv[1], "steady", 6) == 0)
		p.steady = (unsigned int)strtoul(argv[1] + 6, NULL, 10);
	p.metadata = p.steady || strcmp(argv[1], "metadata") == 0;
	p.pool = argv[2];
	p.settle = (unsigned int)strtoul(argv[4], NULL, 10);
	p.window = (unsigned int)strtoul(argv[5], NULL, 10);
	p.limit = (unsigned int)strtoul(argv[6], NULL, 10);
	p.trace = argv[7];
	/* Ids that no earlier round took: there are minutes between two rounds. */
	p.next_id = FIRST_MESSAGE_ID + (unsigned int)(tm_now_monotonic_usec() / TM_USEC_PER_SEC *
						      64 % (LAST_ID - FIRST_MESSAGE_ID));
	p.cgroup = argc > 8 ? argv[8] : NULL;
	if (tm_dm_new(&p.dm, &err) < 0)
		die("device-mapper", &err);
	p.volume = open(argv[3], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (p.volume < 0 || ioctl(p.volume, BLKGETSIZE64, &p.volume_bytes) < 0)
		die(argv[3], NULL);
	p.buffer = aligned_alloc(4096, FILL_BYTES);
	if (!p.buffer)
		die("memory", NULL);
	memset(p.buffer, 0x5a, FILL_BYTES);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		die("mlockall", NULL);
	read_table(&p);
	if (strcmp(argv[1], "leaves") == 0)
		make_leaves(&p);
	else
		run_round(&p);
	free(p.buffer);
	(void)close(p.volume);
	tm_dm_free(p.dm);
	return EXIT_SUCCESS;
}
