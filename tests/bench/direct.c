// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * I/O past the page cache with next to no instructions of its own, for measuring what is below.
 *
 *     direct read|write|sync BYTES COUNT DEPTH BLOCK BLOCKS random|sequential DEVICE...
 *     direct discard BYTES COUNT DEVICE...
 *
 * COUNT times, one device after the other in turn, BYTES are read or written somewhere in a block
 * of BLOCK bytes. Which block: each of the first BLOCKS of a device once (a power of two), in order
 * or not, then all over again. DEPTH of them are submitted at once, and awaited before the next;
 * with 1 by plain pread() and pwrite(). "sync" is a write and fdatasync().
 *
 * "discard" covers the first BYTES of each device, COUNT times.
 *
 * Prints how many nanoseconds all of it took.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEVICES 64
#define MAX_DEPTH   256
#define ALIGN       4096

enum op { OP_READ, OP_WRITE, OP_SYNC, OP_DISCARD };

struct job {
	enum op op;
	size_t bytes, block;
	uint64_t count, blocks;
	unsigned int depth, n_devices;
	bool random;
	int device[MAX_DEVICES];
	void *buffer;
};

static void die(const char *what)
{
	(void)fprintf(stderr, "direct: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static void usage(void)
{
	(void)fprintf(stderr,
		      "usage: direct read|write|sync BYTES COUNT DEPTH BLOCK BLOCKS "
		      "random|sequential DEVICE...\n       direct discard BYTES COUNT DEVICE...\n");
	exit(EXIT_FAILURE);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || end == text)
		usage();
	return n;
}

static uint64_t now_nsec(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_MONOTONIC, &t) < 0)
		die("clock");
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Where the i-th I/O of a device goes. A multiplier of this kind comes by every block once. */
static off_t place(const struct job *j, uint64_t i)
{
	uint64_t block = i & (j->blocks - 1);
	uint64_t within = j->block / j->bytes;

	if (j->random)
		block = (block * 2654435761U + 12345) & (j->blocks - 1);
	return (off_t)(block * j->block + i * 7 % within * j->bytes);
}

static void one_by_one(const struct job *j)
{
	for (uint64_t i = 0; i < j->count; i++) {
		int fd = j->device[i % j->n_devices];
		off_t at = place(j, i / j->n_devices);
		ssize_t n = j->op == OP_READ ? pread(fd, j->buffer, j->bytes, at)
					     : pwrite(fd, j->buffer, j->bytes, at);

		if (n != (ssize_t)j->bytes)
			die(j->op == OP_READ ? "read" : "write");
		if (j->op == OP_SYNC && fdatasync(fd) < 0)
			die("fdatasync");
	}
}

static void together(const struct job *j, aio_context_t context)
{
	static struct io_event events[MAX_DEPTH];
	static struct iocb blocks[MAX_DEPTH];
	struct iocb *list[MAX_DEPTH];

	for (unsigned int i = 0; i < j->depth; i++) {
		blocks[i].aio_lio_opcode = j->op == OP_READ ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
		blocks[i].aio_buf = (uintptr_t)j->buffer;
		blocks[i].aio_nbytes = j->bytes;
		list[i] = &blocks[i];
	}
	for (uint64_t i = 0; i < j->count; i += j->depth) {
		long n = (long)(j->count - i < j->depth ? j->count - i : j->depth);

		for (long k = 0; k < n; k++) {
			uint64_t each = i + (uint64_t)k;

			blocks[k].aio_fildes = (uint32_t)j->device[each % j->n_devices];
			blocks[k].aio_offset = place(j, each / j->n_devices);
		}
		if (syscall(SYS_io_submit, context, n, list) != n)
			die("io_submit");
		if (syscall(SYS_io_getevents, context, n, n, events, NULL) != n)
			die("io_getevents");
		for (long k = 0; k < n; k++) {
			if (events[k].res != (int64_t)j->bytes) {
				errno = events[k].res < 0 ? (int)-events[k].res : EIO;
				die("I/O");
			}
		}
	}
}

static void discard(const struct job *j)
{
	uint64_t range[2] = { 0, j->bytes };

	for (uint64_t i = 0; i < j->count; i++)
		for (unsigned int k = 0; k < j->n_devices; k++)
			if (ioctl(j->device[k], BLKDISCARD, range) < 0)
				die("discard");
}

static void parse(struct job *j, int argc, char **argv)
{
	static const char *const ops[] = { "read", "write", "sync", "discard" };
	unsigned int op = 0;
	int first;

	if (argc < 5)
		usage();
	while (op < sizeof(ops) / sizeof(ops[0]) && strcmp(argv[1], ops[op]) != 0)
		op++;
	if (op == sizeof(ops) / sizeof(ops[0]))
		usage();
	j->op = (enum op)op;
	j->bytes = number(argv[2]);
	j->count = number(argv[3]);
	first = 4;
	if (j->op != OP_DISCARD) {
		if (argc < 9)
			usage();
		j->depth = (unsigned int)number(argv[4]);
		j->block = number(argv[5]);
		j->blocks = number(argv[6]);
		j->random = strcmp(argv[7], "random") == 0;
		first = 8;
		if (!j->depth || j->depth > MAX_DEPTH || !j->bytes || j->bytes % ALIGN ||
		    j->block % j->bytes || !j->blocks || j->blocks & (j->blocks - 1) ||
		    (j->op == OP_SYNC && j->depth != 1))
			usage();
	}
	j->n_devices = (unsigned int)(argc - first);
	if (j->n_devices > MAX_DEVICES)
		usage();
	for (unsigned int i = 0; i < j->n_devices; i++) {
		j->device[i] = open(argv[first + (int)i], O_RDWR | O_DIRECT | O_CLOEXEC);
		if (j->device[i] < 0)
			die(argv[first + (int)i]);
	}
}

int main(int argc, char **argv)
{
	aio_context_t context = 0;
	struct job j = { 0 };
	uint64_t began;

	parse(&j, argc, argv);
	if (j.op != OP_DISCARD) {
		j.buffer = aligned_alloc(ALIGN, j.bytes);
		if (!j.buffer)
			die("memory");
		memset(j.buffer, 0xa5, j.bytes);
		if (j.depth > 1 && syscall(SYS_io_setup, j.depth, &context) < 0)
			die("io_setup");
	}
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		die("mlockall");
	began = now_nsec();
	if (j.op == OP_DISCARD)
		discard(&j);
	else if (j.depth == 1)
		one_by_one(&j);
	else
		together(&j, context);
	printf("%" PRIu64 "\n", now_nsec() - began);
	for (unsigned int i = 0; i < j.n_devices; i++)
		(void)close(j.device[i]);
	free(j.buffer);
	return EXIT_SUCCESS;
}
