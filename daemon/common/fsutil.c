// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/fsutil.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/units.h"

/* 9999-12-31T23:59:59.999999Z: RFC 3339 has four digits for the year. */
#define LAST_USEC ((uint64_t)253402300799 * TM_USEC_PER_SEC + 999999)

static int read_file(int dir, const char *path, int flags, size_t limit, char **ret_text,
		     size_t *ret_len)
{
	tm_auto_close int fd = -1;
	tm_auto_free char *text = NULL;
	size_t size = 0, len = 0;
	struct stat st;

	/* O_NONBLOCK: a FIFO put in the file's place must not hang the open. */
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	/* Sizes in sysfs and procfs are made up, so read to the end whatever st_size says. */
	for (;;) {
		ssize_t n;

		if (len + 1 >= size) {
			char *larger;

			size = size ? size * 2 : 4096;
			if (size > limit && size - limit > 2)
				size = limit + 2;
			larger = realloc(text, size);
			if (!larger)
				return -ENOMEM;
			text = larger;
		}
		n = read(fd, text + len, size - len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		len += (size_t)n;
		if (len > limit)
			return -EFBIG;
	}
	text[len] = '\0';
	*ret_text = TM_TAKE(text);
	if (ret_len)
		*ret_len = len;
	return 0;
}

int tm_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_len)
{
	return read_file(AT_FDCWD, path, 0, limit, ret_text, ret_len);
}

int tm_read_file_at(int dir, const char *path, size_t limit, char **ret_text, size_t *ret_len)
{
	return read_file(dir, path, 0, limit, ret_text, ret_len);
}

int tm_read_file_itself(const char *path, size_t limit, char **ret_text, size_t *ret_len)
{
	return read_file(AT_FDCWD, path, O_NOFOLLOW, limit, ret_text, ret_len);
}

