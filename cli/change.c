/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests as the commands make them: reads, lists, and changes that are seen through to their end.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "common/cleanup.h"
#include "common/fsutil.h"
#include "common/units.h"
#include "document.h"
#include "progress.h"
#include "sanitise.h"

/* Reads never wait for the disk of a pool; this is for a daemon that starts up. */
#define PATIENCE_SECONDS 60

/* How long one request waits for an operation: short where progress is shown. */
#define WAIT_SHOWN_SECONDS  1
#define WAIT_SILENT_SECONDS 60

/* A daemon that is restarted in the middle of an operation settles it; so long it may be away. */
#define RESTART_SECONDS 60

int cli_no_memory(struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_NO_MEMORY, ENOMEM, "out of memory");
}

int cli_refused(struct cli *cli, const struct cli_response *response, struct tm_error *err)
{
	bool known = false;

	if (cli->json && response->len > 0)
		cli_raw(&cli->output, response->body, response->len);
	cli_problem_to_error(response->document, response->status, err, &known);
	if (!known)
		cli->exit_status = CLI_EXIT_OTHER;
	return -EREMOTEIO;
}

static int not_a_document(long status, struct tm_error *err)
{
	return tm_error_set(err, TM_ERR_INTERNAL, EPROTO,
			    "the daemon's answer (status %ld) is not what was asked for", status);
}

static int get(struct cli *cli, const char *method, const struct cli_url *url, bool print,
	       struct cli_response *ret, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	int r = cli_client_request(cli->client, method, url, NULL, PATIENCE_SECONDS, &response,
				   err);

	if (r < 0)
		return r;
	if (response.status >= 400)
		return cli_refused(cli, &response, err);
	if ((response.status != 200 && response.status != 202) ||
	    !json_is_object(response.document))
		return not_a_document(response.status, err);
	if (print && cli->json)
		cli_raw(&cli->output, response.body, response.len);
	*ret = response;
	response = (struct cli_response){ 0 };
	return 0;
}

int cli_get(struct cli *cli, const struct cli_url *url, struct cli_response *ret,
	    struct tm_error *err)
{
	return get(cli, "GET", url, true, ret, err);
}

int cli_look_up(struct cli *cli, const struct cli_url *url, struct cli_response *ret,
		struct tm_error *err)
{
	return get(cli, "GET", url, false, ret, err);
}

int cli_ask(struct cli *cli, const struct cli_url *url, struct cli_response *ret,
	    struct tm_error *err)
{
	return get(cli, "POST", url, false, ret, err);
}

int cli_list(struct cli *cli, const struct cli_url *url, uint64_t max, json_t **ret_items,
	     struct tm_error *err)
{
	cli_auto_json json_t *items = json_array();
	char cursor[1024] = "";
	uint64_t n = 0;

	if (!items)
		return cli_no_memory(err);
	do {
		cli_auto_response struct cli_response page = { 0 };
		struct cli_url address = *url;
		const json_t *page_items;
		const char *next;
		int r;

		if (max > 0)
			cli_url_query_uint(&address, "limit", max - n < 1000 ? max - n : 1000);
		if (*cursor)
			cli_url_query(&address, "cursor", cursor);
		r = cli_get(cli, &address, &page, err);
		if (r < 0)
			return r;
		page_items = cli_array(page.document, "items");
		if (!page_items)
			return not_a_document(page.status, err);
		n += json_array_size(page_items);
		if (!cli->json && json_array_extend(items, (json_t *)page_items) < 0)
			return cli_no_memory(err);
		next = cli_string(page.document, "next");
		/* A page without progress would go on for ever. */
		if (json_array_size(page_items) == 0 || strlen(next) >= sizeof(cursor))
			next = "";
		(void)snprintf(cursor, sizeof(cursor), "%s", next);
	} while (*cursor && (max == 0 || n < max));
	*ret_items = TM_TAKE(items);
	return 0;
}

int cli_list_table(struct cli *cli, const struct cli_url *url, uint64_t max, const char *none,
		   const struct cli_column *columns, size_t n_columns, json_t **ret_items,
		   struct cli_table **ret_table, struct tm_error *err)
{
	int r = cli_list(cli, url, max, ret_items, err);

	if (r < 0 || cli->json)
		return r;
	if (json_array_size(*ret_items) == 0) {
		if (!cli->quiet)
			cli_complain(&cli->output, CLI_PLAIN, "", "%s", none);
		return 0;
	}
	r = cli_table_new(&cli->output, columns, n_columns, ret_table, err);
	return r < 0 ? r : 1;
}

