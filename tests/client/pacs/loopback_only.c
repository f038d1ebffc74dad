/* Two things that Debian's Orthanc 1.10 has no setting for.

   It listens on every address; tests listen on loopback only.
   Its web server (civetweb) asks libssl for SSL_get_peer_certificate by name, which OpenSSL 3
   calls SSL_get1_peer_certificate, and jumps to nothing at the first HTTPS request. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static void *found(void *handle, const char *name) {
  static void *(*real)(void *, const char *);
  if (!real) real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
  return real(handle, name);
}

void *dlsym(void *handle, const char *name) {
  void *address = found(handle, name);
  if (!address && !strcmp(name, "SSL_get_peer_certificate"))
    address = found(handle, "SSL_get1_peer_certificate");
  return address;
}

int bind(int descriptor, const struct sockaddr *address, socklen_t length) {
  static int (*real)(int, const struct sockaddr *, socklen_t);
  if (!real) real = (int (*)(int, const struct sockaddr *, socklen_t))found(RTLD_NEXT, "bind");
  int yes = 1; /* a killed PACS starts again at once on its old port */
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (address->sa_family == AF_INET) {
    struct sockaddr_in here = *(const struct sockaddr_in *)address;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return real(descriptor, (const struct sockaddr *)&here, sizeof here);
  }
  if (address->sa_family == AF_INET6) {
    struct sockaddr_in6 here = *(const struct sockaddr_in6 *)address;
    here.sin6_addr = in6addr_loopback;
    return real(descriptor, (const struct sockaddr *)&here, sizeof here);
  }
  return real(descriptor, address, length);
}
