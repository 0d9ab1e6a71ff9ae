/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines of /proc/PID/mountinfo, /proc/swaps and /proc/PID/cgroup, taken apart; and the way back for
 * paths. Pure. Nothing is copied: a line is decoded in place, and what is returned points into it,
 * so that there is no limit but the line's own length. Whoever mounts chooses the paths and names
 * in them: decoded, they hold any byte but NUL and need not be UTF-8.
 */
#ifndef TM_LOGIC_MOUNTINFO_H
#define TM_LOGIC_MOUNTINFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tm_mount_line {
	uint64_t id, parent; /* ids of mounts: unique at one time, used again later */
	unsigned int major, minor;
	const char *root;    /* the directory of the file system that is mounted */
	const char *point;   /* where, as seen from the reader's root; begins with '/' */
	const char *options; /* of this mount: "rw,noatime" */
	uint64_t shared;     /* its peer group; 0: none */
	uint64_t master;     /* the peer group it is a slave of; 0: none */
	bool unbindable;
	const char *type;          /* may have a subtype: "fuse.sshfs" */
	const char *source;        /* may be empty, or mean nothing */
	const char *super_options; /* of the file system: "rw,errors=continue" */
};

/*
 * Take one line of mountinfo, without its end, apart. 0, or -EINVAL when it is not such a line; its
 * bytes are then changed nevertheless. Optional fields that are not known here are passed over. The
 * options are decoded as well, so an option's own comma cannot be told from one between two.
 */
int tm_mountinfo_parse(char *line, struct tm_mount_line *ret);

struct tm_swap_line {
	const char *path;
	bool is_file;
	uint64_t kib, used_kib;
	int priority; /* of swapon; the kernel's own choices are negative */
};

/* The same for a line of /proc/swaps; its heading is -EINVAL. */
int tm_swaps_parse(char *line, struct tm_swap_line *ret);

/* Decode "\040" and the like in place; what is not three octal digits of one byte is left as it is.
 */
void tm_mount_unescape(char *text);

/*
 * The reverse, into plain UTF-8: control characters, backslashes and bytes that are not UTF-8
 * become "\ooo". @buf of at least 4 * strlen(text) + 1 bytes always suffices. 0, or -ENOSPC.
 */
int tm_mount_escape(const char *text, char *buf, size_t len);

/*
 * One option after the other from @options ("a,b=c"): cuts the next off in place, and returns it,
 * or NULL after the last. *at is where to go on, at first the whole text. *ret_value is what comes
 * after its '=', or NULL. Empty ones are passed over.
 */
char *tm_mount_next_option(char **at, char **ret_value);

/*
 * The systemd unit that a process belongs to by the text of its /proc/PID/cgroup: the outermost
 * that is no slice, as "ssh.service". "" when there is none, or it does not fit. Clean text.
 */
void tm_cgroup_unit(const char *text, char *buf, size_t len);

/*
 * The name of the systemd unit for a mount point or device, as "srv-my\x2ddata.mount" of
 * "/srv/my-data" and ".mount". 0, or -ENAMETOOLONG when it does not fit or is longer than a unit's
 * name may be, -EINVAL when @path is not absolute.
 */
int tm_unit_name(const char *path, const char *suffix, char *buf, size_t len);

#endif
