/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A test that cannot be done here says why: mk/run-unit shows the line. */
#ifndef TM_TESTS_SKIP_H
#define TM_TESTS_SKIP_H

#define TM_SKIP(why)                                               \
	do {                                                       \
		print_message("skipped: %s: %s\n", __func__, why); \
		skip();                                            \
	} while (0)

#endif