/* Opens the directory that holds @path; the name within it in *ret_base. fd or -errno. */
static int open_parent(const char *path, const char **ret_base)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];
	int fd;

	*ret_base = slash ? slash + 1 : path;
	if (!slash) {
		memcpy(dir, ".", sizeof("."));
	} else if (slash == path) {
		memcpy(dir, "/", sizeof("/"));
	} else {
		if ((size_t)(slash - path) >= sizeof(dir))
			return -ENAMETOOLONG;
		memcpy(dir, path, (size_t)(slash - path));
		dir[slash - path] = '\0';
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int tm_fsync_parent(const char *path)
{
	tm_auto_close int fd = -1;
	const char *base;

	fd = open_parent(path, &base);
	if (fd < 0)
		return fd;
	return fsync(fd) < 0 ? -errno : 0;
}

static int write_all(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EIO;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_temporary(int dir, const char *name, const void *text, size_t len, mode_t mode)
{
	tm_auto_close int fd = -1;
	int r, raw;

	/* Left by a crash; a fresh file also drops whatever links or rights the old one had. */
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_all(fd, text, len);
	if (r < 0)
		return r;
	if (fchmod(fd, mode) < 0 || fsync(fd) < 0)
		return -errno;
	raw = TM_TAKE_FD(fd);
	return close(raw) < 0 ? -errno : 0;
}

int tm_write_file_atomic(const char *path, const void *text, size_t len, mode_t mode)
{
	tm_auto_close int dir = -1;
	char temporary[NAME_MAX + 1];
	const char *base;
	int r;

	dir = open_parent(path, &base);
	if (dir < 0)
		return dir;
	r = snprintf(temporary, sizeof(temporary), "%s.tmp", base);
	if (!base[0])
		return -EISDIR;
	if (r < 0 || (size_t)r >= sizeof(temporary))
		return -ENAMETOOLONG;
	/* Two writers would share the temporary; the lock ends with the descriptor. */
	do
		r = flock(dir, LOCK_EX);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	r = write_temporary(dir, temporary, text, len, mode);
	if (r == 0 && renameat(dir, temporary, dir, base) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(dir, temporary, 0);
		return r;
	}
	return fsync(dir) < 0 ? -errno : 0;
}

static uint64_t now_usec(clockid_t clock)
{
	struct timespec ts;

	/* Cannot fail for these clocks and a valid pointer. */
	if (clock_gettime(clock, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * TM_USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t tm_now_monotonic_usec(void)
{
	return now_usec(CLOCK_MONOTONIC);
}

uint64_t tm_now_realtime_usec(void)
{
	return now_usec(CLOCK_REALTIME);
}

const char *tm_time_format(uint64_t realtime_usec, char *buf, size_t len)
{
	uint64_t usec = realtime_usec > LAST_USEC ? LAST_USEC : realtime_usec;
	time_t seconds = (time_t)(usec / TM_USEC_PER_SEC);
	struct tm tm = { 0 };

	(void)gmtime_r(&seconds, &tm);
	(void)snprintf(buf, len, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", tm.tm_year + 1900,
		       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		       (unsigned int)(usec % TM_USEC_PER_SEC / TM_USEC_PER_MSEC));
	return buf;
}

/* Reads exactly @n digits, at most @max, then @follow unless that is 0. */
static bool read_digits(const char **at, unsigned int n, int max, char follow, int *ret)
{
	int value = 0;

	for (; n; n--, (*at)++) {
		if (**at < '0' || **at > '9')
			return false;
		value = value * 10 + (**at - '0');
	}
	if (value > max || (follow && *(*at)++ != follow))
		return false;
	*ret = value;
	return true;
}

static int days_in_month(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

/* "Z" or "+02:00", the whole rest of the text, as seconds east of UTC. */
static bool read_offset(const char *at, int *ret)
{
	int sign, hours, minutes;

	if (*at == 'Z' || *at == 'z') {
		*ret = 0;
		return !at[1];
	}
	if (*at != '+' && *at != '-')
		return false;
	sign = *at++ == '-' ? -1 : 1;
	if (!read_digits(&at, 2, 23, ':', &hours) || !read_digits(&at, 2, 59, '\0', &minutes))
		return false;
	*ret = sign * (hours * 3600 + minutes * 60);
	return !*at;
}

int tm_time_parse(const char *text, uint64_t *ret_realtime_usec)
{
	struct tm tm = { 0 };
	const char *at = text;
	uint64_t usec = 0, unit = 100000;
	int offset, year, month;
	time_t seconds;

	if (!read_digits(&at, 4, 9999, '-', &year) || !read_digits(&at, 2, 12, '-', &month) ||
	    !read_digits(&at, 2, 31, '\0', &tm.tm_mday) || (*at != 'T' && *at != 't'))
		return -EINVAL;
	at++;
	/* 60: a leap second, which timegm counts as the next minute's first. */
	if (!read_digits(&at, 2, 23, ':', &tm.tm_hour) ||
	    !read_digits(&at, 2, 59, ':', &tm.tm_min) || !read_digits(&at, 2, 60, '\0', &tm.tm_sec))
		return -EINVAL;
	if (month < 1 || tm.tm_mday < 1 || tm.tm_mday > days_in_month(year, month))
		return -EINVAL;
	if (*at == '.') {
		at++;
		if (*at < '0' || *at > '9')
			return -EINVAL;
		for (; *at >= '0' && *at <= '9'; at++, unit /= 10)
			usec += (uint64_t)(*at - '0') * unit;
	}
	if (!read_offset(at, &offset))
		return -EINVAL;
	tm.tm_year = year - 1900;
	tm.tm_mon = month - 1;
	seconds = timegm(&tm) - offset;
	if (seconds < 0)
		return -EINVAL;
	usec += (uint64_t)seconds * TM_USEC_PER_SEC;
	if (usec > LAST_USEC)
		return -EINVAL;
	*ret_realtime_usec = usec;
	return 0;
}
