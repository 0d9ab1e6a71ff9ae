/* SPDX-License-Identifier: GPL-2.0-or-later */
/* thinmgr pool ... */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "common/cleanup.h"
#include "common/units.h"
#include "document.h"

static void pool_url(struct cli_url *url, const char *pool, const char *action)
{
	cli_url_init(url, "/v1/pools");
	cli_url_segment(url, pool);
	cli_url_add(url, action);
}

/* ---- showing -------------------------------------------------------------------------------- */

static enum cli_tone state_tone(const char *state)
{
	if (strcmp(state, "active") == 0)
		return CLI_GOOD;
	if (strcmp(state, "uncertain") == 0)
		return CLI_BAD;
	return strcmp(state, "inactive") == 0 ? CLI_FAINT : CLI_WARN;
}

static enum cli_tone mode_tone(const json_t *pool)
{
	const char *mode = cli_string(pool, "mode");

	if (cli_bool(pool, "needs_check") || (*mode && strcmp(mode, "write") != 0))
		return CLI_BAD;
	return *mode ? CLI_GOOD : CLI_FAINT;
}

static void mode_text(const json_t *pool, char *buf, size_t len)
{
	const char *mode = cli_string(pool, "mode");

	(void)snprintf(buf, len, "%s%s%s", mode, *mode && cli_bool(pool, "needs_check") ? ", " : "",
		       cli_bool(pool, "needs_check") ? "needs check" : "");
}

static void space_cells(struct cli *cli, struct cli_table *t, const json_t *space)
{
	uint64_t size = cli_uint(space, "size"), used = cli_uint(space, "used");
	bool known = cli_present(space, "used");
	char text[64];

	cli_table_cell(t, CLI_PLAIN, "%s", cli_size(size, text, sizeof(text)));
	cli_table_cell(t, known ? cli_bar_tone(used, size) : CLI_FAINT, "%s",
		       known ? cli_bar(&cli->output, used, size, text, sizeof(text)) : "");
}

static int run_list(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	static const struct cli_column columns[] = {
		{ .title = "POOL" },
		{ .title = "STATE" },
		{ .title = "MODE" },
		{ .title = "DATA", .right = true },
		{ .title = "USED" },
		{ .title = "METADATA", .right = true },
		{ .title = "USED" },
		{ .title = "VOLUMES", .right = true },
		{ .title = "VIRTUAL", .right = true },
	};
	cli_auto_table struct cli_table *t = NULL;
	cli_auto_json json_t *items = NULL;
	struct cli_url url;
	const json_t *pool;
	size_t i;
	int r;

	(void)args;
	cli_url_init(&url, "/v1/pools");
	r = cli_list_table(cli, &url, 0, "there are no pools", columns, TM_ARRAY_SIZE(columns),
			   &items, &t, err);
	if (r <= 0)
		return r;
	json_array_foreach (items, i, pool) {
		char text[64];

		cli_table_row(t);
		cli_table_cell(t, CLI_STRONG, "%s", cli_string(pool, "name"));
		cli_table_cell(t, state_tone(cli_string(pool, "state")), "%s",
			       cli_string(pool, "state"));
		mode_text(pool, text, sizeof(text));
		cli_table_cell(t, mode_tone(pool), "%s", text);
		space_cells(cli, t, cli_object(pool, "data"));
		space_cells(cli, t, cli_object(pool, "metadata"));
		if (cli_uint(pool, "suspect_volumes"))
			cli_table_cell(t, CLI_BAD, "%llu, %llu suspect",
				       (unsigned long long)cli_uint(pool, "volumes"),
				       (unsigned long long)cli_uint(pool, "suspect_volumes"));
		else
			cli_table_cell(t, CLI_PLAIN, "%llu",
				       (unsigned long long)cli_uint(pool, "volumes"));
		cli_table_cell(t, CLI_PLAIN, "%s",
			       cli_size(cli_uint(pool, "virtual_size"), text, sizeof(text)));
	}
	return cli_table_print(t, err);
}

/* Who has to let go of which volume before the pool can be repaired: a line each. */
static void print_repair_waits(struct cli_output *o, const json_t *holders)
{
	const json_t *one;
	size_t i;

	if (!json_is_array(holders))
		return;
	cli_field(o, "Repair waits", CLI_BAD, "until nobody uses its volumes%s",
		  json_array_size(holders) ? ":" : "; it cannot be seen who does");
	json_array_foreach (holders, i, one)
		cli_field(o, "", CLI_BAD, "%s is %s", cli_string(one, "volume"),
			  cli_string(one, "text"));
}

