/* SPDX-License-Identifier: Apache-2.0 */
/* What hy_error_detail() says next in this thread. */
#ifndef HYBRID_CORE_ERROR_H
#define HYBRID_CORE_ERROR_H

/* One sentence that names the remedy; printf's format. */
void error_detail_set(const char *format, ...) __attribute__((format(printf, 1, 2)));
void error_detail_clear(void);

#endif
