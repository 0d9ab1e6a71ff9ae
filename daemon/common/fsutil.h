/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small file helpers: whole-file reads with a limit, atomic replacement, time. */
#ifndef TM_COMMON_FSUTIL_H
#define TM_COMMON_FSUTIL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Read a whole regular file (sysfs and procfs too) of at most @limit bytes. *ret_text is NUL
 * terminated and the caller's to free; ret_len may be NULL. 0, -EFBIG, -EINVAL (not a file), or the
 * errno of open/read.
 */
int tm_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_len);
/* The same of a path below the directory @dir is open on. */
int tm_read_file_at(int dir, const char *path, size_t limit, char **ret_text, size_t *ret_len);
/* The same of a file that others may have put there: -ELOOP where it is a symbolic link. */
int tm_read_file_itself(const char *path, size_t limit, char **ret_text, size_t *ret_len);

/*
 * Replace @path with @len bytes of @text: written to "<path>.tmp" under a lock on the directory,
 * fsynced, renamed, directory fsynced, so that a crash leaves the old or the new file whole
 * (and perhaps the temporary, which the next write replaces).
 * 0 or the negative errno of the step that failed (the temporary is removed).
 */
int tm_write_file_atomic(const char *path, const void *text, size_t len, mode_t mode);

/* fsync the directory that holds @path. */
int tm_fsync_parent(const char *path);

uint64_t tm_now_monotonic_usec(void);
uint64_t tm_now_realtime_usec(void);

/*
 * RFC 3339 in UTC with milliseconds ("2026-01-02T03:04:05.678Z"); buf of at least 32. Returns buf.
 */
const char *tm_time_format(uint64_t realtime_usec, char *buf, size_t len);
/* The reverse; accepts fractions and offsets. 0 or -EINVAL. */
int tm_time_parse(const char *text, uint64_t *ret_realtime_usec);

#endif
