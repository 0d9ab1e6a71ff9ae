/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One line on a terminal's standard error that shows how far an operation is, and is
 * gone when it has ended. Shows nothing when the standard error is not a terminal.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "output.h"

struct cli_progress {
	struct cli_output *output; /* borrowed */
	uint64_t started_usec;     /* monotonic */
	bool shown;
	bool silent;
};

/* @silent shows nothing on a terminal either. */
void cli_progress_init(struct cli_progress *p, struct cli_output *output, bool silent);
/* @operation is the API's document. */
void cli_progress_show(struct cli_progress *p, const json_t *operation);
void cli_progress_end(struct cli_progress *p);

/*
 * "volume-create of 'web/home': step 2 of 5, kernel-create (3 s)". Pure; the text is not
 * made safe. Returns buf.
 */
const char *cli_progress_text(const json_t *operation, uint64_t seconds, char *buf, size_t len);

#endif
