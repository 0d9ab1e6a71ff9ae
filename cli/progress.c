/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "document.h"
#include "sanitise.h"

void cli_progress_init(struct cli_progress *p, struct cli_output *output, bool silent)
{
	*p = (struct cli_progress){
		.output = output,
		.started_usec = tm_now_monotonic_usec(),
		.silent = silent || !output->err_terminal,
	};
}

const char *cli_progress_text(const json_t *operation, uint64_t seconds, char *buf, size_t len)
{
	const char *pool = cli_string(operation, "pool");
	const char *volume = cli_string(operation, "volume");
	const char *status = cli_string(operation, "status");
	const char *step_name = cli_string(operation, "step_name");
	uint64_t step = cli_uint(operation, "step"), steps = cli_uint(operation, "steps");
	char where[160], what[160], percent[24] = "";

	(void)snprintf(where, sizeof(where), "%s%s%s%s%s", *pool ? " of '" : "", pool,
		       *volume ? "/" : "", volume, *pool ? "'" : "");
	if (cli_present(operation, "percent"))
		(void)snprintf(percent, sizeof(percent), " %llu %%",
			       (unsigned long long)cli_uint(operation, "percent"));
	/* The daemon counts from 0: the step that is being done. */
	if (strcmp(status, "running") == 0 && steps > 0)
		(void)snprintf(what, sizeof(what), "step %llu of %llu%s%s%s",
			       (unsigned long long)(step < steps ? step + 1 : steps),
			       (unsigned long long)steps, *step_name ? ", " : "", step_name,
			       percent);
	else
		(void)snprintf(what, sizeof(what), "%s%s%s", status, *step_name ? ", " : "",
			       step_name);
	(void)snprintf(buf, len, "%s%s: %s (%llu s)", cli_string(operation, "kind"), where, what,
		       (unsigned long long)seconds);
	return buf;
}

void cli_progress_show(struct cli_progress *p, const json_t *operation)
{
	tm_auto_free char *safe = NULL;
	struct winsize window;
	char text[512];
	size_t n;

	if (p->silent)
		return;
	(void)cli_progress_text(operation,
				(tm_now_monotonic_usec() - p->started_usec) / TM_USEC_PER_SEC, text,
				sizeof(text));
	/* Plain ASCII, so that bytes are columns: a line that wraps could not be taken back. */
	safe = cli_sanitise(text, strlen(text), false);
	if (!safe)
		return;
	n = strlen(safe);
	if (ioctl(fileno(p->output->err), TIOCGWINSZ, &window) == 0 && window.ws_col > 1 &&
	    n >= window.ws_col)
		safe[window.ws_col - 1] = '\0';
	(void)fprintf(p->output->err, "\r\033[K%s", safe);
	(void)fflush(p->output->err);
	p->shown = true;
}

void cli_progress_end(struct cli_progress *p)
{
	if (!p->shown)
		return;
	(void)fputs("\r\033[K", p->output->err);
	(void)fflush(p->output->err);
	p->shown = false;
}