/* A limit of the policy: bytes; null and 0 are none. */
static const char *maximum_text(const json_t *policy, char *buf, size_t len)
{
	uint64_t maximum = cli_uint(policy, "maximum");

	if (maximum == 0)
		(void)snprintf(buf, len, "as far as the backing has room");
	else
		(void)cli_size(maximum, buf, len);
	return buf;
}

static void print_extend_policy(struct cli_output *o, const char *label, const json_t *policy)
{
	char maximum[64], step_min[32];

	if (!cli_bool(policy, "auto_extend")) {
		cli_field(o, label, CLI_WARN, "does not grow by itself");
		return;
	}
	cli_field(o, label, CLI_PLAIN,
		  "grows at %llu%% free or sooner, by %llu%% (at least %s), up to: %s",
		  (unsigned long long)cli_uint(policy, "low_water_percent"),
		  (unsigned long long)cli_uint(policy, "step_percent"),
		  cli_size(cli_uint(policy, "step_min"), step_min, sizeof(step_min)),
		  maximum_text(policy, maximum, sizeof(maximum)));
}

static void print_interval(struct cli_output *o, const char *label, uint64_t every,
			   const char *unit)
{
	if (every == 0)
		cli_field(o, label, CLI_WARN, "when asked for");
	else if (every == 1)
		cli_field(o, label, CLI_PLAIN, "by itself, every %s", unit);
	else
		cli_field(o, label, CLI_PLAIN, "by itself, every %llu %ss",
			  (unsigned long long)every, unit);
}

static void print_policy(struct cli_output *o, const json_t *policy)
{
	const char *repair = cli_string(policy, "repair");

	print_extend_policy(o, "Data policy", cli_object(policy, "data"));
	print_extend_policy(o, "Metadata policy", cli_object(policy, "metadata"));
	cli_field(o, "After a reboot", CLI_PLAIN, "%s",
		  cli_bool(policy, "activate_at_start") ? "comes back active" : "stays inactive");
	cli_field(o, "Sampled every", CLI_PLAIN, "%llu s",
		  (unsigned long long)cli_uint(policy, "sample_seconds"));
	cli_field(o, "Repaired", CLI_PLAIN, "%s",
		  strcmp(repair, "manual") == 0  ? "when asked for"
		  : strcmp(repair, "force") == 0 ? "by itself, at once: its volumes are unmounted"
						 : "by itself, once nobody uses its volumes");
	cli_field(o, "Metadata kept", CLI_PLAIN, "%llu copies, others for %llu days",
		  (unsigned long long)cli_uint(policy, "keep_copies"),
		  (unsigned long long)cli_uint(policy, "keep_days"));
	print_interval(o, "Metadata copied", cli_uint(policy, "copy_hours"), "hour");
	print_interval(o, "Metadata checked", cli_uint(policy, "check_days"), "day");
	cli_field(o, "Suspect volumes", CLI_PLAIN, "%s",
		  cli_bool(policy, "check_volumes") ? "checked after a repair by themselves"
						    : "checked when asked for");
}

/* What the verdicts mean to people; NULL: nothing worth a line. */
static const char *verdict_text(const char *verdict)
{
	static const struct {
		const char *verdict, *text;
	} texts[] = {
		{ "extend", "is being extended" },
		{ "disabled", "would be extended, but the policy says no" },
		{ "at_maximum", "cannot grow: the maximum is reached" },
		{ "no_backing", "cannot grow: the backing has no room" },
		{ "frozen", "cannot grow: the pool has to be repaired first" },
	};

	for (size_t i = 0; i < TM_ARRAY_SIZE(texts); i++)
		if (strcmp(texts[i].verdict, verdict) == 0)
			return texts[i].text;
	return NULL;
}

