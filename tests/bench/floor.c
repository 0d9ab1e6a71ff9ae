// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The floor: what a program that does nothing else needs to make a pool larger when the kernel says
 * that it is low. One wait for an event, which brings the status with it (read without flush), one
 * load, one resume; all with libdevmapper. The space lies below the pool already.
 *
 *     floor POOL data SECTORS      the table's new length
 *     floor POOL metadata          the same table again: a resume takes more metadata into use
 *
 * Says "ready", extends once, prints one JSON object and ends.
 */
#include <inttypes.h>
#include <libdevmapper.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/cleanup.h"

static void task_free(struct dm_task **task)
{
	if (*task)
		dm_task_destroy(*task);
}
#define auto_task tm_cleanup(task_free)

static void die(const char *what)
{
	(void)fprintf(stderr, "floor: %s\n", what);
	exit(EXIT_FAILURE);
}

static uint64_t clock_usec(clockid_t id)
{
	struct timespec t;

	if (clock_gettime(id, &t) < 0)
		die("clock_gettime");
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static struct dm_task *task_for(int type, const char *pool)
{
	struct dm_task *task = dm_task_create(type);

	if (!task || !dm_task_set_name(task, pool))
		die("out of memory");
	return task;
}

/* Table (@type TABLE) or status of the pool's only target; the caller frees *ret_params. */
static void line(int type, const char *pool, uint64_t *ret_sectors, char **ret_params,
		 uint32_t *ret_event)
{
	auto_task struct dm_task *task = task_for(type, pool);
	uint64_t start;
	char *target, *params;
	struct dm_info info;

	if (!dm_task_no_flush(task) || !dm_task_run(task) || !dm_task_get_info(task, &info))
		die("status");
	(void)dm_get_next_target(task, NULL, &start, ret_sectors, &target, &params);
	*ret_params = params ? strdup(params) : NULL;
	*ret_event = info.event_nr;
	if (!*ret_params)
		die("no table");
}

/* Whether a status line says that the pool is at its mark. */
static bool is_low(const char *params, bool metadata, uint64_t mark)
{
	uint64_t meta_used, meta_total, used, total;

	if (sscanf(params, "%*s %" SCNu64 "/%" SCNu64 " %" SCNu64 "/%" SCNu64, &meta_used,
		   &meta_total, &used, &total) != 4)
		die("status line");
	return metadata ? meta_total - meta_used <= meta_total / 4 : total - used <= mark;
}

static void grow(const char *pool, uint64_t sectors, const char *table)
{
	auto_task struct dm_task *load = task_for(DM_DEVICE_RELOAD, pool);
	auto_task struct dm_task *resume = NULL;

	if (!dm_task_add_target(load, 0, sectors, "thin-pool", table) || !dm_task_run(load))
		die("load");
	resume = task_for(DM_DEVICE_RESUME, pool);
	if (!dm_task_no_flush(resume) || !dm_task_skip_lockfs(resume) || !dm_task_run(resume))
		die("resume");
}

int main(int argc, char **argv)
{
	tm_auto_free char *table = NULL;
	uint64_t sectors, mark, seen, live, cpu;
	bool metadata;
	uint32_t event, ignored;

	if (argc < 3 || (strcmp(argv[2], "metadata") != 0 && argc < 4)) {
		(void)fprintf(stderr, "usage: floor POOL data SECTORS | floor POOL metadata\n");
		return EXIT_FAILURE;
	}
	metadata = strcmp(argv[2], "metadata") == 0;
	dm_udev_set_sync_support(0);
	dm_hold_control_dev(1);
	line(DM_DEVICE_TABLE, argv[1], &sectors, &table, &ignored);
	if (sscanf(table, "%*s %*s %*s %" SCNu64, &mark) != 1)
		die("table line");
	if (!metadata)
		sectors = strtoull(argv[3], NULL, 10);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		die("mlockall");
	{
		tm_auto_free char *params = NULL;
		uint64_t length;

		line(DM_DEVICE_STATUS, argv[1], &length, &params, &event);
	}
	printf("ready\n");
	(void)fflush(stdout);
	cpu = clock_usec(CLOCK_PROCESS_CPUTIME_ID);
	for (;;) {
		auto_task struct dm_task *wait = task_for(DM_DEVICE_WAITEVENT, argv[1]);
		uint64_t start, length;
		char *target, *params;
		struct dm_info info;

		if (!dm_task_no_flush(wait) || !dm_task_set_event_nr(wait, event) ||
		    !dm_task_run(wait) || !dm_task_get_info(wait, &info))
			die("wait");
		seen = clock_usec(CLOCK_MONOTONIC);
		event = info.event_nr;
		(void)dm_get_next_target(wait, NULL, &start, &length, &target, &params);
		if (params && is_low(params, metadata, mark))
			break;
	}
	grow(argv[1], sectors, table);
	live = clock_usec(CLOCK_MONOTONIC);
	cpu = clock_usec(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	printf("{\"seen_to_live_ms\": %.3f, \"cpu_ms\": %.3f}\n", (double)(live - seen) / 1e3,
	       (double)cpu / 1e3);
	return EXIT_SUCCESS;
}
