// SPDX-License-Identifier: GPL-2.0-or-later
/* The daemon itself. */

#include "api/encode.h"
#include "api/handlers.h"
#include "api/request.h"

int tm_handle_system(struct tm_request *request)
{
	tm_auto_view struct tm_view *view = tm_core_view(request->http->core);

	return tm_answer_json(request, MHD_HTTP_OK, tm_encode_system(view));
}

int tm_handle_health(struct tm_request *request)
{
	tm_auto_view struct tm_view *view = tm_core_view(request->http->core);

	return tm_answer_json(request,
			      view->system.ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
			      json_pack("{s:b, s:b}", "live", 1, "ready", view->system.ready));
}
