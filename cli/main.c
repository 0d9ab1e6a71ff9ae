/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgr: the command line to thinmgrd. Finds the command, gives help, reports errors. */
#include <curl/curl.h>
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "common/cleanup.h"

#ifndef TM_VERSION
#error "TM_VERSION is given by the Makefile"
#endif

static const struct cli_command *const tables[] = {
	cli_system_commands, cli_pool_commands,      cli_volume_commands,  cli_snapshot_commands,
	cli_event_commands,  cli_operation_commands, cli_history_commands,
};

/* ---- help ----------------------------------------------------------------------------------- */

static void print_options(FILE *f, uint64_t set)
{
	for (int id = 0; id < CLI_OPT_COUNT; id++) {
		const struct cli_option *o = cli_option(id);
		char left[64];

		if (!(set & CLI_BIT(id)))
			continue;
		if (o->letter)
			(void)snprintf(left, sizeof(left), "-%c, --%s%s%s", o->letter, o->name,
				       o->value ? " " : "", o->value ? o->value : "");
		else
			(void)snprintf(left, sizeof(left), "    --%s%s%s", o->name,
				       o->value ? " " : "", o->value ? o->value : "");
		(void)fprintf(f, "  %-34s %s\n", left, o->help);
	}
}

static void print_command_line(FILE *f, const struct cli_command *c)
{
	char left[96];

	(void)snprintf(left, sizeof(left), "%s%s%s%s%s", c->noun, c->verb ? " " : "",
		       c->verb ? c->verb : "", *c->operands ? " " : "", c->operands);
	(void)fprintf(f, "  %-44s %s\n", left, c->summary);
}

static void help_general(FILE *f)
{
	(void)fprintf(f, "Usage: thinmgr [OPTION]... COMMAND ...\n"
			 "Look at and steer thin pools through thinmgrd.\n\n");
	for (size_t i = 0; i < TM_ARRAY_SIZE(tables); i++)
		for (const struct cli_command *c = tables[i]; c->noun; c++)
			print_command_line(f, c);
	(void)fprintf(f, "\nOptions of every command:\n");
	print_options(f, CLI_GLOBAL_OPTIONS);
	(void)fprintf(f, "\n'thinmgr COMMAND --help' says more; so does thinmgr(1).\n");
}

static void help_noun(FILE *f, const struct cli_command *table)
{
	(void)fprintf(f, "Usage: thinmgr %s VERB ...\n\n", table->noun);
	for (const struct cli_command *c = table; c->noun; c++)
		print_command_line(f, c);
	(void)fprintf(f, "\n'thinmgr %s VERB --help' says more.\n", table->noun);
}

static void help_command(FILE *f, const struct cli_command *c)
{
	(void)fprintf(f, "Usage: thinmgr %s%s%s%s%s%s\n%s.\n", c->noun, c->verb ? " " : "",
		      c->verb ? c->verb : "", c->options ? " [OPTION]..." : "",
		      *c->operands ? " " : "", c->operands, c->summary);
	if (c->note)
		(void)fprintf(f, "\n%s\n", c->note);
	if (c->options) {
		(void)fprintf(f, "\nOptions:\n");
		print_options(f, c->options);
	}
	(void)fprintf(f, "\nOptions of every command:\n");
	print_options(f, CLI_GLOBAL_OPTIONS);
}

/* ---- finding the command -------------------------------------------------------------------- */

static const struct cli_command *find_table(const char *noun)
{
	for (size_t i = 0; i < TM_ARRAY_SIZE(tables); i++)
		if (strcmp(tables[i]->noun, noun) == 0)
			return tables[i];
	return NULL;
}

static const struct cli_command *find_verb(const struct cli_command *table, const char *verb)
{
	for (const struct cli_command *c = table; c->noun; c++)
		if (c->verb && strcmp(c->verb, verb) == 0)
			return c;
	return NULL;
}

static int unknown_verb(const struct cli_command *table, const char *verb, struct tm_error *err)
{
	char verbs[256] = "";
	size_t n = 0;

	for (const struct cli_command *c = table; c->noun && n < sizeof(verbs); c++)
		n += (size_t)snprintf(verbs + n, sizeof(verbs) - n, "%s%s", n ? ", " : "", c->verb);
	if (verb)
		(void)cli_usage(err, "'%s' is not a verb of %s", verb, table->noun);
	else
		(void)cli_usage(err, "%s: a verb is missing", table->noun);
	tm_error_hint(err, "%s has: %s", table->noun, verbs);
	return -EINVAL;
}

static int check_operands(const struct cli_command *c, const struct cli_args *args,
			  struct tm_error *err)
{
	int r = 0;

	if (args->n_operands < c->min)
		r = cli_usage(err, "%s%s%s: %s is missing", c->noun, c->verb ? " " : "",
			      c->verb ? c->verb : "", c->operands);
	else if (c->max >= 0 && args->n_operands > c->max)
		r = cli_usage(err, "%s%s%s: '%s' is one argument too many", c->noun,
			      c->verb ? " " : "", c->verb ? c->verb : "", args->operands[c->max]);
	if (r < 0)
		tm_error_hint(err, "see 'thinmgr %s%s%s --help'", c->noun, c->verb ? " " : "",
			      c->verb ? c->verb : "");
	return r;
}

/*
 * Read the whole command line. *ret_command is the command to run; or NULL with *ret_table or not,
 * for help on that.
 */
