// LD_PRELOAD: fsync and fdatasync take SLOW_FSYNC_MS longer, and each adds a byte to the file SLOW_FSYNC_COUNT.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void wait_as_told(void) {
  static long ms = -1;
  if (ms < 0) {
    const char *told = getenv("SLOW_FSYNC_MS");
    ms = told ? atol(told) : 0;
  }
  const char *count = getenv("SLOW_FSYNC_COUNT");
  int file = count ? open(count, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
  if (file >= 0) {
    ssize_t written = write(file, "", 1);
    (void)written;
    close(file);
  }
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&left, &left)) {
  }
}

int fsync(int file) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  wait_as_told();
  return real(file);
}

int fdatasync(int file) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  wait_as_told();
  return real(file);
}