static void print_space(struct cli_output *o, const char *label, const json_t *space)
{
	uint64_t size = cli_uint(space, "size"), used = cli_uint(space, "used");
	const json_t *reaction = cli_object(space, "reaction_usec");
	const char *verdict = verdict_text(cli_string(space, "verdict"));
	char bar[64], a[32], b[32], c[32];

	if (cli_present(space, "used"))
		cli_field(o, label, cli_bar_tone(used, size), "%s  %s of %s, %s free",
			  cli_bar(o, used, size, bar, sizeof(bar)), cli_size(used, a, sizeof(a)),
			  cli_size(size, b, sizeof(b)),
			  cli_size(cli_uint(space, "free"), c, sizeof(c)));
	else
		cli_field(o, label, CLI_PLAIN, "%s", cli_size(size, b, sizeof(b)));
	cli_field(o, "  low water", CLI_PLAIN, "%s, %s ready for the next step",
		  cli_size(cli_uint(space, "low_water"), a, sizeof(a)),
		  cli_size(cli_uint(space, "reserve"), b, sizeof(b)));
	if (cli_uint(reaction, "count") > 0)
		cli_field(o, "  extended", CLI_PLAIN,
			  "%llu times, within %s (median), %s (slowest)",
			  (unsigned long long)cli_uint(space, "extensions"),
			  cli_usec(cli_uint(reaction, "median"), a, sizeof(a)),
			  cli_usec(cli_uint(reaction, "slowest"), b, sizeof(b)));
	else if (cli_uint(space, "extensions") > 0)
		cli_field(o, "  extended", CLI_PLAIN, "%llu times",
			  (unsigned long long)cli_uint(space, "extensions"));
	if (cli_uint(space, "write_rate") > 0)
		cli_field(o, "  fastest growth", CLI_PLAIN, "%s/s",
			  cli_size(cli_uint(space, "write_rate"), a, sizeof(a)));
	if (verdict)
		cli_field(o, "  now", CLI_WARN, "%s", verdict);
}

static void print_queueing(struct cli_output *o, const json_t *queueing)
{
	char since[64], until[64];

	if (!queueing)
		return;
	if (*cli_string(queueing, "until"))
		cli_field(o, "Writes wait", CLI_BAD, "since %s, and fail from %s on",
			  cli_time(cli_string(queueing, "since"), since, sizeof(since)),
			  cli_time(cli_string(queueing, "until"), until, sizeof(until)));
	else
		cli_field(o, "Writes wait", CLI_BAD, "since %s, for as long as it takes",
			  cli_time(cli_string(queueing, "since"), since, sizeof(since)));
}

static void print_last(struct cli_output *o, const char *label, const char *time)
{
	char text[64];

	cli_field(o, label, CLI_PLAIN, "%s", *time ? cli_time(time, text, sizeof(text)) : "never");
}

static void print_pool(struct cli_output *o, const json_t *pool)
{
	const json_t *backing = cli_object(pool, "backing");
	const char *reason = cli_string(pool, "state_reason");
	char text[64];

	cli_field(o, "Pool", CLI_STRONG, "%s", cli_string(pool, "name"));
	cli_field(o, "Id", CLI_PLAIN, "%s", cli_string(pool, "id"));
	cli_field(o, "State", state_tone(cli_string(pool, "state")), "%s%s%s",
		  cli_string(pool, "state"), *reason ? ": " : "", reason);
	mode_text(pool, text, sizeof(text));
	cli_field(o, "Mode", mode_tone(pool), "%s", text);
	print_queueing(o, cli_object(pool, "queueing"));
	print_repair_waits(o, json_object_get(pool, "repair_waits_for"));
	print_space(o, "Data", cli_object(pool, "data"));
	print_space(o, "Metadata", cli_object(pool, "metadata"));
	cli_field(o, "Volumes", CLI_PLAIN, "%llu, %s in all",
		  (unsigned long long)cli_uint(pool, "volumes"),
		  cli_size(cli_uint(pool, "virtual_size"), text, sizeof(text)));
	if (cli_uint(pool, "suspect_volumes"))
		cli_field(o, "Suspect", CLI_BAD, "%llu of them may have lost writes",
			  (unsigned long long)cli_uint(pool, "suspect_volumes"));
	cli_field(o, "Backing", CLI_PLAIN, "%s %s (%s%s)", cli_string(backing, "kind"),
		  cli_string(backing, "directory"),
		  cli_bool(backing, "sparse") ? "sparse" : "preallocated",
		  cli_bool(backing, "direct_io") ? ", direct I/O" : "");
	cli_field(o, "Backing free", CLI_PLAIN, "%s",
		  cli_size(cli_uint(backing, "free"), text, sizeof(text)));
	cli_field(o, "Block size", CLI_PLAIN, "%s",
		  cli_size(cli_uint(pool, "block_size"), text, sizeof(text)));
	cli_field(o, "New blocks", CLI_PLAIN, "%s",
		  cli_bool(pool, "zeroing") ? "are zeroed" : "are not zeroed");
	cli_field(o, "Discards", CLI_PLAIN, "%s",
		  !cli_bool(pool, "discard")           ? "are ignored"
		  : cli_bool(pool, "discard_passdown") ? "free blocks and reach the backing"
						       : "free blocks");
	cli_field(o, "When full", CLI_PLAIN, "%s",
		  strcmp(cli_string(pool, "when_full"), "error") == 0 ? "writes fail"
								      : "writes wait");
	print_policy(o, cli_object(pool, "policy"));
	print_last(o, "Last checked", cli_string(pool, "checked"));
	print_last(o, "Last copied", cli_string(pool, "copied"));
	cli_field(o, "Transaction", CLI_PLAIN, "%llu",
		  (unsigned long long)cli_uint(pool, "transaction_id"));
	cli_field(o, "Created", CLI_PLAIN, "%s",
		  cli_time(cli_string(pool, "created"), text, sizeof(text)));
}

