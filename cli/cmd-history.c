/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgr history */
#include <string.h>

#include "cli.h"
#include "common/cleanup.h"
#include "document.h"

static void sample_row(struct cli *cli, struct cli_table *t, const json_t *s)
{
	uint64_t used = cli_uint(s, "data_used"), size = cli_uint(s, "data_size");
	uint64_t meta_used = cli_uint(s, "metadata_used"), meta_size = cli_uint(s, "metadata_size");
	const char *mode = cli_string(s, "mode");
	char text[64];

	cli_table_row(t);
	cli_table_cell(t, CLI_PLAIN, "%s", cli_time(cli_string(s, "time"), text, sizeof(text)));
	cli_table_cell(t, CLI_PLAIN, "%s", cli_size(used, text, sizeof(text)));
	cli_table_cell(t, CLI_PLAIN, "%s", cli_size(size, text, sizeof(text)));
	cli_table_cell(t, cli_bar_tone(used, size), "%s",
		       cli_bar(&cli->output, used, size, text, sizeof(text)));
	cli_table_cell(t, CLI_PLAIN, "%s",
		       cli_size(cli_uint(s, "data_used_max"), text, sizeof(text)));
	cli_table_cell(t, CLI_PLAIN, "%s", cli_size(meta_size, text, sizeof(text)));
	cli_table_cell(t, cli_bar_tone(meta_used, meta_size), "%s",
		       cli_bar(&cli->output, meta_used, meta_size, text, sizeof(text)));
	cli_table_cell(t, strcmp(mode, "write") == 0 ? CLI_PLAIN : CLI_BAD, "%s", mode);
	cli_table_cell(t, CLI_FAINT, "%llu", (unsigned long long)cli_uint(s, "count"));
}

static int run_history(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	static const struct cli_column columns[] = {
		{ .title = "TIME" },
		{ .title = "DATA", .right = true },
		{ .title = "OF", .right = true },
		{ .title = "USED" },
		{ .title = "HIGHEST", .right = true },
		{ .title = "METADATA", .right = true },
		{ .title = "USED" },
		{ .title = "MODE" },
		{ .title = "SAMPLES", .right = true },
	};
	cli_auto_table struct cli_table *t = NULL;
	cli_auto_json json_t *items = NULL;
	uint64_t step, limit = 0;
	struct cli_url url;
	const json_t *sample;
	size_t i;
	int r = cli_read_pool(args->operands[0], err);

	if (r < 0)
		return r;
	cli_url_init(&url, "/v1/pools");
	cli_url_segment(&url, args->operands[0]);
	cli_url_add(&url, "/history");
	r = cli_add_time(args, CLI_OPT_SINCE, "from", &url, err);
	if (r == 0)
		r = cli_add_time(args, CLI_OPT_UNTIL, "until", &url, err);
	if (r == 0 && cli_has(args, CLI_OPT_EVERY)) {
		r = cli_read_duration("--every", args->values[CLI_OPT_EVERY], &step, err);
		if (r == 0)
			cli_url_query_uint(&url, "step", step);
	}
	if (r == 0 && cli_has(args, CLI_OPT_LIMIT))
		r = cli_read_number("--limit", args->values[CLI_OPT_LIMIT], 1, 1000000, false,
				    &limit, err);
	if (r == 0)
		r = cli_list_table(cli, &url, limit, "there are no samples of this time", columns,
				   TM_ARRAY_SIZE(columns), &items, &t, err);
	if (r <= 0)
		return r;
	json_array_foreach (items, i, sample)
		sample_row(cli, t, sample);
	return cli_table_print(t, err);
}

const struct cli_command cli_history_commands[] = {
	{ "history", NULL, "POOL", "Show how a pool's space went",
	  "The last 24 hours, unless --since says otherwise.",
	  CLI_BIT(CLI_OPT_SINCE) | CLI_BIT(CLI_OPT_UNTIL) | CLI_BIT(CLI_OPT_EVERY) |
		  CLI_BIT(CLI_OPT_LIMIT),
	  1, 1, run_history },
	{ 0 },
};
