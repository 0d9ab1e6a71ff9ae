/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The thin tools on files, for tests that hold their own idea of metadata against them. */
#ifndef TM_TESTS_THIN_TOOLS_H
#define TM_TESTS_THIN_TOOLS_H

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fsutil.h"
#include "thin-image.h"

/* Its exit status, -1 where there is none. What it says goes to a file. */
static inline int run_tool(char *const argv[], const char *output)
{
	char *envp[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	posix_spawn_file_actions_t actions;
	int status, r;
	pid_t pid;

	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output,
							  O_WRONLY | O_CREAT | O_TRUNC, 0600),
			 0);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, envp);
	assert_int_equal(posix_spawn_file_actions_destroy(&actions), 0);
	assert_int_equal(r, 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* All zeroes. */
static inline void make_file(const char *path, uint64_t blocks)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)blocks * TM_SURVEY_BLOCK), 0);
	assert_int_equal(close(fd), 0);
}

static inline void load_image(const char *path, struct image *m)
{
	size_t len;

	*m = (struct image){ 0 };
	assert_int_equal(tm_read_file(path, 1 << 24, (char **)&m->bytes, &len), 0);
	m->blocks = len / TM_SURVEY_BLOCK;
}

#endif