int cli_add_time(const struct cli_args *args, enum cli_option_id id, const char *name,
		 struct cli_url *url, struct tm_error *err)
{
	char what[32], text[64];
	int r;

	if (!cli_has(args, id))
		return 0;
	(void)snprintf(what, sizeof(what), "--%s", cli_option(id)->name);
	r = cli_read_time(what, args->values[id], tm_now_realtime_usec(), text, sizeof(text), err);
	if (r == 0)
		cli_url_query(url, name, text);
	return r;
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* SIGINT and SIGTERM as a readable descriptor, for as long as this lives. */
struct interrupt {
	struct cli_client *client;
	sigset_t before;
	int fd;
};

static int interrupt_begin(struct interrupt *i, struct cli_client *client, struct tm_error *err)
{
	sigset_t set;

	*i = (struct interrupt){ .fd = -1 };
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, &i->before) < 0)
		return tm_error_set(err, TM_ERR_INTERNAL, errno, "signals cannot be blocked");
	i->client = client;
	i->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (i->fd < 0)
		return tm_error_set(err, TM_ERR_INTERNAL, errno, "signals cannot be read: %s",
				    strerror(errno));
	cli_client_set_interrupt(client, i->fd);
	return 0;
}

static void interrupt_end(struct interrupt *i)
{
	struct signalfd_siginfo info;

	if (!i->client)
		return;
	cli_client_set_interrupt(i->client, -1);
	if (i->fd >= 0) {
		/* Taken here, or it would kill the process as soon as it is unblocked. */
		while (read(i->fd, &info, sizeof(info)) > 0)
			;
		(void)close(i->fd);
	}
	(void)sigprocmask(SIG_SETMASK, &i->before, NULL);
}

static bool ended(const json_t *operation)
{
	const char *status = cli_string(operation, "status");

	return strcmp(status, "done") == 0 || strcmp(status, "failed") == 0;
}

/* What a failed operation says. */
static int operation_error(struct cli *cli, const json_t *operation, struct tm_error *err)
{
	const json_t *problem = cli_object(operation, "error");
	bool known = false;

	cli_problem_to_error(problem, (long)cli_uint(problem, "status"), err, &known);
	if (!known)
		cli->exit_status = CLI_EXIT_OTHER;
	return -EREMOTEIO;
}

/* The waiting itself; *ret is the last answer about the operation. */
static int wait_loop(struct cli *cli, const char *id, uint64_t limit_seconds,
		     struct cli_progress *progress, struct cli_response *ret, struct tm_error *err)
{
	const struct timespec pause = { .tv_nsec = 200 * 1000 * 1000 };
	uint64_t began = tm_now_monotonic_usec(), missing_since = 0;

	for (;;) {
		cli_auto_response struct cli_response response = { 0 };
		uint64_t now = tm_now_monotonic_usec();
		uint64_t gone = (now - began) / TM_USEC_PER_SEC;
		uint64_t wait = progress->silent ? WAIT_SILENT_SECONDS : WAIT_SHOWN_SECONDS;
		struct cli_url url;
		int r;

		if (limit_seconds > 0)
			wait = gone >= limit_seconds         ? 0
			       : limit_seconds - gone < wait ? limit_seconds - gone
							     : wait;
		cli_url_init(&url, "/v1/operations");
		cli_url_segment(&url, id);
		cli_url_query_uint(&url, "wait", wait);
		r = cli_client_request(cli->client, "GET", &url, NULL,
				       (unsigned int)wait + PATIENCE_SECONDS, &response, err);
		if (r < 0 && r != -ECONNREFUSED && r != -ECONNRESET)
			return r;
		/* 503: it stops, or starts and has yet to settle what a restart cut off. */
		if (r < 0 || response.status == 503) {
			if (missing_since == 0)
				missing_since = now;
			if (now - missing_since > RESTART_SECONDS * TM_USEC_PER_SEC ||
			    (limit_seconds > 0 && gone >= limit_seconds))
				return r < 0 ? r : cli_refused(cli, &response, err);
			*err = (struct tm_error){ 0 };
			(void)nanosleep(&pause, NULL);
			continue;
		}
		missing_since = 0;
		if (response.status >= 400)
			return cli_refused(cli, &response, err);
		if (response.status != 200 || !json_is_object(response.document))
			return not_a_document(response.status, err);
		cli_response_done(ret);
		*ret = response;
		response = (struct cli_response){ 0 };
		if (ended(ret->document))
			return 0;
		cli_progress_show(progress, ret->document);
		if (limit_seconds > 0 &&
		    tm_now_monotonic_usec() - began >= limit_seconds * TM_USEC_PER_SEC) {
			(void)tm_error_set(err, TM_ERR_TIMEOUT, ETIMEDOUT,
					   "the operation still goes on after %llu s",
					   (unsigned long long)limit_seconds);
			tm_error_hint(err, "wait on with 'thinmgr operation wait %s'", id);
			return -ETIMEDOUT;
		}
		/* One that waits for a restart is answered for at once. */
		if (tm_now_monotonic_usec() - now < (uint64_t)pause.tv_nsec / 1000)
			(void)nanosleep(&pause, NULL);
	}
}

