/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bus/signal.h"

#include <stdio.h>
#include <string.h>

#include "common/fsutil.h"
#include "common/utf8.h"

static struct tm_bus_signal *add(struct tm_bus_signals *signals, const char *member,
				 const char *signature)
{
	struct tm_bus_signal *s = &signals->list[signals->n++];

	*s = (struct tm_bus_signal){ .member = member, .signature = signature };
	return s;
}

static union tm_bus_argument text(const char *value)
{
	return (union tm_bus_argument){ .text = value ? value : "" };
}

static union tm_bus_argument number(uint64_t value)
{
	return (union tm_bus_argument){ .number = value };
}

/* jansson gives out valid UTF-8 only, and without NULs unless asked otherwise. */
static union tm_bus_argument data_text(const struct tm_bus_signals *signals, const char *key)
{
	return text(json_string_value(json_object_get(signals->data, key)));
}

static union tm_bus_argument data_number(const struct tm_bus_signals *signals, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(signals->data, key));

	return number(value > 0 ? (uint64_t)value : 0);
}

static union tm_bus_argument data_time(const struct tm_bus_signals *signals, const char *key)
{
	const char *value = json_string_value(json_object_get(signals->data, key));
	uint64_t usec = 0;

	return number(value && tm_time_parse(value, &usec) == 0 ? usec : 0);
}

static void add_low_space(struct tm_bus_signals *signals, const struct tm_event *e,
			  const char *space)
{
	struct tm_bus_signal *s = add(signals, "LowSpace", "ssttt");

	s->arguments[0] = text(e->pool_name);
	s->arguments[1] = text(space);
	s->arguments[2] = data_number(signals, "used");
	s->arguments[3] = data_number(signals, "total");
	s->arguments[4] = number(e->seq);
}

static void add_special(struct tm_bus_signals *signals, const struct tm_event *e)
{
	struct tm_bus_signal *s;

	switch (e->type) {
	case TM_EVENT_LOW_SPACE:
		add_low_space(signals, e, "data");
		break;
	case TM_EVENT_METADATA_LOW_SPACE:
		add_low_space(signals, e, "metadata");
		break;
	case TM_EVENT_OUT_OF_SPACE:
		s = add(signals, "OutOfSpace", "stt");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = data_time(signals, "until");
		s->arguments[2] = number(e->seq);
		break;
	case TM_EVENT_MODE_CHANGED:
		s = add(signals, "ModeChanged", "ssst");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = data_text(signals, "from");
		s->arguments[2] = data_text(signals, "to");
		s->arguments[3] = number(e->seq);
		break;
	case TM_EVENT_NEEDS_CHECK:
		s = add(signals, "NeedsCheck", "st");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = number(e->seq);
		break;
	case TM_EVENT_REPAIR_WAITS: /* the message names who it waits for */
		s = add(signals, "RepairWaits", "ssst");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = text(e->volume_name);
		s->arguments[2] = text(signals->message);
		s->arguments[3] = number(e->seq);
		break;
	case TM_EVENT_REPAIR_STARTED:
		s = add(signals, "RepairStarted", "st");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = number(e->seq);
		break;
	case TM_EVENT_REPAIRED:
	case TM_EVENT_REPAIR_FAILED:
		s = add(signals, "RepairFinished", "ssst");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = e->type == TM_EVENT_REPAIRED ? data_text(signals, "verdict")
							       : text("failed");
		s->arguments[2] = text(signals->message);
		s->arguments[3] = number(e->seq);
		break;
	case TM_EVENT_METADATA_RESTORED:
		s = add(signals, "MetadataRestored", "ssst");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = data_text(signals, "copy");
		s->arguments[2] = text(signals->message);
		s->arguments[3] = number(e->seq);
		break;
	case TM_EVENT_EXTENDED:
		s = add(signals, "Extended", "sstttt");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = data_text(signals, "space");
		s->arguments[2] = data_number(signals, "from");
		s->arguments[3] = data_number(signals, "to");
		s->arguments[4] = data_number(signals, "reaction_usec");
		s->arguments[5] = number(e->seq);
		break;
	case TM_EVENT_EXTEND_FAILED:
		s = add(signals, "ExtendFailed", "ssst");
		s->arguments[0] = text(e->pool_name);
		s->arguments[1] = data_text(signals, "space");
		s->arguments[2] = data_text(signals, "reason");
		s->arguments[3] = number(e->seq);
		break;
	default:
		break;
	}
}

void tm_bus_signals_of(const struct tm_event *e, struct tm_bus_signals *ret)
{
	struct tm_bus_signal *s;

	ret->n = 0;
	ret->data = e->data ? json_loads(e->data, 0, NULL) : NULL;
	/* A path in it may have any bytes; the bus would end the connection over them. */
	(void)snprintf(ret->message, sizeof(ret->message), "%s", e->message);
	tm_utf8_clean(ret->message);

	add_special(ret, e);
	s = add(ret, "Event", "tssss");
	s->arguments[0] = number(e->seq);
	s->arguments[1] = text(tm_event_slug(e->type));
	s->arguments[2] = text(tm_severity_name(tm_event_severity(e->type)));
	s->arguments[3] = text(e->pool_name);
	s->arguments[4] = text(ret->message);
}

void tm_bus_signals_done(struct tm_bus_signals *signals)
{
	json_decref(signals->data);
	signals->data = NULL;
	signals->n = 0;
}
