/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bus/manager.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/signal.h"
#include "common/utf8.h"

#define KERNEL_TARGET_SIZE 128

/* "dm_thin_pool 1.22.0 (distribution)", or "" when there is none. */
static const char *kernel_target(const struct tm_view *view, char buf[KERNEL_TARGET_SIZE])
{
	const struct tm_system_view *s = &view->system;

	buf[0] = '\0';
	if (s->target_version[0])
		(void)snprintf(buf, KERNEL_TARGET_SIZE, "%s %s (%s)", s->target_module,
			       s->target_version, s->target_origin);
	return buf;
}

static int get_version(sd_bus *bus, const char *path, const char *interface, const char *property,
		       sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const struct tm_bus_manager *m = userdata;

	(void)bus, (void)path, (void)interface, (void)property, (void)ret_error;
	return sd_bus_message_append_basic(reply, 's', m->view->system.version);
}

static int get_kernel_target(sd_bus *bus, const char *path, const char *interface,
			     const char *property, sd_bus_message *reply, void *userdata,
			     sd_bus_error *ret_error)
{
	const struct tm_bus_manager *m = userdata;
	char buf[KERNEL_TARGET_SIZE];

	(void)bus, (void)path, (void)interface, (void)property, (void)ret_error;
	return sd_bus_message_append_basic(reply, 's', kernel_target(m->view, buf));
}

static int get_ready(sd_bus *bus, const char *path, const char *interface, const char *property,
		     sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const struct tm_bus_manager *m = userdata;
	int ready = m->view->system.ready;

	(void)bus, (void)path, (void)interface, (void)property, (void)ret_error;
	return sd_bus_message_append_basic(reply, 'b', &ready);
}