int cli_wait(struct cli *cli, const char *id, uint64_t limit_seconds, struct cli_response *ret,
	     struct tm_error *err)
{
	struct interrupt interrupt;
	struct cli_progress progress;
	int r = interrupt_begin(&interrupt, cli->client, err);

	if (r == 0) {
		cli_progress_init(&progress, &cli->output, cli->quiet);
		r = wait_loop(cli, id, limit_seconds, &progress, ret, err);
		cli_progress_end(&progress);
	}
	interrupt_end(&interrupt);
	if (r == -EINTR) {
		cli->exit_status = CLI_EXIT_INTERRUPTED;
		(void)tm_error_set(err, TM_ERR_CANCELLED, EINTR,
				   "interrupted; the operation goes on in the daemon");
		tm_error_hint(err, "see what becomes of it with 'thinmgr operation wait %s'", id);
	}
	if (r == 0 && strcmp(cli_string(ret->document, "status"), "failed") == 0)
		r = operation_error(cli, ret->document, err);
	return r;
}

/* ---- changes -------------------------------------------------------------------------------- */

const char *cli_done_text(const json_t *operation, char *buf, size_t len)
{
	static const struct {
		const char *kind, *noun, *done;
	} kinds[] = {
		{ "pool-create", "pool", "created" },
		{ "pool-import", "pool", "imported" },
		{ "pool-delete", "pool", "deleted" },
		{ "pool-activate", "pool", "activated" },
		{ "pool-deactivate", "pool", "deactivated" },
		{ "pool-extend", "pool", "extended" },
		{ "pool-policy", "pool", "has its new policy" },
		{ "pool-repair", "pool", "repaired" },
		{ "pool-restore", "pool", "went back to the copy" },
		{ "pool-check", "pool", "has sound metadata" },
		{ "volume-create", "volume", "created" },
		{ "volume-delete", "volume", "deleted" },
		{ "volume-resize", "volume", "resized" },
		{ "volume-rename", "volume", "renamed" },
		{ "volume-activate", "volume", "activated" },
		{ "volume-deactivate", "volume", "deactivated" },
		{ "volume-check", "volume", "checked: nothing wrong was found" },
		{ "volume-clear-suspect", "volume", "is no longer suspect" },
		{ "snapshot-create", "snapshot", "created" },
	};
	const char *kind = cli_string(operation, "kind");
	const char *pool = cli_string(operation, "pool");
	const char *volume = cli_string(operation, "volume");

	for (size_t i = 0; i < TM_ARRAY_SIZE(kinds); i++) {
		if (strcmp(kind, kinds[i].kind) != 0)
			continue;
		if (strcmp(kinds[i].noun, "snapshot") == 0 && !*volume)
			(void)snprintf(buf, len, "snapshots in pool '%s' created", pool);
		else
			(void)snprintf(buf, len, "%s '%s%s%s' %s", kinds[i].noun, pool,
				       *volume ? "/" : "", volume, kinds[i].done);
		return buf;
	}
	(void)snprintf(buf, len, "%s is done", *kind ? kind : "the change");
	return buf;
}

/* The outcome, in words or as the document. */
static void report(struct cli *cli, const struct cli_response *response)
{
	char text[256];

	if (cli->json)
		cli_raw(&cli->output, response->body, response->len);
	else if (!cli->quiet)
		cli_say(&cli->output, CLI_PLAIN, "%s",
			cli_done_text(response->document, text, sizeof(text)));
}

