/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgr snapshot ... */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "cmd-volume.h"
#include "document.h"

/* "home-20260131-081530" for a snapshot nobody named; UTC, so that it sorts over clock changes. */
static int default_name(const char *volume, time_t now, char *buf, size_t len, struct tm_error *err)
{
	char stamp[32];
	struct tm tm;

	if (!gmtime_r(&now, &tm) || strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm) == 0)
		return cli_usage(err, "the clock is wrong; name the snapshot with '=NAME'");
	if ((size_t)snprintf(buf, len, "%s-%s", volume, stamp) >= len)
		return cli_usage(err,
				 "'%s' is too long to make a snapshot's name of it; add "
				 "'=NAME'",
				 volume);
	return 0;
}

/* POOL/VOLUME[=NAME]; *pool is set by the first and has to be the same for all. */
static int add_snapshot(json_t *list, const char *text, char *pool, size_t pool_len, time_t now,
			struct tm_error *err)
{
	struct cli_volume_ref ref;
	char source[2 * sizeof(ref.pool) + 2], name[sizeof(ref.volume)];
	const char *equals = strchr(text, '=');
	json_t *item;
	int r;

	if ((size_t)snprintf(source, sizeof(source), "%.*s",
			     equals ? (int)(equals - text) : (int)strlen(text),
			     text) >= sizeof(source))
		return cli_usage(err, "'%s' is too long for a volume's name", text);
	r = cli_read_volume(source, &ref, err);
	if (r < 0)
		return r;
	if (!*pool)
		(void)snprintf(pool, pool_len, "%s", ref.pool);
	if (strcmp(pool, ref.pool) != 0)
		return cli_usage(err,
				 "'%s' and '%s' are two pools: snapshots of one moment are "
				 "made in one",
				 pool, ref.pool);
	if (equals) {
		const char *wanted = equals + 1;
		const char *slash = strchr(wanted, '/');

		/* POOL/VOLUME=POOL/NAME says the same. */
		if (slash && (size_t)(slash - wanted) == strlen(pool) &&
		    strncmp(wanted, pool, strlen(pool)) == 0)
			wanted = slash + 1;
		if (strlen(wanted) >= sizeof(name) || !tm_name_valid(wanted))
			return tm_error_set(err, TM_ERR_BAD_NAME, EINVAL,
					    "'%s' is not a snapshot's name", wanted);
		(void)snprintf(name, sizeof(name), "%s", wanted);
	} else {
		r = default_name(ref.volume, now, name, sizeof(name), err);
		if (r < 0)
			return r;
	}
	item = json_pack("{s:s, s:s}", "volume", ref.volume, "name", name);
	if (!item || json_array_append_new(list, item) < 0)
		return cli_no_memory(err);
	return 0;
}

static int run_create(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_json json_t *list = json_array();
	cli_auto_json json_t *body = NULL;
	char pool[TM_NAME_MAX + 1] = "";
	time_t now = time(NULL);
	struct cli_url url;

	if (!list)
		return cli_no_memory(err);
	for (int i = 0; i < args->n_operands; i++) {
		int r = add_snapshot(list, args->operands[i], pool, sizeof(pool), now, err);

		if (r < 0)
			return r;
	}
	body = json_pack("{s:O, s:b, s:b}", "snapshots", list, "activate",
			 cli_has(args, CLI_OPT_ACTIVATE), "read_only",
			 cli_has(args, CLI_OPT_READ_ONLY));
	if (!body)
		return cli_no_memory(err);
	cli_url_init(&url, "/v1/pools");
	cli_url_segment(&url, pool);
	cli_url_add(&url, "/snapshots");
	return cli_change(cli, args, "POST", &url, body, err);
}

static int run_list(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	return cli_volume_list(cli, args, "/snapshots", "there are no snapshots", err);
}

const struct cli_command cli_snapshot_commands[] = {
	{ "snapshot", "create", "POOL/VOLUME[=NAME]...", "Make snapshots of one moment",
	  "All volumes named are of one pool and are frozen together. Without a NAME it is the\n"
	  "volume's with date and time (UTC). Snapshots are volumes: see 'thinmgr volume'.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_ACTIVATE) | CLI_BIT(CLI_OPT_READ_ONLY), 1, -1,
	  run_create },
	{ "snapshot", "list", "[POOL]", "List snapshots, of one pool or of all", NULL, 0, 0, 1,
	  run_list },
	{ 0 },
};
