/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults on purpose, for the crash tests: the environment variable
 * THINMGR_FAULT=ACTION:OPERATION:STEP:before|after makes the daemon kill itself, reset the
 * machine or fail at one step. The environment of the service is root's alone.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "core/internal.h"

void tm_fault_read(struct tm_fault *fault, const char *text)
{
	char action[16], when[16];

	*fault = (struct tm_fault){ 0 };
	if (!text || sscanf(text, "%15[a-z]:%31[a-z-]:%31[a-z-]:%15[a-z]", action, fault->kind,
			    fault->step, when) != 4)
		return;
	fault->after = strcmp(when, "after") == 0;
	if (strcmp(action, "kill") == 0)
		fault->action = TM_FAULT_KILL;
	else if (strcmp(action, "reset") == 0)
		fault->action = TM_FAULT_RESET;
	else if (strcmp(action, "error") == 0)
		fault->action = TM_FAULT_ERROR;
	if (fault->action != TM_FAULT_NONE)
		tm_log(LOG_WARNING, "A fault is armed: %s", text);
}

int tm_fault_hit(const struct tm_core *core, const char *kind, const char *step, bool after,
		 struct tm_error *err)
{
	const struct tm_fault *f = &core->fault;
	tm_auto_close int fd = -1;

	if (f->action == TM_FAULT_NONE || f->after != after || strcmp(f->kind, kind) != 0 ||
	    strcmp(f->step, step) != 0)
		return 0;
	switch (f->action) {
	case TM_FAULT_KILL:
		(void)raise(SIGKILL);
		break;
	case TM_FAULT_RESET:
		fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, "b", 1) == 1)
			for (;;)
				(void)pause();
		break;
	case TM_FAULT_ERROR:
	case TM_FAULT_NONE:
		break;
	}
	return tm_error_set(err, TM_ERR_INTERNAL, EIO, "A fault was provoked at step %s of %s.",
			    step, kind);
}
