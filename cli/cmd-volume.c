/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgr volume ... */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "cmd-volume.h"
#include "common/cleanup.h"
#include "common/units.h"
#include "document.h"

static void volume_url(struct cli_url *url, const struct cli_volume_ref *ref, const char *action)
{
	cli_url_init(url, "/v1/pools");
	cli_url_segment(url, ref->pool);
	cli_url_add(url, "/volumes");
	cli_url_segment(url, ref->volume);
	cli_url_add(url, action);
}

static void volume_row(struct cli_table *t, const json_t *v)
{
	uint64_t size = cli_uint(v, "size"), mapped = cli_uint(v, "mapped");
	const char *origin = cli_string(v, "origin");
	bool active = cli_bool(v, "active");
	char text[64];

	cli_table_row(t);
	cli_table_cell(t, CLI_STRONG, "%s/%s", cli_string(v, "pool"), cli_string(v, "name"));
	cli_table_cell(t, CLI_PLAIN, "%s", cli_size(size, text, sizeof(text)));
	cli_table_cell(t, CLI_PLAIN, "%s",
		       cli_present(v, "mapped") ? cli_size(mapped, text, sizeof(text)) : "");
	cli_table_cell(t,
		       cli_object(v, "suspect") ? CLI_BAD
		       : active                 ? CLI_GOOD
						: CLI_FAINT,
		       "%s%s%s", active ? "active" : "inactive",
		       cli_bool(v, "read_only") ? ", read-only" : "",
		       cli_object(v, "suspect") ? ", suspect" : "");
	/* The origin's name is gone with it; that there was one still matters. */
	cli_table_cell(t, CLI_PLAIN, "%s",
		       *origin                       ? origin
		       : cli_present(v, "origin_id") ? "(deleted)"
						     : "");
	cli_table_cell(t, CLI_PLAIN, "%s", cli_string(v, "device"));
}

static int print_volumes(struct cli *cli, struct cli_table *t, const char *pool,
			 const char *collection, size_t *n, struct tm_error *err)
{
	cli_auto_json json_t *items = NULL;
	struct cli_url url;
	const json_t *item;
	size_t i;
	int r;

	cli_url_init(&url, "/v1/pools");
	cli_url_segment(&url, pool);
	cli_url_add(&url, collection);
	r = cli_list(cli, &url, 0, &items, err);
	if (r < 0)
		return r;
	json_array_foreach (items, i, item)
		volume_row(t, item);
	*n += json_array_size(items);
	return 0;
}

/* All pools' names, for a list over all of them. */
static int pool_names(struct cli *cli, json_t **ret, struct tm_error *err)
{
	bool json = cli->json;
	struct cli_url url;
	int r;

	/* The documents asked for are the volumes'. */
	cli->json = false;
	cli_url_init(&url, "/v1/pools");
	r = cli_list(cli, &url, 0, ret, err);
	cli->json = json;
	return r;
}

int cli_volume_list(struct cli *cli, const struct cli_args *args, const char *collection,
		    const char *none, struct tm_error *err)
{
	static const struct cli_column columns[] = {
		{ .title = "VOLUME" },
		{ .title = "SIZE", .right = true },
		{ .title = "MAPPED", .right = true },
		{ .title = "STATE" },
		{ .title = "ORIGIN" },
		{ .title = "DEVICE" },
	};
	cli_auto_table struct cli_table *t = NULL;
	cli_auto_json json_t *pools = NULL;
	const json_t *pool;
	size_t i, n = 0;
	int r = cli_table_new(&cli->output, columns, TM_ARRAY_SIZE(columns), &t, err);

	if (r < 0)
		return r;
	if (args->n_operands > 0) {
		r = cli_read_pool(args->operands[0], err);
		if (r == 0)
			r = print_volumes(cli, t, args->operands[0], collection, &n, err);
	} else {
		r = pool_names(cli, &pools, err);
		json_array_foreach (pools, i, pool) {
			/* By id: the name may have changed hands in between. */
			if (r == 0 && *cli_string(pool, "id"))
				r = print_volumes(cli, t, cli_string(pool, "id"), collection, &n,
						  err);
			/* One that was deleted meanwhile is not missed. */
			if (r < 0 && err->code == TM_ERR_NOT_FOUND) {
				*err = (struct tm_error){ 0 };
				r = 0;
			}
		}
	}
	if (r < 0 || cli->json)
		return r;
	if (n == 0 && !cli->quiet)
		cli_complain(&cli->output, CLI_PLAIN, "", "%s", none);
	return cli_table_print(t, err);
}

static int run_list(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	return cli_volume_list(cli, args, "/volumes", "there are no volumes", err);
}