static int read_command_line(int argc, char **argv, struct cli_args *args,
			     const struct cli_command **ret_table,
			     const struct cli_command **ret_command, struct tm_error *err)
{
	const struct cli_command *table, *command;
	int r = cli_args_parse(argc, argv, CLI_GLOBAL_OPTIONS, true, args, err);
	bool help = cli_has(args, CLI_OPT_HELP);
	int rest, first;

	*ret_table = NULL;
	*ret_command = NULL;
	if (r < 0 || cli_has(args, CLI_OPT_VERSION))
		return r;
	if (args->n_operands == 0) {
		if (help)
			return 0;
		(void)cli_usage(err, "a command is missing");
		tm_error_hint(err, "see 'thinmgr --help'");
		return -EINVAL;
	}
	table = find_table(args->operands[0]);
	if (!table) {
		(void)cli_usage(err, "'%s' is not a command", args->operands[0]);
		tm_error_hint(err, "see 'thinmgr --help'");
		return -EINVAL;
	}
	*ret_table = table;
	first = argc - args->n_operands; /* the noun */
	if (!table->verb) {
		command = table;
		rest = first;
	} else {
		/* Options of every command may stand between noun and verb, too. */
		r = cli_args_parse(argc - first, argv + first, CLI_GLOBAL_OPTIONS, true, args, err);
		help = cli_has(args, CLI_OPT_HELP);
		if (r < 0 || cli_has(args, CLI_OPT_VERSION))
			return r;
		if (args->n_operands == 0)
			return help ? 0 : unknown_verb(table, NULL, err);
		command = find_verb(table, args->operands[0]);
		if (!command)
			return unknown_verb(table, args->operands[0], err);
		rest = argc - args->n_operands;
	}
	r = cli_args_parse(argc - rest, argv + rest, CLI_GLOBAL_OPTIONS | command->options, false,
			   args, err);
	if (r < 0) {
		tm_error_hint(err, "see 'thinmgr %s%s%s --help'", command->noun,
			      command->verb ? " " : "", command->verb ? command->verb : "");
		return r;
	}
	*ret_command = command;
	if (cli_has(args, CLI_OPT_HELP) || cli_has(args, CLI_OPT_VERSION))
		return 0;
	return check_operands(command, args, err);
}

/* ---- errors --------------------------------------------------------------------------------- */

/* Says it and returns the exit status. */
static int report_error(struct cli *cli, const struct tm_error *err)
{
	const char *field = err->field + (err->field[0] == '/');
	/* Details mostly name the field in their own words; where they do not, it helps. */
	bool tell_field = *field && !strstr(err->detail, field);

	cli_complain(&cli->output, CLI_BAD, "thinmgr:", "%s%s%s%s",
		     err->detail[0] ? err->detail : tm_error_title(err->code),
		     tell_field ? " (" : "", tell_field ? field : "", tell_field ? ")" : "");
	if (err->hint[0])
		cli_complain(&cli->output, CLI_STRONG, "hint:", "%s", err->hint);
	return cli->exit_status ? cli->exit_status : tm_error_exit_code(err->code);
}

static int run(struct cli *cli, const struct cli_command *command, const struct cli_args *args,
	       struct tm_error *err)
{
	cli_auto_client struct cli_client *client = NULL;
	const char *socket = args->values[CLI_OPT_SOCKET];
	int r;

	if (!socket)
		socket = getenv("THINMGR_SOCKET");
	if (!socket || !*socket)
		socket = CLI_SOCKET_DEFAULT;
	if (curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK)
		return cli_no_memory(err);
	r = cli_client_new(socket, "thinmgr/" TM_VERSION, &client, err);
	if (r == 0) {
		cli->client = client;
		r = command->run(cli, args, err);
		cli->client = NULL;
		client = cli_client_free(client);
	}
	curl_global_cleanup();
	return r;
}

int main(int argc, char **argv)
{
	const struct cli_command *table = NULL, *command = NULL;
	struct cli_args args = { 0 };
	struct tm_error err = { 0 }, output_err = { 0 }, color_err = { 0 };
	struct cli cli = { 0 };
	int parsed, status = 0;

	/* Characters only: numbers in documents and tables stay as they are everywhere. */
	(void)setlocale(LC_CTYPE, "");
	parsed = read_command_line(argc, argv, &args, &table, &command, &err);
	if (cli_output_init(&cli.output, stdout, stderr,
			    cli_has(&args, CLI_OPT_COLOR) ? args.values[CLI_OPT_COLOR] : "auto",
			    &color_err) < 0) {
		(void)cli_output_init(&cli.output, stdout, stderr, "never", NULL);
		return report_error(&cli, &color_err);
	}
	cli.json = cli_has(&args, CLI_OPT_JSON);
	cli.quiet = cli_has(&args, CLI_OPT_QUIET);

	if (parsed < 0)
		return report_error(&cli, &err);
	if (cli_has(&args, CLI_OPT_VERSION)) {
		(void)printf("thinmgr %s\n", TM_VERSION);
	} else if (cli_has(&args, CLI_OPT_HELP)) {
		if (command)
			help_command(stdout, command);
		else if (table)
			help_noun(stdout, table);
		else
			help_general(stdout);
	} else if (command && run(&cli, command, &args, &err) < 0) {
		/* What was printed comes first, also when both go to one place. */
		(void)fflush(stdout);
		status = report_error(&cli, &err);
	}
	if (cli_output_finish(&cli.output, &output_err) < 0 && status == 0)
		status = report_error(&cli, &output_err);
	return status;
}