static int get_degraded(sd_bus *bus, const char *path, const char *interface, const char *property,
			sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const struct tm_bus_manager *m = userdata;
	const struct tm_system_view *s = &m->view->system;
	int r;

	(void)bus, (void)path, (void)interface, (void)property, (void)ret_error;
	r = sd_bus_message_open_container(reply, 'a', "s");
	for (size_t i = 0; i < s->n_degraded && r >= 0; i++) {
		char sentence[sizeof(s->degraded[0])];

		(void)snprintf(sentence, sizeof(sentence), "%s", s->degraded[i]);
		tm_utf8_clean(sentence);
		r = sd_bus_message_append_basic(reply, 's', sentence);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_pools(sd_bus *bus, const char *path, const char *interface, const char *property,
		     sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const struct tm_bus_manager *m = userdata;
	int r;

	(void)bus, (void)path, (void)interface, (void)property, (void)ret_error;
	r = sd_bus_message_open_container(reply, 'a', "s");
	for (size_t i = 0; i < m->view->n_pools && r >= 0; i++)
		r = sd_bus_message_append_basic(reply, 's', m->view->pools[i]->record.name);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("KernelTarget", "s", get_kernel_target, 0,
			SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Ready", "b", get_ready, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Degraded", "as", get_degraded, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("Pools", "as", get_pools, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_SIGNAL_WITH_ARGS(
		"LowSpace",
		SD_BUS_ARGS("s", pool, "s", space, "t", used_bytes, "t", total_bytes, "t", seq), 0),
	SD_BUS_SIGNAL_WITH_ARGS("OutOfSpace",
				SD_BUS_ARGS("s", pool, "t", queueing_until_usec, "t", seq), 0),
	SD_BUS_SIGNAL_WITH_ARGS("ModeChanged", SD_BUS_ARGS("s", pool, "s", from, "s", to, "t", seq),
				0),
	SD_BUS_SIGNAL_WITH_ARGS("NeedsCheck", SD_BUS_ARGS("s", pool, "t", seq), 0),
	SD_BUS_SIGNAL_WITH_ARGS("RepairWaits",
				SD_BUS_ARGS("s", pool, "s", volume, "s", message, "t", seq), 0),
	SD_BUS_SIGNAL_WITH_ARGS("RepairStarted", SD_BUS_ARGS("s", pool, "t", seq), 0),
	SD_BUS_SIGNAL_WITH_ARGS("RepairFinished",
				SD_BUS_ARGS("s", pool, "s", verdict, "s", message, "t", seq), 0),
	SD_BUS_SIGNAL_WITH_ARGS("MetadataRestored",
				SD_BUS_ARGS("s", pool, "s", copy, "s", message, "t", seq), 0),
	SD_BUS_SIGNAL_WITH_ARGS("Extended",
				SD_BUS_ARGS("s", pool, "s", space, "t", from_bytes, "t", to_bytes,
					    "t", reaction_usec, "t", seq),
				0),
	SD_BUS_SIGNAL_WITH_ARGS("ExtendFailed",
				SD_BUS_ARGS("s", pool, "s", space, "s", reason, "t", seq), 0),
	SD_BUS_SIGNAL_WITH_ARGS(
		"Event", SD_BUS_ARGS("t", seq, "s", type, "s", severity, "s", pool, "s", message),
		0),
	SD_BUS_VTABLE_END,
};

int tm_bus_manager_add(struct tm_bus_manager *manager, sd_bus *bus, sd_bus_slot **ret_slot)
{
	return sd_bus_add_object_vtable(bus, ret_slot, TM_BUS_PATH, TM_BUS_INTERFACE, vtable,
					manager);
}

static bool same_degraded(const struct tm_system_view *a, const struct tm_system_view *b)
{
	if (a->n_degraded != b->n_degraded)
		return false;
	for (size_t i = 0; i < a->n_degraded; i++) {
		if (strcmp(a->degraded[i], b->degraded[i]) != 0)
			return false;
	}
	return true;
}

static bool same_pools(const struct tm_view *a, const struct tm_view *b)
{
	if (a->n_pools != b->n_pools)
		return false;
	for (size_t i = 0; i < a->n_pools; i++) {
		/* A pool that did not change is the same object in both. */
		if (a->pools[i] != b->pools[i] &&
		    strcmp(a->pools[i]->record.name, b->pools[i]->record.name) != 0)
			return false;
	}
	return true;
}

int tm_bus_manager_set_view(struct tm_bus_manager *manager, struct tm_view *view, sd_bus *bus)
{
	struct tm_view *before = manager->view;
	char a[KERNEL_TARGET_SIZE], b[KERNEL_TARGET_SIZE];
	const char *changed[5];
	size_t n = 0;
	int r = 0;

	manager->view = view;
	if (before && bus) {
		if (strcmp(kernel_target(before, a), kernel_target(view, b)) != 0)
			changed[n++] = "KernelTarget";
		if (before->system.ready != view->system.ready)
			changed[n++] = "Ready";
		if (!same_degraded(&before->system, &view->system))
			changed[n++] = "Degraded";
		if (!same_pools(before, view))
			changed[n++] = "Pools";
		changed[n] = NULL;
		if (n)
			r = sd_bus_emit_properties_changed_strv(bus, TM_BUS_PATH, TM_BUS_INTERFACE,
								(char **)changed);
	}
	(void)tm_view_unref(before);
	return r < 0 ? r : 0;
}

static int emit(sd_bus *bus, const struct tm_bus_signal *signal)
{
	sd_bus_message *m = NULL;
	int r;

	r = sd_bus_message_new_signal(bus, &m, TM_BUS_PATH, TM_BUS_INTERFACE, signal->member);
	for (size_t i = 0; signal->signature[i] && r >= 0; i++) {
		const union tm_bus_argument *a = &signal->arguments[i];

		r = signal->signature[i] == 's' ? sd_bus_message_append_basic(m, 's', a->text)
						: sd_bus_message_append_basic(m, 't', &a->number);
	}
	if (r >= 0)
		r = sd_bus_send(bus, m, NULL);
	(void)sd_bus_message_unref(m);
	return r;
}

int tm_bus_manager_emit(sd_bus *bus, const struct tm_event *event)
{
	struct tm_bus_signals signals;
	int r = 0;

	tm_bus_signals_of(event, &signals);
	for (size_t i = 0; i < signals.n && r >= 0; i++)
		r = emit(bus, &signals.list[i]);
	tm_bus_signals_done(&signals);
	return r < 0 ? r : 0;
}

static void introspect_property(FILE *out, const sd_bus_vtable *v)
{
	/* Change emission is the default; only what differs is annotated. */
	if (v->flags & SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE) {
		(void)fprintf(out, "  <property name=\"%s\" type=\"%s\" access=\"read\"/>\n",
			      v->x.property.member, v->x.property.signature);
		return;
	}
	(void)fprintf(out,
		      "  <property name=\"%s\" type=\"%s\" access=\"read\">\n"
		      "   <annotation name=\"org.freedesktop.DBus.Property.EmitsChangedSignal\""
		      " value=\"%s\"/>\n"
		      "  </property>\n",
		      v->x.property.member, v->x.property.signature,
		      v->flags & SD_BUS_VTABLE_PROPERTY_CONST ? "const" : "false");
}

/* Our signals' arguments are of basic types: one character each, one name each. */
static void introspect_signal(FILE *out, const sd_bus_vtable *v)
{
	const char *name = v->x.signal.names;

	(void)fprintf(out, "  <signal name=\"%s\">\n", v->x.signal.member);
	for (const char *type = v->x.signal.signature; *type; type++) {
		(void)fprintf(out, "   <arg type=\"%c\" name=\"%s\"/>\n", *type, name);
		name += strlen(name) + 1;
	}
	(void)fprintf(out, "  </signal>\n");
}

void tm_bus_introspect(FILE *out)
{
	(void)fprintf(out, "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection"
			   " 1.0//EN\"\n"
			   " \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n"
			   "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->\n"
			   "<node name=\"" TM_BUS_PATH "\">\n"
			   " <interface name=\"" TM_BUS_INTERFACE "\">\n");
	for (const sd_bus_vtable *v = vtable; v->type != _SD_BUS_VTABLE_END; v++) {
		if (v->type == _SD_BUS_VTABLE_PROPERTY)
			introspect_property(out, v);
		else if (v->type == _SD_BUS_VTABLE_SIGNAL)
			introspect_signal(out, v);
	}
	(void)fprintf(out, " </interface>\n</node>\n");
}
