/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgr operation ... */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "common/cleanup.h"
#include "document.h"

static enum cli_tone status_tone(const char *status)
{
	if (strcmp(status, "done") == 0)
		return CLI_GOOD;
	if (strcmp(status, "failed") == 0)
		return CLI_BAD;
	return strcmp(status, "undoing") == 0 ? CLI_WARN : CLI_PLAIN;
}

static int run_list(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	static const struct cli_column columns[] = {
		{ .title = "OPERATION" }, { .title = "KIND" }, { .title = "OBJECT" },
		{ .title = "STATUS" },    { .title = "STEP" }, { .title = "BEGUN" },
		{ .title = "FINISHED" },
	};
	cli_auto_table struct cli_table *t = NULL;
	cli_auto_json json_t *items = NULL;
	uint64_t limit = 50;
	struct cli_url url;
	const json_t *op;
	size_t i;
	int r = 0;

	cli_url_init(&url, "/v1/operations");
	if (cli_has(args, CLI_OPT_POOL)) {
		r = cli_read_pool(args->values[CLI_OPT_POOL], err);
		cli_url_query(&url, "pool", args->values[CLI_OPT_POOL]);
	}
	if (cli_has(args, CLI_OPT_STATUS))
		cli_url_query(&url, "status", args->values[CLI_OPT_STATUS]);
	if (r == 0 && cli_has(args, CLI_OPT_LIMIT))
		r = cli_read_number("--limit", args->values[CLI_OPT_LIMIT], 1, 100000, false,
				    &limit, err);
	if (r == 0)
		r = cli_list_table(cli, &url, limit, "there are no such operations", columns,
				   TM_ARRAY_SIZE(columns), &items, &t, err);
	if (r <= 0)
		return r;
	json_array_foreach (items, i, op) {
		const char *status = cli_string(op, "status");
		char text[64];

		cli_table_row(t);
		cli_table_cell(t, CLI_FAINT, "%s", cli_string(op, "id"));
		cli_table_cell(t, CLI_STRONG, "%s", cli_string(op, "kind"));
		cli_table_cell(t, CLI_PLAIN, "%s%s%s", cli_string(op, "pool"),
			       *cli_string(op, "volume") ? "/" : "", cli_string(op, "volume"));
		cli_table_cell(t, status_tone(status), "%s", status);
		cli_table_cell(t, CLI_PLAIN, "%s", cli_string(op, "step_name"));
		cli_table_cell(t, CLI_PLAIN, "%s",
			       cli_time(cli_string(op, "created"), text, sizeof(text)));
		cli_table_cell(t, CLI_PLAIN, "%s",
			       cli_time(cli_string(op, "finished"), text, sizeof(text)));
	}
	return cli_table_print(t, err);
}

static int run_show(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	struct cli_output *o = &cli->output;
	const json_t *op, *error;
	struct cli_url url;
	char text[64];
	int r = cli_read_id("an operation", args->operands[0], err);

	if (r < 0)
		return r;
	cli_url_init(&url, "/v1/operations");
	cli_url_segment(&url, args->operands[0]);
	r = cli_get(cli, &url, &response, err);
	if (r < 0 || cli->json)
		return r;
	op = response.document;
	error = cli_object(op, "error");
	cli_field(o, "Operation", CLI_PLAIN, "%s", cli_string(op, "id"));
	cli_field(o, "Kind", CLI_STRONG, "%s", cli_string(op, "kind"));
	cli_field(o, "Pool", CLI_PLAIN, "%s", cli_string(op, "pool"));
	if (*cli_string(op, "volume"))
		cli_field(o, "Volume", CLI_PLAIN, "%s", cli_string(op, "volume"));
	cli_field(o, "Status", status_tone(cli_string(op, "status")), "%s",
		  cli_string(op, "status"));
	cli_field(o, "Steps", CLI_PLAIN, "%llu", (unsigned long long)cli_uint(op, "steps"));
	if (*cli_string(op, "step_name"))
		cli_field(o, "Step", CLI_PLAIN, "%s", cli_string(op, "step_name"));
	if (cli_present(op, "percent"))
		cli_field(o, "Of that", CLI_PLAIN, "%llu %%",
			  (unsigned long long)cli_uint(op, "percent"));
	if (cli_bool(op, "cancellable"))
		cli_field(o, "Cancel", CLI_PLAIN, "thinmgr operation cancel %s",
			  cli_string(op, "id"));
	cli_field(o, "Made", CLI_PLAIN, "%s",
		  cli_time(cli_string(op, "created"), text, sizeof(text)));
	cli_field(o, "Started", CLI_PLAIN, "%s",
		  cli_time(cli_string(op, "started"), text, sizeof(text)));
	cli_field(o, "Finished", CLI_PLAIN, "%s",
		  cli_time(cli_string(op, "finished"), text, sizeof(text)));
	if (error) {
		const char *detail = cli_string(error, "detail");

		cli_field(o, "Error", CLI_BAD, "%s", *detail ? detail : cli_string(error, "title"));
		if (*cli_string(error, "hint"))
			cli_field(o, "Hint", CLI_PLAIN, "%s", cli_string(error, "hint"));
	}
	return 0;
}

