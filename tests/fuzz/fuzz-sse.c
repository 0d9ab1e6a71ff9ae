// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz the reader of event streams: however the bytes are cut into pieces, the events are the same.
 */

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Fuzz targets are linked with the daemon's parts alone; this is one of the command's. */
#include "../../cli/sse.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* All events as one text, to compare. */
struct heard {
	char *text;
	size_t len;
};

static void hear(struct heard *h, const char *bytes, size_t n)
{
	h->text = realloc(h->text, h->len + n + 1);
	assert(h->text);
	memcpy(h->text + h->len, bytes, n);
	h->len += n;
	h->text[h->len] = '\0';
}

static int on_event(void *userdata, const struct cli_sse_event *event)
{
	struct heard *h = userdata;

	assert(strlen(event->id) < 64 && strlen(event->type) < 64);
	assert(!strpbrk(event->id, "\r\n") && !strpbrk(event->type, "\r\n"));
	assert(event->data && event->data[event->data_len] == '\0');
	hear(h, event->id, strlen(event->id) + 1);
	hear(h, event->type, strlen(event->type) + 1);
	hear(h, event->data, event->data_len + 1);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data;
	struct heard whole = { 0 }, pieces = { 0 };
	struct cli_sse a = { 0 }, b = { 0 };
	size_t at = 0, step = 1;

	if (size > 64 * 1024)
		return 0;
	assert(cli_sse_feed(&a, bytes, size, on_event, &whole) == 0);
	while (at < size) {
		size_t n = step < size - at ? step : size - at;

		assert(cli_sse_feed(&b, bytes + at, n, on_event, &pieces) == 0);
		at += n;
		step = step % 7 + 1;
	}
	assert(whole.len == pieces.len);
	assert(whole.len == 0 || memcmp(whole.text, pieces.text, whole.len) == 0);
	assert(strcmp(a.id, b.id) == 0);
	free(whole.text);
	free(pieces.text);
	cli_sse_done(&a);
	cli_sse_done(&b);
	return 0;
}
