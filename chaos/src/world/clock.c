/* The clock of one host: what the C library says of the time of day, moved by what a file says.
 *
 * Loaded before the C library (LD_PRELOAD) into every process of a host whose clock is to jump. It
 * moves CLOCK_REALTIME, its coarse form and CLOCK_TAI, gettimeofday and time. It leaves alone
 * CLOCK_MONOTONIC and CLOCK_BOOTTIME, as a jump of a real clock does. It cannot reach the times that
 * the kernel itself writes (of files) nor its timers on CLOCK_REALTIME (timerfd, clock_nanosleep,
 * pthread_cond_timedwait). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Seconds to add; the harness writes them. A host without the file has the machine's own time. */
static const volatile int64_t *ahead;

__attribute__((constructor)) static void open_clock(void) {
  const char *path = getenv("CHAOS_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *map = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (map != MAP_FAILED) ahead = map;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  /* Not the C library's own: this stands in its place. */
  if (syscall(SYS_clock_gettime, clock, now) != 0) return -1;
  if (ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI))
    now->tv_sec += *ahead;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec exact;
  if (clock_gettime(CLOCK_REALTIME_COARSE, &exact) != 0) return -1;
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}
