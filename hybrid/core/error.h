/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hy_error_detail() says: whoever fails to attach or to open something knows more than an errno
 * tells, and the remedy. Never on the data path.
 */
#ifndef HYBRID_CORE_ERROR_H
#define HYBRID_CORE_ERROR_H

#include "core/plugin.h"

/* At the start of a call that may set it. */
HY_PLUGIN void error_detail_clear(void);
/* One sentence that names the remedy. Returns error, so that one can `return error_detail_set(-ENODEV, ...)`.
 */
HY_PLUGIN __attribute__((format(printf, 2, 3))) int error_detail_set(int error, const char *format, ...);

#endif