static int run_show(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_response struct cli_response response = { 0 };
	struct cli_url url;
	int r = cli_read_pool(args->operands[0], err);

	if (r < 0)
		return r;
	pool_url(&url, args->operands[0], "");
	r = cli_get(cli, &url, &response, err);
	if (r == 0 && !cli->json)
		print_pool(&cli->output, response.document);
	return r;
}

/* ---- policy --------------------------------------------------------------------------------- */

/* Put a value into @object, making it first when it is not there; takes @value. */
static int put(json_t **object, const char *name, json_t *value, struct tm_error *err)
{
	if (!*object)
		*object = json_object();
	if (!*object || !value) {
		json_decref(value);
		return cli_no_memory(err);
	}
	return json_object_set_new(*object, name, value) < 0 ? cli_no_memory(err) : 0;
}

/* The options that steer the growth of one space. */
struct extend_options {
	enum cli_option_id auto_extend, low_water, step, step_min, maximum;
};

static int read_extend_policy(const struct cli_args *args, const struct extend_options *o,
			      json_t **ret, struct tm_error *err)
{
	char what[64];
	uint64_t number;
	bool yes;
	int r = 0;

#define GIVEN(id)                          \
	(r == 0 && cli_has(args, o->id) && \
	 snprintf(what, sizeof(what), "--%s", cli_option(o->id)->name) > 0)
	if (GIVEN(auto_extend)) {
		r = cli_read_bool(what, args->values[o->auto_extend], &yes, err);
		if (r == 0)
			r = put(ret, "auto_extend", json_boolean(yes), err);
	}
	if (GIVEN(low_water)) {
		r = cli_read_number(what, args->values[o->low_water], 1, 90, true, &number, err);
		if (r == 0)
			r = put(ret, "low_water_percent", json_integer((json_int_t)number), err);
	}
	if (GIVEN(step)) {
		r = cli_read_number(what, args->values[o->step], 1, 1000, true, &number, err);
		if (r == 0)
			r = put(ret, "step_percent", json_integer((json_int_t)number), err);
	}
	if (GIVEN(step_min)) {
		r = cli_read_size(what, args->values[o->step_min], &number, err);
		if (r == 0)
			r = put(ret, "step_min", json_integer((json_int_t)number), err);
	}
	if (GIVEN(maximum)) {
		r = cli_read_size_or_none(what, args->values[o->maximum], &number, err);
		if (r == 0)
			r = put(ret, "maximum",
				number ? json_integer((json_int_t)number) : json_null(), err);
	}
#undef GIVEN
	return r;
}

/* *ret becomes the policy's document with what the options name; stays NULL when they name nothing.
 */
