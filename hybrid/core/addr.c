/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as text: RFC 5952 for IPv6, brackets where a port follows (RFC 3986 section 3.2.2). */
#include "core/hybrid.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static_assert(HY_ADDR_STRLEN >= sizeof "[]:65535" + INET6_ADDRSTRLEN - 1, "the longest address fits");

/* The IPv4-mapped prefix, RFC 4291 section 2.5.5.2. */
static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* Digits only: strtoul would take a sign or spaces. */
static int port_parse(const char *text, uint16_t *port) {
  uint32_t value = 0;
  if (*text == '\0')
    return -EINVAL;
  for (; *text != '\0'; text++) {
    if (*text < '0' || *text > '9')
      return -EINVAL;
    value = value * 10 + (uint32_t)(*text - '0');
    if (value > UINT16_MAX)
      return -EINVAL;
  }
  *port = (uint16_t)value;
  return 0;
}

static int ip_parse(const char *text, size_t len, hy_addr *out) {
  char ip[INET6_ADDRSTRLEN];
  if (len == 0 || len >= sizeof ip)
    return -EINVAL;
  memcpy(ip, text, len);
  ip[len] = '\0';
  if (inet_pton(AF_INET, ip, out->ip + sizeof mapped) == 1) {
    memcpy(out->ip, mapped, sizeof mapped);
    out->family = 4;
    return 0;
  }
  if (inet_pton(AF_INET6, ip, out->ip) != 1)
    return -EINVAL;
  out->family = memcmp(out->ip, mapped, sizeof mapped) == 0 ? 4 : 6;
  return 0;
}

int hy_addr_parse(const char *text, hy_addr *out) {
  hy_addr addr = {0};
  const char *port = NULL;
  int rc = 0;
  if (text[0] == '[') {
    const char *close = strchr(text, ']');
    if (close == NULL || (close[1] != ':' && close[1] != '\0'))
      return -EINVAL;
    /* Brackets are for IPv6: "[10.0.0.1]" is nobody's notation. */
    if (memchr(text, ':', (size_t)(close - text)) == NULL)
      return -EINVAL;
    rc = ip_parse(text + 1, (size_t)(close - text - 1), &addr);
    port = close[1] == ':' ? close + 2 : NULL;
  } else {
    const char *colon = strchr(text, ':');
    bool several = colon != NULL && strchr(colon + 1, ':') != NULL;
    bool any = colon == text || (text[0] == '*' && colon == text + 1);
    if (colon != NULL && !several) {
      port = colon + 1;
      if (!any)
        rc = ip_parse(text, (size_t)(colon - text), &addr);
    } else {
      rc = ip_parse(text, strlen(text), &addr);
    }
  }
  if (rc == 0 && port != NULL)
    rc = port_parse(port, &addr.port);
  if (rc == 0)
    *out = addr;
  return rc;
}

const char *hy_addr_format(const hy_addr *addr, char *text) {
  char ip[INET6_ADDRSTRLEN];
  switch (addr->family) {
  case 4:
    inet_ntop(AF_INET, addr->ip + sizeof mapped, ip, sizeof ip);
    break;
  case 6:
    inet_ntop(AF_INET6, addr->ip, ip, sizeof ip);
    break;
  default:
    snprintf(text, HY_ADDR_STRLEN, "*:%u", addr->port);
    return text;
  }
  if (addr->port == 0)
    snprintf(text, HY_ADDR_STRLEN, "%s", ip);
  else
    snprintf(text, HY_ADDR_STRLEN, addr->family == 6 ? "[%s]:%u" : "%s:%u", ip, addr->port);
  return text;
}
