/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgr system */
#include <string.h>

#include "cli.h"
#include "document.h"

static void print_target(struct cli_output *o, const json_t *kernel)
{
	const json_t *target = cli_object(kernel, "target");

	if (target)
		cli_field(o, "Thin-pool target", CLI_PLAIN, "%s %s (%s)",
			  cli_string(target, "module"), cli_string(target, "version"),
			  cli_string(target, "origin"));
	else
		cli_field(o, "Thin-pool target", CLI_BAD, "none: the kernel cannot run pools");
	if (!cli_present(kernel, "no_space_timeout"))
		cli_field(o, "Full pools queue", CLI_PLAIN, "for a time that is not known");
	else if (cli_uint(kernel, "no_space_timeout") == 0)
		cli_field(o, "Full pools queue", CLI_PLAIN, "for ever");
	else
		cli_field(o, "Full pools queue", CLI_PLAIN, "for %llu s",
			  (unsigned long long)cli_uint(kernel, "no_space_timeout"));
}

static int run_system(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	struct cli_output *o = &cli->output;
	const json_t *system, *kernel, *item;
	struct cli_url url;
	char text[64];
	size_t i;
	int r;

	(void)args;
	cli_url_init(&url, "/v1/system");
	r = cli_get(cli, &url, &response, err);
	if (r < 0 || cli->json)
		return r;
	system = response.document;
	kernel = cli_object(system, "kernel");
	cli_field(o, "Version", CLI_PLAIN, "%s", cli_string(system, "version"));
	cli_field(o, "Started", CLI_PLAIN, "%s",
		  cli_time(cli_string(system, "started"), text, sizeof(text)));
	cli_field(o, "Ready", cli_bool(system, "ready") ? CLI_GOOD : CLI_WARN, "%s",
		  cli_bool(system, "ready") ? "yes" : "not yet");
	cli_field(o, "Pools", CLI_PLAIN, "%llu", (unsigned long long)cli_uint(system, "pools"));
	cli_field(o, "Kernel", CLI_PLAIN, "%s", cli_string(kernel, "release"));
	print_target(o, kernel);
	json_array_foreach (cli_array(system, "tools"), i, item) {
		bool found = *cli_string(item, "path") != '\0';

		cli_field(o, i == 0 ? "Tools" : "", found ? CLI_PLAIN : CLI_WARN, "%s: %s",
			  cli_string(item, "name"), found ? cli_string(item, "path") : "not found");
	}
	json_array_foreach (cli_array(system, "degraded"), i, item) {
		const char *warning = json_string_value(item);

		cli_field(o, "Degraded", CLI_WARN, "%s", warning ? warning : "");
	}
	return 0;
}

const struct cli_command cli_system_commands[] = {
	{ "system", NULL, "", "Show the daemon and what it stands on", NULL, 0, 0, 0, run_system },
	{ 0 },
};