static int read_policy(const struct cli_args *args, json_t **ret, struct tm_error *err)
{
	static const struct extend_options data_options = {
		.auto_extend = CLI_OPT_AUTO_EXTEND,
		.low_water = CLI_OPT_LOW_WATER,
		.step = CLI_OPT_STEP,
		.step_min = CLI_OPT_STEP_MIN,
		.maximum = CLI_OPT_MAX,
	};
	static const struct extend_options metadata_options = {
		.auto_extend = CLI_OPT_METADATA_AUTO_EXTEND,
		.low_water = CLI_OPT_METADATA_LOW_WATER,
		.step = CLI_OPT_METADATA_STEP,
		.step_min = CLI_OPT_METADATA_STEP_MIN,
		.maximum = CLI_OPT_METADATA_MAX,
	};
	cli_auto_json json_t *data = NULL;
	cli_auto_json json_t *metadata = NULL;
	uint64_t seconds, number;
	bool yes;
	int r = read_extend_policy(args, &data_options, &data, err);

	if (r == 0)
		r = read_extend_policy(args, &metadata_options, &metadata, err);
	if (r == 0 && data)
		r = put(ret, "data", json_incref(data), err);
	if (r == 0 && metadata)
		r = put(ret, "metadata", json_incref(metadata), err);
	if (r == 0 && cli_has(args, CLI_OPT_ACTIVATE_AT_START)) {
		r = cli_read_bool("--activate-at-start", args->values[CLI_OPT_ACTIVATE_AT_START],
				  &yes, err);
		if (r == 0)
			r = put(ret, "activate_at_start", json_boolean(yes), err);
	}
	if (r == 0 && cli_has(args, CLI_OPT_SAMPLE_SECONDS)) {
		r = cli_read_number("--sample-seconds", args->values[CLI_OPT_SAMPLE_SECONDS], 5,
				    3600, false, &seconds, err);
		if (r == 0)
			r = put(ret, "sample_seconds", json_integer((json_int_t)seconds), err);
	}
	if (r == 0 && cli_has(args, CLI_OPT_KEEP_COPIES)) {
		r = cli_read_number("--keep-copies", args->values[CLI_OPT_KEEP_COPIES], 0, 1000,
				    false, &number, err);
		if (r == 0)
			r = put(ret, "keep_copies", json_integer((json_int_t)number), err);
	}
	if (r == 0 && cli_has(args, CLI_OPT_KEEP_DAYS)) {
		r = cli_read_number("--keep-days", args->values[CLI_OPT_KEEP_DAYS], 0, 3650, false,
				    &number, err);
		if (r == 0)
			r = put(ret, "keep_days", json_integer((json_int_t)number), err);
	}
	if (r == 0 && cli_has(args, CLI_OPT_COPY_HOURS)) {
		r = cli_read_number("--copy-hours", args->values[CLI_OPT_COPY_HOURS], 0, 8760,
				    false, &number, err);
		if (r == 0)
			r = put(ret, "copy_hours", json_integer((json_int_t)number), err);
	}
	if (r == 0 && cli_has(args, CLI_OPT_CHECK_DAYS)) {
		r = cli_read_number("--check-days", args->values[CLI_OPT_CHECK_DAYS], 0, 365, false,
				    &number, err);
		if (r == 0)
			r = put(ret, "check_days", json_integer((json_int_t)number), err);
	}
	if (r == 0 && cli_has(args, CLI_OPT_CHECK_VOLUMES)) {
		r = cli_read_bool("--check-volumes", args->values[CLI_OPT_CHECK_VOLUMES], &yes,
				  err);
		if (r == 0)
			r = put(ret, "check_volumes", json_boolean(yes), err);
	}
	if (r == 0 && cli_has(args, CLI_OPT_REPAIR)) {
		const char *when = args->values[CLI_OPT_REPAIR];

		if (strcmp(when, "manual") != 0 && strcmp(when, "when_idle") != 0 &&
		    strcmp(when, "force") != 0)
			return cli_usage(err, "--repair: '%s' is not manual, when_idle or force",
					 when);
		r = put(ret, "repair", json_string(when), err);
	}
	return r;
}

static int put_when_full(const struct cli_args *args, json_t **body, struct tm_error *err)
{
	const char *what = args->values[CLI_OPT_WHEN_FULL];

	if (!what)
		return 0;
	if (strcmp(what, "queue") != 0 && strcmp(what, "error") != 0)
		return cli_usage(err, "--when-full: '%s' is neither queue nor error", what);
	return put(body, "when_full", json_string(what), err);
}

static int run_policy(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_json json_t *body = NULL;
	cli_auto_response struct cli_response response = { 0 };
	struct cli_url url;
	int r = cli_read_pool(args->operands[0], err);

	if (r == 0)
		r = read_policy(args, &body, err);
	if (r == 0)
		r = put_when_full(args, &body, err);
	if (r < 0)
		return r;
	pool_url(&url, args->operands[0], "/policy");
	if (body)
		return cli_change(cli, args, "PATCH", &url, body, err);

	r = cli_get(cli, &url, &response, err);
	if (r < 0 || cli->json)
		return r;
	print_policy(&cli->output, response.document);
	if (cli_present(response.document, "when_full"))
		cli_field(&cli->output, "When full", CLI_PLAIN, "%s",
			  strcmp(cli_string(response.document, "when_full"), "error") == 0
				  ? "writes fail"
				  : "writes wait");
	return 0;
}

/* ---- changing ------------------------------------------------------------------------------- */

/* A size from option @id as field @name of @body, when it was given. */
static int put_size(const struct cli_args *args, enum cli_option_id id, json_t **body,
		    const char *name, struct tm_error *err)
{
	char what[64];
	uint64_t size;
	int r;

	if (!cli_has(args, id))
		return 0;
	(void)snprintf(what, sizeof(what), "--%s", cli_option(id)->name);
	r = cli_read_size(what, args->values[id], &size, err);
	return r < 0 ? r : put(body, name, json_integer((json_int_t)size), err);
}

