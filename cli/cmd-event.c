/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgr event ... */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "common/cleanup.h"
#include "document.h"

/* A daemon that is not there is asked again after this time, then twice this, ... up to the last.
 */
#define RECONNECT_MSEC_FIRST 200
#define RECONNECT_MSEC_LAST  15000

static enum cli_tone severity_tone(const char *severity)
{
	if (strcmp(severity, "error") == 0 || strcmp(severity, "critical") == 0)
		return CLI_BAD;
	if (strcmp(severity, "warning") == 0)
		return CLI_WARN;
	return strcmp(severity, "info") == 0 ? CLI_FAINT : CLI_PLAIN;
}

/* The filters that lists and streams share. */
static int add_filters(const struct cli_args *args, struct cli_url *url, struct tm_error *err)
{
	int r = 0;

	if (cli_has(args, CLI_OPT_POOL)) {
		r = cli_read_pool(args->values[CLI_OPT_POOL], err);
		cli_url_query(url, "pool", args->values[CLI_OPT_POOL]);
	}
	/* Types and severities are the daemon's to know: a newer one has more of them. */
	if (cli_has(args, CLI_OPT_TYPE))
		cli_url_query(url, "type", args->values[CLI_OPT_TYPE]);
	if (cli_has(args, CLI_OPT_SEVERITY))
		cli_url_query(url, "severity", args->values[CLI_OPT_SEVERITY]);
	return r;
}

static int run_list(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	static const struct cli_column columns[] = {
		{ .title = "NUMBER", .right = true },
		{ .title = "TIME" },
		{ .title = "SEVERITY" },
		{ .title = "TYPE" },
		{ .title = "POOL" },
		{ .title = "MESSAGE", .wrap = true },
	};
	cli_auto_table struct cli_table *t = NULL;
	cli_auto_json json_t *items = NULL;
	uint64_t after, limit = 0;
	struct cli_url url;
	size_t n;
	int r;

	cli_url_init(&url, "/v1/events");
	r = add_filters(args, &url, err);
	if (r == 0)
		r = cli_add_time(args, CLI_OPT_SINCE, "since", &url, err);
	if (r == 0)
		r = cli_add_time(args, CLI_OPT_UNTIL, "until", &url, err);
	if (r == 0 && cli_has(args, CLI_OPT_AFTER)) {
		r = cli_read_number("--after", args->values[CLI_OPT_AFTER], 0, INT64_MAX, false,
				    &after, err);
		if (r == 0)
			cli_url_query_uint(&url, "after", after);
	}
	if (r == 0 && cli_has(args, CLI_OPT_LIMIT)) {
		/* The newest so many: asked for in that order, which has no further pages. */
		r = cli_read_number("--limit", args->values[CLI_OPT_LIMIT], 1, 1000, false, &limit,
				    err);
		cli_url_query(&url, "order", "desc");
	}
	if (r == 0)
		r = cli_list_table(cli, &url, limit, "there are no such events", columns,
				   TM_ARRAY_SIZE(columns), &items, &t, err);
	if (r <= 0)
		return r;
	n = json_array_size(items);
	for (size_t i = 0; i < n; i++) {
		/* Shown oldest first, however they came. */
		const json_t *e = json_array_get(items, limit ? n - 1 - i : i);
		const char *severity = cli_string(e, "severity");
		char text[64];

		cli_table_row(t);
		cli_table_cell(t, CLI_FAINT, "%llu", (unsigned long long)cli_uint(e, "seq"));
		cli_table_cell(t, CLI_PLAIN, "%s",
			       cli_time(cli_string(e, "time"), text, sizeof(text)));
		cli_table_cell(t, severity_tone(severity), "%s", severity);
		cli_table_cell(t, CLI_STRONG, "%s", cli_string(e, "type"));
		cli_table_cell(t, CLI_PLAIN, "%s%s%s", cli_string(e, "pool"),
			       *cli_string(e, "volume") ? "/" : "", cli_string(e, "volume"));
		cli_table_cell(t, CLI_PLAIN, "%s", cli_string(e, "message"));
	}
	return cli_table_print(t, err);
}

/* ---- watching ------------------------------------------------------------------------------- */

struct watch {
	struct cli *cli;
	uint64_t left; /* events until it ends; 0: no end */
	uint64_t received;
	char last_id[64];
};

/* cli_sse_fn: 1 ends the watching. */
static int print_event(void *userdata, const struct cli_sse_event *event)
{
	struct watch *w = userdata;
	struct cli_output *o = &w->cli->output;
	cli_auto_json json_t *e = NULL;
	json_error_t fault;
	char text[64];

	(void)snprintf(w->last_id, sizeof(w->last_id), "%s", event->id);
	w->received++;
	if (w->cli->json) {
		cli_raw(o, event->data, event->data_len);
	} else {
		e = json_loadb(event->data, event->data_len, JSON_REJECT_DUPLICATES, &fault);
		if (!e)
			cli_complain(o, CLI_WARN, "thinmgr:", "an event could not be read: %s",
				     fault.text);
		else
			cli_say(o, severity_tone(cli_string(e, "severity")), "%llu %s %s %s: %s",
				(unsigned long long)cli_uint(e, "seq"),
				cli_time(cli_string(e, "time"), text, sizeof(text)),
				cli_string(e, "severity"), cli_string(e, "type"),
				cli_string(e, "message"));
	}
	/* Each at once, also into a pipe; a pipe nobody reads is the end. */
	if (fflush(o->out) != 0)
		return -EPIPE;
	return w->left > 0 && --w->left == 0 ? 1 : 0;
}