static void report_dry_run(struct cli *cli, const struct cli_response *response)
{
	const json_t *operation = response->document;
	const char *volume = cli_string(operation, "volume");

	if (cli->json)
		cli_raw(&cli->output, response->body, response->len);
	else if (!cli->quiet)
		cli_say(&cli->output, CLI_PLAIN,
			"dry run: %s of '%s%s%s' could be made, in %llu steps; nothing was changed",
			cli_string(operation, "kind"), cli_string(operation, "pool"),
			*volume ? "/" : "", volume,
			(unsigned long long)cli_uint(operation, "steps"));
}

int cli_change(struct cli *cli, const struct cli_args *args, const char *method,
	       struct cli_url *url, const json_t *body, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	bool dry_run = cli_has(args, CLI_OPT_DRY_RUN);
	bool no_wait = cli_has(args, CLI_OPT_NO_WAIT);
	uint64_t limit = 0;
	struct tm_uuid id;
	int r;

	if (no_wait && cli_has(args, CLI_OPT_WAIT))
		return cli_usage(err, "--wait and --no-wait exclude each other");
	if (cli_has(args, CLI_OPT_WAIT)) {
		r = cli_read_duration("--wait", args->values[CLI_OPT_WAIT], &limit, err);
		if (r < 0)
			return r;
		no_wait = limit == 0;
	}
	if (dry_run)
		cli_url_query(url, "dry_run", "true");

	/* Not waited for in this request: should the daemon be restarted, the id is known. */
	r = cli_client_request(cli->client, method, url, body, PATIENCE_SECONDS, &response, err);
	if (r < 0)
		return r;
	if (response.status >= 400)
		return cli_refused(cli, &response, err);
	if ((response.status != 200 && response.status != 202) ||
	    !json_is_object(response.document))
		return not_a_document(response.status, err);
	if (dry_run) {
		report_dry_run(cli, &response);
		return 0;
	}
	if (no_wait) {
		if (cli->json)
			cli_raw(&cli->output, response.body, response.len);
		else
			cli_say(&cli->output, CLI_PLAIN, "%s", cli_string(response.document, "id"));
		return 0;
	}
	if (response.status == 202 || !ended(response.document)) {
		if (tm_uuid_parse(cli_string(response.document, "id"), &id) < 0)
			return not_a_document(response.status, err);
		cli_response_done(&response);
		r = cli_wait(cli, id.text, limit, &response, err);
	} else if (strcmp(cli_string(response.document, "status"), "failed") == 0) {
		r = operation_error(cli, response.document, err);
	}
	if (r < 0) {
		/* What is known of it, also when it failed or still goes on. */
		if (cli->json && json_is_object(response.document))
			cli_raw(&cli->output, response.body, response.len);
		return r;
	}
	report(cli, &response);
	return 0;
}

int cli_confirm(struct cli *cli, const struct cli_args *args, struct tm_error *err, const char *fmt,
		...)
{
	tm_auto_free char *question = NULL;
	tm_auto_free char *safe = NULL;
	tm_auto_free char *answer = NULL;
	size_t room = 0;
	va_list ap;
	int n;

	if (cli_has(args, CLI_OPT_YES) || cli_has(args, CLI_OPT_DRY_RUN))
		return 0;
	va_start(ap, fmt);
	n = vasprintf(&question, fmt, ap);
	va_end(ap);
	if (n < 0) {
		question = NULL;
		return cli_no_memory(err);
	}
	if (isatty(STDIN_FILENO) != 1 || !cli->output.err_terminal) {
		(void)tm_error_set(err, TM_ERR_BAD_QUERY, ECANCELED,
				   "this destroys data, and there is no terminal to ask on");
		tm_error_hint(err, "add --yes when it is meant");
		return -ECANCELED;
	}
	safe = cli_sanitise(question, strlen(question), cli->output.utf8);
	if (!safe)
		return cli_no_memory(err);
	(void)fprintf(cli->output.err, "%s [y/N] ", safe);
	(void)fflush(cli->output.err);
	if (getline(&answer, &room, stdin) > 0 &&
	    (strcmp(answer, "y\n") == 0 || strcmp(answer, "yes\n") == 0))
		return 0;
	cli->exit_status = CLI_EXIT_OTHER;
	(void)tm_error_set(err, TM_ERR_CANCELLED, ECANCELED, "not confirmed; nothing was changed");
	return -ECANCELED;
}