/* Switches that turn off what is on when nothing is said. */
static int put_switches(const struct cli_args *args, json_t **body, struct tm_error *err)
{
	static const struct {
		enum cli_option_id id;
		const char *name;
	} switches[] = {
		{ CLI_OPT_NO_ZEROING, "zeroing" },
		{ CLI_OPT_NO_DISCARD, "discard" },
		{ CLI_OPT_NO_DISCARD, "discard_passdown" },
		{ CLI_OPT_NO_PASSDOWN, "discard_passdown" },
		{ CLI_OPT_NO_ACTIVATE, "activate" },
	};

	for (size_t i = 0; i < TM_ARRAY_SIZE(switches); i++) {
		if (!cli_has(args, switches[i].id))
			continue;
		if (put(body, switches[i].name, json_false(), err) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int run_create(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	tm_auto_free char *directory = NULL;
	cli_auto_json json_t *body = NULL;
	cli_auto_json json_t *policy = NULL;
	json_t *backing;
	struct cli_url url;
	int r;

	if (!tm_name_valid(args->operands[0])) {
		(void)tm_error_set(err, TM_ERR_BAD_NAME, EINVAL, "'%s' cannot be a pool's name",
				   args->operands[0]);
		tm_error_hint(err,
			      "names have 1 to %d letters, digits and '.', '_', '-', begin with "
			      "a letter or digit, and do not look like an id",
			      TM_NAME_MAX);
		return -EINVAL;
	}
	if (!cli_has(args, CLI_OPT_DIRECTORY) || !cli_has(args, CLI_OPT_SIZE))
		return cli_usage(err, "pool create: --%s is missing",
				 cli_has(args, CLI_OPT_DIRECTORY) ? "size" : "directory");
	r = cli_read_directory("--directory", args->values[CLI_OPT_DIRECTORY], &directory, err);
	if (r < 0)
		return r;
	backing = json_pack("{s:s, s:s}", "kind", "file", "directory", directory);
	if (!backing) {
		(void)cli_usage(err, "--directory: the path is not UTF-8");
		return -EINVAL;
	}
	r = put(&body, "name", json_string(args->operands[0]), err);
	if (r == 0 && cli_has(args, CLI_OPT_SPARSE))
		r = json_object_set_new(backing, "sparse", json_true()) < 0 ? cli_no_memory(err)
									    : 0;
	if (r == 0)
		r = put(&body, "backing", backing, err);
	else
		json_decref(backing);
	if (r == 0)
		r = put_size(args, CLI_OPT_SIZE, &body, "data_size", err);
	if (r == 0)
		r = put_size(args, CLI_OPT_METADATA_SIZE, &body, "metadata_size", err);
	if (r == 0)
		r = put_size(args, CLI_OPT_BLOCK_SIZE, &body, "block_size", err);
	if (r == 0)
		r = put_switches(args, &body, err);
	if (r == 0)
		r = put_when_full(args, &body, err);
	if (r == 0)
		r = read_policy(args, &policy, err);
	if (r == 0 && policy)
		r = put(&body, "policy", json_incref(policy), err);
	if (r < 0)
		return r;
	cli_url_init(&url, "/v1/pools");
	return cli_change(cli, args, "POST", &url, body, err);
}

static int run_import(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	tm_auto_free char *directory = NULL;
	cli_auto_json json_t *body = NULL;
	struct cli_url url;
	int r = cli_read_directory("DIRECTORY", args->operands[0], &directory, err);

	if (r < 0)
		return r;
	body = json_pack("{s:s}", "directory", directory);
	if (!body)
		return cli_usage(err, "DIRECTORY: the path is not UTF-8");
	r = put_switches(args, &body, err);
	if (r < 0)
		return r;
	cli_url_init(&url, "/v1/pools/import");
	return cli_change(cli, args, "POST", &url, body, err);
}

static int run_delete(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	bool with_volumes = cli_has(args, CLI_OPT_WITH_VOLUMES);
	struct cli_url url;
	int r = cli_read_pool(args->operands[0], err);

	if (r < 0)
		return r;
	r = cli_confirm(cli, args, err, "Delete pool '%s'%s and its files?", args->operands[0],
			with_volumes ? ", all its volumes" : "");
	if (r < 0)
		return r;
	pool_url(&url, args->operands[0], "");
	if (with_volumes)
		cli_url_query(&url, "with_volumes", "true");
	if (cli_has(args, CLI_OPT_FORGET))
		cli_url_query(&url, "forget", "true");
	return cli_change(cli, args, "DELETE", &url, NULL, err);
}

static int act(struct cli *cli, const struct cli_args *args, const char *action,
	       struct tm_error *err)
{
	struct cli_url url;
	int r = cli_read_pool(args->operands[0], err);

	if (r < 0)
		return r;
	pool_url(&url, args->operands[0], action);
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

static int run_repair(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_json json_t *body = NULL;
	struct cli_url url;
	int r = cli_read_pool(args->operands[0], err);

	if (r == 0 && cli_has(args, CLI_OPT_FORCE))
		r = put(&body, "force", json_true(), err);
	if (r < 0)
		return r;
	pool_url(&url, args->operands[0], "/repair");
	return cli_change(cli, args, "POST", &url, body, err);
}

static int run_check(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	cli_auto_json json_t *body = NULL;
	struct cli_url url;
	int r = cli_read_pool(args->operands[0], err);

	if (r == 0 && cli_has(args, CLI_OPT_COPY))
		r = put(&body, "copy", json_true(), err);
	if (r < 0)
		return r;
	pool_url(&url, args->operands[0], "/check");
	return cli_change(cli, args, "POST", &url, body, err);
}

static int run_copies(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	static const struct cli_column columns[] = {
		{ .title = "COPY" }, { .title = "KEPT SINCE" },          { .title = "WHY" },
		{ .title = "KIND" }, { .title = "SIZE", .right = true },
	};
	cli_auto_table struct cli_table *t = NULL;
	cli_auto_json json_t *items = NULL;
	struct cli_url url;
	const json_t *copy;
	size_t i;
	int r = cli_read_pool(args->operands[0], err);

	if (r < 0)
		return r;
	pool_url(&url, args->operands[0], "/copies");
	r = cli_list_table(cli, &url, 0, "there are no copies of its metadata", columns,
			   TM_ARRAY_SIZE(columns), &items, &t, err);
	if (r <= 0)
		return r;
	json_array_foreach (items, i, copy) {
		char text[64];

		cli_table_row(t);
		cli_table_cell(t, CLI_STRONG, "%s", cli_string(copy, "name"));
		cli_table_cell(t, CLI_PLAIN, "%s",
			       cli_time(cli_string(copy, "time"), text, sizeof(text)));
		cli_table_cell(t, CLI_PLAIN, "%s", cli_string(copy, "why"));
		cli_table_cell(t, CLI_PLAIN, "%s", cli_string(copy, "kind"));
		cli_table_cell(t, CLI_PLAIN, "%s",
			       cli_size(cli_uint(copy, "bytes"), text, sizeof(text)));
	}
	return cli_table_print(t, err);
}

static int run_restore(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	const char *pool = args->operands[0], *copy = args->operands[1];
	cli_auto_json json_t *body = NULL;
	struct cli_url url;
	int r = cli_read_pool(pool, err);

	if (r == 0 && (!*copy || copy[strspn(copy, "0123456789TZabcdefghijklmnopqrstuvwxyz-")])) {
		r = cli_usage(err, "'%s' is not the name of a copy", copy);
		tm_error_hint(err, "those there are: thinmgr pool copies %s", pool);
	}
	if (r == 0)
		r = put(&body, "copy", json_string(copy), err);
	if (r == 0 && cli_has(args, CLI_OPT_FORCE))
		r = put(&body, "force", json_true(), err);
	if (r == 0)
		r = cli_confirm(cli, args, err,
				"Give up what pool '%s' has mapped since '%s'? Blocks that went to "
				"other volumes meanwhile would be overwritten.",
				pool, copy);
	if (r < 0)
		return r;
	pool_url(&url, pool, "/restore-metadata");
	return cli_change(cli, args, "POST", &url, body, err);
}

static int run_extend(struct cli *cli, const struct cli_args *args, struct tm_error *err)
{
	static const struct {
		enum cli_option_id id;
		const char *what, *space, *field;
	} spaces[] = {
		{ CLI_OPT_DATA, "--data", "data", "data_size" },
		{ CLI_OPT_METADATA, "--metadata", "metadata", "metadata_size" },
	};
	cli_auto_response struct cli_response pool = { 0 };
	cli_auto_json json_t *body = NULL;
	struct cli_url url;
	int r = cli_read_pool(args->operands[0], err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < TM_ARRAY_SIZE(spaces); i++) {
		bool relative = false;
		uint64_t size;

		if (!cli_has(args, spaces[i].id))
			continue;
		r = cli_read_size_change(spaces[i].what, args->values[spaces[i].id], &size,
					 &relative, err);
		if (r < 0)
			return r;
		if (relative && !pool.document) {
			pool_url(&url, args->operands[0], "");
			r = cli_look_up(cli, &url, &pool, err);
			if (r < 0)
				return r;
		}
		if (relative)
			size = tm_sat_add(
				size, cli_uint(cli_object(pool.document, spaces[i].space), "size"));
		if (size > INT64_MAX)
			return cli_usage(err, "%s: the sum is too large", spaces[i].what);
		r = put(&body, spaces[i].field, json_integer((json_int_t)size), err);
		if (r < 0)
			return r;
	}
	if (!body)
		return cli_usage(err, "pool extend: --data or --metadata is missing");
	pool_url(&url, args->operands[0], "/extend");
	return cli_change(cli, args, "POST", &url, body, err);
}

const struct cli_command cli_pool_commands[] = {
	{ "pool", "list", "", "List pools", NULL, 0, 0, 0, run_list },
	{ "pool", "show", "POOL", "Show a pool", NULL, 0, 1, 1, run_show },
	{ "pool", "create", "NAME", "Make a pool in a directory",
	  "--directory and --size are required. The pool grows by itself until --max, or as far\n"
	  "as the file system has room.",
	  CLI_CHANGE_OPTIONS | CLI_POLICY_OPTIONS | CLI_BIT(CLI_OPT_DIRECTORY) |
		  CLI_BIT(CLI_OPT_SIZE) | CLI_BIT(CLI_OPT_METADATA_SIZE) |
		  CLI_BIT(CLI_OPT_BLOCK_SIZE) | CLI_BIT(CLI_OPT_SPARSE) |
		  CLI_BIT(CLI_OPT_NO_ZEROING) | CLI_BIT(CLI_OPT_NO_DISCARD) |
		  CLI_BIT(CLI_OPT_NO_PASSDOWN) | CLI_BIT(CLI_OPT_NO_ACTIVATE),
	  1, 1, run_create },
	{ "pool", "import", "DIRECTORY", "Take over a pool from its directory",
	  "For a pool whose files are there but that the daemon's database does not know.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_NO_ACTIVATE), 1, 1, run_import },
	{ "pool", "delete", "POOL", "Delete a pool and its files",
	  "Refused while the pool has volumes, unless --with-volumes is given.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_WITH_VOLUMES) | CLI_BIT(CLI_OPT_FORGET) |
		  CLI_BIT(CLI_OPT_YES),
	  1, 1, run_delete },
	{ "pool", "activate", "POOL", "Make a pool's devices", NULL, CLI_CHANGE_OPTIONS, 1, 1,
	  run_activate },
	{ "pool", "deactivate", "POOL", "Remove a pool's devices",
	  "Refused while a volume is in use.", CLI_CHANGE_OPTIONS, 1, 1, run_deactivate },
	{ "pool", "repair", "POOL", "Mend a pool's metadata",
	  "Refused while a volume is in use, unless --force is given. The metadata there was is\n"
	  "kept beside the pool.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_FORCE), 1, 1, run_repair },
	{ "pool", "check", "POOL", "See whether a pool's metadata is sound",
	  "Also while it is in use. Nothing is changed. With --copy what was read is kept, for\n"
	  "'thinmgr pool restore-metadata'.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_COPY), 1, 1, run_check },
	{ "pool", "copies", "POOL", "List metadata of a pool that is kept",
	  "Safety copies, and what was in place before a repair, or before going back to an\n"
	  "earlier copy.",
	  0, 1, 1, run_copies },
	{ "pool", "restore-metadata", "POOL COPY", "Go back to metadata that is kept",
	  "Refused while a volume is in use; and, without --force, when the copy lacks volumes "
	  "that\n"
	  "have something mapped now, or is of another transaction. What is there now is kept.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_FORCE) | CLI_BIT(CLI_OPT_YES), 2, 2, run_restore },
	{ "pool", "extend", "POOL", "Add space to a pool",
	  "Sizes are new totals; with a leading + they are added.",
	  CLI_CHANGE_OPTIONS | CLI_BIT(CLI_OPT_DATA) | CLI_BIT(CLI_OPT_METADATA), 1, 1,
	  run_extend },
	{ "pool", "policy", "POOL", "Show a pool's policy, or change it",
	  "Without policy options it is shown; what they do not name stays as it is.",
	  CLI_CHANGE_OPTIONS | CLI_POLICY_OPTIONS, 1, 1, run_policy },
	{ 0 },
};