/* What may have taken its writes. */
static void print_suspect(struct cli_output *o, const json_t *suspect)
{
	static const struct {
		const char *reason, *text;
	} reasons[] = {
		{ "no_space", "its pool had no data space, and writes failed" },
		{ "read_only", "its pool went read-only: writes were taken back, or failed" },
		{ "fail", "its pool failed: writes were taken back, or failed" },
		{ "repaired", "the repair of its pool left it other than it was" },
		{ "restored", "going back to kept metadata left it other than it was" },
	};
	const char *text = cli_string(suspect, "reason");
	char since[64];

	if (!suspect)
		return;
	for (size_t i = 0; i < TM_ARRAY_SIZE(reasons); i++)
		if (strcmp(text, reasons[i].reason) == 0) {
			text = reasons[i].text;
			break;
		}
	cli_field(o, "Suspect", CLI_BAD, "since %s: %s",
		  cli_time(cli_string(suspect, "since"), since, sizeof(since)), text);
}

static int run_show(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	struct cli_output *o = &cli->output;
	struct cli_volume_ref ref;
	struct cli_url url;
	const json_t *v;
	char text[64], size[32];
	int r = cli_read_volume(args->operands[0], &ref, err);

	if (r < 0)
		return r;
	volume_url(&url, &ref, "");
	r = cli_get(cli, &url, &response, err);
	if (r < 0 || cli->json)
		return r;
	v = response.document;
	cli_field(o, "Volume", CLI_STRONG, "%s/%s", cli_string(v, "pool"), cli_string(v, "name"));
	cli_field(o, "Id", CLI_PLAIN, "%s", cli_string(v, "id"));
	cli_field(o, "State", cli_bool(v, "active") ? CLI_GOOD : CLI_FAINT, "%s%s",
		  cli_bool(v, "active") ? "active" : "inactive",
		  cli_bool(v, "read_only") ? ", read-only" : "");
	print_suspect(o, cli_object(v, "suspect"));
	cli_field(o, "Device", CLI_PLAIN, "%s", cli_string(v, "device"));
	cli_field(o, "Size", CLI_PLAIN, "%s (%llu bytes)",
		  cli_size(cli_uint(v, "size"), size, sizeof(size)),
		  (unsigned long long)cli_uint(v, "size"));
	if (cli_present(v, "mapped"))
		cli_field(
			o, "Mapped", CLI_PLAIN, "%s  %s",
			cli_bar(o, cli_uint(v, "mapped"), cli_uint(v, "size"), text, sizeof(text)),
			cli_size(cli_uint(v, "mapped"), size, sizeof(size)));
	else
		cli_field(o, "Mapped", CLI_PLAIN, "not known while inactive");
	if (*cli_string(v, "origin"))
		cli_field(o, "Snapshot of", CLI_PLAIN, "%s", cli_string(v, "origin"));
	else if (cli_present(v, "origin_id"))
		cli_field(o, "Snapshot of", CLI_PLAIN, "%s (deleted)", cli_string(v, "origin_id"));
	cli_field(o, "Device id", CLI_PLAIN, "%llu", (unsigned long long)cli_uint(v, "dev_id"));
	cli_field(o, "Created", CLI_PLAIN, "%s",
		  cli_time(cli_string(v, "created"), text, sizeof(text)));
	return 0;
}

static int run_create(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_json json_t *body = NULL;
	struct cli_volume_ref ref;
	struct cli_url url;
	uint64_t size;
	int r = cli_read_volume(args->operands[0], &ref, err);

	if (r < 0)
		return r;
	if (!cli_has(args, CLI_OPT_SIZE))
		return cli_usage(err, "volume create: --size is missing");
	r = cli_read_size("--size", args->values[CLI_OPT_SIZE], &size, err);
	if (r < 0)
		return r;
	body = json_pack("{s:s, s:I, s:b}", "name", ref.volume, "size", (json_int_t)size,
			 "activate", !cli_has(args, CLI_OPT_NO_ACTIVATE));
	if (!body)
		return cli_no_memory(err);
	cli_url_init(&url, "/v1/pools");
	cli_url_segment(&url, ref.pool);
	cli_url_add(&url, "/volumes");
	return cli_change(cli, args, "POST", &url, body, err);
}

static int run_resize(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_json json_t *body = NULL;
	bool relative = false, shrink = cli_has(args, CLI_OPT_SHRINK);
	struct cli_volume_ref ref;
	struct cli_url url;
	uint64_t size;
	char text[32];
	int r = cli_read_volume(args->operands[0], &ref, err);

	if (r < 0)
		return r;
	if (!cli_has(args, CLI_OPT_SIZE))
		return cli_usage(err, "volume resize: --size is missing");
	r = cli_read_size_change("--size", args->values[CLI_OPT_SIZE], &size, &relative, err);
	if (r < 0)
		return r;
	volume_url(&url, &ref, "");
	if (relative) {
		cli_auto_response struct cli_response response = { 0 };

		r = cli_look_up(cli, &url, &response, err);
		if (r < 0)
			return r;
		size = tm_sat_add(cli_uint(response.document, "size"), size);
		if (size > INT64_MAX)
			return cli_usage(err, "--size: the sum is too large");
	}
	if (shrink) {
		r = cli_confirm(cli, args, err, "Cut volume '%s' to %s and lose what lies beyond?",
				args->operands[0], cli_size(size, text, sizeof(text)));
		if (r < 0)
			return r;
	}
	body = json_pack("{s:I}", "size", (json_int_t)size);
	if (!body || (shrink && json_object_set_new(body, "shrink", json_true()) < 0))
		return cli_no_memory(err);
	return cli_change(cli, args, "PATCH", &url, body, err);
}

