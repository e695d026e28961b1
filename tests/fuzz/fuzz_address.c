/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text to hy_addr_parse(). What it accepts must come out of hy_addr_format()
 * as a text that means the same address, within the promised length.
 */
#include "core/hybrid.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char text[256];
  char formatted[HY_ADDR_STRLEN];
  hy_addr first = {0};
  hy_addr again = {0};
  if (size >= sizeof text)
    return -1;
  memcpy(text, data, size);
  text[size] = '\0';
  if (hy_addr_parse(text, &first) < 0)
    return 0;
  hy_addr_format(&first, formatted);
  if (memchr(formatted, '\0', sizeof formatted) == NULL)
    abort();
  if (hy_addr_parse(formatted, &again) < 0 || memcmp(&first, &again, sizeof first) != 0)
    abort();
  return 0;
}