/*
 * The number to go on from when nothing was received yet, so that what happens between
 * two attempts is not missed.
 */
static int newest_number(struct cli *cli, char *buf, size_t len, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	struct cli_url url;
	int r;

	cli_url_init(&url, "/v1/events?order=desc&limit=1");
	r = cli_look_up(cli, &url, &response, err);
	if (r < 0)
		return r;
	(void)snprintf(buf, len, "%llu",
		       (unsigned long long)cli_uint(
			       json_array_get(cli_array(response.document, "items"), 0), "seq"));
	return 0;
}

static int run_watch(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	struct watch w = { .cli = cli };
	struct cli_sse sse = { 0 };
	unsigned int pause = RECONNECT_MSEC_FIRST;
	bool told = false;
	struct cli_url url;
	uint64_t number;
	int r;

	cli_url_init(&url, "/v1/events");
	r = add_filters(args, &url, err);
	if (r == 0 && cli_has(args, CLI_OPT_LIMIT))
		r = cli_read_number("--limit", args->values[CLI_OPT_LIMIT], 1, INT64_MAX, false,
				    &w.left, err);
	if (r == 0 && cli_has(args, CLI_OPT_AFTER)) {
		r = cli_read_number("--after", args->values[CLI_OPT_AFTER], 0, INT64_MAX, false,
				    &number, err);
		if (r == 0)
			(void)snprintf(w.last_id, sizeof(w.last_id), "%llu",
				       (unsigned long long)number);
	} else if (r == 0) {
		r = newest_number(cli, w.last_id, sizeof(w.last_id), err);
	}
	if (r < 0)
		return r;

	for (;;) {
		cli_auto_response struct cli_response response = { 0 };
		uint64_t before = w.received;

		cli_sse_restart(&sse);
		r = cli_client_stream(cli->client, &url, w.last_id, &sse, print_event, &w,
				      &response, err);
		if (r == 1) { /* as many as were asked for */
			r = 0;
			break;
		}
		/* What may pass: the daemon stops or is away. Anything else is final. */
		if (r < 0 && r != -ECONNREFUSED && r != -ECONNRESET && r != -ETIMEDOUT)
			break;
		if (r == 0 && response.status >= 400 && response.status != 503) {
			r = cli_refused(cli, &response, err);
			break;
		}
		if (r == 0 && response.status == 200 && !response.event_stream &&
		    response.len > 0) {
			r = tm_error_set(err, TM_ERR_INTERNAL, EPROTO,
					 "the daemon's answer is not a stream of events");
			break;
		}
		*err = (struct tm_error){ 0 };
		if (w.received > before) {
			pause = RECONNECT_MSEC_FIRST;
			told = false;
		}
		if (!told && !cli->quiet)
			cli_complain(&cli->output, CLI_WARN, "thinmgr:",
				     "the connection ended; going on from event %s when the daemon "
				     "answers again",
				     *w.last_id ? w.last_id : "0");
		told = true;
		(void)nanosleep(&(struct timespec){ .tv_sec = pause / 1000,
						    .tv_nsec = pause % 1000 * 1000000L },
				NULL);
		pause = pause * 2 < RECONNECT_MSEC_LAST ? pause * 2 : RECONNECT_MSEC_LAST;
	}
	cli_sse_done(&sse);
	if (r == -EPIPE)
		(void)tm_error_set(err, TM_ERR_IO, EPIPE, "the output could not be written");
	return r;
}

#define FILTERS                                                                      \
	(CLI_BIT(CLI_OPT_POOL) | CLI_BIT(CLI_OPT_TYPE) | CLI_BIT(CLI_OPT_SEVERITY) | \
	 CLI_BIT(CLI_OPT_AFTER) | CLI_BIT(CLI_OPT_LIMIT))

const struct cli_command cli_event_commands[] = {
	{ "event", "list", "", "List what happened, oldest first",
	  "With --limit these are the newest.",
	  FILTERS | CLI_BIT(CLI_OPT_SINCE) | CLI_BIT(CLI_OPT_UNTIL), 0, 0, run_list },
	{ "event", "watch", "", "Show what happens, as it happens",
	  "Goes on from where it was when the daemon is restarted. With --after it begins with\n"
	  "what happened after that event, with --limit it ends after so many.",
	  FILTERS, 0, 0, run_watch },
	{ 0 },
};
