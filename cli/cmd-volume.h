/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What volume and snapshot commands share: a snapshot is a volume with an origin. */
#ifndef CLI_CMD_VOLUME_H
#define CLI_CMD_VOLUME_H

#include "cli.h"

/*
 * Print the volumes at /v1/pools/POOL<collection>, of the pool in the operands or, without one,
 * of all pools. @none is said when there are none.
 */
int cli_volume_list(struct cli *cli, const struct cli_args *args, const char *collection,
		    const char *none, struct tm_error *err);

#endif