static int run_rename(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_json json_t *body = NULL;
	struct cli_volume_ref ref;
	struct cli_url url;
	int r = cli_read_volume(args->operands[0], &ref, err);

	if (r < 0)
		return r;
	/* POOL/NEW is fine, too, when it is the same pool. */
	if (strchr(args->operands[1], '/')) {
		struct cli_volume_ref to;

		r = cli_read_volume(args->operands[1], &to, err);
		if (r < 0)
			return r;
		if (strcmp(to.pool, ref.pool) != 0)
			return cli_usage(err, "a volume cannot move from pool '%s' to '%s'",
					 ref.pool, to.pool);
		body = json_pack("{s:s}", "name", to.volume);
	} else {
		body = json_pack("{s:s}", "name", args->operands[1]);
	}
	if (!body)
		return cli_no_memory(err);
	volume_url(&url, &ref, "");
	return cli_change(cli, args, "PATCH", &url, body, err);
}

static int run_delete(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	struct cli_volume_ref ref;
	struct cli_url url;
	int r = cli_read_volume(args->operands[0], &ref, err);

	if (r < 0)
		return r;
	r = cli_confirm(cli, args, err, "Delete volume '%s' and all that is on it?",
			args->operands[0]);
	if (r < 0)
		return r;
	volume_url(&url, &ref, "");
	return cli_change(cli, args, "DELETE", &url, NULL, err);
}

static int act(struct cli *cli, const struct cli_args *args, const char *action,
	       struct tm_error *err)
{
	struct cli_volume_ref ref;
	struct cli_url url;
	int r = cli_read_volume(args->operands[0], &ref, err);

	if (r < 0)
		return r;
	volume_url(&url, &ref, action);
	return cli_change(cli, args, "POST", &url, NULL, err);
}

static int run_activate(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	return act(cli, args, "/activate", err);
}

static int run_deactivate(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	return act(cli, args, "/deactivate", err);
}

static int run_check(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	return act(cli, args, "/check", err);
}

static int run_clear_suspect(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	return act(cli, args, "/clear-suspect", err);
}

const struct cli_command cli_volume_commands[] = {
	{ "volume", "list", "[POOL]", "List volumes, of one pool or of all", NULL, 0, 0, 1,
	  run_list },
	{ "volume", "show", "POOL/VOLUME", "Show a volume", NULL, 0, 1, 1, run_show },
	{ "volume", "create", "POOL/VOLUME", "Make a volume",
	  "Its size is virtual: it may be larger than the pool. The device is\n"
	  "/dev/thinmgr/POOL/VOLUME.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_SIZE) | CLI_BIT(CLI_OPT_NO_ACTIVATE), 1, 1,
	  run_create },
	{ "volume", "resize", "POOL/VOLUME", "Change a volume's size",
	  "The file system on it is not resized: grow it afterwards, or shrink it before.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_SIZE) | CLI_BIT(CLI_OPT_SHRINK) |
		  CLI_BIT(CLI_OPT_YES),
	  1, 1, run_resize },
	{ "volume", "rename", "POOL/VOLUME NAME", "Give a volume another name", NULL,
	  CLI_CHANGE_OPTIONS, 2, 2, run_rename },
	{ "volume", "delete", "POOL/VOLUME", "Delete a volume and its data", NULL,
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_YES), 1, 1, run_delete },
	{ "volume", "activate", "POOL/VOLUME", "Make a volume's device", NULL, CLI_CHANGE_OPTIONS,
	  1, 1, run_activate },
	{ "volume", "deactivate", "POOL/VOLUME", "Remove a volume's device",
	  "Refused while it is in use.", CLI_CHANGE_OPTIONS, 1, 1, run_deactivate },
	{ "volume", "check", "POOL/VOLUME", "Check a volume's file system",
	  "Only reads. Refused while it is in use. Where nothing wrong is found, the volume is\n"
	  "suspect no more.",
	  CLI_CHANGE_OPTIONS, 1, 1, run_check },
	{ "volume", "clear-suspect", "POOL/VOLUME", "Say that a volume lost nothing after all",
	  NULL, CLI_CHANGE_OPTIONS, 1, 1, run_clear_suspect },
	{ 0 },
};
