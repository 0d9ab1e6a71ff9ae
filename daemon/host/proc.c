// SPDX-License-Identifier: GPL-2.0-or-later
#include "host/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/fsutil.h"
#include "common/utf8.h"
#include "logic/mountinfo.h"

#define TEXT_MAX ((size_t)64 << 10)

DIR *tm_open_dir(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir && fd >= 0)
		(void)close(fd);
	return dir;
}

const char *tm_next_entry(DIR *dir)
{
	const struct dirent *entry;

	do
		entry = readdir(dir);
	while (entry && entry->d_name[0] == '.');
	return entry ? entry->d_name : NULL;
}

static bool is_pid(const char *name, pid_t *ret)
{
	unsigned long number;
	char *end;

	if (name[0] < '1' || name[0] > '9')
		return false;
	errno = 0;
	number = strtoul(name, &end, 10);
	if (*end || errno || number > INT_MAX)
		return false;
	*ret = (pid_t)number;
	return true;
}

static int compare_pids(const void *a, const void *b)
{
	const pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return x < y ? -1 : x > y;
}

int tm_list_pids(DIR *dir, pid_t **ret, size_t *ret_n)
{
	tm_auto_free pid_t *pids = NULL;
	size_t n = 0, room = 0;
	const char *entry;
	pid_t pid;

	rewinddir(dir);
	while ((entry = tm_next_entry(dir)) != NULL) {
		if (!is_pid(entry, &pid))
			continue;
		if (n == room) {
			pid_t *larger;

			room = room ? room * 2 : 64;
			larger = realloc(pids, room * sizeof(*pids));
			if (!larger)
				return -ENOMEM;
			pids = larger;
		}
		pids[n++] = pid;
	}
	if (n)
		qsort(pids, n, sizeof(*pids), compare_pids);
	*ret = TM_TAKE(pids);
	*ret_n = n;
	return 0;
}

const char *tm_read_link(int dir, const char *name, char *buf, size_t len)
{
	ssize_t n = readlinkat(dir, name, buf, len);

	buf[n > 0 && (size_t)n < len ? n : 0] = '\0';
	return buf;
}

uint64_t tm_mount_namespace(int dir, const char *name)
{
	unsigned long long ns = 0;
	char text[64], end;

	(void)tm_read_link(dir, name, text, sizeof(text));
	/* "mnt:[4026531841]" */
	return sscanf(text, "mnt:[%20llu%c", &ns, &end) == 2 && end == ']' ? ns : 0;
}

void tm_process_describe(int dir, pid_t pid, struct tm_process *ret)
{
	tm_auto_free char *comm = NULL, *cgroup = NULL;

	*ret = (struct tm_process){ .pid = pid };
	if (tm_read_file_at(dir, "comm", TEXT_MAX, &comm, NULL) == 0) {
		(void)snprintf(ret->comm, sizeof(ret->comm), "%.*s", (int)strcspn(comm, "\n"),
			       comm);
		tm_utf8_clean(ret->comm);
	}
	if (tm_read_file_at(dir, "cgroup", TEXT_MAX, &cgroup, NULL) == 0)
		tm_cgroup_unit(cgroup, ret->unit, sizeof(ret->unit));
}

uint64_t tm_process_began(int dir)
{
	tm_auto_free char *text = NULL;
	unsigned long long ticks;
	const char *at;

	if (tm_read_file_at(dir, "stat", TEXT_MAX, &text, NULL) < 0)
		return UINT64_MAX;
	/* The name is the second field, in parentheses, and may hold any; this is the 22nd. */
	at = strrchr(text, ')');
	for (int field = 2; at && field < 22; field++) {
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	return at && sscanf(at, "%20llu", &ticks) == 1 ? ticks : UINT64_MAX;
}

uint64_t tm_boot_ticks(void)
{
	const long hz = sysconf(_SC_CLK_TCK);
	struct timespec ts;

	if (hz <= 0 || clock_gettime(CLOCK_BOOTTIME, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * (uint64_t)hz +
	       (uint64_t)ts.tv_nsec * (uint64_t)hz / 1000000000;
}

void tm_boot_id(int proc, char buf[37])
{
	tm_auto_free char *text = NULL;

	buf[0] = '\0';
	if (tm_read_file_at(proc, "sys/kernel/random/boot_id", TEXT_MAX, &text, NULL) == 0 &&
	    strcspn(text, "\n") == 36) {
		(void)snprintf(buf, 37, "%.36s", text);
		tm_utf8_clean(buf);
	}
}