static int run_wait(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	uint64_t limit = 0;
	char text[256];
	int r = cli_read_id("an operation", args->operands[0], err);

	if (r == 0 && cli_has(args, CLI_OPT_WAIT)) {
		r = cli_read_duration("--wait", args->values[CLI_OPT_WAIT], &limit, err);
		if (r == 0 && limit == 0)
			return cli_usage(err, "--wait: must be more than 0");
	}
	if (r < 0)
		return r;
	r = cli_wait(cli, args->operands[0], limit, &response, err);
	if (cli->json && json_is_object(response.document))
		cli_raw(&cli->output, response.body, response.len);
	else if (r == 0 && !cli->quiet)
		cli_say(&cli->output, CLI_PLAIN, "%s",
			cli_done_text(response.document, text, sizeof(text)));
	return r;
}

static int run_cancel(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	struct cli_url url;
	char text[256];
	int r = cli_read_id("an operation", args->operands[0], err);

	if (r < 0)
		return r;
	cli_url_init(&url, "/v1/operations");
	cli_url_segment(&url, args->operands[0]);
	cli_url_segment(&url, "cancel");
	r = cli_ask(cli, &url, &response, err);
	if (r < 0)
		return r;
	if (cli_has(args, CLI_OPT_NO_WAIT)) {
		if (cli->json)
			cli_raw(&cli->output, response.body, response.len);
		else if (!cli->quiet)
			cli_say(&cli->output, CLI_PLAIN, "it is going to end");
		return 0;
	}
	cli_response_done(&response);
	r = cli_wait(cli, args->operands[0], 0, &response, err);
	if (!json_is_object(response.document))
		return r;
	if (cli->json)
		cli_raw(&cli->output, response.body, response.len);
	if (r < 0 && r != -EINTR && err->code == TM_ERR_CANCELLED) {
		*err = (struct tm_error){ 0 };
		if (!cli->json && !cli->quiet)
			cli_say(&cli->output, CLI_PLAIN,
				"cancelled; what had been done was undone");
		return 0;
	}
	/* It was past that when it was asked to end. */
	if (r == 0 && !cli->json && !cli->quiet)
		cli_say(&cli->output, CLI_PLAIN, "too late: %s",
			cli_done_text(response.document, text, sizeof(text)));
	return r;
}

const struct cli_command cli_operation_commands[] = {
	{ "operation", "list", "", "List changes, newest first",
	  "The newest 50, unless --limit says otherwise.",
	  CLI_BIT(CLI_OPT_POOL) | CLI_BIT(CLI_OPT_STATUS) | CLI_BIT(CLI_OPT_LIMIT), 0, 0,
	  run_list },
	{ "operation", "show", "ID", "Show a change", NULL, 0, 1, 1, run_show },
	{ "operation", "wait", "ID", "Wait for a change to end",
	  "Exits with the status of the change: 0, or that of its error.", CLI_BIT(CLI_OPT_WAIT), 1,
	  1, run_wait },
	{ "operation", "cancel", "ID", "End a change early, and undo what it has done",
	  "Refused once it is past the step after which it is always finished; 'operation show'\n"
	  "says whether it can be cancelled. Waits until that is done, unless --no-wait is given.",
	  CLI_BIT(CLI_OPT_NO_WAIT), 1, 1, run_cancel },
	{ 0 },
};
